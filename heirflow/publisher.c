/* Owns delivery tags and confirms. Never connects, never retries. */
#include "publisher.h"

#include <amqp_framing.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

static const char *const PUBLISHING = "publishing";

bool publisher_init(struct publisher *self, const struct broker *broker, const char *exchange, struct error *error)
{
    *self = (struct publisher){.broker = broker, .exchange = exchange};
    amqp_confirm_select(broker->connection, BROKER_CHANNEL);
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(broker->connection);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL)
        return broker_fail_reply(broker, "asking for publisher confirms", reply, error);
    return true;
}

bool publisher_send(struct publisher *self, const struct message *message, struct error *error)
{
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG,
        .content_type = amqp_cstring_bytes(message->content_type),
        .delivery_mode = AMQP_DELIVERY_PERSISTENT,
        .message_id = amqp_cstring_bytes(message->id),
    };
    amqp_bytes_t body = {.len = message->length, .bytes = (void *)(uintptr_t)message->body};
    int status = amqp_basic_publish(self->broker->connection, BROKER_CHANNEL, amqp_cstring_bytes(self->exchange),
                                    amqp_cstring_bytes(message->routing_key), false, false, &properties, body);
    if (status == AMQP_STATUS_SOCKET_ERROR)
        return error_set_retryable(error, EXIT_CODE_BROKER,
                                   "broker %s: the connection was lost or took nothing for %d s; if that lasts, look for a "
                                   "memory or disk alarm there",
                                   self->broker->name, BROKER_HEARTBEAT_S);
    if (status != AMQP_STATUS_OK)
        return broker_fail_status(self->broker, PUBLISHING, status, error);
    self->sent++;
    return true;
}

static void acknowledge(struct publisher *self, uint64_t tag, bool multiple)
{
    uint64_t last = tag == 0 || tag > self->sent ? self->sent : tag; /* 0 with `multiple`: all so far */
    for (uint64_t each = multiple ? self->confirmed + 1 : last; each <= last; each++)
        self->acked[each % PUBLISHER_WINDOW] = each > self->confirmed;
    while (self->confirmed < self->sent && self->acked[(self->confirmed + 1) % PUBLISHER_WINDOW])
        self->acked[++self->confirmed % PUBLISHER_WINDOW] = false;
}

static bool take(struct publisher *self, const amqp_method_t *method, struct error *error)
{
    if (method->id == AMQP_BASIC_ACK_METHOD) {
        const amqp_basic_ack_t *ack = method->decoded;
        acknowledge(self, ack->delivery_tag, ack->multiple);
    } else if (method->id == AMQP_BASIC_NACK_METHOD) {
        self->refused = true;
        return error_set_retryable(error, EXIT_CODE_BROKER,
                                   "broker %s refused an event: a queue bound to \"%s\" is full, or see the broker's log",
                                   self->broker->name, self->exchange);
    } else if (method->id == AMQP_CONNECTION_BLOCKED_METHOD) {
        const amqp_connection_blocked_t *blocked = method->decoded;
        self->blocked = true;
        (void)snprintf(self->blocked_reason, sizeof self->blocked_reason, "%.*s", (int)blocked->reason.len,
                       (const char *)blocked->reason.bytes); /* a reason too long is cut */
    } else if (method->id == AMQP_CONNECTION_UNBLOCKED_METHOD) {
        self->blocked = false;
    }
    return broker_check_method(self->broker, PUBLISHING, method, error);
}

bool publisher_listen(struct publisher *self, int64_t wait_ms, struct error *error)
{
    amqp_connection_state_t connection = self->broker->connection;
    int64_t bearable_ms = BROKER_HEARTBEAT_MS - broker_silent_ms(self->broker);
    if (wait_ms > bearable_ms)
        wait_ms = bearable_ms > 0 ? bearable_ms : 0;
    struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
    for (;;) {
        amqp_frame_t frame;
        amqp_maybe_release_buffers(connection);
        int status = amqp_simple_wait_frame_noblock(connection, &frame, &wait);
        if (status == AMQP_STATUS_TIMEOUT)
            return broker_silent_ms(self->broker) < BROKER_HEARTBEAT_MS || broker_fail_silent(self->broker, error);
        if (status != AMQP_STATUS_OK)
            return broker_fail_status(self->broker, PUBLISHING, status, error);
        if (frame.frame_type == AMQP_FRAME_METHOD && !take(self, &frame.payload.method, error))
            return false;
        wait = (struct timeval){0};
    }
}
