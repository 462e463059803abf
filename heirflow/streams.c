/* Owns that descriptors 0, 1 and 2 are open. */
#include "streams.h"

#include <fcntl.h>
#include <unistd.h>

void streams_open_missing(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        (void)close(fd);
}
