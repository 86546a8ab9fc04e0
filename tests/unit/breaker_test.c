/* Goal: a cloud that fails is soon left alone, is tried by one request at a time after a random and
 * growing delay, never sooner than it asked for, and is asked again by all as soon as it answers;
 * what was sent before a change says nothing after it. */
#include "cluster/breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

#define NOW UINT64_C(1000000)

static bool fails(struct breaker *breaker, uint64_t now, uint64_t dice)
{
    uint32_t ticket = breaker_ask(breaker, now);

    assert_true(ticket);
    return breaker_step(breaker, ticket, BREAKER_FAILED, 0, now, dice);
}

/* Fail until it is open; with the longest delay. */
static void open_it(struct breaker *breaker, uint64_t now)
{
    while (breaker->state != BREAKER_OPEN)
        (void)fails(breaker, now, BREAKER_DELAY_MS);
}

static void opens_after_failures_in_a_row_alone(void **state)
{
    struct breaker breaker = {0};

    (void)state;
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < BREAKER_FAILURES - 1; i++)
            assert_false(fails(&breaker, NOW, 0));
        uint32_t ticket = breaker_ask(&breaker, NOW);
        assert_false(breaker_step(&breaker, ticket, BREAKER_ANSWERED, 0, NOW, 0));
    }
    for (int i = 0; i < BREAKER_FAILURES - 1; i++)
        assert_false(fails(&breaker, NOW, 0));
    /* What says nothing does not break the row either. */
    uint32_t ticket = breaker_ask(&breaker, NOW);
    assert_false(breaker_step(&breaker, ticket, BREAKER_UNKNOWN, 0, NOW, 0));
    assert_true(fails(&breaker, NOW, BREAKER_DELAY_MS));
    assert_int_equal(breaker.state, BREAKER_OPEN);
    assert_int_equal(breaker.opened, 1);
    assert_int_equal(breaker_wait_ms(&breaker, NOW), BREAKER_DELAY_MS);
    assert_int_equal(breaker_ask(&breaker, NOW + BREAKER_DELAY_MS - 1), 0);
    assert_int_equal(breaker.refused, 1);
}

static void one_request_at_a_time_tries_whether_it_is_back(void **state)
{
    struct breaker breaker = {0};

    (void)state;
    open_it(&breaker, NOW);
    uint64_t later = NOW + BREAKER_DELAY_MS;
    uint32_t trial = breaker_ask(&breaker, later);
    assert_true(trial);
    assert_int_equal(breaker.state, BREAKER_HALF_OPEN);
    assert_int_equal(breaker_ask(&breaker, later), 0);
    assert_int_equal(breaker_wait_ms(&breaker, later), BREAKER_TRIAL_MS);
    /* It was cancelled: the next one tries. */
    assert_false(breaker_step(&breaker, trial, BREAKER_UNKNOWN, 0, later, 0));
    assert_int_equal(breaker_wait_ms(&breaker, later), 0);
    trial = breaker_ask(&breaker, later);
    assert_true(trial);
    /* It hangs: another one may go, in time. */
    assert_int_equal(breaker_ask(&breaker, later + BREAKER_TRIAL_MS - 1), 0);
    assert_int_equal(breaker_ask(&breaker, later + BREAKER_TRIAL_MS), trial);
    assert_true(breaker_step(&breaker, trial, BREAKER_ANSWERED, 0, later, 0));
    assert_int_equal(breaker.state, BREAKER_CLOSED);
    for (int i = 0; i < 100; i++)
        assert_true(breaker_ask(&breaker, later));
}

static void delays_grow_to_a_bound_and_begin_anew(void **state)
{
    struct breaker breaker = {0};
    uint64_t now = NOW, bound = BREAKER_DELAY_MS;

    (void)state;
    open_it(&breaker, now);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(breaker_wait_ms(&breaker, now), bound);
        now += bound;
        bound = bound * 2 < BREAKER_MAX_MS ? bound * 2 : BREAKER_MAX_MS;
        assert_true(fails(&breaker, now, bound));
    }
    now += bound;
    uint32_t ticket = breaker_ask(&breaker, now);
    assert_true(breaker_step(&breaker, ticket, BREAKER_ANSWERED, 0, now, 0));
    open_it(&breaker, now);
    assert_int_equal(breaker_wait_ms(&breaker, now), BREAKER_DELAY_MS);
}

static void delays_are_drawn_from_all_between_nothing_and_the_bound(void **state)
{
    uint64_t least = UINT64_MAX, most = 0, sum = 0;

    (void)state;
    srand(3);
    for (int i = 0; i < 10000; i++) {
        uint64_t got = breaker_backoff_ms(2, (uint64_t)rand());

        least = got < least ? got : least;
        most = got > most ? got : most;
        sum += got;
    }
    assert_true(least < BREAKER_DELAY_MS / 10);
    assert_in_range(most, 4 * BREAKER_DELAY_MS * 9 / 10, 4 * BREAKER_DELAY_MS);
    assert_in_range(sum / 10000, 4 * BREAKER_DELAY_MS * 4 / 10, 4 * BREAKER_DELAY_MS * 6 / 10);
    assert_int_equal(breaker_backoff_ms(0, BREAKER_DELAY_MS), BREAKER_DELAY_MS);
    assert_int_equal(breaker_backoff_ms(UINT32_MAX, BREAKER_MAX_MS), BREAKER_MAX_MS);
}

static void what_the_cloud_asks_for_is_kept(void **state)
{
    struct breaker breaker = {0};
    uint32_t ticket = breaker_ask(&breaker, NOW);

    (void)state;
    assert_true(breaker_step(&breaker, ticket, BREAKER_FAILED, 7000, NOW, 0));
    assert_int_equal(breaker.state, BREAKER_OPEN);
    assert_int_equal(breaker_wait_ms(&breaker, NOW), 7000);
    /* No dice make it sooner, and absurd demands are cut. */
    for (uint64_t dice = 0; dice < 5000; dice += 37) {
        struct breaker other = {0};

        ticket = breaker_ask(&other, NOW);
        (void)breaker_step(&other, ticket, BREAKER_FAILED, 7000, NOW, dice);
        assert_in_range(breaker_wait_ms(&other, NOW), 7000, 7000 + BREAKER_DELAY_MS);
        other = (struct breaker){0};
        ticket = breaker_ask(&other, NOW);
        (void)breaker_step(&other, ticket, BREAKER_FAILED, UINT32_MAX, NOW, dice);
        assert_in_range(breaker_wait_ms(&other, NOW), BREAKER_MAX_TOLD_MS,
                        BREAKER_MAX_TOLD_MS + BREAKER_DELAY_MS);
    }
}

static void what_was_sent_before_a_change_says_nothing_after_it(void **state)
{
    struct breaker breaker = {0};
    uint32_t before = breaker_ask(&breaker, NOW);

    (void)state;
    open_it(&breaker, NOW);
    uint64_t wait = breaker_wait_ms(&breaker, NOW);
    assert_false(breaker_step(&breaker, before, BREAKER_FAILED, 60000, NOW, 0));
    assert_false(breaker_step(&breaker, before, BREAKER_ANSWERED, 0, NOW, 0));
    assert_int_equal(breaker.state, BREAKER_OPEN);
    assert_int_equal(breaker_wait_ms(&breaker, NOW), wait);
    uint32_t trial = breaker_ask(&breaker, NOW + wait);
    assert_false(breaker_step(&breaker, before, BREAKER_FAILED, 0, NOW + wait, 0));
    assert_int_equal(breaker.state, BREAKER_HALF_OPEN);
    assert_true(breaker_step(&breaker, trial, BREAKER_FAILED, 0, NOW + wait, 9));
    assert_int_equal(breaker.opened, 2);
}

static void answers_about_an_object_are_answers(void **state)
{
    static const int answers[] = {0, ERR_NOT_FOUND, ERR_PRECONDITION, ERR_RANGE, ERR_PERMISSION};
    static const int failures[] = {ERR_TIMEOUT, ERR_CLOSED, ERR_AGAIN, ERR_IO, ERR_INVALID};
    static const int own[] = {ERR_CORRUPT, ERR_NO_MEMORY, ERR_DELETED};

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        assert_int_equal(breaker_outcome(answers[i]), BREAKER_ANSWERED);
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
        assert_int_equal(breaker_outcome(failures[i]), BREAKER_FAILED);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        assert_int_equal(breaker_outcome(own[i]), BREAKER_UNKNOWN);
}

/* A cloud that is away for a day, hundreds of requests a second: few are sent, and it is found
 * again within the longest delay. */
static void a_day_without_it_costs_few_requests(void **state)
{
    const uint64_t day = 86400000;

    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) {
        struct breaker breaker = {0};
        unsigned sent = 0;
        uint64_t found = 0;

        srand(seed);
        for (uint64_t now = NOW; found == 0; now += 10) {
            uint32_t ticket = breaker_ask(&breaker, now);

            if (!ticket)
                continue;
            bool there = now >= NOW + day;
            sent++;
            (void)breaker_step(&breaker, ticket, there ? BREAKER_ANSWERED : BREAKER_FAILED, 0, now,
                               (uint64_t)rand());
            if (there)
                found = now;
        }
        assert_true(found - NOW - day <= BREAKER_MAX_MS);
        assert_in_range(sent, day / BREAKER_MAX_MS, 4 * day / BREAKER_MAX_MS);
        assert_int_equal(breaker.state, BREAKER_CLOSED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_after_failures_in_a_row_alone),
        cmocka_unit_test(one_request_at_a_time_tries_whether_it_is_back),
        cmocka_unit_test(delays_grow_to_a_bound_and_begin_anew),
        cmocka_unit_test(delays_are_drawn_from_all_between_nothing_and_the_bound),
        cmocka_unit_test(what_the_cloud_asks_for_is_kept),
        cmocka_unit_test(what_was_sent_before_a_change_says_nothing_after_it),
        cmocka_unit_test(answers_about_an_object_are_answers),
        cmocka_unit_test(a_day_without_it_costs_few_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
