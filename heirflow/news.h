/* Outbox to RabbitMQ, on a thread of its own with database and broker connections of its own: whatever the broker does,
 * the wrapper's loop never waits. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "error.h"

struct news;

/* What the thread has to tell goes through one callback, on the relay's thread: log_event is all it may call.
 * state: "news-connected", "news-unreachable" (detail names broker and cause, without password), "news-caught-up". */
typedef void news_state_cb(void *data, const char *state, const char *detail, int64_t published);

/* Starts the thread. Without any rabbitmq url it does nothing and *ret_news is NULL. */
bool news_start(const struct config *config, news_state_cb *on_state, void *data, struct news **ret_news, struct error *error);

/* Hint from the loop, never blocks: there is unpublished news and this member would relay it. */
void news_wake(struct news *self, int64_t member_id);

/* Publishes what it can until timeout_ms, then ends the thread and frees. NULL is fine. */
void news_stop(struct news *self, int64_t timeout_ms);
