/*
 * The locations of one shard of the RAM tier: a hash table of 24-byte slots that says where records
 * lie, in memory that grows in place up to a bound; a full table replaces what was not used lately
 * (CLOCK). Keys are 64-bit hashes that are evenly spread. Not thread-safe: the shard's lock guards
 * it.
 */
#ifndef STORAGE_RAM_LOCATIONS_H
#define STORAGE_RAM_LOCATIONS_H

#include "base/err.h"
#include "storage/ram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct location_slot;

struct location_table {
    struct location_slot *slots; /* address space for max_slots; NULL before the first growth */
    size_t max_slots;
    size_t total;  /* slots in use by the table, the tail included */
    size_t homes;  /* slots that a hash can point to */
    size_t count;  /* locations in it */
    uint64_t hand; /* CLOCK's, as a share of the array in 2^64ths */
};

/* An empty table that takes no memory yet, and never more than MAX_BYTES. */
void locations_init(struct location_table *table, size_t max_bytes);
void locations_release(struct location_table *table);

/* Bytes of memory it takes: whole pages. */
size_t locations_bytes(const struct location_table *table);
/* Bytes that it should grow by before the next put; 0 where there is room, or no more to have. */
size_t locations_growth(const struct location_table *table);
/* Grow by what locations_growth said. On failure (ERR_NO_MEMORY) the table stays as it is. */
int locations_grow(struct location_table *table) MUST_CHECK;

/* Whether HASH is there; where to is copied to OUT (with lsn 0). Marks it as used. */
bool locations_find(struct location_table *table, uint64_t hash, struct ram_location *out);
/* Remember LOCATION, in place of another where it must. False where it has no room, or LOCATION
 * does not fit into a slot. */
bool locations_put(struct location_table *table, uint64_t hash,
                   const struct ram_location *location);
void locations_remove(struct location_table *table, uint64_t hash);

#endif
