/* Owns when copies of the estate are taken, stored, fetched and put in place, and how long each may take.
 * Never touches a file itself, never decides what becomes of the scheduler. */
#include "estate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "errand.h"
#include "estate_files.h"
#include "postgres.h"
#include "succession.h"

#define COPY_MS 10000 /* of a copy at the interval, which nobody waits for */
#define READY_MS 2000
#define RETRY_MS 50
#define RATE 100 /* bytes a millisecond on the average, for they all pass through the database's log */
#define OUTPUT_MOST (ESTATE_BYTES_MAX / 3 * 4 + (1 << 20))
#define FAULT_SIZE sizeof((struct error){0}.text)

enum work { IDLE, FETCHING, WRITING, MARKING, READING, STORING };

struct estate {
    uv_loop_t *loop;
    const struct config *config;
    const char *seat;
    struct estate_callbacks callbacks;
    struct postgres *postgres;
    struct errand *errand;
    uv_timer_t timer;
    json_t *paths;
    char *paths_text;
    int64_t member_id, term;
    char incarnation[SUCCESSION_UUID], origin[SUCCESSION_UUID];
    int64_t copies;  /* of this term: a store that arrives late must not pass for a newer one */
    int64_t rest_ms; /* after the copy stored last */
    bool marked;     /* this node's files, with this term */
    enum work work;
    bool inheriting, watching, settling;
    int64_t until_ms; /* of the work under way */
    char known[80];   /* checksum of the copy stored last */
    char taken[80];   /* of the one being stored */
    int64_t taken_bytes;
    char *files; /* that one */
    char last_fault[FAULT_SIZE];
    bool missing_told;
};

static void on_timer(uv_timer_t *timer);

static int64_t left_ms(const struct estate *self)
{
    int64_t left = self->until_ms - clock_now_ms();
    return left > 0 ? left : 1;
}

static void wake_in(struct estate *self, int64_t in_ms)
{
    uv_update_time(self->loop);
    (void)uv_timer_start(&self->timer, on_timer, in_ms > 0 ? (uint64_t)in_ms : 0, 0); /* fails only without a callback */
}

/* ---- ends of work */

static void report(struct estate *self, const char *event, enum log_level level, const char *reason, bool news,
                   json_t *data)
{
    self->callbacks.on_report(
        self->callbacks.data,
        &(struct estate_report){
            .event = event, .level = level, .reason = reason, .news = news, .data = data, .term = self->term});
}

static void end_work(struct estate *self)
{
    errand_cancel(self->errand);
    self->errand = NULL;
    free(self->files);
    self->files = NULL;
    self->work = IDLE;
    (void)uv_timer_stop(&self->timer);
}

static void drop_work(struct estate *self)
{
    postgres_drop(self->postgres);
    end_work(self);
}

static void wake_for_copy(struct estate *self)
{
    int64_t interval_ms = self->config->scheduler.estate_interval_ms;
    wake_in(self, interval_ms > self->rest_ms ? interval_ms : self->rest_ms);
}

/* Whoever waits for the end of this work hears of it. */
static void finish(struct estate *self)
{
    bool inheriting = self->inheriting, settling = self->settling;
    self->inheriting = self->settling = false;
    drop_work(self);
    if (self->watching)
        wake_for_copy(self);
    if (inheriting)
        self->callbacks.on_inherited(self->callbacks.data);
    if (settling)
        self->callbacks.on_settled(self->callbacks.data);
}

static void fail(struct estate *self, const char *reason)
{
    char text[sizeof self->last_fault];
    (void)snprintf(text, sizeof text, "%s: %.900s", self->inheriting ? "nothing was inherited" : "nothing was stored",
                   reason);
    bool repeated = strcmp(self->last_fault, text) == 0;
    memcpy(self->last_fault, text, sizeof text);
    report(self, "estate-failed", repeated ? LOG_DEBUG : LOG_ERROR, text, !repeated, NULL);
    finish(self);
}

/* Somebody waits for this work, so one lost connection is not its end. */
static void try_again(struct estate *self, const struct error *error)
{
    bool awaited = self->inheriting || self->settling;
    if (!awaited || !error->retryable || left_ms(self) <= RETRY_MS) {
        fail(self, error->text);
        return;
    }
    postgres_drop(self->postgres);
    wake_in(self, RETRY_MS);
}

static void succeed(struct estate *self, const char *event, enum log_level level, bool news, json_t *data)
{
    self->last_fault[0] = '\0';
    report(self, event, level, NULL, news, data);
    finish(self);
}

/* ---- child processes */

static void on_written(void *data, const struct errand_end *end);
static void on_read(void *data, const struct errand_end *end);

static void start_errand(struct estate *self, const char *body, const char *input, size_t input_size, errand_end_cb *on_end)
{
    struct error error;
    const struct errand_spec spec = {
        .body = body,
        .key = "scheduler.estate",
        .directory = self->config->scheduler.directory,
        .user = self->config->scheduler.user,
        .group = self->config->group,
        .node = self->config->node,
        .seat = self->seat,
        .term = self->term,
        .timeout_ms = left_ms(self),
        .input = input,
        .input_size = input_size,
        .output_most = OUTPUT_MOST,
    };
    if (!errand_start(self->loop, &spec, on_end, self, &self->errand, &error))
        fail(self, error.text);
}

static void note_mark(struct estate *self, const json_t *answer)
{
    char text[FAULT_SIZE];
    const char *fault = json_string_value(json_object_get(answer, "mark_fault"));
    if (fault && !self->marked) {
        (void)snprintf(text, sizeof text, "files are not marked as this node's own: %.900s", fault);
        report(self, "estate-failed", LOG_ERROR, text, true, NULL);
    }
    self->marked = true;
}

/* The first line of what it wrote. */
static json_t *read_answer(struct estate *self, const struct errand_end *end)
{
    self->errand = NULL;
    if (end->reason) {
        fail(self, end->reason);
        return NULL;
    }
    json_t *answer = json_loadb(end->output, end->output_size, JSON_DISABLE_EOF_CHECK, NULL);
    const char *fault = json_string_value(json_object_get(answer, "fault"));
    if (answer && (self->work == READING || self->work == MARKING))
        note_mark(self, answer);
    if (answer && !fault)
        return answer;
    fail(self, fault ? fault : "no answer of a child process");
    json_decref(answer);
    return NULL;
}

/* ---- storing */

static void note_origin(struct estate *self, const char *origin)
{
    if (!origin || strlen(origin) >= sizeof self->origin)
        return;
    if (!self->origin[0])
        self->marked = false;
    memcpy(self->origin, origin, strlen(origin) + 1);
}

static void on_stored(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct estate *self = data;
    (void)warning; /* nothing depends on how durable it is */
    cleanup_json json_t *reply = json_loads(result && PQntuples(result) == 1 ? PQgetvalue(result, 0, 0) : "", 0, NULL);
    const char *reason = json_string_value(json_object_get(reply, "reason"));
    if (!result) {
        try_again(self, error);
        return;
    }
    if (!json_is_true(json_object_get(reply, "stored"))) {
        fail(self, reason ? reason : "the reply is not what it should be");
        return;
    }
    memcpy(self->known, self->taken, sizeof self->known);
    self->rest_ms = self->taken_bytes / RATE;
    note_origin(self, json_string_value(json_object_get(reply, "origin")));
    succeed(self, "estate-stored", self->settling ? LOG_INFO : LOG_DEBUG, false, NULL);
}

static void store(struct estate *self)
{
    char member[24], term[24], copy[24];
    (void)snprintf(member, sizeof member, "%" PRId64, self->member_id);
    (void)snprintf(term, sizeof term, "%" PRId64, self->term);
    (void)snprintf(copy, sizeof copy, "%" PRId64, ++self->copies);
    const char *const values[] = {self->config->group, member, self->incarnation, term,
                                  self->config->node,  copy,   self->files};
    postgres_query(self->postgres, "select store_estate($1, $2, $3, $4, $5, $6, $7)", 7, values, left_ms(self), on_stored,
                   self);
}

static void begin_store(struct estate *self, const struct errand_end *end, const char *checksum)
{
    const char *line = memchr(end->output, '\n', end->output_size);
    size_t skipped = line ? (size_t)(line + 1 - (const char *)end->output) : end->output_size;
    self->files = strndup((const char *)end->output + skipped, end->output_size - skipped);
    (void)snprintf(self->taken, sizeof self->taken, "%s", checksum);
    self->work = STORING;
    if (postgres_connected(self->postgres))
        store(self);
    else
        postgres_connect(self->postgres);
}

static void on_read(void *data, const struct errand_end *end)
{
    struct estate *self = data;
    cleanup_json json_t *answer = NULL;
    if (end->lost && !self->settling) { /* the next one comes soon */
        self->errand = NULL;
        finish(self);
        return;
    }
    answer = read_answer(self, end);
    if (!answer)
        return;
    const char *checksum = json_string_value(json_object_get(answer, "checksum"));
    self->taken_bytes = json_integer_value(json_object_get(answer, "bytes"));
    if (json_integer_value(json_object_get(answer, "count")) == 0) {
        if (!self->missing_told)
            report(self, "estate-missing", LOG_INFO, NULL, false, NULL);
        self->missing_told = true;
        finish(self);
    } else if (!checksum || strcmp(self->known, checksum) == 0) {
        self->last_fault[0] = '\0';
        finish(self);
    } else {
        begin_store(self, end, checksum);
    }
}

static void on_marked(void *data, const struct errand_end *end)
{
    struct estate *self = data;
    cleanup_json json_t *answer = end->lost ? NULL : read_answer(self, end);
    if (!answer && !end->lost)
        return; /* it is tried again with the next copy */
    self->errand = NULL;
    finish(self);
}

static void begin_read(struct estate *self, enum work work, int64_t limit_ms)
{
    cleanup_json json_t *request = json_pack("{s:O, s:b, s:b, s:s}", "paths", self->paths, "still", self->settling,
                                             "marks_only", work == MARKING, "known", self->known);
    if (!self->marked)
        (void)json_object_set_new(
            request, "mark",
            json_pack("{s:I, s:s*}", "term", (json_int_t)self->term, "origin", self->origin[0] ? self->origin : NULL));
    cleanup_free char *text = json_dumps(request, JSON_COMPACT);
    self->work = work;
    self->until_ms = clock_now_ms() + limit_ms;
    wake_in(self, limit_ms);
    start_errand(self, "estate-read", text, strlen(text), work == MARKING ? on_marked : on_read);
}

/* ---- inheriting */

static void on_written(void *data, const struct errand_end *end)
{
    struct estate *self = data;
    cleanup_json json_t *answer = read_answer(self, end);
    if (!answer)
        return;
    if (!json_is_true(json_object_get(answer, "inherited"))) {
        self->last_fault[0] = '\0';
        finish(self);
        return;
    }
    cleanup_json json_t *about = json_pack("{s:O, s:O, s:O, s:O}", "from", json_object_get(answer, "node"), "from_term",
                                           json_object_get(answer, "term"), "age_ms", json_object_get(answer, "age_ms"),
                                           "files", json_object_get(answer, "count"));
    succeed(self, "estate-inherited", LOG_INFO, true, about);
}

static void on_fetched(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct estate *self = data;
    (void)warning;
    if (!result) {
        try_again(self, error);
        return;
    }
    if (PQntuples(result) != 1 || PQnfields(result) != 3) {
        fail(self, "the reply is not what it should be");
        return;
    }
    note_origin(self, PQgetvalue(result, 0, 1));
    if (strcmp(PQgetvalue(result, 0, 2), "0") == 0) {
        self->last_fault[0] = '\0';
        finish(self);
        return;
    }
    cleanup_json json_t *request = json_pack("{s:O}", "paths", self->paths);
    cleanup_free char *head = json_dumps(request, JSON_COMPACT);
    size_t size = strlen(head) + 1 + (size_t)PQgetlength(result, 0, 0);
    cleanup_free char *input = malloc(size + 1);
    if (!input) {
        fail(self, "out of memory");
        return;
    }
    (void)snprintf(input, size + 1, "%s\n%s", head, PQgetvalue(result, 0, 0));
    self->work = WRITING;
    start_errand(self, "estate-write", input, size, on_written);
}

static void fetch(struct estate *self)
{
    const char *const values[] = {self->config->group, self->paths_text};
    postgres_query(self->postgres,
                   "select copy, copy->>'origin', json_array_length(copy->'files') from fetch_estate($1, $2) copy", 2,
                   values, left_ms(self), on_fetched, self);
}

/* ---- callbacks of loop and connection */

static void on_connected(void *data)
{
    struct estate *self = data;
    switch (self->work) {
    case FETCHING:
        fetch(self);
        break;
    case STORING:
        store(self);
        break;
    case IDLE: /* ready for the last copy */
    case MARKING:
    case READING:
    case WRITING:
        break;
    }
}

static void on_disconnected(void *data, const struct error *error)
{
    struct estate *self = data;
    if (self->work == FETCHING || self->work == STORING)
        try_again(self, error);
}

static const char *slow_reason(enum work work)
{
    switch (work) {
    case FETCHING:
        return "the database took too long";
    case WRITING:
        return "putting the files in place took too long";
    case MARKING:
        return "marking the files took too long";
    case READING:
        return "reading the files took too long";
    case STORING:
        return "the database took too long";
    case IDLE:
        break;
    }
    return "it took too long";
}

/* Time for the next copy, for another attempt, or for no more of the work under way. */
static void on_timer(uv_timer_t *timer)
{
    struct estate *self = timer->data;
    if (self->work == IDLE && self->watching)
        begin_read(self, READING, COPY_MS);
    else if (self->work == IDLE)
        postgres_drop(self->postgres); /* no term has come */
    else if (clock_now_ms() >= self->until_ms)
        fail(self, slow_reason(self->work));
    else {
        if (self->work == FETCHING || self->work == STORING)
            postgres_connect(self->postgres); /* unless it is there, or on its way */
        wake_in(self, left_ms(self));
    }
}

/* ---- life */

static bool is_listed(const json_t *paths, const char *path)
{
    size_t i;
    json_t *listed;
    json_array_foreach(paths, i, listed)
    {
        if (strcmp(json_string_value(listed), path) == 0)
            return true;
    }
    return false;
}

bool estate_create(uv_loop_t *loop, const struct config *config, const char *seat, const struct estate_callbacks *callbacks,
                   struct estate **ret_estate, struct error *error)
{
    *ret_estate = NULL;
    if (!config->scheduler.estate || !*config->scheduler.estate)
        return true;
    struct estate *self = calloc(1, sizeof *self);
    if (!self)
        return error_set(error, EXIT_CODE_NEGATIVE, "out of memory");
    char name[64];
    (void)snprintf(name, sizeof name, "heirflow-estate:%.28s:%.18s", config->group, config->node);
    self->postgres = postgres_create(loop,
                                     &(struct postgres_settings){
                                         .conninfo = config->postgres,
                                         .application_name = name,
                                         .schema = config->schema,
                                         .attempt_ms = config->lease_ms / 3,
                                         .lock_timeout_ms = config->lease_ms / 3,
                                         .on_connected = on_connected,
                                         .on_disconnected = on_disconnected,
                                         .data = self,
                                     },
                                     error);
    if (!self->postgres) {
        free(self);
        return false;
    }
    (void)uv_timer_init(loop, &self->timer); /* cannot fail */
    self->timer.data = self;
    self->loop = loop;
    self->config = config;
    self->seat = seat;
    self->callbacks = *callbacks;
    self->paths = json_array();
    for (const char **path = config->scheduler.estate; *path; path++)
        if (!is_listed(self->paths, *path))
            (void)json_array_append_new(self->paths, json_string(*path)); /* the configuration was UTF-8 */
    self->paths_text = json_dumps(self->paths, JSON_COMPACT);
    *ret_estate = self;
    return true;
}

void estate_expect_term(struct estate *self)
{
    if (!self || self->work != IDLE || self->watching || self->settling)
        return;
    postgres_connect(self->postgres);
    wake_in(self, READY_MS);
}

void estate_inherit(struct estate *self, const struct estate_term *term, int64_t limit_ms)
{
    if (!self)
        return;
    if (postgres_busy(self->postgres))
        postgres_drop(self->postgres);
    end_work(self);
    self->inheriting = true;
    self->watching = self->settling = self->missing_told = self->marked = false;
    self->copies = self->rest_ms = 0;
    self->known[0] = self->last_fault[0] = '\0';
    self->member_id = term->member_id;
    self->term = term->term;
    (void)snprintf(self->incarnation, sizeof self->incarnation, "%s", term->incarnation);
    self->work = FETCHING;
    self->until_ms = clock_now_ms() + limit_ms;
    wake_in(self, limit_ms);
    if (postgres_connected(self->postgres))
        fetch(self);
    else
        postgres_connect(self->postgres);
}

void estate_watch(struct estate *self)
{
    if (!self)
        return;
    self->watching = true;
    if (self->work == IDLE && !self->marked)
        begin_read(self, MARKING, COPY_MS);
    else if (self->work == IDLE)
        wake_for_copy(self);
}

void estate_expect_end(struct estate *self)
{
    if (!self)
        return;
    self->watching = false;
    drop_work(self);
    postgres_connect(self->postgres);
}

bool estate_settle(struct estate *self, int64_t limit_ms)
{
    if (!self || limit_ms <= 0)
        return false;
    self->settling = true;
    begin_read(self, READING, limit_ms);
    return true;
}

void estate_rest(struct estate *self)
{
    if (!self)
        return;
    bool settling = self->settling;
    self->watching = self->inheriting = self->settling = false;
    drop_work(self);
    if (settling)
        self->callbacks.on_settled(self->callbacks.data);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_postgres_closed(void *data)
{
    struct estate *self = data;
    uv_close((uv_handle_t *)&self->timer, on_timer_closed);
}

void estate_free(struct estate *self)
{
    if (!self)
        return;
    drop_work(self);
    json_decref(self->paths);
    free(self->paths_text);
    postgres_destroy(self->postgres, on_postgres_closed, self);
}
