/* The one table of keys: it drives what a key does, the line at the foot of the screen and the help. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "model.h"

/* Keys that are no character, beyond the last code point. */
enum keys_code {
    KEYS_CODE_NONE = 0, /* nothing more to read */
    KEYS_CODE_UP = 0x110000,
    KEYS_CODE_DOWN,
    KEYS_CODE_PAGE_UP,
    KEYS_CODE_PAGE_DOWN,
    KEYS_CODE_HOME,
    KEYS_CODE_END,
    KEYS_CODE_ENTER,
    KEYS_CODE_ESCAPE,
    KEYS_CODE_BACKSPACE,
    KEYS_CODE_OTHER,
};

enum keys_action {
    KEYS_NONE,
    KEYS_UP,
    KEYS_DOWN,
    KEYS_PAGE_UP,
    KEYS_PAGE_DOWN,
    KEYS_HOME,
    KEYS_END,
    KEYS_FOCUS,
    KEYS_DETAILS,
    KEYS_STOP,
    KEYS_START,
    KEYS_SWITCHOVER,
    KEYS_PAUSE,
    KEYS_REMOVE,
    KEYS_FILTER,
    KEYS_GROUPS,
    KEYS_OUTPUT,
    KEYS_THEME,
    KEYS_REFRESH,
    KEYS_REPAINT,
    KEYS_BACK,
    KEYS_HELP,
    KEYS_QUIT,
    KEYS_PLAY,
    KEYS_SLOWER,
    KEYS_FASTER,
};

struct keys_key {
    uint32_t codes[3]; /* any of them */
    const char *shown, *ascii;
    enum keys_action action;
    enum model_right right; /* needed; MODEL_READ for everybody */
    bool replay;            /* only where a recording is played */
    const char *word;       /* at the foot of the screen; NULL: not there */
    const char *help;
};

extern const struct keys_key keys_table[]; /* ends with KEYS_NONE; the foot shows as many as fit, in this order */

const struct keys_key *keys_find(uint32_t code); /* NULL for a key without meaning */
