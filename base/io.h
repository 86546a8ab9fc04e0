/*
 * File I/O behind one table of functions: all file access of the store, SQLite's included, goes
 * through a struct io, so that a simulated disk can stand in for the system's.
 *
 * Files are small non-negative numbers given out by open. Offsets and sizes are 64 bits. Every call
 * may block on the disk unless it says otherwise and may be made from any thread. The raw functions
 * may do less than was asked (short reads and writes), as the system's do; callers use the io_*
 * functions below, which retry what is short or interrupted.
 */
#ifndef BASE_IO_H
#define BASE_IO_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum io_open_flags {
    IO_READ = 1,
    IO_WRITE = 2,     /* implies IO_READ */
    IO_CREATE = 4,    /* make it where it is missing, mode 0600 */
    IO_EXCLUSIVE = 8, /* with IO_CREATE: fail with ERR_EXISTS where it is there */
};

struct io_stat {
    uint64_t size_bytes;
    uint64_t used_bytes;  /* what it takes on the disk; less than size where it is sparse */
    uint32_t mode;        /* permission bits; 0 where the implementation has none */
    uint64_t modified_ns; /* Unix; 0 where the implementation knows no time */
    bool is_dir;
};

struct io_space {
    uint64_t total_bytes;
    uint64_t free_bytes; /* free to this process */
};

struct io {
    int (*open)(struct io *io, const char *path, unsigned flags);
    int (*close)(struct io *io, int fd);
    /* Up to LEN bytes at OFFSET: their count, 0 at the end of the file, or an error. With NOWAIT it
     * takes only what is in the page cache; ERR_AGAIN where the first byte is not. */
    ssize_t (*pread)(struct io *io, int fd, void *buf, size_t len, uint64_t offset, bool nowait);
    ssize_t (*pwritev)(struct io *io, int fd, const struct iovec *iov, int count, uint64_t offset);
    int (*fdatasync)(struct io *io, int fd);
    int (*fsync)(struct io *io, int fd);
    /* Have dirty pages of the range written, and WAIT for that or not; promises nothing about
     * durability. */
    int (*sync_range)(struct io *io, int fd, uint64_t offset, uint64_t len, bool wait);
    int (*truncate)(struct io *io, int fd, uint64_t size);
    int (*stat_fd)(struct io *io, int fd, struct io_stat *out);
    int (*stat)(struct io *io, const char *path, struct io_stat *out);
    /* Drop clean pages of the whole file from the page cache, so that a read asks the disk. */
    int (*drop_cache)(struct io *io, int fd);
    int (*rename)(struct io *io, const char *from, const char *to);
    int (*link)(struct io *io, const char *from, const char *to);
    int (*unlink)(struct io *io,
                  const char *path);               /* a file; the system's: or an empty directory */
    int (*mkdir)(struct io *io, const char *path); /* mode 0700; ERR_EXISTS where it is there */
    int (*sync_dir)(struct io *io, const char *path);
    int (*space)(struct io *io, const char *path, struct io_space *out);
    /* Take the exclusive advisory lock of FD without waiting: ERR_LOCKED where another holds it.
     * Closing FD releases it. */
    int (*lock)(struct io *io, int fd);
    /* Call EACH for every name in directory PATH but "." and ".."; stops at the first non-zero
     * result and returns it. */
    int (*list)(struct io *io, const char *path, int (*each)(void *arg, const char *name),
                void *arg);
    void *arg; /* the implementation's own */
};

/* The system's files. Static, for the process's life. */
struct io *io_system(void);

/* A file number or an error: ERR_NOT_FOUND, ERR_EXISTS, ERR_PERMISSION, ERR_NO_SPACE, ERR_IO … */
int io_open(struct io *io, const char *path, unsigned flags) MUST_CHECK;

/* Close *FD unless it is negative, and set it to -1. The error matters to writers only; what they
 * wrote is durable after a sync, not after this. */
int io_close(struct io *io, int *fd);

/* Exactly LEN bytes at OFFSET. ERR_CORRUPT where the file ends before. With NOWAIT, ERR_AGAIN where
 * any byte of it would have to come from the disk; BUF is then undefined. */
int io_read(struct io *io, int fd, void *buf, size_t len, uint64_t offset, bool nowait) MUST_CHECK;

/* All of the COUNT pieces in IOV, one after the other, from OFFSET. IOV is used up (modified). On
 * an error some of it may have been written. */
int io_writev(struct io *io, int fd, struct iovec *iov, int count, uint64_t offset) MUST_CHECK;
int io_write(struct io *io, int fd, const void *buf, size_t len, uint64_t offset) MUST_CHECK;

/* Replace PATH by LEN bytes of DATA, durably and atomically: temporary file beside it, synced,
 * renamed, directory synced. */
int io_replace(struct io *io, const char *path, const void *data, size_t len) MUST_CHECK;

/* Read the whole of PATH, at most MAX bytes (ERR_TOO_BIG), into a fresh buffer with a zero byte
 * after it. The caller frees *OUT. */
int io_read_all(struct io *io, const char *path, size_t max, char **out, size_t *len) MUST_CHECK;

/* mkdir for PATH and its missing parents; not an error where it is there already. Syncs the parent
 * of each directory made. */
int io_mkdirs(struct io *io, const char *path) MUST_CHECK;

/* "DIR/NAME" in a fresh string; NULL where memory is short. */
char *io_join(const char *dir, const char *name) MUST_CHECK;

#endif
