/*
 * The cloud as a directory: requests as jobs of a few threads.
 *
 * A put writes into `.objstore-cloud/tmp`, hashing as it goes, adds the metadata behind the body
 * (cloud_dir_trailer.h), syncs, renames the file to its key's path (cloud_dir_name.h), and syncs
 * the directories on the way there (cloud_dir_write.c). So a key has its old object or its new one,
 * whole, whatever crashes when; several nodes may share the directory, the last rename counts. Long
 * requests take turns: a put goes to the end of the queue after CLOUD_DIR_STEP_BYTES, a get when
 * its owner has CLOUD_WINDOW_BYTES unread (it is `parked` then, and comes back with
 * cloud_consumed). No thread waits for anybody but the disk.
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
#include "base/text.h"
#include "storage/cloud_dir_internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static struct cloud_dir *dir_of(struct cloud *cloud)
{
    return (struct cloud_dir *)(void *)cloud;
}

void cloud_dir_say(struct cloud_request *request, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(request->message, sizeof request->message, format, args);
    va_end(args);
}

int cloud_dir_judge(struct dir_work *work, int rc)
{
    int there = rc == 0 || rc == ERR_NOT_FOUND ? cloud_dir_there(work->cloud) : 0;

    if (there == ERR_NO_MEMORY)
        return there;
    if (there) {
        cloud_dir_say(work->request, "directory %s is not there, or is another one",
                      work->cloud->root);
        return ERR_AGAIN;
    }
    if (rc == ERR_NOT_FOUND)
        cloud_dir_say(work->request, "no such key");
    return rc;
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
        cloud_dir_say(request, "%s: %s", work->path, err_text(rc));
    return rc == ERR_CORRUPT ? ERR_MISMATCH : rc;
}

static void finish(struct dir_work *work, int rc)
{
    struct cloud_dir *cloud = work->cloud;
    struct cloud_request *request = work->request;
    struct io *io = dir_io(work);

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
        rc = cloud_dir_put(work, thread_context, &turn);
        break;
    case CLOUD_GET:
        rc = cloud_dir_get(work, thread_context, &turn);
        if (turn)
            return; /* parked: from here on it belongs to whoever unparks it */
        break;
    case CLOUD_HEAD:
    case CLOUD_TAGS:
        rc = cloud_dir_head(work);
        break;
    case CLOUD_DELETE:
        rc = cloud_dir_delete(work);
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
    (void)pthread_mutex_destroy(&cloud->making);
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
    (void)pthread_mutex_init(&cloud->making, NULL);
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
    rc = cloud_dir_find(cloud, config->memory, message, cap);
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
