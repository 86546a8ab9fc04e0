/*
 * The messages that carry bodies, or ask others to take them, as bytes: members, in the order of
 * their structs, and the rules that both ends keep (as wire.c, whose table has their rows).
 */
#include "cluster/wire_body.h"

#include "cluster/wire_fields.h"
#include "journal/pack.h"

bool body_ask_ok(const struct wire_message *message)
{
    const struct wire_body_ask *ask = &message->body_ask;

    return ask->length == UINT64_MAX || ask->length <= UINT64_MAX - ask->offset;
}

void write_body_ask(struct buf *out, const struct wire_message *message)
{
    const struct wire_body_ask *ask = &message->body_ask;

    pack_uint(out, ask->transfer);
    wire_put_id(out, &ask->id);
    pack_bin(out, ask->sha256, sizeof ask->sha256);
    pack_uint(out, ask->offset);
    pack_uint(out, ask->length);
    pack_uint(out, ask->credit_bytes);
    pack_bool(out, ask->background);
}

void read_body_ask(struct unpack *in, struct wire_message *out)
{
    struct wire_body_ask *ask = &out->body_ask;

    ask->transfer = unpack_uint(in, UINT64_MAX);
    wire_take_id(in, &ask->id);
    unpack_bytes(in, ask->sha256, sizeof ask->sha256);
    ask->offset = unpack_uint(in, UINT64_MAX);
    ask->length = unpack_uint(in, UINT64_MAX);
    ask->credit_bytes = unpack_uint(in, UINT64_MAX);
    ask->background = unpack_bool(in);
}

void write_body_ask_more(struct buf *out, const struct wire_message *message)
{
    pack_bool(out, message->body_ask.delegated);
}

void read_body_ask_more(struct unpack *in, struct wire_message *out, uint32_t count)
{
    if (count > 0)
        out->body_ask.delegated = unpack_bool(in);
}

bool body_data_ok(const struct wire_message *message)
{
    const struct wire_body_data *data = &message->body_data;

    return data->data.len <= LIMIT_WIRE_CHUNK_BYTES && data->offset <= data->size &&
           data->data.len <= data->size - data->offset;
}

void write_body_data(struct buf *out, const struct wire_message *message)
{
    const struct wire_body_data *data = &message->body_data;

    pack_uint(out, data->transfer);
    pack_uint(out, data->offset);
    pack_uint(out, data->size);
    pack_uint(out, data->sum);
    wire_put_data(out, data->data);
}

void read_body_data(struct unpack *in, struct wire_message *out)
{
    struct wire_body_data *data = &out->body_data;

    data->transfer = unpack_uint(in, UINT64_MAX);
    data->offset = unpack_uint(in, UINT64_MAX);
    data->size = unpack_uint(in, UINT64_MAX);
    data->sum = unpack_uint(in, UINT64_MAX);
    data->data = wire_take_data(in);
}

bool adopt_ok(const struct wire_message *message)
{
    uint32_t len = message->adopt.items.len;

    return len > 0 && len % sizeof(struct event_item) == 0 &&
           len / sizeof(struct event_item) <= LIMIT_WIRE_ADOPT;
}

void write_adopt(struct buf *out, const struct wire_message *message)
{
    wire_put_data(out, message->adopt.items);
}

void read_adopt(struct unpack *in, struct wire_message *out)
{
    out->adopt.items = wire_take_data(in);
}
