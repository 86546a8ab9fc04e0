/*
 * A struct io for tests: the system's files, but the k-th write, sync or truncate fails, reads of a
 * range of a file fail, and everything is counted. Header-only. The counters are atomic, so that
 * threads can be looked at while they run; the knobs are set while nothing runs.
 */
#ifndef TESTS_FAULT_IO_H
#define TESTS_FAULT_IO_H

#include "base/io.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct fault_io {
    struct io io;
    struct io *real;
    /* The call of each kind that fails, counted from 1 from now on; 0: none. */
    _Atomic int fail_write, fail_sync, fail_truncate, fail_open;
    const char *only; /* of files with this in their path alone; NULL: of any */
    int error;        /* with this */
    bool write_first; /* a failing write puts all its bytes on the disk all the same */
    bool keep_failing;
    bool skip_sync; /* syncs do nothing: for tests that make many files */
    /* Reads that touch [bad_from, bad_to) of any (such) file fail with ERR_IO. */
    uint64_t bad_from, bad_to;
    /* Called before each pread and pwritev, if set. */
    void (*before_read)(void *arg);
    void (*before_write)(void *arg);
    void *arg;
    _Atomic int writes, syncs, drops, truncates, opens, open_now, most_open;
    _Atomic uint64_t bytes_read;
};

static inline bool fault_is_about(const struct fault_io *fault, int fd)
{
    char link[64], path[512];

    if (!fault->only || fd < 0)
        return true;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    path[len > 0 ? len : 0] = '\0';
    return strstr(path, fault->only) != NULL;
}

static inline bool fault_hits(struct fault_io *fault, _Atomic int *countdown, int fd)
{
    int left = atomic_load(countdown);

    if (left <= 0 || !fault_is_about(fault, fd))
        return false;
    if (left == 1 && fault->keep_failing)
        return true;
    return atomic_fetch_sub(countdown, 1) == 1;
}

static inline struct fault_io *fault_of(struct io *io)
{
    return io->arg;
}

static inline int fault_open(struct io *io, const char *path, unsigned flags)
{
    struct fault_io *fault = fault_of(io);

    fault->opens++;
    if (fault_hits(fault, &fault->fail_open, -1))
        return fault->error;
    int fd = fault->real->open(fault->real, path, flags);
    if (fd >= 0) {
        int now = atomic_fetch_add(&fault->open_now, 1) + 1;
        if (now > atomic_load(&fault->most_open))
            atomic_store(&fault->most_open, now);
    }
    return fd;
}

static inline int fault_close(struct io *io, int fd)
{
    fault_of(io)->open_now--;
    return fault_of(io)->real->close(fault_of(io)->real, fd);
}

static inline ssize_t fault_pread(struct io *io, int fd, void *buf, size_t len, uint64_t offset,
                                  bool nowait)
{
    struct fault_io *fault = fault_of(io);

    if (fault->before_read)
        fault->before_read(fault->arg);
    if (offset < fault->bad_to && fault->bad_from < offset + len && fault_is_about(fault, fd))
        return ERR_IO;
    fault->bytes_read += len;
    return fault->real->pread(fault->real, fd, buf, len, offset, nowait);
}

static inline ssize_t fault_pwritev(struct io *io, int fd, const struct iovec *iov, int count,
                                    uint64_t offset)
{
    struct fault_io *fault = fault_of(io);

    if (fault->before_write)
        fault->before_write(fault->arg);
    fault->writes++;
    if (fault_hits(fault, &fault->fail_write, fd)) {
        if (fault->write_first)
            (void)!fault->real->pwritev(fault->real, fd, iov, count, offset);
        return fault->error;
    }
    return fault->real->pwritev(fault->real, fd, iov, count, offset);
}

static inline int fault_sync(struct io *io, int fd)
{
    struct fault_io *fault = fault_of(io);

    fault->syncs++;
    if (fault_hits(fault, &fault->fail_sync, fd))
        return fault->error;
    return fault->skip_sync ? 0 : fault->real->fdatasync(fault->real, fd);
}

static inline int fault_sync_dir(struct io *io, const char *path)
{
    struct fault_io *fault = fault_of(io);

    return fault->skip_sync ? 0 : fault->real->sync_dir(fault->real, path);
}

static inline int fault_drop_cache(struct io *io, int fd)
{
    fault_of(io)->drops++;
    return fault_of(io)->real->drop_cache(fault_of(io)->real, fd);
}

static inline int fault_truncate(struct io *io, int fd, uint64_t size)
{
    struct fault_io *fault = fault_of(io);

    fault->truncates++;
    if (fault_hits(fault, &fault->fail_truncate, fd))
        return fault->error;
    return fault->real->truncate(fault->real, fd, size);
}

static inline void fault_io_init(struct fault_io *fault)
{
    memset(fault, 0, sizeof *fault);
    fault->real = io_system();
    fault->io = *fault->real;
    fault->io.arg = fault;
    fault->io.open = fault_open;
    fault->io.close = fault_close;
    fault->io.pread = fault_pread;
    fault->io.pwritev = fault_pwritev;
    fault->io.fdatasync = fault_sync;
    fault->io.fsync = fault_sync;
    fault->io.drop_cache = fault_drop_cache;
    fault->io.sync_dir = fault_sync_dir;
    fault->io.truncate = fault_truncate;
    fault->error = ERR_IO;
}

#endif
