/* Goal: every object on the list is copied in the end, whatever fails on the way; never twice at
 * once, never more than the limit; who fails rests, longer each time, and holds up nobody else. */
#include "cluster/wanted.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define OBJECTS 3000

/* The list as the journal would have it, and what happens to the objects on it. */
struct world {
    struct wanted *wanted;
    uint64_t now_ms;
    size_t count; /* ids 1 … count exist; object i bears the time 1000 * i */
    bool listed[OBJECTS + 1], flies[OBJECTS + 1];
    unsigned starts[OBJECTS + 1], reads;
    uint64_t started_ms[OBJECTS + 1];
    size_t flights[LIMIT_REPLICAS], flight_count;
    struct id128 last_read;
    int read_error;
};

static struct id128 id_of(size_t i)
{
    struct id128 id = {{0}};
    uint64_t ms = 1000 * i;

    for (int k = 5; k >= 0; k--, ms >>= 8)
        id.bytes[k] = (uint8_t)ms;
    id.bytes[14] = (uint8_t)(i >> 8);
    id.bytes[15] = (uint8_t)i;
    return id;
}

static size_t number_of(const struct id128 *id)
{
    return (size_t)id->bytes[14] << 8 | id->bytes[15];
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    assert_int_equal(wanted_create(&w->wanted, 7), 0);
    w->now_ms = 1000000;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    wanted_destroy(&w->wanted);
    assert_null(w->wanted);
    free(w);
    return 0;
}

static void add(struct world *w, size_t count)
{
    for (size_t i = 0; i < count; i++)
        w->listed[++w->count] = true;
}

static void give_page(struct world *w, const struct id128 *after)
{
    struct id128 ids[LIMIT_REPLICA_PAGE];
    size_t count = 0;

    w->reads++;
    w->last_read = *after;
    for (size_t i = 1; i <= w->count && count < LIMIT_REPLICA_PAGE; i++) {
        struct id128 id = id_of(i);

        if (w->listed[i] && id_compare(&id, after) > 0)
            ids[count++] = id;
    }
    wanted_page(w->wanted, w->read_error, ids, w->read_error ? 0 : count, w->now_ms);
}

/* Do all that is to be done now; until when nothing is. */
static uint64_t drive(struct world *w)
{
    struct wanted_step step;

    for (unsigned turns = 0; turns < 20000; turns++) {
        wanted_step(w->wanted, w->now_ms, &step);
        if (step.act == WANTED_WAIT) {
            assert_true(step.until_ms > w->now_ms);
            assert_int_equal(wanted_flights(w->wanted), w->flight_count);
            assert_true(wanted_failures(w->wanted) <= LIMIT_REPLICA_FAILURES);
            return step.until_ms;
        }
        if (step.act == WANTED_READ) {
            give_page(w, &step.id);
            continue;
        }
        size_t i = number_of(&step.id);

        assert_true(i >= 1 && i <= w->count && !w->flies[i]);
        assert_true(w->flight_count < LIMIT_REPLICAS);
        w->flies[i] = true;
        w->starts[i]++;
        w->started_ms[i] = w->now_ms;
        w->flights[w->flight_count++] = i;
    }
    fail_msg("it never rests");
    return 0;
}

static void end(struct world *w, size_t i, enum wanted_outcome outcome)
{
    struct id128 id = id_of(i);
    size_t at = 0;

    while (w->flights[at] != i)
        at++;
    assert_true(at < w->flight_count);
    w->flights[at] = w->flights[--w->flight_count];
    w->flies[i] = false;
    if (outcome == WANTED_DONE || outcome == WANTED_GONE)
        w->listed[i] = false;
    wanted_ended(w->wanted, &id, outcome, w->now_ms);
}

/* End the oldest flight. */
static void end_first(struct world *w, enum wanted_outcome outcome)
{
    assert_true(w->flight_count > 0);
    end(w, w->flights[0], outcome);
}

static void all_are_copied_a_few_at_once(void **state)
{
    struct world *w = *state;

    assert_true(drive(w) > w->now_ms); /* nothing is wanted */
    add(w, 1000);
    w->now_ms += 1000;
    wanted_news(w->wanted, 1000000);
    drive(w);
    assert_int_equal(w->flight_count, LIMIT_REPLICAS_OLD);
    assert_int_equal(drive(w), UINT64_MAX);
    while (w->flight_count > 0) {
        end_first(w, WANTED_DONE);
        drive(w);
    }
    for (size_t i = 1; i <= 1000; i++)
        assert_int_equal(w->starts[i], 1);
    assert_true(w->reads < 3 * 1000 / LIMIT_REPLICA_PAGE + 10);
    assert_int_equal(wanted_failures(w->wanted), 0);
}

static void news_are_looked_for_among_young_ids_first(void **state)
{
    struct world *w = *state;

    /* The sweep has a long way to go. */
    add(w, 2000);
    drive(w);
    assert_int_equal(w->flight_count, LIMIT_REPLICAS_OLD);
    assert_true(w->flies[1] && w->flies[LIMIT_REPLICAS_OLD]);
    add(w, 1);
    wanted_news(w->wanted, 2001 * 1000);
    end_first(w, WANTED_DONE);
    drive(w);
    assert_int_equal(number_of(&w->last_read), 0);
    struct id128 minute_ago = id_of(2001 - REPLICA_RECENT_MS / 1000);
    assert_memory_equal(w->last_read.bytes, minute_ago.bytes, 6);
    for (size_t k = 0; k < REPLICA_RECENT_MS / 1000; k++) {
        end_first(w, WANTED_DONE);
        drive(w);
    }
    assert_int_equal(w->starts[2001], 1);
    assert_int_equal(w->starts[100], 0);
}

static void what_is_old_is_found_by_the_next_sweep(void **state)
{
    struct world *w = *state;

    add(w, 100);
    memset(w->listed, 0, sizeof w->listed);
    drive(w);
    w->listed[5] = true; /* raised now, put long ago */
    wanted_news(w->wanted, 5000000);
    assert_true(drive(w) <= w->now_ms + REPLICA_SWEEP_MIN_MS);
    assert_int_equal(w->starts[5], 0);
    w->now_ms += REPLICA_SWEEP_MIN_MS;
    drive(w);
    assert_int_equal(w->starts[5], 1);
    end_first(w, WANTED_DONE);
    /* Without news hardly anything is read. */
    drive(w);
    w->now_ms += REPLICA_SWEEP_MIN_MS;
    drive(w);
    unsigned reads = w->reads;
    for (unsigned s = 0; s < 600; s++) {
        w->now_ms += 1000;
        drive(w);
    }
    assert_in_range(w->reads - reads, 9, 11);
}

static void what_has_just_become_wanted_goes_first(void **state)
{
    struct world *w = *state;

    /* A backlog has all the places that it may have, and the retries of those that fail want them.
     */
    add(w, 2000);
    drive(w);
    assert_int_equal(w->flight_count, LIMIT_REPLICAS_OLD);
    for (size_t i = 0; i < LIMIT_REPLICAS - LIMIT_REPLICAS_OLD + 3; i++) {
        struct id128 id = id_of(1000 + i);

        wanted_new(w->wanted, &id);
    }
    drive(w);
    assert_int_equal(w->flight_count, LIMIT_REPLICAS);
    for (size_t i = 1000; i < 1000 + LIMIT_REPLICAS - LIMIT_REPLICAS_OLD; i++)
        assert_int_equal(w->starts[i], 1);
    end(w, 1000, WANTED_DONE);
    drive(w);
    assert_int_equal(w->starts[1004], 1);
    /* What flies or rests is not begun again, and what was told is begun once. */
    struct id128 flying = id_of(1001), resting = id_of(1002);
    end(w, 1002, WANTED_FAILED);
    wanted_new(w->wanted, &flying);
    wanted_new(w->wanted, &resting);
    end(w, 1004, WANTED_DONE);
    drive(w);
    assert_int_equal(w->starts[1001], 1);
    assert_int_equal(w->starts[1002], 1);
    /* More than there is room for: the walks find the rest. */
    for (size_t i = 1; i <= 2000; i++) {
        struct id128 id = id_of(i);

        wanted_new(w->wanted, &id);
    }
    for (unsigned turns = 0; turns < 4000 && w->flight_count > 0; turns++) {
        end_first(w, WANTED_DONE);
        w->now_ms += w->flight_count == 0 ? 2 * REPLICA_BACKOFF_MS : 0;
        drive(w);
    }
    for (size_t i = 1; i <= 2000; i++)
        assert_in_range(w->starts[i], 1, 2);
}

static void who_fails_rests_longer_each_time(void **state)
{
    struct world *w = *state;
    uint64_t base = REPLICA_BACKOFF_MS;

    add(w, 2);
    drive(w);
    end(w, 2, WANTED_DONE);
    for (unsigned attempt = 0; attempt < 12; attempt++) {
        uint64_t failed_ms = w->now_ms;

        end(w, 1, WANTED_FAILED);
        while (!w->flies[1]) {
            uint64_t until_ms = drive(w);

            if (!w->flies[1])
                w->now_ms = until_ms;
        }
        uint64_t waited = w->started_ms[1] - failed_ms;
        if (waited < base || waited > base + base / 2 || waited > REPLICA_BACKOFF_MAX_MS)
            fail_msg("attempt %u after %llu ms", attempt, (unsigned long long)waited);
        base *= 2;
        if (base > REPLICA_BACKOFF_MAX_MS * 2 / 3)
            base = REPLICA_BACKOFF_MAX_MS * 2 / 3;
    }
    end(w, 1, WANTED_DONE);
    assert_int_equal(wanted_failures(w->wanted), 0);
}

static void a_node_that_is_back_is_asked_soon(void **state)
{
    struct world *w = *state;

    add(w, 1);
    drive(w);
    for (unsigned attempt = 0; attempt < 8; attempt++) {
        end(w, 1, WANTED_FAILED);
        while (!w->flies[1]) {
            uint64_t until_ms = drive(w);

            if (!w->flies[1])
                w->now_ms = until_ms;
        }
    }
    end(w, 1, WANTED_FAILED);
    drive(w);
    wanted_revive(w->wanted, w->now_ms);
    w->now_ms += REPLICA_BACKOFF_MS;
    drive(w);
    assert_true(w->flies[1]);
}

static void busy_full_and_too_big_hold_up_whom_they_must(void **state)
{
    struct world *w = *state;

    add(w, LIMIT_REPLICAS + 24);
    drive(w);
    end(w, 1, WANTED_BUSY);
    assert_int_equal(drive(w), w->now_ms + REPLICA_BUSY_MS);
    assert_int_equal(w->flight_count, LIMIT_REPLICAS_OLD - 1);
    w->now_ms += REPLICA_BUSY_MS;
    drive(w);
    assert_int_equal(w->starts[1], 2);

    end(w, 1, WANTED_NO_FIT);
    drive(w); /* others go on */
    assert_int_equal(w->flight_count, LIMIT_REPLICAS_OLD);
    assert_int_equal(w->starts[1], 2);

    end(w, 2, WANTED_FULL);
    assert_int_equal(drive(w), w->now_ms + REPLICA_FULL_MS);
    wanted_news(w->wanted, 1000); /* do not change that */
    wanted_revive(w->wanted, w->now_ms);
    assert_int_equal(drive(w), w->now_ms + REPLICA_FULL_MS);
    while (w->flight_count > 0)
        end_first(w, WANTED_DONE);
    assert_int_equal(drive(w), w->now_ms + REPLICA_FULL_MS);
    w->now_ms += REPLICA_FULL_MS;
    drive(w);
    assert_int_equal(w->starts[1], 3);
    assert_int_equal(w->starts[2], 2);

    /* Other bytes are wanted: at once. */
    end(w, 1, WANTED_AGAIN);
    drive(w);
    assert_int_equal(w->starts[1], 4);
}

/* Many objects that nobody can give do not keep the node busy, nor new ones waiting; and once there
 * is somebody, they are copied. */
static void a_crowd_of_failures_is_no_busy_loop(void **state)
{
    struct world *w = *state;
    unsigned starts = 0;

    add(w, 2500);
    for (uint64_t from = w->now_ms; w->now_ms < from + 100000; w->now_ms += 10) {
        drive(w);
        while (w->flight_count > 0)
            end_first(w, WANTED_FAILED);
    }
    for (size_t i = 1; i <= w->count; i++)
        starts += w->starts[i];
    /* What trickles, and what is tried again out of the table. */
    assert_in_range(starts, 500, 100000 / REPLICA_TRICKLE_MS + 16 + 1000 * 8);
    assert_int_equal(wanted_failures(w->wanted) <= LIMIT_REPLICA_FAILURES, 1);

    add(w, 1);
    wanted_news(w->wanted, 1000 * w->count);
    for (unsigned turns = 0; w->starts[w->count] == 0; turns++) {
        assert_true(turns < 200);
        drive(w);
        while (w->flight_count > 0)
            end_first(w, w->flights[0] == w->count ? WANTED_DONE : WANTED_FAILED);
    }
    wanted_revive(w->wanted, w->now_ms);
    for (uint64_t from = w->now_ms; w->now_ms < from + 2 * REPLICA_SWEEP_MAX_MS; w->now_ms += 10) {
        drive(w);
        while (w->flight_count > 0)
            end_first(w, WANTED_DONE);
    }
    for (size_t i = 1; i <= w->count; i++)
        if (w->listed[i])
            fail_msg("object %zu is forgotten", i);
}

static void a_list_that_cannot_be_read_is_asked_for_again(void **state)
{
    struct world *w = *state;

    add(w, 3);
    w->read_error = ERR_IO;
    assert_true(drive(w) >= w->now_ms + 100);
    assert_int_equal(w->reads, 1);
    w->now_ms += REPLICA_BACKOFF_MS;
    drive(w);
    assert_int_equal(w->reads, 2);
    w->read_error = 0;
    w->now_ms += REPLICA_BACKOFF_MS;
    drive(w);
    assert_int_equal(w->flight_count, 3);
}

/* Whatever happens in whatever order: all are copied in the end, none twice. */
static void chance_finds_no_way_to_lose_one(void **state)
{
    struct world *w = *state;

    for (unsigned seed = 1; seed <= 40; seed++) {
        wanted_destroy(&w->wanted);
        uint64_t now_ms = w->now_ms;
        memset(w, 0, sizeof *w);
        w->now_ms = now_ms;
        assert_int_equal(wanted_create(&w->wanted, seed), 0);
        srand(seed);
        for (unsigned turn = 0; turn < 4000; turn++) {
            if (turn < 2000 && rand() % 4 == 0 && w->count < 1000) {
                add(w, (size_t)rand() % 20);
                if (rand() % 2)
                    wanted_news(w->wanted, (uint64_t)(rand() % 1000) * 1000);
            }
            uint64_t until_ms = drive(w);
            if (w->flight_count == 0 || rand() % 3 == 0)
                w->now_ms = until_ms < w->now_ms + 5000 ? until_ms : w->now_ms + 5000;
            for (unsigned k = (unsigned)rand() % 20; k > 0 && w->flight_count > 0; k--)
                end(w, w->flights[(size_t)rand() % w->flight_count],
                    turn < 2000 && rand() % 3 ? (enum wanted_outcome)(rand() % 7) : WANTED_DONE);
        }
        for (size_t i = 1; i <= w->count; i++)
            if (w->listed[i])
                fail_msg("seed %u: object %zu is left over", seed, i);
        assert_int_equal(w->flight_count, 0);
        assert_int_equal(wanted_failures(w->wanted), 0);
    }
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        test(all_are_copied_a_few_at_once),
        test(news_are_looked_for_among_young_ids_first),
        test(what_is_old_is_found_by_the_next_sweep),
        test(what_has_just_become_wanted_goes_first),
        test(who_fails_rests_longer_each_time),
        test(a_node_that_is_back_is_asked_soon),
        test(busy_full_and_too_big_hold_up_whom_they_must),
        test(a_crowd_of_failures_is_no_busy_loop),
        test(a_list_that_cannot_be_read_is_asked_for_again),
        test(chance_finds_no_way_to_lose_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
