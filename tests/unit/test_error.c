/* Error texts: they grow on the way up, stay one line and never overflow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "error.h"

static void set_and_wrap(void **state)
{
    struct error error = {.retryable = true};
    assert_false(error_set(&error, EXIT_CODE_DATABASE, "no answer from %s", "db1"));
    assert_false(error.retryable);
    assert_int_equal(error.exit_code, EXIT_CODE_DATABASE);
    assert_false(error_wrap(&error, "renewing term %d", 5));
    assert_string_equal(error.text, "renewing term 5: no answer from db1");
    assert_false(error_set_retryable(&error, EXIT_CODE_BROKER, "x"));
    assert_true(error.retryable);
    assert_false(error_wrap(&error, "y"));
    assert_true(error.retryable);
    assert_int_equal(error.exit_code, EXIT_CODE_BROKER);
}

static void one_clean_line(void **state)
{
    struct error error;
    (void)error_set(&error, EXIT_CODE_USAGE, "FATAL: no\nHINT: \x1b[31mred\x7f \xc2\x9b caf\xc3\xa9\n \n");
    assert_string_equal(error.text, "FATAL: no HINT: ?[31mred? ?? caf\xc3\xa9");
    (void)error_wrap(&error, "a\tb\n");
    assert_string_equal(error.text, "a?b : FATAL: no HINT: ?[31mred? ?? caf\xc3\xa9");
}

static void long_texts_are_cut(void **state)
{
    struct error error;
    char text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)error_set(&error, EXIT_CODE_USAGE, "%s", text);
    assert_int_equal(strlen(error.text), sizeof error.text - 1);
    for (int i = 0; i < 10; i++)
        (void)error_wrap(&error, "%s", text);
    assert_true(strlen(error.text) < sizeof error.text);
    (void)error_set(&error, EXIT_CODE_USAGE, "%s", "");
    assert_string_equal(error.text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_and_wrap),
        cmocka_unit_test(one_clean_line),
        cmocka_unit_test(long_texts_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
