/* Owns the killing of process trees: PID namespace, cgroup v2 leaf, descendants found in /proc, processes of a seat.
 * Never decides when; never signals a process other than through a pidfd or as its parent or init. */
#include "tree.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"

static void cleanup_dir_(DIR **dir)
{
    if (*dir)
        (void)closedir(*dir);
}
#define cleanup_dir __attribute__((cleanup(cleanup_dir_)))

const char *tree_containment_name(enum tree_containment containment)
{
    static const char *const names[] = {"namespace", "user namespace", "cgroup", "subreaper"};
    return names[containment];
}

static void nap(int64_t ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&time, NULL); /* a shortened nap only means another look */
}

/* ---- cgroup leaf */

/* Where this process's own cgroup v2 directory is. */
static bool find_own_cgroup(char *ret_path, size_t size)
{
    cleanup_file FILE *mounts = fopen("/proc/self/mountinfo", "re");
    cleanup_file FILE *own = fopen("/proc/self/cgroup", "re");
    char mount_root[1024] = "", mount_point[1024] = "", cgroup[1024] = "";
    cleanup_free char *line = NULL;
    size_t line_size = 0;
    while (mounts && !*mount_point && getline(&line, &line_size, mounts) > 0) {
        if (!strstr(line, " - cgroup2 ") || sscanf(line, "%*s %*s %*s %1023s %1023s", mount_root, mount_point) != 2)
            *mount_point = '\0';
    }
    while (own && !*cgroup && getline(&line, &line_size, own) > 0)
        (void)sscanf(line, "0::%1023[^\n]", cgroup); /* the line of cgroup v2 */
    if (!*mount_point || !*cgroup)
        return false;
    const char *below = cgroup;
    if (strcmp(mount_root, "/") != 0) { /* bind-mounted from further down */
        size_t length = strlen(mount_root);
        if (strncmp(cgroup, mount_root, length) != 0)
            return false;
        below += length;
    }
    if (strcmp(below, "/") == 0)
        below = "";
    return (size_t)snprintf(ret_path, size, "%s%s", mount_point, below) < size;
}

static bool find_leaf(const char *seat, char *ret_path, size_t size)
{
    char own[2048];
    return find_own_cgroup(own, sizeof own) && (size_t)snprintf(ret_path, size, "%s/heirflow-%s", own, seat) < size;
}

static bool open_in_leaf(const char *leaf, const char *name, int flags, int *ret_fd)
{
    char path[2304];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", leaf, name) >= sizeof path)
        return false;
    *ret_fd = open(path, flags | O_CLOEXEC);
    return *ret_fd >= 0;
}

bool tree_leaf_make(const char *seat, char *ret_path, size_t size)
{
    cleanup_fd int procs = -1, kill_file = -1;
    if (!find_leaf(seat, ret_path, size) || (mkdir(ret_path, 0755) < 0 && errno != EEXIST))
        return false;
    if (open_in_leaf(ret_path, "cgroup.procs", O_WRONLY, &procs) &&
        open_in_leaf(ret_path, "cgroup.kill", O_WRONLY, &kill_file))
        return true;
    (void)rmdir(ret_path); /* of no use to us: not writable, or a kernel before 5.14 */
    return false;
}

void tree_leaf_remove(const char *path)
{
    for (int attempt = 0; rmdir(path) < 0 && errno == EBUSY && attempt < 100; attempt++)
        nap(1);
}

static void kill_leaf(const char *leaf)
{
    cleanup_fd int fd = -1;
    if (*leaf && open_in_leaf(leaf, "cgroup.kill", O_WRONLY, &fd))
        (void)!write(fd, "1", 1); /* what this misses, the descendants' turn finds */
}

static bool leaf_is_populated(const char *leaf)
{
    cleanup_fd int fd = -1;
    char text[256] = "";
    return *leaf && open_in_leaf(leaf, "cgroup.events", O_RDONLY, &fd) && read(fd, text, sizeof text - 1) > 0 &&
           strstr(text, "populated 1");
}

/* ---- descendants
 *
 * Killed from the top, one generation after the other: whoever loses its parent becomes a child of this process, which is
 * the init or the subreaper of them all. A child's number is its own until it is reaped, and only this process reaps. */

static bool next_pid(DIR *folder, pid_t *ret_pid)
{
    struct dirent *entry;
    while ((entry = readdir(folder))) {
        if (isdigit((unsigned char)*entry->d_name)) {
            *ret_pid = (pid_t)strtol(entry->d_name, NULL, 10);
            return true;
        }
    }
    return false;
}

static pid_t spared;

void tree_spare(pid_t pid)
{
    spared = pid;
}

static void kill_child(pid_t pid, bool reap, int *found)
{
    if (pid == spared)
        return;
    (void)kill(pid, SIGKILL); /* a zombie does not mind */
    if (!reap || waitpid(pid, NULL, WNOHANG | __WALL) != pid)
        (*found)++;
}

/* From the kernel's own list, which takes microseconds: a daemon that forks and exits all the time does not outrun it. */
static bool kill_listed_children(bool reap, int *found)
{
    if (access("/proc/thread-self/children", F_OK) < 0)
        return false;
    cleanup_dir DIR *threads = opendir("/proc/self/task");
    pid_t thread, pid;
    while (threads && next_pid(threads, &thread)) {
        char path[64];
        (void)snprintf(path, sizeof path, "/proc/self/task/%d/children", thread);
        cleanup_file FILE *children = fopen(path, "re");
        while (children && fscanf(children, "%d", &pid) == 1)
            kill_child(pid, reap, found);
    }
    return threads != NULL;
}

static pid_t parent_of(pid_t pid)
{
    char path[64], text[512] = "", state;
    int parent;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return -1;
    const char *after_name = strrchr(text, ')'); /* the name may hold anything */
    return after_name && sscanf(after_name + 1, " %c %d", &state, &parent) == 2 ? parent : -1;
}

/* Where the kernel keeps no such list (built without CONFIG_PROC_CHILDREN). */
static void kill_found_children(bool reap, int *found)
{
    cleanup_dir DIR *proc = opendir("/proc");
    pid_t pid;
    while (proc && next_pid(proc, &pid)) {
        if (parent_of(pid) == getpid())
            kill_child(pid, reap, found);
    }
}

static int kill_children(bool reap)
{
    int found = 0;
    if (!kill_listed_children(reap, &found))
        kill_found_children(reap, &found);
    return found;
}

void tree_kill(enum tree_containment containment, const char *leaf)
{
    switch (containment) {
    case TREE_NAMESPACE:
    case TREE_USER_NAMESPACE:
        if (getpid() == 1)           /* else -1 would be the whole machine */
            (void)kill(-1, SIGKILL); /* ESRCH: nobody is left */
        break;
    case TREE_CGROUP:
        kill_leaf(leaf);
        (void)kill_children(false); /* some may have moved out */
        break;
    case TREE_SUBREAPER:
        (void)kill_children(false);
        break;
    }
}

int tree_kill_orphans(const char *leaf)
{
    kill_leaf(leaf);
    int found = kill_children(true);
    return found || leaf_is_populated(leaf) ? found + 1 : 0;
}

/* ---- sweep */

static bool carries(pid_t pid, const char *entry)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/environ", pid);
    cleanup_file FILE *file = fopen(path, "re");
    cleanup_free char *variable = NULL;
    size_t size = 0;
    while (file && getdelim(&variable, &size, '\0', file) > 0) {
        if (strcmp(variable, entry) == 0)
            return true;
    }
    return false;
}

/* Kills the process if it carries the entry and waits for its end; true if there was something to kill. */
static bool sweep_one(pid_t pid, const char *entry, int64_t until_ms, pid_t *ret_stubborn)
{
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0 || !carries(pid, entry))
        return false;
    (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    int64_t left_ms = until_ms - clock_now_ms();
    if (poll(&end, 1, left_ms > 0 ? (int)left_ms : 0) != 1)
        *ret_stubborn = pid;
    return true;
}

static bool sweep_round(const char *entry, int64_t until_ms, pid_t *ret_stubborn)
{
    cleanup_dir DIR *proc = opendir("/proc");
    bool found = false;
    pid_t pid;
    while (proc && next_pid(proc, &pid)) {
        if (pid != getpid() && sweep_one(pid, entry, until_ms, ret_stubborn))
            found = true;
    }
    return found;
}

bool tree_sweep(const char *seat, int64_t wait_ms, struct error *error)
{
    char leaf[2304] = "", entry[64];
    int64_t until_ms = clock_now_ms() + wait_ms;
    pid_t stubborn = 0;
    (void)snprintf(entry, sizeof entry, "HEIRFLOW_SEAT=%.36s", seat);
    if (!find_leaf(seat, leaf, sizeof leaf) || access(leaf, F_OK) < 0)
        *leaf = '\0';
    for (;;) {
        kill_leaf(leaf);
        bool found = sweep_round(entry, until_ms, &stubborn);
        bool populated = leaf_is_populated(leaf);
        if (!found && !populated)
            break;
        if (clock_now_ms() >= until_ms)
            return error_set_retryable(error, EXIT_CODE_NEGATIVE,
                                       "a process of the former scheduler (pid %d) does not end although killed; "
                                       "see what it waits for (ps -o stat,wchan -p %d)",
                                       stubborn, stubborn);
        if (!found)
            nap(1);
    }
    if (*leaf)
        tree_leaf_remove(leaf);
    return true;
}
