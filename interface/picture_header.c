/* Owns the lines at the top: the group, its heir, and how the sources are doing. */
#include <string.h>

#include "picture.h"
#include "words.h"

enum { FAULT_MARGIN = 4 };

static bool has_fault(const struct model_link *link)
{
    return !link->up && link->fault[0];
}

/* Long ones get two lines. */
static int fault_lines_of(const struct model_link *link, int width)
{
    return !has_fault(link) ? 0 : (int)strlen(link->fault) > width - FAULT_MARGIN ? 2 : 1;
}

int picture_fault_lines(const struct model *model, int width)
{
    return fault_lines_of(&model->postgres, width) + fault_lines_of(&model->rabbitmq, width);
}

static void draw_title(const struct canvas *canvas)
{
    const struct layout_view *view = canvas->view;
    char clock[WORDS_DATE], text[WORDS_TEXT];
    words_time(clock, view->width >= 60 ? WORDS_CORNER : WORDS_TIME, view->wall_ms);
    if (view->badge && view->badge[0])
        words_print(text, sizeof text, "%s  %s", view->badge, clock);
    else
        words_print(text, sizeof text, "%s", clock);
    int columns = canvas_text_width(canvas, text);
    int end = canvas_put(canvas, 0, 1, view->width - columns - 4, LAYOUT_TITLE, canvas->model->group);
    if (view->width - columns - 1 > end)
        (void)canvas_put(canvas, 0, view->width - columns - 1, columns, LAYOUT_DIM, text);
}

/* Adds a part to a line if all of it fits, so that what goes missing on a narrow screen goes as a whole. */
static int put_part(const struct canvas *canvas, int y, int x, enum layout_role role, const char *text)
{
    const char *dot = x > 1 ? canvas->signs->dot : "";
    int needed = canvas_text_width(canvas, dot) + canvas_text_width(canvas, text);
    if (x + needed > canvas->frame->width - 1 && x > 1)
        return x;
    x = canvas_put(canvas, y, x, needed, LAYOUT_DIM, dot);
    return canvas_put(canvas, y, x, canvas->frame->width - 1 - x, role, text);
}

static int draw_heir(const struct canvas *canvas, int x)
{
    const struct model_snapshot *snapshot = &canvas->model->snapshot;
    const struct model_member *heir = model_heir(canvas->model);
    bool lapsed = heir && !heir->live;
    enum layout_role role = canvas->stale ? LAYOUT_DIM : lapsed ? LAYOUT_LOST : LAYOUT_HEIR;
    char text[WORDS_TEXT], span[WORDS_SPAN];
    if (!snapshot->heir[0]) {
        words_print(text, sizeof text, "%s no heir", canvas->signs->warn);
        return put_part(canvas, 1, x, canvas->stale ? LAYOUT_DIM : LAYOUT_FAULT, text);
    }
    words_span(span, canvas->database_ms - snapshot->acceded_at_ms);
    int room = canvas->frame->width - 30; /* a long name must not cost the rest of the line */
    words_print(text, sizeof text, "%s %s", lapsed ? canvas->signs->warn : canvas->signs->heir, snapshot->heir);
    if (canvas_text_width(canvas, text) > room && room > 8) {
        x = canvas_put(canvas, 1, x, room, role, text);
    } else {
        x = put_part(canvas, 1, x, role, text);
    }
    if (snapshot->acceded_at_ms) {
        words_print(text, sizeof text, lapsed ? " heir, lease lapsed" : " heir for %s", span);
        if (x + canvas_text_width(canvas, text) < canvas->frame->width)
            x = canvas_put(canvas, 1, x, WORDS_TEXT, canvas->stale ? LAYOUT_DIM : LAYOUT_PLAIN, text);
    }
    return x;
}

static void draw_summary(const struct canvas *canvas)
{
    const struct model *model = canvas->model;
    const struct model_snapshot *snapshot = &model->snapshot;
    enum layout_role plain = canvas->stale ? LAYOUT_DIM : LAYOUT_PLAIN;
    char text[WORDS_TEXT], span[WORDS_SPAN];
    if (!model->has_snapshot) {
        (void)canvas_put(canvas, 1, 1, WORDS_TEXT, LAYOUT_DIM, "nothing known of the roster yet");
        return;
    }
    if (!snapshot->exists) {
        (void)canvas_put(canvas, 1, 1, WORDS_TEXT, canvas->stale ? LAYOUT_DIM : LAYOUT_LOST,
                         "this database knows no such group: nobody has registered in it yet");
        return;
    }
    int x = 1;
    if (canvas->stale) {
        words_span(span, canvas->view->now_ms - model->snapshot_ms);
        words_print(text, sizeof text, "%s ago", span);
        x = put_part(canvas, 1, x, LAYOUT_LOST, text);
    }
    x = draw_heir(canvas, x);
    if (snapshot->paused)
        x = put_part(canvas, 1, x, canvas->stale ? LAYOUT_DIM : LAYOUT_LOST, "PAUSED");
    words_print(text, sizeof text, "term %lld", (long long)snapshot->term);
    x = put_part(canvas, 1, x, plain, text);
    words_lease(span, snapshot->lease_ms);
    words_print(text, sizeof text, "lease %s", span);
    x = put_part(canvas, 1, x, plain, text);
    words_print(text, sizeof text, "%lld member%s", (long long)snapshot->member_total,
                snapshot->member_total == 1 ? "" : "s");
    (void)put_part(canvas, 1, x, plain, text);
}

static int draw_feed(const struct canvas *canvas, int x, const char *name, const struct model_link *link)
{
    const struct canvas_signs *signs = canvas->signs;
    int64_t now_ms = canvas->view->now_ms;
    char text[WORDS_TEXT], age[WORDS_SPAN];
    const char *sign = signs->none;
    enum layout_role role = LAYOUT_DIM;
    if (!link->configured) {
        words_print(text, sizeof text, "%s not configured", name);
    } else if (link->up) {
        bool late = now_ms - link->word_ms > CANVAS_STALE_MS;
        sign = late ? signs->warn : signs->good;
        role = late ? LAYOUT_LOST : LAYOUT_HEIR;
        words_duration(age, now_ms - link->word_ms);
        words_print(text, sizeof text, late ? "%s silent for %s" : "%s %s", name, age);
    } else if (link->fault[0]) {
        sign = signs->bad;
        role = LAYOUT_FAULT;
        words_span(age, now_ms - (link->word_ms >= 0 ? link->word_ms : link->changed_ms));
        words_print(text, sizeof text, "%s lost %s", name, age);
        if (link->word_ms < 0)
            words_print(text, sizeof text, "%s not reached", name);
    } else {
        words_print(text, sizeof text, "%s connecting", name);
    }
    x = canvas_put(canvas, 2, x, 2, role, sign);
    return canvas_put(canvas, 2, x + 1, WORDS_TEXT, role == LAYOUT_HEIR ? LAYOUT_PLAIN : role, text);
}

/* Breaks between words. Returns the line after it. */
static int draw_fault(const struct canvas *canvas, int y, int end, const struct model_link *link)
{
    int room = canvas->frame->width - FAULT_MARGIN;
    const char *text = link->fault;
    char first[sizeof link->fault];
    if (fault_lines_of(link, canvas->frame->width) == 2 && y + 1 < end && room > 0) {
        int cut = room;
        while (cut > room / 2 && text[cut] != ' ')
            cut--;
        if (text[cut] == ' ') {
            words_print(first, sizeof first, "%.*s", cut, text);
            (void)canvas_put(canvas, y++, 3, room, LAYOUT_FAULT, first);
            text += cut + 1;
        }
    }
    (void)canvas_put(canvas, y, 3, room, LAYOUT_FAULT, text);
    return y + 1;
}

static void draw_feeds(const struct canvas *canvas, const struct picture_plan *plan)
{
    const struct model *model = canvas->model;
    int x = draw_feed(canvas, 1, "Postgres", &model->postgres);
    x = draw_feed(canvas, x + 3, "RabbitMQ", &model->rabbitmq);
    if (model->unreadable > 0) {
        char text[WORDS_TEXT];
        words_print(text, sizeof text, "%s %lld unreadable message%s", canvas->signs->warn, (long long)model->unreadable,
                    model->unreadable == 1 ? "" : "s");
        if (x + 3 + canvas_text_width(canvas, text) < canvas->frame->width)
            (void)canvas_put(canvas, 2, x + 3, WORDS_TEXT, LAYOUT_LOST, text);
    }
    const struct model_link *links[] = {&model->postgres, &model->rabbitmq};
    int y = plan->feeds + 1, end = y + plan->fault_lines;
    for (int i = 0; i < 2; i++) {
        if (has_fault(links[i]) && y < end)
            y = draw_fault(canvas, y, end, links[i]);
    }
}

void picture_header(const struct canvas *canvas, const struct picture_plan *plan)
{
    draw_title(canvas);
    draw_summary(canvas);
    draw_feeds(canvas, plan);
}
