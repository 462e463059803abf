/* The configured hooks of a wrapper: `hooks.on_event` for the events of this node, from the wrapper itself, whether the
 * database is there or not; `hooks.on_group_event` on the heir for the events of the group, in order, from its news. */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <uv.h>

#include "config.h"

struct hooks;

/* What the log should say. `what`: "hook-failed", "hook-dropped" (events that will not be told) or "hook-waiting" (the news
 * cannot be read for now). `event` is its name, or NULL if it is not one event. */
struct hooks_report {
    const char *what, *hook, *event, *reason;
    int64_t events; /* how many; 0 where that is not the question */
};
typedef void hooks_report_cb(void *data, const struct hooks_report *report);

/* `config` and `seat` must last until the loop has closed. Reports run on the loop. */
struct hooks *hooks_create(uv_loop_t *loop, const struct config *config, const char *seat, hooks_report_cb *on_report,
                           void *data);

/* Look at the configuration again: hooks may have come or gone. */
void hooks_configure(struct hooks *self);

/* Something has happened to this node. `id` NULL: one is drawn; `reason` may be NULL; `data` is taken over, or NULL. */
void hooks_tell(struct hooks *self, const char *event, const char *id, int64_t term, const char *reason, json_t *data);

/* This member holds that term, or (0) none. May be repeated at will. */
void hooks_reign(struct hooks *self, int64_t member_id, const char *incarnation, int64_t term);

/* What waits is still run for two seconds, which keep the loop alive; then the rest is dropped. NULL is fine. */
void hooks_free(struct hooks *self);
