/*
 * One file of blocks, a table of the copies by id, and a queue of them in the order they came.
 *
 *   begin ─► room: free blocks, then the oldest copies' ─► in the table, unfinished
 *   write ─► blocks into the file, their checksums into memory
 *   complete ─► found from now on; the queue's youngest
 *   forget, a bad block, eviction ─► out of table and queue; blocks are free with the last
 * reference
 *
 * A block's place in the file means nothing: a copy has a list of places, so there are no holes to
 * be gathered, and whatever is freed fits whatever comes. The file grows as blocks are first used,
 * and gives all back (shrink) when the disk is full.
 *
 * One lock guards table, queue and counts; sections under it are short, only shrink's touches the
 * disk. A copy's places and sums are written before anybody else sees those blocks: who reads a
 * block has learnt that it was written from the writer, or found the copy complete.
 *
 * Failure: a write that fails ends the making of its copy; a read that fails, or finds other bytes
 * than were written, takes the copy out. Nobody depends on it: bodies come from elsewhere again.
 */
#include "storage/disk_cache.h"

#include "base/io.h"
#include "base/log.h"
#include "storage/segment.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS     4096
#define NAME        "cache.tmp" /* until it is open */
#define LIMIT_BYTES (UINT64_C(1) << 46)

struct disk_copy {
    struct disk_cache *cache;
    struct disk_copy *next;          /* in its bucket */
    struct disk_copy *older, *newer; /* in the queue */
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    uint64_t size, blocks;
    uint64_t written; /* blocks: the writer's own */
    unsigned references;
    bool listed;   /* in the table */
    bool complete; /* … and in the queue */
    bool asked;    /* since it came, or since the queue's turn */
    uint64_t *sums;
    uint32_t places[];
};

struct disk_cache {
    struct io *io;
    char *dir;
    int fd;
    uint64_t limit;       /* all counts are of blocks */
    atomic_ullong listed; /* copies in the table: most ids that are forgotten are not here */
    pthread_mutex_t lock;
    uint64_t used;
    uint64_t grown; /* places below have been used */
    uint32_t *free; /* of those: not in use */
    uint64_t free_count;
    struct disk_copy *oldest, *newest;
    struct disk_copy *buckets[BUCKETS];
    struct disk_cache_stats stats;
};

static void lock(struct disk_cache *cache)
{
    (void)pthread_mutex_lock(&cache->lock);
}

static void unlock(struct disk_cache *cache)
{
    (void)pthread_mutex_unlock(&cache->lock);
}

/* ---- The file ---- */

/* It is nobody's to find: what is in it is worth nothing after this process. */
static int open_file(struct disk_cache *cache)
{
    char *path = io_join(cache->dir, NAME);
    int rc = ERR_NO_MEMORY;

    if (!path)
        return rc;
    cache->fd = io_open(cache->io, path, IO_WRITE | IO_CREATE);
    rc = cache->fd < 0 ? cache->fd : cache->io->unlink(cache->io, path);
    if (rc == 0)
        rc = cache->io->truncate(cache->io, cache->fd, 0);
    free(path);
    return rc;
}

int disk_cache_create(struct disk_cache **out, struct env *env, const char *dir,
                      uint64_t limit_bytes)
{
    struct disk_cache *cache = calloc(1, sizeof *cache);
    struct io_space space;
    int rc = ERR_NO_MEMORY;

    *out = NULL;
    if (!cache)
        return rc;
    cache->io = env->io;
    cache->fd = -1;
    (void)pthread_mutex_init(&cache->lock, NULL);
    cache->dir = strdup(dir);
    if (!cache->dir)
        goto out;
    rc = cache->io->space(cache->io, dir, &space);
    if (rc)
        goto out;
    if (limit_bytes > space.total_bytes / 10)
        limit_bytes = space.total_bytes / 10;
    cache->limit = (limit_bytes < LIMIT_BYTES ? limit_bytes : LIMIT_BYTES) / BLOCK_BYTES;
    rc = ERR_NO_MEMORY;
    cache->free = malloc((cache->limit + 1) * sizeof *cache->free); /* touched as it is needed */
    if (cache->free)
        rc = open_file(cache);
out:
    if (rc)
        disk_cache_destroy(&cache);
    *out = cache;
    return rc;
}

/* ---- The table and the queue; with the lock held ---- */

static struct disk_copy **bucket_of(struct disk_cache *cache, const struct id128 *id)
{
    return &cache->buckets[xxh64(id->bytes, sizeof id->bytes, 0) % BUCKETS];
}

static struct disk_copy *find(struct disk_cache *cache, const struct id128 *id,
                              const uint8_t *sha256)
{
    struct disk_copy *copy = *bucket_of(cache, id);

    while (copy && (!id_equal(&copy->id, id) || memcmp(copy->sha256, sha256, SHA256_BYTES) != 0))
        copy = copy->next;
    return copy;
}

static void queue_push(struct disk_cache *cache, struct disk_copy *copy)
{
    copy->newer = NULL;
    copy->older = cache->newest;
    if (cache->newest)
        cache->newest->newer = copy;
    else
        cache->oldest = copy;
    cache->newest = copy;
}

static void queue_remove(struct disk_cache *cache, struct disk_copy *copy)
{
    assert(copy->newer != copy && copy->older != copy);
    if (cache->oldest == copy)
        cache->oldest = copy->newer;
    else
        copy->older->newer = copy->newer;
    if (cache->newest == copy)
        cache->newest = copy->older;
    else
        copy->newer->older = copy->older;
}

static void free_copy(struct disk_copy *copy)
{
    struct disk_cache *cache = copy->cache;

    assert(copy->references == 0 && !copy->listed);
    memcpy(cache->free + cache->free_count, copy->places, copy->blocks * sizeof *copy->places);
    cache->free_count += copy->blocks;
    cache->used -= copy->blocks;
    assert(cache->free_count <= cache->grown && cache->used + cache->free_count == cache->grown);
    free(copy->sums);
    free(copy);
}

static void unlist(struct disk_copy *copy)
{
    struct disk_copy **link = bucket_of(copy->cache, &copy->id);

    assert(copy->listed);
    while (*link != copy)
        link = &(*link)->next;
    *link = copy->next;
    copy->listed = false;
    atomic_fetch_sub(&copy->cache->listed, 1);
    if (copy->complete) {
        queue_remove(copy->cache, copy);
        copy->cache->stats.copies--;
    }
    if (copy->references == 0)
        free_copy(copy);
}

/* One copy less; false: all are being read. */
static bool evict(struct disk_cache *cache)
{
    for (uint64_t rest = 2 * cache->stats.copies; rest > 0; rest--) {
        struct disk_copy *copy = cache->oldest;

        /* What was freed has left the queue. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
        assert(copy->complete && copy->listed);
        if (copy->references == 0 && !copy->asked) {
            cache->stats.evicted++;
            unlist(copy);
            return true;
        }
        copy->asked = false;
        queue_remove(cache, copy);
        queue_push(cache, copy);
    }
    return false;
}

void disk_cache_destroy(struct disk_cache **cache_ptr)
{
    struct disk_cache *cache = *cache_ptr;

    if (!cache)
        return;
    while (cache->oldest)
        unlist(cache->oldest);
    assert(cache->used == 0); /* nobody holds one */
    (void)io_close(cache->io, &cache->fd);
    (void)pthread_mutex_destroy(&cache->lock);
    free(cache->free);
    free(cache->dir);
    free(cache);
    *cache_ptr = NULL;
}

/* ---- Finding ---- */

struct disk_copy *disk_cache_find(struct disk_cache *cache, const struct id128 *id,
                                  const uint8_t *sha256, uint64_t size)
{
    lock(cache);
    struct disk_copy *copy = find(cache, id, sha256);

    if (copy && copy->complete && copy->size == size) {
        copy->references++;
        copy->asked = true;
        cache->stats.hits++;
    } else {
        copy = NULL;
        cache->stats.misses++;
    }
    unlock(cache);
    return copy;
}

/* ---- Making one ---- */

/* Blocks by which the file may grow, so that twice the reserve stays free. */
static int may_grow(struct disk_cache *cache, uint64_t *blocks)
{
    struct io_space space;
    int rc = cache->io->space(cache->io, cache->dir, &space);

    if (rc)
        return rc;
    uint64_t keep = space.total_bytes / 100 * RESERVE_PERCENT;
    keep = keep > RESERVE_BYTES ? keep : RESERVE_BYTES;
    keep = 2 * (keep < space.total_bytes / 10 ? keep : space.total_bytes / 10);
    *blocks = space.free_bytes > keep ? (space.free_bytes - keep) / BLOCK_BYTES : 0;
    return 0;
}

/* With the lock held. GROWTH: blocks by which the file may grow. */
static int take_places(struct disk_cache *cache, struct disk_copy *copy, uint64_t growth)
{
    uint64_t most = cache->limit - cache->grown < growth ? cache->limit : cache->grown + growth;

    /* Free ones, then fresh ones, then those of others. */
    while (most - cache->used < copy->blocks)
        if (!evict(cache))
            return most < cache->limit && most < copy->blocks ? ERR_NO_SPACE : ERR_FULL;
    for (uint64_t i = 0; i < copy->blocks; i++)
        copy->places[i] =
            cache->free_count > 0 ? cache->free[--cache->free_count] : (uint32_t)cache->grown++;
    cache->used += copy->blocks;
    assert(cache->grown <= most || cache->free_count == 0);
    return 0;
}

static struct disk_copy *create(struct disk_cache *cache, const struct id128 *id,
                                const uint8_t *sha256, uint64_t size)
{
    uint64_t blocks = (size - 1) / BLOCK_BYTES + 1;
    struct disk_copy *copy = calloc(1, sizeof *copy + blocks * sizeof *copy->places);
    uint64_t *sums = calloc(blocks, sizeof *sums);

    if (!copy || !sums) {
        free(copy);
        free(sums);
        return NULL;
    }
    copy->cache = cache;
    copy->id = *id;
    memcpy(copy->sha256, sha256, SHA256_BYTES);
    copy->size = size;
    copy->blocks = blocks;
    copy->sums = sums;
    return copy;
}

int disk_cache_begin(struct disk_copy **out, struct disk_cache *cache, const struct id128 *id,
                     const uint8_t *sha256, uint64_t size)
{
    uint64_t growth = 0;

    assert(size > 0);
    *out = NULL;
    if ((size - 1) / BLOCK_BYTES + 1 > cache->limit / 2)
        return ERR_TOO_BIG;
    int rc = may_grow(cache, &growth);
    if (rc)
        return rc;
    struct disk_copy *copy = create(cache, id, sha256, size);
    if (!copy)
        return ERR_NO_MEMORY;
    lock(cache);
    rc = find(cache, id, sha256) ? ERR_EXISTS : take_places(cache, copy, growth);
    if (rc == 0) {
        struct disk_copy **bucket = bucket_of(cache, id);

        copy->next = *bucket;
        *bucket = copy;
        copy->listed = true;
        atomic_fetch_add(&cache->listed, 1);
        copy->references = 1;
    }
    unlock(cache);
    if (rc) {
        free(copy->sums);
        free(copy);
        return rc;
    }
    *out = copy;
    return 0;
}

static size_t block_len(const struct disk_copy *copy, uint64_t index)
{
    uint64_t left = copy->size - index * BLOCK_BYTES;

    return left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
}

int disk_copy_write(struct disk_copy *copy, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    assert(!copy->complete && len > 0);
    while (len > 0) {
        uint64_t index = copy->written;
        size_t piece = block_len(copy, index);

        assert(index < copy->blocks && piece <= len);
        copy->sums[index] = block_checksum(at, piece, index);
        int rc = io_write(copy->cache->io, copy->cache->fd, at, piece,
                          (uint64_t)copy->places[index] * BLOCK_BYTES);
        if (rc)
            return rc;
        copy->written++;
        at += piece;
        len -= piece;
    }
    return 0;
}

void disk_copy_complete(struct disk_copy *copy)
{
    struct disk_cache *cache = copy->cache;

    assert(copy->written == copy->blocks);
    lock(cache);
    assert(!copy->complete);
    if (copy->listed) {
        copy->complete = true;
        queue_push(cache, copy);
        cache->stats.copies++;
        cache->stats.stored++;
    }
    unlock(cache);
}

/* ---- Reading ---- */

static void report(struct disk_copy *copy, uint64_t index, int rc)
{
    log_warn("disk cache: block %llu of a copy is damaged, it is dropped: %s",
             (unsigned long long)index, err_text(rc));
    lock(copy->cache);
    copy->cache->stats.bad_blocks++;
    if (copy->listed)
        unlist(copy);
    unlock(copy->cache);
}

int disk_copy_read(struct disk_copy *copy, uint64_t index, uint8_t *buf, size_t *len, bool nowait)
{
    assert(index < copy->blocks);
    *len = block_len(copy, index);
    int rc = io_read(copy->cache->io, copy->cache->fd, buf, *len,
                     (uint64_t)copy->places[index] * BLOCK_BYTES, nowait);
    if (rc == ERR_AGAIN && nowait)
        return rc;
    if (rc == 0 && block_checksum(buf, *len, index) == copy->sums[index])
        return 0;
    report(copy, index, rc ? rc : ERR_CORRUPT);
    return ERR_CORRUPT;
}

uint64_t disk_copy_size(const struct disk_copy *copy)
{
    return copy->size;
}

void disk_copy_release(struct disk_copy **copy_ptr)
{
    struct disk_copy *copy = *copy_ptr;

    *copy_ptr = NULL;
    if (!copy)
        return;
    struct disk_cache *cache = copy->cache;
    lock(cache);
    assert(copy->references > 0);
    copy->references--;
    if (copy->references == 0 && copy->listed && !copy->complete)
        unlist(copy); /* its making was given up */
    else if (copy->references == 0 && !copy->listed)
        free_copy(copy);
    unlock(cache);
}

/* ---- Giving back ---- */

void disk_cache_forget(struct disk_cache *cache, const struct id128 *id)
{
    if (atomic_load(&cache->listed) == 0)
        return;
    lock(cache);
    for (struct disk_copy *next, *copy = *bucket_of(cache, id); copy; copy = next) {
        next = copy->next;
        if (id_equal(&copy->id, id))
            unlist(copy);
    }
    unlock(cache);
}

bool disk_cache_shrink(struct disk_cache *cache)
{
    lock(cache);
    uint64_t before = cache->grown;

    while (evict(cache))
        continue;
    /* Only all of it can be given back: places are anywhere. */
    int rc = ERR_AGAIN;
    if (cache->used == 0 && cache->grown > 0) {
        rc = cache->io->truncate(cache->io, cache->fd, 0);
        if (rc == 0)
            cache->grown = cache->free_count = 0;
    }
    unlock(cache);
    return rc == 0 && before > 0;
}

void disk_cache_stats(struct disk_cache *cache, struct disk_cache_stats *out)
{
    lock(cache);
    *out = cache->stats;
    out->limit_bytes = cache->limit * BLOCK_BYTES;
    out->used_bytes = cache->used * BLOCK_BYTES;
    unlock(cache);
}
