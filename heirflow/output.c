/* Owns the pipe that schedulers write to and the life of the process behind it, which is started again when it dies. Never
 * reads the pipe, never touches the file. */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "output_process.h"
#include "tree.h"

#define AGAIN_MS 1000
#define DRAIN_MS 1000
#define PIPE_BYTES (1 << 20) /* what fits while a disk hangs; as much as Linux lets anyone have */

struct output {
    uv_loop_t *loop;
    output_report_cb *on_report;
    void *data;
    char path[4096];
    int pipe[2]; /* both ends stay open, so that no scheduler ever meets a closed one */
    struct writer *writer;
    uv_timer_t timer; /* until the next attempt; after output_free, until patience ends */
    uint64_t started_ms;
    bool freed, failed;
};

/* One process; goes when the loop has closed both handles. */
struct writer {
    struct output *output; /* NULL once it is no longer waited for */
    uv_process_t process;
    uv_poll_t poll;
    int control, handles;
};

static void start(struct output *self);

static void report(struct output *self, const char *reason, int64_t lost)
{
    const struct output_report report = {.path = self->path, .reason = reason, .lost = lost};
    self->on_report(self->data, &report);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void destroy(struct output *self)
{
    if (self->pipe[0] >= 0)
        (void)close(self->pipe[0]);
    uv_close((uv_handle_t *)&self->timer, on_timer_closed);
}

/* ---- one process ---- */

static void on_closed(uv_handle_t *handle)
{
    struct writer *writer = handle->data;
    if (--writer->handles > 0)
        return;
    (void)close(writer->control);
    free(writer);
}

static void let_go(struct output *self)
{
    struct writer *writer = self->writer;
    self->writer = NULL;
    writer->output = NULL;
    tree_spare(0);
    uv_close((uv_handle_t *)&writer->process, on_closed);
    uv_close((uv_handle_t *)&writer->poll, on_closed);
}

static void on_timer(uv_timer_t *timer)
{
    struct output *self = timer->data;
    if (!self->freed) {
        start(self);
        return;
    }
    if (self->writer)
        let_go(self);
    destroy(self);
}

static void start_again(struct output *self)
{
    uint64_t lived_ms = uv_now(self->loop) - self->started_ms;
    (void)uv_timer_start(&self->timer, on_timer, lived_ms < AGAIN_MS ? AGAIN_MS - lived_ms : 0, 0);
}

static void on_exit_told(uv_process_t *process, int64_t status, int signal)
{
    struct writer *writer = process->data;
    struct output *self = writer->output;
    if (!self)
        return;
    let_go(self);
    if (self->freed)
        destroy(self);
    else
        start_again(self);
}

static void on_control(uv_poll_t *poll, int status, int events)
{
    struct writer *writer = poll->data;
    struct output_message message;
    ssize_t size = recv(writer->control, &message, sizeof message, MSG_DONTWAIT);
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR))
        (void)uv_poll_stop(poll); /* its exit tells the rest */
    if (size == sizeof message && writer->output)
        report(writer->output, message.cause ? strerror(message.cause) : NULL, message.lost);
}

/* With an empty environment: ours may hold a password, and this process may outlive us. */
static int spawn(struct output *self, struct writer *writer, int control)
{
    static char program[] = "heirflow", command[] = "output";
    char *arguments[] = {program, command, NULL}, *environment[] = {NULL};
    uv_stdio_container_t stdio[] = {
        {.flags = UV_INHERIT_FD, .data.fd = self->pipe[0]},
        {.flags = UV_INHERIT_FD, .data.fd = STDOUT_FILENO},
        {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        {.flags = UV_INHERIT_FD, .data.fd = control},
    };
    uv_process_options_t options = {
        .exit_cb = on_exit_told,
        .file = "/proc/self/exe",
        .args = arguments,
        .env = environment,
        .flags = UV_PROCESS_DETACHED, /* no terminal's signal is for it */
        .stdio_count = 4,
        .stdio = stdio,
    };
    return uv_spawn(self->loop, &writer->process, &options);
}

static void say_path(const struct output *self)
{
    /* where it cannot be sent, the process hangs on its disk and has such a message waiting, or is dead */
    (void)send(self->writer->control, self->path, strlen(self->path), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void fail_start(struct output *self, int cause)
{
    if (!self->failed)
        report(self, strerror(cause), 0);
    self->failed = true;
    (void)uv_timer_start(&self->timer, on_timer, AGAIN_MS, 0);
}

static void watch(struct output *self, struct writer *writer)
{
    writer->handles = 2;
    writer->output = self;
    self->writer = writer;
    tree_spare(writer->process.pid);
    if (uv_poll_init(self->loop, &writer->poll, writer->control) < 0 ||
        uv_poll_start(&writer->poll, UV_READABLE, on_control) < 0)
        abort(); /* as in the keeper's: lack of memory in the loop */
    say_path(self);
    if (self->failed)
        report(self, NULL, 0);
    self->failed = false;
}

static void start(struct output *self)
{
    int pair[2];
    self->started_ms = uv_now(self->loop);
    struct writer *writer = calloc(1, sizeof *writer);
    if (!writer || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        free(writer);
        fail_start(self, errno);
        return;
    }
    writer->control = pair[0];
    writer->process.data = writer->poll.data = writer;
    int fault = spawn(self, writer, pair[1]);
    (void)close(pair[1]);
    if (fault < 0) {
        writer->handles = 1;
        uv_close((uv_handle_t *)&writer->process, on_closed);
        fail_start(self, -fault);
        return;
    }
    watch(self, writer);
}

/* ---- life ---- */

struct output *output_create(uv_loop_t *loop, output_report_cb *on_report, void *data)
{
    struct output *self = calloc(1, sizeof *self);
    if (!self)
        abort(); /* before anything runs */
    self->loop = loop;
    self->on_report = on_report;
    self->data = data;
    self->pipe[0] = self->pipe[1] = -1;
    (void)uv_timer_init(loop, &self->timer); /* cannot fail */
    self->timer.data = self;
    return self;
}

static bool make_pipe(struct output *self)
{
    if (self->pipe[0] >= 0)
        return true;
    if (pipe2(self->pipe, O_CLOEXEC) < 0) {
        report(self, strerror(errno), 0);
        return false;
    }
    (void)fcntl(self->pipe[1], F_SETPIPE_SZ, PIPE_BYTES); /* else it is smaller */
    return true;
}

int output_to(struct output *self, const char *path)
{
    if (strcmp(path, "inherit") == 0)
        return 0;
    bool other = strcmp(self->path, path) != 0;
    (void)snprintf(self->path, sizeof self->path, "%s", path);
    if (!make_pipe(self))
        return 0;
    if (!self->writer && !uv_is_active((uv_handle_t *)&self->timer))
        start(self);
    else if (self->writer && other)
        say_path(self);
    return self->pipe[1];
}

void output_reopen(struct output *self)
{
    if (self && self->writer)
        say_path(self);
}

void output_free(struct output *self)
{
    if (!self)
        return;
    self->freed = true;
    if (self->pipe[1] >= 0)
        (void)close(self->pipe[1]);
    if (self->writer)
        (void)uv_timer_start(&self->timer, on_timer, DRAIN_MS, 0);
    else
        destroy(self);
}
