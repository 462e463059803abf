/* Fills a model from PostgreSQL and RabbitMQ, for ever: state by asking each second and when woken, news from whichever
 * has them. Runs on the loop and never waits. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "config.h"
#include "error.h"
#include "intake.h"

struct feed;

/* on_change runs on the loop whenever the model may have changed. `config` and `intake` stay the caller's. False for
 * connection settings that can never work. */
bool feed_start(uv_loop_t *loop, const struct config *config, const char *group, struct intake *intake,
                void (*on_change)(void *data), void *data, struct feed **ret_feed, struct error *error);

/* Older news than those kept are to be read soon, if there are any. */
void feed_want_older(struct feed *self); /* NULL is fine */

/* Ask now, or try now to connect. */
void feed_refresh(struct feed *self); /* NULL is fine */

/* Everything that can be known at first is known: roster and news are read or PostgreSQL has failed, and RabbitMQ, if
 * configured, was reached or not. */
bool feed_settled(const struct feed *self);

/* Ends it; the loop then closes its handles. NULL is fine. */
void feed_stop(struct feed *self);
