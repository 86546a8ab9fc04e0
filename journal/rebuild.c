/*
 * Rebuilding the database of a stopped node from its log: the views are only ever a function of the
 * log, and here is the proof. Every segment found in the files directory is read from its beginning
 * twice: first for the snapshots that lie in it, then the newest whole one is loaded into a fresh
 * database and every record that it does not cover is replayed, all of them where there is no
 * snapshot. (Where cleaning has moved events behind copies of what they put, these copies are read
 * once more.) The database then takes the old one's name.
 */
#include "base/io.h"
#include "base/log.h"
#include "journal/journal_internal.h"
#include "journal/vfs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_TRIES 3

struct found {
    struct journal *journal;
    const char *dir;
    char *message;
    size_t cap;
    struct log_segment *segments;
    size_t count;
};

static int add_segment(struct found *found, uint32_t volume, const char *path)
{
    struct io *io = found->journal->env->io;
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct segment_header header;
    int fd = io_open(io, path, IO_READ), rc = ERR_IO;

    if (fd < 0)
        return fd;
    for (int i = 0; rc == ERR_IO && i < READ_TRIES; i++)
        rc = io_read(io, fd, bytes, sizeof bytes, 0, false);
    if (rc == 0)
        rc = segment_header_decode(&header, bytes);
    io_close(io, &fd);
    if (rc == ERR_IO && !found->journal->config.dirs->accept_loss) {
        snprintf(found->message, found->cap,
                 "%s: the disk cannot read its header: try again; if it stays so, replace the disk "
                 "and restore, or go on without this segment with --accept-data-loss",
                 path);
        return rc;
    }
    if (rc == ERR_CORRUPT || rc == ERR_IO) {
        log_warn("rebuild: %s has no readable header; skipped", path);
        return 0;
    }
    if (rc)
        return rc;

    struct log_segment *grown =
        realloc(found->segments, (found->count + 1) * sizeof *found->segments);

    if (!grown)
        return ERR_NO_MEMORY;
    found->segments = grown;
    grown[found->count++] = (struct log_segment){.volume = volume,
                                                 .disk = header.disk,
                                                 .base = header.base,
                                                 .end_bytes = SEGMENT_HEADER_BYTES};
    return 0;
}

static int each_name(void *arg, const char *name)
{
    struct found *found = arg;
    unsigned volume;
    int used = 0;

    if (found->count >= LIMIT_SEGMENTS || sscanf(name, "%8x.seg%n", &volume, &used) != 1 ||
        used != 12 || name[12] != '\0')
        return 0;
    char *path = io_join(found->dir, name);
    int rc = path ? add_segment(found, volume, path) : ERR_NO_MEMORY;

    free(path);
    return rc;
}

static int by_volume(const void *a, const void *b)
{
    const struct log_segment *x = a, *y = b;

    return (x->volume > y->volume) - (x->volume < y->volume);
}

static int open_all_segments(struct journal *journal, char *message, size_t cap)
{
    const struct store_dirs *dirs = journal->config.dirs;
    struct log_config config = {.env = journal->env,
                                .files_dir = dirs->files_dir,
                                .store = dirs->store,
                                .sync = true,
                                .skip_unreadable = dirs->accept_loss};
    char *dir = io_join(dirs->files_dir, "log");
    struct found found = {.journal = journal, .dir = dir, .message = message, .cap = cap};
    int rc = dir ? journal->env->io->list(journal->env->io, dir, each_name, &found) : ERR_NO_MEMORY;

    if (rc == 0 && found.count) {
        qsort(found.segments, found.count, sizeof *found.segments, by_volume);
        rc = log_open(&journal->log, &config, found.segments, found.count);
    } else if (rc == 0) {
        rc = ERR_NOT_FOUND;
    }
    free(found.segments);
    free(dir);
    return rc;
}

/* The first reading: the log comes to rest as after any crash, and we learn of the snapshots in
 * it. */
struct first_reading {
    struct replay replay; /* for check_large */
    struct snapshot_found *found;
};

static int note_snapshots(void *arg, const struct record_view *view, const struct place *place)
{
    struct first_reading *reading = arg;

    if (view->header.type == RECORD_SNAPSHOT)
        return snapshot_note(&reading->found, view, place);
    return 0;
}

static int check_large_file(void *arg, const struct record_header *header)
{
    struct first_reading *reading = arg;

    return replay_check_large(&reading->replay, header);
}

/* The second reading: all segments are sealed now. */
static int replay_segments(struct journal *journal, struct replay *replay, uint64_t *rotten)
{
    struct log_segment *segments = NULL;
    size_t count = 0;
    int rc = log_segments(journal->log, &segments, &count);

    for (size_t i = 0; rc == 0 && i < count; i++) {
        uint64_t from = 0;

        rc = log_scan(journal->log, segments[i].volume, &from, replay_visit, replay, rotten);
        if (rc == ERR_CORRUPT) /* nothing in it can be read, which was said already */
            rc = 0;
    }
    free(segments);
    return rc;
}

/* The newest whole snapshot, and every record that it does not cover. */
static int replay_log(struct journal *journal, char *message, size_t cap)
{
    struct first_reading reading = {.replay.journal = journal};
    struct log_recovery log = {0};
    uint64_t rotten = 0;
    int rc =
        log_recover(journal->log, 0, 0, false, note_snapshots, check_large_file, &reading, &log);
    struct replay replay = {
        .journal = journal, .is_whole = snapshot_is_whole, .arg = reading.found};

    if (rc == 0)
        rc = snapshot_load(journal, reading.found, &replay.covered, &replay.without_peers, message,
                           cap);
    if (rc == 0) {
        rc = replay_segments(journal, &replay, &rotten);
        if (rc == 0 && replay.copies_wait && (rc = replay_end(&replay, log.end)) == 0) {
            replay.late = true;
            rc = replay_segments(journal, &replay, &rotten);
        }
        if (rc == 0)
            rc = replay_end(&replay, log.end);
        else if (replay.in_transaction)
            applier_rollback(journal);
    }
    snapshot_found_destroy(&reading.found);
    if (rc == ERR_IO && !message[0])
        (void)journal_say_unreadable(journal, message, cap);
    if (rc == 0 && log.hlc > journal->applier.state.hlc)
        journal->applier.state.hlc = log.hlc;
    journal->rotten_bytes = log.rotten_bytes;
    return rc;
}

static int replay_all(struct journal *journal, uint64_t *events, uint64_t *objects, char *message,
                      size_t cap)
{
    const struct store_dirs *dirs = journal->config.dirs;
    int rc =
        db_open(&journal->applier.db, journal->vfs, journal->db_path, &journal->node, &dirs->store);

    if (rc == 0)
        rc = applier_open(journal);
    if (rc == 0)
        rc = open_all_segments(journal, message, cap);
    if (rc == 0)
        rc = large_open(&journal->large, journal->env, dirs->files_dir, &dirs->store,
                        dirs->generation, true);
    if (rc == 0)
        rc = replay_log(journal, message, cap);
    if (rc == 0)
        rc = applier_mend(journal);
    if (rc == 0)
        rc = applier_checkpoint(journal);
    /* The database alone is renamed: all of it must be in it. */
    if (rc == 0 && journal->durable_position != journal->applier.state.position)
        rc = ERR_IO;
    *events = journal->applier.state.events;
    *objects = journal->applier.state.objects;
    return rc;
}

static int unlink_if_there(struct io *io, const char *path)
{
    int rc = io->unlink(io, path);

    return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int rename_if_there(struct io *io, const char *from, const char *to)
{
    int rc = io->rename(io, from, to);

    return rc == ERR_NOT_FOUND ? 0 : rc;
}

/*
 * A WAL belongs to whatever database bears its name, and bytes of one database applied to another
 * are damage that nobody notices. So no database is ever beside a WAL that is not its own, nor
 * without its own: the old one goes first, then its WAL, then the new one comes, each step durable
 * before the next. A crash in between leaves no database, and the next start says to rebuild.
 */
static int swap_databases(struct journal *journal)
{
    struct io *io = journal->env->io;
    const char *dir = journal->config.dirs->state_dir;
    char *current = io_join(dir, "journal.db"), *wal = io_join(dir, "journal.db-wal");
    char *old = io_join(dir, "journal.db.old"), *old_wal = io_join(dir, "journal.db.old-wal");
    char *new_wal = io_join(dir, "journal.db.rebuild-wal"); /* all of it is in the database */
    int rc = current && wal && old && old_wal && new_wal ? 0 : ERR_NO_MEMORY;
    struct io_stat stat;

    if (rc == 0)
        rc = io->stat(io, current, &stat);
    if (rc == ERR_NOT_FOUND) {
        rc = 0; /* an earlier rebuild got as far as here */
    } else if (rc == 0) {
        rc = unlink_if_there(io, old_wal);
        if (rc == 0)
            rc = io->sync_dir(io, dir);
        if (rc == 0)
            rc = io->rename(io, current, old);
        if (rc == 0)
            rc = io->sync_dir(io, dir);
    }
    if (rc == 0)
        rc = rename_if_there(io, wal, old_wal);
    if (rc == 0)
        rc = io->sync_dir(io, dir);
    if (rc == 0)
        rc = io->rename(io, journal->db_path, current);
    if (rc == 0)
        rc = io->sync_dir(io, dir);
    if (rc == 0)
        rc = unlink_if_there(io, new_wal);
    if (rc == 0)
        rc = io->sync_dir(io, dir);
    free(current);
    free(wal);
    free(old);
    free(old_wal);
    free(new_wal);
    return rc;
}

static void remove_leftover(struct journal *journal)
{
    static const char *const suffixes[] = {"", "-wal", "-journal"};
    struct io *io = journal->env->io;
    char path[4096];

    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if ((size_t)snprintf(path, sizeof path, "%s%s", journal->db_path, suffixes[i]) <
            sizeof path)
            (void)io->unlink(io, path);
}

int journal_rebuild(const struct store_dirs *dirs, uint64_t *events, uint64_t *objects,
                    char *message, size_t cap)
{
    struct journal_config config = {.dirs = dirs, .sync = true};
    struct journal *journal = NULL;
    int rc = journal_alloc(&journal, &config);

    message[0] = '\0';
    if (rc == 0 && (rc = journal_load_node(journal, message, cap)) == 0 &&
        (rc = journal->node_is_new ? journal_save_node(journal) : 0) == 0 &&
        (rc = vfs_register(journal->env, journal->vfs)) == 0) {
        journal->db_path = io_join(dirs->state_dir, "journal.db.rebuild");
        rc = journal->db_path ? 0 : ERR_NO_MEMORY;
    }
    if (rc == 0) {
        remove_leftover(journal);
        rc = replay_all(journal, events, objects, message, cap);
        db_close(&journal->applier.db);
        if (rc == 0)
            rc = swap_databases(journal);
        if (rc)
            remove_leftover(journal);
    }
    if (rc && !message[0])
        snprintf(message, cap, "rebuild of the journal in %s from the log in %s: %s",
                 dirs->state_dir, dirs->files_dir, err_text(rc));
    journal_close(&journal);
    return rc;
}
