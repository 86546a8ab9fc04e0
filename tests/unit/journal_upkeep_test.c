/* Goal: upkeep (cleaning, garbage, scrub, backup, rebuild after them) frees what is dead, keeps
 * every acknowledged byte and fact, and gives up for a while only where the disk does. */
#include "tests/unit/journal_fixture.h"

/* Puts and deletes that make the segments so far worth cleaning. */
static void make_dead(struct node *node, unsigned first, unsigned count)
{
    for (unsigned n = first; n < first + count; n++)
        assert_int_equal(put(node, n, 8000), 0);
    for (unsigned n = first; n < first + count; n++)
        assert_int_equal(delete (node, n), 0);
}

static uint64_t cleaned(struct node *node)
{
    return atomic_load(&node->journal->cleaned_segments);
}

static void rebuild(struct node *node)
{
    uint64_t events, objects;

    assert_int_equal(store_dirs_inspect(&node->dirs, &node->env, node->state, node->files,
                                        node->message, sizeof node->message),
                     0);
    if (journal_rebuild(&node->dirs, &events, &objects, node->message, sizeof node->message) != 0)
        fail_msg("%s", node->message);
    store_dirs_close(&node->dirs);
}

static void drop(struct node *node, unsigned n)
{
    struct object *object = NULL;
    struct change change = {.request = {.kind = CHANGE_DROP, .id = make_id(n), .damaged = true},
                            .done = done};

    assert_int_equal(find(node, n, &object), 0);
    change.request.checked = object->place;
    object_destroy(&object);
    assert_int_equal(commit(node, &change), 0);
}

/* A moved drop speaks of the copy that was bad then, not of the one that came after it. */
static void cleaning_a_drop_leaves_the_healed_copy_alone(void **state)
{
    struct node *node = *state;
    struct object *object = NULL;

    node_open(node, false);
    assert_int_equal(put(node, 1, 3000), 0);
    assert_int_equal(put(node, 2, 3000), 0);
    drop(node, 1);
    drop(node, 2);
    assert_int_equal(put(node, 1, 3000), 0);
    make_dead(node, 100, 60);
    struct hash128 digest = digest_of(node);

    settle(node);
    assert_true(cleaned(node) > 0);
    expect_body(node, 1, 3000);
    expect_sound(node, &digest);
    node_close(node, false);
    node_open(node, false);
    expect_body(node, 1, 3000);
    make_dead(node, 200, 60); /* what was moved is moved again */
    settle(node);
    expect_body(node, 1, 3000);
    digest = digest_of(node);
    node_close(node, true);
    rebuild(node);
    node_open(node, false);
    expect_body(node, 1, 3000);
    assert_int_equal(find(node, 2, &object), 0);
    assert_true(place_is_none(&object->place));
    object_destroy(&object);
    expect_sound(node, &digest);
    node_close(node, true);
}

struct chains {
    struct id128 last;
    struct db_origin *origins;
    size_t count;
};

static struct chains chains_of(struct node *node)
{
    struct chains chains = {.last = node->journal->applier.state.last_origin};
    struct db_reader *reader;

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &chains.origins, &chains.count), 0);
    db_reader_close(&reader);
    return chains;
}

static const struct db_origin *origin_in(const struct chains *chains, const struct id128 *origin)
{
    for (size_t i = 0; i < chains->count; i++)
        if (id_equal(&chains->origins[i].origin, origin))
            return &chains->origins[i];
    fail_msg("an origin was lost");
    return NULL;
}

/* Cleaning moves the oldest events behind the newest: a rebuild meets the runs in another order. */
static void a_rebuild_after_cleaning_knows_which_run_was_the_last(void **state)
{
    struct node *node = *state;

    for (unsigned run = 0; run < 4; run++) {
        node_open(node, false);
        make_dead(node, 1000 * run, run < 3 ? 40 : 3);
        node_close(node, true);
    }
    node_open(node, false);
    settle(node);
    assert_true(cleaned(node) > 0);
    struct chains before = chains_of(node);

    assert_int_equal(before.count, 4);
    node_close(node, true);
    rebuild(node);
    node_open(node, false);
    struct chains after = chains_of(node);

    assert_int_equal(after.count, 4);
    assert_true(id_equal(&after.last, &before.last));
    for (size_t i = 0; i < before.count; i++) {
        const struct db_origin *was = &before.origins[i], *is = origin_in(&after, &was->origin);

        assert_int_equal(is->ended, was->ended);
        assert_int_equal(is->seq, was->seq);
        assert_memory_equal(is->hash, was->hash, SHA256_BYTES);
        assert_true(id_equal(&is->node, &was->node));
    }
    expect_sound(node, NULL);
    free(before.origins);
    free(after.origins);
    node_close(node, true);
}

static void begin_cleaning(struct node *node)
{
    while (journal_apply_step(node->journal))
        ;
    for (int i = 0; i < 100 && !atomic_load(&node->journal->cleaner.in_flight); i++)
        journal_upkeep_step(node->journal);
    assert_true(atomic_load(&node->journal->cleaner.in_flight) > 0);
}

/* A change that comes before the move of its object's record, and one that comes after it, in one
 * batch with it or in the next. */
static void a_move_and_a_change_of_its_object_agree(void **state)
{
    struct node *node = *state;
    struct change early = {.request = {.kind = CHANGE_DELETE, .id = make_id(1)}, .done = done};
    struct change late = {.request = {.kind = CHANGE_DELETE, .id = make_id(2)}, .done = done};
    struct change change;
    uint8_t body[3000];

    node_open(node, false);
    for (unsigned n = 1; n < 6; n++)
        assert_int_equal(put(node, n, 3000), 0);
    make_dead(node, 100, 40);
    assert_int_equal(journal_submit(node->journal, &early), 0); /* before the moves in the queue */
    begin_cleaning(node);
    assert_int_equal(journal_submit(node->journal, &late), 0);
    while (journal_commit_step(node->journal))
        ;
    assert_int_equal(early.rc, 0);
    assert_int_equal(late.rc, 0);
    object_destroy(&early.object);
    object_destroy(&late.object);
    drop(node, 3); /* it has been moved already: the drop is of the new place */
    make_body(body, sizeof body, 3);
    prepare_put(&change, 3, body, sizeof body);
    assert_int_equal(commit(node, &change), 0);
    struct hash128 digest = digest_of(node);

    settle(node);
    assert_true(cleaned(node) > 0);
    for (int round = 0; round < 2; round++) {
        expect_deleted(node, 1);
        expect_deleted(node, 2);
        for (unsigned n = 3; n < 6; n++)
            expect_body(node, n, 3000);
        expect_sound(node, &digest);
        node_close(node, round);
        node_open(node, false);
    }
    node_close(node, true);
}

static void cleaning_goes_on_after_the_disk_was_full_for_a_while(void **state)
{
    struct node *node = *state;

    node_open(node, false);
    assert_int_equal(put(node, 1, 3000), 0);
    make_dead(node, 100, 60);
    begin_cleaning(node);
    uint32_t volume = node->journal->cleaner.volume;

    node->fault.only = "/log/";
    node->fault.error = ERR_NO_SPACE;
    atomic_store(&node->fault.fail_write, 1);
    while (journal_commit_step(node->journal))
        ;
    for (int i = 0; i < 10; i++)
        journal_upkeep_step(node->journal);
    node->later_ms += 60000;
    settle(node);
    for (size_t i = 0; i < node->journal->applier.sum_count; i++)
        assert_int_not_equal(node->journal->applier.sums[i].volume, volume);
    expect_body(node, 1, 3000);
    expect_sound(node, NULL);
    node_close(node, true);
}

/* A body that reads back wrong just now may be whole on the disk: its segment is not given up for a
 * copy of what was read. */
static void a_rotten_body_is_not_moved(void **state)
{
    struct node *node = *state;
    struct object *object = NULL;

    node_open(node, false);
    assert_int_equal(put(node, 1, 3000), 0);
    make_dead(node, 100, 40);
    assert_int_equal(find(node, 1, &object), 0);
    shell("printf X | dd of='%s/log/%08x.seg' bs=1 seek=%llu conv=notrunc status=none", node->files,
          object->place.volume,
          (unsigned long long)object->place.offset + object->record_bytes - 9);
    settle(node);
    shell("test -e '%s/log/%08x.seg'", node->files, object->place.volume);
    object_destroy(&object);
    expect_sound(node, NULL);
    node_close(node, true);
}

/* ---- Scrub ---- */

#define DAY_MS (24 * 3600 * 1000ull)

static void scrub_for(struct node *node, unsigned steps)
{
    struct journal *journal = node->journal;

    while (journal_apply_step(journal))
        ;
    for (unsigned i = 0; i < steps; i++) {
        scrub_step(journal, &journal->scrub, journal->cleaner.reader, env_mono_ms(journal->env));
        node->later_ms += 1000;
    }
}

static void the_scrub_finds_a_flipped_byte_and_nothing_else(void **state)
{
    struct node *node = *state;
    struct object *object = NULL;
    struct journal_stats stats;

    node->scrub_interval_ms = DAY_MS;
    node_open(node, false);
    for (unsigned n = 0; n < 200; n++)
        assert_int_equal(put(node, n, 5000), 0);
    assert_int_equal(put_large(node, 500, 3 * MIB), 0);
    scrub_for(node, 1); /* the round begins one interval from here */
    node->later_ms += DAY_MS;
    scrub_for(node, 20);
    journal_stats(node->journal, &stats);
    assert_true(stats.scrub_finished_ms > 0);
    assert_int_equal(stats.scrub_done, 201);
    assert_int_equal(stats.scrub_errors, 0);
    assert_int_equal(stats.bad_blocks, 0);

    assert_int_equal(find(node, 77, &object), 0);
    shell("printf X | dd of='%s/log/%08x.seg' bs=1 seek=%llu conv=notrunc status=none", node->files,
          object->place.volume,
          (unsigned long long)object->place.offset + object->record_bytes - 9);
    object_destroy(&object);
    assert_int_equal(find(node, 500, &object), 0);
    shell("printf X | dd of='%s'/large/%02x/%016llx bs=1 seek=%llu conv=notrunc status=none",
          node->files, (unsigned)object->place.offset & 0xff,
          (unsigned long long)object->place.offset, 2 * MIB);
    object_destroy(&object);
    node->later_ms += DAY_MS;
    scrub_for(node, 20);
    journal_stats(node->journal, &stats);
    assert_int_equal(stats.scrub_errors, 2);
    assert_int_equal(stats.bad_blocks, 2);
    node_close(node, true);
}

static void the_scrub_misses_a_file_that_is_gone(void **state)
{
    struct node *node = *state;
    struct journal_stats stats;

    node->scrub_interval_ms = DAY_MS;
    node_open(node, false);
    assert_int_equal(put_large(node, 1, MIB), 0);
    assert_int_equal(put_large(node, 2, MIB), 0);
    scrub_for(node, 1);
    shell("find '%s/large' -type f | head -1 | xargs rm", node->files);
    node->later_ms += DAY_MS;
    scrub_for(node, 20);
    journal_stats(node->journal, &stats);
    assert_int_equal(stats.scrub_errors, 1);
    assert_int_equal(stats.scrub_done, 2);
    node_close(node, true);
}

/* Half a large body is read when its object goes; the next one is longer. */
static void the_scrub_survives_that_its_object_goes(void **state)
{
    struct node *node = *state;
    struct journal_stats stats;

    node->scrub_interval_ms = DAY_MS;
    node_open(node, false);
    assert_int_equal(put_large(node, 1, 2 * MIB), 0);
    assert_int_equal(put_large(node, 2, 6 * MIB), 0);
    scrub_for(node, 1);
    node->later_ms += DAY_MS;
    scrub_for(node, 1);
    assert_non_null(node->journal->scrub.reader);
    assert_int_equal(delete (node, 1), 0);
    scrub_for(node, 20);
    journal_stats(node->journal, &stats);
    assert_int_equal(stats.scrub_done, 1);
    assert_int_equal(stats.scrub_errors, 0);
    node_close(node, true);
}

/* ---- Backup ---- */

static void start_on_copy(struct node *node, const char *dir)
{
    snprintf(node->state, sizeof node->state, "%.80s/state", dir);
    snprintf(node->files, sizeof node->files, "%.80s/files", dir);
    node_open(node, false);
}

static void a_backup_in_the_middle_of_cleaning_has_everything(void **state)
{
    struct node *node = *state;
    char dir[128];

    node_open(node, false);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(put(node, n, 3000), 0);
    assert_int_equal(put_large(node, 50, 300 * 1024), 0);
    assert_int_equal(put_large(node, 51, 300 * 1024), 0);
    make_dead(node, 100, 80);
    assert_int_equal(delete (node, 51), 0);
    begin_cleaning(node);
    while (journal_commit_step(node->journal))
        ;
    struct hash128 digest = digest_of(node);

    snprintf(dir, sizeof dir, "%s/backup", node->root);
    if (journal_backup(node->journal, dir, node->message, sizeof node->message) != 0)
        fail_msg("%s", node->message);
    settle(node);
    assert_true(cleaned(node) > 0);
    for (unsigned n = 0; n < 20; n++)
        expect_body(node, n, 3000);
    node_close(node, true);

    start_on_copy(node, dir);
    expect_sound(node, &digest);
    for (unsigned n = 0; n < 20; n++)
        expect_body(node, n, 3000);
    expect_body(node, 50, 300 * 1024);
    expect_deleted(node, 51);
    settle(node);
    expect_body(node, 7, 3000);
    expect_sound(node, &digest);
    node_close(node, true);
}

/* A batch may have been begun and never written: what it was for was refused. */
static void a_backup_after_a_refusal(void **state)
{
    struct node *node = *state;
    char dir[128];

    node_open(node, false);
    assert_int_equal(put(node, 1, 3000), 0);
    committer_mark(node->journal);
    assert_int_equal(put(node, 1, 2000), ERR_CONFLICT);
    snprintf(dir, sizeof dir, "%s/backup", node->root);
    if (journal_backup(node->journal, dir, node->message, sizeof node->message) != 0)
        fail_msg("%s", node->message);
    assert_int_equal(put(node, 2, 3000), 0);
    node_close(node, true);
    start_on_copy(node, dir);
    expect_body(node, 1, 3000);
    node_close(node, true);
}

static void a_backup_that_cannot_seal_the_log_is_none(void **state)
{
    struct node *node = *state;
    char dir[128];

    node_open(node, false);
    assert_int_equal(put(node, 1, 3000), 0);
    while (journal_apply_step(node->journal))
        ;
    node->fault.only = "/log/";
    node->fault.error = ERR_IO;
    atomic_store(&node->fault.fail_sync, 1);
    assert_int_equal(put(node, 2, 3000), ERR_IO);
    snprintf(dir, sizeof dir, "%s/backup", node->root);
    assert_int_not_equal(journal_backup(node->journal, dir, node->message, sizeof node->message),
                         0);
    shell("test ! -e '%s/manifest.json'", dir);
    node_close(node, true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cleaning_a_drop_leaves_the_healed_copy_alone),
        TEST(a_rebuild_after_cleaning_knows_which_run_was_the_last),
        TEST(a_move_and_a_change_of_its_object_agree),
        TEST(cleaning_goes_on_after_the_disk_was_full_for_a_while),
        TEST(a_rotten_body_is_not_moved),
        TEST(the_scrub_finds_a_flipped_byte_and_nothing_else),
        TEST(the_scrub_misses_a_file_that_is_gone),
        TEST(the_scrub_survives_that_its_object_goes),
        TEST(a_backup_in_the_middle_of_cleaning_has_everything),
        TEST(a_backup_after_a_refusal),
        TEST(a_backup_that_cannot_seal_the_log_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
