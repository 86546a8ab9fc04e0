/* Goal: every job accepted runs exactly once, with its thread's own context; a start that fails
 * leaves nothing behind; a stop waits for what is queued. */
#include "base/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What the jobs and contexts of one test count. */
struct counts {
    atomic_int opened, closed, ran, wrong;
    int fail_at; /* the open that fails, from 1; 0 = none */
};

struct context {
    struct counts *counts;
    pthread_t thread;
};

static int open_context(void *arg, void **out)
{
    struct counts *counts = arg;
    int number = atomic_fetch_add(&counts->opened, 1) + 1;

    if (number == counts->fail_at)
        return ERR_NO_SPACE;
    struct context *context = malloc(sizeof *context);
    if (!context)
        return ERR_NO_MEMORY;
    *context = (struct context){.counts = counts, .thread = pthread_self()};
    *out = context;
    return 0;
}

static void close_context(void *arg, void *thread_context)
{
    struct counts *counts = arg;
    struct context *context = thread_context;

    if (!pthread_equal(context->thread, pthread_self()))
        atomic_fetch_add(&counts->wrong, 1);
    free(context);
    atomic_fetch_add(&counts->closed, 1);
}

static struct pool_context counting(struct counts *counts)
{
    return (struct pool_context){.open = open_context, .close = close_context, .arg = counts};
}

/* Checks that it runs on its context's thread, counts, and frees itself. */
static void count_and_free(struct job *job, void *thread_context)
{
    struct context *context = thread_context;

    if (!pthread_equal(context->thread, pthread_self()))
        atomic_fetch_add(&context->counts->wrong, 1);
    atomic_fetch_add(&context->counts->ran, 1);
    free(job);
}

static void every_job_runs_once_before_the_stop_returns(void **state)
{
    enum { JOBS = 500 };
    struct counts counts = {0};
    struct pool_context context = counting(&counts);
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_start(&pool, "test", 3, JOBS, &context), 0);
    assert_int_equal(counts.opened, 3);
    for (int i = 0; i < JOBS; i++) {
        struct job *job = malloc(sizeof *job);

        assert_non_null(job);
        job->run = count_and_free;
        assert_int_equal(pool_submit(pool, job), 0);
    }
    pool_stop(&pool);
    assert_null(pool);
    assert_int_equal(counts.ran, JOBS);
    assert_int_equal(counts.closed, 3);
    assert_int_equal(counts.wrong, 0);
    pool_stop(&pool);
}

struct gate {
    struct job job;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool inside, open;
};

/* Holds its thread until the test opens the gate. */
static void wait_at_gate(struct job *job, void *thread_context)
{
    struct gate *gate = (struct gate *)job;

    (void)thread_context;
    pthread_mutex_lock(&gate->lock);
    gate->inside = true;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open)
        pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

static void do_nothing(struct job *job, void *thread_context)
{
    (void)job;
    (void)thread_context;
}

static void a_pool_that_is_behind_says_full(void **state)
{
    struct gate gate = {.job.run = wait_at_gate,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER};
    struct job jobs[3] = {{do_nothing}, {do_nothing}, {do_nothing}};
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_start(&pool, "a name longer than a thread's", 1, 2, NULL), 0);
    assert_int_equal(pool_submit(pool, &gate.job), 0);
    pthread_mutex_lock(&gate.lock);
    while (!gate.inside)
        pthread_cond_wait(&gate.changed, &gate.lock);
    pthread_mutex_unlock(&gate.lock);

    assert_int_equal(pool_submit(pool, &jobs[0]), 0);
    assert_int_equal(pool_submit(pool, &jobs[1]), 0);
    assert_int_equal(pool_submit(pool, &jobs[2]), ERR_FULL);

    pthread_mutex_lock(&gate.lock);
    gate.open = true;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
    pool_stop(&pool);
}

static void jobs_run_beside_each_other(void **state)
{
    enum { THREADS = 3 };
    struct gate gates[THREADS];
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_start(&pool, "test", THREADS, 8, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        gates[i] = (struct gate){.job.run = wait_at_gate,
                                 .lock = PTHREAD_MUTEX_INITIALIZER,
                                 .changed = PTHREAD_COND_INITIALIZER};
        assert_int_equal(pool_submit(pool, &gates[i].job), 0);
    }
    /* All three are inside at once, or this never ends. */
    for (int i = 0; i < THREADS; i++) {
        pthread_mutex_lock(&gates[i].lock);
        while (!gates[i].inside)
            pthread_cond_wait(&gates[i].changed, &gates[i].lock);
        pthread_mutex_unlock(&gates[i].lock);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_mutex_lock(&gates[i].lock);
        gates[i].open = true;
        pthread_cond_broadcast(&gates[i].changed);
        pthread_mutex_unlock(&gates[i].lock);
    }
    pool_stop(&pool);
}

static void a_context_that_fails_fails_the_start_and_closes_the_others(void **state)
{
    (void)state;
    for (int fail_at = 1; fail_at <= 3; fail_at++) {
        struct counts counts = {.fail_at = fail_at};
        struct pool_context context = counting(&counts);
        struct pool *pool;

        assert_int_equal(pool_start(&pool, "test", 3, 8, &context), ERR_NO_SPACE);
        assert_null(pool);
        assert_int_equal(counts.closed, 2);
    }
}

struct mask_job {
    struct job job;
    sigset_t mask;
};

static void read_mask(struct job *job, void *thread_context)
{
    struct mask_job *mine = (struct mask_job *)job;

    (void)thread_context;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &mine->mask);
}

static void signals_are_left_to_the_other_threads(void **state)
{
    struct mask_job job = {.job.run = read_mask};
    sigset_t before, after;
    struct pool *pool;

    (void)state;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_int_equal(pool_start(&pool, "test", 1, 8, NULL), 0);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
    assert_int_equal(pool_submit(pool, &job.job), 0);
    pool_stop(&pool);
    assert_int_equal(sigismember(&job.mask, SIGTERM), 1);
    assert_int_equal(sigismember(&job.mask, SIGINT), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_runs_once_before_the_stop_returns),
        cmocka_unit_test(a_pool_that_is_behind_says_full),
        cmocka_unit_test(jobs_run_beside_each_other),
        cmocka_unit_test(a_context_that_fails_fails_the_start_and_closes_the_others),
        cmocka_unit_test(signals_are_left_to_the_other_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
