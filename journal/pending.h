/*
 * Pending entries: what the committer has decided and the applier has not yet put into SQLite. The
 * newest row of an id is here or in SQLite, never nowhere: an entry leaves only after the
 * transaction that holds it has committed.
 *
 * An entry is visible to readers once its batch is synced (pending_publish); before that only the
 * committer sees it. Thread-safe (sharded locks).
 */
#ifndef JOURNAL_PENDING_H
#define JOURNAL_PENDING_H

#include "journal/object.h"
#include "storage/segment.h"

#include <stdbool.h>

struct pending;

/* Changes of the stored counters and of the digest. */
struct delta {
    int64_t events, objects, deleted, bytes, outbox, outbox_bytes, wanted, wanted_bytes;
    int64_t marks, purges;
    struct hash128 digest;
};

/* One committed record on its way into SQLite; owned by the pending table once inserted. */
struct entry {
    struct entry *next;    /* in commit order: the applier's queue */
    struct entry *older;   /* the same id's previous entry, or another id's: hash chain */
    struct object *object; /* the row after it; NULL where the record changes no row */
    uint64_t batch;
    lsn_t lsn;
    lsn_t batch_end; /* where the next batch begins; set on a batch's last entry, else 0 */

    bool is_snapshot; /* a chunk of a snapshot: `event` is the chunk, where the applier needs it */
    bool is_merge;    /* of a merge: a row, or a chunk of what is no row (`event`) */
    bool adds_event;  /* false for moves */
    uint32_t kind;    /* of the event */
    uint8_t cloud_state; /* … and of a cloud event */
    bool is_covered;     /* by a snapshot that comes after it: fold_is_covered */
    struct id128 origin, node;
    uint64_t seq;
    uint8_t hash[SHA256_BYTES]; /* of the event */
    bool ends_origin;           /* the event names the run that it follows: that one has ended */
    struct id128 ended;
    hlc_time stamp;
    struct id128 restated; /* it says again what event restated_seq (0: none) of that run said */
    uint64_t restated_seq;

    /* Bytes that lost against others under their id, as the row that they were; NULL: none did.
     * They stay live (applier_keep); place_moved does not speak of them. */
    struct object *loser;
    bool loser_taken; /* they came with this very record: no row has pointed to them yet */
    bool conflict;    /* different bytes met under one id */

    struct place place_before; /* what the row pointed to, where the row now points elsewhere */
    uint64_t size_before;
    uint32_t record_bytes_before;
    bool place_moved;
    bool place_taken;       /* the row points to this record, and did not before */
    uint32_t inline_volume; /* the record's inline body, for the segment's sums; 0: none */
    uint32_t inline_bytes;
    bool owed_changed, owed_after; /* the outbox: uploads … */
    bool mark_changed,
        mark_after; /* … marks that an object is deleted, and removals, in the cloud */
    bool purge_changed, purge_after;
    /* Different bytes were uploaded to the cloud, and it is not known which of them came last
     * there: this is the upload whose author has to look. stamp 0: no such thing. */
    struct reg doubt;
    bool wanted_changed; /* … replicas: other bytes may be wanted than before, too */
    bool wanted_after;
    /* Two nodes have put the same bytes: the put that is not the row's implies a hold all the same.
     */
    bool also_put;
    struct reg also_put_at;
    struct delta delta;

    uint32_t event_bytes;
    uint8_t event[]; /* raw; empty for moves */
};

int pending_create(struct pending **out) MUST_CHECK;
void pending_destroy(struct pending **pending);

struct entry *entry_create(const void *event, size_t event_bytes) MUST_CHECK;
void entry_destroy(struct entry *entry);

/* Insert an entry that readers do not see yet; it becomes its id's newest. */
void pending_insert(struct pending *pending, struct entry *entry);
/* Entries of batches up to BATCH are visible from now on. */
void pending_publish(struct pending *pending, uint64_t batch);
/* Take an entry out again (applied, or its batch failed) and destroy it. */
void pending_remove(struct pending *pending, struct entry *entry);

/* A copy of ID's newest row: of any entry (ALL, for the committer) or of visible ones. 0 with *OUT;
 * ERR_NOT_FOUND: no entry, ask SQLite; ERR_NO_MEMORY. */
int pending_find(struct pending *pending, const struct id128 *id, bool all,
                 struct object **out) MUST_CHECK;

/* Where the bytes of SHA256 lie that lost under ID, as far as any entry, visible or not, says so.
 * False: ask SQLite. */
bool pending_find_loser(struct pending *pending, const struct id128 *id,
                        const uint8_t sha256[SHA256_BYTES], struct place *place);

uint64_t pending_count(const struct pending *pending);
uint64_t pending_bytes(const struct pending *pending);

#endif
