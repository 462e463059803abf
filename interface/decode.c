/* Owns the reading of JSON that others wrote, and trusts none of it. Never keeps anything. */
#include "decode.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"

enum { MOST_DIGITS = 18 };

static const double MOST = 4e15; /* keeps sums of two numbers and products with 1,000 far from overflow */

/* jsonb keeps numbers of any size, the reader of JSON does not: those that say nothing become 0. */
static void tame_numbers(char *text)
{
    bool quoted = false;
    for (char *at = text; *at; at++) {
        size_t digits = quoted ? 0 : strspn(at, "0123456789");
        if (*at == '\\' && quoted && at[1])
            at++;
        else if (*at == '"')
            quoted = !quoted;
        if (digits > MOST_DIGITS)
            memset(at, ' ', digits - 1);
        if (digits > MOST_DIGITS)
            at[digits - 1] = '0';
        at += digits ? digits - 1 : 0;
    }
}

json_t *decode_json(const char *text)
{
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    cleanup_free char *tamed = json ? NULL : strdup(text);
    if (tamed)
        tame_numbers(tamed);
    return tamed ? json_loads(tamed, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL) : json;
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static int64_t number_of(const json_t *object, const char *key, int64_t missing)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value) || !(fabs(json_number_value(value)) < MOST))
        return missing;
    return json_is_integer(value) ? json_integer_value(value) : (int64_t)json_real_value(value);
}

/* "2026-11-21T23:04:20.123456+01:00" or "...Z"; 0 if it is not that. */
static int64_t time_from(const char *text)
{
    struct tm parts = {0};
    const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &parts) : NULL;
    if (!rest)
        return 0;
    int64_t at_ms = (int64_t)timegm(&parts) * 1000;
    if (*rest == '.') {
        char *end = NULL;
        double fraction = strtod(rest, &end);
        at_ms += fraction < 1 ? (int64_t)(fraction * 1000) : 0; /* strtod takes exponents */
        rest = end;
    }
    int hours = 0, minutes = 0;
    if (*rest == '+' || *rest == '-') {
        (void)sscanf(rest + 1, "%2d:%2d", &hours, &minutes); /* what is missing stays 0 */
        at_ms -= (*rest == '-' ? -1 : 1) * (hours * INT64_C(60) + minutes) * 60000;
    }
    return at_ms;
}

/* As text, or as a number of seconds or milliseconds since the epoch. */
static int64_t time_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (json_is_string(value))
        return time_from(json_string_value(value));
    int64_t number = number_of(object, key, 0);
    if (json_is_real(value) && number < 100000000000)
        return (int64_t)(json_real_value(value) * 1000);
    return number < 100000000000 ? number * 1000 : number;
}

static void decode_member(const json_t *json, struct model_member *member)
{
    *member = (struct model_member){
        .member_id = number_of(json, "member_id", 0),
        .rank = number_of(json, "rank", 0),
        .role = MODEL_STANDBY,
        .live = json_is_true(json_object_get(json, "live")),
        .seen_ms_ago = number_of(json, "seen_ms_ago", -1),
        .registered_at_ms = time_of(json, "registered_at"),
    };
    model_text(member->node, sizeof member->node, text_of(json, "node"));
    model_text(member->address, sizeof member->address, text_of(json, "address"));
    model_text(member->version, sizeof member->version, text_of(json, "version"));
    model_text(member->reason, sizeof member->reason, text_of(json, "reason"));
    const char *role = text_of(json, "role");
    if (role && strcmp(role, "heir") == 0)
        member->role = MODEL_HEIR;
    else if (role && strcmp(role, "retired") == 0)
        member->role = MODEL_RETIRED;
    const json_t *scheduler = json_object_get(json, "scheduler");
    model_text(member->scheduler.state, sizeof member->scheduler.state, text_of(scheduler, "state"));
    member->scheduler.pid = number_of(scheduler, "pid", 0);
    member->scheduler.started_at_ms = time_of(scheduler, "started_at");
    member->scheduler.restarts = number_of(scheduler, "restarts", 0);
}

bool decode_status(const char *text, struct model_snapshot *ret_snapshot)
{
    *ret_snapshot = (struct model_snapshot){.exists = text};
    if (!text)
        return true;
    cleanup_json json_t *json = decode_json(text);
    const json_t *members = json_object_get(json, "members");
    if (!json_is_array(members))
        return false;
    size_t count = json_array_size(members);
    ret_snapshot->member_total = (int64_t)count;
    count = count < MODEL_MEMBERS ? count : MODEL_MEMBERS;
    ret_snapshot->members = calloc(count ? count : 1, sizeof *ret_snapshot->members);
    if (!ret_snapshot->members)
        return false;
    for (size_t i = 0; i < count; i++)
        decode_member(json_array_get(members, i), &ret_snapshot->members[i]);
    ret_snapshot->member_count = (int)count;
    ret_snapshot->term = number_of(json, "term", 0);
    ret_snapshot->lease_ms = number_of(json, "lease_ms", 0);
    ret_snapshot->paused = json_is_true(json_object_get(json, "paused"));
    ret_snapshot->acceded_at_ms = time_of(json, "acceded_at");
    model_text(ret_snapshot->heir, sizeof ret_snapshot->heir, text_of(json_object_get(json, "heir"), "node"));
    return true;
}

/* "gap_ms": 41 -> "gap 41 ms". */
static void append_detail(char *text, size_t size, const char *key, const json_t *value)
{
    char name[48], shown[96] = "";
    (void)snprintf(name, sizeof name, "%s", key);
    size_t length = strlen(name);
    const char *unit = "";
    if (length > 3 && strcmp(name + length - 3, "_ms") == 0) {
        name[length - 3] = '\0';
        unit = " ms";
    } else if (length > 3 && strcmp(name + length - 3, "_id") == 0) {
        name[length - 3] = '\0';
    }
    for (char *at = name; *at; at++) {
        if (*at == '_')
            *at = ' ';
    }
    if (json_is_string(value))
        (void)snprintf(shown, sizeof shown, "%s", json_string_value(value));
    else if (json_is_integer(value))
        (void)snprintf(shown, sizeof shown, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        (void)snprintf(shown, sizeof shown, "%.6g", json_real_value(value));
    else if (json_is_boolean(value))
        (void)snprintf(shown, sizeof shown, "%s", json_is_true(value) ? "yes" : "no");
    if (!shown[0])
        return;
    length = strlen(text);
    if (length < size)
        (void)snprintf(text + length, size - length, "%s%s %s%s", length ? ", " : "", name, shown, unit);
}

static void decode_data(json_t *data, struct model_event *event)
{
    char detail[1024] = "";
    const char *reason = text_of(data, "reason");
    if (reason)
        (void)snprintf(detail, sizeof detail, "%s", reason);
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(data, key, value)
    {
        if (strcmp(key, "reason") != 0 && strcmp(key, "term") != 0 && strcmp(key, "sequence") != 0)
            append_detail(detail, sizeof detail, key, value);
    }
    model_text(event->detail, sizeof event->detail, detail);
    event->term = number_of(data, "term", 0);
    event->sequence = number_of(data, "sequence", 0);
}

static const char source_prefix[] = "/heirflow/", type_prefix[] = "heirflow.";

/* "/heirflow/<group>/<who tells it>" */
static bool is_source(const char *source, const char *group)
{
    size_t prefix = sizeof source_prefix - 1, length = strlen(group);
    return strncmp(source + prefix, group, length) == 0 && source[prefix + length] == '/';
}

static bool begins_with(const char *text, const char *prefix)
{
    return text && strncmp(text, prefix, strlen(prefix)) == 0;
}

enum decode_verdict decode_event(const char *body, size_t size, const char *group, struct model_event *ret_event)
{
    *ret_event = (struct model_event){0};
    if (size > DECODE_MOST_BYTES)
        return DECODE_UNREADABLE;
    cleanup_json json_t *json = json_loadb(body, size, JSON_REJECT_DUPLICATES, NULL);
    const char *version = text_of(json, "specversion"), *id = text_of(json, "id"), *type = text_of(json, "type");
    const char *source = text_of(json, "source");
    json_t *data = json_object_get(json, "data");
    if (!version || strcmp(version, "1.0") != 0 || !id || !id[0] || strlen(id) >= sizeof ret_event->id ||
        !begins_with(type, type_prefix) || !begins_with(source, source_prefix) || !json_is_object(data))
        return DECODE_UNREADABLE;
    if (!is_source(source, group))
        return DECODE_FOREIGN;
    model_text(ret_event->id, sizeof ret_event->id, id);
    model_text(ret_event->event, sizeof ret_event->event, type + sizeof type_prefix - 1);
    model_text(ret_event->node, sizeof ret_event->node, text_of(json, "subject"));
    ret_event->at_ms = time_from(text_of(json, "time"));
    decode_data(data, ret_event);
    bool whole = ret_event->sequence > 0 && ret_event->event[0] && ret_event->at_ms > 0;
    return whole ? DECODE_NEWS : DECODE_UNREADABLE;
}
