/* Owns the relay: a thread that claims the group's outbox, hands it to RabbitMQ in order and records what the broker has
 * confirmed; the heir's also has old news removed. Never decides anything about the succession, never logs, and never makes
 * its caller wait. */
#include "news.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#include "brokers.h"
#include "cleanup.h"
#include "clock.h"
#include "outbox.h"
#include "publisher.h"

enum {
    RENEW_MS = 5000,
    CONNECT_MS = 5000,
    CALL_MS = 10000,
    CONFIRM_MS = 10000, /* without any progress the broker counts as hung */
    LINGER_MS = 60000,
    PUMP_MS = 1000, /* well within the broker's heartbeat */
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 10000,
    CUT_MS = 300, /* of the time to stop, kept for ending a call that hangs */
    LISTEN_EVERY = 64,
    FORGET_FIRST_MS = 3000, /* after an accession, when others are busy */
    FORGET_AGAIN_MS = 200,  /* while there is more */
    FORGET_EVERY_MS = 3600000,
    FORGET_ROWS = 500,
};

enum told { TOLD_NOTHING, TOLD_UNREACHABLE, TOLD_BLOCKED, TOLD_NO_DATABASE, TOLD_CONNECTED, TOLD_CAUGHT_UP };
enum outcome { RELAY_DONE, RELAY_MORE, RELAY_CLAIMED_ELSEWHERE, RELAY_FAILED };

/* What a reload may change. */
struct settings {
    struct brokers brokers;
    int64_t retention_days;
};

struct news {
    char name[64]; /* of both connections; PostgreSQL cuts it there */
    news_state_cb *on_state;
    void *data;

    /* shared with the owner */
    pthread_t thread;
    int wake_fd;
    atomic_int_least64_t member_id;
    atomic_int_least64_t reigning; /* the member while it is the heir, else 0 */
    atomic_bool woken;
    atomic_bool publishes;           /* there are brokers */
    atomic_int_least64_t stop_at_ms; /* 0: not stopping */
    pthread_mutex_t lock;            /* of the rest of this group; held while the callback runs */
    pthread_cond_t changed;
    int broker_fd;         /* -1: no connection */
    struct settings *next; /* not taken over yet, or NULL */
    bool ended, abandoned;

    /* the thread's own */
    struct settings *settings;
    struct broker *broker;
    struct publisher publisher;
    struct outbox outbox;
    enum told told;
    int64_t published; /* since last told "news-unreachable" */
    int64_t backoff_ms;
    bool pending;
    int64_t look_at_ms, linger_until_ms, forget_at_ms; /* 0: never */
    bool told_kept;
    bool cautious; /* the last event was refused: one at a time until one is not, for other queues get them all again */
};

static bool stopping(const struct news *self)
{
    return atomic_load(&self->stop_at_ms) != 0;
}

/* At most limit_ms, and not beyond the time to stop. */
static int64_t patience(const struct news *self, int64_t limit_ms)
{
    int64_t stop_at_ms = atomic_load(&self->stop_at_ms);
    int64_t left = stop_at_ms ? stop_at_ms - clock_now_ms() : limit_ms;
    return left < 1 ? 1 : left < limit_ms ? left : limit_ms;
}

static bool out_of_time(const struct news *self)
{
    int64_t stop_at_ms = atomic_load(&self->stop_at_ms);
    return stop_at_ms && clock_now_ms() >= stop_at_ms;
}

/* ---- telling ---- */

static void tell(struct news *self, enum told told, const char *detail)
{
    static const char *const words[] = {
        [TOLD_UNREACHABLE] = "news-unreachable", [TOLD_BLOCKED] = "news-unreachable",
        [TOLD_NO_DATABASE] = "news-unreachable", [TOLD_CONNECTED] = "news-connected",
        [TOLD_CAUGHT_UP] = "news-caught-up",
    };
    if (self->told == told)
        return;
    self->told = told;
    (void)pthread_mutex_lock(&self->lock);
    if (!self->abandoned)
        self->on_state(self->data, words[told], detail, self->published);
    (void)pthread_mutex_unlock(&self->lock);
    if (told != TOLD_CONNECTED)
        self->published = 0;
}

static void tell_progress(struct news *self)
{
    self->backoff_ms = 0;
    if (self->told != TOLD_CAUGHT_UP)
        tell(self, TOLD_CONNECTED, self->broker->name);
}

/* ---- settings ---- */

static struct settings *new_settings(const struct config *config, const char *name)
{
    struct settings *settings = calloc(1, sizeof *settings);
    if (!settings)
        abort(); /* a wrapper without memory: its keeper writes the will */
    brokers_init(&settings->brokers, config, name);
    settings->retention_days = config->retention_days;
    return settings;
}

static void free_settings(struct settings *settings)
{
    if (!settings)
        return;
    brokers_finish(&settings->brokers);
    free(settings);
}

static bool has_next_settings(struct news *self)
{
    (void)pthread_mutex_lock(&self->lock);
    bool has = self->next != NULL;
    (void)pthread_mutex_unlock(&self->lock);
    return has;
}

/* ---- connections ---- */

static void expose_broker(struct news *self, int fd)
{
    (void)pthread_mutex_lock(&self->lock);
    self->broker_fd = fd;
    (void)pthread_mutex_unlock(&self->lock);
}

static void close_broker(struct news *self, bool healthy)
{
    if (!self->broker)
        return;
    expose_broker(self, -1);
    broker_close(self->broker, healthy);
    self->broker = NULL;
}

/* It went away: others come first. */
static void lose_broker(struct news *self)
{
    if (self->broker)
        brokers_pass(&self->settings->brokers);
    close_broker(self, false);
}

static bool open_broker(struct news *self, struct error *error)
{
    if (!brokers_open(&self->settings->brokers, patience(self, CONNECT_MS), &self->broker, error))
        return false;
    expose_broker(self, self->broker->fd);
    if (publisher_init(&self->publisher, self->broker, self->settings->brokers.settings.exchange, error))
        return true;
    lose_broker(self);
    return false;
}

/* Every broker once. */
static bool ensure_broker(struct news *self, struct error *error)
{
    if (self->broker)
        return true;
    struct error one;
    error->text[0] = '\0';
    for (size_t i = 0; i < self->settings->brokers.count && !out_of_time(self); i++) {
        if (open_broker(self, &one))
            return true;
        (void)error_set_retryable(error, EXIT_CODE_BROKER, "%s%s%s", error->text, i ? "; " : "", one.text);
    }
    return false;
}

/* ---- one batch ---- */

struct batch {
    const PGresult *events;
    int count, sent, confirmed;
    int64_t member_id, after; /* all up to `after` were published before this batch */
    uint64_t first_tag;
    int64_t progress_ms, renewed_ms;
    bool ours, more;
};

static int64_t sequence_of(const struct batch *batch, int count)
{
    return count ? strtoll(PQgetvalue(batch->events, count - 1, OUTBOX_SEQUENCE), NULL, 10) : batch->after;
}

static bool send_next(struct news *self, struct batch *batch, struct error *error)
{
    const PGresult *events = batch->events;
    char routing_key[256]; /* longer ones the protocol cannot carry */
    (void)snprintf(routing_key, sizeof routing_key, "%s.%s", self->outbox.group,
                   PQgetvalue(events, batch->sent, OUTBOX_EVENT));
    struct message message = {
        .routing_key = routing_key,
        .id = PQgetvalue(events, batch->sent, OUTBOX_ID),
        .content_type = "application/cloudevents+json",
        .body = PQgetvalue(events, batch->sent, OUTBOX_BODY),
        .length = (size_t)PQgetlength(events, batch->sent, OUTBOX_BODY),
    };
    if (!publisher_send(&self->publisher, &message, error))
        return false;
    batch->sent++;
    return true;
}

static bool record_batch(struct news *self, struct batch *batch, struct error *error)
{
    batch->renewed_ms = clock_now_ms();
    return outbox_record(&self->outbox, batch->member_id, sequence_of(batch, batch->confirmed), patience(self, CALL_MS),
                         &batch->ours, &batch->more, error);
}

/* What has to be looked after while confirms are out. */
static bool watch_batch(struct news *self, struct batch *batch, bool was_blocked, struct error *error)
{
    int64_t now_ms = clock_now_ms();
    int confirmed = (int)(self->publisher.confirmed - batch->first_tag);
    if (confirmed > batch->confirmed || was_blocked)
        batch->progress_ms = now_ms;
    if (confirmed > batch->confirmed) {
        self->cautious = false;
        tell_progress(self);
    }
    self->published += confirmed - batch->confirmed;
    batch->confirmed = confirmed;
    if (self->publisher.blocked && !was_blocked) {
        (void)error_set_retryable(error, EXIT_CODE_BROKER,
                                  "broker %s takes no messages: %s; free memory or disk space there", self->broker->name,
                                  self->publisher.blocked_reason);
        tell(self, TOLD_BLOCKED, error->text);
    }
    if (now_ms - batch->progress_ms >= CONFIRM_MS && !self->publisher.blocked)
        return error_set_retryable(error, EXIT_CODE_BROKER,
                                   "broker %s confirms nothing for %d s; it hangs or is overloaded", self->broker->name,
                                   CONFIRM_MS / 1000);
    if (out_of_time(self))
        return error_set_retryable(error, EXIT_CODE_BROKER, "stopped before broker %s confirmed", self->broker->name);
    return now_ms - batch->renewed_ms < RENEW_MS || record_batch(self, batch, error);
}

static bool publish_batch(struct news *self, struct batch *batch, struct error *error)
{
    batch->first_tag = self->publisher.confirmed;
    batch->progress_ms = batch->renewed_ms = clock_now_ms();
    while (batch->confirmed < batch->count && batch->ours) {
        bool full = batch->sent == batch->count || (self->cautious && batch->sent > batch->confirmed);
        bool sending = !full && !self->publisher.blocked;
        if (sending && !send_next(self, batch, error))
            return false;
        if (sending && batch->sent % LISTEN_EVERY != 0)
            continue;
        bool was_blocked = self->publisher.blocked;
        if (!publisher_listen(&self->publisher, sending ? 0 : patience(self, PUMP_MS), error) ||
            !watch_batch(self, batch, was_blocked, error))
            return false;
    }
    return true;
}

/* The events that were confirmed before something failed need not be sent again. */
static void record_rest(struct news *self, struct batch *batch)
{
    struct error ignored;
    batch->confirmed = (int)(self->publisher.confirmed - batch->first_tag);
    bool ours, more;
    if (batch->confirmed)
        (void)outbox_record(&self->outbox, batch->member_id, sequence_of(batch, batch->confirmed), patience(self, CALL_MS),
                            &ours, &more, &ignored); /* sent again */
}

/* ---- one round: connect, claim, read, publish, record ---- */

static enum outcome fail(struct news *self, enum told told, const struct error *error)
{
    if (!out_of_time(self))
        tell(self, told, error->text);
    if (told == TOLD_UNREACHABLE)
        lose_broker(self);
    else
        close_broker(self, false);
    outbox_close(&self->outbox);
    return RELAY_FAILED;
}

static enum outcome relay_batch(struct news *self, struct batch *batch)
{
    struct error error;
    if (!publish_batch(self, batch, &error)) {
        self->cautious = self->publisher.refused;
        enum told told = error.exit_code == EXIT_CODE_DATABASE ? TOLD_NO_DATABASE : TOLD_UNREACHABLE;
        if (told == TOLD_UNREACHABLE)
            record_rest(self, batch);
        return fail(self, told, &error);
    }
    if (!record_batch(self, batch, &error))
        return fail(self, TOLD_NO_DATABASE, &error);
    if (batch->confirmed < batch->count)
        close_broker(self, false); /* what is still on its way must not be mistaken for a confirm of the next batch */
    if (!batch->ours)
        return RELAY_CLAIMED_ELSEWHERE;
    return batch->more ? RELAY_MORE : RELAY_DONE;
}

/* The broker comes first: a member that cannot reach it shall not keep the claim from one that can. */
static enum outcome relay(struct news *self)
{
    struct error error;
    if (!ensure_broker(self, &error))
        return fail(self, TOLD_UNREACHABLE, &error);
    struct batch batch = {.member_id = atomic_load(&self->member_id), .ours = true};
    cleanup_result PGresult *events = NULL;
    bool granted = false;
    struct outbox *outbox = &self->outbox;
    if (!outbox_claim(outbox, batch.member_id, patience(self, CALL_MS), &granted, &batch.after, &error) ||
        (granted && !outbox_read(outbox, batch.after, patience(self, CALL_MS), &events, &error)))
        return fail(self, TOLD_NO_DATABASE, &error);
    if (!granted)
        return RELAY_CLAIMED_ELSEWHERE;
    batch.events = events;
    batch.count = PQntuples(events);
    enum outcome outcome = batch.count ? relay_batch(self, &batch) : RELAY_DONE;
    if (outcome == RELAY_DONE) {
        tell_progress(self);
        tell(self, TOLD_CAUGHT_UP, NULL);
    }
    return outcome;
}

/* ---- what is old ---- */

static void tell_kept(struct news *self, const struct error *error)
{
    if (self->told_kept)
        return;
    self->told_kept = true;
    (void)pthread_mutex_lock(&self->lock);
    if (!self->abandoned)
        self->on_state(self->data, "news-kept", error->text, 0);
    (void)pthread_mutex_unlock(&self->lock);
}

static void forget(struct news *self)
{
    struct error error;
    int64_t removed = 0;
    if (outbox_forget(&self->outbox, atomic_load(&self->reigning), self->settings->retention_days,
                      self->settings->brokers.count > 0, FORGET_ROWS, patience(self, CALL_MS), &removed, &error)) {
        self->told_kept = false;
    } else {
        outbox_close(&self->outbox);
        if (!error.retryable)
            tell_kept(self, &error);
    }
    self->forget_at_ms = clock_now_ms() + (removed > 0 ? FORGET_AGAIN_MS : FORGET_EVERY_MS);
    self->linger_until_ms = clock_now_ms() + LINGER_MS;
}

/* The time for it comes and goes with the throne. */
static void plan_forgetting(struct news *self)
{
    bool ours = atomic_load(&self->reigning) != 0 && self->settings->retention_days > 0;
    if (!ours)
        self->forget_at_ms = 0;
    else if (!self->forget_at_ms)
        self->forget_at_ms = clock_now_ms() + FORGET_FIRST_MS;
}

/* ---- the thread ---- */

static void take_settings(struct news *self)
{
    (void)pthread_mutex_lock(&self->lock);
    struct settings *next = self->next;
    self->next = NULL;
    (void)pthread_mutex_unlock(&self->lock);
    if (!next)
        return;
    close_broker(self, true);
    free_settings(self->settings);
    self->settings = next;
    self->told = TOLD_NOTHING;
    self->backoff_ms = 0;
    self->cautious = false;
    self->forget_at_ms = 0;
    self->look_at_ms = 0;
    self->pending = self->pending && next->brokers.count > 0;
}

static void take_wake(struct news *self)
{
    if (atomic_exchange(&self->woken, false) && self->settings->brokers.count > 0)
        self->pending = true;
}

/* Sleeps until woken, stopped, at most wait_ms (-1 without end), or the broker says something. */
static void wait_for_events(struct news *self, int64_t wait_ms, bool broker_too)
{
    struct pollfd fds[] = {{.fd = self->wake_fd, .events = POLLIN},
                           {.fd = broker_too && self->broker ? self->broker->fd : -1, .events = POLLIN}};
    (void)poll(fds, 2, (int)wait_ms); /* early is fine */
    uint64_t count;
    if (fds[0].revents & POLLIN)
        (void)!read(self->wake_fd, &count, sizeof count); /* only empties it */
    take_wake(self);
}

/* Of two times, of which 0 means never. */
static int64_t sooner(int64_t one_ms, int64_t other_ms)
{
    return !one_ms || (other_ms && other_ms < one_ms) ? other_ms : one_ms;
}

static void idle(struct news *self)
{
    int64_t now_ms = clock_now_ms();
    int64_t until_ms = self->look_at_ms;
    plan_forgetting(self);
    until_ms = sooner(until_ms, self->linger_until_ms);
    until_ms = sooner(until_ms, self->forget_at_ms);
    until_ms = sooner(until_ms, self->broker ? now_ms + PUMP_MS : 0);
    wait_for_events(self, !until_ms ? -1 : until_ms > now_ms ? until_ms - now_ms : 0, true);
    now_ms = clock_now_ms();
    struct error ignored; /* a connection lost in idleness is told if the next one cannot be made */
    if (self->broker && !publisher_listen(&self->publisher, 0, &ignored))
        lose_broker(self);
    if (self->look_at_ms && now_ms >= self->look_at_ms)
        self->pending = true;
    plan_forgetting(self);
    if (self->forget_at_ms && now_ms >= self->forget_at_ms && !self->pending && !stopping(self))
        forget(self);
    if (self->linger_until_ms && now_ms >= self->linger_until_ms && !self->pending) {
        close_broker(self, true);
        outbox_close(&self->outbox);
        self->linger_until_ms = 0;
    }
}

static void back_off(struct news *self)
{
    self->backoff_ms = self->backoff_ms ? self->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (self->backoff_ms > BACKOFF_MAX_MS)
        self->backoff_ms = BACKOFF_MAX_MS;
    int64_t until_ms = clock_now_ms() + self->backoff_ms;
    for (int64_t now_ms = clock_now_ms(); now_ms < until_ms && !stopping(self) && !has_next_settings(self);
         now_ms = clock_now_ms())
        wait_for_events(self, until_ms - now_ms, false);
    self->pending = true;
}

static void work(struct news *self)
{
    self->pending = false;
    self->look_at_ms = 0;
    enum outcome outcome = relay(self);
    self->linger_until_ms = clock_now_ms() + LINGER_MS;
    switch (outcome) {
    case RELAY_DONE:
        break;
    case RELAY_MORE:
        self->pending = true;
        break;
    case RELAY_CLAIMED_ELSEWHERE:
        self->look_at_ms = clock_now_ms() + OUTBOX_CLAIM_MS;
        break;
    case RELAY_FAILED:
        back_off(self);
        break;
    }
}

static void free_news(struct news *self)
{
    free_settings(self->settings);
    free_settings(self->next);
    outbox_finish(&self->outbox);
    if (self->wake_fd >= 0)
        (void)close(self->wake_fd);
    (void)pthread_cond_destroy(&self->changed);
    (void)pthread_mutex_destroy(&self->lock);
    free(self);
}

static void *run(void *data)
{
    struct news *self = data;
    while (!stopping(self)) {
        take_settings(self);
        if (self->pending)
            work(self);
        else
            idle(self);
    }
    /* the last words of a member on its way out, as far as broker and database are at hand */
    take_wake(self);
    bool last = self->pending || self->broker;
    while (last && !out_of_time(self))
        last = relay(self) == RELAY_MORE;
    close_broker(self, !out_of_time(self));
    outbox_close(&self->outbox);
    (void)pthread_mutex_lock(&self->lock);
    self->ended = true;
    bool abandoned = self->abandoned;
    (void)pthread_cond_signal(&self->changed);
    (void)pthread_mutex_unlock(&self->lock);
    if (abandoned)
        free_news(self);
    return NULL;
}

/* ---- the owner's side ---- */

static bool start_thread(struct news *self, struct error *error)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the loop's */
    int status = pthread_create(&self->thread, NULL, run, self);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != 0)
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot start the news relay's thread: %s", strerror(status));
    (void)pthread_setname_np(self->thread, "news"); /* for top and gdb only */
    return true;
}

bool news_start(const struct config *config, news_state_cb *on_state, void *data, struct news **ret_news,
                struct error *error)
{
    struct news *self = calloc(1, sizeof *self);
    self->outbox = (struct outbox){.conninfo = strdup(config->postgres),
                                   .schema = strdup(config->schema),
                                   .group = strdup(config->group),
                                   .name = self->name};
    (void)snprintf(self->name, sizeof self->name, "heirflow-news:%.27s:%.20s", config->group, config->node);
    self->settings = new_settings(config, self->name);
    atomic_store(&self->publishes, config->rabbitmq.url_count > 0);
    self->on_state = on_state;
    self->data = data;
    self->broker_fd = -1;
    (void)pthread_mutex_init(&self->lock, NULL);
    (void)pthread_cond_init(&self->changed, NULL);
    self->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->wake_fd < 0)
        (void)error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot start the news relay: %s", strerror(errno));
    else if (start_thread(self, error)) {
        *ret_news = self;
        return true;
    }
    free_news(self);
    return false;
}

static void nudge(struct news *self)
{
    uint64_t one = 1;
    (void)!write(self->wake_fd, &one, sizeof one); /* fails only when it is readable anyway */
}

void news_configure(struct news *self, const struct config *config)
{
    if (!self)
        return;
    struct settings *next = new_settings(config, self->name);
    (void)pthread_mutex_lock(&self->lock);
    struct settings *passed_over = self->next;
    self->next = next;
    (void)pthread_mutex_unlock(&self->lock);
    free_settings(passed_over);
    atomic_store(&self->publishes, config->rabbitmq.url_count > 0);
    nudge(self);
}

void news_wake(struct news *self, int64_t member_id)
{
    if (!self || !atomic_load(&self->publishes))
        return;
    atomic_store(&self->member_id, member_id);
    atomic_store(&self->woken, true);
    nudge(self);
}

void news_reign(struct news *self, int64_t member_id)
{
    if (self && atomic_exchange(&self->reigning, member_id) != member_id)
        nudge(self);
}

static bool wait_ended(struct news *self, int64_t wait_ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += wait_ms % 1000 * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (!self->ended && pthread_cond_clockwait(&self->changed, &self->lock, CLOCK_MONOTONIC, &until) == 0)
        ;
    return self->ended;
}

void news_stop(struct news *self, int64_t timeout_ms)
{
    if (!self)
        return;
    int64_t cut_ms = timeout_ms > INT64_C(2) * CUT_MS ? CUT_MS : timeout_ms / 2;
    atomic_store(&self->stop_at_ms, clock_now_ms() + timeout_ms - cut_ms);
    nudge(self);
    (void)pthread_mutex_lock(&self->lock);
    bool ended = wait_ended(self, timeout_ms - cut_ms);
    if (!ended && self->broker_fd >= 0)
        (void)shutdown(self->broker_fd, SHUT_RDWR); /* ends a send that hangs */
    ended = ended || wait_ended(self, cut_ms);
    self->abandoned = !ended;
    pthread_t thread = self->thread; /* once abandoned, the thread may free at any time */
    (void)pthread_mutex_unlock(&self->lock);
    if (!ended) {
        (void)pthread_detach(thread); /* it hangs in a name look-up or a database call, and frees when that ends */
        return;
    }
    (void)pthread_join(thread, NULL);
    free_news(self);
}
