/* What the user is doing: what is selected, which panel is open, which question is asked, and what came of the last order.
 * Pure: a key goes in, a verdict comes out; whoever asked carries it out and reports back. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "keys.h"
#include "model.h"
#include "page.h"
#include "start_command.h"

enum { DESK_TEXT = 1400, DESK_INPUT = 128, DESK_GROUPS_MOST = PAGE_LINES };

enum desk_panel {
    DESK_NO_PANEL,
    DESK_HELP,
    DESK_DETAILS,
    DESK_GROUPS,
    DESK_OUTPUT,
    DESK_CONFIRM, /* yes or no to `order` */
    DESK_FILTER,  /* a text is typed */
    DESK_ADDRESS, /* the same: of a node that is not in the list */
};

enum desk_mood { DESK_SAYS, DESK_GOOD, DESK_BAD };

enum desk_verdict {
    DESK_DONE,         /* nothing to do but to paint */
    DESK_SCROLL,       /* the news by `scroll` lines, back in time if positive */
    DESK_CARRY_OUT,    /* `order`, then desk_answer */
    DESK_READ_DETAILS, /* of `details_id` */
    DESK_READ_GROUPS,
    DESK_SWITCH_GROUP, /* to `chosen` */
    DESK_THEME,
    DESK_REFRESH,
    DESK_REPAINT,
    DESK_PLAY,
    DESK_SLOWER,
    DESK_FASTER,
    DESK_QUIT,
};

enum desk_order_type {
    DESK_NO_ORDER,
    DESK_RETIRE,
    DESK_ENLIST,
    DESK_SWITCHOVER,
    DESK_PAUSE,
    DESK_RESUME,
    DESK_REMOVE,
    DESK_START, /* enlist if `enlist`, then run `command` */
};

struct desk_order {
    enum desk_order_type type;
    char node[MODEL_NAME]; /* "" for a switchover to the eldest */
    int64_t member_id;
    bool enlist;
    struct start_command command;
};

/* What fits the screen, as layout_sizes says. */
struct desk_sizes {
    int line_page, news_page;   /* lines of members and of news */
    int panel_page, panel_rows; /* of the open panel: seen at once, and in all */
};

struct desk {
    const char *const *start_command; /* configured words, NULL-terminated */
    bool replay;                      /* a recording: there is nobody to give orders to */

    bool news_focused;
    int64_t selected; /* member, 0 for none */
    char selected_node[MODEL_NAME];
    uint64_t anchor; /* `arrival` of the lowest event shown; 0 follows the news */
    int scroll;
    char filter[DESK_INPUT];

    enum desk_panel panel;
    int top; /* first row of the panel that is seen */
    struct page page;
    struct page output; /* of the last start command */
    char title[MODEL_NAME];
    int64_t details_id;
    char input[DESK_INPUT];
    int group_count, group_at;
    char groups[DESK_GROUPS_MOST][MODEL_NAME];
    char chosen[MODEL_NAME];

    struct desk_order order;
    char question[DESK_TEXT];
    bool waiting; /* for the answer to `order` */
    struct {
        enum desk_mood mood;
        char text[512];
        int64_t until_ms;
    } said;
    struct { /* a change of the heir that was asked for */
        int64_t term, since_ms;
    } awaited;
};

void desk_init(struct desk *self, const char *const *start_command, bool replay);

/* Another group is shown from now on. */
void desk_change_group(struct desk *self);

/* `code` is a character or an enum keys_code. */
enum desk_verdict desk_press(struct desk *self, const struct model *model, uint32_t code, const struct desk_sizes *sizes,
                             int64_t now_ms);

/* One line at the foot of the screen for a while. */
void desk_say(struct desk *self, enum desk_mood mood, int64_t now_ms, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* What came of `order`: NULL if it is done or under way, else what hindered it. */
void desk_answer(struct desk *self, const struct model *model, const char *fault, int64_t now_ms);

/* The model has changed, or time has passed. */
void desk_notice(struct desk *self, const struct model *model, int64_t now_ms);

/* The selected member's index, -1 for none. */
int desk_selected(const struct desk *self, const struct model *model);

/* Does the filter let this event through? */
bool desk_shows(const struct desk *self, const struct model_event *event);

/* May this user press the key? */
bool desk_allows(const struct desk *self, const struct model *model, const struct keys_key *key);
