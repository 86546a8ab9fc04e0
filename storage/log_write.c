/*
 * The committer's half of the log: building batches and making them durable.
 *
 *   log_begin   choose the segment, reserve the header's place
 *   log_add     encode header, sums and event into the arena; small bodies are copied beside them,
 *               larger ones are only pointed at
 *   log_write   finish the header and write all of it with one call, padded to the next 512
 *   log_sync    one fdatasync
 *
 * A batch lies in one segment and begins on a multiple of 512. A segment is left when a largest
 * batch might not fit into it any more; what it holds is synced before the first batch of the next
 * one, so that a batch's existence says that all earlier segments are complete.
 *
 * Failure. A write that failed may have put all of its bytes on the disk: a later recovery would
 * take them for a batch that counts, though its records were voided and their numbers given out
 * again. So the file is cut back to where the batch began, and that cut is synced, before the
 * failure is told; then the segment is sealed. If the cut fails too, or any sync does, the state of
 * the disk is unknown: the writer is poisoned, and only a restart, which looks at what is there,
 * ends that.
 */
#include "storage/log_internal.h"

#include "base/log.h"

#include <assert.h>
#include <stdlib.h>

#define ARENA_FIRST (64 * KIB)
/* An arena that grew beyond is given back after its batch. */
#define ARENA_KEPT (2 * MIB)

int log_batch_init(struct log_batch *batch)
{
    *batch = (struct log_batch){
        .arena = malloc(ARENA_FIRST),
        .cap = ARENA_FIRST,
        .pieces = malloc(LIMIT_BATCH_RECORDS * sizeof *batch->pieces),
        .iov = malloc((2 * LIMIT_BATCH_RECORDS + 1) * sizeof *batch->iov),
        .checks = malloc(LIMIT_BATCH_RECORDS * sizeof *batch->checks),
    };
    return batch->arena && batch->pieces && batch->iov && batch->checks ? 0 : ERR_NO_MEMORY;
}

void log_batch_release(struct log_batch *batch)
{
    free(batch->arena);
    free(batch->pieces);
    free(batch->iov);
    free(batch->checks);
    *batch = (struct log_batch){0};
}

/* Room for LEN more bytes in the arena. */
static int reserve(struct log_batch *batch, size_t len)
{
    size_t cap = batch->cap;

    while (cap - batch->used < len)
        cap *= 2;
    if (cap == batch->cap)
        return 0;
    uint8_t *grown = realloc(batch->arena, cap);
    if (!grown)
        return ERR_NO_MEMORY;
    batch->arena = grown;
    batch->cap = cap;
    return 0;
}

/* ---- Durability ---- */

static void poison(struct log *log, const char *what, uint32_t volume, int rc)
{
    log_error("log: %s of segment %08x failed: %s; no writes until a restart", what, volume,
              err_text(rc));
    atomic_store(&log->poisoned, true);
}

static void raise(_Atomic lsn_t *position, lsn_t to)
{
    if (atomic_load(position) < to)
        atomic_store(position, to);
}

/*
 * Sync SEGMENT; on success all below END is durable. The system tells a failed write-back once per
 * descriptor, so two threads that sync one must not do it side by side: the second would be told
 * that all is well, and acknowledge what was lost.
 */
static int sync_segment(struct log *log, struct segment *segment, lsn_t end)
{
    pthread_mutex_lock(&log->sync_mutex);
    int rc = atomic_load(&log->poisoned) ? ERR_READ_ONLY : 0;
    if (!rc) {
        rc = log->io->fdatasync(log->io, segment->fd);
        if (rc)
            poison(log, "sync", segment->volume, rc);
        else
            raise(&log->durable, end);
    }
    pthread_mutex_unlock(&log->sync_mutex);
    return rc;
}

int log_sync(struct log *log)
{
    lsn_t end = atomic_load(&log->end);

    if (atomic_load(&log->poisoned))
        return ERR_READ_ONLY;
    if (log->sync && atomic_load(&log->durable) < end) {
        assert(log->active);
        int rc = sync_segment(log, log->active, end);
        if (rc)
            return rc;
    }
    atomic_store(&log->synced, end);
    return 0;
}

int log_flush(struct log *log)
{
    pthread_mutex_lock(&log->mutex);
    /* All that is not durable lies in the active segment: leaving one syncs it. */
    struct segment *segment = log->active;
    if (segment)
        log_hold(log, segment);
    lsn_t end = atomic_load(&log->end);
    pthread_mutex_unlock(&log->mutex);
    int rc = atomic_load(&log->poisoned) ? ERR_READ_ONLY : 0;
    if (!rc && segment && atomic_load(&log->durable) < end)
        rc = sync_segment(log, segment, end);
    if (segment)
        log_give(log, segment);
    return rc;
}

/* ---- Segments ---- */

int log_create_next(struct log *log)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct segment_header header = {
        .store = log->store, .volume = log->next_volume, .base = log->next_base};
    struct segment *segment = NULL;
    char *path = NULL;
    int rc = ERR_NO_MEMORY;

    assert(!log->next);
    if (header.volume == PLACE_LARGE || header.base >= LSN_LIMIT - log->limit_bytes)
        return ERR_FULL;
    path = log_path(log, header.volume);
    segment = segment_new(header.volume, header.base);
    if (!path || !segment)
        goto out;
    log->env->random(log->env, &header.salt, sizeof header.salt);
    segment_header_encode(bytes, &header);
    /* Whole or not there at all: a segment with a torn header never bears its name. */
    rc = io_replace(log->io, path, bytes, sizeof bytes);
    if (rc)
        goto out;
    segment->fd = io_open(log->io, path, IO_WRITE);
    if (segment->fd < 0) {
        rc = segment->fd;
        goto out;
    }
    segment->salt = header.salt;
    segment->header_known = true;
    pthread_mutex_lock(&log->mutex);
    log->next = segment;
    log->next_volume++;
    log->next_base = header.base + log->limit_bytes;
    pthread_mutex_unlock(&log->mutex);
    segment = NULL;
out:
    segment_free(log, &segment);
    free(path);
    return rc;
}

/* The active segment gets no more batches. */
static void seal_active(struct log *log)
{
    struct segment *segment = log->active;

    pthread_mutex_lock(&log->mutex);
    segment->sealed = true;
    segment->exact = true;
    if (segment->filled > segment->end + MIB)
        log->trim_volume = segment->volume;
    log->active = NULL;
    pthread_mutex_unlock(&log->mutex);
    log_give(log, segment);
}

/* Make the prepared segment the active one. */
static int switch_segment(struct log *log)
{
    lsn_t end = atomic_load(&log->end);

    if (log->active && atomic_load(&log->durable) < end) {
        int rc = sync_segment(log, log->active, end);
        if (rc)
            return rc;
    }
    /* If the janitor is making the next one right now, wait for that: a second one would come
     * before it in the log and after it in number. */
    pthread_mutex_lock(&log->create_mutex);
    int rc = log->next ? 0 : log_create_next(log);
    if (rc)
        goto out;
    if (log->active)
        seal_active(log);
    pthread_mutex_lock(&log->mutex);
    int idle = log_idle_file(log);
    rc = log_insert(log, log->next);
    if (!rc) {
        log->active = log->next;
        log->next = NULL;
        log_hold(log, log->active);
        log->previous = 0;
    }
    pthread_mutex_unlock(&log->mutex);
    (void)io_close(log->io, &idle); /* sealed: all in it was synced */
out:
    pthread_mutex_unlock(&log->create_mutex);
    return rc;
}

int log_rotate(struct log *log)
{
    assert(log->ready && (!log->batch.open || log->batch.records == 0));
    log->batch.open = false; /* begun for changes that came to nothing */
    if (atomic_load(&log->poisoned))
        return ERR_READ_ONLY;
    if (!log->active || log->active->end == SEGMENT_HEADER_BYTES)
        return 0;
    lsn_t end = atomic_load(&log->end);
    if (atomic_load(&log->durable) < end) {
        int rc = sync_segment(log, log->active, end);
        if (rc)
            return rc;
    }
    seal_active(log);
    return 0;
}

/* ---- Batches ---- */

/* Begin at the end of the active segment. */
static void start_batch(struct log *log)
{
    struct log_batch *batch = &log->batch;

    batch->offset = log->active->end;
    batch->length = BATCH_HEADER_BYTES;
    batch->used = BATCH_HEADER_BYTES;
    batch->records = 0;
    batch->piece_count = 0;
    assert(batch->offset % BATCH_ALIGN == 0);
}

/* Whether LENGTH bytes of a batch no longer fit into the active segment; an empty segment takes
 * whatever a batch can be. */
static bool is_full(const struct log *log, uint64_t length)
{
    return log->active->end > SEGMENT_HEADER_BYTES &&
           log->active->end + log_align(length, BATCH_ALIGN) > log->segment_bytes;
}

int log_begin(struct log *log, uint64_t hlc)
{
    assert(log->ready);
    log->batch.open = false;
    if (atomic_load(&log->poisoned))
        return ERR_READ_ONLY;
    if (!log->active || is_full(log, log->batch_bytes)) {
        int rc = switch_segment(log);
        if (rc)
            return rc;
    }
    start_batch(log);
    log->batch.hlc = hlc;
    log->batch.open = true;
    return 0;
}

/* Put the encoded record and, where it is small, its body into the arena. */
static void encode(struct log *log, const struct log_record *record, struct record_header *header)
{
    struct log_batch *batch = &log->batch;
    uint64_t whole = record_bytes(header);
    uint64_t body = log_align(header->body_bytes, 8);
    bool copied = header->body_bytes <= LOG_COPY_BYTES;
    lsn_t lsn = log->active->base + batch->offset + batch->length;

    record_encode(batch->arena + batch->used, header, log->active->salt, lsn, record->sums,
                  record->event);
    batch->used += whole - body;
    if (copied && header->body_bytes > 0) {
        memcpy(batch->arena + batch->used, record->body, header->body_bytes);
        batch->used += header->body_bytes;
    } else if (!copied) {
        batch->pieces[batch->piece_count++] =
            (struct log_piece){.at = batch->used, .data = record->body, .len = header->body_bytes};
    }
    memset(batch->arena + batch->used, 0, body - header->body_bytes);
    batch->used += body - header->body_bytes;
    batch->checks[batch->records++] = header->check;
    batch->length += whole;
}

int log_add(struct log *log, const struct log_record *record, struct place *place)
{
    struct log_batch *batch = &log->batch;
    bool large = record->flags & RECORD_LARGE;
    struct record_header header = {
        .type = record->type,
        .flags = record->flags,
        .event_bytes = record->event_bytes,
        .body_bytes = record->flags & RECORD_HAS_BODY ? record->body_bytes : 0,
        .id = record->id,
        .file = large ? record->file : 0,
        .trailer = large ? record->trailer : 0,
        .from = record->from,
    };

    assert(batch->open);
    assert(!large || !(record->flags & RECORD_HAS_BODY));
    if (header.event_bytes > LIMIT_EVENT_BYTES || header.body_bytes > LIMIT_INLINE_BODY_BYTES)
        return ERR_TOO_BIG;
    header.blocks = (uint16_t)block_count(header.body_bytes);
    header.size = large ? record->size : record->body_bytes;

    uint64_t whole = record_bytes(&header);
    if (batch->records > 0 &&
        (batch->records == LIMIT_BATCH_RECORDS || batch->length + whole > log->batch_bytes))
        return ERR_FULL;
    /* A single record may be larger than a batch of a small segment, and need a fresh one. */
    if (batch->records == 0 && is_full(log, batch->length + whole)) {
        int rc = switch_segment(log);
        if (rc) /* out of file descriptors, say: an empty batch is not full */
            return rc == ERR_FULL ? ERR_NO_MEMORY : rc;
        start_batch(log);
    }
    uint64_t copied = header.body_bytes <= LOG_COPY_BYTES ? whole : whole - header.body_bytes;
    int rc = reserve(batch, copied + BATCH_ALIGN);
    if (rc)
        return rc;
    *place = (struct place){
        .disk = log->active->disk,
        .volume = log->active->volume,
        .offset = batch->offset + batch->length,
        .lsn = log->active->base + batch->offset + batch->length,
    };
    encode(log, record, &header);
    return 0;
}

/* Lay out header, records and padding; the count of pieces in batch->iov. */
static int gather(struct log_batch *batch)
{
    int count = 0;
    size_t done = 0;

    for (uint32_t i = 0; i < batch->piece_count; i++) {
        const struct log_piece *piece = &batch->pieces[i];

        batch->iov[count++] = (struct iovec){batch->arena + done, piece->at - done};
        batch->iov[count++] = (struct iovec){(void *)(uintptr_t)piece->data, piece->len};
        done = piece->at;
    }
    batch->iov[count++] = (struct iovec){batch->arena + done, batch->used - done};
    return count;
}

/* A write of the active segment from offset START on failed with RC: undo it, durably. */
static void undo_write(struct log *log, uint64_t start, int rc)
{
    struct segment *segment = log->active;

    log_error("log: a write to segment %08x failed: %s", segment->volume, err_text(rc));
    pthread_mutex_lock(&log->mutex);
    segment->sealed = true; /* no more zeros */
    pthread_mutex_unlock(&log->mutex);
    log_fill_yield(log, segment, start, UINT64_MAX);

    pthread_mutex_lock(&log->sync_mutex);
    int cut = log->io->truncate(log->io, segment->fd, start);
    if (!cut)
        cut = log->io->fsync(log->io, segment->fd);
    if (cut)
        poison(log, "undoing the write", segment->volume, cut);
    else
        raise(&log->durable, atomic_load(&log->end)); /* it covered the earlier batches as well */
    pthread_mutex_unlock(&log->sync_mutex);
    if (cut || atomic_load(&log->poisoned))
        return;
    pthread_mutex_lock(&log->mutex);
    segment->filled = start;
    /* On a full disk every try would leave an empty segment behind; use this one again. */
    bool again = rc == ERR_NO_SPACE && start == SEGMENT_HEADER_BYTES;
    segment->sealed = !again;
    pthread_mutex_unlock(&log->mutex);
    if (!again)
        seal_active(log);
}

int log_write(struct log *log)
{
    struct log_batch *batch = &log->batch;
    struct segment *segment = log->active;

    assert(batch->open && segment && batch->offset == segment->end);
    batch->open = false;
    uint64_t end = batch->offset + log_align(batch->length, BATCH_ALIGN);
    uint64_t padding = end - batch->offset - batch->length;
    int rc = reserve(batch, BATCH_ALIGN);
    if (rc)
        return rc;
    memset(batch->arena + batch->used, 0, padding);
    batch->used += padding;

    struct batch_header header = {
        .records = batch->records,
        .lsn = segment->base + batch->offset,
        .length_bytes = batch->length,
        .previous = log->previous,
        .synced_through = atomic_load(&log->durable),
        .hlc = batch->hlc,
    };
    assert(end <= log->limit_bytes);
    batch_header_encode(batch->arena, &header, segment->salt, batch->checks);
    log_fill_yield(log, segment, batch->offset, end);
    rc = io_writev(log->io, segment->fd, batch->iov, gather(batch), batch->offset);
    if (rc) {
        undo_write(log, batch->offset, rc);
    } else {
        log->previous = header.checksum;
        pthread_mutex_lock(&log->mutex);
        segment->end = end;
        log->batch_mean = (7 * log->batch_mean + (end - batch->offset)) / 8;
        atomic_store(&log->end, segment->base + end);
        pthread_mutex_unlock(&log->mutex);
    }
    if (batch->cap > ARENA_KEPT) {
        uint8_t *small = realloc(batch->arena, ARENA_FIRST);
        if (small) {
            batch->arena = small;
            batch->cap = ARENA_FIRST;
        }
    }
    return rc;
}
