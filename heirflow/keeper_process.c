/* Owns the keeper process: the life of one term's scheduler tree, from the first start to the last kill, and its deadline.
 * Never talks to the database before the tree is dead for good; never starts anything once a stop has begun. */
#include "keeper_process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "log.h"
#include "scheduler.h"
#include "succession.h"
#include "tree.h"
#include "will.h"

#define KILL_AGAIN_MS 2

enum life {
    STARTING, /* forked, exec not confirmed */
    RUNNING,
    STOPPING, /* SIGTERM is out, SIGKILL follows at stop_by_ms */
    KILLING,  /* SIGKILL is out; over when no child is left */
    WAITING,  /* no tree; it may be started again */
    OVER,     /* no tree, and never again */
};

struct keeper_process {
    json_t *text; /* the spec; the strings below are its own */
    struct scheduler_spec scheduler;
    struct will will;
    enum tree_containment containment;
    char leaf[2304];
    int64_t lease_ms, fence_grace_ms;

    int signals, timer, start; /* descriptors; start is -1 unless STARTING */
    enum life life;
    pid_t main; /* 0 once reaped */
    int status;
    int64_t deadline_ms;
    int64_t stop_by_ms; /* when patience with a graceful stop, or end of a run, ends; INT64_MAX without one */
    bool final;         /* a stop has begun: what is dead stays dead */
    bool fencing;       /* by our own timer: no deadline is taken any more */
    bool orphaned;      /* the wrapper died */
    bool failed_start;
    char text_of_failure[512];
};

/* ---- reports */

static void report(const struct keeper_process *self, enum keeper_word word, const char *text)
{
    struct keeper_message message = {.report = {.word = word, .deadline_ms = self->deadline_ms, .status = self->status}};
    message.report.pid = self->main;
    (void)snprintf(message.report.text, sizeof message.report.text, "%s", text);
    /* where the wrapper is gone or too far behind there is nobody to tell */
    (void)send(KEEPER_CONTROL_FD, &message, sizeof message, MSG_NOSIGNAL);
}

static void report_end(const struct keeper_process *self, enum keeper_word word)
{
    char text[128];
    if (WIFSIGNALED(self->status))
        (void)snprintf(text, sizeof text, "killed by signal %d (%s)", WTERMSIG(self->status),
                       strsignal(WTERMSIG(self->status)));
    else
        (void)snprintf(text, sizeof text, "exit status %d", WEXITSTATUS(self->status));
    report(self, word, text);
}

/* ---- timetable */

static int64_t term_at_ms(const struct keeper_process *self)
{
    return succession_term_at_ms(self->deadline_ms, self->lease_ms, self->fence_grace_ms);
}

static int64_t kill_at_ms(const struct keeper_process *self)
{
    int64_t fence_at_ms = succession_kill_at_ms(self->deadline_ms, self->lease_ms);
    return fence_at_ms < self->stop_by_ms ? fence_at_ms : self->stop_by_ms;
}

static int64_t next_time_ms(const struct keeper_process *self)
{
    switch (self->life) {
    case STARTING:
    case RUNNING:
        return term_at_ms(self);
    case STOPPING:
        return self->fencing || kill_at_ms(self) < term_at_ms(self) ? kill_at_ms(self) : term_at_ms(self);
    case KILLING:
        return clock_now_ms() + KILL_AGAIN_MS;
    case WAITING:
        return self->deadline_ms;
    case OVER:
        break;
    }
    return clock_now_ms();
}

static void arm_timer(const struct keeper_process *self)
{
    int64_t at_ms = next_time_ms(self);
    if (at_ms < 1)
        at_ms = 1; /* 0 would disarm */
    struct itimerspec time = {.it_value = {.tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * 1000000}};
    (void)timerfd_settime(self->timer, TFD_TIMER_ABSTIME, &time, NULL); /* valid by construction */
}

/* ---- the tree's life */

static void drop_start(struct keeper_process *self)
{
    if (self->start >= 0)
        (void)close(self->start);
    self->start = -1;
}

static void fail_start(struct keeper_process *self, const char *text)
{
    self->failed_start = true;
    (void)snprintf(self->text_of_failure, sizeof self->text_of_failure, "%.500s", text);
}

static void begin_kill(struct keeper_process *self)
{
    self->life = KILLING;
    drop_start(self);
    tree_kill(self->containment, self->leaf);
}

static void terminate(struct keeper_process *self)
{
    self->life = STOPPING;
    (void)kill(self->main, SIGTERM); /* our child, not reaped: the number is still its own */
    (void)kill(self->main, SIGCONT);
}

static void begin_stop(struct keeper_process *self)
{
    self->final = true;
    if (self->life == WAITING)
        self->life = OVER;
    if (self->life != STARTING && self->life != RUNNING)
        return;
    if (self->life == STARTING) { /* nothing of it has run yet that could want to tidy up */
        begin_kill(self);
        return;
    }
    terminate(self);
}

/* Not for good: what runs is ended, and the next start is the wrapper's to order. */
static void end_run(struct keeper_process *self, int64_t kill_at_ms)
{
    if (self->life != RUNNING)
        return;
    self->stop_by_ms = kill_at_ms;
    terminate(self);
}

/* No child is left, so no descendant is: the keeper is the init or the subreaper of them all. */
static void become_treeless(struct keeper_process *self)
{
    bool again = !self->final && !self->orphaned;
    self->life = again ? WAITING : OVER;
    if (again)
        self->stop_by_ms = INT64_MAX;
    if (*self->leaf && !again)
        tree_leaf_remove(self->leaf);
    if (again && self->failed_start)
        report(self, KEEPER_START_FAILED, self->text_of_failure);
    else if (again)
        report_end(self, KEEPER_EXITED);
}

static void start(struct keeper_process *self)
{
    const struct keeper_message hello = {.hello = true};
    struct error error;
    self->status = 0;
    self->failed_start = false;
    if (clock_now_ms() >= term_at_ms(self)) {
        fail_start(self, "too little of the lease is left to start the scheduler and stop it again");
        become_treeless(self);
    } else if (!scheduler_spawn(&self->scheduler, KEEPER_CONTROL_FD, &hello, sizeof hello, &self->main, &self->start,
                                &error)) {
        fail_start(self, error.text);
        become_treeless(self);
    } else {
        self->life = STARTING;
    }
}

static void see_start(struct keeper_process *self)
{
    char text[sizeof self->text_of_failure];
    if (self->life != STARTING)
        return;
    ssize_t size = read(self->start, text, sizeof text - 1);
    if (size < 0)
        return; /* not yet */
    if (size == 0) {
        self->life = RUNNING;
        drop_start(self);
        report(self, KEEPER_STARTED, "");
        return;
    }
    text[size] = '\0';
    fail_start(self, text);
    begin_kill(self);
}

static void reap(struct keeper_process *self)
{
    int status;
    pid_t pid;
    bool main_ended = false;
    while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
        if (pid != self->main)
            continue;
        self->main = 0;
        self->status = status;
        main_ended = true;
    }
    bool none_left = pid < 0 && errno == ECHILD;
    if (main_ended)
        see_start(self); /* its last word, if it came after the last look */
    if (main_ended && self->life != KILLING)
        begin_kill(self);
    if (none_left && self->life == KILLING)
        become_treeless(self);
}

/* ---- orders */

static void take_deadline(struct keeper_process *self, int64_t deadline_ms)
{
    bool killing_for_good = self->final && self->life != STOPPING;
    if (!self->fencing && !killing_for_good && deadline_ms > self->deadline_ms && deadline_ms > clock_now_ms())
        self->deadline_ms = deadline_ms;
    report(self, KEEPER_ECHO, "");
}

static void obey(struct keeper_process *self, const struct keeper_order *order)
{
    switch (order->word) {
    case KEEPER_ORDER_DEADLINE:
        take_deadline(self, order->at_ms);
        break;
    case KEEPER_ORDER_STOP:
        if (order->at_ms < self->stop_by_ms)
            self->stop_by_ms = order->at_ms;
        begin_stop(self);
        break;
    case KEEPER_ORDER_END_RUN:
        end_run(self, order->at_ms);
        break;
    case KEEPER_ORDER_RESTART:
        if (self->life == WAITING)
            start(self);
        break;
    }
}

static void lose_wrapper(struct keeper_process *self)
{
    self->orphaned = self->final = true;
    if (self->life == WAITING)
        self->life = OVER;
    else if (self->life != KILLING && self->life != OVER)
        begin_kill(self);
}

static void keep_timetable(struct keeper_process *self)
{
    int64_t now_ms = clock_now_ms();
    bool running = self->life == STARTING || self->life == RUNNING || self->life == STOPPING;
    if (running && now_ms >= kill_at_ms(self)) {
        self->fencing = self->fencing || now_ms >= term_at_ms(self);
        self->final = self->final || self->fencing; /* else only this run has been given enough time to end */
        begin_kill(self);
    } else if (running && now_ms >= term_at_ms(self)) {
        self->fencing = true;
        begin_stop(self);
    } else if (self->life == WAITING && now_ms >= self->deadline_ms) {
        self->final = true;
        self->life = OVER;
    } else if (self->life == KILLING) {
        tree_kill(self->containment, self->leaf);
    }
}

/* The timetable comes before every order: what was queued while this process was frozen is judged by today's clock. */
static void hear_orders(struct keeper_process *self)
{
    while (!self->orphaned) {
        struct keeper_order order;
        ssize_t size = recv(KEEPER_CONTROL_FD, &order, sizeof order, MSG_DONTWAIT);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        keep_timetable(self);
        if (size <= 0)
            lose_wrapper(self);
        else if (size == sizeof order)
            obey(self, &order);
    }
}

static void turn(struct keeper_process *self)
{
    struct pollfd polls[] = {
        {.fd = self->orphaned ? -1 : KEEPER_CONTROL_FD, .events = POLLIN},
        {.fd = self->signals, .events = POLLIN},
        {.fd = self->timer, .events = POLLIN},
        {.fd = self->start, .events = POLLIN},
    };
    struct signalfd_siginfo ignored;
    uint64_t expirations;
    arm_timer(self);
    (void)poll(polls, sizeof polls / sizeof *polls, -1);
    (void)!read(self->signals, &ignored, sizeof ignored);
    (void)!read(self->timer, &expirations, sizeof expirations);
    keep_timetable(self);
    see_start(self);
    hear_orders(self);
    reap(self);
}

/* ---- beginning and end */

static json_t *read_spec(void)
{
    struct stat file;
    if (fstat(KEEPER_SPEC_FD, &file) < 0 || file.st_size <= 0)
        return NULL;
    void *text = mmap(NULL, (size_t)file.st_size, PROT_READ, MAP_SHARED, KEEPER_SPEC_FD, 0);
    if (text == MAP_FAILED)
        return NULL;
    json_t *spec = json_loadb(text, (size_t)file.st_size, JSON_ALLOW_NUL, NULL);
    (void)munmap(text, (size_t)file.st_size);
    return spec;
}

static bool unpack_spec(struct keeper_process *self)
{
    struct scheduler_spec *scheduler = &self->scheduler;
    struct will *will = &self->will;
    json_int_t member_id, term, deadline_ms, lease_ms, fence_grace_ms;
    int containment, level, format, piped;
    self->text = read_spec();
    if (!self->text ||
        json_unpack(
            self->text, "{s:o, s:o, s?:s, s?:s, s:b, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i}",
            "command", &scheduler->command, "environment", &scheduler->environment, "directory", &scheduler->directory,
            "user", &scheduler->user, "piped", &piped, "group", &scheduler->group, "node", &scheduler->node, "seat",
            &scheduler->seat, "postgres", &will->postgres, "schema", &will->schema, "incarnation", &will->incarnation,
            "member_id", &member_id, "term", &term, "deadline_ms", &deadline_ms, "lease_ms", &lease_ms, "fence_grace_ms",
            &fence_grace_ms, "containment", &containment, "log_level", &level, "log_format", &format) < 0)
        return false;
    scheduler->key = "scheduler.command";
    scheduler->output_fd = piped ? KEEPER_OUTPUT_FD : 0;
    scheduler->term = will->term = term;
    will->member_id = member_id;
    will->group = scheduler->group;
    will->node = scheduler->node;
    self->deadline_ms = deadline_ms;
    self->lease_ms = lease_ms;
    self->fence_grace_ms = fence_grace_ms;
    self->containment = (enum tree_containment)containment;
    log_init((enum log_level)level, (enum log_format)format);
    return true;
}

static void contain(struct keeper_process *self)
{
    if (self->containment == TREE_CGROUP && !tree_leaf_make(self->scheduler.seat, self->leaf, sizeof self->leaf))
        self->containment = TREE_SUBREAPER;
    if (self->containment != TREE_CGROUP)
        *self->leaf = '\0';
    self->scheduler.leaf = self->leaf;
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1); /* cannot fail; an init has no need of it */
}

static void settle_descriptors(bool piped)
{
    (void)syscall(SYS_close_range, piped ? KEEPER_FIRST_FREE_FD : KEEPER_OUTPUT_FD, ~0U, 0);
    for (int fd = KEEPER_CONTROL_FD; fd < KEEPER_FIRST_FREE_FD; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static bool open_events(struct keeper_process *self)
{
    sigset_t child, all;
    (void)signal(SIGCHLD, SIG_DFL); /* ignored ones would be reaped behind our back */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL); /* the tree's end is for the wrapper to order, not for a terminal */
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    self->signals = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
    self->timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    self->start = -1;
    return self->signals >= 0 && self->timer >= 0;
}

static void execute_will(struct keeper_process *self)
{
    struct error error = {0};
    self->will.deadline_ms = self->deadline_ms;
    (void)close(KEEPER_LOCK_FD); /* the tree is dead: a new wrapper need not wait for a database */
    (void)close(KEEPER_OUTPUT_FD);
    if (will_execute(&self->will, &error))
        log_event(LOG_WARN, "wrapper-died", "{s:s, s:I}", "will", "scheduler killed, throne vacated", "term",
                  (json_int_t)self->will.term);
    else
        log_event(LOG_ERROR, "wrapper-died", "{s:s, s:s, s:I}", "will", "scheduler killed, throne not vacated", "error",
                  error.text, "term", (json_int_t)self->will.term);
}

int keeper_main(void)
{
    struct keeper_process self = {.stop_by_ms = INT64_MAX};
    struct stat control;
    if (fstat(KEEPER_CONTROL_FD, &control) < 0 || !S_ISSOCK(control.st_mode) || !unpack_spec(&self)) {
        fputs("heirflow keeper: started by `heirflow run` only, never by hand\n", stderr);
        return EXIT_CODE_USAGE;
    }
    (void)close(KEEPER_SPEC_FD);
    settle_descriptors(self.scheduler.output_fd != 0);
    /* memory and environment hold the password, and a scheduler of our own user must not look */
    (void)prctl(PR_SET_DUMPABLE, 0);
    (void)prctl(PR_SET_NAME, "heirflow-keeper");
    if (!open_events(&self)) {
        report(&self, KEEPER_START_FAILED, "the keeper has no descriptors left; raise the limit (LimitNOFILE)");
        return EXIT_CODE_NEGATIVE;
    }
    contain(&self);
    start(&self);
    while (self.life != OVER)
        turn(&self);
    report_end(&self, KEEPER_TREE_DEAD);
    if (self.orphaned)
        execute_will(&self);
    json_decref(self.text);
    return EXIT_CODE_OK;
}
