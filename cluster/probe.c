/*
 * A probe every second to each member, and the judgement of those that do not answer.
 *
 * All of a member's judgement hangs on one time: when the oldest probe was sent that nothing has
 * answered yet (first_t). Whatever is heard of it, from itself or from one that asked it for us,
 * forgets that time; the next probe sets it anew. With A = the time that an answer may take:
 *
 *   age of first_t           what happens
 *   A                        two others are asked, and again each round from here on
 *   A + PROBE_CONFIRM_MS     alive -> suspect
 *   A + 3 rounds             suspect -> failed; others are asked each tenth round from here on
 *   anything heard           -> alive
 *
 *   state      a word from it   that it leaves   no word
 *   alive      -                left             suspect
 *   suspect    alive            left             failed
 *   failed     alive            left             -
 *   left       alive (*)        -                -
 *   (*) only by a probe or ack that no longer says so: other messages may still be on their way
 *
 * Self-doubt: the three times above are multiplied by 1 + doubt. While nobody is heard doubt grows
 * by one each round; each answered probe takes one away. With a single other member that was alive
 * there is nothing to compare with, and to say that it does not answer is simply true: no doubt
 * then. The first word after a silence forgets every first_t, since what was not answered during
 * it proves nothing about the others.
 *
 * Time inside (…_t) is the caller's without what this node slept through: a stopped process or
 * machine wakes up to deadlines that nobody could have kept.
 *
 * Failure: no room for a member or seed. All else that is odd is counted.
 */
#include "cluster/probe_internal.h"

#include <assert.h>
#include <stdlib.h>

static void begin_round(struct probe *probe, struct peer *peer)
{
    uint64_t nonce = probe_nonce(probe);

    peer->probes[peer->probe_count++ % RECENT] = (struct asked){nonce, probe->now_ms};
    if (peer->first_t == NEVER && peer->state != PROBE_LEFT) {
        peer->first_t = probe->t;
        peer->ask_t = probe->t;
    }
    probe_send(probe, peer, nonce);
}

/* Ask two that answer, picked at random, whether SUBJECT does. */
static void ask_others(struct probe *probe, struct peer *subject)
{
    struct peer *helpers[HELPERS];
    size_t count = 0, met = 0;

    for (size_t i = 0; i < probe->peer_count; i++) {
        struct peer *peer = &probe->peers[i];

        if (peer == subject || peer->state != PROBE_ALIVE)
            continue;
        /* Reservoir sampling: each is equally likely. */
        uint64_t at = met++ < HELPERS ? met - 1 : probe_draw(probe) % met;
        if (at < HELPERS)
            helpers[at] = peer;
        count = met < HELPERS ? met : HELPERS;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t nonce = probe_nonce(probe);

        subject->questions[subject->question_count++ % RECENT] = nonce;
        probe_send_about(probe, helpers[i], WIRE_PROBE_FOR,
                         &(struct wire_probe_for){nonce, subject->node, 0});
    }
}

static uint64_t suspect_ms(const struct probe *probe, const struct peer *peer)
{
    return doubted(probe, ack_ms(peer) + PROBE_CONFIRM_MS);
}

static uint64_t failed_ms(const struct probe *probe, const struct peer *peer)
{
    return doubted(probe, ack_ms(peer) + PROBE_FAIL_ROUNDS * PROBE_ROUND_MS);
}

static void judge(struct probe *probe, struct peer *peer)
{
    if (peer->first_t == NEVER)
        return;
    assert(peer->state != PROBE_LEFT && peer->first_t <= probe->t);
    uint64_t age = probe->t - peer->first_t;

    if (age < doubted(probe, ack_ms(peer)))
        return;
    if (peer->state == PROBE_ALIVE && age >= suspect_ms(probe, peer))
        probe_set_state(probe, peer, PROBE_SUSPECT);
    if (peer->state == PROBE_SUSPECT && age >= failed_ms(probe, peer))
        probe_set_state(probe, peer, PROBE_FAILED);
    if (probe->t >= peer->ask_t) {
        ask_others(probe, peer);
        peer->ask_t = probe->t + (uint64_t)PROBE_ROUND_MS *
                                     (peer->state == PROBE_FAILED ? FAILED_ASK_ROUNDS : 1);
    }
}

static void grow_doubt(struct probe *probe)
{
    uint64_t silence = probe->t - probe->heard_t;
    size_t were_alive = 0;

    for (size_t i = 0; i < probe->peer_count; i++)
        were_alive += probe->peers[i].answered;
    if (silence < PROBE_SILENT_MS || were_alive < DOUBT_MEMBERS)
        return;
    uint64_t rounds = 1 + (silence - PROBE_SILENT_MS) / PROBE_ROUND_MS;
    if (rounds > PROBE_DOUBT_MAX)
        rounds = PROBE_DOUBT_MAX;
    if (probe->doubt < rounds)
        probe->doubt = (unsigned)rounds;
}

static void send_seed(struct probe *probe, struct seed *seed)
{
    static const struct id128 anybody;
    struct wire_message *message =
        probe_add_message(probe, PROBE_SEND_SEED, &anybody, kept_text(&seed->address), WIRE_PROBE);

    probe_fill(probe, &message->probe, seed->nonce, &anybody);
    seed->next_t = probe->t + seed->wait_ms - probe_draw(probe) % (seed->wait_ms / 8);
    seed->wait_ms *= 2;
    if (seed->wait_ms > PROBE_SEED_MAX_MS)
        seed->wait_ms = PROBE_SEED_MAX_MS;
}

static void end_relays(struct probe *probe)
{
    for (size_t i = probe->relay_count; i-- > 0;) {
        struct relay relay = probe->relays[i];

        if (probe->t < relay.due_t)
            continue;
        probe->relays[i] = probe->relays[--probe->relay_count];
        /* "No" is worth saying, too: it shows the asker that it can be heard itself. */
        const struct peer *asker = probe_find(probe, &relay.asker);
        if (asker)
            probe_send_about(probe, asker, WIRE_PROBE_SAW,
                             &(struct wire_probe_for){relay.asker_nonce, relay.subject, 0});
    }
}

static void tick(struct probe *probe)
{
    grow_doubt(probe);
    for (size_t i = 0; i < probe->peer_count; i++) {
        struct peer *peer = &probe->peers[i];

        judge(probe, peer);
        if (probe->t < peer->next_t)
            continue;
        begin_round(probe, peer);
        peer->next_t += PROBE_ROUND_MS;
        if (peer->next_t <= probe->t)
            peer->next_t = probe->t + PROBE_ROUND_MS;
    }
    for (size_t i = 0; i < probe->seed_count; i++) {
        if (probe->t >= probe->seeds[i].next_t)
            send_seed(probe, &probe->seeds[i]);
    }
    end_relays(probe);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t peer_next_t(const struct probe *probe, const struct peer *peer)
{
    uint64_t next = peer->next_t;

    if (peer->first_t == NEVER)
        return next;
    uint64_t overdue = peer->first_t + doubted(probe, ack_ms(peer));
    next = sooner(next, overdue > peer->ask_t ? overdue : peer->ask_t);
    if (peer->state == PROBE_ALIVE)
        next = sooner(next, peer->first_t + suspect_ms(probe, peer));
    if (peer->state == PROBE_SUSPECT)
        next = sooner(next, peer->first_t + failed_ms(probe, peer));
    return next;
}

static uint64_t next_t(const struct probe *probe)
{
    uint64_t next = NEVER;

    for (size_t i = 0; i < probe->peer_count; i++)
        next = sooner(next, peer_next_t(probe, &probe->peers[i]));
    for (size_t i = 0; i < probe->seed_count; i++)
        next = sooner(next, probe->seeds[i].next_t);
    for (size_t i = 0; i < probe->relay_count; i++)
        next = sooner(next, probe->relays[i].due_t);
    return next;
}

uint64_t probe_next_ms(const struct probe *probe)
{
    uint64_t next = next_t(probe);

    if (next == NEVER)
        return NEVER;
    return next <= probe->t ? probe->now_ms : probe->now_ms + (next - probe->t);
}

static void pass_time(struct probe *probe, const struct probe_input *in)
{
    uint64_t passed = in->now_ms > probe->now_ms ? in->now_ms - probe->now_ms : 0;

    if (passed > LATE_MS) {
        uint64_t next = next_t(probe), due = next > probe->t ? next - probe->t : 0;

        if (next != NEVER && passed > due && passed - due > LATE_MS)
            passed = due; /* it slept: its time goes on from where it should have woken */
    }
    probe->t += passed;
    if (in->now_ms > probe->now_ms)
        probe->now_ms = in->now_ms;
    probe->wall_ms = in->wall_ms;
}

static void drop_peer(struct probe *probe, struct peer *peer)
{
    for (size_t i = probe->relay_count; i-- > 0;) {
        if (id_equal(&probe->relays[i].asker, &peer->node) ||
            id_equal(&probe->relays[i].subject, &peer->node))
            probe->relays[i] = probe->relays[--probe->relay_count];
    }
    *peer = probe->peers[--probe->peer_count];
}

static int take_member(struct probe *probe, const struct id128 *node, struct text address,
                       bool joined)
{
    struct peer *peer = probe_find(probe, node);

    if (id_equal(node, &probe->node))
        return 0;
    if (!joined) {
        if (peer)
            drop_peer(probe, peer);
        return 0;
    }
    if (address.len > LIMIT_WIRE_ADDR_BYTES)
        return ERR_TOO_BIG;
    if (peer)
        return keep_text(&peer->address, address);
    if (probe->peer_count == LIMIT_MEMBERS)
        return ERR_FULL;
    peer = &probe->peers[probe->peer_count++];
    *peer = (struct peer){
        .node = *node, .next_t = probe->t + probe_draw(probe) % PROBE_ROUND_MS, .first_t = NEVER};
    int rc = keep_text(&peer->address, address);
    assert(rc == 0);
    probe_set_state(probe, peer, PROBE_SUSPECT);
    for (size_t i = probe->seed_count; i-- > 0;) {
        if (id_equal(&probe->seeds[i].node, node))
            probe_drop_seed(probe, &probe->seeds[i]);
    }
    return rc;
}

static int take_seed(struct probe *probe, struct text address)
{
    if (address.len == 0)
        return ERR_INVALID;
    for (size_t i = 0; i < probe->seed_count; i++) {
        struct seed *seed = &probe->seeds[i];

        if (kept_is(&seed->address, address)) {
            seed->next_t = probe->t;
            return 0;
        }
    }
    if (address.len > LIMIT_WIRE_ADDR_BYTES)
        return ERR_TOO_BIG;
    if (probe->seed_count == LIMIT_SEEDS)
        return ERR_FULL;
    struct seed *seed = &probe->seeds[probe->seed_count++];
    *seed = (struct seed){
        .nonce = probe_nonce(probe), .next_t = probe->t, .wait_ms = PROBE_SEED_MIN_MS};
    return keep_text(&seed->address, address);
}

static void drop_seed(struct probe *probe, struct text address)
{
    for (size_t i = probe->seed_count; i-- > 0;)
        if (kept_is(&probe->seeds[i].address, address))
            probe_drop_seed(probe, &probe->seeds[i]);
}

/* Not again in the same millisecond: the last one's answer tells the same. */
static void probe_at_once(struct probe *probe, const struct id128 *node)
{
    for (size_t i = 0; i < probe->peer_count; i++) {
        struct peer *peer = &probe->peers[i];
        const struct asked *last = &peer->probes[(peer->probe_count + RECENT - 1) % RECENT];

        if ((id_is_zero(node) || id_equal(node, &peer->node)) &&
            (last->nonce == 0 || last->sent_ms < probe->now_ms))
            begin_round(probe, peer);
    }
}

static int take_local(struct probe *probe, const struct probe_input *in)
{
    bool leaves = in->local.leaving && !probe->leaving;
    int rc = keep_text(&probe->address, in->local.address);

    if (rc)
        return rc;
    probe->summary = in->local.summary;
    probe->feature = in->local.feature;
    probe->leaving = in->local.leaving;
    probe->draining = in->local.draining;
    probe->level = in->local.level;
    for (size_t i = 0; leaves && i < probe->peer_count; i++)
        begin_round(probe, &probe->peers[i]);
    return 0;
}

int probe_step(struct probe *probe, const struct probe_input *in, const struct probe_output **out,
               size_t *count)
{
    int rc;

    probe->output_count = 0;
    pass_time(probe, in);
    switch (in->kind) {
    case PROBE_TICK:
        tick(probe);
        rc = 0;
        break;
    case PROBE_MEMBER:
        rc = take_member(probe, &in->member.node, in->member.address, in->member.joined);
        break;
    case PROBE_SEED:
        rc = take_seed(probe, in->seed);
        break;
    case PROBE_MESSAGE:
        probe_take_message(probe, in->message.message, in->message.peer);
        rc = 0;
        break;
    case PROBE_HEARD: {
        struct peer *peer = probe_find(probe, &in->heard);

        if (!id_equal(&in->heard, &probe->node))
            probe_hear_anybody(probe);
        if (peer)
            probe_hear(probe, peer);
        rc = 0;
        break;
    }
    case PROBE_LOCAL:
        rc = take_local(probe, in);
        break;
    case PROBE_NOW:
        probe_at_once(probe, &in->now);
        rc = 0;
        break;
    case PROBE_SEED_DROP:
        drop_seed(probe, in->seed);
        rc = 0;
        break;
    default:
        rc = ERR_INVALID;
    }
    assert(rc == 0 || probe->output_count == 0);
    *out = probe->outputs;
    *count = probe->output_count;
    return rc;
}

int probe_create(struct probe **out, const struct probe_config *config, uint64_t now_ms)
{
    struct probe *probe;
    int rc;

    if (config->tag.len > LIMIT_WIRE_TAG_BYTES || config->version.len > LIMIT_WIRE_VERSION_BYTES)
        return ERR_TOO_BIG;
    probe = calloc(1, sizeof *probe);
    if (!probe)
        return ERR_NO_MEMORY;
    assert(!id_is_zero(&config->node));
    probe->node = config->node;
    probe->now_ms = now_ms;
    probe->dice = config->seed;
    probe->version = config->version;
    probe->last_nonce = probe_draw(probe);
    rc = keep_text(&probe->tag, config->tag);
    if (rc == 0)
        rc = keep_text(&probe->address, config->address);
    if (rc) {
        probe_destroy(&probe);
        return rc;
    }
    *out = probe;
    return 0;
}

void probe_destroy(struct probe **probe)
{
    free(*probe);
    *probe = NULL;
}
