/* Owns how things look: what stands where, what gives way when room is short, and in which role. Never touches a
 * terminal, and never cleans text: the model has. */
#include "layout.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FAULT_MARGIN = 4, TEXT = 640, SPAN = 24, DATE = 64, STALE_MS = 3500 };

struct signs {
    const char *heir, *next, *good, *bad, *none, *warn, *dot, *more, *rule, *full, *empty, *scroll;
};

static const struct signs unicode = {"♛", "›", "●", "✗", "○", "!", " · ", "…", "─", "▪", "·", "↑ ↓ PgUp PgDn"};
static const struct signs ascii = {"*", ">", "+", "x", "o", "!", " | ", "~", "-", "#", ".", "arrows PgUp PgDn"};

struct canvas {
    struct layout_frame *frame;
    const struct model *model;
    const struct layout_view *view;
    const struct signs *signs;
    bool stale;          /* the roster is no longer the present one */
    int64_t database_ms; /* the database's clock by now */
};

/* ---- pen */

static struct layout_cell *cell(const struct canvas *canvas, int y, int x)
{
    return &canvas->frame->cells[(size_t)y * (size_t)canvas->frame->width + (size_t)x];
}

static int columns_of(const struct canvas *canvas, uint32_t point)
{
    if (point < 0x7f)
        return 1;
    return canvas->view->ascii ? 1 : wcwidth((wchar_t)point);
}

static int text_width(const struct canvas *canvas, const char *text)
{
    int width = 0;
    for (uint32_t point; (point = model_next_char(&text));) {
        int columns = columns_of(canvas, point);
        width += columns > 0 ? columns : 0;
    }
    return width;
}

static void put_point(const struct canvas *canvas, int y, int x, uint32_t point, int columns, enum layout_role role)
{
    bool foreign = canvas->view->ascii && point > 0x7e;
    *cell(canvas, y, x) = (struct layout_cell){foreign ? L'?' : (wchar_t)point, role};
    if (columns == 2)
        *cell(canvas, y, x + 1) = (struct layout_cell){0, role};
}

/* Writes text from column x on, `room` columns at most, ending in the sign for more if it is cut. Returns the column
 * after it. */
static int put(const struct canvas *canvas, int y, int x, int room, enum layout_role role, const char *text)
{
    if (room > canvas->frame->width - x)
        room = canvas->frame->width - x;
    if (y < 0 || y >= canvas->frame->height || room <= 0)
        return x;
    bool cut = text_width(canvas, text) > room;
    int end = x + room - (cut ? 1 : 0);
    for (uint32_t point; (point = model_next_char(&text));) {
        int columns = columns_of(canvas, point);
        if (columns <= 0)
            continue; /* a combining character */
        if (x + columns > end)
            break;
        put_point(canvas, y, x, point, columns, role);
        x += columns;
    }
    if (cut) {
        const char *more = canvas->signs->more;
        put_point(canvas, y, x++, model_next_char(&more), 1, role);
    }
    return x;
}

static void put_right(const struct canvas *canvas, int y, int x, int room, enum layout_role role, const char *text)
{
    int width = text_width(canvas, text);
    int skip = width < room ? room - width : 0;
    (void)put(canvas, y, x + skip, room - skip, role, text);
}

__attribute__((format(printf, 3, 4))) static void print(char *text, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, size, format, arguments); /* what is cut would not fit a line either */
    va_end(arguments);
}

/* ---- words for numbers */

/* "0.4s", "12s", "3m12s", "2h14m", "12d4h"; six columns at most below 1000 days. */
static void say_duration(char text[SPAN], int64_t ms)
{
    if (ms < 0)
        ms = 0;
    int64_t s = ms / 1000;
    if (ms < 10000)
        (void)snprintf(text, SPAN, "%d.%ds", (int)s, (int)(ms / 100 % 10));
    else if (s < 60)
        (void)snprintf(text, SPAN, "%ds", (int)s);
    else if (s < 3600)
        (void)snprintf(text, SPAN, "%dm%02ds", (int)(s / 60), (int)(s % 60));
    else if (s < 86400)
        (void)snprintf(text, SPAN, "%dh%02dm", (int)(s / 3600), (int)(s / 60 % 60));
    else if (s < 86400 * INT64_C(1000))
        (void)snprintf(text, SPAN, "%dd%dh", (int)(s / 86400), (int)(s / 3600 % 24));
    else
        (void)snprintf(text, SPAN, "%lldd", (long long)(s / 86400));
}

/* Whole seconds: for what lasts, where tenths would only flicker. */
static void say_span(char text[SPAN], int64_t ms)
{
    if (ms >= 0 && ms < 10000)
        (void)snprintf(text, SPAN, "%ds", (int)(ms / 1000));
    else
        say_duration(text, ms);
}

static void say_lease(char text[SPAN], int64_t ms)
{
    if (ms % 1000 == 0)
        (void)snprintf(text, SPAN, "%llds", (long long)(ms / 1000));
    else
        (void)snprintf(text, SPAN, "%lldms", (long long)ms);
}

static struct tm local(int64_t wall_ms)
{
    time_t at = (time_t)(wall_ms / 1000);
    struct tm parts = {0};
    (void)localtime_r(&at, &parts); /* a year beyond an int leaves it zeroed */
    return parts;
}

static bool same_day(int64_t a_ms, int64_t b_ms)
{
    struct tm a = local(a_ms), b = local(b_ms);
    return a.tm_yday == b.tm_yday && a.tm_year == b.tm_year;
}

enum date { DATE_TIME, DATE_MINUTE, DATE_CORNER, DATE_DAY, DATE_LONG_DAY };

static void say_time(char text[DATE], enum date date, int64_t wall_ms)
{
    struct tm parts = local(wall_ms);
    text[0] = '\0';
    switch (date) {
    case DATE_TIME:
        (void)strftime(text, DATE, "%H:%M:%S", &parts);
        break;
    case DATE_MINUTE:
        (void)strftime(text, DATE, "%H:%M", &parts);
        break;
    case DATE_CORNER:
        (void)strftime(text, DATE, "%a %e %b  %H:%M:%S", &parts);
        break;
    case DATE_DAY:
        (void)strftime(text, DATE, "%a %e %b", &parts);
        break;
    case DATE_LONG_DAY:
        (void)strftime(text, DATE, "%A %e %B", &parts);
        break;
    }
}

/* ---- where the parts stand */

struct plan {
    int feeds, fault_lines;
    int roster_rule, roster_titles, roster, roster_lines; /* first lines; -1: none */
    int news_rule, news, news_lines;
    int keys;
};

static bool has_fault(const struct model_link *link)
{
    return !link->up && link->fault[0];
}

/* Long ones get two lines. */
static int fault_lines_of(const struct model_link *link, int width)
{
    return !has_fault(link) ? 0 : (int)strlen(link->fault) > width - FAULT_MARGIN ? 2 : 1;
}

static int fault_lines(const struct model *model, int width)
{
    return fault_lines_of(&model->postgres, width) + fault_lines_of(&model->rabbitmq, width);
}

static int wanted_roster_lines(const struct model *model)
{
    return model->snapshot.member_count > 0 ? model->snapshot.member_count : 1;
}

static struct plan plan_parts(const struct model *model, const struct layout_view *view)
{
    struct plan plan = {.feeds = 2, .roster_rule = -1, .roster_titles = -1, .news_rule = -1, .keys = -1};
    int y = 3, height = view->height;
    plan.fault_lines = fault_lines(model, view->width);
    if (plan.fault_lines > height - 8)
        plan.fault_lines = height > 8 ? height - 8 : 0;
    y += plan.fault_lines;
    int end = height;
    if (view->keys && height >= 14)
        plan.keys = --end;
    if (height >= 14)
        plan.roster_rule = y++;
    if (height >= 9)
        plan.roster_titles = y++;
    plan.roster = y;
    int room = end - y, wanted = wanted_roster_lines(model);
    int most = height >= 14 ? room / 2 : room - 3; /* the news get what the roster leaves, and never nothing */
    plan.roster_lines = wanted < most ? wanted : most > 1 ? most : 1;
    y += plan.roster_lines;
    if (y < end)
        plan.news_rule = y++;
    plan.news = y;
    plan.news_lines = end > y ? end - y : 0;
    return plan;
}

int layout_height(const struct model *model, const struct layout_view *view, int news)
{
    int roster = wanted_roster_lines(model);
    return 3 + fault_lines(model, view->width) + 2 + (roster > news + 1 ? 2 * roster : roster + 1 + news) +
           (view->keys ? 1 : 0);
}

int layout_news_lines(const struct model *model, const struct layout_view *view)
{
    return plan_parts(model, view).news_lines;
}

/* ---- header */

static void draw_rule(const struct canvas *canvas, int y, const char *title, const char *right)
{
    int width = canvas->frame->width;
    for (int x = 0; x < width; x++)
        (void)put(canvas, y, x, 1, LAYOUT_DIM, canvas->signs->rule);
    char text[TEXT];
    print(text, sizeof text, " %s ", title);
    int end = put(canvas, y, 2, width - 4, LAYOUT_TITLE, text);
    if (!right[0])
        return;
    print(text, sizeof text, " %s ", right);
    int columns = text_width(canvas, text);
    if (width - 2 - columns > end)
        (void)put(canvas, y, width - 2 - columns, columns, LAYOUT_DIM, text);
}

static void draw_title(const struct canvas *canvas)
{
    const struct layout_view *view = canvas->view;
    char clock[DATE];
    say_time(clock, view->width >= 60 ? DATE_CORNER : DATE_TIME, view->wall_ms);
    int columns = text_width(canvas, clock);
    int end = put(canvas, 0, 1, view->width - columns - 4, LAYOUT_TITLE, canvas->model->group);
    if (view->width - columns - 1 > end)
        (void)put(canvas, 0, view->width - columns - 1, columns, LAYOUT_DIM, clock);
}

/* Adds a part to a line if all of it fits, so that what goes missing on a narrow screen goes as a whole. */
static int put_part(const struct canvas *canvas, int y, int x, enum layout_role role, const char *text)
{
    const char *dot = x > 1 ? canvas->signs->dot : "";
    int needed = text_width(canvas, dot) + text_width(canvas, text);
    if (x + needed > canvas->frame->width - 1 && x > 1)
        return x;
    x = put(canvas, y, x, needed, LAYOUT_DIM, dot);
    return put(canvas, y, x, canvas->frame->width - 1 - x, role, text);
}

static int draw_heir(const struct canvas *canvas, int x)
{
    const struct model_snapshot *snapshot = &canvas->model->snapshot;
    enum layout_role role = canvas->stale ? LAYOUT_DIM : LAYOUT_HEIR;
    char text[TEXT], span[SPAN];
    if (!snapshot->heir[0]) {
        print(text, sizeof text, "%s no heir", canvas->signs->warn);
        return put_part(canvas, 1, x, canvas->stale ? LAYOUT_DIM : LAYOUT_FAULT, text);
    }
    say_span(span, canvas->database_ms - snapshot->acceded_at_ms);
    int room = canvas->frame->width - 30; /* a long name must not cost the rest of the line */
    print(text, sizeof text, "%s %s", canvas->signs->heir, snapshot->heir);
    if (text_width(canvas, text) > room && room > 8) {
        x = put(canvas, 1, x, room, role, text);
    } else {
        x = put_part(canvas, 1, x, role, text);
    }
    if (snapshot->acceded_at_ms) {
        print(text, sizeof text, " heir for %s", span);
        if (x + text_width(canvas, text) < canvas->frame->width)
            x = put(canvas, 1, x, TEXT, canvas->stale ? LAYOUT_DIM : LAYOUT_PLAIN, text);
    }
    return x;
}

static void draw_summary(const struct canvas *canvas)
{
    const struct model *model = canvas->model;
    const struct model_snapshot *snapshot = &model->snapshot;
    enum layout_role plain = canvas->stale ? LAYOUT_DIM : LAYOUT_PLAIN;
    char text[TEXT], span[SPAN];
    if (!model->has_snapshot) {
        (void)put(canvas, 1, 1, TEXT, LAYOUT_DIM, "nothing known of the roster yet");
        return;
    }
    if (!snapshot->exists) {
        (void)put(canvas, 1, 1, TEXT, canvas->stale ? LAYOUT_DIM : LAYOUT_LOST,
                  "this database knows no such group: nobody has registered in it yet");
        return;
    }
    int x = 1;
    if (canvas->stale) {
        say_span(span, canvas->view->now_ms - model->snapshot_ms);
        print(text, sizeof text, "%s ago", span);
        x = put_part(canvas, 1, x, LAYOUT_LOST, text);
    }
    x = draw_heir(canvas, x);
    if (snapshot->paused)
        x = put_part(canvas, 1, x, canvas->stale ? LAYOUT_DIM : LAYOUT_LOST, "PAUSED");
    print(text, sizeof text, "term %lld", (long long)snapshot->term);
    x = put_part(canvas, 1, x, plain, text);
    say_lease(span, snapshot->lease_ms);
    print(text, sizeof text, "lease %s", span);
    x = put_part(canvas, 1, x, plain, text);
    print(text, sizeof text, "%lld member%s", (long long)snapshot->member_total, snapshot->member_total == 1 ? "" : "s");
    (void)put_part(canvas, 1, x, plain, text);
}

static int draw_feed(const struct canvas *canvas, int x, const char *name, const struct model_link *link)
{
    const struct signs *signs = canvas->signs;
    int64_t now_ms = canvas->view->now_ms;
    char text[TEXT], age[SPAN];
    const char *sign = signs->none;
    enum layout_role role = LAYOUT_DIM;
    if (!link->configured) {
        print(text, sizeof text, "%s not configured", name);
    } else if (link->up) {
        bool late = now_ms - link->word_ms > STALE_MS;
        sign = late ? signs->warn : signs->good;
        role = late ? LAYOUT_LOST : LAYOUT_HEIR;
        say_duration(age, now_ms - link->word_ms);
        print(text, sizeof text, late ? "%s silent for %s" : "%s %s", name, age);
    } else if (link->fault[0]) {
        sign = signs->bad;
        role = LAYOUT_FAULT;
        say_span(age, now_ms - (link->word_ms >= 0 ? link->word_ms : link->changed_ms));
        print(text, sizeof text, "%s lost %s", name, age);
        if (link->word_ms < 0)
            print(text, sizeof text, "%s not reached", name);
    } else {
        print(text, sizeof text, "%s connecting", name);
    }
    x = put(canvas, 2, x, 2, role, sign);
    return put(canvas, 2, x + 1, TEXT, role == LAYOUT_HEIR ? LAYOUT_PLAIN : role, text);
}

/* Breaks between words. Returns the line after it. */
static int draw_fault(const struct canvas *canvas, int y, int end, const struct model_link *link)
{
    int room = canvas->frame->width - FAULT_MARGIN;
    const char *text = link->fault;
    char first[sizeof link->fault];
    if (fault_lines_of(link, canvas->frame->width) == 2 && y + 1 < end && room > 0) {
        int cut = room;
        while (cut > room / 2 && text[cut] != ' ')
            cut--;
        if (text[cut] == ' ') {
            print(first, sizeof first, "%.*s", cut, text);
            (void)put(canvas, y++, 3, room, LAYOUT_FAULT, first);
            text += cut + 1;
        }
    }
    (void)put(canvas, y, 3, room, LAYOUT_FAULT, text);
    return y + 1;
}

static void draw_feeds(const struct canvas *canvas, const struct plan *plan)
{
    const struct model *model = canvas->model;
    int x = draw_feed(canvas, 1, "Postgres", &model->postgres);
    x = draw_feed(canvas, x + 3, "RabbitMQ", &model->rabbitmq);
    if (model->unreadable > 0) {
        char text[TEXT];
        print(text, sizeof text, "%s %lld unreadable message%s", canvas->signs->warn, (long long)model->unreadable,
              model->unreadable == 1 ? "" : "s");
        if (x + 3 + text_width(canvas, text) < canvas->frame->width)
            (void)put(canvas, 2, x + 3, TEXT, LAYOUT_LOST, text);
    }
    const struct model_link *links[] = {&model->postgres, &model->rabbitmq};
    int y = plan->feeds + 1, end = y + plan->fault_lines;
    for (int i = 0; i < 2; i++) {
        if (has_fault(links[i]) && y < end)
            y = draw_fault(canvas, y, end, links[i]);
    }
}

/* ---- roster */

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
    [LINE] = {"IN LINE", 7, 70, true},
    [BEAT] = {"BEAT", 5, 0, true},
    [BAR] = {"OF LEASE", 8, 96, false},
    [ADDRESS] = {"ADDRESS", 15, 116, false},
    [VERSION] = {"VERSION", 8, 130, false},
    [SCHEDULER] = {"SCHEDULER", 12, 0, false},
};

/* The scheduler's column, split where there is room. */
enum { STATE = 9, PID = 7, UP = 6, RESTARTS = 8, SPLIT = STATE + 1 + PID + 1 + UP + 1 + RESTARTS };

struct columns {
    int x[COLUMNS], width[COLUMNS]; /* width 0: left out */
    bool split;
};

static int longest_node(const struct canvas *canvas, int lines)
{
    int longest = specs[NODE].width;
    for (int i = 0; i < canvas->model->snapshot.member_count && i < lines; i++) {
        int width = text_width(canvas, canvas->model->snapshot.members[i].node);
        longest = width > longest ? width : longest;
    }
    return longest;
}

static struct columns plan_columns(const struct canvas *canvas, int lines)
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
    int room = screen - fixed - gap, longest = longest_node(canvas, lines);
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
        put_right(canvas, y, columns->x[column], columns->width[column], role, text);
    else
        (void)put(canvas, y, columns->x[column], columns->width[column], role, text);
}

static enum layout_role member_role(const struct canvas *canvas, const struct model_member *member)
{
    if (canvas->stale)
        return LAYOUT_DIM;
    switch (member->role) {
    case MODEL_HEIR:
        return LAYOUT_HEIR;
    case MODEL_RETIRED:
        return LAYOUT_RETIRED;
    case MODEL_STANDBY:
        break;
    }
    if (!member->live)
        return LAYOUT_LOST;
    return strcmp(member->reason, "next in line") == 0 ? LAYOUT_NEXT : LAYOUT_STANDBY;
}

static const char *member_sign(const struct canvas *canvas, const struct model_member *member)
{
    if (member->role == MODEL_HEIR)
        return canvas->signs->heir;
    if (member->role == MODEL_RETIRED)
        return " ";
    if (!member->live)
        return canvas->signs->warn;
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
        (void)put(canvas, y, x + i, 1, i < full ? role : LAYOUT_DIM, i < full ? canvas->signs->full : canvas->signs->empty);
}

static void draw_split_scheduler(const struct canvas *canvas, int y, int x, const char *state, const char *pid,
                                 const char *up, const char *restarts, enum layout_role role)
{
    (void)put(canvas, y, x, STATE, role, state);
    put_right(canvas, y, x + STATE + 1, PID, role, pid);
    put_right(canvas, y, x + STATE + PID + 2, UP, role, up);
    put_right(canvas, y, x + STATE + PID + UP + 3, RESTARTS, role, restarts);
}

/* The scheduler of whoever has one; of the others, why they are not the heir. */
static void draw_scheduler(const struct canvas *canvas, int y, const struct columns *columns,
                           const struct model_member *member, enum layout_role role)
{
    const char *state = member->scheduler.state;
    bool heir = member->role == MODEL_HEIR;
    if (!state[0] || (!heir && member->scheduler.pid <= 0)) {
        put_column(canvas, y, columns, SCHEDULER, role, heir ? "no scheduler yet" : member->reason);
        return;
    }
    char up[SPAN] = "", text[TEXT], pid[32] = "", restarts[32];
    if (member->scheduler.started_at_ms)
        say_span(up, canvas->database_ms - member->scheduler.started_at_ms);
    if (member->scheduler.pid > 0)
        print(pid, sizeof pid, "%lld", (long long)member->scheduler.pid);
    print(restarts, sizeof restarts, "%lld", (long long)member->scheduler.restarts);
    if (!canvas->stale && strcmp(state, "running") != 0)
        role = LAYOUT_LOST;
    if (heir && columns->split) {
        draw_split_scheduler(canvas, y, columns->x[SCHEDULER], state, pid, up, restarts, role);
        return;
    }
    if (heir)
        print(text, sizeof text, "%s %s", columns->width[SCHEDULER] < 15 && up[0] ? "up" : state, up);
    else /* its last word, from when it was the heir */
        print(text, sizeof text, "%s, was %s %s", member->reason, state, pid);
    put_column(canvas, y, columns, SCHEDULER, role, text);
}

static void draw_member(const struct canvas *canvas, int y, const struct columns *columns,
                        const struct model_member *member)
{
    enum layout_role role = member_role(canvas, member);
    char text[TEXT] = "";
    (void)put(canvas, y, 0, 1, role, member_sign(canvas, member));
    print(text, sizeof text, "%lld", (long long)member->rank);
    put_column(canvas, y, columns, RANK, role, text);
    put_column(canvas, y, columns, NODE, role, member->node);
    put_column(canvas, y, columns, ROLE, role, role_word(member->role));
    if (member->registered_at_ms) {
        say_span(text, canvas->database_ms - member->registered_at_ms);
        put_column(canvas, y, columns, LINE, role, text);
    }
    /* of a stale roster the ages of then: those of now would blame the members for our lost connection */
    int64_t since_ms = canvas->stale ? 0 : canvas->view->now_ms - canvas->model->snapshot_ms;
    int64_t age_ms = member->seen_ms_ago >= 0 ? member->seen_ms_ago + since_ms : -1;
    if (age_ms >= 0) {
        say_duration(text, age_ms);
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
        put_column(canvas, y, columns, (enum column)i, LAYOUT_DIM, specs[i].title);
    if (columns->split)
        draw_split_scheduler(canvas, y, columns->x[SCHEDULER], specs[SCHEDULER].title, "PID", "UP", "RESTARTS", LAYOUT_DIM);
    else
        put_column(canvas, y, columns, SCHEDULER, LAYOUT_DIM, specs[SCHEDULER].title);
}

static void draw_rest_of_roster(const struct canvas *canvas, int y, int shown)
{
    const struct model_snapshot *snapshot = &canvas->model->snapshot;
    int lost = 0;
    for (int i = shown; i < snapshot->member_count; i++)
        lost += snapshot->members[i].role == MODEL_STANDBY && !snapshot->members[i].live;
    char text[TEXT];
    print(text, sizeof text, "%s and %lld more", canvas->signs->more, (long long)(snapshot->member_total - shown));
    int x = put(canvas, y, 4, canvas->frame->width - 5, LAYOUT_DIM, text);
    if (lost) {
        print(text, sizeof text, ", %d of them not seen for a lease", lost);
        (void)put(canvas, y, x, canvas->frame->width - 1 - x, canvas->stale ? LAYOUT_DIM : LAYOUT_LOST, text);
    }
}

static void draw_roster(const struct canvas *canvas, const struct plan *plan)
{
    const struct model_snapshot *snapshot = &canvas->model->snapshot;
    struct columns columns = plan_columns(canvas, plan->roster_lines);
    if (plan->roster_rule >= 0) {
        char text[TEXT] = "", span[SPAN];
        if (canvas->stale && canvas->model->has_snapshot) {
            say_span(span, canvas->view->now_ms - canvas->model->snapshot_ms);
            print(text, sizeof text, "as it was %s ago", span);
        }
        draw_rule(canvas, plan->roster_rule, "Line of succession", text);
    }
    if (plan->roster_titles >= 0)
        draw_roster_titles(canvas, plan->roster_titles, &columns);
    int lines = plan->roster_lines;
    bool more = snapshot->member_total > lines && lines > 1;
    int shown = more ? lines - 1 : lines;
    for (int i = 0; i < shown && i < snapshot->member_count; i++)
        draw_member(canvas, plan->roster + i, &columns, &snapshot->members[i]);
    if (more)
        draw_rest_of_roster(canvas, plan->roster + shown, shown);
    if (canvas->model->has_snapshot && !snapshot->member_count)
        (void)put(canvas, plan->roster, 4, TEXT, LAYOUT_DIM, "nobody");
}

/* ---- news */

/* How each event is shown; the words are those of the log, the routing keys and the history. */
static const struct look {
    const char *event;
    enum layout_role role;
} looks[] = {
    {"acceded", LAYOUT_HEIR},
    {"scheduler-started", LAYOUT_HEIR},
    {"scheduler-exited", LAYOUT_LOST},
    {"scheduler-unhealthy", LAYOUT_LOST},
    {"abdicated", LAYOUT_LOST},
    {"deposed", LAYOUT_FAULT},
    {"lost", LAYOUT_FAULT},
    {"fenced", LAYOUT_FAULT},
    {"paused", LAYOUT_LOST},
    {"retired", LAYOUT_RETIRED},
    {"left", LAYOUT_RETIRED},
    {"registered", LAYOUT_STANDBY},
    {"enlisted", LAYOUT_STANDBY},
    {"resumed", LAYOUT_STANDBY},
};

static enum layout_role event_role(const struct model_event *event)
{
    if (event->stray)
        return LAYOUT_DIM;
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
        if (strcmp(looks[i].event, event->event) == 0)
            return looks[i].role;
    }
    return LAYOUT_PLAIN;
}

static const char *event_sign(const struct canvas *canvas, const struct model_event *event, enum layout_role role)
{
    if (event->stray)
        return "?";
    if (strcmp(event->event, "acceded") == 0)
        return canvas->signs->heir;
    return role == LAYOUT_LOST || role == LAYOUT_FAULT ? canvas->signs->warn : " ";
}

static void draw_event(const struct canvas *canvas, int y, const struct model_event *event, int node_width)
{
    int width = canvas->frame->width;
    enum layout_role role = event_role(event);
    enum layout_role plain = event->stray ? LAYOUT_DIM : LAYOUT_PLAIN;
    char text[TEXT];
    (void)put(canvas, y, 0, 1, role, event_sign(canvas, event, role));
    say_time(text, width >= 50 ? DATE_TIME : DATE_MINUTE, event->at_ms);
    int x = put(canvas, y, 2, 8, plain, text) + (width >= 60 ? 2 : 1);
    (void)put(canvas, y, x, node_width, plain, event->node);
    x += node_width + (width >= 60 ? 2 : 1);
    int end = put(canvas, y, x, width - x - 1, role, event->event);
    x = width >= 78 ? x + 19 : end;
    x = (x > end ? x : end) + 2;
    print(text, sizeof text, "%s", event->detail);
    if (event->term > 0)
        print(text, sizeof text, "%s%sterm %lld", event->detail, event->detail[0] ? ", " : "", (long long)event->term);
    (void)put(canvas, y, x, width - x - 1, event->stray ? LAYOUT_DIM : LAYOUT_STANDBY, text);
    if (event->stray && width >= 78)
        put_right(canvas, y, width - 24, 23, LAYOUT_DIM, "  not in the database");
}

static int anchor_index(const struct model *model, uint64_t anchor)
{
    if (!anchor || model->count == 0)
        return model->count - 1;
    for (int i = model->count - 1; i >= 0; i--) {
        if (model_event(model, i)->arrival == anchor)
            return i;
    }
    return 0; /* too old to be kept */
}

static int64_t not_received(const struct model_event *before, const struct model_event *after)
{
    return before->stray || after->stray || after->sequence <= before->sequence ? 0
                                                                                : after->sequence - before->sequence - 1;
}

/* Does a line of its own stand between this event and the one before: a change of the day, or what is missing? */
static bool breaks(const struct model *model, int index)
{
    const struct model_event *before = model_event(model, index - 1), *after = model_event(model, index);
    return not_received(before, after) > 0 || !same_day(before->at_ms, after->at_ms);
}

static void draw_break(const struct canvas *canvas, int y, const struct model_event *before,
                       const struct model_event *after)
{
    char text[TEXT];
    int64_t missing = not_received(before, after);
    if (missing > 0)
        print(text, sizeof text, "%s %lld not received", canvas->signs->more, (long long)missing);
    else
        say_time(text, DATE_LONG_DAY, after->at_ms);
    (void)put(canvas, y, 2, canvas->frame->width - 3, missing > 0 ? LAYOUT_LOST : LAYOUT_DIM, text);
}

static int news_node_width(const struct canvas *canvas, int bottom, int lines)
{
    int widest = canvas->frame->width >= 110 ? 24 : canvas->frame->width >= 60 ? 14 : 9, width = 6;
    for (int i = bottom; i >= 0 && i > bottom - lines; i--) {
        int columns = text_width(canvas, model_event(canvas->model, i)->node);
        width = columns > width ? columns : width;
    }
    return width < widest ? width : widest;
}

static void draw_news_rule(const struct canvas *canvas, int y, const struct model_event *top, int below)
{
    char day[DATE] = "", text[TEXT] = "";
    if (top && !same_day(top->at_ms, canvas->view->wall_ms))
        say_time(day, DATE_DAY, top->at_ms);
    if (below > 0)
        print(text, sizeof text, "%d newer below%s%s", below, day[0] ? canvas->signs->dot : "", day);
    else
        print(text, sizeof text, "%s", day);
    draw_rule(canvas, y, "News", text);
}

static void draw_news(const struct canvas *canvas, const struct plan *plan)
{
    const struct model *model = canvas->model;
    int bottom = anchor_index(model, canvas->view->anchor), top = bottom + 1, lines = 0;
    while (top > 0 && lines < plan->news_lines) {
        top--;
        lines++;
        if (top > 0 && lines < plan->news_lines && breaks(model, top))
            lines++;
    }
    int node_width = news_node_width(canvas, bottom, plan->news_lines), y = plan->news + lines - 1;
    for (int i = bottom; i >= top; i--) {
        draw_event(canvas, y--, model_event(model, i), node_width);
        if (i > 0 && y >= plan->news && breaks(model, i))
            draw_break(canvas, y--, model_event(model, i - 1), model_event(model, i));
    }
    if (plan->news_rule >= 0)
        draw_news_rule(canvas, plan->news_rule, lines ? model_event(model, top) : NULL, model->count - 1 - bottom);
    if (!model->count && plan->news_lines > 0 && model->whole_to >= 0)
        (void)put(canvas, plan->news, 2, TEXT, LAYOUT_DIM, "none yet");
}

uint64_t layout_scroll(const struct model *model, const struct layout_view *view, int lines)
{
    int newest = model->count - 1, at = anchor_index(model, view->anchor) - lines;
    int least = layout_news_lines(model, view) - 1;
    if (at < least)
        at = least;
    return at >= newest ? 0 : model_event(model, at)->arrival;
}

static void draw_keys(const struct canvas *canvas, int y)
{
    char text[TEXT];
    int x = put(canvas, y, 1, TEXT, LAYOUT_TITLE, "q");
    x = put(canvas, y, x, TEXT, LAYOUT_DIM, " quit   ");
    x = put(canvas, y, x, TEXT, LAYOUT_TITLE, canvas->signs->scroll);
    x = put(canvas, y, x, TEXT, LAYOUT_DIM, " news   ");
    if (canvas->view->anchor) {
        x = put(canvas, y, x, TEXT, LAYOUT_TITLE, "End");
        x = put(canvas, y, x, TEXT, LAYOUT_DIM, " newest");
    }
    print(text, sizeof text, "heirflow %s", HEIRFLOW_VERSION);
    int columns = text_width(canvas, text);
    if (canvas->frame->width - columns - 1 > x + 2)
        (void)put(canvas, y, canvas->frame->width - columns - 1, columns, LAYOUT_DIM, text);
}

bool layout_draw(struct layout_frame *frame, const struct model *model, const struct layout_view *view)
{
    size_t cells = (size_t)view->width * (size_t)view->height;
    struct layout_cell *grown = realloc(frame->cells, (cells ? cells : 1) * sizeof *grown);
    if (!grown)
        return false;
    *frame = (struct layout_frame){view->width, view->height, grown};
    for (size_t i = 0; i < cells; i++)
        grown[i] = (struct layout_cell){L' ', LAYOUT_PLAIN};
    struct canvas canvas = {frame, model, view, view->ascii ? &ascii : &unicode, false, 0};
    int64_t since_ms = view->now_ms - model->snapshot_ms;
    canvas.stale = !model->postgres.up || since_ms > STALE_MS;
    canvas.database_ms = model->snapshot.database_ms + (canvas.stale ? 0 : since_ms);
    struct plan plan = plan_parts(model, view);
    draw_title(&canvas);
    draw_summary(&canvas);
    draw_feeds(&canvas, &plan);
    draw_roster(&canvas, &plan);
    draw_news(&canvas, &plan);
    if (plan.keys >= 0)
        draw_keys(&canvas, plan.keys);
    return true;
}

void layout_finish(struct layout_frame *frame)
{
    free(frame->cells);
    *frame = (struct layout_frame){0};
}
