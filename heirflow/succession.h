/* The protocol's decisions, and nothing else: state + event + time -> orders. No I/O, no clock, no library.
 *
 * Rule numbers in succession.c are those of docs/protocol.md. All times are CLOCK_BOOTTIME in milliseconds. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SUCCESSION_UUID 37
#define SUCCESSION_IDENTITY 96
#define SUCCESSION_REASON 96
#define SUCCESSION_ORDERS 12

struct succession_settings {
    int64_t lease_ms;       /* until the group's own is known */
    int64_t heartbeat_ms;   /* 0: a sixth of the lease in force */
    int64_t fence_grace_ms; /* 0: half of the lease in force */
    int64_t stop_timeout_ms;
    int64_t restart_limit, restart_window_ms, restart_backoff_ms;
    int64_t unhealthy_window_ms; /* for schedulers that hang, which takes longer to find out; 0: restart_window_ms */
    bool no_heir;
};

enum succession_state {
    SUCCESSION_JOINING,    /* not registered in this life: registers as soon as it can */
    SUCCESSION_STANDBY,    /* in the line */
    SUCCESSION_ACCEDING,   /* asked for the throne, not answered */
    SUCCESSION_HEIR,       /* holds a term and runs its scheduler */
    SUCCESSION_STOPPING,   /* graceful: the scheduler was told to stop, renewals go on */
    SUCCESSION_FENCING,    /* the lease is running out or gone: kill timetable, no renewals */
    SUCCESSION_ABDICATING, /* tree dead, term closed, vacancy not yet confirmed by the database */
    SUCCESSION_LEAVING,    /* leaving the roster on the way out */
    SUCCESSION_LEFT,       /* the end */
};

enum succession_request {
    REQUEST_NONE,
    REQUEST_REGISTER,
    REQUEST_HEARTBEAT,
    REQUEST_ACCEDE,
    REQUEST_ABDICATE,
    REQUEST_LEAVE
};
enum succession_asked { ASKED_NOTHING, ASKED_SWITCHOVER, ASKED_RETIRE };

/* The tuple of rule 1, as one reply showed it. heir 0 means vacant. */
struct succession_throne {
    char identity[SUCCESSION_IDENTITY];
    int64_t heir;
    char incarnation[SUCCESSION_UUID]; /* "" while vacant */
    int64_t term, beat;
};

struct succession_observation {
    struct succession_throne throne;
    bool home;                  /* the answering server is that of the last accession */
    int64_t lease_ms;           /* in force */
    int64_t accession_lease_ms; /* what the next accession would put in force */
    int64_t wait_ms;            /* rule 5: the longest of the lease in force and those to come */
    bool paused, last_seat;     /* last_seat: this seat may accede although paused */
    bool known;                 /* our registration stands */
    int64_t member_id;
    char incarnation[SUCCESSION_UUID]; /* register only: of the registration that stands */
    int64_t rank;                      /* live members ahead of us */
    bool eldest, named, held_back, retired;
    enum succession_asked asked;
    int64_t beat_in_ms; /* when best to send the next heartbeat; -1 for no hint. Decides nothing */
};

enum event_type {
    EVENT_CONNECTED,    /* main connection ready */
    EVENT_DISCONNECTED, /* lost, or not to be had; the pending request, if any, is void */
    EVENT_REPLY,        /* to request `number`; `granted` and observation, see below */
    EVENT_REFUSED,      /* the database refused request `number` (SQL error, WARNING, unusable reply) */
    EVENT_WOKEN,        /* a notification for us: beat now */
    EVENT_PREPARED,     /* ORDER_PREPARE is done, or, with a reason, cannot be */
    EVENT_TIMER,        /* the time of ORDER_WAKE has come (early is fine) */
    EVENT_KEEPER_ECHO,  /* deadline_ms */
    EVENT_SCHEDULER_STARTED,
    EVENT_SCHEDULER_FAILED,    /* ended or could not start; its tree is dead, the keeper waits. reason */
    EVENT_SCHEDULER_UNHEALTHY, /* it runs, but its health command has failed too often. reason */
    EVENT_TREE_DEAD, /* the tree is dead and cannot come back under this term (keeper stopped or gone). reason: why the
                        keeper stopped it by itself, NULL if it was told to or died */
    EVENT_QUIT,      /* SIGTERM: hand over in peace and leave */
    EVENT_QUIT_NOW,  /* second SIGINT: the same without grace */
};

struct event {
    enum event_type type;
    int64_t now_ms;
    uint32_t number; /* of the request, for EVENT_REPLY and EVENT_REFUSED */
    bool granted;    /* register: taken; heartbeat: renewed; accede: acceded; abdicate, leave: done */
    const struct succession_observation *observation; /* NULL for replies to abdicate and leave */
    bool fence, inherit; /* accede: what has to come before the scheduler's start; see ORDER_PREPARE */
    bool unable;         /* accede: refused for what this member lacks, not for its place */
    const char *refusal; /* accede: the database's reason for granted == false */
    int64_t deadline_ms;
    const char *reason;
};

enum order_type {
    ORDER_SEND,    /* request, with the fields it needs; time-out: drop the connection at timeout_ms */
    ORDER_PREPARE, /* before the first start of a term: with fence, end the database sessions of other terms' schedulers,
                      give up at timeout_ms; with inherit, put in place what the last heir left. EVENT_PREPARED follows */
    ORDER_START_SCHEDULER, /* new keeper: term, deadline_ms */
    ORDER_SET_DEADLINE,    /* deadline_ms to the keeper */
    ORDER_RESTART_SCHEDULER,
    ORDER_END_RUN,        /* as stop, but the keeper stays for a restart; EVENT_SCHEDULER_FAILED follows */
    ORDER_STOP_SCHEDULER, /* SIGTERM now, SIGKILL at kill_at_ms */
    ORDER_KILL_KEEPER,    /* keeper first, then the tree; EVENT_TREE_DEAD follows */
    ORDER_TELL,           /* news of this member: tell, reason, term */
    ORDER_LOG,            /* something for the operator that is no news: tell, reason */
    ORDER_WAKE,           /* call EVENT_TIMER at at_ms (always present, at most once per step, replaces the last) */
    ORDER_EXIT,           /* left: end the process */
};

struct order {
    enum order_type type;
    enum succession_request request;
    uint32_t number;
    bool renew;                    /* heartbeat: for `term` */
    bool fence, inherit;           /* prepare */
    bool new_generation;           /* register: raise the generation and draw an incarnation before sending */
    bool seniority_yields;         /* accede */
    struct succession_throne seen; /* accede: the tuple to compare */
    int64_t highest_term;          /* accede */
    int64_t member_id;             /* abdicate: whose term (it may be that of a former registration) */
    char incarnation[SUCCESSION_UUID];
    int64_t term;
    int64_t timeout_ms;
    int64_t deadline_ms, kill_at_ms, at_ms;
    const char *tell;
    char reason[SUCCESSION_REASON];
};

struct orders {
    int count;
    struct order list[SUCCESSION_ORDERS];
};

struct succession {
    struct succession_settings settings;
    enum succession_state state;
    bool connected, quitting, hurry;
    bool look_first;    /* leaving was refused: only a heartbeat can tell what we hold */
    int64_t quit_by_ms; /* when the database has been waited for long enough */

    enum succession_request pending; /* the one outstanding request */
    uint32_t number;                 /* its number; replies to others are void */
    int64_t sent_ms;
    int64_t retry_at_ms; /* nothing but a renewal before, after a refusal */

    bool registered, fresh_generation; /* fresh: the next registration needs a generation of its own */
    int64_t member_id;
    char incarnation[SUCCESSION_UUID];

    bool observed;
    struct succession_observation view; /* the last reply */
    int64_t unchanged_since_ms;         /* rule 4: reply that first showed this tuple */
    int64_t identity_since_ms;          /* rule 5: reply that first showed this server */
    int64_t open_since_ms;              /* reply that first showed the group not paused */
    int64_t highest_term;               /* ever seen */
    int64_t beat_at_ms;                 /* next heartbeat */

    int64_t term; /* held or being closed; 0 for none */
    int64_t term_member;
    char term_incarnation[SUCCESSION_UUID];
    int64_t lease_ms;               /* of our term */
    int64_t deadline_ms, echoed_ms; /* end of the lease; the one the keeper has confirmed */
    bool preparing;                 /* ORDER_PREPARE is under way, nothing started yet */
    bool tree;                      /* a keeper exists and may have, or start, a scheduler under our term */
    bool running;                   /* the scheduler runs */
    bool unhealthy;                 /* its run is being ended because it hangs */
    bool killing;
    int64_t kill_at_ms;                /* stopping or fencing: when patience with the keeper ends */
    int64_t started_ms, idle_since_ms; /* last start of the scheduler; since when none runs */
    int64_t restarted_ms[16];          /* last restarts, a ring; restart_limit is below its size */
    int restarts;
    int64_t restart_at_ms; /* 0: none due */
    char closing_reason[SUCCESSION_REASON];
    int64_t cooling_until_ms, cooling_ms; /* crash back-off */
};

void succession_init(struct succession *self, const struct succession_settings *settings);

/* Digests one event and fills `orders` (cleared first). */
void succession_step(struct succession *self, const struct event *event, struct orders *orders);

/* NULL if this member may lead, else why not: "no_heir", "cooling off", "leaving" or a timing rule. For the heartbeat. */
const char *succession_why_ineligible(const struct succession *self, int64_t now_ms);

const char *succession_state_name(enum succession_state state);

/* Heartbeat and fence grace under a lease, with the defaults filled in. */
int64_t succession_heartbeat_ms(const struct succession_settings *settings, int64_t lease_ms);
int64_t succession_fence_grace_ms(const struct succession_settings *settings, int64_t lease_ms);

/* Fencing timetable before the end of a lease: SIGTERM at succession_term_at_ms, SIGKILL at succession_kill_at_ms, and all
 * reaped before the deadline minus a margin of 10 % of the lease. The time for SIGKILL and reaping (5 % of the lease, at
 * least 20 ms) comes out of the fence grace. Nothing is started once SIGTERM would be due. */
static inline int64_t succession_kill_at_ms(int64_t deadline_ms, int64_t lease_ms)
{
    int64_t reaping_ms = lease_ms / 20 > 20 ? lease_ms / 20 : 20;
    return deadline_ms - lease_ms / 10 - reaping_ms;
}

static inline int64_t succession_term_at_ms(int64_t deadline_ms, int64_t lease_ms, int64_t fence_grace_ms)
{
    int64_t graceful_ms = deadline_ms - lease_ms / 10 - fence_grace_ms;
    int64_t latest_ms = succession_kill_at_ms(deadline_ms, lease_ms);
    return graceful_ms < latest_ms ? graceful_ms : latest_ms;
}

/* NULL if the timings are safe under this lease, else the rule they break:
 * heartbeat <= lease/3, fence_grace + margin + 2*heartbeat <= lease. */
const char *succession_timing_fault(const struct succession_settings *settings, int64_t lease_ms);
