/*
 * verify: reads all that a stopped node holds and checks every byte that matters: the database (its
 * pages, and that what it stores twice agrees), the log record by record, and every block of every
 * body. Objects come from the database in the order of their ids, which is about the order in which
 * they lie in the log.
 *
 * Each damaged body is a line "ID  PLACE  REASON" on standard output, other damage "PLACE  REASON".
 * Nothing is written or repaired: the log is recovered as a start would, on an io that writes
 * nothing.
 */
#include "base/env.h"
#include "base/io.h"
#include "cmd/objctl_http.h"
#include "cmd/objctl_offline.h"
#include "cmd/objctl_progress.h"
#include "journal/ulid.h"
#include "storage/large.h"
#include "storage/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_OBJECTS 500

struct check {
    struct offline offline;
    struct log *log;
    struct large_store *large;
    uint8_t *buf; /* RECORD_MAX_BYTES */
    uint64_t objects, bytes, absent, bad, tail;
    struct env env; /* with IO */
    struct io io;
};

static void report(struct check *check, const struct id128 *id, const struct place *place, int rc)
{
    char text[ULID_TEXT_BYTES + 1], name[LARGE_NAME_BYTES];

    ulid_format(text, id);
    check->bad++;
    if (place->volume == PLACE_LARGE) {
        large_name(name, place->offset);
        (void)printf("%s  %s  %s\n", text, name, err_text(rc));
    } else {
        (void)printf("%s  log/%08x.seg:%llu  %s\n", text, place->volume,
                     (unsigned long long)place->offset, err_text(rc));
    }
}

static int check_large_body(struct check *check, const struct object *object)
{
    struct large_reader *reader = NULL;

    int rc = large_reader_open(&reader, check->large, object->place.offset, object->size);
    for (uint64_t i = 0; rc == 0 && i < block_count(object->size); i++) {
        size_t len = 0;

        rc = large_read_block(reader, i, check->buf, &len, false);
        progress_add(len, 0);
    }
    large_reader_close(&reader);
    return rc;
}

static int check_object(void *arg, const struct object *object)
{
    struct check *check = arg;
    struct record_view view;
    int rc;

    if (place_is_none(&object->place)) {
        check->absent++;
        return 0;
    }
    if (object->place.volume == PLACE_LARGE) {
        rc = check_large_body(check, object);
    } else {
        rc = log_read(check->log, &object->place, &object->id, object->record_bytes, check->buf,
                      RECORD_MAX_BYTES, false, &view);
        if (rc == 0 && (!view.body || view.header.body_bytes != object->size))
            rc = ERR_CORRUPT;
        progress_add(object->size, 0);
    }
    check->objects++;
    check->bytes += object->size;
    if (rc)
        report(check, &object->id, &object->place, rc);
    return 0;
}

static int check_record(void *arg, const struct record_view *view, const struct place *place)
{
    struct check *check = arg;
    int rc = view->body ? record_verify_body(view) : 0;

    check->tail++;
    if (rc)
        report(check, &view->header.id, place, rc);
    return 0;
}

static int check_nothing(void *arg, const struct record_view *view, const struct place *place)
{
    (void)arg; /* its head and event are whole; its body, where an object wants it, comes later */
    (void)view;
    (void)place;
    return 0;
}

/* Heads and events of every record. */
static int check_log(struct check *check)
{
    struct log_segment *segments = NULL;
    size_t count = 0;
    int rc = log_segments(check->log, &segments, &count);

    for (size_t i = 0; rc == 0 && i < count; i++) {
        uint64_t from = 0, rotten = 0;

        rc = log_scan(check->log, segments[i].volume, &from, check_nothing, NULL, &rotten);
        if (rotten) {
            check->bad++;
            (void)printf("log/%08x.seg  %llu bytes of damaged records\n", segments[i].volume,
                         (unsigned long long)rotten);
        }
    }
    free(segments);
    return rc;
}

static int check_database(struct check *check)
{
    char findings[2048];
    int rc = db_check(check->offline.reader, findings, sizeof findings);

    if (rc != ERR_CORRUPT)
        return rc;
    for (char *save, *line = strtok_r(findings, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        check->bad++;
        (void)printf("journal.db  %s\n", line);
    }
    return 0;
}

static int keep_size(struct io *io, int fd, uint64_t size)
{
    (void)io; /* a torn tail stays; for this run the log ends before it */
    (void)fd;
    (void)size;
    return 0;
}

static ssize_t refuse_write(struct io *io, int fd, const struct iovec *iov, int count,
                            uint64_t offset)
{
    (void)io;
    (void)fd;
    (void)iov;
    (void)count;
    (void)offset;
    return ERR_READ_ONLY;
}

static int open_files(struct check *check)
{
    const struct store_dirs *dirs = &check->offline.dirs;

    check->io = *dirs->env->io;
    check->io.truncate = keep_size;
    check->io.pwritev = refuse_write;
    check->env = *dirs->env;
    check->env.io = &check->io;
    const struct log_config config = {.env = &check->env,
                                      .files_dir = dirs->files_dir,
                                      .store = dirs->store,
                                      .sync = true,
                                      .skip_unreadable =
                                          true}; /* told as damage; no file changes */
    struct db_segment *rows = NULL;
    struct log_segment *known = NULL;
    size_t count = 0;

    int rc = db_reader_segments(check->offline.reader, &rows, &count);
    if (rc == 0 && !(known = calloc(count + 1, sizeof *known)))
        rc = ERR_NO_MEMORY;
    for (size_t i = 0; rc == 0 && i < count; i++)
        known[i] = rows[i].log;
    if (rc == 0)
        rc = log_open(&check->log, &config, known, count);
    if (rc == 0)
        rc = large_open(&check->large, dirs->env, dirs->files_dir, &dirs->store, dirs->generation,
                        true);
    free(known);
    free(rows);
    return rc;
}

static int check_all(const struct ctl *ctl, struct check *check)
{
    struct log_recovery found = {.end = 0};
    struct id128 last = {{0}}, before;
    struct db_state state;
    unsigned count = 0;

    int rc = check_database(check);
    if (rc == 0)
        rc = db_reader_state(check->offline.reader, &state);
    if (rc == 0)
        rc = open_files(check);
    if (rc)
        return rc;
    rc = log_recover(check->log, state.position, state.position, false, check_record, NULL, check,
                     &found);
    if (rc == 0)
        rc = check_log(check);
    if (rc)
        return rc;
    progress_begin(ctl, "verify", state.bytes, false);
    for (const struct id128 *after = NULL; rc == 0 && (!after || count > 0); after = &before) {
        rc = db_each_object(check->offline.reader, after, PAGE_OBJECTS, check_object, check, &last,
                            &count);
        before = last;
    }
    progress_end();
    return rc;
}

int ctl_verify(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {CTL_DIR_OPTIONS};
    struct check check = {.objects = 0};
    char size[SIZE_TEXT_BYTES];
    int code = CTL_OK;

    if (ctl_option(ctl, argc, argv, "", options, &code) != -1)
        return code;
    if (optind != argc)
        return ctl_fail(CTL_USAGE, "verify takes no arguments");
    code = offline_open(&check.offline, ctl);
    if (code == CTL_OK)
        code = offline_reader(&check.offline);
    if (code == CTL_OK && !(check.buf = malloc(RECORD_MAX_BYTES)))
        code = ctl_fail(CTL_IO, "out of memory");
    if (code == CTL_OK) {
        int rc = check_all(ctl, &check);

        if (rc == ERR_CORRUPT && check.bad)
            ctl_say(ctl, "the database is damaged: bodies behind that were not read; "
                         "run 'objctl journal rebuild' and verify again");
        else if (rc)
            code = ctl_fail(ctl_exit_of(rc), "cannot verify: %s", err_text(rc));
    }
    if (code == CTL_OK) {
        ctl_size(size, check.bytes);
        ctl_say(ctl, "%llu bodies (%s) read; %llu damages found", (unsigned long long)check.objects,
                size, (unsigned long long)check.bad);
        if (check.tail)
            ctl_say(ctl, "and %llu records that the next start will put into the database",
                    (unsigned long long)check.tail);
        if (check.absent)
            ctl_say(ctl, "%llu objects have no body on this node",
                    (unsigned long long)check.absent);
        code = check.bad ? CTL_SOME_FAILED : CTL_OK;
    }
    free(check.buf);
    large_close(&check.large);
    log_close(&check.log);
    offline_close(&check.offline);
    return code;
}
