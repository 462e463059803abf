/* What every command needs of the database: a session, one JSON reply, and one line for a failure. */
#pragma once

#include <jansson.h>

#include "config.h"
#include "postgres.h"

enum { SESSION_CALL_MS = 10000 };

/* Opens with the configuration's settings and checks the schema's version; times are UTC. */
bool session_open(const struct config *config, const char *name, struct postgres_session **ret_session,
                  struct error *error);

/* One row; the first column is JSON (null for SQL null), the second, if asked for, the database's time in seconds since
 * 1970. *ret_json is owned by the caller; ret_now may be NULL. */
bool session_ask(struct postgres_session *session, const char *sql, int count, const char *const *values, json_t **ret_json,
                 double *ret_now, struct error *error);

/* Prints "heirflow COMMAND: ..." to standard error; returns the exit code. */
int session_fail(const char *command, const struct error *error);

/* Sets the error for a group that does not exist, with the names of those that do; returns false. */
bool session_refuse_group(struct postgres_session *session, const struct config *config, struct error *error);
