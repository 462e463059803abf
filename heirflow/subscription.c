/* Owns the consuming connection to RabbitMQ and its thread. Never looks into what it delivers, and keeps only so much of
 * it. */
#include "subscription.h"

#include <amqp.h>
#include <amqp_framing.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "brokers.h"
#include "clock.h"

enum {
    KEPT_BODIES = 4096,
    KEPT_BYTES = 8 << 20,
    QUEUE_MESSAGES = 10000,
    OPEN_MS = 5000,
    ANSWER_MS = 3000,
    WAIT_MS = 500,
    LEAST_PAUSE_MS = 500,
    MOST_PAUSE_MS = 8000,
    STOP_MS = 500,
    NEW_WORD_MS = 100, /* words so close are one */
};

struct body {
    struct body *next;
    size_t length;
    char *text;
};

struct subscription {
    char *group;
    struct brokers brokers;
    pthread_t thread;
    uv_async_t async;
    void (*on_change)(void *data);
    void *data;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t stop_asked;
    bool stopping;
    int fd; /* of the connection in use, -1 for none */
    struct subscription_state state;
    struct body *first, **end;
    size_t bodies, bytes;
};

/* ---- the thread ---- */

static bool stopping(struct subscription *self)
{
    (void)pthread_mutex_lock(&self->lock);
    bool answer = self->stopping;
    (void)pthread_mutex_unlock(&self->lock);
    return answer;
}

/* Under the lock. The handle is only closed once `stopping` is set. */
static void announce(struct subscription *self)
{
    if (!self->stopping)
        (void)uv_async_send(&self->async);
}

static void report_up(struct subscription *self)
{
    (void)pthread_mutex_lock(&self->lock);
    self->state.up = true;
    self->state.lives++;
    self->state.word_ms = clock_now_ms();
    self->state.fault.text[0] = '\0';
    announce(self);
    (void)pthread_mutex_unlock(&self->lock);
}

static void report_word(struct subscription *self, const struct broker *broker)
{
    int64_t word_ms = clock_now_ms() - broker_silent_ms(broker);
    (void)pthread_mutex_lock(&self->lock);
    if (word_ms - self->state.word_ms >= NEW_WORD_MS) {
        self->state.word_ms = word_ms;
        announce(self);
    }
    (void)pthread_mutex_unlock(&self->lock);
}

static void report_fault(struct subscription *self, const struct error *error)
{
    (void)pthread_mutex_lock(&self->lock);
    self->state.up = false;
    self->state.fault = *error;
    announce(self);
    (void)pthread_mutex_unlock(&self->lock);
}

/* What does not fit is lost, and missed by its sequence. */
static void keep(struct subscription *self, const amqp_bytes_t *bytes)
{
    struct body *body = calloc(1, sizeof *body);
    char *text = malloc(bytes->len + 1);
    if (!body || !text) {
        free(body);
        free(text);
        return;
    }
    memcpy(text, bytes->bytes, bytes->len);
    text[bytes->len] = '\0';
    *body = (struct body){.length = bytes->len, .text = text};
    (void)pthread_mutex_lock(&self->lock);
    bool fits = self->bodies < KEPT_BODIES && (self->bytes + bytes->len <= KEPT_BYTES || !self->first);
    if (fits) {
        *self->end = body;
        self->end = &body->next;
        self->bodies++;
        self->bytes += body->length;
        announce(self);
    }
    (void)pthread_mutex_unlock(&self->lock);
    if (fits)
        return;
    free(text);
    free(body);
}

static void use_socket(struct subscription *self, int fd)
{
    (void)pthread_mutex_lock(&self->lock);
    self->fd = fd;
    if (self->stopping && fd >= 0)
        (void)shutdown(fd, SHUT_RDWR); /* subscription_stop came before it knew of it */
    (void)pthread_mutex_unlock(&self->lock);
}

static bool check_reply(struct broker *broker, const char *doing, struct error *error)
{
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(broker->connection);
    return reply.reply_type == AMQP_RESPONSE_NORMAL || broker_fail_reply(broker, doing, reply, error);
}

/* Exclusive: it goes with the connection, and RabbitMQ 4 accepts it although it is not durable. */
static bool declare_queue(struct broker *broker, char queue[256], struct error *error)
{
    amqp_table_entry_t limit = {.key = amqp_cstring_bytes("x-max-length"),
                                .value = {.kind = AMQP_FIELD_KIND_I32, .value.i32 = QUEUE_MESSAGES}};
    amqp_table_t arguments = {.num_entries = 1, .entries = &limit};
    const amqp_queue_declare_ok_t *declared =
        amqp_queue_declare(broker->connection, BROKER_CHANNEL, amqp_empty_bytes, false, false, true, true, arguments);
    if (!declared)
        return check_reply(broker, "to declare a queue of our own", error) ||
               error_set_retryable(error, EXIT_CODE_BROKER, "broker %s named no queue", broker->name);
    (void)snprintf(queue, 256, "%.*s", (int)declared->queue.len, (const char *)declared->queue.bytes);
    return true;
}

static bool subscribe(struct subscription *self, struct broker *broker, struct error *error)
{
    struct timeval answer = {.tv_sec = ANSWER_MS / 1000};
    (void)amqp_set_rpc_timeout(broker->connection, &answer); /* fails for negative values only */
    char key[300], queue[256];
    (void)snprintf(key, sizeof key, "%s.#", self->group);
    if (!declare_queue(broker, queue, error))
        return false;
    amqp_queue_bind(broker->connection, BROKER_CHANNEL, amqp_cstring_bytes(queue),
                    amqp_cstring_bytes(self->brokers.settings.exchange), amqp_cstring_bytes(key), amqp_empty_table);
    if (!check_reply(broker, "to bind our queue to the exchange", error))
        return false;
    amqp_basic_consume(broker->connection, BROKER_CHANNEL, amqp_cstring_bytes(queue), amqp_empty_bytes, false, true, true,
                       amqp_empty_table);
    return check_reply(broker, "to consume from our queue", error);
}

/* Neither a message nor a time-out: the broker ends the channel, the connection or the consumer. */
static bool check_other(struct broker *broker, struct error *error)
{
    amqp_frame_t frame;
    struct timeval now = {0};
    int status = amqp_simple_wait_frame_noblock(broker->connection, &frame, &now);
    if (status != AMQP_STATUS_OK)
        return broker_fail_status(broker, "waiting for news", status, error);
    if (frame.frame_type != AMQP_FRAME_METHOD)
        return true;
    if (frame.payload.method.id == AMQP_BASIC_CANCEL_METHOD)
        return error_set_retryable(error, EXIT_CODE_BROKER, "broker %s has deleted our queue", broker->name);
    return broker_check_method(broker, "our consumer", &frame.payload.method, error);
}

static bool consume(struct subscription *self, struct broker *broker, struct error *error)
{
    while (!stopping(self)) {
        struct timeval wait = {.tv_usec = WAIT_MS * 1000L};
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(broker->connection);
        amqp_rpc_reply_t reply = amqp_consume_message(broker->connection, &envelope, &wait, 0);
        if (reply.reply_type == AMQP_RESPONSE_NORMAL) {
            keep(self, &envelope.message.body);
            amqp_destroy_envelope(&envelope);
            report_word(self, broker);
            continue;
        }
        bool library = reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION;
        if (library && reply.library_error == AMQP_STATUS_UNEXPECTED_STATE) {
            if (!check_other(broker, error))
                return false;
        } else if (!library || reply.library_error != AMQP_STATUS_TIMEOUT) {
            return broker_fail_reply(broker, "waiting for news", reply, error);
        }
        if (broker_silent_ms(broker) >= BROKER_HEARTBEAT_MS)
            return broker_fail_silent(broker, error);
        report_word(self, broker);
    }
    return true;
}

/* One life of a connection. True if it came as far as consuming. */
static bool live(struct subscription *self, struct error *error)
{
    struct broker *broker = NULL;
    if (!brokers_open(&self->brokers, OPEN_MS, &broker, error))
        return false;
    use_socket(self, broker->fd);
    bool subscribed = subscribe(self, broker, error), healthy = false;
    if (subscribed) {
        report_up(self);
        healthy = consume(self, broker, error);
    }
    brokers_pass(&self->brokers);
    use_socket(self, -1);
    broker_close(broker, healthy && !stopping(self));
    return subscribed;
}

static void pause_for(struct subscription *self, int64_t pause_ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += pause_ms / 1000;
    until.tv_nsec += pause_ms % 1000 * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)pthread_mutex_lock(&self->lock);
    while (!self->stopping && pthread_cond_clockwait(&self->stop_asked, &self->lock, CLOCK_MONOTONIC, &until) == 0)
        ;
    (void)pthread_mutex_unlock(&self->lock);
}

static void *run(void *data)
{
    struct subscription *self = data;
    int64_t pause_ms = LEAST_PAUSE_MS;
    for (size_t tried = 1; !stopping(self); tried++) {
        struct error error = {0};
        bool lived = live(self, &error);
        if (stopping(self))
            break;
        report_fault(self, &error);
        if (lived)
            pause_ms = LEAST_PAUSE_MS, tried = 0;
        if (tried % self->brokers.count != 0)
            continue; /* the others of the list at once */
        pause_for(self, pause_ms);
        pause_ms = pause_ms * 2 < MOST_PAUSE_MS ? pause_ms * 2 : MOST_PAUSE_MS;
    }
    return NULL;
}

/* ---- the loop ---- */

static void on_async(uv_async_t *async)
{
    struct subscription *self = async->data;
    self->on_change(self->data);
}

/* Signals are the loop's: the thread is born with all of them blocked but those of its own mistakes. */
static int start_thread(struct subscription *self)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    for (const int *crash = (const int[]){SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, 0}; *crash; crash++)
        (void)sigdelset(&all, *crash);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&self->thread, NULL, run, self);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

static void release(struct subscription *self)
{
    size_t length;
    for (char *text; (text = subscription_take(self, &length));)
        free(text);
    brokers_finish(&self->brokers);
    free(self->group);
    (void)pthread_cond_destroy(&self->stop_asked);
    (void)pthread_mutex_destroy(&self->lock);
    free(self);
}

static void on_closed(uv_handle_t *handle)
{
    release(handle->data);
}

bool subscription_start(uv_loop_t *loop, const struct config *config, const char *group, const char *client_name,
                        void (*on_change)(void *data), void *data, struct subscription **ret_subscription,
                        struct error *error)
{
    struct subscription *self = calloc(1, sizeof *self);
    if (!self)
        return error_set(error, EXIT_CODE_BROKER, "out of memory");
    self->group = strdup(group);
    self->on_change = on_change;
    self->data = data;
    self->fd = -1;
    self->end = &self->first;
    self->async.data = self;
    brokers_init(&self->brokers, config, client_name);
    (void)pthread_mutex_init(&self->lock, NULL);
    (void)pthread_cond_init(&self->stop_asked, NULL);
    int failed = uv_async_init(loop, &self->async, on_async);
    if (failed) {
        release(self);
        return error_set(error, EXIT_CODE_BROKER, "cannot watch the broker's thread: %s", uv_strerror(failed));
    }
    failed = start_thread(self);
    if (failed) {
        uv_close((uv_handle_t *)&self->async, on_closed);
        return error_set(error, EXIT_CODE_BROKER, "cannot start the broker's thread: %s", strerror(failed));
    }
    *ret_subscription = self;
    return true;
}

void subscription_state(struct subscription *self, struct subscription_state *ret_state)
{
    (void)pthread_mutex_lock(&self->lock);
    *ret_state = self->state;
    (void)pthread_mutex_unlock(&self->lock);
}

char *subscription_take(struct subscription *self, size_t *ret_length)
{
    (void)pthread_mutex_lock(&self->lock);
    struct body *body = self->first;
    if (body) {
        self->first = body->next;
        if (!self->first)
            self->end = &self->first;
        self->bodies--;
        self->bytes -= body->length;
    }
    (void)pthread_mutex_unlock(&self->lock);
    if (!body)
        return NULL;
    char *text = body->text;
    *ret_length = body->length;
    free(body);
    return text;
}

void subscription_stop(struct subscription *self)
{
    if (!self)
        return;
    (void)pthread_mutex_lock(&self->lock);
    self->stopping = true;
    if (self->fd >= 0)
        (void)shutdown(self->fd, SHUT_RDWR);
    (void)pthread_cond_signal(&self->stop_asked);
    (void)pthread_mutex_unlock(&self->lock);
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += STOP_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    /* a name look-up cannot be ended: then its thread keeps the memory until the program ends */
    bool ended = pthread_clockjoin_np(self->thread, NULL, CLOCK_MONOTONIC, &until) == 0;
    uv_close((uv_handle_t *)&self->async, ended ? on_closed : NULL);
}
