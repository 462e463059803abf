/* Owns one asynchronous PostgreSQL connection: the choice of server, log-in, session set-up, one statement at a time and
 * every deadline. Never blocks the loop, never retries on its own and never cancels a statement: it drops the connection.
 */
#include "postgres.h"

#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "complaint.h"
#include "hosts.h"
#include "line.h"

enum state {
    CLOSED,
    STARTING, /* postgres_connect was called; the loop has not come round yet */
    RESOLVING,
    LOGGING_IN,
    PROBING,            /* is it a primary, and is there a pooler in between? */
    SIBLING_LOGGING_IN, /* a pooler: does a second connection get the same backend? */
    SIBLING_PROBING,
    SETTING_UP,
    READY,
};

struct postgres {
    struct postgres_settings settings;
    char *application_name, *schema, *listen;
    uv_loop_t *loop;
    struct hosts hosts;
    int open_handles;
    void (*on_closed)(void *data);
    void *closed_data;

    enum state state;
    uint64_t life; /* grows whenever a connection, or the attempt at one, ends */
    struct line line, sibling;
    int backend_pid;     /* as the server tells it, behind a pooler if there is one */
    uv_timer_t deadline; /* of the attempt or the statement */
    uv_timer_t soon;     /* what a postgres_* call found out and may not tell from inside */

    int first_host, hosts_left, address; /* of the round of attempts; first_host moves along */
    char at[80];                         /* the address being tried: a late look-up may change the host's list */
    struct error causes;                 /* one for each failed attempt of the round */
    bool causes_may_pass;

    postgres_reply_cb *callback; /* set while a statement is under way */
    void *callback_data;
    int64_t timeout_ms;
    bool announce; /* on_disconnected is due after the pending callback */
    char warning[256];
    bool vacuum_told;   /* to on_vacuum_due */
    char farewell[256]; /* what the server said on ending the connection */
};

static void next_address(struct postgres *self);
static void on_line(uv_poll_t *handle, int status, int events);
static void on_deadline(uv_timer_t *timer);

static void on_handle_closed(uv_handle_t *handle)
{
    struct postgres *self = handle->data;
    if (handle->type == UV_POLL)
        free(handle);
    if (--self->open_handles > 0)
        return;
    void (*on_closed)(void *data) = self->on_closed;
    void *data = self->closed_data;
    free(self->application_name);
    free(self->schema);
    free(self->listen);
    free(self);
    if (on_closed)
        on_closed(data);
}

/* Within 40 million transaction ids of the end each transaction that gets one is warned. It says nothing of that
 * transaction, and has the SQLSTATE of warnings in general. */
static bool tells_of_vacuum(const PGresult *result)
{
    const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);
    return function && (strcmp(function, "GetNewTransactionId") == 0 || strcmp(function, "GetNewMultiXactId") == 0);
}

static void on_warning(struct postgres *self, const PGresult *result, const char *text)
{
    if (!tells_of_vacuum(result)) {
        if (!self->warning[0])
            (void)snprintf(self->warning, sizeof self->warning, "%s", text);
    } else if (!self->vacuum_told && self->settings.on_vacuum_due) {
        self->vacuum_told = true;
        self->settings.on_vacuum_due(self->settings.data, text);
    }
}

static void on_notice(void *data, const PGresult *result)
{
    struct postgres *self = data;
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (!severity || !text)
        return;
    if (strcmp(severity, "WARNING") == 0)
        on_warning(self, result, text);
    else if (complaint_is_fatal(result)) /* to an idle session it comes as a notice */
        (void)snprintf(self->farewell, sizeof self->farewell, "%s", text);
}

/* ---- the end of a connection or an attempt */

static void start_timer(uv_timer_t *timer, uv_timer_cb callback, int64_t after_ms)
{
    uv_update_time(timer->loop); /* the loop's time is that of its last turn */
    (void)uv_timer_start(timer, callback, after_ms > 0 ? (uint64_t)after_ms : 0, 0); /* fails only on a closing timer */
}

static void hang_up(struct postgres *self)
{
    self->life++;
    self->state = CLOSED;
    self->callback = NULL;
    (void)uv_timer_stop(&self->deadline);
    (void)uv_timer_stop(&self->soon);
    line_close(&self->line);
    line_close(&self->sibling);
}

/* Pending callback, then on_disconnected, each once; either may connect again, drop or destroy. */
static void lose(struct postgres *self, const struct error *error)
{
    postgres_reply_cb *callback = self->callback;
    hang_up(self);
    self->announce = true;
    if (callback)
        callback(self->callback_data, NULL, NULL, error);
    if (!self->announce)
        return;
    self->announce = false;
    if (self->settings.on_disconnected)
        self->settings.on_disconnected(self->settings.data, error);
}

static void lose_broken(struct postgres *self)
{
    struct error error = {0};
    char text[300];
    if (self->line.result && complaint_is_failure(self->line.result))
        complaint_of_result(self->line.result, text, sizeof text);
    else if (self->farewell[0])
        (void)snprintf(text, sizeof text, "%s", self->farewell);
    else
        complaint_of_connection(self->line.conn, text, sizeof text);
    (void)error_set_retryable(&error, EXIT_CODE_DATABASE, "connection to PostgreSQL lost: %s",
                              text[0] ? text : "closed by the server");
    lose(self, &error);
}

/* ---- attempts */

static struct host *current_host(struct postgres *self)
{
    return &self->hosts.list[self->first_host];
}

static void give_up(struct postgres *self)
{
    struct error error = self->causes;
    error.retryable = self->causes_may_pass;
    (void)error_wrap(&error, "cannot connect to PostgreSQL");
    lose(self, &error);
}

static void add_cause(struct postgres *self, bool passing, const char *cause)
{
    char where[200];
    host_describe(current_host(self), self->at, where, sizeof where);
    char before[sizeof self->causes.text];
    (void)snprintf(before, sizeof before, "%s", self->causes.text);
    (void)error_set(&self->causes, EXIT_CODE_DATABASE, "%s%s%s: %.300s", before, before[0] ? "; " : "", where, cause);
    self->causes_may_pass |= passing;
}

/* Ends the attempt on this address and begins the next one. */
static void fail_attempt(struct postgres *self, bool passing, const char *cause)
{
    add_cause(self, passing, cause);
    line_close(&self->line);
    line_close(&self->sibling);
    (void)uv_timer_stop(&self->deadline);
    self->address++;
    next_address(self);
}

static void fail_attempt_libpq(struct postgres *self, struct line *line)
{
    char text[300];
    if (line->result && complaint_is_failure(line->result))
        complaint_of_result(line->result, text, 240);
    else
        complaint_of_connection(line->conn, text, 240);
    bool passing = complaint_add_remedy(text, sizeof text);
    fail_attempt(self, passing, text[0] ? text : "the server closed the connection");
}

/* libpq's keepalives and the like, in reach of our own deadlines, unless the connection string has its own. */
static PGconn *dial(struct postgres *self)
{
    const char *keywords[16], *values[16];
    int count = 0;
    char user_timeout[24], idle[24];
    int64_t attempt_ms = self->settings.attempt_ms;
    (void)snprintf(user_timeout, sizeof user_timeout, "%lld", (long long)(attempt_ms > 1000 ? attempt_ms * 2 : 2000));
    (void)snprintf(idle, sizeof idle, "%lld", (long long)(attempt_ms > 1000 ? attempt_ms / 1000 : 1));
    const char *const defaults[][2] = {
        {"gssencmode", getenv("PGGSSENCMODE") ? NULL : "disable"},
        {"application_name", self->application_name},
        {"keepalives_idle", idle},
        {"keepalives_interval", idle},
        {"keepalives_count", "3"},
        {"tcp_user_timeout", user_timeout},
    };
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++) {
        if (hosts_option(&self->hosts, defaults[i][0]) || !defaults[i][1])
            continue;
        keywords[count] = defaults[i][0];
        values[count++] = defaults[i][1];
    }
    keywords[count] = "client_encoding";
    values[count++] = "UTF8";
    keywords[count] = values[count] = NULL;
    return hosts_connect(&self->hosts, current_host(self), self->at, keywords, values);
}

/* After PQconnectStartParams libpq wants to write first. */
static void begin_log_in(struct postgres *self, struct line *line, enum state state)
{
    self->state = state;
    line->conn = dial(self);
    if (line->conn)
        (void)PQsetNoticeReceiver(line->conn, on_notice, self);
    if (!line->conn || PQstatus(line->conn) == CONNECTION_BAD || !line_watch(line, UV_WRITABLE))
        fail_attempt_libpq(self, line);
}

static void next_host(struct postgres *self)
{
    const struct host *host = current_host(self);
    self->address = 0;
    self->at[0] = 0;
    self->state = RESOLVING;
    start_timer(&self->deadline, on_deadline, self->settings.attempt_ms);
    if (!host->lookup)
        next_address(self);
}

static void next_address(struct postgres *self)
{
    const struct host *host = current_host(self);
    self->at[0] = 0;
    if (host->address_count == 0)
        add_cause(self, true, host->failure[0] ? host->failure : "the name look-up gives no answer");
    if (self->address < host->address_count) {
        (void)snprintf(self->at, sizeof self->at, "%s", host->addresses[self->address]);
        start_timer(&self->deadline, on_deadline, self->settings.attempt_ms);
        begin_log_in(self, &self->line, LOGGING_IN);
    } else if (--self->hosts_left > 0) {
        self->first_host = (self->first_host + 1) % self->hosts.count;
        next_host(self);
    } else {
        give_up(self);
    }
}

static void on_resolved(void *data, struct host *host)
{
    struct postgres *self = data;
    if (self->state == RESOLVING && host == current_host(self))
        next_address(self);
}

static void begin_round(struct postgres *self)
{
    self->causes = (struct error){0};
    self->causes_may_pass = false;
    self->hosts_left = self->hosts.count;
    self->warning[0] = self->farewell[0] = 0;
    self->vacuum_told = false;
    hosts_look_up(&self->hosts);
    next_host(self);
}

/* ---- log-in and session set-up */

static void begin_statement(struct postgres *self, struct line *line, enum state state, const char *sql)
{
    self->state = state;
    line_forget(line);
    if (!PQsendQuery(line->conn, sql) || !line_flush(line))
        fail_attempt_libpq(self, line);
}

static void advance_log_in(struct postgres *self, struct line *line)
{
    line_unwatch(line);
    switch (PQconnectPoll(line->conn)) {
    case PGRES_POLLING_READING:
        if (line_watch(line, UV_READABLE))
            return;
        break;
    case PGRES_POLLING_WRITING:
        if (line_watch(line, UV_WRITABLE))
            return;
        break;
    case PGRES_POLLING_OK:
        (void)PQsetnonblocking(line->conn, 1); /* cannot fail: nothing waits to be sent */
        begin_statement(self, line, self->state == LOGGING_IN ? PROBING : SIBLING_PROBING,
                        "select pg_is_in_recovery(), pg_backend_pid()");
        return;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
        break;
    }
    fail_attempt_libpq(self, line);
}

/* Everything by SET: a pooler may refuse start-up options. Time-outs of the server's own would end a statement in ways
 * that its deadline, kept here, does not expect. */
static void begin_set_up(struct postgres *self)
{
    PGconn *conn = self->line.conn;
    char *schema = PQescapeIdentifier(conn, self->schema, strlen(self->schema));
    char *channel = self->listen ? PQescapeIdentifier(conn, self->listen, strlen(self->listen)) : NULL;
    char sql[1600];
    (void)snprintf(
        sql, sizeof sql,
        "set search_path to %s, pg_temp; set lock_timeout to %lld; set statement_timeout to 0; "
        "set idle_in_transaction_session_timeout to 0; "
        "select set_config(name, '0', false) from unnest(array['idle_session_timeout', 'transaction_timeout']) name "
        "where current_setting(name, true) is not null; "
        "set default_transaction_isolation to 'read committed'; set default_transaction_read_only to off; "
        "set client_min_messages to warning; %s%s; select pg_backend_pid()",
        schema ? schema : "pg_catalog", (long long)self->settings.lock_timeout_ms, channel ? "listen " : "",
        channel ? channel : "");
    PQfreemem(schema);
    PQfreemem(channel);
    begin_statement(self, &self->line, SETTING_UP, sql);
}

static const char transaction_pooler[] =
    "there is a transaction pooler in between, which cannot carry a session; use a session pool or connect directly";

static void judge_probe(struct postgres *self)
{
    const PGresult *result = self->line.result;
    if (complaint_is_failure(result) || PQntuples(result) != 1) {
        fail_attempt_libpq(self, &self->line);
        return;
    }
    self->backend_pid = atoi(PQgetvalue(result, 0, 1));
    if (strcmp(PQgetvalue(result, 0, 0), "t") == 0)
        fail_attempt(self, true, "a standby in recovery, not the primary");
    else if (self->backend_pid == PQbackendPID(self->line.conn))
        begin_set_up(self);
    else
        begin_log_in(self, &self->sibling, SIBLING_LOGGING_IN);
}

/* While the first line is idle only a transaction pooler lends its backend to another one. */
static void judge_sibling(struct postgres *self)
{
    const PGresult *result = self->sibling.result;
    if (complaint_is_failure(result) || PQntuples(result) != 1) {
        fail_attempt_libpq(self, &self->sibling);
    } else if (atoi(PQgetvalue(result, 0, 1)) == self->backend_pid) {
        fail_attempt(self, false, transaction_pooler);
    } else {
        line_close(&self->sibling);
        begin_set_up(self);
    }
}

static void judge_set_up(struct postgres *self)
{
    const PGresult *result = self->line.result;
    if (complaint_is_failure(result) || PQntuples(result) != 1) {
        fail_attempt_libpq(self, &self->line);
    } else if (atoi(PQgetvalue(result, 0, 0)) != self->backend_pid) {
        fail_attempt(self, false, transaction_pooler);
    } else {
        host_prefer(current_host(self), self->at);
        (void)uv_timer_stop(&self->deadline);
        line_forget(&self->line);
        self->state = READY;
        if (self->settings.on_connected)
            self->settings.on_connected(self->settings.data);
    }
}

/* ---- an established connection */

static void finish_statement(struct postgres *self)
{
    PGresult *result = self->line.result;
    postgres_reply_cb *callback = self->callback;
    char warning[sizeof self->warning];
    (void)memcpy(warning, self->warning, sizeof warning);
    self->line.result = NULL;
    self->callback = NULL;
    (void)uv_timer_stop(&self->deadline);

    struct error error = {0};
    bool failed = complaint_is_failure(result);
    if (failed)
        complaint_set_error(result, &error);
    /* the callback may begin another statement, drop or destroy */
    callback(self->callback_data, failed ? NULL : result, warning[0] ? warning : NULL, failed ? &error : NULL);
    PQclear(result);
}

static void pass_on_notifications(struct postgres *self, uint64_t life)
{
    PGnotify *notify;
    while (self->life == life && (notify = PQnotifies(self->line.conn))) {
        if (self->settings.on_notify)
            self->settings.on_notify(self->settings.data, notify->extra);
        PQfreemem(notify);
    }
}

static void receive(struct postgres *self)
{
    uint64_t life = self->life;
    switch (line_advance(&self->line)) {
    case PROGRESS_BROKEN:
        lose_broken(self);
        return;
    case PROGRESS_DONE:
        if (self->callback)
            finish_statement(self);
        break;
    case PROGRESS_WAITING:
        break;
    }
    pass_on_notifications(self, life);
}

static void on_line(uv_poll_t *handle, int status, int events)
{
    struct postgres *self = handle->data;
    struct line *line = handle == self->sibling.poll ? &self->sibling : &self->line;
    bool logging_in = self->state == LOGGING_IN || (self->state == SIBLING_LOGGING_IN && line == &self->sibling);
    if (logging_in) {
        advance_log_in(self, line);
        return;
    }
    uint64_t life = self->life;
    if (self->state == READY) {
        receive(self);
        if (status < 0 && self->life == life && self->state == READY)
            lose_broken(self); /* libuv watches it no longer */
        return;
    }
    enum progress progress = status < 0 ? PROGRESS_BROKEN : line_advance(line);
    if (progress == PROGRESS_BROKEN)
        fail_attempt_libpq(self, line);
    else if (progress == PROGRESS_WAITING)
        return;
    else if (self->state == PROBING)
        judge_probe(self);
    else if (self->state == SIBLING_PROBING && line == &self->sibling)
        judge_sibling(self);
    else if (self->state == SETTING_UP)
        judge_set_up(self);
}

static void on_deadline(uv_timer_t *timer)
{
    struct postgres *self = timer->data;
    if (self->state == RESOLVING) {
        next_address(self);
    } else if (self->state == READY) {
        /* after a pause of this process the reply may lie there unread */
        uint64_t life = self->life;
        postgres_drain(self);
        bool over = self->life != life || !self->callback || uv_is_active((uv_handle_t *)timer);
        if (over)
            return;
        struct error error = {0};
        (void)error_set_retryable(&error, EXIT_CODE_DATABASE,
                                  "no answer from PostgreSQL within %lld ms; connection dropped",
                                  (long long)self->timeout_ms);
        lose(self, &error);
    } else {
        char text[100];
        (void)snprintf(text, sizeof text, "%s within %lld ms",
                       self->state == SIBLING_LOGGING_IN ? "the pooler gives no second connection" : "no answer",
                       (long long)self->settings.attempt_ms);
        fail_attempt(self, true, text);
    }
}

static void on_soon(uv_timer_t *timer)
{
    struct postgres *self = timer->data;
    if (self->state == READY) {
        lose_broken(self); /* a statement could not even be sent */
        return;
    }
    struct error error = {0};
    postgres_reply_cb *callback = self->callback;
    self->callback = NULL;
    (void)error_set_retryable(&error, EXIT_CODE_DATABASE, "not connected to PostgreSQL");
    if (callback)
        callback(self->callback_data, NULL, NULL, &error);
    if (self->state == STARTING)
        begin_round(self);
}

/* ---- the contract */

static bool copy_settings(struct postgres *self, const struct postgres_settings *settings)
{
    self->settings = *settings;
    self->application_name = strdup(settings->application_name ? settings->application_name : "heirflow");
    self->schema = strdup(settings->schema ? settings->schema : "heirflow");
    self->listen = settings->listen ? strdup(settings->listen) : NULL;
    return self->application_name && self->schema && (self->listen || !settings->listen);
}

struct postgres *postgres_create(uv_loop_t *loop, const struct postgres_settings *settings, struct error *error)
{
    struct postgres *self = calloc(1, sizeof *self);
    if (!self || !copy_settings(self, settings)) {
        (void)error_set(error, EXIT_CODE_DATABASE, "out of memory");
    } else if (hosts_init(&self->hosts, loop, settings->conninfo, on_resolved, self, error)) {
        self->loop = loop;
        int64_t share_ms = settings->round_ms / self->hosts.count;
        if (share_ms > 0 && share_ms < self->settings.attempt_ms)
            self->settings.attempt_ms = share_ms;
        (void)uv_timer_init(loop, &self->deadline);
        (void)uv_timer_init(loop, &self->soon);
        self->deadline.data = self->soon.data = self;
        self->open_handles = 2;
        self->line = self->sibling = (struct line){.loop = loop,
                                                   .data = self,
                                                   .on_ready = on_line,
                                                   .on_closed = on_handle_closed,
                                                   .open_watches = &self->open_handles};
        return self;
    }
    if (self) {
        hosts_finish(&self->hosts);
        free(self->application_name);
        free(self->schema);
        free(self->listen);
        free(self);
    }
    return NULL;
}

void postgres_set_times(struct postgres *self, int64_t attempt_ms, int64_t lock_timeout_ms)
{
    self->settings.attempt_ms = attempt_ms;
    self->settings.lock_timeout_ms = lock_timeout_ms;
}

void postgres_connect(struct postgres *self)
{
    if (self->state != CLOSED)
        return;
    self->state = STARTING;
    start_timer(&self->soon, on_soon, 0);
}

void postgres_query(struct postgres *self, const char *sql, int count, const char *const *values, int64_t timeout_ms,
                    postgres_reply_cb *callback, void *data)
{
    assert(!self->callback);
    self->callback = callback;
    self->callback_data = data;
    self->timeout_ms = timeout_ms;
    self->warning[0] = 0;
    bool sent = self->state == READY;
    if (sent && count == 0)
        sent = PQsendQuery(self->line.conn, sql);
    else if (sent)
        sent = PQsendQueryParams(self->line.conn, sql, count, NULL, values, NULL, NULL, 0);
    if (sent && line_flush(&self->line))
        start_timer(&self->deadline, on_deadline, timeout_ms);
    else
        start_timer(&self->soon, on_soon, 0);
}

bool postgres_connected(const struct postgres *self)
{
    return self->state == READY;
}

bool postgres_busy(const struct postgres *self)
{
    return self->callback != NULL;
}

void postgres_drain(struct postgres *self)
{
    uint64_t life = self->life;
    while (self->life == life && self->state == READY) {
        struct pollfd socket = {.fd = PQsocket(self->line.conn), .events = POLLIN};
        if (poll(&socket, 1, 0) <= 0)
            return;
        receive(self);
    }
}

void postgres_give_up(struct postgres *self)
{
    if (self->state == CLOSED || self->state == READY)
        return;
    if (self->state != STARTING)
        add_cause(self, true, "no answer yet");
    give_up(self);
}

void postgres_drop(struct postgres *self)
{
    hang_up(self);
    self->announce = false;
}

void postgres_destroy(struct postgres *self, void (*on_closed)(void *data), void *data)
{
    postgres_drop(self);
    hosts_finish(&self->hosts);
    self->on_closed = on_closed;
    self->closed_data = data;
    uv_close((uv_handle_t *)&self->deadline, on_handle_closed);
    uv_close((uv_handle_t *)&self->soon, on_handle_closed);
}
