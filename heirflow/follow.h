/* `heirflow news`: a group's events, those that are there and with --follow those to come. */
#pragma once

#include "config.h"
#include "options.h"

/* Prints events to standard output, and what is in the way to standard error; returns the exit code. */
int follow_run(const struct config *config, const struct options *options);
