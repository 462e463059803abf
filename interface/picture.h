/* The parts of the picture, and where each stands. Only layout.c knows them all. Pure. */
#pragma once

#include "canvas.h"

struct picture_plan {
    int feeds, fault_lines;
    int roster_rule, roster_titles, roster, roster_lines; /* first lines; -1: none */
    int news_rule, news, news_lines;
    int keys;
};

struct picture_plan picture_plan(const struct model *model, const struct layout_view *view);

void picture_header(const struct canvas *canvas, const struct picture_plan *plan);
int picture_fault_lines(const struct model *model, int width); /* that the header wants for what is wrong */

void picture_roster(const struct canvas *canvas, const struct picture_plan *plan);

void picture_news(const struct canvas *canvas, const struct picture_plan *plan);
/* Of the news shown: the lowest event, the highest, and the lines they take. */
struct picture_news_window {
    int bottom, top, lines;
};
struct picture_news_window picture_news_window(const struct model *model, const struct desk *desk, int lines);
uint64_t picture_news_scroll(const struct model *model, const struct desk *desk, int page, int lines);

void picture_foot(const struct canvas *canvas, const struct picture_plan *plan);

void picture_panel(const struct canvas *canvas);
void picture_panel_sizes(const struct canvas *canvas, int *ret_page, int *ret_rows);
