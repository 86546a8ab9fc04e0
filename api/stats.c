/*
 * One snapshot of every counter, then two renderings of it. A figure that is new goes into both:
 * the JSON sections follow the ancestor (disk_stats) and issue by issue gain more; the metrics are
 * one table, so that each has its help and type.
 */
#include "api/stats.h"

#include "api/document.h"
#include "api/figures.h"
#include "api/stats_cloud.h"
#include "api/stats_cluster.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct snapshot {
    struct journal_stats journal;
    struct ram_stats ram;
    struct hot_stats hot;
    struct disk_cache_stats cache; /* all zero: there is none */
    uint64_t in_flight_bytes;      /* of memory: held for slow clients */
    struct http_stats http;
    char node[ULID_TEXT_BYTES + 1], origin[ULID_TEXT_BYTES + 1];
    uint64_t uptime_s;
    struct stats_cluster cluster;
    struct stats_cloud cloud;
};

static void take(struct snapshot *s, const struct stats_source *source)
{
    struct journal *journal = store_journal(source->store);
    struct id128 node = journal_node(journal);

    journal_stats(journal, &s->journal);
    ram_stats(store_ram(source->store), &s->ram);
    hot_blocks_stats(store_hot(source->store), &s->hot);
    s->cache = (struct disk_cache_stats){0};
    if (store_disk_cache(source->store))
        disk_cache_stats(store_disk_cache(source->store), &s->cache);
    const struct budget *memory = store_memory(source->store);
    s->in_flight_bytes = budget_used(memory);
    /* --memory is all of it together; the hot blocks' share is within the RAM tier's. */
    s->ram.limit_bytes += memory->limit;
    s->ram.used_bytes += s->in_flight_bytes + s->hot.used_bytes;
    http_server_stats(source->server, &s->http);
    ulid_format(s->node, &node);
    s->origin[0] = 0;
    if (!id_is_zero(&s->journal.origin))
        ulid_format(s->origin, &s->journal.origin);
    s->uptime_s = (env_mono_ms(store_env(source->store)) - source->started_mono_ms) / 1000;
    stats_cluster_take(&s->cluster, source->cluster, &node);
    stats_cloud_take(&s->cloud, source, &s->cluster.figures.cloud, &s->journal);
}

const char *stats_health(const struct journal_stats *journal)
{
    return journal->read_only ? "bad" : "good";
}

/* ---- JSON ---- */

static void add_disk(struct buf *out, const struct journal_stats *s)
{
    static const struct {
        const char *prefix;
        uint64_t bytes;
    } units[] = {{"bytes", 1}, {"kb", KIB}, {"mb", MIB}, {"gb", GIB}};
    uint64_t free_bytes = s->free_bytes < s->total_bytes ? s->free_bytes : s->total_bytes;
    char name[16];

    figures_begin(out, "disk_stats");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        (void)snprintf(name, sizeof name, "%s_all", units[i].prefix);
        figures_number(out, name, s->total_bytes / units[i].bytes);
        (void)snprintf(name, sizeof name, "%s_used", units[i].prefix);
        figures_number(out, name, (s->total_bytes - free_bytes) / units[i].bytes);
        (void)snprintf(name, sizeof name, "%s_free", units[i].prefix);
        figures_number(out, name, free_bytes / units[i].bytes);
    }
    figures_end(out);
}

static void add_node(struct buf *out, const struct snapshot *s, const struct stats_source *source)
{
    figures_begin(out, "node");
    figures_string(out, "id", s->node);
    figures_string(out, "version", source->version);
    figures_string(out, "tag", source->tag);
    figures_number(out, "uptime_s", s->uptime_s);
    figures_string(out, "durability", source->durability);
    figures_string(out, "health", stats_health(&s->journal));
    figures_boolean(out, "read_only", s->journal.read_only);
    figures_boolean(out, "disk_full", s->journal.full);
    figures_end(out);
}

#define DIGEST_TEXT_BYTES 33

static void digest_text(char out[DIGEST_TEXT_BYTES], const struct journal_stats *j)
{
    (void)snprintf(out, DIGEST_TEXT_BYTES, "%016llx%016llx", (unsigned long long)j->digest.high,
                   (unsigned long long)j->digest.low);
}

static void add_journal(struct buf *out, const struct snapshot *s)
{
    const struct journal_stats *j = &s->journal;
    char digest[DIGEST_TEXT_BYTES];

    digest_text(digest, j);
    figures_begin(out, "objects");
    figures_number(out, "count", j->objects);
    figures_number(out, "deleted", j->deleted);
    figures_number(out, "bytes", j->bytes);
    figures_end(out);

    figures_begin(out, "journal");
    figures_number(out, "events", j->events);
    figures_number(out, "event_bytes", j->event_bytes);
    figures_number(out, "compacted_events", j->compacted_events);
    figures_number(out, "frozen_runs", j->frozen_runs);
    figures_begin(out, "vector");
    if (s->origin[0])
        figures_number(out, s->origin, j->seq);
    figures_end(out);
    figures_string(out, "digest", digest);
    figures_number(out, "digest_schema", DIGEST_SCHEMA);
    figures_number(out, "position", j->synced);
    figures_number(out, "applied_position", j->applied.position);
    figures_number(out, "durable_position", j->durable_position);
    figures_number(out, "recovered_records", j->recovered_records);
    figures_number(out, "snapshot_position", j->snapshot_position);
    figures_number(out, "snapshots", j->snapshots);
    figures_number(out, "snapshot_bytes", j->snapshot_bytes);
    figures_end(out);

    figures_begin(out, "commit");
    figures_number(out, "batches", j->batches);
    figures_number(out, "records", j->records);
    figures_number(out, "syncs", j->syncs);
    figures_number(out, "pending", j->pending);
    figures_number(out, "pending_bytes", j->pending_bytes);
    figures_end(out);

    figures_begin(out, "outbox");
    figures_number(out, "count", j->outbox);
    figures_number(out, "bytes", j->outbox_bytes);
    figures_number(out, "marks", j->marks);
    figures_number(out, "purges", j->purges);
    figures_end(out);

    figures_begin(out, "conflicts");
    figures_number(out, "count", j->losers);
    figures_number(out, "bytes", j->loser_bytes);
    figures_number(out, "done", j->reputs);
    figures_end(out);

    figures_begin(out, "log");
    figures_number(out, "segments", j->segments);
    figures_number(out, "dead_bytes", j->dead_bytes);
    figures_number(out, "cleaned_segments", j->cleaned_segments);
    figures_number(out, "moved_records", j->moved_records);
    figures_number(out, "rotten_bytes", j->rotten_bytes);
    figures_end(out);
}

static void add_scrub(struct buf *out, const struct journal_stats *j)
{
    figures_begin(out, "scrub");
    figures_number(out, "objects", j->scrub_done);
    figures_number(out, "bytes", j->scrub_total_bytes);
    figures_number(out, "errors", j->scrub_errors);
    figures_number(out, "finished_ms", j->scrub_finished_ms);
    figures_end(out);
}

static void add_http(struct buf *out, const struct http_stats *http)
{
    char class[] = "0xx";

    figures_begin(out, "http");
    figures_begin(out, "requests");
    for (unsigned i = 1; i <= 5; i++) {
        class[0] = (char)('0' + i);
        figures_number(out, class, http->requests[i]);
    }
    figures_end(out);
    figures_number(out, "connections", http->connections);
    figures_number(out, "in_flight", http->in_flight);
    figures_number(out, "accepted", http->accepted);
    figures_number(out, "refused", http->refused);
    figures_number(out, "bytes_in", http->bytes_in);
    figures_number(out, "bytes_out", http->bytes_out);
    figures_end(out);
}

static void add_memory(struct buf *out, const struct snapshot *s)
{
    const struct ram_stats *ram = &s->ram;

    figures_begin(out, "memory");
    figures_number(out, "limit_bytes", ram->limit_bytes);
    figures_number(out, "used_bytes", ram->used_bytes);
    figures_number(out, "in_flight_bytes", s->in_flight_bytes);
    figures_number(out, "hot_blocks_bytes", s->hot.used_bytes);
    figures_number(out, "hot_blocks_sent_bytes", s->hot.sent_bytes);
    figures_number(out, "hits", ram->hits);
    figures_number(out, "misses", ram->misses);
    figures_number(out, "entries", ram->entries);
    figures_number(out, "locations", ram->locations);
    figures_number(out, "evictions", ram->evictions);
    figures_end(out);
}

static void add_disk_cache(struct buf *out, const struct disk_cache_stats *cache)
{
    figures_begin(out, "disk_cache");
    figures_number(out, "limit_bytes", cache->limit_bytes);
    figures_number(out, "used_bytes", cache->used_bytes);
    figures_number(out, "copies", cache->copies);
    figures_number(out, "hits", cache->hits);
    figures_number(out, "misses", cache->misses);
    figures_number(out, "stored", cache->stored);
    figures_number(out, "evictions", cache->evicted);
    figures_number(out, "bad_blocks", cache->bad_blocks);
    figures_end(out);
}

static void add_faults(struct buf *out, const struct journal_stats *j)
{
    figures_begin(out, "faults");
    figures_number(out, "bad_blocks", j->bad_blocks);
    figures_number(out, "repaired", j->repaired);
    figures_number(out, "lost", j->lost);
    figures_number(out, "conflicts", j->conflicts);
    figures_number(out, "clock", j->clock);
    figures_number(out, "refused", j->refused);
    figures_end(out);
}

void stats_json(struct buf *out, const struct stats_source *source)
{
    struct snapshot s;

    take(&s, source);
    buf_char(out, '{');
    add_disk(out, &s.journal);
    add_node(out, &s, source);
    add_journal(out, &s);
    add_memory(out, &s);
    add_disk_cache(out, &s.cache);
    add_http(out, &s.http);
    add_scrub(out, &s.journal);
    add_faults(out, &s.journal);
    stats_cluster_json(out, &s.cluster);
    stats_cloud_json(out, &s.cloud);
    buf_text(out, "}\n");
}

/* ---- Prometheus ---- */

static void metrics_node(struct buf *out, const struct snapshot *s,
                         const struct stats_source *source)
{
    figures_head(out, "objstore_node_info", "The node: always 1, told by its labels", "gauge");
    buf_text(out, "objstore_node_info{");
    figures_label(out, "id", s->node);
    buf_char(out, ',');
    figures_label(out, "version", source->version);
    buf_char(out, ',');
    figures_label(out, "tag", source->tag);
    buf_char(out, ',');
    figures_label(out, "durability", source->durability);
    buf_text(out, "} 1\n");
}

static void metrics_journal(struct buf *out, const struct snapshot *s)
{
    const struct journal_stats *j = &s->journal;
    uint64_t free_bytes = j->free_bytes < j->total_bytes ? j->free_bytes : j->total_bytes;
    const struct figure metrics[] = {
        {"objstore_uptime_seconds", "Seconds since the start", FIGURE_GAUGE, s->uptime_s},
        {"objstore_read_only", "1 where the node takes no writes", FIGURE_GAUGE, j->read_only},
        {"objstore_disk_full", "1 where less than the reserve is free", FIGURE_GAUGE, j->full},
        {"objstore_disk_bytes", "Size of the files directory's disk", FIGURE_GAUGE, j->total_bytes},
        {"objstore_disk_used_bytes", "Used of it", FIGURE_GAUGE, j->total_bytes - free_bytes},
        {"objstore_disk_free_bytes", "Free of it", FIGURE_GAUGE, free_bytes},
        {"objstore_objects", "Live objects", FIGURE_GAUGE, j->objects},
        {"objstore_objects_deleted", "Tombstones", FIGURE_GAUGE, j->deleted},
        {"objstore_objects_bytes", "Bytes of live objects' bodies", FIGURE_GAUGE, j->bytes},
        {"objstore_journal_events", "Events in the journal", FIGURE_GAUGE, j->events},
        {"objstore_journal_event_bytes", "Their bytes", FIGURE_GAUGE, j->event_bytes},
        {"objstore_journal_frozen_runs", "Runs that two processes wrote under", FIGURE_GAUGE,
         j->frozen_runs},
        {"objstore_journal_compacted_events_total", "Events that snapshots replaced",
         FIGURE_COUNTER, j->compacted_events},
        {"objstore_journal_snapshots_total", "Snapshots written", FIGURE_COUNTER, j->snapshots},
        {"objstore_journal_snapshot_bytes", "Size of the last one written", FIGURE_GAUGE,
         j->snapshot_bytes},
        {"objstore_journal_snapshot_position_bytes", "Where the newest one lies in the log",
         FIGURE_GAUGE, j->snapshot_position},
        {"objstore_journal_position_bytes", "End of the durable log", FIGURE_GAUGE, j->synced},
        {"objstore_journal_applied_position_bytes", "Applied to the database up to here",
         FIGURE_GAUGE, j->applied.position},
        {"objstore_journal_durable_position_bytes", "In a synced checkpoint up to here",
         FIGURE_GAUGE, j->durable_position},
        {"objstore_journal_recovered_records", "Records replayed at the start", FIGURE_GAUGE,
         j->recovered_records},
        {"objstore_commit_batches_total", "Batches written", FIGURE_COUNTER, j->batches},
        {"objstore_commit_records_total", "Records written", FIGURE_COUNTER, j->records},
        {"objstore_commit_syncs_total", "Syncs of the log", FIGURE_COUNTER, j->syncs},
        {"objstore_commit_pending", "Changes durable but not yet in the database", FIGURE_GAUGE,
         j->pending},
        {"objstore_commit_pending_bytes", "Memory that they take", FIGURE_GAUGE, j->pending_bytes},
    };

    figures_metrics(out, metrics, sizeof metrics / sizeof *metrics);
}

/* What is owed, kept and checked. */
static void metrics_upkeep(struct buf *out, const struct journal_stats *j)
{
    const struct figure metrics[] = {
        {"objstore_outbox", "Uploads owed to the cloud", FIGURE_GAUGE, j->outbox},
        {"objstore_outbox_bytes", "Bytes owed to the cloud", FIGURE_GAUGE, j->outbox_bytes},
        {"objstore_outbox_marks", "Deletes owed their mark in the cloud", FIGURE_GAUGE, j->marks},
        {"objstore_outbox_purges", "Copies to be removed from the cloud", FIGURE_GAUGE, j->purges},
        {"objstore_conflicts_count", "Bodies that lost under their id, yet to get one of their own",
         FIGURE_GAUGE, j->losers},
        {"objstore_conflicts_bytes", "Their bytes", FIGURE_GAUGE, j->loser_bytes},
        {"objstore_conflicts_done_total", "Bodies that lost and got an id of their own",
         FIGURE_COUNTER, j->reputs},
        {"objstore_log_segments", "Segments of the log", FIGURE_GAUGE, j->segments},
        {"objstore_log_dead_bytes", "Bytes in it that nothing needs", FIGURE_GAUGE, j->dead_bytes},
        {"objstore_log_cleaned_segments_total", "Segments cleaned and removed", FIGURE_COUNTER,
         j->cleaned_segments},
        {"objstore_log_moved_records_total", "Records moved by cleaning", FIGURE_COUNTER,
         j->moved_records},
        {"objstore_log_rotten_bytes", "Damaged bytes skipped at the start", FIGURE_GAUGE,
         j->rotten_bytes},
        {"objstore_scrub_objects", "Objects checked in this round of scrubbing", FIGURE_GAUGE,
         j->scrub_done},
        {"objstore_scrub_bytes_total", "Bytes read and checked by scrubbing", FIGURE_COUNTER,
         j->scrub_total_bytes},
        {"objstore_scrub_errors_total", "Damaged bodies that scrubbing found", FIGURE_COUNTER,
         j->scrub_errors},
        {"objstore_faults_bad_blocks_total", "Blocks that failed their checksum", FIGURE_COUNTER,
         j->bad_blocks},
        {"objstore_faults_repaired_total", "Bodies repaired", FIGURE_COUNTER, j->repaired},
        {"objstore_faults_lost_total", "Bodies lost", FIGURE_COUNTER, j->lost},
        {"objstore_faults_conflicts_total", "Different bytes under one id", FIGURE_COUNTER,
         j->conflicts},
        {"objstore_faults_clock_total", "Timestamps too far in the future", FIGURE_COUNTER,
         j->clock},
        {"objstore_faults_refused_total", "Changes refused", FIGURE_COUNTER, j->refused},
    };

    figures_metrics(out, metrics, sizeof metrics / sizeof *metrics);
}

/* What is no number stands in labels, as in stats. */
static void metrics_vector(struct buf *out, const struct snapshot *s)
{
    char digest[DIGEST_TEXT_BYTES];

    digest_text(digest, &s->journal);
    figures_head(out, "objstore_journal_info", "The journal's state: always 1, told by its labels",
                 "gauge");
    buf_format(out, "objstore_journal_info{digest=\"%s\",digest_schema=\"%u\"} 1\n", digest,
               (unsigned)DIGEST_SCHEMA);
    figures_head(out, "objstore_journal_vector", "The last event, by origin", "gauge");
    if (s->origin[0])
        buf_format(out, "objstore_journal_vector{origin=\"%s\"} %llu\n", s->origin,
                   (unsigned long long)s->journal.seq);
    figures_head(out, "objstore_scrub_finished_seconds",
                 "When a round of scrubbing last ended, Unix time", "gauge");
    buf_text(out, "objstore_scrub_finished_seconds ");
    figures_seconds(out, s->journal.scrub_finished_ms * 1000);
    buf_char(out, '\n');
}

static void metrics_disk_cache(struct buf *out, const struct disk_cache_stats *cache)
{
    const struct figure metrics[] = {
        {"objstore_disk_cache_limit_bytes", "--disk-cache, or a tenth of the disk", FIGURE_GAUGE,
         cache->limit_bytes},
        {"objstore_disk_cache_used_bytes", "Used of it", FIGURE_GAUGE, cache->used_bytes},
        {"objstore_disk_cache_copies", "Bodies of other nodes kept on disk", FIGURE_GAUGE,
         cache->copies},
        {"objstore_disk_cache_hits_total", "Reads served from there", FIGURE_COUNTER, cache->hits},
        {"objstore_disk_cache_misses_total", "Reads that were not", FIGURE_COUNTER, cache->misses},
        {"objstore_disk_cache_stored_total", "Bodies that came in", FIGURE_COUNTER, cache->stored},
        {"objstore_disk_cache_evictions_total", "Of them: evicted for others", FIGURE_COUNTER,
         cache->evicted},
        {"objstore_disk_cache_bad_blocks_total", "Damaged blocks found, never served",
         FIGURE_COUNTER, cache->bad_blocks},
    };

    figures_metrics(out, metrics, sizeof metrics / sizeof *metrics);
}

static void metrics_doors(struct buf *out, const struct snapshot *s)
{
    const struct ram_stats *ram = &s->ram;
    const struct http_stats *http = &s->http;
    const struct figure metrics[] = {
        {"objstore_memory_limit_bytes", "--memory", FIGURE_GAUGE, ram->limit_bytes},
        {"objstore_memory_used_bytes", "Used of it", FIGURE_GAUGE, ram->used_bytes},
        {"objstore_memory_in_flight_bytes", "Of that: held for clients that are slow", FIGURE_GAUGE,
         s->in_flight_bytes},
        {"objstore_memory_hot_blocks_bytes", "Of that: blocks of large bodies", FIGURE_GAUGE,
         s->hot.used_bytes},
        {"objstore_memory_hot_blocks_sent_bytes_total", "Bytes of large bodies sent from memory",
         FIGURE_COUNTER, s->hot.sent_bytes},
        {"objstore_memory_hits_total", "Reads served from memory", FIGURE_COUNTER, ram->hits},
        {"objstore_memory_misses_total", "Reads that were not", FIGURE_COUNTER, ram->misses},
        {"objstore_memory_entries", "Bodies held in memory", FIGURE_GAUGE, ram->entries},
        {"objstore_memory_locations", "Locations held in memory", FIGURE_GAUGE, ram->locations},
        {"objstore_memory_evictions_total", "Bodies evicted from memory", FIGURE_COUNTER,
         ram->evictions},
        {"objstore_http_connections", "Open connections", FIGURE_GAUGE, http->connections},
        {"objstore_http_in_flight", "Requests under way", FIGURE_GAUGE, http->in_flight},
        {"objstore_http_accepted_total", "Connections accepted", FIGURE_COUNTER, http->accepted},
        {"objstore_http_refused_total", "Connections refused", FIGURE_COUNTER, http->refused},
        {"objstore_http_received_bytes_total", "Bytes received", FIGURE_COUNTER, http->bytes_in},
        {"objstore_http_sent_bytes_total", "Bytes sent", FIGURE_COUNTER, http->bytes_out},
    };

    figures_metrics(out, metrics, sizeof metrics / sizeof *metrics);
    figures_head(out, "objstore_http_requests_total", "Requests answered, by class of status",
                 "counter");
    for (unsigned i = 1; i <= 5; i++)
        buf_format(out, "objstore_http_requests_total{class=\"%uxx\"} %llu\n", i,
                   (unsigned long long)http->requests[i]);
}

static void metrics_latency(struct buf *out, const struct http_stats *http,
                            const struct stats_source *source)
{
    static const char name[] = "objstore_http_request_duration_seconds";

    figures_head(out, name, "From a request's header to its answer's last byte, by operation",
                 "histogram");
    for (unsigned i = 0; i < source->operation_count; i++) {
        const struct http_operation_stats *o = &http->operations[i];
        const char *operation = source->operations[i];
        uint64_t sum = 0;

        for (unsigned b = 0; b < HTTP_LATENCY_BUCKETS; b++) {
            sum += o->buckets[b];
            buf_format(out, "%s_bucket{operation=\"%s\",le=\"", name, operation);
            if (b + 1 < HTTP_LATENCY_BUCKETS)
                figures_seconds(out, http_latency_bounds_us[b]);
            else
                buf_text(out, "+Inf");
            buf_format(out, "\"} %llu\n", (unsigned long long)sum);
        }
        buf_format(out, "%s_sum{operation=\"%s\"} ", name, operation);
        figures_seconds(out, o->sum_us);
        /* The buckets' sum, not o->count: other loops may have moved on between the two. */
        buf_format(out, "\n%s_count{operation=\"%s\"} %llu\n", name, operation,
                   (unsigned long long)sum);
    }
}

void stats_metrics(struct buf *out, const struct stats_source *source)
{
    struct snapshot s;

    assert(source->operation_count <= HTTP_MAX_OPERATIONS);
    take(&s, source);
    metrics_node(out, &s, source);
    metrics_journal(out, &s);
    metrics_upkeep(out, &s.journal);
    metrics_vector(out, &s);
    metrics_doors(out, &s);
    metrics_disk_cache(out, &s.cache);
    metrics_latency(out, &s.http, source);
    stats_cluster_metrics(out, &s.cluster);
    stats_cloud_metrics(out, &s.cloud);
}
