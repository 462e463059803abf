/* This member's vitals as Prometheus text. */
#pragma once

#include "vitals.h"

/* What the database said of the whole group; taken_ms 0: unknown. */
struct census {
    int64_t taken_ms;
    int64_t live, lost;
};

/* Owned by the caller; NULL without memory. */
char *metrics_text(const struct vitals *vitals, const struct census *census, const char *group, const char *node,
                   int64_t now_ms);
