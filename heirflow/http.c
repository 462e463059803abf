/* Owns the HTTP server: who may connect and for how long, which paths there are, what each answers. Never reads or changes
 * the loop's state: it has a copy, and the loop comes and asks what is wanted of it. */
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "clock.h"
#include "lookout.h"
#include "metrics.h"

#define TOUCH_MS 250    /* how old the loop's state may be; also how soon a hang of the loop can show */
#define RETRY_MS 10000  /* between attempts to get the address */
#define CONNECTIONS 512 /* fewer if this process may not have many descriptors */
#define IDLE_S 15       /* a connection on which nothing happens */
#define MEMORY 16384    /* a connection's: its headers have to fit */
#define BODY_MAX 4096
#define CENSUS_AGE_MS 5000 /* Prometheus asks every 15 s or so */

#define STRICT "default-src 'none'; frame-ancestors 'none'"
#define PLAIN "text/plain; charset=utf-8"
#define JSON "application/json"

struct http {
    char *listen, *token, *group, *node, *conninfo, *schema;
    struct http_callbacks callbacks;
    uv_timer_t tick;
    uv_async_t terminate; /* from the server's thread */
    int handles;
    bool local; /* listens on a loopback address only */
    int64_t retry_at_ms;
    char last_fault[256];

    struct MHD_Daemon *daemon;
    struct lookout *lookout;

    pthread_mutex_t lock; /* guards the rest */
    struct vitals vitals;
    int64_t told_refusal_ms;
};

/* One request and its answer. */
struct exchange {
    struct http *http;
    struct MHD_Connection *connection;
    const struct route *route;
    const char *method;
    char body[BODY_MAX + 1];
    size_t length;
    bool waiting; /* suspended until the lookout has answered */
    struct sight *sight;
    struct lookout_outcome outcome;
};

struct route {
    const char *path;
    bool changes; /* POST with the token; the others are for GET */
    enum MHD_Result (*serve)(struct exchange *exchange);
};

/* ---- answers ---- */

static enum MHD_Result send_response(struct exchange *exchange, unsigned status, const char *type,
                                     struct MHD_Response *response)
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

static struct MHD_Response *response_of(const char *text)
{
    return MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_MUST_COPY);
}

static enum MHD_Result say(struct exchange *exchange, unsigned status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum MHD_Result say(struct exchange *exchange, unsigned status, const char *format, ...)
{
    char text[1500];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text - 1, format, arguments);
    va_end(arguments);
    strcat(text, "\n");
    struct MHD_Response *response = response_of(text);
    if (response && status == MHD_HTTP_SERVICE_UNAVAILABLE)
        (void)MHD_add_response_header(response, "Retry-After", "1");
    if (response && status == MHD_HTTP_UNAUTHORIZED)
        (void)MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"heirflow\"");
    return send_response(exchange, status, PLAIN, response);
}

static const char *methods_of(const struct route *route)
{
    return route->changes ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
}

static enum MHD_Result say_methods(struct exchange *exchange, unsigned status)
{
    struct MHD_Response *response = response_of(status == MHD_HTTP_NO_CONTENT ? "" : "this path has other methods\n");
    if (response)
        (void)MHD_add_response_header(response, "Allow", methods_of(exchange->route));
    return send_response(exchange, status, status == MHD_HTTP_NO_CONTENT ? NULL : PLAIN, response);
}

static const char *header(struct exchange *exchange, const char *name)
{
    return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, name);
}

/* ---- answers from the loop's state alone ---- */

static struct vitals vitals_of(struct http *self)
{
    (void)pthread_mutex_lock(&self->lock);
    struct vitals vitals = self->vitals;
    (void)pthread_mutex_unlock(&self->lock);
    return vitals;
}

static enum MHD_Result serve_heir(struct exchange *exchange)
{
    struct http *self = exchange->http;
    struct vitals vitals = vitals_of(self);
    int64_t now_ms = clock_now_ms();
    if (vitals_is_heir(&vitals, now_ms))
        return say(exchange, MHD_HTTP_OK, "%s is the heir of %s, term %lld", self->node, self->group,
                   (long long)vitals.held_term);
    return say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "%s is not the heir of %s", self->node, self->group);
}

static enum MHD_Result serve_standby(struct exchange *exchange)
{
    struct http *self = exchange->http;
    struct vitals vitals = vitals_of(self);
    int64_t now_ms = clock_now_ms();
    if (vitals_is_standby(&vitals, now_ms) && !vitals_is_heir(&vitals, now_ms))
        return say(exchange, MHD_HTTP_OK, "%s is a standby of %s", self->node, self->group);
    return say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "%s is no standby of %s: %s", self->node, self->group,
               vitals_is_heir(&vitals, now_ms) ? "it is the heir" : vitals.state);
}

static enum MHD_Result serve_health(struct exchange *exchange)
{
    struct vitals vitals = vitals_of(exchange->http);
    int64_t now_ms = clock_now_ms(), hangs_ms = now_ms - vitals.taken_ms, silence_ms = vitals_silence_ms(&vitals, now_ms);
    bool late = hangs_ms >= vitals.lease_ms || silence_ms >= vitals.lease_ms;
    if (late && hangs_ms > 2 * TOUCH_MS) /* then nobody has looked whether the database answers */
        return say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "the wrapper has hung for %.1f s", (double)hangs_ms / 1000);
    if (!vitals.replied_ms)
        return say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "the database has not answered yet");
    if (late)
        return say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "the database has not answered for %.1f s; the lease is %.1f s",
                   (double)silence_ms / 1000, (double)vitals.lease_ms / 1000);
    return say(exchange, MHD_HTTP_OK, "ok");
}

static enum MHD_Result serve_metrics(struct exchange *exchange)
{
    struct http *self = exchange->http;
    struct vitals vitals = vitals_of(self);
    int64_t now_ms = clock_now_ms();
    struct census census = {0};
    if (vitals_is_heir(&vitals, now_ms)) /* one query in the group for each scrape of all its members is enough */
        census = lookout_census(self->lookout, CENSUS_AGE_MS);
    char *text = metrics_text(&vitals, &census, self->group, self->node, now_ms);
    if (!text)
        return MHD_NO;
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    return send_response(exchange, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", response);
}

/* ---- answers that need the database ---- */

static void on_looked(void *data, struct sight *sight)
{
    struct exchange *exchange = data;
    exchange->sight = sight_keep(sight);
    MHD_resume_connection(exchange->connection);
}

static enum MHD_Result out_of_memory(struct exchange *exchange)
{
    return say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory");
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
        return out_of_memory(exchange);
    if (!sight->status)
        return say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "%s", sight->error.text);
    return send_response(exchange, MHD_HTTP_OK, JSON, response_of(sight->status));
}

/* ---- requests ---- */

static const struct route routes[] = {
    {"/status", false, serve_status}, {"/heir", false, serve_heir},       {"/standby", false, serve_standby},
    {"/health", false, serve_health}, {"/metrics", false, serve_metrics},
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
    const char *host = header(exchange, "Host");
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

/* What can be said before the body is there. An answer this early closes the connection, so the usual ones come later.
 * *ret_answered: the exchange is over. */
static enum MHD_Result receive_headers(struct exchange *exchange, const char *path, bool *ret_answered)
{
    *ret_answered = true;
    exchange->route = route_of(path);
    if (!host_is_ours(exchange))
        return say(exchange, MHD_HTTP_MISDIRECTED_REQUEST, "ask for localhost or for this node's address");
    if (!exchange->route)
        return say(exchange, MHD_HTTP_NOT_FOUND, "there are: /status /heir /standby /health /metrics");
    if (is_method(exchange, "OPTIONS"))
        return say_methods(exchange, MHD_HTTP_NO_CONTENT);
    bool fits =
        exchange->route->changes ? is_method(exchange, "POST") : is_method(exchange, "GET") || is_method(exchange, "HEAD");
    if (!fits)
        return say_methods(exchange, MHD_HTTP_METHOD_NOT_ALLOWED);
    *ret_answered = false;
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

static enum MHD_Result on_request(void *data, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **con_cls)
{
    struct exchange *exchange = *con_cls;
    bool answered;
    (void)version;
    if (!exchange) {
        exchange = calloc(1, sizeof *exchange);
        if (!exchange)
            return MHD_NO;
        exchange->http = data;
        exchange->connection = connection;
        exchange->method = method; /* lives as long as the request */
        *con_cls = exchange;
        return receive_headers(exchange, url, &answered);
    }
    if (*upload_size == 0)
        return exchange->route->serve(exchange);
    size_t size = *upload_size;
    *upload_size = 0;
    return take_body(exchange, upload, size);
}

static void on_completed(void *data, struct MHD_Connection *connection, void **con_cls, enum MHD_RequestTerminationCode how)
{
    struct exchange *exchange = *con_cls;
    (void)data;
    (void)connection;
    (void)how;
    if (exchange)
        sight_release(exchange->sight);
    free(exchange);
    *con_cls = NULL;
}

/* Our paths need no escapes, and %00 must not end one. */
static size_t leave_escaped(void *data, struct MHD_Connection *connection, char *text)
{
    (void)data;
    (void)connection;
    return strlen(text);
}

/* ---- listening ---- */

static bool parse_listen(const char *listen, struct addrinfo **ret_address)
{
    char host[64];
    const char *colon = strrchr(listen, ':');
    if (!colon || (size_t)(colon - listen) >= sizeof host || colon == listen)
        return false;
    bool bracket = *listen == '[';
    if (bracket != (colon[-1] == ']') || (!bracket && memchr(listen, ':', (size_t)(colon - listen))))
        return false;
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - listen) - 2 * bracket, listen + bracket);
    const struct addrinfo hints = {
        .ai_socktype = SOCK_STREAM,
        .ai_family = bracket ? AF_INET6 : AF_INET,
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
    };
    size_t digits = strspn(colon + 1, "0123456789");
    return digits > 0 && digits <= 5 && !colon[1 + digits] && atoi(colon + 1) <= 65535 && *host &&
           getaddrinfo(host, colon + 1, &hints, ret_address) == 0;
}

bool http_check_listen(const char *listen)
{
    struct addrinfo *address = NULL;
    if (!*listen)
        return true;
    bool valid = parse_listen(listen, &address);
    if (valid)
        freeaddrinfo(address);
    return valid;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static int open_socket(struct http *self, struct error *error)
{
    static const int on = 1, off = 0;
    struct addrinfo *address = NULL;
    if (!parse_listen(self->listen, &address)) {
        (void)error_set(error, EXIT_CODE_USAGE, "%s is no address to listen on", self->listen);
        return -1;
    }
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool bound = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                 (address->ai_family == AF_INET || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0) &&
                 bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, 128) == 0;
    int cause = errno;
    self->local = is_loopback(address->ai_addr);
    freeaddrinfo(address);
    if (bound)
        return fd;
    if (fd >= 0)
        (void)close(fd);
    (void)error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot listen on %s: %s%s", self->listen, strerror(cause),
                              cause == EADDRINUSE ? "; give each wrapper of a host an http.listen of its own" : "");
    return -1;
}

static unsigned connections_most(void)
{
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur / 4 < CONNECTIONS ? (unsigned)(limit.rlim_cur / 4) : CONNECTIONS;
}

static struct MHD_Daemon *start_daemon(struct http *self, int fd)
{
    sigset_t all, before;
    unsigned most = connections_most();
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the wrapper's loop's */
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, self,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, most, MHD_OPTION_PER_IP_CONNECTION_LIMIT, most / 2,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, self, MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_END);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return daemon;
}

static bool start_lookout(struct http *self, struct error *error)
{
    struct lookout_settings settings = {
        .conninfo = self->conninfo,
        .schema = self->schema,
        .group = self->group,
        .node = self->node,
        .data = self,
    };
    return self->lookout || lookout_start(&settings, &self->lookout, error);
}

static bool start_listening(struct http *self, struct error *error)
{
    if (!start_lookout(self, error))
        return false;
    int fd = open_socket(self, error);
    if (fd < 0)
        return false;
    self->daemon = start_daemon(self, fd);
    if (self->daemon)
        return true;
    (void)close(fd);
    return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot start the HTTP server: out of memory or descriptors");
}

static void try_listening(struct http *self)
{
    struct error error;
    self->retry_at_ms = clock_now_ms() + RETRY_MS;
    if (start_listening(self, &error)) {
        self->callbacks.on_event(self->callbacks.data, "http-listening", self->listen);
    } else if (strncmp(self->last_fault, error.text, sizeof self->last_fault - 1) != 0) {
        (void)snprintf(self->last_fault, sizeof self->last_fault, "%.255s", error.text);
        self->callbacks.on_event(self->callbacks.data, "http-unavailable", error.text);
    }
}

/* ---- the loop's side ---- */

void http_touch(struct http *self)
{
    struct vitals vitals = {0};
    if (!self)
        return;
    self->callbacks.describe(self->callbacks.data, &vitals);
    vitals.taken_ms = clock_now_ms();
    if (pthread_mutex_trylock(&self->lock) != 0)
        return; /* the loop waits for nobody: there is a next time */
    self->vitals = vitals;
    (void)pthread_mutex_unlock(&self->lock);
}

static void on_tick(uv_timer_t *tick)
{
    struct http *self = tick->data;
    http_touch(self);
    if (!self->daemon && clock_now_ms() >= self->retry_at_ms)
        try_listening(self);
}

static void on_terminate(uv_async_t *terminate)
{
    struct http *self = terminate->data;
    self->callbacks.terminate(self->callbacks.data);
}

struct http *http_create(uv_loop_t *loop, const struct config *config, const struct http_callbacks *callbacks)
{
    struct http *self = config->http.listen ? calloc(1, sizeof *self) : NULL;
    if (!self)
        return NULL;
    self->listen = strdup(config->http.listen);
    self->token = config->http.token ? strdup(config->http.token) : NULL;
    self->group = strdup(config->group);
    self->node = strdup(config->node);
    self->conninfo = strdup(config->postgres);
    self->schema = strdup(config->schema);
    self->callbacks = *callbacks;
    (void)pthread_mutex_init(&self->lock, NULL);
    (void)uv_timer_init(loop, &self->tick); /* cannot fail */
    (void)uv_async_init(loop, &self->terminate, on_terminate);
    self->tick.data = self->terminate.data = self;
    self->handles = 2;
    http_touch(self);
    try_listening(self);
    (void)uv_timer_start(&self->tick, on_tick, TOUCH_MS, TOUCH_MS);
    return self;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http *self = handle->data;
    if (--self->handles > 0)
        return;
    (void)pthread_mutex_destroy(&self->lock);
    free(self->listen);
    free(self->token);
    free(self->group);
    free(self->node);
    free(self->conninfo);
    free(self->schema);
    free(self);
}

void http_free(struct http *self)
{
    if (!self)
        return;
    if (self->daemon)
        (void)close(MHD_quiesce_daemon(self->daemon));
    lookout_stop(self->lookout); /* answers all who wait for it */
    if (self->daemon)
        MHD_stop_daemon(self->daemon);
    uv_close((uv_handle_t *)&self->tick, on_handle_closed);
    uv_close((uv_handle_t *)&self->terminate, on_handle_closed);
}
