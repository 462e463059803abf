/* Owns the SQL of a member's calls and the reading of their replies. Decides nothing. */
#include "roster.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"

static void copy(char *to, size_t size, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    (void)snprintf(to, size, "%s", text ? text : "");
}

static int64_t integer(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key)); /* 0 for null */
}

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static enum succession_asked read_asked(const json_t *object)
{
    const char *request = json_string_value(json_object_get(object, "request"));
    if (request && strcmp(request, "switchover") == 0)
        return ASKED_SWITCHOVER;
    if (request && strcmp(request, "retire") == 0)
        return ASKED_RETIRE;
    return ASKED_NOTHING;
}

static bool read_observation(const json_t *object, struct succession_observation *ret)
{
    if (!json_is_string(json_object_get(object, "identity")) || !json_is_integer(json_object_get(object, "term")) ||
        integer(object, "lease_ms") <= 0)
        return false;
    copy(ret->throne.identity, sizeof ret->throne.identity, object, "identity");
    ret->throne.heir = integer(object, "heir");
    copy(ret->throne.incarnation, sizeof ret->throne.incarnation, object, "heir_incarnation");
    ret->throne.term = integer(object, "term");
    ret->throne.beat = integer(object, "beat");
    ret->home = is_true(object, "home");
    ret->lease_ms = integer(object, "lease_ms");
    ret->accession_lease_ms = integer(object, "accession_lease_ms");
    ret->wait_ms = integer(object, "wait_ms");
    ret->paused = is_true(object, "paused");
    ret->last_seat = is_true(object, "last_seat");
    ret->known = is_true(object, "known");
    ret->member_id = integer(object, "member_id");
    copy(ret->incarnation, sizeof ret->incarnation, object, "incarnation");
    ret->rank = integer(object, "rank");
    ret->eldest = is_true(object, "eldest");
    ret->named = is_true(object, "named");
    ret->held_back = is_true(object, "held_back");
    ret->retired = is_true(object, "retired");
    ret->asked = read_asked(object);
    ret->beat_in_ms = json_is_integer(json_object_get(object, "beat_in_ms")) ? integer(object, "beat_in_ms") : -1;
    return ret->wait_ms >= ret->lease_ms && ret->accession_lease_ms > 0;
}

static bool read_granted(enum succession_request request, const json_t *object)
{
    switch (request) {
    case REQUEST_REGISTER:
        return !json_object_get(object, "refused");
    case REQUEST_HEARTBEAT:
        return is_true(object, "renewed");
    case REQUEST_ACCEDE:
        return is_true(object, "acceded");
    case REQUEST_LEAVE:
        return is_true(object, "left");
    case REQUEST_ABDICATE:
    case REQUEST_NONE:
        break;
    }
    return true;
}

static bool read_reply(const struct roster *self, const PGresult *result, struct roster_reply *ret, struct error *error)
{
    json_error_t fault;
    if (PQntuples(result) != 1 || PQnfields(result) != 1)
        return error_set_retryable(error, EXIT_CODE_DATABASE, "the reply is not one value; is the schema Heirflow's?");
    cleanup_json json_t *object = json_loads(PQgetvalue(result, 0, 0), 0, &fault);
    if (!json_is_object(object))
        return error_set_retryable(error, EXIT_CODE_DATABASE, "the reply is no JSON object: %s", fault.text);
    *ret = (struct roster_reply){.number = self->number, .request = self->request};
    ret->granted = read_granted(self->request, object);
    ret->observed = self->request != REQUEST_ABDICATE && self->request != REQUEST_LEAVE;
    if (ret->observed && !read_observation(object, &ret->observation))
        return error_set_retryable(error, EXIT_CODE_DATABASE,
                                   "the reply lacks what this version needs; run `heirflow check`");
    ret->fence = is_true(object, "fence");
    ret->unable = is_true(object, "unable");
    ret->unpublished = integer(object, "unpublished");
    copy(ret->heir_node, sizeof ret->heir_node, object, "heir_node");
    copy(ret->successor, sizeof ret->successor, object, "successor");
    copy(ret->refusal, sizeof ret->refusal, object, "refused");
    return true;
}

static const char *call_name(enum succession_request request)
{
    static const char *const names[] = {
        [REQUEST_NONE] = "",         [REQUEST_REGISTER] = "register", [REQUEST_HEARTBEAT] = "heartbeat",
        [REQUEST_ACCEDE] = "accede", [REQUEST_ABDICATE] = "abdicate", [REQUEST_LEAVE] = "leave",
    };
    return names[request];
}

/* What an operator can do about a refusal, by SQLSTATE (PostgreSQL manual, appendix A). */
static void add_remedy(struct error *error)
{
    static const struct {
        const char *state, *text;
    } remedies[] = {
        {"(SQLSTATE 42883)",
         "the schema is missing, older than this program, or closed to this user: run `heirflow migrate`, and "
         "grant heirflow_member to the user"},
        {"(SQLSTATE 3F000)", "the database lacks Heirflow's schema: run `heirflow migrate`"},
        {"(SQLSTATE 42501)", "this user lacks rights: grant heirflow_member to it"},
    };
    for (size_t i = 0; i < sizeof remedies / sizeof *remedies; i++) {
        if (strstr(error->text, remedies[i].state))
            (void)error_set_retryable(error, EXIT_CODE_DATABASE, "%s %s", remedies[i].text, remedies[i].state);
    }
}

static void on_result(void *data, const PGresult *result, const char *warning, const struct error *cause)
{
    struct roster *self = data;
    struct roster_reply reply;
    struct error error = {0};
    if (!result)
        error = *cause;
    else if (warning && (self->renew || self->request == REQUEST_ACCEDE))
        (void)error_set_retryable(&error, EXIT_CODE_DATABASE, "the server warns: %s", warning);
    else if (read_reply(self, result, &reply, &error)) {
        self->on_reply(self->data, reply.number, &reply, NULL);
        return;
    }
    add_remedy(&error);
    (void)error_wrap(&error, "%s", call_name(self->request));
    self->on_reply(self->data, self->number, NULL, &error);
}

#define DIGITS 24
#define NUMBER(buffer, value) (snprintf(buffer, DIGITS, "%" PRId64, (int64_t)(value)), (buffer))

static void send_register(struct roster *self, const struct order *order, const char *self_text)
{
    char generation[DIGITS], lease[DIGITS];
    const char *values[] = {self->group,       self->seat, NUMBER(generation, self->generation),
                            self->incarnation, self->node, NUMBER(lease, self->lease_ms),
                            self_text};
    postgres_query(self->postgres, "select register($1, $2, $3, $4, $5, $6, $7)", 7, values, order->timeout_ms, on_result,
                   self);
}

static void send_heartbeat(struct roster *self, const struct order *order, const char *self_text, const char *news_text)
{
    char member[DIGITS], term[DIGITS];
    const char *values[] = {self->group,
                            self->seat,
                            NUMBER(member, self->member_id),
                            self->incarnation,
                            order->renew ? NUMBER(term, order->term) : NULL,
                            self_text,
                            news_text};
    postgres_query(self->postgres, "select heartbeat($1, $2, $3, $4, $5, $6, $7)", 7, values, order->timeout_ms, on_result,
                   self);
}

static void send_accede(struct roster *self, const struct order *order)
{
    const struct succession_throne *seen = &order->seen;
    char member[DIGITS], heir[DIGITS], term[DIGITS], beat[DIGITS], highest[DIGITS];
    const char *values[] = {self->group,
                            self->seat,
                            NUMBER(member, self->member_id),
                            self->incarnation,
                            seen->identity,
                            seen->heir ? NUMBER(heir, seen->heir) : NULL,
                            seen->heir ? seen->incarnation : NULL,
                            NUMBER(term, seen->term),
                            NUMBER(beat, seen->beat),
                            NUMBER(highest, order->highest_term),
                            order->seniority_yields ? "true" : "false"};
    postgres_query(self->postgres, "select accede($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)", 11, values,
                   order->timeout_ms, on_result, self);
}

static void send_abdicate(struct roster *self, const struct order *order, const char *news_text)
{
    char member[DIGITS], term[DIGITS];
    const char *values[] = {self->group,        NUMBER(member, order->member_id),
                            order->incarnation, NUMBER(term, order->term),
                            order->reason,      self->node,
                            news_text};
    postgres_query(self->postgres, "select abdicate($1, $2, $3, $4, $5, $6, $7)", 7, values, order->timeout_ms, on_result,
                   self);
}

static void send_leave(struct roster *self, const struct order *order)
{
    const char *values[] = {self->group, self->seat, self->incarnation, "stopped"};
    postgres_query(self->postgres, "select leave($1, $2, $3, $4)", 4, values, order->timeout_ms, on_result, self);
}

void roster_send(struct roster *self, const struct order *order, json_t *self_json, json_t *news)
{
    cleanup_free char *self_text = json_dumps(self_json, JSON_COMPACT);
    cleanup_free char *news_text = json_dumps(news, JSON_COMPACT);
    self->number = order->number;
    self->request = order->request;
    self->renew = order->renew;
    switch (order->request) {
    case REQUEST_REGISTER:
        send_register(self, order, self_text);
        break;
    case REQUEST_HEARTBEAT:
        send_heartbeat(self, order, self_text, news_text);
        break;
    case REQUEST_ACCEDE:
        send_accede(self, order);
        break;
    case REQUEST_ABDICATE:
        send_abdicate(self, order, news_text);
        break;
    case REQUEST_LEAVE:
        send_leave(self, order);
        break;
    case REQUEST_NONE:
        break;
    }
}
