/* Owns the socket to systemd and the watchdog's timer. Never waits for systemd: one that hangs must not cost a lease, which
 * is why this is not sd_notify(3), whose send blocks. */
#include "supervisor.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct supervisor {
    uv_timer_t alive;
    int fd; /* -1: nobody listens */
    bool ready;
    char status[160];
};

/* NOTIFY_SOCKET is a path, or begins with @ for an abstract name. */
static int open_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = getenv("NOTIFY_SOCKET");
    size_t length = name ? strlen(name) : 0;
    if (length < 2 || length >= sizeof address.sun_path || (*name != '/' && *name != '@'))
        return -1;
    memcpy(address.sun_path, name, length);
    if (*name == '@')
        address.sun_path[0] = '\0';
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (*name == '/'));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, size) == 0)
        return fd;
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

static void say(struct supervisor *self, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct supervisor *self, const char *format, ...)
{
    char text[256];
    va_list arguments;
    if (!self || self->fd < 0)
        return;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)send(self->fd, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1, MSG_NOSIGNAL);
}

static void on_alive(uv_timer_t *timer)
{
    struct supervisor *self = timer->data;
    if (!self->ready)
        say(self, "READY=1");
    self->ready = true;
    say(self, "WATCHDOG=1"); /* without a watchdog systemd does not mind, nor is there a next time */
}

/* Half of what systemd allows; 0: no watchdog, or one that is meant for another process. */
static uint64_t watchdog_interval_ms(void)
{
    const char *limit = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!limit || (pid && strtoll(pid, NULL, 10) != getpid()))
        return 0;
    return strtoull(limit, NULL, 10) / 2000;
}

struct supervisor *supervisor_create(uv_loop_t *loop)
{
    struct supervisor *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->fd = open_socket();
    (void)uv_timer_init(loop, &self->alive); /* cannot fail */
    self->alive.data = self;
    if (self->fd >= 0)
        (void)uv_timer_start(&self->alive, on_alive, 0, watchdog_interval_ms());
    return self;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void supervisor_free(struct supervisor *self)
{
    if (!self)
        return;
    if (self->fd >= 0)
        (void)close(self->fd);
    uv_close((uv_handle_t *)&self->alive, on_closed);
}

void supervisor_touch(struct supervisor *self, const struct vitals *vitals)
{
    char status[sizeof self->status];
    if (!self)
        return;
    if (vitals->held_term)
        (void)snprintf(status, sizeof status, "%s, term %lld, scheduler %s%s", vitals->state, (long long)vitals->held_term,
                       vitals->scheduler ? vitals->scheduler : "not started", vitals->paused ? ", paused" : "");
    else
        (void)snprintf(status, sizeof status, "%s, latest term %lld%s", vitals->state, (long long)vitals->term,
                       vitals->paused ? ", paused" : "");
    if (strcmp(status, self->status) == 0)
        return;
    memcpy(self->status, status, sizeof status);
    say(self, "STATUS=%s", status);
}

void supervisor_reloading(struct supervisor *self)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* the clock that systemd asks for; nothing is decided by it */
    say(self, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

void supervisor_reloaded(struct supervisor *self)
{
    say(self, "READY=1");
}

void supervisor_stopping(struct supervisor *self, int64_t at_most_ms)
{
    say(self, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld", (long long)at_most_ms * 1000);
}
