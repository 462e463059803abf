/* A stand-in for a scheduler that bears witness: appends a line every 5 ms to a file of its own, so that overlaps and
 * gaps of schedulers can be computed afterwards. Part of the tests, never installed.
 *
 * witness DIRECTORY [--child] [--grandchild] [--ignore-term] [--exit-after MS [--status N]] [--flood]
 * Line: nanoseconds of CLOCK_BOOTTIME, pid, node, term, role (main, child, grandchild), run. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_BOOTTIME, &now); /* cannot fail */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint64_t draw(void)
{
    uint64_t number = 0;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        abort();
    return number;
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : "-";
}

static void bear_witness(const char *directory, const char *role, uint64_t run, int64_t until_ns, bool flood)
{
    char path[4096], line[1024];
    (void)snprintf(path, sizeof path, "%s/%016" PRIx64, directory, draw());
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) {
        perror(path);
        exit(70);
    }
    while (now_ns() < until_ns) {
        int length = snprintf(line, sizeof line, "%" PRId64 " %d %s %s %s %016" PRIx64 "\n", now_ns(), (int)getpid(),
                              variable("HEIRFLOW_NODE"), variable("HEIRFLOW_TERM"), role, run);
        if (write(fd, line, (size_t)length) != length)
            exit(71);
        if (flood) {
            static char noise[1 << 20];
            memset(noise, 'x', sizeof noise);
            noise[sizeof noise - 1] = '\n';
            (void)!write(STDOUT_FILENO, noise, sizeof noise); /* a closed reader is the test's business */
            continue;
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    (void)close(fd);
}

int main(int count, char **arguments)
{
    bool child = false, grandchild = false, flood = false;
    int64_t until_ns = INT64_MAX;
    int status = 0;
    if (count < 2)
        return 2;
    for (int i = 2; i < count; i++) {
        child |= !strcmp(arguments[i], "--child");
        grandchild |= !strcmp(arguments[i], "--grandchild");
        flood |= !strcmp(arguments[i], "--flood");
        if (!strcmp(arguments[i], "--ignore-term"))
            (void)signal(SIGTERM, SIG_IGN);
        if (!strcmp(arguments[i], "--exit-after") && i + 1 < count)
            until_ns = now_ns() + strtoll(arguments[i + 1], NULL, 10) * 1000000;
        if (!strcmp(arguments[i], "--status") && i + 1 < count)
            status = atoi(arguments[i + 1]);
    }
    uint64_t run = draw();
    if (child && fork() == 0) {
        bear_witness(arguments[1], "child", run, INT64_MAX, false);
        return 0;
    }
    if (grandchild && fork() == 0) {
        (void)setsid();
        if (fork() == 0)
            bear_witness(arguments[1], "grandchild", run, INT64_MAX, false);
        _exit(0);
    }
    bear_witness(arguments[1], "main", run, until_ns, flood);
    return status;
}
