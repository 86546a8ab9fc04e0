/*
 * base/pool.h without threads: jobs wait until the simulator has a worker take one. Which of the
 * first few it is, dice say: with several threads they end in any order.
 */
#include "base/pool.h"
#include "base/queue.h"
#include "tests/cluster_sim/world.h"

#include <stdlib.h>

struct pool {
    struct pool *next;
    struct node *node;
    struct pool_context context;
    void *thread_context;
    struct job **jobs;
    size_t count, capacity;
    unsigned threads;
};

int pool_start(struct pool **out, const char *name, unsigned threads, size_t capacity,
               const struct pool_context *context)
{
    struct pool *pool = calloc(1, sizeof *pool);
    int rc = 0;

    (void)name;
    *out = NULL;
    if (!pool || !(pool->jobs = calloc(capacity, sizeof *pool->jobs)))
        abort();
    pool->node = world.at;
    pool->capacity = capacity;
    pool->threads = threads;
    if (context) {
        pool->context = *context;
        rc = context->open(context->arg, &pool->thread_context);
    }
    if (rc) {
        free(pool->jobs);
        free(pool);
        return rc;
    }
    pool->next = world.at->pools;
    world.at->pools = pool;
    *out = pool;
    return 0;
}

int pool_submit(struct pool *pool, struct job *job)
{
    if (pool->count == pool->capacity)
        return ERR_FULL;
    pool->jobs[pool->count++] = job;
    return 0;
}

static void take(struct pool *pool, size_t i)
{
    struct job *job = pool->jobs[i];

    pool->count--;
    memmove(pool->jobs + i, pool->jobs + i + 1, (pool->count - i) * sizeof(struct job *));
    job->run(job, pool->thread_context);
}

void pool_stop(struct pool **pool_ptr)
{
    struct pool *pool = *pool_ptr;

    if (!pool)
        return;
    while (pool->count)
        take(pool, 0);
    if (pool->context.close)
        pool->context.close(pool->context.arg, pool->thread_context);
    struct pool **at = &pool->node->pools;
    while (*at != pool)
        at = &(*at)->next;
    *at = pool->next;
    free(pool->jobs);
    free(pool);
    *pool_ptr = NULL;
}

bool workers_have(const struct node *node)
{
    for (const struct pool *pool = node->pools; pool; pool = pool->next)
        if (pool->count)
            return true;
    return false;
}

void workers_take(struct node *node)
{
    struct pool *busy[8];
    size_t count = 0;

    for (struct pool *pool = node->pools; pool && count < 8; pool = pool->next)
        if (pool->count)
            busy[count++] = pool;
    if (count == 0)
        return;
    struct pool *pool = busy[dice(count)];
    take(pool, dice(pool->count < pool->threads ? pool->count : pool->threads));
}
