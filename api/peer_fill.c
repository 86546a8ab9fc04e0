/*
 * A table of the bodies that are being fetched into the disk cache.
 *
 *   cluster's thread   data ─► ring ─► wakes the writer; done ─► wakes the writer
 *   writer (a pool's)  ring ─► SHA-256 ─► posts who waits ─► cache
 *                      ─► tells the cluster what it took
 *   loops              wait until what they read next is hashed; read it from the
 *                      ring, or, where later bytes have taken its place there, from
 *                      the cache
 *
 * The writer takes whole blocks; the last one can be read only once the SHA-256 of all of the body
 * is right (of a part each block as it comes). So a reader holds nothing up: what it has not taken
 * lies on the disk. What fails ends the fill for all who take part: no byte that was not verified
 * has the body's end in it.
 *
 * A fill is in the table until it is over, or everybody has left: then the fetch is cancelled, and
 * who asks next begins anew; unless all of it has come, or most of it and the cloud has a copy.
 *
 * References: one of each who takes part, one of fetch and writer together, until the writer has
 * seen `done`.
 */
#include "api/peer_fill.h"

#include "base/container.h"
#include "base/pool.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define WRITERS 2
#define PIECE   (4 * BLOCK_BYTES) /* written at once */

/* Nobody waits for it any more: what comes of the cloud has a price, so it is brought to its end
 * where that is near: so many bytes, or less than what is here. */
#define FINISH_BYTES (32 * MIB)

struct peer_fill {
    struct cluster_reader reader;
    struct job job;
    struct peer_fills *fills;
    struct peer_fill *next; /* in the table; guarded by the table's lock, as is … */
    bool listed;            /* … whether it is there, and … */
    unsigned followers;     /* … how many take part */
    struct store_origin origin;
    uint8_t name[SHA256_BYTES]; /* for the cache */
    uint64_t size;              /* of what is filled: the body, or a part of it */
    bool pinned;                /* it goes on without anybody; guarded by the table's lock */
    struct disk_copy *copy;
    uint8_t *ring;
    uint64_t cap;
    struct digest *sha; /* the writer's; NULL: of a part there is none to compare */

    pthread_mutex_t lock; /* guards what follows; taken after the table's */
    unsigned references;
    /* Bytes. READABLE ones lie in the ring or, up to TAKEN, in the cache. The ring has what came
     * last: all from COMING - cap on, as those up to COMING may be on their way into it. */
    uint64_t coming, came, readable, taken;
    bool working;    /* the writer has it, or will soon */
    bool fetched;    /* `done` was called */
    bool from_cloud; /* some of it */
    bool over;       /* nothing changes any more, but who waits */
    int rc;          /* why it failed */
    struct fill_waiter *waiters;
};

struct peer_fills {
    struct store *store;
    struct pool *pool;
    pthread_mutex_t lock;
    struct peer_fill *list;
    unsigned count;
};

int peer_fills_create(struct peer_fills **out, struct store *store)
{
    struct peer_fills *fills = calloc(1, sizeof *fills);

    *out = NULL;
    if (!fills)
        return ERR_NO_MEMORY;
    fills->store = store;
    (void)pthread_mutex_init(&fills->lock, NULL);
    int rc = pool_start(&fills->pool, "cache-fill", WRITERS, 2 * LIMIT_FETCHES, NULL);
    if (rc)
        peer_fills_destroy(&fills);
    *out = fills;
    return rc;
}

void peer_fills_destroy(struct peer_fills **fills)
{
    struct peer_fills *it = *fills;

    if (!it)
        return;
    pool_stop(&it->pool);
    assert(!it->list && it->count == 0);
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
    *fills = NULL;
}

static void lock(struct peer_fill *fill)
{
    (void)pthread_mutex_lock(&fill->lock);
}

static void unlock(struct peer_fill *fill)
{
    (void)pthread_mutex_unlock(&fill->lock);
}

static void unreference(struct peer_fill *fill)
{
    struct peer_fills *fills = fill->fills;

    lock(fill);
    bool last = --fill->references == 0;
    unlock(fill);
    if (!last)
        return;
    disk_copy_release(&fill->copy);
    digest_destroy(&fill->sha);
    budget_give(store_memory(fills->store), fill->cap);
    (void)pthread_mutex_destroy(&fill->lock);
    free(fill->ring);
    free(fill);
    (void)pthread_mutex_lock(&fills->lock);
    assert(fills->count > 0);
    fills->count--;
    (void)pthread_mutex_unlock(&fills->lock);
}

/* With the table's lock held. */
static void strike_off(struct peer_fill *fill)
{
    struct peer_fill **link = &fill->fills->list;

    if (!fill->listed)
        return;
    while (*link != fill)
        link = &(*link)->next;
    *link = fill->next;
    fill->listed = false;
}

/* ---- The writer ---- */

/* With the lock held. */
static void wake_writer(struct peer_fill *fill)
{
    if (fill->working)
        return;
    fill->working = true;
    int rc = pool_submit(fill->fills->pool, &fill->job);

    assert(rc == 0); /* there is a place for each, and it is stopped after the last */
    (void)rc;
}

/* Post whoever waits for bytes that can be read now; all, once it is over. */
static void post_waiters(struct peer_fill *fill)
{
    struct fill_waiter *ready = NULL, **link = &fill->waiters;

    lock(fill);
    while (*link) {
        struct fill_waiter *waiter = *link;

        if (!fill->over && waiter->end > fill->readable) {
            link = &waiter->next;
            continue;
        }
        *link = waiter->next;
        waiter->next = ready;
        ready = waiter;
    }
    unlock(fill);
    for (struct fill_waiter *next; ready; ready = next) {
        next = ready->next; /* READY may be gone once it is posted */
        if (ready->http)
            http_post(ready->http, ready->run);
        else
            ready->wake(ready);
    }
}

static int verify(struct peer_fill *fill)
{
    uint8_t digest[SHA256_BYTES];

    if (!fill->sha)
        return 0;
    digest_final(fill->sha, digest);
    if (memcmp(digest, fill->origin.sha256, SHA256_BYTES) == 0)
        return 0;
    store_fetch_misfit(fill->fills->store, &fill->origin.id, &fill->reader);
    return ERR_CORRUPT;
}

/* What of the ring can be written now: its length. Whole blocks, but for the body's end. */
static size_t next_piece(const struct peer_fill *fill)
{
    uint64_t len = fill->came - fill->taken, at = fill->taken % fill->cap;

    if (len > fill->cap - at)
        len = fill->cap - at;
    if (len > PIECE)
        len = PIECE;
    return fill->taken + len == fill->size ? (size_t)len
                                           : (size_t)(len / BLOCK_BYTES * BLOCK_BYTES);
}

/* Take LEN bytes: they may be read, then they are written. The last of a body are taken only if all
 * of it is right, and before that no byte of its last block is: next_piece. */
static int take_piece(struct peer_fill *fill, size_t len)
{
    const uint8_t *bytes = fill->ring + fill->taken % fill->cap;
    uint64_t taken = fill->taken + len;

    assert(taken == fill->size || taken % BLOCK_BYTES == 0);
    if (fill->sha)
        digest_update(fill->sha, bytes, len);
    int rc = taken == fill->size ? verify(fill) : 0;
    if (rc)
        return rc;
    lock(fill);
    fill->readable = taken;
    unlock(fill);
    post_waiters(fill);
    rc = disk_copy_write(fill->copy, bytes, len);
    if (rc)
        return rc;
    if (taken == fill->size)
        disk_copy_complete(fill->copy);
    lock(fill);
    fill->taken = taken;
    bool under_way = !fill->fetched;
    unlock(fill);
    if (under_way)
        store_fetch_consumed(fill->fills->store, &fill->reader, len);
    return 0;
}

/* The last thing that fetch and writer do to it. */
static void conclude(struct peer_fill *fill)
{
    struct peer_fills *fills = fill->fills;

    (void)pthread_mutex_lock(&fills->lock);
    strike_off(fill);
    (void)pthread_mutex_unlock(&fills->lock);
    lock(fill);
    fill->over = true;
    unlock(fill);
    post_waiters(fill);
    unreference(fill);
}

static void run_writer(struct job *job, void *context)
{
    struct peer_fill *fill = container_of(job, struct peer_fill, job);

    (void)context;
    for (;;) {
        lock(fill);
        size_t len = fill->rc ? 0 : next_piece(fill);
        bool end = fill->fetched;
        fill->working = len > 0;
        unlock(fill);
        if (len == 0) {
            if (end)
                conclude(fill);
            return;
        }
        int rc = take_piece(fill, len);
        if (rc == 0)
            continue;
        lock(fill);
        fill->rc = fill->rc ? fill->rc : rc;
        bool cancel = !fill->fetched;
        unlock(fill);
        if (cancel)
            store_fetch_cancel(fill->fills->store, &fill->reader);
    }
}

/* ---- The cluster's thread ---- */

static void on_data(struct cluster_reader *reader, uint64_t offset, const void *bytes, size_t len)
{
    struct peer_fill *fill = container_of(reader, struct peer_fill, reader);

    lock(fill);
    bool wanted = fill->rc == 0;
    offset -= fill->origin.part_offset;
    assert(offset == fill->came && len <= fill->size - offset);
    assert(!wanted || offset + len - fill->taken <= fill->cap);
    fill->coming = wanted ? offset + len : fill->coming;
    unlock(fill);
    if (wanted) { /* nobody looks at this part of the ring yet */
        uint64_t at = offset % fill->cap;
        size_t first = len < fill->cap - at ? len : (size_t)(fill->cap - at);

        memcpy(fill->ring + at, bytes, first);
        memcpy(fill->ring, (const uint8_t *)bytes + first, len - first);
    }
    lock(fill);
    fill->came += len;
    fill->from_cloud |= reader->from_cloud;
    wake_writer(fill);
    unlock(fill);
}

static void on_done(struct cluster_reader *reader, int rc)
{
    struct peer_fill *fill = container_of(reader, struct peer_fill, reader);

    lock(fill);
    assert(!fill->fetched && (rc != 0 || fill->came == fill->size));
    fill->fetched = true;
    fill->rc = fill->rc ? fill->rc : rc;
    wake_writer(fill); /* it has the last word */
    unlock(fill);
}

/* ---- Taking part ---- */

static struct peer_fill *find(struct peer_fills *fills, const struct store_origin *origin,
                              const uint8_t *name)
{
    struct peer_fill *fill = fills->list;

    while (fill && (!id_equal(&fill->origin.id, &origin->id) ||
                    memcmp(fill->name, name, SHA256_BYTES) != 0))
        fill = fill->next;
    return fill;
}

static int create(struct peer_fill **out, struct peer_fills *fills,
                  const struct store_origin *origin, const uint8_t *name)
{
    struct store *store = fills->store;
    struct peer_fill *fill = calloc(1, sizeof *fill);
    uint64_t whole = (store_origin_bytes(origin) + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    uint64_t window = store_origin_window(origin), cap = whole < window ? whole : window;

    *out = NULL;
    if (!fill)
        return ERR_NO_MEMORY;
    if (!budget_take(store_memory(store), cap)) {
        free(fill);
        return ERR_FULL;
    }
    (void)pthread_mutex_init(&fill->lock, NULL);
    fill->reader = (struct cluster_reader){.data = on_data, .done = on_done};
    fill->job.run = run_writer;
    fill->fills = fills;
    fill->origin = *origin;
    fill->size = store_origin_bytes(origin);
    memcpy(fill->name, name, SHA256_BYTES);
    fill->cap = cap;
    fill->references = 1;
    fills->count++; /* given back by the last reference */
    fill->ring = malloc(cap);
    int rc = fill->ring ? 0 : ERR_NO_MEMORY;
    if (rc == 0 && origin->part_bytes == 0)
        rc = digest_create(&fill->sha, DIGEST_SHA256);
    if (rc == 0)
        rc = disk_cache_begin(&fill->copy, store_disk_cache(store), &origin->id, name, fill->size);
    *out = fill;
    return rc;
}

/* One more that takes part; with the table's lock held. */
static void follow(struct peer_fill *fill)
{
    fill->followers++;
    lock(fill);
    fill->references++;
    unlock(fill);
}

int peer_fill_join(struct peer_fill **out, struct peer_fills *fills,
                   const struct store_origin *origin, uint64_t token)
{
    struct peer_fill *fresh = NULL;
    uint8_t name[SHA256_BYTES];
    int rc = 0;

    store_origin_name(origin, name);
    (void)pthread_mutex_lock(&fills->lock);
    *out = find(fills, origin, name);
    if (!*out) {
        rc = fills->count < LIMIT_FETCHES ? create(&fresh, fills, origin, name) : ERR_FULL;
        if (rc == 0) {
            fresh->next = fills->list;
            fills->list = *out = fresh;
            fresh->listed = true;
        }
    }
    if (*out)
        follow(*out);
    (void)pthread_mutex_unlock(&fills->lock);
    if (rc) {
        if (fresh)
            unreference(fresh);
        return rc;
    }
    if (!fresh)
        return 0;
    /* Whoever deletes the object tells the RAM tier first, then has the copy forgotten. */
    if (!ram_same_body(ram_token(store_ram(fills->store), &origin->id), token))
        disk_cache_forget(store_disk_cache(fills->store), &origin->id);
    rc = store_fetch(fills->store, origin, origin->part_offset, fresh->size, &fresh->reader);
    if (rc) { /* others may take part already */
        on_done(&fresh->reader, rc);
        peer_fill_leave(out);
    }
    return rc;
}

int peer_fill_wait(struct peer_fill *fill, struct fill_waiter *waiter, bool is_suspended)
{
    int rc = 0;

    lock(fill);
    if (fill->readable < waiter->end) {
        rc = fill->over ? fill->rc : ERR_AGAIN;
        assert(rc != 0);
    }
    if (rc == ERR_AGAIN && !fill->over) {
        if (waiter->http && !is_suspended)
            http_suspend(waiter->http);
        waiter->next = fill->waiters;
        fill->waiters = waiter;
    } else if (rc == ERR_AGAIN) {
        rc = ERR_TIMEOUT; /* holders were busy: not for the caller to wait for */
    }
    unlock(fill);
    return rc;
}

int peer_fill_read(struct peer_fill *fill, uint64_t index, uint8_t *block, size_t *len, bool nowait)
{
    uint64_t first = index * BLOCK_BYTES;

    assert(first < fill->size);
    lock(fill);
    uint64_t left = fill->size - first, bytes = left < BLOCK_BYTES ? left : BLOCK_BYTES;
    bool in_ring = first + fill->cap >= fill->coming;
    assert(first + bytes <= fill->readable && (in_ring || first + bytes <= fill->taken));
    if (in_ring)
        memcpy(block, fill->ring + first % fill->cap, bytes);
    unlock(fill);
    if (!in_ring)
        return disk_copy_read(fill->copy, index, block, len, nowait);
    *len = (size_t)bytes;
    return 0;
}

void peer_fill_pin(struct peer_fill *fill)
{
    (void)pthread_mutex_lock(&fill->fills->lock);
    fill->pinned = true;
    (void)pthread_mutex_unlock(&fill->fills->lock);
}

bool peer_fill_from_cloud(struct peer_fill *fill)
{
    lock(fill);
    bool from_cloud = fill->came > 0 && fill->from_cloud;
    unlock(fill);
    return from_cloud;
}

const struct store_origin *peer_fill_origin(const struct peer_fill *fill)
{
    return &fill->origin;
}

/* With the lock held. */
static bool is_worth_its_end(const struct peer_fill *fill)
{
    uint64_t left = fill->size - fill->came;

    return fill->pinned || (fill->origin.has_cloud && (left <= FINISH_BYTES || left <= fill->came));
}

void peer_fill_leave(struct peer_fill **fill_ptr)
{
    struct peer_fill *fill = *fill_ptr;

    *fill_ptr = NULL;
    if (!fill)
        return;
    (void)pthread_mutex_lock(&fill->fills->lock);
    assert(fill->followers > 0);
    fill->followers--;
    lock(fill);
    /* What has come whole is worth its last steps. */
    bool comes = fill->rc == 0 && fill->came < fill->size;
    bool cancel = comes && fill->followers == 0 && !is_worth_its_end(fill);
    fill->rc = cancel ? ERR_CLOSED : fill->rc;
    unlock(fill);
    if (cancel)
        strike_off(fill);
    (void)pthread_mutex_unlock(&fill->fills->lock);
    if (cancel)
        store_fetch_cancel(fill->fills->store, &fill->reader);
    unreference(fill);
}
