/*
 * What the cluster says of itself, as figures. A member is listed with the state that this node
 * sees: alive, suspect or failed while it belongs to the cluster, left once it said so (about to
 * stop, or for good). For collectors those that belong to it alone have samples of their own.
 */
#include "api/stats_cluster.h"

#include "api/figures.h"
#include "journal/ulid.h"

#include <assert.h>
#include <string.h>

static const char *state_of(const struct cluster_member *member)
{
    return probe_state_name(member->joined == MEMBER_JOINED ? member->state : PROBE_LEFT);
}

static bool answers(const struct cluster_member *member)
{
    return member->joined == MEMBER_JOINED && member->state == PROBE_ALIVE;
}

void stats_cluster_take(struct stats_cluster *out, struct cluster *cluster,
                        const struct id128 *self)
{
    out->alone = !cluster || cluster_is_alone(cluster);
    if (!cluster) {
        out->figures = (struct cluster_stats){.health = PROBE_GOOD, .level = 1};
        out->members[0] = (struct cluster_member){.node = *self,
                                                  .self = true,
                                                  .joined = MEMBER_JOINED,
                                                  .state = PROBE_ALIVE,
                                                  .rtt_ms = -1,
                                                  .feature = FEATURE_LEVEL,
                                                  .version = OBJSTORE_VERSION,
                                                  .digest_equal = true};
        out->count = 1;
        return;
    }
    cluster_stats(cluster, &out->figures);
    out->count = cluster_members(cluster, out->members, STATS_MEMBERS);
    assert(out->count <= STATS_MEMBERS);
    /* Who was forgotten is so here, too; but a node shows itself in any case. */
    size_t kept = 0;
    for (size_t i = 0; i < out->count; i++)
        if (out->members[i].joined != MEMBER_FORGOTTEN || out->members[i].self)
            out->members[kept++] = out->members[i];
    out->count = kept;
}

const char *stats_cluster_health(struct cluster *cluster)
{
    struct cluster_stats figures;

    if (!cluster || cluster_is_alone(cluster))
        return "alone";
    cluster_stats(cluster, &figures);
    return probe_health_name(figures.health);
}

static const char *health_of(const struct stats_cluster *it)
{
    return it->alone ? "alone" : probe_health_name(it->figures.health);
}

struct tally {
    uint64_t joined, alive, suspect, failed, left, unequal;
};

static struct tally tally(const struct stats_cluster *it)
{
    struct tally sum = {0};

    for (size_t i = 0; i < it->count; i++) {
        const struct cluster_member *m = &it->members[i];

        sum.joined += m->joined == MEMBER_JOINED;
        sum.alive += answers(m);
        sum.suspect += m->joined == MEMBER_JOINED && m->state == PROBE_SUSPECT;
        sum.failed += m->joined == MEMBER_JOINED && m->state == PROBE_FAILED;
        sum.left += m->joined != MEMBER_JOINED || m->state == PROBE_LEFT;
        sum.unequal += answers(m) && !m->self && !m->digest_equal;
    }
    return sum;
}

/* ---- JSON ---- */

static void add_member(struct buf *out, const struct cluster_member *m)
{
    char id[ULID_TEXT_BYTES + 1];

    ulid_format(id, &m->node);
    buf_char(out, '{');
    figures_string(out, "id", id);
    figures_string(out, "addr", m->address);
    figures_string(out, "state", state_of(m));
    figures_boolean(out, "joined", m->joined == MEMBER_JOINED);
    figures_boolean(out, "self", m->self);
    figures_key(out, "rtt_ms");
    if (m->rtt_ms < 0)
        buf_text(out, "null");
    else
        buf_format(out, "%lld", (long long)m->rtt_ms);
    figures_string(out, "version", m->version);
    figures_number(out, "feature", m->feature);
    figures_boolean(out, "draining", m->draining);
    figures_number(out, "lag_events", m->lag_events);
    figures_boolean(out, "digest_equal", m->digest_equal);
    buf_char(out, '}');
}

static void add_cluster(struct buf *out, const struct stats_cluster *it)
{
    struct tally sum = tally(it);

    figures_begin(out, "cluster");
    figures_string(out, "health", health_of(it));
    figures_number(out, "joined", sum.joined);
    figures_number(out, "alive", sum.alive);
    figures_number(out, "unequal", sum.unequal);
    figures_key(out, "clock_behind_ms");
    if (it->figures.clock_judged)
        buf_format(out, "%lld", (long long)it->figures.clock_behind_ms);
    else
        buf_text(out, "null");
    figures_boolean(out, "clock_skew", it->figures.clock_is_skewed);
    figures_number(out, "feature", it->figures.level);
    figures_key(out, "members");
    buf_char(out, '[');
    for (size_t i = 0; i < it->count; i++) {
        if (i > 0)
            buf_char(out, ',');
        add_member(out, &it->members[i]);
    }
    buf_char(out, ']');
    figures_end(out);
}

void stats_cluster_json(struct buf *out, const struct stats_cluster *it)
{
    const struct cluster_stats *f = &it->figures;

    add_cluster(out, it);
    figures_begin(out, "sync");
    figures_number(out, "events_in", f->events_in);
    figures_number(out, "bytes_in", f->bytes_in);
    figures_number(out, "events_out", f->events_out);
    figures_number(out, "bytes_out", f->bytes_out);
    figures_number(out, "rounds", f->sessions);
    figures_number(out, "timeouts", f->timeouts);
    figures_number(out, "lag_events", f->lag_events);
    figures_key(out, "lag_s");
    figures_seconds(out, f->lag_ms * 1000);
    figures_end(out);

    figures_begin(out, "merge");
    figures_number(out, "rows_in", f->rows_in);
    figures_number(out, "bytes_in", f->row_bytes_in);
    figures_number(out, "rows_out", f->rows_out);
    figures_number(out, "bytes_out", f->row_bytes_out);
    figures_number(out, "adopted", f->merges_adopted);
    figures_number(out, "repaired", f->merges_repaired);
    figures_number(out, "given_up", f->merges_given_up);
    figures_number(out, "served", f->merges_served);
    figures_number(out, "timeouts", f->merge_timeouts);
    figures_end(out);

    figures_begin(out, "transfer");
    figures_number(out, "fetches", f->fetches);
    figures_number(out, "failures", f->fetch_failures);
    figures_number(out, "bytes_in", f->fetch_bytes);
    figures_number(out, "bytes_out", f->served_bytes);
    figures_end(out);

    figures_begin(out, "replication");
    figures_number(out, "pending", f->wanted);
    figures_number(out, "bytes_pending", f->wanted_bytes);
    figures_number(out, "copied", f->replicated);
    figures_number(out, "rate", f->replicated_rate);
    figures_end(out);

    figures_begin(out, "acks");
    figures_number(out, "waiting", f->acks.waiting);
    figures_number(out, "fulfilled", f->acks.fulfilled);
    figures_number(out, "late", f->acks.late);
    figures_number(out, "refused", f->acks.refused);
    figures_end(out);

    figures_begin(out, "notes");
    figures_number(out, "said", f->notes_said);
    figures_number(out, "received", f->notes_received);
    figures_number(out, "refused", f->notes_refused);
    figures_end(out);

    figures_begin(out, "link");
    figures_number(out, "frames_in", f->frames_in);
    figures_number(out, "frames_out", f->frames_out);
    figures_number(out, "bytes_in", f->link_bytes_in);
    figures_number(out, "bytes_out", f->link_bytes_out);
    figures_number(out, "malformed", f->malformed);
    figures_number(out, "other_tag", f->other_tag);
    figures_number(out, "refused", f->refused);
    figures_end(out);
}

/* ---- Prometheus ---- */

static void metrics_members(struct buf *out, const struct stats_cluster *it)
{
    char id[ULID_TEXT_BYTES + 1];

    figures_head(out, "objstore_cluster_member_info",
                 "A node that belongs to the cluster: always 1, told by its labels", "gauge");
    for (size_t i = 0; i < it->count; i++) {
        const struct cluster_member *m = &it->members[i];

        if (m->joined != MEMBER_JOINED)
            continue;
        ulid_format(id, &m->node);
        buf_text(out, "objstore_cluster_member_info{");
        figures_label(out, "id", id);
        buf_char(out, ',');
        figures_label(out, "addr", m->address);
        buf_char(out, ',');
        figures_label(out, "state", state_of(m));
        buf_format(out, ",self=\"%s\",digest_equal=\"%s\",", m->self ? "true" : "false",
                   m->digest_equal ? "true" : "false");
        figures_label(out, "version", m->version);
        buf_text(out, "} 1\n");
    }
    figures_head(out, "objstore_cluster_member_rtt_seconds", "Round trip to it, where measured",
                 "gauge");
    for (size_t i = 0; i < it->count; i++) {
        const struct cluster_member *m = &it->members[i];

        if (m->joined != MEMBER_JOINED || m->rtt_ms < 0)
            continue;
        ulid_format(id, &m->node);
        buf_format(out, "objstore_cluster_member_rtt_seconds{id=\"%s\"} ", id);
        figures_seconds(out, (uint64_t)m->rtt_ms * 1000);
        buf_char(out, '\n');
    }
}

static void metrics_states(struct buf *out, const struct stats_cluster *it)
{
    struct tally sum = tally(it);
    const struct {
        const char *state;
        uint64_t count;
    } states[] = {
        {"alive", sum.alive}, {"suspect", sum.suspect}, {"failed", sum.failed}, {"left", sum.left}};

    figures_head(out, "objstore_cluster_info",
                 "The cluster as this node sees it: always 1, told by its labels", "gauge");
    buf_format(out, "objstore_cluster_info{health=\"%s\"} 1\n", health_of(it));
    figures_head(out, "objstore_cluster_members", "Members by state, this node included", "gauge");
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        buf_format(out, "objstore_cluster_members{state=\"%s\"} %llu\n", states[i].state,
                   (unsigned long long)states[i].count);
}

static void metrics_clock(struct buf *out, const struct stats_cluster *it)
{
    int64_t ms = it->figures.clock_behind_ms;

    if (!it->figures.clock_judged)
        return;
    figures_head(out, "objstore_cluster_clock_behind_seconds",
                 "This node's clock behind the members' median; negative: ahead of it", "gauge");
    buf_text(out, "objstore_cluster_clock_behind_seconds ");
    if (ms < 0)
        buf_char(out, '-');
    figures_seconds(out, (uint64_t)(ms < 0 ? -ms : ms) * 1000);
    buf_char(out, '\n');
}

static void metrics_sync(struct buf *out, const struct stats_cluster *it)
{
    const struct cluster_stats *f = &it->figures;
    struct tally sum = tally(it);
    const struct figure metrics[] = {
        {"objstore_cluster_joined", "Nodes that belong to the cluster", FIGURE_GAUGE, sum.joined},
        {"objstore_cluster_unequal", "Members that answer and hold other facts than this node",
         FIGURE_GAUGE, sum.unequal},
        {"objstore_cluster_feature_level", "Feature level that its members have agreed on",
         FIGURE_GAUGE, f->level},
        {"objstore_sync_lag_events", "Events fewer than the member has that has most", FIGURE_GAUGE,
         f->lag_events},
        {"objstore_sync_received_events_total", "Events taken from peers", FIGURE_COUNTER,
         f->events_in},
        {"objstore_sync_received_bytes_total", "Their bytes", FIGURE_COUNTER, f->bytes_in},
        {"objstore_sync_sent_events_total", "Events given to peers", FIGURE_COUNTER, f->events_out},
        {"objstore_sync_sent_bytes_total", "Their bytes", FIGURE_COUNTER, f->bytes_out},
        {"objstore_sync_rounds_total", "Exchanges with a peer", FIGURE_COUNTER, f->sessions},
        {"objstore_sync_timeouts_total", "Questions to peers that nobody answered in time",
         FIGURE_COUNTER, f->timeouts},
    };

    figures_metrics(out, metrics, sizeof metrics / sizeof *metrics);
}

static void metrics_merge(struct buf *out, const struct cluster_stats *f)
{
    const struct figure metrics[] = {
        {"objstore_merge_received_rows_total", "Objects taken from peers as rows, not as events",
         FIGURE_COUNTER, f->rows_in},
        {"objstore_merge_received_bytes_total", "Bytes of merges taken from peers", FIGURE_COUNTER,
         f->row_bytes_in},
        {"objstore_merge_sent_rows_total", "Objects given to peers as rows", FIGURE_COUNTER,
         f->rows_out},
        {"objstore_merge_sent_bytes_total", "Bytes of merges given to peers", FIGURE_COUNTER,
         f->row_bytes_out},
        {"objstore_merge_adopted_total", "Merges after which a peer's vector was adopted",
         FIGURE_COUNTER, f->merges_adopted},
        {"objstore_merge_repaired_total", "Comparisons of rows with a peer of other facts",
         FIGURE_COUNTER, f->merges_repaired},
        {"objstore_merge_given_up_total", "Merges that came to nothing", FIGURE_COUNTER,
         f->merges_given_up},
        {"objstore_merge_served_total", "Questions for rows, or their sums, that were answered",
         FIGURE_COUNTER, f->merges_served},
        {"objstore_merge_timeouts_total", "Merges, asked or served, that stood still",
         FIGURE_COUNTER, f->merge_timeouts},
    };

    figures_metrics(out, metrics, sizeof metrics / sizeof *metrics);
}

static void metrics_bodies(struct buf *out, const struct cluster_stats *f)
{
    const struct figure metrics[] = {
        {"objstore_transfer_fetches_total", "Bodies asked of peers", FIGURE_COUNTER, f->fetches},
        {"objstore_transfer_failures_total", "Of them: not got", FIGURE_COUNTER, f->fetch_failures},
        {"objstore_transfer_received_bytes_total", "Bytes of bodies from peers", FIGURE_COUNTER,
         f->fetch_bytes},
        {"objstore_transfer_sent_bytes_total", "Bytes of bodies to peers", FIGURE_COUNTER,
         f->served_bytes},
        {"objstore_replication_pending", "Bodies of level 2 that this node lacks", FIGURE_GAUGE,
         f->wanted},
        {"objstore_replication_pending_bytes", "Their bytes", FIGURE_GAUGE, f->wanted_bytes},
        {"objstore_replication_rate_bytes", "Bytes of copies made a second, lately", FIGURE_GAUGE,
         f->replicated_rate},
        {"objstore_replication_copied_total", "Bodies of level 2 that it has copied",
         FIGURE_COUNTER, f->replicated},
        {"objstore_cluster_clock_skew",
         "1 while this node's clock is more than 60 s off the others' median, and clients can "
         "change nothing here",
         FIGURE_GAUGE, f->clock_is_skewed},
        {"objstore_acks_waiting", "Requests that wait for copies on other nodes", FIGURE_GAUGE,
         f->acks.waiting},
        {"objstore_acks_fulfilled_total", "Such waits that ended with enough copies",
         FIGURE_COUNTER, f->acks.fulfilled},
        {"objstore_acks_late_total", "Such waits that ended without", FIGURE_COUNTER, f->acks.late},
        {"objstore_acks_refused_total", "Requests that could not wait, as too many did",
         FIGURE_COUNTER, f->acks.refused},
    };

    figures_metrics(out, metrics, sizeof metrics / sizeof *metrics);
}

static void metrics_link(struct buf *out, const struct cluster_stats *f)
{
    const struct figure metrics[] = {
        {"objstore_notes_said_total", "Messages that this node was given for all", FIGURE_COUNTER,
         f->notes_said},
        {"objstore_notes_received_total", "Messages of other nodes for all", FIGURE_COUNTER,
         f->notes_received},
        {"objstore_notes_refused_total", "Of both: too many at once, dropped", FIGURE_COUNTER,
         f->notes_refused},
        {"objstore_link_received_frames_total", "Frames from peers", FIGURE_COUNTER, f->frames_in},
        {"objstore_link_sent_frames_total", "Frames to peers", FIGURE_COUNTER, f->frames_out},
        {"objstore_link_received_bytes_total", "Their bytes, before encryption", FIGURE_COUNTER,
         f->link_bytes_in},
        {"objstore_link_sent_bytes_total", "Their bytes, before encryption", FIGURE_COUNTER,
         f->link_bytes_out},
        {"objstore_link_malformed_total", "Frames that made no sense, dropped", FIGURE_COUNTER,
         f->malformed},
        {"objstore_link_other_tag_total", "Frames of another cluster, dropped", FIGURE_COUNTER,
         f->other_tag},
        {"objstore_link_refused_total", "Connections that were not let in", FIGURE_COUNTER,
         f->refused},
    };

    figures_metrics(out, metrics, sizeof metrics / sizeof *metrics);
}

void stats_cluster_metrics(struct buf *out, const struct stats_cluster *it)
{
    const struct cluster_stats *f = &it->figures;

    metrics_states(out, it);
    metrics_clock(out, it);
    figures_head(out, "objstore_sync_lag_seconds",
                 "For how long there has been something that this node lacks", "gauge");
    buf_text(out, "objstore_sync_lag_seconds ");
    figures_seconds(out, f->lag_ms * 1000);
    buf_char(out, '\n');
    metrics_members(out, it);
    metrics_sync(out, it);
    metrics_merge(out, f);
    metrics_bodies(out, f);
    metrics_link(out, f);
}
