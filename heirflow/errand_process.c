/* Owns one command from its fork to the end of all that came of it: time limit, last words, kept output.
 * Never outlives its wrapper, and never lives on the wrapper's loop: it may wait as it likes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "errand.h"
#include "scheduler.h"
#include "tree.h"

#define REPORT_FD STDOUT_FILENO
#define SPEC_FD 3
#define KEPT_FD 4
#define LAST_WORDS 200
#define REAP_MS 1000 /* for killed processes to end: more only if they hang in the kernel */

struct command {
    json_t *text; /* of the spec, which points into it */
    struct scheduler_spec spec;
    const char *body;
    int64_t timeout_ms, output_left;
    int parent, has_input;
    bool keeps_output;

    pid_t pid;
    int signals_fd, words_fd, output_fd; /* the latter two not blocking; -1 once they have ended */
    bool ended, cancelled, timed_out, too_much;
    int status;
    char tail[LAST_WORDS + 1];
    size_t length;
};

static void reap(struct command *self, bool *ret_childless)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
        if (pid == self->pid) {
            self->ended = true;
            self->status = status;
        }
    }
    *ret_childless = pid < 0 && errno == ECHILD;
}

/* Everything it has forked: whoever loses its parent has come to us, the subreaper. */
static void kill_all(struct command *self)
{
    bool childless;
    int64_t until_ms = clock_now_ms() + REAP_MS;
    const struct timespec nap = {.tv_nsec = 1000000};
    for (reap(self, &childless); !childless && clock_now_ms() < until_ms; reap(self, &childless)) {
        tree_kill(TREE_SUBREAPER, "");
        (void)nanosleep(&nap, NULL);
    }
}

/* ---- what it says */

static void keep_words(struct command *self, const char *text, size_t size)
{
    size_t fresh = size < LAST_WORDS ? size : LAST_WORDS;
    size_t kept = self->length < LAST_WORDS - fresh ? self->length : LAST_WORDS - fresh;
    memmove(self->tail, self->tail + self->length - kept, kept);
    memcpy(self->tail + kept, text + size - fresh, fresh);
    self->length = kept + fresh;
}

static void keep_output(struct command *self, const char *text, size_t size)
{
    self->output_left -= (int64_t)size;
    if (self->output_left < 0)
        self->too_much = true;
    while (!self->too_much && size > 0) {
        ssize_t written = write(KEPT_FD, text, size);
        if (written <= 0)
            self->too_much = true; /* for this machine's memory */
        else {
            text += written;
            size -= (size_t)written;
        }
    }
}

/* Some of it, so that the time limit and the command's end are seen in between. False if there is nothing more for now. */
static bool hear(struct command *self, int *fd, void keep(struct command *self, const char *text, size_t size))
{
    static char text[65536];
    ssize_t size = *fd >= 0 ? read(*fd, text, sizeof text) : -1;
    if (size > 0)
        keep(self, text, (size_t)size);
    if (size == 0) {
        (void)close(*fd);
        *fd = -1;
    }
    return size > 0;
}

static void hear_signals(struct command *self)
{
    struct signalfd_siginfo signal;
    bool childless;
    while (read(self->signals_fd, &signal, sizeof signal) == sizeof signal) {
        if (signal.ssi_signo != SIGCHLD)
            self->cancelled = true;
    }
    reap(self, &childless);
}

static void attend(struct command *self)
{
    int64_t until_ms = clock_now_ms() + self->timeout_ms;
    while (!self->ended && !self->cancelled && !self->timed_out && !self->too_much) {
        struct pollfd fds[] = {
            {.fd = self->signals_fd, .events = POLLIN},
            {.fd = self->words_fd, .events = POLLIN},
            {.fd = self->output_fd, .events = POLLIN},
        };
        int64_t left_ms = until_ms - clock_now_ms();
        self->timed_out = left_ms <= 0;
        (void)poll(fds, 3, left_ms < 0 ? 0 : left_ms < 60000 ? (int)left_ms : 60000);
        (void)hear(self, &self->words_fd, keep_words);
        (void)hear(self, &self->output_fd, keep_output);
        hear_signals(self);
    }
    self->timed_out = self->timed_out && !self->ended;
}

/* ---- its start */

static bool read_spec(struct command *self)
{
    json_int_t term, timeout_ms, output_most;
    self->text = json_loadfd(SPEC_FD, 0, NULL);
    if (!self->text ||
        json_unpack(self->text, "{s:o, s?:s, s:s, s:o, s?:s, s?:s, s:s, s:s, s:s, s:I, s:i, s:I, s:b, s:I}", "command",
                    &self->spec.command, "body", &self->body, "key", &self->spec.key, "environment",
                    &self->spec.environment, "directory", &self->spec.directory, "user", &self->spec.user, "group",
                    &self->spec.group, "node", &self->spec.node, "seat", &self->spec.seat, "term", &term, "parent",
                    &self->parent, "timeout_ms", &timeout_ms, "input", &self->has_input, "output_most", &output_most) < 0)
        return false;
    self->spec.term = term;
    self->spec.leaf = "";
    self->spec.keeps_input = self->has_input;
    self->timeout_ms = timeout_ms;
    self->output_left = output_most;
    self->keeps_output = output_most > 0;
    return true;
}

/* SIGTERM is the wrapper's word that it is not wanted any more, or the kernel's that the wrapper is gone. */
static bool guard(struct command *self)
{
    sigset_t all;
    (void)sigemptyset(&all);
    (void)sigaddset(&all, SIGCHLD);
    (void)sigaddset(&all, SIGTERM);
    (void)sigaddset(&all, SIGINT);
    (void)sigaddset(&all, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &all, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    self->signals_fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    return self->signals_fd >= 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 && prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 &&
           getppid() == self->parent;
}

static bool make_pipe(int *ret_read_fd, int *ret_write_fd)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    (void)fcntl(ends[0], F_SETFL, O_NONBLOCK); /* ours alone: the command's end stays as programs expect it */
    *ret_read_fd = ends[0];
    *ret_write_fd = ends[1];
    return true;
}

/* Ours is fork's child: after exec it would be the same program again, only later. */
static void carry_on(struct command *self, const struct errand_body *bodies, pid_t parent, struct error *error)
{
    if (!self->body) {
        (void)scheduler_become(&self->spec, parent, error);
        return;
    }
    while (bodies->name && strcmp(bodies->name, self->body) != 0)
        bodies++;
    (void)prctl(PR_SET_NAME, self->body);
    if (!bodies->name)
        (void)error_set(error, EXIT_CODE_NEGATIVE, "this version has no errand called %s", self->body);
    else if (scheduler_pose(&self->spec, parent, error))
        _exit(bodies->run());
}

static bool start(struct command *self, const struct errand_body *bodies)
{
    cleanup_fd int words_fd = -1, output_fd = -1;
    struct error error;
    pid_t us = getpid();
    if (!make_pipe(&self->words_fd, &words_fd))
        return false;
    if (!self->keeps_output)
        output_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (output_fd < 0 && !make_pipe(&self->output_fd, &output_fd))
        return false;
    self->pid = fork();
    if (self->pid != 0)
        return self->pid > 0;
    (void)dup2(output_fd, STDOUT_FILENO);
    (void)dup2(words_fd, STDERR_FILENO);
    carry_on(self, bodies, us, &error);
    fprintf(stderr, "%s\n", error.text);
    _exit(127);
}

/* ---- its end */

static void describe_end(const struct command *self, char *text, size_t size)
{
    if (self->timed_out)
        (void)snprintf(text, size, "timed out after %lld ms", (long long)self->timeout_ms);
    else if (self->too_much)
        (void)snprintf(text, size, "wrote more to its standard output than is taken");
    else if (!self->ended)
        (void)snprintf(text, size, "does not end although killed");
    else if (WIFSIGNALED(self->status))
        (void)snprintf(text, size, "killed by signal %d (SIG%s)", WTERMSIG(self->status),
                       sigabbrev_np(WTERMSIG(self->status)));
    else
        (void)snprintf(text, size, "exit status %d", WEXITSTATUS(self->status));
}

/* "exit status 1: " and the last line of what it said. */
static void report(struct command *self)
{
    char end[64], text[sizeof end + LAST_WORDS + 32], *words = self->tail;
    while (self->length && strchr(" \r\n\t", words[self->length - 1]))
        self->length--;
    words[self->length] = '\0';
    char *line = strrchr(words, '\n');
    words = line ? line + 1 : words;
    while (((unsigned char)*words & 0xc0) == 0x80) /* cut inside a character */
        words++;
    cleanup_json json_t *utf8 = json_string(words);
    describe_end(self, end, sizeof end);
    (void)snprintf(text, sizeof text, "%s%s%s", end, *words ? ": " : "", utf8 || !*words ? words : "(no valid UTF-8)");
    error_clean(text);
    (void)!write(REPORT_FD, text, strlen(text)); /* it fits a pipe; the wrapper may be gone */
}

static int carry_out(struct command *self, const struct errand_body *bodies)
{
    if (!read_spec(self)) {
        fputs("heirflow errand: started by `heirflow run` only, never by hand\n", stderr);
        return EXIT_CODE_USAGE;
    }
    (void)close(SPEC_FD);
    if (!guard(self) || !start(self, bodies)) {
        dprintf(REPORT_FD, "cannot be started: %s", strerror(errno));
        return EXIT_CODE_NEGATIVE;
    }
    attend(self);
    kill_all(self);
    while (hear(self, &self->words_fd, keep_words) || hear(self, &self->output_fd, keep_output)) {
    }
    if (self->ended && !self->timed_out && !self->too_much && WIFEXITED(self->status) && WEXITSTATUS(self->status) == 0)
        return EXIT_CODE_OK;
    report(self);
    return EXIT_CODE_NEGATIVE;
}

int errand_main(const struct errand_body *bodies)
{
    struct command self = {.signals_fd = -1, .words_fd = -1, .output_fd = -1};
    (void)prctl(PR_SET_DUMPABLE, 0); /* the environment may hold the password, which the command does not get */
    int code = carry_out(&self, bodies);
    json_decref(self.text);
    return code;
}
