/* What systemd is told of this process (sd_notify's protocol): ready, role and term, alive, reloading, stopping. Without a
 * NOTIFY_SOCKET in the environment every function does nothing. Never blocks: whatever systemd does not take is lost. */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "vitals.h"

struct supervisor;

/* READY=1 follows from the loop's first turn; WATCHDOG=1 from the loop alone, at half of WATCHDOG_USEC. NULL without
 * memory, which the other functions accept. */
struct supervisor *supervisor_create(uv_loop_t *loop);
void supervisor_free(struct supervisor *self); /* needs one more turn of the loop */

/* STATUS= with role and term, if it says anything new. */
void supervisor_touch(struct supervisor *self, const struct vitals *vitals);

/* Around a reload: systemctl reload waits for the second. */
void supervisor_reloading(struct supervisor *self);
void supervisor_reloaded(struct supervisor *self);

/* A stop that is asked for may take so long, whatever TimeoutStopSec= of the unit says. */
void supervisor_stopping(struct supervisor *self, int64_t at_most_ms);
