/* Owns the lock file of one run directory and group, with the seat and its generation. Never unlinks it: the lock is on the
 * inode. */
#include "seat.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "tree.h"
#include "uuid.h"

#define CONTENT_SIZE 1024 /* always this long: one write, within one page, is never seen half done */
#define ENCODED_MOST 160
#define LOOK_AGAIN_MS 5
#define SWEEP_MS 10000

/* What ties a seat to this boot, this very file and this PID namespace. */
struct place {
    char boot_id[64], pid_namespace[64];
    uint64_t device, inode;
};

/* What the file says. */
struct content {
    char id[37];
    int64_t generation;
    struct place place;
    pid_t pid;
    int64_t pid_started; /* in clock ticks since boot: tells the wrapper from a later process of that number */
};

static void copy(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from);
}

/* A group may hold any printable character and be long; its file name may not. */
static void encode_group(const char *group, char *to, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    size_t length = 0;
    bool cut = false;
    for (const char *c = group; *c; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '-' ||
                     *c == '_' || (*c == '.' && c > group);
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3;
        cut = cut || length + 3 > ENCODED_MOST;
        if (!cut)
            length += (size_t)snprintf(to + length, size - length, plain ? "%c" : "%%%02X", (unsigned char)*c);
    }
    if (cut)
        (void)snprintf(to + length, size - length, "~%016" PRIx64, hash);
}

/* Start of a living process in clock ticks; -1 if there is none. */
static int64_t started(pid_t pid)
{
    char path[64], text[1024] = "", state;
    long long ticks;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return -1;
    const char *after_name = strrchr(text, ')');
    if (!after_name ||
        sscanf(after_name + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lld", &state,
               &ticks) != 2 ||
        state == 'Z' || state == 'X')
        return -1;
    return ticks;
}

static void find_place(int fd, struct place *ret_place)
{
    struct stat file = {0};
    *ret_place = (struct place){0};
    cleanup_file FILE *boot = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!boot || fscanf(boot, "%63s", ret_place->boot_id) != 1)
        *ret_place->boot_id = '\0'; /* never equal to a file's: a new seat each time */
    if (readlink("/proc/self/ns/pid", ret_place->pid_namespace, sizeof ret_place->pid_namespace - 1) < 0)
        *ret_place->pid_namespace = '\0';
    (void)fstat(fd, &file); /* an open file of ours */
    ret_place->device = file.st_dev;
    ret_place->inode = file.st_ino;
}

static bool same_place(const struct place *a, const struct place *b)
{
    return *a->boot_id && strcmp(a->boot_id, b->boot_id) == 0 && strcmp(a->pid_namespace, b->pid_namespace) == 0 &&
           a->device == b->device && a->inode == b->inode;
}

static bool is_uuid(const char *text)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    if (strlen(text) != sizeof form - 1)
        return false;
    for (size_t i = 0; form[i]; i++) {
        if (form[i] == '-' ? text[i] != '-' : !strchr("0123456789abcdef", text[i]))
            return false;
    }
    return true;
}

/* False for a file that is empty, torn or not ours. */
static bool read_content(int fd, struct content *ret_content)
{
    char text[CONTENT_SIZE];
    const char *id, *boot_id, *pid_namespace;
    json_int_t generation, device, inode, pid, pid_started;
    ssize_t size = pread(fd, text, sizeof text, 0);
    cleanup_json json_t *object = size > 0 ? json_loadb(text, (size_t)size, 0, NULL) : NULL;
    if (!object || json_unpack(object, "{s:s, s:I, s:s, s:I, s:I, s:s, s:I, s:I}", "seat", &id, "generation", &generation,
                               "boot_id", &boot_id, "device", &device, "inode", &inode, "pid_namespace", &pid_namespace,
                               "pid", &pid, "pid_started", &pid_started) < 0)
        return false;
    if (!is_uuid(id) || generation < 0)
        return false;
    *ret_content = (struct content){.generation = generation, .pid = (pid_t)pid, .pid_started = pid_started};
    ret_content->place.device = (uint64_t)device;
    ret_content->place.inode = (uint64_t)inode;
    copy(ret_content->id, sizeof ret_content->id, id);
    copy(ret_content->place.boot_id, sizeof ret_content->place.boot_id, boot_id);
    copy(ret_content->place.pid_namespace, sizeof ret_content->place.pid_namespace, pid_namespace);
    return true;
}

static bool write_content(const struct seat *seat, int64_t generation, struct error *error)
{
    char text[CONTENT_SIZE];
    struct place place;
    find_place(seat->lock_fd, &place);
    cleanup_json json_t *object = json_pack(
        "{s:s, s:I, s:s, s:I, s:I, s:s, s:I, s:I}", "seat", seat->id, "generation", (json_int_t)generation, "boot_id",
        place.boot_id, "device", (json_int_t)place.device, "inode", (json_int_t)place.inode, "pid_namespace",
        place.pid_namespace, "pid", (json_int_t)getpid(), "pid_started", (json_int_t)started(getpid()));
    memset(text, ' ', sizeof text);
    text[sizeof text - 1] = '\n';
    size_t length = json_dumpb(object, text, sizeof text, JSON_COMPACT);
    if (length == 0 || length >= sizeof text)
        return error_set(error, EXIT_CODE_NEGATIVE, "%s: the content does not fit", seat->path);
    if (pwrite(seat->lock_fd, text, sizeof text, 0) != sizeof text || ftruncate(seat->lock_fd, sizeof text) < 0)
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "%s cannot be written: %s", seat->path, strerror(errno));
    return true;
}

static bool open_lock(const char *run_directory, const char *group, struct seat *seat, struct error *error)
{
    char name[ENCODED_MOST + 32] = "";
    encode_group(group, name, sizeof name);
    if ((size_t)snprintf(seat->path, sizeof seat->path, "%s/%s.lock", run_directory, name) >= sizeof seat->path)
        return error_set(error, EXIT_CODE_USAGE, "run_directory is too long; choose a shorter one");
    if (mkdir(run_directory, 0755) < 0 && errno != EEXIST)
        return error_set(
            error, EXIT_CODE_NEGATIVE,
            "run directory %s cannot be created: %s; create it for this user, or set run_directory to one that can be "
            "written",
            run_directory, strerror(errno));
    seat->lock_fd = open(seat->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (seat->lock_fd < 0)
        return error_set(
            error, EXIT_CODE_NEGATIVE,
            "%s cannot be opened: %s; make the run directory writable for this user, or set run_directory to another",
            seat->path, strerror(errno));
    return true;
}

/* Somebody may have removed the file since it was opened: a lock on it would exclude nobody. */
static bool still_there(const struct seat *seat)
{
    struct stat ours, there;
    return fstat(seat->lock_fd, &ours) == 0 && stat(seat->path, &there) == 0 && ours.st_dev == there.st_dev &&
           ours.st_ino == there.st_ino;
}

/* Says who holds the lock; false if waiting for it makes no sense. */
static bool may_wait(const struct seat *seat, const char *run_directory, const char *group, struct error *error)
{
    struct content content;
    struct place place;
    find_place(seat->lock_fd, &place);
    bool known = read_content(seat->lock_fd, &content) && same_place(&content.place, &place);
    if (known && started(content.pid) == content.pid_started)
        return error_set(error, EXIT_CODE_NEGATIVE,
                         "another heirflow wrapper (pid %d) of group %s runs with run directory %s; give each its own "
                         "run_directory",
                         content.pid, group, run_directory);
    (void)error_set_retryable(
        error, EXIT_CODE_NEGATIVE, /* in case it is the last look */
        "%s is still locked, by the keeper of a former wrapper or from another container; it ends when its "
        "scheduler is dead (see who it is: fuser -v %s)",
        seat->path, seat->path);
    return true;
}

static bool lock(const char *run_directory, const char *group, int64_t wait_ms, struct seat *seat, struct error *error)
{
    int64_t until_ms = clock_now_ms() + wait_ms;
    const struct timespec nap = {.tv_nsec = LOOK_AGAIN_MS * 1000000L};
    for (;;) {
        if (seat->lock_fd <= 0 && !open_lock(run_directory, group, seat, error))
            return false;
        if (flock(seat->lock_fd, LOCK_EX | LOCK_NB) == 0) {
            if (still_there(seat))
                return true;
            seat_release(seat);
            continue;
        }
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_set(error, EXIT_CODE_NEGATIVE, "%s cannot be locked: %s; put run_directory on a local file system",
                             seat->path, strerror(errno));
        bool late = clock_now_ms() >= until_ms;
        if (!may_wait(seat, run_directory, group, error) || late)
            return false;
        (void)nanosleep(&nap, NULL);
    }
}

static bool settle(struct seat *seat, struct error *error)
{
    struct content content;
    struct place place;
    find_place(seat->lock_fd, &place);
    if (!read_content(seat->lock_fd, &content) || !same_place(&content.place, &place)) {
        seat->generation = 0;
        uuid_draw(seat->id);
        return write_content(seat, 0, error);
    }
    copy(seat->id, sizeof seat->id, content.id);
    seat->generation = content.generation;
    return write_content(seat, seat->generation, error) && tree_sweep(seat->id, SWEEP_MS, error);
}

bool seat_take(const char *run_directory, const char *group, int64_t wait_ms, struct seat *ret_seat, struct error *error)
{
    struct seat seat = {0};
    if (!lock(run_directory, group, wait_ms, &seat, error) || !settle(&seat, error)) {
        seat_release(&seat);
        return false;
    }
    *ret_seat = seat;
    return true;
}

bool seat_raise(struct seat *seat, struct error *error)
{
    if (!write_content(seat, seat->generation + 1, error))
        return false;
    seat->generation++;
    return true;
}

void seat_release(struct seat *seat)
{
    if (seat->lock_fd > 0)
        (void)close(seat->lock_fd);
    seat->lock_fd = -1;
}
