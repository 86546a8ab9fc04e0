/* Goal: after any stop the log delivers every acknowledged record that is still whole, in order,
 * and nothing that is wrong; a torn tail goes for good, rot is skipped and counted, and whatever
 * bytes the files hold, nothing crashes. A clean restart costs next to nothing. */
#include "storage/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/log_util.h"

static struct delivered d; /* too large for a stack */

static void start(struct bench *b, lsn_t from, lsn_t synced, bool clean)
{
    assert_int_equal(bench_start(b, NULL, 0, from, synced, clean, &d), 0);
}

struct copy {
    char from[96], to[96];
};

static int copy_file(void *arg, const char *name)
{
    const struct copy *copy = arg;
    char path[192], *data;
    size_t len;

    (void)snprintf(path, sizeof path, "%s/%s", copy->from, name);
    assert_int_equal(io_read_all(io_system(), path, 64 * MIB, &data, &len), 0);
    (void)snprintf(path, sizeof path, "%s/%s", copy->to, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
    free(data);
    return 0;
}

static int remove_file(void *arg, const char *name)
{
    char path[192];

    (void)snprintf(path, sizeof path, "%s/%s", ((const struct copy *)arg)->to, name);
    return unlink(path);
}

/* Copy the segments of B aside, or back, so that one log can be damaged in many ways. */
static void copy_log(const struct bench *b, bool back)
{
    struct copy copy;

    (void)snprintf(copy.from, sizeof copy.from, "%s/%s", b->dir, back ? "kept" : "log");
    (void)snprintf(copy.to, sizeof copy.to, "%s/%s", b->dir, back ? "log" : "kept");
    (void)mkdir(copy.to, 0700);
    assert_int_equal(io_system()->list(io_system(), copy.to, remove_file, &copy), 0);
    assert_int_equal(io_system()->list(io_system(), copy.from, copy_file, &copy), 0);
}

static void an_empty_log_has_no_end_and_can_be_written(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    assert_int_equal(d.count, 0);
    assert_int_equal(b.recovery.end, 0);
    assert_false(b.recovery.cut);
    struct place place = write_one(b.log, 1);
    assert_int_equal(place.volume, 1);
    bench_release(&b);
}

static void an_unclean_restart_delivers_all_seals_and_goes_on_in_a_new_segment(void **state)
{
    struct bench b;
    struct log_segment *segments;
    size_t count;

    (void)state;
    bench_init(&b, 256 * KIB);
    start(&b, 0, 0, false);
    for (uint32_t n = 0; n < 60; n += 3) {
        write_batch(b.log, n, n + 3, NULL, true);
        (void)log_prepare(b.log);
    }
    lsn_t end = log_end(b.log);
    log_close(&b.log);

    d.bodies = true;
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 60);
    assert_int_equal(b.recovery.records, 60);
    assert_int_equal(b.recovery.batches, 20);
    assert_int_equal(b.recovery.hlc, 57);
    assert_int_equal(b.recovery.rotten_bytes, 0);
    assert_false(b.recovery.cut);
    assert_int_equal(b.recovery.end, end);
    assert_int_equal(log_end(b.log), end);
    assert_int_equal(log_segments(b.log, &segments, &count), 0);
    for (size_t i = 0; i < count; i++)
        assert_true(segments[i].sealed);
    uint32_t last = segments[count - 1].volume;
    free(segments);
    struct place place = write_one(b.log, 60);
    assert_int_equal(place.volume, last + 1);
    assert_true(place.lsn > end);
    log_close(&b.log);
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 61);
    for (uint32_t n = 0; n < 61; n++)
        assert_int_equal(read_one(b.log, n, &d.places[n], 0, false), 0);
    bench_release(&b);
}

static void a_clean_restart_reads_next_to_nothing_and_continues(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    for (uint32_t n = 0; n < 800; n += 10)
        write_batch(b.log, n, n + 10, NULL, true);
    while (log_prepare(b.log))
        ;
    lsn_t end = log_end(b.log);
    uint64_t size = file_size(&b, 1);
    struct log_segment known = {.volume = 1, .base = 0, .end_bytes = 5000};
    assert_true(end > MIB);
    log_close(&b.log);

    b.fault.bytes_read = 0;
    b.fault.syncs = b.fault.truncates = 0;
    assert_int_equal(bench_start(&b, &known, 1, end, end, true, &d), 0);
    assert_int_equal(d.count, 0);
    assert_int_equal(b.recovery.end, end);
    assert_int_equal(b.fault.syncs, 0);
    assert_int_equal(b.fault.truncates, 0);
    assert_true(b.fault.bytes_read < 400 * KIB);
    struct place place = write_one(b.log, 800);
    assert_int_equal(place.volume, 1);
    assert_int_equal(place.lsn, end + BATCH_HEADER_BYTES);
    assert_int_equal(file_size(&b, 1), size); /* the zeros are still of use */
    log_close(&b.log);
    d.bodies = true;
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 801);
    assert_int_equal(b.recovery.rotten_bytes, 0);
    bench_release(&b);
}

static void a_clean_restart_keeps_the_prepared_segment(void **state)
{
    struct bench b;
    struct log_segment *segments;
    size_t count;

    (void)state;
    bench_init(&b, 256 * KIB);
    start(&b, 0, 0, false);
    uint32_t n = 0;
    while (log_end(b.log) < 150 * KIB)
        (void)write_one(b.log, n++);
    while (log_prepare(b.log))
        ;
    lsn_t end = log_end(b.log);
    assert_int_equal(file_size(&b, 2), 256 * KIB);
    log_close(&b.log);
    start(&b, end, end, true);
    assert_int_equal(log_segments(b.log, &segments, &count), 0);
    assert_int_equal(count, 1);
    assert_false(segments[0].sealed);
    free(segments);
    for (uint32_t i = 0; i < 40; i++)
        (void)write_one(b.log, n++);
    assert_int_equal(log_segments(b.log, &segments, &count), 0);
    assert_true(count >= 2);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(segments[i].volume, i + 1);
    free(segments);
    log_close(&b.log);
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, n);
    bench_release(&b);
}

static void larger_segments_do_not_reach_into_one_prepared_when_they_were_smaller(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 256 * KIB);
    start(&b, 0, 0, false);
    uint32_t n = 0;
    while (log_end(b.log) < 150 * KIB)
        (void)write_one(b.log, n++);
    while (log_prepare(b.log))
        ;
    lsn_t end = log_end(b.log);
    assert_true(file_size(&b, 2) > 0);
    log_close(&b.log);
    b.config.segment_bytes = 16 * MIB;
    start(&b, end, end, true);
    while (log_end(b.log) < 2 * MIB)
        (void)write_one(b.log, n++);
    lsn_t middle = log_end(b.log);
    (void)write_one(b.log, n);
    log_close(&b.log);
    /* Of two segments that share positions, the wrong one would be read. */
    start(&b, middle, middle, false);
    assert_delivered(&d, n, n + 1);
    bench_release(&b);
}

static void zeros_in_what_was_synced_are_rot_after_a_clean_stop_too(void **state)
{
    static const char zeros[2 * BATCH_ALIGN];
    char path[128];
    struct bench b;
    lsn_t at;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 3, NULL, true);
    at = log_end(b.log);
    write_batch(b.log, 3, 6, NULL, true);
    write_batch(b.log, 6, 9, NULL, true);
    lsn_t end = log_end(b.log);
    log_close(&b.log);
    segment_path(&b, 1, path);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, (off_t)at), sizeof zeros);
    close(fd);
    start(&b, 0, end, true);
    assert_int_equal(d.numbers[d.count - 1], 8);
    assert_int_equal(b.recovery.end, end);
    assert_true(b.recovery.rotten_bytes > 0);
    assert_false(b.recovery.cut);
    bench_release(&b);
}

static void a_clean_flag_that_lies_is_not_believed(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 5, NULL, true);
    lsn_t end = log_end(b.log);
    write_batch(b.log, 5, 9, NULL, true);
    lsn_t real = log_end(b.log);
    log_close(&b.log);
    flip(&b, 1, end + 70); /* the second batch is torn, and nobody knows that it was synced */
    start(&b, end, end, true);
    assert_int_equal(d.count, 0);
    assert_true(b.recovery.cut);
    assert_int_equal(b.recovery.end, end);
    assert_int_equal(file_size(&b, 1), end);
    struct place place = write_one(b.log, 5);
    assert_int_equal(place.volume, 2);
    assert_true(place.lsn > real);
    bench_release(&b);
}

static void recovery_begins_at_any_record(void **state)
{
    struct bench b;
    struct place places[30];

    (void)state;
    bench_init(&b, 128 * KIB);
    start(&b, 0, 0, false);
    for (uint32_t n = 0; n < 30; n += 6)
        write_batch(b.log, n, n + 6, places + n, true);
    lsn_t end = log_end(b.log);
    log_close(&b.log);
    copy_log(&b, false);
    for (uint32_t n = 0; n <= 30; n++) {
        /* Exactly at a record, and somewhere behind the record before. */
        for (int behind = 0; behind < 2; behind++) {
            lsn_t from = n < 30 ? places[n].lsn : end;

            if (behind && n > 0)
                from = places[n - 1].lsn + 1;
            start(&b, from, from, false);
            assert_delivered(&d, n, 30);
            assert_int_equal(b.recovery.rotten_bytes, 0);
            assert_false(b.recovery.cut);
            assert_int_equal(b.recovery.end, end);
            log_close(&b.log);
            copy_log(&b, true);
        }
    }
    bench_release(&b);
}

static void a_position_beyond_the_log_is_respected(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 5, NULL, true);
    lsn_t end = log_end(b.log), claimed = 5 * GIB + 12345;
    log_close(&b.log);
    for (int clean = 0; clean < 2; clean++) {
        start(&b, claimed, claimed, clean);
        assert_int_equal(d.count, 0);
        assert_int_equal(b.recovery.end, end); /* so the caller sees that the log ends below */
        if (clean) {
            struct place place = write_one(b.log, 5);
            assert_true(place.lsn >= claimed);
        }
        log_close(&b.log);
    }
    start(&b, LSN_LIMIT - 1, 0, false);
    assert_int_equal(log_begin(b.log, 1), ERR_FULL);
    log_close(&b.log);
    assert_int_equal(bench_start(&b, NULL, 0, LSN_LIMIT, 0, false, &d), ERR_RANGE);
    bench_release(&b);
}

/* ---- A torn tail ---- */

static void a_tail_torn_at_any_sector_is_cut_and_stays_away(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 4, NULL, true);
    lsn_t whole = log_end(b.log);
    write_batch(b.log, 4, 8, NULL, true);
    lsn_t end = log_end(b.log);
    log_close(&b.log);
    copy_log(&b, false);
    assert_true(end - whole > 10 * 512);
    /* The sectors from CUT on never reached the disk; or, every other time, only that one. */
    for (lsn_t cut = whole; cut < end - 1024; cut += 512) {
        for (int one = 0; one < 2; one++) {
            zero(&b, 1, cut, one ? 512 : end - cut);
            start(&b, 0, 0, false);
            assert_delivered(&d, 0, 4);
            assert_int_equal(b.recovery.cut, one || cut > whole);
            assert_int_equal(b.recovery.end, whole);
            assert_int_equal(b.recovery.rotten_bytes, 0);
            assert_int_equal(file_size(&b, 1), whole);
            write_batch(b.log, 100, 102, NULL, true);
            log_close(&b.log);
            start(&b, 0, 0, false);
            assert_int_equal(d.count, 6);
            assert_int_equal(d.numbers[3], 3);
            assert_int_equal(d.numbers[4], 100);
            assert_int_equal(b.recovery.rotten_bytes, 0);
            assert_false(b.recovery.cut);
            log_close(&b.log);
            copy_log(&b, true);
        }
    }
    bench_release(&b);
}

static void a_file_shortened_anywhere_yields_a_prefix_of_whole_batches(void **state)
{
    struct bench b;
    char path[128];

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    lsn_t ends[6] = {4096};
    for (uint32_t i = 0; i < 5; i++) {
        write_batch(b.log, i * 2, i * 2 + 2, NULL, true);
        ends[i + 1] = log_end(b.log);
    }
    log_close(&b.log);
    copy_log(&b, false);
    segment_path(&b, 1, path);
    for (lsn_t size = ends[5]; size > 4096; size -= size % 512 ? size % 512 : 100) {
        assert_int_equal(truncate(path, (off_t)size), 0);
        uint32_t whole = 0;
        while (whole < 5 && ends[whole + 1] <= size + 504)
            whole++;
        start(&b, 0, 0, false);
        /* A batch counts as soon as its padding alone is missing. */
        assert_true(d.count == whole * 2 || (whole > 0 && d.count == whole * 2 - 2));
        assert_delivered(&d, 0, d.count);
        log_close(&b.log);
        copy_log(&b, true);
    }
    bench_release(&b);
}

static int refuse_file(void *arg, const struct record_header *header)
{
    (void)arg;
    return header->file == 77 ? ERR_NOT_FOUND : header->file == 78 ? ERR_NO_MEMORY : 0;
}

static void an_unsynced_batch_counts_only_with_its_bodies_and_large_files(void **state)
{
    struct bench b;
    struct made m;
    struct place place;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 3, NULL, true);
    lsn_t whole = log_end(b.log);
    struct place last = write_one(b.log, 3); /* a body of 1000 */
    lsn_t end = log_end(b.log);
    log_close(&b.log);
    copy_log(&b, false);

    flip(&b, 1, last.offset + 80 + 8 + 208 + 500);
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 3);
    assert_true(b.recovery.cut);
    log_close(&b.log);

    /* Known to have been synced, it is delivered: its event is whole, its body will be repaired. */
    copy_log(&b, true);
    flip(&b, 1, last.offset + 80 + 8 + 208 + 500);
    start(&b, 0, end, false);
    assert_delivered(&d, 0, 4);
    assert_false(b.recovery.cut);
    assert_int_equal(read_one(b.log, 3, &d.places[3], 0, false), ERR_CORRUPT);
    log_close(&b.log);

    copy_log(&b, true);
    start(&b, end, end, true);
    make_sized(&m, 4, 0);
    m.record.flags = RECORD_LARGE;
    for (uint64_t file = 76; file < 79; file++) {
        m.record.file = file;
        assert_int_equal(log_begin(b.log, 1), 0);
        assert_int_equal(log_add(b.log, &m.record, &place), 0);
        assert_int_equal(log_write(b.log), 0);
        assert_int_equal(log_sync(b.log), 0);
    }
    free(m.body);
    log_close(&b.log);
    assert_int_equal(log_open(&b.log, &b.config, NULL, 0), 0);
    d = (struct delivered){0};
    /* The files of the first two are known to be good: they were synced before the last. */
    int rc = log_recover(b.log, 0, 0, false, take_record, refuse_file, &d, &b.recovery);
    assert_int_equal(rc, ERR_NO_MEMORY);
    log_close(&b.log);
    flip(&b, 1, place.offset + 10); /* the last batch is torn; now the second one is in doubt */
    assert_int_equal(log_open(&b.log, &b.config, NULL, 0), 0);
    d = (struct delivered){0};
    rc = log_recover(b.log, 0, 0, false, take_record, refuse_file, &d, &b.recovery);
    assert_int_equal(rc, 0);
    assert_true(b.recovery.cut);
    assert_int_equal(d.count, 5);
    assert_true(whole < end);
    bench_release(&b);
}

/* Put a batch of record N at OFFSET of segment VOLUME, as the writer would have. */
static void forge_batch(const struct bench *b, uint32_t volume, uint64_t offset, uint64_t previous,
                        lsn_t synced_through, uint32_t n)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES], batch_bytes[1024] = {0};
    struct segment_header segment;
    char path[128];
    struct made m;

    segment_path(b, volume, path);
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, bytes, sizeof bytes), sizeof bytes);
    close(fd);
    assert_int_equal(segment_header_decode(&segment, bytes), 0);
    struct batch_header batch = {.records = 1,
                                 .lsn = segment.base + offset,
                                 .previous = previous,
                                 .synced_through = synced_through};
    struct record_header record = {
        .type = RECORD_EVENT, .id = id_of(n), .event_bytes = event_len(n)};
    make_sized(&m, n, 0);
    record_encode(batch_bytes + BATCH_HEADER_BYTES, &record, segment.salt,
                  batch.lsn + BATCH_HEADER_BYTES, NULL, m.event);
    batch.length_bytes = BATCH_HEADER_BYTES + record_bytes(&record);
    batch_header_encode(batch_bytes, &batch, segment.salt, &record.check);
    patch(b, volume, offset, batch_bytes, 512);
    free(m.body);
}

static void a_batch_that_follows_another_than_is_there_does_not_count(void **state)
{
    struct bench b;

    (void)state;
    for (int chained = 0; chained < 2; chained++) {
        bench_init(&b, 0);
        start(&b, 0, 0, false);
        (void)write_one(b.log, 0);
        lsn_t end = log_end(b.log);
        log_close(&b.log);
        /* 0: a writer that continued after a restart; anything else must be right. */
        forge_batch(&b, 1, end, chained ? 4711 : 0, 0, 1);
        start(&b, 0, 0, false);
        assert_delivered(&d, 0, chained ? 1 : 2);
        bench_release(&b);
    }
}

/* The last batch that is known to be synced is rotten, and right behind it lies a torn one, of
 * which some records are whole: those were never acknowledged, and their numbers may be given out
 * again. */
static void rot_ends_where_the_torn_tail_begins(void **state)
{
    struct bench b;

    (void)state;
    for (int more = 0; more < 2; more++) {
        bench_init(&b, 0);
        start(&b, 0, 0, false);
        struct place last = write_one(b.log, 4);
        lsn_t synced = log_end(b.log);
        struct place torn = write_one(b.log, 5);
        lsn_t end = log_end(b.log);
        log_close(&b.log);
        flip(&b, 1, last.offset + 2);
        flip(&b, 1, torn.offset - 2);
        if (more) /* whole, but behind the torn one, and it does not say that it was synced */
            forge_batch(&b, 1, end, 1, synced, 6);
        start(&b, 0, synced, false);
        assert_int_equal(d.count, 0);
        assert_true(b.recovery.cut);
        assert_int_equal(b.recovery.end, synced);
        assert_int_equal(b.recovery.rotten_records, 1);
        assert_int_equal(file_size(&b, 1), synced);
        write_batch(b.log, 7, 8, NULL, true);
        log_close(&b.log);
        start(&b, 0, 0, false);
        assert_int_equal(d.count, 1);
        assert_int_equal(d.numbers[0], 7);
        bench_release(&b);
    }
}

static void a_position_inside_a_rotten_batch_divides_it(void **state)
{
    struct bench b;
    struct place places[6];

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 6, places, true);
    log_close(&b.log);
    flip(&b, 1, places[0].offset - 2);
    /* What the database has seen was synced; of the rest nobody knows. */
    start(&b, places[1].lsn, places[2].lsn, false);
    assert_delivered(&d, 1, 2);
    assert_true(b.recovery.cut);
    bench_release(&b);
}

static void an_unclean_start_asks_the_disk_not_the_cache(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    for (uint32_t n = 0; n < 3; n++) {
        (void)write_one(b.log, n);
        assert_int_equal(log_rotate(b.log), 0);
    }
    lsn_t end = log_end(b.log);
    log_close(&b.log);
    b.fault.syncs = b.fault.drops = 0;
    start(&b, 0, 0, false);
    assert_int_equal(b.fault.syncs, 3);
    assert_int_equal(b.fault.drops, 3);
    log_close(&b.log);
    /* Below FROM nothing is read, nothing needs a sync. */
    b.fault.syncs = b.fault.drops = 0;
    start(&b, end, end, false);
    assert_int_equal(b.fault.syncs, 1);
    assert_int_equal(b.fault.drops, 1);
    bench_release(&b);
}

/* A segment that our writer would never have begun: its batch says that nothing was synced. */
static void forge_segment(const struct bench *b, uint32_t volume, lsn_t base, uint32_t n)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct segment_header segment = {
        .store = b->config.store, .volume = volume, .salt = 42, .base = base};
    char path[128];

    segment_header_encode(bytes, &segment);
    segment_path(b, volume, path);
    assert_int_equal(io_replace(io_system(), path, bytes, sizeof bytes), 0);
    forge_batch(b, volume, SEGMENT_HEADER_BYTES, 0, 0, n);
}

static void what_an_unsynced_later_segment_holds_goes_with_the_tail(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 64 * KIB);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 3, NULL, true);
    lsn_t whole = log_end(b.log);
    struct place torn = write_one(b.log, 3);
    log_close(&b.log);
    forge_segment(&b, 2, GIB, 4);
    copy_log(&b, false);
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 5); /* it is found where nothing is torn */
    log_close(&b.log);
    copy_log(&b, true);
    flip(&b, 1, torn.offset + 20);
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 3);
    assert_true(b.recovery.cut);
    assert_int_equal(b.recovery.end, whole);
    assert_int_equal(file_size(&b, 2), SEGMENT_HEADER_BYTES);
    struct place place = write_one(b.log, 9);
    assert_int_equal(place.volume, 3);
    assert_true(place.lsn > GIB);
    log_close(&b.log);
    start(&b, 0, 0, false); /* the batch of segment 3 says how far segment 1 was synced */
    assert_int_equal(d.count, 4);
    assert_int_equal(b.recovery.rotten_bytes, 0);
    bench_release(&b);
}

/* ---- Rot ---- */

static void rot_in_the_middle_is_skipped_and_counted(void **state)
{
    struct bench b;
    struct place places[40];

    (void)state;
    bench_init(&b, 128 * KIB);
    start(&b, 0, 0, false);
    for (uint32_t n = 0; n < 40; n += 8)
        write_batch(b.log, n, n + 8, places + n, true);
    lsn_t end = log_end(b.log);
    log_close(&b.log);
    copy_log(&b, false);

    /* One event: its record alone is lost. */
    flip(&b, places[10].volume, places[10].offset + 90);
    start(&b, 0, 0, false);
    assert_int_equal(d.count, 39);
    assert_int_equal(d.numbers[9], 9);
    assert_int_equal(d.numbers[10], 11);
    assert_int_equal(b.recovery.rotten_records, 1);
    assert_true(b.recovery.rotten_bytes > 80 && b.recovery.rotten_bytes < 2000);
    assert_false(b.recovery.cut);
    assert_int_equal(b.recovery.end, end);
    log_close(&b.log);
    copy_log(&b, true);

    /* A record's length: what stands around it is found all the same. */
    flip(&b, places[10].volume, places[10].offset + 21);
    start(&b, 0, 0, false);
    assert_int_equal(d.count, 39);
    assert_int_equal(d.numbers[10], 11);
    assert_int_equal(b.recovery.rotten_records, 1);
    log_close(&b.log);
    copy_log(&b, true);

    /* A batch's header: all its records are found. */
    flip(&b, places[8].volume, places[8].offset - BATCH_HEADER_BYTES + 9);
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 40);
    assert_true(b.recovery.rotten_bytes > 0);
    log_close(&b.log);
    copy_log(&b, true);

    /* Zeros over three records and the header of the next batch. */
    assert_int_equal(places[14].volume, places[16].volume);
    zero(&b, places[14].volume, places[14].offset, places[16].offset - places[14].offset);
    start(&b, 0, 0, false);
    assert_int_equal(d.count, 38);
    assert_int_equal(d.numbers[14], 16);
    assert_false(b.recovery.cut);
    assert_int_equal(b.recovery.end, end);
    /* It stays what it is: not cut, and told again. */
    log_close(&b.log);
    start(&b, 0, 0, false);
    assert_int_equal(d.count, 38);
    assert_true(b.recovery.rotten_bytes > 0);
    bench_release(&b);
}

static uint64_t record_len(uint32_t n)
{
    struct record_header header = {.event_bytes = event_len(n),
                                   .body_bytes = body_len(n),
                                   .blocks = (uint16_t)block_count(body_len(n))};

    return record_bytes(&header);
}

/* Bytes and records that are lost, no more and no less, wherever they lie. */
static void rot_is_counted_to_the_byte(void **state)
{
    struct bench b;
    struct place places[18];
    uint64_t whole = 0;

    (void)state;
    bench_init(&b, 0);
    b.fault.skip_sync = true;
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 8, places, true);
    write_batch(b.log, 8, 9, places + 8, true);
    write_batch(b.log, 9, 17, places + 9, true);
    write_batch(b.log, 17, 18, places + 17, true);
    log_close(&b.log);
    copy_log(&b, false);
    for (uint32_t n = 0; n < 8; n++)
        whole += record_len(n);
    uint64_t span = places[8].offset - places[0].offset;

    for (uint32_t n = 0; n < 17; n += 4) {
        flip(&b, 1, places[n].offset + RECORD_HEADER_BYTES + 8 * block_count(body_len(n)) + 1);
        start(&b, 0, 0, false);
        assert_int_equal(d.count, 17);
        assert_int_equal(b.recovery.rotten_records, 1);
        assert_int_equal(b.recovery.rotten_bytes, record_len(n));
        log_close(&b.log);
        copy_log(&b, true);
    }
    /* A batch's header; then a record's head besides. */
    flip(&b, 1, places[0].offset - BATCH_HEADER_BYTES + 9);
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 18);
    assert_int_equal(b.recovery.rotten_records, 0);
    assert_int_equal(b.recovery.rotten_bytes, span - whole);
    log_close(&b.log);
    start(&b, places[7].lsn, 0, false); /* what was applied before is not counted */
    assert_delivered(&d, 7, 18);
    assert_int_equal(b.recovery.rotten_bytes,
                     places[8].offset - BATCH_HEADER_BYTES - places[7].offset - record_len(7));
    log_close(&b.log);
    flip(&b, 1, places[5].offset + 3);
    start(&b, 0, 0, false);
    assert_int_equal(d.count, 17);
    assert_int_equal(b.recovery.rotten_bytes, span - whole + record_len(5));
    log_close(&b.log);
    copy_log(&b, true);
    /* Where nobody can say how many there were, it was one. */
    flip(&b, 1, places[8].offset - BATCH_HEADER_BYTES + 3);
    flip(&b, 1, places[8].offset + 3);
    start(&b, 0, 0, false);
    assert_int_equal(d.count, 17);
    assert_int_equal(b.recovery.rotten_records, 1);
    assert_int_equal(b.recovery.rotten_bytes, places[9].offset - places[8].offset);
    bench_release(&b);
}

static void rot_at_the_end_is_told_from_a_torn_tail_by_what_is_known(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 4, NULL, true);
    lsn_t whole = log_end(b.log);
    struct place last = write_one(b.log, 4);
    lsn_t end = log_end(b.log);
    log_close(&b.log);
    flip(&b, 1, last.offset + 82);
    copy_log(&b, false);

    /* The database knows. */
    start(&b, whole, end, false);
    assert_int_equal(d.count, 0);
    assert_false(b.recovery.cut);
    assert_int_equal(b.recovery.rotten_records, 1);
    assert_int_equal(b.recovery.end, end);
    log_close(&b.log);
    copy_log(&b, true);

    /* A sealed segment's end is known. */
    struct log_segment known = {.volume = 1, .end_bytes = end, .sealed = true};
    assert_int_equal(bench_start(&b, &known, 1, 0, 0, false, &d), 0);
    assert_delivered(&d, 0, 4);
    assert_false(b.recovery.cut);
    log_close(&b.log);
    copy_log(&b, true);

    /* Nobody knows: it was never acknowledged, as far as anybody can tell. */
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 4);
    assert_true(b.recovery.cut);
    log_close(&b.log);
    bench_release(&b);

    /* An empty batch, as an idle node writes one, would have told. */
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    last = write_one(b.log, 4);
    write_batch(b.log, 0, 0, NULL, true);
    log_close(&b.log);
    flip(&b, 1, last.offset + 82);
    start(&b, 0, 0, false);
    assert_int_equal(d.count, 0);
    assert_false(b.recovery.cut);
    assert_int_equal(b.recovery.rotten_records, 1);
    bench_release(&b);
}

static void zeros_over_the_end_of_a_sealed_segment_are_rot(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 4, NULL, true);
    lsn_t whole = log_end(b.log);
    (void)write_one(b.log, 4);
    lsn_t end = log_end(b.log);
    assert_int_equal(log_rotate(b.log), 0);
    (void)write_one(b.log, 5);
    log_close(&b.log);
    zero(&b, 1, whole, end - whole);
    start(&b, 0, 0, false);
    assert_int_equal(d.count, 5);
    assert_int_equal(d.numbers[4], 5);
    assert_false(b.recovery.cut);
    assert_int_equal(b.recovery.rotten_bytes, end - whole);
    bench_release(&b);
}

static void a_rotten_segment_header_costs_that_segment_only(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    for (uint32_t n = 0; n < 3; n++) {
        (void)write_one(b.log, n);
        assert_int_equal(log_rotate(b.log), 0);
    }
    log_close(&b.log);
    flip(&b, 2, 50);
    start(&b, 0, 0, false);
    assert_int_equal(d.count, 2);
    assert_int_equal(d.numbers[1], 2);
    assert_true(b.recovery.rotten_bytes > 4096);
    struct place place = d.places[0];
    place.volume = 2;
    assert_int_equal(read_one(b.log, 1, &place, 0, false), ERR_CORRUPT);
    place = write_one(b.log, 9);
    assert_int_equal(place.volume, 4);
    bench_release(&b);
}

/* A byte flipped anywhere: nothing wrong is ever delivered, and all that was acknowledged and is
 * whole comes. */
/* Set a feature bit that this build may read and must not write. */
static void make_read_only(const struct bench *b, uint32_t volume)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct segment_header header;
    char path[128];

    segment_path(b, volume, path);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, sizeof bytes, 0), sizeof bytes);
    close(fd);
    assert_int_equal(segment_header_decode(&header, bytes), 0);
    header.features.ro_compat = 1u << 31;
    segment_header_encode(bytes, &header);
    patch(b, volume, 0, bytes, sizeof bytes);
}

static void a_segment_of_a_newer_build_is_read_and_never_written(void **state)
{
    struct bench b;

    (void)state;
    for (int clean = 0; clean < 2; clean++) {
        bench_init(&b, 0);
        start(&b, 0, 0, false);
        write_batch(b.log, 0, 5, NULL, true);
        uint64_t end = log_end(b.log);
        log_close(&b.log);
        make_read_only(&b, 1);
        zero(&b, 1, end, 10000); /* written ahead */
        uint64_t size = file_size(&b, 1);

        start(&b, 0, end, clean);
        assert_delivered(&d, 0, 5);
        assert_int_equal(write_one(b.log, 5).volume, 2);
        log_close(&b.log);
        assert_int_equal(file_size(&b, 1), size);
        start(&b, 0, 0, false);
        assert_delivered(&d, 0, 6);
        bench_release(&b);
    }
    /* A torn tail would have to be cut off, which is not for this build to do. */
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 5, NULL, true);
    uint64_t end = log_end(b.log);
    log_close(&b.log);
    make_read_only(&b, 1);
    patch(&b, 1, end, "torn", 4);
    uint64_t size = file_size(&b, 1);
    assert_int_equal(bench_start(&b, NULL, 0, 0, end, false, &d), ERR_FORMAT);
    assert_int_equal(file_size(&b, 1), size);
    bench_release(&b);
}

static void any_flipped_byte_is_detected_or_harmless(void **state)
{
    struct bench b;
    struct place places[9];

    (void)state;
    bench_init(&b, 0);
    b.fault.skip_sync = true;
    start(&b, 0, 0, false);
    for (uint32_t n = 0; n < 9; n += 3)
        write_batch(b.log, n, n + 3, places + n, true);
    write_batch(b.log, 0, 0, NULL, true);
    lsn_t end = log_end(b.log);
    log_close(&b.log);
    copy_log(&b, false);
    uint64_t last_batch = end - 512;
    for (uint64_t at = SEGMENT_HEADER_BYTES; at < end; at += at < 9000 || at > last_batch ? 1 : 7) {
        flip(&b, 1, at);
        start(&b, 0, 0, false);
        assert_true(d.count >= 8);
        if (at < last_batch)
            assert_false(b.recovery.cut);
        else
            assert_int_equal(d.count, 9);
        if (d.count == 8)
            assert_true(b.recovery.rotten_records >= 1);
        for (uint32_t i = 0; i < d.count; i++) {
            int rc = read_one(b.log, d.numbers[i], &d.places[i], 0, false);
            assert_true(rc == 0 || rc == ERR_CORRUPT);
        }
        bool cut = b.recovery.cut;
        log_close(&b.log);
        if (cut)
            copy_log(&b, true);
        else
            flip(&b, 1, at);
    }
    bench_release(&b);
}

static void a_disk_that_cannot_read_never_leads_to_a_cut(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 8, NULL, true);
    lsn_t whole = log_end(b.log);
    write_batch(b.log, 8, 12, NULL, true);
    lsn_t end = log_end(b.log);
    log_close(&b.log);
    b.fault.bad_from = whole + 100;
    b.fault.bad_to = whole + 101;
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, &d), ERR_IO);
    assert_int_equal(file_size(&b, 1), end);
    b.fault.bad_to = 0;
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 12);
    log_close(&b.log);
    /* Unless it was given up: then it is cut for good. */
    b.fault.bad_to = whole + 101;
    b.config.skip_unreadable = true;
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 8);
    assert_true(b.recovery.cut);
    log_close(&b.log);
    b.fault.bad_to = 0;
    b.config.skip_unreadable = false;
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 8);
    bench_release(&b);
}

static int tries_left;

static void mend_after_some(void *arg)
{
    struct bench *b = arg;

    if (tries_left > 0 && --tries_left == 0)
        b->fault.bad_to = 0;
}

static int open_and_recover(struct bench *b, lsn_t from)
{
    int rc = log_open(&b->log, &b->config, NULL, 0);

    assert_int_equal(rc, 0);
    memset(&d, 0, sizeof d);
    return log_recover(b->log, from, from, false, take_record, NULL, &d, &b->recovery);
}

static void what_the_disk_cannot_read_is_refused_asked_for_again_or_given_up(void **state)
{
    struct bench b;
    uint32_t volume;
    uint64_t offset;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 8, NULL, true);
    lsn_t first = log_end(b.log);
    write_batch(b.log, 8, 12, NULL, true);
    write_batch(b.log, 12, 14, NULL, true);
    log_close(&b.log);
    /* The head of a batch that is known to be synced. */
    b.fault.bad_from = first + 40;
    b.fault.bad_to = first + 41;
    assert_int_equal(open_and_recover(&b, 0), ERR_IO);
    assert_true(log_unreadable(b.log, &volume, &offset));
    assert_int_equal(volume, 1);
    assert_true(offset <= first + 40 && offset + 4096 > first + 40);
    for (uint32_t i = 0; i < d.count; i++)
        assert_true(d.numbers[i] < 8); /* nothing from behind the gap */
    log_close(&b.log);
    /* It is asked for more than once. */
    b.fault.before_read = mend_after_some;
    b.fault.arg = &b;
    tries_left = 2 + (int)((offset - 4096) / 4096) + 3; /* head, window, pieces, this one thrice */
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 14);
    assert_int_equal(tries_left, 0);
    log_close(&b.log);
    /* Below what is asked for it does no harm. */
    b.fault.bad_from = 4096 + 100;
    b.fault.bad_to = 4096 + 101;
    assert_true(first > 2 * 4096);
    start(&b, first, 0, false);
    assert_delivered(&d, 8, 14);
    assert_int_equal(b.recovery.rotten_bytes, 0);
    log_close(&b.log);
    /* Given up, it is rot like any other. */
    b.config.skip_unreadable = true;
    start(&b, 0, 0, false);
    assert_true(d.count >= 6 && d.numbers[d.count - 1] == 13);
    assert_true(b.recovery.rotten_bytes > 0);
    assert_false(b.recovery.cut);
    log_close(&b.log);
    b.config.skip_unreadable = false;
    b.fault.bad_to = 0;
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 14);
    /* Reading it for cleaning is no better. */
    uint64_t from = 0, rotten = 0;

    b.fault.bad_to = 4096 + 101;
    assert_int_equal(log_scan(b.log, 1, &from, take_record, &d, &rotten), ERR_IO);
    assert_int_equal(rotten, 0);
    b.fault.bad_to = 0;
    bench_release(&b);
}

/* Where a segment ended the first batch of the next one tells: it is that one which is named. */
static void what_cannot_be_read_in_the_next_segment_is_named(void **state)
{
    struct bench b;
    uint32_t volume;
    uint64_t offset;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 4, NULL, true);
    assert_int_equal(log_rotate(b.log), 0);
    write_batch(b.log, 4, 8, NULL, true);
    lsn_t end = log_end(b.log);
    log_close(&b.log);
    b.fault.only = "00000002";
    b.fault.bad_from = SEGMENT_HEADER_BYTES + 10;
    b.fault.bad_to = SEGMENT_HEADER_BYTES + 11;
    assert_int_equal(open_and_recover(&b, 0), ERR_IO);
    assert_true(log_unreadable(b.log, &volume, &offset));
    assert_int_equal(volume, 2);
    assert_int_equal(offset, SEGMENT_HEADER_BYTES);
    log_close(&b.log);
    b.fault.bad_to = 0;
    start(&b, 0, end, false);
    assert_delivered(&d, 0, 8);
    bench_release(&b);
}

/* ---- Errors ---- */

static void the_visitors_error_ends_recovery_and_a_later_one_succeeds(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 10, NULL, true);
    log_close(&b.log);
    d.stop = 5;
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, &d), ERR_NO_SPACE);
    assert_int_equal(d.count, 4);
    d.stop = 0;
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 10);
    bench_release(&b);
}

static void each_failing_call_fails_recovery_and_loses_nothing(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 10, NULL, true);
    assert_int_equal(log_rotate(b.log), 0);
    write_batch(b.log, 10, 20, NULL, true);
    while (log_prepare(b.log))
        ;
    log_close(&b.log);
    _Atomic int *const knobs[] = {&b.fault.fail_open, &b.fault.fail_sync, &b.fault.fail_truncate};
    for (size_t i = 0; i < sizeof knobs / sizeof *knobs; i++) {
        int rc = ERR_IO;

        for (int k = 1; rc != 0; k++) {
            assert_true(k < 50);
            *knobs[i] = k;
            rc = bench_start(&b, NULL, 0, 0, 0, false, &d);
            assert_true(rc == 0 || rc == ERR_IO);
            *knobs[i] = 0;
        }
        assert_delivered(&d, 0, 20);
        log_close(&b.log);
        assert_int_equal(b.fault.open_now, 0);
    }
    start(&b, 0, 0, false);
    assert_delivered(&d, 0, 20);
    bench_release(&b);
}

static _Atomic int reads_left;

static ssize_t read_or_fail(struct io *io, int fd, void *buf, size_t len, uint64_t offset,
                            bool nowait)
{
    if (atomic_fetch_sub(&reads_left, 1) == 1)
        return ERR_NO_MEMORY;
    return fault_pread(io, fd, buf, len, offset, nowait);
}

/* What is no fault of the disk's is no damage either: it ends recovery, wherever it comes. */
static void any_other_error_of_a_read_is_told(void **state)
{
    struct bench b;
    int rc = ERR_NO_MEMORY;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    write_batch(b.log, 0, 10, NULL, true);
    assert_int_equal(log_rotate(b.log), 0);
    write_batch(b.log, 10, 20, NULL, true);
    log_close(&b.log);
    b.fault.io.pread = read_or_fail;
    for (int k = 1; rc != 0; k++) {
        assert_true(k < 50);
        reads_left = k;
        rc = bench_start(&b, NULL, 0, 0, 0, false, &d);
        assert_int_equal(rc, reads_left > 0 ? 0 : ERR_NO_MEMORY);
    }
    assert_delivered(&d, 0, 20);
    bench_release(&b);
}

/* No position is ever given twice, not even one whose bytes were cut off. */
static void a_new_segment_begins_above_all_that_the_old_one_may_have_used(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 128 * KIB);
    start(&b, 0, 0, false);
    lsn_t base = write_one(b.log, 0).lsn / (128 * KIB) * (128 * KIB);
    for (int i = 1; i < 4; i++) {
        log_close(&b.log);
        start(&b, 0, 0, false);
        lsn_t next = write_one(b.log, (uint32_t)i).lsn;

        assert_true(next >= base + 128 * KIB);
        base = next / (128 * KIB) * (128 * KIB);
    }
    bench_release(&b);
}

static void a_missing_file_or_one_of_another_store_is_named(void **state)
{
    struct bench b;
    char path[128];

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    (void)write_one(b.log, 1);
    assert_int_equal(log_rotate(b.log), 0);
    (void)write_one(b.log, 2);
    log_close(&b.log);
    struct log_segment known[2] = {{.volume = 1, .end_bytes = 5000, .sealed = true},
                                   {.volume = 2, .base = GIB, .end_bytes = 5000}};
    assert_int_equal(bench_start(&b, known, 2, 0, 0, false, &d), 0);
    log_close(&b.log);
    /* The database is older than the second segment: it is found all the same. */
    assert_int_equal(bench_start(&b, known, 1, 0, 0, false, &d), 0);
    assert_int_equal(d.count, 2);
    log_close(&b.log);
    segment_path(&b, 1, path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(bench_start(&b, known, 2, 0, 0, false, &d), ERR_NOT_FOUND);
    /* Without a database the numbers need not begin at 1. */
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, &d), 0);
    assert_int_equal(d.count, 1);
    log_close(&b.log);
    b.config.store.bytes[0]++;
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, &d), ERR_WRONG_STORE);
    bench_release(&b);
}

/* ---- Scanning ---- */

static void a_scan_stops_and_goes_on_where_it_was(void **state)
{
    struct bench b;
    struct place places[20];
    uint64_t from = 0, rotten = 0;
    uint32_t seen = 0;

    (void)state;
    bench_init(&b, 0);
    start(&b, 0, 0, false);
    for (uint32_t n = 0; n < 20; n += 5)
        write_batch(b.log, n, n + 5, places + n, true);
    assert_int_equal(log_scan(b.log, 1, &from, take_record, &d, &rotten), ERR_INVALID);
    assert_int_equal(log_rotate(b.log), 0);
    flip(&b, 1, places[7].offset + 90);
    flip(&b, 1, places[10].offset - 60);
    for (uint32_t round = 0; round < 30; round++) {
        d = (struct delivered){.stop = 3, .bodies = true};
        int rc = log_scan(b.log, 1, &from, take_record, &d, &rotten);
        for (uint32_t i = 0; i < d.count; i++) {
            seen += seen == 7;
            assert_int_equal(d.numbers[i], seen++);
        }
        if (rc == 0)
            break;
        assert_int_equal(rc, ERR_NO_SPACE);
        assert_int_equal(d.count, 2);
    }
    assert_int_equal(seen, 20);
    assert_int_equal(from, log_end(b.log));
    /* The record, and the header of the batch. */
    assert_in_range(rotten, 64 + 9000, 512 + 9500);
    d = (struct delivered){0};
    assert_int_equal(log_scan(b.log, 1, &from, take_record, &d, &rotten), 0);
    assert_int_equal(d.count, 0);
    assert_int_equal(log_scan(b.log, 9, &from, take_record, &d, &rotten), ERR_NOT_FOUND);
    bench_release(&b);
}

/* ---- Arbitrary bytes ---- */

static int take_anything(void *arg, const struct record_view *view, const struct place *place)
{
    (void)place;
    (void)check_record(view); /* wrong bytes would fail here */
    (*(uint64_t *)arg)++;
    return 0;
}

static void garbage_never_crashes_and_is_never_delivered(void **state)
{
    enum { ROUNDS = 400 };
    struct bench b;
    uint64_t delivered = 0;

    (void)state;
    srand(7);
    bench_init(&b, 128 * KIB);
    b.fault.skip_sync = true;
    start(&b, 0, 0, false);
    for (uint32_t n = 0; n < 60; n += 4)
        write_batch(b.log, n, n + 4, NULL, true);
    uint32_t segments = (uint32_t)(log_end(b.log) / (128 * KIB)) + 1;
    log_close(&b.log);
    copy_log(&b, false);
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t noise[3000];
        int patches = 1 + rand() % 6;

        for (int i = 0; i < patches; i++) {
            char path[128];
            uint32_t volume = 1 + (uint32_t)rand() % segments;
            segment_path(&b, volume, path);
            if (access(path, F_OK) != 0)
                continue;
            uint64_t size = file_size(&b, volume);
            size_t len = 1 + (size_t)rand() % (rand() % 2 ? 16 : sizeof noise);
            uint64_t at = (uint64_t)rand() % (size + 1);
            if (rand() % 8)
                at = at / 512 * 512 + (uint64_t)(rand() % 3) * 8;
            memset(noise, 0, len);
            for (size_t j = 0; j < len && rand() % 64; j++)
                noise[j] = (uint8_t)(rand() % 3 ? rand() : 0);
            if (rand() % 10)
                patch(&b, volume, at, noise, len);
            else
                assert_int_equal(truncate(path, (off_t)at), 0);
        }
        lsn_t from = rand() % 2 ? (lsn_t)rand() % MIB : 0;
        lsn_t synced = rand() % 2 ? (lsn_t)rand() % MIB : 0;
        assert_int_equal(log_open(&b.log, &b.config, NULL, 0), 0);
        int rc = log_recover(b.log, from, synced, rand() % 2, take_anything, NULL, &delivered,
                             &b.recovery);
        assert_int_equal(rc, 0);
        for (uint32_t volume = 1; volume <= segments; volume++) {
            uint64_t at = (uint64_t)rand() % (64 * KIB), rotten = 0;

            (void)!log_scan(b.log, volume, &at, take_anything, &delivered, &rotten);
        }
        if (log_begin(b.log, 1) == 0)
            assert_int_equal(log_write(b.log), 0);
        log_close(&b.log);
        copy_log(&b, true);
    }
    assert_true(delivered > ROUNDS);
    bench_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_log_has_no_end_and_can_be_written),
        cmocka_unit_test(an_unclean_restart_delivers_all_seals_and_goes_on_in_a_new_segment),
        cmocka_unit_test(a_clean_restart_reads_next_to_nothing_and_continues),
        cmocka_unit_test(a_clean_restart_keeps_the_prepared_segment),
        cmocka_unit_test(larger_segments_do_not_reach_into_one_prepared_when_they_were_smaller),
        cmocka_unit_test(zeros_in_what_was_synced_are_rot_after_a_clean_stop_too),
        cmocka_unit_test(a_clean_flag_that_lies_is_not_believed),
        cmocka_unit_test(recovery_begins_at_any_record),
        cmocka_unit_test(a_position_beyond_the_log_is_respected),
        cmocka_unit_test(a_tail_torn_at_any_sector_is_cut_and_stays_away),
        cmocka_unit_test(a_file_shortened_anywhere_yields_a_prefix_of_whole_batches),
        cmocka_unit_test(an_unsynced_batch_counts_only_with_its_bodies_and_large_files),
        cmocka_unit_test(a_batch_that_follows_another_than_is_there_does_not_count),
        cmocka_unit_test(rot_ends_where_the_torn_tail_begins),
        cmocka_unit_test(a_position_inside_a_rotten_batch_divides_it),
        cmocka_unit_test(an_unclean_start_asks_the_disk_not_the_cache),
        cmocka_unit_test(what_an_unsynced_later_segment_holds_goes_with_the_tail),
        cmocka_unit_test(rot_in_the_middle_is_skipped_and_counted),
        cmocka_unit_test(rot_is_counted_to_the_byte),
        cmocka_unit_test(rot_at_the_end_is_told_from_a_torn_tail_by_what_is_known),
        cmocka_unit_test(zeros_over_the_end_of_a_sealed_segment_are_rot),
        cmocka_unit_test(a_rotten_segment_header_costs_that_segment_only),
        cmocka_unit_test(a_segment_of_a_newer_build_is_read_and_never_written),
        cmocka_unit_test(any_flipped_byte_is_detected_or_harmless),
        cmocka_unit_test(a_disk_that_cannot_read_never_leads_to_a_cut),
        cmocka_unit_test(the_visitors_error_ends_recovery_and_a_later_one_succeeds),
        cmocka_unit_test(what_cannot_be_read_in_the_next_segment_is_named),
        cmocka_unit_test(what_the_disk_cannot_read_is_refused_asked_for_again_or_given_up),
        cmocka_unit_test(each_failing_call_fails_recovery_and_loses_nothing),
        cmocka_unit_test(any_other_error_of_a_read_is_told),
        cmocka_unit_test(a_new_segment_begins_above_all_that_the_old_one_may_have_used),
        cmocka_unit_test(a_missing_file_or_one_of_another_store_is_named),
        cmocka_unit_test(a_scan_stops_and_goes_on_where_it_was),
        cmocka_unit_test(garbage_never_crashes_and_is_never_delivered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
