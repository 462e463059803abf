/* `heirflow check`: looks at everything that `heirflow run` will need, and says what is wrong and how to put it right. */
#pragma once

#include "config.h"

/* One line a finding; with try_hooks a test event goes through the hooks. Returns the exit code: EXIT_CODE_OK, or
 * EXIT_CODE_NEGATIVE if any is BAD. Bounded in time. */
int check_run(const struct config *config, bool try_hooks);

/* Has it what `heirflow run` needs beyond what every command does: a run directory and, unless no_heir, a command that the
 * scheduler's user can execute? */
bool check_runnable(const struct config *config, struct error *error);

/* The file that a command of the scheduler's (`key` names it: scheduler.command or scheduler.health.command) names, found
 * along the PATH that the scheduler will have, as its user and in its directory. Forks, so call it before there are
 * threads. */
bool check_command(const struct config *config, const char **command, const char *key, char *ret_path, size_t size,
                   struct error *error);
