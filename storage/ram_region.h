/*
 * A piece of memory that is filled with blocks of any size and never takes more than it was given,
 * whatever came and went before: blocks that live on are slid together instead of leaving holes. A
 * hand goes round and asks the owner about each block it meets. Not thread-safe.
 */
#ifndef STORAGE_RAM_REGION_H
#define STORAGE_RAM_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What becomes of a block that the hand has met. */
enum block_fate {
    BLOCK_GOES,  /* nobody needs it any more: the owner has let go of it */
    BLOCK_STAYS, /* somebody uses it: it cannot even be moved */
    BLOCK_LIVES, /* it is kept, and may be moved */
};

struct region_owner {
    /* FORCE: a block that would live goes. */
    enum block_fate (*judge)(void *arg, void *block, bool force);
    /* The block now lies at TO, where its bytes were copied; FROM is not readable. */
    void (*moved)(void *arg, void *to, const void *from);
    void *arg;
};

struct region {
    uint8_t *base;
    size_t end;  /* it may use this many bytes */
    size_t top;  /* and has touched these: blocks lie end to end below it */
    size_t hand; /* where a block begins, or top */
};

/* BASE: zeroed pages; END: a multiple of 16. */
void region_init(struct region *region, void *base, size_t end);

/* A block with room for BYTES, aligned to 16, or NULL where what stays leaves no room. Moves a
 * bounded number of bytes, then judges with force. */
void *region_alloc(struct region *region, size_t bytes, const struct region_owner *owner);

/* Use only END bytes from now on. False, with nothing changed but what was judged, where a block
 * beyond stays. Pages that became free go back to the system. */
bool region_shrink(struct region *region, size_t end, const struct region_owner *owner);
/* The opposite: the pages were never touched, or given back. */
void region_extend(struct region *region, size_t end);

/* What region_alloc(BYTES) takes from a region. */
size_t region_block_bytes(size_t bytes);

/* Hand every block in use to VISIT. */
void region_visit(const struct region *region, void (*visit)(void *arg, void *block), void *arg);

#endif
