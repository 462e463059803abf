/* Drives postgres.c for the tests: commands on standard input, what happens on standard output, one a line.
 *
 *   driver CONNINFO ATTEMPT_MS [CHANNEL]
 *
 *   connect | drop | drain | destroy | give-up | query TIMEOUT_MS SQL | value TIMEOUT_MS BYTES
 *   then EVENT COMMAND       runs it inside the callback of the next EVENT: connected, reply, disconnected or notify
 *   open TIMEOUT_MS | call TIMEOUT_MS SQL | wait TIMEOUT_MS | close      the blocking face
 *
 * Names that begin with "test-" resolve to what the file of that name in $HEIRFLOW_TEST_NAMES lists; while it says
 * "hang", they do not resolve at all.
 */
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "cleanup.h"
#include "postgres.h"

static struct postgres_settings settings;
static struct postgres *postgres;
static struct postgres_session *session;
static uv_pipe_t input;
static char line[1 << 16];
static size_t line_length;
static struct {
    char event[16], command[400];
} queue[32];
static int queued;

static void run(char *command);

typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static bool read_name(const char *name, char *ret_text, size_t size)
{
    char path[500];
    (void)snprintf(path, sizeof path, "%s/%s", getenv("HEIRFLOW_TEST_NAMES"), name);
    cleanup_file FILE *file = fopen(path, "re");
    return file && fgets(ret_text, (int)size, file);
}

/* Stands before the C library's. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
    resolver *real;
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (!name || strncmp(name, "test-", 5) != 0)
        return real(name, service, hints, ret);
    char text[300] = "", *rest = text;
    while (read_name(name, text, sizeof text) && strcmp(text, "hang") == 0)
        (void)usleep(5000);
    *ret = NULL;
    for (char *address; (address = strsep(&rest, " ")) && *address; ret = &(*ret)->ai_next) {
        if (real(address, service, hints, ret) != 0)
            return EAI_FAIL;
    }
    return text[0] ? 0 : EAI_AGAIN;
}

static void say(const char *event, const char *text)
{
    printf("%s%s%s\n", event, text ? " " : "", text ? text : "");
    fflush(stdout);
}

static void happened(const char *event)
{
    for (int i = 0; i < queued; i++) {
        if (strcmp(queue[i].event, event) != 0)
            continue;
        char command[sizeof queue[i].command];
        strcpy(command, queue[i].command);
        memmove(queue + i, queue + i + 1, (size_t)(--queued - i) * sizeof *queue);
        run(command);
        return;
    }
}

static void on_connected(void *data)
{
    say("connected", NULL);
    happened("connected");
}

static void say_error(const char *event, const struct error *error)
{
    char text[1200];
    (void)snprintf(text, sizeof text, "retryable=%d %s", error->retryable, error->text);
    say(event, text);
}

static void on_disconnected(void *data, const struct error *error)
{
    say_error("disconnected", error);
    happened("disconnected");
}

static void on_notify(void *data, const char *payload)
{
    say("notify", payload);
    happened("notify");
}

static void on_vacuum_due(void *data, const char *text)
{
    say("vacuum-due", text);
}

static void say_result(const PGresult *result, const char *warning)
{
    const char *value = PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "";
    char text[600];
    (void)snprintf(text, sizeof text, "%.100s length=%zu%s%s", value, strlen(value), warning ? " warning=" : "",
                   warning ? warning : "");
    say("reply", text);
}

static void on_reply(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    if (result)
        say_result(result, warning);
    else
        say_error("failed", error);
    happened("reply");
}

static void on_closed(void *data)
{
    say("closed", NULL);
}

static void destroy(void)
{
    if (postgres)
        postgres_destroy(postgres, on_closed, NULL);
    postgres = NULL;
}

static void value(int64_t timeout_ms, size_t bytes)
{
    cleanup_free char *text = malloc(bytes + 1);
    memset(text, 'x', bytes);
    text[bytes] = 0;
    const char *values[] = {text};
    postgres_query(postgres, "select $1::text", 1, values, timeout_ms, on_reply, NULL);
}

static void call(int64_t timeout_ms, const char *sql)
{
    cleanup_result PGresult *result = NULL;
    struct error error = {0};
    if (postgres_session_call(session, sql, 0, NULL, timeout_ms, &result, &error))
        say_result(result, NULL);
    else
        say_error("failed", &error);
}

static void run_blocking(const char *word, int64_t number, const char *rest)
{
    struct error error = {0};
    if (strcmp(word, "open") == 0) {
        if (postgres_session_open(&settings, number, &session, &error))
            say("opened", NULL);
        else
            say_error("failed", &error);
    } else if (strcmp(word, "call") == 0) {
        call(number, rest);
    } else if (strcmp(word, "wait") == 0) {
        bool came = postgres_session_wait(session, number, &error);
        say(came ? "notified" : "silence", error.text);
    } else if (strcmp(word, "close") == 0) {
        postgres_session_close(session);
        session = NULL;
        say("session-closed", NULL);
    } else {
        say("unknown", word);
    }
}

static void run(char *command)
{
    char word[16] = "", rest[1 << 12] = "";
    long long number = 0;
    (void)sscanf(command, "%15s", word);
    if (strcmp(word, "then") == 0) {
        (void)sscanf(command, "then %15s %399[^\n]", queue[queued].event, queue[queued].command);
        queued++;
        return;
    }
    (void)sscanf(command, "%15s %lld %4095[^\n]", word, &number, rest);
    if (strcmp(word, "connect") == 0)
        postgres_connect(postgres);
    else if (strcmp(word, "drop") == 0)
        postgres_drop(postgres);
    else if (strcmp(word, "drain") == 0)
        postgres_drain(postgres);
    else if (strcmp(word, "give-up") == 0)
        postgres_give_up(postgres);
    else if (strcmp(word, "destroy") == 0)
        destroy();
    else if (strcmp(word, "query") == 0)
        postgres_query(postgres, rest, 0, NULL, number, on_reply, NULL);
    else if (strcmp(word, "value") == 0)
        value(number, strtoul(rest, NULL, 10));
    else
        run_blocking(word, number, rest);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    *buffer = uv_buf_init(line + line_length, (unsigned)(sizeof line - line_length));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    if (count < 0) {
        uv_close((uv_handle_t *)&input, NULL);
        destroy();
        return;
    }
    line_length += (size_t)count;
    char *end;
    while ((end = memchr(line, '\n', line_length))) {
        char command[sizeof line];
        size_t length = (size_t)(end - line);
        memcpy(command, line, length);
        command[length] = 0;
        line_length -= length + 1;
        memmove(line, end + 1, line_length);
        run(command);
    }
}

int main(int argc, char **argv)
{
    struct error error = {0};
    uv_loop_t *loop = uv_default_loop();
    settings = (struct postgres_settings){
        .conninfo = argv[1],
        .application_name = "heirflow:tests:driver",
        .schema = "heir \"flow\"",
        .attempt_ms = atoll(argv[2]),
        .lock_timeout_ms = 700,
        .listen = argc > 3 ? argv[3] : NULL,
        .on_connected = on_connected,
        .on_disconnected = on_disconnected,
        .on_notify = on_notify,
        .on_vacuum_due = on_vacuum_due,
    };
    postgres = postgres_create(loop, &settings, &error);
    if (!postgres) {
        say_error("unusable", &error);
        return 2;
    }
    (void)uv_pipe_init(loop, &input, 0);
    (void)uv_pipe_open(&input, 0);
    (void)uv_read_start((uv_stream_t *)&input, on_alloc, on_read);
    (void)uv_run(loop, UV_RUN_DEFAULT);
    return uv_loop_close(loop) == 0 ? 0 : 3;
}
