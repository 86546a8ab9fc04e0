/*
 * The log: segments of opaque records in one files directory (FILES/log/%08x.seg). It is commit log
 * and home of small bodies at once. It knows nothing of events.
 *
 * Threads: the writing half (log_begin … log_sync, log_rotate) belongs to the committer. Reading
 * is safe from any thread. log_prepare and log_remove belong to the janitor. Recovery runs alone,
 * before anything else.
 *
 * Failure: a failed write or sync poisons the writer (ERR_READ_ONLY from then on) where the state
 * of the disk is unknown, that is after a failed sync; after a failed write the segment is sealed
 * at its last good offset and the next one is used.
 */
#ifndef STORAGE_LOG_H
#define STORAGE_LOG_H

#include "base/env.h"
#include "storage/place.h"
#include "storage/segment.h"

struct log;

struct log_config {
    struct env *env;
    const char *files_dir; /* exists; log/ is made in it */
    struct id128 store;
    uint64_t segment_bytes; /* 0 = SEGMENT_BYTES; tests use less, at least 64 KiB */
    bool sync;              /* false: --durability=async, log_sync does nothing */
    bool skip_unreadable;   /* what the disk refuses to read is lost: as rot, or a torn tail */
};

/* A segment as the journal's database remembers it. */
struct log_segment {
    uint32_t volume, disk;
    lsn_t base;
    uint64_t end_bytes; /* bytes in use; sealed segments never grow */
    bool sealed;
};

/* Open the log. KNOWN (COUNT of them, ascending by number) may be older than the disk: numbers
 * above the last are probed for. A known segment whose file is missing: ERR_NOT_FOUND with a log
 * line that names it (the caller decides). No file is written yet. */
int log_open(struct log **out, const struct log_config *config, const struct log_segment *known,
             size_t count) MUST_CHECK;
void log_close(struct log **log);

struct log_recovery {
    lsn_t end;    /* the log's end: the next batch begins at or above it */
    uint64_t hlc; /* highest HLC in a batch header */
    uint64_t batches, records;
    uint64_t rotten_bytes; /* skipped as rot */
    uint64_t rotten_records;
    bool cut; /* a torn tail was found and left behind */
};

/*
 * Read every record at or above FROM (the database's applied position; 0 = everything there is) in
 * LSN order and hand it to VISIT, which must not keep pointers. VISIT's error ends the recovery
 * with it. SYNCED: what is known to have been durable (the database's position). Each segment read
 * is synced and dropped from the page cache before it is read. Damage below what is known to be
 * synced (SYNCED, or a later valid batch's synced_through) is rot: skipped, counted, logged; damage
 * above it ends the log. Bodies in batches above it are verified as well: one bad block there ends
 * the log before its batch. Damage that the disk refused to read may be whole another time: without
 * skip_unreadable that is ERR_IO (log_unreadable says where), all before it was handed over, and
 * nothing is cut. Large files that a batch above it names are checked by CHECK_LARGE
 * (NULL: not). After a clean stop (CLEAN) the last segment goes on being written; otherwise it is
 * sealed and the next batch opens a new one.
 */
int log_recover(struct log *log, lsn_t from, lsn_t synced, bool clean,
                int (*visit)(void *arg, const struct record_view *view, const struct place *place),
                int (*check_large)(void *arg, const struct record_header *header), void *arg,
                struct log_recovery *out) MUST_CHECK;

/* Where the disk refused to read what ended a log_recover or log_scan with ERR_IO; false: nowhere,
 * that error was another one. The last such place. */
bool log_unreadable(struct log *log, uint32_t *volume, uint64_t *offset);

/* ---- Writing: the committer ---- */

/* What one record is made of; all pointers are lent until log_write returned. */
struct log_record {
    uint8_t type, flags;
    struct id128 id;
    const void *event;
    uint32_t event_bytes;
    const void *body; /* RECORD_HAS_BODY */
    uint32_t body_bytes;
    const uint64_t *sums;         /* of body; block_count(body_bytes) of them */
    uint64_t file, size, trailer; /* RECORD_LARGE; size is set from body_bytes otherwise */
    lsn_t from;
};

/* Begin a batch stamped HLC. Switches to the next segment where a largest batch might not fit. */
int log_begin(struct log *log, uint64_t hlc) MUST_CHECK;
/* Add a record. ERR_FULL: it does not fit into this batch any more (write this one first; a record
 * always fits into an empty batch). ERR_NO_MEMORY: nor is there a file descriptor for a new
 * segment. On success *PLACE says where it will lie. */
int log_add(struct log *log, const struct log_record *record, struct place *place) MUST_CHECK;
/* Write the batch (also an empty one, which carries synced_through alone). On failure nothing of it
 * counts, all its places are void, and the next batch goes elsewhere. */
int log_write(struct log *log) MUST_CHECK;
/* Make all that was written durable (fdatasync). A failure is final: every later log_begin fails
 * with ERR_READ_ONLY. */
int log_sync(struct log *log) MUST_CHECK;
/* Make all that was written durable, also where log_sync does nothing (async). From any thread; a
 * failure is final as there. */
int log_flush(struct log *log) MUST_CHECK;
/* Seal the active segment: the next batch opens a new one. Syncs what it holds. */
int log_rotate(struct log *log) MUST_CHECK;

/* End of what was written; and of what is durable. From any thread. */
lsn_t log_end(const struct log *log);
lsn_t log_synced(const struct log *log);

/* ---- Reading: any thread ---- */

/*
 * Read the record at PLACE (not a large one) into BUF (CAP bytes) and check it: checksum, that it
 * is about ID, and every block of its body. LENGTH: the record's length where the caller knows it,
 * else 0 (costs a second read). ERR_AGAIN: NOWAIT and not in the page cache; ERR_NOT_FOUND: the
 * segment is gone (look up again); ERR_CORRUPT: a bad record, block or another id; ERR_TOO_BIG: CAP
 * is less than the record (at most RECORD_MAX_BYTES).
 */
#define RECORD_MAX_BYTES                                                                           \
    (RECORD_HEADER_BYTES + 8 * LIMIT_INLINE_BLOCKS + LIMIT_EVENT_BYTES + LIMIT_INLINE_BODY_BYTES + \
     16)
int log_read(struct log *log, const struct place *place, const struct id128 *id, uint32_t length,
             uint8_t *buf, size_t cap, bool nowait, struct record_view *out) MUST_CHECK;

/* All segments, ascending, in a fresh array the caller frees. */
int log_segments(struct log *log, struct log_segment **out, size_t *count) MUST_CHECK;

/* Hand every record of sealed segment VOLUME from offset *FROM on to VISIT until it returns
 * non-zero or the end; *FROM moves past what VISIT took with 0. Rot is skipped and counted in
 * *ROTTEN; damage that the disk refused to read is ERR_IO as in log_recover. */
int log_scan(struct log *log, uint32_t volume, uint64_t *from,
             int (*visit)(void *arg, const struct record_view *view, const struct place *place),
             void *arg, uint64_t *rotten) MUST_CHECK;

/* ---- Upkeep: the janitor ---- */

/* Make the next segment ready and zero-fill a bounded step ahead of the writer, so that commits
 * neither create files nor extend them. Returns 1 where there is more to do, 0 where not. Never
 * leaves more than 1 MiB of its zeros dirty, so that it does not slow down a commit's sync. */
int log_prepare(struct log *log);

/* Give back the unused zeros behind a segment that was sealed before it was full; part of
 * log_prepare, for when there is no room for the rest of that. */
void log_trim(struct log *log);

/* Unlink sealed segment VOLUME, once no reader is inside; readers get ERR_NOT_FOUND at once. The
 * caller has made sure that nothing in it is needed. Syncs the directory. */
int log_remove(struct log *log, uint32_t volume) MUST_CHECK;

#endif
