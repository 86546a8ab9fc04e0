/*
 * Questions about what a node knows, and their answers, as bytes: members, in the order of their
 * structs, and the rules that both ends keep (as wire.c, whose table has their rows).
 */
#include "cluster/wire_inquiry.h"

#include "cluster/wire_fields.h"
#include "journal/pack.h"

bool known_ask_ok(const struct wire_message *message)
{
    return wire_runs_ok(message->inquiry.runs);
}

bool range_ask_ok(const struct wire_message *message)
{
    return message->inquiry.rows > 0 &&
           id_compare(&message->inquiry.id, &message->inquiry.until) < 0;
}

void write_inquiry(struct buf *out, const struct wire_message *message)
{
    const struct wire_inquiry *inquiry = &message->inquiry;

    pack_uint(out, inquiry->nonce);
    if (message->type == WIRE_KNOWN_ASK) {
        wire_put_data(out, inquiry->runs);
        return;
    }
    wire_put_id(out, &inquiry->id);
    if (message->type == WIRE_ROW_ASK)
        return;
    wire_put_id(out, &inquiry->until);
    pack_uint(out, inquiry->rows);
    pack_bool(out, inquiry->list);
}

void read_inquiry(struct unpack *in, struct wire_message *out)
{
    struct wire_inquiry *inquiry = &out->inquiry;

    inquiry->nonce = unpack_uint(in, UINT64_MAX);
    if (out->type == WIRE_KNOWN_ASK) {
        inquiry->runs = wire_take_data(in);
        return;
    }
    wire_take_id(in, &inquiry->id);
    if (out->type == WIRE_ROW_ASK)
        return;
    wire_take_id(in, &inquiry->until);
    inquiry->rows = (uint32_t)unpack_uint(in, UINT32_MAX);
    inquiry->list = unpack_bool(in);
}

bool range_ok(const struct wire_message *message)
{
    uint32_t len = message->finding.data.len;

    return len % WIRE_ROW_SUM_BYTES == 0 && len / WIRE_ROW_SUM_BYTES <= LIMIT_WIRE_ROWS &&
           (len == 0 || len / WIRE_ROW_SUM_BYTES == message->finding.count);
}

bool row_ok(const struct wire_message *message)
{
    return message->finding.data.len <= LIMIT_WIRE_ROW_BYTES;
}

void write_finding(struct buf *out, const struct wire_message *message)
{
    const struct wire_finding *finding = &message->finding;

    pack_uint(out, finding->nonce);
    if (message->type != WIRE_ROW)
        pack_bool(out, finding->yes);
    if (message->type == WIRE_RANGE) {
        wire_put_id(out, &finding->last);
        pack_uint(out, finding->count);
        wire_put_hash(out, &finding->sum);
    }
    if (message->type != WIRE_KNOWN)
        wire_put_data(out, finding->data);
}

void read_finding(struct unpack *in, struct wire_message *out)
{
    struct wire_finding *finding = &out->finding;

    finding->nonce = unpack_uint(in, UINT64_MAX);
    if (out->type != WIRE_ROW)
        finding->yes = unpack_bool(in);
    if (out->type == WIRE_RANGE) {
        wire_take_id(in, &finding->last);
        finding->count = unpack_uint(in, UINT64_MAX);
        finding->sum = wire_take_hash(in);
    }
    if (out->type != WIRE_KNOWN)
        finding->data = wire_take_data(in);
}
