/* A world of wrappers, keepers, networks and one database, driven by one seed, around the real succession.c.
 *
 *   simulation [--seeds N] [--first SEED] [--until FAILURE] [--trace]
 *
 * A safety phase with faults checks at every start that no other scheduler tree is alive; then the faults end and a
 * liveness phase demands a scheduler within the promised bound. A failing seed is printed with the command that repeats it.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

static void step(void)
{
    struct item item = pop();
    w->now = item.at;
    if (item.what <= W_RECONNECT)
        wrapper_item(&item);
    else if (item.what <= K_REAPED)
        keeper_item(&item);
    else if (item.what <= D_WILL)
        database_item(&item);
    else if (item.what == D_FENCE)
        database_fences(&item);
    else if (item.what <= S_LOGGED_IN)
        scheduler_item(&item);
    else
        world_item(&item);
}

static bool someone_runs(void)
{
    for (int i = 1; i <= w->nodes; i++) {
        if (w->node[i].keeper.tree && !w->node[i].keeper.killing)
            return true;
    }
    return false;
}

static void make_world(uint64_t seed)
{
    static const int64_t leases[] = {1000, 2000, 6000};
    bool trace = w->trace;
    memset(w, 0, sizeof *w);
    w->trace = trace;
    w->random = seed * 0x2545f4914f6cdd1du + 1;
    w->estate = seed % 3 == 0;
    w->nodes = (int)(2 + draw(NODES_MOST - 1));
    w->lease_ms = leases[draw(3)];
    w->synchronous = chance(300);
    w->database.fences = chance(400);
    w->explicit_timings = chance(300);
    w->loss = draw(60);
    w->faulty = w->database_up = true;
    w->timeline = 1;
    server_starts();
    w->database.random = &w->random;
    replicate_to_all();
    for (int i = 1; i <= w->nodes; i++) {
        int64_t off = chance(500) ? draw(2) * 50 : draw(51);
        w->node[i].rate = 0.975 + (double)off / 1000.0; /* within 5 % of each other */
        w->node[i].offset = draw(1000000);
        w->node[i].log_in_ms = 30;
        w->node[i].unable = w->database.fences && i > 1 && chance(100);
        after(draw(2000), F_START_WRAPPER, i, 0, 0);
    }
    after(draw(3000), F_FAULT, 0, 0, 0);
    after(draw(20000), F_REPLICATE, 0, 0, 0); /* a standby that lags at first has not even the new group */
}

/* From here on nothing fails any more. */
static void end_faults(void)
{
    w->faulty = false;
    w->database_up = true;
    say(0, "the faults end");
    for (int i = 1; i <= w->nodes; i++) {
        struct node *node = &w->node[i];
        if (node->frozen)
            after(0, F_RESUME_NODE, i, 0, 0);
        node->slow[0] = node->slow[1] = 0;
        node->cut = node->paused = node->keeper.paused = false;
        w->database.roster[i].retired = false;
        after(1, F_START_WRAPPER, i, 0, 0);
    }
    (void)database_pause(&w->database, false);
}

static int64_t bound_ms(void)
{
    /* two leases and two heartbeats of the group's lease in force, on a server without an accession of the longest to come,
     * and as long as the first cools off: crashed schedulers keep their members out of the line by design */
    const struct database_throne *throne = &w->database.throne;
    bool home = throne->identity == w->database.identity;
    int64_t lease = home ? throne->lease_ms : most(throne->lease_ms, throne->longest_lease_ms);
    int64_t cooling = NEVER;
    for (int i = 1; i <= w->nodes; i++) {
        const struct node *node = &w->node[i];
        int64_t left = node->alive ? node->succession.cooling_until_ms - local(node) : 0;
        left = left > 0 ? left : 0;
        cooling = left < cooling ? left : cooling;
    }
    /* late requests of the faulty phase may still arrive within two leases of the configuration, clocks differ by 5 % */
    return (2 * lease + 2 * lease / 6 + 2 * w->lease_ms + cooling + 2500) * 105 / 100;
}

/* In the line for long enough to accede at once: not cooling off, and knowing this server for a lease. */
static bool is_ready(int n)
{
    const struct node *node = &w->node[n];
    const struct succession *s = &node->succession;
    const struct database_member *row = &w->database.roster[n];
    int64_t since = most(s->cooling_until_ms, s->identity_since_ms) + 2 * s->view.wait_ms;
    return node->alive && node->connected && !node->unable && s->state == SUCCESSION_STANDBY && row->present &&
           row->member_id == s->member_id && local(node) > since && !succession_why_ineligible(s, local(node));
}

static void check_eldest(int starter)
{
    for (int i = 1; i <= w->nodes; i++) {
        if (i != starter && is_ready(i) && w->node[i].succession.member_id < w->node[starter].succession.member_id)
            w->broken = "a younger member came before its elder";
    }
}

/* After a purge, which forgets all standbys, an operator's switchover goes to its target, or to the eldest. */
static void check_switchover(void)
{
    int from = heir(), target = chance(500) ? (int)(1 + draw(w->nodes)) : 0;
    int64_t limit = w->now + bound_ms();
    w->wall += 2 * DAY_MS;
    visit();
    while (!switch_over(target)) {
        step();
        if (w->broken || w->now > limit || (heir() && heir() != from)) /* the target cools off, or leads already */
            return;
    }
    bool ready = false;
    int64_t term = w->node[from].keeper.term;
    int64_t stopped = w->now;
    limit = w->now + bound_ms();
    while (!w->broken && (!heir() || w->node[heir()].keeper.term == term)) { /* it may follow itself if no other can */
        if (heir() == from) {
            ready = target && is_ready(target);
            stopped = w->now;
        }
        step();
        if (w->now > limit)
            w->broken = "a switchover was not carried out";
    }
    if (w->broken)
        return;
    if (ready && heir() != target)
        w->broken = "a switchover went to another";
    if (!target && w->now - stopped < w->database.throne.lease_ms * 95 / 100) /* else seniority may have yielded */
        check_eldest(heir());
}

/* Everybody is told to quit: all must be gone soon, and the throne left vacant. */
static void check_quitting(void)
{
    int64_t limit = w->now + 4 * w->lease_ms * 3 + 5000;
    w->closing = true;
    for (int i = 1; i <= w->nodes; i++) {
        if (w->node[i].alive)
            wrapper_event(i, (struct event){.type = EVENT_QUIT});
    }
    for (bool alive = true; alive && !w->broken;) {
        step();
        alive = false;
        for (int i = 1; i <= w->nodes; i++)
            alive |= w->node[i].alive;
        if (w->now > limit)
            w->broken = "a wrapper that was told to quit goes on";
    }
    if (!w->broken && (someone_runs() || w->database.throne.heir))
        w->broken = "all have quit, and the throne is not vacant";
}

static const char *run(uint64_t seed)
{
    make_world(seed);
    while (w->now < FAULTS_MS && !w->broken)
        step();
    if (w->broken)
        return w->broken;
    end_faults();
    int64_t limit = w->now + bound_ms(), calm = 0;
    while (!w->broken && w->now < limit && calm < 3 * w->lease_ms) {
        int64_t from = w->now;
        step();
        calm = someone_runs() ? calm + w->now - from : 0;
    }
    if (!w->broken && !someone_runs())
        w->broken = "nobody runs after the faults have ended";
    if (!w->broken && w->database.fences && w->database.gate != heir())
        w->broken = "the heir's scheduler may not connect";
    if (!w->broken)
        check_switchover();
    if (!w->broken)
        check_quitting();
    return w->broken;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seeds", required_argument, NULL, 's'},
        {"first", required_argument, NULL, 'f'},
        {"until", required_argument, NULL, 'u'},
        {"trace", no_argument, NULL, 't'},
        {0},
    };
    uint64_t seeds = 1000, first = 1;
    int option;
    const char *until = NULL;
    w = calloc(1, sizeof *w);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            seeds = strtoull(optarg, NULL, 10);
        else if (option == 'f')
            first = strtoull(optarg, NULL, 10);
        else if (option == 'u')
            until = optarg;
        else if (option == 't')
            w->trace = true;
        else
            return 2;
    }
    uint64_t failed = 0;
    int64_t accessions = 0;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        const char *broken = run(seed);
        accessions += w->accessions;
        if (broken && (!until || strcmp(broken, until) == 0)) {
            failed++;
            printf("seed %" PRIu64 " at %" PRId64 " ms: %s; repeat: %s --first %" PRIu64 " --seeds 1 --trace\n", seed,
                   w->now, broken, argv[0], seed);
            if (failed >= (until ? 1 : 10))
                break;
        }
    }
    printf("%" PRIu64 " seeds, %" PRId64 " scheduler starts, %" PRIu64 " failures\n", seeds, accessions, failed);
    free(w);
    return failed != 0;
}
