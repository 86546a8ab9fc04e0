/*
 * The messages of sync as bytes: members, in the order of their structs, and the rules that both
 * ends keep (as wire.c, whose table has their rows).
 */
#include "cluster/wire_sync.h"

#include "cluster/wire_fields.h"
#include "journal/pack.h"

#include <string.h>

bool sync_ask_ok(const struct wire_message *message)
{
    return message->sync_ask.session != 0 && wire_runs_ok(message->sync_ask.runs);
}

void write_sync_ask(struct buf *out, const struct wire_message *message)
{
    const struct wire_sync_ask *ask = &message->sync_ask;

    pack_uint(out, ask->session);
    wire_put_hash(out, &ask->ended);
    pack_uint(out, ask->ended_count);
    pack_uint(out, ask->credit_bytes);
    wire_put_data(out, ask->runs);
}

void read_sync_ask(struct unpack *in, struct wire_message *out)
{
    struct wire_sync_ask *ask = &out->sync_ask;

    ask->session = unpack_uint(in, UINT64_MAX);
    ask->ended = wire_take_hash(in);
    ask->ended_count = unpack_uint(in, UINT64_MAX);
    ask->credit_bytes = unpack_uint(in, UINT64_MAX);
    ask->runs = wire_take_data(in);
}

bool sync_more_ok(const struct wire_message *message)
{
    return message->flow.session != 0;
}

bool sync_vector_ok(const struct wire_message *message)
{
    return message->sync_vector.session != 0 && wire_runs_ok(message->sync_vector.runs);
}

void write_sync_vector(struct buf *out, const struct wire_message *message)
{
    const struct wire_sync_vector *vector = &message->sync_vector;

    pack_uint(out, vector->session);
    pack_uint(out, vector->page);
    pack_bool(out, vector->last);
    wire_put_data(out, vector->runs);
}

void read_sync_vector(struct unpack *in, struct wire_message *out)
{
    struct wire_sync_vector *vector = &out->sync_vector;

    vector->session = unpack_uint(in, UINT64_MAX);
    vector->page = (uint32_t)unpack_uint(in, UINT32_MAX);
    vector->last = unpack_bool(in);
    vector->runs = wire_take_data(in);
}

bool sync_events_ok(const struct wire_message *message)
{
    const struct wire_sync_events *events = &message->sync_events;
    size_t offset = 0;
    uint32_t count = 0;
    struct text event;

    if (events->first < 1 || events->count < 1 || events->first > WIRE_SEQ_MAX ||
        events->count - 1 > WIRE_SEQ_MAX - events->first ||
        events->data.len > LIMIT_WIRE_EVENT_BYTES)
        return false;
    while (wire_next_event(events->data, &offset, &event)) {
        if (event.len < 1 || event.len > LIMIT_EVENT_BYTES)
            return false;
        count++;
    }
    return offset == events->data.len && count == events->count;
}

void write_sync_events(struct buf *out, const struct wire_message *message)
{
    const struct wire_sync_events *events = &message->sync_events;

    pack_uint(out, events->session);
    wire_put_id(out, &events->origin);
    pack_uint(out, events->first);
    pack_uint(out, events->count);
    wire_put_data(out, events->data);
}

void read_sync_events(struct unpack *in, struct wire_message *out)
{
    struct wire_sync_events *events = &out->sync_events;

    events->session = unpack_uint(in, UINT64_MAX);
    wire_take_id(in, &events->origin);
    events->first = unpack_uint(in, WIRE_SEQ_MAX);
    events->count = (uint32_t)unpack_uint(in, UINT32_MAX);
    events->data = wire_take_data(in);
}

bool frozen_ok(const struct wire_message *message)
{
    static const struct id128 none;
    struct text runs = message->sync_frozen.runs;

    if (message->sync_frozen.session == 0 || runs.len == 0 || runs.len % WIRE_FROZEN_BYTES != 0 ||
        runs.len > LIMIT_WIRE_FROZEN * WIRE_FROZEN_BYTES)
        return false;
    for (uint32_t at = 0; at < runs.len; at += sizeof none)
        if (memcmp(runs.ptr + at, &none, sizeof none) == 0)
            return false;
    return true;
}

void write_frozen(struct buf *out, const struct wire_message *message)
{
    pack_uint(out, message->sync_frozen.session);
    wire_put_data(out, message->sync_frozen.runs);
}

void read_frozen(struct unpack *in, struct wire_message *out)
{
    out->sync_frozen.session = unpack_uint(in, UINT64_MAX);
    out->sync_frozen.runs = wire_take_data(in);
}
