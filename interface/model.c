/* Owns what is known: keeps news once each, in order and bounded, and makes foreign text harmless. Never reads a clock,
 * a socket or JSON. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

bool model_init(struct model *self, const char *group)
{
    *self = (struct model){.whole_to = -1, .postgres.word_ms = -1, .rabbitmq.word_ms = -1};
    model_text(self->group, sizeof self->group, group);
    self->pool = calloc(MODEL_NEWS, sizeof *self->pool);
    return self->pool;
}

void model_finish(struct model *self)
{
    free(self->pool);
    free(self->snapshot.members);
    *self = (struct model){0};
}

/* ---- text */

/* Length of the well-formed UTF-8 sequence at `text`, 0 if it is none; its code point in *ret_point. */
static int decode(const unsigned char *text, uint32_t *ret_point)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    int length = text[0] < 0x80             ? 1
                 : (text[0] & 0xe0) == 0xc0 ? 2
                 : (text[0] & 0xf0) == 0xe0 ? 3
                 : (text[0] & 0xf8) == 0xf0 ? 4
                                            : 0;
    uint32_t point = length == 1 ? text[0] : text[0] & (0xffU >> (length + 1));
    for (int i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (text[i] & 0x3f);
    }
    if (!length || (length > 1 && point < lowest[length]) || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
        return 0;
    *ret_point = point;
    return length;
}

/* Control characters, and format characters that move or hide what stands beside them. */
static bool harmful(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point <= 0x9f) || point == 0xad || point == 0x61c || point == 0x180e ||
           (point >= 0x200b && point <= 0x200f) || (point >= 0x2028 && point <= 0x202e) ||
           (point >= 0x2060 && point <= 0x206f) || (point >= 0xfe00 && point <= 0xfe0f) || point == 0xfeff ||
           (point >= 0xfff9 && point <= 0xfffb) || (point & 0xfffe) == 0xfffe || point >= 0xe0000;
}

void model_text(char *target, size_t size, const char *source)
{
    const unsigned char *from = (const unsigned char *)(source ? source : "");
    size_t to = 0, mark = 0; /* mark: where "..." would have to begin */
    while (*from) {
        uint32_t point = 0;
        int length = decode(from, &point);
        bool show = length && !harmful(point);
        int width = show ? length : 1;
        if (to + (size_t)width >= size) {
            to = mark;
            for (int dots = 0; dots < 3 && to + 1 < size; dots++)
                target[to++] = '.';
            break;
        }
        if (show)
            memcpy(target + to, from, (size_t)length);
        else
            target[to] = '?';
        to += (size_t)width;
        if (to + 4 <= size)
            mark = to;
        from += length ? length : 1;
    }
    target[to] = '\0';
}

uint32_t model_next_char(const char **text)
{
    uint32_t point = 0;
    int length = decode((const unsigned char *)*text, &point);
    if (!length) {
        (*text)++;
        return '?';
    }
    if (point)
        *text += length;
    return point;
}

/* ---- news */

const struct model_event *model_event(const struct model *self, int index)
{
    return &self->pool[self->order[index]];
}

static struct model_event *event_at(struct model *self, int index)
{
    return &self->pool[self->order[index]];
}

/* The database's history goes no further than `to`: what was heard before `before_ms` and lies beyond is no part of it. */
static void history_ends(struct model *self, int64_t to, int64_t before_ms)
{
    for (int i = 0; i < self->count; i++) {
        struct model_event *event = event_at(self, i);
        if (event->sequence > to && event->received_ms <= before_ms)
            event->stray = true;
    }
    if (self->whole_to > to)
        self->whole_to = to;
}

/* `from`: where the event after whole_to may stand. */
static void advance(struct model *self, int from, int64_t now_ms)
{
    for (int i = from; i < self->count; i++) {
        const struct model_event *event = model_event(self, i);
        if (!event->stray && event->sequence > self->whole_to + 1)
            return;
        if (!event->stray && event->sequence == self->whole_to + 1) {
            self->whole_to++;
            self->whole_since_ms = now_ms;
        }
    }
}

/* FNV-1a: so that looking for an id does not touch every event. */
static uint64_t hash(const char *id)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (; *id; id++)
        hash = (hash ^ (unsigned char)*id) * 0x100000001b3;
    return hash;
}

static struct model_event *find(struct model *self, const char *id)
{
    uint64_t wanted = hash(id);
    for (int slot = self->count - 1; slot >= 0; slot--) {
        if (self->hashes[slot] == wanted && strcmp(self->pool[slot].id, id) == 0)
            return &self->pool[slot];
    }
    return NULL;
}

/* Before the first that is certainly later; strays decide nothing, so that a forged sequence cannot hide real news. */
static int place(const struct model *self, int64_t sequence)
{
    int at = self->count;
    for (int i = self->count - 1; i >= 0; i--) {
        const struct model_event *event = model_event(self, i);
        if (event->stray)
            continue;
        if (event->sequence <= sequence)
            break;
        at = i;
    }
    return at;
}

/* Returns where it stands now, -1 if nowhere. */
static int insert(struct model *self, const struct model_event *event)
{
    int at = place(self, event->sequence), slot = self->count;
    if (self->count == MODEL_NEWS) {
        if (at == 0)
            return -1; /* older than all that is kept */
        slot = self->order[0];
        memmove(self->order, self->order + 1, sizeof self->order[0] * (size_t)(at - 1));
        at--;
    } else {
        memmove(self->order + at + 1, self->order + at, sizeof self->order[0] * (size_t)(self->count - at));
        self->count++;
    }
    self->order[at] = slot;
    self->pool[slot] = *event;
    self->hashes[slot] = hash(event->id);
    return at;
}

bool model_take_event(struct model *self, const struct model_event *event, bool from_database, int64_t received_ms)
{
    struct model_event *known = find(self, event->id);
    if (known) {
        if (from_database) {
            known->stray = false;
            known->read_ms = received_ms;
        }
        return false;
    }
    struct model_event taken = *event;
    taken.arrival = ++self->arrivals;
    taken.received_ms = received_ms;
    taken.read_ms = from_database ? received_ms : 0;
    taken.stray = false;
    int at = insert(self, &taken);
    if (at >= 0 && self->whole_to >= 0 && taken.sequence == self->whole_to + 1)
        advance(self, at, received_ms);
    return true;
}

bool model_missing(const struct model *self, int64_t *ret_after)
{
    int64_t highest = self->has_snapshot ? self->snapshot.news_last : 0;
    bool behind = self->whole_to < 0 || highest - self->whole_to > MODEL_BEHIND;
    if (behind) {
        *ret_after = highest > MODEL_HISTORY ? highest - MODEL_HISTORY : 0;
        return self->has_snapshot && self->snapshot.exists;
    }
    for (int i = self->count - 1; i >= 0; i--) {
        const struct model_event *event = model_event(self, i);
        if (event->stray)
            continue;
        if (event->sequence > highest)
            highest = event->sequence;
        break; /* the others stand in order */
    }
    *ret_after = self->whole_to;
    return highest > self->whole_to;
}

void model_reread(struct model *self)
{
    self->whole_to = -1;
    self->oldest = 0;
}

void model_read(struct model *self, int64_t after, int64_t last, bool complete, int64_t asked_ms, int64_t now_ms)
{
    int64_t to = complete && self->snapshot.news_last > last ? self->snapshot.news_last : last;
    for (int i = 0; i < self->count; i++) {
        struct model_event *event = event_at(self, i);
        if (event->sequence > after && event->sequence <= to && event->read_ms < asked_ms && event->received_ms <= asked_ms)
            event->stray = true;
    }
    if (complete)
        history_ends(self, to, asked_ms);
    if (to > self->whole_to) {
        self->whole_to = to;
        self->whole_since_ms = now_ms;
    }
    advance(self, 0, now_ms);
}

static int64_t first_sequence(const struct model *self)
{
    for (int i = 0; i < self->count; i++) {
        if (!model_event(self, i)->stray)
            return model_event(self, i)->sequence;
    }
    return 0;
}

bool model_older(const struct model *self, int64_t rows, int64_t *ret_after)
{
    int64_t first = first_sequence(self);
    if (self->whole_to < 0 || first <= 1 || first <= self->oldest || self->count + rows > MODEL_NEWS)
        return false;
    *ret_after = first - 1 > rows ? first - 1 - rows : 0;
    return true;
}

void model_read_older(struct model *self, int64_t after)
{
    if (first_sequence(self) > after + 1)
        self->oldest = first_sequence(self);
}

/* ---- roster and links */

int model_find_member(const struct model *self, int64_t member_id, const char *node)
{
    int found = -1;
    for (int i = self->snapshot.member_count - 1; i >= 0; i--) {
        const struct model_member *member = &self->snapshot.members[i];
        if (member_id && member->member_id == member_id)
            return i;
        if (strcmp(member->node, node) == 0)
            found = i;
    }
    return found;
}

const struct model_member *model_heir(const struct model *self)
{
    const struct model_member *first = self->snapshot.members;
    return self->snapshot.member_count && first->role == MODEL_HEIR ? first : NULL;
}

void model_take_snapshot(struct model *self, struct model_snapshot *snapshot, int64_t asked_ms, int64_t received_ms)
{
    free(self->snapshot.members);
    self->snapshot = *snapshot;
    snapshot->members = NULL;
    snapshot->member_count = 0;
    self->has_snapshot = true;
    self->snapshot_ms = received_ms;
    if (self->whole_to > self->snapshot.news_last && self->whole_since_ms < asked_ms)
        history_ends(self, self->snapshot.news_last, asked_ms);
}

void model_link_try(struct model_link *link, int64_t now_ms)
{
    link->configured = true;
    if (!link->changed_ms)
        link->changed_ms = now_ms;
}

void model_link_word(struct model_link *link, int64_t now_ms)
{
    if (!link->up)
        link->changed_ms = now_ms;
    link->configured = link->up = true;
    link->word_ms = now_ms;
    link->fault[0] = '\0';
}

void model_link_down(struct model_link *link, const char *fault, int64_t now_ms)
{
    if (link->up || !link->changed_ms)
        link->changed_ms = now_ms;
    link->configured = true;
    link->up = false;
    model_text(link->fault, sizeof link->fault, fault);
}
