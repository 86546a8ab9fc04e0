/*
 * One copy that this node makes for itself: an object's body on its way from other nodes, or from
 * the cloud, into the store.
 *
 *   cluster ──data──► memory (up to 256 KiB), or pool ──► a large file
 *           ──done──► pool: whole, and the SHA-256 that the row names? ──► journal (CHANGE_HOLD)
 *
 * Nothing is said about the copy before the journal has it durably. A large body's credit is given
 * back once its bytes are in the file, so that what waits in memory is at most one window.
 */
#ifndef CLUSTER_REPLICA_H
#define CLUSTER_REPLICA_H

#include "base/pool.h"
#include "cluster/cluster.h"
#include "cluster/wanted.h"

struct replica;

struct replica_host {
    struct journal *journal;
    struct cluster *cluster;
    struct pool *pool; /* takes one job for each replica, whatever else it holds */
    /* Called once for each replica that was started, from any thread. It must not block. */
    void (*ended)(void *arg, struct replica *replica);
    void *arg;
};

/*
 * Begin to copy the bytes that OBJECT names; HOST outlives the replica. Where OBJECT has a copy
 * here, that one is damaged: the new one takes its place, as long as it still lies there. On an
 * error nothing has
 * begun and `ended` will not be called: ERR_NO_SPACE; cluster_fetch_start's errors; ERR_NO_MEMORY.
 */
int replica_start(struct replica **out, const struct replica_host *host,
                  const struct object *object, const struct id128 *holders,
                  size_t count) MUST_CHECK;
/* How much of it may lie in memory at once. */
uint64_t replica_memory(const struct replica *replica);
/* Stop early: `ended` follows soon, if it was not called yet. Before replica_destroy. */
void replica_cancel(struct replica *replica);

/* ---- After `ended` ---- */

struct replica_result {
    struct id128 id;
    enum wanted_outcome outcome;
    int rc;         /* why; 0 for WANTED_DONE */
    uint64_t bytes; /* stored */
    bool repair;    /* a damaged copy was to be replaced */
};
void replica_result(const struct replica *replica, struct replica_result *out);
/* Frees it, and removes what it wrote where the store did not take it. May wait for the disk. */
void replica_destroy(struct replica **replica);

/* What the lack of room on JOURNAL's disk for one body means for others. */
enum wanted_outcome replica_lacks_room(struct journal *journal);

#endif
