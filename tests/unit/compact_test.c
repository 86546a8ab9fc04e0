/* Goal: compaction removes events and never a fact: whatever is compacted, killed, damaged or lost,
 * rows, digest and chains are those of a node that kept everything. */
#include "tests/unit/journal_fixture.h"

#include <glob.h>
#include <string.h>

/* ---- The store ---- */

/* No power is lost here, and every commit would wait for the disk. */
static int setup_unsynced(void **state)
{
    int rc = setup(state);

    ((struct node *)*state)->fault.skip_sync = true;
    return rc;
}

static int meta(struct node *node, unsigned n, const char *name)
{
    struct change change = {.request = {.kind = CHANGE_META,
                                        .id = make_id(n),
                                        .fields = EVENT_HAS_NAME | EVENT_HAS_EXPIRES,
                                        .name = {name, (uint32_t)strlen(name)},
                                        .expires_ms = 5000000000000},
                            .done = done};

    return commit(node, &change);
}

static int drop(struct node *node, unsigned n)
{
    struct object *object;

    assert_int_equal(find(node, n, &object), 0);
    struct change change = {.request = {.kind = CHANGE_DROP,
                                        .id = object->id,
                                        .checked = object->place,
                                        .damaged = true},
                            .done = done};

    object_destroy(&object);
    return commit(node, &change);
}

/* Puts, large ones too, meta, deletes of the known and the unknown, drops, with ids from FIRST on;
 * what the next call of expect_facts knows. */
static void write_facts(struct node *node, unsigned first)
{
    for (unsigned n = first; n < first + 60; n++)
        assert_int_equal(put(node, n, 2000), 0);
    assert_int_equal(put_large(node, first + 60, 300 * 1024), 0);
    assert_int_equal(put_large(node, first + 61, 300 * 1024), 0);
    assert_int_equal(delete (node, first + 61), 0);
    for (unsigned n = first; n < first + 60; n += 3)
        assert_int_equal(delete (node, n), 0);
    for (unsigned n = first + 1; n < first + 60; n += 6)
        assert_int_equal(meta(node, n, "other name"), 0);
    assert_int_equal(delete (node, first + 70), 0);
    assert_int_equal(drop(node, first + 2), 0);
    assert_int_equal(drop(node, first + 5), 0);
    assert_int_equal(put(node, first + 5, 2000), 0); /* stored again */
}

static void expect_facts(struct node *node, unsigned first)
{
    struct object *object;

    for (unsigned n = first; n < first + 60; n++)
        if ((n - first) % 3 == 0)
            expect_deleted(node, n);
        else if (n != first + 2)
            expect_body(node, n, 2000);
    expect_body(node, first + 60, 300 * 1024);
    expect_deleted(node, first + 61);
    expect_deleted(node, first + 70);
    assert_int_equal(find(node, first + 2, &object), 0);
    assert_true(place_is_none(&object->place));
    object_destroy(&object);
    assert_int_equal(find(node, first + 1, &object), 0);
    assert_int_equal(object->name_len, strlen("other name"));
    assert_true(object->expires_ms == 5000000000000);
    object_destroy(&object);
}

static void compact(struct node *node)
{
    struct journal_compact_result result;
    int rc = journal_compact(node->journal, &result);

    if (rc)
        fail_msg("%s", err_text(rc));
    assert_true(result.chunks >= 4);
}

static int try_rebuild(struct node *node)
{
    uint64_t events, objects;

    assert_int_equal(store_dirs_inspect(&node->dirs, &node->env, node->state, node->files,
                                        node->message, sizeof node->message),
                     0);
    int rc = journal_rebuild(&node->dirs, &events, &objects, node->message, sizeof node->message);

    store_dirs_close(&node->dirs);
    return rc;
}

struct last_events {
    struct db_origin *origins;
    size_t count;
};

static struct last_events last_events_of(struct node *node)
{
    struct db_reader *reader;
    struct last_events heads;

    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &heads.origins, &heads.count), 0);
    db_reader_close(&reader);
    return heads;
}

/* Every run ends in the same event. */
static void expect_heads(struct node *node, struct last_events *want)
{
    struct last_events got = last_events_of(node);

    for (size_t i = 0; i < want->count; i++) {
        bool found = false;

        for (size_t k = 0; k < got.count && !found; k++)
            found = id_equal(&got.origins[k].origin, &want->origins[i].origin) &&
                    got.origins[k].seq == want->origins[i].seq &&
                    memcmp(got.origins[k].hash, want->origins[i].hash, SHA256_BYTES) == 0 &&
                    got.origins[k].ended == want->origins[i].ended;
        assert_true(found);
    }
    free(got.origins);
    free(want->origins);
}

static uint64_t events_of(struct node *node)
{
    struct journal_stats stats;

    journal_stats(node->journal, &stats);
    return stats.events;
}

/* Stop, rebuild, start: nothing may have changed. */
static void rebuild_and_compare(struct node *node)
{
    struct hash128 digest = digest_of(node);
    uint64_t events = events_of(node);
    struct last_events heads = last_events_of(node);

    node_close(node, true);
    if (try_rebuild(node) != 0)
        fail_msg("%s", node->message);
    node_open(node, false);
    expect_sound(node, &digest);
    assert_int_equal(events_of(node), events);
    expect_heads(node, &heads);
}

/* ---- Tests ---- */

static void compaction_empties_the_table_of_events_and_changes_no_fact(void **state)
{
    struct node *node = *state;
    struct hash128 digest;

    node_open(node, false);
    write_facts(node, 1000);
    settle(node);
    assert_true(events_of(node) > 90);
    digest = digest_of(node);
    compact(node);
    assert_int_equal(events_of(node), 0);
    expect_sound(node, &digest);
    expect_facts(node, 1000);
    rebuild_and_compare(node);
    expect_facts(node, 1000);
    write_facts(node, 2000);
    digest = digest_of(node);
    node_close(node, false); /* a kill: the records behind the snapshot are replayed */
    node_open(node, false);
    expect_sound(node, &digest);
    expect_facts(node, 2000);
    rebuild_and_compare(node);
    assert_int_equal(put(node, 1003, 2000), ERR_DELETED);
    node_close(node, true);
}

static void what_two_snapshots_cover_leaves_the_log(void **state)
{
    struct node *node = *state;
    struct journal_stats before, after;

    node_open(node, false);
    for (unsigned round = 0; round < 4; round++) {
        write_facts(node, 1000 + 100 * round);
        for (unsigned i = 0; i < 60; i += 3) /* little but tombstones stays */
            assert_int_equal(delete (node, 1001 + 100 * round + i), 0);
    }
    for (unsigned n = 0; n < 400; n++) /* nothing but events */
        assert_int_equal(delete (node, 9000 + n), 0);
    settle(node);
    journal_stats(node->journal, &before);
    compact(node);
    settle(node);
    rebuild_and_compare(node);
    compact(node);
    assert_int_equal(put(node, 5000, 100), 0);
    compact(node);
    settle(node);
    journal_stats(node->journal, &after);
    assert_true(after.cleaned_segments > 0);
    assert_true(after.segments < before.segments);
    rebuild_and_compare(node);
    for (unsigned n = 0; n < 400; n++)
        expect_deleted(node, 9000 + n);
    expect_body(node, 1002 + 3, 2000);
    expect_deleted(node, 1001);
    node_close(node, true);
}

/* Flip a byte in every chunk of SNAPSHOT number WHICH that the log holds; -1: in all but the end.
 */
static unsigned damage(struct node *node, const struct id128 *snapshot, int which)
{
    char pattern[160];
    unsigned found = 0;
    glob_t names;

    snprintf(pattern, sizeof pattern, "%s/log/*.seg", node->files);
    assert_int_equal(glob(pattern, 0, NULL, &names), 0);
    for (size_t i = 0; i < names.gl_pathc; i++) {
        char *data;
        size_t len;

        assert_int_equal(io_read_all(io_system(), names.gl_pathv[i], 64 * MIB, &data, &len), 0);
        for (char *at = data; (at = memmem(at, len - (size_t)(at - data), snapshot, 16)) != NULL;
             at++)
            if (which < 0 || found++ == (unsigned)which)
                at[20] ^= 1;
        FILE *file = fopen(names.gl_pathv[i], "r+");

        assert_non_null(file);
        assert_int_equal(fwrite(data, 1, len, file), len);
        assert_int_equal(fclose(file), 0);
        free(data);
    }
    globfree(&names);
    return found;
}

static void a_damaged_snapshot_is_passed_over_and_two_are_refused(void **state)
{
    struct node *node = *state;
    struct id128 newest, older;
    struct hash128 digest;

    for (int which = 0; which < 5; which++) {
        node_open(node, false);
        for (int i = 0; i < 3; i++) {
            write_facts(node, 1000 + 1000 * (unsigned)which + 100 * (unsigned)i);
            compact(node);
            settle(node);
        }
        write_facts(node, 1300 + 1000 * (unsigned)which);
        digest = digest_of(node);
        assert_int_equal(node->journal->snapshots_known, 2);
        newest = node->journal->snapshots[0].id;
        older = node->journal->snapshots[1].id;
        node_close(node, true);
        assert_true(damage(node, &newest, which) > 3);
        if (try_rebuild(node) != 0)
            fail_msg("%s", node->message);
        node_open(node, false);
        expect_sound(node, &digest);
        for (unsigned i = 0; i < 4; i++)
            expect_facts(node, 1000 + 1000 * (unsigned)which + 100 * i);
        node_close(node, true);
    }
    damage(node, &older, 2);
    assert_int_equal(try_rebuild(node), ERR_CORRUPT);
    assert_non_null(strstr(node->message, "snapshots"));
    node_open(node, false); /* the database was not touched */
    expect_sound(node, &digest);
    node_close(node, true);
}

/* The Kth write, or sync, and all later ones fail; then the process is killed. */
static bool die_in_compaction(struct node *node, int k, bool sync)
{
    struct journal_compact_result result;

    atomic_store(sync ? &node->fault.fail_sync : &node->fault.fail_write, k);
    node->fault.keep_failing = true;
    node->fault.write_first = k % 2;
    int rc = journal_compact(node->journal, &result);

    for (int i = 0; i < 40; i++) { /* cleaning, too */
        journal_upkeep_step(node->journal);
        journal_commit_step(node->journal);
        journal_apply_step(node->journal);
        if (i % 4 == 3)
            applier_checkpoint(node->journal);
    }
    bool hit = atomic_load(sync ? &node->fault.fail_sync : &node->fault.fail_write) == 1;

    if (!hit)
        assert_int_equal(rc, 0);
    node_close(node, false);
    atomic_store(&node->fault.fail_sync, 0);
    atomic_store(&node->fault.fail_write, 0);
    node->fault.keep_failing = node->fault.write_first = false;
    return hit;
}

static void die_at_every_call(struct node *node, bool sync)
{
    bool hit = true;
    int k = 0;

    while (hit && k < 400) {
        unsigned first = 1000 + 100 * (unsigned)++k;

        node_open(node, false);
        write_facts(node, first);
        struct hash128 digest = digest_of(node);

        hit = die_in_compaction(node, k, sync);
        if (k % 7 == 0 && try_rebuild(node) != 0)
            fail_msg("call %d: %s", k, node->message);
        node_open(node, false);
        expect_sound(node, &digest);
        expect_facts(node, first);
        for (unsigned n = 1; k % 7 == 0 && n < (unsigned)k; n += 5)
            expect_facts(node, 1000 + 100 * n);
        node_close(node, k % 2);
    }
    assert_false(hit);
    assert_in_range(k, 8, 399);
    node_open(node, false);
    compact(node);
    rebuild_and_compare(node);
    node_close(node, true);
}

static void a_death_at_any_write_of_compaction_loses_nothing(void **state)
{
    die_at_every_call(*state, false);
}

static void a_death_at_any_sync_of_compaction_loses_nothing(void **state)
{
    die_at_every_call(*state, true);
}

static void a_failed_call_of_the_disk_ends_the_attempt_and_the_next_one_succeeds(void **state)
{
    struct node *node = *state;
    struct journal_compact_result result;
    unsigned refused = 0;

    node_open(node, false);
    node->fault.error = ERR_NO_SPACE;
    for (int k = 1; k <= 12; k++) {
        write_facts(node, 1000 * (unsigned)k);
        settle(node);
        atomic_store(&node->fault.fail_write, k);
        refused += journal_compact(node->journal, &result) == ERR_NO_SPACE;
        atomic_store(&node->fault.fail_write, 0);
        node->later_ms += 20000; /* what failed in the database is tried again by then */
        expect_sound(node, NULL);
        compact(node);
        settle(node);
    }
    assert_true(refused > 0);
    for (unsigned k = 1; k <= 12; k++)
        expect_facts(node, 1000 * k);
    rebuild_and_compare(node);
    node_close(node, true);
}

static void it_begins_by_itself_once_there_is_enough(void **state)
{
    struct node *node = *state;
    struct journal_stats stats;

    node_open(node, false);
    node->journal->config.compact_bytes = 10000;
    write_facts(node, 1000);
    for (int i = 0; i < 200; i++) {
        journal_upkeep_step(node->journal);
        journal_commit_step(node->journal);
        journal_apply_step(node->journal);
    }
    journal_stats(node->journal, &stats);
    assert_int_equal(stats.snapshots, 1); /* and no second one without new events */
    assert_true(stats.event_bytes < 10000);
    assert_true(stats.compacted_events > 90);
    assert_true(stats.snapshot_position > 0);
    node_close(node, true);
}

static void a_backup_holds_the_snapshot(void **state)
{
    struct node *node = *state;
    char dir[128];

    node_open(node, false);
    write_facts(node, 1000);
    compact(node);
    write_facts(node, 2000);
    settle(node);
    struct hash128 digest = digest_of(node);

    snprintf(dir, sizeof dir, "%s/backup", node->root);
    if (journal_backup(node->journal, dir, node->message, sizeof node->message) != 0)
        fail_msg("%s", node->message);
    node_close(node, true);
    snprintf(node->state, sizeof node->state, "%s/backup/state", node->root);
    snprintf(node->files, sizeof node->files, "%s/backup/files", node->root);
    node_open(node, false);
    expect_sound(node, &digest);
    rebuild_and_compare(node);
    expect_facts(node, 1000);
    expect_facts(node, 2000);
    node_close(node, true);
}

static void with_threads_it_runs_beside_writers(void **state)
{
    struct node *node = *state;
    struct journal_compact_result result;
    static uint8_t body[100];
    struct change *changes = calloc(3000, sizeof *changes);

    node_open(node, true);
    for (unsigned n = 0; n < 3000; n++) {
        prepare_put(&changes[n], n, body, sizeof body);
        assert_int_equal(journal_submit(node->journal, &changes[n]), 0);
        if (n == 2000)
            assert_int_equal(journal_compact(node->journal, &result), 0);
    }
    while (events_of(node) + atomic_load(&node->journal->compacted_events) < 3000)
        usleep(1000);
    assert_int_equal(journal_compact(node->journal, &result), 0);
    node_close(node, true);
    for (unsigned n = 0; n < 3000; n++) {
        assert_int_equal(changes[n].rc, 0);
        object_destroy(&changes[n].object);
    }
    free(changes);
    node_open(node, false);
    assert_int_equal(events_of(node), 0);
    rebuild_and_compare(node);
    node_close(node, true);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_unsynced, teardown)
    const struct CMUnitTest tests[] = {
        TEST(compaction_empties_the_table_of_events_and_changes_no_fact),
        TEST(what_two_snapshots_cover_leaves_the_log),
        TEST(a_damaged_snapshot_is_passed_over_and_two_are_refused),
        TEST(a_death_at_any_write_of_compaction_loses_nothing),
        TEST(a_death_at_any_sync_of_compaction_loses_nothing),
        TEST(a_failed_call_of_the_disk_ends_the_attempt_and_the_next_one_succeeds),
        TEST(it_begins_by_itself_once_there_is_enough),
        TEST(a_backup_holds_the_snapshot),
        TEST(with_threads_it_runs_beside_writers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
