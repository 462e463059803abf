/* Owns the blocking face of postgres.c: one connection on a loop of its own. Never used on the wrapper's loop. */
#include <stdlib.h>
#include <uv.h>

#include "cleanup.h"
#include "postgres.h"

struct postgres_session {
    uv_loop_t loop;
    uv_timer_t timer;
    struct postgres *postgres;
    bool connected, lost, answered, notified, timed_out;
    PGresult *result;
    struct error error; /* of the last call */
    struct error loss;  /* why there is no connection */
};

static void on_connected(void *data)
{
    struct postgres_session *self = data;
    self->connected = true;
}

static void on_disconnected(void *data, const struct error *error)
{
    struct postgres_session *self = data;
    self->connected = false;
    self->lost = true;
    self->loss = *error;
}

static void on_notify(void *data, const char *payload)
{
    struct postgres_session *self = data;
    self->notified = true;
}

static void on_timer(uv_timer_t *timer)
{
    struct postgres_session *self = timer->data;
    self->timed_out = true;
}

static void start_timer(struct postgres_session *self, int64_t timeout_ms)
{
    self->timed_out = false;
    uv_update_time(&self->loop);
    (void)uv_timer_start(&self->timer, on_timer, timeout_ms > 0 ? (uint64_t)timeout_ms : 0, 0);
}

bool postgres_session_open(const struct postgres_settings *settings, int64_t timeout_ms,
                           struct postgres_session **ret_session, struct error *error)
{
    struct postgres_session *self = calloc(1, sizeof *self);
    if (!self || uv_loop_init(&self->loop) != 0) {
        free(self);
        return error_set(error, EXIT_CODE_DATABASE, "out of memory or descriptors");
    }
    (void)uv_timer_init(&self->loop, &self->timer);
    self->timer.data = self;
    struct postgres_settings own = *settings;
    own.round_ms = timeout_ms;
    own.on_connected = on_connected;
    own.on_disconnected = on_disconnected;
    own.on_notify = on_notify;
    own.data = self;
    self->postgres = postgres_create(&self->loop, &own, error);
    if (self->postgres) {
        start_timer(self, timeout_ms);
        postgres_connect(self->postgres);
        while (!self->connected && !self->lost && !self->timed_out)
            (void)uv_run(&self->loop, UV_RUN_ONCE);
        (void)uv_timer_stop(&self->timer);
        if (self->connected) {
            *ret_session = self;
            return true;
        }
        postgres_give_up(self->postgres); /* does nothing if it has already */
        *error = self->loss;
    }
    postgres_session_close(self);
    return false;
}

static void on_reply(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct postgres_session *self = data;
    self->answered = true;
    if (error)
        self->error = *error;
    else
        self->result = PQcopyResult(result, PG_COPYRES_ATTRS | PG_COPYRES_TUPLES);
}

bool postgres_session_call(struct postgres_session *self, const char *sql, int count, const char *const *values,
                           int64_t timeout_ms, PGresult **ret_result, struct error *error)
{
    self->answered = false;
    self->error = (struct error){0};
    postgres_query(self->postgres, sql, count, values, timeout_ms, on_reply, self);
    while (!self->answered)
        (void)uv_run(&self->loop, UV_RUN_ONCE);
    PGresult *result = self->result;
    self->result = NULL;
    if (result) {
        *ret_result = result;
        return true;
    }
    *error = self->error;
    return error->text[0] ? false : error_set(error, EXIT_CODE_DATABASE, "out of memory");
}

bool postgres_session_wait(struct postgres_session *self, int64_t timeout_ms, struct error *error)
{
    error->text[0] = 0;
    start_timer(self, timeout_ms);
    while (!self->notified && !self->timed_out && self->connected)
        (void)uv_run(&self->loop, UV_RUN_ONCE);
    (void)uv_timer_stop(&self->timer);
    if (!self->connected)
        *error = self->loss;
    bool notified = self->notified;
    self->notified = false;
    return notified;
}

void postgres_session_close(struct postgres_session *self)
{
    if (!self)
        return;
    if (self->postgres)
        postgres_destroy(self->postgres, NULL, NULL);
    uv_close((uv_handle_t *)&self->timer, NULL);
    (void)uv_run(&self->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&self->loop);
    free(self);
}
