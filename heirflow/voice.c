/* Owns what this member says to the database: its news until they have arrived, and the description of itself. Never sends
 * anything itself. */
#include "voice.h"

#include <string.h>

#include "clock.h"
#include "migrate.h"
#include "uuid.h"

#define NEWS_PER_REQUEST 64
#define NEWS_KEPT 1024

void voice_init(struct voice *self)
{
    *self = (struct voice){.news = json_array()};
}

void voice_finish(struct voice *self)
{
    json_decref(self->news);
    self->news = NULL;
}

bool voice_keep(struct voice *self, const char *event, const char *reason, int64_t term, json_t *data)
{
    char id[UUID_SIZE];
    uuid_draw(id);
    bool full = json_array_size(self->news) >= NEWS_KEPT;
    if (full) {
        (void)json_array_remove(self->news, self->sent);
        self->lost++;
    }
    json_t *one = json_pack("{s:s, s:s, s:I}", "id", id, "event", event, "term", (json_int_t)term);
    if (reason && json_object_set_new(one, "reason", json_string(reason)) < 0)
        (void)json_object_set_new(one, "reason", json_string("(no valid UTF-8; see this node's log)"));
    if (data)
        (void)json_object_set_new(one, "data", data);
    (void)json_array_append_new(self->news, one);
    return !full || self->lost != 1;
}

json_t *voice_send(struct voice *self, bool carries)
{
    json_t *some = json_array();
    size_t i;
    json_t *one;
    json_array_foreach(self->news, i, one)
    {
        if (i < NEWS_PER_REQUEST)
            (void)json_array_append(some, one);
    }
    self->sent = carries ? json_array_size(some) : 0;
    return some;
}

void voice_arrived(struct voice *self)
{
    for (; self->sent > 0; self->sent--)
        (void)json_array_remove(self->news, 0);
}

void voice_failed(struct voice *self)
{
    self->sent = 0;
}

json_t *voice_drop_refused(struct voice *self, const struct error *error)
{
    if (!self->sent || !strstr(error->text, "(SQLSTATE 22")) /* class 22: the data cannot be stored */
        return NULL;
    json_t *dropped = json_array();
    for (size_t i = 0; i < self->sent; i++)
        (void)json_array_append(dropped, json_array_get(self->news, i));
    voice_arrived(self);
    return dropped;
}

json_t *voice_describe(const struct config *config, const struct succession *succession, json_t *scheduler)
{
    int64_t now_ms = clock_now_ms();
    int64_t lease_ms = succession->observed ? succession->view.lease_ms : config->lease_ms;
    const char *why = succession_why_ineligible(succession, now_ms);
    json_t *object =
        json_pack("{s:s, s:s, s:i, s:b, s:I, s:I, s:I}", "node", config->node, "version", HEIRFLOW_VERSION,
                  "schema_version", migrate_newest_version(), "eligible", !why, "lease_ms", (json_int_t)config->lease_ms,
                  "heartbeat_ms", (json_int_t)succession_heartbeat_ms(&succession->settings, lease_ms), "highest_term",
                  (json_int_t)succession->highest_term);
    int64_t cooling_s = (succession->cooling_until_ms - now_ms + 999) / 1000;
    if (why && strcmp(why, "cooling off") == 0)
        (void)json_object_set_new(object, "reason", json_sprintf("%s %lld s", why, (long long)cooling_s));
    else if (why)
        (void)json_object_set_new(object, "reason", json_string(why));
    if (config->fence_role)
        (void)json_object_set_new(object, "fence_role", json_string(config->fence_role));
    if (succession->closing_reason[0])
        (void)json_object_set_new(object, "registered_because", json_string(succession->closing_reason));
    if (scheduler)
        (void)json_object_set_new(object, "scheduler", scheduler);
    return object;
}
