/* Owns when which source is asked for what. Never waits, never draws, never judges what a fault means for the roster. */
#include "feed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "consumer.h"
#include "decode.h"
#include "postgres.h"

enum {
    EACH_MS = 1000, /* the roster is asked for at least as often */
    APART_MS = 40,  /* and at most as often, however many news come */
    ANSWER_MS = 3000,
    ATTEMPT_MS = 3000,
    BROKER_HEAD_START_MS = 700, /* for news to come that way before they are read from PostgreSQL */
    NEWS_ROWS = 250,
    LEAST_PAUSE_MS = 250,
    MOST_PAUSE_MS = 4000,
};

static const char status_sql[] = "select status($1), coalesce(news_last($1), 0), "
                                 "floor(extract(epoch from clock_timestamp()) * 1000)::bigint";
static const char news_sql[] = "select sequence, body from news_after($1, $2, $3)";
static const char fault_sql[] = "select has_schema_privilege(oid, 'usage') from pg_catalog.pg_namespace where nspname = $1";

struct feed {
    const struct config *config;
    struct model *model;
    void (*on_change)(void *data);
    void *data;
    struct postgres *postgres;
    struct consumer *consumer;
    uv_timer_t timer; /* the next thing to do */
    bool postgres_closed, timer_closed;

    bool status_due, diagnose;
    bool refused; /* connected, but the roster cannot be read */
    int64_t status_asked_ms, asked_ms, missing_since_ms, pause_ms, connect_at_ms;
    int64_t news_after;
};

static void step(struct feed *self);

static void on_timer(uv_timer_t *timer)
{
    step(timer->data);
}

static void wake_at(struct feed *self, int64_t at_ms)
{
    int64_t after_ms = at_ms - clock_now_ms();
    uv_update_time(self->timer.loop);
    (void)uv_timer_start(&self->timer, on_timer, after_ms > 0 ? (uint64_t)after_ms : 0, 0); /* fails only when closing */
}

static void fail(struct feed *self, const char *text)
{
    model_link_down(&self->model->postgres, text, clock_now_ms());
    self->on_change(self->data);
}

/* ---- replies */

static void on_fault(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct feed *self = data;
    char text[sizeof error->text];
    self->diagnose = false;
    if (!result)
        (void)snprintf(text, sizeof text, "%s", error->text);
    else if (PQntuples(result) == 0)
        (void)snprintf(text, sizeof text, "this database has no schema \"%s\"; create it with: heirflow migrate",
                       self->config->schema);
    else if (PQgetvalue(result, 0, 0)[0] == 'f')
        (void)snprintf(text, sizeof text,
                       "no right to look into schema \"%s\"; an administrator can: grant heirflow_viewer "
                       "to this user",
                       self->config->schema);
    else
        (void)snprintf(text, sizeof text,
                       "schema \"%s\" lacks functions that are needed; upgrade it with: heirflow migrate",
                       self->config->schema);
    fail(self, text);
    step(self);
}

/* The roster cannot be read although we are connected. */
static void refuse(struct feed *self, const struct error *error)
{
    self->refused = true;
    if (strstr(error->text, "SQLSTATE 42883") || strstr(error->text, "SQLSTATE 3F000"))
        self->diagnose = true;
    else if (strstr(error->text, "SQLSTATE 42501"))
        fail(self, "no right to read the roster; an administrator can: grant heirflow_viewer to this user");
    else
        fail(self, error->text);
}

static void on_status(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct feed *self = data;
    int64_t now_ms = clock_now_ms();
    struct model_snapshot snapshot;
    if (!result) {
        if (postgres_connected(self->postgres))
            refuse(self, error);
        step(self);
        return;
    }
    if (decode_status(PQgetisnull(result, 0, 0) ? NULL : PQgetvalue(result, 0, 0), &snapshot)) {
        snapshot.news_last = strtoll(PQgetvalue(result, 0, 1), NULL, 10);
        snapshot.database_ms = strtoll(PQgetvalue(result, 0, 2), NULL, 10);
        model_take_snapshot(self->model, &snapshot, self->asked_ms, now_ms);
        model_link_word(&self->model->postgres, now_ms);
        self->refused = false;
        self->on_change(self->data);
    } else {
        self->refused = true;
        fail(self, "the roster's description cannot be read; is this program as new as the schema?");
    }
    step(self);
}

static void on_news(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct feed *self = data;
    int64_t now_ms = clock_now_ms(), last = self->news_after;
    if (!result) {
        if (postgres_connected(self->postgres))
            refuse(self, error);
        step(self);
        return;
    }
    for (int i = 0; i < PQntuples(result); i++) {
        struct model_event event;
        if (decode_event(PQgetvalue(result, i, 1), (size_t)PQgetlength(result, i, 1), self->config->group, &event) ==
            DECODE_NEWS)
            (void)model_take_event(self->model, &event, true, now_ms); /* it may be known already */
        last = strtoll(PQgetvalue(result, i, 0), NULL, 10);
    }
    model_link_word(&self->model->postgres, now_ms);
    model_read(self->model, self->news_after, last, PQntuples(result) < NEWS_ROWS, self->asked_ms, now_ms);
    self->on_change(self->data);
    step(self);
}

/* ---- questions */

static void ask_status(struct feed *self, int64_t now_ms)
{
    const char *values[] = {self->config->group};
    self->status_due = false;
    self->status_asked_ms = self->asked_ms = now_ms;
    postgres_query(self->postgres, status_sql, 1, values, ANSWER_MS, on_status, self);
}

static void ask_news(struct feed *self, int64_t after, int64_t now_ms)
{
    char after_text[24], rows[24];
    (void)snprintf(after_text, sizeof after_text, "%lld", (long long)after);
    (void)snprintf(rows, sizeof rows, "%d", NEWS_ROWS);
    const char *values[] = {self->config->group, after_text, rows};
    self->news_after = after;
    self->asked_ms = now_ms;
    postgres_query(self->postgres, news_sql, 3, values, ANSWER_MS, on_news, self);
}

static void ask_fault(struct feed *self)
{
    const char *values[] = {self->config->schema};
    postgres_query(self->postgres, fault_sql, 1, values, ANSWER_MS, on_fault, self);
}

/* Should the news that are missing be read from PostgreSQL now? If not yet, *ret_at_ms says when. */
static bool news_due(struct feed *self, int64_t now_ms, int64_t *ret_after, int64_t *ret_at_ms)
{
    const struct model *model = self->model;
    if (!model_missing(model, ret_after)) {
        self->missing_since_ms = 0;
        return false;
    }
    if (!self->missing_since_ms)
        self->missing_since_ms = now_ms;
    bool broker_may = model->rabbitmq.up && model->whole_to >= 0;
    int64_t due_ms = self->missing_since_ms + (broker_may ? BROKER_HEAD_START_MS : 0);
    if (now_ms >= due_ms)
        return true;
    *ret_at_ms = due_ms < *ret_at_ms ? due_ms : *ret_at_ms;
    return false;
}

/* Does what is due and sets the timer for what comes next. */
static void step(struct feed *self)
{
    int64_t now_ms = clock_now_ms(), at_ms = self->status_asked_ms + EACH_MS, after = 0;
    if (!postgres_connected(self->postgres)) {
        if (now_ms >= self->connect_at_ms)
            postgres_connect(self->postgres);
        else
            wake_at(self, self->connect_at_ms);
        return;
    }
    if (postgres_busy(self->postgres))
        return;
    if (self->diagnose) {
        ask_fault(self);
        return;
    }
    if (self->status_due && !self->refused)
        at_ms = self->status_asked_ms + APART_MS;
    if (now_ms >= at_ms)
        ask_status(self, now_ms);
    else if (!self->refused && news_due(self, now_ms, &after, &at_ms))
        ask_news(self, after, now_ms);
    else
        wake_at(self, at_ms);
}

/* ---- what happens to the sources */

static void on_connected(void *data)
{
    struct feed *self = data;
    self->pause_ms = LEAST_PAUSE_MS;
    self->status_asked_ms = 0;
    self->refused = self->diagnose = false;
    model_reread(self->model);
    step(self);
}

static void on_disconnected(void *data, const struct error *error)
{
    struct feed *self = data;
    self->connect_at_ms = clock_now_ms() + self->pause_ms;
    self->pause_ms = self->pause_ms * 2 < MOST_PAUSE_MS ? self->pause_ms * 2 : MOST_PAUSE_MS;
    fail(self, error->text);
    step(self);
}

static void on_notify(void *data, const char *payload)
{
    struct feed *self = data;
    if (strcmp(payload, self->config->group) != 0)
        return;
    self->status_due = true;
    step(self);
}

static void on_consumer(void *data)
{
    struct feed *self = data;
    if (consumer_collect(self->consumer, self->model)) {
        self->status_due = true;
        step(self);
    }
    self->on_change(self->data);
}

static bool open_postgres(struct feed *self, uv_loop_t *loop, struct error *error)
{
    char name[300];
    (void)snprintf(name, sizeof name, "heirflow-interface:%s", self->config->group);
    struct postgres_settings settings = {
        .conninfo = self->config->postgres,
        .application_name = name,
        .schema = self->config->schema,
        .attempt_ms = ATTEMPT_MS,
        .listen = "heirflow_news",
        .on_connected = on_connected,
        .on_disconnected = on_disconnected,
        .on_notify = on_notify,
        .data = self,
    };
    self->postgres = postgres_create(loop, &settings, error);
    return self->postgres;
}

bool feed_start(uv_loop_t *loop, const struct config *config, struct model *model, void (*on_change)(void *data),
                void *data, struct feed **ret_feed, struct error *error)
{
    struct feed *self = calloc(1, sizeof *self);
    if (!self)
        return error_set(error, EXIT_CODE_DATABASE, "out of memory");
    *self =
        (struct feed){.config = config, .model = model, .on_change = on_change, .data = data, .pause_ms = LEAST_PAUSE_MS};
    self->timer.data = self;
    if (!open_postgres(self, loop, error)) {
        free(self);
        return false;
    }
    (void)uv_timer_init(loop, &self->timer); /* cannot fail */
    *ret_feed = self;
    model_link_try(&model->postgres, clock_now_ms());
    if (config->rabbitmq.url_count) {
        model_link_try(&model->rabbitmq, clock_now_ms());
        if (!consumer_start(loop, config, on_consumer, self, &self->consumer, error))
            model_link_down(&model->rabbitmq, error->text, clock_now_ms());
    }
    step(self);
    return true;
}

bool feed_settled(const struct feed *self)
{
    const struct model *model = self->model;
    int64_t after;
    bool database = model->postgres.fault[0] || (model->has_snapshot && !model_missing(model, &after));
    bool broker = !model->rabbitmq.configured || model->rabbitmq.up || model->rabbitmq.fault[0];
    return database && broker;
}

static void closed(struct feed *self)
{
    if (self->postgres_closed && self->timer_closed)
        free(self);
}

static void on_postgres_closed(void *data)
{
    struct feed *self = data;
    self->postgres_closed = true;
    closed(self);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct feed *self = handle->data;
    self->timer_closed = true;
    closed(self);
}

void feed_stop(struct feed *self)
{
    if (!self)
        return;
    consumer_stop(self->consumer);
    uv_close((uv_handle_t *)&self->timer, on_timer_closed);
    postgres_destroy(self->postgres, on_postgres_closed, self);
}
