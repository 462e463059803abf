/* Owns the pace of a recording. Never knows what its lines mean. */
#include "replay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

enum { FASTEST = 64, MOST_BATCH = 1000 };

struct replay {
    FILE *file;
    char *line;
    size_t room;
    bool has_line, ended, bad;
    int64_t line_ms; /* when the line was said */
    int64_t number;  /* of the line */

    int64_t head_ms, head_wall_ms;
    int64_t from_ms, from_real_ms; /* since when this speed has held: then, and now */
    int quarters;                  /* speed in quarters */
    bool held;

    uv_timer_t timer;
    bool started;
    struct intake *intake;
    void (*on_change)(void *data);
    void *data;
};

static bool next_line(struct replay *self)
{
    ssize_t length = getline(&self->line, &self->room, self->file);
    self->has_line = length > 0;
    self->ended = !self->has_line;
    self->number++;
    return self->has_line;
}

/* The next line that says something, and when. */
static void next(struct replay *self)
{
    if (next_line(self))
        self->line_ms = intake_when(self->line);
}

bool replay_open(const char *path, char *ret_group, struct replay **ret_replay, struct error *error)
{
    struct replay *self = calloc(1, sizeof *self);
    if (!self)
        return error_set(error, EXIT_CODE_USAGE, "out of memory");
    self->quarters = 4;
    self->file = fopen(path, "re");
    if (!self->file) {
        free(self);
        return error_set(error, EXIT_CODE_USAGE, "cannot read the recording %s: %s", path, strerror(errno));
    }
    if (!next_line(self) || !intake_read_head(self->line, ret_group, &self->head_ms, &self->head_wall_ms)) {
        replay_stop(self);
        return error_set(error, EXIT_CODE_USAGE, "%s is no recording of this program", path);
    }
    self->from_ms = self->line_ms = self->head_ms;
    self->from_real_ms = clock_now_ms();
    next(self);
    *ret_replay = self;
    return true;
}

int64_t replay_now_ms(const struct replay *self)
{
    if (self->held)
        return self->from_ms;
    int64_t now_ms = self->from_ms + (clock_now_ms() - self->from_real_ms) * self->quarters / 4;
    return self->ended && now_ms > self->line_ms ? self->line_ms : now_ms;
}

int64_t replay_wall_ms(const struct replay *self)
{
    return self->head_wall_ms + replay_now_ms(self) - self->head_ms;
}

static bool take_line(struct replay *self)
{
    self->bad = !intake_replay(self->intake, self->line);
    if (self->bad)
        self->ended = true;
    else
        next(self);
    return !self->bad;
}

static void on_timer(uv_timer_t *timer);

static void wake(struct replay *self)
{
    int64_t after_ms = (self->line_ms - replay_now_ms(self)) * 4 / self->quarters;
    if (self->started && !self->ended && !self->held)
        (void)uv_timer_start(&self->timer, on_timer, after_ms > 0 ? (uint64_t)after_ms : 0,
                             0); /* fails only when closing */
}

static void on_timer(uv_timer_t *timer)
{
    struct replay *self = timer->data;
    int taken = 0; /* keys come in between */
    while (!self->ended && !self->held && self->line_ms <= replay_now_ms(self) && taken++ < MOST_BATCH)
        (void)take_line(self);
    uv_update_time(timer->loop);
    wake(self);
    self->on_change(self->data);
}

void replay_start(struct replay *self, uv_loop_t *loop, struct intake *intake, void (*on_change)(void *data), void *data)
{
    (void)uv_timer_init(loop, &self->timer); /* cannot fail */
    self->timer.data = self;
    self->intake = intake;
    self->on_change = on_change;
    self->data = data;
    self->started = true;
    wake(self);
}

bool replay_all(struct replay *self, struct intake *intake, struct error *error)
{
    self->intake = intake;
    while (!self->ended && take_line(self))
        ;
    self->from_ms = self->line_ms;
    self->held = true;
    return !self->bad ||
           error_set(error, EXIT_CODE_USAGE, "line %lld of the recording cannot be read", (long long)self->number);
}

static void change_pace(struct replay *self, bool held, int quarters)
{
    int64_t now_ms = replay_now_ms(self);
    self->from_ms = now_ms;
    self->from_real_ms = clock_now_ms();
    self->held = held;
    self->quarters = quarters;
    wake(self);
}

void replay_hold(struct replay *self)
{
    change_pace(self, !self->held, self->quarters);
}

void replay_faster(struct replay *self, bool faster)
{
    int quarters = faster ? self->quarters * 2 : self->quarters / 2;
    change_pace(self, self->held, quarters < 1 ? 1 : quarters > 4 * FASTEST ? 4 * FASTEST : quarters);
}

void replay_badge(const struct replay *self, bool ascii, char text[REPLAY_BADGE])
{
    const char *sign = ascii ? "" : self->held ? "" : "▶ ";
    if (self->bad)
        (void)snprintf(text, REPLAY_BADGE, "line %lld: bad", (long long)self->number);
    else if (self->ended)
        (void)snprintf(text, REPLAY_BADGE, "end of recording");
    else if (self->held)
        (void)snprintf(text, REPLAY_BADGE, "%sheld", sign);
    else if (self->quarters < 4)
        (void)snprintf(text, REPLAY_BADGE, "%srecording 1/%dx", sign, 4 / self->quarters);
    else
        (void)snprintf(text, REPLAY_BADGE, "%srecording %dx", sign, self->quarters / 4);
}

static void finish(struct replay *self)
{
    (void)fclose(self->file);
    free(self->line);
    free(self);
}

static void on_closed(uv_handle_t *handle)
{
    finish(handle->data);
}

void replay_stop(struct replay *self)
{
    if (!self)
        return;
    if (self->started)
        uv_close((uv_handle_t *)&self->timer, on_closed);
    else
        finish(self);
}
