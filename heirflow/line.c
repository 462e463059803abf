/* Owns a PGconn, the poll handle on its socket and the result under way; never waits and never judges. */
#include "line.h"

#include <stdlib.h>

#include "complaint.h"

/* The socket's number may be given to another descriptor as soon as libpq closes it, and ending a watch ends that of
 * whatever has the number by then: so watches end before, and are made anew. */
void line_unwatch(struct line *self)
{
    if (self->poll)
        uv_close((uv_handle_t *)self->poll, self->on_closed);
    self->poll = NULL;
    self->events = 0;
}

bool line_watch(struct line *self, int events)
{
    if (!self->poll) {
        uv_poll_t *poll = calloc(1, sizeof *poll);
        if (!poll || uv_poll_init(self->loop, poll, PQsocket(self->conn)) != 0) {
            free(poll);
            return false;
        }
        poll->data = self->data;
        ++*self->open_watches;
        self->poll = poll;
    }
    if (self->events != events && uv_poll_start(self->poll, events, self->on_ready) != 0)
        return false;
    self->events = events;
    return true;
}

bool line_flush(struct line *self)
{
    int left = PQflush(self->conn);
    return left >= 0 && line_watch(self, left > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

/* Collects the results that have arrived; DONE once the statement is over. */
static enum progress line_collect(struct line *self)
{
    while (!PQisBusy(self->conn)) {
        PGresult *result = PQgetResult(self->conn);
        if (!result)
            return PQstatus(self->conn) == CONNECTION_OK ? PROGRESS_DONE : PROGRESS_BROKEN;
        if (self->result && complaint_is_failure(self->result)) {
            PQclear(result);
        } else {
            line_forget(self);
            self->result = result;
        }
        ExecStatusType status = PQresultStatus(self->result);
        if (complaint_is_fatal(self->result) || status == PGRES_COPY_IN || status == PGRES_COPY_OUT ||
            status == PGRES_COPY_BOTH)
            return PROGRESS_BROKEN;
    }
    return PROGRESS_WAITING;
}

enum progress line_advance(struct line *self)
{
    if (!PQconsumeInput(self->conn)) {
        /* an error message may have come in front of the end */
        (void)line_collect(self);
        return PROGRESS_BROKEN;
    }
    return line_flush(self) ? line_collect(self) : PROGRESS_BROKEN;
}

void line_forget(struct line *self)
{
    PQclear(self->result);
    self->result = NULL;
}

void line_close(struct line *self)
{
    line_unwatch(self);
    line_forget(self);
    PQfinish(self->conn);
    self->conn = NULL;
}
