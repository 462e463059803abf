/* Owns what an operator asks for, and the wait for its outcome. Never carries anything out: the heir does. */
#include "operate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "session.h"

#define POLL_MS 100
#define PATIENCE_MS 60000 /* the default stop_timeout_ms, twice */

/* One command under way. */
struct operation {
    const struct config *config;
    const struct options *options;
    const char *command;
    struct postgres_session *session;
    int64_t since; /* the last event before the request */
};

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool ask(struct operation *self, const char *sql, int count, const char *const *values, json_t **ret_json,
                struct error *error)
{
    return session_ask(self->session, sql, count, values, ret_json, NULL, error);
}

/* Where the function exists, but not for this user, the server only says that there is none. */
static int fail(const struct operation *self, struct error *error)
{
    if (strstr(error->text, "(SQLSTATE 42501)") || strstr(error->text, "(SQLSTATE 42883)"))
        (void)error_set(error, EXIT_CODE_DATABASE, "this database user is no operator: grant heirflow_operator to it");
    return session_fail(self->command, error);
}

/* ---- the outcome of a hand-over ---- */

struct outcome {
    char ended[64]; /* how the term ended: reason of its end, "" while it goes on */
    char successor[256];
    int64_t term; /* the successor's */
    double ended_at, started_at;
};

static void read_event(const json_t *event, int64_t term, struct outcome *outcome)
{
    const char *type = text_of(event, "event");
    int64_t of = json_integer_value(json_object_get(event, "term"));
    bool end = strcmp(type, "abdicated") == 0 || strcmp(type, "deposed") == 0;
    double at = json_number_value(json_object_get(event, "at"));
    if (end && of == term) {
        (void)snprintf(outcome->ended, sizeof outcome->ended, "%s",
                       *text_of(event, "reason") ? text_of(event, "reason") : type);
        outcome->ended_at = at;
    } else if (strcmp(type, "acceded") == 0 && of > term) {
        (void)snprintf(outcome->successor, sizeof outcome->successor, "%s", text_of(event, "node"));
        outcome->term = of;
        outcome->started_at = 0;
    } else if (strcmp(type, "scheduler-started") == 0 && of == outcome->term && !outcome->started_at) {
        outcome->started_at = at;
    }
}

static bool look(struct operation *self, int64_t term, struct outcome *outcome, struct error *error)
{
    char since[24];
    cleanup_json json_t *events = NULL;
    (void)snprintf(since, sizeof since, "%" PRId64, self->since);
    if (!ask(self,
             "select coalesce(json_agg(json_build_object('event', event, 'term', body->'data'->'term', 'node', "
             "body->'subject',"
             " 'reason', body->'data'->'reason', 'at', extract(epoch from (body->>'time')::timestamptz))"
             " order by sequence), '[]') from news_after($1, $2, 1000)",
             2, (const char *const[]){self->config->group, since}, &events, error))
        return false;
    *outcome = (struct outcome){0};
    size_t i;
    json_t *event;
    json_array_foreach(events, i, event)
    {
        read_event(event, term, outcome);
    }
    return true;
}

static int report(const struct operation *self, const char *heir, const struct outcome *outcome)
{
    double gap_s = outcome->started_at - outcome->ended_at;
    if (gap_s < 0)
        gap_s = 0;
    if (self->options->json) {
        cleanup_json json_t *json =
            json_pack("{s:s, s:s, s:I, s:s, s:I}", "from", heir, "to", outcome->successor, "term",
                      (json_int_t)outcome->term, "reason", outcome->ended, "gap_ms", (json_int_t)(gap_s * 1000));
        (void)json_dumpf(json, stdout, JSON_COMPACT);
        (void)putchar('\n');
    } else {
        printf("%s -> %s, term %" PRId64 " (%s), %.3f s without a scheduler\n", heir, outcome->successor, outcome->term,
               outcome->ended, gap_s);
    }
    const char *to = self->options->to;
    if (!to || strcmp(to, outcome->successor) == 0)
        return EXIT_CODE_OK;
    fprintf(stderr, "heirflow %s: %s could not lead when its turn came\n", self->command, to);
    return EXIT_CODE_NEGATIVE;
}

/* The request stands whatever becomes of this command. */
static int await_outcome(struct operation *self, int64_t term, const char *heir)
{
    struct error error;
    struct outcome outcome;
    int64_t patience_ms = self->options->timeout_s >= 0 ? self->options->timeout_s * 1000 : PATIENCE_MS;
    int64_t until_ms = clock_now_ms() + patience_ms;
    for (;;) {
        if (!look(self, term, &outcome, &error))
            return fail(self, &error);
        if (outcome.started_at)
            return report(self, heir, &outcome);
        if (clock_now_ms() >= until_ms)
            break;
        (void)postgres_session_wait(self->session, POLL_MS, &error);
        if (error.text[0])
            return fail(self, &error);
    }
    const char *state = !outcome.ended[0]       ? "the scheduler has not stopped yet"
                        : !outcome.successor[0] ? "the scheduler has stopped, and nobody has taken over"
                                                : "the successor's scheduler has not started yet";
    (void)error_set(&error, EXIT_CODE_NEGATIVE, "%s after %lld s; the request stands: see heirflow status", state,
                    (long long)patience_ms / 1000);
    return session_fail(self->command, &error);
}

/* ---- the commands ---- */

static bool begin(struct operation *self, struct error *error)
{
    cleanup_json json_t *last = NULL;
    char name[64];
    (void)snprintf(name, sizeof name, "heirflow %s", self->command);
    if (!session_open(self->config, name, &self->session, error))
        return false;
    if (!ask(self, "select to_json(news_last($1))", 1, (const char *const[]){self->config->group}, &last, error))
        return false;
    if (json_is_null(last))
        return session_refuse_group(self->session, self->config, error);
    self->since = json_integer_value(last);
    return true;
}

static int operate(const struct config *config, const struct options *options, int (*act)(struct operation *self))
{
    struct operation self = {.config = config, .options = options, .command = options->command->name};
    struct error error;
    int code;
    if (!begin(&self, &error))
        code = session_fail(self.command, &error);
    else
        code = act(&self);
    postgres_session_close(self.session);
    return code;
}

/* "Already so" is success. */
static int refuse(const struct operation *self, const json_t *reply)
{
    struct error error;
    if (json_is_true(json_object_get(reply, "already"))) {
        printf("%s\n", text_of(reply, "refused"));
        return EXIT_CODE_OK;
    }
    (void)error_set(&error, EXIT_CODE_NEGATIVE, "%s", text_of(reply, "refused"));
    return session_fail(self->command, &error);
}

static int switchover(struct operation *self)
{
    struct error error;
    cleanup_json json_t *reply = NULL;
    if (!ask(self, "select request_switchover($1, $2)", 2, (const char *const[]){self->config->group, self->options->to},
             &reply, &error))
        return fail(self, &error);
    if (!json_is_true(json_object_get(reply, "accepted")))
        return refuse(self, reply);
    return await_outcome(self, json_integer_value(json_object_get(reply, "term")), text_of(reply, "heir"));
}

static int set_paused(struct operation *self, bool paused)
{
    struct error error;
    cleanup_json json_t *changed = NULL;
    if (!ask(self, "select to_json(set_paused($1, $2))", 2,
             (const char *const[]){self->config->group, paused ? "true" : "false"}, &changed, &error))
        return fail(self, &error);
    const char *already = json_is_true(changed) ? "" : " already";
    if (paused)
        printf("%s is paused%s: nobody takes over until heirflow resume\n", self->config->group, already);
    else
        printf("%s goes on%s\n", self->config->group, already);
    return EXIT_CODE_OK;
}

static int pause_group(struct operation *self)
{
    return set_paused(self, true);
}

static int resume_group(struct operation *self)
{
    return set_paused(self, false);
}

static bool is_on_roster(struct operation *self)
{
    struct error error;
    cleanup_json json_t *found = NULL;
    return ask(self,
               "select to_json(jsonb_path_exists(status($1), '$.members[*] ? (@.node == $node)',"
               " jsonb_build_object('node', $2::text)))",
               2, (const char *const[]){self->config->group, self->config->node}, &found, &error) &&
           json_is_true(found);
}

static int set_retired(struct operation *self, bool retired)
{
    struct error error;
    cleanup_json json_t *reply = NULL;
    const char *node = self->config->node;
    const char *absent = is_on_roster(self) ? "" : "; no member of that name is on the roster now";
    if (!ask(self, "select set_retired($1, $2, $3)", 3,
             (const char *const[]){self->config->group, node, retired ? "true" : "false"}, &reply, &error))
        return fail(self, &error);
    if (!json_is_true(json_object_get(reply, "accepted")))
        return refuse(self, reply);
    const char *already = json_is_true(json_object_get(reply, "changed")) ? "" : " already";
    if (!retired) {
        printf("%s is in the line%s%s\n", node, already, absent);
        return EXIT_CODE_OK;
    }
    printf("%s is retired%s%s\n", node, already, absent);
    if (!json_is_true(json_object_get(reply, "heir")))
        return EXIT_CODE_OK;
    return await_outcome(self, json_integer_value(json_object_get(reply, "term")), node);
}

static int retire(struct operation *self)
{
    return set_retired(self, true);
}

static int enlist(struct operation *self)
{
    return set_retired(self, false);
}

static int set_lease(struct operation *self)
{
    struct error error;
    cleanup_json json_t *changed = NULL;
    char lease[24];
    (void)snprintf(lease, sizeof lease, "%" PRId64, self->options->lease_ms);
    if (!ask(self, "select to_json(set_lease($1, $2))", 2, (const char *const[]){self->config->group, lease}, &changed,
             &error))
        return fail(self, &error);
    printf("the lease of %s will be %" PRId64 " ms%s\n", self->config->group, self->options->lease_ms,
           json_is_true(changed) ? " from the next accession on" : ", as it is or will be already");
    return EXIT_CODE_OK;
}

int operate_switchover(const struct config *config, const struct options *options)
{
    return operate(config, options, switchover);
}

int operate_pause(const struct config *config, const struct options *options)
{
    return operate(config, options, pause_group);
}

int operate_resume(const struct config *config, const struct options *options)
{
    return operate(config, options, resume_group);
}

int operate_retire(const struct config *config, const struct options *options)
{
    return operate(config, options, retire);
}

int operate_enlist(const struct config *config, const struct options *options)
{
    return operate(config, options, enlist);
}

int operate_lease(const struct config *config, const struct options *options)
{
    return operate(config, options, set_lease);
}
