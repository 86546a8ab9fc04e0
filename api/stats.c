/*
 * One snapshot of every counter, then two renderings of it. A figure that is new goes into both:
 * the JSON sections follow the ancestor (disk_stats) and issue by issue gain more; the metrics are
 * one table, so that each has its help and type.
 */
#include "api/stats.h"

#include "api/document.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct snapshot {
    struct journal_stats journal;
    struct ram_stats ram;
    struct hot_stats hot;
    uint64_t in_flight_bytes; /* of memory: held for slow clients */
    struct http_stats http;
    char node[ULID_TEXT_BYTES + 1], origin[ULID_TEXT_BYTES + 1];
    uint64_t uptime_s;
};

static void take(struct snapshot *s, const struct stats_source *source)
{
    struct journal *journal = store_journal(source->store);
    struct id128 node = journal_node(journal);

    journal_stats(journal, &s->journal);
    ram_stats(store_ram(source->store), &s->ram);
    hot_blocks_stats(store_hot(source->store), &s->hot);
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
}

const char *stats_health(const struct journal_stats *journal)
{
    return journal->read_only ? "bad" : "good";
}

/* ---- JSON ---- */

/* A member of an object that is being written: a comma before it unless it is the first. */
static void key(struct buf *out, const char *name)
{
    if (out->len && out->data[out->len - 1] != '{')
        buf_char(out, ',');
    buf_char(out, '"');
    buf_text(out, name);
    buf_text(out, "\":");
}

static void number(struct buf *out, const char *name, uint64_t value)
{
    key(out, name);
    document_number(out, value);
}

static void string(struct buf *out, const char *name, const char *value)
{
    key(out, name);
    buf_json(out, value, strlen(value));
}

static void boolean(struct buf *out, const char *name, bool value)
{
    key(out, name);
    buf_text(out, value ? "true" : "false");
}

static void begin(struct buf *out, const char *name)
{
    key(out, name);
    buf_char(out, '{');
}

static void end(struct buf *out)
{
    buf_char(out, '}');
}

static void add_disk(struct buf *out, const struct journal_stats *s)
{
    static const struct {
        const char *prefix;
        uint64_t bytes;
    } units[] = {{"bytes", 1}, {"kb", KIB}, {"mb", MIB}, {"gb", GIB}};
    uint64_t free_bytes = s->free_bytes < s->total_bytes ? s->free_bytes : s->total_bytes;
    char name[16];

    begin(out, "disk_stats");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        (void)snprintf(name, sizeof name, "%s_all", units[i].prefix);
        number(out, name, s->total_bytes / units[i].bytes);
        (void)snprintf(name, sizeof name, "%s_used", units[i].prefix);
        number(out, name, (s->total_bytes - free_bytes) / units[i].bytes);
        (void)snprintf(name, sizeof name, "%s_free", units[i].prefix);
        number(out, name, free_bytes / units[i].bytes);
    }
    end(out);
}

static void add_node(struct buf *out, const struct snapshot *s, const struct stats_source *source)
{
    begin(out, "node");
    string(out, "id", s->node);
    string(out, "version", source->version);
    string(out, "tag", source->tag);
    number(out, "uptime_s", s->uptime_s);
    string(out, "durability", source->durability);
    string(out, "health", stats_health(&s->journal));
    boolean(out, "read_only", s->journal.read_only);
    boolean(out, "disk_full", s->journal.full);
    end(out);
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
    begin(out, "objects");
    number(out, "count", j->objects);
    number(out, "deleted", j->deleted);
    number(out, "bytes", j->bytes);
    end(out);

    begin(out, "journal");
    number(out, "events", j->events);
    number(out, "event_bytes", j->event_bytes);
    number(out, "compacted_events", j->compacted_events);
    begin(out, "vector");
    if (s->origin[0])
        number(out, s->origin, j->seq);
    end(out);
    string(out, "digest", digest);
    number(out, "digest_schema", DIGEST_SCHEMA);
    number(out, "position", j->synced);
    number(out, "applied_position", j->applied.position);
    number(out, "durable_position", j->durable_position);
    number(out, "recovered_records", j->recovered_records);
    number(out, "snapshot_position", j->snapshot_position);
    number(out, "snapshots", j->snapshots);
    number(out, "snapshot_bytes", j->snapshot_bytes);
    end(out);

    begin(out, "commit");
    number(out, "batches", j->batches);
    number(out, "records", j->records);
    number(out, "syncs", j->syncs);
    number(out, "pending", j->pending);
    number(out, "pending_bytes", j->pending_bytes);
    end(out);

    begin(out, "outbox");
    number(out, "count", j->outbox);
    number(out, "bytes", j->outbox_bytes);
    end(out);

    begin(out, "log");
    number(out, "segments", j->segments);
    number(out, "dead_bytes", j->dead_bytes);
    number(out, "cleaned_segments", j->cleaned_segments);
    number(out, "moved_records", j->moved_records);
    number(out, "rotten_bytes", j->rotten_bytes);
    end(out);
}

static void add_scrub(struct buf *out, const struct journal_stats *j)
{
    begin(out, "scrub");
    number(out, "objects", j->scrub_done);
    number(out, "bytes", j->scrub_total_bytes);
    number(out, "errors", j->scrub_errors);
    number(out, "finished_ms", j->scrub_finished_ms);
    end(out);
}

static void add_http(struct buf *out, const struct http_stats *http)
{
    char class[] = "0xx";

    begin(out, "http");
    begin(out, "requests");
    for (unsigned i = 1; i <= 5; i++) {
        class[0] = (char)('0' + i);
        number(out, class, http->requests[i]);
    }
    end(out);
    number(out, "connections", http->connections);
    number(out, "in_flight", http->in_flight);
    number(out, "accepted", http->accepted);
    number(out, "refused", http->refused);
    number(out, "bytes_in", http->bytes_in);
    number(out, "bytes_out", http->bytes_out);
    end(out);
}

static void add_memory(struct buf *out, const struct snapshot *s)
{
    const struct ram_stats *ram = &s->ram;

    begin(out, "memory");
    number(out, "limit_bytes", ram->limit_bytes);
    number(out, "used_bytes", ram->used_bytes);
    number(out, "in_flight_bytes", s->in_flight_bytes);
    number(out, "hot_blocks_bytes", s->hot.used_bytes);
    number(out, "hot_blocks_sent_bytes", s->hot.sent_bytes);
    number(out, "hits", ram->hits);
    number(out, "misses", ram->misses);
    number(out, "entries", ram->entries);
    number(out, "locations", ram->locations);
    number(out, "evictions", ram->evictions);
    end(out);
}

static void add_faults(struct buf *out, const struct journal_stats *j)
{
    begin(out, "faults");
    number(out, "bad_blocks", j->bad_blocks);
    number(out, "repaired", j->repaired);
    number(out, "lost", j->lost);
    number(out, "conflicts", j->conflicts);
    number(out, "clock", j->clock);
    number(out, "refused", j->refused);
    end(out);
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
    add_http(out, &s.http);
    add_scrub(out, &s.journal);
    add_faults(out, &s.journal);
    buf_text(out, "}\n");
}

/* ---- Prometheus ---- */

enum metric_type { GAUGE, COUNTER };

struct metric {
    const char *name, *help;
    enum metric_type type;
    uint64_t value;
};

static void head(struct buf *out, const char *name, const char *help, const char *type)
{
    buf_text(out, "# HELP ");
    buf_text(out, name);
    buf_char(out, ' ');
    buf_text(out, help);
    buf_text(out, "\n# TYPE ");
    buf_text(out, name);
    buf_char(out, ' ');
    buf_text(out, type);
    buf_char(out, '\n');
}

static void add_metrics(struct buf *out, const struct metric *metrics, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct metric *m = &metrics[i];

        head(out, m->name, m->help, m->type == GAUGE ? "gauge" : "counter");
        buf_text(out, m->name);
        buf_char(out, ' ');
        document_number(out, m->value);
        buf_char(out, '\n');
    }
}

/* A label's value: backslash, quote and newline escaped (text format 0.0.4). */
static void label(struct buf *out, const char *name, const char *value)
{
    buf_text(out, name);
    buf_text(out, "=\"");
    for (; *value; value++) {
        if (*value == '\n') {
            buf_text(out, "\\n");
            continue;
        }
        if (*value == '\\' || *value == '"')
            buf_char(out, '\\');
        buf_char(out, *value);
    }
    buf_char(out, '"');
}

static void metrics_node(struct buf *out, const struct snapshot *s,
                         const struct stats_source *source)
{
    head(out, "objstore_node_info", "The node: always 1, told by its labels", "gauge");
    buf_text(out, "objstore_node_info{");
    label(out, "id", s->node);
    buf_char(out, ',');
    label(out, "version", source->version);
    buf_char(out, ',');
    label(out, "tag", source->tag);
    buf_char(out, ',');
    label(out, "durability", source->durability);
    buf_text(out, "} 1\n");
}

static void metrics_journal(struct buf *out, const struct snapshot *s)
{
    const struct journal_stats *j = &s->journal;
    uint64_t free_bytes = j->free_bytes < j->total_bytes ? j->free_bytes : j->total_bytes;
    const struct metric metrics[] = {
        {"objstore_uptime_seconds", "Seconds since the start", GAUGE, s->uptime_s},
        {"objstore_read_only", "1 where the node takes no writes", GAUGE, j->read_only},
        {"objstore_disk_full", "1 where less than the reserve is free", GAUGE, j->full},
        {"objstore_disk_bytes", "Size of the files directory's disk", GAUGE, j->total_bytes},
        {"objstore_disk_used_bytes", "Used of it", GAUGE, j->total_bytes - free_bytes},
        {"objstore_disk_free_bytes", "Free of it", GAUGE, free_bytes},
        {"objstore_objects", "Live objects", GAUGE, j->objects},
        {"objstore_objects_deleted", "Tombstones", GAUGE, j->deleted},
        {"objstore_objects_bytes", "Bytes of live objects' bodies", GAUGE, j->bytes},
        {"objstore_journal_events", "Events in the journal", GAUGE, j->events},
        {"objstore_journal_event_bytes", "Their bytes", GAUGE, j->event_bytes},
        {"objstore_journal_compacted_events_total", "Events that snapshots replaced", COUNTER,
         j->compacted_events},
        {"objstore_journal_snapshots_total", "Snapshots written", COUNTER, j->snapshots},
        {"objstore_journal_snapshot_bytes", "Size of the last one written", GAUGE,
         j->snapshot_bytes},
        {"objstore_journal_snapshot_position_bytes", "Where the newest one lies in the log", GAUGE,
         j->snapshot_position},
        {"objstore_journal_position_bytes", "End of the durable log", GAUGE, j->synced},
        {"objstore_journal_applied_position_bytes", "Applied to the database up to here", GAUGE,
         j->applied.position},
        {"objstore_journal_durable_position_bytes", "In a synced checkpoint up to here", GAUGE,
         j->durable_position},
        {"objstore_journal_recovered_records", "Records replayed at the start", GAUGE,
         j->recovered_records},
        {"objstore_commit_batches_total", "Batches written", COUNTER, j->batches},
        {"objstore_commit_records_total", "Records written", COUNTER, j->records},
        {"objstore_commit_syncs_total", "Syncs of the log", COUNTER, j->syncs},
        {"objstore_commit_pending", "Changes durable but not yet in the database", GAUGE,
         j->pending},
        {"objstore_commit_pending_bytes", "Memory that they take", GAUGE, j->pending_bytes},
        {"objstore_outbox", "Uploads owed to the cloud", GAUGE, j->outbox},
        {"objstore_outbox_bytes", "Bytes owed to the cloud", GAUGE, j->outbox_bytes},
        {"objstore_log_segments", "Segments of the log", GAUGE, j->segments},
        {"objstore_log_dead_bytes", "Bytes in it that nothing needs", GAUGE, j->dead_bytes},
        {"objstore_log_cleaned_segments_total", "Segments cleaned and removed", COUNTER,
         j->cleaned_segments},
        {"objstore_log_moved_records_total", "Records moved by cleaning", COUNTER,
         j->moved_records},
        {"objstore_log_rotten_bytes", "Damaged bytes skipped at the start", GAUGE, j->rotten_bytes},
        {"objstore_scrub_objects", "Objects checked in this round of scrubbing", GAUGE,
         j->scrub_done},
        {"objstore_scrub_bytes_total", "Bytes read and checked by scrubbing", COUNTER,
         j->scrub_total_bytes},
        {"objstore_scrub_errors_total", "Damaged bodies that scrubbing found", COUNTER,
         j->scrub_errors},
        {"objstore_faults_bad_blocks_total", "Blocks that failed their checksum", COUNTER,
         j->bad_blocks},
        {"objstore_faults_repaired_total", "Bodies repaired", COUNTER, j->repaired},
        {"objstore_faults_lost_total", "Bodies lost", COUNTER, j->lost},
        {"objstore_faults_conflicts_total", "Different bytes under one id", COUNTER, j->conflicts},
        {"objstore_faults_clock_total", "Timestamps too far in the future", COUNTER, j->clock},
        {"objstore_faults_refused_total", "Changes refused", COUNTER, j->refused},
    };

    add_metrics(out, metrics, sizeof metrics / sizeof *metrics);
}

/* Microseconds as seconds, without an exponent. */
static void seconds(struct buf *out, uint64_t us)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%llu.%06llu", (unsigned long long)(us / 1000000),
                       (unsigned long long)(us % 1000000));

    while (text[len - 1] == '0' && text[len - 2] != '.')
        len--;
    buf_add(out, text, (size_t)len);
}

/* What is no number stands in labels, as in stats. */
static void metrics_vector(struct buf *out, const struct snapshot *s)
{
    char digest[DIGEST_TEXT_BYTES];

    digest_text(digest, &s->journal);
    head(out, "objstore_journal_info", "The journal's state: always 1, told by its labels",
         "gauge");
    buf_format(out, "objstore_journal_info{digest=\"%s\",digest_schema=\"%u\"} 1\n", digest,
               (unsigned)DIGEST_SCHEMA);
    head(out, "objstore_journal_vector", "The last event, by origin", "gauge");
    if (s->origin[0])
        buf_format(out, "objstore_journal_vector{origin=\"%s\"} %llu\n", s->origin,
                   (unsigned long long)s->journal.seq);
    head(out, "objstore_scrub_finished_seconds", "When a round of scrubbing last ended, Unix time",
         "gauge");
    buf_text(out, "objstore_scrub_finished_seconds ");
    seconds(out, s->journal.scrub_finished_ms * 1000);
    buf_char(out, '\n');
}

static void metrics_doors(struct buf *out, const struct snapshot *s)
{
    const struct ram_stats *ram = &s->ram;
    const struct http_stats *http = &s->http;
    const struct metric metrics[] = {
        {"objstore_memory_limit_bytes", "--memory", GAUGE, ram->limit_bytes},
        {"objstore_memory_used_bytes", "Used of it", GAUGE, ram->used_bytes},
        {"objstore_memory_in_flight_bytes", "Of that: held for clients that are slow", GAUGE,
         s->in_flight_bytes},
        {"objstore_memory_hot_blocks_bytes", "Of that: blocks of large bodies", GAUGE,
         s->hot.used_bytes},
        {"objstore_memory_hot_blocks_sent_bytes_total", "Bytes of large bodies sent from memory",
         COUNTER, s->hot.sent_bytes},
        {"objstore_memory_hits_total", "Reads served from memory", COUNTER, ram->hits},
        {"objstore_memory_misses_total", "Reads that were not", COUNTER, ram->misses},
        {"objstore_memory_entries", "Bodies held in memory", GAUGE, ram->entries},
        {"objstore_memory_locations", "Locations held in memory", GAUGE, ram->locations},
        {"objstore_memory_evictions_total", "Bodies evicted from memory", COUNTER, ram->evictions},
        {"objstore_http_connections", "Open connections", GAUGE, http->connections},
        {"objstore_http_in_flight", "Requests under way", GAUGE, http->in_flight},
        {"objstore_http_accepted_total", "Connections accepted", COUNTER, http->accepted},
        {"objstore_http_refused_total", "Connections refused", COUNTER, http->refused},
        {"objstore_http_received_bytes_total", "Bytes received", COUNTER, http->bytes_in},
        {"objstore_http_sent_bytes_total", "Bytes sent", COUNTER, http->bytes_out},
    };

    add_metrics(out, metrics, sizeof metrics / sizeof *metrics);
    head(out, "objstore_http_requests_total", "Requests answered, by class of status", "counter");
    for (unsigned i = 1; i <= 5; i++)
        buf_format(out, "objstore_http_requests_total{class=\"%uxx\"} %llu\n", i,
                   (unsigned long long)http->requests[i]);
}

static void metrics_latency(struct buf *out, const struct http_stats *http,
                            const struct stats_source *source)
{
    static const char name[] = "objstore_http_request_duration_seconds";

    head(out, name, "From a request's header to its answer's last byte, by operation", "histogram");
    for (unsigned i = 0; i < source->operation_count; i++) {
        const struct http_operation_stats *o = &http->operations[i];
        const char *operation = source->operations[i];
        uint64_t sum = 0;

        for (unsigned b = 0; b < HTTP_LATENCY_BUCKETS; b++) {
            sum += o->buckets[b];
            buf_format(out, "%s_bucket{operation=\"%s\",le=\"", name, operation);
            if (b + 1 < HTTP_LATENCY_BUCKETS)
                seconds(out, http_latency_bounds_us[b]);
            else
                buf_text(out, "+Inf");
            buf_format(out, "\"} %llu\n", (unsigned long long)sum);
        }
        buf_format(out, "%s_sum{operation=\"%s\"} ", name, operation);
        seconds(out, o->sum_us);
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
    metrics_vector(out, &s);
    metrics_doors(out, &s);
    metrics_latency(out, &s.http, source);
}
