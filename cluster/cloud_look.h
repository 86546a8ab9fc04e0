/*
 * Looking at one object in the cloud: all that its key says of it (cluster/cloud_meta.h), in as few
 * requests as that takes. Nothing of its body is read.
 */
#ifndef CLUSTER_CLOUD_LOOK_H
#define CLUSTER_CLOUD_LOOK_H

#include "cluster/cloud_meta.h"

#include <pthread.h>

#define CLOUD_LOOK_ETAG_BYTES 255

/* Embedded in its owner's struct, which lives until `done` was called; the first part is set by the
 * owner, the rest zero. */
struct cloud_look {
    struct cloud *cloud;   /* lent */
    struct cloud_key key;  /* the object's */
    struct cloud_key mark; /* that it was deleted: looked for where it is not empty */
    /*
     * Once, on a thread of the cloud's (or within cloud_look_start); it must not block.
     *   0             `facts`, `size` and `etag` are the object's; to be released
     *   ERR_NOT_FOUND there is none      ERR_DELETED  the mark is there, whatever else is
     *   ERR_CORRUPT   what is there contradicts itself
     *   else as cloud_request's done: it is not known
     */
    void (*done)(struct cloud_look *look, int rc);

    struct cloud_facts facts;
    uint64_t size;
    char etag[CLOUD_LOOK_ETAG_BYTES + 1];

    /* Its own. */
    struct cloud_request request, mark_request;
    pthread_mutex_t lock;
    unsigned waiting;
    int rc, mark_rc;
    char *sidecar;
    size_t sidecar_len;
};

/* Begin; `done` is called in any case. Any thread. */
void cloud_look_start(struct cloud_look *look);
/* After `done`, whatever it got. */
void cloud_look_release(struct cloud_look *look);

#endif
