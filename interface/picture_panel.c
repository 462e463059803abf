/* Owns the boxes that open over the picture: help, details, groups, output, questions. */
#include "picture.h"
#include "words.h"

enum { MOST_WIDTH = 100, LEAST_WIDTH = 12, LEAST_HEIGHT = 4 };

static const char answers[] = "y yes   n no";

static bool is_page(enum desk_panel panel)
{
    return panel == DESK_HELP || panel == DESK_DETAILS || panel == DESK_GROUPS || panel == DESK_OUTPUT;
}

static const struct page *page_of(const struct desk *desk)
{
    return desk->panel == DESK_OUTPUT ? &desk->output : &desk->page;
}

static int inner_width(const struct canvas *canvas)
{
    int width = canvas->frame->width - 2;
    return (width > MOST_WIDTH ? MOST_WIDTH : width) - 4;
}

static int rows_of(const struct canvas *canvas, const char *text, int width)
{
    int rows = 0, skip = 0;
    do {
        text += canvas_row(canvas, text, width, &skip);
        text += skip;
        rows++;
    } while (*text);
    return rows;
}

static int rows_of_page(const struct canvas *canvas, const struct page *page, int width)
{
    int rows = 0;
    for (int i = 0; i < page->count; i++)
        rows += rows_of(canvas, page->lines[i].text, width);
    return rows > 0 ? rows : 1;
}

static int content_rows(const struct canvas *canvas, int width)
{
    const struct desk *desk = canvas->desk;
    if (is_page(desk->panel))
        return rows_of_page(canvas, page_of(desk), width);
    return desk->panel == DESK_CONFIRM ? rows_of(canvas, desk->question, width) + 2 : 1;
}

void picture_panel_sizes(const struct canvas *canvas, int *ret_page, int *ret_rows)
{
    int width = inner_width(canvas), most = canvas->frame->height - 3;
    *ret_rows = canvas->desk->panel == DESK_NO_PANEL || width < 1 ? 0 : content_rows(canvas, width);
    *ret_page = *ret_rows < most ? *ret_rows : most;
}

/* From the row `first` of the text on, into `room` rows. Returns the rows of the whole text. */
static int draw_text(const struct canvas *canvas, int y, int x, int width, int first, int room, enum layout_role role,
                     const char *text)
{
    int row = 0;
    do {
        int skip = 0, length = canvas_row(canvas, text, width, &skip);
        char line[4 * PAGE_TEXT];
        words_print(line, sizeof line, "%.*s", length, text);
        if (row >= first && row < first + room)
            (void)canvas_put(canvas, y + row - first, x, width, role, line);
        text += length + skip;
        row++;
    } while (*text);
    return row;
}

static void draw_page(const struct canvas *canvas, int y, int x, int width, int first, int height)
{
    const struct desk *desk = canvas->desk;
    const struct page *page = page_of(desk);
    int row = -first;
    if (page->count == 0)
        (void)canvas_put(canvas, y, x, width, LAYOUT_DIM, desk->panel == DESK_OUTPUT ? "none yet" : "nothing");
    for (int i = 0; i < page->count && row < height; i++) {
        const struct page_line *line = &page->lines[i];
        enum layout_role role = line->heading ? LAYOUT_TITLE : line->faint ? LAYOUT_DIM : LAYOUT_PLAIN;
        int hidden = row < 0 ? -row : 0, at = row < 0 ? 0 : row;
        int rows = draw_text(canvas, y + at, x, width, hidden, height - at, role, line->text);
        if (desk->panel == DESK_GROUPS && desk->group_count && i == desk->group_at && row >= 0)
            canvas_reverse(canvas, y + row, x - 1, width + 2);
        row += rows;
    }
}

static void draw_question(const struct canvas *canvas, int y, int x, int width, int height)
{
    int rows = draw_text(canvas, y, x, width, 0, height > 1 ? height - 1 : 1, LAYOUT_PLAIN, canvas->desk->question);
    int last = rows + 1 < height ? rows + 1 : height - 1;
    (void)canvas_put(canvas, y + last, x, width, LAYOUT_TITLE, answers);
}

static void draw_input(const struct canvas *canvas, int y, int x, int width)
{
    const char *text = canvas->desk->input;
    while (canvas_text_width(canvas, text) > width - 1)
        text++;
    int end = canvas_put(canvas, y, x, width, LAYOUT_PLAIN, text);
    canvas_reverse(canvas, y, end, 1);
}

static void draw_hint(const struct canvas *canvas, int y, int x, int width, int first, int page, int rows)
{
    const struct desk *desk = canvas->desk;
    char text[WORDS_TEXT] = "";
    if (rows > page && page > 0)
        words_print(text, sizeof text, " %d-%d of %d  Esc back ", first + 1, first + page, rows);
    else if (desk->panel == DESK_GROUPS)
        words_print(text, sizeof text, " Enter show  Esc back ");
    else if (is_page(desk->panel))
        words_print(text, sizeof text, " Esc back ");
    else if (desk->panel != DESK_CONFIRM)
        words_print(text, sizeof text, " Enter done  Esc back ");
    int columns = canvas_text_width(canvas, text);
    if (columns < width - 2)
        (void)canvas_put(canvas, y, x + width - 1 - columns, columns, LAYOUT_DIM, text);
}

void picture_panel(const struct canvas *canvas)
{
    const struct desk *desk = canvas->desk;
    int page = 0, rows = 0, screen = canvas->frame->width, inner = inner_width(canvas);
    if (desk->panel == DESK_NO_PANEL || inner + 4 < LEAST_WIDTH || canvas->frame->height < LEAST_HEIGHT)
        return;
    picture_panel_sizes(canvas, &page, &rows);
    int width = inner + 4, height = page + 2, x = (screen - width) / 2, y = (canvas->frame->height - height) / 2;
    int first = desk->top < rows - page ? desk->top : rows - page; /* the text or the screen may have shrunk */
    canvas_box(canvas, y, x, height, width, desk->title);
    if (desk->panel == DESK_CONFIRM)
        draw_question(canvas, y + 1, x + 2, inner, page);
    else if (is_page(desk->panel))
        draw_page(canvas, y + 1, x + 2, inner, first, page);
    else
        draw_input(canvas, y + 1, x + 2, inner);
    draw_hint(canvas, y + height - 1, x, width, first, page, rows);
}
