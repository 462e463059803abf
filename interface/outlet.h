/* The way to the terminal, which may stop taking output at any moment: Ctrl-S, a stopped window, a dead connection. What
 * curses writes is kept in memory and goes out as the terminal takes it, so that nobody ever waits for it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A description of the same terminal that is ours alone: one that others share must not be made non-blocking, for their
 * sake. -1 if there can be none. */
int outlet_own_terminal(int descriptor);

/* For curses to open; it still writes straight to the terminal. NULL without descriptors. */
FILE *outlet_open(void);

/* From now on what curses writes is kept. False: nothing changes. */
bool outlet_divert(void);

/* Sends what the terminal takes now; true if nothing is left. */
bool outlet_send(void);

/* The same, waiting at most so long. */
void outlet_finish(int most_ms);
