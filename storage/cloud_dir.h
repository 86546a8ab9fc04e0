/*
 * The cloud as a directory, for tests, for trying out all levels without an account, and for a
 * network file system: one file for each key, its metadata beside the bytes.
 */
#ifndef STORAGE_CLOUD_DIR_H
#define STORAGE_CLOUD_DIR_H

#include "base/env.h"
#include "storage/cloud.h"

struct cloud_dir_config {
    struct env *env;  /* lent */
    const char *path; /* copied; made where it is not there, but not its parent */
    /* A file that remembers which directory PATH was, so that one that is not mounted is not taken
     * for an empty one, nor made anew: "PATH\nID\n". Lent for the call; NULL: nothing is
     * remembered. */
    const char *memory;
};

/* Errors with MESSAGE (CAP bytes): the directory cannot be made or used. One that is remembered and
 * not there is no error: requests are ERR_AGAIN until it is back. */
int cloud_dir_create(struct cloud **out, const struct cloud_dir_config *config, char *message,
                     size_t cap) MUST_CHECK;

#endif
