/* Owns connecting to RabbitMQ and the wording of what goes wrong there. Never waits without a deadline, never publishes
 * or consumes, never shows a password. */
#include "broker.h"

#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "clock.h"

enum { RPC_MS = 5000, GOODBYE_MS = 500 };

static struct timeval timeval_of(int64_t ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

static int64_t left_until(int64_t deadline_ms)
{
    int64_t left = deadline_ms - clock_now_ms();
    return left > 1 ? left : 1;
}

static bool parse(char *url, struct amqp_connection_info *ret_info, struct error *error)
{
    if (amqp_parse_url(url, ret_info) != AMQP_STATUS_OK || !*ret_info->host || ret_info->port == 0)
        return error_set(error, EXIT_CODE_USAGE,
                         "rabbitmq.url is not a valid URL; write amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for "
                         "TLS, with %%XX for special characters in user, password and virtual host");
    if (!*ret_info->vhost)
        ret_info->vhost = "/"; /* what every other client makes of a trailing slash */
    return true;
}

bool broker_check_url(const char *url, struct error *error)
{
    cleanup_free char *text = strdup(url);
    struct amqp_connection_info info;
    return parse(text, &info, error);
}

static const char *remedy_of(int code)
{
    switch (code) {
    case AMQP_ACCESS_REFUSED:
        return "; check user and password in rabbitmq.url and the user's permissions there";
    case AMQP_NOT_ALLOWED:
        return "; create the virtual host or let the user in (rabbitmqctl add_vhost, set_permissions)";
    case AMQP_PRECONDITION_FAILED:
        return "; delete that exchange or name another in rabbitmq.exchange";
    case AMQP_CONNECTION_FORCED:
        return "; it will be tried again";
    default:
        return "";
    }
}

static bool fail_exception(const struct broker *self, const char *doing, int code, amqp_bytes_t text, struct error *error)
{
    (void)error_set(error, EXIT_CODE_BROKER, "broker %s refused %s: %.*s (%d)%s", self->name, doing, (int)text.len,
                    (const char *)text.bytes, code, remedy_of(code));
    error->retryable = code == AMQP_CONNECTION_FORCED || code == AMQP_INTERNAL_ERROR || code == AMQP_RESOURCE_ERROR;
    return false;
}

bool broker_check_method(const struct broker *self, const char *doing, const amqp_method_t *method, struct error *error)
{
    if (method->id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *end = method->decoded;
        return fail_exception(self, doing, end->reply_code, end->reply_text, error);
    }
    if (method->id == AMQP_CONNECTION_CLOSE_METHOD) {
        const amqp_connection_close_t *end = method->decoded;
        return fail_exception(self, doing, end->reply_code, end->reply_text, error);
    }
    return true;
}

bool broker_fail_status(const struct broker *self, const char *doing, int status, struct error *error)
{
    const char *cause = status == AMQP_STATUS_TIMEOUT             ? "no answer in time; it hangs or the network does"
                        : status == AMQP_STATUS_HEARTBEAT_TIMEOUT ? "no sign of life; it hangs or the network does"
                        : status == AMQP_STATUS_CONNECTION_CLOSED || status == AMQP_STATUS_SOCKET_ERROR
                            ? "the connection was lost"
                            : amqp_error_string2(status);
    return error_set_retryable(error, EXIT_CODE_BROKER, "broker %s, while %s: %s", self->name, doing, cause);
}

bool broker_fail_reply(const struct broker *self, const char *doing, amqp_rpc_reply_t reply, struct error *error)
{
    switch (reply.reply_type) {
    case AMQP_RESPONSE_LIBRARY_EXCEPTION:
        return broker_fail_status(self, doing, reply.library_error, error);
    case AMQP_RESPONSE_SERVER_EXCEPTION:
        if (!broker_check_method(self, doing, &reply.reply, error))
            return false;
        break;
    case AMQP_RESPONSE_NONE:
    case AMQP_RESPONSE_NORMAL:
        break;
    }
    return error_set_retryable(error, EXIT_CODE_BROKER, "broker %s, while %s: unexpected reply", self->name, doing);
}

int64_t broker_silent_ms(const struct broker *self)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    if (getsockopt(self->fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return 0; /* whoever uses the socket will find out */
    return info.tcpi_last_data_recv;
}

bool broker_fail_silent(const struct broker *self, struct error *error)
{
    return broker_fail_status(self, "waiting for its heartbeat", AMQP_STATUS_HEARTBEAT_TIMEOUT, error);
}

static bool make_socket(struct broker *self, const struct amqp_connection_info *info, const struct tls_files *files,
                        amqp_socket_t **ret_socket, struct error *error)
{
    if (info->ssl)
        return tls_socket(self->connection, files, info->host, ret_socket, &self->tls, error) ||
               error_wrap(error, "broker %s", self->name);
    *ret_socket = amqp_tcp_socket_new(self->connection);
    return *ret_socket || error_set_retryable(error, EXIT_CODE_BROKER, "broker %s: out of memory", self->name);
}

static bool connect_to(struct broker *self, const struct amqp_connection_info *info, const struct tls_files *files,
                       int64_t deadline_ms, struct error *error)
{
    amqp_socket_t *socket;
    if (!make_socket(self, info, files, &socket, error))
        return false;
    struct timeval timeout = timeval_of(left_until(deadline_ms));
    int status = amqp_socket_open_noblock(socket, info->host, info->port, &timeout);
    if (status == AMQP_STATUS_HOSTNAME_RESOLUTION_FAILED)
        return error_set_retryable(error, EXIT_CODE_BROKER,
                                   "broker %s: the host name is unknown; check rabbitmq.url and the name service",
                                   self->name);
    if (status == AMQP_STATUS_TIMEOUT)
        return error_set_retryable(error, EXIT_CODE_BROKER,
                                   "broker %s does not answer; check that the host is up and no firewall is between",
                                   self->name);
    const char *complaint = status != AMQP_STATUS_OK && self->tls ? tls_complaint(self->tls, false) : NULL;
    if (complaint)
        return error_set_retryable(error, EXIT_CODE_BROKER, "broker %s: %s", self->name, complaint);
    if (status != AMQP_STATUS_OK)
        return error_set_retryable(error, EXIT_CODE_BROKER,
                                   "broker %s cannot be reached; check that RabbitMQ runs there and listens on that port",
                                   self->name);
    self->fd = amqp_get_sockfd(self->connection);
    /* librabbitmq sends without a deadline, and a broker that takes nothing more can still send heartbeats */
    unsigned int stuck_ms = BROKER_HEARTBEAT_MS;
    (void)setsockopt(self->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &stuck_ms, sizeof stuck_ms); /* at worst news_stop ends it */
    return true;
}

static bool log_in(struct broker *self, const struct amqp_connection_info *info, const char *client_name,
                   int64_t deadline_ms, struct error *error)
{
    amqp_table_entry_t capabilities[] = {
        {.key = amqp_cstring_bytes("connection.blocked"), .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}},
        {.key = amqp_cstring_bytes("authentication_failure_close"),
         .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}},
    };
    amqp_table_entry_t entries[] = {
        {.key = amqp_cstring_bytes("connection_name"),
         .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(client_name)}},
        {.key = amqp_cstring_bytes("capabilities"),
         .value = {.kind = AMQP_FIELD_KIND_TABLE, .value.table = {.num_entries = 2, .entries = capabilities}}},
    };
    amqp_table_t properties = {.num_entries = 2, .entries = entries};
    struct timeval timeout = timeval_of(left_until(deadline_ms));
    if (amqp_set_handshake_timeout(self->connection, &timeout) != AMQP_STATUS_OK)
        return error_set_retryable(error, EXIT_CODE_BROKER, "broker %s: out of memory", self->name);
    amqp_rpc_reply_t reply =
        amqp_login_with_properties(self->connection, info->vhost, 0, AMQP_DEFAULT_FRAME_SIZE, BROKER_HEARTBEAT_S,
                                   &properties, AMQP_SASL_METHOD_PLAIN, info->user, info->password);
    if (reply.reply_type == AMQP_RESPONSE_NORMAL)
        return true;
    /* with TLS 1.3 the broker judges our certificate only now */
    const char *complaint =
        self->tls && reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION ? tls_complaint(self->tls, true) : NULL;
    if (complaint)
        return error_set_retryable(error, EXIT_CODE_BROKER, "broker %s: %s", self->name, complaint);
    (void)broker_fail_reply(self, "the log-in", reply, error);
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION && reply.library_error != AMQP_STATUS_TIMEOUT)
        (void)error_set_retryable(error, EXIT_CODE_BROKER, "broker %s broke off the log-in; check %s", self->name,
                                  self->tls ? "rabbitmq.cert_file: it may want a client certificate, or another one"
                                            : "that an AMQP 0-9-1 broker listens on that port (amqps:// if it wants TLS), "
                                              "and user and password");
    return false;
}

static amqp_rpc_reply_t declare(struct broker *self, const char *exchange, bool passive, int64_t deadline_ms)
{
    struct timeval timeout = timeval_of(left_until(deadline_ms));
    (void)amqp_set_rpc_timeout(self->connection, &timeout); /* fails for negative values only */
    amqp_channel_open(self->connection, BROKER_CHANNEL);
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(self->connection);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL)
        return reply;
    amqp_exchange_declare(self->connection, BROKER_CHANNEL, amqp_cstring_bytes(exchange), amqp_cstring_bytes("topic"),
                          passive, true, false, false, amqp_empty_table);
    return amqp_get_rpc_reply(self->connection);
}

static bool declare_exchange(struct broker *self, const char *exchange, int64_t deadline_ms, struct error *error)
{
    amqp_rpc_reply_t reply = declare(self, exchange, false, deadline_ms);
    if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION && reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD &&
        ((amqp_channel_close_t *)reply.reply.decoded)->reply_code == AMQP_ACCESS_REFUSED) {
        amqp_channel_close_ok_t ok = {0};
        if (amqp_send_method(self->connection, BROKER_CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok) == AMQP_STATUS_OK) {
            amqp_rpc_reply_t existing = declare(self, exchange, true, deadline_ms);
            if (existing.reply_type == AMQP_RESPONSE_NORMAL)
                reply = existing;
            else
                return error_set(error, EXIT_CODE_BROKER,
                                 "broker %s: the user may neither create the exchange \"%s\" nor is there one; create it "
                                 "(durable, topic) or grant the user the configure permission",
                                 self->name, exchange);
        }
    }
    if (reply.reply_type == AMQP_RESPONSE_NORMAL)
        return true;
    return broker_fail_reply(self, "to declare the durable topic exchange", reply, error);
}

bool broker_open(const char *url, const struct broker_settings *settings, int64_t timeout_ms, struct broker **ret_broker,
                 struct error *error)
{
    int64_t deadline_ms = clock_now_ms() + timeout_ms;
    cleanup_free char *text = strdup(url);
    struct amqp_connection_info info;
    if (!parse(text, &info, error))
        return false;
    struct broker *self = calloc(1, sizeof *self);
    self->fd = -1;
    (void)snprintf(self->name, sizeof self->name, "%.200s:%d/%.100s", info.host, info.port,
                   strcmp(info.vhost, "/") == 0 ? "" : info.vhost); /* a name too long is cut */
    self->connection = amqp_new_connection();
    if (!connect_to(self, &info, &settings->tls, deadline_ms, error) ||
        !log_in(self, &info, settings->client_name, deadline_ms, error) ||
        !declare_exchange(self, settings->exchange, deadline_ms, error)) {
        broker_close(self, false);
        return false;
    }
    struct timeval timeout = timeval_of(RPC_MS);
    (void)amqp_set_rpc_timeout(self->connection, &timeout); /* fails for negative values only */
    *ret_broker = self;
    return true;
}

void broker_close(struct broker *self, bool healthy)
{
    if (!self)
        return;
    if (healthy) {
        struct timeval timeout = timeval_of(GOODBYE_MS);
        (void)amqp_set_rpc_timeout(self->connection, &timeout);
        (void)amqp_connection_close(self->connection, AMQP_REPLY_SUCCESS); /* nothing is at stake any more */
    }
    (void)amqp_destroy_connection(self->connection); /* frees in any case */
    tls_free(self->tls);
    free(self);
}
