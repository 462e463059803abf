/* Owns which questions are asked before something changes, and how outcomes are worded. Never carries anything out. */
#include "desk_orders.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { AWAIT_MS = 90000 };

static const struct model_member *successor(const struct model *model)
{
    for (int i = 0; i < model->snapshot.member_count; i++) {
        if (strcmp(model->snapshot.members[i].reason, "next in line") == 0)
            return &model->snapshot.members[i];
    }
    return NULL;
}

__attribute__((format(printf, 3, 4))) static void ask(struct desk *self, enum desk_order_type type, const char *format, ...)
{
    char text[DESK_TEXT];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    model_text(self->question, sizeof self->question, text);
    self->order.type = type;
    desk_open_panel(self, DESK_CONFIRM, "Sure?");
}

static void take_node(struct desk_order *order, const struct model_member *member)
{
    *order = (struct desk_order){.member_id = member->member_id};
    (void)snprintf(order->node, sizeof order->node, "%s", member->node);
}

static void prepare_stop(struct desk *self, const struct model *model, int64_t now_ms)
{
    const struct model_member *member = desk_selected_member(self, model, now_ms), *next = successor(model);
    if (!member)
        return;
    take_node(&self->order, member);
    if (member->role == MODEL_RETIRED)
        desk_say(self, DESK_SAYS, now_ms, "%s is retired already", member->node);
    else if (member->role != MODEL_HEIR || !member->live)
        ask(self, DESK_RETIRE, "Stop %s? Its node leaves the line of succession; its wrapper stays up.", member->node);
    else if (next)
        ask(self, DESK_RETIRE, "Stop %s? It is the heir: its scheduler ends, and %s runs it next.", member->node,
            next->node);
    else
        ask(self, DESK_RETIRE,
            "Stop %s? It is the heir, and NOBODY IS THERE TO TAKE OVER: the group will be without a scheduler.",
            member->node);
}

void desk_orders_start(struct desk *self, const struct model *model, const char *node, const char *address, int64_t now_ms)
{
    char fault[DESK_TEXT], text[START_COMMAND_TEXT];
    if (!start_command_fill(&self->order.command, self->start_command, node, address, model->group, fault, sizeof fault)) {
        desk_say(self, DESK_BAD, now_ms, "%s: %s", node, fault);
        return;
    }
    start_command_text(&self->order.command, text, sizeof text);
    ask(self, DESK_START, "Start %s? Its wrapper is not running, so this is run from here: %s", node, text);
}

static void prepare_start(struct desk *self, const struct model *model, int64_t now_ms)
{
    int at = desk_selected(self, model);
    if (at < 0) {
        desk_open_input(self, DESK_ADDRESS, "Start a node that is not in the list: its name or address", "");
        return;
    }
    const struct model_member *member = &model->snapshot.members[at];
    bool retired = member->role == MODEL_RETIRED;
    take_node(&self->order, member);
    self->order.enlist = retired;
    if (retired && model->grants[MODEL_RETIRE] != MODEL_GRANTED)
        desk_say(self, DESK_BAD, now_ms, "%s is retired, and this database user may only look", member->node);
    else if (!member->live)
        desk_orders_start(self, model, member->node, member->address, now_ms);
    else if (retired)
        ask(self, DESK_ENLIST, "Start %s? Its node joins the line of succession again, at its end.", member->node);
    else
        desk_say(self, DESK_SAYS, now_ms, "%s is in the line already", member->node);
}

static void prepare_switchover(struct desk *self, const struct model *model, int64_t now_ms)
{
    int at = desk_selected(self, model);
    const struct model_member *member = at >= 0 ? &model->snapshot.members[at] : NULL, *next = successor(model);
    const char *heir = model->snapshot.heir;
    if (member && member->role == MODEL_HEIR)
        member = NULL; /* away from it: to the eldest */
    self->order = (struct desk_order){0};
    if (member)
        take_node(&self->order, member);
    if (!heir[0])
        desk_say(self, DESK_BAD, now_ms, "the group has no heir who could hand over");
    else if (model->snapshot.paused)
        desk_say(self, DESK_BAD, now_ms, "the group is paused: resume it first");
    else if (member)
        ask(self, DESK_SWITCHOVER, "Switch over from %s to %s?", heir, member->node);
    else if (next)
        ask(self, DESK_SWITCHOVER, "Switch over from %s to the eldest standby, %s?", heir, next->node);
    else
        desk_say(self, DESK_BAD, now_ms, "there is no standby that could take over");
}

static void prepare_pause(struct desk *self, const struct model *model, int64_t now_ms)
{
    const struct model_member *heir = model_heir(model);
    self->order = (struct desk_order){0};
    if (!model->snapshot.exists)
        desk_say(self, DESK_BAD, now_ms, "there is no such group yet");
    else if (model->snapshot.paused)
        ask(self, DESK_RESUME, "Resume the group? Takeovers happen again.");
    else if (heir && heir->live)
        ask(self, DESK_PAUSE, "Pause the group? %s goes on, and nobody takes over, not even if its node is lost.",
            heir->node);
    else
        ask(self, DESK_PAUSE, "Pause the group? It has no live heir, and nobody takes over until it is resumed.");
}

static void prepare_removal(struct desk *self, const struct model *model, int64_t now_ms)
{
    const struct model_member *member = desk_selected_member(self, model, now_ms);
    if (!member)
        return;
    take_node(&self->order, member);
    if (member->role == MODEL_HEIR)
        desk_say(self, DESK_BAD, now_ms, "%s is the heir; only a takeover ends its term", member->node);
    else if (member->live)
        desk_say(self, DESK_BAD, now_ms, "%s is alive; end its wrapper first, or stop it with x", member->node);
    else
        ask(self, DESK_REMOVE, "Remove %s from the list? If its wrapper comes back, it joins at the end of the line.",
            member->node);
}

void desk_orders_prepare(struct desk *self, const struct model *model, enum keys_action action, int64_t now_ms)
{
    if (self->waiting)
        desk_say(self, DESK_SAYS, now_ms, "the last order has not been answered yet");
    else if (action == KEYS_STOP)
        prepare_stop(self, model, now_ms);
    else if (action == KEYS_START)
        prepare_start(self, model, now_ms);
    else if (action == KEYS_SWITCHOVER)
        prepare_switchover(self, model, now_ms);
    else if (action == KEYS_PAUSE)
        prepare_pause(self, model, now_ms);
    else if (action == KEYS_REMOVE)
        prepare_removal(self, model, now_ms);
}

/* ---- outcomes */

static void await(struct desk *self, const struct model *model, int64_t now_ms)
{
    self->awaited.term = model->snapshot.term;
    self->awaited.since_ms = now_ms;
    desk_say(self, DESK_SAYS, now_ms, "%s has been asked to hand over ...", model->snapshot.heir);
}

static bool concerns_heir(const struct desk *self, const struct model *model)
{
    int at = model_find_member(model, self->order.member_id, self->order.node);
    return at >= 0 && model->snapshot.members[at].role == MODEL_HEIR;
}

void desk_answer(struct desk *self, const struct model *model, const char *fault, int64_t now_ms)
{
    const char *node = self->order.node;
    enum desk_order_type type = self->order.type;
    self->waiting = false;
    if (fault) {
        desk_say(self, DESK_BAD, now_ms, "%s", fault);
        return;
    }
    switch (type) {
    case DESK_RETIRE:
        if (concerns_heir(self, model))
            await(self, model, now_ms);
        else
            desk_say(self, DESK_GOOD, now_ms, "%s is retired", node);
        break;
    case DESK_ENLIST:
        desk_say(self, DESK_GOOD, now_ms, "%s is in the line again", node);
        break;
    case DESK_SWITCHOVER:
        await(self, model, now_ms);
        break;
    case DESK_PAUSE:
        desk_say(self, DESK_GOOD, now_ms, "paused: nobody takes over until somebody resumes the group");
        break;
    case DESK_RESUME:
        desk_say(self, DESK_GOOD, now_ms, "resumed");
        break;
    case DESK_REMOVE:
        desk_say(self, DESK_GOOD, now_ms, "%s is removed from the list", node);
        break;
    case DESK_START:
        desk_open_panel(self, DESK_OUTPUT, "Output of the start command");
        break;
    case DESK_NO_ORDER:
        break;
    }
}

void desk_notice(struct desk *self, const struct model *model, int64_t now_ms)
{
    if (self->awaited.term && model->snapshot.heir[0] && model->snapshot.term > self->awaited.term) {
        int64_t took_ms = now_ms - self->awaited.since_ms;
        desk_say(self, DESK_GOOD, now_ms, "%s is the heir, term %lld, %lld.%lld s after it was asked for",
                 model->snapshot.heir, (long long)model->snapshot.term, (long long)(took_ms / 1000),
                 (long long)(took_ms / 100 % 10));
        self->awaited.term = 0;
    } else if (self->awaited.term && now_ms - self->awaited.since_ms > AWAIT_MS) {
        desk_say(self, DESK_BAD, now_ms, "nobody has taken over within %d s; see the news", AWAIT_MS / 1000);
        self->awaited.term = 0;
    }
    if (self->said.text[0] && now_ms >= self->said.until_ms && !self->waiting && !self->awaited.term)
        self->said.text[0] = '\0';
}
