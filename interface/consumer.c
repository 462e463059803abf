/* Owns the consuming connection to RabbitMQ and its thread. Never touches the model from that thread: what has arrived is
 * decoded there and handed over through a bounded, locked buffer. */
#include "consumer.h"

#include <amqp.h>
#include <amqp_framing.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "brokers.h"
#include "clock.h"
#include "decode.h"

enum {
    BUFFER = 2048, /* events; what does not fit is missed by its sequence and read from Postgres */
    OPEN_MS = 5000,
    WAIT_MS = 500,
    ASK_AFTER_MS = 2000, /* of silence: is it still there? */
    ANSWER_MS = 3000,
    LEAST_PAUSE_MS = 500,
    MOST_PAUSE_MS = 8000,
    STOP_MS = 500,
    QUEUE_MESSAGES = 10000,
};

struct consumer {
    const struct config *config;
    char group[MODEL_NAME]; /* the configuration may be shown another by the time a look-up ends */
    pthread_t thread;
    uv_async_t async;
    void (*on_change)(void *data);
    void *data;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t stop_asked;
    bool stopping;
    int fd; /* of the connection in use, -1 for none */
    bool up;
    int64_t word_ms; /* 0: nothing since the last collection */
    char fault[sizeof(((struct error *)NULL)->text)];
    bool has_fault;
    int64_t unreadable;
    int count;
    struct model_event events[BUFFER];
};

/* ---- the thread */

static bool stopping(struct consumer *self)
{
    (void)pthread_mutex_lock(&self->lock);
    bool answer = self->stopping;
    (void)pthread_mutex_unlock(&self->lock);
    return answer;
}

/* Under the lock. The handle is only closed once `stopping` is set. */
static void announce(struct consumer *self)
{
    if (!self->stopping)
        (void)uv_async_send(&self->async);
}

static void report_word(struct consumer *self)
{
    (void)pthread_mutex_lock(&self->lock);
    self->up = true;
    self->word_ms = clock_now_ms();
    self->has_fault = false;
    announce(self);
    (void)pthread_mutex_unlock(&self->lock);
}

static void report_fault(struct consumer *self, const struct error *error)
{
    (void)pthread_mutex_lock(&self->lock);
    self->up = false;
    self->has_fault = true;
    memcpy(self->fault, error->text, sizeof self->fault);
    announce(self);
    (void)pthread_mutex_unlock(&self->lock);
}

static void report_message(struct consumer *self, const amqp_bytes_t *body)
{
    struct model_event event;
    enum decode_verdict verdict = decode_event(body->bytes, body->len, self->group, &event);
    (void)pthread_mutex_lock(&self->lock);
    if (verdict == DECODE_UNREADABLE)
        self->unreadable++;
    else if (verdict == DECODE_NEWS && self->count < BUFFER)
        self->events[self->count++] = event;
    self->word_ms = clock_now_ms();
    announce(self);
    (void)pthread_mutex_unlock(&self->lock);
}

static void use_socket(struct consumer *self, int fd)
{
    (void)pthread_mutex_lock(&self->lock);
    self->fd = fd;
    if (self->stopping && fd >= 0)
        (void)shutdown(fd, SHUT_RDWR); /* consumer_stop came before it knew of it */
    (void)pthread_mutex_unlock(&self->lock);
}

static bool check_reply(struct broker *broker, const char *doing, struct error *error)
{
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(broker->connection);
    return reply.reply_type == AMQP_RESPONSE_NORMAL || broker_fail_reply(broker, doing, reply, error);
}

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

static bool subscribe(struct consumer *self, struct broker *broker, char queue[256], struct error *error)
{
    struct timeval answer = {.tv_sec = ANSWER_MS / 1000};
    (void)amqp_set_rpc_timeout(broker->connection, &answer); /* fails for negative values only */
    char key[300];
    (void)snprintf(key, sizeof key, "%s.#", self->group);
    if (!declare_queue(broker, queue, error))
        return false;
    amqp_queue_bind(broker->connection, BROKER_CHANNEL, amqp_cstring_bytes(queue),
                    amqp_cstring_bytes(self->config->rabbitmq.exchange), amqp_cstring_bytes(key), amqp_empty_table);
    if (!check_reply(broker, "to bind our queue to the exchange", error))
        return false;
    amqp_basic_consume(broker->connection, BROKER_CHANNEL, amqp_cstring_bytes(queue), amqp_empty_bytes, false, true, true,
                       amqp_empty_table);
    return check_reply(broker, "to consume from our queue", error);
}

/* An answer to a harmless question: the idle connection of a hung broker looks like that of a healthy one. */
static bool ask(struct broker *broker, const char *queue, struct error *error)
{
    amqp_queue_declare(broker->connection, BROKER_CHANNEL, amqp_cstring_bytes(queue), true, false, true, true,
                       amqp_empty_table);
    return check_reply(broker, "asking for a sign of life", error);
}

/* What is neither a message nor a time-out: the broker ends the channel, the connection or the consumer. */
static bool fail_unexpected(struct broker *broker, struct error *error)
{
    amqp_frame_t frame;
    struct timeval now = {0};
    int status = amqp_simple_wait_frame_noblock(broker->connection, &frame, &now);
    if (status != AMQP_STATUS_OK)
        return broker_fail_status(broker, "waiting for news", status, error);
    if (frame.frame_type == AMQP_FRAME_METHOD && !broker_check_method(broker, "our consumer", &frame.payload.method, error))
        return false;
    if (frame.frame_type == AMQP_FRAME_METHOD && frame.payload.method.id == AMQP_BASIC_CANCEL_METHOD)
        return error_set_retryable(error, EXIT_CODE_BROKER, "broker %s has deleted our queue", broker->name);
    return true; /* e.g. connection.blocked: no concern of a consumer */
}

static bool consume(struct consumer *self, struct broker *broker, const char *queue, struct error *error)
{
    int64_t word_ms = clock_now_ms();
    while (!stopping(self)) {
        struct timeval wait = {.tv_usec = WAIT_MS * 1000L};
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(broker->connection);
        amqp_rpc_reply_t reply = amqp_consume_message(broker->connection, &envelope, &wait, 0);
        if (reply.reply_type == AMQP_RESPONSE_NORMAL) {
            report_message(self, &envelope.message.body);
            amqp_destroy_envelope(&envelope);
            word_ms = clock_now_ms();
            continue;
        }
        bool quiet = reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION && reply.library_error == AMQP_STATUS_TIMEOUT;
        bool other =
            reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION && reply.library_error == AMQP_STATUS_UNEXPECTED_STATE;
        if (!quiet &&
            (other ? !fail_unexpected(broker, error) : !broker_fail_reply(broker, "waiting for news", reply, error)))
            return false;
        if (clock_now_ms() - word_ms >= ASK_AFTER_MS) {
            if (!ask(broker, queue, error))
                return false;
            word_ms = clock_now_ms();
            report_word(self);
        }
    }
    return true;
}

/* One life of a connection. True if it came as far as consuming. */
static bool live(struct consumer *self, const char *url, struct error *error)
{
    char name[300], queue[256];
    struct broker *broker = NULL;
    (void)snprintf(name, sizeof name, "heirflow-interface:%s", self->group);
    struct broker_settings settings = brokers_settings(self->config, name);
    if (!broker_open(url, &settings, OPEN_MS, &broker, error))
        return false;
    use_socket(self, broker->fd);
    bool subscribed = subscribe(self, broker, queue, error), healthy = false;
    if (subscribed) {
        report_word(self);
        healthy = consume(self, broker, queue, error);
    }
    use_socket(self, -1);
    broker_close(broker, healthy && !stopping(self));
    return subscribed;
}

static void pause_for(struct consumer *self, int64_t pause_ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += pause_ms / 1000;
    until.tv_nsec += pause_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&self->lock);
    while (!self->stopping && pthread_cond_timedwait(&self->stop_asked, &self->lock, &until) == 0)
        ;
    (void)pthread_mutex_unlock(&self->lock);
}

static void *run(void *data)
{
    struct consumer *self = data;
    size_t count = self->config->rabbitmq.url_count, next = (size_t)clock_now_ms() % count;
    int64_t pause_ms = LEAST_PAUSE_MS;
    for (size_t tried = 1; !stopping(self); tried++) {
        struct error error = {0};
        bool lived = live(self, self->config->rabbitmq.urls[next], &error);
        if (stopping(self))
            break;
        report_fault(self, &error);
        next = (next + 1) % count;
        if (lived)
            pause_ms = LEAST_PAUSE_MS, tried = 0;
        if (tried % count != 0)
            continue; /* the others of the list at once */
        pause_for(self, pause_ms);
        pause_ms = pause_ms * 2 < MOST_PAUSE_MS ? pause_ms * 2 : MOST_PAUSE_MS;
    }
    return NULL;
}

/* ---- the loop */

static void on_async(uv_async_t *async)
{
    struct consumer *self = async->data;
    self->on_change(self->data);
}

/* Signals are the loop's: the thread is born with all of them blocked. */
static int start_thread(struct consumer *self)
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

bool consumer_start(uv_loop_t *loop, const struct config *config, const char *group, void (*on_change)(void *data),
                    void *data, struct consumer **ret_consumer, struct error *error)
{
    struct consumer *self = calloc(1, sizeof *self);
    if (!self)
        return error_set(error, EXIT_CODE_BROKER, "out of memory");
    self->config = config;
    (void)snprintf(self->group, sizeof self->group, "%s", group);
    self->on_change = on_change;
    self->data = data;
    self->fd = -1;
    self->async.data = self;
    (void)pthread_mutex_init(&self->lock, NULL);
    (void)pthread_cond_init(&self->stop_asked, NULL);
    int failed = uv_async_init(loop, &self->async, on_async);
    if (failed) {
        free(self);
        return error_set(error, EXIT_CODE_BROKER, "cannot watch the broker's thread: %s", uv_strerror(failed));
    }
    failed = start_thread(self);
    if (failed) {
        self->stopping = true;
        uv_close((uv_handle_t *)&self->async, NULL); /* stays allocated: the program ends */
        return error_set(error, EXIT_CODE_BROKER, "cannot start the broker's thread: %s", strerror(failed));
    }
    *ret_consumer = self;
    return true;
}

bool consumer_collect(struct consumer *self, struct intake *intake)
{
    bool news = false;
    int64_t now_ms = clock_now_ms();
    (void)pthread_mutex_lock(&self->lock);
    for (int i = 0; i < self->count; i++)
        news = intake_event(intake, &self->events[i], false, now_ms) || news;
    self->count = 0;
    intake_unreadable(intake, self->unreadable, now_ms);
    self->unreadable = 0;
    if (self->has_fault)
        intake_down(intake, INTAKE_RABBITMQ, self->fault, now_ms);
    else if (self->up && self->word_ms)
        intake_word(intake, INTAKE_RABBITMQ, self->word_ms);
    self->word_ms = 0;
    (void)pthread_mutex_unlock(&self->lock);
    return news;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void consumer_stop(struct consumer *self)
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
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += STOP_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    /* a name look-up cannot be ended: then its thread keeps the memory until the program ends, at once */
    bool ended = pthread_timedjoin_np(self->thread, NULL, &until) == 0;
    uv_close((uv_handle_t *)&self->async, ended ? on_closed : NULL);
}
