/* The brokers of the configuration in an order of this process's own, and whose turn it is. */
#pragma once

#include <stddef.h>

#include "broker.h"
#include "config.h"

struct brokers {
    char **urls;
    size_t count;
    size_t next; /* the one to try first */
    struct broker_settings settings;
};

/* Borrows all strings. */
struct broker_settings brokers_settings(const struct config *config, const char *client_name);

/* Copies what it needs and shuffles, so that the nodes spread over the brokers. */
void brokers_init(struct brokers *self, const struct config *config, const char *client_name);

/* broker_open for the one whose turn it is. One that fails is at the end of the line afterwards. */
bool brokers_open(struct brokers *self, int64_t timeout_ms, struct broker **ret_broker, struct error *error);

/* The one that let us in has gone away: begin with another. */
void brokers_pass(struct brokers *self);

void brokers_finish(struct brokers *self);
