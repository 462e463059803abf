/* The files that the next heir inherits, on this node: a copy of them all that fits together, and a copy put in place.
 *
 * Runs in a child process of the wrapper, as scheduler.user and in scheduler.directory, for a file system may hang, and may
 * lie under the hands of that user. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "error.h"

#define ESTATE_FILE_BYTES_MAX (16 << 20)

/* Request: {"paths": [...], "still": nobody writes them any more}. *ret_copy: {"files": [{"path", "mode", "checksum",
 * "content"}...]} of those that exist, all of them as they were at one moment; "checksum", over the whole; "bytes". False
 * if one of them cannot be copied. Needs up to a second where they change all the time. */
bool estate_files_read(json_t *request, json_t **ret_copy, struct error *error);

/* Request: {"paths": [...], "term": the one that is to begin}; copy: as the database gave it. Puts its files in place,
 * unless a mark beside each of ours says that it is from the same or a later term; marks them with the new term. */
bool estate_files_write(json_t *request, json_t *copy, bool *ret_inherited, struct error *error);

/* The bodies of `heirflow estate-read` and `heirflow estate-write`, the hidden commands that the wrapper runs. Standard
 * input: the request and, to write, the copy. Standard output: a line of JSON with "fault" if something went wrong; read:
 * "checksum", "count", "bytes", and the files in a second line unless they are what the request's "known" says; write:
 * "inherited", and of the copy "term", "node", "age_ms" and "count". */
int estate_files_read_main(void);
int estate_files_write_main(void);
