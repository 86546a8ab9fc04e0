/* Goal: a node asks whoever may know more, neither too often nor too many, and takes what follows
 * on what it knows, once; what does not fit is told. */
#include "tests/unit/sync_fixture.h"

static void who_knows_no_more_is_not_asked(void **state)
{
    (void)state;
    begin();
    peer(B, true);
    run(10, 3);
    struct hash128 before = ours();

    run(10, 4);
    summary(B, ours());
    tick(60000);
    assert_silent();
    summary(B, before); /* it lags behind */
    tick(60000);
    assert_silent();
    summary(B, (struct hash128){0, 0}); /* it knows nothing */
    tick(60000);
    assert_silent();
    summary(C, other); /* nobody we know */
    tick(60000);
    assert_silent();
    peer(B, false);
    summary(B, other);
    tick(60000);
    assert_silent();
}

static void a_question_says_what_is_known(void **state)
{
    (void)state;
    begin();
    run(30, 7);
    run(10, 3);
    local((struct vector_run){.origin = id(20), .seq = 9, .ended = true}, false);
    local((struct vector_run){.origin = id(40), .seq = 2, .frozen = true}, false);
    peer(B, true);
    summary(B, other);
    assert_silent(); /* it may come by itself */
    tick(SYNC_DELAY_MS);
    struct wire_sync_ask ask = sent(B, WIRE_SYNC_ASK).sync_ask;
    struct vector_sum ended = vector_sum(sync_vector(core), VECTOR_ENDED);
    static const uint64_t origins[] = {10, 30, 40}, seqs[] = {3, 7, WIRE_SEQ_MAX};

    assert_int_equal(ask.credit_bytes, SYNC_CREDIT_BYTES);
    assert_int_equal(ask.ended_count, 1);
    assert_true(hash128_equal(&ask.ended, &ended.hash));
    assert_int_equal(wire_run_count(ask.runs), 3);
    for (size_t i = 0; i < 3; i++) {
        struct wire_run entry = wire_run_at(ask.runs, i);
        struct id128 expected = id(origins[i]);

        assert_true(id_equal(&entry.origin, &expected));
        assert_int_equal(entry.seq, seqs[i]);
    }
    tick(500);
    assert_silent(); /* once */
}

static void wish(uint64_t node)
{
    assert_int_equal(step((struct sync_input){.kind = SYNC_WISH, .wish = id(node)}), 0);
}

static void who_is_wished_for_is_asked_at_once_and_what_came_of_it_is_told(void **state)
{
    struct id128 b = id(B);
    struct sync_asked asked;

    (void)state;
    begin();
    run(10, 3);
    peer(B, true);
    wish(C); /* nobody we know */
    assert_silent();
    summary(B, other);
    assert_silent(); /* it may come by itself */
    wish(B);
    uint64_t session = sent(B, WIRE_SYNC_ASK).sync_ask.session;
    sync_asked(core, &b, &asked);
    assert_true(asked.alive && asked.wished && !asked.equal && asked.ended == 0);
    events(B, session, 10, 4, 2);
    committed(&the(SYNC_COMMIT)->commit, 0);
    flow(B, WIRE_SYNC_END, session, 0, WIRE_END_DONE);
    run(10, 5);
    summary(B, ours());
    sync_asked(core, &b, &asked);
    assert_true(asked.alive && !asked.wished && asked.equal);
    assert_int_equal(asked.ended, 1);
    assert_int_equal(asked.events, 2);
    assert_int_equal(asked.end, WIRE_END_DONE);
    wish(B); /* it has nothing that we lack */
    assert_silent();
    peer(B, false);
    wish(B);
    assert_silent();
    sync_asked(core, &b, &asked);
    assert_false(asked.alive);
}

static void what_comes_by_itself_is_not_asked_for(void **state)
{
    (void)state;
    begin();
    run(10, 5);
    struct hash128 soon = ours();

    begin();
    run(10, 4);
    peer(B, true);
    summary(B, soon);
    run(10, 5);
    tick(60000);
    assert_silent();
}

static void one_is_asked_at_a_time_and_another_if_it_is_slow(void **state)
{
    (void)state;
    begin();
    for (uint64_t node = B; node <= D; node++) {
        peer(node, true);
        summary(node, other);
    }
    tick(SYNC_DELAY_MS);
    struct id128 first = the(SYNC_SEND)->send.to;

    tick(SYNC_STALL_MS - 1);
    assert_silent();
    tick(1);
    assert_false(id_equal(&first, &the(SYNC_SEND)->send.to));
    tick(2 * SYNC_STALL_MS);
    assert_silent();
    assert_int_equal(sync_stats(core)->asks, LIMIT_SYNC_ASKED);
}

static void what_follows_is_committed_and_nothing_twice(void **state)
{
    (void)state;
    begin();
    run(10, 5);
    uint64_t s = asking_b();

    events(B, s, 10, 3, 2); /* known */
    assert_silent();
    events(B, s, 10, 4, 5); /* partly */
    assert_committed(10, 6, 3);
    events(B, s, 10, 6, 3); /* on its way */
    assert_silent();
    events(B, s, 10, 9, 4);
    assert_committed(10, 9, 4);
    events(B, s, 11, 1, 1);
    assert_committed(11, 1, 1);
    assert_int_equal(sync_stats(core)->duplicates, 2 + 2 + 3);
}

static void a_gap_ends_the_session_and_another_follows(void **state)
{
    (void)state;
    begin();
    run(10, 5);
    uint64_t s = asking_b();

    events(B, s, 10, 6, 1);
    struct sync_commit commit = the(SYNC_COMMIT)->commit;

    events(B, s, 10, 8, 1);
    assert_int_equal(count_of(SYNC_COMMIT), 0);
    assert_end(B, s, WIRE_END_CANCEL);
    events(B, s, 10, 7, 1); /* too late */
    assert_silent();
    committed(&commit, 0); /* it brought something: at once again */
    run(10, 6);
    assert_int_not_equal(sync_stats(core)->asks_gained, 0);
    tick(1);
    assert_int_equal(sync_stats(core)->asks, 2);
}

static void credit_comes_back_as_events_become_durable(void **state)
{
    enum { COUNT = 2000, BYTES = COUNT * FRAMED };
    struct sync_commit commits[8];
    uint64_t owed = 0, given = 0;

    (void)state;
    begin();
    uint64_t s = asking_b();

    for (uint32_t i = 0; i < 8; i++) {
        events(B, s, 10, 1 + i * COUNT, COUNT);
        commits[i] = the(SYNC_COMMIT)->commit;
    }
    for (uint32_t i = 0; i < 8; i++) {
        committed(&commits[i], 0);
        owed += BYTES;
        if (owed - given >= SYNC_CREDIT_BYTES / 4) {
            struct wire_flow credit = sent(B, WIRE_SYNC_CREDIT).flow;

            assert_int_equal(credit.session, s);
            assert_int_equal(credit.bytes, owed - given);
            given = owed;
        } else {
            assert_silent();
        }
    }
    assert_true(given > 0);
    assert_int_equal(sync_stats(core)->events_in, 8 * COUNT);
}

static void who_sends_more_than_it_may_is_cut_off(void **state)
{
    enum { COUNT = 2600 };

    (void)state;
    begin();
    uint64_t s = asking_b();
    uint32_t i = 0;

    for (; i < 100 && count_of(SYNC_SEND) == (i == 0); i++)
        events(B, s, 10, 1 + i * COUNT, COUNT);
    assert_end(B, s, WIRE_END_CANCEL);
    assert_true((uint64_t)i * COUNT * FRAMED < SYNC_CREDIT_BYTES + 3 * LIMIT_WIRE_EVENT_BYTES);
}

/* Milliseconds until B is asked again, given that it differs on and on. */
static uint64_t until_asked(void)
{
    uint64_t began = now, asks = sync_stats(core)->asks;

    while (sync_stats(core)->asks == asks) {
        summary(B, other);
        if (sync_stats(core)->asks == asks)
            tick(10);
        assert_true(now - began < 60000);
    }
    return now - began;
}

static void questions_in_vain_become_rare(void **state)
{
    (void)state;
    begin();
    uint64_t s = asking_b(), before = 0;

    for (int i = 0; i < 8; i++) {
        flow(B, WIRE_SYNC_END, s, 0, i % 2 ? WIRE_END_BUSY : WIRE_END_DONE);
        uint64_t wait = until_asked();

        assert_in_range(wait, 200, SYNC_BACKOFF_MAX_MS + SYNC_DELAY_MS);
        assert_true(wait > before || i > 3);
        before = wait;
        s = sent(B, WIRE_SYNC_ASK).sync_ask.session;
    }
    assert_in_range(before, SYNC_BACKOFF_MAX_MS / 2, SYNC_BACKOFF_MAX_MS + SYNC_DELAY_MS);
    flow(B, WIRE_SYNC_END, s, 0, WIRE_END_DONE);
    summary(B, ours()); /* now it is equal: forgiven */
    assert_true(until_asked() <= SYNC_DELAY_MS);
}

static void done_waits_for_the_next_summary(void **state)
{
    (void)state;
    begin();
    uint64_t s = asking_b();

    events(B, s, 10, 1, 1);
    committed(&the(SYNC_COMMIT)->commit, 0);
    flow(B, WIRE_SYNC_END, s, 0, WIRE_END_DONE);
    run(10, 1);
    for (int i = 0; i < 10; i++) {
        tick(1000);
        assert_silent();
    }
    assert_true(until_asked() <= SYNC_DELAY_MS);
}

static void a_peer_that_differs_is_asked_now_and_then_without_news(void **state)
{
    (void)state;
    begin();
    flow(B, WIRE_SYNC_END, asking_b(), 0, WIRE_END_DONE);
    for (uint64_t i = 0; i < 2; i++) {
        uint64_t began = now;

        while (sync_stats(core)->asks == i + 1)
            tick(100);
        assert_in_range(now - began, 100, SYNC_REPAIR_MS + 100);
        flow(B, WIRE_SYNC_END, sent(B, WIRE_SYNC_ASK).sync_ask.session, 0, WIRE_END_DONE);
    }
}

static void a_session_without_progress_is_given_up(void **state)
{
    (void)state;
    begin();
    uint64_t s = asking_b();

    tick(SYNC_DEADLINE_MS - 1);
    assert_silent();
    tick(1);
    assert_end(B, s, WIRE_END_CANCEL);
    assert_int_equal(sync_stats(core)->timeouts, 1);
    assert_int_equal(sync_busy(core), 0);
    tick(SYNC_BACKOFF_MS); /* it has still not told what it knows */
    assert_true(sent(B, WIRE_SYNC_ASK).sync_ask.session != s);
    peer(B, false);
    assert_int_equal(sync_busy(core), 0);
}

static void behind_is_told_to_the_caller(void **state)
{
    (void)state;
    begin();
    uint64_t s = asking_b();
    struct id128 b = id(B);

    flow(B, WIRE_SYNC_END, s, 0, WIRE_END_BEHIND);
    assert_true(id_equal(&the(SYNC_BEHIND)->behind.peer, &b));
    tick(1000);
    assert_silent();
}

static void what_does_not_fit_is_told_and_not_taken_again(void **state)
{
    (void)state;
    begin();
    run(10, 5);
    uint64_t s = asking_b();

    events(B, s, 10, 6, 1);
    committed(&the(SYNC_COMMIT)->commit, ERR_CONFLICT);
    struct id128 origin = id(10), b = id(B);

    assert_true(id_equal(&the(SYNC_CONFLICT)->conflict.origin, &origin));
    assert_true(id_equal(&the(SYNC_CONFLICT)->conflict.peer, &b));
    assert_int_equal(the(SYNC_CONFLICT)->conflict.seq, 6);
    assert_int_equal(the(SYNC_CONFLICT)->conflict.rc, ERR_CONFLICT);
    events(B, s, 10, 6, 1);
    assert_silent();
    events(B, s, 11, 1, 1); /* its other runs are fine */
    assert_committed(11, 1, 1);
    peer(C, true);
    events(C, 0, 10, 6, 1); /* and others' of that run */
    assert_committed(10, 6, 1);
    committed(&the(SYNC_COMMIT)->commit, 0);
    run(10, 6);
    events(B, 0, 10, 7, 1);
    assert_silent();
    tick(SYNC_REFUSED_MS);
    events(B, 0, 10, 7, 1);
    assert_committed(10, 7, 1);
}

static void a_full_log_ends_the_session_for_a_while(void **state)
{
    (void)state;
    begin();
    run(10, 5);
    uint64_t s = asking_b();

    events(B, s, 10, 6, 1);
    struct sync_commit first = the(SYNC_COMMIT)->commit;

    events(B, s, 10, 7, 1);
    struct sync_commit second = the(SYNC_COMMIT)->commit;

    committed(&first, ERR_FULL);
    assert_end(B, s, WIRE_END_CANCEL);
    committed(&second, ERR_CONFLICT); /* a gap, since the first one is not there */
    assert_int_equal(count_of(SYNC_CONFLICT), 0);
    assert_int_equal(sync_busy(core), 0);
    assert_in_range(until_asked(), SYNC_BACKOFF_MS / 2, SYNC_BACKOFF_MS);
    events(B, sent(B, WIRE_SYNC_ASK).sync_ask.session, 10, 6, 2);
    assert_committed(10, 6, 2);
}

static void frozen_runs_are_not_taken(void **state)
{
    (void)state;
    begin();
    local((struct vector_run){.origin = id(10), .seq = 2, .frozen = true}, false);
    uint64_t s = asking_b();

    events(B, s, 10, 3, 1);
    assert_silent();
    events(B, 0, 10, 9, 1);
    assert_silent();
}

/* One that nothing is here of, but that it is frozen. */
static void a_run_may_be_known_as_frozen_alone(void **state)
{
    struct hash128 before;

    (void)state;
    begin();
    before = ours();
    local((struct vector_run){.origin = id(10), .frozen = true}, false);
    struct hash128 after = ours();

    assert_true(hash128_equal(&before, &after));
    uint64_t s = asking_b();

    events(B, s, 10, 1, 1);
    assert_silent();
}

static void what_a_peer_says_is_frozen_is_for_the_journal(void **state)
{
    struct wire_message m = {.type = WIRE_SYNC_FROZEN};
    struct id128 runs[] = {id(10), id(C), id(20), id(D)};

    (void)state;
    begin();
    local((struct vector_run){.origin = id(10), .seq = 2, .frozen = true}, false);
    run(20, 4);
    uint64_t s = asking_b();

    m.sync_frozen = (struct wire_sync_frozen){s, {(char *)runs, sizeof runs}};
    assert_int_equal(message(C, m), 0);
    assert_silent(); /* not whom we asked */
    assert_int_equal(message(B, m), 0);
    struct sync_output *out = the(SYNC_FREEZE);

    assert_true(id_equal(&out->freeze.origin, &runs[2]) && id_equal(&out->freeze.node, &runs[3]));
}

/* The last event that is here is another than B has under its number. Which one it is that broke,
 * the journal finds out: it gets all that came. */
static void another_event_of_a_number_goes_to_the_journal(void **state)
{
    struct vector_run known = {.origin = id(10), .node = id(B), .seq = 5};
    uint8_t event[EVENT];

    (void)state;
    memset(event, 5, sizeof event);
    sha256(event, sizeof event, known.hash);
    begin();
    local(known, false);
    peer(B, true);
    events(B, 0, 10, 4, 2);
    assert_silent(); /* the same */
    assert_int_equal(sync_stats(core)->duplicates, 2);
    known.origin = id(20);
    known.hash[0] ^= 1;
    local(known, false);
    events(B, 0, 20, 6, 1);
    assert_committed(20, 6, 1); /* the journal will see that it does not follow */
    committed(&the(SYNC_COMMIT)->commit, ERR_FULL);
    events(B, 0, 20, 1, 4);
    assert_silent(); /* nothing to compare with */
    tick(3 * SYNC_DEADLINE_MS);
    events(B, 0, 20, 3, 4);
    assert_committed(20, 3, 4);
    committed(&the(SYNC_COMMIT)->commit, ERR_CONFLICT);
    assert_int_equal(count_of(SYNC_CONFLICT), 1);
    events(B, 0, 20, 3, 4);
    assert_silent();
}

static void ended_runs_go_out_page_by_page(void **state)
{
    enum { RUNS = LIMIT_WIRE_RUNS + 10 };
    size_t got = 0;

    (void)state;
    begin();
    for (uint64_t i = 1; i <= RUNS; i++)
        local((struct vector_run){.origin = id(i), .seq = i, .ended = true}, false);
    uint64_t s = asking_b();

    for (uint32_t page = 0; page < 2; page++) {
        flow(B, WIRE_SYNC_MORE, s, 0, WIRE_END_DONE);
        struct wire_sync_vector vector = sent(B, WIRE_SYNC_VECTOR).sync_vector;

        assert_int_equal(vector.page, page);
        assert_int_equal(vector.last, page == 1);
        for (size_t i = 0; i < wire_run_count(vector.runs); i++)
            assert_int_equal(wire_run_at(vector.runs, i).seq, ++got);
    }
    assert_int_equal(got, RUNS);
    flow(B, WIRE_SYNC_MORE, s, 0, WIRE_END_DONE);
    assert_silent();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_knows_no_more_is_not_asked),
        cmocka_unit_test(a_question_says_what_is_known),
        cmocka_unit_test(who_is_wished_for_is_asked_at_once_and_what_came_of_it_is_told),
        cmocka_unit_test(what_comes_by_itself_is_not_asked_for),
        cmocka_unit_test(one_is_asked_at_a_time_and_another_if_it_is_slow),
        cmocka_unit_test(what_follows_is_committed_and_nothing_twice),
        cmocka_unit_test(a_gap_ends_the_session_and_another_follows),
        cmocka_unit_test(credit_comes_back_as_events_become_durable),
        cmocka_unit_test(who_sends_more_than_it_may_is_cut_off),
        cmocka_unit_test(questions_in_vain_become_rare),
        cmocka_unit_test(done_waits_for_the_next_summary),
        cmocka_unit_test(a_peer_that_differs_is_asked_now_and_then_without_news),
        cmocka_unit_test(a_session_without_progress_is_given_up),
        cmocka_unit_test(behind_is_told_to_the_caller),
        cmocka_unit_test(what_does_not_fit_is_told_and_not_taken_again),
        cmocka_unit_test(a_full_log_ends_the_session_for_a_while),
        cmocka_unit_test(frozen_runs_are_not_taken),
        cmocka_unit_test(a_run_may_be_known_as_frozen_alone),
        cmocka_unit_test(what_a_peer_says_is_frozen_is_for_the_journal),
        cmocka_unit_test(another_event_of_a_number_goes_to_the_journal),
        cmocka_unit_test(ended_runs_go_out_page_by_page),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
