/*
 * Who waits until other nodes, or the cloud, have durable copies of a body, and how many have.
 *
 *   wait ──► one thread counts in SQLite ──► enough, or as asked: done
 *                     ▲          └─ not yet: the wait lies in a table by id
 *   journal ──news────┘ a hold, drop or delete of that id, members, who answers: counted again
 *
 * What counts is what the journal's views say, never a sum of news: news only say that it is worth
 * looking again. A wait is in the table before it is counted for the first time, and news come when
 * they are in SQLite; so no copy is missed in between, and nothing is polled.
 *
 * Bounds: LIMIT_COPY_WAITS at once; a wait is memory of its owner's, so that nothing here
 * allocates. Deadlines are the owner's: copies_cancel.
 */
#ifndef CLUSTER_COPIES_H
#define CLUSTER_COPIES_H

#include "journal/db_peers.h"
#include "journal/journal.h"

#include <stdatomic.h>

struct copies;

/* How many durable copies are waited for, this node's included. */
enum copies_need {
    COPIES_LOOK,   /* none: to be counted once */
    COPIES_ONE,    /* one member's */
    COPIES_SECOND, /* as many as a body has while it is owed to the cloud: two, or one where no
                      other member answers that could make the second, or it is there already */
    COPIES_CLOUD,  /* the cloud's; while that cannot be reached, as COPIES_SECOND */
    COPIES_QUORUM, /* more than half of the members' */
    COPIES_ALL,    /* every member's */
};

struct copies_wait {
    /* Set by the owner: which bytes. */
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    enum copies_need need;
    /* Called once, on copies' thread; the wait is the owner's again. It must not block. */
    void (*done)(struct copies_wait *wait);
    /* The outcome. */
    int rc; /* 0; or why `found` is not known, or of no use: ERR_DELETED, ERR_CONFLICT (other bytes
               are under the id now), ERR_NOT_FOUND, ERR_IO … */
    bool fulfilled;
    struct db_copies found;    /* the last count */
    _Atomic uint64_t moved_ms; /* when the cloud got some of it last (env_mono_ms); 0: it did not */
    /* copies' own. */
    struct copies_wait *next, *prev;         /* in the table */
    struct copies_wait *due_next, *due_prev; /* of those to be counted */
    bool listed, due, over;
};

/* What can be had just now. */
struct copies_chance {
    bool others_answer;     /* some other member does */
    bool cloud_answers;     /* there is one, and it can be reached from here */
    unsigned outbox_copies; /* of a body while it is owed to the cloud: 1 or 2 */
};
/* Whether FOUND is enough for NEED. Pure. */
bool copies_enough(enum copies_need need, const struct db_copies *found,
                   const struct copies_chance *chance);

/* JOURNAL is lent until copies_destroy. OUTBOX_COPIES: as above. */
int copies_create(struct copies **out, struct journal *journal, unsigned outbox_copies) MUST_CHECK;
/* After journal_open. */
int copies_start(struct copies *copies) MUST_CHECK;
/* End all waits as they stand, join. Before journal_stop. Nothing, where it was not started. */
void copies_stop(struct copies *copies);
/* After journal_stop: its last news come until then. */
void copies_destroy(struct copies **copies);

/* From any thread. ERR_FULL: LIMIT_COPY_WAITS wait; ERR_CLOSED: before the start, after the stop.
 * On an error `done` is not called. */
int copies_wait(struct copies *copies, struct copies_wait *wait) MUST_CHECK;
/* Have WAIT end now, after one more count: `done` follows soon. Any thread; nothing where `done` is
 * under way or was called. */
void copies_cancel(struct copies *copies, struct copies_wait *wait);

/* ---- News. Any thread; they do not block. ---- */

/* An event about copies, encoded, is in SQLite. */
void copies_news(struct copies *copies, const uint8_t *data, size_t len);
/* Who belongs to the cluster has changed, in SQLite, or much else at once. */
void copies_members(struct copies *copies);
/* COUNT other members answer now. */
void copies_others(struct copies *copies, unsigned count);
/* The cloud can, or cannot, be reached from here now. Before the first call: it cannot. */
void copies_cloud(struct copies *copies, bool answers);
/* The cloud got some of ID's body at NOW_MS. */
void copies_moved(struct copies *copies, const struct id128 *id, uint64_t now_ms);

struct copies_stats {
    uint64_t waiting;   /* now */
    uint64_t fulfilled; /* waits that ended with enough copies, … */
    uint64_t late;      /* … and without */
    uint64_t refused;   /* not begun: too many */
};
void copies_stats(struct copies *copies, struct copies_stats *out);

#endif
