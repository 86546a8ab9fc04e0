/* Goal: every object of a drain is asked of somebody, of somebody else where that brings nothing,
 * never of two within the patience; the table keeps its bounds; what is settled is counted once. */
#include "cluster/drain.h"

#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static struct event_item item_of(unsigned n)
{
    struct event_item item = {.id = {{[14] = (uint8_t)(n >> 8), [15] = (uint8_t)n}}};

    item.sha256[0] = (uint8_t)n;
    return item;
}

static void add(struct drain *drain, unsigned n, uint64_t size)
{
    struct event_item item = item_of(n);

    drain_add(drain, &item, size);
}

/* Everything that is due at NOW_MS; how often each target was asked for something. */
static size_t ask(struct drain *drain, const struct id128 *targets, size_t count, uint64_t now_ms,
                  size_t *asked, struct id128 *of)
{
    struct event_item items[16];
    struct id128 node;
    size_t taken, total = 0;

    memset(asked, 0, count * sizeof *asked);
    while ((taken = drain_next(drain, targets, count, now_ms, &node, items, 16)) > 0) {
        size_t at = 0;

        assert_true(taken <= 16);
        while (!id_equal(&targets[at], &node))
            at++;
        assert_true(at < count);
        asked[at] += taken;
        for (size_t i = 0; of && i < taken; i++)
            of[items[i].id.bytes[15]] = node;
        total += taken;
    }
    return total;
}

static int setup(void **state)
{
    return drain_create((struct drain **)state);
}

static int teardown(void **state)
{
    drain_destroy((struct drain **)state);
    return *state != NULL;
}

static void objects_are_spread_and_asked_once(void **state)
{
    const struct id128 targets[] = {{{1}}, {{2}}, {{3}}};
    struct drain *drain = *state;
    size_t asked[3];

    for (unsigned n = 0; n < 90; n++)
        add(drain, n, 10);
    add(drain, 7, 10); /* known already */
    assert_int_equal(drain_count(drain), 90);
    assert_int_equal(ask(drain, targets, 0, 1000, asked, NULL), 0);
    assert_int_equal(ask(drain, targets, 3, 1000, asked, NULL), 90);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(asked[i], 30);
    assert_int_equal(ask(drain, targets, 3, 1000 + DRAIN_PATIENCE_MS - 1, asked, NULL), 0);
    assert_int_equal(drain_figures(drain).again, 0);
}

static void who_brings_nothing_is_not_asked_again_at_once(void **state)
{
    const struct id128 targets[] = {{{1}}, {{2}}, {{3}}};
    struct drain *drain = *state;
    struct id128 first[64], second[64];
    size_t asked[3];

    for (unsigned n = 0; n < 60; n++)
        add(drain, n, 10);
    assert_int_equal(ask(drain, targets, 3, 1000, asked, first), 60);
    assert_int_equal(ask(drain, targets, 3, 2000 + DRAIN_PATIENCE_MS, asked, second), 60);
    for (unsigned n = 0; n < 60; n++)
        assert_false(id_equal(&first[n], &second[n]));
    assert_int_equal(drain_figures(drain).again, 60);
    /* Who takes nothing any more is not waited for: what it was asked goes to the others. */
    assert_int_equal(ask(drain, targets, 2, 2001 + DRAIN_PATIENCE_MS, asked, first), 20);
    for (unsigned n = 0; n < 60; n++)
        assert_false(id_equal(&first[n], &targets[2]) && id_equal(&second[n], &targets[2]));
    /* With a single one left it is that one. */
    assert_int_equal(ask(drain, targets, 1, 3000 + 3 * DRAIN_PATIENCE_MS, asked, NULL), 60);
}

static void much_gets_more_time(void **state)
{
    const struct id128 target = {{1}};
    struct drain *drain = *state;
    size_t asked;

    add(drain, 1, 100 * DRAIN_SPEED_BYTES);
    assert_int_equal(ask(drain, &target, 1, 1000, &asked, NULL), 1);
    assert_int_equal(ask(drain, &target, 1, 1000 + DRAIN_PATIENCE_MS + 99000, &asked, NULL), 0);
    assert_int_equal(ask(drain, &target, 1, 1000 + DRAIN_PATIENCE_MS + 101000, &asked, NULL), 1);
}

static void what_is_settled_is_counted_once(void **state)
{
    struct drain *drain = *state;

    for (unsigned n = 0; n < 3; n++)
        add(drain, n, 100);
    assert_int_equal(drain_at(drain, 1)->id.bytes[15], 1);
    drain_settle(drain, 1, false);
    drain_settle(drain, 1, true); /* object 2 has taken its place: deleted meanwhile */
    struct drain_figures f = drain_figures(drain);
    assert_int_equal(f.objects, 1);
    assert_int_equal(f.bytes, 100);
    assert_int_equal(f.moved_objects, 1);
    assert_int_equal(f.moved_bytes, 100);
    assert_int_equal(drain_at(drain, 0)->id.bytes[15], 0);
    drain_settle(drain, 0, false);
    assert_int_equal(drain_figures(drain).moved_objects, 2);
    assert_int_equal(drain_count(drain), 0);
}

static void the_table_is_bounded(void **state)
{
    struct drain *drain = *state;

    for (unsigned n = 0; n < LIMIT_DRAIN_OBJECTS; n++) {
        assert_true(drain_has_room(drain));
        add(drain, n, 1);
    }
    assert_false(drain_has_room(drain));
    drain_settle(drain, 5, false);
    assert_true(drain_has_room(drain));
    add(drain, 2000, LIMIT_DRAIN_BYTES); /* one, however large, but no more besides */
    drain_settle(drain, 0, false);
    assert_false(drain_has_room(drain));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(objects_are_spread_and_asked_once, setup, teardown),
        cmocka_unit_test_setup_teardown(who_brings_nothing_is_not_asked_again_at_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(much_gets_more_time, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_settled_is_counted_once, setup, teardown),
        cmocka_unit_test_setup_teardown(the_table_is_bounded, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
