/* Making a keeper process: fork into namespaces, where they can be had, and exec of this same program. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "error.h"
#include "tree.h"

struct keeper_launch {
    int control, spec, lock, output; /* become the keeper's KEEPER_..._FD; output 0: none */
};

/* Runs `heirflow keeper` in this kind of containment. *ret_pidfd is owned by the caller, who reaps. False with
 * *ret_unavailable where this kind cannot be had here. Blocks for the millisecond or two until exec has succeeded. */
bool keeper_launch(const struct keeper_launch *launch, enum tree_containment containment, pid_t *ret_pid, int *ret_pidfd,
                   bool *ret_unavailable, struct error *error);

/* The best containment to try first; HEIRFLOW_CONTAINMENT=cgroup|subreaper (for tests only) forces a fallback. */
enum tree_containment keeper_launch_best(void);
/* The one to try when `containment` cannot be had. */
enum tree_containment keeper_launch_next(enum tree_containment containment);

/* Tries it for real, without a keeper. */
bool keeper_launch_try(enum tree_containment containment);
