/*
 * What an operator (or the debug door) has a node do in its cluster at once: say a note to all,
 * read those of late, make the node known, sync now. Each is done by the cluster's thread, which
 * says when it is over and what came of it.
 */
#ifndef CLUSTER_ORDERS_H
#define CLUSTER_ORDERS_H

#include "cluster/cluster.h"

#define LIMIT_ORDERS      64   /* under way; more are refused */
#define ORDER_ANSWER_MS   3000 /* for a node to answer */
#define ORDER_SYNC_MS     10000
#define ORDER_ECHO_BYTES  200 /* of a note that are logged */
#define NOTE_RECORD_BYTES 44  /* before a note's data in `notes` below */

enum order_kind {
    ORDER_SAY = 1,     /* `data` to all */
    ORDER_READ,        /* the notes of late */
    ORDER_ANNOUNCE,    /* probe every member now */
    ORDER_ANNOUNCE_AT, /* ask whoever is at `address`, as one named with --nodes */
    ORDER_SYNC,        /* take what `node` has and we lack; zero: what any member has */
};

/* What came of ORDER_SYNC with one node. */
enum sync_result {
    SYNC_RESULT_EQUAL = 1, /* both know the same */
    SYNC_RESULT_SYNCED,    /* all that it had when it was asked is here now */
    SYNC_RESULT_AHEAD,     /* it has nothing that we lack; but lacks something, and will ask */
    SYNC_RESULT_BUSY,      /* it has too much to do, or we have */
    SYNC_RESULT_BEHIND,    /* it has compacted what we lack: a merge is needed */
    SYNC_RESULT_FAILED,    /* it broke off */
    SYNC_RESULT_SILENT,    /* it does not answer */
    SYNC_RESULT_LATE,      /* not done by ORDER_SYNC_MS; it goes on */
};

struct sync_outcome {
    struct id128 node;
    enum sync_result result; /* 0 while it is open */
    uint64_t events;         /* that came in asking it */
    /* The cluster's own. */
    bool told, asked;
    uint64_t sessions_before, events_before;
};

/* Embedded in its owner's struct, which lives until `done` was called, on the cluster's thread,
 * which it must not block. */
struct cluster_order {
    enum order_kind kind;
    struct text data;                       /* SAY: lent until `done` */
    char address[MEMBER_ADDRESS_BYTES + 1]; /* ANNOUNCE_AT: host[:port] */
    struct id128 node;                      /* SYNC: whom, ANNOUNCE_AT: who has answered */
    void (*done)(struct cluster_order *order);
    /*
     * What came of it. SAY: ERR_FULL (too many of late), ERR_TOO_BIG. ANNOUNCE_AT: ERR_TIMEOUT
     * (nobody answered), ERR_INVALID (no address), ERR_FULL (too many are being asked), ERR_EXISTS
     * (it is this node itself). SYNC: ERR_NOT_FOUND (no such member). All: ERR_CLOSED,
     * ERR_NO_MEMORY.
     */
    int rc;
    struct id128 note; /* SAY: its id */
    struct buf notes;  /* READ: see order_next_note; the owner releases it */
    struct sync_outcome outcomes[LIMIT_MEMBERS]; /* SYNC, by node id */
    size_t count;                                /* … of those; ANNOUNCE: of nodes probed */
    /* The cluster's own. */
    struct cluster_order *next;
    uint64_t begun_ms;
    bool added;
};

/* Have ORDER done; any thread. ERR_FULL, ERR_CLOSED: `done` is not called. */
int cluster_order(struct cluster *cluster, struct cluster_order *order) MUST_CHECK;

/* The notes out of ORDER_READ's `notes`, the oldest first, from *OFFSET = 0 on; false at the end.
 */
struct note_read {
    struct id128 id, author;
    uint64_t wall_ms;
    struct text data;
};
bool order_next_note(const struct buf *notes, size_t *offset, struct note_read *out);

/* "equal", "synced" … or "unknown". */
const char *sync_result_name(uint32_t result);

#endif
