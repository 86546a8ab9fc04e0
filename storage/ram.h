/*
 * The RAM tier: hot bodies with their rendered answer headers, and below them locations, so that a
 * hot GET asks neither SQLite nor the disk, and a lukewarm one only the page cache. Bounded by the
 * operator's --memory, pinned bytes included; a part of that is lent to the hot blocks of large
 * bodies (storage/hot_blocks.h) while there are any. Bodies are admitted and evicted by S3-FIFO
 * (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): scans do not flush
 * it, and a hit writes nothing but a two-bit counter.
 *
 * Coherence: a writer calls ram_invalidate after its change is visible to look-ups and before it is
 * acknowledged. A filler takes a token *before* its look-up; its fill is dropped where an
 * invalidation of that id came between. Safe from any thread (sharded locks); nothing blocks on
 * I/O.
 */
#ifndef STORAGE_RAM_H
#define STORAGE_RAM_H

#include "base/err.h"
#include "base/id.h"
#include "storage/place.h"

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

struct ram;

/* A large body's file: what storage/hot_blocks.h knows it by. */
struct ram_large {
    uint64_t number, size;
};

/* An immutable cached answer: header lines and body, one allocation. */
struct ram_entry {
    struct id128 id;
    const char *head; /* rendered header lines of a GET's answer */
    uint32_t head_bytes;
    uint32_t body_bytes;
    const uint8_t *body;
    struct ram_large large; /* size > 0: the body is a large one and not in here */
    uint64_t modified_s;    /* Last-Modified */
    uint64_t expires_ms;    /* 0: never */
    char etag[68];          /* with quotes and terminator */
};

/* Where an object's record lies, for objects whose row says just what their put event says. */
struct ram_location {
    struct place place;    /* disk, volume, offset; lsn is not kept */
    uint32_t record_bytes; /* 0 for large files */
};

/* A token counts: ones are of ram_renew, these of ram_invalidate. */
#define RAM_INVALIDATED (UINT64_C(1) << 32)

int ram_create(struct ram **out, uint64_t limit_bytes) MUST_CHECK;
void ram_destroy(struct ram **ram);

/* The entry for ID with a reference, or NULL. Counts a hit or a miss. */
const struct ram_entry *ram_get(struct ram *ram, const struct id128 *id);
void ram_release(struct ram *ram, const struct ram_entry *entry);

/* Where ID lies as far as is known: ERR_NOT_FOUND. A false location is possible (another id with
 * the same hash): the reader compares the record's id. */
int ram_locate(struct ram *ram, const struct id128 *id, struct ram_location *out) MUST_CHECK;

/* To be taken before the look-up that a fill rests on. */
uint64_t ram_token(struct ram *ram, const struct id128 *id);
/* Of two tokens of one id: there was no ram_invalidate between them, though there may have been a
 * ram_renew. */
static inline bool ram_same_body(uint64_t token, uint64_t other)
{
    return token / RAM_INVALIDATED == other / RAM_INVALIDATED;
}

/* Remember; both do nothing where TOKEN is outdated, memory is short or the policy says no. */
void ram_fill(struct ram *ram, uint64_t token, const struct id128 *id, const char *head,
              size_t head_bytes, const void *body, size_t body_bytes, uint64_t modified_s,
              uint64_t expires_ms, const char *etag);
void ram_fill_large(struct ram *ram, uint64_t token, const struct id128 *id, const char *head,
                    size_t head_bytes, const struct ram_large *large, uint64_t modified_s,
                    uint64_t expires_ms, const char *etag);
void ram_place(struct ram *ram, uint64_t token, const struct id128 *id,
               const struct ram_location *location);

/* Have WATCH called after each ram_invalidate's work, on its thread: for what else remembers an id.
 * Before any other thread knows RAM. */
void ram_watch(struct ram *ram, void (*watch)(void *arg, const struct id128 *id), void *arg);

/* Forget everything about ID, and void all tokens taken for it before. */
void ram_invalidate(struct ram *ram, const struct id128 *id);
/* The same, where copies elsewhere of the bytes that ID had are as good as before: WATCH is not
 * called. */
void ram_renew(struct ram *ram, const struct id128 *id);

/* Lend up to BYTES of the limit, taken evenly from the room for bodies, some of which go. Returns
 * how much it is: all but what does not divide into pages, or 0 where slow readers or tables are in
 * the way. Walks over all bodies, so not for a loop. Given back in one piece, or not at all. */
uint64_t ram_lend(struct ram *ram, uint64_t bytes);
void ram_take_back(struct ram *ram, uint64_t bytes);

struct ram_stats {
    uint64_t limit_bytes, used_bytes; /* used: without what is lent */
    uint64_t lent_bytes, hits, misses, entries, locations, evictions;
};
void ram_stats(struct ram *ram, struct ram_stats *out);

#endif
