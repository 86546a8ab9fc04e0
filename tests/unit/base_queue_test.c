/* Goal: nothing that was pushed is lost, doubled or reordered within a producer, whatever the
 * threads do; a full or closed queue says so; and a waiting consumer always wakes. */
#include "base/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

static int64_t now_ms(void)
{
    struct timespec now;

    assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &now), 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void takes_in_order_and_wraps_around(void **state)
{
    struct queue *queue;
    int things[100];
    void *out[10];
    size_t pushed = 0, taken = 0;

    (void)state;
    assert_int_equal(queue_create(&queue, 7), 0);
    while (taken < 100) {
        for (int i = 0; i < 3 && pushed < 100; i++)
            if (queue_push(queue, &things[pushed]) == 0)
                pushed++;
        assert_int_equal(queue_length(queue), pushed - taken);
        size_t count = queue_take(queue, out, 2);
        assert_true(count > 0 && count <= 2);
        for (size_t i = 0; i < count; i++)
            assert_ptr_equal(out[i], &things[taken++]);
    }
    assert_int_equal(queue_take(queue, out, 10), 0);
    queue_destroy(&queue);
    assert_null(queue);
    queue_destroy(&queue);
}

static void full_is_an_error_and_never_a_wait(void **state)
{
    struct queue *queue;
    int thing;
    void *out[3];

    (void)state;
    assert_int_equal(queue_create(&queue, 2), 0);
    assert_int_equal(queue_push(queue, &thing), 0);
    assert_int_equal(queue_push(queue, &thing), 0);
    assert_int_equal(queue_push(queue, &thing), ERR_FULL);
    assert_int_equal(queue_length(queue), 2);
    assert_int_equal(queue_take(queue, out, 3), 2);
    assert_int_equal(queue_push(queue, &thing), 0);
    queue_destroy(&queue);
}

static void closed_refuses_new_items_and_keeps_the_old(void **state)
{
    struct queue *queue;
    int thing;
    void *out[2];

    (void)state;
    assert_int_equal(queue_create(&queue, 2), 0);
    assert_int_equal(queue_push(queue, &thing), 0);
    assert_false(queue_closed(queue));
    queue_close(queue);
    assert_true(queue_closed(queue));
    assert_int_equal(queue_push(queue, &thing), ERR_CLOSED);
    assert_true(queue_wait(queue, -1)); /* the item inside */
    assert_int_equal(queue_take(queue, out, 2), 1);
    assert_false(queue_wait(queue, -1)); /* closed and empty: does not block */
    queue_destroy(&queue);
}

static void a_wait_ends_at_its_time_and_not_before(void **state)
{
    struct queue *queue;

    (void)state;
    assert_int_equal(queue_create(&queue, 2), 0);
    assert_false(queue_wait(queue, 0));
    int64_t before = now_ms();
    assert_false(queue_wait(queue, 30));
    assert_true(now_ms() - before >= 29);
    queue_destroy(&queue);
}

static void a_wake_before_the_wait_is_kept_for_one(void **state)
{
    struct queue *queue;

    (void)state;
    assert_int_equal(queue_create(&queue, 2), 0);
    queue_wake(queue);
    queue_wake(queue);
    assert_false(queue_wait(queue, -1)); /* returns: the wake is here already */
    int64_t before = now_ms();
    assert_false(queue_wait(queue, 20)); /* used up */
    assert_true(now_ms() - before >= 19);
    queue_destroy(&queue);
}

static void *wait_for_ever(void *arg)
{
    bool some = queue_wait(arg, -1);

    return some ? arg : NULL;
}

static void *wait_long(void *arg)
{
    bool some = queue_wait(arg, INT64_MAX);

    return some ? arg : NULL;
}

static void wake_push_and_close_each_end_a_wait_under_way(void **state)
{
    struct queue *queue;
    int thing;
    void *(*const waits[])(void *) = {wait_for_ever, wait_long};

    (void)state;
    for (int how = 0; how < 6; how++) {
        pthread_t thread;
        void *some;

        assert_int_equal(queue_create(&queue, 2), 0);
        assert_int_equal(pthread_create(&thread, NULL, waits[how % 2], queue), 0);
        for (int i = 0; i < 20; i++) /* it may wait by now or not: both must work */
            (void)sched_yield();
        if (how / 2 == 0)
            queue_wake(queue);
        else if (how / 2 == 1)
            assert_int_equal(queue_push(queue, &thing), 0);
        else
            queue_close(queue);
        assert_int_equal(pthread_join(thread, &some), 0);
        assert_int_equal(some != NULL, how / 2 == 1);
        queue_destroy(&queue);
    }
}

enum { PRODUCERS = 4, ITEMS = 20000 };

struct item {
    int producer, number;
};

struct producer {
    struct queue *queue;
    struct item *items;
};

static void *produce(void *arg)
{
    struct producer *me = arg;

    for (int i = 0; i < ITEMS; i++) {
        int rc;

        while ((rc = queue_push(me->queue, &me->items[i])) == ERR_FULL)
            (void)sched_yield();
        if (rc)
            return me;
    }
    return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
    struct producer producers[PRODUCERS];
    pthread_t threads[PRODUCERS];
    int next[PRODUCERS] = {0};
    struct queue *queue;
    int64_t until = now_ms() + 60000;

    (void)state;
    assert_int_equal(queue_create(&queue, 64), 0);
    for (int p = 0; p < PRODUCERS; p++) {
        producers[p] =
            (struct producer){.queue = queue, .items = calloc(ITEMS, sizeof(struct item))};
        assert_non_null(producers[p].items);
        for (int i = 0; i < ITEMS; i++)
            producers[p].items[i] = (struct item){p, i};
        assert_int_equal(pthread_create(&threads[p], NULL, produce, &producers[p]), 0);
    }
    for (int left = PRODUCERS * ITEMS; left > 0;) {
        void *out[16];

        /* A lost wake-up would let this run into its limit. */
        assert_true(queue_wait(queue, until - now_ms()));
        size_t count = queue_take(queue, out, 16);
        for (size_t i = 0; i < count; i++) {
            struct item *item = out[i];

            assert_int_equal(item->number, next[item->producer]);
            next[item->producer]++;
        }
        left -= (int)count;
    }
    for (int p = 0; p < PRODUCERS; p++) {
        void *bad;

        assert_int_equal(pthread_join(threads[p], &bad), 0);
        assert_null(bad);
        free(producers[p].items);
    }
    assert_int_equal(queue_length(queue), 0);
    queue_destroy(&queue);
}

struct pingpong {
    struct queue *there, *back;
    int rounds;
};

static void *answer(void *arg)
{
    struct pingpong *game = arg;

    for (int i = 0; i < game->rounds; i++) {
        void *ball;

        if (!queue_wait(game->there, 30000) || queue_take(game->there, &ball, 1) != 1 ||
            queue_push(game->back, ball) != 0)
            return game;
    }
    return NULL;
}

/* Each side sleeps nearly every time, so that the moment between look and sleep is met often. */
static void no_wakeup_is_lost_in_a_ping_pong(void **state)
{
    struct pingpong game = {.rounds = 20000};
    pthread_t thread;
    void *bad;
    int ball;

    (void)state;
    assert_int_equal(queue_create(&game.there, 1), 0);
    assert_int_equal(queue_create(&game.back, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, answer, &game), 0);
    for (int i = 0; i < game.rounds; i++) {
        void *out;

        assert_int_equal(queue_push(game.there, &ball), 0);
        assert_true(queue_wait(game.back, 30000));
        assert_int_equal(queue_take(game.back, &out, 1), 1);
    }
    assert_int_equal(pthread_join(thread, &bad), 0);
    assert_null(bad);
    queue_destroy(&game.there);
    queue_destroy(&game.back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_in_order_and_wraps_around),
        cmocka_unit_test(full_is_an_error_and_never_a_wait),
        cmocka_unit_test(closed_refuses_new_items_and_keeps_the_old),
        cmocka_unit_test(a_wait_ends_at_its_time_and_not_before),
        cmocka_unit_test(a_wake_before_the_wait_is_kept_for_one),
        cmocka_unit_test(wake_push_and_close_each_end_a_wait_under_way),
        cmocka_unit_test(nothing_is_lost_between_threads),
        cmocka_unit_test(no_wakeup_is_lost_in_a_ping_pong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
