/*
 * Reading ranges of ids for a merge (db_merge.h).
 *
 * Rows lie in two tables, each in id order, holders in a third: they are read side by side, the
 * lowest id first, so that a chunk holds all there is about its ids. Sums are computed from the
 * rows when they are asked for; a scan is cut into transactions of SCAN_ROWS, so that checkpoints
 * do not wait for it, and ends where it has gone through SCAN_MOST, so that a pool's worker is free
 * again.
 *
 * Failure: SQLite's, as db.c; OUT then holds what nobody should use.
 */
#include "journal/db_merge.h"

#include "base/bytes.h"
#include "journal/db_cluster.h"
#include "journal/db_internal.h"
#include "journal/db_peers.h"
#include "journal/journal_internal.h"
#include "journal/snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_ROWS   4000   /* in one transaction */
#define SCAN_MOST   100000 /* in one call */
#define SCAN_EVENTS 20000  /* likewise, of events */
#define SOFT_BYTES                                                                                 \
    (SNAPSHOT_CHUNK_BYTES - 32 * KIB) /* from here on a chunk takes no further id: any row, and    \
                                         whoever holds it, still fits */
#define FACT_FLAGS                                                                                 \
    ((uint32_t)(OBJECT_PUT | OBJECT_DELETED | OBJECT_CLOUD | OBJECT_PURGE | OBJECT_MARKED))

const struct id128 db_last_id = {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                  0xff, 0xff, 0xff, 0xff, 0xff}};

/* ---- Rows in id order ---- */

/* All above the walk's beginning, up to THROUGH. */
struct rows {
    struct db_walk walk;
    struct id128 through;
};

static int rows_begin(struct rows *rows, struct conn *conn, const struct id128 *after,
                      const struct id128 *through)
{
    rows->through = *through;
    return db_walk_begin(&rows->walk, conn, STATEMENT_RANGE, STATEMENT_ROWS_MORE, after);
}

/* The next one; NULL: there are no more. */
static struct object *rows_at(const struct rows *rows)
{
    struct object *row = db_walk_at(&rows->walk);

    return row && id_compare(&row->id, &rows->through) <= 0 ? row : NULL;
}

/* End the read transaction that conn_exec("BEGIN") began; RC goes first. */
static int end_reading(struct conn *conn, int rc)
{
    if (sqlite3_get_autocommit(conn->sql))
        return rc;
    int ended = conn_exec(conn, "COMMIT");

    return rc ? rc : ended;
}

/* ---- Chunks ---- */

static void add_chunk(struct snapshot_writer *writer, struct buf *out)
{
    static const struct id128 none;
    size_t before = out->len;
    uint32_t len = 0;

    if (writer->count == 0)
        return;
    buf_add(out, &len, sizeof len);
    snapshot_end_chunk(writer, &none, 0, out);
    if (out->rc)
        return;
    len = (uint32_t)(out->len - before - sizeof len);
    memcpy(out->data + before, &len, sizeof len);
}

struct filling {
    struct snapshot_writer rows, holders;
    struct id128 last; /* all up to this id is in */
    bool full;
    sqlite3_stmt *select; /* of holders, at … */
    struct snapshot_holder holder;
    bool has_holder; /* … this one */
};

static int take_row(struct filling *f, struct object *row)
{
    /* Where a copy lies is nobody else's business. */
    row->flags &= FACT_FLAGS;
    row->place = (struct place){0};
    row->record_bytes = 0;
    f->full |= f->rows.items.len > SOFT_BYTES;
    return snapshot_add_row(&f->rows, row);
}

static int next_holder(struct conn *conn, struct filling *f)
{
    int64_t member;
    int rc = conn_step(conn, f->select);

    f->has_holder = rc == 1;
    return rc == 1 ? holder_from_row(f->select, &f->holder, &member) : rc;
}

static int begin_holders(struct conn *conn, struct filling *f, const struct id128 *after)
{
    int rc = conn_statement(conn, STATEMENT_EACH_HOLDER, &f->select);

    if (rc)
        return rc;
    int code = sqlite3_bind_blob(f->select, 1, after->bytes, sizeof after->bytes, SQLITE_TRANSIENT);
    code |= sqlite3_bind_int64(f->select, 2, INT64_MAX);
    code |= sqlite3_bind_blob(f->select, 3, "", 0, SQLITE_STATIC);
    return code == SQLITE_OK ? next_holder(conn, f) : ERR_NO_MEMORY;
}

/* Those of ids up to THROUGH. */
static int take_holders(struct conn *conn, struct filling *f, const struct id128 *through)
{
    int rc = 0;

    while (rc == 0 && f->has_holder && id_compare(&f->holder.id, through) <= 0) {
        f->full |= f->holders.items.len > SOFT_BYTES;
        rc = snapshot_add_holder(&f->holders, &f->holder);
        if (rc == 0)
            rc = next_holder(conn, f);
    }
    return rc;
}

/* Id by id, what is known of it. */
static int fill(struct rows *rows, struct filling *f)
{
    int rc = 0;

    while (rc == 0 && !f->full) {
        struct object *row = rows_at(rows);
        const struct id128 *id = row ? &row->id : &rows->through;
        bool end = !row;

        if (f->has_holder && id_compare(&f->holder.id, id) < 0)
            id = &f->holder.id; /* of an object that is not heard of yet */
        f->last = *id;
        if (row && id_equal(&row->id, &f->last)) {
            rc = take_row(f, row);
            if (rc == 0)
                rc = db_walk_next(&rows->walk);
        }
        if (rc == 0)
            rc = take_holders(rows->walk.conn, f, &f->last);
        if (end && id_equal(&f->last, &rows->through))
            break;
    }
    return rc;
}

int db_merge_rows(struct db_reader *reader, const struct id128 *after, const struct id128 *through,
                  struct buf *out, struct id128 *last)
{
    struct filling f = {.last = *after};
    struct rows rows = {0};
    int rc = conn_exec(&reader->conn, "BEGIN");

    if (rc)
        return rc;
    snapshot_writer_init(&f.rows);
    snapshot_writer_init(&f.holders);
    snapshot_begin_chunk(&f.rows, SNAPSHOT_ROWS);
    snapshot_begin_chunk(&f.holders, SNAPSHOT_HOLDERS);
    rc = rows_begin(&rows, &reader->conn, after, through);
    if (rc == 0)
        rc = begin_holders(&reader->conn, &f, after);
    if (rc == 0)
        rc = fill(&rows, &f);
    db_walk_end(&rows.walk);
    if (f.select)
        sqlite3_reset(f.select);
    rc = end_reading(&reader->conn, rc);
    if (rc == 0) {
        add_chunk(&f.rows, out);
        add_chunk(&f.holders, out);
        rc = buf_check(out);
        *last = f.last;
    }
    snapshot_writer_release(&f.rows);
    snapshot_writer_release(&f.holders);
    return rc;
}

static int by_node(const void *a, const void *b)
{
    const struct db_member *x = a, *y = b;

    return id_compare(&x->node, &y->node);
}

int db_merge_members(struct db_reader *reader, const struct id128 *after, struct buf *out,
                     struct id128 *last)
{
    struct snapshot_writer writer;
    struct db_member *members;
    size_t count;
    int rc = db_reader_members(reader, &members, &count);

    if (rc)
        return rc;
    if (count)
        qsort(members, count, sizeof *members, by_node);
    snapshot_writer_init(&writer);
    snapshot_begin_chunk(&writer, SNAPSHOT_MEMBERS);
    *last = db_last_id;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        const struct snapshot_member member = {
            .node = members[i].node,
            .state = members[i].state,
            .at = members[i].at,
            .address = {members[i].address, (uint32_t)strlen(members[i].address)}};

        if (id_compare(&member.node, after) <= 0)
            continue;
        rc = snapshot_add_member(&writer, &member);
        if (rc == ERR_FULL) {
            rc = 0;
            *last = members[i - 1].node;
            break;
        }
    }
    if (rc == 0)
        add_chunk(&writer, out);
    if (rc == 0 && id_is_zero(after)) {
        uint32_t feature;

        snapshot_begin_chunk(&writer, SNAPSHOT_FEATURE);
        rc = db_reader_feature(reader, &feature);
        if (rc == 0)
            rc = snapshot_add_feature(&writer, feature);
        if (rc == 0)
            add_chunk(&writer, out);
    }
    if (rc == 0)
        rc = buf_check(out);
    snapshot_writer_release(&writer);
    free(members);
    return rc;
}

/* ---- Events ---- */

/* Where to go on in the table of events, as an id. */
static struct id128 cursor_of(int64_t key)
{
    struct id128 id = {{0}};

    put_u64(id.bytes, (uint64_t)key);
    return id;
}

static bool is_kept(const uint8_t *raw, size_t len)
{
    struct event event;

    return event_decode(&event, raw, len) == 0 && !fold_is_covered(&event);
}

int db_merge_events(struct db_reader *reader, const struct id128 *after, struct buf *out,
                    struct id128 *last)
{
    sqlite3_stmt *select;
    int rc = conn_statement(&reader->conn, STATEMENT_EVENTS, &select);

    if (rc)
        return rc;
    int code = sqlite3_bind_int64(select, 1, (sqlite3_int64)get_u64(after->bytes) + 1);
    code |= sqlite3_bind_int64(select, 2, INT64_MAX);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    *last = *after;
    for (unsigned looked = 0; looked < SCAN_EVENTS && out->len < SOFT_BYTES; looked++) {
        rc = conn_step(&reader->conn, select);
        if (rc != 1) {
            *last = db_last_id;
            break;
        }
        const uint8_t *raw = sqlite3_column_blob(select, 1);
        uint32_t len = (uint32_t)sqlite3_column_bytes(select, 1);

        if (!raw || len > LIMIT_EVENT_BYTES) {
            rc = ERR_CORRUPT;
            break;
        }
        if (is_kept(raw, len)) {
            buf_add(out, &len, sizeof len);
            buf_add(out, raw, len);
        }
        *last = cursor_of(sqlite3_column_int64(select, 0));
        rc = 0;
    }
    sqlite3_reset(select);
    return rc ? rc : buf_check(out);
}

/* ---- Sums ---- */

/* One page of rows in (*after, through]: each to SEE, until that returns true. *AFTER moves along;
 * *END: there were no more. */
static int scan(struct db_reader *reader, struct id128 *after, const struct id128 *through,
                bool (*see)(void *arg, const struct object *row), void *arg, bool *end)
{
    struct object *row;
    struct rows rows;
    bool enough = false;
    int rc = conn_exec(&reader->conn, "BEGIN");

    *end = false;
    if (rc)
        return rc;
    rc = rows_begin(&rows, &reader->conn, after, through);
    for (unsigned i = 0; rc == 0 && i < SCAN_ROWS && !enough && (row = rows_at(&rows)) != NULL;
         i++) {
        *after = row->id;
        enough = see(arg, row);
        if (!enough)
            rc = db_walk_next(&rows.walk);
    }
    *end = rc == 0 && !enough && !rows_at(&rows);
    db_walk_end(&rows.walk);
    return end_reading(&reader->conn, rc);
}

static void count_row(struct db_fence *fence, const struct object *row)
{
    struct hash128 digest = object_digest(row);

    if (digest.low == 0 && digest.high == 0)
        return; /* says nothing, as if it were not there */
    fence->count++;
    fence->sum.low += digest.low;
    fence->sum.high += digest.high;
}

struct splitting {
    struct db_fence *fences;
    size_t count, max;
    uint64_t rows, seen, in_fence;
};

static bool split_row(void *arg, const struct object *row)
{
    struct splitting *s = arg;
    struct db_fence *fence = &s->fences[s->count];

    if (s->in_fence == 0)
        *fence = (struct db_fence){.count = 0};
    count_row(fence, row);
    fence->id = row->id;
    s->seen++;
    if (++s->in_fence == s->rows) {
        s->in_fence = 0;
        s->count++;
    }
    return s->count == s->max;
}

int db_merge_split(struct db_reader *reader, const struct id128 *after, const struct id128 *through,
                   uint64_t rows, size_t max, struct db_fence *out, size_t *count)
{
    struct splitting s = {.fences = out, .max = max, .rows = rows};
    struct id128 at = *after;
    bool end = false;

    assert(rows > 0 && max > 0 && id_compare(after, through) < 0);
    *count = 0;
    while (!end && s.count < max && s.seen < SCAN_MOST) {
        int rc = scan(reader, &at, through, split_row, &s, &end);

        if (rc)
            return rc;
    }
    if (s.in_fence)
        s.count++;
    else if (s.count == 0)
        s.fences[s.count++] = (struct db_fence){.count = 0};
    /* What lies behind the last row belongs to it: the other node may have rows there. */
    if (end)
        s.fences[s.count - 1].id = *through;
    *count = s.count;
    return 0;
}

struct summing {
    struct db_fence *fence;
    uint64_t seen;
};

static bool sum_row(void *arg, const struct object *row)
{
    struct summing *s = arg;

    count_row(s->fence, row);
    return ++s->seen >= SCAN_MOST;
}

int db_merge_sums(struct db_reader *reader, const struct id128 *after, struct db_fence *fences,
                  size_t count, size_t *done)
{
    struct id128 at = *after;
    uint64_t total = 0;

    for (*done = 0; *done < count && total < SCAN_MOST; ++*done) {
        struct db_fence *fence = &fences[*done];
        struct summing s = {.fence = fence};
        bool end = false;

        fence->count = 0;
        fence->sum = (struct hash128){0, 0};
        while (!end && s.seen < SCAN_MOST) {
            int rc = scan(reader, &at, &fence->id, sum_row, &s, &end);

            if (rc)
                return rc;
        }
        if (!end)
            fence->count = DB_FENCE_MANY;
        at = fence->id;
        total += s.seen + 1;
    }
    return 0;
}
