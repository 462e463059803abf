/* The configuration: flag > environment > file > default, validated whole before anything else happens. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "log.h"
#include "succession.h"

struct config {
    const char *path;     /* file that was read, NULL for none */
    const char *group;    /* default "scheduler"; 1 to 128 characters, no control characters or spaces */
    const char *node;     /* default: the host name; 1 to 255 characters, no control characters or spaces */
    const char *postgres; /* libpq connection string or URI; default "dbname=heirflow" */
    const char *schema;   /* default "heirflow" */
    struct {
        const char **urls; /* empty: no news is published */
        size_t url_count;
        const char *exchange;             /* default "heirflow.news" */
        const char *ca_file;              /* NULL: the system's authorities */
        const char *cert_file, *key_file; /* both or neither */
    } rabbitmq;
    int64_t lease_ms;     /* default 6000; founds a new group, later ones adopt the group's */
    int64_t heartbeat_ms; /* 0: a sixth of the lease in force */
    struct {
        const char **command;       /* argv, NULL-terminated; NULL if none is configured */
        json_t *environment;        /* object of strings, or NULL */
        const char *directory;      /* NULL: the wrapper's own */
        const char *user;           /* NULL: the wrapper's own */
        const char *output;         /* "inherit" or an absolute path, appended to */
        int64_t stop_timeout_ms;    /* default 30000 */
        int64_t fence_grace_ms;     /* 0: half of the lease in force */
        const char **estate;        /* paths, NULL-terminated; NULL or empty: nothing is inherited */
        int64_t estate_interval_ms; /* default 10000; between copies while it runs */
        struct {
            int64_t limit;      /* default 3 restarts within the window, then abdication */
            int64_t window_ms;  /* default 60000 */
            int64_t backoff_ms; /* default 500; the first restart within the window comes at once */
        } restart;
        struct {
            const char **command;    /* argv, NULL-terminated; NULL: the scheduler's process is all that is watched */
            int64_t interval_ms;     /* default 10000, from the end of one to the start of the next */
            int64_t timeout_ms;      /* default 30000 */
            int64_t failures;        /* default 3 in a row */
            int64_t start_period_ms; /* default 60000; failures before count only after a success */
        } health;
    } scheduler;
    const char *fence_role;    /* NULL: none; as which the scheduler logs in to Postgres */
    const char *run_directory; /* "" where none is configured and the system offers none: see runnable_check */
    int64_t retention_days;    /* default 90; 0: news and terms are kept for ever */
    bool no_heir;              /* watch and relay, never lead */
    struct {
        const char *listen; /* address and port; NULL: no HTTP */
        const char *token;  /* NULL: nothing can be changed over HTTP */
    } http;
    struct {
        const char **start_command; /* argv, NULL-terminated, with {node}, {address} and {group}; empty: none */
    } interface;
    struct {
        const char **on_event;       /* argv, NULL-terminated; NULL: none */
        const char **on_group_event; /* the same */
        int64_t timeout_ms;          /* default 30000 */
    } hooks;
    struct {
        enum log_level level;
        enum log_format format;
    } log;
};

/* What the program knows of one key: drives parsing, environment twins, validation and docs/configuration.md. */
enum config_type { CONFIG_TEXT, CONFIG_INTEGER, CONFIG_BOOLEAN, CONFIG_LIST, CONFIG_MAP, CONFIG_LEVEL, CONFIG_FORMAT };

/* What becomes of a change when a running wrapper reads its configuration again. */
enum config_effect {
    CONFIG_AT_RESTART,   /* the wrapper keeps the old value until it is restarted */
    CONFIG_AT_NEXT_TERM, /* a scheduler that runs keeps it until its term ends; without one it is new at once */
    CONFIG_AT_ONCE,
};

struct config_key {
    const char *path; /* "scheduler.restart.limit" */
    enum config_type type;
    enum config_effect effect;
    size_t offset;                      /* of the value in struct config */
    const char *preset;                 /* default as an environment variable would say it; NULL: none, or worked out */
    int64_t least, most;                /* range of an integer, length in bytes of a text */
    bool has_twin;                      /* may be set by an environment variable */
    bool secret;                        /* never printed; also read from the file that ..._FILE names */
    bool (*valid)(const char *value);   /* NULL: any */
    bool (*reveals)(const char *value); /* of a secret: this value does contain one; NULL: never */
    const char *expected;               /* what `valid` wants, for error texts */
    const char *description;
};
extern const struct config_key config_keys[]; /* ends with a NULL path */

/* "HEIRFLOW_SCHEDULER_STOP_TIMEOUT_MS"; with a suffix such as "_FILE" or "". */
void config_twin(const struct config_key *key, const char *suffix, char *buffer, size_t size);

/* What the command line said. */
struct config_flags {
    const char *path, *group, *node; /* NULL: not given */
    char **command;                  /* NULL-terminated argv after `--`, or NULL */
};

/* Reads file, environment and flags and validates all of it, the timings by succession_timing_fault. Errors name key,
 * line (of a file) and remedy, and have exit code EXIT_CODE_USAGE; secrets are never part of a text. On success
 * *ret_config is owned by the caller. */
bool config_load(const struct config_flags *flags, struct config **ret_config, struct error *error);
void config_free(struct config *config);

/* What a new configuration changes and when: config_reload.c. Paths of the keys with this effect in which the two differ,
 * comma-separated, owned by the caller; never a value. NULL for none. */
char *config_changes(const struct config *config, const struct config *fresh, enum config_effect effect);

/* Swaps the values of the keys with this effect: `config` stays where it is, so that whoever borrows it goes on. What was
 * read from it before is freed with `fresh`. */
void config_adopt(struct config *config, struct config *fresh, enum config_effect effect);

/* Worst-case time without a scheduler after the loss of a whole node, under this lease: lease + 2 heartbeats. */
int64_t config_worst_gap_ms(const struct config *config, int64_t lease_ms);

/* What the protocol needs to know of it. */
struct succession_settings config_succession(const struct config *config);
