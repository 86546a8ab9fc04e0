/* Goal: readers see whole commits, a backup is a database, the check finds what does not add up,
 * and neither damage nor other people's files do harm. */
#include "tests/unit/db_util.h"

#include "base/io.h"
#include "journal/db_freeze.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- Threads ---- */

struct watcher {
    struct place_on_disk *at;
    const struct model *model;
    atomic_bool *done;
    atomic_uint seen;
    unsigned wrong;
};

/* Commits are seen whole: counters, digest and rows belong together in every snapshot. */
static void *watch_commits(void *arg)
{
    struct watcher *watcher = arg;
    struct db_reader *reader;
    struct db_state now;
    struct object *object;

    if (db_reader_open(&reader, watcher->at->vfs, watcher->at->path)) {
        watcher->wrong++;
        return NULL;
    }
    while (!atomic_load(watcher->done)) {
        unsigned seen = atomic_fetch_add(&watcher->seen, 1);
        struct id128 id = model_id(7 + seen % OBJECTS_PER_STEP);
        char report[512];
        int rc = db_find(reader, &id, &object);

        if (rc != 0 && rc != ERR_NOT_FOUND)
            watcher->wrong++;
        object_destroy(&object);
        if (db_reader_state(reader, &now) || now.events != EVENTS_PER_STEP * now.position)
            watcher->wrong++;
        if (seen % 8 == 0 && db_check(reader, report, sizeof report))
            watcher->wrong++;
    }
    db_reader_close(&reader);
    return NULL;
}

static void readers_see_whole_commits_while_the_writer_writes(void **state)
{
    enum { READERS = 3 };
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    struct watcher watchers[READERS];
    pthread_t threads[READERS];
    atomic_bool done = false;
    bool complete;

    for (int i = 0; i < READERS; i++) {
        watchers[i] = (struct watcher){.at = at, .model = &model, .done = &done};
        assert_int_equal(pthread_create(&threads[i], NULL, watch_commits, &watchers[i]), 0);
    }
    for (unsigned step = 1; step <= STEPS; step++) {
        assert_int_equal(run_step(at->db, &model, step), 0);
        assert_int_equal(db_checkpoint(at->db, &complete), 0);
    }
    for (unsigned i = 0, least = 0; i < 100000 && least < 300; i++) {
        struct db_state same = model.states[STEPS];

        assert_int_equal(db_begin(at->db), 0);
        same.hlc = (hlc_time)i;
        assert_int_equal(db_state_set(at->db, &same), 0);
        assert_int_equal(db_commit(at->db), 0);
        if (i % 50 == 0)
            assert_int_equal(db_checkpoint(at->db, &complete), 0);
        least = UINT32_MAX;
        for (int k = 0; k < READERS; k++)
            if (atomic_load(&watchers[k].seen) < least)
                least = atomic_load(&watchers[k].seen);
    }
    atomic_store(&done, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        assert_in_range(watchers[i].seen, 300, UINT32_MAX);
        assert_int_equal(watchers[i].wrong, 0);
    }
}

/* ---- Copies, damage, other people's files ---- */

static void a_backup_is_a_database_as_of_now(void **state)
{
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    struct db_state got;
    struct db_reader *reader;
    struct db *copy;
    char report[512];

    assert_int_equal(run_step(at->db, &model, 1), 0);
    assert_int_equal(run_step(at->db, &model, 2), 0);
    assert_int_equal(db_backup(at->reader, at->copy), 0);
    assert_int_equal(run_step(at->db, &model, 3), 0);

    assert_int_equal(db_backup(at->reader, at->copy), ERR_EXISTS);
    assert_int_equal(db_open(&copy, at->vfs, at->copy, &store, &node), 0);
    assert_int_equal(db_state_get(copy, &got), 0);
    assert_true(states_equal(&got, &model.states[2]));
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), 0);
    assert_int_equal(db_check(reader, report, sizeof report), 0);
    assert_int_equal(run_step(copy, &model, 3), 0);
    assert_int_equal(db_check(reader, report, sizeof report), 0);
    db_reader_close(&reader);
    db_close(&copy);
    /* Nothing is left of a backup that fails. */
    assert_int_not_equal(db_backup(at->reader, "/nowhere/at/all.db"), 0);
}

static void the_check_names_what_does_not_add_up(void **state)
{
    static const struct {
        const char *sql, *finding;
    } cases[] = {
        {"UPDATE state SET events = events + 1", "events"},
        {"UPDATE state SET objects = objects - 1", "objects"},
        {"UPDATE state SET deleted = 1", "deleted"},
        {"UPDATE state SET bytes = 0", "bytes"},
        {"UPDATE state SET outbox = 1", "outbox"},
        {"UPDATE state SET outbox_bytes = 1", "outbox bytes"},
        {"UPDATE state SET wanted = 1", "wanted"},
        {"UPDATE state SET wanted_bytes = 1", "wanted bytes"},
        {"INSERT INTO outbox VALUES(2, x'00', 1, 1)", "lack a replica"},
        {"UPDATE state SET digest_low = digest_low + 1", "digest, low"},
        {"UPDATE state SET digest_high = digest_high + 1", "digest, high"},
        {"UPDATE objects SET name = 'other' WHERE key = (SELECT max(key) FROM objects)", "digest"},
        {"DELETE FROM objects WHERE key = (SELECT max(key) FROM objects)", "objects"},
        {"UPDATE objects SET key = key + 1 WHERE key = (SELECT max(key) FROM objects)", "lead"},
        {"UPDATE objects SET id = x'00'", "cannot be read"},
        {"UPDATE origins SET seq = seq + 1", "last event of origin 1"},
        {"UPDATE origins SET seq = -1", "a seq that no event has"},
        {"INSERT INTO outbox VALUES(1, x'00', 1, 1)", "outbox"},
        {"INSERT INTO segments VALUES(1, 0, 0, 0, 0, 0, 0, 0)", "live bytes of segment 00000001"},
    };
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    char report[1024], tiny[8];

    assert_int_equal(run_step(at->db, &model, 1), 0);
    assert_int_equal(db_check(at->reader, report, sizeof report), 0);
    assert_string_equal(report, "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(db_begin(at->db), 0);
        assert_int_equal(conn_exec(&at->db->conn, cases[i].sql), 0);
        /* On the writing connection, which sees its own transaction. */
        assert_int_equal(db_commit(at->db), 0);
        assert_int_equal(db_check(at->reader, report, sizeof report), ERR_CORRUPT);
        if (!strstr(report, cases[i].finding))
            fail_msg("%s: %s", cases[i].sql, report);
        assert_int_equal(db_check(at->reader, tiny, sizeof tiny), ERR_CORRUPT);
        /* Undo by starting again. */
        db_reader_close(&at->reader);
        db_close(&at->db);
        assert_int_equal(unlink(at->path), 0);
        assert_int_equal(db_open(&at->db, at->vfs, at->path, &node, &store), 0);
        assert_int_equal(db_reader_open(&at->reader, at->vfs, at->path), 0);
        assert_int_equal(run_step(at->db, &model, 1), 0);
    }
}

static void write_file(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    assert_int_equal(close(fd), 0);
}

static int try_open(struct place_on_disk *at, const char *path)
{
    struct db *db;
    int rc = db_open(&db, at->vfs, path, &node, &store);

    db_close(&db);
    return rc;
}

static void foreign_and_newer_databases_are_refused_untouched(void **state)
{
    static const struct {
        const char *sql;
        int rc;
    } cases[] = {
        {"PRAGMA application_id = 5; CREATE TABLE t(a)", ERR_FORMAT},
        {"CREATE TABLE t(a)", ERR_FORMAT},
        {"PRAGMA user_version = 1", ERR_FORMAT},
        {"PRAGMA application_id = 1329744467; PRAGMA user_version = 6", ERR_FORMAT},
        {"PRAGMA application_id = 1329744467; CREATE TABLE t(a)", ERR_CORRUPT},
        {"PRAGMA application_id = 1329744467; PRAGMA user_version = 4", ERR_CORRUPT},
        {"PRAGMA application_id = 1329744467; PRAGMA user_version = 5", ERR_CORRUPT},
    };
    struct place_on_disk *at = *state;
    struct db_reader *reader;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct conn conn;
        int64_t mode;

        (void)unlink(at->copy);
        assert_int_equal(
            conn_open(&conn, at->vfs, at->copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE), 0);
        assert_int_equal(conn_exec(&conn, cases[i].sql), 0);
        conn_close(&conn);
        assert_int_equal(try_open(at, at->copy), cases[i].rc);
        assert_int_not_equal(db_reader_open(&reader, at->vfs, at->copy), 0);
        if (cases[i].rc != ERR_FORMAT)
            continue;
        assert_int_equal(conn_open(&conn, at->vfs, at->copy, SQLITE_OPEN_READWRITE), 0);
        assert_int_equal(
            conn_number(&conn, "SELECT journal_mode = 'delete' FROM pragma_journal_mode", &mode),
            0);
        assert_int_equal(mode, 1);
        conn_close(&conn);
    }
    (void)unlink(at->copy);
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), ERR_NOT_FOUND);
    write_file(at->copy, "", 0);
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), ERR_FORMAT);
    assert_int_equal(try_open(at, "/nowhere/at/all.db"), ERR_NOT_FOUND);
}

/* What version 5 has brought. */
#define FORGET(table)                                                                              \
    "ALTER TABLE " table " DROP COLUMN purged_stamp; ALTER TABLE " table                           \
    " DROP COLUMN purged_origin; ALTER TABLE " table " DROP COLUMN cloud; "
#define FORGET_THE_CLOUD                                                                           \
    FORGET("objects")                                                                              \
    FORGET("objects_more")                                                                         \
    "ALTER TABLE state DROP COLUMN marks; ALTER TABLE state DROP COLUMN purges; "

/* Version 2 knew of no other nodes. A reader leaves that alone, the writer adds the tables. */
static void a_database_of_the_version_before_is_brought_up_to_date(void **state)
{
    struct place_on_disk *at = *state;
    struct db_reader *reader;
    struct conn conn;
    int64_t found;

    struct db *db;

    (void)unlink(at->copy);
    assert_int_equal(db_open(&db, at->vfs, at->copy, &node, &store), 0);
    assert_int_equal(db_begin(db), 0);
    for (uint8_t i = 0; i < 8; i++) { /* four of them with a key that another id has */
        struct id128 id = {{1, [14] = i / 2, [15] = i % 2}};
        struct object *object = plain_object(&id, 100 + i, i < 2);

        object->put_at.stamp = (hlc_time)7 << 16;
        object->level = i < 6 ? 2 : 1;
        assert_int_equal(db_object_set(db, object), 0);
        object_destroy(&object);
    }
    assert_int_equal(db_commit(db), 0);
    db_close(&db);
    assert_int_equal(conn_open(&conn, at->vfs, at->copy, SQLITE_OPEN_READWRITE), 0);
    assert_int_equal(conn_exec(&conn,
                               "DROP TABLE cluster; DROP TABLE members; DROP TABLE holders; "
                               "DROP TABLE conflicts; "
                               "DROP TABLE frozen; DROP TABLE restate; "
                               "ALTER TABLE state DROP COLUMN wanted; "
                               "ALTER TABLE state DROP COLUMN wanted_bytes; " FORGET_THE_CLOUD
                               "INSERT INTO snapshots VALUES(x'01', 5, 2); "
                               "INSERT INTO cuts VALUES(x'01', x'02', 5, x'03'); "
                               "PRAGMA user_version = 2"),
                     0);
    conn_close(&conn);
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), ERR_FORMAT);
    for (int i = 0; i < 2; i++)
        assert_int_equal(try_open(at, at->copy), 0);
    assert_int_equal(conn_open(&conn, at->vfs, at->copy, SQLITE_OPEN_READWRITE), 0);
    assert_int_equal(conn_number(&conn, "PRAGMA user_version", &found), 0);
    assert_int_equal(found, 5);
    /* What an old snapshot covers is less than a new one does. */
    assert_int_equal(conn_number(&conn,
                                 "SELECT (SELECT count(*) FROM snapshots) + "
                                 "(SELECT count(*) FROM cuts)",
                                 &found),
                     0);
    assert_int_equal(found, 0);
    assert_int_equal(conn_number(&conn,
                                 "SELECT count(*) FROM sqlite_schema WHERE name IN ('members', "
                                 "'holders', 'cluster', 'frozen', 'restate', 'conflicts')",
                                 &found),
                     0);
    assert_int_equal(found, 6);
    /* What it lacks of level 2 is listed. */
    assert_int_equal(conn_number(&conn, "SELECT sum(since_ms * 1000 + size) FROM outbox", &found),
                     0);
    assert_int_equal(found, 4 * 7000 + 102 + 103 + 104 + 105);
    assert_int_equal(conn_number(&conn, "SELECT wanted * 1000 + wanted_bytes FROM state", &found),
                     0);
    assert_int_equal(found, 4 * 1000 + 102 + 103 + 104 + 105);
    /* From the version between. */
    assert_int_equal(conn_exec(&conn,
                               "DROP TABLE cluster; DROP TABLE conflicts; DROP TABLE frozen; "
                               "DROP TABLE restate; " FORGET_THE_CLOUD "PRAGMA user_version = 3"),
                     0);
    conn_close(&conn);
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), ERR_FORMAT);
    assert_int_equal(try_open(at, at->copy), 0);
    assert_int_equal(conn_open(&conn, at->vfs, at->copy, SQLITE_OPEN_READWRITE), 0);
    assert_int_equal(conn_number(&conn, "SELECT feature FROM cluster", &found), 0);
    assert_int_equal(found, 1);
    assert_int_equal(conn_number(&conn, "SELECT count(*) FROM conflicts", &found), 0);
    assert_int_equal(found, 0);
    conn_close(&conn);
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), 0);
    struct db_frozen *frozen;
    size_t count;
    assert_int_equal(db_reader_frozen(reader, &frozen, &count), 0);
    assert_int_equal(count, 0);
    free(frozen);
    db_reader_close(&reader);
}

/* The tables of version 4 get the columns of version 5: rows read back as they were, and a database
 * that knows of copies in the cloud of what is deleted owes the marks. */
static void version_4_learns_of_the_cloud(void **state)
{
    struct place_on_disk *at = *state;
    struct object *objects[4], *found;
    struct db_reader *reader;
    struct conn conn;
    int64_t number;
    struct db *db;

    (void)unlink(at->copy);
    assert_int_equal(db_open(&db, at->vfs, at->copy, &node, &store), 0);
    assert_int_equal(db_begin(db), 0);
    for (uint8_t i = 0; i < 4; i++) { /* two of them with a key that another id has */
        struct id128 id = {{1, [14] = i / 2, [15] = i % 2}};
        struct object tombstone = {.id = id,
                                   .flags = OBJECT_DELETED | (i % 2 ? OBJECT_CLOUD : 0u),
                                   .deleted_at = (hlc_time)(7 + i) << 16};

        objects[i] =
            object_create(&tombstone, (struct text){0}, (struct text){0}, (struct text){0});
        assert_int_equal(db_object_set(db, objects[i]), 0);
    }
    assert_int_equal(db_commit(db), 0);
    db_close(&db);
    assert_int_equal(conn_open(&conn, at->vfs, at->copy, SQLITE_OPEN_READWRITE), 0);
    assert_int_equal(
        conn_exec(&conn, FORGET_THE_CLOUD FORGET("conflicts") "PRAGMA user_version = 4"), 0);
    conn_close(&conn);
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), ERR_FORMAT);
    for (int i = 0; i < 2; i++)
        assert_int_equal(try_open(at, at->copy), 0);
    assert_int_equal(conn_open(&conn, at->vfs, at->copy, SQLITE_OPEN_READWRITE), 0);
    assert_int_equal(conn_number(&conn,
                                 "SELECT count(*) * 1000 + sum(since_ms) + sum(size) FROM outbox "
                                 "WHERE kind = 10",
                                 &number),
                     0);
    assert_int_equal(number, 2 * 1000 + 8 + 10);
    assert_int_equal(conn_number(&conn, "SELECT marks * 10 + purges FROM state", &number), 0);
    assert_int_equal(number, 20);
    assert_int_equal(conn_number(&conn, "SELECT count(cloud) FROM conflicts", &number), 0);
    conn_close(&conn);
    assert_int_equal(db_reader_open(&reader, at->vfs, at->copy), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(db_find(reader, &objects[i]->id, &found), 0);
        assert_memory_equal(found, objects[i], object_bytes(objects[i]));
        object_destroy(&found);
        object_destroy(&objects[i]);
    }
    db_reader_close(&reader);
}

static int ignore_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    (void)arg, (void)seq, (void)raw, (void)len;
    return 0;
}

static int ignore_object(void *arg, const struct object *object)
{
    (void)arg, (void)object;
    return 0;
}

/* Everything one can do to a database that may be damaged; results do not matter, surviving does.
 */
static void exercise(struct place_on_disk *at, const char *path)
{
    struct model model = {.states[0] = {.node = node, .store = store}};
    struct db_reader *reader;
    struct db *db;
    struct id128 last;
    unsigned count;
    char report[512];
    bool complete;

    if (db_reader_open(&reader, at->vfs, path) == 0) {
        for (unsigned i = 0; i < 20; i++) {
            struct id128 id = model_id(7 + i);
            struct object *object;

            (void)!db_find(reader, &id, &object);
            object_destroy(&object);
        }
        (void)!db_each_event(reader, 1, 1, ignore_event, NULL);
        (void)!db_each_object(reader, NULL, 1000, ignore_object, NULL, &last, &count);
        (void)!db_check(reader, report, sizeof report);
        db_reader_close(&reader);
    }
    if (db_open(&db, at->vfs, path, &node, &store) == 0) {
        (void)!run_step(db, &model, 1);
        (void)!run_step(db, &model, 4);
        (void)!db_checkpoint(db, &complete);
        db_close(&db);
    }
}

static void a_damaged_file_is_reported_and_never_crashes(void **state)
{
    enum { ROUNDS = 150 };
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    char *good, *bad, wal[128];
    size_t len;

    for (unsigned step = 1; step <= 5; step++)
        assert_int_equal(run_step(at->db, &model, step), 0);
    assert_int_equal(db_backup(at->reader, at->copy), 0);
    assert_int_equal(io_read_all(io_system(), at->copy, 64 * MIB, &good, &len), 0);
    bad = malloc(len);
    assert_non_null(bad);
    snprintf(wal, sizeof wal, "%s-wal", at->copy);

    memset(bad, 'x', len);
    write_file(at->copy, bad, len);
    assert_int_equal(try_open(at, at->copy), ERR_CORRUPT);
    write_file(at->copy, bad, 10);
    assert_int_equal(try_open(at, at->copy), ERR_CORRUPT);
    write_file(at->copy, good, 4096); /* its first page alone */
    assert_int_equal(try_open(at, at->copy), ERR_CORRUPT);
    memcpy(bad, good, len);
    memset(bad + 100, 0, 4096 - 100); /* the list of tables */
    write_file(at->copy, bad, len);
    assert_int_equal(try_open(at, at->copy), ERR_CORRUPT);

    for (unsigned round = 1; round <= ROUNDS; round++) {
        (void)unlink(wal);
        memcpy(bad, good, len);
        dice = round;
        for (unsigned i = 0; i < 1 + round % 20; i++) {
            uint64_t where = round % 3 == 0 ? roll() % 8192 : roll() % len;

            bad[where] = (char)(roll() >> 40);
        }
        write_file(at->copy, bad, round % 10 == 9 ? roll() % len : len);
        exercise(at, at->copy);
    }
    free(good);
    free(bad);
}

/* SQLite takes what it reads for what was written; the checksums of our VFS do not. */
static void a_flipped_bit_in_any_page_is_noticed(void **state)
{
    struct place_on_disk *at = *state;
    struct model model = {.states[0] = {.node = node, .store = store}};
    char report[512], *good;
    size_t len;

    for (unsigned step = 1; step <= 5; step++)
        assert_int_equal(run_step(at->db, &model, step), 0);
    assert_int_equal(db_backup(at->reader, at->copy), 0);
    assert_int_equal(io_read_all(io_system(), at->copy, 64 * MIB, &good, &len), 0);
    assert_int_equal(len % VFS_PAGE_BYTES, 0);
    assert_true(len / VFS_PAGE_BYTES > 10);
    dice = 1;
    for (size_t page = 0; page < len / VFS_PAGE_BYTES; page++) {
        size_t where = page * VFS_PAGE_BYTES + roll() % VFS_PAGE_BYTES;
        struct db_reader *reader;

        char bit = (char)(1 << roll() % 8);

        good[where] ^= bit;
        write_file(at->copy, good, len);
        good[where] ^= bit;
        int rc = db_reader_open(&reader, at->vfs, at->copy);

        if (rc == 0)
            rc = db_check(reader, report, sizeof report);
        if (rc == 0)
            fail_msg("byte %zu", where);
        db_reader_close(&reader);
    }
    free(good);
}

int main(void)
{
#define ON_FILES(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        ON_FILES(readers_see_whole_commits_while_the_writer_writes),
        ON_FILES(a_backup_is_a_database_as_of_now),
        ON_FILES(the_check_names_what_does_not_add_up),
        ON_FILES(foreign_and_newer_databases_are_refused_untouched),
        ON_FILES(a_database_of_the_version_before_is_brought_up_to_date),
        ON_FILES(version_4_learns_of_the_cloud),
        ON_FILES(a_damaged_file_is_reported_and_never_crashes),
        ON_FILES(a_flipped_bit_in_any_page_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
