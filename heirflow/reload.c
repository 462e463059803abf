/* Owns the reading of a changed configuration on a thread of its own, one at a time. Never applies anything, and waits for
 * no thread: one that hangs on its disk ends with the process. */
#include "reload.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "runnable.h"

/* One of them, shared with its thread; freed by whoever is the last to need it. */
struct reading {
    pthread_mutex_t lock;  /* of the next two */
    struct reload *reload; /* NULL: nobody waits for it any more */
    bool over;

    struct config_flags flags;
    /* of the configuration in force when it was asked for */
    char *path; /* NULL: it was read from no file */
    bool no_heir;

    struct config *fresh;
    struct error error;
};

struct reload {
    const struct config_flags *flags;
    reload_cb *on_read;
    void *data;
    uv_async_t over;
    struct reading *reading; /* under way, or NULL */
    bool again;
};

/* A file that has vanished is no order to go back to the defaults. And whether the member leads is not changed by a reload,
 * so the new configuration must be fit for what it goes on doing. */
static bool fits(const struct reading *self, struct config *fresh, struct error *error)
{
    if (self->path && !fresh->path)
        return error_set(error, EXIT_CODE_USAGE, "%s, from which the configuration was read, is gone: put it back",
                         self->path);
    bool no_heir = fresh->no_heir;
    fresh->no_heir = self->no_heir;
    bool good = runnable_check(fresh, error);
    fresh->no_heir = no_heir;
    return good;
}

static void free_reading(struct reading *self)
{
    if (!self)
        return;
    config_free(self->fresh);
    (void)pthread_mutex_destroy(&self->lock);
    free(self->path);
    free(self);
}

static void *read_again(void *data)
{
    struct reading *self = data;
    struct config *fresh = NULL;
    if (config_load(&self->flags, &fresh, &self->error) && fits(self, fresh, &self->error)) {
        self->fresh = fresh;
        fresh = NULL;
    }
    config_free(fresh);
    (void)pthread_mutex_lock(&self->lock);
    bool wanted = self->reload != NULL;
    self->over = true;
    if (wanted)
        (void)uv_async_send(&self->reload->over); /* fails only on a handle that was never opened */
    (void)pthread_mutex_unlock(&self->lock);
    if (!wanted)
        free_reading(self);
    return NULL;
}

static struct reading *new_reading(struct reload *reload, const char *path, bool no_heir)
{
    struct reading *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    (void)pthread_mutex_init(&self->lock, NULL);
    self->reload = reload;
    self->flags = *reload->flags;
    self->path = path ? strdup(path) : NULL;
    self->no_heir = no_heir;
    return self;
}

/* Signals are for the loop's thread. */
static bool start_thread(struct reading *reading)
{
    pthread_t thread;
    sigset_t all, former;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &former);
    int fault = pthread_create(&thread, NULL, read_again, reading);
    (void)pthread_sigmask(SIG_SETMASK, &former, NULL);
    if (!fault)
        (void)pthread_detach(thread);
    return !fault;
}

static void start(struct reload *self, const char *path, bool no_heir)
{
    struct error error = {0};
    self->again = false;
    self->reading = new_reading(self, path, no_heir);
    if (self->reading && start_thread(self->reading))
        return;
    free_reading(self->reading);
    self->reading = NULL;
    (void)error_set(&error, EXIT_CODE_NEGATIVE, "no memory or no thread to read it: try again");
    self->on_read(self->data, NULL, &error);
}

static void on_over(uv_async_t *async)
{
    struct reload *self = async->data;
    struct reading *reading = self->reading;
    if (!reading)
        return;
    (void)pthread_mutex_lock(&reading->lock); /* for the thread to have let go of it */
    bool over = reading->over;
    (void)pthread_mutex_unlock(&reading->lock);
    if (!over)
        return;
    self->reading = NULL;
    if (self->again) { /* what was read may be older than the wish */
        start(self, reading->path, reading->no_heir);
    } else {
        struct config *fresh = reading->fresh;
        reading->fresh = NULL;
        self->on_read(self->data, fresh, fresh ? NULL : &reading->error);
    }
    free_reading(reading);
}

struct reload *reload_create(uv_loop_t *loop, const struct config_flags *flags, reload_cb *on_read, void *data)
{
    struct reload *self = calloc(1, sizeof *self);
    if (!self || uv_async_init(loop, &self->over, on_over) != 0) {
        free(self);
        return NULL;
    }
    self->flags = flags;
    self->on_read = on_read;
    self->data = data;
    self->over.data = self;
    return self;
}

void reload_ask(struct reload *self, const struct config *config)
{
    if (!self)
        return;
    if (self->reading)
        self->again = true;
    else
        start(self, config->path, config->no_heir);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void reload_free(struct reload *self)
{
    struct reading *reading = self ? self->reading : NULL;
    bool over = false;
    if (!self)
        return;
    if (reading) {
        (void)pthread_mutex_lock(&reading->lock);
        over = reading->over;
        reading->reload = NULL;
        (void)pthread_mutex_unlock(&reading->lock);
    }
    if (over)
        free_reading(reading);
    uv_close((uv_handle_t *)&self->over, on_closed);
}
