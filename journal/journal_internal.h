/* What the files of the commit path share; nobody else includes it. journal.h is the contract. */
#ifndef JOURNAL_JOURNAL_INTERNAL_H
#define JOURNAL_JOURNAL_INTERNAL_H

#include "base/queue.h"
#include "journal/compact.h"
#include "journal/db_freeze.h"
#include "journal/db_peers.h"
#include "journal/db_snapshot.h"
#include "journal/heads.h"
#include "journal/journal.h"
#include "journal/merge.h"
#include "journal/merge_chunk.h"
#include "journal/pending.h"
#include "journal/reput.h"
#include "journal/scrub.h"

#include <pthread.h>
#include <stdatomic.h>

/* What helps against a damaged database; follows the reason in a message. */
#define REBUILD_HINT "; run 'objctl journal rebuild' to make it anew from the log"

/* Why a node takes no writes. */
enum read_only {
    READ_ONLY_LOG = 1,      /* a sync failed: until a restart */
    READ_ONLY_DATABASE = 2, /* SQLite cannot apply: until it can */
};

/* This run's hash chain: what the next own event follows. */
struct chain {
    struct id128 origin; /* zero until the first write */
    uint64_t seq;
    uint8_t hash[SHA256_BYTES];
    struct event_ref follows; /* the run before; seq 0: there was none */
};

/* The committer's own; touched by its thread alone. */
struct committer {
    struct db_reader *reader;
    struct hlc clock;
    struct chain chain;
    struct heads heads; /* of all runs but this one */
    uint64_t batch;     /* number of the last batch begun */
    void **held;        /* changes taken from the queue and not yet decided */
    size_t held_count, held_next;
    struct change **decided; /* this batch's, in order */
    size_t decided_count;
    struct entry *first, *last; /* this batch's entries */
    struct delta delta;         /* their sum */
    struct buf event;
    uint64_t records, refused;
    lsn_t marked; /* the synced_through that the last batch on disk carries */
    uint64_t frozen_refused, frozen_said_ms; /* freeze.c */
};

/* What the applier knows of a segment beyond what the log does. */
struct segment_sums {
    uint32_t volume;
    uint64_t body_bytes, live_bytes, live_record_bytes;
    lsn_t settled_at; /* the position of the transaction that wrote the row as it is */
    bool dirty;
    uint64_t shunned_until_ms; /* cleaning it failed: left alone until then */
};

/* Events that the newest snapshot covers leave the database, a few in each transaction. */
struct trim {
    struct db_cut *cuts; /* of the newest snapshot; NULL: not read yet */
    size_t count, next;
    uint64_t after_ms; /* after a failure: not before */
};

/* The applier's own, but for what its lock says. */
struct applier {
    struct db *db;
    struct db_state state;     /* as of the open or last transaction */
    struct db_origin *origins; /* rows of the table of this name */
    size_t origin_count;
    uint64_t losers, loser_bytes; /* rows of the table conflicts, and of their bodies */
    uint64_t *settle;             /* large files named in this transaction */
    size_t settle_count, settle_cap;
    uint64_t doubles;          /* events of this transaction that were here already */
    pthread_mutex_t sums_lock; /* sums are read by the janitor */
    struct segment_sums *sums;
    size_t sum_count;
    uint32_t removed_volume;     /* unlinked by the janitor; its row is to go (sums_lock) */
    lsn_t removed_files_through; /* large files freed below it are unlinked (sums_lock) */
    uint64_t idle_since_ms;
    uint64_t checkpointed_ms;     /* the last complete one */
    uint64_t checkpoint_after_ms; /* after a failed one: not before */
    uint64_t complain_ms;         /* next log line about that */
    unsigned failures;            /* in a row */
    bool stale; /* state, origins and sums are not the database's any more: read them again */
    bool snapshots_changed; /* a transaction has held an end chunk */
    bool snapshots_failed;  /* and they could not be read since */
    bool members_changed;   /* … a member event; not said to the listener yet */
    bool restate_changed;   /* … a freeze of a run of ours */
    struct trim trim;
};

/* The janitor's own: one segment being cleaned. */
struct cleaner {
    struct db_reader *reader;
    uint32_t volume; /* 0: none */
    bool unlinked;   /* gone from the disk; the applier has yet to hear of it */
    uint64_t from;
    bool scanned;
    _Atomic lsn_t last_move;           /* LSN of the last one */
    lsn_t moved_through;               /* may go once the durable position is here */
    uint64_t batch_bytes, batch_moves; /* submitted in this step */
    lsn_t files_through;               /* large files freed up to here are gone */
    uint64_t rotten;
    _Atomic uint32_t in_flight; /* moves submitted and not yet done */
    _Atomic int failed;         /* a move that was refused: leave the segment alone for now */
};

/* The janitor's own: see restate.c. */
struct restate {
    struct db_restate *rows; /* NULL: to be read */
    size_t count, at;
    int64_t origin_no; /* of rows[at]; 0: not looked up yet */
    uint64_t said;     /* events journaled again, of this row */
    uint64_t retry_ms;
    _Atomic uint32_t in_flight;
    _Atomic int failed;
    _Atomic bool due;    /* there may be rows that were not looked at */
    _Atomic bool active; /* … or not to their end */
};

/* See room.c. */
struct disk_room {
    _Atomic uint64_t free_bytes, total_bytes, reserve_bytes; /* as of the last look */
    _Atomic uint64_t claimed_bytes;                          /* accepted since */
    _Atomic uint64_t looked_ms;
};

struct journal {
    struct journal_config config;
    struct env *env;
    char vfs[32];
    char *db_path;
    struct log *log;
    struct large_store *large;
    struct pending *pending;
    struct queue *queue; /* struct change * for the committer */

    struct committer committer;
    struct applier applier;
    struct cleaner cleaner;
    struct scrub scrub;
    struct compactor compactor;
    struct reput reput;
    struct restate restate;

    void (*listener)(void *arg, const struct journal_news *news);
    void *listener_arg;
    void (*on_damage)(void *arg, const struct object *object);
    void *on_damage_arg;
    void (*copies_listener)(void *arg, const struct journal_copy_news *news);
    void *copies_arg;

    pthread_mutex_t lock;  /* the apply queue, the counters and waiting; held for moments only */
    pthread_cond_t work;   /* for the applier: the first batch came, or enough for a transaction */
    pthread_cond_t room;   /* for the committer: entries were applied */
    pthread_cond_t upkeep; /* for the janitor and other patient threads: stop */
    struct entry *apply_first, *apply_last;
    uint64_t apply_queued; /* entries between them */
    bool room_wanted;      /* the committer waits */
    struct db_state acked; /* counters and digest as acknowledged */
    uint64_t acked_seq;    /* last event of acked.last_origin */
    struct id128 run;      /* the origin of this process; zero before its first event */
    uint64_t batches, records, syncs;
    struct db_snapshot snapshots[DB_SNAPSHOTS]; /* complete ones, the newest first */
    size_t snapshots_known;
    struct id128 node;
    lsn_t durable_position;
    uint64_t recovered_records, rotten_bytes;

    pthread_t threads[3];
    bool node_is_new;       /* NODE_ID is yet to be written */
    bool lost_files;        /* an accepted loss: rows may name bytes that are gone */
    unsigned thread_count;  /* of them, running */
    bool threaded;          /* journal_start was called; without it the caller takes the steps */
    _Atomic bool stopping;  /* the janitor ends */
    _Atomic bool draining;  /* the committer ends once its queue is empty */
    _Atomic bool committed; /* the committer has ended: the applier ends once its queue is empty */
    _Atomic unsigned read_only; /* reasons to take no writes; 0: none */
    _Atomic bool rotate;        /* seal the active segment with the next batch */
    int rotated;                /* how that went; to be read once `rotate` is false again */
    _Atomic uint32_t holds;     /* backups under way: nothing is removed */
    _Atomic lsn_t covered;      /* events below need not stay in the log: the older snapshot's */
    _Atomic bool shares_events; /* covered events leave only once they are let go */
    _Atomic bool held_back;     /* … and those of the newest snapshot are not yet */
    _Atomic bool trimming; /* events that the newest snapshot covers are still in the database */
    _Atomic uint64_t snapshot_count, compacted_events, frozen_runs;
    _Atomic uint64_t bad_blocks, repaired, lost, conflicts, clock_faults, refused;
    _Atomic uint64_t losers, loser_bytes; /* the applier's figures, as committed */
    _Atomic uint64_t cleaned_segments, moved_records;
    struct disk_room room_left;
};

/* ---- journal.c ---- */

int journal_alloc(struct journal **out, const struct journal_config *config) MUST_CHECK;
/* Read state/NODE_ID; where there is none, draw one (node_is_new). */
int journal_load_node(struct journal *journal, char *message, size_t cap) MUST_CHECK;
/* Write it, durably. */
int journal_save_node(struct journal *journal) MUST_CHECK;
/* Wait on CONDITION, with journal->lock held. */
void journal_wait(struct journal *journal, pthread_cond_t *condition, uint64_t timeout_ms);

/* ---- fold.c: what a record does to a row; shared by the committer, recovery and rebuild ---- */

/* The entry for a record of EVENT that lies at PLACE with header HEADER: folds it into BEFORE
 * (NULL: unknown; lent) and computes what the applier needs. RAW: the event's bytes. MOVED: a move
 * record. */
int fold_event(struct entry **out, const struct object *before, const struct event *event,
               const void *raw, size_t raw_bytes, const struct record_header *header,
               const struct place *place, const struct id128 *self) MUST_CHECK;
/* What the step from BEFORE (NULL: unknown) to ENTRY's object, which is set, asks of the applier.
 * ERR_NO_MEMORY. */
int fold_changes(struct entry *entry, const struct object *before) MUST_CHECK;
/* What the step from BEFORE to AFTER (NULL: unknown) changes in counters and digest. */
void fold_delta(struct delta *d, const struct object *before, const struct object *after);
/* Whether an event of this kind can change the row of its id. */
bool fold_concerns_row(const struct event *event);
/* … and whether it can change that row on node SELF: what others hold of it does not. */
bool fold_needs_row(const struct event *event, const struct id128 *self);
/* Whether the record with EVENT and HEADER says something of copies on node SELF: by its id, or by
 * the body that it bears, which came here under an id that this node had before. */
bool fold_is_copy_here(const struct event *event, const struct record_header *header,
                       const struct id128 *self);
/* Whether all that it says is in what a snapshot carries, so that one covers it. Others are never
 * compacted. */
bool fold_is_covered(const struct event *event);
/* Of these, what it says of other nodes: who holds what, who is a member, the feature level. */
bool fold_is_peer_fact(uint32_t kind);
/* Add B to A. */
void delta_add(struct delta *a, const struct delta *b);
/* Add D to the counters of STATE. */
void state_add(struct db_state *state, const struct delta *d);

/* ---- apply.c: the applier's transactions ---- */

int applier_open(struct journal *journal) MUST_CHECK;
void applier_close(struct journal *journal);
/* Settle large files, write counters and POSITION, commit. On an error nothing happened. */
int applier_commit(struct journal *journal, lsn_t position) MUST_CHECK;
int applier_begin(struct journal *journal) MUST_CHECK;
void applier_rollback(struct journal *journal);
/* Checkpoint now; moves the durable position where it was complete. */
int applier_checkpoint(struct journal *journal);

/* ---- apply_entry.c: what one entry changes in the open transaction ---- */

/* Put one entry into it. */
int applier_put(struct journal *journal, const struct entry *entry) MUST_CHECK;
/* The row of ORIGIN, a run of NODE, made where it is missing. Lent until the next call. */
int applier_origin(struct applier *a, const struct id128 *origin, const struct id128 *node,
                   struct db_origin **out) MUST_CHECK;
/* Nothing points to the bytes at PLACE any more since the record at LSN. */
int applier_free(struct journal *journal, const struct place *place, uint64_t size,
                 uint32_t record_bytes, lsn_t lsn) MUST_CHECK;
/* A record of this transaction names this large file. */
int applier_remember_large(struct applier *applier, uint64_t file) MUST_CHECK;

/* ---- apply_sums.c: what each segment still holds ---- */

/* Read the sums at the start. */
int applier_open_sums(struct applier *a) MUST_CHECK;
/* Make the sums what the COUNT rows at SEGMENTS say: after a rollback. ERR_NO_MEMORY. */
int applier_reset_sums(struct applier *a, const struct db_segment *segments,
                       size_t count) MUST_CHECK;
/* Add to the sums of VOLUME, made where they are missing. ERR_NO_MEMORY. */
int applier_add_sums(struct applier *a, uint32_t volume, int64_t body, int64_t live,
                     int64_t live_record) MUST_CHECK;
/* Write, in the open transaction, the rows of the segments that changed, or that the log has sealed
 * or opened meanwhile. */
int applier_write_sums(struct journal *journal) MUST_CHECK;
/* Dead bytes of all sealed segments, and the best one to clean (0: none worth it). */
uint64_t applier_dead_bytes(struct journal *journal, uint32_t *best);
/* The janitor has unlinked segment VOLUME (0: none) and the large files freed at LSNs up to
 * FILES_THROUGH (0: none). False: still busy with another segment, ask again. */
bool applier_forget(struct journal *journal, uint32_t volume, lsn_t files_through);
/* The same for VOLUME, which an earlier run has unlinked; at once, before the threads start. */
int applier_forget_now(struct journal *journal, uint32_t volume) MUST_CHECK;
/* Outside a transaction: what applier_forget was told leaves the database. Tried again with the
 * next call where it fails. */
void applier_forget_removed(struct journal *journal);
/* From which position on, once durable, the database knows that VOLUME is sealed; LSN_LIMIT: it
 * does not yet. */
lsn_t applier_segment_settled(struct journal *journal, uint32_t volume);
/* No row points into VOLUME any more. */
bool applier_segment_empty(struct journal *journal, uint32_t volume);
/* Do not propose VOLUME for cleaning for a while. */
void applier_shun(struct journal *journal, uint32_t volume, uint64_t ms);

/* ---- apply_news.c: who hears of what is in SQLite ---- */

/* Tell who listens what has become of the runs since the last call. */
void applier_tell(struct journal *journal);
/* … and what the entries from FIRST on say of copies. */
void applier_tell_copies(struct journal *journal, const struct entry *first);
/* Wake the janitor where there is something to journal again. */
void applier_tell_janitor(struct journal *journal);
/* Bring the figure up to date with `origins`. */
void applier_count_frozen(struct journal *journal);

/* ---- apply_merge.c ---- */

/* The entry of a merge that is no row: holders, members, runs. */
int applier_put_merge(struct journal *journal, const struct entry *entry) MUST_CHECK;

/* ---- keep.c: the applier's side of conflicts ---- */

/* Put what ENTRY says of bytes that lost into the open transaction: after its row. */
int applier_keep(struct journal *journal, const struct entry *entry) MUST_CHECK;
/* A row of the table as a snapshot has it, which may be older than the rows of objects are. */
int applier_load_loser(struct journal *journal, const struct object *loser) MUST_CHECK;
/* LOSER's bytes are gone: there is nothing left that could be put again. In a transaction. */
int applier_forget_loser(struct journal *journal, const struct object *loser) MUST_CHECK;
/* Read how many there are. */
int applier_count_losers(struct journal *journal) MUST_CHECK;

/* ---- trim.c: the applier's side of snapshots ---- */

/* The entry for a record of CHUNK at LSN. ERR_INVALID: not a chunk; ERR_FORMAT. */
int fold_snapshot(struct entry **out, const void *chunk, size_t len, lsn_t lsn) MUST_CHECK;
/* Put one chunk's entry into the open transaction. */
int applier_put_snapshot(struct journal *journal, const struct entry *entry) MUST_CHECK;
/* Read which snapshots there are: at the start and after a new one. */
int applier_load_snapshots(struct journal *journal) MUST_CHECK;
/* One transaction that removes covered events, where there are any; true: there may be more. */
bool applier_trim(struct journal *journal);

/* ---- mend.c ---- */

/* After a replay, outside a transaction: runs with a hole end before it. */
int applier_mend(struct journal *journal) MUST_CHECK;

/* ---- recover.c ---- */
int journal_recover(struct journal *journal, bool clean, char *message, size_t cap) MUST_CHECK;

/* Records into SQLite, in transactions that end where batches end. */
struct replay {
    struct journal *journal;
    lsn_t previous_end; /* of the record before */
    unsigned in_transaction;
    lsn_t covered;      /* rebuild: the rows know all records below … */
    bool without_peers; /* … but holds, drops and members */
    /* Rebuild: copies of ours came before the events that say what of, since cleaning has moved
     * those behind them; a further reading, LATE, is of such copies alone. */
    bool copies_wait, late;
    /* Rebuild: whether this snapshot is whole; NULL: all that end are. */
    bool (*is_whole)(void *arg, const struct id128 *snapshot);
    void *arg;
};
/* One record of a log in LSN order. ARG: the struct replay. */
int replay_visit(void *arg, const struct record_view *view, const struct place *place);
/* Commit what is open, with POSITION. */
int replay_end(struct replay *replay, lsn_t position) MUST_CHECK;
/* For log_recover: check a large file. */
int replay_check_large(void *arg, const struct record_header *header);

/* Where the disk refused to read the log, and what to do: false where it did not. */
bool journal_say_unreadable(struct journal *journal, char *message, size_t cap);

/* ---- snapshot_load.c: rebuilding from a snapshot ---- */

struct snapshot_found;

/* Note the chunk in VIEW at PLACE; *FOUND starts as NULL. */
int snapshot_note(struct snapshot_found **found, const struct record_view *view,
                  const struct place *place) MUST_CHECK;
/* Read all that were noted, load the newest whole one into the fresh database, and say in *COVERED
 * below which position the rows know all records (0: there is no whole one), and in *WITHOUT_PEERS
 * whether it is of an old version, which lacks who holds what and who is a member. ERR_CORRUPT with
 * MESSAGE: what is whole is too old to go on from. */
int snapshot_load(struct journal *journal, struct snapshot_found *found, lsn_t *covered,
                  bool *without_peers, char *message, size_t cap) MUST_CHECK;
bool snapshot_is_whole(void *found, const struct id128 *snapshot);
void snapshot_found_destroy(struct snapshot_found **found);

/* ---- commit.c ---- */
int committer_open(struct journal *journal, uint64_t hlc) MUST_CHECK;
void committer_close(struct journal *journal);
/* Changes that were taken have to wait for the next batch: events of a peer may need several. */
bool committer_holds(const struct journal *journal);
/* When idle: an empty batch that carries synced_through, once. */
void committer_mark(struct journal *journal);

/* The newest row of ID, this batch's decisions included; *OUT is NULL where there is none. ARG: the
 * journal. */
int committer_row(void *arg, const struct id128 *id, struct object **out) MUST_CHECK;
/* ENTRY, whose LSN is known, is part of this batch. */
void committer_add(struct journal *journal, struct entry *entry);

/* ---- commit_own.c: what this node says itself. ERR_FULL here and below: for the next batch ----
 */

/* Write what was decided of CHANGE as the next event of this run into this batch. BEFORE: the row.
 * A stamp in D stays; else it gets one. ERR_FULL: the batch is full; nothing happened. */
int committer_event(struct journal *journal, struct change *change, struct decision *d,
                    const struct object *before) MUST_CHECK;
/* Decide what a client, or a thread of this node, asks for. change->object: the row then. */
int commit_client_change(struct journal *journal, struct change *change) MUST_CHECK;
/* Bytes that lost under change->lost get an id of their own, unless that one is deleted: then they
 * are, too. */
int commit_reput(struct journal *journal, struct change *change) MUST_CHECK;
/* An event of ours about no object: a member, what is held. */
int commit_fact(struct journal *journal, struct change *change) MUST_CHECK;
/* An own event of a frozen run once more, under the run of now: as it was, its stamp included. */
int commit_restated(struct journal *journal, struct change *change) MUST_CHECK;

/* ---- commit_peer.c: what other nodes say ---- */

/* As many of CHANGE's events as the batch has room for; ERR_FULL where some are left. */
int commit_peer_events(struct journal *journal, struct change *change) MUST_CHECK;
/* One event of another node, or of an earlier run of ours that came back. */
int commit_peer_event(struct journal *journal, struct change *change, const uint8_t *raw,
                      uint32_t len) MUST_CHECK;
/* Give COMMIT one after the other of the items that came with CHANGE and are not done yet; the
 * first error, or ERR_INVALID where the lengths do not fit, ends it. */
int commit_items(struct journal *journal, struct change *change,
                 int (*commit)(struct journal *journal, struct change *change, const uint8_t *item,
                               uint32_t len)) MUST_CHECK;

/* ---- commit_move.c: records that go to the end of the log ---- */

/* Cleaning: the record at move_from; its body too, if it still counts. ERR_CORRUPT: it counts and
 * is not readable; ERR_AGAIN: it is to be put again first. */
int commit_move(struct journal *journal, struct change *change) MUST_CHECK;
/* A chunk of a snapshot is a record like any other; what it says is the applier's business. So is
 * one of a merge that cleaning moves. */
int commit_chunk(struct journal *journal, struct change *change) MUST_CHECK;

/* ---- freeze.c: runs that contradict themselves; the committer's ---- */

/* A fresh run's origin, greater than BEFORE. */
struct id128 freeze_draw_run(struct journal *journal, const struct id128 *before);
/* May EVENT of a peer, the LEN bytes at RAW, be taken? HEAD is its run's. 0: it is the next one;
 * ERR_EXISTS: it is here; ERR_AGAIN: some before it are missing; ERR_CONFLICT: the run is frozen,
 * now or since long; ERR_FULL: that has to wait for the next batch; ERR_IO, ERR_NO_MEMORY. */
int freeze_judge(struct journal *journal, struct head *head, const struct event *event,
                 const uint8_t *raw, size_t len) MUST_CHECK;
/* Journal the freeze in D, which somebody has told of; unless it is known. */
int freeze_fact(struct journal *journal, struct change *change, struct decision *d) MUST_CHECK;
/* EVENT, a freeze, was taken from a peer. */
void freeze_heard(struct journal *journal, const struct event *event);

/* ---- absent.c: what this node is said to hold, and does not; the committer's ---- */

/* Journal drops for what the events of CHANGE that are still to be taken say this node holds. */
int absent_drop(struct journal *journal, const struct change *change) MUST_CHECK;
/* … for what CHUNK, of a merge, says. */
int absent_drop_chunk(struct journal *journal, const struct change *change, const uint8_t *chunk,
                      size_t len) MUST_CHECK;
/* … for what EVENT alone says, if this node says it. */
int absent_drop_of(struct journal *journal, const struct event *event) MUST_CHECK;

/* ---- restate.c: own facts of frozen runs once more; the janitor's ---- */

bool restate_step(struct journal *journal);
/* Of a run that broke at event BROKE: is EVENT, of ours, to be said again? Pure. */
bool restate_concerns(const struct event *event, uint64_t broke);
void restate_release(struct restate *restate);

/* ---- commit_merge.c ---- */

/* As many of CHANGE's chunks as the batch has room for; ERR_FULL where some are left. */
int commit_merge(struct journal *journal, struct change *change) MUST_CHECK;

/* ---- reconcile.c ---- */

/* Journal a drop for each row whose bytes are gone. Before the threads start. */
int journal_reconcile(struct journal *journal) MUST_CHECK;

/* ---- clean.c ---- */
bool cleaner_step(struct journal *journal);

/* ---- room.c ---- */

/* Take note of the disk's free space, unless that was done at most MAX_AGE_MS ago. Any thread. */
void disk_look(struct journal *journal, uint64_t max_age_ms);

#endif
