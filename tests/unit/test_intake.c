/* What is recorded is what is played: the same model comes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "intake.h"

static const char status[] = "{\"term\": 7, \"lease_ms\": 6000, \"heir\": {\"node\": \"ada\"}, \"members\": "
                             "[{\"node\": \"ada\", \"member_id\": 1, \"role\": \"heir\", \"live\": true}]}";

static void hear(struct intake *intake, int64_t sequence, const char *node, int64_t now_ms)
{
    struct model_event event = {.sequence = sequence, .at_ms = 5000 + sequence, .term = 7};
    (void)snprintf(event.id, sizeof event.id, "id-%lld", (long long)sequence);
    model_text(event.node, sizeof event.node, node);
    model_text(event.event, sizeof event.event, "acceded");
    model_text(event.detail, sizeof event.detail, "\"quoted\", \\ and \xc3\xb6");
    (void)intake_event(intake, &event, sequence % 2, now_ms);
}

static void live(struct intake *intake)
{
    intake_try(intake, INTAKE_POSTGRES, 1);
    intake_try(intake, INTAKE_RABBITMQ, 1);
    assert_true(intake_status(intake, status, 3, 99, 2, 3));
    assert_false(intake_status(intake, "{}", 3, 99, 2, 3));
    hear(intake, 1, "ada", 4);
    intake_read(intake, 0, 2, true, 4, 5);
    intake_word(intake, INTAKE_RABBITMQ, 6);
    hear(intake, 3, "\x1b[31mbob", 7);
    intake_unreadable(intake, 2, 8);
    intake_unreadable(intake, 0, 8);
    intake_read_older(intake, 0, 9);
    intake_down(intake, INTAKE_RABBITMQ, "gone", 10);
    intake_reread(intake, 11);
}

static void plays_what_was_recorded(void **state)
{
    struct model lived, played;
    struct intake live_intake = {.model = &lived}, play_intake = {.model = &played};
    struct error error;
    char path[] = "/tmp/heirflow-recording-XXXXXX", group[MODEL_NAME];
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    (void)close(descriptor);
    assert_true(model_init(&lived, "tests"));
    assert_true(model_init(&played, "tests"));
    assert_false(intake_record(&live_intake, path, 1, 2, &error)); /* nothing is written over */
    assert_non_null(strstr(error.text, path));
    (void)unlink(path);
    assert_true(intake_record(&live_intake, path, 1, 2, &error));
    live(&live_intake);
    assert_true(intake_finish(&live_intake, &error));

    char line[4096];
    int64_t now_ms = 0, wall_ms = 0, last_ms = 0;
    {
        cleanup_file FILE *file = fopen(path, "re");
        assert_non_null(fgets(line, sizeof line, file));
        assert_true(intake_read_head(line, group, &now_ms, &wall_ms));
        while (fgets(line, sizeof line, file)) {
            assert_true(intake_when(line) >= last_ms);
            last_ms = intake_when(line);
            assert_true(intake_replay(&play_intake, line));
        }
    }
    (void)unlink(path);
    assert_string_equal(group, "tests");
    assert_true(now_ms == 1 && wall_ms == 2 && last_ms == 11);
    assert_int_equal(played.count, 2);
    assert_string_equal(played.snapshot.heir, "ada");
    assert_memory_equal(&played.postgres, &lived.postgres, sizeof played.postgres);
    assert_memory_equal(&played.rabbitmq, &lived.rabbitmq, sizeof played.rabbitmq);
    assert_true(played.whole_to == lived.whole_to && played.unreadable == 2);
    for (int i = 0; i < played.count; i++) {
        assert_string_equal(model_event(&played, i)->detail, model_event(&lived, i)->detail);
        assert_string_equal(model_event(&played, i)->node, model_event(&lived, i)->node);
        assert_int_equal(model_event(&played, i)->read_ms, model_event(&lived, i)->read_ms);
    }
    model_finish(&lived);
    model_finish(&played);
}

static void plays_a_change_of_the_group(void **state)
{
    struct model model;
    struct intake intake = {.model = &model};
    assert_true(model_init(&model, "one"));
    hear(&intake, 1, "ada", 1);
    assert_true(intake_replay(&intake, "{\"said\": \"group\", \"group\": \"two\", \"now_ms\": 5}"));
    assert_string_equal(model.group, "two");
    assert_int_equal(model.count, 0);
    model_finish(&model);
}

static void refuses_what_is_no_recording(void **state)
{
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "null",
                                      "{}",
                                      "{\"said\": 1}",
                                      "{\"said\": \"what\"}",
                                      "{\"said\": \"status\", \"status\": {\"members\": 3}}"};
    struct model model;
    struct intake intake = {.model = &model};
    char group[MODEL_NAME];
    int64_t now_ms = 0, wall_ms = 0;
    assert_true(model_init(&model, "tests"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(intake_replay(&intake, bad[i]));
        assert_false(intake_read_head(bad[i], group, &now_ms, &wall_ms));
    }
    assert_false(intake_read_head("{\"heirflow_recording\": 2}", group, &now_ms, &wall_ms));
    model_finish(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plays_what_was_recorded),
        cmocka_unit_test(plays_a_change_of_the_group),
        cmocka_unit_test(refuses_what_is_no_recording),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
