/*
 * The pending table: sharded hash chains, newest entry first. The rows in it are immutable; a
 * look-up copies the row under the shard's lock, since the applier may free the entry right after.
 */
#include "journal/pending.h"

#include "base/hash.h"
#include "base/limits.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SHARDS  16
#define BUCKETS 1024 /* per shard; with LIMIT_PENDING_ENTRIES that is two entries a chain */

struct shard {
    pthread_mutex_t lock;
    struct entry *buckets[BUCKETS];
};

struct pending {
    struct shard shards[SHARDS];
    _Atomic uint64_t visible; /* batches up to here */
    _Atomic uint64_t count, bytes;
};

int pending_create(struct pending **out)
{
    struct pending *pending = calloc(1, sizeof *pending);

    if (!pending)
        return ERR_NO_MEMORY;
    for (int i = 0; i < SHARDS; i++)
        pthread_mutex_init(&pending->shards[i].lock, NULL);
    *out = pending;
    return 0;
}

void pending_destroy(struct pending **pending)
{
    if (!*pending)
        return;
    for (int i = 0; i < SHARDS; i++) {
        struct shard *shard = &(*pending)->shards[i];

        for (int b = 0; b < BUCKETS; b++)
            while (shard->buckets[b]) {
                struct entry *entry = shard->buckets[b];

                shard->buckets[b] = entry->older;
                entry_destroy(entry);
            }
        pthread_mutex_destroy(&shard->lock);
    }
    free(*pending);
    *pending = NULL;
}

struct entry *entry_create(const void *event, size_t event_bytes)
{
    struct entry *entry = malloc(sizeof *entry + event_bytes);

    assert(event_bytes <= LIMIT_EVENT_BYTES);
    if (!entry)
        return NULL;
    memset(entry, 0, sizeof *entry);
    entry->event_bytes = (uint32_t)event_bytes;
    if (event_bytes)
        memcpy(entry->event, event, event_bytes);
    return entry;
}

void entry_destroy(struct entry *entry)
{
    if (!entry)
        return;
    object_destroy(&entry->object);
    object_destroy(&entry->loser);
    free(entry);
}

static uint64_t entry_bytes(const struct entry *entry)
{
    return sizeof *entry + entry->event_bytes + (entry->object ? object_bytes(entry->object) : 0) +
           (entry->loser ? object_bytes(entry->loser) : 0);
}

static struct entry **bucket_of(struct pending *pending, const struct id128 *id,
                                struct shard **shard)
{
    /* Ids that clients made up badly are spread as well as ULIDs. */
    uint64_t hash = xxh64(id->bytes, sizeof id->bytes, 0);

    *shard = &pending->shards[hash % SHARDS];
    return &(*shard)->buckets[hash / SHARDS % BUCKETS];
}

void pending_insert(struct pending *pending, struct entry *entry)
{
    atomic_fetch_add_explicit(&pending->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&pending->bytes, entry_bytes(entry), memory_order_relaxed);
    if (!entry->object)
        return;

    struct shard *shard;
    struct entry **bucket = bucket_of(pending, &entry->object->id, &shard);

    pthread_mutex_lock(&shard->lock);
    entry->older = *bucket;
    *bucket = entry;
    pthread_mutex_unlock(&shard->lock);
}

void pending_publish(struct pending *pending, uint64_t batch)
{
    assert(batch >= atomic_load(&pending->visible));
    atomic_store_explicit(&pending->visible, batch, memory_order_release);
}

void pending_remove(struct pending *pending, struct entry *entry)
{
    atomic_fetch_sub_explicit(&pending->count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&pending->bytes, entry_bytes(entry), memory_order_relaxed);
    if (entry->object) {
        struct shard *shard;
        struct entry **at = bucket_of(pending, &entry->object->id, &shard);

        pthread_mutex_lock(&shard->lock);
        while (*at != entry) {
            assert(*at);
            at = &(*at)->older;
        }
        *at = entry->older;
        pthread_mutex_unlock(&shard->lock);
    }
    entry_destroy(entry);
}

int pending_find(struct pending *pending, const struct id128 *id, bool all, struct object **out)
{
    struct shard *shard;
    struct entry **bucket = bucket_of(pending, id, &shard);
    uint64_t visible =
        all ? UINT64_MAX : atomic_load_explicit(&pending->visible, memory_order_acquire);
    int rc = ERR_NOT_FOUND;

    pthread_mutex_lock(&shard->lock);
    for (struct entry *entry = *bucket; entry; entry = entry->older)
        if (entry->batch <= visible && id_equal(&entry->object->id, id)) {
            *out = object_copy(entry->object);
            rc = *out ? 0 : ERR_NO_MEMORY;
            break;
        }
    pthread_mutex_unlock(&shard->lock);
    return rc;
}

bool pending_find_loser(struct pending *pending, const struct id128 *id,
                        const uint8_t sha256[SHA256_BYTES], struct place *place)
{
    struct shard *shard;
    struct entry **bucket = bucket_of(pending, id, &shard);
    bool found = false;

    pthread_mutex_lock(&shard->lock);
    for (struct entry *entry = *bucket; entry && !found; entry = entry->older) {
        const struct object *loser = entry->loser;

        found =
            loser && id_equal(&loser->id, id) && memcmp(loser->sha256, sha256, SHA256_BYTES) == 0;
        if (found)
            *place = loser->place;
    }
    pthread_mutex_unlock(&shard->lock);
    return found;
}

uint64_t pending_count(const struct pending *pending)
{
    return atomic_load_explicit(&pending->count, memory_order_relaxed);
}

uint64_t pending_bytes(const struct pending *pending)
{
    return atomic_load_explicit(&pending->bytes, memory_order_relaxed);
}
