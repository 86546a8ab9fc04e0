/* Goal: what the journal has acknowledged survives whatever happens to the process and to its
 * database, and space that nothing needs comes back. Real files in a temporary directory. */
#include "tests/unit/journal_fixture.h"

static void a_put_is_found_before_and_after_it_is_applied(void **state)
{
    struct node *node = *state;

    node_open(node, false);
    assert_int_equal(put(node, 1, 1000), 0);
    expect_body(node, 1, 1000);
    assert_true(journal_apply_step(node->journal) > 0);
    expect_body(node, 1, 1000);
    assert_int_equal(put(node, 2, 0), 0);
    assert_int_equal(put(node, 3, 256 * 1024), 0);
    expect_body(node, 2, 0);
    expect_body(node, 3, 256 * 1024);
    expect_sound(node, NULL);
    node_close(node, true);
}

static void other_bytes_conflict_and_a_deleted_id_stays_deleted(void **state)
{
    struct node *node = *state;
    uint8_t other[10] = "something";
    struct change change;

    node_open(node, false);
    assert_int_equal(put(node, 1, 1000), 0);
    prepare_put(&change, 1, other, sizeof other);
    assert_int_equal(commit(node, &change), ERR_CONFLICT);
    assert_int_equal(delete (node, 1), 0);
    assert_int_equal(delete (node, 1), 0);
    assert_int_equal(delete (node, 77), 0);
    assert_int_equal(put(node, 1, 1000), ERR_DELETED);
    assert_int_equal(put(node, 77, 10), ERR_DELETED);
    expect_deleted(node, 1);
    expect_sound(node, NULL);
    node_close(node, false);
    node_open(node, false);
    expect_deleted(node, 1);
    expect_deleted(node, 77);
    assert_int_equal(put(node, 77, 10), ERR_DELETED);
    node_close(node, true);
}

static void everything_acknowledged_survives_a_kill(void **state)
{
    struct node *node = *state;
    struct hash128 digest;

    node_open(node, false);
    for (unsigned n = 0; n < 60; n++)
        assert_int_equal(put(node, n, n * 100), 0);
    while (journal_apply_step(node->journal))
        ;
    assert_int_equal(put_large(node, 100, 300 * 1024), 0);
    assert_int_equal(put_large(node, 101, 300 * 1024 + 7), 0);
    for (unsigned n = 60; n < 90; n++)
        assert_int_equal(put(node, n, n * 100), 0);
    for (unsigned n = 0; n < 90; n += 3)
        assert_int_equal(delete (node, n), 0);
    assert_int_equal(delete (node, 100), 0);
    digest = digest_of(node);
    node_close(node, false); /* nothing since the first apply step is in SQLite */

    node_open(node, false);
    expect_sound(node, &digest);
    for (unsigned n = 0; n < 90; n++)
        if (n % 3)
            expect_body(node, n, n * 100);
        else
            expect_deleted(node, n);
    expect_deleted(node, 100);
    expect_body(node, 101, 300 * 1024 + 7);
    node_close(node, true);
    node_open(node, false);
    expect_sound(node, &digest);
    node_close(node, true);
}

static void each_run_is_an_origin_of_its_own_that_follows_the_last(void **state)
{
    struct node *node = *state;
    struct journal_stats first, second;

    node_open(node, false);
    assert_int_equal(put(node, 1, 10), 0);
    journal_stats(node->journal, &first);
    node_close(node, false);
    node_open(node, false);
    assert_int_equal(put(node, 2, 10), 0);
    journal_stats(node->journal, &second);
    assert_false(id_equal(&first.origin, &second.origin));
    expect_sound(node, NULL);

    struct db_reader *reader;
    struct db_origin *origins;
    size_t count;

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    assert_int_equal(count, 2);
    assert_true(origins[0].ended);
    assert_false(origins[1].ended);
    free(origins);
    db_reader_close(&reader);
    node_close(node, true);
}

static void a_lost_database_is_rebuilt_from_the_log(void **state)
{
    struct node *node = *state;
    uint64_t events = 0, objects = 0;
    struct hash128 digest;
    char path[160];

    node_open(node, false);
    for (unsigned n = 0; n < 200; n++)
        assert_int_equal(put(node, n, 3000), 0);
    for (unsigned n = 0; n < 200; n += 2)
        assert_int_equal(delete (node, n), 0);
    assert_int_equal(put_large(node, 500, 400 * 1024), 0);
    digest = digest_of(node);
    node_close(node, true);

    snprintf(path, sizeof path, "%s/journal.db", node->state);
    assert_int_equal(truncate(path, 1000), 0);
    assert_int_equal(store_dirs_inspect(&node->dirs, env_system(), node->state, node->files,
                                        node->message, sizeof node->message),
                     0);
    if (journal_rebuild(&node->dirs, &events, &objects, node->message, sizeof node->message) != 0)
        fail_msg("%s", node->message);
    store_dirs_close(&node->dirs);
    assert_int_equal(events, 301);
    assert_int_equal(objects, 101);
    node_open(node, false);
    expect_sound(node, &digest);
    for (unsigned n = 1; n < 200; n += 2)
        expect_body(node, n, 3000);
    expect_body(node, 500, 400 * 1024);
    node_close(node, true);
}

static uint64_t files_bytes(const struct node *node)
{
    char command[400], line[64] = "";

    snprintf(command, sizeof command,
             "du -sb --apparent-size '%s/log' '%s/large' | awk '{s+=$1}END{print s}'", node->files,
             node->files);
    FILE *pipe = popen(command, "r");

    assert_non_null(pipe);
    assert_non_null(fgets(line, sizeof line, pipe));
    pclose(pipe);
    return strtoull(line, NULL, 10);
}

static void space_of_deleted_bodies_comes_back(void **state)
{
    struct node *node = *state;
    struct journal_stats stats;
    struct hash128 digest;

    node_open(node, false);
    for (unsigned n = 0; n < 300; n++)
        assert_int_equal(put(node, n, 8000), 0);
    assert_int_equal(put_large(node, 1000, 2 * MIB), 0);
    while (journal_apply_step(node->journal))
        ;
    uint64_t full = files_bytes(node);

    for (unsigned n = 0; n < 300; n++)
        if (n % 10)
            assert_int_equal(delete (node, n), 0);
    assert_int_equal(delete (node, 1000), 0);
    digest = digest_of(node);
    settle(node);
    journal_stats(node->journal, &stats);
    assert_true(stats.cleaned_segments >= 6);
    assert_true(files_bytes(node) < full - 3 * MIB);
    for (unsigned n = 0; n < 300; n += 10)
        expect_body(node, n, 8000);
    expect_sound(node, &digest);
    node_close(node, false);

    node_open(node, false); /* the moves hold across a kill … */
    expect_sound(node, &digest);
    for (unsigned n = 0; n < 300; n += 10)
        expect_body(node, n, 8000);
    node_close(node, true);

    uint64_t events, objects; /* … and a rebuild */

    assert_int_equal(store_dirs_inspect(&node->dirs, env_system(), node->state, node->files,
                                        node->message, sizeof node->message),
                     0);
    assert_int_equal(
        journal_rebuild(&node->dirs, &events, &objects, node->message, sizeof node->message), 0);
    store_dirs_close(&node->dirs);
    assert_int_equal(objects, 30);
    node_open(node, false);
    expect_sound(node, &digest);
    for (unsigned n = 0; n < 300; n += 10)
        expect_body(node, n, 8000);
    node_close(node, true);
}

static void a_backup_of_a_running_node_starts_as_that_node(void **state)
{
    struct node *node = *state;
    char dir[128], copy_state[200], copy_files[200];
    struct hash128 digest;

    node_open(node, false);
    for (unsigned n = 0; n < 50; n++)
        assert_int_equal(put(node, n, 5000), 0);
    assert_int_equal(put_large(node, 90, 300 * 1024), 0);
    while (journal_apply_step(node->journal))
        ;
    digest = digest_of(node);
    snprintf(dir, sizeof dir, "%s/backup", node->root);
    if (journal_backup(node->journal, dir, node->message, sizeof node->message) != 0)
        fail_msg("%s", node->message);
    assert_int_equal(journal_backup(node->journal, dir, node->message, sizeof node->message),
                     ERR_EXISTS);
    for (unsigned n = 0; n < 50; n++)
        assert_int_equal(delete (node, n), 0);
    assert_int_equal(delete (node, 90), 0);
    settle(node);
    node_close(node, true);

    snprintf(copy_state, sizeof copy_state, "%s/state", dir);
    snprintf(copy_files, sizeof copy_files, "%s/files", dir);
    snprintf(node->state, sizeof node->state, "%.90s", copy_state);
    snprintf(node->files, sizeof node->files, "%.90s", copy_files);
    node_open(node, false);
    expect_sound(node, &digest);
    for (unsigned n = 0; n < 50; n++)
        expect_body(node, n, 5000);
    expect_body(node, 90, 300 * 1024);
    node_close(node, true);
}

static void an_older_files_directory_is_refused_and_an_accepted_loss_is_journaled(void **state)
{
    struct node *node = *state;
    struct object *object = NULL;

    node_open(node, false);
    for (unsigned n = 0; n < 100; n++)
        assert_int_equal(put(node, n, 5000), 0);
    node_close(node, true);
    shell("cp -a '%s' '%s/older'", node->files, node->root);
    node_open(node, false);
    for (unsigned n = 100; n < 200; n++)
        assert_int_equal(put(node, n, 5000), 0);
    assert_int_equal(put_large(node, 300, 300 * 1024), 0);
    node_close(node, true);
    shell("rm -rf '%s' && mv '%s/older' '%s'", node->files, node->root, node->files);

    /* Its generation is older … */
    assert_int_equal(node_try(node, false), ERR_WRONG_STORE);
    assert_non_null(strstr(node->message, node->files));
    assert_int_equal(node_try(node, true), 0);
    for (unsigned n = 0; n < 100; n++)
        expect_body(node, n, 5000);
    for (unsigned n = 100; n < 200; n++) {
        assert_int_equal(find(node, n, &object), 0);
        assert_true(object->flags & OBJECT_PUT);
        assert_true(place_is_none(&object->place));
        object_destroy(&object);
    }
    assert_int_equal(find(node, 300, &object), 0);
    assert_true(place_is_none(&object->place));
    object_destroy(&object);
    assert_int_equal(put(node, 150, 5000), 0); /* the same bytes heal it */
    expect_body(node, 150, 5000);
    expect_sound(node, NULL);
    node_close(node, true);
    node_open(node, false);
    expect_body(node, 150, 5000);
    expect_sound(node, NULL);
    node_close(node, true);
}

static void a_log_that_ends_too_early_is_noticed_even_with_the_right_generation(void **state)
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
    assert_non_null(strstr(node->message, node->files));
}

/* ---- With threads ---- */

enum { WRITERS = 4, EACH = 500 };

struct waiter {
    struct change change;
    sem_t ready;
};

static void wake(struct change *change)
{
    sem_post(&((struct waiter *)change)->ready);
}

struct writer {
    struct node *node;
    unsigned first;
};

static void *write_many(void *arg)
{
    struct writer *writer = arg;
    uint8_t body[2000];
    struct waiter waiter;

    sem_init(&waiter.ready, 0, 0);
    for (unsigned n = writer->first; n < writer->first + EACH; n++) {
        make_body(body, sizeof body, n);
        prepare_put(&waiter.change, n, body, sizeof body);
        waiter.change.done = wake;
        assert_int_equal(journal_submit(writer->node->journal, &waiter.change), 0);
        sem_wait(&waiter.ready);
        assert_int_equal(waiter.change.rc, 0);
        object_destroy(&waiter.change.object);
    }
    sem_destroy(&waiter.ready);
    return NULL;
}

static void writers_in_parallel_all_get_their_acknowledgements(void **state)
{
    struct node *node = *state;
    struct writer writers[WRITERS];
    pthread_t threads[WRITERS];
    struct hash128 digest;

    node_open(node, true);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){node, i * EACH};
        pthread_create(&threads[i], NULL, write_many, &writers[i]);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned n = 0; n < WRITERS * EACH; n++)
        expect_body(node, n, 2000);
    digest = digest_of(node);
    node_close(node, true);
    node_open(node, false);
    assert_int_equal(node->journal->recovered_records, 0);
    expect_sound(node, &digest);
    node_close(node, true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_put_is_found_before_and_after_it_is_applied),
        TEST(other_bytes_conflict_and_a_deleted_id_stays_deleted),
        TEST(everything_acknowledged_survives_a_kill),
        TEST(each_run_is_an_origin_of_its_own_that_follows_the_last),
        TEST(a_lost_database_is_rebuilt_from_the_log),
        TEST(space_of_deleted_bodies_comes_back),
        TEST(a_backup_of_a_running_node_starts_as_that_node),
        TEST(an_older_files_directory_is_refused_and_an_accepted_loss_is_journaled),
        TEST(a_log_that_ends_too_early_is_noticed_even_with_the_right_generation),
        TEST(writers_in_parallel_all_get_their_acknowledgements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
