/* Owns the form of a recording, both ways. Never asks anybody anything, never reads a clock. */
#include "intake.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "decode.h"

enum { VERSION = 1 };

static const char *const source_names[] = {"postgres", "rabbitmq"};

static struct model_link *link_of(struct intake *self, enum intake_source source)
{
    return source == INTAKE_POSTGRES ? &self->model->postgres : &self->model->rabbitmq;
}

/* ---- recording */

/* Takes the object. A line that cannot be written shows in the stream's error flag at the end. */
static void write_line(struct intake *self, const char *said, int64_t now_ms, json_t *object)
{
    cleanup_json json_t *line = object;
    if (!self->record || !line)
        return;
    (void)json_object_set_new(line, "said", json_string(said));
    (void)json_object_set_new(line, "now_ms", json_integer(now_ms));
    (void)json_dumpf(line, self->record, JSON_COMPACT);
    (void)fputc('\n', self->record);
    (void)fflush(self->record);
}

bool intake_record(struct intake *self, const char *path, int64_t now_ms, int64_t wall_ms, struct error *error)
{
    self->record = fopen(path, "wxe");
    if (!self->record)
        return error_set(error, EXIT_CODE_USAGE, "cannot write the recording %s: %s", path, strerror(errno));
    write_line(self, "head", now_ms,
               json_pack("{s:i, s:s, s:I}", "heirflow_recording", VERSION, "group", self->model->group, "wall_ms",
                         (json_int_t)wall_ms));
    return true;
}

bool intake_finish(struct intake *self, struct error *error)
{
    bool failed = self->record && ferror(self->record);
    if (self->record && fclose(self->record) != 0)
        failed = true;
    self->record = NULL;
    return !failed || error_set(error, EXIT_CODE_NEGATIVE, "the recording is not whole; is the disk full?");
}

static json_t *pack_event(const struct model_event *event, bool from_database)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:s, s:s, s:s, s:b}", "id", event->id, "sequence", (json_int_t)event->sequence,
                     "at_ms", (json_int_t)event->at_ms, "term", (json_int_t)event->term, "event", event->event, "node",
                     event->node, "detail", event->detail, "from_database", from_database);
}

static json_t *pack_status(const char *status, int64_t news_last, int64_t database_ms, int64_t asked_ms)
{
    json_t *packed = json_pack("{s:I, s:I, s:I}", "news_last", (json_int_t)news_last, "database_ms",
                               (json_int_t)database_ms, "asked_ms", (json_int_t)asked_ms);
    if (packed && status)
        (void)json_object_set_new(packed, "status", json_loads(status, 0, NULL));
    return packed;
}

/* ---- into the model */

bool intake_status(struct intake *self, const char *status, int64_t news_last, int64_t database_ms, int64_t asked_ms,
                   int64_t now_ms)
{
    struct model_snapshot snapshot;
    if (!decode_status(status, &snapshot))
        return false;
    snapshot.news_last = news_last;
    snapshot.database_ms = database_ms;
    model_take_snapshot(self->model, &snapshot, asked_ms, now_ms);
    model_link_word(&self->model->postgres, now_ms);
    if (self->record)
        write_line(self, "status", now_ms, pack_status(status, news_last, database_ms, asked_ms));
    return true;
}

bool intake_event(struct intake *self, const struct model_event *event, bool from_database, int64_t now_ms)
{
    bool taken = model_take_event(self->model, event, from_database, now_ms);
    if (self->record)
        write_line(self, "event", now_ms, pack_event(event, from_database));
    return taken;
}

void intake_read(struct intake *self, int64_t after, int64_t last, bool complete, int64_t asked_ms, int64_t now_ms)
{
    model_link_word(&self->model->postgres, now_ms);
    model_read(self->model, after, last, complete, asked_ms, now_ms);
    if (self->record)
        write_line(self, "read", now_ms,
                   json_pack("{s:I, s:I, s:b, s:I}", "after", (json_int_t)after, "last", (json_int_t)last, "complete",
                             complete, "asked_ms", (json_int_t)asked_ms));
}

void intake_read_older(struct intake *self, int64_t after, int64_t now_ms)
{
    model_link_word(&self->model->postgres, now_ms);
    model_read_older(self->model, after);
    if (self->record)
        write_line(self, "older", now_ms, json_pack("{s:I}", "after", (json_int_t)after));
}

void intake_reread(struct intake *self, int64_t now_ms)
{
    model_reread(self->model);
    if (self->record)
        write_line(self, "reread", now_ms, json_object());
}

bool intake_group(struct intake *self, const char *group, int64_t now_ms)
{
    char name[MODEL_NAME];
    model_text(name, sizeof name, group);
    model_finish(self->model);
    if (self->record)
        write_line(self, "group", now_ms, json_pack("{s:s}", "group", name));
    return model_init(self->model, name);
}

void intake_unreadable(struct intake *self, int64_t count, int64_t now_ms)
{
    self->model->unreadable += count;
    if (self->record && count)
        write_line(self, "unreadable", now_ms, json_pack("{s:I}", "count", (json_int_t)count));
}

static void write_link(struct intake *self, const char *said, enum intake_source source, const char *fault, int64_t now_ms)
{
    if (self->record)
        write_line(self, said, now_ms, json_pack("{s:s, s:s*}", "source", source_names[source], "fault", fault));
}

void intake_try(struct intake *self, enum intake_source source, int64_t now_ms)
{
    model_link_try(link_of(self, source), now_ms);
    write_link(self, "try", source, NULL, now_ms);
}

void intake_word(struct intake *self, enum intake_source source, int64_t now_ms)
{
    model_link_word(link_of(self, source), now_ms);
    write_link(self, "word", source, NULL, now_ms);
}

void intake_down(struct intake *self, enum intake_source source, const char *fault, int64_t now_ms)
{
    struct model_link *link = link_of(self, source);
    model_link_down(link, fault, now_ms);
    write_link(self, "down", source, link->fault, now_ms);
}

/* ---- playing */

static const char *text_of(const json_t *line, const char *key)
{
    const char *text = json_string_value(json_object_get(line, key));
    return text ? text : "";
}

static int64_t number_of(const json_t *line, const char *key)
{
    return json_integer_value(json_object_get(line, key)); /* 0 for what is none */
}

bool intake_read_head(const char *line, char group[MODEL_NAME], int64_t *ret_now_ms, int64_t *ret_wall_ms)
{
    cleanup_json json_t *head = json_loads(line, 0, NULL);
    if (number_of(head, "heirflow_recording") != VERSION)
        return false;
    model_text(group, MODEL_NAME, text_of(head, "group"));
    *ret_now_ms = number_of(head, "now_ms");
    *ret_wall_ms = number_of(head, "wall_ms");
    return true;
}

int64_t intake_when(const char *line)
{
    cleanup_json json_t *read = json_loads(line, 0, NULL);
    return number_of(read, "now_ms");
}

static void replay_event(struct intake *self, const json_t *line, int64_t now_ms)
{
    struct model_event event = {
        .sequence = number_of(line, "sequence"), .at_ms = number_of(line, "at_ms"), .term = number_of(line, "term")};
    model_text(event.id, sizeof event.id, text_of(line, "id"));
    model_text(event.event, sizeof event.event, text_of(line, "event"));
    model_text(event.node, sizeof event.node, text_of(line, "node"));
    model_text(event.detail, sizeof event.detail, text_of(line, "detail"));
    (void)intake_event(self, &event, json_is_true(json_object_get(line, "from_database")), now_ms);
}

static bool replay_status(struct intake *self, const json_t *line, int64_t now_ms)
{
    const json_t *status = json_object_get(line, "status");
    cleanup_free char *text = status ? json_dumps(status, JSON_COMPACT) : NULL;
    return intake_status(self, text, number_of(line, "news_last"), number_of(line, "database_ms"),
                         number_of(line, "asked_ms"), now_ms);
}

bool intake_replay(struct intake *self, const char *text)
{
    cleanup_json json_t *line = json_loads(text, 0, NULL);
    const char *said = text_of(line, "said");
    int64_t now_ms = number_of(line, "now_ms");
    enum intake_source source = strcmp(text_of(line, "source"), "rabbitmq") == 0 ? INTAKE_RABBITMQ : INTAKE_POSTGRES;
    if (strcmp(said, "status") == 0)
        return replay_status(self, line, now_ms);
    if (strcmp(said, "event") == 0)
        replay_event(self, line, now_ms);
    else if (strcmp(said, "read") == 0)
        intake_read(self, number_of(line, "after"), number_of(line, "last"),
                    json_is_true(json_object_get(line, "complete")), number_of(line, "asked_ms"), now_ms);
    else if (strcmp(said, "older") == 0)
        intake_read_older(self, number_of(line, "after"), now_ms);
    else if (strcmp(said, "group") == 0)
        return intake_group(self, text_of(line, "group"), now_ms);
    else if (strcmp(said, "reread") == 0)
        intake_reread(self, now_ms);
    else if (strcmp(said, "unreadable") == 0)
        intake_unreadable(self, number_of(line, "count"), now_ms);
    else if (strcmp(said, "try") == 0)
        intake_try(self, source, now_ms);
    else if (strcmp(said, "word") == 0)
        intake_word(self, source, now_ms);
    else if (strcmp(said, "down") == 0)
        intake_down(self, source, text_of(line, "fault"), now_ms);
    else
        return false;
    return true;
}
