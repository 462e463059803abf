/* Owns when which source is asked for what. Never waits, never draws, never judges what a fault means for the roster. */
#include "feed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "decode.h"
#include "postgres.h"
#include "subscription.h"

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
static const char grants_sql[] =
    "select to_regprocedure(name) is not null, coalesce(has_function_privilege(to_regprocedure(name), 'execute'), false) "
    "from unnest($1::text[]) with ordinality as wanted(name, place) order by place";
static const char fault_sql[] = "select has_schema_privilege(oid, 'usage') from pg_catalog.pg_namespace where nspname = $1";

struct feed {
    const struct config *config;
    char group[MODEL_NAME];
    struct intake *intake;
    void (*on_change)(void *data);
    void *data;
    struct postgres *postgres;
    struct subscription *subscription;
    int64_t word_ms;  /* of RabbitMQ, as last told */
    uv_timer_t timer; /* the next thing to do */
    bool postgres_closed, timer_closed;

    bool status_due, diagnose;
    bool refused; /* connected, but the roster cannot be read */
    int64_t status_asked_ms, asked_ms, missing_since_ms, pause_ms, connect_at_ms;
    int64_t news_after;
    bool older, older_wanted; /* reading is, or should be, of older news than those kept */
    bool grants_known;
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
    intake_down(self->intake, INTAKE_POSTGRES, text, clock_now_ms());
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
    if (!result) {
        if (postgres_connected(self->postgres))
            refuse(self, error);
        step(self);
        return;
    }
    if (intake_status(self->intake, PQgetisnull(result, 0, 0) ? NULL : PQgetvalue(result, 0, 0),
                      strtoll(PQgetvalue(result, 0, 1), NULL, 10), strtoll(PQgetvalue(result, 0, 2), NULL, 10),
                      self->asked_ms, now_ms)) {
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
    bool older = self->older;
    self->older = false;
    if (!result) {
        if (postgres_connected(self->postgres))
            refuse(self, error);
        step(self);
        return;
    }
    for (int i = 0; i < PQntuples(result); i++) {
        struct model_event event;
        if (decode_event(PQgetvalue(result, i, 1), (size_t)PQgetlength(result, i, 1), self->group, &event) == DECODE_NEWS)
            (void)intake_event(self->intake, &event, true, now_ms); /* it may be known already */
        last = strtoll(PQgetvalue(result, i, 0), NULL, 10);
    }
    if (older)
        intake_read_older(self->intake, self->news_after, now_ms);
    else
        intake_read(self->intake, self->news_after, last, PQntuples(result) < NEWS_ROWS, self->asked_ms, now_ms);
    self->on_change(self->data);
    step(self);
}

static void on_grants(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct feed *self = data;
    self->grants_known = true; /* what cannot be learned stays unknown: the roster matters more */
    for (int i = 0; result && i < PQntuples(result) && i + 1 < MODEL_RIGHTS; i++)
        self->intake->model->grants[i + 1] = PQgetvalue(result, i, 0)[0] != 't'   ? MODEL_MISSING
                                             : PQgetvalue(result, i, 1)[0] != 't' ? MODEL_DENIED
                                                                                  : MODEL_GRANTED;
    self->on_change(self->data);
    step(self);
}

/* ---- questions */

/* In the order of enum model_right, without MODEL_READ. */
static void ask_grants(struct feed *self)
{
    static const char *const functions[] = {
        "{\"set_retired(text, text, boolean)\", \"request_switchover(text, text)\", \"set_paused(text, boolean)\", "
        "\"remove_member(text, bigint)\", \"member_details(text, bigint)\", \"groups()\"}"};
    postgres_query(self->postgres, grants_sql, 1, functions, ANSWER_MS, on_grants, self);
}

static void ask_status(struct feed *self, int64_t now_ms)
{
    const char *values[] = {self->group};
    self->status_due = false;
    self->status_asked_ms = self->asked_ms = now_ms;
    postgres_query(self->postgres, status_sql, 1, values, ANSWER_MS, on_status, self);
}

static void ask_news(struct feed *self, int64_t after, int64_t now_ms)
{
    char after_text[24], rows[24];
    (void)snprintf(after_text, sizeof after_text, "%lld", (long long)after);
    (void)snprintf(rows, sizeof rows, "%d", NEWS_ROWS);
    const char *values[] = {self->group, after_text, rows};
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
    const struct model *model = self->intake->model;
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

static bool older_due(struct feed *self, int64_t *ret_after)
{
    self->older = self->older_wanted && model_older(self->intake->model, NEWS_ROWS, ret_after);
    self->older_wanted = false;
    return self->older;
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
    else if (!self->refused && !self->grants_known)
        ask_grants(self);
    else if (!self->refused && (news_due(self, now_ms, &after, &at_ms) || older_due(self, &after)))
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
    self->refused = self->diagnose = self->grants_known = self->older = false;
    intake_reread(self->intake, clock_now_ms());
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
    if (strcmp(payload, self->group) != 0)
        return;
    self->status_due = true;
    step(self);
}

/* What RabbitMQ has brought. True if there were new news. */
static bool take_news(struct feed *self)
{
    bool news = false;
    int64_t now_ms = clock_now_ms(), unreadable = 0;
    size_t length;
    for (char *body; (body = subscription_take(self->subscription, &length)); free(body)) {
        struct model_event event;
        enum decode_verdict verdict = decode_event(body, length, self->group, &event);
        if (verdict == DECODE_NEWS)
            news = intake_event(self->intake, &event, false, now_ms) || news;
        unreadable += verdict == DECODE_UNREADABLE;
    }
    intake_unreadable(self->intake, unreadable, now_ms);
    return news;
}

static void look_at_broker(struct feed *self)
{
    struct subscription_state state;
    subscription_state(self->subscription, &state);
    if (!state.up && state.fault.text[0])
        intake_down(self->intake, INTAKE_RABBITMQ, state.fault.text, clock_now_ms());
    else if (state.up && state.word_ms != self->word_ms)
        intake_word(self->intake, INTAKE_RABBITMQ, state.word_ms);
    self->word_ms = state.up ? state.word_ms : 0;
}

static void on_subscription(void *data)
{
    struct feed *self = data;
    look_at_broker(self);
    if (take_news(self)) {
        self->status_due = true;
        step(self);
    }
    self->on_change(self->data);
}

static bool open_postgres(struct feed *self, uv_loop_t *loop, const char *name, struct error *error)
{
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

bool feed_start(uv_loop_t *loop, const struct config *config, const char *group, struct intake *intake,
                void (*on_change)(void *data), void *data, struct feed **ret_feed, struct error *error)
{
    char name[300];
    struct feed *self = calloc(1, sizeof *self);
    if (!self)
        return error_set(error, EXIT_CODE_DATABASE, "out of memory");
    (void)snprintf(name, sizeof name, "heirflow-interface:%s", group);
    *self =
        (struct feed){.config = config, .intake = intake, .on_change = on_change, .data = data, .pause_ms = LEAST_PAUSE_MS};
    (void)snprintf(self->group, sizeof self->group, "%s", group);
    self->timer.data = self;
    if (!open_postgres(self, loop, name, error)) {
        free(self);
        return false;
    }
    (void)uv_timer_init(loop, &self->timer); /* cannot fail */
    *ret_feed = self;
    intake_try(intake, INTAKE_POSTGRES, clock_now_ms());
    if (config->rabbitmq.url_count) {
        intake_try(intake, INTAKE_RABBITMQ, clock_now_ms());
        if (!subscription_start(loop, config, self->group, name, on_subscription, self, &self->subscription, error))
            intake_down(intake, INTAKE_RABBITMQ, error->text, clock_now_ms());
    }
    step(self);
    return true;
}

void feed_want_older(struct feed *self)
{
    int64_t after = 0;
    if (!self || !model_older(self->intake->model, NEWS_ROWS, &after))
        return;
    self->older_wanted = true;
    step(self);
}

void feed_refresh(struct feed *self)
{
    if (!self)
        return;
    self->status_due = true;
    self->status_asked_ms = self->connect_at_ms = 0;
    self->refused = self->grants_known = false;
    step(self);
}

bool feed_settled(const struct feed *self)
{
    const struct model *model = self->intake->model;
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
    subscription_stop(self->subscription);
    uv_close((uv_handle_t *)&self->timer, on_timer_closed);
    postgres_destroy(self->postgres, on_postgres_closed, self);
}
