/* The news as RabbitMQ brings them, on a thread of its own, because librabbitmq blocks. Each viewer has a queue of its own
 * that vanishes with its connection, so viewers never take each other's news and none piles up. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "config.h"
#include "error.h"
#include "intake.h"

struct consumer;

/* `group`: whose news. on_change runs on the loop: there is something to collect. Retries on its own, with growing pauses,
 * for ever. */
bool consumer_start(uv_loop_t *loop, const struct config *config, const char *group, void (*on_change)(void *data),
                    void *data, struct consumer **ret_consumer, struct error *error);

/* Hands over what has come since: news, and how the connection is doing. True if there were new news. */
bool consumer_collect(struct consumer *self, struct intake *intake);

/* Ends it; the loop then closes its handle. Never waits longer than half a second. NULL is fine. */
void consumer_stop(struct consumer *self);
