/* What the parts of the directory cloud share; nobody else includes it. */
#ifndef STORAGE_CLOUD_DIR_INTERNAL_H
#define STORAGE_CLOUD_DIR_INTERNAL_H

#include "base/env.h"
#include "base/io.h"
#include "base/pool.h"
#include "storage/cloud.h"
#include "storage/cloud_dir_name.h"
#include "storage/cloud_dir_trailer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define CLOUD_DIR_THREADS     4
#define CLOUD_DIR_CHUNK_BYTES (256u << 10) /* read or written at once, in the thread's buffer */
#define CLOUD_DIR_ID_BYTES    32
#define CLOUD_DIR_STEP_BYTES  (8u << 20) /* of a put, before others have their turn */

/* What a request needs while it is under way. */
struct dir_work {
    struct job job;
    struct cloud_dir *cloud;
    struct cloud_request *request;
    struct dir_work *next, *prev; /* of those under way; guarded by the cloud's lock, … */
    bool parked;                  /* … as is this: a GET waits until its owner has taken more */
    atomic_bool cancelled;
    char path[CLOUD_DIR_PATH_BYTES]; /* of the key's file, in full; LIST: of the directory */
    int fd;                          /* of what is read or written, or -1 */
    char *temporary;                 /* PUT: what is written to, while it is there */
    struct digest *digest;           /* PUT */
    uint64_t at, end;                /* GET: what comes next, up to where; PUT: what is written */
    uint64_t first;                  /* GET: where it began */
};

struct cloud_dir {
    struct cloud cloud; /* first */
    struct env *env;
    char *root, *own, *temporary_dir; /* own: ROOT/.objstore-cloud; its tmp */
    struct pool *pool;
    atomic_bool prepared;   /* `own` was made, or was there, and is durable */
    pthread_mutex_t making; /* held by who makes it; before `lock` */

    pthread_mutex_t lock; /* guards what follows, and what dir_work says */
    pthread_cond_t empty;
    char id[CLOUD_DIR_ID_BYTES + 1]; /* what `own` says in its file ID; "": not known yet */
    bool closing;
    unsigned active;     /* started, and `done` not called yet */
    unsigned unfinished; /* … or not come back from */
    struct dir_work *works;
    struct cloud_figures figures;
};

/* What a file says of its object. */
struct dir_object {
    uint64_t size;
    int64_t modified_s;
    char etag[2 * SHA256_BYTES + 1];
    bool foreign; /* it has no trailer: somebody else put it there */
    struct trailer_line line;
    char text[TRAILER_LINE_BYTES];
};

static inline struct io *dir_io(const struct dir_work *work)
{
    return work->cloud->env->io;
}

/* The request's message. */
void cloud_dir_say(struct cloud_request *request, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* RC of an operation on a key's file, which may mean that the whole directory is gone, or another
 * one: that is ERR_AGAIN. Says why. */
int cloud_dir_judge(struct dir_work *work, int rc) MUST_CHECK;

/* ---- The directory itself (cloud_dir_root.c) ---- */

/* Make it, or find the one that the file MEMORY (NULL: none) tells of. As cloud_dir_create. */
int cloud_dir_find(struct cloud_dir *cloud, const char *memory, char *message,
                   size_t cap) MUST_CHECK;

/* Before something is written: it is there, and was made durable. */
int cloud_dir_prepare(struct cloud_dir *cloud) MUST_CHECK;

/* Whether the directory itself is there: 0, or ERR_AGAIN. */
int cloud_dir_there(struct cloud_dir *cloud) MUST_CHECK;

/* ---- Requests ---- */

/* Of the open file FD. ERR_NOT_FOUND: it is a directory. */
int cloud_dir_look(struct cloud_dir *cloud, int fd, struct dir_object *out) MUST_CHECK;

/* Each to its end, or ERR_AGAIN with *TURN: it is not over, but others have their turn; GET is
 * parked then. BUFFER has CLOUD_DIR_CHUNK_BYTES. */
int cloud_dir_get(struct dir_work *work, uint8_t *buffer, bool *turn) MUST_CHECK;
int cloud_dir_put(struct dir_work *work, uint8_t *buffer, bool *turn) MUST_CHECK;
/* Whole: HEAD and TAGS, DELETE, LIST. */
int cloud_dir_head(struct dir_work *work) MUST_CHECK;
int cloud_dir_delete(struct dir_work *work) MUST_CHECK;
int cloud_dir_list(struct dir_work *work) MUST_CHECK;

/* Sync the names of the key's file and of each directory that it lies in, up to the root. */
int cloud_dir_sync_names(struct dir_work *work) MUST_CHECK;

#endif
