/*
 * Pushing this process's own run to everybody.
 *
 * Whatever is durable is read once, in ranges of up to LIMIT_WIRE_EVENT_BYTES, one read at a time,
 * and each range goes to every peer that is in step; what becomes durable meanwhile is the next
 * range. So the cost of a commit is one read, and latency is bounded by that of one read.
 *
 * A peer is in step if what we push next follows what it has. It drops out as soon as it may not
 * (it says so, its window is full, a read failed, it died), and then gets nothing until it has
 * asked and was told everything, or says by its summary that it knows what we know. Nothing is ever
 * pushed again: repair is the asker's matter.
 */
#include "cluster/sync_internal.h"

#include <assert.h>

void sync_push_local(struct sync *core, const struct vector_run *run)
{
    struct push *push = &core->push;

    if (!id_equal(&push->origin, &run->origin)) {
        *push = (struct push){.origin = run->origin, .next = 1};
        for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
            struct peer *peer = &core->peers[i];

            peer->in_step = peer->used && peer->alive;
            peer->pushed = peer->unacked = 0;
        }
    }
    if (run->seq > push->seq)
        push->seq = run->seq;
}

void sync_push_frozen(struct sync *core, const struct id128 *origin)
{
    if (id_equal(&core->push.origin, origin))
        core->push = (struct push){.seq = 0}; /* until the next run begins */
}

bool sync_push_join(struct sync *core, struct peer *peer, uint64_t seq)
{
    const struct push *push = &core->push;

    /* What is being read now will go to it, too. */
    if (!peer->alive || seq + 1 < push->next)
        return false;
    peer->in_step = true;
    peer->pushed = seq;
    peer->unacked = 0;
    return true;
}

void sync_push_credit(struct sync *core, const struct id128 *node, uint64_t bytes)
{
    struct peer *peer = sync_find_peer(core, node);

    if (peer)
        peer->unacked -= bytes < peer->unacked ? bytes : peer->unacked;
}

static void push_to(struct sync *core, struct peer *peer, const struct sync_read_done *done)
{
    uint64_t last = done->first + done->count - 1;

    if (last <= peer->pushed)
        return;
    if (peer->pushed + 1 < done->first || peer->unacked + done->data.len > SYNC_PUSH_WINDOW_BYTES) {
        peer->in_step = false;
        return;
    }
    struct wire_message *message = sync_send(core, &peer->node, WIRE_SYNC_EVENTS);

    message->sync_events = (struct wire_sync_events){.session = SYNC_PUSH,
                                                     .origin = done->origin,
                                                     .first = done->first,
                                                     .count = done->count,
                                                     .data = done->data};
    peer->pushed = last;
    peer->unacked += done->data.len;
    core->stats.pushes++;
    core->stats.events_out += done->count;
    core->stats.bytes_out += done->data.len;
}

static void give_up(struct sync *core)
{
    core->push.reading = false;
    core->push.next = core->push.seq + 1;
    for (size_t i = 0; i < LIMIT_MEMBERS; i++)
        core->peers[i].in_step = false;
}

void sync_push_read_done(struct sync *core, const struct sync_read_done *done)
{
    struct push *push = &core->push;

    if (!push->reading || !id_equal(&push->origin, &done->origin) || push->next != done->first)
        return;
    if (done->rc < 0) {
        give_up(core);
        return;
    }
    assert(done->count > 0 && done->data.len <= LIMIT_WIRE_EVENT_BYTES);
    push->reading = false;
    push->next = done->first + done->count;
    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        struct peer *peer = &core->peers[i];

        if (peer->used && peer->alive && peer->in_step)
            push_to(core, peer, done);
    }
}

static bool anybody_in_step(const struct sync *core)
{
    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        const struct peer *peer = &core->peers[i];

        if (peer->used && peer->alive && peer->in_step && peer->pushed < core->push.seq)
            return true;
    }
    return false;
}

void sync_push_pump(struct sync *core)
{
    struct push *push = &core->push;

    if (push->reading && core->now_ms - push->since_ms >= SYNC_DEADLINE_MS) {
        core->stats.timeouts++;
        give_up(core);
    }
    if (push->reading || push->next > push->seq || !sync_room(core))
        return;
    if (!anybody_in_step(core)) {
        push->next = push->seq + 1;
        return;
    }
    push->reading = true;
    push->since_ms = core->now_ms;
    sync_emit(core, SYNC_READ)->read = (struct sync_read){.session = SYNC_PUSH,
                                                          .origin = push->origin,
                                                          .first = push->next,
                                                          .limit_bytes = LIMIT_WIRE_EVENT_BYTES};
}
