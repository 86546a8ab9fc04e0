/*
 * msgpack-c's packer, writing into our buffers.
 *
 * A packer is two pointers, so one is made where it is needed instead of being handed around.
 * Failure: the buffer remembers the first one; what follows does nothing.
 */
#include "journal/pack.h"

#include <assert.h>
#include <msgpack/pack.h>

static int append(void *data, const char *bytes, size_t len)
{
    buf_add(data, bytes, len);
    return 0; /* the buffer remembers */
}

/* msgpack_pack_… return what append does: nothing to look at. */
static msgpack_packer packer(struct buf *out)
{
    return (msgpack_packer){.data = out, .callback = append};
}

void pack_uint(struct buf *out, uint64_t value)
{
    msgpack_packer pk = packer(out);

    (void)msgpack_pack_uint64(&pk, value);
}

void pack_bool(struct buf *out, bool value)
{
    msgpack_packer pk = packer(out);

    (void)(value ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk));
}

void pack_str(struct buf *out, const char *text, size_t len)
{
    msgpack_packer pk = packer(out);

    assert(len <= UINT32_MAX && (text || len == 0));
    (void)msgpack_pack_str(&pk, len);
    buf_add(out, text, len);
}

void pack_bin(struct buf *out, const void *data, size_t len)
{
    msgpack_packer pk = packer(out);

    assert(len <= UINT32_MAX && (data || len == 0));
    (void)msgpack_pack_bin(&pk, len);
    buf_add(out, data, len);
}

void pack_array(struct buf *out, uint32_t elements)
{
    msgpack_packer pk = packer(out);

    (void)msgpack_pack_array(&pk, elements);
}

void pack_map(struct buf *out, uint32_t pairs)
{
    msgpack_packer pk = packer(out);

    (void)msgpack_pack_map(&pk, pairs);
}
