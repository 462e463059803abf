/* Owns the reading of file, environment and flags by the table of keys. Never prints, never keeps state outside struct
 * config, never puts a secret into an error text. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "secrecy.h"

#define DEFAULT_PATH "/etc/heirflow/heirflow.json"
#define FILE_BYTES_MAX (1 << 20)

/* ---- where a value came from */

/* File, variable, flag or default, for error texts. */
struct source {
    const char *name; /* "/etc/heirflow/heirflow.json", "HEIRFLOW_NODE", "--node", "default" */
    const char *text; /* of a file, else NULL */
};

/* Line of a key in a file. jansson does not keep it, so look for the quoted names of the path one after the other: a value
 * that reads like an earlier key could mislead this, but only to a wrong line in an error text. */
static int line_of(const char *text, const char *path)
{
    const char *at = text;
    for (const char *part = path; *part; part += strcspn(part, "."), part += *part == '.') {
        char quoted[132] = "\"";
        strncat(quoted, part, strcspn(part, ".") < 128 ? strcspn(part, ".") : 128);
        strcat(quoted, "\"");
        const char *found = strstr(at, quoted);
        if (!found)
            break;
        at = found;
    }
    int line = 1;
    for (const char *c = text; c < at; c++)
        line += *c == '\n';
    return line;
}

static bool fault(const struct source *source, const char *path, struct error *error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static bool fault(const struct source *source, const char *path, struct error *error, const char *format, ...)
{
    char text[700];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (source->text)
        return error_set(error, EXIT_CODE_USAGE, "%s, line %d: \"%.80s\" %s", source->name, line_of(source->text, path),
                         path, text);
    if (*source->name == 'H')
        return error_set(error, EXIT_CODE_USAGE, "environment variable %s (key \"%s\") %s", source->name, path, text);
    return error_set(error, EXIT_CODE_USAGE, "%s (key \"%s\") %s", source->name, path, text);
}

/* ---- taking one value */

static void *member(struct config *config, const struct config_key *key)
{
    return (char *)config + key->offset;
}

static bool copy_text(const char **place, const char *value, struct error *error)
{
    char *copy = strdup(value);
    if (!copy)
        return error_set(error, EXIT_CODE_NEGATIVE, "out of memory");
    free((void *)*place);
    *place = copy;
    return true;
}

static void free_list(const char **list)
{
    for (const char **item = list; item && *item; item++)
        free((void *)*item);
    free(list);
}

/* A secret in a file that everybody can open is none. */
static bool check_secrecy(const struct config_key *key, const char *value, const struct source *source, struct error *error)
{
    if (!source->text || !key->reveals || !key->reveals(value) || !secrecy_is_open(source->name))
        return true;
    return fault(source, key->path, error,
                 "contains a secret, and every user of this host can open the file: chmod o= %.300s", source->name);
}

static bool check_text(const struct config_key *key, const char *value, const struct source *source, struct error *error)
{
    size_t length = strlen(value);
    if (length > (size_t)key->most)
        return fault(source, key->path, error, "is %zu bytes long; the most is %lld", length, (long long)key->most);
    if (key->valid && !key->valid(value)) {
        if (key->secret)
            return fault(source, key->path, error, "is not usable; it must be %s", key->expected);
        return fault(source, key->path, error, "is \"%.60s\"; it must be %s", value, key->expected);
    }
    return check_secrecy(key, value, source, error);
}

static bool take_text(struct config *config, const struct config_key *key, json_t *value, const struct source *source,
                      struct error *error)
{
    if (!json_is_string(value))
        return fault(source, key->path, error, "must be a string");
    if (!check_text(key, json_string_value(value), source, error))
        return false;
    return copy_text(member(config, key), json_string_value(value), error);
}

static bool take_integer(struct config *config, const struct config_key *key, json_t *value, const struct source *source,
                         struct error *error)
{
    if (!json_is_integer(value))
        return fault(source, key->path, error, "must be a whole number");
    json_int_t number = json_integer_value(value);
    if (number < key->least || number > key->most)
        return fault(source, key->path, error, "is %lld; it must be from %lld to %lld", (long long)number,
                     (long long)key->least, (long long)key->most);
    *(int64_t *)member(config, key) = number;
    return true;
}

static bool take_list(struct config *config, const struct config_key *key, json_t *value, const struct source *source,
                      struct error *error)
{
    cleanup_json json_t *wrapped = json_is_string(value) && key->has_twin ? json_pack("[O]", value) : json_incref(value);
    if (!json_is_array(wrapped))
        return fault(source, key->path, error, "must be a %slist of strings", key->has_twin ? "string or a " : "");
    size_t index, count = json_array_size(wrapped), kept = 0;
    json_t *item;
    const char **list = calloc(count + 1, sizeof *list);
    if (!list)
        return error_set(error, EXIT_CODE_NEGATIVE, "out of memory");
    json_array_foreach(wrapped, index, item)
    {
        const char *text = json_string_value(item);
        if (key->has_twin && text && !*text) /* "url": "" switches it off */
            continue;
        if (!text || !check_text(key, text, source, error) || !copy_text(&list[kept++], text, error)) {
            free_list(list);
            return text ? false : fault(source, key->path, error, "must be a list of strings; item %zu is none", index + 1);
        }
    }
    const char ***place = member(config, key);
    free_list(*place);
    *place = list;
    return true;
}

static bool take_map(struct config *config, const struct config_key *key, json_t *value, const struct source *source,
                     struct error *error)
{
    if (!json_is_object(value))
        return fault(source, key->path, error,
                     "must be an object of strings, such as {\"AIRFLOW_HOME\": \"/srv/airflow\"}");
    const char *name;
    json_t *item;
    json_object_foreach(value, name, item)
    {
        if (!json_is_string(item))
            return fault(source, key->path, error, "must be an object of strings; \"%.60s\" is none: put it in quotes",
                         name);
        if (!*name || strchr(name, '=') || strncmp(name, "HEIRFLOW_", 9) == 0)
            return fault(source, key->path, error, "has \"%.60s\", which is no name for a variable of the scheduler%s",
                         name, strncmp(name, "HEIRFLOW_", 9) == 0 ? ": HEIRFLOW_... are Heirflow's own" : "");
    }
    json_t **place = member(config, key);
    json_decref(*place);
    *place = json_incref(value);
    return true;
}

static bool take_choice(int *ret_choice, const char *const *names, const struct config_key *key, json_t *value,
                        const struct source *source, struct error *error)
{
    const char *text = json_string_value(value);
    for (int i = 0; text && names[i]; i++) {
        if (strcmp(names[i], text) == 0) {
            *ret_choice = i;
            return true;
        }
    }
    return fault(source, key->path, error, "must be %s", key->expected);
}

static bool take(struct config *config, const struct config_key *key, json_t *value, const struct source *source,
                 struct error *error)
{
    static const char *const levels[] = {"debug", "info", "warn", "error", NULL}; /* as enum log_level */
    static const char *const formats[] = {"text", "json", NULL};                  /* as enum log_format */
    int choice = 0;
    switch (key->type) {
    case CONFIG_TEXT:
        return take_text(config, key, value, source, error);
    case CONFIG_INTEGER:
        return take_integer(config, key, value, source, error);
    case CONFIG_BOOLEAN:
        if (!json_is_boolean(value))
            return fault(source, key->path, error, "must be true or false, without quotes");
        *(bool *)member(config, key) = json_is_true(value);
        return true;
    case CONFIG_LIST:
        return take_list(config, key, value, source, error);
    case CONFIG_MAP:
        return take_map(config, key, value, source, error);
    case CONFIG_LEVEL:
        if (!take_choice(&choice, levels, key, value, source, error))
            return false;
        *(enum log_level *)member(config, key) = (enum log_level)choice;
        return true;
    case CONFIG_FORMAT:
        if (!take_choice(&choice, formats, key, value, source, error))
            return false;
        *(enum log_format *)member(config, key) = (enum log_format)choice;
        return true;
    }
    return error_set(error, EXIT_CODE_USAGE, "%s: unknown type of key", key->path);
}

/* ---- text from outside JSON */

static json_t *list_of(const char *text)
{
    json_t *list = json_array();
    for (size_t length; *text; text += length) {
        length = strcspn(text, ",");
        if (length)
            (void)json_array_append_new(list, json_stringn(text, length)); /* no UTF-8: the list stays short of it */
        else
            length = 1;
    }
    return list;
}

/* The value that a variable's, flag's or default's text means for the key; a string where it means none. */
static json_t *value_of(const struct config_key *key, const char *text)
{
    char *end;
    if (key->type == CONFIG_LIST)
        return list_of(text);
    if (key->type == CONFIG_BOOLEAN && strcmp(text, "true") == 0)
        return json_true();
    if (key->type == CONFIG_BOOLEAN && strcmp(text, "false") == 0)
        return json_false();
    if (key->type == CONFIG_INTEGER && *text && !isspace((unsigned char)*text)) {
        errno = 0;
        long long number = strtoll(text, &end, 10);
        if (!*end && !errno)
            return json_integer(number);
    }
    return json_string(text);
}

static bool take_outside(struct config *config, const struct config_key *key, const char *text, const char *name,
                         struct error *error)
{
    struct source source = {.name = name};
    cleanup_json json_t *utf8 = json_string(text);
    if (!utf8)
        return fault(&source, key->path, error, "is not valid UTF-8");
    cleanup_json json_t *value = value_of(key, text);
    return take(config, key, value, &source, error);
}

static const struct config_key *key_of(const char *path)
{
    const struct config_key *key = config_keys;
    while (key->path && strcmp(key->path, path) != 0)
        key++;
    return key;
}

/* ---- sources, weakest first */

static bool take_defaults(struct config *config, struct error *error)
{
    for (const struct config_key *key = config_keys; key->path; key++) {
        if (key->preset && !take_outside(config, key, key->preset, "default", error))
            return false;
    }
    return true;
}

/* No such file, or none for this user, is a fault of the configuration. Anything else, such as ENFILE or EIO, may pass. */
static enum exit_code judge_unreadable(int cause)
{
    return cause == ENOENT || cause == ENOTDIR || cause == EACCES || cause == EISDIR ? EXIT_CODE_USAGE : EXIT_CODE_NEGATIVE;
}

/* The whole of a file, zero-terminated. */
static bool read_file(const char *path, char **ret_text, struct error *error)
{
    cleanup_file FILE *file = fopen(path, "re");
    cleanup_free char *text = malloc(FILE_BYTES_MAX + 1);
    if (!file || !text)
        return error_set(error, judge_unreadable(errno),
                         "cannot read %.300s: %s: name another file, or let this user read it", path, strerror(errno));
    errno = 0;
    size_t length = fread(text, 1, FILE_BYTES_MAX, file);
    if (ferror(file))
        return error_set(error, judge_unreadable(errno), "cannot read %s: %s", path, strerror(errno));
    if (length == FILE_BYTES_MAX)
        return error_set(error, EXIT_CODE_USAGE, "cannot read %s: it is larger than 1 MiB", path);
    if (memchr(text, '\0', length))
        return error_set(error, EXIT_CODE_USAGE, "cannot read %s: it contains zero bytes, so it is no text file", path);
    text[length] = '\0';
    *ret_text = text;
    text = NULL;
    return true;
}

/* "group, node, postgres, ...": the keys known directly below a section ("" for the top). */
static void list_known(const char *section, char *buffer, size_t size)
{
    size_t prefix = strlen(section), length = 0;
    const char *last = "";
    *buffer = '\0';
    for (const struct config_key *key = config_keys; key->path; key++) {
        if (strncmp(key->path, section, prefix) != 0)
            continue;
        const char *name = key->path + prefix;
        size_t width = strcspn(name, ".");
        if (strlen(last) >= width && strncmp(last, name, width) == 0 && (last[width] == '.' || !last[width]))
            continue;
        last = name;
        length += (size_t)snprintf(buffer + length, size - length, "%s%.*s", length ? ", " : "", (int)width, name);
        if (length >= size)
            return;
    }
}

static bool take_section(struct config *config, json_t *object, const char *section, const struct source *source,
                         struct error *error)
{
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        char path[128], below[130], known[256];
        (void)snprintf(path, sizeof path, "%s%.90s", section, name); /* cut: longer than any key, so unknown */
        (void)snprintf(below, sizeof below, "%s.", path);
        const struct config_key *key = key_of(path);
        if (key->path && !strchr(name, '.')) {
            if (!take(config, key, value, source, error))
                return false;
            continue;
        }
        list_known(below, known, sizeof known);
        if (!*known || strchr(name, '.')) {
            list_known(section, known, sizeof known);
            return fault(source, path, error, "is no known key; known here: %s", known);
        }
        if (!json_is_object(value))
            return fault(source, path, error, "must be an object with any of: %s", known);
        if (!take_section(config, value, below, source, error))
            return false;
    }
    return true;
}

/* A file airflow.json is about the group airflow unless it says otherwise: heirflow@airflow.service reads it. */
static bool take_name_of_file(struct config *config, const char *path, struct error *error)
{
    const struct config_key *key = key_of("group");
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *ending = strstr(name, ".json");
    if (!ending || ending[strlen(".json")])
        return true;
    cleanup_free char *group = strndup(name, (size_t)(ending - name));
    bool fit = group && strlen(group) <= (size_t)key->most && key->valid(group) && strcmp(group, "heirflow") != 0;
    return !fit || take_outside(config, key, group, path, error);
}

/* What stands near the fault may be a secret. */
static bool fail_syntax(const char *path, json_error_t *fault, struct error *error)
{
    char *near = strstr(fault->text, " near ");
    if (near)
        *near = '\0';
    return error_set(error, EXIT_CODE_USAGE, "%s, line %d, column %d: not valid JSON: %s", path, fault->line, fault->column,
                     json_error_code(fault) == json_error_duplicate_key ? "a key is given twice" : fault->text);
}

static bool take_file(struct config *config, const char *path, struct error *error)
{
    cleanup_free char *text = NULL;
    if (!read_file(path, &text, error))
        return error_wrap(error, "configuration");
    json_error_t fault_at;
    cleanup_json json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &fault_at);
    if (!root)
        return fail_syntax(path, &fault_at, error);
    if (!json_is_object(root))
        return error_set(error, EXIT_CODE_USAGE, "%s, line 1: must be one JSON object { ... }", path);
    struct source source = {.name = path, .text = text};
    return take_name_of_file(config, path, error) && take_section(config, root, "", &source, error) &&
           copy_text(&config->path, path, error);
}

static bool take_twin(struct config *config, const struct config_key *key, struct error *error)
{
    char name[96], name_of_file[100];
    config_twin(key, "", name, sizeof name);
    config_twin(key, "_FILE", name_of_file, sizeof name_of_file);
    const char *text = getenv(name), *path = key->secret ? getenv(name_of_file) : NULL;
    if (text && path)
        return error_set(error, EXIT_CODE_USAGE, "environment: both %s and %s are set; unset one of them", name,
                         name_of_file);
    if (text)
        return take_outside(config, key, text, name, error);
    if (!path)
        return true;
    if (secrecy_is_open(path))
        return error_set(error, EXIT_CODE_USAGE,
                         "environment variable %s: every user of this host can open %.300s: "
                         "chmod o= %.300s",
                         name_of_file, path, path);
    cleanup_free char *secret = NULL;
    if (!read_file(path, &secret, error))
        return error_wrap(error, "environment variable %s", name_of_file);
    secret[strcspn(secret, "\r\n")] = '\0';
    return take_outside(config, key, secret, name_of_file, error);
}

static bool take_environment(struct config *config, struct error *error)
{
    for (const struct config_key *key = config_keys; key->path; key++) {
        if (key->has_twin && !take_twin(config, key, error))
            return false;
    }
    return true;
}

static bool take_flags(struct config *config, const struct config_flags *flags, struct error *error)
{
    if (flags->group && !take_outside(config, key_of("group"), flags->group, "--group", error))
        return false;
    if (flags->node && !take_outside(config, key_of("node"), flags->node, "--node", error))
        return false;
    if (!flags->command)
        return true;
    cleanup_json json_t *list = json_array();
    for (char **argument = flags->command; *argument; argument++) {
        if (json_array_append_new(list, json_string(*argument)) < 0)
            return error_set(error, EXIT_CODE_USAGE, "the command after -- is not valid UTF-8");
    }
    struct source source = {.name = "command after --"};
    return take(config, key_of("scheduler.command"), list, &source, error);
}

/* ---- the whole */

static bool fill_node(struct config *config, struct error *error)
{
    char name[256] = "";
    if (config->node)
        return true;
    if (gethostname(name, sizeof name - 1) != 0)
        return error_set(error, EXIT_CODE_USAGE, "the host name cannot be read: set \"node\", HEIRFLOW_NODE or --node");
    return take_outside(config, key_of("node"), name, "host name", error);
}

static bool fill_run_directory(struct config *config, struct error *error)
{
    char path[4096];
    const char *systemd = getenv("RUNTIME_DIRECTORY"), *user = getenv("XDG_RUNTIME_DIR");
    if (config->run_directory && *config->run_directory)
        return true;
    if (systemd && *systemd == '/')
        (void)snprintf(path, sizeof path, "%.*s", (int)strcspn(systemd, ":"), systemd);
    else if (geteuid() == 0)
        (void)snprintf(path, sizeof path, "/run/heirflow");
    else
        (void)snprintf(path, sizeof path, "%s%s", user && *user == '/' ? user : "",
                       user && *user == '/' ? "/heirflow" : "");
    return copy_text(&config->run_directory, path, error);
}

/* Settings where an empty text means the same as none. */
static void drop_empty(const char **place)
{
    if (*place && !**place) {
        free((void *)*place);
        *place = NULL;
    }
}

/* An empty list means the same as none. */
static bool settle_command(const char ***place, const char *path, struct error *error)
{
    const char **command = *place;
    if (command && command[0] && !*command[0])
        return error_set(error, EXIT_CODE_USAGE, "\"%s\" begins with an empty text: name the program there", path);
    if (command && !command[0]) {
        free_list(command);
        *place = NULL;
    }
    return true;
}

static bool settle(struct config *config, struct error *error)
{
    const char **urls = config->rabbitmq.urls;
    while (urls && urls[config->rabbitmq.url_count])
        config->rabbitmq.url_count++;
    if (!settle_command(&config->scheduler.command, "scheduler.command", error) ||
        !settle_command(&config->scheduler.health.command, "scheduler.health.command", error) ||
        !settle_command(&config->hooks.on_event, "hooks.on_event", error) ||
        !settle_command(&config->hooks.on_group_event, "hooks.on_group_event", error))
        return false;
    drop_empty(&config->scheduler.directory);
    drop_empty(&config->scheduler.user);
    drop_empty(&config->http.listen);
    drop_empty(&config->http.token);
    drop_empty(&config->rabbitmq.ca_file);
    drop_empty(&config->rabbitmq.cert_file);
    drop_empty(&config->rabbitmq.key_file);
    if (!config->rabbitmq.cert_file != !config->rabbitmq.key_file)
        return error_set(error, EXIT_CODE_USAGE,
                         "\"rabbitmq.cert_file\" and \"rabbitmq.key_file\" go together: give both, or neither");
    return fill_node(config, error) && fill_run_directory(config, error);
}

static bool check_timings(const struct config *config, struct error *error)
{
    struct succession_settings settings = config_succession(config);
    const char *rule = succession_timing_fault(&settings, config->lease_ms);
    if (!rule)
        return true;
    return error_set(
        error, EXIT_CODE_USAGE,
        "%s: unsafe timings: %s (lease_ms %lld, heartbeat_ms %lld, scheduler.fence_grace_ms %lld): raise lease_ms, or "
        "leave the other two out to have them follow the lease",
        config->path ? config->path : "configuration", rule, (long long)config->lease_ms,
        (long long)succession_heartbeat_ms(&settings, config->lease_ms),
        (long long)succession_fence_grace_ms(&settings, config->lease_ms));
}

static bool load(struct config *config, const struct config_flags *flags, struct error *error)
{
    const char *set = getenv("HEIRFLOW_CONFIG");
    const char *named = flags->path ? flags->path : set && *set ? set : NULL;
    const char *path = named ? named : access(DEFAULT_PATH, F_OK) == 0 ? DEFAULT_PATH : NULL;
    if (path && strcmp(path, "/dev/null") == 0) /* says "no file", not even the usual one */
        path = NULL;
    return take_defaults(config, error) && (!path || take_file(config, path, error)) && take_environment(config, error) &&
           take_flags(config, flags, error) && settle(config, error) && check_timings(config, error);
}

bool config_load(const struct config_flags *flags, struct config **ret_config, struct error *error)
{
    struct config *config = calloc(1, sizeof *config);
    if (!config)
        return error_set(error, EXIT_CODE_NEGATIVE, "out of memory");
    if (!load(config, flags, error)) {
        config_free(config);
        return false;
    }
    *ret_config = config;
    return true;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    for (const struct config_key *key = config_keys; key->path; key++) {
        if (key->type == CONFIG_TEXT)
            free((void *)*(const char **)member(config, key));
        else if (key->type == CONFIG_LIST)
            free_list(*(const char ***)member(config, key));
        else if (key->type == CONFIG_MAP)
            json_decref(*(json_t **)member(config, key));
    }
    free((void *)config->path);
    free(config);
}

int64_t config_worst_gap_ms(const struct config *config, int64_t lease_ms)
{
    struct succession_settings settings = config_succession(config);
    return lease_ms + 2 * succession_heartbeat_ms(&settings, lease_ms);
}

/* The restart limit must be within reach of a scheduler that hangs after each start. */
static int64_t unhealthy_window_ms(const struct config *config)
{
    int64_t round_ms = config->scheduler.health.interval_ms + config->scheduler.health.timeout_ms;
    int64_t run_ms = config->scheduler.health.start_period_ms + config->scheduler.health.failures * round_ms;
    return (config->scheduler.restart.limit + 1) * (run_ms + config->lease_ms);
}

struct succession_settings config_succession(const struct config *config)
{
    return (struct succession_settings){
        .lease_ms = config->lease_ms,
        .heartbeat_ms = config->heartbeat_ms,
        .fence_grace_ms = config->scheduler.fence_grace_ms,
        .stop_timeout_ms = config->scheduler.stop_timeout_ms,
        .restart_limit = config->scheduler.restart.limit,
        .restart_window_ms = config->scheduler.restart.window_ms,
        .restart_backoff_ms = config->scheduler.restart.backoff_ms,
        .unhealthy_window_ms = unhealthy_window_ms(config),
        .no_heir = config->no_heir,
    };
}
