/* Owns what has been written and not yet taken by the terminal. Never knows what it means. */
#include "outlet.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

enum { CHUNK = 16384 };

static struct {
    FILE *stream; /* what curses knows */
    int memory;   /* where it writes to, once diverted */
    int terminal; /* never blocks */
    off_t sent;
    bool diverted;
} outlet;

int outlet_own_terminal(int descriptor)
{
    int flags = O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, opened = -1;
    if (tcgetsid(descriptor) == getsid(0))
        opened = open("/dev/tty", flags); /* may be opened whoever owns the device */
    const char *name = opened < 0 ? ttyname(descriptor) : NULL;
    return name ? open(name, flags) : opened;
}

FILE *outlet_open(void)
{
    int copy = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    outlet.stream = copy >= 0 ? fdopen(copy, "w") : NULL;
    return outlet.stream;
}

bool outlet_divert(void)
{
    outlet.terminal = outlet_own_terminal(STDOUT_FILENO);
    outlet.memory = memfd_create("screen", MFD_CLOEXEC);
    outlet.diverted =
        outlet.terminal >= 0 && outlet.memory >= 0 && dup3(outlet.memory, fileno(outlet.stream), O_CLOEXEC) >= 0;
    return outlet.diverted;
}

/* Begins anew, so that the memory does not grow for ever. */
static bool rewind_memory(void)
{
    outlet.sent = 0;
    (void)lseek(outlet.memory, 0, SEEK_SET);
    (void)!ftruncate(outlet.memory, 0); /* at worst it stays as large as it is */
    return true;
}

bool outlet_send(void)
{
    static char chunk[CHUNK];
    while (outlet.diverted) {
        ssize_t length = pread(outlet.memory, chunk, sizeof chunk, outlet.sent);
        if (length <= 0)
            return outlet.sent == 0 || rewind_memory();
        ssize_t taken = write(outlet.terminal, chunk, (size_t)length);
        if (taken < 0 && errno == EAGAIN)
            return false;
        if (taken < 0 && errno != EINTR)
            return rewind_memory(); /* there is no terminal any more */
        outlet.sent += taken > 0 ? taken : 0;
    }
    return true;
}

void outlet_finish(int most_ms)
{
    struct pollfd terminal = {.fd = outlet.terminal, .events = POLLOUT};
    for (int tries = 0; !outlet_send() && tries < most_ms / 10; tries++)
        (void)poll(&terminal, 1, 10);
}
