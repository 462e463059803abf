/* One simulated world, and what its parts have to do with each other. */
#pragma once

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
    W_INHERITED,
    W_SETTLED,
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
    bool alive, paused, frozen; /* frozen: wrapper and keeper, the whole node */
    uint32_t life, link;        /* of wrapper process and connection */
    bool connected, cut;
    bool unable;     /* its fence role is missing */
    int64_t slow[2]; /* to the database and back */
    int64_t generation, incarnation, member_id;
    int64_t wake_at;
    double rate;
    int64_t offset;
    struct keeper keeper;
    struct session session;
    uint32_t fence;    /* the latest preparation of a term */
    int to_prepare;    /* what of it is not done */
    bool disinherited; /* acceded, and what the last heir left is not in place */
    uint32_t settling; /* life of the dead keeper whose files are being stored; 0: of none */
    int64_t fence_began, fence_until, log_in_ms;
    int64_t accepted_term;
    int64_t second; /* of the count below */
    int requests;
};

struct standby {
    struct database database;
    int64_t timeline;
};

struct world {
    uint64_t random;
    int64_t now;
    int nodes;
    struct node node[NODES_MOST + 1]; /* by seat */
    struct database database;
    struct standby standby[STANDBYS]; /* the first follows the present primary, the second may still follow a former one */
    int64_t timeline, server_starts, wall; /* wall: what the primary's clock is off by */
    int64_t incarnations;
    bool database_up, synchronous, faulty, trace, explicit_timings, closing;
    bool estate;            /* there are files to inherit */
    int64_t lease_ms, loss; /* loss: per mille */
    int64_t highest_term;
    struct due queue[QUEUE_MOST];
    int queued, slots_used;
    uint64_t queue_order;
    const char *broken;
    int64_t accessions;
    int free_slots[QUEUE_MOST], freed;
};
extern struct world *w;

/* ---- world.c ---- */

int64_t draw(int64_t below);
bool chance(int64_t per_mille);
int64_t some_of(int64_t limit); /* at least half */
int64_t most(int64_t a, int64_t b);
void say(int node, const char *format, ...) __attribute__((format(printf, 2, 3)));
int64_t local(const struct node *node);             /* its clock */
int64_t truly(const struct node *node, int64_t at); /* true time at which its clock shows at least `at` */
void push(struct item item);
struct item pop(void);
void after(int64_t delay, enum what what, int node, uint32_t life, int64_t value);
int heir(void); /* whose tree runs, 0 if nobody's */
void check_alone(int runner);
void check_safety(int starter);

/* ---- nodes.c ---- */

void wrapper_event(int n, struct event event);
void wrapper_item(const struct item *item);
void wrapper_starts(int n);
void keeper_item(const struct item *item);
void tree_ends(int n, const char *why);
void tree_gone(int n, uint32_t life, const char *why);
void tree_follows(int n); /* after the keeper's death; told once the tree is dead as well */
void node_thaws(int n);

/* ---- server.c ---- */

void database_item(const struct item *item);
void database_fences(const struct item *item);
void scheduler_item(const struct item *item);
void end_session(int n);
void server_starts(void);
void replicate(int standby);
void replicate_to_all(void);
void database_restarts(void);
void database_fails_over(int standby);
void change_lease(int64_t lease_ms);
void step_clock(void);
void visit(void);
bool switch_over(int target);

/* ---- faults.c ---- */

void world_item(const struct item *item);
