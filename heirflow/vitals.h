/* What the loop says of this member, as a value that other threads can keep: everything HTTP tells without the database. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Why a succession happened, in the words of the news. */
enum vitals_reason { VITALS_FIRST, VITALS_VACANT, VITALS_TAKEOVER, VITALS_REASONS };

struct vitals {
    int64_t taken_ms;      /* CLOCK_BOOTTIME, as all times here */
    const char *state;     /* succession_state_name */
    const char *scheduler; /* "running", "starting", "stopping", "exited", "failed"; NULL: there is none */
    bool in_line;          /* registered, and waiting for its turn */
    int64_t held_term;     /* 0: not the heir */
    int64_t deadline_ms;   /* end of its lease */
    int64_t term;          /* the group's latest known one */
    bool paused;
    int64_t lease_ms;                    /* in force */
    int64_t replied_ms;                  /* the database's last reply; 0: none yet */
    int64_t replies;                     /* so many so far, and how long they took together */
    int64_t waited_ms;                   /* (from the sending of each request) */
    int64_t unpublished;                 /* -1: unknown, or nobody publishes news here */
    int64_t restarts;                    /* of schedulers in place, since the wrapper began */
    int64_t successions[VITALS_REASONS]; /* accessions of this member since then */
};

/* The heir's word counts until its lease is over, whatever has become of the loop. */
static inline bool vitals_is_heir(const struct vitals *self, int64_t now_ms)
{
    return self->held_term != 0 && now_ms < self->deadline_ms;
}

/* Milliseconds since the database's last reply. */
static inline int64_t vitals_silence_ms(const struct vitals *self, int64_t now_ms)
{
    return self->replied_ms && now_ms > self->replied_ms ? now_ms - self->replied_ms : 0;
}

/* In the line, as the others see it. */
static inline bool vitals_is_standby(const struct vitals *self, int64_t now_ms)
{
    return self->in_line && self->replied_ms && vitals_silence_ms(self, now_ms) < self->lease_ms;
}
