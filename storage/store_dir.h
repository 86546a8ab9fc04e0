/*
 * The two directories of a store, and that they belong together: each bears a file STORE with the
 * store's UUID and a generation, which grows by one at each start. Files first, then state, both
 * synced; so the files directory is never behind, and at most one ahead after a crash between.
 */
#ifndef STORAGE_STORE_DIR_H
#define STORAGE_STORE_DIR_H

#include "base/env.h"
#include "base/err.h"
#include "base/id.h"

#include <stdbool.h>

struct store_dirs {
    struct env *env;
    const char *state_dir, *files_dir; /* lent */
    struct id128 store;
    uint64_t generation; /* this run's */
    bool fresh;          /* made by this call: both directories were new or empty */
    bool accept_loss;    /* as given */
    bool files_behind;   /* accepted loss: the files directory was lost or is an older one */
    int lock_fds[2];     /* of STATE/LOCK and FILES/LOCK */
};

/*
 * Take the lock (STATE/LOCK and FILES/LOCK, flock), check both directories, begin a new generation.
 * Makes missing directories. WITHOUT effect on disk where it fails (what it made is removed), but
 * for two things that the next start takes in its stride: where the disk fails in the middle, an
 * empty directory may stay behind, or one side a generation ahead.
 *   ERR_LOCKED      another process runs on one of them
 *   ERR_WRONG_STORE they belong to different stores, one is missing or empty while the other is
 * not, or the files directory is of a lower generation (ACCEPT_LOSS allows the latter two for the
 * files directory, and sets files_behind), or the state directory is; or one holds other files and
 * no STORE ERR_FORMAT      a version or feature this build does not know ERR_CORRUPT     a damaged
 * STORE file ERR_INVALID     both are the same directory, or their roles are swapped
 *   ERR_PERMISSION, ERR_NO_SPACE, ERR_IO
 * On every failure MESSAGE (CAP bytes) says in one line what is wrong and names the paths.
 */
int store_dirs_open(struct store_dirs *dirs, struct env *env, const char *state_dir,
                    const char *files_dir, bool accept_loss, char *message, size_t cap) MUST_CHECK;

/* Write this run's generation into both directories, durably. To be called when everything else
 * about the start has succeeded and before anything is written that is not recovery: a start that
 * fails leaves the pair as it was. A fresh store has it already. */
int store_dirs_begin(const struct store_dirs *dirs) MUST_CHECK;

/* As store_dirs_open without a new generation, and never fresh: for tools that work on a stopped
 * node (they take the lock). */
int store_dirs_inspect(struct store_dirs *dirs, struct env *env, const char *state_dir,
                       const char *files_dir, char *message, size_t cap) MUST_CHECK;

/* Release the locks. Also fine after a failed open. */
void store_dirs_close(struct store_dirs *dirs);

#endif
