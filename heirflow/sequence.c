/* Owns the order of events. Never reads or prints any. */
#include "sequence.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void sequence_init(struct sequence *self, int64_t after)
{
    *self = (struct sequence){.after = after};
}

static const struct sequence_event *recall(const struct sequence *self, int64_t number)
{
    const struct sequence_event *event = &self->remembered[number % SEQUENCE_REMEMBERED];
    return number > 0 && event->number == number ? event : NULL;
}

static bool is_same(const struct sequence_event *event, const char *id)
{
    return strncmp(event->id, id, sizeof event->id - 1) == 0;
}

enum sequence_verdict sequence_judge(const struct sequence *self, int64_t number, const char *id)
{
    if (number > self->after)
        return number == self->after + 1 ? SEQUENCE_NEXT : SEQUENCE_GAP;
    const struct sequence_event *event = recall(self, number);
    return !event || is_same(event, id) ? SEQUENCE_KNOWN : SEQUENCE_FORKED;
}

void sequence_take(struct sequence *self, int64_t number, const char *id)
{
    struct sequence_event *event = &self->remembered[number % SEQUENCE_REMEMBERED];
    event->number = number;
    (void)snprintf(event->id, sizeof event->id, "%s", id);
    self->after = number;
}

int64_t sequence_common(const struct sequence *self, const struct sequence_event *told, int count, int64_t last)
{
    int64_t before = -1; /* all that can be compared differ; it goes back before them */
    for (int i = count - 1; i >= 0; i--) {
        if (told[i].number > self->after)
            continue;
        const struct sequence_event *event = recall(self, told[i].number);
        if (!event || is_same(event, told[i].id))
            return told[i].number; /* what was never passed on cannot differ */
        before = told[i].number - 1;
    }
    if (before >= 0)
        return before;
    return last < self->after ? last : self->after;
}

void sequence_rewind(struct sequence *self, int64_t after)
{
    for (int i = 0; i < SEQUENCE_REMEMBERED; i++) {
        if (self->remembered[i].number > after)
            self->remembered[i] = (struct sequence_event){0};
    }
    self->after = after;
}
