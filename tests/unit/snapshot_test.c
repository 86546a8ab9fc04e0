/* Goal: what goes into a snapshot's chunk comes out of it, whichever members it has and however
 * large they are; the bytes are those that docs/JOURNAL.md names; anything else is refused. */
#include "journal/snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST ((uint64_t)INT64_MAX)

static const struct id128 the_snapshot = {
    {0xaa, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

/* One chunk and its reader. */
struct chunk {
    struct snapshot_writer writer;
    struct snapshot_reader reader;
    struct buf bytes;
};

static void chunk_begin(struct chunk *chunk, enum snapshot_kind kind)
{
    snapshot_writer_init(&chunk->writer);
    buf_init(&chunk->bytes, SNAPSHOT_CHUNK_BYTES);
    snapshot_begin_chunk(&chunk->writer, kind);
}

static void chunk_end(struct chunk *chunk)
{
    snapshot_end_chunk(&chunk->writer, &the_snapshot, 3, &chunk->bytes);
    assert_int_equal(buf_check(&chunk->bytes), 0);
    assert_true(chunk->bytes.len <= SNAPSHOT_CHUNK_BYTES);
    assert_int_equal(snapshot_open(&chunk->reader, chunk->bytes.data, chunk->bytes.len), 0);
    assert_int_equal(chunk->reader.index, 3);
    assert_int_equal(chunk->reader.kind, chunk->writer.kind);
    assert_int_equal(chunk->reader.left, chunk->writer.count);
    assert_true(id_equal(&chunk->reader.snapshot, &the_snapshot));
}

static void chunk_release(struct chunk *chunk)
{
    buf_release(&chunk->bytes);
    snapshot_writer_release(&chunk->writer);
}

/* ---- Rows ---- */

static void expect_row(struct chunk *chunk, const struct object *want)
{
    struct object *got;

    assert_int_equal(snapshot_next_row(&chunk->reader, &got), 1);
    assert_non_null(got);
    assert_int_equal(object_bytes(got), object_bytes(want));
    assert_memory_equal(got, want, object_bytes(want));
    object_destroy(&got);
}

static void expect_no_more_rows(struct chunk *chunk)
{
    struct object *got = (struct object *)chunk;

    assert_int_equal(snapshot_next_row(&chunk->reader, &got), 0);
    assert_null(got);
}

static void round_trip(const struct object *row)
{
    struct chunk chunk;

    chunk_begin(&chunk, SNAPSHOT_ROWS);
    assert_int_equal(snapshot_add_row(&chunk.writer, row), 0);
    chunk_end(&chunk);
    expect_row(&chunk, row);
    expect_no_more_rows(&chunk);
    chunk_release(&chunk);
}

static struct reg reg_of(uint8_t n)
{
    struct reg reg = {.stamp = HLC_LIMIT - n};

    memset(&reg.origin, n, sizeof reg.origin);
    return reg;
}

static struct object *with_texts(const struct object *like, unsigned name, unsigned type,
                                 unsigned user_meta, unsigned cloud)
{
    static char bytes[LIMIT_USER_META_BYTES + 1];
    struct object *row;

    memset(bytes, 'x', sizeof bytes);
    row = object_create_placed(like, (struct text){bytes, name}, (struct text){bytes, type},
                               (struct text){bytes, user_meta}, (struct text){bytes, cloud});
    assert_non_null(row);
    return row;
}

/* Each of a row's members is there or not, independently of the others. */
static void every_set_of_members_comes_back(void **state)
{
    enum { MEMBERS = 14 };

    (void)state;
    for (unsigned set = 0; set < 1u << MEMBERS; set++) {
        struct object o = {.id = {{1, 2, 3}}, .flags = set};

        if (set & 1)
            o.level = UINT8_MAX;
        if (set & 2) {
            o.put_at = reg_of(1);
            o.size = UINT64_MAX;
            memset(o.sha256, 9, sizeof o.sha256);
        }
        o.name_at = set & 4 ? reg_of(2) : o.put_at;
        o.user_meta_at = set & 8 ? reg_of(3) : o.put_at;
        o.expires_at = set & 16 ? reg_of(4) : o.put_at;
        o.expires_ms = set & 32 ? UINT64_MAX : 0;
        if (set & 64) {
            o.uploaded_at = reg_of(5);
            memset(o.uploaded_sha256, 8, sizeof o.uploaded_sha256);
        }
        o.deleted_at = set & 128 ? HLC_LIMIT - 1 : 0;
        if (set & 256) {
            o.place = (struct place){UINT32_MAX, PLACE_LARGE, LARGEST, LSN_LIMIT - 1};
            o.record_bytes = UINT32_MAX;
        }
        o.purged_of = set & 8192 ? reg_of(6) : (struct reg){0};
        struct object *row = with_texts(
            &o, set & 512 ? LIMIT_NAME_BYTES : 0, set & 1024 ? LIMIT_CONTENT_TYPE_BYTES : 0,
            set & 2048 ? LIMIT_USER_META_BYTES : 0, set & 4096 ? LIMIT_CLOUD_PLACE_BYTES : 0);
        round_trip(row);
        object_destroy(&row);
    }
}

/* A member of several values is there if any of them is. */
static void half_a_member_comes_back(void **state)
{
    static const struct id128 origin = {{7}};
    const struct object rows[] = {
        {.id = {{1}}, .put_at.stamp = 5},
        {.id = {{1}}, .put_at.origin = origin},
        {.id = {{1}}, .size = 1},
        {.id = {{1}}, .sha256 = {[31] = 1}},
        {.id = {{1}}, .uploaded_at.stamp = 5},
        {.id = {{1}}, .uploaded_at.origin = origin},
        {.id = {{1}}, .uploaded_sha256 = {[31] = 1}},
        {.id = {{1}}, .name_at.stamp = 5},
        {.id = {{1}}, .name_at.origin = origin},
        {.id = {{1}}, .user_meta_at.stamp = 5},
        {.id = {{1}}, .user_meta_at.origin = origin},
        {.id = {{1}}, .expires_at.stamp = 5},
        {.id = {{1}}, .expires_at.origin = origin},
        {.id = {{1}}, .place.volume = 1},
        {.id = {{1}}, .flags = UINT32_MAX},
        {.id = {{0}}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        round_trip(&rows[i]);
}

static struct object *row_of(unsigned n)
{
    struct object o = {.id = {{1, [14] = (uint8_t)(n >> 8), [15] = (uint8_t)n}},
                       .flags = OBJECT_PUT,
                       .level = 1,
                       .size = 7 + n};

    o.put_at = o.name_at = o.user_meta_at = o.expires_at = (struct reg){100 + n, {{2}}};
    memset(o.sha256, (int)n + 1, sizeof o.sha256);
    if (n % 2)
        o.name_at = (struct reg){200, {{3}}};
    if (n % 5 == 4)
        o = (struct object){.id = o.id, .flags = OBJECT_DELETED, .deleted_at = 5};
    if (n % 5 == 4 && n % 2)
        o.purged_of = (struct reg){300, {{4}}};
    return with_texts(&o, n % 2 ? 5 : 0, 0, n % 3, n % 4);
}

/* What does not fit is for the next chunk, and nothing of it is in this one. */
static void a_full_chunk_holds_what_was_added(void **state)
{
    struct chunk chunk;
    unsigned count = 0, first = 0;

    (void)state;
    chunk_begin(&chunk, SNAPSHOT_ROWS);
    for (int chunks = 0; chunks < 2; chunks++) {
        for (int rc = 0; rc == 0; count += rc == 0) {
            struct object *want = row_of(count);

            rc = snapshot_add_row(&chunk.writer, want);
            assert_true(rc == 0 || rc == ERR_FULL);
            object_destroy(&want);
        }
        chunk_end(&chunk);
        assert_true(chunk.bytes.len > SNAPSHOT_CHUNK_BYTES - 1000);
        for (unsigned n = first; n < count; n++) {
            struct object *want = row_of(n);

            expect_row(&chunk, want);
            object_destroy(&want);
        }
        expect_no_more_rows(&chunk);
        first = count;
        buf_reset(&chunk.bytes);
        snapshot_begin_chunk(&chunk.writer, SNAPSHOT_ROWS);
    }
    chunk_end(&chunk); /* begun, and nothing added */
    expect_no_more_rows(&chunk);
    chunk_release(&chunk);
}

/* The smallest items come closest to the limit: the head has its room at every fill. */
static void the_head_fits_however_full_the_chunk(void **state)
{
    struct chunk chunk;

    (void)state;
    for (unsigned name = 0; name < 64; name++) {
        struct object like = {.id = {{1}}, .flags = OBJECT_DELETED, .deleted_at = 5};
        struct object *first = with_texts(&like, name, 0, 0, 0),
                      *row = with_texts(&like, 0, 0, 0, 0);

        chunk_begin(&chunk, SNAPSHOT_ROWS);
        assert_int_equal(snapshot_add_row(&chunk.writer, first), 0);
        while (snapshot_add_row(&chunk.writer, row) == 0)
            continue;
        snapshot_end_chunk(&chunk.writer, &the_snapshot, (1 << 26) - 1, &chunk.bytes);
        assert_int_equal(buf_check(&chunk.bytes), 0);
        assert_int_equal(snapshot_open(&chunk.reader, chunk.bytes.data, chunk.bytes.len), 0);
        assert_int_equal(chunk.reader.index, (1 << 26) - 1);
        chunk_release(&chunk);
        object_destroy(&first);
        object_destroy(&row);
    }
}

/* ---- The format ---- */

static void expect_bytes(struct chunk *chunk, const void *want, size_t len)
{
    /* After array(5), version, bin16 head and id. */
    assert_int_equal(chunk->bytes.len, 20 + len);
    assert_memory_equal(chunk->bytes.data, "\x95\x02\xc4\x10", 4);
    assert_memory_equal(chunk->bytes.data + 4, the_snapshot.bytes, 16);
    assert_memory_equal(chunk->bytes.data + 20, want, len);
}

static void the_bytes_are_those_of_the_format(void **state)
{
    static const uint8_t tombstone[] = "\x03\x02\x91\x94\xc4\x10"
                                       "0123456789abcdef\xcc\x80\x02\x05";
    static const uint8_t owed[] = "\x03\x03\x91\x92\xc4\x10"
                                  "0123456789abcdef\xcd\x01\x00";
    static const uint8_t garbage[] = "\x03\x04\x92\x92\x05\x06\x92\x07\x08";
    struct object row = {.flags = OBJECT_DELETED, .deleted_at = 5};
    struct snapshot_owed upload = {.since_ms = 256};
    struct chunk chunk;

    (void)state;
    memcpy(row.id.bytes, "0123456789abcdef", 16);
    upload.id = row.id;
    chunk_begin(&chunk, SNAPSHOT_ROWS);
    assert_int_equal(snapshot_add_row(&chunk.writer, &row), 0);
    chunk_end(&chunk);
    expect_bytes(&chunk, tombstone, sizeof tombstone - 1);
    chunk_release(&chunk);

    chunk_begin(&chunk, SNAPSHOT_OUTBOX);
    assert_int_equal(snapshot_add_owed(&chunk.writer, &upload), 0);
    chunk_end(&chunk);
    expect_bytes(&chunk, owed, sizeof owed - 1);
    chunk_release(&chunk);

    chunk_begin(&chunk, SNAPSHOT_GARBAGE);
    assert_int_equal(snapshot_add_garbage(&chunk.writer, &(struct snapshot_garbage){5, 6}), 0);
    assert_int_equal(snapshot_add_garbage(&chunk.writer, &(struct snapshot_garbage){7, 8}), 0);
    chunk_end(&chunk);
    expect_bytes(&chunk, garbage, sizeof garbage - 1);
    chunk_release(&chunk);
}

/* Each member of a full row, in the order of its bit. */
static void a_full_row_is_as_the_format_says(void **state)
{
    static const uint8_t head[] = "\x03\x02\x91\xdc\x00\x1e\xc4\x10";
    static const uint8_t members[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    struct object o = {.flags = 3, .level = 1, .size = 3, .expires_ms = 7, .deleted_at = 9};
    struct chunk chunk;
    const uint8_t *at;
    size_t found = 0;

    (void)state;
    memset(&o.id, 0xee, sizeof o.id);
    memset(o.sha256, 0xee, sizeof o.sha256);
    memset(o.uploaded_sha256, 0xee, sizeof o.uploaded_sha256);
    o.put_at.stamp = 2;
    o.name_at.stamp = 4;
    o.user_meta_at.stamp = 5;
    o.expires_at.stamp = 6;
    o.uploaded_at.stamp = 8;
    o.put_at.origin = o.name_at.origin = o.user_meta_at.origin = o.expires_at.origin =
        o.uploaded_at.origin = o.purged_of.origin = o.id;
    o.purged_of.stamp = 15;
    o.place = (struct place){.disk = 10, .volume = 11, .offset = 12, .lsn = 13};
    o.record_bytes = 14;
    struct object *row = object_create_placed(&o, (struct text){"n", 1}, (struct text){"tt", 2},
                                              (struct text){"mmm", 3}, (struct text){"c\0c", 3});
    assert_non_null(row);
    chunk_begin(&chunk, SNAPSHOT_ROWS);
    assert_int_equal(snapshot_add_row(&chunk.writer, row), 0);
    chunk_end(&chunk);
    assert_memory_equal(chunk.bytes.data + 20, head, sizeof head - 1);
    assert_memory_equal(chunk.bytes.data + 20 + 8 + 16, "\xcd\x3f\xff\x03", 4);
    at = (const uint8_t *)chunk.bytes.data + 20 + 8 + 16 + 4;
    /* The small numbers tell the order; what lies between is bin. */
    while (found < sizeof members) {
        if (*at == 0xc4) {
            at += 2 + at[1];
            continue;
        }
        assert_int_equal(*at++, members[found++]);
    }
    assert_memory_equal(at,
                        "\xa1n\xa2tt\xa3mmm\xa3"
                        "c\0c\x0f\xc4\x10",
                        16);
    assert_ptr_equal(at + 16 + 16, chunk.bytes.data + chunk.bytes.len);
    object_destroy(&row);
    chunk_release(&chunk);
}

/* ---- The other kinds: each member at its limit, and one above ---- */

static struct snapshot_begin begin_of(int above)
{
    struct snapshot_begin begin = {
        .position = LSN_LIMIT - 1 + (above == 0),
        .hlc = HLC_LIMIT - 1 + (above == 1),
        .node = {{4}},
        .last_origin = {{5}},
        .events = LARGEST + (above == 2),
        .objects = LARGEST - 1 + 2 * (above == 3),
        .deleted = LARGEST - 2 + 3 * (above == 4),
        .bytes = UINT64_MAX,
        .made_ms = LARGEST - 3 + 4 * (above == 5),
        .digest = {UINT64_MAX, UINT64_MAX - 1},
    };

    return begin;
}

static void a_beginning_comes_back_within_its_limits(void **state)
{
    (void)state;
    for (int above = -1; above < 6; above++) {
        struct snapshot_begin want = begin_of(above), got;
        struct chunk chunk;

        chunk_begin(&chunk, SNAPSHOT_BEGIN);
        assert_int_equal(snapshot_add_begin(&chunk.writer, &want), 0);
        chunk_end(&chunk);
        memset(&got, 0, sizeof got);
        assert_int_equal(snapshot_next_begin(&chunk.reader, &got), above < 0 ? 1 : ERR_INVALID);
        if (above < 0) {
            assert_memory_equal(&got, &want, sizeof got);
            assert_int_equal(snapshot_next_begin(&chunk.reader, &got), 0);
        }
        chunk_release(&chunk);
    }
}

static void a_vector_comes_back_within_its_limits(void **state)
{
    struct snapshot_origin want[3], got;
    struct chunk chunk;

    (void)state;
    memset(want, 0, sizeof want);
    memset(&want[0], 0x5a, offsetof(struct snapshot_origin, seq));
    want[0].seq = LARGEST;
    memset(want[0].hash, 0x7b, sizeof want[0].hash);
    want[0].ended = true;
    want[1].node = (struct id128){{3}};
    want[2].seq = LARGEST + 1;
    chunk_begin(&chunk, SNAPSHOT_ORIGINS);
    for (int i = 0; i < 3; i++)
        assert_int_equal(snapshot_add_origin(&chunk.writer, &want[i]), 0);
    chunk_end(&chunk);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(snapshot_next_origin(&chunk.reader, &got), 1);
        assert_true(id_equal(&got.origin, &want[i].origin) && id_equal(&got.node, &want[i].node));
        assert_int_equal(got.seq, want[i].seq);
        assert_memory_equal(got.hash, want[i].hash, sizeof got.hash);
        assert_int_equal(got.ended, want[i].ended);
    }
    assert_int_equal(snapshot_next_origin(&chunk.reader, &got), ERR_INVALID);
    chunk_release(&chunk);
}

static void what_is_owed_comes_back_within_its_limits(void **state)
{
    struct snapshot_owed got;
    struct chunk chunk;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        unsigned above = i % 2;
        struct snapshot_owed want = {.id = {{6}}, .since_ms = LARGEST + above};

        chunk_begin(&chunk, i < 2 ? SNAPSHOT_OUTBOX : SNAPSHOT_BEGUN);
        assert_int_equal(snapshot_add_owed(&chunk.writer, &want), 0);
        chunk_end(&chunk);
        assert_int_equal(snapshot_next_owed(&chunk.reader, &got), above ? ERR_INVALID : 1);
        if (!above) {
            assert_true(id_equal(&got.id, &want.id));
            assert_int_equal(got.since_ms, LARGEST);
            assert_int_equal(snapshot_next_owed(&chunk.reader, &got), 0);
        }
        chunk_release(&chunk);
    }
}

/* They are rows, but for those that say of no bytes where they are. */
static void what_lost_comes_back_with_its_place(void **state)
{
    struct object *row = row_of(1), *got;
    struct chunk chunk;

    (void)state;
    row->place = (struct place){.volume = 7, .offset = 4096, .lsn = 5000};
    row->record_bytes = 300;
    chunk_begin(&chunk, SNAPSHOT_LOSERS);
    assert_int_equal(snapshot_add_loser(&chunk.writer, row), 0);
    chunk_end(&chunk);
    assert_int_equal(snapshot_next_loser(&chunk.reader, &got), 1);
    assert_int_equal(object_bytes(got), object_bytes(row));
    assert_memory_equal(got, row, object_bytes(row));
    object_destroy(&got);
    assert_int_equal(snapshot_next_loser(&chunk.reader, &got), 0);
    chunk_release(&chunk);
    for (int i = 0; i < 2; i++) {
        row->place.volume = i ? 7 : 0;
        row->flags = i ? OBJECT_DELETED : OBJECT_PUT;
        chunk_begin(&chunk, SNAPSHOT_ROWS);
        assert_int_equal(snapshot_add_row(&chunk.writer, row), 0);
        chunk.writer.kind = SNAPSHOT_LOSERS;
        chunk_end(&chunk);
        assert_int_equal(snapshot_next_loser(&chunk.reader, &got), ERR_INVALID);
        assert_null(got);
        chunk_release(&chunk);
    }
    object_destroy(&row);
}

static void garbage_comes_back_within_its_limits(void **state)
{
    struct snapshot_garbage got;
    struct chunk chunk;

    (void)state;
    for (unsigned above = 0; above < 3; above++) {
        struct snapshot_garbage want = {.freed_at = LSN_LIMIT - 1 + (above == 1),
                                        .file = LARGEST + (above == 2)};

        chunk_begin(&chunk, SNAPSHOT_GARBAGE);
        assert_int_equal(snapshot_add_garbage(&chunk.writer, &want), 0);
        chunk_end(&chunk);
        assert_int_equal(snapshot_next_garbage(&chunk.reader, &got), above ? ERR_INVALID : 1);
        if (!above) {
            assert_int_equal(got.freed_at, LSN_LIMIT - 1);
            assert_int_equal(got.file, LARGEST);
            assert_int_equal(snapshot_next_garbage(&chunk.reader, &got), 0);
        }
        chunk_release(&chunk);
    }
}

static void copies_come_back_within_their_limits(void **state)
{
    (void)state;
    for (unsigned above = 0; above < 2; above++) {
        struct snapshot_holder got, want = {.id = {{6}},
                                            .node = {{7}},
                                            .sha256 = {8, [31] = 9},
                                            .held = above == 0,
                                            .at = {HLC_LIMIT - 1 + above, {{10}}}};
        struct chunk chunk;

        chunk_begin(&chunk, SNAPSHOT_HOLDERS);
        assert_int_equal(snapshot_add_holder(&chunk.writer, &want), 0);
        chunk_end(&chunk);
        memset(&got, 0, sizeof got);
        assert_int_equal(snapshot_next_holder(&chunk.reader, &got), above ? ERR_INVALID : 1);
        if (!above) {
            assert_true(id_equal(&got.id, &want.id) && id_equal(&got.node, &want.node));
            assert_memory_equal(got.sha256, want.sha256, SHA256_BYTES);
            assert_true(got.held && got.at.stamp == want.at.stamp);
            assert_true(id_equal(&got.at.origin, &want.at.origin));
            assert_int_equal(snapshot_next_holder(&chunk.reader, &got), 0);
        }
        chunk_release(&chunk);
    }
}

static void members_come_back_within_their_limits(void **state)
{
    char address[LIMIT_WIRE_ADDR_BYTES + 1];

    (void)state;
    memset(address, 'a', sizeof address);
    for (unsigned wrong = 0; wrong < 4; wrong++) {
        struct snapshot_member got, want = {.node = {{6}},
                                            .state = MEMBER_FORGOTTEN,
                                            .at = {5, {{10}}},
                                            .address = {address, LIMIT_WIRE_ADDR_BYTES}};
        struct chunk chunk;

        want.address.len += wrong == 1;
        if (wrong > 1)
            want.state = wrong == 2 ? (enum member_state)0 : (enum member_state)4;
        chunk_begin(&chunk, SNAPSHOT_MEMBERS);
        assert_int_equal(snapshot_add_member(&chunk.writer, &want), 0);
        chunk_end(&chunk);
        assert_int_equal(snapshot_next_member(&chunk.reader, &got), wrong ? ERR_INVALID : 1);
        if (!wrong) {
            assert_true(id_equal(&got.node, &want.node) && got.state == want.state);
            assert_true(got.at.stamp == 5 && id_equal(&got.at.origin, &want.at.origin));
            assert_int_equal(got.address.len, LIMIT_WIRE_ADDR_BYTES);
            assert_int_equal(snapshot_next_member(&chunk.reader, &got), 0);
        }
        chunk_release(&chunk);
    }
}

static void an_end_comes_back_within_its_limits(void **state)
{
    struct snapshot_end got;
    struct chunk chunk;

    (void)state;
    for (unsigned above = 0; above < 4; above++) {
        struct snapshot_end want = {.position = LSN_LIMIT - 1 + (above == 1),
                                    .previous = LSN_LIMIT - 2 + 2 * (above == 2),
                                    .chunks = (1u << 26) + (above == 3)};

        memset(want.hash, 0x33, sizeof want.hash);
        chunk_begin(&chunk, SNAPSHOT_END);
        assert_int_equal(snapshot_add_end(&chunk.writer, &want), 0);
        chunk_end(&chunk);
        assert_int_equal(snapshot_next_end(&chunk.reader, &got), above ? ERR_INVALID : 1);
        if (!above) {
            assert_int_equal(got.position, want.position);
            assert_int_equal(got.previous, want.previous);
            assert_int_equal(got.chunks, want.chunks);
            assert_memory_equal(got.hash, want.hash, sizeof got.hash);
            assert_int_equal(snapshot_next_end(&chunk.reader, &got), 0);
        }
        chunk_release(&chunk);
    }
}

/* ---- What is refused ---- */

#define ID                                                                                         \
    "\xc4\x10"                                                                                     \
    "0123456789abcdef"

#define OPEN(reader, bytes) snapshot_open(reader, bytes, sizeof(bytes) - 1)

static void heads_that_are_none_are_refused(void **state)
{
    struct snapshot_reader reader;

    (void)state;
    assert_int_equal(OPEN(&reader, "\x95\x01" ID "\x00\x02\x90"), 0);
    assert_int_equal(OPEN(&reader, "\x01"), ERR_INVALID);
    assert_int_equal(OPEN(&reader, "\x95\x00" ID "\x00\x02\x90"), ERR_INVALID);
    assert_int_equal(OPEN(&reader, "\x94\x01" ID "\x00\x02"), ERR_INVALID);
    assert_int_equal(OPEN(&reader, "\x94\x02" ID "\x00\x02"), ERR_INVALID);
    assert_int_equal(reader.version, 1);
    assert_int_equal(OPEN(&reader, "\x95\x02" ID "\x00\x02\x90"), 0);
    assert_int_equal(reader.version, 2);
    assert_int_equal(OPEN(&reader, "\x95\x03" ID "\x00\x02\x90"), ERR_FORMAT);
    assert_int_equal(OPEN(&reader, "\x95\xcf\xff\xff\xff\xff\xff\xff\xff\xff" ID "\x00\x02\x90"),
                     ERR_FORMAT);
    assert_int_equal(OPEN(&reader, "\x96\x01" ID "\x00\x02\x90\x00"), ERR_FORMAT);
    assert_int_equal(OPEN(&reader, "\x95\x01\xc4\x0f"
                                   "0123456789abcde"
                                   "\x00\x02\x90"),
                     ERR_INVALID);
    assert_int_equal(OPEN(&reader, "\x95\x01" ID "\xce\x03\xff\xff\xff\x02\x90"), 0);
    assert_int_equal(OPEN(&reader, "\x95\x01" ID "\xce\x04\x00\x00\x00\x02\x90"), ERR_INVALID);
    assert_int_equal(OPEN(&reader, "\x95\x01" ID "\x00\xce\xff\xff\xff\xff\x90"), 0);
    assert_int_equal(OPEN(&reader, "\x95\x01" ID "\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x02\x90"),
                     ERR_INVALID);
    assert_int_equal(OPEN(&reader, "\x95\x01" ID "\x00\x02"), ERR_INVALID);
    assert_int_equal(OPEN(&reader, "\x95\x01" ID "\x00\x02\x91"), ERR_INVALID); /* of nothing */
}

/* A row of a chunk as its bytes say it. */
static int row_rc(const char *bytes, size_t len)
{
    struct snapshot_reader reader;
    struct object *row;

    assert_int_equal(snapshot_open(&reader, bytes, len), 0);
    int rc = snapshot_next_row(&reader, &row);
    assert_true((rc == 1) == (row != NULL));
    if (rc == 1) {
        object_destroy(&row);
        rc = snapshot_next_row(&reader, &row);
        assert_null(row);
    }
    return rc;
}

#define ROW_RC(item)                                                                               \
    row_rc("\x95\x01" ID "\x00\x02\x91" item, sizeof("\x95\x01" ID "\x00\x02\x91" item) - 1)

static void rows_that_are_none_are_refused(void **state)
{
    (void)state;
    assert_int_equal(ROW_RC("\x93" ID "\x00\x00"), 0);
    assert_int_equal(ROW_RC("\x93" ID "\x00\x00\x00"), ERR_INVALID); /* something follows */
    assert_int_equal(ROW_RC("\x94" ID "\x00\x00\x00"), ERR_INVALID); /* one more than it has */
    assert_int_equal(ROW_RC("\x92" ID "\x00"), ERR_INVALID);         /* too few */
    assert_int_equal(ROW_RC("\x92" ID "\x00\x00"), ERR_INVALID);     /* fewer than follow */
    assert_int_equal(ROW_RC("\x94" ID "\x01\x00\x07"), 0);           /* a level */
    assert_int_equal(ROW_RC("\x94" ID "\x01\x00\xcd\x01\x00"), ERR_INVALID); /* … of 256 */
    assert_int_equal(ROW_RC("\x93" ID "\x01\x00"), ERR_INVALID); /* … that is not there */
    assert_int_equal(ROW_RC("\x94" ID "\xcd\x40\x00\x00\x00"), ERR_FORMAT); /* an unknown bit */
    assert_int_equal(ROW_RC("\x93" ID "\xcf\x00\x00\x00\x01\x00\x00\x00\x00\x00"), ERR_INVALID);
    assert_int_equal(ROW_RC("\x93" ID "\x00\xce\xff\xff\xff\xff"), 0);
    assert_int_equal(ROW_RC("\x93" ID "\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00"), ERR_INVALID);
    assert_int_equal(ROW_RC("\x98" ID "\xcd\x01\x00\x00\x00\x01\x02\x03\x04"), 0); /* a place */
    assert_int_equal(ROW_RC("\x98" ID "\xcd\x01\x00\x00\x00\x00\x02\x03\x04"), ERR_INVALID);
    /* An LSN, a stamp at its limit. */
    assert_int_equal(ROW_RC("\x98" ID "\xcd\x01\x00\x00\x00\x01\x02"
                            "\xcf\x40\x00\x00\x00\x00\x00\x00\x00\x04"),
                     ERR_INVALID);
    assert_int_equal(ROW_RC("\x98" ID "\xcd\x01\x00\x00\x00\x01"
                            "\xcf\x80\x00\x00\x00\x00\x00\x00\x00\x03\x04"),
                     ERR_INVALID);
    assert_int_equal(ROW_RC("\x94" ID "\xcc\x80\x00\xcf\x80\x00\x00\x00\x00\x00\x00\x00"),
                     ERR_INVALID);
    assert_int_equal(ROW_RC("\x95" ID "\x04\x00\xcf\x80\x00\x00\x00\x00\x00\x00\x00" ID),
                     ERR_INVALID);
    assert_int_equal(ROW_RC("\xc0"), ERR_INVALID);
}

/* One byte more than each text may have. */
static void texts_over_their_limits_are_refused(void **state)
{
    static const unsigned over[3][3] = {{LIMIT_NAME_BYTES + 1, 0, 0},
                                        {0, LIMIT_CONTENT_TYPE_BYTES + 1, 0},
                                        {0, 0, LIMIT_USER_META_BYTES + 1}};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct object *row = with_texts(NULL, over[i][0], over[i][1], over[i][2], 0), *got;
        struct chunk chunk;

        chunk_begin(&chunk, SNAPSHOT_ROWS);
        assert_int_equal(snapshot_add_row(&chunk.writer, row), 0);
        chunk_end(&chunk);
        assert_int_equal(snapshot_next_row(&chunk.reader, &got), ERR_INVALID);
        assert_null(got);
        object_destroy(&row);
        chunk_release(&chunk);
    }
    char bytes[64 + LIMIT_CLOUD_PLACE_BYTES + 1];
    static const char head[] = "\x95\x01" ID "\x00\x02\x91\x94" ID "\xcd\x10\x00\x00\xda";
    size_t at = sizeof head - 1;

    memcpy(bytes, head, at);
    for (unsigned above = 0; above < 2; above++) {
        unsigned len = LIMIT_CLOUD_PLACE_BYTES + above;

        bytes[at] = (char)(len >> 8);
        bytes[at + 1] = (char)len;
        memset(bytes + at + 2, 'c', len);
        assert_int_equal(row_rc(bytes, at + 2 + len), above ? ERR_INVALID : 0);
    }
}

/* Cut anywhere it is not whole; flipped anywhere it is refused or read, and nothing else happens.
 */
static void a_cut_or_flipped_chunk_is_never_taken_for_another(void **state)
{
    enum { COUNT = 100 };
    struct chunk chunk;
    struct object *got;

    (void)state;
    chunk_begin(&chunk, SNAPSHOT_ROWS);
    for (unsigned n = 0; n < COUNT; n++) {
        struct object *row = row_of(n);

        assert_int_equal(snapshot_add_row(&chunk.writer, row), 0);
        object_destroy(&row);
    }
    chunk_end(&chunk);
    for (size_t at = 0; at < chunk.bytes.len; at++) {
        int rc = snapshot_open(&chunk.reader, chunk.bytes.data, at);

        while (rc == 0 && (rc = snapshot_next_row(&chunk.reader, &got)) == 1) {
            object_destroy(&got);
            rc = 0;
        }
        assert_int_equal(rc, ERR_INVALID);

        chunk.bytes.data[at] ^= 0x41;
        rc = snapshot_open(&chunk.reader, chunk.bytes.data, chunk.bytes.len);
        if (rc == 0 && chunk.reader.kind == SNAPSHOT_ROWS) {
            unsigned read = 0;

            while ((rc = snapshot_next_row(&chunk.reader, &got)) == 1) {
                object_destroy(&got);
                assert_true(++read <= chunk.bytes.len);
            }
        }
        assert_true(rc <= 0);
        chunk.bytes.data[at] ^= 0x41;
    }
    chunk_release(&chunk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_set_of_members_comes_back),
        cmocka_unit_test(half_a_member_comes_back),
        cmocka_unit_test(a_full_chunk_holds_what_was_added),
        cmocka_unit_test(the_head_fits_however_full_the_chunk),
        cmocka_unit_test(the_bytes_are_those_of_the_format),
        cmocka_unit_test(a_full_row_is_as_the_format_says),
        cmocka_unit_test(a_beginning_comes_back_within_its_limits),
        cmocka_unit_test(a_vector_comes_back_within_its_limits),
        cmocka_unit_test(what_is_owed_comes_back_within_its_limits),
        cmocka_unit_test(what_lost_comes_back_with_its_place),
        cmocka_unit_test(garbage_comes_back_within_its_limits),
        cmocka_unit_test(copies_come_back_within_their_limits),
        cmocka_unit_test(members_come_back_within_their_limits),
        cmocka_unit_test(an_end_comes_back_within_its_limits),
        cmocka_unit_test(heads_that_are_none_are_refused),
        cmocka_unit_test(rows_that_are_none_are_refused),
        cmocka_unit_test(texts_over_their_limits_are_refused),
        cmocka_unit_test(a_cut_or_flipped_chunk_is_never_taken_for_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
