/* Owns the clone that makes a keeper. Between clone and exec the child is a copy of a process that may have threads: it
 * calls nothing but async-signal-safe functions and never returns. */
#include "keeper_launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "keeper_process.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

#define LAUNCH_MS 1000 /* from clone to exec; usually 2 */

enum step { STEP_MAPS, STEP_MOUNTS, STEP_PROC, STEP_DESCRIPTORS, STEP_EXEC };

struct failure {
    enum step step;
    int cause;
};

/* What the child works with; all descriptors lie above those it is to fill. */
struct child {
    int control, spec, lock, output, program; /* output: -1 for none */
    int status[2];                            /* child to parent: a struct failure, or nothing */
    int go[2];                                /* parent to child: the maps are written */
    bool namespaces, user_namespace, only_trying;
};

static bool is_namespace(enum tree_containment containment)
{
    return containment == TREE_NAMESPACE || containment == TREE_USER_NAMESPACE;
}

enum tree_containment keeper_launch_best(void)
{
    const char *forced = getenv("HEIRFLOW_CONTAINMENT");
    if (forced && strcmp(forced, "cgroup") == 0)
        return TREE_CGROUP;
    if (forced && strcmp(forced, "subreaper") == 0)
        return TREE_SUBREAPER;
    return geteuid() == 0 ? TREE_NAMESPACE : TREE_USER_NAMESPACE;
}

enum tree_containment keeper_launch_next(enum tree_containment containment)
{
    return is_namespace(containment) ? TREE_CGROUP : TREE_SUBREAPER;
}

/* ---- child */

static void fail(const struct child *child, enum step step)
{
    struct failure failure = {.step = step, .cause = errno};
    (void)!write(child->status[1], &failure, sizeof failure);
    _exit(127);
}

static void enter_namespaces(const struct child *child)
{
    char byte;
    (void)close(child->go[1]); /* else the parent's death would not end the wait */
    if (child->user_namespace && read(child->go[0], &byte, 1) != 1)
        fail(child, STEP_MAPS);
    /* mounts made on the node later still come in, ours do not go out; in a chroot "/" may be no mount, but /proc is one */
    if (mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 &&
        (errno != EINVAL || mount("none", "/proc", NULL, MS_REC | MS_SLAVE, NULL) < 0))
        fail(child, STEP_MOUNTS);
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        fail(child, STEP_PROC);
}

static void become_keeper(const struct child *child)
{
    static char name[] = "heirflow", command[] = "keeper", nothing[] = "";
    char *const argv[] = {name, command, NULL};
    if (child->namespaces)
        enter_namespaces(child);
    if (child->only_trying)
        _exit(0);
    if (dup2(child->control, KEEPER_CONTROL_FD) < 0 || dup2(child->spec, KEEPER_SPEC_FD) < 0 ||
        dup2(child->lock, KEEPER_LOCK_FD) < 0 || (child->output >= 0 && dup2(child->output, KEEPER_OUTPUT_FD) < 0))
        fail(child, STEP_DESCRIPTORS);
    (void)syscall(SYS_execveat, child->program, nothing, argv, environ, 0x1000 /* AT_EMPTY_PATH */);
    fail(child, STEP_EXEC);
}

/* ---- parent */

static pid_t clone_child(const struct child *child, int *ret_pidfd)
{
    sigset_t all, former;
    unsigned long flags = CLONE_PIDFD | SIGCHLD;
    if (child->namespaces)
        flags |= CLONE_NEWPID | CLONE_NEWNS;
    if (child->user_namespace)
        flags |= CLONE_NEWUSER;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &former); /* no handler of ours may run in the child */
    if (child->user_namespace)
        (void)prctl(PR_SET_DUMPABLE, 1); /* else we could not write the child's maps */
    pid_t pid = (pid_t)syscall(SYS_clone, flags, 0UL, ret_pidfd, 0UL, 0UL);
    if (pid == 0)
        become_keeper(child);
    int cause = errno;
    if (child->user_namespace)
        (void)prctl(PR_SET_DUMPABLE, 0);
    (void)pthread_sigmask(SIG_SETMASK, &former, NULL);
    errno = cause;
    return pid;
}

static bool write_proc(pid_t pid, const char *name, const char *text)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, strlen(text)) > 0;
}

static void map_ids(const struct child *child, pid_t pid)
{
    char users[64], groups[64];
    (void)snprintf(users, sizeof users, "%u %u 1", geteuid(), geteuid());
    (void)snprintf(groups, sizeof groups, "%u %u 1", getegid(), getegid());
    if (write_proc(pid, "setgroups", "deny") && write_proc(pid, "uid_map", users) && write_proc(pid, "gid_map", groups))
        (void)!write(child->go[1], "g", 1); /* a child that did not get it says so itself */
}

static void reap(int pidfd)
{
    siginfo_t ignored;
    while (waitid(P_PIDFD, (id_t)pidfd, &ignored, WEXITED) < 0 && errno == EINTR)
        ;
}

static bool explain(struct failure failure, bool *ret_unavailable, struct error *error)
{
    static const char *const steps[] = {"mapping the user", "making mounts private", "mounting /proc",
                                        "handing over descriptors", "executing this program"};
    *ret_unavailable = failure.step == STEP_MAPS || failure.step == STEP_MOUNTS || failure.step == STEP_PROC;
    return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot start the keeper: %s failed: %s", steps[failure.step],
                               strerror(failure.cause));
}

/* Descriptors above the keeper's own, so that filling those never overwrites one still needed. */
static int lift(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, KEEPER_FIRST_FREE_FD);
}

static bool lift_pipe(int fds[2])
{
    int pair[2];
    if (pipe2(pair, O_CLOEXEC) < 0)
        return false;
    for (int i = 0; i < 2; i++) {
        fds[i] = lift(pair[i]);
        (void)close(pair[i]);
    }
    return fds[0] >= 0 && fds[1] >= 0;
}

static bool prepare(struct child *child, const struct keeper_launch *launch)
{
    cleanup_fd int program = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (program < 0 || (child->program = lift(program)) < 0)
        return false;
    if (!child->only_trying &&
        ((child->control = lift(launch->control)) < 0 || (child->spec = lift(launch->spec)) < 0 ||
         (child->lock = lift(launch->lock)) < 0 || (launch->output && (child->output = lift(launch->output)) < 0)))
        return false;
    return lift_pipe(child->status) && lift_pipe(child->go);
}

static void close_all(const struct child *child)
{
    const int fds[] = {child->control,   child->spec,      child->lock,  child->output, child->program,
                       child->status[0], child->status[1], child->go[0], child->go[1]};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (fds[i] >= 0)
            (void)close(fds[i]);
    }
}

static bool run(struct child *child, pid_t *ret_pid, int *ret_pidfd, bool *ret_unavailable, struct error *error)
{
    struct failure failure;
    pid_t pid = clone_child(child, ret_pidfd);
    if (pid < 0) {
        *ret_unavailable = child->namespaces && errno != EAGAIN && errno != ENOMEM;
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot start the keeper: clone failed: %s", strerror(errno));
    }
    (void)close(child->status[1]);
    child->status[1] = -1;
    if (child->user_namespace)
        map_ids(child, pid);
    (void)close(child->go[1]);
    child->go[1] = -1;
    struct pollfd exec_or_failure = {.fd = child->status[0], .events = POLLIN};
    ssize_t size = 0;
    if (poll(&exec_or_failure, 1, LAUNCH_MS) == 1)
        size = read(child->status[0], &failure, sizeof failure);
    else
        (void)syscall(SYS_pidfd_send_signal, *ret_pidfd, SIGKILL, NULL, 0); /* frozen; its death is reported as any other */
    if (size == sizeof failure) {
        reap(*ret_pidfd);
        (void)close(*ret_pidfd);
        return explain(failure, ret_unavailable, error);
    }
    *ret_pid = pid;
    return true;
}

static struct child new_child(enum tree_containment containment, bool only_trying)
{
    return (struct child){
        .control = -1,
        .spec = -1,
        .lock = -1,
        .output = -1,
        .program = -1,
        .status = {-1, -1},
        .go = {-1, -1},
        .namespaces = is_namespace(containment),
        .user_namespace = containment == TREE_USER_NAMESPACE,
        .only_trying = only_trying,
    };
}

bool keeper_launch(const struct keeper_launch *launch, enum tree_containment containment, pid_t *ret_pid, int *ret_pidfd,
                   bool *ret_unavailable, struct error *error)
{
    struct child child = new_child(containment, false);
    *ret_unavailable = false;
    bool done = prepare(&child, launch)
                    ? run(&child, ret_pid, ret_pidfd, ret_unavailable, error)
                    : error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot start the keeper: %s", strerror(errno));
    close_all(&child);
    return done;
}

bool keeper_launch_try(enum tree_containment containment)
{
    struct child child = new_child(containment, true);
    struct error ignored;
    bool unavailable;
    pid_t pid;
    int pidfd;
    bool done = prepare(&child, NULL) && run(&child, &pid, &pidfd, &unavailable, &ignored);
    if (done) {
        reap(pidfd);
        (void)close(pidfd);
    }
    close_all(&child);
    return done;
}
