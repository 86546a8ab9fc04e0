/*
 * A replica belongs to one thread after the other: the cluster's gives it bytes, one of the pool's
 * writes and judges them, the committer's tells how that ended. Large bodies are the exception:
 * bytes come while others are being written. What both touch is behind `lock`:
 *
 *   pieces     bytes that came and are not yet written; at most one window, as credit is given back
 *              only for what is written
 *   working    a pool thread has it, or will soon; whoever brings something wakes one otherwise
 *   fetched    nothing more comes
 *   failure    bytes are of no use any more: they are dropped, and the fetch is cancelled
 *
 * The cluster is never called from its own thread, so nothing here relies on how it locks.
 *
 * Failure: whatever fails, the replica ends only after the cluster and the committer are done with
 * it. A file that the journal did not take is removed.
 */
#include "cluster/replica.h"

#include "base/container.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A small body needs no credit beyond what a fetch begins with. */
_Static_assert(LIMIT_INLINE_BODY_BYTES <= BODY_BACKGROUND_WINDOW_BYTES, "a window holds it");

struct piece {
    struct piece *next;
    size_t len;
    uint8_t bytes[];
};

struct replica {
    struct change change; /* first: the committer hands it back */
    struct cluster_reader reader;
    struct job job;
    const struct replica_host *host;
    bool large;
    bool has_cloud;
    uint64_t received; /* the cluster's thread alone */
    uint8_t *body;     /* of a small one */

    struct large_writer *writer; /* of a large one: the pool's alone, as the next two */
    struct digest *sha;
    uint64_t written;

    pthread_mutex_t lock;
    struct piece *first, **last;
    bool working, fetched, cancelled;
    int failure;

    bool committed; /* `rc` is the journal's verdict */
    int rc;
};

static struct replica *of_reader(struct cluster_reader *reader)
{
    return container_of(reader, struct replica, reader);
}

static struct replica *of_job(struct job *job)
{
    return container_of(job, struct replica, job);
}

/* The last thing that anybody does to it here. */
static void end(struct replica *r, int rc)
{
    r->rc = rc;
    r->host->ended(r->host->arg, r);
}

static void submit_job(struct replica *r)
{
    int rc = pool_submit(r->host->pool, &r->job);

    assert(rc == 0); /* there is a place for each, and it is stopped after the last */
    (void)rc;
}

static void on_committed(struct change *change)
{
    struct replica *r = (struct replica *)change;

    object_destroy(&change->object);
    r->committed = true;
    end(r, change->rc);
}

static void submit_change(struct replica *r)
{
    int rc = journal_submit(r->host->journal, &r->change);

    if (rc)
        end(r, rc);
}

/* ---- Small: in memory ---- */

static void finish_small(struct job *job, void *context)
{
    struct replica *r = of_job(job);
    struct change *change = &r->change;
    uint64_t size = change->request.size;
    uint8_t sha[SHA256_BYTES];

    (void)context;
    sha256(r->body, size, sha);
    if (memcmp(sha, change->request.sha256, SHA256_BYTES) != 0) {
        cluster_fetch_misfit(r->host->cluster, &r->reader);
        end(r, ERR_MISMATCH);
        return;
    }
    for (uint64_t i = 0; i < block_count(size); i++) {
        size_t at = i * BLOCK_BYTES;
        size_t len = size - at < BLOCK_BYTES ? size - at : BLOCK_BYTES;

        change->sums[i] = block_checksum(r->body + at, len, i);
    }
    change->body = r->body;
    submit_change(r);
}

static void small_data(struct cluster_reader *reader, uint64_t offset, const void *bytes,
                       size_t len)
{
    struct replica *r = of_reader(reader);

    assert(offset == r->received && len <= r->change.request.size - offset);
    memcpy(r->body + offset, bytes, len);
    r->received += len;
}

static void small_done(struct cluster_reader *reader, int rc)
{
    struct replica *r = of_reader(reader);

    if (rc) {
        end(r, rc);
        return;
    }
    assert(r->received == r->change.request.size);
    submit_job(r);
}

/* ---- Large: to a file ---- */

static int write_bytes(struct replica *r, const void *bytes, size_t len)
{
    int rc = journal_claim(r->host->journal, len, r->written == 0);

    if (rc == 0 && !r->writer)
        rc = large_create(&r->writer, journal_large(r->host->journal));
    if (rc == 0)
        rc = large_write(r->writer, bytes, len);
    if (rc == 0 && large_due(r->writer))
        rc = large_write_back(r->writer);
    if (rc)
        return rc;
    digest_update(r->sha, bytes, len);
    r->written += len;
    return 0;
}

/* Write PIECES and free them; nothing more after a failure. */
static void write_pieces(struct replica *r, struct piece *pieces, int failure)
{
    uint64_t taken = 0;
    int rc = failure;

    while (pieces) {
        struct piece *piece = pieces;

        pieces = piece->next;
        if (rc == 0)
            rc = write_bytes(r, piece->bytes, piece->len);
        taken += piece->len;
        free(piece);
    }
    if (rc == 0) {
        cluster_fetch_consumed(r->host->cluster, &r->reader, taken);
        return;
    }
    (void)pthread_mutex_lock(&r->lock);
    r->failure = rc;
    (void)pthread_mutex_unlock(&r->lock);
}

static void finish_large(struct replica *r, int rc)
{
    struct change *change = &r->change;
    uint8_t sha[SHA256_BYTES];
    uint64_t size = 0;

    if (rc == 0) {
        assert(r->written == change->request.size);
        digest_final(r->sha, sha);
        if (memcmp(sha, change->request.sha256, SHA256_BYTES) != 0) {
            cluster_fetch_misfit(r->host->cluster, &r->reader);
            rc = ERR_MISMATCH;
        }
    }
    if (rc == 0)
        rc = large_finish(r->writer, &change->file, &size, &change->trailer);
    if (rc) {
        end(r, rc);
        return;
    }
    assert(size == change->request.size);
    submit_change(r);
}

static void run_large(struct job *job, void *context)
{
    struct replica *r = of_job(job);

    (void)context;
    for (;;) {
        (void)pthread_mutex_lock(&r->lock);
        struct piece *pieces = r->first;
        bool fetched = r->fetched;
        int failure = r->failure;
        bool cancels = failure && !fetched && !r->cancelled;

        r->first = NULL;
        r->last = &r->first;
        r->cancelled |= cancels;
        if (!pieces && !fetched && !cancels)
            r->working = false; /* from here on it may be another thread's */
        (void)pthread_mutex_unlock(&r->lock);
        if (cancels)
            cluster_fetch_cancel(r->host->cluster, &r->reader);
        if (pieces) {
            write_pieces(r, pieces, failure);
        } else if (fetched) {
            finish_large(r, failure ? failure : r->rc);
            return;
        } else if (!cancels) {
            return;
        }
    }
}

/* Something came for the pool. Under the lock; true: submit_job after it. */
static bool wake(struct replica *r)
{
    bool sleeps = !r->working;

    r->working = true;
    return sleeps;
}

static void large_data(struct cluster_reader *reader, uint64_t offset, const void *bytes,
                       size_t len)
{
    struct replica *r = of_reader(reader);
    struct piece *piece = malloc(sizeof *piece + len);
    bool sleeps;

    assert(offset == r->received && len <= r->change.request.size - offset);
    r->received += len;
    if (piece) {
        piece->next = NULL;
        piece->len = len;
        memcpy(piece->bytes, bytes, len);
    }
    (void)pthread_mutex_lock(&r->lock);
    if (piece) {
        *r->last = piece;
        r->last = &piece->next;
    } else if (!r->failure) {
        r->failure = ERR_NO_MEMORY;
    }
    sleeps = wake(r);
    (void)pthread_mutex_unlock(&r->lock);
    if (sleeps)
        submit_job(r);
}

static void large_done(struct cluster_reader *reader, int rc)
{
    struct replica *r = of_reader(reader);
    bool sleeps;

    assert(rc || r->received == r->change.request.size);
    (void)pthread_mutex_lock(&r->lock);
    r->rc = rc;
    r->fetched = true;
    sleeps = wake(r);
    (void)pthread_mutex_unlock(&r->lock);
    if (sleeps)
        submit_job(r);
}

/* ---- The whole ---- */

static int prepare(struct replica *r, const struct object *object)
{
    struct request *request = &r->change.request;
    int rc;

    request->kind = CHANGE_HOLD;
    request->id = object->id;
    request->fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE;
    request->size = object->size;
    memcpy(request->sha256, object->sha256, SHA256_BYTES);
    request->damaged = !place_is_none(&object->place);
    request->checked = object->place;
    r->change.done = on_committed;
    if (r->large) {
        r->reader.data = large_data;
        r->reader.done = large_done;
        r->job.run = run_large;
        rc = journal_room(r->host->journal, object->size); /* claimed as it comes */
        return rc ? rc : digest_create(&r->sha, DIGEST_SHA256);
    }
    r->reader.data = small_data;
    r->reader.done = small_done;
    r->job.run = finish_small;
    rc = journal_claim(r->host->journal, object->size, true);
    if (rc)
        return rc;
    r->body = malloc(object->size + 1); /* an empty one is a body, too */
    return r->body ? 0 : ERR_NO_MEMORY;
}

int replica_start(struct replica **out, const struct replica_host *host,
                  const struct object *object, const struct id128 *holders, size_t count)
{
    struct replica *r = calloc(1, sizeof *r);
    struct cluster_cloud cloud;
    struct cluster_fetch fetch = {.id = object->id,
                                  .size = object->size,
                                  .length = object->size,
                                  .background = true,
                                  .holders = holders,
                                  .holder_count = count};
    int rc;

    assert((object->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT);
    assert(count <= LIMIT_FETCH_HOLDERS);
    *out = NULL;
    if (!r)
        return ERR_NO_MEMORY;
    r->host = host;
    r->large = object->size > LIMIT_INLINE_BODY_BYTES;
    r->has_cloud = cluster_cloud_of(host->cluster, object, &cloud);
    fetch.cloud = r->has_cloud ? &cloud : NULL;
    r->last = &r->first;
    (void)pthread_mutex_init(&r->lock, NULL);
    rc = prepare(r, object);
    if (rc)
        goto out;
    memcpy(fetch.sha256, object->sha256, SHA256_BYTES);
    *out = r; /* it may end before this function does */
    if (object->size == 0)
        submit_job(r);
    else
        rc = cluster_fetch_start(host->cluster, &fetch, &r->reader);
out:
    if (rc) {
        replica_destroy(&r);
        *out = NULL;
    }
    return rc;
}

uint64_t replica_memory(const struct replica *replica)
{
    if (!replica->large)
        return replica->change.request.size;
    return replica->has_cloud ? CLUSTER_CLOUD_BYTES : BODY_BACKGROUND_WINDOW_BYTES;
}

void replica_cancel(struct replica *replica)
{
    if (replica->change.request.size > 0)
        cluster_fetch_cancel(replica->host->cluster, &replica->reader);
}

enum wanted_outcome replica_lacks_room(struct journal *journal)
{
    return journal_room(journal, LIMIT_INLINE_BODY_BYTES) ? WANTED_FULL : WANTED_NO_FIT;
}

static enum wanted_outcome judge(const struct replica *r)
{
    switch (r->rc) {
    case 0:
        return WANTED_DONE;
    case ERR_NO_SPACE:
        return replica_lacks_room(r->host->journal);
    case ERR_READ_ONLY:
        return WANTED_FULL;
    case ERR_DELETED:
    case ERR_NOT_FOUND: /* of a holder it means something else */
        return r->committed ? WANTED_GONE : WANTED_FAILED;
    case ERR_CONFLICT:
        return r->committed ? WANTED_AGAIN : WANTED_FAILED;
    default:
        return WANTED_FAILED;
    }
}

void replica_result(const struct replica *replica, struct replica_result *out)
{
    const struct change *change = &replica->change;

    *out = (struct replica_result){.id = change->request.id,
                                   .outcome = judge(replica),
                                   .rc = replica->rc,
                                   .bytes = change->stored ? change->request.size : 0,
                                   .repair = change->request.damaged};
}

void replica_destroy(struct replica **replica)
{
    struct replica *r = *replica;

    if (!r)
        return;
    *replica = NULL;
    assert(!r->first);
    if (r->writer) {
        large_writer_destroy(&r->writer, !r->change.stored);
        if (!r->change.stored)
            journal_freed(r->host->journal);
    }
    digest_destroy(&r->sha);
    (void)pthread_mutex_destroy(&r->lock);
    free(r->body);
    free(r);
}
