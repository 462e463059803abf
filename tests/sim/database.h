/* The SQL functions of sql/, in memory: the same replies to the same calls, with a clock that the caller sets. */
#pragma once

#include "succession.h"

#define DATABASE_SEATS 16

struct database_throne {
    bool exists;
    int64_t heir, incarnation, term, beat, lease_ms, next_lease_ms, longest_lease_ms;
    bool paused;
    int64_t identity; /* 0: none stored */
    int64_t renewed_at;
    int last_seat;
    int64_t named, named_at;
    enum succession_asked request;
    int target; /* seat a switchover should go to, 0 for the eldest */
};

struct database_member {
    bool exists, present, eligible, retired;
    bool says_eligible; /* in its last own words; the database may have judged otherwise since */
    int64_t generation, member_id, incarnation, seen_at, highest_term;
};

/* All that a failover can lose, so that a standby is a copy of it. */
struct database {
    struct database_throne throne;
    struct database_member roster[DATABASE_SEATS]; /* by seat, 1 based: 0 is unused */
    int64_t last_member_id;
    bool fences;      /* its members have fence roles */
    int gate;         /* seat whose scheduler may connect */
    int64_t identity; /* of the answering server: never copied back */
    int64_t now_ms;   /* its wall clock */
    uint64_t *random;
};

struct database_reply {
    bool granted, observed, fence, unable;
    struct succession_observation observation;
    const char *refusal;
};

struct database_caller {
    int seat;
    int64_t member_id, incarnation, generation;
    int64_t lease_ms, highest_term;
    bool eligible;
    bool unable; /* lacks what fencing needs */
};

/* Executes one ORDER_SEND. */
struct database_reply database_call(struct database *self, const struct database_caller *caller, const struct order *order);

/* The operator's functions: false if refused, or nothing to do. `target` is a seat, 0 for the eldest. */
bool database_switchover(struct database *self, int target);
bool database_pause(struct database *self, bool paused);
bool database_retire(struct database *self, int seat, bool retired);
bool database_set_lease(struct database *self, int64_t lease_ms);

uint64_t random_next(uint64_t *state);
