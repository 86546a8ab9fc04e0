/*
 * Keys of the directory cloud in byte order, a page at a time, in bounded memory.
 *
 * A directory's names come in no order, so one pass over it keeps the CHUNK lowest ones above what
 * was given already; they are walked, then the next pass takes the next ones. A file sorts by its
 * name, a directory by its name and a '/', as its keys do. A name that goes on in a directory of
 * its own (cloud_dir_name.h) is looked into on the same pass: its names belong to this level.
 *
 * What is no key's path (somebody else's names with escapes in them) is passed over; what vanishes
 * on the way was not there.
 */
#include "storage/cloud_dir_internal.h"

#include "base/text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK       1000
#define LIMIT_GOES  16 /* names of one part, in one another */
#define NAME_BYTES  256
#define END_OF_PAGE 1 /* positive: no error */

struct name {
    char *sort; /* decoded, with '/' after a directory's */
    uint32_t sort_len;
    bool is_dir;
    char *file; /* below the level's directory */
};

struct walk {
    struct dir_work *work;
    unsigned given, max;
    size_t path_len, key_len;
    char path[CLOUD_DIR_PATH_BYTES];
    char key[LIMIT_CLOUD_KEY_BYTES + NAME_BYTES];
};

/* One level of the walk, while its names are gathered. */
struct level {
    struct walk *walk;
    struct name names[CHUNK];
    size_t count;
    char bound[LIMIT_CLOUD_KEY_BYTES + NAME_BYTES]; /* names up to here were given */
    size_t bound_len;
    bool bound_descends; /* …, but what is below a directory that it begins with was not */
    char part[LIMIT_CLOUD_KEY_BYTES]; /* of a name that goes on: what came so far */
    size_t part_len;
    char below[CLOUD_DIR_PATH_BYTES]; /* … and the directory, below the level's */
    size_t below_len;
    unsigned depth;
};

static int compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t len = a_len < b_len ? a_len : b_len;
    int order = len ? memcmp(a, b, len) : 0;

    return order ? order : a_len < b_len ? -1 : a_len > b_len;
}

static bool begins(const char *text, size_t len, const char *with, size_t with_len)
{
    return with_len == 0 || (len >= with_len && memcmp(text, with, with_len) == 0);
}

/* Whether keys of the name SORT may be above the bound, and begin with the prefix. */
static bool wanted(const struct level *level, const char *sort, size_t len, bool is_dir)
{
    const struct cloud_text *prefix = &level->walk->work->request->key;
    size_t key_len = level->walk->key_len;

    if (prefix->len > key_len && !begins(sort, len, prefix->ptr + key_len, prefix->len - key_len))
        return false;
    return compare(sort, len, level->bound, level->bound_len) > 0 ||
           (is_dir && level->bound_descends && begins(level->bound, level->bound_len, sort, len));
}

/* Where SORT belongs among the names; *SAME: it is there. */
static size_t position(const struct level *level, const char *sort, size_t len, bool *same)
{
    size_t low = 0, high = level->count;

    *same = false;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct name *name = &level->names[middle];
        int order = compare(name->sort, name->sort_len, sort, len);

        if (order == 0) {
            *same = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void free_name(struct name *name)
{
    free(name->sort);
    free(name->file);
    *name = (struct name){0};
}

static int insert(struct level *level, const char *sort, size_t len, bool is_dir, const char *file)
{
    bool same;
    size_t at = position(level, sort, len, &same);

    if (same || at == CHUNK)
        return 0;
    struct name name = {.sort = malloc(len + 1), .sort_len = (uint32_t)len, .is_dir = is_dir};
    if (name.sort)
        memcpy(name.sort, sort, len);
    if (asprintf(&name.file, "%.*s%s", (int)level->below_len, level->below, file) < 0)
        name.file = NULL;
    if (!name.sort || !name.file) {
        free_name(&name);
        return ERR_NO_MEMORY;
    }
    if (level->count == CHUNK)
        free_name(&level->names[--level->count]);
    memmove(&level->names[at + 1], &level->names[at], (level->count - at) * sizeof name);
    level->names[at] = name;
    level->count++;
    return 0;
}

static bool is_full_below(const struct level *level, const char *sort, size_t len)
{
    const struct name *last = &level->names[CHUNK - 1];

    return level->count == CHUNK && compare(sort, len, last->sort, last->sort_len) >= 0;
}

/* "LEVEL's directory/BELOW/FILE" into OUT; false where that is too long to be a key's. */
static bool full_path(const struct level *level, char out[CLOUD_DIR_PATH_BYTES], const char *file)
{
    int len = snprintf(out, CLOUD_DIR_PATH_BYTES, "%.*s/%.*s%s", (int)level->walk->path_len,
                       level->walk->path, (int)level->below_len, level->below, file);

    return len > 0 && len < CLOUD_DIR_PATH_BYTES;
}

static int gather(void *arg, const char *file);

static int gather_below(struct level *level, const char *piece, size_t len, const char *file)
{
    struct io *io = level->walk->work->cloud->env->io;
    size_t part_len = level->part_len, below_len = level->below_len;
    char path[CLOUD_DIR_PATH_BYTES];

    if (level->depth == LIMIT_GOES || part_len + len > sizeof level->part ||
        !full_path(level, path, file))
        return 0;
    memcpy(level->part + part_len, piece, len);
    level->part_len += len;
    level->below_len +=
        (size_t)snprintf(level->below + below_len, sizeof level->below - below_len, "%s/", file);
    level->depth++;
    int rc = io->list(io, path, gather, level);
    level->depth--;
    level->part_len = part_len;
    level->below_len = below_len;
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* Take FILE among the names, if it may be wanted. Only then is it asked what it is. */
static int gather(void *arg, const char *file)
{
    struct level *level = arg;
    struct io *io = level->walk->work->cloud->env->io;
    char sort[LIMIT_CLOUD_KEY_BYTES + NAME_BYTES + 1], piece[NAME_BYTES];
    char path[CLOUD_DIR_PATH_BYTES];
    size_t piece_len, len;
    struct io_stat stat;
    bool goes_on;

    if (atomic_load(&level->walk->work->cancelled))
        return ERR_CLOSED;
    if (strcmp(file, CLOUD_DIR_OWN) == 0 || strlen(file) >= NAME_BYTES ||
        cloud_dir_name(piece, &piece_len, &goes_on, file))
        return 0;
    if (goes_on)
        return gather_below(level, piece, piece_len, file);
    if (level->part_len + piece_len > LIMIT_CLOUD_KEY_BYTES)
        return 0;
    memcpy(sort, level->part, level->part_len);
    memcpy(sort + level->part_len, piece, piece_len);
    len = level->part_len + piece_len;
    sort[len] = '/';
    bool file_wanted = wanted(level, sort, len, false) && !is_full_below(level, sort, len);
    bool dir_wanted = wanted(level, sort, len + 1, true) && !is_full_below(level, sort, len + 1);
    if ((!file_wanted && !dir_wanted) || !full_path(level, path, file))
        return 0;
    int rc = io->stat(io, path, &stat);
    if (rc) /* a list that lacks what could not be looked at would not be complete */
        return rc == ERR_NOT_FOUND ? 0 : rc;
    if (stat.is_dir)
        return dir_wanted ? insert(level, sort, len + 1, true, file) : 0;
    return file_wanted ? insert(level, sort, len, false, file) : 0;
}

/* Give the key of the file at walk->path, unless the page is full. */
static int give(struct walk *walk)
{
    struct dir_work *work = walk->work;
    struct cloud_request *request = work->request;
    struct cloud_dir *cloud = work->cloud;
    size_t root = strlen(cloud->root) + 1;
    char expected[CLOUD_DIR_PATH_BYTES];
    struct dir_object object;

    if (walk->key_len > LIMIT_CLOUD_KEY_BYTES || !utf8_valid(walk->key, walk->key_len) ||
        cloud_dir_path(expected, sizeof expected, walk->key, walk->key_len) ||
        strcmp(expected, walk->path + root) != 0)
        return 0;
    if (walk->given == walk->max) {
        request->more = true;
        return END_OF_PAGE;
    }
    int fd = io_open(cloud->env->io, walk->path, IO_READ);
    if (fd < 0)
        return fd == ERR_NOT_FOUND ? 0 : fd;
    int rc = cloud_dir_look(cloud, fd, &object);
    (void)io_close(cloud->env->io, &fd);
    if (rc)
        return rc == ERR_NOT_FOUND ? 0 : rc;
    const struct cloud_entry entry = {.key = {walk->key, (uint32_t)walk->key_len},
                                      .etag = {object.etag, (uint32_t)strlen(object.etag)},
                                      .size = object.size,
                                      .modified_s = object.modified_s};
    request->entry(request, &entry);
    walk->given++;
    return 0;
}

static int walk_level(struct walk *walk);

/* The names gathered, in order: keys are given, directories walked. */
static int visit(struct level *level)
{
    struct walk *walk = level->walk;
    size_t path_len = walk->path_len, key_len = walk->key_len;
    int rc = 0;

    for (size_t i = 0; i < level->count && rc == 0; i++) {
        const struct name *name = &level->names[i];
        size_t file_len = strlen(name->file);

        if (key_len + name->sort_len > sizeof walk->key ||
            path_len + 1 + file_len >= sizeof walk->path)
            continue; /* longer than any key */
        walk->path[path_len] = '/';
        memcpy(walk->path + path_len + 1, name->file, file_len + 1);
        walk->path_len = path_len + 1 + file_len;
        memcpy(walk->key + key_len, name->sort, name->sort_len);
        walk->key_len = key_len + name->sort_len;
        rc = name->is_dir ? walk_level(walk) : give(walk);
        walk->path_len = path_len;
        walk->key_len = key_len;
        walk->path[path_len] = 0;
    }
    return rc;
}

/* All keys below the directory at walk->path, whose keys begin with walk->key. */
static int walk_level(struct walk *walk)
{
    const struct cloud_text *after = &walk->work->request->after;
    struct io *io = walk->work->cloud->env->io;
    struct level *level = calloc(1, sizeof *level);
    bool full = true;
    int rc = 0;

    if (!level)
        return ERR_NO_MEMORY;
    level->walk = walk;
    if (begins(after->ptr, after->len, walk->key, walk->key_len)) {
        level->bound_len = after->len - walk->key_len;
        if (level->bound_len)
            memcpy(level->bound, after->ptr + walk->key_len, level->bound_len);
        level->bound_descends = true;
    }
    while (rc == 0 && full) {
        rc = io->list(io, walk->path, gather, level);
        if (rc == ERR_NOT_FOUND)
            rc = 0;
        full = level->count == CHUNK;
        if (full) {
            const struct name *last = &level->names[CHUNK - 1];

            memcpy(level->bound, last->sort, last->sort_len);
            level->bound_len = last->sort_len;
            level->bound_descends = false;
        }
        if (rc == 0)
            rc = visit(level);
        while (level->count > 0)
            free_name(&level->names[--level->count]);
    }
    free(level);
    return rc;
}

int cloud_dir_list(struct dir_work *work)
{
    struct cloud_request *request = work->request;
    struct walk *walk = calloc(1, sizeof *walk);

    if (!walk)
        return ERR_NO_MEMORY;
    walk->work = work;
    walk->max = request->max && request->max < LIMIT_CLOUD_LIST ? request->max : LIMIT_CLOUD_LIST;
    walk->path_len = strlen(work->path);
    memcpy(walk->path, work->path, walk->path_len + 1);
    /* The prefix up to its last '/' is the directory. */
    walk->key_len = request->key.len;
    while (walk->key_len > 0 && request->key.ptr[walk->key_len - 1] != '/')
        walk->key_len--;
    if (walk->key_len)
        memcpy(walk->key, request->key.ptr, walk->key_len);
    int rc = cloud_dir_judge(work, 0);
    /* Below what is all above `after`, and not where that is not. */
    if (rc == 0 &&
        !(compare(walk->key, walk->key_len, request->after.ptr, request->after.len) < 0 &&
          !begins(request->after.ptr, request->after.len, walk->key, walk->key_len)))
        rc = walk_level(walk);
    free(walk);
    /* What went away in the middle looks empty from there on. */
    if (rc == 0 || rc == END_OF_PAGE)
        rc = cloud_dir_judge(work, 0);
    return rc;
}
