/*
 * What this node does next of what is owed to the cloud: uploads, marks of deletes, purges, and
 * what a crash left in doubt. Which of the nodes that could do it is to do it, in what order, how
 * many at once, and when again after a failure. Pure: pages of the outbox, what nodes do, outcomes
 * and time come in; look-ups and starts come out. The outbox itself stays in SQLite: what is kept
 * here is a place in it, a bounded table of recent failures and a row for each member.
 *
 * Nothing here blocks or allocates after create. Not thread-safe. NOW_MS: any clock that never goes
 * back, the same for all calls.
 */
#ifndef CLUSTER_OWED_H
#define CLUSTER_OWED_H

#include "base/limits.h"
#include "journal/db.h"

struct owed;

/* SEED: for the spread of retries. */
int owed_create(struct owed **out, uint64_t seed, uint64_t now_ms) MUST_CHECK;
void owed_destroy(struct owed **owed);

/* The journal has news: something may have become owed. */
void owed_news(struct owed *owed);

/* ID has become owed just now: it goes before all others, as somebody may wait for it. OWN: by a
 * put of this node's, so that nobody comes before it. Where too many have, the sweep finds it. */
void owed_new(struct owed *owed, enum outbox_kind kind, const struct id128 *id, uint64_t size,
              bool own);

/* ---- Other nodes ---- */

struct owed_node {
    struct id128 node;
    bool answers;
};
/* The members that have joined, this node not among them. Who answers (again) gets time to do what
 * is his, and who does not answer for a while loses it. */
void owed_members(struct owed *owed, const struct owed_node *nodes, size_t count, uint64_t now_ms);
/* NODE has done something of what it owes. */
void owed_moved(struct owed *owed, const struct id128 *id, uint64_t now_ms);
/* From here the cloud can be reached since now; until a moment ago it could not. */
void owed_reached(struct owed *owed, uint64_t now_ms);

/* Whose turn it is. CANDIDATES: who could do it, the first one first; SELF is one of them. True:
 * this node's, now. Else whoever comes before it has time yet; he is remembered as busy. SIZE: of
 * the body. */
bool owed_turn(struct owed *owed, const struct id128 *candidates, size_t count,
               const struct id128 *self, uint64_t size, uint64_t now_ms);

/* ---- Steps ---- */

enum owed_act {
    OWED_WAIT,  /* nothing before until_ms (UINT64_MAX: before the next input) */
    OWED_READ,  /* up to LIMIT_OWED_PAGE rows of `kind` above `id` are to be given to owed_page */
    OWED_START, /* `id`; its end is to be told by owed_ended */
};

struct owed_step {
    enum owed_act act;
    enum outbox_kind kind;
    struct id128 id;
    bool own;     /* nobody comes before this node */
    bool started; /* this run has journaled that it started */
    uint64_t until_ms;
};

/* What to do next; to be done before the next call. Call it until it says OWED_WAIT. */
void owed_step(struct owed *owed, uint64_t now_ms, struct owed_step *out);

struct owed_row {
    struct id128 id;
    uint64_t size;
};
/* The COUNT rows above the one that OWED_READ named, in order; fewer than LIMIT_OWED_PAGE: the list
 * ends there. RC: they could not be read. */
void owed_page(struct owed *owed, int rc, const struct owed_row *rows, size_t count,
               uint64_t now_ms);

enum owed_outcome {
    OWED_DONE,   /* it is owed no more */
    OWED_GONE,   /* it was not, or it is another node's turn */
    OWED_AGAIN,  /* what is owed has changed: to be looked at again at once */
    OWED_FAILED, /* to be tried again after a while, which grows */
    OWED_BUSY,   /* not its fault: the cloud or the journal takes no more for now */
};

/* How what was under way ended. STARTED: this run has journaled that it started. RETRY_MS: the
 * cloud wants to be left alone with it for so long. */
void owed_ended(struct owed *owed, enum outbox_kind kind, const struct id128 *id,
                enum owed_outcome outcome, bool started, uint64_t retry_ms, uint64_t now_ms);

size_t owed_flights(const struct owed *owed);
size_t owed_failures(const struct owed *owed);

#endif
