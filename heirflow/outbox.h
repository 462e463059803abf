/* A group's news in the database as the relay uses them, through a session that is opened when first needed. Blocking. */
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct outbox {
    char *conninfo, *schema, *group; /* owned */
    const char *name;                /* borrowed; what PostgreSQL calls the session */
    struct postgres_session *session;
};

/* Columns of outbox_read's result. */
enum { OUTBOX_SEQUENCE, OUTBOX_EVENT, OUTBOX_BODY, OUTBOX_ID };

/* Claims the relaying for the member, for as long as a claim lasts. Granted: all up to *ret_published are out already. */
bool outbox_claim(struct outbox *self, int64_t member_id, int64_t timeout_ms, bool *ret_granted, int64_t *ret_published,
                  struct error *error);

/* The oldest events after a sequence: at most 500 and, so that memory stays bounded, no more once there are 4 MiB. */
bool outbox_read(struct outbox *self, int64_t after, int64_t timeout_ms, PGresult **ret_events, struct error *error);

/* All up to `sequence` are out; renews the claim. *ret_ours: the claim is still the member's. *ret_more: there are more. */
bool outbox_record(struct outbox *self, int64_t member_id, int64_t sequence, int64_t timeout_ms, bool *ret_ours,
                   bool *ret_more, struct error *error);

/* Removes at most `limit` each of the news and terms that are older than that; `publishes`: this member has a broker. */
bool outbox_forget(struct outbox *self, int64_t member_id, int64_t days, bool publishes, int64_t limit, int64_t timeout_ms,
                   int64_t *ret_removed, struct error *error);

void outbox_close(struct outbox *self); /* opens again when needed */
void outbox_finish(struct outbox *self);

enum { OUTBOX_CLAIM_MS = 15000 };
