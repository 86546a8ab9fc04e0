/* Goal: the table of locations remembers all that it has room for, exactly, wherever hashes crowd;
 * without room it forgets what was not used lately; it never takes more than its limit. */
#include "storage/ram_locations.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

/* What a slot takes, the fewest slots, how far from its home one may lie, the slots behind the
 * last home: ram_locations.c says why. */
enum { SLOT = 24, FIRST = 512, RUN = 1024, TAIL = 128 };

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static struct ram_location location_of(uint64_t n)
{
    return (struct ram_location){
        .place = {.disk = n % 2048, .volume = 1 + (uint32_t)n, .offset = n * 8},
        .record_bytes = (uint32_t)(n % (1u << 20)),
    };
}

static bool put(struct location_table *table, uint64_t hash, uint64_t n)
{
    struct ram_location location = location_of(n);
    size_t before = table->count;
    bool done = locations_put(table, hash, &location);

    assert_in_range(table->count, 0, before + 1);
    return done;
}

/* Whether HASH is there; then it is N's location. */
static bool has(struct location_table *table, uint64_t hash, uint64_t n)
{
    struct ram_location want = location_of(n), got;

    memset(&got, 0xff, sizeof got);
    if (!locations_find(table, hash, &got))
        return false;
    assert_true(place_equal(&got.place, &want.place));
    assert_int_equal(got.place.lsn, 0);
    assert_int_equal(got.record_bytes, want.record_bytes);
    return true;
}

static void grow(struct location_table *table)
{
    size_t growth = locations_growth(table), before = locations_bytes(table);
    size_t count = table->count;

    if (growth > 0) {
        assert_int_equal(locations_grow(table), 0);
        assert_int_equal(table->count, count);
        assert_int_equal(locations_growth(table), 0); /* for a while */
    }
    assert_int_equal(locations_bytes(table), before + growth);
}

/* A table of MAX_BYTES that has grown as far as it can. */
static struct location_table grown(size_t max_bytes)
{
    struct location_table table;

    locations_init(&table, max_bytes);
    do {
        assert_int_equal(locations_grow(&table), 0);
    } while (locations_bytes(&table) < max_bytes / 4096 * 4096);
    return table;
}

/* The number of different hashes a grown table takes before it forgets any. */
static size_t room_of(const struct location_table *table)
{
    return table->homes - table->homes / 8;
}

static uint64_t spread(size_t i, size_t count)
{
    return UINT64_MAX / count * i + 1;
}

static void it_takes_pages_up_to_its_limit(void **state)
{
    static const size_t limits[] = {FIRST * SLOT, 20000, 64 * KIB, 100000, 1 * MIB};
    struct location_table table;

    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        unsigned growths = 0;
        uint64_t seed = 5 + i;

        locations_init(&table, limits[i]);
        assert_int_equal(locations_bytes(&table), 0);
        assert_false(put(&table, 1, 1));
        for (size_t n = 0; n < limits[i] / SLOT; n++) {
            growths += locations_growth(&table) > 0;
            grow(&table);
            assert_true(put(&table, next_random(&seed) * UINT64_C(0x9E3779B97F4A7C15), n));
            assert_in_range(locations_bytes(&table), 1, limits[i]);
        }
        /* In steps of a half, so that dealing out again costs no more than putting. */
        assert_in_range(growths, 1, 12);
        assert_int_equal(locations_bytes(&table), limits[i] / 4096 * 4096);
        assert_int_equal(locations_growth(&table), 0);
        assert_int_equal(table.count, room_of(&table));
        locations_release(&table);
        assert_int_equal(locations_bytes(&table), 0);
        assert_null(table.slots);
    }
    /* Too little to be of use. */
    locations_init(&table, FIRST * SLOT - 1);
    assert_int_equal(locations_growth(&table), 0);
    assert_int_equal(locations_grow(&table), ERR_NO_MEMORY);
    assert_false(put(&table, 1, 1));
    assert_false(has(&table, 1, 1));
    locations_remove(&table, 1);
    locations_release(&table);
}

static void a_slot_holds_what_its_bits_can(void **state)
{
    struct location_table table = grown(64 * KIB);
    const struct ram_location largest = {
        .place = {.disk = 2047, .volume = PLACE_LARGE, .offset = UINT64_MAX, .lsn = 5},
        .record_bytes = (1u << 20) - 1};
    struct ram_location odd[3] = {largest, largest, largest}, got;

    (void)state;
    assert_true(locations_put(&table, UINT64_MAX, &largest));
    assert_true(locations_find(&table, UINT64_MAX, &got));
    assert_true(place_equal(&got.place, &largest.place));
    assert_int_equal(got.record_bytes, largest.record_bytes);
    odd[0].place.disk++;
    odd[1].place.volume = 0;
    odd[2].record_bytes++;
    for (int i = 0; i < 3; i++) {
        assert_false(locations_put(&table, 7, &odd[i]));
        assert_false(locations_find(&table, 7, &got));
    }
    assert_int_equal(table.count, 1);
    locations_release(&table);
}

static void a_hash_has_one_location_the_last(void **state)
{
    struct location_table table = grown(64 * KIB);

    (void)state;
    for (uint64_t n = 0; n < 5; n++) {
        assert_true(put(&table, 9, n));
        assert_true(has(&table, 9, n));
        assert_false(has(&table, 8, n));
        assert_false(has(&table, 10, n));
        assert_int_equal(table.count, 1);
    }
    locations_remove(&table, 8);
    locations_remove(&table, 10);
    assert_int_equal(table.count, 1);
    locations_remove(&table, 9);
    assert_int_equal(table.count, 0);
    assert_false(has(&table, 9, 4));
    locations_remove(&table, 9);
    locations_release(&table);
}

/* Every hash after every few steps, with hashes that lie in a few heaps, the ends among them. */
static void a_table_with_room_agrees_with_a_model(void **state)
{
    enum { KEYS = 1000, STEPS = 30000, EACH = 97, HEAPS = 9 };
    static uint64_t model[KEYS]; /* 0: absent */
    uint64_t hashes[KEYS], seed = 42;
    size_t count = 0;
    struct location_table table;

    (void)state;
    locations_init(&table, 256 * KIB);
    for (size_t i = 0; i < KEYS; i++) {
        uint64_t heap = UINT64_MAX / (HEAPS - 1) * (i % HEAPS);

        hashes[i] = i % HEAPS == HEAPS - 1 ? heap - i : heap + ((uint64_t)i << (i % HEAPS * 6));
    }
    for (int step = 1; step <= STEPS; step++) {
        uint64_t r = next_random(&seed), key = (r >> 8) % KEYS;

        /* Long phases of growing and of shrinking. */
        if (r % 10 < (step / 5000 % 2 ? 7 : 3)) {
            locations_remove(&table, hashes[key]);
            count -= model[key] != 0;
            model[key] = 0;
        } else {
            grow(&table);
            assert_true(put(&table, hashes[key], (uint64_t)step));
            count += model[key] == 0;
            model[key] = (uint64_t)step;
        }
        assert_int_equal(table.count, count);
        for (size_t i = 0; step % EACH == 0 && i < KEYS; i++)
            if (has(&table, hashes[i], model[i]) != (model[i] != 0))
                fail_msg("step %d: key %zu", step, i);
    }
    locations_release(&table);
}

/* ---- Replacement ---- */

static void without_room_what_was_not_used_goes(void **state)
{
    struct location_table table = grown(64 * KIB);
    size_t room = room_of(&table), gone = 0;
    uint64_t seed = 11;

    (void)state;
    for (size_t i = 0; i < room; i++)
        assert_true(put(&table, spread(i, room), i));
    assert_int_equal(table.count, room);
    for (size_t i = 0; i < room; i += 2)
        assert_true(has(&table, spread(i, room), i)); /* used */
    for (size_t k = 0; k < room / 8; k++) {
        uint64_t hash = next_random(&seed);

        assert_true(put(&table, hash, k));
        assert_int_equal(table.count, room);
        assert_true(has(&table, hash, k));
    }
    for (size_t i = 0; i < room; i++) {
        if (!has(&table, spread(i, room), i)) {
            assert_int_equal(i % 2, 1);
            gone++;
        }
    }
    assert_int_equal(gone, room / 8);
    locations_release(&table);
}

/* Where all are used the hand does not go round for ever, and one goes. */
static void a_used_one_goes_where_all_are(void **state)
{
    struct location_table table = grown(64 * KIB);
    size_t room = room_of(&table), gone = 0;

    (void)state;
    for (size_t i = 0; i < room; i++)
        assert_true(put(&table, spread(i, room), i));
    for (size_t i = 0; i < room; i++)
        assert_true(has(&table, spread(i, room), i));
    assert_true(put(&table, UINT64_MAX, 1));
    assert_true(has(&table, UINT64_MAX, 1));
    for (size_t i = 0; i < room; i++)
        gone += !has(&table, spread(i, room), i);
    assert_int_equal(gone, 1);
    locations_release(&table);
}

/* However long it goes on: a full table takes all that comes, and what went is the older. */
static void a_full_table_never_refuses_what_comes(void **state)
{
    enum { ROUNDS = 20 };
    static const size_t limits[] = {FIRST * SLOT, 64 * KIB, 1 * MIB};

    (void)state;
    for (size_t l = 0; l < sizeof limits / sizeof *limits; l++) {
        struct location_table table = grown(limits[l]);
        size_t room = room_of(&table), count = ROUNDS * room, fresh = 0, stale = 0;
        uint64_t seed = 7 + l, *hashes = calloc(count, sizeof *hashes);

        assert_non_null(hashes);
        for (size_t i = 0; i < count; i++) {
            hashes[i] = next_random(&seed) * UINT64_C(0x9E3779B97F4A7C15);
            if (!put(&table, hashes[i], i))
                fail_msg("limit %zu: number %zu is refused", limits[l], i);
        }
        assert_int_equal(table.count, room);
        for (size_t i = 0; i < count; i++) {
            bool there = has(&table, hashes[i], i);

            fresh += there && i >= count - room / 4;
            stale += there && i < count - 4 * room;
        }
        assert_true(fresh > room / 4 * 3 / 4);
        assert_true(stale < room / 20);
        free(hashes);
        locations_release(&table);
    }
}

/* ---- Crowds ---- */

static void a_run_is_bounded_and_full_of_what_it_took(void **state)
{
    struct location_table table = grown(128 * KIB);

    (void)state;
    /* From the largest on, so that each pushes all others. */
    for (uint64_t i = RUN + 1; i-- > 0;)
        assert_true(put(&table, i + 1, i));
    assert_int_equal(table.count, RUN + 1);
    assert_false(put(&table, 0, 1));
    assert_false(put(&table, RUN / 2 * UINT64_C(1000), 1));
    assert_false(put(&table, RUN + 2, 1));
    assert_int_equal(table.count, RUN + 1);
    for (uint64_t i = 0; i <= RUN; i++)
        assert_true(has(&table, i + 1, i));
    assert_false(has(&table, 0, 1));
    assert_false(has(&table, RUN + 2, 1));
    locations_remove(&table, 500);
    assert_true(put(&table, 0, 77));
    assert_true(has(&table, 0, 77));
    for (uint64_t i = 0; i <= RUN; i++)
        assert_int_equal(has(&table, i + 1, i), i + 1 != 500);
    locations_release(&table);
}

static void what_is_pushed_over_the_end_has_a_tail(void **state)
{
    struct location_table table;

    (void)state;
    locations_init(&table, 128 * KIB);
    assert_int_equal(locations_grow(&table), 0);
    for (uint64_t i = 0; i <= TAIL; i++)
        assert_true(put(&table, UINT64_MAX - i, i));
    assert_false(put(&table, UINT64_MAX - TAIL - 1, 1));
    for (int growths = 0; growths < 3; growths++) {
        assert_int_equal(table.count, TAIL + 1);
        for (uint64_t i = 0; i <= TAIL; i++)
            assert_true(has(&table, UINT64_MAX - i, i));
        assert_false(has(&table, UINT64_MAX - TAIL - 1, 1));
        assert_int_equal(locations_grow(&table), 0);
    }
    for (uint64_t i = 0; i <= TAIL; i += 2)
        locations_remove(&table, UINT64_MAX - i);
    for (uint64_t i = 0; i <= TAIL; i++)
        assert_int_equal(has(&table, UINT64_MAX - i, i), i % 2);
    locations_release(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_takes_pages_up_to_its_limit),
        cmocka_unit_test(a_slot_holds_what_its_bits_can),
        cmocka_unit_test(a_hash_has_one_location_the_last),
        cmocka_unit_test(a_table_with_room_agrees_with_a_model),
        cmocka_unit_test(without_room_what_was_not_used_goes),
        cmocka_unit_test(a_used_one_goes_where_all_are),
        cmocka_unit_test(a_full_table_never_refuses_what_comes),
        cmocka_unit_test(a_run_is_bounded_and_full_of_what_it_took),
        cmocka_unit_test(what_is_pushed_over_the_end_has_a_tail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
