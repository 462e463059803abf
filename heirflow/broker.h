/* One connection to RabbitMQ: connected, logged in, channel open, durable topic exchange declared. Blocking, each step
 * with a deadline; for the relay's thread, the interface's consumer and `heirflow check`. */
#pragma once

#include <amqp.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "tls.h"

enum { BROKER_CHANNEL = 1, BROKER_HEARTBEAT_S = 5, BROKER_HEARTBEAT_MS = BROKER_HEARTBEAT_S * 1000, BROKER_NAME = 320 };

struct broker {
    amqp_connection_state_t connection; /* for librabbitmq's own functions, on BROKER_CHANNEL */
    int fd;                             /* for poll; shutdown() from another thread ends any call in progress */
    struct tls *tls;                    /* NULL: without */
    char name[BROKER_NAME];             /* host:port/vhost, for messages: never user or password */
};

struct broker_settings {
    const char *exchange;
    const char *client_name; /* what RabbitMQ's own tools call the connection */
    struct tls_files tls;    /* for amqps:// */
};

/* False if the url is not one broker_open can use; the text does not repeat it, for it may hold a password. */
bool broker_check_url(const char *url, struct error *error);

/* Connects to an amqp:// or amqps:// url within timeout_ms, except that a name look-up lasts as long as the system's
 * resolver lets it. Whoever may not create exchanges there can still use an existing one. Nothing of `settings` is used
 * after the call. Errors name broker, step and remedy and have exit code EXIT_CODE_BROKER (EXIT_CODE_USAGE for the url and
 * the files). */
bool broker_open(const char *url, const struct broker_settings *settings, int64_t timeout_ms, struct broker **ret_broker,
                 struct error *error);

/* How long nothing at all has come from there. A healthy broker's heartbeats come twice in BROKER_HEARTBEAT_S, also while
 * it takes no messages; whoever waits for one should leave it when this reaches BROKER_HEARTBEAT_S. */
int64_t broker_silent_ms(const struct broker *self);

/* Sets the error to that and returns false. */
bool broker_fail_silent(const struct broker *self, struct error *error);

/* Set the error to what a failed librabbitmq call returned, while `doing` ("publishing"), and return false. */
bool broker_fail_status(const struct broker *self, const char *doing, int status, struct error *error);
bool broker_fail_reply(const struct broker *self, const char *doing, amqp_rpc_reply_t reply, struct error *error);

/* The same for a channel.close or connection.close that the broker sent on its own; true for any other method. */
bool broker_check_method(const struct broker *self, const char *doing, const amqp_method_t *method, struct error *error);

/* Says goodbye first if `healthy`, for half a second at most. NULL is fine. */
void broker_close(struct broker *self, bool healthy);
