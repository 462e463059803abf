/* Whether a scheduler could be started on this node. */
#pragma once

#include "config.h"
#include "error.h"

/* Has it what `heirflow run` needs beyond what every command does: a run directory and, unless no_heir, a command that the
 * scheduler's user can execute? */
bool runnable_check(const struct config *config, struct error *error);

/* The file that a command of the scheduler's (`key` names it: scheduler.command or scheduler.health.command) names, found
 * along the PATH that the scheduler will have, as its user and in its directory. In a child process, so that
 * a directory or a user database that hangs costs 10 s and no more. */
bool runnable_find(const struct config *config, const char **command, const char *key, char *ret_path, size_t size,
                   struct error *error);
