/*
 * Backing up a running store, at the cost of one SQLite copy and many hard links.
 *
 * The order makes it consistent: nothing is removed meanwhile (holds) → the database is copied at
 * some position P → the active segment is sealed, so everything below P lies in sealed segments,
 * which never change again → those are linked → then all large files are, which the sealed segments
 * name. A node that starts on the copy replays the log from P, as after a crash.
 */
#include "base/buf.h"
#include "base/io.h"
#include "base/log.h"
#include "journal/journal_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROTATE_WAIT_MS 10
#define ROTATE_WAITS   1000
#define COPY_BYTES     MIB
#define MANIFEST_BYTES (256 * MIB)

struct backup {
    struct journal *journal;
    struct io *io;
    const char *from, *to; /* the directory being copied */
    struct buf manifest;
    uint64_t files, bytes;
};

static int copy_file(struct io *io, const char *from, const char *to, uint64_t size)
{
    uint8_t *chunk = malloc(COPY_BYTES);
    int in = io_open(io, from, IO_READ), out = -1;
    int rc = !chunk ? ERR_NO_MEMORY : in < 0 ? in : 0;

    if (rc == 0) {
        out = io_open(io, to, IO_WRITE | IO_CREATE | IO_EXCLUSIVE);
        rc = out < 0 ? out : 0;
    }
    for (uint64_t at = 0; rc == 0 && at < size; at += COPY_BYTES) {
        size_t len = size - at < COPY_BYTES ? (size_t)(size - at) : COPY_BYTES;

        rc = io_read(io, in, chunk, len, at, false);
        if (rc == 0)
            rc = io_write(io, out, chunk, len, at);
    }
    if (rc == 0)
        rc = io->fdatasync(io, out);
    if (in >= 0)
        io_close(io, &in);
    if (out >= 0)
        io_close(io, &out);
    free(chunk);
    return rc;
}

/* NAME of backup->from into backup->to: a link, or a copy where the file system allows none. */
static int take(struct backup *backup, const char *name)
{
    char *from = io_join(backup->from, name), *to = io_join(backup->to, name);
    struct io_stat stat;
    int rc = from && to ? backup->io->stat(backup->io, from, &stat) : ERR_NO_MEMORY;

    if (rc == ERR_NOT_FOUND) { /* a temporary file that has just gone */
        free(from);
        free(to);
        return 0;
    }
    if (rc == 0 && stat.is_dir) {
        free(from);
        free(to);
        return 0;
    }
    if (rc == 0) {
        rc = backup->io->link(backup->io, from, to);
        if (rc && rc != ERR_EXISTS && rc != ERR_NO_SPACE && rc != ERR_NOT_FOUND)
            rc = copy_file(backup->io, from, to, stat.size_bytes);
        if (rc == ERR_EXISTS || rc == ERR_NOT_FOUND)
            rc = 0;
    }
    if (rc == 0) {
        backup->files++;
        backup->bytes += stat.size_bytes;
        buf_format(&backup->manifest, "%s{\"path\":", backup->files > 1 ? ",\n  " : "\n  ");
        buf_json(&backup->manifest, to, strlen(to));
        buf_format(&backup->manifest, ",\"bytes\":%llu}", (unsigned long long)stat.size_bytes);
    }
    free(from);
    free(to);
    return rc;
}

static int take_name(void *arg, const char *name)
{
    return take(arg, name);
}

/* Every file of SUB under the files directory. */
static int take_directory(struct backup *backup, const char *files, const char *to_files,
                          const char *sub)
{
    char *from = io_join(files, sub), *to = io_join(to_files, sub);
    int rc = from && to ? io_mkdirs(backup->io, to) : ERR_NO_MEMORY;

    if (rc == 0) {
        backup->from = from;
        backup->to = to;
        rc = backup->io->list(backup->io, from, take_name, backup);
        if (rc == ERR_NOT_FOUND)
            rc = 0;
        if (rc == 0)
            rc = backup->io->sync_dir(backup->io, to);
    }
    free(from);
    free(to);
    return rc;
}

static int seal_active(struct journal *journal)
{
    atomic_store(&journal->rotate, true);
    if (!journal->threaded) {
        journal_commit_step(journal);
        return journal->rotated;
    }
    queue_wake(journal->queue);
    for (int i = 0; i < ROTATE_WAITS && atomic_load(&journal->rotate); i++) {
        pthread_mutex_lock(&journal->lock);
        journal_wait(journal, &journal->upkeep, ROTATE_WAIT_MS);
        pthread_mutex_unlock(&journal->lock);
    }
    return atomic_load(&journal->rotate) ? ERR_TIMEOUT : journal->rotated;
}

static int take_segments(struct backup *backup, const char *files, const char *to_files)
{
    struct log_segment *segments;
    char *from = io_join(files, "log"), *to = io_join(to_files, "log"), name[32];
    size_t count;
    int rc = from && to ? io_mkdirs(backup->io, to) : ERR_NO_MEMORY;

    if (rc == 0)
        rc = log_segments(backup->journal->log, &segments, &count);
    if (rc) {
        free(from);
        free(to);
        return rc;
    }
    backup->from = from;
    backup->to = to;
    for (size_t i = 0; rc == 0 && i < count; i++)
        if (segments[i].sealed) {
            snprintf(name, sizeof name, "%08x.seg", segments[i].volume);
            rc = take(backup, name);
        }
    if (rc == 0)
        rc = backup->io->sync_dir(backup->io, to);
    free(segments);
    free(from);
    free(to);
    return rc;
}

/* A small file, copied rather than linked: the running node replaces or locks its own. */
static int copy_small(struct backup *backup, const char *from_dir, const char *to_dir,
                      const char *name)
{
    char *from = io_join(from_dir, name), *to = io_join(to_dir, name), *data = NULL;
    size_t len;
    int rc = from && to ? io_read_all(backup->io, from, MIB, &data, &len) : ERR_NO_MEMORY;

    if (rc == 0)
        rc = io_replace(backup->io, to, data, len);
    free(data);
    free(from);
    free(to);
    return rc;
}

static int take_all(struct backup *backup, const char *state, const char *files)
{
    const struct store_dirs *dirs = backup->journal->config.dirs;
    struct db_reader *reader = NULL;
    char *database = io_join(state, "journal.db"), sub[16];
    int rc = database ? journal_reader_open(backup->journal, &reader) : ERR_NO_MEMORY;

    if (rc == 0)
        rc = db_backup(reader, database);
    db_reader_close(&reader);
    free(database);
    if (rc == 0)
        rc = seal_active(backup->journal);
    if (rc == 0)
        rc = take_segments(backup, dirs->files_dir, files);
    if (rc == 0)
        rc = take_directory(backup, dirs->files_dir, files, "tmp");
    for (unsigned i = 0; rc == 0 && i < 256; i++) {
        snprintf(sub, sizeof sub, "large/%02x", i);
        rc = take_directory(backup, dirs->files_dir, files, sub);
    }
    if (rc == 0)
        rc = copy_small(backup, dirs->state_dir, state, "NODE_ID");
    if (rc == 0)
        rc = copy_small(backup, dirs->files_dir, files, "STORE");
    if (rc == 0)
        rc = copy_small(backup, dirs->state_dir, state, "STORE");
    return rc;
}

int journal_backup(struct journal *journal, const char *dir, char *message, size_t cap)
{
    struct backup backup = {.journal = journal, .io = journal->env->io};
    char *state = io_join(dir, "state"), *files = io_join(dir, "files");
    char *manifest = io_join(dir, "manifest.json");
    struct io_stat stat;
    int rc = state && files && manifest ? 0 : ERR_NO_MEMORY;

    message[0] = '\0';
    buf_init(&backup.manifest, MANIFEST_BYTES);
    buf_text(&backup.manifest, "{\"version\":1,\"files\":[");
    atomic_fetch_add(&journal->holds, 1);
    if (rc == 0 && backup.io->stat(backup.io, state, &stat) != ERR_NOT_FOUND)
        rc = ERR_EXISTS;
    if (rc == 0 && (rc = io_mkdirs(backup.io, state)) == 0 &&
        (rc = io_mkdirs(backup.io, files)) == 0)
        rc = take_all(&backup, state, files);
    atomic_fetch_sub(&journal->holds, 1);
    buf_format(&backup.manifest, "\n],\"count\":%llu,\"bytes\":%llu}\n",
               (unsigned long long)backup.files, (unsigned long long)backup.bytes);
    if (rc == 0)
        rc = buf_check(&backup.manifest);
    if (rc == 0) /* last: a backup without a manifest is none */
        rc = io_replace(backup.io, manifest, backup.manifest.data, backup.manifest.len);
    if (rc)
        snprintf(message, cap, "backup to %s: %s", dir, err_text(rc));
    buf_release(&backup.manifest);
    free(state);
    free(files);
    free(manifest);
    return rc;
}
