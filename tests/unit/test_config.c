/* Configuration: every key, every source, every way of getting it wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cleanup.h"
#include "config.h"

static char folder[] = "/tmp/heirflow-test-config-XXXXXX";
static char path[256], secret[256];

extern char **environ;

static void write_text(const char *to, const char *text)
{
    FILE *file = fopen(to, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(to, 0640), 0); /* it may hold a secret */
}

static int make_folder(void **state)
{
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/heirflow.json", folder);
    (void)snprintf(secret, sizeof secret, "%s/secret", folder);
    return 0;
}

static int remove_folder(void **state)
{
    return rmdir(folder);
}

/* Nothing of the caller's environment may decide a test. */
static int clear(void **state)
{
    for (char **variable = environ; *variable;) {
        char name[128];
        (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(*variable, "="), *variable);
        if (strncmp(name, "HEIRFLOW_", 9) == 0 || strcmp(name, "RUNTIME_DIRECTORY") == 0)
            (void)unsetenv(name), variable = environ;
        else
            variable++;
    }
    (void)setenv("HEIRFLOW_CONFIG", "/dev/null", 1); /* not the one in /etc */
    return 0;
}

static int remove_files(void **state)
{
    (void)unlink(path);
    (void)unlink(secret);
    return 0;
}

static struct error error;

static struct config *load_flags(const struct config_flags *flags)
{
    struct config *config = NULL;
    error.text[0] = '\0';
    if (!config_load(flags, &config, &error)) {
        assert_null(config);
        assert_int_equal(error.exit_code, EXIT_CODE_USAGE);
        assert_null(strchr(error.text, '\n'));
    }
    return config;
}

/* NULL for no file. */
static struct config *load(const char *json)
{
    if (json)
        write_text(path, json);
    return load_flags(&(struct config_flags){.path = json ? path : NULL});
}

static void assert_says(const char *text)
{
    if (!strstr(error.text, text))
        fail_msg("\"%s\" does not say \"%s\"", error.text, text);
}

static void refused(const char *json, const char *text)
{
    assert_null(load(json));
    assert_says(text);
}

static void defaults_without_any_source(void **state)
{
    char host[256];
    (void)gethostname(host, sizeof host);
    struct config *config = load(NULL);
    assert_non_null(config);
    assert_null(config->path);
    assert_string_equal(config->group, "scheduler");
    assert_string_equal(config->node, host);
    assert_string_equal(config->postgres, "dbname=heirflow");
    assert_string_equal(config->schema, "heirflow");
    assert_int_equal(config->rabbitmq.url_count, 0);
    assert_string_equal(config->rabbitmq.exchange, "heirflow.news");
    assert_null(config->rabbitmq.ca_file);
    assert_null(config->rabbitmq.cert_file);
    assert_int_equal(config->lease_ms, 6000);
    assert_int_equal(config->heartbeat_ms, 0);
    assert_int_equal(config->retention_days, 90);
    assert_null(config->scheduler.command);
    assert_null(config->scheduler.environment);
    assert_null(config->scheduler.directory);
    assert_null(config->scheduler.user);
    assert_string_equal(config->scheduler.output, "inherit");
    assert_int_equal(config->scheduler.stop_timeout_ms, 30000);
    assert_int_equal(config->scheduler.restart.limit, 3);
    assert_int_equal(config->scheduler.restart.window_ms, 60000);
    assert_int_equal(config->scheduler.restart.backoff_ms, 500);
    assert_null(config->scheduler.health.command);
    assert_int_equal(config->scheduler.health.interval_ms, 10000);
    assert_int_equal(config->scheduler.health.timeout_ms, 30000);
    assert_int_equal(config->scheduler.health.failures, 3);
    assert_int_equal(config->scheduler.health.start_period_ms, 60000);
    assert_false(config->no_heir);
    assert_int_equal(config->log.level, LOG_INFO);
    assert_int_equal(config->log.format, LOG_TEXT);
    assert_int_equal(config_worst_gap_ms(config, 6000), 8000);
    config_free(config);
}

static void every_key_of_a_file(void **state)
{
    struct config *config = load(
        "{\"group\": \"g\", \"node\": \"n\", \"postgres\": \"host=a dbname=b\", \"schema\": \"s\","
        " \"rabbitmq\": {\"url\": [\"amqp://a\", \"amqps://b:5673/v\"], \"exchange\": \"e\","
        " \"ca_file\": \"/ca\", \"cert_file\": \"/cert\", \"key_file\": \"/key\"},"
        " \"lease_ms\": 3000, \"heartbeat_ms\": 400, \"retention_days\": 11, \"run_directory\": \"/r\", \"no_heir\": true,"
        " \"scheduler\": {\"command\": [\"a\", \"\", \"b c\"], \"environment\": {\"K\": \"v\"}, \"directory\": \"/d\","
        " \"user\": \"u\", \"output\": \"/o\", \"stop_timeout_ms\": 1, \"fence_grace_ms\": 2,"
        " \"restart\": {\"limit\": 4, \"window_ms\": 5, \"backoff_ms\": 6},"
        " \"health\": {\"command\": [\"h\", \"-x\"], \"interval_ms\": 7, \"timeout_ms\": 8, \"failures\": 9,"
        " \"start_period_ms\": 10}},"
        " \"log\": {\"level\": \"debug\", \"format\": \"json\"}}");
    assert_non_null(config);
    assert_string_equal(config->path, path);
    assert_int_equal(config->rabbitmq.url_count, 2);
    assert_string_equal(config->rabbitmq.urls[1], "amqps://b:5673/v");
    assert_string_equal(config->rabbitmq.exchange, "e");
    assert_string_equal(config->rabbitmq.ca_file, "/ca");
    assert_string_equal(config->rabbitmq.cert_file, "/cert");
    assert_string_equal(config->rabbitmq.key_file, "/key");
    assert_string_equal(config->scheduler.command[1], "");
    assert_string_equal(config->scheduler.command[2], "b c");
    assert_null(config->scheduler.command[3]);
    assert_string_equal(json_string_value(json_object_get(config->scheduler.environment, "K")), "v");
    assert_string_equal(config->scheduler.directory, "/d");
    assert_string_equal(config->scheduler.user, "u");
    assert_string_equal(config->scheduler.output, "/o");
    assert_string_equal(config->run_directory, "/r");
    assert_true(config->no_heir);
    assert_int_equal(config->retention_days, 11);
    assert_int_equal(config->log.level, LOG_DEBUG);
    assert_int_equal(config->log.format, LOG_JSON);
    struct succession_settings settings = config_succession(config);
    assert_int_equal(settings.lease_ms, 3000);
    assert_int_equal(settings.heartbeat_ms, 400);
    assert_int_equal(settings.stop_timeout_ms, 1);
    assert_int_equal(settings.fence_grace_ms, 2);
    assert_int_equal(settings.restart_limit, 4);
    assert_int_equal(settings.restart_window_ms, 5);
    assert_int_equal(settings.restart_backoff_ms, 6);
    assert_int_equal(settings.unhealthy_window_ms, 5 * (10 + 9 * (7 + 8) + 3000));
    assert_string_equal(config->scheduler.health.command[1], "-x");
    assert_null(config->scheduler.health.command[2]);
    assert_int_equal(config->scheduler.health.interval_ms, 7);
    assert_int_equal(config->scheduler.health.timeout_ms, 8);
    assert_int_equal(config->scheduler.health.failures, 9);
    assert_int_equal(config->scheduler.health.start_period_ms, 10);
    assert_true(settings.no_heir);
    config_free(config);
}

static void one_broker_needs_no_list(void **state)
{
    struct config *config = load("{\"rabbitmq\": {\"url\": \"amqp://a\"}}");
    assert_non_null(config);
    assert_int_equal(config->rabbitmq.url_count, 1);
    config_free(config);
    config = load("{\"rabbitmq\": {\"url\": \"\"}}");
    assert_non_null(config);
    assert_int_equal(config->rabbitmq.url_count, 0);
    config_free(config);
}

static void flag_before_environment_before_file(void **state)
{
    write_text(path,
               "{\"group\": \"file\", \"node\": \"file\", \"schema\": \"file\", \"scheduler\": {\"command\": [\"file\"]}}");
    (void)setenv("HEIRFLOW_GROUP", "environment", 1);
    (void)setenv("HEIRFLOW_NODE", "environment", 1);
    char *command[] = {"flag", "-x", NULL};
    struct config *config = load_flags(&(struct config_flags){.path = path, .group = "flag", .command = command});
    assert_non_null(config);
    assert_string_equal(config->group, "flag");
    assert_string_equal(config->node, "environment");
    assert_string_equal(config->schema, "file");
    assert_string_equal(config->scheduler.command[0], "flag");
    assert_string_equal(config->scheduler.command[1], "-x");
    assert_null(config->scheduler.command[2]);
    config_free(config);
}

static void environment_of_every_type(void **state)
{
    (void)setenv("HEIRFLOW_SCHEDULER_STOP_TIMEOUT_MS", "1234", 1);
    (void)setenv("HEIRFLOW_SCHEDULER_RESTART_LIMIT", "15", 1);
    (void)setenv("HEIRFLOW_NO_HEIR", "true", 1);
    (void)setenv("HEIRFLOW_LOG_LEVEL", "warn", 1);
    (void)setenv("HEIRFLOW_RABBITMQ_URL", "amqp://a,amqp://b", 1);
    struct config *config = load(NULL);
    assert_non_null(config);
    assert_int_equal(config->scheduler.stop_timeout_ms, 1234);
    assert_int_equal(config->scheduler.restart.limit, 15);
    assert_true(config->no_heir);
    assert_int_equal(config->log.level, LOG_WARN);
    assert_int_equal(config->rabbitmq.url_count, 2);
    assert_string_equal(config->rabbitmq.urls[1], "amqp://b");
    config_free(config);
}

static void faults_in_the_environment_name_the_variable(void **state)
{
    static const char *const cases[][3] = {
        {"HEIRFLOW_LEASE_MS", "6s", "whole number"},
        {"HEIRFLOW_LEASE_MS", "", "whole number"},
        {"HEIRFLOW_LEASE_MS", " 6000", "whole number"},
        {"HEIRFLOW_LEASE_MS", "99999999999999999999", "whole number"},
        {"HEIRFLOW_LEASE_MS", "6000.0", "whole number"},
        {"HEIRFLOW_LEASE_MS", "199", "from 200 to"},
        {"HEIRFLOW_NO_HEIR", "yes", "true or false"},
        {"HEIRFLOW_LOG_LEVEL", "loud", "\"debug\""},
        {"HEIRFLOW_NODE", "", "without spaces"},
        {"HEIRFLOW_NODE", "a b", "without spaces"},
        {"HEIRFLOW_NODE", "\xff", "UTF-8"},
        {"HEIRFLOW_SCHEMA", "a-b", "lower-case"},
        {"HEIRFLOW_RABBITMQ_URL", "amqp://a,http://b", "amqp://"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        (void)setenv(cases[i][0], cases[i][1], 1);
        refused(NULL, cases[i][2]);
        assert_says(cases[i][0]);
        (void)unsetenv(cases[i][0]);
    }
}

static void faults_in_a_file_name_key_and_line(void **state)
{
    refused("{\n\"lease_ms\": 6000,\n\"lease\": 1}",
            "heirflow.json, line 3: \"lease\" is no known key; known here: group, node");
    refused("{\n\"scheduler\": {\n\n\"comand\": []}}",
            "line 4: \"scheduler.comand\" is no known key; known here: command, env");
    refused("{\"scheduler\": {\"restart\": {\n\"limits\": 1}}}", "line 2: \"scheduler.restart.limits\"");
    refused("{\"scheduler.restart.limit\": 1}", "is no known key");
    refused("{\"\": 1}", "is no known key");
    refused("{\"fence_rule\": \"x\"}", "is no known key");
    refused("{\"mail\": {}}", "is no known key");
    refused("{\"rabbitmq\": \"amqp://a\"}", "\"rabbitmq\" must be an object with any of: url, exchange");
    refused("{\n\n\"lease_ms\": \"6000\"}", "line 3: \"lease_ms\" must be a whole number");
    refused("{\"lease_ms\": 6000.5}", "must be a whole number");
    refused("{\"lease_ms\": 100}", "is 100; it must be from 200 to 86400000");
    refused("{\"scheduler\": {\"restart\": {\"limit\": 16}}}", "from 0 to 15");
    refused("{\"scheduler\": {\"restart\": {\"limit\": -1}}}", "from 0 to 15");
    refused("{\"no_heir\": 1}", "true or false");
    refused("{\"group\": 1}", "must be a string");
    refused("{\"group\": \"a/b\"}", "slashes");
    refused("{\"node\": \"a\\u001bb\"}", "control characters");
    refused("{\"node\": \"a\\u009bb\"}", "control characters");
    refused("{\"schema\": \"pg_x\"}", "pg_");
    refused("{\"schema\": \"x\\\"; drop\"}", "lower-case");
    refused("{\"scheduler\": {\"command\": \"airflow scheduler\"}}", "must be a list of strings");
    refused("{\"scheduler\": {\"command\": [\"a\", 1]}}", "item 2 is none");
    refused("{\"scheduler\": {\"command\": [\"\"]}}", "name the program");
    refused("{\"scheduler\": {\"environment\": {\"A\": 1}}}", "\"A\" is none");
    refused("{\"scheduler\": {\"environment\": {\"A=B\": \"1\"}}}", "no name for a variable");
    refused("{\"scheduler\": {\"environment\": {\"HEIRFLOW_TERM\": \"1\"}}}", "Heirflow's own");
    refused("{\"scheduler\": {\"environment\": []}}", "object of strings");
    refused("{\"scheduler\": {\"directory\": \"relative\"}}", "absolute path");
    refused("{\"scheduler\": {\"output\": \"log\"}}", "\"inherit\" or an absolute path");
    refused("{\"run_directory\": \"run\"}", "absolute path");
    refused("{\"rabbitmq\": {\"exchange\": \"amq.topic\"}}", "amq.");
    refused("{\"rabbitmq\": {\"ca_file\": \"ca.pem\"}}", "an absolute path");
    refused("{\"rabbitmq\": {\"cert_file\": \"/a\"}}", "go together");
    refused("{\"rabbitmq\": {\"cert_file\": \"\", \"key_file\": \"/a\"}}", "go together");
    refused("{\"log\": {\"format\": \"xml\"}}", "\"text\" or \"json\"");
}

static void faults_of_the_health_command(void **state)
{
    refused("{\"scheduler\": {\"health\": {\"command\": \"airflow\"}}}", "must be a list of strings");
    refused("{\"scheduler\": {\"health\": {\"command\": [\"\"]}}}",
            "\"scheduler.health.command\" begins with an empty text");
    refused("{\"scheduler\": {\"health\": {\"failures\": 0}}}", "must be from 1 to 1000");
    refused("{\"scheduler\": {\"health\": {\"interval_ms\": 0}}}", "must be from 1 to");
    refused("{\"scheduler\": {\"health\": {\"timeout\": 1}}}",
            "known here: command, interval_ms, timeout_ms, failures, start_period_ms");
    refused("{\"scheduler\": {\"health\": []}}", "must be an object");
    struct config *config = load("{\"scheduler\": {\"health\": {\"command\": []}}}");
    assert_non_null(config);
    assert_null(config->scheduler.health.command);
    config_free(config);
}

static void faults_of_the_json_itself(void **state)
{
    refused("{\n\"group\": \"a\"\n\"node\": 1}", "line 3, column ");
    refused("{\"group\": \"a\",\n\"group\": \"b\"}", "a key is given twice");
    refused("", "not valid JSON");
    refused("[]", "one JSON object");
    refused("{} {}", "not valid JSON");
    refused("{\"group\": \"a\\u0000b\"}", "not valid JSON");
}

static void a_name_of_10000_characters(void **state)
{
    char name[10001];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    (void)setenv("HEIRFLOW_NODE", name, 1);
    refused(NULL, "is 10000 bytes long; the most is 255");
    name[255] = '\0';
    (void)setenv("HEIRFLOW_NODE", name, 1);
    struct config *config = load(NULL);
    assert_non_null(config);
    config_free(config);
    name[129] = '\0';
    name[128] = 'n';
    (void)unsetenv("HEIRFLOW_NODE");
    assert_null(load_flags(&(struct config_flags){.group = name}));
    assert_says("--group");
    assert_says("the most is 128");
}

static void unsafe_timings_name_the_rule(void **state)
{
    refused("{\"lease_ms\": 6000, \"heartbeat_ms\": 2001}", "heartbeat <= lease/3");
    assert_says("raise lease_ms");
    refused("{\"lease_ms\": 6000, \"heartbeat_ms\": 2000}", "fence_grace + margin + 2*heartbeat <= lease");
    refused("{\"lease_ms\": 1000, \"scheduler\": {\"fence_grace_ms\": 900}}",
            "fence_grace + margin + 2*heartbeat <= lease");
    struct config *config = load("{\"lease_ms\": 200}");
    assert_non_null(config);
    config_free(config);
}

static void files_that_cannot_be_read(void **state)
{
    assert_null(load_flags(&(struct config_flags){.path = "/no/such/file"}));
    assert_says("/no/such/file: No such file");
    (void)setenv("HEIRFLOW_CONFIG", "/no/such/other", 1);
    refused(NULL, "/no/such/other: No such file");
    assert_null(load_flags(&(struct config_flags){.path = "/"}));
    assert_says("Is a directory");
    write_text(path, "{}");
    (void)setenv("HEIRFLOW_CONFIG", path, 1);
    struct config *config = load(NULL);
    assert_non_null(config);
    assert_string_equal(config->path, path);
    config_free(config);
}

static void secrets_from_files(void **state)
{
    write_text(secret, "host=a password=hush\n");
    (void)setenv("HEIRFLOW_POSTGRES_FILE", secret, 1);
    struct config *config = load("{\"postgres\": \"host=file\"}");
    assert_non_null(config);
    assert_string_equal(config->postgres, "host=a password=hush");
    config_free(config);
    (void)setenv("HEIRFLOW_POSTGRES", "host=b", 1);
    refused(NULL, "both HEIRFLOW_POSTGRES and HEIRFLOW_POSTGRES_FILE are set");
    (void)unsetenv("HEIRFLOW_POSTGRES");
    (void)setenv("HEIRFLOW_POSTGRES_FILE", "/no/such/secret", 1);
    refused(NULL, "HEIRFLOW_POSTGRES_FILE");
    assert_says("/no/such/secret: No such file");
    (void)unsetenv("HEIRFLOW_POSTGRES_FILE");
    write_text(secret, "amqp://u:p@a,amqp://u:p@b\n");
    (void)setenv("HEIRFLOW_RABBITMQ_URL_FILE", secret, 1);
    config = load(NULL);
    assert_non_null(config);
    assert_int_equal(config->rabbitmq.url_count, 2);
    assert_string_equal(config->rabbitmq.urls[1], "amqp://u:p@b");
    config_free(config);
}

static void secrets_are_never_told(void **state)
{
    static const char *const cases[] = {
        "{\"postgres\": \"host=a password=hush extra hush\"}",
        "{\"postgres\": \"postgresql://u:hush@[a\"}",
        "{\"postgres\": \"hush=1\"}",
        "{\"rabbitmq\": {\"url\": \"amqp://u:hush@a:x/\"}}",
        "{\"rabbitmq\": {\"url\": [\"amqp://a\", \"hush\"]}}",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        refused(cases[i], "is not usable; it must be");
        assert_null(strstr(error.text, "hush"));
    }
    refused("{\"postgres\": \"password=hush\n\"}", "line 1, column");
    assert_null(strstr(error.text, "hush"));
    refused("{\"postgres\": \"password=a\" hush", "not valid JSON");
    assert_null(strstr(error.text, "hush"));
}

static void secrets_that_everybody_can_open_are_refused(void **state)
{
    static const char *const secrets[] = {
        "{\"postgres\": \"host=a password=hush\"}",
        "{\"postgres\": \"postgresql://u:hush@a\"}",
        "{\"rabbitmq\": {\"url\": [\"amqp://a\", \"amqp://u:hush@a\"]}}",
        "{\"http\": {\"token\": \"hush-0123456789-hush\"}}",
    };
    static const char *const others[] = {
        "{\"postgres\": \"host=a passfile=/root/.pgpass\"}",
        "{\"rabbitmq\": {\"url\": [\"amqp://a\", \"amqps://guest:guest@a\"]}}",
        "{\"http\": {\"token\": \"\"}}",
    };
    char remedy[512];
    (void)snprintf(remedy, sizeof remedy, "every user of this host can open the file: chmod o= %s", path);
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        write_text(path, secrets[i]);
        assert_int_equal(chmod(path, 0604), 0);
        assert_null(load_flags(&(struct config_flags){.path = path}));
        assert_says(remedy);
        assert_null(strstr(error.text, "hush"));
        assert_int_equal(chmod(path, 0660), 0);
        config_free(load_flags(&(struct config_flags){.path = path}));
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        write_text(path, others[i]);
        assert_int_equal(chmod(path, 0644), 0);
        struct config *config = load_flags(&(struct config_flags){.path = path});
        assert_non_null(config);
        config_free(config);
    }
    write_text(secret, "host=a password=hush\n");
    assert_int_equal(chmod(secret, 0644), 0);
    (void)setenv("HEIRFLOW_POSTGRES_FILE", secret, 1);
    assert_null(load(NULL));
    assert_says("HEIRFLOW_POSTGRES_FILE: every user of this host can open");
    assert_says("chmod o=");
}

static void run_directory_from_the_system(void **state)
{
    (void)setenv("RUNTIME_DIRECTORY", "/run/a:/run/b", 1);
    struct config *config = load(NULL);
    assert_string_equal(config->run_directory, "/run/a");
    config_free(config);
    (void)unsetenv("RUNTIME_DIRECTORY");
    config = load(NULL);
    if (geteuid() == 0)
        assert_string_equal(config->run_directory, "/run/heirflow");
    config_free(config);
    (void)setenv("HEIRFLOW_RUN_DIRECTORY", "/mine", 1);
    config = load(NULL);
    assert_string_equal(config->run_directory, "/mine");
    config_free(config);
}

static void twins_are_named_after_their_keys(void **state)
{
    char name[96];
    for (const struct config_key *key = config_keys; key->path; key++) {
        config_twin(key, "", name, sizeof name);
        assert_int_equal(strncmp(name, "HEIRFLOW_", 9), 0);
        if (strcmp(key->path, "scheduler.restart.window_ms") == 0)
            assert_string_equal(name, "HEIRFLOW_SCHEDULER_RESTART_WINDOW_MS");
    }
}

static char *read_whole(const char *name)
{
    FILE *file = fopen(name, "r");
    assert_non_null(file);
    char *text = calloc(1, 100000);
    assert_non_null(text);
    assert_true(fread(text, 1, 99999, file) > 0);
    (void)fclose(file);
    return text;
}

static const char *type_name(const struct config_key *key)
{
    static char text[64];
    switch (key->type) {
    case CONFIG_TEXT:
        return "text";
    case CONFIG_INTEGER:
        (void)snprintf(text, sizeof text, "number, %lld to %lld", (long long)key->least, (long long)key->most);
        return text;
    case CONFIG_BOOLEAN:
        return "true or false";
    case CONFIG_LIST:
        return key->has_twin ? "text or list of texts" : "list of texts";
    case CONFIG_MAP:
        return "object of texts";
    case CONFIG_LEVEL:
        return "`debug`, `info`, `warn`, `error`";
    case CONFIG_FORMAT:
        return "`text`, `json`";
    }
    return NULL;
}

static void addresses_and_tokens_of_http(void **state)
{
    static const char *const good[] = {"127.0.0.1:8470", "0.0.0.0:1", "[::1]:8470", "[::]:65535", ""};
    static const char *const bad[] = {
        "8470",  ":8470",        "localhost:8470", "127.0.0.1",       "127.0.0.1:",    "127.0.0.1:x",
        "[::1]", "::1:8470",     "[::1:8470",      "127.0.0.1:65536", "127.0.0.1:-1",  "[]:8470",
        "[]:",   "127.0.0.1:1 ", "127.1.1.1.1:80", "127.0.0.1]:80",   "[127.0.0.1]:80"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        (void)setenv("HEIRFLOW_HTTP_LISTEN", good[i], 1);
        struct config *config = load_flags(&(struct config_flags){0});
        if (!config)
            fail_msg("%s: %s", good[i], error.text);
        assert_true(*good[i] ? strcmp(config->http.listen, good[i]) == 0 : !config->http.listen);
        config_free(config);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        (void)setenv("HEIRFLOW_HTTP_LISTEN", bad[i], 1);
        if (load_flags(&(struct config_flags){0}))
            fail_msg("%s was taken", bad[i]);
        assert_says("http.listen");
    }
    (void)unsetenv("HEIRFLOW_HTTP_LISTEN");
    (void)setenv("HEIRFLOW_HTTP_TOKEN", "hush", 1);
    assert_null(load_flags(&(struct config_flags){0}));
    assert_says("at least 16");
    assert_null(strstr(error.text, "hush"));
    (void)unsetenv("HEIRFLOW_HTTP_TOKEN");
}

static void assert_group(const char *name, const char *json, const char *group)
{
    char named[sizeof path + 64];
    (void)snprintf(named, sizeof named, "%s.d", path);
    (void)mkdir(named, 0700);
    (void)snprintf(named, sizeof named, "%s.d/%s", path, name);
    write_text(named, json);
    struct config *config = load_flags(&(struct config_flags){.path = named});
    assert_non_null(config);
    assert_string_equal(config->group, group);
    config_free(config);
    (void)unlink(named);
    *strrchr(named, '/') = '\0';
    (void)rmdir(named);
}

static void a_file_is_about_the_group_of_its_name(void **state)
{
    assert_group("airflow.json", "{}", "airflow");
    assert_group("airflow.json", "{\"group\": \"beat\"}", "beat");
    assert_group("heirflow.json", "{}", "scheduler");
    assert_group("not a name.json", "{}", "scheduler");
    assert_group("airflow", "{}", "scheduler");
    assert_group("airflow.json.dpkg-old", "{}", "scheduler");
    (void)setenv("HEIRFLOW_GROUP", "beat", 1);
    assert_group("airflow.json", "{}", "beat");
    (void)unsetenv("HEIRFLOW_GROUP");
}

/* docs/configuration.md has a section for each key, headed as this says; a key that changes must change there. */
static void the_manual_knows_every_key(void **state)
{
    cleanup_free char *manual = read_whole(SOURCE_FOLDER "/docs/configuration.md");
    static const char *const effects[] = {"needs a restart", "with the next term", "at once"}; /* as enum config_effect */
    int faults = 0;
    for (const struct config_key *key = config_keys; key->path; key++) {
        char twin[96], section[1400];
        config_twin(key, "", twin, sizeof twin);
        (void)snprintf(section, sizeof section,
                       "### `%s`\n\n%s\n\nType: %s. Default: %s%s%s. Environment: %s%s%s%s%s%s. Reload: %s.\n", key->path,
                       key->description, type_name(key), key->preset && *key->preset ? "`" : "",
                       key->preset                            ? (*key->preset ? key->preset : "none")
                       : strstr(key->description, "Default:") ? "see above"
                                                              : "none",
                       key->preset && *key->preset ? "`" : "", key->has_twin ? "`" : "", key->has_twin ? twin : "none",
                       key->has_twin ? "`" : "", key->secret ? ", or the file named by `" : "", key->secret ? twin : "",
                       key->secret ? "_FILE`" : "", effects[key->effect]);
        if (!strstr(manual, section)) {
            print_error("docs/configuration.md lacks:\n%s\n", section);
            faults++;
        }
    }
    assert_int_equal(faults, 0);
    int sections = 0, keys = 0;
    for (const char *at = manual; (at = strstr(at, "\n### `")); at++)
        sections++;
    while (config_keys[keys].path)
        keys++;
    assert_int_equal(sections, keys);
}

static void assert_changes(const struct config *config, const struct config *fresh, enum config_effect effect,
                           const char *expected)
{
    cleanup_free char *changes = config_changes(config, fresh, effect);
    if (!expected)
        assert_string_equal(changes ? changes : "", "");
    else
        assert_string_equal(changes ? changes : "nothing", expected);
}

static void changes_are_told_by_when_they_take_effect(void **state)
{
    struct config *config =
        load("{\"node\": \"n\", \"lease_ms\": 3000, \"no_heir\": false, \"log\": {\"level\": \"info\"},"
             " \"rabbitmq\": {\"url\": [\"amqp://a\", \"amqp://b\"]},"
             " \"scheduler\": {\"command\": [\"a\", \"b\"], \"environment\": {\"K\": \"v\"}, \"user\": \"u\"}}");
    struct config *same = load_flags(&(struct config_flags){.path = path});
    assert_changes(config, same, CONFIG_AT_ONCE, NULL);
    assert_changes(config, same, CONFIG_AT_NEXT_TERM, NULL);
    assert_changes(config, same, CONFIG_AT_RESTART, NULL);
    config_free(same);
    struct config *fresh = load("{\"node\": \"m\", \"lease_ms\": 4000, \"no_heir\": true, \"log\": {\"level\": \"warn\"},"
                                " \"rabbitmq\": {\"url\": [\"amqp://a\"]},"
                                " \"scheduler\": {\"command\": [\"a\"], \"environment\": {\"K\": \"w\"}}}");
    assert_changes(config, fresh, CONFIG_AT_ONCE, "rabbitmq.url,log.level");
    assert_changes(config, fresh, CONFIG_AT_NEXT_TERM, "scheduler.command,scheduler.environment,scheduler.user");
    assert_changes(config, fresh, CONFIG_AT_RESTART, "node,lease_ms,no_heir");
    config_adopt(config, fresh, CONFIG_AT_ONCE);
    assert_int_equal(config->rabbitmq.url_count, 1);
    assert_int_equal(config->log.level, LOG_WARN);
    assert_string_equal(config->scheduler.command[1], "b");
    config_adopt(config, fresh, CONFIG_AT_NEXT_TERM);
    assert_null(config->scheduler.command[1]);
    assert_null(config->scheduler.user);
    assert_string_equal(config->node, "n");
    assert_int_equal(config->lease_ms, 3000);
    assert_changes(config, fresh, CONFIG_AT_RESTART, "node,lease_ms,no_heir");
    config_free(fresh);
    config_free(config);
}

/* What decides who may lead, and when it has to stop, is never changed under a running member. */
static void timings_and_names_need_a_restart(void **state)
{
    static const char *const names[] = {
        "group",        "node",    "postgres",      "schema",     "lease_ms",
        "heartbeat_ms", "no_heir", "run_directory", "fence_role", "scheduler.fence_grace_ms"};
    for (const struct config_key *key = config_keys; key->path; key++) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (strcmp(key->path, names[i]) == 0)
                assert_int_equal(key->effect, CONFIG_AT_RESTART);
        }
    }
}

static void the_examples_are_valid(void **state)
{
    static const char *const names[] = {"heirflow.example.json", "heirflow.airflow.json", "heirflow.celery-beat.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char name[512];
        (void)snprintf(name, sizeof name, "install -m 600 %s/config/%s %s", SOURCE_FOLDER, names[i], path);
        assert_int_equal(system(name), 0);
        struct config *config = load_flags(&(struct config_flags){.path = path});
        if (!config)
            fail_msg("%s", error.text);
        assert_non_null(config->scheduler.command);
        config_free(config);
    }
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, clear, remove_files)
    const struct CMUnitTest tests[] = {
        TEST(defaults_without_any_source),
        TEST(every_key_of_a_file),
        TEST(one_broker_needs_no_list),
        TEST(flag_before_environment_before_file),
        TEST(environment_of_every_type),
        TEST(faults_in_the_environment_name_the_variable),
        TEST(faults_in_a_file_name_key_and_line),
        TEST(faults_of_the_health_command),
        TEST(faults_of_the_json_itself),
        TEST(a_name_of_10000_characters),
        TEST(unsafe_timings_name_the_rule),
        TEST(files_that_cannot_be_read),
        TEST(secrets_from_files),
        TEST(secrets_are_never_told),
        TEST(secrets_that_everybody_can_open_are_refused),
        TEST(run_directory_from_the_system),
        TEST(twins_are_named_after_their_keys),
        TEST(addresses_and_tokens_of_http),
        TEST(a_file_is_about_the_group_of_its_name),
        TEST(the_manual_knows_every_key),
        TEST(changes_are_told_by_when_they_take_effect),
        TEST(timings_and_names_need_a_restart),
        TEST(the_examples_are_valid),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
