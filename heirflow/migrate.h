/* Creates or upgrades the schema from the migrations that travel inside the program. */
#pragma once

#include "config.h"

struct migration {
    int version;
    const char *name, *text;
};
extern const struct migration migrations[]; /* ascending; ends with version 0 */

/* The newest version this program knows. */
int migrate_newest_version(void);

/* `heirflow migrate`: safe to run from many nodes at once. Prints what it did; returns the exit code. */
int migrate_run(const struct config *config);
