/* Persistent messages to one exchange over one broker connection, with publisher confirms counted in order. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker.h"
#include "error.h"

enum { PUBLISHER_WINDOW = 512 };

struct publisher {
    const struct broker *broker;  /* borrowed; no other use of it meanwhile */
    const char *exchange;         /* borrowed */
    uint64_t sent;                /* messages since publisher_init, which is also the last one's delivery tag */
    uint64_t confirmed;           /* all messages up to this one have been confirmed */
    bool acked[PUBLISHER_WINDOW]; /* those after it, by delivery tag */
    bool refused;                 /* the broker could not keep one; nothing more can be said of it and those after it */
    bool blocked;                 /* the broker takes no messages at present, for this reason */
    char blocked_reason[128];
};

struct message {
    const char *routing_key, *id, *content_type;
    const char *body;
    size_t length;
};

/* Switches the channel to confirms. */
bool publisher_init(struct publisher *self, const struct broker *broker, const char *exchange, struct error *error);

/* At most PUBLISHER_WINDOW messages may be out unconfirmed. Blocks while the network does, at most BROKER_HEARTBEAT_S. */
bool publisher_send(struct publisher *self, const struct message *message, struct error *error);

/* Takes in what the broker says, waiting for the first of it up to wait_ms: confirms, blocked or not, and the connection's
 * heartbeats. False if a message was refused or the connection is no more: what is not confirmed must be sent again, over
 * a new connection. */
bool publisher_listen(struct publisher *self, int64_t wait_ms, struct error *error);
