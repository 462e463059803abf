/* Log lines: one event each, whatever is in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"

static char line[4096];

/* Standard error goes to a pipe while an event is logged. */
#define CAPTURE(...)                                                                                                       \
    do {                                                                                                                   \
        int kept = begin_capture();                                                                                        \
        log_event(__VA_ARGS__);                                                                                            \
        end_capture(kept);                                                                                                 \
    } while (0)

static int ends[2];

static int begin_capture(void)
{
    assert_int_equal(pipe(ends), 0);
    int kept = dup(STDERR_FILENO);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    assert_int_equal(close(ends[1]), 0);
    return kept;
}

static void end_capture(int kept)
{
    assert_int_equal(dup2(kept, STDERR_FILENO), STDERR_FILENO);
    assert_int_equal(close(kept), 0);
    ssize_t length = read(ends[0], line, sizeof line - 1);
    assert_true(length >= 0);
    line[length] = '\0';
    assert_int_equal(close(ends[0]), 0);
}

/* What follows the time, which is "2026-11-21T23:00:01.123Z ". */
static const char *after_time(void)
{
    int year, milliseconds, length = 0;
    assert_int_equal(sscanf(line, "%4d-%*2d-%*2dT%*2d:%*2d:%*2d.%3dZ %n", &year, &milliseconds, &length), 2);
    assert_int_equal(length, 25);
    return line + length;
}

static void text_lines(void **state)
{
    log_init(LOG_INFO, LOG_TEXT);
    CAPTURE(LOG_INFO, "abdicated", "{s:s, s:I, s:n, s:b}", "reason", "scheduler-failed", "gap_ms", (json_int_t)41, "none",
            "sure", 1);
    assert_string_equal(after_time(), "info abdicated reason=scheduler-failed gap_ms=41 sure=true\n");
    CAPTURE(LOG_ERROR, "bare", NULL);
    assert_string_equal(after_time(), "error bare\n");
}

static void values_that_could_break_a_line_are_quoted(void **state)
{
    log_init(LOG_INFO, LOG_TEXT);
    CAPTURE(LOG_WARN, "odd", "{s:s, s:s, s:s, s:s, s:s}", "a", "two words", "b", "x\ny", "c", "", "d", "k=v", "e",
            "\xc3\xa9");
    assert_string_equal(after_time(), "warn odd a=\"two words\" b=\"x\\ny\" c=\"\" d=\"k=v\" e=\xc3\xa9\n");
    CAPTURE(LOG_WARN, "odd", "{s:s}", "a", "x\x1b[2Jy");
    assert_string_equal(after_time(), "warn odd a=\"x\\u001B[2Jy\"\n");
    CAPTURE(LOG_WARN, "odd", "{s:s}", "a", "x\xc2\x9b\x32Jy"); /* the control sequence introducer of U+0080 to U+009F */
    assert_string_equal(after_time(), "warn odd a=\"x\\u009B2Jy\"\n");
}

static void text_that_is_no_utf8_does_not_cost_the_line(void **state)
{
    log_init(LOG_INFO, LOG_TEXT);
    CAPTURE(LOG_INFO, "event", "{s:s}", "a", "\xff");
    assert_string_equal(after_time(), "info event log=\"fields are not valid UTF-8\"\n");
}

static void json_lines(void **state)
{
    log_init(LOG_INFO, LOG_JSON);
    CAPTURE(LOG_INFO, "acceded", "{s:I, s:s}", "term", (json_int_t)7, "node", "a b");
    json_t *object = json_loads(line, 0, NULL);
    assert_non_null(object);
    assert_string_equal(json_string_value(json_object_get(object, "event")), "acceded");
    assert_string_equal(json_string_value(json_object_get(object, "level")), "info");
    assert_int_equal(json_integer_value(json_object_get(object, "term")), 7);
    assert_string_equal(json_string_value(json_object_get(object, "node")), "a b");
    assert_non_null(json_object_get(object, "time"));
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    json_decref(object);
}

static void lower_levels_are_left_out(void **state)
{
    log_init(LOG_WARN, LOG_TEXT);
    CAPTURE(LOG_INFO, "quiet", NULL);
    assert_string_equal(line, "");
    CAPTURE(LOG_WARN, "loud", NULL);
    assert_string_equal(after_time(), "warn loud\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_lines),
        cmocka_unit_test(values_that_could_break_a_line_are_quoted),
        cmocka_unit_test(text_that_is_no_utf8_does_not_cost_the_line),
        cmocka_unit_test(json_lines),
        cmocka_unit_test(lower_levels_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
