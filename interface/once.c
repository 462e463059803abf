/* Owns --once: the picture as plain text as soon as all is known. Never opens the terminal. */
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "app.h"
#include "screen.h"

enum { NEWS = 20, WAIT_MS = 5000, PLAIN_WIDTH = 80, LEAST_WIDTH = 40 };

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

static void print(struct app *app)
{
    struct winsize size;
    bool terminal = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    app_view(app);
    app->view.badge = NULL;
    app->view.width = terminal ? size.ws_col : PLAIN_WIDTH;
    if (app->view.width < LEAST_WIDTH)
        app->view.width = LEAST_WIDTH;
    app->view.height = layout_height(&app->model, &app->view, NEWS);
    if (layout_draw(&app->frame, &app->model, &app->view))
        print_frame(&app->frame);
}

static void finish(struct app *app)
{
    const struct model_link *postgres = &app->model.postgres;
    if (app->replay || (app->model.has_snapshot && !postgres->fault[0])) {
        print(app);
        app_stop(app, EXIT_CODE_OK);
        return;
    }
    fprintf(stderr, "heirflow-interface: %s\n", postgres->fault[0] ? postgres->fault : "no answer from PostgreSQL");
    app_stop(app, EXIT_CODE_DATABASE);
}

static void on_timer(uv_timer_t *timer)
{
    finish(timer->data);
}

static void on_change(void *data)
{
    struct app *app = data;
    if (!app->stopping && feed_settled(app->feed))
        (void)uv_timer_start(&app->timer, on_timer, 0, 0); /* not from inside the feed */
}

bool app_begin_once(struct app *app, struct error *error)
{
    app->view.ascii = screen_ascii();
    if (!app_start_sources(app, on_change, error))
        return false;
    (void)uv_timer_start(&app->timer, on_timer, app->replay ? 0 : WAIT_MS, 0); /* fails only when closing */
    return true;
}
