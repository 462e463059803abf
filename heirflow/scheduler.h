/* The scheduler's first steps: from the keeper's fork to the exec of the configured command; and those of an errand. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

struct scheduler_spec {
    json_t *command;              /* array of strings */
    const char *key;              /* of the configuration, that names the command; for error texts */
    json_t *environment;          /* object of strings; null: without that variable */
    const char *directory, *user; /* NULL: the wrapper's own */
    int output_fd;                /* 0: the wrapper's own streams */
    bool keeps_input;             /* else it reads from /dev/null */
    const char *group, *node, *seat;
    int64_t term;
    const char *leaf; /* cgroup to enter, "" for none */
};

/* Turns this process, a child of `parent`, into the command: session, signals, output, user, directory and environment of
 * the scheduler, and no other descriptors. Returns only if that fails. */
bool scheduler_become(const struct scheduler_spec *spec, pid_t parent, struct error *error);

/* The same without the command: this process goes on, for one of ours that runs as the scheduler would. */
bool scheduler_pose(const struct scheduler_spec *spec, pid_t parent, struct error *error);

/* Forks. The child sends `hello` on hello_fd (the kernel adds its pid), prepares itself and executes the command. *ret_fd
 * then reads as empty (exec has succeeded) or as one text that says what failed. */
bool scheduler_spawn(const struct scheduler_spec *spec, int hello_fd, const void *hello, size_t hello_size, pid_t *ret_pid,
                     int *ret_fd, struct error *error);
