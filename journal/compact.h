/*
 * Compaction, the janitor's part: writes a snapshot into the log, chunk by chunk through the
 * committer. What the applier does once it is complete is trim.c's.
 */
#ifndef JOURNAL_COMPACT_H
#define JOURNAL_COMPACT_H

#include "journal/db_conflict.h"
#include "journal/db_peers.h"
#include "journal/db_snapshot.h"
#include "journal/snapshot.h"

#include <stdatomic.h>

struct journal;

enum compact_phase {
    COMPACT_IDLE,
    COMPACT_ORIGINS,
    COMPACT_ROWS,
    COMPACT_LOSERS,
    COMPACT_HOLDERS,
    COMPACT_MEMBERS,
    COMPACT_FEATURE,
    COMPACT_OUTBOX,
    COMPACT_BEGUN,
    COMPACT_GARBAGE,
    COMPACT_END,
    COMPACT_WAIT /* all chunks are durable: until the applier knows of it */
};

/* Embedded in the journal; all zero at the start. The janitor's own, but for what is atomic. */
struct compactor {
    enum compact_phase phase;
    bool ready; /* the buffers below are there */
    struct snapshot_writer writer;
    struct digest *digest; /* over the digests of the chunks so far */
    struct id128 id;
    lsn_t position, previous;
    struct db_origin *origins;
    size_t origin_count, origin_next;
    struct db_cursor row;
    struct db_holder_cursor holder;
    struct db_member *members; /* NULL: not read yet */
    size_t member_count, member_next;
    struct db_conflict_cursor loser;
    struct id128 owed;
    lsn_t garbage;
    uint32_t chunks;
    uint64_t bytes, begun_ms;
    uint64_t retry_ms;             /* after a failure: not before */
    _Atomic uint32_t in_flight;    /* chunks submitted and not yet done */
    _Atomic int failed;            /* a chunk that was refused */
    _Atomic bool wanted;           /* somebody asks for one now */
    _Atomic uint64_t begun, ended; /* snapshots, counted since the start */
    _Atomic int last_rc;           /* how the last one ended */
    _Atomic uint64_t last_chunks, last_bytes;
};

/* A bounded step: begin a snapshot where one is due, or write some chunks. True where there is more
 * to do at once. */
bool compact_step(struct journal *journal);
/* Whether SNAPSHOT is the one being written. On the janitor's thread. */
bool compact_is_writing(struct journal *journal, const struct id128 *snapshot);
void compact_release(struct compactor *compactor);

#endif
