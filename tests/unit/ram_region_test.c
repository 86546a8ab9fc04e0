/* Goal: whatever comes, goes, stays and moves, blocks keep their bytes, lie in the region and
 * nowhere else; one allocation does a bounded amount of work. */
#include "storage/ram_region.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/limits.h"

#define BLOCKS 8192
#define SPACE  ((size_t)4 * MIB)
#define HEADER 16

struct fixture {
    struct region region;
    struct region_owner owner;
    void *blocks[BLOCKS]; /* NULL: not there */
    size_t sizes[BLOCKS];
    enum block_fate fates[BLOCKS]; /* what the owner says where it is not forced */
    size_t asked, forced, moves, moved_bytes;
};

static uint8_t byte_of(size_t n, size_t at)
{
    return (uint8_t)(n * 37 + at * 11 + 1);
}

/* A block begins with its number. */
static size_t number_of(const struct fixture *f, const void *block)
{
    size_t n;

    memcpy(&n, block, sizeof n);
    assert_in_range(n, 0, BLOCKS - 1);
    assert_ptr_equal(f->blocks[n], block);
    return n;
}

static enum block_fate judge(void *arg, void *block, bool force)
{
    struct fixture *f = arg;
    size_t n = number_of(f, block);
    enum block_fate fate = f->fates[n];

    f->asked++;
    if (force) {
        f->forced++;
        if (fate == BLOCK_LIVES)
            fate = BLOCK_GOES;
    } else {
        assert_int_equal(f->forced, 0); /* once it has to be, it has to be to the end */
    }
    if (fate == BLOCK_GOES)
        f->blocks[n] = NULL;
    return fate;
}

static void moved(void *arg, void *to, const void *from)
{
    struct fixture *f = arg;
    size_t n;

    memcpy(&n, to, sizeof n);
    assert_in_range(n, 0, BLOCKS - 1);
    assert_ptr_equal(f->blocks[n], from);
    assert_true((uint8_t *)to < (const uint8_t *)from); /* down, and only where there is a gap */
    f->blocks[n] = to;
    f->moves++;
    f->moved_bytes += region_block_bytes(f->sizes[n]);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    void *base = mmap(NULL, SPACE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_non_null(f);
    assert_ptr_not_equal(base, MAP_FAILED);
    f->owner = (struct region_owner){judge, moved, f};
    region_init(&f->region, base, SPACE);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    munmap(f->region.base, SPACE);
    free(f);
    return 0;
}

struct seen {
    struct fixture *f;
    size_t count;
    const uint8_t *after; /* the block before ends here */
};

static void see(void *arg, void *block)
{
    struct seen *seen = arg;
    struct fixture *f = seen->f;
    size_t n = number_of(f, block);
    const uint8_t *bytes = block;

    assert_int_equal((uintptr_t)block % 16, 0);
    assert_true(bytes - HEADER >= seen->after);
    seen->after = bytes - HEADER + region_block_bytes(f->sizes[n]);
    assert_true(seen->after <= f->region.base + f->region.end);
    for (size_t at = sizeof n; at < f->sizes[n]; at++)
        if (bytes[at] != byte_of(n, at))
            fail_msg("block %zu, byte %zu", n, at);
    seen->count++;
}

/* Every block is visited once, in order, where it should be, with its bytes. */
static void check(struct fixture *f)
{
    struct seen seen = {.f = f, .after = f->region.base};
    size_t want = 0;

    for (size_t n = 0; n < BLOCKS; n++)
        want += f->blocks[n] != NULL;
    region_visit(&f->region, see, &seen);
    assert_int_equal(seen.count, want);
}

/* Allocate block N and fill it. */
static bool add(struct fixture *f, size_t n, size_t size, enum block_fate fate)
{
    f->asked = f->forced = f->moves = f->moved_bytes = 0;
    uint8_t *block = region_alloc(&f->region, size, &f->owner);

    if (!block)
        return false;
    assert_true(size >= sizeof n && !f->blocks[n]);
    assert_true(block >= f->region.base + HEADER && block + size <= f->region.base + f->region.end);
    f->blocks[n] = block;
    f->sizes[n] = size;
    f->fates[n] = fate;
    memcpy(block, &n, sizeof n);
    for (size_t at = sizeof n; at < size; at++)
        block[at] = byte_of(n, at);
    return true;
}

/* COUNT blocks of SIZE, from number 0 on, fill the region. */
static void fill(struct fixture *f, size_t count, size_t size, enum block_fate fate)
{
    region_init(&f->region, f->region.base, count * region_block_bytes(size));
    for (size_t n = 0; n < count; n++) {
        assert_true(add(f, n, size, fate));
        assert_int_equal(f->asked, 0); /* there is memory that was never touched */
    }
    assert_int_equal(f->region.top, f->region.end);
    check(f);
}

static void a_block_takes_its_bytes_and_a_header(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(region_block_bytes(0), 16);
    assert_int_equal(region_block_bytes(1), 32);
    assert_int_equal(region_block_bytes(16), 32);
    assert_int_equal(region_block_bytes(17), 48);
    region_init(&f->region, f->region.base, 1024);
    assert_false(add(f, 0, 1024 - HEADER + 1, BLOCK_GOES));
    assert_true(add(f, 0, 1024 - HEADER, BLOCK_GOES));
    check(f);
    assert_true(add(f, 1, 1024 - HEADER, BLOCK_GOES));
    assert_null(f->blocks[0]);
    check(f);
    /* No more is touched than was asked for. */
    region_init(&f->region, f->region.base, SPACE);
    f->blocks[1] = NULL;
    assert_true(add(f, 2, 100, BLOCK_GOES));
    assert_int_equal(f->region.top, region_block_bytes(100));
}

static void what_goes_makes_room_in_turn(void **state)
{
    struct fixture *f = *state;

    fill(f, 100, 48, BLOCK_GOES);
    for (size_t n = 100; n < 350; n++) {
        assert_true(add(f, n, 48, BLOCK_GOES));
        assert_int_equal(f->asked, 1);
        assert_null(f->blocks[n - 100]);
        check(f);
    }
    /* Of two that go for one that is small, the rest is used by the next. */
    assert_true(add(f, 350, 64, BLOCK_GOES));
    assert_int_equal(f->asked, 2);
    assert_true(add(f, 351, 32, BLOCK_GOES));
    assert_int_equal(f->asked, 0);
    check(f);
}

static void what_stays_is_not_touched(void **state)
{
    struct fixture *f = *state;
    void *where[100];

    fill(f, 100, 48, BLOCK_STAYS);
    memcpy(where, f->blocks, sizeof where);
    assert_false(add(f, 100, 48, BLOCK_GOES));
    /* A rest of a round, and two more, the second of them with force. */
    assert_in_range(f->asked, 200, 300);
    assert_in_range(f->forced, 100, 100);
    assert_int_equal(f->moves, 0);
    assert_memory_equal(where, f->blocks, sizeof where);
    check(f);
    /* Two neighbours are one gap; two that are apart are not. */
    f->fates[10] = f->fates[12] = BLOCK_GOES;
    assert_false(add(f, 100, 96, BLOCK_GOES));
    check(f);
    f->fates[11] = BLOCK_GOES;
    assert_true(add(f, 100, 176, BLOCK_STAYS)); /* all three of them, with two of their headers */
    check(f);
    assert_null(f->blocks[11]);
    assert_ptr_equal(f->blocks[100], where[10]);
    assert_false(add(f, 101, 16, BLOCK_GOES));
    check(f);
}

static void what_lives_is_slid_together(void **state)
{
    struct fixture *f = *state;

    fill(f, 100, 48, BLOCK_LIVES);
    f->fates[3] = f->fates[50] = f->fates[97] = BLOCK_GOES;
    assert_true(add(f, 100, 48 * 3 + HEADER * 2, BLOCK_LIVES));
    assert_int_equal(f->forced, 0);
    assert_int_equal(f->moves, 92); /* all between the first that went and the last */
    for (size_t n = 0; n < 100; n++)
        assert_int_equal(f->blocks[n] != NULL, n != 3 && n != 50 && n != 97);
    check(f);
    /* Where all live the first goes, though not on the first asking. */
    assert_true(add(f, 101, 48, BLOCK_LIVES));
    assert_true(f->forced > 0 && f->forced < f->asked);
    check(f);
}

/* With nothing to be gained, only so many are asked before they have to go. */
static void an_allocation_asks_a_bounded_number(void **state)
{
    struct fixture *f = *state;

    fill(f, 5000, 48, BLOCK_LIVES);
    assert_true(add(f, 5000, 48 * 3 + HEADER * 2, BLOCK_LIVES));
    assert_int_equal(f->asked, 1024 + 3);
    assert_int_equal(f->forced, 3);
    assert_int_equal(f->moves, 0);
    check(f);
}

static void an_allocation_moves_a_bounded_number_of_bytes(void **state)
{
    enum { COUNT = 500, SIZE = 8192 - HEADER };
    struct fixture *f = *state;

    fill(f, COUNT, SIZE, BLOCK_LIVES);
    f->fates[0] = BLOCK_GOES;
    assert_true(add(f, COUNT, 2 * 8192 - HEADER, BLOCK_LIVES));
    assert_int_equal(f->moved_bytes, MIB + 8192); /* the one that went over the limit */
    assert_int_equal(f->forced, 1);
    check(f);
    f->fates[200] = BLOCK_GOES; /* less than the limit: nothing is lost */
    assert_true(add(f, COUNT + 1, SIZE, BLOCK_LIVES));
    assert_int_equal(f->forced, 0);
    check(f);
}

/* ---- Shrinking ---- */

static bool is_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i])
            return false;
    return true;
}

static void a_smaller_region_gives_its_pages_back(void **state)
{
    enum { COUNT = 256, BYTES = 4096 };
    struct fixture *f = *state;

    fill(f, COUNT, BYTES - HEADER, BLOCK_LIVES);
    /* Block 100 ends there exactly, 101 a little behind. */
    for (size_t end = 101 * BYTES, n = 0; n < 2; n++, end -= 48) {
        f->asked = f->forced = 0;
        assert_true(region_shrink(&f->region, end, &f->owner));
        assert_int_equal(f->region.end, end);
        assert_int_equal(f->region.top, end);
        assert_in_range(f->region.hand, 0, end);
        check(f);
        for (size_t i = 0; i < COUNT; i++)
            assert_int_equal(f->blocks[i] != NULL, i < 101 - n);
        assert_int_equal(f->forced, n == 0 ? COUNT - 101 : 1);
    }
    assert_true(is_zero(f->region.base + 101 * BYTES, (COUNT - 101) * BYTES));
    assert_false(add(f, 300, 101 * BYTES, BLOCK_LIVES));
    assert_true(add(f, 300, BYTES - HEADER - 48, BLOCK_LIVES)); /* what is left of block 100 */
    check(f);

    region_extend(&f->region, (size_t)COUNT * BYTES);
    assert_int_equal(f->region.end, COUNT * BYTES);
    for (size_t n = 101; n < COUNT; n++) {
        assert_true(add(f, n, BYTES - HEADER, BLOCK_STAYS));
        check(f);
    }
    /* What stays beyond is in the way; below it is not. */
    assert_false(region_shrink(&f->region, 200 * BYTES, &f->owner));
    assert_int_equal(f->region.end, COUNT * BYTES);
    check(f);
    for (size_t n = 0; n < BLOCKS; n++)
        if (f->blocks[n] && (uint8_t *)f->blocks[n] + BYTES > f->region.base + 200 * BYTES)
            f->fates[n] = BLOCK_LIVES;
    assert_true(region_shrink(&f->region, 200 * BYTES, &f->owner));
    check(f);
}

static void an_untouched_end_is_given_up_without_a_word(void **state)
{
    struct fixture *f = *state;

    assert_true(add(f, 0, 100, BLOCK_STAYS));
    assert_true(region_shrink(&f->region, 8192, &f->owner));
    assert_int_equal(f->asked, 0);
    assert_int_equal(f->region.end, 8192);
    assert_int_equal(f->region.top, region_block_bytes(100));
    check(f);
    assert_true(region_shrink(&f->region, region_block_bytes(100), &f->owner));
    assert_int_equal(f->asked, 0);
    check(f);
    assert_false(region_shrink(&f->region, 0, &f->owner));
    f->fates[0] = BLOCK_LIVES;
    assert_true(region_shrink(&f->region, 0, &f->owner));
    assert_null(f->blocks[0]);
    check(f);
    assert_false(add(f, 0, 16, BLOCK_LIVES));
    region_extend(&f->region, SPACE);
    assert_true(add(f, 0, 100, BLOCK_LIVES));
    check(f);
}

/* All of it in any order, for every seed. */
static void blocks_keep_their_bytes_under_random_use(void **state)
{
    enum { SEEDS = 30, STEPS = 400, NUMBERS = 600 };
    struct fixture *f = *state;

    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        size_t end = (size_t)(1 + seed % 5) * 16384;

        srand(seed);
        memset(f->blocks, 0, sizeof f->blocks);
        memset(f->region.base, 0, SPACE);
        region_init(&f->region, f->region.base, end);
        for (unsigned step = 0; step < STEPS; step++) {
            size_t n = (size_t)rand() % NUMBERS, size = 8 + (size_t)(rand() % 1200);
            int dice = rand() % 100;

            f->fates[n] = dice < 60 ? BLOCK_LIVES : dice < 90 ? BLOCK_GOES : BLOCK_STAYS;
            f->forced = 0;
            if (dice == 50 && end > 16384 && region_shrink(&f->region, end - 8208, &f->owner)) {
                end -= 8208;
            } else if (dice == 51 && end < 5 * 16384) {
                end += 8208;
                region_extend(&f->region, end);
            } else if (!f->blocks[n]) {
                (void)add(f, n, size, f->fates[n]);
            }
            assert_int_equal(f->region.end, end);
            check(f);
        }
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_block_takes_its_bytes_and_a_header),
        TEST(what_goes_makes_room_in_turn),
        TEST(what_stays_is_not_touched),
        TEST(what_lives_is_slid_together),
        TEST(an_allocation_asks_a_bounded_number),
        TEST(an_allocation_moves_a_bounded_number_of_bytes),
        TEST(a_smaller_region_gives_its_pages_back),
        TEST(an_untouched_end_is_given_up_without_a_word),
        TEST(blocks_keep_their_bytes_under_random_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
