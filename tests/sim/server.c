/* Owns the database's servers: requests, standbys and failovers, clocks, and the schedulers' own sessions. */
#include <inttypes.h>
#include <stdlib.h>

#include "world.h"

/* ---- servers and standbys ---- */

void replicate(int standby)
{
    w->standby[standby].database = w->database;
    w->standby[standby].timeline = w->timeline;
}

void replicate_to_all(void)
{
    for (int i = 0; i < STANDBYS; i++)
        replicate(i);
}

/* What tells one life of one server from every other. */
void server_starts(void)
{
    w->server_starts++;
    w->database.identity = w->timeline * 1000000 + w->server_starts;
}

/* ---- requests ---- */

static void wake_named(int64_t before_named)
{
    int64_t named = w->database.throne.named;
    for (int i = 1; i <= w->nodes && named && named != before_named; i++) {
        if (w->database.roster[i].member_id == named && w->node[i].connected && !w->node[i].cut &&
            !chance(w->faulty ? 200 : 0))
            after(1 + draw(3), W_WOKEN, i, w->node[i].life, 0);
    }
}

void database_item(const struct item *item)
{
    if (!w->database_up || w->node[item->node].cut)
        return;
    w->database.now_ms = w->now + w->wall;
    int64_t named = w->database.throne.named;
    struct database_reply reply = database_call(&w->database, &item->caller, &item->request);
    if (w->synchronous)
        replicate(0);
    wake_named(named);
    if (item->request.request == REQUEST_ACCEDE && reply.granted && w->faulty && chance(100)) {
        w->node[item->node].slow[1] = draw(w->lease_ms / 2); /* bad luck comes at the worst moment */
        after(draw(w->lease_ms / 3), chance(500) ? F_CUT : F_FAULT_TOO, item->node, 0, 0);
    }
    if (item->what == D_WILL || (w->faulty && chance(w->loss)))
        return;
    struct item back = {.at = w->now + 1 + draw(4) + some_of(w->node[item->node].slow[1]),
                        .what = W_REPLY,
                        .node = item->node,
                        .life = item->life,
                        .request = item->request,
                        .reply = reply};
    if (w->faulty && chance(15))
        back.at += draw(w->lease_ms * 2);
    push(back);
}

/* ---- the schedulers' own sessions ---- */

void end_session(int n)
{
    struct node *node = &w->node[n];
    if (node->keeper.tree && (node->session.open || node->session.entering))
        after(draw(50), S_LOG_IN, n, node->keeper.life, 0);
    node->session = (struct session){0};
}

/* True once nobody is left of those that were there or on their way in. */
static bool end_sessions(const struct node *fencer)
{
    bool left = false;
    for (int i = 1; i <= w->nodes; i++) {
        const struct session *session = &w->node[i].session;
        left |= session->open || (session->entering && session->entered <= fencer->fence_began);
        if (session->open)
            end_session(i);
    }
    return !left;
}

void database_fences(const struct item *item)
{
    struct node *node = &w->node[item->node];
    const struct succession *s = &node->succession;
    const struct database_throne *throne = &w->database.throne;
    bool lost = !w->database_up || node->cut || (w->faulty && chance(w->loss));
    if (item->life != node->fence)
        return;
    if (!lost && !node->fence_began)
        node->fence_began = w->now;
    bool over = throne->heir != s->term_member || throne->incarnation != strtoll(s->term_incarnation, NULL, 10) ||
                throne->term != s->term;
    if (local(node) >= node->fence_until || (!lost && over))
        after(1 + draw(4), W_FENCE_FAILED, item->node, node->life, item->life);
    else if (!lost && end_sessions(node))
        after(1 + draw(4) + some_of(node->slow[1]), W_FENCED, item->node, node->life, item->life);
    else
        after(lost ? 50 : 5, D_FENCE, item->node, item->life, 0);
}

void scheduler_item(const struct item *item)
{
    struct node *node = &w->node[item->node];
    struct session *session = &node->session;
    if (!w->database.fences || item->life != node->keeper.life || !node->keeper.tree)
        return;
    if (item->what == S_LOGGED_IN && session->entering) { /* the server's doing, whether its client is frozen or not */
        *session = (struct session){.open = true};
        if (node->keeper.term < w->highest_term)
            w->broken = "the database let an older scheduler in";
    }
    if (item->what == S_LOGGED_IN || session->open || session->entering)
        return;
    if (!node->frozen && w->database_up && !node->cut && w->database.gate == item->node) {
        *session = (struct session){.entering = true, .entered = w->now};
        after(draw(node->log_in_ms), S_LOGGED_IN, item->node, item->life, 0);
    } else {
        after(10 + draw(50), S_LOG_IN, item->node, item->life, 0);
    }
}

/* ---- what happens to the database ---- */

static void break_links(void)
{
    for (int i = 1; i <= w->nodes; i++) {
        after(draw(3), W_DISCONNECTED, i, w->node[i].link, 0);
        end_session(i);
    }
}

/* A lost accession's term may be drawn lower than it was, if nobody who saw it is left. */
static void promote(const struct standby *standby)
{
    if (standby->database.throne.term < w->highest_term)
        w->highest_term = standby->database.throne.term;
    w->database = standby->database;
    w->database.random = &w->random;
    w->timeline = standby->timeline + 1;
    w->wall += draw(2 * w->lease_ms) - w->lease_ms;
}

static void database_goes_away(void)
{
    server_starts();
    replicate(0);
    break_links();
    w->database_up = false;
    after(draw(6000), F_DATABASE_UP, 0, 0, 0);
}

void database_restarts(void)
{
    say(0, "FAULT database restarts");
    database_goes_away();
}

void database_fails_over(int standby)
{
    say(0, "FAULT database fails over to standby %d", standby);
    promote(&w->standby[standby]);
    database_goes_away();
}

void change_lease(int64_t lease_ms)
{
    say(0, "lease to be %" PRId64, lease_ms);
    (void)database_set_lease(&w->database, lease_ms);
    replicate_to_all(); /* its loss is excluded by the promise */
}

void step_clock(void)
{
    static const int64_t steps[] = {1000, 60000, 3600000, 2 * DAY_MS};
    int64_t most = steps[draw(4)];
    w->wall += draw(2 * most) - most;
    say(0, "FAULT the database's clock is now %" PRId64 " ms off", w->wall);
}

/* A member of a run directory that is not simulated: it registers, which purges who has long been silent, and leaves. */
void visit(void)
{
    struct database_caller visitor = {
        .seat = VISITOR, .incarnation = ++w->incarnations, .generation = w->incarnations, .lease_ms = w->lease_ms};
    struct order order = {.type = ORDER_SEND, .request = REQUEST_REGISTER};
    say(0, "a visitor registers and leaves");
    w->database.now_ms = w->now + w->wall;
    visitor.member_id = database_call(&w->database, &visitor, &order).observation.member_id;
    order.request = REQUEST_LEAVE;
    (void)database_call(&w->database, &visitor, &order);
}

bool switch_over(int target)
{
    w->database.now_ms = w->now + w->wall;
    bool accepted = database_switchover(&w->database, target);
    if (accepted)
        say(0, "switchover to %s", target ? "a named member" : "the eldest");
    return accepted;
}
