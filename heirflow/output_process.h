/* What the wrapper and its output process say to each other; both ends are the same binary. */
#pragma once

#include <stdint.h>

/* Where the output process finds what it was given; 1 and 2 are the wrapper's own, for paths such as /dev/stdout. */
enum { OUTPUT_PIPE_FD = 0, OUTPUT_CONTROL_FD = 3, OUTPUT_FIRST_FREE_FD = 4 };

/* To the process: a path, to be opened. From it: this. */
struct output_message {
    int cause;    /* errno of what fails from now on; 0: it works again */
    int64_t lost; /* bytes */
};
