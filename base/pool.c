/*
 * Threads around one queue of jobs.
 *
 * A start waits until every thread has its context or one has failed; a stop closes the queue, and
 * each thread ends once that is empty. Threads block all signals: those are the main thread's.
 */
#include "base/pool.h"

#include "base/queue.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define THREAD_NAME_BYTES 16 /* the kernel's limit, with the zero */

struct pool {
    struct queue *jobs;
    struct pool_context context;
    char name[THREAD_NAME_BYTES];
    pthread_mutex_t lock; /* guards the three below */
    pthread_cond_t settled;
    unsigned answered; /* threads whose context was opened or failed */
    int failure;       /* the first */
    unsigned started;
    pthread_t threads[];
};

/* Tell pool_start how it went on this thread. */
static void report(struct pool *pool, int rc)
{
    (void)pthread_mutex_lock(&pool->lock);
    pool->answered++;
    if (rc && !pool->failure)
        pool->failure = rc;
    (void)pthread_cond_signal(&pool->settled);
    (void)pthread_mutex_unlock(&pool->lock);
}

static void *run(void *arg)
{
    struct pool *pool = arg;
    void *context = NULL;
    int rc = pool->context.open ? pool->context.open(pool->context.arg, &context) : 0;

    report(pool, rc);
    if (rc)
        return NULL;
    for (;;) {
        void *item;

        if (queue_take(pool->jobs, &item, 1) == 1) {
            struct job *job = item;

            job->run(job, context);
        } else if (!queue_wait(pool->jobs, -1) && queue_closed(pool->jobs)) {
            break;
        }
    }
    if (pool->context.close)
        pool->context.close(pool->context.arg, context);
    return NULL;
}

static int spawn(struct pool *pool, unsigned threads)
{
    sigset_t all, before;
    int rc = 0;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->started < threads && rc == 0) {
        rc = pthread_create(&pool->threads[pool->started], NULL, run, pool);
        if (rc == 0) {
            (void)pthread_setname_np(pool->threads[pool->started], pool->name);
            pool->started++;
        }
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);

    (void)pthread_mutex_lock(&pool->lock);
    while (pool->answered < pool->started)
        (void)pthread_cond_wait(&pool->settled, &pool->lock);
    int failure = pool->failure;
    (void)pthread_mutex_unlock(&pool->lock);
    return rc ? ERR_NO_MEMORY : failure;
}

int pool_start(struct pool **out, const char *name, unsigned threads, size_t capacity,
               const struct pool_context *context)
{
    assert(threads > 0 && threads <= 1024);
    *out = NULL;

    struct pool *pool = calloc(1, sizeof *pool + threads * sizeof *pool->threads);
    if (!pool)
        return ERR_NO_MEMORY;
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->settled, NULL);
    (void)snprintf(pool->name, sizeof pool->name, "%s", name);
    if (context)
        pool->context = *context;
    int rc = queue_create(&pool->jobs, capacity);
    if (rc)
        goto out;
    rc = spawn(pool, threads);
out:
    if (rc)
        pool_stop(&pool);
    *out = pool;
    return rc;
}

int pool_submit(struct pool *pool, struct job *job)
{
    assert(job->run);
    return queue_push(pool->jobs, job);
}

void pool_stop(struct pool **pool)
{
    struct pool *it = *pool;

    if (!it)
        return;
    if (it->jobs)
        queue_close(it->jobs);
    for (unsigned i = 0; i < it->started; i++) {
        int rc = pthread_join(it->threads[i], NULL);

        assert(rc == 0); /* a job that stops its own pool would wait for itself */
        (void)rc;
    }
    queue_destroy(&it->jobs);
    (void)pthread_cond_destroy(&it->settled);
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
    *pool = NULL;
}
