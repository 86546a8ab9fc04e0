/* What the node's figures say of the cloud: api/stats.h's section `cloud`. */
#ifndef API_STATS_CLOUD_H
#define API_STATS_CLOUD_H

#include "api/stats.h"
#include "cluster/uploader.h"

struct stats_cloud {
    const char *backend, *bucket; /* "none" and "" without one */
    struct cloud_figures figures;
    struct cluster_cloud_stats reads;
    struct uploader_stats uploads;
    uint64_t pending, pending_bytes, oldest_s; /* the outbox */
    uint64_t served_bytes, saved_bytes;
    const char *price; /* of 10^9 bytes */
    double saved;      /* an estimate */
};

/* READS: as cluster_stats has it; JOURNAL's outbox. */
void stats_cloud_take(struct stats_cloud *out, const struct stats_source *source,
                      const struct cluster_cloud_stats *reads, const struct journal_stats *journal);
void stats_cloud_json(struct buf *out, const struct stats_cloud *it);
void stats_cloud_metrics(struct buf *out, const struct stats_cloud *it);

#endif
