/* From a connection string to the addresses to try: splits lists of hosts, looks names up on threads of their own (a
 * resolver that hangs holds up neither the loop nor the exit of the process) and begins connections. */
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <uv.h>

#include "error.h"

struct lookup;

struct host {
    char *name, *given_address, *port; /* NULL where the connection string is silent */
    struct hosts *owner;
    struct lookup *lookup; /* under way */
    char **addresses;      /* what the name last resolved to, best first; one "" where nothing needs looking up */
    int address_count;
    char failure[160]; /* of the last look-up, "" if it succeeded */
};

struct hosts {
    uv_loop_t *loop;
    PQconninfoOption *options;
    struct host *list; /* at least one */
    int count;
    void (*on_resolved)(void *data, struct host *host);
    void *data;
};

/* What libpq makes of connection string, service file and environment; only password and sslmode are not theirs. For
 * PQconninfoFree; NULL, for instance, if the service is not in its file. */
PQconninfoOption *hosts_read(const char *conninfo, struct error *error);

/* `self` is zeroed. on_resolved runs on the loop after each look-up, also a late or failed one. The error never contains a
 * password. */
bool hosts_init(struct hosts *self, uv_loop_t *loop, const char *conninfo,
                void (*on_resolved)(void *data, struct host *host), void *data, struct error *error);

/* Begins looking up every name that has no look-up under way; what it resolved to before stays until a better answer. */
void hosts_look_up(struct hosts *self);

/* What the connection string says about a keyword, or NULL. */
const char *hosts_option(const struct hosts *self, const char *keyword);

/* PQconnectStartParams to one address of a host, which is copied; "" where nothing was looked up. `keywords` and `values`,
 * which end with NULL, take precedence over the connection string. */
PGconn *hosts_connect(const struct hosts *self, const struct host *host, const char *address, const char *const *keywords,
                      const char *const *values);

/* This address worked: try it first next time. */
void host_prefer(struct host *self, const char *address);

/* "db1 (10.0.0.1) port 5432", for people; address "" for none. */
void host_describe(const struct host *self, const char *address, char *ret_text, size_t size);

/* Abandons look-ups under way; their handles close on the loop. Safe on a zeroed struct. */
void hosts_finish(struct hosts *self);
