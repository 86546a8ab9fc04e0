/*
 * What the tests of merges share: nodes without doors, and what goes between them when one takes
 * another's rows (docs/PROTOCOL.md, Merge) or events. Header-only.
 */
#ifndef TESTS_MERGE_FIXTURE_H
#define TESTS_MERGE_FIXTURE_H

#include "tests/unit/journal_fixture.h"

#include "journal/db_merge.h"
#include "journal/db_peers.h"

static const struct id128 first_id;

struct trio {
    struct node *a, *b, *c;
};

/* No power is lost here. */
static inline int setup_trio(void **state)
{
    struct trio *trio = calloc(1, sizeof *trio);
    struct node **nodes[] = {&trio->a, &trio->b, &trio->c};
    int rc = 0;

    *state = trio;
    for (int i = 0; i < 3; i++) {
        rc |= setup((void **)nodes[i]);
        (*nodes[i])->fault.skip_sync = true;
    }
    return rc;
}

static inline int teardown_trio(void **state)
{
    struct trio *trio = *state;
    int rc =
        teardown((void **)&trio->a) | teardown((void **)&trio->b) | teardown((void **)&trio->c);

    free(trio);
    return rc;
}

/* ---- Between nodes ---- */

static inline int give(struct node *node, enum change_kind kind, const void *data, size_t len)
{
    struct change change = {
        .request.kind = kind, .events = data, .events_bytes = len, .done = done};
    unsigned taken = 0;

    assert_int_equal(journal_submit(node->journal, &change), 0);
    for (int i = 0; taken == 0 && i < 100; i++)
        taken = journal_commit_step(node->journal);
    assert_int_equal(taken, 1);
    return change.rc;
}

static inline void apply(struct node *node)
{
    while (journal_apply_step(node->journal))
        ;
}

static inline struct db_reader *reader_of(struct node *node)
{
    struct db_reader *reader;

    apply(node);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    return reader;
}

static inline void merge_rows_of(struct node *to, struct node *from)
{
    struct db_reader *reader = reader_of(from);
    struct id128 at = first_id, next;
    struct buf data;

    buf_init(&data, 0);
    assert_int_equal(db_merge_members(reader, &first_id, &data, &next), 0);
    assert_true(id_equal(&next, &db_last_id));
    assert_int_equal(db_merge_events(reader, &first_id, &data, &next), 0);
    assert_true(id_equal(&next, &db_last_id));
    while (!id_equal(&at, &db_last_id)) {
        assert_int_equal(db_merge_rows(reader, &at, &db_last_id, &data, &next), 0);
        assert_true(id_compare(&next, &at) > 0);
        assert_int_equal(give(to, CHANGE_MERGE, data.data, data.len), 0);
        buf_reset(&data);
        at = next;
    }
    buf_release(&data);
    db_reader_close(&reader);
}

/* A vector of FROM as a chunk with its length. */
static inline void vector_of(struct node *from, struct buf *out)
{
    struct db_reader *reader = reader_of(from);
    struct snapshot_writer writer;
    struct db_origin *origins;
    size_t count;
    uint32_t len = 0;

    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    snapshot_writer_init(&writer);
    snapshot_begin_chunk(&writer, SNAPSHOT_ORIGINS);
    for (size_t i = 0; i < count; i++) {
        struct snapshot_origin run = {.origin = origins[i].origin,
                                      .node = origins[i].node,
                                      .seq = origins[i].seq,
                                      .ended = origins[i].ended};

        memcpy(run.hash, origins[i].hash, SHA256_BYTES);
        if (run.seq)
            assert_int_equal(snapshot_add_origin(&writer, &run), 0);
    }
    buf_init(out, 0);
    buf_add(out, &len, sizeof len);
    snapshot_end_chunk(&writer, &first_id, 0, out);
    len = (uint32_t)(out->len - sizeof len);
    memcpy(out->data, &len, sizeof len);
    snapshot_writer_release(&writer);
    free(origins);
    db_reader_close(&reader);
}

static inline void adopt_from(struct node *to, struct node *from)
{
    struct buf vector;

    vector_of(from, &vector);
    assert_int_equal(give(to, CHANGE_MERGE, vector.data, vector.len), 0);
    buf_release(&vector);
}

static inline int append_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    uint32_t length = (uint32_t)len;

    (void)seq;
    buf_add(arg, &length, sizeof length);
    buf_add(arg, raw, len);
    return 0;
}

/* All events that FROM has of runs, to TO. */
static inline int sync_to(struct node *to, struct node *from)
{
    struct db_reader *reader = reader_of(from);
    struct db_origin *origins;
    struct buf events;
    size_t count;

    buf_init(&events, 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(db_each_event(reader, origins[i].no, 1, append_event, &events), 0);
    int rc = give(to, CHANGE_PEER, events.data, events.len);

    free(origins);
    buf_release(&events);
    db_reader_close(&reader);
    return rc;
}

static inline void compact(struct node *node)
{
    struct journal_compact_result result;

    assert_int_equal(journal_compact(node->journal, &result), 0);
}

static inline uint64_t events_of(struct node *node)
{
    struct journal_stats stats;

    journal_stats(node->journal, &stats);
    return stats.events;
}

static inline void expect_equal(struct node *a, struct node *b)
{
    struct hash128 x = digest_of(a), y = digest_of(b);

    assert_true(x.low == y.low && x.high == y.high);
}

static inline void rebuild(struct node *node)
{
    struct hash128 digest = digest_of(node);
    uint64_t events, objects;

    node_close(node, true);
    assert_int_equal(store_dirs_open(&node->dirs, &node->env, node->state, node->files, false,
                                     node->message, sizeof node->message),
                     0);
    if (journal_rebuild(&node->dirs, &events, &objects, node->message, sizeof node->message) != 0)
        fail_msg("%s", node->message);
    store_dirs_close(&node->dirs);
    node_open(node, false);
    expect_sound(node, &digest);
}

static inline void killed(struct node *node)
{
    struct hash128 digest = digest_of(node);

    node_close(node, false);
    node_open(node, false);
    expect_sound(node, &digest);
}

#endif
