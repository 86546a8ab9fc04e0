/* Goal: a large body comes back exactly as it was written, however it arrived; any damage to its
 * file is noticed; and no failure, wherever it strikes, leaves a file behind or loses one. */
#include "storage/large.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/faulty_io.h"

#define HEADER 4096
#define FRAME  24

static const struct id128 store_id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

struct fixture {
    char dir[64];
    struct faulty faulty;
    struct large_store *store;
};

static int remove_tree(const char *dir)
{
    char command[128];

    (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);

    strcpy(fixture->dir, "/tmp/large_test.XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    faulty_init(&fixture->faulty);
    assert_int_equal(
        large_open(&fixture->store, &fixture->faulty.env, fixture->dir, &store_id, 7, true), 0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    large_close(&fixture->store);
    assert_null(fixture->store);
    int rc = remove_tree(fixture->dir);
    free(fixture);
    return rc;
}

/* The body's byte at AT. */
static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)((at * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

struct stored {
    uint64_t number, size, trailer;
};

static int store_body(struct fixture *fixture, uint64_t size, size_t piece, struct stored *out)
{
    struct large_writer *writer;
    uint8_t *buf = malloc(piece);
    int rc = large_create(&writer, fixture->store);

    for (uint64_t at = 0; at < size && !rc;) {
        size_t step = size - at < piece ? size - at : piece;

        for (size_t i = 0; i < step; i++)
            buf[i] = byte_at(at + i);
        rc = large_write(writer, buf, step);
        at += step;
    }
    free(buf);
    if (!rc)
        rc = large_finish(writer, &out->number, &out->size, &out->trailer);
    if (!rc)
        assert_int_equal(large_size(writer), size);
    large_writer_destroy(&writer, false);
    assert_null(writer);
    return rc;
}

static struct stored stored_body(struct fixture *fixture, uint64_t size, size_t piece)
{
    struct stored stored = {0};

    assert_int_equal(store_body(fixture, size, piece, &stored), 0);
    assert_int_equal(stored.size, size);
    return stored;
}

/* Every block, in order; ERR_MISMATCH where verified bytes are not those written. */
static int read_body(struct fixture *fixture, const struct stored *stored)
{
    struct large_reader *reader;
    uint8_t *buf = malloc(BLOCK_BYTES);
    uint64_t at = 0;

    int rc = large_reader_open(&reader, fixture->store, stored->number, stored->size);
    for (uint64_t i = 0; i < block_count(stored->size) && !rc; i++) {
        size_t len = 0;

        rc = large_read_block(reader, i, buf, &len, false);
        for (size_t j = 0; j < len && !rc; j++)
            if (buf[j] != byte_at(at + j))
                rc = ERR_MISMATCH;
        at += len;
    }
    if (!rc && at != stored->size)
        rc = ERR_MISMATCH;
    large_reader_close(&reader);
    free(buf);
    return rc;
}

static int check(struct fixture *fixture, const struct stored *stored)
{
    return large_check(fixture->store, stored->number, stored->size, stored->trailer, true);
}

static void path_of(const struct fixture *fixture, uint64_t number, bool settled, char *out,
                    size_t cap)
{
    if (settled)
        (void)snprintf(out, cap, "%s/large/%02x/%016llx", fixture->dir, (unsigned)(number & 255),
                       (unsigned long long)number);
    else
        (void)snprintf(out, cap, "%s/tmp/%016llx", fixture->dir, (unsigned long long)number);
}

static int count_name(void *arg, const char *name)
{
    (void)name;
    ++*(unsigned *)arg;
    return 0;
}

static unsigned count_tmp(const struct fixture *fixture)
{
    char path[128];
    unsigned count = 0;

    (void)snprintf(path, sizeof path, "%s/tmp", fixture->dir);
    assert_int_equal(io_system()->list(io_system(), path, count_name, &count), 0);
    return count;
}

static void comes_back_as_it_was_whatever_its_size_and_pieces(void **state)
{
    const uint64_t sizes[] = {0,
                              1,
                              BLOCK_BYTES - 1,
                              BLOCK_BYTES,
                              BLOCK_BYTES + 1,
                              4 * BLOCK_BYTES - 1,
                              4 * BLOCK_BYTES,
                              4 * BLOCK_BYTES + 1,
                              3 * MIB + 12345};
    const size_t pieces[] = {1000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 256 * KIB, MIB};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct stored first = {0};

        for (size_t j = 0; j < sizeof pieces / sizeof *pieces; j++) {
            struct stored stored = stored_body(fixture, sizes[i], pieces[j]);

            assert_true(stored.number > first.number);
            assert_int_equal(stored.number >> 40, 7);
            first = stored;
            assert_int_equal(read_body(fixture, &stored), 0);
            assert_int_equal(large_settle(fixture->store, &stored.number, 1), 0);
            assert_int_equal(read_body(fixture, &stored), 0);
            assert_int_equal(check(fixture, &stored), 0);
            assert_int_equal(large_remove(fixture->store, stored.number), 0);
        }
    }
    assert_int_equal(count_tmp(fixture), 0);
}

static void survives_a_disk_that_does_less_than_it_was_asked(void **state)
{
    struct fixture *fixture = *state;

    fixture->faulty.step = 777;
    struct stored stored = stored_body(fixture, 200001, 70001);
    assert_int_equal(check(fixture, &stored), 0);
    assert_int_equal(read_body(fixture, &stored), 0);
}

static void blocks_can_be_read_in_any_order(void **state)
{
    /* More than two pages of checksums: 34 MiB have 544 blocks. */
    enum { SIZE_MIB = 34 };
    struct fixture *fixture = *state;
    struct stored stored = stored_body(fixture, SIZE_MIB * MIB + 5, MIB);
    struct large_reader *reader;
    uint8_t *buf = malloc(BLOCK_BYTES);
    uint64_t blocks = block_count(stored.size);

    assert_int_equal(large_reader_open(&reader, fixture->store, stored.number, stored.size), 0);
    for (uint64_t i = 0; i < 40; i++) {
        uint64_t index = i * 509 % blocks;
        size_t len;

        assert_int_equal(large_read_block(reader, index, buf, &len, false), 0);
        assert_int_equal(len, index == blocks - 1 ? 5 : BLOCK_BYTES);
        assert_int_equal(buf[0], byte_at(index * BLOCK_BYTES));
        assert_int_equal(buf[len - 1], byte_at(index * BLOCK_BYTES + len - 1));
    }
    large_reader_close(&reader);
    free(buf);
}

static void checksums_of_a_huge_body_do_not_pile_up_in_memory(void **state)
{
    struct fixture *fixture = *state;
    struct large_writer *writer;
    struct stored stored;
    const uint64_t size = 1100 * MIB + 3; /* two spills */
    void *zeros = calloc(1, MIB);

    /* Holes instead of a gigabyte on the disk. */
    fixture->faulty.sparse = true;
    assert_int_equal(large_create(&writer, fixture->store), 0);
    for (uint64_t at = 0; at < size; at += MIB)
        assert_int_equal(large_write(writer, zeros, size - at < MIB ? size - at : MIB), 0);
    assert_int_equal(count_tmp(fixture), 2); /* the body and what was spilled */
    assert_int_equal(large_finish(writer, &stored.number, &stored.size, &stored.trailer), 0);
    large_writer_destroy(&writer, false);
    free(zeros);
    assert_int_equal(count_tmp(fixture), 1);
    assert_int_equal(large_check(fixture->store, stored.number, stored.size, stored.trailer, false),
                     0);

    /* Each checksum depends on its block's number, so one out of place would show. */
    struct large_reader *reader;
    uint8_t *buf = malloc(BLOCK_BYTES);
    uint64_t blocks = block_count(size);
    size_t len;
    assert_int_equal(large_reader_open(&reader, fixture->store, stored.number, size), 0);
    for (uint64_t i = 0; i < blocks; i += 128) /* 8192, where the second spill begins, among them */
        assert_int_equal(large_read_block(reader, i, buf, &len, false), 0);
    assert_int_equal(large_read_block(reader, 8191, buf, &len, false), 0);
    assert_int_equal(large_read_block(reader, blocks - 1, buf, &len, false), 0);
    assert_int_equal(len, 3);
    large_reader_close(&reader);
    free(buf);
}

/* Flip a bit of the file's byte at AT. */
static void flip(const char *path, uint64_t at)
{
    struct io *io = io_system();
    uint8_t byte;
    int fd = io_open(io, path, IO_WRITE);

    assert_true(fd >= 0);
    assert_int_equal(io_read(io, fd, &byte, 1, at, false), 0);
    byte ^= 0x10;
    assert_int_equal(io_write(io, fd, &byte, 1, at), 0);
    assert_int_equal(io_close(io, &fd), 0);
}

static void a_flipped_bit_is_noticed_wherever_it_is(void **state)
{
    struct fixture *fixture = *state;
    const uint64_t size = BLOCK_BYTES + 1001; /* seven bytes of padding */
    struct stored stored = stored_body(fixture, size, size);
    const uint64_t end = HEADER + size + 7 + 2 * 8 + FRAME;
    char path[128];

    path_of(fixture, stored.number, false, path, sizeof path);
    for (uint64_t at = 0; at < end;) {
        bool in_body = at >= HEADER && at < HEADER + size;

        flip(path, at);
        int rc = check(fixture, &stored);
        if (at >= 8 && at < HEADER)
            assert_true(rc == ERR_CORRUPT || rc == ERR_FORMAT);
        else
            assert_int_equal(rc, ERR_CORRUPT);
        /* A reader that sees the body whole has seen no damage that matters to it. */
        if (in_body)
            assert_int_equal(read_body(fixture, &stored), ERR_CORRUPT);
        flip(path, at);
        at += in_body ? 1009 : 1;
    }
    assert_int_equal(check(fixture, &stored), 0);
}

static void a_file_of_another_length_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct io *io = io_system();
    struct stored stored = stored_body(fixture, 300000, 4096);
    struct io_stat stat;
    char path[128];

    path_of(fixture, stored.number, false, path, sizeof path);
    int fd = io_open(io, path, IO_WRITE);
    assert_true(fd >= 0);
    assert_int_equal(io->stat_fd(io, fd, &stat), 0);
    const uint64_t lengths[] = {stat.size_bytes + 1,
                                stat.size_bytes - 1,
                                stat.size_bytes - FRAME,
                                HEADER + 300000,
                                HEADER + 65536,
                                HEADER,
                                100,
                                0};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        assert_int_equal(io->truncate(io, fd, lengths[i]), 0);
        assert_int_equal(read_body(fixture, &stored), ERR_CORRUPT);
        assert_int_equal(check(fixture, &stored), ERR_CORRUPT);
    }
    assert_int_equal(io_close(io, &fd), 0);
}

static void a_file_is_not_taken_for_another(void **state)
{
    struct fixture *fixture = *state;
    struct stored a = stored_body(fixture, 300000, 4096), b = stored_body(fixture, 300000, 4096);
    struct stored wrong;
    char a_path[128], b_path[128];

    wrong = a;
    wrong.trailer = b.trailer; /* the same bytes, another number */
    assert_int_equal(check(fixture, &wrong), ERR_CORRUPT);
    wrong = a;
    wrong.size--;
    assert_int_equal(check(fixture, &wrong), ERR_CORRUPT);
    wrong.size = UINT64_MAX;
    assert_int_equal(check(fixture, &wrong), ERR_CORRUPT);

    path_of(fixture, a.number, false, a_path, sizeof a_path);
    path_of(fixture, b.number, false, b_path, sizeof b_path);
    assert_int_equal(rename(a_path, b_path), 0);
    assert_int_equal(read_body(fixture, &b), ERR_CORRUPT);
    assert_int_equal(check(fixture, &a), ERR_NOT_FOUND);

    struct large_store *other;
    const struct id128 other_id = {{9}};
    assert_int_equal(rename(b_path, a_path), 0);
    assert_int_equal(check(fixture, &a), 0);
    assert_int_equal(large_open(&other, &fixture->faulty.env, fixture->dir, &other_id, 8, true), 0);
    assert_int_equal(large_check(other, a.number, a.size, a.trailer, true), ERR_CORRUPT);
    large_close(&other);
}

static void settling_again_changes_nothing_and_tells_what_is_missing(void **state)
{
    struct fixture *fixture = *state;
    struct stored a = stored_body(fixture, 300000, 4096), b = stored_body(fixture, 300001, 4096);
    const uint64_t numbers[] = {a.number, 12345, b.number};

    /* The two final directories and tmp/ are made durable. */
    fixture->faulty.synced_dirs = 0;
    assert_int_equal(large_settle(fixture->store, numbers, 3), ERR_NOT_FOUND);
    assert_int_equal(fixture->faulty.synced_dirs, 3);
    assert_int_equal(count_tmp(fixture), 0);
    assert_int_equal(check(fixture, &a), 0);
    assert_int_equal(check(fixture, &b), 0);
    /* So they are for a file that had its name: a crash may have come before the sync. */
    assert_int_equal(large_settle(fixture->store, &a.number, 1), 0);
    assert_int_equal(fixture->faulty.synced_dirs, 5);
    assert_int_equal(large_settle(fixture->store, NULL, 0), 0);
    assert_int_equal(fixture->faulty.synced_dirs, 5);

    assert_int_equal(large_remove(fixture->store, a.number), 0);
    assert_int_equal(large_remove(fixture->store, a.number), 0);
    assert_int_equal(check(fixture, &a), ERR_NOT_FOUND);
    assert_int_equal(large_settle(fixture->store, &a.number, 1), ERR_NOT_FOUND);
}

static void an_unfinished_or_discarded_writer_leaves_no_file(void **state)
{
    struct fixture *fixture = *state;
    struct large_writer *writer;
    struct stored stored;

    assert_int_equal(large_create(&writer, fixture->store), 0);
    assert_int_equal(large_write(writer, "x", 1), 0);
    assert_int_equal(count_tmp(fixture), 1);
    large_writer_destroy(&writer, false);
    assert_int_equal(count_tmp(fixture), 0);

    assert_int_equal(large_create(&writer, fixture->store), 0);
    assert_int_equal(large_finish(writer, &stored.number, &stored.size, &stored.trailer), 0);
    assert_int_equal(count_tmp(fixture), 1);
    large_writer_destroy(&writer, true);
    assert_int_equal(count_tmp(fixture), 0);
    large_writer_destroy(&writer, true); /* NULL-safe */
}

static void cleaning_removes_all_that_is_in_tmp_and_nothing_else(void **state)
{
    struct fixture *fixture = *state;
    struct stored kept = stored_body(fixture, 300000, 4096);

    assert_int_equal(large_settle(fixture->store, &kept.number, 1), 0);
    for (int i = 0; i < 600; i++) {
        char path[128];
        struct io *io = io_system();

        (void)snprintf(path, sizeof path, "%s/tmp/%d.sums", fixture->dir, i);
        int fd = io_open(io, path, IO_WRITE | IO_CREATE);
        assert_true(fd >= 0);
        assert_int_equal(io_close(io, &fd), 0);
    }
    assert_int_equal(count_tmp(fixture), 600);
    assert_int_equal(large_clean_tmp(fixture->store), 0);
    assert_int_equal(count_tmp(fixture), 0);
    assert_int_equal(check(fixture, &kept), 0);
}

static void a_read_that_would_wait_says_so_and_can_be_repeated(void **state)
{
    struct fixture *fixture = *state;
    struct stored stored = stored_body(fixture, 300000, 4096);
    struct large_reader *reader;
    uint8_t *buf = malloc(BLOCK_BYTES);
    size_t len;

    assert_int_equal(large_reader_open(&reader, fixture->store, stored.number, stored.size), 0);
    fixture->faulty.cold = true;
    assert_int_equal(large_read_block(reader, 1, buf, &len, true), ERR_AGAIN);
    assert_int_equal(large_read_block(reader, 1, buf, &len, false), 0);
    assert_int_equal(large_read_block(reader, 1, buf, &len, true), ERR_AGAIN);
    fixture->faulty.cold = false;
    assert_int_equal(large_read_block(reader, 1, buf, &len, true), 0);
    assert_int_equal(buf[0], byte_at(BLOCK_BYTES));
    large_reader_close(&reader);
    free(buf);
}

static void settle_meanwhile(struct faulty *faulty, const char *path)
{
    struct fixture *fixture = faulty->arg;
    uint64_t number = 0;

    if (strncmp(path + strlen(fixture->dir), "/tmp/", 5) != 0)
        return;
    faulty->on_open = NULL;
    assert_int_equal(sscanf(strrchr(path, '/') + 1, "%16lx", &number), 1);
    assert_int_equal(large_settle(fixture->store, &number, 1), 0);
}

static void a_file_renamed_while_it_is_being_opened_is_found(void **state)
{
    struct fixture *fixture = *state;
    struct stored stored = stored_body(fixture, 300000, 4096);

    fixture->faulty.arg = fixture;
    fixture->faulty.on_open = settle_meanwhile;
    assert_int_equal(read_body(fixture, &stored), 0);
    assert_null(fixture->faulty.on_open);
}

static void a_failed_upload_reports_and_leaves_nothing_whichever_call_fails(void **state)
{
    struct fixture *fixture = *state;
    long k = 1;

    for (;; k++) {
        struct stored stored;

        faulty_arm(&fixture->faulty, k, k % 2 ? ERR_IO : ERR_NO_SPACE);
        int rc = store_body(fixture, 5 * MIB, 300000, &stored);
        bool struck = faulty_struck(&fixture->faulty);
        faulty_arm(&fixture->faulty, 0, 0);
        if (!struck) {
            assert_int_equal(rc, 0);
            assert_int_equal(check(fixture, &stored), 0);
            break;
        }
        assert_int_equal(rc, k % 2 ? ERR_IO : ERR_NO_SPACE);
        assert_int_equal(count_tmp(fixture), 0);
    }
    assert_true(k > 20);
}

static void what_is_due_is_handed_over_and_read_back_while_more_comes(void **state)
{
    struct fixture *fixture = *state;
    struct large_writer *writer;
    uint8_t *body = malloc(MIB), *back = malloc(MIB);

    for (uint64_t i = 0; i < MIB; i++)
        body[i] = byte_at(i);
    assert_int_equal(large_create(&writer, fixture->store), 0);
    assert_int_equal(large_write(writer, body, 1000), 0);
    assert_false(large_due(writer));
    assert_int_equal(large_write(writer, body + 1000, MIB - 1000), 0);
    assert_true(large_due(writer));
    struct large_span span = large_take_due(writer);
    assert_false(large_due(writer));
    assert_int_equal(large_span_end(span), MIB);
    assert_int_equal(large_write(writer, body, 5000), 0);
    assert_int_equal(large_hand_over(writer, span, false), 0);
    assert_int_equal(large_read_back(writer, back, MIB, 0), 0);
    assert_memory_equal(back, body, MIB);
    assert_int_equal(large_hand_over(writer, span, true), 0);
    assert_int_equal(large_read_back(writer, back, 5000, MIB), 0);
    assert_memory_equal(back, body, 5000);
    faulty_arm(&fixture->faulty, 1, ERR_IO);
    assert_int_equal(large_read_back(writer, back, 1, 0), ERR_IO);
    faulty_arm(&fixture->faulty, 0, 0);
    large_writer_destroy(&writer, true);
    free(back);
    free(body);
}

static void a_failed_writer_stays_failed(void **state)
{
    struct fixture *fixture = *state;
    struct large_writer *writer;
    struct stored stored;

    assert_int_equal(large_create(&writer, fixture->store), 0);
    faulty_arm(&fixture->faulty, 1, ERR_NO_SPACE);
    assert_int_equal(large_write(writer, "abc", 3), ERR_NO_SPACE);
    assert_int_equal(large_write(writer, "abc", 3), ERR_NO_SPACE);
    assert_int_equal(large_finish(writer, &stored.number, &stored.size, &stored.trailer),
                     ERR_NO_SPACE);
    large_writer_destroy(&writer, false);
    assert_int_equal(count_tmp(fixture), 0);
}

static void a_failed_settle_loses_no_file_and_can_be_repeated(void **state)
{
    struct fixture *fixture = *state;

    for (long k = 1;; k++) {
        struct stored a = stored_body(fixture, 300000, 4096), b = stored_body(fixture, 1, 1);
        const uint64_t numbers[] = {a.number, b.number};

        faulty_arm(&fixture->faulty, k, ERR_IO);
        int rc = large_settle(fixture->store, numbers, 2);
        bool struck = faulty_struck(&fixture->faulty);
        faulty_arm(&fixture->faulty, 0, 0);
        assert_int_equal(rc, struck ? ERR_IO : 0);
        assert_int_equal(check(fixture, &a), 0);
        assert_int_equal(check(fixture, &b), 0);
        assert_int_equal(large_settle(fixture->store, numbers, 2), 0);
        assert_int_equal(count_tmp(fixture), 0);
        if (!struck)
            break;
    }
}

static void a_failing_read_is_reported_whichever_call_fails(void **state)
{
    struct fixture *fixture = *state;
    struct stored stored = stored_body(fixture, 300000, 4096);

    for (long k = 1;; k++) {
        faulty_arm(&fixture->faulty, k, ERR_IO);
        int rc = check(fixture, &stored);
        bool struck = faulty_struck(&fixture->faulty);
        /* The last call is the close of a file that was only read. */
        if (!struck || rc == 0)
            break;
        assert_int_equal(rc, ERR_IO);
        assert_true(k < 100);
    }
    faulty_arm(&fixture->faulty, 0, 0);
    assert_int_equal(check(fixture, &stored), 0);
}

static void opening_again_finds_what_was_stored(void **state)
{
    struct fixture *fixture = *state;
    struct stored a = stored_body(fixture, 300000, 4096), b;

    large_close(&fixture->store);
    assert_int_equal(large_open(&fixture->store, &fixture->faulty.env, fixture->dir, &store_id,
                                UINT64_C(1) << 24, true),
                     ERR_RANGE);
    assert_int_equal(
        large_open(&fixture->store, &fixture->faulty.env, fixture->dir, &store_id, 8, false), 0);
    assert_int_equal(check(fixture, &a), 0);
    b = stored_body(fixture, 300000, 4096);
    assert_true(b.number > a.number);
    assert_int_equal(large_settle(fixture->store, &b.number, 1), 0);
    assert_int_equal(check(fixture, &b), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(comes_back_as_it_was_whatever_its_size_and_pieces),
        TEST(survives_a_disk_that_does_less_than_it_was_asked),
        TEST(blocks_can_be_read_in_any_order),
        TEST(checksums_of_a_huge_body_do_not_pile_up_in_memory),
        TEST(a_flipped_bit_is_noticed_wherever_it_is),
        TEST(a_file_of_another_length_is_refused),
        TEST(a_file_is_not_taken_for_another),
        TEST(settling_again_changes_nothing_and_tells_what_is_missing),
        TEST(an_unfinished_or_discarded_writer_leaves_no_file),
        TEST(cleaning_removes_all_that_is_in_tmp_and_nothing_else),
        TEST(a_read_that_would_wait_says_so_and_can_be_repeated),
        TEST(a_file_renamed_while_it_is_being_opened_is_found),
        TEST(a_failed_upload_reports_and_leaves_nothing_whichever_call_fails),
        TEST(what_is_due_is_handed_over_and_read_back_while_more_comes),
        TEST(a_failed_writer_stays_failed),
        TEST(a_failed_settle_loses_no_file_and_can_be_repeated),
        TEST(a_failing_read_is_reported_whichever_call_fails),
        TEST(opening_again_finds_what_was_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
