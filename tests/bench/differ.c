/*
 * Make a stopped node differ from its peers although both know the same events.
 *
 *   differ STATE_DIR FILES_DIR < IDS
 *
 * Each object named on standard input, one id in a line, gets another expiry here, committed the
 * way in which rows of a merge are (journal/merge_chunk.h): no event says so, and no peer has heard
 * of it. Nobody else makes a node differ at equal vectors on purpose; what it takes to find and
 * mend that is what the bench wants to know.
 */
#include "journal/journal.h"
#include "journal/snapshot.h"
#include "journal/ulid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IDS_MAX    1000
#define LATER_MS   (UINT64_C(10) * 365 * 86400 * 1000)
#define LINE_BYTES 64

static char message[512];

_Noreturn static void die(const char *what, int rc)
{
    fprintf(stderr, "differ: %s: %s %s\n", what, err_text(rc), message);
    exit(1);
}

static int by_id(const void *a, const void *b)
{
    return id_compare(a, b);
}

static size_t read_ids(struct id128 *ids)
{
    char line[LINE_BYTES];
    size_t count = 0;

    while (fgets(line, sizeof line, stdin)) {
        size_t len = strcspn(line, "\n");

        if (count == IDS_MAX)
            die("too many ids", ERR_FULL);
        int rc = ulid_parse(&ids[count++], line, len);
        if (rc)
            die(line, rc);
    }
    qsort(ids, count, sizeof *ids, by_id);
    return count;
}

/* The rows of IDS, changed, as one chunk into OUT. */
static void make_chunk(struct journal *journal, const struct id128 *ids, size_t count,
                       struct buf *out)
{
    static const struct id128 none;
    struct snapshot_writer writer;
    struct db_reader *reader;
    uint32_t len = 0;
    int rc = journal_reader_open(journal, &reader);

    if (rc)
        die("database", rc);
    snapshot_writer_init(&writer);
    snapshot_begin_chunk(&writer, SNAPSHOT_ROWS);
    for (size_t i = 0; i < count; i++) {
        struct object *row;

        if ((rc = journal_find(journal, reader, &ids[i], &row)) != 0)
            die("an object", rc);
        row->expires_at = (struct reg){object_stamp(row) + 1, row->put_at.origin};
        row->expires_ms = (uint64_t)time(NULL) * 1000 + LATER_MS;
        if ((rc = snapshot_add_row(&writer, row)) != 0)
            die("a row", rc);
        object_destroy(&row);
    }
    buf_add(out, &len, sizeof len);
    snapshot_end_chunk(&writer, &none, 0, out);
    if ((rc = buf_check(out)) != 0)
        die("a chunk", rc);
    len = (uint32_t)(out->len - sizeof len);
    memcpy(out->data, &len, sizeof len);
    snapshot_writer_release(&writer);
    db_reader_close(&reader);
}

static void committed(struct change *change)
{
    (void)change;
}

int main(int argc, char **argv)
{
    static struct id128 ids[IDS_MAX];
    struct change change = {.request.kind = CHANGE_MERGE, .done = committed};
    struct store_dirs dirs;
    struct journal_config config = {.dirs = &dirs, .sync = true};
    struct journal *journal;
    struct buf chunk;

    if (argc != 3)
        die("usage: differ STATE_DIR FILES_DIR < IDS", ERR_INVALID);
    size_t count = read_ids(ids);
    int rc = store_dirs_open(&dirs, env_system(), argv[1], argv[2], false, message, sizeof message);
    if (rc == 0)
        rc = journal_open(&journal, &config, message, sizeof message);
    if (rc)
        die("store", rc);
    buf_init(&chunk, LIMIT_EVENT_BYTES + sizeof(uint32_t));
    make_chunk(journal, ids, count, &chunk);
    change.events = (const uint8_t *)chunk.data;
    change.events_bytes = chunk.len;
    if ((rc = journal_submit(journal, &change)) != 0)
        die("journal", rc);
    journal_commit_step(journal);
    if (change.rc)
        die("commit", change.rc);
    journal_stop(journal);
    journal_close(&journal);
    store_dirs_close(&dirs);
    buf_release(&chunk);
    return 0;
}
