/* Goal: two live processes under one node id are told from a restart, whatever comes late, and
 * everybody agrees which of them has to stop. */
#include "cluster/twin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static struct twins *twins;
static struct wire_process other;

static int begin(void **state)
{
    (void)state;
    return twins_create(&twins);
}

static int end(void **state)
{
    (void)state;
    twins_destroy(&twins);
    return 0;
}

static bool heard(uint8_t node, uint8_t process, uint64_t now_ms)
{
    static const char address[] = "10.0.0.1:11999";
    char mine[sizeof address];
    const struct id128 id = {{node}};
    const struct wire_process said = {.process = {{process}}, .address = {mine, 14}};

    memcpy(mine, address, sizeof mine);
    mine[7] = (char)('0' + process);
    memset(&other, 0, sizeof other);
    return twins_heard(twins, &id, &said, now_ms, &other);
}

static void two_that_go_on_are_twins(void **state)
{
    bool found = false;
    uint64_t now = 1000;

    (void)state;
    assert_false(heard(1, 5, now));
    for (; !found && now < 20000; now += 500) {
        found = heard(1, now % 1000 ? 6 : 5, now + 500);
        if (found)
            break;
    }
    assert_true(found);
    assert_in_range(now, 1000 + TWIN_WHILE_MS, 1000 + 2 * TWIN_WHILE_MS);
    assert_true(heard(1, 6, now + 1000));
    assert_int_equal(other.process.bytes[0], 5);
    assert_memory_equal(other.address.ptr, "10.0.0.5:11999", 14);
    assert_true(heard(1, 5, now + 1100));
    assert_int_equal(other.process.bytes[0], 6);
    assert_false(heard(2, 6, now + 1200)); /* of another node it says nothing */

    /* One of them stops. */
    assert_false(heard(1, 5, now + 1000 + TWIN_ALIVE_MS));
}

static void a_restart_is_no_twin(void **state)
{
    uint64_t now = 1000;

    (void)state;
    for (uint8_t process = 1; process < 50; process++) {
        for (int i = 0; i < 7; i++, now += 1000)
            assert_false(heard(1, process, now));
        now -= 900; /* started again within a tenth of a second */
    }
}

/* What the ended process had sent comes after the first words of the new one, all at once. */
static void words_that_come_late_make_no_twin(void **state)
{
    (void)state;
    assert_false(heard(1, 1, 1000));
    assert_false(heard(1, 2, 2000));
    for (int i = 0; i < 50; i++)
        assert_false(heard(1, 1, 2000 + (uint64_t)i));
    for (uint64_t now = 3000; now < 60000; now += 1000)
        assert_false(heard(1, 2, now));
    /* One word much later. */
    assert_false(heard(1, 1, 60000));
    assert_false(heard(1, 2, 60100));
}

/* Each of them has to go on after the other's first word. */
static void both_have_to_go_on(void **state)
{
    (void)state;
    for (uint64_t now = 1000; now <= 9000; now += 1000)
        assert_false(heard(1, 1, now));
    for (uint64_t i = 0; i < 5; i++) /* at once */
        assert_false(heard(1, 2, 9500 + i));
    for (uint64_t now = 10000; now < 15000; now += 1000)
        assert_false(heard(1, 1, now));
    assert_true(heard(1, 2, 15000));

    assert_false(heard(2, 2, 21000));
    assert_false(heard(2, 2, 22000));
    assert_false(heard(2, 2, 23000));
    assert_false(heard(2, 3, 24000));
    assert_false(heard(2, 3, 25000));
    assert_false(heard(2, 3, 26500));
    assert_false(heard(2, 3, 27000));
    assert_false(heard(2, 2, 27100)); /* its first word since then */
    assert_false(heard(2, 2, 27200));
    assert_true(heard(2, 2, 27300));
}

static void the_younger_yields(void **state)
{
    const struct id128 older = {{1, 2}}, younger = {{1, 3}};

    (void)state;
    assert_true(twin_yields(&younger, &older));
    assert_false(twin_yields(&older, &younger));
    assert_false(twin_yields(&older, &older));
}

/* More nodes than there may be, and processes without end: no more than the table is kept. */
static void what_is_kept_is_bounded(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 5000; i++) {
        const struct id128 node = {{(uint8_t)(i % 251 + 1), (uint8_t)(i % 7)}};
        const struct wire_process said = {.process = {{(uint8_t)(i % 13 + 1), (uint8_t)(i >> 8)}}};

        (void)twins_heard(twins, &node, &said, 1000 + i, &other);
    }
    assert_false(heard(1, 5, 9000));
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        test(two_that_go_on_are_twins),          test(a_restart_is_no_twin),
        test(words_that_come_late_make_no_twin), test(the_younger_yields),
        test(what_is_kept_is_bounded),           test(both_have_to_go_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
