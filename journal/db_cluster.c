/*
 * The table `cluster` (one row), and walks over rows for administration.
 *
 * Ranges. Objects lie in two tables, each in the order of ids; they are read as one, in one read
 * transaction of at most MAX_ROWS rows. So whoever walks a large database asks for one stretch
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

struct source {
    sqlite3_stmt *select;
    struct object *next; /* NULL at the end */
};

/* The source's next object above AFTER (NULL: any). */
static int advance(struct conn *conn, struct source *source, const struct id128 *after)
{
    int rc;

    do {
        object_destroy(&source->next);
        rc = conn_step(conn, source->select);
        if (rc == 1)
            rc = object_from_row(source->select, &source->next);
    } while (!rc && source->next && after && id_compare(&source->next->id, after) <= 0);
    return rc;
}

static int start(struct conn *conn, struct source sources[2], const struct id128 *after)
{
    int rc = conn_statement(conn, STATEMENT_RANGE, &sources[0].select);

    if (!rc)
        rc = conn_statement(conn, STATEMENT_ROWS_MORE, &sources[1].select);
    if (rc)
        return rc;
    int code = sqlite3_bind_int64(sources[0].select, 1, object_key(after));
    code |= sqlite3_bind_blob(sources[1].select, 1, after->bytes, sizeof after->bytes,
                              SQLITE_TRANSIENT);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    rc = advance(conn, &sources[0], after);
    return rc ? rc : advance(conn, &sources[1], after);
}

int db_each_in_range(struct db_reader *reader, const struct id128 *after, const struct id128 *until,
                     unsigned max_rows, int (*each)(void *arg, const struct object *object),
                     void *arg, bool *complete)
{
    struct conn *conn = &reader->conn;
    struct source sources[2] = {{0}};
    int rc = start(conn, sources, after);

    *complete = false;
    for (unsigned count = 0; !rc; count++) {
        struct object *a = sources[0].next, *b = sources[1].next;
        struct source *lower = &sources[!a || (b && id_compare(&b->id, &a->id) < 0)];

        *complete = !lower->next || id_compare(&lower->next->id, until) > 0;
        if (*complete || count == max_rows)
            break;
        rc = each(arg, lower->next);
        if (!rc)
            rc = advance(conn, lower, NULL);
    }
    for (int i = 0; i < 2; i++) {
        object_destroy(&sources[i].next);
        if (sources[i].select)
            sqlite3_reset(sources[i].select);
    }
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
