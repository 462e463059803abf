/* The queue of a hook: bounded, in order, and patient with what ends its commands from outside. */
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

#include "hook.h"

static uv_loop_t loop;
static struct config config = {.group = "tests", .node = "ada", .hooks = {.timeout_ms = 30000}};
static char told[4096];

static void on_done(void *data, const json_t *event, const char *reason)
{
    const json_t *number = json_object_get(json_object_get(event, "data"), "n");
    size_t length = strlen(told);
    (void)snprintf(told + length, sizeof told - length, "%d%s%s ", (int)json_integer_value(number), reason ? ":" : "",
                   reason ? reason : "");
}

static struct hook make(const char **command)
{
    struct hook hook = {.loop = &loop,
                        .config = &config,
                        .seat = "3d0e0d6e-0000-4000-8000-000000000000",
                        .key = "hooks.on_event",
                        .on_done = on_done};
    config.hooks.on_event = command;
    told[0] = '\0';
    hook_init(&hook);
    return hook;
}

static void put(struct hook *hook, int number)
{
    hook_put(hook, hook_event(&config, "test", NULL, 7, "a reason", json_pack("{s:i}", "n", number)));
}

static void in_order_and_one_at_a_time(void **state)
{
    const char *command[] = {"sh", "-c", "test $HEIRFLOW_EVENT/$HEIRFLOW_TERM = test/7 && grep -q '\"n\":[^3]'", NULL};
    struct hook hook = make(command);
    for (int i = 1; i <= 4; i++)
        put(&hook, i);
    hook_run(&hook);
    assert_string_equal(told, "");
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_string_equal(told, "1 2 3:exit status 1 4 ");
    assert_int_equal(hook_stop(&hook), 0);
}

static void the_oldest_go_when_too_many_wait(void **state)
{
    const char *command[] = {"sleep", "4741", NULL};
    struct hook hook = make(command);
    put(&hook, 0);
    hook_run(&hook);
    for (int i = 1; i <= HOOK_QUEUED + 500; i++)
        put(&hook, i);
    assert_int_equal(hook.dropped, 500);
    const json_t *second = json_object_get(json_object_get(json_array_get(hook.queue, 1), "data"), "n");
    assert_int_equal(json_integer_value(second), 501);
    assert_int_equal(hook_stop(&hook), HOOK_QUEUED + 1);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_string_equal(told, "");
}

static void kill_children(void)
{
    char path[64], text[4096] = "";
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(path, "re");
    if (fgets(text, sizeof text, file))
        for (char *pid = strtok(text, " "); pid; pid = strtok(NULL, " "))
            (void)kill((pid_t)strtol(pid, NULL, 10), SIGKILL);
    (void)fclose(file);
}

static void what_is_ended_from_outside_is_run_again_twice(void **state)
{
    const char *command[] = {"sleep", "4742", NULL};
    struct hook hook = make(command);
    put(&hook, 1);
    hook_run(&hook);
    for (int i = 0; i < 3; i++) {
        struct errand *errand = hook.errand;
        assert_non_null(errand);
        assert_string_equal(told, "");
        kill_children();
        while (hook.errand == errand && (hook.losses == i || !hook.errand) && !*told)
            (void)uv_run(&loop, UV_RUN_ONCE);
    }
    assert_string_equal(told, "1:killed from outside ");
    (void)hook_stop(&hook);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    kill_children();
    while (waitpid(-1, NULL, __WALL) > 0) { /* the sleepers died of their parents' deaths */
    }
}

static void a_hook_taken_out_of_the_configuration_runs_no_more(void **state)
{
    const char *command[] = {"true", NULL};
    struct hook hook = make(command);
    put(&hook, 1);
    put(&hook, 2);
    hook_run(&hook);
    config.hooks.on_event = NULL;
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_string_equal(told, "1 ");
    assert_true(hook_is_idle(&hook));
    (void)hook_stop(&hook);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[0], "heirflow") == 0 && strcmp(argv[1], "errand") == 0)
        return errand_main(&(const struct errand_body){0});
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order_and_one_at_a_time),
        cmocka_unit_test(the_oldest_go_when_too_many_wait),
        cmocka_unit_test(what_is_ended_from_outside_is_run_again_twice),
        cmocka_unit_test(a_hook_taken_out_of_the_configuration_runs_no_more),
    };
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1); /* as a wrapper */
    if (uv_loop_init(&loop) != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return uv_loop_close(&loop) == 0 ? failed : 1;
}
