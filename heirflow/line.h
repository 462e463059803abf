/* One libpq connection and the watch on its socket. Knows nothing of what is said on it. */
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <uv.h>

/* Set by the owner before the line is used; the rest is zero. */
struct line {
    uv_loop_t *loop;
    void *data; /* becomes the watch's data */
    uv_poll_cb on_ready;
    uv_close_cb on_closed; /* of a watch, a handle of its own to be freed; open_watches counts them */
    int *open_watches;

    PGconn *conn;
    uv_poll_t *poll;  /* a new one whenever libpq may have changed the socket */
    int events;       /* what it watches for */
    PGresult *result; /* of the statement under way: the last one, or the first failure */
};

enum progress { PROGRESS_WAITING, PROGRESS_DONE, PROGRESS_BROKEN };

/* Events as of uv_poll_start. */
bool line_watch(struct line *self, int events);

/* Needed before whatever may close the socket, PQconnectPoll included. */
void line_unwatch(struct line *self);

/* Sends what libpq still holds; false if the connection is broken. */
bool line_flush(struct line *self);

/* Reads and writes what can be without waiting; DONE if no statement is under way any more, `result` then holds it. */
enum progress line_advance(struct line *self);

void line_forget(struct line *self); /* the result */
void line_close(struct line *self);  /* may be used again */
