/* Goal: going through a sealed segment hands over every whole record once, in order, wherever it
 * stops and goes on, and counts what is rotten to the byte, once. */
#include "storage/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/log_util.h"

enum { COUNT = 12, EACH = 3 };

static struct delivered d; /* too large for a stack */

/* A segment of COUNT records, EACH in a batch, sealed. ENDS: where each record ends. */
struct sealed {
    struct bench b;
    struct place places[COUNT];
    uint64_t ends[COUNT], end;
};

static int setup(void **state)
{
    struct sealed *s = calloc(1, sizeof *s);

    if (!s)
        return -1;
    bench_init(&s->b, 0);
    s->b.fault.skip_sync = true;
    assert_int_equal(bench_start(&s->b, NULL, 0, 0, 0, false, NULL), 0);
    for (uint32_t n = 0; n < COUNT; n += EACH)
        write_batch(s->b.log, n, n + EACH, s->places + n, true);
    s->end = log_end(s->b.log);
    for (uint32_t n = 0; n < COUNT; n++) {
        struct record_header header = {
            .event_bytes = event_len(n),
            .body_bytes = body_len(n),
            .blocks = (uint16_t)block_count(body_len(n)),
            .flags = RECORD_HAS_BODY,
        };
        s->ends[n] = s->places[n].offset + record_bytes(&header);
    }
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct sealed *s = *state;

    bench_release(&s->b);
    free(s);
    return 0;
}

static void seal(struct sealed *s)
{
    uint64_t from = 0, rotten = 0;

    assert_int_equal(log_scan(s->b.log, 1, &from, take_record, &d, &rotten), ERR_INVALID);
    assert_int_equal(log_scan(s->b.log, 7, &from, take_record, &d, &rotten), ERR_NOT_FOUND);
    assert_int_equal(log_rotate(s->b.log), 0);
    s->end = (s->end - s->places[0].lsn + s->places[0].offset + 511) / 512 * 512;
}

/* Go through it from FROM, stopping after every STOP - 1 records; the bytes that are rotten. */
static uint64_t go_through(struct sealed *s, uint64_t from, uint32_t stop, struct delivered *all)
{
    uint64_t rotten = 0;

    memset(all, 0, sizeof *all);
    for (unsigned round = 0; round <= COUNT; round++) {
        d = (struct delivered){.stop = stop, .bodies = true};
        uint64_t before = from;
        int rc = log_scan(s->b.log, 1, &from, take_record, &d, &rotten);

        assert_true(from >= before);
        for (uint32_t i = 0; i < d.count; i++) {
            all->places[all->count] = d.places[i];
            all->numbers[all->count++] = d.numbers[i];
        }
        if (rc == 0) {
            assert_in_range(from, s->ends[COUNT - 1], s->end);
            return rotten;
        }
        assert_int_equal(rc, ERR_NO_SPACE);
        assert_int_equal(d.count, stop - 1);
        uint32_t last = d.numbers[d.count - 1];
        assert_true(from >= s->ends[last]); /* past damage behind it, too */
        assert_true(from <= s->places[last + 2 < COUNT ? last + 2 : COUNT - 1].offset);
    }
    fail_msg("it does not end");
    return 0;
}

/* All but those whose bit is set in MISSING, from number FIRST on. */
static void expect(const struct sealed *s, const struct delivered *all, uint32_t first,
                   unsigned missing)
{
    uint32_t i = 0;

    for (uint32_t n = first; n < COUNT; n++) {
        if (missing >> n & 1)
            continue;
        assert_true(i < all->count);
        assert_int_equal(all->numbers[i], n);
        assert_true(place_equal(&all->places[i], &s->places[n]));
        assert_int_equal(all->places[i].lsn, s->places[n].lsn);
        i++;
    }
    assert_int_equal(all->count, i);
}

static struct delivered all;

static void everything_is_handed_over_from_anywhere(void **state)
{
    struct sealed *s = *state;
    uint64_t from, rotten = 0;

    seal(s);
    for (uint32_t stop = 0; stop < COUNT; stop += stop ? 1 : 2) {
        assert_int_equal(go_through(s, 0, stop, &all), 0);
        expect(s, &all, 0, 0);
    }
    for (uint32_t n = 0; n < COUNT; n++) {
        assert_int_equal(go_through(s, s->places[n].offset, 0, &all), 0);
        expect(s, &all, n, 0);
        assert_int_equal(go_through(s, s->places[n].offset + 1, 2, &all), 0);
        expect(s, &all, n + 1, 0);
    }
    from = s->end;
    d = (struct delivered){0};
    assert_int_equal(log_scan(s->b.log, 1, &from, take_record, &d, &rotten), 0);
    assert_int_equal(d.count, 0);
    assert_int_equal(from, s->end);
}

static void a_rotten_record_is_counted_to_the_byte(void **state)
{
    struct sealed *s = *state;

    seal(s);
    flip(&s->b, 1, s->places[7].offset + RECORD_HEADER_BYTES + 8 + 1); /* its event */
    uint64_t lost = s->ends[7] - s->places[7].offset;
    for (uint32_t stop = 0; stop < 8; stop += stop ? 1 : 2) {
        assert_int_equal(go_through(s, 0, stop, &all), lost);
        expect(s, &all, 0, 1u << 7);
    }
    assert_int_equal(go_through(s, s->places[7].offset, 0, &all), lost);
    assert_int_equal(go_through(s, s->places[7].offset + 8, 0, &all), lost - 8);
    expect(s, &all, 8, 0);
    assert_int_equal(go_through(s, s->ends[7], 0, &all), 0);
    expect(s, &all, 8, 0);
}

static void around_a_rotten_batch_header_every_record_is_found(void **state)
{
    struct sealed *s = *state;
    uint64_t header = s->places[3].offset - BATCH_HEADER_BYTES;

    seal(s);
    flip(&s->b, 1, header + 9);
    /* The header, and the padding behind its last record: what nobody can tell from more. */
    uint64_t padding = s->places[6].offset - BATCH_HEADER_BYTES - s->ends[5];
    uint64_t lost = BATCH_HEADER_BYTES + padding;
    for (uint32_t stop = 0; stop < 8; stop += stop ? 1 : 2) {
        assert_int_equal(go_through(s, 0, stop, &all), lost);
        expect(s, &all, 0, 0);
    }
    /* A record in it, too. */
    flip(&s->b, 1, s->places[4].offset + 3);
    lost += s->ends[4] - s->places[4].offset;
    for (uint32_t stop = 0; stop < 8; stop += stop ? 1 : 2) {
        assert_int_equal(go_through(s, 0, stop, &all), lost);
        expect(s, &all, 0, 1u << 4);
    }
    /* From inside it what was taken before is neither handed over nor counted again. */
    assert_int_equal(go_through(s, s->ends[3], 0, &all), lost - BATCH_HEADER_BYTES);
    expect(s, &all, 4, 1u << 4);
    assert_int_equal(go_through(s, s->ends[5], 0, &all), padding);
    expect(s, &all, 6, 0);
}

/* The last batch is damage without a batch behind it. */
static void the_end_is_no_exception(void **state)
{
    struct sealed *s = *state;
    uint64_t header = s->places[COUNT - EACH].offset - BATCH_HEADER_BYTES, rotten;

    seal(s);
    flip(&s->b, 1, header + 9);
    rotten = go_through(s, 0, 0, &all);
    expect(s, &all, 0, 0);
    assert_in_range(rotten, BATCH_HEADER_BYTES, BATCH_HEADER_BYTES + 511);
    flip(&s->b, 1, s->places[COUNT - 1].offset + 3);
    assert_in_range(go_through(s, 0, 2, &all) - rotten,
                    s->ends[COUNT - 1] - s->places[COUNT - 1].offset - 8,
                    s->ends[COUNT - 1] - s->places[COUNT - 1].offset);
    expect(s, &all, 0, 1u << (COUNT - 1));
}

/* What lies behind a sealed segment's end is none of ours. */
static void what_lies_behind_the_end_is_not_looked_at(void **state)
{
    struct sealed *s = *state;
    uint8_t noise[600];

    seal(s);
    memset(noise, 0x5c, sizeof noise);
    patch(&s->b, 1, s->end, noise, sizeof noise);
    assert_int_equal(go_through(s, 0, 0, &all), 0);
    expect(s, &all, 0, 0);
}

/* ---- What the disk refuses ---- */

static void what_cannot_be_read_is_not_passed_over(void **state)
{
    struct sealed *s = *state;
    uint64_t from, rotten, offset;
    uint32_t volume;

    seal(s);
    /* Heads of the first batch's records, and a head of the third's. */
    for (uint32_t n = 0; n < COUNT; n += 7) {
        from = rotten = 0;
        d = (struct delivered){0};
        s->b.fault.bad_from = s->places[n].offset;
        s->b.fault.bad_to = s->places[n].offset + 1;
        assert_false(n == 0 && log_unreadable(s->b.log, &volume, &offset));
        assert_int_equal(log_scan(s->b.log, 1, &from, take_record, &d, &rotten), ERR_IO);
        assert_int_equal(rotten, 0);
        assert_true(d.count <= n);
        assert_true(from <= s->places[n].offset);
        assert_true(log_unreadable(s->b.log, &volume, &offset));
        assert_int_equal(volume, 1);
        assert_in_range(offset, s->places[n].offset / 4096 * 4096, s->places[n].offset);
        /* Another day it goes on there. */
        s->b.fault.bad_to = 0;
        uint32_t had = d.count;
        assert_int_equal(go_through(s, from, 0, &all), 0);
        expect(s, &all, had, 0);
    }
    /* Damage that was read is counted all the same; what lies behind it and was not, is not. */
    flip(&s->b, 1, s->places[1].offset + RECORD_HEADER_BYTES + 8 + 1);
    assert_int_equal(go_through(s, 0, 0, &all), s->ends[1] - s->places[1].offset);
}

static int count_records(void *arg, const struct record_view *view, const struct place *place)
{
    (void)view;
    (void)place;
    ++*(uint32_t *)arg;
    return 0;
}

/* An event that was not read is not a rotten one, though its batch is whole. */
static void an_event_that_cannot_be_read_is_no_rot(void **state)
{
    static uint8_t event[20000];
    struct sealed *s = *state;
    struct log_record record = {.type = RECORD_EVENT, .event = event, .event_bytes = sizeof event};
    uint64_t from, rotten = 0;
    uint32_t count = 0;
    struct place place;

    assert_int_equal(log_begin(s->b.log, COUNT), 0);
    assert_int_equal(log_add(s->b.log, &record, &place), 0);
    assert_int_equal(log_write(s->b.log), 0);
    assert_int_equal(log_sync(s->b.log), 0);
    seal(s);
    from = place.offset - BATCH_HEADER_BYTES;
    s->b.fault.bad_from = place.offset + 10000;
    s->b.fault.bad_to = s->b.fault.bad_from + 1;
    assert_int_equal(log_scan(s->b.log, 1, &from, count_records, &count, &rotten), ERR_IO);
    assert_int_equal(count, 0);
    assert_int_equal(rotten, 0);
    assert_int_equal(from, place.offset - BATCH_HEADER_BYTES);
    s->b.fault.bad_to = 0;
    assert_int_equal(log_scan(s->b.log, 1, &from, count_records, &count, &rotten), 0);
    assert_int_equal(count, 1);
    assert_int_equal(rotten, 0);
}

/* Going on costs what is left, not what was done. */
static void it_goes_on_without_reading_what_it_passed(void **state)
{
    struct sealed *s = *state;
    uint64_t from = 0, rotten = 0, before;
    uint32_t count = 0;

    for (uint32_t n = COUNT; n < 300; n += EACH)
        write_batch(s->b.log, n, n + EACH, NULL, true);
    seal(s);
    assert_int_equal(log_scan(s->b.log, 1, &from, count_records, &count, &rotten), 0);
    assert_int_equal(count, 300);
    before = s->b.fault.bytes_read;
    from -= 1024;
    assert_int_equal(log_scan(s->b.log, 1, &from, count_records, &count, &rotten), 0);
    assert_in_range(s->b.fault.bytes_read - before, 1, 200 * KIB);
    assert_int_equal(rotten, 0);
    assert_true(from > 500 * KIB);
}

static void given_up_it_is_rot(void **state)
{
    struct sealed *s = *state;

    log_close(&s->b.log);
    s->b.config.skip_unreadable = true;
    assert_int_equal(bench_start(&s->b, NULL, 0, 0, 0, true, NULL), 0);
    seal(s);
    s->b.fault.bad_from = s->places[7].offset;
    s->b.fault.bad_to = s->places[7].offset + 1;
    uint64_t from = 0, rotten = 0;
    d = (struct delivered){0};
    assert_int_equal(log_scan(s->b.log, 1, &from, take_record, &d, &rotten), 0);
    assert_true(rotten >= s->ends[7] - s->places[7].offset);
    assert_true(rotten < s->places[COUNT - 1].offset - s->places[5].offset);
    assert_true(d.count >= 6 && d.count < COUNT && d.numbers[d.count - 1] == COUNT - 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(everything_is_handed_over_from_anywhere),
        TEST(a_rotten_record_is_counted_to_the_byte),
        TEST(around_a_rotten_batch_header_every_record_is_found),
        TEST(the_end_is_no_exception),
        TEST(what_lies_behind_the_end_is_not_looked_at),
        TEST(what_cannot_be_read_is_not_passed_over),
        TEST(an_event_that_cannot_be_read_is_no_rot),
        TEST(it_goes_on_without_reading_what_it_passed),
        TEST(given_up_it_is_rot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
