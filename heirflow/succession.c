/* Owns every decision of the protocol: state + event + time -> orders.
 * Never reads a clock, never does I/O, never allocates. Rule numbers refer to docs/protocol.md. */
#include "succession.h"

#include <assert.h>
#include <string.h>

#define NEVER INT64_MAX
#define QUIT_PATIENCE_MS 10000 /* well within what systemd grants a service to stop */
#define COOLING_MOST_MS 6000   /* for a start; doubled up to fifty times that */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void copy_text(char *to, size_t size, const char *from)
{
    size_t length = from ? strnlen(from, size - 1) : 0;
    if (from && from[length]) /* cut, but not inside a UTF-8 character */
        while (length && ((unsigned char)from[length] & 0xc0) == 0x80)
            length--;
    if (length)
        memcpy(to, from, length);
    to[length] = '\0';
}

/* ---- timings ---- */

int64_t succession_heartbeat_ms(const struct succession_settings *settings, int64_t lease_ms)
{
    return settings->heartbeat_ms ? settings->heartbeat_ms : lease_ms / 6;
}

int64_t succession_fence_grace_ms(const struct succession_settings *settings, int64_t lease_ms)
{
    return settings->fence_grace_ms ? settings->fence_grace_ms : lease_ms / 2;
}

const char *succession_timing_fault(const struct succession_settings *settings, int64_t lease_ms)
{
    int64_t heartbeat_ms = succession_heartbeat_ms(settings, lease_ms);
    if (heartbeat_ms * 3 > lease_ms)
        return "heartbeat <= lease/3";
    if (succession_fence_grace_ms(settings, lease_ms) + lease_ms / 10 + 2 * heartbeat_ms > lease_ms)
        return "fence_grace + margin + 2*heartbeat <= lease (margin is 10 % of the lease)";
    return NULL;
}

/* Of the group as far as it is known. */
static int64_t group_lease_ms(const struct succession *self)
{
    return self->observed ? self->view.lease_ms : self->settings.lease_ms;
}

static int64_t heartbeat_ms(const struct succession *self)
{
    return most(succession_heartbeat_ms(&self->settings, group_lease_ms(self)), 1);
}

static int64_t term_at_ms(const struct succession *self)
{
    return succession_term_at_ms(self->deadline_ms, self->lease_ms,
                                 succession_fence_grace_ms(&self->settings, self->lease_ms));
}

/* ---- orders and states ---- */

static struct order *give(struct orders *orders, enum order_type type)
{
    assert(orders->count < SUCCESSION_ORDERS);
    struct order *order = &orders->list[orders->count++];
    *order = (struct order){.type = type};
    return order;
}

/* News travel with the next request, so that is due now. */
static void tell(struct succession *self, struct orders *orders, const char *event, const char *reason)
{
    self->beat_at_ms = 0;
    struct order *order = give(orders, ORDER_TELL);
    order->tell = event;
    order->term = self->term;
    copy_text(order->reason, sizeof order->reason, reason);
}

static void stop_scheduler(struct succession *self, struct orders *orders, int64_t kill_at_ms)
{
    self->kill_at_ms = kill_at_ms;
    self->restart_at_ms = 0;
    give(orders, ORDER_STOP_SCHEDULER)->kill_at_ms = kill_at_ms;
}

static void kill_keeper(struct succession *self, struct orders *orders)
{
    if (self->tree && !self->killing)
        (void)give(orders, ORDER_KILL_KEEPER);
    self->killing = self->tree;
}

const char *succession_state_name(enum succession_state state)
{
    static const char *const names[] = {
        [SUCCESSION_JOINING] = "joining",
        [SUCCESSION_STANDBY] = "standby",
        [SUCCESSION_ACCEDING] = "acceding",
        [SUCCESSION_HEIR] = "heir",
        [SUCCESSION_STOPPING] = "stopping",
        [SUCCESSION_FENCING] = "fencing",
        [SUCCESSION_ABDICATING] = "abdicating",
        [SUCCESSION_LEAVING] = "leaving",
        [SUCCESSION_LEFT] = "left",
    };
    return names[state];
}

/* The only place where the state changes. */
static void enter(struct succession *self, enum succession_state next, const char *reason, struct orders *orders)
{
#define TO(state) (1u << (state))
    static const unsigned edges[] = {
        [SUCCESSION_JOINING] = TO(SUCCESSION_STANDBY) | TO(SUCCESSION_LEFT),
        [SUCCESSION_STANDBY] =
            TO(SUCCESSION_ACCEDING) | TO(SUCCESSION_ABDICATING) | TO(SUCCESSION_JOINING) | TO(SUCCESSION_LEAVING),
        [SUCCESSION_ACCEDING] = TO(SUCCESSION_HEIR) | TO(SUCCESSION_STANDBY) | TO(SUCCESSION_ABDICATING),
        [SUCCESSION_HEIR] = TO(SUCCESSION_STOPPING) | TO(SUCCESSION_FENCING) | TO(SUCCESSION_ABDICATING),
        [SUCCESSION_STOPPING] = TO(SUCCESSION_FENCING) | TO(SUCCESSION_ABDICATING),
        [SUCCESSION_FENCING] = TO(SUCCESSION_ABDICATING),
        [SUCCESSION_ABDICATING] = TO(SUCCESSION_JOINING) | TO(SUCCESSION_LEAVING) | TO(SUCCESSION_LEFT),
        [SUCCESSION_LEAVING] = TO(SUCCESSION_LEFT) | TO(SUCCESSION_STANDBY),
        [SUCCESSION_LEFT] = 0,
    };
    assert(edges[self->state] & TO(next));
#undef TO
    self->state = next;
    if (next == SUCCESSION_LEFT) {
        (void)give(orders, ORDER_EXIT);
        return;
    }
    struct order *order = give(orders, ORDER_LOG);
    order->tell = succession_state_name(next);
    order->term = self->term;
    copy_text(order->reason, sizeof order->reason, reason);
}

void succession_init(struct succession *self, const struct succession_settings *settings)
{
    *self = (struct succession){.settings = *settings, .fresh_generation = true};
}

/* ---- what the last reply means ---- */

static bool same_throne(const struct succession_throne *a, const struct succession_throne *b)
{
    return strcmp(a->identity, b->identity) == 0 && a->heir == b->heir && strcmp(a->incarnation, b->incarnation) == 0 &&
           a->term == b->term && a->beat == b->beat;
}

static void observe(struct succession *self, const struct succession_observation *seen, int64_t now_ms)
{
    int64_t since_ms = now_ms + 1; /* times are rounded down; a waiting time must not be */
    bool other_server = strcmp(seen->throne.identity, self->view.throne.identity) != 0;
    bool turned_back = seen->throne.term < self->view.throne.term; /* somebody restored the table's rows */
    if (!self->observed || other_server || turned_back)
        self->identity_since_ms = since_ms;
    if (!self->observed || !same_throne(&seen->throne, &self->view.throne))
        self->unchanged_since_ms = since_ms;
    if (!self->observed || self->view.paused)
        self->open_since_ms = now_ms;
    self->highest_term = most(self->highest_term, seen->throne.term);
    self->view = *seen;
    self->observed = true;
}

static bool holds_throne(const struct succession *self)
{
    return self->view.throne.heir == self->member_id && strcmp(self->view.throne.incarnation, self->incarnation) == 0;
}

const char *succession_why_ineligible(const struct succession *self, int64_t now_ms)
{
    if (self->settings.no_heir)
        return "no_heir";
    if (self->quitting)
        return "leaving";
    if (now_ms < self->cooling_until_ms)
        return "cooling off";
    return succession_timing_fault(&self->settings,
                                   self->observed ? self->view.accession_lease_ms : self->settings.lease_ms);
}

/* Rules 4 to 6: since when the throne is free to be taken by whoever's turn it is. */
static int64_t takeable_at_ms(const struct succession *self)
{
    const struct succession_observation *view = &self->view;
    if (view->paused && !view->last_seat)
        return NEVER;
    int64_t at_ms = most(self->unchanged_since_ms - 1, self->open_since_ms);
    if (view->throne.heir)
        at_ms = most(at_ms, self->unchanged_since_ms + view->lease_ms);
    if (!view->home || view->throne.term < self->highest_term)
        at_ms = most(at_ms, self->identity_since_ms + view->wait_ms);
    return at_ms;
}

/* Rule 7. After a further lease seniority yields; the rank spreads those who then try. */
static int64_t accede_at_ms(const struct succession *self, int64_t now_ms, bool *ret_seniority_yields)
{
    const struct succession_observation *view = &self->view;
    *ret_seniority_yields = false;
    if (self->state != SUCCESSION_STANDBY || !self->registered || !self->observed || !view->known || view->retired ||
        holds_throne(self) || succession_why_ineligible(self, now_ms))
        return NEVER;
    int64_t at_ms = takeable_at_ms(self);
    if (at_ms == NEVER)
        return NEVER;
    if (!view->named && !view->paused && (!view->eldest || view->held_back)) {
        *ret_seniority_yields = true;
        at_ms += view->lease_ms + least(view->rank, 50) * 20;
    }
    return most(at_ms, self->retry_at_ms);
}

/* ---- requests ---- */

static struct order *send(struct succession *self, enum succession_request request, int64_t now_ms, struct orders *orders)
{
    struct order *order = give(orders, ORDER_SEND);
    order->request = request;
    order->number = ++self->number;
    order->timeout_ms = most(group_lease_ms(self) / 3, 1);
    self->pending = request;
    self->sent_ms = now_ms;
    return order;
}

static void send_register(struct succession *self, int64_t now_ms, struct orders *orders)
{
    send(self, REQUEST_REGISTER, now_ms, orders)->new_generation = self->fresh_generation;
    self->fresh_generation = false;
}

static void send_heartbeat(struct succession *self, int64_t now_ms, struct orders *orders)
{
    struct order *order = send(self, REQUEST_HEARTBEAT, now_ms, orders);
    order->renew = self->state == SUCCESSION_HEIR || self->state == SUCCESSION_STOPPING;
    order->term = self->term;
    self->beat_at_ms = now_ms + heartbeat_ms(self);
}

static void send_accede(struct succession *self, int64_t now_ms, bool seniority_yields, struct orders *orders)
{
    struct order *order = send(self, REQUEST_ACCEDE, now_ms, orders);
    order->seen = self->view.throne;
    order->highest_term = self->highest_term;
    order->seniority_yields = seniority_yields;
    enter(self, SUCCESSION_ACCEDING, seniority_yields ? "seniority yields" : "my turn", orders);
}

static void send_abdicate(struct succession *self, int64_t now_ms, struct orders *orders)
{
    struct order *order = send(self, REQUEST_ABDICATE, now_ms, orders);
    order->member_id = self->term_member;
    copy_text(order->incarnation, sizeof order->incarnation, self->term_incarnation);
    order->term = self->term;
    copy_text(order->reason, sizeof order->reason, self->closing_reason);
}

/* Rule 3: without the keeper's echo of the last deadline there is no further renewal. */
static bool may_beat(const struct succession *self)
{
    switch (self->state) {
    case SUCCESSION_STANDBY:
        return self->registered;
    case SUCCESSION_HEIR:
    case SUCCESSION_STOPPING:
        return self->preparing || (self->tree && self->echoed_ms >= self->deadline_ms);
    case SUCCESSION_JOINING:
    case SUCCESSION_ACCEDING:
    case SUCCESSION_FENCING:
    case SUCCESSION_ABDICATING:
    case SUCCESSION_LEAVING:
    case SUCCESSION_LEFT:
        break;
    }
    return false;
}

/* ---- ends of a term ---- */

/* Within which ends of the scheduler belong together. */
static int64_t window_ms(const struct succession *self)
{
    const struct succession_settings *settings = &self->settings;
    return self->unhealthy ? most(settings->restart_window_ms, settings->unhealthy_window_ms) : settings->restart_window_ms;
}

/* Did the run that has just ended do well for long enough to forget those before? */
static bool ran_long(const struct succession *self, int64_t now_ms)
{
    return self->running && now_ms - self->started_ms >= window_ms(self);
}

/* Out of the others' way for a while, because a term was of no use, through nobody's fault. */
static void step_back(struct succession *self, int64_t now_ms)
{
    int64_t base_ms = least(group_lease_ms(self), COOLING_MOST_MS);
    self->cooling_until_ms = most(self->cooling_until_ms, now_ms + base_ms);
}

/* The scheduler, or what has to come before it, has failed here: longer each time. */
static void cool_off(struct succession *self, int64_t now_ms)
{
    int64_t base_ms = least(group_lease_ms(self), COOLING_MOST_MS);
    self->cooling_ms = ran_long(self, now_ms) || !self->cooling_ms ? base_ms : least(self->cooling_ms * 2, base_ms * 50);
    self->cooling_until_ms = now_ms + self->cooling_ms;
}

/* Rule 8: the tree is dead; from here on nothing ever runs under this term. */
static void close_term(struct succession *self, const char *reason, struct orders *orders)
{
    copy_text(self->closing_reason, sizeof self->closing_reason, reason);
    self->preparing = false;
    self->restart_at_ms = 0;
    self->retry_at_ms = 0;
    enter(self, SUCCESSION_ABDICATING, reason, orders);
}

static void begin_stop(struct succession *self, const char *reason, int64_t now_ms, struct orders *orders)
{
    if (self->preparing) { /* nothing has been started */
        close_term(self, reason, orders);
        return;
    }
    copy_text(self->closing_reason, sizeof self->closing_reason, reason);
    enter(self, SUCCESSION_STOPPING, reason, orders);
    stop_scheduler(self, orders, now_ms + self->settings.stop_timeout_ms);
}

static void begin_fencing(struct succession *self, const char *reason, int64_t now_ms, struct orders *orders)
{
    if (self->preparing) {
        close_term(self, reason, orders);
        return;
    }
    copy_text(self->closing_reason, sizeof self->closing_reason, reason);
    enter(self, SUCCESSION_FENCING, reason, orders);
    tell(self, orders, "fenced", reason);
    int64_t grace_ms = succession_fence_grace_ms(&self->settings, self->lease_ms);
    stop_scheduler(self, orders, least(succession_kill_at_ms(self->deadline_ms, self->lease_ms), now_ms + grace_ms));
}

static void leave_or_exit(struct succession *self, struct orders *orders)
{
    self->term = 0;
    self->retry_at_ms = 0;
    if (self->quitting && self->registered) {
        enter(self, SUCCESSION_LEAVING, "", orders);
    } else if (self->quitting) {
        enter(self, SUCCESSION_LEFT, "", orders);
    } else { /* rule 7: back to the end of the line */
        self->registered = false;
        self->fresh_generation = true;
        enter(self, SUCCESSION_JOINING, self->closing_reason, orders);
    }
}

/* ---- replies ---- */

/* Rule 9. */
static void give_back(struct succession *self, const char *reason, int64_t now_ms, struct orders *orders)
{
    step_back(self, now_ms);
    close_term(self, reason, orders);
}

static void start_scheduler(struct succession *self, struct orders *orders)
{
    struct order *order = give(orders, ORDER_START_SCHEDULER);
    order->term = self->term;
    order->deadline_ms = self->echoed_ms = self->deadline_ms;
    self->tree = true;
}

static void accept_accession(struct succession *self, const struct event *event, struct orders *orders)
{
    int64_t now_ms = event->now_ms;
    self->term = self->view.throne.term;
    self->term_member = self->member_id;
    copy_text(self->term_incarnation, sizeof self->term_incarnation, self->incarnation);
    self->lease_ms = self->view.lease_ms;
    self->deadline_ms = self->sent_ms + self->lease_ms; /* rule 2 */
    self->running = self->unhealthy = self->killing = false;
    self->restarts = 0;
    self->restart_at_ms = 0;
    self->idle_since_ms = now_ms;
    if (self->quitting) {
        close_term(self, "leaving", orders);
        return;
    }
    if (now_ms >= term_at_ms(self)) {
        give_back(self, "accession answered too late", now_ms, orders);
        return;
    }
    enter(self, SUCCESSION_HEIR, "acceded", orders);
    self->preparing = event->fence || event->inherit;
    if (!self->preparing) {
        start_scheduler(self, orders);
        return;
    }
    struct order *order = give(orders, ORDER_PREPARE);
    order->fence = event->fence;
    order->inherit = event->inherit;
    order->term = self->term;
    order->timeout_ms = self->lease_ms;
}

static void on_prepared(struct succession *self, const struct event *event, struct orders *orders)
{
    if (!self->preparing)
        return;
    self->preparing = false;
    if (event->reason) {
        cool_off(self, event->now_ms);
        give_back(self, event->reason, event->now_ms, orders);
    } else if (event->now_ms >= term_at_ms(self)) { /* rule 3 */
        give_back(self, "lease not renewed", event->now_ms, orders);
    } else {
        start_scheduler(self, orders);
    }
}

static void accept_registration(struct succession *self, const struct event *event, struct orders *orders)
{
    self->registered = event->granted;
    if (!event->granted) {
        self->fresh_generation = true;
        self->retry_at_ms = event->now_ms + heartbeat_ms(self) / 4;
        return;
    }
    assert(event->observation);
    self->member_id = event->observation->member_id;
    copy_text(self->incarnation, sizeof self->incarnation, event->observation->incarnation);
    self->beat_at_ms = event->now_ms + heartbeat_ms(self);
    enter(self, SUCCESSION_STANDBY, "registered", orders);
}

static void accept_standby_beat(struct succession *self, int64_t now_ms, struct orders *orders)
{
    if (holds_throne(self)) { /* rule 9: a late accession has been executed */
        self->term = self->view.throne.term;
        self->term_member = self->member_id;
        copy_text(self->term_incarnation, sizeof self->term_incarnation, self->incarnation);
        give_back(self, "held but not running", now_ms, orders);
        return;
    }
    if (!self->view.known) {
        self->registered = false;
        self->fresh_generation = true;
        enter(self, SUCCESSION_JOINING, "no longer on the roster", orders);
        return;
    }
    if (self->view.beat_in_ms >= 0) /* at once again where this one came just before the heir's */
        self->beat_at_ms = now_ms + most(least(self->view.beat_in_ms, heartbeat_ms(self) * 3 / 2), 5);
}

static void accept_renewal(struct succession *self, bool renewed, int64_t now_ms, struct orders *orders)
{
    if (!renewed) {
        begin_fencing(self, "deposed", now_ms, orders);
        return;
    }
    self->deadline_ms = self->sent_ms + self->lease_ms; /* rule 2 */
    give(orders, ORDER_SET_DEADLINE)->deadline_ms = self->deadline_ms;
    if (self->state != SUCCESSION_HEIR)
        return;
    switch (self->view.asked) {
    case ASKED_SWITCHOVER:
        begin_stop(self, "switchover", now_ms, orders);
        break;
    case ASKED_RETIRE:
        begin_stop(self, "retired", now_ms, orders);
        break;
    case ASKED_NOTHING:
        break;
    }
}

static void accept_heartbeat(struct succession *self, const struct event *event, struct orders *orders)
{
    switch (self->state) {
    case SUCCESSION_STANDBY:
        accept_standby_beat(self, event->now_ms, orders);
        break;
    case SUCCESSION_HEIR:
    case SUCCESSION_STOPPING:
        accept_renewal(self, event->granted, event->now_ms, orders);
        break;
    case SUCCESSION_JOINING:
    case SUCCESSION_ACCEDING:
    case SUCCESSION_FENCING: /* never un-stopped by a renewal that comes too late */
    case SUCCESSION_ABDICATING:
    case SUCCESSION_LEAVING:
    case SUCCESSION_LEFT:
        break;
    }
}

static void on_reply(struct succession *self, const struct event *event, struct orders *orders)
{
    if (event->number != self->number || self->pending == REQUEST_NONE)
        return;
    enum succession_request request = self->pending;
    self->pending = REQUEST_NONE;
    if (event->observation) {
        observe(self, event->observation, event->now_ms);
        self->look_first = false;
    }
    switch (request) {
    case REQUEST_REGISTER:
        accept_registration(self, event, orders);
        break;
    case REQUEST_HEARTBEAT:
        accept_heartbeat(self, event, orders);
        break;
    case REQUEST_ACCEDE:
        if (event->granted) {
            accept_accession(self, event, orders);
        } else {
            if (event->unable)
                cool_off(self, event->now_ms);
            self->retry_at_ms = event->now_ms + heartbeat_ms(self) / 4;
            enter(self, SUCCESSION_STANDBY, event->refusal, orders);
        }
        break;
    case REQUEST_ABDICATE:
        leave_or_exit(self, orders);
        break;
    case REQUEST_LEAVE: /* refused to a holder: a late accession, which the next heartbeat will find */
        enter(self, event->granted ? SUCCESSION_LEFT : SUCCESSION_STANDBY, "still holds the throne", orders);
        self->look_first = !event->granted;
        self->beat_at_ms = event->now_ms;
        break;
    case REQUEST_NONE:
        break;
    }
}

/* The pending request has no answer: it may have been executed, or may be yet. */
static void on_no_answer(struct succession *self, int64_t now_ms, struct orders *orders)
{
    if (self->state == SUCCESSION_ACCEDING)
        enter(self, SUCCESSION_STANDBY, "accession unanswered", orders);
    self->pending = REQUEST_NONE;
    self->retry_at_ms = now_ms + heartbeat_ms(self) / 4;
    self->beat_at_ms = least(self->beat_at_ms, self->retry_at_ms);
}

/* ---- scheduler and operator ---- */

static void on_scheduler_failed(struct succession *self, const struct event *event, struct orders *orders)
{
    bool did_well = ran_long(self, event->now_ms);
    tell(self, orders, "scheduler-exited", event->reason);
    if (self->state != SUCCESSION_HEIR) {
        self->running = self->unhealthy = false;
        return;
    }
    int recent = 0;
    for (int i = 0; i < least(self->restarts, 16); i++)
        recent += event->now_ms - self->restarted_ms[i] < window_ms(self);
    self->idle_since_ms = event->now_ms;
    if (recent < self->settings.restart_limit) {
        int64_t backoff_ms = recent ? self->settings.restart_backoff_ms << (recent - 1) : 0; /* the first comes at once */
        self->restart_at_ms = event->now_ms + least(backoff_ms, self->lease_ms / 2);
    } else {
        cool_off(self, event->now_ms);
        begin_stop(self, "scheduler-failed", event->now_ms, orders);
    }
    if (did_well)
        self->cooling_ms = 0;
    self->running = self->unhealthy = false;
}

/* The keeper ends this run; what follows is decided when it is dead, as after a crash. */
static void on_scheduler_unhealthy(struct succession *self, const struct event *event, struct orders *orders)
{
    if (self->state != SUCCESSION_HEIR || !self->running || self->unhealthy)
        return;
    self->unhealthy = true;
    tell(self, orders, "scheduler-unhealthy", event->reason);
    give(orders, ORDER_END_RUN)->kill_at_ms = event->now_ms + succession_fence_grace_ms(&self->settings, self->lease_ms);
}

static void on_tree_dead(struct succession *self, const struct event *event, struct orders *orders)
{
    int64_t now_ms = event->now_ms;
    bool ran = self->running;
    if (ran_long(self, now_ms))
        self->cooling_ms = 0; /* it did well: what cooled it off before is forgotten */
    self->tree = self->running = self->unhealthy = self->killing = false;
    switch (self->state) {
    case SUCCESSION_HEIR:
        if (!ran && event->reason)
            step_back(self, now_ms);
        else if (!ran) /* a keeper that cannot even start one would only spin */
            cool_off(self, now_ms);
        tell(self, orders, event->reason ? "fenced" : "scheduler-exited", event->reason ? event->reason : "keeper died");
        close_term(self, event->reason ? event->reason : "keeper died", orders);
        break;
    case SUCCESSION_STOPPING:
    case SUCCESSION_FENCING:
        close_term(self, self->closing_reason, orders);
        break;
    case SUCCESSION_JOINING:
    case SUCCESSION_STANDBY:
    case SUCCESSION_ACCEDING:
    case SUCCESSION_ABDICATING:
    case SUCCESSION_LEAVING:
    case SUCCESSION_LEFT:
        break;
    }
    if (self->quitting) /* the clock of a wait for an unreachable database starts with the dead tree */
        self->quit_by_ms = now_ms + least(group_lease_ms(self), QUIT_PATIENCE_MS);
}

static void on_quit(struct succession *self, bool now, int64_t now_ms, struct orders *orders)
{
    if (!self->quitting)
        self->quit_by_ms = now_ms + least(group_lease_ms(self), QUIT_PATIENCE_MS);
    self->quitting = true;
    self->hurry |= now;
    if (self->state == SUCCESSION_HEIR)
        begin_stop(self, "leaving", now_ms, orders);
    if (self->hurry)
        kill_keeper(self, orders);
}

static void digest(struct succession *self, const struct event *event, struct orders *orders)
{
    switch (event->type) {
    case EVENT_CONNECTED:
        self->connected = true;
        self->retry_at_ms = 0;
        self->beat_at_ms = event->now_ms;
        break;
    case EVENT_DISCONNECTED:
        self->connected = false;
        on_no_answer(self, event->now_ms, orders);
        break;
    case EVENT_REPLY:
        on_reply(self, event, orders);
        break;
    case EVENT_REFUSED:
        if (event->number == self->number && self->pending != REQUEST_NONE)
            on_no_answer(self, event->now_ms, orders);
        break;
    case EVENT_WOKEN:
        self->beat_at_ms = event->now_ms;
        break;
    case EVENT_PREPARED:
        on_prepared(self, event, orders);
        break;
    case EVENT_TIMER:
        break;
    case EVENT_KEEPER_ECHO:
        self->echoed_ms = most(self->echoed_ms, event->deadline_ms);
        break;
    case EVENT_SCHEDULER_STARTED:
        self->running = true;
        self->started_ms = event->now_ms;
        tell(self, orders, "scheduler-started", event->reason);
        break;
    case EVENT_SCHEDULER_FAILED:
        on_scheduler_failed(self, event, orders);
        break;
    case EVENT_SCHEDULER_UNHEALTHY:
        on_scheduler_unhealthy(self, event, orders);
        break;
    case EVENT_TREE_DEAD:
        on_tree_dead(self, event, orders);
        break;
    case EVENT_QUIT:
        on_quit(self, false, event->now_ms, orders);
        break;
    case EVENT_QUIT_NOW:
        on_quit(self, true, event->now_ms, orders);
        break;
    }
}

/* ---- what time brings ---- */

static void restart_scheduler(struct succession *self, int64_t now_ms, struct orders *orders)
{
    self->restarted_ms[self->restarts++ % 16] = now_ms;
    self->restart_at_ms = 0;
    (void)give(orders, ORDER_RESTART_SCHEDULER);
}

/* Rule 3 and the policy of restarts. Returns when to look again. */
static int64_t watch_term(struct succession *self, int64_t now_ms, struct orders *orders)
{
    switch (self->state) {
    case SUCCESSION_HEIR:
        if (now_ms >= term_at_ms(self)) {
            begin_fencing(self, "lease not renewed", now_ms, orders);
            return self->kill_at_ms;
        }
        if (!self->running && now_ms - self->idle_since_ms >= self->lease_ms) { /* rule 9 */
            cool_off(self, now_ms);
            begin_stop(self, "scheduler does not run", now_ms, orders);
            return least(self->kill_at_ms, term_at_ms(self));
        }
        if (self->restart_at_ms && now_ms >= self->restart_at_ms)
            restart_scheduler(self, now_ms, orders);
        return least(least(term_at_ms(self), self->restart_at_ms ? self->restart_at_ms : NEVER),
                     self->running ? NEVER : self->idle_since_ms + self->lease_ms);
    case SUCCESSION_STOPPING:
        if (now_ms >= term_at_ms(self)) {
            begin_fencing(self, "lease not renewed", now_ms, orders);
            return self->kill_at_ms;
        }
        if (now_ms >= self->kill_at_ms + self->lease_ms / 20) /* the keeper has had its time */
            kill_keeper(self, orders);
        return least(term_at_ms(self), self->killing ? NEVER : self->kill_at_ms + self->lease_ms / 20);
    case SUCCESSION_FENCING:
        if (now_ms >= self->kill_at_ms)
            kill_keeper(self, orders);
        return self->killing ? NEVER : self->kill_at_ms;
    case SUCCESSION_JOINING:
    case SUCCESSION_STANDBY:
    case SUCCESSION_ACCEDING:
    case SUCCESSION_ABDICATING:
    case SUCCESSION_LEAVING:
    case SUCCESSION_LEFT:
        break;
    }
    return NEVER;
}

/* Sends the one request that is due, if any. Returns when the next one will be. */
static int64_t converse(struct succession *self, int64_t now_ms, struct orders *orders)
{
    if (!self->connected || self->pending != REQUEST_NONE)
        return NEVER;
    bool yields;
    int64_t accede_ms = accede_at_ms(self, now_ms, &yields);
    int64_t beat_ms = may_beat(self) ? self->beat_at_ms : NEVER;
    int64_t retry_ms = NEVER;
    switch (self->state) {
    case SUCCESSION_JOINING:
    case SUCCESSION_ABDICATING:
    case SUCCESSION_LEAVING:
        retry_ms = most(self->retry_at_ms, now_ms);
        break;
    case SUCCESSION_STANDBY:
    case SUCCESSION_ACCEDING:
    case SUCCESSION_HEIR:
    case SUCCESSION_STOPPING:
    case SUCCESSION_FENCING:
    case SUCCESSION_LEFT:
        break;
    }
    if (now_ms >= retry_ms && self->state == SUCCESSION_JOINING)
        send_register(self, now_ms, orders);
    else if (now_ms >= retry_ms && self->state == SUCCESSION_ABDICATING)
        send_abdicate(self, now_ms, orders);
    else if (now_ms >= retry_ms && self->state == SUCCESSION_LEAVING)
        (void)send(self, REQUEST_LEAVE, now_ms, orders);
    else if (now_ms >= accede_ms)
        send_accede(self, now_ms, yields, orders);
    else if (now_ms >= beat_ms)
        send_heartbeat(self, now_ms, orders);
    else
        return least(least(accede_ms, beat_ms), retry_ms);
    return NEVER;
}

static int64_t watch_quitting(struct succession *self, int64_t now_ms, struct orders *orders)
{
    if (!self->quitting || self->tree)
        return NEVER;
    bool enough = now_ms >= self->quit_by_ms || (self->hurry && !self->connected);
    if (self->state == SUCCESSION_JOINING && (self->pending == REQUEST_NONE || enough)) {
        enter(self, SUCCESSION_LEFT, "", orders);
        return NEVER;
    }
    if (self->state == SUCCESSION_STANDBY && (enough || (!holds_throne(self) && !self->look_first)))
        enter(self, SUCCESSION_LEAVING, "", orders);
    if (!enough)
        return self->quit_by_ms;
    if (self->state == SUCCESSION_ABDICATING || self->state == SUCCESSION_LEAVING)
        enter(self, SUCCESSION_LEFT, "", orders); /* nobody answers; the lease will say it */
    return NEVER;
}

void succession_step(struct succession *self, const struct event *event, struct orders *orders)
{
    orders->count = 0;
    digest(self, event, orders);
    int64_t now_ms = event->now_ms;
    int64_t at_ms = watch_term(self, now_ms, orders);
    at_ms = least(at_ms, watch_quitting(self, now_ms, orders));
    if (self->state == SUCCESSION_LEFT)
        return;
    at_ms = least(at_ms, converse(self, now_ms, orders));
    if (now_ms < self->cooling_until_ms) /* the roster should learn of the end at once */
        at_ms = least(at_ms, self->cooling_until_ms);
    give(orders, ORDER_WAKE)->at_ms = most(at_ms, now_ms + 1);
}
