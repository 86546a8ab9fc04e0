/*
 * What must be true of an object for a change to happen: the preconditions of RFC 9110 §13.1 as the
 * committer judges them. Pure.
 */
#ifndef JOURNAL_CONDITION_H
#define JOURNAL_CONDITION_H

#include "base/limits.h"
#include "journal/object.h"

/* A list of entity tags. Those that are no SHA-256 can name nothing here: they are not kept, and a
 * list of such alone has a count of 0. */
struct condition_tags {
    bool sent;
    bool any; /* "*": whatever is there */
    uint8_t count;
    uint8_t sha256[LIMIT_CONDITION_TAGS][SHA256_BYTES];
};

struct condition {
    struct condition_tags match, none_match; /* weak tags are in the second alone */
    bool has_unmodified_since;
    uint64_t unmodified_since_s; /* Unix seconds */
};

/* Whether CONDITION (NULL: none, holds) is true of ROW (NULL: unknown id), in the order of §13.2.2:
 * If-Match, or without one If-Unmodified-Since; then If-None-Match. A partial row and a tombstone
 * are nothing that a tag or "*" could name. A row that has expired and is not deleted yet still
 * counts, as for every other rule of the committer's. */
bool condition_holds(const struct condition *condition, const struct object *row);

#endif
