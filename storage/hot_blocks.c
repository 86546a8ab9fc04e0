/*
 * One memfd, mapped, in parts of 2 MiB (32 blocks). A part belongs to 32 adjacent blocks of one
 * file, so what is adjacent in the body is adjacent in memory. There are more parts than fit when
 * full, as those of small bodies are not: a part is counted as long as its blocks are, or from one
 * half on as the huge page that it becomes.
 *
 *   absent ──offered: a ghost counts──► ghost ──more than one reading──► filling
 *   filling ──all is there, or it lasts too long──► shown ──least read, room wanted──► absent
 *
 * Who stays is decided by how often it was read lately (LFU; Einziger et al., "TinyLFU", TOS 2017):
 * 32 units for each time that all of a part was read, from here or elsewhere, halved for all from
 * time to time. What is absent has its units in a ghost. A newcomer needs more than one reading;
 * where there is no room, clearly more than the one that is to go for it. So what is read once
 * passes by without a copy, and bodies that together exceed the memory do not take turns in pushing
 * each other out: some are served from here, the others from the page cache.
 *
 * Filling and shown: sending 4 KiB pages by reference costs the kernel a look-up for each. So when
 * all of a part is there, it is made one huge page (MADV_COLLAPSE, since Linux 6.1; whatever it
 * says, the part is shown then), which is possible only until the first socket refers to it.
 * Measured: 16 MiB sent in 0.87 ms instead of 1.58.
 *
 * DANGER. What sendfile has taken lies in socket buffers by reference until the client has it. So a
 * page that was ever shown is never written again: eviction punches a hole, which gives the file
 * fresh pages there, while the old ones live until the last socket has sent them. Two things make
 * that true. A part is pinned from the look-up until sendfile has returned, so that it cannot send
 * the hole. And the hole is a whole part, on the boundaries of a huge page (a hole in a part of a
 * huge page is zeroed in place). Pages come into being only through our mapping, which is told that
 * they are not to be huge before we say so, by MADV_POPULATE_WRITE, which unlike a mere store
 * reports that memory is short.
 *
 * Memory: the share is borrowed from the RAM tier as a whole, at the first part that would come in,
 * and given back as a whole when nothing was sent for a while. Pages that only sockets still hold
 * are not counted: as with copies in socket buffers, the kernel bounds them (tcp_wmem).
 *
 * Lock order: one lock for tables and counts; copying, populating, collapsing and punching go on
 * outside. `care` is held by whoever borrows or gives back.
 *
 * Failure: whatever the system refuses, the block is not hot. A part whose hole cannot be punched
 * is never used again.
 */
#include "storage/hot_blocks.h"

#include "base/hash.h"
#include "base/log.h"
#include "storage/segment.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PART_BYTES (HOT_PART_BLOCKS * BLOCK_BYTES)
#define PAGE_BYTES 4096u

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PARTS_PER_FIT   8 /* parts for each that would fit if it were full */
#define MIN_PARTS       16
#define GHOSTS_PER_FIT  8
#define GHOST_WAYS      4
#define MIN_GHOSTS      256
#define READING_UNITS   HOT_PART_BLOCKS /* for all of a part */
#define READINGS_TO_AGE 8               /* of all that fits, until all counts are halved */
#define VICTIM_SAMPLE   8
#define LIMIT_VICTIMS   32  /* short parts that make room for a whole one */
#define LIMIT_HIDDEN    256 /* blocks read elsewhere while they are here but not shown */
#define COLLAPSE_TRIES  3   /* the kernel may hold a reference to a page for a moment */

enum part_state { PART_FREE, PART_IN_USE, PART_LEAVING };

struct part {
    uint64_t number, index;   /* of the file; index of the block / HOT_PART_BLOCKS */
    struct part *chain;       /* in its bucket, or of free ones */
    size_t bytes;             /* of body that belong to it */
    uint32_t filled, filling; /* one bit for each block */
    uint32_t units;
    unsigned pins;
    uint16_t hidden_reads;
    uint8_t state;
    bool shown, huge;
};

struct ghost {
    uint64_t number, index;
    uint32_t units; /* 0: none */
};

struct hot_blocks {
    struct env *env;
    struct ram *ram;
    int fd; /* -1: nothing becomes hot */
    void *mapping;
    size_t mapping_bytes;
    uint8_t *memory; /* in the mapping, on a boundary of PART_BYTES */
    unsigned max_parts;
    size_t bucket_count, ghost_count; /* powers of two */

    pthread_mutex_t care;
    atomic_bool wanted; /* a part would have come in */
    _Atomic uint64_t care_ms;
    uint64_t care_sent_bytes;

    pthread_mutex_t lock; /* guards what follows */
    uint64_t limit_bytes; /* borrowed; 0: nothing comes in */
    uint64_t used_bytes;
    struct part *parts, *free, **buckets;
    unsigned touched, hand; /* parts below were used at least once */
    struct ghost *ghosts;
    uint64_t units; /* since the last aging */
    uint64_t sent_bytes, admitted, evicted;
};

static void lock(pthread_mutex_t *mutex)
{
    int rc = pthread_mutex_lock(mutex);

    assert(rc == 0);
    (void)rc;
}

static void unlock(pthread_mutex_t *mutex)
{
    int rc = pthread_mutex_unlock(mutex);

    assert(rc == 0);
    (void)rc;
}

/* ---- Memory ---- */

static uint64_t offset_of(const struct hot_blocks *hot, const struct part *part)
{
    return (uint64_t)(part - hot->parts) * PART_BYTES;
}

static bool punch(const struct hot_blocks *hot, uint64_t offset, uint64_t bytes)
{
    int rc;

    do
        rc = fallocate(hot->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                       (off_t)bytes);
    while (rc != 0 && errno == EINTR);
    return rc == 0;
}

/* Get fresh pages at OFFSET. */
static bool populate(const struct hot_blocks *hot, uint64_t offset, size_t bytes)
{
    int rc;

    do
        rc = madvise(hot->memory + offset, bytes, MADV_POPULATE_WRITE);
    while (rc != 0 && errno == EINTR);
    return rc == 0;
}

/* Make a part that is all there one huge page, if the system can. */
static void collapse(const struct hot_blocks *hot, uint64_t offset)
{
    if (madvise(hot->memory + offset, PART_BYTES, MADV_HUGEPAGE) != 0)
        return;
    for (unsigned i = 0; i < COLLAPSE_TRIES; i++)
        if (madvise(hot->memory + offset, PART_BYTES, MADV_COLLAPSE) == 0 || errno != EAGAIN)
            return;
}

/* Before it is used again. A kernel without huge pages knows no such advice, and needs none. */
static bool forbid_huge(const struct hot_blocks *hot, uint64_t offset, uint64_t bytes)
{
    return madvise(hot->memory + offset, bytes, MADV_NOHUGEPAGE) == 0 || errno == EINVAL;
}

/* Make and map the memfd. */
static bool make_memory(struct hot_blocks *hot)
{
    uint64_t size = (uint64_t)hot->max_parts * PART_BYTES;

    hot->fd = memfd_create("objstore-hot-blocks", MFD_CLOEXEC);
    if (hot->fd < 0)
        return false;
    if (sysconf(_SC_PAGESIZE) != PAGE_BYTES || ftruncate(hot->fd, (off_t)size) != 0)
        return false;
    /* More addresses than needed, for the boundary. */
    void *mapping = mmap(NULL, size + PART_BYTES, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        return false;
    hot->mapping = mapping;
    hot->mapping_bytes = size + PART_BYTES;
    hot->memory = (uint8_t *)mapping + (-(uintptr_t)mapping & (PART_BYTES - 1));
    if (mmap(hot->memory, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, hot->fd, 0) ==
        MAP_FAILED)
        return false;
    /* The rest: whether the system can do (since Linux 5.14) what all rests on. */
    return forbid_huge(hot, 0, size) && populate(hot, 0, PAGE_BYTES) && punch(hot, 0, PART_BYTES);
}

static void drop_memory(struct hot_blocks *hot)
{
    if (hot->mapping)
        (void)munmap(hot->mapping, hot->mapping_bytes);
    if (hot->fd >= 0)
        (void)close(hot->fd);
    hot->mapping = NULL;
    hot->fd = -1;
}

/* ---- Life ---- */

static size_t power_of_two(size_t min)
{
    size_t n = 1;

    while (n < min)
        n *= 2;
    return n;
}

int hot_blocks_create(struct hot_blocks **out, struct env *env, struct ram *ram)
{
    struct ram_stats stats;

    *out = NULL;
    struct hot_blocks *hot = calloc(1, sizeof *hot);
    if (!hot)
        return ERR_NO_MEMORY;
    *hot = (struct hot_blocks){.env = env, .ram = ram, .fd = -1};
    if (pthread_mutex_init(&hot->care, NULL) != 0 || pthread_mutex_init(&hot->lock, NULL) != 0)
        abort(); /* Linux has no reason to refuse */
    ram_stats(ram, &stats);
    uint64_t fit = stats.limit_bytes / 8 * HOT_EIGHTHS / PART_BYTES;
    *out = hot;
    if (fit == 0)
        return 0;
    hot->max_parts = fit * PARTS_PER_FIT > MIN_PARTS ? (unsigned)fit * PARTS_PER_FIT : MIN_PARTS;
    hot->bucket_count = power_of_two(hot->max_parts);
    hot->ghost_count =
        power_of_two(fit * GHOSTS_PER_FIT > MIN_GHOSTS ? fit * GHOSTS_PER_FIT : MIN_GHOSTS);
    hot->parts = calloc(hot->max_parts, sizeof *hot->parts);
    hot->buckets = calloc(hot->bucket_count, sizeof(struct part *));
    hot->ghosts = calloc(hot->ghost_count, sizeof *hot->ghosts);
    if (!hot->parts || !hot->buckets || !hot->ghosts) {
        hot_blocks_destroy(out);
        return ERR_NO_MEMORY;
    }
    if (!make_memory(hot)) {
        log_info("no memory to send from (%s): large bodies are read from files each time",
                 strerror(errno));
        drop_memory(hot);
    }
    return 0;
}

void hot_blocks_destroy(struct hot_blocks **hot)
{
    struct hot_blocks *it = *hot;

    if (!it)
        return;
    for (unsigned i = 0; it->parts && i < it->touched; i++)
        assert(it->parts[i].pins == 0);
    drop_memory(it);
    if (it->limit_bytes > 0)
        ram_take_back(it->ram, it->limit_bytes);
    free(it->parts);
    free(it->buckets);
    free(it->ghosts);
    (void)pthread_mutex_destroy(&it->care);
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
    *hot = NULL;
}

/* ---- Parts ---- */

static uint64_t hash_of(uint64_t number, uint64_t index)
{
    const uint64_t name[2] = {number, index};

    return xxh64(name, sizeof name, 0);
}

static struct part **bucket_of(struct hot_blocks *hot, uint64_t number, uint64_t index)
{
    return &hot->buckets[hash_of(number, index) & (hot->bucket_count - 1)];
}

static struct part *find(struct hot_blocks *hot, uint64_t number, uint64_t index)
{
    struct part *part = *bucket_of(hot, number, index);

    while (part && (part->number != number || part->index != index))
        part = part->chain;
    return part;
}

static struct part *take_free(struct hot_blocks *hot)
{
    struct part *part = hot->free;

    if (part)
        hot->free = part->chain;
    else if (hot->touched < hot->max_parts)
        part = &hot->parts[hot->touched++];
    return part;
}

static size_t page_bytes(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* Whether a part of so many bytes of body is worth a huge page. */
static bool deserves_huge(size_t bytes)
{
    return bytes >= PART_BYTES / 2;
}

/* What it takes. */
static size_t cost_of(size_t bytes)
{
    return deserves_huge(bytes) ? PART_BYTES : page_bytes(bytes);
}

/* Let PART go: out of the table, then out of memory. Unlocks meanwhile. */
static void evict(struct hot_blocks *hot, struct part *part)
{
    struct part **link = bucket_of(hot, part->number, part->index);

    assert(part->state == PART_IN_USE && part->pins == 0 && part->filling == 0);
    while (*link != part)
        link = &(*link)->chain;
    *link = part->chain;
    part->state = PART_LEAVING;
    unlock(&hot->lock);
    bool empty = punch(hot, offset_of(hot, part), PART_BYTES) &&
                 (!part->huge || forbid_huge(hot, offset_of(hot, part), PART_BYTES));
    lock(&hot->lock);
    hot->evicted++;
    if (!empty)
        return; /* it stays as it is, and counted */
    hot->used_bytes -= cost_of(part->bytes);
    part->state = PART_FREE;
    part->chain = hot->free;
    hot->free = part;
}

/* The least read of the next few parts, as far as they are not in use just now; or NULL. */
static struct part *next_victim(struct hot_blocks *hot)
{
    struct part *victim = NULL;

    for (unsigned i = 0, seen = 0; i < hot->touched && seen < VICTIM_SAMPLE; i++) {
        if (hot->hand >= hot->touched)
            hot->hand = 0;
        struct part *part = &hot->parts[hot->hand++];

        if (part->state != PART_IN_USE || part->pins > 0)
            continue;
        seen++;
        if (!victim || part->units < victim->units)
            victim = part;
    }
    return victim;
}

/* ---- Counts ---- */

/* The ghost of that part, made in place of the least read where it is not there. */
static struct ghost *ghost_of(struct hot_blocks *hot, uint64_t number, uint64_t index)
{
    size_t sets = hot->ghost_count / GHOST_WAYS;
    struct ghost *set = &hot->ghosts[((hash_of(number, index) >> 32) & (sets - 1)) * GHOST_WAYS];
    struct ghost *least = set;

    for (unsigned i = 0; i < GHOST_WAYS; i++) {
        if (set[i].units != 0 && set[i].number == number && set[i].index == index)
            return &set[i];
        if (set[i].units < least->units)
            least = &set[i];
    }
    *least = (struct ghost){.number = number, .index = index};
    return least;
}

/* What reading BYTES of a part that has PART_BYTES counts. */
static uint32_t units_of(uint64_t bytes, size_t part_bytes)
{
    uint64_t units = bytes * READING_UNITS / part_bytes;

    return units > 0 ? (uint32_t)units : 1;
}

/* So much was read: is it time to forget the half of all? Bounds every count, too. */
static void age(struct hot_blocks *hot, uint32_t units)
{
    hot->units += units;
    if (hot->units < (uint64_t)hot->max_parts / PARTS_PER_FIT * READING_UNITS * READINGS_TO_AGE)
        return;
    hot->units = 0;
    for (unsigned i = 0; i < hot->touched; i++)
        hot->parts[i].units /= 2;
    for (size_t i = 0; i < hot->ghost_count; i++)
        hot->ghosts[i].units /= 2;
}

/* ---- Coming in ---- */

/* Make room for a newcomer of UNITS. May unlock meanwhile. */
static bool make_room(struct hot_blocks *hot, size_t bytes, uint32_t units)
{
    for (unsigned i = 0; i < LIMIT_VICTIMS && hot->limit_bytes > 0; i++) {
        if (hot->used_bytes + bytes <= hot->limit_bytes &&
            (hot->free || hot->touched < hot->max_parts))
            return true;
        struct part *victim = next_victim(hot);
        if (!victim || units <= 2 * victim->units + READING_UNITS)
            return false;
        evict(hot, victim);
    }
    return false;
}

/* The part for blocks that are absent, if they were read often enough; or NULL. */
static struct part *admit(struct hot_blocks *hot, uint64_t number, uint64_t index, size_t bytes,
                          uint32_t units)
{
    struct ghost *ghost = ghost_of(hot, number, index);

    ghost->units += units;
    units = ghost->units;
    if (units <= READING_UNITS)
        return NULL;
    if (hot->limit_bytes == 0) {
        atomic_store_explicit(&hot->wanted, true, memory_order_relaxed);
        return NULL;
    }
    bool room = make_room(hot, cost_of(bytes), units);
    struct part *part = find(hot, number, index); /* it may have come meanwhile */
    if (part || !room)
        return part;
    part = take_free(hot);
    assert(part && part->state == PART_FREE && part->pins == 0);
    struct part **bucket = bucket_of(hot, number, index);
    *part = (struct part){.number = number,
                          .index = index,
                          .chain = *bucket,
                          .bytes = bytes,
                          .units = units,
                          .state = PART_IN_USE};
    *bucket = part;
    hot->used_bytes += cost_of(bytes);
    hot->admitted++;
    return part;
}

static uint32_t all_blocks(const struct part *part)
{
    return (uint32_t)((UINT64_C(1) << block_count(part->bytes)) - 1);
}

/* Count a reading of that block. The part, pinned, with the block's bit in `filling`, where the
 * block is to be copied in; else NULL. */
static struct part *reserve(struct hot_blocks *hot, uint64_t number, uint64_t index, unsigned bit,
                            size_t part_bytes, size_t bytes)
{
    uint32_t units = units_of(bytes, part_bytes);
    struct part *part = find(hot, number, index);

    age(hot, units);
    if (part)
        part->units += units;
    else
        part = admit(hot, number, index, part_bytes, units);
    if (!part)
        return NULL;
    assert(part->bytes == part_bytes);
    if ((part->filled | part->filling) >> bit & 1) {
        if (!part->shown && ++part->hidden_reads >= LIMIT_HIDDEN)
            part->shown = true;
        return NULL;
    }
    part->pins++;
    part->filling |= UINT32_C(1) << bit;
    return part;
}

void hot_blocks_offer(struct hot_blocks *hot, uint64_t number, uint64_t size, uint64_t index,
                      const void *data, size_t bytes)
{
    uint64_t first = index / HOT_PART_BLOCKS * PART_BYTES; /* byte of the part */
    size_t part_bytes = size - first < PART_BYTES ? (size_t)(size - first) : PART_BYTES;
    unsigned bit = index % HOT_PART_BLOCKS;

    assert(bytes > 0 && bytes <= BLOCK_BYTES && index * BLOCK_BYTES + bytes <= size);
    if (hot->fd < 0)
        return;
    lock(&hot->lock);
    struct part *part = reserve(hot, number, index / HOT_PART_BLOCKS, bit, part_bytes, bytes);
    unlock(&hot->lock);
    if (!part)
        return;
    uint64_t offset = offset_of(hot, part);
    uint8_t *to = hot->memory + offset + (uint64_t)bit * BLOCK_BYTES;
    bool here = populate(hot, (uint64_t)(to - hot->memory), page_bytes(bytes));
    if (here)
        memcpy(to, data, bytes);

    lock(&hot->lock);
    assert(part->pins > 0 && part->filling >> bit & 1);
    part->filling &= ~(UINT32_C(1) << bit);
    if (here)
        part->filled |= UINT32_C(1) << bit;
    bool whole = here && !part->shown && part->filled == all_blocks(part);
    part->huge |= whole && deserves_huge(part->bytes);
    if (whole && part->huge) {
        unlock(&hot->lock); /* pinned, it stays */
        collapse(hot, offset);
        lock(&hot->lock);
    }
    part->shown |= whole;
    part->pins--;
    unlock(&hot->lock);
}

/* ---- Look-up ---- */

static struct part *find_shown(struct hot_blocks *hot, uint64_t number, uint64_t index)
{
    struct part *part = find(hot, number, index);

    return part && part->shown ? part : NULL;
}

bool hot_blocks_hold(struct hot_blocks *hot, uint64_t number, uint64_t index, uint64_t last,
                     struct hot_range *out)
{
    unsigned bit = index % HOT_PART_BLOCKS, count = 0;

    assert(index <= last);
    if (hot->fd < 0)
        return false;
    lock(&hot->lock);
    struct part *part = find_shown(hot, number, index / HOT_PART_BLOCKS);
    while (part && bit + count < HOT_PART_BLOCKS && count <= last - index &&
           part->filled >> (bit + count) & 1)
        count++;
    if (count > 0)
        part->pins++;
    unlock(&hot->lock);
    if (count == 0)
        return false;
    *out = (struct hot_range){.fd = hot->fd,
                              .offset = offset_of(hot, part) + (uint64_t)bit * BLOCK_BYTES,
                              .bytes = count * BLOCK_BYTES,
                              .part = part};
    return true;
}

void hot_blocks_release(struct hot_blocks *hot, const struct hot_range *range, uint64_t sent_bytes)
{
    struct part *part = range->part;

    lock(&hot->lock);
    assert(part->pins > 0);
    part->pins--;
    if (sent_bytes > 0) {
        uint32_t units = units_of(sent_bytes, part->bytes);

        part->units += units;
        age(hot, units);
        hot->sent_bytes += sent_bytes;
    }
    unlock(&hot->lock);
}

bool hot_blocks_has(struct hot_blocks *hot, uint64_t number, uint64_t index, uint64_t last)
{
    bool has = hot->fd >= 0;

    assert(index <= last);
    lock(&hot->lock);
    while (has && index <= last) {
        unsigned bit = index % HOT_PART_BLOCKS, count = HOT_PART_BLOCKS - bit;

        if (count > last - index)
            count = (unsigned)(last - index) + 1;
        uint32_t wanted = (uint32_t)((UINT64_C(1) << count) - 1) << bit;
        const struct part *part = find_shown(hot, number, index / HOT_PART_BLOCKS);
        has = part && (part->filled & wanted) == wanted;
        index += count;
    }
    unlock(&hot->lock);
    return has;
}

/* ---- Care ---- */

/* Empty it, as far as nobody is reading just now, and give the memory back if that is all. */
static void give_back(struct hot_blocks *hot)
{
    lock(&hot->lock);
    uint64_t limit = hot->limit_bytes;
    hot->limit_bytes = 0; /* nothing comes in from here on */
    for (unsigned i = 0; i < hot->touched; i++)
        if (hot->parts[i].state == PART_IN_USE && hot->parts[i].pins == 0)
            evict(hot, &hot->parts[i]);
    if (hot->used_bytes > 0) {
        hot->limit_bytes = limit;
        limit = 0;
    }
    unlock(&hot->lock);
    if (limit > 0)
        ram_take_back(hot->ram, limit);
}

static void borrow(struct hot_blocks *hot)
{
    struct ram_stats stats;

    ram_stats(hot->ram, &stats);
    uint64_t limit = ram_lend(hot->ram, stats.limit_bytes / 8 * HOT_EIGHTHS);
    lock(&hot->lock);
    assert(hot->limit_bytes == 0 && hot->used_bytes == 0);
    hot->limit_bytes = limit;
    unlock(&hot->lock);
}

void hot_blocks_care(struct hot_blocks *hot)
{
    uint64_t now_ms = env_mono_ms(hot->env);
    bool wanted = atomic_load_explicit(&hot->wanted, memory_order_relaxed);

    if (hot->fd < 0 || (!wanted && now_ms - atomic_load(&hot->care_ms) < HOT_IDLE_MS))
        return;
    if (pthread_mutex_trylock(&hot->care) != 0)
        return; /* somebody is at it */
    lock(&hot->lock);
    uint64_t limit = hot->limit_bytes, sent_bytes = hot->sent_bytes;
    unlock(&hot->lock);
    atomic_store(&hot->wanted, false);
    if (limit == 0 && wanted) {
        borrow(hot);
        atomic_store(&hot->care_ms, now_ms);
    } else if (now_ms - atomic_load(&hot->care_ms) >= HOT_IDLE_MS) {
        if (limit > 0 && sent_bytes == hot->care_sent_bytes)
            give_back(hot);
        atomic_store(&hot->care_ms, now_ms);
    }
    hot->care_sent_bytes = sent_bytes;
    unlock(&hot->care);
}

void hot_blocks_stats(struct hot_blocks *hot, struct hot_stats *out)
{
    lock(&hot->lock);
    *out = (struct hot_stats){.limit_bytes = hot->limit_bytes,
                              .used_bytes = hot->used_bytes,
                              .sent_bytes = hot->sent_bytes,
                              .admitted = hot->admitted,
                              .evicted = hot->evicted};
    unlock(&hot->lock);
}
