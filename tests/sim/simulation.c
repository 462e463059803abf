/* A world of wrappers, keepers, networks and one database, driven by one seed, around the real succession.c.
 *
 *   simulation [--seeds N] [--first SEED] [--until FAILURE] [--trace]
 *
 * A safety phase with faults checks at every start that no other scheduler tree is alive; then the faults end and a
 * liveness phase demands a scheduler within the promised bound. A failing seed is printed with the command that repeats it.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "database.h"

#define NODES_MOST 9
#define FAULTS_MS 120000
#define QUEUE_MOST 8192
#define VISITOR (DATABASE_SEATS - 1)
#define STANDBYS 2
#define NEVER INT64_MAX
#define DAY_MS 86400000
#define STORM 400 /* requests of one member within a second; a calm one sends one to twelve */

enum what {
    /* to the wrapper: reports and replies before time, as a wrapper drains its sockets before it judges */
    W_CONNECTED,
    W_DISCONNECTED,
    W_REPLY,
    W_WOKEN,
    W_ECHO,
    W_STARTED,
    W_FAILED,
    W_TREE_DEAD,
    W_FENCED,
    W_FENCE_FAILED,
    W_TIME_OUT,
    W_WAKE,
    W_RECONNECT,
    /* to the keeper */
    K_DEADLINE,
    K_STOP,
    K_END_RUN,
    K_RESTART,
    K_CHECK,
    K_EOF,
    K_EXIT,
    K_REAPED,
    /* to the database */
    D_REQUEST,
    D_WILL,
    D_FENCE,
    /* to a scheduler */
    S_LOG_IN,
    S_LOGGED_IN,
    /* the world */
    F_FAULT,
    F_FAULT_TOO,
    F_TREE_GONE,
    F_RESUME_WRAPPER,
    F_RESUME_KEEPER,
    F_RESUME_NODE,
    F_START_WRAPPER,
    F_DATABASE_UP,
    F_CUT,
    F_KILL_WRAPPER,
    F_FREEZE,
    F_STOP_KEEPER,
    F_QUIT,
    F_HEAL,
    F_REPLICATE,
    F_RESUME_GROUP,
    F_FAILOVER,
    F_LEASE,
};

struct item {
    int64_t at; /* true time */
    enum what what;
    int node;
    uint32_t life; /* of the wrapper, keeper or connection it is meant for; void for any other */
    int64_t value;
    struct order request;
    struct database_caller caller;
    struct database_reply reply;
};

/* Place of an item in the queue; what waits is kept apart, because it is large. */
struct due {
    int64_t at;
    uint64_t order; /* ties: first come, first served */
    int slot;
};

struct keeper {
    bool alive, tree, paused;
    bool stopping, ending; /* for good, or only this run */
    bool killing;          /* SIGKILL is out, the tree not yet dead */
    bool orphaned;
    bool lapsed; /* thawed with its node too late to stop in time: what fencing at the database is for */
    uint32_t life;
    int64_t term, member_id, incarnation;
    int64_t deadline, lease_ms, grace_ms, stop_at; /* node clock */
    bool ignores_term;
};

/* Of a scheduler, at the database: it does not end because its client is frozen. */
struct session {
    bool entering, open; /* entering: past the gate, not yet to be seen */
    int64_t entered;
};

struct node {
    struct succession succession;
    bool alive, paused, frozen, gone; /* frozen: wrapper and keeper, the whole node */
    uint32_t life, link;              /* of wrapper process and connection */
    bool connected, cut;
    int64_t slow[2]; /* to the database and back */
    int64_t generation, incarnation, member_id;
    int64_t wake_at;
    double rate;
    int64_t offset;
    struct keeper keeper;
    struct session session;
    uint32_t fence; /* the latest */
    int64_t fence_began, fence_until, log_in_ms;
    int64_t accepted_term;
    int64_t second; /* of the count below */
    int requests;
};

struct standby {
    struct database database;
    int64_t timeline;
};

static struct world {
    uint64_t random;
    int64_t now;
    int nodes;
    struct node node[NODES_MOST + 1]; /* by seat */
    struct database database;
    struct standby standby[STANDBYS]; /* the first follows the present primary, the second may still follow a former one */
    int64_t timeline, server_starts, wall; /* wall: what the primary's clock is off by */
    int64_t incarnations;
    bool database_up, synchronous, faulty, trace, explicit_timings, closing;
    int64_t lease_ms, loss; /* loss: per mille */
    int64_t highest_term;
    struct due queue[QUEUE_MOST];
    int queued, slots_used;
    uint64_t queue_order;
    const char *broken;
    int64_t last_alive;
    int64_t accessions;
} * w;
static struct item slots[QUEUE_MOST];
static int free_slots[QUEUE_MOST], freed;

static int64_t draw(int64_t below)
{
    return below > 0 ? (int64_t)(random_next(&w->random) % (uint64_t)below) : 0;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* At least half. */
static int64_t some_of(int64_t limit)
{
    return limit - draw(limit / 2);
}

static bool chance(int64_t per_mille)
{
    return draw(1000) < per_mille;
}

static void say(int node, const char *format, ...)
{
    if (!w->trace)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("%8" PRId64 " ms  ", w->now);
    if (node)
        printf("n%d  ", node);
    else
        printf("--  ");
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

static int64_t local(const struct node *node)
{
    return node->offset + (int64_t)((double)w->now * node->rate);
}

/* True time at which the node's clock shows at least `at`. */
static int64_t truly(const struct node *node, int64_t at)
{
    int64_t time = (int64_t)((double)(at - node->offset) / node->rate);
    while (node->offset + (int64_t)((double)time * node->rate) < at)
        time++;
    return time > w->now ? time : w->now;
}

/* ---- queue: a binary heap by time ---- */

static bool before(const struct due *a, const struct due *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct item item)
{
    if (w->queued == QUEUE_MOST) {
        w->broken = "the simulation's queue is full";
        return;
    }
    struct due due = {.at = item.at, .order = w->queue_order++};
    due.slot = freed ? free_slots[--freed] : w->slots_used++;
    slots[due.slot] = item;
    int i = w->queued++;
    for (; i > 0 && before(&due, &w->queue[(i - 1) / 2]); i = (i - 1) / 2)
        w->queue[i] = w->queue[(i - 1) / 2];
    w->queue[i] = due;
}

static struct item pop(void)
{
    struct due top = w->queue[0], last = w->queue[--w->queued];
    int i = 0;
    for (;;) {
        int child = 2 * i + 1;
        if (child >= w->queued)
            break;
        if (child + 1 < w->queued && before(&w->queue[child + 1], &w->queue[child]))
            child++;
        if (!before(&w->queue[child], &last))
            break;
        w->queue[i] = w->queue[child];
        i = child;
    }
    w->queue[i] = last;
    free_slots[freed++] = top.slot;
    return slots[top.slot];
}

static void after(int64_t delay, enum what what, int node, uint32_t life, int64_t value)
{
    push((struct item){.at = w->now + delay, .what = what, .node = node, .life = life, .value = value});
}

/* ---- safety ---- */

static void check_alone(int runner)
{
    for (int i = 1; i <= w->nodes; i++) {
        const struct node *node = &w->node[i];
        if (i != runner && node->keeper.tree && !node->frozen && !node->keeper.lapsed)
            w->broken = "two scheduler trees at once";
    }
}

/* Once a scheduler starts, the database serves no older one, frozen or not. */
static void check_sessions(int starter)
{
    for (int i = 1; i <= w->nodes; i++) {
        if (i != starter && w->node[i].session.open)
            w->broken = "an older scheduler's session outlives a start";
    }
}

static void check_safety(int starter)
{
    bool known = w->database.throne.term >= w->node[starter].keeper.term; /* a failover may have lost its accession */
    check_alone(starter);
    if (known)
        check_sessions(starter);
    if (w->node[starter].keeper.term <= w->highest_term && w->node[starter].keeper.term != w->node[starter].accepted_term)
        w->broken = "a term did not grow";
    /* an accession that a failover has lost meanwhile sets no mark */
    if (w->node[starter].keeper.term > w->highest_term && known)
        w->highest_term = w->node[starter].keeper.term;
    w->node[starter].accepted_term = w->node[starter].keeper.term;
}

/* ---- keeper ---- */

static void tree_ends(int n, const char *why)
{
    struct keeper *keeper = &w->node[n].keeper;
    if (keeper->tree)
        say(n, "tree dead (%s)", why);
    keeper->tree = keeper->lapsed = false;
    w->node[n].session = (struct session){0};
}

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

static void keeper_item(const struct item *item)
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

static void wrapper_event(int n, struct event event);

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

static void order_fence(int n, const struct order *order)
{
    struct node *node = &w->node[n];
    node->fence++;
    node->fence_until = local(node) + order->timeout_ms * 3 / 4; /* so that the answer still arrives */
    node->fence_began = 0;
    after(2 + draw(20), D_FENCE, n, node->fence, 0);
}

/* After the keeper's death; told once the tree is dead as well. */
static void tree_follows(int n)
{
    struct node *node = &w->node[n];
    if (node->keeper.tree)
        kill_tree(n);
    else
        after(draw(4), W_TREE_DEAD, n, node->life, node->keeper.life);
}

static void carry_out(int n, const struct order *order)
{
    struct node *node = &w->node[n];
    uint32_t keeper = node->keeper.life;
    switch (order->type) {
    case ORDER_SEND:
        order_send(n, order);
        break;
    case ORDER_FENCE:
        order_fence(n, order);
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
        node->alive = node->connected = false;
        node->life++;
        node->link++;
        break;
    case ORDER_TELL:
        break;
    }
}

static void wrapper_event(int n, struct event event)
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
    wrapper_event(n, (struct event){
                         .type = EVENT_REPLY,
                         .number = item->request.number,
                         .granted = reply->granted,
                         .observation = reply->observed ? &reply->observation : NULL,
                         .fence = reply->fence,
                         .refusal = reply->refusal,
                     });
}

static void wrapper_item(const struct item *item)
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
        if (item->value == node->keeper.life && node->succession.tree)
            wrapper_event(n, (struct event){.type = EVENT_TREE_DEAD, .reason = chance(500) ? "lease not renewed" : NULL});
        break;
    case W_FENCED:
    case W_FENCE_FAILED:
        if (item->value == node->fence)
            wrapper_event(
                n, (struct event){.type = EVENT_FENCED, .reason = item->what == W_FENCED ? NULL : "sessions do not end"});
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

static void wrapper_starts(int n)
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

/* ---- database ---- */

static void replicate(int standby)
{
    w->standby[standby].database = w->database;
    w->standby[standby].timeline = w->timeline;
}

static void replicate_to_all(void)
{
    for (int i = 0; i < STANDBYS; i++)
        replicate(i);
}

/* What tells one life of one server from every other. */
static void server_starts(void)
{
    w->server_starts++;
    w->database.identity = w->timeline * 1000000 + w->server_starts;
}

static void wake_named(int64_t before_named)
{
    int64_t named = w->database.throne.named;
    for (int i = 1; i <= w->nodes && named && named != before_named; i++) {
        if (w->database.roster[i].member_id == named && w->node[i].connected && !w->node[i].cut &&
            !chance(w->faulty ? 200 : 0))
            after(1 + draw(3), W_WOKEN, i, w->node[i].life, 0);
    }
}

static void end_session(int n)
{
    struct node *node = &w->node[n];
    if (node->keeper.tree && (node->session.open || node->session.entering))
        after(draw(50), S_LOG_IN, n, node->keeper.life, 0);
    node->session = (struct session){0};
}

static void database_item(const struct item *item)
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

static void break_links(void)
{
    for (int i = 1; i <= w->nodes; i++) {
        after(draw(3), W_DISCONNECTED, i, w->node[i].link, 0);
        end_session(i);
    }
}

/* ---- the schedulers' own sessions ---- */

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

static void database_fences(const struct item *item)
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

static void scheduler_item(const struct item *item)
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

/* ---- faults ---- */

static void kill_wrapper(int n)
{
    struct node *node = &w->node[n];
    if (!node->alive || node->frozen || node->keeper.paused)
        return;
    say(n, "FAULT wrapper killed");
    node->alive = node->connected = node->paused = false;
    node->life++;
    node->link++;
    if (node->keeper.alive)
        after(draw(3), K_EOF, n, node->keeper.life, 0);
    after(draw(chance(500) ? 100 : 3000), F_START_WRAPPER, n, 0, 0);
}

static void kill_keeper(int n)
{
    struct node *node = &w->node[n];
    if (!node->keeper.alive || node->frozen || node->paused)
        return;
    say(n, "FAULT keeper killed");
    node->keeper.alive = false;
    tree_follows(n);
}

static void lose_node(int n)
{
    struct node *node = &w->node[n];
    say(n, "FAULT node lost");
    tree_ends(n, "power loss");
    node->keeper.alive = node->alive = node->connected = node->paused = node->frozen = false;
    node->keeper.life++;
    node->life++;
    node->link++;
    after(500 + draw(15000), F_START_WRAPPER, n, 0, 0);
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

static void database_restarts(void)
{
    say(0, "FAULT database restarts");
    database_goes_away();
}

static void database_fails_over(int standby)
{
    say(0, "FAULT database fails over to standby %d", standby);
    promote(&w->standby[standby]);
    database_goes_away();
}

static void change_lease(int64_t lease_ms)
{
    say(0, "lease to be %" PRId64, lease_ms);
    (void)database_set_lease(&w->database, lease_ms);
    replicate_to_all(); /* its loss is excluded by the promise */
}

static void step_clock(void)
{
    static const int64_t steps[] = {1000, 60000, 3600000, 2 * DAY_MS};
    int64_t most = steps[draw(4)];
    w->wall += draw(2 * most) - most;
    say(0, "FAULT the database's clock is now %" PRId64 " ms off", w->wall);
}

/* A member of a run directory that is not simulated: it registers, which purges who has long been silent, and leaves. */
static void visit(void)
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

static bool switch_over(int target)
{
    w->database.now_ms = w->now + w->wall;
    bool accepted = database_switchover(&w->database, target);
    if (accepted)
        say(0, "switchover to %s", target ? "a named member" : "the eldest");
    return accepted;
}

static int heir(void)
{
    for (int i = 1; i <= w->nodes; i++) {
        if (w->node[i].keeper.tree)
            return i;
    }
    return 0;
}

static void cut_off(int n)
{
    say(n, "FAULT cut off");
    w->node[n].cut = true;
    after(draw(w->lease_ms * 3), F_HEAL, n, 0, 0);
}

static void freeze(int n)
{
    struct node *node = &w->node[n];
    if (node->keeper.paused || node->paused)
        return;
    say(n, "FAULT node frozen");
    node->frozen = true;
    after(draw(w->lease_ms * 3), F_RESUME_NODE, n, 0, 0);
}

static void stop_keeper(int n, int64_t most_ms)
{
    struct node *node = &w->node[n];
    if (!node->keeper.alive || !node->alive || node->paused || node->frozen)
        return;
    say(n, "FAULT keeper stopped");
    node->keeper.paused = true;
    after(draw(most_ms), F_RESUME_KEEPER, n, node->keeper.life, 0);
}

static void tell_to_quit(int n, bool now)
{
    struct node *node = &w->node[n];
    if (!node->alive || node->paused || node->frozen)
        return;
    say(n, "told to quit%s", now ? " at once" : "");
    wrapper_event(n, (struct event){.type = now ? EVENT_QUIT_NOW : EVENT_QUIT});
    after(draw(20000), F_START_WRAPPER, n, 0, 0);
}

static void some_fault(int n)
{
    struct node *node = &w->node[n];
    switch (draw(w->database.fences ? 22 : 21)) {
    case 0:
        kill_wrapper(n);
        break;
    case 1:
        kill_keeper(n);
        break;
    case 2:
        lose_node(n);
        break;
    case 3:
        if (node->alive && !node->keeper.paused && !node->frozen) {
            say(n, "FAULT wrapper stopped");
            node->paused = true;
            after(draw(w->lease_ms * 3), F_RESUME_WRAPPER, n, node->life, 0);
        }
        break;
    case 4:
        stop_keeper(n, w->lease_ms * 3);
        break;
    case 5:
        freeze(n);
        break;
    case 6:
    case 7:
        cut_off(n);
        break;
    case 8:
        database_restarts();
        break;
    case 9:
        database_fails_over(0);
        break;
    case 10: /* and again, perhaps to one that still follows the first */
        database_fails_over((int)draw(STANDBYS));
        after(draw(w->lease_ms * 4), F_FAILOVER, 0, 0, draw(STANDBYS));
        break;
    case 11:
        (void)switch_over(chance(500) ? n : 0);
        break;
    case 12:
        say(0, "paused");
        (void)database_pause(&w->database, true);
        after(draw(10000), F_RESUME_GROUP, 0, 0, 0);
        break;
    case 13:
        say(n, "retired or enlisted");
        (void)database_retire(&w->database, n, chance(400));
        break;
    case 14:
        change_lease(w->lease_ms * (1 + draw(3)));
        if (chance(800)) { /* carried out, carried out again after a failover, and changed back */
            int64_t failover = draw(w->lease_ms * 2);
            (void)switch_over(0);
            after(failover, F_FAILOVER, 0, 0, 0);
            after(failover + draw(w->lease_ms), F_LEASE, 0, 0, w->lease_ms);
        }
        break;
    case 15:
        tell_to_quit(n, chance(300));
        break;
    case 16:
        if (node->keeper.alive)
            after(1, K_EXIT, n, node->keeper.life, 0);
        if (chance(400)) { /* again; a keeper that is stopped while the start waits for it; an operator without patience */
            after(100, K_EXIT, n, node->keeper.life, 0);
            after(100 + draw(60), F_STOP_KEEPER, n, 0, w->lease_ms / 2);
            after(160 + draw(w->lease_ms / 8), F_QUIT, n, 0, 0);
        }
        break;
    case 17:
        if (node->alive && !node->paused && !node->frozen && node->keeper.tree) {
            say(n, "FAULT scheduler hangs");
            wrapper_event(n, (struct event){.type = EVENT_SCHEDULER_UNHEALTHY, .reason = "timed out"});
        }
        break;
    case 18:
        say(n, "FAULT slow network");
        node->slow[draw(2)] = draw(w->lease_ms / 2);
        after(draw(w->lease_ms * 3), chance(500) ? F_CUT : F_HEAL, n, 0, 0);
        break;
    case 19:
        step_clock();
        break;
    case 20:
        visit();
        break;
    case 21: /* and the node frozen while its scheduler connects again */
        end_session(n);
        node->log_in_ms = chance(300) ? w->lease_ms * 4 : 30;
        after(draw(120), F_FREEZE, n, 0, 0);
        break;
    default:
        break;
    }
}

static void tree_gone(int n, uint32_t life, const char *why)
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

static void node_thaws(int n)
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

static void world_item(const struct item *item)
{
    struct node *node = &w->node[item->node];
    switch ((int)item->what) { /* each handles its own share */
    case F_FAULT:
        if (w->now < FAULTS_MS) {
            int running = heir();
            int n = running && chance(400) ? running : (int)(1 + draw(w->nodes));
            some_fault(n);
            if (chance(250)) /* seldom alone */
                after(draw(w->lease_ms / 2), F_FAULT_TOO, n, 0, 0);
            after(draw(w->lease_ms * 2), F_FAULT, 0, 0, 0);
        }
        break;
    case F_FAULT_TOO:
        if (w->faulty)
            some_fault(item->node);
        break;
    case F_TREE_GONE:
        tree_gone(item->node, item->life, "killed and reaped");
        break;
    case F_RESUME_WRAPPER:
        if (node->life == item->life)
            node->paused = false;
        break;
    case F_RESUME_KEEPER:
        if (node->keeper.life == item->life)
            node->keeper.paused = false;
        break;
    case F_RESUME_NODE:
        node_thaws(item->node);
        break;
    case F_START_WRAPPER:
        wrapper_starts(item->node);
        break;
    case F_DATABASE_UP:
        w->database_up = true;
        break;
    case F_CUT:
        if (w->faulty)
            cut_off(item->node);
        break;
    case F_KILL_WRAPPER:
        if (w->faulty)
            kill_wrapper(item->node);
        break;
    case F_FREEZE:
        if (w->faulty)
            freeze(item->node);
        break;
    case F_STOP_KEEPER:
        if (w->faulty)
            stop_keeper(item->node, item->value);
        break;
    case F_QUIT:
        if (w->faulty)
            tell_to_quit(item->node, true);
        break;
    case F_HEAL:
        node->cut = false;
        node->slow[0] = node->slow[1] = 0;
        break;
    case F_REPLICATE:
        if (!w->database.throne.next_lease_ms || w->synchronous)
            replicate(0);
        if (!w->database.throne.next_lease_ms && chance(300))
            replicate(1);
        after(draw(w->lease_ms * 2), F_REPLICATE, 0, 0, 0);
        break;
    case F_FAILOVER:
        if (w->faulty && w->database_up)
            database_fails_over((int)item->value);
        break;
    case F_LEASE:
        if (w->faulty)
            change_lease(item->value);
        break;
    case F_RESUME_GROUP:
        (void)database_pause(&w->database, false);
        break;
    default:
        break;
    }
}

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

/* ---- one seed ---- */

static void make_world(uint64_t seed)
{
    static const int64_t leases[] = {1000, 2000, 6000};
    bool trace = w->trace;
    memset(w, 0, sizeof *w);
    freed = 0;
    w->trace = trace;
    w->random = seed * 0x2545f4914f6cdd1du + 1;
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
    /* two leases and two heartbeats of the group's lease in force, and as long as the first cools off: crashed schedulers
     * keep their members out of the line by design */
    int64_t lease = w->database.throne.lease_ms > w->database.throne.longest_lease_ms ? w->database.throne.lease_ms
                                                                                      : w->database.throne.longest_lease_ms;
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
    return node->alive && node->connected && s->state == SUCCESSION_STANDBY && row->present &&
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
    limit = w->now + bound_ms();
    while (!w->broken && (!heir() || heir() == from)) {
        if (heir() == from)
            ready = target && is_ready(target);
        step();
        if (w->now > limit)
            w->broken = "a switchover was not carried out";
    }
    if (w->broken)
        return;
    if (ready && heir() != target)
        w->broken = "a switchover went to another";
    if (!target)
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
