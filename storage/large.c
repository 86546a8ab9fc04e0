/*
 * Large bodies as files of their own: storage/large.h draws one, docs/JOURNAL.md as well.
 *
 * Happy path: create (header) -> write … (body; checksums gather in memory) -> finish (trailer,
 * file and tmp/ synced) -> the log's record commits it -> settle (renamed, both directories
 * synced). A reader opens either name, checks header, size and frame, and then verifies each block
 * that it reads against the trailer, of which it holds one 4 KiB page.
 *
 * Memory: a writer holds at most SUMS_KEPT checksums (of 512 MiB of body); beyond that they go to a
 * side file, NUMBER.sums in tmp/, until the trailer is written. Its block buffer exists only if the
 * body comes in pieces that do not end where blocks do.
 *
 * Failure: the first failed write or sync ends the writer, whose file goes when it is destroyed;
 * nothing is retried, for after a failed sync nobody knows what the disk has. After a crash,
 * large_clean_tmp removes what no record names.
 *
 * The trailer's checksum covers all that follows the body, padding included, and is seeded with the
 * file's number.
 */
#include "storage/large.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_BYTES 4096
#define FRAME_BYTES  24
#define FILE_MAGIC   UINT64_C(0x656772616c6a626f) /* "objlarge" */
#define FRAME_MAGIC  UINT64_C(0x72656c696172746f) /* "otrailer" */
#define COUNTER_BITS 40
#define DIRECTORIES  256
#define SYNC_STEP    MIB
#define SUM_BYTES    8
#define SUMS_FIRST   32
#define SUMS_KEPT    8192
#define SUMS_PAGE    512
#define CLEAN_STEP   256
#define LIMIT_SIZE   (UINT64_C(1) << 62)

struct large_store {
    struct env *env;
    char *tmp_dir, *large_dir;
    struct id128 store;
    uint64_t generation;
    _Atomic uint64_t counter;
    bool sync;
};

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

struct large_reader {
    struct io *io;
    int fd;
    uint64_t number, size;
    uint64_t page; /* which page of checksums SUMS holds; UINT64_MAX: none */
    uint8_t sums[SUMS_PAGE * SUM_BYTES];
};

/* ---- Names ---- */

/* Fresh strings, or NULL. */
static char *tmp_path(const struct large_store *store, uint64_t number, const char *suffix)
{
    char *path;

    return asprintf(&path, "%s/%016" PRIx64 "%s", store->tmp_dir, number, suffix) < 0 ? NULL : path;
}

static char *final_dir(const struct large_store *store, unsigned index)
{
    char *path;

    return asprintf(&path, "%s/%02x", store->large_dir, index) < 0 ? NULL : path;
}

static unsigned directory_of(uint64_t number)
{
    return number % DIRECTORIES;
}

void large_name(char out[LARGE_NAME_BYTES], uint64_t number)
{
    int len =
        snprintf(out, LARGE_NAME_BYTES, "large/%02x/%016" PRIx64, directory_of(number), number);

    assert(len > 0 && len < LARGE_NAME_BYTES);
}

static char *final_path(const struct large_store *store, uint64_t number)
{
    char *path;

    return asprintf(&path, "%s/%02x/%016" PRIx64, store->large_dir, directory_of(number), number) <
                   0
               ? NULL
               : path;
}

static int unlink_if_there(struct io *io, const char *path)
{
    int rc = io->unlink(io, path);

    return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* ---- The store ---- */

static int make_directories(struct large_store *store, const char *files_dir)
{
    struct io *io = store->env->io;
    int rc = io_mkdirs(io, store->tmp_dir);

    if (!rc)
        rc = io_mkdirs(io, store->large_dir);
    for (unsigned i = 0; i < DIRECTORIES && !rc; i++) {
        char *dir = final_dir(store, i);

        if (!dir)
            return ERR_NO_MEMORY;
        rc = io->mkdir(io, dir);
        free(dir);
        if (rc == ERR_EXISTS)
            rc = 0;
    }
    /* Also what an earlier start may have made and not synced. */
    if (!rc && store->sync)
        rc = io->sync_dir(io, store->large_dir);
    if (!rc && store->sync)
        rc = io->sync_dir(io, files_dir);
    return rc;
}

int large_open(struct large_store **out, struct env *env, const char *files_dir,
               const struct id128 *store_id, uint64_t generation, bool sync)
{
    *out = NULL;
    if (generation >> (64 - COUNTER_BITS) != 0)
        return ERR_RANGE;
    struct large_store *store = malloc(sizeof *store);
    if (!store)
        return ERR_NO_MEMORY;
    *store = (struct large_store){
        .env = env,
        .tmp_dir = io_join(files_dir, "tmp"),
        .large_dir = io_join(files_dir, "large"),
        .store = *store_id,
        .generation = generation,
        .sync = sync,
    };
    int rc =
        store->tmp_dir && store->large_dir ? make_directories(store, files_dir) : ERR_NO_MEMORY;
    if (rc)
        large_close(&store);
    *out = store;
    return rc;
}

void large_close(struct large_store **store)
{
    if (!*store)
        return;
    free((*store)->tmp_dir);
    free((*store)->large_dir);
    free(*store);
    *store = NULL;
}

/* ---- The file's ends ---- */

/* magic 8 | version 4 | compat 4 | ro_compat 4 | incompat 4 | store 16 | number 8 | zeros |
 * checksum of all before 8 */
static void encode_header(uint8_t out[HEADER_BYTES], const struct id128 *store, uint64_t number)
{
    memset(out, 0, HEADER_BYTES);
    put_u64(out, FILE_MAGIC);
    put_u32(out + 8, FORMAT_VERSION);
    memcpy(out + 24, store->bytes, sizeof store->bytes);
    put_u64(out + 40, number);
    put_u64(out + HEADER_BYTES - 8, xxh64(out, HEADER_BYTES - 8, 0));
}

static int check_header(const uint8_t in[HEADER_BYTES], const struct id128 *store, uint64_t number)
{
    if (get_u64(in) != FILE_MAGIC ||
        get_u64(in + HEADER_BYTES - 8) != xxh64(in, HEADER_BYTES - 8, 0))
        return ERR_CORRUPT;
    if (get_u32(in + 8) != FORMAT_VERSION || get_u32(in + 20) != 0)
        return ERR_FORMAT;
    bool ours = memcmp(in + 24, store->bytes, sizeof store->bytes) == 0;
    return ours && get_u64(in + 40) == number ? 0 : ERR_CORRUPT;
}

static uint64_t body_end(uint64_t size)
{
    return HEADER_BYTES + size;
}

static uint64_t sums_offset(uint64_t size)
{
    return (body_end(size) + 7) & ~UINT64_C(7);
}

static uint64_t frame_offset(uint64_t size)
{
    return sums_offset(size) + SUM_BYTES * block_count(size);
}

static void encode_frame(uint8_t out[FRAME_BYTES], uint64_t size)
{
    put_u64(out, size);
    put_u64(out + 8, block_count(size));
    put_u64(out + 16, FRAME_MAGIC);
}

/* ---- Writing ---- */

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
    char *path = tmp_path(store, writer->number, "");
    int rc = ERR_NO_MEMORY;
    if (!path)
        goto out;
    rc = io_open(io, path, IO_WRITE | IO_CREATE | IO_EXCLUSIVE);
    if (rc < 0)
        goto out;
    writer->fd = rc;
    writer->created = true;
    encode_header(header, &store->store, writer->number);
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
        char *path = tmp_path(writer->store, writer->number, ".sums");

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
    int rc = io_write(io, writer->fd, data, len, body_end(writer->size));
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
    return body_end(writer->size) - writer->flushed >= SYNC_STEP;
}

struct large_span large_take_due(struct large_writer *writer)
{
    uint64_t end = body_end(writer->size);
    const struct large_span span = {.offset = writer->flushed, .len = end - writer->flushed};

    writer->flushed = end;
    return span;
}

int large_hand_over(const struct large_writer *writer, struct large_span span)
{
    struct io *io = writer->store->env->io;

    return io->sync_range(io, writer->fd, span.offset, span.len);
}

int large_write_back(struct large_writer *writer)
{
    int rc = large_hand_over(writer, large_take_due(writer));

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
    uint64_t at = body_end(writer->size);

    int rc = xxh_begin(&hash, writer->number);
    if (rc)
        return rc;
    rc = put_trailer(writer, &hash, zeros, sums_offset(writer->size) - at, &at);
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
    encode_frame(frame, writer->size);
    assert(rc || at == frame_offset(writer->size));
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
    char *path = tmp_path(writer->store, writer->number, ".sums");
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

/* ---- The applier and recovery ---- */

/* Rename one file; mark its directory in TOUCHED. */
static int settle_one(struct large_store *store, uint64_t number, bool touched[DIRECTORIES])
{
    struct io *io = store->env->io;
    struct io_stat stat;
    char *from = tmp_path(store, number, ""), *to = final_path(store, number);
    int rc = ERR_NO_MEMORY;

    if (!from || !to)
        goto out;
    rc = io->rename(io, from, to);
    if (rc == ERR_NOT_FOUND)
        rc = io->stat(io, to, &stat);
    /* A file that was there already may have been renamed just before a crash, unsynced. */
    if (!rc)
        touched[directory_of(number)] = true;
out:
    free(from);
    free(to);
    return rc;
}

/* The new names first: a crash between leaves a file under both names, never under none. */
static int sync_directories(struct large_store *store, const bool touched[DIRECTORIES])
{
    struct io *io = store->env->io;
    bool any = false;
    int first = ERR_NONE;

    for (unsigned i = 0; i < DIRECTORIES; i++) {
        if (!touched[i])
            continue;
        any = true;
        char *dir = final_dir(store, i);
        int rc = dir ? io->sync_dir(io, dir) : ERR_NO_MEMORY;

        free(dir);
        if (rc && !first)
            first = rc;
    }
    if (any && !first)
        first = io->sync_dir(io, store->tmp_dir);
    return first;
}

int large_settle(struct large_store *store, const uint64_t *numbers, size_t count)
{
    bool touched[DIRECTORIES] = {false};
    int missing = ERR_NONE, failed = ERR_NONE;

    for (size_t i = 0; i < count; i++) {
        int rc = settle_one(store, numbers[i], touched);

        if (rc == ERR_NOT_FOUND)
            missing = rc;
        else if (rc && !failed)
            failed = rc;
    }
    if (store->sync) {
        int rc = sync_directories(store, touched);

        if (rc && !failed)
            failed = rc;
    }
    return failed ? failed : missing;
}

int large_sync_removed(struct large_store *store, const uint64_t *numbers, size_t count)
{
    bool touched[DIRECTORIES] = {false};

    for (size_t i = 0; i < count; i++)
        touched[directory_of(numbers[i])] = true;
    return store->sync ? sync_directories(store, touched) : 0;
}

int large_remove(struct large_store *store, uint64_t number)
{
    struct io *io = store->env->io;
    char *first = tmp_path(store, number, ""), *last = final_path(store, number);
    int rc = ERR_NO_MEMORY;

    if (first && last) {
        /* In the order in which a file is renamed, so it cannot slip through between. */
        rc = unlink_if_there(io, first);
        int other = unlink_if_there(io, last);
        if (!rc)
            rc = other;
    }
    free(first);
    free(last);
    return rc;
}

struct names {
    char *names[CLEAN_STEP];
    size_t count;
    int rc;
};

static int collect_name(void *arg, const char *name)
{
    struct names *names = arg;

    if (names->count == CLEAN_STEP)
        return 1;
    names->names[names->count] = strdup(name);
    if (!names->names[names->count])
        return ERR_NO_MEMORY;
    names->count++;
    return 0;
}

int large_clean_tmp(struct large_store *store)
{
    struct io *io = store->env->io;
    int failed = ERR_NONE, more;
    size_t removed;

    /* A bounded number of names at a time, and none removed while the directory is being read. */
    do {
        struct names names = {.count = 0};

        removed = 0;
        more = io->list(io, store->tmp_dir, collect_name, &names);
        for (size_t i = 0; i < names.count; i++) {
            char *path = io_join(store->tmp_dir, names.names[i]);
            int rc = path ? io->unlink(io, path) : ERR_NO_MEMORY;

            if (rc && !failed)
                failed = rc;
            removed += rc == 0;
            free(path);
            free(names.names[i]);
        }
    } while (more > 0 && removed > 0);
    return more < 0 ? more : failed;
}

/* ---- Reading ---- */

/* Open NUMBER under whichever name it has now. */
static int open_either(struct large_store *store, uint64_t number)
{
    struct io *io = store->env->io;
    char *final = final_path(store, number), *tmp = tmp_path(store, number, "");
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
    if (stat.size_bytes != frame_offset(reader->size) + FRAME_BYTES)
        return ERR_CORRUPT;
    rc = io_read(io, reader->fd, header, sizeof header, 0, false);
    if (!rc)
        rc = check_header(header, &store->store, reader->number);
    if (!rc)
        rc = io_read(io, reader->fd, frame, sizeof frame, frame_offset(reader->size), false);
    if (rc)
        return rc;
    encode_frame(expected, reader->size);
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
                     sums_offset(reader->size) + SUM_BYTES * first, nowait);
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
        rc = io_read(reader->io, reader->fd, buf, bytes, body_end(start), nowait);
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
    uint64_t at = body_end(reader->size), end = frame_offset(reader->size) + FRAME_BYTES;
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
