/* Goal: what hot blocks hand out are the bytes that were offered, also in the queue of a socket
 * whose reader is slow while their place is used for others; their memory and the RAM tier's stay
 * within one limit; what is read more stays, what is read once never comes in. */
#include "storage/hot_blocks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "storage/segment.h"

#define MEMORY     (48 * MIB)
#define SHARE      (MEMORY / 8 * HOT_EIGHTHS)
#define PART_BYTES (HOT_PART_BLOCKS * BLOCK_BYTES)
#define FITS       (SHARE / PART_BYTES)

static _Atomic uint64_t clock_ns;

static uint64_t now_ns(struct env *env)
{
    (void)env;
    return atomic_load(&clock_ns);
}

static struct env test_env = {.mono_ns = now_ns};

struct world {
    struct ram *ram;
    struct hot_blocks *hot;
};

static struct world begin(uint64_t memory)
{
    struct world world;

    assert_int_equal(ram_create(&world.ram, memory), 0);
    assert_int_equal(hot_blocks_create(&world.hot, &test_env, world.ram), 0);
    return world;
}

static void end(struct world *world)
{
    hot_blocks_destroy(&world->hot);
    assert_null(world->hot);
    struct ram_stats stats;
    ram_stats(world->ram, &stats);
    assert_int_equal(stats.lent_bytes, 0);
    ram_destroy(&world->ram);
}

static struct hot_stats stats_of(const struct world *world)
{
    struct hot_stats stats;

    hot_blocks_stats(world->hot, &stats);
    return stats;
}

/* Every 8 bytes of a body say whose they are and where they lie. */
static uint64_t word_of(uint64_t number, uint64_t at)
{
    return number << 40 | at;
}

static void make_block(uint8_t *to, uint64_t number, uint64_t index, size_t bytes)
{
    uint64_t words[BLOCK_BYTES / 8];

    for (size_t i = 0; i < BLOCK_BYTES / 8; i++)
        words[i] = word_of(number, index * (BLOCK_BYTES / 8) + i);
    memcpy(to, words, bytes);
}

static size_t block_bytes(uint64_t size, uint64_t index)
{
    uint64_t left = size - index * BLOCK_BYTES;

    return left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
}

static void offer(const struct world *world, uint64_t number, uint64_t size, uint64_t index)
{
    uint8_t block[BLOCK_BYTES];
    size_t bytes = block_bytes(size, index);

    make_block(block, number, index, bytes);
    hot_blocks_offer(world->hot, number, size, index, block, bytes);
}

static void check_bytes(const uint8_t *bytes, uint64_t number, uint64_t at, size_t len)
{
    static _Thread_local uint8_t expected[BLOCK_BYTES];

    assert_int_equal(at % BLOCK_BYTES, 0);
    make_block(expected, number, at / BLOCK_BYTES, len);
    assert_memory_equal(bytes, expected, len);
}

/* The blocks of a held range, read as sendfile would. */
static void check_range(const struct hot_range *range, uint64_t number, uint64_t size,
                        uint64_t index)
{
    static _Thread_local uint8_t got[BLOCK_BYTES];

    for (size_t at = 0; at < range->bytes; at += BLOCK_BYTES, index++) {
        size_t len = block_bytes(size, index);

        assert_int_equal(pread(range->fd, got, len, (off_t)(range->offset + at)), len);
        check_bytes(got, number, index * BLOCK_BYTES, len);
    }
}

/* Read all of a body as a client would: what is hot from here. The bytes that were. */
static uint64_t read_body(const struct world *world, uint64_t number, uint64_t size)
{
    uint64_t last = block_count(size) - 1, hot_bytes = 0;
    struct hot_range range;

    hot_blocks_care(world->hot);
    for (uint64_t i = 0; i <= last;) {
        if (hot_blocks_hold(world->hot, number, i, last, &range)) {
            uint64_t left = size - i * BLOCK_BYTES;
            uint64_t bytes = range.bytes < left ? range.bytes : left;

            check_range(&range, number, size, i);
            hot_blocks_release(world->hot, &range, bytes);
            hot_bytes += bytes;
            i += range.bytes / BLOCK_BYTES;
        } else {
            offer(world, number, size, i++);
        }
    }
    return hot_bytes;
}

/* Read a body until all of it is hot. */
static void heat(const struct world *world, uint64_t number, uint64_t size)
{
    for (unsigned i = 0; i < 64; i++)
        if (read_body(world, number, size) == size)
            return;
    fail_msg("file %llu did not become hot", (unsigned long long)number);
}

static void check_limits(const struct world *world)
{
    struct hot_stats hot = stats_of(world);
    struct ram_stats ram;

    ram_stats(world->ram, &ram);
    assert_true(hot.used_bytes <= hot.limit_bytes);
    assert_int_equal(hot.limit_bytes, ram.lent_bytes);
    assert_true(ram.used_bytes + ram.lent_bytes <= ram.limit_bytes);
}

/* What the kernel says that the memfd takes. */
static uint64_t real_bytes(const struct world *world, uint64_t number)
{
    struct hot_range range;
    struct stat stat;

    assert_true(hot_blocks_hold(world->hot, number, 0, 0, &range));
    assert_int_equal(fstat(range.fd, &stat), 0);
    hot_blocks_release(world->hot, &range, 0);
    return (uint64_t)stat.st_blocks * 512;
}

static void test_comes_in_when_read_again(void **state)
{
    const uint64_t sizes[] = {256 * KIB + 1,      300 * KIB,      MIB,
                              PART_BYTES - 1,     PART_BYTES,     PART_BYTES + 1,
                              3 * PART_BYTES + 7, 5 * MIB + 12345};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct world world = begin(MEMORY);
        uint64_t last = block_count(sizes[i]) - 1;

        assert_int_equal(read_body(&world, 7, sizes[i]), 0);
        assert_int_equal(stats_of(&world).used_bytes, 0);
        assert_false(hot_blocks_has(world.hot, 7, 0, last));
        heat(&world, 7, sizes[i]);
        assert_true(hot_blocks_has(world.hot, 7, 0, last));
        assert_true(hot_blocks_has(world.hot, 7, last, last));
        assert_false(hot_blocks_has(world.hot, 8, 0, 0));
        assert_false(hot_blocks_has(world.hot, 7, 0, last + 1));
        assert_true(stats_of(&world).used_bytes >= sizes[i]);
        assert_true(real_bytes(&world, 7) <= stats_of(&world).used_bytes);
        check_limits(&world);
        end(&world);
    }
}

static void test_one_block_of_many(void **state)
{
    const uint64_t size = UINT64_C(1) << 40;
    struct world world = begin(MEMORY);
    struct hot_range range;
    bool hot = false;

    (void)state;
    for (unsigned i = 0; i < 1000 && !hot; i++) {
        hot_blocks_care(world.hot);
        hot = hot_blocks_hold(world.hot, 9, 1000003, 2000000, &range);
        if (!hot)
            offer(&world, 9, size, 1000003);
    }
    assert_true(hot);
    assert_int_equal(range.bytes, BLOCK_BYTES); /* and not its neighbours, which are not here */
    check_range(&range, 9, size, 1000003);
    hot_blocks_release(world.hot, &range, BLOCK_BYTES);
    end(&world);
}

static void test_scan_passes_by(void **state)
{
    struct world world = begin(MEMORY);

    (void)state;
    heat(&world, 1, 4 * PART_BYTES);
    for (uint64_t number = 100; number < 140; number++)
        assert_int_equal(read_body(&world, number, PART_BYTES), 0);
    assert_int_equal(read_body(&world, 1, 4 * PART_BYTES), 4 * PART_BYTES);
    assert_int_equal(stats_of(&world).used_bytes, 4 * PART_BYTES);
    assert_int_equal(stats_of(&world).evicted, 0);
    end(&world);
}

/* Bodies that together do not fit and are read in turn: some stay, nothing is copied in and out. */
static void test_no_thrashing(void **state)
{
    struct world world = begin(MEMORY);
    uint64_t hot_bytes = 0, admitted = 0;

    (void)state;
    for (unsigned round = 0; round < 30; round++) {
        if (round == 10)
            admitted = stats_of(&world).admitted;
        hot_bytes = 0;
        for (uint64_t number = 1; number <= 3 * FITS; number++)
            hot_bytes += read_body(&world, number, PART_BYTES);
        check_limits(&world);
    }
    assert_int_equal(stats_of(&world).admitted, admitted);
    assert_int_equal(stats_of(&world).evicted, 0);
    assert_int_equal(hot_bytes, FITS * PART_BYTES);
    end(&world);
}

/* What was hot gives way to what is. */
static void test_the_more_read_wins(void **state)
{
    struct world world = begin(MEMORY);

    (void)state;
    for (unsigned round = 0; round < 20; round++)
        (void)read_body(&world, 1, FITS * PART_BYTES);
    assert_true(hot_blocks_has(world.hot, 1, 0, FITS * HOT_PART_BLOCKS - 1));
    for (uint64_t number = 2; number < 8; number++) {
        heat(&world, number, FITS * PART_BYTES);
        check_limits(&world);
        assert_true(real_bytes(&world, number) <= SHARE);
    }
    assert_int_equal(read_body(&world, 1, FITS * PART_BYTES), 0);
    /* Many short ones in place of the long one: more parts than would fit if they were full. */
    for (uint64_t number = 100; number < 140; number++)
        heat(&world, number, 300 * KIB);
    check_limits(&world);
    end(&world);
}

/* ---- A slow reader ---- */

static void set_small(int fd, int option)
{
    int bytes = 4096;

    assert_int_equal(setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes), 0);
}

/* A connection over the loopback whose receiver has hardly a buffer, but the sender a large one. */
static void connect_pair(int *sender, int *receiver)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int large = 4 * MIB, listener = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(listener >= 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    *receiver = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(*receiver >= 0);
    set_small(*receiver, SO_RCVBUF);
    assert_int_equal(connect(*receiver, (struct sockaddr *)&address, len), 0);
    *sender = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    assert_true(*sender >= 0);
    assert_int_equal(setsockopt(*sender, SOL_SOCKET, SO_SNDBUF, &large, sizeof large), 0);
    close(listener);
}

/* Put as much of the body into the socket as it takes. */
static uint64_t send_hot(const struct world *world, int sender, uint64_t number, uint64_t size)
{
    uint64_t at = 0;

    while (at < size) {
        struct hot_range range;
        uint64_t within = at % BLOCK_BYTES;

        assert_true(
            hot_blocks_hold(world->hot, number, at / BLOCK_BYTES, block_count(size) - 1, &range));
        off_t offset = (off_t)(range.offset + within);
        uint64_t left = size - at, want = range.bytes - within;
        ssize_t n = sendfile(sender, range.fd, &offset, want < left ? want : left);
        hot_blocks_release(world->hot, &range, n > 0 ? (uint64_t)n : 0);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            break;
        }
        at += (uint64_t)n;
    }
    return at;
}

static void receive_and_check(int receiver, uint64_t number, uint64_t bytes)
{
    uint8_t block[BLOCK_BYTES];

    for (uint64_t at = 0; at < bytes; at += BLOCK_BYTES) {
        size_t len = bytes - at < BLOCK_BYTES ? (size_t)(bytes - at) : BLOCK_BYTES;

        assert_int_equal(recv(receiver, block, len, MSG_WAITALL), len);
        check_bytes(block, number, at, len);
    }
}

/* Everything that lies in the queue is evicted and its place used again, several times. */
static void slow_reader(uint64_t size)
{
    struct world world = begin(MEMORY);
    int sender, receiver;

    connect_pair(&sender, &receiver);
    heat(&world, 1, size);
    uint64_t sent = send_hot(&world, sender, 1, size);
    assert_true(sent >= 128 * KIB);
    for (uint64_t number = 2; number < 6; number++)
        heat(&world, number, FITS * PART_BYTES);
    assert_false(hot_blocks_has(world.hot, 1, 0, 0));
    assert_true(stats_of(&world).evicted >= 3 * FITS);
    receive_and_check(receiver, 1, sent);
    close(sender);
    close(receiver);
    end(&world);
}

static void test_slow_reader(void **state)
{
    (void)state;
    slow_reader(FITS * PART_BYTES); /* huge pages, where the system has them */
    slow_reader(MIB + 5);           /* small ones */
}

/* While a range is held, it stays, whatever comes. */
static void test_held_stays(void **state)
{
    struct world world = begin(MEMORY);
    struct hot_range range;

    (void)state;
    heat(&world, 1, PART_BYTES);
    assert_true(hot_blocks_hold(world.hot, 1, 0, HOT_PART_BLOCKS - 1, &range));
    assert_int_equal(range.bytes, PART_BYTES);
    for (uint64_t number = 2; number < 5; number++)
        for (unsigned round = 0; round < 40; round++)
            (void)read_body(&world, number, FITS * PART_BYTES);
    assert_true(stats_of(&world).evicted > 0);
    check_range(&range, 1, PART_BYTES, 0);
    hot_blocks_release(world.hot, &range, 0);
    end(&world);
}

/* ---- Memory ---- */

static void test_borrows_and_gives_back(void **state)
{
    struct world world = begin(MEMORY);
    struct ram_stats ram;

    (void)state;
    (void)read_body(&world, 1, 4 * MIB);
    ram_stats(world.ram, &ram);
    assert_int_equal(ram.lent_bytes, 0);
    heat(&world, 1, 4 * MIB);
    ram_stats(world.ram, &ram);
    assert_int_equal(ram.lent_bytes, SHARE);
    for (unsigned i = 0; i < 3; i++) { /* in use it stays */
        atomic_fetch_add(&clock_ns, (HOT_IDLE_MS + 1) * UINT64_C(1000000));
        assert_int_equal(read_body(&world, 1, 4 * MIB), 4 * MIB);
    }
    for (unsigned i = 0; i < 2; i++) {
        atomic_fetch_add(&clock_ns, (HOT_IDLE_MS + 1) * UINT64_C(1000000));
        hot_blocks_care(world.hot);
    }
    ram_stats(world.ram, &ram);
    assert_int_equal(ram.lent_bytes, 0);
    assert_int_equal(stats_of(&world).used_bytes, 0);
    assert_false(hot_blocks_has(world.hot, 1, 0, 0));
    heat(&world, 1, 4 * MIB); /* and once more */
    check_limits(&world);
    end(&world);
}

/* Small bodies get what large ones do not use, and give way to them. */
static void test_shares_with_small_bodies(void **state)
{
    static uint8_t body[LIMIT_INLINE_BODY_BYTES];
    struct world world = begin(MEMORY);
    struct ram_stats ram;

    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t n = 0; n < 1000; n++) {
            struct id128 id = {{1}};

            memcpy(id.bytes + 8, &n, sizeof n);
            ram_fill(world.ram, ram_token(world.ram, &id), &id, "A: b\r\n", 6, body, sizeof body, 1,
                     0, "\"x\"");
        }
        ram_stats(world.ram, &ram);
        assert_true(ram.used_bytes > (MEMORY - ram.lent_bytes) / 10 * 8);
        check_limits(&world);
        heat(&world, 1, 4 * PART_BYTES);
        check_limits(&world);
    }
    ram_stats(world.ram, &ram);
    assert_int_equal(ram.lent_bytes, SHARE);
    end(&world);
}

static void test_too_little_memory(void **state)
{
    struct world world = begin(2 * MIB);

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(read_body(&world, 1, 4 * MIB), 0);
    hot_blocks_care(world.hot);
    assert_int_equal(stats_of(&world).used_bytes, 0);
    end(&world);
}

/* ---- Threads ---- */

struct reader {
    struct world *world;
    unsigned seed;
};

static void *read_much(void *arg)
{
    struct reader *reader = arg;
    unsigned dice = reader->seed;

    for (unsigned i = 0; i < 60; i++) {
        /* A few bodies of odd sizes, which together do not fit; the first are read most. */
        dice = dice * 1103515245 + 12345;
        uint64_t number = 1 + (dice >> 16) % (1 + (dice >> 24) % 12);

        (void)read_body(reader->world, number, number * MIB + 777 * number);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct world world = begin(MEMORY);
    struct reader readers[4];
    pthread_t threads[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        readers[i] = (struct reader){&world, i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, read_much, &readers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    check_limits(&world);
    assert_true(stats_of(&world).sent_bytes > 0);
    end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_in_when_read_again),
        cmocka_unit_test(test_one_block_of_many),
        cmocka_unit_test(test_scan_passes_by),
        cmocka_unit_test(test_no_thrashing),
        cmocka_unit_test(test_the_more_read_wins),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_held_stays),
        cmocka_unit_test(test_borrows_and_gives_back),
        cmocka_unit_test(test_shares_with_small_bodies),
        cmocka_unit_test(test_too_little_memory),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
