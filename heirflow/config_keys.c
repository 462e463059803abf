/* Owns the table of keys: type, default, range and meaning of each. Never reads a configuration. */
#include <ctype.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker.h"
#include "cleanup.h"
#include "config.h"
#include "http.h"

#define DAY_MS 86400000

/* ---- what values must be */

static bool is_name(const char *value)
{
    if (!*value)
        return false;
    for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
        bool c1_control = c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0xa0; /* U+0080 to U+009F, and the no-break space */
        if (*c <= ' ' || *c == 0x7f || c1_control)
            return false;
    }
    return true;
}

static bool is_group(const char *value)
{
    return is_name(value) && !strchr(value, '/');
}

static bool is_schema(const char *value)
{
    return (islower((unsigned char)*value) || *value == '_') && strncmp(value, "pg_", 3) != 0 &&
           value[strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

static bool is_conninfo(const char *value)
{
    PQconninfoOption *options =
        PQconninfoParse(value, NULL); /* its message may quote the password, so it is not passed on */
    PQconninfoFree(options);
    return options != NULL;
}

static bool has_password(const char *conninfo)
{
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    bool found = false;
    for (const PQconninfoOption *option = options; option && option->keyword; option++)
        found = found || (strcmp(option->keyword, "password") == 0 && option->val && *option->val);
    PQconninfoFree(options);
    return found;
}

/* What every RabbitMQ is delivered with is no secret. */
static bool has_broker_password(const char *url)
{
    const char *user = strstr(url, "://"), *host = user ? strchr(user, '@') : NULL;
    const char *password = user ? strchr(user + 3, ':') : NULL;
    return host && password && password < host && strncmp(user, "://guest:guest@", 15) != 0;
}

static bool is_some(const char *text)
{
    return *text != '\0';
}

static bool is_broker(const char *value)
{
    struct error ignored; /* `expected` says it */
    return broker_check_url(value, &ignored);
}

static bool is_exchange(const char *value)
{
    return is_name(value) && strncmp(value, "amq.", 4) != 0;
}

static bool is_path(const char *value)
{
    return !*value || *value == '/';
}

static bool is_estate(const char *value)
{
    return *value && value[strlen(value) - 1] != '/';
}

static bool is_output(const char *value)
{
    return *value == '/' || strcmp(value, "inherit") == 0;
}

static bool is_user(const char *value)
{
    return !*value || is_name(value);
}

static bool is_token(const char *value)
{
    size_t length = strlen(value);
    for (const char *c = value; *c; c++) {
        if (!isgraph((unsigned char)*c))
            return false;
    }
    return length == 0 || length >= 16;
}

/* ---- the table of keys */

#define KEY(name, kind, member, ...)                                                                                       \
    {                                                                                                                      \
        .path = (name), .type = (kind), .offset = offsetof(struct config, member), __VA_ARGS__                             \
    }
#define PATH_EXPECTED "an absolute path"

const struct config_key config_keys[] = {
    KEY("group", CONFIG_TEXT, group, .preset = "scheduler", .most = 128, .has_twin = true, .valid = is_group,
        .expected = "a name without spaces, slashes or control characters",
        .description =
            "The scheduler of which there must be one; members of a group inherit from each other. A file that does not "
            "name it is about the group of its own name: airflow.json about airflow, but heirflow.json about the default."),
    KEY("node", CONFIG_TEXT, node, .most = 255, .has_twin = true, .valid = is_name,
        .expected = "a name without spaces or control characters",
        .description = "What this member is called in the roster and the news. Default: the host name."),
    KEY("postgres", CONFIG_TEXT, postgres, .preset = "dbname=heirflow", .most = 8192, .has_twin = true, .secret = true,
        .valid = is_conninfo, .reveals = has_password,
        .expected = "a libpq connection string such as \"host=db1,db2 dbname=heirflow user=heirflow\" or "
                    "\"postgresql://heirflow@db1,db2/heirflow\"",
        .description = "The database that keeps the roster: a libpq connection string or URI. Several hosts are tried in "
                       "turn until the primary answers."),
    KEY("schema", CONFIG_TEXT, schema, .preset = "heirflow", .most = 63, .has_twin = true, .valid = is_schema,
        .expected = "lower-case letters, digits and underscores, not starting with a digit or pg_",
        .description = "The schema in that database; `heirflow migrate` creates it."),
    KEY("rabbitmq.url", CONFIG_LIST, rabbitmq.urls, .effect = CONFIG_AT_ONCE, .preset = "", .most = 4096, .has_twin = true,
        .secret = true, .valid = is_broker, .reveals = has_broker_password,
        .expected = "amqp://USER:PASSWORD@HOST:PORT/VHOST (amqps:// for TLS), special characters percent-encoded",
        .description =
            "Brokers to publish the news to: one URL or a list of them, tried in random order. With amqps:// the "
            "broker has to prove by its certificate that it is the host of the URL. Empty: the news stay in "
            "Postgres only."),
    KEY("rabbitmq.exchange", CONFIG_TEXT, rabbitmq.exchange, .effect = CONFIG_AT_ONCE, .preset = "heirflow.news",
        .most = 255, .has_twin = true, .valid = is_exchange,
        .expected = "a name without spaces that does not start with \"amq.\"",
        .description = "The durable topic exchange for the news; declared if missing."),
    KEY("rabbitmq.ca_file", CONFIG_TEXT, rabbitmq.ca_file, .effect = CONFIG_AT_ONCE, .most = 4095, .has_twin = true,
        .valid = is_path, .expected = PATH_EXPECTED,
        .description = "Certificates (PEM) of the authorities that may vouch for an amqps:// broker. Default: those of the "
                       "system."),
    KEY("rabbitmq.cert_file", CONFIG_TEXT, rabbitmq.cert_file, .effect = CONFIG_AT_ONCE, .most = 4095, .has_twin = true,
        .valid = is_path, .expected = PATH_EXPECTED,
        .description = "Client certificate (PEM, with what it takes to get from it to its authority) for brokers that want "
                       "one."),
    KEY("rabbitmq.key_file", CONFIG_TEXT, rabbitmq.key_file, .effect = CONFIG_AT_ONCE, .most = 4095, .has_twin = true,
        .valid = is_path, .expected = PATH_EXPECTED,
        .description = "Its private key (PEM, without a password, not open to every user of the host)."),
    KEY("lease_ms", CONFIG_INTEGER, lease_ms, .preset = "6000", .least = 200, .most = DAY_MS, .has_twin = true,
        .description = "How long one renewal lasts. It founds a new group; an existing group's own lease is adopted."),
    KEY("heartbeat_ms", CONFIG_INTEGER, heartbeat_ms, .preset = "0", .most = DAY_MS, .has_twin = true,
        .description = "Time between renewals, at most a third of the lease. 0: a sixth of the lease in force."),
    KEY("retention_days", CONFIG_INTEGER, retention_days, .effect = CONFIG_AT_ONCE, .preset = "90", .most = 36500,
        .has_twin = true,
        .description = "How long news and terms are kept in the database. The heir removes what is older, but no news that "
                       "is still to be published. 0: for ever."),
    KEY("scheduler.command", CONFIG_LIST, scheduler.command, .effect = CONFIG_AT_NEXT_TERM, .most = 65536,
        .description = "Program and arguments of the scheduler, one list item each; no shell is involved. The command "
                       "after `--` goes before it."),
    KEY("scheduler.environment", CONFIG_MAP, scheduler.environment, .effect = CONFIG_AT_NEXT_TERM,
        .description = "Environment variables for the scheduler, added to those of `heirflow run`. Names that start with "
                       "HEIRFLOW_ are Heirflow's own."),
    KEY("scheduler.directory", CONFIG_TEXT, scheduler.directory, .effect = CONFIG_AT_NEXT_TERM, .most = 4095,
        .has_twin = true, .valid = is_path, .expected = PATH_EXPECTED,
        .description = "Working directory of the scheduler. Default: that of `heirflow run`."),
    KEY("scheduler.user", CONFIG_TEXT, scheduler.user, .effect = CONFIG_AT_NEXT_TERM, .most = 255, .has_twin = true,
        .valid = is_user, .expected = "a user name",
        .description = "User the scheduler runs as; needs `heirflow run` to be root. Default: the user of `heirflow run`."),
    KEY("scheduler.output", CONFIG_TEXT, scheduler.output, .effect = CONFIG_AT_NEXT_TERM, .preset = "inherit", .most = 4095,
        .has_twin = true, .valid = is_output, .expected = "\"inherit\" or an absolute path",
        .description = "Where the scheduler's output goes: \"inherit\", or a file that is appended to. One that cannot be "
                       "written to does not stop the scheduler; see operating.md."),
    KEY("scheduler.stop_timeout_ms", CONFIG_INTEGER, scheduler.stop_timeout_ms, .effect = CONFIG_AT_ONCE, .preset = "30000",
        .most = DAY_MS, .has_twin = true,
        .description = "How long the scheduler may take to end after SIGTERM in a planned hand-over or shutdown."),
    KEY("scheduler.fence_grace_ms", CONFIG_INTEGER, scheduler.fence_grace_ms, .preset = "0", .most = DAY_MS,
        .has_twin = true,
        .description = "The same when renewals fail; it has to fit into the lease. 0: half of the lease in force."),
    KEY("scheduler.restart.limit", CONFIG_INTEGER, scheduler.restart.limit, .effect = CONFIG_AT_ONCE, .preset = "3",
        .most = 15, .has_twin = true,
        .description = "Restarts in place within the window before the next node is given its turn."),
    KEY("scheduler.restart.window_ms", CONFIG_INTEGER, scheduler.restart.window_ms, .effect = CONFIG_AT_ONCE,
        .preset = "60000", .least = 1, .most = DAY_MS, .has_twin = true,
        .description = "The window in which restarts are counted."),
    KEY("scheduler.restart.backoff_ms", CONFIG_INTEGER, scheduler.restart.backoff_ms, .effect = CONFIG_AT_ONCE,
        .preset = "500", .most = DAY_MS, .has_twin = true,
        .description = "Wait before the second restart within the window, doubled by each further one; the first comes at "
                       "once."),
    KEY("scheduler.estate", CONFIG_LIST, scheduler.estate, .most = 3900, .has_twin = true, .valid = is_estate,
        .expected = "the path of a file",
        .description =
            "Small files that the next heir gets before it starts the scheduler, at most 16 MiB together, such as "
            "celery beat's schedule. They are copied together, as scheduler.user. A path without / at its "
            "beginning is below scheduler.directory, which need not be the same on every node. See "
            "operating.md. Empty: nothing."),
    KEY("scheduler.estate_interval_ms", CONFIG_INTEGER, scheduler.estate_interval_ms, .effect = CONFIG_AT_ONCE,
        .preset = "10000", .least = 100, .most = DAY_MS, .has_twin = true,
        .description = "How often they are looked at while the scheduler runs, and stored if they have changed. A crash "
                       "forgets what came after; a hand-over forgets nothing."),
    KEY("scheduler.health.command", CONFIG_LIST, scheduler.health.command, .effect = CONFIG_AT_ONCE, .most = 65536,
        .description = "Program and arguments that tell by exit status 0 that the scheduler is well; no shell is involved. "
                       "It runs beside the scheduler: same user, directory and environment. Empty: only the scheduler's "
                       "process is watched."),
    KEY("scheduler.health.interval_ms", CONFIG_INTEGER, scheduler.health.interval_ms, .effect = CONFIG_AT_ONCE,
        .preset = "10000", .least = 1, .most = DAY_MS, .has_twin = true,
        .description = "Wait between the end of one health command and the next."),
    KEY("scheduler.health.timeout_ms", CONFIG_INTEGER, scheduler.health.timeout_ms, .effect = CONFIG_AT_ONCE,
        .preset = "30000", .least = 1, .most = DAY_MS, .has_twin = true,
        .description = "How long a health command may take; then it is killed and has failed."),
    KEY("scheduler.health.failures", CONFIG_INTEGER, scheduler.health.failures, .effect = CONFIG_AT_ONCE, .preset = "3",
        .least = 1, .most = 1000, .has_twin = true,
        .description = "So many failures in a row make the scheduler unhealthy: it is stopped and started again, within "
                       "the restart limit."),
    KEY("scheduler.health.start_period_ms", CONFIG_INTEGER, scheduler.health.start_period_ms, .effect = CONFIG_AT_ONCE,
        .preset = "60000", .most = DAY_MS, .has_twin = true,
        .description = "Time from a start of the scheduler in which failures do not count, unless the health command has "
                       "succeeded before."),
    KEY("fence_role", CONFIG_TEXT, fence_role, .most = 63, .has_twin = true, .valid = is_user, .expected = "a role's name",
        .description = "Role as which this node's scheduler, and nobody else, logs in to Postgres; the next heir shuts it "
                       "out. See fencing.md. Empty: no fencing at the database."),
    KEY("run_directory", CONFIG_TEXT, run_directory, .most = 4000, .has_twin = true, .valid = is_path,
        .expected = PATH_EXPECTED,
        .description = "Where lock files are kept. Default: $RUNTIME_DIRECTORY, else /run/heirflow for root, else "
                       "$XDG_RUNTIME_DIR/heirflow."),
    KEY("no_heir", CONFIG_BOOLEAN, no_heir, .preset = "false", .has_twin = true,
        .description = "Watch and relay the news, never lead."),
    KEY("http.listen", CONFIG_TEXT, http.listen, .preset = "127.0.0.1:8470", .most = 63, .has_twin = true,
        .valid = http_check_listen, .expected = "an address and a port such as 127.0.0.1:8470 or [::]:8470",
        .description = "Where to offer the status page, health and metrics; see http.md. Each wrapper of a host needs a "
                       "port of its own. Empty: nowhere."),
    KEY("http.token", CONFIG_TEXT, http.token, .effect = CONFIG_AT_ONCE, .preset = "", .most = 255, .has_twin = true,
        .secret = true, .valid = is_token, .reveals = is_some,
        .expected = "at least 16 letters, digits or punctuation marks",
        .description = "Whoever sends it may change things over HTTP: hand over, pause, terminate the scheduler. Empty: "
                       "nobody may."),
    KEY("interface.start_command", CONFIG_LIST, interface.start_command, .effect = CONFIG_AT_ONCE,
        .preset = "ssh,{address},sudo,systemctl,start,heirflow@{group}", .most = 511,
        .description = "What `heirflow-interface` runs to start a wrapper on another node: program and arguments, one list "
                       "item each, with {node}, {address} and {group} filled in; no shell is involved. Empty: nothing."),
    KEY("hooks.on_event", CONFIG_LIST, hooks.on_event, .effect = CONFIG_AT_ONCE, .most = 65536,
        .description =
            "Program and arguments to run for every event of this node, also while the database is away; no shell "
            "is involved. See operating.md. Empty: none."),
    KEY("hooks.on_group_event", CONFIG_LIST, hooks.on_group_event, .effect = CONFIG_AT_ONCE, .most = 65536,
        .description = "The same on the heir, for every event of the group, in order. Empty: none."),
    KEY("hooks.timeout_ms", CONFIG_INTEGER, hooks.timeout_ms, .effect = CONFIG_AT_ONCE, .preset = "30000", .least = 1,
        .most = DAY_MS, .has_twin = true,
        .description = "How long a hook may take for one event; then it is killed and has failed."),
    KEY("log.level", CONFIG_LEVEL, log.level, .effect = CONFIG_AT_ONCE, .preset = "info", .has_twin = true,
        .expected = "one of \"debug\", \"info\", \"warn\", \"error\"", .description = "The least level that is logged."),
    KEY("log.format", CONFIG_FORMAT, log.format, .effect = CONFIG_AT_ONCE, .preset = "text", .has_twin = true,
        .expected = "\"text\" or \"json\"", .description = "Form of a log line."),
    {0},
};

void config_twin(const struct config_key *key, const char *suffix, char *buffer, size_t size)
{
    (void)snprintf(buffer, size, "HEIRFLOW_%s%s", key->path, suffix);
    for (char *c = buffer; *c; c++)
        *c = (char)(*c == '.' ? '_' : toupper((unsigned char)*c));
}
