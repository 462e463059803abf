/* Plays a recording into the model, at the pace at which it was made. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "error.h"
#include "intake.h"

enum { REPLAY_BADGE = 40 };

struct replay;

/* Reads the file's head; *ret_group has room for MODEL_NAME bytes. */
bool replay_open(const char *path, char *ret_group, struct replay **ret_replay, struct error *error);

/* on_change runs on the loop whenever the model may have changed. `intake` stays the caller's. */
void replay_start(struct replay *self, uv_loop_t *loop, struct intake *intake, void (*on_change)(void *data), void *data);

/* Everything at once. False if a line cannot be read. */
bool replay_all(struct replay *self, struct intake *intake, struct error *error);

int64_t replay_now_ms(const struct replay *self); /* CLOCK_BOOTTIME of then */
int64_t replay_wall_ms(const struct replay *self);
void replay_hold(struct replay *self);
void replay_faster(struct replay *self, bool faster);
void replay_badge(const struct replay *self, bool ascii, char text[REPLAY_BADGE]); /* "2x", "held", "at its end" */
void replay_stop(struct replay *self); /* the loop then closes its handle; NULL is fine */
