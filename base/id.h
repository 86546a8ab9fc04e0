/* Sixteen opaque bytes that name something: an object, a node, an origin, a store. */
#ifndef BASE_ID_H
#define BASE_ID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct id128 {
    uint8_t bytes[16];
};

static inline bool id_equal(const struct id128 *a, const struct id128 *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

/* As memcmp: the order of the bytes, which for ULIDs is the order of their times. */
static inline int id_compare(const struct id128 *a, const struct id128 *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes);
}

static inline bool id_is_zero(const struct id128 *a)
{
    static const struct id128 zero;
    return id_equal(a, &zero);
}

#endif
