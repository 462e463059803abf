/* Owns what surrounds a scheduler during a term: preparation, keeper, health command, estate, output. Never knows why. */
#include "reign.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "clock.h"
#include "estate.h"
#include "fence.h"
#include "health.h"
#include "keeper.h"
#include "log.h"
#include "output.h"

#define INHERIT_MOST_MS 2000
#define SETTLE_MOST_MS 1000

/* One keeper a term; the last one may still be on its way out when the next begins. */
struct keeping {
    struct reign *reign;
    struct keeper *keeper;
    bool tree_dead;
};

struct reign {
    uv_loop_t *loop;
    struct config *config;
    struct config *coming; /* read since; its part for the next term is not in force yet. Or NULL */
    const struct succession *succession;
    const char *seat;
    int lock_fd;
    struct reign_callbacks callbacks;

    struct keeping *keeping; /* NULL: there is no tree */
    struct health *health;
    struct fence *fence;
    struct estate *estate; /* NULL: nothing is inherited */
    struct output *output;
    struct reign_scheduler scheduler;

    int to_prepare;        /* what of ORDER_PREPARE is not done */
    int64_t prepared_term; /* the latest that began with ORDER_PREPARE */
    bool stops_in_peace;   /* it ran when it was told to stop, and has the time for it */
};

static void raise_event(struct reign *self, struct event event)
{
    self->callbacks.on_event(self->callbacks.data, event);
}

/* ---- another configuration ---- */

static void adopt_coming(struct reign *self)
{
    if (!self->coming)
        return;
    config_adopt(self->config, self->coming, CONFIG_AT_NEXT_TERM);
    config_free(self->coming);
    self->coming = NULL;
}

bool reign_reconfigure(struct reign *self, struct config *fresh)
{
    config_free(self->coming);
    self->coming = fresh;
    if (self->keeping || self->succession->preparing)
        return false;
    adopt_coming(self);
    return true;
}

static bool runs(const struct reign *self)
{
    return self->keeping && self->scheduler.state && strcmp(self->scheduler.state, "running") == 0;
}

void reign_restart_health(struct reign *self)
{
    if (runs(self))
        health_start(self->health, self->succession->term);
}

void reign_reopen_output(struct reign *self)
{
    output_reopen(self->output);
}

/* ---- preparation: fence and estate ---- */

/* Both at once: what is inherited lies in the database, where a predecessor can change nothing any more. */
static void prepare(struct reign *self, const struct order *order)
{
    const struct succession *succession = self->succession;
    const struct fence_term term = {
        .member_id = succession->term_member,
        .term = order->term,
        .incarnation = succession->term_incarnation,
    };
    int64_t inherit_ms = succession->lease_ms / 3 < INHERIT_MOST_MS ? succession->lease_ms / 3 : INHERIT_MOST_MS;
    adopt_coming(self);
    self->prepared_term = order->term;
    self->to_prepare = order->fence + order->inherit;
    if (order->fence)
        fence_begin(self->fence, &term, order->timeout_ms);
    if (order->inherit)
        estate_inherit(self->estate, &(struct estate_term){term.member_id, term.term, term.incarnation}, inherit_ms);
}

static void part_prepared(struct reign *self, const char *fault)
{
    if (!self->succession->preparing || !self->to_prepare)
        return; /* that term has ended meanwhile */
    self->to_prepare -= !fault;
    if (fault || !self->to_prepare)
        raise_event(self, (struct event){.type = EVENT_PREPARED, .reason = fault});
}

static void on_inherited(void *data)
{
    part_prepared(data, NULL);
}

static void on_fence(void *data, const struct fence_report *report)
{
    struct reign *self = data;
    if (!self->succession->preparing)
        return; /* that term has ended meanwhile */
    if (report->error)
        log_event(LOG_ERROR, "fence-failed", "{s:s}", "reason", report->error->text);
    else
        log_event(LOG_INFO, "fence-closed", "{s:I, s:I}", "term", (json_int_t)self->succession->term, "sessions_ended",
                  (json_int_t)report->ended);
    if (report->leaks)
        log_event(LOG_ERROR, "fence-leaks", "{s:s, s:s}", "reason", report->leaks, "remedy", "see `heirflow check`");
    part_prepared(self, report->error ? report->error->text : NULL);
}

void reign_stepped(struct reign *self)
{
    if (self->to_prepare && !self->succession->preparing) {
        self->to_prepare = 0;
        estate_rest(self->estate);
    }
}

/* ---- estate, health, output ---- */

static void on_estate(void *data, const struct estate_report *report)
{
    struct reign *self = data;
    log_event(report->level, report->event, "{s:I, s:s?, s:O?}", "term", (json_int_t)report->term, "reason", report->reason,
              "copy", report->data);
    if (report->news)
        self->callbacks.on_news(self->callbacks.data, report->event, report->reason, report->term,
                                json_incref(report->data));
}

static void on_settled(void *data)
{
    raise_event(data, (struct event){.type = EVENT_TREE_DEAD});
}

/* While the lease is renewed no more, for there is no keeper to confirm it; and before any fencing would begin. */
static int64_t settle_limit_ms(const struct reign *self)
{
    const struct succession *succession = self->succession;
    int64_t fence_grace_ms = succession_fence_grace_ms(&succession->settings, succession->lease_ms);
    int64_t left_ms = succession_term_at_ms(succession->deadline_ms, succession->lease_ms, fence_grace_ms) - clock_now_ms();
    return left_ms < SETTLE_MOST_MS ? left_ms : SETTLE_MOST_MS;
}

static void on_health(void *data, const struct health_report *report)
{
    struct reign *self = data;
    if (!self->keeping || !keeper_lives(self->keeping->keeper))
        return; /* without a namespace a keeper's death takes our children along, this one too */
    if (report->reason)
        log_event(report->failures ? LOG_WARN : LOG_DEBUG, "health-failed", "{s:I, s:s}", "in_a_row",
                  (json_int_t)report->failures, "reason", report->reason);
    else if (report->failures)
        log_event(LOG_INFO, "health-restored", "{s:I}", "after_failures", (json_int_t)report->failures);
    if (report->unhealthy)
        raise_event(self, (struct event){.type = EVENT_SCHEDULER_UNHEALTHY, .reason = report->reason});
}

static void on_output(void *data, const struct output_report *report)
{
    if (report->reason)
        log_event(LOG_ERROR, "output-lost", "{s:s, s:s, s:s}", "path", report->path, "reason", report->reason, "remedy",
                  "free space, or let this user write there; the scheduler goes on");
    else
        log_event(LOG_INFO, "output-restored", "{s:s, s:I}", "path", report->path, "bytes_lost", (json_int_t)report->lost);
}

/* ---- what the keeper reports ---- */

static bool ended_well(int status)
{
    return WIFEXITED(status) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static void describe_end(int status, char *text, size_t size)
{
    if (WIFSIGNALED(status))
        (void)snprintf(text, size, "killed by signal %d (SIG%s)", WTERMSIG(status), sigabbrev_np(WTERMSIG(status)));
    else
        (void)snprintf(text, size, "exit status %d", WEXITSTATUS(status));
}

static void on_started(struct reign *self, pid_t pid)
{
    struct tm utc;
    time_t now = time(NULL);
    gmtime_r(&now, &utc);
    (void)strftime(self->scheduler.started_at, sizeof self->scheduler.started_at, "%Y-%m-%dT%H:%M:%SZ", &utc);
    self->scheduler.pid = pid;
    self->scheduler.state = "running";
    health_start(self->health, self->succession->term);
    estate_watch(self->estate);
    raise_event(self, (struct event){.type = EVENT_SCHEDULER_STARTED});
}

static void on_tree_dead(struct keeping *keeping, const char *reason, bool in_peace)
{
    struct reign *self = keeping->reign;
    if (keeping->tree_dead)
        return;
    keeping->tree_dead = true;
    self->keeping = NULL;
    self->scheduler.state = NULL;
    health_stop(self->health);
    if (in_peace && estate_settle(self->estate, settle_limit_ms(self)))
        return; /* its death is told when the last copy is stored */
    estate_rest(self->estate);
    raise_event(self, (struct event){.type = EVENT_TREE_DEAD, .reason = reason});
}

/* Of its own accord, so it may be started again: see EVENT_SCHEDULER_FAILED. */
static void on_ended(struct reign *self, const char *state, const char *reason)
{
    self->scheduler.state = state;
    self->stops_in_peace = false;
    health_stop(self->health);
    estate_rest(self->estate);
    raise_event(self, (struct event){.type = EVENT_SCHEDULER_FAILED, .reason = reason});
}

static void on_report(void *data, const struct keeper_report *report)
{
    struct keeping *keeping = data;
    struct reign *self = keeping->reign;
    char text[sizeof report->text];
    switch (report->word) {
    case KEEPER_ECHO:
        raise_event(self, (struct event){.type = EVENT_KEEPER_ECHO, .deadline_ms = report->deadline_ms});
        break;
    case KEEPER_STARTED:
        on_started(self, report->pid);
        break;
    case KEEPER_START_FAILED:
        log_event(LOG_ERROR, "scheduler-start-failed", "{s:s}", "reason", report->text);
        on_ended(self, "failed", report->text);
        break;
    case KEEPER_EXITED:
        describe_end(report->status, text, sizeof text);
        on_ended(self, "exited", text);
        break;
    case KEEPER_TREE_DEAD:
        on_tree_dead(keeping, "lease not renewed", self->stops_in_peace && ended_well(report->status));
        break;
    case KEEPER_GONE:
        on_tree_dead(keeping, NULL, false);
        keeper_free(keeping->keeper);
        free(keeping);
        break;
    }
}

/* ---- orders ---- */

static void start_scheduler(struct reign *self, const struct order *order)
{
    if (self->prepared_term != order->term) /* what was inherited lies where the configuration said then */
        adopt_coming(self);
    const struct succession *succession = self->succession;
    struct keeper_spec spec = {
        .config = self->config,
        .seat = self->seat,
        .lock_fd = self->lock_fd,
        .output_fd = output_to(self->output, self->config->scheduler.output),
        .member_id = succession->term_member,
        .term = order->term,
        .incarnation = succession->term_incarnation,
        .deadline_ms = order->deadline_ms,
        .lease_ms = succession->lease_ms,
        .fence_grace_ms = succession_fence_grace_ms(&succession->settings, succession->lease_ms),
    };
    struct error error;
    struct keeping *keeping = calloc(1, sizeof *keeping);
    if (keeping) {
        keeping->reign = self;
        if (keeper_start(self->loop, &spec, on_report, keeping, &keeping->keeper, &error)) {
            self->keeping = keeping;
            self->stops_in_peace = false;
            self->scheduler.restarts = 0;
            self->scheduler.state = "starting";
            return;
        }
        log_event(LOG_ERROR, "keeper-start-failed", "{s:s}", "reason", error.text);
        free(keeping);
    }
    raise_event(self, (struct event){.type = EVENT_TREE_DEAD});
}

static void restart_scheduler(struct reign *self)
{
    self->scheduler.restarts++;
    self->scheduler.all_restarts++;
    self->scheduler.state = "starting";
    if (self->keeping)
        keeper_restart(self->keeping->keeper);
}

static void end_run(struct reign *self, int64_t kill_at_ms)
{
    self->scheduler.state = "stopping";
    health_stop(self->health);
    estate_rest(self->estate);
    if (self->keeping)
        keeper_end_run(self->keeping->keeper, kill_at_ms);
}

static void stop_scheduler(struct reign *self, int64_t kill_at_ms)
{
    self->scheduler.state = "stopping";
    health_stop(self->health);
    self->stops_in_peace = self->succession->state == SUCCESSION_STOPPING && self->succession->running;
    if (self->stops_in_peace)
        estate_expect_end(self->estate);
    else
        estate_rest(self->estate);
    if (self->keeping)
        keeper_stop(self->keeping->keeper, kill_at_ms);
}

static void kill_keeper(struct reign *self)
{
    if (self->keeping)
        keeper_kill(self->keeping->keeper);
    else
        estate_rest(self->estate);
}

void reign_carry_out(struct reign *self, const struct order *order)
{
    switch (order->type) {
    case ORDER_PREPARE:
        prepare(self, order);
        break;
    case ORDER_START_SCHEDULER:
        start_scheduler(self, order);
        break;
    case ORDER_SET_DEADLINE:
        if (self->keeping)
            keeper_set_deadline(self->keeping->keeper, order->deadline_ms);
        break;
    case ORDER_RESTART_SCHEDULER:
        restart_scheduler(self);
        break;
    case ORDER_END_RUN:
        end_run(self, order->kill_at_ms);
        break;
    case ORDER_STOP_SCHEDULER:
        stop_scheduler(self, order->kill_at_ms);
        break;
    case ORDER_KILL_KEEPER:
        kill_keeper(self);
        break;
    case ORDER_SEND:
    case ORDER_TELL:
    case ORDER_LOG:
    case ORDER_WAKE:
    case ORDER_EXIT:
        break; /* not about the scheduler */
    }
}

void reign_expect(struct reign *self)
{
    estate_expect_term(self->estate);
}

void reign_drain(struct reign *self)
{
    if (self->keeping)
        keeper_drain(self->keeping->keeper);
}

bool reign_inherits(const struct reign *self)
{
    return self->estate != NULL;
}

const struct reign_scheduler *reign_scheduler(const struct reign *self)
{
    return &self->scheduler;
}

bool reign_terminate(struct reign *self)
{
    reign_drain(self); /* the pid must not be that of one that has ended */
    return runs(self) && kill(self->scheduler.pid, SIGTERM) == 0;
}

/* ---- beginning and end ---- */

struct reign *reign_create(uv_loop_t *loop, struct config *config, const struct succession *succession, const char *seat,
                           int lock_fd, const struct reign_callbacks *callbacks, struct error *error)
{
    struct reign *self = calloc(1, sizeof *self);
    if (!self) {
        (void)error_set(error, EXIT_CODE_NEGATIVE, "out of memory");
        return NULL;
    }
    *self = (struct reign){
        .loop = loop,
        .config = config,
        .succession = succession,
        .seat = seat,
        .lock_fd = lock_fd,
        .callbacks = *callbacks,
    };
    const struct estate_callbacks estate_callbacks = {on_estate, on_inherited, on_settled, self};
    self->fence = fence_create(loop, config, on_fence, self, error);
    if (!self->fence || !estate_create(loop, config, seat, &estate_callbacks, &self->estate, error)) {
        reign_close(self);
        reign_free(self);
        return NULL;
    }
    self->health = health_create(loop, config, seat, on_health, self);
    self->output = output_create(loop, on_output, self);
    (void)output_to(self->output, config->scheduler.output); /* now, so that a path of no use is told at once */
    return self;
}

void reign_close(struct reign *self)
{
    if (!self)
        return;
    output_free(self->output);
    health_free(self->health);
    fence_free(self->fence);
    estate_free(self->estate);
    self->output = NULL;
    self->health = NULL;
    self->fence = NULL;
    self->estate = NULL;
}

void reign_free(struct reign *self)
{
    if (!self)
        return;
    config_free(self->coming);
    free(self);
}
