/*
 * The journal of one node: the commit path and everything a door needs to ask of it.
 *
 *   change ──queue──► committer: decide, one batch, one sync ──► done()            (durable)
 *                         │ pending entries (visible after the sync)
 *                         └──queue──► applier: SQLite, checkpoints ──► durable position
 *
 * A look-up asks the pending entries first, then SQLite; so it sees every change that was
 * acknowledged, at once. The committer, the applier and the janitor are steps without threads of
 * their own (journal_commit_step …); journal_start runs them on three threads, a simulator calls
 * them as its seed says.
 */
#ifndef JOURNAL_JOURNAL_H
#define JOURNAL_JOURNAL_H

#include "base/env.h"
#include "journal/db.h"
#include "journal/decide.h"
#include "storage/large.h"
#include "storage/log.h"
#include "storage/ram.h"
#include "storage/store_dir.h"

struct journal;

struct journal_config {
    const struct store_dirs *dirs; /* open; lent for the journal's life */
    struct ram *ram;               /* lent; NULL: none. Kept coherent with every commit. */
    bool sync;                     /* false: --durability=async */
    bool new_node;              /* journal_new_node follows: NODE_ID may be ahead of the database */
    uint64_t segment_bytes;     /* 0: the default; tests use less */
    uint64_t scrub_interval_ms; /* 0: no scrub */
    uint64_t compact_bytes;     /* of events from which on they are compacted; 0: the default */
};

/* What a client or the node itself wants done; filled by the caller, owned by it until DONE. */
struct change {
    struct request request;
    bool fresh;       /* the id was drawn by this node just now: nobody can know it */
    const void *body; /* PUT, inline: request.size bytes, lent until DONE */
    uint64_t sums[LIMIT_INLINE_BLOCKS]; /* of its blocks */
    uint64_t file, trailer;             /* PUT, large: a finished large file; file 0 = inline */

    /* CHANGE_PEER: events of other nodes as one wants them from a peer, each with its length before
     * it (4 bytes, little-endian); lent until DONE. In order of each origin. What is committed
     * already is passed over.
     * CHANGE_MERGE: chunks of a merge (merge_chunk.h), and events of the kinds that are in no row
     * (db_merge_events), laid out likewise. */
    const uint8_t *events;
    size_t events_bytes;
    /* CHANGE_MERGE: runs of this node that it does not know any more, and is about to adopt; lent
     * until DONE. What they put is said to be here, and is not: a drop is journaled with each. */
    const struct id128 *lost_runs;
    size_t lost_run_count;
    /* CHANGE_REPUT: the id under which these bytes lost. */
    struct id128 lost;
    /* CHANGE_FACT: kind and payload of an event without an object; lent until DONE. Its stamp,
     * where there is one, is the one that it replaces: what is journaled bears a later one. */
    const struct event *fact;

    /* Called once, from the committer's thread, when the outcome is durable (or refused). */
    void (*done)(struct change *change);

    /* The outcome. */
    int rc;                /* PEER: ERR_AGAIN, events before one of them are missing here;
                              ERR_CONFLICT, one does not fit its origin's chain (a fork, our own
                              current run): in both cases those before it are committed;
                              ERR_INVALID: it is none; MERGE likewise, ERR_CONFLICT where it would
                              adopt more of our own run than we wrote. Else 0, decide()'s refusals, ERR_READ_ONLY,
                              ERR_NO_SPACE,                ERR_NO_MEMORY */
    enum verdict verdict;  /* where rc is 0 */
    lsn_t lsn;             /* of the record written, the last of several; 0: none */
    bool stored;           /* the body given was taken: a large file belongs to the store now */
    bool first;            /* PUT: nothing was known of the id before */
    struct object *object; /* the row after it (rc 0), or the row that refused it (may be NULL);
                              the caller destroys it */

    /* The journal's own. */
    size_t events_done; /* bytes of `events` that are in this batch or an earlier one */
    size_t drops_done;  /* MERGE: below here drops are journaled, in this batch or an earlier one */
    const uint8_t *move_event; /* or a snapshot's chunk */
    uint32_t move_event_bytes;
    bool move_rotten;  /* its body does not verify, and no row pointed to it */
    bool move_covered; /* a snapshot covers the event: without a live body it need not move */
    struct place move_from;
    struct record_header move_header;
};

/*
 * Open the store in DIRS, and recover: replay the log's tail into SQLite, settle large files, clear
 * tmp/. Blocks until the node may serve. A missing or damaged database: ERR_CORRUPT or
 * ERR_NOT_FOUND with MESSAGE (CAP bytes) saying what to do (objctl journal rebuild). A disk that
 * refuses to read what has to be replayed: ERR_IO with MESSAGE saying where, unless DIRS accepts
 * that it is lost.
 */
int journal_open(struct journal **out, const struct journal_config *config, char *message,
                 size_t cap) MUST_CHECK;

/* What the applier has put into SQLite: news of one run after the other, then one without a run
 * that says how it stands with all of them in. Counts and digest are those of one transaction. */
struct journal_news {
    const struct db_origin *origin; /* NULL: the end of this round; lent for the call */
    bool own;                       /* the run is this process's */
    bool members;                   /* at the end: a member event was among them */
    struct hash128 digest;
    uint64_t events, event_bytes, rows; /* rows: objects and tombstones */
};
/* Have LISTENER called from the applier's thread after each transaction that added events. Before
 * journal_start; it must not block. */
void journal_listen(struct journal *journal,
                    void (*listener)(void *arg, const struct journal_news *news), void *arg);

/* Have LISTENER told of each copy here that was found damaged, as OBJECT (lent) names it: whoever
 * listens may bring a good one (CHANGE_HOLD). From any thread; it must not block. Before
 * journal_start. */
void journal_on_damage(struct journal *journal,
                       void (*listener)(void *arg, const struct object *object), void *arg);
/* One event that the applier has put into SQLite, and that may have changed who has copies of what
 * or who shall have. Lent for the call. */
struct journal_copy_news {
    const uint8_t *event; /* encoded: put, meta, hold, drop, delete, cloud; NULL: much may have
                             changed, as rows of a merge are in SQLite */
    size_t len;
    const struct id128 *wanted; /* this node wants a copy of it from now on; NULL: none */
    const struct id128 *owed;   /* something is owed to the cloud of it from now on, or with other
                                   bytes: the outbox has a row of that; NULL: nothing new */
    uint32_t kind;              /* of the event, … */
    const struct id128 *node;   /* … its author, … */
    const struct object *row;   /* … and the row after it, where there is one */
};
/* Have LISTENER called from the applier's thread with each. Before journal_start; it must not
 * block. */
void journal_listen_copies(struct journal *journal,
                           void (*listener)(void *arg, const struct journal_copy_news *news),
                           void *arg);

/* Start committer, applier and janitor. Without it (tests, the simulator, tools) the caller takes
 * their steps itself, all from one thread; journal_stop then takes the last ones. */
int journal_start(struct journal *journal) MUST_CHECK;
/* Refuse new changes (ERR_CLOSED), commit and apply what is queued, write an empty batch,
 * checkpoint, mark the database clean, join the threads. */
void journal_stop(struct journal *journal);
/* After journal_stop, or without start. */
void journal_close(struct journal **journal);

/* Queue CHANGE. ERR_FULL: the node is overloaded (503); ERR_CLOSED; ERR_READ_ONLY. On an error DONE
 * is not called. From any thread; never blocks. */
int journal_submit(struct journal *journal, struct change *change) MUST_CHECK;

/* The row of ID as acknowledged: pending, then SQLite through READER. A fresh object, or
 * ERR_NOT_FOUND (also for partial rows). May block on the disk. */
int journal_find(struct journal *journal, struct db_reader *reader, const struct id128 *id,
                 struct object **out) MUST_CHECK;
/* A reader for this journal's database: one per thread. */
int journal_reader_open(struct journal *journal, struct db_reader **out) MUST_CHECK;

/* Live objects by id in pages, pending ones included or not as timing has it: for scrub and tools.
 */
struct log *journal_log(struct journal *journal);
struct large_store *journal_large(struct journal *journal);
struct id128 journal_node(const struct journal *journal);

/* The copy of OBJECT at its place was found damaged: count it, and tell the listener. Any thread.
 */
void journal_found_damaged(struct journal *journal, const struct object *object);
/* Take note of a block that was found bad, and whether its object could be read in the end. */
void journal_count_bad(struct journal *journal, uint64_t bad_blocks, uint64_t repaired,
                       uint64_t lost);

struct journal_stats {
    struct db_state applied;                  /* as of the last applied transaction … */
    uint64_t events, objects, deleted, bytes; /* … and as acknowledged */
    uint64_t outbox, outbox_bytes;            /* uploads that are owed */
    uint64_t wanted, wanted_bytes;            /* replicas that this node lacks */
    uint64_t marks, purges; /* deleted objects that the cloud is to mark so, and to remove */
    struct hash128 digest;  /* as acknowledged */
    struct id128 origin;    /* this run's; zero before the first write */
    uint64_t seq;           /* its last acknowledged event */
    lsn_t end, synced, durable_position;
    uint64_t batches, records, syncs; /* since the start */
    uint64_t pending, pending_bytes;
    uint64_t segments, dead_bytes, cleaned_segments, moved_records;
    uint64_t bad_blocks, repaired, lost, conflicts, clock, refused;
    uint64_t losers,
        loser_bytes; /* bodies that lost under their id, still to get one of their own */
    uint64_t reputs; /* that got it since the start */
    uint64_t scrub_done, scrub_total_bytes, scrub_errors, scrub_finished_ms;
    bool read_only;
    uint64_t recovered_records, rotten_bytes;
    uint64_t free_bytes, total_bytes; /* of the files directory's disk, at most a second old */
    bool full;                        /* less than the reserve is free */
    uint64_t event_bytes;             /* of the events in the database */
    uint64_t compacted_events;        /* removed from it since the start */
    uint64_t frozen_runs;             /* that contradict themselves */
    uint64_t snapshots;               /* written since the start */
    uint64_t snapshot_bytes;          /* of the last one of these */
    lsn_t snapshot_position;          /* the newest snapshot's; 0: there is none */
};
void journal_stats(struct journal *journal, struct journal_stats *out);

/* Whether there may be own facts of a frozen run that are still to be journaled again: nobody else
 * can. Any thread. */
bool journal_restates(struct journal *journal);

/* Whether LEN more bytes of body may be stored now (the reserve; RESERVE_BYTES): ERR_NO_SPACE. May
 * ask the file system, hardly ever. Any thread, as the next. */
int journal_room(struct journal *journal, uint64_t len) MUST_CHECK;
/* The same for bytes that are going to be stored right away; BEGINS: the first of a put. */
int journal_claim(struct journal *journal, uint64_t len, bool begins) MUST_CHECK;

/* End of what is durable of the log: it grows with each commit, whoever's. Any thread. */
lsn_t journal_synced(const struct journal *journal);
/* Stored bytes were given back: the next to ask shall know. Asks the file system; any thread. */
void journal_freed(struct journal *journal);

/* ---- Steps: what the threads call in a loop ---- */

/* Take what is queued, commit it as one batch, answer. The count of changes taken. */
unsigned journal_commit_step(struct journal *journal);
/* Apply up to LIMIT_APPLY_RECORDS committed records; checkpoint when due. The count applied. */
unsigned journal_apply_step(struct journal *journal);
/* One bounded step of upkeep: prepare the next segment, clean, remove, go on with a snapshot,
 * refresh the disk figures.
 * True where there is more to do at once. */
bool journal_upkeep_step(struct journal *journal);

/* This node has company, which may lack events: from now on what a snapshot covers leaves the
 * database only once journal_let_go says so of that snapshot. Any thread; for this run. */
void journal_share_events(struct journal *journal);
/* Whether a snapshot's events wait for that; *SNAPSHOT is the newest one. Any thread. */
bool journal_waits(struct journal *journal, struct id128 *snapshot);
/* Nobody needs the events that SNAPSHOT covers any more. Without effect where a newer one is there.
 * Any thread. */
void journal_let_go(struct journal *journal, const struct id128 *snapshot);

struct journal_compact_result {
    uint64_t chunks, snapshot_bytes;
    uint64_t events, event_bytes; /* that left the database; that are still in it */
    bool waiting;                 /* covered events stay until company has them, too */
};
/* Write a snapshot now and remove the events that it covers, and wait for it. With threads: from
 * any other thread; without: takes all steps itself. In company it waits for a while that the
 * others have the events, too. ERR_CLOSED: the journal is stopping. */
int journal_compact(struct journal *journal, struct journal_compact_result *out) MUST_CHECK;

/* ---- Offline ---- */

/* Rebuild the database of a stopped node from its log alone (the newest whole snapshot in it and
 * all later records, else all records): into PATH.rebuild, checked, then renamed over
 * STATE/journal.db (the old one is kept as journal.db.old). What the disk refuses to read in the
 * log, also when asked again, is ERR_IO with MESSAGE saying where; with dirs->accept_loss it is
 * skipped as rot is. */
int journal_rebuild(const struct store_dirs *dirs, uint64_t *events, uint64_t *objects,
                    char *message, size_t cap) MUST_CHECK;

/*
 * Make the open journal of a stopped node, a copy of another node's, that of a node of its own: a
 * fresh id (*NODE), durable in NODE_ID and the database, and a hold journaled for every body that
 * is here. Before journal_start, which must not follow: stop and close it. After an error the same
 * call, after opening it anew, goes on.
 */
int journal_new_node(struct journal *journal, struct id128 *node) MUST_CHECK;

struct journal_verify_result {
    uint64_t origins, events;
    uint64_t breaks;   /* places where a chain does not fit */
    char message[256]; /* the first break */
    uint64_t frozen;   /* runs that were found to contradict themselves */
    uint64_t forks; /* runs that do not follow the end of the run before, or not alone: a restored
                       backup, or a copy */
    char note[384]; /* the first of these */
};
/* Check every origin's hash chain and sequence, and how runs follow each other. 0 also with breaks.
 * Frozen runs and forks are no breaks: what is here of each is sound. */
int journal_verify(struct db_reader *reader, struct journal_verify_result *out) MUST_CHECK;

/*
 * Back up a running or stopped store into the fresh (or empty) directory DIR: state/ (SQLite's
 * backup) and files/ (hard links of sealed segments and large files, or copies across file
 * systems); restorable by starting a node on it. manifest.json, written last, lists every file with
 * its size, and the SHA-256 of the database and of the small files; segments and large files bear
 * checksums of their own. The active segment is sealed first. ERR_EXISTS: there is something in
 * DIR; on other failures what was made is removed. May take long; from any thread of its own.
 */
int journal_backup(struct journal *journal, const char *dir, char *message, size_t cap) MUST_CHECK;

#endif
