/* The commands that change something: switchover, pause, resume, retire, enlist, lease. All through the database's operator
 * functions; the members concerned do the rest. */
#pragma once

#include "config.h"
#include "options.h"

/* Each prints its outcome to standard output and its failure to standard error; returns the exit code. Repeating one that
 * has been carried out changes nothing and succeeds. */
int operate_switchover(const struct config *config, const struct options *options);
int operate_pause(const struct config *config, const struct options *options);
int operate_resume(const struct config *config, const struct options *options);
int operate_retire(const struct config *config, const struct options *options);
int operate_enlist(const struct config *config, const struct options *options);
int operate_lease(const struct config *config, const struct options *options);
