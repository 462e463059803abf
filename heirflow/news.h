/* Outbox to RabbitMQ, on a thread of its own with database and broker connections of its own: whatever the broker does,
 * the wrapper's loop never waits. The heir's thread also removes what is older than the retention. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "error.h"

struct news;

/* What the thread has to tell goes through one callback, on the relay's thread: log_event is all it may call. It runs once
 * per change of state:
 *   "news-unreachable" nothing gets out and the relay tries again; detail names broker or database, cause and remedy,
 *                      without password
 *   "news-connected"   the broker takes news; detail names it
 *   "news-caught-up"   nothing is left to publish; `published` events went out since the relay started or stood still
 *   "news-kept"        what is older than the retention could not be removed; detail says why
 * detail may be NULL. */
typedef void news_state_cb(void *data, const char *state, const char *detail, int64_t published);

/* Starts the thread, which connects only while there is something to do and for a minute after. Nothing of `config` is
 * used after the call. */
bool news_start(const struct config *config, news_state_cb *on_state, void *data, struct news **ret_news,
                struct error *error);

/* From the loop, never blocks: other brokers, exchange, certificates or retention. The thread takes them over between two
 * batches, so nothing is lost, and what the former broker has confirmed is not sent again. Nothing of `config` is used
 * after the call. */
void news_configure(struct news *self, const struct config *config);

/* Hint from the loop, never blocks: there is unpublished news and this member would relay it. May be repeated at will. */
void news_wake(struct news *self, int64_t member_id);

/* From the loop, never blocks: this member is the heir at present, or (member_id 0) it is not. May be repeated at will. */
void news_reign(struct news *self, int64_t member_id);

/* Publishes what it can until timeout_ms, then ends the thread and frees; the callback does not run after it. Does not wait
 * for a broker or database that is away. NULL is fine. */
void news_stop(struct news *self, int64_t timeout_ms);
