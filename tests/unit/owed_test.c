/*
 * What a node does next of what is owed to the cloud: what it has brought about itself goes first,
 * a sweep finds the rest, small things and large bodies do not hold each other up; exactly one of
 * the nodes that could do a thing does it, and another takes over when that one is away or does
 * nothing; what fails rests, longer and at random, and the table of it is bounded.
 */
#include "cluster/owed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

#define LARGE (OWED_LARGE_BYTES + 1)

struct list { /* the outbox of one kind */
    struct owed_row rows[8192];
    size_t count;
};

struct fixture {
    struct owed *owed;
    uint64_t now_ms;
    struct list lists[16]; /* by kind */
    unsigned reads;
};

static struct id128 id_of(unsigned n)
{
    return (struct id128){
        {1, [12] = (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n}};
}

static struct id128 node_of(unsigned n)
{
    return (struct id128){{9, [15] = (uint8_t)n}};
}

static unsigned number_of(const struct id128 *id)
{
    return (unsigned)id->bytes[12] << 24 | (unsigned)id->bytes[13] << 16 |
           (unsigned)id->bytes[14] << 8 | id->bytes[15];
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    f->now_ms = 1000000;
    assert_int_equal(owed_create(&f->owed, 7, f->now_ms), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    owed_destroy(&f->owed);
    free(f);
    return 0;
}

static void add(struct fixture *f, enum outbox_kind kind, unsigned n, uint64_t size)
{
    struct list *list = &f->lists[kind];

    assert_true(list->count == 0 || n > number_of(&list->rows[list->count - 1].id));
    list->rows[list->count++] = (struct owed_row){id_of(n), size};
}

static void take_away(struct fixture *f, enum outbox_kind kind, unsigned n)
{
    struct list *list = &f->lists[kind];
    struct id128 id = id_of(n);

    for (size_t i = 0; i < list->count; i++)
        if (id_equal(&list->rows[i].id, &id)) {
            memmove(&list->rows[i], &list->rows[i + 1], (--list->count - i) * sizeof *list->rows);
            return;
        }
}

static void give_page(struct fixture *f, const struct owed_step *step)
{
    const struct list *list = &f->lists[step->kind];
    size_t first = 0, count;

    while (first < list->count && id_compare(&list->rows[first].id, &step->id) <= 0)
        first++;
    count = list->count - first;
    if (count > LIMIT_OWED_PAGE)
        count = LIMIT_OWED_PAGE;
    f->reads++;
    owed_page(f->owed, 0, list->rows + first, count, f->now_ms);
}

/* The next start, pages given meanwhile; false: nothing is to be done now. */
static bool next(struct fixture *f, struct owed_step *out)
{
    for (;;) {
        owed_step(f->owed, f->now_ms, out);
        if (out->act == OWED_WAIT)
            return false;
        if (out->act == OWED_START)
            return true;
        give_page(f, out);
    }
}

static unsigned expect_start(struct fixture *f, enum outbox_kind kind)
{
    struct owed_step step;

    assert_true(next(f, &step));
    assert_int_equal(step.kind, kind);
    return number_of(&step.id);
}

static void expect_nothing(struct fixture *f)
{
    struct owed_step step;

    assert_false(next(f, &step));
}

static void ended(struct fixture *f, enum outbox_kind kind, unsigned n, enum owed_outcome outcome)
{
    struct id128 id = id_of(n);

    owed_ended(f->owed, kind, &id, outcome, false, 0, f->now_ms);
}

/* Goal: what this node brings about is started at once and in order, before what the sweep finds,
 * and each thing once. */
static void test_new_first(void **state)
{
    struct fixture *f = *state;
    struct owed_step step;
    struct id128 id = id_of(50);

    add(f, OUTBOX_UPLOAD, 10, 1);
    add(f, OUTBOX_UPLOAD, 50, 1);
    owed_new(f->owed, OUTBOX_UPLOAD, &id, 1, true);
    assert_true(next(f, &step));
    assert_int_equal(number_of(&step.id), 50);
    assert_true(step.own);
    assert_int_equal(f->reads, 0);
    assert_true(next(f, &step));
    assert_int_equal(number_of(&step.id), 10);
    assert_false(step.own);
    expect_nothing(f);
    ended(f, OUTBOX_UPLOAD, 50, OWED_DONE);
    ended(f, OUTBOX_UPLOAD, 10, OWED_DONE);
    assert_int_equal(owed_flights(f->owed), 0);
    assert_int_equal(owed_failures(f->owed), 0);
}

/* Goal: a sweep goes through all kinds, over several pages, and misses nothing; the next one begins
 * after a pause, sooner with news. */
static void test_sweep(void **state)
{
    struct fixture *f = *state;
    static const enum outbox_kind kinds[] = {OUTBOX_UPLOAD, OUTBOX_PURGE, OUTBOX_MARK,
                                             OUTBOX_BEGUN};
    struct owed_step step;
    unsigned started = 0;

    for (unsigned k = 0; k < 4; k++)
        for (unsigned n = 1; n <= 3 * LIMIT_OWED_PAGE + 5; n++)
            add(f, kinds[k], n + 1000 * k, 0);
    while (next(f, &step)) {
        unsigned n = number_of(&step.id);

        started++;
        take_away(f, step.kind, n);
        ended(f, step.kind, n, OWED_DONE);
    }
    assert_int_equal(started, 4 * (3 * LIMIT_OWED_PAGE + 5));
    assert_int_equal(step.until_ms, f->now_ms + OWED_SWEEP_MAX_MS);

    add(f, OUTBOX_MARK, 9000, 0);
    expect_nothing(f);
    owed_news(f->owed);
    owed_step(f->owed, f->now_ms, &step);
    assert_int_equal(step.act, OWED_WAIT);
    assert_int_equal(step.until_ms, f->now_ms + OWED_SWEEP_MIN_MS);
    f->now_ms = step.until_ms;
    assert_int_equal(expect_start(f, OUTBOX_MARK), 9000);
    ended(f, OUTBOX_MARK, 9000, OWED_DONE);
}

/* Goal: no more is under way than each lane takes; a large body waits for its lane without holding
 * up small ones behind it, and starts as soon as the lane has room. */
static void test_lanes(void **state)
{
    struct fixture *f = *state;
    struct owed_step step;
    unsigned small = 0, large = 0;

    for (unsigned n = 1; n <= 100; n++)
        add(f, OUTBOX_UPLOAD, n, LARGE);
    for (unsigned n = 101; n <= 300; n++)
        add(f, OUTBOX_UPLOAD, n, OWED_LARGE_BYTES);
    while (next(f, &step)) {
        if (number_of(&step.id) <= 100)
            large++;
        else
            small++;
    }
    assert_int_equal(large, LIMIT_OWED_LARGE);
    assert_int_equal(small, LIMIT_OWED_SMALL);
    ended(f, OUTBOX_UPLOAD, 1, OWED_DONE);
    assert_int_equal(expect_start(f, OUTBOX_UPLOAD), LIMIT_OWED_LARGE + 1);
    expect_nothing(f);
    ended(f, OUTBOX_UPLOAD, 101, OWED_DONE);
    assert_int_equal(expect_start(f, OUTBOX_UPLOAD), 101 + LIMIT_OWED_SMALL);
}

/* Goal: what fails is tried again after a time drawn at random below a bound that doubles up to its
 * maximum; the cloud's own wish comes on top; a success forgets it. */
static void test_backoff(void **state)
{
    struct fixture *f = *state;
    uint64_t bound = OWED_BACKOFF_MS, least = UINT64_MAX, most = 0;
    struct owed_step step;
    struct id128 id = id_of(1);

    owed_new(f->owed, OUTBOX_UPLOAD, &id, 1, true);
    assert_int_equal(expect_start(f, OUTBOX_UPLOAD), 1);
    for (unsigned i = 0; i < 40; i++) {
        owed_ended(f->owed, OUTBOX_UPLOAD, &id, OWED_FAILED, true, 0, f->now_ms);
        uint64_t from_ms = f->now_ms;
        while (!next(f, &step))
            f->now_ms = step.until_ms;
        assert_true(step.started);
        assert_false(step.own);
        assert_in_range(f->now_ms - from_ms, 1, bound);
        if (bound == OWED_BACKOFF_MAX_MS) {
            least = f->now_ms - from_ms < least ? f->now_ms - from_ms : least;
            most = f->now_ms - from_ms > most ? f->now_ms - from_ms : most;
        }
        bound = 2 * bound < OWED_BACKOFF_MAX_MS ? 2 * bound : OWED_BACKOFF_MAX_MS;
    }
    /* The whole of it is used. */
    assert_in_range(least, 1, OWED_BACKOFF_MAX_MS / 4);
    assert_in_range(most, OWED_BACKOFF_MAX_MS * 3 / 4, OWED_BACKOFF_MAX_MS);

    owed_ended(f->owed, OUTBOX_UPLOAD, &id, OWED_FAILED, true, 3600000, f->now_ms);
    uint64_t from_ms = f->now_ms;
    while (!next(f, &step))
        f->now_ms = step.until_ms;
    assert_in_range(f->now_ms - from_ms, 3600001, 3600000 + OWED_BACKOFF_MAX_MS);
    owed_ended(f->owed, OUTBOX_UPLOAD, &id, OWED_DONE, true, 0, f->now_ms);
    assert_int_equal(owed_failures(f->owed), 0);
}

/* Goal: what is busy pauses everything for a moment; what has changed is looked at again at once.
 */
static void test_busy_and_again(void **state)
{
    struct fixture *f = *state;
    struct owed_step step;

    add(f, OUTBOX_UPLOAD, 1, 1);
    add(f, OUTBOX_UPLOAD, 2, 1);
    assert_int_equal(expect_start(f, OUTBOX_UPLOAD), 1);
    ended(f, OUTBOX_UPLOAD, 1, OWED_AGAIN);
    assert_int_equal(expect_start(f, OUTBOX_UPLOAD), 1);
    ended(f, OUTBOX_UPLOAD, 1, OWED_BUSY);
    owed_step(f->owed, f->now_ms, &step);
    assert_int_equal(step.act, OWED_WAIT);
    assert_int_equal(step.until_ms, f->now_ms + OWED_BUSY_MS);
    f->now_ms += OWED_BUSY_MS;
    assert_int_equal(expect_start(f, OUTBOX_UPLOAD), 1);
    assert_int_equal(expect_start(f, OUTBOX_UPLOAD), 2);
}

/* Goal: the table of failures is bounded, and what it forgot the sweep meets again: in the end each
 * one has been tried again. */
static void test_many_failures(void **state)
{
    struct fixture *f = *state;
    static bool done[3 * LIMIT_OWED_RESTS + 1];
    const unsigned all = 3 * LIMIT_OWED_RESTS;
    unsigned left = all;
    struct owed_step step;
    bool fails = true;

    for (unsigned n = 1; n <= all; n++)
        add(f, OUTBOX_UPLOAD, n, 1);
    for (unsigned i = 0; left > 0; i++) {
        assert_true(i < 100000);
        assert_true(owed_failures(f->owed) <= LIMIT_OWED_RESTS);
        if (!next(f, &step)) {
            assert_true(step.until_ms > f->now_ms);
            f->now_ms = step.until_ms;
            fails = false;
            continue;
        }
        unsigned n = number_of(&step.id);
        ended(f, OUTBOX_UPLOAD, n, fails ? OWED_FAILED : OWED_DONE);
        if (fails)
            continue;
        assert_false(done[n]);
        done[n] = true;
        left--;
        take_away(f, OUTBOX_UPLOAD, n);
    }
}

/* Goal: a list that cannot be read is read again from its beginning, after a pause. */
static void test_unreadable(void **state)
{
    struct fixture *f = *state;
    struct owed_step step;

    add(f, OUTBOX_UPLOAD, 1, 1);
    owed_step(f->owed, f->now_ms, &step);
    assert_int_equal(step.act, OWED_READ);
    owed_page(f->owed, ERR_IO, NULL, 0, f->now_ms);
    owed_step(f->owed, f->now_ms, &step);
    assert_int_equal(step.act, OWED_WAIT);
    assert_true(step.until_ms > f->now_ms);
    f->now_ms = step.until_ms;
    assert_int_equal(expect_start(f, OUTBOX_UPLOAD), 1);
}

/* Goal: what is in doubt, or is to be removed, waits while the same object is being uploaded. */
static void test_one_at_a_time(void **state)
{
    struct fixture *f = *state;

    add(f, OUTBOX_UPLOAD, 1, 1);
    add(f, OUTBOX_BEGUN, 1, 1);
    add(f, OUTBOX_PURGE, 1, 1);
    assert_int_equal(expect_start(f, OUTBOX_UPLOAD), 1);
    expect_nothing(f);
    ended(f, OUTBOX_UPLOAD, 1, OWED_GONE);
    take_away(f, OUTBOX_UPLOAD, 1);
    f->now_ms += OWED_SWEEP_MAX_MS;
    assert_int_equal(expect_start(f, OUTBOX_PURGE), 1);
    assert_int_equal(expect_start(f, OUTBOX_BEGUN), 1);
}

/* ---- Turns ---- */

static void see(struct fixture *f, bool one, bool two)
{
    const struct owed_node nodes[] = {{node_of(1), one}, {node_of(2), two}};

    owed_members(f->owed, nodes, 2, f->now_ms);
}

static bool my_turn(struct fixture *f, unsigned first, unsigned second, uint64_t size)
{
    const struct id128 candidates[] = {node_of(first), node_of(second), node_of(3)};
    const struct id128 self = node_of(3);

    return owed_turn(f->owed, candidates, 3, &self, size, f->now_ms);
}

/* Goal: a sweep that met something of a node that is away is followed by another one as soon as
 * that has lost its turn. */
static void test_sweep_at_takeover(void **state)
{
    struct fixture *f = *state;
    struct owed_step step;

    see(f, true, true);
    see(f, false, true);
    add(f, OUTBOX_UPLOAD, 1, 1);
    uint64_t from_ms = f->now_ms;
    for (bool mine = false; !mine;) {
        while (!next(f, &step))
            f->now_ms = step.until_ms;
        mine = my_turn(f, 1, 1, 1);
        ended(f, OUTBOX_UPLOAD, 1, OWED_GONE);
    }
    assert_in_range(f->now_ms - from_ms, OWED_AWAY_MS, OWED_AWAY_MS + OWED_SWEEP_MIN_MS);
}

static void sweep(struct fixture *f, bool waits_for_one)
{
    struct owed_step step;

    add(f, OUTBOX_UPLOAD, 1, 1);
    owed_news(f->owed);
    while (!next(f, &step))
        f->now_ms = step.until_ms;
    if (waits_for_one)
        assert_false(my_turn(f, 1, 1, 1));
    ended(f, OUTBOX_UPLOAD, 1, OWED_GONE);
    expect_nothing(f);
    take_away(f, OUTBOX_UPLOAD, 1);
}

/* Goal: the first candidate does it at once, the others leave it to him while he answers and does
 * something; the next in order takes over once he was away for OWED_AWAY_MS, not before. */
static void test_takeover_of_absent(void **state)
{
    struct fixture *f = *state;

    see(f, true, true);
    assert_true(my_turn(f, 3, 1, 1));
    assert_false(my_turn(f, 1, 2, 1));
    see(f, false, true);
    f->now_ms += OWED_AWAY_MS - 1;
    assert_false(my_turn(f, 1, 1, 1));
    f->now_ms += 1;
    assert_true(my_turn(f, 1, 1, 1));
    assert_false(my_turn(f, 1, 2, 1)); /* another comes before this node */
    see(f, true, true);                /* back: it gets its time */
    assert_false(my_turn(f, 1, 1, 1));

    /* Who has left has no turn at all. */
    const struct owed_node nodes[] = {{node_of(2), true}};
    owed_members(f->owed, nodes, 1, f->now_ms);
    assert_true(my_turn(f, 1, 1, 1));
}

/* Goal: a node that answers, owes something and does nothing of it for OWED_PATIENCE_MS is taken
 * over from; for a large body later; each thing that it does begins its time anew. */
static void test_takeover_of_idle(void **state)
{
    struct fixture *f = *state;
    struct id128 one = node_of(1);

    see(f, true, true);
    f->now_ms += OWED_PATIENCE_MS - 1;
    assert_false(my_turn(f, 1, 1, 0));
    f->now_ms += 1;
    assert_true(my_turn(f, 1, 1, 0));
    assert_false(my_turn(f, 1, 1, 1 * GIB));
    f->now_ms += GIB / (OWED_SPEED_BYTES / 1000);
    assert_true(my_turn(f, 1, 1, 1 * GIB));
    owed_moved(f->owed, &one, f->now_ms);
    f->now_ms += OWED_PATIENCE_MS - 1;
    assert_false(my_turn(f, 1, 1, 0));
    f->now_ms += 1;
    assert_true(my_turn(f, 1, 1, 0));
}

/* Goal: a node that owed nothing for a long time has all its patience for what it owes from now on:
 * sweeps that meet nothing of it say so; sweeps that meet something do not. */
static void test_idle_owes_nothing(void **state)
{
    struct fixture *f = *state;

    see(f, true, true);
    f->now_ms += 10 * OWED_PATIENCE_MS;
    sweep(f, false);
    assert_false(my_turn(f, 1, 1, 0));
    f->now_ms += OWED_PATIENCE_MS / 2;
    sweep(f, true);
    f->now_ms += OWED_PATIENCE_MS / 2;
    assert_true(my_turn(f, 1, 1, 0));
}

/* Goal: the time in which this node could not reach the cloud is nobody's fault. */
static void test_outage_is_nobodys(void **state)
{
    struct fixture *f = *state;

    see(f, true, true);
    f->now_ms += 10 * OWED_PATIENCE_MS;
    assert_true(my_turn(f, 1, 1, 0));
    owed_reached(f->owed, f->now_ms);
    assert_false(my_turn(f, 1, 1, 0));
    f->now_ms += OWED_PATIENCE_MS;
    assert_true(my_turn(f, 1, 1, 0));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_new_first),
        TEST(test_sweep),
        TEST(test_lanes),
        TEST(test_backoff),
        TEST(test_busy_and_again),
        TEST(test_many_failures),
        TEST(test_unreadable),
        TEST(test_one_at_a_time),
        TEST(test_takeover_of_absent),
        TEST(test_takeover_of_idle),
        TEST(test_sweep_at_takeover),
        TEST(test_idle_owes_nothing),
        TEST(test_outage_is_nobodys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
