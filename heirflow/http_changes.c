/* Owns the requests that change something: who may, what is asked of the lookout or of the loop, and that each is told.
 * Never carries out a change itself. */
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

#include "clock.h"
#include "http_server.h"

static void name_client(struct exchange *exchange, char *buffer, size_t size)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *address = info ? info->client_addr : NULL;
    socklen_t length = address && address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (!address || getnameinfo(address, length, buffer, (socklen_t)size, NULL, 0, NI_NUMERICHOST) != 0)
        (void)snprintf(buffer, size, "(unknown)");
}

/* Takes as long for a wrong token as for the right one. */
static bool token_fits(const char *token, const char *given)
{
    size_t length = strlen(given);
    volatile unsigned difference = strlen(token) != length;
    for (size_t i = 0; token[i]; i++)
        difference |= (unsigned)(token[i] ^ given[i < length ? i : length]);
    return difference == 0;
}

/* A browser says where a request comes from; other clients do not, and need not. */
static bool is_cross_site(struct exchange *exchange)
{
    const char *site = http_header(exchange, "Sec-Fetch-Site"), *origin = http_header(exchange, "Origin");
    const char *host = http_header(exchange, "Host"), *scheme = origin ? strstr(origin, "://") : NULL;
    if (site && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0)
        return true;
    return origin && (!scheme || !host || strcmp(scheme + 3, host) != 0);
}

static void tell_refusal(struct exchange *exchange, const char *why)
{
    struct http *self = exchange->http;
    int64_t now_ms = clock_now_ms();
    (void)pthread_mutex_lock(&self->lock);
    bool told = self->told_refusal_ms && now_ms - self->told_refusal_ms < 1000;
    self->told_refusal_ms = told ? self->told_refusal_ms : now_ms;
    (void)pthread_mutex_unlock(&self->lock);
    if (told)
        return;
    char client[64], text[200];
    name_client(exchange, client, sizeof client);
    (void)snprintf(text, sizeof text, "%s from %s: %s", exchange->path, client, why);
    self->callbacks.on_event(self->callbacks.data, "http-refused", text);
}

enum MHD_Result http_check_right(struct exchange *exchange)
{
    const char *given = http_header(exchange, "Authorization"), *length = http_header(exchange, "Content-Length");
    char token[sizeof exchange->http->token];
    if (!http_token(exchange->http, token))
        return http_say(exchange, MHD_HTTP_FORBIDDEN,
                        "nothing can be changed over HTTP here: http.token is not set; use the command line");
    if (is_cross_site(exchange)) {
        tell_refusal(exchange, "sent by another site's page");
        return http_say(exchange, MHD_HTTP_FORBIDDEN, "this came from another site's page");
    }
    if (!given || strncasecmp(given, "Bearer ", 7) != 0 || !token_fits(token, given + 7)) {
        tell_refusal(exchange, given ? "wrong token" : "no token");
        return http_say(exchange, MHD_HTTP_UNAUTHORIZED, "%s: send \"Authorization: Bearer \" with what http.token says",
                        given ? "wrong token" : "no token");
    }
    if (length && strtoll(length, NULL, 10) > BODY_MAX)
        return http_say(exchange, MHD_HTTP_CONTENT_TOO_LARGE, "at most %d bytes", BODY_MAX);
    return MHD_YES;
}

static void tell_change(struct exchange *exchange, const char *what, const char *outcome)
{
    struct http *self = exchange->http;
    char client[64], text[900];
    name_client(exchange, client, sizeof client);
    (void)snprintf(text, sizeof text, "%s from %s: %s", what, client, outcome);
    self->callbacks.on_event(self->callbacks.data, "http-change", text);
}

static void on_changed(void *data, const struct lookout_outcome *outcome)
{
    struct exchange *exchange = data;
    exchange->outcome = malloc(sizeof *outcome);
    if (exchange->outcome)
        *exchange->outcome = *outcome;
    MHD_resume_connection(exchange->connection);
}

static enum MHD_Result say_outcome(struct exchange *exchange, unsigned status)
{
    const struct lookout_outcome *outcome = exchange->outcome;
    if (!outcome)
        return http_out_of_memory(exchange);
    tell_change(exchange, exchange->path + 1, outcome->accepted ? "accepted" : outcome->reason);
    if (!outcome->accepted) {
        unsigned how = outcome->forbidden ? MHD_HTTP_FORBIDDEN
                       : outcome->unknown ? MHD_HTTP_GATEWAY_TIMEOUT
                       : outcome->away    ? MHD_HTTP_SERVICE_UNAVAILABLE
                                          : MHD_HTTP_CONFLICT;
        return http_say(exchange, how, "%s%s", outcome->reason, outcome->unknown ? "; it may yet be carried out" : "");
    }
    cleanup_json json_t *reply = json_pack("{s:b, s:b}", "accepted", true, "changed", outcome->changed);
    if (outcome->term)
        (void)json_object_set_new(reply, "term", json_integer(outcome->term));
    cleanup_free char *text = json_dumps(reply, 0);
    return text ? http_send(exchange, status, JSON, http_response(text)) : http_out_of_memory(exchange);
}

static enum MHD_Result change(struct exchange *exchange, enum lookout_change what, const char *node, unsigned status)
{
    if (exchange->waiting)
        return say_outcome(exchange, status);
    exchange->waiting = true;
    MHD_suspend_connection(exchange->connection);
    if (!lookout_change(exchange->http->lookout, what, node, on_changed, exchange))
        MHD_resume_connection(exchange->connection);
    return MHD_YES;
}

/* The body is empty, or {"to": NODE}. */
enum MHD_Result http_serve_switchover(struct exchange *exchange)
{
    cleanup_json json_t *body =
        exchange->length ? json_loadb(exchange->body, exchange->length, JSON_REJECT_DUPLICATES, NULL) : json_object();
    json_t *to = json_object_get(body, "to");
    bool valid =
        json_is_object(body) && (!to || json_is_string(to) || json_is_null(to)) && json_object_size(body) == (to ? 1 : 0);
    if (!valid)
        return http_say(exchange, MHD_HTTP_BAD_REQUEST, "the body is to be empty or JSON: {\"to\": \"NODE\"}");
    return change(exchange, CHANGE_SWITCHOVER, json_string_value(to), MHD_HTTP_ACCEPTED);
}

enum MHD_Result http_serve_pause(struct exchange *exchange)
{
    return change(exchange, CHANGE_PAUSE, NULL, MHD_HTTP_OK);
}

enum MHD_Result http_serve_resume(struct exchange *exchange)
{
    return change(exchange, CHANGE_RESUME, NULL, MHD_HTTP_OK);
}

enum MHD_Result http_serve_terminate(struct exchange *exchange)
{
    struct vitals vitals = http_vitals(exchange->http);
    bool runs = vitals.scheduler && strcmp(vitals.scheduler, "running") == 0;
    tell_change(exchange, "terminate-scheduler", runs ? "accepted" : "no scheduler runs here");
    if (!runs)
        return http_say(exchange, MHD_HTTP_CONFLICT, "no scheduler runs on this node");
    (void)uv_async_send(&exchange->http->terminate);
    return http_send(exchange, MHD_HTTP_ACCEPTED, JSON, http_response("{\"accepted\": true}"));
}
