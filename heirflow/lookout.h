/* The group as the database tells it, for the many who ask over HTTP: a thread with one connection of its own, which is
 * only there while somebody wants to know. However many ask, they cause one query. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "metrics.h"

enum { LOOKOUT_NICENESS = 10 }; /* of its thread */

struct lookout;

/* One look at the group. Immutable; whoever keeps it takes a reference. */
struct sight {
    int references;
    int64_t taken_ms; /* CLOCK_BOOTTIME */
    char *status;     /* as `heirflow status --json`; NULL: see error */
    char *page;       /* {"status":...,"terms":[...],"news":[...],"now_ms":...} on one line; NULL as well */
    struct census census;
    struct error error;
};
struct sight *sight_keep(struct sight *self);
void sight_release(struct sight *self); /* NULL is fine */

enum lookout_change { CHANGE_SWITCHOVER, CHANGE_PAUSE, CHANGE_RESUME };

/* What became of a change: carried out or accepted, or why not. */
struct lookout_outcome {
    bool accepted;
    bool unknown;     /* no answer in time: it may yet happen */
    bool away;        /* the database cannot be asked */
    bool forbidden;   /* the database user lacks the right */
    int64_t term;     /* switchover: which one is to end */
    bool changed;     /* it was not so before */
    char reason[512]; /* of a refusal or failure */
};

/* All run on the lookout's thread and must not block. on_sight: there is a new sight while lookout_watch is on. */
typedef void lookout_sight_cb(void *data, struct sight *sight);
typedef void lookout_outcome_cb(void *data, const struct lookout_outcome *outcome);

struct lookout_settings {
    const char *conninfo, *schema, *group, *node; /* copied */
    lookout_sight_cb *on_sight;
    void *data;
};

bool lookout_start(const struct lookout_settings *settings, struct lookout **ret_lookout, struct error *error);

/* From any thread, never blocking. The callback runs exactly once, within LOOKOUT_ANSWER_MS; false without memory or once
 * stopped, and then it does not. */
enum { LOOKOUT_ANSWER_MS = 5000 };
bool lookout_look(struct lookout *self, lookout_sight_cb *on_sight, void *data);
bool lookout_change(struct lookout *self, enum lookout_change change, const char *node, lookout_outcome_cb *on_outcome,
                    void *data);

/* While on, looks at once when there are news, and at intervals. */
void lookout_watch(struct lookout *self, bool on);

/* The last known numbers; asks for newer ones if they are older than max_age_ms. */
struct census lookout_census(struct lookout *self, int64_t max_age_ms);

/* Ends all requests (as failed), then the thread. It may still be called, and does nothing any more. NULL is fine for both.
 */
void lookout_stop(struct lookout *self);
void lookout_free(struct lookout *self); /* after lookout_stop */
