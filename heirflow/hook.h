/* One hook: a command that is run for events, one at a time and in order, with the event as JSON on its standard input. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "config.h"
#include "errand.h"

enum { HOOK_QUEUED = 1000 }; /* events that may wait; then the oldest go */

/* One event is over and done with; reason NULL: the command ended with exit status 0. May call any of these functions. */
typedef void hook_done_cb(void *data, const json_t *event, const char *reason);

struct hook {
    uv_loop_t *loop;
    const struct config *config; /* read for each event anew */
    const char *seat;
    const char *key; /* "hooks.on_event" or "hooks.on_group_event" */
    hook_done_cb *on_done;
    void (*on_lost)(void *data); /* ended from outside: hook_run in a moment. NULL: at once */
    void *data;

    json_t *queue; /* the first one is being dealt with while there is an errand */
    struct errand *errand;
    int losses;      /* of the first one: ended from outside */
    int64_t dropped; /* since the queue was empty last */
};

/* argv of the hook that this key of the configuration names; NULL if none is configured. */
const char **hook_command(const struct config *config, const char *key);

/* An event of this node as a CloudEvent. `id` NULL: one is drawn; `reason` may be NULL; `data` is taken over, or NULL. */
json_t *hook_event(const struct config *config, const char *name, const char *id, int64_t term, const char *reason,
                   json_t *data);

void hook_init(struct hook *self);

/* Takes the event over, to be dealt with in its turn. */
void hook_put(struct hook *self, json_t *event);

/* Begins with what waits, unless it has begun: starts a process, so not where time is short. on_done runs on the loop,
 * from within only if the command cannot even be started. */
void hook_run(struct hook *self);

bool hook_is_idle(const struct hook *self);

/* Kills what runs and forgets what waits; on_done does not run. Returns how many events that were. */
size_t hook_stop(struct hook *self);
