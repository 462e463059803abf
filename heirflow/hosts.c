/* Owns the reading of connection strings, the look-up of names and the choice of address; never waits, and sends nothing
 * to a server but libpq's first packet. */
#include "hosts.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

/* ---- one look-up: shared by the loop and a detached thread, freed by whichever leaves last */

struct lookup {
    uv_async_t done;
    pthread_mutex_t mutex; /* guards the fields below; `done` is only touched by the thread while not abandoned */
    int users;
    bool abandoned;
    struct host *host; /* loop side only */
    struct addrinfo *found;
    int failure;
    char name[];
};

static void lookup_leave(struct lookup *self)
{
    (void)pthread_mutex_lock(&self->mutex);
    bool last = --self->users == 0;
    (void)pthread_mutex_unlock(&self->mutex);
    if (!last)
        return;
    if (self->found)
        freeaddrinfo(self->found);
    (void)pthread_mutex_destroy(&self->mutex);
    free(self);
}

static void *lookup_thread(void *argument)
{
    struct lookup *self = argument;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int failure = getaddrinfo(self->name, NULL, &hints, &found);

    (void)pthread_mutex_lock(&self->mutex);
    self->failure = failure;
    self->found = failure == 0 ? found : NULL;
    if (!self->abandoned)
        (void)uv_async_send(&self->done); /* cannot fail on an open handle */
    (void)pthread_mutex_unlock(&self->mutex);
    lookup_leave(self);
    return NULL;
}

static void on_lookup_closed(uv_handle_t *handle)
{
    lookup_leave(handle->data);
}

static void lookup_close(struct lookup *self)
{
    (void)pthread_mutex_lock(&self->mutex);
    self->abandoned = true;
    (void)pthread_mutex_unlock(&self->mutex);
    uv_close((uv_handle_t *)&self->done, on_lookup_closed);
}

static void on_lookup_done(uv_async_t *handle);

static bool lookup_start(uv_loop_t *loop, struct host *host)
{
    size_t length = strlen(host->name) + 1;
    struct lookup *self = calloc(1, sizeof *self + length);
    if (!self)
        return false;
    memcpy(self->name, host->name, length);
    self->host = host;
    self->users = 1;
    (void)pthread_mutex_init(&self->mutex, NULL);
    if (uv_async_init(loop, &self->done, on_lookup_done) != 0) {
        lookup_leave(self);
        return false;
    }
    self->done.data = self;

    sigset_t all, before; /* signals are for the loop's thread */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    self->users = 2;
    bool started = pthread_create(&thread, NULL, lookup_thread, self) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!started) {
        self->users = 1;
        lookup_close(self);
        return false;
    }
    (void)pthread_detach(thread);
    host->lookup = self;
    return true;
}

/* ---- addresses of a host */

static void free_addresses(char **addresses, int count)
{
    for (int i = 0; i < count; i++)
        free(addresses[i]);
    free(addresses);
}

static void take_found(struct host *self, const struct addrinfo *found)
{
    int count = 0;
    for (const struct addrinfo *each = found; each; each = each->ai_next)
        count++;
    char **addresses = count > 0 ? calloc((size_t)count, sizeof *addresses) : NULL;
    if (!addresses)
        return;
    int filled = 0;
    for (const struct addrinfo *each = found; each; each = each->ai_next) {
        char text[NI_MAXHOST];
        if (getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0 &&
            (addresses[filled] = strdup(text)))
            filled++;
    }
    if (filled == 0) {
        free(addresses);
        return;
    }
    char *preferred = self->address_count > 0 ? strdup(self->addresses[0]) : NULL;
    free_addresses(self->addresses, self->address_count);
    self->addresses = addresses;
    self->address_count = filled;
    if (preferred)
        host_prefer(self, preferred);
    free(preferred);
}

static void on_lookup_done(uv_async_t *handle)
{
    struct lookup *lookup = handle->data;
    struct host *host = lookup->host;
    (void)pthread_mutex_lock(&lookup->mutex); /* for the thread to have let go of it */
    (void)pthread_mutex_unlock(&lookup->mutex);
    host->lookup = NULL;
    host->failure[0] = 0;
    if (lookup->failure == 0)
        take_found(host, lookup->found);
    else
        (void)snprintf(host->failure, sizeof host->failure, "cannot resolve the name: %s", gai_strerror(lookup->failure));
    lookup_close(lookup);
    host->owner->on_resolved(host->owner->data, host);
}

void host_prefer(struct host *self, const char *address)
{
    int place = 0;
    while (place < self->address_count && strcmp(self->addresses[place], address) != 0)
        place++;
    if (place == self->address_count)
        return; /* a newer look-up no longer has it */
    char *first = self->addresses[place];
    memmove(self->addresses + 1, self->addresses, (size_t)place * sizeof *self->addresses);
    self->addresses[0] = first;
}

void host_describe(const struct host *self, const char *address, char *ret_text, size_t size)
{
    const char *where = *address ? address : NULL;
    const char *name = self->name ? self->name : where ? where : "default host";
    bool both = where && strcmp(name, where) != 0;
    (void)snprintf(ret_text, size, "%.100s%s%.50s%s%s%.20s", name, both ? " (" : "", both ? where : "", both ? ")" : "",
                   self->port ? " port " : "", self->port ? self->port : "");
}

/* ---- the connection string */

static const char *value_of(const PQconninfoOption *options, const char *keyword)
{
    for (const PQconninfoOption *option = options; option && option->keyword; option++) {
        if (strcmp(option->keyword, keyword) == 0)
            return option->val;
    }
    return NULL;
}

/* Empty is the same as none. */
static const char *list_of(const PQconninfoOption *options, const char *keyword)
{
    const char *list = value_of(options, keyword);
    return list && *list ? list : NULL;
}

const char *hosts_option(const struct hosts *self, const char *keyword)
{
    return value_of(self->options, keyword);
}

/* libpq tells what a service's file says of a connection only. This one ends at its sslmode, before anything is sent, and
 * its password keeps libpq from the password file. */
PQconninfoOption *hosts_read(const char *conninfo, struct error *error)
{
    static const char *const keywords[] = {"dbname", "password", "sslmode", NULL};
    const char *const values[] = {conninfo, "-", "-", NULL};
    PGconn *conn = PQconnectStartParams(keywords, values, 1);
    PQconninfoOption *options = PQconninfo(conn);
    if (!value_of(options, "port")) { /* has a default */
        (void)error_set_retryable(error, EXIT_CODE_DATABASE, "postgres: %s", conn ? PQerrorMessage(conn) : "out of memory");
        PQconninfoFree(options);
        options = NULL;
    }
    PQfinish(conn);
    return options;
}

static int list_length(const char *list)
{
    int length = 1;
    for (; list && *list; list++)
        length += *list == ',';
    return list ? length : 0;
}

/* Element `index` of a comma-separated list, NULL if empty; a list of one counts for all. */
static char *list_element(const char *list, int index)
{
    if (!list)
        return NULL;
    for (int skip = list_length(list) == 1 ? 0 : index; skip > 0; skip--)
        list = strchr(list, ',') + 1;
    size_t length = strcspn(list, ",");
    return length > 0 ? strndup(list, length) : NULL;
}

static bool is_address(const char *text)
{
    struct in6_addr scratch;
    return inet_pton(AF_INET, text, &scratch) == 1 || inet_pton(AF_INET6, text, &scratch) == 1;
}

static bool needs_look_up(const struct host *self)
{
    return self->name && self->name[0] != '/' && self->name[0] != '@' && !self->given_address && !is_address(self->name);
}

static bool split(struct hosts *self, const char *names, const char *addresses, const char *ports, struct error *error)
{
    int count = addresses ? list_length(addresses) : names ? list_length(names) : 1;
    if (addresses && names && list_length(names) != count)
        return error_set(error, EXIT_CODE_USAGE, "postgres: %d host names but %d hostaddr values; give as many of each",
                         list_length(names), count);
    if (ports && list_length(ports) != 1 && list_length(ports) != count)
        return error_set(error, EXIT_CODE_USAGE, "postgres: %d ports for %d hosts; give one port, or one for each host",
                         list_length(ports), count);
    self->list = calloc((size_t)count, sizeof *self->list);
    if (!self->list)
        return error_set(error, EXIT_CODE_DATABASE, "out of memory");
    self->count = count;
    for (int i = 0; i < count; i++) {
        struct host *host = &self->list[i];
        host->owner = self;
        host->name = names && list_length(names) == count ? list_element(names, i) : NULL;
        host->given_address = list_element(addresses, i);
        host->port = list_element(ports, i);
        if (needs_look_up(host))
            continue;
        const char *address = host->given_address                    ? host->given_address
                              : host->name && is_address(host->name) ? host->name
                                                                     : NULL;
        host->addresses = calloc(1, sizeof *host->addresses);
        if (!host->addresses || !(host->addresses[0] = strdup(address ? address : "")))
            return error_set(error, EXIT_CODE_DATABASE, "out of memory");
        host->address_count = 1;
    }
    return true;
}

/* libpq quotes what it could not read, which may be a piece of the password. */
static void mask_quoted(char *text)
{
    char *out = text;
    bool inside = false;
    for (const char *in = text; *in; in++) {
        if (*in == '"')
            inside = !inside;
        if (!inside || *in == '"')
            *out++ = *in;
    }
    *out = 0;
}

static bool read_options(struct hosts *self, const char *conninfo, struct error *error)
{
    char *message = NULL;
    self->options = PQconninfoParse(conninfo, &message);
    if (self->options)
        return true;
    if (message && (strstr(conninfo, "pass") || strstr(conninfo, "://")))
        mask_quoted(message);
    (void)error_set(error, EXIT_CODE_USAGE, "postgres: the connection string is unusable: %.*s",
                    message ? (int)strcspn(message, "\n") : 0, message ? message : "");
    PQfreemem(message);
    return false;
}

/* We always need the primary, and test for it ourselves. */
static bool check_session_attributes(const char *wanted, struct error *error)
{
    static const char *const fine[] = {"any", "read-write", "primary"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        if (!wanted || strcmp(wanted, fine[i]) == 0)
            return true;
    }
    return error_set(error, EXIT_CODE_USAGE,
                     "postgres: target_session_attrs=%.40s cannot work, Heirflow needs the primary; use read-write",
                     wanted);
}

bool hosts_init(struct hosts *self, uv_loop_t *loop, const char *conninfo,
                void (*on_resolved)(void *data, struct host *host), void *data, struct error *error)
{
    self->loop = loop;
    self->on_resolved = on_resolved;
    self->data = data;
    if (!read_options(self, conninfo, error))
        return false;
    PQconninfoOption *all = hosts_read(conninfo, error);
    bool fine = all && check_session_attributes(list_of(all, "target_session_attrs"), error) &&
                split(self, list_of(all, "host"), list_of(all, "hostaddr"), list_of(all, "port"), error);
    PQconninfoFree(all);
    return fine;
}

void hosts_look_up(struct hosts *self)
{
    for (int i = 0; i < self->count; i++) {
        struct host *host = &self->list[i];
        if (needs_look_up(host) && !host->lookup && !lookup_start(self->loop, host))
            (void)snprintf(host->failure, sizeof host->failure, "cannot look the name up: no thread to be had");
    }
}

static bool listed(const char *const *keywords, const char *keyword)
{
    while (*keywords && strcmp(*keywords, keyword) != 0)
        keywords++;
    return *keywords != NULL;
}

PGconn *hosts_connect(const struct hosts *self, const struct host *host, const char *address, const char *const *keywords,
                      const char *const *values)
{
    enum { MOST = 128 };
    static const char *const ours[] = {"host", "hostaddr", "port", "target_session_attrs", NULL};
    const char *all_keywords[MOST] = {"host", "hostaddr", "port", "target_session_attrs"};
    const char *all_values[MOST] = {host->name, *address ? address : NULL, host->port, "any"};
    int count = 4;
    for (; *keywords && count < MOST - 1; keywords++, values++, count++) {
        all_keywords[count] = *keywords;
        all_values[count] = *values;
    }
    const char *const *given = all_keywords;
    for (const PQconninfoOption *option = self->options; option->keyword && count < MOST - 1; option++) {
        if (!option->val || listed(ours, option->keyword) || listed(given, option->keyword))
            continue;
        all_keywords[count] = option->keyword;
        all_values[count++] = option->val;
    }
    return PQconnectStartParams(all_keywords, all_values, 0);
}

void hosts_finish(struct hosts *self)
{
    for (int i = 0; i < self->count; i++) {
        struct host *host = &self->list[i];
        if (host->lookup)
            lookup_close(host->lookup);
        free_addresses(host->addresses, host->address_count);
        free(host->name);
        free(host->given_address);
        free(host->port);
    }
    free(self->list);
    PQconninfoFree(self->options);
    *self = (struct hosts){0};
}
