/* What libpq and the server complain of, in one line for people. */
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#include "error.h"

/* Does the result tell of a failure, and did that end the session? */
bool complaint_is_failure(const PGresult *result);
bool complaint_is_fatal(const PGresult *result);

/* "primary message; detail; hint: ... (SQLSTATE 42883)" of a failed statement. */
void complaint_of_result(const PGresult *result, char *ret_text, size_t size);

/* The first line of what libpq says of a connection, without the server's name. */
void complaint_of_connection(const PGconn *conn, char *ret_text, size_t size);

/* complaint_of_result as an error; retryable if such failures may be gone the next time. */
void complaint_set_error(const PGresult *result, struct error *error);

/* Appends what is known to help, if anything is. False if trying again without doing so is useless. */
bool complaint_add_remedy(char *text, size_t size);
