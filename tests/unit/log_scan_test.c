/* Goal: walking along a segment finds every whole batch and record wherever it stands, names what
 * is none, never takes zeros, rot or what cannot be read for something else, and reads no more than
 * it has to. */
#include "storage/log_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/unit/fault_io.h"

#define BASE    ((lsn_t)5 * MIB)
#define SALT    UINT64_C(0x1234567887654321)
#define START   SEGMENT_HEADER_BYTES
#define BATCHES 16

/* A segment in the making: what is written, and where its batches are. */
struct bench {
    struct fault_io fault;
    int fd;
    uint8_t *bytes;
    uint64_t end, size; /* of what was added; of the file */
    uint64_t previous;
    unsigned count;
    uint64_t from[BATCHES], to[BATCHES];
    uint32_t records[BATCHES];
    struct scan scan;
};

enum { SPACE = 24 * MIB };

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);

    if (!b)
        return -1;
    fault_io_init(&b->fault);
    b->fd = memfd_create("segment", 0);
    b->bytes = calloc(1, SPACE);
    b->end = START;
    *state = b;
    return b->fd >= 0 && b->bytes ? 0 : -1;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    scan_release(&b->scan);
    close(b->fd);
    free(b->bytes);
    free(b);
    return 0;
}

/* Add a batch of COUNT records with bodies of BODY bytes, whose events are their numbers. */
static void add_batch(struct bench *b, uint32_t count, uint32_t body)
{
    static uint64_t checks[LIMIT_BATCH_RECORDS];
    struct batch_header header = {
        .records = count, .lsn = BASE + b->end, .previous = b->previous, .synced_through = BASE};
    uint64_t at = b->end + BATCH_HEADER_BYTES;

    for (uint32_t n = 0; n < count; n++) {
        struct record_header record = {.type = RECORD_EVENT,
                                       .flags = RECORD_HAS_BODY,
                                       .blocks = (uint16_t)block_count(body),
                                       .event_bytes = sizeof n,
                                       .body_bytes = body,
                                       .size = body,
                                       .id = {{9}}};
        uint64_t sums[LIMIT_INLINE_BLOCKS] = {1, 2, 3, 4};
        uint64_t length = record_bytes(&record), padded = (body + 7) / 8 * 8;

        assert_true(at + length < SPACE);
        record_encode(b->bytes + at, &record, SALT, BASE + at, sums, &n);
        memset(b->bytes + at + length - padded, 0x77, body);
        checks[n] = record.check;
        at += length;
    }
    header.length_bytes = at - b->end;
    batch_header_encode(b->bytes + b->end, &header, SALT, checks);
    b->previous = header.checksum;
    b->from[b->count] = b->end;
    b->records[b->count] = count;
    b->end = (at + BATCH_ALIGN - 1) / BATCH_ALIGN * BATCH_ALIGN;
    b->to[b->count++] = b->end;
}

/* Put what there is into a file of SIZE bytes, and begin to walk along it from OFFSET. */
static void begin(struct bench *b, uint64_t size, uint64_t offset)
{
    assert_int_equal(ftruncate(b->fd, 0), 0);
    assert_int_equal(pwrite(b->fd, b->bytes, size, 0), size);
    b->size = size;
    scan_release(&b->scan);
    b->fault.bytes_read = 0;
    assert_int_equal(scan_init(&b->scan, &b->fault.io, b->fd, size, BASE, SALT, offset), 0);
}

static struct scan_item next(struct bench *b)
{
    struct scan_item item;

    memset(&item, 0xff, sizeof item);
    assert_int_equal(scan_next(&b->scan, &item), 0);
    return item;
}

static void expect(struct bench *b, enum scan_kind kind, uint64_t from, uint64_t to)
{
    struct scan_item item = next(b);

    assert_int_equal(item.kind, kind);
    assert_int_equal(item.from, from);
    assert_int_equal(item.to, to);
}

/* Batch I is next, with all of its records but those that are ROTTEN (a bit each). */
static void expect_batch(struct bench *b, unsigned i, unsigned rotten)
{
    struct scan_item item = next(b);
    uint64_t at = item.from + BATCH_HEADER_BYTES;
    struct record_view view;
    uint32_t n = 0;
    int rc;

    assert_int_equal(item.kind, SCAN_BATCH);
    assert_int_equal(item.from, b->from[i]);
    assert_int_equal(item.to, b->to[i]);
    assert_int_equal(item.header.records, b->records[i]);
    assert_int_equal(item.header.lsn, BASE + b->from[i]);
    assert_false(item.chain_broken);
    for (; scan_record(&b->scan, &item, &at, &view, &rc); n++) {
        bool bad = n < 32 && rotten >> n & 1;
        uint32_t number;

        assert_int_equal(rc, bad ? ERR_CORRUPT : 0);
        if (bad)
            continue;
        memcpy(&number, view.event, sizeof number);
        assert_int_equal(number, n);
        assert_int_equal(view.lsn + record_bytes(&view.header), BASE + at);
        assert_non_null(view.body);
        for (uint32_t k = 0; k < view.header.body_bytes; k += 997)
            assert_int_equal(view.body[k], 0x77);
    }
    assert_int_equal(n, b->records[i]);
    assert_int_equal(at, item.from + item.header.length_bytes);
}

static void a_walk_names_every_batch_and_the_end(void **state)
{
    struct bench *b = *state;

    add_batch(b, 3, 100);
    add_batch(b, 0, 0);
    add_batch(b, 1, 0);
    add_batch(b, 2, 200000); /* larger than a window's first step */
    add_batch(b, 30, 250000);
    add_batch(b, 1, 5);
    for (unsigned zeros = 0; zeros < 3; zeros++) {
        begin(b, b->end + (zeros ? zeros * 100000 + 7 : 0), START);
        for (unsigned i = 0; i < b->count; i++)
            expect_batch(b, i, 0);
        expect(b, SCAN_TAIL, b->end, b->end);
        expect(b, SCAN_TAIL, b->size, b->size);
        assert_int_equal(b->scan.window.unreadable, UINT64_MAX);
        assert_in_range(b->fault.bytes_read, 1, b->size); /* nothing twice */
    }
    begin(b, b->to[2], b->from[1]);
    expect_batch(b, 1, 0);
    expect_batch(b, 2, 0);
    expect(b, SCAN_TAIL, b->to[2], b->to[2]);
    begin(b, START, START + 8192); /* a file that ends before it should */
    expect(b, SCAN_TAIL, START + 8192, START + 8192);
}

static void a_batch_of_as_many_records_as_there_may_be(void **state)
{
    struct bench *b = *state;

    add_batch(b, LIMIT_BATCH_RECORDS, 0);
    add_batch(b, 1, 0);
    begin(b, b->end, START);
    expect_batch(b, 0, 0);
    expect_batch(b, 1, 0);
    expect(b, SCAN_TAIL, b->end, b->end);
}

static void a_chain_is_told_from_a_broken_one(void **state)
{
    struct bench *b = *state;

    add_batch(b, 1, 1);
    add_batch(b, 1, 2);
    b->previous++; /* another one stood there */
    add_batch(b, 1, 3);
    b->previous = 0; /* a writer that began anew */
    add_batch(b, 1, 4);
    begin(b, b->end, START);
    for (unsigned i = 0; i < 4; i++) {
        struct scan_item item = next(b);

        assert_int_equal(item.kind, SCAN_BATCH);
        assert_int_equal(item.chain_broken, i == 2);
    }
    /* What comes after damage, or first, has nothing to be compared with. */
    b->bytes[b->from[1]] ^= 1;
    begin(b, b->end, START);
    assert_int_equal(next(b).kind, SCAN_BATCH);
    assert_int_equal(next(b).kind, SCAN_DAMAGE);
    assert_false(next(b).chain_broken);
    begin(b, b->end, b->from[2]);
    assert_false(next(b).chain_broken);
}

static void damage_lies_between_batches_and_the_tail_behind(void **state)
{
    struct bench *b = *state;

    add_batch(b, 3, 3000);
    uint64_t hole = b->end;
    memset(b->bytes + hole, 0xaa, 700);
    b->end += 100352; /* the rest is zeros; the batch behind is out of the first window */
    add_batch(b, 2, 10);
    uint64_t tail = b->end;
    memset(b->bytes + tail + 600, 1, 1);
    begin(b, tail + 5000, START);
    expect_batch(b, 0, 0);
    struct scan_item item = next(b);
    assert_int_equal(item.kind, SCAN_DAMAGE);
    assert_int_equal(item.from, hole);
    assert_int_equal(item.to, b->from[1]);
    assert_int_equal(item.header.records, 0);
    assert_int_equal(item.header.length_bytes, 0);
    expect_batch(b, 1, 0);
    expect(b, SCAN_TAIL, tail, tail + 1024); /* with the sector that is not zero */
    /* A file that ends inside a sector, and inside a batch's header. */
    begin(b, tail + 601, b->from[1]);
    expect_batch(b, 1, 0);
    expect(b, SCAN_TAIL, tail, tail + 601);
    for (unsigned cut = 1; cut < BATCH_HEADER_BYTES; cut++) {
        begin(b, b->from[1] + cut, START);
        expect_batch(b, 0, 0);
        expect(b, SCAN_TAIL, hole, b->from[1] + cut);
        begin(b, b->from[1] + cut, b->from[1]);
        item = next(b);
        assert_int_equal(item.kind, SCAN_TAIL);
        assert_int_equal(item.header.records, 0);
    }
}

/* Where a batch stood its claim is known, though it does not count. */
static void a_rotten_batch_says_what_it_claims_to_be(void **state)
{
    struct bench *b = *state;

    add_batch(b, 3, 300);
    add_batch(b, 1, 10);
    uint8_t *first = b->bytes + b->from[0] + BATCH_HEADER_BYTES;
    first[record_bytes(&(struct record_header){.event_bytes = 4, .body_bytes = 300, .blocks = 1}) +
          8] ^= 1; /* the head of its second record */
    begin(b, b->end, START);
    struct scan_item item = next(b);
    assert_int_equal(item.kind, SCAN_DAMAGE);
    assert_int_equal(item.to, b->from[1]);
    assert_int_equal(item.header.records, 3);
    assert_int_equal(item.header.lsn, BASE + START);
    expect_batch(b, 1, 0);
    /* Cut short, it claims what cannot be. */
    begin(b, b->to[0] - 512, START);
    item = next(b);
    assert_int_equal(item.kind, SCAN_TAIL);
    assert_int_equal(item.to, b->to[0] - 512);
    assert_int_equal(item.header.records, 0);
}

static void any_flip_in_what_makes_a_batch_is_noticed(void **state)
{
    struct bench *b = *state;

    add_batch(b, 2, 0);
    add_batch(b, 0, 0);
    uint64_t heads = b->from[0] + BATCH_HEADER_BYTES + RECORD_HEADER_BYTES;
    for (uint64_t at = START; at < heads; at++) {
        b->bytes[at] ^= 0x10;
        begin(b, b->end, START);
        expect(b, SCAN_DAMAGE, START, b->from[1]);
        expect_batch(b, 1, 0);
        b->bytes[at] ^= 0x10;
    }
    b->bytes[heads] ^= 1; /* an event: that record alone */
    begin(b, b->end, START);
    expect_batch(b, 0, 1);
}

static void an_empty_batch_is_its_header_alone(void **state)
{
    struct bench *b = *state;
    struct batch_header header = {.lsn = BASE + START, .length_bytes = BATCH_HEADER_BYTES + 8};

    batch_header_encode(b->bytes + START, &header, SALT, NULL);
    b->end = START + 512;
    add_batch(b, 0, 0);
    begin(b, b->end, START);
    expect(b, SCAN_DAMAGE, START, START + 512);
    expect_batch(b, 0, 0);
}

static void trusted_zeros_end_the_segment_only_where_they_may(void **state)
{
    struct bench *b = *state;

    add_batch(b, 1, 10);
    uint64_t hole = b->end;
    b->end += 4096;
    add_batch(b, 1, 10);
    for (unsigned i = 0; i < 5; i++) {
        begin(b, b->end, START);
        b->scan.trust_zeros = i > 0;
        b->scan.durable = i == 1 ? BASE + hole : i == 2 ? BASE + hole + 1 : 0;
        expect_batch(b, 0, 0);
        if (i == 1 || i == 3) {
            expect(b, SCAN_TAIL, hole, hole);
        } else {
            /* One byte is enough, at the sector's end as well as behind its first. */
            expect(b, SCAN_DAMAGE, hole, b->from[1]);
            expect_batch(b, 1, 0);
        }
        b->bytes[hole + 511] = i == 3;
    }
    /* The file's last, short sector. */
    b->bytes[hole + 511] = 0;
    begin(b, hole + 100, START);
    b->scan.trust_zeros = true;
    expect_batch(b, 0, 0);
    expect(b, SCAN_TAIL, hole, hole);
    b->bytes[hole + 99] = 1;
    begin(b, hole + 100, START);
    b->scan.trust_zeros = true;
    expect_batch(b, 0, 0);
    expect(b, SCAN_TAIL, hole, hole + 100);
}

/* A body may hold a batch's header made on purpose; it must not make us read all it claims. */
static void what_a_forged_header_claims_is_not_read(void **state)
{
    struct bench *b = *state;

    for (uint64_t at = START; at < START + 512 * 512; at += 512) {
        struct batch_header header = {
            .records = 1, .lsn = BASE + at, .length_bytes = LIMIT_BATCH_BYTES};
        uint64_t check = 0;

        batch_header_encode(b->bytes + at, &header, SALT, &check);
    }
    begin(b, START + LIMIT_BATCH_BYTES + 2 * MIB, START);
    expect(b, SCAN_TAIL, START, START + 512 * 512);
    assert_in_range(b->fault.bytes_read, 1, 2 * b->size);
}

/* ---- What the disk does not give ---- */

static void what_cannot_be_read_is_damage_and_is_remembered(void **state)
{
    struct bench *b = *state;

    add_batch(b, 1, 20000);
    add_batch(b, 1, 20000);
    add_batch(b, 1, 20000);
    for (uint64_t needed = 0; needed < 2; needed++) {
        uint64_t page = b->from[1] / 4096 * 4096 + 4096;

        begin(b, b->end, START);
        b->scan.window.needed = needed ? page + 4096 : 0;
        b->fault.bad_from = page + 100;
        b->fault.bad_to = page + 101;
        expect_batch(b, 0, 0);
        /* The page is 0xff: the body is rotten there, which the walk does not look at. */
        struct scan_item item = next(b);
        assert_int_equal(item.kind, SCAN_BATCH);
        expect_batch(b, 2, 0);
        assert_int_equal(b->scan.window.unreadable, needed ? UINT64_MAX : page);

        page = b->from[1] / 4096 * 4096;
        begin(b, b->end, START);
        b->scan.window.needed = needed ? page + 4095 : 0;
        b->fault.bad_from = b->from[1];
        b->fault.bad_to = b->from[1] + 1;
        (void)next(b);
        expect(b, SCAN_DAMAGE, b->from[1], b->from[2]);
        expect_batch(b, 2, 0);
        assert_int_equal(b->scan.window.unreadable, page < START ? START : page);
    }
    /* The lowest of several. */
    begin(b, b->end, START);
    b->fault.bad_from = b->from[1] + 4096;
    b->fault.bad_to = b->end;
    while (next(b).kind != SCAN_TAIL)
        continue;
    assert_in_range(b->scan.window.unreadable, b->from[1], b->from[1] + 4096);
}

static _Atomic int failures_left;

static void fail_a_few(void *arg)
{
    struct bench *b = arg;

    b->fault.bad_to = atomic_fetch_sub(&failures_left, 1) > 0 ? UINT64_MAX : 0;
}

static void a_read_that_fails_now_and_then_costs_nothing(void **state)
{
    struct bench *b = *state;

    add_batch(b, 3, 1000);
    begin(b, b->end, START);
    b->fault.before_read = fail_a_few;
    b->fault.arg = b;
    failures_left = 3; /* the read, and its first piece twice */
    expect_batch(b, 0, 0);
    assert_int_equal(b->scan.window.unreadable, UINT64_MAX);
}

/* ---- Seeking ---- */

static void seeking_finds_the_batch_that_holds_an_offset(void **state)
{
    struct bench *b = *state;

    add_batch(b, 1, 10);
    add_batch(b, 3, 250000); /* more than the first reach */
    add_batch(b, 1, 10);
    add_batch(b, 31, 255000); /* nearly the largest */
    add_batch(b, 0, 0);
    add_batch(b, 1, 3000);
    for (unsigned i = 0; i < b->count; i++) {
        const uint64_t inside[] = {b->from[i], b->from[i] + 1, (b->from[i] + b->to[i]) / 2,
                                   b->to[i] - 1};

        for (unsigned k = 0; k < 4; k++) {
            begin(b, b->end, START);
            assert_int_equal(scan_seek(&b->scan, inside[k]), 0);
            assert_int_equal(b->scan.offset, b->from[i]);
            expect_batch(b, i, 0);
        }
    }
    assert_in_range(b->fault.bytes_read, 1, 256 * KIB); /* the last is small */
    begin(b, b->end, START);
    assert_int_equal(scan_seek(&b->scan, b->end), 0);
    expect_batch(b, b->count - 1, 0);
    assert_int_equal(scan_seek(&b->scan, 0), 0);
    expect_batch(b, 0, 0);
    assert_int_equal(scan_seek(&b->scan, UINT64_MAX / 2), 0);
    expect_batch(b, b->count - 1, 0);
}

static void seeking_where_nothing_is_stays_there(void **state)
{
    struct bench *b = *state;

    begin(b, START + 3 * MIB, START);
    assert_int_equal(scan_seek(&b->scan, START + 2 * MIB + 100), 0);
    assert_int_equal(b->scan.offset, START + 2 * MIB);
    expect(b, SCAN_TAIL, START + 2 * MIB, START + 2 * MIB);
    begin(b, START, START);
    assert_int_equal(scan_seek(&b->scan, START), 0);
    assert_int_equal(b->scan.offset, START);
}

/* ---- Salvage ---- */

static void whole_records_are_found_in_damage(void **state)
{
    struct bench *b = *state;
    struct record_view view;
    uint32_t number;

    add_batch(b, 5, 3000);
    add_batch(b, 1, 10);
    uint64_t at = b->from[0] + BATCH_HEADER_BYTES, to = b->to[0];
    uint64_t length =
        record_bytes(&(struct record_header){.event_bytes = 4, .body_bytes = 3000, .blocks = 1});
    b->bytes[START] ^= 1;                                     /* no batch */
    b->bytes[at + length] ^= 1;                               /* the second's head */
    b->bytes[at + 2 * length + RECORD_HEADER_BYTES + 8] ^= 1; /* the third's event */
    memmove(b->bytes + at + 4 * length - 8, b->bytes + at + 4 * length, length); /* not its place */
    begin(b, b->end, START);
    expect(b, SCAN_DAMAGE, START, to);
    uint64_t from = START;
    for (uint32_t want = 0; want < 4; want += 3) {
        assert_int_equal(scan_salvage(&b->scan, &from, to, &view), 1);
        memcpy(&number, view.event, sizeof number);
        assert_int_equal(number, want);
        assert_int_equal(view.lsn, BASE + at + want * length);
        assert_int_equal(from, at + (want + 1) * length);
    }
    assert_int_equal(scan_salvage(&b->scan, &from, to, &view), 0);
    expect_batch(b, 1, 0);

    /* One that ends where the damage does, one that does not; and beyond the file. */
    from = at;
    assert_int_equal(scan_salvage(&b->scan, &from, at + length, &view), 1);
    assert_int_equal(from, at + length);
    from = at;
    assert_int_equal(scan_salvage(&b->scan, &from, at + length - 8, &view), 0);
    begin(b, at + length, START);
    from = at;
    assert_int_equal(scan_salvage(&b->scan, &from, to, &view), 1);
    assert_int_equal(scan_salvage(&b->scan, &from, to, &view), 0);
    from = 0;
    assert_int_equal(scan_salvage(&b->scan, &from, RECORD_HEADER_BYTES - 1, &view), 0);
    assert_int_equal(from, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_walk_names_every_batch_and_the_end),
        TEST(a_batch_of_as_many_records_as_there_may_be),
        TEST(a_chain_is_told_from_a_broken_one),
        TEST(damage_lies_between_batches_and_the_tail_behind),
        TEST(a_rotten_batch_says_what_it_claims_to_be),
        TEST(any_flip_in_what_makes_a_batch_is_noticed),
        TEST(an_empty_batch_is_its_header_alone),
        TEST(trusted_zeros_end_the_segment_only_where_they_may),
        TEST(what_a_forged_header_claims_is_not_read),
        TEST(what_cannot_be_read_is_damage_and_is_remembered),
        TEST(a_read_that_fails_now_and_then_costs_nothing),
        TEST(seeking_finds_the_batch_that_holds_an_offset),
        TEST(seeking_where_nothing_is_stays_there),
        TEST(whole_records_are_found_in_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
