/* Owns the form of a log line; never decides what is worth one. */
#include "log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "error.h"

static _Atomic(enum log_level) least_level = LOG_INFO; /* a reload changes them while other threads log */
static _Atomic(enum log_format) chosen_format = LOG_TEXT;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_init(enum log_level level, enum log_format format)
{
    least_level = level;
    chosen_format = format;
}

static void format_time(char *buffer, size_t size)
{
    struct timespec now;
    struct tm utc;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t length = strftime(buffer, size, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(buffer + length, size - length, ".%03ldZ", now.tv_nsec / 1000000);
}

static void print_value(FILE *line, json_t *value)
{
    const char *text = json_string_value(value);
    bool plain = text && *text && !strpbrk(text, " \"=\\");
    for (const unsigned char *c = (const unsigned char *)text; plain && *c; c++)
        plain = *c > ' ' && *c != 0x7f && !(c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f);
    cleanup_free char *quoted = plain ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
    if (quoted)
        error_clean(quoted); /* JSON leaves DEL as it is */
    fputs(plain ? text : quoted ? quoted : "?", line);
}

static void print_text(FILE *line, const char *time, enum log_level level, const char *event, json_t *fields)
{
    const char *key;
    json_t *value;
    fprintf(line, "%s %s %s", time, level_names[level], event);
    json_object_foreach(fields, key, value)
    {
        if (json_is_null(value))
            continue;
        fprintf(line, " %s=", key);
        print_value(line, value);
    }
}

static void print_json(FILE *line, const char *time, enum log_level level, const char *event, json_t *fields)
{
    cleanup_json json_t *object = json_pack("{s:s, s:s, s:s}", "time", time, "level", level_names[level], "event", event);
    const char *key;
    json_t *value;
    json_object_foreach(fields, key, value)
    {
        if (!json_is_null(value))
            (void)json_object_set(object, key, value);
    }
    (void)json_dumpf(object, line, JSON_COMPACT);
}

/* A reader that has stopped reading must stop nobody else: what does not fit is counted and told later. */
static void write_line(const char *text, size_t size)
{
    static atomic_int lost;
    struct pollfd output = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&output, 1, 0) == 0) {
        lost++;
        return;
    }
    int told = atomic_exchange(&lost, 0);
    if (told)
        (void)dprintf(STDERR_FILENO, "(%d log lines before this one were lost: nobody read them)\n", told);
    (void)!write(STDERR_FILENO, text, size); /* where standard error is gone there is nobody to tell */
}

void log_event(enum log_level level, const char *event, const char *pack, ...)
{
    if (level < least_level)
        return;
    cleanup_json json_t *fields = NULL;
    if (pack) {
        json_error_t ignored;
        va_list arguments;
        va_start(arguments, pack);
        fields = json_vpack_ex(&ignored, 0, pack, arguments);
        va_end(arguments);
        if (!fields) /* text that is no UTF-8 must not cost the line */
            fields = json_pack("{s:s}", "log", "fields are not valid UTF-8");
    }
    char time[32];
    format_time(time, sizeof time);
    cleanup_free char *text = NULL;
    size_t size = 0;
    FILE *line = open_memstream(&text, &size);
    if (!line)
        return;
    (chosen_format == LOG_JSON ? print_json : print_text)(line, time, level, event, fields);
    fputc('\n', line);
    (void)fclose(line);
    write_line(text, size);
}
