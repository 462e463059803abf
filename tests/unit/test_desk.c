/* What each key leads to: nothing changes unasked, nothing is asked that cannot be, and every order gets its outcome. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "desk.h"

static struct desk desk;
static struct model model;
static const struct desk_sizes sizes = {.line_page = 5, .news_page = 5, .panel_page = 5, .panel_rows = 12};
static int64_t now_ms = 1000;

static void add(const char *node, enum model_role role, const char *reason, bool live)
{
    struct model_member *member = &model.snapshot.members[model.snapshot.member_count++];
    *member = (struct model_member){.member_id = model.snapshot.member_count, .role = role, .live = live};
    model_text(member->node, sizeof member->node, node);
    model_text(member->reason, sizeof member->reason, reason);
    model_text(member->address, sizeof member->address, "10.1.2.3");
}

/* ada leads; bob, dead, old and gone stand below, in this order. */
static int make(void **state)
{
    static const char *const command[] = {"ssh", "{address}", "start", "heirflow@{group}", NULL};
    desk_init(&desk, command, false);
    assert_true(model_init(&model, "tests"));
    model.has_snapshot = model.snapshot.exists = true;
    model.snapshot.term = 7;
    model.snapshot.members = calloc(8, sizeof *model.snapshot.members);
    model_text(model.snapshot.heir, sizeof model.snapshot.heir, "ada");
    add("ada", MODEL_HEIR, "", true);
    add("bob", MODEL_STANDBY, "next in line", true);
    add("dead", MODEL_STANDBY, "not seen for a lease", false);
    add("old", MODEL_RETIRED, "retired", true);
    add("gone", MODEL_RETIRED, "retired", false);
    for (int i = 0; i < MODEL_RIGHTS; i++)
        model.grants[i] = MODEL_GRANTED;
    return 0;
}

static int unmake(void **state)
{
    model_finish(&model);
    return 0;
}

static enum desk_verdict press(uint32_t code)
{
    return desk_press(&desk, &model, code, &sizes, now_ms);
}

static void select_node(const char *node)
{
    (void)press(KEYS_CODE_HOME);
    while (strcmp(desk.selected_node, node) != 0)
        (void)press(KEYS_CODE_DOWN);
}

/* Presses the key for the node (NULL: for none), says yes, and expects the order. */
static void order(const char *node, uint32_t key, const char *question, enum desk_order_type type)
{
    desk.selected = 0;
    if (node)
        select_node(node);
    assert_int_equal(press(key), DESK_DONE);
    assert_int_equal(desk.panel, DESK_CONFIRM);
    if (!strstr(desk.question, question))
        fail_msg("asks: %s", desk.question);
    assert_int_equal(press('x'), DESK_DONE); /* anything but an answer is none */
    assert_int_equal(desk.panel, DESK_CONFIRM);
    assert_int_equal(press('n'), DESK_DONE);
    assert_int_equal(desk.panel, DESK_NO_PANEL);
    (void)press(key);
    assert_int_equal(press('y'), DESK_CARRY_OUT);
    assert_int_equal(desk.order.type, type);
    assert_true(desk.waiting);
    (void)press(key);
    assert_int_equal(desk.panel, DESK_NO_PANEL);
    assert_non_null(strstr(desk.said.text, "not been answered"));
    desk_answer(&desk, &model, "there is a reason", now_ms);
    assert_string_equal(desk.said.text, "there is a reason");
    assert_false(desk.waiting);
}

static void asks_before_every_change(void **state)
{
    order("ada", 'x', "bob runs it next", DESK_RETIRE);
    assert_string_equal(desk.order.node, "ada");
    order("bob", 'x', "Stop bob?", DESK_RETIRE);
    order("old", 's', "joins the line", DESK_ENLIST);
    order("dead", 's', "ssh 10.1.2.3 start heirflow@tests", DESK_START);
    assert_false(desk.order.enlist);
    order("gone", 's', "ssh 10.1.2.3", DESK_START);
    assert_true(desk.order.enlist);
    order("bob", 'w', "from ada to bob?", DESK_SWITCHOVER);
    assert_string_equal(desk.order.node, "bob");
    order("ada", 'w', "to the eldest standby, bob?", DESK_SWITCHOVER);
    assert_string_equal(desk.order.node, "");
    order(NULL, 'w', "to the eldest standby, bob?", DESK_SWITCHOVER);
    order(NULL, 'p', "ada goes on", DESK_PAUSE);
    model.snapshot.paused = true;
    order(NULL, 'p', "Resume", DESK_RESUME);
    order("dead", 'd', "Remove dead", DESK_REMOVE);
    assert_int_equal(desk.order.member_id, 3);
    model.snapshot.members[0].live = false; /* an heir whose lease has lapsed has no scheduler to hand over */
    order("ada", 'x', "Its node leaves the line", DESK_RETIRE);
    order("ada", 's', "Its wrapper is not running", DESK_START);
    model.snapshot.paused = false;
    order(NULL, 'p', "no live heir", DESK_PAUSE);
}

static void expect_word(const char *node, uint32_t key, const char *word)
{
    desk.selected = 0;
    if (node)
        select_node(node);
    assert_int_equal(press(key), DESK_DONE);
    assert_int_equal(desk.panel, DESK_NO_PANEL);
    if (!strstr(desk.said.text, word))
        fail_msg("says: %s", desk.said.text);
}

static void says_what_makes_no_sense(void **state)
{
    expect_word(NULL, 'x', "select a member first");
    expect_word(NULL, 'd', "select a member first");
    expect_word(NULL, KEYS_CODE_ENTER, "select a member first");
    expect_word("old", 'x', "retired already");
    expect_word("bob", 's', "in the line already");
    expect_word("bob", 'd', "is alive");
    expect_word("ada", 'd', "is the heir");
    model.snapshot.paused = true;
    expect_word("bob", 'w', "resume it first");
    model.snapshot.paused = false;
    model.snapshot.heir[0] = '\0';
    expect_word("bob", 'w', "no heir");
    model_text(model.snapshot.members[2].address, sizeof model.snapshot.members[2].address, "");
    model_text(model.snapshot.members[2].node, sizeof model.snapshot.members[2].node, "x;reboot");
    expect_word("x;reboot", 's', "remote shell");
}

static void warns_of_the_last_one(void **state)
{
    model.snapshot.members[1].reason[0] = '\0';
    order("ada", 'x', "NOBODY IS THERE TO TAKE OVER", DESK_RETIRE);
    expect_word(NULL, 'w', "no standby that could take over");
}

static void tells_how_a_switchover_went(void **state)
{
    select_node("bob");
    (void)press('w');
    (void)press('y');
    desk_answer(&desk, &model, NULL, now_ms);
    desk_notice(&desk, &model, now_ms + 60000);
    assert_string_equal(desk.said.text, "ada has been asked to hand over ...");
    model.snapshot.heir[0] = '\0';
    desk_notice(&desk, &model, now_ms + 60000);
    assert_non_null(strstr(desk.said.text, "has been asked"));
    model_text(model.snapshot.heir, sizeof model.snapshot.heir, "bob");
    model.snapshot.term = 8;
    desk_notice(&desk, &model, now_ms + 61234);
    assert_string_equal(desk.said.text, "bob is the heir, term 8, 61.2 s after it was asked for");
    desk_notice(&desk, &model, now_ms + 80000);
    assert_string_equal(desk.said.text, "");
    (void)press('w');
    (void)press('y');
    desk_answer(&desk, &model, NULL, now_ms);
    desk_notice(&desk, &model, now_ms + 91000);
    assert_non_null(strstr(desk.said.text, "nobody has taken over"));
}

static void refuses_what_is_not_granted(void **state)
{
    static const struct {
        uint32_t key;
        enum model_right right;
    } keys[] = {{'x', MODEL_RETIRE}, {'w', MODEL_SWITCHOVER}, {'p', MODEL_PAUSE}, {'d', MODEL_REMOVE}, {'g', MODEL_GROUPS}};
    select_node("dead");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        for (enum model_grant grant = MODEL_UNKNOWN; grant <= MODEL_MISSING; grant++) {
            model.grants[keys[i].right] = grant;
            desk.panel = DESK_NO_PANEL;
            desk.said.text[0] = '\0';
            (void)press(keys[i].key);
            assert_int_equal(desk.panel == DESK_NO_PANEL && strstr(desk.said.text, "retired already") == NULL,
                             grant != MODEL_GRANTED);
        }
    }
    model.grants[MODEL_RETIRE] = MODEL_DENIED;
    expect_word("old", 's', "may only look");
    desk.replay = true;
    for (const struct keys_key *key = keys_table; key->action != KEYS_NONE; key++) {
        desk.panel = DESK_NO_PANEL;
        assert_int_not_equal(press(key->codes[0]), DESK_CARRY_OUT);
        assert_int_not_equal(desk.panel, DESK_CONFIRM);
    }
}

static void every_key_is_told_once_and_works(void **state)
{
    for (const struct keys_key *key = keys_table; key->action != KEYS_NONE; key++) {
        assert_non_null(key->help);
        for (size_t i = 0; i < 3 && key->codes[i]; i++)
            assert_ptr_equal(keys_find(key->codes[i]), key);
    }
    assert_null(keys_find('~'));
    assert_null(keys_find(0));
    (void)press('?');
    assert_int_equal(desk.panel, DESK_HELP);
    for (const struct keys_key *key = keys_table; key->action != KEYS_NONE; key++) {
        bool told = false;
        for (int i = 0; i < desk.page.count; i++)
            told = told || strstr(desk.page.lines[i].text, key->help);
        assert_int_equal(told, !key->replay);
    }
    assert_int_equal(press('q'), DESK_DONE); /* closes the help */
    assert_int_equal(press('q'), DESK_QUIT);
}

static void keeps_the_selection_with_its_node(void **state)
{
    select_node("bob");
    assert_int_equal(desk_selected(&desk, &model), 1);
    model.snapshot.members[1].member_id = 99; /* registered anew */
    assert_int_equal(desk_selected(&desk, &model), 1);
    model.snapshot.member_count = 1; /* left */
    assert_int_equal(desk_selected(&desk, &model), -1);
    (void)press(KEYS_CODE_DOWN);
    assert_int_equal(desk_selected(&desk, &model), 0);
    (void)press(KEYS_CODE_ESCAPE);
    assert_int_equal(desk_selected(&desk, &model), -1);
    model.snapshot.member_count = 0;
    (void)press(KEYS_CODE_DOWN);
    assert_int_equal(desk_selected(&desk, &model), -1);
}

static void moves_in_panels(void **state)
{
    (void)press('?');
    (void)press(KEYS_CODE_UP);
    assert_int_equal(desk.top, 0);
    (void)press(KEYS_CODE_END);
    assert_int_equal(desk.top, sizes.panel_rows - sizes.panel_page);
    (void)press(KEYS_CODE_PAGE_UP);
    assert_int_equal(desk.top, sizes.panel_rows - 2 * sizes.panel_page + 1);
    (void)press(KEYS_CODE_ESCAPE);
    assert_int_equal(press('\t'), DESK_DONE);
    assert_int_equal(press(KEYS_CODE_PAGE_UP), DESK_SCROLL);
    assert_int_equal(desk.scroll, sizes.news_page - 1);
    desk.anchor = 5;
    assert_int_equal(press(KEYS_CODE_END), DESK_DONE);
    assert_int_equal(desk.anchor, 0);
}

static void takes_what_is_typed(void **state)
{
    (void)press('/');
    for (const char *at = "ab\x01\x7f"; *at; at++)
        (void)press((uint32_t)*at & 0x7f);
    (void)press(0xe4);
    (void)press(KEYS_CODE_BACKSPACE);
    for (int i = 0; i < 2 * DESK_INPUT; i++)
        (void)press('c');
    assert_int_equal(strlen(desk.input), DESK_INPUT - 1);
    assert_memory_equal(desk.input, "accc", 4);
    (void)press(KEYS_CODE_ENTER);
    assert_string_equal(desk.filter, desk.input);
    (void)press('/');
    (void)press('z');
    (void)press(KEYS_CODE_ESCAPE);
    assert_null(strchr(desk.filter, 'z'));
}

static void fills_in_the_start_command(void **state)
{
    static const char *const words[] = {"a{node}b{address}", "{group}{", "{other}", NULL};
    static const char *const bad[] = {"", "-o", "a b", "a;b", "$(a)", "`a`", "a\nb", "a'b", "\xc3\xa4", "a/b"};
    struct start_command command;
    char fault[256], text[START_COMMAND_TEXT];
    assert_true(start_command_fill(&command, words, "n1", "::1", "g_1", fault, sizeof fault));
    start_command_text(&command, text, sizeof text);
    assert_string_equal(text, "an1bn1 g_1{ {other}"); /* the address of "this host" is no address */
    assert_true(start_command_fill(&command, words, "n1", "fe80::1%eth0", "g", fault, sizeof fault));
    assert_string_equal(command.words[0], "an1bfe80::1%eth0");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(start_command_fill(&command, words, bad[i], "10.0.0.1", "g", fault, sizeof fault));
        assert_false(start_command_fill(&command, words, "n", "10.0.0.1", bad[i], fault, sizeof fault));
    }
    assert_false(start_command_fill(&command, words, "n1", "-oProxyCommand=id", "g", fault, sizeof fault));
    assert_false(start_command_fill(&command, (const char *const[]){NULL}, "n", "a", "g", fault, sizeof fault));
    assert_non_null(strstr(fault, "interface.start_command"));
    char name[START_COMMAND_WORD + 1];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_false(start_command_fill(&command, words, name, "", "g", fault, sizeof fault));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(asks_before_every_change, make, unmake),
        cmocka_unit_test_setup_teardown(says_what_makes_no_sense, make, unmake),
        cmocka_unit_test_setup_teardown(warns_of_the_last_one, make, unmake),
        cmocka_unit_test_setup_teardown(tells_how_a_switchover_went, make, unmake),
        cmocka_unit_test_setup_teardown(refuses_what_is_not_granted, make, unmake),
        cmocka_unit_test_setup_teardown(every_key_is_told_once_and_works, make, unmake),
        cmocka_unit_test_setup_teardown(keeps_the_selection_with_its_node, make, unmake),
        cmocka_unit_test_setup_teardown(moves_in_panels, make, unmake),
        cmocka_unit_test_setup_teardown(takes_what_is_typed, make, unmake),
        cmocka_unit_test(fills_in_the_start_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
