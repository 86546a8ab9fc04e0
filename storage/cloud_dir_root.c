/*
 * The directory itself: made, known again, remembered.
 *
 * `.objstore-cloud/ID` tells it from an empty one under the same path (a file system that is not
 * mounted) and from another one; whoever links it first gives it. What an earlier process made and
 * did not live to sync is synced when the cloud is made, so that nothing durable stands on names
 * that are not.
 */
#include "base/hash.h"
#include "base/log.h"
#include "base/text.h"
#include "storage/cloud_dir_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define STALE_NS (UINT64_C(86400) * 1000000000)

static int remove_stale(void *arg, const char *name)
{
    struct cloud_dir *cloud = arg;
    struct io *io = cloud->env->io;
    char *path = io_join(cloud->temporary_dir, name);
    struct io_stat stat;

    if (!path)
        return ERR_NO_MEMORY;
    if (io->stat(io, path, &stat) == 0 && !stat.is_dir &&
        stat.modified_ns + STALE_NS < cloud->env->wall_ns(cloud->env))
        (void)io->unlink(io, path); /* the next start tries again */
    free(path);
    return 0;
}

static void set_id(struct cloud_dir *cloud, const char *id)
{
    (void)pthread_mutex_lock(&cloud->lock);
    (void)snprintf(cloud->id, sizeof cloud->id, "%s", id);
    (void)pthread_mutex_unlock(&cloud->lock);
}

/* What stands in ROOT/.objstore-cloud/ID into ID; ERR_NOT_FOUND. */
static int read_id(struct cloud_dir *cloud, char id[CLOUD_DIR_ID_BYTES + 1])
{
    char *path = io_join(cloud->own, "ID"), *text = NULL;
    size_t len;

    if (!path)
        return ERR_NO_MEMORY;
    int rc = io_read_all(cloud->env->io, path, 2 * CLOUD_DIR_ID_BYTES, &text, &len);
    if (rc == 0 && len == CLOUD_DIR_ID_BYTES + 1 && text[CLOUD_DIR_ID_BYTES] == '\n')
        (void)snprintf(id, CLOUD_DIR_ID_BYTES + 1, "%s", text);
    else if (rc == 0)
        rc = ERR_CORRUPT;
    free(text);
    free(path);
    return rc;
}

/* An id of its own for a directory that has none; whoever links it first gives it. */
static int make_id(struct cloud_dir *cloud)
{
    struct io *io = cloud->env->io;
    uint8_t dice[CLOUD_DIR_ID_BYTES / 2];
    char text[CLOUD_DIR_ID_BYTES + 2], *path = io_join(cloud->own, "ID"), *fresh = NULL;
    int rc = ERR_NO_MEMORY;

    cloud->env->random(cloud->env, dice, sizeof dice);
    hex_encode(text, dice, sizeof dice);
    fresh = io_join(cloud->temporary_dir, text);
    if (!path || !fresh)
        goto out;
    text[CLOUD_DIR_ID_BYTES] = '\n';
    text[CLOUD_DIR_ID_BYTES + 1] = 0;
    rc = io_replace(io, fresh, text, CLOUD_DIR_ID_BYTES + 1);
    if (rc == 0)
        rc = io->link(io, fresh, path);
    if (rc == ERR_EXISTS)
        rc = 0;
    (void)io->unlink(io, fresh);
    if (rc == 0)
        rc = io->sync_dir(io, cloud->own);
out:
    free(fresh);
    free(path);
    return rc;
}

/* Make what is missing of the directory, but not its parent; its id into ID. */
static int make_directory(struct cloud_dir *cloud, char id[CLOUD_DIR_ID_BYTES + 1])
{
    struct io *io = cloud->env->io;
    struct io_stat stat;

    int rc = io->stat(io, cloud->root, &stat);
    if (rc == ERR_NOT_FOUND)
        rc = io->mkdir(io, cloud->root);
    else if (rc == 0 && !stat.is_dir)
        rc = ERR_EXISTS;
    if (rc == 0 || rc == ERR_EXISTS) /* another node may be faster; a file io_mkdirs refuses */
        rc = io_mkdirs(io, cloud->temporary_dir);
    if (rc)
        return rc;
    rc = read_id(cloud, id);
    if (rc == ERR_NOT_FOUND)
        rc = make_id(cloud);
    return rc ? rc : read_id(cloud, id);
}

/* The directory's name in its parent, and the names in it. Whoever made them may have died before
 * they were durable. */
static int sync_names(struct cloud_dir *cloud)
{
    struct io *io = cloud->env->io;
    const char *slash = strrchr(cloud->root, '/');
    size_t len = slash && slash > cloud->root ? (size_t)(slash - cloud->root) : 1;
    char *parent = strndup(slash ? cloud->root : ".", len);

    if (!parent)
        return ERR_NO_MEMORY;
    int rc = io->sync_dir(io, parent);
    free(parent);
    if (rc == ERR_PERMISSION) /* it is somebody else's, who made our directory in it */
        rc = 0;
    if (rc == 0)
        rc = io->sync_dir(io, cloud->root);
    return rc ? rc : io->sync_dir(io, cloud->own);
}

/* Under `making`. */
static int prepare_once(struct cloud_dir *cloud)
{
    char id[CLOUD_DIR_ID_BYTES + 1];
    int rc;

    if (atomic_load(&cloud->prepared))
        return 0;
    if (*cloud->id) { /* one that is known is never made */
        rc = cloud_dir_there(cloud);
    } else {
        rc = make_directory(cloud, id);
        if (rc == 0)
            set_id(cloud, id);
    }
    if (rc == 0)
        rc = sync_names(cloud);
    if (rc)
        return rc;
    atomic_store(&cloud->prepared, true);
    rc = cloud->env->io->list(cloud->env->io, cloud->temporary_dir, remove_stale, cloud);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

int cloud_dir_prepare(struct cloud_dir *cloud)
{
    if (atomic_load(&cloud->prepared))
        return 0;
    (void)pthread_mutex_lock(&cloud->making);
    int rc = prepare_once(cloud);
    (void)pthread_mutex_unlock(&cloud->making);
    return rc;
}

int cloud_dir_there(struct cloud_dir *cloud)
{
    char known[CLOUD_DIR_ID_BYTES + 1], id[CLOUD_DIR_ID_BYTES + 1];

    (void)pthread_mutex_lock(&cloud->lock);
    memcpy(known, cloud->id, sizeof known);
    (void)pthread_mutex_unlock(&cloud->lock);
    if (!*known) /* it could not be made when it should; this may wait for somebody who tries */
        return cloud_dir_prepare(cloud) == 0 ? 0 : ERR_AGAIN;
    int rc = read_id(cloud, id);
    return rc == ERR_NO_MEMORY ? rc : rc == 0 && strcmp(id, known) == 0 ? 0 : ERR_AGAIN;
}

/* What only the operator can mend is refused; what may pass is said, and tried again. */
static int first_look(struct cloud_dir *cloud, char *message, size_t cap)
{
    int rc = cloud_dir_prepare(cloud);

    switch (rc) {
    case 0:
        return 0;
    case ERR_NOT_FOUND:
        (void)snprintf(message, cap, "cannot make directory %s: its parent is not there",
                       cloud->root);
        return rc;
    case ERR_EXISTS:
        (void)snprintf(message, cap, "%s is no directory", cloud->root);
        return rc;
    case ERR_PERMISSION:
    case ERR_INVALID:
        (void)snprintf(message, cap, "cannot use directory %s: %s", cloud->root, err_text(rc));
        return rc;
    default:
        log_warn("cloud: directory %s is not there, or not the one that it was: %s", cloud->root,
                 *cloud->id ? "is its file system mounted?" : err_text(rc));
        return 0;
    }
}

/* The id that MEMORY has of this path, if any. */
static int recall(struct cloud_dir *cloud, const char *memory)
{
    size_t root = strlen(cloud->root), len;
    char *text = NULL;

    int rc = memory ? io_read_all(cloud->env->io, memory, CLOUD_DIR_PATH_BYTES, &text, &len)
                    : ERR_NOT_FOUND;
    if (rc == 0 && len == root + 1 + CLOUD_DIR_ID_BYTES + 1 &&
        memcmp(text, cloud->root, root) == 0 && text[root] == '\n' && text[len - 1] == '\n')
        (void)snprintf(cloud->id, sizeof cloud->id, "%s", text + root + 1);
    cloud->id[CLOUD_DIR_ID_BYTES] = 0;
    free(text);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int remember(struct cloud_dir *cloud, const char *memory)
{
    char text[CLOUD_DIR_PATH_BYTES];
    int len = snprintf(text, sizeof text, "%s\n%s\n", cloud->root, cloud->id);

    assert(len > 0 && (size_t)len < sizeof text);
    return memory && atomic_load(&cloud->prepared)
               ? io_replace(cloud->env->io, memory, text, (size_t)len)
               : 0;
}

int cloud_dir_find(struct cloud_dir *cloud, const char *memory, char *message, size_t cap)
{
    int rc = recall(cloud, memory);

    if (rc == 0)
        rc = first_look(cloud, message, cap);
    return rc ? rc : remember(cloud, memory);
}
