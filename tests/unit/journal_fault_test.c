/* Goal: what goes wrong in the commit path (the log cannot be written, or not be synced, SQLite
 * cannot apply, the applier lags behind) costs an answer at most: never an acknowledged change, a
 * counter, or a start. */
#include "tests/unit/journal_fixture.h"

/* Let every write of a file with ONLY in its path fail from now on. */
static void break_writes(struct node *node, const char *only, int error)
{
    node->fault.only = only;
    node->fault.error = error;
    node->fault.keep_failing = true;
    atomic_store(&node->fault.fail_write, 1);
}

static void mend(struct node *node)
{
    atomic_store(&node->fault.fail_write, 0);
    atomic_store(&node->fault.fail_sync, 0);
    node->fault.bad_to = 0;
    node->fault.keep_failing = false;
    node->fault.only = NULL;
}

static bool is_read_only(struct node *node)
{
    struct journal_stats stats;

    journal_stats(node->journal, &stats);
    return stats.read_only;
}

static void prepare_delete(struct change *change, unsigned n)
{
    *change = (struct change){.request = {.kind = CHANGE_DELETE, .id = make_id(n)}, .done = done};
}

static void a_batch_that_cannot_be_written_is_void_as_a_whole(void **state)
{
    struct node *node = *state;
    struct change changes[4];
    struct object *object;
    uint8_t body[500];

    node_open(node, false);
    assert_int_equal(put(node, 1, 1000), 0);
    struct hash128 digest = digest_of(node);

    make_body(body, sizeof body, 2);
    prepare_put(&changes[0], 2, body, sizeof body);
    prepare_delete(&changes[1], 1);
    prepare_delete(&changes[2], 1); /* a no-op that rests on the one before */
    prepare_put(&changes[3], 1, body, sizeof body);
    for (int i = 0; i < 4; i++)
        assert_int_equal(journal_submit(node->journal, &changes[i]), 0);
    break_writes(node, "/log/", ERR_NO_SPACE);
    assert_int_equal(journal_commit_step(node->journal), 4);
    mend(node);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(changes[i].rc, ERR_NO_SPACE);
        assert_null(changes[i].object);
        assert_int_equal(changes[i].lsn, 0);
        assert_false(changes[i].stored);
    }
    assert_int_equal(find(node, 2, &object), ERR_NOT_FOUND);
    expect_body(node, 1, 1000);
    expect_sound(node, &digest);
    assert_false(is_read_only(node));

    assert_int_equal(put(node, 2, 700), 0); /* other bytes than those that came to nothing */
    assert_int_equal(delete (node, 1), 0);
    digest = digest_of(node);
    node_close(node, false);
    node_open(node, false);
    expect_deleted(node, 1);
    expect_body(node, 2, 700);
    expect_sound(node, &digest);
    node_close(node, true);
}

static void a_full_disk_voids_a_large_put_and_leaves_no_file(void **state)
{
    struct node *node = *state;
    struct object *object;

    node_open(node, false);
    assert_int_equal(put(node, 1, 10), 0);
    break_writes(node, "/log/", ERR_NO_SPACE);
    assert_int_equal(put_large(node, 2, 300 * 1024), ERR_NO_SPACE);
    mend(node);
    assert_int_equal(find(node, 2, &object), ERR_NOT_FOUND);
    shell("test -z \"$(find '%s/tmp' '%s/large' -type f)\"", node->files, node->files);
    assert_int_equal(put_large(node, 2, 300 * 1024), 0);
    expect_body(node, 2, 300 * 1024);
    node_close(node, true);
}

static void
a_change_without_a_file_descriptor_left_is_refused_and_does_not_wait_for_ever(void **state)
{
    struct node *node = *state;

    node_open(node, false);
    assert_int_equal(put(node, 1, 1000), 0);
    node->fault.error = ERR_FULL;
    node->fault.keep_failing = true;
    atomic_store(&node->fault.fail_open, 1);
    /* It does not fit into what is left of the segment, and there is no other. */
    assert_int_equal(put(node, 2, LIMIT_INLINE_BODY_BYTES), ERR_NO_MEMORY);
    assert_false(committer_holds(node->journal));
    atomic_store(&node->fault.fail_open, 0);
    node->fault.keep_failing = false;
    assert_int_equal(put(node, 2, LIMIT_INLINE_BODY_BYTES), 0);
    expect_body(node, 2, LIMIT_INLINE_BODY_BYTES);
    node_close(node, true);
}

static void after_a_failed_sync_the_node_reads_on_and_a_restart_writes_again(void **state)
{
    struct node *node = *state;
    struct object *object = NULL;
    struct change change;
    uint8_t body[10];

    node_open(node, false);
    assert_int_equal(put(node, 1, 1000), 0);
    node->fault.only = "/log/";
    node->fault.error = ERR_IO;
    atomic_store(&node->fault.fail_sync, 1); /* once: it is not to be tried again */
    assert_int_equal(put(node, 2, 1000), ERR_IO);
    assert_true(is_read_only(node));
    make_body(body, sizeof body, 3);
    prepare_put(&change, 3, body, sizeof body);
    assert_int_equal(journal_submit(node->journal, &change), ERR_READ_ONLY);
    assert_int_equal(find(node, 2, &object), ERR_NOT_FOUND);
    expect_body(node, 1, 1000);

    /* That SQLite fails and recovers meanwhile changes nothing about it. */
    break_writes(node, "journal.db-wal", ERR_IO);
    assert_int_equal(journal_apply_step(node->journal), 0);
    mend(node);
    assert_true(journal_apply_step(node->journal) > 0);
    assert_true(is_read_only(node));
    assert_int_equal(journal_submit(node->journal, &change), ERR_READ_ONLY);
    expect_body(node, 1, 1000);
    node_close(node, true);

    node_open(node, false);
    assert_false(is_read_only(node));
    expect_body(node, 1, 1000);
    if (find(node, 2, &object) == 0) /* nobody was told either way */
        expect_body(node, 2, 1000);
    object_destroy(&object);
    assert_int_equal(put(node, 3, 1000), 0);
    expect_body(node, 3, 1000);
    expect_sound(node, NULL);
    node_close(node, true);
}

static void what_sqlite_cannot_apply_stays_pending_and_visible(void **state)
{
    struct node *node = *state;
    struct change change;

    node_open(node, false);
    assert_int_equal(put(node, 1, 1000), 0);
    while (journal_apply_step(node->journal))
        ;
    for (unsigned n = 2; n < 40; n++)
        assert_int_equal(put(node, n, 9000), 0);
    assert_int_equal(delete (node, 1), 0);
    assert_int_equal(put_large(node, 50, 300 * 1024), 0);
    struct hash128 digest = digest_of(node);

    break_writes(node, "journal.db-wal", ERR_NO_SPACE);
    for (int i = 0; i < 3; i++)
        assert_int_equal(journal_apply_step(node->journal), 0);
    assert_true(is_read_only(node));
    prepare_delete(&change, 2);
    assert_int_equal(journal_submit(node->journal, &change), ERR_READ_ONLY);
    expect_deleted(node, 1);
    expect_body(node, 2, 9000);
    expect_body(node, 50, 300 * 1024);
    mend(node);
    assert_true(journal_apply_step(node->journal) > 0);
    assert_false(is_read_only(node));
    expect_sound(node, &digest);
    assert_int_equal(delete (node, 2), 0);
    expect_sound(node, NULL);
    node_close(node, true);
    node_open(node, false);
    expect_body(node, 39, 9000);
    expect_sound(node, NULL);
    node_close(node, true);
}

/* The disk gives neither writes nor reads for a while: what the applier knew by heart of the state
 * before must not be counted twice. */
static void counters_are_right_after_a_rollback_that_could_not_be_read_back(void **state)
{
    struct node *node = *state;

    node_open(node, false);
    for (unsigned n = 0; n < 100; n++)
        assert_int_equal(put(node, n, 100), 0);
    while (journal_apply_step(node->journal))
        ;
    assert_int_equal(applier_checkpoint(node->journal), 0);
    for (unsigned n = 100; n < 200; n++)
        assert_int_equal(put(node, n, 100), 0);
    struct hash128 digest = digest_of(node);

    break_writes(node, "journal.db", ERR_IO);
    node->fault.bad_from = 0;
    node->fault.bad_to = UINT64_MAX / 2;
    assert_int_equal(journal_apply_step(node->journal), 0);
    atomic_store(&node->fault.fail_write, 0); /* reads still fail */
    assert_int_equal(journal_apply_step(node->journal), 0);
    mend(node);
    assert_true(journal_apply_step(node->journal) > 0);
    expect_sound(node, &digest);
    node_close(node, true);
    node_open(node, false);
    expect_sound(node, &digest);
    node_close(node, true);
}

static void a_stop_marks_nothing_clean_that_was_not(void **state)
{
    struct node *node = *state;

    node_open(node, false);
    assert_int_equal(put(node, 1, 1000), 0);
    break_writes(node, "journal.db-wal", ERR_IO);
    assert_int_equal(journal_apply_step(node->journal), 0);
    journal_stop(node->journal);
    mend(node);
    node_close(node, false);
    node_open(node, false);
    assert_true(node->journal->recovered_records > 0);
    expect_body(node, 1, 1000);
    expect_sound(node, NULL);
    node_close(node, true);
}

/* ---- Back-pressure ---- */

struct flood {
    struct change *changes;
    unsigned count, submitted;
    _Atomic unsigned answered, refused;
};

static struct flood flood;

static void count_answer(struct change *change)
{
    object_destroy(&change->object);
    if (change->rc)
        atomic_fetch_add(&flood.refused, 1);
    atomic_fetch_add(&flood.answered, 1);
}

/* Submit deletes of unknown ids until the queue is full or all are. */
static void pour(struct node *node)
{
    while (flood.submitted < flood.count) {
        struct change *change = &flood.changes[flood.submitted];

        prepare_delete(change, flood.submitted);
        change->done = count_answer;
        if (journal_submit(node->journal, change) != 0)
            break;
        flood.submitted++;
    }
}

static void begin_flood(unsigned count)
{
    flood = (struct flood){.changes = calloc(count, sizeof *flood.changes), .count = count};
    assert_non_null(flood.changes);
}

/* Fill the pending table to its bound, without an applier. */
static void fill_pending(struct node *node)
{
    while (pending_count(node->journal->pending) < LIMIT_PENDING_ENTRIES &&
           pending_bytes(node->journal->pending) < LIMIT_PENDING_BYTES) {
        pour(node);
        assert_true(journal_commit_step(node->journal) > 0);
    }
}

static void nap(void)
{
    const struct timespec moment = {.tv_nsec = 1000000};

    nanosleep(&moment, NULL);
}

static void with_a_full_pending_table_the_queue_fills_up_and_doors_are_told(void **state)
{
    struct node *node = *state;

    alarm(120);
    node_open(node, false);
    begin_flood(LIMIT_PENDING_ENTRIES + 4 * LIMIT_COMMIT_QUEUE);
    pthread_mutex_lock(&node->journal->applier.sums_lock); /* an applier that does not get on */
    fill_pending(node);
    uint64_t pending = pending_count(node->journal->pending);

    while (journal_commit_step(node->journal)) /* what is queued may still go */
        pending = pending_count(node->journal->pending);
    assert_int_equal(journal_start(node->journal), 0);
    node->threads = true;
    pour(node);
    assert_true(flood.submitted < flood.count); /* ERR_FULL came */
    assert_int_equal(pending_count(node->journal->pending), pending);
    pthread_mutex_unlock(&node->journal->applier.sums_lock);
    while (flood.submitted < flood.count) {
        pour(node);
        nap();
    }
    while (atomic_load(&flood.answered) < flood.count)
        nap();
    assert_int_equal(flood.refused, 0);
    node_close(node, true);
    node_open(node, false);
    expect_sound(node, NULL);
    expect_deleted(node, flood.count - 1);
    node_close(node, true);
    free(flood.changes);
    alarm(0);
}

static void a_full_pending_table_and_a_broken_database_do_not_hang_anyone(void **state)
{
    struct node *node = *state;

    alarm(120);
    node_open(node, false);
    begin_flood(2 * LIMIT_PENDING_ENTRIES);
    fill_pending(node);
    pour(node);
    break_writes(node, "journal.db-wal", ERR_NO_SPACE);
    assert_int_equal(journal_start(node->journal), 0);
    node->threads = true;
    while (atomic_load(&flood.answered) < flood.submitted) /* 503 rather than silence */
        nap();
    assert_true(flood.refused > 0);
    node_close(node, true);
    mend(node);
    node_open(node, false);
    expect_deleted(node, 0);
    expect_sound(node, NULL);
    node_close(node, true);
    free(flood.changes);
    alarm(0);
}

/* ---- Drops, async, loss ---- */

static int drop(struct node *node, unsigned n)
{
    struct object *object = NULL;
    struct change change = {.request = {.kind = CHANGE_DROP, .id = make_id(n), .damaged = true},
                            .done = done};

    assert_int_equal(find(node, n, &object), 0);
    change.request.checked = object->place;
    object_destroy(&object);
    return commit(node, &change);
}

static void expect_no_copy(struct node *node, unsigned n)
{
    struct object *object = NULL;

    assert_int_equal(find(node, n, &object), 0);
    assert_true(object->flags & OBJECT_PUT);
    assert_true(place_is_none(&object->place));
    object_destroy(&object);
}

static void a_dropped_copy_is_forgotten_until_the_bytes_come_again(void **state)
{
    struct node *node = *state;

    node_open(node, false);
    assert_int_equal(put(node, 1, 1000), 0);
    assert_int_equal(put_large(node, 2, 300 * 1024), 0);
    while (journal_apply_step(node->journal))
        ;
    assert_int_equal(drop(node, 1), 0);
    assert_int_equal(drop(node, 2), 0);
    expect_no_copy(node, 1);
    expect_sound(node, NULL);
    node_close(node, false);
    node_open(node, false);
    expect_no_copy(node, 1);
    expect_no_copy(node, 2);
    assert_int_equal(put(node, 1, 1000), 0);
    assert_int_equal(put_large(node, 2, 300 * 1024), 0);
    expect_body(node, 1, 1000);
    expect_body(node, 2, 300 * 1024);
    expect_sound(node, NULL);
    node_close(node, true);
    node_open(node, false);
    expect_body(node, 1, 1000);
    expect_body(node, 2, 300 * 1024);
    node_close(node, true);
}

static void async_answers_before_the_sync_and_checkpoints_after_one(void **state)
{
    struct node *node = *state;
    struct journal_stats stats;

    node->async = true;
    node_open(node, false);
    assert_int_equal(put(node, 0, 100), 0);
    int syncs = atomic_load(&node->fault.syncs);

    for (unsigned n = 1; n < 100; n++)
        assert_int_equal(put(node, n, 100), 0);
    assert_int_equal(atomic_load(&node->fault.syncs), syncs);
    journal_stats(node->journal, &stats);
    assert_int_equal(stats.syncs, 0);
    while (journal_apply_step(node->journal))
        ;
    node->fault.only = "/log/";
    node->fault.error = ERR_IO;
    atomic_store(&node->fault.fail_sync, 1);
    assert_int_not_equal(applier_checkpoint(node->journal), 0); /* never ahead of the log */
    mend(node);
    node_close(node, true);
    node_open(node, false);
    for (unsigned n = 0; n < 100; n++)
        expect_body(node, n, 100);
    expect_sound(node, NULL);
    node_close(node, true);
}

static void a_loss_is_accepted_where_the_generation_is_right_too(void **state)
{
    struct node *node = *state;

    node_open(node, false);
    for (unsigned n = 0; n < 30; n++)
        assert_int_equal(put(node, n, 5000), 0);
    node_close(node, true);
    shell("cp '%s/log/00000001.seg' '%s/older.seg'", node->files, node->root);
    node_open(node, false);
    for (unsigned n = 30; n < 200; n++)
        assert_int_equal(put(node, n, 5000), 0);
    node_close(node, true);
    shell("rm '%s'/log/*.seg && mv '%s/older.seg' '%s/log/00000001.seg'", node->files, node->root,
          node->files);
    assert_int_not_equal(node_try(node, false), 0);
    if (node_try(node, true) != 0)
        fail_msg("%s", node->message);
    expect_body(node, 3, 5000);
    expect_no_copy(node, 150);
    assert_int_equal(put(node, 150, 5000), 0);
    expect_sound(node, NULL);
    node_close(node, true);
    node_open(node, false);
    expect_body(node, 150, 5000);
    node_close(node, true);
}

static void a_lost_node_id_is_the_databases(void **state)
{
    struct node *node = *state;

    node_open(node, false);
    struct id128 id = journal_node(node->journal);

    assert_int_equal(put(node, 1, 10), 0);
    node_close(node, true);
    shell("rm '%s/NODE_ID'", node->state);
    node_open(node, false);
    struct id128 again = journal_node(node->journal);

    assert_true(id_equal(&again, &id));
    node_close(node, true);
    shell("echo 01ARZ3NDEKTSV4RRFFQ69G5FAV >'%s/NODE_ID'", node->state);
    assert_int_equal(node_try(node, false), ERR_WRONG_STORE);
    assert_non_null(strstr(node->message, "NODE_ID"));
}

static void what_a_start_cannot_read_is_not_passed_over(void **state)
{
    struct node *node = *state;
    uint64_t events, objects;

    node_open(node, false);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(put(node, n, 3000), 0);
    node_close(node, false); /* killed: the database has nothing of it */
    node->fault.only = "/log/";
    node->fault.bad_from = 30000;
    node->fault.bad_to = 36000;
    assert_int_equal(node_try(node, false), ERR_IO);
    assert_non_null(strstr(node->message, "/log/00000001.seg"));
    assert_non_null(strstr(node->message, "--accept-data-loss"));
    mend(node);
    node_open(node, false);
    for (unsigned n = 0; n < 20; n++)
        expect_body(node, n, 3000);
    expect_sound(node, NULL);
    struct hash128 digest = digest_of(node);

    node_close(node, true);

    /* A rebuild reads all of it. */
    node->fault.only = "/log/";
    node->fault.bad_to = 36000;
    for (int accept = 0; accept < 2; accept++) {
        assert_int_equal(store_dirs_inspect(&node->dirs, &node->env, node->state, node->files,
                                            node->message, sizeof node->message),
                         0);
        node->dirs.accept_loss = accept;
        int rc =
            journal_rebuild(&node->dirs, &events, &objects, node->message, sizeof node->message);

        store_dirs_close(&node->dirs);
        assert_int_equal(rc, accept ? 0 : ERR_IO);
        if (!accept)
            assert_non_null(strstr(node->message, "/log/00000001.seg"));
        if (!accept) { /* the database is the old one still */
            mend(node);
            node_open(node, false);
            expect_sound(node, &digest);
            node_close(node, true);
            node->fault.only = "/log/";
            node->fault.bad_to = 36000;
        }
    }
    assert_true(objects >= 16 && objects < 20);
    mend(node);
}

static void what_cannot_be_read_is_left_behind_where_that_is_accepted(void **state)
{
    struct node *node = *state;
    unsigned there = 0;
    struct object *object;

    node_open(node, false);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(put(node, n, 3000), 0);
    node_close(node, false);
    node->fault.only = "/log/";
    node->fault.bad_from = 30000;
    node->fault.bad_to = 36000;
    if (node_try(node, true) != 0)
        fail_msg("%s", node->message);
    for (unsigned n = 0; n < 20; n++) {
        if (find(node, n, &object) == 0) {
            there++;
            object_destroy(&object);
        }
    }
    assert_true(there >= 16 && there < 20);
    assert_int_equal(put(node, 100, 3000), 0);
    mend(node);
    node_close(node, true);
    node_open(node, false);
    expect_body(node, 100, 3000);
    expect_body(node, 19, 3000);
    node_close(node, true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_batch_that_cannot_be_written_is_void_as_a_whole),
        TEST(a_full_disk_voids_a_large_put_and_leaves_no_file),
        TEST(a_change_without_a_file_descriptor_left_is_refused_and_does_not_wait_for_ever),
        TEST(after_a_failed_sync_the_node_reads_on_and_a_restart_writes_again),
        TEST(what_sqlite_cannot_apply_stays_pending_and_visible),
        TEST(counters_are_right_after_a_rollback_that_could_not_be_read_back),
        TEST(a_stop_marks_nothing_clean_that_was_not),
        TEST(with_a_full_pending_table_the_queue_fills_up_and_doors_are_told),
        TEST(a_full_pending_table_and_a_broken_database_do_not_hang_anyone),
        TEST(a_dropped_copy_is_forgotten_until_the_bytes_come_again),
        TEST(async_answers_before_the_sync_and_checkpoints_after_one),
        TEST(a_loss_is_accepted_where_the_generation_is_right_too),
        TEST(a_lost_node_id_is_the_databases),
        TEST(what_a_start_cannot_read_is_not_passed_over),
        TEST(what_cannot_be_read_is_left_behind_where_that_is_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
