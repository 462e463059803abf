/* Owns lines of text, bounded and harmless. Never knows what they say. */
#include "page.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model.h"

void page_clear(struct page *self)
{
    self->count = 0;
}

struct page_line *page_add(struct page *self, const char *format, ...)
{
    char text[4 * PAGE_TEXT];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments); /* model_text marks what does not fit a line */
    va_end(arguments);
    if (self->count == PAGE_LINES)
        memmove(self->lines, self->lines + 1, sizeof self->lines[0] * (PAGE_LINES - 1));
    else
        self->count++;
    struct page_line *line = &self->lines[self->count - 1];
    *line = (struct page_line){0};
    model_text(line->text, sizeof line->text, text);
    return line;
}

void page_add_heading(struct page *self, const char *text)
{
    page_add(self, "%s", text)->heading = true;
}
