/* Goal: each rule by which a node judges the others, one at a time, to the millisecond. How the
 * rules work together is probe_sim_test.c's matter. */
#include "cluster/probe.h"
#include "cluster/standing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(s)  ((struct text){s, sizeof(s) - 1})
#define START_MS UINT64_C(500000)
#define WALL_MS  UINT64_C(1763700000000)
#define LOG_MAX  8192

/* One core, and all that it has said since the last forget(). */
struct fixture {
    struct probe *core;
    uint64_t now_ms, wall_ms;
    size_t count;
    struct probe_output log[LOG_MAX];
    uint64_t at_ms[LOG_MAX];
};

static struct id128 id_of(unsigned node)
{
    return (struct id128){{7, (uint8_t)(node >> 8), (uint8_t)node}};
}

static int try_step(struct fixture *f, struct probe_input in)
{
    const struct probe_output *out;
    size_t count;

    in.now_ms = f->now_ms;
    in.wall_ms = f->wall_ms ? f->wall_ms : WALL_MS + f->now_ms;
    int rc = probe_step(f->core, &in, &out, &count);
    for (size_t i = 0; i < count; i++) {
        assert_true(f->count < LOG_MAX);
        f->at_ms[f->count] = f->now_ms;
        f->log[f->count++] = out[i];
    }
    return rc;
}

static void step(struct fixture *f, struct probe_input in)
{
    assert_int_equal(try_step(f, in), 0);
}

static void forget(struct fixture *f)
{
    f->count = 0;
}

static int try_member(struct fixture *f, unsigned node, struct text address, bool joined)
{
    return try_step(f, (struct probe_input){
                           .kind = PROBE_MEMBER,
                           .member = {.node = id_of(node), .address = address, .joined = joined}});
}

static void add_member(struct fixture *f, unsigned node)
{
    assert_int_equal(try_member(f, node, TEXT("peer:1"), true), 0);
}

/* This node is 0, its members are 1 … MEMBERS. */
static struct fixture *create(unsigned members)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct probe_config config = {
        .node = id_of(0), .seed = 42, .tag = TEXT("tag"), .address = TEXT("me:1")};

    assert_non_null(f);
    f->now_ms = START_MS;
    assert_int_equal(probe_create(&f->core, &config, START_MS), 0);
    for (unsigned i = 1; i <= members; i++)
        add_member(f, i);
    return f;
}

static void destroy(struct fixture **f)
{
    probe_destroy(&(*f)->core);
    assert_null((*f)->core);
    probe_destroy(&(*f)->core);
    free(*f);
    *f = NULL;
}

static void heard(struct fixture *f, unsigned node)
{
    step(f, (struct probe_input){.kind = PROBE_HEARD, .heard = id_of(node)});
}

static void take(struct fixture *f, struct wire_message message)
{
    step(f, (struct probe_input){.kind = PROBE_MESSAGE,
                                 .message = {.message = &message, .peer = TEXT("1.2.3.4:5")}});
}

static struct wire_message probe_from(unsigned node, enum wire_type type, uint64_t nonce)
{
    return (struct wire_message){.type = type,
                                 .tag = TEXT("tag"),
                                 .from = id_of(node),
                                 .probe = {.nonce = nonce,
                                           .to = id_of(0),
                                           .address = TEXT("peer:1"),
                                           .wall_ms = WALL_MS,
                                           .feature = 3,
                                           .summary = {.events = 100 + node}}};
}

static struct wire_message about(unsigned from, enum wire_type type, uint64_t nonce,
                                 unsigned subject, bool answered)
{
    return (struct wire_message){
        .type = type,
        .tag = TEXT("tag"),
        .from = id_of(from),
        .probe_for = {.nonce = nonce, .subject = id_of(subject), .answered = answered}};
}

/* Let time pass; every tick when it is due, and every tenth of a second. ANSWERING: a bit for each
 * node whose probes are answered at once. */
static void run(struct fixture *f, uint64_t ms, uint64_t answering)
{
    uint64_t end_ms = f->now_ms + ms;

    while (f->now_ms < end_ms) {
        uint64_t next_ms = probe_next_ms(f->core), step_ms = f->now_ms + 100;

        if (next_ms < step_ms)
            step_ms = next_ms;
        f->now_ms = step_ms < end_ms ? step_ms : end_ms;
        size_t before = f->count;
        step(f, (struct probe_input){.kind = PROBE_TICK});
        for (size_t i = before, end = f->count; i < end; i++) {
            unsigned node = f->log[i].node.bytes[2];

            if (f->log[i].kind == PROBE_SEND && f->log[i].message.type == WIRE_PROBE &&
                answering >> node & 1)
                take(f, probe_from(node, WIRE_PROBE_ACK, f->log[i].message.probe.nonce));
        }
    }
}

/* The AT-th output of this kind (and message type; 0: any) that concerns NODE; NULL: none. */
static const struct probe_output *find(const struct fixture *f, enum probe_output_kind kind,
                                       int type, unsigned node, size_t at)
{
    struct id128 id = id_of(node);

    for (size_t i = 0; i < f->count; i++) {
        const struct probe_output *out = &f->log[i];

        if (out->kind == kind && id_equal(&out->node, &id) &&
            (type == 0 || (int)out->message.type == type) && at-- == 0)
            return out;
    }
    return NULL;
}

static size_t count_of(const struct fixture *f, enum probe_output_kind kind, int type,
                       unsigned node)
{
    size_t count = 0;

    while (find(f, kind, type, node, count))
        count++;
    return count;
}

static uint64_t when(const struct fixture *f, const struct probe_output *out)
{
    assert_non_null(out);
    return f->at_ms[out - f->log];
}

static struct probe_peer peer_of(const struct fixture *f, unsigned node)
{
    struct id128 id = id_of(node);
    struct probe_peer peer;

    assert_true(probe_peer(f->core, &id, &peer));
    return peer;
}

static bool text_is(struct text text, const char *expected)
{
    return text.len == strlen(expected) && memcmp(text.ptr, expected, text.len) == 0;
}

static uint64_t last_nonce(const struct fixture *f, unsigned node)
{
    size_t count = count_of(f, PROBE_SEND, WIRE_PROBE, node);

    assert_true(count > 0);
    return find(f, PROBE_SEND, WIRE_PROBE, node, count - 1)->message.probe.nonce;
}

/* --- probes and answers ---------------------------------------------------------------------- */

static void each_member_gets_a_probe_a_second_at_a_phase_of_its_own(void **state)
{
    enum { MEMBERS = 20 };
    struct fixture *f = create(MEMBERS);
    size_t phases = 0;

    (void)state;
    step(f, (struct probe_input){
                .kind = PROBE_LOCAL,
                .local = {.address = TEXT("me:2"), .feature = 9, .summary = {.events = 77}}});
    forget(f);
    run(f, 5000, ~UINT64_C(0));
    for (unsigned node = 1; node <= MEMBERS; node++) {
        const struct probe_output *first = find(f, PROBE_SEND, WIRE_PROBE, node, 0);

        assert_int_equal(count_of(f, PROBE_SEND, WIRE_PROBE, node), 5);
        for (size_t i = 1; i < 5; i++)
            assert_int_equal(when(f, find(f, PROBE_SEND, WIRE_PROBE, node, i)) - when(f, first),
                             i * PROBE_ROUND_MS);
        phases += node > 1 && when(f, first) != when(f, find(f, PROBE_SEND, WIRE_PROBE, 1, 0));
        assert_true(text_is(first->message.tag, "tag"));
        assert_int_equal(first->message.probe.feature, 9);
        assert_int_equal(first->message.probe.summary.events, 77);
        assert_int_equal(first->message.probe.leaving, 0);
        assert_memory_equal(&first->message.probe.to, &first->node, sizeof first->node);
        assert_true(text_is(first->message.probe.address, "me:2"));
    }
    assert_true(phases >= MEMBERS - 3);
    destroy(&f);
}

static void a_late_tick_makes_up_for_what_was_due_and_keeps_the_phase(void **state)
{
    struct fixture *f = create(2);
    uint64_t first_ms[2];

    (void)state;
    run(f, 2000, ~UINT64_C(0));
    forget(f);
    run(f, 1000, ~UINT64_C(0));
    for (unsigned node = 1; node <= 2; node++)
        first_ms[node - 1] = when(f, find(f, PROBE_SEND, WIRE_PROBE, node, 0));
    uint64_t last_ms = first_ms[0] > first_ms[1] ? first_ms[0] : first_ms[1];

    /* Both are due, the earlier one for up to a second. */
    forget(f);
    f->now_ms = last_ms + PROBE_ROUND_MS;
    step(f, (struct probe_input){.kind = PROBE_TICK});
    assert_int_equal(count_of(f, PROBE_SEND, WIRE_PROBE, 1), 1);
    assert_int_equal(count_of(f, PROBE_SEND, WIRE_PROBE, 2), 1);
    heard(f, 1);
    heard(f, 2);
    forget(f);
    run(f, PROBE_ROUND_MS, ~UINT64_C(0));
    for (unsigned node = 1; node <= 2; node++)
        assert_int_equal(when(f, find(f, PROBE_SEND, WIRE_PROBE, node, 0)),
                         first_ms[node - 1] + 2 * PROBE_ROUND_MS);
    destroy(&f);
}

static void a_probe_is_answered_with_what_we_know_also_to_a_stranger(void **state)
{
    struct fixture *f = create(1);
    const struct probe_output *out;

    (void)state;
    step(f, (struct probe_input){.kind = PROBE_LOCAL,
                                 .local = {.address = TEXT("me:2"), .summary = {.events = 77}}});
    forget(f);
    take(f, probe_from(1, WIRE_PROBE, 4711));
    out = find(f, PROBE_REPLY, WIRE_PROBE_ACK, 1, 0);
    assert_non_null(out);
    assert_int_equal(out->message.probe.nonce, 4711);
    assert_int_equal(out->message.probe.summary.events, 77);
    assert_true(text_is(out->message.probe.seen, "1.2.3.4:5"));
    assert_true(text_is(out->message.probe.address, "me:2"));
    out = find(f, PROBE_PEER_SUMMARY, 0, 1, 0);
    assert_non_null(out);
    assert_int_equal(out->summary.summary.events, 101);
    assert_int_equal(out->summary.feature, 3);
    assert_int_equal(out->summary.rtt_ms, -1);
    assert_int_equal(find(f, PROBE_STATE, 0, 1, 0)->state.state, PROBE_ALIVE);

    forget(f);
    take(f, probe_from(9, WIRE_PROBE, 5));
    assert_int_equal(f->count, 1);
    assert_non_null(find(f, PROBE_REPLY, WIRE_PROBE_ACK, 9, 0));

    /* Asked for by nobody's name: whoever is here answers. For another: nobody does. */
    struct wire_message anybody = probe_from(9, WIRE_PROBE, 6), other = anybody;
    memset(&anybody.probe.to, 0, sizeof anybody.probe.to);
    other.probe.to = id_of(8);
    forget(f);
    take(f, anybody);
    assert_int_equal(f->count, 1);
    take(f, other);
    assert_int_equal(f->count, 1);
    assert_int_equal(probe_counts(f->core).misdirected, 1);

    /* Whatever it says, its sender is there; and an absurd address of it is not passed on. */
    other.from = id_of(1);
    run(f, PROBE_FAILED_MS, 0);
    assert_int_equal(peer_of(f, 1).state, PROBE_FAILED);
    take(f, other);
    assert_int_equal(peer_of(f, 1).state, PROBE_ALIVE);
    char many[LIMIT_WIRE_ADDR_BYTES + 1];
    memset(many, 'a', sizeof many);
    forget(f);
    step(f, (struct probe_input){.kind = PROBE_MESSAGE,
                                 .message = {.message = &anybody, .peer = {many, sizeof many}}});
    assert_int_equal(find(f, PROBE_REPLY, WIRE_PROBE_ACK, 9, 0)->message.probe.seen.len, 0);
    destroy(&f);
}

static void an_ack_that_nobody_asked_for_is_counted_and_a_word_all_the_same(void **state)
{
    struct fixture *f = create(2);

    (void)state;
    run(f, 1000, 0);
    uint64_t nonce = last_nonce(f, 1);
    take(f, probe_from(1, WIRE_PROBE_ACK, 12345));
    assert_int_equal(probe_counts(f->core).stale, 1);
    assert_int_equal(peer_of(f, 1).state, PROBE_ALIVE);
    assert_int_equal(peer_of(f, 1).rtt_ms, -1);
    take(f, probe_from(2, WIRE_PROBE_ACK, nonce)); /* another's */
    assert_int_equal(probe_counts(f->core).stale, 2);
    assert_int_equal(peer_of(f, 2).rtt_ms, -1);
    f->now_ms += 20;
    take(f, probe_from(1, WIRE_PROBE_ACK, nonce));
    assert_int_equal(probe_counts(f->core).stale, 2);
    assert_in_range(peer_of(f, 1).rtt_ms, 20, 1000);
    take(f, probe_from(1, WIRE_PROBE_ACK, nonce)); /* once more */
    assert_int_equal(probe_counts(f->core).stale, 3);
    take(f, probe_from(1, WIRE_PROBE_ACK, 0));
    take(f, about(1, WIRE_PROBE_SAW, 0, 2, true));
    assert_int_equal(probe_counts(f->core).stale, 5);

    /* An answer that took two rounds is one still. */
    run(f, PROBE_ROUND_MS, 0);
    nonce = last_nonce(f, 2);
    run(f, 2 * PROBE_ROUND_MS, 0);
    take(f, probe_from(2, WIRE_PROBE_ACK, nonce));
    assert_int_equal(probe_counts(f->core).stale, 5);
    assert_in_range(peer_of(f, 2).rtt_ms, 2000, 3000);
    destroy(&f);
}

/* --- the verdict ----------------------------------------------------------------------------- */

/* 1 and 2 are alive, and 1 is about to be silent: the time of its first unanswered probe. */
static uint64_t silence_one(struct fixture *f, uint64_t answering)
{
    run(f, 3000, answering);
    assert_int_equal(peer_of(f, 1).state, PROBE_ALIVE);
    forget(f);
    run(f, 1000, answering & ~UINT64_C(2));
    return when(f, find(f, PROBE_SEND, WIRE_PROBE, 1, 0));
}

static void silence_is_first_confirmed_then_suspect_then_failed(void **state)
{
    struct fixture *f = create(4);
    uint64_t first_ms;

    (void)state;
    assert_int_equal(find(f, PROBE_STATE, 0, 1, 0)->state.state, PROBE_SUSPECT);
    first_ms = silence_one(f, ~UINT64_C(0));
    run(f, 9000, ~UINT64_C(2));

    size_t asked = 0;
    for (unsigned helper = 2; helper <= 4; helper++) {
        const struct probe_output *out = find(f, PROBE_SEND, WIRE_PROBE_FOR, helper, 0);

        if (out && when(f, out) == first_ms + PROBE_ACK_MS) {
            struct id128 one = id_of(1);

            assert_memory_equal(&out->message.probe_for.subject, &one, sizeof one);
            assert_int_equal(out->message.probe_for.answered, 0);
            asked++;
        }
    }
    assert_int_equal(asked, 2);
    assert_int_equal(count_of(f, PROBE_SEND, WIRE_PROBE_FOR, 1), 0);
    assert_int_equal(count_of(f, PROBE_STATE, 0, 1), 2);
    assert_int_equal(find(f, PROBE_STATE, 0, 1, 0)->state.state, PROBE_SUSPECT);
    assert_int_equal(when(f, find(f, PROBE_STATE, 0, 1, 0)),
                     first_ms + PROBE_ACK_MS + PROBE_CONFIRM_MS);
    assert_int_equal(find(f, PROBE_STATE, 0, 1, 1)->state.state, PROBE_FAILED);
    assert_int_equal(when(f, find(f, PROBE_STATE, 0, 1, 1)),
                     first_ms + PROBE_FAILED_MS - PROBE_ROUND_MS);
    assert_int_equal(peer_of(f, 1).since_ms, first_ms + PROBE_FAILED_MS - PROBE_ROUND_MS);
    assert_int_equal(count_of(f, PROBE_STATE, 0, 2), 0);

    /* It is probed on, others are asked now and then, and its first word brings it back. */
    forget(f);
    run(f, 20000, ~UINT64_C(2));
    assert_int_equal(count_of(f, PROBE_SEND, WIRE_PROBE, 1), 20);
    size_t questions = 0;
    for (unsigned helper = 2; helper <= 4; helper++)
        questions += count_of(f, PROBE_SEND, WIRE_PROBE_FOR, helper);
    assert_int_equal(questions, 2 * 2);
    heard(f, 1);
    assert_int_equal(peer_of(f, 1).state, PROBE_ALIVE);
    destroy(&f);
}

static void what_two_others_saw_counts_as_an_answer(void **state)
{
    struct fixture *f = create(3);
    uint64_t first_ms, nonce;

    (void)state;
    first_ms = silence_one(f, ~UINT64_C(0));
    run(f, first_ms + PROBE_ACK_MS + 100 - f->now_ms, ~UINT64_C(2));
    assert_int_equal(count_of(f, PROBE_SEND, WIRE_PROBE_FOR, 2), 1);
    nonce = find(f, PROBE_SEND, WIRE_PROBE_FOR, 2, 0)->message.probe_for.nonce;

    take(f, about(2, WIRE_PROBE_SAW, nonce + 1000, 1, true)); /* not what was asked */
    assert_int_equal(probe_counts(f->core).stale, 1);
    take(f, about(2, WIRE_PROBE_SAW, nonce, 3, true)); /* about another */
    assert_int_equal(probe_counts(f->core).stale, 2);
    assert_int_equal(peer_of(f, 1).answers, true);
    take(f, about(2, WIRE_PROBE_SAW, nonce, 1, true));
    assert_int_equal(probe_counts(f->core).stale, 2);

    /* All begins anew with the next probe. */
    uint64_t next_ms = first_ms + PROBE_ROUND_MS;
    run(f, 3000, ~UINT64_C(2));
    assert_int_equal(when(f, find(f, PROBE_STATE, 0, 1, 0)),
                     next_ms + PROBE_ACK_MS + PROBE_CONFIRM_MS);
    destroy(&f);
}

static void a_helpers_no_is_no_answer(void **state)
{
    struct fixture *f = create(3);
    uint64_t first_ms;

    (void)state;
    first_ms = silence_one(f, ~UINT64_C(0));
    run(f, first_ms + PROBE_ACK_MS + 100 - f->now_ms, ~UINT64_C(2));
    take(f, about(2, WIRE_PROBE_SAW,
                  find(f, PROBE_SEND, WIRE_PROBE_FOR, 2, 0)->message.probe_for.nonce, 1, false));
    assert_int_equal(probe_counts(f->core).stale, 0);
    run(f, 2000, ~UINT64_C(2));
    assert_int_equal(when(f, find(f, PROBE_STATE, 0, 1, 0)),
                     first_ms + PROBE_ACK_MS + PROBE_CONFIRM_MS);
    destroy(&f);
}

static void a_question_about_another_is_passed_on_and_its_outcome_back(void **state)
{
    struct fixture *f = create(3);
    const struct probe_output *out;

    (void)state;
    run(f, 3000, ~UINT64_C(0));
    forget(f);
    take(f, about(1, WIRE_PROBE_FOR, 99, 2, false));
    out = find(f, PROBE_SEND, WIRE_PROBE, 2, 0);
    assert_non_null(out);
    uint64_t nonce = out->message.probe.nonce;
    take(f, probe_from(2, WIRE_PROBE_ACK, nonce + 1)); /* not that one */
    take(f, probe_from(2, WIRE_PROBE_ACK, nonce - 1000));
    take(f, probe_from(3, WIRE_PROBE_ACK, nonce)); /* not of that member */
    assert_null(find(f, PROBE_SEND, WIRE_PROBE_SAW, 1, 0));
    assert_int_equal(probe_counts(f->core).stale, 3);
    take(f, probe_from(2, WIRE_PROBE_ACK, nonce));
    out = find(f, PROBE_SEND, WIRE_PROBE_SAW, 1, 0);
    assert_non_null(out);
    assert_int_equal(out->message.probe_for.nonce, 99);
    assert_int_equal(out->message.probe_for.answered, 1);
    assert_int_equal(out->message.probe_for.subject.bytes[2], 2);
    assert_int_equal(probe_counts(f->core).stale, 3);

    /* Silence is told, too, once. */
    forget(f);
    uint64_t asked_ms = f->now_ms;
    take(f, about(1, WIRE_PROBE_FOR, 100, 3, false));
    run(f, 3000, ~UINT64_C(8));
    assert_int_equal(count_of(f, PROBE_SEND, WIRE_PROBE_SAW, 1), 1);
    out = find(f, PROBE_SEND, WIRE_PROBE_SAW, 1, 0);
    assert_int_equal(when(f, out), asked_ms + PROBE_ACK_MS);
    assert_int_equal(out->message.probe_for.nonce, 100);
    assert_int_equal(out->message.probe_for.answered, 0);

    /* About one that is no member any more there is nothing to say. */
    forget(f);
    take(f, about(1, WIRE_PROBE_FOR, 101, 3, false));
    assert_int_equal(try_member(f, 3, TEXT(""), false), 0);
    run(f, 3000, ~UINT64_C(8));
    assert_int_equal(count_of(f, PROBE_SEND, WIRE_PROBE_SAW, 1), 0);

    /* By a stranger, about one, about the asker, about us: refused. */
    forget(f);
    take(f, about(9, WIRE_PROBE_FOR, 1, 2, false));
    take(f, about(1, WIRE_PROBE_FOR, 1, 9, false));
    take(f, about(1, WIRE_PROBE_FOR, 1, 1, false));
    take(f, about(1, WIRE_PROBE_FOR, 1, 0, false));
    assert_int_equal(f->count, 0);
    assert_int_equal(probe_counts(f->core).refused, 4);
    destroy(&f);
}

static void questions_for_others_are_bounded(void **state)
{
    enum { MEMBERS = 12 };
    struct fixture *f = create(MEMBERS);

    (void)state;
    run(f, 2000, ~UINT64_C(0));
    forget(f);
    for (int round = 0; round < 2; round++) {
        unsigned left = LIMIT_PROBE_RELAYS;

        /* The same question again takes no more room. */
        for (unsigned asker = 1; asker <= MEMBERS && left; asker++)
            for (unsigned subject = 1; subject <= MEMBERS && left; subject++)
                if (asker != subject) {
                    take(f, about(asker, WIRE_PROBE_FOR, 5, subject, false));
                    left--;
                }
    }
    assert_int_equal(probe_counts(f->core).refused, 0);
    take(f, about(MEMBERS, WIRE_PROBE_FOR, 5, 1, false));
    assert_int_equal(probe_counts(f->core).refused, 1);
    /* Whoever is no member any more is told nothing. */
    assert_int_equal(try_member(f, 1, TEXT(""), false), 0);
    forget(f);
    run(f, 1000, 0);
    assert_int_equal(count_of(f, PROBE_SEND, WIRE_PROBE_SAW, 1), 0);
    assert_true(count_of(f, PROBE_SEND, WIRE_PROBE_SAW, 2) > 0);
    destroy(&f);
}

static void a_long_round_trip_is_waited_for(void **state)
{
    struct fixture *f = create(2);

    (void)state;
    for (int i = 0; i < 40; i++) { /* 300 ms there and back */
        uint64_t nonce;

        run(f, probe_next_ms(f->core) - f->now_ms, 4);
        while (count_of(f, PROBE_SEND, WIRE_PROBE, 1) == 0)
            run(f, 10, 4);
        nonce = last_nonce(f, 1);
        uint64_t sent_ms =
            when(f, find(f, PROBE_SEND, WIRE_PROBE, 1, count_of(f, PROBE_SEND, WIRE_PROBE, 1) - 1));
        run(f, sent_ms + 300 - f->now_ms, 4);
        take(f, probe_from(1, WIRE_PROBE_ACK, nonce));
        forget(f);
    }
    assert_in_range(peer_of(f, 1).rtt_ms, 295, 300);
    run(f, 4000, 4);
    uint64_t first_ms = when(f, find(f, PROBE_SEND, WIRE_PROBE, 1, 0));
    assert_in_range(when(f, find(f, PROBE_SEND, WIRE_PROBE_FOR, 2, 0)) - first_ms, 4 * 295,
                    4 * 300);
    destroy(&f);
}

static void a_member_that_leaves_is_not_suspected_and_may_come_back(void **state)
{
    struct fixture *f = create(2);
    struct wire_message bye = probe_from(1, WIRE_PROBE, 7);

    (void)state;
    run(f, 2000, ~UINT64_C(0));
    forget(f);
    bye.probe.leaving = 1;
    take(f, bye);
    assert_int_equal(find(f, PROBE_STATE, 0, 1, 0)->state.state, PROBE_LEFT);
    assert_false(peer_of(f, 1).answers);
    heard(f, 1); /* what was still under way */
    run(f, 60000, 4);
    assert_int_equal(count_of(f, PROBE_STATE, 0, 1), 1);
    assert_int_equal(probe_health(f->core), PROBE_DEGRADED);
    take(f, probe_from(1, WIRE_PROBE, 8));
    assert_int_equal(peer_of(f, 1).state, PROBE_ALIVE);
    assert_int_equal(probe_health(f->core), PROBE_GOOD);
    destroy(&f);
}

static void all_members_are_told_at_once_that_we_leave(void **state)
{
    struct fixture *f = create(3);

    (void)state;
    run(f, 2000, ~UINT64_C(0));
    forget(f);
    for (int i = 0; i < 2; i++)
        step(f, (struct probe_input){.kind = PROBE_LOCAL, .local = {.leaving = true}});
    assert_int_equal(f->count, 3);
    for (unsigned node = 1; node <= 3; node++)
        assert_int_equal(find(f, PROBE_SEND, WIRE_PROBE, node, 0)->message.probe.leaving, 1);
    destroy(&f);
}

/* --- ourselves ------------------------------------------------------------------------------- */

static void whoever_hears_from_nobody_doubts_itself(void **state)
{
    struct fixture *f = create(3);

    (void)state;
    run(f, 5000, ~UINT64_C(0));
    assert_int_equal(probe_doubt(f->core), 0);
    forget(f);
    run(f, 3100, 0);
    assert_in_range(probe_doubt(f->core), 1, 2);
    assert_int_equal(probe_health(f->core), PROBE_BAD); /* … but it does not pretend */
    run(f, 26000, 0);
    assert_int_equal(probe_doubt(f->core), PROBE_DOUBT_MAX);
    for (unsigned node = 1; node <= 3; node++) {
        assert_int_equal(count_of(f, PROBE_STATE, 0, node), 1);
        assert_int_equal(peer_of(f, node).state, PROBE_SUSPECT);
    }

    /* The first word: what nobody answered before proves nothing about the others. */
    forget(f);
    heard(f, 1);
    assert_int_equal(peer_of(f, 1).state, PROBE_ALIVE);
    assert_int_equal(probe_doubt(f->core), PROBE_DOUBT_MAX);
    run(f, 4000, 2 | 4);
    assert_int_equal(probe_doubt(f->core), 0);
    assert_int_equal(peer_of(f, 3).state, PROBE_SUSPECT);
    run(f, 2000, 2 | 4);
    assert_int_equal(peer_of(f, 3).state, PROBE_FAILED);
    destroy(&f);
}

static void with_a_single_other_there_is_nothing_to_doubt(void **state)
{
    struct fixture *f = create(1);

    (void)state;
    run(f, 2000, 2);
    forget(f);
    run(f, PROBE_FAILED_MS, 0);
    assert_int_equal(probe_doubt(f->core), 0);
    assert_int_equal(peer_of(f, 1).state, PROBE_FAILED);
    destroy(&f);

    /* Nor where the second one failed, or left, before. */
    for (int leaves = 0; leaves < 2; leaves++) {
        struct wire_message bye = probe_from(2, WIRE_PROBE, 7);

        f = create(2);
        run(f, 2000, ~UINT64_C(0));
        bye.probe.leaving = 1;
        if (leaves)
            take(f, bye);
        run(f, PROBE_FAILED_MS, 2);
        assert_int_equal(peer_of(f, 2).state, leaves ? PROBE_LEFT : PROBE_FAILED);
        run(f, PROBE_FAILED_MS, 0);
        assert_int_equal(probe_doubt(f->core), 0);
        assert_int_equal(peer_of(f, 1).state, PROBE_FAILED);
        destroy(&f);
    }
}

static void members_that_were_never_heard_are_no_reason_to_doubt(void **state)
{
    struct fixture *f = create(5);

    (void)state;
    run(f, PROBE_FAILED_MS, 0);
    assert_int_equal(probe_doubt(f->core), 0);
    assert_int_equal(peer_of(f, 5).state, PROBE_FAILED);
    destroy(&f);
}

static void time_slept_through_is_held_against_nobody(void **state)
{
    struct fixture *f = create(3);
    int64_t offset;

    (void)state;
    run(f, 5000, ~UINT64_C(0));
    forget(f);
    run(f, PROBE_ROUND_MS, 0); /* so that something of each is awaited */
    uint64_t nonce = last_nonce(f, 1);
    f->now_ms += 3600 * 1000;
    step(f, (struct probe_input){.kind = PROBE_TICK});
    take(f, probe_from(1, WIRE_PROBE_ACK, nonce));
    run(f, 3000, ~UINT64_C(0));
    for (unsigned node = 1; node <= 3; node++)
        assert_int_equal(count_of(f, PROBE_STATE, 0, node), 0);
    assert_int_equal(peer_of(f, 1).rtt_ms, 0);
    assert_true(probe_clock_offset(f->core, &offset));

    /* A clock that goes back is taken for one that stands. */
    f->now_ms -= 2000;
    step(f, (struct probe_input){.kind = PROBE_TICK});
    assert_true(probe_next_ms(f->core) > f->now_ms);
    destroy(&f);
}

static void health_is_good_degraded_or_bad(void **state)
{
    struct fixture *f = create(0);

    (void)state;
    assert_int_equal(probe_health(f->core), PROBE_GOOD);
    for (unsigned node = 1; node <= 3; node++)
        add_member(f, node);
    assert_int_equal(probe_health(f->core), PROBE_BAD);
    heard(f, 1);
    assert_int_equal(probe_health(f->core), PROBE_BAD); /* two of four */
    heard(f, 2);
    assert_int_equal(probe_health(f->core), PROBE_DEGRADED);
    heard(f, 3);
    assert_int_equal(probe_health(f->core), PROBE_GOOD);
    destroy(&f);
}

/* --- clocks ---------------------------------------------------------------------------------- */

/* Have NODE answer its next probe RTT_MS later with a clock AHEAD_MS ahead of ours then. */
static void answer_with_clock(struct fixture *f, unsigned node, uint64_t rtt_ms, int64_t ahead_ms)
{
    forget(f);
    while (count_of(f, PROBE_SEND, WIRE_PROBE, node) == 0)
        run(f, 1, 0);
    f->now_ms += rtt_ms;

    struct wire_message ack = probe_from(node, WIRE_PROBE_ACK, last_nonce(f, node));
    ack.probe.wall_ms = (uint64_t)((int64_t)(WALL_MS + f->now_ms - rtt_ms / 2) + ahead_ms);
    take(f, ack);
}

static void our_clock_is_measured_against_the_median(void **state)
{
    struct fixture *f = create(3);
    int64_t offset;

    (void)state;
    assert_false(probe_clock_offset(f->core, &offset));
    answer_with_clock(f, 1, 40, 70000);
    assert_false(probe_clock_offset(f->core, &offset)); /* two do not outvote each other */
    answer_with_clock(f, 2, 0, -5);
    assert_true(probe_clock_offset(f->core, &offset));
    assert_int_equal(offset, 0); /* ours is the median of -5, 0, 70000 */
    answer_with_clock(f, 3, 20, 80000);
    assert_true(probe_clock_offset(f->core, &offset));
    assert_int_equal(offset, 0); /* of the two in the middle, 0 and 70000 */
    answer_with_clock(f, 2, 100, 60000);
    assert_true(probe_clock_offset(f->core, &offset));
    assert_int_equal(offset, 60000);

    /* No clock shows that. */
    forget(f);
    while (count_of(f, PROBE_SEND, WIRE_PROBE, 2) == 0)
        run(f, 1, 0);
    struct wire_message absurd = probe_from(2, WIRE_PROBE_ACK, last_nonce(f, 2));
    absurd.probe.wall_ms = UINT64_MAX;
    take(f, absurd);
    assert_true(probe_clock_offset(f->core, &offset));
    assert_int_equal(offset, 60000);
    destroy(&f);
}

static struct standing standing(const struct fixture *f)
{
    return standing_of(f->core);
}

static void a_clock_is_wrong_when_most_others_say_so_and_not_before(void **state)
{
    static const int64_t far = HLC_MAX_DRIFT_MS;
    struct fixture *f = create(3);

    (void)state;
    assert_int_equal(HLC_MAX_DRIFT_MS, 60000);
    /* Of two nobody can tell whose is wrong. */
    answer_with_clock(f, 1, 0, 10 * far);
    assert_false(standing(f).clock_judged);
    assert_false(standing(f).clock_is_skewed);
    assert_int_equal(standing(f).behind_ms, 0);
    assert_int_equal(standing(f).others, 1);
    /* One of two others agrees with us: it is the other's. */
    answer_with_clock(f, 2, 0, 0);
    assert_true(standing(f).clock_judged);
    assert_false(standing(f).clock_is_skewed);
    assert_int_equal(standing(f).others, 2);
    /* Both say the same: exactly the bound is still right, a millisecond more is not. */
    static const struct {
        int64_t clocks[2], behind_ms;
        bool is_skewed;
    } cases[] = {
        {{10 * 60000, 60000}, 60000, false}, {{60001, 10 * 60000}, 60001, true},
        {{-60000, -120000}, -60000, false},  {{-120000, -60001}, -60001, true},
        {{-120000, 120000}, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        answer_with_clock(f, 1, 0, cases[i].clocks[0]);
        answer_with_clock(f, 2, 0, cases[i].clocks[1]);
        assert_true(standing(f).clock_judged);
        assert_int_equal(standing(f).behind_ms, cases[i].behind_ms);
        assert_int_equal(standing(f).clock_is_skewed, cases[i].is_skewed);
    }
    answer_with_clock(f, 1, 0, 70000);
    answer_with_clock(f, 2, 0, 70000);
    assert_true(standing(f).clock_is_skewed);
    /* Those who said so do not answer any more: nobody is left to judge. */
    run(f, 4000, 0);
    assert_false(standing(f).clock_judged);
    assert_false(standing(f).clock_is_skewed);
    assert_int_equal(standing(f).health, PROBE_BAD);
    assert_int_equal(standing(f).others, 0);
    destroy(&f);
}

static void only_members_that_answer_and_were_measured_count_for_the_clock(void **state)
{
    static const int64_t clocks[] = {50, -20, -30, -10};
    struct fixture *f = create(5);
    int64_t offset;

    (void)state;
    for (unsigned i = 0; i < 4; i++)
        answer_with_clock(f, i + 1, 0, clocks[i]);
    for (unsigned node = 1; node <= 5; node++)
        heard(f, node); /* 5 was never measured */
    assert_true(probe_clock_offset(f->core, &offset));
    assert_int_equal(offset, -10); /* -30 -20 -10 0 50 */
    assert_int_equal(try_member(f, 1, TEXT(""), false), 0);
    assert_true(probe_clock_offset(f->core, &offset));
    assert_int_equal(offset, -10); /* of -20 and -10 the one nearer to zero */
    run(f, 4000, 8);
    assert_int_equal(peer_of(f, 4).state, PROBE_SUSPECT);
    assert_false(probe_clock_offset(f->core, &offset)); /* the third alone answers */
    destroy(&f);
}

/* --- seeds ----------------------------------------------------------------------------------- */

static void add_seed(struct fixture *f, struct text address)
{
    step(f, (struct probe_input){.kind = PROBE_SEED, .seed = address});
}

static const struct probe_output *seed_probe(const struct fixture *f, size_t at)
{
    for (size_t i = 0; i < f->count; i++) {
        if (f->log[i].kind == PROBE_SEND_SEED && at-- == 0)
            return &f->log[i];
    }
    return NULL;
}

static void a_seed_is_asked_at_growing_intervals_until_it_is_met(void **state)
{
    struct fixture *f = create(0);
    const struct probe_output *out;
    uint64_t wait_ms = PROBE_SEED_MIN_MS;

    (void)state;
    add_seed(f, TEXT("first:1"));
    add_seed(f, TEXT("first:1"));
    run(f, 120000, 0);
    assert_true(when(f, seed_probe(f, 0)) <= START_MS + 100);
    for (size_t i = 1; seed_probe(f, i); i++) {
        uint64_t waited = when(f, seed_probe(f, i)) - when(f, seed_probe(f, i - 1));

        assert_in_range(waited, wait_ms - wait_ms / 8, wait_ms);
        wait_ms = 2 * wait_ms < PROBE_SEED_MAX_MS ? 2 * wait_ms : PROBE_SEED_MAX_MS;
    }
    assert_int_equal(wait_ms, PROBE_SEED_MAX_MS);
    out = seed_probe(f, 0);
    assert_true(text_is(out->address, "first:1"));
    assert_true(id_is_zero(&out->message.probe.to));

    /* Its answer may be late. Until it is a member it is asked on, lest it is gone meanwhile. */
    struct wire_message ack = probe_from(5, WIRE_PROBE_ACK, out->message.probe.nonce);
    ack.probe.seen = TEXT("me.seen:3");
    forget(f);
    take(f, ack);
    assert_int_equal(f->count, 1);
    out = find(f, PROBE_MET, 0, 5, 0);
    assert_non_null(out);
    assert_true(text_is(out->address, "first:1"));
    assert_true(text_is(out->met.advertised, "peer:1"));
    assert_true(text_is(out->met.seen, "me.seen:3"));
    assert_int_equal(probe_counts(f->core).stale, 0);
    forget(f);
    f->now_ms += 3000; /* nothing is due for so long: that is no sleep */
    heard(f, 9);
    run(f, PROBE_SEED_MAX_MS - 1 - 3000, 0);
    assert_null(seed_probe(f, 0));
    run(f, 1, 0);
    assert_non_null(seed_probe(f, 0));
    run(f, PROBE_SEED_MAX_MS, 0);
    assert_non_null(seed_probe(f, 1));
    assert_null(seed_probe(f, 2));
    assert_int_equal(probe_seeds(f->core), 1);
    add_member(f, 5);
    assert_int_equal(probe_seeds(f->core), 0);
    forget(f);
    run(f, 20000, 32);
    assert_null(seed_probe(f, 0));
    destroy(&f);
}

static void less_than_a_second_late_is_no_sleep(void **state)
{
    struct fixture *f = create(0);

    (void)state;
    add_seed(f, TEXT("a:1"));
    add_seed(f, TEXT("b:1"));
    run(f, 1, 0);
    take(f, probe_from(5, WIRE_PROBE_ACK, seed_probe(f, 0)->message.probe.nonce));
    f->now_ms += 500;
    take(f, probe_from(6, WIRE_PROBE_ACK, seed_probe(f, 1)->message.probe.nonce));
    forget(f);
    f->now_ms += PROBE_SEED_MAX_MS + 400; /* a is 900 ms late, b 400 */
    step(f, (struct probe_input){.kind = PROBE_TICK});
    assert_non_null(seed_probe(f, 1));
    destroy(&f);
}

static void probe_now(struct fixture *f, struct id128 node)
{
    forget(f);
    step(f, (struct probe_input){.kind = PROBE_NOW, .now = node});
}

static void members_are_probed_at_once_where_that_is_wanted(void **state)
{
    struct fixture *f = create(3);

    (void)state;
    assert_int_equal(probe_members(f->core), 3);
    run(f, 3 * PROBE_ROUND_MS, 0xe);
    f->now_ms++;
    probe_now(f, id_of(2));
    assert_int_equal(f->count, 1);
    assert_non_null(find(f, PROBE_SEND, WIRE_PROBE, 2, 0));
    probe_now(f, id_of(2)); /* that one's answer tells the same */
    assert_int_equal(f->count, 0);
    probe_now(f, (struct id128){{0}});
    assert_int_equal(f->count, 2);
    assert_null(find(f, PROBE_SEND, WIRE_PROBE, 2, 0));
    probe_now(f, id_of(9));
    assert_int_equal(f->count, 0);
    destroy(&f);
}

static void a_seed_is_asked_again_at_once_or_no_more(void **state)
{
    struct fixture *f = create(0);

    (void)state;
    add_seed(f, TEXT("a:1"));
    add_seed(f, TEXT("b:1"));
    run(f, 60000, 0);
    forget(f);
    add_seed(f, TEXT("a:1"));
    run(f, 1, 0);
    assert_true(text_is(seed_probe(f, 0)->address, "a:1"));
    assert_int_equal(probe_seeds(f->core), 2);
    step(f, (struct probe_input){.kind = PROBE_SEED_DROP, .seed = TEXT("a:1")});
    step(f, (struct probe_input){.kind = PROBE_SEED_DROP, .seed = TEXT("c:1")});
    assert_int_equal(probe_seeds(f->core), 1);
    forget(f);
    run(f, 60000, 0);
    for (size_t i = 0; seed_probe(f, i); i++)
        assert_true(text_is(seed_probe(f, i)->address, "b:1"));
    assert_non_null(seed_probe(f, 0));
    destroy(&f);
}

static void a_seed_that_is_a_member_or_ourselves_is_dropped(void **state)
{
    struct fixture *f = create(1);
    struct wire_message own;

    (void)state;
    add_seed(f, TEXT("a:1"));
    add_seed(f, TEXT("b:1"));
    run(f, 1, 0);
    assert_int_equal(probe_seeds(f->core), 2);
    own = seed_probe(f, 0)->message;
    take(f, probe_from(1, WIRE_PROBE_ACK, seed_probe(f, 1)->message.probe.nonce));
    assert_true(text_is(find(f, PROBE_MET, 0, 1, 0)->address, "b:1"));
    assert_int_equal(probe_seeds(f->core), 1);
    assert_int_equal(peer_of(f, 1).state, PROBE_ALIVE);

    forget(f);
    own.probe.nonce += 1000; /* another node that bears our id, not a seed */
    take(f, own);
    assert_int_equal(f->count, 0);
    own.probe.nonce -= 1000;
    take(f, own);
    assert_int_equal(f->count, 1);
    assert_true(text_is(find(f, PROBE_SELF, 0, 0, 0)->address, "a:1"));
    assert_int_equal(probe_seeds(f->core), 0);
    assert_int_equal(probe_counts(f->core).own, 2);
    forget(f);
    run(f, 20000, 2);
    assert_null(seed_probe(f, 0));
    destroy(&f);
}

/* --- members and bounds ---------------------------------------------------------------------- */

static void a_member_moves_and_goes(void **state)
{
    struct fixture *f = create(2);
    struct id128 one = id_of(1);
    struct probe_peer peer;

    (void)state;
    run(f, 2000, ~UINT64_C(0));
    assert_int_equal(try_member(f, 1, TEXT("moved:1"), true), 0);
    assert_int_equal(peer_of(f, 1).state, PROBE_ALIVE);
    assert_int_equal(peer_of(f, 1).feature, 3);
    assert_int_equal(peer_of(f, 1).summary.events, 101);
    forget(f);
    run(f, 1000, 4);
    assert_true(text_is(find(f, PROBE_SEND, WIRE_PROBE, 1, 0)->address, "moved:1"));
    assert_int_equal(try_member(f, 1, TEXT(""), false), 0);
    assert_int_equal(try_member(f, 1, TEXT(""), false), 0);
    assert_false(probe_peer(f->core, &one, &peer));
    forget(f);
    run(f, 5000, 4);
    assert_int_equal(count_of(f, PROBE_SEND, 0, 1), 0);
    assert_int_equal(probe_health(f->core), PROBE_GOOD);

    assert_int_equal(try_member(f, 0, TEXT("me:1"), true), 0); /* ourselves */
    assert_int_equal(probe_health(f->core), PROBE_GOOD);
    destroy(&f);
}

static void limits_hold_and_what_is_refused_changes_nothing(void **state)
{
    struct fixture *f = create(LIMIT_MEMBERS);
    char many[LIMIT_WIRE_ADDR_BYTES + 1];
    struct probe *probe;
    struct probe_config config = {.node = id_of(0), .tag = {many, LIMIT_WIRE_TAG_BYTES + 1}};

    (void)state;
    memset(many, 'a', sizeof many);
    assert_int_equal(probe_create(&probe, &config, 0), ERR_TOO_BIG);
    config = (struct probe_config){.node = id_of(0), .address = {many, sizeof many}};
    assert_int_equal(probe_create(&probe, &config, 0), ERR_TOO_BIG);

    assert_int_equal(try_member(f, LIMIT_MEMBERS + 1, TEXT("a:1"), true), ERR_FULL);
    assert_int_equal(try_member(f, 1, (struct text){many, sizeof many}, true), ERR_TOO_BIG);
    assert_int_equal(try_step(f, (struct probe_input){.kind = PROBE_LOCAL,
                                                      .local = {.address = {many, sizeof many}}}),
                     ERR_TOO_BIG);
    for (uint32_t i = 0; i < LIMIT_SEEDS; i++)
        add_seed(f, (struct text){many, i + 1});
    assert_int_equal(try_step(f, (struct probe_input){.kind = PROBE_SEED, .seed = TEXT("more:1")}),
                     ERR_FULL);
    assert_int_equal(try_step(f, (struct probe_input){.kind = PROBE_SEED}), ERR_INVALID);
    assert_int_equal(
        try_step(f, (struct probe_input){.kind = PROBE_SEED, .seed = {many, sizeof many}}),
        ERR_TOO_BIG);
    assert_int_equal(try_step(f, (struct probe_input){.kind = (enum probe_input_kind)99}),
                     ERR_INVALID);

    /* Full, all fail at once, and each is asked about: no more outputs than there is room for. */
    for (int second = 0; second < 12; second++) {
        forget(f);
        for (unsigned node = 1; node <= LIMIT_MEMBERS / 2 && second < 3; node++)
            heard(f, node);
        for (unsigned node = 1; node <= LIMIT_PROBE_RELAYS; node++)
            take(f, about(node, WIRE_PROBE_FOR, 5, node + 1, false));
        forget(f);
        f->now_ms += 1999;
        step(f, (struct probe_input){.kind = PROBE_TICK});
        assert_true(f->count > 0);
    }
    destroy(&f);
}

static void states_and_healths_have_names(void **state)
{
    (void)state;
    assert_string_equal(probe_state_name(PROBE_ALIVE), "alive");
    assert_string_equal(probe_state_name(PROBE_SUSPECT), "suspect");
    assert_string_equal(probe_state_name(PROBE_FAILED), "failed");
    assert_string_equal(probe_state_name(PROBE_LEFT), "left");
    assert_string_equal(probe_state_name(5), "unknown");
    assert_string_equal(probe_health_name(PROBE_GOOD), "good");
    assert_string_equal(probe_health_name(PROBE_DEGRADED), "degraded");
    assert_string_equal(probe_health_name(PROBE_BAD), "bad");
    assert_string_equal(probe_health_name(0), "unknown");
    assert_string_equal(probe_health_name(4), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_member_gets_a_probe_a_second_at_a_phase_of_its_own),
        cmocka_unit_test(a_late_tick_makes_up_for_what_was_due_and_keeps_the_phase),
        cmocka_unit_test(a_probe_is_answered_with_what_we_know_also_to_a_stranger),
        cmocka_unit_test(an_ack_that_nobody_asked_for_is_counted_and_a_word_all_the_same),
        cmocka_unit_test(silence_is_first_confirmed_then_suspect_then_failed),
        cmocka_unit_test(what_two_others_saw_counts_as_an_answer),
        cmocka_unit_test(a_helpers_no_is_no_answer),
        cmocka_unit_test(a_question_about_another_is_passed_on_and_its_outcome_back),
        cmocka_unit_test(questions_for_others_are_bounded),
        cmocka_unit_test(a_long_round_trip_is_waited_for),
        cmocka_unit_test(a_member_that_leaves_is_not_suspected_and_may_come_back),
        cmocka_unit_test(all_members_are_told_at_once_that_we_leave),
        cmocka_unit_test(whoever_hears_from_nobody_doubts_itself),
        cmocka_unit_test(with_a_single_other_there_is_nothing_to_doubt),
        cmocka_unit_test(members_that_were_never_heard_are_no_reason_to_doubt),
        cmocka_unit_test(time_slept_through_is_held_against_nobody),
        cmocka_unit_test(health_is_good_degraded_or_bad),
        cmocka_unit_test(our_clock_is_measured_against_the_median),
        cmocka_unit_test(a_clock_is_wrong_when_most_others_say_so_and_not_before),
        cmocka_unit_test(only_members_that_answer_and_were_measured_count_for_the_clock),
        cmocka_unit_test(a_seed_is_asked_at_growing_intervals_until_it_is_met),
        cmocka_unit_test(less_than_a_second_late_is_no_sleep),
        cmocka_unit_test(members_are_probed_at_once_where_that_is_wanted),
        cmocka_unit_test(a_seed_is_asked_again_at_once_or_no_more),
        cmocka_unit_test(a_seed_that_is_a_member_or_ourselves_is_dropped),
        cmocka_unit_test(a_member_moves_and_goes),
        cmocka_unit_test(limits_hold_and_what_is_refused_changes_nothing),
        cmocka_unit_test(states_and_healths_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
