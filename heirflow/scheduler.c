/* Owns what a scheduler is given: session, signals, output, user, directory, environment, and nothing else of ours.
 * Runs in the forked child, which is free to allocate; never returns from there. */
#include "scheduler.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STATUS_FD 3 /* close-on-exec; everything above it is closed */

static bool enter_leaf(const char *leaf, struct error *error)
{
    char path[2304];
    if (!*leaf)
        return true;
    (void)snprintf(path, sizeof path, "%.2000s/cgroup.procs", leaf);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        return error_set(error, EXIT_CODE_NEGATIVE, "cannot enter the cgroup %s: %s", leaf, strerror(errno));
    (void)close(fd);
    return true;
}

static void reset_signals(void)
{
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        (void)signal(number, SIG_DFL); /* those that cannot be changed are at their default */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool open_input(const struct scheduler_spec *spec, struct error *error)
{
    if (spec->keeps_input)
        return true;
    int null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        return error_set(error, EXIT_CODE_NEGATIVE, "cannot open /dev/null: %s", strerror(errno));
    if (null > STDERR_FILENO)
        (void)close(null);
    return true;
}

static bool open_output(int fd, struct error *error)
{
    if (!fd || (dup2(fd, STDOUT_FILENO) >= 0 && dup2(fd, STDERR_FILENO) >= 0))
        return true;
    return error_set(error, EXIT_CODE_NEGATIVE, "the pipe for scheduler.output cannot be handed over: %s", strerror(errno));
}

static bool become(const char *user, struct error *error)
{
    if (!user || !*user)
        return true;
    errno = 0;
    const struct passwd *entry = getpwnam(user);
    if (!entry && errno && errno != ENOENT && errno != ESRCH)
        return error_set(error, EXIT_CODE_NEGATIVE, "scheduler.user \"%s\" cannot be looked up: %s", user, strerror(errno));
    if (!entry)
        return error_set(error, EXIT_CODE_NEGATIVE,
                         "scheduler.user \"%s\" is unknown on this node; create it or correct scheduler.user", user);
    (void)setenv("HOME", entry->pw_dir, 1); /* the configured environment, set later, still wins */
    (void)setenv("SHELL", *entry->pw_shell ? entry->pw_shell : "/bin/sh", 1);
    (void)setenv("USER", user, 1);
    (void)setenv("LOGNAME", user, 1);
    if (entry->pw_uid == geteuid() && entry->pw_gid == getegid() && geteuid() != 0)
        return true;
    if (initgroups(user, entry->pw_gid) < 0 || setresgid(entry->pw_gid, entry->pw_gid, entry->pw_gid) < 0 ||
        setresuid(entry->pw_uid, entry->pw_uid, entry->pw_uid) < 0)
        return error_set(error, EXIT_CODE_NEGATIVE,
                         "cannot become scheduler.user \"%s\": %s; run the wrapper as root or leave scheduler.user out",
                         user, strerror(errno));
    return true;
}

static bool enter_directory(const char *directory, struct error *error)
{
    if (!directory || !*directory || chdir(directory) == 0)
        return true;
    return error_set(error, EXIT_CODE_NEGATIVE,
                     "scheduler.directory \"%s\" cannot be entered: %s; create it or correct scheduler.directory",
                     directory, strerror(errno));
}

/* After the change of user, which clears it; and the parent may have died before. */
static bool die_with(pid_t parent, struct error *error)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_set(error, EXIT_CODE_NEGATIVE, "cannot set the parent-death signal: %s", strerror(errno));
    if (getppid() != parent)
        return error_set(error, EXIT_CODE_NEGATIVE, "the parent process died");
    return true;
}

static bool is_ours_alone(const char *variable)
{
    static const char *const prefixes[] = {"HEIRFLOW_", "NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    }
    return false;
}

/* What is for the wrapper must not reach the scheduler: connection strings with passwords, systemd's sockets. */
static void drop_our_environment(void)
{
    char **kept = environ;
    for (char **variable = environ; *variable; variable++) {
        if (!is_ours_alone(*variable))
            *kept++ = *variable;
    }
    *kept = NULL;
}

static void set_environment(const struct scheduler_spec *spec)
{
    const char *name;
    json_t *value;
    char term[24], application[320];
    json_object_foreach(spec->environment, name, value)
    {
        if (json_is_null(value))
            (void)unsetenv(name);
        else
            (void)setenv(name, json_string_value(value), 1); /* fails only for lack of memory: exec would, too */
    }
    (void)snprintf(term, sizeof term, "%lld", (long long)spec->term);
    (void)snprintf(application, sizeof application, "heirflow/%s/%s", spec->group, term);
    (void)setenv("HEIRFLOW_GROUP", spec->group, 1);
    (void)setenv("HEIRFLOW_NODE", spec->node, 1);
    (void)setenv("HEIRFLOW_TERM", term, 1);
    (void)setenv("HEIRFLOW_SEAT", spec->seat, 1);
    (void)setenv("SPT_NOENV", "1", 1); /* setproctitle would wipe the environment that the sweep looks at */
    (void)setenv("PGAPPNAME", application, 0);
}

static bool explain_exec(const char *key, const char *command, const char *path, int cause, struct error *error)
{
    if (cause == ENOENT && !path)
        return error_set(error, EXIT_CODE_NEGATIVE, "command \"%s\" is nowhere in PATH (%.200s); give its full path in %s",
                         command, getenv("PATH") ? getenv("PATH") : "", key);
    if (cause == ENOENT && access(path, F_OK) == 0)
        return error_set(error, EXIT_CODE_NEGATIVE,
                         "command \"%s\" exists but the interpreter named in its first line does not; correct that line",
                         path);
    if (cause == ENOENT || cause == ENOTDIR)
        return error_set(error, EXIT_CODE_NEGATIVE, "command \"%s\" does not exist; correct %s", path, key);
    if (cause == EACCES)
        return error_set(error, EXIT_CODE_NEGATIVE,
                         "command \"%s\" is not executable for this user; chmod +x it, or see who may enter its folder",
                         path);
    if (cause == ENOEXEC)
        return error_set(error, EXIT_CODE_NEGATIVE,
                         "command \"%s\" is no program this system can run; a script begins with #! and its interpreter",
                         path);
    return error_set(error, EXIT_CODE_NEGATIVE, "command \"%s\" cannot be executed: %s; see to it or correct %s", path,
                     strerror(cause), key);
}

/* As execvp, but without its implicit shell for files that are no programs. */
static bool execute_in_path(const char *key, char **argv, struct error *error)
{
    char candidate[4096], denied[4096] = "";
    if (strchr(argv[0], '/')) {
        (void)execve(argv[0], argv, environ);
        return explain_exec(key, argv[0], argv[0], errno, error);
    }
    const char *path = getenv("PATH");
    for (const char *part = path ? path : "/usr/local/bin:/usr/bin:/bin"; part;) {
        const char *end = strchrnul(part, ':');
        (void)snprintf(candidate, sizeof candidate, "%.*s%s%s", (int)(end - part), part, end > part ? "/" : "./", argv[0]);
        (void)execve(candidate, argv, environ);
        int cause = errno;
        bool there = access(candidate, F_OK) == 0; /* else PATH names a folder that is closed to this user */
        if (cause == EACCES && there)
            memcpy(denied, candidate, sizeof denied);
        else if (there || (cause != ENOENT && cause != ENOTDIR && cause != EACCES))
            return explain_exec(key, argv[0], candidate, cause, error);
        part = *end ? end + 1 : NULL;
    }
    return explain_exec(key, argv[0], *denied ? denied : NULL, *denied ? EACCES : ENOENT, error);
}

static bool prepare(const struct scheduler_spec *spec, pid_t parent, struct error *error)
{
    (void)setsid(); /* fails only where this process leads a session already */
    drop_our_environment();
    if (!enter_leaf(spec->leaf, error) || !open_input(spec, error) || !open_output(spec->output_fd, error) ||
        !become(spec->user, error) || !die_with(parent, error) || !enter_directory(spec->directory, error))
        return false;
    set_environment(spec);
    return true;
}

static void shed(unsigned first_fd)
{
    (void)syscall(SYS_close_range, first_fd, ~0U, 0);
    reset_signals();
}

/* Descriptors from first_fd on are closed; all are close-on-exec, this is for those that should be. */
static bool execute(const struct scheduler_spec *spec, unsigned first_fd, struct error *error)
{
    size_t count = json_array_size(spec->command);
    char **argv = calloc(count + 1, sizeof *argv);
    if (!argv || !count)
        return error_set(error, EXIT_CODE_NEGATIVE, "no %s to execute", spec->key);
    for (size_t i = 0; i < count; i++)
        argv[i] = (char *)json_string_value(json_array_get(spec->command, i));
    shed(first_fd);
    return execute_in_path(spec->key, argv, error);
}

bool scheduler_become(const struct scheduler_spec *spec, pid_t parent, struct error *error)
{
    return prepare(spec, parent, error) && execute(spec, STDERR_FILENO + 1, error);
}

bool scheduler_pose(const struct scheduler_spec *spec, pid_t parent, struct error *error)
{
    if (!prepare(spec, parent, error))
        return false;
    shed(STDERR_FILENO + 1);
    return true;
}

static bool become_scheduler(const struct scheduler_spec *spec, pid_t keeper, int hello_fd, const void *hello,
                             size_t hello_size, struct error *error)
{
    if (!prepare(spec, keeper, error))
        return false;
    (void)send(hello_fd, hello, hello_size, MSG_NOSIGNAL); /* without it only the pid stays unknown to the wrapper */
    return execute(spec, STATUS_FD + 1, error);
}

static void run_child(const struct scheduler_spec *spec, pid_t keeper, int status_fd, int hello_fd, const void *hello,
                      size_t hello_size)
{
    struct error failure = {0};
    int hello_copy = fcntl(hello_fd, F_DUPFD_CLOEXEC, STATUS_FD + 1);
    int status_copy = fcntl(status_fd, F_DUPFD_CLOEXEC, STATUS_FD + 1);
    (void)dup3(status_copy, STATUS_FD, O_CLOEXEC);
    (void)become_scheduler(spec, keeper, hello_copy, hello, hello_size, &failure);
    (void)!write(STATUS_FD, failure.text, strlen(failure.text));
    _exit(127);
}

bool scheduler_spawn(const struct scheduler_spec *spec, int hello_fd, const void *hello, size_t hello_size, pid_t *ret_pid,
                     int *ret_fd, struct error *error)
{
    int status[2];
    pid_t keeper = getpid();
    if (pipe2(status, O_CLOEXEC) < 0)
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot make a pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0)
        run_child(spec, keeper, status[1], hello_fd, hello, hello_size);
    (void)close(status[1]);
    if (pid < 0) {
        int cause = errno;
        (void)close(status[0]);
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot fork: %s", strerror(cause));
    }
    (void)fcntl(status[0], F_SETFL, O_NONBLOCK);
    *ret_pid = pid;
    *ret_fd = status[0];
    return true;
}
