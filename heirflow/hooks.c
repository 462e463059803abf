/* Owns the hooks of one wrapper and, while it is the heir, the connection that reads the group's news for them.
 * Never holds up anything else: it waits for nobody, and nobody waits for it but the end of the process, for two seconds.
 */
#include "hooks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "hook.h"
#include "postgres.h"
#include "succession.h"

#define ASK_MS 5000
#define ATTEMPT_MS 5000
#define RECONNECT_MS 1000
#define LOOK_MS 5000 /* notifications are a hint */
#define STOP_MS 2000
#define LOST_MS 500 /* the killing of a scheduler's tree, which took the hook along, is over by then */

struct hooks {
    uv_loop_t *loop;
    const struct config *config;
    hooks_report_cb *on_report;
    void *data;
    struct hook node, group;
    bool closing;
    int64_t lost_ms; /* when one was ended from outside */

    struct postgres *postgres; /* NULL until a group's hook is first needed */
    uv_timer_t timer, turn;    /* turn: a hook is to be run, but not in the middle of a succession */
    int handles;
    int64_t member_id, term; /* of the reign; term 0: none */
    char incarnation[SUCCESSION_UUID];
    bool news;        /* told while a question was under way */
    char done_id[40]; /* dealt with, but not yet recorded; "" for none */
    int64_t done_sequence;
    char fault[256]; /* told last */
};

static void on_timer(uv_timer_t *timer);
static void ask(struct hooks *self);

static void wake_in(struct hooks *self, int64_t in_ms)
{
    uv_update_time(self->loop);
    (void)uv_timer_start(&self->timer, on_timer, (uint64_t)in_ms, 0); /* fails only without a callback */
}

static const char *name_of(const json_t *event)
{
    const char *type = json_string_value(json_object_get(event, "type"));
    return type && strchr(type, '.') ? strchr(type, '.') + 1 : NULL;
}

static void report(struct hooks *self, const struct hooks_report *report)
{
    self->on_report(self->data, report);
}

/* ---- the end */

static void on_timer_closed(uv_handle_t *handle)
{
    struct hooks *self = handle->data;
    if (--self->handles == 0)
        free(self);
}

static void on_postgres_closed(void *data)
{
    struct hooks *self = data;
    uv_close((uv_handle_t *)&self->timer, on_timer_closed);
    uv_close((uv_handle_t *)&self->turn, on_timer_closed);
}

static void end(struct hooks *self)
{
    size_t left = json_array_size(self->node.queue); /* the group's is not lost: the next heir goes on with it */
    if (left > 0)
        report(self, &(struct hooks_report){.what = "hook-dropped",
                                            .hook = self->node.key,
                                            .events = (int64_t)left,
                                            .reason = "not run in time before this wrapper's end"});
    (void)hook_stop(&self->node);
    (void)hook_stop(&self->group);
    if (self->postgres)
        postgres_destroy(self->postgres, on_postgres_closed, self);
    else
        on_postgres_closed(self);
}

static void end_if_idle(struct hooks *self)
{
    if (self->closing && hook_is_idle(&self->node) && hook_is_idle(&self->group))
        wake_in(self, 0); /* on_timer ends it: a hook is still busy with its own end */
}

/* ---- events of this node */

static void report_failure(struct hooks *self, const char *key, const json_t *event, const char *reason)
{
    if (reason)
        report(self, &(struct hooks_report){.what = "hook-failed", .hook = key, .event = name_of(event), .reason = reason});
}

static void on_node_done(void *data, const json_t *event, const char *reason)
{
    struct hooks *self = data;
    report_failure(self, self->node.key, event, reason);
    if (hook_is_idle(&self->node) && self->node.dropped > 0)
        report(self, &(struct hooks_report){.what = "hook-dropped",
                                            .hook = self->node.key,
                                            .events = self->node.dropped,
                                            .reason = "too many events waited: the oldest went"});
    end_if_idle(self);
}

static void on_turn(uv_timer_t *timer)
{
    struct hooks *self = timer->data;
    int64_t left_ms = self->lost_ms ? self->lost_ms + LOST_MS - clock_now_ms() : 0;
    if (left_ms > 0) {
        (void)uv_timer_start(&self->turn, on_turn, (uint64_t)left_ms, 0); /* fails only without a callback */
        return;
    }
    self->lost_ms = 0;
    hook_run(&self->node);
    hook_run(&self->group);
}

static void on_lost(void *data)
{
    struct hooks *self = data;
    self->lost_ms = clock_now_ms();
    on_turn(&self->turn);
}

void hooks_tell(struct hooks *self, const char *event, const char *id, int64_t term, const char *reason, json_t *data)
{
    if (self->closing || !self->config->hooks.on_event) {
        json_decref(data);
        return;
    }
    hook_put(&self->node, hook_event(self->config, event, id, term, reason, data));
    (void)uv_timer_start(&self->turn, on_turn, 0, 0);
}

/* ---- events of the group */

static bool reads(const struct hooks *self)
{
    return self->term && !self->closing && self->config->hooks.on_group_event;
}

static void report_fault(struct hooks *self, const char *text)
{
    if (strncmp(self->fault, text, sizeof self->fault - 1) == 0)
        return;
    (void)snprintf(self->fault, sizeof self->fault, "%s", text);
    report(self, &(struct hooks_report){.what = "hook-waiting", .hook = self->group.key, .reason = text});
}

static void run_for(struct hooks *self, json_t *reply)
{
    json_t *event = json_object_get(reply, "body");
    int64_t skipped = json_integer_value(json_object_get(reply, "skipped"));
    if (skipped > 0)
        report(self,
               &(struct hooks_report){
                   .what = "hook-dropped", .hook = self->group.key, .events = skipped, .reason = "older than an hour"});
    if (json_is_object(event)) {
        hook_put(&self->group, json_incref(event));
        hook_run(&self->group);
    } else if (self->news) {
        ask(self);
    }
}

static void on_reply(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct hooks *self = data;
    if (!result) {
        report_fault(self, error->text);
        wake_in(self, LOOK_MS);
        return;
    }
    self->fault[0] = '\0';
    cleanup_json json_t *reply = json_loads(PQgetvalue(result, 0, 0), 0, NULL); /* empty: not the heir any more */
    wake_in(self, LOOK_MS);
    if (json_is_object(reply))
        self->done_id[0] = '\0';
    if (json_is_object(reply) && reads(self))
        run_for(self, reply);
}

/* One round trip records what was done and brings the next event. */
static void ask(struct hooks *self)
{
    char member[24], term[24], done[24];
    if (!reads(self) || !hook_is_idle(&self->group) || !postgres_connected(self->postgres))
        return;
    if (postgres_busy(self->postgres)) {
        self->news = true;
        return;
    }
    self->news = false;
    (void)snprintf(member, sizeof member, "%" PRId64, self->member_id);
    (void)snprintf(term, sizeof term, "%" PRId64, self->term);
    (void)snprintf(done, sizeof done, "%" PRId64, self->done_sequence);
    const char *const values[] = {self->config->group,
                                  member,
                                  self->incarnation,
                                  term,
                                  *self->done_id ? done : NULL,
                                  *self->done_id ? self->done_id : NULL};
    postgres_query(self->postgres, "select hooks_next($1, $2, $3, $4, $5, $6)", 6, values, ASK_MS, on_reply, self);
}

static void on_group_done(void *data, const json_t *event, const char *reason)
{
    struct hooks *self = data;
    const char *id = json_string_value(json_object_get(event, "id"));
    report_failure(self, self->group.key, event, reason);
    self->done_sequence = json_integer_value(json_object_get(json_object_get(event, "data"), "sequence"));
    (void)snprintf(self->done_id, sizeof self->done_id, "%s", id ? id : "");
    if (self->closing)
        end_if_idle(self);
    else
        ask(self);
}

static void on_connected(void *data)
{
    ask(data);
}

static void on_disconnected(void *data, const struct error *error)
{
    struct hooks *self = data;
    report_fault(self, error->text);
    if (!self->closing)
        wake_in(self, RECONNECT_MS);
}

static void on_notify(void *data, const char *payload)
{
    struct hooks *self = data;
    if (strcmp(payload, self->config->group) == 0)
        ask(self);
}

static bool create_postgres(struct hooks *self)
{
    struct error error;
    char name[64];
    const struct config *config = self->config;
    (void)snprintf(name, sizeof name, "heirflow-hooks:%.28s:%.18s", config->group, config->node);
    struct postgres_settings settings = {
        .conninfo = config->postgres,
        .application_name = name,
        .schema = config->schema,
        .attempt_ms = ATTEMPT_MS,
        .lock_timeout_ms = ASK_MS,
        .listen = "heirflow_news",
        .on_connected = on_connected,
        .on_disconnected = on_disconnected,
        .on_notify = on_notify,
        .data = self,
    };
    self->postgres = postgres_create(self->loop, &settings, &error);
    if (!self->postgres)
        report_fault(self, error.text);
    return self->postgres != NULL;
}

/* Reads while there is a reign and a hook, and only then. */
static void look(struct hooks *self)
{
    if (!reads(self)) {
        if (self->postgres)
            postgres_drop(self->postgres);
        (void)uv_timer_stop(&self->timer);
    } else if (self->postgres || create_postgres(self)) {
        postgres_connect(self->postgres);
        wake_in(self, LOOK_MS);
        ask(self);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct hooks *self = timer->data;
    if (self->closing)
        end(self);
    else
        look(self);
}

/* ---- life */

struct hooks *hooks_create(uv_loop_t *loop, const struct config *config, const char *seat, hooks_report_cb *on_report,
                           void *data)
{
    struct hooks *self = calloc(1, sizeof *self);
    if (!self)
        abort(); /* before anything runs */
    self->loop = loop;
    self->config = config;
    self->on_report = on_report;
    self->data = data;
    self->node = self->group =
        (struct hook){.loop = loop, .config = config, .seat = seat, .on_lost = on_lost, .data = self};
    self->node.key = "hooks.on_event";
    self->node.on_done = on_node_done;
    self->group.key = "hooks.on_group_event";
    self->group.on_done = on_group_done;
    hook_init(&self->node);
    hook_init(&self->group);
    (void)uv_timer_init(loop, &self->timer); /* cannot fail */
    (void)uv_timer_init(loop, &self->turn);
    self->timer.data = self->turn.data = self;
    self->handles = 2;
    return self;
}

void hooks_configure(struct hooks *self)
{
    look(self);
}

void hooks_reign(struct hooks *self, int64_t member_id, const char *incarnation, int64_t term)
{
    if (self->closing || term == self->term)
        return;
    self->member_id = member_id;
    self->term = term;
    (void)snprintf(self->incarnation, sizeof self->incarnation, "%s", incarnation);
    self->done_id[0] = '\0';
    look(self);
}

void hooks_free(struct hooks *self)
{
    if (!self)
        return;
    self->closing = true;
    if (self->postgres)
        postgres_drop(self->postgres);
    hook_run(&self->node);
    wake_in(self, STOP_MS);
    end_if_idle(self);
}
