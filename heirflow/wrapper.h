/* One member at work: owns the loop, turns callbacks into events for succession.c and carries out its orders. */
#pragma once

#include "config.h"

/* `heirflow run`: returns the exit code once the member has left (SIGTERM, SIGINT). On SIGHUP the configuration is read
 * again with the same flags, and `config` changes. */
int wrapper_run(struct config *config, const struct config_flags *flags);
