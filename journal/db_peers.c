/*
 * Members and holders: the tables `members` and `holders`.
 *
 * Happy path: the applier folds each member, hold and drop event in the transaction that adds it;
 * the statements themselves compare (stamp, origin), so that order and repetition do not matter.
 * A node gets its number in `members` when it is first spoken of, with state 0 until a member event
 * of it comes.
 *
 * Failure: SQLite's, as db.c.
 */
#include "journal/db_peers.h"

#include "journal/db_internal.h"
#include "journal/merge.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int bind_id(sqlite3_stmt *statement, int at, const struct id128 *id)
{
    return sqlite3_bind_blob(statement, at, id->bytes, sizeof id->bytes, SQLITE_STATIC);
}

/* The number of NODE in `members`, given where it has none. */
static int member_no(struct db *db, const struct id128 *node, int64_t *no)
{
    static const enum statement tries[] = {STATEMENT_MEMBER_NO, STATEMENT_MEMBER_ADD};
    int found = 0;

    assert(!sqlite3_get_autocommit(db->conn.sql));
    for (size_t i = 0; i < 2 && !found; i++) {
        sqlite3_stmt *statement;
        int rc = conn_statement(&db->conn, tries[i], &statement);

        if (rc)
            return rc;
        if (bind_id(statement, 1, node) != SQLITE_OK)
            return ERR_NO_MEMORY;
        found = conn_step(&db->conn, statement);
        if (found < 0)
            return found;
        if (found) {
            *no = sqlite3_column_int64(statement, 0);
            sqlite3_reset(statement);
        }
    }
    assert(found); /* RETURNING gives a row, or an error */
    return 0;
}

int db_member_fold(struct db *db, const struct event *event)
{
    const struct snapshot_member member = {.node = event->subject,
                                           .state = (enum member_state)event->member_state,
                                           .at = {event->stamp, event->origin},
                                           .address = event->address};

    assert(event->kind == EVENT_MEMBER);
    return db_member_join(db, &member);
}

int db_member_join(struct db *db, const struct snapshot_member *member)
{
    sqlite3_stmt *set;
    int64_t no;
    int rc = member_no(db, &member->node, &no);

    if (rc == 0)
        rc = conn_statement(&db->conn, STATEMENT_MEMBER_SET, &set);
    if (rc)
        return rc;
    int code = sqlite3_bind_int64(set, 1, no);
    code |= sqlite3_bind_text(set, 2, member->address.len ? member->address.ptr : "",
                              (int)member->address.len, SQLITE_STATIC);
    code |= sqlite3_bind_int64(set, 3, member->state);
    code |= sqlite3_bind_int64(set, 4, (sqlite3_int64)member->at.stamp);
    code |= bind_id(set, 5, &member->at.origin);
    return code == SQLITE_OK ? conn_run(&db->conn, set) : ERR_NO_MEMORY;
}

int db_holder_fold(struct db *db, const struct event *event, const struct event_item *item)
{
    struct snapshot_holder holder = {.id = item->id,
                                     .node = event->node,
                                     .held = event->kind == EVENT_HOLD,
                                     .at = {event->stamp, event->origin}};

    assert(event->kind == EVENT_HOLD || event->kind == EVENT_DROP);
    memcpy(holder.sha256, item->sha256, SHA256_BYTES);
    return db_holder_join(db, &holder);
}

int db_holder_join(struct db *db, const struct snapshot_holder *holder)
{
    sqlite3_stmt *set;
    int64_t no;
    int rc = member_no(db, &holder->node, &no);

    if (rc == 0)
        rc = conn_statement(&db->conn, STATEMENT_HOLDER_SET, &set);
    if (rc)
        return rc;
    int code = bind_id(set, 1, &holder->id);
    code |= sqlite3_bind_int64(set, 2, no);
    code |= sqlite3_bind_blob(set, 3, holder->sha256, SHA256_BYTES, SQLITE_STATIC);
    code |= sqlite3_bind_int64(set, 4, holder->held);
    code |= sqlite3_bind_int64(set, 5, (sqlite3_int64)holder->at.stamp);
    code |= bind_id(set, 6, &holder->at.origin);
    return code == SQLITE_OK ? conn_run(&db->conn, set) : ERR_NO_MEMORY;
}

int db_holders_remove(struct db *db, const struct id128 *id)
{
    sqlite3_stmt *statement;
    int rc = conn_statement(&db->conn, STATEMENT_HOLDERS_REMOVE, &statement);

    assert(!sqlite3_get_autocommit(db->conn.sql));
    if (rc)
        return rc;
    return bind_id(statement, 1, id) == SQLITE_OK ? conn_run(&db->conn, statement) : ERR_NO_MEMORY;
}

/* Column AT as an id; false where it is none. */
static bool column_id(sqlite3_stmt *row, int at, struct id128 *out)
{
    const void *bytes = sqlite3_column_blob(row, at);

    if (!bytes || sqlite3_column_bytes(row, at) != (int)sizeof out->bytes)
        return false;
    memcpy(out->bytes, bytes, sizeof out->bytes);
    return true;
}

static int read_member(sqlite3_stmt *row, struct db_member *out)
{
    const unsigned char *address = sqlite3_column_text(row, 2);
    int len = sqlite3_column_bytes(row, 2);
    int64_t state = sqlite3_column_int64(row, 3);

    *out = (struct db_member){.state = (enum member_state)state,
                              .at.stamp = (hlc_time)sqlite3_column_int64(row, 4)};
    if (!address || len > LIMIT_WIRE_ADDR_BYTES || state < MEMBER_JOINED ||
        state > MEMBER_FORGOTTEN || !column_id(row, 1, &out->node) ||
        !column_id(row, 5, &out->at.origin))
        return ERR_CORRUPT;
    memcpy(out->address, address, (size_t)len);
    return 0;
}

int db_reader_members(struct db_reader *reader, struct db_member **out, size_t *count)
{
    struct db_member *members = NULL;
    size_t cap = 0;
    sqlite3_stmt *select;
    int rc = conn_statement(&reader->conn, STATEMENT_MEMBERS, &select);

    *out = NULL;
    *count = 0;
    if (rc)
        return rc;
    while ((rc = conn_step(&reader->conn, select)) == 1) {
        if (sqlite3_column_int64(select, 3) == 0)
            continue; /* it only holds something */
        if (*count == cap) {
            struct db_member *grown = realloc(members, (cap + 16) * sizeof *grown);

            if (!grown) {
                rc = ERR_NO_MEMORY;
                break;
            }
            members = grown;
            cap += 16;
        }
        rc = read_member(select, &members[*count]);
        if (rc)
            break;
        ++*count;
    }
    sqlite3_reset(select);
    if (rc) {
        free(members);
        *count = 0;
        return rc;
    }
    *out = members;
    return 0;
}

int holder_from_row(sqlite3_stmt *row, struct snapshot_holder *out, int64_t *member)
{
    const void *sha256 = sqlite3_column_blob(row, 2);

    *out = (struct snapshot_holder){.held = sqlite3_column_int64(row, 3) != 0,
                                    .at.stamp = (hlc_time)sqlite3_column_int64(row, 4)};
    *member = sqlite3_column_int64(row, 6);
    if (!sha256 || sqlite3_column_bytes(row, 2) != SHA256_BYTES || !column_id(row, 0, &out->id) ||
        !column_id(row, 1, &out->node) || !column_id(row, 5, &out->at.origin))
        return ERR_CORRUPT;
    memcpy(out->sha256, sha256, SHA256_BYTES);
    return 0;
}

int db_each_holder(struct db_reader *reader, struct db_holder_cursor *cursor, unsigned max,
                   int (*each)(void *arg, const struct snapshot_holder *holder), void *arg)
{
    sqlite3_stmt *select;
    int rc = conn_statement(&reader->conn, STATEMENT_EACH_HOLDER, &select);

    if (rc)
        return rc;
    int code =
        sqlite3_bind_blob(select, 1, cursor->id.bytes, sizeof cursor->id.bytes, SQLITE_TRANSIENT);
    code |= sqlite3_bind_int64(select, 2, cursor->begun ? cursor->member : -1);
    code |= sqlite3_bind_blob(select, 3, cursor->sha256, SHA256_BYTES, SQLITE_TRANSIENT);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    for (; max > 0; max--) {
        struct snapshot_holder holder;
        int64_t member;

        rc = conn_step(&reader->conn, select);
        if (rc != 1) {
            cursor->done = rc == 0;
            break;
        }
        rc = holder_from_row(select, &holder, &member);
        if (rc == 0)
            rc = each(arg, &holder);
        if (rc)
            break;
        cursor->begun = true;
        cursor->id = holder.id;
        cursor->member = member;
        memcpy(cursor->sha256, holder.sha256, SHA256_BYTES);
    }
    sqlite3_reset(select);
    return rc == 1 ? 0 : rc;
}

static int run_no(struct conn *conn, const struct id128 *origin, int64_t *no)
{
    sqlite3_stmt *select;
    int rc = conn_statement(conn, STATEMENT_RUN, &select);

    if (rc)
        return rc;
    if (bind_id(select, 1, origin) != SQLITE_OK)
        return ERR_NO_MEMORY;
    rc = conn_step(conn, select);
    if (rc != 1)
        return rc ? rc : ERR_NOT_FOUND;
    *no = sqlite3_column_int64(select, 0);
    sqlite3_reset(select);
    return 0;
}

struct collecting {
    struct buf *out;
    uint64_t next;
    size_t max_bytes, start;
    uint32_t count;
};

static int collect(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct collecting *c = arg;
    uint32_t length = (uint32_t)len;

    if (seq != c->next)
        return ERR_RANGE; /* the end of what lies together */
    if (c->count && c->out->len - c->start + sizeof length + len > c->max_bytes)
        return ERR_RANGE;
    buf_add(c->out, &length, sizeof length);
    buf_add(c->out, raw, len);
    c->count++;
    c->next++;
    return buf_check(c->out);
}

int db_reader_events(struct db_reader *reader, const struct id128 *origin, uint64_t first,
                     size_t max_bytes, struct buf *out, uint32_t *count)
{
    struct collecting c = {.out = out, .next = first, .max_bytes = max_bytes, .start = out->len};
    int64_t no;
    int rc = run_no(&reader->conn, origin, &no);

    *count = 0;
    if (rc == 0)
        rc = db_each_event(reader, no, first, collect, &c);
    if (rc == ERR_RANGE)
        rc = 0;
    if (rc == 0 && c.count == 0)
        rc = ERR_NOT_FOUND;
    *count = c.count;
    return rc;
}

static int read_author(struct conn *conn, const struct id128 *origin, struct id128 *node)
{
    sqlite3_stmt *select;
    int rc = conn_statement(conn, STATEMENT_AUTHOR, &select);

    if (rc)
        return rc;
    if (bind_id(select, 1, origin) != SQLITE_OK)
        return ERR_NO_MEMORY;
    rc = conn_step(conn, select);
    if (rc == 1)
        rc = column_id(select, 0, node) ? 0 : ERR_CORRUPT;
    else if (rc == 0)
        rc = ERR_NOT_FOUND;
    sqlite3_reset(select);
    return rc;
}

int db_reader_holders(struct db_reader *reader, const struct object *object, struct id128 *out,
                      size_t max, size_t *count)
{
    struct id128 author;
    sqlite3_stmt *select;
    int rc = read_author(&reader->conn, &object->put_at.origin, &author);
    bool put_holds = rc == 0;

    *count = 0;
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    if (put_holds && max > 0)
        out[(*count)++] = author;
    rc = conn_statement(&reader->conn, STATEMENT_HOLDERS, &select);
    if (rc)
        return rc;
    int code = bind_id(select, 1, &object->id);
    code |= sqlite3_bind_blob(select, 2, object->sha256, SHA256_BYTES, SQLITE_STATIC);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    while ((rc = conn_step(&reader->conn, select)) == 1) {
        struct reg at = {.stamp = (hlc_time)sqlite3_column_int64(select, 2)};
        bool held = sqlite3_column_int64(select, 1) != 0;
        struct id128 node;

        if (!column_id(select, 0, &node) || !column_id(select, 3, &at.origin)) {
            rc = ERR_CORRUPT;
            break;
        }
        if (put_holds && id_equal(&node, &author)) {
            /* It put these bytes, and says something about its copy besides: the later counts. */
            if (!held && at.stamp > object->put_at.stamp) {
                memmove(out, out + 1, (*count - 1) * sizeof *out);
                --*count;
                put_holds = false;
            }
        } else if (held && *count < max) {
            out[(*count)++] = node;
        }
    }
    sqlite3_reset(select);
    return rc;
}

/* Whether the views know the put that decided OBJECT's bytes. A row that is still pending is ahead
 * of them: of what its author adopted from the cloud they may lack the drop that came before that
 * put, and nobody is to count on a copy that never was. Only what the cloud is known to have or to
 * get is ever adopted; of all else the put itself says who has it. */
static int put_is_in_view(struct db_reader *reader, const struct object *object, bool *in_view)
{
    struct object *seen = NULL;

    *in_view = !(object->flags & OBJECT_CLOUD);
    if (*in_view)
        return 0;
    int rc = db_find(reader, &object->id, &seen);

    *in_view = rc == 0 && reg_compare(&seen->put_at, &object->put_at) == 0;
    object_destroy(&seen);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* Whether the member in ROW of STATEMENT_COPIES has the bytes: what it said of them last, or that
 * it put them, whichever came later. */
static bool row_holds(sqlite3_stmt *row, const struct object *object, bool is_author)
{
    bool said = sqlite3_column_type(row, 2) != SQLITE_NULL;
    bool held = said && sqlite3_column_int64(row, 2) != 0;
    hlc_time stamp = said ? (hlc_time)sqlite3_column_int64(row, 3) : 0;

    return held || (is_author && !(said && stamp > object->put_at.stamp));
}

int db_reader_copies(struct db_reader *reader, const struct object *object,
                     const struct id128 *self, struct db_copies *out)
{
    struct db_copies sum = {.uploaded = object->flags & OBJECT_UPLOADED};
    struct id128 author, node;
    sqlite3_stmt *select;
    bool self_belongs = true;
    int rc = read_author(&reader->conn, &object->put_at.origin, &author);
    bool has_author = rc == 0;

    *out = sum;
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    if (has_author && !id_equal(&author, self) &&
        (rc = put_is_in_view(reader, object, &has_author)) != 0)
        return rc;
    if ((rc = conn_statement(&reader->conn, STATEMENT_COPIES, &select)) != 0)
        return rc;
    int code = bind_id(select, 1, &object->id);
    code |= sqlite3_bind_blob(select, 2, object->sha256, SHA256_BYTES, SQLITE_STATIC);
    code |= bind_id(select, 3, self);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    while ((rc = conn_step(&reader->conn, select)) == 1) {
        if (!column_id(select, 0, &node)) {
            rc = ERR_CORRUPT;
            break;
        }
        if (id_equal(&node, self)) {
            int64_t state = sqlite3_column_int64(select, 1);

            self_belongs = state != MEMBER_LEFT && state != MEMBER_FORGOTTEN;
            continue;
        }
        sum.members++;
        sum.held += row_holds(select, object, has_author && id_equal(&author, &node));
    }
    sqlite3_reset(select);
    if (rc)
        return rc;
    sum.members += self_belongs;
    sum.held += self_belongs && !place_is_none(&object->place);
    *out = sum;
    return 0;
}

int db_reader_wanted(struct db_reader *reader, const struct id128 *after, unsigned max,
                     int (*each)(void *arg, const struct id128 *id, uint64_t size), void *arg)
{
    static const struct id128 none;
    sqlite3_stmt *select;
    int rc = conn_statement(&reader->conn, STATEMENT_WANTED, &select);

    if (rc)
        return rc;
    int code = bind_id(select, 1, after ? after : &none);
    code |= sqlite3_bind_int64(select, 2, max);
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    while ((rc = conn_step(&reader->conn, select)) == 1) {
        struct id128 id;

        rc = column_id(select, 0, &id) ? each(arg, &id, (uint64_t)sqlite3_column_int64(select, 1))
                                       : ERR_CORRUPT;
        if (rc)
            break;
    }
    sqlite3_reset(select);
    return rc;
}
