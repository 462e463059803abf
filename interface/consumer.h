/* The news as RabbitMQ brings them, on a thread of its own, because librabbitmq blocks. Each viewer has a queue of its own
 * that vanishes with its connection, so viewers never take each other's news and none piles up. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "config.h"
#include "error.h"
#include "model.h"

struct consumer;

/* on_change runs on the loop: there is something to collect. Retries on its own, with growing pauses, for ever. */
bool consumer_start(uv_loop_t *loop, const struct config *config, void (*on_change)(void *data), void *data,
                    struct consumer **ret_consumer, struct error *error);

/* Hands what has come since to the model: news, and how the connection is doing. True if there were new news. */
bool consumer_collect(struct consumer *self, struct model *model);

/* Ends it; the loop then closes its handle. Never waits longer than half a second. NULL is fine. */
void consumer_stop(struct consumer *self);
