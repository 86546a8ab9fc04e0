/*
 * The RAM tier in shards: an id's hash picks the shard, each has a lock, two regions of memory with
 * the queues of S3-FIFO, a table to find the entries in them, a ghost table and a table of
 * locations. Sections under the lock are short: no new body is copied inside.
 *
 * A region is a FIFO queue by itself: its hand passes over the entries in their order, again and
 * again (storage/ram_region.h). A body comes in at the small region (a tenth of the shard); when
 * the hand gets there and it was asked for more than once, it is copied to the main region, else it
 * leaves behind only a ghost: a fingerprint that sends it straight to the main region should it
 * come back soon. The main region lets what was asked for stay another round. A hit therefore moves
 * nothing.
 *
 *   absent --fill--> small --asked twice--> main --not asked for a round--> absent
 *     ^  \--fill, a ghost--------------------^
 *     \-------ghost------/
 *
 * Why not malloc: with bodies of mixed sizes coming and going on several threads, it was measured
 * to take three to four times the limit. A region takes what it was given and not a page more.
 *
 * References: the cache holds one on each entry in it, each ram_get another. Giving one back takes
 * no lock; the hand finds what has none left. What is read just now can be neither moved nor
 * evicted, so slow readers leave less room for others, and where none is left a fill is refused.
 *
 * Memory: each shard has its share of the limit. Tables, locations (at most half of it) and what is
 * lent to others take theirs from the end of the main region. Nothing is touched before it is
 * needed.
 *
 * Coherence: see ram.h. A counter is shared by the ids of one 512th of a shard: a foreign
 * invalidation may drop a fill, which costs a miss and nothing else.
 *
 * Failure: short of memory, the cache remembers less.
 */
#include "storage/ram.h"

#include "base/hash.h"
#include "base/limits.h"
#include "storage/ram_locations.h"
#include "storage/ram_region.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SHARD_BYTES  (4 * MIB)
#define LIMIT_SHARDS 256u
#define COUNTERS     512u
#define PAGE_BYTES   4096u

#define FIRST_BUCKETS    256u
#define LIMIT_BUCKETS    (1u << 30)
#define LIMIT_CHAIN      16
#define LIMIT_HEAD_BYTES (64 * KIB)
#define GHOST_WAYS       4u
#define GHOST_MIN        32u

#define MAX_ASKED 3

enum where { IN_SMALL, IN_MAIN };

struct entry {
    struct ram_entry answer; /* first: the caller's pointer is ours */
    uint64_t hash;
    struct entry *chain; /* in its bucket */
    atomic_uint references;
    uint8_t asked; /* times since it came in or was passed by, at most MAX_ASKED */
    bool cached;   /* in the table; else it is being filled, or only read to its end */
};

struct ghost {
    uint32_t fingerprint;
    uint32_t time; /* 0: none */
};

struct shard {
    pthread_mutex_t lock;
    size_t limit_bytes;       /* whole pages */
    size_t taken_bytes;       /* by tables, locations and lent_bytes; whole pages */
    size_t lent_bytes;        /* see ram_lend */
    void *memory;             /* of both regions, small before main; NULL before the first fill */
    struct region regions[2]; /* by enum where */
    struct entry **buckets;
    struct ghost *ghosts; /* as many as buckets */
    size_t bucket_count;  /* 0 or a power of two */
    uint32_t ghost_time;
    struct location_table locations;
    uint64_t entries, hits, misses, evictions;
    _Atomic uint64_t counters[COUNTERS];
} __attribute__((aligned(64)));

struct ram {
    uint64_t limit_bytes;
    unsigned shard_count; /* a power of two */
    struct shard *shards;
    void (*watch)(void *arg, const struct id128 *id);
    void *watch_arg;
};

/* Which bits of the hash do what: the lowest pick the shard, the middle ones bucket and counter,
 * the upper half are the ghost's fingerprint, and all of them order the locations. */
static uint64_t hash_of(const struct id128 *id)
{
    return xxh64(id->bytes, sizeof id->bytes, 0);
}

static struct shard *shard_of(struct ram *ram, uint64_t hash)
{
    return &ram->shards[hash & (ram->shard_count - 1)];
}

static _Atomic uint64_t *counter_of(struct shard *shard, uint64_t hash)
{
    return &shard->counters[(hash >> 16) % COUNTERS];
}

static struct entry **bucket_of(struct shard *shard, uint64_t hash)
{
    return &shard->buckets[(hash >> 8) & (shard->bucket_count - 1)];
}

static void lock(struct shard *shard)
{
    int rc = pthread_mutex_lock(&shard->lock);

    assert(rc == 0);
    (void)rc;
}

static void unlock(struct shard *shard)
{
    int rc = pthread_mutex_unlock(&shard->lock);

    assert(rc == 0);
    (void)rc;
}

int ram_create(struct ram **out, uint64_t limit_bytes)
{
    unsigned shards = 1;

    *out = NULL;
    while (shards < LIMIT_SHARDS && limit_bytes / (2 * shards) >= SHARD_BYTES)
        shards *= 2;
    struct ram *ram = malloc(sizeof *ram);
    if (!ram)
        return ERR_NO_MEMORY;
    *ram = (struct ram){.limit_bytes = limit_bytes, .shard_count = shards};
    if (posix_memalign((void **)&ram->shards, _Alignof(struct shard),
                       shards * sizeof *ram->shards) != 0) {
        free(ram);
        return ERR_NO_MEMORY;
    }
    memset(ram->shards, 0, shards * sizeof *ram->shards);
    for (unsigned i = 0; i < shards; i++) {
        struct shard *shard = &ram->shards[i];

        if (pthread_mutex_init(&shard->lock, NULL) != 0)
            abort(); /* Linux has no reason to refuse */
        shard->limit_bytes = limit_bytes / shards / PAGE_BYTES * PAGE_BYTES;
        locations_init(&shard->locations, shard->limit_bytes / 2);
    }
    *out = ram;
    return 0;
}

/* ---- Ghosts: a set-associative table that forgets by age ---- */

static struct ghost *ghost_set(struct shard *shard, uint32_t fingerprint)
{
    return &shard->ghosts[(fingerprint & (shard->bucket_count / GHOST_WAYS - 1)) * GHOST_WAYS];
}

static void ghost_put(struct shard *shard, uint32_t fingerprint, uint32_t time)
{
    struct ghost *set = ghost_set(shard, fingerprint), *victim = set;

    for (unsigned i = 0; i < GHOST_WAYS; i++) {
        if (set[i].time == 0 || set[i].fingerprint == fingerprint) {
            victim = &set[i];
            break;
        }
        if ((int32_t)(set[i].time - victim->time) < 0)
            victim = &set[i];
    }
    *victim = (struct ghost){.fingerprint = fingerprint, .time = time};
}

static void ghost_add(struct shard *shard, uint64_t hash)
{
    if (++shard->ghost_time == 0)
        shard->ghost_time = 1;
    ghost_put(shard, (uint32_t)(hash >> 32), shard->ghost_time);
}

/* Whether HASH went lately, that is among the last as many as there are entries; forgets it. */
static bool ghost_take(struct shard *shard, uint64_t hash)
{
    uint32_t fingerprint = (uint32_t)(hash >> 32);
    struct ghost *set = ghost_set(shard, fingerprint);

    for (unsigned i = 0; i < GHOST_WAYS; i++) {
        if (set[i].time == 0 || set[i].fingerprint != fingerprint)
            continue;
        uint32_t age = shard->ghost_time - set[i].time;

        set[i].time = 0;
        return age <= (shard->entries > GHOST_MIN ? shard->entries : GHOST_MIN);
    }
    return false;
}

/* ---- Entries ---- */

static struct entry *find(struct shard *shard, uint64_t hash, const struct id128 *id)
{
    if (shard->bucket_count == 0)
        return NULL;
    struct entry *entry = *bucket_of(shard, hash);

    while (entry && (entry->hash != hash || !id_equal(&entry->answer.id, id)))
        entry = entry->chain;
    return entry;
}

/* What points to ENTRY, which need not be readable: it has HASH. */
static struct entry **link_of(struct shard *shard, uint64_t hash, const struct entry *entry)
{
    struct entry **link = bucket_of(shard, hash);

    while (*link != entry) {
        assert(*link);
        link = &(*link)->chain;
    }
    return link;
}

/* Take ENTRY out of the table. The cache's reference is the caller's to give back. */
static void take_out(struct shard *shard, struct entry *entry)
{
    assert(entry->cached && shard->entries > 0);
    *link_of(shard, entry->hash, entry) = entry->chain;
    entry->cached = false;
    shard->entries--;
}

static void unreference(struct entry *entry)
{
    unsigned before = atomic_fetch_sub_explicit(&entry->references, 1, memory_order_release);

    assert(before > 0);
    (void)before;
}

static size_t entry_bytes(const struct entry *entry)
{
    return sizeof *entry + entry->answer.head_bytes + entry->answer.body_bytes;
}

/* Set the pointers of an entry that lies at its place, head and body behind it. */
static void set_pointers(struct entry *entry)
{
    const char *text = (const char *)(entry + 1);

    entry->answer.head = text;
    entry->answer.body = (const uint8_t *)text + entry->answer.head_bytes;
}

/* ---- S3-FIFO: what becomes of an entry that a region's hand has met ---- */

/* True where ENTRY goes or stays whatever the policy says: *FATE tells which. */
static bool is_settled(struct entry *entry, enum block_fate *fate)
{
    /* Acquire: whoever gave back the last reference has read all that he wanted to. */
    unsigned references = atomic_load_explicit(&entry->references, memory_order_acquire);

    *fate = references == 0 ? BLOCK_GOES : BLOCK_STAYS;
    return references != 1 || !entry->cached;
}

static void evict(struct shard *shard, struct entry *entry)
{
    take_out(shard, entry);
    unreference(entry);
    shard->evictions++;
}

static void entry_moved(void *arg, void *block, const void *from)
{
    struct entry *entry = block;

    *link_of(arg, entry->hash, from) = entry;
    set_pointers(entry);
}

static enum block_fate judge_main(void *arg, void *block, bool force)
{
    struct entry *entry = block;
    enum block_fate fate;

    if (is_settled(entry, &fate))
        return fate;
    if (entry->asked > 0 && !force) {
        entry->asked--;
        return BLOCK_LIVES;
    }
    evict(arg, entry);
    return BLOCK_GOES;
}

static struct region_owner owner_of(struct shard *shard, enum where where);

static enum block_fate judge_small(void *arg, void *block, bool force)
{
    struct shard *shard = arg;
    struct entry *entry = block, *copy = NULL;
    enum block_fate fate;

    if (is_settled(entry, &fate))
        return fate;
    /* What the main region never touched is free for all: until then, nothing need go. */
    const struct region *mains = &shard->regions[IN_MAIN];
    bool fresh = mains->end - mains->top >= region_block_bytes(entry_bytes(entry));
    if (fresh || (entry->asked > 1 && !force)) {
        const struct region_owner owner = owner_of(shard, IN_MAIN);

        copy = region_alloc(&shard->regions[IN_MAIN], entry_bytes(entry), &owner);
    }
    if (!copy) {
        ghost_add(shard, entry->hash);
        evict(shard, entry);
        return BLOCK_GOES;
    }
    memcpy(copy, entry, entry_bytes(entry));
    copy->asked = 0;
    entry_moved(shard, copy, entry);
    return BLOCK_GOES;
}

static struct region_owner owner_of(struct shard *shard, enum where where)
{
    return (struct region_owner){
        .judge = where == IN_SMALL ? judge_small : judge_main,
        .moved = entry_moved,
        .arg = shard,
    };
}

/* ---- Memory ---- */

/* Take BYTES (whole pages) for a table from the bodies. False where what is read just now is in the
 * way, or they would be left with nothing. */
static bool take_memory(struct shard *shard, size_t bytes)
{
    struct region *region = &shard->regions[IN_MAIN];
    const struct region_owner owner = owner_of(shard, IN_MAIN);

    assert(bytes % PAGE_BYTES == 0);
    if (!shard->memory) {
        if (bytes > shard->limit_bytes / 2 || shard->taken_bytes > shard->limit_bytes / 2 - bytes)
            return false;
    } else if (bytes >= region->end || !region_shrink(region, region->end - bytes, &owner)) {
        return false;
    }
    shard->taken_bytes += bytes;
    return true;
}

static void give_memory(struct shard *shard, size_t bytes)
{
    assert(shard->taken_bytes >= bytes);
    shard->taken_bytes -= bytes;
    if (shard->memory)
        region_extend(&shard->regions[IN_MAIN], shard->regions[IN_MAIN].end + bytes);
}

/* Reserve the address space for bodies. */
static void begin_regions(struct shard *shard)
{
    size_t small = shard->limit_bytes / 10 / PAGE_BYTES * PAGE_BYTES;

    if (shard->limit_bytes < small + shard->taken_bytes + PAGE_BYTES)
        return;
    void *memory = mmap(NULL, shard->limit_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return;
    shard->memory = memory;
    region_init(&shard->regions[IN_SMALL], memory, small);
    region_init(&shard->regions[IN_MAIN], (uint8_t *)memory + small,
                shard->limit_bytes - small - shard->taken_bytes);
}

static size_t page_bytes(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static size_t table_bytes(size_t buckets)
{
    return page_bytes(buckets * (sizeof(struct entry *) + sizeof(struct ghost)));
}

/* Twice the buckets and ghosts where the entries outnumber them, and room is left. A table that
 * could not grow goes on with longer chains, up to their limit. */
static void grow_tables(struct shard *shard)
{
    size_t old_count = shard->bucket_count, new_count = old_count ? 2 * old_count : FIRST_BUCKETS;

    if (shard->entries < old_count || old_count >= LIMIT_BUCKETS ||
        !take_memory(shard, table_bytes(new_count)))
        return;
    struct entry **old_buckets = shard->buckets;
    struct ghost *old_ghosts = shard->ghosts;
    struct entry **buckets = calloc(new_count, sizeof(struct entry *));
    struct ghost *ghosts = calloc(new_count, sizeof *ghosts);
    if (!buckets || !ghosts) {
        free(buckets);
        free(ghosts);
        give_memory(shard, table_bytes(new_count));
        return;
    }
    shard->buckets = buckets;
    shard->ghosts = ghosts;
    shard->bucket_count = new_count;
    for (size_t i = 0; i < old_count; i++) {
        for (struct entry *entry = old_buckets[i]; entry;) {
            struct entry *next = entry->chain, **bucket = bucket_of(shard, entry->hash);

            entry->chain = *bucket;
            *bucket = entry;
            entry = next;
        }
        if (old_ghosts[i].time)
            ghost_put(shard, old_ghosts[i].fingerprint, old_ghosts[i].time);
    }
    free(old_buckets);
    free(old_ghosts);
    give_memory(shard, table_bytes(old_count));
}

static void check_unread(void *arg, void *block)
{
    const struct entry *entry = block;

    /* A caller would go on reading what is about to vanish. */
    assert(atomic_load_explicit(&entry->references, memory_order_acquire) == entry->cached);
    (void)arg;
    (void)entry;
}

void ram_destroy(struct ram **ram)
{
    if (!*ram)
        return;
    for (unsigned i = 0; i < (*ram)->shard_count; i++) {
        struct shard *shard = &(*ram)->shards[i];

        if (shard->memory) {
            region_visit(&shard->regions[IN_SMALL], check_unread, NULL);
            region_visit(&shard->regions[IN_MAIN], check_unread, NULL);
            (void)munmap(shard->memory, shard->limit_bytes);
        }
        free(shard->buckets);
        free(shard->ghosts);
        locations_release(&shard->locations);
        (void)pthread_mutex_destroy(&shard->lock);
    }
    free((*ram)->shards);
    free(*ram);
    *ram = NULL;
}

/* ---- Bodies ---- */

const struct ram_entry *ram_get(struct ram *ram, const struct id128 *id)
{
    uint64_t hash = hash_of(id);
    struct shard *shard = shard_of(ram, hash);

    lock(shard);
    struct entry *entry = find(shard, hash, id);
    if (entry) {
        atomic_fetch_add_explicit(&entry->references, 1, memory_order_relaxed);
        if (entry->asked < MAX_ASKED)
            entry->asked++;
        shard->hits++;
    } else {
        shard->misses++;
    }
    unlock(shard);
    return entry ? &entry->answer : NULL;
}

void ram_release(struct ram *ram, const struct ram_entry *entry)
{
    struct entry *mine = (struct entry *)(uintptr_t)entry;

    (void)ram; /* the hand finds it where it lies */
    unreference(mine);
}

uint64_t ram_token(struct ram *ram, const struct id128 *id)
{
    uint64_t hash = hash_of(id);

    return atomic_load(counter_of(shard_of(ram, hash), hash));
}

static bool is_current(struct shard *shard, uint64_t hash, uint64_t token)
{
    return atomic_load(counter_of(shard, hash)) == token;
}

/* Whether an entry for ID may come in: what it rests on still holds, it is not there yet, and its
 * chain is not too long (which only ids made for the purpose bring about). */
static bool may_fill(struct shard *shard, uint64_t token, uint64_t hash, const struct id128 *id)
{
    unsigned length = 0;

    if (!is_current(shard, hash, token) || shard->bucket_count == 0)
        return false;
    for (const struct entry *entry = *bucket_of(shard, hash); entry; entry = entry->chain)
        if (id_equal(&entry->answer.id, id) || ++length >= LIMIT_CHAIN)
            return false;
    return true;
}

/* Room for an entry, which is not in the table yet and which nobody but the caller touches; or
 * NULL. */
static struct entry *reserve(struct shard *shard, uint64_t token, uint64_t hash,
                             const struct id128 *id, size_t bytes)
{
    struct entry *entry = NULL;

    lock(shard);
    if (!shard->memory)
        begin_regions(shard);
    if (shard->memory)
        grow_tables(shard);
    if (shard->memory && may_fill(shard, token, hash, id)) {
        enum where where = ghost_take(shard, hash) ? IN_MAIN : IN_SMALL;
        struct region_owner owner = owner_of(shard, where);

        entry = region_alloc(&shard->regions[where], bytes, &owner);
        if (!entry && where == IN_SMALL) { /* it is larger than that, or slow readers fill it */
            owner = owner_of(shard, IN_MAIN);
            entry = region_alloc(&shard->regions[IN_MAIN], bytes, &owner);
        }
    }
    if (entry)
        *entry = (struct entry){.answer = {.id = *id}, .hash = hash, .references = 1};
    unlock(shard);
    return entry;
}

/* LARGE: in place of a body of 0 bytes, or NULL. */
static void fill(struct ram *ram, uint64_t token, const struct id128 *id, const char *head,
                 size_t head_bytes, const void *body, size_t body_bytes,
                 const struct ram_large *large, uint64_t modified_s, uint64_t expires_ms,
                 const char *etag)
{
    uint64_t hash = hash_of(id);
    struct shard *shard = shard_of(ram, hash);

    if (body_bytes > LIMIT_INLINE_BODY_BYTES || head_bytes > LIMIT_HEAD_BYTES)
        return;
    struct entry *entry = reserve(shard, token, hash, id, sizeof *entry + head_bytes + body_bytes);
    if (!entry)
        return;
    entry->answer.head_bytes = (uint32_t)head_bytes;
    entry->answer.body_bytes = (uint32_t)body_bytes;
    if (large)
        entry->answer.large = *large;
    entry->answer.modified_s = modified_s;
    entry->answer.expires_ms = expires_ms;
    size_t etag_bytes = strlen(etag) + 1;
    assert(etag_bytes <= sizeof entry->answer.etag);
    memcpy(entry->answer.etag, etag, etag_bytes);
    set_pointers(entry);
    char *text = (char *)(entry + 1);
    memcpy(text, head, head_bytes);
    if (body_bytes > 0)
        memcpy(text + head_bytes, body, body_bytes);

    lock(shard);
    if (may_fill(shard, token, hash, id)) { /* much may have happened meanwhile */
        struct entry **bucket = bucket_of(shard, hash);

        entry->chain = *bucket;
        *bucket = entry;
        entry->cached = true;
        shard->entries++;
    } else {
        unreference(entry);
    }
    unlock(shard);
}

void ram_fill(struct ram *ram, uint64_t token, const struct id128 *id, const char *head,
              size_t head_bytes, const void *body, size_t body_bytes, uint64_t modified_s,
              uint64_t expires_ms, const char *etag)
{
    fill(ram, token, id, head, head_bytes, body, body_bytes, NULL, modified_s, expires_ms, etag);
}

void ram_fill_large(struct ram *ram, uint64_t token, const struct id128 *id, const char *head,
                    size_t head_bytes, const struct ram_large *large, uint64_t modified_s,
                    uint64_t expires_ms, const char *etag)
{
    assert(large->size > 0);
    fill(ram, token, id, head, head_bytes, NULL, 0, large, modified_s, expires_ms, etag);
}

/* ---- Locations ---- */

int ram_locate(struct ram *ram, const struct id128 *id, struct ram_location *out)
{
    uint64_t hash = hash_of(id);
    struct shard *shard = shard_of(ram, hash);

    lock(shard);
    bool found = locations_find(&shard->locations, hash, out);
    unlock(shard);
    return found ? 0 : ERR_NOT_FOUND;
}

void ram_place(struct ram *ram, uint64_t token, const struct id128 *id,
               const struct ram_location *location)
{
    uint64_t hash = hash_of(id);
    struct shard *shard = shard_of(ram, hash);

    lock(shard);
    if (is_current(shard, hash, token)) {
        size_t growth = locations_growth(&shard->locations);

        /* Where it cannot grow it replaces. */
        if (growth > 0 && take_memory(shard, growth) && locations_grow(&shard->locations) != 0)
            give_memory(shard, growth);
        (void)locations_put(&shard->locations, hash, location);
    }
    unlock(shard);
}

static void forget(struct ram *ram, const struct id128 *id, uint64_t count)
{
    uint64_t hash = hash_of(id);
    struct shard *shard = shard_of(ram, hash);

    lock(shard);
    atomic_fetch_add(counter_of(shard, hash), count);
    struct entry *entry = find(shard, hash, id);
    if (entry) {
        take_out(shard, entry);
        unreference(entry);
    }
    locations_remove(&shard->locations, hash);
    unlock(shard);
}

void ram_invalidate(struct ram *ram, const struct id128 *id)
{
    forget(ram, id, RAM_INVALIDATED);
    if (ram->watch)
        ram->watch(ram->watch_arg, id);
}

void ram_renew(struct ram *ram, const struct id128 *id)
{
    forget(ram, id, 1);
}

void ram_watch(struct ram *ram, void (*watch)(void *arg, const struct id128 *id), void *arg)
{
    ram->watch = watch;
    ram->watch_arg = arg;
}

/* ---- Lending ---- */

static bool lend_from(struct shard *shard, size_t bytes)
{
    bool lent = false;

    lock(shard);
    assert(shard->lent_bytes == 0);
    if (!shard->memory)
        begin_regions(shard);
    if (shard->memory && take_memory(shard, bytes)) {
        shard->lent_bytes = bytes;
        lent = true;
    }
    unlock(shard);
    return lent;
}

static void take_back_to(struct shard *shard)
{
    lock(shard);
    give_memory(shard, shard->lent_bytes);
    shard->lent_bytes = 0;
    unlock(shard);
}

uint64_t ram_lend(struct ram *ram, uint64_t bytes)
{
    size_t each = bytes / ram->shard_count / PAGE_BYTES * PAGE_BYTES;

    for (unsigned i = 0; each > 0 && i < ram->shard_count; i++) {
        if (lend_from(&ram->shards[i], each))
            continue;
        while (i-- > 0)
            take_back_to(&ram->shards[i]);
        return 0;
    }
    return (uint64_t)each * ram->shard_count;
}

void ram_take_back(struct ram *ram, uint64_t bytes)
{
    assert(bytes > 0 && bytes == (uint64_t)ram->shards[0].lent_bytes * ram->shard_count);
    for (unsigned i = 0; i < ram->shard_count; i++)
        take_back_to(&ram->shards[i]);
    (void)bytes;
}

void ram_stats(struct ram *ram, struct ram_stats *out)
{
    *out = (struct ram_stats){.limit_bytes = ram->limit_bytes};
    for (unsigned i = 0; i < ram->shard_count; i++) {
        struct shard *shard = &ram->shards[i];

        lock(shard);
        out->lent_bytes += shard->lent_bytes;
        out->used_bytes += shard->taken_bytes - shard->lent_bytes +
                           page_bytes(shard->regions[IN_SMALL].top) +
                           page_bytes(shard->regions[IN_MAIN].top);
        out->hits += shard->hits;
        out->misses += shard->misses;
        out->entries += shard->entries;
        out->locations += shard->locations.count;
        out->evictions += shard->evictions;
        unlock(shard);
    }
}
