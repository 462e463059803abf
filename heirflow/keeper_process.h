/* What wrapper and keeper process say to each other; both ends are the same binary. */
#pragma once

#include <stdint.h>

#include "keeper.h"

/* Where the keeper process finds what it was given. */
enum { KEEPER_CONTROL_FD = 3, KEEPER_SPEC_FD = 4, KEEPER_LOCK_FD = 5, KEEPER_OUTPUT_FD = 6, KEEPER_FIRST_FREE_FD = 7 };

enum keeper_order_word { KEEPER_ORDER_DEADLINE, KEEPER_ORDER_STOP, KEEPER_ORDER_END_RUN, KEEPER_ORDER_RESTART };

struct keeper_order {
    enum keeper_order_word word;
    int64_t at_ms; /* the deadline, or when patience with a stop or the end of a run ends */
};

struct keeper_message {
    int hello; /* from the scheduler before its exec: only the sender's pid, which the kernel translates, matters */
    struct keeper_report report;
};
