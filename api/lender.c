/*
 * A loan is one part in the fetch of a body: for another node, as a request is for a client.
 *
 *   small  open: in RAM or in the disk cache ─► ready
 *               else peer_body_ask ─► wake ─► pool: settle (verified whole) ─► ready
 *   large  open: in the disk cache, or peer_fill_join ─► ready; of a body in parts, where the bytes
 *               that are asked for lie in one of them, that part
 *          read: peer_fill_wait ─► wake ─► pool: blocks out of the disk cache ─► done
 *
 * A read that comes before the loan is ready waits in it. Wakes come on threads that must not block
 * (the cluster's, the fill's writer), so what has to read or hash is a job of the store's pool.
 *
 * Which bytes an unknown id has (cluster/cluster_seek.c) is an adoption, as a client's.
 *
 * Failure: whatever cannot be had is told to the read; the node that asks goes on by itself. A body
 * for which the disk cache has no room is not lent.
 */
#include "api/lender.h"

#include "api/adoption.h"
#include "api/headers.h"
#include "api/peer_body.h"
#include "api/peer_copy.h"
#include "api/peer_fill.h"
#include "base/container.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct loan {
    struct store *store;
    struct object *object;
    uint64_t token;
    struct store_job job; /* settles, or reads */
    /* Small. */
    struct peer_body *body;
    struct peer_waiter small;
    const struct ram_entry *entry; /* instead of BODY */
    /* Large: one of them. */
    struct peer_fill *fill;
    struct disk_copy *copy;
    uint64_t base, size; /* of the body, what that has */
    struct fill_waiter large;

    pthread_mutex_t lock; /* guards what follows */
    bool ready;           /* nothing is waited for but bytes of a fill */
    bool closed;
    int rc;                         /* why it failed */
    struct cluster_loan_read *read; /* that waits, or that the job reads */
};

static void loan_free(struct loan *loan)
{
    assert(!loan->read);
    peer_body_release(&loan->body);
    if (loan->entry)
        ram_release(store_ram(loan->store), loan->entry);
    disk_copy_release(&loan->copy);
    peer_fill_leave(&loan->fill);
    object_destroy(&loan->object);
    (void)pthread_mutex_destroy(&loan->lock);
    free(loan);
}

static void lock(struct loan *loan)
{
    (void)pthread_mutex_lock(&loan->lock);
}

static void unlock(struct loan *loan)
{
    (void)pthread_mutex_unlock(&loan->lock);
}

/* Whoever calls this does not touch LOAN any more: it may be closed at once. */
static void answer(struct loan *loan, int rc, uint8_t *bytes)
{
    lock(loan);
    struct cluster_loan_read *read = loan->read;
    loan->read = NULL;
    unlock(loan);
    read->done(read, rc, bytes);
}

/* ---- Reading ---- */

static int copy_large(struct loan *loan, const struct cluster_loan_read *read, uint8_t *out)
{
    uint8_t block[BLOCK_BYTES];

    for (size_t done = 0; done < read->len;) {
        uint64_t at = read->offset - loan->base + done;
        size_t within = at % BLOCK_BYTES, len;
        uint64_t index = at / BLOCK_BYTES;
        int rc = loan->fill ? peer_fill_read(loan->fill, index, block, &len, false)
                            : disk_copy_read(loan->copy, index, block, &len, false);

        if (rc)
            return ERR_AGAIN; /* our disk's matter, not the body's */
        size_t part = len - within < read->len - done ? len - within : read->len - done;
        memcpy(out + done, block + within, part);
        done += part;
    }
    return 0;
}

/* On a pool thread, or wherever the bytes are in memory. */
static void give(struct loan *loan)
{
    const struct cluster_loan_read *read = loan->read;
    uint8_t *bytes = malloc(read->len);
    int rc = bytes ? 0 : ERR_NO_MEMORY;

    if (rc == 0 && loan->body)
        memcpy(bytes, peer_body_bytes(loan->body) + read->offset, read->len);
    else if (rc == 0 && loan->entry)
        memcpy(bytes, loan->entry->body + read->offset, read->len);
    else if (rc == 0)
        rc = copy_large(loan, read, bytes);
    if (rc) {
        free(bytes);
        bytes = NULL;
    }
    answer(loan, rc, bytes);
}

static void run_give(struct store_job *job, struct db_reader *reader)
{
    (void)reader;
    give(container_of(job, struct loan, job));
}

static void submit(struct loan *loan, void (*run)(struct store_job *job, struct db_reader *reader))
{
    loan->job.run = run;
    int rc = store_submit(loan->store, &loan->job);

    if (rc == 0)
        return;
    /* It has to be settled all the same. */
    if (run == run_give)
        answer(loan, ERR_FULL, NULL);
    else
        run(&loan->job, NULL);
}

static void large_wakes(struct fill_waiter *waiter);

static void read_large(struct loan *loan)
{
    const struct cluster_loan_read *read = loan->read;
    uint64_t size = loan->size;
    int rc = 0;

    assert(read->offset >= loan->base && read->offset - loan->base < size);
    assert(read->len <= size - (read->offset - loan->base));
    if (loan->fill) {
        uint64_t end = read->offset - loan->base + read->len;

        end = (end + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
        loan->large = (struct fill_waiter){.end = end < size ? end : size, .wake = large_wakes};
        rc = peer_fill_wait(loan->fill, &loan->large, true);
    }
    if (rc == 0)
        submit(loan, run_give);
    else if (rc != ERR_AGAIN)
        answer(loan, rc, NULL);
}

static void large_wakes(struct fill_waiter *waiter)
{
    read_large(container_of(waiter, struct loan, large));
}

/* ---- Small bodies ---- */

/* Where this node's own clients find it: they would have to ask the cloud again. */
static void keep(void *arg, const uint8_t *bytes)
{
    struct loan *loan = arg;
    const struct object *object = loan->object;
    char etag[ETAG_BYTES + 1];
    struct buf head;

    buf_init(&head, 0);
    headers_render(&head, object);
    headers_etag(etag, object);
    if (buf_check(&head) == 0)
        ram_fill(store_ram(loan->store), loan->token, &object->id, head.data, head.len, bytes,
                 object->size, headers_modified_s(object), object->expires_ms, etag);
    buf_release(&head);
    peer_body_keep(loan->body, loan->token);
}

static void run_settle(struct store_job *job, struct db_reader *reader)
{
    struct loan *loan = container_of(job, struct loan, job);
    int rc = peer_body_settle(loan->body, &loan->small, keep, loan);

    (void)reader;
    lock(loan);
    loan->rc = rc;
    loan->ready = true;
    bool closed = loan->closed, waited = loan->read;
    unlock(loan);
    if (closed)
        loan_free(loan);
    else if (waited && rc)
        answer(loan, rc, NULL);
    else if (waited)
        give(loan);
}

static void small_wakes(struct peer_waiter *waiter)
{
    submit(container_of(waiter, struct loan, small), run_settle);
}

static int open_small(struct loan *loan, const struct store_origin *origin)
{
    struct peer_bodies *bodies = store_peer_bodies(loan->store);

    loan->ready = true;
    if (peer_body_recall(&loan->body, bodies, origin) == 0)
        return 0;
    loan->small.wake = small_wakes;
    loan->ready = false;
    int rc = peer_body_ask(&loan->body, &loan->entry, bodies, origin, &loan->small);
    if (rc != ERR_EXISTS)
        return rc;
    loan->ready = true;
    return loan->entry->body_bytes == origin->size ? 0 : ERR_AGAIN;
}

static int open_large(struct loan *loan, const struct store_origin *origin, uint64_t offset,
                      uint64_t end)
{
    uint64_t index = offset / STORE_PART_BYTES;
    struct store_origin part;

    loan->ready = true;
    if (!store_peer_fills(loan->store))
        return ERR_UNSUPPORTED;
    loan->size = origin->size;
    if (origin->size <= STORE_PART_BYTES || index != (end - 1) / STORE_PART_BYTES)
        return peer_copy_find(&loan->copy, &loan->fill, loan->store, origin, loan->token);
    loan->copy =
        disk_cache_find(store_disk_cache(loan->store), &origin->id, origin->sha256, origin->size);
    if (loan->copy)
        return 0;
    store_origin_part(&part, origin, index);
    loan->base = part.part_offset;
    loan->size = part.part_bytes;
    return peer_copy_find(&loan->copy, &loan->fill, loan->store, &part, loan->token);
}

/* ---- What the cluster calls ---- */

static int lend(void *arg, const struct object *object, uint64_t offset, uint64_t end,
                struct db_reader *reader, void **out)
{
    struct store *store = arg;
    struct store_origin origin;
    struct loan *loan = calloc(1, sizeof *loan);
    int rc = ERR_NO_MEMORY;

    assert(offset < end && end <= object->size);
    *out = NULL;
    if (!loan)
        return rc;
    loan->store = store;
    (void)pthread_mutex_init(&loan->lock, NULL);
    loan->token = ram_token(store_ram(store), &object->id);
    loan->object = object_copy(object);
    if (!loan->object)
        goto out;
    memset(&loan->object->place, 0, sizeof loan->object->place); /* no good one, as we are asked */
    loan->object->record_bytes = 0;
    rc = store_origin_of(&origin, store, loan->object, reader);
    if (rc)
        goto out;
    origin.delegated = true;
    rc = origin.size <= LIMIT_INLINE_BODY_BYTES ? open_small(loan, &origin)
                                                : open_large(loan, &origin, offset, end);
out:
    if (rc) {
        loan_free(loan);
        return rc;
    }
    *out = loan;
    return 0;
}

static void read_loan(void *arg, void *it, struct cluster_loan_read *read)
{
    struct loan *loan = it;

    (void)arg;
    lock(loan);
    assert(!loan->read && !loan->closed);
    loan->read = read;
    bool ready = loan->ready;
    int rc = loan->rc;
    unlock(loan);
    if (!ready)
        return;
    if (rc)
        answer(loan, rc, NULL);
    else if (loan->body || loan->entry)
        give(loan);
    else
        read_large(loan);
}

static void close_loan(void *arg, void *it)
{
    struct loan *loan = it;

    (void)arg;
    lock(loan);
    assert(!loan->read && !loan->closed);
    loan->closed = true;
    bool ready = loan->ready;
    unlock(loan);
    if (ready) /* else whoever settles it frees it */
        loan_free(loan);
}

/* ---- Unknown ids ---- */

struct seeking {
    struct adoption_waiter waiter;
    struct adoption *adoption;
    struct cluster_seek *seek;
};

static void adoption_wakes(struct adoption_waiter *waiter)
{
    struct seeking *it = container_of(waiter, struct seeking, waiter);
    int rc = adoption_result(it->adoption);

    it->seek->done(it->seek, rc, rc ? NULL : adoption_sha256(it->adoption));
    adoption_release(&it->adoption);
    free(it);
}

static int seek_for(void *arg, const struct id128 *id, struct cluster_seek *seek)
{
    struct store *store = arg;
    struct seeking *it;

    if (!store_adoptions(store))
        return ERR_UNSUPPORTED;
    it = calloc(1, sizeof *it);
    if (!it)
        return ERR_NO_MEMORY;
    it->waiter.wake = adoption_wakes;
    it->seek = seek;
    int rc = adoption_ask(&it->adoption, store_adoptions(store), id, true, &it->waiter);
    if (rc)
        free(it);
    return rc;
}

void lender_start(struct store *store)
{
    const struct cluster_lender lender = {
        .open = lend, .read = read_loan, .close = close_loan, .seek = seek_for, .arg = store};

    cluster_lend(store_cluster(store), &lender);
}
