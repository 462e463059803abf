/* Owns where the parts of the picture stand, and what gives way when room is short. Never touches a terminal. */
#include "layout.h"

#include <stdlib.h>

#include "canvas.h"
#include "picture.h"

enum { OLDER_MARGIN = 100 }; /* events between the highest shown and the oldest kept, so that scrolling never waits */

static int wanted_roster_lines(const struct model *model)
{
    return model->snapshot.member_count > 0 ? model->snapshot.member_count : 1;
}

struct picture_plan picture_plan(const struct model *model, const struct layout_view *view)
{
    struct picture_plan plan = {.feeds = 2, .roster_rule = -1, .roster_titles = -1, .news_rule = -1, .keys = -1};
    int y = 3, height = view->height;
    plan.fault_lines = picture_fault_lines(model, view->width);
    if (plan.fault_lines > height - 8)
        plan.fault_lines = height > 8 ? height - 8 : 0;
    y += plan.fault_lines;
    int end = height;
    if (view->keys && height >= 14)
        plan.keys = --end;
    if (height >= 14)
        plan.roster_rule = y++;
    if (height >= 9)
        plan.roster_titles = y++;
    plan.roster = y;
    int room = end - y, wanted = wanted_roster_lines(model);
    int most = height >= 14 ? room / 2 : room - 3; /* the news get what the roster leaves, and never nothing */
    plan.roster_lines = wanted < most ? wanted : most > 1 ? most : 1;
    y += plan.roster_lines;
    if (y < end)
        plan.news_rule = y++;
    plan.news = y;
    plan.news_lines = end > y ? end - y : 0;
    return plan;
}

int layout_height(const struct model *model, const struct layout_view *view, int news)
{
    int roster = wanted_roster_lines(model);
    return 3 + picture_fault_lines(model, view->width) + 2 + (roster > news + 1 ? 2 * roster : roster + 1 + news) +
           (view->keys ? 1 : 0);
}

struct desk_sizes layout_sizes(const struct model *model, const struct layout_view *view)
{
    struct picture_plan plan = picture_plan(model, view);
    struct desk_sizes sizes = {.line_page = plan.roster_lines, .news_page = plan.news_lines};
    struct layout_frame frame = {.width = view->width, .height = view->height};
    struct canvas canvas = {.frame = &frame, .model = model, .view = view, .desk = view->desk};
    picture_panel_sizes(&canvas, &sizes.panel_page, &sizes.panel_rows);
    return sizes;
}

uint64_t layout_scroll(const struct model *model, const struct layout_view *view, int lines)
{
    return picture_news_scroll(model, view->desk, picture_plan(model, view).news_lines, lines);
}

bool layout_wants_older(const struct model *model, const struct layout_view *view)
{
    int lines = picture_plan(model, view).news_lines;
    struct picture_news_window window = picture_news_window(model, view->desk, lines);
    return window.top < OLDER_MARGIN && (view->desk->anchor || view->desk->filter[0] || window.lines < lines);
}

bool layout_draw(struct layout_frame *frame, const struct model *model, const struct layout_view *view)
{
    struct canvas canvas;
    if (!canvas_init(&canvas, frame, model, view))
        return false;
    struct picture_plan plan = picture_plan(model, view);
    picture_header(&canvas, &plan);
    picture_roster(&canvas, &plan);
    picture_news(&canvas, &plan);
    if (view->keys) {
        picture_foot(&canvas, &plan);
        picture_panel(&canvas);
    }
    return true;
}

void layout_finish(struct layout_frame *frame)
{
    free(frame->cells);
    *frame = (struct layout_frame){0};
}
