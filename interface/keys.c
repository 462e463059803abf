/* Owns which key means what and how it is told. Never does any of it. */
#include "keys.h"

#include <stddef.h>

#define CONTROL(letter) ((letter)&0x1f)

const struct keys_key keys_table[] = {
    {{'?', 'h'}, "?", "?", KEYS_HELP, MODEL_READ, false, "help", "this help"},
    {{'q', 'Q'}, "q", "q", KEYS_QUIT, MODEL_READ, false, "quit", "quit"},
    {{' '}, "Space", "Space", KEYS_PLAY, MODEL_READ, true, "hold", "hold the recording, or let it go on"},
    {{'-', '<'}, "-", "-", KEYS_SLOWER, MODEL_READ, true, "slower", "play it at half the speed"},
    {{'+', '>', '='}, "+", "+", KEYS_FASTER, MODEL_READ, true, "faster", "play it at twice the speed"},
    {{KEYS_CODE_UP, 'k'}, "↑", "Up", KEYS_UP, MODEL_READ, false, NULL, "the line above: of the succession, or of the news"},
    {{KEYS_CODE_DOWN, 'j'}, "↓", "Down", KEYS_DOWN, MODEL_READ, false, NULL, "the line below"},
    {{KEYS_CODE_PAGE_UP}, "PgUp", "PgUp", KEYS_PAGE_UP, MODEL_READ, false, NULL, "a page up"},
    {{KEYS_CODE_PAGE_DOWN}, "PgDn", "PgDn", KEYS_PAGE_DOWN, MODEL_READ, false, NULL, "a page down"},
    {{KEYS_CODE_HOME}, "Home", "Home", KEYS_HOME, MODEL_READ, false, NULL, "the first member, or the oldest news"},
    {{KEYS_CODE_END}, "End", "End", KEYS_END, MODEL_READ, false, NULL, "the last member, or the newest news"},
    {{'x'},
     "x",
     "x",
     KEYS_STOP,
     MODEL_RETIRE,
     false,
     "stop",
     "stop the selected member: retire its node; an heir hands over first"},
    {{'s'},
     "s",
     "s",
     KEYS_START,
     MODEL_READ,
     false,
     "start",
     "start the selected member: enlist its node, and run the start command if its wrapper is down"},
    {{'w'},
     "w",
     "w",
     KEYS_SWITCHOVER,
     MODEL_SWITCHOVER,
     false,
     "switch",
     "switchover: the heir hands over to the selected member, or to the eldest"},
    {{'p'}, "p", "p", KEYS_PAUSE, MODEL_PAUSE, false, "pause", "pause the group: no takeovers; or resume it"},
    {{KEYS_CODE_ENTER},
     "Enter",
     "Enter",
     KEYS_DETAILS,
     MODEL_DETAILS,
     false,
     "details",
     "all that is known of the selected member, and its last 50 events"},
    {{'/', 'f'},
     "/",
     "/",
     KEYS_FILTER,
     MODEL_READ,
     false,
     "filter",
     "show only news that contain a text; an empty text shows all"},
    {{'\t'}, "Tab", "Tab", KEYS_FOCUS, MODEL_READ, false, "news", "arrows move in the line of succession, or in the news"},
    {{'d'},
     "d",
     "d",
     KEYS_REMOVE,
     MODEL_REMOVE,
     false,
     "remove",
     "remove the selected member, which must be dead, from the list"},
    {{'g'}, "g", "g", KEYS_GROUPS, MODEL_GROUPS, false, "groups", "the other groups of this database"},
    {{'o'}, "o", "o", KEYS_OUTPUT, MODEL_READ, false, NULL, "the output of the last start command"},
    {{'r'}, "r", "r", KEYS_REFRESH, MODEL_READ, false, "refresh", "ask the database now, or connect to it now"},
    {{'t'}, "t", "t", KEYS_THEME, MODEL_READ, false, "theme", "the next set of colours"},
    {{CONTROL('L')}, "^L", "^L", KEYS_REPAINT, MODEL_READ, false, NULL, "paint the whole screen anew"},
    {{KEYS_CODE_ESCAPE}, "Esc", "Esc", KEYS_BACK, MODEL_READ, false, NULL, "back; select nobody"},
    {.action = KEYS_NONE},
};

const struct keys_key *keys_find(uint32_t code)
{
    for (const struct keys_key *key = keys_table; code && key->action != KEYS_NONE; key++) {
        for (size_t i = 0; i < sizeof key->codes / sizeof *key->codes; i++) {
            if (key->codes[i] == code)
                return key;
        }
    }
    return NULL;
}
