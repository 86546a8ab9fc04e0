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
/* All connections on it must be closed. */
void vfs_unregister(const char *name);

#endif
