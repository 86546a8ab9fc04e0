/*
 * A few threads for work that may wait for the disk, so that no event loop has to. Jobs are taken
 * in order; each thread owns a context (a read-only SQLite connection, a buffer) that its jobs may
 * use.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/err.h"

#include <stddef.h>

struct pool;

/* One unit of work, embedded in its owner's struct; RUN is called once on one of the pool's
 * threads and may free it. */
struct job {
    void (*run)(struct job *job, void *thread_context);
};

struct pool_context {
    /* Called on each new thread; what it stores is handed to that thread's jobs. */
    int (*open)(void *arg, void **thread_context);
    void (*close)(void *arg, void *thread_context);
    void *arg;
};

/* Start THREADS threads named NAME; returns once each has its context, or with the first error.
 * CONTEXT may be NULL. */
int pool_start(struct pool **out, const char *name, unsigned threads, size_t capacity,
               const struct pool_context *context) MUST_CHECK;

/* Queue JOB: ERR_FULL where the pool is CAPACITY jobs behind, ERR_CLOSED while it stops. */
int pool_submit(struct pool *pool, struct job *job) MUST_CHECK;

/* Run what is queued, then end the threads and join them. */
void pool_stop(struct pool **pool);

#endif
