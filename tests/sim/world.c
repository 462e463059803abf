/* Owns the clockwork: chance, time, what is to happen when, and what must never be seen. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "world.h"

struct world *w;

static struct item slots[QUEUE_MOST];

int64_t draw(int64_t below)
{
    return below > 0 ? (int64_t)(random_next(&w->random) % (uint64_t)below) : 0;
}

int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t some_of(int64_t limit)
{
    return limit - draw(limit / 2);
}

bool chance(int64_t per_mille)
{
    return draw(1000) < per_mille;
}

void say(int node, const char *format, ...)
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

int64_t local(const struct node *node)
{
    return node->offset + (int64_t)((double)w->now * node->rate);
}

int64_t truly(const struct node *node, int64_t at)
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

void push(struct item item)
{
    if (w->queued == QUEUE_MOST) {
        w->broken = "the simulation's queue is full";
        return;
    }
    struct due due = {.at = item.at, .order = w->queue_order++};
    due.slot = w->freed ? w->free_slots[--w->freed] : w->slots_used++;
    slots[due.slot] = item;
    int i = w->queued++;
    for (; i > 0 && before(&due, &w->queue[(i - 1) / 2]); i = (i - 1) / 2)
        w->queue[i] = w->queue[(i - 1) / 2];
    w->queue[i] = due;
}

struct item pop(void)
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
    w->free_slots[w->freed++] = top.slot;
    return slots[top.slot];
}

void after(int64_t delay, enum what what, int node, uint32_t life, int64_t value)
{
    push((struct item){.at = w->now + delay, .what = what, .node = node, .life = life, .value = value});
}

/* ---- safety ---- */

int heir(void)
{
    for (int i = 1; i <= w->nodes; i++) {
        if (w->node[i].keeper.tree)
            return i;
    }
    return 0;
}

void check_alone(int runner)
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

void check_safety(int starter)
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
