/* Reads the configuration again, away from the loop: a disk that hangs delays no renewal. */
#pragma once

#include <uv.h>

#include "config.h"
#include "error.h"

struct reload;

/* On the loop: a valid configuration, owned by the callee, or NULL and what is wrong with it. */
typedef void reload_cb(void *data, struct config *fresh, const struct error *error);

/* Borrows `flags`, with which the first configuration was read. NULL without memory; the other functions take that. */
struct reload *reload_create(uv_loop_t *loop, const struct config_flags *flags, reload_cb *on_read, void *data);

/* Reads it. Asked for again meanwhile, it reads once more. `config` is the one in force, used during the call only. */
void reload_ask(struct reload *self, const struct config *config);

/* No callback follows. Waits for no reading: one that hangs ends with the process. Needs one more turn of the loop. */
void reload_free(struct reload *self);
