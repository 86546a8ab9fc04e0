/* A request to the cloud that a thread waits for: for administration, which has threads of its own.
 * Header-only. */
#ifndef CLUSTER_CLOUD_WAIT_H
#define CLUSTER_CLOUD_WAIT_H

#include "base/container.h"
#include "storage/cloud.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define CLOUD_WAIT_MS 50 /* between looks whether to stop */

/* Embed it, first where the request's callbacks look for their owner. */
struct cloud_wait {
    struct cloud_request request; /* but for `done`, the owner's */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool over;
    int rc;
};

static inline void cloud_wait_done(struct cloud_request *request, int rc)
{
    struct cloud_wait *wait = container_of(request, struct cloud_wait, request);

    (void)pthread_mutex_lock(&wait->lock);
    wait->over = true;
    wait->rc = rc;
    (void)pthread_cond_signal(&wait->ended);
    (void)pthread_mutex_unlock(&wait->lock);
}

/* Until it is over, or for a moment; under the lock. */
static inline void cloud_wait_moment(struct cloud_wait *wait)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += CLOUD_WAIT_MS * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    (void)pthread_cond_timedwait(&wait->ended, &wait->lock, &until);
}

/* Ask CLOUD, and wait for the answer: `done`'s rc, or cloud_start's error. Once *STOP is true it is
 * cancelled: ERR_CLOSED. */
static inline MUST_CHECK int cloud_wait_for(struct cloud *cloud, struct cloud_wait *wait,
                                            const atomic_bool *stop)
{
    bool cancelled = false;

    (void)pthread_mutex_init(&wait->lock, NULL);
    (void)pthread_cond_init(&wait->ended, NULL);
    wait->over = false;
    wait->request.done = cloud_wait_done;
    int rc = cloud_start(cloud, &wait->request);
    (void)pthread_mutex_lock(&wait->lock);
    while (rc == 0 && !wait->over) {
        if (atomic_load(stop) && !cancelled) {
            cancelled = true;
            cloud_cancel(cloud, &wait->request);
        }
        cloud_wait_moment(wait);
    }
    if (rc == 0)
        rc = wait->rc;
    (void)pthread_mutex_unlock(&wait->lock);
    (void)pthread_cond_destroy(&wait->ended);
    (void)pthread_mutex_destroy(&wait->lock);
    return rc;
}

#endif
