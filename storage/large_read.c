/*
 * Reading a large body: storage/large.h draws the file, docs/JOURNAL.md as well.
 *
 * Happy path: a reader opens whichever of its two names the file has by now, checks header, size
 * and frame, and then verifies each block that it reads against the trailer, of which it holds one
 * 4 KiB page. large_check reads all of it: recovery and the scrub ask for that.
 *
 * Failure: ERR_CORRUPT for whatever does not agree, before a byte of it is used; what the disk
 * refuses is passed on. Nothing is written.
 */
#include "storage/large_internal.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/io.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SUMS_PAGE 512

struct large_reader {
    struct io *io;
    int fd;
    uint64_t number, size;
    uint64_t page; /* which page of checksums SUMS holds; UINT64_MAX: none */
    uint8_t sums[SUMS_PAGE * SUM_BYTES];
};

/* Open NUMBER under whichever name it has now. */
static int open_either(struct large_store *store, uint64_t number)
{
    struct io *io = store->env->io;
    char *final = large_final_path(store, number), *tmp = large_tmp_path(store, number, "");
    int fd = ERR_NO_MEMORY;

    if (final && tmp) {
        fd = io_open(io, final, IO_READ);
        if (fd == ERR_NOT_FOUND)
            fd = io_open(io, tmp, IO_READ);
        /* Renamed between the two. */
        if (fd == ERR_NOT_FOUND)
            fd = io_open(io, final, IO_READ);
    }
    free(final);
    free(tmp);
    return fd;
}

static int check_ends(struct large_store *store, struct large_reader *reader)
{
    uint8_t header[HEADER_BYTES], frame[FRAME_BYTES], expected[FRAME_BYTES];
    struct io *io = reader->io;
    struct io_stat stat;

    int rc = io->stat_fd(io, reader->fd, &stat);
    if (rc)
        return rc;
    if (stat.size_bytes != large_frame_offset(reader->size) + FRAME_BYTES)
        return ERR_CORRUPT;
    rc = io_read(io, reader->fd, header, sizeof header, 0, false);
    if (!rc)
        rc = large_check_header(header, &store->store, reader->number);
    if (!rc)
        rc = io_read(io, reader->fd, frame, sizeof frame, large_frame_offset(reader->size), false);
    if (rc)
        return rc;
    large_encode_frame(expected, reader->size);
    return memcmp(frame, expected, sizeof frame) == 0 ? 0 : ERR_CORRUPT;
}

int large_reader_open(struct large_reader **out, struct large_store *store, uint64_t number,
                      uint64_t size)
{
    *out = NULL;
    if (size > LIMIT_SIZE)
        return ERR_CORRUPT;
    struct large_reader *reader = malloc(sizeof *reader);
    if (!reader)
        return ERR_NO_MEMORY;
    reader->io = store->env->io;
    reader->fd = -1;
    reader->number = number;
    reader->size = size;
    reader->page = UINT64_MAX;

    int rc = open_either(store, number);
    if (rc >= 0) {
        reader->fd = rc;
        rc = check_ends(store, reader);
    }
    if (rc)
        large_reader_close(&reader);
    *out = reader;
    return rc;
}

void large_reader_close(struct large_reader **reader)
{
    if (!*reader)
        return;
    (void)io_close((*reader)->io, &(*reader)->fd); /* only read from */
    free(*reader);
    *reader = NULL;
}

/* Make SUMS hold the page of checksums that block INDEX's is in. */
static int load_sums(struct large_reader *reader, uint64_t index, bool nowait)
{
    uint64_t page = index / SUMS_PAGE, first = page * SUMS_PAGE;
    uint64_t left = block_count(reader->size) - first;

    if (reader->page == page)
        return 0;
    reader->page = UINT64_MAX;
    int rc = io_read(reader->io, reader->fd, reader->sums,
                     SUM_BYTES * (left < SUMS_PAGE ? left : SUMS_PAGE),
                     large_sums_offset(reader->size) + SUM_BYTES * first, nowait);
    if (!rc)
        reader->page = page;
    return rc;
}

int large_read_block(struct large_reader *reader, uint64_t index, uint8_t *buf, size_t *len,
                     bool nowait)
{
    uint64_t start = index * BLOCK_BYTES;

    assert(index < block_count(reader->size));
    size_t bytes = reader->size - start < BLOCK_BYTES ? reader->size - start : BLOCK_BYTES;
    int rc = load_sums(reader, index, nowait);
    if (!rc)
        rc = io_read(reader->io, reader->fd, buf, bytes, large_body_end(start), nowait);
    if (rc)
        return rc;
    uint64_t sum = get_u64(reader->sums + SUM_BYTES * (index % SUMS_PAGE));
    if (sum != block_checksum(buf, bytes, index))
        return ERR_CORRUPT;
    *len = bytes;
    return 0;
}

static int check_trailer(struct large_reader *reader, uint64_t trailer, uint8_t *buf)
{
    uint64_t at = large_body_end(reader->size),
             end = large_frame_offset(reader->size) + FRAME_BYTES;
    struct xxh_stream hash;

    int rc = xxh_begin(&hash, reader->number);
    if (rc)
        return rc;
    while (at < end && !rc) {
        size_t step = end - at < BLOCK_BYTES ? end - at : BLOCK_BYTES;

        rc = io_read(reader->io, reader->fd, buf, step, at, false);
        if (!rc)
            xxh_add(&hash, buf, step);
        at += step;
    }
    uint64_t sum = xxh_end(&hash);
    if (rc)
        return rc;
    return sum == trailer ? 0 : ERR_CORRUPT;
}

int large_check(struct large_store *store, uint64_t number, uint64_t size, uint64_t trailer,
                bool body)
{
    struct large_reader *reader;
    uint8_t *buf = NULL;

    int rc = large_reader_open(&reader, store, number, size);
    if (rc)
        goto out;
    buf = malloc(BLOCK_BYTES);
    if (!buf) {
        rc = ERR_NO_MEMORY;
        goto out;
    }
    rc = check_trailer(reader, trailer, buf);
    for (uint64_t i = 0; body && i < block_count(size) && !rc; i++) {
        size_t len;

        rc = large_read_block(reader, i, buf, &len, false);
    }
out:
    free(buf);
    large_reader_close(&reader);
    return rc;
}
