/* Goal: a node gives what it was asked for, within what the asker granted; whatever peers ask, its
 * reads and transfers stay bounded, clients' reads go first, and nobody is starved by large bodies.
 */
#include "cluster/serve.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#define BODY_BYTES (64 * MIB) /* as far as anybody can tell: reads give the same chunk again */
#define CHUNK      LIMIT_WIRE_CHUNK_BYTES
#define KEPT       8192

/* So many whole chunks may be under way to the disk. */
#define CHUNKS            (LIMIT_SERVE_READ_BYTES / CHUNK)
#define CHUNKS_BACKGROUND (LIMIT_SERVE_READ_BYTES_BACKGROUND / CHUNK)

static uint8_t bytes[CHUNK];

struct sent {
    struct id128 to;
    struct wire_message message;
};

struct rig {
    struct serve *serve;
    uint64_t now_ms;
    struct sent sent[KEPT];
    size_t sent_count;
    struct serve_read reads[KEPT]; /* from `reads_done` on: not answered yet */
    size_t read_count, reads_done;
    uint64_t overs[KEPT];
    size_t over_count;
};

static struct id128 node(unsigned n)
{
    struct id128 id = {{0}};

    id.bytes[15] = (uint8_t)n;
    return id;
}

static void on_read(void *arg, const struct serve_read *read)
{
    struct rig *rig = arg;

    assert_true(rig->read_count < KEPT);
    assert_in_range(read->len, 1, CHUNK);
    rig->reads[rig->read_count++] = *read;
    unsigned background = 0, delegated = 0;
    uint64_t under_way = 0, in_background = 0;
    for (size_t i = rig->reads_done; i < rig->read_count; i++) {
        for (size_t j = rig->reads_done; j < i; j++)
            assert_true(rig->reads[i].key != rig->reads[j].key); /* one at a time */
        delegated += rig->reads[i].delegated;
        if (rig->reads[i].delegated)
            continue;
        under_way += rig->reads[i].len;
        in_background += rig->reads[i].background ? rig->reads[i].len : 0;
        background += rig->reads[i].background;
    }
    assert_true(delegated <= LIMIT_SERVE_READS_DELEGATED);
    assert_true(rig->read_count - rig->reads_done - delegated <= LIMIT_SERVE_READS);
    assert_true(background <= LIMIT_SERVE_READS_BACKGROUND);
    assert_true(under_way <= LIMIT_SERVE_READ_BYTES);
    assert_true(in_background <= LIMIT_SERVE_READ_BYTES_BACKGROUND);
}

static void on_over(void *arg, uint64_t key)
{
    struct rig *rig = arg;

    assert_true(rig->over_count < KEPT);
    rig->overs[rig->over_count++] = key;
}

static void on_send(void *arg, const struct id128 *to, const struct wire_message *message)
{
    struct rig *rig = arg;

    assert_true(rig->sent_count < KEPT);
    rig->sent[rig->sent_count++] = (struct sent){*to, *message};
    if (message->type == WIRE_BODY_DATA)
        assert_int_equal(message->body_data.sum,
                         xxh64(message->body_data.data.ptr, message->body_data.data.len, 0));
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    const struct serve_sink sink = {on_read, on_over, on_send, rig};

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 11);
    rig->now_ms = 77;
    assert_int_equal(serve_create(&rig->serve, &sink), 0);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;

    serve_destroy(&rig->serve);
    assert_null(rig->serve);
    free(rig);
    return 0;
}

static struct serve_stats stats(const struct rig *rig)
{
    struct serve_stats stats;

    serve_stats(rig->serve, &stats);
    return stats;
}

static void ask_for(struct rig *rig, unsigned from, uint64_t transfer, uint64_t offset,
                    uint64_t length, uint64_t credit, bool background)
{
    const struct wire_message message = {.type = WIRE_BODY_ASK,
                                         .from = node(from),
                                         .body_ask = {.transfer = transfer,
                                                      .id = {{9, 8}},
                                                      .sha256 = {7, 6},
                                                      .offset = offset,
                                                      .length = length,
                                                      .credit_bytes = credit,
                                                      .background = background}};

    serve_message(rig->serve, &message, rig->now_ms);
}

static void flow(struct rig *rig, unsigned from, enum wire_type type, uint64_t transfer,
                 uint64_t credit, enum wire_end how)
{
    const struct wire_message message = {
        .type = type,
        .from = node(from),
        .flow = {.session = transfer, .bytes = credit, .end = (uint8_t)how}};

    serve_message(rig->serve, &message, rig->now_ms);
}

static void grant(struct rig *rig, unsigned from, uint64_t transfer, uint64_t credit)
{
    flow(rig, from, WIRE_BODY_CREDIT, transfer, credit, WIRE_END_DONE);
}

static void cancel(struct rig *rig, unsigned from, uint64_t transfer)
{
    flow(rig, from, WIRE_BODY_END, transfer, 0, WIRE_END_CANCEL);
}

/* Answer the oldest read as a body of SIZE bytes would. */
static struct serve_read answer(struct rig *rig, uint64_t size)
{
    assert_true(rig->reads_done < rig->read_count);
    struct serve_read read = rig->reads[rig->reads_done++];
    uint64_t left = read.offset < size ? size - read.offset : 0;

    serve_read_done(rig->serve, read.key, 0, bytes, left < read.len ? left : read.len, size,
                    rig->now_ms);
    return read;
}

static void delegate(struct rig *rig, unsigned from, uint64_t transfer)
{
    const struct wire_message message = {.type = WIRE_BODY_ASK,
                                         .from = node(from),
                                         .body_ask = {.transfer = transfer,
                                                      .id = {{9, 8}},
                                                      .sha256 = {7, 6},
                                                      .length = CHUNK,
                                                      .credit_bytes = CHUNK,
                                                      .delegated = 1}};

    serve_message(rig->serve, &message, rig->now_ms);
}

static void answer_failed(struct rig *rig, int rc)
{
    assert_true(rig->reads_done < rig->read_count);
    serve_read_done(rig->serve, rig->reads[rig->reads_done++].key, rc, NULL, 0, 0, rig->now_ms);
}

static void answer_all(struct rig *rig)
{
    while (rig->reads_done < rig->read_count)
        (void)answer(rig, BODY_BYTES);
}

static const struct wire_message *last(const struct rig *rig)
{
    assert_true(rig->sent_count > 0);
    return &rig->sent[rig->sent_count - 1].message;
}

static void assert_end(const struct rig *rig, uint64_t transfer, enum wire_end how)
{
    assert_int_equal(last(rig)->type, WIRE_BODY_END);
    assert_int_equal(last(rig)->flow.session, transfer);
    assert_int_equal(last(rig)->flow.end, how);
}

/* Data bytes sent for TRANSFER. */
static uint64_t given(const struct rig *rig, uint64_t transfer)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < rig->sent_count; i++) {
        const struct wire_message *message = &rig->sent[i].message;

        if (message->type == WIRE_BODY_DATA && message->body_data.transfer == transfer)
            sum += message->body_data.data.len;
    }
    return sum;
}

static void gives_what_was_asked_for_within_the_credit(void **state)
{
    struct rig *rig = *state;

    ask_for(rig, 1, 5, 1000, 700000, 300000, false);
    assert_int_equal(rig->read_count, 1);
    assert_int_equal(rig->reads[0].offset, 1000);
    assert_int_equal(rig->reads[0].len, CHUNK);
    assert_int_equal(rig->reads[0].id.bytes[1], 8);
    assert_int_equal(rig->reads[0].sha256[1], 6);
    answer_all(rig);
    assert_int_equal(given(rig, 5), 300000);
    assert_int_equal(rig->sent[0].message.body_data.offset, 1000);
    assert_int_equal(rig->sent[0].message.body_data.size, BODY_BYTES);
    assert_memory_equal(rig->sent[0].message.body_data.data.ptr, bytes, CHUNK);
    assert_int_equal(rig->sent[1].message.body_data.offset, 1000 + CHUNK);
    assert_int_equal(rig->sent[0].to.bytes[15], 1);
    grant(rig, 1, 5, 1);
    answer_all(rig);
    assert_int_equal(given(rig, 5), 300001);
    grant(rig, 1, 5, MIB);
    answer_all(rig);
    assert_int_equal(given(rig, 5), 700000);
    assert_end(rig, 5, WIRE_END_DONE);
    assert_int_equal(stats(rig).active, 0);
    assert_int_equal(stats(rig).done, 1);
}

static void to_the_end_means_to_the_end(void **state)
{
    struct rig *rig = *state;

    ask_for(rig, 1, 5, 10, UINT64_MAX, MIB, false);
    (void)answer(rig, 1010);
    assert_int_equal(given(rig, 5), 1000);
    assert_end(rig, 5, WIRE_END_DONE);
    ask_for(rig, 1, 6, 10, 5000, MIB, false); /* longer than the body */
    (void)answer(rig, 1010);
    assert_int_equal(given(rig, 6), 1000);
    assert_end(rig, 6, WIRE_END_DONE);
    ask_for(rig, 1, 7, 10, 0, MIB, false);
    assert_end(rig, 7, WIRE_END_DONE);
    assert_int_equal(stats(rig).active, 0);
}

static void says_why_it_cannot(void **state)
{
    struct rig *rig = *state;
    static const struct {
        int rc;
        enum wire_end how;
    } cases[] = {
        {ERR_NOT_FOUND, WIRE_END_ABSENT}, {ERR_DELETED, WIRE_END_ABSENT},
        {ERR_CORRUPT, WIRE_END_DAMAGED},  {ERR_IO, WIRE_END_DAMAGED},
        {ERR_FULL, WIRE_END_BUSY},        {ERR_AGAIN, WIRE_END_BUSY},
        {ERR_NO_MEMORY, WIRE_END_BUSY},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ask_for(rig, 1, i, 0, 1000, MIB, false);
        answer_failed(rig, cases[i].rc);
        assert_end(rig, i, cases[i].how);
        assert_int_equal(stats(rig).active, 0);
    }
    /* Bytes that a body of this length does not have. */
    ask_for(rig, 1, 50, 1010, 1, MIB, false);
    (void)answer(rig, 1010);
    assert_end(rig, 50, WIRE_END_ABSENT);
    ask_for(rig, 1, 51, UINT64_MAX, UINT64_MAX, MIB, false);
    assert_end(rig, 51, WIRE_END_ABSENT);
    /* A body that changes its length, and one that ends early. */
    ask_for(rig, 1, 52, 0, MIB, MIB, false);
    (void)answer(rig, MIB);
    (void)answer(rig, MIB + 1);
    assert_end(rig, 52, WIRE_END_DAMAGED);
    ask_for(rig, 1, 53, 0, MIB, MIB, false);
    serve_read_done(rig->serve, rig->reads[rig->reads_done++].key, 0, bytes, CHUNK - 1, MIB,
                    rig->now_ms);
    assert_end(rig, 53, WIRE_END_DAMAGED);
    assert_int_equal(given(rig, 53), 0);
    assert_int_equal(stats(rig).reading, 0);
    assert_int_equal(stats(rig).active, 0);
}

static void a_peer_and_all_peers_have_only_so_many_transfers(void **state)
{
    struct rig *rig = *state;
    unsigned n = 0, peers = LIMIT_SERVED / LIMIT_SERVED_PER_PEER;

    /* Background transfers leave room: of each peer's, and of all. */
    for (unsigned peer = 1; peer <= peers + 1; peer++) {
        for (unsigned i = 0; i < LIMIT_SERVED_PER_PEER_BACKGROUND; i++)
            ask_for(rig, peer, ++n, 0, 1000, 0, true);
        if (peer > peers)
            break;
        assert_int_equal(rig->sent_count, peer - 1);
        ask_for(rig, peer, ++n, 0, 1000, 0, true);
        assert_end(rig, n, WIRE_END_BUSY);
    }
    assert_int_equal(stats(rig).active, LIMIT_SERVED_BACKGROUND);
    assert_end(rig, n, WIRE_END_BUSY);
    size_t sent = rig->sent_count;
    for (unsigned peer = 1; peer <= peers; peer++) {
        for (unsigned i = LIMIT_SERVED_PER_PEER_BACKGROUND; i < LIMIT_SERVED_PER_PEER; i++)
            ask_for(rig, peer, ++n, 0, 1000, 0, false);
    }
    assert_int_equal(rig->sent_count, sent);
    assert_int_equal(stats(rig).active, LIMIT_SERVED);
    ask_for(rig, 99, ++n, 0, 1000, 0, false);
    assert_end(rig, n, WIRE_END_BUSY);
    cancel(rig, 1, 1);
    ask_for(rig, 2, ++n, 0, 1000, 0, false); /* has all of its own */
    assert_end(rig, n, WIRE_END_BUSY);
    ask_for(rig, 99, ++n, 0, 1000, 0, false);
    assert_int_equal(stats(rig).active, LIMIT_SERVED);
}

/* What may be under way to one peer has to fit its connection. */
static void a_peers_windows_are_bounded(void **state)
{
    struct rig *rig = *state;
    unsigned n = 0, most = LIMIT_PEER_WINDOWS_BACKGROUND / BODY_BACKGROUND_WINDOW_BYTES;

    for (; n < most; n++)
        ask_for(rig, 1, n, 0, BODY_BYTES, 0, true);
    assert_int_equal(stats(rig).active, most);
    ask_for(rig, 1, n, 0, BODY_BYTES, 0, true);
    assert_end(rig, n++, WIRE_END_BUSY);
    for (uint64_t left = LIMIT_PEER_WINDOWS - LIMIT_PEER_WINDOWS_BACKGROUND; left > 0;
         left -= BODY_WINDOW_BYTES, n++)
        ask_for(rig, 1, n, 0, UINT64_MAX, 0, false);
    unsigned active = stats(rig).active;
    assert_true(active > most);
    ask_for(rig, 1, n, 0, 1, 0, false);
    assert_end(rig, n++, WIRE_END_BUSY);
    ask_for(rig, 2, n, 0, BODY_BYTES, 0, false); /* another's are its own */
    assert_int_equal(stats(rig).active, active + 1);
    cancel(rig, 1, 0);
    ask_for(rig, 1, ++n, 0, 1, 0, false);
    assert_int_equal(stats(rig).active, active + 1);
}

static void reads_are_bounded_and_some_kept_for_clients(void **state)
{
    struct rig *rig = *state;

    for (unsigned i = 0; i < 24; i++)
        ask_for(rig, 1 + i / 6, i, 0, BODY_BYTES, MIB, true);
    assert_int_equal(rig->read_count, CHUNKS_BACKGROUND);
    for (unsigned i = 0; i < 8; i++)
        ask_for(rig, 10, 100 + i, 0, BODY_BYTES, MIB, false);
    assert_int_equal(rig->read_count, CHUNKS);
    /* As reads come back the clients' go first, until none of theirs can be made. */
    for (unsigned i = 0; i < 4; i++)
        (void)answer(rig, BODY_BYTES);
    for (size_t i = CHUNKS_BACKGROUND; i < rig->read_count; i++)
        assert_false(rig->reads[i].background);
    answer_all(rig);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(given(rig, i), MIB);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(given(rig, 100 + i), MIB);
}

static void credit_is_no_way_to_our_memory(void **state)
{
    struct rig *rig = *state;

    ask_for(rig, 1, 5, 0, BODY_BYTES, UINT64_MAX, false);
    grant(rig, 1, 5, UINT64_MAX);
    grant(rig, 1, 5, 1);
    answer_all(rig);
    assert_int_equal(given(rig, 5), BODY_WINDOW_BYTES);
    grant(rig, 1, 5, UINT64_MAX);
    grant(rig, 1, 5, UINT64_MAX);
    answer_all(rig);
    assert_int_equal(given(rig, 5), 2 * BODY_WINDOW_BYTES);
}

static void credit_for_nothing_is_answered(void **state)
{
    struct rig *rig = *state;

    grant(rig, 1, 5, 1000);
    assert_end(rig, 5, WIRE_END_UNKNOWN);
    ask_for(rig, 1, 5, 0, 1000, 0, false);
    grant(rig, 2, 5, 1000); /* another's */
    assert_end(rig, 5, WIRE_END_UNKNOWN);
    cancel(rig, 2, 5);
    assert_int_equal(rig->read_count, 0);
    grant(rig, 1, 5, 1000);
    assert_int_equal(rig->read_count, 1);
    assert_int_equal(stats(rig).unknown, 2);
}

static void a_question_that_comes_twice_is_served_once(void **state)
{
    struct rig *rig = *state;

    ask_for(rig, 1, 5, 0, 1000, 1000, false);
    ask_for(rig, 1, 5, 0, 1000, 1000, false);
    assert_int_equal(stats(rig).active, 1);
    ask_for(rig, 2, 5, 0, 1000, 1000, false); /* another node's number is another transfer */
    assert_int_equal(stats(rig).active, 2);
    answer_all(rig);
    assert_int_equal(given(rig, 5), 2000);
}

/* Of small ones many are read at once. */
static void small_reads_are_bounded_by_their_number(void **state)
{
    struct rig *rig = *state;
    unsigned n = 0;

    for (; n < LIMIT_SERVE_READS_BACKGROUND + 8; n++)
        ask_for(rig, 1 + n / 8, n, 0, 1000, 1000, true);
    assert_int_equal(rig->read_count, LIMIT_SERVE_READS_BACKGROUND);
    for (unsigned i = 0; i < LIMIT_SERVE_READS; i++, n++)
        ask_for(rig, 100 + n / 8, n, 0, 1000, 1000, false);
    assert_int_equal(rig->read_count, LIMIT_SERVE_READS);
    answer_all(rig);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(given(rig, i), 1000);
    assert_int_equal(stats(rig).active, 0);
}

static void a_cancelled_transfer_keeps_its_slot_until_its_read_is_done(void **state)
{
    struct rig *rig = *state;

    for (unsigned i = 0; i < LIMIT_SERVED_PER_PEER; i++)
        ask_for(rig, 1, i, 0, 1000, 1000, false);
    for (unsigned i = 0; i < LIMIT_SERVED_PER_PEER; i++)
        cancel(rig, 1, i);
    assert_int_equal(stats(rig).active, 0);
    assert_int_equal(stats(rig).reading, LIMIT_SERVED_PER_PEER);
    ask_for(rig, 1, 90, 0, BODY_BYTES, MIB, false);
    assert_end(rig, 90, WIRE_END_BUSY);
    size_t sent = rig->sent_count;
    while (rig->reads_done < LIMIT_SERVED_PER_PEER)
        (void)answer(rig, BODY_BYTES);
    assert_int_equal(rig->sent_count, sent); /* nothing to anybody */
    assert_int_equal(stats(rig).reading, 0);
    ask_for(rig, 1, 91, 0, 1000, MIB, false);
    answer_all(rig);
    assert_end(rig, 91, WIRE_END_DONE);
}

static void what_nothing_happens_to_is_dropped(void **state)
{
    struct rig *rig = *state;

    ask_for(rig, 1, 5, 0, BODY_BYTES, CHUNK, false);
    ask_for(rig, 1, 6, 0, BODY_BYTES, CHUNK, false);
    (void)answer(rig, BODY_BYTES); /* 6 is still being read: the disk may take its time */
    rig->now_ms += SERVE_IDLE_MS - 1;
    serve_tick(rig->serve, rig->now_ms);
    assert_int_equal(stats(rig).active, 2);
    rig->now_ms++;
    serve_tick(rig->serve, rig->now_ms);
    assert_int_equal(stats(rig).active, 1);
    assert_end(rig, 5, WIRE_END_UNKNOWN);
    (void)answer(rig, BODY_BYTES);
    assert_int_equal(given(rig, 6), CHUNK);
    rig->now_ms += SERVE_IDLE_MS - 1;
    grant(rig, 1, 6, CHUNK);
    answer_all(rig);
    rig->now_ms += SERVE_IDLE_MS - 1;
    serve_tick(rig->serve, rig->now_ms);
    assert_int_equal(stats(rig).active, 1);
    rig->now_ms++;
    serve_tick(rig->serve, rig->now_ms);
    assert_int_equal(stats(rig).active, 0);
    assert_int_equal(stats(rig).dropped, 2);
}

static void credit_keeps_a_transfer_that_waits_for_its_turn(void **state)
{
    struct rig *rig = *state;

    for (unsigned i = 0; i < CHUNKS; i++)
        ask_for(rig, 1 + i / 8, i, 0, BODY_BYTES, MIB, false);
    ask_for(rig, 9, 50, 0, BODY_BYTES, 0, false);
    rig->now_ms += SERVE_IDLE_MS - 1;
    grant(rig, 9, 50, 1000);
    rig->now_ms += SERVE_IDLE_MS - 1;
    serve_tick(rig->serve, rig->now_ms);
    answer_all(rig);
    assert_int_equal(given(rig, 50), 1000);
}

static void a_dead_peers_transfers_go(void **state)
{
    struct rig *rig = *state;
    struct id128 dead = node(1);

    ask_for(rig, 1, 5, 0, BODY_BYTES, MIB, false);
    ask_for(rig, 1, 6, 0, BODY_BYTES, 0, true);
    ask_for(rig, 2, 7, 0, 1000, MIB, false);
    serve_peer_failed(rig->serve, &dead);
    assert_int_equal(stats(rig).active, 1);
    answer_all(rig);
    assert_int_equal(given(rig, 5), 0);
    assert_int_equal(given(rig, 7), 1000);
}

/* Grant each of TRANSFERS (peer = number / 8) what it used up, answer one read; true once WAITED
 * has ended. */
static bool turn(struct rig *rig, unsigned transfers, uint64_t waited)
{
    struct serve_read read = answer(rig, BODY_BYTES);

    (void)read;
    for (unsigned i = 0; i < transfers; i++)
        grant(rig, 1 + i / 8, i, MIB);
    for (size_t i = 0; i < rig->sent_count; i++) {
        if (rig->sent[i].message.type == WIRE_BODY_END &&
            rig->sent[i].message.flow.session == waited)
            return true;
    }
    return false;
}

static void a_small_one_passes_large_background_ones(void **state)
{
    struct rig *rig = *state;

    for (unsigned i = 0; i < 16; i++)
        ask_for(rig, 1 + i / 6, i, 0, BODY_BYTES, MIB, true);
    for (unsigned i = 0; i < 100; i++)
        (void)turn(rig, 16, 999);
    ask_for(rig, 9, 50, 0, 1024, 1024, false);
    /* It is being read at once; ahead of it are only the reads that had begun before. */
    unsigned turns = 1;
    for (; !turn(rig, 16, 50); turns++)
        ;
    assert_true(turns <= CHUNKS_BACKGROUND + 1);
}

static void a_small_one_waits_for_one_turn_of_its_equals(void **state)
{
    struct rig *rig = *state;

    for (unsigned i = 0; i < 48; i++)
        ask_for(rig, 1 + i / 8, i, 0, BODY_BYTES, MIB, false);
    for (unsigned i = 0; i < 300; i++)
        (void)turn(rig, 48, 999);
    ask_for(rig, 9, 50, 0, 1024, 1024, false);
    unsigned turns = 1;
    for (; !turn(rig, 48, 50); turns++)
        ;
    assert_true(turns <= CHUNKS + 48);
}

static void turns_are_by_bytes(void **state)
{
    struct rig *rig = *state;
    enum { LARGE = 56, ROUNDS = 6000 };

    /* Many take whole chunks, one grants 64 KiB at a time. By number of turns it would get a
     * quarter of what they get; by bytes more, though not all, since it waits for each of its
     * reads. */
    for (unsigned i = 0; i < LARGE; i++)
        ask_for(rig, 1 + i / 8, i, 0, UINT64_MAX, MIB, false);
    ask_for(rig, 9, LARGE, 0, UINT64_MAX, BLOCK_BYTES, false);
    uint64_t sum[64] = {0};
    for (unsigned i = 0; i < ROUNDS; i++) {
        rig->sent_count = 0;
        struct serve_read read = answer(rig, 1024 * GIB);
        const struct wire_body_data *data = &rig->sent[0].message.body_data;

        assert_int_equal(data->data.len, read.len);
        sum[data->transfer] += read.len;
        grant(rig, data->transfer == LARGE ? 9 : 1 + (unsigned)data->transfer / 8, data->transfer,
              read.len);
    }
    uint64_t fair = 0;
    for (unsigned i = 0; i < LARGE; i++)
        fair += sum[i] / LARGE;
    for (unsigned i = 0; i < LARGE; i++)
        assert_in_range(sum[i], fair * 9 / 10, fair * 11 / 10);
    assert_in_range(sum[LARGE], fair * 35 / 100, fair * 11 / 10);
}

/* Peers ask, grant, cancel and fail as they like, the disk answers in any order and way. */
/* A body that is still on its way here may take long: nobody else waits for it, and its asker hears
 * that it comes. */
static void delegated_transfers_are_read_besides_all_others(void **state)
{
    struct rig *rig = *state;

    for (unsigned i = 0; i < LIMIT_SERVE_READS_DELEGATED + 8; i++)
        delegate(rig, 1 + i / 8, i);
    assert_int_equal(rig->read_count, LIMIT_SERVE_READS_DELEGATED);
    assert_int_equal(stats(rig).reading, 0);
    assert_true(rig->reads[0].delegated);
    /* What others ask is read at once. */
    ask_for(rig, 100, 1, 0, CHUNK, CHUNK, false);
    assert_int_equal(rig->read_count, LIMIT_SERVE_READS_DELEGATED + 1);
    assert_false(rig->reads[LIMIT_SERVE_READS_DELEGATED].delegated);
    /* All that wait are told so, for as long as it takes. */
    for (unsigned round = 1; round < 200; round++) {
        rig->sent_count = 0;
        rig->now_ms += SERVE_COMING_MS;
        serve_tick(rig->serve, rig->now_ms);
        assert_int_equal(rig->sent_count, LIMIT_SERVE_READS_DELEGATED + 8);
        assert_int_equal(last(rig)->type, WIRE_BODY_COMING);
        serve_tick(rig->serve, rig->now_ms + 1);
        assert_int_equal(rig->sent_count, LIMIT_SERVE_READS_DELEGATED + 8);
    }
    /* The end of each is told to whoever keeps its loan, whichever way it ends. */
    (void)answer(rig, CHUNK);
    assert_int_equal(rig->over_count, 1);
    assert_true(rig->overs[0] == rig->reads[0].key);
    cancel(rig, 1, 1);
    assert_int_equal(rig->over_count, 1); /* its read is not done */
    (void)answer(rig, CHUNK);
    assert_int_equal(rig->over_count, 2);
    answer_all(rig);
    assert_int_equal(rig->over_count, LIMIT_SERVE_READS_DELEGATED + 8);
    assert_int_equal(stats(rig).active, 0);
}

static void survives_hostile_sequences(void **state)
{
    enum { SEEDS = 60, STEPS = 3000 };
    static const uint64_t odd[] = {0, 1, 1000, CHUNK, MIB, BODY_BYTES, UINT64_MAX - 1, UINT64_MAX};
    static const int rcs[] = {0, 0, 0, 0, 0, ERR_NOT_FOUND, ERR_IO, ERR_FULL};
    struct rig *rig = *state;

#define ODD odd[(size_t)rand() % (sizeof odd / sizeof *odd)]
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        srand(seed);
        for (int step = 0; step < STEPS; step++) {
            unsigned from = (unsigned)rand() % 20;
            uint64_t transfer = (uint64_t)rand() % 12;
            struct id128 id = node(from);
            struct serve_read read;
            size_t open, any, len;

            switch (rand() % 12) {
            case 0:
            case 1:
            case 2:
                ask_for(rig, from, transfer, ODD, ODD, ODD, rand() & 1);
                break;
            case 3:
            case 4:
                grant(rig, from, transfer, ODD);
                break;
            case 5:
                flow(rig, from, WIRE_BODY_END, transfer, ODD, (enum wire_end)(rand() % 9));
                break;
            case 6:
                if (rand() % 8 == 0)
                    serve_peer_failed(rig->serve, &id);
                break;
            case 7:
                rig->now_ms += (uint64_t)(rand() % 2000);
                serve_tick(rig->serve, rig->now_ms);
                break;
            default:
                open = rig->read_count - rig->reads_done;
                if (open == 0)
                    break;
                any = rig->reads_done + (size_t)rand() % open;
                read = rig->reads[any];
                rig->reads[any] = rig->reads[rig->reads_done++];
                len = rand() % 8 ? read.len : (size_t)rand() % CHUNK;
                serve_read_done(rig->serve, read.key,
                                rcs[(size_t)rand() % (sizeof rcs / sizeof *rcs)], bytes, len,
                                rand() % 8 ? UINT64_MAX : ODD, rig->now_ms);
            }
            assert_true(stats(rig).active <= LIMIT_SERVED);
            assert_int_equal(stats(rig).reading, rig->read_count - rig->reads_done);
            rig->sent_count = 0;
            if (rig->read_count > KEPT / 2) {
                memmove(rig->reads, rig->reads + rig->reads_done,
                        (rig->read_count - rig->reads_done) * sizeof *rig->reads);
                rig->read_count -= rig->reads_done;
                rig->reads_done = 0;
            }
        }
        for (unsigned n = 0; n < 20; n++) {
            struct id128 id = node(n);

            serve_peer_failed(rig->serve, &id);
        }
        answer_all(rig);
        assert_int_equal(stats(rig).active, 0);
        assert_int_equal(stats(rig).reading, 0);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(gives_what_was_asked_for_within_the_credit),
        TEST(to_the_end_means_to_the_end),
        TEST(says_why_it_cannot),
        TEST(a_peer_and_all_peers_have_only_so_many_transfers),
        TEST(a_peers_windows_are_bounded),
        TEST(reads_are_bounded_and_some_kept_for_clients),
        TEST(small_reads_are_bounded_by_their_number),
        TEST(credit_is_no_way_to_our_memory),
        TEST(credit_for_nothing_is_answered),
        TEST(a_question_that_comes_twice_is_served_once),
        TEST(a_cancelled_transfer_keeps_its_slot_until_its_read_is_done),
        TEST(what_nothing_happens_to_is_dropped),
        TEST(credit_keeps_a_transfer_that_waits_for_its_turn),
        TEST(a_dead_peers_transfers_go),
        TEST(a_small_one_passes_large_background_ones),
        TEST(a_small_one_waits_for_one_turn_of_its_equals),
        TEST(turns_are_by_bytes),
        TEST(delegated_transfers_are_read_besides_all_others),
        TEST(survives_hostile_sequences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
