/*
 * SQLite's files on base/io: a VFS of ours, so that the simulated disk lies under SQLite too. One
 * process owns the database (store_dir's lock), so the shared memory of WAL mode is process memory
 * and file locks are counters under a mutex. Source: sqlite.org/vfs.html,
 * sqlite.org/walformat.html.
 */
#ifndef JOURNAL_VFS_H
#define JOURNAL_VFS_H

#include "base/env.h"
#include "base/err.h"

/*
 * Register a VFS on ENV (lent until the process ends or vfs_unregister) and give its name, to be
 * passed to sqlite3_open_v2, in NAME (room for 32 bytes). Several can exist (a simulator's nodes).
 */
int vfs_register(struct env *env, char name[32]) MUST_CHECK;

/*
 * File control of a main database's connection, to be sent before the first page is read (ARG:
 * NULL): its pages are VFS_PAGE_BYTES large, and the VFS keeps a checksum of each in its last
 * VFS_PAGE_RESERVED bytes, which SQLite leaves alone (SQLITE_FCNTL_RESERVE_BYTES). A page that
 * reads back otherwise is ERR_CORRUPT (SQLITE_IOERR_DATA) and reaches nobody. The WAL's frames have
 * checksums of SQLite's own. Source: sqlite.org/cksumvfs.html, the same idea for the rollback mode.
 */
#define VFS_FCNTL_PAGE_SUMS 0x6f626a73
#define VFS_PAGE_BYTES      4096
#define VFS_PAGE_RESERVED   8
/* All connections on it must be closed. */
void vfs_unregister(const char *name);

#endif
