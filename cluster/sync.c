/*
 * Journal sync: the step, and what its parts share.
 *
 * One input is taken note of, by the part that it concerns; then each part looks at its state and
 * puts out what is to be done (pump). So nothing waits in queues: what does not fit into one step's
 * list is still to be done in the next one's, and the caller is told that there is more. Answers
 * that lend an input's bytes (events) leave with that input's step; there is always room for them.
 *
 *   sync_ask.c     asking peers for what we lack; taking events, also those pushed
 *   sync_serve.c   answering peers
 *   sync_push.c    pushing our own run
 *
 * A message can be anything that wire_decode lets pass, in any order, from anybody who knows the
 * cluster's secret. What fits no session is answered with an end (so that the other side forgets
 * it, too) or ignored; an end is never answered, so no two nodes can keep each other busy.
 */
#include "cluster/sync_internal.h"

#include <assert.h>
#include <stdlib.h>

/* The most that the pump of one session, or one input that is no push, puts out. */
#define ROOM 8

_Static_assert(LIMIT_SYNC_OUTPUTS >= LIMIT_MEMBERS + 2 * ROOM, "a push goes to all at once");

int sync_create(struct sync **out, const struct sync_config *config)
{
    struct sync *core = calloc(1, sizeof *core);

    *out = NULL;
    if (!core)
        return ERR_NO_MEMORY;
    core->self = config->self;
    core->dice = config->seed;
    buf_init(&core->list, LIMIT_WIRE_RUNS * WIRE_RUN_BYTES);
    int rc = vector_create(&core->vector, config->run_limit ? config->run_limit : LIMIT_RUNS,
                           sync_random(core, UINT64_MAX));

    if (rc < 0) {
        sync_destroy(&core);
        return rc;
    }
    *out = core;
    return 0;
}

void sync_destroy(struct sync **core)
{
    if (!*core)
        return;
    sync_serve_release(*core);
    vector_destroy(&(*core)->vector);
    buf_release(&(*core)->list);
    free(*core);
    *core = NULL;
}

const struct vector *sync_vector(const struct sync *core)
{
    return core->vector;
}

const struct sync_stats *sync_stats(const struct sync *core)
{
    return &core->stats;
}

size_t sync_busy(const struct sync *core)
{
    size_t count = core->push.reading;

    for (size_t i = 0; i < LIMIT_SYNC_ASKED; i++)
        count += core->asked[i].session != 0;
    for (size_t i = 0; i < LIMIT_SYNC_SERVED; i++)
        count += core->served[i].session != 0;
    for (size_t i = 0; i < LIMIT_SYNC_FLIGHTS; i++)
        count += core->flights[i].used;
    return count;
}

/* ---- for the parts ---- */

/* SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
uint64_t sync_random(struct sync *core, uint64_t below)
{
    uint64_t z = core->dice += UINT64_C(0x9e3779b97f4a7c15);

    assert(below > 0);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % below;
}

struct peer *sync_find_peer(struct sync *core, const struct id128 *node)
{
    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (core->peers[i].used && id_equal(&core->peers[i].node, node))
            return &core->peers[i];
    }
    return NULL;
}

bool sync_was_ours(const struct sync *core, const struct hash128 *sum)
{
    struct vector_sum now = vector_sum(core->vector, VECTOR_ALL);
    bool found = hash128_equal(&now.hash, sum);

    for (size_t i = 0; !found && i < LIMIT_SYNC_PAST; i++)
        found = hash128_equal(&core->past[i], sum);
    return found;
}

bool sync_room(struct sync *core)
{
    bool room = core->output_count + ROOM <= LIMIT_SYNC_OUTPUTS;

    core->more |= !room;
    return room;
}

struct sync_output *sync_emit(struct sync *core, enum sync_output_kind kind)
{
    assert(core->output_count < LIMIT_SYNC_OUTPUTS);
    struct sync_output *out = &core->outputs[core->output_count++];

    *out = (struct sync_output){.kind = kind};
    return out;
}

struct wire_message *sync_send(struct sync *core, const struct id128 *to, enum wire_type type)
{
    struct sync_output *out = sync_emit(core, SYNC_SEND);

    out->send.to = *to;
    out->send.message.type = type;
    out->send.message.from = core->self;
    return &out->send.message;
}

void sync_send_flow(struct sync *core, const struct id128 *to, enum wire_type type,
                    uint64_t session, uint64_t bytes, enum wire_end end)
{
    struct wire_message *message = sync_send(core, to, type);

    message->flow = (struct wire_flow){.session = session, .bytes = bytes, .end = (uint8_t)end};
}

struct buf *sync_list(struct sync *core)
{
    if (core->list_taken) {
        core->more = true;
        return NULL;
    }
    buf_reset(&core->list);
    if (!buf_reserve(&core->list, LIMIT_WIRE_RUNS * WIRE_RUN_BYTES))
        return NULL; /* the session's deadline takes care of it */
    core->list_taken = true;
    return &core->list;
}

/* ---- inputs ---- */

static int note_local(struct sync *core, const struct sync_local *local)
{
    if ((local->run.seq == 0 && !local->run.frozen) || local->run.seq > WIRE_SEQ_MAX)
        return ERR_INVALID;
    struct vector_sum before = vector_sum(core->vector, VECTOR_ALL);
    bool changed;
    int rc = vector_raise(core->vector, &local->run, &changed);

    if (rc < 0)
        return rc;
    if (changed)
        core->past[core->past_next++ % LIMIT_SYNC_PAST] = before.hash;
    if (local->run.frozen)
        sync_push_frozen(core, &local->run.origin);
    else if (local->own)
        sync_push_local(core, &local->run);
    sync_ask_local(core, &local->run.origin);
    return 0;
}

/* A free place, or that of a peer that is dead. */
static struct peer *peer_place(struct sync *core)
{
    struct peer *place = NULL;

    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (!core->peers[i].used)
            return &core->peers[i];
        if (!core->peers[i].alive)
            place = &core->peers[i];
    }
    return place;
}

static int note_peer(struct sync *core, const struct sync_peer *input)
{
    struct peer *peer = sync_find_peer(core, &input->node);

    if (id_equal(&input->node, &core->self) || (!peer && !input->alive))
        return 0;
    if (!peer) {
        peer = peer_place(core);
        if (!peer)
            return ERR_FULL;
        *peer = (struct peer){.used = true, .node = input->node};
    }
    if (input->alive == peer->alive)
        return 0;
    peer->alive = input->alive;
    peer->news = peer->has_summary = false;
    peer->ask_at = peer->backoff_ms = peer->owed = 0;
    peer->in_step = false;
    if (!peer->alive) {
        sync_ask_peer_gone(core, &input->node);
        sync_serve_peer_gone(core, &input->node);
    } else if (core->push.seq == 0) {
        (void)sync_push_join(core, peer, 0);
    }
    return 0;
}

static void note_summary(struct sync *core, const struct sync_summary *input)
{
    struct vector_sum sum = vector_sum(core->vector, VECTOR_ALL);
    struct peer *peer = sync_find_peer(core, &input->node);

    if (!peer || !peer->alive)
        return;
    peer->has_summary = true;
    peer->summary = input->summary.vector;
    if (hash128_equal(&peer->summary, &sum.hash)) {
        peer->news = false;
        peer->ask_at = peer->backoff_ms = 0;
        (void)sync_push_join(core, peer, core->push.seq);
    } else if (!peer->news && !sync_was_ours(core, &peer->summary)) {
        sync_ask_wish(core, peer, sync_random(core, SYNC_DELAY_MS), true);
    }
}

static void note_wish(struct sync *core, const struct id128 *node)
{
    struct peer *peer = sync_find_peer(core, node);

    if (!peer || !peer->alive)
        return;
    peer->ask_at = 0;
    sync_ask_wish(core, peer, 0, false);
}

void sync_asked(const struct sync *core, const struct id128 *node, struct sync_asked *out)
{
    struct vector_sum sum = vector_sum(core->vector, VECTOR_ALL);

    *out = (struct sync_asked){.end = WIRE_END_DONE};
    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        const struct peer *peer = &core->peers[i];

        if (!peer->used || !id_equal(&peer->node, node))
            continue;
        *out = (struct sync_asked){.alive = peer->alive,
                                   .equal = peer->has_summary &&
                                            hash128_equal(&peer->summary, &sum.hash),
                                   .wished = peer->news || sync_ask_is_asked(core, node),
                                   .ended = peer->ended,
                                   .events = peer->gained,
                                   .end = peer->end};
    }
}

static int note_message(struct sync *core, const struct wire_message *message)
{
    switch (message->type) {
    case WIRE_SYNC_ASK:
        return sync_serve_ask(core, message);
    case WIRE_SYNC_VECTOR:
        return sync_serve_vector(core, message);
    case WIRE_SYNC_CREDIT:
        if (message->flow.session == SYNC_PUSH)
            sync_push_credit(core, &message->from, message->flow.bytes);
        else
            sync_serve_credit(core, message);
        return 0;
    case WIRE_SYNC_END:
        if (!sync_serve_end(core, &message->from, message->flow.session))
            sync_ask_message(core, message);
        return 0;
    case WIRE_SYNC_MORE:
    case WIRE_SYNC_EVENTS:
    case WIRE_SYNC_FROZEN:
        sync_ask_message(core, message);
        return 0;
    default:
        core->stats.ignored++;
        return 0;
    }
}

static int note(struct sync *core, const struct sync_input *input)
{
    switch (input->kind) {
    case SYNC_TICK:
        return 0;
    case SYNC_LOCAL:
        return note_local(core, &input->local);
    case SYNC_PEER:
        return note_peer(core, &input->peer);
    case SYNC_PEER_SUMMARY:
        note_summary(core, &input->summary);
        return 0;
    case SYNC_MESSAGE:
        return note_message(core, &input->message);
    case SYNC_READ_DONE:
        if (input->read_done.session == SYNC_PUSH)
            sync_push_read_done(core, &input->read_done);
        else
            sync_serve_read_done(core, &input->read_done);
        return 0;
    case SYNC_COMMITTED:
        sync_ask_committed(core, &input->committed);
        return 0;
    case SYNC_WISH:
        note_wish(core, &input->wish);
        return 0;
    }
    return ERR_INVALID;
}

int sync_step(struct sync *core, const struct sync_input *input, struct sync_outputs *out)
{
    assert(input->now_ms >= core->now_ms);

    core->now_ms = input->now_ms;
    core->output_count = 0;
    core->list_taken = core->more = false;
    int rc = note(core, input);

    sync_push_pump(core);
    sync_serve_pump(core);
    sync_ask_pump(core);
    *out = (struct sync_outputs){core->outputs, core->output_count, core->more};
    return rc;
}
