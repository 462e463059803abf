/* Owns what goes wrong, and what heals again. */
#include "world.h"

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

void world_item(const struct item *item)
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
