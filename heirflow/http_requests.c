/* Owns which paths there are, and what each that only reads answers, from the copy of the loop's state or from the lookout.
 * Never changes anything. */
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "clock.h"
#include "http_server.h"
#include "metrics.h"
#include "page.h"

#define CENSUS_AGE_MS 5000 /* Prometheus asks every 15 s or so */

#define STRICT "default-src 'none'; frame-ancestors 'none'"
#define PLAIN "text/plain; charset=utf-8"

struct route {
    const char *path;
    bool changes; /* POST with the token; the others are for GET */
    enum MHD_Result (*serve)(struct exchange *exchange);
};

/* ---- answers ---- */

enum MHD_Result http_send(struct exchange *exchange, unsigned status, const char *type, struct MHD_Response *response)
{
    static const char *const headers[][2] = {
        {"Cache-Control", "no-store"},      {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Referrer-Policy", "no-referrer"},
    };
    if (!response)
        return MHD_NO;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        (void)MHD_add_response_header(response, headers[i][0], headers[i][1]);
    if (!MHD_get_response_header(response, "Content-Security-Policy"))
        (void)MHD_add_response_header(response, "Content-Security-Policy", STRICT);
    if (type)
        (void)MHD_add_response_header(response, "Content-Type", type);
    enum MHD_Result result = MHD_queue_response(exchange->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

struct MHD_Response *http_response(const char *text)
{
    return MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_MUST_COPY);
}

enum MHD_Result http_say(struct exchange *exchange, unsigned status, const char *format, ...)
{
    char text[1500];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text - 1, format, arguments);
    va_end(arguments);
    strcat(text, "\n");
    struct MHD_Response *response = http_response(text);
    if (response && status == MHD_HTTP_SERVICE_UNAVAILABLE)
        (void)MHD_add_response_header(response, "Retry-After", "1");
    if (response && status == MHD_HTTP_UNAUTHORIZED)
        (void)MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"heirflow\"");
    return http_send(exchange, status, PLAIN, response);
}

static const char *methods_of(const struct route *route)
{
    return route->changes ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
}

static enum MHD_Result say_methods(struct exchange *exchange, unsigned status)
{
    struct MHD_Response *response = http_response(status == MHD_HTTP_NO_CONTENT ? "" : "this path has other methods\n");
    if (response)
        (void)MHD_add_response_header(response, "Allow", methods_of(exchange->route));
    return http_send(exchange, status, status == MHD_HTTP_NO_CONTENT ? NULL : PLAIN, response);
}

const char *http_header(struct exchange *exchange, const char *name)
{
    return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

enum MHD_Result http_out_of_memory(struct exchange *exchange)
{
    return http_say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory");
}

/* ---- from the loop's state alone ---- */

static enum MHD_Result serve_heir(struct exchange *exchange)
{
    struct http *self = exchange->http;
    struct vitals vitals = http_vitals(self);
    int64_t now_ms = clock_now_ms();
    if (vitals_is_heir(&vitals, now_ms))
        return http_say(exchange, MHD_HTTP_OK, "%s is the heir of %s, term %lld", self->node, self->group,
                        (long long)vitals.held_term);
    return http_say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "%s is not the heir of %s", self->node, self->group);
}

static enum MHD_Result serve_standby(struct exchange *exchange)
{
    struct http *self = exchange->http;
    struct vitals vitals = http_vitals(self);
    int64_t now_ms = clock_now_ms();
    if (vitals_is_standby(&vitals, now_ms) && !vitals_is_heir(&vitals, now_ms))
        return http_say(exchange, MHD_HTTP_OK, "%s is a standby of %s", self->node, self->group);
    return http_say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "%s is no standby of %s: %s", self->node, self->group,
                    vitals_is_heir(&vitals, now_ms) ? "it is the heir" : vitals.state);
}

static enum MHD_Result serve_health(struct exchange *exchange)
{
    struct vitals vitals = http_vitals(exchange->http);
    int64_t now_ms = clock_now_ms(), hangs_ms = now_ms - vitals.taken_ms, silence_ms = vitals_silence_ms(&vitals, now_ms);
    bool late = hangs_ms >= vitals.lease_ms || silence_ms >= vitals.lease_ms;
    if (late && hangs_ms > INT64_C(2) * TOUCH_MS) /* then nobody has looked whether the database answers */
        return http_say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "the wrapper has hung for %.1f s", (double)hangs_ms / 1000);
    if (!vitals.replied_ms)
        return http_say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "the database has not answered yet");
    if (late)
        return http_say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE,
                        "the database has not answered for %.1f s; the lease is %.1f s", (double)silence_ms / 1000,
                        (double)vitals.lease_ms / 1000);
    return http_say(exchange, MHD_HTTP_OK, "ok");
}

static enum MHD_Result serve_metrics(struct exchange *exchange)
{
    struct http *self = exchange->http;
    struct vitals vitals = http_vitals(self);
    int64_t now_ms = clock_now_ms();
    struct census census = {0};
    if (vitals_is_heir(&vitals, now_ms)) /* one query in the group for each scrape of all its members is enough */
        census = lookout_census(self->lookout, CENSUS_AGE_MS);
    char *text = metrics_text(&vitals, &census, self->group, self->node, now_ms);
    if (!text)
        return MHD_NO;
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    return http_send(exchange, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", response);
}

/* ---- from the database ---- */

static void on_looked(void *data, struct sight *sight)
{
    struct exchange *exchange = data;
    exchange->sight = sight_keep(sight);
    MHD_resume_connection(exchange->connection);
}

/* First the connection is suspended: the lookout may answer before its call returns. */
static enum MHD_Result wait_for_sight(struct exchange *exchange)
{
    exchange->waiting = true;
    MHD_suspend_connection(exchange->connection);
    if (!lookout_look(exchange->http->lookout, on_looked, exchange))
        MHD_resume_connection(exchange->connection);
    return MHD_YES;
}

static enum MHD_Result serve_status(struct exchange *exchange)
{
    if (!exchange->waiting)
        return wait_for_sight(exchange);
    const struct sight *sight = exchange->sight;
    if (!sight)
        return http_out_of_memory(exchange);
    if (!sight->status)
        return http_say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "%s", sight->error.text);
    return http_send(exchange, MHD_HTTP_OK, JSON, http_response(sight->status));
}

/* ---- requests ---- */

static enum MHD_Result serve_page(struct exchange *exchange)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(page_html_size, (void *)page_html, MHD_RESPMEM_PERSISTENT);
    if (response)
        (void)MHD_add_response_header(response, "Content-Security-Policy", page_policy);
    return http_send(exchange, MHD_HTTP_OK, "text/html; charset=utf-8", response);
}

static const struct route routes[] = {
    {"/", false, serve_page},
    {"/status", false, serve_status},
    {"/events", false, http_serve_events},
    {"/switchover", true, http_serve_switchover},
    {"/pause", true, http_serve_pause},
    {"/resume", true, http_serve_resume},
    {"/terminate-scheduler", true, http_serve_terminate},
    {"/heir", false, serve_heir},
    {"/standby", false, serve_standby},
    {"/health", false, serve_health},
    {"/metrics", false, serve_metrics},
};

static const struct route *route_of(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strcmp(routes[i].path, path) == 0)
            return &routes[i];
    }
    return NULL;
}

/* Host names that a hostile page could have pointed at this machine are refused: only a browser on this machine reaches a
 * loopback address, and that one knows it as localhost or by its number. */
static bool host_is_ours(struct exchange *exchange)
{
    char name[256];
    unsigned char address[16];
    const char *host = http_header(exchange, "Host");
    if (!exchange->http->local || !host)
        return true;
    bool bracket = *host == '[';
    (void)snprintf(name, sizeof name, "%.*s", (int)(bracket ? strcspn(host, "]") - 1 : strcspn(host, ":")), host + bracket);
    return strcasecmp(name, "localhost") == 0 || inet_pton(AF_INET, name, address) == 1 ||
           inet_pton(AF_INET6, name, address) == 1;
}

static bool is_method(const struct exchange *exchange, const char *name)
{
    return strcmp(exchange->method, name) == 0;
}

/* Before the body is there: refuses, or goes on without an answer. Answers this early close the connection. */
static enum MHD_Result receive_headers(struct exchange *exchange, const char *path)
{
    const char *length = http_header(exchange, "Content-Length");
    exchange->route = route_of(path);
    exchange->path = exchange->route ? exchange->route->path : "";
    if (!host_is_ours(exchange))
        return http_say(exchange, MHD_HTTP_MISDIRECTED_REQUEST, "ask for localhost or for this node's address");
    if (!exchange->route)
        return http_say(exchange, MHD_HTTP_NOT_FOUND,
                        "there are: / /status /events /heir /standby /health /metrics, and to POST to: "
                        "/switchover /pause /resume /terminate-scheduler");
    if (is_method(exchange, "OPTIONS"))
        return say_methods(exchange, MHD_HTTP_NO_CONTENT);
    bool fits =
        exchange->route->changes ? is_method(exchange, "POST") : is_method(exchange, "GET") || is_method(exchange, "HEAD");
    if (!fits)
        return say_methods(exchange, MHD_HTTP_METHOD_NOT_ALLOWED);
    if (exchange->route->changes)
        return http_check_right(exchange);
    if (http_header(exchange, "Transfer-Encoding") || strcmp(length ? length : "0", "0") != 0)
        return http_say(exchange, MHD_HTTP_BAD_REQUEST, "this path takes no body");
    return MHD_YES;
}

static enum MHD_Result take_body(struct exchange *exchange, const char *data, size_t size)
{
    if (exchange->length + size > BODY_MAX)
        return MHD_NO; /* hangs up: there is no answer in the middle of a body */
    memcpy(exchange->body + exchange->length, data, size);
    exchange->length += size;
    return MHD_YES;
}

enum MHD_Result http_on_request(void *data, struct MHD_Connection *connection, const char *url, const char *method,
                                const char *version, const char *upload, size_t *upload_size, void **con_cls)
{
    struct exchange *exchange = *con_cls;
    (void)version;
    if (!exchange) {
        exchange = calloc(1, sizeof *exchange);
        if (!exchange)
            return MHD_NO;
        exchange->http = data;
        exchange->connection = connection;
        exchange->method = method; /* lives as long as the request */
        *con_cls = exchange;
        return receive_headers(exchange, url);
    }
    if (*upload_size == 0)
        return exchange->route->serve(exchange);
    size_t size = *upload_size;
    *upload_size = 0;
    return take_body(exchange, upload, size);
}

void http_on_completed(void *data, struct MHD_Connection *connection, void **con_cls, enum MHD_RequestTerminationCode how)
{
    struct exchange *exchange = *con_cls;
    (void)how;
    http_time_connection(data, connection, clock_now_ms());
    if (exchange) {
        sight_release(exchange->sight);
        free(exchange->outcome);
    }
    free(exchange);
    *con_cls = NULL;
}

/* Our paths need no escapes, and %00 must not end one. */
size_t http_leave_escaped(void *data, struct MHD_Connection *connection, char *text)
{
    (void)data;
    (void)connection;
    return strlen(text);
}
