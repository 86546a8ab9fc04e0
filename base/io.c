/*
 * The system's files as a struct io, and the helpers that make whole transfers of short ones.
 *
 * The raw functions translate errno and retry what a signal interrupted, nothing else. The io_*
 * functions work on any struct io, so a simulated disk that answers short exercises the same loops
 * as a real one. Every descriptor is close-on-exec.
 */
#include "base/io.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define READ_STEP_BYTES 4096

static int failure(void)
{
    int rc = err_from_errno(errno);

    return rc ? rc : ERR_IO;
}

static int system_open(struct io *io, const char *path, unsigned flags)
{
    int mode = flags & IO_WRITE ? O_RDWR : O_RDONLY;
    int fd;

    (void)io;
    assert(flags & (IO_READ | IO_WRITE));
    if (flags & IO_CREATE)
        mode |= O_CREAT;
    if (flags & IO_EXCLUSIVE)
        mode |= O_EXCL;
    do {
        fd = open(path, mode | O_CLOEXEC | O_NOCTTY, 0600);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? failure() : fd;
}

static int system_close(struct io *io, int fd)
{
    (void)io;
    /* Linux has freed the number even where a signal came in between: never close it twice. */
    return close(fd) == 0 || errno == EINTR ? 0 : failure();
}

static ssize_t system_pread(struct io *io, int fd, void *buf, size_t len, uint64_t offset,
                            bool nowait)
{
    struct iovec piece = {.iov_base = buf, .iov_len = len};
    ssize_t got;

    (void)io;
    if (offset > INT64_MAX)
        return ERR_RANGE;
    do {
        got = nowait ? preadv2(fd, &piece, 1, (off_t)offset, RWF_NOWAIT)
                     : pread(fd, buf, len, (off_t)offset);
    } while (got < 0 && errno == EINTR);
    if (got >= 0)
        return got;
    /* A file system that cannot tell whether it would wait: assume that it would. */
    if (nowait && (errno == EOPNOTSUPP || errno == ENOSYS))
        return ERR_AGAIN;
    return failure();
}

static ssize_t system_pwritev(struct io *io, int fd, const struct iovec *iov, int count,
                              uint64_t offset)
{
    ssize_t wrote;

    (void)io;
    if (offset > INT64_MAX)
        return ERR_RANGE;
    do {
        wrote = pwritev(fd, iov, count, (off_t)offset);
    } while (wrote < 0 && errno == EINTR);
    return wrote < 0 ? failure() : wrote;
}

static int system_fdatasync(struct io *io, int fd)
{
    int rc;

    (void)io;
    do {
        rc = fdatasync(fd);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : failure();
}

static int system_fsync(struct io *io, int fd)
{
    int rc;

    (void)io;
    do {
        rc = fsync(fd);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : failure();
}

static int system_sync_range(struct io *io, int fd, uint64_t offset, uint64_t len, bool wait)
{
    (void)io;
    if (offset > INT64_MAX || len > INT64_MAX)
        return ERR_RANGE;
    /* Advice: where the file system does not know it, the pages go out when they are synced. */
    unsigned flags = SYNC_FILE_RANGE_WRITE;
    if (wait)
        flags |= SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER;
    if (sync_file_range(fd, (off64_t)offset, (off64_t)len, flags) == 0 || errno == ENOSYS ||
        errno == EOPNOTSUPP || errno == ESPIPE || errno == EINTR)
        return 0;
    return failure();
}

static int system_truncate(struct io *io, int fd, uint64_t size)
{
    int rc;

    (void)io;
    if (size > INT64_MAX)
        return ERR_TOO_BIG;
    do {
        rc = ftruncate(fd, (off_t)size);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : failure();
}

static void fill_stat(struct io_stat *out, const struct stat *found)
{
    *out = (struct io_stat){
        .size_bytes = (uint64_t)found->st_size,
        .used_bytes = (uint64_t)found->st_blocks * 512,
        .mode = found->st_mode & 07777,
        .modified_ns =
            (uint64_t)found->st_mtim.tv_sec * 1000000000 + (uint64_t)found->st_mtim.tv_nsec,
        .is_dir = S_ISDIR(found->st_mode),
    };
}

static int system_stat_fd(struct io *io, int fd, struct io_stat *out)
{
    struct stat found;

    (void)io;
    if (fstat(fd, &found) != 0)
        return failure();
    fill_stat(out, &found);
    return 0;
}

static int system_stat(struct io *io, const char *path, struct io_stat *out)
{
    struct stat found;

    (void)io;
    if (stat(path, &found) != 0)
        return failure();
    fill_stat(out, &found);
    return 0;
}

static int system_drop_cache(struct io *io, int fd)
{
    (void)io;
    /* Advice as well: ENOSYS, or a file without a cache, leaves nothing to drop. */
    int rc = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return rc == EBADF ? err_from_errno(rc) : 0;
}

static int system_rename(struct io *io, const char *from, const char *to)
{
    (void)io;
    return rename(from, to) == 0 ? 0 : failure();
}

static int system_link(struct io *io, const char *from, const char *to)
{
    (void)io;
    return link(from, to) == 0 ? 0 : failure();
}

static int system_unlink(struct io *io, const char *path)
{
    (void)io;
    if (unlink(path) == 0 || (errno == EISDIR && rmdir(path) == 0))
        return 0;
    return failure();
}

static int system_mkdir(struct io *io, const char *path)
{
    (void)io;
    return mkdir(path, 0700) == 0 ? 0 : failure();
}

static int system_sync_dir(struct io *io, const char *path)
{
    int fd;

    do {
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return failure();
    int rc = system_fsync(io, fd);
    int closed = system_close(io, fd);
    return rc ? rc : closed;
}

static int system_space(struct io *io, const char *path, struct io_space *out)
{
    struct statvfs found;
    int rc;

    (void)io;
    do {
        rc = statvfs(path, &found);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0)
        return failure();
    /* f_bavail leaves out what is kept for root; root may use it all the same. */
    uint64_t free_blocks = geteuid() == 0 ? found.f_bfree : found.f_bavail;
    *out = (struct io_space){
        .total_bytes = (uint64_t)found.f_blocks * found.f_frsize,
        .free_bytes = free_blocks * found.f_frsize,
    };
    return 0;
}

static int system_lock(struct io *io, int fd)
{
    int rc;

    (void)io;
    do {
        rc = flock(fd, LOCK_EX | LOCK_NB);
    } while (rc != 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    return errno == EWOULDBLOCK ? ERR_LOCKED : failure();
}

static int system_list(struct io *io, const char *path, int (*each)(void *arg, const char *name),
                       void *arg)
{
    DIR *dir;
    int rc;

    (void)io;
    do {
        dir = opendir(path);
    } while (!dir && errno == EINTR);
    if (!dir)
        return failure();
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            rc = errno ? failure() : 0;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        rc = each(arg, entry->d_name);
        if (rc)
            break;
    }
    (void)closedir(dir); /* nothing was written through it */
    return rc;
}

struct io *io_system(void)
{
    static struct io io = {
        .open = system_open,
        .close = system_close,
        .pread = system_pread,
        .pwritev = system_pwritev,
        .fdatasync = system_fdatasync,
        .fsync = system_fsync,
        .sync_range = system_sync_range,
        .truncate = system_truncate,
        .stat_fd = system_stat_fd,
        .stat = system_stat,
        .drop_cache = system_drop_cache,
        .rename = system_rename,
        .link = system_link,
        .unlink = system_unlink,
        .mkdir = system_mkdir,
        .sync_dir = system_sync_dir,
        .space = system_space,
        .lock = system_lock,
        .list = system_list,
    };
    return &io;
}

int io_open(struct io *io, const char *path, unsigned flags)
{
    return io->open(io, path, flags);
}

int io_close(struct io *io, int *fd)
{
    if (*fd < 0)
        return 0;
    int closing = *fd;
    *fd = -1;
    return io->close(io, closing);
}

int io_read(struct io *io, int fd, void *buf, size_t len, uint64_t offset, bool nowait)
{
    char *at = buf;

    assert(fd >= 0);
    while (len > 0) {
        ssize_t got = io->pread(io, fd, at, len, offset, nowait);

        if (got < 0)
            return (int)got;
        if (got == 0)
            return ERR_CORRUPT;
        assert((size_t)got <= len);
        at += got;
        len -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

int io_writev(struct io *io, int fd, struct iovec *iov, int count, uint64_t offset)
{
    assert(fd >= 0 && count >= 0);
    for (;;) {
        while (count > 0 && iov->iov_len == 0) {
            iov++;
            count--;
        }
        if (count == 0)
            return 0;
        ssize_t wrote = io->pwritev(io, fd, iov, count < IOV_MAX ? count : IOV_MAX, offset);
        if (wrote < 0)
            return (int)wrote;
        if (wrote == 0)
            return ERR_IO; /* no progress, no reason: never spin on it */
        offset += (uint64_t)wrote;
        for (size_t left = (size_t)wrote; left > 0;) {
            assert(count > 0);
            if (left >= iov->iov_len) {
                left -= iov->iov_len;
                iov++;
                count--;
            } else {
                iov->iov_base = (char *)iov->iov_base + left;
                iov->iov_len -= left;
                left = 0;
            }
        }
    }
}

int io_write(struct io *io, int fd, const void *buf, size_t len, uint64_t offset)
{
    struct iovec piece = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};

    return io_writev(io, fd, &piece, 1, offset);
}

/* The directory that PATH lies in, in a fresh string; NULL where memory is short. */
static char *parent_of(const char *path)
{
    size_t len = strlen(path);

    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    while (len > 1 && path[len - 1] == '/')
        len--;
    return len ? strndup(path, len) : strdup(".");
}

static int write_new(struct io *io, const char *path, const void *data, size_t len)
{
    int fd = io_open(io, path, IO_WRITE | IO_CREATE);

    if (fd < 0)
        return fd;
    int rc = io->truncate(io, fd, 0); /* what an earlier crash may have left */
    if (!rc)
        rc = io_write(io, fd, data, len, 0);
    if (!rc)
        rc = io->fsync(io, fd);
    int closed = io_close(io, &fd);
    return rc ? rc : closed;
}

int io_replace(struct io *io, const char *path, const void *data, size_t len)
{
    char *temporary = NULL, *parent = NULL;
    int rc = ERR_NO_MEMORY;

    parent = parent_of(path);
    if (!parent || asprintf(&temporary, "%s.tmp", path) < 0) {
        temporary = NULL;
        goto out;
    }
    rc = write_new(io, temporary, data, len);
    if (!rc)
        rc = io->rename(io, temporary, path);
    if (rc) {
        (void)io->unlink(io, temporary); /* it may not even exist; the first error counts */
        goto out;
    }
    rc = io->sync_dir(io, parent);
out:
    free(temporary);
    free(parent);
    return rc;
}

int io_read_all(struct io *io, const char *path, size_t max, char **out, size_t *len)
{
    assert(max < SIZE_MAX - 1);
    *out = NULL;
    *len = 0;

    struct io_stat stat;
    char *data = NULL;
    size_t used = 0, room = READ_STEP_BYTES;
    int fd = io_open(io, path, IO_READ);
    if (fd < 0)
        return fd;
    int rc = io->stat_fd(io, fd, &stat);
    if (rc)
        goto out;
    if (stat.is_dir) {
        rc = ERR_INVALID;
        goto out;
    }
    /* The size is a hint only: some files have none, and a file may grow. Two bytes more, to see
     * the end in the same round and for the zero. */
    if (stat.size_bytes > max) {
        rc = ERR_TOO_BIG;
        goto out;
    }
    if (stat.size_bytes > 0)
        room = (size_t)stat.size_bytes + 2;
    for (;;) {
        char *grown = realloc(data, room);
        if (!grown) {
            rc = ERR_NO_MEMORY;
            goto out;
        }
        data = grown;
        ssize_t got;
        do {
            got = io->pread(io, fd, data + used, room - 1 - used, used, false);
            if (got > 0)
                used += (size_t)got;
        } while (got > 0 && used < room - 1);
        rc = got < 0 ? (int)got : used > max ? ERR_TOO_BIG : 0;
        if (rc || got == 0)
            break;
        room = room <= max / 2 ? room * 2 : max + 2;
    }
out:
    (void)io_close(io, &fd); /* only read from */
    if (rc) {
        free(data);
        return rc;
    }
    assert(data);
    data[used] = 0;
    *out = data;
    *len = used;
    return 0;
}

/* Make PATH where it is missing; its parent exists. */
static int make_one(struct io *io, const char *path)
{
    struct io_stat stat;
    int rc = io->stat(io, path, &stat);

    /* Ask before making: mkdir of an existing directory on a read-only or foreign file system may
     * answer something else than "exists". */
    if (rc == 0)
        return stat.is_dir ? 0 : ERR_EXISTS;
    if (rc != ERR_NOT_FOUND)
        return rc;
    rc = io->mkdir(io, path);
    if (rc == ERR_EXISTS)
        return 0; /* somebody was faster, and synced or will sync it */
    if (rc)
        return rc;
    char *parent = parent_of(path);
    if (!parent)
        return ERR_NO_MEMORY;
    rc = io->sync_dir(io, parent);
    free(parent);
    return rc;
}

int io_mkdirs(struct io *io, const char *path)
{
    char *prefix = strdup(path);
    int rc = path[0] ? ERR_NONE : ERR_INVALID; /* the root has no component to make */

    if (!prefix)
        return ERR_NO_MEMORY;
    size_t len = strlen(path);
    for (size_t i = 1; i <= len; i++) {
        /* At each end of a component, look at the path so far. */
        if ((path[i] != '/' && path[i] != 0) || path[i - 1] == '/')
            continue;
        prefix[i] = 0;
        rc = make_one(io, prefix);
        prefix[i] = path[i];
        if (rc)
            break;
    }
    free(prefix);
    return rc;
}

char *io_join(const char *dir, const char *name)
{
    char *joined;

    return asprintf(&joined, "%s/%s", dir, name) < 0 ? NULL : joined;
}
