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
    atomic_bool prepared;            /* `own` was made, or was there */
    char id[CLOUD_DIR_ID_BYTES + 1]; /* what `own` says in its file ID; "": not known yet */

    pthread_mutex_t lock; /* guards what follows, and what dir_work says */
    pthread_cond_t empty;
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

/* Of the open file FD. ERR_NOT_FOUND: it is a directory. */
int cloud_dir_look(struct cloud_dir *cloud, int fd, struct dir_object *out) MUST_CHECK;

/* Whether the directory itself is there: 0, or ERR_AGAIN. */
int cloud_dir_there(struct cloud_dir *cloud) MUST_CHECK;

/* A CLOUD_LIST, whole. */
int cloud_dir_list(struct dir_work *work) MUST_CHECK;

#endif
