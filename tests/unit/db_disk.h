/*
 * A disk in memory for the tests of the database: it counts calls, fails the k-th, dies at the k-th
 * as a killed process or a lost power supply does, and then keeps of what was not synced an
 * arbitrary part, in sectors of 512 bytes. One directory; for one thread.
 */
#ifndef TESTS_DB_DISK_H
#define TESTS_DB_DISK_H

#include "base/env.h"
#include "base/io.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define DISK_FILES  8 /* names, and files ever made in one life */
#define DISK_FDS    32
#define DISK_SECTOR 512

struct disk_bytes {
    uint8_t *data;
    size_t len, cap;
};

struct disk_file {
    struct disk_bytes now, durable;
};

/* A name leads to files[file]; -1: to none. */
struct disk_name {
    char path[64];
    int now, durable;
};

struct disk {
    struct io io; /* first: calls find their disk by it */
    struct env env;
    struct disk_file files[64];
    int file_count;
    struct disk_name names[DISK_FILES];
    int name_count;
    int fds[DISK_FDS]; /* file + 1; 0: free */
    uint64_t dice;

    long calls;   /* that change something or sync */
    long fail_at; /* which of them fails, from 1; 0: none */
    int fail_rc;
    bool die; /* … and with it everything from then on */
    bool dead;
    bool failed_sync;              /* the call that failed was one */
    long syncs, dir_syncs, writes; /* all kinds of file syncs */
    /* Asked before each call that counts; may be NULL. */
    void (*watch)(struct disk *disk, const char *call, const char *path);
    void *arg;
};

static inline struct disk *disk_of(struct io *io)
{
    return (struct disk *)io;
}

static inline uint64_t disk_dice(struct disk *disk)
{
    disk->dice ^= disk->dice << 13;
    disk->dice ^= disk->dice >> 7;
    disk->dice ^= disk->dice << 17;
    return disk->dice;
}

/* 0: go on. */
static inline int disk_call(struct disk *disk)
{
    if (disk->dead)
        return ERR_IO;
    if (++disk->calls != disk->fail_at)
        return 0;
    disk->dead = disk->die;
    return disk->fail_rc;
}

static inline void disk_resize(struct disk_bytes *bytes, size_t len)
{
    if (len > bytes->cap) {
        bytes->cap = len * 2;
        bytes->data = realloc(bytes->data, bytes->cap);
        assert(bytes->data);
    }
    if (len > bytes->len)
        memset(bytes->data + bytes->len, 0, len - bytes->len);
    bytes->len = len;
}

static inline void disk_copy(struct disk_bytes *to, const struct disk_bytes *from)
{
    disk_resize(to, 0);
    disk_resize(to, from->len);
    if (from->len)
        memcpy(to->data, from->data, from->len);
}

static inline struct disk_name *disk_find(struct disk *disk, const char *path)
{
    for (int i = 0; i < disk->name_count; i++)
        if (strcmp(disk->names[i].path, path) == 0)
            return &disk->names[i];
    return NULL;
}

static inline struct disk_file *disk_file(struct disk *disk, int fd)
{
    assert(fd >= 0 && fd < DISK_FDS && disk->fds[fd]);
    return &disk->files[disk->fds[fd] - 1];
}

static inline const char *disk_path(struct disk *disk, int fd)
{
    for (int i = 0; i < disk->name_count; i++)
        if (disk->names[i].now == disk->fds[fd] - 1)
            return disk->names[i].path;
    return "";
}

static inline int disk_open(struct io *io, const char *path, unsigned flags)
{
    struct disk *disk = disk_of(io);
    struct disk_name *name = disk_find(disk, path);

    if (disk->dead)
        return ERR_IO;
    if (!name || name->now < 0) {
        if (!(flags & IO_CREATE))
            return ERR_NOT_FOUND;
        int rc = disk_call(disk);
        if (rc)
            return rc;
        if (!name) {
            assert(disk->name_count < DISK_FILES && strlen(path) < sizeof name->path);
            name = &disk->names[disk->name_count++];
            memcpy(name->path, path, strlen(path) + 1);
            name->durable = -1;
        }
        assert(disk->file_count < 64);
        name->now = disk->file_count++;
        disk->files[name->now] = (struct disk_file){0};
    } else if (flags & IO_EXCLUSIVE) {
        return ERR_EXISTS;
    }
    for (int fd = 0; fd < DISK_FDS; fd++)
        if (!disk->fds[fd]) {
            disk->fds[fd] = name->now + 1;
            return fd;
        }
    return ERR_FULL;
}

static inline int disk_close(struct io *io, int fd)
{
    disk_of(io)->fds[fd] = 0;
    return 0;
}

static inline ssize_t disk_pread(struct io *io, int fd, void *buf, size_t len, uint64_t offset,
                                 bool nowait)
{
    struct disk_bytes *bytes = &disk_file(disk_of(io), fd)->now;

    (void)nowait;
    if (disk_of(io)->dead)
        return ERR_IO;
    if (offset >= bytes->len)
        return 0;
    if (len > bytes->len - offset)
        len = bytes->len - offset;
    memcpy(buf, bytes->data + offset, len);
    return (ssize_t)len;
}

static inline ssize_t disk_pwritev(struct io *io, int fd, const struct iovec *iov, int count,
                                   uint64_t offset)
{
    struct disk *disk = disk_of(io);
    struct disk_bytes *bytes = &disk_file(disk, fd)->now;
    size_t total = 0, wrote = 0;

    if (disk->watch)
        disk->watch(disk, "write", disk_path(disk, fd));
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    if (disk->dead)
        return ERR_IO;
    disk->writes++;
    int rc = disk_call(disk);
    if (rc) /* some of it got there */
        total = disk_dice(disk) % (total + 1);
    for (int i = 0; i < count && wrote < total; i++) {
        size_t part = iov[i].iov_len < total - wrote ? iov[i].iov_len : total - wrote;

        if (bytes->len < offset + wrote + part)
            disk_resize(bytes, offset + wrote + part);
        memcpy(bytes->data + offset + wrote, iov[i].iov_base, part);
        wrote += part;
    }
    return rc ? rc : (ssize_t)total;
}

static inline int disk_fsync(struct io *io, int fd)
{
    struct disk *disk = disk_of(io);
    struct disk_file *file = disk_file(disk, fd);

    if (disk->watch)
        disk->watch(disk, "sync", disk_path(disk, fd));
    disk->syncs++;
    int rc = disk_call(disk);
    if (rc)
        disk->failed_sync = true;
    else
        disk_copy(&file->durable, &file->now);
    return rc;
}

static inline int disk_truncate(struct io *io, int fd, uint64_t size)
{
    int rc = disk_call(disk_of(io));

    if (!rc)
        disk_resize(&disk_file(disk_of(io), fd)->now, size);
    return rc;
}

static inline int disk_stat_fd(struct io *io, int fd, struct io_stat *out)
{
    size_t len = disk_file(disk_of(io), fd)->now.len;

    *out = (struct io_stat){.size_bytes = len, .used_bytes = len};
    return disk_of(io)->dead ? ERR_IO : 0;
}

static inline int disk_stat(struct io *io, const char *path, struct io_stat *out)
{
    struct disk *disk = disk_of(io);
    struct disk_name *name = disk_find(disk, path);

    if (disk->dead)
        return ERR_IO;
    if (!name || name->now < 0)
        return ERR_NOT_FOUND;
    size_t len = disk->files[name->now].now.len;
    *out = (struct io_stat){.size_bytes = len, .used_bytes = len};
    return 0;
}

static inline int disk_unlink(struct io *io, const char *path)
{
    struct disk_name *name = disk_find(disk_of(io), path);

    if (!name || name->now < 0)
        return ERR_NOT_FOUND;
    int rc = disk_call(disk_of(io));
    if (!rc)
        name->now = -1;
    return rc;
}

/* Promises nothing, and what it reports nobody reports again. */
static inline int disk_sync_range(struct io *io, int fd, uint64_t offset, uint64_t len, bool wait)
{
    struct disk *disk = disk_of(io);

    (void)disk_file(disk, fd);
    (void)offset;
    (void)len;
    (void)wait;
    int rc = disk_call(disk);
    if (rc)
        disk->failed_sync = true;
    return rc;
}

static inline int disk_sync_dir(struct io *io, const char *path)
{
    struct disk *disk = disk_of(io);

    if (disk->watch)
        disk->watch(disk, "sync_dir", path);
    disk->dir_syncs++;
    int rc = disk_call(disk);
    disk->failed_sync |= rc != 0;
    for (int i = 0; i < disk->name_count && !rc; i++)
        disk->names[i].durable = disk->names[i].now;
    return rc;
}

static inline void disk_init(struct disk *disk, uint64_t seed)
{
    memset(disk, 0, sizeof *disk);
    disk->env = *env_system();
    disk->env.io = &disk->io;
    disk->dice = seed * 2654435761u + 1;
    disk->fail_rc = ERR_IO;
    disk->io = (struct io){
        .open = disk_open,
        .close = disk_close,
        .pread = disk_pread,
        .pwritev = disk_pwritev,
        .fdatasync = disk_fsync,
        .fsync = disk_fsync,
        .sync_range = disk_sync_range,
        .truncate = disk_truncate,
        .stat_fd = disk_stat_fd,
        .stat = disk_stat,
        .unlink = disk_unlink,
        .sync_dir = disk_sync_dir,
    };
}

static inline void disk_release(struct disk *disk)
{
    for (int i = 0; i < disk->file_count; i++) {
        free(disk->files[i].now.data);
        free(disk->files[i].durable.data);
    }
    disk->file_count = 0;
}

/* The machine comes back. POWER_LOST: what was not synced is there or not, each sector, size and
 * name on its own; else the process alone had died, and all that it wrote is there. */
static inline void disk_restart(struct disk *disk, bool power_lost)
{
    disk->dead = false;
    disk->fail_at = 0;
    memset(disk->fds, 0, sizeof disk->fds);
    for (int i = 0; i < disk->name_count && power_lost; i++) {
        if (disk_dice(disk) & 1)
            disk->names[i].now = disk->names[i].durable;
        disk->names[i].durable = disk->names[i].now;
    }
    for (int i = 0; i < disk->file_count && power_lost; i++) {
        struct disk_bytes *now = &disk->files[i].now, *durable = &disk->files[i].durable;
        size_t len = disk_dice(disk) & 1 ? now->len : durable->len;
        size_t longest = now->len > durable->len ? now->len : durable->len;

        disk_resize(now, longest);
        disk_resize(durable, longest);
        for (size_t at = 0; at < longest; at += DISK_SECTOR) {
            size_t part = longest - at < DISK_SECTOR ? longest - at : DISK_SECTOR;

            if (disk_dice(disk) & 1)
                memcpy(now->data + at, durable->data + at, part);
        }
        disk_resize(now, len);
        disk_copy(durable, now);
    }
}

#endif
