/* Owns `heirflow news`: what is there is read from Postgres; what is to come is taken from the broker as long as it comes
 * without a gap, and read from Postgres whenever it does not. Never waits for the one while the other has something. */
#include "follow.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "cleanup.h"
#include "clock.h"
#include "event.h"
#include "sequence.h"
#include "session.h"
#include "subscription.h"

enum {
    ATTEMPT_MS = 5000,
    TICK_MS = 500,
    POLL_MS = 2000,         /* notifications are a hint: look this often without */
    POLL_BROKER_MS = 10000, /* the broker's last message may be lost, and then shows no gap */
    GRACE_MS = 1000,        /* for the broker to bring what Postgres has announced */
    RECONNECT_MS = 1000,
    PAGE = 200,
    DEFAULT_LIMIT = 20,
};

static const char NAME[] = "heirflow news";

/* For the signal handler. */
static volatile sig_atomic_t interrupted;
static uv_async_t *to_interrupt;

struct follow {
    const struct config *config;
    const struct options *options;
    struct sequence sequence;
    int64_t left;     /* how many may still be printed; -1: no limit */
    bool gapless;     /* a gap before the next event is worth a word */
    int output_fault; /* errno */

    uv_loop_t loop;
    uv_timer_t tick;
    uv_async_t interruption;
    struct postgres *postgres;
    struct subscription *subscription;
    uint64_t lives; /* of the subscription, as last seen */
    bool broker_up, compare, read, ended;
    bool unproven;          /* something came from the broker since the last comparison; anybody may speak there */
    int64_t compared_after; /* the last event passed on when a comparison began */
    int64_t read_at_ms, reconnect_at_ms;         /* 0: not planned */
    char told_postgres[1024], told_broker[1024]; /* why it is away, once told: not again every second */
};

/* ---- standard output and standard error ---- */

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s: ", NAME);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
}

static int fail(const struct error *error)
{
    say("%s", error->text);
    return error->exit_code;
}

/* Told is told, until something else is the matter. */
static void say_once(char told[1024], const char *text, const char *meanwhile)
{
    if (strcmp(told, text) == 0)
        return;
    (void)snprintf(told, 1024, "%s", text);
    say("%s%s", text, meanwhile);
}

/* Nobody reads what we print any more. */
static bool reader_gone(const struct follow *self)
{
    struct pollfd out = {.fd = STDOUT_FILENO};
    return self->output_fault || (poll(&out, 1, 0) > 0 && (out.revents & POLLERR));
}

static int output_exit_code(const struct follow *self)
{
    if (!self->output_fault || self->output_fault == EPIPE || self->output_fault == EINTR)
        return EXIT_CODE_OK; /* `| head` is no error */
    say("cannot write to standard output: %s", strerror(self->output_fault));
    return EXIT_CODE_NEGATIVE;
}

/* The next event in order. */
static void pass_on(struct follow *self, json_t *body, int64_t number, const char *id)
{
    if (self->gapless && number > self->sequence.after + 1)
        say("events %lld to %lld are not kept any more", (long long)self->sequence.after + 1, (long long)number - 1);
    self->gapless = true;
    sequence_take(&self->sequence, number, id);
    if (body)
        event_print(body, self->options->json, stdout);
    if (ferror(stdout) && !self->output_fault)
        self->output_fault = errno ? errno : EIO;
    self->left -= self->left > 0;
}

/* Prints rows of news_after. */
static void pass_on_rows(struct follow *self, const PGresult *rows)
{
    for (int i = 0; i < PQntuples(rows) && self->left != 0 && !self->output_fault; i++) {
        json_error_t fault;
        cleanup_json json_t *body = json_loads(PQgetvalue(rows, i, 1), 0, &fault);
        int64_t number = strtoll(PQgetvalue(rows, i, 0), NULL, 10);
        const char *id = json_string_value(json_object_get(body, "id"));
        if (!body)
            say("event %lld cannot be shown: %s", (long long)number, fault.text);
        if (number > self->sequence.after)
            pass_on(self, body, number, id ? id : "");
    }
}

/* ---- what is there ---- */

/* Where to begin. */
static bool begin(struct follow *self, struct postgres_session *session, struct error *error)
{
    cleanup_result PGresult *result = NULL;
    const struct options *options = self->options;
    if (!postgres_session_call(session, "select news_last($1)", 1, (const char *[]){self->config->group}, SESSION_CALL_MS,
                               &result, error))
        return false;
    if (PQgetisnull(result, 0, 0))
        return session_refuse_group(session, self->config, error);
    int64_t last = strtoll(PQgetvalue(result, 0, 0), NULL, 10), limit = options->limit < 0 ? DEFAULT_LIMIT : options->limit;
    int64_t after = options->from >= 0 ? options->from : last > limit ? last - limit : 0;
    if (after > last) {
        say("the group has told no more than %lld events; a failover may have lost later ones", (long long)last);
        after = last;
    }
    sequence_init(&self->sequence, after);
    self->gapless = options->from >= 0;
    self->left = options->from >= 0 && !options->follow ? options->limit : -1;
    return true;
}

static const char READ[] = "select sequence, body from news_after($1, $2, $3)";

/* $2 and $3 of news_after. */
struct page {
    char after[24], limit[24];
};

static struct page page_after(int64_t after, int limit)
{
    struct page page;
    (void)snprintf(page.after, sizeof page.after, "%lld", (long long)after);
    (void)snprintf(page.limit, sizeof page.limit, "%d", limit);
    return page;
}

static bool read_what_is_there(struct follow *self, struct postgres_session *session, struct error *error)
{
    int rows = PAGE;
    while (rows == PAGE && self->left != 0 && !interrupted && !reader_gone(self)) {
        cleanup_result PGresult *result = NULL;
        struct page page = page_after(self->sequence.after, PAGE);
        if (!postgres_session_call(session, READ, 3, (const char *[]){self->config->group, page.after, page.limit},
                                   SESSION_CALL_MS, &result, error))
            return false;
        rows = PQntuples(result);
        pass_on_rows(self, result);
    }
    return true;
}

/* ---- what is to come: Postgres ---- */

static void ask(struct follow *self);

static void plan_read(struct follow *self, int64_t in_ms)
{
    int64_t at_ms = clock_now_ms() + in_ms;
    if (!self->read_at_ms || at_ms < self->read_at_ms)
        self->read_at_ms = at_ms;
}

static void end(struct follow *self)
{
    if (self->ended)
        return;
    self->ended = true;
    uv_close((uv_handle_t *)&self->tick, NULL);
    uv_close((uv_handle_t *)&self->interruption, NULL);
    subscription_stop(self->subscription);
    postgres_destroy(self->postgres, NULL, NULL);
}

static void on_rows(void *data, const PGresult *rows, const char *warning, const struct error *error)
{
    struct follow *self = data;
    if (!rows) {
        say_once(self->told_postgres, error->text, "");
        self->read = true;
        plan_read(self, RECONNECT_MS);
        return;
    }
    self->told_postgres[0] = '\0';
    pass_on_rows(self, rows);
    self->read = self->read || PQntuples(rows) == PAGE;
    plan_read(self, self->broker_up ? POLL_BROKER_MS : POLL_MS);
    if (reader_gone(self))
        end(self);
    else
        ask(self);
}

/* The rows: news_last, sequence, id. */
static void on_comparison(void *data, const PGresult *rows, const char *warning, const struct error *error)
{
    struct follow *self = data;
    struct sequence_event told[SEQUENCE_REMEMBERED];
    int count = 0;
    if (!rows) {
        say_once(self->told_postgres, error->text, "");
        self->compare = true;
        plan_read(self, RECONNECT_MS);
        return;
    }
    int64_t last = strtoll(PQgetvalue(rows, 0, 0), NULL, 10), before = self->sequence.after;
    for (int i = 0; i < PQntuples(rows) && count < SEQUENCE_REMEMBERED && !PQgetisnull(rows, i, 1); i++) {
        told[count].number = strtoll(PQgetvalue(rows, i, 1), NULL, 10);
        (void)snprintf(told[count++].id, sizeof told->id, "%s", PQgetvalue(rows, i, 2));
    }
    int64_t common = sequence_common(&self->sequence, told, count, last);
    self->unproven = before > self->compared_after;
    if (common < self->compared_after) {
        say("a failover of the database lost the events %lld to %lld; it goes on after %lld", (long long)common + 1,
            (long long)before, (long long)common);
        sequence_rewind(&self->sequence, common);
    }
    self->read = true;
    ask(self);
}

static void ask(struct follow *self)
{
    if (self->ended || !postgres_connected(self->postgres) || postgres_busy(self->postgres))
        return;
    int64_t after = self->sequence.after;
    if (self->compare) {
        struct page page = page_after(after > SEQUENCE_REMEMBERED ? after - SEQUENCE_REMEMBERED : 0, SEQUENCE_REMEMBERED);
        self->compare = false;
        self->compared_after = after;
        postgres_query(self->postgres,
                       "select coalesce(news_last($1), 0), n.sequence, n.body->>'id' from (select) one"
                       " left join news_after($1, $2, $3) n on true order by n.sequence",
                       3, (const char *[]){self->config->group, page.after, page.limit}, SESSION_CALL_MS, on_comparison,
                       self);
    } else if (self->read) {
        struct page page = page_after(after, PAGE);
        self->read = false;
        postgres_query(self->postgres, READ, 3, (const char *[]){self->config->group, page.after, page.limit},
                       SESSION_CALL_MS, on_rows, self);
    }
}

static void on_connected(void *data)
{
    struct follow *self = data;
    self->compare = true; /* it may be another server */
    ask(self);
}

static void on_disconnected(void *data, const struct error *error)
{
    struct follow *self = data;
    say_once(self->told_postgres, error->text, self->broker_up ? "; RabbitMQ goes on" : "");
    self->reconnect_at_ms = clock_now_ms() + RECONNECT_MS;
}

static void on_notify(void *data, const char *group)
{
    struct follow *self = data;
    if (strcmp(group, self->config->group) != 0)
        return;
    if (self->broker_up) {
        plan_read(self, GRACE_MS);
    } else {
        self->read = true;
        ask(self);
    }
}

/* ---- what is to come: RabbitMQ ---- */

static void take_body(struct follow *self, const char *text, size_t length)
{
    cleanup_json json_t *body = json_loadb(text, length, 0, NULL);
    int64_t number;
    const char *id;
    if (!body || !event_identify(body, self->config->group, &number, &id))
        return; /* somebody else's */
    switch (sequence_judge(&self->sequence, number, id)) {
    case SEQUENCE_NEXT:
        pass_on(self, body, number, id);
        self->unproven = true;
        break;
    case SEQUENCE_KNOWN:
        break;
    case SEQUENCE_GAP:
        self->read = true;
        break;
    case SEQUENCE_FORKED:
        self->compare = true;
        break;
    }
}

static void look_at_broker(struct follow *self)
{
    struct subscription_state state;
    subscription_state(self->subscription, &state);
    if (!state.up && state.fault.text[0])
        say_once(self->told_broker, state.fault.text, "; reading from Postgres");
    if (state.up)
        self->told_broker[0] = '\0';
    if (state.lives != self->lives || state.up != self->broker_up)
        self->read = true; /* what came before the queue was bound, or is lost with it */
    self->lives = state.lives;
    self->broker_up = state.up;
}

static void on_subscription(void *data)
{
    struct follow *self = data;
    size_t length;
    if (self->ended)
        return;
    look_at_broker(self);
    while (!self->output_fault) {
        cleanup_free char *text = subscription_take(self->subscription, &length);
        if (!text)
            break;
        take_body(self, text, length);
    }
    if (reader_gone(self))
        end(self);
    else
        ask(self);
}

/* ---- the loop ---- */

static void on_signal(int number)
{
    interrupted = 1;
    if (to_interrupt)
        (void)uv_async_send(to_interrupt);
}

static void on_interrupted(uv_async_t *async)
{
    end(async->data);
}

/* A write that hangs because nobody reads ends with the signal, too. */
static void take_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

static void on_tick(uv_timer_t *timer)
{
    struct follow *self = timer->data;
    int64_t now_ms = clock_now_ms();
    if (reader_gone(self)) {
        end(self);
        return;
    }
    if (self->reconnect_at_ms && now_ms >= self->reconnect_at_ms) {
        self->reconnect_at_ms = 0;
        postgres_connect(self->postgres);
    }
    if (self->read_at_ms && now_ms >= self->read_at_ms) {
        self->read_at_ms = 0;
        self->read = true;
        self->compare = self->compare || self->unproven;
    }
    ask(self);
}

static bool start(struct follow *self, struct error *error)
{
    const struct config *config = self->config;
    struct postgres_settings settings = {.conninfo = config->postgres,
                                         .application_name = NAME,
                                         .schema = config->schema,
                                         .attempt_ms = ATTEMPT_MS,
                                         .listen = "heirflow_news",
                                         .on_connected = on_connected,
                                         .on_disconnected = on_disconnected,
                                         .on_notify = on_notify,
                                         .data = self};
    self->postgres = postgres_create(&self->loop, &settings, error);
    if (!self->postgres)
        return false;
    if (config->rabbitmq.url_count &&
        !subscription_start(&self->loop, config, config->group, NAME, on_subscription, self, &self->subscription, error)) {
        postgres_destroy(self->postgres, NULL, NULL);
        return false;
    }
    (void)uv_timer_init(&self->loop, &self->tick); /* cannot fail */
    self->tick.data = self;
    (void)uv_timer_start(&self->tick, on_tick, TICK_MS, TICK_MS);
    postgres_connect(self->postgres);
    return true;
}

static int go_on(struct follow *self)
{
    struct error error;
    bool started = start(self, &error);
    if (!started) {
        to_interrupt = NULL;
        uv_close((uv_handle_t *)&self->interruption, NULL);
    }
    (void)uv_run(&self->loop, UV_RUN_DEFAULT);
    to_interrupt = NULL;
    return started ? EXIT_CODE_OK : fail(&error);
}

/* From here on a signal is a wish to end in peace. */
static bool init_loop(struct follow *self, struct error *error)
{
    if (uv_loop_init(&self->loop) != 0 || uv_async_init(&self->loop, &self->interruption, on_interrupted) != 0)
        return error_set(error, EXIT_CODE_NEGATIVE, "no event loop: out of descriptors?");
    self->interruption.data = self;
    to_interrupt = &self->interruption;
    take_signals();
    return true;
}

static int run(struct follow *self)
{
    struct error error;
    struct postgres_session *session = NULL;
    if (!session_open(self->config, NAME, &session, &error))
        return fail(&error);
    bool fine = begin(self, session, &error) && (!self->options->follow || init_loop(self, &error)) &&
                read_what_is_there(self, session, &error);
    postgres_session_close(session);
    bool again = !fine && self->options->follow && to_interrupt && error.retryable; /* then go_on reads the rest */
    if (!fine && !again)
        return fail(&error);
    if (!self->options->follow || reader_gone(self))
        return EXIT_CODE_OK;
    int code = go_on(self);
    (void)uv_loop_close(&self->loop);
    return code;
}

int follow_run(const struct config *config, const struct options *options)
{
    struct follow *self = calloc(1, sizeof *self);
    if (!self)
        return EXIT_CODE_NEGATIVE;
    self->config = config;
    self->options = options;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    (void)signal(SIGPIPE, SIG_IGN); /* reader_gone notices, also while nothing is printed */
    int code = run(self);
    if (code == EXIT_CODE_OK && reader_gone(self))
        _exit(output_exit_code(self)); /* nothing is left to flush to */
    free(self);
    return code;
}
