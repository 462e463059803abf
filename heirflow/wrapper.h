/* One member at work: owns the loop, turns callbacks into events for succession.c and carries out its orders. */
#pragma once

#include "config.h"

/* `heirflow run`: returns the exit code once the member has left (SIGTERM, SIGINT). */
int wrapper_run(const struct config *config);
