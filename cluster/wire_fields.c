/*
 * Single values and short lists inside messages: what all members are made of (wire.h,
 * wire_fields.h).
 *
 * A list is walked with the same iterator while its message is decoded and by whoever gets it. What
 * is too short to be read sets the unpacker's sticky error, which wire_decode looks at in the end.
 */
#include "cluster/wire_fields.h"

#include "base/bytes.h"
#include "journal/pack.h"

#include <assert.h>
#include <string.h>

/* ---- Lists inside a member ---- */

size_t wire_run_count(struct text runs)
{
    return runs.len / WIRE_RUN_BYTES;
}

struct wire_run wire_run_at(struct text runs, size_t at)
{
    struct wire_run run;

    assert(at < wire_run_count(runs));
    const uint8_t *bytes = (const uint8_t *)runs.ptr + at * WIRE_RUN_BYTES;
    memcpy(run.origin.bytes, bytes, sizeof run.origin.bytes);
    run.seq = get_u64(bytes + sizeof run.origin.bytes);
    return run;
}

void wire_run_add(struct buf *out, const struct wire_run *run)
{
    uint8_t bytes[WIRE_RUN_BYTES];

    assert(run->seq >= 1 && run->seq <= WIRE_SEQ_MAX);
    memcpy(bytes, run->origin.bytes, sizeof run->origin.bytes);
    put_u64(bytes + sizeof run->origin.bytes, run->seq);
    buf_add(out, bytes, sizeof bytes);
}

bool wire_runs_ok(struct text runs)
{
    struct wire_run before = {.seq = 0}, run;

    if (runs.len % WIRE_RUN_BYTES != 0 || wire_run_count(runs) > LIMIT_WIRE_RUNS)
        return false;
    for (size_t i = 0; i < wire_run_count(runs); i++, before = run) {
        run = wire_run_at(runs, i);
        if (run.seq < 1 || run.seq > WIRE_SEQ_MAX ||
            (i > 0 && id_compare(&before.origin, &run.origin) >= 0))
            return false;
    }
    return true;
}

bool wire_next_event(struct text data, size_t *offset, struct text *event)
{
    assert(*offset <= data.len);
    size_t left = data.len - *offset;

    if (left < WIRE_LENGTH_BYTES)
        return false;
    uint32_t len = get_u32((const uint8_t *)data.ptr + *offset);
    if (len > left - WIRE_LENGTH_BYTES)
        return false;
    *event = (struct text){data.ptr + *offset + WIRE_LENGTH_BYTES, len};
    *offset += WIRE_LENGTH_BYTES + len;
    return true;
}

void wire_event_add(struct buf *out, const void *event, size_t len)
{
    uint8_t length[WIRE_LENGTH_BYTES];
    size_t before = out->len;

    assert(len >= 1 && len <= LIMIT_EVENT_BYTES);
    put_u32(length, (uint32_t)len);
    buf_add(out, length, sizeof length);
    buf_add(out, event, len);
    if (out->rc)
        out->len = before; /* whole or not at all */
}

/* ---- Values ---- */

bool wire_address_ok(struct text address)
{
    if (address.len > LIMIT_WIRE_ADDR_BYTES)
        return false;
    for (uint32_t i = 0; i < address.len; i++) {
        if (address.ptr[i] <= ' ' || address.ptr[i] > '~')
            return false;
    }
    return true;
}

void wire_put_text(struct buf *out, struct text text)
{
    pack_str(out, text.ptr, text.len);
}

void wire_put_data(struct buf *out, struct text data)
{
    pack_bin(out, data.ptr, data.len);
}

void wire_put_id(struct buf *out, const struct id128 *id)
{
    pack_bin(out, id->bytes, sizeof id->bytes);
}

void wire_put_hash(struct buf *out, const struct hash128 *hash)
{
    uint8_t bytes[16];

    put_u64(bytes, hash->low);
    put_u64(bytes + 8, hash->high);
    pack_bin(out, bytes, sizeof bytes);
}

struct text wire_take_text(struct unpack *in)
{
    struct text text;

    text.ptr = unpack_str(in, &text.len);
    return text;
}

struct text wire_take_data(struct unpack *in)
{
    struct text data;

    data.ptr = (const char *)unpack_bin(in, &data.len);
    return data;
}

void wire_take_id(struct unpack *in, struct id128 *id)
{
    unpack_bytes(in, id->bytes, sizeof id->bytes);
}

struct hash128 wire_take_hash(struct unpack *in)
{
    uint8_t bytes[16];

    unpack_bytes(in, bytes, sizeof bytes);
    return (struct hash128){.low = get_u64(bytes), .high = get_u64(bytes + 8)};
}

uint32_t wire_take_array(struct unpack *in, uint32_t known)
{
    uint32_t elements = unpack_array(in);

    if (elements >= known)
        return elements - known;
    unpack_fail(in);
    return 0;
}

void wire_skip(struct unpack *in, uint32_t elements)
{
    for (; elements > 0 && !in->failed; elements--)
        unpack_skip(in);
}
