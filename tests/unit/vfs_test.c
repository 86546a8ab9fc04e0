/* Goal: SQLite gets from our VFS what it relies on: bytes as written, syncs that include the name,
 * locks that exclude, wal-index memory that is shared, and errors that keep their meaning. */
#include "journal/vfs.h"
#include "tests/unit/db_disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATH "/d/some.db"
#define MAIN (SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MAIN_DB)
#define WAL  (SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_WAL)

struct fixture {
    struct disk disk;
    char name[32];
    sqlite3_vfs *vfs;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    if (!f)
        return -1;
    disk_init(&f->disk, 7);
    if (vfs_register(&f->disk.env, f->name))
        return -1;
    f->vfs = sqlite3_vfs_find(f->name);
    *state = f;
    return f->vfs ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vfs_unregister(f->name);
    disk_release(&f->disk);
    free(f);
    return 0;
}

static sqlite3_file *open_file(struct fixture *f, const char *path, int flags)
{
    sqlite3_file *file = calloc(1, (size_t)f->vfs->szOsFile);

    assert_non_null(file);
    assert_int_equal(f->vfs->xOpen(f->vfs, path, file, flags, NULL), SQLITE_OK);
    assert_non_null(file->pMethods);
    return file;
}

static void close_file(sqlite3_file *file)
{
    assert_int_equal(file->pMethods->xClose(file), SQLITE_OK);
    free(file);
}

/* ---- Files ---- */

static void bytes_come_back_and_what_is_missing_reads_as_zeros(void **state)
{
    struct fixture *f = *state;
    sqlite3_file *file = open_file(f, PATH, MAIN);
    const sqlite3_io_methods *m = file->pMethods;
    sqlite3_int64 size;
    char buf[10];

    assert_int_equal(m->xWrite(file, "abcdef", 6, 2), SQLITE_OK);
    assert_int_equal(m->xRead(file, buf, 8, 0), SQLITE_OK);
    assert_memory_equal(buf, "\0\0abcdef", 8);
    memset(buf, 'x', sizeof buf);
    assert_int_equal(m->xRead(file, buf, 10, 4), SQLITE_IOERR_SHORT_READ);
    assert_memory_equal(buf, "cdef\0\0\0\0\0\0", 10);
    assert_int_equal(m->xTruncate(file, 3), SQLITE_OK);
    assert_int_equal(m->xFileSize(file, &size), SQLITE_OK);
    assert_int_equal(size, 3);
    memset(buf, 'x', sizeof buf);
    assert_int_equal(m->xRead(file, buf, 2, 100), SQLITE_IOERR_SHORT_READ);
    assert_memory_equal(buf, "\0\0", 2);
    close_file(file);
}

static void a_wal_frame_is_one_write(void **state)
{
    struct fixture *f = *state;
    sqlite3_file *wal = open_file(f, PATH "-wal", WAL);
    sqlite3_file *other = open_file(f, PATH "-wal", WAL);
    const sqlite3_io_methods *m = wal->pMethods;
    char header[24], page[512], buf[600];
    sqlite3_int64 size;

    memset(header, 'h', sizeof header);
    memset(page, 'p', sizeof page);
    assert_int_equal(m->xWrite(wal, header, 24, 32), SQLITE_OK);
    assert_int_equal(m->xWrite(wal, page, 512, 56), SQLITE_OK);
    assert_int_equal(f->disk.writes, 1);
    assert_int_equal(m->xRead(other, buf, 536, 32), SQLITE_OK);
    assert_memory_equal(buf, header, 24);
    assert_memory_equal(buf + 24, page, 512);

    /* A header that something else follows is not lost, whatever that is. */
    assert_int_equal(m->xWrite(wal, header, 24, 1000), SQLITE_OK);
    assert_int_equal(m->xFileSize(wal, &size), SQLITE_OK);
    assert_int_equal(size, 1024);
    assert_int_equal(m->xWrite(wal, header, 24, 2000), SQLITE_OK);
    assert_int_equal(m->xRead(wal, buf, 24, 2000), SQLITE_OK);
    assert_memory_equal(buf, header, 24);
    assert_int_equal(m->xWrite(wal, header, 24, 3000), SQLITE_OK);
    assert_int_equal(m->xWrite(wal, header, 24, 3024), SQLITE_OK); /* where its page would be */
    assert_int_equal(m->xWrite(wal, header, 24, 3100), SQLITE_OK);
    assert_int_equal(m->xWrite(wal, page, 512, 4000), SQLITE_OK); /* elsewhere */
    assert_int_equal(m->xRead(other, buf, 48, 3000), SQLITE_OK);
    assert_memory_equal(buf, header, 24);
    assert_memory_equal(buf + 24, header, 24);
    assert_int_equal(m->xRead(other, buf, 24, 3100), SQLITE_OK);
    assert_memory_equal(buf, header, 24);
    assert_int_equal(m->xRead(other, buf, 512, 4000), SQLITE_OK);
    assert_memory_equal(buf, page, 512);
    assert_int_equal(m->xWrite(wal, header, 24, 5000), SQLITE_OK);
    assert_int_equal(m->xSync(wal, SQLITE_SYNC_NORMAL), SQLITE_OK);
    assert_int_equal(m->xRead(other, buf, 24, 5000), SQLITE_OK);
    assert_int_equal(m->xWrite(wal, header, 24, 6000), SQLITE_OK);
    assert_int_equal(m->xTruncate(wal, 6012), SQLITE_OK);
    assert_int_equal(m->xFileSize(other, &size), SQLITE_OK);
    assert_int_equal(size, 6012);
    assert_int_equal(m->xWrite(wal, header, 24, 7000), SQLITE_OK);
    close_file(wal);
    assert_int_equal(m->xRead(other, buf, 24, 7000), SQLITE_OK);
    assert_memory_equal(buf, header, 24);
    close_file(other);

    /* A database file has no frames. */
    sqlite3_file *main_file = open_file(f, PATH, MAIN);
    long before = f->disk.writes;
    assert_int_equal(m->xWrite(main_file, header, 24, 0), SQLITE_OK);
    assert_int_equal(f->disk.writes, before + 1);
    close_file(main_file);
}

static void the_first_sync_of_a_handle_makes_the_name_durable_too(void **state)
{
    struct fixture *f = *state;
    const int kinds[] = {MAIN, WAL,
                         SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE};

    for (int round = 0; round < 2; round++) /* where the file is there already, as well */
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            char path[32];
            snprintf(path, sizeof path, "/d/file%zu", i);
            sqlite3_file *file = open_file(f, path, kinds[i]);
            long before = f->disk.dir_syncs;

            assert_int_equal(file->pMethods->xSync(file, SQLITE_SYNC_NORMAL), SQLITE_OK);
            assert_int_equal(f->disk.dir_syncs, before + 1);
            assert_int_equal(file->pMethods->xSync(file, SQLITE_SYNC_DATAONLY), SQLITE_OK);
            assert_int_equal(f->disk.dir_syncs, before + 1);
            close_file(file);
        }
    sqlite3_file *file = open_file(f, "/d/file0", SQLITE_OPEN_READWRITE | SQLITE_OPEN_MAIN_DB);
    long before = f->disk.dir_syncs;
    assert_int_equal(file->pMethods->xSync(file, SQLITE_SYNC_NORMAL), SQLITE_OK);
    assert_int_equal(f->disk.dir_syncs, before);
    close_file(file);
}

static int full_syncs, data_syncs;

static int count_fsync(struct io *io, int fd)
{
    full_syncs++;
    return disk_fsync(io, fd);
}

static int count_fdatasync(struct io *io, int fd)
{
    data_syncs++;
    return disk_fsync(io, fd);
}

static void the_flag_decides_what_is_synced(void **state)
{
    struct fixture *f = *state;
    sqlite3_file *file = open_file(f, PATH, MAIN);

    full_syncs = data_syncs = 0;
    f->disk.io.fsync = count_fsync;
    f->disk.io.fdatasync = count_fdatasync;
    assert_int_equal(file->pMethods->xSync(file, SQLITE_SYNC_FULL), SQLITE_OK);
    assert_int_equal(file->pMethods->xSync(file, SQLITE_SYNC_NORMAL), SQLITE_OK);
    assert_true(full_syncs == 2 && data_syncs == 0);
    assert_int_equal(file->pMethods->xSync(file, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY),
                     SQLITE_OK);
    assert_true(full_syncs == 2 && data_syncs == 1);
    close_file(file);
}

static void a_sync_that_failed_is_not_tried_again(void **state)
{
    struct fixture *f = *state;

    for (int which = 1; which <= 2; which++) { /* the file's, the directory's */
        sqlite3_file *file = open_file(f, PATH, MAIN);

        assert_int_equal(file->pMethods->xWrite(file, "x", 1, 0), SQLITE_OK);
        f->disk.calls = 0;
        f->disk.fail_at = which;
        assert_int_equal(file->pMethods->xSync(file, SQLITE_SYNC_NORMAL), SQLITE_IOERR_FSYNC);
        long calls = f->disk.calls;
        assert_int_equal(file->pMethods->xSync(file, SQLITE_SYNC_NORMAL), SQLITE_IOERR_FSYNC);
        assert_int_equal(f->disk.calls, calls);
        close_file(file);
        file = open_file(f, PATH, MAIN);
        assert_int_equal(file->pMethods->xSync(file, SQLITE_SYNC_NORMAL), SQLITE_OK);
        close_file(file);
    }
}

/* ---- Errors ---- */

static ssize_t fail_pread(struct io *io, int fd, void *buf, size_t len, uint64_t offset,
                          bool nowait)
{
    (void)io, (void)fd, (void)buf, (void)len, (void)offset, (void)nowait;
    return ERR_PERMISSION;
}

static int fail_stat(struct io *io, int fd, struct io_stat *out)
{
    (void)io, (void)fd, (void)out;
    return ERR_IO;
}

static void errors_keep_their_meaning(void **state)
{
    struct fixture *f = *state;
    sqlite3_file *file = open_file(f, PATH, MAIN), *none;
    const sqlite3_io_methods *m = file->pMethods;
    sqlite3_int64 size;
    char buf[100];
    int there;

    f->disk.fail_at = f->disk.calls + 1;
    f->disk.fail_rc = ERR_NO_SPACE;
    assert_int_equal(m->xWrite(file, "x", 1, 0), SQLITE_FULL);
    assert_int_equal(f->vfs->xGetLastError(f->vfs, sizeof buf, buf), ERR_NO_SPACE);
    assert_string_equal(buf, err_text(ERR_NO_SPACE));
    f->disk.fail_at = f->disk.calls + 1;
    f->disk.fail_rc = ERR_IO;
    assert_int_equal(m->xWrite(file, "x", 1, 0), SQLITE_IOERR_WRITE);
    f->disk.fail_at = f->disk.calls + 1;
    assert_int_equal(m->xTruncate(file, 0), SQLITE_IOERR_TRUNCATE);
    f->disk.io.pread = fail_pread;
    assert_int_equal(m->xRead(file, buf, 1, 0), SQLITE_IOERR_READ);
    assert_int_equal(f->vfs->xGetLastError(f->vfs, 0, NULL), ERR_PERMISSION);
    f->disk.io.stat_fd = fail_stat;
    assert_int_equal(m->xFileSize(file, &size), SQLITE_IOERR_FSTAT);
    close_file(file);

    none = calloc(1, (size_t)f->vfs->szOsFile);
    assert_int_equal(f->vfs->xOpen(f->vfs, "/d/none", none, SQLITE_OPEN_READONLY, NULL),
                     SQLITE_CANTOPEN);
    assert_null(none->pMethods);
    assert_int_equal(f->vfs->xGetLastError(f->vfs, 0, NULL), ERR_NOT_FOUND);
    /* Temporary files: our connections keep them in memory. */
    assert_int_equal(f->vfs->xOpen(f->vfs, NULL, none,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                                       SQLITE_OPEN_DELETEONCLOSE | SQLITE_OPEN_TEMP_JOURNAL,
                                   NULL),
                     SQLITE_CANTOPEN);
    free(none);
    f->disk.dead = true;
    assert_int_equal(f->vfs->xAccess(f->vfs, PATH, SQLITE_ACCESS_EXISTS, &there),
                     SQLITE_IOERR_ACCESS);
}

/* ---- Names, time, dice ---- */

static void names_come_and_go(void **state)
{
    struct fixture *f = *state;
    sqlite3_file *file = open_file(f, PATH, MAIN);
    char full[16];
    int there;

    assert_int_equal(f->vfs->xAccess(f->vfs, PATH, SQLITE_ACCESS_READWRITE, &there), SQLITE_OK);
    assert_int_equal(there, 1);
    /* An empty journal counts as none. */
    assert_int_equal(f->vfs->xAccess(f->vfs, PATH, SQLITE_ACCESS_EXISTS, &there), SQLITE_OK);
    assert_int_equal(there, 0);
    assert_int_equal(file->pMethods->xWrite(file, "x", 1, 0), SQLITE_OK);
    assert_int_equal(f->vfs->xAccess(f->vfs, PATH, SQLITE_ACCESS_EXISTS, &there), SQLITE_OK);
    assert_int_equal(there, 1);
    close_file(file);

    long before = f->disk.dir_syncs;
    assert_int_equal(f->vfs->xDelete(f->vfs, PATH, 0), SQLITE_OK);
    assert_int_equal(f->disk.dir_syncs, before);
    assert_int_equal(f->vfs->xDelete(f->vfs, PATH, 1), SQLITE_IOERR_DELETE_NOENT);
    assert_int_equal(f->vfs->xAccess(f->vfs, PATH, SQLITE_ACCESS_EXISTS, &there), SQLITE_OK);
    assert_int_equal(there, 0);
    close_file(open_file(f, PATH, MAIN));
    assert_int_equal(f->vfs->xDelete(f->vfs, PATH, 1), SQLITE_OK);
    assert_int_equal(f->disk.dir_syncs, before + 1);

    assert_int_equal(f->vfs->xFullPathname(f->vfs, "a/b.db", sizeof full, full), SQLITE_OK);
    assert_string_equal(full, "a/b.db");
    assert_int_equal(f->vfs->xFullPathname(f->vfs, "0123456789abcdef", sizeof full, full),
                     SQLITE_CANTOPEN);
}

static uint64_t fixed_time(struct env *env)
{
    (void)env;
    return UINT64_C(1000000000) * 1000000000 + 123456789; /* 2001-09-09T01:46:40.123Z */
}

static void fixed_dice(struct env *env, void *buf, size_t len)
{
    (void)env;
    memset(buf, 0x5a, len);
}

static void time_and_dice_are_the_environments(void **state)
{
    struct fixture *f = *state;
    sqlite3 *sql;
    sqlite3_stmt *select;
    char bytes[4];

    f->disk.env.wall_ns = fixed_time;
    f->disk.env.random = fixed_dice;
    assert_int_equal(f->vfs->xRandomness(f->vfs, 4, bytes), 4);
    assert_memory_equal(bytes, "ZZZZ", 4);
    assert_int_equal(f->vfs->xSleep(f->vfs, 10), 10);
    assert_int_equal(
        sqlite3_open_v2(PATH, &sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, f->name),
        SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(sql, "SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')", -1, &select, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_step(select), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(select, 0), "2001-09-09T01:46:40.123");
    sqlite3_finalize(select);
    char *name = NULL;
    assert_int_equal(sqlite3_file_control(sql, "main", SQLITE_FCNTL_VFSNAME, &name), SQLITE_OK);
    assert_string_equal(name, f->name);
    sqlite3_free(name);
    assert_int_equal(sqlite3_close(sql), SQLITE_OK);
}

/* ---- Locks ---- */

static int lock(sqlite3_file *file, int level)
{
    return file->pMethods->xLock(file, level);
}

static int unlock(sqlite3_file *file, int level)
{
    return file->pMethods->xUnlock(file, level);
}

static void lock_levels_exclude_as_sqlite_asks(void **state)
{
    struct fixture *f = *state;
    sqlite3_file *a = open_file(f, PATH, MAIN), *b = open_file(f, PATH, MAIN);
    sqlite3_file *elsewhere = open_file(f, "/d/other.db", MAIN);
    int held;

    assert_int_equal(lock(a, SQLITE_LOCK_SHARED), SQLITE_OK);
    assert_int_equal(lock(b, SQLITE_LOCK_SHARED), SQLITE_OK);
    assert_int_equal(lock(elsewhere, SQLITE_LOCK_SHARED), SQLITE_OK);
    assert_int_equal(lock(elsewhere, SQLITE_LOCK_EXCLUSIVE), SQLITE_OK); /* another database */

    assert_int_equal(a->pMethods->xCheckReservedLock(a, &held), SQLITE_OK);
    assert_int_equal(held, 0);
    assert_int_equal(lock(a, SQLITE_LOCK_RESERVED), SQLITE_OK);
    assert_int_equal(lock(b, SQLITE_LOCK_RESERVED), SQLITE_BUSY); /* one writer */
    assert_int_equal(b->pMethods->xCheckReservedLock(b, &held), SQLITE_OK);
    assert_int_equal(held, 1);
    /* The writer waits for readers, and no new ones come in. */
    assert_int_equal(lock(a, SQLITE_LOCK_EXCLUSIVE), SQLITE_BUSY);
    assert_int_equal(unlock(b, SQLITE_LOCK_NONE), SQLITE_OK);
    assert_int_equal(lock(b, SQLITE_LOCK_SHARED), SQLITE_BUSY);
    assert_int_equal(lock(a, SQLITE_LOCK_EXCLUSIVE), SQLITE_OK);
    assert_int_equal(lock(b, SQLITE_LOCK_SHARED), SQLITE_BUSY);
    int level = -1;
    assert_int_equal(a->pMethods->xFileControl(a, SQLITE_FCNTL_LOCKSTATE, &level), SQLITE_OK);
    assert_int_equal(level, SQLITE_LOCK_EXCLUSIVE);
    assert_int_equal(unlock(a, SQLITE_LOCK_SHARED), SQLITE_OK);
    assert_int_equal(lock(b, SQLITE_LOCK_SHARED), SQLITE_OK);
    assert_int_equal(lock(b, SQLITE_LOCK_RESERVED), SQLITE_OK);
    /* Closing gives up what is held. */
    close_file(b);
    assert_int_equal(lock(a, SQLITE_LOCK_EXCLUSIVE), SQLITE_OK);
    close_file(a);
    close_file(elsewhere);
}

static int shm(sqlite3_file *file, int first, int count, int flags)
{
    return file->pMethods->xShmLock(file, first, count, flags);
}

#define TAKE_SHARED    (SQLITE_SHM_LOCK | SQLITE_SHM_SHARED)
#define TAKE_EXCLUSIVE (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE)
#define DROP_SHARED    (SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED)
#define DROP_EXCLUSIVE (SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE)

static void wal_index_locks_exclude_slot_by_slot(void **state)
{
    struct fixture *f = *state;
    sqlite3_file *a = open_file(f, PATH, MAIN), *b = open_file(f, PATH, MAIN);
    void volatile *unused;

    assert_int_equal(a->pMethods->xShmMap(a, 0, 32768, 1, &unused), SQLITE_OK);
    assert_int_equal(b->pMethods->xShmMap(b, 0, 32768, 1, &unused), SQLITE_OK);
    assert_int_equal(shm(a, 3, 1, TAKE_SHARED), SQLITE_OK);
    assert_int_equal(shm(a, 3, 1, TAKE_SHARED), SQLITE_OK); /* counts once */
    assert_int_equal(shm(b, 3, 1, TAKE_SHARED), SQLITE_OK);
    assert_int_equal(shm(a, 3, 1, DROP_SHARED), SQLITE_OK);
    assert_int_equal(shm(a, 3, 1, TAKE_EXCLUSIVE), SQLITE_BUSY);
    assert_int_equal(shm(b, 3, 1, DROP_SHARED), SQLITE_OK);
    assert_int_equal(shm(b, 3, 1, DROP_SHARED), SQLITE_OK); /* what is not held: no harm */
    assert_int_equal(shm(a, 3, 1, TAKE_EXCLUSIVE), SQLITE_OK);
    assert_int_equal(shm(b, 3, 1, TAKE_SHARED), SQLITE_BUSY);
    assert_int_equal(shm(b, 3, 1, TAKE_EXCLUSIVE), SQLITE_BUSY);
    assert_int_equal(shm(b, 4, 1, TAKE_SHARED), SQLITE_OK);
    /* Several: all or none. */
    assert_int_equal(shm(b, 1, 4, TAKE_EXCLUSIVE), SQLITE_BUSY);
    assert_int_equal(shm(a, 1, 2, TAKE_EXCLUSIVE), SQLITE_OK);
    assert_int_equal(shm(a, 1, 3, DROP_EXCLUSIVE), SQLITE_OK);
    assert_int_equal(shm(b, 4, 1, DROP_SHARED), SQLITE_OK);
    assert_int_equal(shm(b, 0, SQLITE_SHM_NLOCK, TAKE_EXCLUSIVE), SQLITE_OK);
    assert_int_equal(shm(a, 0, 1, TAKE_SHARED), SQLITE_BUSY);
    /* Who goes away lets go. */
    assert_int_equal(b->pMethods->xShmUnmap(b, 0), SQLITE_OK);
    assert_int_equal(shm(a, 0, 1, TAKE_EXCLUSIVE), SQLITE_OK);
    assert_int_equal(a->pMethods->xShmUnmap(a, 1), SQLITE_OK);
    close_file(a);
    close_file(b);
}

static void wal_index_memory_is_shared_until_the_last_user_leaves(void **state)
{
    struct fixture *f = *state;
    sqlite3_file *a = open_file(f, PATH, MAIN), *b = open_file(f, PATH, MAIN);
    sqlite3_file *elsewhere = open_file(f, "/d/other.db", MAIN);
    void volatile *mine, *yours;

    assert_int_equal(a->pMethods->xShmMap(a, 2, 32768, 0, &mine), SQLITE_OK);
    assert_null((void *)(uintptr_t)mine); /* not there, and not to be made */
    assert_int_equal(a->pMethods->xShmMap(a, 2, 32768, 1, &mine), SQLITE_OK);
    assert_int_equal(b->pMethods->xShmMap(b, 2, 32768, 0, &yours), SQLITE_OK);
    assert_ptr_equal((void *)(uintptr_t)mine, (void *)(uintptr_t)yours);
    assert_int_equal(((char volatile *)mine)[32767], 0);
    ((char volatile *)mine)[32767] = 'x';
    /* More of it does not move what is there. */
    for (int region = 3; region < 200; region++)
        assert_int_equal(b->pMethods->xShmMap(b, region, 32768, 1, &yours), SQLITE_OK);
    assert_int_equal(b->pMethods->xShmMap(b, 2, 32768, 0, &yours), SQLITE_OK);
    assert_ptr_equal((void *)(uintptr_t)mine, (void *)(uintptr_t)yours);
    assert_int_equal(elsewhere->pMethods->xShmMap(elsewhere, 2, 32768, 1, &yours), SQLITE_OK);
    assert_ptr_not_equal((void *)(uintptr_t)mine, (void *)(uintptr_t)yours);
    assert_int_equal(a->pMethods->xShmUnmap(a, 0), SQLITE_OK);
    assert_int_equal(((char volatile *)mine)[32767], 'x');
    close_file(b); /* lets go as well */
    assert_int_equal(a->pMethods->xShmMap(a, 0, 32768, 0, &mine), SQLITE_OK);
    assert_null((void *)(uintptr_t)mine);
    close_file(a);
    close_file(elsewhere);
}

struct contender {
    sqlite3_file *file;
    int *inside;     /* changed under the exclusive lock alone */
    atomic_int *sum; /* of all that got in */
    bool wrong;
};

static void *contend(void *arg)
{
    struct contender *c = arg;

    for (int i = 0; i < 20000; i++) {
        if (shm(c->file, 0, 1, TAKE_EXCLUSIVE) == SQLITE_OK) {
            c->wrong |= ++*c->inside != 1;
            --*c->inside;
            atomic_fetch_add(c->sum, 1);
            shm(c->file, 0, 1, DROP_EXCLUSIVE);
        }
        if (shm(c->file, 0, 1, TAKE_SHARED) == SQLITE_OK) {
            c->wrong |= *c->inside != 0;
            shm(c->file, 0, 1, DROP_SHARED);
        }
    }
    return NULL;
}

static void wal_index_locks_hold_between_threads(void **state)
{
    enum { THREADS = 3 };
    struct fixture *f = *state;
    struct contender contenders[THREADS];
    pthread_t threads[THREADS];
    atomic_int sum = 0;
    void volatile *unused;
    int inside = 0;

    for (int i = 0; i < THREADS; i++) {
        sqlite3_file *file = open_file(f, PATH, MAIN);
        contenders[i] = (struct contender){.file = file, .inside = &inside, .sum = &sum};
        assert_int_equal(file->pMethods->xShmMap(file, 0, 32768, 1, &unused), SQLITE_OK);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, contend, &contenders[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_false(contenders[i].wrong);
        close_file(contenders[i].file);
    }
    assert_int_not_equal(atomic_load(&sum), 0);
}

/* ---- As SQLite uses it ---- */

static void run(sqlite3 *sql, const char *text)
{
    char *message = NULL;

    if (sqlite3_exec(sql, text, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", text, message);
}

static int number(sqlite3 *sql, const char *text)
{
    sqlite3_stmt *select;

    assert_int_equal(sqlite3_prepare_v2(sql, text, -1, &select, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(select), SQLITE_ROW);
    int value = sqlite3_column_int(select, 0);
    sqlite3_finalize(select);
    return value;
}

static void two_connections_work_on_one_database_in_either_journal_mode(void **state)
{
    static const char *const modes[] = {"DELETE", "TRUNCATE", "WAL"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        sqlite3 *a, *b;
        char path[32], pragma[64];
        int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;

        snprintf(path, sizeof path, "/d/m%zu.db", i);
        snprintf(pragma, sizeof pragma, "PRAGMA journal_mode = %s", modes[i]);
        assert_int_equal(sqlite3_open_v2(path, &a, flags, f->name), SQLITE_OK);
        assert_int_equal(sqlite3_open_v2(path, &b, flags, f->name), SQLITE_OK);
        run(a, pragma);
        run(a, "CREATE TABLE t(x); INSERT INTO t VALUES(1), (2)");
        assert_int_equal(number(b, "SELECT sum(x) FROM t"), 3);
        run(a, "BEGIN IMMEDIATE; INSERT INTO t VALUES(4)");
        assert_int_equal(sqlite3_exec(b, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_BUSY);
        assert_int_equal(number(b, "SELECT sum(x) FROM t"), 3);
        run(a, "ROLLBACK");
        run(b, "INSERT INTO t VALUES(8)");
        assert_int_equal(number(a, "SELECT sum(x) FROM t"), 11);
        if (i == 2) {
            /* A snapshot stays what it is while others write. */
            run(a, "BEGIN");
            assert_int_equal(number(a, "SELECT sum(x) FROM t"), 11);
            run(b, "INSERT INTO t VALUES(16)");
            assert_int_equal(number(a, "SELECT sum(x) FROM t"), 11);
            run(a, "COMMIT");
            assert_int_equal(number(a, "SELECT sum(x) FROM t"), 27);
        }
        assert_int_equal(sqlite3_close(a), SQLITE_OK);
        assert_int_equal(sqlite3_close(b), SQLITE_OK);
        assert_int_equal(sqlite3_open_v2(path, &a, flags, f->name), SQLITE_OK);
        assert_int_equal(number(a, "SELECT count(*) FROM t"), i == 2 ? 4 : 3);
        assert_int_equal(sqlite3_close(a), SQLITE_OK);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(bytes_come_back_and_what_is_missing_reads_as_zeros),
        TEST(a_wal_frame_is_one_write),
        TEST(the_first_sync_of_a_handle_makes_the_name_durable_too),
        TEST(the_flag_decides_what_is_synced),
        TEST(a_sync_that_failed_is_not_tried_again),
        TEST(errors_keep_their_meaning),
        TEST(names_come_and_go),
        TEST(time_and_dice_are_the_environments),
        TEST(lock_levels_exclude_as_sqlite_asks),
        TEST(wal_index_locks_exclude_slot_by_slot),
        TEST(wal_index_memory_is_shared_until_the_last_user_leaves),
        TEST(wal_index_locks_hold_between_threads),
        TEST(two_connections_work_on_one_database_in_either_journal_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
