/* The rules of docs/protocol.md one by one; tests/sim searches for what nobody thought of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "succession.h"

static const struct succession_settings settings = {
    .lease_ms = 6000,
    .stop_timeout_ms = 30000,
    .restart_limit = 2,
    .restart_window_ms = 60000,
    .restart_backoff_ms = 500,
    .unhealthy_window_ms = 600000,
};

/* One member and the throne as its database would show it. */
struct fixture {
    struct succession succession;
    struct orders orders;
    struct succession_observation view;
    int64_t now_ms;
};

static void step(struct fixture *f, struct event event)
{
    event.now_ms = f->now_ms;
    succession_step(&f->succession, &event, &f->orders);
}

static const struct order *find(const struct fixture *f, enum order_type type)
{
    for (int i = 0; i < f->orders.count; i++) {
        if (f->orders.list[i].type == type)
            return &f->orders.list[i];
    }
    return NULL;
}

static const struct order *sent(const struct fixture *f, enum succession_request request)
{
    const struct order *order = find(f, ORDER_SEND);
    return order && order->request == request ? order : NULL;
}

static void reply(struct fixture *f, bool granted)
{
    step(f, (struct event){.type = EVENT_REPLY,
                           .number = f->succession.number,
                           .granted = granted,
                           .observation = &f->view,
                           .refusal = "changed"});
}

static void tick(struct fixture *f, int64_t ms)
{
    f->now_ms += ms;
    step(f, (struct event){.type = EVENT_TIMER});
}

/* A standby, eldest of its line, before a throne that another member holds or that is vacant. */
static struct fixture standby(int64_t heir, bool home)
{
    struct fixture f = {.now_ms = 1000};
    f.view = (struct succession_observation){
        .throne = {.identity = "server-1", .heir = heir, .term = 7, .beat = 3},
        .home = home,
        .lease_ms = 6000,
        .accession_lease_ms = 6000,
        .wait_ms = 6000,
        .known = true,
        .member_id = 2,
        .eldest = true,
        .beat_in_ms = -1,
    };
    if (heir)
        strcpy(f.view.throne.incarnation, "theirs");
    strcpy(f.view.incarnation, "mine");
    succession_init(&f.succession, &settings);
    step(&f, (struct event){.type = EVENT_CONNECTED});
    assert_non_null(sent(&f, REQUEST_REGISTER));
    assert_true(sent(&f, REQUEST_REGISTER)->new_generation);
    reply(&f, true);
    return f;
}

static struct fixture heir(void)
{
    struct fixture f = standby(0, true);
    assert_non_null(sent(&f, REQUEST_ACCEDE));
    f.view.throne.heir = 2;
    strcpy(f.view.throne.incarnation, "mine");
    f.view.throne.term = 8;
    f.now_ms += 10;
    reply(&f, true);
    assert_non_null(find(&f, ORDER_START_SCHEDULER));
    step(&f, (struct event){.type = EVENT_SCHEDULER_STARTED});
    return f;
}

static void finish_request(struct fixture *f, bool granted)
{
    if (f->succession.pending != REQUEST_NONE)
        reply(f, granted);
}

static void vacant_throne_at_home_is_taken_at_once(void **state)
{
    struct fixture f = standby(0, true);
    assert_non_null(sent(&f, REQUEST_ACCEDE));
    assert_false(sent(&f, REQUEST_ACCEDE)->seniority_yields);
}

static void vacant_throne_of_another_server_is_taken_after_a_lease(void **state)
{
    struct fixture f = standby(0, false);
    assert_null(find(&f, ORDER_SEND));
    for (int i = 0; i < 5; i++) {
        tick(&f, 1000);
        finish_request(&f, false);
        assert_int_equal(f.succession.state, SUCCESSION_STANDBY);
    }
    tick(&f, 1001);
    assert_non_null(sent(&f, REQUEST_ACCEDE));
}

static void silent_heir_is_deposed_after_a_lease_of_observation(void **state)
{
    struct fixture f = standby(1, true);
    for (int i = 0; i < 5; i++) {
        tick(&f, 1000);
        finish_request(&f, false);
        assert_int_equal(f.succession.state, SUCCESSION_STANDBY);
    }
    tick(&f, 1001);
    assert_non_null(sent(&f, REQUEST_ACCEDE));
}

/* At home no term can have any lease but the one in force; on another server a lost one may have the longest. */
static void a_lease_that_was_once_to_come_is_waited_for_on_another_server_only(void **state)
{
    for (int home = 0; home < 2; home++) {
        struct fixture f = standby(1, home);
        f.view.wait_ms = 30000;
        tick(&f, 1000);
        finish_request(&f, false);
        for (int i = 1; i < (home ? 5 : 29); i++) {
            tick(&f, 1000);
            finish_request(&f, false);
            assert_int_equal(f.succession.state, SUCCESSION_STANDBY);
        }
        tick(&f, 1001);
        assert_non_null(sent(&f, REQUEST_ACCEDE));
    }
}

static void every_beat_of_the_heir_starts_the_observation_anew(void **state)
{
    struct fixture f = standby(1, true);
    for (int i = 0; i < 100; i++) {
        tick(&f, 1000);
        f.view.throne.beat++;
        finish_request(&f, false);
        assert_int_equal(f.succession.state, SUCCESSION_STANDBY);
    }
}

static void only_the_eldest_tries_but_seniority_yields(void **state)
{
    struct fixture f = standby(0, true);
    struct fixture younger = f;
    succession_init(&younger.succession, &settings);
    younger.view.eldest = false;
    younger.view.rank = 1;
    step(&younger, (struct event){.type = EVENT_CONNECTED});
    reply(&younger, true);
    assert_null(find(&younger, ORDER_SEND));
    for (int i = 0; i < 6; i++) {
        tick(&younger, 1000);
        finish_request(&younger, false);
    }
    tick(&younger, 100);
    assert_non_null(sent(&younger, REQUEST_ACCEDE));
    assert_true(sent(&younger, REQUEST_ACCEDE)->seniority_yields);
}

static void lease_counts_from_the_send(void **state)
{
    struct fixture f = heir();
    int64_t deadline_ms = f.succession.deadline_ms;
    finish_request(&f, true);
    step(&f, (struct event){.type = EVENT_KEEPER_ECHO, .deadline_ms = f.succession.deadline_ms});
    tick(&f, 1000);
    int64_t sent_ms = f.now_ms;
    assert_non_null(sent(&f, REQUEST_HEARTBEAT));
    assert_true(sent(&f, REQUEST_HEARTBEAT)->renew);
    f.now_ms += 700;
    reply(&f, true);
    assert_int_equal(find(&f, ORDER_SET_DEADLINE)->deadline_ms, sent_ms + 6000);
    assert_true(sent_ms + 6000 > deadline_ms);
}

static void no_renewal_without_the_keepers_echo(void **state)
{
    struct fixture f = heir();
    tick(&f, 1000);
    finish_request(&f, true); /* a deadline is out, unconfirmed */
    tick(&f, 1000);
    assert_null(find(&f, ORDER_SEND));
    step(&f, (struct event){.type = EVENT_KEEPER_ECHO, .deadline_ms = f.succession.deadline_ms});
    assert_non_null(sent(&f, REQUEST_HEARTBEAT));
}

static void unrenewed_lease_fences_within_itself(void **state)
{
    struct fixture f = heir();
    step(&f, (struct event){.type = EVENT_DISCONNECTED});
    int64_t deadline_ms = f.succession.deadline_ms;
    f.now_ms = deadline_ms - 3601;
    tick(&f, 0);
    assert_null(find(&f, ORDER_STOP_SCHEDULER));
    tick(&f, 1);
    assert_int_equal(find(&f, ORDER_STOP_SCHEDULER)->kill_at_ms, deadline_ms - 900);
    assert_int_equal(f.succession.state, SUCCESSION_FENCING);
    f.now_ms = deadline_ms - 900;
    tick(&f, 0);
    assert_non_null(find(&f, ORDER_KILL_KEEPER));
    step(&f, (struct event){.type = EVENT_TREE_DEAD});
    assert_int_equal(f.succession.state, SUCCESSION_ABDICATING);
}

static void abdication_is_repeated_until_answered_then_end_of_the_line(void **state)
{
    struct fixture f = heir();
    step(&f, (struct event){.type = EVENT_TREE_DEAD});
    finish_request(&f, true);
    assert_non_null(sent(&f, REQUEST_ABDICATE));
    assert_int_equal(sent(&f, REQUEST_ABDICATE)->term, 8);
    step(&f, (struct event){.type = EVENT_DISCONNECTED});
    step(&f, (struct event){.type = EVENT_CONNECTED});
    assert_non_null(sent(&f, REQUEST_ABDICATE));
    step(&f, (struct event){.type = EVENT_REPLY, .number = f.succession.number, .granted = true});
    assert_non_null(sent(&f, REQUEST_REGISTER));
    assert_true(sent(&f, REQUEST_REGISTER)->new_generation);
}

static void late_answer_to_an_accession_is_given_back(void **state)
{
    struct fixture f = standby(0, true);
    f.view.throne.heir = 2;
    strcpy(f.view.throne.incarnation, "mine");
    f.view.throne.term = 8;
    f.now_ms += 2401; /* too little is left to stop it again */
    reply(&f, true);
    assert_null(find(&f, ORDER_START_SCHEDULER));
    assert_non_null(sent(&f, REQUEST_ABDICATE));
    assert_non_null(succession_why_ineligible(&f.succession, f.now_ms));
}

/* Both nodes would sit out minutes after each incident, although no scheduler has failed. */
static void a_slow_database_makes_nobody_wait_longer_each_time(void **state)
{
    struct fixture f = standby(0, true);
    for (int i = 0; i < 5; i++) {
        assert_non_null(sent(&f, REQUEST_ACCEDE));
        f.view.throne.heir = 2;
        strcpy(f.view.throne.incarnation, "mine");
        f.view.throne.term++;
        f.now_ms += 2401;
        reply(&f, true);
        f.view.throne.heir = 0;
        strcpy(f.view.throne.incarnation, "");
        step(&f, (struct event){.type = EVENT_REPLY, .number = f.succession.number, .granted = true});
        reply(&f, true);
        assert_int_equal(f.succession.state, SUCCESSION_STANDBY);
        for (int s = 1; s < 6; s++) {
            tick(&f, 1000);
            finish_request(&f, false);
            assert_string_equal(succession_why_ineligible(&f.succession, f.now_ms), "cooling off");
        }
        tick(&f, 1000);
        assert_null(succession_why_ineligible(&f.succession, f.now_ms));
    }
}

/* An heir whose accession says that other schedulers have sessions to be ended. */
static struct fixture fencing_heir(void)
{
    struct fixture f = standby(0, true);
    f.view.throne.heir = 2;
    strcpy(f.view.throne.incarnation, "mine");
    f.view.throne.term = 8;
    step(&f,
         (struct event){
             .type = EVENT_REPLY, .number = f.succession.number, .granted = true, .fence = true, .observation = &f.view});
    assert_int_equal(find(&f, ORDER_PREPARE)->term, 8);
    assert_null(find(&f, ORDER_START_SCHEDULER));
    return f;
}

static void scheduler_starts_once_the_others_are_fenced(void **state)
{
    struct fixture f = fencing_heir();
    tick(&f, 1000);
    assert_true(sent(&f, REQUEST_HEARTBEAT)->renew); /* meanwhile the lease is kept */
    reply(&f, true);
    assert_null(find(&f, ORDER_START_SCHEDULER));
    tick(&f, 10);
    step(&f, (struct event){.type = EVENT_PREPARED});
    assert_int_equal(find(&f, ORDER_START_SCHEDULER)->deadline_ms, f.succession.deadline_ms);
    assert_int_equal(f.succession.deadline_ms, 2000 + 6000);
    step(&f, (struct event){.type = EVENT_PREPARED}); /* once is enough */
    assert_null(find(&f, ORDER_START_SCHEDULER));
}

static void scheduler_starts_once_the_heir_has_inherited(void **state)
{
    struct fixture f = standby(0, true);
    f.view.throne.heir = 2;
    strcpy(f.view.throne.incarnation, "mine");
    f.view.throne.term = 8;
    step(&f,
         (struct event){
             .type = EVENT_REPLY, .number = f.succession.number, .granted = true, .inherit = true, .observation = &f.view});
    assert_true(find(&f, ORDER_PREPARE)->inherit);
    assert_false(find(&f, ORDER_PREPARE)->fence);
    assert_null(find(&f, ORDER_START_SCHEDULER));
    tick(&f, 1000);
    reply(&f, true);
    step(&f, (struct event){.type = EVENT_PREPARED});
    assert_int_equal(find(&f, ORDER_START_SCHEDULER)->deadline_ms, f.succession.deadline_ms);
}

static void too_little_lease_is_left_after_inheriting(void **state)
{
    struct fixture f = fencing_heir();
    f.now_ms += 2400; /* no renewal was answered meanwhile, and no timer ran */
    step(&f, (struct event){.type = EVENT_PREPARED});
    assert_null(find(&f, ORDER_START_SCHEDULER));
    assert_int_equal(f.succession.state, SUCCESSION_ABDICATING);
}

/* The keeper is gone by then: whatever wrapper.c does before it tells of the dead tree ends with the lease. */
static void a_tree_whose_death_is_told_late_is_renewed_once_at_most(void **state)
{
    struct fixture f = heir();
    tick(&f, 1000);
    f.view.asked = ASKED_SWITCHOVER;
    reply(&f, true);
    assert_int_equal(f.succession.state, SUCCESSION_STOPPING);
    step(&f, (struct event){.type = EVENT_KEEPER_ECHO, .deadline_ms = f.succession.deadline_ms});
    tick(&f, 1000); /* the tree is dead by now */
    assert_int_equal(f.succession.pending, REQUEST_HEARTBEAT);
    reply(&f, true);
    assert_non_null(find(&f, ORDER_SET_DEADLINE));
    tick(&f, 1000);
    assert_int_equal(f.succession.pending, REQUEST_NONE);
    step(&f, (struct event){.type = EVENT_TREE_DEAD});
    assert_non_null(sent(&f, REQUEST_ABDICATE));
}

static void who_cannot_fence_gives_the_term_back(void **state)
{
    struct fixture f = fencing_heir();
    tick(&f, 100);
    step(&f, (struct event){.type = EVENT_PREPARED, .reason = "1 sessions do not end"});
    assert_int_equal(sent(&f, REQUEST_ABDICATE)->term, 8);
    assert_string_equal(sent(&f, REQUEST_ABDICATE)->reason, "1 sessions do not end");
    assert_string_equal(succession_why_ineligible(&f.succession, f.now_ms), "cooling off");
    assert_int_equal(f.succession.cooling_ms, 6000);  /* twice that the next time */
    step(&f, (struct event){.type = EVENT_PREPARED}); /* rule 8: too late */
    assert_null(find(&f, ORDER_START_SCHEDULER));
}

static void a_term_that_ends_while_fencing_starts_nothing(void **state)
{
    struct fixture leaving = fencing_heir();
    step(&leaving, (struct event){.type = EVENT_QUIT});
    assert_non_null(sent(&leaving, REQUEST_ABDICATE));
    struct fixture unrenewed = fencing_heir();
    tick(&unrenewed, 2500);
    step(&unrenewed, (struct event){.type = EVENT_DISCONNECTED});
    assert_int_equal(unrenewed.succession.state, SUCCESSION_ABDICATING);
    struct fixture deposed = fencing_heir();
    tick(&deposed, 1000);
    reply(&deposed, false);
    assert_non_null(sent(&deposed, REQUEST_ABDICATE));
    struct fixture slow = fencing_heir();
    for (int i = 0; i < 6; i++) { /* renewed all the while */
        finish_request(&slow, true);
        tick(&slow, 1000);
    }
    assert_int_equal(slow.succession.state, SUCCESSION_ABDICATING);
    struct fixture *all[] = {&leaving, &unrenewed, &deposed, &slow};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        step(all[i], (struct event){.type = EVENT_PREPARED});
        assert_null(find(all[i], ORDER_START_SCHEDULER));
        assert_null(find(all[i], ORDER_STOP_SCHEDULER));
    }
}

static void who_lacks_what_an_heir_needs_lets_others_try(void **state)
{
    struct fixture f = standby(0, true);
    step(&f, (struct event){.type = EVENT_REPLY,
                            .number = f.succession.number,
                            .unable = true,
                            .observation = &f.view,
                            .refusal = "there is no role heirflow_gate"});
    assert_int_equal(f.succession.state, SUCCESSION_STANDBY);
    assert_string_equal(succession_why_ineligible(&f.succession, f.now_ms), "cooling off");
}

static void held_but_not_running_is_given_back(void **state)
{
    struct fixture f = standby(1, true);
    int64_t cooling_until_ms = f.succession.cooling_until_ms = f.now_ms + 60000; /* for what went before */
    tick(&f, 1000);
    f.view.throne.heir = 2;
    strcpy(f.view.throne.incarnation, "mine");
    f.view.throne.term = 9;
    reply(&f, false);
    assert_non_null(sent(&f, REQUEST_ABDICATE));
    assert_int_equal(sent(&f, REQUEST_ABDICATE)->term, 9);
    assert_int_equal(f.succession.cooling_until_ms, cooling_until_ms);
}

static void replies_to_forgotten_requests_are_void(void **state)
{
    struct fixture f = standby(0, true);
    uint32_t number = f.succession.number;
    step(&f, (struct event){.type = EVENT_DISCONNECTED});
    step(&f, (struct event){.type = EVENT_REPLY, .number = number, .granted = true, .observation = &f.view});
    assert_null(find(&f, ORDER_START_SCHEDULER));
    assert_int_equal(f.succession.state, SUCCESSION_STANDBY);
}

static void paused_group_is_left_alone(void **state)
{
    struct fixture f = standby(1, true);
    f.view.paused = true;
    for (int i = 0; i < 30; i++) {
        tick(&f, 1000);
        finish_request(&f, false);
        assert_int_equal(f.succession.state, SUCCESSION_STANDBY);
    }
}

static void crashes_back_off_then_another_gets_its_turn(void **state)
{
    struct fixture f = heir();
    finish_request(&f, true);
    for (int i = 0; i < 2; i++) {
        step(&f, (struct event){.type = EVENT_SCHEDULER_FAILED, .reason = "exit status 1"});
        if (i > 0) { /* the first restart comes at once */
            assert_null(find(&f, ORDER_RESTART_SCHEDULER));
            assert_int_equal(f.succession.restart_at_ms, f.now_ms + 500);
            f.now_ms = f.succession.restart_at_ms;
            tick(&f, 0);
        }
        assert_non_null(find(&f, ORDER_RESTART_SCHEDULER));
        step(&f, (struct event){.type = EVENT_SCHEDULER_STARTED});
        step(&f, (struct event){.type = EVENT_KEEPER_ECHO, .deadline_ms = f.succession.deadline_ms});
        finish_request(&f, true);
    }
    step(&f, (struct event){.type = EVENT_SCHEDULER_FAILED, .reason = "exit status 1"});
    assert_non_null(find(&f, ORDER_STOP_SCHEDULER));
    assert_string_equal(succession_why_ineligible(&f.succession, f.now_ms), "cooling off");
}

static void hang(struct fixture *f)
{
    step(f, (struct event){.type = EVENT_SCHEDULER_UNHEALTHY, .reason = "timed out"});
    assert_string_equal(find(f, ORDER_TELL)->tell, "scheduler-unhealthy");
    assert_int_equal(find(f, ORDER_END_RUN)->kill_at_ms, f->now_ms + 3000);
    assert_int_equal(f->succession.state, SUCCESSION_HEIR);
    finish_request(f, true);
    step(f, (struct event){.type = EVENT_KEEPER_ECHO, .deadline_ms = f->succession.deadline_ms});
    step(f, (struct event){.type = EVENT_SCHEDULER_UNHEALTHY, .reason = "timed out"});
    assert_null(find(f, ORDER_END_RUN)); /* once is enough */
    step(f, (struct event){.type = EVENT_SCHEDULER_FAILED, .reason = "killed by signal 15"});
}

static void wait_with_renewals(struct fixture *f, int64_t ms)
{
    for (int64_t until_ms = f->now_ms + ms; f->now_ms < until_ms;) {
        tick(f, 100);
        finish_request(f, true);
        step(f, (struct event){.type = EVENT_KEEPER_ECHO, .deadline_ms = f->succession.deadline_ms});
    }
}

static void unhealthy_scheduler_restarts_under_its_term_within_the_limit(void **state)
{
    struct fixture f = heir();
    finish_request(&f, true);
    for (int i = 0; i < 2; i++) {
        wait_with_renewals(&f, 100000); /* longer than the window for crashes */
        hang(&f);
        assert_null(find(&f, ORDER_STOP_SCHEDULER));
        if (i > 0) {
            finish_request(&f, true);
            f.now_ms = f.succession.restart_at_ms;
            tick(&f, 0);
        }
        assert_non_null(find(&f, ORDER_RESTART_SCHEDULER));
        assert_int_equal(f.succession.term, 8);
        step(&f, (struct event){.type = EVENT_SCHEDULER_STARTED});
        step(&f, (struct event){.type = EVENT_KEEPER_ECHO, .deadline_ms = f.succession.deadline_ms});
        finish_request(&f, true);
    }
    wait_with_renewals(&f, 100000);
    hang(&f);
    assert_non_null(find(&f, ORDER_STOP_SCHEDULER));
    assert_int_equal(f.succession.state, SUCCESSION_STOPPING);
    assert_string_equal(succession_why_ineligible(&f.succession, f.now_ms), "cooling off");
}

static void rare_hangs_are_forgotten(void **state)
{
    struct fixture f = heir();
    finish_request(&f, true);
    for (int i = 0; i < 5; i++) {
        wait_with_renewals(&f, 700000);
        hang(&f);
        assert_null(find(&f, ORDER_STOP_SCHEDULER));
        assert_non_null(find(&f, ORDER_RESTART_SCHEDULER));
        step(&f, (struct event){.type = EVENT_SCHEDULER_STARTED});
        step(&f, (struct event){.type = EVENT_KEEPER_ECHO, .deadline_ms = f.succession.deadline_ms});
        finish_request(&f, true);
    }
}

static void health_is_of_no_interest_once_a_stop_has_begun(void **state)
{
    struct fixture f = heir();
    step(&f, (struct event){.type = EVENT_QUIT});
    assert_non_null(find(&f, ORDER_STOP_SCHEDULER));
    step(&f, (struct event){.type = EVENT_SCHEDULER_UNHEALTHY, .reason = "timed out"});
    assert_null(find(&f, ORDER_TELL));
    assert_null(find(&f, ORDER_END_RUN));
    struct fixture idle = heir();
    step(&idle, (struct event){.type = EVENT_SCHEDULER_FAILED, .reason = "exit status 1"});
    step(&idle, (struct event){.type = EVENT_SCHEDULER_UNHEALTHY, .reason = "timed out"});
    assert_null(find(&idle, ORDER_END_RUN));
}

static void quitting_standby_leaves_at_once(void **state)
{
    struct fixture f = standby(1, true);
    step(&f, (struct event){.type = EVENT_QUIT});
    assert_non_null(sent(&f, REQUEST_LEAVE));
    step(&f, (struct event){.type = EVENT_REPLY, .number = f.succession.number, .granted = true});
    assert_non_null(find(&f, ORDER_EXIT));
}

static void refused_registration_is_repeated_with_a_new_generation(void **state)
{
    struct fixture f = {.now_ms = 1000};
    succession_init(&f.succession, &settings);
    step(&f, (struct event){.type = EVENT_CONNECTED});
    step(&f, (struct event){.type = EVENT_REPLY, .number = f.succession.number});
    assert_null(find(&f, ORDER_SEND));
    tick(&f, 250);
    assert_true(sent(&f, REQUEST_REGISTER)->new_generation);
}

static void an_accession_answered_while_leaving_runs_nothing(void **state)
{
    struct fixture f = standby(0, true);
    step(&f, (struct event){.type = EVENT_QUIT});
    assert_null(find(&f, ORDER_SEND));
    f.view.throne.heir = 2;
    strcpy(f.view.throne.incarnation, "mine");
    f.view.throne.term = 8;
    reply(&f, true);
    assert_null(find(&f, ORDER_START_SCHEDULER));
    assert_int_equal(sent(&f, REQUEST_ABDICATE)->term, 8);
}

static void a_stop_during_which_the_lease_runs_out_becomes_a_fencing(void **state)
{
    struct fixture f = heir();
    step(&f, (struct event){.type = EVENT_QUIT});
    assert_int_equal(find(&f, ORDER_STOP_SCHEDULER)->kill_at_ms, f.now_ms + 30000);
    step(&f, (struct event){.type = EVENT_DISCONNECTED});
    f.now_ms = f.succession.deadline_ms - 3600;
    tick(&f, 0);
    assert_int_equal(f.succession.state, SUCCESSION_FENCING);
    assert_int_equal(find(&f, ORDER_STOP_SCHEDULER)->kill_at_ms, f.succession.deadline_ms - 900);
}

static void a_keeper_that_does_not_stop_in_time_is_killed(void **state)
{
    struct fixture f = heir();
    finish_request(&f, true);
    step(&f, (struct event){.type = EVENT_QUIT});
    wait_with_renewals(&f, 30200);
    assert_false(f.succession.killing);
    wait_with_renewals(&f, 100);
    assert_true(f.succession.killing);
    assert_int_equal(f.succession.state, SUCCESSION_STOPPING);
}

static void a_crash_during_a_fencing_changes_nothing(void **state)
{
    struct fixture f = heir();
    f.succession.settings.restart_limit = 0;
    step(&f, (struct event){.type = EVENT_DISCONNECTED});
    f.now_ms = f.succession.deadline_ms - 3600;
    tick(&f, 0);
    step(&f, (struct event){.type = EVENT_SCHEDULER_FAILED, .reason = "exit status 1"});
    assert_int_equal(f.succession.state, SUCCESSION_FENCING);
    assert_null(find(&f, ORDER_STOP_SCHEDULER));
    step(&f, (struct event){.type = EVENT_TREE_DEAD});
    assert_int_equal(f.succession.state, SUCCESSION_ABDICATING);
}

static void quitting_at_once_kills_and_waits_for_no_database(void **state)
{
    struct fixture f = heir();
    step(&f, (struct event){.type = EVENT_DISCONNECTED});
    step(&f, (struct event){.type = EVENT_QUIT_NOW});
    assert_non_null(find(&f, ORDER_KILL_KEEPER));
    assert_null(find(&f, ORDER_EXIT));
    step(&f, (struct event){.type = EVENT_TREE_DEAD});
    assert_non_null(find(&f, ORDER_EXIT));
}

static void who_leaves_waits_so_long_for_an_answer_and_no_longer(void **state)
{
    struct fixture f = standby(1, true);
    step(&f, (struct event){.type = EVENT_QUIT});
    assert_non_null(sent(&f, REQUEST_LEAVE));
    tick(&f, f.succession.quit_by_ms - f.now_ms - 1);
    assert_null(find(&f, ORDER_EXIT));
    tick(&f, 1);
    assert_non_null(find(&f, ORDER_EXIT));
    struct fixture never_registered = {.now_ms = 1000};
    succession_init(&never_registered.succession, &settings);
    step(&never_registered, (struct event){.type = EVENT_QUIT});
    assert_non_null(find(&never_registered, ORDER_EXIT));
}

static void unsafe_timings_are_named(void **state)
{
    struct succession_settings unsafe = settings;
    assert_null(succession_timing_fault(&unsafe, 6000));
    assert_null(succession_timing_fault(&unsafe, 1000));
    unsafe.heartbeat_ms = 2001;
    assert_string_equal(succession_timing_fault(&unsafe, 6000), "heartbeat <= lease/3");
    unsafe.heartbeat_ms = 1000;
    unsafe.fence_grace_ms = 3401;
    assert_non_null(strstr(succession_timing_fault(&unsafe, 6000), "fence_grace + margin + 2*heartbeat <= lease"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vacant_throne_at_home_is_taken_at_once),
        cmocka_unit_test(vacant_throne_of_another_server_is_taken_after_a_lease),
        cmocka_unit_test(silent_heir_is_deposed_after_a_lease_of_observation),
        cmocka_unit_test(a_lease_that_was_once_to_come_is_waited_for_on_another_server_only),
        cmocka_unit_test(every_beat_of_the_heir_starts_the_observation_anew),
        cmocka_unit_test(only_the_eldest_tries_but_seniority_yields),
        cmocka_unit_test(lease_counts_from_the_send),
        cmocka_unit_test(no_renewal_without_the_keepers_echo),
        cmocka_unit_test(unrenewed_lease_fences_within_itself),
        cmocka_unit_test(abdication_is_repeated_until_answered_then_end_of_the_line),
        cmocka_unit_test(late_answer_to_an_accession_is_given_back),
        cmocka_unit_test(a_slow_database_makes_nobody_wait_longer_each_time),
        cmocka_unit_test(scheduler_starts_once_the_others_are_fenced),
        cmocka_unit_test(scheduler_starts_once_the_heir_has_inherited),
        cmocka_unit_test(too_little_lease_is_left_after_inheriting),
        cmocka_unit_test(a_tree_whose_death_is_told_late_is_renewed_once_at_most),
        cmocka_unit_test(who_cannot_fence_gives_the_term_back),
        cmocka_unit_test(a_term_that_ends_while_fencing_starts_nothing),
        cmocka_unit_test(who_lacks_what_an_heir_needs_lets_others_try),
        cmocka_unit_test(held_but_not_running_is_given_back),
        cmocka_unit_test(replies_to_forgotten_requests_are_void),
        cmocka_unit_test(paused_group_is_left_alone),
        cmocka_unit_test(crashes_back_off_then_another_gets_its_turn),
        cmocka_unit_test(unhealthy_scheduler_restarts_under_its_term_within_the_limit),
        cmocka_unit_test(rare_hangs_are_forgotten),
        cmocka_unit_test(health_is_of_no_interest_once_a_stop_has_begun),
        cmocka_unit_test(quitting_standby_leaves_at_once),
        cmocka_unit_test(refused_registration_is_repeated_with_a_new_generation),
        cmocka_unit_test(an_accession_answered_while_leaving_runs_nothing),
        cmocka_unit_test(a_stop_during_which_the_lease_runs_out_becomes_a_fencing),
        cmocka_unit_test(a_keeper_that_does_not_stop_in_time_is_killed),
        cmocka_unit_test(a_crash_during_a_fencing_changes_nothing),
        cmocka_unit_test(quitting_at_once_kills_and_waits_for_no_database),
        cmocka_unit_test(who_leaves_waits_so_long_for_an_answer_and_no_longer),
        cmocka_unit_test(unsafe_timings_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
