/* One bounded command beside the scheduler: started, watched, ended with all that it has forked, and its end told.
 *
 * A process of our own, `heirflow errand`, stands between wrapper and command. It holds the time limit also while the
 * wrapper is frozen, and takes the command and its descendants, daemons included, with it when the wrapper dies. Several
 * may run side by side. Nothing here waits. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "error.h"

struct errand_spec {
    const char **command; /* argv, NULL-terminated; or NULL, and */
    const char *body;     /* the name of one of those given to errand_main, which spares an exec */
    const char *key;      /* of the configuration, that names the command; for error texts */
    json_t *environment;  /* object of strings, null for a variable less, or NULL: added to the wrapper's, less what is the
                             wrapper's alone */
    const char *directory, *user; /* NULL: the wrapper's own */
    const char *group, *node, *seat;
    int64_t term;
    int64_t timeout_ms;
    const void *input; /* the command's standard input, any bytes; NULL: /dev/null */
    size_t input_size;
    size_t output_most; /* standard output is kept, and more of it is a failure; 0: it is thrown away */
};

struct errand_end {
    const char *reason; /* NULL: exit status 0. Else "exit status 1: " and the last line of standard error, and the like */
    bool lost;          /* ended from outside: without namespaces a keeper's kill takes errands along */
    const void *output; /* of a success, if it was kept; not NULL, and valid within the callback */
    size_t output_size;
};

typedef void errand_end_cb(void *data, const struct errand_end *end);

struct errand;

/* Nothing of `spec` is used after the call. on_end runs once, on the loop, never from within these functions; the errand is
 * gone with it. */
bool errand_start(uv_loop_t *loop, const struct errand_spec *spec, errand_end_cb *on_end, void *data,
                  struct errand **ret_errand, struct error *error);

/* Kills it and all it has forked; on_end does not run. The loop stays alive until that is done. NULL is fine. */
void errand_cancel(struct errand *self);

/* What runs as a command would, in a process of its own, but is our own code. */
struct errand_body {
    const char *name;
    int (*run)(void); /* returns the exit status */
};

/* The body of `heirflow errand`, the hidden command between wrapper and command; the list ends with a NULL name. Returns
 * its exit code. */
int errand_main(const struct errand_body *bodies);
