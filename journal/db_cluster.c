/*
 * The table `cluster` (one row), and walks over rows for administration.
 *
 * Ranges. Objects are read in the order of ids (db_walk.c), in one read transaction of at most
 * MAX_ROWS rows. So whoever walks a large database asks for one stretch
 * after the other, and holds no snapshot of it open between.
 *
 * Failure: SQLite's, as db.c.
 */
#include "journal/db_cluster.h"

#include "base/bytes.h"
#include "journal/db_internal.h"
#include "journal/db_peers.h"

#include <assert.h>

#define MAX_HOLDERS (2 * LIMIT_MEMBERS)

int db_feature_raise(struct db *db, uint32_t feature)
{
    sqlite3_stmt *raise;
    int rc = conn_statement(&db->conn, STATEMENT_FEATURE_RAISE, &raise);

    assert(feature >= 1 && !sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    if (sqlite3_bind_int64(raise, 1, feature) != SQLITE_OK)
        return ERR_NO_MEMORY;
    return conn_run(&db->conn, raise);
}

static int read_number(struct db_reader *reader, enum statement which, uint64_t *out)
{
    sqlite3_stmt *select;
    int rc = conn_statement(&reader->conn, which, &select);

    if (rc)
        return rc;
    rc = conn_step(&reader->conn, select);
    if (rc != 1)
        return rc ? rc : ERR_CORRUPT;
    *out = (uint64_t)sqlite3_column_int64(select, 0);
    sqlite3_reset(select);
    return 0;
}

int db_reader_feature(struct db_reader *reader, uint32_t *out)
{
    uint64_t feature = 0;
    int rc = read_number(reader, STATEMENT_FEATURE, &feature);

    if (rc == 0 && (feature < 1 || feature > UINT32_MAX))
        rc = ERR_CORRUPT;
    *out = (uint32_t)feature;
    return rc;
}

int db_reader_owed_others(struct db_reader *reader, uint64_t *out)
{
    return read_number(reader, STATEMENT_OWED_OTHERS, out);
}

/* ---- Ranges ---- */

int db_each_in_range(struct db_reader *reader, const struct id128 *after, const struct id128 *until,
                     unsigned max_rows, int (*each)(void *arg, const struct object *object),
                     void *arg, bool *complete)
{
    struct db_walk walk;
    int rc = db_walk_begin(&walk, &reader->conn, STATEMENT_RANGE, STATEMENT_ROWS_MORE, after);

    *complete = false;
    for (unsigned count = 0; !rc; count++) {
        const struct object *object = db_walk_at(&walk);

        *complete = !object || id_compare(&object->id, until) > 0;
        if (*complete || count == max_rows)
            break;
        rc = each(arg, object);
        if (!rc)
            rc = db_walk_next(&walk);
    }
    db_walk_end(&walk);
    return rc;
}

struct summing {
    struct db_range *out;
    struct buf *list;
};

static int add_row(void *arg, const struct object *object)
{
    struct summing *s = arg;
    struct hash128 digest = object_digest(object);
    uint8_t bytes[16];

    s->out->last = object->id;
    s->out->count++;
    s->out->sum.low += digest.low;
    s->out->sum.high += digest.high;
    if (!s->list)
        return 0;
    put_u64(bytes, digest.low);
    put_u64(bytes + 8, digest.high);
    buf_add(s->list, object->id.bytes, sizeof object->id.bytes);
    buf_add(s->list, bytes, sizeof bytes);
    return buf_check(s->list);
}

int db_reader_range(struct db_reader *reader, const struct id128 *after, const struct id128 *until,
                    unsigned max_rows, struct buf *list, struct db_range *out)
{
    struct summing summing = {out, list};

    *out = (struct db_range){.last = *after};
    int rc = db_each_in_range(reader, after, until, max_rows, add_row, &summing, &out->complete);
    if (rc == 0 && out->complete)
        out->last = *until;
    return rc;
}

/* ---- Custody ---- */

int db_reader_is_sole(struct db_reader *reader, const struct object *object,
                      const struct db_custody *others, bool *sole)
{
    struct id128 holders[MAX_HOLDERS];
    size_t count;
    int rc = db_reader_holders(reader, object, holders, MAX_HOLDERS, &count);

    *sole = true;
    for (size_t i = 0; rc == 0 && i < count && *sole; i++)
        for (size_t k = 0; k < others->count && *sole; k++)
            *sole = !id_equal(&holders[i], &others->nodes[k]);
    return rc;
}
