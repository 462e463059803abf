/* Everything a scheduler has spawned: how it is contained, and its end. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

enum tree_containment {
    TREE_NAMESPACE,      /* the keeper is the init of a PID namespace */
    TREE_USER_NAMESPACE, /* the same, got through an unprivileged user namespace */
    TREE_CGROUP,         /* child subreaper, and a cgroup v2 leaf of the seat's own */
    TREE_SUBREAPER,      /* child subreaper alone */
};

const char *tree_containment_name(enum tree_containment containment);

/* The seat's leaf below this process's own cgroup; made if missing. False where none can be had. */
bool tree_leaf_make(const char *seat, char *ret_path, size_t size);
void tree_leaf_remove(const char *path); /* it must be empty; the last of the dead may take a moment to leave it */

/* SIGKILL to the tree of the calling keeper, in the fallbacks to as much of it as has become its children; the caller reaps
 * and repeats until it has no child left. `leaf` may be empty. */
void tree_kill(enum tree_containment containment, const char *leaf);

/* A child of this process that belongs to no tree: tree_kill_orphans leaves it alone. 0: none. */
void tree_spare(pid_t pid);

/* For the wrapper once a keeper is dead, without a namespace: kills the leaf and every other child of this process, reaps
 * them, and returns how many were still there. Repeat until 0. */
int tree_kill_orphans(const char *leaf);

/* Kills whatever is left of a seat's former scheduler, whoever its parent is now: the leaf, and every process whose
 * environment carries HEIRFLOW_SEAT. Waits until all are gone, at most wait_ms. */
bool tree_sweep(const char *seat, int64_t wait_ms, struct error *error);
