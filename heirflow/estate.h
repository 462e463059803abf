/* What the next heir inherits: stores copies of the configured files in the database while the scheduler runs and after it
 * has ended in peace, and puts them in place before the first start of a term. Files are touched by child processes only,
 * over a connection of its own, so that renewals go on meanwhile. Whatever fails stops no succession. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "config.h"
#include "error.h"

struct estate;

struct estate_term {
    int64_t member_id, term;
    const char *incarnation; /* copied */
};

struct estate_report {
    const char *event;  /* "estate-inherited", "estate-stored", "estate-missing" or "estate-failed" */
    const char *reason; /* of a failure */
    bool news;          /* the group should hear of it; else it is one of many, or has been told */
    enum log_level level;
    json_t *data; /* borrowed; may be NULL */
    int64_t term;
};

/* They run on the loop; on_settled may run from within estate_settle and estate_rest. */
struct estate_callbacks {
    void (*on_report)(void *data, const struct estate_report *report);
    void (*on_inherited)(void *data); /* once for each estate_inherit, in time, unless there was rest before */
    void (*on_settled)(void *data);   /* once for each estate_settle, in time */
    void *data;
};

/* *ret_estate is NULL if no files are configured; the other functions take that. */
bool estate_create(uv_loop_t *loop, const struct config *config, const char *seat, const struct estate_callbacks *callbacks,
                   struct estate **ret_estate, struct error *error);

/* A term may begin soon: be ready to ask for what an earlier one left. */
void estate_expect_term(struct estate *self);

/* A term begins: puts in place what an earlier one left, if this node has not had it already. */
void estate_inherit(struct estate *self, const struct estate_term *term, int64_t limit_ms);

/* The scheduler runs: from now on copies are stored at the interval. */
void estate_watch(struct estate *self);

/* It is being stopped in peace: no more copies at the interval, but be ready for the last. */
void estate_expect_end(struct estate *self);

/* It has ended in peace: stores the last copy. False if there is nothing to do; else on_settled follows. */
bool estate_settle(struct estate *self, int64_t limit_ms);

/* The scheduler crashed, is being fenced, or its term is over: nothing more is stored until estate_watch. A settlement
 * under way ends here, with on_settled. */
void estate_rest(struct estate *self);

/* Its memory goes when the loop has closed its handles. */
void estate_free(struct estate *self);
