/* The pen: writes text into the cells of a frame and keeps it within its room. Pure. */
#pragma once

#include "layout.h"

enum { CANVAS_STALE_MS = 3500 };

struct canvas_signs {
    const char *heir, *next, *good, *bad, *none, *warn, *dot, *more, *rule, *side, *corners[4], *full, *empty, *here;
};

struct canvas {
    struct layout_frame *frame;
    const struct model *model;
    const struct layout_view *view;
    const struct desk *desk;
    const struct canvas_signs *signs;
    bool stale;          /* the roster is no longer the present one */
    int64_t database_ms; /* the database's clock by now */
};

/* Clears the frame to the view's size; false without memory. */
bool canvas_init(struct canvas *self, struct layout_frame *frame, const struct model *model,
                 const struct layout_view *view);

int canvas_text_width(const struct canvas *canvas, const char *text);

/* Writes text from column x on, `room` columns at most, ending in the sign for more if it is cut. Returns the column
 * after it. */
int canvas_put(const struct canvas *canvas, int y, int x, int room, enum layout_role role, const char *text);
void canvas_put_right(const struct canvas *canvas, int y, int x, int room, enum layout_role role, const char *text);

/* A line across, with a title in it and a text at its right end ("" for none). */
void canvas_rule(const struct canvas *canvas, int y, enum layout_role role, const char *title, const char *right);

/* Shows these cells reversed. */
void canvas_reverse(const struct canvas *canvas, int y, int x, int width);

/* An empty box with a title. */
void canvas_box(const struct canvas *canvas, int y, int x, int height, int width, const char *title);

/* How many bytes of the text fit a row, broken between words if that can be; *ret_skip: of the blank after them. */
int canvas_row(const struct canvas *canvas, const char *text, int width, int *ret_skip);
