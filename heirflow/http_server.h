/* What the parts of the HTTP server share; nobody else includes it. http.c has its life and its connections,
 * http_requests.c the paths, http_events.c the pages that are kept up to date, http_changes.c what needs the token. */
#pragma once

#include <microhttpd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "cleanup.h"
#include "http.h"
#include "lookout.h"
#include "vitals.h"

#define TOUCH_MS 250 /* how old the loop's state may be; also how soon a hang of the loop can show */
#define BODY_MAX 4096

#define JSON "application/json"

struct http {
    char *listen, *group, *node, *conninfo, *schema;
    struct http_callbacks callbacks;
    uv_timer_t tick;
    uv_async_t terminate; /* from the server's thread */
    int handles;
    bool local; /* listens on a loopback address only */
    int64_t retry_at_ms;
    char last_fault[256];

    struct MHD_Daemon *daemon;
    struct lookout *lookout;

    pthread_mutex_t token_lock; /* guards the next one */
    char token[256];            /* "": nothing can be changed */

    pthread_mutex_t clients_lock; /* guards the next two */
    struct client *clients;
    int client_count;

    pthread_mutex_t lock; /* guards the rest */
    struct vitals vitals;
    struct subscriber *subscribers;
    int subscriber_count;
    struct message *message; /* the latest */
    bool stopping;
    int64_t told_refusal_ms;
};

/* One request and its answer. */
struct exchange {
    struct http *http;
    struct MHD_Connection *connection;
    const struct route *route;
    const char *path; /* the route's */
    const char *method;
    char body[BODY_MAX + 1];
    size_t length;
    bool waiting; /* suspended until the lookout has answered */
    struct sight *sight;
    struct lookout_outcome *outcome;
};

/* The loop's state as it was at most TOUCH_MS ago. */
struct vitals http_vitals(struct http *self);

/* A copy, since it may change at any time; false without one. */
bool http_token(struct http *self, char token[sizeof self->token]);

/* The connection's time is counted from then; 0: it may stay as long as it likes. */
void http_time_connection(struct http *self, struct MHD_Connection *connection, int64_t since_ms);

/* ---- http_requests.c ---- */

/* For MHD_start_daemon. */
enum MHD_Result http_on_request(void *data, struct MHD_Connection *connection, const char *url, const char *method,
                                const char *version, const char *upload, size_t *upload_size, void **con_cls);
void http_on_completed(void *data, struct MHD_Connection *connection, void **con_cls, enum MHD_RequestTerminationCode how);
size_t http_leave_escaped(void *data, struct MHD_Connection *connection, char *text);

/* Answers: each is what a route's function returns. Takes the response over; NULL hangs up. */
enum MHD_Result http_send(struct exchange *exchange, unsigned status, const char *type, struct MHD_Response *response);
enum MHD_Result http_say(struct exchange *exchange, unsigned status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
enum MHD_Result http_out_of_memory(struct exchange *exchange);
struct MHD_Response *http_response(const char *text);

/* A header of the request, or NULL. */
const char *http_header(struct exchange *exchange, const char *name);

/* ---- http_events.c ---- */

enum MHD_Result http_serve_events(struct exchange *exchange);
void http_on_sight(void *data, struct sight *sight); /* for the lookout */
void http_end_subscriptions(struct http *self);
void http_message_release(struct message *message); /* NULL is fine */

/* ---- http_changes.c ---- */

/* Before the body is there: refuses, or goes on without an answer. */
enum MHD_Result http_check_right(struct exchange *exchange);
enum MHD_Result http_serve_switchover(struct exchange *exchange);
enum MHD_Result http_serve_pause(struct exchange *exchange);
enum MHD_Result http_serve_resume(struct exchange *exchange);
enum MHD_Result http_serve_terminate(struct exchange *exchange);
