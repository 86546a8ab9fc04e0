/*
 * The RAM tier in shards: an id's hash picks the shard, each has a lock, a table of bodies with the
 * two queues of S3-FIFO, a ghost table and a table of locations. Sections under the lock are short:
 * no body is copied and no memory of one freed inside.
 *
 * A body comes in at the small queue (a tenth of the shard), is moved to the main queue when it was
 * asked for more than once by the time it reaches the end, and else leaves behind only a ghost: a
 * fingerprint that sends it straight to the main queue should it come back soon. The main queue
 * gives what was asked for another round. A hit therefore moves nothing.
 *
 *   absent --fill--> small --asked twice--> main --not asked for a round--> absent
 *     ^  \--fill, a ghost--------------------^
 *     \-------ghost------/
 *
 * References: the cache holds one on each entry in it, each ram_get another; whoever gives the last
 * one back frees the entry, without a lock. Its bytes count until then, whether it is still in the
 * cache or not, so memory pinned by slow readers leaves less room for others, and where none is
 * left a fill is refused.
 *
 * Memory: each shard has its share of the limit, at most half of it for locations. `used` counts
 * entries with what malloc adds, tables and locations. Nothing is allocated before it is needed.
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

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SHARD_BYTES  (4 * MIB)
#define LIMIT_SHARDS 256u
#define COUNTERS     512u

#define FIRST_BUCKETS    64u
#define LIMIT_BUCKETS    (1u << 30)
#define LIMIT_CHAIN      16
#define LIMIT_HEAD_BYTES (64 * KIB)
#define GHOST_WAYS       4u
#define GHOST_MIN        32u
/* Entries that one fill may pass on or evict, beyond one for each KiB it needs. */
#define LIMIT_STEPS 256u

#define MAX_ASKED 3

enum where { IN_SMALL, IN_MAIN };

struct entry {
    struct ram_entry answer; /* first: the caller's pointer is ours */
    uint64_t hash;
    struct entry *chain;         /* in its bucket */
    struct entry *older, *newer; /* in its queue; older also links a list of evicted entries */
    size_t charge_bytes;
    atomic_uint references;
    uint8_t asked; /* times since it came into its queue, at most MAX_ASKED */
    uint8_t where;
};

struct fifo {
    struct entry *newest, *oldest;
    size_t bytes, count;
};

struct ghost {
    uint32_t fingerprint;
    uint32_t time; /* 0: none */
};

struct shard {
    pthread_mutex_t lock;
    atomic_size_t used_bytes; /* grows under the lock, falls anywhere */
    size_t limit_bytes;
    struct entry **buckets;
    struct ghost *ghosts; /* as many as buckets */
    size_t bucket_count;  /* 0 or a power of two */
    uint32_t ghost_time;
    struct fifo queues[2]; /* by enum where */
    struct location_table locations;
    uint64_t hits, misses, evictions;
    _Atomic uint64_t counters[COUNTERS];
} __attribute__((aligned(64)));

struct ram {
    uint64_t limit_bytes;
    unsigned shard_count; /* a power of two */
    struct shard *shards;
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
        shard->limit_bytes = limit_bytes / shards;
        locations_init(&shard->locations, shard->limit_bytes / 2);
    }
    *out = ram;
    return 0;
}

/* ---- Entries ---- */

/* What an allocation of BYTES takes at most: malloc's header and rounding, or whole pages. */
static size_t charge_of(size_t bytes)
{
    size_t unit = bytes >= 128 * KIB ? 4096 : 16;

    return (bytes + 2 * sizeof(size_t) + unit - 1) / unit * unit + 16;
}

static size_t charge_of_tables(size_t buckets)
{
    return buckets ? charge_of(buckets * sizeof(struct entry *)) +
                         charge_of(buckets * sizeof(struct ghost))
                   : 0;
}

static void uncharge(struct shard *shard, size_t bytes)
{
    size_t before = atomic_fetch_sub_explicit(&shard->used_bytes, bytes, memory_order_relaxed);

    assert(before >= bytes);
    (void)before;
}

static void charge(struct shard *shard, size_t bytes)
{
    atomic_fetch_add_explicit(&shard->used_bytes, bytes, memory_order_relaxed);
}

static bool fits(const struct shard *shard, size_t bytes)
{
    size_t used = atomic_load_explicit(&shard->used_bytes, memory_order_relaxed);

    return used <= shard->limit_bytes && bytes <= shard->limit_bytes - used;
}

static void unreference(struct shard *shard, struct entry *entry)
{
    unsigned before = atomic_fetch_sub_explicit(&entry->references, 1, memory_order_acq_rel);

    assert(before > 0);
    if (before > 1)
        return;
    uncharge(shard, entry->charge_bytes);
    free(entry);
}

/* Free entries that make_room took out. Not under the lock. */
static void free_all(struct entry *list)
{
    while (list) {
        struct entry *next = list->older;

        free(list);
        list = next;
    }
}

static struct entry *find(struct shard *shard, uint64_t hash, const struct id128 *id)
{
    if (shard->bucket_count == 0)
        return NULL;
    struct entry *entry = *bucket_of(shard, hash);

    while (entry && (entry->hash != hash || !id_equal(&entry->answer.id, id)))
        entry = entry->chain;
    return entry;
}

static void unchain(struct shard *shard, struct entry *entry)
{
    struct entry **link = bucket_of(shard, entry->hash);

    while (*link != entry) {
        assert(*link);
        link = &(*link)->chain;
    }
    *link = entry->chain;
}

static void queue_add(struct shard *shard, struct entry *entry, enum where where)
{
    struct fifo *fifo = &shard->queues[where];

    entry->where = (uint8_t)where;
    entry->newer = NULL;
    entry->older = fifo->newest;
    if (fifo->newest)
        fifo->newest->newer = entry;
    else
        fifo->oldest = entry;
    fifo->newest = entry;
    fifo->bytes += entry->charge_bytes;
    fifo->count++;
}

static void queue_remove(struct shard *shard, struct entry *entry)
{
    struct fifo *fifo = &shard->queues[entry->where];

    assert(fifo->count > 0 && fifo->bytes >= entry->charge_bytes);
    if (entry->newer)
        entry->newer->older = entry->older;
    else
        fifo->newest = entry->older;
    if (entry->older)
        entry->older->newer = entry->newer;
    else
        fifo->oldest = entry->newer;
    fifo->bytes -= entry->charge_bytes;
    fifo->count--;
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
    size_t window = shard->queues[IN_SMALL].count + shard->queues[IN_MAIN].count;

    for (unsigned i = 0; i < GHOST_WAYS; i++) {
        if (set[i].time == 0 || set[i].fingerprint != fingerprint)
            continue;
        uint32_t age = shard->ghost_time - set[i].time;

        set[i].time = 0;
        return age <= (window > GHOST_MIN ? window : GHOST_MIN);
    }
    return false;
}

/* ---- Eviction ---- */

static void take_out(struct shard *shard, struct entry *entry)
{
    queue_remove(shard, entry);
    unchain(shard, entry);
}

/* One step of S3-FIFO: move the oldest entry of a queue on, or evict it onto LIST. FORCE: evict it
 * whether or not it was asked for. What somebody is reading stays: it would free nothing. */
static void evict_step(struct shard *shard, bool force, struct entry **list)
{
    const struct fifo *small = &shard->queues[IN_SMALL], *mains = &shard->queues[IN_MAIN];
    bool from_small = small->count > 0 && small->bytes >= mains->bytes / 9; /* a tenth of both */
    struct entry *entry = from_small ? small->oldest : mains->oldest;

    assert(entry); /* the caller has seen that one queue is not empty */
    bool read_now = atomic_load_explicit(&entry->references, memory_order_acquire) > 1;
    bool asked = from_small ? entry->asked > 1 : entry->asked > 0;

    if (read_now || (asked && !force)) {
        queue_remove(shard, entry);
        if (from_small)
            entry->asked = 0;
        else if (entry->asked > 0)
            entry->asked--;
        queue_add(shard, entry, IN_MAIN);
        return;
    }
    if (from_small)
        ghost_add(shard, entry->hash);
    take_out(shard, entry);
    /* The cache's reference was the only one, so nobody can reach it any more. Its bytes are given
     * back here and freed after the unlock, before anything is allocated in their place. */
    uncharge(shard, entry->charge_bytes);
    entry->older = *list;
    *list = entry;
    shard->evictions++;
}

/* Evict onto LIST until BYTES more fit. False where what is pinned leaves no room. */
static bool make_room(struct shard *shard, size_t bytes, struct entry **list)
{
    size_t steps = LIMIT_STEPS + bytes / KIB;

    if (bytes > shard->limit_bytes)
        return false;
    for (size_t step = 0; step < 2 * steps && !fits(shard, bytes); step++) {
        if (shard->queues[IN_SMALL].count + shard->queues[IN_MAIN].count == 0)
            return false;
        evict_step(shard, step >= steps, list);
    }
    return fits(shard, bytes);
}

void ram_destroy(struct ram **ram)
{
    if (!*ram)
        return;
    for (unsigned i = 0; i < (*ram)->shard_count; i++) {
        struct shard *shard = &(*ram)->shards[i];

        for (int where = IN_SMALL; where <= IN_MAIN; where++) {
            for (struct entry *entry = shard->queues[where].oldest; entry;) {
                struct entry *next = entry->newer;

                unreference(shard, entry);
                entry = next;
            }
        }
        free(shard->buckets);
        free(shard->ghosts);
        uncharge(shard, charge_of_tables(shard->bucket_count) + locations_bytes(&shard->locations));
        locations_release(&shard->locations);
        /* What is left is pinned by a caller who would release it into freed memory. */
        assert(atomic_load(&shard->used_bytes) == 0);
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

    unreference(shard_of(ram, mine->hash), mine);
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

/* Twice the buckets and ghosts where the entries outnumber them, and room is left. A table that
 * could not grow goes on with longer chains, up to their limit. */
static void grow_tables(struct shard *shard)
{
    size_t count = shard->queues[IN_SMALL].count + shard->queues[IN_MAIN].count;
    size_t old_count = shard->bucket_count, new_count = old_count ? 2 * old_count : FIRST_BUCKETS;

    if (count < old_count || old_count >= LIMIT_BUCKETS ||
        !fits(shard, charge_of_tables(new_count)))
        return;
    struct entry **old_buckets = shard->buckets;
    struct ghost *old_ghosts = shard->ghosts;
    struct entry **buckets = calloc(new_count, sizeof(struct entry *));
    struct ghost *ghosts = calloc(new_count, sizeof *ghosts);
    if (!buckets || !ghosts) {
        free(buckets);
        free(ghosts);
        return;
    }
    charge(shard, charge_of_tables(new_count));
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
    uncharge(shard, charge_of_tables(old_count));
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

/* Set BYTES aside for an entry, evicting others where it must. */
static bool reserve(struct shard *shard, uint64_t token, uint64_t hash, const struct id128 *id,
                    size_t bytes)
{
    struct entry *evicted = NULL;

    lock(shard);
    grow_tables(shard);
    bool ok = may_fill(shard, token, hash, id) && make_room(shard, bytes, &evicted);
    if (ok)
        charge(shard, bytes);
    unlock(shard);
    free_all(evicted);
    return ok;
}

void ram_fill(struct ram *ram, uint64_t token, const struct id128 *id, const char *head,
              size_t head_bytes, const void *body, size_t body_bytes, uint64_t modified_s,
              uint64_t expires_ms, const char *etag)
{
    uint64_t hash = hash_of(id);
    struct shard *shard = shard_of(ram, hash);

    if (body_bytes > LIMIT_INLINE_BODY_BYTES || head_bytes > LIMIT_HEAD_BYTES)
        return;
    size_t bytes = sizeof(struct entry) + head_bytes + body_bytes, charged = charge_of(bytes);
    if (!reserve(shard, token, hash, id, charged))
        return;
    struct entry *entry = malloc(bytes);
    if (!entry) {
        uncharge(shard, charged);
        return;
    }
    char *text = (char *)(entry + 1);
    *entry = (struct entry){
        .answer = {.id = *id,
                   .head = text,
                   .head_bytes = (uint32_t)head_bytes,
                   .body_bytes = (uint32_t)body_bytes,
                   .body = (const uint8_t *)text + head_bytes,
                   .modified_s = modified_s,
                   .expires_ms = expires_ms},
        .hash = hash,
        .charge_bytes = charged,
        .references = 1,
    };
    assert(strlen(etag) < sizeof entry->answer.etag);
    strcpy(entry->answer.etag, etag);
    memcpy(text, head, head_bytes);
    if (body_bytes > 0)
        memcpy(text + head_bytes, body, body_bytes);

    lock(shard);
    bool ok = may_fill(shard, token, hash, id); /* much may have happened meanwhile */
    if (ok) {
        struct entry **bucket = bucket_of(shard, hash);

        entry->chain = *bucket;
        *bucket = entry;
        queue_add(shard, entry, ghost_take(shard, hash) ? IN_MAIN : IN_SMALL);
    }
    unlock(shard);
    if (!ok)
        unreference(shard, entry);
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
    struct entry *evicted = NULL;

    lock(shard);
    if (is_current(shard, hash, token)) {
        size_t growth = locations_growth(&shard->locations);

        /* Where it cannot grow it replaces. Growing touches the memory at once, so what made room
         * for it goes first: some twenty times in a shard's life, so the lock may wait for it. */
        if (growth > 0 && make_room(shard, growth, &evicted)) {
            free_all(evicted);
            evicted = NULL;
            if (locations_grow(&shard->locations) == 0)
                charge(shard, growth);
        }
        (void)locations_put(&shard->locations, hash, location);
    }
    unlock(shard);
    free_all(evicted);
}

void ram_invalidate(struct ram *ram, const struct id128 *id)
{
    uint64_t hash = hash_of(id);
    struct shard *shard = shard_of(ram, hash);

    lock(shard);
    atomic_fetch_add(counter_of(shard, hash), 1);
    struct entry *entry = find(shard, hash, id);
    if (entry)
        take_out(shard, entry);
    locations_remove(&shard->locations, hash);
    unlock(shard);
    if (entry)
        unreference(shard, entry);
}

void ram_stats(struct ram *ram, struct ram_stats *out)
{
    *out = (struct ram_stats){.limit_bytes = ram->limit_bytes};
    for (unsigned i = 0; i < ram->shard_count; i++) {
        struct shard *shard = &ram->shards[i];

        lock(shard);
        out->used_bytes += atomic_load_explicit(&shard->used_bytes, memory_order_relaxed);
        out->hits += shard->hits;
        out->misses += shard->misses;
        out->entries += shard->queues[IN_SMALL].count + shard->queues[IN_MAIN].count;
        out->locations += shard->locations.count;
        out->evictions += shard->evictions;
        unlock(shard);
    }
}
