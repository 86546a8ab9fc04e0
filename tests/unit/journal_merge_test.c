/* Goal: what another node has is taken over row by row as if its events had come, through the log,
 * and lasts: rows, tombstones, holders, members, adopted runs; whatever is killed, cleaned,
 * compacted or rebuilt on the way. */
#include "tests/unit/merge_fixture.h"

static size_t holders_of(struct node *node, unsigned n)
{
    struct db_reader *reader = reader_of(node);
    struct id128 found[8];
    struct object *object;
    size_t count;

    assert_int_equal(find(node, n, &object), 0);
    assert_int_equal(db_reader_holders(reader, object, found, 8, &count), 0);
    object_destroy(&object);
    db_reader_close(&reader);
    return count;
}

static size_t members_of(struct node *node)
{
    struct db_reader *reader = reader_of(node);
    struct db_member *members;
    size_t count;

    assert_int_equal(db_reader_members(reader, &members, &count), 0);
    free(members);
    db_reader_close(&reader);
    return count;
}

static void join_as(struct node *node, const char *address)
{
    struct event event = {.kind = EVENT_MEMBER,
                          .fields = EVENT_HAS_MEMBER,
                          .subject = journal_node(node->journal),
                          .address = {address, (uint32_t)strlen(address)},
                          .member_state = MEMBER_JOINED};
    struct change change = {.request.kind = CHANGE_FACT, .fact = &event, .done = done};

    assert_int_equal(commit(node, &change), 0);
}

/* Puts, large ones, deletes of known and unknown ids, a name. */
static void write_facts(struct node *node, unsigned first)
{
    for (unsigned n = first; n < first + 60; n++)
        assert_int_equal(put(node, n, 500), 0);
    assert_int_equal(put_large(node, first + 60, 300 * 1024), 0);
    for (unsigned n = first; n < first + 60; n += 3)
        assert_int_equal(delete (node, n), 0);
    assert_int_equal(delete (node, first + 70), 0);
}

static int hold(struct node *node, unsigned n, size_t size)
{
    static uint8_t body[4096];
    struct change change;

    make_body(body, size, n);
    prepare_put(&change, n, body, size);
    change.request.kind = CHANGE_HOLD;
    return commit(node, &change);
}

/* ---- Tests ---- */

/* A node that compacted alone gives a joiner everything; what comes after it goes on as events. */
static void a_joiner_gets_what_was_compacted(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;

    node_open(a, false);
    node_open(b, false);
    join_as(a, "10.0.0.1:1");
    write_facts(a, 1000);
    compact(a);
    apply(a);
    assert_int_equal(events_of(a), 0);
    merge_rows_of(b, a);
    expect_equal(a, b);
    expect_sound(b, NULL);
    expect_deleted(b, 1003);
    expect_deleted(b, 1070);
    assert_int_equal(members_of(b), 1);
    assert_int_equal(put(b, 1070, 10), ERR_DELETED);
    /* Before the vector is adopted, news do not fit; then they do. */
    assert_int_equal(put(a, 5000, 10), 0);
    assert_int_equal(sync_to(b, a), ERR_AGAIN);
    struct buf vector;
    vector_of(a, &vector);
    assert_int_equal(put(a, 5001, 10), 0);
    assert_int_equal(give(b, CHANGE_MERGE, vector.data, vector.len), 0);
    buf_release(&vector);
    assert_int_equal(sync_to(b, a), 0);
    merge_rows_of(b, a); /* 5000's event is behind B now, and came before the rows were read */
    expect_equal(a, b);
    expect_sound(b, NULL);
    assert_int_equal(holders_of(b, 5001), 1);
    killed(b);
    rebuild(b);
    expect_equal(a, b);
    expect_deleted(b, 1003);
    assert_int_equal(members_of(b), 1);
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(put(a, 5002, 10), 0);
    assert_int_equal(sync_to(b, a), 0);
    expect_equal(a, b);
    node_close(b, true);
    node_close(a, true);
}

/* Rows, holders and members go through kill, cleaning, snapshot and rebuild of the node that merged
 * them, and from there to a third one. */
static void what_was_merged_lasts(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b, *c = trio->c;

    node_open(a, false);
    node_open(b, false);
    node_open(c, false);
    join_as(a, "10.0.0.1:1");
    write_facts(a, 1000);
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(hold(b, 1001, 500), 0);
    assert_int_equal(sync_to(a, b), 0);
    compact(a);
    assert_int_equal(put(c, 9000, 100 * 1024), 0);
    merge_rows_of(c, a);
    adopt_from(c, a);
    assert_int_equal(holders_of(c, 1001), 2);
    for (unsigned n = 1; n < 20; n++) /* segments that are worth cleaning … */
        assert_int_equal(put(c, 9000 + n, 100 * 1024), 0);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(delete (c, 9000 + n), 0);
    killed(c);
    assert_int_equal(holders_of(c, 1001), 2);
    struct journal_stats stats;
    settle(c);
    journal_stats(c->journal, &stats);
    assert_true(stats.cleaned_segments > 3);
    rebuild(c); /* … while what was merged is in them */
    assert_int_equal(holders_of(c, 1001), 2);
    assert_int_equal(members_of(c), 1);
    for (int i = 0; i < 2; i++) {
        compact(c);
        settle(c);
        rebuild(c);
        assert_int_equal(holders_of(c, 1001), 2);
        assert_int_equal(members_of(c), 1);
        expect_deleted(c, 1003);
    }
    assert_int_equal(put(a, 5000, 10), 0); /* the run goes on behind its anchor */
    assert_int_equal(sync_to(c, a), 0);
    merge_rows_of(a, c);
    adopt_from(a, c);
    expect_equal(a, c);
    expect_sound(a, NULL);
    node_close(c, true);
    node_close(b, true);
    node_close(a, true);
}

/* A node that was away with rows of its own: deletes that it missed hold, its own news stay, and
 * events below what it adopts leave it when it compacts. */
static void who_was_away_honours_what_was_deleted(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;

    node_open(a, false);
    node_open(b, false);
    for (unsigned n = 0; n < 30; n++)
        assert_int_equal(put(a, n, 200), 0);
    assert_int_equal(put_large(a, 30, 300 * 1024), 0);
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(hold(b, 3, 200), 0);
    assert_int_equal(put(b, 100, 77), 0); /* unheard of at A */
    for (unsigned n = 0; n < 30; n += 3)
        assert_int_equal(delete (a, n), 0);
    compact(a);
    merge_rows_of(b, a);
    adopt_from(b, a);
    expect_sound(b, NULL);
    for (unsigned n = 0; n < 30; n += 3)
        expect_deleted(b, n);
    expect_body(b, 100, 77);
    assert_true(events_of(b) > 30);
    assert_int_equal(sync_to(a, b), 0);
    expect_equal(a, b);
    compact(b);
    apply(b);
    assert_int_equal(events_of(b), 0);
    expect_sound(b, NULL);
    rebuild(b);
    expect_equal(a, b);
    expect_body(b, 100, 77);
    node_close(b, true);
    node_close(a, true);
}

/* Tombstones of many large files in one chunk: each file goes. */
static void merged_tombstones_free_bodies(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;
    struct journal_stats stats;
    struct db_reader *reader;

    node_open(a, false);
    node_open(b, false);
    for (unsigned n = 0; n < 80; n++)
        assert_int_equal(put_large(b, n, 257 * 1024), 0);
    for (unsigned n = 0; n < 80; n++)
        assert_int_equal(delete (a, n), 0);
    merge_rows_of(b, a);
    journal_stats(b->journal, &stats);
    assert_int_equal(stats.objects, 0);
    settle(b);
    reader = reader_of(b);
    db_reader_close(&reader);
    shell("test -z \"$(find '%s/large' '%s/tmp' -type f)\"", b->files, b->files);
    expect_sound(b, NULL);
    node_close(b, true);
    node_close(a, true);
}

static int give_chunk(struct node *node, const struct buf *chunk)
{
    uint32_t len = (uint32_t)chunk->len;
    struct buf data;

    buf_init(&data, 0);
    buf_add(&data, &len, sizeof len);
    buf_add(&data, chunk->data, chunk->len);
    int rc = give(node, CHANGE_MERGE, data.data, data.len);

    buf_release(&data);
    return rc;
}

static int give_placed(struct node *node, const struct object *like, struct text name,
                       struct text place)
{
    const struct text none = {NULL, 0};
    struct object *row = object_create_placed(like, name, none, none, place);
    struct snapshot_writer writer;
    struct buf chunk;

    snapshot_writer_init(&writer);
    snapshot_begin_chunk(&writer, SNAPSHOT_ROWS);
    assert_int_equal(snapshot_add_row(&writer, row), 0);
    buf_init(&chunk, 0);
    snapshot_end_chunk(&writer, &first_id, 0, &chunk);
    int rc = give_chunk(node, &chunk);

    buf_release(&chunk);
    snapshot_writer_release(&writer);
    object_destroy(&row);
    return rc;
}

static int give_row(struct node *node, const struct object *like, struct text name)
{
    return give_placed(node, like, name, (struct text){NULL, 0});
}

/* What no events could have led to is refused, and nothing is left of it. */
static void rows_that_cannot_be_are_refused(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a;
    const struct text none = {NULL, 0}, fine = {"name", 4}, broken = {"\xff\xfe", 2};
    const struct object good = {.id = make_id(1),
                                .flags = OBJECT_PUT,
                                .put_at = {5, {{1}}},
                                .name_at = {5, {{1}}},
                                .size = 3,
                                .level = 1};
    struct object bad, *found;
    struct buf chunk;

    node_open(a, false);
    assert_int_equal(give_row(a, &good, broken), ERR_INVALID);
    bad = good, bad.level = 3;
    assert_int_equal(give_row(a, &bad, fine), ERR_INVALID);
    bad = good, bad.id = first_id;
    assert_int_equal(give_row(a, &bad, fine), ERR_INVALID);
    bad = good, bad.put_at.stamp = 0;
    assert_int_equal(give_row(a, &bad, fine), ERR_INVALID);
    bad = good, bad.flags |= OBJECT_DELETED, bad.deleted_at = 9;
    assert_int_equal(give_row(a, &bad, fine), ERR_INVALID);
    bad = good, bad.deleted_at = 9;
    assert_int_equal(give_row(a, &bad, fine), ERR_INVALID);
    bad = (struct object){.id = make_id(1), .flags = OBJECT_DELETED};
    assert_int_equal(give_row(a, &bad, none), ERR_INVALID);
    /* What no cloud event has said, and no delete. */
    bad = good, bad.uploaded_at.stamp = 6;
    assert_int_equal(give_row(a, &bad, fine), ERR_INVALID);
    bad = good, bad.purged_of.stamp = 6;
    assert_int_equal(give_row(a, &bad, fine), ERR_INVALID);
    bad = good, bad.flags |= OBJECT_MARKED;
    assert_int_equal(give_row(a, &bad, fine), ERR_INVALID);
    bad = good, bad.flags |= OBJECT_CLOUD | OBJECT_PURGE;
    assert_int_equal(give_row(a, &bad, fine), ERR_INVALID);
    bad = good, bad.flags |= OBJECT_CLOUD;
    assert_int_equal(give_placed(a, &bad, fine, (struct text){"s3\0b\0k\0e", 8}), ERR_INVALID);
    bad.uploaded_at.stamp = 6;
    assert_int_equal(give_placed(a, &bad, fine, (struct text){"s3\0b\0\0e", 7}), ERR_INVALID);
    assert_int_equal(give_placed(a, &bad, fine, (struct text){"s3\0b\0k", 6}), ERR_INVALID);
    buf_init(&chunk, 0);
    buf_add(&chunk, "\x93\x01\x02\x03", 4);
    assert_int_equal(give_chunk(a, &chunk), ERR_INVALID);
    buf_release(&chunk);
    assert_int_equal(give(a, CHANGE_MERGE, "\x09\x00\x00\x00zz", 6), ERR_INVALID);
    assert_true(digest_of(a).low == 0);
    assert_int_equal(give_row(a, &good, fine), 0);
    assert_true(digest_of(a).low != 0);
    bad.id = make_id(2);
    assert_int_equal(give_placed(a, &bad, fine, (struct text){"s3\0b\0k\0e", 8}), 0);
    bad = (struct object){.id = make_id(3),
                          .flags = OBJECT_DELETED | OBJECT_CLOUD | OBJECT_PURGE | OBJECT_MARKED,
                          .uploaded_at = {6, {{1}}},
                          .purged_of = {5, {{1}}},
                          .deleted_at = 4};
    assert_int_equal(give_placed(a, &bad, none, (struct text){"s3\0b\0k\0e", 8}), 0);
    expect_sound(a, NULL);
    assert_int_equal(find(a, 3, &found), 0);
    assert_true(object_owes_purge(found) && found->cloud_len == 8);
    object_destroy(&found);
    node_close(a, true);
}

/* A batch that failed adopts nothing. */
static void a_failed_batch_adopts_nothing(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;
    struct buf vector;

    node_open(a, false);
    node_open(b, false);
    for (unsigned n = 0; n < 5; n++)
        assert_int_equal(put(a, n, 20), 0);
    vector_of(a, &vector);
    assert_int_equal(put(b, 50, 20), 0);
    b->fault.only = "/log/";
    b->fault.error = ERR_IO;
    b->fault.fail_write = 1;
    assert_int_not_equal(give(b, CHANGE_MERGE, vector.data, vector.len), 0);
    assert_int_equal(sync_to(b, a), 0); /* from the first event on: no head was moved */
    expect_body(b, 50, 20);
    assert_int_equal(events_of(b), 6);
    expect_sound(b, NULL);
    buf_release(&vector);
    node_close(b, true);
    node_close(a, true);
}

/* ---- Sums ---- */

static void expect_sums(struct node *node, struct db_fence *fences, size_t count, uint64_t rows)
{
    struct db_reader *reader = reader_of(node);
    struct hash128 sum = {0, 0}, digest = digest_of(node);
    struct id128 at = first_id;
    uint64_t seen = 0;
    size_t done, from = 0;

    for (; from < count; from += done) {
        assert_int_equal(db_merge_sums(reader, &at, fences + from, count - from, &done), 0);
        assert_true(done > 0);
        for (size_t i = from; i < from + done; i++) {
            seen += fences[i].count;
            sum.low += fences[i].sum.low;
            sum.high += fences[i].sum.high;
            at = fences[i].id;
        }
    }
    assert_int_equal(seen, rows);
    assert_true(sum.low == digest.low && sum.high == digest.high);
    db_reader_close(&reader);
}

/* The sums of all ranges are the digest, however they are cut; equal ranges have equal sums, and
 * one that differs shows. */
static void sums_tell_where_rows_differ(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;
    struct db_fence mine[64], theirs[64];
    struct db_reader *reader;
    size_t count, differ = 0;

    node_open(a, false);
    node_open(b, false);
    for (unsigned n = 0; n < 200; n++)
        assert_int_equal(put(a, n * 10, 20), 0);
    assert_int_equal(delete (a, 50), 0);
    assert_int_equal(sync_to(b, a), 0);
    reader = reader_of(a);
    assert_int_equal(db_merge_split(reader, &first_id, &db_last_id, 7, 64, mine, &count), 0);
    assert_int_equal(count, 29);
    assert_true(id_equal(&mine[28].id, &db_last_id));
    assert_int_equal(mine[28].count, 200 - 28 * 7);
    memcpy(theirs, mine, sizeof mine);
    expect_sums(a, mine, count, 200);
    expect_sums(b, theirs, count, 200);
    assert_memory_equal(mine, theirs, count * sizeof *mine);
    assert_int_equal(put(b, 1234, 20), 0);
    assert_int_equal(delete (b, 600), 0);
    assert_int_equal(put(b, 99999, 20), 0); /* behind the last of A's */
    expect_sums(b, theirs, count, 202);
    for (size_t i = 0; i < count; i++)
        differ += memcmp(&mine[i], &theirs[i], sizeof *mine) != 0;
    assert_int_equal(differ, 3);
    /* Few fences: the rest later. */
    assert_int_equal(db_merge_split(reader, &first_id, &db_last_id, 7, 3, mine, &count), 0);
    assert_int_equal(count, 3);
    struct id128 want = make_id(200);
    assert_true(id_equal(&mine[2].id, &want));
    db_reader_close(&reader);
    node_close(b, true);
    node_close(a, true);
}

/* A read covers whole ids, and ends where it says. */
static void ranges_are_read_in_whole_ids(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;
    struct id128 after = make_id(10), through = make_id(20), last;
    struct db_reader *reader;
    struct buf data;

    node_open(a, false);
    node_open(b, false);
    for (unsigned n = 0; n < 40; n++)
        assert_int_equal(put(a, n, 20), 0);
    reader = reader_of(a);
    buf_init(&data, 0);
    assert_int_equal(db_merge_rows(reader, &after, &through, &data, &last), 0);
    assert_true(id_equal(&last, &through));
    assert_int_equal(give(b, CHANGE_MERGE, data.data, data.len), 0);
    for (unsigned n = 0; n < 40; n++) {
        struct object *object = NULL;

        assert_int_equal(find(b, n, &object), n > 10 && n <= 20 ? 0 : ERR_NOT_FOUND);
        object_destroy(&object);
    }
    buf_release(&data);
    db_reader_close(&reader);
    expect_sound(b, NULL);
    node_close(b, true);
    node_close(a, true);
}

static void count_wholesale_news(void *arg, const struct journal_copy_news *news)
{
    unsigned *count = arg;

    *count += !news->event;
}

/* Who waits for copies is told to look again, as no event says which ones came. */
static void whoever_counts_copies_hears_of_a_merge(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;
    unsigned count = 0;

    node_open(a, false);
    node_open(b, false);
    journal_listen_copies(b->journal, count_wholesale_news, &count);
    assert_int_equal(put(b, 1, 100), 0);
    apply(b);
    assert_int_equal(count, 0);
    assert_int_equal(put(a, 2, 100), 0);
    merge_rows_of(b, a);
    apply(b);
    assert_true(count >= 1);
    node_close(a, true);
    node_close(b, true);
}

/* The run of this node that FROM knows and TO does not. */
static struct id128 lost_run(struct node *to, struct node *from)
{
    struct id128 self = journal_node(to->journal), lost = {{0}};
    struct db_reader *there = reader_of(from), *here = reader_of(to);
    struct db_origin *theirs, *ours;
    size_t their_count, our_count;
    unsigned found = 0;

    assert_int_equal(db_reader_origins(there, &theirs, &their_count), 0);
    assert_int_equal(db_reader_origins(here, &ours, &our_count), 0);
    for (size_t i = 0; i < their_count; i++) {
        bool known = !id_equal(&theirs[i].node, &self);

        for (size_t k = 0; k < our_count && !known; k++)
            known = id_equal(&ours[k].origin, &theirs[i].origin);
        if (!known) {
            lost = theirs[i].origin;
            found++;
        }
    }
    assert_int_equal(found, 1);
    free(theirs);
    free(ours);
    db_reader_close(&there);
    db_reader_close(&here);
    return lost;
}

/* As cluster_merge does: the runs of its own that TO is about to adopt are told with the rows. */
static void merge_lost(struct node *to, struct node *from)
{
    const struct id128 lost = lost_run(to, from);
    struct db_reader *reader = reader_of(from);
    struct id128 next;
    struct buf data;

    buf_init(&data, 0);
    assert_int_equal(db_merge_members(reader, &first_id, &data, &next), 0);
    assert_int_equal(db_merge_rows(reader, &first_id, &db_last_id, &data, &next), 0);
    assert_true(id_equal(&next, &db_last_id));
    struct change change = {.request.kind = CHANGE_MERGE,
                            .events = (const uint8_t *)data.data,
                            .events_bytes = data.len,
                            .lost_runs = &lost,
                            .lost_run_count = 1,
                            .done = done};
    assert_int_equal(journal_submit(to->journal, &change), 0);
    while (journal_commit_step(to->journal))
        ;
    assert_int_equal(change.rc, 0);
    buf_release(&data);
    db_reader_close(&reader);
    adopt_from(to, from);
}

/* B goes back to a backup. What it put and copied since comes back as rows, as A has no events of
 * it any more: nobody counts on these copies, and they can be made again. */
static void a_restored_node_drops_what_rows_say_it_has(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;
    char command[512];

    node_open(a, false);
    node_open(b, false);
    join_as(a, "10.0.0.1:1");
    join_as(b, "10.0.0.2:1");
    assert_int_equal(put(a, 1, 500), 0);
    assert_int_equal(put(b, 2, 500), 0);
    assert_int_equal(sync_to(a, b), 0);
    node_close(b, true);
    snprintf(command, sizeof command, "cp -a '%s' '%s.backup'", b->root, b->root);
    assert_int_equal(system(command), 0);
    node_open(b, false);
    assert_int_equal(sync_to(b, a), 0);
    assert_int_equal(put(b, 3, 500), 0);
    assert_int_equal(hold(b, 1, 500), 0);
    assert_int_equal(sync_to(a, b), 0);
    assert_int_equal(holders_of(a, 1), 2);
    assert_int_equal(holders_of(a, 3), 1);
    compact(a);
    node_close(b, true);
    snprintf(command, sizeof command, "rm -rf '%s' && mv '%s.backup' '%s'", b->root, b->root,
             b->root);
    assert_int_equal(system(command), 0);
    node_open(b, false);
    merge_lost(b, a);
    assert_int_equal(sync_to(a, b), 0);
    for (int i = 0; i < 2; i++) {
        struct node *node = i == 0 ? a : b;

        assert_int_equal(holders_of(node, 1), 1);
        assert_int_equal(holders_of(node, 2), 1); /* which the backup has */
        assert_int_equal(holders_of(node, 3), 0);
        expect_sound(node, NULL);
    }
    expect_equal(a, b);
    assert_int_equal(hold(b, 1, 500), 0);
    assert_int_equal(sync_to(a, b), 0);
    assert_int_equal(holders_of(a, 1), 2);
    node_close(b, true);
    node_close(a, true);
}

/* B ran on a backup for a while, and said that it lacks what it lacked then. It is back on its own
 * disk, and that comes back as rows: it has the bytes, and says so. */
static void what_rows_say_it_lacks_and_it_has_is_held_again(void **state)
{
    struct trio *trio = *state;
    struct node *a = trio->a, *b = trio->b;
    char command[512];

    node_open(a, false);
    node_open(b, false);
    join_as(a, "10.0.0.1:1");
    join_as(b, "10.0.0.2:1");
    node_close(b, true);
    snprintf(command, sizeof command, "cp -a '%s' '%s.backup'", b->root, b->root);
    assert_int_equal(system(command), 0);
    node_open(b, false);
    assert_int_equal(put(b, 3, 500), 0);
    assert_int_equal(sync_to(a, b), 0);
    node_close(b, true);
    snprintf(command, sizeof command, "mv '%s' '%s.own' && mv '%s.backup' '%s'", b->root, b->root,
             b->root, b->root);
    assert_int_equal(system(command), 0);
    node_open(b, false);
    compact(a);
    merge_lost(b, a);
    assert_int_equal(sync_to(a, b), 0);
    assert_int_equal(holders_of(a, 3), 0);
    compact(a);
    node_close(b, true);
    snprintf(command, sizeof command, "rm -rf '%s' && mv '%s.own' '%s'", b->root, b->root, b->root);
    assert_int_equal(system(command), 0);
    node_open(b, false);
    merge_lost(b, a);
    assert_int_equal(sync_to(a, b), 0);
    assert_int_equal(holders_of(a, 3), 1);
    assert_int_equal(holders_of(b, 3), 1);
    expect_equal(a, b);
    expect_sound(b, NULL);
    node_close(b, true);
    node_close(a, true);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup_trio, teardown_trio)
    const struct CMUnitTest tests[] = {
        test(whoever_counts_copies_hears_of_a_merge),
        test(a_joiner_gets_what_was_compacted),
        test(what_was_merged_lasts),
        test(who_was_away_honours_what_was_deleted),
        test(merged_tombstones_free_bodies),
        test(rows_that_cannot_be_are_refused),
        test(a_failed_batch_adopts_nothing),
        test(sums_tell_where_rows_differ),
        test(ranges_are_read_in_whole_ids),
        test(a_restored_node_drops_what_rows_say_it_has),
        test(what_rows_say_it_lacks_and_it_has_is_held_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
