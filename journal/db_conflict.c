/*
 * The table `conflicts`. Its columns are those of objects, and the target; sha256 is part of the
 * key, as one id may lose several times.
 *
 * Failure: SQLite's, as db.c.
 */
#include "journal/db_conflict.h"

#include "journal/db_internal.h"

#include <assert.h>
#include <string.h>

static int bind_blob(sqlite3_stmt *statement, int at, const void *bytes, size_t len)
{
    return sqlite3_bind_blob(statement, at, bytes, (int)len, SQLITE_TRANSIENT);
}

int db_conflict_set(struct db *db, const struct id128 *target, const struct object *loser)
{
    sqlite3_stmt *set;
    int rc = conn_statement(&db->conn, STATEMENT_CONFLICT_SET, &set);

    assert(!sqlite3_get_autocommit(db->conn.sql) && !place_is_none(&loser->place));
    if (rc == 0)
        rc = object_bind(set, loser);
    if (rc)
        return rc;
    if (bind_blob(set, CONFLICT_TARGET_PARAMETER, target->bytes, sizeof target->bytes) != SQLITE_OK)
        return ERR_NO_MEMORY;
    return conn_run(&db->conn, set);
}

int db_conflict_remove(struct db *db, const struct object *loser)
{
    sqlite3_stmt *statement;
    int rc = conn_statement(&db->conn, STATEMENT_CONFLICT_REMOVE, &statement);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    int code = bind_blob(statement, 1, loser->id.bytes, sizeof loser->id.bytes);
    code |= bind_blob(statement, 2, loser->sha256, SHA256_BYTES);
    return code == SQLITE_OK ? conn_run(&db->conn, statement) : ERR_NO_MEMORY;
}

int db_conflict_sums(struct db *db, uint64_t *count, uint64_t *bytes)
{
    sqlite3_stmt *sums;
    int rc = conn_statement(&db->conn, STATEMENT_CONFLICT_SUMS, &sums);

    if (rc)
        return rc;
    rc = conn_step(&db->conn, sums);
    if (rc < 0)
        return rc;
    assert(rc == 1); /* an aggregate gives one row */
    *count = (uint64_t)sqlite3_column_int64(sums, 0);
    *bytes = (uint64_t)sqlite3_column_int64(sums, 1);
    sqlite3_reset(sums);
    return 0;
}

static int read_conflict(sqlite3_stmt *row, struct db_conflict *out)
{
    const void *target = sqlite3_column_blob(row, CONFLICT_TARGET_COLUMN);

    out->loser = NULL;
    if (!target || sqlite3_column_bytes(row, CONFLICT_TARGET_COLUMN) != (int)sizeof out->target)
        return ERR_CORRUPT;
    memcpy(out->target.bytes, target, sizeof out->target.bytes);
    return object_from_row(row, &out->loser);
}

/* The one row that SELECT gives. */
static int one(struct conn *conn, sqlite3_stmt *select, struct db_conflict *out)
{
    int rc = conn_step(conn, select);

    out->loser = NULL;
    if (rc != 1)
        return rc ? rc : ERR_NOT_FOUND;
    rc = read_conflict(select, out);
    sqlite3_reset(select);
    return rc;
}

static int one_by_id(struct db *db, enum statement which, const struct id128 *id,
                     struct db_conflict *out)
{
    sqlite3_stmt *select;
    int rc = conn_statement(&db->conn, which, &select);

    out->loser = NULL;
    if (rc)
        return rc;
    return bind_blob(select, 1, id->bytes, sizeof id->bytes) == SQLITE_OK
               ? one(&db->conn, select, out)
               : ERR_NO_MEMORY;
}

int db_conflict_of(struct db *db, const struct id128 *id, struct db_conflict *out)
{
    return one_by_id(db, STATEMENT_CONFLICT_OF, id, out);
}

int db_conflict_for(struct db *db, const struct id128 *target, struct db_conflict *out)
{
    return one_by_id(db, STATEMENT_CONFLICT_FOR, target, out);
}

static int get(struct conn *conn, const struct id128 *id, const uint8_t sha256[SHA256_BYTES],
               struct db_conflict *out)
{
    sqlite3_stmt *select;
    int rc = conn_statement(conn, STATEMENT_CONFLICT, &select);

    out->loser = NULL;
    if (rc)
        return rc;
    int code = bind_blob(select, 1, id->bytes, sizeof id->bytes);
    code |= bind_blob(select, 2, sha256, SHA256_BYTES);
    return code == SQLITE_OK ? one(conn, select, out) : ERR_NO_MEMORY;
}

int db_conflict_get(struct db *db, const struct id128 *id, const uint8_t sha256[SHA256_BYTES],
                    struct db_conflict *out)
{
    return get(&db->conn, id, sha256, out);
}

int db_reader_conflict(struct db_reader *reader, const struct id128 *id,
                       const uint8_t sha256[SHA256_BYTES], struct db_conflict *out)
{
    return get(&reader->conn, id, sha256, out);
}

int db_each_conflict(struct db_reader *reader, struct db_conflict_cursor *cursor, unsigned max,
                     int (*each)(void *arg, const struct db_conflict *conflict), void *arg,
                     unsigned *count)
{
    sqlite3_stmt *select;
    int rc = conn_statement(&reader->conn, STATEMENT_CONFLICTS, &select);

    *count = 0;
    if (rc)
        return rc;
    int code = bind_blob(select, 1, cursor->id.bytes, sizeof cursor->id.bytes);
    code |= bind_blob(select, 2, cursor->sha256, SHA256_BYTES);
    code |= sqlite3_bind_int64(select, 3, max);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    while ((rc = conn_step(&reader->conn, select)) == 1) {
        struct db_conflict conflict;

        rc = read_conflict(select, &conflict);
        if (rc == 0)
            rc = each(arg, &conflict);
        if (rc == 0) {
            cursor->id = conflict.loser->id;
            memcpy(cursor->sha256, conflict.loser->sha256, SHA256_BYTES);
            ++*count;
        }
        object_destroy(&conflict.loser);
        if (rc)
            break;
    }
    sqlite3_reset(select);
    return rc == 1 ? 0 : rc;
}
