/* Owns the commands that read, and how what they found is printed. Never changes anything in the database; nothing that
 * came from there reaches the terminal with its control characters. */
#include "commands.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "migrate.h"
#include "session.h"

#define DEFAULT_LIMIT 20

/* ---- tables */

enum { COLUMNS_MAX = 6, CELL_BYTES = 160 };

struct table {
    int columns, rows;
    char (*cells)[COLUMNS_MAX][CELL_BYTES];
};

static void cleanup_table_(struct table *table)
{
    free(table->cells);
}
#define cleanup_table __attribute__((cleanup(cleanup_table_)))

/* Where the n-th character of UTF-8 text begins, or its end. */
static char *character(char *text, int n)
{
    for (; *text; text++) {
        if (((unsigned char)*text & 0xc0) != 0x80 && n-- == 0)
            break;
    }
    return text;
}

static int width_of(char *text)
{
    int width = 0;
    while (*character(text, width))
        width++;
    return width;
}

/* One row; cells beyond `most` characters are cut. */
static void table_add(struct table *table, int most, const char *const *cells)
{
    void *grown = realloc(table->cells, sizeof *table->cells * (size_t)(table->rows + 1));
    if (!grown)
        return;
    table->cells = grown;
    for (int i = 0; i < table->columns; i++) {
        char *cell = table->cells[table->rows][i];
        (void)snprintf(cell, CELL_BYTES, "%s", cells[i] ? cells[i] : "");
        error_clean(cell);
        if (i < table->columns - 1 && width_of(cell) > most)
            strcpy(character(cell, most - 1), "~");
    }
    table->rows++;
}

static void table_print(struct table *table)
{
    int widths[COLUMNS_MAX] = {0};
    for (int row = 0; row < table->rows; row++) {
        for (int i = 0; i < table->columns; i++) {
            int width = width_of(table->cells[row][i]);
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
    for (int row = 0; row < table->rows; row++) {
        int owed = 0; /* blanks are only printed before something */
        for (int i = 0; i < table->columns; i++) {
            char *cell = table->cells[row][i];
            if (*cell) {
                printf("%*s%s", owed, "", cell);
                owed = 0;
            }
            owed += widths[i] - width_of(cell) + 2;
        }
        putchar('\n');
    }
}

/* "41 ms", "12 s", "3 min", "27 h", "5 d" */
static void format_duration(double seconds, char *buffer, size_t size)
{
    long long whole = seconds > 0 ? (long long)seconds : 0;
    if (whole < 1)
        (void)snprintf(buffer, size, "%d ms", seconds > 0 ? (int)(seconds * 1000) : 0);
    else if (whole < 120)
        (void)snprintf(buffer, size, "%lld s", whole);
    else if (whole < 2LL * 3600)
        (void)snprintf(buffer, size, "%lld min", whole / 60);
    else if (whole < 2LL * 86400)
        (void)snprintf(buffer, size, "%lld h", whole / 3600);
    else
        (void)snprintf(buffer, size, "%lld d", whole / 86400);
}

static const char *text_of(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long number_of(json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

/* Seconds since the epoch of "2026-11-21T23:00:01.5+00:00" or "...Z"; negative where there is none. */
static double time_of(json_t *object, const char *key)
{
    struct tm parts = {0};
    const char *end = strptime(text_of(object, key), "%Y-%m-%dT%H:%M:%S", &parts);
    if (!end)
        return -1;
    return (double)timegm(&parts) + (*end == '.' ? strtod(end, NULL) : 0);
}

/* "2026-11-21 23:00:01" of such a time, "-" for none. */
static void format_time(json_t *object, const char *key, char *buffer, size_t size)
{
    const char *text = text_of(object, key);
    (void)snprintf(buffer, size, "%.19s", *text ? text : "-");
    char *divider = strchr(buffer, 'T');
    if (divider)
        *divider = ' ';
}

static void format_gap(json_t *term, char *buffer, size_t size)
{
    if (json_is_integer(json_object_get(term, "gap_ms")))
        format_duration((double)number_of(term, "gap_ms") / 1000, buffer, size);
    else
        (void)snprintf(buffer, size, "-");
}

static int print_json(json_t *value)
{
    (void)json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII); /* ASCII: no control character gets through */
    putchar('\n');
    return EXIT_CODE_OK;
}

/* ---- one question, one answer */

struct report {
    const char *command, *sql; /* $1 is the group; see session_ask() for the answer */
    void (*print)(json_t *answer, double now, const struct config *config);
};

/* `more`: $2, or NULL if there is none. */
static int run_report(const struct report *report, const struct config *config, const struct options *options,
                      const char *more, json_t **ret_answer)
{
    struct error error;
    struct postgres_session *session = NULL;
    char name[32];
    double now = 0;
    int code = EXIT_CODE_OK;
    (void)snprintf(name, sizeof name, "heirflow %s", report->command);
    if (!session_open(config, name, &session, &error) ||
        !session_ask(session, report->sql, more ? 2 : 1, (const char *[]){config->group, more}, ret_answer, &now, &error) ||
        (json_is_null(*ret_answer) && !session_refuse_group(session, config, &error)))
        code = session_fail(report->command, &error);
    else if (options->json)
        code = print_json(*ret_answer);
    else
        report->print(*ret_answer, now, config);
    postgres_session_close(session);
    return code;
}

/* ---- status */

static void describe_scheduler(json_t *scheduler, double now, char *buffer, size_t size)
{
    char uptime[32] = "";
    long long restarts = number_of(scheduler, "restarts");
    double started_at = time_of(scheduler, "started_at");
    if (started_at >= 0)
        format_duration(now - started_at, uptime, sizeof uptime);
    (void)snprintf(buffer, size, "%s%s%s", text_of(scheduler, "state"), *uptime ? " " : "", uptime);
    size_t length = strlen(buffer);
    if (restarts && length < size)
        (void)snprintf(buffer + length, size - length, ", %lld restart%s", restarts, restarts == 1 ? "" : "s");
}

static void print_members(json_t *status, double now)
{
    cleanup_table struct table table = {.columns = 6};
    size_t index;
    json_t *member;
    table_add(&table, 28, (const char *[]){"RANK", "NODE", "ROLE", "SEEN", "SCHEDULER", "WHY NOT HEIR"});
    json_array_foreach(json_object_get(status, "members"), index, member)
    {
        char rank[24], seen[48], scheduler[96];
        (void)snprintf(rank, sizeof rank, "%4lld", number_of(member, "rank"));
        format_duration((double)number_of(member, "seen_ms_ago") / 1000, seen, sizeof seen - 5);
        strcat(seen, " ago");
        describe_scheduler(json_object_get(member, "scheduler"), now, scheduler, sizeof scheduler);
        table_add(&table, 28,
                  (const char *[]){rank, text_of(member, "node"), text_of(member, "role"), seen,
                                   *scheduler ? scheduler : "-", text_of(member, "reason")});
    }
    table_print(&table);
}

static void print_status(json_t *status, double now, const struct config *config)
{
    char since[32], lease[32], group[400], heir[400];
    json_t *holder = json_object_get(status, "heir");
    (void)snprintf(group, sizeof group, "%s", text_of(status, "group"));
    (void)snprintf(heir, sizeof heir, "%s", text_of(holder, "node"));
    error_clean(group);
    error_clean(heir);
    format_duration((double)number_of(status, "lease_ms") / 1000, lease, sizeof lease);
    format_duration(now - time_of(status, "acceded_at"), since, sizeof since);
    printf("group %s, term %lld, lease %s", group, number_of(status, "term"), lease);
    bool lapsed = json_is_false(json_object_get(json_array_get(json_object_get(status, "members"), 0), "live"));
    if (json_is_object(holder)) /* and so the first member */
        printf(", heir %s for %s%s\n", heir, since, lapsed ? ", its lease has lapsed" : "");
    else
        puts(number_of(status, "term") ? ", no heir at present" : ", no heir yet: the first one waits a lease");
    if (json_is_true(json_object_get(status, "paused")))
        puts("paused: nobody takes over");
    if (number_of(status, "wait_ms") > number_of(status, "lease_ms")) {
        format_duration((double)number_of(status, "wait_ms") / 1000, lease, sizeof lease);
        printf("if the database restarts before the next accession, everybody waits %s\n", lease);
    }
    if (config->rabbitmq.url_count > 0 && number_of(status, "unpublished") > 0)
        printf("%lld news not yet published to RabbitMQ\n", number_of(status, "unpublished"));
    putchar('\n');
    print_members(status, now);
}

int commands_status(const struct config *config, const struct options *options)
{
    static const struct report report = {"status", "select status($1), extract(epoch from clock_timestamp())",
                                         print_status};
    cleanup_json json_t *status = NULL;
    return run_report(&report, config, options, NULL, &status);
}

/* ---- history */

static const char no_term_yet[] = "no term yet: nobody has been heir so far";

static void print_history(json_t *terms, double now, const struct config *config)
{
    cleanup_table struct table table = {.columns = 6};
    size_t index;
    json_t *term;
    if (json_array_size(terms) == 0) {
        puts(no_term_yet);
        return;
    }
    table_add(&table, 24, (const char *[]){"TERM", "NODE", "BEGAN (UTC)", "LASTED", "GAP", "ENDED"});
    json_array_foreach(terms, index, term)
    {
        char number[24], began[24], lasted[32], gap[32], ended[160];
        double ended_at = time_of(term, "ended_at");
        (void)snprintf(number, sizeof number, "%lld", number_of(term, "term"));
        format_time(term, "began_at", began, sizeof began);
        format_gap(term, gap, sizeof gap);
        format_duration((ended_at < 0 ? now : ended_at) - time_of(term, "began_at"), lasted, sizeof lasted);
        (void)snprintf(ended, sizeof ended, "%s%s%s", ended_at < 0 ? "still heir" : text_of(term, "ended_by"),
                       *text_of(term, "reason") ? ": " : "", text_of(term, "reason"));
        table_add(&table, 24, (const char *[]){number, text_of(term, "node"), began, lasted, gap, ended});
    }
    table_print(&table);
}

int commands_history(const struct config *config, const struct options *options)
{
    static const struct report report = {
        "history",
        "select case when news_last($1) is not null then history($1, least($2::bigint, 1000000)::integer) end,"
        " extract(epoch from clock_timestamp())",
        print_history};
    cleanup_json json_t *terms = NULL;
    char limit[24];
    (void)snprintf(limit, sizeof limit, "%lld", (long long)(options->limit < 0 ? DEFAULT_LIMIT : options->limit));
    return run_report(&report, config, options, limit, &terms);
}

/* ---- audit */

static void describe_end(json_t *term, char *buffer, size_t size)
{
    bool presumed = json_is_true(json_object_get(term, "presumed"));
    const char *reason = text_of(term, "reason"), *how = text_of(term, "ended_by");
    if (json_is_true(json_object_get(term, "running")))
        how = "still heir";
    else if (!*how)
        how = presumed ? "not renewed" : "end not recorded";
    (void)snprintf(buffer, size, "%s%s%s%s%s", json_is_true(json_object_get(term, "overlaps")) ? "OVERLAP; " : "", how,
                   *reason ? ": " : "", reason, presumed ? " (end presumed)" : "");
}

static void print_audit(json_t *audit, double now, const struct config *config)
{
    cleanup_table struct table table = {.columns = 6};
    long long overlaps = number_of(audit, "overlaps");
    json_t *terms = json_object_get(audit, "terms"), *term;
    size_t index;
    if (json_array_size(terms) == 0) {
        puts(no_term_yet);
        return;
    }
    table_add(&table, 24, (const char *[]){"TERM", "NODE", "BEGAN (UTC)", "ENDED (UTC)", "GAP", "HOW IT ENDED"});
    json_array_foreach(terms, index, term)
    {
        char number[24], began[24], ended[24], gap[32], how[160];
        (void)snprintf(number, sizeof number, "%lld", number_of(term, "term"));
        format_time(term, "began_at", began, sizeof began);
        format_time(term, "ended_at", ended, sizeof ended);
        format_gap(term, gap, sizeof gap);
        describe_end(term, how, sizeof how);
        table_add(&table, 24, (const char *[]){number, text_of(term, "node"), began, ended, gap, how});
    }
    table_print(&table);
    if (overlaps)
        printf("\n%lld overlap%s recorded: a term began before an earlier one had ended, or the database's clock was set "
               "back\n",
               overlaps, overlaps == 1 ? "" : "s");
    else
        puts("\nno overlap recorded");
}

int commands_audit(const struct config *config, const struct options *options)
{
    static const struct report report = {"audit", "select audit($1), extract(epoch from clock_timestamp())", print_audit};
    cleanup_json json_t *audit = NULL;
    int code = run_report(&report, config, options, NULL, &audit);
    return code == EXIT_CODE_OK && number_of(audit, "overlaps") > 0 ? EXIT_CODE_NEGATIVE : code;
}

/* ---- without a database */

int commands_version(const struct options *options)
{
    printf("heirflow %s (schema %d)\n", HEIRFLOW_VERSION, migrate_newest_version());
    return EXIT_CODE_OK;
}

int commands_help(const struct options *options)
{
    const struct command *command = NULL;
    if (options->topic) {
        for (command = commands; command->name && strcmp(command->name, options->topic) != 0; command++)
            ;
        if (!command->name) {
            fprintf(stderr, "heirflow help: unknown command \"%.60s\"; see heirflow --help\n", options->topic);
            return EXIT_CODE_USAGE;
        }
    }
    options_print_help(command, stdout);
    return EXIT_CODE_OK;
}
