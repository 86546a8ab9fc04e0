/*
 * Writing: PUT and DELETE of the directory cloud.
 *
 * A put writes a file of its own in tmp, its metadata behind the body, syncs it, renames it to its
 * key's path, and syncs every directory from there up to the root: one of them may have been made
 * by somebody who did not live to sync it. A delete does the same. So what was answered is durable,
 * and a key has its old object or its new one, whole, whatever crashes when.
 */
#include "base/text.h"
#include "storage/cloud_dir_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PLACE_TRIES 3 /* somebody may remove an empty directory just as we put a file into it */

/* The directory that FILE lies in, in place. */
static void cut_name(char *file)
{
    char *slash = strrchr(file, '/');

    assert(slash && slash > file);
    *slash = 0;
}

int cloud_dir_sync_names(struct dir_work *work)
{
    size_t root = strlen(work->cloud->root);
    struct io *io = dir_io(work);
    char path[CLOUD_DIR_PATH_BYTES];

    memcpy(path, work->path, sizeof path);
    do {
        cut_name(path);
        int rc = io->sync_dir(io, path);
        bool is_root = strlen(path) == root;
        if (rc == ERR_NOT_FOUND && is_root)
            return ERR_AGAIN;
        if (rc && rc != ERR_NOT_FOUND) /* else it was removed, being empty */
            return rc;
    } while (strlen(path) > root);
    return 0;
}

/* Remove directories above the file that was removed, as long as they are empty. */
static void remove_empty(struct dir_work *work)
{
    size_t root = strlen(work->cloud->root);
    struct io *io = dir_io(work);

    for (cut_name(work->path); strlen(work->path) > root; cut_name(work->path)) {
        if (io->unlink(io, work->path))
            break;
    }
}

int cloud_dir_delete(struct dir_work *work)
{
    struct io *io = dir_io(work);
    char parent[CLOUD_DIR_PATH_BYTES];
    struct io_stat stat;

    int rc = io->stat(io, work->path, &stat);
    if (rc == 0 && stat.is_dir)
        rc = ERR_NOT_FOUND;
    rc = cloud_dir_judge(work, rc);
    if (rc == 0)
        rc = io->unlink(io, work->path);
    bool gone = rc == ERR_NOT_FOUND;
    if (rc && !gone)
        return rc;
    /* Where it was gone already, too: whoever removed it may not have lived to sync that. */
    memcpy(parent, work->path, sizeof parent);
    cut_name(parent);
    rc = io->sync_dir(io, parent);
    if (rc == ERR_NOT_FOUND)
        rc = 0; /* the whole directory was removed after it */
    if (rc == 0 && !gone)
        remove_empty(work);
    return rc;
}

/* A file of its own in tmp, whatever other processes share the directory. */
static int begin_put(struct dir_work *work)
{
    struct cloud_dir *cloud = work->cloud;
    uint8_t dice[16];
    char name[2 * sizeof dice + 1];

    int rc = cloud_dir_prepare(cloud);
    if (rc == 0)
        rc = cloud_dir_there(cloud);
    if (rc) {
        cloud_dir_say(work->request, "directory %s is not there, or is another one", cloud->root);
        return rc == ERR_NO_MEMORY || rc == ERR_NO_SPACE ? rc : ERR_AGAIN;
    }
    cloud->env->random(cloud->env, dice, sizeof dice);
    hex_encode(name, dice, sizeof dice);
    if (digest_create(&work->digest, DIGEST_SHA256))
        return ERR_NO_MEMORY; /* there is no OpenSSL without this one */
    char *path = io_join(cloud->temporary_dir, name);
    if (!path)
        return ERR_NO_MEMORY;
    work->fd = io_open(dir_io(work), path, IO_WRITE | IO_CREATE | IO_EXCLUSIVE);
    if (work->fd < 0) {
        free(path);
        rc = work->fd;
        work->fd = -1;
        return rc;
    }
    work->temporary = path;
    return 0;
}

/* Give the file its name. The outcome of a failed sync is not known: the name may be there. */
static int place(struct dir_work *work)
{
    struct io *io = dir_io(work);
    char parent[CLOUD_DIR_PATH_BYTES];
    struct io_stat stat;
    int rc = ERR_IO;

    memcpy(parent, work->path, sizeof parent);
    cut_name(parent);
    for (unsigned i = 0; i < PLACE_TRIES; i++) {
        rc = cloud_dir_there(work->cloud);
        if (rc == 0)
            rc = io_mkdirs(io, parent);
        if (rc == ERR_EXISTS) {
            cloud_dir_say(work->request,
                          "a part of the key before a '/' is an object's key already");
            return ERR_INVALID;
        }
        if (rc == 0 && io->stat(io, work->path, &stat) == 0 && stat.is_dir) {
            cloud_dir_say(work->request,
                          "keys below this one are there: a directory cannot have it, too");
            return ERR_INVALID;
        }
        if (rc == 0)
            rc = io->rename(io, work->temporary, work->path);
        if (rc != ERR_NOT_FOUND)
            break;
    }
    if (rc)
        return rc == ERR_NOT_FOUND ? ERR_AGAIN : rc;
    free(work->temporary);
    work->temporary = NULL;
    return cloud_dir_sync_names(work);
}

static int end_put(struct dir_work *work)
{
    struct cloud_request *request = work->request;
    uint8_t sha[SHA256_BYTES];
    char *text = NULL;
    size_t len;

    digest_final(work->digest, sha);
    if (memcmp(sha, request->sha256, sizeof sha) != 0) {
        cloud_dir_say(request, "the bytes have another SHA-256 than they should");
        return ERR_MISMATCH;
    }
    int rc = trailer_write(&text, &len, request);
    if (rc == 0)
        rc = io_write(dir_io(work), work->fd, text, len, request->size);
    free(text);
    if (rc == 0)
        rc = dir_io(work)->fsync(dir_io(work), work->fd);
    if (rc == 0)
        rc = io_close(dir_io(work), &work->fd);
    if (rc == 0)
        rc = place(work);
    if (rc == 0)
        hex_encode(request->etag, sha, sizeof sha);
    return rc;
}

int cloud_dir_put(struct dir_work *work, uint8_t *buffer, bool *turn)
{
    struct cloud_request *request = work->request;
    uint64_t step = work->at + CLOUD_DIR_STEP_BYTES;
    int rc = work->temporary ? 0 : begin_put(work);

    while (rc == 0 && work->at < request->size) {
        uint64_t left = request->size - work->at;
        size_t len = left < CLOUD_DIR_CHUNK_BYTES ? (size_t)left : CLOUD_DIR_CHUNK_BYTES;

        if (atomic_load(&work->cancelled))
            return ERR_CLOSED;
        if (work->at == step) {
            /* Lest all of it go out in the sync at the end, and everybody else's with it. */
            rc = dir_io(work)->sync_range(dir_io(work), work->fd, step - CLOUD_DIR_STEP_BYTES,
                                          CLOUD_DIR_STEP_BYTES, true);
            *turn = rc == 0;
            return rc ? rc : ERR_AGAIN;
        }
        rc = request->read(request, work->at, buffer, len);
        if (rc)
            break;
        digest_update(work->digest, buffer, len);
        rc = io_write(dir_io(work), work->fd, buffer, len, work->at);
        work->at += len;
    }
    return rc ? rc : end_put(work);
}
