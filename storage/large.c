/*
 * Large bodies as files of their own: storage/large.h draws one, docs/JOURNAL.md as well. Here:
 * their names, their ends, and what the applier and recovery do with whole files. large_write.c
 * makes them, large_read.c reads them.
 *
 * Happy path: a writer has made tmp/NUMBER -> the log's record commits it -> settle (renamed, both
 * directories synced) -> remove, once nothing needs it.
 *
 * Failure: after a crash between, a file has one name or both, never none; settling it again is
 * harmless. What no record names is in tmp/ and goes with large_clean_tmp.
 *
 * The trailer's checksum covers all that follows the body, padding included, and is seeded with the
 * file's number.
 */
#include "storage/large_internal.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/io.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAGIC  UINT64_C(0x656772616c6a626f) /* "objlarge" */
#define FRAME_MAGIC UINT64_C(0x72656c696172746f) /* "otrailer" */
#define DIRECTORIES 256
#define CLEAN_STEP  256

/* ---- Names ---- */

char *large_tmp_path(const struct large_store *store, uint64_t number, const char *suffix)
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

char *large_final_path(const struct large_store *store, uint64_t number)
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

void large_encode_header(uint8_t out[HEADER_BYTES], const struct id128 *store, uint64_t number)
{
    memset(out, 0, HEADER_BYTES);
    put_u64(out, FILE_MAGIC);
    put_u32(out + 8, FORMAT_VERSION);
    memcpy(out + 24, store->bytes, sizeof store->bytes);
    put_u64(out + 40, number);
    put_u64(out + HEADER_BYTES - 8, xxh64(out, HEADER_BYTES - 8, 0));
}

int large_check_header(const uint8_t in[HEADER_BYTES], const struct id128 *store, uint64_t number)
{
    if (get_u64(in) != FILE_MAGIC ||
        get_u64(in + HEADER_BYTES - 8) != xxh64(in, HEADER_BYTES - 8, 0))
        return ERR_CORRUPT;
    if (get_u32(in + 8) != FORMAT_VERSION || get_u32(in + 20) != 0)
        return ERR_FORMAT;
    bool ours = memcmp(in + 24, store->bytes, sizeof store->bytes) == 0;
    return ours && get_u64(in + 40) == number ? 0 : ERR_CORRUPT;
}

uint64_t large_body_end(uint64_t size)
{
    return HEADER_BYTES + size;
}

uint64_t large_sums_offset(uint64_t size)
{
    return (large_body_end(size) + 7) & ~UINT64_C(7);
}

uint64_t large_frame_offset(uint64_t size)
{
    return large_sums_offset(size) + SUM_BYTES * block_count(size);
}

void large_encode_frame(uint8_t out[FRAME_BYTES], uint64_t size)
{
    put_u64(out, size);
    put_u64(out + 8, block_count(size));
    put_u64(out + 16, FRAME_MAGIC);
}

/* ---- The applier and recovery ---- */

/* Rename one file; mark its directory in TOUCHED. */
static int settle_one(struct large_store *store, uint64_t number, bool touched[DIRECTORIES])
{
    struct io *io = store->env->io;
    struct io_stat stat;
    char *from = large_tmp_path(store, number, ""), *to = large_final_path(store, number);
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
    char *first = large_tmp_path(store, number, ""), *last = large_final_path(store, number);
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
