/*
 * Probes as bytes, and the messages that tell processes of one node apart: members, in the order of
 * their structs, and the rules that both ends keep (as wire.c, whose table has their rows). What a
 * node knows is an array of its own, so that it can grow.
 */
#include "cluster/wire_probe.h"

#include "cluster/wire_fields.h"
#include "journal/pack.h"

#define SUMMARY_ARRAY 3

static bool version_ok(struct text version)
{
    return version.len <= LIMIT_WIRE_VERSION_BYTES && wire_address_ok(version);
}

bool probe_ok(const struct wire_message *message)
{
    return wire_address_ok(message->probe.address) && message->probe.wall_ms <= WIRE_WALL_MS_MAX &&
           version_ok(message->probe.version);
}

bool probe_ack_ok(const struct wire_message *message)
{
    return probe_ok(message) && wire_address_ok(message->probe.seen);
}

void write_probe(struct buf *out, const struct wire_message *message)
{
    const struct wire_probe *probe = &message->probe;

    pack_uint(out, probe->nonce);
    wire_put_id(out, &probe->to);
    wire_put_text(out, probe->address);
    pack_uint(out, probe->wall_ms);
    pack_uint(out, probe->feature);
    pack_bool(out, probe->leaving);
    pack_array(out, SUMMARY_ARRAY);
    wire_put_hash(out, &probe->summary.vector);
    wire_put_hash(out, &probe->summary.digest);
    pack_uint(out, probe->summary.events);
    if (message->type == WIRE_PROBE_ACK)
        wire_put_text(out, probe->seen);
}

void read_probe(struct unpack *in, struct wire_message *out)
{
    struct wire_probe *probe = &out->probe;

    probe->nonce = unpack_uint(in, UINT64_MAX);
    wire_take_id(in, &probe->to);
    probe->address = wire_take_text(in);
    probe->wall_ms = unpack_uint(in, UINT64_MAX);
    probe->feature = (uint32_t)unpack_uint(in, UINT32_MAX);
    probe->leaving = unpack_bool(in);
    uint32_t more = wire_take_array(in, SUMMARY_ARRAY);
    probe->summary.vector = wire_take_hash(in);
    probe->summary.digest = wire_take_hash(in);
    probe->summary.events = unpack_uint(in, UINT64_MAX);
    wire_skip(in, more);
    if (out->type == WIRE_PROBE_ACK)
        probe->seen = wire_take_text(in);
}

/* What later builds have appended to a probe, behind `seen` in an answer. */
void write_probe_more(struct buf *out, const struct wire_message *message)
{
    wire_put_text(out, message->probe.version);
    pack_uint(out, message->probe.level);
    pack_bool(out, message->probe.draining);
}

void read_probe_more(struct unpack *in, struct wire_message *out, uint32_t count)
{
    if (count > 0)
        out->probe.version = wire_take_text(in);
    if (count > 1)
        out->probe.level = (uint32_t)unpack_uint(in, UINT32_MAX);
    if (count > 2)
        out->probe.draining = unpack_bool(in);
}

void write_probe_for(struct buf *out, const struct wire_message *message)
{
    pack_uint(out, message->probe_for.nonce);
    wire_put_id(out, &message->probe_for.subject);
    if (message->type == WIRE_PROBE_SAW)
        pack_bool(out, message->probe_for.answered);
}

void read_probe_for(struct unpack *in, struct wire_message *out)
{
    out->probe_for.nonce = unpack_uint(in, UINT64_MAX);
    wire_take_id(in, &out->probe_for.subject);
    if (out->type == WIRE_PROBE_SAW)
        out->probe_for.answered = unpack_bool(in);
}

bool process_ok(const struct wire_message *message)
{
    return !id_is_zero(&message->process.process) && wire_address_ok(message->process.address);
}

void write_process(struct buf *out, const struct wire_message *message)
{
    wire_put_id(out, &message->process.process);
    wire_put_text(out, message->process.address);
}

void read_process(struct unpack *in, struct wire_message *out)
{
    wire_take_id(in, &out->process.process);
    out->process.address = wire_take_text(in);
}
