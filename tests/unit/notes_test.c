/* Goal: each note reaches each node that answers once, whatever the network loses, repeats, delays
 * or does not connect; and nobody can flood others, or grow what they keep. */
#include "cluster/notes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES  8
#define FLIGHT 65536
#define START  1000000
#define STEP   10 /* ms */
#define SAID   64

struct flight {
    uint64_t due_ms;
    unsigned to;
    struct buf bytes;
};

struct network;

struct node {
    struct network *network;
    struct notes *core;
    struct id128 id;
    unsigned times[SAID]; /* each note was delivered */
    unsigned delivered;
    struct wire_message sent;   /* the last message; its texts are gone … */
    unsigned sends, bytes_sent; /* … of all, and of notes with their bytes */
};

struct network {
    struct node nodes[NODES];
    unsigned count;
    uint64_t now_ms;
    bool cut[NODES][NODES]; /* from, to */
    unsigned loss, copies;  /* of 100 */
    unsigned delay_ms;      /* at most */
    unsigned seed;
    struct flight *flights;
    size_t flight_count;
    unsigned said;
};

static struct id128 node_id(unsigned node)
{
    return (struct id128){{7, (uint8_t)node}};
}

static struct id128 note_id(unsigned note)
{
    return (struct id128){{9, (uint8_t)(note >> 8), (uint8_t)note}};
}

static struct text text_of(const char *text)
{
    return (struct text){text, (uint32_t)strlen(text)};
}

static unsigned dice(struct network *network, unsigned below)
{
    return (unsigned)rand_r(&network->seed) % below;
}

static void fly(struct network *network, unsigned to, const struct wire_message *message)
{
    struct flight *flight = &network->flights[network->flight_count];

    assert_true(network->flight_count < FLIGHT);
    *flight = (struct flight){network->now_ms + 1 + dice(network, network->delay_ms + 1), to, {0}};
    wire_encode(&flight->bytes, message);
    assert_int_equal(buf_check(&flight->bytes), 0);
    network->flight_count++;
}

static void on_send(void *arg, const struct id128 *to, const struct wire_message *message)
{
    struct node *node = arg;
    struct network *network = node->network;
    unsigned from = (unsigned)(node - network->nodes), target = to->bytes[1];
    struct wire_message whole = *message;

    assert_true(target != from && target < NODES);
    node->sends++;
    node->bytes_sent += message->type == WIRE_NOTE;
    node->sent = *message;
    whole.from = node->id;
    whole.tag = text_of("t");
    if (!network->flights || network->cut[from][target] || target >= network->count)
        return;
    for (unsigned i = 0; i < 1u + (dice(network, 100) < network->copies); i++)
        if (dice(network, 100) >= network->loss)
            fly(network, target, &whole);
}

static void on_deliver(void *arg, const struct note *note)
{
    struct node *node = arg;
    unsigned number = note->id.bytes[1] * 256u + note->id.bytes[2];

    assert_true(note->wall_ms > 0);
    node->delivered++;
    if (note->id.bytes[0] == 9 && number < SAID)
        node->times[number]++;
}

static void init_node(struct network *network, unsigned at, uint64_t seed)
{
    struct node *node = &network->nodes[at];
    const struct notes_sink sink = {on_send, on_deliver, node};

    *node = (struct node){.network = network, .id = node_id(at)};
    assert_int_equal(notes_create(&node->core, &node->id, seed * 31 + at, &sink), 0);
}

static struct network *network_create(unsigned count, unsigned seed)
{
    struct network *network = calloc(1, sizeof *network);

    assert_non_null(network);
    network->flights = calloc(FLIGHT, sizeof *network->flights);
    assert_non_null(network->flights);
    network->count = count;
    network->seed = seed;
    network->now_ms = START;
    for (unsigned i = 0; i < count; i++)
        init_node(network, i, seed);
    for (unsigned i = 0; i < count; i++)
        for (unsigned k = 0; k < count; k++)
            notes_peer(network->nodes[i].core, &network->nodes[k].id, true);
    return network;
}

static void network_destroy(struct network *network)
{
    for (size_t i = 0; i < network->flight_count; i++)
        buf_release(&network->flights[i].bytes);
    for (unsigned i = 0; i < network->count; i++)
        notes_destroy(&network->nodes[i].core);
    free(network->flights);
    free(network);
}

static struct notes_times times_of(const struct network *network)
{
    return (struct notes_times){network->now_ms, network->now_ms + 5};
}

static void land(struct network *network, struct flight *flight)
{
    struct wire_message message;

    assert_int_equal(wire_decode(&message, (const uint8_t *)flight->bytes.data, flight->bytes.len),
                     0);
    notes_message(network->nodes[flight->to].core, &message, times_of(network));
}

static void step(struct network *network)
{
    network->now_ms += STEP;
    for (size_t i = network->flight_count; i-- > 0;) {
        if (network->flights[i].due_ms > network->now_ms)
            continue;
        struct flight flight = network->flights[i];

        network->flights[i] = network->flights[--network->flight_count];
        land(network, &flight); /* may add some */
        buf_release(&flight.bytes);
    }
    for (unsigned i = 0; i < network->count; i++)
        notes_tick(network->nodes[i].core, network->now_ms);
}

static void run(struct network *network, unsigned ms)
{
    for (unsigned i = 0; i < ms / STEP; i++)
        step(network);
}

static void say(struct network *network, unsigned node)
{
    struct id128 id = note_id(network->said++);

    assert_int_equal(notes_say(network->nodes[node].core, &id, text_of("hello"), times_of(network)),
                     0);
}

/* Each node has each note once; and all is quiet. */
static void all_have_all_once(struct network *network)
{
    for (unsigned i = 0; i < network->count; i++)
        for (unsigned k = 0; k < network->said; k++)
            if (network->nodes[i].times[k] != 1)
                fail_msg("node %u got note %u %u times", i, k, network->nodes[i].times[k]);
}

/* ---- The network ---- */

static void a_note_reaches_every_node_once(void **state)
{
    struct network *network = network_create(NODES, 1);

    (void)state;
    say(network, 3);
    assert_int_equal(network->nodes[3].times[0], 1); /* at once, its author */
    run(network, 1000);
    all_have_all_once(network);
    unsigned sends[NODES], bytes = 0;
    for (unsigned i = 0; i < NODES; i++) {
        sends[i] = network->nodes[i].sends;
        bytes += network->nodes[i].bytes_sent;
    }
    assert_int_equal(bytes, NODES - 1); /* a note's bytes travel to each node once */
    run(network, 2 * NOTE_LIFE_MS);
    for (unsigned i = 0; i < NODES; i++) /* and who has it hears of it no more */
        assert_int_equal(network->nodes[i].sends, sends[i]);
    network_destroy(network);
}

static void lost_repeated_and_late_messages_do_not_matter(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 300; seed++) {
        struct network *network = network_create(2 + seed % (NODES - 1), seed);

        network->loss = 10 * (seed % 5);
        network->copies = 30;
        network->delay_ms = seed % 7 * 100;
        for (unsigned i = 0; i < 12; i++) {
            say(network, dice(network, network->count));
            run(network, dice(network, 300));
        }
        run(network, NOTE_LIFE_MS + 2000);
        all_have_all_once(network);
        assert_int_equal(network->flight_count, 0);
        network_destroy(network);
    }
}

/* A chain, in which each node reaches its neighbours alone; then with one way missing between any
 * two nodes but the neighbours of a ring. All believe all others to be alive. */
static void nodes_that_do_not_reach_each_other_get_it_through_others(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 100; seed++) {
        struct network *network = network_create(NODES, seed);

        for (unsigned i = 0; i < NODES; i++)
            for (unsigned k = 0; k < NODES; k++)
                network->cut[i][k] = seed % 2 ? (i > k ? i - k : k - i) != 1
                                              : dice(network, 2) && (i > k ? i - k : k - i) != 1;
        network->loss = seed % 20;
        say(network, dice(network, NODES));
        run(network, NOTE_LIFE_MS);
        all_have_all_once(network);
        network_destroy(network);
    }
}

/* Two halves say something to themselves; soon enough they come together. */
static void halves_that_meet_in_time_hear_each_other(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 50; seed++) {
        struct network *network = network_create(NODES, seed);

        for (unsigned i = 0; i < NODES; i++)
            for (unsigned k = 0; k < NODES; k++)
                network->cut[i][k] = i % 2 != k % 2;
        say(network, 0);
        say(network, 1);
        run(network, 2000);
        for (unsigned i = 0; i < NODES; i++) {
            assert_int_equal(network->nodes[i].times[i % 2], 1);
            assert_int_equal(network->nodes[i].times[1 - i % 2], 0);
        }
        memset(network->cut, 0, sizeof network->cut);
        run(network, 3000);
        all_have_all_once(network);
        network_destroy(network);
    }
}

static void a_node_that_joins_later_than_a_note_lives_does_not_get_it(void **state)
{
    struct network *network = network_create(4, 1);

    (void)state;
    for (unsigned i = 0; i < 3; i++) /* the fourth is not there */
        notes_peer(network->nodes[i].core, &network->nodes[3].id, false);
    say(network, 0);
    run(network, 1000);
    assert_int_equal(network->nodes[3].delivered, 0);
    for (unsigned i = 0; i < 3; i++)
        notes_peer(network->nodes[i].core, &network->nodes[3].id, true);
    run(network, 1000);
    assert_int_equal(network->nodes[3].delivered, 1); /* still young */
    network->cut[0][3] = network->cut[1][3] = network->cut[2][3] = true;
    say(network, 0);
    run(network, NOTE_LIFE_MS);
    memset(network->cut, 0, sizeof network->cut);
    run(network, 2 * NOTE_LIFE_MS);
    assert_int_equal(network->nodes[3].delivered, 1);
    network_destroy(network);
}

/* ---- One node, and what others may do to it ---- */

static struct wire_message note_from(unsigned peer, unsigned number, unsigned author)
{
    return (struct wire_message){
        .type = WIRE_NOTE,
        .from = node_id(peer),
        .note = {.note = note_id(number), .data = text_of("x"), .author = node_id(author)}};
}

static struct network *one_node(void)
{
    struct network *network = network_create(1, 1);

    free(network->flights); /* what it sends is looked at, and goes nowhere */
    network->flights = NULL;
    for (unsigned i = 1; i < NODES; i++) {
        struct id128 id = node_id(i);

        notes_peer(network->nodes[0].core, &id, true);
    }
    return network;
}

static void hear(struct network *network, struct wire_message message)
{
    notes_message(network->nodes[0].core, &message, times_of(network));
}

static void what_comes_again_is_not_taken_again(void **state)
{
    struct network *network = one_node();
    struct node *node = &network->nodes[0];

    (void)state;
    hear(network, note_from(1, 5, 1));
    assert_int_equal(node->delivered, 1);
    assert_int_equal(node->sent.type, WIRE_NOTE_IDS);
    assert_int_equal(node->sent.note_ids.seen.len, 16);
    for (unsigned ms = 0; ms < NOTE_SEEN_MS; ms += 500) {
        hear(network, note_from(1 + ms / 500 % 5, 5, 1));
        network->now_ms += 500;
        notes_tick(node->core, network->now_ms);
    }
    assert_int_equal(node->delivered, 1);
    struct wire_message old = note_from(2, 6, 1);
    old.note.age_ms = NOTE_LIFE_MS;
    hear(network, old);
    assert_int_equal(node->delivered, 1);
    old.note.age_ms--;
    hear(network, old);
    assert_int_equal(node->delivered, 2);
    network_destroy(network);
}

static void strangers_and_unknown_types_are_not_listened_to(void **state)
{
    struct network *network = one_node();
    struct wire_message other = note_from(1, 1, 1);

    (void)state;
    hear(network, note_from(NODES, 1, 1));
    other.type = WIRE_PROBE;
    hear(network, other);
    assert_int_equal(network->nodes[0].delivered, 0);
    assert_int_equal(network->nodes[0].sends, 0);
    network_destroy(network);
}

static void one_author_cannot_crowd_out_the_others(void **state)
{
    struct network *network = one_node();
    struct node *node = &network->nodes[0];
    struct notes_stats stats;

    (void)state;
    for (unsigned i = 0; i < 1000; i++)
        hear(network, note_from(1, 1000 + i, 1));
    assert_int_equal(node->delivered, NOTE_AUTHOR_BURST);
    for (unsigned i = 0; i < 1000; i++) /* of nobody known: those share one rate */
        hear(network, note_from(1, 3000 + i, 100 + i % 100));
    assert_int_equal(node->delivered, 2 * NOTE_AUTHOR_BURST);
    hear(network, note_from(2, 5, 2));
    assert_int_equal(node->times[5], 1);
    network->now_ms += 1000;
    for (unsigned i = 0; i < 1000; i++)
        hear(network, note_from(1, 5000 + i, 1));
    assert_int_equal(node->delivered, 2 * NOTE_AUTHOR_BURST + 1 + NOTE_AUTHOR_RATE);
    notes_stats(node->core, &stats);
    assert_int_equal(stats.taken, node->delivered);
    assert_int_equal(stats.refused, 3000 - 2 * NOTE_AUTHOR_BURST - NOTE_AUTHOR_RATE);
    network_destroy(network);
}

static void all_together_cannot_flood_a_node(void **state)
{
    struct network *network = one_node();
    struct node *node = &network->nodes[0];
    const unsigned seconds = 3 * NOTE_SEEN_MS / 1000;

    (void)state;
    for (unsigned i = 0; i < 100; i++) { /* more known authors than the common rate allows for */
        struct id128 id = node_id(NODES + i);

        notes_peer(node->core, &id, true);
    }
    unsigned number = 0;
    for (unsigned s = 0; s < seconds; s++, network->now_ms += 1000)
        for (unsigned i = 0; i < 200; i++, number++)
            hear(network, note_from(1, 1000 + number, 1 + i % 100));
    /* The assertion inside, that no id is forgotten too early, has held all the time. */
    assert_in_range(node->delivered, NOTE_RATE * (seconds - 1), NOTE_BURST + NOTE_RATE * seconds);
    assert_int_equal(notes_count(node->core), LIMIT_NOTES_KEPT);
    network_destroy(network);
}

static void a_node_does_not_say_more_than_others_take(void **state)
{
    struct network *network = network_create(3, 1);
    unsigned refused = 0;

    (void)state;
    for (unsigned i = 0; i < SAID; i++) {
        struct id128 id = note_id(i);
        int rc = notes_say(network->nodes[0].core, &id, text_of("x"), times_of(network));

        assert_true(rc == 0 || rc == ERR_FULL);
        refused += rc != 0;
        network->said += rc == 0;
        if (i == NOTE_OWN_BURST)
            assert_int_equal(rc, ERR_FULL);
        if (i >= NOTE_OWN_BURST)
            run(network, 1000 / NOTE_OWN_RATE / 2);
    }
    assert_in_range(refused, (SAID - NOTE_OWN_BURST) / 2 - 3, (SAID - NOTE_OWN_BURST) / 2 + 3);
    run(network, NOTE_LIFE_MS);
    for (unsigned i = 1; i < 3; i++) {
        struct notes_stats stats;

        notes_stats(network->nodes[i].core, &stats);
        assert_int_equal(stats.refused, 0);
        assert_int_equal(network->nodes[i].delivered, network->said);
    }
    network_destroy(network);
}

static void what_is_kept_is_bounded_in_bytes_and_read_in_order(void **state)
{
    static char much[LIMIT_WIRE_NOTE_BYTES + 1];
    struct network *network = one_node();
    struct node *node = &network->nodes[0];
    struct text data = {much, LIMIT_WIRE_NOTE_BYTES};
    struct id128 id = note_id(0);

    (void)state;
    data.len++;
    assert_int_equal(notes_say(node->core, &id, data, times_of(network)), ERR_TOO_BIG);
    data.len--;
    for (unsigned i = 0; i < 200; i++, network->now_ms += 1000) {
        id = note_id(1000 + i);
        much[0] = (char)i;
        assert_int_equal(notes_say(node->core, &id, data, times_of(network)), 0);
    }
    assert_int_equal(notes_count(node->core), LIMIT_NOTES_KEPT_BYTES / LIMIT_WIRE_NOTE_BYTES);
    for (size_t i = 0; i < notes_count(node->core); i++) {
        struct note note = notes_at(node->core, i);
        unsigned number = 200 - (unsigned)notes_count(node->core) + (unsigned)i;

        id = note_id(1000 + number);
        assert_true(id_equal(&note.id, &id) && id_equal(&note.author, &node->id));
        assert_int_equal(note.data.len, LIMIT_WIRE_NOTE_BYTES);
        assert_int_equal(note.data.ptr[0], (char)number);
    }
    network_destroy(network);
}

static struct wire_message ids_from(unsigned peer, struct text offered, struct text wanted)
{
    return (struct wire_message){.type = WIRE_NOTE_IDS,
                                 .from = node_id(peer),
                                 .note_ids = {.offered = offered, .wanted = wanted}};
}

static void an_offer_is_taken_of_one_peer_at_a_time(void **state)
{
    struct network *network = one_node();
    struct node *node = &network->nodes[0];
    struct id128 id = note_id(7);
    struct text ids = {(const char *)id.bytes, 16};

    (void)state;
    hear(network, ids_from(1, ids, (struct text){NULL, 0}));
    assert_int_equal(node->sends, 1);
    assert_int_equal(node->sent.note_ids.wanted.len, 16);
    hear(network, ids_from(2, ids, (struct text){NULL, 0}));
    assert_int_equal(node->sends, 1); /* it is on its way */
    network->now_ms += NOTE_WANT_MS;
    hear(network, ids_from(2, ids, (struct text){NULL, 0}));
    assert_int_equal(node->sends, 2);
    hear(network, note_from(2, 7, 1));
    assert_int_equal(node->delivered, 1);
    hear(network, ids_from(3, ids, (struct text){NULL, 0}));
    assert_int_equal(node->sent.note_ids.seen.len, 16);
    assert_int_equal(node->sent.note_ids.wanted.len, 0);
    network_destroy(network);
}

/* All that a peer may lack goes into one message; what it has shown to have is not offered to it.
 */
static void offers_are_bundled_and_leave_out_what_a_peer_has(void **state)
{
    struct network *network = one_node();
    struct node *node = &network->nodes[0];
    struct id128 ids[3] = {note_id(1), note_id(2), note_id(99)}, other = node_id(2);

    (void)state;
    for (unsigned i = 2; i < NODES; i++) { /* but one peer */
        struct id128 id = node_id(i);

        notes_peer(node->core, &id, false);
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(notes_say(node->core, &ids[i], text_of("x"), times_of(network)), 0);
    node->sends = 0;
    network->now_ms += NOTE_ROUND_MS;
    notes_tick(node->core, network->now_ms);
    assert_int_equal(node->sends, 1);
    assert_int_equal(node->sent.note_ids.offered.len, 2 * 16);
    /* Ids that nobody knows are nobody's harm, in any list. */
    struct wire_message seen = ids_from(1, (struct text){NULL, 0}, (struct text){NULL, 0});
    seen.note_ids.seen = (struct text){(const char *)&ids[1], 2 * 16};
    seen.note_ids.wanted = (struct text){(const char *)&ids[2], 16};
    hear(network, seen);
    network->now_ms += NOTE_ROUND_MS;
    notes_tick(node->core, network->now_ms);
    assert_int_equal(node->sends, 2);
    assert_int_equal(node->sent.note_ids.offered.len, 16);
    hear(network, ids_from(1, (struct text){(const char *)&ids[0], 16}, (struct text){NULL, 0}));
    assert_int_equal(node->sends, 3); /* seen */
    network->now_ms += NOTE_ROUND_MS;
    notes_tick(node->core, network->now_ms);
    assert_int_equal(node->sends, 3);
    notes_peer(node->core, &other, true); /* one that has nothing yet */
    network->now_ms += NOTE_ROUND_MS;
    notes_tick(node->core, network->now_ms);
    assert_int_equal(node->sends, 4);
    assert_int_equal(node->sent.note_ids.offered.len, 2 * 16);
    network_destroy(network);
}

static void who_asks_again_and_again_is_not_served_for_ever(void **state)
{
    struct network *network = one_node();
    struct node *node = &network->nodes[0];
    struct id128 id = note_id(7);
    struct text ids = {(const char *)id.bytes, 16};

    (void)state;
    assert_int_equal(notes_say(node->core, &id, text_of("x"), times_of(network)), 0);
    assert_int_equal(node->bytes_sent, NODES - 1);
    for (unsigned i = 0; i < 1000; i++)
        hear(network, ids_from(1, (struct text){NULL, 0}, ids));
    assert_int_equal(node->bytes_sent, NODES - 1 + LIMIT_NOTE_SENDS - 1);
    network->now_ms += NOTE_LIFE_MS;
    hear(network, ids_from(2, (struct text){NULL, 0}, ids));
    assert_int_equal(node->bytes_sent, NODES - 1 + LIMIT_NOTE_SENDS - 1);
    network_destroy(network);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_note_reaches_every_node_once),
        cmocka_unit_test(lost_repeated_and_late_messages_do_not_matter),
        cmocka_unit_test(nodes_that_do_not_reach_each_other_get_it_through_others),
        cmocka_unit_test(halves_that_meet_in_time_hear_each_other),
        cmocka_unit_test(a_node_that_joins_later_than_a_note_lives_does_not_get_it),
        cmocka_unit_test(what_comes_again_is_not_taken_again),
        cmocka_unit_test(strangers_and_unknown_types_are_not_listened_to),
        cmocka_unit_test(one_author_cannot_crowd_out_the_others),
        cmocka_unit_test(all_together_cannot_flood_a_node),
        cmocka_unit_test(a_node_does_not_say_more_than_others_take),
        cmocka_unit_test(what_is_kept_is_bounded_in_bytes_and_read_in_order),
        cmocka_unit_test(an_offer_is_taken_of_one_peer_at_a_time),
        cmocka_unit_test(offers_are_bundled_and_leave_out_what_a_peer_has),
        cmocka_unit_test(who_asks_again_and_again_is_not_served_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
