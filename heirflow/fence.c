/* Owns the connection on which a new heir ends the sessions of its predecessors' schedulers.
 * Never decides whether a scheduler may start. */
#include "fence.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "postgres.h"
#include "succession.h"

#define RETRY_MS 50

struct fence {
    struct postgres *postgres;
    uv_timer_t timer;
    const char *group;
    fence_report_cb *on_report;
    void *data;
    bool fencing;
    int64_t member_id, term, until_ms;
    char incarnation[SUCCESSION_UUID];
    struct error fault; /* of the last attempt */
};

static void on_timer(uv_timer_t *timer);

static void wake_in(struct fence *self, int64_t in_ms)
{
    uv_update_time(self->timer.loop);
    (void)uv_timer_start(&self->timer, on_timer, in_ms > 0 ? (uint64_t)in_ms : 0, 0); /* fails only without a callback */
}

static void finish(struct fence *self, const struct fence_report *report)
{
    self->fencing = false;
    (void)uv_timer_stop(&self->timer);
    postgres_drop(self->postgres);
    self->on_report(self->data, report);
}

static void fail(struct fence *self, const struct error *error)
{
    struct error told = *error;
    (void)error_wrap(&told, "fencing");
    finish(self, &(struct fence_report){.error = &told});
}

static void read_reply(struct fence *self, const char *text)
{
    struct error error;
    cleanup_json json_t *object = json_loads(text, 0, NULL);
    if (json_is_true(json_object_get(object, "fenced"))) {
        finish(self, &(struct fence_report){
                         .ended = json_integer_value(json_object_get(object, "ended")),
                         .leaks = json_string_value(json_object_get(object, "leaks")),
                     });
        return;
    }
    const char *reason = json_string_value(json_object_get(object, "reason"));
    (void)error_set(&error, EXIT_CODE_DATABASE, "%s", reason ? reason : "the reply is not what it should be");
    fail(self, &error);
}

static void on_reply(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct fence *self = data;
    (void)warning; /* what cannot be ended is counted, not guessed */
    if (result)
        read_reply(self, PQntuples(result) == 1 ? PQgetvalue(result, 0, 0) : "");
    else if (postgres_connected(self->postgres))
        fail(self, error);
    else
        self->fault = *error; /* tried again over the next connection */
}

static void on_connected(void *data)
{
    struct fence *self = data;
    int64_t left_ms = self->until_ms - clock_now_ms();
    char member[24], term[24], timeout[24];
    (void)snprintf(member, sizeof member, "%" PRId64, self->member_id);
    (void)snprintf(term, sizeof term, "%" PRId64, self->term);
    (void)snprintf(timeout, sizeof timeout, "%" PRId64, left_ms * 3 / 4); /* so that its answer still arrives */
    const char *const values[] = {self->group, member, self->incarnation, term, timeout};
    postgres_query(self->postgres, "select fence($1, $2, $3, $4, $5)", 5, values, left_ms, on_reply, self);
}

static void on_disconnected(void *data, const struct error *error)
{
    struct fence *self = data;
    if (!self->fencing)
        return;
    self->fault = *error;
    wake_in(self, clock_now_ms() + RETRY_MS < self->until_ms ? RETRY_MS : self->until_ms - clock_now_ms());
}

/* Time for another attempt, or for none any more. */
static void on_timer(uv_timer_t *timer)
{
    struct fence *self = timer->data;
    if (clock_now_ms() < self->until_ms) {
        postgres_connect(self->postgres);
        wake_in(self, self->until_ms - clock_now_ms());
        return;
    }
    if (!self->fault.text[0])
        (void)error_set(&self->fault, EXIT_CODE_DATABASE, "no answer");
    fail(self, &self->fault);
}

struct fence *fence_create(uv_loop_t *loop, const struct config *config, fence_report_cb *on_report, void *data,
                           struct error *error)
{
    struct fence *self = calloc(1, sizeof *self);
    if (!self) {
        (void)error_set(error, EXIT_CODE_NEGATIVE, "out of memory");
        return NULL;
    }
    char name[64];
    (void)snprintf(name, sizeof name, "heirflow-fence:%.28s:%.18s", config->group, config->node);
    self->postgres = postgres_create(loop,
                                     &(struct postgres_settings){
                                         .conninfo = config->postgres,
                                         .application_name = name,
                                         .schema = config->schema,
                                         .attempt_ms = config->lease_ms / 3,
                                         .on_connected = on_connected,
                                         .on_disconnected = on_disconnected,
                                         .data = self,
                                     },
                                     error);
    if (!self->postgres) {
        free(self);
        return NULL;
    }
    (void)uv_timer_init(loop, &self->timer); /* cannot fail */
    self->timer.data = self;
    self->group = config->group;
    self->on_report = on_report;
    self->data = data;
    return self;
}

void fence_begin(struct fence *self, const struct fence_term *term, int64_t timeout_ms)
{
    postgres_drop(self->postgres);
    self->fencing = true;
    self->member_id = term->member_id;
    self->term = term->term;
    (void)snprintf(self->incarnation, sizeof self->incarnation, "%s", term->incarnation);
    self->until_ms = clock_now_ms() + timeout_ms;
    self->fault = (struct error){0};
    postgres_set_times(self->postgres, timeout_ms / 3, 0);
    wake_in(self, 0);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_postgres_closed(void *data)
{
    struct fence *self = data;
    uv_close((uv_handle_t *)&self->timer, on_timer_closed);
}

void fence_free(struct fence *self)
{
    if (!self)
        return;
    self->fencing = false;
    (void)uv_timer_stop(&self->timer);
    postgres_destroy(self->postgres, on_postgres_closed, self);
}
