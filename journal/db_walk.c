/*
 * Walking over rows in the order of their ids. Objects lie in two tables, each in that order: those
 * that own their key, and the few whose key another one has; they are read as one.
 *
 * Happy path: db_walk_begin → db_walk_at, db_walk_next … → db_walk_end. The caller bounds how many
 * it takes: the walk holds a snapshot of the database open.
 *
 * Failure: SQLite's, as db.c; db_walk_end is due all the same.
 */
#include "journal/db_internal.h"

#include <assert.h>

/* The next row of table WHICH above where the walk begins: those of one key lie in both. */
static int advance(struct db_walk *walk, int which)
{
    struct object **next = &walk->next[which];
    int rc;

    do {
        object_destroy(next);
        rc = conn_step(walk->conn, walk->select[which]);
        if (rc == 1)
            rc = object_from_row(walk->select[which], next);
    } while (!rc && *next && walk->has_after && id_compare(&(*next)->id, &walk->after) <= 0);
    return rc;
}

int db_walk_begin(struct db_walk *walk, struct conn *conn, enum statement keyed,
                  enum statement more, const struct id128 *after)
{
    *walk = (struct db_walk){.conn = conn, .has_after = after};
    if (after)
        walk->after = *after;
    int rc = conn_statement(conn, keyed, &walk->select[0]);

    if (!rc)
        rc = conn_statement(conn, more, &walk->select[1]);
    if (rc)
        return rc;
    int code = sqlite3_bind_int64(walk->select[0], 1, after ? object_key(after) : INT64_MIN);
    if (code == SQLITE_OK)
        code = sqlite3_bind_blob(walk->select[1], 1, walk->after.bytes, sizeof walk->after.bytes,
                                 SQLITE_TRANSIENT);
    if (code != SQLITE_OK)
        return conn_error(conn, code); /* unbound, it would list nothing */
    rc = advance(walk, 0);
    return rc ? rc : advance(walk, 1);
}

/* Which table's row comes first. */
static int lower(const struct db_walk *walk)
{
    const struct object *a = walk->next[0], *b = walk->next[1];

    return !a || (b && id_compare(&b->id, &a->id) < 0);
}

struct object *db_walk_at(const struct db_walk *walk)
{
    return walk->next[lower(walk)];
}

int db_walk_next(struct db_walk *walk)
{
    int which = lower(walk);

    assert(walk->next[which]);
    return advance(walk, which);
}

void db_walk_end(struct db_walk *walk)
{
    for (int i = 0; i < 2; i++) {
        object_destroy(&walk->next[i]);
        if (walk->select[i])
            sqlite3_reset(walk->select[i]);
    }
}
