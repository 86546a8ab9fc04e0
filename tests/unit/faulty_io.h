/*
 * The system's files with faults: the k-th call fails, transfers are short, nothing is cached. For
 * one thread. Unlink never fails, since clean-up that cannot clean up proves nothing. Syncs can
 * fail, but do nothing: no power is cut here, and they would take most of the tests' time.
 */
#ifndef TESTS_FAULTY_IO_H
#define TESTS_FAULTY_IO_H

#include "base/env.h"
#include "base/io.h"

#include <string.h>

struct faulty {
    struct io io; /* first: the callee finds its struct by it */
    struct env env;
    long calls;
    long fail_at; /* which call fails, from 1; 0: none */
    int rc;       /* with what */
    unsigned synced_dirs;
    size_t step; /* most bytes a transfer moves; 0: all */
    bool cold;   /* NOWAIT reads find nothing */
    bool sparse; /* writes of zeros that are 64 KiB or longer become holes */
    void (*on_open)(struct faulty *faulty, const char *path);
    void *arg;
};

static inline struct faulty *faulty_of(struct io *io)
{
    return (struct faulty *)io;
}

static inline bool faulty_fails(struct io *io)
{
    struct faulty *faulty = faulty_of(io);

    return ++faulty->calls == faulty->fail_at;
}

#define FAULTY(name, params, args)                                                                 \
    static inline int faulty_##name params                                                         \
    {                                                                                              \
        if (faulty_fails(io))                                                                      \
            return faulty_of(io)->rc;                                                              \
        return io_system()->name args;                                                             \
    }
#define SYSTEM io_system()
FAULTY(truncate, (struct io * io, int fd, uint64_t size), (SYSTEM, fd, size))
FAULTY(stat_fd, (struct io * io, int fd, struct io_stat *out), (SYSTEM, fd, out))
FAULTY(stat, (struct io * io, const char *path, struct io_stat *out), (SYSTEM, path, out))
FAULTY(rename, (struct io * io, const char *from, const char *to), (SYSTEM, from, to))
FAULTY(mkdir, (struct io * io, const char *path), (SYSTEM, path))
FAULTY(lock, (struct io * io, int fd), (SYSTEM, fd))
FAULTY(list,
       (struct io * io, const char *path, int (*each)(void *arg, const char *name), void *arg),
       (SYSTEM, path, each, arg))

static inline int faulty_sync(struct io *io, int fd)
{
    (void)fd;
    return faulty_fails(io) ? faulty_of(io)->rc : 0;
}

static inline int faulty_sync_range(struct io *io, int fd, uint64_t offset, uint64_t len, bool wait)
{
    (void)offset;
    (void)len;
    (void)wait;
    return faulty_sync(io, fd);
}

static inline int faulty_sync_dir(struct io *io, const char *path)
{
    struct io_stat stat;
    int rc = SYSTEM->stat(SYSTEM, path, &stat);

    if (faulty_fails(io))
        return faulty_of(io)->rc;
    faulty_of(io)->synced_dirs += rc == 0;
    return rc;
}

static inline int faulty_open(struct io *io, const char *path, unsigned flags)
{
    struct faulty *faulty = faulty_of(io);

    if (faulty_fails(io))
        return faulty->rc;
    if (faulty->on_open)
        faulty->on_open(faulty, path);
    return SYSTEM->open(SYSTEM, path, flags);
}

static inline int faulty_close(struct io *io, int fd)
{
    int rc = SYSTEM->close(SYSTEM, fd);

    return faulty_fails(io) ? faulty_of(io)->rc : rc;
}

static inline ssize_t faulty_pread(struct io *io, int fd, void *buf, size_t len, uint64_t offset,
                                   bool nowait)
{
    struct faulty *faulty = faulty_of(io);

    if (faulty_fails(io))
        return faulty->rc;
    if (nowait && faulty->cold)
        return ERR_AGAIN;
    if (faulty->step && len > faulty->step)
        len = faulty->step;
    return SYSTEM->pread(SYSTEM, fd, buf, len, offset, false);
}

static inline ssize_t faulty_pwritev(struct io *io, int fd, const struct iovec *iov, int count,
                                     uint64_t offset)
{
    struct faulty *faulty = faulty_of(io);
    struct iovec first = *iov;
    const char *bytes = first.iov_base;

    if (faulty_fails(io))
        return faulty->rc;
    if (faulty->sparse && first.iov_len >= 65536 && bytes[0] == 0 &&
        memcmp(bytes, bytes + 1, first.iov_len - 1) == 0)
        return (ssize_t)first.iov_len;
    if (!faulty->step)
        return SYSTEM->pwritev(SYSTEM, fd, iov, count, offset);
    if (first.iov_len > faulty->step)
        first.iov_len = faulty->step;
    return SYSTEM->pwritev(SYSTEM, fd, &first, 1, offset);
}

static inline void faulty_init(struct faulty *faulty)
{
    *faulty = (struct faulty){.io = *io_system(), .env = *env_system(), .rc = ERR_IO};
    faulty->io.open = faulty_open;
    faulty->io.close = faulty_close;
    faulty->io.pread = faulty_pread;
    faulty->io.pwritev = faulty_pwritev;
    faulty->io.fdatasync = faulty_sync;
    faulty->io.fsync = faulty_sync;
    faulty->io.sync_range = faulty_sync_range;
    faulty->io.truncate = faulty_truncate;
    faulty->io.stat_fd = faulty_stat_fd;
    faulty->io.stat = faulty_stat;
    faulty->io.rename = faulty_rename;
    faulty->io.mkdir = faulty_mkdir;
    faulty->io.sync_dir = faulty_sync_dir;
    faulty->io.lock = faulty_lock;
    faulty->io.list = faulty_list;
    faulty->env.io = &faulty->io;
}

/* Let the FAIL_AT-th call from now fail with RC; 0: none. */
static inline void faulty_arm(struct faulty *faulty, long fail_at, int rc)
{
    faulty->calls = 0;
    faulty->fail_at = fail_at;
    faulty->rc = rc;
}

/* Whether the call that was to fail has been made. */
static inline bool faulty_struck(const struct faulty *faulty)
{
    return faulty->fail_at > 0 && faulty->calls >= faulty->fail_at;
}

#undef SYSTEM
#undef FAULTY

#endif
