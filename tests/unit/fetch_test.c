/* Goal: whatever holders and the network do, a reader gets the body's bytes in order and once, or
 * learns within a bounded time why not; and no more is ever under way than its window. */
#include "cluster/fetch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#define BODY_BYTES (3 * MIB)
#define CHUNK      LIMIT_WIRE_CHUNK_BYTES
#define SENT_KEPT  4096

static uint8_t body[BODY_BYTES];

struct sent {
    struct id128 to;
    struct wire_message message;
};

struct rig {
    struct fetches *fetches;
    uint64_t now_ms;
    struct sent sent[SENT_KEPT];
    size_t sent_count;
    uint64_t next[256];   /* byte of each fetch, by number */
    uint64_t unread[256]; /* of each */
    uint64_t got;         /* of all */
    struct id128 giver;
    unsigned done_count;
    uint64_t done_number;
    int done_rc;
};

static struct id128 node(unsigned n)
{
    struct id128 id = {{0}};

    id.bytes[0] = 'N';
    id.bytes[15] = (uint8_t)n;
    id.bytes[14] = (uint8_t)(n >> 8);
    return id;
}

static void on_send(void *arg, const struct id128 *to, const struct wire_message *message)
{
    struct rig *rig = arg;

    assert_true(rig->sent_count < SENT_KEPT);
    rig->sent[rig->sent_count++] = (struct sent){*to, *message};
}

static void on_data(void *arg, uint64_t number, uint64_t offset, const void *bytes, size_t len,
                    const struct id128 *from)
{
    struct rig *rig = arg;

    assert_int_equal(offset, rig->next[number]);
    assert_memory_equal(bytes, body + offset, len);
    rig->next[number] = offset + len;
    rig->unread[number] += len;
    rig->got += len;
    rig->giver = *from;
}

static void on_done(void *arg, uint64_t number, int rc)
{
    struct rig *rig = arg;

    rig->done_count++;
    rig->done_number = number;
    rig->done_rc = rc;
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    const struct fetch_sink sink = {on_send, on_data, on_done, rig};

    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 2654435761u >> 13);
    rig->now_ms = 5000;
    assert_int_equal(fetch_create(&rig->fetches, &sink, 42), 0);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;

    fetch_destroy(&rig->fetches);
    assert_null(rig->fetches);
    free(rig);
    return 0;
}

/* Fetch NUMBER of the body's [OFFSET, OFFSET + LENGTH) from nodes FIRST, FIRST + 1, … */
static int start(struct rig *rig, uint64_t number, uint64_t offset, uint64_t length, unsigned first,
                 size_t holders, bool background)
{
    struct id128 nodes[LIMIT_FETCH_HOLDERS + 1];

    for (size_t i = 0; i < holders && i <= LIMIT_FETCH_HOLDERS; i++)
        nodes[i] = node(first + (unsigned)i);
    const struct fetch_request request = {.number = number,
                                          .id = {{1, 2, 3, (uint8_t)number}},
                                          .sha256 = {4, 5, 6},
                                          .size = BODY_BYTES,
                                          .offset = offset,
                                          .length = length,
                                          .background = background,
                                          .holders = nodes,
                                          .holder_count = holders};
    int rc = fetch_start(rig->fetches, &request, rig->now_ms);
    if (rc == 0) {
        rig->next[number] = offset;
        rig->unread[number] = 0;
    }
    return rc;
}

static void must_start(struct rig *rig, uint64_t number, unsigned holders)
{
    assert_int_equal(start(rig, number, 0, BODY_BYTES, 1, holders, false), 0);
}

static struct fetch_stats stats(const struct rig *rig)
{
    struct fetch_stats stats;

    fetch_stats(rig->fetches, &stats);
    return stats;
}

static unsigned count(const struct rig *rig, enum wire_type type)
{
    unsigned n = 0;

    for (size_t i = 0; i < rig->sent_count; i++)
        n += rig->sent[i].message.type == type;
    return n;
}

static const struct sent *last(const struct rig *rig, enum wire_type type)
{
    for (size_t i = rig->sent_count; i-- > 0;) {
        if (rig->sent[i].message.type == type)
            return &rig->sent[i];
    }
    fail_msg("no message of type %d was sent", (int)type);
    return NULL;
}

/* The latest question, which must have gone to node N and name OFFSET. */
static const struct wire_body_ask *asked(const struct rig *rig, unsigned n, uint64_t offset)
{
    const struct sent *sent = last(rig, WIRE_BODY_ASK);
    struct id128 to = node(n);

    assert_non_null(sent);
    assert_memory_equal(sent->to.bytes, to.bytes, sizeof to.bytes);
    assert_int_equal(sent->message.body_ask.offset, offset);
    return &sent->message.body_ask;
}

static struct wire_message chunk(const struct rig *rig, uint64_t offset, size_t len)
{
    const struct sent *ask = last(rig, WIRE_BODY_ASK);
    struct wire_message message = {
        .type = WIRE_BODY_DATA,
        .from = ask->to,
        .body_data = {.transfer = ask->message.body_ask.transfer,
                      .offset = offset,
                      .size = BODY_BYTES,
                      .data = {(const char *)body + offset, (uint32_t)len}}};

    message.body_data.sum = xxh64(body + offset, len, 0);
    return message;
}

static void hand(struct rig *rig, const struct wire_message *message)
{
    fetch_message(rig->fetches, message, rig->now_ms);
}

static void give(struct rig *rig, uint64_t offset, size_t len)
{
    struct wire_message message = chunk(rig, offset, len);

    hand(rig, &message);
}

/* The holder asked last says END. */
static void end(struct rig *rig, enum wire_end how)
{
    const struct sent *ask = last(rig, WIRE_BODY_ASK);
    const struct wire_message message = {
        .type = WIRE_BODY_END,
        .from = ask->to,
        .flow = {.session = ask->message.body_ask.transfer, .end = (uint8_t)how}};

    hand(rig, &message);
}

static void peer(struct rig *rig, unsigned n, bool alive)
{
    struct id128 id = node(n);

    fetch_peer(rig->fetches, &id, alive, rig->now_ms);
}

static void pass(struct rig *rig, uint64_t ms)
{
    for (uint64_t until = rig->now_ms + ms; rig->now_ms < until;) {
        rig->now_ms += until - rig->now_ms < 50 ? until - rig->now_ms : 50;
        fetch_tick(rig->fetches, rig->now_ms);
    }
}

static void consume(struct rig *rig, uint64_t number)
{
    fetch_consumed(rig->fetches, number, rig->unread[number], rig->now_ms);
    rig->unread[number] = 0;
}

static void assert_done(const struct rig *rig, uint64_t number, int rc)
{
    assert_int_equal(rig->done_count, 1);
    assert_int_equal(rig->done_number, number);
    assert_int_equal(rig->done_rc, rc);
    assert_int_equal(stats(rig).active, 0);
}

static void assert_cancelled(const struct rig *rig, unsigned n, uint64_t transfer)
{
    struct id128 to = node(n);

    for (size_t i = 0; i < rig->sent_count; i++) {
        const struct wire_message *message = &rig->sent[i].message;

        if (message->type == WIRE_BODY_END && message->flow.end == WIRE_END_CANCEL &&
            message->flow.session == transfer && id_equal(&rig->sent[i].to, &to))
            return;
    }
    fail_msg("node %u was not told to stop", n);
}

static void gives_the_whole_body_in_order(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 2);
    const struct wire_body_ask *ask = asked(rig, 1, 0);
    assert_int_equal(ask->length, BODY_BYTES);
    assert_int_equal(ask->credit_bytes, BODY_WINDOW_BYTES);
    assert_int_equal(ask->background, 0);
    assert_int_equal(ask->id.bytes[2], 3);
    assert_int_equal(ask->sha256[2], 6);
    for (uint64_t at = 0; at < BODY_BYTES; at += CHUNK) {
        give(rig, at, CHUNK);
        fetch_consumed(rig->fetches, 7, CHUNK, rig->now_ms);
    }
    assert_int_equal(rig->got, BODY_BYTES);
    assert_done(rig, 7, 0);
    assert_int_equal(stats(rig).bytes, BODY_BYTES);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 1);
    /* All was granted, and nothing twice. */
    uint64_t granted = ask->credit_bytes;
    for (size_t i = 0; i < rig->sent_count; i++) {
        if (rig->sent[i].message.type == WIRE_BODY_CREDIT)
            granted += rig->sent[i].message.flow.bytes;
    }
    assert_int_equal(granted, BODY_BYTES);
}

static void a_range_ends_where_it_was_asked_to(void **state)
{
    struct rig *rig = *state;

    assert_int_equal(start(rig, 7, 1000, 24, 1, 1, false), 0);
    assert_int_equal(asked(rig, 1, 1000)->length, 24);
    assert_int_equal(asked(rig, 1, 1000)->credit_bytes, 24);
    give(rig, 1000, 10);
    give(rig, 1010, 14);
    assert_done(rig, 7, 0);
    assert_int_equal(rig->next[7], 1024);
}

static void credit_follows_the_reader(void **state)
{
    struct rig *rig = *state;

    for (int background = 0; background < 2; background++) {
        uint64_t window = background ? BODY_BACKGROUND_WINDOW_BYTES : BODY_WINDOW_BYTES;

        rig->sent_count = 0;
        assert_int_equal(start(rig, 7, 0, BODY_BYTES, 1, 1, background), 0);
        assert_int_equal(asked(rig, 1, 0)->credit_bytes, window);
        for (uint64_t at = 0; at < window; at += CHUNK)
            give(rig, at, CHUNK);
        assert_int_equal(count(rig, WIRE_BODY_CREDIT), 0);
        fetch_consumed(rig->fetches, 7, window / 4 - 1, rig->now_ms);
        assert_int_equal(count(rig, WIRE_BODY_CREDIT), 0); /* not worth a message */
        fetch_consumed(rig->fetches, 7, 1, rig->now_ms);
        assert_int_equal(count(rig, WIRE_BODY_CREDIT), 1);
        assert_int_equal(last(rig, WIRE_BODY_CREDIT)->message.flow.bytes, window / 4);
        assert_int_equal(last(rig, WIRE_BODY_CREDIT)->message.flow.session,
                         asked(rig, 1, 0)->transfer);
        fetch_cancel(rig->fetches, 7, rig->now_ms);
    }
}

static void wrong_chunks_cost_a_holder_the_fetch(void **state)
{
    struct rig *rig = *state;
    enum {
        SUM,
        BYTES,
        SIZE,
        EMPTY,
        OVERLAP,
        BEFORE,
        BEYOND_ASKED,
        FAR,
        BEYOND_CREDIT,
        LONG,
        WRONGS
    };

    for (int wrong = SUM; wrong < WRONGS; wrong++) {
        uint64_t begin = 1000, length = 2 * MIB;
        struct wire_message bad;

        rig->sent_count = 0;
        assert_int_equal(start(rig, (uint64_t)wrong, begin, length, 1, 2, false), 0);
        give(rig, begin, CHUNK);
        uint64_t at = begin + CHUNK, transfer = asked(rig, 1, begin)->transfer;
        bad = chunk(rig, at, 4096);
        uint8_t flipped[4096];
        switch (wrong) {
        case SUM:
            bad.body_data.sum++;
            break;
        case BYTES:
            memcpy(flipped, body + at, sizeof flipped);
            flipped[4095] ^= 1;
            bad.body_data.data.ptr = (const char *)flipped;
            break;
        case SIZE:
            bad.body_data.size++;
            break;
        case EMPTY:
            bad = chunk(rig, at, 0);
            break;
        case OVERLAP:
            bad = chunk(rig, at - 1, 4096);
            break;
        case BEFORE:
            bad = chunk(rig, begin - 1, 1);
            break;
        case BEYOND_ASKED:
            bad = chunk(rig, begin + length - 1, 2);
            break;
        case FAR:
            bad.body_data.offset = UINT64_MAX - 1;
            break;
        case BEYOND_CREDIT:
            for (; at < begin + BODY_WINDOW_BYTES; at += CHUNK)
                give(rig, at, CHUNK);
            bad = chunk(rig, at, 1);
            break;
        default:
            bad = chunk(rig, at, CHUNK + 1);
            break;
        }
        hand(rig, &bad);
        assert_int_equal(stats(rig).corrupt, 2 * wrong + 1);
        assert_cancelled(rig, 1, transfer);
        if (wrong == BEYOND_CREDIT) /* no room to ask again before the reader has taken something */
            fetch_consumed(rig->fetches, (uint64_t)wrong, BODY_WINDOW_BYTES, rig->now_ms);
        assert_true(asked(rig, 2, at)->transfer != transfer);
        /* The other one is no better: there is nobody to ask any more, now or later. */
        bad = chunk(rig, at, 1);
        bad.body_data.sum++;
        rig->done_count = 0;
        hand(rig, &bad);
        assert_done(rig, (uint64_t)wrong, ERR_CORRUPT);
    }
}

static void a_chunk_that_comes_twice_does_no_harm(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 1);
    give(rig, 0, CHUNK);
    give(rig, CHUNK, CHUNK);
    give(rig, 0, CHUNK);
    give(rig, CHUNK, CHUNK);
    assert_int_equal(rig->got, 2 * CHUNK);
    assert_int_equal(stats(rig).duplicates, 2);
    give(rig, 2 * CHUNK, CHUNK);
    assert_int_equal(rig->got, 3 * CHUNK);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 1);
}

static void after_a_lost_chunk_the_next_holder_goes_on_and_the_first_comes_again(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 2);
    give(rig, 0, CHUNK);
    uint64_t transfer = asked(rig, 1, 0)->transfer;
    give(rig, 2 * CHUNK, CHUNK);
    assert_int_equal(stats(rig).gaps, 1);
    assert_int_equal(stats(rig).corrupt, 0);
    assert_cancelled(rig, 1, transfer);
    (void)asked(rig, 2, CHUNK);
    end(rig, WIRE_END_DONE); /* it says, but chunks are missing */
    assert_int_equal(stats(rig).gaps, 2);
    pass(rig, 2 * FETCH_ROUND_DELAY_MS);
    (void)asked(rig, 1, CHUNK);
}

static void silence_is_waited_for_a_second_at_first_then_three(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 3);
    pass(rig, FETCH_FIRST_BYTE_MS - 1);
    (void)asked(rig, 1, 0);
    pass(rig, 1);
    (void)asked(rig, 2, 0);
    assert_int_equal(stats(rig).timeouts, 1);
    pass(rig, FETCH_FIRST_BYTE_MS - 1);
    give(rig, 0, CHUNK);
    pass(rig, FETCH_PROGRESS_MS - 1);
    (void)asked(rig, 2, 0);
    give(rig, CHUNK, CHUNK);
    pass(rig, FETCH_PROGRESS_MS - 1);
    (void)asked(rig, 2, 0);
    uint64_t transfer = asked(rig, 2, 0)->transfer;
    pass(rig, 1);
    (void)asked(rig, 3, 2 * CHUNK);
    assert_cancelled(rig, 2, transfer);
}

static void silent_holders_are_asked_three_times_each(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 4);
    pass(rig, 60000);
    assert_done(rig, 7, ERR_TIMEOUT);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 4 * FETCH_ROUNDS);
    assert_int_equal(rig->got, 0);
}

static void rounds_begin_anew_with_what_arrives(void **state)
{
    struct rig *rig = *state;
    uint64_t at = 0;

    must_start(rig, 7, 1);
    for (int i = 0; i < 4 * FETCH_ROUNDS; i++) {
        give(rig, at, BLOCK_BYTES);
        fetch_consumed(rig->fetches, 7, BLOCK_BYTES, rig->now_ms);
        at += BLOCK_BYTES;
        end(rig, WIRE_END_BUSY);
        pass(rig, 2 * FETCH_ROUND_DELAY_MS);
        (void)asked(rig, 1, at);
    }
    /* But not with a few bytes each time. */
    for (int i = 1; i < FETCH_ROUNDS; i++) {
        assert_int_equal(rig->done_count, 0);
        give(rig, at++, 1);
        end(rig, WIRE_END_BUSY);
        pass(rig, 4 * FETCH_ROUND_DELAY_MS);
    }
    assert_done(rig, 7, ERR_AGAIN);
}

static void busy_holders_are_asked_again_after_the_others_and_a_while(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 2);
    end(rig, WIRE_END_BUSY);
    (void)asked(rig, 2, 0);
    end(rig, WIRE_END_ABSENT);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 2);
    pass(rig, FETCH_ROUND_DELAY_MS - 1);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 2);
    pass(rig, FETCH_ROUND_DELAY_MS / 2 + 1);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 3);
    (void)asked(rig, 1, 0);
    end(rig, WIRE_END_BUSY);
    pass(rig, 2 * FETCH_ROUND_DELAY_MS - 1);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 3);
    pass(rig, FETCH_ROUND_DELAY_MS + 1);
    (void)asked(rig, 1, 0);
    assert_int_equal(rig->done_count, 0);
    end(rig, WIRE_END_BUSY);
    assert_done(rig, 7, ERR_AGAIN);
    assert_int_equal(stats(rig).busy, 3);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 4);
}

static void the_reason_given_is_the_one_that_may_pass(void **state)
{
    struct rig *rig = *state;
    static const struct {
        int ends[3]; /* -1: the node fails */
        int rc;
    } cases[] = {
        {{WIRE_END_ABSENT, WIRE_END_ABSENT, WIRE_END_ABSENT}, ERR_NOT_FOUND},
        {{WIRE_END_ABSENT, WIRE_END_DAMAGED, WIRE_END_ABSENT}, ERR_CORRUPT},
        {{WIRE_END_ABSENT, -1, WIRE_END_DAMAGED}, ERR_CLOSED},
        {{-1, -1, -1}, ERR_CLOSED},
        {{WIRE_END_BUSY, -1, WIRE_END_DAMAGED}, ERR_AGAIN},
        {{WIRE_END_BUSY, WIRE_END_UNKNOWN, WIRE_END_DAMAGED}, ERR_TIMEOUT},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig->done_count = 0;
        must_start(rig, i, 3);
        for (int step = 0; step < 9 && rig->done_count == 0; step++) {
            unsigned to = last(rig, WIRE_BODY_ASK)->to.bytes[15];

            if (cases[i].ends[to - 1] < 0)
                peer(rig, to, false);
            else
                end(rig, (enum wire_end)cases[i].ends[to - 1]);
            if (rig->done_count == 0)
                pass(rig, 900); /* rounds, but no time-out */
        }
        assert_done(rig, i, cases[i].rc);
    }
}

static void a_dead_holder_is_left_at_once_and_asked_when_it_is_back(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 2);
    give(rig, 0, CHUNK);
    peer(rig, 1, false);
    (void)asked(rig, 2, CHUNK);
    give(rig, CHUNK, CHUNK);
    end(rig, WIRE_END_BUSY);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 2); /* resting */
    peer(rig, 1, true);
    (void)asked(rig, 1, 2 * CHUNK);
    peer(rig, 2, false); /* which is not being asked */
    (void)asked(rig, 1, 2 * CHUNK);
    peer(rig, 9, false); /* nobody's */
    assert_int_equal(rig->done_count, 0);
    peer(rig, 1, false);
    assert_done(rig, 7, ERR_CLOSED);
}

static void what_a_holder_did_is_not_forgotten_when_it_dies(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 3);
    struct wire_message bad = chunk(rig, 0, CHUNK);
    bad.body_data.sum++;
    hand(rig, &bad);
    end(rig, WIRE_END_ABSENT);
    (void)asked(rig, 3, 0);
    for (unsigned i = 1; i <= 2; i++) {
        peer(rig, i, false);
        peer(rig, i, true);
    }
    end(rig, WIRE_END_ABSENT);
    assert_done(rig, 7, ERR_CORRUPT);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 3);
}

static void nobody_rests_for_the_dead(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 1);
    end(rig, WIRE_END_BUSY);
    assert_int_equal(rig->done_count, 0);
    peer(rig, 1, false);
    assert_done(rig, 7, ERR_CLOSED);
}

static void what_is_late_is_not_believed_but_stopped(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 2);
    struct wire_message old = chunk(rig, 0, CHUNK);
    peer(rig, 1, false);
    const struct wire_body_ask *ask = asked(rig, 2, 0);
    unsigned sent = (unsigned)rig->sent_count;
    hand(rig, &old);
    assert_int_equal(rig->got, 0);
    assert_int_equal(rig->sent_count, sent + 1);
    assert_cancelled(rig, 1, old.body_data.transfer);

    /* Nor what another node sends under the number of a transfer that is not its own. */
    struct wire_message forged = chunk(rig, 0, CHUNK);
    forged.from = node(1);
    hand(rig, &forged);
    assert_int_equal(rig->got, 0);
    assert_cancelled(rig, 1, ask->transfer);
    const struct wire_message absent = {.type = WIRE_BODY_END,
                                        .from = node(1),
                                        .flow = {.session = ask->transfer, .end = WIRE_END_ABSENT}};
    sent = (unsigned)rig->sent_count;
    hand(rig, &absent);
    assert_int_equal(rig->sent_count, sent); /* an end needs no answer */
    assert_int_equal(stats(rig).late, 3);
    give(rig, 0, CHUNK);
    assert_int_equal(rig->got, CHUNK);
}

static void a_slow_reader_costs_no_holder(void **state)
{
    struct rig *rig = *state;
    uint64_t at = 0;

    must_start(rig, 7, 1);
    for (int pause = 0; pause < 2 * FETCH_ROUNDS; pause++) {
        uint64_t granted = asked(rig, 1, at)->credit_bytes, until = at + granted;

        for (; at < until; at += until - at < CHUNK ? until - at : CHUNK)
            give(rig, at, until - at < CHUNK ? until - at : CHUNK);
        uint64_t transfer = asked(rig, 1, at - granted)->transfer;
        pass(rig, FETCH_PAUSE_MS);
        assert_cancelled(rig, 1, transfer);
        pass(rig, 10 * FETCH_PLACE_MS); /* for ever, if need be */
        unsigned asks = count(rig, WIRE_BODY_ASK);
        fetch_consumed(rig->fetches, 7, BODY_WINDOW_BYTES / 4, rig->now_ms);
        assert_int_equal(count(rig, WIRE_BODY_ASK), asks + 1);
    }
    assert_int_equal(rig->done_count, 0);
    assert_int_equal(stats(rig).timeouts, 0);
}

static void reading_on_in_time_keeps_the_transfer(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 1);
    for (uint64_t at = 0; at < BODY_WINDOW_BYTES; at += CHUNK)
        give(rig, at, CHUNK);
    pass(rig, FETCH_PAUSE_MS - 1);
    fetch_consumed(rig->fetches, 7, BODY_WINDOW_BYTES, rig->now_ms);
    assert_int_equal(last(rig, WIRE_BODY_CREDIT)->message.flow.bytes, BODY_WINDOW_BYTES);
    pass(rig, FETCH_PROGRESS_MS - 1);
    assert_int_equal(count(rig, WIRE_BODY_ASK), 1);
    assert_int_equal(count(rig, WIRE_BODY_END), 0);
    pass(rig, 1);
    assert_int_equal(stats(rig).timeouts, 1); /* now it is the holder's turn to be slow */
}

static void a_holder_that_forgot_us_is_asked_anew_after_it_gave_much(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 2);
    give(rig, 0, CHUNK);
    uint64_t transfer = asked(rig, 1, 0)->transfer;
    struct wire_message old = chunk(rig, CHUNK, CHUNK);
    end(rig, WIRE_END_UNKNOWN);
    assert_true(asked(rig, 1, CHUNK)->transfer != transfer);
    hand(rig, &old); /* of the transfer that is over, though the holder is the same */
    assert_int_equal(rig->got, CHUNK);
    assert_int_equal(stats(rig).late, 1);
    assert_cancelled(rig, 1, transfer);
    end(rig, WIRE_END_UNKNOWN); /* gave nothing */
    (void)asked(rig, 2, CHUNK);
}

static void refuses_what_cannot_be_fetched(void **state)
{
    struct rig *rig = *state;

    assert_int_equal(start(rig, 1, 0, 0, 1, 1, false), ERR_INVALID);
    assert_int_equal(start(rig, 1, BODY_BYTES, 1, 1, 1, false), ERR_INVALID);
    assert_int_equal(start(rig, 1, BODY_BYTES + 1, 1, 1, 1, false), ERR_INVALID);
    assert_int_equal(start(rig, 1, 1, UINT64_MAX, 1, 1, false), ERR_INVALID);
    assert_int_equal(start(rig, 1, 0, 1, 1, LIMIT_FETCH_HOLDERS + 1, false), ERR_INVALID);
    assert_int_equal(start(rig, 1, 0, 1, 1, 0, false), ERR_NOT_FOUND);
    const struct id128 twice[] = {node(1), node(2), node(1)};
    const struct fetch_request request = {
        .size = 1, .length = 1, .holders = twice, .holder_count = 3};
    assert_int_equal(fetch_start(rig->fetches, &request, rig->now_ms), ERR_INVALID);
    assert_int_equal(rig->sent_count, 0);
    assert_int_equal(stats(rig).active, 0);

    for (unsigned i = 0; i < LIMIT_FETCHES; i++)
        assert_int_equal(start(rig, i, 0, 1, i, LIMIT_FETCH_HOLDERS, false), 0);
    assert_int_equal(start(rig, LIMIT_FETCHES, 0, 1, 1, 1, false), ERR_FULL);
    assert_int_equal(start(rig, 17, 0, 1, 1, 1, false), ERR_EXISTS);
    fetch_cancel(rig->fetches, 17, rig->now_ms);
    assert_int_equal(start(rig, 17, 0, 1, 1, 1, false), 0);
}

static void cancelling_tells_the_holder_and_nobody_else(void **state)
{
    struct rig *rig = *state;

    must_start(rig, 7, 2);
    give(rig, 0, CHUNK);
    uint64_t transfer = asked(rig, 1, 0)->transfer;
    struct wire_message old = chunk(rig, CHUNK, CHUNK);
    fetch_cancel(rig->fetches, 7, rig->now_ms);
    assert_cancelled(rig, 1, transfer);
    hand(rig, &old);
    fetch_consumed(rig->fetches, 7, CHUNK, rig->now_ms);
    fetch_cancel(rig->fetches, 7, rig->now_ms);
    pass(rig, 60000);
    assert_int_equal(rig->got, CHUNK);
    assert_int_equal(rig->done_count, 0);
    assert_int_equal(stats(rig).active, 0);
    assert_int_equal(stats(rig).cancelled, 1);
}

static void a_node_is_asked_for_no_more_than_it_serves(void **state)
{
    struct rig *rig = *state;
    const unsigned each = LIMIT_SERVED_PER_PEER_BACKGROUND;

    for (unsigned i = 0; i < 2 * each; i++)
        assert_int_equal(start(rig, 100 + i, 0, 1, 1, 1, true), 0);
    assert_int_equal(count(rig, WIRE_BODY_ASK), each);
    const unsigned rest = LIMIT_SERVED_PER_PEER - each; /* for clients alone */
    for (unsigned i = 0; i < rest + 8; i++)
        assert_int_equal(start(rig, i, 0, 1, 1, 1, false), 0);
    assert_int_equal(count(rig, WIRE_BODY_ASK), LIMIT_SERVED_PER_PEER);
    /* Another holder has room. */
    assert_int_equal(start(rig, 50, 0, 1, 1, 2, false), 0);
    (void)asked(rig, 2, 0);
    fetch_cancel(rig->fetches, 50, rig->now_ms);

    /* A place goes to who waited longest, and to what clients wait for first. */
    unsigned asks = count(rig, WIRE_BODY_ASK);
    fetch_cancel(rig->fetches, 100, rig->now_ms);
    assert_int_equal(count(rig, WIRE_BODY_ASK), asks + 1);
    assert_int_equal(last(rig, WIRE_BODY_ASK)->message.body_ask.background, 0);
    give(rig, 0, 1);
    assert_int_equal(rig->done_number, rest);
    for (uint64_t number = rest + 1; number < rest + 8; number++) {
        give(rig, 0, 1);
        assert_int_equal(rig->done_number, number);
    }
    /* None of those is left to wait: the next place is a background one's. */
    give(rig, 0, 1);
    assert_int_equal(rig->done_number, 100 + each);
    assert_int_equal(stats(rig).busy, 0);
}

static void a_small_body_does_not_wait_behind_large_ones(void **state)
{
    struct rig *rig = *state;

    for (unsigned i = 0; i < LIMIT_ASKED_LARGE_BACKGROUND + 5; i++)
        assert_int_equal(start(rig, i, 0, BODY_BYTES, 1, 1, true), 0);
    assert_int_equal(count(rig, WIRE_BODY_ASK), LIMIT_ASKED_LARGE_BACKGROUND);
    assert_int_equal(start(rig, 50, 0, LIMIT_INLINE_BODY_BYTES, 1, 1, true), 0);
    assert_int_equal(count(rig, WIRE_BODY_ASK), LIMIT_ASKED_LARGE_BACKGROUND + 1);
    assert_int_equal(last(rig, WIRE_BODY_ASK)->message.body_ask.length, LIMIT_INLINE_BODY_BYTES);
    /* Its place is no large one's, the next one's that ends is. */
    fetch_cancel(rig->fetches, 50, rig->now_ms);
    assert_int_equal(count(rig, WIRE_BODY_ASK), LIMIT_ASKED_LARGE_BACKGROUND + 1);
    fetch_cancel(rig->fetches, 0, rig->now_ms);
    assert_int_equal(count(rig, WIRE_BODY_ASK), LIMIT_ASKED_LARGE_BACKGROUND + 2);
    assert_int_equal(last(rig, WIRE_BODY_ASK)->message.body_ask.length, BODY_BYTES);
}

/* As many as its connection takes, however few transfers that are. */
static void a_node_is_asked_for_no_more_bytes_than_fit_on_the_way(void **state)
{
    struct rig *rig = *state;
    const unsigned most = LIMIT_PEER_WINDOWS / BODY_WINDOW_BYTES;

    for (unsigned i = 0; i < most + 2; i++)
        assert_int_equal(start(rig, i, 0, BODY_BYTES, 1, 1, false), 0);
    assert_int_equal(count(rig, WIRE_BODY_ASK), most);
    fetch_cancel(rig->fetches, 0, rig->now_ms);
    assert_int_equal(count(rig, WIRE_BODY_ASK), most + 1);
}

static void waiting_for_a_place_has_an_end(void **state)
{
    struct rig *rig = *state;

    /* Somebody keeps all places, and the transfers alive. */
    for (unsigned i = 0; i < LIMIT_SERVED_PER_PEER; i++)
        assert_int_equal(start(rig, i, 0, 200, 1, 1, false), 0);
    struct wire_message chunks[LIMIT_SERVED_PER_PEER];
    for (size_t i = 0; i < LIMIT_SERVED_PER_PEER; i++) {
        chunks[i] = chunk(rig, 0, 1);
        chunks[i].body_data.transfer = rig->sent[i].message.body_ask.transfer;
    }
    assert_int_equal(start(rig, 99, 0, 1, 1, 1, false), 0);
    for (uint64_t ms = 0; ms < FETCH_PLACE_MS; ms += 500) {
        assert_int_equal(rig->done_count, 0);
        for (size_t i = 0; i < LIMIT_SERVED_PER_PEER; i++) {
            struct wire_body_data *data = &chunks[i].body_data;

            data->offset = ms / 500;
            data->data.ptr = (const char *)body + data->offset;
            data->sum = xxh64(data->data.ptr, 1, 0);
            hand(rig, &chunks[i]);
        }
        pass(rig, 500);
    }
    assert_int_equal(rig->done_count, 1);
    assert_int_equal(rig->done_number, 99);
    assert_int_equal(rig->done_rc, ERR_AGAIN);
}

/* Peers that know our numbers say whatever they like, in any order, while nodes come and go: bytes
 * stay right, and when silence falls, everything ends. */
static void coming(struct rig *rig)
{
    const struct sent *ask = last(rig, WIRE_BODY_ASK);
    const struct wire_message message = {.type = WIRE_BODY_COMING,
                                         .from = ask->to,
                                         .flow = {.session = ask->message.body_ask.transfer}};

    hand(rig, &message);
}

/* Whoever fetches for us may be slow, as long as it says that it is about it; if it says nothing it
 * is left soon, and not asked again. */
static void a_delegate_is_waited_for_while_it_says_so(void **state)
{
    struct rig *rig = *state;
    struct id128 holder = node(1);
    struct fetch_request request = {.number = 1,
                                    .size = BODY_BYTES,
                                    .length = BODY_BYTES,
                                    .delegated = true,
                                    .rounds = 1,
                                    .first_byte_ms = 500,
                                    .holders = &holder,
                                    .holder_count = 1};

    assert_int_equal(fetch_start(rig->fetches, &request, rig->now_ms), 0);
    assert_int_equal(asked(rig, 1, 0)->delegated, 1);
    for (int i = 0; i < 50; i++) {
        pass(rig, 400);
        coming(rig);
    }
    assert_int_equal(rig->done_count, 0);
    pass(rig, 450);
    assert_int_equal(rig->done_count, 0);
    pass(rig, 100);
    assert_done(rig, 1, ERR_TIMEOUT);
    /* Nor for ever. */
    rig->done_count = 0;
    request.number = 2;
    assert_int_equal(fetch_start(rig->fetches, &request, rig->now_ms), 0);
    uint64_t begun = rig->now_ms;
    while (rig->done_count == 0 && rig->now_ms < begun + 2 * FETCH_COMING_MS) {
        pass(rig, 400);
        coming(rig);
    }
    assert_done(rig, 2, ERR_TIMEOUT);
    assert_true(rig->now_ms - begun >= FETCH_COMING_MS);
    assert_true(rig->now_ms - begun <= FETCH_COMING_MS + 1000);
    /* As long as was said, where it was. */
    rig->done_count = 0;
    request.number = 3;
    request.coming_ms = 2 * FETCH_COMING_MS;
    assert_int_equal(fetch_start(rig->fetches, &request, rig->now_ms), 0);
    begun = rig->now_ms;
    while (rig->done_count == 0 && rig->now_ms < begun + 3 * FETCH_COMING_MS) {
        pass(rig, 400);
        coming(rig);
    }
    assert_done(rig, 3, ERR_TIMEOUT);
    assert_true(rig->now_ms - begun >= request.coming_ms);
    assert_true(rig->now_ms - begun <= request.coming_ms + 1000);
}

static void survives_hostile_sequences(void **state)
{
    enum { SEEDS = 40, STEPS = 4000, FETCHES = 12 };
    struct rig *rig = *state;

    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        srand(seed);
        fetch_destroy(&rig->fetches);
        const struct fetch_sink sink = {on_send, on_data, on_done, rig};
        assert_int_equal(fetch_create(&rig->fetches, &sink, seed), 0);
        rig->sent_count = 0;
        rig->done_count = 0;
        for (uint64_t i = 0; i < FETCHES; i++)
            assert_int_equal(start(rig, i, 0, BODY_BYTES, (unsigned)i % 3 + 1, 3, i & 1), 0);
        for (int step = 0; step < STEPS; step++) {
            const struct sent *any = &rig->sent[(size_t)rand() % rig->sent_count];
            struct wire_message message = {.type = WIRE_BODY_END, .from = any->to};
            bool ask = any->message.type == WIRE_BODY_ASK;
            uint64_t transfer = ask ? any->message.body_ask.transfer : any->message.flow.session;
            uint64_t number = ask ? any->message.body_ask.id.bytes[3] : 0;

            switch (rand() % 8) {
            case 0:
                message.flow = (struct wire_flow){transfer, 0, (uint8_t)(rand() % 9)};
                break;
            case 1:
                message.type = WIRE_BODY_CREDIT;
                message.flow = (struct wire_flow){transfer, UINT64_MAX, 0};
                break;
            case 2:
                rig->now_ms += (uint64_t)(rand() % 1500);
                fetch_tick(rig->fetches, rig->now_ms);
                break;
            case 3:
                peer(rig, (unsigned)rand() % 6, rand() % 3 > 0);
                break;
            default:
                if (!ask)
                    break;
                if (rig->next[number] + 16000 > BODY_BYTES)
                    break;
                message = chunk(rig, rig->next[number], (size_t)(rand() % 16) * 1000);
                message.from = any->to;
                message.body_data.transfer = transfer;
                if (rand() % 2 == 0)
                    consume(rig, number);
                if (rand() % 8 == 0)
                    message.body_data.offset += (uint64_t)rand() % 3 * BLOCK_BYTES;
                if (rand() % 16 == 0)
                    message.body_data.size = (uint64_t)rand() << 40;
                break;
            }
            hand(rig, &message);
            if (rig->sent_count > SENT_KEPT - 600) { /* forget the older half */
                rig->sent_count /= 2;
                memmove(rig->sent, rig->sent + rig->sent_count,
                        rig->sent_count * sizeof *rig->sent);
            }
        }
        rig->sent_count = 0;
        for (uint64_t i = 0; i < FETCHES; i++)
            consume(rig, i);
        for (int i = 0; i < 10 && stats(rig).active > 0; i++, rig->sent_count = 0)
            pass(rig, 10000);
        assert_int_equal(stats(rig).active, 0);
        assert_int_equal(rig->done_count, FETCHES);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(gives_the_whole_body_in_order),
        TEST(a_range_ends_where_it_was_asked_to),
        TEST(credit_follows_the_reader),
        TEST(wrong_chunks_cost_a_holder_the_fetch),
        TEST(a_chunk_that_comes_twice_does_no_harm),
        TEST(after_a_lost_chunk_the_next_holder_goes_on_and_the_first_comes_again),
        TEST(silence_is_waited_for_a_second_at_first_then_three),
        TEST(silent_holders_are_asked_three_times_each),
        TEST(rounds_begin_anew_with_what_arrives),
        TEST(busy_holders_are_asked_again_after_the_others_and_a_while),
        TEST(the_reason_given_is_the_one_that_may_pass),
        TEST(a_dead_holder_is_left_at_once_and_asked_when_it_is_back),
        TEST(what_a_holder_did_is_not_forgotten_when_it_dies),
        TEST(nobody_rests_for_the_dead),
        TEST(what_is_late_is_not_believed_but_stopped),
        TEST(a_slow_reader_costs_no_holder),
        TEST(reading_on_in_time_keeps_the_transfer),
        TEST(a_holder_that_forgot_us_is_asked_anew_after_it_gave_much),
        TEST(refuses_what_cannot_be_fetched),
        TEST(cancelling_tells_the_holder_and_nobody_else),
        TEST(a_node_is_asked_for_no_more_than_it_serves),
        TEST(a_small_body_does_not_wait_behind_large_ones),
        TEST(waiting_for_a_place_has_an_end),
        TEST(a_node_is_asked_for_no_more_bytes_than_fit_on_the_way),
        TEST(a_delegate_is_waited_for_while_it_says_so),
        TEST(survives_hostile_sequences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
