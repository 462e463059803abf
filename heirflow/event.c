/* Owns the reading and printing of one event. Never lets a control character through. */
#include "event.h"

#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

bool event_identify(const json_t *body, const char *group, int64_t *ret_sequence, const char **ret_id)
{
    static const char prefix[] = "/heirflow/";
    const char *source = text_of(body, "source");
    size_t length = strlen(group);
    if (strncmp(source, prefix, sizeof prefix - 1) != 0)
        return false;
    source += sizeof prefix - 1;
    if (strncmp(source, group, length) != 0 || source[length] != '/')
        return false;
    *ret_sequence = json_integer_value(json_object_get(json_object_get(body, "data"), "sequence"));
    *ret_id = text_of(body, "id");
    return *ret_sequence > 0 && **ret_id;
}

/* " key=value", quoted where a plain word would not do. */
static void print_field(FILE *stream, const char *key, const json_t *value)
{
    const char *text = json_string_value(value);
    if (!value || json_is_null(value))
        return;
    fprintf(stream, " %s=", key);
    if (text && *text && !strpbrk(text, " \"=\\\n\t"))
        fputs(text, stream);
    else
        (void)json_dumpf(value, stream, JSON_ENCODE_ANY | JSON_COMPACT);
}

static void print_fields(json_t *data, FILE *stream)
{
    const char *key;
    json_t *value;
    print_field(stream, "term", json_object_get(data, "term"));
    print_field(stream, "reason", json_object_get(data, "reason"));
    json_object_foreach(data, key, value)
    {
        if (strcmp(key, "sequence") != 0 && strcmp(key, "term") != 0 && strcmp(key, "reason") != 0)
            print_field(stream, key, value);
    }
}

void event_print(json_t *body, bool as_json, FILE *stream)
{
    cleanup_free char *line = NULL;
    size_t size = 0;
    json_t *data = json_object_get(body, "data");
    const char *type = text_of(body, "type"), *subject = text_of(body, "subject");
    FILE *memory = open_memstream(&line, &size); /* so that a line is printed whole */
    if (!memory)
        return;
    if (as_json) {
        (void)json_dumpf(body, memory, JSON_COMPACT | JSON_ENSURE_ASCII);
    } else {
        fprintf(memory, "%s %6lld %s %s", text_of(body, "time"), json_integer_value(json_object_get(data, "sequence")),
                strncmp(type, "heirflow.", 9) == 0 ? type + 9 : type, *subject ? subject : "-");
        print_fields(data, memory);
    }
    (void)fclose(memory);
    error_clean(line);
    fputs(line, stream);
    putc('\n', stream);
}
