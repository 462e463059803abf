/* Owns the health command: when it runs, how long it may take, what its end means, and that none is left over.
 * Never judges more than failures in a row: what becomes of the scheduler is not decided here. */
#include "health.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "scheduler.h"

#define REAP_AGAIN_MS 20
#define LATE_NEWS_MS 100 /* for the loop to tell of an end that has already happened */
#define LAST_WORDS 200

/* One execution; it goes when the loop has closed both handles. */
struct probe {
    struct health *health; /* NULL once it is no longer waited for */
    uv_process_t process;
    uv_poll_t words;
    int words_fd, handles;
    char tail[LAST_WORDS + 1];
    size_t length;
    int64_t started_ms;
};

struct health {
    uv_loop_t *loop;
    const struct config *config;
    const char *seat;
    health_report_cb *on_report;
    void *data;
    uv_timer_t timer;
    struct probe *probe; /* under way, or NULL */
    pid_t remains;       /* process group of the last one, until all of it is reaped; or 0 */
    bool watching;
    bool succeeded; /* since the scheduler's start */
    int64_t term, next_ms, start_period_ends_ms, failures;
};

static void on_timer(uv_timer_t *timer);

static void wake_in(struct health *self, int64_t in_ms)
{
    uv_update_time(self->loop);
    (void)uv_timer_start(&self->timer, on_timer, in_ms > 0 ? (uint64_t)in_ms : 0, 0); /* fails only without a callback */
}

static void wake_for_next(struct health *self)
{
    if (self->remains)
        wake_in(self, REAP_AGAIN_MS);
    else if (self->watching)
        wake_in(self, self->next_ms - clock_now_ms());
    else
        (void)uv_timer_stop(&self->timer);
}

/* ---- the end of one */

static void on_closed(uv_handle_t *handle)
{
    struct probe *probe = handle->data;
    if (--probe->handles > 0)
        return;
    (void)close(probe->words_fd);
    free(probe);
}

/* Kills what is left of it. A wrapper without PID namespaces reaps whatever it finds among its children, so the end of this
 * one may be news to the loop or not: it is not waited for, and what remains of the group is reaped from the timer. */
static void end_probe(struct health *self)
{
    struct probe *probe = self->probe;
    self->remains = probe->process.pid;
    self->probe = NULL;
    probe->health = NULL;
    (void)kill(-self->remains, SIGKILL); /* ESRCH: nobody is left */
    uv_close((uv_handle_t *)&probe->process, on_closed);
    uv_close((uv_handle_t *)&probe->words, on_closed);
}

/* Descendants whose parent is gone have come to us, the subreaper. */
static void reap_remains(struct health *self)
{
    pid_t pid;
    while (self->remains && (pid = waitpid(-self->remains, NULL, WNOHANG | __WALL)) != 0) {
        if (pid < 0 && errno != EINTR)
            self->remains = 0;
    }
}

static void conclude(struct health *self, int64_t started_ms, const char *reason)
{
    int64_t before = self->failures;
    self->next_ms = clock_now_ms() + self->config->scheduler.health.interval_ms;
    if (!reason)
        self->failures = 0;
    else if (self->succeeded || started_ms >= self->start_period_ends_ms)
        self->failures++;
    self->succeeded = self->succeeded || !reason;
    struct health_report report = {.reason = reason, .failures = reason ? self->failures : before};
    report.unhealthy = self->failures >= self->config->scheduler.health.failures;
    self->watching = !report.unhealthy;
    wake_for_next(self);
    self->on_report(self->data, &report);
}

/* "exit status 1: " and the last line of what it said. */
static void describe(struct probe *probe, const char *end, char *text, size_t size)
{
    char *words = probe->tail;
    while (probe->length && strchr(" \r\n\t", words[probe->length - 1]))
        probe->length--;
    words[probe->length] = '\0';
    char *line = strrchr(words, '\n');
    words = line ? line + 1 : words;
    while (((unsigned char)*words & 0xc0) == 0x80) /* cut inside a character */
        words++;
    cleanup_json json_t *utf8 = json_string(words);
    (void)snprintf(text, size, "%s%s%s", end, *words ? ": " : "", utf8 || !*words ? words : "(no valid UTF-8)");
    error_clean(text);
}

static void hear(struct probe *probe)
{
    char text[4096];
    ssize_t size;
    while ((size = read(probe->words_fd, text, sizeof text)) > 0) {
        size_t fresh = (size_t)size < LAST_WORDS ? (size_t)size : LAST_WORDS;
        size_t kept = probe->length < LAST_WORDS - fresh ? probe->length : LAST_WORDS - fresh;
        memmove(probe->tail, probe->tail + probe->length - kept, kept);
        memcpy(probe->tail + kept, text + size - fresh, fresh);
        probe->length = kept + fresh;
    }
    if (size == 0)
        (void)uv_poll_stop(&probe->words); /* or the loop would spin */
}

static void on_words(uv_poll_t *poll, int status, int events)
{
    hear(poll->data);
}

static void on_exit_told(uv_process_t *process, int64_t status, int signal)
{
    struct probe *probe = process->data;
    struct health *self = probe->health;
    char end[64], text[sizeof end + LAST_WORDS + 32];
    if (!self)
        return;
    int64_t started_ms = probe->started_ms;
    if (signal)
        (void)snprintf(end, sizeof end, "killed by signal %d (SIG%s)", signal, sigabbrev_np(signal));
    else
        (void)snprintf(end, sizeof end, "exit status %d", (int)status);
    hear(probe);
    describe(probe, end, text, sizeof text);
    end_probe(self);
    reap_remains(self);
    conclude(self, started_ms, signal || status ? text : NULL);
}

static void time_out(struct health *self)
{
    struct probe *probe = self->probe;
    siginfo_t end = {0};
    char words[64], text[sizeof words + LAST_WORDS + 32];
    int64_t started_ms = probe->started_ms;
    if (waitid(P_PID, (id_t)probe->process.pid, &end, WEXITED | WNOHANG | WNOWAIT) == 0 && end.si_pid) {
        wake_in(self, LATE_NEWS_MS); /* it was this process that was paused */
        return;
    }
    (void)snprintf(words, sizeof words, "timed out after %lld ms", (long long)self->config->scheduler.health.timeout_ms);
    hear(probe);
    describe(probe, words, text, sizeof text);
    end_probe(self);
    conclude(self, started_ms, text);
}

/* ---- the start of one */

static json_t *pack_spec(const struct health *self)
{
    const struct config *config = self->config;
    json_t *command = json_array();
    for (const char **argument = config->scheduler.health.command; *argument; argument++)
        (void)json_array_append_new(command, json_string(*argument)); /* the configuration was UTF-8 */
    json_t *environment = config->scheduler.environment;
    return json_pack("{s:o, s:o, s:s*, s:s*, s:s, s:s, s:s, s:I, s:i}", "command", command, "environment",
                     environment ? json_incref(environment) : json_object(), "directory", config->scheduler.directory,
                     "user", config->scheduler.user, "group", config->group, "node", config->node, "seat", self->seat,
                     "term", (json_int_t)self->term, "parent", (int)getpid());
}

/* In memory, since the environment may hold secrets. */
static int open_spec(const struct health *self)
{
    cleanup_json json_t *spec = pack_spec(self);
    int fd = memfd_create("heirflow-probe", MFD_CLOEXEC);
    if (fd >= 0 && spec && json_dumpfd(spec, fd, JSON_COMPACT) == 0 && lseek(fd, 0, SEEK_SET) == 0)
        return fd;
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

/* Through our own program: what has to happen between fork and exec may allocate and look up users, and this process has
 * threads. Nothing waits for it. */
static int spawn(struct health *self, struct probe *probe, int spec_fd, int words_fd)
{
    static char program[] = "heirflow", command[] = "probe";
    char *arguments[] = {program, command, NULL};
    uv_stdio_container_t stdio[] = {
        {.flags = UV_INHERIT_FD, .data.fd = spec_fd},
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = words_fd},
    };
    uv_process_options_t options = {
        .exit_cb = on_exit_told,
        .file = "/proc/self/exe",
        .args = arguments,
        .flags = UV_PROCESS_DETACHED, /* a process group of its own */
        .stdio_count = 3,
        .stdio = stdio,
    };
    probe->process.data = probe->words.data = probe;
    return uv_spawn(self->loop, &probe->process, &options);
}

static void fail_start(struct health *self, int cause)
{
    char text[128];
    (void)snprintf(text, sizeof text, "cannot be started: %s", strerror(cause));
    conclude(self, clock_now_ms(), text);
}

static void start_probe(struct health *self)
{
    cleanup_fd int spec_fd = open_spec(self), words_fd = -1;
    int ends[2];
    struct probe *probe = calloc(1, sizeof *probe);
    if (spec_fd < 0 || !probe || pipe2(ends, O_CLOEXEC) < 0) {
        int cause = errno;
        free(probe);
        fail_start(self, cause);
        return;
    }
    words_fd = ends[1];
    probe->words_fd = ends[0];
    (void)fcntl(probe->words_fd, F_SETFL, O_NONBLOCK); /* ours alone: the command's end stays as programs expect it */
    probe->started_ms = clock_now_ms();
    int fault = spawn(self, probe, spec_fd, words_fd);
    probe->handles = 1;
    if (fault < 0) {
        uv_close((uv_handle_t *)&probe->process, on_closed);
        fail_start(self, -fault);
        return;
    }
    probe->handles = 2;
    if (uv_poll_init(self->loop, &probe->words, probe->words_fd) < 0 ||
        uv_poll_start(&probe->words, UV_READABLE, on_words) < 0)
        abort(); /* as in the keeper's: lack of memory in the loop */
    self->probe = probe;
    probe->health = self;
    wake_in(self, self->config->scheduler.health.timeout_ms);
}

static void on_timer(uv_timer_t *timer)
{
    struct health *self = timer->data;
    reap_remains(self);
    if (self->probe)
        time_out(self);
    else if (!self->remains && self->watching && clock_now_ms() >= self->next_ms)
        start_probe(self);
    else
        wake_for_next(self);
}

/* ---- life */

struct health *health_create(uv_loop_t *loop, const struct config *config, const char *seat, health_report_cb *on_report,
                             void *data)
{
    if (!config->scheduler.health.command)
        return NULL;
    struct health *self = calloc(1, sizeof *self);
    if (!self)
        abort(); /* before anything runs */
    self->loop = loop;
    self->config = config;
    self->seat = seat;
    self->on_report = on_report;
    self->data = data;
    (void)uv_timer_init(loop, &self->timer); /* cannot fail */
    self->timer.data = self;
    return self;
}

void health_start(struct health *self, int64_t term)
{
    if (!self)
        return;
    health_stop(self);
    int64_t now_ms = clock_now_ms();
    self->term = term;
    self->watching = true;
    self->succeeded = false;
    self->failures = 0;
    self->start_period_ends_ms = now_ms + self->config->scheduler.health.start_period_ms;
    self->next_ms = now_ms + self->config->scheduler.health.interval_ms;
    wake_for_next(self);
}

void health_stop(struct health *self)
{
    if (!self)
        return;
    self->watching = false;
    if (self->probe)
        end_probe(self);
    wake_for_next(self);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct health *self = handle->data;
    reap_remains(self);
    free(self);
}

void health_free(struct health *self)
{
    if (!self)
        return;
    health_stop(self);
    uv_close((uv_handle_t *)&self->timer, on_timer_closed);
}

/* ---- the process that becomes the command */

int health_main(void)
{
    struct scheduler_spec spec = {.output = "inherit", .leaf = "", .key = "scheduler.health.command"};
    struct error error;
    json_int_t term;
    int parent;
    (void)prctl(PR_SET_DUMPABLE, 0); /* the environment may hold the password, until it is dropped */
    cleanup_json json_t *text = json_loadfd(STDIN_FILENO, 0, NULL);
    if (!text || json_unpack(text, "{s:o, s:o, s?:s, s?:s, s:s, s:s, s:s, s:I, s:i}", "command", &spec.command,
                             "environment", &spec.environment, "directory", &spec.directory, "user", &spec.user, "group",
                             &spec.group, "node", &spec.node, "seat", &spec.seat, "term", &term, "parent", &parent) < 0) {
        fputs("heirflow probe: started by `heirflow run` only, never by hand\n", stderr);
        return EXIT_CODE_USAGE;
    }
    spec.term = term;
    (void)scheduler_become(&spec, parent, &error);
    fprintf(stderr, "%s\n", error.text);
    return 127;
}
