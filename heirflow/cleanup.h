/* Scope-bound cleanup: `cleanup_free char *text = NULL;`. */
#pragma once

#include <jansson.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_(void *p)
{
    free(*(void **)p);
}
static inline void cleanup_fd_(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}
static inline void cleanup_file_(FILE **file)
{
    if (*file)
        (void)fclose(*file);
}
static inline void cleanup_json_(json_t **json)
{
    json_decref(*json);
}
static inline void cleanup_result_(PGresult **result)
{
    PQclear(*result);
}

#define cleanup_free __attribute__((cleanup(cleanup_free_)))
#define cleanup_fd __attribute__((cleanup(cleanup_fd_))) /* initialise to -1 */
#define cleanup_file __attribute__((cleanup(cleanup_file_)))
#define cleanup_json __attribute__((cleanup(cleanup_json_)))
#define cleanup_result __attribute__((cleanup(cleanup_result_)))
