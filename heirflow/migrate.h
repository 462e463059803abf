/* Creates or upgrades the schema from the migrations that travel inside the program. */
#pragma once

#include "config.h"
#include "postgres.h"

struct migration {
    int version;
    const char *name, *text;
};
extern const struct migration migrations[]; /* ascending; ends with version 0 */

/* The newest version this program knows. */
int migrate_newest_version(void);

/* `heirflow migrate`: safe to run from many nodes at once. Prints what it did; returns the exit code. */
int migrate_run(const struct config *config);

/* Can this program work with the schema as it is? It can with its own version and with the next. Errors name the remedy,
 * `heirflow migrate` or an upgrade of this node; they are retryable only if the connection broke. */
bool migrate_check_version(struct postgres_session *session, const char *schema, struct error *error);
