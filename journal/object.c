/*
 * Rows: made in one piece with their texts, never changed afterwards (struct object is filled in by
 * object_create's caller before anybody else sees it), and hashed for the state digest.
 */
#include "journal/object.h"

#include "base/bytes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What all nodes must agree on: the other flags are this node's own matter. */
#define FACT_FLAGS (OBJECT_PUT | OBJECT_DELETED | OBJECT_CLOUD | OBJECT_UPLOADED)
/* … of what may be in the cloud. */
#define CLOUD_FLAGS (OBJECT_PURGE | OBJECT_MARKED | OBJECT_PURGED)

static void copy_text(char *at, struct text text)
{
    if (text.len > 0)
        memcpy(at, text.ptr, text.len);
}

struct object *object_create(const struct object *like, struct text name, struct text type,
                             struct text user_meta)
{
    return object_create_placed(like, name, type, user_meta, (struct text){NULL, 0});
}

struct object *object_create_placed(const struct object *like, struct text name, struct text type,
                                    struct text user_meta, struct text cloud)
{
    size_t texts = (size_t)name.len + type.len + user_meta.len + cloud.len;
    struct object *object = malloc(sizeof *object + texts);

    if (!object)
        return NULL;
    if (like)
        *object = *like;
    else
        memset(object, 0, sizeof *object);
    object->name_len = name.len;
    object->type_len = type.len;
    object->user_meta_len = user_meta.len;
    assert(cloud.len <= LIMIT_CLOUD_PLACE_BYTES);
    object->cloud_len = (uint16_t)cloud.len;
    copy_text(object->text, name);
    copy_text(object->text + name.len, type);
    copy_text(object->text + name.len + type.len, user_meta);
    copy_text(object->text + name.len + type.len + user_meta.len, cloud);
    return object;
}

struct object *object_copy(const struct object *object)
{
    size_t bytes = object_bytes(object);
    struct object *copy = malloc(bytes);

    if (copy)
        memcpy(copy, object, bytes);
    return copy;
}

void object_destroy(struct object **object)
{
    free(*object);
    *object = NULL;
}

size_t object_bytes(const struct object *object)
{
    return sizeof *object + (size_t)object->name_len + object->type_len + object->user_meta_len +
           object->cloud_len;
}

/* ---- The place in the cloud ---- */

static uint32_t add_part(char *at, struct text part)
{
    assert(part.len == 0 || !memchr(part.ptr, 0, part.len));
    copy_text(at, part);
    return part.len;
}

uint32_t cloud_place_write(char out[LIMIT_CLOUD_PLACE_BYTES], const struct cloud_place *place)
{
    const struct text parts[] = {place->backend, place->bucket, place->key, place->etag};
    uint32_t len = 0;

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (i > 0)
            out[len++] = 0;
        assert(len + parts[i].len <= LIMIT_CLOUD_PLACE_BYTES);
        len += add_part(out + len, parts[i]);
    }
    return len;
}

static bool split(struct cloud_place *out, struct text text)
{
    struct text *const parts[] = {&out->backend, &out->bucket, &out->key, &out->etag};
    const char *at = text.ptr, *end = text.ptr + text.len;

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const char *nul = at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
        bool last = i + 1 == sizeof parts / sizeof *parts;

        if (last == (nul != NULL))
            return false;
        *parts[i] = (struct text){at, (uint32_t)((last ? end : nul) - at)};
        at = last ? end : nul + 1;
    }
    return true;
}

bool cloud_place_read(struct cloud_place *out, struct text text)
{
    if (text.len == 0 || text.len > LIMIT_CLOUD_PLACE_BYTES || !split(out, text))
        return false;
    const struct event says = {.fields = EVENT_HAS_CLOUD | EVENT_HAS_SHA256,
                               .cloud_state = CLOUD_UPLOADED,
                               .backend = out->backend,
                               .bucket = out->bucket,
                               .key = out->key,
                               .etag = out->etag};

    return event_says_ok(&says);
}

bool object_cloud(const struct object *object, struct cloud_place *out)
{
    struct text text = object_cloud_place(object);

    *out = (struct cloud_place){.key = {NULL, 0}};
    return text.len > 0 && split(out, text);
}

struct reg object_removes(const struct object *object)
{
    static const struct reg none = {.stamp = OBJECT_NO_UPLOAD};

    return object->uploaded_at.stamp ? object->uploaded_at : none;
}

hlc_time object_stamp(const struct object *object)
{
    if (!object)
        return 0;
    const hlc_time stamps[] = {
        object->put_at.stamp,     object->name_at.stamp,     object->user_meta_at.stamp,
        object->expires_at.stamp, object->uploaded_at.stamp, object->purged_of.stamp,
        object->deleted_at,
    };
    hlc_time highest = 0;

    for (size_t i = 0; i < sizeof stamps / sizeof *stamps; i++) {
        if (stamps[i] > highest)
            highest = stamps[i];
    }
    return highest;
}

bool object_owes_upload(const struct object *object)
{
    return (object->flags & (OBJECT_PUT | OBJECT_DELETED | OBJECT_UPLOADED)) == OBJECT_PUT &&
           object->level >= 1;
}

bool object_owed_here(const struct object *object)
{
    return object_owes_upload(object) && !place_is_none(&object->place);
}

bool object_owes_mark(const struct object *object)
{
    return (object->flags & (OBJECT_DELETED | OBJECT_CLOUD | OBJECT_MARKED)) ==
           (OBJECT_DELETED | OBJECT_CLOUD);
}

bool object_owes_purge(const struct object *object)
{
    const uint32_t owes = OBJECT_DELETED | OBJECT_CLOUD | OBJECT_PURGE;

    return (object->flags & (owes | OBJECT_PURGED)) == owes;
}

bool object_wanted_here(const struct object *object)
{
    return (object->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT && object->level >= 2 &&
           place_is_none(&object->place);
}

static uint8_t *add(uint8_t *at, const void *data, size_t len)
{
    memcpy(at, data, len);
    return at + len;
}

static uint8_t *add_u64(uint8_t *at, uint64_t value)
{
    put_u64(at, value);
    return at + 8;
}

static uint8_t *add_reg(uint8_t *at, const struct reg *reg)
{
    at = add_u64(at, reg->stamp);
    return add(at, reg->origin.bytes, sizeof reg->origin.bytes);
}

/* No fact is known: such a row and no row are the same to the digest. */
static bool says_nothing(const struct object *object)
{
    return (object->flags & FACT_FLAGS) == 0 && object->level == 0 && object_stamp(object) == 0;
}

struct hash128 object_digest(const struct object *object)
{
    if (!object || says_nothing(object))
        return (struct hash128){0, 0};

    /* Numbers are 64 bits, little-endian; the texts, one after the other, enter as their own hash,
     * and by their lengths. docs/JOURNAL.md lists the order: to change it is a new schema. */
    uint8_t facts[16 + 8 + 8 + 6 * 24 + 2 * SHA256_BYTES + 3 * 8 + 3 * 8 + 16 + 8];
    uint8_t *at = facts;
    size_t texts = object_bytes(object) - sizeof *object;
    struct hash128 text = xxh128(object->text, texts, DIGEST_SCHEMA);
    /* That a delete asked for a purge is of no matter to what was never in the cloud. */
    uint32_t cloud = object->flags & OBJECT_CLOUD ? object->flags & CLOUD_FLAGS : 0;

    at = add(at, object->id.bytes, sizeof object->id.bytes);
    at = add_u64(at, (object->flags & FACT_FLAGS) | cloud);
    at = add_u64(at, object->level);
    at = add_reg(at, &object->put_at);
    at = add(at, object->sha256, SHA256_BYTES);
    at = add_u64(at, object->size);
    at = add_reg(at, &object->name_at);
    at = add_reg(at, &object->user_meta_at);
    at = add_reg(at, &object->expires_at);
    at = add_u64(at, object->expires_ms);
    at = add_reg(at, &object->uploaded_at);
    at = add(at, object->uploaded_sha256, SHA256_BYTES);
    at = add_u64(at, object->deleted_at);
    at = add_u64(at, object->name_len);
    at = add_u64(at, object->type_len);
    at = add_u64(at, object->user_meta_len);
    at = add_u64(at, text.low);
    at = add_u64(at, text.high);
    if (cloud || object->cloud_len > 0 || object->purged_of.stamp > 0) {
        at = add_reg(at, &object->purged_of);
        at = add_u64(at, object->cloud_len);
    }
    assert(at <= facts + sizeof facts);
    return xxh128(facts, (size_t)(at - facts), DIGEST_SCHEMA);
}
