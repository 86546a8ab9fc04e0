/* What the probe core puts into its outputs: filled messages, changes of state. The number of
 * outputs of one step is bounded by what probe_internal.h says a member, a seed and a relay can
 * cause. */
#include "cluster/probe_internal.h"

#include <assert.h>

/* splitmix64 (Steele et al., 2014). */
uint64_t probe_draw(struct probe *probe)
{
    uint64_t x = probe->dice += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

uint64_t probe_nonce(struct probe *probe)
{
    if (++probe->last_nonce == 0)
        ++probe->last_nonce;
    return probe->last_nonce;
}

struct peer *probe_find(struct probe *probe, const struct id128 *node)
{
    for (size_t i = 0; i < probe->peer_count; i++) {
        if (id_equal(&probe->peers[i].node, node))
            return &probe->peers[i];
    }
    return NULL;
}

struct probe_output *probe_add_output(struct probe *probe, enum probe_output_kind kind,
                                      const struct id128 *node, struct text address)
{
    assert(probe->output_count < LIMIT_OUTPUTS);
    struct probe_output *out = &probe->outputs[probe->output_count++];

    *out = (struct probe_output){.kind = kind, .node = *node, .address = address};
    return out;
}

struct wire_message *probe_add_message(struct probe *probe, enum probe_output_kind kind,
                                       const struct id128 *node, struct text address,
                                       enum wire_type type)
{
    struct wire_message *message = &probe_add_output(probe, kind, node, address)->message;

    message->type = type;
    message->tag = kept_text(&probe->tag);
    message->from = probe->node;
    return message;
}

void probe_fill(const struct probe *probe, struct wire_probe *out, uint64_t nonce,
                const struct id128 *to)
{
    out->nonce = nonce;
    out->to = *to;
    out->address = kept_text(&probe->address);
    out->wall_ms = probe->wall_ms;
    out->feature = probe->feature;
    out->leaving = probe->leaving;
    out->summary = probe->summary;
    out->version = probe->version;
    out->level = probe->level;
    out->draining = probe->draining;
}

void probe_send(struct probe *probe, const struct peer *peer, uint64_t nonce)
{
    struct wire_message *message =
        probe_add_message(probe, PROBE_SEND, &peer->node, kept_text(&peer->address), WIRE_PROBE);

    probe_fill(probe, &message->probe, nonce, &peer->node);
}

void probe_send_about(struct probe *probe, const struct peer *to, enum wire_type type,
                      const struct wire_probe_for *about)
{
    struct wire_message *message =
        probe_add_message(probe, PROBE_SEND, &to->node, kept_text(&to->address), type);

    assert(type == WIRE_PROBE_FOR || type == WIRE_PROBE_SAW);
    message->probe_for = *about;
}

void probe_set_state(struct probe *probe, struct peer *peer, enum probe_state state)
{
    assert(peer->state != state);
    peer->state = state;
    peer->since_ms = probe->now_ms;
    if (state == PROBE_FAILED || state == PROBE_LEFT)
        peer->answered = false;

    struct probe_output *out =
        probe_add_output(probe, PROBE_STATE, &peer->node, kept_text(&peer->address));
    out->state.state = state;
    out->state.since_ms = probe->now_ms;
}
