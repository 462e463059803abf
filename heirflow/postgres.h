/* One asynchronous PostgreSQL connection on a libuv loop. Name resolution, connecting and every statement have deadlines
 * and never block the loop. Knows nothing of rosters. */
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "error.h"

struct postgres;

struct postgres_settings {
    const char *conninfo; /* connection string or URI; several hosts are tried one at a time, in turn */
    const char *application_name;
    const char *schema;      /* becomes the session's search_path */
    int64_t attempt_ms;      /* at most this long for one address (TCP, TLS, log-in and set-up together) */
    int64_t round_ms;        /* 0, or: shortens attempt_ms so that every host gets its turn within this */
    int64_t lock_timeout_ms; /* server-side, 0 for none */
    const char *listen;      /* channel to LISTEN on, or NULL */
    /* All strings are copied. Callbacks run on the loop; none runs from inside a postgres_* call other than
     * postgres_drain and postgres_give_up. Callbacks may call any of these functions. */
    void (*on_connected)(void *data);
    /* Connecting failed on every address, or an established connection was lost or dropped. The connection is closed by
     * now; a pending query's callback has run before. Reconnecting is the owner's decision: postgres_connect again. */
    void (*on_disconnected)(void *data, const struct error *error);
    void (*on_notify)(void *data, const char *payload);
    /* NULL, or: the server warned that its transaction ids run out, at most once a connection. Must call nothing here. */
    void (*on_vacuum_due)(void *data, const char *text);
    void *data;
};

/* Copies the settings; does not connect. NULL only for an unusable conninfo (error says why). */
struct postgres *postgres_create(uv_loop_t *loop, const struct postgres_settings *settings, struct error *error);

/* Deadlines for the attempts and sessions to come, e.g. once the group's lease is known. */
void postgres_set_times(struct postgres *self, int64_t attempt_ms, int64_t lock_timeout_ms);

/* Begins connecting: resolves all names off the loop, then tries each address until one lets us in, is no standby in
 * recovery and is no transaction pooler. Does nothing if connecting or connected. */
void postgres_connect(struct postgres *self);

/* Ends the attempts under way at once: on_disconnected runs before it returns and tells what failed so far. */
void postgres_give_up(struct postgres *self);

/* Reply: `result` is borrowed and only valid during the call; NULL on failure. `warning` is the text of the first WARNING
 * the server sent during the statement, that a VACUUM is due aside, or NULL. */
typedef void postgres_reply_cb(void *data, const PGresult *result, const char *warning, const struct error *error);

/* Sends one parameterised statement (text format; NULL for SQL null); without parameters it may be several statements, run
 * as one transaction, of which the last one's result counts. One at a time: it is an error of the caller to send while
 * busy. When no complete reply has come within timeout_ms the connection is dropped (never PQcancel) and the callback and
 * then on_disconnected run. */
void postgres_query(struct postgres *self, const char *sql, int count, const char *const *values, int64_t timeout_ms,
                    postgres_reply_cb *callback, void *data);

bool postgres_connected(const struct postgres *self);
bool postgres_busy(const struct postgres *self);

/* Handles whatever has already arrived, without waiting; callbacks may run. For use before judging a time-out. */
void postgres_drain(struct postgres *self);

/* Closes now; a pending query's callback does not run any more, nor does on_disconnected. */
void postgres_drop(struct postgres *self);

/* Drops, closes all handles and frees; on_closed (may be NULL) runs on the loop once they are closed. */
void postgres_destroy(struct postgres *self, void (*on_closed)(void *data), void *data);

/* Blocking face for commands, last will and relay: a loop and a connection of its own, one thread. */
struct postgres_session;
bool postgres_session_open(const struct postgres_settings *settings, int64_t timeout_ms,
                           struct postgres_session **ret_session, struct error *error);
/* *ret_result is owned by the caller (PQclear). An error has exit code EXIT_CODE_DATABASE and, for a SQL error, the
 * server's primary message; the session stays usable unless the connection broke (then `retryable`). */
bool postgres_session_call(struct postgres_session *self, const char *sql, int count, const char *const *values,
                           int64_t timeout_ms, PGresult **ret_result, struct error *error);
/* Waits until a notification arrives on the LISTEN channel or timeout_ms passes; true if one came. False with
 * error->text[0] != 0 if the connection was lost. */
bool postgres_session_wait(struct postgres_session *self, int64_t timeout_ms, struct error *error);
void postgres_session_close(struct postgres_session *self); /* NULL is fine */
