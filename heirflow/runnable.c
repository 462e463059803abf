/* Owns the look for what `heirflow run` needs on this node; as the scheduler's user, so in a child process. Prints nothing.
 * What is missing may be there in a moment, so it counts as EXIT_CODE_USAGE only where waiting cannot help: at boot a user
 * database or a file system may come late. */
#include "runnable.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"

#define LOOK_UP_S 10 /* for a directory or a user database that hangs */

static const char *search_path(const struct config *config)
{
    const char *own = json_string_value(json_object_get(config->scheduler.environment, "PATH"));
    const char *path = own ? own : getenv("PATH");
    return path ? path : "/usr/local/bin:/usr/bin:/bin";
}

static bool become(const struct config *config, const struct passwd *user, struct error *error)
{
    if (user && geteuid() == 0 &&
        (initgroups(user->pw_name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0))
        return error_set(error, EXIT_CODE_NEGATIVE, "cannot become user \"%s\": %s", user->pw_name, strerror(errno));
    if (config->scheduler.directory && chdir(config->scheduler.directory) != 0)
        return error_set(error, EXIT_CODE_NEGATIVE, "\"scheduler.directory\" %s: %s%s%s", config->scheduler.directory,
                         strerror(errno), user ? " for user " : "", user ? user->pw_name : "");
    return true;
}

static bool executable(const char *path)
{
    struct stat file;
    return stat(path, &file) == 0 && S_ISREG(file.st_mode) && access(path, X_OK) == 0;
}

/* As execvp would look for it, in this process's directory and with its rights. */
static bool look_up(const struct config *config, const char *name, const char *key, char *ret_path, size_t size,
                    struct error *error)
{
    const char *path = search_path(config);
    if (strchr(name, '/')) {
        (void)snprintf(ret_path, size, "%s", name);
        if (executable(name))
            return true;
        if (access(name, F_OK) != 0)
            return error_set(error, EXIT_CODE_NEGATIVE, "command \"%s\": %s: correct \"%s\"", name, strerror(errno), key);
        return error_set(error, EXIT_CODE_NEGATIVE,
                         "command \"%s\" is not an executable file%s%s: chmod +x it, or correct it", name,
                         config->scheduler.user ? " for user " : "", config->scheduler.user ? config->scheduler.user : "");
    }
    for (const char *entry = path;; entry += strcspn(entry, ":") + 1) {
        int length = (int)strcspn(entry, ":");
        (void)snprintf(ret_path, size, "%.*s%s%s", length, entry, length ? "/" : "./", name);
        if (executable(ret_path))
            return true;
        if (!entry[length])
            break;
    }
    return error_set(error, EXIT_CODE_NEGATIVE,
                     "command \"%s\" is not found along PATH=%.300s: install it, or name it by its absolute path", name,
                     path);
}

/* What the child of runnable_find tells its parent. */
struct finding {
    bool found;
    char path[4096];
    struct error error;
};

static bool find_user(const struct config *config, struct passwd **ret_user, struct error *error)
{
    const char *name = config->scheduler.user;
    if (!name)
        return true;
    *ret_user = getpwnam(name);
    if (!*ret_user)
        return error_set(error, EXIT_CODE_NEGATIVE, "\"scheduler.user\": there is no user \"%s\" on this node", name);
    if (geteuid() != 0 && (*ret_user)->pw_uid != geteuid())
        return error_set(
            error, EXIT_CODE_USAGE,
            "\"scheduler.user\" is \"%s\", but only root can start it as another user: run heirflow as root or as %s", name,
            name);
    return true;
}

static void die_with(pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

/* The parent may be a wrapper: its lock and its connections must not live on in a child that hangs, nor may its handlers
 * run here. */
static void stand_alone(pid_t parent, int *fd)
{
    sigset_t none;
    (void)dup2(*fd, STDERR_FILENO + 1);
    *fd = STDERR_FILENO + 1;
    (void)syscall(SYS_close_range, STDERR_FILENO + 2, ~0U, 0);
    for (int number = 1; number < NSIG; number++)
        (void)signal(number, SIG_DFL); /* those that cannot be changed are at their default */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    die_with(parent);
    (void)alarm(LOOK_UP_S);
}

static pid_t fork_blocked(void)
{
    sigset_t all, former;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &former);
    pid_t pid = fork();
    if (pid != 0)
        (void)pthread_sigmask(SIG_SETMASK, &former, NULL);
    return pid;
}

bool runnable_find(const struct config *config, const char **command, const char *key, char *ret_path, size_t size,
                   struct error *error)
{
    struct passwd *user = NULL;
    struct finding finding = {0};
    int ends[2];
    if (!find_user(config, &user, error))
        return false;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_set(error, EXIT_CODE_NEGATIVE, "pipe: %s", strerror(errno));
    (void)fflush(NULL); /* or the child would print what is buffered once more */
    pid_t parent = getpid(), child = fork_blocked();
    if (child == 0) {
        stand_alone(parent, &ends[1]);
        finding.found = become(config, user, &finding.error);
        die_with(parent); /* a change of user has ended that */
        finding.found =
            finding.found && look_up(config, command[0], key, finding.path, sizeof finding.path, &finding.error);
        _exit(write(ends[1], &finding, sizeof finding) == (ssize_t)sizeof finding ? 0 : 1);
    }
    (void)close(ends[1]);
    size_t length = 0;
    for (ssize_t got; child > 0 && (got = read(ends[0], (char *)&finding + length, sizeof finding - length)) > 0;)
        length += (size_t)got;
    (void)close(ends[0]);
    if (child > 0)
        (void)waitpid(child, NULL, 0); /* what it found is in the pipe */
    if (length != sizeof finding)
        return error_set(error, EXIT_CODE_NEGATIVE,
                         "the look-up of command \"%s\" was killed, or not over within %d s: does its directory hang, or "
                         "the look-up of users? Try again",
                         command[0], LOOK_UP_S);
    if (!finding.found)
        *error = finding.error;
    else
        (void)snprintf(ret_path, size, "%s", finding.path);
    return finding.found;
}

bool runnable_check(const struct config *config, struct error *error)
{
    char path[4096];
    if (!*config->run_directory)
        return error_set(error, EXIT_CODE_USAGE,
                         "no run directory: set \"run_directory\" or HEIRFLOW_RUN_DIRECTORY (XDG_RUNTIME_DIR is not set)");
    if (config->no_heir)
        return true;
    if (!config->scheduler.command)
        return error_set(
            error, EXIT_CODE_USAGE,
            "no command to run: give it after --, or as \"scheduler.command\" in %s; or set \"no_heir\" to only watch",
            config->path ? config->path : "/etc/heirflow/heirflow.json");
    if (!runnable_find(config, config->scheduler.command, "scheduler.command", path, sizeof path, error))
        return false;
    const char **health = config->scheduler.health.command;
    if (health && !runnable_find(config, health, "scheduler.health.command", path, sizeof path, error))
        return error_wrap(error, "\"scheduler.health.command\"");
    return true;
}
