/* Owns how files of an estate are read, written and marked: never a torn copy, never through a link.
 * Knows neither database nor wrapper. */
#include "estate_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

#define TRIES 6
#define TRY_AGAIN_MS 100
#define SETTLE_MS 20 /* a program that writes through a memory map changes no time at once */
#define CHECKSUM_HEX 65

/* ---- one file */

struct file {
    const char *path;
    bool present;
    struct stat seen;
    char *content;
};

static bool refuse(struct error *error, const char *path, const char *why)
{
    return error_set(error, EXIT_CODE_NEGATIVE, "%s: %s", path, why);
}

static void hash(const void *content, size_t size, char hex[CHECKSUM_HEX])
{
    unsigned char sum[EVP_MAX_MD_SIZE] = {0};
    (void)EVP_Digest(content, size, sum, NULL, EVP_sha256(), NULL); /* fails only without memory: then nothing matches it */
    for (size_t i = 0; i < CHECKSUM_HEX / 2; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", sum[i]);
}

/* *ret_fd is -1 where there is none. Looks before it opens: opening a device or a pipe does things. */
static bool open_regular(const char *path, struct stat *ret_seen, int *ret_fd, struct error *error)
{
    *ret_fd = -1;
    if (lstat(path, ret_seen) < 0)
        return errno == ENOENT || errno == ENOTDIR || refuse(error, path, strerror(errno));
    if (S_ISLNK(ret_seen->st_mode))
        return refuse(error, path, "is a symbolic link; configure the path of the file itself");
    if (!S_ISREG(ret_seen->st_mode))
        return refuse(error, path, "is no regular file");
    *ret_fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (*ret_fd < 0 && errno != ENOENT)
        return refuse(error, path, strerror(errno));
    return true;
}

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mode == b->st_mode &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Does the path still name what was read? */
static bool is_unchanged(const struct file *file)
{
    struct stat now;
    if (lstat(file->path, &now) < 0)
        return !file->present;
    return file->present && same(&now, &file->seen);
}

/* *ret_torn: it changed meanwhile. */
static bool read_file(struct file *file, int64_t most, bool *ret_torn, struct error *error)
{
    cleanup_fd int fd = -1;
    struct stat opened;
    *ret_torn = false;
    file->present = false;
    if (!open_regular(file->path, &file->seen, &fd, error))
        return false;
    if (fd < 0)
        return true;
    file->present = true;
    if (fstat(fd, &opened) < 0)
        return refuse(error, file->path, strerror(errno));
    if (opened.st_size > most)
        return error_set(error, EXIT_CODE_NEGATIVE,
                         "%s: too large: %lld bytes; at most 16 MiB are inherited, all files together", file->path,
                         (long long)opened.st_size);
    free(file->content);
    file->content = malloc((size_t)opened.st_size + 1);
    if (!file->content)
        return refuse(error, file->path, "out of memory");
    ssize_t size, total = 0;
    while (total <= opened.st_size && (size = read(fd, file->content + total, (size_t)(opened.st_size + 1 - total))) > 0)
        total += size;
    if (total <= opened.st_size && size < 0)
        return refuse(error, file->path, strerror(errno));
    *ret_torn = total != opened.st_size || !same(&opened, &file->seen) || !is_unchanged(file);
    return true;
}

/* ---- all of them, as of one moment */

struct files {
    size_t count;
    struct file *list;
};

static void free_files(struct files *files)
{
    for (size_t i = 0; i < files->count; i++)
        free(files->list[i].content);
    free(files->list);
}
#define cleanup_files __attribute__((cleanup(free_files)))

static bool read_all(struct files *files, json_t *paths, bool *ret_torn, struct error *error)
{
    files->list = calloc(json_array_size(paths) + 1, sizeof *files->list);
    if (!files->list)
        return error_set(error, EXIT_CODE_NEGATIVE, "out of memory");
    int64_t left = ESTATE_BYTES_MAX;
    for (size_t i = 0; i < json_array_size(paths); i++) {
        struct file *file = &files->list[files->count++];
        bool torn;
        file->path = json_string_value(json_array_get(paths, i));
        if (!read_file(file, left, &torn, error))
            return false;
        left -= file->present ? file->seen.st_size : 0;
        *ret_torn = *ret_torn || torn;
    }
    return true;
}

static bool agree(const struct files *a, const struct files *b)
{
    for (size_t i = 0; i < a->count; i++) {
        const struct file *one = &a->list[i], *other = &b->list[i];
        if (one->present != other->present || !is_unchanged(one))
            return false;
        if (one->present &&
            (!same(&one->seen, &other->seen) || memcmp(one->content, other->content, (size_t)one->seen.st_size) != 0))
            return false;
    }
    return true;
}

/* True with *ret_files if twice in a row they were the same. */
static bool read_stable(json_t *paths, bool still, struct files *ret_files, bool *ret_torn, struct error *error)
{
    cleanup_files struct files first = {0};
    *ret_torn = false;
    if (!read_all(&first, paths, ret_torn, error))
        return false;
    if (*ret_torn)
        return true;
    if (!still)
        (void)usleep(SETTLE_MS * 1000);
    if (!read_all(ret_files, paths, ret_torn, error))
        return false;
    *ret_torn = *ret_torn || !agree(&first, ret_files);
    return true;
}

static json_t *pack_file(const struct file *file, char checksum[CHECKSUM_HEX])
{
    size_t size = (size_t)file->seen.st_size;
    cleanup_free char *text = malloc(size / 3 * 4 + 5);
    if (!text)
        return NULL;
    hash(file->content, size, checksum);
    (void)EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)file->content, (int)size);
    return json_pack("{s:s, s:i, s:s, s:s}", "path", file->path, "mode", (int)(file->seen.st_mode & 0777), "checksum",
                     checksum, "content", text);
}

static bool pack_files(const struct files *files, json_t **ret_copy, struct error *error)
{
    cleanup_json json_t *list = json_array();
    cleanup_json json_t *summary = json_array();
    json_int_t bytes = 0, count = 0;
    char checksum[CHECKSUM_HEX];
    for (size_t i = 0; i < files->count; i++) {
        const struct file *file = &files->list[i];
        if (!file->present) {
            (void)json_array_append_new(list, json_pack("{s:s}", "path", file->path));
            (void)json_array_append_new(summary, json_pack("[s]", file->path));
            continue;
        }
        count++;
        if (json_array_append_new(list, pack_file(file, checksum)) < 0)
            return refuse(error, file->path, "cannot be copied: out of memory");
        (void)json_array_append_new(summary,
                                    json_pack("[s, i, s]", file->path, (int)(file->seen.st_mode & 0777), checksum));
        bytes += file->seen.st_size;
    }
    cleanup_free char *text = json_dumps(summary, JSON_COMPACT);
    hash(text ? text : "", text ? strlen(text) : 0, checksum);
    *ret_copy = json_pack("{s:O, s:s, s:I, s:I}", "files", list, "checksum", checksum, "count", count, "bytes", bytes);
    return *ret_copy || error_set(error, EXIT_CODE_NEGATIVE, "out of memory");
}

bool estate_files_read(json_t *request, json_t **ret_copy, struct error *error)
{
    json_t *paths = json_object_get(request, "paths");
    for (int i = 0; i < TRIES; i++) {
        cleanup_files struct files files = {0};
        bool torn;
        if (i > 0)
            (void)usleep(TRY_AGAIN_MS * 1000);
        if (!read_stable(paths, json_is_true(json_object_get(request, "still")), &files, &torn, error))
            return false;
        if (!torn)
            return pack_files(&files, ret_copy, error);
    }
    return error_set_retryable(error, EXIT_CODE_NEGATIVE, "%s: kept changing while it was copied",
                               json_string_value(json_array_get(paths, 0)));
}

/* ---- putting a copy in place */

static const char *name_in(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* "DIRECTORY/.NAME" and the suffix. */
static void beside(const char *path, const char *suffix, char *ret, size_t size)
{
    const char *name = name_in(path);
    (void)snprintf(ret, size, "%.*s.%s%s", (int)(name - path), path, name, suffix);
}

static bool write_whole(int fd, const char *content, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, content, size);
        if (written <= 0)
            return false;
        content += written;
        size -= (size_t)written;
    }
    return true;
}

/* A new file of that name, closed. */
static bool make_file(const char *name, const char *content, size_t size, mode_t mode, struct error *error)
{
    (void)unlink(name); /* of an attempt that was cut off */
    cleanup_fd int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(error, EXIT_CODE_NEGATIVE, "cannot create %s: %s", name, strerror(errno));
    if (!write_whole(fd, content, size) || fchmod(fd, mode) < 0) {
        (void)error_set(error, EXIT_CODE_NEGATIVE, "cannot write %s: %s", name, strerror(errno));
        (void)unlink(name);
        return false;
    }
    return true;
}

static bool decode(json_t *file, char **ret_content, size_t *ret_size, struct error *error)
{
    const char *text = json_string_value(json_object_get(file, "content"));
    const char *path = json_string_value(json_object_get(file, "path"));
    const char *expected = json_string_value(json_object_get(file, "checksum"));
    char checksum[CHECKSUM_HEX];
    size_t length = text ? strlen(text) : 0;
    *ret_content = malloc(length + 1);
    if (!text || !*ret_content)
        return refuse(error, path, "the stored copy cannot be read");
    EVP_ENCODE_CTX *decoder = EVP_ENCODE_CTX_new();
    int size = 0, rest = 0;
    if (!decoder)
        return refuse(error, path, "out of memory");
    EVP_DecodeInit(decoder); /* it knows of line feeds, which PostgreSQL puts in */
    bool decoded =
        EVP_DecodeUpdate(decoder, (unsigned char *)*ret_content, &size, (const unsigned char *)text, (int)length) >= 0 &&
        EVP_DecodeFinal(decoder, (unsigned char *)*ret_content + size, &rest) >= 0;
    EVP_ENCODE_CTX_free(decoder);
    *ret_size = (size_t)size + (size_t)rest;
    hash(*ret_content, *ret_size, checksum);
    if (!decoded || !expected || strcmp(expected, checksum) != 0)
        return refuse(error, path, "the stored copy does not have its checksum");
    return true;
}

static bool was_absent(json_t *file)
{
    return !json_is_string(json_object_get(file, "checksum"));
}

/* Writes the new file beside the old one. */
static bool prepare(json_t *file, struct error *error)
{
    const char *path = json_string_value(json_object_get(file, "path"));
    cleanup_free char *content = NULL;
    char name[4200];
    size_t size = 0;
    struct stat old;
    if (lstat(path, &old) == 0 && !S_ISREG(old.st_mode))
        return refuse(error, path, "is no regular file, so nothing is put in its place");
    if (was_absent(file))
        return true;
    beside(path, ".heirflow-new", name, sizeof name);
    mode_t mode = (mode_t)json_integer_value(json_object_get(file, "mode")) & 0777;
    return decode(file, &content, &size, error) && make_file(name, content, size, mode, error);
}

static bool is_nowhere(int cause)
{
    return cause == ENOENT || cause == ENOTDIR;
}

static bool put_in_place(json_t *files, struct error *error)
{
    size_t i;
    json_t *file;
    char name[4200];
    bool all = true;
    json_array_foreach(files, i, file) all = all && prepare(file, error);
    json_array_foreach(files, i, file) /* nothing slow in here: who is killed in between leaves half of them in place */
    {
        const char *path = json_string_value(json_object_get(file, "path"));
        bool absent = was_absent(file);
        beside(path, absent ? ".heirflow-old" : ".heirflow-new", name, sizeof name);
        if (all && (absent ? rename(path, name) : rename(name, path)) < 0 && !(absent && is_nowhere(errno)))
            all = error_set(error, EXIT_CODE_NEGATIVE, "cannot put %s in place: %s", path, strerror(errno));
        if (!all && !absent)
            (void)unlink(name);
    }
    return all;
}

/* ---- marks: under which term this node last ran the scheduler with a file */

static bool read_mark(const char *path, char ret_origin[64], int64_t *ret_term)
{
    char name[4200], text[128] = "";
    beside(path, ".heirflow-term", name, sizeof name);
    cleanup_fd int fd = open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 && read(fd, text, sizeof text - 1) > 0 && sscanf(text, "%63s %" SCNd64, ret_origin, ret_term) == 2;
}

static int64_t marked_term(const char *path, const char *origin)
{
    char noted[64];
    int64_t term;
    return read_mark(path, noted, &term) && strcmp(noted, origin) == 0 ? term : 0; /* another database's say nothing here */
}

static bool write_mark(const char *path, const char *origin, int64_t term, struct error *error)
{
    char name[4200], new_name[4300], text[128];
    beside(path, ".heirflow-term", name, sizeof name);
    (void)snprintf(new_name, sizeof new_name, "%s-new", name);
    (void)snprintf(text, sizeof text, "%s %" PRId64 "\n", origin, term);
    if (!make_file(new_name, text, strlen(text), 0644, error))
        return false;
    if (rename(new_name, name) == 0)
        return true;
    (void)error_set(error, EXIT_CODE_NEGATIVE, "cannot write %s: %s", name, strerror(errno));
    (void)unlink(new_name);
    return false;
}

/* A mark must not outlive, over a power failure, what it stands for. */
static void sync_file(const char *path)
{
    struct stat seen;
    cleanup_fd int fd = -1;
    struct error error;
    if (open_regular(path, &seen, &fd, &error) && fd >= 0)
        (void)fsync(fd); /* some file systems cannot */
}

static bool mark(const char *path, const char *origin, int64_t term, struct error *error)
{
    char directory[4200], noted[64];
    int64_t before;
    (void)snprintf(directory, sizeof directory, "%.*s.", (int)(name_in(path) - path), path);
    if (access(directory, F_OK) < 0 && is_nowhere(errno))
        return true; /* nor is there a file to be marked */
    if (!origin && !read_mark(path, noted, &before))
        return true;
    sync_file(path);
    return write_mark(path, origin ? origin : noted, term, error);
}

bool estate_files_mark(json_t *paths, const char *origin, int64_t term, struct error *error)
{
    size_t i;
    json_t *path;
    bool all = true;
    json_array_foreach(paths, i, path) all = mark(json_string_value(path), origin, term, error) && all;
    return all;
}

/* Of the set: what one file has not seen, none has. */
static int64_t own_term(json_t *files, const char *origin)
{
    size_t i;
    json_t *file;
    int64_t least = INT64_MAX;
    json_array_foreach(files, i, file)
    {
        const char *path = json_string_value(json_object_get(file, "path"));
        struct stat ours;
        bool there = lstat(path, &ours) == 0;
        int64_t term = there ? marked_term(path, origin) : was_absent(file) ? INT64_MAX : 0;
        least = term < least ? term : least;
    }
    return least;
}

static bool is_listed(json_t *paths, const char *path)
{
    size_t i;
    json_t *item;
    json_array_foreach(paths, i, item)
    {
        if (path && strcmp(json_string_value(item), path) == 0)
            return true;
    }
    return false;
}

bool estate_files_write(json_t *request, json_t *copy, bool *ret_inherited, struct error *error)
{
    json_t *paths = json_object_get(request, "paths"), *files = json_object_get(copy, "files"), *file;
    const char *origin = json_string_value(json_object_get(copy, "origin"));
    json_int_t term = json_integer_value(json_object_get(copy, "term"));
    size_t i;
    *ret_inherited = false;
    if (!origin || !json_is_array(files))
        return error_set(error, EXIT_CODE_NEGATIVE, "the database's reply is not what it should be");
    json_array_foreach(files, i, file)
    {
        if (!is_listed(paths, json_string_value(json_object_get(file, "path"))))
            return error_set(error, EXIT_CODE_NEGATIVE, "the database's reply has a file that was not asked for");
    }
    if (json_array_size(files) == 0 || term <= own_term(files, origin))
        return true;
    *ret_inherited = put_in_place(files, error);
    return *ret_inherited;
}

/* ---- the processes */

static json_t *read_request(void)
{
    json_t *request = json_loadf(stdin, JSON_DISABLE_EOF_CHECK, NULL);
    size_t i;
    json_t *path;
    json_array_foreach(json_object_get(request, "paths"), i, path)
    {
        if (!json_is_string(path) || strlen(json_string_value(path)) > 4095) {
            json_decref(request);
            return NULL;
        }
    }
    if (json_array_size(json_object_get(request, "paths")) > 0)
        return request;
    json_decref(request);
    return NULL;
}

static int answer(json_t *reply, json_t *files)
{
    bool told = reply && json_dumpf(reply, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
    if (told && files)
        told = json_dumpf(files, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
    return told && fflush(stdout) == 0 ? EXIT_CODE_OK : EXIT_CODE_NEGATIVE;
}

static bool carry_out_mark(json_t *request, struct error *error)
{
    json_t *mark = json_object_get(request, "mark");
    return !mark || estate_files_mark(json_object_get(request, "paths"), json_string_value(json_object_get(mark, "origin")),
                                      json_integer_value(json_object_get(mark, "term")), error);
}

/* Where there is no such folder yet, the next heir cannot put the file in place either. */
static bool may_be_put_in_place(json_t *paths, struct error *error)
{
    size_t i;
    json_t *path;
    json_array_foreach(paths, i, path)
    {
        char folder[4096];
        (void)snprintf(folder, sizeof folder, "%s", json_string_value(path));
        char *slash = strrchr(folder, '/');
        if (slash)
            slash[slash == folder] = '\0';
        if (access(slash ? folder : ".", W_OK | X_OK) != 0)
            return error_set(error, EXIT_CODE_NEGATIVE, "cannot write to the folder of %s: %s", json_string_value(path),
                             strerror(errno));
    }
    return true;
}

int estate_files_read_main(void)
{
    struct error error, mark_error;
    cleanup_json json_t *request = read_request();
    cleanup_json json_t *copy = NULL;
    cleanup_json json_t *reply = NULL;
    if (!request)
        return EXIT_CODE_USAGE;
    const char *mark_fault = carry_out_mark(request, &mark_error) ? NULL : mark_error.text;
    if (json_is_true(json_object_get(request, "marks_only"))) {
        reply = json_pack("{s:s*}", "mark_fault", mark_fault);
        return answer(reply, NULL);
    }
    bool summary = json_is_true(json_object_get(request, "summary"));
    if ((summary && !may_be_put_in_place(json_object_get(request, "paths"), &error)) ||
        !estate_files_read(request, &copy, &error)) {
        reply = json_pack("{s:s, s:s*}", "fault", error.text, "mark_fault", mark_fault);
        return answer(reply, NULL);
    }
    json_t *files = json_object_get(copy, "files");
    const char *checksum = json_string_value(json_object_get(copy, "checksum"));
    const char *known = json_string_value(json_object_get(request, "known"));
    reply = json_pack("{s:s, s:O, s:O, s:s*}", "checksum", checksum, "count", json_object_get(copy, "count"), "bytes",
                      json_object_get(copy, "bytes"), "mark_fault", mark_fault);
    return answer(reply, summary || (known && strcmp(known, checksum) == 0) ? NULL : files);
}

int estate_files_write_main(void)
{
    struct error error;
    bool inherited = false;
    cleanup_json json_t *request = read_request();
    if (!request)
        return EXIT_CODE_USAGE;
    cleanup_json json_t *copy = json_loadf(stdin, JSON_DISABLE_EOF_CHECK, NULL);
    bool fine = estate_files_write(request, copy, &inherited, &error);
    json_t *node = json_object_get(copy, "node"), *age_ms = json_object_get(copy, "age_ms"), *file;
    json_int_t count = 0;
    size_t i;
    json_array_foreach(json_object_get(copy, "files"), i, file) count += !was_absent(file);
    cleanup_json json_t *reply =
        json_pack("{s:b, s:s*, s:O?, s:O?, s:O?, s:I}", "inherited", inherited, "fault", fine ? NULL : error.text, "term",
                  json_object_get(copy, "term"), "node", node, "age_ms", age_ms, "count", count);
    return answer(reply, NULL);
}
