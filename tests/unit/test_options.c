/* The command line: what is understood, what is refused, and help that fits a screen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "options.h"

static struct options options;
static struct error error;

/* PARSE("run", "--json") */
#define PARSE(...) parse((char *[]){"heirflow", __VA_ARGS__, NULL})

static bool parse(char **argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    error.text[0] = '\0';
    bool understood = options_parse(argc, argv, &options, &error);
    if (!understood)
        assert_int_equal(error.exit_code, EXIT_CODE_USAGE);
    return understood;
}

static void assert_says(const char *text)
{
    if (!strstr(error.text, text))
        fail_msg("\"%s\" does not say \"%s\"", error.text, text);
}

static void commands_and_their_options(void **state)
{
    assert_true(PARSE("run", "--config", "c", "--group=g", "--node", "n", "--", "a", "--json", "--"));
    assert_string_equal(options.command->name, "run");
    assert_string_equal(options.flags.path, "c");
    assert_string_equal(options.flags.group, "g");
    assert_string_equal(options.flags.node, "n");
    assert_string_equal(options.flags.command[0], "a");
    assert_string_equal(options.flags.command[1], "--json");
    assert_string_equal(options.flags.command[2], "--");
    assert_null(options.flags.command[3]);
    assert_true(PARSE("news", "--follow", "--json", "--limit", "5", "--from=0"));
    assert_true(options.follow && options.json && !options.help);
    assert_int_equal(options.limit, 5);
    assert_int_equal(options.from, 0);
    assert_true(PARSE("status"));
    assert_null(options.flags.command);
    assert_int_equal(options.limit, -1);
    assert_true(PARSE("history", "--help", "what", "ever"));
    assert_true(options.help);
    assert_true(PARSE("--help"));
    assert_string_equal(options.command->name, "help");
    assert_true(PARSE("help", "status"));
    assert_string_equal(options.topic, "status");
    assert_true(PARSE("--version"));
    assert_string_equal(options.command->name, "version");
}

static void what_is_not_understood_is_one_line_with_a_hint(void **state)
{
    assert_false(parse((char *[]){"heirflow", NULL}));
    assert_says("heirflow --help");
    assert_false(PARSE("fly"));
    assert_says("unknown command \"fly\"");
    assert_false(PARSE("--fly"));
    assert_says("unknown option \"--fly\"");
    assert_false(PARSE("status", "--limit", "3"));
    assert_says("unknown option \"--limit\"; see heirflow status --help");
    assert_false(PARSE("status", "-x"));
    assert_says("\"-x\"");
    assert_false(PARSE("status", "--json=1"));
    assert_says("--json=1");
    assert_false(PARSE("history", "--limit"));
    assert_says("\"--limit\" needs a value");
    assert_false(PARSE("history", "--limit", "0"));
    assert_says("whole number from 1, not \"0\"");
    assert_false(PARSE("history", "--limit", "1e3"));
    assert_says("not \"1e3\"");
    assert_false(PARSE("run", "celery", "beat"));
    assert_says("goes after --");
    assert_false(PARSE("run", "--"));
    assert_says("no command after --");
    assert_false(PARSE("status", "--", "x"));
    assert_says("unexpected argument \"x\"");
    assert_false(PARSE("\x1b[2Jstatus"));
    assert_null(strchr(error.text, '\x1b'));
}

static void help_fits_a_screen(void **state)
{
    for (const struct command *command = commands;; command++) {
        char *text = NULL;
        size_t size = 0;
        FILE *stream = open_memstream(&text, &size);
        assert_non_null(stream);
        options_print_help(command->name ? command : NULL, stream);
        (void)fclose(stream);
        int lines = 0;
        for (char *line = text; *line; line += strcspn(line, "\n") + 1, lines++) {
            if (strcspn(line, "\n") > 80)
                fail_msg("too wide: %.*s", (int)strcspn(line, "\n"), line);
        }
        assert_in_range(lines, 5, 24);
        assert_non_null(strstr(text, "usage: heirflow"));
        assert_non_null(strstr(text, "Exit codes: "));
        free(text);
        if (!command->name)
            break;
    }
}

static void every_command_can_be_run(void **state)
{
    for (const struct command *command = commands; command->name; command++)
        assert_true((command->run != NULL) != (command->run_bare != NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_and_their_options),
        cmocka_unit_test(what_is_not_understood_is_one_line_with_a_hint),
        cmocka_unit_test(help_fits_a_screen),
        cmocka_unit_test(every_command_can_be_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
