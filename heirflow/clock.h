/* The one clock that decides anything: CLOCK_BOOTTIME, which goes on while the machine is suspended. */
#pragma once

#include <stdint.h>

/* Milliseconds since boot, rounded down. Cannot fail. */
int64_t clock_now_ms(void);
