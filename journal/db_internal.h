/* What the files of the journal's database share; nobody else includes it. db.h is the contract. */
#ifndef JOURNAL_DB_INTERNAL_H
#define JOURNAL_DB_INTERNAL_H

#include "journal/db.h"

#include <sqlite3.h>

/* Binding fails for want of memory; the parameter is NULL then, and a query with it finds nothing,
 * which looks like an empty table. So nobody may pass over what these return. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
/* NOLINTBEGIN(readability-redundant-declaration) */
int sqlite3_bind_blob(sqlite3_stmt *, int, const void *, int, void (*)(void *)) MUST_CHECK;
int sqlite3_bind_text(sqlite3_stmt *, int, const char *, int, void (*)(void *)) MUST_CHECK;
int sqlite3_bind_int(sqlite3_stmt *, int, int) MUST_CHECK;
int sqlite3_bind_int64(sqlite3_stmt *, int, sqlite3_int64) MUST_CHECK;
/* NOLINTEND(readability-redundant-declaration) */
#pragma GCC diagnostic pop

#define DB_APPLICATION_ID 0x4F424A53 /* "OBJS" */
#define DB_USER_VERSION   5

/* Every statement there is; db_schema.c has their text. */
enum statement {
    /* any connection */
    STATEMENT_FIND,
    STATEMENT_FIND_MORE,
    STATEMENT_STATE,
    STATEMENT_ORIGINS,
    STATEMENT_SEGMENTS,
    STATEMENT_SNAPSHOT,
    /* the writer */
    STATEMENT_BEGIN,
    STATEMENT_COMMIT,
    STATEMENT_ROLLBACK,
    STATEMENT_FLAGS,
    STATEMENT_STATE_SET,
    STATEMENT_ORIGIN_ADD,
    STATEMENT_ORIGIN_SET,
    STATEMENT_EVENT_ADD,
    STATEMENT_OBJECT_SET,
    STATEMENT_OBJECT_SET_MORE,
    STATEMENT_OUTBOX_ADD,
    STATEMENT_OUTBOX_REMOVE,
    STATEMENT_SEGMENT_SET,
    STATEMENT_SEGMENT_REMOVE,
    STATEMENT_GARBAGE_ADD,
    STATEMENT_GARBAGE_REMOVE,
    STATEMENT_CONFLICT_SET,
    STATEMENT_CONFLICT_REMOVE,
    STATEMENT_CONFLICT_SUMS,
    STATEMENT_CONFLICT_OF,
    STATEMENT_CONFLICT_FOR,
    STATEMENT_CONFLICT,
    STATEMENT_OUTBOX_SINCE,
    STATEMENT_SNAPSHOT_SET,
    STATEMENT_SNAPSHOT_OLDER,
    STATEMENT_CUT_ADD,
    STATEMENT_CUTS,
    STATEMENT_CUTS_OLDER,
    STATEMENT_COMPACTION_BEGIN,
    STATEMENT_COMPACTION_END,
    STATEMENT_EVENTS_REMOVE,
    STATEMENT_MEMBER_NO,
    STATEMENT_MEMBER_ADD,
    STATEMENT_MEMBER_SET,
    STATEMENT_HOLDER_SET,
    STATEMENT_HOLDERS_REMOVE,
    STATEMENT_FEATURE_RAISE,
    STATEMENT_FROZEN_SET,
    STATEMENT_RESTATE_ADD,
    STATEMENT_RESTATE_LOWER,
    STATEMENT_RESTATE_SET,
    STATEMENT_LAST_OF_WRITER = STATEMENT_RESTATE_SET,
    /* readers */
    STATEMENT_EVENTS,
    STATEMENT_OBJECTS,
    STATEMENT_OBJECTS_MORE,
    STATEMENT_GARBAGE,
    STATEMENT_ALL_OBJECTS,
    STATEMENT_ALL_OBJECTS_MORE,
    STATEMENT_ROWS,
    STATEMENT_ROWS_MORE,
    STATEMENT_OUTBOX,
    STATEMENT_WANTED,
    STATEMENT_MEMBERS,
    STATEMENT_HOLDERS,
    STATEMENT_EACH_HOLDER,
    STATEMENT_AUTHOR,
    STATEMENT_COPIES,
    STATEMENT_RUN,
    STATEMENT_CONFLICTS,
    STATEMENT_FROZEN,
    STATEMENT_RESTATE,
    STATEMENT_FEATURE,
    STATEMENT_OWED_OTHERS,
    STATEMENT_RANGE,
    STATEMENT_COUNT
};

/* One connection with its statements, each prepared at its first use. */
struct conn {
    sqlite3 *sql;
    sqlite3_stmt *statements[STATEMENT_COUNT];
};

struct db {
    struct conn conn;
    unsigned wal_pages;    /* in the WAL after the last commit */
    unsigned copied_pages; /* of them, already in the database file */
};

struct db_reader {
    struct conn conn;
    const char *vfs; /* SQLite's copy of the name, for backups */
};

/* ---- db_schema.c: connections ---- */

/* Open and set up; FLAGS as sqlite3_open_v2. On failure CONN is closed. */
int conn_open(struct conn *conn, const char *vfs, const char *path, int flags) MUST_CHECK;
void conn_close(struct conn *conn);
/* Run SQL text that gives no rows that anyone wants. */
int conn_exec(struct conn *conn, const char *sql) MUST_CHECK;
/* The first column of the first row of SQL as an integer; ERR_NOT_FOUND without a row. */
int conn_number(struct conn *conn, const char *sql, int64_t *out) MUST_CHECK;
/* The statement, reset and ready for its parameters. */
int conn_statement(struct conn *conn, enum statement which, sqlite3_stmt **out) MUST_CHECK;
/* Step a statement that gives no rows, and reset it. */
int conn_run(struct conn *conn, sqlite3_stmt *statement) MUST_CHECK;
/* Step: 1 for a row, 0 at the end, or an error; reset unless a row. */
int conn_step(struct conn *conn, sqlite3_stmt *statement) MUST_CHECK;
/* The enum err for CODE, the failure of the last call on CONN; logs SQLite's words. */
int conn_error(struct conn *conn, int code) MUST_CHECK;
/* 0: an objstore database; ERR_AGAIN: one that conn_upgrade has to see first; ERR_NOT_FOUND: empty;
 * ERR_FORMAT; ERR_CORRUPT. */
int conn_identify(struct conn *conn) MUST_CHECK;
/* Bring the tables of an older version to this one's. */
int conn_upgrade(struct conn *conn) MUST_CHECK;
/* Make the tables and the first state. After an error the connection must be closed. */
int conn_create_schema(struct conn *conn, const struct id128 *node,
                       const struct id128 *store) MUST_CHECK;

/* ---- db_row.c: rows to structs and back ---- */

/* Where an object's row lies in its table: monotone in the id, so that order by key is order by id.
 * Rows whose key is taken by another id go to a table of their own. */
int64_t object_key(const struct id128 *id);
/* Bind all members as STATEMENT_OBJECT_SET and _MORE take them. OBJECT must outlive the step. */
int object_bind(sqlite3_stmt *statement, const struct object *object) MUST_CHECK;
/* A fresh object from a row of OBJECT_COLUMNS. ERR_CORRUPT: no such values were ever written. */
int object_from_row(sqlite3_stmt *statement, struct object **out) MUST_CHECK;
bool row_has_id(sqlite3_stmt *row, const struct id128 *id);

int64_t event_key(int64_t origin_no, uint64_t seq);
uint64_t event_key_seq(int64_t key);
/* Whether event_key can be made of them. */
bool event_key_fits(int64_t origin_no, uint64_t seq);
#define EVENT_SEQ_BITS       40
#define EVENT_SEQ_MAX        ((UINT64_C(1) << EVENT_SEQ_BITS) - 1)
#define OBJECT_KEY_PARAMETER 30
/* In the statements about conflicts; as a column it follows those of the row. */
#define CONFLICT_TARGET_PARAMETER 30
#define CONFLICT_TARGET_COLUMN    29

/* A row of STATEMENT_EACH_HOLDER, and the holder's number. */
struct snapshot_holder;
int holder_from_row(sqlite3_stmt *row, struct snapshot_holder *out, int64_t *member) MUST_CHECK;

int find_object(struct conn *conn, const struct id128 *id, struct object **out) MUST_CHECK;
int read_state(struct conn *conn, struct db_state *out) MUST_CHECK;
int read_origins(struct conn *conn, struct db_origin **out, size_t *count) MUST_CHECK;
int read_segments(struct conn *conn, struct db_segment **out, size_t *count) MUST_CHECK;
int bind_state(sqlite3_stmt *statement, const struct db_state *state) MUST_CHECK;
int bind_origin(sqlite3_stmt *statement, const struct db_origin *origin) MUST_CHECK;
int bind_segment(sqlite3_stmt *statement, const struct db_segment *segment) MUST_CHECK;

/* ---- db_walk.c: rows in the order of their ids ---- */

struct db_walk {
    struct conn *conn;
    sqlite3_stmt *select[2];
    struct object *next[2]; /* NULL at the end */
    struct id128 after;
    bool has_after;
};

/* Begin above AFTER (NULL: with the first). KEYED, MORE: statements over the two tables of objects,
 * whose only parameters are the least key, and the id to begin above. Whatever it returns,
 * db_walk_end is due. */
int db_walk_begin(struct db_walk *walk, struct conn *conn, enum statement keyed,
                  enum statement more, const struct id128 *after) MUST_CHECK;
/* Where it stands; NULL at the end. The walk's, until the next step. */
struct object *db_walk_at(const struct db_walk *walk);
/* One on; not from the end. */
int db_walk_next(struct db_walk *walk) MUST_CHECK;
void db_walk_end(struct db_walk *walk);

#endif
