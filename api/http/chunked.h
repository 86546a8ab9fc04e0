/*
 * Decoder of the chunked transfer coding (RFC 9112 §7.1): pure, any cut of the input gives the same
 * result. Stricter than the RFC asks: sizes are plain hex of at most 15 digits, lines end in CRLF,
 * no blanks around sizes, no control characters in extensions and trailers. These are ignored.
 */
#ifndef API_HTTP_CHUNKED_H
#define API_HTTP_CHUNKED_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero is a decoder at the start of a body. */
struct chunked {
    uint64_t left;  /* of the current chunk's data */
    uint32_t extra; /* bytes of extensions and trailers so far */
    uint8_t state, digits;
};

/*
 * Take bytes from INPUT until data is found or it is used up. *USED were taken; *DATA and *DATA_LEN
 * are the data among them, always their end (length 0: none). ERR_INVALID for what is malformed,
 * ERR_TOO_BIG for more than LIMIT_HTTP_CHUNK_EXT bytes of extensions and trailers.
 */
int chunked_take(struct chunked *chunked, const uint8_t *input, size_t len, size_t *used,
                 const uint8_t **data, size_t *data_len) MUST_CHECK;

/* The body and its trailers are complete; chunked_take takes no more. */
bool chunked_ended(const struct chunked *chunked);

#endif
