/*
 * The SQLite journal: events (append-only, enforced by triggers) and the views kept in the same
 * transactions. WAL, synchronous=NORMAL: after a crash it is some earlier state of itself, and the
 * log from its position on brings it up to date.
 *
 * Tables (db_schema.c has them in full, and says why the keys are what they are; no index before
 * something queries it):
 *   state        one row: struct db_state
 *   origins      no, origin (unique), node, seq, hash, anchor_seq, anchor_hash, ended
 *   events       key (origin's no << 40 | seq), raw
 *   objects      key (the id's top bits), id, …;  objects_more: the few whose key is taken
 *   outbox       kind, id, since_ms, size          garbage   freed_at, file
 *   segments     volume, disk, base, end_bytes, sealed, body_bytes, live_bytes, live_record_bytes
 *   snapshots    id, position, chunks            cuts      snapshot, origin, seq, hash
 *   frozen       origin, node, seq, hash         restate   origin, next, broke
 *
 * Threads: struct db (the one writing connection) belongs to the applier; a db_reader to whoever
 * opened it (query_only). Everything here may block on the disk.
 */
#ifndef JOURNAL_DB_H
#define JOURNAL_DB_H

#include "base/env.h"
#include "journal/object.h"
#include "storage/log.h"

struct db;
struct db_reader;

struct db_state {
    struct id128 node, store;
    lsn_t position;            /* everything below is applied */
    uint64_t clean_generation; /* of the run (store_dir) that ended in order, with nothing left to
                                  apply; 0: none. The next run is a clean start only if it is the
                                  very next generation. */
    hlc_time hlc;
    uint64_t events, objects, deleted, bytes; /* objects: live ones; bytes: of their bodies */
    uint64_t outbox, outbox_bytes;            /* uploads that are owed */
    uint64_t wanted, wanted_bytes;            /* replicas that this node lacks */
    uint64_t marks, purges; /* of deleted objects: in the cloud, to be marked so; to be removed */
    struct hash128 digest;
    struct id128 last_origin; /* our last run's, zero where we never wrote */
    uint64_t event_bytes;     /* of the events that the table holds */
};

struct db_origin {
    int64_t no; /* row number; given by db_origin_set */
    struct id128 origin, node;
    uint64_t seq;               /* last event held */
    uint8_t hash[SHA256_BYTES]; /* of that event */
    uint64_t anchor_seq;        /* verification starts above this one */
    uint8_t anchor_hash[SHA256_BYTES];
    bool ended;
    bool frozen;  /* there is a row of it in `frozen` (db_freeze.h); not written by db_origin_set */
    bool changed; /* the applier's own: not said to the listener yet */
    bool unsaved; /* … the row is behind: applier_commit writes it, once a transaction */
    bool gap;     /* … events above `seq` were met, but not the next one (mend.c) */
    uint64_t trimmed; /* … compaction has looked at all events up to here since the start */
};

struct db_segment {
    struct log_segment log;
    uint64_t body_bytes;        /* of all inline bodies in it */
    uint64_t live_bytes;        /* of those that a row points to */
    uint64_t live_record_bytes; /* of the whole records that these are in */
};

/* Open, or create with a first state of NODE and STORE (both ignored where it exists). ERR_FORMAT:
 * not our application_id, or a newer user_version; ERR_CORRUPT: not a database, or a damaged one.
 * PATH's directory exists. VFS: from vfs_register. */
int db_open(struct db **out, const char *vfs, const char *path, const struct id128 *node,
            const struct id128 *store) MUST_CHECK;
/* Checkpoints everything where it can, and closes. */
void db_close(struct db **db);

int db_state_get(struct db *db, struct db_state *out) MUST_CHECK;
/* The caller frees *OUT. */
int db_origins(struct db *db, struct db_origin **out, size_t *count) MUST_CHECK;
int db_segments(struct db *db, struct db_segment **out, size_t *count) MUST_CHECK;

/* ---- The applier: all between db_begin and db_commit is one transaction. Any error: db_rollback,
 * the database is as before db_begin. ---- */
int db_begin(struct db *db) MUST_CHECK;
int db_commit(struct db *db) MUST_CHECK;
void db_rollback(struct db *db);
/* What db_rollback could not roll back for want of memory is so now, or an error: until then the
 * connection reads what was never committed. */
int db_settle(struct db *db) MUST_CHECK;
int db_state_set(struct db *db, const struct db_state *state) MUST_CHECK;
/* Insert (no = 0: *NO is set) or update the row of an origin. */
int db_origin_set(struct db *db, struct db_origin *origin) MUST_CHECK;
/* ERR_EXISTS where (origin, seq) is there already: nothing is changed then. */
int db_event_add(struct db *db, int64_t origin_no, uint64_t seq, const void *raw,
                 size_t len) MUST_CHECK;
/* Whether event (origin, seq) is in the table. */
int db_event_there(struct db *db, int64_t origin_no, uint64_t seq, bool *there) MUST_CHECK;
int db_object_set(struct db *db, const struct object *object) MUST_CHECK;
/* What this node owes, or lacks: kinds of rows in the table outbox. */
enum outbox_kind {
    OUTBOX_UPLOAD = 1,  /* object_owed_here */
    OUTBOX_REPLICA = 2, /* object_wanted_here */
    OUTBOX_MARK = 10,   /* object_owes_mark: on every node, as … */
    OUTBOX_PURGE = 11,  /* object_owes_purge */
    OUTBOX_BEGUN = 12,  /* this node journaled that it begins to upload the object, and since then
                           neither that it has done so nor that it was removed: bytes of it may lie
                           in the cloud. So too on every node that hears of uploads of different
                           bytes under one id. Not a function of the row. */
};
int db_outbox_set(struct db *db, enum outbox_kind kind, const struct id128 *id, uint64_t size,
                  uint64_t since_ms, bool owed) MUST_CHECK;
int db_segment_set(struct db *db, const struct db_segment *segment) MUST_CHECK;
int db_segment_remove(struct db *db, uint32_t volume) MUST_CHECK;
/* Large file FILE is wanted by no row since the record at FREED_AT: it may be unlinked once the
 * durable position is above that. Table garbage(freed_at, file). Adding it again is fine. */
int db_garbage_add(struct db *db, uint64_t file, lsn_t freed_at) MUST_CHECK;
/* Forget all with freed_at <= THROUGH: they are unlinked. */
int db_garbage_remove(struct db *db, lsn_t through) MUST_CHECK;
/* Look-up on the writing connection: sees the open transaction. As db_find. */
int db_find_writing(struct db *db, const struct id128 *id, struct object **out) MUST_CHECK;

/* … of whether it is a deleted object's id. */
int db_is_deleted(struct db *db, const struct id128 *id, bool *out) MUST_CHECK;

/* Copy the WAL into the database and sync it. *COMPLETE: every committed transaction is now in the
 * synced database file. Not inside a transaction. */
int db_checkpoint(struct db *db, bool *complete) MUST_CHECK;
/* Pages in the WAL since the last checkpoint: when to checkpoint. */
unsigned db_wal_pages(const struct db *db);

/* ---- Readers ---- */
int db_reader_open(struct db_reader **out, const char *vfs, const char *path) MUST_CHECK;
void db_reader_close(struct db_reader **reader);
/* The row of ID in a fresh object, or ERR_NOT_FOUND. One short read transaction. */
int db_find(struct db_reader *reader, const struct id128 *id, struct object **out) MUST_CHECK;
/* Events of an origin from SEQ on, in order, until EACH returns non-zero (then that is returned).
 */
int db_each_event(struct db_reader *reader, int64_t origin_no, uint64_t from_seq,
                  int (*each)(void *arg, uint64_t seq, const uint8_t *raw, size_t len),
                  void *arg) MUST_CHECK;
/* Live objects with id above AFTER (NULL: from the start) in id order, up to MAX of them, handed to
 * EACH (which must not keep them), until it returns non-zero. *LAST: the last id seen. The count.
 */
int db_each_object(struct db_reader *reader, const struct id128 *after, unsigned max,
                   int (*each)(void *arg, const struct object *object), void *arg,
                   struct id128 *last, unsigned *count) MUST_CHECK;
/* One row of the outbox. */
struct db_owed {
    struct id128 id;
    uint64_t since_ms; /* Unix */
    uint64_t size;     /* of the body; 0 where it is deleted */
};
/* Rows of KIND by id above AFTER (NULL: from the start), up to MAX of them, until EACH returns
 * non-zero: then that is returned. One short read transaction. */
int db_reader_outbox(struct db_reader *reader, enum outbox_kind kind, const struct id128 *after,
                     unsigned max, int (*each)(void *arg, const struct db_owed *owed),
                     void *arg) MUST_CHECK;
/* Garbage with ABOVE < freed_at < BELOW in that order, up to MAX; EACH's non-zero result ends it
 * and is returned. */
int db_each_garbage(struct db_reader *reader, lsn_t above, lsn_t below, unsigned max,
                    int (*each)(void *arg, uint64_t file, lsn_t freed_at), void *arg) MUST_CHECK;
int db_reader_origins(struct db_reader *reader, struct db_origin **out, size_t *count) MUST_CHECK;
int db_reader_state(struct db_reader *reader, struct db_state *out) MUST_CHECK;
int db_reader_segments(struct db_reader *reader, struct db_segment **out, size_t *count) MUST_CHECK;
/* Copy the database as of now into a fresh file at PATH (SQLite's backup API), synced. */
int db_backup(struct db_reader *reader, const char *path) MUST_CHECK;
/* SQLite's own integrity check plus: counters and digest recomputed from the rows, compared with
 * the stored ones. ERR_CORRUPT with REPORT (CAP bytes) saying what differs. Scans everything. */
int db_check(struct db_reader *reader, char *report, size_t cap) MUST_CHECK;

#endif
