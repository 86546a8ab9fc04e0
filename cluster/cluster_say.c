/*
 * What an operator has to hear while nodes do not come together: nobody answers where this node was
 * told to join, or somebody with another secret knocks. Said again only now and then, as long as it
 * lasts.
 */
#include "cluster/cluster_internal.h"

#include "base/log.h"
#include "journal/ulid.h"

#define PATIENCE_MS 3000 /* of a start, before a seed that does not answer is worth a word */
#define AGAIN_MS    30000

/* Whether it is time to say it, for the first time or again. */
static bool due(struct cluster *cluster, uint64_t *said_ms)
{
    uint64_t now_ms = cluster_now(cluster);

    if (*said_ms && now_ms - *said_ms < AGAIN_MS)
        return false;
    *said_ms = now_ms;
    return true;
}

void say_seed(struct cluster *cluster, const char *address, enum link_state state)
{
    uint64_t now_ms = cluster_now(cluster);
    struct id128 anybody;

    if (!cluster->seeds_asked_ms)
        cluster->seeds_asked_ms = now_ms;
    /* One that answers is enough; a secret that differs is said when it shows. */
    if (now_ms - cluster->seeds_asked_ms < PATIENCE_MS || state == LINK_REFUSED ||
        peer_alive(cluster, &anybody, 1) > 0 || !due(cluster, &cluster->seeds_said_ms))
        return;
    log_warn("cluster: nobody answers at %s, of %zu addresses to join; they are asked again",
             address, probe_seeds(cluster->probe));
}

void say_strangers(struct cluster *cluster, const struct link_stats *link)
{
    if (link->handshake_failures == cluster->strangers ||
        !due(cluster, &cluster->strangers_said_ms))
        return;
    log_warn("cluster: %llu connections were not let in: another secret, or broken off",
             (unsigned long long)(link->handshake_failures - cluster->strangers));
    cluster->strangers = link->handshake_failures;
}

bool say_fits(struct cluster *cluster, const struct wire_message *message)
{
    bool probes = message->type == WIRE_PROBE || message->type == WIRE_PROBE_ACK;
    const struct wire_probe *probe = &message->probe;
    char id[ULID_TEXT_BYTES + 1];

    if (!probes || (probe->feature >= cluster->level && probe->level <= FEATURE_LEVEL))
        return true;
    if (!due(cluster, &cluster->unfit_ms))
        return false;
    ulid_format(id, &message->from);
    if (probe->level > FEATURE_LEVEL)
        log_error("cluster: node %s is of a cluster of feature level %u; this build understands "
                  "levels up to %u and cannot join it: a newer one is needed",
                  id, probe->level, FEATURE_LEVEL);
    else
        log_warn(
            "cluster: node %s understands feature levels up to %u, and the cluster is at %u: it "
            "cannot join",
            id, probe->feature, cluster->level);
    return false;
}

void say_self(struct cluster *cluster, enum member_state state)
{
    bool outside = state != MEMBER_JOINED;
    bool was = atomic_exchange(&cluster->outside, outside);

    if (outside && state == MEMBER_FORGOTTEN)
        log_warn("cluster: this node was forgotten: it is no member any more, takes no writes, and "
                 "only exchanges facts with the others; objctl node join makes it one again");
    else if (outside)
        log_info("cluster: this node has left: it takes no writes; objctl node join makes it a "
                 "member again");
    else if (was)
        log_info(
            "cluster: this node belongs to the cluster again; its facts and those of the others "
            "are merged");
    if (!outside)
        atomic_store(&cluster->rejoin, false);
}

void say_member(struct cluster *cluster, const struct member *row, enum member_state before)
{
    char id[ULID_TEXT_BYTES + 1];

    ulid_format(id, &row->node);
    if (before == MEMBER_JOINED && row->state == MEMBER_LEFT)
        log_info("cluster: node %s has left for good", id);
    else if (before && before != MEMBER_FORGOTTEN && row->state == MEMBER_FORGOTTEN)
        log_warn("cluster: node %s was forgotten", id);
    else if (before && before != MEMBER_JOINED && row->state == MEMBER_JOINED)
        log_warn("cluster: node %s, which %s, belongs to the cluster again; its facts are merged",
                 id, before == MEMBER_LEFT ? "had left" : "was forgotten");
    (void)cluster;
}

void say_back(struct cluster *cluster, const struct id128 *node)
{
    char id[ULID_TEXT_BYTES + 1];

    (void)cluster;
    ulid_format(id, node);
    log_warn(
        "cluster: node %s, which was forgotten, is back: facts are exchanged with it, but it is "
        "no member until it is told to join (objctl node join, there)",
        id);
}
