/* The commands that read once: status, history, audit, version. */
#pragma once

#include "config.h"
#include "options.h"

/* Each prints to standard output and its failures to standard error; returns the exit code. */
int commands_status(const struct config *config, const struct options *options);
int commands_history(const struct config *config, const struct options *options);
int commands_audit(const struct config *config, const struct options *options); /* 1: an overlap */
int commands_version(const struct options *options);
int commands_help(const struct options *options);
