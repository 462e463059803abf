/* What others write as JSON: read where it is ours, refused where it is not, and never trusted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"

#define HEAD "{\"specversion\":\"1.0\",\"id\":\"a1\",\"source\":\"/heirflow/tests/ada\",\"type\":\"heirflow.acceded\","
#define TIME "\"subject\":\"ada\",\"time\":\"2026-11-21T23:04:20.250Z\","
#define GOOD HEAD TIME "\"data\":{\"sequence\":7,\"term\":3,\"reason\":\"vacant\",\"gap_ms\":41,\"member_id\":5}}"

static enum decode_verdict verdict_on(const char *body)
{
    struct model_event event;
    return decode_event(body, strlen(body), "tests", &event);
}

static void reads_an_event(void **state)
{
    struct model_event event;
    assert_int_equal(decode_event(GOOD, strlen(GOOD), "tests", &event), DECODE_NEWS);
    assert_string_equal(event.id, "a1");
    assert_string_equal(event.event, "acceded");
    assert_string_equal(event.node, "ada");
    assert_string_equal(event.detail, "vacant, gap 41 ms, member 5");
    assert_int_equal(event.sequence, 7);
    assert_int_equal(event.term, 3);
    assert_int_equal(event.at_ms, 1795302260250);
}

static void tells_other_groups_from_garbage(void **state)
{
    struct model_event event;
    assert_int_equal(decode_event(GOOD, strlen(GOOD), "test", &event), DECODE_FOREIGN);
    assert_int_equal(decode_event(GOOD, strlen(GOOD), "tests.other", &event), DECODE_FOREIGN);
}

static void refuses_garbage(void **state)
{
    static const char *const bodies[] = {
        "",
        "{",
        "null",
        "42",
        "[]",
        "{}",
        "\"text\"",
        "{\"specversion\":\"1.0\"}",
        "\xff\xfe",
        HEAD TIME "\"data\":{}}",
        HEAD TIME "\"data\":{\"sequence\":0}}",
        HEAD TIME "\"data\":{\"sequence\":\"7\"}}",
        HEAD TIME "\"data\":{\"sequence\":1e300}}",
        HEAD TIME "\"data\":{\"sequence\":9223372036854775807}}",
        HEAD TIME "\"data\":[7]}",
        HEAD "\"time\":\"yesterday\",\"data\":{\"sequence\":7}}",
        HEAD "\"time\":7,\"data\":{\"sequence\":7}}",
        HEAD HEAD TIME "\"data\":{\"sequence\":7}}",
        "{\"specversion\":\"1.0\",\"id\":\"\",\"source\":\"/heirflow/tests/a\",\"type\":\"heirflow.x\"," TIME
        "\"data\":{\"sequence\":7}}",
        "{\"specversion\":\"1.0\",\"id\":\"a\",\"source\":\"/heirflow/tests/a\",\"type\":\"heirflow.\"," TIME
        "\"data\":{\"sequence\":7}}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        if (verdict_on(bodies[i]) != DECODE_UNREADABLE)
            fail_msg("taken for news: %s", bodies[i]);
    }
    size_t size = 1000000;
    char *large = malloc(size);
    struct model_event event;
    memset(large, '[', size);
    assert_int_equal(decode_event(large, size, "tests", &event), DECODE_UNREADABLE);
    free(large);
}

static void cleans_what_it_reads(void **state)
{
    static const char body[] = HEAD "\"subject\":\"\\u001b[2Jada\\u202e\",\"time\":\"2026-11-21T23:04:20Z\","
                                    "\"data\":{\"sequence\":7,\"reason\":\"\\r\\n\\u009b31m\",\"\\u0007key\":\"\\u0008\"}}";
    struct model_event event;
    assert_int_equal(decode_event(body, strlen(body), "tests", &event), DECODE_NEWS);
    assert_string_equal(event.node, "?[2Jada?");
    assert_string_equal(event.detail, "???31m, ?key ?");
}

static void reads_a_roster(void **state)
{
    static const char status[] =
        "{\"group\":\"tests\",\"term\":3,\"paused\":true,\"lease_ms\":6000,\"acceded_at\":\"2026-11-21T23:04:20.5+01:30\","
        "\"heir\":{\"node\":\"ada\",\"member_id\":1},\"members\":["
        "{\"member_id\":1,\"node\":\"ada\",\"rank\":1,\"role\":\"heir\",\"reason\":null,\"live\":true,\"seen_ms_ago\":12,"
        "\"registered_at\":\"2026-11-21T23:04:20-00:30\",\"scheduler\":{\"state\":\"running\",\"pid\":7,\"restarts\":2,"
        "\"started_at\":1795302260.5}},"
        "{\"node\":\"b\\u001bob\",\"role\":\"standby\",\"reason\":\"next in line\",\"live\":false,\"scheduler\":null},"
        "{\"role\":\"retired\",\"seen_ms_ago\":9223372036854775807},7]}";
    struct model_snapshot snapshot;
    assert_true(decode_status(status, &snapshot));
    assert_true(snapshot.exists && snapshot.paused);
    assert_int_equal(snapshot.acceded_at_ms, 1795302260500 - 90 * 60000);
    assert_int_equal(snapshot.member_count, 4);
    const struct model_member *ada = &snapshot.members[0], *bob = &snapshot.members[1], *old = &snapshot.members[2];
    assert_true(ada->role == MODEL_HEIR && ada->live && ada->scheduler.pid == 7 && ada->scheduler.restarts == 2);
    assert_int_equal(ada->registered_at_ms, 1795302260000 + 30 * 60000);
    assert_int_equal(ada->scheduler.started_at_ms, 1795302260500);
    assert_string_equal(bob->node, "b?ob");
    assert_true(bob->role == MODEL_STANDBY && !bob->live && bob->seen_ms_ago == -1 && !bob->scheduler.state[0]);
    assert_true(old->role == MODEL_RETIRED && old->seen_ms_ago == -1); /* a number that would overflow is none */
    free(snapshot.members);
}

static void one_members_numbers_hide_nobody(void **state)
{
    static char text[4096];
    struct model_snapshot snapshot;
    char digits[600];
    memset(digits, '9', sizeof digits - 1);
    digits[sizeof digits - 1] = '\0';
    (void)snprintf(
        text, sizeof text,
        "{\"term\": 12, \"members\": [{\"node\": \"a\\\"%.30s\", \"member_id\": 1, \"scheduler\": {\"pid\": %s}}, "
        "{\"node\": \"bob\", \"member_id\": 2, \"seen_ms_ago\": 5}]}",
        digits, digits);
    assert_true(decode_status(text, &snapshot));
    assert_int_equal(snapshot.member_count, 2);
    assert_int_equal(snapshot.term, 12);
    assert_int_equal(snapshot.members[0].scheduler.pid, 0);
    assert_memory_equal(snapshot.members[0].node, "a\"99999", 7);
    assert_int_equal(snapshot.members[1].seen_ms_ago, 5);
    free(snapshot.members);
}

static void knows_an_unknown_group_and_nonsense(void **state)
{
    struct model_snapshot snapshot;
    assert_true(decode_status(NULL, &snapshot));
    assert_false(snapshot.exists);
    assert_false(decode_status("", &snapshot));
    assert_false(decode_status("[]", &snapshot));
    assert_false(decode_status("{\"members\":7}", &snapshot));
    assert_true(decode_status("{\"members\":[]}", &snapshot));
    free(snapshot.members);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_an_event),
        cmocka_unit_test(tells_other_groups_from_garbage),
        cmocka_unit_test(refuses_garbage),
        cmocka_unit_test(cleans_what_it_reads),
        cmocka_unit_test(one_members_numbers_hide_nobody),
        cmocka_unit_test(reads_a_roster),
        cmocka_unit_test(knows_an_unknown_group_and_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
