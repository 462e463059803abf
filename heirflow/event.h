/* One event as CloudEvents JSON: what it says of itself, and how it is printed. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Number and id of a group's event; false if it is none of that group, or nothing that Heirflow tells. The id belongs to
 * the body. */
bool event_identify(const json_t *body, const char *group, int64_t *ret_sequence, const char **ret_id);

/* A line such as "2026-11-21T23:00:01.123Z     12 acceded sched1 term=5 reason=takeover member_id=3", or the body as one
 * line of JSON. Without control characters. */
void event_print(json_t *body, bool as_json, FILE *stream);
