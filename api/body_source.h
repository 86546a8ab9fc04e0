/* An object's body, or ranges of it, as the source of an HTTP answer. */
#ifndef API_BODY_SOURCE_H
#define API_BODY_SOURCE_H

#include "api/multipart.h"
#include "api/store.h"

/* Blocks that a cold read reads ahead, so that the loop finds them in the page cache. */
#define BODY_READ_AHEAD 8

/* What is sent. All is lent, and touched by nobody else until the source is closed. */
struct body_origin {
    const uint8_t *memory;    /* all of the body; or NULL: it is a large one … */
    struct store_body **body; /* … opened here, or NULL in it: opened when it has to be, as … */
    struct id128 id;
    uint64_t number, size; /* … that object in that file */
};

/*
 * A source that sends what LAYOUT says of ORIGIN. LAYOUT is given away. The source frees itself
 * when it is closed. ERR_NO_MEMORY (LAYOUT is released then, too).
 */
int body_source_create(struct http_source **out, struct store *store,
                       const struct body_origin *origin, struct multipart *layout) MUST_CHECK;

/* Read block INDEX of a large body, and a few more up to LAST, blocking: it is then verified and in
 * the page cache. The rc is the first block's. */
int body_warm(struct store_body *body, uint64_t index, uint64_t last) MUST_CHECK;

#endif
