/*
 * Upkeep ahead of the writer, so that a commit neither creates a file nor extends one: the next
 * segment is made when the active one is half full, and zeros are written ahead of the writer. A
 * batch then lands on blocks that the file has already, and its sync writes data alone.
 *
 * How far ahead: 4 MiB when idle, doubling each time the writer has used up half of it, at most
 * ZERO_FILL_AHEAD; it shrinks again when the writer stands still.
 *
 * Why zeros never overwrite a batch. Segment->filled, under the mutex, is the end of what anybody
 * has written or is about to write. Writer and filler both claim before they write: the writer
 * moves `filled` to its batch's end (log_fill_yield), the filler claims only ranges that begin at
 * or after `filled`. So a zero is never put where a batch was claimed before. The other way round,
 * a batch whose range runs into zeros that are being written at that moment waits until that one
 * write has returned. That happens only when the writer has caught up with the filler, and costs
 * nothing: it is a write of 128 KiB into the page cache, and the file system lets one write at a
 * time into a file in any case. Once the writer has caught up, the filler leaps ahead of it instead
 * of racing it.
 *
 * Why fdatasync after each MiB, through a descriptor of its own. Unsynced zeros, and the extension
 * of the file that they cause, would be written by the committer's next sync. Measured with one
 * writer of 64 KiB batches on ext4: extending 4,300 syncs a second; zeros ahead 7,200 with
 * fdatasync here, 6,700 with sync_file_range and a wait, 7,500 with everything prewritten; steps
 * larger than 128 KiB between syncs, or one write of 1 MiB, halve it. The system tells a failed
 * write-back once for each descriptor; on the committer's, this thread could swallow the error of a
 * commit.
 *
 * While batches are large the file is extended all the same: what costs then is their bytes, and
 * zeros would make the disk write them twice (16 writers of 64 KiB bodies, 512 KiB a batch, on a
 * noisy disk: 163 us of CPU a put with zeros, 134 without, in each of six pairs of runs; the rate
 * rose by 8 %, which is within that noise).
 */
#include "storage/log_internal.h"

#include "base/log.h"

#include <assert.h>
#include <stdlib.h>

#define CHUNK_BYTES (128 * KIB)
#define STEP_BYTES  (1 * MIB)
#define LEAST_AHEAD (4 * MIB)
#define LEAP_BYTES  (1 * MIB)
#define LARGE_BATCH (256 * KIB)
#define PAGE        4096

static uint8_t zeros[CHUNK_BYTES]; /* never written: costs no memory */

void log_fill_yield(struct log *log, struct segment *segment, uint64_t from, uint64_t to)
{
    assert(from < to);
    pthread_mutex_lock(&log->mutex);
    if (!segment->sealed && segment->filled < to)
        segment->filled = to;
    while (log->filling == segment && from < log->fill_to && log->fill_from < to)
        pthread_cond_wait(&log->fill_done, &log->mutex);
    pthread_mutex_unlock(&log->mutex);
}

void log_fill_close(struct log *log)
{
    (void)io_close(log->io, &log->fill_fd); /* zeros need no durability of their own */
}

static void refuse(struct log *log, const char *what, uint32_t volume, int rc)
{
    if (!log->fill_refused)
        log_warn("log: %s segment %08x: %s", what, volume, err_text(rc));
    log->fill_refused = true;
}

/* 1 where the next segment was made now, 0 where it is not needed or cannot be made. */
static int make_next(struct log *log)
{
    pthread_mutex_lock(&log->mutex);
    const struct segment *active = log->active;
    bool wanted = !log->next && (!active || active->end > log->segment_bytes / 2);
    pthread_mutex_unlock(&log->mutex);
    if (!wanted)
        return 0;

    pthread_mutex_lock(&log->create_mutex);
    uint32_t volume = log->next_volume;
    int rc = log->next ? 0 : log_create_next(log);
    pthread_mutex_unlock(&log->create_mutex);
    if (rc)
        refuse(log, "cannot make", volume, rc);
    return rc == 0;
}

/* Give back the zeros behind a segment that was left early. */
void log_trim(struct log *log)
{
    struct segment *segment = NULL;

    pthread_mutex_lock(&log->mutex);
    uint32_t volume = log->trim_volume;
    log->trim_volume = 0;
    pthread_mutex_unlock(&log->mutex);
    if (volume == 0 || log_take(log, volume, &segment))
        return;
    char *path = log_path(log, volume);
    int fd = path ? io_open(log->io, path, IO_WRITE) : ERR_NO_MEMORY;
    int rc = fd < 0 ? fd : log->io->truncate(log->io, fd, segment->end);
    if (rc)
        refuse(log, "cannot trim", volume, rc);
    (void)io_close(log->io, &fd); /* if the cut is lost, the zeros are back: no harm */
    free(path);
    log_give(log, segment);
}

/* Decide how far the zeros shall be ahead of the writer; true where it moved since the last call.
 * The mutex is held. */
static bool adapt(struct log *log)
{
    lsn_t end = atomic_load(&log->end);
    bool moved = end != log->fill_seen;
    const struct segment *active = log->active;

    log->fill_seen = end;
    if (log->ahead < LEAST_AHEAD)
        log->ahead = LEAST_AHEAD;
    if (active && active->filled - active->end < log->ahead / 2 &&
        end - log->fill_mark >= log->ahead / 2 && log->ahead < ZERO_FILL_AHEAD) {
        log->ahead *= 2;
        log->fill_mark = end;
    }
    return moved;
}

/* Whether SEGMENT wants zeros. The mutex is held. */
static bool wants_zeros(const struct log *log, const struct segment *segment)
{
    return segment && !segment->sealed && log->batch_mean < LARGE_BATCH &&
           segment->filled < log->segment_bytes && segment->filled - segment->end < log->ahead;
}

/* The segment to fill now, NULL where there is nothing to do. The mutex is held. */
static struct segment *choose(const struct log *log)
{
    if (wants_zeros(log, log->active))
        return log->active;
    return wants_zeros(log, log->next) ? log->next : NULL;
}

/* Claim the next chunk of SEGMENT: false where it wants none any more. The mutex is held. */
static bool claim(struct log *log, struct segment *segment, bool moved)
{
    if (segment->removed || !wants_zeros(log, segment))
        return false;
    uint64_t from = segment->filled;
    if (moved && from <= segment->end + CHUNK_BYTES && segment == log->active)
        from = log_align(segment->end + LEAP_BYTES, PAGE);
    uint64_t to = from + CHUNK_BYTES - from % PAGE;
    if (to > log->segment_bytes)
        to = log->segment_bytes;
    if (from >= to)
        return false;
    log->filling = segment;
    log->fill_from = from;
    log->fill_to = to;
    segment->filled = to;
    return true;
}

/* Fill up to a step of SEGMENT, which cannot go away meanwhile, chunk by chunk. */
static int fill(struct log *log, struct segment *segment, bool moved)
{
    int rc = 0;

    for (uint64_t done = 0; !rc && done < STEP_BYTES; done += CHUNK_BYTES) {
        pthread_mutex_lock(&log->mutex);
        bool claimed = claim(log, segment, moved);
        uint64_t from = log->fill_from, to = log->fill_to;
        pthread_mutex_unlock(&log->mutex);
        if (!claimed)
            break;
        rc = io_write(log->io, log->fill_fd, zeros, (size_t)(to - from), from);
        pthread_mutex_lock(&log->mutex);
        log->filling = NULL;
        pthread_cond_broadcast(&log->fill_done);
        pthread_mutex_unlock(&log->mutex);
    }
    int synced = log->io->fdatasync(log->io, log->fill_fd);
    return rc ? rc : synced;
}

/* Have fill_fd stand for segment VOLUME. */
static int need_fill_file(struct log *log, uint32_t volume)
{
    if (log->fill_fd >= 0 && log->fill_volume == volume)
        return 0;
    log_fill_close(log);
    char *path = log_path(log, volume);
    if (!path)
        return ERR_NO_MEMORY;
    int fd = io_open(log->io, path, IO_WRITE);
    free(path);
    if (fd < 0)
        return fd;
    log->fill_fd = fd;
    log->fill_volume = volume;
    return 0;
}

int log_prepare(struct log *log)
{
    if (!log->ready || atomic_load(&log->poisoned))
        return 0;
    log_trim(log);
    if (make_next(log))
        return 1;

    pthread_mutex_lock(&log->mutex);
    bool moved = adapt(log);
    struct segment *segment = choose(log);
    if (segment) {
        log_hold(log, segment);
    } else {
        log->fill_mark = log->fill_seen;
        if (!moved && log->ahead > LEAST_AHEAD)
            log->ahead /= 2;
    }
    pthread_mutex_unlock(&log->mutex);
    if (!segment)
        return 0;
    uint32_t volume = segment->volume;
    int rc = need_fill_file(log, volume);
    if (!rc)
        rc = fill(log, segment, moved);
    log_give(log, segment);
    if (rc) {
        refuse(log, "cannot write ahead in", volume, rc);
        return 0;
    }
    log->fill_refused = false;
    pthread_mutex_lock(&log->mutex);
    bool more = choose(log) != NULL;
    pthread_mutex_unlock(&log->mutex);
    return more;
}
