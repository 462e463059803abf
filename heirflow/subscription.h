/* A group's news as RabbitMQ delivers them: a thread with a connection and an exclusive queue of its own, which hands them
 * to a libuv loop. Delivers from the moment it is up, at least once, in order as a rule; what it loses is not told: look at
 * the sequence. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "config.h"
#include "error.h"

struct subscription;

struct subscription_state {
    bool up;            /* the queue is bound: all that is published from now on should come */
    uint64_t lives;     /* how often it has come up */
    int64_t word_ms;    /* when the broker was last heard of, its heartbeats included; 0: never */
    struct error fault; /* why it is not up; text "" while nothing has failed yet */
};

/* Connects and reconnects until stopped. on_change runs on the loop when there is something to take or the state changed.
 * `config` has a broker; nothing of it, nor the group's name, is used after the call. */
bool subscription_start(uv_loop_t *loop, const struct config *config, const char *group, const char *client_name,
                        void (*on_change)(void *data), void *data, struct subscription **ret_subscription,
                        struct error *error);

void subscription_state(struct subscription *self, struct subscription_state *ret_state);

/* The oldest body that was not taken yet, zero-terminated and the caller's to free; NULL if there is none. */
char *subscription_take(struct subscription *self, size_t *ret_length);

/* Within half a second, whatever the broker does. The loop has to run on until its handle is closed. NULL is fine. */
void subscription_stop(struct subscription *self);
