/*
 * A disk in memory, as a struct io: it keeps apart what is durable and what only the page cache
 * has, and can lose the latter.
 *
 * What a call promises (POSIX and ext4, read narrowly):
 *   pwritev, truncate   visible at once, durable at no known time: the disk writes back what it
 *                       likes when it likes, in sectors of 512 bytes
 *   fdatasync           the file's bytes and its growth; that it became shorter only where it was
 *                       written behind the cut since
 *   fsync               all of the file, but never its name
 *   sync_dir            every name in that directory, and what had to come before
 *
 * Names: an operation (create, link, rename, unlink, mkdir) becomes durable whole or not at all;
 * operations on one name keep their order, operations on different names keep none. A rename inside
 * a directory is one operation. Between directories the old name goes only after the new one is
 * there, so a file may have both after a crash, never none.
 *
 * A killed process (SIM_KILL) leaves the page cache; a loss of power (SIM_POWER) leaves what is
 * durable and any part of the rest. A failed sync writes some of the dirty sectors and forgets that
 * the others were dirty: they read back until the cache is dropped or the power goes. As on Linux,
 * every descriptor of the file is told of it once.
 *
 * One thread. Everything that is left to chance comes from `dice`.
 */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include "base/io.h"

enum sim_op {
    SIM_CREATE,
    SIM_WRITE,
    SIM_FDATASYNC,
    SIM_FSYNC,
    SIM_TRUNCATE,
    SIM_RENAME,
    SIM_LINK,
    SIM_UNLINK,
    SIM_MKDIR,
    SIM_SYNC_DIR,
    SIM_READ, /* the only one that changes nothing: not counted among the calls */
    SIM_OPS
};

enum sim_crash { SIM_KILL, SIM_POWER };

enum sim_fate {
    SIM_PASS,
    SIM_FAIL,  /* nothing happens but the error; a failed sync loses pages, a failed write may have
                  written some */
    SIM_SHORT, /* a write does less than it was asked */
    SIM_INTERRUPTED, /* a signal comes in between: a write is short, or the call is made again, as
                        every struct io has to (base/io.h) */
    SIM_DIE,         /* the process ends in this call */
};

struct sim_inode;
struct sim_name;
struct sim_change;
struct sim_fd;

struct sim_disk {
    struct io io; /* first: calls find their disk by it */
    /* Asked before every read and every call that changes something; SIM_FAIL also says what the
     * call answers. */
    enum sim_fate (*gate)(struct sim_disk *disk, enum sim_op op, const char *path, int *rc);
    void *arg;
    uint64_t calls; /* that change something or sync, refused ones included */
    uint64_t of[SIM_OPS];
    uint64_t trace;       /* hash over every call, its arguments and its result */
    uint64_t dice;        /* xorshift state, never 0 */
    uint64_t total_bytes; /* writes beyond fail with ERR_NO_SPACE */
    enum sim_crash kind;  /* how it died */
    bool dead;            /* every call fails without effect, until sim_disk_restart */
    bool nowait_misses;   /* every other read that must not wait would have to */

    struct sim_inode **inodes;
    int inode_count;
    struct sim_name *names;
    int name_count, name_cap;
    int *table; /* hash table of names */
    int table_size;
    struct sim_change *changes; /* of names, not yet durable */
    int change_count, change_cap;
    struct sim_fd *fds;
    int fd_count;
};

/* An empty disk with the directory "/sim", of TOTAL bytes. Aborts where memory is short, as all
 * here. */
struct sim_disk *sim_disk_create(uint64_t seed, uint64_t total_bytes);
void sim_disk_destroy(struct sim_disk **disk);

/* The same bytes and names on a disk of its own: a backup. Not while a file is open. */
struct sim_disk *sim_disk_copy(const struct sim_disk *disk);

uint64_t sim_dice(uint64_t *state);

/* After SIM_DIE, or a crash between two calls (KIND): close all files, release all locks, lose what
 * a loss of power loses. */
void sim_disk_restart(struct sim_disk *disk, enum sim_crash kind);

/* Flip one bit of the file at PATH, on the disk and in the cache. False: no such byte. */
bool sim_disk_flip(struct sim_disk *disk, const char *path, uint64_t offset, unsigned bit);

/* Bytes in use, by what has a name now or is open. */
uint64_t sim_disk_used(const struct sim_disk *disk);

/* Hash of all names and bytes that a reader would see. */
uint64_t sim_disk_hash(const struct sim_disk *disk);

extern const char *const sim_op_names[SIM_OPS];

#endif
