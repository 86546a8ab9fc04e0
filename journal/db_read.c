/*
 * Readers of the journal's database.
 *
 * Each call is one read transaction: it sees one commit, waits for nobody and keeps nobody waiting,
 * but for a checkpoint, which cannot pass a snapshot that is being read. So readers that call out
 * (db_each_…) are asked to be brief, and callers page through what is long.
 *
 * A reader's page cache is small: interior pages stay in it, the rest is the system's page cache.
 *
 * Failure: what db_error says; a reader has no state to damage.
 */
#include "journal/db_internal.h"

#include <assert.h>
#include <stdlib.h>

static const char settings[] = "PRAGMA query_only = ON; PRAGMA cache_size = -512"; /* KiB */

int db_reader_open(struct db_reader **out, const char *vfs, const char *path)
{
    struct db_reader *reader = calloc(1, sizeof *reader);
    sqlite3_stmt *unused;

    *out = NULL;
    if (!reader)
        return ERR_NO_MEMORY;
    /* Read-write: after a crash the first connection, whichever it is, reads the WAL anew. */
    int rc = conn_open(&reader->conn, vfs, path, SQLITE_OPEN_READWRITE);
    if (rc)
        goto out;
    const sqlite3_vfs *found = sqlite3_vfs_find(vfs);
    assert(found);
    reader->vfs = found->zName;
    rc = conn_exec(&reader->conn, settings);
    if (!rc)
        rc = conn_identify(&reader->conn);
    if (rc == ERR_NOT_FOUND || rc == ERR_AGAIN)
        rc = ERR_FORMAT; /* an empty file, or one that only a writer brings up to date */
    if (!rc)
        rc = conn_statement(&reader->conn, STATEMENT_FIND, &unused);
    if (!rc)
        rc = conn_statement(&reader->conn, STATEMENT_FIND_MORE, &unused);
out:
    if (rc)
        db_reader_close(&reader);
    *out = reader;
    return rc;
}

void db_reader_close(struct db_reader **reader)
{
    struct db_reader *closing = *reader;

    if (!closing)
        return;
    *reader = NULL;
    if (closing->conn.sql)
        conn_close(&closing->conn);
    free(closing);
}

int db_find(struct db_reader *reader, const struct id128 *id, struct object **out)
{
    return find_object(&reader->conn, id, out);
}

int db_reader_state(struct db_reader *reader, struct db_state *out)
{
    return read_state(&reader->conn, out);
}

int db_reader_origins(struct db_reader *reader, struct db_origin **out, size_t *count)
{
    return read_origins(&reader->conn, out, count);
}

int db_reader_segments(struct db_reader *reader, struct db_segment **out, size_t *count)
{
    return read_segments(&reader->conn, out, count);
}

int db_each_event(struct db_reader *reader, int64_t origin_no, uint64_t from_seq,
                  int (*each)(void *arg, uint64_t seq, const uint8_t *raw, size_t len), void *arg)
{
    sqlite3_stmt *select;
    int rc = conn_statement(&reader->conn, STATEMENT_EVENTS, &select);

    if (rc)
        return rc;
    if (!event_key_fits(origin_no, from_seq))
        return 0; /* there are none */
    int code = sqlite3_bind_int64(select, 1, event_key(origin_no, from_seq));
    code |= sqlite3_bind_int64(select, 2, event_key(origin_no, EVENT_SEQ_MAX));
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    while ((rc = conn_step(&reader->conn, select)) == 1) {
        int64_t key = sqlite3_column_int64(select, 0);
        const uint8_t *raw = sqlite3_column_blob(select, 1);
        int len = sqlite3_column_bytes(select, 1);

        if (!raw || (uint64_t)len > LIMIT_EVENT_BYTES)
            rc = ERR_CORRUPT;
        else
            rc = each(arg, event_key_seq(key), raw, (size_t)len);
        if (rc)
            break;
    }
    sqlite3_reset(select);
    return rc;
}

int db_each_garbage(struct db_reader *reader, lsn_t above, lsn_t below, unsigned max,
                    int (*each)(void *arg, uint64_t file, lsn_t freed_at), void *arg)
{
    sqlite3_stmt *select;
    int rc = conn_statement(&reader->conn, STATEMENT_GARBAGE, &select);

    if (rc)
        return rc;
    /* Positions in the log are far below 2^63, so SQLite's signed order is theirs. */
    int code = sqlite3_bind_int64(select, 1, (sqlite3_int64)above);
    code |= sqlite3_bind_int64(select, 2, below > INT64_MAX ? INT64_MAX : (sqlite3_int64)below);
    code |= sqlite3_bind_int64(select, 3, max);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    while ((rc = conn_step(&reader->conn, select)) == 1) {
        rc = each(arg, (uint64_t)sqlite3_column_int64(select, 0),
                  (uint64_t)sqlite3_column_int64(select, 1));
        if (rc)
            break;
    }
    sqlite3_reset(select);
    return rc;
}

/* ---- Objects in id order ---- */

int db_each_object(struct db_reader *reader, const struct id128 *after, unsigned max,
                   int (*each)(void *arg, const struct object *object), void *arg,
                   struct id128 *last, unsigned *count)
{
    const struct object *object;
    struct db_walk walk;

    *count = 0;
    if (max == 0)
        return 0;
    int rc = db_walk_begin(&walk, &reader->conn, STATEMENT_OBJECTS, STATEMENT_OBJECTS_MORE, after);
    while (!rc && *count < max && (object = db_walk_at(&walk)) != NULL) {
        rc = each(arg, object);
        *last = object->id;
        ++*count;
        if (!rc && *count < max)
            rc = db_walk_next(&walk);
    }
    db_walk_end(&walk);
    return rc;
}
