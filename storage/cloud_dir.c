/*
 * The cloud as a directory: requests as jobs of a few threads.
 *
 * A put writes into `.objstore-cloud/tmp`, hashing as it goes, adds the metadata behind the body
 * (cloud_dir_trailer.h), syncs, renames the file to its key's path (cloud_dir_name.h), and syncs
 * that directory. So a key has its old object or its new one, whole, whatever crashes when; several
 * nodes may share the directory, the last rename counts. Long requests take turns: a put goes to
 * the end of the queue after CLOUD_DIR_STEP_BYTES, a get when its owner has CLOUD_WINDOW_BYTES
 * unread (it is `parked` then, and comes back with cloud_consumed). No thread waits for anybody but
 * the disk.
 *
 *   start ──► queued ──► running ──► done
 *               ▲           │ window full
 *               └── parked ◄┘            cancel, destroy: parked ──► queued ──► done (ERR_CLOSED)
 *
 * Failure: an object that is not there is told from a directory that is not there (a file system
 * that was unmounted) by `.objstore-cloud/ID`: without it, or with another one than at first, every
 * request is ERR_AGAIN, and nothing is written. What a crash left in tmp goes a day later, at some
 * start.
 */
#include "storage/cloud_dir.h"

#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"
#include "storage/cloud_dir_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define STALE_NS    (UINT64_C(86400) * 1000000000)
#define PLACE_TRIES 3 /* somebody may remove an empty directory just as we put a file into it */

static struct cloud_dir *dir_of(struct cloud *cloud)
{
    return (struct cloud_dir *)(void *)cloud;
}

static struct io *io_of(const struct dir_work *work)
{
    return work->cloud->env->io;
}

static void say(struct cloud_request *request, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct cloud_request *request, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(request->message, sizeof request->message, format, args);
    va_end(args);
}

/* ---- The directory ---- */

static int remove_stale(void *arg, const char *name)
{
    struct cloud_dir *cloud = arg;
    struct io *io = cloud->env->io;
    char *path = io_join(cloud->temporary_dir, name);
    struct io_stat stat;

    if (!path)
        return ERR_NO_MEMORY;
    if (io->stat(io, path, &stat) == 0 && !stat.is_dir &&
        stat.modified_ns + STALE_NS < cloud->env->wall_ns(cloud->env))
        (void)io->unlink(io, path); /* the next start tries again */
    free(path);
    return 0;
}

/* What stands in ROOT/.objstore-cloud/ID into ID; ERR_NOT_FOUND. */
static int read_id(struct cloud_dir *cloud, char id[CLOUD_DIR_ID_BYTES + 1])
{
    char *path = io_join(cloud->own, "ID"), *text = NULL;
    size_t len;

    if (!path)
        return ERR_NO_MEMORY;
    int rc = io_read_all(cloud->env->io, path, 2 * CLOUD_DIR_ID_BYTES, &text, &len);
    if (rc == 0 && len == CLOUD_DIR_ID_BYTES + 1 && text[CLOUD_DIR_ID_BYTES] == '\n')
        (void)snprintf(id, CLOUD_DIR_ID_BYTES + 1, "%s", text);
    else if (rc == 0)
        rc = ERR_CORRUPT;
    free(text);
    free(path);
    return rc;
}

/* An id of its own for a directory that has none; whoever links it first gives it. */
static int make_id(struct cloud_dir *cloud)
{
    struct io *io = cloud->env->io;
    uint8_t dice[CLOUD_DIR_ID_BYTES / 2];
    char text[CLOUD_DIR_ID_BYTES + 2], *path = io_join(cloud->own, "ID"), *fresh = NULL;
    int rc = ERR_NO_MEMORY;

    cloud->env->random(cloud->env, dice, sizeof dice);
    hex_encode(text, dice, sizeof dice);
    fresh = io_join(cloud->temporary_dir, text);
    if (!path || !fresh)
        goto out;
    text[CLOUD_DIR_ID_BYTES] = '\n';
    text[CLOUD_DIR_ID_BYTES + 1] = 0;
    rc = io_replace(io, fresh, text, CLOUD_DIR_ID_BYTES + 1);
    if (rc == 0)
        rc = io->link(io, fresh, path);
    if (rc == ERR_EXISTS)
        rc = 0;
    (void)io->unlink(io, fresh);
    if (rc == 0)
        rc = io->sync_dir(io, cloud->own);
out:
    free(fresh);
    free(path);
    return rc;
}

/* Make what is missing of the directory, but not its parent. */
static int make_directory(struct cloud_dir *cloud)
{
    struct io *io = cloud->env->io;
    struct io_stat stat;

    int rc = io->stat(io, cloud->root, &stat);
    if (rc == ERR_NOT_FOUND)
        rc = io->mkdir(io, cloud->root);
    else if (rc == 0 && !stat.is_dir)
        rc = ERR_EXISTS;
    if (rc == 0)
        rc = io_mkdirs(io, cloud->temporary_dir);
    if (rc)
        return rc;
    rc = read_id(cloud, cloud->id);
    if (rc == ERR_NOT_FOUND)
        rc = make_id(cloud);
    if (rc == 0)
        rc = read_id(cloud, cloud->id);
    if (rc)
        *cloud->id = 0;
    return rc;
}

static int prepare(struct cloud_dir *cloud)
{
    if (atomic_load(&cloud->prepared))
        return 0;
    /* One that is known is never made. */
    int rc = *cloud->id ? cloud_dir_there(cloud) : make_directory(cloud);
    if (rc)
        return rc;
    atomic_store(&cloud->prepared, true);
    rc = cloud->env->io->list(cloud->env->io, cloud->temporary_dir, remove_stale, cloud);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

int cloud_dir_there(struct cloud_dir *cloud)
{
    char id[CLOUD_DIR_ID_BYTES + 1];

    return *cloud->id && read_id(cloud, id) == 0 && strcmp(id, cloud->id) == 0 ? 0 : ERR_AGAIN;
}

/* RC of an operation on a key's file, which may mean that the whole directory is gone, or another
 * one. */
static int judge(struct dir_work *work, int rc)
{
    if ((rc == 0 || rc == ERR_NOT_FOUND) && cloud_dir_there(work->cloud)) {
        say(work->request, "directory %s is not there, or is another one", work->cloud->root);
        return ERR_AGAIN;
    }
    if (rc == ERR_NOT_FOUND)
        say(work->request, "no such key");
    return rc;
}

/* The directory that FILE lies in, in place. */
static void cut_name(char *file)
{
    char *slash = strrchr(file, '/');

    assert(slash && slash > file);
    *slash = 0;
}

/* ---- Objects ---- */

int cloud_dir_look(struct cloud_dir *cloud, int fd, struct dir_object *out)
{
    struct io *io = cloud->env->io;
    struct io_stat stat;

    int rc = io->stat_fd(io, fd, &stat);
    if (rc || stat.is_dir)
        return rc ? rc : ERR_NOT_FOUND;
    *out = (struct dir_object){.size = stat.size_bytes,
                               .foreign = true,
                               .modified_s = (int64_t)(stat.modified_ns / 1000000000)};
    if (stat.size_bytes >= TRAILER_LINE_BYTES) {
        rc = io_read(io, fd, out->text, TRAILER_LINE_BYTES, stat.size_bytes - TRAILER_LINE_BYTES,
                     false);
        if (rc)
            return rc;
        out->foreign = !trailer_line_read(&out->line, out->text, stat.size_bytes);
    }
    if (out->foreign) {
        (void)snprintf(out->etag, sizeof out->etag, "%" PRIx64 "-%" PRIx64, stat.size_bytes,
                       stat.modified_ns);
        return 0;
    }
    out->size = out->line.size;
    memcpy(out->etag, out->line.sha256, sizeof out->etag);
    return 0;
}

/* The texts of OBJECT; none of a foreign one. *JSON is to be freed after OUT was released. */
static int read_trailer(struct dir_work *work, const struct dir_object *object, char **json,
                        struct trailer *out)
{
    *out = (struct trailer){0};
    *json = NULL;
    if (object->foreign)
        return 0;
    *json = malloc(object->line.json_bytes + 1);
    if (!*json)
        return ERR_NO_MEMORY;
    int rc =
        io_read(io_of(work), work->fd, *json, object->line.json_bytes, object->size + 1, false);
    if (rc == 0)
        rc = trailer_read(out, &object->line, *json, object->text);
    if (rc == ERR_CORRUPT) {
        say(work->request, "the metadata behind the body are damaged");
        rc = ERR_MISMATCH;
    }
    return rc;
}

static int tell_head(struct dir_work *work, const struct dir_object *object)
{
    struct cloud_request *request = work->request;
    struct trailer trailer;
    char *json;

    if (!request->head)
        return 0;
    int rc = read_trailer(work, object, &json, &trailer);
    if (rc == 0) {
        bool tags = request->op == CLOUD_TAGS;
        const struct cloud_head head = {
            .size = object->size,
            .etag = {object->etag, (uint32_t)strlen(object->etag)},
            .type = trailer.type,
            .modified_s = object->modified_s,
            .pairs = tags ? trailer.tags : trailer.pairs,
            .pair_count = tags ? trailer.tag_count : trailer.pair_count,
            .tag_count = (unsigned)trailer.tag_count,
        };
        rc = request->head(request, &head);
    }
    trailer_release(&trailer);
    free(json);
    return rc;
}

/* Open the key's file, and check what the request asks of it. */
static int open_object(struct dir_work *work, struct dir_object *object)
{
    struct cloud_request *request = work->request;

    work->fd = io_open(io_of(work), work->path, IO_READ);
    if (work->fd < 0) {
        int failed = work->fd;
        work->fd = -1;
        return judge(work, failed);
    }
    int rc = judge(work, cloud_dir_look(work->cloud, work->fd, object));
    if (rc)
        return rc;
    if (request->if_match.len &&
        (request->if_match.len != strlen(object->etag) ||
         memcmp(request->if_match.ptr, object->etag, request->if_match.len) != 0)) {
        say(request, "the object is another one now");
        return ERR_PRECONDITION;
    }
    return 0;
}

/* ---- What each request does. ERR_AGAIN with *TURN: it is not over. ---- */

/* True where the next LEN bytes are more than the owner has room for; it is parked then. */
static bool park(struct dir_work *work, uint64_t len)
{
    struct cloud_dir *cloud = work->cloud;

    (void)pthread_mutex_lock(&cloud->lock);
    uint64_t unread = work->at - work->first - work->request->consumed;
    work->parked = unread + len > CLOUD_WINDOW_BYTES && !atomic_load(&work->cancelled);
    bool parked = work->parked;
    (void)pthread_mutex_unlock(&cloud->lock);
    return parked;
}

static int begin_get(struct dir_work *work)
{
    struct cloud_request *request = work->request;
    struct dir_object object;

    int rc = open_object(work, &object);
    if (rc)
        return rc;
    if (request->offset > 0 && request->offset >= object.size) {
        say(request, "the body has %" PRIu64 " bytes", object.size);
        return ERR_RANGE;
    }
    uint64_t left = object.size - request->offset;
    work->first = work->at = request->offset;
    work->end = work->at + (request->length && request->length < left ? request->length : left);
    return tell_head(work, &object);
}

static int do_get(struct dir_work *work, uint8_t *buffer, bool *turn)
{
    struct cloud_request *request = work->request;
    int rc = work->fd < 0 ? begin_get(work) : 0;

    while (rc == 0 && work->at < work->end) {
        uint64_t left = work->end - work->at;
        size_t len = left < CLOUD_DIR_CHUNK_BYTES ? (size_t)left : CLOUD_DIR_CHUNK_BYTES;

        if (atomic_load(&work->cancelled))
            return ERR_CLOSED;
        if (park(work, len)) {
            *turn = true;
            return ERR_AGAIN;
        }
        rc = io_read(io_of(work), work->fd, buffer, len, work->at, false);
        if (rc)
            break;
        /* Before the call: its owner may have consumed the bytes while it runs. */
        (void)pthread_mutex_lock(&work->cloud->lock);
        work->at += len;
        work->cloud->figures.bytes_down += len;
        (void)pthread_mutex_unlock(&work->cloud->lock);
        request->data(request, buffer, len);
    }
    return rc;
}

static int do_head(struct dir_work *work)
{
    struct dir_object object;
    int rc = open_object(work, &object);

    return rc ? rc : tell_head(work, &object);
}

/* Remove directories above the file that was removed, as long as they are empty. */
static void remove_empty(struct dir_work *work)
{
    size_t root = strlen(work->cloud->root);
    struct io *io = io_of(work);

    for (cut_name(work->path); strlen(work->path) > root; cut_name(work->path)) {
        if (io->unlink(io, work->path))
            break;
    }
}

static int do_delete(struct dir_work *work)
{
    struct io *io = io_of(work);
    char parent[CLOUD_DIR_PATH_BYTES];
    struct io_stat stat;

    int rc = io->stat(io, work->path, &stat);
    if (rc == 0 && stat.is_dir)
        rc = ERR_NOT_FOUND;
    rc = judge(work, rc);
    if (rc == 0)
        rc = io->unlink(io, work->path);
    if (rc)
        return rc == ERR_NOT_FOUND ? 0 : rc; /* somebody else has removed it */
    memcpy(parent, work->path, sizeof parent);
    cut_name(parent);
    rc = io->sync_dir(io, parent);
    if (rc == ERR_NOT_FOUND)
        rc = 0; /* the whole directory was removed after it */
    if (rc == 0)
        remove_empty(work);
    return rc;
}

/* A file of its own in tmp, whatever other processes share the directory. */
static int begin_put(struct dir_work *work)
{
    struct cloud_dir *cloud = work->cloud;
    uint8_t dice[16];
    char name[2 * sizeof dice + 1];

    int rc = prepare(cloud);
    if (rc == 0)
        rc = cloud_dir_there(cloud);
    if (rc) {
        say(work->request, "directory %s is not there, or is another one", cloud->root);
        return rc == ERR_NO_MEMORY || rc == ERR_NO_SPACE ? rc : ERR_AGAIN;
    }
    cloud->env->random(cloud->env, dice, sizeof dice);
    hex_encode(name, dice, sizeof dice);
    rc = digest_create(&work->digest, DIGEST_SHA256);
    if (rc)
        return rc;
    char *path = io_join(cloud->temporary_dir, name);
    if (!path)
        return ERR_NO_MEMORY;
    work->fd = io_open(io_of(work), path, IO_WRITE | IO_CREATE | IO_EXCLUSIVE);
    if (work->fd < 0) {
        free(path);
        rc = work->fd;
        work->fd = -1;
        return rc;
    }
    work->temporary = path;
    return 0;
}

/* Give the file its name. The outcome of a failed sync is not known: the name may be there. */
static int place(struct dir_work *work)
{
    struct io *io = io_of(work);
    char parent[CLOUD_DIR_PATH_BYTES];
    struct io_stat stat;
    int rc = ERR_IO;

    memcpy(parent, work->path, sizeof parent);
    cut_name(parent);
    for (unsigned i = 0; i < PLACE_TRIES; i++) {
        rc = cloud_dir_there(work->cloud);
        if (rc == 0)
            rc = io_mkdirs(io, parent);
        if (rc == ERR_EXISTS) {
            say(work->request, "a part of the key before a '/' is an object's key already");
            return ERR_INVALID;
        }
        if (rc == 0 && io->stat(io, work->path, &stat) == 0 && stat.is_dir) {
            say(work->request, "keys below this one are there: a directory cannot have it, too");
            return ERR_INVALID;
        }
        if (rc == 0)
            rc = io->rename(io, work->temporary, work->path);
        if (rc != ERR_NOT_FOUND)
            break;
    }
    if (rc)
        return rc == ERR_NOT_FOUND ? ERR_AGAIN : rc;
    free(work->temporary);
    work->temporary = NULL;
    return io->sync_dir(io, parent);
}

static int end_put(struct dir_work *work)
{
    struct cloud_request *request = work->request;
    uint8_t sha[SHA256_BYTES];
    char *text = NULL;
    size_t len;

    digest_final(work->digest, sha);
    if (memcmp(sha, request->sha256, sizeof sha) != 0) {
        say(request, "the bytes have another SHA-256 than they should");
        return ERR_MISMATCH;
    }
    int rc = trailer_write(&text, &len, request);
    if (rc == 0)
        rc = io_write(io_of(work), work->fd, text, len, request->size);
    free(text);
    if (rc == 0)
        rc = io_of(work)->fsync(io_of(work), work->fd);
    if (rc == 0)
        rc = io_close(io_of(work), &work->fd);
    if (rc == 0)
        rc = place(work);
    if (rc == 0)
        hex_encode(request->etag, sha, sizeof sha);
    return rc;
}

static int do_put(struct dir_work *work, uint8_t *buffer, bool *turn)
{
    struct cloud_request *request = work->request;
    uint64_t step = work->at + CLOUD_DIR_STEP_BYTES;
    int rc = work->temporary ? 0 : begin_put(work);

    while (rc == 0 && work->at < request->size) {
        uint64_t left = request->size - work->at;
        size_t len = left < CLOUD_DIR_CHUNK_BYTES ? (size_t)left : CLOUD_DIR_CHUNK_BYTES;

        if (atomic_load(&work->cancelled))
            return ERR_CLOSED;
        if (work->at == step) {
            /* Lest all of it go out in the sync at the end, and everybody else's with it. */
            rc = io_of(work)->sync_range(io_of(work), work->fd, step - CLOUD_DIR_STEP_BYTES,
                                         CLOUD_DIR_STEP_BYTES);
            *turn = rc == 0;
            return rc ? rc : ERR_AGAIN;
        }
        rc = request->read(request, work->at, buffer, len);
        if (rc)
            break;
        digest_update(work->digest, buffer, len);
        rc = io_write(io_of(work), work->fd, buffer, len, work->at);
        work->at += len;
    }
    return rc ? rc : end_put(work);
}

/* ---- Running ---- */

static void count(struct dir_work *work, int rc)
{
    struct cloud_dir *cloud = work->cloud;
    struct cloud_count *of = &cloud->figures.by_op[work->request->op];

    of->sent++;
    if (rc && rc != ERR_NOT_FOUND && rc != ERR_PRECONDITION && rc != ERR_RANGE && rc != ERR_CLOSED)
        of->failed++;
    if (rc == 0 && work->request->op == CLOUD_PUT)
        cloud->figures.bytes_up += work->request->size;
}

/* What the contract knows of RC. */
static int told(struct dir_work *work, int rc)
{
    struct cloud_request *request = work->request;

    if (rc && !*request->message)
        say(request, "%s: %s", work->path, err_text(rc));
    return rc == ERR_CORRUPT ? ERR_MISMATCH : rc;
}

static void finish(struct dir_work *work, int rc)
{
    struct cloud_dir *cloud = work->cloud;
    struct cloud_request *request = work->request;
    struct io *io = io_of(work);

    (void)io_close(io, &work->fd);
    if (work->temporary)
        (void)io->unlink(io, work->temporary);
    rc = told(work, rc);
    (void)pthread_mutex_lock(&cloud->lock);
    count(work, rc);
    cloud->active--;
    *(work->prev ? &work->prev->next : &cloud->works) = work->next;
    if (work->next)
        work->next->prev = work->prev;
    request->work = NULL;
    (void)pthread_mutex_unlock(&cloud->lock);
    free(work->temporary);
    digest_destroy(&work->digest);
    free(work);

    request->done(request, rc);
    (void)pthread_mutex_lock(&cloud->lock);
    assert(cloud->unfinished > 0);
    if (--cloud->unfinished == 0)
        (void)pthread_cond_signal(&cloud->empty);
    (void)pthread_mutex_unlock(&cloud->lock);
}

static void queue_job(struct dir_work *work)
{
    int rc = pool_submit(work->cloud->pool, &work->job);

    assert(rc == 0); /* it has room for every request, and stops after the last one */
    (void)rc;
}

static void run(struct job *job, void *thread_context)
{
    struct dir_work *work = (struct dir_work *)(void *)job;
    bool turn = false;
    int rc;

    if (atomic_load(&work->cancelled)) {
        finish(work, ERR_CLOSED);
        return;
    }
    switch (work->request->op) {
    case CLOUD_PUT:
        rc = do_put(work, thread_context, &turn);
        break;
    case CLOUD_GET:
        rc = do_get(work, thread_context, &turn);
        if (turn)
            return; /* parked: from here on it belongs to whoever unparks it */
        break;
    case CLOUD_HEAD:
    case CLOUD_TAGS:
        rc = do_head(work);
        break;
    case CLOUD_DELETE:
        rc = do_delete(work);
        break;
    case CLOUD_LIST:
        rc = cloud_dir_list(work);
        break;
    default:
        assert(!"an operation that start refuses");
        rc = ERR_INVALID;
    }
    if (turn)
        queue_job(work);
    else
        finish(work, rc);
}

/* ---- The backend ---- */

static bool name_is_good(struct cloud_text name, size_t max)
{
    if (name.len == 0 || name.len > max)
        return false;
    for (uint32_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
            return false;
    }
    return true;
}

static bool pairs_are_good(const struct cloud_pair *pairs, size_t count, size_t max_name)
{
    for (size_t i = 0; i < count; i++) {
        if (!name_is_good(pairs[i].name, max_name) ||
            !utf8_valid(pairs[i].value.ptr, pairs[i].value.len))
            return false;
    }
    return true;
}

static bool fits(const struct cloud_request *request)
{
    size_t bytes = 0;

    if (request->pair_count > LIMIT_CLOUD_PAIRS || request->tag_count > LIMIT_CLOUD_TAGS)
        return false;
    for (size_t i = 0; i < request->pair_count; i++)
        bytes += request->pairs[i].name.len + request->pairs[i].value.len;
    for (size_t i = 0; i < request->tag_count; i++) {
        if (request->tags[i].value.len > 4 * 256)
            return false;
    }
    return bytes <= LIMIT_CLOUD_META_BYTES &&
           pairs_are_good(request->pairs, request->pair_count, LIMIT_CLOUD_META_BYTES) &&
           pairs_are_good(request->tags, request->tag_count, 128) &&
           utf8_valid(request->type.ptr, request->type.len) && request->size <= INT64_MAX;
}

/* Check REQUEST, and find where its key lies. */
static int locate(struct dir_work *work, const struct cloud_request *request)
{
    size_t root = strlen(work->cloud->root), len = request->key.len;

    if (len > LIMIT_CLOUD_KEY_BYTES || request->after.len > LIMIT_CLOUD_KEY_BYTES ||
        !utf8_valid(request->key.ptr, len) || (len == 0 && request->op != CLOUD_LIST))
        return ERR_INVALID;
    if (request->op == CLOUD_LIST) {
        /* The directory that the prefix ends in; none: the root. */
        while (len > 0 && request->key.ptr[len - 1] != '/')
            len--;
    }
    memcpy(work->path, work->cloud->root, root + 1);
    if (request->op == CLOUD_LIST && len == 0)
        return 0;
    if (request->op == CLOUD_LIST)
        len--;
    work->path[root] = '/';
    return cloud_dir_path(work->path + root + 1, sizeof work->path - root - 1, request->key.ptr,
                          len)
               ? ERR_INVALID
               : 0;
}

static int dir_start(struct cloud *base, struct cloud_request *request)
{
    struct cloud_dir *cloud = dir_of(base);

    assert(request->done && request->op >= CLOUD_PUT && request->op <= CLOUD_TAGS);
    assert(request->op != CLOUD_PUT || request->read || request->size == 0);
    assert(request->op != CLOUD_GET || request->data);
    assert(request->op != CLOUD_LIST || request->entry);
    struct dir_work *work = calloc(1, sizeof *work);
    if (!work)
        return ERR_NO_MEMORY;
    work->cloud = cloud;
    work->request = request;
    work->fd = -1;
    work->job.run = run;
    request->work = work;
    request->consumed = 0;
    request->cancelled = false;
    request->more = false;
    request->retry_after_ms = 0;
    *request->etag = *request->message = 0;
    int rc = locate(work, request);
    if (rc == 0 && !fits(request))
        rc = ERR_INVALID;
    if (rc) {
        free(work);
        return rc;
    }
    (void)pthread_mutex_lock(&cloud->lock);
    if (cloud->closing || cloud->active == LIMIT_CLOUD_REQUESTS) {
        rc = cloud->closing ? ERR_CLOSED : ERR_FULL;
    } else {
        cloud->active++;
        cloud->unfinished++;
        work->next = cloud->works;
        if (work->next)
            work->next->prev = work;
        cloud->works = work;
    }
    (void)pthread_mutex_unlock(&cloud->lock);
    if (rc)
        free(work);
    else
        queue_job(work);
    return rc;
}

/* Under the lock: WORK, if it is parked, goes on. */
static void unpark(struct dir_work *work)
{
    if (!work->parked)
        return;
    work->parked = false;
    queue_job(work);
}

static void dir_consumed(struct cloud *base, struct cloud_request *request, uint64_t bytes)
{
    struct cloud_dir *cloud = dir_of(base);

    (void)pthread_mutex_lock(&cloud->lock);
    struct dir_work *work = request->work;
    request->consumed += bytes;
    if (work) {
        assert(request->consumed <= work->at - work->first);
        unpark(work); /* where it is too little, it parks again */
    }
    (void)pthread_mutex_unlock(&cloud->lock);
}

static void dir_cancel(struct cloud *base, struct cloud_request *request)
{
    struct cloud_dir *cloud = dir_of(base);

    (void)pthread_mutex_lock(&cloud->lock);
    struct dir_work *work = request->work;
    request->cancelled = true;
    if (work) {
        atomic_store(&work->cancelled, true);
        unpark(work);
    }
    (void)pthread_mutex_unlock(&cloud->lock);
}

static void dir_figures(struct cloud *base, struct cloud_figures *out)
{
    struct cloud_dir *cloud = dir_of(base);

    (void)pthread_mutex_lock(&cloud->lock);
    *out = cloud->figures;
    (void)pthread_mutex_unlock(&cloud->lock);
}

static void dir_destroy(struct cloud *base)
{
    struct cloud_dir *cloud = dir_of(base);

    (void)pthread_mutex_lock(&cloud->lock);
    cloud->closing = true;
    for (struct dir_work *work = cloud->works; work; work = work->next) {
        atomic_store(&work->cancelled, true);
        unpark(work);
    }
    while (cloud->unfinished > 0)
        (void)pthread_cond_wait(&cloud->empty, &cloud->lock);
    (void)pthread_mutex_unlock(&cloud->lock);
    pool_stop(&cloud->pool);
    (void)pthread_cond_destroy(&cloud->empty);
    (void)pthread_mutex_destroy(&cloud->lock);
    free(cloud->temporary_dir);
    free(cloud->own);
    free(cloud->root);
    free(cloud);
}

static int make_buffer(void *arg, void **thread_context)
{
    (void)arg;
    *thread_context = malloc(CLOUD_DIR_CHUNK_BYTES);
    return *thread_context ? 0 : ERR_NO_MEMORY;
}

static void free_buffer(void *arg, void *thread_context)
{
    (void)arg;
    free(thread_context);
}

/* PATH without slashes at its end. */
static char *trimmed(const char *path)
{
    size_t len = strlen(path);

    while (len > 1 && path[len - 1] == '/')
        len--;
    return strndup(path, len);
}

/* What only the operator can mend is refused; what may pass is said, and tried again. */
static int first_look(struct cloud_dir *cloud, char *message, size_t cap)
{
    int rc = prepare(cloud);

    switch (rc) {
    case 0:
        return 0;
    case ERR_NOT_FOUND:
        (void)snprintf(message, cap, "cannot make directory %s: its parent is not there",
                       cloud->root);
        return rc;
    case ERR_EXISTS:
        (void)snprintf(message, cap, "%s is no directory", cloud->root);
        return rc;
    case ERR_PERMISSION:
    case ERR_INVALID:
        (void)snprintf(message, cap, "cannot use directory %s: %s", cloud->root, err_text(rc));
        return rc;
    default:
        log_warn("cloud: directory %s is not there, or not the one that it was: %s", cloud->root,
                 *cloud->id ? "is its file system mounted?" : err_text(rc));
        return 0;
    }
}

/* The id that MEMORY has of this path, if any. */
static int recall(struct cloud_dir *cloud, const char *memory)
{
    size_t root = strlen(cloud->root), len;
    char *text = NULL;

    int rc = memory ? io_read_all(cloud->env->io, memory, CLOUD_DIR_PATH_BYTES, &text, &len)
                    : ERR_NOT_FOUND;
    if (rc == 0 && len == root + 1 + CLOUD_DIR_ID_BYTES + 1 &&
        memcmp(text, cloud->root, root) == 0 && text[root] == '\n' && text[len - 1] == '\n')
        (void)snprintf(cloud->id, sizeof cloud->id, "%s", text + root + 1);
    cloud->id[CLOUD_DIR_ID_BYTES] = 0;
    free(text);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int remember(struct cloud_dir *cloud, const char *memory)
{
    char text[CLOUD_DIR_PATH_BYTES];
    int len = snprintf(text, sizeof text, "%s\n%s\n", cloud->root, cloud->id);

    assert(len > 0 && (size_t)len < sizeof text);
    return memory && atomic_load(&cloud->prepared)
               ? io_replace(cloud->env->io, memory, text, (size_t)len)
               : 0;
}

int cloud_dir_create(struct cloud **out, const struct cloud_dir_config *config, char *message,
                     size_t cap)
{
    static const struct cloud_backend backend = {.name = "dir",
                                                 .start = dir_start,
                                                 .consumed = dir_consumed,
                                                 .cancel = dir_cancel,
                                                 .figures = dir_figures,
                                                 .destroy = dir_destroy};
    const struct pool_context context = {.open = make_buffer, .close = free_buffer};
    int rc = ERR_NO_MEMORY;

    assert(config->env && config->path && cap > 0);
    *out = NULL;
    *message = 0;
    struct cloud_dir *cloud = calloc(1, sizeof *cloud);
    if (!cloud)
        return ERR_NO_MEMORY;
    (void)pthread_mutex_init(&cloud->lock, NULL);
    (void)pthread_cond_init(&cloud->empty, NULL);
    cloud->cloud.backend = &backend;
    cloud->env = config->env;
    cloud->root = trimmed(config->path);
    if (!cloud->root)
        goto out;
    cloud->cloud.bucket = cloud->root;
    size_t len = strlen(cloud->root);
    if (len == 0 || len > LIMIT_CLOUD_BUCKET_BYTES || !utf8_valid(cloud->root, len)) {
        (void)snprintf(message, cap, "the directory's path must be 1 to %d bytes of text",
                       LIMIT_CLOUD_BUCKET_BYTES);
        rc = ERR_INVALID;
        goto out;
    }
    cloud->own = io_join(cloud->root, CLOUD_DIR_OWN);
    cloud->temporary_dir = cloud->own ? io_join(cloud->own, "tmp") : NULL;
    if (!cloud->temporary_dir)
        goto out;
    rc = recall(cloud, config->memory);
    if (rc == 0)
        rc = first_look(cloud, message, cap);
    if (rc == 0)
        rc = remember(cloud, config->memory);
    if (rc == 0)
        rc = pool_start(&cloud->pool, "cloud-dir", CLOUD_DIR_THREADS, LIMIT_CLOUD_REQUESTS,
                        &context);
out:
    if (rc && !*message)
        (void)snprintf(message, cap, "cannot use directory %s: %s", config->path, err_text(rc));
    if (rc)
        dir_destroy(&cloud->cloud);
    else
        *out = &cloud->cloud;
    return rc;
}
