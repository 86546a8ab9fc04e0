/*
 * Preconditions of changes.
 *
 * They are judged where the outcome of a change is decided, against the newest row: of eight
 * clients that put one id with If-None-Match: * exactly one wins. What an entity tag and a date
 * mean is the same as for GET (api/http/conditional.c): the tag is the body's SHA-256, the date
 * that of its put.
 */
#include "journal/condition.h"

#include <assert.h>
#include <string.h>

static bool names(const struct condition_tags *tags, const struct object *row)
{
    assert(tags->sent && tags->count <= LIMIT_CONDITION_TAGS);
    if (!row)
        return false;
    if (tags->any)
        return true;
    for (unsigned i = 0; i < tags->count; i++) {
        if (memcmp(tags->sha256[i], row->sha256, SHA256_BYTES) == 0)
            return true;
    }
    return false;
}

bool condition_holds(const struct condition *condition, const struct object *row)
{
    if (!condition)
        return true;
    if (row && (row->flags & (OBJECT_PUT | OBJECT_DELETED)) != OBJECT_PUT)
        row = NULL;
    if (condition->match.sent) {
        if (!names(&condition->match, row))
            return false;
    } else if (row && condition->has_unmodified_since &&
               object_modified_s(row) > condition->unmodified_since_s) {
        return false;
    }
    return !condition->none_match.sent || !names(&condition->none_match, row);
}
