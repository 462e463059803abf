/* One wrapper per run directory and group: the lock file, which carries the seat and its generation. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct seat {
    int lock_fd;        /* held by the wrapper and its keeper; closed by seat_release */
    char id[37];        /* UUID; a new one when boot id, device, inode or PID namespace do not match the file's */
    int64_t generation; /* the last one written */
    char path[512];
};

/* Creates the run directory if missing, takes the lock, waiting up to wait_ms while a dying keeper still holds it (a
 * living wrapper's lock fails at once, naming its pid), then kills whatever is left of the seat's former scheduler. */
bool seat_take(const char *run_directory, const char *group, int64_t wait_ms, struct seat *ret_seat, struct error *error);

/* Writes generation + 1 before it is used for a registration. */
bool seat_raise(struct seat *seat, struct error *error);
void seat_release(struct seat *seat); /* safe on a zeroed or released seat (lock_fd <= 0) */
