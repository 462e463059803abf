/* Owns the SQL of the news relay. Never talks to RabbitMQ. */
#include "outbox.h"

#include <stdio.h>
#include <stdlib.h>

#include "cleanup.h"
#include "postgres.h"

enum { ATTEMPT_MS = 5000 };

static bool open_session(struct outbox *self, int64_t timeout_ms, struct error *error)
{
    if (self->session)
        return true;
    struct postgres_settings settings = {
        .conninfo = self->conninfo,
        .application_name = self->name,
        .schema = self->schema,
        .attempt_ms = timeout_ms < ATTEMPT_MS ? timeout_ms : ATTEMPT_MS,
        .lock_timeout_ms = ATTEMPT_MS,
    };
    return postgres_session_open(&settings, timeout_ms, &self->session, error);
}

enum { NUMBERS = 3 };

/* $1 is the group, the others are numbers: `count` in all. */
static bool call(struct outbox *self, const char *sql, int count, const int64_t *numbers, int64_t timeout_ms,
                 PGresult **ret_result, struct error *error)
{
    char texts[NUMBERS][24];
    const char *values[1 + NUMBERS] = {self->group};
    for (int i = 0; i < count - 1; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "%lld", (long long)numbers[i]);
        values[i + 1] = texts[i];
    }
    return postgres_session_call(self->session, sql, count, values, timeout_ms, ret_result, error);
}

static bool is_true(const PGresult *result, int column)
{
    return PQntuples(result) == 1 && *PQgetvalue(result, 0, column) == 't';
}

static bool claim(struct outbox *self, int64_t member_id, int64_t timeout_ms, PGresult **ret_result, struct error *error)
{
    return open_session(self, timeout_ms, error) &&
           call(self, "select (c->>'granted')::boolean, c->>'published' from relay_claim($1, $2, $3::integer) c", 3,
                (int64_t[]){member_id, OUTBOX_CLAIM_MS}, timeout_ms, ret_result, error);
}

bool outbox_claim(struct outbox *self, int64_t member_id, int64_t timeout_ms, bool *ret_granted, int64_t *ret_published,
                  struct error *error)
{
    cleanup_result PGresult *result = NULL;
    bool reused = self->session;
    bool claimed = claim(self, member_id, timeout_ms, &result, error);
    if (!claimed && reused && error->retryable) {
        outbox_close(self); /* lost while it was idle, which is no failure yet */
        claimed = claim(self, member_id, timeout_ms, &result, error);
    }
    if (!claimed)
        return error_wrap(error, "claiming the news");
    *ret_granted = is_true(result, 0);
    *ret_published = *ret_granted ? strtoll(PQgetvalue(result, 0, 1), NULL, 10) : 0;
    return true;
}

bool outbox_read(struct outbox *self, int64_t after, int64_t timeout_ms, PGresult **ret_events, struct error *error)
{
    static const char sql[] = "select sequence, event, text, id from ("
                              " select n.sequence, n.event, t.text, n.body->>'id' as id,"
                              " sum(octet_length(t.text)) over (order by n.sequence) - octet_length(t.text) as before"
                              " from news_after($1, $2, 500) n, lateral (select n.body::text as text offset 0) t) e"
                              " where before < 4194304 order by sequence";
    if (!call(self, sql, 2, &after, timeout_ms, ret_events, error))
        return error_wrap(error, "reading the news");
    return true;
}

bool outbox_record(struct outbox *self, int64_t member_id, int64_t sequence, int64_t timeout_ms, bool *ret_ours,
                   bool *ret_more, struct error *error)
{
    cleanup_result PGresult *result = NULL;
    if (!call(self, "select relay_published($1, $2, $3), coalesce(news_last($1) > $3, false)", 3,
              (int64_t[]){member_id, sequence}, timeout_ms, &result, error))
        return error_wrap(error, "recording which news are out");
    *ret_ours = is_true(result, 0);
    *ret_more = is_true(result, 1);
    return true;
}

bool outbox_forget(struct outbox *self, int64_t member_id, int64_t days, bool publishes, int64_t limit, int64_t timeout_ms,
                   int64_t *ret_removed, struct error *error)
{
    cleanup_result PGresult *result = NULL;
    const char *sql = publishes ? "select forget($1, $2, $3::integer, true, $4::integer)"
                                : "select forget($1, $2, $3::integer, false, $4::integer)";
    if (!open_session(self, timeout_ms, error) ||
        !call(self, sql, 4, (int64_t[]){member_id, days, limit}, timeout_ms, &result, error))
        return error_wrap(error, "removing old news");
    *ret_removed = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    return true;
}

void outbox_close(struct outbox *self)
{
    postgres_session_close(self->session);
    self->session = NULL;
}

void outbox_finish(struct outbox *self)
{
    outbox_close(self);
    free(self->conninfo);
    free(self->schema);
    free(self->group);
}
