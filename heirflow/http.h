/* What a member tells and takes over HTTP, on threads of its own. Clients, however many and however slow, meet a copy of
 * the loop's state; they never make the loop wait. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "config.h"
#include "error.h"
#include "vitals.h"

struct http;

struct http_callbacks {
    /* On the loop: what is to be told from now on. */
    void (*describe)(void *data, struct vitals *ret_vitals);
    /* On the loop: somebody with the token wants this node's scheduler to get SIGTERM. */
    void (*terminate)(void *data);
    /* On any thread; log_event is all it may call:
     *   "http-listening"    detail: the address
     *   "http-unavailable"  the address cannot be had, tried again; detail: why, and what to do. Once per reason
     *   "http-change"       somebody with the token asked for a change; detail: what, from where, what became of it
     *   "http-refused"      somebody tried without; at most one a second */
    void (*on_event)(void *data, const char *event, const char *detail);
    void *data;
};

/* True if `listen` is an address as http.listen wants it: "127.0.0.1:8470", "[::1]:8470", or empty. */
bool http_check_listen(const char *listen);

/* Starts to listen, or goes on trying if the address cannot be had. Nothing of `config` is used after the call. NULL
 * without http.listen, and without memory. */
struct http *http_create(uv_loop_t *loop, const struct config *config, const struct http_callbacks *callbacks);

/* From now on; NULL: nothing can be changed over HTTP. From any thread. */
void http_set_token(struct http *self, const char *token);

/* Something has changed: describe anew. Called by itself several times a second. */
void http_touch(struct http *self);

/* Ends all exchanges and frees once the loop has closed its handles. NULL is fine for all three. */
void http_free(struct http *self);
