/* Owns the loop and everything on it: callbacks become events, succession.c's orders are carried out.
 * Never decides anything about the succession. */
#include "wrapper.h"

#include <signal.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "hooks.h"
#include "http.h"
#include "news.h"
#include "postgres.h"
#include "reign.h"
#include "reload.h"
#include "roster.h"
#include "seat.h"
#include "succession.h"
#include "supervisor.h"
#include "uuid.h"
#include "voice.h"

#define RECONNECT_FIRST_MS 20
#define RECONNECT_MOST_MS 500
#define NEWS_STOP_MS 2000
#define LEAVE_MOST_MS 15000 /* for everything but the scheduler's own stop_timeout_ms */

struct wrapper {
    struct config *config;
    struct reload *reload;
    uv_loop_t loop;
    uv_timer_t wake, reconnect;
    uv_signal_t terminate, interrupt, hangup;
    struct postgres *postgres;
    struct roster roster;
    struct seat seat;
    struct news *news;
    struct succession succession;
    struct reign *reign;
    struct hooks *hooks;
    struct http *http;
    struct supervisor *supervisor;

    struct event events[16]; /* raised while a step is being carried out */
    int event_count;
    bool stepping, leaving;
    int64_t reconnect_ms;
    bool refused; /* the database answers, but not to this member */
    char last_fault[sizeof((struct error){0}.text)];

    struct voice voice;
    int64_t unpublished_since_ms;

    int64_t replied_ms, replies, waited_ms, unpublished; /* for HTTP, as is the next */
    int64_t successions[VITALS_REASONS];
    int64_t lease_ms; /* the group's, as the next accession would have it */
};

static void raise_event(struct wrapper *self, struct event event);
static void describe_vitals(void *data, struct vitals *ret);

/* ---- what this member says ---- */

static void keep_news(void *data, const char *event, const char *reason, int64_t term, json_t *about)
{
    struct wrapper *self = data;
    json_t *copy = json_copy(about);
    if (!voice_keep(&self->voice, event, reason, term, about))
        log_event(LOG_ERROR, "news-lost", "{s:s}", "reason", "the database has been away for too many events");
    const json_t *kept = json_array_get(self->voice.news, json_array_size(self->voice.news) - 1);
    hooks_tell(self->hooks, event, json_string_value(json_object_get(kept, "id")), term, reason, copy);
}

/* What the database tells of this node itself; its hook hears of it from us. */
static void tell_hooks(struct wrapper *self, const struct roster_reply *reply)
{
    const struct succession *succession = &self->succession;
    const struct succession_throne *seen = &succession->view.throne; /* before this reply */
    const char *closing = succession->closing_reason[0] ? succession->closing_reason : NULL;
    if (!reply->granted)
        return;
    if (reply->request == REQUEST_REGISTER)
        hooks_tell(self->hooks, "registered", NULL, 0, closing, NULL);
    else if (reply->request == REQUEST_ACCEDE)
        hooks_tell(self->hooks, "acceded", NULL, reply->observation.throne.term,
                   seen->heir   ? "takeover"
                   : seen->term ? "vacant"
                                : "first",
                   NULL);
    else if (reply->request == REQUEST_ABDICATE)
        hooks_tell(self->hooks, "abdicated", NULL, succession->term, closing, NULL);
}

static void on_hook(void *data, const struct hooks_report *report)
{
    json_t *events = report->events ? json_integer(report->events) : NULL;
    log_event(LOG_WARN, report->what, "{s:s, s:s?, s:o?, s:s}", "hook", report->hook, "event", report->event, "events",
              events, "reason", report->reason);
}

static void drop_refused_news(struct wrapper *self, const struct error *error)
{
    size_t i;
    json_t *one;
    cleanup_json json_t *dropped = voice_drop_refused(&self->voice, error);
    json_array_foreach(dropped, i, one)
    {
        cleanup_free char *text = json_dumps(one, JSON_COMPACT | JSON_ENSURE_ASCII);
        log_event(LOG_ERROR, "news-lost", "{s:s, s:s?}", "reason", "the database cannot store it; is its encoding UTF8?",
                  "news", text);
    }
}

static json_t *describe_scheduler(const struct wrapper *self)
{
    const struct reign_scheduler *scheduler = reign_scheduler(self->reign);
    if (!scheduler->state)
        return NULL;
    return json_pack("{s:s, s:I, s:s, s:I}", "state", scheduler->state, "pid", (json_int_t)scheduler->pid, "started_at",
                     scheduler->started_at, "restarts", (json_int_t)scheduler->restarts);
}

/* ---- orders ---- */

static void send_request(struct wrapper *self, const struct order *order)
{
    struct error error;
    if (order->new_generation) {
        uuid_draw(self->roster.incarnation);
        if (!seat_raise(&self->seat, &error)) {
            log_event(LOG_ERROR, "seat-unwritable", "{s:s}", "reason", error.text);
            self->succession.fresh_generation = true;
            raise_event(self, (struct event){.type = EVENT_REFUSED, .number = order->number});
            return;
        }
        self->roster.generation = self->seat.generation;
    }
    if (order->request == REQUEST_ACCEDE)
        reign_expect(self->reign);
    bool carries = order->request == REQUEST_HEARTBEAT || order->request == REQUEST_ABDICATE;
    cleanup_json json_t *about_self = voice_describe(self->config, &self->succession, describe_scheduler(self));
    cleanup_json json_t *news = voice_send(&self->voice, carries);
    roster_send(&self->roster, order, about_self, news);
}

static void log_state(const struct wrapper *self, const struct order *order)
{
    json_t *term = order->term ? json_integer(order->term) : NULL;
    json_t *member = self->succession.member_id ? json_integer(self->succession.member_id) : NULL;
    const char *reason = order->reason[0] ? order->reason : NULL;
    log_event(LOG_INFO, order->tell, "{s:s, s:s, s:o?, s:o?, s:s?}", "group", self->config->group, "node",
              self->config->node, "member", member, "term", term, "reason", reason);
}

static void tell(struct wrapper *self, const struct order *order)
{
    const char *reason = order->reason[0] ? order->reason : NULL;
    bool started = strcmp(order->tell, "scheduler-started") == 0;
    const struct reign_scheduler *scheduler = reign_scheduler(self->reign);
    json_t *pid = started ? json_integer(scheduler->pid) : NULL;
    log_event(LOG_INFO, order->tell, "{s:I, s:s?, s:O?}", "term", (json_int_t)order->term, "reason", reason, "pid", pid);
    json_t *data = started ? json_pack("{s:o, s:I}", "pid", pid, "restarts", (json_int_t)scheduler->restarts) : NULL;
    keep_news(self, order->tell, reason, order->term, data);
}

static void on_wake(uv_timer_t *timer);
static void close_all(struct wrapper *self);

static void set_wake(struct wrapper *self, int64_t at_ms)
{
    if (at_ms == INT64_MAX) {
        (void)uv_timer_stop(&self->wake);
        return;
    }
    int64_t in_ms = at_ms - clock_now_ms();
    uv_update_time(&self->loop);
    (void)uv_timer_start(&self->wake, on_wake, in_ms > 0 ? (uint64_t)in_ms : 0, 0);
}

static void carry_out(struct wrapper *self, const struct order *order)
{
    switch (order->type) {
    case ORDER_SEND:
        send_request(self, order);
        break;
    case ORDER_PREPARE:
    case ORDER_START_SCHEDULER:
    case ORDER_SET_DEADLINE:
    case ORDER_RESTART_SCHEDULER:
    case ORDER_END_RUN:
    case ORDER_STOP_SCHEDULER:
    case ORDER_KILL_KEEPER:
        reign_carry_out(self->reign, order);
        break;
    case ORDER_TELL:
        tell(self, order);
        break;
    case ORDER_LOG:
        log_state(self, order);
        break;
    case ORDER_WAKE:
        set_wake(self, order->at_ms);
        break;
    case ORDER_EXIT:
        close_all(self);
        break;
    }
}

static bool holds_term(const struct wrapper *self)
{
    enum succession_state state = self->succession.state;
    return state == SUCCESSION_HEIR || state == SUCCESSION_STOPPING || state == SUCCESSION_FENCING;
}

/* Carrying out an order can raise the next event: those queue up, one step at a time. */
static void raise_event(struct wrapper *self, struct event event)
{
    if (self->leaving)
        return;
    if (self->event_count == (int)(sizeof self->events / sizeof *self->events))
        abort(); /* cannot be: a step raises at most one event; the keeper kills the scheduler and writes the will */
    event.now_ms = clock_now_ms();
    self->events[self->event_count++] = event;
    if (self->stepping)
        return;
    self->stepping = true;
    for (int i = 0; i < self->event_count && !self->leaving; i++) {
        struct orders orders;
        struct event next = self->events[i];
        next.now_ms = clock_now_ms();
        succession_step(&self->succession, &next, &orders);
        for (int k = 0; k < orders.count; k++)
            carry_out(self, &orders.list[k]);
    }
    self->event_count = 0;
    self->stepping = false;
    if (self->leaving)
        return;
    const struct succession *succession = &self->succession;
    reign_stepped(self->reign);
    hooks_reign(self->hooks, succession->term_member, succession->term_incarnation,
                holds_term(self) ? succession->term : 0);
    struct vitals vitals;
    describe_vitals(self, &vitals);
    supervisor_touch(self->supervisor, &vitals);
    http_touch(self->http);
}

/* ---- callbacks ---- */

static void on_reign_event(void *data, struct event event)
{
    raise_event(data, event);
}

static void on_wake(uv_timer_t *timer)
{
    struct wrapper *self = timer->data;
    /* after a pause much may lie waiting: hear it before judging what is late */
    reign_drain(self->reign);
    if (!self->leaving)
        postgres_drain(self->postgres);
    raise_event(self, (struct event){.type = EVENT_TIMER});
}

static void log_fault(struct wrapper *self, const char *event, const struct error *error)
{
    bool repeated = strcmp(self->last_fault, error->text) == 0;
    (void)snprintf(self->last_fault, sizeof self->last_fault, "%s", error->text);
    log_event(repeated ? LOG_DEBUG : LOG_WARN, event, "{s:s}", "reason", error->text);
}

static void check_lease(struct wrapper *self, int64_t lease_ms)
{
    if (self->lease_ms == lease_ms)
        return;
    self->lease_ms = lease_ms;
    postgres_set_times(self->postgres, lease_ms / 3, lease_ms / 3);
    if (lease_ms == self->config->lease_ms)
        return;
    const char *fault = succession_timing_fault(&self->succession.settings, lease_ms);
    log_event(fault ? LOG_ERROR : LOG_WARN, fault ? "lease-unfit" : "lease-adopted", "{s:I, s:I, s:s?, s:s?}",
              "group_lease_ms", (json_int_t)lease_ms, "configured_lease_ms", (json_int_t)self->config->lease_ms, "rule",
              fault, "remedy",
              fault ? "remove heartbeat_ms and scheduler.fence_grace_ms, or make them fit the group's lease" : NULL);
}

/* The heir relays; others step in when news lie unpublished for longer than a lease. */
static void wake_relay(struct wrapper *self, int64_t unpublished)
{
    int64_t now_ms = clock_now_ms();
    if (unpublished <= 0)
        self->unpublished_since_ms = 0;
    else if (!self->unpublished_since_ms)
        self->unpublished_since_ms = now_ms;
    bool heir = self->succession.term != 0;
    news_reign(self->news, heir ? self->roster.member_id : 0);
    if (self->news && unpublished > 0 && (heir || now_ms - self->unpublished_since_ms > self->config->lease_ms))
        news_wake(self->news, self->roster.member_id);
}

static void reconnect_later(struct wrapper *self);

/* What a session may see and call is settled at log-in, so a refused member looks again through a new one. */
static void on_refused(struct wrapper *self, uint32_t number, const struct error *error)
{
    if (postgres_connected(self->postgres)) /* else it is away, which on_disconnected says */
        log_fault(self, "database-refused", error);
    drop_refused_news(self, error);
    voice_failed(&self->voice);
    if (self->succession.pending == REQUEST_REGISTER && postgres_connected(self->postgres)) {
        self->refused = true;
        postgres_drop(self->postgres);
        raise_event(self, (struct event){.type = EVENT_DISCONNECTED});
        reconnect_later(self);
    } else {
        raise_event(self, (struct event){.type = EVENT_REFUSED, .number = number});
    }
}

static void count_reply(struct wrapper *self, const struct roster_reply *reply)
{
    const struct succession *succession = &self->succession;
    self->replied_ms = clock_now_ms();
    self->replies++;
    self->waited_ms += self->replied_ms - succession->sent_ms;
    if (reply->observed)
        self->unpublished = reply->unpublished;
    if (reply->request == REQUEST_ACCEDE && reply->granted) { /* granted, so what was seen before is what was there */
        const struct succession_throne *seen = &succession->view.throne;
        self->successions[seen->heir ? VITALS_TAKEOVER : seen->term ? VITALS_VACANT : VITALS_FIRST]++;
    }
}

static void on_reply(void *data, uint32_t number, const struct roster_reply *reply, const struct error *error)
{
    struct wrapper *self = data;
    if (!reply) {
        on_refused(self, number, error);
        return;
    }
    count_reply(self, reply);
    voice_arrived(&self->voice);
    self->reconnect_ms = 0;
    self->refused = false;
    self->last_fault[0] = '\0';
    if (reply->request == REQUEST_REGISTER && reply->granted) {
        self->roster.member_id = reply->observation.member_id;
        memcpy(self->roster.incarnation, reply->observation.incarnation, sizeof self->roster.incarnation);
    }
    if (reply->request == REQUEST_ABDICATE)
        log_event(LOG_INFO, "abdicated", "{s:I, s:s, s:s?}", "term", (json_int_t)self->succession.term, "reason",
                  self->succession.closing_reason, "successor", reply->successor[0] ? reply->successor : NULL);
    tell_hooks(self, reply);
    raise_event(self, (struct event){
                          .type = EVENT_REPLY,
                          .number = number,
                          .granted = reply->granted,
                          .observation = reply->observed ? &reply->observation : NULL,
                          .fence = reply->fence,
                          .inherit = reply->request == REQUEST_ACCEDE && reply->granted && reign_inherits(self->reign),
                          .unable = reply->unable,
                          .refusal = reply->refusal,
                      });
    if (reply->observed && !self->leaving) {
        check_lease(self, reply->observation.accession_lease_ms);
        wake_relay(self, reply->unpublished);
    }
}

static void on_connected(void *data)
{
    struct wrapper *self = data;
    log_event(self->refused ? LOG_DEBUG : LOG_INFO, "database-connected", NULL);
    raise_event(self, (struct event){.type = EVENT_CONNECTED});
}

static void on_reconnect(uv_timer_t *timer)
{
    struct wrapper *self = timer->data;
    postgres_connect(self->postgres);
}

/* Backs off, because a dropped client's backend may hold the throne's row until its commit has ended. */
static void reconnect_later(struct wrapper *self)
{
    if (self->leaving)
        return;
    voice_failed(&self->voice);
    self->reconnect_ms = self->reconnect_ms ? self->reconnect_ms * 2 : RECONNECT_FIRST_MS;
    if (self->reconnect_ms > RECONNECT_MOST_MS)
        self->reconnect_ms = RECONNECT_MOST_MS;
    uv_update_time(&self->loop);
    (void)uv_timer_start(&self->reconnect, on_reconnect, (uint64_t)self->reconnect_ms, 0);
}

static void on_disconnected(void *data, const struct error *error)
{
    struct wrapper *self = data;
    log_fault(self, "database-away", error);
    raise_event(self, (struct event){.type = EVENT_DISCONNECTED});
    reconnect_later(self);
}

static void on_vacuum_due(void *data, const char *text)
{
    (void)data;
    log_event(LOG_WARN, "vacuum-due", "{s:s}", "reason", text);
}

static void on_notify(void *data, const char *payload)
{
    struct wrapper *self = data;
    cleanup_json json_t *object = json_loads(payload, 0, NULL);
    const char *group = json_string_value(json_object_get(object, "group"));
    bool ours = group && strcmp(group, self->config->group) == 0 &&
                json_integer_value(json_object_get(object, "member_id")) == self->roster.member_id;
    if (ours && self->succession.state == SUCCESSION_STANDBY)
        reign_expect(self->reign);
    if (ours)
        raise_event(self, (struct event){.type = EVENT_WOKEN});
}

/* ---- another configuration ---- */

static json_t *join(const char *one, const char *other)
{
    if (one && other)
        return json_sprintf("%s,%s", one, other);
    return one || other ? json_string(one ? one : other) : NULL;
}

static bool concerns(const char *changes, const char *keys)
{
    return changes && strstr(changes, keys);
}

/* Tells those that do not look into the configuration by themselves. */
static void apply(struct wrapper *self, const char *changes)
{
    const struct config *config = self->config;
    log_init(config->log.level, config->log.format);
    self->succession.settings = config_succession(config);
    http_set_token(self->http, config->http.token);
    if (concerns(changes, "rabbitmq.") || concerns(changes, "retention_days"))
        news_configure(self->news, config);
    hooks_configure(self->hooks);
    if (concerns(changes, "scheduler.health."))
        reign_restart_health(self->reign);
}

static void on_reload(void *data, struct config *fresh, const struct error *error)
{
    struct wrapper *self = data;
    supervisor_reloaded(self->supervisor);
    if (!fresh) {
        log_event(LOG_ERROR, "reload-refused", "{s:s}", "reason", error->text);
        return;
    }
    cleanup_free char *at_once = config_changes(self->config, fresh, CONFIG_AT_ONCE);
    cleanup_free char *later = config_changes(self->config, fresh, CONFIG_AT_NEXT_TERM);
    cleanup_free char *kept = config_changes(self->config, fresh, CONFIG_AT_RESTART);
    config_adopt(self->config, fresh, CONFIG_AT_ONCE);
    apply(self, at_once);
    bool all_at_once = reign_reconfigure(self->reign, fresh);
    bool none = !at_once && !later && !kept;
    cleanup_json json_t *applied = join(at_once, all_at_once ? later : NULL);
    log_event(kept ? LOG_WARN : LOG_INFO, "reloaded", "{s:O?, s:s?, s:s?, s:s?}", "applied", applied, "at_next_term",
              all_at_once ? NULL : later, "needs_restart", kept, "changes", none ? "none" : NULL);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct wrapper *self = handle->data;
    if (number == SIGHUP) {
        supervisor_reloading(self->supervisor);
        reign_reopen_output(self->reign);
        reload_ask(self->reload, self->config);
        return;
    }
    bool now = number == SIGINT && self->succession.quitting;
    log_event(LOG_INFO, "stop-requested", "{s:s, s:b}", "signal", number == SIGINT ? "SIGINT" : "SIGTERM", "at_once", now);
    supervisor_stopping(self->supervisor, self->config->scheduler.stop_timeout_ms + LEAVE_MOST_MS);
    raise_event(self, (struct event){.type = now ? EVENT_QUIT_NOW : EVENT_QUIT});
}

/* ---- what HTTP tells and wants ---- */

static void describe_vitals(void *data, struct vitals *ret)
{
    struct wrapper *self = data;
    const struct succession *succession = &self->succession;
    const struct reign_scheduler *scheduler = reign_scheduler(self->reign);
    *ret = (struct vitals){
        .state = succession_state_name(succession->state),
        .scheduler = scheduler->state,
        .in_line = succession->state == SUCCESSION_STANDBY || succession->state == SUCCESSION_ACCEDING,
        .held_term = holds_term(self) ? succession->term : 0,
        .deadline_ms = succession->deadline_ms,
        .term = succession->highest_term,
        .paused = succession->observed && succession->view.paused,
        .lease_ms = succession->observed ? succession->view.lease_ms : self->config->lease_ms,
        .replied_ms = self->replied_ms,
        .replies = self->replies,
        .waited_ms = self->waited_ms,
        .unpublished = self->config->rabbitmq.url_count > 0 && self->replied_ms ? self->unpublished : -1,
        .restarts = scheduler->all_restarts,
    };
    memcpy(ret->successions, self->successions, sizeof ret->successions);
}

/* SIGTERM from outside is an end like any other: the restart policy sees to it. */
static void terminate_scheduler(void *data)
{
    struct wrapper *self = data;
    bool sent = reign_terminate(self->reign);
    log_event(LOG_WARN, "terminate-requested", "{s:s}", "outcome", sent ? "SIGTERM sent" : "no scheduler runs here");
}

static void on_http_event(void *data, const char *event, const char *detail)
{
    (void)data;
    log_event(strcmp(event, "http-listening") == 0 ? LOG_INFO : LOG_WARN, event, "{s:s}", "detail", detail);
}

static void on_news_state(void *data, const char *state, const char *detail, int64_t published)
{
    (void)data;
    bool bad = strcmp(state, "news-unreachable") == 0 || strcmp(state, "news-kept") == 0;
    log_event(bad ? LOG_WARN : LOG_INFO, state, "{s:s?, s:I}", "reason", detail, "published", (json_int_t)published);
}

/* ---- beginning and end ---- */

static void on_postgres_closed(void *data)
{
    struct wrapper *self = data;
    self->postgres = NULL;
}

static void close_all(struct wrapper *self)
{
    self->leaving = true;
    if (json_array_size(self->voice.news) > 0)
        log_event(LOG_WARN, "news-lost", "{s:I, s:s}", "events", (json_int_t)json_array_size(self->voice.news), "reason",
                  "left while the database did not take them");
    if (self->news)
        news_wake(self->news, self->roster.member_id); /* that this member left is still to be told */
    reign_close(self->reign);
    reload_free(self->reload);
    self->reload = NULL;
    hooks_tell(self->hooks, "left", NULL, 0, NULL, NULL);
    hooks_free(self->hooks);
    self->hooks = NULL;
    http_free(self->http);
    self->http = NULL;
    supervisor_free(self->supervisor);
    self->supervisor = NULL;
    uv_close((uv_handle_t *)&self->wake, NULL);
    uv_close((uv_handle_t *)&self->reconnect, NULL);
    uv_close((uv_handle_t *)&self->terminate, NULL);
    uv_close((uv_handle_t *)&self->interrupt, NULL);
    uv_close((uv_handle_t *)&self->hangup, NULL);
    (void)signal(SIGHUP, SIG_IGN); /* what the loop still waits for shall not end by a rotated log */
    postgres_destroy(self->postgres, on_postgres_closed, self);
}

static void start_signal(struct wrapper *self, uv_signal_t *handle, int number)
{
    (void)uv_signal_init(&self->loop, handle); /* these two fail only without memory for the loop's pipe */
    handle->data = self;
    (void)uv_signal_start(handle, on_signal, number);
}

static bool create_postgres(struct wrapper *self, struct error *error)
{
    const struct config *config = self->config;
    char name[64]; /* the server cuts application_name at 63 bytes */
    (void)snprintf(name, sizeof name, "heirflow:%.30s:%.20s", config->group, config->node);
    struct postgres_settings settings = {
        .conninfo = config->postgres,
        .application_name = name,
        .schema = config->schema,
        .attempt_ms = config->lease_ms / 3,
        .lock_timeout_ms = config->lease_ms / 3,
        .listen = "heirflow_wake",
        .on_connected = on_connected,
        .on_disconnected = on_disconnected,
        .on_notify = on_notify,
        .on_vacuum_due = on_vacuum_due,
        .data = self,
    };
    self->postgres = postgres_create(&self->loop, &settings, error);
    return self->postgres != NULL;
}

static bool begin(struct wrapper *self, const struct config_flags *flags, struct error *error)
{
    const struct config *config = self->config;
    struct succession_settings settings = config_succession(config);
    succession_init(&self->succession, &settings);
    if (!seat_take(config->run_directory, config->group, 2 * config->lease_ms, &self->seat, error))
        return false;
    if (!create_postgres(self, error))
        return false;
    const struct reign_callbacks reign_callbacks = {on_reign_event, keep_news, self};
    self->reign = reign_create(&self->loop, self->config, &self->succession, self->seat.id, self->seat.lock_fd,
                               &reign_callbacks, error);
    if (!self->reign || !news_start(config, on_news_state, self, &self->news, error)) {
        reign_close(self->reign);
        postgres_destroy(self->postgres, on_postgres_closed, self);
        return false;
    }
    voice_init(&self->voice);
    self->hooks = hooks_create(&self->loop, config, self->seat.id, on_hook, self);
    self->roster = (struct roster){
        .postgres = self->postgres,
        .group = config->group,
        .node = config->node,
        .seat = self->seat.id,
        .lease_ms = config->lease_ms,
        .on_reply = on_reply,
        .data = self,
    };
    (void)uv_timer_init(&self->loop, &self->wake); /* cannot fail */
    (void)uv_timer_init(&self->loop, &self->reconnect);
    self->wake.data = self->reconnect.data = self;
    start_signal(self, &self->terminate, SIGTERM);
    start_signal(self, &self->interrupt, SIGINT);
    start_signal(self, &self->hangup, SIGHUP);
    const struct http_callbacks callbacks = {describe_vitals, terminate_scheduler, on_http_event, self};
    self->http = http_create(&self->loop, config, &callbacks);
    self->reload = reload_create(&self->loop, flags, on_reload, self);
    self->supervisor = supervisor_create(&self->loop);
    postgres_connect(self->postgres);
    return true;
}

int wrapper_run(struct config *config, const struct config_flags *flags)
{
    struct wrapper self = {.config = config};
    struct error error;
    (void)signal(SIGPIPE, SIG_IGN); /* a peer that hangs up is an error code to us */
    (void)signal(SIGHUP, SIG_IGN);  /* until the loop hears it: what was read a moment ago is new enough */
    if (uv_loop_init(&self.loop) != 0) {
        log_event(LOG_ERROR, "start-failed", "{s:s}", "reason", "no event loop: out of descriptors?");
        return EXIT_CODE_NEGATIVE;
    }
    log_event(LOG_INFO, "starting", "{s:s, s:s, s:s}", "group", config->group, "node", config->node, "version",
              HEIRFLOW_VERSION);
    bool begun = begin(&self, flags, &error);
    if (!begun)
        log_event(LOG_ERROR, "start-failed", "{s:s}", "reason", error.text);
    (void)uv_run(&self.loop, UV_RUN_DEFAULT);
    news_stop(self.news, NEWS_STOP_MS);
    if (begun)
        log_event(LOG_INFO, "left", "{s:s, s:s}", "group", config->group, "node", config->node);
    voice_finish(&self.voice);
    reign_free(self.reign);
    seat_release(&self.seat);
    (void)uv_loop_close(&self.loop);
    return begun ? EXIT_CODE_OK : (int)error.exit_code;
}
