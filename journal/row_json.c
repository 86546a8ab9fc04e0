/* One member for each fact that is there; a register's value is followed by its stamp and origin,
 * since rows may differ in these alone. Failure shows in the buffer. */
#include "journal/row_json.h"

#include "base/text.h"
#include "journal/ulid.h"

static void add_key(struct buf *out, const char *key)
{
    if (out->len && out->data[out->len - 1] != '{')
        buf_char(out, ',');
    buf_format(out, "\"%s\":", key);
}

static void add_number(struct buf *out, const char *key, uint64_t value)
{
    add_key(out, key);
    buf_format(out, "%llu", (unsigned long long)value);
}

static void add_text(struct buf *out, const char *key, struct text text)
{
    add_key(out, key);
    buf_json(out, text.len ? text.ptr : "", text.len);
}

static void add_hash(struct buf *out, const char *key, const uint8_t sha256[SHA256_BYTES])
{
    char hex[2 * SHA256_BYTES + 1];

    hex_encode(hex, sha256, SHA256_BYTES);
    add_key(out, key);
    buf_json(out, hex, 2 * SHA256_BYTES);
}

static void add_reg(struct buf *out, const char *key, const struct reg *reg)
{
    char origin[ULID_TEXT_BYTES + 1];

    if (!reg->stamp)
        return;
    ulid_format(origin, &reg->origin);
    add_key(out, key);
    buf_format(out, "\"%llx %s\"", (unsigned long long)reg->stamp, origin);
}

static void add_cloud(struct buf *out, const struct object *object)
{
    struct cloud_place place;

    if (!(object->flags & OBJECT_CLOUD))
        return;
    add_key(out, "cloud");
    buf_char(out, '{');
    if (object->uploaded_at.stamp)
        add_hash(out, "uploaded", object->uploaded_sha256);
    add_reg(out, "uploaded_at", &object->uploaded_at);
    if (object_cloud(object, &place)) {
        add_text(out, "backend", place.backend);
        add_text(out, "bucket", place.bucket);
        add_text(out, "key", place.key);
        add_text(out, "etag", place.etag);
    }
    add_reg(out, "purged_of", &object->purged_of);
    if (object->flags & OBJECT_PURGE)
        add_number(out, "purge", 1);
    if (object->flags & OBJECT_MARKED)
        add_number(out, "marked", 1);
    buf_char(out, '}');
}

void row_json(struct buf *out, const struct object *object)
{
    buf_char(out, '{');
    if (object->flags & OBJECT_DELETED) {
        add_number(out, "deleted_at", object->deleted_at);
    } else {
        if (object->flags & OBJECT_PUT) {
            add_hash(out, "sha256", object->sha256);
            add_number(out, "size", object->size);
            add_text(out, "type", object_type(object));
            add_reg(out, "put_at", &object->put_at);
        }
        add_number(out, "level", object->level);
        add_text(out, "name", object_name(object));
        add_reg(out, "name_at", &object->name_at);
        add_text(out, "user_meta", object_user_meta(object));
        add_reg(out, "user_meta_at", &object->user_meta_at);
        add_number(out, "expires_ms", object->expires_ms);
        add_reg(out, "expires_at", &object->expires_at);
    }
    add_cloud(out, object);
    buf_char(out, '}');
}

int row_json_read(struct buf *out, struct db_reader *reader, const struct id128 *id)
{
    struct object *object = NULL;
    int rc = db_find(reader, id, &object);

    if (rc == ERR_NOT_FOUND)
        return 0;
    if (rc == 0)
        row_json(out, object);
    object_destroy(&object);
    return rc ? rc : buf_check(out);
}
