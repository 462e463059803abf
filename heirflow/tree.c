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

/* ---- processes */

struct process {
    pid_t pid, parent;
    bool zombie, member;
};

struct processes {
    struct process *list;
    size_t count, room;
};

static void cleanup_processes_(struct processes *processes)
{
    free(processes->list);
}
#define cleanup_processes __attribute__((cleanup(cleanup_processes_)))

static bool read_process(pid_t pid, struct process *ret_process)
{
    char path[64], text[512] = "";
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return false;
    const char *after_name = strrchr(text, ')'); /* the name may hold anything */
    char state;
    int parent;
    if (!after_name || sscanf(after_name + 1, " %c %d", &state, &parent) != 2)
        return false;
    *ret_process = (struct process){.pid = pid, .parent = parent, .zombie = state == 'Z' || state == 'X'};
    return true;
}

static bool next_pid(DIR *proc, pid_t *ret_pid)
{
    struct dirent *entry;
    while ((entry = readdir(proc))) {
        if (isdigit((unsigned char)*entry->d_name)) {
            *ret_pid = (pid_t)strtol(entry->d_name, NULL, 10);
            return true;
        }
    }
    return false;
}

static void list_processes(struct processes *processes)
{
    cleanup_dir DIR *proc = opendir("/proc");
    struct process process;
    pid_t pid;
    processes->count = 0;
    while (proc && next_pid(proc, &pid)) {
        if (!read_process(pid, &process))
            continue;
        if (processes->count == processes->room) {
            size_t room = processes->room ? processes->room * 2 : 256;
            struct process *list = realloc(processes->list, room * sizeof *list);
            if (!list)
                return; /* the next round will see those left out */
            processes->list = list;
            processes->room = room;
        }
        processes->list[processes->count++] = process;
    }
}

static int compare_pids(const void *a, const void *b)
{
    const struct process *left = a, *right = b;
    return (left->pid > right->pid) - (left->pid < right->pid);
}

static bool is_descendant(const struct processes *processes, const struct process *process, pid_t self)
{
    if (process->parent == self)
        return true;
    const struct process key = {.pid = process->parent};
    const struct process *parent =
        processes->count ? bsearch(&key, processes->list, processes->count, sizeof key, compare_pids) : NULL;
    return parent && parent->member;
}

/* Marks the descendants of this process. A parent's number may be the larger one, hence the rounds. */
static void mark_descendants(struct processes *processes)
{
    if (processes->count)
        qsort(processes->list, processes->count, sizeof *processes->list, compare_pids);
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < processes->count; i++) {
            struct process *process = &processes->list[i];
            if (!process->member && is_descendant(processes, process, getpid()))
                process->member = more = true;
        }
    }
}

/* A pidfd first, then another look at the parent: whoever has the number by then is the one that gets the signal. */
static void kill_child_of(pid_t pid, pid_t parent)
{
    struct process process;
    cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd >= 0 && read_process(pid, &process) && process.parent == parent)
        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
}

static int kill_descendants(bool reap)
{
    cleanup_processes struct processes processes = {0};
    int found = 0;
    list_processes(&processes);
    mark_descendants(&processes);
    for (size_t i = 0; i < processes.count; i++) {
        const struct process *process = &processes.list[i];
        if (!process->member)
            continue;
        found++;
        if (!process->zombie)
            kill_child_of(process->pid, process->parent);
        else if (reap && process->parent == getpid() && waitpid(process->pid, NULL, WNOHANG | __WALL) == process->pid)
            found--;
    }
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
        (void)kill_descendants(false); /* some may have moved out */
        break;
    case TREE_SUBREAPER:
        (void)kill_descendants(false);
        break;
    }
}

int tree_kill_orphans(const char *leaf)
{
    kill_leaf(leaf);
    int found = kill_descendants(true);
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
