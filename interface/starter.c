/* Owns the one process that is run to start a wrapper elsewhere, and its output. Never lets it near the terminal: it has a
 * session of its own, so that ssh cannot ask for a password over our picture. */
#include "starter.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_MS = 60000, CHUNK = 4096 };

struct starter {
    uv_loop_t *loop;
    struct page *output;
    void (*on_change)(void *data);
    void *data;
    uv_process_t process;
    uv_pipe_t pipes[2]; /* standard output and error */
    uv_timer_t limit;
    int open_handles;
    bool running, destroyed;
    char chunk[CHUNK];
    char line[2][PAGE_TEXT];
    size_t length[2];
};

static void release(struct starter *self)
{
    if (self->destroyed && self->open_handles == 0)
        free(self);
}

static void on_closed(uv_handle_t *handle)
{
    struct starter *self = handle->data;
    self->open_handles--;
    release(self);
}

static void close_handle(uv_handle_t *handle)
{
    if (handle->loop && !uv_is_closing(handle))
        uv_close(handle, on_closed);
}

static void say(struct starter *self)
{
    if (!self->destroyed)
        self->on_change(self->data);
}

/* ---- output */

static void end_line(struct starter *self, int pipe)
{
    if (!self->destroyed)
        (void)page_add(self->output, "%.*s", (int)self->length[pipe], self->line[pipe]);
    self->length[pipe] = 0;
}

static void take(struct starter *self, int pipe, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\n' || self->length[pipe] == sizeof self->line[pipe])
            end_line(self, pipe);
        if (text[i] != '\n' && text[i] != '\r' && text[i] != '\0')
            self->line[pipe][self->length[pipe]++] = text[i];
    }
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer)
{
    struct starter *self = handle->data;
    *ret_buffer = uv_buf_init(self->chunk, sizeof self->chunk);
}

static void on_output(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct starter *self = stream->data;
    int pipe = stream == (uv_stream_t *)&self->pipes[1];
    if (size > 0)
        take(self, pipe, buffer->base, (size_t)size);
    if (size < 0) {
        if (self->length[pipe])
            end_line(self, pipe);
        close_handle((uv_handle_t *)stream);
    }
    say(self);
}

/* ---- the process */

static void on_ended(uv_process_t *process, int64_t status, int number)
{
    struct starter *self = process->data;
    self->running = false;
    if (!self->destroyed) {
        if (number)
            (void)page_add(self->output, "(ended by signal %d)", number);
        else
            (void)page_add(self->output, "(%s, exit status %d)", status ? "failed" : "done", (int)status);
    }
    close_handle((uv_handle_t *)process);
    close_handle((uv_handle_t *)&self->limit);
    say(self);
}

/* It leads a process group of its own. */
static void end_it(struct starter *self)
{
    if (self->running)
        (void)kill(-self->process.pid, SIGTERM); /* what has ended already needs no signal */
}

static void on_limit(uv_timer_t *timer)
{
    struct starter *self = timer->data;
    if (!self->destroyed)
        (void)page_add(self->output, "(no end after %d s: stopped)", MOST_MS / 1000);
    if (self->running)
        (void)kill(-self->process.pid, SIGKILL);
    say(self);
}

static int spawn(struct starter *self, const struct start_command *command)
{
    char *words[START_COMMAND_WORDS + 1] = {0};
    for (int i = 0; i < command->count; i++)
        words[i] = (char *)command->words[i];
    uv_stdio_container_t streams[3] = {{.flags = UV_IGNORE}};
    for (int i = 0; i < 2; i++) {
        (void)uv_pipe_init(self->loop, &self->pipes[i], 0); /* cannot fail */
        self->pipes[i].data = self;
        streams[i + 1].flags = (uv_stdio_flags)(UV_CREATE_PIPE | UV_WRITABLE_PIPE);
        streams[i + 1].data.stream = (uv_stream_t *)&self->pipes[i];
    }
    self->process = (uv_process_t){.data = self};
    uv_process_options_t options = {.exit_cb = on_ended,
                                    .file = words[0],
                                    .args = words,
                                    .flags = UV_PROCESS_DETACHED,
                                    .stdio_count = 3,
                                    .stdio = streams};
    return uv_spawn(self->loop, &self->process, &options);
}

bool starter_run(struct starter *self, const struct start_command *command)
{
    char text[START_COMMAND_TEXT];
    if (self->running || self->open_handles)
        return false;
    start_command_text(command, text, sizeof text);
    page_add_heading(self->output, text);
    self->length[0] = self->length[1] = 0;
    int failed = spawn(self, command);
    self->open_handles = 3; /* a process that did not start has a handle too */
    (void)uv_timer_init(self->loop, &self->limit);
    self->limit.data = self;
    self->open_handles++;
    if (failed) {
        (void)page_add(self->output, "cannot run %s: %s", command->words[0], uv_strerror(failed));
        close_handle((uv_handle_t *)&self->process);
        close_handle((uv_handle_t *)&self->limit);
        for (int i = 0; i < 2; i++)
            close_handle((uv_handle_t *)&self->pipes[i]);
        return true;
    }
    self->running = true;
    (void)uv_timer_start(&self->limit, on_limit, MOST_MS, 0);
    for (int i = 0; i < 2; i++)
        (void)uv_read_start((uv_stream_t *)&self->pipes[i], on_room, on_output); /* fails only when closing */
    return true;
}

struct starter *starter_create(uv_loop_t *loop, struct page *output, void (*on_change)(void *data), void *data)
{
    struct starter *self = calloc(1, sizeof *self);
    if (self)
        *self = (struct starter){.loop = loop, .output = output, .on_change = on_change, .data = data};
    return self;
}

void starter_destroy(struct starter *self)
{
    if (!self)
        return;
    end_it(self);
    self->destroyed = true;
    if (self->open_handles) {
        close_handle((uv_handle_t *)&self->process);
        close_handle((uv_handle_t *)&self->limit);
        for (int i = 0; i < 2; i++)
            close_handle((uv_handle_t *)&self->pipes[i]);
    }
    release(self);
}
