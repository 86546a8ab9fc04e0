/* Goal: own events are read once and go at once to everybody whom they help; pushes that arrive are
 * taken where they follow, acknowledged, and asked about where they do not. */
#include "tests/unit/sync_fixture.h"

static void own_events_are_read_once_and_go_to_everybody(void **state)
{
    (void)state;
    begin();
    peer(B, true);
    peer(C, true);
    own(1);
    assert_read(500, 1);
    struct sync_read read = the(SYNC_READ)->read;

    assert_int_equal(read.session, 0);
    own(2);
    own(5);
    assert_silent(); /* one read at a time */
    read_done(&read, 1, 0);
    assert_int_equal(sent(B, WIRE_SYNC_EVENTS).sync_events.first, 1);
    assert_int_equal(sent(C, WIRE_SYNC_EVENTS).sync_events.session, 0);
    assert_read(500, 2);
    read = the(SYNC_READ)->read;
    read_done(&read, 4, 0);
    assert_int_equal(sent(B, WIRE_SYNC_EVENTS).sync_events.count, 4);
    assert_int_equal(count_of(SYNC_READ), 0);
    read_done(&read, 4, 0); /* once more */
    assert_silent();
    assert_int_equal(sync_stats(core)->pushes, 4);
}

static void others_events_are_not_pushed(void **state)
{
    (void)state;
    begin();
    peer(B, true);
    run(10, 5);
    assert_silent();
    own(1);
    assert_read(500, 1);
}

static void who_is_not_in_step_gets_no_push(void **state)
{
    (void)state;
    begin();
    own(3);
    assert_silent(); /* nobody there */
    peer(B, true);
    own(4);
    assert_silent(); /* B may lack 1 to 3 */
    summary(B, ours());
    own(5);
    assert_read(500, 5);
    read_done(&the(SYNC_READ)->read, 1, 0);
    (void)sent(B, WIRE_SYNC_EVENTS);
    flow(B, WIRE_SYNC_END, 0, 0, WIRE_END_DONE); /* it found a gap */
    own(6);
    assert_silent();
    peer(C, true);
    summary(C, ours());
    own(7);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_int_equal(count_of(SYNC_SEND), 1);
    (void)sent(C, WIRE_SYNC_EVENTS);
}

static void who_has_asked_is_in_step_again(void **state)
{
    static const uint64_t known[1] = {0};

    (void)state;
    begin();
    own(3);
    peer(B, true);
    assert_int_equal(ask_me(B, 77, 1 << 20, known, 1), 0);
    assert_read(500, 1);
    struct sync_read read = the(SYNC_READ)->read;

    own(4); /* meanwhile */
    read_done(&read, 3, 0);
    assert_read(500, 4);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_end(B, 77, WIRE_END_DONE);
    own(5);
    assert_read(500, 5);
    assert_int_equal(the(SYNC_READ)->read.session, 0);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_int_equal(sent(B, WIRE_SYNC_EVENTS).sync_events.session, 0);
}

static void our_own_run_may_begin_or_end_while_somebody_asks(void **state)
{
    (void)state;
    begin();
    run(10, 5);
    peer(B, true);
    assert_int_equal(ask_me(B, 77, 1 << 20, NULL, 0), 0);
    struct sync_read read = the(SYNC_READ)->read;

    own(2); /* B was in step with that: it comes as a push, and with the session */
    read_done(&the(SYNC_READ)->read, 2, 0);
    read_done(&read, 5, 0);
    assert_read(500, 1);
    read_done(&the(SYNC_READ)->read, 2, 0);
    assert_end(B, 77, WIRE_END_DONE);

    /* Ended and known to the asker: the sums said so. */
    local((struct vector_run){.origin = id(500), .node = id(ME), .seq = 2, .ended = true}, true);
    static const uint64_t known[] = {5};

    assert_int_equal(ask_me(B, 78, 1 << 20, known, 1), 0);
    assert_end(B, 78, WIRE_END_DONE);
    assert_int_equal(count_of(SYNC_READ), 0);
}

/* What is read for a push while a session ends reaches the asker, too: no event lies between. */
static void no_event_is_lost_between_session_and_push(void **state)
{
    (void)state;
    begin();
    peer(C, true);
    own(3);
    read_done(&the(SYNC_READ)->read, 3, 0);
    peer(B, true);
    assert_int_equal(ask_me(B, 77, 1 << 20, NULL, 0), 0);
    struct sync_read session = the(SYNC_READ)->read;

    own(4);
    assert_read(500, 4);
    struct sync_read push = the(SYNC_READ)->read;

    read_done(&push, 1, 0); /* goes to C alone */
    assert_int_equal(count_of(SYNC_SEND), 1);
    (void)sent(C, WIRE_SYNC_EVENTS);
    own(5);
    push = the(SYNC_READ)->read;
    read_done(&session, 3, 0);
    assert_read(500, 4); /* so this is not the end yet */
    session = the(SYNC_READ)->read;
    read_done(&session, 1, 0);
    assert_read(500, 5);
    session = the(SYNC_READ)->read;
    read_done(&session, 1, 0);
    assert_end(B, 77, WIRE_END_DONE);
    read_done(&push, 1, 0);
    assert_int_equal(count_of(SYNC_SEND), 1); /* B has that */
    own(6);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_int_equal(sent(B, WIRE_SYNC_EVENTS).sync_events.first, 6);
}

/* We write faster than the asker can be served: the session ends all the same, and pushes wait
 * until it has caught up. */
static void a_session_ends_though_we_write_on_and_on(void **state)
{
    uint64_t seq = 1, rounds = 0;

    (void)state;
    begin();
    peer(C, true);
    own(seq);
    read_done(&the(SYNC_READ)->read, 1, 0);
    peer(B, true);
    assert_int_equal(ask_me(B, 77, 1 << 20, NULL, 0), 0);
    struct sync_read session = the(SYNC_READ)->read;

    for (; session.session == 77; rounds++) {
        for (int i = 0; i < 2; i++) { /* both go to C only */
            own(++seq);
            read_done(&the(SYNC_READ)->read, 1, 0);
            assert_int_equal(count_of(SYNC_SEND), 1);
            (void)sent(C, WIRE_SYNC_EVENTS);
        }
        read_done(&session, (uint32_t)(seq - 2 - session.first + 1), 0);
        if (count_of(SYNC_READ) == 0)
            break;
        session = the(SYNC_READ)->read;
    }
    assert_in_range(rounds, 2, 20);
    assert_end(B, 77, WIRE_END_DONE);
    own(++seq);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_int_equal(count_of(SYNC_SEND), 1);
    (void)sent(C, WIRE_SYNC_EVENTS);
}

static void a_peer_that_acknowledges_nothing_gets_no_more(void **state)
{
    enum { COUNT = 2000, BYTES = COUNT * FRAMED, FIT = SYNC_PUSH_WINDOW_BYTES / BYTES };
    size_t to_b = 0, to_c = 0;

    (void)state;
    begin();
    peer(B, true);
    peer(C, true);
    for (uint64_t i = 0; i < 3 * FIT; i++) {
        own((i + 1) * COUNT);
        read_done(&the(SYNC_READ)->read, COUNT, 0);
        for (size_t k = 0; k < said_count; k++) {
            struct id128 b = id(B);

            if (said[k].kind == SYNC_SEND)
                *(id_equal(&said[k].send.to, &b) ? &to_b : &to_c) += 1;
        }
        flow(C, WIRE_SYNC_CREDIT, 0, BYTES, WIRE_END_DONE);
    }
    assert_int_equal(to_b, FIT);
    assert_int_equal(to_c, 3 * FIT);
    flow(B, WIRE_SYNC_CREDIT, 0, UINT64_MAX, WIRE_END_DONE);
    own(3 * FIT * COUNT + 1);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_int_equal(count_of(SYNC_SEND), 1); /* it has to ask for what it missed */
    summary(B, ours());
    own(3 * FIT * COUNT + 2);
    read_done(&the(SYNC_READ)->read, 1, 0);
    (void)sent(B, WIRE_SYNC_EVENTS);
}

static void a_read_that_fails_stops_pushing_until_peers_have_asked(void **state)
{
    (void)state;
    begin();
    peer(B, true);
    own(1);
    read_done(&the(SYNC_READ)->read, 0, ERR_IO);
    own(2);
    assert_silent();
    summary(B, ours());
    own(3);
    assert_read(500, 3);
    tick(SYNC_DEADLINE_MS); /* nobody answers */
    own(4);
    assert_silent();
    assert_int_equal(sync_busy(core), 0);
}

static void a_new_run_of_our_own_is_pushed_from_its_start(void **state)
{
    (void)state;
    begin();
    own(3);
    peer(B, true);
    own(4);
    assert_silent();
    local((struct vector_run){.origin = id(600), .node = id(ME), .seq = 2}, true);
    assert_read(600, 1);
    read_done(&the(SYNC_READ)->read, 2, 0);
    (void)sent(B, WIRE_SYNC_EVENTS);
}

static void pushes_are_committed_and_acknowledged(void **state)
{
    enum { COUNT = 1000, BYTES = COUNT * FRAMED };

    (void)state;
    begin();
    peer(B, true);
    events(B, 0, 10, 1, COUNT);
    assert_committed(10, 1, COUNT);
    committed(&the(SYNC_COMMIT)->commit, 0);
    assert_silent();
    events(B, 0, 10, 1, COUNT); /* twice */
    assert_int_equal(count_of(SYNC_COMMIT), 0);
    events(B, 0, 10, COUNT + 1, COUNT);
    committed(&the(SYNC_COMMIT)->commit, 0);
    struct wire_flow ack = sent(B, WIRE_SYNC_CREDIT).flow;

    assert_int_equal(ack.session, 0);
    assert_int_equal(ack.bytes, 3 * BYTES);
    events(C, 0, 11, 1, 1); /* from nobody we know */
    assert_silent();
}

static void a_gap_in_pushes_is_asked_about_at_once(void **state)
{
    (void)state;
    begin();
    peer(B, true);
    run(10, 5);
    events(B, 0, 10, 7, 1);
    assert_end(B, 0, WIRE_END_DONE);
    (void)sent(B, WIRE_SYNC_ASK);
    assert_int_equal(count_of(SYNC_COMMIT), 0);
    assert_int_equal(sync_stats(core)->gaps, 1);
}

static void asking_waits_while_pushes_keep_coming(void **state)
{
    uint64_t began;

    (void)state;
    begin();
    peer(B, true);
    began = now;
    for (uint64_t i = 1; sync_stats(core)->asks == 0; i++) {
        now += 100;
        events(B, 0, 10, i, 1);
        summary(B, other);
    }
    assert_in_range(now - began, SYNC_PATIENCE_MS, SYNC_PATIENCE_MS + 200);
}

static void events_of_our_own_run_that_we_did_not_write_are_for_the_journal(void **state)
{
    (void)state;
    begin();
    own(3);
    peer(B, true);
    events(B, 0, 500, 2, 1);
    assert_silent();
    events(B, 0, 500, 4, 1);
    struct id128 origin = id(500);

    assert_committed(500, 4, 1);
    committed(&the(SYNC_COMMIT)->commit, ERR_CONFLICT);
    assert_true(id_equal(&the(SYNC_CONFLICT)->conflict.origin, &origin));
    events(B, 0, 500, 4, 1);
    assert_silent();
}

/* The journal froze it, and this process writes under a fresh run from then on. */
static void a_frozen_run_of_our_own_is_pushed_no_more(void **state)
{
    struct hash128 before;

    (void)state;
    begin();
    before = ours();
    peer(B, true);
    own(1);
    struct sync_read read = the(SYNC_READ)->read;

    local((struct vector_run){.origin = id(500), .node = id(ME), .seq = 3, .frozen = true}, true);
    assert_silent();
    assert_true(hash128_equal(&before, &(struct hash128){ours().low, ours().high}));
    read_done(&read, 1, 0);
    assert_silent();
    local((struct vector_run){.origin = id(500), .node = id(ME), .seq = 3, .frozen = true}, false);
    local((struct vector_run){.origin = id(501), .node = id(ME), .seq = 2}, true);
    assert_read(501, 1);
    read_done(&the(SYNC_READ)->read, 2, 0);
    assert_int_equal(sent(B, WIRE_SYNC_EVENTS).sync_events.count, 2);
    events(B, 0, 500, 4, 1);
    assert_int_equal(count_of(SYNC_COMMIT), 0);
}

static void a_peer_cannot_push_without_bounds(void **state)
{
    enum { COUNT = 2000 };
    uint64_t taken = 0;

    (void)state;
    begin();
    peer(B, true);
    for (uint64_t i = 0; i < 100; i++) {
        events(B, 0, 10, taken + 1, COUNT);
        taken += count_of(SYNC_COMMIT) * COUNT;
    }
    assert_in_range(taken * FRAMED, SYNC_PUSH_WINDOW_BYTES, 2 * SYNC_PUSH_WINDOW_BYTES);
    begin();
    peer(B, true);
    taken = 0;
    for (uint64_t i = 1; i <= 1000; i++) { /* a run each */
        events(B, 0, 1000 + i, 1, 1);
        taken += count_of(SYNC_COMMIT);
    }
    assert_int_equal(taken, LIMIT_SYNC_FLIGHTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_events_are_read_once_and_go_to_everybody),
        cmocka_unit_test(others_events_are_not_pushed),
        cmocka_unit_test(who_is_not_in_step_gets_no_push),
        cmocka_unit_test(who_has_asked_is_in_step_again),
        cmocka_unit_test(our_own_run_may_begin_or_end_while_somebody_asks),
        cmocka_unit_test(no_event_is_lost_between_session_and_push),
        cmocka_unit_test(a_session_ends_though_we_write_on_and_on),
        cmocka_unit_test(a_peer_that_acknowledges_nothing_gets_no_more),
        cmocka_unit_test(a_read_that_fails_stops_pushing_until_peers_have_asked),
        cmocka_unit_test(a_new_run_of_our_own_is_pushed_from_its_start),
        cmocka_unit_test(pushes_are_committed_and_acknowledged),
        cmocka_unit_test(a_gap_in_pushes_is_asked_about_at_once),
        cmocka_unit_test(asking_waits_while_pushes_keep_coming),
        cmocka_unit_test(events_of_our_own_run_that_we_did_not_write_are_for_the_journal),
        cmocka_unit_test(a_frozen_run_of_our_own_is_pushed_no_more),
        cmocka_unit_test(a_peer_cannot_push_without_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
