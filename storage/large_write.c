/*
 * Writing a large body: storage/large.h draws the file, docs/JOURNAL.md as well.
 *
 * Happy path: create (header) -> write … (body; checksums gather in memory) -> finish (trailer,
 * file and tmp/ synced); what commits it is the log's record.
 *
 * Memory: a writer holds at most SUMS_KEPT checksums (of 512 MiB of body); beyond that they go
 * to a side file, NUMBER.sums in tmp/, until the trailer is written. Its block buffer exists only
 * if the body comes in pieces that do not end where blocks do.
 *
 * Failure: the first failed write or sync ends the writer, whose file goes when it is destroyed;
 * nothing is retried, for after a failed sync nobody knows what the disk has.
 */
#include "storage/large_internal.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SYNC_STEP  MIB
#define SUMS_FIRST 32
#define SUMS_KEPT  8192

struct large_writer {
    struct large_store *store;
    uint64_t number, size;
    uint64_t flushed; /* file offset up to which writeback was begun */
    uint8_t *block;   /* the last, unfinished block; NULL while none was needed */
    size_t block_bytes;
    uint8_t *sums; /* as they stand in the trailer */
    size_t sums_count, sums_room;
    uint64_t sums_spilled; /* how many went to the side file before those */
    int fd, side_fd;
    int rc; /* the first failure */
    bool created, finished;
};

int large_create(struct large_writer **out, struct large_store *store)
{
    uint8_t header[HEADER_BYTES];
    struct io *io = store->env->io;

    *out = NULL;
    uint64_t counter = atomic_fetch_add(&store->counter, 1) + 1;
    if (counter >> COUNTER_BITS != 0)
        return ERR_RANGE;
    struct large_writer *writer = malloc(sizeof *writer);
    if (!writer)
        return ERR_NO_MEMORY;
    *writer = (struct large_writer){
        .store = store,
        .number = store->generation << COUNTER_BITS | counter,
        .fd = -1,
        .side_fd = -1,
    };
    char *path = large_tmp_path(store, writer->number, "");
    int rc = ERR_NO_MEMORY;
    if (!path)
        goto out;
    rc = io_open(io, path, IO_WRITE | IO_CREATE | IO_EXCLUSIVE);
    if (rc < 0)
        goto out;
    writer->fd = rc;
    writer->created = true;
    large_encode_header(header, &store->store, writer->number);
    rc = io_write(io, writer->fd, header, sizeof header, 0);
out:
    free(path);
    if (rc)
        large_writer_destroy(&writer, true);
    *out = writer;
    return rc;
}

/* Move the checksums in memory to the end of the side file. */
static int spill(struct large_writer *writer)
{
    struct io *io = writer->store->env->io;

    if (writer->side_fd < 0) {
        char *path = large_tmp_path(writer->store, writer->number, ".sums");

        if (!path)
            return ERR_NO_MEMORY;
        int fd = io_open(io, path, IO_WRITE | IO_CREATE | IO_EXCLUSIVE);
        free(path);
        if (fd < 0)
            return fd;
        writer->side_fd = fd;
    }
    int rc = io_write(io, writer->side_fd, writer->sums, SUM_BYTES * writer->sums_count,
                      SUM_BYTES * writer->sums_spilled);
    if (rc)
        return rc;
    writer->sums_spilled += writer->sums_count;
    writer->sums_count = 0;
    return 0;
}

/* Take the checksum of the next block, which DATA holds whole. */
static int add_block(struct large_writer *writer, const void *data, size_t len)
{
    assert(len > 0 && len <= BLOCK_BYTES);
    if (writer->sums_count == SUMS_KEPT) {
        int rc = spill(writer);
        if (rc)
            return rc;
    }
    if (writer->sums_count == writer->sums_room) {
        size_t room = writer->sums_room ? 2 * writer->sums_room : SUMS_FIRST;
        uint8_t *sums = realloc(writer->sums, SUM_BYTES * room);

        if (!sums)
            return ERR_NO_MEMORY;
        writer->sums = sums;
        writer->sums_room = room;
    }
    uint64_t index = writer->sums_spilled + writer->sums_count;
    put_u64(writer->sums + SUM_BYTES * writer->sums_count, block_checksum(data, len, index));
    writer->sums_count++;
    return 0;
}

/* Cut DATA into blocks, completing the one begun before. */
static int add_data(struct large_writer *writer, const uint8_t *data, size_t len)
{
    int rc = ERR_NONE;

    while (len > 0 && !rc) {
        size_t step = len;

        if (writer->block_bytes == 0 && len >= BLOCK_BYTES) {
            step = BLOCK_BYTES;
            rc = add_block(writer, data, step);
        } else {
            if (!writer->block && !(writer->block = malloc(BLOCK_BYTES)))
                return ERR_NO_MEMORY;
            if (step > BLOCK_BYTES - writer->block_bytes)
                step = BLOCK_BYTES - writer->block_bytes;
            memcpy(writer->block + writer->block_bytes, data, step);
            writer->block_bytes += step;
            if (writer->block_bytes == BLOCK_BYTES) {
                rc = add_block(writer, writer->block, BLOCK_BYTES);
                writer->block_bytes = 0;
            }
        }
        data += step;
        len -= step;
    }
    return rc;
}

int large_write(struct large_writer *writer, const void *data, size_t len)
{
    struct io *io = writer->store->env->io;

    assert(!writer->finished);
    if (writer->rc || len == 0)
        return writer->rc;
    if (len > LIMIT_SIZE - writer->size)
        return ERR_TOO_BIG;
    int rc = io_write(io, writer->fd, data, len, large_body_end(writer->size));
    if (rc)
        goto out;
    rc = add_data(writer, data, len);
    if (rc)
        goto out;
    writer->size += len;
out:
    writer->rc = rc;
    return rc;
}

uint64_t large_size(const struct large_writer *writer)
{
    return writer->size;
}

bool large_due(const struct large_writer *writer)
{
    return large_body_end(writer->size) - writer->flushed >= SYNC_STEP;
}

struct large_span large_take_due(struct large_writer *writer)
{
    uint64_t end = large_body_end(writer->size);
    const struct large_span span = {.offset = writer->flushed, .len = end - writer->flushed};

    writer->flushed = end;
    return span;
}

uint64_t large_span_end(struct large_span span)
{
    return span.offset + span.len - HEADER_BYTES;
}

int large_read_back(const struct large_writer *writer, void *buf, size_t len, uint64_t offset)
{
    return io_read(writer->store->env->io, writer->fd, buf, len, large_body_end(offset), false);
}

int large_hand_over(const struct large_writer *writer, struct large_span span, bool wait)
{
    struct io *io = writer->store->env->io;

    return io->sync_range(io, writer->fd, span.offset, span.len, wait);
}

int large_write_back(struct large_writer *writer)
{
    int rc = large_hand_over(writer, large_take_due(writer), true);

    if (rc)
        writer->rc = rc;
    return rc;
}

/* Append LEN bytes at *AT and to the trailer's checksum. */
static int put_trailer(struct large_writer *writer, struct xxh_stream *hash, const void *data,
                       size_t len, uint64_t *at)
{
    int rc = io_write(writer->store->env->io, writer->fd, data, len, *at);

    xxh_add(hash, data, len);
    *at += len;
    return rc;
}

/* Write all that follows the body; *TRAILER is its checksum. */
static int write_trailer(struct large_writer *writer, uint64_t *trailer)
{
    static const uint8_t zeros[8];
    struct io *io = writer->store->env->io;
    uint8_t *copy = NULL, frame[FRAME_BYTES];
    struct xxh_stream hash;
    uint64_t at = large_body_end(writer->size);

    int rc = xxh_begin(&hash, writer->number);
    if (rc)
        return rc;
    rc = put_trailer(writer, &hash, zeros, large_sums_offset(writer->size) - at, &at);
    if (!rc && writer->sums_spilled > 0 && !(copy = malloc(SUMS_KEPT * SUM_BYTES)))
        rc = ERR_NO_MEMORY;
    /* Whole buffers were spilled, so whole ones come back. */
    assert(writer->sums_spilled % SUMS_KEPT == 0);
    for (uint64_t i = 0; i < writer->sums_spilled && !rc; i += SUMS_KEPT) {
        rc = io_read(io, writer->side_fd, copy, SUMS_KEPT * SUM_BYTES, SUM_BYTES * i, false);
        if (!rc)
            rc = put_trailer(writer, &hash, copy, SUMS_KEPT * SUM_BYTES, &at);
    }
    free(copy);
    if (!rc)
        rc = put_trailer(writer, &hash, writer->sums, SUM_BYTES * writer->sums_count, &at);
    large_encode_frame(frame, writer->size);
    assert(rc || at == large_frame_offset(writer->size));
    if (!rc)
        rc = put_trailer(writer, &hash, frame, sizeof frame, &at);
    *trailer = xxh_end(&hash);
    return rc;
}

static void remove_side(struct large_writer *writer)
{
    if (writer->side_fd < 0)
        return;
    /* Never synced, never needed again; what stays behind after an error goes at the next start. */
    (void)io_close(writer->store->env->io, &writer->side_fd);
    char *path = large_tmp_path(writer->store, writer->number, ".sums");
    if (path)
        (void)writer->store->env->io->unlink(writer->store->env->io, path);
    free(path);
}

int large_finish(struct large_writer *writer, uint64_t *number, uint64_t *size, uint64_t *trailer)
{
    struct large_store *store = writer->store;
    struct io *io = store->env->io;
    int rc = writer->rc;

    assert(!writer->finished);
    if (!rc && writer->block_bytes > 0)
        rc = add_block(writer, writer->block, writer->block_bytes);
    writer->block_bytes = 0;
    if (!rc)
        rc = write_trailer(writer, trailer);
    if (!rc && store->sync)
        rc = io->fdatasync(io, writer->fd);
    if (!rc)
        rc = io_close(io, &writer->fd);
    if (!rc && store->sync)
        rc = io->sync_dir(io, store->tmp_dir);
    remove_side(writer);
    writer->rc = rc;
    if (rc)
        return rc;
    writer->finished = true;
    *number = writer->number;
    *size = writer->size;
    return 0;
}

void large_writer_destroy(struct large_writer **writer_at, bool discard)
{
    struct large_writer *writer = *writer_at;

    if (!writer)
        return;
    /* Closed after a sync, or about to be removed: either way its result says nothing. */
    (void)io_close(writer->store->env->io, &writer->fd);
    remove_side(writer);
    if (writer->created && (discard || !writer->finished)) {
        int rc = large_remove(writer->store, writer->number);
        if (rc)
            log_warn("large file %016" PRIx64 ": cannot remove it: %s", writer->number,
                     err_text(rc));
    }
    free(writer->block);
    free(writer->sums);
    free(writer);
    *writer_at = NULL;
}
