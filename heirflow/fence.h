/* The database's side of an accession: ends the sessions of other terms' schedulers over a connection of its own, so that
 * renewals go on meanwhile. docs/fencing.md says what it is for. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "config.h"
#include "error.h"

struct fence;

/* Whose accession it was. */
struct fence_term {
    int64_t member_id, term;
    const char *incarnation; /* copied */
};

struct fence_report {
    const struct error *error; /* NULL: no session of another term's scheduler is left */
    int64_t ended;             /* sessions */
    const char *leaks;         /* ways past the gate, or NULL */
};

typedef void fence_report_cb(void *data, const struct fence_report *report);

/* Connects only while fencing. NULL with an error if it cannot be created. */
struct fence *fence_create(uv_loop_t *loop, const struct config *config, fence_report_cb *on_report, void *data,
                           struct error *error);

/* Begins anew, forgetting what was under way. One report follows, within timeout_ms and never from inside this call. */
void fence_begin(struct fence *self, const struct fence_term *term, int64_t timeout_ms);

/* No report any more; its memory goes when the loop has closed its handles. NULL is fine. */
void fence_free(struct fence *self);
