/*
 * A msgpack reader for events and messages: msgpack-c writes them, but its reader builds a tree of
 * objects in a zone, which costs allocations on the path of every GET that misses RAM, and believes
 * the counts in array and map heads (a head of five bytes makes it allocate 64 GiB). Here every
 * value is read where it lies.
 *
 * Happy path: the caller asks for what its format has at this point, and checks once at the end.
 * Failure: the cursor moves to the end and stays there, so loops over counts end by themselves.
 */
#include "journal/unpack.h"

#include <assert.h>
#include <string.h>

enum type { /* what a head announces; the number in it is a value, a length or a count */
            TYPE_BAD,
            TYPE_UINT,
            TYPE_BOOL,
            TYPE_STR,
            TYPE_BIN,
            TYPE_ARRAY,
            TYPE_MAP,
            TYPE_OTHER, /* nil, negative, float, ext: known only to be stepped over; the number: its
                           bytes */
};

void unpack_init(struct unpack *unpack, const void *data, size_t len)
{
    *unpack = (struct unpack){.at = data, .end = (const uint8_t *)data + len};
}

void unpack_fail(struct unpack *unpack)
{
    unpack->at = unpack->end;
    unpack->failed = true;
}

int unpack_done(const struct unpack *unpack)
{
    return unpack->failed || unpack->at != unpack->end ? ERR_INVALID : 0;
}

static size_t left(const struct unpack *unpack)
{
    assert(unpack->at <= unpack->end);
    return (size_t)(unpack->end - unpack->at);
}

/* LEN bytes to read, or NULL. */
static const uint8_t *take(struct unpack *unpack, uint64_t len)
{
    const uint8_t *at = unpack->at;

    if (unpack->failed || len > left(unpack)) {
        unpack_fail(unpack);
        return NULL;
    }
    unpack->at += len;
    return at;
}

/* A big-endian number of WIDTH bytes. */
static uint64_t number(struct unpack *unpack, unsigned width)
{
    uint64_t value = 0;
    const uint8_t *at = take(unpack, width);

    for (unsigned i = 0; at && i < width; i++)
        value = value << 8 | at[i];
    return value;
}

/* A head whose first byte is 0xc0 to 0xdf. */
static enum type long_head(struct unpack *unpack, uint8_t byte, uint64_t *value)
{
    switch (byte) {
    case 0xc0:
        *value = 0;
        return TYPE_OTHER;
    case 0xc2:
    case 0xc3:
        *value = byte & 1;
        return TYPE_BOOL;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        *value = number(unpack, 1u << (byte - 0xc4));
        return TYPE_BIN;
    case 0xc7:
    case 0xc8:
    case 0xc9:
        *value = number(unpack, 1u << (byte - 0xc7)) + 1; /* with the ext's type */
        return TYPE_OTHER;
    case 0xca:
    case 0xcb:
        *value = 4u << (byte - 0xca);
        return TYPE_OTHER;
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        *value = number(unpack, 1u << (byte - 0xcc));
        return TYPE_UINT;
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: /* some writers use these for numbers that are not negative, too; ours does not */
        *value = 1u << (byte - 0xd0);
        return TYPE_OTHER;
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        *value = (1u << (byte - 0xd4)) + 1;
        return TYPE_OTHER;
    case 0xd9:
    case 0xda:
    case 0xdb:
        *value = number(unpack, 1u << (byte - 0xd9));
        return TYPE_STR;
    case 0xdc:
    case 0xdd:
        *value = number(unpack, 2u << (byte - 0xdc));
        return TYPE_ARRAY;
    case 0xde:
    case 0xdf:
        *value = number(unpack, 2u << (byte - 0xde));
        return TYPE_MAP;
    default:
        return TYPE_BAD;
    }
}

static enum type head(struct unpack *unpack, uint64_t *value)
{
    const uint8_t *at = take(unpack, 1);

    *value = 0;
    if (!at)
        return TYPE_BAD;
    uint8_t byte = *at;
    if (byte < 0x80) {
        *value = byte;
        return TYPE_UINT;
    }
    if (byte < 0xc0) {
        *value = byte & (byte < 0xa0 ? 0x0f : 0x1f);
        return byte < 0x90 ? TYPE_MAP : byte < 0xa0 ? TYPE_ARRAY : TYPE_STR;
    }
    if (byte >= 0xe0)
        return TYPE_OTHER; /* a small negative number, no further bytes */
    enum type type = long_head(unpack, byte, value);
    return unpack->failed ? TYPE_BAD : type;
}

/* The number of the next head where it is WANTED. */
static uint64_t expect(struct unpack *unpack, enum type wanted)
{
    uint64_t value;

    if (head(unpack, &value) == wanted)
        return value;
    unpack_fail(unpack);
    return 0;
}

uint64_t unpack_uint(struct unpack *unpack, uint64_t max)
{
    uint64_t value = expect(unpack, TYPE_UINT);

    if (value <= max)
        return value;
    unpack_fail(unpack);
    return 0;
}

bool unpack_bool(struct unpack *unpack)
{
    return expect(unpack, TYPE_BOOL) != 0;
}

static const uint8_t *raw(struct unpack *unpack, enum type wanted, uint32_t *len)
{
    uint64_t value = expect(unpack, wanted);
    const uint8_t *at = take(unpack, value);

    *len = at ? (uint32_t)value : 0; /* lengths have at most 32 bits */
    return at;
}

const char *unpack_str(struct unpack *unpack, uint32_t *len)
{
    return (const char *)raw(unpack, TYPE_STR, len);
}

const uint8_t *unpack_bin(struct unpack *unpack, uint32_t *len)
{
    return raw(unpack, TYPE_BIN, len);
}

void unpack_bytes(struct unpack *unpack, void *out, size_t len)
{
    uint32_t have;
    const uint8_t *at = unpack_bin(unpack, &have);

    if (at && have == len) {
        memcpy(out, at, len);
    } else {
        unpack_fail(unpack);
        memset(out, 0, len);
    }
}

/* COUNT elements need at least as many bytes. */
static uint32_t count(struct unpack *unpack, uint64_t elements, uint64_t value)
{
    if (elements <= left(unpack))
        return (uint32_t)value;
    unpack_fail(unpack);
    return 0;
}

uint32_t unpack_array(struct unpack *unpack)
{
    uint64_t value = expect(unpack, TYPE_ARRAY);

    return count(unpack, value, value);
}

uint32_t unpack_map(struct unpack *unpack)
{
    uint64_t value = expect(unpack, TYPE_MAP);

    return count(unpack, 2 * value, value);
}

void unpack_skip(struct unpack *unpack)
{
    uint64_t owed[UNPACK_MAX_DEPTH]; /* values still to come, for each container we are in */
    size_t depth = 0;

    do {
        uint64_t value, inside = 0;
        enum type type = head(unpack, &value);

        if (type == TYPE_BAD)
            unpack_fail(unpack);
        else if (type == TYPE_ARRAY || type == TYPE_MAP)
            inside = type == TYPE_MAP ? 2 * value : value;
        else if (type == TYPE_STR || type == TYPE_BIN || type == TYPE_OTHER)
            (void)take(unpack, value);

        if (depth > 0)
            owed[depth - 1]--;
        if (inside > 0) {
            if (depth == UNPACK_MAX_DEPTH || inside > left(unpack))
                unpack_fail(unpack);
            else
                owed[depth++] = inside;
        }
        while (depth > 0 && owed[depth - 1] == 0)
            depth--;
    } while (depth > 0 && !unpack->failed);
}
