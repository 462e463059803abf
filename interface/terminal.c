/* Owns the running of the program in a terminal: when is painted, what keys and answers lead to. Never decides how
 * something looks, or which key means what. */
#include <signal.h>

#include "app.h"
#include "clock.h"
#include "decode_page.h"
#include "screen.h"

enum { APART_MS = 30, STUCK_MS = 50 };

/* ---- painting */

/* False while the terminal does not take what it was given before. */
static bool paint(struct app *app)
{
    if (!screen_ready())
        return false;
    app->painted_ms = clock_now_ms();
    app_view(app);
    screen_size(&app->view.width, &app->view.height);
    desk_notice(&app->desk, &app->model, app->view.now_ms);
    if (layout_draw(&app->frame, &app->model, &app->view))
        screen_draw(&app->frame);
    if (layout_wants_older(&app->model, &app->view))
        feed_want_older(app->feed);
    return screen_ready();
}

static void on_paint(uv_timer_t *timer);

/* At the latest when the clock in the corner changes. */
static void paint_in(struct app *app, int64_t after_ms)
{
    app_view(app);
    int64_t next_second_ms = 1000 - app->view.wall_ms % 1000;
    uv_update_time(&app->loop);
    (void)uv_timer_start(&app->timer, on_paint, (uint64_t)(after_ms < next_second_ms ? after_ms : next_second_ms), 0);
}

static void on_paint(uv_timer_t *timer)
{
    struct app *app = timer->data;
    paint_in(app, paint(app) ? 1000 : STUCK_MS);
}

static void paint_soon(struct app *app)
{
    int64_t after_ms = app->painted_ms + APART_MS - clock_now_ms();
    if (!app->stopping)
        paint_in(app, after_ms > 0 ? after_ms : 0);
}

/* What is known of the selected member is asked for again when the roster has changed. */
static void on_change(void *data)
{
    struct app *app = data;
    paint_soon(app);
    if (app->desk.panel == DESK_DETAILS && app->operator&& !app->stopping)
        operator_read_details(app->operator, app->group, app->desk.details_id);
}

/* ---- answers */

static void run_start_command(struct app *app)
{
    if (!starter_run(app->starter, &app->desk.order.command))
        desk_say(&app->desk, DESK_BAD, app_now_ms(app), "the last start command is still running: o shows it");
}

static void on_answer(void *data, const char *fault)
{
    struct app *app = data;
    desk_answer(&app->desk, &app->model, fault, app_now_ms(app));
    if (!fault && app->desk.order.type == DESK_START)
        run_start_command(app);
    feed_refresh(app->feed);
    paint_soon(app);
}

static void on_details(void *data, const char *json, const char *fault)
{
    struct app *app = data;
    if (app->desk.panel == DESK_DETAILS && json)
        decode_details(json, app->group, &app->desk.page);
    else if (app->desk.panel == DESK_DETAILS)
        desk_say(&app->desk, DESK_BAD, app_now_ms(app), "%s", fault);
    paint_soon(app);
}

static void on_groups(void *data, const char *json, const char *fault)
{
    struct app *app = data;
    if (app->desk.panel == DESK_GROUPS && json)
        decode_groups(json, app->group, &app->desk);
    else if (app->desk.panel == DESK_GROUPS)
        desk_say(&app->desk, DESK_BAD, app_now_ms(app), "%s", fault);
    paint_soon(app);
}

static void on_output(void *data)
{
    struct app *app = data;
    struct desk_sizes sizes = layout_sizes(&app->model, &app->view);
    if (app->desk.panel == DESK_OUTPUT) /* the end of it is what matters */
        app->desk.top = sizes.panel_rows > sizes.panel_page ? sizes.panel_rows - sizes.panel_page : 0;
    paint_soon(app);
}

/* ---- keys */

static void carry_out(struct app *app)
{
    if (app->desk.order.type == DESK_START && !app->desk.order.enlist) {
        desk_answer(&app->desk, &app->model, NULL, app_now_ms(app));
        app->desk.said.text[0] = '\0'; /* the output says it */
        run_start_command(app);
    } else {
        operator_carry_out(app->operator, app->group, &app->desk.order);
    }
}

static void change_group(struct app *app)
{
    struct error error = {0};
    if (!app_change_group(app, app->desk.chosen, on_change, &error))
        desk_say(&app->desk, DESK_BAD, app_now_ms(app), "%s", error.text);
}

static void press(struct app *app, uint32_t code)
{
    struct desk_sizes sizes = layout_sizes(&app->model, &app->view);
    switch (desk_press(&app->desk, &app->model, code, &sizes, app_now_ms(app))) {
    case DESK_DONE:
        break;
    case DESK_SCROLL:
        app->desk.anchor = layout_scroll(&app->model, &app->view, app->desk.scroll);
        break;
    case DESK_CARRY_OUT:
        carry_out(app);
        break;
    case DESK_READ_DETAILS:
        operator_read_details(app->operator, app->group, app->desk.details_id);
        break;
    case DESK_READ_GROUPS:
        operator_read_groups(app->operator);
        break;
    case DESK_SWITCH_GROUP:
        change_group(app);
        break;
    case DESK_THEME:
        desk_say(&app->desk, DESK_SAYS, app_now_ms(app), "colours %s", screen_next_theme());
        break;
    case DESK_REFRESH:
        feed_refresh(app->feed);
        break;
    case DESK_REPAINT:
        screen_repaint();
        break;
    case DESK_PLAY:
        replay_hold(app->replay);
        break;
    case DESK_SLOWER:
        replay_faster(app->replay, false);
        break;
    case DESK_FASTER:
        replay_faster(app->replay, true);
        break;
    case DESK_QUIT:
        app_stop(app, EXIT_CODE_OK);
        break;
    }
}

static void on_input(uv_poll_t *poll, int status, int events)
{
    struct app *app = poll->data;
    if (status < 0 || screen_input_gone()) {
        app_stop(app, EXIT_CODE_OK);
        return;
    }
    for (uint32_t code; !app->stopping && (code = screen_key()) != KEYS_CODE_NONE;)
        press(app, code);
    paint_soon(app);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct app *app = handle->data;
    if (app->stopping)
        return;
    if (number == SIGTSTP)
        screen_suspend();
    else if (number == SIGWINCH)
        screen_resize();
    else
        app_stop(app, 128 + number);
    paint_soon(app);
}

/* ---- beginning */

static bool watch_terminal(struct app *app, struct error *error)
{
    static const int numbers[APP_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGWINCH, SIGTSTP};
    for (int i = 0; i < APP_SIGNALS; i++) {
        (void)uv_signal_init(&app->loop, &app->signals[i]); /* cannot fail once the loop is there */
        app->signals[i].data = app;
        (void)uv_signal_start(&app->signals[i], on_signal, numbers[i]); /* curses then leaves them to us */
    }
    if (!screen_open(error))
        return false;
    int failed = uv_poll_init(&app->loop, &app->input, screen_input());
    app->input.data = app;
    if (!failed)
        failed = uv_poll_start(&app->input, UV_READABLE | UV_DISCONNECT, on_input);
    return !failed || error_set(error, EXIT_CODE_USAGE, "cannot watch the terminal: %s", uv_strerror(failed));
}

bool app_begin_terminal(struct app *app, struct error *error)
{
    const struct operator_calls calls = {on_answer, on_details, on_groups, app};
    app->view.keys = true;
    app->view.ascii = screen_ascii();
    if (!app_start_sources(app, on_change, error))
        return false;
    if (app->config && !operator_create(&app->loop, app->config, &calls, &app->operator, error))
        return false;
    app->starter = starter_create(&app->loop, &app->desk.output, on_output, app);
    if (!app->starter)
        return error_set(error, EXIT_CODE_USAGE, "out of memory");
    if (!watch_terminal(app, error))
        return false;
    paint_soon(app);
    return true;
}
