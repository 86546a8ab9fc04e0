/*
 * The node's figures, twice: as JSON for people and tools, as Prometheus text for collectors. All
 * are kept as counters where things happen; nothing is scanned.
 */
#ifndef API_STATS_H
#define API_STATS_H

#include "api/http/http.h"
#include "api/store.h"
#include "base/buf.h"

/* What the figures are of; all lent. */
struct stats_source {
    struct store *store;
    struct cluster *cluster; /* NULL: the node is alone */
    struct http_server *server;
    const char *version, *tag;
    const char *durability;        /* "full" or "async" */
    uint64_t started_mono_ms;      /* env_mono_ms at the start */
    const char *const *operations; /* as in http_config */
    unsigned operation_count;
    const char *egress_price; /* of 10^9 bytes, decimal; NULL: 0 */
};

/* Append one JSON document, or one exposition in text format 0.0.4. From any thread; for a moment
 * locks what it reads.*/
void stats_json(struct buf *out, const struct stats_source *source);
void stats_metrics(struct buf *out, const struct stats_source *source);

/* "good", or "bad" where the node takes no writes any more. */
const char *stats_health(const struct journal_stats *journal);

#endif
