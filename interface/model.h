/* What is known of one group: the last snapshot of its roster, its news, and how the two sources are doing.
 *
 * Pure: no I/O, no clock, no library. Times named now_ms, asked_ms and received_ms are CLOCK_BOOTTIME; times named at_ms
 * and database_ms are wall clock, UTC, since the epoch. All in milliseconds.
 *
 * Whatever comes from outside is hostile until it has passed model_text: after that it is valid UTF-8 without control,
 * format or direction characters, and fits. Nothing else in the interface has to clean text again. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_NAME 256
#define MODEL_NEWS 10000   /* events kept */
#define MODEL_BEHIND 2000  /* events to catch up with; further behind, only the latest are read */
#define MODEL_HISTORY 500  /* events to read at first; the older ones as somebody scrolls back to them */
#define MODEL_MEMBERS 5000 /* members kept; more are only counted */

enum model_role { MODEL_HEIR, MODEL_STANDBY, MODEL_RETIRED };

struct model_member {
    int64_t member_id, rank;
    char node[MODEL_NAME], address[64], version[32];
    char reason[96]; /* why it is not the heir; "" for the heir */
    enum model_role role;
    bool live;
    int64_t seen_ms_ago;      /* at the time of the snapshot; -1 unknown */
    int64_t registered_at_ms; /* 0 unknown */
    struct {
        char state[24];                       /* "" for none */
        int64_t pid, started_at_ms, restarts; /* 0 unknown */
    } scheduler;
};

struct model_snapshot {
    bool exists; /* the database knows the group */
    int64_t term, lease_ms;
    bool paused;
    char heir[MODEL_NAME];        /* "" while the throne is vacant */
    int64_t acceded_at_ms;        /* 0 unknown */
    int64_t database_ms;          /* the database's clock when it answered */
    int64_t news_last;            /* highest sequence in the database, 0 for none */
    struct model_member *members; /* in succession order; owned, from malloc */
    int member_count;             /* kept */
    int64_t member_total;         /* in the roster */
};

struct model_event {
    char id[64];
    int64_t sequence, at_ms;
    int64_t term; /* 0 for none */
    char event[32], node[MODEL_NAME], detail[192];
    /* set by the model */
    uint64_t arrival; /* 1, 2, 3 ... */
    int64_t received_ms;
    int64_t read_ms; /* when the database last showed it; 0 never */
    bool stray;      /* told by the broker, but no part of the database's history: forged, or lost by a failover */
};

struct model_link {
    bool configured, up;
    int64_t word_ms;    /* when it last said anything; -1 never */
    int64_t changed_ms; /* when `up` last changed, or the first attempt began */
    char fault[512];    /* why it is not up, or "" */
};

/* What the database lets this user do, each a function of the schema. */
enum model_right {
    MODEL_READ,
    MODEL_RETIRE,
    MODEL_SWITCHOVER,
    MODEL_PAUSE,
    MODEL_REMOVE,
    MODEL_DETAILS,
    MODEL_GROUPS,
    MODEL_RIGHTS
};

enum model_grant {
    MODEL_UNKNOWN,
    MODEL_GRANTED,
    MODEL_DENIED,
    MODEL_MISSING, /* the schema is older than this program */
};

struct model {
    char group[MODEL_NAME];
    struct model_link postgres, rabbitmq;
    enum model_grant grants[MODEL_RIGHTS];

    bool has_snapshot;
    struct model_snapshot snapshot;
    int64_t snapshot_ms; /* when it was received */

    struct model_event *pool;    /* MODEL_NEWS of them */
    uint64_t hashes[MODEL_NEWS]; /* of their ids */
    int order[MODEL_NEWS];       /* indices into pool, by sequence; strays stay where they were */
    int count;
    uint64_t arrivals;
    int64_t whole_to;       /* nothing known to be missing up to this sequence; -1: history not read yet */
    int64_t whole_since_ms; /* when that became so */
    int64_t oldest;         /* the database has none before this sequence; 0: not known */
    int64_t unreadable;     /* messages that were no news */
};

bool model_init(struct model *self, const char *group); /* false: out of memory */
void model_finish(struct model *self);                  /* safe on a zeroed struct */

/* Copies at most size - 1 bytes; what cannot be shown becomes '?', what does not fit ends in "...". NULL is "". */
void model_text(char *target, size_t size, const char *source);

/* The code point at *text, which moves past it; 0 at the end. For text that has passed model_text. */
uint32_t model_next_char(const char **text);

/* Takes over snapshot->members. asked_ms: when the question was sent. */
void model_take_snapshot(struct model *self, struct model_snapshot *snapshot, int64_t asked_ms, int64_t received_ms);

/* Takes one event; true if it was new. from_database: it is certainly part of the history. */
bool model_take_event(struct model *self, const struct model_event *event, bool from_database, int64_t received_ms);

/* True if news are known to be missing and the database has them: read those after *ret_after. */
bool model_missing(const struct model *self, int64_t *ret_after);

/* Another server may answer from now on: read the history again. */
void model_reread(struct model *self);

/* A reading of the news after `after`, asked at asked_ms, has brought everything up to `last` (== after for nothing);
 * complete: the database has none beyond. Its events have been taken before. */
void model_read(struct model *self, int64_t after, int64_t last, bool complete, int64_t asked_ms, int64_t now_ms);

/* Are there older events than those kept, and room for them? Then those after *ret_after are to be read. */
bool model_older(const struct model *self, int64_t rows, int64_t *ret_after);

/* They have been read and taken; what is still missing after `after` is nowhere. */
void model_read_older(struct model *self, int64_t after);

/* The member with this id, else the first of this node, else -1: a registration anew changes the id. */
int model_find_member(const struct model *self, int64_t member_id, const char *node);

/* The heir, alive or with a lease that has lapsed; NULL: there is none. */
const struct model_member *model_heir(const struct model *self);

/* The index-th oldest event. */
const struct model_event *model_event(const struct model *self, int index);

void model_link_try(struct model_link *link, int64_t now_ms);
void model_link_word(struct model_link *link, int64_t now_ms); /* it said something: it is up */
void model_link_down(struct model_link *link, const char *fault, int64_t now_ms);
