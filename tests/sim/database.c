/* Owns the simulated schema. Mirrors sql/ function by function and must change with it. */
#include "database.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_MS 86400000

uint64_t random_next(uint64_t *state)
{
    /* splitmix64, Steele, Lea and Flood 2014 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t wait_ms(const struct database_throne *throne)
{
    return throne->longest_lease_ms > throne->lease_ms ? throne->longest_lease_ms : throne->lease_ms;
}

static bool is_holder(const struct database *self, const struct database_member *member)
{
    return member->exists && member->member_id == self->throne.heir && member->incarnation == self->throne.incarnation;
}

static bool is_live(const struct database *self, const struct database_member *member)
{
    int64_t lease = self->throne.lease_ms;
    int64_t seen_at = is_holder(self, member) ? self->throne.renewed_at : member->seen_at;
    return member->exists && member->present && seen_at >= self->now_ms - lease && seen_at <= self->now_ms + lease / 3;
}

static bool may_lead(const struct database *self, const struct database_member *member)
{
    return member->eligible && is_live(self, member) && !is_holder(self, member) && !member->retired;
}

static bool someone_named(const struct database *self)
{
    const struct database_throne *throne = &self->throne;
    if (throne->heir || !throne->named || self->now_ms < throne->named_at ||
        self->now_ms > throne->named_at + throne->lease_ms / 3)
        return false;
    for (int i = 1; i < DATABASE_SEATS; i++) {
        if (self->roster[i].member_id == throne->named && may_lead(self, &self->roster[i]))
            return true;
    }
    return false;
}

static int64_t elders(const struct database *self, int64_t member_id, bool leading)
{
    int64_t count = 0;
    for (int i = 1; i < DATABASE_SEATS; i++) {
        const struct database_member *other = &self->roster[i];
        if (other->exists && other->member_id < member_id &&
            (leading ? may_lead(self, other) : is_live(self, other) && other->member_id != self->throne.heir))
            count++;
    }
    return count;
}

static struct database_member *find(struct database *self, const struct database_caller *caller)
{
    struct database_member *me = &self->roster[caller->seat];
    return me->exists && me->present && me->incarnation == caller->incarnation ? me : NULL;
}

static struct succession_observation observe(struct database *self, const struct database_caller *caller)
{
    struct database_throne *throne = &self->throne;
    const struct database_member *me = find(self, caller);
    bool named = someone_named(self);
    if (!throne->exists) /* lost by a failover: shown as a new one until somebody registers */
        throne->lease_ms = caller->lease_ms;
    struct succession_observation seen = {
        .throne = {.heir = throne->heir, .term = throne->term, .beat = throne->beat},
        .home = throne->identity == self->identity,
        .lease_ms = throne->lease_ms,
        .accession_lease_ms = throne->next_lease_ms ? throne->next_lease_ms : throne->lease_ms,
        .wait_ms = wait_ms(throne),
        .paused = throne->paused,
        .last_seat = throne->last_seat == caller->seat,
        .known = me != NULL && throne->exists,
        .member_id = me ? me->member_id : 0,
        .rank = me ? elders(self, me->member_id, false) : 0,
        .eldest = !me || elders(self, me->member_id, true) == 0,
        .named = named && me && throne->named == me->member_id,
        .held_back = named && (!me || throne->named != me->member_id),
        .retired = me && me->retired,
        .asked =
            me && throne->heir == me->member_id && throne->incarnation == me->incarnation ? throne->request : ASKED_NOTHING,
        .beat_in_ms = -1,
    };
    (void)snprintf(seen.throne.identity, sizeof seen.throne.identity, "server-%" PRId64, self->identity);
    if (throne->heir) {
        int64_t heartbeat = throne->lease_ms / 6, since = self->now_ms - throne->renewed_at;
        (void)snprintf(seen.throne.incarnation, sizeof seen.throne.incarnation, "%" PRId64, throne->incarnation);
        since = since > 0 ? since : 0;
        seen.beat_in_ms =
            heartbeat - since % heartbeat + 15 + (seen.rank * 3 < heartbeat / 3 ? seen.rank * 3 : heartbeat / 3);
    }
    return seen;
}

static void vacate(struct database *self)
{
    struct database_throne *throne = &self->throne;
    throne->heir = throne->incarnation = 0;
    throne->request = ASKED_NOTHING;
    throne->target = 0;
    throne->named = 0;
    throne->named_at = self->now_ms;
}

/* The switchover's target if it may lead, else the eldest who may, judged while the holder still holds, as in SQL. */
static int64_t successor(const struct database *self)
{
    int64_t best = 0;
    for (int i = 1; i < DATABASE_SEATS; i++) {
        const struct database_member *other = &self->roster[i];
        if (!other->exists || !may_lead(self, other))
            continue;
        if (i == self->throne.target)
            return other->member_id;
        if (!best || other->member_id < best)
            best = other->member_id;
    }
    return best;
}

static void end_term(struct database *self)
{
    int64_t named = self->throne.paused ? 0 : successor(self);
    for (int i = 1; i < DATABASE_SEATS; i++) {
        struct database_member *member = &self->roster[i];
        if (member->member_id == self->throne.heir && member->incarnation == self->throne.incarnation)
            member->eligible = false, member->seen_at = self->now_ms; /* until it registers at the end of the line */
    }
    vacate(self);
    self->throne.named = named;
}

/* Who has not been seen for a day, but never the holder; that its node is retired is kept elsewhere. */
static void purge(struct database *self, int but)
{
    for (int i = 1; i < DATABASE_SEATS; i++) {
        struct database_member *member = &self->roster[i];
        if (i != but && member->exists && member->seen_at < self->now_ms - DAY_MS && !is_holder(self, member))
            *member = (struct database_member){.retired = member->retired};
    }
}

static struct database_reply do_register(struct database *self, const struct database_caller *caller)
{
    struct database_throne *throne = &self->throne;
    struct database_member *me = &self->roster[caller->seat];
    struct database_caller as = *caller;
    if (!throne->exists)
        *throne = (struct database_throne){.exists = true, .lease_ms = caller->lease_ms};
    if (me->exists && (me->generation > caller->generation || (me->generation == caller->generation && !me->present)))
        return (struct database_reply){.observed = true, .observation = observe(self, caller), .refusal = "superseded"};
    if (!me->exists || me->generation != caller->generation) {
        purge(self, caller->seat);
        if (is_holder(self, me))
            end_term(self);
        bool retired = me->retired;
        *me = (struct database_member){
            .exists = true,
            .present = true,
            .eligible = caller->eligible,
            .says_eligible = caller->eligible,
            .retired = retired,
            .generation = caller->generation,
            .member_id = ++self->last_member_id,
            .incarnation = caller->incarnation,
            .seen_at = self->now_ms,
            .highest_term = caller->highest_term,
        };
    }
    as.incarnation = me->incarnation;
    struct database_reply reply = {.granted = true, .observed = true, .observation = observe(self, &as)};
    (void)snprintf(reply.observation.incarnation, sizeof reply.observation.incarnation, "%" PRId64, me->incarnation);
    return reply;
}

static struct database_reply do_heartbeat(struct database *self, const struct database_caller *caller,
                                          const struct order *order)
{
    struct database_throne *throne = &self->throne;
    struct database_member *me = find(self, caller);
    bool news = me && (me->says_eligible != caller->eligible || me->highest_term != caller->highest_term);
    bool renewed = order->renew && throne->heir == caller->member_id && throne->incarnation == caller->incarnation &&
                   throne->term == order->term;
    if (renewed) {
        throne->beat++;
        throne->renewed_at = self->now_ms;
    } else if (me) {
        me->eligible = caller->eligible;
    }
    if (me && (news || !renewed)) { /* a renewal writes the roster only when there is something to write */
        me->seen_at = self->now_ms;
        me->says_eligible = caller->eligible;
        me->highest_term = caller->highest_term;
    }
    return (struct database_reply){.granted = renewed, .observed = true, .observation = observe(self, caller)};
}

static const char *refuse_accession(struct database *self, const struct database_caller *caller, const struct order *order)
{
    const struct database_throne *throne = &self->throne;
    const struct succession_throne *seen = &order->seen;
    const struct database_member *me = find(self, caller);
    struct succession_throne now = observe(self, caller).throne;
    if (!me || me->member_id != caller->member_id)
        return "unknown";
    if (strcmp(now.identity, seen->identity) != 0 || now.heir != seen->heir ||
        strcmp(now.incarnation, seen->incarnation) != 0 || now.term != seen->term || now.beat != seen->beat)
        return "changed";
    if (throne->heir == caller->member_id && throne->incarnation == caller->incarnation)
        return "held";
    if (me->retired)
        return "retired";
    if (throne->paused && throne->last_seat != caller->seat)
        return "paused";
    if (throne->paused || order->seniority_yields)
        return NULL;
    bool named = someone_named(self);
    if (named && throne->named == caller->member_id)
        return NULL;
    if (named)
        return "held-back";
    return elders(self, caller->member_id, true) ? "not-eldest" : NULL;
}

static struct database_reply do_accede(struct database *self, const struct database_caller *caller,
                                       const struct order *order)
{
    struct database_throne *throne = &self->throne;
    const char *refusal = refuse_accession(self, caller, order);
    struct database_caller nobody = *caller;
    nobody.lease_ms = 6000; /* an accession does not tell the caller's: what a group that is gone is shown with */
    if (refusal)
        return (struct database_reply){.observed = true, .observation = observe(self, &nobody), .refusal = refusal};
    if (caller->unable)
        return (struct database_reply){
            .observed = true, .unable = true, .observation = observe(self, &nobody), .refusal = "no such fence role"};
    throne->term += throne->identity == self->identity ? 1 : 1000 + (int64_t)(random_next(self->random) % 1000);
    if (throne->term <= order->highest_term)
        throne->term = order->highest_term + 1;
    for (int i = 1; i < DATABASE_SEATS; i++) {
        if (self->roster[i].exists && throne->term <= self->roster[i].highest_term)
            throne->term = self->roster[i].highest_term + 1;
    }
    throne->heir = caller->member_id;
    throne->incarnation = caller->incarnation;
    throne->beat = 0;
    throne->lease_ms = throne->next_lease_ms ? throne->next_lease_ms : throne->lease_ms;
    throne->next_lease_ms = throne->longest_lease_ms = 0;
    throne->identity = self->identity;
    throne->renewed_at = self->now_ms;
    throne->last_seat = caller->seat;
    throne->named = 0;
    throne->request = ASKED_NOTHING;
    throne->target = 0;
    self->gate = caller->seat;
    return (struct database_reply){
        .granted = true, .observed = true, .fence = self->fences, .observation = observe(self, caller)};
}

struct database_reply database_call(struct database *self, const struct database_caller *caller, const struct order *order)
{
    struct database_throne *throne = &self->throne;
    struct database_member *me;
    switch (order->request) {
    case REQUEST_REGISTER:
        return do_register(self, caller);
    case REQUEST_HEARTBEAT:
        return do_heartbeat(self, caller, order);
    case REQUEST_ACCEDE:
        return do_accede(self, caller, order);
    case REQUEST_ABDICATE:
        if (throne->heir == order->member_id && throne->term == order->term &&
            throne->incarnation == strtoll(order->incarnation, NULL, 10))
            end_term(self);
        return (struct database_reply){.granted = true};
    case REQUEST_LEAVE:
        me = find(self, caller);
        if (me && throne->heir == me->member_id && throne->incarnation == me->incarnation)
            return (struct database_reply){.granted = false};
        if (me)
            me->present = false;
        return (struct database_reply){.granted = true};
    case REQUEST_NONE:
        break;
    }
    abort();
}

bool database_switchover(struct database *self, int target)
{
    struct database_throne *throne = &self->throne;
    const struct database_member *member = &self->roster[target];
    bool possible = target ? member->exists && may_lead(self, member) : successor(self) != 0;
    if (!throne->heir || throne->paused || !possible)
        return false;
    throne->request = ASKED_SWITCHOVER;
    throne->target = target;
    return true;
}

bool database_pause(struct database *self, bool paused)
{
    struct database_throne *throne = &self->throne;
    if (!throne->exists || throne->paused == paused)
        return false;
    throne->paused = paused;
    throne->request = ASKED_NOTHING;
    throne->target = 0;
    for (int i = 1; i < DATABASE_SEATS; i++) {
        if (!paused && is_holder(self, &self->roster[i]) && self->roster[i].retired)
            throne->request = ASKED_RETIRE;
    }
    return true;
}

bool database_retire(struct database *self, int seat, bool retired)
{
    struct database_throne *throne = &self->throne;
    struct database_member *member = &self->roster[seat];
    bool heir = is_holder(self, member);
    if (!throne->exists || (retired && heir && throne->paused))
        return false;
    if (!retired && member->retired && !heir)
        member->present = false; /* so that it registers at the end of the line */
    member->retired = retired;
    if (heir && retired) {
        throne->request = ASKED_RETIRE;
        throne->target = 0;
    } else if (heir && throne->request == ASKED_RETIRE) {
        throne->request = ASKED_NOTHING;
    }
    return true;
}

bool database_set_lease(struct database *self, int64_t lease_ms)
{
    const struct database_throne *throne = &self->throne;
    if (!throne->exists || (throne->next_lease_ms ? throne->next_lease_ms : throne->lease_ms) == lease_ms)
        return false;
    self->throne.next_lease_ms = lease_ms;
    if (lease_ms > self->throne.longest_lease_ms)
        self->throne.longest_lease_ms = lease_ms;
    return true;
}
