/*
 * The messages of merging as bytes: members, in the order of their structs, and the rules that both
 * ends keep (as wire.c, whose table has their rows).
 *
 * Lists are bin with a fixed layout for each element, little-endian: a run is origin, node, seq,
 * hash, ended (73 bytes); a fence an id (16); a sum low half, high half, count (24). Chunks lie one
 * after the other, each with its length before it, as events do.
 */
#include "cluster/wire_merge.h"

#include "base/bytes.h"
#include "cluster/wire_fields.h"
#include "journal/pack.h"

#include <assert.h>
#include <string.h>

/* ---- Lists ---- */

size_t wire_merge_run_count(struct text runs)
{
    return runs.len / WIRE_MERGE_RUN_BYTES;
}

struct wire_merge_run wire_merge_run_at(struct text runs, size_t at)
{
    struct wire_merge_run run;

    assert(at < wire_merge_run_count(runs));
    const uint8_t *bytes = (const uint8_t *)runs.ptr + at * WIRE_MERGE_RUN_BYTES;
    memcpy(run.origin.bytes, bytes, 16);
    memcpy(run.node.bytes, bytes + 16, 16);
    run.seq = get_u64(bytes + 32);
    memcpy(run.hash, bytes + 40, SHA256_BYTES);
    run.ended = bytes[72];
    return run;
}

void wire_merge_run_add(struct buf *out, const struct wire_merge_run *run)
{
    uint8_t bytes[WIRE_MERGE_RUN_BYTES];

    assert(run->seq >= 1 && run->seq <= WIRE_SEQ_MAX && run->ended <= 1);
    memcpy(bytes, run->origin.bytes, 16);
    memcpy(bytes + 16, run->node.bytes, 16);
    put_u64(bytes + 32, run->seq);
    memcpy(bytes + 40, run->hash, SHA256_BYTES);
    bytes[72] = run->ended;
    buf_add(out, bytes, sizeof bytes);
}

size_t wire_fence_count(struct text fences)
{
    return fences.len / sizeof(struct id128);
}

struct id128 wire_fence_at(struct text fences, size_t at)
{
    struct id128 id;

    assert(at < wire_fence_count(fences));
    memcpy(id.bytes, fences.ptr + at * sizeof id, sizeof id);
    return id;
}

size_t wire_sum_count(struct text sums)
{
    return sums.len / WIRE_SUM_BYTES;
}

struct wire_sum wire_sum_at(struct text sums, size_t at)
{
    assert(at < wire_sum_count(sums));
    const uint8_t *bytes = (const uint8_t *)sums.ptr + at * WIRE_SUM_BYTES;

    return (struct wire_sum){{get_u64(bytes), get_u64(bytes + 8)}, get_u64(bytes + 16)};
}

void wire_sum_add(struct buf *out, const struct wire_sum *sum)
{
    uint8_t bytes[WIRE_SUM_BYTES];

    put_u64(bytes, sum->sum.low);
    put_u64(bytes + 8, sum->sum.high);
    put_u64(bytes + 16, sum->count);
    buf_add(out, bytes, sizeof bytes);
}

/* ---- Rules ---- */

bool merge_ask_ok(const struct wire_message *message)
{
    const struct wire_merge_ask *ask = &message->merge_ask;

    return ask->session != 0 && id_compare(&ask->after, &ask->through) < 0;
}

bool merge_vector_ok(const struct wire_message *message)
{
    const struct wire_merge_vector *vector = &message->merge_vector;
    struct wire_merge_run before, run;
    size_t count = wire_merge_run_count(vector->runs);

    if (vector->session == 0 || vector->runs.len % WIRE_MERGE_RUN_BYTES != 0 ||
        count > LIMIT_WIRE_MERGE_RUNS)
        return false;
    for (size_t i = 0; i < count; i++, before = run) {
        run = wire_merge_run_at(vector->runs, i);
        if (id_is_zero(&run.origin) || id_is_zero(&run.node) || run.seq < 1 ||
            run.seq > WIRE_SEQ_MAX || run.ended > 1 ||
            (i > 0 && id_compare(&before.origin, &run.origin) >= 0))
            return false;
    }
    return true;
}

bool merge_chunk_ok(const struct wire_message *message)
{
    const struct wire_merge_chunk *chunk = &message->merge_chunk;
    struct text one;
    size_t offset = 0;

    if (chunk->session == 0 || chunk->data.len > LIMIT_WIRE_MERGE_BYTES)
        return false;
    while (wire_next_event(chunk->data, &offset, &one))
        if (one.len < 1 || one.len > LIMIT_EVENT_BYTES)
            return false;
    return offset == chunk->data.len;
}

bool merge_sums_ask_ok(const struct wire_message *message)
{
    const struct wire_merge_sums_ask *ask = &message->merge_sums_ask;
    struct id128 before = ask->after;
    size_t count = wire_fence_count(ask->fences);

    if (ask->session == 0 || count < 1 || count > LIMIT_WIRE_FENCES ||
        ask->fences.len % sizeof(struct id128) != 0)
        return false;
    for (size_t i = 0; i < count; i++) {
        struct id128 id = wire_fence_at(ask->fences, i);

        if (id_compare(&before, &id) >= 0)
            return false;
        before = id;
    }
    return true;
}

bool merge_sums_ok(const struct wire_message *message)
{
    const struct wire_merge_sums *sums = &message->merge_sums;
    size_t count = wire_sum_count(sums->sums);

    return sums->session != 0 && sums->sums.len % WIRE_SUM_BYTES == 0 && count >= 1 &&
           count <= LIMIT_WIRE_FENCES && sums->first <= LIMIT_WIRE_FENCES - count;
}

bool merge_cut_ok(const struct wire_message *message)
{
    return message->type == WIRE_MERGE_CUT_KNOWN || wire_runs_ok(message->merge_cut.runs);
}

/* ---- Members ---- */

void write_merge_ask(struct buf *out, const struct wire_message *message)
{
    const struct wire_merge_ask *ask = &message->merge_ask;

    pack_uint(out, ask->session);
    pack_bool(out, ask->whole);
    wire_put_id(out, &ask->after);
    wire_put_id(out, &ask->through);
    pack_uint(out, ask->credit_bytes);
}

void read_merge_ask(struct unpack *in, struct wire_message *out)
{
    struct wire_merge_ask *ask = &out->merge_ask;

    ask->session = unpack_uint(in, UINT64_MAX);
    ask->whole = unpack_bool(in);
    wire_take_id(in, &ask->after);
    wire_take_id(in, &ask->through);
    ask->credit_bytes = unpack_uint(in, UINT64_MAX);
}

void write_merge_vector(struct buf *out, const struct wire_message *message)
{
    const struct wire_merge_vector *vector = &message->merge_vector;

    pack_uint(out, vector->session);
    pack_uint(out, vector->page);
    pack_bool(out, vector->last);
    pack_bin(out, vector->runs.ptr, vector->runs.len);
}

void read_merge_vector(struct unpack *in, struct wire_message *out)
{
    struct wire_merge_vector *vector = &out->merge_vector;

    vector->session = unpack_uint(in, UINT64_MAX);
    vector->page = (uint32_t)unpack_uint(in, UINT32_MAX);
    vector->last = unpack_bool(in);
    vector->runs = wire_take_data(in);
}

void write_merge_chunk(struct buf *out, const struct wire_message *message)
{
    const struct wire_merge_chunk *chunk = &message->merge_chunk;

    pack_uint(out, chunk->session);
    pack_uint(out, chunk->number);
    wire_put_id(out, &chunk->through);
    pack_bool(out, chunk->last);
    pack_bin(out, chunk->data.ptr, chunk->data.len);
}

void read_merge_chunk(struct unpack *in, struct wire_message *out)
{
    struct wire_merge_chunk *chunk = &out->merge_chunk;

    chunk->session = unpack_uint(in, UINT64_MAX);
    chunk->number = unpack_uint(in, UINT64_MAX);
    wire_take_id(in, &chunk->through);
    chunk->last = unpack_bool(in);
    chunk->data = wire_take_data(in);
}

void write_merge_sums_ask(struct buf *out, const struct wire_message *message)
{
    const struct wire_merge_sums_ask *ask = &message->merge_sums_ask;

    pack_uint(out, ask->session);
    wire_put_id(out, &ask->after);
    pack_bin(out, ask->fences.ptr, ask->fences.len);
}

void read_merge_sums_ask(struct unpack *in, struct wire_message *out)
{
    struct wire_merge_sums_ask *ask = &out->merge_sums_ask;

    ask->session = unpack_uint(in, UINT64_MAX);
    wire_take_id(in, &ask->after);
    ask->fences = wire_take_data(in);
}

void write_merge_sums(struct buf *out, const struct wire_message *message)
{
    const struct wire_merge_sums *sums = &message->merge_sums;

    pack_uint(out, sums->session);
    pack_uint(out, sums->first);
    pack_bin(out, sums->sums.ptr, sums->sums.len);
}

void read_merge_sums(struct unpack *in, struct wire_message *out)
{
    struct wire_merge_sums *sums = &out->merge_sums;

    sums->session = unpack_uint(in, UINT64_MAX);
    sums->first = (uint32_t)unpack_uint(in, UINT32_MAX);
    sums->sums = wire_take_data(in);
}

void write_merge_cut(struct buf *out, const struct wire_message *message)
{
    const struct wire_merge_cut *cut = &message->merge_cut;

    pack_uint(out, cut->nonce);
    if (message->type == WIRE_MERGE_CUT_ASK)
        pack_bin(out, cut->runs.ptr, cut->runs.len);
    else
        pack_bool(out, cut->known);
}

void read_merge_cut(struct unpack *in, struct wire_message *out)
{
    struct wire_merge_cut *cut = &out->merge_cut;

    cut->nonce = unpack_uint(in, UINT64_MAX);
    if (out->type == WIRE_MERGE_CUT_ASK)
        cut->runs = wire_take_data(in);
    else
        cut->known = unpack_bool(in);
}
