/* Goal: whatever the disk does, after a restart the journal's database is one of the states that it
 * was committed in, never older than the last complete checkpoint. */
#include "tests/unit/db_disk.h"
#include "tests/unit/db_util.h"

/* One thread alone runs here: ThreadSanitizer has little to see and takes ten times as long. */
#ifdef __SANITIZE_THREAD__
#define STRIDE 5
#else
#define STRIDE 1
#endif

/* The database is in a state of the model and whole; which one. */
static unsigned expect_a_state(struct db *db, const char *vfs, const struct model *model)
{
    struct db_state got;
    struct db_reader *reader;
    char report[1024];

    assert_int_equal(db_state_get(db, &got), 0);
    assert_in_range(got.position, 0, STEPS);
    assert_true(states_equal(&got, &model->states[got.position]));
    assert_int_equal(db_reader_open(&reader, vfs, "/d/journal.db"), 0);
    int rc = db_check(reader, report, sizeof report);
    if (rc)
        fail_msg("%d: %s", rc, report);
    db_reader_close(&reader);
    return (unsigned)got.position;
}

/* All states, by a run in which nothing fails. Returns how many calls on the disk it makes. */
static long rehearse(struct model *model)
{
    struct disk *disk = malloc(sizeof *disk);
    char vfs[32];
    struct db *db;
    bool complete;

    *model = (struct model){.states[0] = {.node = node, .store = store}};
    disk_init(disk, 1);
    assert_int_equal(vfs_register(&disk->env, vfs), 0);
    assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
    for (unsigned step = 1; step <= STEPS; step++) {
        assert_int_equal(run_step(db, model, step), 0);
        if (step % 3 == 0)
            assert_int_equal(db_checkpoint(db, &complete), 0);
    }
    assert_int_equal(expect_a_state(db, vfs, model), STEPS);
    db_close(&db);
    long calls = disk->calls;
    vfs_unregister(vfs);
    disk_release(disk);
    free(disk);
    return calls;
}

/* The workload from where the database is until the disk dies. *SAFE: the state a complete
 * checkpoint has made durable; *REACHED: the last one whose commit was begun. */
static void run_until_death(struct disk *disk, struct model *model, unsigned *safe,
                            unsigned *reached)
{
    char vfs[32];
    struct db *db;
    struct db_state at;
    bool complete;

    assert_int_equal(vfs_register(&disk->env, vfs), 0);
    if (db_open(&db, vfs, "/d/journal.db", &node, &store) == 0) {
        int rc = db_state_get(db, &at);

        for (unsigned step = (unsigned)at.position + 1; step <= STEPS && !rc; step++) {
            *reached = step;
            rc = run_step(db, model, step);
            if (!rc && step % 3 == 0) {
                rc = db_checkpoint(db, &complete);
                if (!rc && complete)
                    *safe = step;
            }
        }
    }
    db_close(&db);
    vfs_unregister(vfs);
}

static void die_at_every_call(bool power_lost, unsigned seeds)
{
    struct model model;
    long calls = rehearse(&model);

    assert_in_range(calls, 50, 5000);
    for (unsigned seed = 1; seed <= seeds; seed++)
        for (long k = 1; k <= calls; k += STRIDE) {
            struct disk *disk = malloc(sizeof *disk);
            unsigned safe = 0, reached = 0;
            struct db *db;
            char vfs[32];

            disk_init(disk, seed * 100000 + (unsigned)k);
            disk->fail_at = k;
            disk->die = true;
            run_until_death(disk, &model, &safe, &reached);
            assert_true(disk->dead);
            disk_restart(disk, power_lost);

            assert_int_equal(vfs_register(&disk->env, vfs), 0);
            assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
            unsigned at = expect_a_state(db, vfs, &model);
            if (at < safe || at > reached)
                fail_msg("seed %u, call %ld: state %u, not in %u to %u", seed, k, at, safe,
                         reached);
            /* A killed process loses nothing that it committed. */
            if (!power_lost && at + 1 < reached)
                fail_msg("call %ld: state %u of %u", k, at, reached);
            db_close(&db);
            vfs_unregister(vfs);

            /* Life goes on, through another loss at the end. */
            run_until_death(disk, &model, &safe, &reached);
            disk_restart(disk, power_lost);
            assert_int_equal(vfs_register(&disk->env, vfs), 0);
            assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
            assert_int_equal(expect_a_state(db, vfs, &model), STEPS);
            db_close(&db);
            vfs_unregister(vfs);
            disk_release(disk);
            free(disk);
        }
}

static void a_killed_process_loses_no_commit(void **state)
{
    (void)state;
    die_at_every_call(false, 1);
}

static void a_power_loss_leaves_a_committed_state_not_older_than_the_checkpoint(void **state)
{
    (void)state;
    die_at_every_call(true, 2);
}

/* STEP, tried again where it fails: by the same process, and where the disk failed a sync, which is
 * not tried again, by the next one. */
static void insist(struct db **db, const char *vfs, struct disk *disk, struct model *model,
                   unsigned step)
{
    for (int attempt = 0; attempt < 3; attempt++) {
        struct db_state now;
        int rc = run_step(*db, model, step);

        if (rc == 0)
            return;
        if (!disk->failed_sync || rc != ERR_IO)
            assert_int_equal(rc, disk->fail_rc);
        assert_int_equal(db_state_get(*db, &now), 0);
        assert_true(states_equal(&now, &model->states[step - 1]));
        if (attempt == 0)
            continue;
        assert_true(disk->failed_sync);
        db_close(db);
        assert_int_equal(db_open(db, vfs, "/d/journal.db", &node, &store), 0);
    }
    fail_msg("step %u does not succeed", step);
}

/* One call fails and the process goes on: what failed is rolled back and done again. */
static void a_single_failed_call_costs_one_transaction_at_most(void **state)
{
    struct model model;
    long calls = rehearse(&model);

    (void)state;
    for (int kind = 0; kind < 2; kind++)
        for (long k = 1; k <= calls; k += STRIDE) {
            struct disk *disk = malloc(sizeof *disk);
            struct db *db;
            char vfs[32];
            bool complete;

            disk_init(disk, (uint64_t)k);
            disk->fail_at = k;
            disk->fail_rc = kind ? ERR_NO_SPACE : ERR_IO;
            assert_int_equal(vfs_register(&disk->env, vfs), 0);
            int rc = db_open(&db, vfs, "/d/journal.db", &node, &store);
            if (rc) {
                /* SQLite does not say why it could not switch to WAL. */
                assert_true(rc == disk->fail_rc || rc == ERR_IO);
                assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
            }
            for (unsigned step = 1; step <= STEPS; step++) {
                insist(&db, vfs, disk, &model, step);
                if (step % 3 == 0 && db_checkpoint(db, &complete) == 0)
                    assert_true(complete);
            }
            assert_int_equal(expect_a_state(db, vfs, &model), STEPS);
            db_close(&db);
            assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
            assert_int_equal(expect_a_state(db, vfs, &model), STEPS);
            db_close(&db);
            vfs_unregister(vfs);
            disk_release(disk);
            free(disk);
        }
}

/* ---- Checkpoints ---- */

struct order {
    char text[256];
};

static void write_down(struct disk *disk, const char *call, const char *path)
{
    struct order *order = disk->arg;
    const char *word = strcmp(call, "sync_dir") == 0 ? "d"
                       : strstr(path, "-wal")        ? call[0] == 's' ? "W" : "w"
                       : strstr(path, "-journal")    ? call[0] == 's' ? "J" : "j"
                       : call[0] == 's'              ? "S"
                                                     : "p";
    size_t len = strlen(order->text);

    /* Runs count once. */
    if (len + 1 < sizeof order->text && (len == 0 || order->text[len - 1] != *word))
        memcpy(order->text + len, word, 2);
}

static void a_checkpoint_syncs_the_wal_before_it_copies_and_the_database_after(void **state)
{
    struct disk *disk = malloc(sizeof *disk);
    struct model model = {.states[0] = {.node = node, .store = store}};
    struct order order = {""};
    char vfs[32];
    struct db *db;
    bool complete;

    (void)state;
    disk_init(disk, 1);
    assert_int_equal(vfs_register(&disk->env, vfs), 0);
    assert_int_equal(db_open(&db, vfs, "/d/journal.db", &node, &store), 0);
    disk->watch = write_down;
    disk->arg = &order;
    assert_int_equal(run_step(db, &model, 1), 0);
    /* The WAL starts again here, which syncs its new header; a commit itself syncs nothing. */
    assert_string_equal(order.text, "wWw");
    order.text[0] = 0;
    assert_int_equal(run_step(db, &model, 2), 0);
    assert_string_equal(order.text, "w");
    assert_int_not_equal(db_wal_pages(db), 0);
    order.text[0] = 0;
    assert_int_equal(db_checkpoint(db, &complete), 0);
    assert_true(complete);
    assert_string_equal(order.text, "WpS");
    assert_int_equal(db_wal_pages(db), 0);
    /* Nothing new: nothing to do, and still complete. */
    order.text[0] = 0;
    assert_int_equal(db_checkpoint(db, &complete), 0);
    assert_true(complete);
    assert_string_equal(order.text, "");
    db_close(&db);
    vfs_unregister(vfs);
    disk_release(disk);
    free(disk);
}

struct hold {
    struct place_on_disk *at;
    struct model *model;
    bool complete;
};

/* Called inside a reader's transaction. */
static int commit_and_checkpoint(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct hold *hold = arg;

    (void)seq, (void)raw, (void)len;
    assert_int_equal(run_step(hold->at->db, hold->model, 2), 0);
    assert_int_equal(db_checkpoint(hold->at->db, &hold->complete), 0);
    return 80;
}

static void a_reader_that_holds_a_snapshot_makes_a_checkpoint_incomplete(void **state)
{
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    struct hold hold = {.at = at, .model = &model, .complete = true};

    assert_int_equal(run_step(at->db, &model, 1), 0);
    assert_int_equal(db_each_event(at->reader, 1, 1, commit_and_checkpoint, &hold), 80);
    assert_false(hold.complete);
    assert_int_not_equal(db_wal_pages(at->db), 0);
    assert_int_equal(db_checkpoint(at->db, &hold.complete), 0);
    assert_true(hold.complete);
}

int main(void)
{
#define ON_FILES(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_process_loses_no_commit),
        cmocka_unit_test(a_power_loss_leaves_a_committed_state_not_older_than_the_checkpoint),
        cmocka_unit_test(a_single_failed_call_costs_one_transaction_at_most),
        cmocka_unit_test(a_checkpoint_syncs_the_wal_before_it_copies_and_the_database_after),
        ON_FILES(a_reader_that_holds_a_snapshot_makes_a_checkpoint_incomplete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
