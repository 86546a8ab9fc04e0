/*
 * A struct io over memory for fuzz targets: a few files, no directories to speak of (every one
 * exists), nothing fails, all is durable. Header-only; one thread.
 */
#ifndef TESTS_FUZZ_MEMORY_IO_H
#define TESTS_FUZZ_MEMORY_IO_H

#include "base/env.h"
#include "base/io.h"
#include "tests/fuzz/fuzz.h"

#define MEMORY_FILES 16
#define MEMORY_FDS   64
#define MEMORY_PATH  64

struct memory_file {
    char path[MEMORY_PATH]; /* empty: no such file */
    uint8_t *data;
    size_t len, cap;
};

struct memory_io {
    struct io io; /* first: calls find their files by it */
    struct env env;
    struct memory_file files[MEMORY_FILES];
    struct memory_file *fds[MEMORY_FDS];
    uint64_t dice;
    unsigned open_now;
};

static inline struct memory_io *memory_of(struct io *io)
{
    return (struct memory_io *)io;
}

static inline struct memory_file *memory_find(struct memory_io *memory, const char *path)
{
    for (int i = 0; i < MEMORY_FILES; i++)
        if (memory->files[i].path[0] && strcmp(memory->files[i].path, path) == 0)
            return &memory->files[i];
    return NULL;
}

static inline void memory_resize(struct memory_file *file, size_t len)
{
    if (len > file->cap) {
        file->cap = len > 2 * file->cap ? len : 2 * file->cap;
        file->data = realloc(file->data, file->cap);
        CHECK(file->data);
    }
    if (len > file->len)
        memset(file->data + file->len, 0, len - file->len);
    file->len = len;
}

/* The file at PATH, made where it is missing. */
static inline struct memory_file *memory_make(struct memory_io *memory, const char *path)
{
    struct memory_file *file = memory_find(memory, path);

    for (int i = 0; i < MEMORY_FILES && !file; i++)
        if (!memory->files[i].path[0])
            file = &memory->files[i];
    CHECK(file && strlen(path) < MEMORY_PATH);
    memcpy(file->path, path, strlen(path) + 1);
    return file;
}

/* Forget every file; memory stays. */
static inline void memory_clear(struct memory_io *memory)
{
    CHECK(memory->open_now == 0);
    for (int i = 0; i < MEMORY_FILES; i++) {
        memory->files[i].path[0] = 0;
        memory->files[i].len = 0;
    }
}

static inline struct memory_file *memory_file_of(struct io *io, int fd)
{
    CHECK(fd >= 0 && fd < MEMORY_FDS && memory_of(io)->fds[fd]);
    return memory_of(io)->fds[fd];
}

static inline int memory_open(struct io *io, const char *path, unsigned flags)
{
    struct memory_io *memory = memory_of(io);
    struct memory_file *file = memory_find(memory, path);

    if (file && flags & IO_EXCLUSIVE)
        return ERR_EXISTS;
    if (!file && !(flags & IO_CREATE))
        return ERR_NOT_FOUND;
    if (!file) {
        file = memory_make(memory, path);
        file->len = 0;
    }
    for (int fd = 0; fd < MEMORY_FDS; fd++)
        if (!memory->fds[fd]) {
            memory->fds[fd] = file;
            memory->open_now++;
            return fd;
        }
    CHECK(!"descriptors leak");
    return ERR_FULL;
}

static inline int memory_close(struct io *io, int fd)
{
    (void)memory_file_of(io, fd);
    memory_of(io)->fds[fd] = NULL;
    memory_of(io)->open_now--;
    return 0;
}

static inline ssize_t memory_pread(struct io *io, int fd, void *buf, size_t len, uint64_t offset,
                                   bool nowait)
{
    struct memory_file *file = memory_file_of(io, fd);

    (void)nowait;
    if (offset >= file->len || len == 0)
        return 0;
    if (len > file->len - offset)
        len = file->len - offset;
    memcpy(buf, file->data + offset, len);
    return (ssize_t)len;
}

static inline ssize_t memory_pwritev(struct io *io, int fd, const struct iovec *iov, int count,
                                     uint64_t offset)
{
    struct memory_file *file = memory_file_of(io, fd);
    size_t wrote = 0;

    for (int i = 0; i < count; i++) {
        size_t len = iov[i].iov_len;

        CHECK(offset + wrote + len < UINT64_C(64) << 20);
        if (file->len < offset + wrote + len)
            memory_resize(file, offset + wrote + len);
        if (len > 0)
            memcpy(file->data + offset + wrote, iov[i].iov_base, len);
        wrote += len;
    }
    return (ssize_t)wrote;
}

static inline int memory_sync(struct io *io, int fd)
{
    (void)memory_file_of(io, fd);
    return 0;
}

static inline int memory_sync_range(struct io *io, int fd, uint64_t offset, uint64_t len, bool wait)
{
    (void)memory_file_of(io, fd);
    (void)offset;
    (void)len;
    (void)wait;
    return 0;
}

static inline int memory_truncate(struct io *io, int fd, uint64_t size)
{
    CHECK(size < UINT64_C(64) << 20);
    memory_resize(memory_file_of(io, fd), size);
    return 0;
}

static inline int memory_stat_fd(struct io *io, int fd, struct io_stat *out)
{
    size_t len = memory_file_of(io, fd)->len;

    *out = (struct io_stat){.size_bytes = len, .used_bytes = len};
    return 0;
}

static inline int memory_stat(struct io *io, const char *path, struct io_stat *out)
{
    struct memory_file *file = memory_find(memory_of(io), path);

    if (!file)
        return ERR_NOT_FOUND;
    *out = (struct io_stat){.size_bytes = file->len, .used_bytes = file->len};
    return 0;
}

static inline int memory_rename(struct io *io, const char *from, const char *to)
{
    struct memory_file *file = memory_find(memory_of(io), from);
    struct memory_file *old = memory_find(memory_of(io), to);

    if (!file)
        return ERR_NOT_FOUND;
    if (old)
        old->path[0] = 0;
    CHECK(strlen(to) < MEMORY_PATH);
    memcpy(file->path, to, strlen(to) + 1);
    return 0;
}

static inline int memory_unlink(struct io *io, const char *path)
{
    struct memory_file *file = memory_find(memory_of(io), path);

    if (!file)
        return ERR_NOT_FOUND;
    file->path[0] = 0;
    return 0;
}

static inline int memory_directory(struct io *io, const char *path)
{
    (void)io;
    (void)path;
    return 0;
}

static inline int memory_space(struct io *io, const char *path, struct io_space *out)
{
    (void)io;
    (void)path;
    *out = (struct io_space){.total_bytes = UINT64_C(1) << 40, .free_bytes = UINT64_C(1) << 40};
    return 0;
}

static inline int memory_list(struct io *io, const char *path,
                              int (*each)(void *arg, const char *name), void *arg)
{
    struct memory_io *memory = memory_of(io);
    size_t len = strlen(path);

    for (int i = 0; i < MEMORY_FILES; i++) {
        const char *name = memory->files[i].path;

        if (strncmp(name, path, len) != 0 || name[len] != '/')
            continue;
        int rc = each(arg, name + len + 1);
        if (rc)
            return rc;
    }
    return 0;
}

/* Repeats itself from memory_init on: a run depends on its input alone. */
static inline void memory_random(struct env *env, void *buf, size_t len)
{
    struct memory_io *memory = env->arg;
    uint8_t *out = buf;

    for (size_t i = 0; i < len; i++) {
        memory->dice = memory->dice * UINT64_C(6364136223846793005) + 1442695040888963407;
        out[i] = (uint8_t)(memory->dice >> 56);
    }
}

static inline void memory_init(struct memory_io *memory)
{
    memset(memory, 0, sizeof *memory);
    memory->env = *env_system();
    memory->env.io = &memory->io;
    memory->env.random = memory_random;
    memory->env.arg = memory;
    memory->io = (struct io){
        .open = memory_open,
        .close = memory_close,
        .pread = memory_pread,
        .pwritev = memory_pwritev,
        .fdatasync = memory_sync,
        .fsync = memory_sync,
        .sync_range = memory_sync_range,
        .truncate = memory_truncate,
        .stat_fd = memory_stat_fd,
        .stat = memory_stat,
        .drop_cache = memory_sync,
        .rename = memory_rename,
        .unlink = memory_unlink,
        .mkdir = memory_directory,
        .sync_dir = memory_directory,
        .space = memory_space,
        .lock = memory_sync,
        .list = memory_list,
    };
}

#endif
