/* The picture: model + size + time -> cells with a colour role each. Pure: knows no terminal.
 *
 * wcwidth(3) and localtime_r(3) are used, so the caller sets LC_CTYPE and TZ. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <wchar.h>

#include "desk.h"
#include "model.h"

enum layout_role {
    LAYOUT_PLAIN,
    LAYOUT_TITLE,
    LAYOUT_HEIR,
    LAYOUT_NEXT, /* the predicted successor */
    LAYOUT_STANDBY,
    LAYOUT_RETIRED,
    LAYOUT_LOST,
    LAYOUT_FAULT,
    LAYOUT_DIM,
    LAYOUT_ROLES,
};

struct layout_view {
    int width, height;
    bool ascii;      /* nothing but ASCII can be shown */
    bool keys;       /* there are keys to press: tell them */
    int64_t now_ms;  /* CLOCK_BOOTTIME */
    int64_t wall_ms; /* of this machine, for the clock in the corner and to tell today's news from older ones */
    const struct desk *desk;
    const char *badge; /* beside the clock, or NULL */
};

struct layout_cell {
    wchar_t glyph; /* 0: the right half of a wide character */
    enum layout_role role;
    bool reversed;
};

struct layout_frame {
    int width, height;
    struct layout_cell *cells; /* row by row */
};

/* Draws into `frame`, whatever was in it; false only without memory. */
bool layout_draw(struct layout_frame *frame, const struct model *model, const struct layout_view *view);
void layout_finish(struct layout_frame *frame); /* safe on a zeroed struct */

/* The height at which all members and `news` events are shown. */
int layout_height(const struct model *model, const struct layout_view *view, int news);

/* How much of everything fits. */
struct desk_sizes layout_sizes(const struct model *model, const struct layout_view *view);

/* The anchor of the news after scrolling by `lines`, back in time if positive. */
uint64_t layout_scroll(const struct model *model, const struct layout_view *view, int lines);

/* Are the news shown so near the oldest of those kept that older ones should be read? */
bool layout_wants_older(const struct model *model, const struct layout_view *view);
