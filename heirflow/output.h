/* Where schedulers write to when their output goes to a file: a pipe, and behind it a process of our own that appends to
 * the file. Whatever becomes of file, disk and that process, a scheduler's write succeeds; it waits only while a disk that
 * hangs has let the pipe fill up. What cannot be written is dropped, counted, and said in the file once it can be. */
#pragma once

#include <stdint.h>
#include <uv.h>

struct output;

struct output_report {
    const char *path;
    const char *reason; /* why output is being lost from now on; NULL: it is written again */
    int64_t lost;       /* bytes, once it is written again */
};

/* On the loop; once when writing begins to fail, once when it works again. */
typedef void output_report_cb(void *data, const struct output_report *report);

struct output *output_create(uv_loop_t *loop, output_report_cb *on_report, void *data);

/* The descriptor for the next scheduler's output, borrowed; 0 for "inherit", and where no pipe can be had. What is written
 * to the pipe goes to `path` from now on. */
int output_to(struct output *self, const char *path);

/* Closes the file and opens that path again. */
void output_reopen(struct output *self);

/* After the last scheduler's end: gives the last words up to a second to be written; the loop goes on until then. NULL is
 * fine. */
void output_free(struct output *self);

/* The body of `heirflow output`, the hidden command behind the pipe. It ends with the last that can write to the pipe. */
int output_main(void);
