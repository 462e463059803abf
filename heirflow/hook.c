/* Owns the running of one hook: its queue, its environment, its turns.
 * Never knows where events come from, nor what a failure means. */
#include "hook.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "uuid.h"

#define LOSSES_MOST 3

const char **hook_command(const struct config *config, const char *key)
{
    return strcmp(key, "hooks.on_event") == 0 ? config->hooks.on_event : config->hooks.on_group_event;
}

static json_t *text_of(const char *text)
{
    json_t *string = json_string(text);
    return string ? string : json_string("(no valid UTF-8; see this node's log)");
}

static json_t *time_now(void)
{
    char text[40];
    struct timespec now;
    struct tm utc;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    size_t length = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(text + length, sizeof text - length, ".%03dZ", (int)(now.tv_nsec / 1000000));
    return json_string(text);
}

json_t *hook_event(const struct config *config, const char *name, const char *id, int64_t term, const char *reason,
                   json_t *data)
{
    char drawn[UUID_SIZE];
    if (!id) {
        uuid_draw(drawn);
        id = drawn;
    }
    data = data ? data : json_object();
    (void)json_object_set_new(data, "term", term ? json_integer(term) : json_null());
    (void)json_object_set_new(data, "reason", reason ? text_of(reason) : json_null());
    return json_pack("{s:s, s:s, s:o, s:o, s:s, s:o, s:s, s:o}", "specversion", "1.0", "id", id, "source",
                     json_sprintf("/heirflow/%s/%s", config->group, config->node), "type",
                     json_sprintf("heirflow.%s", name), "subject", config->node, "time", time_now(), "datacontenttype",
                     "application/json", "data", data);
}

void hook_init(struct hook *self)
{
    self->queue = json_array();
}

bool hook_is_idle(const struct hook *self)
{
    return json_array_size(self->queue) == 0;
}

/* ---- one turn */

static void tell(json_t *environment, const char *name, const json_t *value)
{
    if (json_is_string(value))
        (void)json_object_set_new(environment, name, json_string(json_string_value(value)));
    else if (json_is_integer(value))
        (void)json_object_set_new(environment, name, json_sprintf("%" JSON_INTEGER_FORMAT, json_integer_value(value)));
}

/* The main fields, for hooks that do without JSON. A null takes a variable away. */
static json_t *environment_for(const json_t *event)
{
    const json_t *data = json_object_get(event, "data");
    const char *type = json_string_value(json_object_get(event, "type"));
    const char *name = type && strchr(type, '.') ? strchr(type, '.') + 1 : "";
    json_t *environment = json_pack("{s:s, s:n}", "HEIRFLOW_EVENT", name, "PGPASSWORD");
    tell(environment, "HEIRFLOW_EVENT_ID", json_object_get(event, "id"));
    tell(environment, "HEIRFLOW_SUBJECT", json_object_get(event, "subject"));
    tell(environment, "HEIRFLOW_TIME", json_object_get(event, "time"));
    tell(environment, "HEIRFLOW_REASON", json_object_get(data, "reason"));
    tell(environment, "HEIRFLOW_SEQUENCE", json_object_get(data, "sequence"));
    return environment;
}

static void finish_first(struct hook *self, const char *reason)
{
    cleanup_json json_t *event = json_incref(json_array_get(self->queue, 0));
    (void)json_array_remove(self->queue, 0);
    self->losses = 0;
    self->on_done(self->data, event, reason);
    if (hook_is_idle(self))
        self->dropped = 0;
}

static void on_end(void *data, const struct errand_end *end)
{
    struct hook *self = data;
    self->errand = NULL;
    bool again = end->lost && ++self->losses < LOSSES_MOST;
    if (!again)
        finish_first(self, end->reason);
    if (again && self->on_lost)
        self->on_lost(self->data);
    else
        hook_run(self);
}

/* False if it could not be started. */
static bool start(struct hook *self, struct error *error)
{
    const struct config *config = self->config;
    const json_t *event = json_array_get(self->queue, 0);
    cleanup_json json_t *environment = environment_for(event);
    cleanup_free char *text = json_dumps(event, JSON_COMPACT);
    if (!text)
        return error_set(error, EXIT_CODE_NEGATIVE, "out of memory");
    const struct errand_spec spec = {
        .command = hook_command(config, self->key),
        .key = self->key,
        .environment = environment,
        .group = config->group,
        .node = config->node,
        .seat = self->seat,
        .term = json_integer_value(json_object_get(json_object_get(event, "data"), "term")),
        .timeout_ms = config->hooks.timeout_ms,
        .input = text,
        .input_size = strlen(text),
    };
    return errand_start(self->loop, &spec, on_end, self, &self->errand, error);
}

void hook_run(struct hook *self)
{
    struct error error;
    while (!self->errand && !hook_is_idle(self)) {
        if (!hook_command(self->config, self->key)) /* taken out of the configuration meanwhile */
            (void)json_array_clear(self->queue);
        else if (!start(self, &error))
            finish_first(self, error.text);
    }
}

void hook_put(struct hook *self, json_t *event)
{
    if (json_array_size(self->queue) > HOOK_QUEUED) {
        (void)json_array_remove(self->queue, 1); /* the first one runs */
        self->dropped++;
    }
    (void)json_array_append_new(self->queue, event);
}

size_t hook_stop(struct hook *self)
{
    size_t left = json_array_size(self->queue);
    errand_cancel(self->errand);
    self->errand = NULL;
    json_decref(self->queue);
    self->queue = NULL;
    return left;
}
