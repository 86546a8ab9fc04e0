/*
 * Backing up a running store, at the cost of one SQLite copy and many hard links.
 *
 * The order makes it consistent: nothing is removed meanwhile (holds) → the database is copied at
 * some position P → the active segment is sealed, so everything below P lies in sealed segments,
 * which never change again → those are linked → then all large files are, which the sealed segments
 * name. A node that starts on the copy replays the log from P, as after a crash.
 *
 * The manifest comes last. On a failure everything made is removed, so the same call can be made
 * again; only a crash leaves a directory, without a manifest.
 */
#include "base/buf.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/text.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROTATE_WAIT_MS 10
#define ROTATE_WAITS   1000
#define COPY_BYTES     MIB
#define MANIFEST_BYTES (256 * MIB)
#define TREE_DEPTH     4 /* of DIR/files/large/xx */

struct backup {
    struct journal *journal;
    struct io *io;
    const char *dir;       /* the backup */
    const char *from, *to; /* the directory being copied, and its counterpart below DIR */
    bool to_made;
    struct buf files; /* their entries for the manifest */
    uint64_t count, bytes;
    lsn_t position; /* the end of the log that was taken */
};

/* ---- The manifest ---- */

/* SUM: the SHA-256 of what was copied; NULL: the file bears checksums of its own. */
static void note_file(struct backup *backup, const char *path, uint64_t bytes, const uint8_t *sum)
{
    char hex[2 * SHA256_BYTES + 1];

    assert(*path != '/');
    backup->count++;
    backup->bytes += bytes;
    buf_text(&backup->files, backup->count > 1 ? ",\n  {\"path\":" : "\n  {\"path\":");
    buf_json(&backup->files, path, strlen(path));
    buf_format(&backup->files, ",\"bytes\":%llu", (unsigned long long)bytes);
    if (sum) {
        hex_encode(hex, sum, SHA256_BYTES);
        buf_format(&backup->files, ",\"sha256\":\"%s\"", hex);
    }
    buf_char(&backup->files, '}');
}

static int write_manifest(struct backup *backup)
{
    const struct store_dirs *dirs = backup->journal->config.dirs;
    char node[ULID_TEXT_BYTES + 1], store[2 * sizeof dirs->store.bytes + 1], now[32];
    time_t seconds = (time_t)(env_wall_ms(backup->journal->env) / 1000);
    char *path = io_join(backup->dir, "manifest.json");
    struct buf text;
    struct tm tm;

    ulid_format(node, &backup->journal->node);
    hex_encode(store, dirs->store.bytes, sizeof dirs->store.bytes);
    if (!gmtime_r(&seconds, &tm) || strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        *now = '\0';
    buf_init(&text, MANIFEST_BYTES + 4 * KIB);
    buf_format(&text,
               "{\"version\":1,\"time\":\"%s\",\"node\":\"%s\",\"store\":\"%s\","
               "\"position\":%llu,\"count\":%llu,\"bytes\":%llu,\"files\":[",
               now, node, store, (unsigned long long)backup->position,
               (unsigned long long)backup->count, (unsigned long long)backup->bytes);
    buf_add(&text, backup->files.data, backup->files.len);
    buf_text(&text, "\n]}\n");
    int rc = buf_check(&backup->files);
    if (rc == 0)
        rc = buf_check(&text);
    if (rc == 0)
        rc = path ? io_replace(backup->io, path, text.data, text.len) : ERR_NO_MEMORY;
    buf_release(&text);
    free(path);
    return rc;
}

/* ---- Files ---- */

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
    char *from = io_join(backup->from, name), *part = io_join(backup->to, name);
    char *to = part ? io_join(backup->dir, part) : NULL;
    struct io_stat stat;
    int rc = from && to ? backup->io->stat(backup->io, from, &stat) : ERR_NO_MEMORY;

    if (rc || stat.is_dir)
        goto out;
    if (!backup->to_made) {
        char *dir = io_join(backup->dir, backup->to);

        rc = dir ? io_mkdirs(backup->io, dir) : ERR_NO_MEMORY;
        free(dir);
        if (rc)
            goto out;
        backup->to_made = true;
    }
    rc = backup->io->link(backup->io, from, to);
    if (rc && rc != ERR_EXISTS && rc != ERR_NO_SPACE && rc != ERR_NOT_FOUND)
        rc = copy_file(backup->io, from, to, stat.size_bytes);
    if (rc == 0)
        note_file(backup, part, stat.size_bytes, NULL);
out:
    free(from);
    free(part);
    free(to);
    return rc;
}

static int take_name(void *arg, const char *name)
{
    int rc = take(arg, name);

    /* A temporary file that has just gone; or a name that the directory, changing, told twice. */
    return rc == ERR_NOT_FOUND || rc == ERR_EXISTS ? 0 : rc;
}

static int sync_taken(struct backup *backup)
{
    char *dir = backup->to_made ? io_join(backup->dir, backup->to) : NULL;
    int rc = !backup->to_made ? 0 : dir ? backup->io->sync_dir(backup->io, dir) : ERR_NO_MEMORY;

    free(dir);
    return rc;
}

/* Every file of SUB ("files/…") of the files directory; a directory without any is not made, the
 * start on the copy does that. */
static int take_directory(struct backup *backup, const char *sub)
{
    const char *files = backup->journal->config.dirs->files_dir;
    char *from = io_join(files, sub + strlen("files/"));
    int rc = ERR_NO_MEMORY;

    if (from) {
        backup->from = from;
        backup->to = sub;
        backup->to_made = false;
        rc = backup->io->list(backup->io, from, take_name, backup);
        if (rc == ERR_NOT_FOUND)
            rc = 0;
        if (rc == 0)
            rc = sync_taken(backup);
    }
    free(from);
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

static int take_segments(struct backup *backup)
{
    const struct store_dirs *dirs = backup->journal->config.dirs;
    struct log_segment *segments;
    char *from = io_join(dirs->files_dir, "log"), name[32];
    size_t count;
    int rc = from ? log_segments(backup->journal->log, &segments, &count) : ERR_NO_MEMORY;

    if (rc) {
        free(from);
        return rc;
    }
    backup->from = from;
    backup->to = "files/log";
    backup->to_made = false;
    for (size_t i = 0; rc == 0 && i < count; i++)
        if (segments[i].sealed) {
            snprintf(name, sizeof name, "%08x.seg", segments[i].volume);
            rc = take(backup, name);
            backup->position = segments[i].base + segments[i].end_bytes;
        }
    if (rc == 0)
        rc = sync_taken(backup);
    free(segments);
    free(from);
    return rc;
}

/* A small file, copied rather than linked: the running node replaces or locks its own. TO: below
 * the backup's directory. */
static int copy_small(struct backup *backup, const char *from_dir, const char *name, const char *to)
{
    char *from = io_join(from_dir, name), *path = io_join(backup->dir, to), *data = NULL;
    uint8_t sum[SHA256_BYTES];
    size_t len;
    int rc = from && path ? io_read_all(backup->io, from, MIB, &data, &len) : ERR_NO_MEMORY;

    if (rc == 0)
        rc = io_replace(backup->io, path, data, len);
    if (rc == 0) {
        sha256(data, len, sum);
        note_file(backup, to, len, sum);
    }
    free(data);
    free(from);
    free(path);
    return rc;
}

/* The SHA-256 of the LEN bytes of PATH. */
static int sum_file(struct io *io, const char *path, uint64_t len, uint8_t out[SHA256_BYTES])
{
    struct digest *digest = NULL;
    uint8_t *chunk = malloc(COPY_BYTES);
    int fd = io_open(io, path, IO_READ);
    int rc = !chunk ? ERR_NO_MEMORY : fd < 0 ? fd : digest_create(&digest, DIGEST_SHA256);

    for (uint64_t at = 0; rc == 0 && at < len; at += COPY_BYTES) {
        size_t part = len - at < COPY_BYTES ? (size_t)(len - at) : COPY_BYTES;

        rc = io_read(io, fd, chunk, part, at, false);
        if (rc == 0)
            digest_update(digest, chunk, part);
    }
    if (rc == 0)
        digest_final(digest, out);
    digest_destroy(&digest);
    if (fd >= 0)
        io_close(io, &fd);
    free(chunk);
    return rc;
}

static int copy_database(struct backup *backup)
{
    static const char name[] = "state/journal.db";
    struct db_reader *reader = NULL;
    uint8_t sum[SHA256_BYTES];
    struct io_stat stat;
    char *path = io_join(backup->dir, name);
    int rc = path ? journal_reader_open(backup->journal, &reader) : ERR_NO_MEMORY;

    if (rc == 0)
        rc = db_backup(reader, path);
    db_reader_close(&reader);
    if (rc == 0)
        rc = backup->io->stat(backup->io, path, &stat);
    if (rc == 0)
        rc = sum_file(backup->io, path, stat.size_bytes, sum);
    if (rc == 0)
        note_file(backup, name, stat.size_bytes, sum);
    free(path);
    return rc;
}

static int take_all(struct backup *backup)
{
    const struct store_dirs *dirs = backup->journal->config.dirs;
    char sub[32];
    int rc = copy_database(backup);

    if (rc == 0)
        rc = seal_active(backup->journal);
    if (rc == 0)
        rc = take_segments(backup);
    if (rc == 0)
        rc = take_directory(backup, "files/tmp");
    for (unsigned i = 0; rc == 0 && i < 256; i++) {
        snprintf(sub, sizeof sub, "files/large/%02x", i);
        rc = take_directory(backup, sub);
    }
    if (rc == 0)
        rc = copy_small(backup, dirs->state_dir, "NODE_ID", "state/NODE_ID");
    if (rc == 0)
        rc = copy_small(backup, dirs->files_dir, "STORE", "files/STORE");
    if (rc == 0)
        rc = copy_small(backup, dirs->state_dir, "STORE", "state/STORE");
    return rc;
}

/* ---- The directory ---- */

/* Cut the last part off PATH; false where none would be left. */
static bool cut_last(char *path)
{
    char *slash = strrchr(path, '/');

    while (slash && slash > path && slash[-1] == '/')
        slash--;
    if (!slash || slash == path)
        return false;
    *slash = '\0';
    return true;
}

/* How much of DIR is there already: 0 where nothing but the root is. */
static size_t existing_part(struct io *io, const char *dir)
{
    char *path = strdup(dir);
    struct io_stat stat;
    size_t len = 0;

    if (!path)
        return strlen(dir);
    while (len == 0) {
        if (io->stat(io, path, &stat) != ERR_NOT_FOUND)
            len = strlen(path);
        else if (!cut_last(path))
            break;
    }
    free(path);
    return len;
}

struct tree {
    struct io *io;
    const char *path;
    int depth;
};

static void remove_tree(struct io *io, const char *path, int depth);

static int remove_name(void *arg, const char *name)
{
    const struct tree *tree = arg;
    char *path = io_join(tree->path, name);
    struct io_stat stat;

    if (path && tree->io->stat(tree->io, path, &stat) == 0) {
        if (stat.is_dir)
            remove_tree(tree->io, path, tree->depth - 1);
        else
            (void)tree->io->unlink(tree->io, path);
    }
    free(path);
    return 0;
}

static void remove_tree(struct io *io, const char *path, int depth)
{
    struct tree tree = {io, path, depth};

    if (depth > 0)
        (void)io->list(io, path, remove_name, &tree);
    (void)io->unlink(io, path);
}

/* Best effort: what brought us here may be a failing disk. KEEP: so much of DIR was there; CLAIMED:
 * what is in it is ours. */
static void undo(struct io *io, const char *dir, size_t keep, bool claimed)
{
    static const char *const made[] = {"state", "files"};
    char *path;

    for (size_t i = 0; claimed && i < sizeof made / sizeof *made; i++) {
        path = io_join(dir, made[i]);
        if (path)
            remove_tree(io, path, TREE_DEPTH - 1);
        free(path);
    }
    path = strdup(dir);
    if (!path)
        return;
    while (strlen(path) > keep && io->unlink(io, path) == 0 && cut_last(path))
        ;
    free(path);
}

static int refuse_name(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return ERR_EXISTS;
}

/* Make DIR with its two halves. ERR_EXISTS where there is anything in it, or another backup comes
 * first: state/ is made once. *CLAIMED: what is in DIR from now on is ours. */
static int claim(struct io *io, const char *dir, bool *claimed)
{
    char *state = io_join(dir, "state"), *files = io_join(dir, "files");
    struct io_stat stat;
    int rc = state && files ? io->stat(io, dir, &stat) : ERR_NO_MEMORY;

    if (rc == 0)
        rc = stat.is_dir ? io->list(io, dir, refuse_name, NULL) : ERR_EXISTS;
    if (rc == 0 || rc == ERR_NOT_FOUND)
        rc = io_mkdirs(io, dir);
    if (rc == 0)
        rc = io->mkdir(io, state);
    *claimed = rc == 0;
    if (rc == 0)
        rc = io_mkdirs(io, files); /* syncs both names */
    free(state);
    free(files);
    return rc;
}

int journal_backup(struct journal *journal, const char *dir, char *message, size_t cap)
{
    struct backup backup = {.journal = journal, .io = journal->env->io, .dir = dir};
    size_t keep = existing_part(backup.io, dir);
    bool claimed = false;
    int rc = claim(backup.io, dir, &claimed);

    message[0] = '\0';
    buf_init(&backup.files, MANIFEST_BYTES);
    if (rc == ERR_EXISTS) {
        snprintf(message, cap, "backup to %s: it is there already, and not an empty directory",
                 dir);
        return rc;
    }
    if (rc == 0) {
        atomic_fetch_add(&journal->holds, 1);
        rc = take_all(&backup);
        atomic_fetch_sub(&journal->holds, 1);
    }
    if (rc == 0) /* last: a backup without a manifest is none */
        rc = write_manifest(&backup);
    if (rc) {
        snprintf(message, cap, "backup to %s: %s", dir, err_text(rc));
        undo(backup.io, dir, keep, claimed);
    }
    buf_release(&backup.files);
    return rc;
}
