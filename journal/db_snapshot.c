/*
 * The database's side of snapshots and compaction (db_snapshot.h).
 *
 * A walk over all rows goes through `objects` by key and then through `objects_more` by id. A row
 * never changes its table, and new rows that appear behind the walk belong to records that the
 * snapshot does not cover, so a walk in many short transactions misses nothing that it owes.
 *
 * Removing events: the trigger lets them go while `compaction` holds a row, which never outlives
 * the transaction.
 *
 * Failure: as everywhere in db.h; what a transaction has not committed did not happen.
 */
#include "journal/db_internal.h"
#include "journal/db_snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int db_reader_moment(struct db_reader *reader, struct db_state *state, struct db_origin **origins,
                     size_t *count)
{
    *origins = NULL;
    *count = 0;
    int rc = conn_exec(&reader->conn, "BEGIN");

    if (rc)
        return rc;
    rc = read_state(&reader->conn, state);
    if (rc == 0)
        rc = read_origins(&reader->conn, origins, count);
    if (!sqlite3_get_autocommit(reader->conn.sql)) {
        int ended = conn_exec(&reader->conn, "COMMIT");

        if (rc == 0)
            rc = ended;
    }
    if (rc) {
        free(*origins);
        *origins = NULL;
    }
    return rc;
}

static bool blob_of(sqlite3_stmt *row, int column, void *out, size_t len)
{
    const void *data = sqlite3_column_blob(row, column);

    if (!data || (size_t)sqlite3_column_bytes(row, column) != len)
        return false;
    memcpy(out, data, len);
    return true;
}

/* ---- All rows ---- */

/* Position the walk's statement behind CURSOR. */
static int walk_from(struct conn *conn, const struct db_cursor *cursor, sqlite3_stmt **out)
{
    enum statement which = cursor->in_more ? STATEMENT_ROWS_MORE : STATEMENT_ROWS;
    int rc = conn_statement(conn, which, out);

    if (rc)
        return rc;
    /* Unbound, it would find no rows at all, and nobody would miss them. */
    int code = cursor->in_more
                   ? sqlite3_bind_blob(*out, 1, cursor->id.bytes, sizeof cursor->id.bytes,
                                       SQLITE_TRANSIENT)
                   : sqlite3_bind_int64(*out, 1, cursor->begun ? cursor->key : INT64_MIN);
    return code == SQLITE_OK ? 0 : ERR_NO_MEMORY;
}

static void walk_past(struct db_cursor *cursor, sqlite3_stmt *row, const struct object *object)
{
    cursor->begun = true;
    if (cursor->in_more)
        cursor->id = object->id;
    else
        cursor->key = sqlite3_column_int64(row, sqlite3_column_count(row) - 1);
}

/* The rest of one table, LEFT rows at most: 1 where there may be more, 0 at its end. */
static int walk_table(struct conn *conn, struct db_cursor *cursor, unsigned *left,
                      int (*each)(void *arg, const struct object *object), void *arg)
{
    sqlite3_stmt *select;
    int rc = walk_from(conn, cursor, &select);

    if (rc)
        return rc;
    while (*left > 0 && (rc = conn_step(conn, select)) == 1) {
        struct object *object = NULL;

        rc = object_from_row(select, &object);
        if (rc == 0)
            rc = each(arg, object);
        if (rc == 0)
            walk_past(cursor, select, object);
        object_destroy(&object);
        if (rc)
            break;
        --*left;
        rc = 1;
    }
    sqlite3_reset(select);
    return *left == 0 ? 1 : rc;
}

int db_each_row(struct db_reader *reader, struct db_cursor *cursor, unsigned max,
                int (*each)(void *arg, const struct object *object), void *arg)
{
    int rc = 0;

    while (max > 0 && !cursor->done) {
        rc = walk_table(&reader->conn, cursor, &max, each, arg);
        if (rc)
            break;
        if (cursor->in_more)
            cursor->done = true;
        cursor->in_more = true;
    }
    return rc == 1 ? 0 : rc;
}

/* *AFTER moves along with what EACH took. */
static int each_owed(struct conn *conn, enum outbox_kind kind, struct id128 *after, unsigned max,
                     int (*each)(void *arg, const struct db_owed *owed), void *arg, unsigned *count)
{
    sqlite3_stmt *select;
    int rc = conn_statement(conn, STATEMENT_OUTBOX, &select);

    *count = 0;
    if (rc)
        return rc;
    int code = sqlite3_bind_blob(select, 1, after->bytes, sizeof after->bytes, SQLITE_TRANSIENT);
    code |= sqlite3_bind_int64(select, 2, max);
    code |= sqlite3_bind_int64(select, 3, kind);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    while ((rc = conn_step(conn, select)) == 1) {
        struct db_owed owed = {.since_ms = (uint64_t)sqlite3_column_int64(select, 1),
                               .size = (uint64_t)sqlite3_column_int64(select, 2)};

        if (!blob_of(select, 0, owed.id.bytes, sizeof owed.id.bytes)) {
            rc = ERR_CORRUPT;
            break;
        }
        rc = each(arg, &owed);
        if (rc)
            break;
        *after = owed.id;
        ++*count;
    }
    sqlite3_reset(select);
    return rc;
}

int db_each_owed(struct db_reader *reader, enum outbox_kind kind, struct id128 *after, unsigned max,
                 int (*each)(void *arg, const struct db_owed *owed), void *arg, unsigned *count)
{
    int rc = each_owed(&reader->conn, kind, after, max, each, arg, count);

    return rc == 1 ? 0 : rc;
}

int db_reader_outbox(struct db_reader *reader, enum outbox_kind kind, const struct id128 *after,
                     unsigned max, int (*each)(void *arg, const struct db_owed *owed), void *arg)
{
    struct id128 from = {{0}};
    unsigned count;

    if (after)
        from = *after;
    return each_owed(&reader->conn, kind, &from, max, each, arg, &count);
}

/* ---- Which snapshot there is ---- */

int db_snapshots(struct db *db, struct db_snapshot out[DB_SNAPSHOTS], size_t *count)
{
    sqlite3_stmt *select;
    int rc = conn_statement(&db->conn, STATEMENT_SNAPSHOT, &select);

    *count = 0;
    if (rc)
        return rc;
    while (*count < DB_SNAPSHOTS && (rc = conn_step(&db->conn, select)) == 1) {
        struct db_snapshot *snapshot = &out[*count];

        snapshot->position = (lsn_t)sqlite3_column_int64(select, 1);
        snapshot->chunks = (uint64_t)sqlite3_column_int64(select, 2);
        if (!blob_of(select, 0, snapshot->id.bytes, sizeof snapshot->id.bytes)) {
            rc = ERR_CORRUPT;
            break;
        }
        ++*count;
    }
    sqlite3_reset(select);
    return rc == 1 ? 0 : rc;
}

/* All but the newest KEEP of them go, and the cuts that belong to none. */
static int forget_older(struct db *db, int keep)
{
    sqlite3_stmt *snapshots, *cuts;
    int rc = conn_statement(&db->conn, STATEMENT_SNAPSHOT_OLDER, &snapshots);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc == 0)
        rc = conn_statement(&db->conn, STATEMENT_CUTS_OLDER, &cuts);
    if (rc)
        return rc;
    if (sqlite3_bind_int(snapshots, 1, keep) != SQLITE_OK)
        return ERR_NO_MEMORY;
    rc = conn_run(&db->conn, snapshots);
    return rc ? rc : conn_run(&db->conn, cuts);
}

int db_snapshot_set(struct db *db, const struct db_snapshot *snapshot)
{
    sqlite3_stmt *set;
    int rc = conn_statement(&db->conn, STATEMENT_SNAPSHOT_SET, &set);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    int code =
        sqlite3_bind_blob(set, 1, snapshot->id.bytes, sizeof snapshot->id.bytes, SQLITE_STATIC);
    code |= sqlite3_bind_int64(set, 2, (sqlite3_int64)snapshot->position);
    code |= sqlite3_bind_int64(set, 3, (sqlite3_int64)snapshot->chunks);
    rc = code == SQLITE_OK ? conn_run(&db->conn, set) : ERR_NO_MEMORY;
    return rc ? rc : forget_older(db, DB_SNAPSHOTS);
}

int db_snapshots_forget(struct db *db)
{
    return forget_older(db, 0);
}

int db_cut_add(struct db *db, const struct id128 *snapshot, const struct db_cut *cut)
{
    sqlite3_stmt *add;
    int rc = conn_statement(&db->conn, STATEMENT_CUT_ADD, &add);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    int code = sqlite3_bind_blob(add, 1, snapshot->bytes, sizeof snapshot->bytes, SQLITE_STATIC);
    code |= sqlite3_bind_blob(add, 2, cut->origin.bytes, sizeof cut->origin.bytes, SQLITE_STATIC);
    code |= sqlite3_bind_int64(add, 3, (sqlite3_int64)cut->seq);
    code |= sqlite3_bind_blob(add, 4, cut->hash, sizeof cut->hash, SQLITE_STATIC);
    return code == SQLITE_OK ? conn_run(&db->conn, add) : ERR_NO_MEMORY;
}

static int read_cuts(struct conn *conn, const struct id128 *snapshot, struct db_cut **out,
                     size_t *count)
{
    struct db_cut *cuts = NULL;
    size_t used = 0, cap = 0;
    sqlite3_stmt *select;
    int rc = conn_statement(conn, STATEMENT_CUTS, &select);

    *out = NULL;
    *count = 0;
    if (rc)
        return rc;
    if (sqlite3_bind_blob(select, 1, snapshot->bytes, sizeof snapshot->bytes, SQLITE_TRANSIENT) !=
        SQLITE_OK)
        return ERR_NO_MEMORY;
    while ((rc = conn_step(conn, select)) == 1) {
        if (used == cap) {
            cap = cap ? 2 * cap : 16;
            struct db_cut *grown = reallocarray(cuts, cap, sizeof *grown);
            if (!grown) {
                rc = ERR_NO_MEMORY;
                break;
            }
            cuts = grown;
        }
        struct db_cut *cut = &cuts[used++];

        cut->seq = (uint64_t)sqlite3_column_int64(select, 1);
        if (!blob_of(select, 0, cut->origin.bytes, sizeof cut->origin.bytes) ||
            !blob_of(select, 2, cut->hash, sizeof cut->hash)) {
            rc = ERR_CORRUPT;
            break;
        }
    }
    sqlite3_reset(select);
    if (rc) {
        free(cuts);
        return rc;
    }
    *out = cuts;
    *count = used;
    return 0;
}

int db_cuts(struct db *db, const struct id128 *snapshot, struct db_cut **out, size_t *count)
{
    return read_cuts(&db->conn, snapshot, out, count);
}

int db_reader_cuts(struct db_reader *reader, const struct id128 *snapshot, struct db_cut **out,
                   size_t *count)
{
    return read_cuts(&reader->conn, snapshot, out, count);
}

int db_owed_since(struct db *db, enum outbox_kind kind, const struct id128 *id, uint64_t since_ms)
{
    sqlite3_stmt *set;
    int rc = conn_statement(&db->conn, STATEMENT_OUTBOX_SINCE, &set);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    int code = sqlite3_bind_blob(set, 1, id->bytes, sizeof id->bytes, SQLITE_STATIC);
    code |= sqlite3_bind_int64(set, 2, (sqlite3_int64)since_ms);
    code |= sqlite3_bind_int64(set, 3, kind);
    return code == SQLITE_OK ? conn_run(&db->conn, set) : ERR_NO_MEMORY;
}

/* ---- Removing events ---- */

/* Events with keys from FROM to THROUGH, where there are any. */
static int remove_range(struct db *db, int64_t from, int64_t through, struct db_trim *out)
{
    sqlite3_stmt *statement;
    int rc;

    if (from > through)
        return 0;
    rc = conn_statement(&db->conn, STATEMENT_EVENTS_REMOVE, &statement);
    if (rc)
        return rc;
    int code = sqlite3_bind_int64(statement, 1, from);
    code |= sqlite3_bind_int64(statement, 2, through);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    rc = conn_run(&db->conn, statement);
    if (rc == 0)
        out->removed += (uint64_t)sqlite3_changes(db->conn.sql);
    return rc;
}

/* Keys of the events that stay, of those looked at. */
struct kept {
    int64_t *keys;
    size_t count;
};

/* Look at up to MAX events with keys from FROM to THROUGH: *LAST is the key of the last of them. */
static int look_at_events(struct db *db, int64_t from, int64_t through, unsigned max,
                          bool (*keep)(const uint8_t *raw, size_t len), struct kept *kept,
                          int64_t *last, struct db_trim *out)
{
    sqlite3_stmt *select;
    int rc = conn_statement(&db->conn, STATEMENT_EVENTS, &select);

    if (rc)
        return rc;
    int code = sqlite3_bind_int64(select, 1, from);
    code |= sqlite3_bind_int64(select, 2, through);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    while (max-- > 0 && (rc = conn_step(&db->conn, select)) == 1) {
        const uint8_t *raw = sqlite3_column_blob(select, 1);
        int len = sqlite3_column_bytes(select, 1);

        rc = raw && (uint64_t)len <= LIMIT_EVENT_BYTES ? 0 : ERR_CORRUPT;
        if (rc)
            break;
        *last = sqlite3_column_int64(select, 0);
        event_hash(raw, (size_t)len, out->last_hash);
        if (keep(raw, (size_t)len))
            kept->keys[kept->count++] = *last;
        else
            out->removed_bytes += (uint64_t)len;
    }
    sqlite3_reset(select);
    return rc == 1 ? 0 : rc;
}

int db_events_trim(struct db *db, int64_t origin_no, uint64_t from, uint64_t through, unsigned max,
                   bool (*keep)(const uint8_t *raw, size_t len), struct db_trim *out)
{
    struct kept kept = {.keys = malloc(max * sizeof *kept.keys)};
    int64_t begin, last;
    int rc = kept.keys ? 0 : ERR_NO_MEMORY;

    assert(!sqlite3_get_autocommit(db->conn.sql) && max > 0);
    *out = (struct db_trim){.removed = 0};
    if (rc == 0 && (!event_key_fits(origin_no, from) || !event_key_fits(origin_no, through)))
        rc = ERR_RANGE;
    if (rc)
        goto out;
    begin = event_key(origin_no, from);
    last = begin - 1;
    rc = look_at_events(db, begin, event_key(origin_no, through), max, keep, &kept, &last, out);
    if (rc || last < begin)
        goto out;
    out->last_seq = event_key_seq(last);
    sqlite3_stmt *open, *shut;
    if ((rc = conn_statement(&db->conn, STATEMENT_COMPACTION_BEGIN, &open)) != 0 ||
        (rc = conn_statement(&db->conn, STATEMENT_COMPACTION_END, &shut)) != 0 ||
        (rc = conn_run(&db->conn, open)) != 0)
        goto out;
    for (size_t i = 0; rc == 0 && i < kept.count; i++) {
        rc = remove_range(db, begin, kept.keys[i] - 1, out);
        begin = kept.keys[i] + 1;
    }
    if (rc == 0)
        rc = remove_range(db, begin, last, out);
    if (rc == 0)
        rc = conn_run(&db->conn, shut);
out:
    free(kept.keys);
    return rc;
}
