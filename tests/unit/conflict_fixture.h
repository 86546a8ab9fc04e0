/*
 * What the tests of conflicts share: three nodes without doors that put different bytes under one
 * id, and hear of each other when a test says so. Header-only.
 */
#ifndef TESTS_CONFLICT_FIXTURE_H
#define TESTS_CONFLICT_FIXTURE_H

#include "journal/conflict.h"
#include "journal/db_conflict.h"
#include "journal/db_peers.h"
#include "tests/unit/journal_fixture.h"

#define NODES 3
#define SMALL 3000
#define LARGE (LIMIT_INLINE_BODY_BYTES + 5000)
#define THE   7 /* the id that several nodes put */

struct nodes {
    struct node *at[NODES];
    struct node *a, *b, *c; /* C in tests of three alone */
    int count;
};

static inline int setup_some(void **state, int count)
{
    struct nodes *nodes = calloc(1, sizeof *nodes);
    int rc = 0;

    *state = nodes;
    nodes->count = count;
    for (int i = 0; rc == 0 && i < count; i++) {
        rc = setup((void **)&nodes->at[i]);
        nodes->at[i]->fault.skip_sync = true; /* a kill takes no power */
        if (rc == 0)
            node_open(nodes->at[i], false);
    }
    nodes->a = nodes->at[0];
    nodes->b = nodes->at[1];
    nodes->c = nodes->at[2];
    return rc;
}

static inline int setup_two(void **state)
{
    return setup_some(state, 2);
}

static inline int setup_three(void **state)
{
    return setup_some(state, NODES);
}

static inline int teardown_nodes(void **state)
{
    struct nodes *nodes = *state;
    int rc = 0;

    for (int i = 0; i < nodes->count; i++) {
        if (nodes->at[i]->journal)
            node_close(nodes->at[i], true);
        rc |= teardown((void **)&nodes->at[i]);
    }
    free(nodes);
    return rc;
}

/* What NODE stamps from now on is later than what was stamped before with a lower RANK. */
static inline void rank(struct node *node, unsigned rank)
{
    node->journal->committer.clock.last = ((hlc_time)env_wall_ms(&node->env) + 1000 * rank) << 16;
}

static inline struct id128 the_id(void)
{
    return make_id(THE);
}

/* Give CHANGE a body, in memory (*BODY, to be freed) or in a file. */
static inline void give_body(struct node *node, struct change *change, unsigned seed, size_t size,
                             uint8_t **body, struct large_writer **writer)
{
    uint64_t written;

    *body = malloc(size + 1);
    *writer = NULL;
    make_body(*body, size, seed);
    prepare_put(change, THE, *body, size > LIMIT_INLINE_BODY_BYTES ? 0 : size);
    if (size <= LIMIT_INLINE_BODY_BYTES)
        return;
    change->body = NULL;
    change->request.size = size;
    sha256(*body, size, change->request.sha256);
    assert_int_equal(large_create(writer, journal_large(node->journal)), 0);
    assert_int_equal(large_write(*writer, *body, size), 0);
    assert_int_equal(large_finish(*writer, &change->file, &written, &change->trailer), 0);
}

/* Put bytes that SEED makes under the one id. */
static inline int put_bytes(struct node *node, unsigned seed, size_t size, uint8_t level)
{
    struct large_writer *writer;
    struct change change;
    uint8_t *body;

    give_body(node, &change, seed, size, &body, &writer);
    change.request.fields |= EVENT_HAS_TYPE | EVENT_HAS_USER_META;
    change.request.type = (struct text){seed % 2 ? "text/odd" : "text/even", seed % 2 ? 8 : 9};
    change.request.user_meta = (struct text){"{\"k\":\"v\"}", 9};
    change.request.level = level;
    int rc = commit(node, &change);

    large_writer_destroy(&writer, !change.stored);
    free(body);
    return rc;
}

/* A copy from another node of the bytes that NODE's row names. */
static inline int hold_bytes(struct node *node, unsigned seed, size_t size)
{
    struct large_writer *writer;
    struct change change;
    uint8_t *body;

    give_body(node, &change, seed, size, &body, &writer);
    change.request.kind = CHANGE_HOLD;
    int rc = commit(node, &change);

    large_writer_destroy(&writer, !change.stored);
    free(body);
    return rc;
}

static inline struct id128 loser_id(unsigned seed, size_t size)
{
    uint8_t *body = malloc(size + 1), sha[SHA256_BYTES];
    struct id128 id = the_id();

    make_body(body, size, seed);
    sha256(body, size, sha);
    free(body);
    return conflict_id(&id, sha);
}

static inline int find_id(struct node *node, const struct id128 *id, struct object **out)
{
    struct db_reader *reader;

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    int rc = journal_find(node->journal, reader, id, out);

    db_reader_close(&reader);
    return rc;
}

/* ID is the bytes of SEED, and they are here where HERE. */
static inline void expect_bytes(struct node *node, const struct id128 *id, unsigned seed,
                                size_t size, bool here)
{
    uint8_t *want = malloc(size + 1), *buf = malloc(RECORD_MAX_BYTES), sha[SHA256_BYTES];
    struct object *object = NULL;
    struct record_view view;
    int rc = find_id(node, id, &object);

    if (rc)
        fail_msg("no object of seed %u: %s", seed, err_text(rc));
    make_body(want, size, seed);
    sha256(want, size, sha);
    assert_int_equal(object->flags & OBJECT_DELETED, 0);
    assert_int_equal(object->size, size);
    assert_memory_equal(object->sha256, sha, sizeof sha);
    assert_int_equal(!place_is_none(&object->place), here);
    if (here && object->place.volume == PLACE_LARGE) {
        struct large_reader *reader;

        assert_int_equal(
            large_reader_open(&reader, journal_large(node->journal), object->place.offset, size),
            0);
        for (uint64_t i = 0; i < block_count(size); i++) {
            size_t len;

            assert_int_equal(large_read_block(reader, i, buf, &len, false), 0);
            assert_memory_equal(buf, want + i * BLOCK_BYTES, len);
        }
        large_reader_close(&reader);
    } else if (here) {
        assert_int_equal(log_read(journal_log(node->journal), &object->place, id,
                                  object->record_bytes, buf, RECORD_MAX_BYTES, false, &view),
                         0);
        assert_memory_equal(view.body, want, size);
    }
    object_destroy(&object);
    free(want);
    free(buf);
}

/* … as the one that lost against others under the one id. */
static inline void expect_loser(struct node *node, unsigned seed, size_t size, bool here)
{
    struct id128 id = loser_id(seed, size);

    expect_bytes(node, &id, seed, size, here);
}

static inline void expect_winner(struct node *node, unsigned seed, size_t size, bool here)
{
    struct id128 id = the_id();

    expect_bytes(node, &id, seed, size, here);
}

static inline void expect_none(struct node *node, unsigned seed, size_t size)
{
    struct id128 id = loser_id(seed, size);
    struct object *object;

    assert_int_equal(find_id(node, &id, &object), ERR_NOT_FOUND);
}

static inline int append_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    uint32_t length = (uint32_t)len;

    (void)seq;
    buf_add(arg, &length, sizeof length);
    buf_add(arg, raw, len);
    return 0;
}

static inline void apply(struct node *node)
{
    while (journal_apply_step(node->journal))
        ;
}

/* Every event that FROM has goes to TO, where it is committed, and still to be applied. */
static inline void hand_to(struct node *to, struct node *from)
{
    struct db_origin *origins;
    struct db_reader *reader;
    struct buf events;
    size_t count;

    apply(from);
    buf_init(&events, 0);
    assert_int_equal(journal_reader_open(from->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(
            db_each_event(reader, origins[i].no, origins[i].anchor_seq + 1, append_event, &events),
            0);
    free(origins);
    db_reader_close(&reader);
    struct change change = {.request.kind = CHANGE_PEER,
                            .events = (const uint8_t *)events.data,
                            .events_bytes = events.len,
                            .done = done};

    assert_int_equal(journal_submit(to->journal, &change), 0);
    assert_int_equal(journal_commit_step(to->journal), 1);
    assert_int_equal(change.rc, 0);
    buf_release(&events);
}

static inline void sync_to(struct node *to, struct node *from)
{
    hand_to(to, from);
    apply(to);
}

static inline struct journal_stats stats_of(struct node *node)
{
    struct journal_stats stats;

    journal_stats(node->journal, &stats);
    return stats;
}

static inline uint64_t losers(struct node *node)
{
    apply(node);
    return stats_of(node).losers;
}

/* From now on, or no more, NODE puts nothing again that has lost. */
static inline void withhold(struct node *node, bool on)
{
    node->journal->reput.not_before_ms = on ? UINT64_MAX : 0;
}

/* Some steps of upkeep: enough for all that is owed. */
static inline void upkeep(struct node *node)
{
    for (int i = 0; i < 50; i++) {
        journal_upkeep_step(node->journal);
        journal_commit_step(node->journal);
        apply(node);
    }
}

static inline void reopen(struct node *node, bool clean)
{
    node_close(node, clean);
    node_open(node, false);
}

static inline void rebuild(struct node *node)
{
    uint64_t events, objects;

    node_close(node, true);
    assert_int_equal(store_dirs_open(&node->dirs, &node->env, node->state, node->files, false,
                                     node->message, sizeof node->message),
                     0);
    if (journal_rebuild(&node->dirs, &events, &objects, node->message, sizeof node->message) != 0)
        fail_msg("%s", node->message);
    store_dirs_close(&node->dirs);
    node_open(node, false);
}

/* All nodes know the same, and nothing is owed any more. */
static inline void converge(struct nodes *nodes)
{
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < nodes->count; i++) {
            upkeep(nodes->at[i]);
            for (int k = 0; k < nodes->count; k++)
                if (k != i)
                    sync_to(nodes->at[k], nodes->at[i]);
        }
    struct hash128 first = digest_of(nodes->a);

    for (int i = 0; i < nodes->count; i++) {
        struct hash128 digest = digest_of(nodes->at[i]);

        assert_true(digest.low == first.low && digest.high == first.high);
        assert_int_equal(losers(nodes->at[i]), 0);
        expect_sound(nodes->at[i], &first);
    }
}

/* A has put what loses, B what wins; neither has heard of the other. */
static inline void put_both(struct nodes *nodes, size_t size)
{
    rank(nodes->a, 1);
    rank(nodes->b, 2);
    assert_int_equal(put_bytes(nodes->a, 1, size, 1), 0);
    assert_int_equal(put_bytes(nodes->b, 2, size, 0), 0);
}

static inline int delete_id(struct node *node, const struct id128 *id)
{
    struct change change = {.request = {.kind = CHANGE_DELETE, .id = *id}, .done = done};

    return commit(node, &change);
}

static inline unsigned large_files(struct node *node)
{
    char command[300], line[32];

    snprintf(command, sizeof command, "find '%s/large' '%s/tmp' -type f | wc -l", node->files,
             node->files);
    FILE *pipe = popen(command, "r");

    assert_non_null(pipe);
    assert_non_null(fgets(line, sizeof line, pipe));
    pclose(pipe);
    return (unsigned)atoi(line);
}

/* Objects that go again: some 40 of them fill a segment. */
static inline void make_garbage(struct node *node, unsigned from, unsigned count)
{
    for (unsigned n = from; n < from + count; n++) {
        assert_int_equal(put(node, n, 4000), 0);
        assert_int_equal(delete (node, n), 0);
    }
    apply(node);
}

static inline struct place place_of_loser(struct node *node, size_t size)
{
    struct db_conflict conflict;
    struct db_reader *reader;
    struct id128 id = the_id();
    uint8_t *body = malloc(size + 1), sha[SHA256_BYTES];

    make_body(body, size, 1);
    sha256(body, size, sha);
    free(body);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_conflict(reader, &id, sha, &conflict), 0);
    struct place place = conflict.loser->place;

    object_destroy(&conflict.loser);
    db_reader_close(&reader);
    return place;
}

#define TEST(name)  cmocka_unit_test_setup_teardown(name, setup_two, teardown_nodes)
#define TEST3(name) cmocka_unit_test_setup_teardown(name, setup_three, teardown_nodes)

#endif
