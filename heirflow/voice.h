/* What this member says to the database: its own news, kept until they have arrived, and what it says of itself. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "error.h"
#include "succession.h"

struct voice {
    json_t *news; /* not yet in the database, oldest first */
    size_t sent;  /* how many of them the request under way carries */
    int64_t lost; /* too many had to be kept: the oldest went */
};

void voice_init(struct voice *self);
void voice_finish(struct voice *self);

/* `reason` may be NULL; `data` is taken over, NULL for none. False if an older one had to go for the first time. */
bool voice_keep(struct voice *self, const char *event, const char *reason, int64_t term, json_t *data);

/* What the next request is to carry: a new array. With `carries` false it is sent in vain, so nothing counts as sent. */
json_t *voice_send(struct voice *self, bool carries);
void voice_arrived(struct voice *self); /* that request was answered */
void voice_failed(struct voice *self);  /* it was not, or refused: they are sent again */

/* The database refused that request with `error`. If it was for news that it cannot store, they go: returns them as a new
 * array; NULL if not. News must never stand in the way of a renewal or an abdication. */
json_t *voice_drop_refused(struct voice *self, const struct error *error);

/* What the roster says of this member: eligible or why not, versions, timings. `scheduler` is taken over, NULL for none. */
json_t *voice_describe(const struct config *config, const struct succession *succession, json_t *scheduler);
