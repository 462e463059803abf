/* The order of events: what is new, what was passed on, what is missing, and where a failover forked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "sequence.h"

static struct sequence sequence;

static void take(int64_t number, const char *life)
{
    char id[SEQUENCE_ID];
    (void)snprintf(id, sizeof id, "%s-%lld", life, (long long)number);
    sequence_take(&sequence, number, id);
}

static enum sequence_verdict judge(int64_t number, const char *life)
{
    char id[SEQUENCE_ID];
    (void)snprintf(id, sizeof id, "%s-%lld", life, (long long)number);
    return sequence_judge(&sequence, number, id);
}

static void each_once_and_in_order(void **state)
{
    sequence_init(&sequence, 10);
    assert_int_equal(judge(10, "a"), SEQUENCE_KNOWN);
    assert_int_equal(judge(12, "a"), SEQUENCE_GAP);
    assert_int_equal(judge(11, "a"), SEQUENCE_NEXT);
    take(11, "a");
    assert_int_equal(judge(11, "a"), SEQUENCE_KNOWN);
    assert_int_equal(judge(11, "b"), SEQUENCE_FORKED);
    assert_int_equal(judge(12, "a"), SEQUENCE_NEXT);
    assert_int_equal(judge(0, "a"), SEQUENCE_KNOWN);
    assert_int_equal(judge(-5, "a"), SEQUENCE_KNOWN);
}

static void what_is_too_long_ago_counts_as_known(void **state)
{
    sequence_init(&sequence, 0);
    for (int64_t i = 1; i <= 2000; i++)
        take(i, "a");
    assert_int_equal(judge(2000 - SEQUENCE_REMEMBERED, "b"), SEQUENCE_KNOWN);
    assert_int_equal(judge(2001 - SEQUENCE_REMEMBERED, "b"), SEQUENCE_FORKED);
}

/* What is told now: `first` to `last`, of which all from `fork` on are of another life. */
static int64_t common(int64_t first, int64_t last, int64_t fork)
{
    static struct sequence_event told[SEQUENCE_REMEMBERED];
    int count = 0;
    for (int64_t i = first; i <= last && count < SEQUENCE_REMEMBERED; i++) {
        told[count].number = i;
        (void)snprintf(told[count++].id, SEQUENCE_ID, "%s-%lld", i < fork ? "a" : "b", (long long)i);
    }
    return sequence_common(&sequence, told, count, last);
}

static void the_fork_of_a_failover(void **state)
{
    sequence_init(&sequence, 5);
    for (int64_t i = 6; i <= 20; i++)
        take(i, "a");
    assert_int_equal(common(1, 20, 99), 20);
    assert_int_equal(common(1, 25, 99), 20);  /* more has been told since */
    assert_int_equal(common(1, 17, 99), 17);  /* the end is lost, nothing new yet */
    assert_int_equal(common(1, 25, 15), 14);  /* as many and more told again */
    assert_int_equal(common(1, 16, 15), 14);  /* told again, but fewer */
    assert_int_equal(common(1, 25, 1), 5);    /* all that was passed on is lost */
    assert_int_equal(common(18, 25, 99), 20); /* old ones are not kept any more */
    assert_int_equal(common(18, 25, 1), 17);  /* and the fork lies among them */
    assert_int_equal(common(23, 25, 99), 20); /* all of ours is not kept any more */
    assert_int_equal(common(1, 0, 99), 0);    /* the group is lost */
    assert_int_equal(sequence_common(&sequence, NULL, 0, 30), 20);
}

static void after_a_rewind_the_same_numbers_are_new(void **state)
{
    sequence_init(&sequence, 0);
    for (int64_t i = 1; i <= 20; i++)
        take(i, "a");
    sequence_rewind(&sequence, 14);
    assert_int_equal(judge(15, "b"), SEQUENCE_NEXT);
    assert_int_equal(judge(14, "a"), SEQUENCE_KNOWN);
    assert_int_equal(judge(14, "b"), SEQUENCE_FORKED);
    take(15, "b");
    assert_int_equal(judge(15, "a"), SEQUENCE_FORKED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_once_and_in_order),
        cmocka_unit_test(what_is_too_long_ago_counts_as_known),
        cmocka_unit_test(the_fork_of_a_failover),
        cmocka_unit_test(after_a_rewind_the_same_numbers_are_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
