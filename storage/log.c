/*
 * The log's set of segments and reading from it. See also log_write.c (the committer's half),
 * log_prepare.c (the janitor's), log_recover.c and log_scan.c (start-up and cleaning).
 *
 * The set is a sorted array under one mutex, held for a look-up only, never during I/O. Whoever
 * uses a segment holds it (readers); a removed segment leaves the set at once, and the last one to
 * give it back closes and frees it, so a reader that came before the removal finishes undisturbed.
 *
 * Files are opened when first read and stay open, up to LOG_OPEN_FILES of them. A reader that must
 * not wait gets ERR_AGAIN where the file would have to be opened first.
 *
 *   segment   prepared (log->next) → active (log->active) → sealed → removed
 */
#include "storage/log_internal.h"

#include "base/log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SMALLEST_SEGMENT (64 * KIB)
#define FILE_NAME_FORMAT "%08" PRIx32 ".seg"

char *log_path(const struct log *log, uint32_t volume)
{
    char *path;

    return asprintf(&path, "%s/" FILE_NAME_FORMAT, log->dir, volume) < 0 ? NULL : path;
}

/* ---- The set ---- */

struct segment *segment_new(uint32_t volume, lsn_t base)
{
    struct segment *segment = malloc(sizeof *segment);

    if (segment)
        *segment = (struct segment){
            .volume = volume,
            .base = base,
            .end = SEGMENT_HEADER_BYTES,
            .filled = SEGMENT_HEADER_BYTES,
            .fd = -1,
        };
    return segment;
}

void segment_free(struct log *log, struct segment **segment)
{
    if (!*segment)
        return;
    (void)io_close(log->io, &(*segment)->fd); /* what matters was synced */
    free(*segment);
    *segment = NULL;
}

/* The index of the first segment whose number is not below VOLUME. */
static size_t position_of(const struct log *log, uint32_t volume)
{
    size_t low = 0, high = log->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (log->segments[middle]->volume < volume)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct segment *find(const struct log *log, uint32_t volume)
{
    size_t at = position_of(log, volume);

    return at < log->count && log->segments[at]->volume == volume ? log->segments[at] : NULL;
}

int log_insert(struct log *log, struct segment *segment)
{
    assert(log->count == 0 || log->segments[log->count - 1]->volume < segment->volume);
    if (log->count >= LIMIT_SEGMENTS)
        return ERR_FULL;
    if (log->count == log->cap) {
        size_t cap = log->cap ? log->cap * 2 : 16;
        struct segment **grown = realloc(log->segments, cap * sizeof *grown);

        if (!grown)
            return ERR_NO_MEMORY;
        log->segments = grown;
        log->cap = cap;
    }
    log->segments[log->count++] = segment;
    if (segment->fd >= 0)
        log->open_files++;
    return 0;
}

void log_hold(struct log *log, struct segment *segment)
{
    assert(!segment->removed);
    segment->readers++;
    segment->used_at = ++log->clock;
}

int log_take(struct log *log, uint32_t volume, struct segment **out)
{
    pthread_mutex_lock(&log->mutex);
    *out = find(log, volume);
    if (*out)
        log_hold(log, *out);
    pthread_mutex_unlock(&log->mutex);
    return *out ? 0 : ERR_NOT_FOUND;
}

void log_give(struct log *log, struct segment *segment)
{
    pthread_mutex_lock(&log->mutex);
    assert(segment->readers > 0);
    bool last = --segment->readers == 0 && segment->removed;
    pthread_mutex_unlock(&log->mutex);
    if (last)
        segment_free(log, &segment);
}

int log_idle_file(struct log *log)
{
    struct segment *idle = NULL;

    if (log->open_files < LOG_OPEN_FILES)
        return -1;
    for (size_t i = 0; i < log->count; i++) {
        struct segment *segment = log->segments[i];

        if (segment->fd >= 0 && segment->readers == 0 &&
            (!idle || segment->used_at < idle->used_at))
            idle = segment;
    }
    if (!idle)
        return -1;
    int fd = idle->fd;
    idle->fd = -1;
    log->open_files--;
    return fd;
}

static int read_header(struct log *log, int fd, struct segment_header *out)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    int rc = io_read(log->io, fd, bytes, sizeof bytes, 0, false);

    if (rc)
        return rc;
    rc = segment_header_decode(out, bytes);
    if (rc)
        return rc;
    return id_equal(&out->store, &log->store) ? 0 : ERR_WRONG_STORE;
}

int log_need_file(struct log *log, struct segment *segment)
{
    struct segment_header header;

    pthread_mutex_lock(&log->mutex);
    assert(segment->readers > 0);
    bool there = segment->fd >= 0 && segment->header_known;
    pthread_mutex_unlock(&log->mutex);
    if (there)
        return 0;

    char *path = log_path(log, segment->volume);
    if (!path)
        return ERR_NO_MEMORY;
    int fd = io_open(log->io, path, IO_READ);
    free(path);
    if (fd < 0)
        return fd;
    int rc = read_header(log, fd, &header);
    if (!rc && (header.volume != segment->volume || header.base != segment->base))
        rc = ERR_CORRUPT;
    int surplus = fd, idle = -1;
    if (!rc) {
        pthread_mutex_lock(&log->mutex);
        if (!segment->header_known) {
            segment->salt = header.salt;
            segment->disk = header.disk;
            segment->read_only = header.features.ro_compat != 0;
            segment->header_known = true;
        }
        if (segment->fd < 0) {
            idle = log_idle_file(log);
            segment->fd = fd;
            /* A removed segment is no longer counted: its last reader closes it. */
            log->open_files += !segment->removed;
            surplus = -1;
        }
        pthread_mutex_unlock(&log->mutex);
    }
    (void)io_close(log->io, &surplus); /* only read from, as the next */
    (void)io_close(log->io, &idle);
    return rc;
}

int log_refuse_gap(struct log *log, const struct segment *segment, const struct scan *scan)
{
    if (scan->window.unreadable == UINT64_MAX || log->skip_unreadable)
        return 0;
    pthread_mutex_lock(&log->mutex);
    log->refused = true;
    log->refused_volume = segment->volume;
    log->refused_offset = scan->window.unreadable;
    pthread_mutex_unlock(&log->mutex);
    return ERR_IO;
}

bool log_unreadable(struct log *log, uint32_t *volume, uint64_t *offset)
{
    pthread_mutex_lock(&log->mutex);
    bool refused = log->refused;

    *volume = log->refused_volume;
    *offset = log->refused_offset;
    pthread_mutex_unlock(&log->mutex);
    return refused;
}

int log_segments(struct log *log, struct log_segment **out, size_t *count)
{
    *count = 0;
    *out = NULL;
    pthread_mutex_lock(&log->mutex);
    struct log_segment *all = calloc(log->count ? log->count : 1, sizeof *all);
    for (size_t i = 0; all && i < log->count; i++) {
        const struct segment *segment = log->segments[i];

        all[i] = (struct log_segment){
            .volume = segment->volume,
            .disk = segment->disk,
            .base = segment->base,
            .end_bytes = segment->end,
            .sealed = segment->sealed,
        };
    }
    if (all)
        *count = log->count;
    pthread_mutex_unlock(&log->mutex);
    *out = all;
    return all ? 0 : ERR_NO_MEMORY;
}

int log_remove(struct log *log, uint32_t volume)
{
    struct segment *segment;
    int rc = log_take(log, volume, &segment);

    if (rc)
        return rc;
    char *path = log_path(log, volume);
    if (!segment->sealed || !path) {
        rc = path ? ERR_INVALID : ERR_NO_MEMORY;
        goto out;
    }
    rc = log->io->unlink(log->io, path);
    if (rc && rc != ERR_NOT_FOUND)
        goto out;
    pthread_mutex_lock(&log->mutex);
    if (!segment->removed) {
        size_t at = position_of(log, volume);

        assert(at < log->count && log->segments[at] == segment);
        memmove(log->segments + at, log->segments + at + 1,
                (log->count - at - 1) * sizeof *log->segments);
        log->count--;
        segment->removed = true;
        if (segment->fd >= 0)
            log->open_files--;
    }
    pthread_mutex_unlock(&log->mutex);
    rc = log->io->sync_dir(log->io, log->dir);
out:
    free(path);
    log_give(log, segment);
    return rc;
}

/* ---- Opening ---- */

static int add_known(struct log *log, const struct log_segment *known)
{
    struct io_stat stat;
    uint32_t last = log->count ? log->segments[log->count - 1]->volume : 0;

    if (known->volume <= last || known->volume == PLACE_LARGE || known->base % BATCH_ALIGN != 0 ||
        known->base >= LSN_LIMIT)
        return ERR_CORRUPT;
    char *path = log_path(log, known->volume);
    if (!path)
        return ERR_NO_MEMORY;
    int rc = log->io->stat(log->io, path, &stat);
    if (rc == ERR_NOT_FOUND)
        log_error("log: segment file %s is missing", path);
    else if (rc)
        log_error("log: segment file %s: %s", path, err_text(rc));
    free(path);
    if (rc)
        return rc;
    struct segment *segment = segment_new(known->volume, known->base);
    if (!segment)
        return ERR_NO_MEMORY;
    segment->disk = known->disk;
    segment->end = known->sealed ? known->end_bytes : stat.size_bytes;
    segment->filled = stat.size_bytes;
    segment->sealed = true;
    segment->exact = known->sealed;
    rc = log_insert(log, segment);
    if (rc)
        segment_free(log, &segment);
    return rc;
}

/* Where a segment begins whose header cannot be read: where this code would have put it. */
static lsn_t likely_base(const struct log *log)
{
    if (log->count == 0)
        return 0;
    const struct segment *last = log->segments[log->count - 1];
    uint64_t span = last->filled > log->limit_bytes ? last->filled : log->limit_bytes;

    return log_align(last->base + span, SEGMENT_HEADER_BYTES);
}

/* Add segment VOLUME, of which only the file tells. ERR_NOT_FOUND: there is none. */
static int add_found(struct log *log, uint32_t volume)
{
    struct segment_header header;
    struct io_stat stat;
    struct segment *segment = NULL;
    char *path = log_path(log, volume);
    if (!path)
        return ERR_NO_MEMORY;
    int fd = io_open(log->io, path, IO_READ);
    int rc = fd < 0 ? fd : log->io->stat_fd(log->io, fd, &stat);
    if (rc < 0)
        goto out;
    rc = read_header(log, fd, &header);
    if (rc == 0 && (header.volume != volume ||
                    (log->count && header.base <= log->segments[log->count - 1]->base)))
        rc = ERR_CORRUPT;
    if (rc && rc != ERR_CORRUPT) {
        log_error("log: segment file %s: %s", path, err_text(rc));
        goto out;
    }
    segment = segment_new(volume, rc ? likely_base(log) : header.base);
    if (!segment) {
        rc = ERR_NO_MEMORY;
        goto out;
    }
    if (rc)
        log_error("log: segment file %s has a damaged header", path);
    segment->filled = stat.size_bytes;
    segment->end = stat.size_bytes;
    segment->sealed = true;
    rc = log_insert(log, segment);
    if (rc)
        segment_free(log, &segment);
out:
    (void)io_close(log->io, &fd); /* only read from */
    free(path);
    return rc;
}

struct names {
    uint32_t *volumes;
    size_t count, cap;
};

static int add_name(void *arg, const char *name)
{
    struct names *names = arg;
    char again[32];
    uint32_t volume;

    if (sscanf(name, "%8" SCNx32, &volume) != 1 || volume == 0 || volume == PLACE_LARGE)
        return 0;
    (void)snprintf(again, sizeof again, FILE_NAME_FORMAT, volume);
    if (strcmp(again, name) != 0)
        return 0;
    if (names->count == LIMIT_SEGMENTS)
        return ERR_FULL;
    if (names->count == names->cap) {
        size_t cap = names->cap ? names->cap * 2 : 64;
        uint32_t *grown = realloc(names->volumes, cap * sizeof *grown);

        if (!grown)
            return ERR_NO_MEMORY;
        names->volumes = grown;
        names->cap = cap;
    }
    names->volumes[names->count++] = volume;
    return 0;
}

static int compare_volumes(const void *a, const void *b)
{
    uint32_t x, y;

    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* Without a database there is nothing to go by but the directory. */
static int add_listed(struct log *log)
{
    struct names names = {0};
    int rc = log->io->list(log->io, log->dir, add_name, &names);

    if (names.count > 1)
        qsort(names.volumes, names.count, sizeof *names.volumes, compare_volumes);
    for (size_t i = 0; !rc && i < names.count; i++)
        rc = add_found(log, names.volumes[i]);
    free(names.volumes);
    return rc;
}

static int find_segments(struct log *log, const struct log_segment *known, size_t count)
{
    if (count == 0)
        return add_listed(log);
    for (size_t i = 0; i < count; i++) {
        int rc = add_known(log, &known[i]);
        if (rc)
            return rc;
    }
    /* Numbers are given out without gaps, and the database knows of a segment before a later one
     * can be removed, so the first missing number is the end. */
    for (uint32_t volume = known[count - 1].volume + 1; volume != PLACE_LARGE; volume++) {
        int rc = add_found(log, volume);
        if (rc)
            return rc == ERR_NOT_FOUND ? 0 : rc;
    }
    return 0;
}

static void set_limits(struct log *log, uint64_t segment_bytes)
{
    /* Whatever the size asked for, one largest record fits into a segment. */
    uint64_t least = SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES + RECORD_MAX_BYTES + BATCH_ALIGN;

    log->segment_bytes = segment_bytes ? segment_bytes : SEGMENT_BYTES;
    assert(log->segment_bytes >= SMALLEST_SEGMENT);
    log->limit_bytes =
        log_align(log->segment_bytes > least ? log->segment_bytes : least, SEGMENT_HEADER_BYTES);
    log->batch_bytes = log->segment_bytes / 4;
    if (log->batch_bytes > LIMIT_BATCH_BYTES)
        log->batch_bytes = LIMIT_BATCH_BYTES;
}

/* A segment that was made, could not be synced, and was being made once more when the process died
 * leaves a temporary file that nobody will make again. */
static void remove_temporary(const struct log *log, uint32_t volume)
{
    char *path;

    if (asprintf(&path, "%s/" FILE_NAME_FORMAT ".tmp", log->dir, volume) < 0)
        return; /* the next start does it */
    (void)log->io->unlink(log->io, path);
    free(path);
}

int log_open(struct log **out, const struct log_config *config, const struct log_segment *known,
             size_t count)
{
    int rc = ERR_NO_MEMORY;
    struct log *log = calloc(1, sizeof *log);

    *out = NULL;
    if (!log)
        return rc;
    log->env = config->env;
    log->io = config->env->io;
    log->store = config->store;
    log->sync = config->sync;
    log->skip_unreadable = config->skip_unreadable;
    log->next_volume = 1;
    log->fill_fd = -1;
    set_limits(log, config->segment_bytes);
    pthread_mutex_init(&log->mutex, NULL);
    pthread_mutex_init(&log->create_mutex, NULL);
    pthread_mutex_init(&log->sync_mutex, NULL);
    pthread_cond_init(&log->fill_done, NULL);
    log->dir = io_join(config->files_dir, "log");
    if (!log->dir || log_batch_init(&log->batch))
        goto fail;
    rc = io_mkdirs(log->io, log->dir);
    if (rc)
        goto fail;
    rc = find_segments(log, known, count);
    /* A process that was killed may have made a segment and not come to sync its name: whoever
     * finds it writes it down, so it must not go away any more. */
    if (!rc)
        rc = log->io->sync_dir(log->io, log->dir);
    if (rc)
        goto fail;
    if (log->count > 0) {
        uint32_t last = log->segments[log->count - 1]->volume;

        log->next_volume = last + 1;
        remove_temporary(log, last);
    }
    *out = log;
    return 0;
fail:
    log_close(&log);
    return rc;
}

void log_close(struct log **log_ptr)
{
    struct log *log = *log_ptr;

    if (!log)
        return;
    log_fill_close(log);
    if (log->active)
        log_give(log, log->active);
    for (size_t i = 0; i < log->count; i++) {
        assert(log->segments[i]->readers == 0);
        segment_free(log, &log->segments[i]);
    }
    segment_free(log, &log->next);
    log_batch_release(&log->batch);
    pthread_mutex_destroy(&log->mutex);
    pthread_mutex_destroy(&log->create_mutex);
    pthread_mutex_destroy(&log->sync_mutex);
    pthread_cond_destroy(&log->fill_done);
    free(log->segments);
    free(log->dir);
    free(log);
    *log_ptr = NULL;
}

lsn_t log_end(const struct log *log)
{
    return atomic_load(&log->end);
}

lsn_t log_synced(const struct log *log)
{
    return atomic_load(&log->synced);
}

/* ---- Reading ---- */

/* *LENGTH of the record at OFFSET, from its header. */
static int read_length(struct log *log, const struct segment *segment, uint64_t offset, bool nowait,
                       uint32_t *length)
{
    uint8_t bytes[RECORD_HEADER_BYTES];
    struct record_header header;
    int rc = io_read(log->io, segment->fd, bytes, sizeof bytes, offset, nowait);

    if (rc)
        return rc;
    rc = record_header_decode(&header, bytes);
    if (rc)
        return rc;
    if (!record_header_check(bytes, segment->salt, segment->base + offset))
        return ERR_CORRUPT;
    assert(record_bytes(&header) <= RECORD_MAX_BYTES);
    *length = (uint32_t)record_bytes(&header);
    return 0;
}

static int read_record(struct log *log, const struct segment *segment, uint64_t offset,
                       const struct id128 *id, uint32_t length, uint8_t *buf, size_t cap,
                       bool nowait, struct record_view *out)
{
    if (offset < SEGMENT_HEADER_BYTES || offset % 8 != 0 || offset >= LSN_LIMIT)
        return ERR_CORRUPT;
    if (length == 0) {
        int rc = read_length(log, segment, offset, nowait, &length);
        if (rc)
            return rc;
    }
    if (length > cap)
        return ERR_TOO_BIG;
    int rc = io_read(log->io, segment->fd, buf, length, offset, nowait);
    if (rc)
        return rc;
    rc = record_decode(out, buf, length, segment->salt, segment->base + offset);
    if (rc)
        return rc;
    if (!id_equal(&out->header.id, id) || record_bytes(&out->header) != length)
        return ERR_CORRUPT;
    return record_verify_body(out);
}

int log_read(struct log *log, const struct place *place, const struct id128 *id, uint32_t length,
             uint8_t *buf, size_t cap, bool nowait, struct record_view *out)
{
    struct segment *segment;

    assert(place->volume != PLACE_LARGE);
    pthread_mutex_lock(&log->mutex);
    segment = find(log, place->volume);
    bool open = segment && segment->fd >= 0 && segment->header_known;
    bool held = segment && (open || !nowait);
    if (held)
        log_hold(log, segment);
    pthread_mutex_unlock(&log->mutex);
    if (!held)
        return segment ? ERR_AGAIN : ERR_NOT_FOUND;
    int rc = open ? 0 : log_need_file(log, segment);
    if (!rc)
        rc = read_record(log, segment, place->offset, id, length, buf, cap, nowait, out);
    log_give(log, segment);
    return rc;
}
