/* Owns what each key does to the view. Never draws, never asks a server, never reads a clock. */
#include "desk.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "desk_orders.h"

enum { SAID_MS = 10000, EVERYTHING = 1000000 };

void desk_init(struct desk *self, const char *const *start_command, bool replay)
{
    *self = (struct desk){.start_command = start_command, .replay = replay};
}

void desk_say(struct desk *self, enum desk_mood mood, int64_t now_ms, const char *format, ...)
{
    char text[DESK_TEXT];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments); /* model_text marks what does not fit */
    va_end(arguments);
    model_text(self->said.text, sizeof self->said.text, text);
    self->said.mood = mood;
    self->said.until_ms = now_ms + SAID_MS;
}

void desk_change_group(struct desk *self)
{
    self->selected = 0;
    self->selected_node[0] = '\0';
    self->anchor = 0;
    self->filter[0] = '\0';
    self->panel = DESK_NO_PANEL;
    self->waiting = false;
    self->awaited.term = 0;
}

/* ---- selection */

int desk_selected(const struct desk *self, const struct model *model)
{
    return self->selected ? model_find_member(model, self->selected, self->selected_node) : -1;
}

static void move_selection(struct desk *self, const struct model *model, int lines)
{
    int count = model->snapshot.member_count, at = desk_selected(self, model);
    if (!count)
        return;
    at = at < 0 ? (lines > count ? count - 1 : 0) : at + lines;
    at = at < 0 ? 0 : at >= count ? count - 1 : at;
    self->selected = model->snapshot.members[at].member_id;
    model_text(self->selected_node, sizeof self->selected_node, model->snapshot.members[at].node);
}

const struct model_member *desk_selected_member(struct desk *self, const struct model *model, int64_t now_ms)
{
    int at = desk_selected(self, model);
    if (at < 0)
        desk_say(self, DESK_SAYS, now_ms, "select a member first, with the arrow keys");
    return at < 0 ? NULL : &model->snapshot.members[at];
}

bool desk_shows(const struct desk *self, const struct model_event *event)
{
    return !self->filter[0] || strcasestr(event->node, self->filter) || strcasestr(event->event, self->filter) ||
           strcasestr(event->detail, self->filter);
}

/* ---- panels */

void desk_open_panel(struct desk *self, enum desk_panel panel, const char *title)
{
    self->panel = panel;
    self->top = 0;
    (void)snprintf(self->title, sizeof self->title, "%s", title);
}

bool desk_allows(const struct desk *self, const struct model *model, const struct keys_key *key)
{
    if (self->replay && (key->right != MODEL_READ || key->action == KEYS_START || key->action == KEYS_REFRESH))
        return false;
    return key->right == MODEL_READ || model->grants[key->right] == MODEL_GRANTED;
}

static const char *why_not(const struct desk *self, const struct model *model, const struct keys_key *key)
{
    if (self->replay)
        return "this is a recording";
    switch (model->grants[key->right]) {
    case MODEL_UNKNOWN:
        return "the database has not answered yet";
    case MODEL_MISSING:
        return "the schema is older than this program: run `heirflow migrate`";
    case MODEL_DENIED:
        return "needs the role heirflow_operator; this database user may only look";
    case MODEL_GRANTED:
        break;
    }
    return "";
}

static void open_help(struct desk *self, const struct model *model)
{
    page_clear(&self->page);
    for (const struct keys_key *key = keys_table; key->action != KEYS_NONE; key++) {
        if (key->replay && !self->replay)
            continue;
        bool allowed = desk_allows(self, model, key);
        page_add(&self->page, "%-6s %s%s", key->ascii, key->help, allowed ? "" : " (not for you)")->faint = !allowed;
    }
    page_add(&self->page, " ");
    page_add(&self->page, "What changes something asks first, and says what came of it.");
    for (const struct keys_key *key = keys_table; key->action != KEYS_NONE; key++) {
        if (desk_allows(self, model, key) || (key->replay && !self->replay))
            continue;
        page_add(&self->page, "Not for you: %s.", why_not(self, model, key));
        break;
    }
    desk_open_panel(self, DESK_HELP, "Keys");
}

static enum desk_verdict open_details(struct desk *self, const struct model *model, int64_t now_ms)
{
    const struct model_member *member = desk_selected_member(self, model, now_ms);
    if (!member)
        return DESK_DONE;
    page_clear(&self->page);
    page_add(&self->page, "asking the database ...");
    self->details_id = member->member_id;
    desk_open_panel(self, DESK_DETAILS, member->node);
    return DESK_READ_DETAILS;
}

static enum desk_verdict open_groups(struct desk *self)
{
    page_clear(&self->page);
    page_add(&self->page, "asking the database ...");
    self->group_count = 0;
    self->group_at = 0;
    desk_open_panel(self, DESK_GROUPS, "Groups of this database");
    return DESK_READ_GROUPS;
}

void desk_open_input(struct desk *self, enum desk_panel panel, const char *title, const char *text)
{
    desk_open_panel(self, panel, title);
    (void)snprintf(self->input, sizeof self->input, "%s", text);
}

/* ---- keys in panels */

static enum desk_verdict press_confirm(struct desk *self, uint32_t code, int64_t now_ms)
{
    if (code == 'y' || code == 'Y') {
        self->panel = DESK_NO_PANEL;
        self->waiting = true;
        desk_say(self, DESK_SAYS, now_ms, "asking the database ...");
        return DESK_CARRY_OUT;
    }
    if (code == 'n' || code == 'N' || code == 'q' || code == KEYS_CODE_ESCAPE) {
        self->panel = DESK_NO_PANEL;
        desk_say(self, DESK_SAYS, now_ms, "nothing done");
    }
    return DESK_DONE;
}

static void type(struct desk *self, uint32_t code)
{
    size_t length = strlen(self->input);
    if (code == KEYS_CODE_BACKSPACE && length) {
        while (length > 1 && ((unsigned char)self->input[length - 1] & 0xc0) == 0x80)
            length--;
        self->input[length - 1] = '\0';
    } else if (code >= ' ' && code < 0x7f && length + 1 < sizeof self->input) {
        self->input[length] = (char)code;
        self->input[length + 1] = '\0';
    }
}

static enum desk_verdict press_input(struct desk *self, const struct model *model, uint32_t code, int64_t now_ms)
{
    if (code == KEYS_CODE_ESCAPE) {
        self->panel = DESK_NO_PANEL;
    } else if (code != KEYS_CODE_ENTER) {
        type(self, code);
    } else if (self->panel == DESK_FILTER) {
        (void)snprintf(self->filter, sizeof self->filter, "%s", self->input);
        self->anchor = 0;
        self->panel = DESK_NO_PANEL;
    } else {
        self->panel = DESK_NO_PANEL;
        self->order = (struct desk_order){0};
        (void)snprintf(self->order.node, sizeof self->order.node, "%s", self->input);
        if (self->input[0])
            desk_orders_start(self, model, self->input, "", now_ms);
    }
    return DESK_DONE;
}

/* How far a key moves; 0 for all others. */
static int step_of(enum keys_action action, int page)
{
    page = page > 1 ? page - 1 : 1;
    return action == KEYS_UP          ? -1
           : action == KEYS_DOWN      ? 1
           : action == KEYS_PAGE_UP   ? -page
           : action == KEYS_PAGE_DOWN ? page
           : action == KEYS_HOME      ? -EVERYTHING
           : action == KEYS_END       ? EVERYTHING
                                      : 0;
}

static int clamp(int value, int most)
{
    return value > most ? (most > 0 ? most : 0) : value < 0 ? 0 : value;
}

static enum desk_verdict press_panel(struct desk *self, uint32_t code, const struct desk_sizes *sizes)
{
    const struct keys_key *key = keys_find(code);
    enum keys_action action = key ? key->action : KEYS_NONE;
    bool closes = action == KEYS_DETAILS && self->panel != DESK_GROUPS;
    if (closes || action == KEYS_BACK || action == KEYS_QUIT || action == KEYS_HELP)
        self->panel = DESK_NO_PANEL;
    else if (action == KEYS_REPAINT)
        return DESK_REPAINT;
    else if (self->panel != DESK_GROUPS)
        self->top = clamp(self->top + step_of(action, sizes->panel_page), sizes->panel_rows - sizes->panel_page);
    else if (action == KEYS_DETAILS && self->group_count) {
        (void)snprintf(self->chosen, sizeof self->chosen, "%s", self->groups[self->group_at]);
        self->panel = DESK_NO_PANEL;
        return DESK_SWITCH_GROUP;
    } else {
        self->group_at = clamp(self->group_at + step_of(action, sizes->panel_page), self->group_count - 1);
        self->top = clamp(self->group_at - sizes->panel_page / 2, sizes->panel_rows - sizes->panel_page);
    }
    return DESK_DONE;
}

/* ---- keys elsewhere */

static enum desk_verdict move(struct desk *self, const struct model *model, enum keys_action action,
                              const struct desk_sizes *sizes)
{
    int lines = step_of(action, self->news_focused ? sizes->news_page : sizes->line_page);
    if (!self->news_focused) {
        move_selection(self, model, lines);
        return DESK_DONE;
    }
    self->scroll = -lines;
    if (action != KEYS_END)
        return DESK_SCROLL;
    self->anchor = 0;
    return DESK_DONE;
}

static void go_back(struct desk *self)
{
    if (self->filter[0])
        self->filter[0] = '\0';
    else
        self->selected = 0;
}

static enum desk_verdict press_key(struct desk *self, const struct model *model, enum keys_action action,
                                   const struct desk_sizes *sizes, int64_t now_ms)
{
    switch (action) {
    case KEYS_UP:
    case KEYS_DOWN:
    case KEYS_PAGE_UP:
    case KEYS_PAGE_DOWN:
    case KEYS_HOME:
    case KEYS_END:
        return move(self, model, action, sizes);
    case KEYS_FOCUS:
        self->news_focused = !self->news_focused;
        return DESK_DONE;
    case KEYS_DETAILS:
        return open_details(self, model, now_ms);
    case KEYS_STOP:
    case KEYS_START:
    case KEYS_SWITCHOVER:
    case KEYS_PAUSE:
    case KEYS_REMOVE:
        desk_orders_prepare(self, model, action, now_ms);
        return DESK_DONE;
    case KEYS_FILTER:
        desk_open_input(self, DESK_FILTER, "Show only news that contain", self->filter);
        return DESK_DONE;
    case KEYS_GROUPS:
        return open_groups(self);
    case KEYS_OUTPUT:
        desk_open_panel(self, DESK_OUTPUT, "Output of the start command");
        return DESK_DONE;
    case KEYS_BACK:
        go_back(self);
        return DESK_DONE;
    case KEYS_HELP:
        open_help(self, model);
        return DESK_DONE;
    case KEYS_THEME:
        return DESK_THEME;
    case KEYS_REFRESH:
        desk_say(self, DESK_SAYS, now_ms, "asking the database ...");
        return DESK_REFRESH;
    case KEYS_REPAINT:
        return DESK_REPAINT;
    case KEYS_PLAY:
        return self->replay ? DESK_PLAY : DESK_DONE;
    case KEYS_SLOWER:
        return self->replay ? DESK_SLOWER : DESK_DONE;
    case KEYS_FASTER:
        return self->replay ? DESK_FASTER : DESK_DONE;
    case KEYS_QUIT:
        return DESK_QUIT;
    case KEYS_NONE:
        return DESK_DONE;
    }
    return DESK_DONE;
}

enum desk_verdict desk_press(struct desk *self, const struct model *model, uint32_t code, const struct desk_sizes *sizes,
                             int64_t now_ms)
{
    if (!self->waiting && !self->awaited.term)
        self->said.text[0] = '\0'; /* it has been read */
    switch (self->panel) {
    case DESK_CONFIRM:
        return press_confirm(self, code, now_ms);
    case DESK_FILTER:
    case DESK_ADDRESS:
        return press_input(self, model, code, now_ms);
    case DESK_HELP:
    case DESK_DETAILS:
    case DESK_GROUPS:
    case DESK_OUTPUT:
        return press_panel(self, code, sizes);
    case DESK_NO_PANEL:
        break;
    }
    const struct keys_key *key = keys_find(code);
    if (key && !desk_allows(self, model, key)) {
        desk_say(self, DESK_BAD, now_ms, "%s: %s", key->word, why_not(self, model, key));
        return DESK_DONE;
    }
    return press_key(self, model, key ? key->action : KEYS_NONE, sizes, now_ms);
}
