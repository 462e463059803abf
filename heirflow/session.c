/* Owns how a command opens its session and tells of a failure. Never knows which command it is for. */
#include "session.h"

#include <stdio.h>
#include <stdlib.h>

#include "cleanup.h"
#include "migrate.h"

#define OPEN_MS 15000
#define ATTEMPT_MS 5000

int session_fail(const char *command, const struct error *error)
{
    (void)fflush(stdout);
    fprintf(stderr, "heirflow %s: %s\n", command, error->text);
    return error->exit_code;
}

bool session_open(const struct config *config, const char *name, struct postgres_session **ret_session, struct error *error)
{
    struct postgres_settings settings = {
        .conninfo = config->postgres, .application_name = name, .schema = config->schema, .attempt_ms = ATTEMPT_MS};
    cleanup_result PGresult *result = NULL;
    struct postgres_session *session = NULL;
    if (!postgres_session_open(&settings, OPEN_MS, &session, error))
        return false;
    if (!migrate_check_version(session, config->schema, error) ||
        !postgres_session_call(session, "set timezone = 'UTC'", 0, NULL, SESSION_CALL_MS, &result, error)) {
        postgres_session_close(session);
        return false;
    }
    *ret_session = session;
    return true;
}

bool session_ask(struct postgres_session *session, const char *sql, int count, const char *const *values, json_t **ret_json,
                 double *ret_now, struct error *error)
{
    cleanup_result PGresult *result = NULL;
    if (!postgres_session_call(session, sql, count, values, SESSION_CALL_MS, &result, error))
        return false;
    json_error_t fault;
    if (ret_now)
        *ret_now = strtod(PQgetvalue(result, 0, 1), NULL);
    *ret_json = PQgetisnull(result, 0, 0) ? json_null() : json_loads(PQgetvalue(result, 0, 0), JSON_DECODE_ANY, &fault);
    return *ret_json || error_set(error, EXIT_CODE_DATABASE, "the database sent unusable JSON: %s", fault.text);
}

bool session_refuse_group(struct postgres_session *session, const struct config *config, struct error *error)
{
    cleanup_result PGresult *names = NULL;
    if (!postgres_session_call(session, "select string_agg(g, ', ') from group_names() g", 0, NULL, SESSION_CALL_MS, &names,
                               error))
        return false;
    if (PQgetisnull(names, 0, 0))
        return error_set(error, EXIT_CODE_NEGATIVE,
                         "there is no group \"%s\" here, nor any other: the first `heirflow run` founds it", config->group);
    return error_set(error, EXIT_CODE_NEGATIVE, "there is no group \"%s\" here; known groups: %.600s; choose with --group",
                     config->group, PQgetvalue(names, 0, 0));
}
