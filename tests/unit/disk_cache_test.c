/* Goal: what the disk cache gives back are the bytes that came, under the same id and SHA-256
 * alone; its limit and the disk's room are kept; what was forgotten, given up or damaged is found
 * no more, and its room is free once nobody reads it. */
#include "storage/disk_cache.h"

#include "base/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCKS 64 /* of the cache */

/* The system's files on a disk of the test's size, which may fail. */
struct world {
    struct io io; /* first */
    struct env env;
    struct io_space space;
    _Atomic uint64_t size; /* of the cache's file, as it was truncated last, or grew */
    int fail_write;
    bool flip, cold;
    char dir[64];
    struct disk_cache *cache;
};

static struct world world;

static int fake_space(struct io *io, const char *path, struct io_space *out)
{
    (void)io;
    (void)path;
    *out = world.space;
    return 0;
}

static ssize_t fake_pread(struct io *io, int fd, void *buf, size_t len, uint64_t offset,
                          bool nowait)
{
    (void)io;
    if (nowait && world.cold)
        return ERR_AGAIN;
    ssize_t got = io_system()->pread(io_system(), fd, buf, len, offset, false);

    if (got > 0 && world.flip)
        ((uint8_t *)buf)[got / 2] ^= 4;
    return got;
}

static ssize_t fake_pwritev(struct io *io, int fd, const struct iovec *iov, int count,
                            uint64_t offset)
{
    (void)io;
    if (world.fail_write > 0 && --world.fail_write == 0)
        return ERR_IO;
    ssize_t put = io_system()->pwritev(io_system(), fd, iov, count, offset);

    if (put > 0 && offset + (uint64_t)put > world.size)
        world.size = offset + (uint64_t)put;
    return put;
}

static int fake_truncate(struct io *io, int fd, uint64_t size)
{
    (void)io;
    world.size = size;
    return io_system()->truncate(io_system(), fd, size);
}

static int setup(void **state)
{
    (void)state;
    world = (struct world){.io = *io_system(), .env = *env_system()};
    world.io.space = fake_space;
    world.io.pread = fake_pread;
    world.io.pwritev = fake_pwritev;
    world.io.truncate = fake_truncate;
    world.env.io = &world.io;
    world.space = (struct io_space){.total_bytes = 100 * GIB, .free_bytes = 50 * GIB};
    (void)snprintf(world.dir, sizeof world.dir, "/tmp/disk_cache_test.XXXXXX");
    assert_non_null(mkdtemp(world.dir));
    return disk_cache_create(&world.cache, &world.env, world.dir, BLOCKS * BLOCK_BYTES + 1);
}

static int teardown(void **state)
{
    (void)state;
    disk_cache_destroy(&world.cache);
    assert_null(world.cache);
    return rmdir(world.dir); /* nothing lies in it */
}

static struct disk_cache_stats stats(void)
{
    struct disk_cache_stats out;

    disk_cache_stats(world.cache, &out);
    return out;
}

static struct id128 id_of(unsigned number)
{
    return (struct id128){{1, (uint8_t)(number >> 8), (uint8_t)number}};
}

static const uint8_t *sha_of(unsigned number)
{
    static _Thread_local uint8_t sha[SHA256_BYTES];

    sha[3] = (uint8_t)number;
    return sha;
}

static void make(uint8_t *block, unsigned seed, uint64_t index)
{
    for (size_t i = 0; i < BLOCK_BYTES; i++)
        block[i] = (uint8_t)(seed * 31 + index * 7 + i + (i >> 8));
}

static int begin(struct disk_copy **copy, unsigned number, uint64_t size)
{
    struct id128 id = id_of(number);

    return disk_cache_begin(copy, world.cache, &id, sha_of(number), size);
}

static int write_all(struct disk_copy *copy, unsigned seed)
{
    uint64_t size = disk_copy_size(copy);
    uint8_t block[BLOCK_BYTES];

    for (uint64_t at = 0; at < size; at += BLOCK_BYTES) {
        make(block, seed, at / BLOCK_BYTES);
        int rc = disk_copy_write(copy, block, size - at < BLOCK_BYTES ? size - at : BLOCK_BYTES);
        if (rc)
            return rc;
    }
    return 0;
}

static void store(unsigned number, uint64_t size)
{
    struct disk_copy *copy;

    assert_int_equal(begin(&copy, number, size), 0);
    assert_int_equal(write_all(copy, number), 0);
    disk_copy_complete(copy);
    disk_copy_release(&copy);
    assert_null(copy);
}

static struct disk_copy *find(unsigned number, uint64_t size)
{
    struct id128 id = id_of(number);

    return disk_cache_find(world.cache, &id, sha_of(number), size);
}

static void check(struct disk_copy *copy, unsigned seed)
{
    static _Thread_local uint8_t got[BLOCK_BYTES], expected[BLOCK_BYTES];
    uint64_t size = disk_copy_size(copy);
    size_t len;

    for (uint64_t at = 0; at < size; at += BLOCK_BYTES) {
        assert_int_equal(disk_copy_read(copy, at / BLOCK_BYTES, got, &len, false), 0);
        assert_int_equal(len, size - at < BLOCK_BYTES ? size - at : BLOCK_BYTES);
        make(expected, seed, at / BLOCK_BYTES);
        assert_memory_equal(got, expected, len);
    }
}

static bool has(unsigned number, uint64_t size)
{
    struct disk_copy *copy = find(number, size);

    if (copy)
        check(copy, number);
    bool found = copy != NULL;
    disk_copy_release(&copy);
    return found;
}

static void what_came_is_found_under_its_own_name_alone(void **state)
{
    static const uint64_t sizes[] = {1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1,
                                     7 * BLOCK_BYTES};
    struct id128 id = id_of(1);

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        store(1 + i, sizes[i]);
    for (unsigned i = 0; i < 5; i++) {
        assert_true(has(1 + i, sizes[i]));
        assert_false(has(1 + i, sizes[i] + 1));
    }
    assert_null(disk_cache_find(world.cache, &id, sha_of(2), 1)); /* other bytes under this id */
    assert_false(has(9, 1));
    assert_int_equal(stats().copies, 5);
    assert_int_equal(stats().stored, 5);
    assert_int_equal(stats().used_bytes, (1 + 1 + 1 + 2 + 7) * BLOCK_BYTES);
    assert_int_equal(stats().limit_bytes, BLOCKS * BLOCK_BYTES);
    assert_int_equal(stats().hits, 5);
    assert_int_equal(stats().misses, 7);
}

static void one_is_made_at_a_time_and_found_when_it_is_complete(void **state)
{
    struct disk_copy *copy, *other;

    (void)state;
    assert_int_equal(begin(&copy, 1, 100000), 0);
    assert_int_equal(begin(&other, 1, 100000), ERR_EXISTS);
    assert_null(find(1, 100000));
    assert_int_equal(write_all(copy, 1), 0);
    check(copy, 1); /* its maker can read it already */
    assert_null(find(1, 100000));
    disk_copy_complete(copy);
    assert_true(has(1, 100000));
    assert_int_equal(begin(&other, 1, 100000), ERR_EXISTS);
    disk_copy_release(&copy);
    assert_true(has(1, 100000));

    assert_int_equal(begin(&copy, 2, 100000), 0); /* given up */
    assert_int_equal(stats().used_bytes, 4 * BLOCK_BYTES);
    disk_copy_release(&copy);
    assert_int_equal(stats().used_bytes, 2 * BLOCK_BYTES);
    store(2, 100000);
    assert_true(has(2, 100000));
}

static void the_limit_holds_and_what_is_asked_for_stays(void **state)
{
    struct disk_copy *copy;

    (void)state;
    assert_int_equal(begin(&copy, 1, (BLOCKS / 2 + 1) * BLOCK_BYTES), ERR_TOO_BIG);
    store(1, BLOCKS / 2 * BLOCK_BYTES); /* the most that one may take */
    store(2, 4 * BLOCK_BYTES);
    for (unsigned i = 3; i < 100; i++) {
        store(i, (1 + i % 7) * BLOCK_BYTES - 5);
        assert_true(has(2, 4 * BLOCK_BYTES));
        assert_true(stats().used_bytes <= BLOCKS * BLOCK_BYTES);
    }
    assert_false(has(1, BLOCKS / 2 * BLOCK_BYTES));
    assert_false(has(3, 4 * BLOCK_BYTES - 5));
    assert_true(has(99, 2 * BLOCK_BYTES - 5));
    assert_true(world.size <= BLOCKS * BLOCK_BYTES);
    assert_true(stats().evicted > 60);
}

static void what_is_read_is_not_evicted(void **state)
{
    struct disk_copy *held[4], *copy;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        store(i, BLOCKS / 4 * BLOCK_BYTES);
        held[i] = find(i, BLOCKS / 4 * BLOCK_BYTES);
        assert_non_null(held[i]);
    }
    assert_int_equal(begin(&copy, 9, 1), ERR_FULL);
    disk_copy_release(&held[2]);
    store(9, 1);
    assert_false(has(2, BLOCKS / 4 * BLOCK_BYTES));
    for (unsigned i = 0; i < 4; i++) {
        if (held[i])
            check(held[i], i);
        disk_copy_release(&held[i]);
    }
}

static void what_is_forgotten_is_free_when_nobody_reads_it(void **state)
{
    struct id128 id = id_of(1);
    struct disk_copy *copy, *reader;
    uint8_t other[SHA256_BYTES] = {9};

    (void)state;
    store(1, 3 * BLOCK_BYTES);
    store(2, BLOCK_BYTES);
    assert_int_equal(disk_cache_begin(&copy, world.cache, &id, other, BLOCK_BYTES), 0);
    assert_int_equal(write_all(copy, 5), 0);
    reader = find(1, 3 * BLOCK_BYTES);
    disk_cache_forget(world.cache, &id);
    assert_false(has(1, 3 * BLOCK_BYTES));
    assert_true(has(2, BLOCK_BYTES));
    check(reader, 1);
    disk_copy_complete(copy); /* too late */
    assert_null(disk_cache_find(world.cache, &id, other, BLOCK_BYTES));
    assert_int_equal(stats().used_bytes, 5 * BLOCK_BYTES);
    disk_copy_release(&copy);
    disk_copy_release(&reader);
    assert_int_equal(stats().used_bytes, BLOCK_BYTES);
    assert_int_equal(stats().copies, 1);
    disk_cache_forget(world.cache, &id); /* nothing there */
    store(1, 3 * BLOCK_BYTES);
    assert_true(has(1, 3 * BLOCK_BYTES));
}

static void a_damaged_block_is_not_given_and_its_copy_goes(void **state)
{
    uint8_t block[BLOCK_BYTES];
    size_t len;

    (void)state;
    store(1, 3 * BLOCK_BYTES);
    struct disk_copy *copy = find(1, 3 * BLOCK_BYTES);
    world.cold = true;
    assert_int_equal(disk_copy_read(copy, 1, block, &len, true), ERR_AGAIN);
    world.cold = false;
    assert_int_equal(disk_copy_read(copy, 1, block, &len, true), 0);
    world.flip = true;
    assert_int_equal(disk_copy_read(copy, 1, block, &len, true), ERR_CORRUPT);
    world.flip = false;
    assert_false(has(1, 3 * BLOCK_BYTES));
    assert_int_equal(stats().bad_blocks, 1);
    disk_copy_release(&copy);
    assert_int_equal(stats().used_bytes, 0);
}

static void a_write_that_fails_leaves_nothing(void **state)
{
    struct disk_copy *copy;

    (void)state;
    for (int k = 1; k <= 3; k++) {
        assert_int_equal(begin(&copy, 1, 3 * BLOCK_BYTES), 0);
        world.fail_write = k;
        assert_int_equal(write_all(copy, 1), ERR_IO);
        disk_copy_release(&copy);
        assert_false(has(1, 3 * BLOCK_BYTES));
        assert_int_equal(stats().used_bytes, 0);
    }
}

static void the_disks_room_is_left_to_others(void **state)
{
    struct disk_copy *copy;

    (void)state;
    store(1, 4 * BLOCK_BYTES);
    world.space.free_bytes = 2 * GIB; /* twice the reserve of 1 % */
    assert_int_equal(begin(&copy, 2, 5 * BLOCK_BYTES), ERR_NO_SPACE);
    store(3, 4 * BLOCK_BYTES); /* in the place of the first */
    assert_true(has(3, 4 * BLOCK_BYTES));
    assert_false(has(1, 4 * BLOCK_BYTES));
    assert_int_equal(world.size, 4 * BLOCK_BYTES);
    world.space.free_bytes += 2 * BLOCK_BYTES;
    store(4, 2 * BLOCK_BYTES);
    assert_true(has(3, 4 * BLOCK_BYTES));

    copy = find(3, 4 * BLOCK_BYTES);
    assert_false(disk_cache_shrink(world.cache)); /* one is read */
    check(copy, 3);
    disk_copy_release(&copy);
    assert_true(disk_cache_shrink(world.cache));
    assert_int_equal(world.size, 0);
    assert_false(disk_cache_shrink(world.cache));
    world.space.free_bytes = 50 * GIB;
    store(1, BLOCKS / 2 * BLOCK_BYTES);
    assert_true(has(1, BLOCKS / 2 * BLOCK_BYTES));
}

static void at_most_a_tenth_of_the_disk_is_taken(void **state)
{
    struct disk_cache *cache;
    struct disk_cache_stats it;

    (void)state;
    world.space.total_bytes = 10 * 16 * BLOCK_BYTES;
    assert_int_equal(disk_cache_create(&cache, &world.env, world.dir, GIB), 0);
    disk_cache_stats(cache, &it);
    assert_int_equal(it.limit_bytes, 16 * BLOCK_BYTES);
    disk_cache_destroy(&cache);
    assert_int_equal(disk_cache_create(&cache, &world.env, "/nonsense", GIB), ERR_NOT_FOUND);
    assert_null(cache);
}

/* Threads store, find, read, forget: what is found is always right. */
static void *hammer(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;

    for (unsigned i = 0; i < 3000; i++) {
        unsigned number = (unsigned)rand_r(&seed) % 40;
        uint64_t size = (number % 9 + 1) * BLOCK_BYTES - number;
        struct disk_copy *copy = NULL;
        struct id128 id = id_of(number);

        switch (rand_r(&seed) % 8) {
        case 0:
            disk_cache_forget(world.cache, &id);
            break;
        case 1:
        case 2:
            if (begin(&copy, number, size) != 0)
                break;
            if (write_all(copy, number) == 0 && rand_r(&seed) % 4)
                disk_copy_complete(copy);
            disk_copy_release(&copy);
            break;
        case 3:
            if (i % 100 == 0)
                (void)disk_cache_shrink(world.cache);
            break;
        default:
            (void)has(number, size);
        }
    }
    return NULL;
}

static void many_threads_find_what_came(void **state)
{
    pthread_t threads[4];

    (void)state;
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(stats().bad_blocks, 0);
    assert_true(stats().hits > 100);
    for (unsigned i = 0; i < 40; i++) {
        struct id128 id = id_of(i);

        disk_cache_forget(world.cache, &id);
    }
    assert_int_equal(stats().used_bytes, 0);
}

int main(void)
{
#define CACHE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CACHE_TEST(what_came_is_found_under_its_own_name_alone),
        CACHE_TEST(one_is_made_at_a_time_and_found_when_it_is_complete),
        CACHE_TEST(the_limit_holds_and_what_is_asked_for_stays),
        CACHE_TEST(what_is_read_is_not_evicted),
        CACHE_TEST(what_is_forgotten_is_free_when_nobody_reads_it),
        CACHE_TEST(a_damaged_block_is_not_given_and_its_copy_goes),
        CACHE_TEST(a_write_that_fails_leaves_nothing),
        CACHE_TEST(the_disks_room_is_left_to_others),
        CACHE_TEST(at_most_a_tenth_of_the_disk_is_taken),
        CACHE_TEST(many_threads_find_what_came),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
