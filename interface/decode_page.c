/* Owns how a member's details and the list of groups are worded. Never keeps anything. */
#include "decode_page.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "decode.h"
#include "words.h"

enum { LABEL = 16 };

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void add_field(struct page *page, const char *label, const json_t *value, const char *unit)
{
    if (json_is_string(value))
        (void)page_add(page, "%-*s %s%s", LABEL, label, json_string_value(value), unit);
    else if (json_is_integer(value))
        (void)page_add(page, "%-*s %lld%s", LABEL, label, (long long)json_integer_value(value), unit);
    else if (json_is_boolean(value))
        (void)page_add(page, "%-*s %s", LABEL, label, json_is_true(value) ? "yes" : "no");
}

/* What has a line of its own, in this order; anything else a member says of itself comes after it as it is. */
static const struct field {
    const char *object, *key, *label, *unit;
} fields[] = {
    {"member", "role", "role", ""},
    {"member", "reason", "because", ""},
    {"member", "rank", "rank", ""},
    {"member", "seen_ms_ago", "last beat", " ms ago"},
    {"member", "address", "address", ""},
    {"member", "member_id", "member", ""},
    {"member", "registered_at", "registered", ""},
    {"self", "registered_because", "registered for", ""},
    {NULL, "generation", "registrations", " of this run directory"},
    {NULL, "eligible", "may lead", ""},
    {NULL, "told_lost", "reported lost", ""},
    {NULL, "retired_at", "retired", ""},
    {"self", "version", "version", ""},
    {"self", "schema_version", "knows schema", ""},
    {"self", "lease_ms", "lease wanted", " ms"},
    {"self", "heartbeat_ms", "heartbeat", " ms"},
    {"self", "highest_term", "highest term", ""},
};

static bool has_line(const char *key)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strcmp(fields[i].key, key) == 0)
            return true;
    }
    return strcmp(key, "node") == 0 || strcmp(key, "reason") == 0 || strcmp(key, "scheduler") == 0;
}

static void add_fields(struct page *page, const json_t *details)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const struct field *field = &fields[i];
        const json_t *object = field->object ? json_object_get(details, field->object) : details;
        add_field(page, field->label, json_object_get(object, field->key), field->unit);
    }
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(json_object_get(details, "self"), key, value)
    {
        if (!has_line(key))
            add_field(page, key, value, "");
    }
    json_object_foreach(json_object_get(json_object_get(details, "self"), "scheduler"), key, value)
    {
        char label[64];
        (void)snprintf(label, sizeof label, "scheduler %s", key);
        add_field(page, label, value, "");
    }
}

static void add_terms(struct page *page, const json_t *terms)
{
    size_t index = 0;
    json_t *term = NULL;
    if (json_array_size(terms))
        page_add_heading(page, "Its latest terms");
    json_array_foreach(terms, index, term)
    {
        const char *ended_at = text_of(term, "ended_at"), *by = text_of(term, "ended_by"), *why = text_of(term, "reason");
        const char *began_at = text_of(term, "began_at");
        (void)page_add(page, "%lld  %.19s to %.19s  %s%s%s", (long long)json_integer_value(json_object_get(term, "term")),
                       began_at ? began_at : "", ended_at ? ended_at : "now", by ? by : "", why ? ": " : "",
                       why ? why : "");
    }
}

static void add_events(struct page *page, const json_t *events, const char *group)
{
    size_t index = 0;
    json_t *body = NULL;
    page_add_heading(page, "Its last events");
    json_array_foreach(events, index, body)
    {
        struct model_event event;
        char day[WORDS_DATE], time[WORDS_DATE];
        cleanup_free char *text = json_dumps(body, JSON_COMPACT);
        if (!text || decode_event(text, strlen(text), group, &event) != DECODE_NEWS)
            continue;
        words_time(day, WORDS_DAY, event.at_ms);
        words_time(time, WORDS_TIME, event.at_ms);
        const char *comma = event.detail[0] && event.term ? ", " : "";
        if (event.term)
            (void)page_add(page, "%s %s  %-19s  %s%sterm %lld", day, time, event.event, event.detail, comma,
                           (long long)event.term);
        else
            (void)page_add(page, "%s %s  %-19s  %s", day, time, event.event, event.detail);
    }
    if (!json_array_size(events))
        (void)page_add(page, "none");
}

void decode_details(const char *text, const char *group, struct page *ret_page)
{
    cleanup_json json_t *details = decode_json(text);
    page_clear(ret_page);
    if (!json_is_object(details)) {
        (void)page_add(ret_page, "it is not in the roster any more");
        return;
    }
    add_fields(ret_page, details);
    add_terms(ret_page, json_object_get(details, "terms"));
    add_events(ret_page, json_object_get(details, "events"), group);
}

static void add_group(struct desk *desk, const json_t *group, const char *current)
{
    const char *heir = text_of(group, "heir"), *name = text_of(group, "group");
    model_text(desk->groups[desk->group_count], MODEL_NAME, name);
    if (name && strcmp(name, current) == 0)
        desk->group_at = desk->group_count;
    desk->group_count++;
    (void)page_add(&desk->page, "%-24s %s%s, term %lld, %lld of %lld live%s", name ? name : "", heir ? "heir " : "no heir",
                   heir ? heir : "", (long long)json_integer_value(json_object_get(group, "term")),
                   (long long)json_integer_value(json_object_get(group, "live")),
                   (long long)json_integer_value(json_object_get(group, "members")),
                   json_is_true(json_object_get(group, "paused")) ? ", PAUSED" : "");
}

void decode_groups(const char *text, const char *current, struct desk *desk)
{
    cleanup_json json_t *groups = decode_json(text);
    size_t index = 0;
    json_t *group = NULL;
    page_clear(&desk->page);
    desk->group_count = desk->group_at = 0;
    json_array_foreach(groups, index, group)
    {
        if (desk->group_count < DESK_GROUPS_MOST)
            add_group(desk, group, current);
    }
    if (!desk->group_count)
        (void)page_add(&desk->page, "this database knows no group yet");
}
