/* Owns the pages that are kept up to date by server-sent events: what all of them get to see, and who has seen how much.
 * Never asks the database itself: the lookout calls when there is something new. */
#include <string.h>

#include "clock.h"
#include "http_server.h"

#define SUBSCRIBERS 32 /* pages that are kept up to date */

#define EVENTS "text/event-stream; charset=utf-8"

/* What all pages get to see, once it is written. */
struct message {
    int references;
    size_t length;
    char text[];
};

/* One page that is kept up to date. */
struct subscriber {
    struct subscriber *next;
    struct http *http;
    struct MHD_Connection *connection;
    struct message *message; /* what it is being sent, or was last */
    size_t sent;
    bool suspended; /* it has all there is */
};

void http_message_release(struct message *message)
{
    if (message && __atomic_sub_fetch(&message->references, 1, __ATOMIC_ACQ_REL) == 0)
        free(message);
}

static char *describe_here(struct http *self)
{
    char token[sizeof self->token];
    struct vitals vitals = http_vitals(self);
    cleanup_json json_t *here =
        json_pack("{s:s, s:s, s:s, s:b, s:s?, s:I, s:b}", "node", self->node, "group", self->group, "state", vitals.state,
                  "heir", vitals_is_heir(&vitals, clock_now_ms()), "scheduler", vitals.scheduler, "term",
                  (json_int_t)vitals.term, "changes", http_token(self, token));
    return json_dumps(here, JSON_COMPACT);
}

static struct message *write_message(struct http *self, const struct sight *sight)
{
    cleanup_free char *here = describe_here(self);
    cleanup_json json_t *fault = json_string(sight->error.text);
    cleanup_free char *why = fault ? json_dumps(fault, JSON_ENCODE_ANY) : NULL;
    const char *group = sight->page ? sight->page : "null", *error = sight->page || !why ? "null" : why;
    const char *own = here ? here : "null";
    size_t size = strlen(own) + strlen(group) + strlen(error) + 100;
    struct message *message = malloc(sizeof *message + size);
    if (!message)
        return NULL;
    message->references = 1;
    message->length = (size_t)snprintf(message->text, size,
                                       "retry: 1000\ndata: {\"here\":%s,\"group\":%s,\"error\":%s}\n\n", own, group, error);
    return message;
}

/* On the lookout's thread. A page that is still busy with an earlier message goes on to the latest after it. */
void http_on_sight(void *data, struct sight *sight)
{
    struct http *self = data;
    struct message *message = write_message(self, sight);
    if (!message)
        return;
    (void)pthread_mutex_lock(&self->lock);
    struct message *old = self->message;
    self->message = message;
    for (struct subscriber *each = self->subscribers; each; each = each->next) {
        if (each->suspended)
            MHD_resume_connection(each->connection);
        each->suspended = false;
    }
    (void)pthread_mutex_unlock(&self->lock);
    http_message_release(old);
}

/* With the lock held: the bytes that come next, none if the page has seen all. */
static size_t next_bytes(struct subscriber *self, char *buffer, size_t most)
{
    if (self->http->message && (!self->message || self->sent == self->message->length)) {
        if (self->message == self->http->message)
            return 0;
        http_message_release(self->message);
        self->message = self->http->message;
        (void)__atomic_add_fetch(&self->message->references, 1, __ATOMIC_RELAXED);
        self->sent = 0;
    }
    if (!self->message)
        return 0;
    size_t left = self->message->length - self->sent, size = left < most ? left : most;
    memcpy(buffer, self->message->text + self->sent, size);
    self->sent += size;
    return size;
}

static ssize_t on_read(void *data, uint64_t position, char *buffer, size_t most)
{
    struct subscriber *self = data;
    (void)position;
    (void)pthread_mutex_lock(&self->http->lock);
    ssize_t size = (ssize_t)next_bytes(self, buffer, most);
    if (size == 0 && self->http->stopping)
        size = MHD_CONTENT_READER_END_OF_STREAM;
    if (size == 0) {
        self->suspended = true;
        MHD_suspend_connection(self->connection);
    }
    (void)pthread_mutex_unlock(&self->http->lock);
    return size;
}

static void on_unsubscribed(void *data)
{
    struct subscriber *self = data;
    struct http *http = self->http;
    (void)pthread_mutex_lock(&http->lock);
    for (struct subscriber **place = &http->subscribers; *place; place = &(*place)->next) {
        if (*place == self) {
            *place = self->next;
            break;
        }
    }
    http->subscriber_count--;
    (void)pthread_mutex_unlock(&http->lock);
    lookout_watch(http->lookout, false);
    http_message_release(self->message);
    free(self);
}

static struct subscriber *subscribe(struct exchange *exchange)
{
    struct http *http = exchange->http;
    struct subscriber *self = calloc(1, sizeof *self);
    (void)pthread_mutex_lock(&http->lock);
    bool taken = self && !http->stopping && http->subscriber_count < SUBSCRIBERS;
    if (taken) {
        *self = (struct subscriber){.next = http->subscribers, .http = http, .connection = exchange->connection};
        http->subscribers = self;
        if (http->subscriber_count++ == 0) { /* what the last page was told is old by now */
            http_message_release(http->message);
            http->message = NULL;
        }
    }
    (void)pthread_mutex_unlock(&http->lock);
    if (taken) {
        lookout_watch(http->lookout, true);
        return self;
    }
    free(self);
    return NULL;
}

enum MHD_Result http_serve_events(struct exchange *exchange)
{
    if (strcmp(exchange->method, "HEAD") == 0)
        return http_send(exchange, MHD_HTTP_OK, EVENTS, http_response(""));
    struct subscriber *subscriber = subscribe(exchange);
    if (subscriber)
        http_time_connection(exchange->http, exchange->connection, 0);
    else
        return http_say(exchange, MHD_HTTP_SERVICE_UNAVAILABLE, "%d pages are kept up to date already, that is enough",
                        SUBSCRIBERS);
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 8192, on_read, subscriber, on_unsubscribed);
    if (!response)
        on_unsubscribed(subscriber);
    return http_send(exchange, MHD_HTTP_OK, EVENTS, response);
}

void http_end_subscriptions(struct http *self)
{
    (void)pthread_mutex_lock(&self->lock);
    self->stopping = true;
    for (struct subscriber *each = self->subscribers; each; each = each->next) {
        if (each->suspended)
            MHD_resume_connection(each->connection);
        each->suspended = false;
    }
    (void)pthread_mutex_unlock(&self->lock);
}
