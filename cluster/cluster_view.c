/*
 * How this node stands, and what it tells of the cluster: figures and members, put where other
 * threads read them.
 */
#include "cluster/cluster_internal.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static void say_clock(const struct standing *now)
{
    double off_s = (double)(now->behind_ms < 0 ? -now->behind_ms : now->behind_ms) / 1000;

    if (now->clock_is_skewed)
        log_error("cluster: this node's clock is %.1f s %s those of the others: clients can change "
                  "nothing here until it is right",
                  off_s, now->behind_ms < 0 ? "ahead of" : "behind");
    else if (now->clock_judged)
        log_info("cluster: this node's clock is right again (%.1f s %s): clients can change things",
                 off_s, now->behind_ms < 0 ? "ahead" : "behind");
    else
        log_info("cluster: too few members answer to tell whether this node's clock is wrong: "
                 "clients can change things");
}

static unsigned joined(struct cluster *cluster)
{
    size_t rows = members_count(cluster->members);
    unsigned count = 1; /* this node, unless it is out */

    for (size_t i = 0; i < rows; i++) {
        const struct member *row = members_at(cluster->members, i);

        if (id_equal(&row->node, &cluster->self))
            count -= row->state != MEMBER_JOINED;
        else
            count += row->state == MEMBER_JOINED;
    }
    return count;
}

void peer_standing(struct cluster *cluster)
{
    struct standing now = standing_of(cluster->probe);

    if (now.clock_is_skewed != cluster->standing.clock_is_skewed)
        say_clock(&now);
    cluster->standing = now;
    atomic_store_explicit(&cluster->health, (int)now.health, memory_order_relaxed);
    atomic_store_explicit(&cluster->clock_is_skewed, now.clock_is_skewed, memory_order_relaxed);
    atomic_store_explicit(&cluster->joined, joined(cluster), memory_order_relaxed);
    copies_others(cluster->copies, now.others);
}

static struct cluster_member view_of(struct cluster *cluster, const struct member *row)
{
    struct cluster_member view = {.node = row->node,
                                  .self = id_equal(&row->node, &cluster->self),
                                  .joined = row->state,
                                  .stamp = row->at.stamp,
                                  .rtt_ms = -1};
    const struct peer *peer = peer_find(cluster, &row->node);
    struct probe_peer probed;

    memcpy(view.address, row->address, sizeof view.address);
    if (view.self) {
        view.state = PROBE_ALIVE;
        view.digest_equal = true;
        view.feature = FEATURE_LEVEL;
        view.draining = cluster->draining_said;
        (void)snprintf(view.version, sizeof view.version, "%s", OBJSTORE_VERSION);
        view.rtt_ms = 0;
    } else if (row->state == MEMBER_JOINED && probe_peer(cluster->probe, &row->node, &probed)) {
        view.state = probed.state;
        view.rtt_ms = probed.rtt_ms;
        view.feature = probed.feature;
        view.draining = probed.draining;
        view.answered_ms = probed.answered_ms;
        memcpy(view.version, probed.version, sizeof view.version);
        view.digest_equal = peer && peer->digest_equal;
    } else {
        view.state = PROBE_LEFT;
    }
    return view;
}

/* How many events the member has that has most of those that answer; each one's lag to it. */
static uint64_t lags_of(struct cluster *cluster, struct cluster_member *view, size_t count)
{
    uint64_t events[LIMIT_MEMBERS + 1], most = 0;

    for (size_t i = 0; i < count; i++) {
        struct probe_peer probed;

        events[i] = view[i].self ? cluster->events : 0;
        if (!view[i].self && probe_peer(cluster->probe, &view[i].node, &probed) && probed.heard)
            events[i] = probed.summary.events;
        if (view[i].joined == MEMBER_JOINED && view[i].state == PROBE_ALIVE && events[i] > most)
            most = events[i];
    }
    for (size_t i = 0; i < count; i++)
        if (view[i].joined == MEMBER_JOINED && events[i] && events[i] < most)
            view[i].lag_events = most - events[i];
    return most;
}

/* All members into VIEW: those that have joined first, then those that left or were forgotten, as
 * many as fit; and in any case this node. */
static size_t view_all(struct cluster *cluster, struct cluster_member view[LIMIT_MEMBERS + 1])
{
    size_t count = 0, rows = members_count(cluster->members);

    for (size_t pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < rows && count < LIMIT_MEMBERS; i++) {
            const struct member *row = members_at(cluster->members, i);

            if ((row->state == MEMBER_JOINED) == (pass == 0))
                view[count++] = view_of(cluster, row);
        }
    if (!members_find(cluster->members, &cluster->self)) {
        struct member self = {.node = cluster->self, .state = MEMBER_JOINED};

        memcpy(self.address, cluster->advertise, sizeof self.address);
        view[count++] = view_of(cluster, &self);
    }
    return count;
}

/* MOST: the events of the member that has most. */
static void gather(struct cluster *cluster, uint64_t most, struct cluster_stats *out)
{
    const struct sync_stats *sync = sync_stats(cluster->sync);
    const struct merge_stats *merge = merge_stats(cluster->merge);
    uint64_t now_ms = cluster_now(cluster);
    struct replicator_stats replicator;
    struct link_stats link;
    struct fetch_stats fetch;
    struct serve_stats serve;
    struct notes_stats notes;

    lag_observe(&cluster->lag, now_ms, most, cluster->events);
    replicator_stats(cluster->replicator, &replicator);
    link_stats(cluster->link, &link);
    say_strangers(cluster, &link);
    fetch_stats(cluster->fetches, &fetch);
    serve_stats(cluster->serve, &serve);
    notes_stats(cluster->notes, &notes);
    *out = (struct cluster_stats){.health = cluster->standing.health,
                                  .clock_judged = cluster->standing.clock_judged,
                                  .clock_is_skewed = cluster->standing.clock_is_skewed,
                                  .clock_behind_ms = cluster->standing.behind_ms,
                                  .events_in = sync->events_in,
                                  .bytes_in = sync->bytes_in,
                                  .events_out = sync->events_out,
                                  .bytes_out = sync->bytes_out,
                                  .sessions = sync->asks,
                                  .timeouts = sync->timeouts,
                                  .rows_in = merge->rows_in,
                                  .row_bytes_in = merge->bytes_in,
                                  .rows_out = merge->rows_out,
                                  .row_bytes_out = merge->bytes_out,
                                  .merges_adopted = merge->adopted,
                                  .merges_repaired = merge->repaired,
                                  .merges_given_up = merge->given_up,
                                  .merges_served = merge->served,
                                  .merge_timeouts = merge->timeouts,
                                  .fetches = fetch.begun,
                                  .fetch_bytes = fetch.bytes,
                                  .fetch_failures = fetch.failed,
                                  .served_bytes = serve.bytes,
                                  .notes_said = notes.said,
                                  .notes_received = notes.taken,
                                  .notes_refused = notes.refused,
                                  .frames_in = link.frames_in,
                                  .frames_out = link.frames_out,
                                  .link_bytes_in = link.bytes_in,
                                  .link_bytes_out = link.bytes_out,
                                  .malformed = cluster->malformed + link.malformed,
                                  .other_tag = cluster->other_tag,
                                  .replicated_rate =
                                      rate_observe(&cluster->rate, now_ms, replicator.bytes),
                                  .lag_events = most > cluster->events ? most - cluster->events : 0,
                                  .lag_ms = lag_ms(&cluster->lag, now_ms),
                                  .level = cluster->level,
                                  .refused = cluster->refused + link.handshake_failures};
}

void peer_view(struct cluster *cluster)
{
    struct cluster_member view[LIMIT_MEMBERS + 1];
    struct cluster_stats stats;
    size_t count = view_all(cluster, view);

    gather(cluster, lags_of(cluster, view, count), &stats);
    pthread_mutex_lock(&cluster->lock);
    memcpy(cluster->view, view, count * sizeof *view);
    cluster->view_count = count;
    cluster->stats = stats;
    pthread_mutex_unlock(&cluster->lock);
}
