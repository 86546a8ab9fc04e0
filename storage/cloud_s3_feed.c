/*
 * The bytes of a body on their way from the owner's `read`, which may wait for the disk, into a
 * call on the cloud's thread: two buffers, of which one is being sent while the pool reads the
 * other. A body that fits into one takes one.
 *
 * A call is sent only when the first buffer is full, so small bodies never make libcurl pause. When
 * a call is tried again the feed begins anew; a read under way then ends as unwanted first.
 */
#include "storage/cloud_s3_internal.h"

#include "base/container.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void read_next(struct s3_feed *feed)
{
    uint64_t left = feed->end - feed->next;

    assert(!feed->reading && feed->spare_len == 0);
    if (left == 0 || feed->rc)
        return;
    feed->wanted = left < feed->room ? (size_t)left : feed->room;
    feed->reading = true;
    s3_task_start(&feed->task, feed->work);
}

/* On a thread of the pool. */
static void run(struct s3_task *task)
{
    struct s3_feed *feed = container_of(task, struct s3_feed, task);
    struct cloud_request *request = feed->request;

    feed->read_rc = atomic_load(&task->work->stopping)
                        ? ERR_CLOSED
                        : request->read(request, feed->next, feed->spare, feed->wanted);
}

static void swap(struct s3_feed *feed)
{
    char *sent = feed->ready;

    assert(feed->ready_used == feed->ready_len && feed->spare_len > 0);
    feed->ready = feed->spare;
    feed->ready_len = feed->spare_len;
    feed->ready_used = 0;
    feed->spare = sent;
    feed->spare_len = 0;
    /* With one buffer all of the body is in it. */
    assert(feed->spare || feed->next == feed->end);
    read_next(feed);
}

static void ended(struct s3_task *task)
{
    struct s3_feed *feed = container_of(task, struct s3_feed, task);

    feed->reading = false;
    if (feed->again) {
        feed->again = false;
        s3_feed_begin(feed, feed->call);
        return;
    }
    if (feed->read_rc) {
        feed->rc = feed->read_rc;
    } else {
        feed->spare_len = feed->wanted;
        feed->next += feed->wanted;
        if (feed->ready_used == feed->ready_len)
            swap(feed);
    }
    if (feed->call)
        s3_call_fed(feed->call);
}

int s3_feed_init(struct s3_feed *feed, struct s3_work *work, uint64_t first, uint64_t end)
{
    uint64_t len = end - first;

    assert(first <= end && end <= work->request->size);
    *feed = (struct s3_feed){.request = work->request, .work = work, .first = first, .end = end};
    feed->task.run = run;
    feed->task.ended = ended;
    feed->room = len < S3_FEED_BYTES ? (size_t)len : S3_FEED_BYTES;
    if (len == 0)
        return 0;
    feed->spare = malloc(feed->room);
    feed->ready = len > feed->room ? malloc(feed->room) : NULL;
    if (!feed->spare || (len > feed->room && !feed->ready)) {
        s3_feed_release(feed);
        return ERR_NO_MEMORY;
    }
    return 0;
}

void s3_feed_release(struct s3_feed *feed)
{
    assert(!feed->reading || feed->work->tasks == 0);
    free(feed->ready);
    free(feed->spare);
    feed->ready = feed->spare = NULL;
}

void s3_feed_begin(struct s3_feed *feed, struct s3_call *call)
{
    feed->call = call;
    if (feed->reading) {
        feed->again = true;
        return;
    }
    if (!feed->spare) { /* the one buffer went into `ready` */
        feed->spare = feed->ready;
        feed->ready = NULL;
    }
    feed->next = feed->first;
    feed->ready_len = feed->ready_used = feed->spare_len = 0;
    feed->rc = 0;
    read_next(feed);
}

size_t s3_feed_take(struct s3_feed *feed, void *out, size_t cap)
{
    if (feed->ready_used == feed->ready_len && feed->spare_len > 0)
        swap(feed);
    size_t len = feed->ready_len - feed->ready_used;
    if (len > cap)
        len = cap;
    if (len > 0)
        memcpy(out, feed->ready + feed->ready_used, len);
    feed->ready_used += len;
    return len;
}
