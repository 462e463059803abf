/* Owns the thread and the connection through which HTTP asks the database. Never touches the wrapper's state, and makes
 * nobody wait: a database that does not answer is an answer too. */
#include "lookout.h"

#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#include "cleanup.h"
#include "clock.h"
#include "postgres.h"

#define CALL_MS 2000
#define ATTEMPT_MS 2000
#define ROUND_MS 3000 /* for all hosts together */
#define PATIENCE_MS (LOOKOUT_ANSWER_MS - CALL_MS)
#define FRESH_MS 200  /* a sight of this age still answers */
#define GATHER_MS 50  /* news come in bursts: one look for all */
#define TICK_MS 2000  /* between looks while somebody watches */
#define RETRY_MS 1000 /* between attempts while somebody watches */
#define IDLE_MS 10000 /* then the connection is given back */

struct request {
    struct request *next;
    int64_t until_ms;
    lookout_sight_cb *on_sight; /* or a change: */
    lookout_outcome_cb *on_outcome;
    enum lookout_change change;
    char *node;
    void *data;
};

struct lookout {
    char *conninfo, *schema, *group, name[64];
    lookout_sight_cb *on_sight;
    void *data;
    pthread_t thread;
    uv_async_t wake; /* from any thread */

    pthread_mutex_t lock; /* guards the next five */
    struct request *first;
    int watchers;
    bool stop, look_wanted;
    struct sight *sight; /* the last one, or NULL */

    /* the thread's own */
    uv_loop_t loop;
    uv_timer_t timer;
    struct postgres *postgres;
    struct request *changing; /* the one that the database carries out */
    bool looking, ready, connecting, stopping;
    bool news;         /* told since the last look */
    int64_t news_ms;   /* since when */
    int64_t looked_ms; /* last look begun, or failure */
    int64_t used_ms;   /* last time that somebody wanted anything */
};

static void act(struct lookout *self);

/* ---- sights */

struct sight *sight_keep(struct sight *self)
{
    (void)__atomic_add_fetch(&self->references, 1, __ATOMIC_RELAXED);
    return self;
}

void sight_release(struct sight *self)
{
    if (!self || __atomic_sub_fetch(&self->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    free(self->status);
    free(self->page);
    free(self);
}

static struct sight *sight_new(const struct error *error)
{
    struct sight *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->references = 1;
    self->taken_ms = clock_now_ms();
    if (error)
        self->error = *error;
    return self;
}

/* ---- requests */

static void free_request(struct request *request)
{
    free(request->node);
    free(request);
}

static void answer_look(struct request *request, struct sight *sight)
{
    request->on_sight(request->data, sight);
    free_request(request);
}

static void answer_change(struct request *request, const struct lookout_outcome *outcome)
{
    request->on_outcome(request->data, outcome);
    free_request(request);
}

static void fail_change(struct request *request, const char *reason, bool unknown)
{
    struct lookout_outcome outcome = {.away = true, .unknown = unknown};
    (void)snprintf(outcome.reason, sizeof outcome.reason, "%s", reason);
    answer_change(request, &outcome);
}

static bool is_look(const struct request *request)
{
    return request->on_sight != NULL;
}

/* Takes the first request that `fits` out of the line. */
static struct request *take(struct lookout *self, bool (*fits)(const struct request *))
{
    struct request *taken = NULL;
    (void)pthread_mutex_lock(&self->lock);
    for (struct request **place = &self->first; *place; place = &(*place)->next) {
        if (fits(*place)) {
            taken = *place;
            *place = taken->next;
            break;
        }
    }
    (void)pthread_mutex_unlock(&self->lock);
    return taken;
}

static bool is_change(const struct request *request)
{
    return request->on_outcome != NULL;
}

static bool is_late(const struct request *request)
{
    return clock_now_ms() >= request->until_ms;
}

static void answer_looks(struct lookout *self, struct sight *sight)
{
    struct request *request;
    while ((request = take(self, is_look)))
        answer_look(request, sight);
}

static void give_up(struct request *request, const char *reason)
{
    struct error error;
    (void)error_set_retryable(&error, EXIT_CODE_DATABASE, "%s", reason);
    struct sight *sight = is_look(request) ? sight_new(&error) : NULL;
    if (sight)
        answer_look(request, sight);
    else
        fail_change(request, reason, false);
    sight_release(sight);
}

static void end_late_ones(struct lookout *self)
{
    struct request *request;
    while ((request = take(self, is_late)))
        give_up(request, "the database does not answer");
}

/* ---- what was seen */

static void publish(struct lookout *self, struct sight *sight)
{
    if (!sight)
        return;
    (void)pthread_mutex_lock(&self->lock);
    struct sight *old = self->sight;
    if (!sight->census.taken_ms && old)
        sight->census = old->census;
    self->sight = sight_keep(sight);
    self->look_wanted = false;
    bool watched = self->watchers > 0;
    (void)pthread_mutex_unlock(&self->lock);
    sight_release(old);
    if (watched)
        self->on_sight(self->data, sight);
    answer_looks(self, sight);
    sight_release(sight);
}

static void publish_failure(struct lookout *self, const struct error *error)
{
    publish(self, sight_new(error));
}

/* As `heirflow status --json` prints it. */
static char *format_status(const char *text)
{
    cleanup_json json_t *status = json_loads(text, 0, NULL);
    return status ? json_dumps(status, JSON_INDENT(2) | JSON_ENSURE_ASCII) : NULL;
}

enum { COLUMN_STATUS, COLUMN_TERMS, COLUMN_NEWS, COLUMN_NOW, COLUMN_LIVE, COLUMN_LOST };

static struct sight *read_sight(const PGresult *result)
{
    struct sight *sight = sight_new(NULL);
    if (!sight)
        return NULL;
    if (PQgetisnull(result, 0, COLUMN_STATUS)) {
        (void)error_set_retryable(&sight->error, EXIT_CODE_DATABASE, "the database does not know this group yet");
        return sight;
    }
    sight->census = (struct census){
        .taken_ms = sight->taken_ms,
        .live = strtoll(PQgetvalue(result, 0, COLUMN_LIVE), NULL, 10),
        .lost = strtoll(PQgetvalue(result, 0, COLUMN_LOST), NULL, 10),
    };
    sight->status = format_status(PQgetvalue(result, 0, COLUMN_STATUS));
    if (asprintf(&sight->page, "{\"status\":%s,\"terms\":%s,\"news\":%s,\"now_ms\":%s}",
                 PQgetvalue(result, 0, COLUMN_STATUS), PQgetvalue(result, 0, COLUMN_TERMS),
                 PQgetvalue(result, 0, COLUMN_NEWS), PQgetvalue(result, 0, COLUMN_NOW)) < 0)
        sight->page = NULL;
    if (!sight->status || !sight->page)
        (void)error_set_retryable(&sight->error, EXIT_CODE_DATABASE, "the database sent unusable JSON");
    return sight;
}

static void on_look(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct lookout *self = data;
    (void)warning;
    self->looking = false;
    if (result)
        publish(self, read_sight(result));
    else
        publish_failure(self, error);
    act(self);
}

static void look(struct lookout *self)
{
    static const char sql[] =
        "with s as materialized (select status($1) as status)"
        " select s.status, history($1, 60),"
        " (select coalesce(jsonb_agg(n.body order by n.sequence), '[]')"
        " from news_after($1, greatest(news_last($1) - 60, 0), 60) n),"
        " floor(extract(epoch from clock_timestamp()) * 1000)::bigint, c.live, c.lost"
        " from s, lateral (select count(*) filter (where (m->>'live')::boolean) as live,"
        " count(*) filter (where not (m->>'live')::boolean) as lost from jsonb_array_elements(s.status->'members') m) c";
    self->looking = true;
    self->news = false;
    self->looked_ms = clock_now_ms();
    postgres_query(self->postgres, sql, 1, (const char *const[]){self->group}, CALL_MS, on_look, self);
}

/* ---- changes */

static bool lacks_right(const struct error *error)
{
    return strstr(error->text, "(SQLSTATE 42501)") || strstr(error->text, "(SQLSTATE 42883)");
}

/* The reply is {"accepted", "term", "refused"} or a boolean. */
static void read_outcome(const char *text, struct lookout_outcome *ret)
{
    cleanup_json json_t *reply = json_loads(text, JSON_DECODE_ANY, NULL);
    const char *refused = json_string_value(json_object_get(reply, "refused"));
    bool already = json_is_true(json_object_get(reply, "already"));
    ret->accepted = json_is_boolean(reply) || already || json_is_true(json_object_get(reply, "accepted"));
    ret->changed = ret->accepted && !already && !json_is_false(reply);
    ret->term = json_integer_value(json_object_get(reply, "term"));
    if (!ret->accepted)
        (void)snprintf(ret->reason, sizeof ret->reason, "%s", refused ? refused : "the database refused without a reason");
}

static void on_change(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct lookout *self = data;
    struct lookout_outcome outcome = {0};
    struct request *request = self->changing;
    (void)warning;
    self->changing = NULL;
    if (result) {
        read_outcome(PQntuples(result) == 1 ? PQgetvalue(result, 0, 0) : "", &outcome);
    } else if (lacks_right(error)) { /* a function that is closed to it may seem not to be there at all */
        outcome.forbidden = true;
        (void)snprintf(outcome.reason, sizeof outcome.reason,
                       "this member's database user may not: grant heirflow_operator to it, or use the command line");
    } else {
        outcome.unknown = !postgres_connected(self->postgres);
        (void)snprintf(outcome.reason, sizeof outcome.reason, "%.500s", error->text);
    }
    answer_change(request, &outcome);
    act(self);
}

static void carry_out(struct lookout *self, struct request *request)
{
    const char *values[] = {self->group, request->node};
    self->changing = request;
    switch (request->change) {
    case CHANGE_SWITCHOVER:
        postgres_query(self->postgres, "select request_switchover($1, $2)", 2, values, CALL_MS, on_change, self);
        break;
    case CHANGE_PAUSE:
        postgres_query(self->postgres, "select to_json(set_paused($1, true))", 1, values, CALL_MS, on_change, self);
        break;
    case CHANGE_RESUME:
        postgres_query(self->postgres, "select to_json(set_paused($1, false))", 1, values, CALL_MS, on_change, self);
        break;
    }
}

/* ---- the connection */

struct wants {
    bool look, change, watch, stop;
    int64_t until_ms; /* when the first of them is late */
};

static struct wants wants_of(struct lookout *self)
{
    struct wants wants = {.until_ms = INT64_MAX};
    (void)pthread_mutex_lock(&self->lock);
    wants.look = self->look_wanted;
    for (const struct request *request = self->first; request; request = request->next) {
        wants.look |= is_look(request);
        wants.change |= is_change(request);
        wants.until_ms = request->until_ms < wants.until_ms ? request->until_ms : wants.until_ms;
    }
    wants.watch = self->watchers > 0;
    wants.stop = self->stop;
    (void)pthread_mutex_unlock(&self->lock);
    return wants;
}

/* Nothing can be had at present. */
static void disappoint(struct lookout *self, const struct error *error)
{
    struct request *request;
    struct wants wants = wants_of(self);
    self->looked_ms = clock_now_ms();
    if (wants.look || wants.watch) /* else it was lost while idle, which is nobody's business */
        publish_failure(self, error);
    while ((request = take(self, is_change)))
        fail_change(request, error->text, false);
}

static void on_prepared(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct lookout *self = data;
    (void)warning;
    self->ready = result != NULL;
    if (!self->ready && postgres_connected(self->postgres)) {
        postgres_drop(self->postgres);
        disappoint(self, error);
    }
    act(self);
}

static void on_connected(void *data)
{
    struct lookout *self = data;
    self->connecting = false;
    self->news = true; /* who knows what was told meanwhile */
    self->news_ms = 0;
    postgres_query(self->postgres, "set timezone = 'UTC'", 0, NULL, CALL_MS, on_prepared, self);
}

static void on_disconnected(void *data, const struct error *error)
{
    struct lookout *self = data;
    self->ready = self->connecting = false;
    disappoint(self, error);
    act(self);
}

static void on_notify(void *data, const char *payload)
{
    struct lookout *self = data;
    if (strcmp(payload, self->group) != 0)
        return;
    if (!self->news)
        self->news_ms = clock_now_ms();
    self->news = true;
    act(self);
}

/* ---- what to do next */

static void answer_from_memory(struct lookout *self)
{
    (void)pthread_mutex_lock(&self->lock);
    struct sight *sight = self->sight ? sight_keep(self->sight) : NULL;
    (void)pthread_mutex_unlock(&self->lock);
    if (sight && clock_now_ms() - sight->taken_ms < FRESH_MS)
        answer_looks(self, sight);
    sight_release(sight);
}

static void on_timer(uv_timer_t *timer)
{
    act(timer->data);
}

static void come_back(struct lookout *self, int64_t at_ms)
{
    int64_t in_ms = at_ms - clock_now_ms();
    if (at_ms == INT64_MAX) {
        (void)uv_timer_stop(&self->timer);
        return;
    }
    uv_update_time(&self->loop);
    (void)uv_timer_start(&self->timer, on_timer, in_ms > 0 ? (uint64_t)in_ms : 1, 0);
}

/* These two return when to come back if nothing happens until then. */
static int64_t act_disconnected(struct lookout *self, const struct wants *wants, int64_t now_ms)
{
    bool urgent = wants->look || wants->change, due = now_ms >= self->looked_ms + RETRY_MS;
    if (!self->connecting && (urgent || (wants->watch && due))) {
        self->connecting = true;
        postgres_connect(self->postgres);
    }
    return wants->watch && !self->connecting ? self->looked_ms + RETRY_MS : INT64_MAX;
}

static int64_t act_connected(struct lookout *self, const struct wants *wants, int64_t now_ms)
{
    int64_t look_at_ms = self->news ? self->news_ms + GATHER_MS : self->looked_ms + TICK_MS;
    struct request *change = wants->change ? take(self, is_change) : NULL;
    if (change)
        carry_out(self, change);
    else if (wants->look || (wants->watch && now_ms >= look_at_ms))
        look(self);
    else if (wants->watch)
        return look_at_ms;
    else if (now_ms < self->used_ms + IDLE_MS)
        return self->used_ms + IDLE_MS;
    else {
        postgres_drop(self->postgres);
        self->ready = false;
    }
    return INT64_MAX;
}

static void leave(struct lookout *self)
{
    struct request *request;
    self->stopping = true;
    postgres_destroy(self->postgres, NULL, NULL);
    if (self->changing)
        fail_change(self->changing, "this node's wrapper is leaving", true);
    while ((request = self->first)) { /* nobody adds to it any more */
        self->first = request->next;
        give_up(request, "this node's wrapper is leaving");
    }
    uv_close((uv_handle_t *)&self->timer, NULL);
    uv_close((uv_handle_t *)&self->wake, NULL);
}

/* The one place that decides; called after everything that happened. */
static void act(struct lookout *self)
{
    if (self->stopping)
        return;
    answer_from_memory(self);
    end_late_ones(self);
    struct wants wants = wants_of(self);
    int64_t now_ms = clock_now_ms();
    if (wants.look || wants.change || wants.watch)
        self->used_ms = now_ms;
    if (wants.stop) {
        leave(self);
        return;
    }
    int64_t at_ms = INT64_MAX;
    if (!postgres_connected(self->postgres))
        at_ms = act_disconnected(self, &wants, now_ms);
    else if (self->ready && !postgres_busy(self->postgres))
        at_ms = act_connected(self, &wants, now_ms);
    come_back(self, at_ms < wants.until_ms ? at_ms : wants.until_ms);
}

static void on_wake(uv_async_t *wake)
{
    act(wake->data);
}

/* ---- the owner's side */

static void *run(void *data)
{
    struct lookout *self = data;
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), LOOKOUT_NICENESS); /* this thread's alone; what fails does no harm */
    (void)uv_run(&self->loop, UV_RUN_DEFAULT);
    return NULL;
}

void lookout_free(struct lookout *self)
{
    if (!self)
        return;
    (void)uv_run(&self->loop, UV_RUN_DEFAULT); /* what is closing */
    (void)uv_loop_close(&self->loop);
    (void)pthread_mutex_destroy(&self->lock);
    sight_release(self->sight);
    free(self->conninfo);
    free(self->schema);
    free(self->group);
    free(self);
}

static bool create_postgres(struct lookout *self, struct error *error)
{
    struct postgres_settings settings = {
        .conninfo = self->conninfo,
        .application_name = self->name,
        .schema = self->schema,
        .attempt_ms = ATTEMPT_MS,
        .round_ms = ROUND_MS,
        .lock_timeout_ms = CALL_MS / 2, /* a change that has to wait for long says so */
        .listen = "heirflow_news",
        .on_connected = on_connected,
        .on_disconnected = on_disconnected,
        .on_notify = on_notify,
        .data = self,
    };
    self->postgres = postgres_create(&self->loop, &settings, error);
    return self->postgres != NULL;
}

static bool start_thread(struct lookout *self, struct error *error)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the wrapper's loop's */
    int status = pthread_create(&self->thread, NULL, run, self);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != 0)
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot start a thread: %s", strerror(status));
    (void)pthread_setname_np(self->thread, "lookout"); /* for top and gdb only */
    return true;
}

bool lookout_start(const struct lookout_settings *settings, struct lookout **ret_lookout, struct error *error)
{
    struct lookout *self = calloc(1, sizeof *self);
    if (!self || uv_loop_init(&self->loop) != 0) {
        free(self);
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "out of memory or descriptors");
    }
    self->conninfo = strdup(settings->conninfo);
    self->schema = strdup(settings->schema);
    self->group = strdup(settings->group);
    (void)snprintf(self->name, sizeof self->name, "heirflow-http:%.27s:%.20s", settings->group, settings->node);
    self->on_sight = settings->on_sight;
    self->data = settings->data;
    (void)pthread_mutex_init(&self->lock, NULL);
    (void)uv_timer_init(&self->loop, &self->timer); /* cannot fail */
    (void)uv_async_init(&self->loop, &self->wake, on_wake);
    self->timer.data = self->wake.data = self;
    if (create_postgres(self, error)) {
        if (start_thread(self, error)) {
            *ret_lookout = self;
            return true;
        }
        postgres_destroy(self->postgres, NULL, NULL);
    }
    uv_close((uv_handle_t *)&self->timer, NULL);
    uv_close((uv_handle_t *)&self->wake, NULL);
    lookout_free(self);
    return false;
}

/* Says so to the thread, with the lock held. False once it has ended. */
static bool nudge(struct lookout *self)
{
    return !self->stop && uv_async_send(&self->wake) == 0;
}

static bool add(struct lookout *self, struct request *request)
{
    request->until_ms = clock_now_ms() + PATIENCE_MS;
    (void)pthread_mutex_lock(&self->lock);
    bool added = nudge(self);
    struct request **place = &self->first;
    while (*place)
        place = &(*place)->next;
    if (added)
        *place = request;
    (void)pthread_mutex_unlock(&self->lock);
    if (!added)
        free_request(request);
    return added;
}

bool lookout_look(struct lookout *self, lookout_sight_cb *on_sight, void *data)
{
    struct request *request = calloc(1, sizeof *request);
    if (!request)
        return false;
    request->on_sight = on_sight;
    request->data = data;
    return add(self, request);
}

bool lookout_change(struct lookout *self, enum lookout_change change, const char *node, lookout_outcome_cb *on_outcome,
                    void *data)
{
    struct request *request = calloc(1, sizeof *request);
    if (!request)
        return false;
    request->on_outcome = on_outcome;
    request->change = change;
    request->node = node ? strdup(node) : NULL;
    request->data = data;
    return add(self, request);
}

void lookout_watch(struct lookout *self, bool on)
{
    (void)pthread_mutex_lock(&self->lock);
    self->watchers += on ? 1 : -1;
    self->look_wanted |= on;
    (void)nudge(self);
    (void)pthread_mutex_unlock(&self->lock);
}

struct census lookout_census(struct lookout *self, int64_t max_age_ms)
{
    struct census census = {0};
    (void)pthread_mutex_lock(&self->lock);
    if (self->sight)
        census = self->sight->census;
    bool old = !census.taken_ms || clock_now_ms() - census.taken_ms > max_age_ms;
    if (old)
        self->look_wanted = nudge(self);
    (void)pthread_mutex_unlock(&self->lock);
    return census;
}

void lookout_stop(struct lookout *self)
{
    if (!self)
        return;
    (void)pthread_mutex_lock(&self->lock);
    (void)nudge(self);
    self->stop = true;
    (void)pthread_mutex_unlock(&self->lock);
    (void)pthread_join(self->thread, NULL);
}
