/* One line an event, `time level event key=value ...` or one JSON object; UTC with milliseconds; to standard error.
 * Only wrapper.c, main.c and the commands log: every other module returns its errors. */
#pragma once

#include <jansson.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };

void log_init(enum log_level level, enum log_format format);

/* `pack` and what follows are jansson's json_pack arguments for one object (may be NULL), e.g.
 *   log_event(LOG_INFO, "abdicated", "{s:s, s:I}", "reason", reason, "gap_ms", (json_int_t)gap);
 * Text values with spaces, quotes or control characters are quoted and escaped. Keys keep their order; null values are
 * left out. Thread-safe: one write(2) a line. */
void log_event(enum log_level level, const char *event, const char *pack, ...);
