/*
 * What the probe core makes of messages. Each counts as a word from its sender, whatever it says;
 * what answers no question of ours counts as nothing more.
 *
 *   probe   an ack goes back, to members and strangers alike
 *   ack     of our probe: round trip, clock; of one for another: a saw goes to that member;
 *           of a seed's: we have met
 *   for     a probe goes to the subject; the saw follows its ack, or its silence (probe.c)
 *   saw     a "yes" is a word from the subject
 */
#include "cluster/probe_internal.h"

#include <assert.h>

void probe_forget(struct peer *peer)
{
    peer->first_t = NEVER;
    memset(peer->questions, 0, sizeof peer->questions);
}

/* Some other node's message arrived: the network is there. */
void probe_hear_anybody(struct probe *probe)
{
    if (probe->t - probe->heard_t >= PROBE_SILENT_MS) {
        for (size_t i = 0; i < probe->peer_count; i++)
            probe_forget(&probe->peers[i]);
    }
    probe->heard_t = probe->t;
}

/* A word from PEER, or from one that asked it just now. */
void probe_hear(struct probe *probe, struct peer *peer)
{
    if (peer->state == PROBE_LEFT)
        return;
    probe_forget(peer);
    peer->answered = true;
    if (peer->state != PROBE_ALIVE)
        probe_set_state(probe, peer, PROBE_ALIVE);
}

/* What a probe or its answer says of its sender. */
static void hear_summary(struct probe *probe, struct peer *peer, const struct wire_probe *said)
{
    if (said->leaving) {
        probe_forget(peer);
        if (peer->state != PROBE_LEFT)
            probe_set_state(probe, peer, PROBE_LEFT);
    } else {
        if (peer->state == PROBE_LEFT)
            probe_set_state(probe, peer, PROBE_ALIVE);
        probe_hear(probe, peer);
    }
    peer->told = true;
    peer->feature = said->feature;
    peer->summary = said->summary;
    peer->level = said->level;
    peer->draining = said->draining;
    assert(said->version.len < sizeof peer->version); /* wire_decode saw to it */
    if (said->version.len)
        memcpy(peer->version, said->version.ptr, said->version.len);
    peer->version[said->version.len] = '\0';

    struct probe_output *out =
        probe_add_output(probe, PROBE_PEER_SUMMARY, &peer->node, kept_text(&peer->address));
    out->summary.summary = peer->summary;
    out->summary.feature = peer->feature;
    out->summary.rtt_ms = peer->measured ? (int64_t)(peer->rtt_us / 1000) : -1;
}

static void measure(const struct probe *probe, struct peer *peer, uint64_t sent_ms,
                    uint64_t their_wall_ms)
{
    assert(sent_ms <= probe->now_ms);
    uint64_t rtt_ms = probe->now_ms - sent_ms;

    if (rtt_ms > RTT_MAX_MS || their_wall_ms >= WALL_LIMIT_MS || probe->wall_ms >= WALL_LIMIT_MS)
        return;
    /* Smoothed as RFC 6298 does it. */
    peer->rtt_us = peer->measured ? (7 * peer->rtt_us + rtt_ms * 1000) / 8 : rtt_ms * 1000;
    peer->offset_ms = (int64_t)(their_wall_ms + rtt_ms / 2) - (int64_t)probe->wall_ms;
    peer->measured = true;
}

/* An answer to one of PEER's last probes? */
static bool match_probe(struct probe *probe, struct peer *peer, const struct wire_probe *ack)
{
    for (size_t i = 0; i < RECENT; i++) {
        if (peer->probes[i].nonce == 0 || peer->probes[i].nonce != ack->nonce)
            continue;
        peer->probes[i].nonce = 0;
        if (peer->probes[i].sent_ms > peer->answered_ms)
            peer->answered_ms = peer->probes[i].sent_ms;
        measure(probe, peer, peer->probes[i].sent_ms, ack->wall_ms);
        if (probe->doubt > 0)
            probe->doubt--;
        return true;
    }
    return false;
}

/* An answer that somebody else waits for? */
static bool match_relay(struct probe *probe, const struct peer *peer, uint64_t nonce)
{
    for (size_t i = 0; i < probe->relay_count; i++) {
        struct relay relay = probe->relays[i];

        if (relay.nonce != nonce || !id_equal(&relay.subject, &peer->node))
            continue;
        probe->relays[i] = probe->relays[--probe->relay_count];
        const struct peer *asker = probe_find(probe, &relay.asker);
        if (asker)
            probe_send_about(probe, asker, WIRE_PROBE_SAW,
                             &(struct wire_probe_for){relay.asker_nonce, relay.subject, 1});
        return true;
    }
    return false;
}

static struct seed *find_seed(struct probe *probe, uint64_t nonce)
{
    for (size_t i = 0; i < probe->seed_count; i++) {
        if (probe->seeds[i].nonce == nonce)
            return &probe->seeds[i];
    }
    return NULL;
}

void probe_drop_seed(struct probe *probe, struct seed *seed)
{
    assert(seed >= probe->seeds && seed < probe->seeds + probe->seed_count);
    *seed = probe->seeds[--probe->seed_count];
}

static void meet_seed(struct probe *probe, struct seed *seed, const struct id128 *node,
                      bool is_member, const struct wire_probe *ack)
{
    probe->given = seed->address;
    struct probe_output *out = probe_add_output(probe, PROBE_MET, node, kept_text(&probe->given));

    out->met.advertised = ack->address;
    out->met.seen = ack->seen;
    if (is_member) {
        probe_drop_seed(probe, seed);
        return;
    }
    /* Asked on, though seldom: it may be gone before this node has joined. */
    seed->node = *node;
    seed->wait_ms = PROBE_SEED_MAX_MS;
    seed->next_t = probe->t + PROBE_SEED_MAX_MS;
}

static void take_ack(struct probe *probe, const struct id128 *from, struct peer *peer,
                     const struct wire_probe *ack)
{
    struct seed *seed = find_seed(probe, ack->nonce);
    bool known = false;

    if (seed) {
        meet_seed(probe, seed, from, peer != NULL, ack);
        known = true;
    } else if (peer) {
        known = match_probe(probe, peer, ack) || match_relay(probe, peer, ack->nonce);
    }
    probe->counts.stale += !known;
    if (peer)
        hear_summary(probe, peer, ack);
}

static void take_probe(struct probe *probe, const struct id128 *from, struct peer *peer,
                       const struct wire_probe *asked, struct text peer_address)
{
    if (keep_text(&probe->seen, peer_address) != 0)
        probe->seen.len = 0;
    struct wire_message *message =
        probe_add_message(probe, PROBE_REPLY, from, asked->address, WIRE_PROBE_ACK);
    probe_fill(probe, &message->probe, asked->nonce, from);
    message->probe.seen = kept_text(&probe->seen);
    if (peer)
        hear_summary(probe, peer, asked);
}

static void take_question(struct probe *probe, const struct peer *asker,
                          const struct wire_probe_for *question)
{
    struct peer *subject = probe_find(probe, &question->subject);
    size_t at = 0;

    if (!asker || !subject || asker == subject) {
        probe->counts.refused++;
        return;
    }
    /* The asker's next round about the same member takes the place of the one before. */
    while (at < probe->relay_count && !(id_equal(&probe->relays[at].asker, &asker->node) &&
                                        id_equal(&probe->relays[at].subject, &subject->node)))
        at++;
    if (at == LIMIT_PROBE_RELAYS) {
        probe->counts.refused++;
        return;
    }
    if (at == probe->relay_count)
        probe->relay_count++;
    probe->relays[at] = (struct relay){.asker = asker->node,
                                       .subject = subject->node,
                                       .asker_nonce = question->nonce,
                                       .nonce = probe_nonce(probe),
                                       .due_t = probe->t + doubted(probe, ack_ms(subject))};
    probe_send(probe, subject, probe->relays[at].nonce);
}

static void take_saw(struct probe *probe, const struct wire_probe_for *saw)
{
    struct peer *subject = probe_find(probe, &saw->subject);

    for (size_t i = 0; subject && i < RECENT; i++) {
        if (saw->nonce == 0 || subject->questions[i] != saw->nonce)
            continue;
        subject->questions[i] = 0;
        if (saw->answered)
            probe_hear(probe, subject);
        return;
    }
    probe->counts.stale++;
}

/* Our own message came back: from a seed that is this node, or from another with our id. */
static void take_own(struct probe *probe, const struct wire_message *message)
{
    struct seed *seed = message->type == WIRE_PROBE ? find_seed(probe, message->probe.nonce) : NULL;

    probe->counts.own++;
    if (!seed)
        return;
    probe->given = seed->address;
    probe_add_output(probe, PROBE_SELF, &probe->node, kept_text(&probe->given));
    probe_drop_seed(probe, seed);
}

void probe_take_message(struct probe *probe, const struct wire_message *message,
                        struct text peer_address)
{
    if (id_equal(&message->from, &probe->node)) {
        take_own(probe, message);
        return;
    }
    struct peer *peer = probe_find(probe, &message->from);
    bool probes = message->type == WIRE_PROBE || message->type == WIRE_PROBE_ACK;

    probe_hear_anybody(probe);
    if (probes && !id_is_zero(&message->probe.to) && !id_equal(&message->probe.to, &probe->node)) {
        probe->counts.misdirected++;
        if (peer)
            probe_hear(probe, peer);
        return;
    }
    if (peer && !probes)
        probe_hear(probe, peer);
    switch ((int)message->type) {
    case WIRE_PROBE:
        take_probe(probe, &message->from, peer, &message->probe, peer_address);
        break;
    case WIRE_PROBE_ACK:
        take_ack(probe, &message->from, peer, &message->probe);
        break;
    case WIRE_PROBE_FOR:
        take_question(probe, peer, &message->probe_for);
        break;
    case WIRE_PROBE_SAW:
        take_saw(probe, &message->probe_for);
        break;
    default: /* not ours, but a word all the same */
        break;
    }
}
