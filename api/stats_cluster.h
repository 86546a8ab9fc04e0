/*
 * The cluster's part of the figures: who belongs to it and answers, and what went between this node
 * and the others. Taken once, then rendered in two ways; the renderings are pure.
 */
#ifndef API_STATS_CLUSTER_H
#define API_STATS_CLUSTER_H

#include "base/buf.h"
#include "cluster/cluster.h"

#define STATS_MEMBERS (LIMIT_MEMBERS + 1) /* listed at most: this node and the others */

struct stats_cluster {
    bool alone; /* never had others: health says so */
    struct cluster_stats figures;
    struct cluster_member members[STATS_MEMBERS]; /* as cluster_members gives them */
    size_t count;
};

/* CLUSTER NULL: a node SELF without one. Any thread. */
void stats_cluster_take(struct stats_cluster *out, struct cluster *cluster,
                        const struct id128 *self);

/* The members cluster, sync, transfer, replication, notes and link of an object that is being
 * written. */
void stats_cluster_json(struct buf *out, const struct stats_cluster *it);
void stats_cluster_metrics(struct buf *out, const struct stats_cluster *it);

/* "alone", "good", "degraded" or "bad". CLUSTER may be NULL. Any thread. */
const char *stats_cluster_health(struct cluster *cluster);

#endif
