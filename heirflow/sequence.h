/* Which event comes next: each once and in order, out of two sources of which one may repeat, lose and delay, and the other
 * may lose its end in a failover and hand out the same numbers again. Pure: no I/O. */
#pragma once

#include <stdint.h>

enum { SEQUENCE_REMEMBERED = 512, SEQUENCE_ID = 40 };

struct sequence_event {
    int64_t number;
    char id[SEQUENCE_ID]; /* longer ones are cut */
};

struct sequence {
    int64_t after;                                         /* the last one passed on */
    struct sequence_event remembered[SEQUENCE_REMEMBERED]; /* the latest of them, by number */
};

enum sequence_verdict {
    SEQUENCE_NEXT,
    SEQUENCE_KNOWN,  /* passed on already */
    SEQUENCE_GAP,    /* others come before it */
    SEQUENCE_FORKED, /* another event has been passed on under that number */
};

void sequence_init(struct sequence *self, int64_t after);
enum sequence_verdict sequence_judge(const struct sequence *self, int64_t number, const char *id);
void sequence_take(struct sequence *self, int64_t number, const char *id);

/* What is told now, as far back as SEQUENCE_REMEMBERED before `after`, in order; and the highest number told, 0 for none.
 * Returns the number up to which that is what was passed on. */
int64_t sequence_common(const struct sequence *self, const struct sequence_event *told, int count, int64_t last);

/* Goes back to that one; what came after it is forgotten. */
void sequence_rewind(struct sequence *self, int64_t after);
