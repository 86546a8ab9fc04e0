/*
 * One array of slots, sorted by hash, with gaps: a hash's home is its share of the array (hash x
 * homes / 2^64), and it lies there or behind, pushed on by smaller ones (linear probing with sorted
 * runs). So a search ends at the first greater hash, which keeps it short up to the 7/8 load
 * allowed, and growing keeps the order: it is done in place, by pushing all slots to the new end
 * and dealing them out again from the front. The array lives in reserved address space, whose pages
 * cost nothing until they are touched. A tail behind the last home takes what is pushed over the
 * end.
 *
 * Replacement is CLOCK: the hand passes over slots used since its last round and takes the next
 * one. It goes round in strides that fall evenly into the array and takes nothing but what it falls
 * on. So what goes is spread as evenly as what comes; a hand that went straight on would leave the
 * array empty behind it, and let all that comes crowd before it into runs without end.
 *
 * Failure: there is none but "not remembered". Runs that became too long, which only ids made for
 * the purpose can bring about, take no more slots.
 */
#include "storage/ram_locations.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST_SLOTS 512
#define TAIL_SLOTS  128
#define PAGE_BYTES  4096

/* How far any slot lies from its home. An insertion that would push one further is refused. */
#define LIMIT_RUN 1024
/* Used slots that the hand passes before it takes one all the same. */
#define LIMIT_HAND 128
/* 2^64 divided by the golden ratio: its multiples, as shares of the array, always fall into one of
 * the largest gaps between those before (Knuth, TAOCP 3, §6.4). */
#define HAND_STRIDE UINT64_C(0x9E3779B97F4A7C15)

#define LIMIT_SLOT_RECORD_BYTES (1u << 20)
#define LIMIT_SLOT_DISK         (1u << 11)

struct location_slot {
    uint64_t hash;
    uint64_t offset;
    uint32_t volume; /* 0: the slot is empty */
    unsigned record_bytes : 20;
    unsigned disk : 11;
    unsigned used : 1;
};
static_assert(sizeof(struct location_slot) == 24, "the slot's size decides what --memory holds");

static size_t page_bytes(size_t slots)
{
    size_t bytes = slots * sizeof(struct location_slot);

    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static bool is_empty(const struct location_slot *slot)
{
    return slot->volume == 0;
}

static size_t home_of(const struct location_table *table, uint64_t hash)
{
    return (size_t)(((unsigned __int128)hash * table->homes) >> 64);
}

void locations_init(struct location_table *table, size_t max_bytes)
{
    *table = (struct location_table){
        .max_slots = max_bytes / PAGE_BYTES * PAGE_BYTES / sizeof(struct location_slot),
    };
    if (table->max_slots < FIRST_SLOTS)
        table->max_slots = 0;
}

void locations_release(struct location_table *table)
{
    if (table->slots)
        (void)munmap(table->slots, page_bytes(table->max_slots));
    *table = (struct location_table){0};
}

size_t locations_bytes(const struct location_table *table)
{
    return page_bytes(table->total);
}

static size_t next_total(const struct location_table *table)
{
    size_t next = table->total == 0 ? FIRST_SLOTS : table->total + table->total / 2;

    return next < table->max_slots ? next : table->max_slots;
}

static bool is_loaded(const struct location_table *table)
{
    return table->count >= table->homes - table->homes / 8;
}

size_t locations_growth(const struct location_table *table)
{
    if (!is_loaded(table))
        return 0;
    return page_bytes(next_total(table)) - page_bytes(table->total);
}

int locations_grow(struct location_table *table)
{
    size_t total = next_total(table), from = total;

    assert(total >= table->total);
    if (!table->slots) {
        if (table->max_slots == 0)
            return ERR_NO_MEMORY;
        void *space = mmap(NULL, page_bytes(table->max_slots), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (space == MAP_FAILED)
            return ERR_NO_MEMORY;
        table->slots = space;
    }
    for (size_t i = table->total; i-- > 0;)
        if (!is_empty(&table->slots[i]))
            table->slots[--from] = table->slots[i];
    assert(total - from == table->count);
    memset(table->slots, 0, from * sizeof *table->slots);

    table->total = total;
    table->homes = total - TAIL_SLOTS;
    table->count = 0;
    for (size_t next = 0; from < total; from++) {
        struct location_slot slot = table->slots[from];
        size_t home = home_of(table, slot.hash), at = home > next ? home : next;

        memset(&table->slots[from], 0, sizeof slot);
        if (at > from || at - home > LIMIT_RUN)
            continue; /* no room behind it for the rest, or a run too long: it is forgotten */
        table->slots[at] = slot;
        table->count++;
        next = at + 1;
    }
    return 0;
}

/* Where HASH lies, or else where it belongs: the first slot from HOME on that is empty or has no
 * smaller hash. */
static size_t search(const struct location_table *table, size_t home, uint64_t hash)
{
    size_t i = home;

    while (i < table->total && i - home <= LIMIT_RUN && !is_empty(&table->slots[i]) &&
           table->slots[i].hash < hash)
        i++;
    return i;
}

static bool holds(const struct location_table *table, size_t i, uint64_t hash)
{
    return i < table->total && !is_empty(&table->slots[i]) && table->slots[i].hash == hash;
}

static void remove_at(struct location_table *table, size_t i)
{
    size_t end = i + 1;

    assert(i < table->total && table->count > 0);
    while (end < table->total && !is_empty(&table->slots[end]) &&
           home_of(table, table->slots[end].hash) < end)
        end++;
    memmove(&table->slots[i], &table->slots[i + 1], (end - i - 1) * sizeof *table->slots);
    memset(&table->slots[end - 1], 0, sizeof *table->slots);
    table->count--;
}

/* Free one slot: the first on the hand's way that was not used since it came by. */
static void replace_one(struct location_table *table)
{
    assert(is_loaded(table) && table->count > 0); /* so the way to one is short */
    for (int passed = 0;;) {
        table->hand += HAND_STRIDE;
        size_t at = (size_t)(((unsigned __int128)table->hand * table->total) >> 64);
        struct location_slot *slot = &table->slots[at];

        if (is_empty(slot))
            continue;
        if (!slot->used || passed == LIMIT_HAND) {
            remove_at(table, at);
            return;
        }
        slot->used = 0;
        passed++;
    }
}

bool locations_find(struct location_table *table, uint64_t hash, struct ram_location *out)
{
    size_t i = search(table, home_of(table, hash), hash);

    if (!holds(table, i, hash))
        return false;
    struct location_slot *slot = &table->slots[i];

    if (!slot->used)
        slot->used = 1;
    *out = (struct ram_location){
        .place = {.disk = slot->disk, .volume = slot->volume, .offset = slot->offset},
        .record_bytes = slot->record_bytes,
    };
    return true;
}

bool locations_put(struct location_table *table, uint64_t hash, const struct ram_location *location)
{
    if (table->homes == 0 || place_is_none(&location->place) ||
        location->place.disk >= LIMIT_SLOT_DISK ||
        location->record_bytes >= LIMIT_SLOT_RECORD_BYTES)
        return false;
    const struct location_slot slot = {
        .hash = hash,
        .offset = location->place.offset,
        .volume = location->place.volume,
        .record_bytes = location->record_bytes & (LIMIT_SLOT_RECORD_BYTES - 1),
        .disk = location->place.disk & (LIMIT_SLOT_DISK - 1),
    };
    size_t home = home_of(table, hash), i = search(table, home, hash);

    if (holds(table, i, hash)) {
        table->slots[i] = slot;
        return true;
    }
    if (is_loaded(table)) {
        replace_one(table);
        i = search(table, home, hash);
    }
    /* What is pushed on has its home at HOME or behind it, so none goes beyond the limit. */
    size_t gap = i;
    while (gap < table->total && gap - home <= LIMIT_RUN && !is_empty(&table->slots[gap]))
        gap++;
    if (gap >= table->total || gap - home > LIMIT_RUN)
        return false;
    memmove(&table->slots[i + 1], &table->slots[i], (gap - i) * sizeof slot);
    table->slots[i] = slot;
    table->count++;
    return true;
}

void locations_remove(struct location_table *table, uint64_t hash)
{
    size_t i = search(table, home_of(table, hash), hash);

    if (holds(table, i, hash))
        remove_at(table, i);
}
