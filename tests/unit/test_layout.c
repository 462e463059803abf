/* The picture against golden frames, at every size, and with whatever names there may be.
 *
 * Goldens are text files in tests/interface/golden; HEIRFLOW_GOLDEN=write writes them anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "layout.h"

enum { MINUTE = 60000, HOUR = 60 * MINUTE };

static const int64_t wall_ms = 1795302000000; /* Sat 21 Nov 2026 21:40:00 UTC */
static const int64_t now_ms = 1000000000;

static void add_member(struct model_snapshot *snapshot, const char *node, enum model_role role, const char *reason,
                       int64_t seen_ms_ago, int64_t age_ms)
{
    struct model_member *member = &snapshot->members[snapshot->member_count++];
    *member = (struct model_member){
        .member_id = snapshot->member_count,
        .rank = snapshot->member_count,
        .role = role,
        .live = seen_ms_ago < 6000,
        .seen_ms_ago = seen_ms_ago,
        .registered_at_ms = wall_ms - age_ms,
    };
    model_text(member->node, sizeof member->node, node);
    model_text(member->reason, sizeof member->reason, reason);
    model_text(member->address, sizeof member->address, "10.20.30.41");
    model_text(member->version, sizeof member->version, "0.1.0");
    snapshot->member_total = snapshot->member_count;
}

static struct model_snapshot *begin_roster(struct model_snapshot *snapshot, int room)
{
    *snapshot =
        (struct model_snapshot){.exists = true, .term = 1042, .lease_ms = 6000, .database_ms = wall_ms, .news_last = 90};
    snapshot->acceded_at_ms = wall_ms - 2 * HOUR - 14 * MINUTE;
    snapshot->members = calloc((size_t)room, sizeof *snapshot->members);
    model_text(snapshot->heir, sizeof snapshot->heir, "sched1");
    return snapshot;
}

static void add_usual_roster(struct model *model)
{
    struct model_snapshot snapshot;
    (void)begin_roster(&snapshot, 5);
    add_member(&snapshot, "sched1", MODEL_HEIR, "", 400, 50 * HOUR);
    snapshot.members[0].scheduler.pid = 48213;
    snapshot.members[0].scheduler.started_at_ms = wall_ms - 2 * HOUR - 14 * MINUTE;
    snapshot.members[0].scheduler.restarts = 1;
    (void)strcpy(snapshot.members[0].scheduler.state, "running");
    add_member(&snapshot, "sched2", MODEL_STANDBY, "next in line", 900, 49 * HOUR);
    add_member(&snapshot, "sched3", MODEL_STANDBY, "1 older in line", 100, 12 * MINUTE);
    add_member(&snapshot, "backup-berlin", MODEL_STANDBY, "not seen for a lease", 192000, 26 * HOUR);
    add_member(&snapshot, "old1", MODEL_RETIRED, "retired", 700, 300 * HOUR);
    model_take_snapshot(model, &snapshot, now_ms, now_ms);
}

static void tell(struct model *model, int64_t sequence, int64_t ago_ms, const char *event, const char *node, int64_t term,
                 const char *detail)
{
    struct model_event told = {.sequence = sequence, .at_ms = wall_ms - ago_ms, .term = term};
    (void)snprintf(told.id, sizeof told.id, "id-%lld-%s", (long long)sequence, event);
    model_text(told.event, sizeof told.event, event);
    model_text(told.node, sizeof told.node, node);
    model_text(told.detail, sizeof told.detail, detail);
    (void)model_take_event(model, &told, true, now_ms);
}

static void add_usual_news(struct model *model)
{
    tell(model, 80, 26 * HOUR, "registered", "backup-berlin", 0, "member 4");
    tell(model, 81, 2 * HOUR + 15 * MINUTE, "scheduler-exited", "sched4", 1041, "killed by signal 9");
    tell(model, 82, 2 * HOUR + 14 * MINUTE + 90, "abdicated", "sched4", 1041, "scheduler-failed, successor sched1");
    tell(model, 83, 2 * HOUR + 14 * MINUTE, "acceded", "sched1", 1042, "vacant, member 1");
    tell(model, 84, 2 * HOUR + 14 * MINUTE - 60, "scheduler-started", "sched1", 1042, "pid 48011");
    tell(model, 85, 30 * MINUTE, "scheduler-unhealthy", "sched1", 1042, "health command timed out");
    tell(model, 86, 12 * MINUTE, "registered", "sched3", 0, "member 3");
    tell(model, 88, 5 * MINUTE, "lost", "backup-berlin", 1042, "not seen for a lease, member 4");
    tell(model, 89, 4 * MINUTE, "retired", "old1", 1042, "");
    tell(model, 90, 4000, "left", "sched4", 0, "SIGTERM");
}

static void make_usual(struct model *model)
{
    assert_true(model_init(model, "airflow-scheduler"));
    model_link_word(&model->postgres, now_ms - 300);
    model_link_word(&model->rabbitmq, now_ms - 1800);
    add_usual_roster(model);
    add_usual_news(model);
}

/* The role's letter, a small one where the cell is reversed. */
static int letter_of(const struct layout_cell *cell)
{
    static const char letters[] = "_THNSRLFD"; /* in the order of enum layout_role */
    if (cell->glyph == L' ')
        return cell->reversed ? '_' : ' ';
    return cell->reversed ? tolower(letters[cell->role]) : cell->role ? letters[cell->role] : '.';
}

/* Rows without their trailing blanks; then, if asked for, each row again as letters of its roles. */
static char *text_of(const struct layout_frame *frame, bool roles)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    for (int pass = 0; pass < 1 + roles; pass++) {
        for (int y = 0; y < frame->height; y++) {
            const struct layout_cell *line = &frame->cells[y * frame->width];
            int width = frame->width;
            while (width > 0 && line[width - 1].glyph == L' ' && !(pass && line[width - 1].reversed))
                width--;
            for (int x = 0; x < width; x++) {
                char bytes[MB_LEN_MAX] = "";
                if (pass && line[x].glyph)
                    (void)fputc(letter_of(&line[x]), stream);
                else if (line[x].glyph)
                    (void)fwrite(bytes, 1, (size_t)wctomb(bytes, line[x].glyph), stream);
            }
            (void)fputc('\n', stream);
        }
        if (!pass && roles)
            (void)fputs("--- roles: (T)itle (H)eir (N)ext (S)tandby (R)etired (L)ost (F)ault (D)im, small: reversed\n",
                        stream);
    }
    (void)fclose(stream);
    return text;
}

static void compare(const char *name, const struct model *model, const struct layout_view *view)
{
    struct layout_frame frame = {0};
    assert_true(layout_draw(&frame, model, view));
    cleanup_free char *text = text_of(&frame, true);
    layout_finish(&frame);
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s.txt", GOLDEN, name);
    const char *wish = getenv("HEIRFLOW_GOLDEN");
    cleanup_file FILE *file = fopen(path, wish && strcmp(wish, "write") == 0 ? "w" : "r");
    if (!file)
        fail_msg("no golden frame %s", path);
    if (wish && strcmp(wish, "write") == 0) {
        (void)fputs(text, file);
        return;
    }
    char golden[65536];
    golden[fread(golden, 1, sizeof golden - 1, file)] = '\0';
    if (strcmp(text, golden) != 0)
        fail_msg("%s differs; it is now:\n%s", path, text);
}

static struct desk desk;

static struct layout_view view_of(int width, int height)
{
    return (struct layout_view){
        .width = width, .height = height, .keys = true, .now_ms = now_ms, .wall_ms = wall_ms, .desk = &desk};
}

static void press(const struct model *model, const struct layout_view *view, uint32_t code)
{
    struct desk_sizes sizes = layout_sizes(model, view);
    (void)desk_press(&desk, model, code, &sizes, now_ms);
}

static void press_all(const struct model *model, const struct layout_view *view, const char *codes)
{
    for (; *codes; codes++)
        press(model, view, (uint32_t)*codes);
}

static void grant_all(struct model *model)
{
    for (int i = 0; i < MODEL_RIGHTS; i++)
        model->grants[i] = MODEL_GRANTED;
}

static void draws_the_usual(void **state)
{
    static const int sizes[][2] = {{40, 10}, {40, 24}, {80, 24}, {120, 30}, {200, 50}};
    struct model model;
    make_usual(&model);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct layout_view view = view_of(sizes[i][0], sizes[i][1]);
        char name[64];
        (void)snprintf(name, sizeof name, "usual_%dx%d", view.width, view.height);
        compare(name, &model, &view);
    }
    struct layout_view view = view_of(80, 24);
    view.ascii = true;
    compare("ascii_80x24", &model, &view);
    model_finish(&model);
}

static void draws_faults(void **state)
{
    struct model model;
    make_usual(&model);
    model_link_down(&model.postgres,
                    "cannot connect to PostgreSQL: db1:5432: Connection refused (is the server running, "
                    "and listening there?)",
                    now_ms - 1000);
    model.unreadable = 3;
    struct layout_view view = view_of(80, 24);
    view.now_ms = now_ms + 12000;
    compare("postgres_lost_80x24", &model, &view);
    view = view_of(40, 12);
    view.now_ms = now_ms + 12000;
    compare("postgres_lost_40x12", &model, &view);
    model_link_word(&model.postgres, now_ms);
    model_link_down(&model.rabbitmq, "broker q1:5672/ cannot be reached; check that RabbitMQ runs there", now_ms);
    view = view_of(80, 24);
    compare("rabbitmq_lost_80x24", &model, &view);
    model_finish(&model);
}

static void draws_beginnings(void **state)
{
    struct model model;
    assert_true(model_init(&model, "airflow-scheduler"));
    model_link_try(&model.postgres, now_ms);
    struct layout_view view = view_of(80, 24);
    compare("nothing_yet_80x24", &model, &view);
    struct model_snapshot unknown = {0};
    model_take_snapshot(&model, &unknown, now_ms, now_ms);
    model_link_word(&model.postgres, now_ms);
    compare("unknown_group_80x24", &model, &view);
    struct model_snapshot vacant;
    begin_roster(&vacant, 2)->heir[0] = '\0';
    vacant.paused = true;
    add_member(&vacant, "sched2", MODEL_STANDBY, "paused", 100, HOUR);
    add_member(&vacant, "sched1", MODEL_STANDBY, "not seen for a lease", 8000, 2 * HOUR);
    model_take_snapshot(&model, &vacant, now_ms, now_ms);
    compare("vacant_and_paused_80x24", &model, &view);
    struct model_snapshot lapsed;
    (void)begin_roster(&lapsed, 2);
    lapsed.paused = true;
    add_member(&lapsed, "sched1", MODEL_HEIR, "lease lapsed", 3 * HOUR, 2 * HOUR);
    add_member(&lapsed, "sched2", MODEL_STANDBY, "paused", 100, HOUR);
    model_take_snapshot(&model, &lapsed, now_ms, now_ms);
    compare("lapsed_80x24", &model, &view);
    model_finish(&model);
}

static void draws_a_short_bar_where_names_leave_room(void **state)
{
    struct model model;
    make_usual(&model);
    struct model_snapshot snapshot;
    (void)begin_roster(&snapshot, 3);
    add_member(&snapshot, "ada", MODEL_HEIR, "", 100, HOUR);
    add_member(&snapshot, "bert", MODEL_STANDBY, "next in line", 4100, HOUR);
    add_member(&snapshot, "cleo", MODEL_STANDBY, "cooling off 12 s", 9100, HOUR);
    model_text(snapshot.heir, sizeof snapshot.heir, "ada");
    model_take_snapshot(&model, &snapshot, now_ms, now_ms);
    struct layout_view view = view_of(80, 24);
    compare("short_names_80x24", &model, &view);
    model_finish(&model);
}

static void draws_crowds(void **state)
{
    struct model model;
    make_usual(&model);
    struct model_snapshot crowd;
    (void)begin_roster(&crowd, 1000);
    for (int i = 0; i < 1000; i++) {
        char node[32];
        (void)snprintf(node, sizeof node, "node%04d", i);
        add_member(&crowd, node, i ? MODEL_STANDBY : MODEL_HEIR, i ? "older in line" : "", i % 10 == 9 ? 9000 : 100, HOUR);
    }
    model_take_snapshot(&model, &crowd, now_ms, now_ms);
    struct layout_view view = view_of(80, 24);
    compare("crowd_80x24", &model, &view);
    press_all(&model, &view, "j");
    for (int i = 0; i < 500; i++)
        press(&model, &view, KEYS_CODE_DOWN);
    compare("crowd_middle_80x24", &model, &view);
    press(&model, &view, KEYS_CODE_END);
    compare("crowd_end_80x24", &model, &view);
    model_finish(&model);
}

static void scrolls(void **state)
{
    struct model model;
    make_usual(&model);
    struct layout_view view = view_of(80, 16);
    int lines = layout_sizes(&model, &view).news_page;
    assert_in_range(lines, 2, 8);
    assert_int_equal(layout_scroll(&model, &view, -1), 0);
    desk.anchor = layout_scroll(&model, &view, 2);
    assert_int_equal(desk.anchor, model_event(&model, model.count - 3)->arrival);
    compare("scrolled_80x16", &model, &view);
    tell(&model, 91, 0, "registered", "sched9", 0, "");
    assert_int_equal(layout_scroll(&model, &view, 0), desk.anchor); /* what is read does not move */
    desk.anchor = layout_scroll(&model, &view, 1000);
    assert_int_equal(desk.anchor, model_event(&model, lines - 1)->arrival);
    assert_true(layout_wants_older(&model, &view));
    desk.anchor = layout_scroll(&model, &view, -1000);
    assert_int_equal(desk.anchor, 0);
    model_finish(&model);
}

static void scrolls_what_the_filter_lets_through(void **state)
{
    struct model model;
    make_usual(&model);
    struct layout_view view = view_of(80, 16);
    (void)strcpy(desk.filter, "SCHED1");
    compare("filtered_80x16", &model, &view);
    for (int64_t i = 0; i < 30; i++)
        tell(&model, 91 + i, 0, i % 3 ? "registered" : "left", i % 3 ? "sched9" : "sched1", 0, "");
    int lines = layout_sizes(&model, &view).news_page;
    for (int i = 0; i < 40; i++) {
        uint64_t anchor = layout_scroll(&model, &view, 1);
        if (i < 14 - lines)
            assert_true(anchor && anchor != desk.anchor);
        desk.anchor = anchor;
    }
    struct layout_frame frame = {0};
    assert_true(layout_draw(&frame, &model, &view));
    cleanup_free char *text = text_of(&frame, false);
    assert_non_null(strstr(text, "successor sched1")); /* the oldest of them is the highest line */
    assert_null(strstr(text, "sched9"));
    for (int i = 0; i < 40; i++)
        desk.anchor = layout_scroll(&model, &view, -1);
    assert_int_equal(desk.anchor, 0);
    (void)strcpy(desk.filter, "no such text");
    assert_int_equal(layout_scroll(&model, &view, 5), 0);
    compare("filtered_to_nothing_80x16", &model, &view);
    layout_finish(&frame);
    model_finish(&model);
}

static void draws_what_is_selected(void **state)
{
    struct model model;
    make_usual(&model);
    grant_all(&model);
    struct layout_view view = view_of(80, 24);
    press_all(&model, &view, "jj");
    compare("selected_80x24", &model, &view);
    model.grants[MODEL_RETIRE] = model.grants[MODEL_PAUSE] = MODEL_DENIED;
    press_all(&model, &view, "x");
    compare("not_allowed_80x24", &model, &view);
    desk.said.text[0] = '\0';
    compare("greyed_out_80x24", &model, &view);
    model_finish(&model);
}

static void draws_panels(void **state)
{
    static const struct {
        const char *name, *codes;
        int width, height;
    } panels[] = {
        {"help_80x24", "?", 80, 24},       {"help_120x40", "?", 120, 40},    {"help_40x10", "?", 40, 10},
        {"confirm_80x24", "jjx", 80, 24},  {"confirm_40x10", "jx", 40, 10},  {"pause_80x24", "p", 80, 24},
        {"switchover_80x24", "w", 80, 24}, {"filter_80x24", "/ada", 80, 24}, {"start_80x24", "jjjjs", 80, 24},
        {"output_80x24", "o", 80, 24},
    };
    struct model model;
    make_usual(&model);
    grant_all(&model);
    for (size_t i = 0; i < sizeof panels / sizeof *panels; i++) {
        static const char *const command[] = {"ssh", "{address}", "sudo", "systemctl", "start", "heirflow@{group}", NULL};
        desk_init(&desk, command, false);
        (void)page_add(&desk.output, "Permission denied \x1b[31m(publickey).");
        struct layout_view view = view_of(panels[i].width, panels[i].height);
        press_all(&model, &view, panels[i].codes);
        compare(panels[i].name, &model, &view);
    }
    struct layout_view view = view_of(40, 10);
    desk_init(&desk, NULL, false);
    press_all(&model, &view, "?");
    press(&model, &view, KEYS_CODE_END);
    compare("help_end_40x10", &model, &view);
    desk.top = 1000; /* the text has shrunk since */
    compare("help_end_40x10", &model, &view);
    model_finish(&model);
}

/* Under the sanitizers this would find a cell beyond the frame. */
static void survives_every_size(void **state)
{
    struct model model;
    make_usual(&model);
    model_link_down(&model.postgres, "a fault", now_ms);
    model_link_down(&model.rabbitmq, "another", now_ms);
    struct layout_frame frame = {0};
    struct layout_view any = view_of(80, 24);
    press_all(&model, &any, "?jjj");
    (void)strcpy(desk.question, "Sure of all that, and of 調度器一二三四五六七八九十調度器一二三四五六七八九十?");
    (void)strcpy(desk.said.text, "調度器一二三四五六七八九十");
    for (int width = 0; width <= 140; width++) {
        for (int height = 0; height <= 40; height++) {
            struct layout_view view = view_of(width, height);
            assert_true(layout_draw(&frame, &model, &view));
            desk.anchor = layout_scroll(&model, &view, 3);
            view.ascii = true;
            assert_true(layout_draw(&frame, &model, &view));
            for (int panel = DESK_HELP; panel <= DESK_ADDRESS && (width + height) % 7 == 0; panel++) {
                desk.panel = (enum desk_panel)panel;
                desk.top = panel * 5 % 30;
                assert_true(layout_draw(&frame, &model, &view));
            }
            desk.panel = DESK_NO_PANEL;
            desk.anchor = 0;
        }
    }
    layout_finish(&frame);
    model_finish(&model);
}

static void shows_foreign_names(void **state)
{
    struct model model;
    make_usual(&model);
    struct model_snapshot snapshot;
    (void)begin_roster(&snapshot, 3);
    add_member(&snapshot, "調度器一二三四五六七八九十", MODEL_HEIR, "", 100, HOUR);
    add_member(&snapshot, "cafe\xcc\x81\x1b[31m", MODEL_STANDBY, "next in line", 100, HOUR);
    add_member(&snapshot, "scheduler-with-a-very-long-name-that-goes-on-and-on-and-on", MODEL_STANDBY, "no_heir", 100,
               HOUR);
    model_text(snapshot.heir, sizeof snapshot.heir, snapshot.members[0].node);
    model_take_snapshot(&model, &snapshot, now_ms, now_ms);
    struct layout_view view = view_of(80, 24);
    compare("foreign_names_80x24", &model, &view);
    view.ascii = true;
    struct layout_frame frame = {0};
    assert_true(layout_draw(&frame, &model, &view));
    for (int i = 0; i < frame.width * frame.height; i++)
        assert_true(frame.cells[i].glyph == 0 || (frame.cells[i].glyph >= L' ' && frame.cells[i].glyph <= L'~'));
    layout_finish(&frame);
    model_finish(&model);
}

static void height_fits_everything(void **state)
{
    struct model model;
    make_usual(&model);
    struct layout_view view = view_of(80, 0);
    view.keys = false;
    view.height = layout_height(&model, &view, 20);
    assert_in_range(layout_sizes(&model, &view).news_page, 20, 30);
    struct layout_frame frame = {0};
    assert_true(layout_draw(&frame, &model, &view));
    cleanup_free char *text = text_of(&frame, false);
    assert_non_null(strstr(text, "old1"));
    assert_null(strstr(text, "more"));
    layout_finish(&frame);
    model_finish(&model);
}

static int begin(void **state)
{
    desk_init(&desk, NULL, false);
    return 0;
}

int main(void)
{
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    (void)setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(draws_the_usual, begin),
        cmocka_unit_test_setup(draws_faults, begin),
        cmocka_unit_test_setup(draws_beginnings, begin),
        cmocka_unit_test_setup(draws_a_short_bar_where_names_leave_room, begin),
        cmocka_unit_test_setup(draws_crowds, begin),
        cmocka_unit_test_setup(scrolls, begin),
        cmocka_unit_test_setup(scrolls_what_the_filter_lets_through, begin),
        cmocka_unit_test_setup(draws_what_is_selected, begin),
        cmocka_unit_test_setup(draws_panels, begin),
        cmocka_unit_test_setup(survives_every_size, begin),
        cmocka_unit_test_setup(shows_foreign_names, begin),
        cmocka_unit_test_setup(height_fits_everything, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
