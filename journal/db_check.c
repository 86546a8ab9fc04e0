/*
 * Maintenance of the journal's database: an online copy, and a check of all of it.
 *
 * Both read everything and hold one snapshot for as long as it takes; checkpoints are incomplete
 * meanwhile and the WAL grows.
 *
 * The check trusts nothing that is stored twice: counters, digest, outbox, segments' live bytes and
 * the ends of origins are computed from the rows and compared. Hashes of the event chain are
 * `objctl journal verify`'s, bodies are the scrubber's.
 */
#include "journal/db_conflict.h"
#include "journal/db_internal.h"
#include "journal/journal_internal.h"
#include "journal/vfs.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPORTED_PROBLEMS 20

/* ---- Backup ---- */

static int copy(struct conn *from, struct conn *to)
{
    sqlite3_backup *backup = sqlite3_backup_init(to->sql, "main", from->sql, "main");

    if (!backup) {
        int why = sqlite3_errcode(to->sql);

        return why == SQLITE_OK ? ERR_NO_MEMORY : conn_error(to, why);
    }
    /* All at once: a copy in steps starts over whenever somebody commits in between. */
    int code = sqlite3_backup_step(backup, -1);
    int finished = sqlite3_backup_finish(backup);
    if (code == SQLITE_DONE)
        code = finished;
    return code == SQLITE_OK ? 0 : conn_error(to, code);
}

int db_backup(struct db_reader *reader, const char *path)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(reader->vfs);
    struct conn target;
    int there;

    assert(vfs);
    if (vfs->xAccess(vfs, path, SQLITE_ACCESS_READWRITE, &there) != SQLITE_OK)
        return ERR_IO;
    if (there)
        return ERR_EXISTS;
    int rc = conn_open(&target, reader->vfs, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    if (rc)
        return rc;
    /* A half copy is removed, so it needs no journal; the sync at the end includes the name. */
    rc = conn_exec(&target, "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = FULL;"
                            "PRAGMA cache_size = -512");
    if (!rc)
        rc = copy(&reader->conn, &target);
    conn_close(&target);
    if (rc)
        (void)vfs->xDelete(vfs, path, 0); /* the first error counts */
    return rc;
}

/* ---- Check ---- */

struct report {
    char *text;
    size_t cap, len;
    bool bad;
};

__attribute__((format(printf, 2, 3))) static void finding(struct report *report, const char *format,
                                                          ...)
{
    va_list args;

    report->bad = true;
    if (report->len + 1 >= report->cap)
        return;
    va_start(args, format);
    int len = vsnprintf(report->text + report->len, report->cap - report->len, format, args);
    va_end(args);
    if (len > 0)
        report->len +=
            (size_t)len < report->cap - report->len ? (size_t)len : report->cap - report->len - 1;
}

static void compare(struct report *report, const char *what, uint64_t stored, uint64_t counted)
{
    if (stored != counted)
        finding(report, "%s: stored %llu, counted %llu\n", what, (unsigned long long)stored,
                (unsigned long long)counted);
}

/* SQLite's own check of its pages. */
static int check_pages(struct conn *conn, struct report *report)
{
    char sql[64];
    sqlite3_stmt *check;
    int rc;

    snprintf(sql, sizeof sql, "PRAGMA integrity_check(%d)", REPORTED_PROBLEMS);
    int code = sqlite3_prepare_v2(conn->sql, sql, -1, &check, NULL);
    if (code != SQLITE_OK)
        return conn_error(conn, code);
    while ((rc = conn_step(conn, check)) == 1) {
        const char *line = (const char *)sqlite3_column_text(check, 0);

        if (!line || strcmp(line, "ok") != 0)
            finding(report, "%s\n", line ? line : "integrity_check says nothing");
    }
    sqlite3_finalize(check);
    return rc;
}

static bool wal_is_empty(struct conn *conn)
{
    sqlite3_file *wal;
    sqlite3_int64 size;

    return sqlite3_file_control(conn->sql, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal) ==
               SQLITE_OK &&
           (!wal->pMethods || (wal->pMethods->xFileSize(wal, &size) == SQLITE_OK && size == 0));
}

/* Every page against its checksum, those included that no table uses. Only where the WAL has no
 * newer ones: a page of which it has need not be whole. */
static int check_sums(struct conn *conn, struct report *report)
{
    uint8_t page[VFS_PAGE_BYTES];
    sqlite3_int64 size;
    sqlite3_file *file;

    if (!wal_is_empty(conn))
        return 0;
    int code = sqlite3_file_control(conn->sql, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    if (code == SQLITE_OK)
        code = file->pMethods->xFileSize(file, &size);
    if (code != SQLITE_OK)
        return conn_error(conn, code);
    for (sqlite3_int64 at = 0; at + VFS_PAGE_BYTES <= size; at += VFS_PAGE_BYTES) {
        code = file->pMethods->xRead(file, page, VFS_PAGE_BYTES, at);
        if (code == SQLITE_IOERR_DATA)
            finding(report, "page %llu: damaged\n", (unsigned long long)(at / VFS_PAGE_BYTES + 1));
        else if (code != SQLITE_OK)
            return conn_error(conn, code);
    }
    return 0;
}

/* What the rows of both object tables sum up to, and of conflicts. */
struct sums {
    uint64_t objects, deleted, bytes, owed, owed_bytes, wanted, wanted_bytes, marks, purges;
    struct hash128 digest;
    const struct db_segment *segments;
    uint64_t *live, *live_records; /* one for each segment */
    size_t segment_count;
};

/* Whether a look-up of its id arrives at this row, or one with the same id. */
static bool is_findable(struct conn *conn, const struct object *object)
{
    struct object *found;
    int rc = find_object(conn, &object->id, &found);

    object_destroy(&found);
    return rc == 0;
}

/* The bytes that OBJECT points to are live in their segment. */
static void sum_place(struct sums *sums, const struct object *object)
{
    for (size_t low = 0, high = sums->segment_count; low < high;) {
        size_t middle = low + (high - low) / 2;
        uint32_t volume = sums->segments[middle].log.volume;

        if (volume == object->place.volume) {
            sums->live[middle] += object->size;
            sums->live_records[middle] += object->record_bytes;
            break;
        }
        if (volume < object->place.volume)
            low = middle + 1;
        else
            high = middle;
    }
}

static void sum_object(struct sums *sums, const struct object *object)
{
    struct hash128 digest = object_digest(object);

    sums->digest.low += digest.low;
    sums->digest.high += digest.high;
    sums->deleted += (object->flags & OBJECT_DELETED) != 0;
    if ((object->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT) {
        sums->objects++;
        sums->bytes += object->size;
    }
    if (object_owed_here(object)) {
        sums->owed++;
        sums->owed_bytes += object->size;
    }
    if (object_wanted_here(object)) {
        sums->wanted++;
        sums->wanted_bytes += object->size;
    }
    sums->marks += object_owes_mark(object);
    sums->purges += object_owes_purge(object);
    sum_place(sums, object);
}

/* Sum up the rows that WHICH gives. */
static int sum_rows(struct conn *conn, enum statement which, struct sums *sums,
                    struct report *report)
{
    sqlite3_stmt *select;
    int rc = conn_statement(conn, which, &select);

    if (rc)
        return rc;
    while ((rc = conn_step(conn, select)) == 1) {
        struct object *object;

        rc = object_from_row(select, &object);
        if (rc == ERR_CORRUPT) {
            finding(report, "a row of objects that cannot be read\n");
            continue;
        }
        if (rc)
            break;
        if (!is_findable(conn, object))
            finding(report, "a row of objects that its id does not lead to\n");
        sum_object(sums, object);
        object_destroy(&object);
    }
    sqlite3_reset(select);
    return rc;
}

/* Bytes that lost are live, too; a row is gone with what it is about. */
static int sum_losers(struct conn *conn, struct sums *sums, struct report *report)
{
    static const struct db_conflict_cursor start;
    sqlite3_stmt *select;
    int rc = conn_statement(conn, STATEMENT_CONFLICTS, &select);

    if (rc)
        return rc;
    int code = sqlite3_bind_blob(select, 1, start.id.bytes, sizeof start.id.bytes, SQLITE_STATIC);
    code |= sqlite3_bind_blob(select, 2, start.sha256, SHA256_BYTES, SQLITE_STATIC);
    code |= sqlite3_bind_int64(select, 3, -1); /* all of them */
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    while ((rc = conn_step(conn, select)) == 1) {
        struct object *loser, *row = NULL;

        rc = object_from_row(select, &loser);
        if (rc == ERR_CORRUPT) {
            finding(report, "a row of conflicts that cannot be read\n");
            continue;
        }
        if (rc)
            break;
        sum_place(sums, loser);
        rc = find_object(conn, &loser->id, &row);
        if (rc == ERR_NOT_FOUND || (rc == 0 && row->flags & OBJECT_DELETED))
            finding(report, "a row of conflicts about an object that is not there\n");
        object_destroy(&row);
        object_destroy(&loser);
        if (rc && rc != ERR_NOT_FOUND)
            break;
    }
    sqlite3_reset(select);
    return rc;
}

/* Each origin's row names the last event there is of it. */
/* Events above the head of run O: kinds that merges bring alone (commit_merge.c), and nothing else.
 */
static int check_above(struct conn *conn, const struct db_origin *o, struct report *report)
{
    sqlite3_stmt *select;
    int rc = conn_statement(conn, STATEMENT_EVENTS, &select);

    if (rc || !event_key_fits(o->no, o->seq + 1))
        return rc;
    int code = sqlite3_bind_int64(select, 1, event_key(o->no, o->seq + 1));
    code |= sqlite3_bind_int64(select, 2, event_key(o->no, EVENT_SEQ_MAX));
    if (code != SQLITE_OK)
        return ERR_NO_MEMORY;
    while ((rc = conn_step(conn, select)) == 1) {
        const uint8_t *raw = sqlite3_column_blob(select, 1);
        struct event event;

        if (raw && event_decode(&event, raw, (size_t)sqlite3_column_bytes(select, 1)) == 0 &&
            !fold_is_covered(&event))
            continue;
        finding(report, "origin %lld: event %llu lies behind its last one\n", (long long)o->no,
                (unsigned long long)event_key_seq(sqlite3_column_int64(select, 0)));
        break;
    }
    sqlite3_reset(select);
    return rc < 0 ? rc : 0;
}

static int check_origins(struct conn *conn, struct report *report)
{
    struct db_origin *origins = NULL;
    size_t count = 0;
    sqlite3_stmt *last;
    int rc = read_origins(conn, &origins, &count);

    if (rc)
        return rc;
    int code = sqlite3_prepare_v2(
        conn->sql, "SELECT max(key) FROM events WHERE key BETWEEN ?1 AND ?2", -1, &last, NULL);
    if (code != SQLITE_OK) {
        free(origins);
        return conn_error(conn, code);
    }
    for (size_t i = 0; i < count; i++) {
        const struct db_origin *o = &origins[i];
        char what[64];

        if (!event_key_fits(o->no, o->seq)) {
            finding(report, "origin %lld: a seq that no event has\n", (long long)o->no);
            continue;
        }
        code = sqlite3_bind_int64(last, 1, event_key(o->no, 0));
        code |= sqlite3_bind_int64(last, 2, event_key(o->no, o->seq));
        rc = code == SQLITE_OK ? conn_step(conn, last) : ERR_NO_MEMORY;
        if (rc < 0)
            break;
        /* Without an event: all were compacted, up to the anchor. */
        uint64_t seq = rc == 1 && sqlite3_column_type(last, 0) == SQLITE_INTEGER
                           ? event_key_seq(sqlite3_column_int64(last, 0))
                           : o->anchor_seq;
        if (seq < o->anchor_seq) /* one of a kind that is never compacted */
            seq = o->anchor_seq;
        sqlite3_reset(last);
        snprintf(what, sizeof what, "last event of origin %lld", (long long)o->no);
        compare(report, what, o->seq, seq);
        if ((rc = check_above(conn, o, report)) != 0)
            break;
    }
    sqlite3_finalize(last);
    free(origins);
    return rc;
}

#define COUNT_OF_OUTBOX "SELECT count(*) FROM outbox WHERE kind = "
#define SUM_OF_OUTBOX   "SELECT coalesce(sum(size), 0) FROM outbox WHERE kind = "

/* Whether ROW (NULL: unknown) says what the outbox says by a row of KIND. */
static bool is_owed(int64_t kind, const struct object *row)
{
    if (!row)
        return false;
    switch (kind) {
    case OUTBOX_UPLOAD:
        return object_owed_here(row);
    case OUTBOX_REPLICA:
        return object_wanted_here(row);
    case OUTBOX_MARK:
        return object_owes_mark(row);
    case OUTBOX_PURGE:
        return object_owes_purge(row);
    case OUTBOX_BEGUN: /* what became of it is not in the row */
        return row->flags & OBJECT_CLOUD;
    default:
        return false;
    }
}

/* Nothing is listed that is not owed; that all that is owed is listed, the counts say. */
static int check_outbox(struct conn *conn, struct report *report)
{
    sqlite3_stmt *select;
    int rc;
    int code = sqlite3_prepare_v2(conn->sql, "SELECT kind, id FROM outbox", -1, &select, NULL);

    if (code != SQLITE_OK)
        return conn_error(conn, code);
    while ((rc = conn_step(conn, select)) == 1) {
        int64_t kind = sqlite3_column_int64(select, 0);
        const void *bytes = sqlite3_column_blob(select, 1);
        struct object *row = NULL;
        struct id128 id = {{0}};

        if (bytes && sqlite3_column_bytes(select, 1) == (int)sizeof id.bytes)
            memcpy(id.bytes, bytes, sizeof id.bytes);
        int found = find_object(conn, &id, &row);

        if (found && found != ERR_NOT_FOUND) {
            rc = found;
            break;
        }
        if (!is_owed(kind, row))
            finding(report, "a row of the outbox of kind %lld that nothing is owed for\n",
                    (long long)kind);
        object_destroy(&row);
    }
    sqlite3_finalize(select);
    return rc;
}

static int check_counters(struct conn *conn, const struct sums *sums, struct report *report)
{
    struct db_state state;
    int64_t events, event_bytes, outbox, outbox_bytes, wanted, wanted_bytes, marks, purges;
    int rc = read_state(conn, &state);

    if (!rc)
        rc = conn_number(conn, "SELECT count(*) FROM events", &events);
    if (!rc)
        rc = conn_number(conn, "SELECT coalesce(sum(length(raw)), 0) FROM events", &event_bytes);
    if (!rc)
        rc = conn_number(conn, COUNT_OF_OUTBOX "1", &outbox);
    if (!rc)
        rc = conn_number(conn, SUM_OF_OUTBOX "1", &outbox_bytes);
    if (!rc)
        rc = conn_number(conn, COUNT_OF_OUTBOX "2", &wanted);
    if (!rc)
        rc = conn_number(conn, SUM_OF_OUTBOX "2", &wanted_bytes);
    if (!rc)
        rc = conn_number(conn, COUNT_OF_OUTBOX "10", &marks);
    if (!rc)
        rc = conn_number(conn, COUNT_OF_OUTBOX "11", &purges);
    if (rc)
        return rc;
    compare(report, "events", state.events, (uint64_t)events);
    compare(report, "event bytes", state.event_bytes, (uint64_t)event_bytes);
    compare(report, "objects", state.objects, sums->objects);
    compare(report, "deleted", state.deleted, sums->deleted);
    compare(report, "bytes", state.bytes, sums->bytes);
    compare(report, "outbox", state.outbox, (uint64_t)outbox);
    compare(report, "outbox bytes", state.outbox_bytes, (uint64_t)outbox_bytes);
    compare(report, "objects that owe an upload", (uint64_t)outbox, sums->owed);
    compare(report, "bytes that owe an upload", (uint64_t)outbox_bytes, sums->owed_bytes);
    compare(report, "wanted", state.wanted, (uint64_t)wanted);
    compare(report, "wanted bytes", state.wanted_bytes, (uint64_t)wanted_bytes);
    compare(report, "objects that lack a replica", (uint64_t)wanted, sums->wanted);
    compare(report, "bytes that lack a replica", (uint64_t)wanted_bytes, sums->wanted_bytes);
    compare(report, "marks", state.marks, (uint64_t)marks);
    compare(report, "objects that owe a mark", (uint64_t)marks, sums->marks);
    compare(report, "purges", state.purges, (uint64_t)purges);
    compare(report, "objects that owe a purge", (uint64_t)purges, sums->purges);
    compare(report, "digest, low half", state.digest.low, sums->digest.low);
    compare(report, "digest, high half", state.digest.high, sums->digest.high);
    for (size_t i = 0; i < sums->segment_count; i++) {
        char what[64];

        snprintf(what, sizeof what, "live bytes of segment %08x",
                 (unsigned)sums->segments[i].log.volume);
        compare(report, what, sums->segments[i].live_bytes, sums->live[i]);
        snprintf(what, sizeof what, "bytes of live records of segment %08x",
                 (unsigned)sums->segments[i].log.volume);
        compare(report, what, sums->segments[i].live_record_bytes, sums->live_records[i]);
    }
    return 0;
}

/* Everything, on one snapshot. */
static int check_all(struct conn *conn, struct report *report)
{
    struct db_segment *segments = NULL;
    struct sums sums = {0};
    int rc = check_sums(conn, report);

    if (rc || report->bad)
        return rc; /* SQLite would trip over the first of them */
    rc = check_pages(conn, report);
    if (!rc)
        rc = read_segments(conn, &segments, &sums.segment_count);
    if (rc)
        return rc;
    sums.segments = segments;
    sums.live = calloc(sums.segment_count + 1, sizeof *sums.live);
    sums.live_records = calloc(sums.segment_count + 1, sizeof *sums.live_records);
    if (!sums.live || !sums.live_records)
        rc = ERR_NO_MEMORY;
    if (!rc)
        rc = sum_rows(conn, STATEMENT_ALL_OBJECTS, &sums, report);
    if (!rc)
        rc = sum_rows(conn, STATEMENT_ALL_OBJECTS_MORE, &sums, report);
    if (!rc)
        rc = sum_losers(conn, &sums, report);
    if (!rc)
        rc = check_counters(conn, &sums, report);
    if (!rc)
        rc = check_outbox(conn, report);
    if (!rc)
        rc = check_origins(conn, report);
    free(sums.live);
    free(sums.live_records);
    free(segments);
    return rc;
}

int db_check(struct db_reader *reader, char *report, size_t cap)
{
    struct report findings = {.text = report, .cap = cap};

    assert(cap > 0);
    report[0] = 0;
    int rc = conn_exec(&reader->conn, "BEGIN");
    if (rc)
        return rc;
    rc = check_all(&reader->conn, &findings);
    if (rc == ERR_CORRUPT)
        finding(&findings, "%s\n", sqlite3_errmsg(reader->conn.sql));
    if (!sqlite3_get_autocommit(reader->conn.sql)) {
        int ended = conn_exec(&reader->conn, "COMMIT");
        if (!rc)
            rc = ended;
    }
    if (rc)
        return rc;
    return findings.bad ? ERR_CORRUPT : 0;
}
