/*
 * Hot blocks of large bodies: verified once, then kept in memory that sendfile can send from, so
 * that a hot large body costs no read, no checksum and no copy. What the RAM tier is for bodies up
 * to 256 KiB, this is for blocks of larger ones. Its memory is lent by the RAM tier: both together
 * stay within --memory.
 *
 * The memory is a memfd: a file for sendfile's sake only, never on a disk, so it does not go
 * through base/io, whose simulated disks have nothing to break here.
 *
 * A large file's number is never used again, so (number, block) always means the same bytes and
 * nothing here need ever be invalidated; what belonged to a removed file is not asked for any more
 * and makes room for others.
 */
#ifndef STORAGE_HOT_BLOCKS_H
#define STORAGE_HOT_BLOCKS_H

#include "base/env.h"
#include "base/err.h"
#include "base/limits.h"
#include "storage/ram.h"

#include <stdbool.h>

/* Blocks of one file that lie together in memory and come and go together: what one sendfile can
 * send. */
#define HOT_PART_BLOCKS 32

/* Their share of --memory, in eighths, while any are hot. Locations may take four more, so that at
 * least one is left for small bodies. */
#define HOT_EIGHTHS 3

/* Without a byte sent for so long, the memory goes back to the RAM tier. */
#define HOT_IDLE_MS 60000

struct hot_blocks;

/* RAM (lent) lends the memory once there is a hot block. Where the system has no memfd, or too
 * little memory is allowed, nothing ever becomes hot: not an error. ERR_NO_MEMORY. */
int hot_blocks_create(struct hot_blocks **out, struct env *env, struct ram *ram) MUST_CHECK;
/* No range may be held. */
void hot_blocks_destroy(struct hot_blocks **hot);

/* Verified bytes in a file to sendfile from. They stay as long as the range is held: not to be
 * longer than one call takes, as it stands in the way of others. Bytes that sendfile has taken
 * stay what they are whatever comes. */
struct hot_range {
    int fd;
    uint64_t offset;
    size_t bytes; /* of whole blocks: a body's last one may be shorter */
    void *part;   /* for the release */
};

/* Hold as many blocks of file NUMBER from INDEX to LAST as lie here next to each other. False where
 * INDEX does not. From any thread, as all of the following; short. */
bool hot_blocks_hold(struct hot_blocks *hot, uint64_t number, uint64_t index, uint64_t last,
                     struct hot_range *out);
/* SENT_BYTES of it went out. */
void hot_blocks_release(struct hot_blocks *hot, const struct hot_range *range, uint64_t sent_bytes);
/* Whether all from INDEX to LAST are here just now; counts as no use. */
bool hot_blocks_has(struct hot_blocks *hot, uint64_t number, uint64_t index, uint64_t last);

/* A block of file NUMBER, whose body has SIZE bytes, that a reader had to fetch elsewhere and has
 * verified; once for each reader and block. It is kept where it is read more than once within
 * short and there is room, or others are read clearly less. DATA is copied. */
void hot_blocks_offer(struct hot_blocks *hot, uint64_t number, uint64_t size, uint64_t index,
                      const void *data, size_t bytes);

/* Borrow memory where it is wanted, give it back where it is idle. To be called now and then, not
 * on a loop: see ram_lend. */
void hot_blocks_care(struct hot_blocks *hot);

struct hot_stats {
    uint64_t limit_bytes; /* borrowed */
    uint64_t used_bytes, sent_bytes;
    uint64_t admitted, evicted; /* parts */
};
void hot_blocks_stats(struct hot_blocks *hot, struct hot_stats *out);

#endif
