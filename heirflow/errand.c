/* Owns the wrapper's end of an errand: its spec, its process, what it hands back.
 * Never judges the command's end: that is told by the process between. */
#include "errand.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"

#define LOOK_MS 1000
#define LOOK_CANCELLED_MS 20
#define OVERDUE_MS 3000 /* for the process between to end the command and itself, before it is killed */
#define REPORT_SIZE 512

struct errand {
    uv_process_t process;
    uv_timer_t look;
    int handles; /* still open; then the memory goes */
    int report_fd, output_fd;
    int64_t overdue_ms;
    errand_end_cb *on_end; /* NULL once cancelled */
    void *data;
};

static void on_closed(uv_handle_t *handle)
{
    struct errand *self = handle->data;
    if (--self->handles > 0)
        return;
    (void)close(self->report_fd);
    if (self->output_fd >= 0)
        (void)close(self->output_fd);
    free(self);
}

/* ---- the end */

static void tell_end(struct errand *self, struct errand_end *end)
{
    struct stat status;
    void *output = MAP_FAILED;
    static const char nothing[1];
    if (!end->reason && self->output_fd >= 0) {
        end->output = nothing;
        if (fstat(self->output_fd, &status) < 0)
            end->reason = "its output cannot be read";
        else if (status.st_size > 0)
            output = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, self->output_fd, 0);
        if (output != MAP_FAILED) {
            end->output = output;
            end->output_size = (size_t)status.st_size;
        } else if (!end->reason && status.st_size > 0) {
            end->reason = "no memory for its output";
        }
    }
    self->on_end(self->data, end);
    if (output != MAP_FAILED)
        (void)munmap(output, end->output_size);
}

static void finish(struct errand *self, int status, int signal, bool lost)
{
    char text[REPORT_SIZE] = "";
    struct errand_end end = {.lost = lost || signal};
    uv_close((uv_handle_t *)&self->process, on_closed);
    uv_close((uv_handle_t *)&self->look, on_closed);
    if (!self->on_end)
        return;
    ssize_t size = read(self->report_fd, text, sizeof text - 1);
    text[size > 0 ? size : 0] = '\0';
    if (end.lost)
        (void)snprintf(text, sizeof text, "killed from outside");
    else if (status && !*text)
        (void)snprintf(text, sizeof text, "cannot be started: exit status %d of heirflow errand", status);
    end.reason = end.lost || status ? text : NULL;
    tell_end(self, &end);
}

static void on_exit_told(uv_process_t *process, int64_t status, int signal)
{
    finish(process->data, (int)status, signal, false);
}

/* A wrapper without PID namespaces reaps whatever it finds among its children: the loop then never hears of this end. */
static bool is_gone(const struct errand *self)
{
    siginfo_t end;
    return waitid(P_PID, (id_t)self->process.pid, &end, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
}

static void on_look(uv_timer_t *timer)
{
    struct errand *self = timer->data;
    if (is_gone(self))
        finish(self, 0, 0, true);
    else if (clock_now_ms() >= self->overdue_ms)
        (void)kill(self->process.pid, SIGKILL); /* frozen; the command dies of its parent's death */
}

/* ---- the start */

static json_t *pack_spec(const struct errand_spec *spec)
{
    json_t *command = json_array();
    for (const char **argument = spec->command; argument && *argument; argument++)
        (void)json_array_append_new(command, json_string(*argument)); /* the configuration was UTF-8 */
    return json_pack("{s:o, s:s*, s:s, s:o, s:s*, s:s*, s:s, s:s, s:s, s:I, s:i, s:I, s:b, s:I}", "command", command,
                     "body", spec->body, "key", spec->key, "environment",
                     spec->environment ? json_incref(spec->environment) : json_object(), "directory", spec->directory,
                     "user", spec->user, "group", spec->group, "node", spec->node, "seat", spec->seat, "term",
                     (json_int_t)spec->term, "parent", (int)getpid(), "timeout_ms", (json_int_t)spec->timeout_ms, "input",
                     spec->input != NULL, "output_most", (json_int_t)spec->output_most);
}

/* In memory, since the environment may hold secrets. */
static int open_spec(const struct errand_spec *spec)
{
    cleanup_json json_t *text = pack_spec(spec);
    int fd = memfd_create("heirflow-errand", MFD_CLOEXEC);
    if (fd >= 0 && text && json_dumpfd(text, fd, JSON_COMPACT) == 0 && lseek(fd, 0, SEEK_SET) == 0)
        return fd;
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

static int open_input(const struct errand_spec *spec)
{
    const char *from = spec->input;
    size_t left = spec->input_size;
    int fd = from ? memfd_create("input", MFD_CLOEXEC) : open("/dev/null", O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && from && left > 0) {
        ssize_t size = write(fd, from, left);
        if (size <= 0) {
            (void)close(fd);
            return -1;
        }
        from += size;
        left -= (size_t)size;
    }
    if (fd >= 0)
        (void)lseek(fd, 0, SEEK_SET); /* cannot fail */
    return fd;
}

/* Through our own program: what has to happen between fork and exec may allocate and look up users, and this process has
 * threads. */
static int spawn(uv_loop_t *loop, struct errand *self, int input_fd, int report_fd, int spec_fd)
{
    static char program[] = "heirflow", command[] = "errand";
    char *arguments[] = {program, command, NULL};
    uv_stdio_container_t stdio[] = {
        {.flags = UV_INHERIT_FD, .data.fd = input_fd},        {.flags = UV_INHERIT_FD, .data.fd = report_fd},
        {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},   {.flags = UV_INHERIT_FD, .data.fd = spec_fd},
        {.flags = UV_INHERIT_FD, .data.fd = self->output_fd},
    };
    uv_process_options_t options = {
        .exit_cb = on_exit_told,
        .file = "/proc/self/exe",
        .args = arguments,
        .flags = UV_PROCESS_DETACHED, /* a terminal's Ctrl-C is not for it */
        .stdio_count = self->output_fd >= 0 ? 5 : 4,
        .stdio = stdio,
    };
    return uv_spawn(loop, &self->process, &options);
}

static struct errand *open_errand(const struct errand_spec *spec, int *ret_report_fd)
{
    int ends[2];
    struct errand *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->output_fd = spec->output_most ? memfd_create("output", MFD_CLOEXEC) : -1;
    if ((spec->output_most && self->output_fd < 0) || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        if (self->output_fd >= 0)
            (void)close(self->output_fd);
        free(self);
        return NULL;
    }
    self->report_fd = ends[0];
    *ret_report_fd = ends[1];
    return self;
}

bool errand_start(uv_loop_t *loop, const struct errand_spec *spec, errand_end_cb *on_end, void *data,
                  struct errand **ret_errand, struct error *error)
{
    cleanup_fd int spec_fd = open_spec(spec), input_fd = open_input(spec), report_fd = -1;
    struct errand *self = spec_fd >= 0 && input_fd >= 0 ? open_errand(spec, &report_fd) : NULL;
    if (!self)
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot be started: %s", strerror(errno));
    self->on_end = on_end;
    self->data = data;
    self->process.data = self->look.data = self;
    int fault = spawn(loop, self, input_fd, report_fd, spec_fd);
    self->handles = 1;
    if (fault < 0) {
        uv_close((uv_handle_t *)&self->process, on_closed);
        return error_set_retryable(error, EXIT_CODE_NEGATIVE, "cannot be started: %s", strerror(-fault));
    }
    self->handles = 2;
    self->overdue_ms = clock_now_ms() + spec->timeout_ms + OVERDUE_MS;
    (void)uv_timer_init(loop, &self->look); /* neither can fail */
    (void)uv_timer_start(&self->look, on_look, LOOK_MS, LOOK_MS);
    *ret_errand = self;
    return true;
}

void errand_cancel(struct errand *self)
{
    if (!self)
        return;
    self->on_end = NULL;
    self->overdue_ms = clock_now_ms() + OVERDUE_MS;
    if (!is_gone(self))
        (void)kill(self->process.pid, SIGTERM);
    (void)uv_timer_start(&self->look, on_look, LOOK_CANCELLED_MS, LOOK_CANCELLED_MS);
}
