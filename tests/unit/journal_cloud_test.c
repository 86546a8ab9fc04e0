/* Goal: what became of copies in the cloud is known wherever and however a node learns of it, and
 * what is owed to the cloud is listed as long as it is owed: by events, rows of others, restarts,
 * snapshots and rebuilds alike. */
#include "tests/unit/conflict_fixture.h"

#include "journal/db_merge.h"
#include "journal/db_peers.h"

#define KEY "prefix/01ARZ3NDEKTSV4RRFFQ69G5FAV"

static struct change cloud_change(unsigned n, enum cloud_state state, unsigned seed, size_t size)
{
    struct change change = {.request = {.kind = CHANGE_CLOUD,
                                        .id = make_id(n),
                                        .fields = EVENT_HAS_CLOUD | EVENT_HAS_SHA256,
                                        .cloud_state = (uint8_t)state,
                                        .backend = {"s3", 2},
                                        .bucket = {"bucket", 6},
                                        .key = {KEY, sizeof KEY - 1},
                                        .etag = {"\"tag\"", 5}},
                            .done = done};
    uint8_t *body = malloc(size + 1);

    make_body(body, size, seed);
    sha256(body, size, change.request.sha256);
    free(body);
    return change;
}

/* STATE of object N, of the bytes that `put` gave it. */
static int cloud(struct node *node, unsigned n, enum cloud_state state)
{
    struct change change = cloud_change(n, state, n, SMALL);
    int rc = commit(node, &change);

    apply(node);
    return rc;
}

static int put_level(struct node *node, unsigned n, uint8_t level)
{
    static uint8_t body[SMALL];
    struct change change;

    make_body(body, SMALL, n);
    prepare_put(&change, n, body, SMALL);
    change.request.level = level;
    int rc = commit(node, &change);

    apply(node);
    return rc;
}

static int delete_purging(struct node *node, unsigned n, bool purge)
{
    struct change change = {.request = {.kind = CHANGE_DELETE, .id = make_id(n), .purge = purge},
                            .done = done};
    int rc = commit(node, &change);

    apply(node);
    return rc;
}

static int add_owed(void *arg, const struct db_owed *owed)
{
    struct buf *out = arg;

    buf_format(out, "%u:%llu ", owed->id.bytes[15], (unsigned long long)owed->size);
    return owed->since_ms ? 0 : 99;
}

/* Ids and sizes of what is listed as KIND, read in pages of two. */
static void expect_owed(struct node *node, enum outbox_kind kind, const char *want)
{
    struct db_reader *reader;
    struct buf found;

    buf_init(&found, 0);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_outbox(reader, kind, NULL, 1000, add_owed, &found), 0);
    db_reader_close(&reader);
    buf_char(&found, 0);
    assert_string_equal((const char *)found.data, want);
    buf_release(&found);
}

static struct object *row(struct node *node, unsigned n)
{
    struct object *object;

    assert_int_equal(find(node, n, &object), 0);
    return object;
}

static uint32_t flags(struct node *node, unsigned n)
{
    struct object *object = row(node, n);
    uint32_t found = object->flags;

    object_destroy(&object);
    return found & ~(uint32_t)OBJECT_PLAIN;
}

static uint64_t events_of(struct node *node)
{
    return stats_of(node).events;
}

static void compact(struct node *node)
{
    struct journal_compact_result result;

    apply(node);
    assert_int_equal(journal_compact(node->journal, &result), 0);
    assert_true(result.events > 0);
}

/* Rows of FROM go to TO as a merge has them. */
static void merge_to(struct node *to, struct node *from)
{
    static const struct id128 first;
    struct db_reader *reader;
    struct id128 last;
    struct buf rows;

    apply(from);
    buf_init(&rows, 0);
    assert_int_equal(journal_reader_open(from->journal, &reader), 0);
    assert_int_equal(db_merge_rows(reader, &first, &db_last_id, &rows, &last), 0);
    db_reader_close(&reader);
    struct change change = {.request.kind = CHANGE_MERGE,
                            .events = (const uint8_t *)rows.data,
                            .events_bytes = rows.len,
                            .done = done};
    assert_int_equal(journal_submit(to->journal, &change), 0);
    assert_int_equal(journal_commit_step(to->journal), 1);
    assert_int_equal(change.rc, 0);
    buf_release(&rows);
    apply(to);
}

static void expect_alike(struct node *a, struct node *b)
{
    struct hash128 x = digest_of(a), y = digest_of(b);

    assert_true(x.low == y.low && x.high == y.high);
    expect_sound(a, NULL);
    expect_sound(b, NULL);
}

static void an_upload_is_owed_until_the_cloud_has_it(void **state)
{
    struct nodes *nodes = *state;
    struct cloud_place place;

    assert_int_equal(put_level(nodes->a, 1, 1), 0);
    assert_int_equal(put_level(nodes->a, 2, 0), 0);
    expect_owed(nodes->a, OUTBOX_UPLOAD, "1:3000 ");
    expect_owed(nodes->a, OUTBOX_BEGUN, "");
    assert_int_equal(cloud(nodes->a, 1, CLOUD_STARTED), 0);
    expect_owed(nodes->a, OUTBOX_BEGUN, "1:3000 ");
    expect_owed(nodes->a, OUTBOX_UPLOAD, "1:3000 ");
    assert_int_equal(cloud(nodes->a, 1, CLOUD_UPLOADED), 0);
    expect_owed(nodes->a, OUTBOX_UPLOAD, "");
    expect_owed(nodes->a, OUTBOX_BEGUN, "");
    reopen(nodes->a, false);
    apply(nodes->a);
    assert_int_equal(flags(nodes->a, 1), OBJECT_PUT | OBJECT_CLOUD | OBJECT_UPLOADED);
    struct object *object = row(nodes->a, 1);
    assert_true(object_cloud(object, &place));
    assert_memory_equal(place.backend.ptr, "s3", 3);
    assert_memory_equal(place.bucket.ptr, "bucket", 7);
    assert_memory_equal(place.key.ptr, KEY, sizeof KEY);
    assert_int_equal(place.etag.len, 5);
    object_destroy(&object);
    expect_owed(nodes->a, OUTBOX_UPLOAD, "");
    expect_body(nodes->a, 1, SMALL);
    expect_sound(nodes->a, NULL);
    /* On another node nothing is owed: it has no bytes that could be uploaded. */
    sync_to(nodes->b, nodes->a);
    assert_int_equal(flags(nodes->b, 1), OBJECT_PUT | OBJECT_CLOUD | OBJECT_UPLOADED);
    expect_alike(nodes->a, nodes->b);
}

/* It says what a crash must not make us forget: bytes of this node may lie in the cloud. */
static void what_was_begun_is_known_until_this_node_says_its_end(void **state)
{
    struct nodes *nodes = *state;

    for (unsigned n = 1; n <= 3; n++) {
        assert_int_equal(put_level(nodes->a, n, 1), 0);
        assert_int_equal(cloud(nodes->a, n, CLOUD_STARTED), 0);
    }
    reopen(nodes->a, false);
    apply(nodes->a);
    expect_owed(nodes->a, OUTBOX_BEGUN, "1:3000 2:3000 3:3000 ");
    sync_to(nodes->b, nodes->a);
    expect_owed(nodes->b, OUTBOX_BEGUN, ""); /* it was not B that began */
    assert_int_equal(cloud(nodes->b, 1, CLOUD_UPLOADED), 0);
    sync_to(nodes->a, nodes->b);
    expect_owed(nodes->a, OUTBOX_UPLOAD, "2:3000 3:3000 ");
    expect_owed(nodes->a, OUTBOX_BEGUN, "1:3000 2:3000 3:3000 ");
    assert_int_equal(delete_purging(nodes->a, 2, true), 0);
    expect_owed(nodes->a, OUTBOX_BEGUN, "1:3000 2:3000 3:3000 ");
    compact(nodes->a); /* the events that said so are gone */
    rebuild(nodes->a);
    expect_sound(nodes->a, NULL);
    expect_owed(nodes->a, OUTBOX_BEGUN, "1:3000 2:0 3:3000 ");
    assert_int_equal(cloud(nodes->a, 1, CLOUD_UPLOADED), 0);
    assert_int_equal(cloud(nodes->a, 2, CLOUD_PURGED), 0);
    expect_owed(nodes->a, OUTBOX_BEGUN, "3:3000 ");
    assert_int_equal(cloud(nodes->a, 3, CLOUD_PURGED), 0); /* it was not there: so once more */
    expect_owed(nodes->a, OUTBOX_BEGUN, "");
    assert_int_equal(cloud(nodes->a, 3, CLOUD_STARTED), 0);
    expect_owed(nodes->a, OUTBOX_BEGUN, "3:3000 ");
    rebuild(nodes->a);
    expect_owed(nodes->a, OUTBOX_BEGUN, "3:3000 ");
    assert_int_equal(cloud(nodes->a, 3, CLOUD_UPLOADED), 0);
    expect_owed(nodes->a, OUTBOX_BEGUN, "");
    rebuild(nodes->a);
    expect_owed(nodes->a, OUTBOX_BEGUN, "");
    expect_sound(nodes->a, NULL);
}

/* Cleaning brings the beginning of an upload behind its end in the log. */
static void a_rebuild_takes_the_end_for_the_end(void **state)
{
    struct nodes *nodes = *state;

    assert_int_equal(put_level(nodes->a, 1, 1), 0);
    assert_int_equal(put_level(nodes->a, 2, 1), 0);
    assert_int_equal(cloud(nodes->a, 1, CLOUD_STARTED), 0);
    assert_int_equal(cloud(nodes->a, 2, CLOUD_STARTED), 0);
    make_garbage(nodes->a, 100, 45); /* fills the segment; the end comes into the next one */
    assert_int_equal(cloud(nodes->a, 1, CLOUD_UPLOADED), 0);
    settle(nodes->a);
    assert_true(stats_of(nodes->a).moved_records > 0);
    expect_owed(nodes->a, OUTBOX_BEGUN, "2:3000 ");
    rebuild(nodes->a);
    expect_owed(nodes->a, OUTBOX_BEGUN, "2:3000 ");
    expect_sound(nodes->a, NULL);
}

static void a_deleted_object_owes_a_mark_and_where_asked_a_purge(void **state)
{
    struct nodes *nodes = *state;
    struct change purged = cloud_change(2, CLOUD_PURGED, 2, SMALL);

    for (unsigned n = 1; n <= 3; n++) {
        assert_int_equal(put_level(nodes->a, n, 1), 0);
        if (n < 3)
            assert_int_equal(cloud(nodes->a, n, CLOUD_UPLOADED), 0);
    }
    sync_to(nodes->b, nodes->a);
    assert_int_equal(delete_purging(nodes->b, 1, false), 0);
    assert_int_equal(delete_purging(nodes->b, 2, true), 0);
    assert_int_equal(delete_purging(nodes->b, 3, true), 0); /* it never was in the cloud */
    sync_to(nodes->a, nodes->b);
    for (int i = 0; i < 2; i++) {
        expect_owed(nodes->at[i], OUTBOX_UPLOAD, "");
        expect_owed(nodes->at[i], OUTBOX_MARK, "1:0 2:0 ");
        expect_owed(nodes->at[i], OUTBOX_PURGE, "2:0 ");
        assert_int_equal(stats_of(nodes->at[i]).marks, 2);
        assert_int_equal(stats_of(nodes->at[i]).purges, 1);
    }
    expect_alike(nodes->a, nodes->b);

    /* A second delete asks for it after all; a third says nothing new. */
    uint64_t events = events_of(nodes->a);
    assert_int_equal(delete_purging(nodes->a, 1, false), 0);
    assert_int_equal(events_of(nodes->a), events);
    assert_int_equal(delete_purging(nodes->a, 1, true), 0);
    assert_int_equal(events_of(nodes->a), events + 1);
    assert_int_equal(delete_purging(nodes->a, 1, true), 0);
    assert_int_equal(events_of(nodes->a), events + 1);
    expect_owed(nodes->a, OUTBOX_PURGE, "1:0 2:0 ");

    assert_int_equal(cloud(nodes->a, 1, CLOUD_MARKED), 0);
    assert_int_equal(cloud(nodes->b, 2, CLOUD_MARKED), 0);
    struct object *object = row(nodes->b, 2);
    purged.request.removed = object_removes(object);
    object_destroy(&object);
    assert_int_equal(commit(nodes->b, &purged), 0);
    sync_to(nodes->a, nodes->b);
    sync_to(nodes->b, nodes->a);
    for (int i = 0; i < 2; i++) {
        expect_owed(nodes->at[i], OUTBOX_MARK, "");
        expect_owed(nodes->at[i], OUTBOX_PURGE, "1:0 ");
        compact(nodes->at[i]); /* the rows of a snapshot, and no event */
        rebuild(nodes->at[i]);
        expect_owed(nodes->at[i], OUTBOX_MARK, "");
        expect_owed(nodes->at[i], OUTBOX_PURGE, "1:0 ");
    }
    expect_alike(nodes->a, nodes->b);
}

/* The put's upload comes to a node that has deleted it, in whatever way. */
static void an_upload_that_a_delete_did_not_know_of_is_marked_and_purged(void **state)
{
    struct nodes *nodes = *state;

    assert_int_equal(put_level(nodes->a, 1, 1), 0);
    sync_to(nodes->b, nodes->a);
    assert_int_equal(delete_purging(nodes->b, 1, true), 0);
    expect_owed(nodes->b, OUTBOX_PURGE, "");
    assert_int_equal(cloud(nodes->a, 1, CLOUD_STARTED), 0);
    assert_int_equal(cloud(nodes->a, 1, CLOUD_UPLOADED), 0);
    merge_to(nodes->b, nodes->a);
    expect_owed(nodes->b, OUTBOX_MARK, "1:0 ");
    expect_owed(nodes->b, OUTBOX_PURGE, "1:0 ");
    sync_to(nodes->a, nodes->b);
    expect_owed(nodes->a, OUTBOX_MARK, "1:0 ");
    expect_owed(nodes->a, OUTBOX_PURGE, "1:0 ");
    sync_to(nodes->b, nodes->a);
    expect_alike(nodes->a, nodes->b);
    struct object *object = row(nodes->b, 1);
    struct cloud_place place;
    assert_true(object_cloud(object, &place));
    assert_memory_equal(place.key.ptr, KEY, sizeof KEY - 1);
    object_destroy(&object);
}

/* B removes what it knows of, while A uploads the same once more. */
static void what_was_uploaded_while_it_was_removed_is_removed_again(void **state)
{
    struct nodes *nodes = *state;
    struct change purged = cloud_change(1, CLOUD_PURGED, 1, SMALL);

    assert_int_equal(put_level(nodes->a, 1, 1), 0);
    assert_int_equal(cloud(nodes->a, 1, CLOUD_UPLOADED), 0);
    sync_to(nodes->b, nodes->a);
    assert_int_equal(delete_purging(nodes->b, 1, true), 0);
    struct object *object = row(nodes->b, 1);
    purged.request.removed = object_removes(object);
    object_destroy(&object);
    assert_int_equal(cloud(nodes->a, 1, CLOUD_UPLOADED), 0); /* A has not heard of the delete */
    sync_to(nodes->b, nodes->a);
    rank(nodes->b, 100);
    assert_int_equal(commit(nodes->b, &purged), 0);
    apply(nodes->b);
    expect_owed(nodes->b, OUTBOX_PURGE, "1:0 ");
    sync_to(nodes->a, nodes->b);
    expect_owed(nodes->a, OUTBOX_PURGE, "1:0 ");
    assert_int_equal(cloud(nodes->a, 1, CLOUD_PURGED), 0); /* of all that is known now */
    sync_to(nodes->b, nodes->a);
    expect_owed(nodes->b, OUTBOX_PURGE, "");
    expect_alike(nodes->a, nodes->b);
}

static uint64_t fast_wall_ns(struct env *env)
{
    (void)env;
    return env_system()->wall_ns(env_system()) + UINT64_C(3600000000000);
}

/* B, whose clock is fast, has uploaded and removed it; A, which has not heard of any of that,
 * brings it there once more. That only its stamp makes A's the earlier upload says nothing of what
 * is there: who believed it to be away looks, or who hears by rows that it is. */
static void what_a_purge_did_not_know_of_is_looked_for(void **state)
{
    for (int way = 0; way < 2; way++) {
        struct nodes *nodes = *state;
        struct change purged = cloud_change(1, CLOUD_PURGED, 1, SMALL);

        assert_int_equal(put_level(nodes->a, 1, 1), 0);
        sync_to(nodes->b, nodes->a);
        nodes->b->env.wall_ns = fast_wall_ns;
        assert_int_equal(cloud(nodes->b, 1, CLOUD_UPLOADED), 0);
        assert_int_equal(delete_purging(nodes->b, 1, true), 0);
        struct object *object = row(nodes->b, 1);
        purged.request.removed = object_removes(object);
        object_destroy(&object);
        assert_int_equal(commit(nodes->b, &purged), 0);
        apply(nodes->b);
        expect_owed(nodes->b, OUTBOX_BEGUN, "");
        assert_int_equal(cloud(nodes->a, 1, CLOUD_UPLOADED), 0);
        apply(nodes->a);
        expect_owed(nodes->a, OUTBOX_BEGUN, "");
        struct node *looks = way == 0 ? nodes->b : nodes->a;
        if (way == 0)
            sync_to(nodes->b, nodes->a);
        else
            merge_to(nodes->a, nodes->b);
        expect_owed(looks, OUTBOX_BEGUN, "1:0 ");
        assert_int_equal(flags(looks, 1) & OBJECT_PURGED, OBJECT_PURGED);
        assert_int_equal(cloud(looks, 1, CLOUD_PURGED), 0); /* it was there, and is removed */
        expect_owed(looks, OUTBOX_BEGUN, "");
        if (way == 0) {
            assert_int_equal(teardown_nodes(state), 0);
            assert_int_equal(setup_two(state), 0);
        }
    }
}

/* ---- What lies in the cloud alone ---- */

static struct change adoption(unsigned n, hlc_time stamp)
{
    struct change change = cloud_change(n, 0, n, SMALL);

    change.request.kind = CHANGE_ADOPT;
    change.request.fields |= EVENT_HAS_SIZE | EVENT_HAS_NAME;
    change.request.size = SMALL;
    change.request.name = (struct text){"found", 5};
    change.request.stamp = stamp;
    return change;
}

static int adopt(struct node *node, unsigned n, hlc_time stamp)
{
    struct change change = adoption(n, stamp);
    int rc = commit(node, &change);

    apply(node);
    return rc;
}

static size_t holders(struct node *node, unsigned n)
{
    struct object *object = row(node, n);
    struct db_reader *reader;
    struct id128 found[8];
    size_t count;

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_holders(reader, object, found, 8, &count), 0);
    db_reader_close(&reader);
    object_destroy(&object);
    return count;
}

static void what_is_adopted_lies_in_the_cloud_and_nowhere_else(void **state)
{
    struct nodes *nodes = *state;
    hlc_time old = (hlc_time)1000000 << 16;
    uint8_t body[SMALL];
    struct change hold;

    assert_int_equal(adopt(nodes->a, 1, old), 0);
    uint64_t events = events_of(nodes->a);
    assert_int_equal(events, 3);
    assert_int_equal(adopt(nodes->a, 1, old), 0); /* again: known */
    assert_int_equal(events_of(nodes->a), events);
    sync_to(nodes->b, nodes->a);
    for (int i = 0; i < 2; i++) {
        struct object *object = row(nodes->at[i], 1);

        assert_int_equal(object->flags, OBJECT_PUT | OBJECT_CLOUD | OBJECT_UPLOADED);
        assert_int_equal(object->level, 1);
        assert_int_equal(object->size, SMALL);
        assert_true(object->put_at.stamp == old);
        assert_true(place_is_none(&object->place));
        assert_int_equal(object_name(object).len, 5);
        object_destroy(&object);
        assert_int_equal(holders(nodes->at[i], 1), 0);
        expect_owed(nodes->at[i], OUTBOX_UPLOAD, "");
    }
    /* It was read, and is kept here now. */
    make_body(body, SMALL, 1);
    prepare_put(&hold, 1, body, SMALL);
    hold.request.kind = CHANGE_HOLD;
    assert_int_equal(commit(nodes->b, &hold), 0);
    sync_to(nodes->a, nodes->b);
    assert_int_equal(holders(nodes->a, 1), 1);
    expect_body(nodes->b, 1, SMALL);
    expect_alike(nodes->a, nodes->b);
    rebuild(nodes->a);
    assert_int_equal(holders(nodes->a, 1), 1);
    expect_alike(nodes->a, nodes->b);
}

/* How many copies of object N NODE counts, of two members. */
static unsigned counted(struct node *node, unsigned n)
{
    struct id128 self = journal_node(node->journal);
    struct object *object = row(node, n);
    struct db_copies copies;
    struct db_reader *reader;

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_copies(reader, object, &self, &copies), 0);
    assert_int_equal(copies.members, 2);
    db_reader_close(&reader);
    object_destroy(&object);
    return copies.held;
}

/* Nobody counts on whoever adopts, not even while the event that says so waits to be applied. */
static void who_adopts_has_no_copy_at_any_moment(void **state)
{
    struct nodes *nodes = *state;
    struct id128 ida = journal_node(nodes->a->journal);
    hlc_time old = (hlc_time)1000000 << 16;
    struct event joined = {.kind = EVENT_MEMBER,
                           .fields = EVENT_HAS_MEMBER,
                           .subject = ida,
                           .address = {"a:1", 3},
                           .member_state = MEMBER_JOINED};
    struct change change = {.request.kind = CHANGE_FACT, .fact = &joined, .done = done};

    assert_int_equal(commit(nodes->a, &change), 0);
    sync_to(nodes->b, nodes->a); /* it knows A, and A's run */
    assert_int_equal(adopt(nodes->a, 1, old), 0);
    assert_int_equal(put_level(nodes->a, 2, 0), 0);
    hand_to(nodes->b, nodes->a);
    assert_true(stats_of(nodes->b).pending > 0);
    assert_int_equal(counted(nodes->b, 1), 0);
    assert_int_equal(counted(nodes->b, 2), 1); /* which A has */
    apply(nodes->b);
    assert_int_equal(counted(nodes->b, 1), 0);
    assert_int_equal(counted(nodes->b, 2), 1);
    /* What the cloud has, and A besides, counts as soon as it is in the views. */
    assert_int_equal(put_level(nodes->a, 3, 1), 0);
    assert_int_equal(cloud(nodes->a, 3, CLOUD_UPLOADED), 0);
    sync_to(nodes->b, nodes->a);
    assert_int_equal(counted(nodes->b, 3), 1);
}

static void what_two_nodes_adopt_is_one_object(void **state)
{
    struct nodes *nodes = *state;
    hlc_time old = (hlc_time)1000000 << 16;

    assert_int_equal(adopt(nodes->a, 1, old), 0);
    assert_int_equal(adopt(nodes->b, 1, old), 0);
    sync_to(nodes->b, nodes->a);
    sync_to(nodes->a, nodes->b);
    expect_alike(nodes->a, nodes->b);
    assert_int_equal(holders(nodes->a, 1), 0);
    assert_int_equal(holders(nodes->b, 1), 0);
}

static void what_is_known_otherwise_is_not_adopted(void **state)
{
    struct nodes *nodes = *state;
    struct change other = adoption(1, 0);

    assert_int_equal(put_level(nodes->a, 1, 2), 0);
    assert_int_equal(delete_purging(nodes->a, 2, false), 0);
    uint64_t events = events_of(nodes->a);
    other.request.sha256[0] ^= 1;
    assert_int_equal(commit(nodes->a, &other), ERR_CONFLICT);
    assert_int_equal(adopt(nodes->a, 2, 0), ERR_DELETED);
    assert_int_equal(events_of(nodes->a), events);
    assert_int_equal(adopt(nodes->a, 1, 0), 0); /* the same bytes: the cloud has them */
    assert_int_equal(events_of(nodes->a), events + 1);
    assert_int_equal(flags(nodes->a, 1), OBJECT_PUT | OBJECT_CLOUD | OBJECT_UPLOADED);
    expect_body(nodes->a, 1, SMALL);
    assert_int_equal(holders(nodes->a, 1), 1);
    expect_owed(nodes->a, OUTBOX_UPLOAD, "");
    expect_sound(nodes->a, NULL);
}

static int put_back(struct node *node, unsigned n, hlc_time stamp, bool first)
{
    static uint8_t body[SMALL];
    struct change change, at = adoption(n, stamp);

    make_body(body, SMALL, n);
    prepare_put(&change, n, body, SMALL);
    change.request.from_cloud = true;
    change.request.stamp = stamp;
    change.request.fields |= EVENT_HAS_CLOUD;
    change.request.backend = at.request.backend;
    change.request.bucket = at.request.bucket;
    change.request.key = at.request.key;
    change.request.etag = at.request.etag;
    assert_int_equal(journal_submit(node->journal, &change), 0);
    assert_int_equal(journal_commit_step(node->journal), 1);
    if (change.rc == 0) {
        assert_true(change.stored);
        assert_int_equal(change.first, first);
        assert_true(change.object->flags & OBJECT_UPLOADED);
    }
    object_destroy(&change.object);
    apply(node);
    return change.rc;
}

/* A wiped cluster reads an object back: it is what it was, and beats nothing that is known. */
static void what_is_read_back_bears_the_time_that_it_had(void **state)
{
    struct nodes *nodes = *state;
    hlc_time old = (hlc_time)1000000 << 16;

    assert_int_equal(put_back(nodes->a, 1, old, true), 0);
    struct object *object = row(nodes->a, 1);
    assert_true(object->put_at.stamp == old);
    assert_int_equal(object->level, 1); /* no level was named: 0 becomes 1 */
    assert_false(place_is_none(&object->place));
    object_destroy(&object);
    expect_owed(nodes->a, OUTBOX_UPLOAD, "");
    expect_body(nodes->a, 1, SMALL);
    assert_int_equal(holders(nodes->a, 1), 1);
    /* On a node that knows of it, it is a copy. */
    sync_to(nodes->b, nodes->a);
    assert_int_equal(put_back(nodes->b, 1, old + 5, false), 0);
    sync_to(nodes->a, nodes->b);
    assert_int_equal(holders(nodes->a, 1), 2);
    expect_alike(nodes->a, nodes->b);
    /* What is deleted stays so. */
    assert_int_equal(delete_purging(nodes->a, 1, false), 0);
    assert_int_equal(put_back(nodes->a, 1, old, false), ERR_DELETED);
    rebuild(nodes->b);
    expect_body(nodes->b, 1, SMALL);
    expect_sound(nodes->a, NULL);
}

/* The batch fails after the first of its events: nothing of it happened, and it can be done again.
 */
static void a_failed_batch_leaves_nothing_of_an_adoption(void **state)
{
    struct nodes *nodes = *state;
    struct hash128 before = digest_of(nodes->a);
    struct object *object;

    nodes->a->fault.only = "/log/";
    nodes->a->fault.error = ERR_IO;
    nodes->a->fault.fail_write = 1;
    assert_int_not_equal(adopt(nodes->a, 1, 0), 0);
    assert_int_equal(find(nodes->a, 1, &object), ERR_NOT_FOUND);
    expect_sound(nodes->a, &before);
    assert_int_equal(adopt(nodes->a, 1, 0), 0);
    assert_int_equal(flags(nodes->a, 1), OBJECT_PUT | OBJECT_CLOUD | OBJECT_UPLOADED);
    expect_sound(nodes->a, NULL);
}

/* ---- Different bytes under one id ---- */

/* A's bytes are in the cloud, and lose: B's are uploaded instead of them, and A's under the id that
 * they get. */
static void the_winner_is_uploaded_anew_and_the_loser_for_itself(void **state)
{
    struct nodes *nodes = *state;
    struct id128 lost = loser_id(1, SMALL);
    struct change uploaded = cloud_change(THE, CLOUD_UPLOADED, 1, SMALL);
    struct change winner = cloud_change(THE, CLOUD_UPLOADED, 2, SMALL);
    struct change started = cloud_change(THE, CLOUD_STARTED, 1, SMALL);
    char want[40];

    rank(nodes->a, 1);
    rank(nodes->b, 2);
    assert_int_equal(put_bytes(nodes->a, 1, SMALL, 1), 0);
    assert_int_equal(commit(nodes->a, &uploaded), 0);
    assert_int_equal(put_bytes(nodes->b, 2, SMALL, 1), 0);
    apply(nodes->a);
    expect_owed(nodes->a, OUTBOX_UPLOAD, "");
    converge(nodes);
    assert_int_equal(flags(nodes->b, THE), OBJECT_PUT | OBJECT_CLOUD);
    expect_owed(nodes->b, OUTBOX_UPLOAD, "7:3000 ");
    snprintf(want, sizeof want, "%u:3000 ", lost.bytes[15]);
    expect_owed(nodes->a, OUTBOX_UPLOAD, want);
    expect_loser(nodes->a, 1, SMALL, true);
    assert_int_equal(commit(nodes->a, &started), ERR_CONFLICT); /* of bytes that lost */
    assert_int_equal(commit(nodes->b, &winner), 0);
    apply(nodes->b);
    expect_owed(nodes->b, OUTBOX_UPLOAD, "");
    converge(nodes);
    assert_int_equal(flags(nodes->a, THE), OBJECT_PUT | OBJECT_CLOUD | OBJECT_UPLOADED);
}

/* Both sides of a partition upload to one key. Whose event is later says nothing of what lies
 * there: whoever hears of both looks, by events or by rows. */
static void who_hears_of_different_bytes_looks_what_is_there(void **state)
{
    for (int way = 0; way < 3; way++) {
        struct nodes *nodes = *state;
        struct change one = cloud_change(THE, CLOUD_UPLOADED, 1, SMALL);
        struct change two = cloud_change(THE, CLOUD_UPLOADED, 2, SMALL);

        rank(nodes->a, way == 1 ? 2 : 1);
        rank(nodes->b, way == 1 ? 1 : 2);
        assert_int_equal(put_bytes(nodes->a, 1, SMALL, 1), 0);
        assert_int_equal(put_bytes(nodes->b, 2, SMALL, 1), 0);
        assert_int_equal(commit(nodes->a, &one), 0);
        assert_int_equal(commit(nodes->b, &two), 0);
        if (way == 2) {
            merge_to(nodes->a, nodes->b);
            expect_owed(nodes->a, OUTBOX_BEGUN, "7:3000 ");
            break;
        }
        apply(nodes->b);
        sync_to(nodes->a, nodes->b);
        expect_owed(nodes->a, OUTBOX_BEGUN, "7:3000 ");
        sync_to(nodes->b, nodes->a);
        expect_owed(nodes->b, OUTBOX_BEGUN, "7:3000 ");
        reopen(nodes->a, false);
        rebuild(nodes->b);
        apply(nodes->a);
        expect_owed(nodes->a, OUTBOX_BEGUN, "7:3000 ");
        expect_owed(nodes->b, OUTBOX_BEGUN, "7:3000 ");
        /* A has looked, and once more, as that was news; B hears of it, and says the same. */
        assert_int_equal(commit(nodes->a, &two), 0);
        assert_int_equal(commit(nodes->a, &two), 0);
        sync_to(nodes->b, nodes->a);
        assert_int_equal(commit(nodes->b, &two), 0);
        assert_int_equal(commit(nodes->b, &two), 0);
        sync_to(nodes->a, nodes->b);
        sync_to(nodes->b, nodes->a);
        for (int i = 0; i < 2; i++) {
            expect_owed(nodes->at[i], OUTBOX_BEGUN, "");
            rebuild(nodes->at[i]);
            expect_owed(nodes->at[i], OUTBOX_BEGUN, "");
            expect_sound(nodes->at[i], NULL);
        }
        assert_int_equal(teardown_nodes(state), 0);
        assert_int_equal(setup_two(state), 0);
    }
}

static void what_has_lost_its_sense_is_not_begun(void **state)
{
    struct nodes *nodes = *state;
    struct change started = cloud_change(1, CLOUD_STARTED, 1, SMALL);

    assert_int_equal(cloud(nodes->a, 9, CLOUD_STARTED), ERR_NOT_FOUND);
    assert_int_equal(put_level(nodes->a, 1, 1), 0);
    assert_int_equal(cloud(nodes->a, 1, CLOUD_MARKED), ERR_CONFLICT);
    assert_int_equal(cloud(nodes->a, 1, CLOUD_UPLOADED), 0);
    assert_int_equal(cloud(nodes->a, 1, CLOUD_PURGED), 0); /* it was looked for, and not there */
    expect_owed(nodes->a, OUTBOX_UPLOAD, "1:3000 ");
    assert_int_equal(cloud(nodes->a, 1, CLOUD_UPLOADED), 0);
    expect_owed(nodes->a, OUTBOX_UPLOAD, "");
    uint64_t events = events_of(nodes->a);
    assert_int_equal(commit(nodes->a, &started), 0);
    assert_int_equal(started.verdict, VERDICT_UNCHANGED);
    assert_int_equal(events_of(nodes->a), events);
    assert_int_equal(delete_purging(nodes->a, 1, false), 0);
    assert_int_equal(cloud(nodes->a, 1, CLOUD_STARTED), ERR_DELETED);
    assert_int_equal(cloud(nodes->a, 1, CLOUD_MARKED), 0);
    events = events_of(nodes->a);
    assert_int_equal(cloud(nodes->a, 1, CLOUD_MARKED), 0);
    assert_int_equal(events_of(nodes->a), events);
    expect_owed(nodes->a, OUTBOX_BEGUN, "");
    expect_sound(nodes->a, NULL);
}

/* ---- Lives ---- */

static void live(struct node *node, unsigned steps)
{
    for (unsigned i = 0; i < steps; i++) {
        unsigned n = 1 + (unsigned)rand() % 12;

        switch (rand() % 8) {
        case 0:
        case 1:
            (void)!put_level(node, n, (uint8_t)(rand() % 3));
            break;
        case 2:
            (void)!delete_purging(node, n, rand() % 2);
            break;
        case 3:
            (void)!adopt(node, n, rand() % 2 ? 0 : (hlc_time)1000000 << 16);
            break;
        default:
            (void)!cloud(node, n, (enum cloud_state)(CLOUD_STARTED + rand() % 4));
        }
    }
}

/* What is listed as begun is this node's own; the rest of the outbox follows from the rows. */
static void list(struct node *node, struct buf *out)
{
    static const enum outbox_kind kinds[] = {OUTBOX_UPLOAD, OUTBOX_MARK, OUTBOX_PURGE,
                                             OUTBOX_BEGUN};
    struct db_reader *reader;

    apply(node);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        buf_format(out, "[%u] ", kinds[i]);
        assert_int_equal(db_reader_outbox(reader, kinds[i], NULL, 1000, add_owed, out), 0);
    }
    buf_char(out, 0);
    db_reader_close(&reader);
}

static void expect_same_list(struct node *node, const struct buf *before, unsigned seed)
{
    struct buf after;

    buf_init(&after, 0);
    list(node, &after);
    if (strcmp((const char *)before->data, (const char *)after.data) != 0)
        fail_msg("seed %u: %s became %s", seed, (const char *)before->data,
                 (const char *)after.data);
    buf_release(&after);
}

/* Two nodes live apart, with snapshots and kills in between, hear of each other by events or rows,
 * and are rebuilt: the same rows, the same outbox. */
static void any_life_ends_the_same_by_events_rows_and_rebuilds(void **state)
{
    struct nodes *nodes = *state;

    for (unsigned seed = 1; seed <= 12; seed++) {
        struct buf before;

        srand(seed);
        for (int part = 0; part < 3; part++) {
            live(nodes->a, 15);
            live(nodes->b, 15);
            if (rand() % 2)
                merge_to(nodes->a, nodes->b);
            if (rand() % 3 == 0) {
                sync_to(nodes->b, nodes->a); /* who lacks events would have to adopt runs */
                compact(nodes->a);
            }
            if (rand() % 3 == 0)
                reopen(nodes->b, false);
        }
        converge(nodes);
        merge_to(nodes->a, nodes->b);
        merge_to(nodes->b, nodes->a);
        expect_alike(nodes->a, nodes->b);
        buf_init(&before, 0);
        list(nodes->a, &before);
        reopen(nodes->a, seed % 2);
        expect_same_list(nodes->a, &before, seed);
        if (seed % 3 == 0)
            compact(nodes->a);
        rebuild(nodes->a);
        expect_same_list(nodes->a, &before, seed);
        expect_alike(nodes->a, nodes->b);
        buf_release(&before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_upload_is_owed_until_the_cloud_has_it),
        TEST(what_was_begun_is_known_until_this_node_says_its_end),
        TEST(a_rebuild_takes_the_end_for_the_end),
        TEST(a_deleted_object_owes_a_mark_and_where_asked_a_purge),
        TEST(an_upload_that_a_delete_did_not_know_of_is_marked_and_purged),
        TEST(what_a_purge_did_not_know_of_is_looked_for),
        TEST(what_was_uploaded_while_it_was_removed_is_removed_again),
        TEST(what_is_adopted_lies_in_the_cloud_and_nowhere_else),
        TEST(who_adopts_has_no_copy_at_any_moment),
        TEST(what_two_nodes_adopt_is_one_object),
        TEST(what_is_known_otherwise_is_not_adopted),
        TEST(what_is_read_back_bears_the_time_that_it_had),
        TEST(a_failed_batch_leaves_nothing_of_an_adoption),
        TEST(the_winner_is_uploaded_anew_and_the_loser_for_itself),
        TEST(who_hears_of_different_bytes_looks_what_is_there),
        TEST(what_has_lost_its_sense_is_not_begun),
        TEST(any_life_ends_the_same_by_events_rows_and_rebuilds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
