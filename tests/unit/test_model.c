/* News once each and in order, whatever order they come in; what is missing; and text that cannot hurt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

static int make(void **state)
{
    struct model *model = calloc(1, sizeof *model);
    *state = model;
    return model && model_init(model, "tests") ? 0 : -1;
}

static int unmake(void **state)
{
    model_finish(*state);
    free(*state);
    return 0;
}

static bool take(struct model *model, int64_t sequence, const char *id, bool from_database, int64_t at_ms)
{
    struct model_event event = {.sequence = sequence, .at_ms = 1};
    (void)snprintf(event.id, sizeof event.id, "%s", id);
    return model_take_event(model, &event, from_database, at_ms);
}

static bool hear(struct model *model, int64_t sequence, int64_t at_ms)
{
    char id[32];
    (void)snprintf(id, sizeof id, "id-%lld", (long long)sequence);
    return take(model, sequence, id, false, at_ms);
}

static void read_some(struct model *model, int64_t after, int64_t last, bool complete, int64_t at_ms)
{
    for (int64_t sequence = after + 1; sequence <= last; sequence++) {
        char id[32];
        (void)snprintf(id, sizeof id, "id-%lld", (long long)sequence);
        (void)take(model, sequence, id, true, at_ms);
    }
    model_read(model, after, last, complete, at_ms, at_ms);
}

static void see(struct model *model, int64_t news_last, int64_t at_ms)
{
    struct model_snapshot snapshot = {.exists = true, .news_last = news_last};
    model_take_snapshot(model, &snapshot, at_ms, at_ms);
}

/* "1 2 3?": the ids in order, without "id-"; strays with a question mark. */
static void assert_order(const struct model *model, const char *expected)
{
    char text[512] = "";
    for (int i = 0; i < model->count; i++) {
        const struct model_event *event = model_event(model, i);
        size_t length = strlen(text);
        const char *id = strncmp(event->id, "id-", 3) == 0 ? event->id + 3 : event->id;
        (void)snprintf(text + length, sizeof text - length, "%s%s%s", i ? " " : "", id, event->stray ? "?" : "");
    }
    assert_string_equal(text, expected);
}

static void keeps_each_once_and_in_order(void **state)
{
    struct model *model = *state;
    assert_true(hear(model, 2, 1));
    assert_true(hear(model, 1, 2));
    assert_true(hear(model, 4, 3));
    assert_false(hear(model, 2, 4));
    assert_true(hear(model, 3, 5));
    assert_order(model, "1 2 3 4");
    assert_false(take(model, 9, "id-3", false, 6)); /* the id counts, whatever else it says */
    assert_order(model, "1 2 3 4");
}

static void keeps_the_newest(void **state)
{
    struct model *model = *state;
    for (int64_t sequence = 1; sequence <= MODEL_NEWS + 10; sequence++)
        assert_true(hear(model, sequence, sequence));
    assert_int_equal(model->count, MODEL_NEWS);
    assert_int_equal(model_event(model, 0)->sequence, 11);
    assert_int_equal(model_event(model, MODEL_NEWS - 1)->sequence, MODEL_NEWS + 10);
    (void)take(model, 3, "late", true, 1); /* older than all that is kept */
    assert_int_equal(model_event(model, 0)->sequence, 11);
    (void)take(model, MODEL_NEWS, "between", false, 1);
    assert_int_equal(model->count, MODEL_NEWS);
    for (int i = 1; i < model->count; i++)
        assert_true(model_event(model, i - 1)->sequence <= model_event(model, i)->sequence);
}

static void wants_the_history_first(void **state)
{
    struct model *model = *state;
    int64_t after = -1;
    assert_false(model_missing(model, &after)); /* whom should it ask? */
    see(model, 700, 10);
    assert_true(model_missing(model, &after));
    assert_int_equal(after, 700 - MODEL_HISTORY);
    read_some(model, after, 450, false, 11);
    assert_true(model_missing(model, &after));
    assert_int_equal(after, 450);
    read_some(model, after, 700, true, 12);
    assert_false(model_missing(model, &after));
}

static void finds_gaps(void **state)
{
    struct model *model = *state;
    int64_t after = -1;
    see(model, 3, 10);
    read_some(model, 0, 3, true, 11);
    (void)hear(model, 4, 12);
    assert_false(model_missing(model, &after));
    (void)hear(model, 7, 13);
    assert_true(model_missing(model, &after));
    assert_int_equal(after, 4);
    read_some(model, 4, 7, true, 14);
    assert_false(model_missing(model, &after));
    assert_order(model, "1 2 3 4 5 6 7");
    see(model, 9, 15); /* two of which the broker has told nothing */
    assert_true(model_missing(model, &after));
    assert_int_equal(after, 7);
}

static void purged_news_are_not_waited_for(void **state)
{
    struct model *model = *state;
    int64_t after = -1;
    see(model, 600, 10);
    read_some(model, 100, 100, true, 11);
    assert_false(model_missing(model, &after));
}

static void forged_sequences_hide_nothing(void **state)
{
    struct model *model = *state;
    int64_t after = -1;
    see(model, 2, 10);
    read_some(model, 0, 2, true, 11);
    (void)take(model, INT64_C(1) << 51, "forged", false, 12);
    (void)hear(model, 3, 13);
    assert_order(model, "1 2 3 forged");
    see(model, 3, 14);
    assert_true(model_missing(model, &after));
    assert_int_equal(after, 3);
    read_some(model, 3, 3, true, 15); /* there is nothing: the database has never heard of it */
    assert_order(model, "1 2 3 forged?");
    assert_false(model_missing(model, &after));
    (void)hear(model, 4, 16);
    assert_order(model, "1 2 3 forged? 4");
    (void)take(model, 5, "forged-5", false, 17);
    see(model, 4, 18);
    assert_order(model, "1 2 3 forged? 4 forged-5?");
    (void)hear(model, 5, 19);
    assert_order(model, "1 2 3 forged? 4 forged-5? 5");
    assert_false(model_missing(model, &after));
}

/* A lossy failover hands out sequences 3 and 4 a second time. */
static void news_lost_by_a_failover_are_strays(void **state)
{
    struct model *model = *state;
    int64_t after = -1;
    see(model, 4, 10);
    read_some(model, 0, 4, true, 11);
    model_reread(model);
    see(model, 3, 20);
    assert_true(model_missing(model, &after));
    (void)take(model, 1, "id-1", true, 21);
    (void)take(model, 2, "id-2", true, 21);
    (void)take(model, 3, "new-3", true, 21);
    model_read(model, after, 3, true, 21, 21);
    assert_order(model, "1 2 3? new-3 4?");
    (void)take(model, 4, "new-4", false, 22);
    assert_order(model, "1 2 3? new-3 4? new-4");
    assert_false(model_missing(model, &after));
}

static void news_told_by_the_broker_first_stay(void **state)
{
    struct model *model = *state;
    int64_t after = -1;
    see(model, 2, 10);
    read_some(model, 0, 2, true, 11);
    (void)hear(model, 3, 13);
    see(model, 2, 12); /* asked before it came */
    assert_order(model, "1 2 3");
    see(model, 3, 14);
    assert_false(model_missing(model, &after));
    assert_order(model, "1 2 3");
}

static void assert_text(const char *source, size_t size, const char *expected)
{
    char text[64];
    assert_true(size <= sizeof text);
    memset(text, '#', sizeof text);
    model_text(text, size, source);
    assert_string_equal(text, expected);
    for (size_t i = size; i < sizeof text; i++)
        assert_int_equal(text[i], '#');
}

static void makes_text_harmless(void **state)
{
    assert_text(NULL, 8, "");
    assert_text("plain", 64, "plain");
    assert_text("größe 調度 ♛", 64, "größe 調度 ♛");
    assert_text("\x1b[2J\x1b]0;title\x07", 64, "?[2J?]0;title?");
    assert_text("a\r\nb\tc\x7f", 64, "a??b?c?");
    assert_text("\xc2\x9b"
                "31m",
                64, "?31m"); /* CSI as one character */
    assert_text("\xe2\x80\xae"
                "evil\xe2\x81\xa6",
                64, "?evil?");                                    /* right-to-left override */
    assert_text("\xff\xfe\xc0\xaf\xed\xa0\x80x", 64, "???????x"); /* not UTF-8, overlong, surrogate */
    assert_text("\xe2\x99", 64, "??");                            /* breaks off */
    assert_text("\xf4\x90\x80\x80", 64, "????");                  /* beyond Unicode */
    assert_text("\xef\xbb\xbf|\xe2\x80\x8b|", 64, "?|?|");        /* invisible */
}

static void cuts_text_between_characters(void **state)
{
    assert_text("12345678", 9, "12345678");
    assert_text("123456789", 9, "12345...");
    assert_text("ööööö", 9, "öö...");
    assert_text("調度器調度器", 9, "調...");
    assert_text("123", 1, "");
    assert_text("123", 3, "..");
}

static void reads_older_news_page_by_page(void **state)
{
    struct model *model = *state;
    int64_t after = -1;
    see(model, 1000, 1);
    assert_false(model_older(model, 250, &after)); /* the latest come first */
    read_some(model, 500, 1000, true, 2);
    assert_true(model_older(model, 250, &after));
    assert_int_equal(after, 250);
    for (int64_t sequence = 251; sequence <= 500; sequence++)
        (void)take(model, sequence, (char[]){'a', (char)('a' + sequence % 26), (char)('a' + sequence / 26), 0}, true, 3);
    model_read_older(model, after);
    assert_int_equal(model_event(model, 0)->sequence, 251);
    assert_true(model_older(model, 250, &after));
    assert_int_equal(after, 0);
    (void)take(model, 250, "last", true, 4); /* those before it have been removed by their age */
    model_read_older(model, after);
    assert_false(model_older(model, 250, &after));
    assert_false(model_missing(model, &after));
    model_reread(model); /* another server may have them */
    read_some(model, 500, 1000, true, 5);
    assert_true(model_older(model, 250, &after));
}

static void a_storm_of_news_is_taken_quickly(void **state)
{
    struct model *model = *state;
    int64_t after = 0;
    see(model, 0, 1);
    model_read(model, 0, 0, true, 1, 1);
    for (int64_t sequence = 1; sequence <= 60000; sequence++) {
        assert_true(hear(model, sequence, 2));
        if (sequence % 1000 == 0)
            assert_false(model_missing(model, &after));
    }
    assert_int_equal(model->count, MODEL_NEWS);
    assert_int_equal(model->whole_to, 60000);
    assert_false(hear(model, 60000, 3));
}

static void remembers_how_the_sources_do(void **state)
{
    struct model *model = *state;
    struct model_link *link = &model->postgres;
    model_link_try(link, 10);
    assert_true(link->configured && !link->up && link->word_ms < 0);
    model_link_word(link, 20);
    assert_true(link->up && link->word_ms == 20 && link->changed_ms == 20);
    model_link_down(link, "gone\x1b", 30);
    assert_string_equal(link->fault, "gone?");
    model_link_down(link, "still gone", 40);
    assert_true(!link->up && link->word_ms == 20 && link->changed_ms == 30);
    model_link_word(link, 50);
    assert_string_equal(link->fault, "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, unmake)
    const struct CMUnitTest tests[] = {
        TEST(keeps_each_once_and_in_order),
        TEST(keeps_the_newest),
        TEST(wants_the_history_first),
        TEST(finds_gaps),
        TEST(purged_news_are_not_waited_for),
        TEST(forged_sequences_hide_nothing),
        TEST(news_lost_by_a_failover_are_strays),
        TEST(news_told_by_the_broker_first_stay),
        TEST(makes_text_harmless),
        TEST(cuts_text_between_characters),
        TEST(reads_older_news_page_by_page),
        TEST(a_storm_of_news_is_taken_quickly),
        TEST(remembers_how_the_sources_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
