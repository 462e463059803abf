/* JSON from outside -> the model's structs. Every text goes through model_text on the way. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "model.h"

enum { DECODE_MOST_BYTES = 256 * 1024 }; /* of one event; news of ours stay far below */

/* Text from the database; NULL if it is no JSON. Owned by the caller. */
json_t *decode_json(const char *text);

/* What the function status() returned, NULL for an unknown group. Fills all but database_ms and news_last. False if it
 * cannot be read. */
bool decode_status(const char *json, struct model_snapshot *ret_snapshot);

enum decode_verdict {
    DECODE_NEWS,
    DECODE_FOREIGN,    /* of another group */
    DECODE_UNREADABLE, /* no JSON, too large, or of another schema */
};

/* One CloudEvent. */
enum decode_verdict decode_event(const char *body, size_t size, const char *group, struct model_event *ret_event);
