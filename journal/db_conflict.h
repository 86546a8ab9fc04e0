/*
 * The third kind of outbox: bytes that lost against others under their id, and that this node owes
 * an id of their own (journal/conflict.h). A table of its own, since such a row has to say all that
 * a row of objects does: where the bytes lie, and what the object was called. While it stands its
 * bytes are live.
 *
 * One row for each (id, sha256): the row of ID as it was when it lost.
 */
#ifndef JOURNAL_DB_CONFLICT_H
#define JOURNAL_DB_CONFLICT_H

#include "journal/db.h"

struct db_conflict {
    struct id128 target;  /* the id that the bytes are to get */
    struct object *loser; /* bears the id under which they lost */
};

/* ---- The applier ---- */

/* Set or replace the row of (LOSER's id, its sha256). Inside a transaction, as the next. */
int db_conflict_set(struct db *db, const struct id128 *target,
                    const struct object *loser) MUST_CHECK;
int db_conflict_remove(struct db *db, const struct object *loser) MUST_CHECK;
/* All of them as one: how many, and the bytes of their bodies. */
int db_conflict_sums(struct db *db, uint64_t *count, uint64_t *bytes) MUST_CHECK;
/* The first row of ID, the row that is to become TARGET, the row of (ID, SHA256): ERR_NOT_FOUND, or
 * 0 with a fresh OUT->loser. Each sees the open transaction. */
int db_conflict_of(struct db *db, const struct id128 *id, struct db_conflict *out) MUST_CHECK;
int db_conflict_for(struct db *db, const struct id128 *target, struct db_conflict *out) MUST_CHECK;
int db_conflict_get(struct db *db, const struct id128 *id, const uint8_t sha256[SHA256_BYTES],
                    struct db_conflict *out) MUST_CHECK;

/* ---- Readers ---- */

/* As db_conflict_get. */
int db_reader_conflict(struct db_reader *reader, const struct id128 *id,
                       const uint8_t sha256[SHA256_BYTES], struct db_conflict *out) MUST_CHECK;

/* Where a walk over all of them stands; all zero: at the start. */
struct db_conflict_cursor {
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
};

/* Rows above CURSOR in order of (id, sha256), up to MAX, handed to EACH until it returns non-zero:
 * that row is not taken, and the result is returned, but 1 becomes 0. CURSOR moves with what was
 * taken, *COUNT counts it. */
int db_each_conflict(struct db_reader *reader, struct db_conflict_cursor *cursor, unsigned max,
                     int (*each)(void *arg, const struct db_conflict *conflict), void *arg,
                     unsigned *count) MUST_CHECK;

#endif
