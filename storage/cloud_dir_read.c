/*
 * Reading: GET, HEAD and TAGS of the directory cloud, and what a file says of its object.
 *
 * A GET goes on until its owner has CLOUD_WINDOW_BYTES unread; it is parked then, and comes back
 * with cloud_consumed. The file stays open meanwhile, so that all of it is of one object, whatever
 * is renamed over it.
 */
#include "storage/cloud_dir_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FRESH_S 600 /* what is older has long been written back */

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
        io_read(dir_io(work), work->fd, *json, object->line.json_bytes, object->size + 1, false);
    if (rc == 0)
        rc = trailer_read(out, &object->line, *json, object->text);
    if (rc == ERR_CORRUPT) {
        cloud_dir_say(work->request, "the metadata behind the body are damaged");
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

    *object = (struct dir_object){.foreign = true};
    work->fd = io_open(dir_io(work), work->path, IO_READ);
    if (work->fd < 0) {
        int failed = work->fd;
        work->fd = -1;
        return cloud_dir_judge(work, failed);
    }
    int rc = cloud_dir_judge(work, cloud_dir_look(work->cloud, work->fd, object));
    if (rc)
        return rc;
    if (request->if_match.len &&
        (request->if_match.len != strlen(object->etag) ||
         memcmp(request->if_match.ptr, object->etag, request->if_match.len) != 0)) {
        cloud_dir_say(request, "the object is another one now");
        return ERR_PRECONDITION;
    }
    return 0;
}

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
        cloud_dir_say(request, "the body has %" PRIu64 " bytes", object.size);
        return ERR_RANGE;
    }
    uint64_t left = object.size - request->offset;
    work->first = work->at = request->offset;
    work->end = work->at + (request->length && request->length < left ? request->length : left);
    return tell_head(work, &object);
}

int cloud_dir_get(struct dir_work *work, uint8_t *buffer, bool *turn)
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
        rc = io_read(dir_io(work), work->fd, buffer, len, work->at, false);
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

/* Whether it came just now, maybe of somebody who did not live to sync its name. */
static bool is_fresh(const struct dir_work *work, const struct dir_object *object)
{
    int64_t now_s = (int64_t)(work->cloud->env->wall_ns(work->cloud->env) / 1000000000);

    return object->modified_s == 0 || object->modified_s + FRESH_S > now_s;
}

int cloud_dir_head(struct dir_work *work)
{
    struct dir_object object;
    int rc = open_object(work, &object);

    /* Whoever asks whether an upload of unknown outcome is there relies on the answer as on a
     * put's. */
    if (rc == 0 && work->request->op == CLOUD_HEAD && is_fresh(work, &object))
        rc = cloud_dir_sync_names(work);
    return rc ? rc : tell_head(work, &object);
}
