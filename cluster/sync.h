/*
 * Journal sync: which events this node asks of whom, gives to whom, and pushes. Pure: no I/O,
 * clock, thread or randomness of its own; everything it remembers is bounded by base/limits.h.
 *
 * How a caller drives it. One thread (the cluster actor) owns the core. Whatever happens becomes an
 * input with the present monotonic time; sync_step answers with a list of things to do. Where the
 * list says that there is more, the caller does what it says and then steps on with SYNC_TICK,
 * until there is no more. Without any other input it gives a SYNC_TICK at least every 100 ms.
 *
 *     for (struct sync_outputs out = {.more = true}; out.more; input = tick) {
 *         sync_step(core, &input, &out);
 *         for (size_t i = 0; i < out.count; i++)
 *             perform(&out.list[i]);
 *     }
 *
 * Texts in outputs are lent: they lie in the core or in the input of the same step, and are gone
 * with the next step. So the core keeps no event's bytes, ever.
 *
 * What the caller owes:
 * - SYNC_LOCAL for every run at start, then whenever events are applied and durable here, whoever
 *   wrote them. Nothing may be reported before it is durable: it is told to others at once.
 * - One SYNC_READ_DONE for each SYNC_READ, in any order; one SYNC_COMMITTED for each SYNC_COMMIT,
 *   for each run in their order; however they ended. Late ones are harmless.
 * - A batch of SYNC_COMMIT goes into the journal only as far as it follows what is durable or
 *   queued there; events in it that are there already are skipped. A gap, and a chain of hashes
 *   that does not fit, are ERR_CONFLICT; the latter freezes the run, and comes back as SYNC_LOCAL
 *   with `frozen`: from then on it is neither taken, given, pushed nor compared. Events of this
 *   process's own run that it did not write are handed over, too. A gap comes about only behind a
 * batch of the same run that was refused: the core knows that this says nothing against the peer.
 * - Summaries out of probes, as they come. Its own probes carry sync_vector's sum, or an earlier
 *   one of the journal's.
 * - Messages go out in the order in which they were listed, per peer; they may get lost. The
 *   caller fills in the tag, and counts as alive whom the probes reach.
 *
 * The rules, in short; the .c files say more.
 * - A node asks; the asked one answers with what the asker lacks, in the order of origins, as far
 * as the asker's credit goes. Credit counts the bytes of events, at least SYNC_MESSAGE_CREDIT_BYTES
 *   for a message. SYNC_MORE wants the next page, and no other. The asker, too, may end a session
 *   (SYNC_END, cancel).
 * - Events of this process's own run are pushed to everybody who is in step: its summary equalled
 *   our sum, or a session that it asked for has caught up, or the run began when it was already
 *   alive. It leaves the step when it says that it found a gap (SYNC_END of session 0), dies, or
 *   leaves SYNC_PUSH_WINDOW_BYTES unacknowledged (SYNC_CREDIT of session 0).
 */
#ifndef CLUSTER_SYNC_H
#define CLUSTER_SYNC_H

#include "cluster/vector.h"
#include "cluster/wire.h"

struct sync;

struct sync_config {
    struct id128 self;
    uint64_t seed;    /* of the core's dice; unpredictable, where it matters */
    size_t run_limit; /* at most LIMIT_RUNS; 0: that */
};

enum sync_input_kind {
    SYNC_TICK,
    SYNC_LOCAL,        /* a run is known this far, durably, here */
    SYNC_PEER,         /* it is alive now, or not any more */
    SYNC_PEER_SUMMARY, /* what it says to know */
    SYNC_MESSAGE,      /* any WIRE_SYNC_*, as wire_decode gave it; others are ignored */
    SYNC_READ_DONE,
    SYNC_COMMITTED,
    SYNC_WISH, /* ask this peer now, if it may have what we lack */
};

struct sync_local {
    struct vector_run run; /* seq from 1 to WIRE_SEQ_MAX; of a frozen one it may be 0 */
    bool own;              /* of this very process: its news are pushed */
};

struct sync_peer {
    struct id128 node;
    bool alive;
};

struct sync_summary {
    struct id128 node;
    struct wire_summary summary;
};

/* PEER and SESSION are handed back as they were given; PEER is zero for the read of a push. */
struct sync_read {
    struct id128 peer;
    uint64_t session;
    struct id128 origin;
    uint64_t first;
    uint32_t limit_bytes; /* of data, its lengths included; but always at least one event */
};

/* RC 0: COUNT >= 1 events from FIRST on, laid out as wire_sync_events.data. They may be fewer than
 * there are. ERR_NOT_FOUND: no such event, perhaps not any more. */
struct sync_read_done {
    struct id128 peer;
    uint64_t session;
    struct id128 origin;
    uint64_t first;
    uint32_t count;
    struct text data;
    int rc;
};

/* Events of a peer for the journal. */
struct sync_commit {
    struct id128 peer;
    uint64_t session;
    struct id128 origin;
    uint64_t first;
    uint32_t count;
    struct text data;
};

/* The fate of one SYNC_COMMIT, its members as they were; BYTES: its data's length. 0: durable.
 * ERR_CONFLICT: does not fit; ERR_INVALID, ERR_UNSUPPORTED: no event that this build takes.
 * Anything else: not now (overloaded). */
struct sync_committed {
    struct id128 peer;
    uint64_t session;
    struct id128 origin;
    uint64_t first;
    uint32_t count;
    uint32_t bytes;
    int rc;
};

struct sync_input {
    enum sync_input_kind kind;
    uint64_t now_ms; /* monotonic; never less than before */
    union {
        struct sync_local local;
        struct sync_peer peer;
        struct sync_summary summary;
        struct wire_message message; /* its `from` is whoever sent it */
        struct sync_read_done read_done;
        struct sync_committed committed;
        struct id128 wish;
    };
};

enum sync_output_kind {
    SYNC_SEND,     /* to peer TO */
    SYNC_READ,     /* events out of the journal, without blocking the core's thread */
    SYNC_COMMIT,   /* events into the journal */
    SYNC_CONFLICT, /* PEER's events of ORIGIN do not fit, as the journal said */
    SYNC_FREEZE,   /* ORIGIN, a run of NODE, is frozen at a peer: journal that, too */
    SYNC_BEHIND,   /* PEER has compacted what we lack: merge with a snapshot of it */
};

struct sync_output {
    enum sync_output_kind kind;
    union {
        struct {
            struct id128 to;
            struct wire_message message; /* its tag is empty */
        } send;
        struct sync_read read;
        struct sync_commit commit;
        struct {
            struct id128 peer, origin;
            uint64_t seq; /* of the last event in what was refused */
            int rc;       /* as SYNC_COMMITTED said */
        } conflict;
        struct {
            struct id128 origin, node;
        } freeze;
        struct {
            struct id128 peer;
        } behind;
    };
};

struct sync_outputs {
    struct sync_output *list; /* the core's, until the next step */
    size_t count;             /* at most LIMIT_SYNC_OUTPUTS */
    bool more;                /* do these, then step on with SYNC_TICK */
};

/* Since the core was made. */
struct sync_stats {
    uint64_t asks, asks_gained;     /* sessions in which we asked, and those that brought events */
    uint64_t served;                /* sessions in which we were asked */
    uint64_t events_in, bytes_in;   /* that became durable here */
    uint64_t events_out, bytes_out; /* sent, pushes included, once for each peer */
    uint64_t pushes;                /* messages of session 0 that we sent */
    uint64_t duplicates;            /* events received that were known already */
    uint64_t gaps;                  /* messages received that begin behind what is known */
    uint64_t refused;               /* batches that the journal refused */
    uint64_t timeouts;              /* sessions dropped for want of progress */
    uint64_t ignored;               /* messages that made no sense where we are */
};

int sync_create(struct sync **out, const struct sync_config *config) MUST_CHECK;
void sync_destroy(struct sync **core);

/*
 * Take note of INPUT; what is to be done goes to OUT. Errors concern the input alone, OUT is valid
 * with each: ERR_NO_MEMORY (a session was not begun; a run was not noted: report it again),
 * ERR_FULL (too many runs or peers), ERR_INVALID (a run with an impossible seq).
 */
int sync_step(struct sync *core, const struct sync_input *input,
              struct sync_outputs *out) MUST_CHECK;

/* What is known. Lent, until the next step. */
const struct vector *sync_vector(const struct sync *core);

const struct sync_stats *sync_stats(const struct sync *core);

/* How far asking NODE has come. */
struct sync_asked {
    bool alive;
    bool equal;        /* its last summary is our sum */
    bool wished;       /* a session is due or under way */
    uint64_t ended;    /* sessions … */
    uint64_t events;   /* … and what became durable in them */
    enum wire_end end; /* of the last one: WIRE_END_CANCEL where we broke it off */
};

void sync_asked(const struct sync *core, const struct id128 *node, struct sync_asked *out);

/* Sessions and batches under way: zero where all is quiet. */
size_t sync_busy(const struct sync *core);

#endif
