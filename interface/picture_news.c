/* Owns the news: which of them are shown, what stands between them, and how each looks. */
#include <string.h>

#include "picture.h"
#include "words.h"

/* How each event is shown; the words are those of the log, the routing keys and the history. */
static const struct look {
    const char *event;
    enum layout_role role;
} looks[] = {
    {"acceded", LAYOUT_HEIR},
    {"scheduler-started", LAYOUT_HEIR},
    {"scheduler-exited", LAYOUT_LOST},
    {"scheduler-unhealthy", LAYOUT_LOST},
    {"abdicated", LAYOUT_LOST},
    {"deposed", LAYOUT_FAULT},
    {"lost", LAYOUT_FAULT},
    {"estate-failed", LAYOUT_FAULT},
    {"fenced", LAYOUT_FAULT},
    {"paused", LAYOUT_LOST},
    {"retired", LAYOUT_RETIRED},
    {"left", LAYOUT_RETIRED},
    {"registered", LAYOUT_STANDBY},
    {"enlisted", LAYOUT_STANDBY},
    {"resumed", LAYOUT_STANDBY},
};

static enum layout_role event_role(const struct model_event *event)
{
    if (event->stray)
        return LAYOUT_DIM;
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
        if (strcmp(looks[i].event, event->event) == 0)
            return looks[i].role;
    }
    return LAYOUT_PLAIN;
}

static const char *event_sign(const struct canvas *canvas, const struct model_event *event, enum layout_role role)
{
    if (event->stray)
        return "?";
    if (strcmp(event->event, "acceded") == 0)
        return canvas->signs->heir;
    return role == LAYOUT_LOST || role == LAYOUT_FAULT ? canvas->signs->warn : " ";
}

static void draw_event(const struct canvas *canvas, int y, const struct model_event *event, int node_width)
{
    int width = canvas->frame->width;
    enum layout_role role = event_role(event);
    enum layout_role plain = event->stray ? LAYOUT_DIM : LAYOUT_PLAIN;
    char text[WORDS_TEXT];
    (void)canvas_put(canvas, y, 0, 1, role, event_sign(canvas, event, role));
    words_time(text, width >= 50 ? WORDS_TIME : WORDS_MINUTE, event->at_ms);
    int x = canvas_put(canvas, y, 2, 8, plain, text) + (width >= 60 ? 2 : 1);
    (void)canvas_put(canvas, y, x, node_width, plain, event->node);
    x += node_width + (width >= 60 ? 2 : 1);
    int end = canvas_put(canvas, y, x, width - x - 1, role, event->event);
    x = width >= 78 ? x + 19 : end;
    x = (x > end ? x : end) + 2;
    words_print(text, sizeof text, "%s", event->detail);
    if (event->term > 0)
        words_print(text, sizeof text, "%s%sterm %lld", event->detail, event->detail[0] ? ", " : "",
                    (long long)event->term);
    (void)canvas_put(canvas, y, x, width - x - 1, event->stray ? LAYOUT_DIM : LAYOUT_STANDBY, text);
    if (event->stray && width >= 78)
        canvas_put_right(canvas, y, width - 24, 23, LAYOUT_DIM, "  not in the database");
}

/* ---- which are shown */

static int older(const struct model *model, const struct desk *desk, int index)
{
    do
        index--;
    while (index >= 0 && !desk_shows(desk, model_event(model, index)));
    return index;
}

static int newer(const struct model *model, const struct desk *desk, int index)
{
    do
        index++;
    while (index < model->count && !desk_shows(desk, model_event(model, index)));
    return index < model->count ? index : -1;
}

/* -1: there is none to show. */
static int anchor_index(const struct model *model, const struct desk *desk)
{
    int newest = older(model, desk, model->count);
    if (!desk->anchor)
        return newest;
    for (int i = model->count - 1; i >= 0; i--) {
        if (model_event(model, i)->arrival == desk->anchor)
            return older(model, desk, i + 1);
    }
    return newer(model, desk, -1); /* too old to be kept */
}

static int64_t not_received(const struct model_event *before, const struct model_event *after)
{
    return before->stray || after->stray || after->sequence <= before->sequence ? 0
                                                                                : after->sequence - before->sequence - 1;
}

/* Does a line of its own stand between the two: a change of the day, or what is missing? */
static bool breaks(const struct desk *desk, const struct model_event *before, const struct model_event *after)
{
    return (!desk->filter[0] && not_received(before, after) > 0) || !words_same_day(before->at_ms, after->at_ms);
}

struct picture_news_window picture_news_window(const struct model *model, const struct desk *desk, int lines)
{
    struct picture_news_window window = {anchor_index(model, desk), -1, 0};
    for (int i = window.bottom; i >= 0 && window.lines < lines;) {
        window.top = i;
        window.lines++;
        int before = older(model, desk, i);
        if (before >= 0 && window.lines < lines && breaks(desk, model_event(model, before), model_event(model, i)))
            window.lines++;
        i = before;
    }
    return window;
}

uint64_t picture_news_scroll(const struct model *model, const struct desk *desk, int page, int lines)
{
    int at = anchor_index(model, desk), least = newer(model, desk, -1);
    for (int i = 1; i < page && least >= 0; i++)
        least = newer(model, desk, least);
    if (at < 0 || least < 0)
        return 0; /* all of them fit */
    for (; lines > 0 && at > least; lines--)
        at = older(model, desk, at);
    for (; lines < 0 && at >= 0; lines++)
        at = newer(model, desk, at);
    if (at >= 0 && at < least)
        at = least;
    return at < 0 || newer(model, desk, at) < 0 ? 0 : model_event(model, at)->arrival;
}

/* ---- drawing */

static void draw_break(const struct canvas *canvas, int y, const struct model_event *before,
                       const struct model_event *after)
{
    char text[WORDS_TEXT];
    int64_t missing = canvas->desk->filter[0] ? 0 : not_received(before, after);
    if (missing > 0)
        words_print(text, sizeof text, "%s %lld not received", canvas->signs->more, (long long)missing);
    else
        words_time(text, WORDS_LONG_DAY, after->at_ms);
    (void)canvas_put(canvas, y, 2, canvas->frame->width - 3, missing > 0 ? LAYOUT_LOST : LAYOUT_DIM, text);
}

static int news_node_width(const struct canvas *canvas, const struct picture_news_window *window)
{
    int widest = canvas->frame->width >= 110 ? 24 : canvas->frame->width >= 60 ? 14 : 9, width = 6;
    for (int i = window->bottom; i >= 0 && i >= window->top; i = older(canvas->model, canvas->desk, i)) {
        int columns = canvas_text_width(canvas, model_event(canvas->model, i)->node);
        width = columns > width ? columns : width;
    }
    return width < widest ? width : widest;
}

static int count_newer(const struct canvas *canvas, int bottom)
{
    int count = 0;
    for (int i = bottom; i >= 0 && (i = newer(canvas->model, canvas->desk, i)) >= 0;)
        count++;
    return count;
}

static void draw_news_rule(const struct canvas *canvas, int y, const struct picture_news_window *window)
{
    const struct desk *desk = canvas->desk;
    const struct model_event *top = window->top >= 0 ? model_event(canvas->model, window->top) : NULL;
    char day[WORDS_DATE] = "", text[WORDS_TEXT] = "", title[WORDS_TEXT];
    int below = count_newer(canvas, window->bottom);
    if (top && !words_same_day(top->at_ms, canvas->view->wall_ms))
        words_time(day, WORDS_DAY, top->at_ms);
    if (below > 0)
        words_print(text, sizeof text, "%d newer below%s%s", below, day[0] ? canvas->signs->dot : "", day);
    else
        words_print(text, sizeof text, "%s", day);
    words_print(title, sizeof title, "%s%sNews%s%s%s", desk->news_focused ? canvas->signs->here : "",
                desk->news_focused ? " " : "", desk->filter[0] ? " with \"" : "", desk->filter,
                desk->filter[0] ? "\"" : "");
    canvas_rule(canvas, y, LAYOUT_TITLE, title, text);
}

void picture_news(const struct canvas *canvas, const struct picture_plan *plan)
{
    const struct model *model = canvas->model;
    struct picture_news_window window = picture_news_window(model, canvas->desk, plan->news_lines);
    int node_width = news_node_width(canvas, &window), y = plan->news + window.lines - 1;
    for (int i = window.bottom; i >= 0 && i >= window.top;) {
        int before = older(model, canvas->desk, i);
        draw_event(canvas, y--, model_event(model, i), node_width);
        if (before >= 0 && y >= plan->news && breaks(canvas->desk, model_event(model, before), model_event(model, i)))
            draw_break(canvas, y--, model_event(model, before), model_event(model, i));
        i = before;
    }
    if (plan->news_rule >= 0)
        draw_news_rule(canvas, plan->news_rule, &window);
    if (window.bottom < 0 && plan->news_lines > 0 && model->whole_to >= 0)
        (void)canvas_put(canvas, plan->news, 2, WORDS_TEXT, LAYOUT_DIM, model->count ? "none of these" : "none yet");
}
