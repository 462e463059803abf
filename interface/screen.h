/* The terminal: the only module that knows curses. Whatever ends the program, the terminal is given back as it was. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "keys.h"
#include "layout.h"

/* LC_CTYPE is set before. Errors: no terminal, or one that is not known. */
bool screen_open(struct error *error);
void screen_close(void); /* may be called at any time, and twice */

int screen_input(void);       /* descriptor to watch */
bool screen_input_gone(void); /* the terminal has hung up */
uint32_t screen_key(void);    /* a character or an enum keys_code; never waits */
void screen_size(int *ret_width, int *ret_height);
bool screen_ascii(void);                            /* it can show nothing else */
void screen_resize(void);                           /* to what the terminal is now */
void screen_draw(const struct layout_frame *frame); /* into memory: what is left to send, screen_ready sends */
bool screen_ready(void);                            /* all that was drawn has been taken by the terminal; never waits */
void screen_repaint(void);                          /* the next draw writes every cell */
const char *screen_next_theme(void);                /* its name */
void screen_suspend(void);                          /* stops this process until it is continued */
