/* Goal: how far and for how long this node is behind is told from what others say alone; nothing
 * said long ago, or by who is gone, makes it look behind; memory is bounded. */
#include "cluster/lag.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void who_has_all_is_not_behind(void **state)
{
    struct lag lag = {0};

    (void)state;
    lag_observe(&lag, 1000, 0, 0);
    lag_observe(&lag, 2000, 7, 7);
    lag_observe(&lag, 3000, 7, 9);
    assert_int_equal(lag_ms(&lag, 5000), 0);
}

static void the_oldest_thing_missing_counts(void **state)
{
    struct lag lag = {0};

    (void)state;
    lag_observe(&lag, 1000, 10, 10);
    lag_observe(&lag, 2000, 12, 10); /* behind since 2000 */
    lag_observe(&lag, 3000, 15, 10);
    assert_int_equal(lag_ms(&lag, 4000), 2000);
    lag_observe(&lag, 4000, 15,
                12); /* it has what came until 2000: now what came until 3000 lacks */
    assert_int_equal(lag_ms(&lag, 4500), 1500);
    lag_observe(&lag, 5000, 15, 15);
    assert_int_equal(lag_ms(&lag, 6000), 0);
    lag_observe(&lag, 7000, 16, 15);
    assert_int_equal(lag_ms(&lag, 7000), 0);
    assert_int_equal(lag_ms(&lag, 7001), 1);
}

static void what_only_the_dead_had_is_not_missed(void **state)
{
    struct lag lag = {0};

    (void)state;
    lag_observe(&lag, 1000, 11, 10);
    lag_observe(&lag, 2000, 20, 10);
    lag_observe(&lag, 3000, 11, 10); /* who had 20 answers no more */
    assert_int_equal(lag_ms(&lag, 3000), 2000);
    lag_observe(&lag, 4000, 0, 10); /* nobody does */
    assert_int_equal(lag_ms(&lag, 4000), 0);
}

static void a_full_list_errs_to_more(void **state)
{
    struct lag lag = {0};

    (void)state;
    for (uint64_t i = 1; i <= 1000; i++) {
        lag_observe(&lag, 100 * i, i, 0);
        assert_true(lag.count <= LAG_MARKS);
        assert_int_equal(lag_ms(&lag, 100 * i), 100 * (i - 1));
    }
    /* Of what comes after 500 the first was there from 50,100 on. */
    lag_observe(&lag, 100000, 1000, 500);
    assert_true(lag_ms(&lag, 100000) >= 100000 - 50100);
    lag_observe(&lag, 100000, 1000, 1000);
    assert_int_equal(lag_ms(&lag, 100000), 0);
}

static void a_rate_is_of_the_last_seconds(void **state)
{
    struct rate rate = {0};
    uint64_t per_second = 0;

    (void)state;
    assert_int_equal(rate_observe(&rate, 1000, 0), 0);
    for (uint64_t ms = 1200; ms <= 60000; ms += 200)
        per_second = rate_observe(&rate, ms, ms * 5);
    assert_in_range(per_second, 4990, 5200);
    for (uint64_t ms = 60200; ms <= 80000; ms += 200)
        per_second = rate_observe(&rate, ms, 300000);
    assert_int_equal(per_second, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_all_is_not_behind),
        cmocka_unit_test(the_oldest_thing_missing_counts),
        cmocka_unit_test(what_only_the_dead_had_is_not_missed),
        cmocka_unit_test(a_full_list_errs_to_more),
        cmocka_unit_test(a_rate_is_of_the_last_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
