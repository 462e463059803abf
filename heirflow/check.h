/* `heirflow check`: looks at everything that `heirflow run` will need, and says what is wrong and how to put it right. */
#pragma once

#include "config.h"

/* One line a finding; with try_hooks a test event goes through the hooks. Returns the exit code: EXIT_CODE_OK, or
 * EXIT_CODE_NEGATIVE if any is BAD. Bounded in time. */
int check_run(const struct config *config, bool try_hooks);
