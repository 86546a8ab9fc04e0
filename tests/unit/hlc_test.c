/* Goal: a node's timestamps always grow, whatever the wall clocks do, and nobody can drag its clock
 * into the future. */
#include "journal/hlc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

#define T0   UINT64_C(1763700000000)
#define YEAR (UINT64_C(365) * 86400 * 1000)

static void grows_when_the_wall_clock_does_not(void **state)
{
    const uint64_t walls[] = {T0, T0, T0 - 5000, T0 + 1, 0, T0 + 2};
    struct hlc clock = {0};
    hlc_time before = 0;

    (void)state;
    for (size_t i = 0; i < sizeof walls / sizeof *walls; i++) {
        hlc_time t = hlc_stamp(&clock, walls[i], 0);

        assert_true(t > before);
        before = t;
    }
    assert_int_equal(hlc_wall_ms(before), T0 + 2);
}

static void an_effect_is_ordered_after_its_cause_on_a_slow_node(void **state)
{
    struct hlc fast = {0}, slow = {0};
    hlc_time cause = hlc_stamp(&fast, T0 + HLC_MAX_DRIFT_MS, 0);

    (void)state;
    assert_true(hlc_observe(&slow, T0, cause));
    assert_true(hlc_stamp(&slow, T0, 0) > cause);
}

static void what_is_believed_moves_the_clock_there_and_no_further(void **state)
{
    struct hlc fast = {0}, slow = {0};
    hlc_time seen = hlc_stamp(&fast, T0 + HLC_MAX_DRIFT_MS / 2, 0);

    (void)state;
    assert_true(hlc_observe(&slow, T0, seen));
    assert_int_equal(slow.last, seen);
    assert_true(hlc_observe(&slow, T0, seen - 1)); /* old news is good news */
    assert_int_equal(slow.last, seen);
    assert_int_equal(hlc_stamp(&slow, T0, 0), seen + 1);
}

static void a_wrong_clock_elsewhere_moves_ours_to_the_bound_only(void **state)
{
    struct hlc wrong = {0}, clock = {0};
    hlc_time future = hlc_stamp(&wrong, T0 + YEAR, 0);

    (void)state;
    assert_false(hlc_observe(&clock, T0, future));
    assert_int_equal(hlc_wall_ms(hlc_stamp(&clock, T0, 0)), T0 + HLC_MAX_DRIFT_MS);
    assert_int_equal(hlc_wall_ms(hlc_stamp(&clock, T0 + 2 * HLC_MAX_DRIFT_MS, 0)),
                     T0 + 2 * HLC_MAX_DRIFT_MS);
}

static void a_value_from_the_future_can_be_overwritten_and_stays_there(void **state)
{
    struct hlc wrong = {0}, clock = {0};
    hlc_time future = hlc_stamp(&wrong, T0 + YEAR, 0);

    (void)state;
    assert_int_equal(hlc_stamp(&clock, T0, future), future + 1);
    assert_int_equal(hlc_wall_ms(hlc_stamp(&clock, T0 + 1, 0)), T0 + 1);
}

static void a_lagging_node_can_write_for_as_long_as_it_lags(void **state)
{
    enum { EVENTS = 200000 }; /* more than the counter holds */
    struct hlc clock = {.last = (hlc_time)T0 << 16};
    hlc_time t = 0;

    (void)state;
    for (int i = 0; i < EVENTS; i++)
        t = hlc_stamp(&clock, T0 - 50000, 0);
    assert_in_range(hlc_wall_ms(t), T0, T0 + EVENTS / 65536);
}

/* Five nodes under jumping clocks exchange timestamps: each one's own grow strictly, for every
 * seed. */
static void never_goes_back_under_random_clocks_and_messages(void **state)
{
    enum { NODES = 5, STEPS = 20000, SEEDS = 20 };

    (void)state;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        struct hlc clocks[NODES] = {{0}};
        hlc_time last[NODES] = {0};

        srand(seed);
        for (int i = 0; i < STEPS; i++) {
            int from = rand() % NODES, to = rand() % NODES;
            uint64_t wall = T0 + (uint64_t)i / 10 + (uint64_t)(rand() % 50000);
            hlc_time t = hlc_stamp(&clocks[from], wall, 0);

            assert_true(t > last[from]);
            last[from] = t;
            if (hlc_observe(&clocks[to], wall, t))
                assert_true(clocks[to].last >= t);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_when_the_wall_clock_does_not),
        cmocka_unit_test(an_effect_is_ordered_after_its_cause_on_a_slow_node),
        cmocka_unit_test(what_is_believed_moves_the_clock_there_and_no_further),
        cmocka_unit_test(a_wrong_clock_elsewhere_moves_ours_to_the_bound_only),
        cmocka_unit_test(a_value_from_the_future_can_be_overwritten_and_stays_there),
        cmocka_unit_test(a_lagging_node_can_write_for_as_long_as_it_lags),
        cmocka_unit_test(never_goes_back_under_random_clocks_and_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
