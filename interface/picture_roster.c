/* Owns the line of succession as a table: which columns there are at which width, and what each shows. */
#include <string.h>

#include "picture.h"
#include "words.h"

enum column { RANK, NODE, ROLE, LINE, BEAT, BAR, ADDRESS, VERSION, SCHEDULER, COLUMNS };

static const struct {
    const char *title;
    int width;  /* the node's is as wide as its names, the scheduler's takes what is left */
    int from;   /* width of the screen that has it */
    bool right; /* aligned */
} specs[COLUMNS] = {
    [RANK] = {"#", 2, 0, true},
    [NODE] = {"NODE", 8, 0, false},
    [ROLE] = {"ROLE", 7, 0, false},
    [LINE] = {"SENIOR", 6, 70, true},
    [BEAT] = {"BEAT", 5, 0, true},
    [BAR] = {"OF LEASE", 8, 96, false},
    [ADDRESS] = {"ADDRESS", 15, 116, false},
    [VERSION] = {"VERSION", 8, 130, false},
    [SCHEDULER] = {"SCHEDULER", 12, 0, false},
};

/* The scheduler's column, split where there is room. */
enum { STATE = 9, PID = 7, UP = 6, RESTARTS = 8, SPLIT = STATE + 1 + PID + 1 + UP + 1 + RESTARTS };

enum { SHORT_BAR = 4, SHORT_BAR_FROM = 70 }; /* where the whole one has no room, if the names leave some */

struct columns {
    int x[COLUMNS], width[COLUMNS]; /* width 0: left out */
    bool split;
};

static int longest_node(const struct canvas *canvas, int first, int lines)
{
    int longest = specs[NODE].width;
    for (int i = first; i < canvas->model->snapshot.member_count && i < first + lines; i++) {
        int width = canvas_text_width(canvas, canvas->model->snapshot.members[i].node);
        longest = width > longest ? width : longest;
    }
    return longest;
}

static struct columns plan_columns(const struct canvas *canvas, int first, int lines)
{
    int screen = canvas->frame->width, gap = screen >= 60 ? 2 : 1, count = canvas->model->snapshot.member_count;
    struct columns columns = {.split = screen >= 78};
    int fixed = 3; /* the sign before a line, and a free column after it */
    for (int i = 0; i < COLUMNS; i++) {
        columns.width[i] = screen >= specs[i].from ? specs[i].width : 0;
        if (i == RANK)
            columns.width[i] += (count > 99) + (count > 999);
        if (i == SCHEDULER && columns.split)
            columns.width[i] = SPLIT;
        if (i != NODE && columns.width[i])
            fixed += columns.width[i] + (i == RANK ? 0 : gap);
    }
    int room = screen - fixed - gap, longest = longest_node(canvas, first, lines);
    if (!columns.width[BAR] && screen >= SHORT_BAR_FROM && room - longest >= SHORT_BAR + gap) {
        columns.width[BAR] = SHORT_BAR;
        room -= SHORT_BAR + gap;
    }
    columns.width[NODE] = longest < room ? longest : room > 6 ? room : 6;
    columns.x[RANK] = 2;
    for (int i = 1; i < COLUMNS; i++)
        columns.x[i] = columns.x[i - 1] + columns.width[i - 1] + (columns.width[i - 1] ? gap : 0);
    columns.width[SCHEDULER] = screen - 1 - columns.x[SCHEDULER];
    return columns;
}

static void put_column(const struct canvas *canvas, int y, const struct columns *columns, enum column column,
                       enum layout_role role, const char *text)
{
    if (specs[column].right)
        canvas_put_right(canvas, y, columns->x[column], columns->width[column], role, text);
    else
        (void)canvas_put(canvas, y, columns->x[column], columns->width[column], role, text);
}

static enum layout_role member_role(const struct canvas *canvas, const struct model_member *member)
{
    if (canvas->stale)
        return LAYOUT_DIM;
    if (member->role == MODEL_RETIRED)
        return LAYOUT_RETIRED;
    if (!member->live)
        return LAYOUT_LOST;
    if (member->role == MODEL_HEIR)
        return LAYOUT_HEIR;
    return strcmp(member->reason, "next in line") == 0 ? LAYOUT_NEXT : LAYOUT_STANDBY;
}

static const char *member_sign(const struct canvas *canvas, const struct model_member *member)
{
    if (member->role == MODEL_RETIRED)
        return " ";
    if (!member->live)
        return canvas->signs->warn;
    if (member->role == MODEL_HEIR)
        return canvas->signs->heir;
    return strcmp(member->reason, "next in line") == 0 ? canvas->signs->next : " ";
}

static const char *role_word(enum model_role role)
{
    switch (role) {
    case MODEL_HEIR:
        return "heir";
    case MODEL_STANDBY:
        return "standby";
    case MODEL_RETIRED:
        return "retired";
    }
    return "";
}

static void draw_bar(const struct canvas *canvas, int y, int x, int width, int64_t age_ms, enum layout_role role)
{
    int64_t lease_ms = canvas->model->snapshot.lease_ms;
    int full = lease_ms > 0 && age_ms >= 0 ? (int)(age_ms >= lease_ms ? width : 1 + age_ms * (width - 1) / lease_ms) : 0;
    for (int i = 0; i < width; i++)
        (void)canvas_put(canvas, y, x + i, 1, i < full ? role : LAYOUT_DIM,
                         i < full ? canvas->signs->full : canvas->signs->empty);
}

static void draw_split_scheduler(const struct canvas *canvas, int y, int x, const char *state, const char *pid,
                                 const char *up, const char *restarts, enum layout_role role)
{
    (void)canvas_put(canvas, y, x, STATE, role, state);
    canvas_put_right(canvas, y, x + STATE + 1, PID, role, pid);
    canvas_put_right(canvas, y, x + STATE + PID + 2, UP, role, up);
    canvas_put_right(canvas, y, x + STATE + PID + UP + 3, RESTARTS, role, restarts);
}

/* The heir's scheduler; of the others, why they are not the heir. */
static void draw_scheduler(const struct canvas *canvas, int y, const struct columns *columns,
                           const struct model_member *member, enum layout_role role)
{
    const char *state = member->scheduler.state;
    if (!state[0]) {
        bool starts = member->role == MODEL_HEIR && member->live;
        put_column(canvas, y, columns, SCHEDULER, role, starts ? "no scheduler yet" : member->reason);
        return;
    }
    char up[WORDS_SPAN] = "", text[WORDS_TEXT], pid[32] = "", restarts[32];
    if (member->scheduler.started_at_ms)
        words_span(up, canvas->database_ms - member->scheduler.started_at_ms);
    if (member->scheduler.pid > 0)
        words_print(pid, sizeof pid, "%lld", (long long)member->scheduler.pid);
    words_print(restarts, sizeof restarts, "%lld", (long long)member->scheduler.restarts);
    if (!canvas->stale && strcmp(state, "running") != 0)
        role = LAYOUT_LOST;
    if (columns->split) {
        draw_split_scheduler(canvas, y, columns->x[SCHEDULER], state, pid, up, restarts, role);
        return;
    }
    words_print(text, sizeof text, "%s %s", columns->width[SCHEDULER] < 15 && up[0] ? "up" : state, up);
    put_column(canvas, y, columns, SCHEDULER, role, text);
}

static void draw_member(const struct canvas *canvas, int y, const struct columns *columns,
                        const struct model_member *member)
{
    enum layout_role role = member_role(canvas, member);
    char text[WORDS_TEXT] = "";
    (void)canvas_put(canvas, y, 0, 1, role, member_sign(canvas, member));
    words_print(text, sizeof text, "%lld", (long long)member->rank);
    put_column(canvas, y, columns, RANK, role, text);
    put_column(canvas, y, columns, NODE, role, member->node);
    put_column(canvas, y, columns, ROLE, role, role_word(member->role));
    if (member->registered_at_ms) {
        words_span(text, canvas->database_ms - member->registered_at_ms);
        put_column(canvas, y, columns, LINE, role, text);
    }
    /* of a stale roster the ages of then: those of now would blame the members for our lost connection */
    int64_t since_ms = canvas->stale ? 0 : canvas->view->now_ms - canvas->model->snapshot_ms;
    int64_t age_ms = member->seen_ms_ago >= 0 ? member->seen_ms_ago + since_ms : -1;
    if (age_ms >= 0) {
        words_duration(text, age_ms);
        put_column(canvas, y, columns, BEAT, role, text);
        draw_bar(canvas, y, columns->x[BAR], columns->width[BAR], age_ms, role);
    }
    put_column(canvas, y, columns, ADDRESS, role, member->address);
    put_column(canvas, y, columns, VERSION, role, member->version);
    draw_scheduler(canvas, y, columns, member, role);
}

static void draw_roster_titles(const struct canvas *canvas, int y, const struct columns *columns)
{
    for (int i = 0; i < SCHEDULER; i++)
        put_column(canvas, y, columns, (enum column)i, LAYOUT_DIM,
                   columns->width[i] < specs[i].width && i == BAR ? "LIVE" : specs[i].title);
    if (columns->split)
        draw_split_scheduler(canvas, y, columns->x[SCHEDULER], specs[SCHEDULER].title, "PID", "UP", "RESTARTS", LAYOUT_DIM);
    else
        put_column(canvas, y, columns, SCHEDULER, LAYOUT_DIM, specs[SCHEDULER].title);
}

/* What is above and below the members shown. */
static void draw_rest_of_roster(const struct canvas *canvas, int y, int first, int shown)
{
    const struct model_snapshot *snapshot = &canvas->model->snapshot;
    int64_t below = snapshot->member_total - first - shown;
    int lost = 0;
    for (int i = 0; i < snapshot->member_count; i++)
        lost +=
            (i < first || i >= first + shown) && snapshot->members[i].role != MODEL_RETIRED && !snapshot->members[i].live;
    char text[WORDS_TEXT];
    if (first && below)
        words_print(text, sizeof text, "%s %d above and %lld below", canvas->signs->more, first, (long long)below);
    else if (first)
        words_print(text, sizeof text, "%s %d above", canvas->signs->more, first);
    else
        words_print(text, sizeof text, "%s and %lld more", canvas->signs->more, (long long)below);
    int x = canvas_put(canvas, y, 4, canvas->frame->width - 5, LAYOUT_DIM, text);
    if (lost) {
        words_print(text, sizeof text, ", %d of them not seen for a lease", lost);
        (void)canvas_put(canvas, y, x, canvas->frame->width - 1 - x, canvas->stale ? LAYOUT_DIM : LAYOUT_LOST, text);
    }
}

static void draw_roster_rule(const struct canvas *canvas, int y, bool selected)
{
    char text[WORDS_TEXT] = "", title[WORDS_TEXT], span[WORDS_SPAN];
    bool here = selected && !canvas->desk->news_focused;
    words_print(title, sizeof title, "%s%sLine of succession", here ? canvas->signs->here : "", here ? " " : "");
    if (canvas->stale && canvas->model->has_snapshot) {
        words_span(span, canvas->view->now_ms - canvas->model->snapshot_ms);
        words_print(text, sizeof text, "as it was %s ago", span);
    }
    canvas_rule(canvas, y, LAYOUT_TITLE, title, text);
}

/* The selected member is kept in the middle, so that it is seen where it goes to. */
static int first_member(const struct canvas *canvas, int selected, int shown)
{
    int first = selected - shown / 2, last = canvas->model->snapshot.member_count - shown;
    return first > last ? (last > 0 ? last : 0) : first > 0 ? first : 0;
}

void picture_roster(const struct canvas *canvas, const struct picture_plan *plan)
{
    const struct model_snapshot *snapshot = &canvas->model->snapshot;
    int selected = desk_selected(canvas->desk, canvas->model), lines = plan->roster_lines;
    bool more = snapshot->member_total > lines && lines > 1;
    int shown = more ? lines - 1 : lines, first = more || lines == 1 ? first_member(canvas, selected, shown) : 0;
    struct columns columns = plan_columns(canvas, first, shown);
    if (plan->roster_rule >= 0)
        draw_roster_rule(canvas, plan->roster_rule, selected >= 0);
    if (plan->roster_titles >= 0)
        draw_roster_titles(canvas, plan->roster_titles, &columns);
    for (int i = 0; i < shown && first + i < snapshot->member_count; i++) {
        draw_member(canvas, plan->roster + i, &columns, &snapshot->members[first + i]);
        if (first + i == selected)
            canvas_reverse(canvas, plan->roster + i, 1, canvas->frame->width - 2);
    }
    if (more)
        draw_rest_of_roster(canvas, plan->roster + shown, first, shown);
    if (canvas->model->has_snapshot && !snapshot->member_count)
        (void)canvas_put(canvas, plan->roster, 4, WORDS_TEXT, LAYOUT_DIM, "nobody");
}
