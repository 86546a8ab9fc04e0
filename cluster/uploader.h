/*
 * Does what this node owes the cloud: uploads, marks of deletes, purges.
 *
 * What is owed stands in the journal's outbox, so nothing is lost by a stop. One thread looks up,
 * decides (cluster/owed.h) and takes the steps of what is under way (cluster/upload.h); the cloud's
 * backend and the committer do the rest and wake it.
 */
#ifndef CLUSTER_UPLOADER_H
#define CLUSTER_UPLOADER_H

#include "cluster/cluster.h"

struct uploader;

struct uploader_stats {
    uint64_t uploads, bytes; /* bodies that this node has brought there since the start */
    uint64_t there;          /* … that were found to be there already */
    uint64_t marks, purges;
    uint64_t failures; /* attempts that ended in vain */
    uint64_t flights;  /* under way */
    uint64_t resting;  /* failed, to be tried again */
    uint64_t
        oldest_ms;    /* Unix: since when the oldest upload is owed, as of the last look; 0: none */
    uint64_t alone;   /* bodies whose second copy was asked for and is not there yet */
    uint64_t seconds; /* second copies made since the start */
};

struct uploader_config {
    struct journal *journal; /* lent until uploader_destroy, as all of these */
    struct cluster *cluster;
    struct copies *copies; /* is told what the cloud does */
    struct env *env;
    struct cloud *cloud;    /* a guard: cluster/cloud_guard.h */
    const char *prefix;     /* NULL: none */
    unsigned outbox_copies; /* of a body while it is owed: 1 or 2 */
    bool writeback;         /* nobody waits for the cloud: second copies are made at once */
};

int uploader_create(struct uploader **out, const struct uploader_config *config) MUST_CHECK;
/* Begin, once. After journal_start and cluster_start. */
int uploader_start(struct uploader *uploader) MUST_CHECK;
/* Without uploader_start (the simulator): what it makes before the thread, and then the thread's
 * steps, from one thread. */
int uploader_open(struct uploader *uploader) MUST_CHECK;
/* Take note of what has come and do one thing; until when (monotonic, milliseconds) there is
 * nothing more to do without a poke or an answer; 0: at once. */
uint64_t uploader_step(struct uploader *uploader);
/* Whether one of these has come since. */
bool uploader_is_due(struct uploader *uploader);
/* Cancel all … */
void uploader_cancel(struct uploader *uploader);
/* … and call this until it says that all has ended: then it is closed. */
bool uploader_close_step(struct uploader *uploader) MUST_CHECK;

/* Cancel what is under way, wait for it, join. Before journal_stop and the cloud's end. Nothing,
 * where it was not started. */
void uploader_stop(struct uploader *uploader);
/* After uploader_stop and journal_stop. */
void uploader_destroy(struct uploader **uploader);

/* ---- News. Any thread, cheap, also before the start and after the stop. ---- */

/* The journal has news: something may be owed. */
void uploader_poke(struct uploader *uploader);
/* OBJECT's body, which is here, has become owed, and somebody may wait for it; OWN: by a put of
 * this node's. As poke, which has to follow. */
void uploader_new(struct uploader *uploader, const struct object *object, bool own);
/* NODE has journaled something about the cloud. As poke. */
void uploader_moved(struct uploader *uploader, const struct id128 *node);

/* Any thread. */
void uploader_stats(struct uploader *uploader, struct uploader_stats *out);

#endif
