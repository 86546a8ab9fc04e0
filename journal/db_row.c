/*
 * Rows of the journal's database as structs, and back.
 *
 * Most rows are plain: one put, nothing changed since. What they need not say is NULL, which takes
 * one byte: a register that was last written together with the body, an empty text, an origin or
 * digest of zeros. Small integers take no more than they need anyway.
 *
 * Failure: values that were never written by bind_… (a wrong length, a stamp over HLC_LIMIT) mean a
 * damaged database: ERR_CORRUPT.
 */
#include "journal/db_internal.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define KEY_TIME_BITS   42 /* milliseconds up to the year 2109 */
#define KEY_RANDOM_BITS 21

enum object_column {
    COLUMN_ID,
    COLUMN_FLAGS,
    COLUMN_LEVEL,
    COLUMN_PUT_STAMP,
    COLUMN_PUT_ORIGIN,
    COLUMN_SHA256,
    COLUMN_SIZE,
    COLUMN_NAME_STAMP,
    COLUMN_NAME_ORIGIN,
    COLUMN_USER_META_STAMP,
    COLUMN_USER_META_ORIGIN,
    COLUMN_EXPIRES_STAMP,
    COLUMN_EXPIRES_ORIGIN,
    COLUMN_EXPIRES_MS,
    COLUMN_DELETED_AT,
    COLUMN_UPLOADED_STAMP,
    COLUMN_UPLOADED_ORIGIN,
    COLUMN_UPLOADED_SHA256,
    COLUMN_DISK,
    COLUMN_VOLUME,
    COLUMN_BYTE_OFFSET,
    COLUMN_LSN,
    COLUMN_RECORD_BYTES,
    COLUMN_NAME,
    COLUMN_TYPE,
    COLUMN_USER_META,
    COLUMN_PURGED_STAMP,
    COLUMN_PURGED_ORIGIN,
    COLUMN_CLOUD,
    OBJECT_COLUMN_COUNT
};

/* ---- Keys ---- */

int64_t object_key(const struct id128 *id)
{
    uint64_t top;

    memcpy(&top, id->bytes, sizeof top);
    top = be64toh(top); /* 48 bits of time, 16 of randomness */
    if (top >> (16 + KEY_TIME_BITS))
        return INT64_MAX; /* nobody's clock: all share the last key */
    uint64_t low = (uint64_t)id->bytes[8] >> (8 - (KEY_RANDOM_BITS - 16));
    return (int64_t)(top << (KEY_RANDOM_BITS - 16) | low);
}

bool event_key_fits(int64_t origin_no, uint64_t seq)
{
    return origin_no > 0 && origin_no < INT64_C(1) << (63 - EVENT_SEQ_BITS) && seq <= EVENT_SEQ_MAX;
}

int64_t event_key(int64_t origin_no, uint64_t seq)
{
    assert(event_key_fits(origin_no, seq));
    return origin_no << EVENT_SEQ_BITS | (int64_t)seq;
}

uint64_t event_key_seq(int64_t key)
{
    return (uint64_t)key & EVENT_SEQ_MAX;
}

/* ---- Binding. SQLite's bind functions fail only where a parameter's number is wrong or memory is
 * short; the codes are collected by or. ---- */

struct binder {
    sqlite3_stmt *statement;
    int code;
};

static void put_number(struct binder *b, int column, uint64_t value)
{
    b->code |= sqlite3_bind_int64(b->statement, column + 1, (sqlite3_int64)value);
}

static void put_null(struct binder *b, int column)
{
    b->code |= sqlite3_bind_null(b->statement, column + 1);
}

static void put_blob(struct binder *b, int column, const void *data, size_t len)
{
    b->code |= sqlite3_bind_blob(b->statement, column + 1, data, (int)len, SQLITE_STATIC);
}

static void put_text(struct binder *b, int column, struct text text)
{
    if (text.len == 0)
        put_null(b, column);
    else
        b->code |=
            sqlite3_bind_text(b->statement, column + 1, text.ptr, (int)text.len, SQLITE_STATIC);
}

static void put_origin(struct binder *b, int column, const struct id128 *origin)
{
    if (id_is_zero(origin))
        put_null(b, column);
    else
        put_blob(b, column, origin->bytes, sizeof origin->bytes);
}

static void put_digest(struct binder *b, int column, const uint8_t digest[SHA256_BYTES])
{
    static const uint8_t none[SHA256_BYTES];

    if (memcmp(digest, none, sizeof none) == 0)
        put_null(b, column);
    else
        put_blob(b, column, digest, SHA256_BYTES);
}

/* NULL, NULL: as the put. */
static void put_register(struct binder *b, int column, const struct reg *reg, const struct reg *put)
{
    if (reg->stamp == put->stamp && id_equal(&reg->origin, &put->origin)) {
        put_null(b, column);
        put_null(b, column + 1);
    } else {
        put_number(b, column, reg->stamp);
        put_origin(b, column + 1, &reg->origin);
    }
}

/* NULLs where nothing is known, as nearly everywhere. */
static void put_cloud(struct binder *b, const struct object *object)
{
    struct text place = object_cloud_place(object);

    if (object->purged_of.stamp > 0)
        put_number(b, COLUMN_PURGED_STAMP, object->purged_of.stamp);
    else
        put_null(b, COLUMN_PURGED_STAMP);
    put_origin(b, COLUMN_PURGED_ORIGIN, &object->purged_of.origin);
    if (place.len > 0)
        put_blob(b, COLUMN_CLOUD, place.ptr, place.len);
    else
        put_null(b, COLUMN_CLOUD);
}

static int binder_end(const struct binder *b)
{
    assert(b->code == SQLITE_OK || b->code == SQLITE_NOMEM);
    return b->code == SQLITE_OK ? 0 : ERR_NO_MEMORY;
}

int object_bind(sqlite3_stmt *statement, const struct object *object)
{
    struct binder b = {.statement = statement};
    const struct object *o = object;

    put_blob(&b, COLUMN_ID, o->id.bytes, sizeof o->id.bytes);
    put_number(&b, COLUMN_FLAGS, o->flags);
    put_number(&b, COLUMN_LEVEL, o->level);
    put_number(&b, COLUMN_PUT_STAMP, o->put_at.stamp);
    put_origin(&b, COLUMN_PUT_ORIGIN, &o->put_at.origin);
    put_digest(&b, COLUMN_SHA256, o->sha256);
    put_number(&b, COLUMN_SIZE, o->size);
    put_register(&b, COLUMN_NAME_STAMP, &o->name_at, &o->put_at);
    put_register(&b, COLUMN_USER_META_STAMP, &o->user_meta_at, &o->put_at);
    put_register(&b, COLUMN_EXPIRES_STAMP, &o->expires_at, &o->put_at);
    put_number(&b, COLUMN_EXPIRES_MS, o->expires_ms);
    put_number(&b, COLUMN_DELETED_AT, o->deleted_at);
    put_number(&b, COLUMN_UPLOADED_STAMP, o->uploaded_at.stamp);
    put_origin(&b, COLUMN_UPLOADED_ORIGIN, &o->uploaded_at.origin);
    put_digest(&b, COLUMN_UPLOADED_SHA256, o->uploaded_sha256);
    put_number(&b, COLUMN_DISK, o->place.disk);
    put_number(&b, COLUMN_VOLUME, o->place.volume);
    put_number(&b, COLUMN_BYTE_OFFSET, o->place.offset);
    put_number(&b, COLUMN_LSN, o->place.lsn);
    put_number(&b, COLUMN_RECORD_BYTES, o->record_bytes);
    put_text(&b, COLUMN_NAME, object_name(o));
    put_text(&b, COLUMN_TYPE, object_type(o));
    put_text(&b, COLUMN_USER_META, object_user_meta(o));
    put_cloud(&b, o);
    return binder_end(&b);
}

int bind_state(sqlite3_stmt *statement, const struct db_state *state)
{
    struct binder b = {.statement = statement};

    put_blob(&b, 0, state->node.bytes, sizeof state->node.bytes);
    put_blob(&b, 1, state->store.bytes, sizeof state->store.bytes);
    put_number(&b, 2, state->position);
    put_number(&b, 3, state->clean_generation);
    put_number(&b, 4, state->hlc);
    put_number(&b, 5, state->events);
    put_number(&b, 6, state->objects);
    put_number(&b, 7, state->deleted);
    put_number(&b, 8, state->bytes);
    put_number(&b, 9, state->outbox);
    put_number(&b, 10, state->outbox_bytes);
    put_number(&b, 11, state->digest.low);
    put_number(&b, 12, state->digest.high);
    put_blob(&b, 13, state->last_origin.bytes, sizeof state->last_origin.bytes);
    put_number(&b, 14, state->event_bytes);
    put_number(&b, 15, state->wanted);
    put_number(&b, 16, state->wanted_bytes);
    put_number(&b, 17, state->marks);
    put_number(&b, 18, state->purges);
    return binder_end(&b);
}

int bind_origin(sqlite3_stmt *statement, const struct db_origin *origin)
{
    struct binder b = {.statement = statement};

    if (origin->no) /* a new row's number is SQLite's to give: the statement has no parameter 1 */
        put_number(&b, 0, (uint64_t)origin->no);
    put_blob(&b, 1, origin->origin.bytes, sizeof origin->origin.bytes);
    put_blob(&b, 2, origin->node.bytes, sizeof origin->node.bytes);
    put_number(&b, 3, origin->seq);
    put_blob(&b, 4, origin->hash, sizeof origin->hash);
    put_number(&b, 5, origin->anchor_seq);
    put_blob(&b, 6, origin->anchor_hash, sizeof origin->anchor_hash);
    put_number(&b, 7, origin->ended);
    return binder_end(&b);
}

int bind_segment(sqlite3_stmt *statement, const struct db_segment *segment)
{
    struct binder b = {.statement = statement};

    put_number(&b, 0, segment->log.volume);
    put_number(&b, 1, segment->log.disk);
    put_number(&b, 2, segment->log.base);
    put_number(&b, 3, segment->log.end_bytes);
    put_number(&b, 4, segment->log.sealed);
    put_number(&b, 5, segment->body_bytes);
    put_number(&b, 6, segment->live_bytes);
    put_number(&b, 7, segment->live_record_bytes);
    return binder_end(&b);
}

/* ---- Reading: one reader per row, with a sticky verdict ---- */

struct row {
    sqlite3_stmt *statement;
    bool bad;
};

static uint64_t take_number(struct row *row, int column, uint64_t max)
{
    uint64_t value = (uint64_t)sqlite3_column_int64(row->statement, column);

    row->bad |= value > max;
    return value;
}

static bool is_null(struct row *row, int column)
{
    return sqlite3_column_type(row->statement, column) == SQLITE_NULL;
}

/* Exactly LEN bytes. */
static void take_blob(struct row *row, int column, void *out, size_t len)
{
    const void *data = sqlite3_column_blob(row->statement, column);

    if (data && (size_t)sqlite3_column_bytes(row->statement, column) == len)
        memcpy(out, data, len);
    else
        row->bad = true;
}

/* LEN bytes, or zeros (which OUT holds already) for NULL. */
static void take_blob_or_zero(struct row *row, int column, void *out, size_t len)
{
    if (!is_null(row, column))
        take_blob(row, column, out, len);
}

static struct text take_text(struct row *row, int column, size_t limit)
{
    struct text text = {.ptr = sqlite3_column_blob(row->statement, column)};

    if (text.ptr)
        text.len = (uint32_t)sqlite3_column_bytes(row->statement, column);
    row->bad |= text.len > limit;
    return text;
}

static struct reg take_register(struct row *row, int column, const struct reg *put)
{
    struct reg reg = {0};

    if (put && is_null(row, column))
        return *put;
    reg.stamp = take_number(row, column, HLC_LIMIT - 1);
    take_blob_or_zero(row, column + 1, reg.origin.bytes, sizeof reg.origin.bytes);
    return reg;
}

bool row_has_id(sqlite3_stmt *row, const struct id128 *id)
{
    const void *data = sqlite3_column_blob(row, COLUMN_ID);

    return data && sqlite3_column_bytes(row, COLUMN_ID) == (int)sizeof id->bytes &&
           memcmp(data, id->bytes, sizeof id->bytes) == 0;
}

int object_from_row(sqlite3_stmt *statement, struct object **out)
{
    struct row row = {.statement = statement};
    struct object o = {0};

    assert(sqlite3_column_count(statement) >= OBJECT_COLUMN_COUNT);
    take_blob(&row, COLUMN_ID, o.id.bytes, sizeof o.id.bytes);
    o.flags = (uint32_t)take_number(&row, COLUMN_FLAGS, UINT32_MAX);
    o.level = (uint8_t)take_number(&row, COLUMN_LEVEL, UINT8_MAX);
    o.put_at = take_register(&row, COLUMN_PUT_STAMP, NULL);
    take_blob_or_zero(&row, COLUMN_SHA256, o.sha256, sizeof o.sha256);
    o.size = take_number(&row, COLUMN_SIZE, UINT64_MAX);
    o.name_at = take_register(&row, COLUMN_NAME_STAMP, &o.put_at);
    o.user_meta_at = take_register(&row, COLUMN_USER_META_STAMP, &o.put_at);
    o.expires_at = take_register(&row, COLUMN_EXPIRES_STAMP, &o.put_at);
    o.expires_ms = take_number(&row, COLUMN_EXPIRES_MS, UINT64_MAX);
    o.deleted_at = take_number(&row, COLUMN_DELETED_AT, HLC_LIMIT - 1);
    o.uploaded_at = take_register(&row, COLUMN_UPLOADED_STAMP, NULL);
    take_blob_or_zero(&row, COLUMN_UPLOADED_SHA256, o.uploaded_sha256, sizeof o.uploaded_sha256);
    o.place.disk = (uint32_t)take_number(&row, COLUMN_DISK, UINT32_MAX);
    o.place.volume = (uint32_t)take_number(&row, COLUMN_VOLUME, UINT32_MAX);
    o.place.offset = take_number(&row, COLUMN_BYTE_OFFSET, UINT64_MAX);
    o.place.lsn = take_number(&row, COLUMN_LSN, UINT64_MAX);
    o.record_bytes = (uint32_t)take_number(&row, COLUMN_RECORD_BYTES, UINT32_MAX);
    struct text name = take_text(&row, COLUMN_NAME, LIMIT_NAME_BYTES);
    struct text type = take_text(&row, COLUMN_TYPE, LIMIT_CONTENT_TYPE_BYTES);
    struct text user_meta = take_text(&row, COLUMN_USER_META, LIMIT_USER_META_BYTES);
    o.purged_of = take_register(&row, COLUMN_PURGED_STAMP, NULL);
    struct text cloud = take_text(&row, COLUMN_CLOUD, LIMIT_CLOUD_PLACE_BYTES);
    if (row.bad)
        return ERR_CORRUPT;
    *out = object_create_placed(&o, name, type, user_meta, cloud);
    return *out ? 0 : ERR_NO_MEMORY;
}

/* ---- What every connection can look up ---- */

int find_object(struct conn *conn, const struct id128 *id, struct object **out)
{
    sqlite3_stmt *find;
    int rc = conn_statement(conn, STATEMENT_FIND, &find);

    *out = NULL;
    if (rc)
        return rc;
    int bound = sqlite3_bind_int64(find, 1, object_key(id));
    if (bound != SQLITE_OK)
        return conn_error(conn, bound);
    rc = conn_step(conn, find);
    if (rc == 1 && !row_has_id(find, id)) {
        /* Another id has the key. It keeps it for ever, so a second snapshot is as good. */
        sqlite3_reset(find);
        rc = conn_statement(conn, STATEMENT_FIND_MORE, &find);
        if (rc)
            return rc;
        /* Unbound, it would find nothing and say so. */
        int code = sqlite3_bind_blob(find, 1, id->bytes, sizeof id->bytes, SQLITE_STATIC);
        rc = code == SQLITE_OK ? conn_step(conn, find) : conn_error(conn, code);
    }
    if (rc <= 0)
        return rc ? rc : ERR_NOT_FOUND;
    rc = object_from_row(find, out);
    sqlite3_reset(find);
    return rc;
}

int read_state(struct conn *conn, struct db_state *out)
{
    sqlite3_stmt *select;
    int rc = conn_statement(conn, STATEMENT_STATE, &select);

    if (rc)
        return rc;
    rc = conn_step(conn, select);
    if (rc <= 0)
        return rc ? rc : ERR_CORRUPT;
    struct row row = {.statement = select};
    *out = (struct db_state){0};
    take_blob(&row, 0, out->node.bytes, sizeof out->node.bytes);
    take_blob(&row, 1, out->store.bytes, sizeof out->store.bytes);
    out->position = take_number(&row, 2, UINT64_MAX);
    out->clean_generation = take_number(&row, 3, UINT64_MAX);
    out->hlc = take_number(&row, 4, HLC_LIMIT - 1);
    out->events = take_number(&row, 5, UINT64_MAX);
    out->objects = take_number(&row, 6, UINT64_MAX);
    out->deleted = take_number(&row, 7, UINT64_MAX);
    out->bytes = take_number(&row, 8, UINT64_MAX);
    out->outbox = take_number(&row, 9, UINT64_MAX);
    out->outbox_bytes = take_number(&row, 10, UINT64_MAX);
    out->digest.low = take_number(&row, 11, UINT64_MAX);
    out->digest.high = take_number(&row, 12, UINT64_MAX);
    take_blob(&row, 13, out->last_origin.bytes, sizeof out->last_origin.bytes);
    out->event_bytes = take_number(&row, 14, UINT64_MAX);
    out->wanted = take_number(&row, 15, UINT64_MAX);
    out->wanted_bytes = take_number(&row, 16, UINT64_MAX);
    out->marks = take_number(&row, 17, UINT64_MAX);
    out->purges = take_number(&row, 18, UINT64_MAX);
    sqlite3_reset(select);
    return row.bad ? ERR_CORRUPT : 0;
}

static void origin_from_row(struct row *row, void *at)
{
    struct db_origin *o = at;

    *o = (struct db_origin){0};
    o->no = (int64_t)take_number(row, 0, INT64_MAX);
    take_blob(row, 1, o->origin.bytes, sizeof o->origin.bytes);
    take_blob(row, 2, o->node.bytes, sizeof o->node.bytes);
    o->seq = take_number(row, 3, UINT64_MAX);
    take_blob(row, 4, o->hash, sizeof o->hash);
    o->anchor_seq = take_number(row, 5, UINT64_MAX);
    take_blob(row, 6, o->anchor_hash, sizeof o->anchor_hash);
    o->ended = take_number(row, 7, 1);
    o->frozen = take_number(row, 8, 1);
}

static void segment_from_row(struct row *row, void *at)
{
    struct db_segment *s = at;

    *s = (struct db_segment){0};
    s->log.volume = (uint32_t)take_number(row, 0, UINT32_MAX);
    s->log.disk = (uint32_t)take_number(row, 1, UINT32_MAX);
    s->log.base = take_number(row, 2, UINT64_MAX);
    s->log.end_bytes = take_number(row, 3, UINT64_MAX);
    s->log.sealed = take_number(row, 4, 1);
    s->body_bytes = take_number(row, 5, UINT64_MAX);
    s->live_bytes = take_number(row, 6, UINT64_MAX);
    s->live_record_bytes = take_number(row, 7, UINT64_MAX);
}

/* All rows of WHICH into a fresh array of structs of SIZE bytes. */
static int read_all(struct conn *conn, enum statement which, size_t size,
                    void (*convert)(struct row *row, void *at), void **out, size_t *count)
{
    sqlite3_stmt *select;
    char *array = NULL;
    size_t used = 0, cap = 0;
    int rc = conn_statement(conn, which, &select);

    *out = NULL;
    *count = 0;
    if (rc)
        return rc;
    while ((rc = conn_step(conn, select)) == 1) {
        struct row row = {.statement = select};

        if (used == cap) {
            cap = cap ? cap * 2 : 16;
            char *grown = reallocarray(array, cap, size);
            if (!grown) {
                rc = ERR_NO_MEMORY;
                break;
            }
            array = grown;
        }
        convert(&row, array + used * size);
        if (row.bad) {
            rc = ERR_CORRUPT;
            break;
        }
        used++;
    }
    sqlite3_reset(select);
    if (rc) {
        free(array);
        return rc;
    }
    *out = array;
    *count = used;
    return 0;
}

int read_origins(struct conn *conn, struct db_origin **out, size_t *count)
{
    void *array;
    int rc = read_all(conn, STATEMENT_ORIGINS, sizeof **out, origin_from_row, &array, count);

    *out = array;
    return rc;
}

int read_segments(struct conn *conn, struct db_segment **out, size_t *count)
{
    void *array;
    int rc = read_all(conn, STATEMENT_SEGMENTS, sizeof **out, segment_from_row, &array, count);

    *out = array;
    return rc;
}
