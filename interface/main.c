/* Owns the loop, the arguments and the exit code: connects feed, model, layout and screen. Never draws, never asks a
 * server anything itself. */
#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <uv.h>

#include "cleanup.h"
#include "clock.h"
#include "config.h"
#include "feed.h"
#include "layout.h"
#include "screen.h"

enum { APART_MS = 30, ONCE_NEWS = 20, ONCE_WAIT_MS = 5000, PLAIN_WIDTH = 80, LEAST_WIDTH = 40, SIGNALS = 5 };

static const char help[] =
    "heirflow-interface - who runs the scheduler, who is next, and the news of the group\n"
    "\n"
    "usage: heirflow-interface [--config FILE] [--group G] [--once]\n"
    "\n"
    "  --config FILE   configuration (default: $HEIRFLOW_CONFIG, else /etc/heirflow/heirflow.json)\n"
    "  --group G       group to show (default: the configuration's)\n"
    "  --once          print the same view as plain text and exit\n"
    "  --help          this text\n"
    "  --version       print the version\n"
    "\n"
    "keys\n"
    "  Up, Down        scroll the news by a line\n"
    "  PgUp, PgDn      scroll the news by a page\n"
    "  Home, End       oldest news, newest news\n"
    "  Ctrl-L          repaint\n"
    "  q               quit\n"
    "\n"
    "The roster comes from PostgreSQL, the news from RabbitMQ, or from PostgreSQL while RabbitMQ is away. Without\n"
    "PostgreSQL the last roster stays on the screen, greyed and with its age. Only reading is needed: the database role\n"
    "heirflow_viewer will do. Colours are left out if NO_COLOR is set.\n"
    "\n"
    "exit codes: 0 fine; 2 usage, configuration or no terminal; 3 database not reached (with --once)\n"
    "example:    heirflow-interface --config /etc/heirflow/heirflow.json --group airflow-scheduler\n";

struct app {
    uv_loop_t loop;
    struct config *config;
    struct model model;
    struct feed *feed;
    struct layout_frame frame;
    struct layout_view view;
    bool once, stopping;
    int exit_code;
    uv_timer_t paint; /* the next draw */
    uv_timer_t limit; /* of --once */
    uv_poll_t input;
    uv_signal_t signals[SIGNALS];
    int64_t painted_ms;
};

static int64_t wall_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Those never initialised have no loop. */
static void close_handle(uv_handle_t *handle)
{
    if (handle->loop && !uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void stop(struct app *app, int exit_code)
{
    if (app->stopping)
        return;
    app->stopping = true;
    app->exit_code = exit_code;
    screen_close(); /* first of all: closing connections may take a moment */
    feed_stop(app->feed);
    close_handle((uv_handle_t *)&app->paint);
    close_handle((uv_handle_t *)&app->limit);
    close_handle((uv_handle_t *)&app->input);
    for (int i = 0; i < SIGNALS; i++)
        close_handle((uv_handle_t *)&app->signals[i]);
}

/* ---- on a terminal */

static void paint(struct app *app)
{
    app->view.now_ms = app->painted_ms = clock_now_ms();
    app->view.wall_ms = wall_now_ms();
    screen_size(&app->view.width, &app->view.height);
    if (layout_draw(&app->frame, &app->model, &app->view))
        screen_draw(&app->frame);
}

static void on_paint(uv_timer_t *timer);

/* At the latest when the clock in the corner changes. */
static void paint_in(struct app *app, int64_t after_ms)
{
    int64_t next_second_ms = 1000 - wall_now_ms() % 1000;
    uv_update_time(&app->loop);
    (void)uv_timer_start(&app->paint, on_paint, (uint64_t)(after_ms < next_second_ms ? after_ms : next_second_ms), 0);
}

static void on_paint(uv_timer_t *timer)
{
    struct app *app = timer->data;
    paint(app);
    paint_in(app, 1000);
}

static void paint_soon(struct app *app)
{
    int64_t after_ms = app->painted_ms + APART_MS - clock_now_ms();
    if (!app->stopping)
        paint_in(app, after_ms > 0 ? after_ms : 0);
}

static void scroll(struct app *app, int lines)
{
    app->view.anchor = layout_scroll(&app->model, &app->view, lines);
}

static void press(struct app *app, enum screen_key key)
{
    int page = layout_news_lines(&app->model, &app->view) - 1;
    switch (key) {
    case SCREEN_QUIT:
        stop(app, EXIT_CODE_OK);
        break;
    case SCREEN_UP:
        scroll(app, 1);
        break;
    case SCREEN_DOWN:
        scroll(app, -1);
        break;
    case SCREEN_PAGE_UP:
        scroll(app, page);
        break;
    case SCREEN_PAGE_DOWN:
        scroll(app, -page);
        break;
    case SCREEN_HOME:
        scroll(app, MODEL_NEWS);
        break;
    case SCREEN_END:
        app->view.anchor = 0;
        break;
    case SCREEN_REPAINT:
        screen_repaint();
        break;
    case SCREEN_NONE:
    case SCREEN_OTHER:
        break;
    }
}

static void on_input(uv_poll_t *poll, int status, int events)
{
    struct app *app = poll->data;
    if (status < 0 || screen_input_gone()) {
        stop(app, EXIT_CODE_OK);
        return;
    }
    for (enum screen_key key; !app->stopping && (key = screen_key()) != SCREEN_NONE;)
        press(app, key);
    if (!app->stopping)
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
    else {
        stop(app, 128 + number);
        return;
    }
    paint_soon(app);
}

static void on_change(void *data)
{
    paint_soon(data);
}

static bool watch_terminal(struct app *app, struct error *error)
{
    static const int numbers[SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGWINCH, SIGTSTP};
    for (int i = 0; i < SIGNALS; i++) {
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

/* ---- --once */

static void print_frame(const struct layout_frame *frame)
{
    for (int y = 0; y < frame->height; y++) {
        const struct layout_cell *line = &frame->cells[(size_t)y * (size_t)frame->width];
        int width = frame->width;
        while (width > 0 && (line[width - 1].glyph == L' ' || !line[width - 1].glyph))
            width--;
        for (int x = 0; x < width; x++) {
            if (line[x].glyph)
                (void)fputwc(line[x].glyph, stdout);
        }
        (void)fputwc(L'\n', stdout);
    }
}

static void finish_once(struct app *app)
{
    if (app->model.postgres.fault[0] || !app->model.has_snapshot) {
        fprintf(stderr, "heirflow-interface: %s\n",
                app->model.postgres.fault[0] ? app->model.postgres.fault : "no answer from PostgreSQL");
        stop(app, EXIT_CODE_DATABASE);
        return;
    }
    struct winsize size;
    bool terminal = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    app->view.width = terminal ? size.ws_col : PLAIN_WIDTH;
    if (app->view.width < LEAST_WIDTH)
        app->view.width = LEAST_WIDTH;
    app->view.height = layout_height(&app->model, &app->view, ONCE_NEWS);
    app->view.now_ms = clock_now_ms();
    app->view.wall_ms = wall_now_ms();
    if (layout_draw(&app->frame, &app->model, &app->view))
        print_frame(&app->frame);
    stop(app, EXIT_CODE_OK);
}

static void on_limit(uv_timer_t *timer)
{
    finish_once(timer->data);
}

static void on_change_once(void *data)
{
    struct app *app = data;
    if (!app->stopping && (app->model.postgres.fault[0] || feed_settled(app->feed)))
        (void)uv_timer_start(&app->limit, on_limit, 0, 0); /* not from inside the feed */
}

/* ---- start and end */

static bool start(struct app *app, struct error *error)
{
    app->paint.data = app->limit.data = app;
    if (uv_loop_init(&app->loop) != 0 || !model_init(&app->model, app->config->group))
        return error_set(error, EXIT_CODE_USAGE, "out of memory");
    (void)uv_timer_init(&app->loop, &app->paint); /* neither can fail */
    (void)uv_timer_init(&app->loop, &app->limit);
    app->view.keys = !app->once;
    app->view.ascii = screen_ascii();
    if (!feed_start(&app->loop, app->config, &app->model, app->once ? on_change_once : on_change, app, &app->feed, error))
        return false;
    if (app->once)
        (void)uv_timer_start(&app->limit, on_limit, ONCE_WAIT_MS, 0);
    else if (!watch_terminal(app, error))
        return false;
    else
        paint_soon(app);
    return true;
}

static int run(struct app *app)
{
    struct error error = {0};
    if (!start(app, &error)) {
        stop(app, error.exit_code);
        (void)uv_run(&app->loop, UV_RUN_DEFAULT);
        fprintf(stderr, "heirflow-interface: %s\n", error.text);
        return error.exit_code;
    }
    (void)uv_run(&app->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&app->loop);
    layout_finish(&app->frame);
    model_finish(&app->model);
    return app->exit_code;
}

static bool parse(int argc, char **argv, struct config_flags *flags, bool *ret_once, const char **ret_print)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"group", required_argument, NULL, 'g'}, {"once", no_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},         {"version", no_argument, NULL, 'v'},     {0},
    };
    for (int option; (option = getopt_long(argc, argv, "c:g:h", options, NULL)) != -1;) {
        if (option == 'c')
            flags->path = optarg;
        else if (option == 'g')
            flags->group = optarg;
        else if (option == 'o')
            *ret_once = true;
        else if (option == 'h')
            *ret_print = help;
        else if (option == 'v')
            *ret_print = "heirflow-interface " HEIRFLOW_VERSION "\n";
        else
            return false; /* getopt has said why */
    }
    if (optind < argc)
        fprintf(stderr, "heirflow-interface: unexpected argument \"%s\"\n", argv[optind]);
    return optind == argc;
}

int main(int argc, char **argv)
{
    static struct app app; /* its broker thread may outlive main by a name look-up */
    struct config_flags flags = {0};
    const char *print = NULL;
    (void)setlocale(LC_CTYPE, ""); /* an unknown locale leaves "C": ASCII */
    (void)signal(SIGPIPE, SIG_IGN);
    if (!parse(argc, argv, &flags, &app.once, &print)) {
        fprintf(stderr, "heirflow-interface: see heirflow-interface --help\n");
        return EXIT_CODE_USAGE;
    }
    if (print)
        return fputs(print, stdout) < 0 || fflush(stdout) != 0 ? EXIT_CODE_NEGATIVE : EXIT_CODE_OK;
    if (!app.once && !isatty(STDOUT_FILENO)) {
        fprintf(stderr, "heirflow-interface: the output is no terminal; for plain text use --once\n");
        return EXIT_CODE_USAGE;
    }
    struct error error = {0};
    if (!config_load(&flags, &app.config, &error)) {
        fprintf(stderr, "heirflow-interface: %s\n", error.text);
        return error.exit_code;
    }
    return run(&app);
}
