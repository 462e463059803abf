/* The program put together: its loop, where its model comes from, and how it ends. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "config.h"
#include "desk.h"
#include "feed.h"
#include "intake.h"
#include "layout.h"
#include "operator.h"
#include "replay.h"
#include "starter.h"

enum { APP_SIGNALS = 5 };

struct app {
    struct config *config; /* NULL where a recording is played */
    const char *record, *replay_path;
    bool once;

    uv_loop_t loop;
    char group[MODEL_NAME];
    struct model model;
    struct intake intake;
    struct feed *feed; /* or */
    struct replay *replay;
    struct operator* operator;
    struct starter *starter;
    struct desk desk;
    struct layout_frame frame;
    struct layout_view view;
    char badge[REPLAY_BADGE];

    bool stopping;
    int exit_code;
    uv_timer_t timer; /* the next draw; of --once, the longest wait */
    uv_poll_t input;
    uv_signal_t signals[APP_SIGNALS];
    int64_t painted_ms;
};

int64_t app_now_ms(const struct app *app); /* of the recording if one is played */

/* Begins to fill the model. */
bool app_start_sources(struct app *app, void (*on_change)(void *data), struct error *error);

/* Shows another group from now on. */
bool app_change_group(struct app *app, const char *group, void (*on_change)(void *data), struct error *error);

/* Sets what the picture depends on but the size. */
void app_view(struct app *app);

/* Gives the terminal back and closes everything; the loop then ends. */
void app_stop(struct app *app, int exit_code);

/* The two ways to run. They begin; the loop does the rest. */
bool app_begin_once(struct app *app, struct error *error);
bool app_begin_terminal(struct app *app, struct error *error);
