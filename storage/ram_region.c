/*
 * Blocks lie end to end from the region's base to its top, each behind a 16-byte header; a free one
 * is a block as well. To allocate, the hand goes on from where it stopped and gathers a gap: what
 * goes adds to it, what lives is slid down to its beginning (nothing moves as long as the gap is
 * empty), and what stays ends it, to be left behind as a free block for the next round. At the top
 * it first takes memory that was never touched, then begins again at the base.
 *
 *      hand                    hand
 *       v                       v
 *   [A]|[b  ][C][d    ]...  [A][C]|<--gap-->|...       b and d go, A and C live
 *
 * Failure: no gap that is large enough even after a round in which nothing lives on: what stays
 * is in the way.
 */
#include "storage/ram_region.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#define UNIT       16
#define PAGE_BYTES 4096
#define ROUNDS     2
/* Beyond these, for one allocation, nothing lives on: it bounds the time under a lock. */
#define LIMIT_MOVED  (1024 * 1024)
#define LIMIT_JUDGED 1024

struct block {
    size_t bytes; /* with this header; a multiple of UNIT */
    size_t used;
};
static_assert(sizeof(struct block) == UNIT, "a header is one unit, so that any gap can be a block");

/* The hand's way through one allocation: the gap begins where the hand is. */
struct sweep {
    struct region *region;
    const struct region_owner *owner;
    size_t gap;
    size_t moved, judged;
    unsigned rounds;
};

static struct block *block_at(const struct region *region, size_t at)
{
    assert(at < region->top && at % UNIT == 0);
    return (struct block *)(void *)(region->base + at);
}

size_t region_block_bytes(size_t bytes)
{
    return (sizeof(struct block) + bytes + UNIT - 1) / UNIT * UNIT;
}

void region_init(struct region *region, void *base, size_t end)
{
    assert((uintptr_t)base % UNIT == 0 && end % UNIT == 0);
    *region = (struct region){.base = base, .end = end};
}

static void make_free(struct region *region, size_t at, size_t bytes)
{
    if (bytes > 0)
        *block_at(region, at) = (struct block){.bytes = bytes};
}

/* Leave the gap behind as a free block; the hand goes to AT. */
static void leave_gap(struct sweep *sweep, size_t at)
{
    make_free(sweep->region, sweep->region->hand, sweep->gap);
    sweep->region->hand = at;
    sweep->gap = 0;
}

/* Slide BLOCK down to where the gap begins. */
static void slide(struct sweep *sweep, struct block *block)
{
    struct region *region = sweep->region;
    struct block *to = (struct block *)(void *)(region->base + region->hand);
    size_t bytes = block->bytes;

    if (sweep->gap > 0) {
        const void *from = block + 1;

        memmove(to, block, bytes);
        sweep->owner->moved(sweep->owner->arg, to + 1, from);
        sweep->moved += bytes;
    }
    region->hand += bytes;
}

/* Go past one block, or take new memory, or begin a new round. */
static void step(struct sweep *sweep, size_t need)
{
    struct region *region = sweep->region;
    size_t at = region->hand + sweep->gap;

    if (at == region->top && region->top < region->end) {
        size_t left = region->end - region->top, wanted = need - sweep->gap;

        region->top += left < wanted ? left : wanted;
        sweep->gap += region->top - at;
        return;
    }
    if (at == region->top) {
        leave_gap(sweep, 0);
        sweep->rounds++;
        return;
    }
    struct block *block = block_at(region, at);
    enum block_fate fate = BLOCK_GOES;
    if (block->used) {
        bool force =
            ++sweep->judged > LIMIT_JUDGED || sweep->moved > LIMIT_MOVED || sweep->rounds == ROUNDS;

        fate = sweep->owner->judge(sweep->owner->arg, block + 1, force);
    }
    if (fate == BLOCK_GOES)
        sweep->gap += block->bytes;
    else if (fate == BLOCK_LIVES)
        slide(sweep, block);
    else
        leave_gap(sweep, at + block->bytes);
}

void *region_alloc(struct region *region, size_t bytes, const struct region_owner *owner)
{
    size_t need = region_block_bytes(bytes);
    struct sweep sweep = {.region = region, .owner = owner};

    if (need > region->end)
        return NULL;
    assert(region->hand <= region->top);
    while (sweep.gap < need && sweep.rounds <= ROUNDS)
        step(&sweep, need);
    if (sweep.gap < need) {
        leave_gap(&sweep, region->hand);
        return NULL;
    }
    struct block *block = (struct block *)(void *)(region->base + region->hand);
    make_free(region, region->hand + need, sweep.gap - need);
    *block = (struct block){.bytes = need, .used = 1};
    region->hand += need;
    return block + 1;
}

bool region_shrink(struct region *region, size_t end, const struct region_owner *owner)
{
    size_t at = 0;

    assert(end <= region->end && end % UNIT == 0);
    if (region->top > end) {
        /* Blocks can only be walked from the base on. */
        while (at + block_at(region, at)->bytes <= end)
            at += block_at(region, at)->bytes;
        for (size_t next = at; next < region->top;) {
            struct block *block = block_at(region, next);

            if (block->used && owner->judge(owner->arg, block + 1, true) != BLOCK_GOES)
                return false;
            block->used = 0;
            next += block->bytes;
        }
        make_free(region, at, end - at);
        if (region->hand > at)
            region->hand = 0;
        /* A page that END lies in stays touched. */
        size_t first = (end + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
        if (region->top > first)
            (void)madvise(region->base + first, region->top - first, MADV_DONTNEED);
        region->top = end;
    }
    region->end = end;
    return true;
}

void region_extend(struct region *region, size_t end)
{
    assert(end >= region->end && end % UNIT == 0);
    region->end = end;
}

void region_visit(const struct region *region, void (*visit)(void *arg, void *block), void *arg)
{
    for (size_t at = 0; at < region->top; at += block_at(region, at)->bytes)
        if (block_at(region, at)->used)
            visit(arg, block_at(region, at) + 1);
}
