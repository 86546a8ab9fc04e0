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

static void copy_text(char *at, struct text text)
{
    if (text.len > 0)
        memcpy(at, text.ptr, text.len);
}

struct object *object_create(const struct object *like, struct text name, struct text type,
                             struct text user_meta)
{
    size_t texts = (size_t)name.len + type.len + user_meta.len;
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
    copy_text(object->text, name);
    copy_text(object->text + name.len, type);
    copy_text(object->text + name.len + type.len, user_meta);
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
    return sizeof *object + (size_t)object->name_len + object->type_len + object->user_meta_len;
}

hlc_time object_stamp(const struct object *object)
{
    if (!object)
        return 0;
    const hlc_time stamps[] = {
        object->put_at.stamp,     object->name_at.stamp,     object->user_meta_at.stamp,
        object->expires_at.stamp, object->uploaded_at.stamp, object->deleted_at,
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
    uint8_t facts[16 + 8 + 8 + 5 * 24 + 2 * SHA256_BYTES + 3 * 8 + 3 * 8 + 16];
    uint8_t *at = facts;
    size_t texts = (size_t)object->name_len + object->type_len + object->user_meta_len;
    struct hash128 text = xxh128(object->text, texts, DIGEST_SCHEMA);

    at = add(at, object->id.bytes, sizeof object->id.bytes);
    at = add_u64(at, object->flags & FACT_FLAGS);
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
    assert(at == facts + sizeof facts);
    return xxh128(facts, sizeof facts, DIGEST_SCHEMA);
}
