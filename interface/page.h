/* Lines of text to look through: the help, what is known of a member, the output of a command. Pure.
 *
 * Every text goes through model_text on the way, so it may come from anywhere. */
#pragma once

#include <stdbool.h>

enum { PAGE_LINES = 400, PAGE_TEXT = 256 };

struct page_line {
    char text[PAGE_TEXT];
    bool heading;
    bool faint;
};

struct page {
    int count;
    struct page_line lines[PAGE_LINES];
};

void page_clear(struct page *self);

/* Adds a line; when the page is full the oldest goes. */
struct page_line *page_add(struct page *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
void page_add_heading(struct page *self, const char *text);
