/*
 * What an operator has to hear while nodes do not come together: nobody answers where this node was
 * told to join, or somebody with another secret knocks. Said again only now and then, as long as it
 * lasts.
 */
#include "cluster/cluster_internal.h"

#include "base/log.h"

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
