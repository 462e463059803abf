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
#include "page.h"

#define TOUCH_MS 250     /* how old the loop's state may be; also how soon a hang of the loop can show */
#define RETRY_MS 10000   /* between attempts to get the address */
#define CONNECTIONS 512  /* fewer if this process may not have many descriptors */
#define IDLE_S 15        /* a connection on which nothing happens */
#define REQUEST_MS 10000 /* from its beginning to the end of its answer; a byte now and then does not help */
#define CROWD 100
#define CROWD_MS 2000 /* the same while there are more than so many */
#define MEMORY 16384  /* a connection's: its headers have to fit */
#define BODY_MAX 4096
#define SUBSCRIBERS 32     /* pages that are kept up to date */
#define CENSUS_AGE_MS 5000 /* Prometheus asks every 15 s or so */

#define STRICT "default-src 'none'; frame-ancestors 'none'"
#define PLAIN "text/plain; charset=utf-8"
#define JSON "application/json"
#define EVENTS "text/event-stream; charset=utf-8"

/* What all pages get to see, once it is written. */
struct message {
    int references;
    size_t length;
    char text[];
};

/* One page that is kept up to date. */
struct subscriber {
    struct subscriber *next;
    struct http *http;
    struct MHD_Connection *connection;
    struct message *message; /* what it is being sent, or was last */
    size_t sent;
    bool suspended; /* it has all there is */
};

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

    pthread_mutex_t clients_lock; /* guards the next two */
    struct client *clients;
    int client_count;

    pthread_mutex_t lock; /* guards the rest */
    struct vitals vitals;
    struct subscriber *subscribers;
    int subscriber_count;
    struct message *message; /* the latest */
    bool stopping;
    int64_t told_refusal_ms;
};

/* One connection. */
struct client {
    struct client *next;
    int fd;
    int64_t since_ms; /* when its request began, or it became idle; 0: it may stay as long as it likes */
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
    struct lookout_outcome *outcome;
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

static void name_client(struct exchange *exchange, char *buffer, size_t size)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *address = info ? info->client_addr : NULL;
    socklen_t length = address && address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (!address || getnameinfo(address, length, buffer, (socklen_t)size, NULL, 0, NI_NUMERICHOST) != 0)
        (void)snprintf(buffer, size, "(unknown)");
}

/* ---- connections ---- */

static void set_since(struct http *self, struct MHD_Connection *connection, int64_t since_ms)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct client *client = info ? info->socket_context : NULL;
    (void)pthread_mutex_lock(&self->clients_lock);
    if (client)
        client->since_ms = since_ms;
    (void)pthread_mutex_unlock(&self->clients_lock);
}

static void add_client(struct http *self, struct MHD_Connection *connection, void **context)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct client *client = calloc(1, sizeof *client);
    *context = client;
    if (!client)
        return;
    (void)pthread_mutex_lock(&self->clients_lock);
    *client = (struct client){.next = self->clients, .fd = info->connect_fd, .since_ms = clock_now_ms()};
    self->clients = client;
    self->client_count++;
    (void)pthread_mutex_unlock(&self->clients_lock);
}

static void remove_client(struct http *self, struct client *client)
{
    (void)pthread_mutex_lock(&self->clients_lock);
    struct client **place = &self->clients;
    while (*place && *place != client)
        place = &(*place)->next;
    if (*place) {
        *place = client->next;
        self->client_count--;
    }
    (void)pthread_mutex_unlock(&self->clients_lock);
    free(client);
}

/* The loop goes first where processors are scarce: on Linux each thread has a niceness of its own. */
static void yield_to_the_loop(void)
{
    static _Thread_local bool done;
    if (!done)
        (void)setpriority(PRIO_PROCESS, (id_t)gettid(), LOOKOUT_NICENESS); /* else as before */
    done = true;
}

static void on_connection(void *data, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    yield_to_the_loop();
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        add_client(data, connection, context);
    else
        remove_client(data, *context);
}

/* On the loop, which waits for nobody. A client is in the list only while its descriptor is open. */
static void hang_up_on_slow_ones(struct http *self)
{
    int64_t now_ms = clock_now_ms();
    if (pthread_mutex_trylock(&self->clients_lock) != 0)
        return;
    int64_t most_ms = self->client_count > CROWD ? CROWD_MS : REQUEST_MS;
    for (struct client *client = self->clients; client; client = client->next) {
        if (client->since_ms && now_ms - client->since_ms > most_ms)
            (void)shutdown(client->fd, SHUT_RDWR); /* the server's thread does the rest */
    }
    (void)pthread_mutex_unlock(&self->clients_lock);
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

/* ---- pages that are kept up to date ---- */

static void message_release(struct message *message)
{
    if (message && __atomic_sub_fetch(&message->references, 1, __ATOMIC_ACQ_REL) == 0)
        free(message);
}

static char *describe_here(struct http *self)
{
    struct vitals vitals = vitals_of(self);
    cleanup_json json_t *here =
        json_pack("{s:s, s:s, s:s, s:b, s:s?, s:I, s:b}", "node", self->node, "group", self->group, "state", vitals.state,
                  "heir", vitals_is_heir(&vitals, clock_now_ms()), "scheduler", vitals.scheduler, "term",
                  (json_int_t)vitals.term, "changes", self->token != NULL);
    return json_dumps(here, JSON_COMPACT);
}

static struct message *write_message(struct http *self, const struct sight *sight)
{
    cleanup_free char *here = describe_here(self);
    cleanup_json json_t *fault = json_string(sight->error.text);
    cleanup_free char *why = fault ? json_dumps(fault, JSON_ENCODE_ANY) : NULL;
    const char *group = sight->page ? sight->page : "null", *error = sight->page || !why ? "null" : why;
    const char *own = here ? here : "null";
    size_t size = strlen(own) + strlen(group) + strlen(error) + 100;
    struct message *message = malloc(sizeof *message + size);
    if (!message)
        return NULL;
    message->references = 1;
    message->length = (size_t)snprintf(message->text, size,
                                       "retry: 1000\ndata: {\"here\":%s,\"group\":%s,\"error\":%s}\n\n", own, group, error);
    return message;
}

/* On the lookout's thread. A page that is still busy with an earlier message goes on to the latest after it. */
static void on_sight(void *data, struct sight *sight)
{
    struct http *self = data;
    struct message *message = write_message(self, sight);
    if (!message)
        return;
    (void)pthread_mutex_lock(&self->lock);
    struct message *old = self->message;
    self->message = message;
    for (struct subscriber *each = self->subscribers; each; each = each->next) {
        if (each->suspended)
            MHD_resume_connection(each->connection);
        each->suspended = false;
    }
    (void)pthread_mutex_unlock(&self->lock);
    message_release(old);
}

/* With the lock held: the bytes that come next, none if the page has seen all. */
static size_t next_bytes(struct subscriber *self, char *buffer, size_t most)
{
    if (self->http->message && (!self->message || self->sent == self->message->length)) {
        if (self->message == self->http->message)
            return 0;
        message_release(self->message);
        self->message = self->http->message;
        (void)__atomic_add_fetch(&self->message->references, 1, __ATOMIC_RELAXED);
        self->sent = 0;
    }
    if (!self->message)
        return 0;
    size_t left = self->message->length - self->sent, size = left < most ? left : most;
    memcpy(buffer, self->message->text + self->sent, size);
    self->sent += size;
    return size;
}

static ssize_t on_read(void *data, uint64_t position, char *buffer, size_t most)
{
    struct subscriber *self = data;
    (void)position;
    (void)pthread_mutex_lock(&self->http->lock);
    ssize_t size = (ssize_t)next_bytes(self, buffer, most);
    if (size == 0 && self->http->stopping)
        size = MHD_CONTENT_READER_END_OF_STREAM;
    if (size == 0) {
        self->suspended = true;
        MHD_suspend_connection(self->connection);
    }
    (void)pthread_mutex_unlock(&self->http->lock);
    return size;
}

static void on_unsubscribed(void *data)
{
    struct subscriber *self = data;
    struct http *http = self->http;
    (void)pthread_mutex_lock(&http->lock);
    for (struct subscriber **place = &http->subscribers; *place; place = &(*place)->next) {
        if (*place == self) {
            *place = self->next;
            break;
        }
    }
    http->subscriber_count--;
    (void)pthread_mutex_unlock(&http->lock);
    lookout_watch(http->lookout, false);
    message_release(self->message);
    free(self);
}

static struct subscriber *subscribe(struct exchange *exchange)
{
    struct http *http = exchange->http;
    struct subscriber *self = calloc(1, sizeof *self);
    (void)pthread_mutex_lock(&http->lock);
    bool taken = self && !http->stopping && http->subscriber_count < SUBSCRIBERS;
    if (taken) {
        *self = (struct subscriber){.next = http->subscribers, .http = http, .connection = exchange->connection};
        http->subscribers = self;
        if (http->subscriber_count++ == 0) { /* what the last page was told is old by now */
            message_release(http->message);
            http->message = NULL;
        }
    }
    (void)pthread_mutex_unlock(&http->lock);
    if (taken) {
        lookout_watch(http->lookout, true);
        return self;
    }
    free(self);
    return NULL;
}

static enum MHD_Result serve_events(struct exchange *exchange)
{
    if (strcmp(exchange->method, "HEAD") == 0)
        return send_response(exchange, MHD_HTTP_OK, EVENTS, response_of(""));
    struct subscriber *subscriber = subscribe(exchange);
    if (subscriber)
        set_since(exchange->http, exchange->connection, 0);
    else
        return say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "%d pages are kept up to date already, that is enough",
                   SUBSCRIBERS);
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 8192, on_read, subscriber, on_unsubscribed);
    if (!response)
        on_unsubscribed(subscriber);
    return send_response(exchange, MHD_HTTP_OK, EVENTS, response);
}

static void end_subscriptions(struct http *self)
{
    (void)pthread_mutex_lock(&self->lock);
    self->stopping = true;
    for (struct subscriber *each = self->subscribers; each; each = each->next) {
        if (each->suspended)
            MHD_resume_connection(each->connection);
        each->suspended = false;
    }
    (void)pthread_mutex_unlock(&self->lock);
}

/* ---- changes ---- */

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
    const char *site = header(exchange, "Sec-Fetch-Site"), *origin = header(exchange, "Origin");
    const char *host = header(exchange, "Host"), *scheme = origin ? strstr(origin, "://") : NULL;
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
    (void)snprintf(text, sizeof text, "%s from %s: %s", exchange->route->path, client, why);
    self->callbacks.on_event(self->callbacks.data, "http-refused", text);
}

/* As receive_headers. */
static enum MHD_Result check_right(struct exchange *exchange)
{
    const char *given = header(exchange, "Authorization"), *length = header(exchange, "Content-Length");
    if (!exchange->http->token)
        return say(exchange, MHD_HTTP_FORBIDDEN,
                   "nothing can be changed over HTTP here: http.token is not set; use the command line");
    if (is_cross_site(exchange)) {
        tell_refusal(exchange, "sent by another site's page");
        return say(exchange, MHD_HTTP_FORBIDDEN, "this came from another site's page");
    }
    if (!given || strncasecmp(given, "Bearer ", 7) != 0 || !token_fits(exchange->http->token, given + 7)) {
        tell_refusal(exchange, given ? "wrong token" : "no token");
        return say(exchange, MHD_HTTP_UNAUTHORIZED, "%s: send \"Authorization: Bearer \" with what http.token says",
                   given ? "wrong token" : "no token");
    }
    if (length && strtoll(length, NULL, 10) > BODY_MAX)
        return say(exchange, MHD_HTTP_CONTENT_TOO_LARGE, "at most %d bytes", BODY_MAX);
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
        return out_of_memory(exchange);
    tell_change(exchange, exchange->route->path + 1, outcome->accepted ? "accepted" : outcome->reason);
    if (!outcome->accepted) {
        unsigned how = outcome->forbidden ? MHD_HTTP_FORBIDDEN
                       : outcome->unknown ? MHD_HTTP_GATEWAY_TIMEOUT
                       : outcome->away    ? MHD_HTTP_SERVICE_UNAVAILABLE
                                          : MHD_HTTP_CONFLICT;
        return say(exchange, how, "%s%s", outcome->reason, outcome->unknown ? "; it may yet be carried out" : "");
    }
    cleanup_json json_t *reply = json_pack("{s:b, s:b}", "accepted", true, "changed", outcome->changed);
    if (outcome->term)
        (void)json_object_set_new(reply, "term", json_integer(outcome->term));
    cleanup_free char *text = json_dumps(reply, 0);
    return text ? send_response(exchange, status, JSON, response_of(text)) : out_of_memory(exchange);
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
static enum MHD_Result serve_switchover(struct exchange *exchange)
{
    cleanup_json json_t *body =
        exchange->length ? json_loadb(exchange->body, exchange->length, JSON_REJECT_DUPLICATES, NULL) : json_object();
    json_t *to = json_object_get(body, "to");
    bool valid =
        json_is_object(body) && (!to || json_is_string(to) || json_is_null(to)) && json_object_size(body) == (to ? 1 : 0);
    if (!valid)
        return say(exchange, MHD_HTTP_BAD_REQUEST, "the body is to be empty or JSON: {\"to\": \"NODE\"}");
    return change(exchange, CHANGE_SWITCHOVER, json_string_value(to), MHD_HTTP_ACCEPTED);
}

static enum MHD_Result serve_pause(struct exchange *exchange)
{
    return change(exchange, CHANGE_PAUSE, NULL, MHD_HTTP_OK);
}

static enum MHD_Result serve_resume(struct exchange *exchange)
{
    return change(exchange, CHANGE_RESUME, NULL, MHD_HTTP_OK);
}

static enum MHD_Result serve_terminate(struct exchange *exchange)
{
    struct vitals vitals = vitals_of(exchange->http);
    bool runs = vitals.scheduler && strcmp(vitals.scheduler, "running") == 0;
    tell_change(exchange, "terminate-scheduler", runs ? "accepted" : "no scheduler runs here");
    if (!runs)
        return say(exchange, MHD_HTTP_CONFLICT, "no scheduler runs on this node");
    (void)uv_async_send(&exchange->http->terminate);
    return send_response(exchange, MHD_HTTP_ACCEPTED, JSON, response_of("{\"accepted\": true}"));
}

/* ---- requests ---- */

static enum MHD_Result serve_page(struct exchange *exchange)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(page_html_size, (void *)page_html, MHD_RESPMEM_PERSISTENT);
    if (response)
        (void)MHD_add_response_header(response, "Content-Security-Policy", page_policy);
    return send_response(exchange, MHD_HTTP_OK, "text/html; charset=utf-8", response);
}

static const struct route routes[] = {
    {"/", false, serve_page},
    {"/status", false, serve_status},
    {"/events", false, serve_events},
    {"/switchover", true, serve_switchover},
    {"/pause", true, serve_pause},
    {"/resume", true, serve_resume},
    {"/terminate-scheduler", true, serve_terminate},
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

/* Before the body is there: refuses, or goes on without an answer. Answers this early close the connection. */
static enum MHD_Result receive_headers(struct exchange *exchange, const char *path)
{
    const char *length = header(exchange, "Content-Length");
    exchange->route = route_of(path);
    if (!host_is_ours(exchange))
        return say(exchange, MHD_HTTP_MISDIRECTED_REQUEST, "ask for localhost or for this node's address");
    if (!exchange->route)
        return say(exchange, MHD_HTTP_NOT_FOUND,
                   "there are: / /status /events /heir /standby /health /metrics, and to POST to: "
                   "/switchover /pause /resume /terminate-scheduler");
    if (is_method(exchange, "OPTIONS"))
        return say_methods(exchange, MHD_HTTP_NO_CONTENT);
    bool fits =
        exchange->route->changes ? is_method(exchange, "POST") : is_method(exchange, "GET") || is_method(exchange, "HEAD");
    if (!fits)
        return say_methods(exchange, MHD_HTTP_METHOD_NOT_ALLOWED);
    if (exchange->route->changes)
        return check_right(exchange);
    if (header(exchange, "Transfer-Encoding") || strcmp(length ? length : "0", "0") != 0)
        return say(exchange, MHD_HTTP_BAD_REQUEST, "this path takes no body");
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

static void on_completed(void *data, struct MHD_Connection *connection, void **con_cls, enum MHD_RequestTerminationCode how)
{
    struct exchange *exchange = *con_cls;
    (void)how;
    set_since(data, connection, clock_now_ms());
    if (exchange) {
        sight_release(exchange->sight);
        free(exchange->outcome);
    }
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
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, self, MHD_OPTION_NOTIFY_CONNECTION, on_connection, self,
        MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_END);
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
        .on_sight = on_sight,
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
    hang_up_on_slow_ones(self);
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
    (void)pthread_mutex_init(&self->clients_lock, NULL);
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
    (void)pthread_mutex_destroy(&self->clients_lock);
    message_release(self->message);
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
    end_subscriptions(self);
    lookout_stop(self->lookout); /* answers all who wait for it; the server may still call it */
    if (self->daemon)
        MHD_stop_daemon(self->daemon);
    lookout_free(self->lookout);
    uv_close((uv_handle_t *)&self->tick, on_handle_closed);
    uv_close((uv_handle_t *)&self->terminate, on_handle_closed);
}
