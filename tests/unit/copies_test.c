/* Goal: whoever waits for copies is called once: as soon as the journal's views say that there are
 * enough and not before, when it is cancelled, or when waiting has lost its sense; and no copy is
 * missed that comes while the wait begins. */
#include "tests/unit/journal_fixture.h"

#include "base/container.h"
#include "cluster/copies.h"

#include <pthread.h>
#include <time.h>

#define BODY_BYTES 700
#define WAIT_S     20

struct pair {
    struct node *a, *b; /* A waits, B makes copies */
    struct copies *copies;
};

/* One that waits, and its owner. */
struct waiter {
    struct copies_wait wait;
    sem_t done;
    unsigned calls;
};

static int append_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    uint32_t length = (uint32_t)len;

    (void)seq;
    buf_add(arg, &length, sizeof length);
    buf_add(arg, raw, len);
    return 0;
}

static void apply(struct node *node)
{
    while (journal_apply_step(node->journal))
        ;
}

/* All of FROM's events are committed at TO; not applied. */
static void commit_to(struct node *to, struct node *from)
{
    struct db_origin *origins;
    struct db_reader *reader;
    struct buf events;
    size_t count;

    apply(from);
    buf_init(&events, 0);
    assert_int_equal(journal_reader_open(from->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(db_each_event(reader, origins[i].no, 1, append_event, &events), 0);
    free(origins);
    db_reader_close(&reader);
    struct change change = {.request.kind = CHANGE_PEER,
                            .events = (uint8_t *)events.data,
                            .events_bytes = events.len,
                            .done = done};
    assert_int_equal(commit(to, &change), 0);
    buf_release(&events);
}

static void sync_to(struct node *to, struct node *from)
{
    commit_to(to, from);
    apply(to);
}

/* B has a copy of object N, durably and applied there. */
static void hold_at_b(struct pair *pair, unsigned n)
{
    uint8_t body[BODY_BYTES];
    struct change change;

    make_body(body, sizeof body, n);
    prepare_put(&change, n, body, sizeof body);
    change.request.kind = CHANGE_HOLD;
    change.request.fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE;
    assert_int_equal(commit(pair->b, &change), 0);
    apply(pair->b);
}

static void say_member(struct node *by, const struct id128 *subject, enum member_state state)
{
    struct event event = {.kind = EVENT_MEMBER,
                          .fields = EVENT_HAS_MEMBER,
                          .subject = *subject,
                          .address = {"127.0.0.1:1", 11},
                          .member_state = (uint8_t)state};
    struct change change = {.request.kind = CHANGE_FACT, .fact = &event, .done = done};

    assert_int_equal(commit(by, &change), 0);
    apply(by);
}

static void listen(void *arg, const struct journal_copy_news *news)
{
    assert_non_null(news->event);
    copies_news(arg, news->event, news->len);
}

static int setup_pair(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);

    *state = pair;
    if (setup((void **)&pair->a) || setup((void **)&pair->b))
        return -1;
    node_open(pair->a, false);
    node_open(pair->b, false);
    struct id128 ids[] = {journal_node(pair->a->journal), journal_node(pair->b->journal)};
    for (int i = 0; i < 2; i++)
        say_member(pair->a, &ids[i], MEMBER_JOINED);
    sync_to(pair->b, pair->a);
    assert_int_equal(copies_create(&pair->copies, pair->a->journal, 2), 0);
    journal_listen_copies(pair->a->journal, listen, pair->copies);
    assert_int_equal(copies_start(pair->copies), 0);
    copies_others(pair->copies, 1);
    return 0;
}

static int teardown_pair(void **state)
{
    struct pair *pair = *state;

    copies_stop(pair->copies);
    node_close(pair->a, true);
    node_close(pair->b, true);
    copies_destroy(&pair->copies);
    int rc = teardown((void **)&pair->a) | teardown((void **)&pair->b);
    free(pair);
    return rc;
}

static void on_done(struct copies_wait *wait)
{
    struct waiter *waiter = container_of(wait, struct waiter, wait);

    waiter->calls++;
    (void)sem_post(&waiter->done);
}

static void prepare(struct waiter *waiter, unsigned n, enum copies_need need)
{
    uint8_t body[BODY_BYTES];

    memset(waiter, 0, sizeof *waiter);
    (void)sem_init(&waiter->done, 0, 0);
    make_body(body, sizeof body, n);
    waiter->wait.id = make_id(n);
    sha256(body, sizeof body, waiter->wait.sha256);
    waiter->wait.need = need;
    waiter->wait.done = on_done;
}

static void begin(struct pair *pair, struct waiter *waiter, unsigned n, enum copies_need need)
{
    prepare(waiter, n, need);
    assert_int_equal(copies_wait(pair->copies, &waiter->wait), 0);
}

static void await(struct waiter *waiter)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    if (sem_timedwait(&waiter->done, &until) != 0)
        fail_msg("a wait does not end");
    assert_int_equal(waiter->calls, 1);
}

static void expect(struct waiter *waiter, int rc, unsigned held, unsigned members)
{
    await(waiter);
    assert_int_equal(waiter->wait.rc, rc);
    assert_int_equal(waiter->wait.found.held, held);
    assert_int_equal(waiter->wait.found.members, members);
}

/* Whatever was due before has been looked at: they are looked at in order. */
static void pass(struct pair *pair)
{
    struct waiter barrier;

    begin(pair, &barrier, 0, COPIES_LOOK);
    await(&barrier);
}

static void expect_waiting(struct pair *pair, const struct waiter *waiter)
{
    pass(pair);
    assert_int_equal(waiter->calls, 0);
}

static void put_at_a(struct pair *pair, unsigned n)
{
    assert_int_equal(put(pair->a, n, BODY_BYTES), 0);
    sync_to(pair->b, pair->a);
}

static void enough_is_as_documented(void **state)
{
    const struct copies_chance all = {true, true, 2}, cut_off = {true, false, 2},
                               alone = {false, false, 2}, single = {true, true, 1};

    (void)state;
    for (unsigned members = 1; members <= 7; members++)
        for (unsigned held = 0; held <= members; held++) {
            const struct db_copies found = {.members = members, .held = held};
            const struct db_copies uploaded = {.members = members, .held = held, .uploaded = true};

            assert_true(copies_enough(COPIES_LOOK, &found, &all));
            assert_int_equal(copies_enough(COPIES_ONE, &found, &all), held >= 1);
            assert_int_equal(copies_enough(COPIES_SECOND, &found, &all), held >= 2);
            assert_int_equal(copies_enough(COPIES_SECOND, &found, &single), held >= 1);
            assert_true(copies_enough(COPIES_SECOND, &found, &alone));
            assert_int_equal(copies_enough(COPIES_QUORUM, &found, &all), held >= members / 2 + 1);
            assert_int_equal(copies_enough(COPIES_ALL, &found, &all), held == members);
            /* Who answers makes no difference to these. */
            assert_int_equal(copies_enough(COPIES_ALL, &found, &alone), held == members);
            /* The cloud is waited for while it answers, else a second copy, where one can be had.
             */
            assert_false(copies_enough(COPIES_CLOUD, &found, &all));
            assert_int_equal(copies_enough(COPIES_CLOUD, &found, &cut_off), held >= 2);
            assert_true(copies_enough(COPIES_CLOUD, &found, &alone));
            assert_true(copies_enough(COPIES_SECOND, &uploaded, &all));
            assert_true(copies_enough(COPIES_CLOUD, &uploaded, &all));
            assert_true(copies_enough(COPIES_CLOUD, &uploaded, &cut_off));
        }
    /* What left the cluster since, all of it: nobody is left who could hold it. */
    const struct db_copies none = {.members = 0};
    assert_false(copies_enough(COPIES_ONE, &none, &all));
    assert_false(copies_enough(COPIES_QUORUM, &none, &all));
}

static void a_wait_ends_with_the_copy_that_was_missing(void **state)
{
    struct pair *pair = *state;
    struct waiter one, quorum, all, late;
    struct copies_stats stats;

    put_at_a(pair, 1);
    begin(pair, &one, 1, COPIES_ONE);
    expect(&one, 0, 1, 2);
    begin(pair, &quorum, 1, COPIES_QUORUM);
    begin(pair, &all, 1, COPIES_ALL);
    expect_waiting(pair, &all);
    copies_stats(pair->copies, &stats);
    assert_int_equal(stats.waiting, 2);
    /* Other news are no reason. */
    put_at_a(pair, 2);
    expect_waiting(pair, &all);
    hold_at_b(pair, 1);
    commit_to(pair->a, pair->b);
    expect_waiting(pair, &all); /* durable, but in no view yet */
    apply(pair->a);
    expect(&all, 0, 2, 2);
    expect(&quorum, 0, 2, 2);
    begin(pair, &late, 1, COPIES_ALL);
    expect(&late, 0, 2, 2);
    assert_true(all.wait.fulfilled && late.wait.fulfilled);
    copies_stats(pair->copies, &stats);
    assert_int_equal(stats.waiting, 0);
    assert_int_equal(stats.fulfilled, 4);
    assert_int_equal(stats.late, 0);
}

static void a_look_waits_for_nothing(void **state)
{
    struct pair *pair = *state;
    struct waiter look;

    put_at_a(pair, 1);
    begin(pair, &look, 1, COPIES_LOOK);
    expect(&look, 0, 1, 2);
    begin(pair, &look, 9, COPIES_LOOK); /* nobody knows it */
    await(&look);
    assert_int_equal(look.wait.rc, ERR_NOT_FOUND);
    assert_false(look.wait.fulfilled);
}

static void a_cancelled_wait_ends_once_and_with_the_truth(void **state)
{
    struct pair *pair = *state;
    struct waiter all;
    struct copies_stats stats;

    put_at_a(pair, 1);
    begin(pair, &all, 1, COPIES_ALL);
    copies_cancel(pair->copies, &all.wait);
    copies_cancel(pair->copies, &all.wait);
    expect(&all, 0, 1, 2);
    assert_false(all.wait.fulfilled);
    copies_cancel(pair->copies, &all.wait);
    pass(pair);
    assert_int_equal(all.calls, 1);
    copies_stats(pair->copies, &stats);
    assert_int_equal(stats.late, 1);
}

static void a_wait_without_sense_ends(void **state)
{
    struct pair *pair = *state;
    struct waiter deleted, other;

    put_at_a(pair, 1);
    begin(pair, &deleted, 1, COPIES_ALL);
    expect_waiting(pair, &deleted);
    assert_int_equal(delete (pair->b, 1), 0);
    sync_to(pair->a, pair->b);
    await(&deleted);
    assert_int_equal(deleted.wait.rc, ERR_DELETED);
    assert_false(deleted.wait.fulfilled);
    /* Other bytes are under the id. */
    put_at_a(pair, 2);
    prepare(&other, 2, COPIES_ALL);
    other.wait.sha256[0] ^= 1;
    assert_int_equal(copies_wait(pair->copies, &other.wait), 0);
    await(&other);
    assert_int_equal(other.wait.rc, ERR_CONFLICT);
}

static void who_belongs_changes_what_is_enough(void **state)
{
    struct pair *pair = *state;
    struct id128 third = {{3, 3, 3}}, b = journal_node(pair->b->journal);
    struct waiter all;

    say_member(pair->a, &third, MEMBER_JOINED);
    put_at_a(pair, 1);
    begin(pair, &all, 1, COPIES_ALL);
    expect_waiting(pair, &all);
    hold_at_b(pair, 1);
    sync_to(pair->a, pair->b);
    expect_waiting(pair, &all);
    say_member(pair->a, &third, MEMBER_FORGOTTEN);
    copies_members(pair->copies);
    expect(&all, 0, 2, 2);
    /* A copy of one that is out does not count. */
    say_member(pair->a, &b, MEMBER_LEFT);
    begin(pair, &all, 1, COPIES_ALL);
    expect(&all, 0, 1, 1);
}

static void a_second_copy_is_waited_for_while_somebody_can_make_it(void **state)
{
    struct pair *pair = *state;
    struct waiter second;

    put_at_a(pair, 1);
    begin(pair, &second, 1, COPIES_SECOND);
    expect_waiting(pair, &second);
    hold_at_b(pair, 1);
    sync_to(pair->a, pair->b);
    expect(&second, 0, 2, 2);
    put_at_a(pair, 2);
    begin(pair, &second, 2, COPIES_SECOND);
    expect_waiting(pair, &second);
    copies_others(pair->copies, 0);
    expect(&second, 0, 1, 2);
    begin(pair, &second, 2, COPIES_SECOND);
    expect(&second, 0, 1, 2);
}

static void too_many_are_refused_and_a_stop_ends_all(void **state)
{
    struct pair *pair = *state;
    struct waiter *waiters = calloc(LIMIT_COPY_WAITS + 1, sizeof *waiters);
    struct copies_stats stats;

    put_at_a(pair, 1);
    for (unsigned i = 0; i < LIMIT_COPY_WAITS; i++)
        begin(pair, &waiters[i], 1, COPIES_ALL);
    prepare(&waiters[LIMIT_COPY_WAITS], 1, COPIES_ALL);
    assert_int_equal(copies_wait(pair->copies, &waiters[LIMIT_COPY_WAITS].wait), ERR_FULL);
    copies_stats(pair->copies, &stats);
    assert_int_equal(stats.waiting, LIMIT_COPY_WAITS);
    assert_int_equal(stats.refused, 1);
    copies_stop(pair->copies);
    for (unsigned i = 0; i < LIMIT_COPY_WAITS; i++) {
        await(&waiters[i]);
        assert_int_equal(waiters[i].wait.rc, ERR_CLOSED);
        assert_false(waiters[i].wait.fulfilled);
    }
    assert_int_equal(copies_wait(pair->copies, &waiters[0].wait), ERR_CLOSED);
    assert_int_equal(waiters[LIMIT_COPY_WAITS].calls, 0);
    free(waiters);
}

static void *apply_in_a_thread(void *node)
{
    apply(node);
    return NULL;
}

/* The copy becomes known at the very moment at which the wait begins. */
static void no_copy_is_missed(void **state)
{
    struct pair *pair = *state;

    for (unsigned n = 1; n <= 60; n++) {
        struct waiter all;
        pthread_t thread;

        put_at_a(pair, n);
        hold_at_b(pair, n);
        commit_to(pair->a, pair->b);
        assert_int_equal(pthread_create(&thread, NULL, apply_in_a_thread, pair->a), 0);
        begin(pair, &all, n, COPIES_ALL);
        expect(&all, 0, 2, 2);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup_pair, teardown_pair)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enough_is_as_documented),
        test(a_wait_ends_with_the_copy_that_was_missing),
        test(a_look_waits_for_nothing),
        test(a_cancelled_wait_ends_once_and_with_the_truth),
        test(a_wait_without_sense_ends),
        test(who_belongs_changes_what_is_enough),
        test(a_second_copy_is_waited_for_while_somebody_can_make_it),
        test(too_many_are_refused_and_a_stop_ends_all),
        test(no_copy_is_missed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
