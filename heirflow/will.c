/* Owns the abdication that a keeper sends in place of its dead wrapper. Never looks whether the tree is dead: the keeper
 * does. */
#include "will.h"

#include <inttypes.h>
#include <stdio.h>

#include "cleanup.h"
#include "clock.h"
#include "postgres.h"

#define PATIENCE_MS 5000
#define ATTEMPT_MS 2000

static bool abdicate(const struct will *will, struct postgres_session *session, struct error *error)
{
    char member[24], term[24];
    cleanup_result PGresult *result = NULL;
    (void)snprintf(member, sizeof member, "%" PRId64, will->member_id);
    (void)snprintf(term, sizeof term, "%" PRId64, will->term);
    const char *const values[] = {will->group, member, will->incarnation, term, "wrapper died"};
    return postgres_session_call(session, "select abdicate($1, $2, $3, $4, $5)", 5, values, ATTEMPT_MS, &result, error);
}

static bool attempt(const struct will *will, int64_t until_ms, struct error *error)
{
    char application_name[512];
    (void)snprintf(application_name, sizeof application_name, "heirflow-will:%s:%s", will->group, will->node);
    struct postgres_settings settings = {
        .conninfo = will->postgres,
        .application_name = application_name,
        .schema = will->schema,
        .attempt_ms = ATTEMPT_MS,
        .lock_timeout_ms = 1000,
    };
    struct postgres_session *session = NULL;
    if (!postgres_session_open(&settings, until_ms - clock_now_ms(), &session, error))
        return false;
    bool done = abdicate(will, session, error);
    postgres_session_close(session);
    return done;
}

bool will_execute(const struct will *will, struct error *error)
{
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;
    if (until_ms < will->deadline_ms)
        until_ms = will->deadline_ms;
    while (!attempt(will, until_ms, error)) {
        if (!error->retryable || clock_now_ms() + 100 >= until_ms)
            return error_wrap(error, "last will of term %" PRId64, will->term);
        (void)usleep(100 * 1000);
    }
    return true;
}
