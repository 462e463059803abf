/* Owns the HTTP server's life: where it listens, who may connect and for how long, and the copy of the loop's state that
 * requests see. Never reads or changes that state itself: the loop comes and asks what is wanted of it. */
#include "http.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "clock.h"
#include "http_server.h"

#define RETRY_MS 10000   /* between attempts to get the address */
#define CONNECTIONS 512  /* fewer if this process may not have many descriptors */
#define IDLE_S 15        /* a connection on which nothing happens */
#define REQUEST_MS 10000 /* from its beginning to the end of its answer; a byte now and then does not help */
#define CROWD 100
#define CROWD_MS 2000 /* the same while there are more than so many */
#define MEMORY 16384  /* a connection's: its headers have to fit */

/* One connection. */
struct client {
    struct client *next;
    int fd;
    int64_t since_ms; /* when its request began, or it became idle; 0: it may stay as long as it likes */
};

/* ---- connections ---- */

void http_time_connection(struct http *self, struct MHD_Connection *connection, int64_t since_ms)
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
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, http_on_request, self,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, most, MHD_OPTION_PER_IP_CONNECTION_LIMIT, most / 2,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY,
        MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, self, MHD_OPTION_NOTIFY_CONNECTION, on_connection, self,
        MHD_OPTION_UNESCAPE_CALLBACK, http_leave_escaped, NULL, MHD_OPTION_END);
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
        .on_sight = http_on_sight,
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

struct vitals http_vitals(struct http *self)
{
    (void)pthread_mutex_lock(&self->lock);
    struct vitals vitals = self->vitals;
    (void)pthread_mutex_unlock(&self->lock);
    return vitals;
}

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

bool http_token(struct http *self, char token[sizeof self->token])
{
    (void)pthread_mutex_lock(&self->token_lock);
    memcpy(token, self->token, sizeof self->token);
    (void)pthread_mutex_unlock(&self->token_lock);
    return *token;
}

void http_set_token(struct http *self, const char *token)
{
    if (!self)
        return;
    (void)pthread_mutex_lock(&self->token_lock);
    (void)snprintf(self->token, sizeof self->token, "%s", token ? token : ""); /* the table of keys bounds its length */
    (void)pthread_mutex_unlock(&self->token_lock);
}

struct http *http_create(uv_loop_t *loop, const struct config *config, const struct http_callbacks *callbacks)
{
    struct http *self = config->http.listen ? calloc(1, sizeof *self) : NULL;
    if (!self)
        return NULL;
    self->listen = strdup(config->http.listen);
    self->group = strdup(config->group);
    self->node = strdup(config->node);
    self->conninfo = strdup(config->postgres);
    self->schema = strdup(config->schema);
    self->callbacks = *callbacks;
    (void)pthread_mutex_init(&self->token_lock, NULL);
    http_set_token(self, config->http.token);
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
    (void)pthread_mutex_destroy(&self->token_lock);
    (void)pthread_mutex_destroy(&self->lock);
    (void)pthread_mutex_destroy(&self->clients_lock);
    http_message_release(self->message);
    free(self->listen);
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
    http_end_subscriptions(self);
    lookout_stop(self->lookout); /* answers all who wait for it; the server may still call it */
    if (self->daemon)
        MHD_stop_daemon(self->daemon);
    lookout_free(self->lookout);
    uv_close((uv_handle_t *)&self->tick, on_handle_closed);
    uv_close((uv_handle_t *)&self->terminate, on_handle_closed);
}
