/* What systemd's socket gets to hear, and that one which nobody reads holds nothing up. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "supervisor.h"

struct scene {
    uv_loop_t loop;
    int fd; /* systemd's end */
    struct supervisor *supervisor;
};

static void listen_as(struct scene *scene, bool abstract)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    (void)snprintf(name, sizeof name, "%s/tmp/heirflow-notify-%d", abstract ? "@" : "", getpid());
    memcpy(address.sun_path, name, strlen(name));
    if (abstract)
        address.sun_path[0] = '\0';
    else
        (void)unlink(name);
    scene->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + !abstract);
    assert_int_equal(bind(scene->fd, (struct sockaddr *)&address, size), 0);
    (void)setenv("NOTIFY_SOCKET", name, 1);
}

static int begin_as(void **state, bool abstract)
{
    struct scene *scene = calloc(1, sizeof *scene);
    *state = scene;
    listen_as(scene, abstract);
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("WATCHDOG_PID");
    return uv_loop_init(&scene->loop);
}

static int begin(void **state)
{
    return begin_as(state, false);
}

static int begin_abstract(void **state)
{
    return begin_as(state, true);
}

static int end(void **state)
{
    struct scene *scene = *state;
    const char *name = getenv("NOTIFY_SOCKET");
    if (name && *name == '/')
        (void)unlink(name);
    (void)unsetenv("NOTIFY_SOCKET");
    supervisor_free(scene->supervisor);
    (void)uv_run(&scene->loop, UV_RUN_DEFAULT);
    int status = uv_loop_close(&scene->loop);
    (void)close(scene->fd);
    free(scene);
    return status;
}

static void expect(struct scene *scene, const char *expected)
{
    char text[512] = "";
    ssize_t length = recv(scene->fd, text, sizeof text - 1, 0);
    if (!expected)
        assert_int_equal(length, -1);
    else
        assert_string_equal(text, expected);
}

static void is_ready_once_the_loop_runs(void **state)
{
    struct scene *scene = *state;
    scene->supervisor = supervisor_create(&scene->loop);
    expect(scene, NULL);
    (void)uv_run(&scene->loop, UV_RUN_DEFAULT); /* without a watchdog nothing keeps it going */
    expect(scene, "READY=1");
    expect(scene, "WATCHDOG=1");
    expect(scene, NULL);
}

static void the_loop_feeds_the_watchdog(void **state)
{
    struct scene *scene = *state;
    (void)setenv("WATCHDOG_USEC", "20000", 1);
    scene->supervisor = supervisor_create(&scene->loop);
    (void)uv_run(&scene->loop, UV_RUN_NOWAIT);
    expect(scene, "READY=1");
    expect(scene, "WATCHDOG=1");
    expect(scene, NULL);
    for (int fed = 0; fed < 3;) {
        (void)uv_run(&scene->loop, UV_RUN_ONCE);
        while (recv(scene->fd, (char[16]){0}, 16, 0) > 0)
            fed++;
    }
}

static void another_process_s_watchdog_is_left_alone(void **state)
{
    struct scene *scene = *state;
    (void)setenv("WATCHDOG_USEC", "20000", 1);
    (void)setenv("WATCHDOG_PID", "1", 1);
    scene->supervisor = supervisor_create(&scene->loop);
    (void)uv_run(&scene->loop, UV_RUN_DEFAULT); /* returns, so no timer is left */
    expect(scene, "READY=1");
}

static void says_role_and_term_when_they_change(void **state)
{
    struct scene *scene = *state;
    struct vitals vitals = {.state = "standby", .term = 12};
    scene->supervisor = supervisor_create(&scene->loop);
    supervisor_touch(scene->supervisor, &vitals);
    supervisor_touch(scene->supervisor, &vitals);
    expect(scene, "STATUS=standby, latest term 12");
    expect(scene, NULL);
    vitals = (struct vitals){.state = "heir", .scheduler = "running", .held_term = 13, .term = 13, .paused = true};
    supervisor_touch(scene->supervisor, &vitals);
    expect(scene, "STATUS=heir, term 13, scheduler running, paused");
}

static void says_how_long_a_stop_may_take(void **state)
{
    struct scene *scene = *state;
    scene->supervisor = supervisor_create(&scene->loop);
    supervisor_stopping(scene->supervisor, 3600000);
    expect(scene, "STOPPING=1\nEXTEND_TIMEOUT_USEC=3600000000");
}

static void a_reload_begins_and_ends(void **state)
{
    struct scene *scene = *state;
    char text[128] = "";
    scene->supervisor = supervisor_create(&scene->loop);
    supervisor_reloading(scene->supervisor);
    assert_true(recv(scene->fd, text, sizeof text - 1, 0) > 0);
    assert_memory_equal(text, "RELOADING=1\nMONOTONIC_USEC=", strlen("RELOADING=1\nMONOTONIC_USEC="));
    supervisor_reloaded(scene->supervisor);
    expect(scene, "READY=1");
}

/* If it waited, this program would hang. */
static void systemd_that_does_not_read_holds_nothing_up(void **state)
{
    struct scene *scene = *state;
    scene->supervisor = supervisor_create(&scene->loop);
    for (int i = 0; i < 100000; i++)
        supervisor_reloaded(scene->supervisor);
}

static void without_systemd_nothing_happens(void **state)
{
    static const char *const names[] = {NULL, "", "@", "/", "nonsense", "/nowhere/at/all"};
    struct scene *scene = *state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        (void)unlink(getenv("NOTIFY_SOCKET") ? getenv("NOTIFY_SOCKET") : "");
        (void)(names[i] ? setenv("NOTIFY_SOCKET", names[i], 1) : unsetenv("NOTIFY_SOCKET"));
        scene->supervisor = supervisor_create(&scene->loop);
        supervisor_stopping(scene->supervisor, 1);
        supervisor_free(scene->supervisor);
        (void)uv_run(&scene->loop, UV_RUN_DEFAULT);
    }
    scene->supervisor = NULL;
    supervisor_reloading(NULL);
    supervisor_touch(NULL, &(struct vitals){.state = "standby"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(is_ready_once_the_loop_runs, begin, end),
        cmocka_unit_test_setup_teardown(is_ready_once_the_loop_runs, begin_abstract, end),
        cmocka_unit_test_setup_teardown(the_loop_feeds_the_watchdog, begin, end),
        cmocka_unit_test_setup_teardown(another_process_s_watchdog_is_left_alone, begin, end),
        cmocka_unit_test_setup_teardown(says_role_and_term_when_they_change, begin, end),
        cmocka_unit_test_setup_teardown(says_how_long_a_stop_may_take, begin, end),
        cmocka_unit_test_setup_teardown(a_reload_begins_and_ends, begin, end),
        cmocka_unit_test_setup_teardown(systemd_that_does_not_read_holds_nothing_up, begin, end),
        cmocka_unit_test_setup_teardown(without_systemd_nothing_happens, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
