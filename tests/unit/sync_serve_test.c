/* Goal: who asks gets what it lacks, in order, within its credit, and is told what it cannot get;
 * ended runs are compared with few bytes; sessions are few and end. */
#include "tests/unit/sync_fixture.h"

static void the_asker_gets_what_it_lacks_in_order(void **state)
{
    static const uint64_t known[] = {5, 0, 9, 4};

    (void)state;
    begin();
    peer(B, true);
    run(10, 5);
    run(20, 2);
    run(30, 8);
    run(40, 7);
    assert_int_equal(ask_me(B, 77, 1 << 20, known, 4), 0);
    assert_read(20, 1);
    read_done(&the(SYNC_READ)->read, 1, 0);
    struct wire_sync_events got = sent(B, WIRE_SYNC_EVENTS).sync_events;

    assert_int_equal(got.session, 77);
    assert_int_equal(got.first, 1);
    assert_int_equal(got.count, 1);
    assert_memory_equal(got.data.ptr, data_of(1, 1).ptr, FRAMED);
    assert_read(20, 2);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_read(40, 5);
    read_done(&the(SYNC_READ)->read, 3, 0);
    assert_end(B, 77, WIRE_END_DONE);
    assert_int_equal(sync_busy(core), 0);
}

static void no_more_is_sent_than_credit_allows(void **state)
{
    (void)state;
    begin();
    run(10, 100);
    assert_int_equal(ask_me(B, 77, 3 * FRAMED, NULL, 0), 0);
    assert_int_equal(the(SYNC_READ)->read.limit_bytes, 3 * FRAMED);
    read_done(&the(SYNC_READ)->read, 3, 0);
    assert_int_equal(count_of(SYNC_READ), 0);
    tick(5000);
    assert_silent();
    flow(B, WIRE_SYNC_CREDIT, 77, 0, WIRE_END_DONE);
    assert_silent();
    flow(B, WIRE_SYNC_CREDIT, 77, UINT64_MAX, WIRE_END_DONE);
    assert_read(10, 4);
    assert_int_equal(the(SYNC_READ)->read.limit_bytes, LIMIT_WIRE_EVENT_BYTES);
    read_done(&the(SYNC_READ)->read, 97, 0);
    assert_end(B, 77, WIRE_END_DONE);
}

static void what_was_compacted_is_left_out_and_told(void **state)
{
    static const uint64_t known[] = {4, 3};

    (void)state;
    begin();
    local((struct vector_run){.origin = id(10), .seq = 9, .anchor_seq = 4}, false);
    local((struct vector_run){.origin = id(20), .seq = 9, .anchor_seq = 4}, false);
    run(30, 1);
    assert_int_equal(ask_me(B, 77, 1 << 20, known, 2), 0);
    assert_read(10, 5);
    read_done(&the(SYNC_READ)->read, 5, 0);
    assert_read(30, 1);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_end(B, 77, WIRE_END_BEHIND);

    /* Compacted while it was read. */
    begin();
    run(10, 9);
    assert_int_equal(ask_me(B, 78, 1 << 20, NULL, 0), 0);
    struct sync_read read = the(SYNC_READ)->read;

    local((struct vector_run){.origin = id(10), .seq = 9, .anchor_seq = 8}, false);
    read_done(&read, 0, ERR_NOT_FOUND);
    assert_end(B, 78, WIRE_END_BEHIND);
}

static void what_cannot_be_read_is_left_out_and_told(void **state)
{
    (void)state;
    begin();
    run(10, 9);
    run(20, 1);
    assert_int_equal(ask_me(B, 77, 1 << 20, NULL, 0), 0);
    read_done(&the(SYNC_READ)->read, 0, ERR_CORRUPT);
    assert_read(20, 1);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_end(B, 77, WIRE_END_DAMAGED);
}

static void frozen_runs_are_not_given(void **state)
{
    (void)state;
    begin();
    local((struct vector_run){.origin = id(10), .seq = 9, .frozen = true}, false);
    assert_int_equal(ask_me(B, 77, 1 << 20, NULL, 0), 0);
    assert_end(B, 77, WIRE_END_DONE);
    run(20, 5);
    assert_int_equal(ask_me(B, 78, 1 << 20, NULL, 0), 0);
    read_done(&the(SYNC_READ)->read, 2, 0);
    struct sync_read read = the(SYNC_READ)->read;

    local((struct vector_run){.origin = id(20), .seq = 5, .frozen = true}, false);
    read_done(&read, 1, 0); /* was read before that */
    assert_end(B, 78, WIRE_END_DONE);
}

/* Once, at the end, and not where the asker says that it knows. */
static void who_does_not_know_of_frozen_runs_is_told(void **state)
{
    static const uint64_t known[] = {WIRE_SEQ_MAX, 3};
    struct wire_sync_frozen told;
    struct id128 expected[2] = {id(20), id(B)};

    (void)state;
    begin();
    local((struct vector_run){.origin = id(10), .node = id(C), .seq = 9, .frozen = true}, false);
    local((struct vector_run){.origin = id(20), .node = id(B), .seq = 9, .frozen = true}, false);
    local((struct vector_run){.origin = id(30), .seq = 9, .frozen = true}, false); /* nobody's */
    run(40, 1);
    assert_int_equal(ask_me(B, 77, 1 << 20, known, 2), 0);
    read_done(&the(SYNC_READ)->read, 1, 0);
    told = sent(B, WIRE_SYNC_FROZEN).sync_frozen;
    assert_int_equal(told.session, 77);
    assert_int_equal(told.runs.len, WIRE_FROZEN_BYTES);
    assert_memory_equal(told.runs.ptr, expected, WIRE_FROZEN_BYTES);
    assert_end(B, 77, WIRE_END_DONE);

    /* No more than a message holds; the rest with the next question. */
    begin();
    for (uint64_t i = 0; i < LIMIT_WIRE_FROZEN + 5; i++)
        local((struct vector_run){.origin = id(100 + i), .node = id(C), .seq = 1, .frozen = true},
              false);
    assert_int_equal(ask_me(B, 78, 1 << 20, NULL, 0), 0);
    assert_int_equal(sent(B, WIRE_SYNC_FROZEN).sync_frozen.runs.len,
                     LIMIT_WIRE_FROZEN * WIRE_FROZEN_BYTES);
}

/* 10, 20, 30, 40, 50 ended here, with one event each. The asker knows other ended runs. */
static void begin_with_ended_runs(uint64_t session)
{
    struct wire_message m = {.type = WIRE_SYNC_ASK};

    begin();
    for (uint64_t i = 10; i <= 50; i += 10)
        local((struct vector_run){.origin = id(i), .seq = 1, .ended = true}, false);
    m.sync_ask = (struct wire_sync_ask){.session = session, .ended = {1, 2}, .ended_count = 3};
    m.sync_ask.credit_bytes = 1 << 20;
    assert_int_equal(message(B, m), 0);
    assert_int_equal(sent(B, WIRE_SYNC_MORE).flow.session, session);
}

static void ended_runs_are_compared_page_by_page(void **state)
{
    (void)state;
    begin_with_ended_runs(77);
    assert_int_equal(message(B, page_of(77, 0, false, 20, 30)), 0);
    assert_read(10, 1);
    assert_int_equal(message(B, page_of(77, 0, false, 20, 30)), 0); /* twice */
    assert_silent();
    begin_with_ended_runs(78);
    assert_int_equal(message(B, page_of(78, 0, false, 20, 30)), 0);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_int_equal(sent(B, WIRE_SYNC_MORE).flow.session, 78);
    assert_int_equal(message(B, page_of(78, 1, true, 50, 50)), 0);
    assert_read(40, 1);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_end(B, 78, WIRE_END_DONE);
}

static void pages_that_lead_nowhere_end_the_session(void **state)
{
    (void)state;
    begin_with_ended_runs(77);
    assert_int_equal(message(B, page_of(77, 1, true, 10, 50)), 0); /* the second first */
    assert_end(B, 77, WIRE_END_UNKNOWN);
    begin_with_ended_runs(78);
    assert_int_equal(message(B, page_of(78, 0, false, 60, 50)), 0); /* empty, but not the last */
    assert_end(B, 78, WIRE_END_UNKNOWN);
    begin_with_ended_runs(79);
    assert_int_equal(message(B, page_of(79, 0, false, 10, 20)), 0);
    assert_int_equal(message(B, page_of(79, 1, false, 10, 20)), 0); /* back again */
    assert_end(B, 79, WIRE_END_UNKNOWN);
    assert_int_equal(sync_busy(core), 0);
}

static void an_asker_without_ended_runs_needs_no_pages(void **state)
{
    struct wire_message m = {.type = WIRE_SYNC_ASK};

    (void)state;
    begin();
    local((struct vector_run){.origin = id(10), .seq = 1, .ended = true}, false);
    m.sync_ask = (struct wire_sync_ask){.session = 77, .credit_bytes = 1000};
    assert_int_equal(message(B, m), 0);
    assert_read(10, 1);
    assert_int_equal(the(SYNC_READ)->read.limit_bytes, 1000);
}

/* The asker's ended runs are 10, 20 … 50 as here and, if that is not 0, run ALSO up to SEQ; it
 * lists run LISTED up to 3. */
static void ask_knowing(uint64_t session, uint64_t also, uint64_t seq, uint64_t listed)
{
    struct wire_message m = {.type = WIRE_SYNC_ASK};
    struct wire_run entry = {id(listed), 3};
    struct vector_sum sum = {{0, 0}, 0};
    struct id128 origin;
    struct buf list;

    for (uint64_t i = 10; i <= 50; i += 10) {
        origin = id(i);
        vector_sum_add(&sum, &origin, 1);
    }
    origin = id(also);
    if (also)
        vector_sum_add(&sum, &origin, seq);
    buf_init(&list, 0);
    wire_run_add(&list, &entry);
    m.sync_ask = (struct wire_sync_ask){
        session, sum.hash, sum.count, 1 << 20, {list.data, (uint32_t)list.len}};
    assert_int_equal(message(B, m), 0);
    buf_release(&list);
}

static void begin_with_five_ended(void)
{
    begin();
    for (uint64_t i = 10; i <= 50; i += 10)
        local((struct vector_run){.origin = id(i), .seq = 1, .ended = true}, false);
}

static void a_restart_that_one_has_not_heard_of_needs_no_pages(void **state)
{
    (void)state;
    begin_with_five_ended(); /* we know that 25 ended, at 5, and 70 follows it */
    local((struct vector_run){.origin = id(25), .seq = 5, .ended = true}, false);
    run(70, 2);
    ask_knowing(77, 0, 0, 25);
    assert_read(25, 4);
    read_done(&the(SYNC_READ)->read, 2, 0);
    assert_read(70, 1);
    read_done(&the(SYNC_READ)->read, 2, 0);
    assert_end(B, 77, WIRE_END_DONE);

    begin_with_five_ended(); /* the asker knows that 25 ended; to us it is live, but complete */
    run(25, 5);
    run(70, 4);
    ask_knowing(78, 25, 5, 70);
    assert_read(70, 4);
    read_done(&the(SYNC_READ)->read, 1, 0);
    assert_end(B, 78, WIRE_END_DONE);

    begin_with_five_ended(); /* … or is not: then it has to say more */
    run(25, 4);
    ask_knowing(79, 25, 5, 70);
    (void)sent(B, WIRE_SYNC_MORE);
}

static void eight_are_served_and_each_once(void **state)
{
    (void)state;
    begin();
    run(10, 100);
    for (uint64_t i = 0; i < LIMIT_SYNC_SERVED; i++) {
        assert_int_equal(ask_me(100 + i, 7, 0, NULL, 0), 0);
        assert_silent();
    }
    assert_int_equal(ask_me(B, 7, 0, NULL, 0), 0);
    assert_end(B, 7, WIRE_END_BUSY);
    assert_int_equal(ask_me(100, 7, 0, NULL, 0), 0); /* the same once more */
    assert_silent();
    assert_int_equal(ask_me(100, 8, 0, NULL, 0), 0); /* it has begun anew */
    assert_end(100, 7, WIRE_END_UNKNOWN);
    assert_int_equal(sync_busy(core), LIMIT_SYNC_SERVED);
    flow(101, WIRE_SYNC_END, 7, 0, WIRE_END_CANCEL);
    assert_int_equal(sync_busy(core), LIMIT_SYNC_SERVED - 1);
    peer(102, true);
    peer(102, false);
    assert_int_equal(sync_busy(core), LIMIT_SYNC_SERVED - 2);
    tick(SYNC_DEADLINE_MS);
    assert_int_equal(count_of(SYNC_SEND), LIMIT_SYNC_SERVED - 2);
    assert_int_equal(sync_busy(core), 0);
}

static void unknown_sessions_are_ended(void **state)
{
    (void)state;
    begin();
    peer(B, true);
    flow(B, WIRE_SYNC_CREDIT, 5, 100, WIRE_END_DONE);
    assert_end(B, 5, WIRE_END_UNKNOWN);
    assert_int_equal(message(B, page_of(5, 0, true, 10, 10)), 0);
    assert_end(B, 5, WIRE_END_UNKNOWN);
    events(B, 5, 10, 1, 1);
    assert_end(B, 5, WIRE_END_CANCEL);
    assert_int_equal(count_of(SYNC_COMMIT), 0);
    flow(B, WIRE_SYNC_END, 5, 0, WIRE_END_UNKNOWN); /* or they would go on for ever */
    assert_silent();
    flow(B, WIRE_SYNC_MORE, 5, 0, WIRE_END_DONE);
    assert_silent();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_asker_gets_what_it_lacks_in_order),
        cmocka_unit_test(no_more_is_sent_than_credit_allows),
        cmocka_unit_test(what_was_compacted_is_left_out_and_told),
        cmocka_unit_test(what_cannot_be_read_is_left_out_and_told),
        cmocka_unit_test(frozen_runs_are_not_given),
        cmocka_unit_test(who_does_not_know_of_frozen_runs_is_told),
        cmocka_unit_test(ended_runs_are_compared_page_by_page),
        cmocka_unit_test(pages_that_lead_nowhere_end_the_session),
        cmocka_unit_test(an_asker_without_ended_runs_needs_no_pages),
        cmocka_unit_test(a_restart_that_one_has_not_heard_of_needs_no_pages),
        cmocka_unit_test(eight_are_served_and_each_once),
        cmocka_unit_test(unknown_sessions_are_ended),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
