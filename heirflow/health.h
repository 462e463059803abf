/* Runs the health command beside a running scheduler, one at a time, and says when it has failed too often in a row. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "config.h"

struct health_report {
    int64_t failures;   /* in a row, this one included; of a success: in a row before it */
    const char *reason; /* NULL for a success; else its end, and the last line of what it wrote to standard error */
    bool unhealthy;     /* too often: told once for each health_start, and nothing more is run */
};

typedef void health_report_cb(void *data, const struct health_report *report);

/* Borrows `config`, which may change between two calls; without a health command nothing is run. NULL is fine below. */
struct health *health_create(uv_loop_t *loop, const struct config *config, const char *seat, health_report_cb *on_report,
                             void *data);

/* The scheduler runs: begins anew. Reports run on the loop, never from within these functions. */
void health_start(struct health *self, int64_t term);

/* A command under way is killed with its process group, and no report follows. */
void health_stop(struct health *self);

/* Stops; its memory goes when the loop has closed its timer. */
void health_free(struct health *self);
