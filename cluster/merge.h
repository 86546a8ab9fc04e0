/*
 * Merging: what this node takes of another one's rows where events cannot help. Pure: no I/O,
 * clock, thread or randomness of its own; everything it remembers is bounded by base/limits.h.
 *
 * Two reasons. *Behind the cut*: a peer has compacted events that this node lacks (sync says so);
 * then it takes all that the peer knows, id range after id range, and at the end, when all of it is
 * durable, adopts the vector that the peer had at the beginning: from there events go on. *Unequal
 * digests at equal vectors*: the two compare sums of ranges, descend to where they differ, and each
 * takes those rows of the other. Rows are joined (journal/merge.h), so nothing is ever lost by it.
 *
 * The other side of it: this node gives what is asked of it, and has its caller keep the events
 * that lie above a vector that it gave, until the asker has adopted it or was silent for
 * MERGE_GUEST_MS.
 *
 * How a caller drives it: as sync (cluster/sync.h): one thread, merge_step for every input, the
 * list done in order, MERGE_TICK while there is more and at least every 100 ms. Texts in outputs
 * are lent until the next step.
 *
 * What the caller owes: one MERGE_READ_DONE for each MERGE_READ, one MERGE_SUMMED for each
 * MERGE_SUM, however they ended; one MERGE_COMMITTED for each MERGE_COMMIT, in their order; late
 * ones are harmless. Reads see at least what the vector of the configuration shows.
 */
#ifndef CLUSTER_MERGE_H
#define CLUSTER_MERGE_H

#include "cluster/vector.h"
#include "cluster/wire.h"
#include "journal/db_merge.h"

struct merge;

struct merge_config {
    struct id128 self;
    uint64_t seed;               /* of the core's dice */
    const struct vector *vector; /* what is known and applied here; lent for the core's life */
};

enum merge_input_kind {
    MERGE_TICK,
    MERGE_OWN,     /* the run of this very process: it is never adopted */
    MERGE_PEER,    /* it is alive now, or not any more */
    MERGE_BEHIND,  /* it has compacted what we lack */
    MERGE_COMPARE, /* it knows the same events: are the digests equal? */
    MERGE_MESSAGE, /* any WIRE_MERGE_* but for the cut's */
    MERGE_READ_DONE,
    MERGE_SUMMED,
    MERGE_COMMITTED,
};

/* What of ours: the members, the events that are in no row, the rows. */
enum merge_part { MERGE_MEMBERS, MERGE_EVENTS, MERGE_ROWS };

/* Read PART behind AFTER; of the rows (after, through]. Handed back as it was given. */
struct merge_read {
    struct id128 peer;
    uint64_t session;
    enum merge_part part;
    struct id128 after, through;
};

/* RC 0: DATA as db_merge_members, db_merge_events or db_merge_rows gives it, and LAST. */
struct merge_read_done {
    struct merge_read read;
    struct text data;
    struct id128 last;
    int rc;
};

/* Sums of our rows. FENCES empty: for ourselves, (after, through] cut into up to LIMIT_WIRE_FENCES
 * ranges of ROWS rows; else of what lies up to each of these ids. FENCES is lent. */
struct merge_sum {
    struct id128 peer; /* zero: ourselves */
    uint64_t session;
    struct id128 after, through;
    uint64_t rows;
    struct text fences;
};

struct merge_summed {
    struct id128 peer;
    uint64_t session;
    const struct db_fence *fences; /* lent */
    size_t count;                  /* at least 1 where RC is 0 */
    int rc;
};

struct merge_input {
    enum merge_input_kind kind;
    uint64_t now_ms; /* monotonic; never less than before */
    union {
        struct id128 own, behind;
        struct {
            struct id128 node;
            bool alive;
        } peer;
        struct {
            struct id128 node;
            bool equal;
            uint64_t rows; /* that this node has, about */
        } compare;
        struct wire_message message;
        struct merge_read_done read_done;
        struct merge_summed summed;
        struct {
            uint64_t token;
            int rc; /* as CHANGE_MERGE */
        } committed;
    };
};

enum merge_output_kind {
    MERGE_SEND,
    MERGE_READ,
    MERGE_SUM,
    MERGE_COMMIT, /* chunks into the journal (CHANGE_MERGE) */
    MERGE_HOLD,   /* events must stay, or (false) need not any more */
    MERGE_BEGUN,  /* for the log: a merge with PEER */
    MERGE_ENDED,  /* … and how that went */
};

struct merge_output {
    enum merge_output_kind kind;
    union {
        struct {
            struct id128 to;
            struct wire_message message; /* its tag is empty */
        } send;
        struct merge_read read;
        struct merge_sum sum;
        struct {
            uint64_t token;
            struct text data;
            /* Rows: what is to be adopted after the last of them; lent until the next step. */
            const struct wire_merge_run *runs;
            size_t run_count;
        } commit;
        bool hold;
        struct {
            struct id128 peer;
            bool repair;    /* of rows that differ; else: behind the cut */
            bool done;      /* ENDED: all of it */
            uint64_t bytes; /* ENDED: of chunks that became durable */
        } job;
    };
};

struct merge_outputs {
    struct merge_output *list; /* the core's, until the next step */
    size_t count;              /* at most LIMIT_MERGE_OUTPUTS */
    bool more;                 /* do these, then step on with MERGE_TICK */
};

/* Since the core was made. */
struct merge_stats {
    uint64_t adopted, repaired, given_up; /* merges that this node asked for */
    uint64_t rows_in, bytes_in;           /* of chunks that became durable here */
    uint64_t served, rows_out, bytes_out; /* sessions; chunks that were sent */
    uint64_t timeouts, ignored;
};

int merge_create(struct merge **out, const struct merge_config *config) MUST_CHECK;
void merge_destroy(struct merge **core);

/* Take note of INPUT; what is to be done goes to OUT, which is valid with each error: ERR_FULL (too
 * many peers), ERR_NO_MEMORY (a session was not begun). */
int merge_step(struct merge *core, const struct merge_input *input,
               struct merge_outputs *out) MUST_CHECK;

const struct merge_stats *merge_stats(const struct merge *core);

/* Sessions under way, asked and served: zero where all is quiet. */
size_t merge_busy(const struct merge *core);

#endif
