/*
 * A body to be sent in parts: one range, or several as multipart/byteranges (RFC 9110 §14.6). The
 * layout is computed once; then every byte of the answer can be found again. Pure but for memory.
 */
#ifndef API_MULTIPART_H
#define API_MULTIPART_H

#include "api/http/http.h"
#include "api/http/range.h"
#include "base/buf.h"

#define MULTIPART_BOUNDARY_BYTES 32

struct multipart {
    unsigned count;
    struct byte_range ranges[LIMIT_HTTP_RANGES];
    uint64_t length; /* of the whole answer body */
    /* What stands before each part, and behind the last; empty for a single range. */
    struct buf text;
    uint32_t text_end[LIMIT_HTTP_RANGES + 1]; /* where each piece ends in text */
};

/* Lay out COUNT ranges of a body of SIZE bytes. TYPE_LINE: the "Content-Type: …" line of each part,
 * with its CRLF. BOUNDARY: used where there are several. ERR_NO_MEMORY. */
int multipart_init(struct multipart *out, const struct byte_range *ranges, unsigned count,
                   uint64_t size, struct slice type_line, const char *boundary) MUST_CHECK;
void multipart_release(struct multipart *multipart);

/* What lies at OFFSET of the answer: text (*TEXT set, *LEN bytes), or bytes of the object from
 * *POSITION on, *LEN of them (*TEXT NULL). */
void multipart_at(const struct multipart *multipart, uint64_t offset, const char **text,
                  uint64_t *position, uint64_t *len);

#endif
