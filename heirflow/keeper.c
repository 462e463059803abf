/* Owns the wrapper's side of a keeper: starting it, sending orders, turning messages into reports, and seeing it dead.
 * Never decides when to stop or start anything. */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "keeper_launch.h"
#include "keeper_process.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

#define LOOK_AGAIN_MS 2
#define HANDLES 3

struct keeper {
    keeper_report_cb *on_report;
    void *data;
    enum tree_containment containment;
    char leaf[2304]; /* of the fallback with a cgroup; "" for none */
    int control, pidfd;
    pid_t scheduler; /* as this process sees it; 0 until it has said hello */
    bool tree_dead;  /* the keeper said so: what is running now is not of this tree */
    bool gone;
    int status;
    uv_poll_t control_poll, exit_poll;
    uv_timer_t orphans_timer; /* runs until no orphan of a dead keeper is left */
    int closed;
};

/* ---- specification */

static json_t *pack_command(const struct config *config)
{
    json_t *command = json_array();
    for (const char **argument = config->scheduler.command; argument && *argument; argument++) {
        if (json_array_append_new(command, json_string(*argument)) < 0) { /* not UTF-8 */
            json_decref(command);
            return NULL;
        }
    }
    return command;
}

static json_t *pack_spec(const struct keeper_spec *spec, enum tree_containment containment)
{
    const struct config *config = spec->config;
    json_t *environment = config->scheduler.environment;
    json_t *packed =
        json_pack("{s:o, s:o, s:s*, s:s*, s:b, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i}",
                  "command", pack_command(config), "environment", environment ? json_incref(environment) : json_object(),
                  "directory", config->scheduler.directory, "user", config->scheduler.user, "piped", spec->output_fd != 0,
                  "group", config->group, "node", config->node, "seat", spec->seat, "postgres", config->postgres, "schema",
                  config->schema, "incarnation", spec->incarnation, "member_id", (json_int_t)spec->member_id, "term",
                  (json_int_t)spec->term, "deadline_ms", (json_int_t)spec->deadline_ms, "lease_ms",
                  (json_int_t)spec->lease_ms, "fence_grace_ms", (json_int_t)spec->fence_grace_ms, "containment",
                  (int)containment, "log_level", (int)config->log.level, "log_format", (int)config->log.format);
    return packed;
}

/* In memory only: it holds the connection string with its password. */
static bool write_spec(const struct keeper_spec *spec, enum tree_containment containment, int *ret_fd, struct error *error)
{
    cleanup_json json_t *packed = pack_spec(spec, containment);
    if (!packed || json_array_size(json_object_get(packed, "command")) == 0)
        return error_set(error, EXIT_CODE_USAGE,
                         "scheduler.command cannot be passed on: none is given, or an argument is not UTF-8");
    int fd = memfd_create("heirflow-keeper", MFD_CLOEXEC);
    if (fd < 0 || json_dumpfd(packed, fd, JSON_COMPACT) < 0) {
        int cause = errno;
        if (fd >= 0)
            (void)close(fd);
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot write the keeper's specification: %s",
                                   strerror(cause));
    }
    *ret_fd = fd;
    return true;
}

/* ---- reports */

static void deliver(struct keeper *self, const struct keeper_report *report)
{
    self->on_report(self->data, report);
}

static pid_t sender(struct msghdr *header)
{
    struct cmsghdr *control = CMSG_FIRSTHDR(header);
    struct ucred credentials;
    if (!control || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_CREDENTIALS)
        return 0;
    memcpy(&credentials, CMSG_DATA(control), sizeof credentials);
    return credentials.pid;
}

static void handle(struct keeper *self, struct keeper_message *message, pid_t pid)
{
    if (message->hello) {
        self->scheduler = pid;
        return;
    }
    if (message->report.word == KEEPER_STARTED)
        message->report.pid = self->scheduler;
    self->tree_dead = self->tree_dead || message->report.word == KEEPER_TREE_DEAD;
    deliver(self, &message->report);
}

/* True if there may be more. */
static bool receive(struct keeper *self)
{
    struct keeper_message message;
    char space[CMSG_SPACE(sizeof(struct ucred))];
    struct iovec part = {.iov_base = &message, .iov_len = sizeof message};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    ssize_t size = recvmsg(self->control, &header, MSG_DONTWAIT);
    if (size < 0 && errno == EINTR)
        return true;
    if (size < 0 && errno == EAGAIN)
        return false;
    if (size <= 0) {
        (void)uv_poll_stop(&self->control_poll); /* the keeper is dying: exit_poll tells the rest */
        return false;
    }
    message.report.text[sizeof message.report.text - 1] = '\0';
    if (size == sizeof message)
        handle(self, &message, sender(&header));
    return true;
}

void keeper_drain(struct keeper *self)
{
    while (!self->gone && receive(self))
        ;
}

static void on_control(uv_poll_t *poll, int status, int events)
{
    keeper_drain(poll->data);
}

/* ---- the end */

static void report_gone(struct keeper *self)
{
    struct keeper_report report = {.word = KEEPER_GONE, .status = self->status};
    keeper_drain(self);
    self->gone = true;
    (void)uv_poll_stop(&self->control_poll);
    (void)uv_timer_stop(&self->orphans_timer);
    if (*self->leaf && !self->tree_dead)
        tree_leaf_remove(self->leaf);
    deliver(self, &report);
}

static void on_orphans_timer(uv_timer_t *timer)
{
    struct keeper *self = timer->data;
    if (tree_kill_orphans(self->leaf) == 0)
        report_gone(self);
}

/* A PID namespace's init is dead only when all of its processes are. Without one the orphans have come to us. */
static void on_exit_seen(uv_poll_t *poll, int status, int events)
{
    struct keeper *self = poll->data;
    siginfo_t exit = {0};
    if (waitid(P_PIDFD, (id_t)self->pidfd, &exit, WEXITED | WNOHANG) == 0 && exit.si_pid == 0)
        return;
    self->status = exit.si_status;
    (void)uv_poll_stop(&self->exit_poll);
    keeper_drain(self);
    bool contained = self->containment == TREE_NAMESPACE || self->containment == TREE_USER_NAMESPACE;
    if (contained || self->tree_dead)
        report_gone(self);
    else if (uv_timer_start(&self->orphans_timer, on_orphans_timer, 0, LOOK_AGAIN_MS) < 0)
        abort(); /* only an uninitialised handle could */
}

/* ---- start */

static bool launch(struct keeper *self, const struct keeper_spec *spec, int keeper_end, struct error *error)
{
    enum tree_containment containment = keeper_launch_best();
    bool unavailable;
    pid_t pid;
    for (;;) {
        cleanup_fd int spec_fd = -1;
        if (!write_spec(spec, containment, &spec_fd, error))
            return false;
        const struct keeper_launch descriptors = {
            .control = keeper_end, .spec = spec_fd, .lock = spec->lock_fd, .output = spec->output_fd};
        if (keeper_launch(&descriptors, containment, &pid, &self->pidfd, &unavailable, error))
            break;
        if (!unavailable)
            return false;
        containment = keeper_launch_next(containment);
    }
    self->containment = containment;
    if (containment == TREE_CGROUP && !tree_leaf_make(spec->seat, self->leaf, sizeof self->leaf))
        *self->leaf = '\0';
    return true;
}

static void watch(struct keeper *self, uv_loop_t *loop)
{
    self->control_poll.data = self->exit_poll.data = self->orphans_timer.data = self;
    if (uv_poll_init(loop, &self->control_poll, self->control) < 0 ||
        uv_poll_init(loop, &self->exit_poll, self->pidfd) < 0 || uv_timer_init(loop, &self->orphans_timer) < 0 ||
        uv_poll_start(&self->control_poll, UV_READABLE, on_control) < 0 ||
        uv_poll_start(&self->exit_poll, UV_READABLE, on_exit_seen) < 0)
        abort(); /* lack of memory in the loop: this process's death is what the keeper is there for */
}

bool keeper_start(uv_loop_t *loop, const struct keeper_spec *spec, keeper_report_cb *on_report, void *data,
                  struct keeper **ret_keeper, struct error *error)
{
    int pair[2], on = 1;
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1); /* cannot fail; without a namespace a dead keeper's orphans come to us */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot start the keeper: %s", strerror(errno));
    cleanup_fd int own_end = pair[0], keeper_end = pair[1];
    (void)setsockopt(own_end, SOL_SOCKET, SO_PASSCRED, &on, sizeof on); /* without it only the pid stays unknown */
    struct keeper *self = calloc(1, sizeof *self);
    if (!self)
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot start the keeper: out of memory");
    self->on_report = on_report;
    self->data = data;
    if (!launch(self, spec, keeper_end, error)) {
        free(self);
        return false;
    }
    self->control = own_end;
    own_end = -1;
    watch(self, loop);
    *ret_keeper = self;
    return true;
}

/* ---- orders */

static void order(struct keeper *self, enum keeper_order_word word, int64_t at_ms)
{
    const struct keeper_order message = {.word = word, .at_ms = at_ms};
    /* where it cannot be sent the keeper is frozen or dead: the missing echo or its exit says so */
    (void)send(self->control, &message, sizeof message, MSG_NOSIGNAL);
}

void keeper_set_deadline(struct keeper *self, int64_t deadline_ms)
{
    order(self, KEEPER_ORDER_DEADLINE, deadline_ms);
}

void keeper_restart(struct keeper *self)
{
    order(self, KEEPER_ORDER_RESTART, 0);
}

void keeper_stop(struct keeper *self, int64_t kill_at_ms)
{
    order(self, KEEPER_ORDER_STOP, kill_at_ms);
}

void keeper_end_run(struct keeper *self, int64_t kill_at_ms)
{
    order(self, KEEPER_ORDER_END_RUN, kill_at_ms);
}

void keeper_kill(struct keeper *self)
{
    (void)syscall(SYS_pidfd_send_signal, self->pidfd, SIGKILL, NULL, 0); /* fails only for the dead */
}

bool keeper_lives(const struct keeper *self)
{
    siginfo_t end = {0};
    return waitid(P_PIDFD, (id_t)self->pidfd, &end, WEXITED | WNOHANG | WNOWAIT) == 0 && end.si_pid == 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct keeper *self = handle->data;
    if (++self->closed == HANDLES)
        free(self);
}

void keeper_free(struct keeper *self)
{
    uv_close((uv_handle_t *)&self->control_poll, on_closed);
    uv_close((uv_handle_t *)&self->exit_poll, on_closed);
    uv_close((uv_handle_t *)&self->orphans_timer, on_closed);
    (void)close(self->control);
    (void)close(self->pidfd);
}

const char *keeper_containment(void)
{
    char leaf[2304];
    enum tree_containment containment = keeper_launch_best();
    if ((containment == TREE_NAMESPACE || containment == TREE_USER_NAMESPACE) && !keeper_launch_try(containment))
        containment = TREE_CGROUP;
    if (containment == TREE_CGROUP && !tree_leaf_make("trial", leaf, sizeof leaf))
        containment = TREE_SUBREAPER;
    if (containment == TREE_CGROUP)
        tree_leaf_remove(leaf);
    return tree_containment_name(containment);
}
