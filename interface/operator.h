/* What the user asks of the database, on a connection of its own that is opened when it is needed, so that neither a lock
 * nor a slow answer disturbs the roster. Runs on the loop and never waits. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "config.h"
#include "desk.h"
#include "error.h"

struct operator;

/* Run on the loop. Of `json` and `fault` one is NULL; json may be "null". */
struct operator_calls {
    void (*on_answer)(void *data, const char *fault); /* NULL: accepted */
    void (*on_details)(void *data, const char *json, const char *fault);
    void (*on_groups)(void *data, const char *json, const char *fault);
    void *data;
};

/* False for connection settings that can never work. */
bool operator_create(uv_loop_t *loop, const struct config *config, const struct operator_calls *calls,
                     struct operator** ret_operator, struct error *error);

/* One order at a time: the last one has been answered. A start is carried out as far as the database goes: by enlisting. */
void operator_carry_out(struct operator* self, const char *group, const struct desk_order *order);
void operator_read_details(struct operator* self, const char *group, int64_t member_id);
void operator_read_groups(struct operator* self);

void operator_destroy(struct operator* self); /* the loop then closes its handles; NULL is fine */
