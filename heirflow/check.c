/* Owns the findings of `heirflow check`. Changes nothing, except that a
 * broker is asked to declare the exchange. */
#include "check.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "brokers.h"
#include "cleanup.h"
#include "errand.h"
#include "hook.h"
#include "hosts.h"
#include "keeper.h"
#include "migrate.h"
#include "postgres.h"
#include "runnable.h"

#define OPEN_MS 5000
#define CALL_MS 5000
#define ANSWER_MOST 8192

struct findings {
    int bad;
    int primaries;      /* different servers that accept writes */
    char identity[128]; /* of the last of them */
};

/* ---- findings */

/* "OK  what: detail" or "BAD what: detail - remedy" */
static void report(struct findings *findings, bool good, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void report(struct findings *findings, bool good, const char *what, const char *format, ...)
{
    char text[1500];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error_clean(text);
    findings->bad += !good;
    printf("%s %s: %s\n", good ? "OK " : "BAD", what, text);
    (void)fflush(stdout);
}

/* ---- configuration, timings */

static void check_configuration(struct findings *findings, const struct config *config)
{
    char taken[600] = "", name[96], of_file[100];
    size_t length = 0;
    for (const struct config_key *key = config_keys; key->path; key++) {
        config_twin(key, "", name, sizeof name);
        config_twin(key, "_FILE", of_file, sizeof of_file);
        const char *from = key->has_twin && getenv(name) ? name : key->secret && getenv(of_file) ? of_file : NULL;
        if (from && length < sizeof taken)
            length +=
                (size_t)snprintf(taken + length, sizeof taken - length, "%s%s", length ? ", " : "; environment: ", from);
    }
    report(findings, true, "configuration", "%s%s%s", config->path ? "file " : "no file, defaults",
           config->path ? config->path : "", taken);
    report(findings, true, "member", "node %s of group %s", config->node, config->group);
}

/* Is HEIRFLOW_... a variable that means something? */
static bool is_known_variable(const char *variable, size_t length)
{
    static const char *const others[] = {"HEIRFLOW_CONFIG", "HEIRFLOW_SEAT", "HEIRFLOW_TERM", NULL};
    char name[100];
    for (const char *const *other = others; *other; other++) {
        if (strlen(*other) == length && strncmp(*other, variable, length) == 0)
            return true;
    }
    for (const struct config_key *key = config_keys; key->path; key++) {
        for (int of_file = 0; of_file <= key->secret; of_file++) {
            config_twin(key, of_file ? "_FILE" : "", name, sizeof name);
            if (key->has_twin && strlen(name) == length && strncmp(name, variable, length) == 0)
                return true;
        }
    }
    return false;
}

/* A misspelt variable would be ignored without a word. */
static void check_variables(struct findings *findings)
{
    for (char **variable = environ; *variable; variable++) {
        size_t length = strcspn(*variable, "=");
        if (strncmp(*variable, "HEIRFLOW_", 9) == 0 && !is_known_variable(*variable, length))
            report(findings, false, "environment",
                   "%.*s belongs to no key - correct or unset it; see docs/configuration.md", (int)length, *variable);
    }
}

static void check_timings(struct findings *findings, const struct config *config, const char *what, int64_t lease_ms)
{
    struct succession_settings settings = config_succession(config);
    long long heartbeat_ms = succession_heartbeat_ms(&settings, lease_ms);
    long long grace_ms = succession_fence_grace_ms(&settings, lease_ms), margin_ms = lease_ms / 10;
    const char *rule = succession_timing_fault(&settings, lease_ms);
    if (rule)
        report(findings, false, what,
               "lease %lld ms breaks %s (heartbeat %lld, fence_grace %lld) - set both to 0 to follow it",
               (long long)lease_ms, rule, heartbeat_ms, grace_ms);
    else
        report(findings, true, what,
               "heartbeat %lld <= lease/3 = %lld ms; fence_grace %lld + margin %lld + 2*heartbeat %lld = %lld <= lease "
               "%lld ms; "
               "worst-case gap after loss of a node %lld ms",
               heartbeat_ms, (long long)lease_ms / 3, grace_ms, margin_ms, 2 * heartbeat_ms,
               grace_ms + margin_ms + 2 * heartbeat_ms, (long long)lease_ms,
               (long long)config_worst_gap_ms(config, lease_ms));
}

/* ---- the node */

/* The directory, or the nearest parent that exists, may be written to. */
static void check_directory(struct findings *findings, const char *what, const char *directory)
{
    char path[4096];
    struct stat status;
    (void)snprintf(path, sizeof path, "%s", directory);
    while (stat(path, &status) != 0 && errno == ENOENT && strrchr(path, '/') > path)
        *strrchr(path, '/') = '\0';
    if (stat(path, &status) != 0 && errno == ENOENT)
        (void)snprintf(path, sizeof path, "/");
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode))
        report(findings, false, what, "%s: %s is no directory - choose another", directory, path);
    else if (access(path, W_OK | X_OK) != 0)
        report(findings, false, what, "%s: %s: %s - let user %u write there, or choose another", directory, path,
               strerror(errno), (unsigned)geteuid());
    else
        report(findings, true, what, "%s%s", directory, strcmp(path, directory) == 0 ? ", writable" : ", can be created");
}

static void check_output(struct findings *findings, const struct config *config)
{
    const char *output = config->scheduler.output;
    struct stat status;
    char directory[4096];
    if (strcmp(output, "inherit") == 0) {
        report(findings, true, "output", "goes where that of heirflow goes");
    } else if (stat(output, &status) != 0) {
        (void)snprintf(directory, sizeof directory, "%s", output);
        char *slash = strrchr(directory, '/');
        slash[slash == directory] = '\0';
        check_directory(findings, "output", directory);
    } else if (S_ISDIR(status.st_mode) || access(output, W_OK) != 0) {
        report(findings, false, "output", "%s cannot be appended to: %s - correct \"scheduler.output\"", output,
               S_ISDIR(status.st_mode) ? "it is a directory" : strerror(errno));
    } else {
        report(findings, true, "output", "%s", output);
    }
}

static void check_health(struct findings *findings, const struct config *config)
{
    char path[4096];
    struct error error;
    const char **command = config->scheduler.health.command;
    if (config->no_heir || !command)
        return;
    if (!runnable_find(config, command, "scheduler.health.command", path, sizeof path, &error))
        report(findings, false, "health command", "%s", error.text);
    else
        report(findings, true, "health command", "%s; %lld failures in a row restart the scheduler", path,
               (long long)config->scheduler.health.failures);
}

/* What reading the estate's files once has shown. */
struct look {
    json_t *answer;
    struct error error; /* why there is none; else "" */
};

static void on_looked(void *data, const struct errand_end *end)
{
    struct look *look = data;
    if (end->reason)
        (void)error_set(&look->error, EXIT_CODE_NEGATIVE, "%s", end->reason);
    else
        look->answer = json_loadb(end->output, end->output_size, JSON_DISABLE_EOF_CHECK, NULL);
}

/* In a child process, as the scheduler's user and in its directory, as the wrapper does it. */
static void look_at_estate(const struct config *config, struct look *look)
{
    uv_loop_t loop;
    struct errand *errand;
    cleanup_json json_t *request = json_pack("{s:[], s:b}", "paths", "summary", true);
    for (const char **path = config->scheduler.estate; *path; path++)
        (void)json_array_append_new(json_object_get(request, "paths"), json_string(*path));
    cleanup_free char *input = json_dumps(request, JSON_COMPACT);
    const struct errand_spec spec = {.body = "estate-read",
                                     .key = "scheduler.estate",
                                     .directory = config->scheduler.directory,
                                     .user = config->scheduler.user,
                                     .group = config->group,
                                     .node = config->node,
                                     .seat = "check",
                                     .timeout_ms = CALL_MS,
                                     .input = input,
                                     .input_size = strlen(input),
                                     .output_most = ANSWER_MOST};
    if (uv_loop_init(&loop) != 0) {
        (void)error_set(&look->error, EXIT_CODE_NEGATIVE, "no event loop: out of descriptors?");
        return;
    }
    if (errand_start(&loop, &spec, on_looked, look, &errand, &look->error))
        (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&loop);
}

static void check_estate(struct findings *findings, const struct config *config)
{
    struct look look = {0};
    if (config->no_heir || !config->scheduler.estate || !config->scheduler.estate[0])
        return;
    look_at_estate(config, &look);
    long long count = json_integer_value(json_object_get(look.answer, "count"));
    const char *fault = look.error.text[0] ? look.error.text : json_string_value(json_object_get(look.answer, "fault"));
    if (fault || !look.answer)
        report(findings, false, "estate", "%s - correct \"scheduler.estate\", or the rights of %s%s",
               fault ? fault : "no answer of a child process", config->scheduler.user ? "user " : "our user",
               config->scheduler.user ? config->scheduler.user : "");
    else
        report(findings, true, "estate", "%lld %s, %lld bytes, can be copied and put in place", count,
               count == 1 ? "file" : "files", (long long)json_integer_value(json_object_get(look.answer, "bytes")));
    json_decref(look.answer);
}

static void check_node(struct findings *findings, const struct config *config)
{
    char path[4096];
    struct error error;
    if (!*config->run_directory)
        report(findings, false, "run directory", "none - set \"run_directory\" or HEIRFLOW_RUN_DIRECTORY");
    else
        check_directory(findings, "run directory", config->run_directory);
    const char *containment = keeper_containment();
    report(findings, true, "containment", "%s%s", containment,
           strcmp(containment, "subreaper") == 0
               ? ": no PID namespace and no cgroup to be had here, so wrapper and keeper must "
                 "not both be killed at once"
               : "");
    if (config->no_heir)
        report(findings, true, "command", "none needed: this member never leads (no_heir)");
    else if (!config->scheduler.command)
        report(findings, false, "command", "no command to run - set \"scheduler.command\", or give it after --");
    else if (!runnable_find(config, config->scheduler.command, "scheduler.command", path, sizeof path, &error))
        report(findings, false, "command", "%s", error.text);
    else
        report(findings, true, "command", "%s%s%s%s%s", path, config->scheduler.user ? " as user " : "",
               config->scheduler.user ? config->scheduler.user : "", config->scheduler.directory ? " in " : "",
               config->scheduler.directory ? config->scheduler.directory : "");
    check_health(findings, config);
    check_estate(findings, config);
    check_output(findings, config);
}

/* ---- hooks */

static void on_tried(void *data, const json_t *event, const char *reason)
{
    struct error *error = data;
    if (reason)
        (void)error_set(error, EXIT_CODE_NEGATIVE, "%s", reason);
}

/* Sends a test event through the hook as a wrapper would; error->text stays "" if that went well. */
static void try_hook(const struct config *config, const char *key, struct error *error)
{
    uv_loop_t loop;
    struct hook hook = {.loop = &loop, .config = config, .seat = "check", .key = key, .on_done = on_tried, .data = error};
    if (uv_loop_init(&loop) != 0) {
        (void)error_set(error, EXIT_CODE_NEGATIVE, "no event loop: out of descriptors?");
        return;
    }
    hook_init(&hook);
    hook_put(&hook, hook_event(config, "test", NULL, 0, "sent by heirflow check --hook", NULL));
    hook_run(&hook);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)hook_stop(&hook);
    (void)uv_loop_close(&loop);
}

static void check_hooks(struct findings *findings, const struct config *config, bool try)
{
    static const char *const keys[] = {"hooks.on_event", "hooks.on_group_event"};
    struct config own = *config; /* hooks run as the wrapper does */
    own.scheduler.user = own.scheduler.directory = NULL;
    own.scheduler.environment = NULL;
    for (int i = 0; i < 2; i++) {
        char path[4096];
        struct error error = {0};
        const char **command = hook_command(config, keys[i]);
        if (!command) {
            if (try)
                report(findings, true, keys[i], "none configured");
        } else if (!runnable_find(&own, command, keys[i], path, sizeof path, &error)) {
            report(findings, false, keys[i], "%s", error.text);
        } else if (try && (try_hook(config, keys[i], &error), error.text[0])) {
            report(findings, false, keys[i], "%s has failed for the test event: %s - see docs/operating.md", path,
                   error.text);
        } else {
            report(findings, true, keys[i], "%s%s", path, try ? " has taken the test event" : "");
        }
    }
}

/* ---- the database */

static bool ask(struct postgres_session *session, const char *sql, const char *value, PGresult **ret_result,
                struct error *error)
{
    return postgres_session_call(session, sql, value ? 1 : 0, (const char *[]){value}, CALL_MS, ret_result, error);
}

static int compare(const void *left, const void *right)
{
    double l = *(const double *)left, r = *(const double *)right;
    return (l > r) - (l < r);
}

static double now_ms(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

/* Median of five; also how far the server's clock is ahead of ours. */
static bool measure(struct postgres_session *session, double *ret_trip_ms, double *ret_ahead_ms, struct error *error)
{
    double trips[5];
    for (int i = 0; i < 5; i++) {
        cleanup_result PGresult *result = NULL;
        double sent = now_ms(CLOCK_MONOTONIC), wall = now_ms(CLOCK_REALTIME);
        if (!ask(session, "select extract(epoch from clock_timestamp()) * 1000", NULL, &result, error))
            return false;
        trips[i] = now_ms(CLOCK_MONOTONIC) - sent;
        *ret_ahead_ms = strtod(PQgetvalue(result, 0, 0), NULL) - (wall + trips[i] / 2);
    }
    qsort(trips, 5, sizeof *trips, compare);
    *ret_trip_ms = trips[2];
    return true;
}

static void check_round_trip(struct findings *findings, const char *what, struct postgres_session *session,
                             const struct config *config)
{
    double trip_ms, ahead_ms;
    struct error error;
    struct succession_settings settings = config_succession(config);
    int64_t heartbeat_ms = succession_heartbeat_ms(&settings, config->lease_ms);
    if (!measure(session, &trip_ms, &ahead_ms, &error)) {
        report(findings, false, what, "round trip: %s", error.text);
        return;
    }
    bool quick = trip_ms * 2 < (double)heartbeat_ms;
    report(findings, quick, what, "round trip %.1f ms, heartbeat %lld ms; its clock is %.0f ms %s ours (decides nothing)%s",
           trip_ms, (long long)heartbeat_ms, ahead_ms < 0 ? -ahead_ms : ahead_ms, ahead_ms < 0 ? "behind" : "ahead of",
           quick ? "" : " - too slow for this heartbeat: raise lease_ms");
}

/* Does the server tell everything that the protocol asks for? */
static bool check_server(struct findings *findings, const char *what, struct postgres_session *session, char *ret_identity,
                         size_t size)
{
    struct error error;
    cleanup_result PGresult *result = NULL;
    if (!ask(session,
             "select current_setting('server_version_num')::integer >= 120000, current_setting('server_version'),"
             " left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),"
             " (select system_identifier from pg_control_system()) || '/' || pg_postmaster_start_time(),"
             " session_user, current_setting('synchronous_standby_names')",
             NULL, &result, &error)) {
        report(findings, false, what, "it does not tell its timeline and identity: %s - Heirflow cannot use this service",
               error.text);
        return false;
    }
    bool recent = *PQgetvalue(result, 0, 0) == 't';
    const char *standbys = PQgetvalue(result, 0, 5);
    (void)snprintf(ret_identity, size, "%s", PQgetvalue(result, 0, 3));
    report(findings, recent, what, "primary, PostgreSQL %s, timeline %s, user %s, synchronous standbys: %s%s",
           PQgetvalue(result, 0, 1), PQgetvalue(result, 0, 2), PQgetvalue(result, 0, 4), *standbys ? standbys : "none",
           recent ? "" : " - Heirflow needs PostgreSQL 12 or newer");
    return true;
}

/* The functions a member calls. */
static void check_rights(struct findings *findings, const char *what, struct postgres_session *session,
                         const struct config *config)
{
    struct error error;
    cleanup_result PGresult *result = NULL;
    if (!ask(session,
             "select string_agg(distinct p.proname, ', '), session_user from pg_proc p"
             " join pg_namespace n on n.oid = p.pronamespace"
             " where n.nspname = $1 and not has_function_privilege(p.oid, 'execute')"
             " and p.proname in ('register', 'heartbeat', 'accede', 'abdicate', 'leave', 'relay_claim', 'relay_published',"
             " 'hooks_next', 'news_after', 'news_last', 'status', 'server_identity', 'fence', 'fence_check')",
             config->schema, &result, &error))
        report(findings, false, what, "rights: %s", error.text);
    else if (!PQgetisnull(result, 0, 0))
        report(findings, false, what, "user %s may not call %s - as a superuser run: grant heirflow_member to \"%s\"",
               PQgetvalue(result, 0, 1), PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1));
    else
        report(findings, true, what, "schema \"%s\" has the right version and may be used", config->schema);
}

/* Would the next heir really shut this node's scheduler out? */
static void check_fence(struct findings *findings, struct postgres_session *session, const struct config *config)
{
    struct error error;
    cleanup_result PGresult *result = NULL;
    if (!config->fence_role)
        return;
    if (!postgres_session_call(session, "select fence_check($1, $2)", 2,
                               (const char *const[]){config->group, config->fence_role}, CALL_MS, &result, &error)) {
        report(findings, false, "fencing", "%s", error.text);
        return;
    }
    for (int i = 0; i < PQntuples(result); i++)
        report(findings, false, "fencing", "%s - see docs/fencing.md", PQgetvalue(result, i, 0));
    if (!PQntuples(result))
        report(findings, true, "fencing", "the next heir ends the sessions of %s and shuts it out", config->fence_role);
}

/* An existing group's lease is adopted, so ours has to fit it. */
static void check_group(struct findings *findings, struct postgres_session *session, const struct config *config)
{
    struct error error;
    cleanup_result PGresult *result = NULL;
    if (!ask(session, "select (status($1)->>'lease_ms')::bigint", config->group, &result, &error))
        report(findings, false, "group", "%s", error.text);
    else if (PQgetisnull(result, 0, 0))
        report(findings, true, "group", "%s is new here: the first `heirflow run` founds it", config->group);
    else if (strtoll(PQgetvalue(result, 0, 0), NULL, 10) != config->lease_ms)
        check_timings(findings, config, "timings with the group's own lease", strtoll(PQgetvalue(result, 0, 0), NULL, 10));
    else
        report(findings, true, "group", "%s exists and has the same lease", config->group);
}

/* One host of the connection string; counts the servers that accept writes. */
static void check_host(struct findings *findings, const struct config *config, const char *conninfo, const char *what,
                       int hosts)
{
    struct postgres_settings settings = {
        .conninfo = conninfo, .application_name = "heirflow check", .schema = config->schema, .attempt_ms = OPEN_MS - 500};
    struct postgres_session *session = NULL;
    struct error error;
    char identity[128];
    if (!postgres_session_open(&settings, OPEN_MS, &session, &error)) {
        bool standby = strstr(error.text, "standby in recovery") != NULL;
        report(findings, standby && hosts > 1, what, "%s%s", standby && hosts > 1 ? "reachable: " : "", error.text);
        return;
    }
    if (check_server(findings, what, session, identity, sizeof identity)) {
        bool same = findings->primaries && strcmp(findings->identity, identity) == 0;
        findings->primaries += !same;
        (void)snprintf(findings->identity, sizeof findings->identity, "%s", identity);
        check_round_trip(findings, what, session, config);
    }
    if (!migrate_check_version(session, config->schema, &error)) {
        report(findings, false, what, "%s", error.text);
    } else {
        check_rights(findings, what, session, config);
        check_group(findings, session, config);
        check_fence(findings, session, config);
    }
    postgres_session_close(session);
}

/* The n-th item of a list with commas; the only one serves for all. */
static void item_of(const char *list, int n, char *buffer, size_t size)
{
    while (n-- > 0 && strchr(list, ','))
        list = strchr(list, ',') + 1;
    (void)snprintf(buffer, size, "%.*s", (int)strcspn(list, ","), list);
}

static int count_items(const char *list)
{
    int count = 1;
    for (const char *c = list; *c; c++)
        count += *c == ',';
    return count;
}

static const char *option_of(const PQconninfoOption *options, const char *keyword)
{
    while (options->keyword && strcmp(options->keyword, keyword) != 0)
        options++;
    return options->val ? options->val : "";
}

static void put_option(FILE *stream, const char *keyword, const char *value)
{
    fprintf(stream, "%s='", keyword);
    for (; *value; value++) {
        if (*value == '\'' || *value == '\\')
            fputc('\\', stream);
        fputc(*value, stream);
    }
    fputs("' ", stream);
}

/* The connection string for the n-th of all hosts alone, which may come from its service or from the environment. */
static char *conninfo_of(const PQconninfoOption *options, const PQconninfoOption *all, int n)
{
    static const char *const lists[] = {"host", "hostaddr", "port"};
    char *text = NULL, item[512];
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    for (; stream && options->keyword; options++) {
        if (options->val && strcmp(options->keyword, "target_session_attrs") != 0)
            put_option(stream, options->keyword, options->val);
    }
    for (size_t i = 0; stream && i < sizeof lists / sizeof *lists; i++) {
        item_of(option_of(all, lists[i]), n, item, sizeof item);
        if (*option_of(all, lists[i]))
            put_option(stream, lists[i], item); /* the last of a keyword counts, an empty one too */
    }
    if (stream)
        (void)fclose(stream);
    return text;
}

static void check_hosts(struct findings *findings, const struct config *config, const PQconninfoOption *options,
                        const PQconninfoOption *all)
{
    const char *hosts = *option_of(all, "host") ? option_of(all, "host") : option_of(all, "hostaddr");
    int count = count_items(hosts);
    for (int i = 0; i < count; i++) {
        char host[256], port[32], what[320];
        cleanup_free char *conninfo = conninfo_of(options, all, i);
        item_of(hosts, i, host, sizeof host);
        item_of(option_of(all, "port"), i, port, sizeof port);
        (void)snprintf(what, sizeof what, "database %s%s%s", *host ? host : "here", *port ? " port " : "", port);
        if (conninfo)
            check_host(findings, config, conninfo, what, count);
    }
    if (findings->primaries > 1)
        report(findings, false, "database", "%d different servers accept writes - only one may: end all but the primary",
               findings->primaries);
    else if (!findings->primaries && count > 1)
        report(findings, false, "database", "no host accepts writes - is the primary among them?");
}

static void check_database(struct findings *findings, const struct config *config)
{
    struct error error;
    PQconninfoOption *options = PQconninfoParse(config->postgres, NULL); /* config_load has refused what it cannot parse */
    PQconninfoOption *all = hosts_read(config->postgres, &error);
    if (options && all)
        check_hosts(findings, config, options, all);
    else
        report(findings, false, "database", "%s", all ? "out of memory" : error.text);
    PQconninfoFree(options);
    PQconninfoFree(all);
}

/* ---- the brokers */

static void check_brokers(struct findings *findings, const struct config *config)
{
    if (!config->rabbitmq.url_count)
        report(findings, true, "broker", "none configured: the news stay in Postgres");
    for (size_t i = 0; i < config->rabbitmq.url_count; i++) {
        struct broker *broker = NULL;
        struct error error;
        struct broker_settings settings = brokers_settings(config, "heirflow check");
        if (broker_open(config->rabbitmq.urls[i], &settings, OPEN_MS, &broker, &error))
            report(findings, true, "broker", "%s, exchange %s", broker->name, config->rabbitmq.exchange);
        else
            report(findings, false, "broker", "%s", error.text);
        broker_close(broker, true);
    }
}

static void give_up(int number)
{
    static const char text[] = "BAD check: no end after 120 s - does a name look-up hang? See /etc/resolv.conf\n";
    ssize_t ignored = write(STDOUT_FILENO, text, sizeof text - 1);
    (void)ignored;
    _exit(EXIT_CODE_NEGATIVE);
}

int check_run(const struct config *config, bool try_hooks)
{
    struct findings findings = {0};
    (void)signal(SIGALRM, give_up); /* what waits below has deadlines, except the resolver */
    (void)alarm(120);
    check_configuration(&findings, config);
    check_variables(&findings);
    check_timings(&findings, config, "timings", config->lease_ms);
    check_node(&findings, config);
    check_hooks(&findings, config, try_hooks);
    check_database(&findings, config);
    check_brokers(&findings, config);
    (void)alarm(0);
    return findings.bad ? EXIT_CODE_NEGATIVE : EXIT_CODE_OK;
}
