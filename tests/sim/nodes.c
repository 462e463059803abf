/* Owns the nodes: keepers and their trees, and what wrapper.c does around succession.c: events in, orders carried out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

/* ---- trees ---- */

/* The kernel kills, and takes its time; that the keeper is stopped or dead does not matter to it. */
static void kill_tree(int n)
{
    struct keeper *keeper = &w->node[n].keeper;
    int64_t reaping = keeper->lease_ms / 20 > 20 ? keeper->lease_ms / 20 : 20;
    if (keeper->killing)
        return;
    keeper->killing = true;
    after(chance(300) ? reaping - draw(5) : draw(5), F_TREE_GONE, n, keeper->life, 0);
}

void tree_ends(int n, const char *why)
{
    struct keeper *keeper = &w->node[n].keeper;
    if (keeper->tree)
        say(n, "tree dead (%s)", why);
    keeper->tree = keeper->lapsed = false;
    w->node[n].session = (struct session){0};
}

void tree_follows(int n)
{
    struct node *node = &w->node[n];
    if (node->keeper.tree)
        kill_tree(n);
    else
        after(draw(4), W_TREE_DEAD, n, node->life, node->keeper.life);
}

void tree_gone(int n, uint32_t life, const char *why)
{
    struct node *node = &w->node[n];
    if (life != node->keeper.life)
        return;
    if (node->frozen) {
        after(5, F_TREE_GONE, n, life, 0);
        return;
    }
    tree_ends(n, why);
    if (node->keeper.alive)
        after(draw(2), K_REAPED, n, life, 0);
    else
        tree_follows(n);
}

/* ---- keeper ---- */

static int64_t keeper_kill_at(const struct keeper *keeper)
{
    int64_t at = succession_kill_at_ms(keeper->deadline, keeper->lease_ms);
    return (keeper->stopping || keeper->ending) && keeper->stop_at < at ? keeper->stop_at : at;
}

static void keeper_arms(int n)
{
    struct node *node = &w->node[n];
    int64_t at = succession_term_at_ms(node->keeper.deadline, node->keeper.lease_ms, node->keeper.grace_ms);
    if (node->keeper.stopping || node->keeper.ending || local(node) >= at)
        at = keeper_kill_at(&node->keeper);
    push((struct item){.at = truly(node, at), .what = K_CHECK, .node = n, .life = node->keeper.life});
}

static void keeper_starts_tree(int n)
{
    struct node *node = &w->node[n];
    struct keeper *keeper = &node->keeper;
    if (keeper->stopping || local(node) >= succession_term_at_ms(keeper->deadline, keeper->lease_ms, keeper->grace_ms))
        return;
    keeper->tree = true;
    keeper->ending = false;
    keeper->ignores_term = chance(300);
    say(n, "SCHEDULER STARTS term %" PRId64, keeper->term);
    after(draw(30), S_LOG_IN, n, keeper->life, 0);
    w->accessions++;
    check_safety(n);
    after(1, W_STARTED, n, node->life, keeper->life);
    keeper_arms(n);
    if (w->faulty && chance(50))
        after(draw(8000), K_EXIT, n, keeper->life, 0);
}

static void keeper_done(int n)
{
    struct node *node = &w->node[n];
    node->keeper.alive = false;
    after(1, W_TREE_DEAD, n, node->life, node->keeper.life);
}

static void run_ends(int n)
{
    struct node *node = &w->node[n];
    node->keeper.ending = false;
    after(draw(3), W_FAILED, n, node->life, node->keeper.life);
}

/* Rule 10. */
static void write_will(int n)
{
    struct keeper *keeper = &w->node[n].keeper;
    keeper->alive = false;
    if (w->faulty && chance(200))
        return;
    struct item will = {.at = w->now + 5 + draw(30), .what = D_WILL, .node = n};
    will.request = (struct order){
        .type = ORDER_SEND, .request = REQUEST_ABDICATE, .member_id = keeper->member_id, .term = keeper->term};
    (void)snprintf(will.request.incarnation, sizeof will.request.incarnation, "%" PRId64, keeper->incarnation);
    push(will);
}

static void keeper_terminates(int n)
{
    struct keeper *keeper = &w->node[n].keeper;
    keeper->stopping = true;
    if (!keeper->tree)
        keeper_done(n);
    else if (!keeper->ignores_term)
        after(draw(1500), K_EXIT, n, keeper->life, 0);
}

static void keeper_checks(int n)
{
    struct node *node = &w->node[n];
    struct keeper *keeper = &node->keeper;
    int64_t now = local(node);
    int64_t term_at = succession_term_at_ms(keeper->deadline, keeper->lease_ms, keeper->grace_ms);
    if (keeper->tree && now >= keeper_kill_at(keeper)) {
        keeper->stopping |= now >= term_at; /* else only this run has been given enough time to end */
        kill_tree(n);
        return;
    }
    if (!keeper->stopping && now >= term_at) {
        keeper->stop_at = keeper->ending ? keeper->stop_at : INT64_MAX;
        keeper_terminates(n);
    }
    if (keeper->alive && keeper->tree && (now >= term_at || keeper->stopping || keeper->ending))
        keeper_arms(n);
}

static void keeper_reaps(int n)
{
    struct keeper *keeper = &w->node[n].keeper;
    keeper->killing = false;
    if (keeper->orphaned)
        write_will(n);
    else if (keeper->stopping)
        keeper_done(n);
    else
        run_ends(n);
}

void keeper_item(const struct item *item)
{
    int n = item->node;
    struct node *node = &w->node[n];
    struct keeper *keeper = &node->keeper;
    if (!keeper->alive || item->life != keeper->life)
        return;
    if (keeper->paused || node->frozen) { /* it waits in the socket, or in the timer */
        struct item later = *item;
        later.at = w->now + 5;
        push(later);
        return;
    }
    switch ((int)item->what) { /* each handles its own share */
    case K_DEADLINE:
        if (item->value > keeper->deadline && item->value > local(node) &&
            local(node) < succession_term_at_ms(keeper->deadline, keeper->lease_ms, keeper->grace_ms)) {
            keeper->deadline = item->value;
            keeper_arms(n);
        }
        after(draw(3), W_ECHO, n, node->life, keeper->deadline);
        break;
    case K_STOP:
        if (!keeper->stopping) {
            keeper->stop_at = keeper->ending && keeper->stop_at < item->value ? keeper->stop_at : item->value;
            keeper_terminates(n);
            if (keeper->alive)
                keeper_arms(n);
        } else if (item->value < keeper->stop_at) {
            keeper->stop_at = item->value;
            keeper_arms(n);
        }
        break;
    case K_END_RUN:
        if (keeper->tree && !keeper->stopping && !keeper->ending && !keeper->killing) {
            keeper->ending = true;
            keeper->stop_at = item->value;
            if (!keeper->ignores_term)
                after(draw(1500), K_EXIT, n, keeper->life, 0);
            keeper_arms(n);
        }
        break;
    case K_RESTART:
        if (!keeper->tree && !keeper->killing)
            keeper_starts_tree(n);
        break;
    case K_CHECK:
        keeper_checks(n);
        break;
    case K_EXIT: /* what it leaves behind is killed */
        if (keeper->tree)
            kill_tree(n);
        break;
    case K_REAPED:
        keeper_reaps(n);
        break;
    case K_EOF:
        keeper->orphaned = true;
        if (keeper->tree)
            kill_tree(n);
        else
            write_will(n);
        break;
    default:
        break;
    }
}

/* ---- wrapper ---- */

static void connect_later(int n, int64_t delay)
{
    struct node *node = &w->node[n];
    after(delay, W_RECONNECT, n, node->life, 0);
}

static void drop_link(int n, int64_t retry)
{
    struct node *node = &w->node[n];
    node->link++;
    node->connected = false;
    connect_later(n, retry);
    wrapper_event(n, (struct event){.type = EVENT_DISCONNECTED});
}

static void order_send(int n, const struct order *order)
{
    struct node *node = &w->node[n];
    if (order->new_generation) {
        node->generation++;
        node->incarnation = ++w->incarnations;
    }
    if (node->second != w->now / 1000)
        node->requests = 0;
    node->second = w->now / 1000;
    if (++node->requests > STORM)
        w->broken = "a storm of requests";
    struct item item = {.what = D_REQUEST, .node = n, .life = node->link, .request = *order};
    item.caller = (struct database_caller){
        .seat = n,
        .member_id = node->member_id,
        .incarnation = node->incarnation,
        .generation = node->generation,
        .lease_ms = node->succession.settings.lease_ms,
        .highest_term = node->succession.highest_term,
        .eligible = !succession_why_ineligible(&node->succession, local(node)),
        .unable = node->unable,
    };
    item.value = (int64_t)node->life;
    int64_t delay = 1 + draw(4) + some_of(node->slow[0]);
    bool registers = order->request == REQUEST_REGISTER;
    if (w->faulty && chance(registers ? 200 : 20))
        delay += draw(w->lease_ms * 2); /* slow, perhaps executed after its sender gave up */
    if (w->faulty && registers && delay > w->lease_ms && chance(500))
        after(draw(200), F_KILL_WRAPPER, n, 0, 0); /* or after the sender's successor has registered */
    item.at = w->now + delay;
    if (!node->cut && !(w->faulty && chance(w->loss)))
        push(item);
    push((struct item){.at = truly(node, local(node) + order->timeout_ms),
                       .what = W_TIME_OUT,
                       .node = n,
                       .life = node->life,
                       .value = order->number});
}

static void order_start(int n, const struct order *order)
{
    struct node *node = &w->node[n];
    uint32_t life = node->keeper.life + 1;
    const struct succession *s = &node->succession;
    if (node->keeper.alive || node->keeper.tree)
        w->broken = "a second keeper was started beside a living one";
    if (node->disinherited)
        w->broken = "a scheduler was started before it had inherited";
    node->keeper = (struct keeper){
        .alive = true,
        .life = life,
        .term = order->term,
        .member_id = s->term_member,
        .incarnation = strtoll(s->term_incarnation, NULL, 10),
        .deadline = order->deadline_ms,
        .lease_ms = s->lease_ms,
        .grace_ms = succession_fence_grace_ms(&s->settings, s->lease_ms),
    };
    keeper_arms(n);
    after(3 + draw(10), K_RESTART, n, life, 0);
}

static void order_prepare(int n, const struct order *order)
{
    struct node *node = &w->node[n];
    node->fence++;
    node->to_prepare = order->fence + order->inherit;
    if (order->inherit) /* a fault of it ends it, too */
        after(1 + draw(chance(500) ? 50 : node->succession.lease_ms / 3), W_INHERITED, n, node->life, node->fence);
    if (!order->fence)
        return;
    node->fence_until = local(node) + order->timeout_ms * 3 / 4; /* so that the answer still arrives */
    node->fence_began = 0;
    after(2 + draw(20), D_FENCE, n, node->fence, 0);
}

static void part_prepared(int n, const char *fault)
{
    struct node *node = &w->node[n];
    if (!node->to_prepare)
        return;
    node->to_prepare = fault ? 0 : node->to_prepare - 1;
    if (!node->to_prepare)
        wrapper_event(n, (struct event){.type = EVENT_PREPARED, .reason = fault});
}

/* The tree of a graceful stop is dead: its files are stored while the lease lasts, and only then is its death told. */
static bool settles(int n)
{
    struct node *node = &w->node[n];
    const struct succession *s = &node->succession;
    int64_t limit =
        succession_term_at_ms(s->deadline_ms, s->lease_ms, succession_fence_grace_ms(&s->settings, s->lease_ms)) -
        local(node);
    if (!w->estate || node->settling == node->keeper.life || s->state != SUCCESSION_STOPPING || limit <= 0 || chance(200))
        return false;
    node->settling = node->keeper.life;
    after(1 + draw(limit < 1000 ? limit : 1000), W_SETTLED, n, node->life, node->keeper.life);
    return true;
}

static void carry_out(int n, const struct order *order)
{
    struct node *node = &w->node[n];
    uint32_t keeper = node->keeper.life;
    switch (order->type) {
    case ORDER_SEND:
        order_send(n, order);
        break;
    case ORDER_PREPARE:
        order_prepare(n, order);
        break;
    case ORDER_START_SCHEDULER:
        order_start(n, order);
        break;
    case ORDER_SET_DEADLINE:
        after(draw(3), K_DEADLINE, n, keeper, order->deadline_ms);
        break;
    case ORDER_RESTART_SCHEDULER:
        after(draw(3), K_RESTART, n, keeper, 0);
        break;
    case ORDER_END_RUN:
        after(draw(3), K_END_RUN, n, keeper, order->kill_at_ms);
        break;
    case ORDER_STOP_SCHEDULER:
        after(draw(3), K_STOP, n, keeper, order->kill_at_ms);
        if (node->settling == keeper) /* the lease is at its end */
            after(0, W_SETTLED, n, node->life, keeper);
        break;
    case ORDER_KILL_KEEPER: /* SIGKILL takes a stopped process too; the namespace goes with its init */
        node->keeper.alive = false;
        tree_follows(n);
        break;
    case ORDER_LOG:
        say(n, "%s term %" PRId64 " %s", order->tell, order->term, order->reason);
        break;
    case ORDER_WAKE:
        node->wake_at = order->at_ms;
        if (order->at_ms != NEVER)
            push((struct item){
                .at = truly(node, order->at_ms), .what = W_WAKE, .node = n, .life = node->life, .value = order->at_ms});
        break;
    case ORDER_EXIT:
        say(n, "left");
        if (!w->faulty)
            after(20, F_START_WRAPPER, n, 0, 0);
        node->alive = node->connected = false;
        node->life++;
        node->link++;
        break;
    case ORDER_TELL:
        break;
    }
}

void wrapper_event(int n, struct event event)
{
    struct node *node = &w->node[n];
    struct orders orders;
    event.now_ms = local(node);
    succession_step(&node->succession, &event, &orders);
    for (int i = 0; i < orders.count && node->alive; i++)
        carry_out(n, &orders.list[i]);
}

static void wrapper_reply(int n, const struct item *item)
{
    struct node *node = &w->node[n];
    if (item->life != node->link)
        return;
    if (w->faulty && chance(10)) { /* executed or not: an SQL error, or a WARNING that spoils the commit */
        wrapper_event(n, (struct event){.type = EVENT_REFUSED, .number = item->request.number});
        return;
    }
    const struct database_reply *reply = &item->reply;
    if (item->request.request == REQUEST_REGISTER && reply->granted) {
        node->member_id = reply->observation.member_id;
        node->incarnation = strtoll(reply->observation.incarnation, NULL, 10);
    }
    bool accedes = item->request.request == REQUEST_ACCEDE && reply->granted;
    if (accedes)
        node->disinherited = w->estate;
    wrapper_event(n, (struct event){
                         .type = EVENT_REPLY,
                         .number = item->request.number,
                         .granted = reply->granted,
                         .inherit = accedes && w->estate,
                         .observation = reply->observed ? &reply->observation : NULL,
                         .fence = reply->fence,
                         .unable = reply->unable,
                         .refusal = reply->refusal,
                     });
}

void wrapper_item(const struct item *item)
{
    int n = item->node;
    struct node *node = &w->node[n];
    bool link = item->what == W_REPLY || item->what == W_CONNECTED || item->what == W_DISCONNECTED;
    if (!node->alive || (!link && item->life != node->life) || (link && item->life != node->link))
        return;
    if (node->paused || node->frozen) {
        struct item later = *item;
        /* what lies in a socket is heard before a timer is */
        later.at = w->now + (item->what >= W_TIME_OUT ? 6 : 5);
        push(later);
        return;
    }
    switch ((int)item->what) { /* each handles its own share */
    case W_CONNECTED:
        node->connected = true;
        wrapper_event(n, (struct event){.type = EVENT_CONNECTED});
        break;
    case W_DISCONNECTED:
        drop_link(n, 20);
        break;
    case W_RECONNECT:
        if (node->connected)
            break;
        if (w->database_up && !node->cut && !(w->faulty && chance(w->loss)))
            after(2 + draw(10), W_CONNECTED, n, node->link, 0);
        else
            connect_later(n, 50 + draw(200));
        break;
    case W_REPLY:
        wrapper_reply(n, item);
        break;
    case W_WOKEN:
        wrapper_event(n, (struct event){.type = EVENT_WOKEN});
        break;
    case W_ECHO:
        wrapper_event(n, (struct event){.type = EVENT_KEEPER_ECHO, .deadline_ms = item->value});
        break;
    case W_STARTED:
        if (item->value == node->keeper.life)
            wrapper_event(n, (struct event){.type = EVENT_SCHEDULER_STARTED});
        break;
    case W_FAILED:
        if (item->value == node->keeper.life)
            wrapper_event(n, (struct event){.type = EVENT_SCHEDULER_FAILED, .reason = "exit status 1"});
        break;
    case W_TREE_DEAD:
        if (item->value == node->keeper.life && node->succession.tree && !settles(n))
            wrapper_event(n, (struct event){.type = EVENT_TREE_DEAD, .reason = chance(500) ? "lease not renewed" : NULL});
        break;
    case W_FENCED:
    case W_FENCE_FAILED:
        if (item->value == node->fence)
            part_prepared(n, item->what == W_FENCED ? NULL : "sessions do not end");
        break;
    case W_INHERITED:
        if (item->value == node->fence) {
            node->disinherited = false;
            part_prepared(n, NULL);
        }
        break;
    case W_SETTLED:
        if (item->value == node->keeper.life && node->succession.tree)
            wrapper_event(n, (struct event){.type = EVENT_TREE_DEAD});
        break;
    case W_TIME_OUT:
        if (node->connected && node->succession.pending != REQUEST_NONE && node->succession.number == (uint32_t)item->value)
            drop_link(n, 20);
        break;
    case W_WAKE:
        if (item->value == node->wake_at)
            wrapper_event(n, (struct event){.type = EVENT_TIMER});
        break;
    default:
        break;
    }
}

void wrapper_starts(int n)
{
    struct node *node = &w->node[n];
    if (node->alive || w->closing)
        return;
    if (node->keeper.alive || node->keeper.tree || node->frozen) { /* it still holds the lock, or is to be killed first */
        after(20, F_START_WRAPPER, n, 0, 0);
        return;
    }
    struct succession_settings settings = {
        .lease_ms = w->lease_ms,
        .stop_timeout_ms = 1000,
        .restart_limit = 2,
        .restart_window_ms = 20000,
        .restart_backoff_ms = 50,
        .unhealthy_window_ms = 40000,
    };
    if (w->explicit_timings) { /* they may not fit a lease that changes */
        settings.heartbeat_ms = w->lease_ms / 5;
        settings.fence_grace_ms = w->lease_ms / 3;
    }
    succession_init(&node->succession, &settings);
    node->alive = true;
    node->paused = node->connected = false;
    node->life++;
    node->link++;
    say(n, "wrapper starts");
    connect_later(n, 1);
}

void node_thaws(int n)
{
    struct node *node = &w->node[n];
    struct keeper *keeper = &node->keeper;
    bool ran = node->frozen && keeper->tree;
    node->frozen = false;
    if (!ran)
        return;
    say(n, "thaws, and so does its scheduler");
    keeper->lapsed = local(node) >= succession_kill_at_ms(keeper->deadline, keeper->lease_ms); /* the promise's exception */
    if (!keeper->lapsed)
        check_alone(n);
}
