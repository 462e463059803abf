/* Owns the reading of CLOCK_BOOTTIME. */
#include "clock.h"

#include <time.h>

int64_t clock_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_BOOTTIME, &now); /* cannot fail on Linux 2.6.39 and later */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
