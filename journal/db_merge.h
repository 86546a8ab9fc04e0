/*
 * What merging with another node reads of the journal's database: ranges of ids, as chunks of what
 * is in them or as sums over it. A range is (after, through]: AFTER itself is not in it; zero: from
 * the start.
 */
#ifndef JOURNAL_DB_MERGE_H
#define JOURNAL_DB_MERGE_H

#include "base/buf.h"
#include "journal/db.h"

/* The last id that there can be. */
extern const struct id128 db_last_id;

/*
 * Append to OUT what lies in (AFTER, THROUGH] from its beginning on, as much as fits: rows of all
 * kinds (without places), and who holds them; each chunk (journal/snapshot.h) with its length
 * before it (4 bytes, little-endian), at most 2 * SNAPSHOT_CHUNK_BYTES in all. *LAST: the last id
 * that it covers; THROUGH where that was all. One short read transaction.
 */
int db_merge_rows(struct db_reader *reader, const struct id128 *after, const struct id128 *through,
                  struct buf *out, struct id128 *last) MUST_CHECK;

/* The same for the members by node id, and where AFTER is zero the feature level; *LAST is
 * db_last_id where that was all. */
int db_merge_members(struct db_reader *reader, const struct id128 *after, struct buf *out,
                     struct id128 *last) MUST_CHECK;

/*
 * Append to OUT events of the kinds that are in no row and in no snapshot (bind, unbind, freeze,
 * unknown ones: fold_is_covered), whole, each with its length before it, as much as fits: as
 * db_merge_rows. AFTER: zero, or what *LAST was; it says nothing but where to go on, and is
 * db_last_id where that was all. There may be none on the way. One short read transaction.
 */
int db_merge_events(struct db_reader *reader, const struct id128 *after, struct buf *out,
                    struct id128 *last) MUST_CHECK;

/* The rows of (the fence before, id]: how many, and the sum of their digests as in struct hash128.
 */
struct db_fence {
    struct id128 id;
    uint64_t count;
    struct hash128 sum;
};

#define DB_FENCE_MANY UINT64_MAX /* a count: more than were worth counting; no sum then */

/* Cut (AFTER, THROUGH] into up to MAX fences of ROWS rows each (the last one may have fewer), as
 * far as a bounded scan goes: *COUNT >= 1 fences, the last of them at THROUGH where that was all.
 * Several short read transactions. */
int db_merge_split(struct db_reader *reader, const struct id128 *after, const struct id128 *through,
                   uint64_t rows, size_t max, struct db_fence *out, size_t *count) MUST_CHECK;

/* Fill in count and sum of the first *DONE >= 1 of COUNT fences, whose ids ascend from AFTER on, as
 * far as a bounded scan goes. Several short read transactions. */
int db_merge_sums(struct db_reader *reader, const struct id128 *after, struct db_fence *fences,
                  size_t count, size_t *done) MUST_CHECK;

#endif
