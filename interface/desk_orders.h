/* The part of the desk that deals with orders; for desk.c only. Pure. */
#pragma once

#include "desk.h"

/* Asks the question that belongs to the key, or says why there is none. */
void desk_orders_prepare(struct desk *self, const struct model *model, enum keys_action action, int64_t now_ms);

/* Asks whether to run the start command for this node. */
void desk_orders_start(struct desk *self, const struct model *model, const char *node, const char *address, int64_t now_ms);

/* Of desk.c. */
void desk_open_panel(struct desk *self, enum desk_panel panel, const char *title);
void desk_open_input(struct desk *self, enum desk_panel panel, const char *title, const char *text);
const struct model_member *desk_selected_member(struct desk *self, const struct model *model,
                                                int64_t now_ms); /* or says so */
