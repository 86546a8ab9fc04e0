/* Goal: the vector knows each run once, as far as it was ever told; its sums depend on what it
 * knows and on nothing else; it lists runs in the order of their origins. */
#include "cluster/vector.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static struct id128 origin_of(uint64_t number)
{
    struct id128 id = {{0}};

    for (int i = 0; i < 8; i++)
        id.bytes[i] = (uint8_t)(number >> (56 - 8 * i));
    return id;
}

static struct vector_run run_of(uint64_t number, uint64_t seq)
{
    return (struct vector_run){.origin = origin_of(number), .seq = seq};
}

static struct vector *fresh(size_t limit)
{
    struct vector *vector;

    assert_int_equal(vector_create(&vector, limit, 7), 0);
    return vector;
}

static bool raised(struct vector *vector, struct vector_run run)
{
    bool changed;

    assert_int_equal(vector_raise(vector, &run, &changed), 0);
    return changed;
}

static bool same(struct vector_sum a, struct vector_sum b)
{
    return a.count == b.count && hash128_equal(&a.hash, &b.hash);
}

static void an_empty_vector_has_no_runs_and_sums_of_zero(void **state)
{
    struct vector *vector = fresh(10);
    struct id128 any = origin_of(1);

    (void)state;
    assert_null(vector_find(vector, &any));
    assert_null(vector_after(vector, NULL, VECTOR_ALL));
    assert_null(vector_after(vector, &any, VECTOR_ALL));
    assert_true(same(vector_sum(vector, VECTOR_ALL), (struct vector_sum){{0, 0}, 0}));
    assert_true(same(vector_sum(vector, VECTOR_ENDED), (struct vector_sum){{0, 0}, 0}));
    vector_destroy(&vector);
    assert_null(vector);
    vector_destroy(&vector);
}

static void runs_are_raised_and_never_lowered(void **state)
{
    struct vector *vector = fresh(10);
    struct vector_run run = run_of(1, 5);
    const struct vector_run *found;

    (void)state;
    memset(run.hash, 'a', sizeof run.hash);
    run.anchor_seq = 2;
    run.node = origin_of(99);
    assert_true(raised(vector, run));
    assert_false(raised(vector, run));
    run.seq = 4;
    run.anchor_seq = 1;
    memset(run.hash, 'b', sizeof run.hash);
    assert_false(raised(vector, run));
    found = vector_find(vector, &run.origin);
    assert_int_equal(found->seq, 5);
    assert_int_equal(found->anchor_seq, 2);
    assert_int_equal(found->hash[0], 'a');
    assert_true(id_equal(&found->node, &run.node));

    run.seq = 6;
    run.anchor_seq = 6;
    assert_true(raised(vector, run));
    found = vector_find(vector, &run.origin);
    assert_int_equal(found->seq, 6);
    assert_int_equal(found->anchor_seq, 6);
    assert_int_equal(found->hash[0], 'b');

    run.ended = true;
    assert_true(raised(vector, run));
    run.ended = false;
    assert_false(raised(vector, run));
    assert_true(vector_find(vector, &run.origin)->ended);
    vector_destroy(&vector);
}

static void sums_depend_on_knowledge_alone(void **state)
{
    struct vector *forward = fresh(1000), *backward = fresh(1000);

    (void)state;
    for (uint64_t i = 1; i <= 500; i++)
        raised(forward, run_of(i, i));
    for (uint64_t i = 500; i >= 1; i--) {
        for (uint64_t seq = 1; seq < i; seq += i / 3 + 1)
            raised(backward, run_of(i, seq));
        raised(backward, run_of(i, i));
    }
    assert_true(same(vector_sum(forward, VECTOR_ALL), vector_sum(backward, VECTOR_ALL)));

    raised(backward, run_of(7, 8));
    assert_false(same(vector_sum(forward, VECTOR_ALL), vector_sum(backward, VECTOR_ALL)));
    raised(forward, run_of(7, 8));
    assert_true(same(vector_sum(forward, VECTOR_ALL), vector_sum(backward, VECTOR_ALL)));

    struct vector_run end = run_of(9, 9);

    end.ended = true;
    raised(forward, end);
    assert_true(same(vector_sum(forward, VECTOR_ALL), vector_sum(backward, VECTOR_ALL)));
    assert_int_equal(vector_sum(forward, VECTOR_ENDED).count, 1);
    assert_false(same(vector_sum(forward, VECTOR_ENDED), vector_sum(backward, VECTOR_ENDED)));
    raised(backward, end);
    assert_true(same(vector_sum(forward, VECTOR_ENDED), vector_sum(backward, VECTOR_ENDED)));
    vector_destroy(&forward);
    vector_destroy(&backward);
}

/* The sum over one run is the hash of its 24 bytes: another build must come to the same. */
static void the_sum_is_what_the_header_says(void **state)
{
    struct vector *vector = fresh(10);
    struct vector_run run = run_of(3, 0x0102030405060708);
    uint8_t pair[24];
    struct hash128 expected;

    (void)state;
    memcpy(pair, run.origin.bytes, 16);
    for (int i = 0; i < 8; i++)
        pair[16 + i] = (uint8_t)(8 - i);
    expected = xxh128(pair, sizeof pair, VECTOR_SCHEMA);
    raised(vector, run);
    assert_true(same(vector_sum(vector, VECTOR_ALL), (struct vector_sum){expected, 1}));
    vector_destroy(&vector);
}

static void frozen_runs_are_in_no_sum_and_among_the_live(void **state)
{
    struct vector *vector = fresh(10);
    struct vector_run bad = run_of(2, 4);

    (void)state;
    raised(vector, run_of(1, 1));
    struct vector_sum without = vector_sum(vector, VECTOR_ALL);

    bad.ended = true;
    raised(vector, bad);
    assert_int_equal(vector_count(vector, VECTOR_ENDED), 1);
    bad.frozen = true;
    assert_true(raised(vector, bad));
    assert_true(same(vector_sum(vector, VECTOR_ALL), without));
    assert_int_equal(vector_sum(vector, VECTOR_ENDED).count, 0);
    assert_int_equal(vector_count(vector, VECTOR_ENDED), 0);
    assert_int_equal(vector_count(vector, VECTOR_LIVE), 2);
    bad.seq = 9;
    raised(vector, bad);
    assert_true(same(vector_sum(vector, VECTOR_ALL), without));
    vector_destroy(&vector);
}

static void the_limit_holds(void **state)
{
    struct vector *vector = fresh(3);
    struct vector_run one_more = run_of(4, 1);

    (void)state;
    for (uint64_t i = 1; i <= 3; i++) {
        assert_true(vector_has_room(vector));
        raised(vector, run_of(i, 1));
    }
    assert_false(vector_has_room(vector));
    struct vector_sum before = vector_sum(vector, VECTOR_ALL);

    assert_int_equal(vector_raise(vector, &one_more, NULL), ERR_FULL);
    assert_true(same(vector_sum(vector, VECTOR_ALL), before));
    assert_null(vector_find(vector, &one_more.origin));
    assert_true(raised(vector, run_of(3, 2))); /* what is known can still be raised */
    vector_destroy(&vector);
}

static size_t check_order(const struct vector *vector, enum vector_part part)
{
    const struct vector_run *run = vector_after(vector, NULL, part), *next;
    size_t count = 0;

    for (; run; run = next, count++) {
        assert_true(part == VECTOR_ALL || (run->ended && !run->frozen) == (part == VECTOR_ENDED));
        next = vector_after(vector, &run->origin, part);
        if (next)
            assert_true(id_compare(&run->origin, &next->origin) < 0);
    }
    assert_int_equal(count, vector_count(vector, part));
    return count;
}

/* Random insertions, ends and freezes: the lists stay sorted and complete, look-ups right. */
static void order_and_parts_hold_for_random_histories(void **state)
{
    enum { RUNS = 3000, STEPS = 12000, SEEDS = 5 };
    static uint64_t seqs[RUNS];
    static bool over[RUNS], bad[RUNS];

    (void)state;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        struct vector *vector = fresh(RUNS);
        size_t live = 0, ended = 0;

        memset(seqs, 0, sizeof seqs);
        memset(over, 0, sizeof over);
        memset(bad, 0, sizeof bad);
        srand(seed);
        for (int i = 0; i < STEPS; i++) {
            size_t at = (size_t)rand() % RUNS;
            struct vector_run run = run_of(2 * at + 1, (uint64_t)(rand() % 100) + 1);

            run.ended = rand() % 4 == 0;
            run.frozen = rand() % 50 == 0;
            raised(vector, run);
            seqs[at] = run.seq > seqs[at] ? run.seq : seqs[at];
            over[at] |= run.ended;
            bad[at] |= run.frozen;
        }
        for (size_t i = 0; i < RUNS; i++) {
            struct id128 origin = origin_of(2 * i + 1), between = origin_of(2 * i);
            const struct vector_run *run = vector_find(vector, &origin);

            assert_null(vector_find(vector, &between));
            assert_int_equal(run ? run->seq : 0, seqs[i]);
            if (!run)
                continue;
            *(over[i] && !bad[i] ? &ended : &live) += 1;
            assert_ptr_equal(vector_after(vector, &between, VECTOR_ALL), run);
            assert_ptr_equal(vector_after(vector, &between,
                                          run->ended && !run->frozen ? VECTOR_ENDED : VECTOR_ALL),
                             run);
        }
        assert_int_equal(check_order(vector, VECTOR_LIVE), live);
        assert_int_equal(check_order(vector, VECTOR_ENDED), ended);
        assert_int_equal(check_order(vector, VECTOR_ALL), live + ended);
        vector_destroy(&vector);
    }
}

static void many_runs_in_any_order_take_little_time(void **state)
{
    enum { RUNS = 200000 };
    struct vector *vector = fresh(RUNS);

    (void)state;
    for (uint64_t i = 0; i < RUNS; i++) {
        struct vector_run run = run_of(i * 7919 % RUNS + 1, 1);

        run.ended = i % 2;
        raised(vector, run);
    }
    assert_int_equal(vector_count(vector, VECTOR_ALL), RUNS);
    assert_int_equal(check_order(vector, VECTOR_ALL), RUNS);
    vector_destroy(&vector);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_vector_has_no_runs_and_sums_of_zero),
        cmocka_unit_test(runs_are_raised_and_never_lowered),
        cmocka_unit_test(sums_depend_on_knowledge_alone),
        cmocka_unit_test(the_sum_is_what_the_header_says),
        cmocka_unit_test(frozen_runs_are_in_no_sum_and_among_the_live),
        cmocka_unit_test(the_limit_holds),
        cmocka_unit_test(order_and_parts_hold_for_random_histories),
        cmocka_unit_test(many_runs_in_any_order_take_little_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
