/* What the sources say on its way into the model, and into a recording if there is one.
 *
 * A recording is a file of JSON lines: a head with the format's version, then one object for each thing that was said, with
 * the times at which it was. Playing it feeds the same model in the same way. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"
#include "model.h"

enum intake_source { INTAKE_POSTGRES, INTAKE_RABBITMQ };

struct intake {
    struct model *model;
    FILE *record; /* NULL: none */
};

/* Times as in model.h. False, with the recording unwritten, if the file exists or cannot be written. */
bool intake_record(struct intake *self, const char *path, int64_t now_ms, int64_t wall_ms, struct error *error);
bool intake_finish(struct intake *self, struct error *error); /* false if the recording is not whole */

/* False if it cannot be read; NULL is an unknown group. */
bool intake_status(struct intake *self, const char *status, int64_t news_last, int64_t database_ms, int64_t asked_ms,
                   int64_t now_ms);
bool intake_event(struct intake *self, const struct model_event *event, bool from_database, int64_t now_ms);
void intake_read(struct intake *self, int64_t after, int64_t last, bool complete, int64_t asked_ms, int64_t now_ms);
void intake_read_older(struct intake *self, int64_t after, int64_t now_ms);
void intake_reread(struct intake *self, int64_t now_ms);
bool intake_group(struct intake *self, const char *group, int64_t now_ms); /* another one; false without memory */
void intake_unreadable(struct intake *self, int64_t count, int64_t now_ms);
void intake_try(struct intake *self, enum intake_source source, int64_t now_ms);
void intake_word(struct intake *self, enum intake_source source, int64_t now_ms);
void intake_down(struct intake *self, enum intake_source source, const char *fault, int64_t now_ms);

/* The head of a recording: its group and the times at its beginning. */
bool intake_read_head(const char *line, char group[MODEL_NAME], int64_t *ret_now_ms, int64_t *ret_wall_ms);

/* One line of a recording: when it was said; 0 for none. */
int64_t intake_when(const char *line);

/* The same into the model. False if it cannot be read. */
bool intake_replay(struct intake *self, const char *line);
