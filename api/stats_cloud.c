/*
 * The cloud's figures: what was asked of it, what is owed to it, and what it did not have to be
 * asked for. What is saved counts from the start of the process, as everything does that comes to
 * clients from the cluster instead; its price is an estimate, and named so: it knows one price for
 * all bytes.
 */
#include "api/stats_cloud.h"

#include "api/figures.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define OPS 6

static const struct {
    enum cloud_op op;
    const char *name;
} ops[OPS] = {{CLOUD_PUT, "put"},       {CLOUD_GET, "get"},   {CLOUD_HEAD, "head"},
              {CLOUD_DELETE, "delete"}, {CLOUD_LIST, "list"}, {CLOUD_TAGS, "tags"}};

void stats_cloud_take(struct stats_cloud *out, const struct stats_source *source,
                      const struct cluster_cloud_stats *reads, const struct journal_stats *journal)
{
    struct cloud *cloud = source->cluster ? cluster_cloud(source->cluster) : NULL;
    struct env *env = store_env(source->store);

    *out = (struct stats_cloud){.backend = cloud ? cloud->backend->name : "none",
                                .bucket = cloud ? cloud->bucket : "",
                                .reads = *reads,
                                .pending = journal->outbox,
                                .pending_bytes = journal->outbox_bytes,
                                .served_bytes = store_served(source->store),
                                .price = source->egress_price ? source->egress_price : "0"};
    if (!cloud)
        return;
    cloud_figures(cloud, &out->figures);
    uploader_stats(cluster_uploader(source->cluster), &out->uploads);
    uint64_t now = env_wall_ms(env), oldest = out->uploads.oldest_ms;
    if (out->pending && oldest && now > oldest)
        out->oldest_s = (now - oldest) / 1000;
    if (out->served_bytes > out->figures.bytes_down)
        out->saved_bytes = out->served_bytes - out->figures.bytes_down;
    out->saved = (double)out->saved_bytes / 1e9 * strtod(out->price, NULL);
}

/* VALUE with six digits behind the point, whatever the locale. */
static void add_decimal(struct buf *out, double value)
{
    assert(value >= 0);
    uint64_t micros = value < 1e12 ? (uint64_t)(value * 1e6 + 0.5) : UINT64_C(1000000000000000000);

    buf_format(out, "%llu.%06llu", (unsigned long long)(micros / 1000000),
               (unsigned long long)(micros % 1000000));
}

static uint64_t answered(const struct cloud_count *count)
{
    return count->sent > count->failed ? count->sent - count->failed : 0;
}

void stats_cloud_json(struct buf *out, const struct stats_cloud *it)
{
    figures_begin(out, "cloud");
    figures_string(out, "backend", it->backend);
    figures_string(out, "bucket", it->bucket);
    figures_string(out, "state", breaker_name(it->reads.guard.state));
    figures_number(out, "opened", it->reads.guard.opened);
    figures_number(out, "refused", it->reads.guard.refused);
    figures_number(out, "wait_s", (it->reads.guard.wait_ms + 999) / 1000);
    figures_begin(out, "requests");
    for (unsigned i = 0; i < OPS; i++) {
        const struct cloud_count *count = &it->figures.by_op[ops[i].op];

        figures_begin(out, ops[i].name);
        figures_number(out, "answered", answered(count));
        figures_number(out, "failed", count->failed);
        figures_end(out);
    }
    figures_end(out);
    figures_number(out, "retries", it->figures.retries);
    figures_number(out, "bytes_up", it->figures.bytes_up);
    figures_number(out, "bytes_down", it->figures.bytes_down);
    figures_number(out, "uploads", it->uploads.uploads);
    figures_number(out, "upload_failures", it->uploads.failures);
    figures_number(out, "uploading", it->uploads.flights);
    figures_number(out, "gets", it->reads.gets);
    figures_number(out, "coalesced", it->reads.coalesced);
    figures_number(out, "delegated", it->reads.delegated);
    figures_number(out, "get_failures", it->reads.failures);
    figures_number(out, "misses", it->reads.misses);
    figures_number(out, "wrong", it->reads.wrong);
    figures_begin(out, "outbox");
    figures_number(out, "pending", it->pending);
    figures_number(out, "bytes", it->pending_bytes);
    figures_number(out, "oldest_s", it->oldest_s);
    figures_end(out);
    figures_begin(out, "egress");
    figures_number(out, "served_bytes", it->served_bytes);
    figures_number(out, "fetched_bytes", it->figures.bytes_down);
    figures_number(out, "saved_bytes", it->saved_bytes);
    figures_string(out, "price", it->price);
    figures_key(out, "saved_estimate");
    add_decimal(out, it->saved);
    figures_end(out);
    figures_end(out);
}

static void metrics_requests(struct buf *out, const struct stats_cloud *it)
{
    figures_head(out, "objstore_cloud_requests_total", "Requests to the cloud", "counter");
    for (unsigned i = 0; i < OPS; i++) {
        const struct cloud_count *count = &it->figures.by_op[ops[i].op];

        buf_format(out, "objstore_cloud_requests_total{op=\"%s\",result=\"answered\"} %llu\n",
                   ops[i].name, (unsigned long long)answered(count));
        buf_format(out, "objstore_cloud_requests_total{op=\"%s\",result=\"failed\"} %llu\n",
                   ops[i].name, (unsigned long long)count->failed);
    }
}

void stats_cloud_metrics(struct buf *out, const struct stats_cloud *it)
{
    const struct figure metrics[] = {
        {"objstore_cloud_opened_total", "Times that the circuit breaker opened", FIGURE_COUNTER,
         it->reads.guard.opened},
        {"objstore_cloud_refused_total", "Requests not sent while it was open", FIGURE_COUNTER,
         it->reads.guard.refused},
        {"objstore_cloud_wait_seconds", "Until it is asked again", FIGURE_GAUGE,
         (it->reads.guard.wait_ms + 999) / 1000},
        {"objstore_cloud_retries_total", "Requests sent once more", FIGURE_COUNTER,
         it->figures.retries},
        {"objstore_cloud_up_bytes_total", "Bytes of bodies sent to the cloud", FIGURE_COUNTER,
         it->figures.bytes_up},
        {"objstore_cloud_down_bytes_total", "Bytes of bodies that came from it", FIGURE_COUNTER,
         it->figures.bytes_down},
        {"objstore_cloud_uploads_total", "Bodies brought there", FIGURE_COUNTER,
         it->uploads.uploads},
        {"objstore_cloud_upload_failures_total", "Attempts of that in vain", FIGURE_COUNTER,
         it->uploads.failures},
        {"objstore_cloud_uploading", "Under way", FIGURE_GAUGE, it->uploads.flights},
        {"objstore_cloud_gets_total", "Bodies asked for because nobody here had them",
         FIGURE_COUNTER, it->reads.gets},
        {"objstore_cloud_coalesced_total", "Bodies that another node fetched for this one",
         FIGURE_COUNTER, it->reads.coalesced},
        {"objstore_cloud_delegated_total", "Bodies that this node fetched for another",
         FIGURE_COUNTER, it->reads.delegated},
        {"objstore_cloud_get_failures_total", "Bodies not got, or cut off", FIGURE_COUNTER,
         it->reads.failures},
        {"objstore_cloud_misses_total", "Bodies that were not there, or others than known",
         FIGURE_COUNTER, it->reads.misses},
        {"objstore_cloud_wrong_total", "Bodies that came with another SHA-256", FIGURE_COUNTER,
         it->reads.wrong},
        {"objstore_cloud_outbox_oldest_seconds", "How long the oldest upload has been owed",
         FIGURE_GAUGE, it->oldest_s},
        {"objstore_cloud_served_bytes_total", "Bytes of bodies of levels 1 and 2 in answers",
         FIGURE_COUNTER, it->served_bytes},
        {"objstore_cloud_saved_bytes", "Those that did not come from the cloud", FIGURE_GAUGE,
         it->saved_bytes},
    };

    figures_head(out, "objstore_cloud_info", "The cloud: always 1, told by its labels", "gauge");
    buf_text(out, "objstore_cloud_info{");
    figures_label(out, "backend", it->backend);
    buf_char(out, ',');
    figures_label(out, "bucket", it->bucket);
    buf_char(out, ',');
    figures_label(out, "state", breaker_name(it->reads.guard.state));
    buf_text(out, "} 1\n");
    metrics_requests(out, it);
    figures_metrics(out, metrics, sizeof metrics / sizeof *metrics);
    figures_head(out, "objstore_cloud_saved_estimate",
                 "What those would have cost, at --egress-price: an estimate", "gauge");
    buf_text(out, "objstore_cloud_saved_estimate ");
    add_decimal(out, it->saved);
    buf_char(out, '\n');
}
