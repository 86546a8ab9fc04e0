/*
 * The journal's one writing connection.
 *
 * Happy path: db_begin, then for each record db_event_add, db_object_set, …, then db_state_set with
 * the log position reached, db_commit. Commits sync nothing (WAL, synchronous=NORMAL): a crash
 * takes the database back to an earlier commit, and the log from that commit's position on is
 * applied again. db_checkpoint makes a position durable; the log below it may then be freed.
 *
 * What db_checkpoint relies on, as SQLite's source has it (wal.c, walCheckpoint) and the tests
 * count it: the WAL is synced before its first page is copied, and the database file is synced
 * before a checkpoint reports its last frame as copied. A passive checkpoint waits for nobody: it
 * copies as far as no reader's snapshot needs the old page, so it may be incomplete.
 *
 * Failure: after any error inside a transaction the caller rolls back. Some errors have made SQLite
 * roll back by itself; db_rollback knows.
 */
#include "journal/db_internal.h"

#include "base/log.h"

#include <assert.h>
#include <stdlib.h>

static const char settings[] =
    "PRAGMA synchronous = NORMAL;"
    "PRAGMA cache_size = -2048;" /* KiB */
    "PRAGMA secure_delete = OFF;"
    "PRAGMA cell_size_check = ON;"
    "PRAGMA journal_size_limit = 33554432"; /* a WAL that grew beyond is cut when it restarts */

static int count_pages(void *arg, sqlite3 *sql, const char *name, int pages)
{
    struct db *db = arg;

    (void)sql;
    (void)name;
    assert(pages >= 0);
    /* Fewer than were there: the WAL has started again, with a new commit at its front. */
    if ((unsigned)pages < db->wal_pages)
        db->copied_pages = 0;
    db->wal_pages = (unsigned)pages;
    return SQLITE_OK;
}

static int use_wal(struct conn *conn)
{
    sqlite3_stmt *statement;
    int code = sqlite3_prepare_v2(conn->sql, "PRAGMA journal_mode = WAL", -1, &statement, NULL);

    if (code != SQLITE_OK)
        return conn_error(conn, code);
    int rc = conn_step(conn, statement);
    if (rc == 1) {
        const char *mode = (const char *)sqlite3_column_text(statement, 0);

        /* Where it cannot switch, SQLite answers with the old mode and no reason. */
        rc = mode && sqlite3_stricmp(mode, "wal") == 0 ? ERR_NONE : ERR_IO;
        if (rc)
            log_warn("journal database: cannot use a WAL");
    } else if (rc == 0) {
        rc = ERR_IO;
    }
    sqlite3_finalize(statement);
    return rc;
}

/* Tables, first state, all of it durable. */
static int create(struct db *db, const struct id128 *node, const struct id128 *store)
{
    bool complete;
    int rc = conn_exec(&db->conn, "PRAGMA page_size = 4096; PRAGMA auto_vacuum = NONE");

    if (!rc)
        rc = use_wal(&db->conn);
    if (!rc)
        rc = conn_exec(&db->conn, settings);
    if (!rc)
        rc = conn_create_schema(&db->conn, node, store);
    if (!rc)
        rc = db_checkpoint(db, &complete);
    return rc;
}

/* Every statement of the writer, so that none fails to compile when it is needed. */
static int prepare(struct conn *conn)
{
    sqlite3_stmt *unused;
    int rc = ERR_NONE;

    for (int i = STATEMENT_FIND; i <= STATEMENT_LAST_OF_WRITER && !rc; i++)
        rc = conn_statement(conn, (enum statement)i, &unused);
    return rc;
}

int db_open(struct db **out, const char *vfs, const char *path, const struct id128 *node,
            const struct id128 *store)
{
    struct db *db = calloc(1, sizeof *db);
    struct db_state state;

    *out = NULL;
    if (!db)
        return ERR_NO_MEMORY;
    int rc = conn_open(&db->conn, vfs, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    if (rc)
        goto out;
    (void)sqlite3_wal_hook(db->conn.sql, count_pages, db);
    rc = conn_identify(&db->conn);
    if (rc == ERR_NOT_FOUND) {
        rc = create(db, node, store);
    } else if (!rc || rc == ERR_AGAIN) {
        bool old = rc == ERR_AGAIN;

        rc = use_wal(&db->conn); /* it is, unless somebody has meddled */
        if (!rc)
            rc = conn_exec(&db->conn, settings);
        if (!rc && old)
            rc = conn_upgrade(&db->conn);
    }
    if (!rc)
        rc = prepare(&db->conn);
    if (!rc)
        rc = read_state(&db->conn, &state);
out:
    if (rc)
        db_close(&db);
    *out = db;
    return rc;
}

void db_close(struct db **db)
{
    struct db *closing = *db;

    if (!closing)
        return;
    *db = NULL;
    if (closing->conn.sql) {
        /* A transaction is open still where it could not even be rolled back, or where making the
         * tables failed: closing does that. What readers or the disk do not let us copy stays in
         * the WAL. */
        (void)sqlite3_busy_timeout(closing->conn.sql, 0);
        (void)sqlite3_wal_checkpoint_v2(closing->conn.sql, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL,
                                        NULL);
        conn_close(&closing->conn);
    }
    free(closing);
}

int db_state_get(struct db *db, struct db_state *out)
{
    return read_state(&db->conn, out);
}

int db_origins(struct db *db, struct db_origin **out, size_t *count)
{
    return read_origins(&db->conn, out, count);
}

int db_segments(struct db *db, struct db_segment **out, size_t *count)
{
    return read_segments(&db->conn, out, count);
}

/* ---- Transactions ---- */

/* Run a statement that has no parameters left to bind. */
static int run(struct db *db, enum statement which)
{
    sqlite3_stmt *statement;
    int rc = conn_statement(&db->conn, which, &statement);

    return rc ? rc : conn_run(&db->conn, statement);
}

int db_settle(struct db *db)
{
    int rc;

    if (sqlite3_get_autocommit(db->conn.sql))
        return 0; /* SQLite may have done it by itself */
    /* A rollback that failed on the disk is finished by the next access; it is none the less over.
     * One that could not begin, for want of memory, is not. */
    rc = run(db, STATEMENT_ROLLBACK);
    if (sqlite3_get_autocommit(db->conn.sql))
        return 0;
    return rc ? rc : ERR_IO;
}

int db_begin(struct db *db)
{
    int rc = db_settle(db);

    return rc ? rc : run(db, STATEMENT_BEGIN);
}

int db_commit(struct db *db)
{
    assert(!sqlite3_get_autocommit(db->conn.sql));
    return run(db, STATEMENT_COMMIT);
}

void db_rollback(struct db *db)
{
    (void)!db_settle(db); /* where it failed, db_begin or db_close does it */
}

int db_state_set(struct db *db, const struct db_state *state)
{
    sqlite3_stmt *set;
    int rc = conn_statement(&db->conn, STATEMENT_STATE_SET, &set);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (!rc)
        rc = bind_state(set, state);
    return rc ? rc : conn_run(&db->conn, set);
}

int db_origin_set(struct db *db, struct db_origin *origin)
{
    enum statement which = origin->no ? STATEMENT_ORIGIN_SET : STATEMENT_ORIGIN_ADD;
    sqlite3_stmt *set;
    int rc = conn_statement(&db->conn, which, &set);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (!rc)
        rc = bind_origin(set, origin);
    if (!rc)
        rc = conn_run(&db->conn, set);
    if (rc)
        return rc;
    if (!origin->no)
        origin->no = sqlite3_last_insert_rowid(db->conn.sql);
    return 0;
}

int db_event_add(struct db *db, int64_t origin_no, uint64_t seq, const void *raw, size_t len)
{
    sqlite3_stmt *add;
    int rc = conn_statement(&db->conn, STATEMENT_EVENT_ADD, &add);

    assert(!sqlite3_get_autocommit(db->conn.sql) && len <= LIMIT_EVENT_BYTES);
    if (rc)
        return rc;
    if (!event_key_fits(origin_no, seq))
        return ERR_RANGE;
    int code = sqlite3_bind_int64(add, 1, event_key(origin_no, seq));
    code |= sqlite3_bind_blob(add, 2, raw, (int)len, SQLITE_STATIC);
    return code == SQLITE_OK ? conn_run(&db->conn, add) : ERR_NO_MEMORY;
}

int db_event_there(struct db *db, int64_t origin_no, uint64_t seq, bool *there)
{
    sqlite3_stmt *select;
    int rc = conn_statement(&db->conn, STATEMENT_EVENTS, &select);

    *there = false;
    if (rc)
        return rc;
    if (!event_key_fits(origin_no, seq))
        return 0;
    int code = sqlite3_bind_int64(select, 1, event_key(origin_no, seq));
    code |= sqlite3_bind_int64(select, 2, event_key(origin_no, seq));
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    rc = conn_step(&db->conn, select);
    *there = rc == 1;
    sqlite3_reset(select);
    return rc < 0 ? rc : 0;
}

int db_object_set(struct db *db, const struct object *object)
{
    sqlite3_stmt *set;
    int rc = conn_statement(&db->conn, STATEMENT_OBJECT_SET, &set);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (!rc)
        rc = object_bind(set, object);
    if (rc)
        return rc;
    if (sqlite3_bind_int64(set, OBJECT_KEY_PARAMETER, object_key(&object->id)) != SQLITE_OK)
        return ERR_NO_MEMORY;
    rc = conn_run(&db->conn, set);
    if (rc || sqlite3_changes(db->conn.sql) == 1)
        return rc;
    rc = conn_statement(&db->conn, STATEMENT_OBJECT_SET_MORE, &set);
    if (!rc)
        rc = object_bind(set, object);
    return rc ? rc : conn_run(&db->conn, set);
}

int db_outbox_set(struct db *db, enum outbox_kind kind, const struct id128 *id, uint64_t size,
                  uint64_t since_ms, bool owed)
{
    enum statement which = owed ? STATEMENT_OUTBOX_ADD : STATEMENT_OUTBOX_REMOVE;
    sqlite3_stmt *set;
    int rc = conn_statement(&db->conn, which, &set);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    int code = sqlite3_bind_blob(set, 1, id->bytes, sizeof id->bytes, SQLITE_STATIC);
    code |= sqlite3_bind_int64(set, 2, kind);
    if (owed) {
        code |= sqlite3_bind_int64(set, 3, (sqlite3_int64)since_ms);
        code |= sqlite3_bind_int64(set, 4, (sqlite3_int64)size);
    }
    return code == SQLITE_OK ? conn_run(&db->conn, set) : ERR_NO_MEMORY;
}

int db_segment_set(struct db *db, const struct db_segment *segment)
{
    sqlite3_stmt *set;
    int rc = conn_statement(&db->conn, STATEMENT_SEGMENT_SET, &set);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (!rc)
        rc = bind_segment(set, segment);
    return rc ? rc : conn_run(&db->conn, set);
}

int db_segment_remove(struct db *db, uint32_t volume)
{
    sqlite3_stmt *statement;
    int rc = conn_statement(&db->conn, STATEMENT_SEGMENT_REMOVE, &statement);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    int code = sqlite3_bind_int64(statement, 1, volume);
    return code == SQLITE_OK ? conn_run(&db->conn, statement) : ERR_NO_MEMORY;
}

int db_garbage_add(struct db *db, uint64_t file, lsn_t freed_at)
{
    sqlite3_stmt *add;
    int rc = conn_statement(&db->conn, STATEMENT_GARBAGE_ADD, &add);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    int code = sqlite3_bind_int64(add, 1, (sqlite3_int64)freed_at);
    code |= sqlite3_bind_int64(add, 2, (sqlite3_int64)file);
    return code == SQLITE_OK ? conn_run(&db->conn, add) : ERR_NO_MEMORY;
}

int db_garbage_remove(struct db *db, lsn_t through)
{
    sqlite3_stmt *statement;
    int rc = conn_statement(&db->conn, STATEMENT_GARBAGE_REMOVE, &statement);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    int code = sqlite3_bind_int64(statement, 1, (sqlite3_int64)through);
    return code == SQLITE_OK ? conn_run(&db->conn, statement) : ERR_NO_MEMORY;
}

int db_find_writing(struct db *db, const struct id128 *id, struct object **out)
{
    return find_object(&db->conn, id, out);
}

int db_is_deleted(struct db *db, const struct id128 *id, bool *out)
{
    struct object *object;
    sqlite3_stmt *flags;
    int rc = conn_statement(&db->conn, STATEMENT_FLAGS, &flags);

    *out = false;
    if (rc)
        return rc;
    int bound = sqlite3_bind_int64(flags, 1, object_key(id));
    if (bound != SQLITE_OK)
        return conn_error(&db->conn, bound);
    rc = conn_step(&db->conn, flags);
    bool found = rc == 1 && row_has_id(flags, id);
    if (found)
        *out = sqlite3_column_int64(flags, 1) & OBJECT_DELETED;
    if (rc == 1)
        sqlite3_reset(flags);
    if (rc <= 0 || found)
        return rc < 0 ? rc : 0;
    /* Another id has the key. */
    rc = find_object(&db->conn, id, &object);
    *out = rc == 0 && object->flags & OBJECT_DELETED;
    object_destroy(&object);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* ---- Checkpoints ---- */

int db_checkpoint(struct db *db, bool *complete)
{
    int in_wal = -1, copied = -1;

    *complete = false;
    int rc = db_settle(db);
    if (rc)
        return rc;
    int code =
        sqlite3_wal_checkpoint_v2(db->conn.sql, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_wal, &copied);
    if ((code & 0xff) == SQLITE_BUSY)
        return 0; /* incomplete, no failure */
    if (code != SQLITE_OK)
        return conn_error(&db->conn, code);
    if (in_wal < 0 || copied < 0)
        return ERR_IO; /* no WAL: not the database that db_open has set up */
    *complete = in_wal == copied;
    db->wal_pages = (unsigned)in_wal;
    db->copied_pages = (unsigned)copied;
    return 0;
}

unsigned db_wal_pages(const struct db *db)
{
    return db->wal_pages - db->copied_pages;
}
