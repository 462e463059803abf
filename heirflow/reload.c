/* Owns the reading of a changed configuration on a thread of the loop's pool, one at a time. Never applies anything. */
#include "reload.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

struct reload {
    uv_loop_t *loop;
    const struct config_flags *flags;
    reload_cb *on_read;
    void *data;
    uv_work_t work;
    bool busy, again, freed;

    /* of the configuration in force when it was asked for */
    char *path; /* NULL: it was read from no file */
    bool no_heir;

    /* the thread's own while busy */
    struct config *fresh;
    struct error error;
};

/* A file that has vanished is no order to go back to the defaults. And whether the member leads is not changed by a reload,
 * so the new configuration must be fit for what it goes on doing. */
static bool fits(const struct reload *self, struct config *fresh, struct error *error)
{
    if (self->path && !fresh->path)
        return error_set(error, EXIT_CODE_USAGE, "%s, from which the configuration was read, is gone: put it back",
                         self->path);
    bool no_heir = fresh->no_heir;
    fresh->no_heir = self->no_heir;
    bool good = check_runnable(fresh, error);
    fresh->no_heir = no_heir;
    return good;
}

static void read_again(uv_work_t *work)
{
    struct reload *self = work->data;
    struct config *fresh = NULL;
    if (config_load(self->flags, &fresh, &self->error) && fits(self, fresh, &self->error)) {
        self->fresh = fresh;
        return;
    }
    config_free(fresh);
    self->fresh = NULL;
}

static void start(struct reload *self);

static void destroy(struct reload *self)
{
    free(self->path);
    free(self);
}

static void on_done(uv_work_t *work, int status)
{
    struct reload *self = work->data;
    struct config *fresh = self->fresh;
    self->busy = false;
    self->fresh = NULL;
    if (self->freed) {
        config_free(fresh);
        destroy(self);
        return;
    }
    if (self->again) { /* what was read may be older than the wish */
        config_free(fresh);
        start(self);
        return;
    }
    self->on_read(self->data, fresh, fresh ? NULL : &self->error);
}

static void start(struct reload *self)
{
    self->again = false;
    self->busy = true;
    self->work.data = self;
    (void)uv_queue_work(self->loop, &self->work, read_again, on_done); /* fails only without a function to run */
}

struct reload *reload_create(uv_loop_t *loop, const struct config_flags *flags, reload_cb *on_read, void *data)
{
    struct reload *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->loop = loop;
    self->flags = flags;
    self->on_read = on_read;
    self->data = data;
    return self;
}

void reload_ask(struct reload *self, const struct config *config)
{
    if (!self)
        return;
    if (self->busy) {
        self->again = true;
        return;
    }
    free(self->path);
    self->path = config->path ? strdup(config->path) : NULL;
    self->no_heir = config->no_heir;
    start(self);
}

void reload_free(struct reload *self)
{
    if (!self)
        return;
    self->freed = true;
    if (!self->busy)
        destroy(self);
}
