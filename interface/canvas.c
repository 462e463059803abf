/* Owns how text becomes cells: widths, cuts, what ASCII cannot say. Never knows what the text means, and never cleans it:
 * the model has. */
#include "canvas.h"

#include <stdlib.h>
#include <string.h>

#include "words.h"

static const struct canvas_signs unicode = {"♛", "›", "●", "✗", "○", "!", " · ", "…", "─", "│", {"┌", "┐", "└", "┘"},
                                            "▪", "·", "▸"};
static const struct canvas_signs ascii = {"*", ">", "+", "x", "o", "!", " | ", "~", "-", "|", {"+", "+", "+", "+"},
                                          "#", ".", ">"};

static struct layout_cell *cell(const struct canvas *canvas, int y, int x)
{
    return &canvas->frame->cells[(size_t)y * (size_t)canvas->frame->width + (size_t)x];
}

static int columns_of(const struct canvas *canvas, uint32_t point)
{
    if (point < 0x7f)
        return 1;
    return canvas->view->ascii ? 1 : wcwidth((wchar_t)point);
}

int canvas_text_width(const struct canvas *canvas, const char *text)
{
    int width = 0;
    for (uint32_t point; (point = model_next_char(&text));) {
        int columns = columns_of(canvas, point);
        width += columns > 0 ? columns : 0;
    }
    return width;
}

static void put_point(const struct canvas *canvas, int y, int x, uint32_t point, int columns, enum layout_role role)
{
    bool foreign = canvas->view->ascii && point > 0x7e;
    *cell(canvas, y, x) = (struct layout_cell){foreign ? L'?' : (wchar_t)point, role, false};
    if (columns == 2)
        *cell(canvas, y, x + 1) = (struct layout_cell){0, role, false};
}

int canvas_put(const struct canvas *canvas, int y, int x, int room, enum layout_role role, const char *text)
{
    if (room > canvas->frame->width - x)
        room = canvas->frame->width - x;
    if (y < 0 || y >= canvas->frame->height || room <= 0)
        return x;
    bool cut = canvas_text_width(canvas, text) > room;
    int end = x + room - (cut ? 1 : 0);
    for (uint32_t point; (point = model_next_char(&text));) {
        int columns = columns_of(canvas, point);
        if (columns <= 0)
            continue; /* a combining character */
        if (x + columns > end)
            break;
        put_point(canvas, y, x, point, columns, role);
        x += columns;
    }
    if (cut) {
        const char *more = canvas->signs->more;
        put_point(canvas, y, x++, model_next_char(&more), 1, role);
    }
    return x;
}

void canvas_put_right(const struct canvas *canvas, int y, int x, int room, enum layout_role role, const char *text)
{
    int width = canvas_text_width(canvas, text);
    int skip = width < room ? room - width : 0;
    (void)canvas_put(canvas, y, x + skip, room - skip, role, text);
}

bool canvas_init(struct canvas *self, struct layout_frame *frame, const struct model *model, const struct layout_view *view)
{
    size_t cells = (size_t)view->width * (size_t)view->height;
    struct layout_cell *grown = realloc(frame->cells, (cells ? cells : 1) * sizeof *grown);
    if (!grown)
        return false;
    *frame = (struct layout_frame){view->width, view->height, grown};
    for (size_t i = 0; i < cells; i++)
        grown[i] = (struct layout_cell){L' ', LAYOUT_PLAIN, false};
    int64_t since_ms = view->now_ms - model->snapshot_ms;
    bool stale = !model->postgres.up || since_ms > CANVAS_STALE_MS;
    *self = (struct canvas){.frame = frame,
                            .model = model,
                            .view = view,
                            .desk = view->desk,
                            .signs = view->ascii ? &ascii : &unicode,
                            .stale = stale,
                            .database_ms = model->snapshot.database_ms + (stale ? 0 : since_ms)};
    return true;
}

void canvas_rule(const struct canvas *canvas, int y, enum layout_role role, const char *title, const char *right)
{
    int width = canvas->frame->width;
    for (int x = 0; x < width; x++)
        (void)canvas_put(canvas, y, x, 1, LAYOUT_DIM, canvas->signs->rule);
    char text[WORDS_TEXT];
    words_print(text, sizeof text, " %s ", title);
    int end = canvas_put(canvas, y, 2, width - 4, role, text);
    if (!right[0])
        return;
    words_print(text, sizeof text, " %s ", right);
    int columns = canvas_text_width(canvas, text);
    if (width - 2 - columns > end)
        (void)canvas_put(canvas, y, width - 2 - columns, columns, LAYOUT_DIM, text);
}

void canvas_reverse(const struct canvas *canvas, int y, int x, int width)
{
    if (y < 0 || y >= canvas->frame->height)
        return;
    for (int i = x < 0 ? 0 : x; i < x + width && i < canvas->frame->width; i++)
        cell(canvas, y, i)->reversed = true;
}

static void clear_row(const struct canvas *canvas, int y, int x, int width)
{
    if (x > 0 && !cell(canvas, y, x)->glyph)
        cell(canvas, y, x - 1)->glyph = L' '; /* half of a wide character would stay */
    if (x + width < canvas->frame->width && !cell(canvas, y, x + width)->glyph)
        cell(canvas, y, x + width)->glyph = L' ';
    for (int i = x; i < x + width; i++)
        *cell(canvas, y, i) = (struct layout_cell){L' ', LAYOUT_PLAIN, false};
}

void canvas_box(const struct canvas *canvas, int y, int x, int height, int width, const char *title)
{
    const struct canvas_signs *signs = canvas->signs;
    for (int row = y; row < y + height; row++) {
        bool top = row == y, bottom = row == y + height - 1;
        clear_row(canvas, row, x, width);
        for (int i = x; (top || bottom) && i < x + width; i++)
            (void)canvas_put(canvas, row, i, 1, LAYOUT_DIM, signs->rule);
        (void)canvas_put(canvas, row, x, 1, LAYOUT_DIM, top ? signs->corners[0] : bottom ? signs->corners[2] : signs->side);
        (void)canvas_put(canvas, row, x + width - 1, 1, LAYOUT_DIM,
                         top      ? signs->corners[1]
                         : bottom ? signs->corners[3]
                                  : signs->side);
    }
    char text[WORDS_TEXT];
    words_print(text, sizeof text, " %s ", title);
    (void)canvas_put(canvas, y, x + 2, width - 4, LAYOUT_TITLE, text);
}

int canvas_row(const struct canvas *canvas, const char *text, int width, int *ret_skip)
{
    const char *at = text, *blank = NULL;
    int columns = 0;
    while (true) {
        const char *before = at;
        uint32_t point = model_next_char(&at);
        int wide = point ? columns_of(canvas, point) : 0;
        *ret_skip = 0;
        if (!point)
            return (int)(before - text);
        columns += wide > 0 ? wide : 0;
        if (columns > width) {
            *ret_skip = blank && before != text ? 1 : 0;
            return (int)((blank ? blank : before == text ? at : before) - text);
        }
        if (point == ' ' && columns > width / 3)
            blank = before;
    }
}
