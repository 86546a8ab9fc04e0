/*
 * The simulated disk: see sim_disk.h for what it promises and what it may lose.
 * sim_inode.c has the bytes of files; here are the names, the calls and the whole.
 */
#include "tests/sim/sim_disk.h"

#include "base/hash.h"
#include "tests/sim/sim_inode.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOT      "/sim"
#define WRITEBACK 16 /* one write in so many has the disk write something back */

struct sim_name {
    char *path;
    const char *leaf;
    int parent;    /* the directory's name; -1: the root's */
    int now, disk; /* inode or -1 */
    int next;      /* in the hash table */
};

/* A change of one name or, for a rename inside a directory, of two. */
struct sim_change {
    int name, inode;
    int second; /* becomes nobody's at the same moment; -1: none */
    int needs;  /* index of the change that comes first; -1: none */
    bool done;
};

struct sim_fd {
    int inode; /* -1: closed */
    bool write;
    unsigned told; /* of the inode's errors */
};

const char *const sim_op_names[SIM_OPS] = {"create",   "write",    "fdatasync", "fsync",
                                           "truncate", "rename",   "link",      "unlink",
                                           "mkdir",    "sync_dir", "read"};

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

uint64_t sim_dice(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * UINT64_C(0x2545F4914F6CDD1D) >> 8;
}

static struct sim_disk *disk_of(struct io *io)
{
    return (struct sim_disk *)io;
}

static uint64_t roll(struct sim_disk *disk, uint64_t below)
{
    return sim_dice(&disk->dice) % below;
}

/* ---- Trace ---- */

static void trace(struct sim_disk *disk, uint64_t what, uint64_t a, uint64_t b, int64_t rc)
{
    uint64_t words[5] = {disk->trace, what, a, b, (uint64_t)rc};

    disk->trace = xxh64(words, sizeof words, 0);
}

/* ---- Names ---- */

static int new_inode(struct sim_disk *disk, bool is_dir)
{
    struct sim_inode *inode = must(calloc(1, sizeof *inode));

    inode->is_dir = is_dir;
    inode->floor = NO_FLOOR;
    inode->lock = -1;
    disk->inodes =
        must(realloc(disk->inodes, (size_t)(disk->inode_count + 1) * sizeof *disk->inodes));
    disk->inodes[disk->inode_count] = inode;
    return disk->inode_count++;
}

static int table_slot(const struct sim_disk *disk, const char *path, size_t len)
{
    return (int)(xxh64(path, len, 0) % (uint64_t)disk->table_size);
}

static int find_name(const struct sim_disk *disk, const char *path, size_t len)
{
    for (int i = disk->table[table_slot(disk, path, len)]; i >= 0; i = disk->names[i].next)
        if (strlen(disk->names[i].path) == len && memcmp(disk->names[i].path, path, len) == 0)
            return i;
    return -1;
}

/* The name of PATH, made where it is missing; -1 where its directory is not there. */
static int need_name(struct sim_disk *disk, const char *path)
{
    int found = find_name(disk, path, strlen(path));
    const char *slash = strrchr(path, '/');
    int parent = slash && slash != path ? find_name(disk, path, (size_t)(slash - path)) : -1;

    if (strcmp(path, ROOT) != 0 && (parent < 0 || disk->names[parent].now < 0 ||
                                    !disk->inodes[disk->names[parent].now]->is_dir))
        return -1;
    if (found >= 0)
        return found;
    if (disk->name_count == disk->name_cap) {
        disk->name_cap = disk->name_cap ? 2 * disk->name_cap : 512;
        disk->names = must(realloc(disk->names, (size_t)disk->name_cap * sizeof *disk->names));
    }
    struct sim_name *name = &disk->names[disk->name_count];
    int slot = table_slot(disk, path, strlen(path));

    *name = (struct sim_name){.path = must(strdup(path)),
                              .parent = parent,
                              .now = -1,
                              .disk = -1,
                              .next = disk->table[slot]};
    name->leaf = strrchr(name->path, '/') + 1;
    disk->table[slot] = disk->name_count;
    return disk->name_count++;
}

static struct sim_inode *look_up(const struct sim_disk *disk, const char *path, int *name)
{
    int found = find_name(disk, path, strlen(path));

    *name = found;
    return found >= 0 && disk->names[found].now >= 0 ? disk->inodes[disk->names[found].now] : NULL;
}

static int add_change(struct sim_disk *disk, struct sim_change change)
{
    if (disk->change_count == disk->change_cap) {
        disk->change_cap = disk->change_cap ? 2 * disk->change_cap : 64;
        disk->changes =
            must(realloc(disk->changes, (size_t)disk->change_cap * sizeof *disk->changes));
    }
    disk->changes[disk->change_count] = change;
    return disk->change_count++;
}

/* NAME leads to INODE from now on; SECOND, where not negative, to nobody. */
static int change_name(struct sim_disk *disk, int name, int inode, int second, int needs)
{
    disk->names[name].now = inode;
    if (second >= 0)
        disk->names[second].now = -1;
    return add_change(
        disk, (struct sim_change){.name = name, .inode = inode, .second = second, .needs = needs});
}

static bool touches(const struct sim_change *change, int name)
{
    return name >= 0 && (change->name == name || change->second == name);
}

/* Change number I reaches the disk, after whatever must come first. */
static void settle_change(struct sim_disk *disk, int i)
{
    struct sim_change *change = &disk->changes[i];

    if (change->done)
        return;
    if (change->needs >= 0)
        settle_change(disk, change->needs);
    for (int j = 0; j < i; j++)
        if (touches(&disk->changes[j], change->name) || touches(&disk->changes[j], change->second))
            settle_change(disk, j);
    change->done = true;
    disk->names[change->name].disk = change->inode;
    if (change->second >= 0)
        disk->names[change->second].disk = -1;
}

static void forget_done(struct sim_disk *disk)
{
    for (int i = 0; i < disk->change_count; i++)
        if (!disk->changes[i].done)
            return;
    disk->change_count = 0;
}

static bool is_open(const struct sim_disk *disk, int inode)
{
    for (int i = 0; i < disk->fd_count; i++)
        if (disk->fds[i].inode == inode)
            return true;
    return false;
}

/* Free the bytes of files that no name and no descriptor leads to. */
static void sweep(struct sim_disk *disk)
{
    bool *used = must(calloc((size_t)disk->inode_count + 1, 1));

    for (int i = 0; i < disk->name_count; i++) {
        if (disk->names[i].now >= 0)
            used[disk->names[i].now] = true;
        if (disk->names[i].disk >= 0)
            used[disk->names[i].disk] = true;
    }
    for (int i = 0; i < disk->change_count; i++)
        if (disk->changes[i].inode >= 0)
            used[disk->changes[i].inode] = true;
    for (int i = 0; i < disk->inode_count; i++)
        if (!used[i] && disk->inodes[i]->page_count && !is_open(disk, i))
            inode_release(disk->inodes[i]);
    free(used);
}

uint64_t sim_disk_used(const struct sim_disk *disk)
{
    bool *seen = must(calloc((size_t)disk->inode_count + 1, 1));
    uint64_t pages = 0;

    for (int i = 0; i < disk->name_count; i++)
        if (disk->names[i].now >= 0)
            seen[disk->names[i].now] = true;
    for (int i = 0; i < disk->fd_count; i++)
        if (disk->fds[i].inode >= 0)
            seen[disk->fds[i].inode] = true;
    for (int i = 0; i < disk->inode_count; i++)
        for (size_t p = 0; seen[i] && p < disk->inodes[i]->page_count; p++)
            pages += disk->inodes[i]->pages[p].now != NULL;
    free(seen);
    return pages * PAGE;
}

/* ---- Calls ---- */

static enum sim_fate ask(struct sim_disk *disk, enum sim_op op, const char *path, int *rc)
{
    *rc = ERR_IO;
    if (disk->dead)
        return SIM_FAIL;
    disk->calls++;
    disk->of[op]++;
    enum sim_fate fate = disk->gate ? disk->gate(disk, op, path, rc) : SIM_PASS;
    if (fate == SIM_DIE) {
        disk->dead = true;
        *rc = ERR_IO;
    }
    return fate;
}

/* Whether a call on names that dies has happened before: half of the time. */
static bool happens(struct sim_disk *disk, enum sim_fate fate)
{
    return fate == SIM_DIE ? roll(disk, 2) : fate != SIM_FAIL;
}

static struct sim_inode *inode_of(struct sim_disk *disk, int fd)
{
    assert(fd >= 0 && fd < disk->fd_count && disk->fds[fd].inode >= 0);
    return disk->inodes[disk->fds[fd].inode];
}

static int new_fd(struct sim_disk *disk, int inode, bool write)
{
    int fd = 0;

    while (fd < disk->fd_count && disk->fds[fd].inode >= 0)
        fd++;
    if (fd == disk->fd_count) {
        disk->fds = must(realloc(disk->fds, (size_t)(fd + 1) * sizeof *disk->fds));
        disk->fd_count++;
    }
    disk->fds[fd] =
        (struct sim_fd){.inode = inode, .write = write, .told = disk->inodes[inode]->errors};
    return fd;
}

static int sim_open(struct io *io, const char *path, unsigned flags)
{
    struct sim_disk *disk = disk_of(io);
    int name, rc;

    if (disk->dead)
        return ERR_IO;
    struct sim_inode *inode = look_up(disk, path, &name);
    if (inode && inode->is_dir)
        return ERR_INVALID;
    if (inode && flags & IO_EXCLUSIVE)
        return ERR_EXISTS;
    if (!inode) {
        if (!(flags & IO_CREATE) || (name = need_name(disk, path)) < 0)
            return ERR_NOT_FOUND;
        enum sim_fate fate = ask(disk, SIM_CREATE, path, &rc);
        if (happens(disk, fate))
            change_name(disk, name, new_inode(disk, false), -1, -1);
        if (fate == SIM_FAIL || fate == SIM_DIE)
            return rc;
    }
    int fd = new_fd(disk, disk->names[name].now, flags & IO_WRITE);
    trace(disk, 100, xxh64(path, strlen(path), 0), flags, fd);
    return fd;
}

static int sim_close(struct io *io, int fd)
{
    struct sim_disk *disk = disk_of(io);
    struct sim_inode *inode = inode_of(disk, fd);

    if (inode->lock == fd)
        inode->lock = -1;
    disk->fds[fd].inode = -1;
    return disk->dead ? ERR_IO : 0;
}

static ssize_t sim_pread(struct io *io, int fd, void *buf, size_t len, uint64_t offset, bool nowait)
{
    struct sim_disk *disk = disk_of(io);
    struct sim_inode *inode = inode_of(disk, fd);
    uint8_t *at = buf;

    if (disk->dead)
        return ERR_IO;
    if (nowait && disk->nowait_misses && roll(disk, 2))
        return ERR_AGAIN;
    int rc = ERR_IO;
    if (disk->gate && disk->gate(disk, SIM_READ, "", &rc) == SIM_FAIL)
        return rc;
    if (offset >= inode->size || len == 0)
        return 0;
    if (len > inode->size - offset)
        len = (size_t)(inode->size - offset);
    if (roll(disk, 32) == 0)
        len = 1 + (size_t)roll(disk, len);
    for (size_t done = 0; done < len;) {
        size_t page = (size_t)((offset + done) / PAGE), skip = (size_t)((offset + done) % PAGE);
        size_t part = PAGE - skip < len - done ? PAGE - skip : len - done;

        if (page < inode->page_count)
            memcpy(at + done, buffer_bytes(inode->pages[page].now) + skip, part);
        else
            memset(at + done, 0, part);
        done += part;
    }
    trace(disk, 101, offset, len, 0);
    return (ssize_t)len;
}

/* Put LEN bytes at OFFSET into the cache; how many found room on the disk. */
static size_t put_bytes(struct sim_disk *disk, struct sim_inode *inode, const uint8_t *data,
                        size_t len, uint64_t offset)
{
    uint64_t room = UINT64_MAX;
    size_t done = 0;

    inode_need_pages(inode, offset + len);
    while (done < len) {
        size_t i = (size_t)((offset + done) / PAGE), skip = (size_t)((offset + done) % PAGE);
        size_t part = PAGE - skip < len - done ? PAGE - skip : len - done;
        struct page *page = &inode->pages[i];

        if (!page->now) {
            if (room == UINT64_MAX) {
                uint64_t used = sim_disk_used(disk);
                room = used < disk->total_bytes ? disk->total_bytes - used : 0;
            }
            if (room < PAGE)
                break;
            room -= PAGE;
        }
        memcpy(buffer_own(&page->now) + skip, data + done, part);
        page->dirty = true;
        done += part;
    }
    if (done > 0 && offset + done > inode->size)
        inode->size = offset + done;
    return done;
}

static ssize_t sim_pwritev(struct io *io, int fd, const struct iovec *iov, int count,
                           uint64_t offset)
{
    struct sim_disk *disk = disk_of(io);
    struct sim_inode *inode = inode_of(disk, fd);
    size_t len = 0, at = 0;
    int rc;

    assert(disk->fds[fd].write);
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    enum sim_fate fate = ask(disk, SIM_WRITE, "", &rc);
    if (disk->dead && fate == SIM_FAIL)
        return ERR_IO;
    if (fate == SIM_INTERRUPTED) {
        trace(disk, SIM_WRITE, offset, len, fate);
        if (len == 0 || roll(disk, 2))
            return sim_pwritev(io, fd, iov, count, offset);
        fate = SIM_SHORT;
    }
    uint8_t *data = must(malloc(len + 1));
    for (int i = 0; i < count; i++) {
        if (iov[i].iov_len)
            memcpy(data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    trace(disk, SIM_WRITE, offset, xxh64(data, len, len), fate);
    size_t part = len;
    if (fate == SIM_SHORT && len > 0) {
        part = 1 + (size_t)roll(disk, len);
    } else if (fate == SIM_FAIL || (fate == SIM_DIE && disk->kind == SIM_KILL)) {
        /* It got so far, up to the end of some sector. */
        uint64_t first = offset / SECTOR, last = (offset + len) / SECTOR;
        uint64_t end = (first + roll(disk, last - first + 1)) * SECTOR;

        part = end > offset ? (size_t)(end - offset) : 0;
    }
    size_t done = put_bytes(disk, inode, data, part, offset);
    free(data);
    if (!disk->dead && roll(disk, WRITEBACK) == 0)
        inode_write_some_back(inode, &disk->dice);
    if (fate == SIM_FAIL || fate == SIM_DIE)
        return rc;
    if (done == 0 && len > 0)
        return ERR_NO_SPACE;
    return (ssize_t)done;
}

static int sync_fd(struct sim_disk *disk, int fd, enum sim_op op)
{
    struct sim_inode *inode = inode_of(disk, fd);
    int rc;
    enum sim_fate fate = ask(disk, op, "", &rc);

    if (disk->dead)
        return ERR_IO;
    trace(disk, op, (uint64_t)disk->fds[fd].inode, inode->size, fate);
    if (fate == SIM_FAIL) {
        inode_fail_sync(inode, &disk->dice);
        disk->fds[fd].told = ++inode->errors;
        return rc;
    }
    if (fate == SIM_PASS && disk->fds[fd].told != inode->errors) {
        disk->fds[fd].told = inode->errors; /* another descriptor's sync lost pages */
        return ERR_IO;
    }
    if (fate == SIM_INTERRUPTED) {
        inode_write_some_back(inode, &disk->dice);
        return sync_fd(disk, fd, op);
    }
    inode_sync(inode, op == SIM_FSYNC);
    return 0;
}

static int sim_fdatasync(struct io *io, int fd)
{
    return sync_fd(disk_of(io), fd, SIM_FDATASYNC);
}

static int sim_fsync(struct io *io, int fd)
{
    return sync_fd(disk_of(io), fd, SIM_FSYNC);
}

static int sim_sync_range(struct io *io, int fd, uint64_t offset, uint64_t len, bool wait)
{
    struct sim_disk *disk = disk_of(io);

    (void)wait;
    if (disk->dead)
        return ERR_IO;
    trace(disk, 102, offset, len, 0);
    inode_write_some_back(inode_of(disk, fd), &disk->dice);
    return 0;
}

static int sim_truncate(struct io *io, int fd, uint64_t size)
{
    struct sim_disk *disk = disk_of(io);
    struct sim_inode *inode = inode_of(disk, fd);
    int rc;
    enum sim_fate fate = ask(disk, SIM_TRUNCATE, "", &rc);

    assert(disk->fds[fd].write);
    if (!happens(disk, fate))
        return rc;
    trace(disk, SIM_TRUNCATE, (uint64_t)disk->fds[fd].inode, size, 0);
    if (size < inode->size) {
        for (size_t i = (size_t)(size / PAGE); i < inode->page_count; i++) {
            struct page *page = &inode->pages[i];
            size_t keep = i == size / PAGE ? (size_t)(size % PAGE) : 0;

            if (keep && page->now) {
                memset(buffer_own(&page->now) + keep, 0, PAGE - keep);
                page->dirty = true;
            } else if (!keep) {
                buffer_drop(&page->now);
                page->dirty = false;
            }
        }
        if (size < inode->disk_size && size < inode->floor)
            inode->floor = size;
    }
    inode_need_pages(inode, size);
    inode->size = size;
    return fate == SIM_DIE ? rc : 0;
}

static void fill_stat(const struct sim_inode *inode, struct io_stat *out)
{
    *out = (struct io_stat){.size_bytes = inode->size, .is_dir = inode->is_dir};
    for (size_t i = 0; i < inode->page_count; i++)
        out->used_bytes += inode->pages[i].now ? PAGE : 0;
}

static int sim_stat_fd(struct io *io, int fd, struct io_stat *out)
{
    struct sim_disk *disk = disk_of(io);

    if (disk->dead)
        return ERR_IO;
    fill_stat(inode_of(disk, fd), out);
    return 0;
}

static int sim_stat(struct io *io, const char *path, struct io_stat *out)
{
    struct sim_disk *disk = disk_of(io);
    int name;

    if (disk->dead)
        return ERR_IO;
    const struct sim_inode *inode = look_up(disk, path, &name);
    if (!inode)
        return ERR_NOT_FOUND;
    fill_stat(inode, out);
    return 0;
}

static int sim_drop_cache(struct io *io, int fd)
{
    struct sim_disk *disk = disk_of(io);
    struct sim_inode *inode = inode_of(disk, fd);

    if (disk->dead)
        return ERR_IO;
    for (size_t i = 0; i < inode->page_count; i++)
        if (!inode->pages[i].dirty && (i + 1) * PAGE <= inode->floor)
            buffer_share(&inode->pages[i].now, inode->pages[i].disk);
    return 0;
}

static int sim_rename(struct io *io, const char *from, const char *to)
{
    struct sim_disk *disk = disk_of(io);
    int source, rc;

    if (disk->dead)
        return ERR_IO;
    if (!look_up(disk, from, &source))
        return ERR_NOT_FOUND;
    int target = need_name(disk, to);
    if (target < 0)
        return ERR_NOT_FOUND;
    enum sim_fate fate = ask(disk, SIM_RENAME, to, &rc);
    trace(disk, SIM_RENAME, xxh64(from, strlen(from), 0), xxh64(to, strlen(to), 0), fate);
    if (!happens(disk, fate))
        return rc;
    int inode = disk->names[source].now;
    if (target != source && disk->names[target].now != inode) {
        if (disk->names[source].parent == disk->names[target].parent) {
            change_name(disk, target, inode, source, -1);
        } else {
            int first = change_name(disk, target, inode, -1, -1);

            change_name(disk, source, -1, -1, first);
        }
    }
    return fate == SIM_DIE ? rc : 0;
}

static int sim_link(struct io *io, const char *from, const char *to)
{
    struct sim_disk *disk = disk_of(io);
    int source, rc;

    if (disk->dead)
        return ERR_IO;
    if (!look_up(disk, from, &source))
        return ERR_NOT_FOUND;
    int target = need_name(disk, to);
    if (target < 0)
        return ERR_NOT_FOUND;
    if (disk->names[target].now >= 0)
        return ERR_EXISTS;
    enum sim_fate fate = ask(disk, SIM_LINK, to, &rc);
    trace(disk, SIM_LINK, xxh64(from, strlen(from), 0), xxh64(to, strlen(to), 0), fate);
    if (!happens(disk, fate))
        return rc;
    change_name(disk, target, disk->names[source].now, -1, -1);
    return fate == SIM_DIE ? rc : 0;
}

static int sim_unlink(struct io *io, const char *path)
{
    struct sim_disk *disk = disk_of(io);
    int name, rc;

    if (disk->dead)
        return ERR_IO;
    const struct sim_inode *inode = look_up(disk, path, &name);
    if (!inode)
        return ERR_NOT_FOUND;
    if (inode->is_dir)
        return ERR_INVALID;
    enum sim_fate fate = ask(disk, SIM_UNLINK, path, &rc);
    trace(disk, SIM_UNLINK, xxh64(path, strlen(path), 0), 0, fate);
    if (!happens(disk, fate))
        return rc;
    change_name(disk, name, -1, -1, -1);
    return fate == SIM_DIE ? rc : 0;
}

static int sim_mkdir(struct io *io, const char *path)
{
    struct sim_disk *disk = disk_of(io);
    int rc;

    if (disk->dead)
        return ERR_IO;
    int name = need_name(disk, path);
    if (name < 0)
        return ERR_NOT_FOUND;
    if (disk->names[name].now >= 0)
        return ERR_EXISTS;
    enum sim_fate fate = ask(disk, SIM_MKDIR, path, &rc);
    trace(disk, SIM_MKDIR, xxh64(path, strlen(path), 0), 0, fate);
    if (!happens(disk, fate))
        return rc;
    change_name(disk, name, new_inode(disk, true), -1, -1);
    return fate == SIM_DIE ? rc : 0;
}

static int sim_sync_dir(struct io *io, const char *path)
{
    struct sim_disk *disk = disk_of(io);
    int name, rc;

    if (disk->dead)
        return ERR_IO;
    const struct sim_inode *inode = look_up(disk, path, &name);
    if (!inode || !inode->is_dir)
        return ERR_NOT_FOUND;
    enum sim_fate fate = ask(disk, SIM_SYNC_DIR, path, &rc);
    trace(disk, SIM_SYNC_DIR, xxh64(path, strlen(path), 0), 0, fate);
    if (fate == SIM_FAIL || fate == SIM_DIE)
        return rc;
    for (int i = 0; i < disk->change_count; i++) {
        const struct sim_change *change = &disk->changes[i];

        if (disk->names[change->name].parent == name)
            settle_change(disk, i);
    }
    forget_done(disk);
    sweep(disk);
    return 0;
}

static int sim_space(struct io *io, const char *path, struct io_space *out)
{
    struct sim_disk *disk = disk_of(io);

    (void)path;
    if (disk->dead)
        return ERR_IO;
    uint64_t used = sim_disk_used(disk);
    out->total_bytes = disk->total_bytes;
    out->free_bytes = used < disk->total_bytes ? disk->total_bytes - used : 0;
    return 0;
}

static int sim_lock(struct io *io, int fd)
{
    struct sim_disk *disk = disk_of(io);
    struct sim_inode *inode = inode_of(disk, fd);

    if (disk->dead)
        return ERR_IO;
    if (inode->lock >= 0 && inode->lock != fd)
        return ERR_LOCKED;
    inode->lock = fd;
    return 0;
}

static int sim_list(struct io *io, const char *path, int (*each)(void *arg, const char *name),
                    void *arg)
{
    struct sim_disk *disk = disk_of(io);
    int name;

    if (disk->dead)
        return ERR_IO;
    const struct sim_inode *inode = look_up(disk, path, &name);
    if (!inode || !inode->is_dir)
        return ERR_NOT_FOUND;
    /* In no order that anybody could rely on. */
    int count = disk->name_count, first = (int)roll(disk, (uint64_t)count);
    for (int n = 0; n < count; n++) {
        const struct sim_name *entry = &disk->names[(first + n) % count];

        if (entry->parent != name || entry->now < 0)
            continue;
        int rc = each(arg, entry->leaf);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- The disk ---- */

struct sim_disk *sim_disk_create(uint64_t seed, uint64_t total_bytes)
{
    struct sim_disk *disk = must(calloc(1, sizeof *disk));

    disk->io = (struct io){
        .open = sim_open,
        .close = sim_close,
        .pread = sim_pread,
        .pwritev = sim_pwritev,
        .fdatasync = sim_fdatasync,
        .fsync = sim_fsync,
        .sync_range = sim_sync_range,
        .truncate = sim_truncate,
        .stat_fd = sim_stat_fd,
        .stat = sim_stat,
        .drop_cache = sim_drop_cache,
        .rename = sim_rename,
        .link = sim_link,
        .unlink = sim_unlink,
        .mkdir = sim_mkdir,
        .sync_dir = sim_sync_dir,
        .space = sim_space,
        .lock = sim_lock,
        .list = sim_list,
    };
    disk->dice = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    disk->total_bytes = total_bytes;
    disk->table_size = 1024;
    disk->table = must(malloc((size_t)disk->table_size * sizeof *disk->table));
    memset(disk->table, 0xff, (size_t)disk->table_size * sizeof *disk->table);
    int root = need_name(disk, ROOT);
    assert(root == 0);
    disk->names[root].now = disk->names[root].disk = new_inode(disk, true);
    return disk;
}

void sim_disk_destroy(struct sim_disk **disk_ptr)
{
    struct sim_disk *disk = *disk_ptr;

    if (!disk)
        return;
    for (int i = 0; i < disk->inode_count; i++) {
        inode_release(disk->inodes[i]);
        free(disk->inodes[i]);
    }
    for (int i = 0; i < disk->name_count; i++)
        free(disk->names[i].path);
    free(disk->inodes);
    free(disk->names);
    free(disk->table);
    free(disk->changes);
    free(disk->fds);
    free(disk);
    *disk_ptr = NULL;
}

static void *copied(const void *from, size_t bytes)
{
    void *to = must(malloc(bytes ? bytes : 1));

    if (bytes)
        memcpy(to, from, bytes);
    return to;
}

struct sim_disk *sim_disk_copy(const struct sim_disk *disk)
{
    struct sim_disk *copy = copied(disk, sizeof *disk);

    copy->inodes = must(malloc((size_t)disk->inode_count * sizeof *copy->inodes));
    for (int i = 0; i < disk->inode_count; i++)
        copy->inodes[i] = inode_copy(disk->inodes[i]);
    copy->names = copied(disk->names, (size_t)disk->name_count * sizeof *copy->names);
    copy->name_cap = disk->name_count;
    for (int i = 0; i < disk->name_count; i++) {
        copy->names[i].path = must(strdup(disk->names[i].path));
        copy->names[i].leaf = strrchr(copy->names[i].path, '/') + 1;
    }
    copy->table = copied(disk->table, (size_t)disk->table_size * sizeof *copy->table);
    copy->changes = copied(disk->changes, (size_t)disk->change_count * sizeof *copy->changes);
    copy->change_cap = disk->change_count;
    copy->fds = NULL;
    for (int i = 0; i < disk->fd_count; i++)
        assert(disk->fds[i].inode < 0);
    copy->fd_count = 0;
    return copy;
}

/* Which of the changes of names reached the disk. */
static void lose_names(struct sim_disk *disk)
{
    uint64_t how = roll(disk, 4); /* none, all, a first part, any */
    int first = disk->change_count ? (int)roll(disk, (uint64_t)disk->change_count) : 0;

    for (int i = 0; i < disk->change_count; i++)
        if (how == 1 || (how == 2 && i < first) || (how == 3 && roll(disk, 2)))
            settle_change(disk, i);
    /* Names were made after their directories, so one pass sees directories first. */
    for (int i = 0; i < disk->name_count; i++) {
        struct sim_name *name = &disk->names[i];

        if (name->parent >= 0 && disk->names[name->parent].disk < 0)
            name->disk = -1;
        name->now = name->disk;
    }
}

void sim_disk_restart(struct sim_disk *disk, enum sim_crash kind)
{
    for (int i = 0; i < disk->fd_count; i++)
        disk->fds[i].inode = -1;
    for (int i = 0; i < disk->inode_count; i++)
        disk->inodes[i]->lock = -1;
    if (kind == SIM_POWER) {
        lose_names(disk);
        disk->change_count = 0;
        for (int i = 0; i < disk->inode_count; i++)
            inode_lose_power(disk->inodes[i], &disk->dice);
    }
    sweep(disk);
    disk->dead = false;
}

bool sim_disk_flip(struct sim_disk *disk, const char *path, uint64_t offset, unsigned bit)
{
    int name;
    struct sim_inode *inode = look_up(disk, path, &name);
    size_t i = (size_t)(offset / PAGE);

    if (!inode || offset >= inode->size || i >= inode->page_count)
        return false;
    buffer_own(&inode->pages[i].now)[offset % PAGE] ^= (uint8_t)(1u << bit % 8);
    buffer_own(&inode->pages[i].disk)[offset % PAGE] ^= (uint8_t)(1u << bit % 8);
    return true;
}

uint64_t sim_disk_hash(const struct sim_disk *disk)
{
    uint64_t sum = 0;

    for (int i = 0; i < disk->name_count; i++) {
        const struct sim_name *name = &disk->names[i];

        if (name->now < 0)
            continue;
        const struct sim_inode *inode = disk->inodes[name->now];
        uint64_t hash = xxh64(name->path, strlen(name->path), inode->size);
        for (size_t p = 0; p < inode->page_count; p++)
            hash = xxh64(buffer_bytes(inode->pages[p].now), PAGE, hash);
        sum += hash;
    }
    return sum;
}
