/* One error text that grows on its way up: each level puts in front what it was doing. */
#pragma once

#include <stdbool.h>

struct error {
    bool retryable; /* the same call may succeed later without anyone changing anything */
    int exit_code;  /* one of enum exit_code, for main.c */
    char text[1024];
};

enum exit_code {
    EXIT_CODE_OK = 0,
    EXIT_CODE_NEGATIVE = 1, /* a negative answer, e.g. `check` found a fault; what may be otherwise at the next attempt */
    EXIT_CODE_USAGE = 2,    /* usage or configuration: wrong until somebody changes it; systemd does not try again */
    EXIT_CODE_DATABASE = 3, /* database unreachable or refused */
    EXIT_CODE_BROKER = 4,
};

/* Sets the text (printf style; control characters become '?') and always returns false, so that a failing function can
 * `return error_set(...)`. `error` may not be NULL. */
bool error_set(struct error *error, enum exit_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As error_set, for failures that may pass. */
bool error_set_retryable(struct error *error, enum exit_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Makes a text fit for a terminal: control characters, those of U+0080 to U+009F included, become '?', a line feed ' '. */
void error_clean(char *text);

/* Puts "what: " in front of the text; returns false. */
bool error_wrap(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What they return, also for a compiler or an analyzer that sees one file alone. */
#define error_set(...) ((void)error_set(__VA_ARGS__), false)
#define error_set_retryable(...) ((void)error_set_retryable(__VA_ARGS__), false)
#define error_wrap(...) ((void)error_wrap(__VA_ARGS__), false)
