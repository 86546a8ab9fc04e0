/*
 * A ring of pointers under one mutex, with a condition variable for its consumer.
 *
 * A producer signals only where somebody waits, so a busy consumer costs it no system call. The
 * waiting count and the items are both under the mutex: a push either sees the waiter or the waiter
 * sees the item before it sleeps, so no wake-up is lost. A queue_wake without a waiter is kept for
 * the next wait.
 *
 * Several consumers work as well (the pool is one); then each may find that another has taken what
 * it was woken for, and queue_take answers 0. One wake-up at a time is under way: a producer of
 * many items wakes one consumer, who wakes the next where it leaves some. Where an item is done
 * sooner than a thread wakes, the others sleep on.
 */
#include "base/queue.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t capacity, first, length;
    unsigned waiting, signalled; /* consumers; those of them that wake up, at least */
    bool woken, closed;
    void *items[];
};

static void lock(struct queue *queue)
{
    int rc = pthread_mutex_lock(&queue->lock);

    assert(rc == 0);
    (void)rc;
}

static void unlock(struct queue *queue)
{
    int rc = pthread_mutex_unlock(&queue->lock);

    assert(rc == 0);
    (void)rc;
}

int queue_create(struct queue **out, size_t capacity)
{
    assert(capacity > 0 && capacity <= SIZE_MAX / sizeof(void *) / 2);
    *out = NULL;

    struct queue *queue = calloc(1, sizeof *queue + capacity * sizeof *queue->items);
    if (!queue)
        return ERR_NO_MEMORY;
    pthread_condattr_t monotonic;
    if (pthread_condattr_init(&monotonic) != 0) {
        free(queue);
        return ERR_NO_MEMORY;
    }
    int rc = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    assert(rc == 0);
    rc = pthread_cond_init(&queue->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    if (rc) {
        free(queue);
        return ERR_NO_MEMORY;
    }
    if (pthread_mutex_init(&queue->lock, NULL) != 0) {
        (void)pthread_cond_destroy(&queue->changed);
        free(queue);
        return ERR_NO_MEMORY;
    }
    queue->capacity = capacity;
    *out = queue;
    return 0;
}

void queue_destroy(struct queue **queue)
{
    if (!*queue)
        return;
    assert((*queue)->waiting == 0);
    (void)pthread_cond_destroy(&(*queue)->changed);
    (void)pthread_mutex_destroy(&(*queue)->lock);
    free(*queue);
    *queue = NULL;
}

/* Whether a consumer has to be woken, which the caller then does; the lock is held. */
static bool wakes_one(struct queue *queue)
{
    bool wakes = queue->length > 0 && queue->waiting > 0 && queue->signalled == 0;

    if (wakes)
        queue->signalled++;
    return wakes;
}

int queue_push(struct queue *queue, void *item)
{
    int rc;

    assert(item);
    lock(queue);
    if (queue->closed) {
        rc = ERR_CLOSED;
    } else if (queue->length == queue->capacity) {
        rc = ERR_FULL;
    } else {
        size_t at = queue->first + queue->length;

        queue->items[at < queue->capacity ? at : at - queue->capacity] = item;
        queue->length++;
        rc = 0;
    }
    bool signal = rc == 0 && wakes_one(queue);
    unlock(queue);
    /* After the unlock, so that the consumer does not wake only to wait for us. */
    if (signal)
        (void)pthread_cond_signal(&queue->changed);
    return rc;
}

size_t queue_take(struct queue *queue, void **items, size_t max)
{
    size_t count = 0;

    lock(queue);
    assert(queue->length <= queue->capacity);
    while (count < max && queue->length > 0) {
        items[count++] = queue->items[queue->first];
        queue->first = queue->first + 1 < queue->capacity ? queue->first + 1 : 0;
        queue->length--;
    }
    bool signal = wakes_one(queue);
    unlock(queue);
    if (signal)
        (void)pthread_cond_signal(&queue->changed);
    return count;
}

/* The moment TIMEOUT_MS from now; beyond what the clock can say, its last moment. */
static struct timespec deadline(int64_t timeout_ms)
{
    struct timespec at;
    int rc = clock_gettime(CLOCK_MONOTONIC, &at);

    assert(rc == 0);
    (void)rc;
    if (timeout_ms > INT64_C(1000) * 86400 * 36500)
        timeout_ms = INT64_C(1000) * 86400 * 36500;
    at.tv_sec += (time_t)(timeout_ms / 1000);
    at.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_nsec -= 1000000000;
        at.tv_sec++;
    }
    return at;
}

bool queue_wait(struct queue *queue, int64_t timeout_ms)
{
    struct timespec until = {0};

    if (timeout_ms > 0)
        until = deadline(timeout_ms);
    lock(queue);
    int rc = timeout_ms == 0 ? ETIMEDOUT : 0;
    while (queue->length == 0 && !queue->closed && !queue->woken && rc != ETIMEDOUT) {
        queue->waiting++;
        rc = timeout_ms < 0 ? pthread_cond_wait(&queue->changed, &queue->lock)
                            : pthread_cond_timedwait(&queue->changed, &queue->lock, &until);
        queue->waiting--;
        /* Perhaps another's, who then is woken once more than needed. */
        if (queue->signalled > 0)
            queue->signalled--;
        assert(rc == 0 || rc == ETIMEDOUT);
    }
    queue->woken = false;
    bool some = queue->length > 0;
    unlock(queue);
    return some;
}

void queue_wake(struct queue *queue)
{
    lock(queue);
    queue->woken = true;
    bool signal = queue->waiting > 0;
    unlock(queue);
    if (signal)
        (void)pthread_cond_signal(&queue->changed);
}

void queue_close(struct queue *queue)
{
    lock(queue);
    queue->closed = true;
    /* Under the lock: once we let go, a consumer that saw it may destroy the queue. */
    (void)pthread_cond_broadcast(&queue->changed);
    unlock(queue);
}

bool queue_closed(struct queue *queue)
{
    lock(queue);
    bool closed = queue->closed;
    unlock(queue);
    return closed;
}

size_t queue_length(struct queue *queue)
{
    lock(queue);
    size_t length = queue->length;
    unlock(queue);
    return length;
}
