/* Owns the schema's version: applies migrations one transaction each, and judges whether this program fits the schema.
 * Never touches a row of roster, throne or news. */
#include "migrate.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"

#define CALL_MS 10000
#define MIGRATION_MS 120000
#define WAIT_FOR_OTHERS_MS 60000
#define TRY_AGAIN_MS 500

int migrate_newest_version(void)
{
    int newest = 0;
    for (const struct migration *migration = migrations; migration->version; migration++)
        newest = migration->version;
    return newest;
}

/* ---- the schema as it is */

struct state {
    bool exists, may_create; /* the schema; may this user create in it, or it? */
    bool may_read;           /* schema_version exists and may be read */
    bool has_version;        /* schema_version exists */
    int version;             /* 0: nothing applied yet */
    char user[64], database[64], owner[64];
};

static bool flag(const PGresult *result, int column)
{
    return *PQgetvalue(result, 0, column) == 't';
}

static bool read_state(struct postgres_session *session, const char *schema, struct state *ret_state, struct error *error)
{
    static const char catalog_sql[] =
        "select n.oid is not null,"
        " case when n.oid is null then has_database_privilege(current_database(), 'create')"
        " else has_schema_privilege(n.oid, 'create') end,"
        " c.oid is not null,"
        " c.oid is not null and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select'),"
        " session_user, current_database(), pg_get_userbyid(n.nspowner)"
        " from (select $1::text as name) s left join pg_namespace n on n.nspname = s.name"
        " left join pg_class c on c.relnamespace = n.oid and c.relname = 'schema_version'";
    cleanup_result PGresult *catalog = NULL, *version = NULL;
    if (!postgres_session_call(session, catalog_sql, 1, (const char *[]){schema}, CALL_MS, &catalog, error))
        return false;
    *ret_state = (struct state){.exists = flag(catalog, 0),
                                .may_create = flag(catalog, 1),
                                .has_version = flag(catalog, 2),
                                .may_read = flag(catalog, 3)};
    (void)snprintf(ret_state->user, sizeof ret_state->user, "%s", PQgetvalue(catalog, 0, 4));
    (void)snprintf(ret_state->database, sizeof ret_state->database, "%s", PQgetvalue(catalog, 0, 5));
    (void)snprintf(ret_state->owner, sizeof ret_state->owner, "%s", PQgetvalue(catalog, 0, 6));
    if (!ret_state->may_read)
        return true;
    char sql[160];
    (void)snprintf(sql, sizeof sql, "select coalesce(max(version), 0) from \"%s\".schema_version", schema);
    if (!postgres_session_call(session, sql, 0, NULL, CALL_MS, &version, error))
        return false;
    ret_state->version = atoi(PQgetvalue(version, 0, 0));
    return true;
}

static bool refuse_newer(const char *schema, int version, struct error *error)
{
    return error_set(error, EXIT_CODE_DATABASE,
                     "schema \"%s\" of the database has version %d, this program knows %d: upgrade heirflow on this node",
                     schema, version, migrate_newest_version());
}

bool migrate_check_version(struct postgres_session *session, const char *schema, struct error *error)
{
    struct state state;
    if (!read_state(session, schema, &state, error))
        return error_wrap(error, "reading the schema's version");
    if (!state.exists || !state.has_version)
        return error_set(error, EXIT_CODE_DATABASE, "database \"%s\" has no %s \"%s\": run `heirflow migrate`",
                         state.database, state.exists ? "Heirflow tables in schema" : "schema", schema);
    if (!state.may_read)
        return error_set(error, EXIT_CODE_DATABASE,
                         "user \"%s\" may not use schema \"%s\": as its owner \"%s\" run: grant heirflow_member to \"%s\" "
                         "(heirflow_viewer is enough to look)",
                         state.user, schema, state.owner, state.user);
    if (state.version < migrate_newest_version())
        return error_set(error, EXIT_CODE_DATABASE,
                         "schema \"%s\" has version %d, this program needs %d: run `heirflow migrate`", schema,
                         state.version, migrate_newest_version());
    return state.version <= migrate_newest_version() + 1 || refuse_newer(schema, state.version, error);
}

/* ---- applying */

static bool command(struct postgres_session *session, const char *sql, struct error *error)
{
    cleanup_result PGresult *result = NULL;
    return postgres_session_call(session, sql, 0, NULL, CALL_MS, &result, error);
}

static void say(const char *text)
{
    puts(text);
    (void)fflush(stdout);
}

/* One migration at a time in this database and schema, whoever runs it; released with the connection. */
static bool take_turn(struct postgres_session *session, const char *schema, struct error *error)
{
    int64_t until_ms = clock_now_ms() + WAIT_FOR_OTHERS_MS;
    for (int attempt = 0;; attempt++) {
        cleanup_result PGresult *result = NULL;
        if (!postgres_session_call(session, "select pg_try_advisory_lock(hashtextextended('heirflow migrate ' || $1, 0))",
                                   1, (const char *[]){schema}, CALL_MS, &result, error))
            return false;
        if (flag(result, 0))
            return true;
        if (clock_now_ms() >= until_ms)
            return error_set_retryable(error, EXIT_CODE_DATABASE,
                                       "another migration has been at work for %d s: see pg_stat_activity for \"heirflow "
                                       "migrate\", then try again",
                                       WAIT_FOR_OTHERS_MS / 1000);
        if (attempt % 50 == 0)
            say("waiting for another migration to end ...");
        (void)usleep(100000);
    }
}

static bool prepare(struct postgres_session *session, const char *schema, const struct state *state, struct error *error)
{
    char sql[400];
    if (!state->may_create)
        return state->exists
                   ? error_set(
                         error, EXIT_CODE_DATABASE,
                         "user \"%s\" may not create anything in schema \"%s\": run `heirflow migrate` as its owner \"%s\"",
                         state->user, schema, state->owner)
                   : error_set(
                         error, EXIT_CODE_DATABASE,
                         "user \"%s\" may not create schema \"%s\": as the owner of the database run: grant create on "
                         "database \"%s\" to \"%s\"; or run `heirflow migrate` as a user who may",
                         state->user, schema, state->database, state->user);
    (void)snprintf(sql, sizeof sql, "create schema \"%s\"", schema); /* "if not exists" would ask for a right not needed */
    if (!state->exists && !command(session, sql, error))
        return false;
    (void)snprintf(sql, sizeof sql,
                   "create table \"%s\".schema_version (version integer primary key, name text not null,"
                   " applied_at timestamptz not null default now(), applied_by text not null default session_user)",
                   schema);
    return state->has_version || command(session, sql, error);
}

/* Runs the statements of heirflow.migration and records them; when a lock cannot be had in time all of it is undone.
 * Renewals queue behind a lock that we wait for, so several such waits have to be short beside the shortest lease. */
static const char apply_sql[] = "do $$ begin"
                                " perform set_config('heirflow.outcome', 'applied', true);"
                                " if exists (select from schema_version) then"
                                " execute 'select set_config(''lock_timeout'', greatest(10, least(300,"
                                " min(least(lease_ms, next_lease_ms)) / 20))::text, true) from throne'; end if;"
                                " execute current_setting('heirflow.migration');"
                                " insert into schema_version (version, name)"
                                " values (current_setting('heirflow.version')::integer, current_setting('heirflow.name'));"
                                " exception when lock_not_available then"
                                " perform set_config('heirflow.outcome', 'locked', true); end $$";

static bool apply_in_transaction(struct postgres_session *session, const char *schema, const struct migration *migration,
                                 bool *ret_applied, struct error *error)
{
    char search_path[200], version[16];
    cleanup_result PGresult *set = NULL, *done = NULL, *outcome = NULL;
    (void)snprintf(search_path, sizeof search_path, "set local search_path = \"%s\", pg_temp", schema);
    (void)snprintf(version, sizeof version, "%d", migration->version);
    bool fine =
        command(session, "begin", error) && command(session, search_path, error) &&
        command(session, "set local lock_timeout = '300ms'", error) &&
        postgres_session_call(session,
                              "select set_config('heirflow.migration', $1, true), set_config('heirflow.version', $2, true),"
                              " set_config('heirflow.name', $3, true)",
                              3, (const char *[]){migration->text, version, migration->name}, CALL_MS, &set, error) &&
        postgres_session_call(session, apply_sql, 0, NULL, MIGRATION_MS, &done, error) &&
        postgres_session_call(session, "select current_setting('heirflow.outcome') = 'applied'", 0, NULL, CALL_MS, &outcome,
                              error);
    if (!fine)
        return false;
    *ret_applied = flag(outcome, 0);
    return command(session, *ret_applied ? "commit" : "rollback", error);
}

static bool apply(struct postgres_session *session, const char *schema, const struct migration *migration,
                  struct error *error)
{
    int64_t until_ms = clock_now_ms() + WAIT_FOR_OTHERS_MS;
    for (bool told = false; clock_now_ms() < until_ms; told = true) {
        bool applied = false;
        if (!apply_in_transaction(session, schema, migration, &applied, error)) {
            struct error ignored; /* the transaction is lost already */
            (void)command(session, "rollback", &ignored);
            return error_wrap(error, "migration %s", migration->name);
        }
        if (applied) {
            printf("applied %s\n", migration->name);
            (void)fflush(stdout);
            return true;
        }
        if (!told)
            printf("migration %s: a table is locked by others, trying again for %d s ...\n", migration->name,
                   WAIT_FOR_OTHERS_MS / 1000);
        (void)fflush(stdout);
        (void)usleep(TRY_AGAIN_MS * 1000);
    }
    return error_set_retryable(error, EXIT_CODE_DATABASE,
                               "migration %s: a table stayed locked by others; see pg_locks, then try again",
                               migration->name);
}

/* Creating a role takes a right that an owner of a schema may lack; the schema works without, for its owner alone. */
static bool say_missing_roles(struct postgres_session *session, const char *schema, struct error *error)
{
    cleanup_result PGresult *result = NULL;
    if (!postgres_session_call(session,
                               "select string_agg(name, ', ') from unnest(array['heirflow_member', 'heirflow_operator', "
                               "'heirflow_viewer']) name"
                               " where not exists (select from pg_roles where rolname = name)",
                               0, NULL, CALL_MS, &result, error))
        return false;
    if (!PQgetisnull(result, 0, 0))
        printf(
            "note: only its owner can use schema \"%s\": this user may not create the roles that others need (%s). To have "
            "them, run `heirflow migrate` once more as a superuser\n",
            schema, PQgetvalue(result, 0, 0));
    return true;
}

/* Each time: roles may have been made since. */
static bool give_rights(struct postgres_session *session, const char *schema, struct error *error)
{
    cleanup_result PGresult *may = NULL, *done = NULL;
    char sql[120];
    if (!postgres_session_call(session, "select has_function_privilege(format('%I.give_rights()', $1::text), 'execute')", 1,
                               (const char *[]){schema}, CALL_MS, &may, error))
        return error_wrap(error, "rights");
    if (!flag(may, 0))
        return true;
    (void)snprintf(sql, sizeof sql, "select \"%s\".give_rights()", schema);
    return (postgres_session_call(session, sql, 0, NULL, CALL_MS, &done, error) || error_wrap(error, "rights")) &&
           say_missing_roles(session, schema, error);
}

static bool migrate(struct postgres_session *session, const char *schema, struct error *error)
{
    struct state state;
    if (!read_state(session, schema, &state, error))
        return false;
    if (state.version > migrate_newest_version())
        return refuse_newer(schema, state.version, error);
    if (state.has_version && state.version == migrate_newest_version()) {
        if (state.may_read && !give_rights(session, schema, error))
            return false;
        printf("schema \"%s\" is at version %d already\n", schema, state.version);
        return true;
    }
    if (!take_turn(session, schema, error) || !read_state(session, schema, &state, error))
        return false;
    if (state.version > migrate_newest_version()) /* a newer program was faster */
        return refuse_newer(schema, state.version, error);
    if (!prepare(session, schema, &state, error))
        return false;
    for (const struct migration *migration = migrations; migration->version; migration++) {
        if (migration->version > state.version && !apply(session, schema, migration, error))
            return false;
    }
    if (!give_rights(session, schema, error))
        return false;
    printf("schema \"%s\" is at version %d\n", schema, migrate_newest_version());
    return true;
}

int migrate_run(const struct config *config)
{
    struct postgres_settings settings = {
        .conninfo = config->postgres, .application_name = "heirflow migrate", .schema = config->schema, .attempt_ms = 5000};
    struct postgres_session *session = NULL;
    struct error error;
    bool fine = postgres_session_open(&settings, 15000, &session, &error) && migrate(session, config->schema, &error);
    postgres_session_close(session);
    if (fine)
        return EXIT_CODE_OK;
    fprintf(stderr, "heirflow migrate: %s\n", error.text);
    return error.exit_code;
}
