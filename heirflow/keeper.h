/* The process between wrapper and scheduler: owns the scheduler's process tree and its deadline.
 *
 * One keeper per term. It starts the scheduler once told to, kills the tree before the deadline by its own CLOCK_BOOTTIME
 * timer, and when the wrapper dies (EOF on the socket pair) kills the tree and then writes the abdication itself. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "config.h"
#include "error.h"

struct keeper_spec {
    const struct config *config; /* command, environment, directory, user, group, node, postgres, schema */
    const char *seat;
    int lock_fd;   /* the seat's lock, inherited so that it is held until the tree is gone */
    int output_fd; /* for the scheduler's output; 0: this process's own streams */
    int64_t member_id, term;
    const char *incarnation;
    int64_t deadline_ms; /* CLOCK_BOOTTIME: end of the lease */
    int64_t lease_ms, fence_grace_ms;
};

enum keeper_word {
    KEEPER_ECHO,         /* deadline_ms has been taken */
    KEEPER_STARTED,      /* exec succeeded; pid as seen by the wrapper */
    KEEPER_START_FAILED, /* text says what, where and the remedy; the tree is dead, the keeper waits for restart */
    KEEPER_EXITED,       /* main process ended (status as from waitpid) and all that was left is killed and reaped:
                            the tree is dead, the keeper waits for restart */
    KEEPER_TREE_DEAD,    /* stopped for good: the tree is dead and this keeper will never start another */
    KEEPER_GONE,         /* the keeper itself is dead and reaped, and so is the tree; last report, always comes */
};

struct keeper_report {
    enum keeper_word word;
    int64_t deadline_ms;
    pid_t pid;
    int status;
    char text[512];
};

struct keeper;
typedef void keeper_report_cb(void *data, const struct keeper_report *report);

/* Starts the keeper process and, in it, the scheduler. Reports run on the loop, or from keeper_drain. */
bool keeper_start(uv_loop_t *loop, const struct keeper_spec *spec, keeper_report_cb *on_report, void *data,
                  struct keeper **ret_keeper, struct error *error);

void keeper_set_deadline(struct keeper *self, int64_t deadline_ms); /* later ones only; answered by KEEPER_ECHO */
void keeper_restart(struct keeper *self);                  /* after KEEPER_EXITED or KEEPER_START_FAILED: same term again */
void keeper_stop(struct keeper *self, int64_t kill_at_ms); /* SIGTERM now, SIGKILL at that CLOCK_BOOTTIME; for good */
void keeper_end_run(struct keeper *self, int64_t kill_at_ms); /* the same, but KEEPER_EXITED follows: it may restart */
void keeper_kill(struct keeper *self); /* SIGKILL to the keeper, reap it, then the rest of the tree; KEEPER_GONE follows */
bool keeper_lives(const struct keeper *self); /* false from its death on, reported or not yet */
void keeper_drain(struct keeper *self);       /* handles reports that have already arrived; they run before it returns */
void keeper_free(struct keeper *self);        /* after KEEPER_GONE */

/* The body of `heirflow keeper`, the hidden command that keeper_start executes. Returns the exit status. */
int keeper_main(void);

/* "namespace", "user namespace", "cgroup" or "subreaper": how this process would contain a scheduler, tried for real. */
const char *keeper_containment(void);
