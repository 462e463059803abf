/* Errands as a wrapper runs them: this program plays `heirflow` when it is started as `heirflow errand`. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "errand.h"

enum { TIMEOUT_MS = 30000, MIB = 1 << 20 };

struct outcome {
    int told;
    bool success, lost;
    char reason[512];
    char *output;
    size_t output_size;
    struct errand *errand;
};

static uv_loop_t loop;

static void on_end(void *data, const struct errand_end *end)
{
    struct outcome *outcome = data;
    outcome->told++;
    outcome->success = !end->reason;
    outcome->lost = end->lost;
    (void)snprintf(outcome->reason, sizeof outcome->reason, "%s", end->reason ? end->reason : "");
    outcome->output_size = end->output_size;
    if (end->output) {
        outcome->output = malloc(end->output_size + 1);
        memcpy(outcome->output, end->output, end->output_size);
    }
}

static struct errand_spec spec_of(const char **command)
{
    return (struct errand_spec){.command = command,
                                .key = "errand.command",
                                .group = "tests",
                                .node = "ada",
                                .seat = "3d0e0d6e-0000-4000-8000-000000000000",
                                .term = 7,
                                .timeout_ms = TIMEOUT_MS};
}

static void begin(const struct errand_spec *spec, struct outcome *outcome)
{
    struct error error;
    *outcome = (struct outcome){0};
    assert_true(errand_start(&loop, spec, on_end, outcome, &outcome->errand, &error));
    assert_int_equal(outcome->told, 0);
}

static struct outcome run(const struct errand_spec *spec)
{
    struct outcome outcome;
    begin(spec, &outcome);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(outcome.told, 1);
    assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1); /* nothing is left over, daemons included */
    return outcome;
}

static struct outcome run_script(const char *script)
{
    const char *command[] = {"sh", "-c", script, NULL};
    struct errand_spec spec = spec_of(command);
    return run(&spec);
}

static void the_end_is_told_with_the_last_words(void **state)
{
    assert_true(run_script("echo fine >&2").success);
    assert_string_equal(run_script("echo first >&2; echo last >&2; exit 3").reason, "exit status 3: last");
    assert_string_equal(run_script("exit 3").reason, "exit status 3");
    assert_string_equal(run_script("kill -9 $$").reason, "killed by signal 9 (SIGKILL)");
    assert_string_equal(run_script("printf '\\377' >&2; exit 1").reason, "exit status 1: (no valid UTF-8)");
}

static void what_cannot_be_executed_is_named(void **state)
{
    const char *command[] = {"/no/such/program", NULL};
    struct errand_spec spec = spec_of(command);
    assert_string_equal(run(&spec).reason,
                        "exit status 127: command \"/no/such/program\" does not exist; correct errand.command");
}

static void it_is_told_whom_it_is_for(void **state)
{
    (void)setenv("HEIRFLOW_POSTGRES", "secret", 1);
    const char *command[] = {
        "sh", "-c", "test \"$HEIRFLOW_GROUP/$HEIRFLOW_NODE/$HEIRFLOW_TERM/$HUE/${HEIRFLOW_POSTGRES-}\" = tests/ada/7/teal/",
        NULL};
    struct errand_spec spec = spec_of(command);
    spec.environment = json_pack("{s:s}", "HUE", "teal");
    assert_true(run(&spec).success);
    json_decref(spec.environment);
    assert_true(run_script("test \"$(readlink /proc/self/fd/0)\" = /dev/null && ! read line").success);
}

static void bytes_go_both_ways(void **state)
{
    const char *command[] = {"cat", NULL};
    struct errand_spec spec = spec_of(command);
    char *bytes = malloc(3 * MIB);
    for (size_t i = 0; i < 3 * MIB; i++)
        bytes[i] = (char)(i * 7 >> 3);
    spec.input = bytes;
    spec.input_size = spec.output_most = 3 * MIB;
    struct outcome outcome = run(&spec);
    assert_true(outcome.success);
    assert_int_equal(outcome.output_size, 3 * MIB);
    assert_memory_equal(outcome.output, bytes, 3 * MIB);
    free(outcome.output);
    spec.output_most--;
    outcome = run(&spec);
    assert_null(outcome.output);
    assert_string_equal(outcome.reason, "wrote more to its standard output than is taken");
    spec.input_size = 0;
    outcome = run(&spec);
    assert_true(outcome.success && outcome.output && outcome.output_size == 0);
    free(outcome.output);
    free(bytes);
}

static void time_is_limited_and_daemons_end_with_it(void **state)
{
    const char *command[] = {"sh", "-c", "trap '' TERM; setsid sleep 4721 & echo stuck >&2; sleep 4721", NULL};
    struct errand_spec spec = spec_of(command);
    int64_t begun_ms = clock_now_ms();
    spec.timeout_ms = 1000; /* long enough for a busy machine to begin */
    assert_string_equal(run(&spec).reason, "timed out after 1000 ms: stuck");
    assert_true(clock_now_ms() - begun_ms >= 1000);
    assert_true(run_script("setsid sleep 4722 >/dev/null 2>&1 & sleep 4722 & exit 0").success);
}

static void floods_stay_where_they_are(void **state)
{
    const char *command[] = {"sh", "-c", "yes | head -c 300000000 >&2; yes | head -c 300000000; exit 1", NULL};
    struct errand_spec spec = spec_of(command);
    assert_string_equal(run(&spec).reason, "exit status 1: y");
}

static void several_run_side_by_side(void **state)
{
    const char *command[] = {"sh", "-c", "read line; test \"$line\" = go", NULL};
    struct errand_spec spec = spec_of(command);
    struct outcome outcomes[8];
    spec.input = "go\n";
    spec.input_size = 3;
    for (int i = 0; i < 8; i++)
        begin(&spec, &outcomes[i]);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < 8; i++)
        assert_true(outcomes[i].told == 1 && outcomes[i].success);
}

static void a_cancelled_one_is_not_told_and_not_left(void **state)
{
    const char *command[] = {"sleep", "4723", NULL};
    struct errand_spec spec = spec_of(command);
    struct outcome outcome;
    int64_t begun_ms = clock_now_ms();
    begin(&spec, &outcome);
    for (int i = 0; i < 3; i++) /* at once or a little later: it makes no difference */
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    errand_cancel(outcome.errand);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(outcome.told, 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    assert_true(clock_now_ms() - begun_ms < TIMEOUT_MS);
    errand_cancel(NULL);
}

static pid_t only_child(void)
{
    char path[64], text[32] = "";
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(path, "re");
    assert_non_null(fgets(text, sizeof text, file));
    (void)fclose(file);
    return (pid_t)strtol(text, NULL, 10);
}

static void one_ended_from_outside_is_lost(void **state)
{
    const char *command[] = {"sleep", "4724", NULL};
    struct errand_spec spec = spec_of(command);
    for (int reaped = 0; reaped < 2; reaped++) {
        struct outcome outcome;
        begin(&spec, &outcome);
        pid_t pid = only_child();
        assert_int_equal(kill(pid, SIGKILL), 0);
        if (reaped)
            assert_int_equal(waitpid(pid, NULL, 0), pid);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        assert_true(outcome.told == 1 && outcome.lost);
        assert_string_equal(outcome.reason, "killed from outside");
        while (waitpid(-1, NULL, __WALL) > 0) { /* the command died of it, too */
        }
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[0], "heirflow") == 0 && strcmp(argv[1], "errand") == 0)
        return errand_main(&(const struct errand_body){0});
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_end_is_told_with_the_last_words),
        cmocka_unit_test(what_cannot_be_executed_is_named),
        cmocka_unit_test(it_is_told_whom_it_is_for),
        cmocka_unit_test(bytes_go_both_ways),
        cmocka_unit_test(time_is_limited_and_daemons_end_with_it),
        cmocka_unit_test(floods_stay_where_they_are),
        cmocka_unit_test(several_run_side_by_side),
        cmocka_unit_test(a_cancelled_one_is_not_told_and_not_left),
        cmocka_unit_test(one_ended_from_outside_is_lost),
    };
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1); /* as a wrapper */
    if (uv_loop_init(&loop) != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return uv_loop_close(&loop) == 0 ? failed : 1;
}
