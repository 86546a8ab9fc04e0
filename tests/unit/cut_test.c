/* Goal: events leave only when every live member has said that it has them; who is gone is not
 * waited for, who is silent is asked again, and an answer to another question counts for nothing.
 */
#include "cluster/cut.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static const struct id128 snapshot = {{7}};

static struct buf runs_of(size_t count)
{
    struct buf runs = {0};

    for (size_t i = 0; i < count; i++)
        wire_run_add(&runs, &(struct wire_run){{{1, (uint8_t)(i >> 8), (uint8_t)i}}, i + 1});
    assert_int_equal(buf_check(&runs), 0);
    return runs;
}

static struct text text_of(const struct buf *buf)
{
    return (struct text){buf->data, (uint32_t)buf->len};
}

static struct cut *asking_about(size_t count)
{
    struct buf runs = runs_of(count);
    struct cut *cut;

    assert_int_equal(cut_create(&cut, 5), 0);
    assert_int_equal(cut_set(cut, &snapshot, text_of(&runs)), 0);
    buf_release(&runs);
    return cut;
}

static struct cut_peer alive(uint8_t n)
{
    return (struct cut_peer){.node = {{n}}, .alive = true, .settled = true};
}

static void all_who_live_have_to_say_yes(void **state)
{
    struct cut_peer peers[] = {alive(1), alive(2), {.node = {{3}}, .settled = true}};
    struct cut *cut = asking_about(3);
    struct cut_question q[3];
    size_t count;

    (void)state;
    assert_false(cut_step(cut, 100, peers, 3, q, &count));
    assert_int_equal(count, 2);
    assert_int_equal(wire_run_count(q[0].ask.runs), 3);
    assert_true(q[0].ask.nonce != q[1].ask.nonce);
    cut_take(cut, &q[1].to, q[0].ask.nonce, true); /* not its own */
    cut_take(cut, &q[0].to, q[0].ask.nonce, true);
    cut_take(cut, &q[0].to, 0, true);
    struct id128 second = q[1].to;
    uint64_t nonce = q[1].ask.nonce;
    assert_false(cut_step(cut, 200, peers, 3, q, &count));
    assert_int_equal(count, 0);
    cut_take(cut, &second, nonce, false);
    assert_false(cut_step(cut, 300, peers, 3, q, &count));
    assert_int_equal(count, 0); /* after a while */
    assert_false(cut_step(cut, 5000, peers, 3, q, &count));
    assert_int_equal(count, 1);
    assert_false(cut_step(cut, 9000, peers, 3, q, &count)); /* it got lost */
    assert_int_equal(count, 1);
    cut_take(cut, &q[0].to, q[0].ask.nonce, true);
    assert_true(cut_step(cut, 9100, peers, 3, q, &count));
    assert_int_equal(count, 0);
    peers[2] = alive(3); /* it is back, and may lack something */
    assert_false(cut_step(cut, 9200, peers, 3, q, &count));
    assert_int_equal(count, 1);
    cut_destroy(&cut);
}

static void whoever_was_not_heard_of_yet_is_waited_for(void **state)
{
    struct cut_peer peer = {.node = {{3}}};
    struct cut *cut = asking_about(1);
    struct cut_question q[1];
    size_t count;

    (void)state;
    assert_false(cut_step(cut, 100, &peer, 1, q, &count));
    assert_int_equal(count, 0);
    peer.settled = true;
    assert_true(cut_step(cut, 200, &peer, 1, q, &count));
    assert_true(cut_step(cut, 200, &peer, 0, q, &count));
    cut_clear(cut);
    assert_false(cut_step(cut, 300, &peer, 1, q, &count)); /* nothing is asked about */
    cut_destroy(&cut);
}

static void many_runs_go_in_pages(void **state)
{
    struct cut *cut = asking_about(LIMIT_WIRE_RUNS + 5);
    struct cut_peer peer = alive(1);
    struct cut_question q[1];
    size_t count;

    (void)state;
    assert_false(cut_step(cut, 100, &peer, 1, q, &count));
    assert_int_equal(wire_run_count(q[0].ask.runs), LIMIT_WIRE_RUNS);
    cut_take(cut, &q[0].to, q[0].ask.nonce, true);
    assert_false(cut_step(cut, 100, &peer, 1, q, &count));
    assert_int_equal(count, 1);
    assert_int_equal(wire_run_count(q[0].ask.runs), 5);
    assert_int_equal(wire_run_at(q[0].ask.runs, 0).seq, LIMIT_WIRE_RUNS + 1);
    cut_take(cut, &q[0].to, q[0].ask.nonce, true);
    assert_true(cut_step(cut, 100, &peer, 1, q, &count));
    cut_destroy(&cut);
}

static void nothing_to_remove_needs_no_question(void **state)
{
    struct cut *cut = asking_about(0);
    struct cut_peer peer = alive(1);
    struct cut_question q[1];
    size_t count;

    (void)state;
    assert_true(cut_step(cut, 100, &peer, 1, q, &count));
    assert_int_equal(count, 0);
    cut_destroy(&cut);
}

static void the_answer_is_what_the_vector_knows(void **state)
{
    struct buf runs = runs_of(2);
    struct vector *vector;

    (void)state;
    assert_int_equal(vector_create(&vector, 10, 1), 0);
    assert_false(cut_is_known(vector, text_of(&runs)));
    assert_true(cut_is_known(vector, (struct text){NULL, 0}));
    for (uint8_t i = 0; i < 2; i++) {
        struct vector_run run = {.origin = {{1, 0, i}}, .node = {{1}}, .seq = 1};

        assert_int_equal(vector_raise(vector, &run, NULL), 0);
    }
    assert_false(cut_is_known(vector, text_of(&runs))); /* of the second one 2 */
    struct vector_run run = {.origin = {{1, 0, 1}}, .node = {{1}}, .seq = 2};
    assert_int_equal(vector_raise(vector, &run, NULL), 0);
    assert_true(cut_is_known(vector, text_of(&runs)));
    vector_destroy(&vector);
    buf_release(&runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_who_live_have_to_say_yes),
        cmocka_unit_test(whoever_was_not_heard_of_yet_is_waited_for),
        cmocka_unit_test(many_runs_go_in_pages),
        cmocka_unit_test(nothing_to_remove_needs_no_question),
        cmocka_unit_test(the_answer_is_what_the_vector_knows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
