/*
 * Makes the copies that this node lacks: every object of level 2 has its body on every node.
 *
 * What is wanted stands in the journal (db_reader_wanted), so nothing is lost by a stop. One thread
 * looks up and starts, as cluster/wanted.h says; a pool of two writes and hashes what comes
 * (cluster/replica.h). Copies that were found damaged are replaced in the same way. All bodies are
 * fetched in the background class, which never starves reads.
 */
#ifndef CLUSTER_REPLICATOR_H
#define CLUSTER_REPLICATOR_H

#include "cluster/cluster.h"

struct replicator;

struct replicator_stats {
    uint64_t wanted, wanted_bytes; /* copies that this node lacks */
    uint64_t flights;              /* of them, on their way */
    uint64_t done, bytes;          /* copies made since the start */
    uint64_t failures;             /* attempts that ended in vain */
    uint64_t corrupt;              /* … with other bytes than the row names */
    uint64_t repairs;              /* damaged copies that wait to be replaced */
    bool full;                     /* it waits for room on the disk */
};

/* JOURNAL, CLUSTER and ENV are lent until replicator_destroy. */
int replicator_create(struct replicator **out, struct journal *journal, struct cluster *cluster,
                      struct env *env) MUST_CHECK;
/* Begin, once. After journal_start and cluster_start. */
int replicator_start(struct replicator *replicator) MUST_CHECK;
/* Without replicator_start (the simulator): what it makes before the thread, and then the thread's
 * steps, from one thread. */
int replicator_open(struct replicator *replicator) MUST_CHECK;
/* Take note of what has ended and do one thing; until when (monotonic, milliseconds) there is
 * nothing more to do without a poke, a revival or an end; 0: at once. */
uint64_t replicator_step(struct replicator *replicator);
/* Whether one of these has come since. */
bool replicator_is_due(struct replicator *replicator);
/* Cancel all copies … */
void replicator_cancel(struct replicator *replicator);
/* … and call this until it says that they have ended: then it is closed. */
bool replicator_close_step(struct replicator *replicator) MUST_CHECK;

/* Cancel what is under way, wait for it, join. Before journal_stop; before or after cluster_stop,
 * but before cluster_close. Nothing, where it was not started. */
void replicator_stop(struct replicator *replicator);
/* After replicator_stop, cluster_stop and journal_stop: threads of theirs that brought the last
 * news or ended the last copies may be on their way out of it until then. */
void replicator_destroy(struct replicator **replicator);

/* The copy of OBJECT at its place is damaged: a good one from another node shall replace it. As
 * poke. */
void replicator_repair(struct replicator *replicator, const struct object *object);

/* The journal has news (journal_listen): copies may be wanted. Any thread, cheap, also before the
 * start and after the stop. */
void replicator_poke(struct replicator *replicator);

/* A copy of ID is wanted from now on, and somebody may wait for it. As poke, which has to follow.
 */
void replicator_want(struct replicator *replicator, const struct id128 *id);

/* Another node answers, for the first time or again: what failed is tried again soon. As poke. */
void replicator_revive(struct replicator *replicator);

/* Make a copy of each of ITEMS, though they are not for every node: a member that leaves asks for
 * it. What there is no room for is passed over: whoever asks asks again. Any thread, cheap. */
void replicator_adopt(struct replicator *replicator, const struct event_item *items, size_t count);

/* Any thread. */
void replicator_stats(struct replicator *replicator, struct replicator_stats *out);

#endif
