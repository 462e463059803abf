/* Owns what a configuration that is read again changes, and when. Never reads one. */
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "config.h"

static const void *value_of(const struct config *config, const struct config_key *key)
{
    return (const char *)config + key->offset;
}

static bool same_text(const char *one, const char *other)
{
    return one && other ? strcmp(one, other) == 0 : one == other;
}

static bool same_list(const char **one, const char **other)
{
    if (!one || !other)
        return one == other;
    while (*one && *other && strcmp(*one, *other) == 0) {
        one++;
        other++;
    }
    return !*one && !*other;
}

static size_t size_of(enum config_type type)
{
    switch (type) {
    case CONFIG_TEXT:
    case CONFIG_LIST:
    case CONFIG_MAP:
        return sizeof(void *);
    case CONFIG_INTEGER:
        return sizeof(int64_t);
    case CONFIG_BOOLEAN:
        return sizeof(bool);
    case CONFIG_LEVEL:
        return sizeof(enum log_level);
    case CONFIG_FORMAT:
        return sizeof(enum log_format);
    }
    abort(); /* there is no other */
}

static bool same(const struct config_key *key, const struct config *config, const struct config *other)
{
    const void *here = value_of(config, key), *there = value_of(other, key);
    switch (key->type) {
    case CONFIG_TEXT:
        return same_text(*(const char *const *)here, *(const char *const *)there);
    case CONFIG_LIST:
        return same_list(*(const char **const *)here, *(const char **const *)there);
    case CONFIG_MAP: {
        json_t *one = *(json_t *const *)here, *two = *(json_t *const *)there;
        return one && two ? json_equal(one, two) : one == two;
    }
    case CONFIG_INTEGER:
    case CONFIG_BOOLEAN:
    case CONFIG_LEVEL:
    case CONFIG_FORMAT:
        break;
    }
    return memcmp(here, there, size_of(key->type)) == 0;
}

char *config_changes(const struct config *config, const struct config *fresh, enum config_effect effect)
{
    char *text = NULL;
    size_t size = 0;
    FILE *list = open_memstream(&text, &size);
    if (!list)
        return NULL;
    for (const struct config_key *key = config_keys; key->path; key++) {
        if (key->effect == effect && !same(key, config, fresh))
            fprintf(list, "%s%s", ftell(list) ? "," : "", key->path);
    }
    (void)fclose(list);
    if (size > 0)
        return text;
    free(text);
    return NULL;
}

static void swap(const struct config_key *key, struct config *config, struct config *fresh)
{
    char kept[sizeof(int64_t)];
    char *here = (char *)config + key->offset, *there = (char *)fresh + key->offset;
    size_t size = size_of(key->type);
    memcpy(kept, here, size);
    memcpy(here, there, size);
    memcpy(there, kept, size);
}

static size_t count(const char **list)
{
    size_t length = 0;
    while (list && list[length])
        length++;
    return length;
}

void config_adopt(struct config *config, struct config *fresh, enum config_effect effect)
{
    for (const struct config_key *key = config_keys; key->path; key++) {
        if (key->effect == effect)
            swap(key, config, fresh);
    }
    if (effect == CONFIG_AT_ONCE) {
        const char *path = config->path;
        config->path = fresh->path;
        fresh->path = path;
    }
    config->rabbitmq.url_count = count(config->rabbitmq.urls);
    fresh->rabbitmq.url_count = count(fresh->rabbitmq.urls);
}
