/*
 * The rules of conflict copies. The row that lost is kept as it was (its own table in SQLite, see
 * db_conflict.h): with it go its name, user meta, type, level and expiry, and the stamp of its put.
 */
#include "journal/conflict.h"

#include <assert.h>
#include <string.h>

#define TIME_BYTES 6 /* of a ULID */

static bool is_live(const struct object *object)
{
    return object && (object->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT;
}

static bool same_bytes(const uint8_t a[SHA256_BYTES], const uint8_t b[SHA256_BYTES])
{
    return memcmp(a, b, SHA256_BYTES) == 0;
}

struct id128 conflict_id(const struct id128 *id, const uint8_t sha256_of_it[SHA256_BYTES])
{
    uint8_t both[sizeof id->bytes + SHA256_BYTES], hash[SHA256_BYTES];
    struct id128 out = *id;

    memcpy(both, id->bytes, sizeof id->bytes);
    memcpy(both + sizeof id->bytes, sha256_of_it, SHA256_BYTES);
    sha256(both, sizeof both, hash);
    memcpy(out.bytes + TIME_BYTES, hash, sizeof out.bytes - TIME_BYTES);
    return out;
}

bool conflict_is(const struct object *before, const struct event *event)
{
    return event->kind == EVENT_PUT && is_live(before) &&
           !same_bytes(before->sha256, event->sha256);
}

bool conflict_beats(const struct object *before, const struct object *after)
{
    assert(after);
    return is_live(before) && is_live(after) && !place_is_none(&before->place) &&
           !same_bytes(before->sha256, after->sha256);
}

bool conflict_loses(const struct event *event, const struct object *after)
{
    assert(after);
    return event->kind == EVENT_PUT && is_live(after) && !same_bytes(event->sha256, after->sha256);
}

int conflict_loser(struct object **out, const struct event *event, const struct place *place,
                   uint32_t record_bytes)
{
    static const struct text none;
    struct reg at = {.stamp = event->stamp, .origin = event->origin}, never = {0};
    uint32_t fields = event->fields;
    struct object row = {.id = event->id,
                         .flags = OBJECT_PUT,
                         .level = fields & EVENT_HAS_LEVEL ? event->level : 0,
                         .put_at = at,
                         .size = event->size,
                         .name_at = fields & EVENT_HAS_NAME ? at : never,
                         .user_meta_at = fields & EVENT_HAS_USER_META ? at : never,
                         .expires_at = fields & EVENT_HAS_EXPIRES ? at : never,
                         .expires_ms = fields & EVENT_HAS_EXPIRES ? event->expires_ms : 0,
                         .place = *place,
                         .record_bytes = record_bytes};

    assert(event->kind == EVENT_PUT && !place_is_none(place));
    memcpy(row.sha256, event->sha256, SHA256_BYTES);
    *out = object_create(&row, fields & EVENT_HAS_NAME ? event->name : none,
                         fields & EVENT_HAS_TYPE ? event->type : none,
                         fields & EVENT_HAS_USER_META ? event->user_meta : none);
    return *out ? 0 : ERR_NO_MEMORY;
}

enum conflict_fate conflict_fate(const uint8_t sha256_of_it[SHA256_BYTES], const struct object *row)
{
    if (!row || object_is_partial(row))
        return CONFLICT_OWED;
    if (row->flags & OBJECT_DELETED)
        return CONFLICT_SETTLED;
    if (!same_bytes(sha256_of_it, row->sha256))
        return CONFLICT_TAKEN;
    return place_is_none(&row->place) ? CONFLICT_OWED : CONFLICT_SETTLED;
}
