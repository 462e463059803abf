/* Owns the file that schedulers' output is appended to: whole lines from the pipe, until nobody can write to that any more.
 * Never gives up on a file that cannot be written: it drops, counts, and tries again. */
#include "output_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "output.h"

enum {
    AGAIN_MS = 1000,         /* between attempts to write to a file that fails */
    LINE_PATIENCE_MS = 2000, /* for the rest of a line, so that no line is torn by another file or process */
};

struct output_process {
    char path[4096];
    int file;          /* -1: it cannot be opened */
    bool within_line;  /* of the file */
    bool control_open; /* the wrapper lives */
    int cause;         /* why output is being lost; 0: it is not */
    int64_t lost, again_at_ms;
    size_t held; /* of a line whose end has not come */
    int64_t held_since_ms;
    char buffer[1 << 18];
};

static void tell(const struct output_process *self)
{
    const struct output_message message = {.cause = self->cause, .lost = self->lost};
    (void)send(OUTPUT_CONTROL_FD, &message, sizeof message, MSG_DONTWAIT | MSG_NOSIGNAL); /* the file says it, too */
}

static void lose(struct output_process *self, int cause, size_t size)
{
    bool first = !self->cause;
    self->cause = cause;
    self->lost += (int64_t)size;
    self->again_at_ms = clock_now_ms() + AGAIN_MS;
    if (first)
        tell(self);
}

/* A pipe without a reader shall be a failure, not a wait. */
static bool open_file(struct output_process *self)
{
    if (self->file >= 0)
        (void)close(self->file);
    self->file = open(self->path, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_CLOEXEC | O_NONBLOCK, 0640);
    if (self->file < 0)
        return false;
    (void)fcntl(self->file, F_SETFL, O_APPEND);
    self->within_line = false;
    return true;
}

/* True if all of it was written; if not, *ret_done says how much was. */
static bool put(struct output_process *self, const char *text, size_t size, size_t *ret_done)
{
    *ret_done = 0;
    while (*ret_done < size) {
        ssize_t done = write(self->file, text + *ret_done, size - *ret_done);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return false;
        *ret_done += (size_t)done;
        if (done > 0)
            self->within_line = text[*ret_done - 1] != '\n';
    }
    return true;
}

/* The file is opened anew, for it may be the one it was opened from that is gone. */
static void try_again(struct output_process *self)
{
    char text[256], stamp[32];
    size_t done;
    time_t now = time(NULL);
    struct tm utc;
    bool within_line = self->within_line;
    self->again_at_ms = clock_now_ms() + AGAIN_MS;
    if (!open_file(self)) {
        self->cause = errno;
        return;
    }
    gmtime_r(&now, &utc);
    (void)strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
    (void)snprintf(text, sizeof text, "%s%s heirflow: %lld bytes of output are missing here: %s\n", within_line ? "\n" : "",
                   stamp, (long long)self->lost, strerror(self->cause));
    if (self->lost && !put(self, text, strlen(text), &done)) {
        self->within_line = within_line || done > 0;
        return;
    }
    self->cause = 0;
    tell(self);
    self->lost = 0;
}

static void write_out(struct output_process *self, const char *text, size_t size)
{
    size_t done = 0;
    if (self->cause && clock_now_ms() >= self->again_at_ms)
        try_again(self);
    if (self->cause)
        self->lost += (int64_t)size;
    else if (!put(self, text, size, &done))
        lose(self, errno, size - done);
}

/* All that is whole, or with `all` the beginning of a line, too. */
static void write_lines(struct output_process *self, bool all)
{
    const char *end = memrchr(self->buffer, '\n', self->held);
    size_t size = all || self->held == sizeof self->buffer ? self->held : end ? (size_t)(end + 1 - self->buffer) : 0;
    if (!size)
        return;
    write_out(self, self->buffer, size);
    self->held -= size;
    memmove(self->buffer, self->buffer + size, self->held);
    self->held_since_ms = clock_now_ms();
}

/* False at the end of all that could come. */
static bool hear(struct output_process *self)
{
    ssize_t size = read(OUTPUT_PIPE_FD, self->buffer + self->held, sizeof self->buffer - self->held);
    if (size < 0)
        return errno == EINTR || errno == EAGAIN;
    if (size == 0)
        return false;
    if (!self->held)
        self->held_since_ms = clock_now_ms();
    self->held += (size_t)size;
    write_lines(self, false);
    return true;
}

static void hear_wrapper(struct output_process *self)
{
    char path[sizeof self->path];
    ssize_t size = recv(OUTPUT_CONTROL_FD, path, sizeof path - 1, MSG_DONTWAIT);
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR))
        self->control_open = false;
    if (size <= 0)
        return;
    path[size] = '\0';
    memcpy(self->path, path, (size_t)size + 1);
    if (self->cause)
        try_again(self);
    else if (!open_file(self))
        lose(self, errno, 0);
}

static int64_t next_time_ms(const struct output_process *self)
{
    int64_t at_ms = INT64_MAX;
    if (self->held)
        at_ms = self->held_since_ms + LINE_PATIENCE_MS;
    if (self->cause && self->again_at_ms < at_ms)
        at_ms = self->again_at_ms;
    return at_ms;
}

static bool turn(struct output_process *self)
{
    struct pollfd polls[] = {
        {.fd = self->control_open ? OUTPUT_CONTROL_FD : -1, .events = POLLIN},
        {.fd = OUTPUT_PIPE_FD, .events = POLLIN},
    };
    int64_t at_ms = next_time_ms(self), in_ms = at_ms - clock_now_ms();
    (void)poll(polls, 2, at_ms == INT64_MAX ? -1 : in_ms > 0 ? (int)in_ms : 0);
    if (polls[0].revents)
        hear_wrapper(self);
    if (polls[1].revents && !hear(self))
        return false;
    int64_t now_ms = clock_now_ms();
    if (self->held && now_ms >= self->held_since_ms + LINE_PATIENCE_MS)
        write_lines(self, true);
    if (self->cause && now_ms >= self->again_at_ms)
        try_again(self);
    return true;
}

/* The path comes first, as the wrapper's first message. */
static bool begin(struct output_process *self)
{
    struct pollfd control = {.fd = OUTPUT_CONTROL_FD, .events = POLLIN};
    struct stat file;
    sigset_t all;
    if (fstat(OUTPUT_CONTROL_FD, &file) < 0 || !S_ISSOCK(file.st_mode) || fstat(OUTPUT_PIPE_FD, &file) < 0 ||
        !S_ISFIFO(file.st_mode))
        return false;
    (void)syscall(SYS_close_range, OUTPUT_FIRST_FREE_FD, ~0U, 0);
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL); /* it ends with its writers, whatever else is told to */
    (void)prctl(PR_SET_NAME, "heirflow-output");
    (void)prctl(PR_SET_DUMPABLE, 0);
    while (!*self->path && self->control_open && poll(&control, 1, -1) >= 0)
        hear_wrapper(self);
    return true;
}

int output_main(void)
{
    static struct output_process self = {.file = -1, .control_open = true};
    if (!begin(&self)) {
        fputs("heirflow output: started by `heirflow run` only, never by hand\n", stderr);
        return EXIT_CODE_USAGE;
    }
    while (turn(&self))
        ;
    write_lines(&self, true);
    if (self.cause)
        try_again(&self);
    return EXIT_CODE_OK;
}
