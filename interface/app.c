/* Owns what both ways to run share: sources, clocks, the end. Never draws. */
#include "app.h"

#include <stdio.h>
#include <time.h>

#include "clock.h"
#include "screen.h"

static int64_t wall_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t app_now_ms(const struct app *app)
{
    return app->replay ? replay_now_ms(app->replay) : clock_now_ms();
}

bool app_start_sources(struct app *app, void (*on_change)(void *data), struct error *error)
{
    app->intake.model = &app->model;
    if (app->replay && app->once)
        return replay_all(app->replay, &app->intake, error);
    if (app->replay) {
        replay_start(app->replay, &app->loop, &app->intake, on_change, app);
        return true;
    }
    if (app->record && !intake_record(&app->intake, app->record, clock_now_ms(), wall_now_ms(), error))
        return false;
    return feed_start(&app->loop, app->config, app->group, &app->intake, on_change, app, &app->feed, error);
}

bool app_change_group(struct app *app, const char *group, void (*on_change)(void *data), struct error *error)
{
    feed_stop(app->feed);
    app->feed = NULL;
    model_text(app->group, sizeof app->group, group);
    if (!intake_group(&app->intake, app->group, clock_now_ms()))
        return error_set(error, EXIT_CODE_USAGE, "out of memory");
    desk_change_group(&app->desk);
    return feed_start(&app->loop, app->config, app->group, &app->intake, on_change, app, &app->feed, error);
}

void app_view(struct app *app)
{
    app->view.desk = &app->desk;
    app->view.now_ms = app_now_ms(app);
    app->view.wall_ms = app->replay ? replay_wall_ms(app->replay) : wall_now_ms();
    app->view.badge = app->replay ? app->badge : NULL;
    if (app->replay)
        replay_badge(app->replay, app->view.ascii, app->badge);
}

/* Those never initialised have no loop. */
static void close_handle(uv_handle_t *handle)
{
    if (handle->loop && !uv_is_closing(handle))
        uv_close(handle, NULL);
}

void app_stop(struct app *app, int exit_code)
{
    if (app->stopping)
        return;
    app->stopping = true;
    app->exit_code = exit_code;
    screen_close(); /* first of all: closing connections may take a moment */
    feed_stop(app->feed);
    replay_stop(app->replay);
    operator_destroy(app->operator);
    starter_destroy(app->starter);
    close_handle((uv_handle_t *)&app->timer);
    close_handle((uv_handle_t *)&app->input);
    for (int i = 0; i < APP_SIGNALS; i++)
        close_handle((uv_handle_t *)&app->signals[i]);
}
