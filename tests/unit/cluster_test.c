/* Goal: nodes that know one address become one cluster over real sockets: each hears of the others,
 * has all events, and gives bodies to whoever asks; one that is stopped, killed, or of another tag
 * or secret disturbs nobody. */
#define NODES       5
#define PATIENCE_MS 15000
#include "tests/unit/cluster_fixture.h"

#include "cluster/link.h"
#include "journal/db_peers.h"

/* Start node I; SEED: the number of the one whose address it is given, or -1. */
static void up_as(int i, int seed, const char *tag)
{
    open_node(i, seed, (struct cluster_config){.tag = tag});
    run_node(i);
}

static void up(int i, int seed)
{
    up_as(i, seed, "test");
}

static bool all_say_equal(int i)
{
    struct cluster_member members[16];
    size_t count = cluster_members(nodes[i].cluster, members, 16);
    bool all = true;

    for (size_t k = 0; k < count; k++)
        all &= members[k].digest_equal;
    return all;
}

/* Object N of SIZE bytes and LEVEL on node I, whose threads run. */
static void put_level_on(int i, unsigned n, size_t size, uint8_t level)
{
    put_as(i, n, size, level, size > LIMIT_INLINE_BODY_BYTES);
}

static void put_on(int i, unsigned n, size_t size)
{
    put_level_on(i, n, size, 0);
}

/* ---- Fetching ---- */

struct fetching {
    struct cluster_reader reader;
    struct cluster *cluster;
    uint8_t *bytes;
    uint64_t size, got;
    int rc;
    sem_t sem;
};

static void got_data(struct cluster_reader *reader, uint64_t offset, const void *bytes, size_t len)
{
    struct fetching *f = (struct fetching *)reader;

    assert_true(offset == f->got && f->got + len <= f->size);
    memcpy(f->bytes + offset, bytes, len);
    f->got += len;
    cluster_fetch_consumed(f->cluster, reader, len);
}

static void got_all(struct cluster_reader *reader, int rc)
{
    struct fetching *f = (struct fetching *)reader;

    f->rc = rc;
    sem_post(&f->sem);
}

static int fetch_object(int i, unsigned n, size_t size)
{
    struct fetching f = {.reader = {.data = got_data, .done = got_all},
                         .cluster = nodes[i].cluster,
                         .bytes = malloc(size),
                         .size = size};
    struct id128 holders[4];
    struct db_reader *reader;
    struct object *object;
    size_t count;

    assert_int_equal(find(nodes[i].node, n, &object), 0);
    assert_int_equal(journal_reader_open(nodes[i].node->journal, &reader), 0);
    assert_int_equal(db_reader_holders(reader, object, holders, 4, &count), 0);
    db_reader_close(&reader);
    struct cluster_fetch fetch = {.id = object->id,
                                  .size = object->size,
                                  .length = object->size,
                                  .holders = holders,
                                  .holder_count = count};
    memcpy(fetch.sha256, object->sha256, SHA256_BYTES);
    object_destroy(&object);
    sem_init(&f.sem, 0, 0);
    int rc = cluster_fetch_start(f.cluster, &fetch, &f.reader);
    if (rc == 0) {
        sem_wait(&f.sem);
        rc = f.rc;
    }
    if (rc == 0) {
        uint8_t *want = malloc(size);

        make_body(want, size, n);
        assert_true(f.got == size);
        assert_memory_equal(f.bytes, want, size);
        free(want);
    }
    sem_destroy(&f.sem);
    free(f.bytes);
    return rc;
}

/* ---- Tests ---- */

static void three_nodes_become_one_cluster(void **state)
{
    (void)state;
    up(0, -1);
    assert_true(cluster_is_alone(nodes[0].cluster));
    put_on(0, 1, 100); /* before anybody is there */
    up(1, 0);
    put_on(1, 2, 200);
    up(2, 1); /* any member's address does */
    put_on(2, 3, 300);
    for (int i = 0; i < 3; i++) {
        eventually(in_state(i, PROBE_ALIVE) == 3);
        for (unsigned n = 1; n <= 3; n++)
            eventually(knows(i, n));
    }
    eventually(equal(0, 1) && equal(1, 2));
    for (int i = 0; i < 3; i++)
        eventually(all_say_equal(i));

    /* What is written from now on is pushed; bodies come from whoever has them. */
    for (unsigned n = 10; n < 40; n++)
        put_on((int)(n % 3), n, 1000 * (n - 9));
    for (int i = 0; i < 3; i++)
        for (unsigned n = 10; n < 40; n++) {
            eventually(knows(i, n));
            if ((int)(n % 3) != i)
                assert_int_equal(fetch_object(i, n, 1000 * (n - 9)), 0);
        }
    eventually(equal(0, 1) && equal(1, 2));
    for (int i = 0; i < 3; i++)
        down(i);
}

static void whoever_was_away_catches_up(void **state)
{
    (void)state;
    up(0, -1);
    up(1, 0);
    up(2, 0);
    for (int i = 0; i < 3; i++)
        eventually(in_state(i, PROBE_ALIVE) == 3);
    down(1);
    eventually(in_state(0, PROBE_LEFT) == 1 && in_state(2, PROBE_LEFT) == 1);
    for (unsigned n = 0; n < 500; n++)
        put_on(n % 2 ? 0 : 2, n, 10);
    eventually(equal(0, 2));
    up(1, -1); /* it knows the others from before */
    eventually(equal(1, 0) && equal(1, 2));
    eventually(in_state(0, PROBE_ALIVE) == 3);
    /* One that comes back empty gets everything, too. */
    down(2);
    assert_int_equal(teardown((void **)&nodes[2].node), 0);
    assert_int_equal(setup((void **)&nodes[2].node), 0);
    nodes[2].address[0] = '\0';
    up(2, 0);
    eventually(equal(2, 0) && equal(1, 0));
    for (int i = 0; i < 3; i++)
        down(i);
}

static void a_node_of_another_tag_stays_outside(void **state)
{
    struct cluster_stats stats;

    (void)state;
    up(0, -1);
    up(1, 0);
    eventually(in_state(0, PROBE_ALIVE) == 2);
    up_as(2, 0, "other");
    put_on(2, 7, 10);
    eventually((cluster_stats(nodes[0].cluster, &stats), stats.other_tag > 0));
    eventually((cluster_stats(nodes[2].cluster, &stats), stats.other_tag > 0));
    put_on(0, 8, 10);
    eventually(knows(1, 8));
    assert_false(knows(0, 7));
    assert_false(knows(2, 8));
    assert_true(cluster_is_alone(nodes[2].cluster));
    for (int i = 0; i < 3; i++)
        down(i);
}

/* ---- Packs ---- */

struct stranger {
    struct link *link;
    unsigned answered; /* nonces, a bit each */
};

static void stranger_hears(void *arg, const struct link_from *from, const uint8_t *data, size_t len)
{
    struct stranger *stranger = arg;
    struct wire_message message;

    (void)from;
    assert_int_equal(wire_decode(&message, data, len), 0);
    if (message.type == WIRE_PROBE_ACK && message.probe.nonce < 8)
        stranger->answered |= 1u << message.probe.nonce;
}

static struct buf probe_of(uint64_t nonce)
{
    struct buf out = {0};
    const struct wire_message probe = {
        .type = WIRE_PROBE, .tag = {"test", 4}, .from = {{9}}, .probe.nonce = nonce};

    wire_encode(&out, &probe);
    assert_int_equal(buf_check(&out), 0);
    return out;
}

static struct buf pack_of(const struct buf *parts, size_t count)
{
    struct buf data = {0}, out = {0};

    for (size_t i = 0; i < count; i++)
        wire_event_add(&data, parts[i].data, parts[i].len);
    const struct wire_message pack = {.type = WIRE_PACK,
                                      .tag = {"test", 4},
                                      .from = {{9}},
                                      .pack.data = {data.data, (uint32_t)data.len}};
    wire_encode(&out, &pack);
    assert_int_equal(buf_check(&out), 0);
    buf_release(&data);
    return out;
}

/* Each message of a pack is heard; a pack inside a pack, and what is no message, is not, and
 * costs the others nothing. */
static void a_pack_is_taken_apart(void **state)
{
    struct stranger stranger = {.answered = 0};
    struct link_config config = {.env = env_system(),
                                 .bind_address = "127.0.0.1:0",
                                 .receive = stranger_hears,
                                 .arg = &stranger};
    struct buf probes[2] = {probe_of(1), probe_of(3)}, garbage = {0};
    struct buf inside = pack_of(probes, 2);
    struct cluster_stats stats;
    char message[128];
    link_peer peer;

    (void)state;
    buf_text(&garbage, "garbage");
    struct buf parts[] = {probe_of(1), inside, garbage, probe_of(2)};
    struct buf pack = pack_of(parts, 4);
    up(0, -1);
    assert_int_equal(link_open(&stranger.link, &config, message, sizeof message), 0);
    assert_int_equal(link_peer_open(stranger.link, nodes[0].address, &peer), 0);
    uint64_t until_ms = now_ms() + PATIENCE_MS;
    while (link_peer_state(stranger.link, peer) != LINK_UP && now_ms() < until_ms)
        assert_true(link_poll(stranger.link, 10) >= 0);
    assert_int_equal(link_send(stranger.link, peer, pack.data, pack.len), 0);
    while (stranger.answered != 6 && now_ms() < until_ms)
        assert_true(link_poll(stranger.link, 10) >= 0);
    assert_int_equal(stranger.answered, 6); /* 1 and 2; 3 was in the inner one */
    eventually((cluster_stats(nodes[0].cluster, &stats), stats.malformed == 2));
    link_close(&stranger.link);
    down(0);
    for (int i = 0; i < 2; i++)
        buf_release(&probes[i]);
    for (int i = 0; i < 4; i++)
        buf_release(&parts[i]);
    buf_release(&pack);
}

static void a_body_that_nobody_has_is_reported(void **state)
{
    struct object *object;

    (void)state;
    up(0, -1);
    up(1, 0);
    put_on(0, 5, 70000);
    eventually(knows(1, 5));
    eventually(in_state(1, PROBE_ALIVE) == 2);
    assert_int_equal(fetch_object(1, 5, 70000), 0);
    assert_int_equal(find(nodes[0].node, 5, &object), 0);
    struct waiting drop = {.change = {.request = {.kind = CHANGE_DROP,
                                                  .id = make_id(5),
                                                  .damaged = true,
                                                  .checked = object->place},
                                      .done = wake}};
    object_destroy(&object);
    sem_init(&drop.sem, 0, 0);
    assert_int_equal(journal_submit(nodes[0].node->journal, &drop.change), 0);
    sem_wait(&drop.sem);
    object_destroy(&drop.change.object);
    assert_int_equal(fetch_object(1, 5, 70000), ERR_NOT_FOUND);
    /* The node that has it is gone. */
    put_on(0, 6, 70000);
    eventually(knows(1, 6));
    down(0);
    assert_int_not_equal(fetch_object(1, 6, 70000), 0);
    down(1);
}

static const size_t full_sizes[] = {
    0, 1, 1000, 64 * KIB, 256 * KIB, 256 * KIB + 1, 600 * KIB, 3 * MIB + 7,
};
#define FULL_SIZES (sizeof full_sizes / sizeof *full_sizes)

/* Node I has events of N objects, and bodies of all that are for every node. */
static bool is_full(int i, uint64_t n)
{
    struct cluster_stats stats;
    struct journal_stats journal;

    cluster_stats(nodes[i].cluster, &stats);
    journal_stats(nodes[i].node->journal, &journal);
    return journal.objects == n && journal.wanted == 0 && stats.wanted == 0;
}

/* Bodies of level 2 are on every node: those that hear of them, one that joins later, one that was
 * away, one that finds its own copy damaged. */
static void what_is_for_every_node_gets_to_every_node(void **state)
{
    struct cluster_stats stats;

    (void)state;
    up(0, -1);
    up(1, 0);
    eventually(in_state(0, PROBE_ALIVE) == 2);
    for (unsigned i = 0; i < FULL_SIZES; i++)
        put_level_on((int)(i % 2), i, full_sizes[i], 2);
    put_on(0, 100, 500); /* this one stays */
    eventually(is_full(0, FULL_SIZES + 1) && is_full(1, FULL_SIZES + 1));
    /* Counted when the replicator hears that the last one is journaled. */
    eventually((cluster_stats(nodes[0].cluster, &stats), stats.replicated == FULL_SIZES / 2));

    up(2, 1);
    eventually(is_full(2, FULL_SIZES + 1));
    down(1);
    for (unsigned n = 200; n < 500; n++)
        put_level_on(0, n, 300 + n, 2);
    eventually(is_full(2, FULL_SIZES + 301));
    up(1, 0);
    eventually(is_full(1, FULL_SIZES + 301));

    struct object *object;
    struct waiting drop = {.change = {.request = {.kind = CHANGE_DROP, .damaged = true}}};
    assert_int_equal(find(nodes[0].node, 250, &object), 0);
    drop.change.request.id = object->id;
    drop.change.request.checked = object->place;
    drop.change.done = wake;
    object_destroy(&object);
    sem_init(&drop.sem, 0, 0);
    assert_int_equal(journal_submit(nodes[0].node->journal, &drop.change), 0);
    sem_wait(&drop.sem);
    sem_destroy(&drop.sem);
    object_destroy(&drop.change.object);
    eventually(is_full(0, FULL_SIZES + 301));

    for (int i = 0; i < 3; i++) {
        for (unsigned n = 0; n < FULL_SIZES; n++)
            expect_body(nodes[i].node, n, full_sizes[n]);
        for (unsigned n = 200; n < 500; n++)
            expect_body(nodes[i].node, n, 300 + n);
        if (i == 0)
            continue;
        assert_int_equal(find(nodes[i].node, 100, &object), 0);
        assert_true(place_is_none(&object->place));
        object_destroy(&object);
    }
    for (int i = 0; i < 3; i++)
        down(i);
}

/* A row that node I has, and no event ever said. */
static void plant_row(int i, unsigned n)
{
    static const struct id128 none;
    struct object like = {
        .id = make_id(n), .flags = OBJECT_DELETED, .deleted_at = (hlc_time)1000 + n};
    struct object *row = object_create(&like, (struct text){NULL, 0}, (struct text){NULL, 0},
                                       (struct text){NULL, 0});
    struct waiting waiting = {.change = {.request.kind = CHANGE_MERGE, .done = wake}};
    struct snapshot_writer writer;
    uint32_t len = 0;
    struct buf chunk = {0};

    snapshot_writer_init(&writer);
    snapshot_begin_chunk(&writer, SNAPSHOT_ROWS);
    assert_int_equal(snapshot_add_row(&writer, row), 0);
    buf_add(&chunk, &len, sizeof len);
    snapshot_end_chunk(&writer, &none, 0, &chunk);
    len = (uint32_t)(chunk.len - sizeof len);
    memcpy(chunk.data, &len, sizeof len);
    waiting.change.events = (const uint8_t *)chunk.data;
    waiting.change.events_bytes = chunk.len;
    sem_init(&waiting.sem, 0, 0);
    assert_int_equal(journal_submit(nodes[i].node->journal, &waiting.change), 0);
    sem_wait(&waiting.sem);
    assert_int_equal(waiting.change.rc, 0);
    sem_destroy(&waiting.sem);
    object_destroy(&waiting.change.object);
    snapshot_writer_release(&writer);
    object_destroy(&row);
    buf_release(&chunk);
}

/* Two nodes know the same events and have different rows, each of them some: what the probes show
 * is repaired, on both. */
static void rows_that_differ_are_repaired(void **state)
{
    struct db_reader *reader;
    char report[256];

    (void)state;
    up(0, -1);
    up(1, 0);
    for (unsigned n = 0; n < 200; n++)
        put_on((int)(n % 2), n, 20);
    eventually(equal(0, 1) && knows(0, 199) && knows(1, 198));
    eventually(all_say_equal(0) && all_say_equal(1));
    for (unsigned n = 0; n < 5; n++) {
        plant_row(0, n * 31);
        plant_row(1, 1000 + n);
    }
    assert_false(equal(0, 1));
    eventually(equal(0, 1));
    eventually(all_say_equal(0) && all_say_equal(1));
    for (int i = 0; i < 2; i++) {
        for (unsigned n = 0; n < 5; n++) {
            expect_deleted(nodes[i].node, n * 31);
            expect_deleted(nodes[i].node, 1000 + n);
        }
        assert_int_equal(journal_reader_open(nodes[i].node->journal, &reader), 0);
        if (db_check(reader, report, sizeof report) != 0)
            fail_msg("%s", report);
        db_reader_close(&reader);
        down(i);
    }
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup_nodes, teardown_nodes)
    const struct CMUnitTest tests[] = {
        test(three_nodes_become_one_cluster),      test(whoever_was_away_catches_up),
        test(a_node_of_another_tag_stays_outside), test(a_pack_is_taken_apart),
        test(a_body_that_nobody_has_is_reported),  test(what_is_for_every_node_gets_to_every_node),
        test(rows_that_differ_are_repaired),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
