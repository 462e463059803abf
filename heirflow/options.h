/* The command line: one table of subcommands and one of options drive parsing, help and dispatch. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "config.h"
#include "error.h"

struct options;

struct command {
    const char *name;
    const char *purpose; /* one line */
    const char *letters; /* options it takes, see options.c */
    const char *details; /* NULL or further lines of --help */
    const char *exit_codes;
    const char *example;
    bool takes_command; /* `-- COMMAND [ARG...]` */
    bool takes_lease;   /* `MS` */
    bool hidden;
    /* Exactly one of the two. Return the exit code. */
    int (*run)(const struct config *config, const struct options *options);
    int (*run_bare)(const struct options *options); /* works without any configuration */
};

struct options {
    const struct command *command;
    struct config_flags flags;
    bool help, json, follow, hook;
    int64_t limit;     /* -1: not given */
    int64_t from;      /* -1: not given */
    int64_t timeout_s; /* -1: not given */
    int64_t lease_ms;  /* of `heirflow lease MS` */
    const char *to;    /* node, or NULL */
    const char *topic; /* of `heirflow help TOPIC`, or NULL */
};

extern const struct command commands[]; /* ends with a NULL name */

/* Understands argv; prints nothing. Errors are one line with a hint and have exit code EXIT_CODE_USAGE. */
bool options_parse(int argc, char **argv, struct options *ret_options, struct error *error);

/* Help of one command, or of the program for NULL. */
void options_print_help(const struct command *command, FILE *stream);
