/* What a term is on this node: everything around the scheduler from the preparation of its first start to the death of its
 * tree. Carries out succession.c's orders to that end and tells what comes of them; decides nothing. */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "config.h"
#include "error.h"
#include "succession.h"

struct reign;

/* On the loop, or from within reign_carry_out and reign_drain. */
struct reign_callbacks {
    void (*on_event)(void *data, struct event event);
    /* The group should hear of this; `reason` may be NULL, `about` is taken over. */
    void (*on_news)(void *data, const char *event, const char *reason, int64_t term, json_t *about);
    void *data;
};

struct reign_scheduler {
    const char *state; /* "running", "starting", "stopping", "exited", "failed"; NULL: there is none */
    pid_t pid;
    char started_at[32];
    int64_t restarts;     /* in this term */
    int64_t all_restarts; /* since this process began */
};

/* Borrows all but `callbacks`; `succession` is only read, `config` changes by reign_reconfigure. NULL with an error. */
struct reign *reign_create(uv_loop_t *loop, struct config *config, const struct succession *succession, const char *seat,
                           int lock_fd, const struct reign_callbacks *callbacks, struct error *error);

/* ORDER_PREPARE to ORDER_KILL_KEEPER of enum order_type. */
void reign_carry_out(struct reign *self, const struct order *order);

/* A term may begin with the next reply: opens what it will need. */
void reign_expect(struct reign *self);

/* A step of `succession` is over: a preparation whose term has ended is given up. */
void reign_stepped(struct reign *self);

/* Hears what a keeper has said already, before anyone judges what is late. */
void reign_drain(struct reign *self);

bool reign_inherits(const struct reign *self); /* there is an estate to put in place first */

const struct reign_scheduler *reign_scheduler(const struct reign *self);

/* SIGTERM to a running scheduler, as if from outside. False if none runs. */
bool reign_terminate(struct reign *self);

/* Another configuration was read; it is taken over. What applies to the next term does so from then on, or, with nothing
 * under way, at once: then it returns true. */
bool reign_reconfigure(struct reign *self, struct config *fresh);

/* The part of `config` for the health command has changed. */
void reign_restart_health(struct reign *self);

void reign_reopen_output(struct reign *self);

/* Once no tree is left: its handles go with the next turns of the loop, its memory by reign_free after the loop's end. Both
 * accept NULL. */
void reign_close(struct reign *self);
void reign_free(struct reign *self);
