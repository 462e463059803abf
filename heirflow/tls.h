/* TLS to a broker: whose certificates count, and what a failed handshake means in plain words. */
#pragma once

#include <amqp.h>
#include <stdbool.h>

#include "error.h"

struct tls_files {
    const char *ca_file;              /* of the authorities that count; NULL: the system's */
    const char *cert_file, *key_file; /* the client's own; NULL: none */
};

struct tls; /* what the handshake found out */

/* A socket for the connection, which owns it; it will only go through with a broker that proves to be `host`. Errors say
 * what is wrong with the files. `host` is copied; *ret_tls is the caller's, for as long as the connection. */
bool tls_socket(amqp_connection_state_t connection, const struct tls_files *files, const char *host,
                amqp_socket_t **ret_socket, struct tls **ret_tls, struct error *error);

/* Why the last call on that connection failed, with the remedy; NULL if TLS has nothing to do with it. `shaken`: it was one
 * after the handshake. */
const char *tls_complaint(struct tls *self, bool shaken);

void tls_free(struct tls *self); /* NULL is fine */
