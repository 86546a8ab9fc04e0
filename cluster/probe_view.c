/* What can be asked of the probe core: health, clock, members. */
#include "cluster/probe_internal.h"

#include <stdlib.h>

static bool answers(const struct probe *probe, const struct peer *peer)
{
    return peer->state == PROBE_ALIVE &&
           (peer->first_t == NEVER || probe->t - peer->first_t < ack_ms(peer) + PROBE_CONFIRM_MS);
}

size_t probe_answering(const struct probe *probe)
{
    size_t count = 0;

    for (size_t i = 0; i < probe->peer_count; i++)
        count += answers(probe, &probe->peers[i]);
    return count;
}

enum probe_health probe_health(const struct probe *probe)
{
    size_t joined = 1 + probe->peer_count, count = 1 + probe_answering(probe);

    if (count == joined)
        return PROBE_GOOD;
    return 2 * count > joined ? PROBE_DEGRADED : PROBE_BAD;
}

static int offset_compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

bool probe_clock_offset(const struct probe *probe, int64_t *offset_ms)
{
    int64_t offsets[LIMIT_MEMBERS + 1] = {0}; /* the first is this node's own */
    size_t count = 1;

    for (size_t i = 0; i < probe->peer_count; i++) {
        const struct peer *peer = &probe->peers[i];

        if (peer->measured && answers(probe, peer))
            offsets[count++] = peer->offset_ms;
    }
    if (count < OFFSET_MEMBERS)
        return false;
    qsort(offsets, count, sizeof *offsets, offset_compare);
    int64_t low = offsets[(count - 1) / 2], high = offsets[count / 2];
    *offset_ms = llabs(low) < llabs(high) ? low : high;
    return true;
}

bool probe_peer(const struct probe *probe, const struct id128 *node, struct probe_peer *out)
{
    for (size_t i = 0; i < probe->peer_count; i++) {
        const struct peer *peer = &probe->peers[i];

        if (!id_equal(&peer->node, node))
            continue;
        *out = (struct probe_peer){
            .state = peer->state,
            .answers = answers(probe, peer),
            .since_ms = peer->since_ms,
            .rtt_ms = peer->measured ? (int64_t)(peer->rtt_us / 1000) : -1,
            .feature = peer->feature,
            .summary = peer->summary,
            .heard = peer->told,
            .level = peer->level,
            .draining = peer->draining,
            .answered_ms = peer->answered_ms,
        };
        memcpy(out->version, peer->version, sizeof out->version);
        return true;
    }
    return false;
}

struct probe_counts probe_counts(const struct probe *probe)
{
    return probe->counts;
}

unsigned probe_doubt(const struct probe *probe)
{
    return probe->doubt;
}

size_t probe_members(const struct probe *probe)
{
    return probe->peer_count;
}

size_t probe_seeds(const struct probe *probe)
{
    return probe->seed_count;
}

const char *probe_state_name(uint32_t state)
{
    static const char *const names[] = {"unknown", "alive", "suspect", "failed", "left"};

    return names[state <= PROBE_LEFT ? state : 0];
}

const char *probe_health_name(uint32_t health)
{
    static const char *const names[] = {"unknown", "good", "degraded", "bad"};

    return names[health <= PROBE_BAD ? health : 0];
}
