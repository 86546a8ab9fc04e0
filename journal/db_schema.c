/*
 * The database's tables and statements, and what every connection to it has in common: opening,
 * settings, and the way from SQLite's result codes to ours.
 *
 * Keys. `objects` and `events` are tables with an integer key rather than WITHOUT ROWID: an
 * interior page then leads to some 300 children instead of 25 (there it would hold whole rows), and
 * appending, which is what ids made by the server and events do, fills pages to the brim.
 * - An event's key is its origin's number and its seq.
 * - An object's key is the top of its id: 42 bits of time, 21 of randomness; order by key is order
 * by id. The rare id whose key is taken (or the many that somebody makes up on purpose) goes to
 *   objects_more, keyed by the whole id. Rows of objects are never removed, tombstones stay, so an
 * id lies in objects_more exactly where another id holds its key.
 *
 * Unsigned 64-bit values are stored as SQLite's signed ones, bit for bit.
 *
 * Failure: an error is logged here, where SQLite's words for it are known, and returned as ours.
 */
#include "journal/db_internal.h"

#include "base/log.h"
#include "journal/vfs.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define BUSY_TIMEOUT_MS 10000
#define OLDEST_VERSION  2 /* that conn_upgrade knows */

/* The members of struct object, in the order of enum object_column (db_row.c). */
#define OBJECT_COLUMNS                                                                             \
    "id, flags, level, put_stamp, put_origin, sha256, size, name_stamp, name_origin, "             \
    "user_meta_stamp, user_meta_origin, expires_stamp, expires_origin, expires_ms, deleted_at, "   \
    "uploaded_stamp, uploaded_origin, uploaded_sha256, disk, volume, byte_offset, lsn, "           \
    "record_bytes, name, type, user_meta, purged_stamp, purged_origin, cloud"
#define OBJECT_PARAMETERS                                                                          \
    "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, "  \
    "?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29"
#define OBJECT_MEMBERS                                                                             \
    "flags INTEGER NOT NULL, level INTEGER NOT NULL, put_stamp INTEGER NOT NULL, "                 \
    "put_origin BLOB, sha256 BLOB, size INTEGER NOT NULL, name_stamp INTEGER, name_origin BLOB, "  \
    "user_meta_stamp INTEGER, user_meta_origin BLOB, expires_stamp INTEGER, "                      \
    "expires_origin BLOB, expires_ms INTEGER NOT NULL, deleted_at INTEGER NOT NULL, "              \
    "uploaded_stamp INTEGER NOT NULL, uploaded_origin BLOB, uploaded_sha256 BLOB, "                \
    "disk INTEGER NOT NULL, volume INTEGER NOT NULL, byte_offset INTEGER NOT NULL, "               \
    "lsn INTEGER NOT NULL, record_bytes INTEGER NOT NULL, name TEXT, type TEXT, user_meta TEXT, "  \
    "purged_stamp INTEGER, purged_origin BLOB, cloud BLOB"
#define STATE_COLUMNS                                                                              \
    "node, store, position, clean_generation, hlc, events, objects, deleted, bytes, outbox, "      \
    "outbox_bytes, digest_low, digest_high, last_origin, event_bytes, wanted, wanted_bytes, "      \
    "marks, purges"
#define ORIGIN_COLUMNS "no, origin, node, seq, hash, anchor_seq, anchor_hash, ended"
#define SEGMENT_COLUMNS                                                                            \
    "volume, disk, base, end_bytes, sealed, body_bytes, live_bytes, live_record_bytes"

/* Since version 3: what is known of other nodes. */
static const char peer_schema[] =
    /* Whoever is or was a member, or holds something; state 0: no member event is known. */
    "CREATE TABLE members(no INTEGER PRIMARY KEY, node BLOB NOT NULL UNIQUE, "
    "address TEXT NOT NULL, state INTEGER NOT NULL, stamp INTEGER NOT NULL, "
    "origin BLOB NOT NULL);"
    /* Copies: each node speaks for itself. The hold that a put implies has no row. */
    "CREATE TABLE holders(id BLOB NOT NULL, member INTEGER NOT NULL, sha256 BLOB NOT NULL, "
    "held INTEGER NOT NULL, stamp INTEGER NOT NULL, origin BLOB NOT NULL, "
    "PRIMARY KEY (id, member, sha256)) WITHOUT ROWID;";

/* Since version 4: bytes that lost against others under their id (db_conflict.h). */
static const char conflict_schema[] =
    "CREATE TABLE conflicts(id BLOB NOT NULL, " OBJECT_MEMBERS ", target BLOB NOT NULL, "
    "PRIMARY KEY (id, sha256)) WITHOUT ROWID;"
    "CREATE INDEX conflicts_by_target ON conflicts(target);";

/* Since version 4: runs that contradict themselves, and what of our own is to be said again. */
static const char freeze_schema[] =
    "CREATE TABLE frozen(origin BLOB PRIMARY KEY, node BLOB NOT NULL, seq INTEGER NOT NULL, "
    "hash BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE restate(origin BLOB PRIMARY KEY, next INTEGER NOT NULL, "
    "broke INTEGER NOT NULL) WITHOUT ROWID;";

/* Since version 4: what the members have agreed on. */
static const char cluster_schema[] =
    "CREATE TABLE cluster(one INTEGER PRIMARY KEY CHECK (one = 1), feature INTEGER NOT NULL);"
    "INSERT INTO cluster(one, feature) VALUES(1, 1);";

static const char schema[] =
    "CREATE TABLE state(one INTEGER PRIMARY KEY CHECK (one = 1), node BLOB NOT NULL, "
    "store BLOB NOT NULL, position INTEGER NOT NULL, clean_generation INTEGER NOT NULL, "
    "hlc INTEGER NOT NULL, events INTEGER NOT NULL, objects INTEGER NOT NULL, "
    "deleted INTEGER NOT NULL, bytes INTEGER NOT NULL, outbox INTEGER NOT NULL, "
    "outbox_bytes INTEGER NOT NULL, digest_low INTEGER NOT NULL, digest_high INTEGER NOT NULL, "
    "last_origin BLOB NOT NULL, event_bytes INTEGER NOT NULL, wanted INTEGER NOT NULL, "
    "wanted_bytes INTEGER NOT NULL, marks INTEGER NOT NULL, purges INTEGER NOT NULL);"
    "CREATE TABLE origins(no INTEGER PRIMARY KEY, origin BLOB NOT NULL UNIQUE, "
    "node BLOB NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, anchor_seq INTEGER NOT NULL, "
    "anchor_hash BLOB NOT NULL, ended INTEGER NOT NULL);"
    "CREATE TABLE events(key INTEGER PRIMARY KEY, raw BLOB NOT NULL);"
    "CREATE TABLE objects(key INTEGER PRIMARY KEY, id BLOB NOT NULL, " OBJECT_MEMBERS ");"
    "CREATE TABLE objects_more(id BLOB PRIMARY KEY, " OBJECT_MEMBERS ") WITHOUT ROWID;"
    "CREATE TABLE outbox(kind INTEGER NOT NULL, id BLOB NOT NULL, since_ms INTEGER NOT NULL, "
    "size INTEGER NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;"
    "CREATE TABLE segments(volume INTEGER PRIMARY KEY, disk INTEGER NOT NULL, "
    "base INTEGER NOT NULL, end_bytes INTEGER NOT NULL, sealed INTEGER NOT NULL, "
    "body_bytes INTEGER NOT NULL, live_bytes INTEGER NOT NULL, "
    "live_record_bytes INTEGER NOT NULL);"
    "CREATE TABLE garbage(freed_at INTEGER NOT NULL, file INTEGER NOT NULL, "
    "PRIMARY KEY (freed_at, file)) WITHOUT ROWID;"
    /* Complete snapshots in the log: the newest two. */
    "CREATE TABLE snapshots(id BLOB PRIMARY KEY, position INTEGER NOT NULL, "
    "chunks INTEGER NOT NULL) WITHOUT ROWID;"
    /* Up to which event of each run a snapshot goes; also of one whose end is still to come. */
    "CREATE TABLE cuts(snapshot BLOB NOT NULL, origin BLOB NOT NULL, seq INTEGER NOT NULL, "
    "hash BLOB NOT NULL, PRIMARY KEY (snapshot, origin)) WITHOUT ROWID;"
    /* Holds a row only inside a transaction of compaction, which alone may remove events. */
    "CREATE TABLE compaction(running INTEGER PRIMARY KEY CHECK (running = 1));"
    "CREATE TRIGGER events_never_change BEFORE UPDATE ON events BEGIN "
    "SELECT RAISE(ABORT, 'events are append-only'); END;"
    "CREATE TRIGGER events_stay BEFORE DELETE ON events "
    "WHEN NOT EXISTS (SELECT 1 FROM compaction) BEGIN "
    "SELECT RAISE(ABORT, 'events are append-only'); END;";

/* A database of version 2 becomes one that lists what object_wanted_here says. Such a node knew of
 * no other, so these are objects of its own whose copy was lost. */
#define WANTED_OF(table)                                                                           \
    "INSERT INTO outbox(kind, id, since_ms, size) SELECT 2, id, put_stamp >> 16, size FROM " table \
    " WHERE flags & 3 = 1 AND level >= 2 AND volume = 0;"
static const char want_replicas[] =
    "ALTER TABLE state ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE state ADD COLUMN wanted_bytes INTEGER NOT NULL DEFAULT 0;" WANTED_OF("objects")
        WANTED_OF(
            "objects_more") "UPDATE state SET (wanted, wanted_bytes) = "
                            "(SELECT count(*), coalesce(sum(size), 0) FROM outbox WHERE kind = 2);";

/* To version 5: what is known of copies in the cloud. No earlier version had one, so nothing but
 * the mark can be owed, of what a peer of a later version has told of. */
#define KNOW_THE_CLOUD(table)                                                                      \
    "ALTER TABLE " table " ADD COLUMN purged_stamp INTEGER;"                                       \
    "ALTER TABLE " table " ADD COLUMN purged_origin BLOB;"                                         \
    "ALTER TABLE " table " ADD COLUMN cloud BLOB;"
#define OWE_MARKS(table)                                                                           \
    "INSERT INTO outbox(kind, id, since_ms, size) SELECT 10, id, deleted_at >> 16, 0 FROM " table  \
    " WHERE flags & 6 = 6;"
static const char know_the_cloud[] =
    KNOW_THE_CLOUD("objects") KNOW_THE_CLOUD("objects_more") OWE_MARKS("objects")
        OWE_MARKS("objects_more") "ALTER TABLE state ADD COLUMN marks INTEGER NOT NULL DEFAULT 0;"
                                  "ALTER TABLE state ADD COLUMN purges INTEGER NOT NULL DEFAULT 0;"
                                  "UPDATE state SET marks = "
                                  "(SELECT count(*) FROM outbox WHERE kind = 10);";
/* … in the table that version 4 has brought. */
static const char conflicts_know_the_cloud[] = KNOW_THE_CLOUD("conflicts");

/* To version 4: the snapshots of version 3 lack holders and members, so they cover no hold, drop or
 * member event: the next ones do. */
static const char forget_snapshots[] = "DELETE FROM snapshots; DELETE FROM cuts;";

static const char *const texts[STATEMENT_COUNT] = {
    [STATEMENT_FIND] = "SELECT " OBJECT_COLUMNS " FROM objects WHERE key = ?1",
    [STATEMENT_FIND_MORE] = "SELECT " OBJECT_COLUMNS " FROM objects_more WHERE id = ?1",
    [STATEMENT_STATE] = "SELECT " STATE_COLUMNS " FROM state",
    [STATEMENT_ORIGINS] = "SELECT " ORIGIN_COLUMNS ", EXISTS (SELECT 1 FROM frozen f WHERE "
                          "f.origin = o.origin) FROM origins o ORDER BY no",
    [STATEMENT_SEGMENTS] = "SELECT " SEGMENT_COLUMNS " FROM segments ORDER BY volume",
    [STATEMENT_SNAPSHOT] =
        "SELECT id, position, chunks FROM snapshots ORDER BY position DESC LIMIT 2",

    [STATEMENT_BEGIN] = "BEGIN IMMEDIATE",
    [STATEMENT_COMMIT] = "COMMIT",
    [STATEMENT_ROLLBACK] = "ROLLBACK",
    [STATEMENT_FLAGS] = "SELECT id, flags FROM objects WHERE key = ?1",
    [STATEMENT_STATE_SET] =
        "UPDATE state SET node = ?1, store = ?2, position = ?3, clean_generation = ?4, hlc = ?5, "
        "events = ?6, objects = ?7, deleted = ?8, bytes = ?9, outbox = ?10, outbox_bytes = ?11, "
        "digest_low = ?12, digest_high = ?13, last_origin = ?14, event_bytes = ?15, "
        "wanted = ?16, wanted_bytes = ?17, marks = ?18, purges = ?19 WHERE one = 1",
    [STATEMENT_ORIGIN_ADD] =
        "INSERT INTO origins(" ORIGIN_COLUMNS ") VALUES(NULL, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    [STATEMENT_ORIGIN_SET] = "UPDATE origins SET origin = ?2, node = ?3, seq = ?4, hash = ?5, "
                             "anchor_seq = ?6, anchor_hash = ?7, ended = ?8 WHERE no = ?1",
    [STATEMENT_EVENT_ADD] = "INSERT INTO events(key, raw) VALUES(?1, ?2)",
    /* Changes nothing where another id holds the key. */
    [STATEMENT_OBJECT_SET] =
        "INSERT INTO objects(" OBJECT_COLUMNS ", key) VALUES(" OBJECT_PARAMETERS ", ?30) "
        "ON CONFLICT(key) DO UPDATE SET flags = ?2, level = ?3, put_stamp = ?4, put_origin = ?5, "
        "sha256 = ?6, size = ?7, name_stamp = ?8, name_origin = ?9, user_meta_stamp = ?10, "
        "user_meta_origin = ?11, expires_stamp = ?12, expires_origin = ?13, expires_ms = ?14, "
        "deleted_at = ?15, uploaded_stamp = ?16, uploaded_origin = ?17, uploaded_sha256 = ?18, "
        "disk = ?19, volume = ?20, byte_offset = ?21, lsn = ?22, record_bytes = ?23, name = ?24, "
        "type = ?25, user_meta = ?26, purged_stamp = ?27, purged_origin = ?28, cloud = ?29 "
        "WHERE id = ?1",
    [STATEMENT_OBJECT_SET_MORE] =
        "INSERT OR REPLACE INTO objects_more(" OBJECT_COLUMNS ") VALUES(" OBJECT_PARAMETERS ")",
    [STATEMENT_OUTBOX_ADD] =
        "INSERT OR REPLACE INTO outbox(kind, id, since_ms, size) VALUES(?2, ?1, ?3, ?4)",
    [STATEMENT_OUTBOX_REMOVE] = "DELETE FROM outbox WHERE kind = ?2 AND id = ?1",
    [STATEMENT_SEGMENT_SET] = "INSERT OR REPLACE INTO segments(" SEGMENT_COLUMNS
                              ") VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",

    [STATEMENT_SEGMENT_REMOVE] = "DELETE FROM segments WHERE volume = ?1",

    [STATEMENT_GARBAGE_ADD] = "INSERT OR IGNORE INTO garbage(freed_at, file) VALUES(?1, ?2)",
    [STATEMENT_GARBAGE_REMOVE] = "DELETE FROM garbage WHERE freed_at <= ?1",

    [STATEMENT_CONFLICT_SET] = "INSERT OR REPLACE INTO conflicts(" OBJECT_COLUMNS
                               ", target) VALUES(" OBJECT_PARAMETERS ", ?30)",
    [STATEMENT_CONFLICT_REMOVE] = "DELETE FROM conflicts WHERE id = ?1 AND sha256 = ?2",
    [STATEMENT_CONFLICT_SUMS] = "SELECT count(*), coalesce(sum(size), 0) FROM conflicts",
    [STATEMENT_CONFLICT_OF] =
        "SELECT " OBJECT_COLUMNS ", target FROM conflicts WHERE id = ?1 LIMIT 1",
    [STATEMENT_CONFLICT_FOR] =
        "SELECT " OBJECT_COLUMNS ", target FROM conflicts WHERE target = ?1 LIMIT 1",
    [STATEMENT_CONFLICT] =
        "SELECT " OBJECT_COLUMNS ", target FROM conflicts WHERE id = ?1 AND sha256 = ?2",

    [STATEMENT_OUTBOX_SINCE] = "UPDATE outbox SET since_ms = ?2 WHERE kind = ?3 AND id = ?1",
    [STATEMENT_SNAPSHOT_SET] =
        "INSERT OR REPLACE INTO snapshots(id, position, chunks) VALUES(?1, ?2, ?3)",
    [STATEMENT_SNAPSHOT_OLDER] = "DELETE FROM snapshots WHERE id NOT IN "
                                 "(SELECT id FROM snapshots ORDER BY position DESC LIMIT ?1)",
    [STATEMENT_CUT_ADD] =
        "INSERT OR IGNORE INTO cuts(snapshot, origin, seq, hash) VALUES(?1, ?2, ?3, ?4)",
    [STATEMENT_CUTS] = "SELECT origin, seq, hash FROM cuts WHERE snapshot = ?1",
    [STATEMENT_CUTS_OLDER] = "DELETE FROM cuts WHERE snapshot NOT IN (SELECT id FROM snapshots)",
    [STATEMENT_COMPACTION_BEGIN] = "INSERT INTO compaction(running) VALUES(1)",
    [STATEMENT_COMPACTION_END] = "DELETE FROM compaction",
    [STATEMENT_EVENTS_REMOVE] = "DELETE FROM events WHERE key BETWEEN ?1 AND ?2",

    [STATEMENT_MEMBER_NO] = "SELECT no FROM members WHERE node = ?1",
    [STATEMENT_MEMBER_ADD] =
        "INSERT INTO members(node, address, state, stamp, origin) VALUES(?1, '', 0, 0, x'') "
        "RETURNING no",
    [STATEMENT_MEMBER_SET] = "UPDATE members SET address = ?2, state = ?3, stamp = ?4, "
                             "origin = ?5 WHERE no = ?1 AND (stamp, origin) < (?4, ?5)",
    [STATEMENT_HOLDER_SET] =
        "INSERT INTO holders(id, member, sha256, held, stamp, origin) VALUES(?1, ?2, ?3, ?4, ?5, "
        "?6) ON CONFLICT(id, member, sha256) DO UPDATE SET held = ?4, stamp = ?5, origin = ?6 "
        "WHERE (stamp, origin) < (?5, ?6)",
    [STATEMENT_HOLDERS_REMOVE] = "DELETE FROM holders WHERE id = ?1",
    [STATEMENT_FEATURE_RAISE] = "UPDATE cluster SET feature = ?1 WHERE feature < ?1",

    [STATEMENT_FROZEN_SET] =
        "INSERT INTO frozen(origin, node, seq, hash) VALUES(?1, ?2, ?3, ?4) "
        "ON CONFLICT(origin) DO UPDATE SET seq = ?3, hash = ?4 WHERE (?3, ?4) < (seq, hash)",
    [STATEMENT_RESTATE_ADD] =
        "INSERT INTO restate(origin, next, broke) VALUES(?1, ?2, ?3) ON CONFLICT(origin) "
        "DO UPDATE SET next = min(next, ?2), broke = min(broke, ?3)",
    [STATEMENT_RESTATE_LOWER] =
        "UPDATE restate SET next = min(next, ?2), broke = min(broke, ?3) WHERE origin = ?1",
    [STATEMENT_RESTATE_SET] = "UPDATE restate SET next = ?2 WHERE origin = ?1 AND next < ?2",

    [STATEMENT_EVENTS] = "SELECT key, raw FROM events WHERE key BETWEEN ?1 AND ?2 ORDER BY key",
    [STATEMENT_OBJECTS] =
        "SELECT " OBJECT_COLUMNS " FROM objects WHERE key >= ?1 AND flags & 3 = 1 ORDER BY key",
    [STATEMENT_OBJECTS_MORE] =
        "SELECT " OBJECT_COLUMNS " FROM objects_more WHERE id > ?1 AND flags & 3 = 1 ORDER BY id",
    [STATEMENT_ALL_OBJECTS] = "SELECT " OBJECT_COLUMNS " FROM objects",
    [STATEMENT_ALL_OBJECTS_MORE] = "SELECT " OBJECT_COLUMNS " FROM objects_more",
    [STATEMENT_ROWS] = "SELECT " OBJECT_COLUMNS ", key FROM objects WHERE key > ?1 ORDER BY key",
    [STATEMENT_ROWS_MORE] = "SELECT " OBJECT_COLUMNS " FROM objects_more WHERE id > ?1 ORDER BY id",
    [STATEMENT_OUTBOX] =
        "SELECT id, since_ms, size FROM outbox WHERE kind = ?3 AND id > ?1 ORDER BY id LIMIT ?2",
    [STATEMENT_WANTED] =
        "SELECT id, size FROM outbox WHERE kind = 2 AND id > ?1 ORDER BY id LIMIT ?2",
    [STATEMENT_MEMBERS] = "SELECT no, node, address, state, stamp, origin FROM members ORDER BY no",
    [STATEMENT_HOLDERS] =
        "SELECT m.node, h.held, h.stamp, h.origin FROM holders h JOIN members m ON m.no = h.member "
        "WHERE h.id = ?1 AND h.sha256 = ?2",
    [STATEMENT_EACH_HOLDER] =
        "SELECT h.id, m.node, h.sha256, h.held, h.stamp, h.origin, h.member FROM holders h "
        "CROSS JOIN members m ON m.no = h.member "
        "WHERE (h.id, h.member, h.sha256) > (?1, ?2, ?3) ORDER BY h.id, h.member, h.sha256",
    [STATEMENT_COPIES] =
        "SELECT m.node, m.state, h.held, h.stamp FROM members m LEFT JOIN holders h "
        "ON h.id = ?1 AND h.member = m.no AND h.sha256 = ?2 WHERE m.state = 1 OR m.node = ?3",
    [STATEMENT_AUTHOR] = "SELECT node FROM origins WHERE origin = ?1",
    [STATEMENT_RUN] = "SELECT no FROM origins WHERE origin = ?1",
    [STATEMENT_CONFLICTS] = "SELECT " OBJECT_COLUMNS ", target FROM conflicts "
                            "WHERE (id, sha256) > (?1, ?2) ORDER BY id, sha256 LIMIT ?3",
    [STATEMENT_FROZEN] = "SELECT origin, node, seq, hash FROM frozen ORDER BY origin",
    [STATEMENT_RESTATE] = "SELECT origin, next, broke FROM restate ORDER BY origin",
    [STATEMENT_FEATURE] = "SELECT feature FROM cluster",
    [STATEMENT_OWED_OTHERS] = "SELECT count(*) FROM conflicts",
    [STATEMENT_RANGE] = "SELECT " OBJECT_COLUMNS " FROM objects WHERE key >= ?1 ORDER BY key",
    [STATEMENT_GARBAGE] = "SELECT file, freed_at FROM garbage WHERE freed_at > ?1 AND "
                          "freed_at < ?2 ORDER BY freed_at, file LIMIT ?3",
};

_Static_assert(OBJECT_PUT == 1 && OBJECT_DELETED == 2 && OBJECT_CLOUD == 4 && OUTBOX_MARK == 10,
               "the statements above name these");

/* What the VFS met on the disk, as our code; ERR_IO where it does not say. */
static int disk_error(struct conn *conn)
{
    int rc = sqlite3_system_errno(conn->sql);

    return rc < 0 ? rc : ERR_IO;
}

static int translate(struct conn *conn, int code)
{
    if (code == SQLITE_IOERR_SHORT_READ || code == SQLITE_IOERR_CORRUPTFS ||
        code == SQLITE_IOERR_DATA)
        return ERR_CORRUPT;
    if (code == SQLITE_IOERR_NOMEM)
        return ERR_NO_MEMORY;
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return ERR_NO_MEMORY;
    case SQLITE_FULL:
        return ERR_NO_SPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_LOCKED;
    case SQLITE_READONLY:
        return ERR_READ_ONLY;
    case SQLITE_CONSTRAINT:
        return ERR_EXISTS;
    case SQLITE_TOOBIG:
        return ERR_TOO_BIG;
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
        return disk_error(conn);
    case SQLITE_ERROR: /* a table or column that our schema has is missing */
    case SQLITE_SCHEMA:
        return ERR_CORRUPT;
    default:
        return ERR_IO;
    }
}

int conn_error(struct conn *conn, int code)
{
    assert(code != SQLITE_OK && code != SQLITE_ROW && code != SQLITE_DONE);
    if (!conn->sql)
        return ERR_NO_MEMORY;
    int rc = translate(conn, code);
    if (rc != ERR_EXISTS) /* an event that is there already is everyday business */
        log_warn("journal database: %s (SQLite %d): %s", sqlite3_errmsg(conn->sql), code,
                 err_text(rc));
    return rc;
}

int conn_exec(struct conn *conn, const char *sql)
{
    int code = sqlite3_exec(conn->sql, sql, NULL, NULL, NULL);

    return code == SQLITE_OK ? 0 : conn_error(conn, code);
}

int conn_number(struct conn *conn, const char *sql, int64_t *out)
{
    sqlite3_stmt *statement;
    int code = sqlite3_prepare_v2(conn->sql, sql, -1, &statement, NULL);
    int rc;

    *out = 0;
    if (code != SQLITE_OK)
        return conn_error(conn, code);
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        *out = sqlite3_column_int64(statement, 0);
        rc = 0;
    } else {
        rc = code == SQLITE_DONE ? ERR_NOT_FOUND : conn_error(conn, code);
    }
    sqlite3_finalize(statement);
    return rc;
}

int conn_statement(struct conn *conn, enum statement which, sqlite3_stmt **out)
{
    assert(which < STATEMENT_COUNT);
    if (!conn->statements[which]) {
        int code = sqlite3_prepare_v3(conn->sql, texts[which], -1, SQLITE_PREPARE_PERSISTENT,
                                      &conn->statements[which], NULL);
        if (code != SQLITE_OK)
            return conn_error(conn, code);
    }
    *out = conn->statements[which];
    return 0;
}

int conn_step(struct conn *conn, sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);

    if (code == SQLITE_ROW)
        return 1;
    int rc = code == SQLITE_DONE ? ERR_NONE : conn_error(conn, code);
    sqlite3_reset(statement); /* repeats the step's error, which is known */
    return rc;
}

int conn_run(struct conn *conn, sqlite3_stmt *statement)
{
    int rc = conn_step(conn, statement);

    if (rc > 0) {
        assert(!"a statement without rows");
        sqlite3_reset(statement);
    }
    return rc;
}

int conn_open(struct conn *conn, const char *vfs, const char *path, int flags)
{
    *conn = (struct conn){0};
    int code = sqlite3_open_v2(path, &conn->sql, flags | SQLITE_OPEN_NOMUTEX, vfs);
    int rc;

    if (code != SQLITE_OK) {
        rc = conn_error(conn, code);
        goto out;
    }
    (void)sqlite3_extended_result_codes(conn->sql, 1);
    (void)sqlite3_busy_timeout(conn->sql, BUSY_TIMEOUT_MS);
    (void)sqlite3_db_config(conn->sql, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    (void)sqlite3_db_config(conn->sql, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    (void)sqlite3_db_config(conn->sql, SQLITE_DBCONFIG_ENABLE_FKEY, 0, NULL);
    /* Only db_checkpoint checkpoints: two connections that do can corrupt the WAL. */
    (void)sqlite3_db_config(conn->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    (void)sqlite3_wal_autocheckpoint(conn->sql, 0);
    int reserved = VFS_PAGE_RESERVED;
    if (sqlite3_file_control(conn->sql, "main", VFS_FCNTL_PAGE_SUMS, NULL) != SQLITE_OK ||
        sqlite3_file_control(conn->sql, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved) !=
            SQLITE_OK) {
        rc = ERR_UNSUPPORTED;
        goto out;
    }
    rc = conn_exec(conn, "PRAGMA temp_store = MEMORY; PRAGMA recursive_triggers = ON");
out:
    if (rc)
        conn_close(conn);
    return rc;
}

void conn_close(struct conn *conn)
{
    for (unsigned i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize(conn->statements[i]);
    int code = sqlite3_close(conn->sql);
    if (code != SQLITE_OK)
        log_warn("journal database: cannot close (SQLite %d)", code);
    *conn = (struct conn){0};
}

int conn_identify(struct conn *conn)
{
    int64_t application, version, tables;
    int rc = conn_number(conn, "PRAGMA application_id", &application);

    if (!rc)
        rc = conn_number(conn, "PRAGMA user_version", &version);
    if (!rc)
        rc = conn_number(conn, "SELECT count(*) FROM sqlite_schema", &tables);
    if (rc)
        return rc;
    if (application == 0 && version == 0 && tables == 0)
        return ERR_NOT_FOUND;
    if (application != DB_APPLICATION_ID || version > DB_USER_VERSION)
        return ERR_FORMAT;
    if (version == DB_USER_VERSION)
        return 0;
    return version >= OLDEST_VERSION ? ERR_AGAIN : ERR_CORRUPT;
}

int conn_upgrade(struct conn *conn)
{
    char version[48];
    int64_t from = 0;
    int rc = conn_number(conn, "PRAGMA user_version", &from);

    snprintf(version, sizeof version, "PRAGMA user_version = %d", DB_USER_VERSION);
    if (!rc)
        rc = conn_exec(conn, "BEGIN IMMEDIATE");
    if (rc)
        return rc;
    if (from < 3) {
        rc = conn_exec(conn, peer_schema);
        if (!rc)
            rc = conn_exec(conn, want_replicas);
    }
    if (!rc && from < 4) {
        rc = conn_exec(conn, forget_snapshots);
        if (!rc)
            rc = conn_exec(conn, cluster_schema);
        if (!rc)
            rc = conn_exec(conn, conflict_schema);
        if (!rc)
            rc = conn_exec(conn, freeze_schema);
    } else if (!rc) {
        rc = conn_exec(conn, conflicts_know_the_cloud);
    }
    if (!rc)
        rc = conn_exec(conn, know_the_cloud);
    if (!rc)
        rc = conn_exec(conn, version);
    if (!rc)
        rc = conn_exec(conn, "COMMIT");
    return rc; /* on an error the caller closes, which rolls back */
}

int conn_create_schema(struct conn *conn, const struct id128 *node, const struct id128 *store)
{
    struct db_state first = {.node = *node, .store = *store};
    char identity[96];
    sqlite3_stmt *set = NULL;

    snprintf(identity, sizeof identity, "PRAGMA application_id = %d; PRAGMA user_version = %d",
             DB_APPLICATION_ID, DB_USER_VERSION);
    int rc = conn_exec(conn, "BEGIN IMMEDIATE");
    if (rc)
        return rc;
    rc = conn_exec(conn, schema);
    if (!rc)
        rc = conn_exec(conn, peer_schema);
    if (!rc)
        rc = conn_exec(conn, conflict_schema);
    if (!rc)
        rc = conn_exec(conn, freeze_schema);
    if (!rc)
        rc = conn_exec(conn, cluster_schema);
    if (!rc)
        rc = conn_exec(conn, "INSERT INTO state VALUES(1, x'', x'', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "
                             "0, x'', 0, 0, 0, 0, 0)");
    if (!rc)
        rc = conn_statement(conn, STATEMENT_STATE_SET, &set);
    if (!rc)
        rc = bind_state(set, &first);
    if (!rc)
        rc = conn_run(conn, set);
    if (!rc)
        rc = conn_exec(conn, identity);
    if (!rc)
        rc = conn_exec(conn, "COMMIT");
    return rc; /* on an error the caller closes, which rolls back */
}
