/* Plays the wrapper for the keeper's tests: `driver run SPEC` starts one keeper and obeys lines from standard input,
 * `driver seat DIRECTORY GROUP WAIT_MS` takes a seat. Everything that happens is one JSON object a line on standard output.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "clock.h"
#include "keeper.h"
#include "output.h"
#include "seat.h"

static struct keeper *keeper;
static int64_t lease_ms;
static bool renewing;
static uv_loop_t *loop;
static struct output *output;
static uv_poll_t input;
static uv_timer_t renewal;

static void print(json_t *object)
{
    json_object_set_new(object, "at_ms", json_integer(clock_now_ms()));
    char *text = json_dumps(object, JSON_COMPACT);
    printf("%s\n", text);
    fflush(stdout);
    free(text);
    json_decref(object);
}

static int fail(const struct error *error)
{
    print(json_pack("{s:s, s:s, s:b}", "event", "error", "text", error->text, "retryable", error->retryable));
    return error->exit_code;
}

static void on_report(void *data, const struct keeper_report *report)
{
    static const char *const words[] = {"echo", "started", "start_failed", "exited", "tree_dead", "gone"};
    print(json_pack("{s:s, s:I, s:i, s:i, s:s}", "event", words[report->word], "deadline_ms",
                    (json_int_t)report->deadline_ms, "pid", (int)report->pid, "status", report->status, "text",
                    report->text));
    if (report->word == KEEPER_GONE) {
        keeper_free(keeper);
        keeper = NULL;
        output_free(output);
        uv_close((uv_handle_t *)&input, NULL);
        uv_close((uv_handle_t *)&renewal, NULL);
    }
}

static void on_output(void *data, const struct output_report *report)
{
    print(json_pack("{s:s, s:s, s:s?}", "event", "output", "path", report->path, "reason", report->reason));
}

static void obey(const char *line)
{
    long long number = 0;
    char word[32] = "";
    (void)sscanf(line, "%31s %lld", word, &number);
    if (!keeper)
        return;
    if (strcmp(word, "deadline") == 0)
        keeper_set_deadline(keeper, clock_now_ms() + number);
    else if (strcmp(word, "restart") == 0)
        keeper_restart(keeper);
    else if (strcmp(word, "stop") == 0)
        keeper_stop(keeper, clock_now_ms() + number);
    else if (strcmp(word, "kill") == 0)
        keeper_kill(keeper);
    else if (strcmp(word, "silent") == 0)
        renewing = false;
}

static void on_input(uv_poll_t *poll, int status, int events)
{
    static char text[4096];
    static size_t length;
    ssize_t size = read(STDIN_FILENO, text + length, sizeof text - 1 - length);
    if (size <= 0)
        _exit(0); /* as a wrapper that dies */
    length += (size_t)size;
    text[length] = '\0';
    char *line = text, *end;
    for (; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        obey(line);
    }
    length = strlen(line);
    memmove(text, line, length);
}

static void on_renewal(uv_timer_t *timer)
{
    if (renewing && keeper)
        keeper_set_deadline(keeper, clock_now_ms() + lease_ms);
}

static const char *text(json_t *spec, const char *key, const char *otherwise)
{
    const char *value = json_string_value(json_object_get(spec, key));
    return value ? value : otherwise;
}

static int64_t number(json_t *spec, const char *key, int64_t otherwise)
{
    json_t *value = json_object_get(spec, key);
    return value ? json_integer_value(value) : otherwise;
}

static const char **strings(json_t *array)
{
    const char **list = calloc(json_array_size(array) + 1, sizeof *list);
    for (size_t i = 0; i < json_array_size(array); i++)
        list[i] = json_string_value(json_array_get(array, i));
    return list;
}

static int run(const char *argument)
{
    json_t *spec = json_loads(argument, 0, NULL);
    struct error error = {0};
    struct seat seat = {0};
    struct config config = {
        .group = text(spec, "group", "test"),
        .node = text(spec, "node", "node"),
        .postgres = text(spec, "postgres", "host=/nonexistent"),
        .schema = text(spec, "schema", "heirflow"),
        .scheduler = {.command = strings(json_object_get(spec, "command")),
                      .environment = json_object_get(spec, "environment"),
                      .directory = text(spec, "directory", NULL),
                      .user = text(spec, "user", NULL)},
        .log = {.level = LOG_INFO},
    };
    lease_ms = number(spec, "lease_ms", 6000);
    renewing = number(spec, "renew", 1);
    if (!seat_take(text(spec, "run_directory", "/nonexistent"), config.group, number(spec, "wait_ms", 5000), &seat, &error))
        return fail(&error);
    print(json_pack("{s:s, s:s, s:i}", "event", "seat", "seat", seat.id, "pid", (int)getpid()));
    struct keeper_spec keeper_spec = {
        .config = &config,
        .seat = seat.id,
        .lock_fd = seat.lock_fd,
        .member_id = number(spec, "member_id", 1),
        .term = number(spec, "term", 1),
        .incarnation = text(spec, "incarnation", "00000000-0000-4000-8000-000000000000"),
        .deadline_ms = clock_now_ms() + number(spec, "deadline_ms", lease_ms),
        .lease_ms = lease_ms,
        .fence_grace_ms = number(spec, "fence_grace_ms", lease_ms / 2),
    };
    loop = uv_default_loop();
    uv_poll_init(loop, &input, STDIN_FILENO);
    uv_timer_init(loop, &renewal);
    output = output_create(loop, on_output, NULL);
    keeper_spec.output_fd = output_to(output, text(spec, "output", "inherit"));
    int64_t began_ms = clock_now_ms();
    if (!keeper_start(loop, &keeper_spec, on_report, NULL, &keeper, &error))
        return fail(&error);
    print(json_pack("{s:s, s:I}", "event", "launched", "took_ms", (json_int_t)(clock_now_ms() - began_ms)));
    uv_poll_start(&input, UV_READABLE, on_input);
    uv_timer_start(&renewal, on_renewal, 0, (uint64_t)(lease_ms / 6));
    uv_run(loop, UV_RUN_DEFAULT);
    seat_release(&seat);
    json_decref(spec);
    return 0;
}

static int take_seat(char **argv)
{
    struct error error = {0};
    struct seat seat;
    char line[64];
    if (!seat_take(argv[0], argv[1], atoll(argv[2]), &seat, &error))
        return fail(&error);
    print(json_pack("{s:s, s:s, s:I, s:s}", "event", "seat", "seat", seat.id, "generation", (json_int_t)seat.generation,
                    "path", seat.path));
    while (fgets(line, sizeof line, stdin)) {
        if (!seat_raise(&seat, &error))
            return fail(&error);
        print(json_pack("{s:s, s:I}", "event", "raised", "generation", (json_int_t)seat.generation));
    }
    seat_release(&seat);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "keeper") == 0)
        return keeper_main();
    if (argc >= 2 && strcmp(argv[1], "output") == 0)
        return output_main();
    if (argc == 3 && strcmp(argv[1], "run") == 0)
        return run(argv[2]);
    if (argc == 5 && strcmp(argv[1], "seat") == 0)
        return take_seat(argv + 2);
    if (argc == 2 && strcmp(argv[1], "containment") == 0) {
        puts(keeper_containment());
        return 0;
    }
    fputs("usage: keeper_driver run SPEC | seat DIRECTORY GROUP WAIT_MS | containment\n", stderr);
    return 2;
}
