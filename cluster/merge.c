/*
 * Merging: the step, and what its parts share.
 *
 *   merge_ask.c      taking a peer's rows, and its vector in the end
 *   merge_repair.c   finding the ranges that differ
 *   merge_give.c     giving ours
 *
 * As in sync: one input is taken note of by the part that it concerns, then each part looks at its
 * state and puts out what is to be done. Messages can be anything that wire_decode lets pass; what
 * fits no session is answered with an end, an end never.
 *
 * There is one merge at a time that this node asks for. Being behind goes before rows that differ:
 * it makes them equal, too.
 */
#include "cluster/merge_internal.h"

#include "journal/snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* The most that the pump of one session, or one input, puts out. */
#define ROOM 4

int merge_create(struct merge **out, const struct merge_config *config)
{
    struct merge *core = calloc(1, sizeof *core);

    *out = NULL;
    if (!core)
        return ERR_NO_MEMORY;
    core->self = config->self;
    core->dice = config->seed;
    core->vector = config->vector;
    buf_init(&core->list, LIMIT_WIRE_BYTES);
    buf_init(&core->sums, LIMIT_WIRE_FENCES * WIRE_SUM_BYTES);
    *out = core;
    return 0;
}

void merge_destroy(struct merge **core)
{
    if (!*core)
        return;
    merge_ask_release(*core);
    merge_give_release(*core);
    buf_release(&(*core)->list);
    buf_release(&(*core)->sums);
    free(*core);
    *core = NULL;
}

const struct merge_stats *merge_stats(const struct merge *core)
{
    return &core->stats;
}

size_t merge_busy(const struct merge *core)
{
    size_t count = core->ask.job != JOB_NONE;

    for (size_t i = 0; i < LIMIT_MERGE_SERVED; i++)
        count += core->given[i].session != 0;
    return count;
}

/* ---- for the parts ---- */

/* SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). */
uint64_t merge_random(struct merge *core, uint64_t below)
{
    uint64_t z = core->dice += UINT64_C(0x9e3779b97f4a7c15);

    assert(below > 0);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % below;
}

struct mate *merge_mate(struct merge *core, const struct id128 *node)
{
    for (size_t i = 0; i < LIMIT_MEMBERS; i++)
        if (core->mates[i].used && id_equal(&core->mates[i].node, node))
            return &core->mates[i];
    return NULL;
}

bool merge_room(struct merge *core)
{
    bool room = core->output_count + ROOM <= LIMIT_MERGE_OUTPUTS;

    core->more |= !room;
    return room;
}

struct merge_output *merge_emit(struct merge *core, enum merge_output_kind kind)
{
    assert(core->output_count < LIMIT_MERGE_OUTPUTS);
    struct merge_output *out = &core->outputs[core->output_count++];

    *out = (struct merge_output){.kind = kind};
    return out;
}

struct wire_message *merge_send(struct merge *core, const struct id128 *to, enum wire_type type)
{
    struct merge_output *out = merge_emit(core, MERGE_SEND);

    out->send.to = *to;
    out->send.message.type = type;
    out->send.message.from = core->self;
    return &out->send.message;
}

void merge_send_flow(struct merge *core, const struct id128 *to, enum wire_type type,
                     uint64_t session, uint64_t bytes, enum wire_end end)
{
    struct wire_message *message = merge_send(core, to, type);

    message->flow = (struct wire_flow){.session = session, .bytes = bytes, .end = (uint8_t)end};
}

uint64_t merge_row_count(struct text data)
{
    uint64_t rows = 0;
    uint32_t len;

    while (data.len > sizeof len) {
        struct snapshot_reader reader;

        memcpy(&len, data.ptr, sizeof len);
        if (len > data.len - sizeof len)
            break;
        if (snapshot_open(&reader, data.ptr + sizeof len, len) == 0 && reader.kind == SNAPSHOT_ROWS)
            rows += reader.left;
        data = (struct text){data.ptr + sizeof len + len, data.len - (uint32_t)sizeof len - len};
    }
    return rows;
}

struct buf *merge_list(struct merge *core)
{
    if (core->list_taken) {
        core->more = true;
        return NULL;
    }
    buf_reset(&core->list);
    core->list_taken = true;
    return &core->list;
}

/* ---- inputs ---- */

/* In a free place, or that of one who is gone and was promised nothing. NULL: there is none. */
static struct mate *new_mate(struct merge *core, const struct id128 *node)
{
    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        struct mate *place = &core->mates[i];

        if (place->used && (place->alive || place->guest_until))
            continue;
        *place = (struct mate){.used = true, .node = *node};
        return place;
    }
    return NULL;
}

static int note_peer(struct merge *core, const struct id128 *node, bool alive)
{
    struct mate *mate = merge_mate(core, node);

    if (!mate && alive)
        mate = new_mate(core, node);
    if (!mate)
        return alive ? ERR_FULL : 0;
    if (mate->alive && !alive) {
        merge_give_peer_gone(core, node);
        if (core->ask.job != JOB_NONE && core->ask.session && id_equal(&core->ask.peer, node))
            merge_ask_retry(core);
    }
    mate->alive = alive;
    mate->differs = 0;
    return 0;
}

static void note_compare(struct merge *core, const struct id128 *node, bool equal, uint64_t rows)
{
    struct mate *mate = merge_mate(core, node);

    if (!mate)
        return;
    core->rows = rows;
    if (equal) {
        mate->differs = 0;
        mate->again_ms = mate->again_at = 0;
        return;
    }
    if (mate->differs++ == 0)
        mate->since_ms = core->now_ms;
}

static int note(struct merge *core, const struct merge_input *input)
{
    switch (input->kind) {
    case MERGE_TICK:
        return 0;
    case MERGE_OWN:
        core->own = input->own;
        return 0;
    case MERGE_PEER:
        return note_peer(core, &input->peer.node, input->peer.alive);
    case MERGE_BEHIND:
        merge_ask_behind(core, &input->behind);
        return 0;
    case MERGE_COMPARE:
        note_compare(core, &input->compare.node, input->compare.equal, input->compare.rows);
        return 0;
    case MERGE_MESSAGE:
        if (merge_ask_message(core, &input->message))
            return 0;
        return merge_give_message(core, &input->message);
    case MERGE_READ_DONE:
        merge_give_read_done(core, &input->read_done);
        return 0;
    case MERGE_SUMMED:
        if (id_is_zero(&input->summed.peer))
            merge_ask_summed(core, &input->summed);
        else
            merge_give_summed(core, &input->summed);
        return 0;
    case MERGE_COMMITTED:
        merge_ask_committed(core, input->committed.token, input->committed.rc);
        return 0;
    }
    return ERR_INVALID;
}

/* Events stay while somebody may be about to adopt a vector that we gave. */
static void hold(struct merge *core)
{
    bool holds = false;

    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        struct mate *mate = &core->mates[i];

        if (mate->guest_until && core->now_ms >= mate->guest_until)
            mate->guest_until = 0;
        holds |= mate->used && mate->guest_until;
    }
    if (holds == core->holds || !merge_room(core))
        return;
    core->holds = holds;
    merge_emit(core, MERGE_HOLD)->hold = holds;
}

int merge_step(struct merge *core, const struct merge_input *input, struct merge_outputs *out)
{
    assert(input->now_ms >= core->now_ms);

    core->now_ms = input->now_ms;
    core->output_count = 0;
    core->list_taken = core->more = false;
    int rc = note(core, input);

    hold(core); /* before anything is given */
    merge_give_pump(core);
    merge_ask_pump(core);
    *out = (struct merge_outputs){core->outputs, core->output_count, core->more};
    return rc;
}
