/*
 * The tables `frozen` and `restate`. The statements themselves compare, so order and repetition of
 * the same freezes do not matter. Failure: SQLite's, as db.c.
 */
#include "journal/db_freeze.h"

#include "journal/db_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int db_freeze_fold(struct db *db, const struct db_frozen *frozen, bool *news)
{
    sqlite3_stmt *set;
    int rc = conn_statement(&db->conn, STATEMENT_FROZEN_SET, &set);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    *news = false;
    if (rc)
        return rc;
    int code = sqlite3_bind_blob(set, 1, frozen->origin.bytes, 16, SQLITE_STATIC);
    code |= sqlite3_bind_blob(set, 2, frozen->node.bytes, 16, SQLITE_STATIC);
    code |= sqlite3_bind_int64(set, 3, (sqlite3_int64)frozen->seq);
    code |= sqlite3_bind_blob(set, 4, frozen->hash, SHA256_BYTES, SQLITE_STATIC);
    rc = code == SQLITE_OK ? conn_run(&db->conn, set) : ERR_NO_MEMORY;
    *news = rc == 0 && sqlite3_changes(db->conn.sql) > 0;
    return rc;
}

static int put_restate(struct db *db, enum statement which, const struct db_restate *restate)
{
    sqlite3_stmt *add;
    int rc = conn_statement(&db->conn, which, &add);

    assert(!sqlite3_get_autocommit(db->conn.sql) && restate->next > 0 && restate->broke > 0);
    if (rc)
        return rc;
    int code = sqlite3_bind_blob(add, 1, restate->origin.bytes, 16, SQLITE_STATIC);
    code |= sqlite3_bind_int64(add, 2, (sqlite3_int64)restate->next);
    code |= sqlite3_bind_int64(add, 3, (sqlite3_int64)restate->broke);
    return code == SQLITE_OK ? conn_run(&db->conn, add) : ERR_NO_MEMORY;
}

int db_restate_add(struct db *db, const struct db_restate *restate)
{
    return put_restate(db, STATEMENT_RESTATE_ADD, restate);
}

int db_restate_lower(struct db *db, const struct db_restate *restate)
{
    return put_restate(db, STATEMENT_RESTATE_LOWER, restate);
}

int db_restate_set(struct db *db, const struct id128 *origin, uint64_t next)
{
    sqlite3_stmt *set;
    int rc = conn_statement(&db->conn, STATEMENT_RESTATE_SET, &set);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    int code = sqlite3_bind_blob(set, 1, origin->bytes, 16, SQLITE_STATIC);
    code |= sqlite3_bind_int64(set, 2, (sqlite3_int64)next);
    return code == SQLITE_OK ? conn_run(&db->conn, set) : ERR_NO_MEMORY;
}

static bool column(sqlite3_stmt *row, int at, void *out, size_t len)
{
    const void *bytes = sqlite3_column_blob(row, at);

    if (!bytes || sqlite3_column_bytes(row, at) != (int)len)
        return false;
    memcpy(out, bytes, len);
    return true;
}

static bool read_frozen(sqlite3_stmt *row, void *at)
{
    struct db_frozen *out = at;

    out->seq = (uint64_t)sqlite3_column_int64(row, 2);
    return column(row, 0, out->origin.bytes, 16) && column(row, 1, out->node.bytes, 16) &&
           column(row, 3, out->hash, SHA256_BYTES) && out->seq > 0;
}

static bool read_restate(sqlite3_stmt *row, void *at)
{
    struct db_restate *out = at;

    out->next = (uint64_t)sqlite3_column_int64(row, 1);
    out->broke = (uint64_t)sqlite3_column_int64(row, 2);
    return column(row, 0, out->origin.bytes, 16) && out->next > 0 && out->broke > 0;
}

/* All rows of WHICH as an array of items of ITEM_BYTES. */
static int read_all(struct conn *conn, enum statement which, size_t item_bytes,
                    bool (*read)(sqlite3_stmt *row, void *at), void **out, size_t *count)
{
    sqlite3_stmt *select;
    uint8_t *items = NULL;
    size_t used = 0, cap = 0;
    int rc = conn_statement(conn, which, &select);

    *out = NULL;
    *count = 0;
    if (rc)
        return rc;
    while ((rc = conn_step(conn, select)) == 1) {
        if (used == cap) {
            cap = cap ? 2 * cap : 16;
            uint8_t *grown = reallocarray(items, cap, item_bytes);

            if (!grown) {
                rc = ERR_NO_MEMORY;
                break;
            }
            items = grown;
        }
        if (!read(select, items + used * item_bytes)) {
            rc = ERR_CORRUPT;
            break;
        }
        used++;
    }
    sqlite3_reset(select);
    if (rc) {
        free(items);
        return rc;
    }
    *out = items;
    *count = used;
    return 0;
}

int db_reader_frozen(struct db_reader *reader, struct db_frozen **out, size_t *count)
{
    void *items;
    int rc = read_all(&reader->conn, STATEMENT_FROZEN, sizeof **out, read_frozen, &items, count);

    *out = items;
    return rc;
}

int db_reader_restate(struct db_reader *reader, struct db_restate **out, size_t *count)
{
    void *items;
    int rc = read_all(&reader->conn, STATEMENT_RESTATE, sizeof **out, read_restate, &items, count);

    *out = items;
    return rc;
}
