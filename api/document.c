/*
 * One object as JSON, written by hand: it is part of every put's answer. The fields are the
 * ancestor's (id … is_fetched) with ours between and behind them; a tombstone has the same fields,
 * empty where it knows nothing any more.
 */
#include "api/document.h"

#include "api/http/date.h"
#include "base/limits.h"
#include "base/text.h"
#include "journal/ulid.h"

#include <assert.h>

#define ADD(out, literal) buf_add(out, literal, sizeof(literal) - 1)

/* OBJECT may be older than COPIES. */
static bool owes_upload(const struct object *object, const struct db_copies *copies)
{
    return object_owes_upload(object) && !copies->uploaded;
}

struct replicas document_replicas(const struct object *object, const struct db_copies *copies,
                                  unsigned outbox_copies)
{
    struct replicas replicas = {0, 0};

    if (object->flags & OBJECT_DELETED)
        return replicas;
    replicas.have = copies->held;
    replicas.want = object->level == 2 && copies->members > 1 ? copies->members : 1;
    if (owes_upload(object, copies) && replicas.want < outbox_copies)
        replicas.want = outbox_copies;
    return replicas;
}

void document_number(struct buf *out, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;

    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    buf_add(out, digits + at, sizeof digits - at);
}

void document_time(struct buf *out, uint64_t unix_ms)
{
    char text[DATE_RFC3339_BYTES + 1];

    date_rfc3339_format(text, unix_ms);
    buf_add(out, text, DATE_RFC3339_BYTES);
}

/* No member has a durable copy, and the cloud has one: so its bytes come from there. */
static bool comes_from_cloud(const struct object *object, const struct db_copies *copies)
{
    return !(object->flags & OBJECT_DELETED) && place_is_none(&object->place) && copies->uploaded &&
           copies->held == 0 && !copies->own_alone;
}

static void add_pending(struct buf *out, bool upload, struct replicas replicas)
{
    ADD(out, ",\"pending\":[");
    if (upload)
        ADD(out, "\"cloud\"");
    if (replicas.have < replicas.want) {
        if (upload)
            buf_char(out, ',');
        ADD(out, "\"replica\"");
    }
    buf_char(out, ']');
}

void document_render(struct buf *out, const struct object *object, const struct db_copies *copies,
                     unsigned outbox_copies)
{
    bool deleted = object->flags & OBJECT_DELETED;
    struct text name = object_name(object), user_meta = object_user_meta(object);
    struct replicas replicas = document_replicas(object, copies, outbox_copies);
    uint64_t ms = hlc_wall_ms(deleted ? object->deleted_at : object->put_at.stamp);
    char id[ULID_TEXT_BYTES + 1], sha256_hex[2 * SHA256_BYTES + 1] = "";

    ulid_format(id, &object->id);
    if (!deleted)
        hex_encode(sha256_hex, object->sha256, SHA256_BYTES);
    ADD(out, "{\"id\":\"");
    buf_add(out, id, ULID_TEXT_BYTES);
    ADD(out, "\",\"name\":");
    buf_json(out, name.ptr, name.len);
    ADD(out, ",\"size\":");
    document_number(out, deleted ? 0 : object->size);
    ADD(out, ",\"sha256\":\"");
    buf_text(out, sha256_hex);
    ADD(out, "\",\"level\":");
    document_number(out, object->level);
    ADD(out, ",\"consistency\":");
    document_number(out, object->level);
    ADD(out, ",\"timestamp\":");
    document_number(out, ms * 1000000);
    ADD(out, ",\"time\":\"");
    document_time(out, ms);
    ADD(out, "\",\"user_meta\":");
    if (user_meta.len)
        buf_add(out, user_meta.ptr, user_meta.len);
    else
        ADD(out, "{}");
    ADD(out, ",\"is_symlink\":");
    buf_text(out, !deleted && place_is_none(&object->place) ? "true" : "false");
    ADD(out, ",\"is_deleted\":");
    buf_text(out, deleted ? "true" : "false");
    ADD(out, ",\"is_fetched\":");
    buf_text(out, comes_from_cloud(object, copies) ? "true" : "false");
    ADD(out, ",\"replicas\":{\"have\":");
    document_number(out, replicas.have);
    ADD(out, ",\"want\":");
    document_number(out, replicas.want);
    buf_char(out, '}');
    add_pending(out, owes_upload(object, copies), replicas);
    ADD(out, "}\n");
}
