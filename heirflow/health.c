/* Owns when the health command runs and what its failures mean.
 * Never judges more than failures in a row: what becomes of the scheduler is not decided here. */
#include "health.h"

#include <stdlib.h>

#include "clock.h"
#include "errand.h"

struct health {
    uv_loop_t *loop;
    const struct config *config;
    const char *seat;
    health_report_cb *on_report;
    void *data;
    uv_timer_t timer;
    struct errand *errand; /* under way, or NULL */
    bool watching;
    bool succeeded; /* since the scheduler's start */
    int64_t term, asked_ms, next_ms, start_period_ends_ms, failures;
};

static void on_timer(uv_timer_t *timer);

static void wake_for_next(struct health *self)
{
    if (!self->watching || self->errand) {
        (void)uv_timer_stop(&self->timer);
        return;
    }
    int64_t in_ms = self->next_ms - clock_now_ms();
    uv_update_time(self->loop);
    (void)uv_timer_start(&self->timer, on_timer, in_ms > 0 ? (uint64_t)in_ms : 0, 0); /* fails only without a callback */
}

static void conclude(struct health *self, const char *reason)
{
    int64_t before = self->failures;
    self->next_ms = clock_now_ms() + self->config->scheduler.health.interval_ms;
    if (!reason)
        self->failures = 0;
    else if (self->succeeded || self->asked_ms >= self->start_period_ends_ms)
        self->failures++;
    self->succeeded = self->succeeded || !reason;
    struct health_report report = {.reason = reason, .failures = reason ? self->failures : before};
    report.unhealthy = self->failures >= self->config->scheduler.health.failures;
    self->watching = !report.unhealthy;
    wake_for_next(self);
    self->on_report(self->data, &report);
}

static void on_end(void *data, const struct errand_end *end)
{
    struct health *self = data;
    self->errand = NULL;
    conclude(self, end->reason);
}

static void on_timer(uv_timer_t *timer)
{
    struct health *self = timer->data;
    const struct config *config = self->config;
    const struct errand_spec spec = {
        .command = config->scheduler.health.command,
        .key = "scheduler.health.command",
        .environment = config->scheduler.environment,
        .directory = config->scheduler.directory,
        .user = config->scheduler.user,
        .group = config->group,
        .node = config->node,
        .seat = self->seat,
        .term = self->term,
        .timeout_ms = config->scheduler.health.timeout_ms,
    };
    struct error error;
    if (clock_now_ms() < self->next_ms) {
        wake_for_next(self);
        return;
    }
    self->asked_ms = clock_now_ms();
    if (!errand_start(self->loop, &spec, on_end, self, &self->errand, &error))
        conclude(self, error.text);
}

/* ---- life */

struct health *health_create(uv_loop_t *loop, const struct config *config, const char *seat, health_report_cb *on_report,
                             void *data)
{
    struct health *self = calloc(1, sizeof *self);
    if (!self)
        abort(); /* before anything runs */
    self->loop = loop;
    self->config = config;
    self->seat = seat;
    self->on_report = on_report;
    self->data = data;
    (void)uv_timer_init(loop, &self->timer); /* cannot fail */
    self->timer.data = self;
    return self;
}

void health_start(struct health *self, int64_t term)
{
    if (!self)
        return;
    health_stop(self);
    if (!self->config->scheduler.health.command)
        return;
    int64_t now_ms = clock_now_ms();
    self->term = term;
    self->watching = true;
    self->succeeded = false;
    self->failures = 0;
    self->start_period_ends_ms = now_ms + self->config->scheduler.health.start_period_ms;
    self->next_ms = now_ms + self->config->scheduler.health.interval_ms;
    wake_for_next(self);
}

void health_stop(struct health *self)
{
    if (!self)
        return;
    self->watching = false;
    errand_cancel(self->errand);
    self->errand = NULL;
    wake_for_next(self);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void health_free(struct health *self)
{
    if (!self)
        return;
    health_stop(self);
    uv_close((uv_handle_t *)&self->timer, on_timer_closed);
}
