/* Owns the user's own calls of the database. Never decides whether one makes sense, never repeats one. */
#include "operator.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "postgres.h"

enum { ATTEMPT_MS = 3000, LOCK_MS = 3000, ANSWER_MS = 6000, IDLE_MS = 30000 };

enum request { ORDER, DETAILS, GROUPS, REQUESTS };

struct operator
{
    struct operator_calls calls;
    struct postgres *postgres;
    uv_timer_t idle; /* drops a connection that nobody needs any more */
    int open_handles;
    bool wanted[REQUESTS];
    enum request asked;
    char group[MODEL_NAME];
    struct desk_order order;
    int64_t member_id;
};

static void step(struct operator* self);

/* ---- answers */

static void give(struct operator* self, enum request request, const char *json, const char *fault)
{
    switch (request) {
    case ORDER:
        self->calls.on_answer(self->calls.data, fault);
        break;
    case DETAILS:
        self->calls.on_details(self->calls.data, json, fault);
        break;
    case GROUPS:
        self->calls.on_groups(self->calls.data, json, fault);
        break;
    case REQUESTS:
        break;
    }
}

/* What the functions for operators return: true, false if nothing changed, or an object with a refusal. */
static void give_answer(struct operator* self, const char *text)
{
    cleanup_json json_t *answer = json_loads(text, JSON_DECODE_ANY, NULL);
    const char *refused = json_string_value(json_object_get(answer, "refused"));
    char fault[512];
    (void)snprintf(fault, sizeof fault, "refused: %s", refused ? refused : "it is so already");
    give(self, ORDER, NULL, refused || strcmp(text, "f") == 0 ? fault : NULL);
}

static void on_reply(void *data, const PGresult *result, const char *warning, const struct error *error)
{
    struct operator* self = data;
    char text[sizeof error->text + 64];
    if (!result) {
        bool unknown = !postgres_connected(self->postgres); /* it may be done all the same */
        (void)snprintf(text, sizeof text, "%s: %s", unknown ? "it may be done or not, see the news" : "not done",
                       error->text);
        if (self->asked != ORDER)
            (void)snprintf(text, sizeof text, "%s", error->text);
        give(self, self->asked, NULL, text);
    } else if (PQntuples(result) == 0 || PQgetisnull(result, 0, 0)) {
        give(self, self->asked, "null", self->asked == ORDER ? "refused: there is no such group" : NULL);
    } else if (self->asked == ORDER) {
        give_answer(self, PQgetvalue(result, 0, 0));
    } else {
        give(self, self->asked, PQgetvalue(result, 0, 0), NULL);
    }
    step(self);
}

/* ---- questions */

static void ask(struct operator* self, const char *sql, int count, const char *const *values)
{
    postgres_query(self->postgres, sql, count, values, ANSWER_MS, on_reply, self);
}

static void ask_order(struct operator* self)
{
    char member[24];
    const char *node = self->order.node;
    (void)snprintf(member, sizeof member, "%lld", (long long)self->order.member_id);
    switch (self->order.type) {
    case DESK_RETIRE:
        ask(self, "select set_retired($1, $2, true)", 2, (const char *[]){self->group, node});
        break;
    case DESK_ENLIST:
    case DESK_START:
        ask(self, "select set_retired($1, $2, false)", 2, (const char *[]){self->group, node});
        break;
    case DESK_SWITCHOVER:
        ask(self, "select request_switchover($1, $2)", 2, (const char *[]){self->group, node[0] ? node : NULL});
        break;
    case DESK_PAUSE:
        ask(self, "select set_paused($1, true)", 1, (const char *[]){self->group});
        break;
    case DESK_RESUME:
        ask(self, "select set_paused($1, false)", 1, (const char *[]){self->group});
        break;
    case DESK_REMOVE:
        ask(self, "select remove_member($1, $2)", 2, (const char *[]){self->group, member});
        break;
    case DESK_NO_ORDER:
        break;
    }
}

static void ask_details(struct operator* self)
{
    char member[24];
    (void)snprintf(member, sizeof member, "%lld", (long long)self->member_id);
    ask(self, "select member_details($1, $2)", 2, (const char *[]){self->group, member});
}

static void on_idle(uv_timer_t *timer)
{
    struct operator* self = timer->data;
    postgres_drop(self->postgres);
}

static void step(struct operator* self)
{
    bool any = false;
    for (int i = 0; i < REQUESTS; i++)
        any = any || self->wanted[i];
    if (!any || postgres_busy(self->postgres))
        return;
    if (!postgres_connected(self->postgres)) {
        postgres_connect(self->postgres);
        return;
    }
    (void)uv_timer_start(&self->idle, on_idle, IDLE_MS, 0); /* fails only when closing */
    for (self->asked = ORDER; !self->wanted[self->asked];)
        self->asked++;
    self->wanted[self->asked] = false;
    if (self->asked == ORDER)
        ask_order(self);
    else if (self->asked == DETAILS)
        ask_details(self);
    else
        ask(self, "select groups()", 0, NULL);
}

/* ---- connection */

static void on_connected(void *data)
{
    step(data);
}

static void on_disconnected(void *data, const struct error *error)
{
    struct operator* self = data;
    for (int i = 0; i < REQUESTS; i++) {
        if (!self->wanted[i])
            continue;
        self->wanted[i] = false;
        char text[sizeof error->text + 16];
        (void)snprintf(text, sizeof text, "%s%s", i == ORDER ? "not done: " : "", error->text);
        give(self, (enum request)i, NULL, text);
    }
}

static void on_notify(void *data, const char *payload)
{
}

bool operator_create(uv_loop_t *loop, const struct config *config, const struct operator_calls *calls,
                     struct operator** ret_operator, struct error *error)
{
    struct operator* self = calloc(1, sizeof *self);
    if (!self)
        return error_set(error, EXIT_CODE_DATABASE, "out of memory");
    struct postgres_settings settings = {.conninfo = config->postgres,
                                         .application_name = "heirflow-interface:operator",
                                         .schema = config->schema,
                                         .attempt_ms = ATTEMPT_MS,
                                         .lock_timeout_ms = LOCK_MS,
                                         .on_connected = on_connected,
                                         .on_disconnected = on_disconnected,
                                         .on_notify = on_notify,
                                         .data = self};
    self->calls = *calls;
    self->postgres = postgres_create(loop, &settings, error);
    if (!self->postgres) {
        free(self);
        return false;
    }
    (void)uv_timer_init(loop, &self->idle); /* cannot fail */
    self->idle.data = self;
    self->open_handles = 2;
    *ret_operator = self;
    return true;
}

void operator_carry_out(struct operator* self, const char *group, const struct desk_order *order)
{
    (void)snprintf(self->group, sizeof self->group, "%s", group);
    self->order = *order;
    self->wanted[ORDER] = true;
    step(self);
}

void operator_read_details(struct operator* self, const char *group, int64_t member_id)
{
    (void)snprintf(self->group, sizeof self->group, "%s", group);
    self->member_id = member_id;
    self->wanted[DETAILS] = true;
    step(self);
}

void operator_read_groups(struct operator* self)
{
    self->wanted[GROUPS] = true;
    step(self);
}

static void closed(struct operator* self)
{
    if (--self->open_handles == 0)
        free(self);
}

static void on_postgres_closed(void *data)
{
    closed(data);
}

static void on_idle_closed(uv_handle_t *handle)
{
    closed(handle->data);
}

void operator_destroy(struct operator* self)
{
    if (!self)
        return;
    uv_close((uv_handle_t *)&self->idle, on_idle_closed);
    postgres_destroy(self->postgres, on_postgres_closed, self);
}
