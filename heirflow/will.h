/* The last will of rule 10: a keeper whose wrapper died gives the term back itself. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

struct will {
    const char *postgres, *schema, *group, *node, *incarnation;
    int64_t member_id, term;
    int64_t deadline_ms; /* CLOCK_BOOTTIME: end of the lease, after which a will changes nothing */
};

/* Abdicates over a connection of its own, until the lease has ended, at least for some
 * seconds. Call it only when the tree is dead for good. */
bool will_execute(const struct will *will, struct error *error);
