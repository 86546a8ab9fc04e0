/*
 * Copies of bodies that are kept elsewhere, on this node's disk: what was fetched for a client need
 * not be fetched for the next one. Each is whole, and named by (id, sha256).
 *
 * All of them lie in one file without a name, in blocks of BLOCK_BYTES, unsynced and outside the
 * log: they vanish with the process. A block is verified on each read, against a checksum that is
 * kept in memory. Memory: 12 bytes for each block in use.
 *
 * Evicted first is what came first, unless it was asked for since: then it stays another round.
 * What is read just now is not evicted. Thread-safe; only what is said to block does.
 */
#ifndef STORAGE_DISK_CACHE_H
#define STORAGE_DISK_CACHE_H

#include "base/env.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/id.h"
#include "base/limits.h"

#include <stdbool.h>

struct disk_cache;
struct disk_copy; /* with references: find and begin give one, disk_copy_release takes it back */

struct disk_cache_stats {
    uint64_t limit_bytes, used_bytes; /* whole blocks */
    uint64_t copies;                  /* complete ones */
    uint64_t hits, misses;            /* of disk_cache_find */
    uint64_t stored, evicted, bad_blocks;
};

/* In directory DIR, which is on the disk whose room it leaves to others. LIMIT_BYTES: at most that,
 * and a tenth of the disk. ERR_NO_MEMORY, or why the file cannot be made. */
int disk_cache_create(struct disk_cache **out, struct env *env, const char *dir,
                      uint64_t limit_bytes) MUST_CHECK;
/* No copy may be referenced. */
void disk_cache_destroy(struct disk_cache **cache);

/* The complete copy of the body of SIZE bytes, or NULL. */
struct disk_copy *disk_cache_find(struct disk_cache *cache, const struct id128 *id,
                                  const uint8_t *sha256, uint64_t size);

/*
 * A new copy, empty, with room for SIZE bytes (at least one); nobody finds it before it is
 * complete. ERR_EXISTS: there is one, or one is being made; ERR_TOO_BIG: over half of the cache;
 * ERR_FULL: what is in it is being read; ERR_NO_SPACE: the disk; ERR_NO_MEMORY. Blocks (asks how
 * much of the disk is free).
 */
int disk_cache_begin(struct disk_copy **out, struct disk_cache *cache, const struct id128 *id,
                     const uint8_t *sha256, uint64_t size) MUST_CHECK;

/* The next LEN bytes: whole blocks, but for the body's end. One thread at a time. Blocks. */
int disk_copy_write(struct disk_copy *copy, const void *bytes, size_t len) MUST_CHECK;
/* All was written and has the right SHA-256: from now on it is found; unless forgotten meanwhile,
 * or another copy of it was quicker. */
void disk_copy_complete(struct disk_copy *copy);

/* Block INDEX, which was written, into BUF (BLOCK_BYTES). ERR_AGAIN: NOWAIT, and it is not in the
 * page cache; ERR_CORRUPT: it is damaged, and the copy is not found any more. Blocks, unless
 * NOWAIT.
 */
int disk_copy_read(struct disk_copy *copy, uint64_t index, uint8_t *buf, size_t *len,
                   bool nowait) MUST_CHECK;
uint64_t disk_copy_size(const struct disk_copy *copy);
void disk_copy_release(struct disk_copy **copy);

/* Find no copy of ID any more, whatever its SHA-256, nor those being made. Their room is free once
 * they are released. */
void disk_cache_forget(struct disk_cache *cache, const struct id128 *id);
/* The disk is full: give back what is not being read. True: there was something. Blocks. */
bool disk_cache_shrink(struct disk_cache *cache);

void disk_cache_stats(struct disk_cache *cache, struct disk_cache_stats *out);

#endif
