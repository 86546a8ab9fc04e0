/* Goal: events that are in no row (of kinds that a newer build brings, names of objects) come with
 * a merge, whole and once, and are there for whoever merges next, whatever is killed, cleaned,
 * compacted or rebuilt on the way; runs stay chains for the events that come after them. */
#include "tests/unit/merge_fixture.h"

#include "base/bytes.h"
#include "journal/db_freeze.h"
#include "journal/pack.h"

#define KIND_NEW 77
#define T0       (UINT64_C(1763700000000) << 16)

/* A run of some node that is not here. */
struct run {
    struct id128 origin, node;
    uint64_t seq;
    uint8_t hash[SHA256_BYTES];
};

static struct run make_run(uint8_t number)
{
    return (struct run){.origin = {{1, number}}, .node = {{2, number}}};
}

static void add(struct run *run, struct buf *out, const void *raw, size_t len)
{
    assert_int_equal(append_event(out, ++run->seq, raw, len), 0);
    event_hash(raw, len, run->hash);
}

/* Its next event, of a kind that this build does not know, with TEXT_BYTES of text in it. */
static void say_new(struct run *run, struct buf *out, size_t text_bytes)
{
    static const char text[LIMIT_EVENT_BYTES];
    static const uint8_t none[16];
    struct buf event;

    buf_init(&event, LIMIT_EVENT_BYTES);
    pack_array(&event, 9);
    pack_uint(&event, 1);
    pack_bin(&event, run->origin.bytes, sizeof run->origin.bytes);
    pack_uint(&event, run->seq + 1);
    pack_bin(&event, run->node.bytes, sizeof run->node.bytes);
    pack_uint(&event, T0 + run->seq);
    pack_uint(&event, KIND_NEW);
    pack_bin(&event, none, sizeof none);
    pack_bin(&event, run->hash, SHA256_BYTES);
    pack_map(&event, 1);
    pack_str(&event, "new", 3);
    pack_str(&event, text, text_bytes);
    assert_int_equal(buf_check(&event), 0);
    add(run, out, event.data, event.len);
    buf_release(&event);
}

/* … of a kind that is in a row, about object N. */
static void say_delete(struct run *run, struct buf *out, unsigned n)
{
    struct event event = {.origin = run->origin,
                          .seq = run->seq + 1,
                          .node = run->node,
                          .stamp = T0 + run->seq,
                          .kind = EVENT_DELETE,
                          .id = make_id(n)};
    struct buf raw;

    memcpy(event.prev, run->hash, SHA256_BYTES);
    buf_init(&raw, 0);
    event_encode(&raw, &event);
    assert_int_equal(buf_check(&raw), 0);
    add(run, out, raw.data, raw.len);
    buf_release(&raw);
}

/* COUNT events of RUN to OUT, in turn of both. */
static void say_some(struct run *run, struct buf *out, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (i % 2)
            say_new(run, out, 10);
        else
            say_delete(run, out, (unsigned)run->seq);
    }
}

struct kept {
    unsigned count;
    struct hash128 sum; /* of all, whatever their order */
};

static int count_kept(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct kept *kept = arg;
    uint8_t hash[SHA256_BYTES];
    struct event event;

    assert_int_equal(event_decode(&event, raw, len), 0);
    assert_int_equal(event.seq, seq);
    if (event.kind != KIND_NEW)
        return 0;
    event_hash(raw, len, hash);
    kept->count++;
    kept->sum.low += get_u64(hash);
    kept->sum.high += get_u64(hash + 8);
    return 0;
}

static struct kept kept_by(struct node *node)
{
    struct db_reader *reader = reader_of(node);
    struct kept kept = {.count = 0};
    struct db_origin *origins;
    size_t count;

    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(db_each_event(reader, origins[i].no, 1, count_kept, &kept), 0);
    free(origins);
    db_reader_close(&reader);
    return kept;
}

static void expect_same_kept(struct node *a, struct node *b, unsigned count)
{
    struct kept x = kept_by(a), y = kept_by(b);

    assert_int_equal(x.count, count);
    assert_int_equal(y.count, count);
    assert_true(x.sum.low == y.sum.low && x.sum.high == y.sum.high);
}

/* What merging gives of TO's events that are in no row, and no rows. */
static void merge_events_of(struct node *to, struct node *from)
{
    struct db_reader *reader = reader_of(from);
    struct id128 at = first_id, next;
    struct buf data;

    for (buf_init(&data, 0); !id_equal(&at, &db_last_id); at = next) {
        assert_int_equal(db_merge_events(reader, &at, &data, &next), 0);
        assert_true(data.len <= LIMIT_WIRE_MERGE_BYTES);
        assert_int_equal(give(to, CHANGE_MERGE, data.data, data.len), 0);
        buf_reset(&data);
    }
    buf_release(&data);
    db_reader_close(&reader);
}

static uint64_t records_of(struct node *node)
{
    struct journal_stats stats;

    journal_stats(node->journal, &stats);
    return stats.records;
}

/* ---- Tests ---- */

/* They outlive their rows' events where they are, and go on from there to one node after the other.
 */
static void a_merge_brings_what_no_row_tells_of(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b, *c = trio->c;
    struct run run = make_run(1);
    struct buf events;

    buf_init(&events, 0);
    node_open(a, false);
    node_open(b, false);
    node_open(c, false);
    for (unsigned n = 300; n < 320; n++)
        assert_int_equal(put(a, n, 500), 0);
    say_some(&run, &events, 100);
    assert_int_equal(give(a, CHANGE_PEER, events.data, events.len), 0);
    compact(a);
    assert_int_equal(events_of(a), 50);
    merge_rows_of(b, a);
    adopt_from(b, a);
    expect_same_kept(a, b, 50);
    assert_int_equal(events_of(b), 50);
    expect_equal(a, b);
    expect_sound(b, NULL);
    killed(b);
    rebuild(b);
    expect_same_kept(a, b, 50);
    /* What comes after them follows. */
    buf_reset(&events);
    say_some(&run, &events, 4);
    assert_int_equal(give(b, CHANGE_PEER, events.data, events.len), 0);
    assert_int_equal(give(a, CHANGE_PEER, events.data, events.len), 0);
    expect_same_kept(a, b, 52);
    /* Segments with them are cleaned, snapshots cover all but them. */
    for (unsigned n = 1; n < 20; n++)
        assert_int_equal(put(b, 7000 + n, 100000), 0);
    for (unsigned n = 1; n < 20; n++)
        assert_int_equal(delete (b, 7000 + n), 0);
    compact(b);
    assert_int_equal(put(b, 8000, 10), 0);
    compact(b);
    settle(b);
    struct journal_stats stats;
    journal_stats(b->journal, &stats);
    assert_true(stats.cleaned_segments > 3);
    assert_int_equal(events_of(b), 52);
    expect_same_kept(a, b, 52);
    rebuild(b);
    expect_same_kept(a, b, 52);
    merge_rows_of(c, b);
    adopt_from(c, b);
    expect_same_kept(b, c, 52);
    expect_equal(b, c);
    expect_sound(c, NULL);
    killed(c);
    expect_sound(c, NULL);
    buf_release(&events);
    node_close(a, true);
    node_close(b, true);
    node_close(c, true);
}

/* A merge that is never finished: what it brought lies above what is known of the run, until that
 * comes as events from elsewhere. */
static void what_came_alone_waits_for_its_neighbours(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;
    struct run run = make_run(1), other = make_run(2);
    struct buf events, later;

    buf_init(&events, 0);
    buf_init(&later, 0);
    node_open(a, false);
    node_open(b, false);
    say_some(&run, &events, 10);
    size_t half = events.len;
    assert_int_equal(give(b, CHANGE_PEER, events.data, half), 0);
    say_some(&run, &events, 30);
    say_some(&other, &later, 7);
    assert_int_equal(give(a, CHANGE_PEER, events.data, events.len), 0);
    assert_int_equal(give(a, CHANGE_PEER, later.data, later.len), 0);
    compact(a);
    merge_events_of(b, a);
    expect_same_kept(a, b, 23);
    expect_sound(b, NULL);
    /* Nothing of it is known as a run: neither is it given, nor does it end one. */
    struct db_reader *reader = reader_of(b);
    struct buf given;
    uint32_t count;
    buf_init(&given, 0);
    assert_int_equal(db_reader_events(reader, &run.origin, 11, MIB, &given, &count), ERR_NOT_FOUND);
    buf_release(&given);
    db_reader_close(&reader);
    killed(b);
    expect_same_kept(a, b, 23);
    /* Once more the same changes nothing, and is not even written. */
    uint64_t records = records_of(b);
    merge_events_of(b, a);
    assert_int_equal(records_of(b), records);
    /* Both while they wait for the applier, and when they are in the database. */
    assert_int_equal(give(b, CHANGE_PEER, later.data, later.len), 0);
    merge_events_of(b, a);
    assert_int_equal(give(b, CHANGE_PEER, (char *)events.data + half, events.len - half), 0);
    expect_same_kept(a, b, 23);
    expect_sound(b, NULL);
    expect_equal(a, b);
    assert_int_equal(events_of(b), 47);
    buf_reset(&events);
    say_some(&run, &events, 2);
    assert_int_equal(give(b, CHANGE_PEER, events.data, events.len), 0);
    expect_sound(b, NULL);
    rebuild(b);
    assert_int_equal(events_of(b), 49);
    buf_release(&events);
    buf_release(&later);
    node_close(a, true);
    node_close(b, true);
}

/* A page at a time, with the largest that there can be. */
static void many_and_large_ones_come_in_pages(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;
    struct run run = make_run(1);
    struct buf events;

    node_open(a, false);
    node_open(b, false);
    for (int i = 0; i < 40; i++) {
        buf_init(&events, 0);
        say_new(&run, &events, i % 10 ? 20000 : LIMIT_EVENT_BYTES - 200);
        assert_int_equal(give(a, CHANGE_PEER, events.data, events.len), 0);
        buf_release(&events);
    }
    merge_events_of(b, a);
    expect_same_kept(a, b, 40);
    expect_sound(b, NULL);
    killed(b);
    expect_same_kept(a, b, 40);
    node_close(a, true);
    node_close(b, true);
}

/* Whatever a peer sends: kinds that come as rows, this process's own run, another event in the
 * place of the next one, runs that are frozen. */
static void what_is_not_to_come_so_is_not_taken(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a;
    struct run run = make_run(1), fork = run, own = run;
    struct journal_stats stats;
    struct buf events;

    node_open(a, false);
    buf_init(&events, 0);
    say_delete(&run, &events, 1);
    assert_int_equal(give(a, CHANGE_MERGE, events.data, events.len), ERR_INVALID);
    expect_sound(a, NULL);
    assert_int_equal(events_of(a), 0);
    assert_int_equal(give(a, CHANGE_PEER, events.data, events.len), 0);
    buf_reset(&events);
    say_delete(&fork, &events, 2);
    buf_reset(&events);
    say_new(&fork, &events, 1); /* as number 2, behind another number 1 */
    assert_int_equal(give(a, CHANGE_MERGE, events.data, events.len), 0);
    assert_int_equal(kept_by(a).count, 0);
    /* Of the own run. */
    assert_int_equal(put(a, 5, 10), 0);
    journal_stats(a->journal, &stats);
    own.origin = stats.origin;
    own.node = journal_node(a->journal);
    own.seq = 7;
    buf_reset(&events);
    say_new(&own, &events, 1);
    assert_int_equal(give(a, CHANGE_MERGE, events.data, events.len), 0);
    assert_int_equal(kept_by(a).count, 0);
    /* A fork freezes the run; then nothing of it comes. */
    fork.seq = 1;
    buf_reset(&events);
    say_new(&fork, &events, 2);
    assert_int_equal(give(a, CHANGE_PEER, events.data, events.len), ERR_CONFLICT);
    fork.seq = 5;
    buf_reset(&events);
    say_new(&fork, &events, 1);
    assert_int_equal(give(a, CHANGE_MERGE, events.data, events.len), 0);
    assert_int_equal(kept_by(a).count, 0);
    expect_sound(a, NULL);
    buf_release(&events);
    node_close(a, true);
}

/* The freeze itself is such an event: whoever merges hears of it. */
static void a_merge_tells_of_frozen_runs(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;
    struct run run = make_run(1), fork;
    struct db_frozen *frozen;
    struct buf events;
    size_t count;

    node_open(a, false);
    node_open(b, false);
    buf_init(&events, 0);
    assert_int_equal(put(a, 9, 10), 0); /* the freeze is not the first event of its run */
    say_some(&run, &events, 4);
    fork = run;
    assert_int_equal(give(a, CHANGE_PEER, events.data, events.len), 0);
    buf_reset(&events);
    say_new(&run, &events, 1);
    assert_int_equal(give(a, CHANGE_PEER, events.data, events.len), 0);
    buf_reset(&events);
    say_new(&fork, &events, 2);
    assert_int_equal(give(a, CHANGE_PEER, events.data, events.len), ERR_CONFLICT);
    compact(a);
    merge_rows_of(b, a);
    struct db_reader *reader = reader_of(b);
    assert_int_equal(db_reader_frozen(reader, &frozen, &count), 0);
    assert_int_equal(count, 1);
    assert_true(id_equal(&frozen[0].origin, &run.origin));
    free(frozen);
    db_reader_close(&reader);
    assert_int_equal(give(b, CHANGE_PEER, events.data, events.len), ERR_CONFLICT);
    expect_sound(b, NULL);
    buf_release(&events);
    node_close(a, true);
    node_close(b, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_merge_brings_what_no_row_tells_of, setup_trio,
                                        teardown_trio),
        cmocka_unit_test_setup_teardown(what_came_alone_waits_for_its_neighbours, setup_trio,
                                        teardown_trio),
        cmocka_unit_test_setup_teardown(many_and_large_ones_come_in_pages, setup_trio,
                                        teardown_trio),
        cmocka_unit_test_setup_teardown(what_is_not_to_come_so_is_not_taken, setup_trio,
                                        teardown_trio),
        cmocka_unit_test_setup_teardown(a_merge_tells_of_frozen_runs, setup_trio, teardown_trio),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
