/* Goal: what the committer wrote is read back to the byte from any thread; a failed write is as if
 * it had never been, a failed sync is final; segments come, fill up and go without a reader
 * noticing; writing zeros ahead never costs a byte of data. */
#include "storage/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#include "tests/unit/log_util.h"

static void records_of_all_sizes_are_read_back(void **state)
{
    enum { RECORDS = 100 };
    struct bench b;
    struct place places[RECORDS];
    uint32_t n = 0;

    (void)state;
    bench_init(&b, 16 * MIB);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    for (uint32_t size = 1; n < RECORDS; n += size, size = size * 2 % 31) {
        uint32_t to = n + size < RECORDS ? n + size : RECORDS;
        lsn_t before = log_end(b.log);

        write_batch(b.log, n, to, places + n, true);
        assert_true(log_end(b.log) > before);
        assert_int_equal(log_synced(b.log), log_end(b.log));
    }
    for (uint32_t i = 0; i < RECORDS; i++) {
        assert_int_equal(read_one(b.log, i, &places[i], 0, false), 0);
        assert_int_equal(read_one(b.log, i, &places[i], 0, true), 0);
    }
    bench_release(&b);
}

static void a_batch_is_one_write_and_one_sync(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    write_batch(b.log, 0, 1, NULL, true);
    b.fault.writes = b.fault.syncs = 0;
    write_batch(b.log, 1, 60, NULL, true);
    assert_int_equal(b.fault.writes, 1);
    assert_int_equal(b.fault.syncs, 1);
    assert_int_equal(log_sync(b.log), 0); /* nothing new: nothing to do */
    assert_int_equal(b.fault.syncs, 1);
    bench_release(&b);
}

static void a_read_checks_what_it_was_asked_for(void **state)
{
    struct bench b;
    struct record_view view;
    uint8_t buf[RECORD_MAX_BYTES];
    struct id128 id = id_of(3);

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    struct place place = write_one(b.log, 3), other;
    uint32_t length;

    assert_int_equal(log_read(b.log, &place, &id, 0, buf, sizeof buf, false, &view), 0);
    length = (uint32_t)record_bytes(&view.header);
    assert_int_equal(log_read(b.log, &place, &id, length, buf, sizeof buf, true, &view), 0);
    assert_int_equal(log_read(b.log, &place, &id, length, buf, length, true, &view), 0);
    assert_int_equal(log_read(b.log, &place, &id, length, buf, length - 1, true, &view),
                     ERR_TOO_BIG);
    assert_int_equal(log_read(b.log, &place, &id, 0, buf, length - 1, true, &view), ERR_TOO_BIG);
    assert_int_equal(log_read(b.log, &place, &id, length - 8, buf, length, true, &view),
                     ERR_CORRUPT);
    id = id_of(4);
    assert_int_equal(log_read(b.log, &place, &id, 0, buf, sizeof buf, false, &view), ERR_CORRUPT);
    id = id_of(3);
    other = place;
    other.volume = 77;
    assert_int_equal(log_read(b.log, &other, &id, 0, buf, sizeof buf, false, &view), ERR_NOT_FOUND);
    const uint64_t wrong[] = {0, 1, place.offset + 8, place.offset + 1, UINT64_MAX, INT64_MAX & ~7};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        other = place;
        other.offset = wrong[i];
        assert_int_equal(log_read(b.log, &other, &id, 0, buf, sizeof buf, false, &view),
                         ERR_CORRUPT);
        assert_int_equal(log_read(b.log, &other, &id, length, buf, sizeof buf, false, &view),
                         ERR_CORRUPT);
    }
    bench_release(&b);
}

static void every_flipped_byte_of_a_record_is_noticed_by_its_reader(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    struct place place = write_one(b.log, 11); /* a body of 1000 */
    uint64_t used = 80 + 8 + event_len(11);
    uint64_t body_at = place.offset + (used + 7) / 8 * 8;

    for (uint64_t at = place.offset; at < body_at + 1000; at++) {
        flip(&b, place.volume, at);
        assert_int_equal(read_one(b.log, 11, &place, 0, false), ERR_CORRUPT);
        flip(&b, place.volume, at);
    }
    assert_int_equal(read_one(b.log, 11, &place, 0, false), 0);
    bench_release(&b);
}

static void a_batch_takes_what_fits_and_an_empty_one_takes_anything(void **state)
{
    struct bench b;
    struct place place;
    struct made m;
    int rc;
    uint32_t taken = 0;

    (void)state;
    bench_init(&b, 64 * KIB); /* batches of 16 KiB */
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    assert_int_equal(log_begin(b.log, 1), 0);
    make(&m, 3); /* 1000 bytes */
    while ((rc = log_add(b.log, &m.record, &place)) == 0)
        taken++;
    assert_int_equal(rc, ERR_FULL);
    assert_in_range(taken, 10, 16);
    assert_int_equal(log_write(b.log), 0);
    assert_int_equal(log_sync(b.log), 0);
    free(m.body);

    /* Larger than the whole segment would be. */
    make_sized(&m, 5, LIMIT_INLINE_BODY_BYTES);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(log_begin(b.log, 2), 0);
        assert_int_equal(log_add(b.log, &m.record, &place), 0);
        assert_int_equal(place.offset, SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES);
        struct place ignored;
        assert_int_equal(log_add(b.log, &m.record, &ignored), ERR_FULL);
        assert_int_equal(log_write(b.log), 0);
        assert_int_equal(log_sync(b.log), 0);
        assert_int_equal(read_one(b.log, 5, &place, 0, false), 0);
    }
    free(m.body);
    make_sized(&m, 5, 0);
    m.record.event_bytes = LIMIT_EVENT_BYTES + 1;
    assert_int_equal(log_begin(b.log, 3), 0);
    assert_int_equal(log_add(b.log, &m.record, &place), ERR_TOO_BIG);
    free(m.body);
    bench_release(&b);
}

static void a_batch_holds_no_more_records_than_the_limit(void **state)
{
    struct bench b;
    struct place place;
    struct made m;

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    make_sized(&m, 9, 0);
    assert_int_equal(log_begin(b.log, 1), 0);
    for (uint32_t i = 0; i < LIMIT_BATCH_RECORDS; i++)
        assert_int_equal(log_add(b.log, &m.record, &place), 0);
    assert_int_equal(log_add(b.log, &m.record, &place), ERR_FULL);
    assert_int_equal(log_write(b.log), 0);
    free(m.body);
    bench_release(&b);
}

static void a_full_segment_is_followed_by_the_next(void **state)
{
    enum { RECORDS = 200 };
    struct bench b;
    struct place places[RECORDS];
    struct log_segment *segments;
    size_t count;

    (void)state;
    bench_init(&b, 128 * KIB);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    for (uint32_t n = 0; n < RECORDS; n++) {
        places[n] = write_one(b.log, n);
        if (n > 0)
            assert_true(places[n].lsn > places[n - 1].lsn &&
                        places[n].volume >= places[n - 1].volume);
        if (n % 3 == 0) /* sometimes prepared, sometimes made in line */
            (void)log_prepare(b.log);
    }
    assert_int_equal(log_segments(b.log, &segments, &count), 0);
    assert_true(count > 4);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(segments[i].volume, i + 1);
        assert_int_equal(segments[i].sealed, i + 1 < count);
        assert_true(segments[i].end_bytes <= 128 * KIB);
        if (i > 0)
            assert_true(segments[i].base >= segments[i - 1].base + file_size(&b, (uint32_t)i));
    }
    for (uint32_t n = 0; n < RECORDS; n++)
        assert_int_equal(read_one(b.log, n, &places[n], 0, false), 0);
    free(segments);
    bench_release(&b);
}

static void a_segment_is_synced_before_the_next_one_is_begun(void **state)
{
    struct bench b;
    struct place place;
    uint32_t n = 0;
    uint8_t bytes[BATCH_HEADER_BYTES];
    struct batch_header header;
    char path[128];

    (void)state;
    bench_init(&b, 64 * KIB);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    while (log_end(b.log) < 40 * KIB)
        (void)write_one(b.log, n++);
    while (log_prepare(b.log))
        ;
    lsn_t end;
    b.fault.syncs = 0;
    do {
        end = log_end(b.log);
        write_batch(b.log, n, n + 1, &place, false);
        n++;
    } while (place.volume == 1);
    assert_int_equal(b.fault.syncs, 1);
    segment_path(&b, 2, path);
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, bytes, sizeof bytes, SEGMENT_HEADER_BYTES), sizeof bytes);
    close(fd);
    assert_int_equal(batch_header_decode(&header, bytes, place.lsn - BATCH_HEADER_BYTES), 0);
    assert_int_equal(header.synced_through, end);
    assert_int_equal(header.previous, 0);
    bench_release(&b);
}

static void rotation_begins_a_new_segment_and_gives_the_zeros_back(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    struct place first = write_one(b.log, 1);
    while (log_prepare(b.log))
        ;
    assert_in_range(file_size(&b, 1), 4 * MIB, 6 * MIB);
    assert_int_equal(log_rotate(b.log), 0);
    assert_int_equal(log_rotate(b.log), 0); /* nothing in between: nothing to do */
    struct place second = write_one(b.log, 2);
    assert_int_equal(second.volume, first.volume + 1);
    while (log_prepare(b.log))
        ;
    assert_true(file_size(&b, 1) < 8 * KIB);
    assert_int_equal(read_one(b.log, 1, &first, 0, false), 0);
    assert_int_equal(read_one(b.log, 2, &second, 0, false), 0);
    bench_release(&b);
}

/* The nastiest failure: all bytes reached the disk, but the call said no. */
static void a_failed_write_never_happened(void **state)
{
    struct bench b;
    struct place place;
    struct made m;
    struct delivered d = {.bodies = true};

    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        bench_init(&b, 0);
        assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
        struct place first = write_one(b.log, 1);
        lsn_t end = log_end(b.log);

        b.fault.write_first = whole;
        b.fault.fail_write = 1;
        make(&m, 1000);
        assert_int_equal(log_begin(b.log, 9), 0);
        assert_int_equal(log_add(b.log, &m.record, &place), 0);
        assert_int_equal(log_write(b.log), ERR_IO);
        assert_int_equal(log_end(b.log), end);
        assert_int_equal(log_sync(b.log), 0);
        assert_int_not_equal(read_one(b.log, 1000, &place, 0, false), 0);
        free(m.body);

        struct place second = write_one(b.log, 2);
        assert_int_equal(second.volume, first.volume + 1);
        log_close(&b.log);
        assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, &d), 0);
        assert_delivered(&d, 1, 3);
        assert_false(b.recovery.cut);
        assert_int_equal(b.recovery.rotten_bytes, 0);
        bench_release(&b);
    }
}

static void a_write_that_cannot_be_undone_ends_all_writing(void **state)
{
    struct bench b;
    struct place place;
    struct made m;

    (void)state;
    for (int how = 0; how < 2; how++) {
        bench_init(&b, 0);
        assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
        struct place first = write_one(b.log, 1);
        b.fault.fail_write = 1;
        if (how == 0)
            b.fault.fail_truncate = 1;
        else
            b.fault.fail_sync = 1;
        make(&m, 2);
        assert_int_equal(log_begin(b.log, 9), 0);
        assert_int_equal(log_add(b.log, &m.record, &place), 0);
        assert_int_equal(log_write(b.log), ERR_IO);
        assert_int_equal(log_begin(b.log, 9), ERR_READ_ONLY);
        assert_int_equal(log_sync(b.log), ERR_READ_ONLY);
        assert_int_equal(log_rotate(b.log), ERR_READ_ONLY);
        assert_int_equal(read_one(b.log, 1, &first, 0, false), 0);
        free(m.body);
        bench_release(&b);
    }
}

static void a_failed_sync_is_final(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    struct place first = write_one(b.log, 1);
    lsn_t synced = log_synced(b.log);
    write_batch(b.log, 2, 4, NULL, false);
    b.fault.fail_sync = 1;
    assert_int_equal(log_sync(b.log), ERR_IO);
    /* The system would say yes the second time, having dropped the dirty pages. */
    assert_int_equal(log_sync(b.log), ERR_READ_ONLY);
    assert_int_equal(log_begin(b.log, 1), ERR_READ_ONLY);
    assert_int_equal(log_flush(b.log), ERR_READ_ONLY);
    assert_int_equal(log_prepare(b.log), 0);
    assert_int_equal(log_synced(b.log), synced);
    assert_int_equal(read_one(b.log, 1, &first, 0, false), 0);
    bench_release(&b);
}

static void a_full_disk_leaves_no_trail_of_empty_segments(void **state)
{
    struct bench b;
    struct log_segment *segments;
    size_t count;

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    (void)write_one(b.log, 1);
    assert_int_equal(log_rotate(b.log), 0);
    assert_int_equal(log_begin(b.log, 1), 0); /* the next segment is there */
    b.fault.error = ERR_NO_SPACE;
    b.fault.keep_failing = true;
    b.fault.fail_write = 1;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(log_begin(b.log, 1), 0);
        assert_int_equal(log_write(b.log), ERR_NO_SPACE);
    }
    b.fault.fail_write = 0;
    struct place place = write_one(b.log, 2);
    assert_int_equal(read_one(b.log, 2, &place, 0, false), 0);
    assert_int_equal(log_segments(b.log, &segments, &count), 0);
    assert_int_equal(count, 2);
    free(segments);
    bench_release(&b);
}

static void a_segment_that_cannot_be_made_fails_the_batch_only(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    for (int k = 1; k <= 2; k++) {
        b.fault.error = ERR_NO_SPACE;
        b.fault.fail_open = k;
        assert_int_equal(log_begin(b.log, 1), ERR_NO_SPACE);
        b.fault.fail_open = 0;
        b.fault.fail_sync = 1;
        assert_int_equal(log_begin(b.log, 1), ERR_NO_SPACE);
    }
    struct place place = write_one(b.log, 1);
    assert_int_equal(place.volume, 1);
    assert_int_equal(read_one(b.log, 1, &place, 0, false), 0);
    bench_release(&b);
}

static void async_syncs_only_when_flushed(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    b.config.sync = false;
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    (void)write_one(b.log, 1);
    b.fault.syncs = 0;
    (void)write_one(b.log, 2);
    assert_int_equal(log_synced(b.log), log_end(b.log));
    assert_int_equal(b.fault.syncs, 0);
    assert_int_equal(log_flush(b.log), 0);
    assert_int_equal(log_flush(b.log), 0);
    assert_int_equal(b.fault.syncs, 1);
    (void)write_one(b.log, 3);
    b.fault.fail_sync = 1;
    assert_int_equal(log_flush(b.log), ERR_IO);
    assert_int_equal(log_begin(b.log, 1), ERR_READ_ONLY);
    bench_release(&b);
}

static void no_more_files_are_open_than_the_bound(void **state)
{
    enum { SEGMENTS = 530 };
    struct bench b;
    static struct place places[SEGMENTS];

    (void)state;
    bench_init(&b, 64 * KIB);
    b.fault.skip_sync = true;
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    for (uint32_t n = 0; n < SEGMENTS; n++) {
        places[n] = write_one(b.log, 1);
        assert_int_equal(log_rotate(b.log), 0);
    }
    log_close(&b.log);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    for (int round = 0; round < 2; round++)
        for (uint32_t n = 0; n < SEGMENTS; n++)
            assert_int_equal(read_one(b.log, 1, &places[n], 0, false), 0);
    assert_in_range(b.fault.most_open, 500, 516);
    /* What was closed must be opened by somebody who may wait. */
    assert_int_equal(read_one(b.log, 1, &places[0], 0, true), ERR_AGAIN);
    assert_int_equal(read_one(b.log, 1, &places[0], 0, false), 0);
    assert_int_equal(read_one(b.log, 1, &places[0], 0, true), 0);
    bench_release(&b);
}

/* ---- Removal ---- */

struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t moved;
    bool armed, inside, open;
};

static void wait_at_gate(void *arg)
{
    struct gate *gate = arg;

    pthread_mutex_lock(&gate->mutex);
    if (gate->armed) {
        gate->inside = true;
        pthread_cond_broadcast(&gate->moved);
        while (!gate->open)
            pthread_cond_wait(&gate->moved, &gate->mutex);
    }
    pthread_mutex_unlock(&gate->mutex);
}

struct reader {
    struct log *log;
    struct place place;
    int rc;
};

static void *read_in_thread(void *arg)
{
    struct reader *reader = arg;

    reader->rc = read_one(reader->log, 3, &reader->place, 0, false);
    return NULL;
}

static void a_reader_inside_a_removed_segment_finishes_later_ones_do_not_find_it(void **state)
{
    struct bench b;
    struct gate gate = {.mutex = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};
    char path[128];
    pthread_t thread;

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    struct reader reader = {.log = b.log, .place = write_one(b.log, 3)};
    assert_int_equal(log_remove(b.log, 1), ERR_INVALID); /* it is being written */
    assert_int_equal(log_remove(b.log, 9), ERR_NOT_FOUND);
    assert_int_equal(log_rotate(b.log), 0);
    struct place after = write_one(b.log, 4);

    gate.armed = true;
    b.fault.before_read = wait_at_gate;
    b.fault.arg = &gate;
    assert_int_equal(pthread_create(&thread, NULL, read_in_thread, &reader), 0);
    pthread_mutex_lock(&gate.mutex);
    while (!gate.inside)
        pthread_cond_wait(&gate.moved, &gate.mutex);
    pthread_mutex_unlock(&gate.mutex);

    assert_int_equal(log_remove(b.log, 1), 0);
    segment_path(&b, 1, path);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(read_one(b.log, 3, &reader.place, 0, true), ERR_NOT_FOUND);
    int open_before = b.fault.open_now;

    pthread_mutex_lock(&gate.mutex);
    gate.armed = false;
    gate.open = true;
    pthread_cond_broadcast(&gate.moved);
    pthread_mutex_unlock(&gate.mutex);
    pthread_join(thread, NULL);
    assert_int_equal(reader.rc, 0);
    assert_int_equal(b.fault.open_now, open_before - 1);
    assert_int_equal(log_remove(b.log, 1), ERR_NOT_FOUND);
    assert_int_equal(read_one(b.log, 4, &after, 0, false), 0);
    bench_release(&b);
}

/* ---- Threads ---- */

struct crowd {
    struct log *log;
    _Atomic bool stop;
    _Atomic uint32_t written;
    struct place *places;
    _Atomic uint32_t prepared; /* calls that have returned */
};

static void *prepare_in_thread(void *arg)
{
    struct crowd *crowd = arg;

    while (!crowd->stop) {
        (void)log_prepare(crowd->log);
        crowd->prepared++;
    }
    return NULL;
}

static void *read_what_is_there(void *arg)
{
    struct crowd *crowd = arg;
    uint32_t n = 0;

    while (!crowd->stop) {
        uint32_t written = crowd->written;

        if (written == 0)
            continue;
        n = (n * 7 + 3) % written;
        int rc = read_one(crowd->log, n, &crowd->places[n], 0, false);
        if (rc)
            return (void *)(intptr_t)rc;
    }
    return NULL;
}

static void zeros_written_ahead_never_destroy_a_record(void **state)
{
    enum { RECORDS = 3000 };
    struct bench b;
    static struct place places[RECORDS];
    static struct delivered d;
    pthread_t janitor, reader;
    void *reader_rc;

    (void)state;
    bench_init(&b, 2 * MIB); /* the writer is always near what is being filled */
    b.fault.skip_sync = true;
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    struct crowd crowd = {.log = b.log, .places = places};
    assert_int_equal(pthread_create(&janitor, NULL, prepare_in_thread, &crowd), 0);
    assert_int_equal(pthread_create(&reader, NULL, read_what_is_there, &crowd), 0);
    for (uint32_t n = 0; n < RECORDS;) {
        uint32_t to = n + 1 + n % 7 < RECORDS ? n + 1 + n % 7 : RECORDS;

        write_batch(b.log, n, to, places + n, true);
        n = to;
        crowd.written = n;
        /* Whatever the scheduler does, the two shall run side by side. */
        while (crowd.prepared < n / 30)
            sched_yield();
    }
    crowd.stop = true;
    pthread_join(janitor, NULL);
    pthread_join(reader, &reader_rc);
    assert_null(reader_rc);
    for (uint32_t n = 0; n < RECORDS; n++)
        assert_int_equal(read_one(b.log, n, &places[n], 0, false), 0);
    log_close(&b.log);
    d.bodies = true;
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, &d), 0);
    assert_delivered(&d, 0, RECORDS);
    assert_int_equal(b.recovery.rotten_bytes, 0);
    assert_false(b.recovery.cut);
    bench_release(&b);
}

struct writing {
    struct log *log;
    struct place place;
    _Atomic bool done;
};

static void *write_in_thread(void *arg)
{
    struct writing *writing = arg;

    writing->place = write_one(writing->log, 3);
    writing->done = true;
    return NULL;
}

/* The gate stops the thread that writes zeros; the committer's write must pass it all the same,
 * once the batch is built, so only the first to come is held. */
static void wait_once_at_gate(void *arg)
{
    struct gate *gate = arg;

    pthread_mutex_lock(&gate->mutex);
    bool mine = gate->armed && !gate->inside;
    pthread_mutex_unlock(&gate->mutex);
    if (mine)
        wait_at_gate(arg);
}

static void a_batch_that_meets_zeros_being_written_comes_after_them(void **state)
{
    struct bench b;
    struct gate gate = {.mutex = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};
    pthread_t janitor, writer;
    struct crowd crowd = {0};

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    assert_int_equal(log_prepare(b.log), 1); /* makes the segment, not yet zeros */
    crowd.log = b.log;
    gate.armed = true;
    b.fault.before_write = wait_once_at_gate;
    b.fault.arg = &gate;
    assert_int_equal(pthread_create(&janitor, NULL, prepare_in_thread, &crowd), 0);
    pthread_mutex_lock(&gate.mutex);
    while (!gate.inside)
        pthread_cond_wait(&gate.moved, &gate.mutex);
    pthread_mutex_unlock(&gate.mutex);

    struct writing writing = {.log = b.log};
    assert_int_equal(pthread_create(&writer, NULL, write_in_thread, &writing), 0);
    /* One that does not wait would be done in far less. */
    for (int i = 0; i < 20000 && !writing.done; i++)
        sched_yield();
    pthread_mutex_lock(&gate.mutex);
    gate.open = true;
    pthread_cond_broadcast(&gate.moved);
    pthread_mutex_unlock(&gate.mutex);
    pthread_join(writer, NULL);
    crowd.stop = true;
    pthread_join(janitor, NULL);
    assert_int_equal(writing.place.offset, SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES);
    assert_int_equal(read_one(b.log, 3, &writing.place, 0, false), 0);
    bench_release(&b);
}

static void the_next_segment_and_zeros_are_ready_before_they_are_needed(void **state)
{
    struct bench b;
    struct made m;
    struct place place;

    (void)state;
    bench_init(&b, 16 * MIB);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    assert_int_equal(log_prepare(b.log), 1); /* made the first one */
    while (log_prepare(b.log))
        ;
    assert_in_range(file_size(&b, 1), 4 * MIB, 5 * MIB);
    int opens = b.fault.opens;
    make_sized(&m, 5, 200000);
    for (int i = 0; i < 70; i++) {
        uint64_t size = 0;

        assert_int_equal(log_begin(b.log, 1), 0);
        assert_int_equal(log_add(b.log, &m.record, &place), 0);
        size = file_size(&b, place.volume);
        assert_int_equal(log_write(b.log), 0);
        assert_int_equal(log_sync(b.log), 0);
        /* The batch lay on zeros: the file did not grow. */
        assert_int_equal(file_size(&b, place.volume), size);
        opens = b.fault.opens;
        while (log_prepare(b.log))
            ;
        assert_true(file_size(&b, place.volume) <= 16 * MIB);
    }
    assert_int_equal(place.volume, 2);
    assert_true(opens > 0);
    free(m.body);
    bench_release(&b);
}

static void a_failing_upkeep_harms_nobody(void **state)
{
    struct bench b;

    (void)state;
    bench_init(&b, 0);
    assert_int_equal(bench_start(&b, NULL, 0, 0, 0, false, NULL), 0);
    b.fault.error = ERR_NO_SPACE;
    b.fault.fail_open = 1;
    assert_int_equal(log_prepare(b.log), 0);
    struct place place = write_one(b.log, 1);
    b.fault.fail_write = 1;
    assert_int_equal(log_prepare(b.log), 0);
    b.fault.fail_sync = 1;
    assert_int_equal(log_prepare(b.log), 0);
    b.fault.fail_open = 0;
    while (log_prepare(b.log))
        ;
    struct place second = write_one(b.log, 2);
    assert_int_equal(read_one(b.log, 1, &place, 0, false), 0);
    assert_int_equal(read_one(b.log, 2, &second, 0, false), 0);
    bench_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_of_all_sizes_are_read_back),
        cmocka_unit_test(a_batch_is_one_write_and_one_sync),
        cmocka_unit_test(a_read_checks_what_it_was_asked_for),
        cmocka_unit_test(every_flipped_byte_of_a_record_is_noticed_by_its_reader),
        cmocka_unit_test(a_batch_takes_what_fits_and_an_empty_one_takes_anything),
        cmocka_unit_test(a_batch_holds_no_more_records_than_the_limit),
        cmocka_unit_test(a_full_segment_is_followed_by_the_next),
        cmocka_unit_test(a_segment_is_synced_before_the_next_one_is_begun),
        cmocka_unit_test(rotation_begins_a_new_segment_and_gives_the_zeros_back),
        cmocka_unit_test(a_failed_write_never_happened),
        cmocka_unit_test(a_write_that_cannot_be_undone_ends_all_writing),
        cmocka_unit_test(a_failed_sync_is_final),
        cmocka_unit_test(a_full_disk_leaves_no_trail_of_empty_segments),
        cmocka_unit_test(a_segment_that_cannot_be_made_fails_the_batch_only),
        cmocka_unit_test(async_syncs_only_when_flushed),
        cmocka_unit_test(no_more_files_are_open_than_the_bound),
        cmocka_unit_test(a_reader_inside_a_removed_segment_finishes_later_ones_do_not_find_it),
        cmocka_unit_test(zeros_written_ahead_never_destroy_a_record),
        cmocka_unit_test(a_batch_that_meets_zeros_being_written_comes_after_them),
        cmocka_unit_test(the_next_segment_and_zeros_are_ready_before_they_are_needed),
        cmocka_unit_test(a_failing_upkeep_harms_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
