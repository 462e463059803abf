/* Owns the wording of database failures and their remedies; never sees a connection string. */
#include "complaint.h"

#include <stdio.h>
#include <string.h>

bool complaint_is_failure(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    return status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK && status != PGRES_EMPTY_QUERY;
}

bool complaint_is_fatal(const PGresult *result)
{
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    return severity && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
}

static const struct {
    const char *symptom, *remedy;
    bool may_pass;
} remedies[] = {
    {"certificate verify failed", "the server's certificate is not signed by an authority in sslrootcert, or has expired",
     false},
    {"does not match host name", "use a name that is in the server's certificate, or give it one with this name", false},
    {"root certificate file", "name the authority's certificate in sslrootcert", false},
    {"requires a valid client certificate", "give one with sslcert and sslkey", false},
    {"unknown ca", "the server does not know the authority that signed sslcert", false},
    {"certificate expired", "renew the one named by sslcert", false},
    {"certificate authentication failed", "the certificate named by sslcert belongs to another user", false},
    {"server does not support SSL", "ssl = on in the server's postgresql.conf", false},
    {"password authentication failed", "check user and password", false},
    {"no password supplied", "give a password in the connection string, PGPASSWORD or the password file", false},
    {"no pg_hba.conf entry", "allow this host, user and database in the server's pg_hba.conf", false},
    {"authentication failed", "check the user and the server's pg_hba.conf", false},
    {"is not permitted to log in", "alter role ... login", false},
    {"permission denied for database", "grant connect on the database to this user", false},
    {"role \"", "create the role, or name another user", false},
    {"database \"", "create the database, or name another one", false},
    {"Connection refused", "is the server running, and listening there?", true},
    {"No such file or directory", "is the server running, and is this its socket?", true},
    {"too many clients", "raise max_connections, or close connections", true},
    {"remaining connection slots", "raise max_connections, or close connections", true},
};

/* The first line of a libpq message without what host_describe says anyway. */
static void shorten(const char *message, char *ret_text, size_t size)
{
    const char *failed = strstr(message, "failed: ");
    const char *end_of_line = strchr(message, '\n');
    if (failed && strncmp(message, "connection to server", 20) == 0 && (!end_of_line || failed < end_of_line))
        message = failed + strlen("failed: ");
    if (strncmp(message, "FATAL:  ", 8) == 0)
        message += 8;
    (void)snprintf(ret_text, size, "%.*s", (int)strcspn(message, "\n"), message);
}

void complaint_of_result(const PGresult *result, char *ret_text, size_t size)
{
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
    const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    bool brief_detail = detail && strlen(detail) <= 200;
    bool brief_hint = hint && strlen(hint) <= 200;
    if (!primary) {
        shorten(result ? PQresultErrorMessage(result) : "", ret_text, size);
        return;
    }
    (void)snprintf(ret_text, size, "%.400s%s%s%s%s%s%s%s", primary, brief_detail ? "; " : "", brief_detail ? detail : "",
                   brief_hint ? "; hint: " : "", brief_hint ? hint : "", state ? " (SQLSTATE " : "", state ? state : "",
                   state ? ")" : "");
}

/* Classes of SQL errors that may be gone the next time. */
static bool may_pass(const PGresult *result)
{
    static const char *const classes[] = {"08", "40", "53", "55P03", "57"};
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    for (size_t i = 0; state && i < sizeof classes / sizeof *classes; i++) {
        if (strncmp(state, classes[i], strlen(classes[i])) == 0)
            return true;
    }
    return false;
}

void complaint_set_error(const PGresult *result, struct error *error)
{
    char text[900];
    complaint_of_result(result, text, sizeof text);
    (void)error_set(error, EXIT_CODE_DATABASE, "%s", text);
    error->retryable = may_pass(result);
}

void complaint_of_connection(const PGconn *conn, char *ret_text, size_t size)
{
    shorten(conn ? PQerrorMessage(conn) : "out of memory", ret_text, size);
}

bool complaint_add_remedy(char *text, size_t size)
{
    for (size_t i = 0; i < sizeof remedies / sizeof *remedies; i++) {
        size_t length = strlen(text);
        if (!strstr(text, remedies[i].symptom))
            continue;
        (void)snprintf(text + length, size - length, " (%s)", remedies[i].remedy);
        return remedies[i].may_pass;
    }
    return true;
}
