/*
 * Chunks of snapshots as msgpack.
 *
 * Most rows are plain, as in the database: a mask says which members follow, and a register that
 * was written together with the body is not repeated. A tombstone takes some 30 bytes.
 *
 *   row     [id bin16, mask, flags, member …]: for each bit of the mask, from the lowest, what
 *           enum row_mask names, in that order
 *
 * Writing is msgpack-c's, reading journal/unpack's, as with events. Failure: the reader's cursor is
 * sticky, and an item is only handed out whole; whoever meets a bit of the mask that he does not
 * know must not take the row for less than it is, so that is ERR_FORMAT.
 */
#include "journal/snapshot.h"

#include <assert.h>
#include <msgpack/pack.h>
#include <string.h>

#define VERSION    2
#define HEAD_BYTES 64 /* more than the array head, version, … items' head take */
#define LARGEST    ((uint64_t)INT64_MAX) /* SQLite's integers */
#define MAX_CHUNKS (UINT32_C(1) << 26)

/* Members of a row that are there. Not set: zero, or for the registers: as the put's. */
enum row_mask {
    ROW_LEVEL = 1 << 0,
    ROW_PUT = 1 << 1,     /* stamp, origin, sha256, size */
    ROW_NAME_AT = 1 << 2, /* stamp, origin; likewise the other registers */
    ROW_USER_META_AT = 1 << 3,
    ROW_EXPIRES_AT = 1 << 4,
    ROW_EXPIRES = 1 << 5,
    ROW_UPLOADED = 1 << 6, /* stamp, origin, sha256 */
    ROW_DELETED = 1 << 7,
    ROW_PLACE = 1 << 8, /* disk, volume, offset, lsn, record bytes */
    ROW_NAME = 1 << 9,
    ROW_TYPE = 1 << 10,
    ROW_USER_META = 1 << 11,
    ROW_CLOUD = 1 << 12,     /* where the cloud got what was uploaded */
    ROW_PURGED_OF = 1 << 13, /* stamp, origin */
    ROW_KNOWN = (1 << 14) - 1,
};

/* ---- Writing ---- */

static int append(void *data, const char *bytes, size_t len)
{
    struct buf *buf = data;

    buf_add(buf, bytes, len);
    return buf->rc ? -1 : 0; /* sticky: looked at once, at the end of the item */
}

static void pack_uint(msgpack_packer *pk, uint64_t value)
{
    (void)msgpack_pack_uint64(pk, value);
}

static void pack_bin(msgpack_packer *pk, const void *data, size_t len)
{
    (void)msgpack_pack_bin(pk, len);
    (void)msgpack_pack_bin_body(pk, data, len);
}

static void pack_id(msgpack_packer *pk, const struct id128 *id)
{
    pack_bin(pk, id->bytes, sizeof id->bytes);
}

static void pack_reg(msgpack_packer *pk, const struct reg *reg)
{
    pack_uint(pk, reg->stamp);
    pack_id(pk, &reg->origin);
}

static void pack_text(msgpack_packer *pk, struct text text)
{
    (void)msgpack_pack_str(pk, text.len);
    (void)msgpack_pack_str_body(pk, text.len ? text.ptr : "", text.len);
}

void snapshot_writer_init(struct snapshot_writer *writer)
{
    *writer = (struct snapshot_writer){.kind = SNAPSHOT_BEGIN};
    buf_init(&writer->items, SNAPSHOT_CHUNK_BYTES);
}

void snapshot_writer_release(struct snapshot_writer *writer)
{
    buf_release(&writer->items);
}

void snapshot_begin_chunk(struct snapshot_writer *writer, enum snapshot_kind kind)
{
    writer->kind = kind;
    writer->count = 0;
    buf_reset(&writer->items);
}

/* One item goes from here … */
static size_t start_item(struct snapshot_writer *writer, enum snapshot_kind kind,
                         msgpack_packer *pk, uint32_t members)
{
    size_t before = writer->items.len;

    assert(writer->kind == kind);
    msgpack_packer_init(pk, &writer->items, append);
    (void)msgpack_pack_array(pk, members);
    return before;
}

/* … to here: whole, or the chunk is as before. */
static int end_item(struct snapshot_writer *writer, size_t before)
{
    int rc = buf_check(&writer->items);

    if (rc == 0 && writer->items.len > SNAPSHOT_CHUNK_BYTES - HEAD_BYTES)
        rc = ERR_TOO_BIG;
    if (rc == 0) {
        writer->count++;
        return 0;
    }
    writer->items.len = before;
    writer->items.rc = 0;
    assert(rc != ERR_TOO_BIG || before > 0); /* every item fits into an empty chunk */
    return rc == ERR_TOO_BIG ? ERR_FULL : rc;
}

int snapshot_add_begin(struct snapshot_writer *writer, const struct snapshot_begin *begin)
{
    msgpack_packer pk;
    size_t before = start_item(writer, SNAPSHOT_BEGIN, &pk, 11);

    pack_uint(&pk, begin->position);
    pack_uint(&pk, begin->hlc);
    pack_id(&pk, &begin->node);
    pack_id(&pk, &begin->last_origin);
    pack_uint(&pk, begin->events);
    pack_uint(&pk, begin->objects);
    pack_uint(&pk, begin->deleted);
    pack_uint(&pk, begin->bytes);
    pack_uint(&pk, begin->made_ms);
    pack_uint(&pk, begin->digest.low);
    pack_uint(&pk, begin->digest.high);
    return end_item(writer, before);
}

int snapshot_add_origin(struct snapshot_writer *writer, const struct snapshot_origin *origin)
{
    msgpack_packer pk;
    size_t before = start_item(writer, SNAPSHOT_ORIGINS, &pk, 5);

    pack_id(&pk, &origin->origin);
    pack_id(&pk, &origin->node);
    pack_uint(&pk, origin->seq);
    pack_bin(&pk, origin->hash, sizeof origin->hash);
    pack_uint(&pk, origin->ended);
    return end_item(writer, before);
}

int snapshot_add_owed(struct snapshot_writer *writer, const struct snapshot_owed *owed)
{
    msgpack_packer pk;
    enum snapshot_kind kind = writer->kind == SNAPSHOT_BEGUN ? SNAPSHOT_BEGUN : SNAPSHOT_OUTBOX;
    size_t before = start_item(writer, kind, &pk, 2);

    pack_id(&pk, &owed->id);
    pack_uint(&pk, owed->since_ms);
    return end_item(writer, before);
}

int snapshot_add_garbage(struct snapshot_writer *writer, const struct snapshot_garbage *garbage)
{
    msgpack_packer pk;
    size_t before = start_item(writer, SNAPSHOT_GARBAGE, &pk, 2);

    pack_uint(&pk, garbage->freed_at);
    pack_uint(&pk, garbage->file);
    return end_item(writer, before);
}

int snapshot_add_holder(struct snapshot_writer *writer, const struct snapshot_holder *holder)
{
    msgpack_packer pk;
    size_t before = start_item(writer, SNAPSHOT_HOLDERS, &pk, 6);

    pack_id(&pk, &holder->id);
    pack_id(&pk, &holder->node);
    pack_bin(&pk, holder->sha256, SHA256_BYTES);
    pack_uint(&pk, holder->held);
    pack_reg(&pk, &holder->at);
    return end_item(writer, before);
}

int snapshot_add_member(struct snapshot_writer *writer, const struct snapshot_member *member)
{
    msgpack_packer pk;
    size_t before = start_item(writer, SNAPSHOT_MEMBERS, &pk, 5);

    pack_id(&pk, &member->node);
    pack_uint(&pk, member->state);
    pack_reg(&pk, &member->at);
    pack_text(&pk, member->address);
    return end_item(writer, before);
}

int snapshot_add_feature(struct snapshot_writer *writer, uint32_t feature)
{
    msgpack_packer pk;
    size_t before = start_item(writer, SNAPSHOT_FEATURE, &pk, 1);

    pack_uint(&pk, feature);
    return end_item(writer, before);
}

int snapshot_add_end(struct snapshot_writer *writer, const struct snapshot_end *end)
{
    msgpack_packer pk;
    size_t before = start_item(writer, SNAPSHOT_END, &pk, 4);

    pack_uint(&pk, end->position);
    pack_uint(&pk, end->previous);
    pack_uint(&pk, end->chunks);
    pack_bin(&pk, end->hash, sizeof end->hash);
    return end_item(writer, before);
}

static bool is_as_put(const struct object *object, const struct reg *reg)
{
    return reg->stamp == object->put_at.stamp && id_equal(&reg->origin, &object->put_at.origin);
}

static bool is_zero(const uint8_t digest[SHA256_BYTES])
{
    static const uint8_t none[SHA256_BYTES];

    return memcmp(digest, none, sizeof none) == 0;
}

static bool has_put(const struct object *o)
{
    return o->put_at.stamp || !id_is_zero(&o->put_at.origin) || o->size || !is_zero(o->sha256);
}

static bool has_uploaded(const struct object *o)
{
    return o->uploaded_at.stamp || !id_is_zero(&o->uploaded_at.origin) ||
           !is_zero(o->uploaded_sha256);
}

static uint32_t mask_of(const struct object *o)
{
    return (o->level ? ROW_LEVEL : 0u) | (has_put(o) ? ROW_PUT : 0u) |
           (is_as_put(o, &o->name_at) ? 0u : ROW_NAME_AT) |
           (is_as_put(o, &o->user_meta_at) ? 0u : ROW_USER_META_AT) |
           (is_as_put(o, &o->expires_at) ? 0u : ROW_EXPIRES_AT) |
           (o->expires_ms ? ROW_EXPIRES : 0u) | (has_uploaded(o) ? ROW_UPLOADED : 0u) |
           (o->deleted_at ? ROW_DELETED : 0u) | (place_is_none(&o->place) ? 0u : ROW_PLACE) |
           (o->name_len ? ROW_NAME : 0u) | (o->type_len ? ROW_TYPE : 0u) |
           (o->user_meta_len ? ROW_USER_META : 0u) | (o->cloud_len ? ROW_CLOUD : 0u) |
           (o->purged_of.stamp ? ROW_PURGED_OF : 0u);
}

/* How many values follow flags. */
static uint32_t members_of(uint32_t mask)
{
    return (uint32_t)__builtin_popcount(mask) + (mask & ROW_PUT ? 3 : 0) +
           (mask & ROW_NAME_AT ? 1 : 0) + (mask & ROW_USER_META_AT ? 1 : 0) +
           (mask & ROW_EXPIRES_AT ? 1 : 0) + (mask & ROW_UPLOADED ? 2 : 0) +
           (mask & ROW_PLACE ? 4 : 0) + (mask & ROW_PURGED_OF ? 1 : 0);
}

static void pack_place(msgpack_packer *pk, const struct object *object)
{
    pack_uint(pk, object->place.disk);
    pack_uint(pk, object->place.volume);
    pack_uint(pk, object->place.offset);
    pack_uint(pk, object->place.lsn);
    pack_uint(pk, object->record_bytes);
}

static int add_object(struct snapshot_writer *writer, enum snapshot_kind kind,
                      const struct object *object)
{
    uint32_t mask = mask_of(object);
    msgpack_packer pk;
    size_t before = start_item(writer, kind, &pk, 3 + members_of(mask));

    pack_id(&pk, &object->id);
    pack_uint(&pk, mask);
    pack_uint(&pk, object->flags);
    if (mask & ROW_LEVEL)
        pack_uint(&pk, object->level);
    if (mask & ROW_PUT) {
        pack_reg(&pk, &object->put_at);
        pack_bin(&pk, object->sha256, SHA256_BYTES);
        pack_uint(&pk, object->size);
    }
    if (mask & ROW_NAME_AT)
        pack_reg(&pk, &object->name_at);
    if (mask & ROW_USER_META_AT)
        pack_reg(&pk, &object->user_meta_at);
    if (mask & ROW_EXPIRES_AT)
        pack_reg(&pk, &object->expires_at);
    if (mask & ROW_EXPIRES)
        pack_uint(&pk, object->expires_ms);
    if (mask & ROW_UPLOADED) {
        pack_reg(&pk, &object->uploaded_at);
        pack_bin(&pk, object->uploaded_sha256, SHA256_BYTES);
    }
    if (mask & ROW_DELETED)
        pack_uint(&pk, object->deleted_at);
    if (mask & ROW_PLACE)
        pack_place(&pk, object);
    if (mask & ROW_NAME)
        pack_text(&pk, object_name(object));
    if (mask & ROW_TYPE)
        pack_text(&pk, object_type(object));
    if (mask & ROW_USER_META)
        pack_text(&pk, object_user_meta(object));
    if (mask & ROW_CLOUD)
        pack_text(&pk, object_cloud_place(object));
    if (mask & ROW_PURGED_OF)
        pack_reg(&pk, &object->purged_of);
    return end_item(writer, before);
}

int snapshot_add_row(struct snapshot_writer *writer, const struct object *object)
{
    return add_object(writer, SNAPSHOT_ROWS, object);
}

int snapshot_add_loser(struct snapshot_writer *writer, const struct object *loser)
{
    assert(!place_is_none(&loser->place) && loser->flags & OBJECT_PUT);
    return add_object(writer, SNAPSHOT_LOSERS, loser);
}

void snapshot_end_chunk(struct snapshot_writer *writer, const struct id128 *snapshot,
                        uint32_t index, struct buf *out)
{
    size_t before = out->len;
    msgpack_packer pk;

    assert(index < MAX_CHUNKS);
    msgpack_packer_init(&pk, out, append);
    (void)msgpack_pack_array(&pk, 5);
    pack_uint(&pk, VERSION);
    pack_id(&pk, snapshot);
    pack_uint(&pk, index);
    pack_uint(&pk, writer->kind);
    (void)msgpack_pack_array(&pk, writer->count);
    assert(out->rc || out->len - before <= HEAD_BYTES);
    buf_add(out, writer->items.data, writer->items.len);
}

/* ---- Reading ---- */

int snapshot_open(struct snapshot_reader *reader, const void *data, size_t len)
{
    unpack_init(&reader->in, data, len);
    uint32_t members = unpack_array(&reader->in);
    uint64_t version = unpack_uint(&reader->in, UINT64_MAX);

    if (reader->in.failed || members < 5 || version == 0)
        return ERR_INVALID;
    if (version > VERSION || members != 5)
        return ERR_FORMAT;
    reader->version = (uint32_t)version;
    unpack_bytes(&reader->in, reader->snapshot.bytes, sizeof reader->snapshot.bytes);
    reader->index = (uint32_t)unpack_uint(&reader->in, MAX_CHUNKS - 1);
    reader->kind = (uint32_t)unpack_uint(&reader->in, UINT32_MAX);
    reader->left = unpack_array(&reader->in);
    return reader->in.failed ? ERR_INVALID : 0;
}

/* 1: an item of MEMBERS values is next; 0: none is, and all was read. */
static int next_item(struct snapshot_reader *reader, enum snapshot_kind kind, uint32_t *members)
{
    assert(reader->kind == (uint32_t)kind);
    *members = 0;
    if (reader->left == 0)
        return unpack_done(&reader->in);
    reader->left--;
    *members = unpack_array(&reader->in);
    return reader->in.failed ? ERR_INVALID : 1;
}

/* 1 where the item, of which WANTED values were read, has no others and none was wrong. */
static int whole_item(struct snapshot_reader *reader, uint32_t members, uint32_t wanted)
{
    if (members != wanted)
        unpack_fail(&reader->in);
    return reader->in.failed ? ERR_INVALID : 1;
}

static void take_id(struct unpack *in, struct id128 *out)
{
    unpack_bytes(in, out->bytes, sizeof out->bytes);
}

static struct reg take_reg(struct unpack *in)
{
    struct reg reg = {.stamp = unpack_uint(in, HLC_LIMIT - 1)};

    take_id(in, &reg.origin);
    return reg;
}

static struct text take_text(struct unpack *in, size_t limit)
{
    struct text text = {0};

    text.ptr = unpack_str(in, &text.len);
    if (text.len > limit)
        unpack_fail(in);
    return text;
}

int snapshot_next_begin(struct snapshot_reader *reader, struct snapshot_begin *out)
{
    struct unpack *in = &reader->in;
    uint32_t members;
    int rc = next_item(reader, SNAPSHOT_BEGIN, &members);

    if (rc != 1)
        return rc;
    out->position = unpack_uint(in, LSN_LIMIT - 1);
    out->hlc = unpack_uint(in, HLC_LIMIT - 1);
    take_id(in, &out->node);
    take_id(in, &out->last_origin);
    out->events = unpack_uint(in, LARGEST);
    out->objects = unpack_uint(in, LARGEST);
    out->deleted = unpack_uint(in, LARGEST);
    out->bytes = unpack_uint(in, UINT64_MAX);
    out->made_ms = unpack_uint(in, LARGEST);
    out->digest.low = unpack_uint(in, UINT64_MAX);
    out->digest.high = unpack_uint(in, UINT64_MAX);
    return whole_item(reader, members, 11);
}

int snapshot_next_origin(struct snapshot_reader *reader, struct snapshot_origin *out)
{
    struct unpack *in = &reader->in;
    uint32_t members;
    int rc = next_item(reader, SNAPSHOT_ORIGINS, &members);

    if (rc != 1)
        return rc;
    take_id(in, &out->origin);
    take_id(in, &out->node);
    out->seq = unpack_uint(in, LARGEST);
    unpack_bytes(in, out->hash, sizeof out->hash);
    out->ended = unpack_uint(in, 1);
    return whole_item(reader, members, 5);
}

int snapshot_next_owed(struct snapshot_reader *reader, struct snapshot_owed *out)
{
    enum snapshot_kind kind = reader->kind == SNAPSHOT_BEGUN ? SNAPSHOT_BEGUN : SNAPSHOT_OUTBOX;
    uint32_t members;
    int rc = next_item(reader, kind, &members);

    if (rc != 1)
        return rc;
    take_id(&reader->in, &out->id);
    out->since_ms = unpack_uint(&reader->in, LARGEST);
    return whole_item(reader, members, 2);
}

int snapshot_next_garbage(struct snapshot_reader *reader, struct snapshot_garbage *out)
{
    uint32_t members;
    int rc = next_item(reader, SNAPSHOT_GARBAGE, &members);

    if (rc != 1)
        return rc;
    out->freed_at = unpack_uint(&reader->in, LSN_LIMIT - 1);
    out->file = unpack_uint(&reader->in, LARGEST);
    return whole_item(reader, members, 2);
}

int snapshot_next_holder(struct snapshot_reader *reader, struct snapshot_holder *out)
{
    struct unpack *in = &reader->in;
    uint32_t members;
    int rc = next_item(reader, SNAPSHOT_HOLDERS, &members);

    if (rc != 1)
        return rc;
    take_id(in, &out->id);
    take_id(in, &out->node);
    unpack_bytes(in, out->sha256, SHA256_BYTES);
    out->held = unpack_uint(in, 1);
    out->at = take_reg(in);
    return whole_item(reader, members, 6);
}

int snapshot_next_member(struct snapshot_reader *reader, struct snapshot_member *out)
{
    struct unpack *in = &reader->in;
    uint32_t members;
    int rc = next_item(reader, SNAPSHOT_MEMBERS, &members);

    if (rc != 1)
        return rc;
    take_id(in, &out->node);
    out->state = (enum member_state)unpack_uint(in, MEMBER_FORGOTTEN);
    out->at = take_reg(in);
    out->address = take_text(in, LIMIT_WIRE_ADDR_BYTES);
    if (out->state < MEMBER_JOINED)
        unpack_fail(in);
    return whole_item(reader, members, 5);
}

int snapshot_next_feature(struct snapshot_reader *reader, uint32_t *out)
{
    uint32_t members;
    int rc = next_item(reader, SNAPSHOT_FEATURE, &members);

    if (rc != 1)
        return rc;
    *out = (uint32_t)unpack_uint(&reader->in, UINT32_MAX);
    if (*out < 1)
        unpack_fail(&reader->in);
    return whole_item(reader, members, 1);
}

int snapshot_next_end(struct snapshot_reader *reader, struct snapshot_end *out)
{
    struct unpack *in = &reader->in;
    uint32_t members;
    int rc = next_item(reader, SNAPSHOT_END, &members);

    if (rc != 1)
        return rc;
    out->position = unpack_uint(in, LSN_LIMIT - 1);
    out->previous = unpack_uint(in, LSN_LIMIT - 1);
    out->chunks = (uint32_t)unpack_uint(in, MAX_CHUNKS);
    unpack_bytes(in, out->hash, sizeof out->hash);
    return whole_item(reader, members, 4);
}

static void take_place(struct unpack *in, struct object *o)
{
    o->place.disk = (uint32_t)unpack_uint(in, UINT32_MAX);
    o->place.volume = (uint32_t)unpack_uint(in, UINT32_MAX);
    o->place.offset = unpack_uint(in, LARGEST);
    o->place.lsn = unpack_uint(in, LSN_LIMIT - 1);
    o->record_bytes = (uint32_t)unpack_uint(in, UINT32_MAX);
    if (place_is_none(&o->place))
        unpack_fail(in);
}

/* The members that MASK names, but for the texts. */
static void take_members(struct unpack *in, uint32_t mask, struct object *o)
{
    if (mask & ROW_LEVEL)
        o->level = (uint8_t)unpack_uint(in, UINT8_MAX);
    if (mask & ROW_PUT) {
        o->put_at = take_reg(in);
        unpack_bytes(in, o->sha256, SHA256_BYTES);
        o->size = unpack_uint(in, UINT64_MAX);
    }
    o->name_at = mask & ROW_NAME_AT ? take_reg(in) : o->put_at;
    o->user_meta_at = mask & ROW_USER_META_AT ? take_reg(in) : o->put_at;
    o->expires_at = mask & ROW_EXPIRES_AT ? take_reg(in) : o->put_at;
    if (mask & ROW_EXPIRES)
        o->expires_ms = unpack_uint(in, UINT64_MAX);
    if (mask & ROW_UPLOADED) {
        o->uploaded_at = take_reg(in);
        unpack_bytes(in, o->uploaded_sha256, SHA256_BYTES);
    }
    if (mask & ROW_DELETED)
        o->deleted_at = unpack_uint(in, HLC_LIMIT - 1);
    if (mask & ROW_PLACE)
        take_place(in, o);
}

static int next_object(struct snapshot_reader *reader, enum snapshot_kind kind, struct object **out)
{
    struct unpack *in = &reader->in;
    struct text name = {0}, type = {0}, user_meta = {0}, cloud = {0};
    struct object o = {0};
    uint32_t members;
    int rc = next_item(reader, kind, &members);

    *out = NULL;
    if (rc != 1)
        return rc;
    take_id(in, &o.id);
    uint32_t mask = (uint32_t)unpack_uint(in, UINT32_MAX);
    o.flags = (uint32_t)unpack_uint(in, UINT32_MAX);
    if (!in->failed && mask & ~(uint32_t)ROW_KNOWN)
        return ERR_FORMAT;
    take_members(in, mask, &o);
    if (mask & ROW_NAME)
        name = take_text(in, LIMIT_NAME_BYTES);
    if (mask & ROW_TYPE)
        type = take_text(in, LIMIT_CONTENT_TYPE_BYTES);
    if (mask & ROW_USER_META)
        user_meta = take_text(in, LIMIT_USER_META_BYTES);
    if (mask & ROW_CLOUD)
        cloud = take_text(in, LIMIT_CLOUD_PLACE_BYTES);
    if (mask & ROW_PURGED_OF)
        o.purged_of = take_reg(in);
    rc = whole_item(reader, members, 3 + members_of(mask));
    if (rc != 1)
        return rc;
    *out = object_create_placed(&o, name, type, user_meta, cloud);
    return *out ? 1 : ERR_NO_MEMORY;
}

int snapshot_next_row(struct snapshot_reader *reader, struct object **out)
{
    return next_object(reader, SNAPSHOT_ROWS, out);
}

int snapshot_next_loser(struct snapshot_reader *reader, struct object **out)
{
    int rc = next_object(reader, SNAPSHOT_LOSERS, out);

    if (rc == 1 && (place_is_none(&(*out)->place) || !((*out)->flags & OBJECT_PUT))) {
        object_destroy(out);
        rc = ERR_INVALID;
    }
    return rc;
}
