/* Owns the names, help and form of the metrics. Never measures anything. */
#include "metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CENSUS_MS 60000 /* what the database said longer ago is no news any more */

struct page {
    FILE *stream;
    char labels[1024]; /* group="...",node="..." */
};

/* Prometheus escapes these three in the value of a label. */
static void put_label(char *buffer, size_t size, const char *name, const char *value)
{
    size_t length = strlen(buffer);
    length += (size_t)snprintf(buffer + length, size - length, "%s%s=\"", length ? "," : "", name);
    for (; *value && length + 4 < size; value++) {
        if (*value == '\\' || *value == '"' || *value == '\n')
            buffer[length++] = '\\';
        buffer[length++] = (char)(*value == '\n' ? 'n' : *value);
    }
    (void)snprintf(buffer + length, size - length, "\"");
}

static void put_head(const struct page *page, const char *name, const char *type, const char *help)
{
    fprintf(page->stream, "# HELP heirflow_%s %s\n# TYPE heirflow_%s %s\n", name, help, name, type);
}

static void put_value(const struct page *page, const char *name, const char *more, double value)
{
    fprintf(page->stream, "heirflow_%s{%s%s} %.15g\n", name, page->labels, more, value);
}

static void put_gauge(const struct page *page, const char *name, double value, const char *help)
{
    put_head(page, name, "gauge", help);
    put_value(page, name, "", value);
}

static double seconds(int64_t ms)
{
    return (double)ms / 1000;
}

static void put_throne(const struct page *page, const struct vitals *vitals, int64_t now_ms)
{
    bool heir = vitals_is_heir(vitals, now_ms);
    put_gauge(page, "is_heir", heir, "Whether this node is the heir: it holds a term whose lease is not over.");
    put_gauge(page, "term", (double)(heir ? vitals->held_term : vitals->term), "The group's term as this node knows it.");
    put_gauge(page, "paused", vitals->paused, "Whether the group is paused: nobody takes over.");
    put_gauge(page, "lease_seconds", seconds(vitals->lease_ms), "How long one renewal lasts.");
    put_gauge(page, "lease_remaining_seconds", heir ? seconds(vitals->deadline_ms - now_ms) : 0,
              "Time until the heir's lease ends unless it is renewed; 0 elsewhere.");
}

static void put_successions(const struct page *page, const struct vitals *vitals)
{
    static const char *const reasons[] = {
        [VITALS_FIRST] = ",reason=\"first\"",
        [VITALS_VACANT] = ",reason=\"vacant\"",
        [VITALS_TAKEOVER] = ",reason=\"takeover\"",
    };
    put_head(
        page, "successions_total", "counter",
        "Times that this node became the heir: of a new group, of a vacant throne, or of an heir that had gone silent.");
    for (int i = 0; i < VITALS_REASONS; i++)
        put_value(page, "successions_total", reasons[i], (double)vitals->successions[i]);
}

static void put_scheduler(const struct page *page, const struct vitals *vitals)
{
    bool up = vitals->scheduler && strcmp(vitals->scheduler, "running") == 0;
    put_gauge(page, "scheduler_up", up, "Whether this node's scheduler runs.");
    put_head(page, "scheduler_restarts_total", "counter", "Restarts of the scheduler in place, under the same term.");
    put_value(page, "scheduler_restarts_total", "", (double)vitals->restarts);
}

static void put_database(const struct page *page, const struct vitals *vitals, int64_t now_ms)
{
    if (vitals->replied_ms)
        put_gauge(page, "database_last_reply_seconds", seconds(vitals_silence_ms(vitals, now_ms)),
                  "Time since the database last replied to this node.");
    put_head(page, "database_request_seconds", "summary", "How long the database took to reply to this node's requests.");
    put_value(page, "database_request_seconds_sum", "", seconds(vitals->waited_ms));
    put_value(page, "database_request_seconds_count", "", (double)vitals->replies);
    if (vitals->unpublished >= 0)
        put_gauge(page, "news_unpublished", (double)vitals->unpublished,
                  "News of the group that no broker has confirmed yet, as of the last reply.");
}

static void put_census(const struct page *page, const struct census *census, int64_t now_ms)
{
    if (!census->taken_ms || now_ms - census->taken_ms > CENSUS_MS)
        return;
    put_gauge(page, "members", (double)census->live,
              "Live members of the group, the heir included; told by the heir alone.");
    put_gauge(page, "members_lost", (double)census->lost,
              "Members that fell silent without leaving; told by the heir alone.");
}

char *metrics_text(const struct vitals *vitals, const struct census *census, const char *group, const char *node,
                   int64_t now_ms)
{
    char *text = NULL;
    size_t size = 0;
    struct page page = {.stream = open_memstream(&text, &size)};
    if (!page.stream)
        return NULL;
    put_label(page.labels, sizeof page.labels, "group", group);
    put_label(page.labels, sizeof page.labels, "node", node);
    put_head(&page, "build_info", "gauge", "The version that runs.");
    put_value(&page, "build_info", ",version=\"" HEIRFLOW_VERSION "\"", 1);
    put_throne(&page, vitals, now_ms);
    put_successions(&page, vitals);
    put_scheduler(&page, vitals);
    put_database(&page, vitals, now_ms);
    if (vitals_is_heir(vitals, now_ms))
        put_census(&page, census, now_ms);
    if (fclose(page.stream) == 0)
        return text;
    free(text);
    return NULL;
}
