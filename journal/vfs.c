/*
 * SQLite's files on base/io.
 *
 * Happy path: a connection opens the database through xOpen, which joins the `struct shared` of its
 * path; the first reader maps wal-index regions there, and from then on a read transaction costs
 * two atomic operations here (xShmLock) besides its reads. The write-ahead log is an ordinary file.
 *
 * What is told to SQLite about the disk:
 * - Powersafe overwrite is claimed: base/io, the simulated disk included, replaces whole 512-byte
 *   sectors or leaves them alone, so a torn write harms no byte outside its own range. This
 * matters: appending a WAL frame rewrites the sector in which the previous, possibly synced, frame
 * ends.
 * - No atomic writes beyond that, no order between writes, files can be unlinked while open.
 *
 * Directory entries: SQLite expects that syncing a journal or WAL makes its name durable as well. A
 * file that exists may come from a process that was killed before it synced the directory, so the
 * first sync of *each* handle that was allowed to create syncs the directory, whoever made the
 * file.
 *
 * A sync that failed is never tried again on its handle: the kernel may have dropped the pages and
 * would answer well. The next process copies the whole WAL anew.
 *
 * Locks: one process owns the database, so locks need no system calls. SQLite's five lock levels
 * are counters under the VFS's mutex (taken once per connection in WAL mode); the eight wal-index
 * locks are atomics: -1 exclusive, 0 free, n readers.
 *
 * Pages of the main database bear checksums (vfs.h): SQLite itself would take a flipped bit in a
 * row for what was stored.
 *
 * Failure: errors of base/io become SQLITE_IOERR_…, full disks SQLITE_FULL; the code itself stays
 * with the thread for xGetLastError (sqlite3_system_errno), so that the database layer can give it
 * back unchanged. Temporary files are refused: our connections keep such things in memory.
 */
#include "journal/vfs.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/limits.h"

#include <assert.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PATH_BYTES      4096
#define WAL_FRAME_BYTES 24   /* a frame's header, which SQLite writes apart from its page */
#define MAX_REGIONS     4096 /* wal-index for 16 million pages, 64 GiB of WAL */
#define JULIAN_UNIX_MS  INT64_C(210866760000000)
#define SECTOR_BYTES    512
#define NAME_BYTES      32
#define RUN_BYTES       (256 * KIB) /* written back at once: see written() */

/* What the connections to one database share. */
struct shared {
    struct shared *next;
    char *path;
    unsigned files;      /* open handles */
    unsigned readers;    /* of them, with SQLITE_LOCK_SHARED or more */
    struct file *writer; /* the one with SQLITE_LOCK_RESERVED or more */
    bool pending;        /* the writer waits for the readers to go; no new ones */
    unsigned users;      /* handles that map the wal-index */
    unsigned region_count;
    void **regions;
    atomic_int slots[SQLITE_SHM_NLOCK];
};

struct vfs {
    sqlite3_vfs base;
    struct env *env;
    char name[NAME_BYTES];
    pthread_mutex_t mutex; /* the list, and all of struct shared but the slots */
    struct shared *shares;
};

struct file {
    sqlite3_file base;
    struct vfs *vfs;
    const char *path; /* SQLite keeps it until xClose */
    int fd;
    bool sync_dir;         /* the next sync is the first */
    int sync_error;        /* of the first sync that failed; 0: none has */
    struct shared *shared; /* of a main database, else NULL */
    int level;             /* SQLITE_LOCK_… held */
    bool mapped;
    unsigned shm_shared, shm_exclusive; /* slots held, as bits */
    /* A WAL frame's header waits for its page, so that both are one write. */
    bool held;
    uint64_t held_offset;
    uint8_t held_bytes[WAL_FRAME_BYTES];
    bool is_wal;
    bool page_sums;                       /* see VFS_FCNTL_PAGE_SUMS */
    uint64_t run_from, run_to, run_bytes; /* dirty since the last sync or write-back */
};

static _Thread_local int last_error;

/* Before SQLite starts: no mutexes inside connections (each belongs to one thread), no global
 * allocation counters (a mutex around every malloc), statement journals in memory. */
static void configure(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MULTITHREAD);
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    (void)sqlite3_config(SQLITE_CONFIG_STMTJRNL_SPILL, -1);
    /* Where somebody has started SQLite before, it works all the same, only slower. */
}

static struct io *io_of(const struct file *file)
{
    return file->vfs->env->io;
}

/* Remember RC for this thread and give SQLite's word for it. */
static int failed(int rc, int sqlite_code)
{
    assert(rc < 0);
    last_error = rc;
    switch (rc) {
    case ERR_NO_SPACE:
        return SQLITE_FULL;
    case ERR_NO_MEMORY:
        return SQLITE_IOERR_NOMEM;
    default:
        return sqlite_code;
    }
}

/* ---- Files ---- */

/* Write the frame header that waits, where one does. */
static int flush(struct file *file)
{
    if (!file->held)
        return SQLITE_OK;
    file->held = false;
    int rc = io_write(io_of(file), file->fd, file->held_bytes, WAL_FRAME_BYTES, file->held_offset);
    return rc ? failed(rc, SQLITE_IOERR_WRITE) : SQLITE_OK;
}

/*
 * [OFFSET, OFFSET + LEN) was written. Left to the sync at the end, the megabytes of a WAL and of a
 * checkpoint would go to the disk in one burst, and the commits of that moment would wait behind
 * it; so they go in runs, whose wait is the applier's alone. What the disk says of a run it says
 * only once: the sync has to repeat it.
 */
static int written(struct file *file, uint64_t offset, uint64_t len)
{
    struct io *io = io_of(file);

    if (!file->shared && !file->is_wal)
        return SQLITE_OK;
    if (file->run_bytes == 0 || offset < file->run_from)
        file->run_from = offset;
    if (file->run_bytes == 0 || offset + len > file->run_to)
        file->run_to = offset + len;
    file->run_bytes += len;
    if (file->run_bytes < RUN_BYTES)
        return SQLITE_OK;
    file->run_bytes = 0;
    int rc = io->sync_range(io, file->fd, file->run_from, file->run_to - file->run_from, true);
    if (rc == 0)
        return SQLITE_OK;
    if (!file->sync_error)
        file->sync_error = rc;
    return failed(rc, SQLITE_IOERR_FSYNC);
}

static bool is_page(const struct file *file, int len, sqlite3_int64 offset)
{
    return file->page_sums && len == VFS_PAGE_BYTES && offset % VFS_PAGE_BYTES == 0;
}

/* Seeded with the place, so that no page passes for another. */
static uint64_t page_sum(const uint8_t *page, sqlite3_int64 offset)
{
    return xxh64(page, VFS_PAGE_BYTES - VFS_PAGE_RESERVED, (uint64_t)offset);
}

static int check_page(const uint8_t *page, sqlite3_int64 offset)
{
    uint64_t stored = get_u64(page + VFS_PAGE_BYTES - VFS_PAGE_RESERVED);

    if (stored == page_sum(page, offset))
        return SQLITE_OK;
    /* A page that SQLite has set aside and never written: the file has a hole there. */
    if (stored == 0 && page[0] == 0 && memcmp(page, page + 1, VFS_PAGE_BYTES - 1) == 0)
        return SQLITE_OK;
    return failed(ERR_CORRUPT, SQLITE_IOERR_DATA);
}

static int write_page(struct file *file, const uint8_t *page, sqlite3_int64 offset)
{
    uint8_t summed[VFS_PAGE_BYTES];

    memcpy(summed, page, VFS_PAGE_BYTES - VFS_PAGE_RESERVED);
    put_u64(summed + VFS_PAGE_BYTES - VFS_PAGE_RESERVED, page_sum(page, offset));
    int rc = io_write(io_of(file), file->fd, summed, sizeof summed, (uint64_t)offset);
    return rc ? failed(rc, SQLITE_IOERR_WRITE) : written(file, (uint64_t)offset, sizeof summed);
}

static int file_read(sqlite3_file *base, void *buf, int len, sqlite3_int64 offset)
{
    struct file *file = (struct file *)base;
    struct io *io = io_of(file);
    char *at = buf;
    sqlite3_int64 from = offset;
    size_t left = (size_t)len;
    int rc = flush(file);

    assert(len >= 0 && offset >= 0);
    if (rc)
        return rc;
    while (left > 0) {
        ssize_t got = io->pread(io, file->fd, at, left, (uint64_t)offset, false);

        if (got < 0)
            return failed((int)got, SQLITE_IOERR_READ);
        if (got == 0) {
            memset(at, 0, left);
            return SQLITE_IOERR_SHORT_READ;
        }
        at += got;
        offset += got;
        left -= (size_t)got;
    }
    return is_page(file, len, from) ? check_page(buf, from) : SQLITE_OK;
}

static int file_write(sqlite3_file *base, const void *buf, int len, sqlite3_int64 offset)
{
    struct file *file = (struct file *)base;
    int rc;

    assert(len > 0 && offset >= 0);
    if (file->held && file->held_offset + WAL_FRAME_BYTES == (uint64_t)offset) {
        struct iovec both[2] = {
            {.iov_base = file->held_bytes, .iov_len = WAL_FRAME_BYTES},
            {.iov_base = (void *)(uintptr_t)buf, .iov_len = (size_t)len},
        };

        file->held = false;
        uint64_t bytes = WAL_FRAME_BYTES + (uint64_t)len;

        rc = io_writev(io_of(file), file->fd, both, 2, file->held_offset);
        return rc ? failed(rc, SQLITE_IOERR_WRITE) : written(file, file->held_offset, bytes);
    }
    rc = flush(file);
    if (rc)
        return rc;
    if (file->is_wal && len == WAL_FRAME_BYTES) {
        /* Nobody reads a frame before its page is there; any other call on this handle writes the
         * header first. */
        memcpy(file->held_bytes, buf, WAL_FRAME_BYTES);
        file->held_offset = (uint64_t)offset;
        file->held = true;
        return SQLITE_OK;
    }
    if (is_page(file, len, offset))
        return write_page(file, buf, offset);
    rc = io_write(io_of(file), file->fd, buf, (size_t)len, (uint64_t)offset);
    return rc ? failed(rc, SQLITE_IOERR_WRITE) : SQLITE_OK;
}

static int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct file *file = (struct file *)base;
    struct io *io = io_of(file);
    int rc = flush(file);

    assert(size >= 0);
    if (rc)
        return rc;
    rc = io->truncate(io, file->fd, (uint64_t)size);
    return rc ? failed(rc, SQLITE_IOERR_TRUNCATE) : SQLITE_OK;
}

/* Sync the directory that PATH lies in. */
static int sync_parent(struct vfs *vfs, const char *path)
{
    struct io *io = vfs->env->io;
    const char *slash = strrchr(path, '/');
    char dir[PATH_BYTES];
    size_t len = slash ? (size_t)(slash - path) : 0;

    if (!slash)
        return io->sync_dir(io, ".");
    if (len == 0)
        return io->sync_dir(io, "/");
    if (len >= sizeof dir)
        return ERR_TOO_BIG;
    memcpy(dir, path, len);
    dir[len] = 0;
    return io->sync_dir(io, dir);
}

static int file_sync(sqlite3_file *base, int flags)
{
    struct file *file = (struct file *)base;
    struct io *io = io_of(file);
    int rc = flush(file);

    if (rc)
        return rc;
    if (file->sync_error)
        return failed(file->sync_error, SQLITE_IOERR_FSYNC);
    rc = flags & SQLITE_SYNC_DATAONLY ? io->fdatasync(io, file->fd) : io->fsync(io, file->fd);
    if (!rc && file->sync_dir)
        rc = sync_parent(file->vfs, file->path);
    if (rc) {
        file->sync_error = rc;
        return failed(rc, SQLITE_IOERR_FSYNC);
    }
    file->run_bytes = 0;
    file->sync_dir = false;
    return SQLITE_OK;
}

static int file_size(sqlite3_file *base, sqlite3_int64 *out)
{
    struct file *file = (struct file *)base;
    struct io *io = io_of(file);
    struct io_stat stat;
    int rc = flush(file);

    if (rc)
        return rc;
    rc = io->stat_fd(io, file->fd, &stat);
    if (rc)
        return failed(rc, SQLITE_IOERR_FSTAT);
    if (stat.size_bytes > INT64_MAX)
        return failed(ERR_TOO_BIG, SQLITE_IOERR_FSTAT);
    *out = (sqlite3_int64)stat.size_bytes;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *base, int op, void *arg)
{
    struct file *file = (struct file *)base;

    switch (op) {
    case SQLITE_FCNTL_LOCKSTATE:
        *(int *)arg = file->level;
        return SQLITE_OK;
    case SQLITE_FCNTL_VFSNAME:
        *(char **)arg = sqlite3_mprintf("%s", file->vfs->name);
        return SQLITE_OK;
    case VFS_FCNTL_PAGE_SUMS:
        file->page_sums = true;
        return SQLITE_OK;
    default:
        return SQLITE_NOTFOUND;
    }
}

static int file_sector_size(sqlite3_file *base)
{
    (void)base;
    return SECTOR_BYTES;
}

static int file_characteristics(sqlite3_file *base)
{
    (void)base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* ---- Locks of the main database file: sqlite.org/lockingv3.html ---- */

static int take_level(struct file *file, int level)
{
    struct shared *shared = file->shared;

    if (level == SQLITE_LOCK_SHARED) {
        if (shared->pending)
            return SQLITE_BUSY;
        shared->readers++;
        file->level = SQLITE_LOCK_SHARED;
        return SQLITE_OK;
    }
    assert(file->level >= SQLITE_LOCK_SHARED);
    if (shared->writer && shared->writer != file)
        return SQLITE_BUSY;
    shared->writer = file;
    if (level == SQLITE_LOCK_RESERVED) {
        file->level = SQLITE_LOCK_RESERVED;
        return SQLITE_OK;
    }
    assert(level == SQLITE_LOCK_EXCLUSIVE);
    shared->pending = true;
    file->level = SQLITE_LOCK_PENDING;
    if (shared->readers > 1)
        return SQLITE_BUSY;
    file->level = SQLITE_LOCK_EXCLUSIVE;
    return SQLITE_OK;
}

static int file_lock(sqlite3_file *base, int level)
{
    struct file *file = (struct file *)base;

    if (!file->shared || file->level >= level)
        return SQLITE_OK;
    pthread_mutex_lock(&file->vfs->mutex);
    int rc = take_level(file, level);
    pthread_mutex_unlock(&file->vfs->mutex);
    return rc;
}

static int file_unlock(sqlite3_file *base, int level)
{
    struct file *file = (struct file *)base;
    struct shared *shared = file->shared;

    assert(level == SQLITE_LOCK_NONE || level == SQLITE_LOCK_SHARED);
    if (!shared || file->level <= level)
        return SQLITE_OK;
    pthread_mutex_lock(&file->vfs->mutex);
    if (shared->writer == file) {
        shared->writer = NULL;
        shared->pending = false;
    }
    if (level == SQLITE_LOCK_NONE) {
        assert(shared->readers > 0);
        shared->readers--;
    }
    file->level = level;
    pthread_mutex_unlock(&file->vfs->mutex);
    return SQLITE_OK;
}

static int file_check_reserved(sqlite3_file *base, int *out)
{
    struct file *file = (struct file *)base;

    *out = 0;
    if (!file->shared)
        return SQLITE_OK;
    pthread_mutex_lock(&file->vfs->mutex);
    *out = file->shared->writer != NULL;
    pthread_mutex_unlock(&file->vfs->mutex);
    return SQLITE_OK;
}

/* ---- Shared memory: the wal-index ---- */

/* Make regions up to number REGION exist. */
static int grow_regions(struct shared *shared, unsigned region, size_t size)
{
    void **grown = realloc(shared->regions, (region + 1) * sizeof *grown);

    if (!grown)
        return failed(ERR_NO_MEMORY, SQLITE_IOERR_NOMEM);
    shared->regions = grown;
    while (shared->region_count <= region) {
        void *fresh = calloc(1, size);

        if (!fresh)
            return failed(ERR_NO_MEMORY, SQLITE_IOERR_NOMEM);
        shared->regions[shared->region_count++] = fresh;
    }
    return SQLITE_OK;
}

static int file_shm_map(sqlite3_file *base, int region, int size, int extend, void volatile **out)
{
    struct file *file = (struct file *)base;
    struct shared *shared = file->shared;
    int rc = SQLITE_OK;

    assert(shared && region >= 0 && size > 0);
    *out = NULL;
    if (region >= MAX_REGIONS)
        return failed(ERR_TOO_BIG, SQLITE_IOERR_SHMSIZE);
    pthread_mutex_lock(&file->vfs->mutex);
    if (!file->mapped) {
        file->mapped = true;
        shared->users++;
    }
    if ((unsigned)region >= shared->region_count && extend)
        rc = grow_regions(shared, (unsigned)region, (size_t)size);
    if (rc == SQLITE_OK && (unsigned)region < shared->region_count)
        *out = shared->regions[region];
    pthread_mutex_unlock(&file->vfs->mutex);
    return rc;
}

static int lock_shared(struct file *file, int slot)
{
    atomic_int *count = &file->shared->slots[slot];
    int seen = atomic_load_explicit(count, memory_order_relaxed);

    do {
        if (seen < 0)
            return SQLITE_BUSY;
    } while (!atomic_compare_exchange_weak_explicit(count, &seen, seen + 1, memory_order_acquire,
                                                    memory_order_relaxed));
    file->shm_shared |= 1u << slot;
    return SQLITE_OK;
}

static int lock_exclusive(struct file *file, int first, int count)
{
    atomic_int *slots = file->shared->slots;

    for (int i = first; i < first + count; i++) {
        int free_slot = 0;

        if (!atomic_compare_exchange_strong_explicit(&slots[i], &free_slot, -1,
                                                     memory_order_acquire, memory_order_relaxed)) {
            while (--i >= first)
                atomic_store_explicit(&slots[i], 0, memory_order_release);
            return SQLITE_BUSY;
        }
    }
    for (int i = first; i < first + count; i++)
        file->shm_exclusive |= 1u << i;
    return SQLITE_OK;
}

/* SQLite may unlock what it does not hold. */
static void unlock_slots(struct file *file, int first, int count)
{
    atomic_int *slots = file->shared->slots;

    for (int i = first; i < first + count; i++) {
        unsigned bit = 1u << i;

        assert(!(file->shm_shared & file->shm_exclusive & bit));
        if (file->shm_exclusive & bit)
            atomic_store_explicit(&slots[i], 0, memory_order_release);
        if (file->shm_shared & bit)
            atomic_fetch_sub_explicit(&slots[i], 1, memory_order_release);
        file->shm_exclusive &= ~bit;
        file->shm_shared &= ~bit;
    }
}

static int file_shm_lock(sqlite3_file *base, int first, int count, int flags)
{
    struct file *file = (struct file *)base;

    assert(first >= 0 && count > 0 && first + count <= SQLITE_SHM_NLOCK);
    /* SQLite goes on to lock where memory was too short to ask for the mapping. */
    if (!file->mapped)
        return failed(ERR_NO_MEMORY, SQLITE_IOERR_SHMLOCK);
    if (flags & SQLITE_SHM_UNLOCK) {
        unlock_slots(file, first, count);
        return SQLITE_OK;
    }
    if (flags & SQLITE_SHM_SHARED) {
        assert(count == 1 && !(file->shm_exclusive & 1u << first));
        return file->shm_shared & 1u << first ? SQLITE_OK : lock_shared(file, first);
    }
    return lock_exclusive(file, first, count);
}

static void file_shm_barrier(sqlite3_file *base)
{
    (void)base;
    __sync_synchronize();
}

static int file_shm_unmap(sqlite3_file *base, int delete_it)
{
    struct file *file = (struct file *)base;
    struct shared *shared = file->shared;

    (void)delete_it; /* there is nothing that outlives the last user */
    if (!file->mapped)
        return SQLITE_OK;
    unlock_slots(file, 0, SQLITE_SHM_NLOCK);
    pthread_mutex_lock(&file->vfs->mutex);
    file->mapped = false;
    assert(shared->users > 0);
    if (--shared->users == 0) {
        for (unsigned i = 0; i < shared->region_count; i++)
            free(shared->regions[i]);
        free(shared->regions);
        shared->regions = NULL;
        shared->region_count = 0;
    }
    pthread_mutex_unlock(&file->vfs->mutex);
    return SQLITE_OK;
}

/* Join, or found, what the connections to PATH share. */
static struct shared *join(struct vfs *vfs, const char *path)
{
    struct shared *shared;

    pthread_mutex_lock(&vfs->mutex);
    for (shared = vfs->shares; shared; shared = shared->next)
        if (strcmp(shared->path, path) == 0)
            break;
    if (!shared) {
        shared = calloc(1, sizeof *shared);
        if (shared && !(shared->path = strdup(path))) {
            free(shared);
            shared = NULL;
        }
        if (shared) {
            shared->next = vfs->shares;
            vfs->shares = shared;
        }
    }
    if (shared)
        shared->files++;
    pthread_mutex_unlock(&vfs->mutex);
    return shared;
}

static void leave(struct vfs *vfs, struct shared *shared)
{
    struct shared **at = &vfs->shares;

    pthread_mutex_lock(&vfs->mutex);
    assert(shared->files > 0);
    if (--shared->files == 0) {
        while (*at != shared)
            at = &(*at)->next;
        *at = shared->next;
        assert(!shared->regions && shared->readers == 0 && !shared->writer);
        free(shared->path);
        free(shared);
    }
    pthread_mutex_unlock(&vfs->mutex);
}

static int file_close(sqlite3_file *base)
{
    struct file *file = (struct file *)base;
    int flushed = flush(file);
    int rc = io_close(io_of(file), &file->fd);

    if (file->shared) {
        (void)file_shm_unmap(base, 0);
        (void)file_unlock(base, SQLITE_LOCK_NONE);
        leave(file->vfs, file->shared);
        file->shared = NULL;
    }
    if (flushed != SQLITE_OK)
        return flushed;
    return rc ? failed(rc, SQLITE_IOERR_CLOSE) : SQLITE_OK;
}

static const sqlite3_io_methods file_methods = {
    .iVersion = 2, /* no memory mapping: a read error would be a signal */
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_characteristics,
    .xShmMap = file_shm_map,
    .xShmLock = file_shm_lock,
    .xShmBarrier = file_shm_barrier,
    .xShmUnmap = file_shm_unmap,
};

/* ---- The VFS ---- */

static int vfs_open(sqlite3_vfs *base, const char *path, sqlite3_file *out, int flags,
                    int *out_flags)
{
    struct vfs *vfs = (struct vfs *)base;
    struct file *file = (struct file *)out;
    unsigned mode = flags & SQLITE_OPEN_READWRITE ? IO_WRITE : IO_READ;

    *file = (struct file){.vfs = vfs, .path = path, .fd = -1};
    if (!path || flags & SQLITE_OPEN_DELETEONCLOSE)
        return failed(ERR_UNSUPPORTED, SQLITE_CANTOPEN);
    if (flags & SQLITE_OPEN_CREATE)
        mode |= IO_CREATE;
    if (flags & SQLITE_OPEN_EXCLUSIVE)
        mode |= IO_EXCLUSIVE;
    file->sync_dir = flags & SQLITE_OPEN_CREATE;
    file->is_wal = flags & SQLITE_OPEN_WAL;
    file->fd = io_open(vfs->env->io, path, mode);
    if (file->fd < 0)
        return failed(file->fd, SQLITE_CANTOPEN);
    if (flags & SQLITE_OPEN_MAIN_DB) {
        file->shared = join(vfs, path);
        if (!file->shared) {
            (void)io_close(vfs->env->io, &file->fd); /* nothing was written */
            return failed(ERR_NO_MEMORY, SQLITE_IOERR_NOMEM);
        }
    }
    file->base.pMethods = &file_methods;
    if (out_flags)
        *out_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *base, const char *path, int sync_dir)
{
    struct vfs *vfs = (struct vfs *)base;
    struct io *io = vfs->env->io;
    int rc = io->unlink(io, path);

    if (rc == ERR_NOT_FOUND)
        return failed(rc, SQLITE_IOERR_DELETE_NOENT);
    if (rc)
        return failed(rc, SQLITE_IOERR_DELETE);
    rc = sync_dir ? sync_parent(vfs, path) : ERR_NONE;
    return rc ? failed(rc, SQLITE_IOERR_DIR_FSYNC) : SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *base, const char *path, int flags, int *out)
{
    struct vfs *vfs = (struct vfs *)base;
    struct io *io = vfs->env->io;
    struct io_stat stat;
    int rc = io->stat(io, path, &stat);

    *out = 0;
    if (rc == ERR_NOT_FOUND)
        return SQLITE_OK;
    if (rc)
        return failed(rc, SQLITE_IOERR_ACCESS);
    /* As SQLite's own VFS: an empty journal is none. */
    *out = flags != SQLITE_ACCESS_EXISTS || stat.is_dir || stat.size_bytes > 0;
    return SQLITE_OK;
}

/* Paths are names for the io beneath and stay what they are; a database goes by one of them. */
static int vfs_full_pathname(sqlite3_vfs *base, const char *path, int cap, char *out)
{
    size_t len = strlen(path);

    (void)base;
    if (len >= (size_t)cap)
        return failed(ERR_TOO_BIG, SQLITE_CANTOPEN);
    memcpy(out, path, len + 1);
    return SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *base, int len, char *out)
{
    struct vfs *vfs = (struct vfs *)base;

    assert(len >= 0);
    vfs->env->random(vfs->env, out, (size_t)len);
    return len;
}

static int vfs_sleep(sqlite3_vfs *base, int microseconds)
{
    struct timespec pause = {
        .tv_sec = microseconds / 1000000,
        .tv_nsec = (long)(microseconds % 1000000) * 1000,
    };

    (void)base;
    (void)nanosleep(&pause, NULL); /* SQLite asks again anyway */
    return microseconds;
}

static int vfs_time(sqlite3_vfs *base, sqlite3_int64 *out)
{
    struct vfs *vfs = (struct vfs *)base;

    *out = JULIAN_UNIX_MS + (sqlite3_int64)env_wall_ms(vfs->env);
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *base, int len, char *out)
{
    (void)base;
    if (len > 0 && out)
        snprintf(out, (size_t)len, "%s", err_text(last_error));
    return last_error;
}

int vfs_register(struct env *env, char name[32])
{
    static atomic_uint count;
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    assert(env && env->io);
    (void)pthread_once(&once, configure);
    struct vfs *vfs = calloc(1, sizeof *vfs);
    if (!vfs)
        return ERR_NO_MEMORY;
    vfs->env = env;
    snprintf(vfs->name, sizeof vfs->name, "objstore-%u", atomic_fetch_add(&count, 1) + 1);
    vfs->base = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = sizeof(struct file),
        .mxPathname = PATH_BYTES,
        .zName = vfs->name,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_pathname,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_time,
    };
    if (pthread_mutex_init(&vfs->mutex, NULL) != 0) {
        free(vfs);
        return ERR_NO_MEMORY;
    }
    if (sqlite3_vfs_register(&vfs->base, 0) != SQLITE_OK) {
        pthread_mutex_destroy(&vfs->mutex);
        free(vfs);
        return ERR_NO_MEMORY;
    }
    memcpy(name, vfs->name, NAME_BYTES);
    return 0;
}

void vfs_unregister(const char *name)
{
    struct vfs *vfs = (struct vfs *)sqlite3_vfs_find(name);

    assert(vfs && vfs->base.xOpen == vfs_open && !vfs->shares);
    sqlite3_vfs_unregister(&vfs->base);
    pthread_mutex_destroy(&vfs->mutex);
    free(vfs);
}
