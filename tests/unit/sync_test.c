/* Goal: each rule of journal sync by itself, on both sides of a session and of a push; and nothing
 * that a peer can say, in whatever order, breaks a node or makes it hold more than its limits. */
#include "base/bytes.h"
#include "cluster/sync.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { ME = 1, B, C, D };
enum { EVENT = 96, FRAMED = EVENT + 4 }; /* bytes of each event here */

/* ---- a core, and what it said last ---- */

static struct sync *core;
static uint64_t now;
static struct sync_output said[1024];
static size_t said_count;
static char texts[4 << 20]; /* copies of what outputs lend */
static size_t texts_len;

static struct id128 id(uint64_t number)
{
    struct id128 out = {{0}};

    for (int i = 0; i < 8; i++)
        out.bytes[i] = (uint8_t)(number >> (56 - 8 * i));
    return out;
}

static struct text keep(struct text text)
{
    assert_true(texts_len + text.len <= sizeof texts);
    if (text.len)
        memcpy(texts + texts_len, text.ptr, text.len);
    texts_len += text.len;
    return (struct text){texts + texts_len - text.len, text.len};
}

static void keep_texts(struct sync_output *out)
{
    if (out->kind == SYNC_COMMIT)
        out->commit.data = keep(out->commit.data);
    if (out->kind != SYNC_SEND)
        return;
    struct wire_message *message = &out->send.message;

    if (message->type == WIRE_SYNC_ASK)
        message->sync_ask.runs = keep(message->sync_ask.runs);
    else if (message->type == WIRE_SYNC_VECTOR)
        message->sync_vector.runs = keep(message->sync_vector.runs);
    else if (message->type == WIRE_SYNC_EVENTS)
        message->sync_events.data = keep(message->sync_events.data);
}

/* Step, and on while there is more; `said` is all that came of it. */
static int step(struct sync_input input)
{
    struct sync_outputs out = {.more = true};
    int first = 1;

    said_count = texts_len = 0;
    for (unsigned steps = 0; out.more; input.kind = SYNC_TICK) {
        input.now_ms = now;
        int rc = sync_step(core, &input, &out);

        first = first == 1 ? rc : first;
        assert_true(out.count <= LIMIT_SYNC_OUTPUTS && ++steps < 100);
        for (size_t i = 0; i < out.count; i++) {
            said[said_count] = out.list[i];
            keep_texts(&said[said_count++]);
        }
    }
    return first;
}

static void tick(uint64_t ms)
{
    now += ms;
    assert_int_equal(step((struct sync_input){.kind = SYNC_TICK}), 0);
}

static void begin(void)
{
    struct sync_config config = {.self = id(ME), .seed = 11};

    now = 5000;
    sync_destroy(&core);
    assert_int_equal(sync_create(&core, &config), 0);
}

static int end(void **state)
{
    (void)state;
    sync_destroy(&core);
    return 0;
}

static void local(struct vector_run run, bool own)
{
    struct sync_input input = {.kind = SYNC_LOCAL, .local = {run, own}};

    assert_int_equal(step(input), 0);
}

static void run(uint64_t origin, uint64_t seq)
{
    local((struct vector_run){.origin = id(origin), .node = id(B), .seq = seq}, false);
}

static void own(uint64_t seq)
{
    local((struct vector_run){.origin = id(500), .node = id(ME), .seq = seq}, true);
}

static void peer(uint64_t node, bool alive)
{
    struct sync_input input = {.kind = SYNC_PEER, .peer = {id(node), alive}};

    assert_int_equal(step(input), 0);
}

static void summary(uint64_t node, struct hash128 vector)
{
    struct sync_input input = {.kind = SYNC_PEER_SUMMARY};

    input.summary = (struct sync_summary){id(node), {.vector = vector}};
    assert_int_equal(step(input), 0);
}

static const struct hash128 other = {12, 34};

static struct hash128 ours(void)
{
    return vector_sum(sync_vector(core), VECTOR_ALL).hash;
}

static int message(uint64_t from, struct wire_message message)
{
    message.from = id(from);
    return step((struct sync_input){.kind = SYNC_MESSAGE, .message = message});
}

static void flow(uint64_t from, enum wire_type type, uint64_t session, uint64_t bytes,
                 enum wire_end code)
{
    struct wire_message m = {.type = type, .flow = {session, bytes, (uint8_t)code}};

    assert_int_equal(message(from, m), 0);
}

static struct text data_of(uint64_t first, uint32_t count)
{
    static char bytes[LIMIT_WIRE_EVENT_BYTES];
    char *at = bytes;

    assert_true((size_t)count * FRAMED <= sizeof bytes);
    for (uint64_t seq = first; seq < first + count; seq++, at += FRAMED) {
        put_u32((uint8_t *)at, EVENT);
        memset(at + 4, (int)(seq % 256), EVENT);
    }
    return (struct text){bytes, count * FRAMED};
}

static void events(uint64_t from, uint64_t session, uint64_t origin, uint64_t first, uint32_t count)
{
    struct wire_message m = {.type = WIRE_SYNC_EVENTS};

    m.sync_events =
        (struct wire_sync_events){session, id(origin), first, count, data_of(first, count)};
    assert_int_equal(message(from, m), 0);
}

static void committed(const struct sync_commit *commit, int rc)
{
    struct sync_input input = {.kind = SYNC_COMMITTED};

    input.committed = (struct sync_committed){commit->peer,
                                              commit->session,
                                              commit->origin,
                                              commit->first,
                                              commit->count,
                                              commit->data.len,
                                              rc};
    assert_int_equal(step(input), 0);
}

static void read_done(const struct sync_read *read, uint32_t count, int rc)
{
    struct sync_input input = {.kind = SYNC_READ_DONE};

    input.read_done = (struct sync_read_done){
        read->peer, read->session, read->origin, read->first, count, data_of(read->first, count),
        rc};
    assert_int_equal(step(input), 0);
}

/* What was said: how much of that kind, and the only one of it. */
static size_t count_of(enum sync_output_kind kind)
{
    size_t count = 0;

    for (size_t i = 0; i < said_count; i++)
        count += said[i].kind == kind;
    return count;
}

static struct sync_output *the(enum sync_output_kind kind)
{
    size_t found = 0;

    for (size_t i = 0; i < said_count; i++)
        found = said[i].kind == kind ? i : found;
    assert_int_equal(count_of(kind), 1);
    return &said[found];
}

/* The one message of TYPE to NODE; nothing else of that type was sent to it. */
static struct wire_message sent(uint64_t node, enum wire_type type)
{
    struct wire_message found = {0};
    struct id128 to = id(node), me = id(ME);
    size_t count = 0;

    for (size_t i = 0; i < said_count; i++) {
        if (said[i].kind == SYNC_SEND && said[i].send.message.type == type &&
            id_equal(&said[i].send.to, &to)) {
            found = said[i].send.message;
            count++;
        }
    }
    assert_int_equal(count, 1);
    assert_true(id_equal(&found.from, &me));
    return found;
}

static void assert_silent(void)
{
    assert_int_equal(said_count, 0);
}

static void assert_committed(uint64_t origin, uint64_t first, uint32_t count)
{
    struct sync_commit *commit = &the(SYNC_COMMIT)->commit;
    struct id128 expected = id(origin);
    struct text data = data_of(first, count);

    assert_true(id_equal(&commit->origin, &expected));
    assert_int_equal(commit->first, first);
    assert_int_equal(commit->count, count);
    assert_int_equal(commit->data.len, data.len);
    assert_memory_equal(commit->data.ptr, data.ptr, data.len);
}

static void assert_read(uint64_t origin, uint64_t first)
{
    struct sync_read *read = &the(SYNC_READ)->read;
    struct id128 expected = id(origin);

    assert_true(id_equal(&read->origin, &expected));
    assert_int_equal(read->first, first);
}

static void assert_end(uint64_t to, uint64_t session, enum wire_end code)
{
    struct wire_message m = sent(to, WIRE_SYNC_END);

    assert_int_equal(m.flow.session, session);
    assert_int_equal(m.flow.end, code);
}

/* B is alive and differs: the session in which it is asked. */
static uint64_t asking_b(void)
{
    peer(B, true);
    summary(B, other);
    tick(SYNC_DELAY_MS);
    uint64_t session = sent(B, WIRE_SYNC_ASK).sync_ask.session;

    assert_true(session != 0);
    return session;
}

/* ---- asking ---- */

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
    committed(&second, ERR_AGAIN);
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

/* ---- being asked ---- */

/* B knows of our runs 10, 20, 30 … as KNOWN says (0: not). */
static int ask_me(uint64_t from, uint64_t session, uint64_t credit, const uint64_t *known,
                  size_t count)
{
    static char bytes[LIMIT_WIRE_RUNS * WIRE_RUN_BYTES];
    struct wire_message m = {.type = WIRE_SYNC_ASK};
    struct vector_sum ended = vector_sum(sync_vector(core), VECTOR_ENDED);
    struct buf list;

    buf_init(&list, 0);
    for (size_t i = 0; i < count; i++) {
        struct wire_run entry = {id(10 * (i + 1)), known[i]};

        if (known[i])
            wire_run_add(&list, &entry);
    }
    if (list.len)
        memcpy(bytes, list.data, list.len);
    m.sync_ask = (struct wire_sync_ask){
        session, ended.hash, ended.count, credit, {bytes, (uint32_t)list.len}};
    buf_release(&list);
    return message(from, m);
}

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
    static const uint64_t known[] = {4, 0};

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

static struct wire_message page_of(uint64_t session, uint32_t page, bool last, uint64_t from,
                                   uint64_t through)
{
    static char bytes[LIMIT_WIRE_RUNS * WIRE_RUN_BYTES];
    struct wire_message m = {.type = WIRE_SYNC_VECTOR};
    struct buf list;

    buf_init(&list, 0);
    for (uint64_t i = from; i <= through; i += 10) {
        struct wire_run entry = {id(i), 1};

        wire_run_add(&list, &entry);
    }
    if (list.len)
        memcpy(bytes, list.data, list.len);
    m.sync_vector = (struct wire_sync_vector){session, page, last, {bytes, (uint32_t)list.len}};
    buf_release(&list);
    return m;
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

/* ---- pushing ---- */

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

static void events_of_our_own_run_that_we_did_not_write_are_reported(void **state)
{
    (void)state;
    begin();
    own(3);
    peer(B, true);
    events(B, 0, 500, 2, 1);
    assert_silent();
    events(B, 0, 500, 4, 1);
    struct id128 origin = id(500);

    assert_int_equal(count_of(SYNC_COMMIT), 0);
    assert_true(id_equal(&the(SYNC_CONFLICT)->conflict.origin, &origin));
    events(B, 0, 500, 4, 1);
    assert_silent();
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

/* ---- bounds, and nonsense ---- */

static void what_cannot_be_is_refused(void **state)
{
    struct sync_input input = {.kind = SYNC_LOCAL};

    (void)state;
    begin();
    assert_int_equal(step(input), ERR_INVALID);
    input.local.run.seq = WIRE_SEQ_MAX + 1;
    assert_int_equal(step(input), ERR_INVALID);
    peer(ME, true); /* not a peer */
    summary(ME, other);
    tick(60000);
    assert_silent();
    for (uint64_t i = 0; i < LIMIT_MEMBERS; i++)
        peer(100 + i, true);
    input = (struct sync_input){.kind = SYNC_PEER, .peer = {id(99), true}};
    assert_int_equal(step(input), ERR_FULL);
    peer(100, false);
    assert_int_equal(step(input), 0);
}

static void more_runs_than_the_limit_are_refused(void **state)
{
    struct sync_config config = {.self = id(ME), .seed = 1, .run_limit = 2};
    struct sync_input input = {.kind = SYNC_LOCAL};

    (void)state;
    begin();
    sync_destroy(&core);
    assert_int_equal(sync_create(&core, &config), 0);
    run(10, 1);
    run(20, 1);
    input.local.run = (struct vector_run){.origin = id(30), .seq = 1};
    assert_int_equal(step(input), ERR_FULL);
    peer(B, true);
    events(B, 0, 30, 1, 1);
    assert_int_equal(count_of(SYNC_COMMIT), 0);
    events(B, 0, 20, 2, 1);
    assert_committed(20, 2, 1);
}

static uint64_t dice;

static uint64_t roll(uint64_t below)
{
    dice = dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (dice >> 33) % below;
}

/* Sessions that exist, in either direction, and some that do not. */
static uint64_t sessions[8];

static uint64_t any_session(void)
{
    return roll(4) ? sessions[roll(8)] : roll(3);
}

static void any_message(uint64_t from)
{
    struct wire_message m = {.type = WIRE_SYNC_ASK + roll(6)};
    uint64_t first = roll(20) ? 1 + roll(30) : WIRE_SEQ_MAX - roll(3);
    uint32_t count = 1 + (uint32_t)roll(20);
    static const uint64_t known[3] = {3, 0, 9};

    if (first + count - 1 > WIRE_SEQ_MAX)
        count = 1;
    switch (m.type) {
    case WIRE_SYNC_ASK:
        (void)ask_me(from, 1 + roll(5), roll(5000), known, roll(4));
        return;
    case WIRE_SYNC_VECTOR:
        m = page_of(any_session(), (uint32_t)roll(3), roll(2), 10 * roll(5), 10 * roll(20));
        (void)message(from, m);
        return;
    case WIRE_SYNC_EVENTS:
        events(from, any_session(), roll(10) ? 10 * (1 + roll(6)) : 500, first, count);
        return;
    default:
        flow(from, m.type, any_session(), roll(3) ? roll(100000) : UINT64_MAX,
             (enum wire_end)roll(7));
    }
}

/* What the core asked its caller for, and was not given yet. */
static struct sync_output owed[64];
static size_t owed_count;

static void note_said(void)
{
    for (size_t i = 0; i < said_count; i++) {
        if (said[i].kind == SYNC_SEND && said[i].send.message.type == WIRE_SYNC_ASK)
            sessions[roll(4)] = said[i].send.message.sync_ask.session;
        if (said[i].kind == SYNC_READ || said[i].kind == SYNC_COMMIT)
            owed[owed_count < 64 ? owed_count++ : roll(64)] = said[i];
    }
}

static void answer_one(void)
{
    static const int codes[] = {0, 0, 0, 0, ERR_CONFLICT, ERR_AGAIN, ERR_FULL, ERR_NOT_FOUND};
    struct sync_output one;
    int rc = codes[roll(8)];

    if (!owed_count)
        return;
    one = owed[roll(owed_count)]; /* perhaps not for the last time */
    if (one.kind == SYNC_COMMIT) {
        committed(&one.commit, rc);
        note_said();
        if (rc == 0)
            local((struct vector_run){.origin = one.commit.origin,
                                      .seq = one.commit.first + one.commit.count - 1},
                  false);
    } else {
        read_done(&one.read, 1 + (uint32_t)roll(5), rc == ERR_CONFLICT ? ERR_IO : rc);
    }
}

static void any_input(void)
{
    uint64_t node = B + roll(12);

    now += roll(20) ? roll(50) : roll(20000);
    switch (roll(16)) {
    case 0:
        peer(node, roll(4));
        break;
    case 1:
        summary(node, roll(3) ? other : ours());
        break;
    case 2:
        own(1 + roll(100));
        break;
    case 3:
        local((struct vector_run){.origin = id(10 * (1 + roll(8))),
                                  .seq = 1 + roll(30),
                                  .anchor_seq = roll(10) ? 0 : roll(10),
                                  .ended = !roll(10),
                                  .frozen = !roll(50)},
              false);
        break;
    case 4:
        tick(0);
        break;
    case 5:
    case 6:
    case 7:
        answer_one();
        break;
    default:
        any_message(node);
    }
    note_said();
}

static void nonsense_in_any_order_breaks_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        dice = seed;
        begin();
        memset(sessions, 0, sizeof sessions);
        for (uint64_t i = 4; i < 8; i++)
            sessions[i] = i - 3; /* as asked in any_message */
        owed_count = 0;
        for (int i = 0; i < 3000; i++)
            any_input();
        for (uint64_t node = B; node < B + 12; node++)
            peer(node, false);
        for (int i = 0; i < 4; i++)
            tick(SYNC_DEADLINE_MS); /* whatever was owed and never came */
        assert_int_equal(sync_busy(core), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_knows_no_more_is_not_asked),
        cmocka_unit_test(a_question_says_what_is_known),
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
        cmocka_unit_test(ended_runs_go_out_page_by_page),
        cmocka_unit_test(the_asker_gets_what_it_lacks_in_order),
        cmocka_unit_test(no_more_is_sent_than_credit_allows),
        cmocka_unit_test(what_was_compacted_is_left_out_and_told),
        cmocka_unit_test(what_cannot_be_read_is_left_out_and_told),
        cmocka_unit_test(frozen_runs_are_not_given),
        cmocka_unit_test(ended_runs_are_compared_page_by_page),
        cmocka_unit_test(pages_that_lead_nowhere_end_the_session),
        cmocka_unit_test(an_asker_without_ended_runs_needs_no_pages),
        cmocka_unit_test(eight_are_served_and_each_once),
        cmocka_unit_test(unknown_sessions_are_ended),
        cmocka_unit_test(own_events_are_read_once_and_go_to_everybody),
        cmocka_unit_test(others_events_are_not_pushed),
        cmocka_unit_test(who_is_not_in_step_gets_no_push),
        cmocka_unit_test(who_has_asked_is_in_step_again),
        cmocka_unit_test(our_own_run_may_begin_or_end_while_somebody_asks),
        cmocka_unit_test(no_event_is_lost_between_session_and_push),
        cmocka_unit_test(a_peer_that_acknowledges_nothing_gets_no_more),
        cmocka_unit_test(a_read_that_fails_stops_pushing_until_peers_have_asked),
        cmocka_unit_test(a_new_run_of_our_own_is_pushed_from_its_start),
        cmocka_unit_test(pushes_are_committed_and_acknowledged),
        cmocka_unit_test(a_gap_in_pushes_is_asked_about_at_once),
        cmocka_unit_test(asking_waits_while_pushes_keep_coming),
        cmocka_unit_test(events_of_our_own_run_that_we_did_not_write_are_reported),
        cmocka_unit_test(a_peer_cannot_push_without_bounds),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(more_runs_than_the_limit_are_refused),
        cmocka_unit_test(nonsense_in_any_order_breaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
