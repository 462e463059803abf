/* The files that the next heir inherits, on this node: a copy of them all that fits together, and a copy put in place.
 *
 * Runs in a child process of the wrapper, as scheduler.user and in scheduler.directory, for a file system may hang, and may
 * lie under the hands of that user. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"

#define ESTATE_BYTES_MAX (16 << 20) /* all files together */

/* Request: {"paths": [...], "still": nobody writes them any more}. *ret_copy: {"files": [{"path", "mode", "checksum",
 * "content"}...]}, of those that do not exist the path alone, all of them as they were at one moment; "checksum", over the
 * whole; "count" of those that exist; "bytes". False if one of them cannot be copied. Needs up to a second where they
 * change all the time. */
bool estate_files_read(json_t *request, json_t **ret_copy, struct error *error);

/* Notes beside each file the term under which this node runs the scheduler with it, once the file is on the disk. Origin
 * NULL: not known; then it is that of the mark which is there, if any. */
bool estate_files_mark(json_t *paths, const char *origin, int64_t term, struct error *error);

/* Request: {"paths": [...]}; copy: as the database gave it. Puts its files in place, and those that did not exist out of
 * the way, unless a mark beside each of ours says that it is from the same or a later term. Nothing is waited for to be on
 * the disk: until the files are marked they are put in place again. */
bool estate_files_write(json_t *request, json_t *copy, bool *ret_inherited, struct error *error);

/* The bodies of the errands estate-read and estate-write. Standard input: the request and, to write, the copy. Standard
 * output: a line of JSON with "fault" if something went wrong. Read: first marks if the request has "mark", {"term",
 * "origin"}: "mark_fault". Then, unless "marks_only": "checksum", "count", "bytes", and the files in a second line unless
 * they are what the request's "known" says. With "summary" the files are left out, and what could not be put in place is a
 * fault, too. Write: "inherited", and of the copy "term", "node", "age_ms" and "count". */
int estate_files_read_main(void);
int estate_files_write_main(void);
