/* Byte ranges of a request (RFC 9110 §14): pure. */
#ifndef API_HTTP_RANGE_H
#define API_HTTP_RANGE_H

#include "base/limits.h"

#include <stddef.h>
#include <stdint.h>

struct byte_range {
    uint64_t first, last; /* both included; first <= last < size */
};

enum range_result {
    RANGE_NONE,          /* no range, malformed, another unit, or refused as abusive: whole body */
    RANGE_SOME,          /* 206 with the ranges given */
    RANGE_UNSATISFIABLE, /* 416 */
};

/*
 * Resolve Range header VALUE against a body of SIZE bytes into OUT (room for LIMIT_HTTP_RANGES),
 * *COUNT of them, in the order asked for, those that overlap or share a BLOCK_BYTES block merged.
 * More than LIMIT_HTTP_RANGES, or ranges that sum up to more bytes than the body: RANGE_NONE.
 */
enum range_result range_resolve(const char *value, size_t len, uint64_t size,
                                struct byte_range out[LIMIT_HTTP_RANGES], unsigned *count);

#endif
