/* Goal: what is said to a peer in one turn leaves as few frames, with every message in it once,
 * whole and in the order in which it was given; a message that is alone goes as it is, and so does
 * one that is large. */
#include "cluster/cluster_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FRAMES 64

/* What was sent, in place of the node's own way to its peers. */
static struct buf frames[FRAMES];
static size_t frame_count;

void peer_transmit(struct cluster *cluster, struct peer *peer, const void *data, size_t len)
{
    (void)cluster;
    (void)peer;
    assert_true(frame_count < FRAMES);
    assert_in_range(len, 1, LIMIT_WIRE_BYTES);
    buf_reset(&frames[frame_count]);
    buf_add(&frames[frame_count], data, len);
    assert_int_equal(buf_check(&frames[frame_count++]), 0);
}

static struct cluster *cluster;
static struct peer peer;

static int setup_peer(void **state)
{
    (void)state;
    frame_count = 0;
    cluster = calloc(1, sizeof *cluster);
    cluster->self = (struct id128){{7}};
    (void)strcpy(cluster->tag, "test");
    cluster->peers = &peer;
    cluster->peer_count = 1;
    peer = (struct peer){.node = {{8}}};
    buf_init(&peer.pack, LIMIT_WIRE_PACK_BYTES);
    return 0;
}

static int teardown_peer(void **state)
{
    (void)state;
    buf_release(&peer.pack);
    buf_release(&cluster->pack_frame);
    free(cluster);
    for (size_t i = 0; i < FRAMES; i++)
        buf_release(&frames[i]);
    return 0;
}

/* Number N as a message of LEN bytes of body. */
static void say(unsigned n, uint32_t len)
{
    static char bytes[LIMIT_WIRE_CHUNK_BYTES];
    struct buf frame = {0};
    const struct wire_message message = {
        .type = WIRE_BODY_DATA,
        .tag = {"test", 4},
        .from = {{7}},
        .body_data = {.transfer = n, .size = len, .data = {bytes, len}}};

    wire_encode(&frame, &message);
    assert_int_equal(buf_check(&frame), 0);
    pack_send(cluster, &peer, &frame);
    buf_release(&frame);
}

static unsigned heard(const struct buf *frame, unsigned n)
{
    struct wire_message message, inner;
    struct text part;
    size_t offset = 0;

    assert_int_equal(wire_decode(&message, (const uint8_t *)frame->data, frame->len), 0);
    assert_int_equal(message.from.bytes[0], 7);
    assert_memory_equal(message.tag.ptr, "test", 4);
    if (message.type == WIRE_BODY_DATA) {
        assert_int_equal(message.body_data.transfer, n);
        return n + 1;
    }
    assert_int_equal(message.type, WIRE_PACK);
    while (wire_next_event(message.pack.data, &offset, &part)) {
        assert_int_equal(wire_decode(&inner, (const uint8_t *)part.ptr, part.len), 0);
        assert_int_equal(inner.type, WIRE_BODY_DATA);
        assert_int_equal(inner.body_data.transfer, n);
        n++;
    }
    return n;
}

/* All frames together say 0 to COUNT - 1, in order. */
static void expect_all(unsigned count)
{
    unsigned n = 0;

    for (size_t i = 0; i < frame_count; i++)
        n = heard(&frames[i], n);
    assert_int_equal(n, count);
}

static void nothing_is_sent_where_nothing_was_said(void **state)
{
    (void)state;
    pack_flush_all(cluster);
    assert_int_equal(frame_count, 0);
}

static void what_is_alone_goes_as_it_is(void **state)
{
    struct wire_message message;

    (void)state;
    say(0, 100);
    assert_int_equal(frame_count, 0);
    pack_flush_all(cluster);
    assert_int_equal(frame_count, 1);
    assert_int_equal(wire_decode(&message, (const uint8_t *)frames[0].data, frames[0].len), 0);
    assert_int_equal(message.type, WIRE_BODY_DATA);
    pack_flush_all(cluster);
    assert_int_equal(frame_count, 1);
}

static void small_ones_travel_together(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 50; n++)
        say(n, 1000);
    assert_int_equal(frame_count, 0);
    pack_flush_all(cluster);
    assert_int_equal(frame_count, 1);
    expect_all(50);
}

static void a_pack_that_is_full_leaves_at_once(void **state)
{
    enum { COUNT = 100, LEN = 10000 };

    (void)state;
    for (unsigned n = 0; n < COUNT; n++)
        say(n, LEN);
    assert_true(frame_count >= (COUNT - 1) * LEN / LIMIT_WIRE_PACK_BYTES);
    pack_flush_all(cluster);
    assert_true(frame_count <= COUNT * (LEN + 100) / (LIMIT_WIRE_PACK_BYTES - LEN - 100) + 1);
    expect_all(COUNT);
}

static void large_ones_go_alone_and_in_their_place(void **state)
{
    static const uint32_t lengths[] = {10, 20, LIMIT_WIRE_CHUNK_BYTES, PACK_MESSAGE_BYTES, 30,
                                       40, 50};

    (void)state;
    for (unsigned n = 0; n < 7; n++)
        say(n, lengths[n]);
    assert_int_equal(frame_count, 3); /* two together, and each of the large ones */
    pack_flush_all(cluster);
    assert_int_equal(frame_count, 4);
    expect_all(7);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup_peer, teardown_peer)
    const struct CMUnitTest tests[] = {
        test(nothing_is_sent_where_nothing_was_said),
        test(what_is_alone_goes_as_it_is),
        test(small_ones_travel_together),
        test(a_pack_that_is_full_leaves_at_once),
        test(large_ones_go_alone_and_in_their_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
