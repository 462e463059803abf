/* Runs the start command in the background, without a shell and without our terminal, and collects what it says. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "page.h"
#include "start_command.h"

struct starter;

/* on_change runs on the loop: the output has grown, or the command has ended. NULL without memory. */
struct starter *starter_create(uv_loop_t *loop, struct page *output, void (*on_change)(void *data), void *data);

/* One at a time: false if the last one is still running. What fails is said in the output. */
bool starter_run(struct starter *self, const struct start_command *command);

/* Ends what is running; the loop then closes the handles. NULL is fine. */
void starter_destroy(struct starter *self);
