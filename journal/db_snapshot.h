/*
 * What snapshots and compaction ask of the journal's database, beyond db.h: reading all of it in
 * short steps, remembering the newest complete snapshot, and removing events that it covers.
 */
#ifndef JOURNAL_DB_SNAPSHOT_H
#define JOURNAL_DB_SNAPSHOT_H

#include "journal/db.h"

/* ---- Readers ---- */

/* State and origins of one moment. The caller frees *ORIGINS. */
int db_reader_moment(struct db_reader *reader, struct db_state *state, struct db_origin **origins,
                     size_t *count) MUST_CHECK;

/* Where a walk over all rows stands; all zero: at the start. */
struct db_cursor {
    bool begun, in_more, done;
    int64_t key;
    struct id128 id;
};

/* Rows of all kinds (tombstones and partial ones, too) from CURSOR on, until EACH returns non-zero:
 * that row is not taken and comes again in the next call, and the result is returned; but 1 becomes
 * 0. One read transaction; at most MAX rows. cursor->done: that was all. */
int db_each_row(struct db_reader *reader, struct db_cursor *cursor, unsigned max,
                int (*each)(void *arg, const struct object *object), void *arg) MUST_CHECK;

/* Rows of the outbox of KIND, by id above *AFTER, up to MAX of them; otherwise as db_each_row:
 * *AFTER moves with what was taken, *COUNT counts it. */
int db_each_owed(struct db_reader *reader, enum outbox_kind kind, struct id128 *after, unsigned max,
                 int (*each)(void *arg, const struct db_owed *owed), void *arg,
                 unsigned *count) MUST_CHECK;

/* ---- The applier ---- */

/* A complete snapshot that the database knows of. */
struct db_snapshot {
    struct id128 id;
    lsn_t position; /* it covers every record below */
    uint64_t chunks;
};

#define DB_SNAPSHOTS 2 /* that are remembered */

/* The newest ones, the newest first. */
int db_snapshots(struct db *db, struct db_snapshot out[DB_SNAPSHOTS], size_t *count) MUST_CHECK;
/* SNAPSHOT is complete (a second time it changes nothing): forget all but the newest two, and the
 * cuts of all others. */
int db_snapshot_set(struct db *db, const struct db_snapshot *snapshot) MUST_CHECK;
/* Forget all of them: the log that they are in is not the one that it was. */
int db_snapshots_forget(struct db *db) MUST_CHECK;

/* A snapshot covers the events of ORIGIN up to SEQ, whose hash is HASH. */
struct db_cut {
    struct id128 origin;
    uint64_t seq;
    uint8_t hash[SHA256_BYTES];
};

/* Remember a cut of SNAPSHOT; a second time it changes nothing. */
int db_cut_add(struct db *db, const struct id128 *snapshot, const struct db_cut *cut) MUST_CHECK;
/* The caller frees *OUT. */
int db_cuts(struct db *db, const struct id128 *snapshot, struct db_cut **out,
            size_t *count) MUST_CHECK;

/* The same for a reader. */
int db_reader_cuts(struct db_reader *reader, const struct id128 *snapshot, struct db_cut **out,
                   size_t *count) MUST_CHECK;

/* Since when what KIND of row says is owed of ID, where it is. */
int db_owed_since(struct db *db, enum outbox_kind kind, const struct id128 *id,
                  uint64_t since_ms) MUST_CHECK;

struct db_trim {
    uint64_t last_seq; /* of the last event looked at; 0: there was none */
    uint8_t last_hash[SHA256_BYTES];
    uint64_t removed, removed_bytes;
};

/* Remove the first MAX events of origin number ORIGIN_NO from seq FROM to THROUGH, but those that
 * KEEP wants. Inside a transaction. */
int db_events_trim(struct db *db, int64_t origin_no, uint64_t from, uint64_t through, unsigned max,
                   bool (*keep)(const uint8_t *raw, size_t len), struct db_trim *out) MUST_CHECK;

#endif
