/*
 * The S3 backend's frame: its thread, what other threads may say to it, and the table of struct
 * cloud. What single requests take is in cloud_s3_simple.c, _get.c and _upload.c.
 *
 * The thread turns in one loop: take what others left (new works, cancels, bytes consumed, tasks
 * that the pool finished), start calls for which there is a connection, let libcurl move, look at
 * what it finished, and at the clock. It waits in curl_multi_poll alone, from which
 * curl_multi_wakeup calls it. Nothing blocks it: the disk is read by the pool's threads (struct
 * s3_task).
 *
 * Lifecycle of a work: s3_start puts it into the inbox; its kind begins it; s3_work_end marks it,
 * and once no task of it is in the pool `done` is called and it is freed. A cancel is an end with
 * ERR_CLOSED. Closing cancels all, waits a little for the aborts of uploads, and ends the thread.
 */
#include "storage/cloud_s3_internal.h"

#include "base/container.h"

#include <assert.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REST_MS 50

struct cloud_text s3_bucket(const struct s3_work *work)
{
    return work->request->bucket.len > 0 ? work->request->bucket : s3_text(work->s3->bucket_name);
}

uint64_t s3_random(struct s3 *s3, uint64_t below)
{
    uint64_t dice;

    if (below == 0)
        return 0;
    s3->env->random(s3->env, &dice, sizeof dice);
    return dice % below;
}

void s3_count(struct s3 *s3, enum cloud_op op, bool failed)
{
    (void)pthread_mutex_lock(&s3->lock);
    if (failed)
        s3->figures.by_op[op].failed++;
    else
        s3->figures.by_op[op].sent++;
    (void)pthread_mutex_unlock(&s3->lock);
}

void s3_count_retry(struct s3 *s3)
{
    (void)pthread_mutex_lock(&s3->lock);
    s3->figures.retries++;
    (void)pthread_mutex_unlock(&s3->lock);
}

void s3_count_bytes(struct s3 *s3, uint64_t up, uint64_t down)
{
    (void)pthread_mutex_lock(&s3->lock);
    s3->figures.bytes_up += up;
    s3->figures.bytes_down += down;
    (void)pthread_mutex_unlock(&s3->lock);
}

/* ---- Tasks ---- */

static void run_task(struct job *job, void *context)
{
    struct s3_task *task = container_of(job, struct s3_task, job);
    struct s3 *s3 = task->s3;

    (void)context;
    task->run(task);
    (void)pthread_mutex_lock(&s3->lock);
    task->next = s3->tasks_done;
    s3->tasks_done = task;
    (void)pthread_mutex_unlock(&s3->lock);
    (void)curl_multi_wakeup(s3->multi);
}

void s3_task_start(struct s3_task *task, struct s3_work *work)
{
    task->s3 = work->s3;
    task->work = work;
    task->job.run = run_task;
    work->tasks++;
    /* The queue has room for every task that LIMIT_CLOUD_REQUESTS works can have. */
    int rc = pool_submit(work->s3->pool, &task->job);
    assert(rc == 0);
    (void)rc;
}

/* ---- Works ---- */

static void finish(struct s3_work *work)
{
    struct s3 *s3 = work->s3;
    struct cloud_request *request = work->request;
    int rc = work->rc;

    assert(work->ended && work->tasks == 0);
    (void)pthread_mutex_lock(&s3->lock);
    if (work->prev)
        work->prev->next = work->next;
    else
        s3->works = work->next;
    if (work->next)
        work->next->prev = work->prev;
    for (struct s3_work **at = &s3->touched; work->touched && *at; at = &(*at)->touched_next) {
        if (*at == work) {
            *at = work->touched_next;
            break;
        }
    }
    s3->count--;
    request->work = NULL;
    (void)pthread_mutex_unlock(&s3->lock);
    work->kind->destroy(work);
    request->done(request, rc);
}

void s3_work_end(struct s3_work *work, int rc, const struct s3_call *call)
{
    if (work->ended)
        return;
    work->ended = true;
    work->rc = rc;
    const char *why = call ? call->verdict.message : work->request->message;
    if (rc && !why[0])
        why = err_text(rc);
    if (rc && why != work->request->message)
        (void)snprintf(work->request->message, sizeof work->request->message, "%s", why);
    if (rc && call)
        work->request->retry_after_ms = call->verdict.wait_ms;
    atomic_store(&work->stopping, true);
    work->kind->stop(work);
    if (work->tasks == 0)
        finish(work);
}

bool s3_work_room(struct s3_work *work, uint64_t given, size_t len)
{
    struct s3 *s3 = work->s3;

    (void)pthread_mutex_lock(&s3->lock);
    assert(given >= work->request->consumed);
    work->waits = given - work->request->consumed + len > CLOUD_WINDOW_BYTES;
    bool room = !work->waits;
    (void)pthread_mutex_unlock(&s3->lock);
    return room;
}

/* ---- From any thread ---- */

static struct s3 *s3_of(struct cloud *cloud)
{
    return container_of(cloud, struct s3, cloud);
}

static struct s3_work *create_work(struct s3 *s3, struct cloud_request *request)
{
    if (request->op == CLOUD_GET)
        return s3_get_create(request);
    if (request->op == CLOUD_PUT && request->size > s3->part_bytes)
        return s3_upload_create(request);
    return s3_simple_create(request);
}

static int start(struct cloud *cloud, struct cloud_request *request)
{
    struct s3 *s3 = s3_of(cloud);
    int rc = s3_check_request(request);

    if (rc)
        return rc;
    struct s3_work *work = create_work(s3, request);
    if (!work)
        return ERR_NO_MEMORY;
    work->s3 = s3;
    work->request = request;
    request->etag[0] = request->message[0] = '\0';
    request->retry_after_ms = 0;
    request->more = request->cancelled = false;
    request->consumed = 0;
    (void)pthread_mutex_lock(&s3->lock);
    rc = s3->closing ? ERR_CLOSED : s3->count >= LIMIT_CLOUD_REQUESTS ? ERR_FULL : 0;
    if (rc == 0) {
        request->work = work;
        s3->count++;
        *s3->inbox_end = work;
        s3->inbox_end = &work->next;
    }
    (void)pthread_mutex_unlock(&s3->lock);
    if (rc)
        work->kind->destroy(work);
    else
        (void)curl_multi_wakeup(s3->multi);
    return rc;
}

/* Under the lock. */
static void touch(struct s3 *s3, struct s3_work *work)
{
    if (!work->touched) {
        work->touched = true;
        work->touched_next = s3->touched;
        s3->touched = work;
    }
}

static void consumed(struct cloud *cloud, struct cloud_request *request, uint64_t bytes)
{
    struct s3 *s3 = s3_of(cloud);
    bool wake = false;

    (void)pthread_mutex_lock(&s3->lock);
    struct s3_work *work = request->work;
    request->consumed += bytes;
    if (work && work->waits) {
        wake = true;
        work->waits = false;
        touch(s3, work);
    }
    (void)pthread_mutex_unlock(&s3->lock);
    if (wake)
        (void)curl_multi_wakeup(s3->multi);
}

static void cancel(struct cloud *cloud, struct cloud_request *request)
{
    struct s3 *s3 = s3_of(cloud);

    (void)pthread_mutex_lock(&s3->lock);
    struct s3_work *work = request->work;
    request->cancelled = true;
    if (work) {
        work->cancel = true;
        atomic_store(&work->stopping, true);
        touch(s3, work);
    }
    (void)pthread_mutex_unlock(&s3->lock);
    (void)curl_multi_wakeup(s3->multi);
}

static void figures(struct cloud *cloud, struct cloud_figures *out)
{
    struct s3 *s3 = s3_of(cloud);

    (void)pthread_mutex_lock(&s3->lock);
    *out = s3->figures;
    (void)pthread_mutex_unlock(&s3->lock);
}

/* ---- The thread ---- */

static void begin_new(struct s3 *s3)
{
    (void)pthread_mutex_lock(&s3->lock);
    struct s3_work *list = s3->inbox;
    s3->inbox = NULL;
    s3->inbox_end = &s3->inbox;
    (void)pthread_mutex_unlock(&s3->lock);

    while (list) {
        struct s3_work *work = list;

        list = work->next;
        (void)pthread_mutex_lock(&s3->lock);
        work->prev = NULL;
        work->next = s3->works;
        if (s3->works)
            s3->works->prev = work;
        s3->works = work;
        work->begun = true;
        bool unwanted = work->cancel || s3->closing;
        (void)pthread_mutex_unlock(&s3->lock);
        if (unwanted)
            s3_work_end(work, ERR_CLOSED, NULL);
        else
            work->kind->begin(work);
    }
}

static void end_tasks(struct s3 *s3)
{
    (void)pthread_mutex_lock(&s3->lock);
    struct s3_task *list = s3->tasks_done;
    s3->tasks_done = NULL;
    (void)pthread_mutex_unlock(&s3->lock);

    while (list) {
        struct s3_task *task = list;
        struct s3_work *work = task->work;

        list = task->next;
        assert(work->tasks > 0);
        work->tasks--;
        if (!work->ended)
            task->ended(task);
        else if (work->tasks == 0)
            finish(work);
    }
}

static void heed_touched(struct s3 *s3)
{
    for (;;) {
        (void)pthread_mutex_lock(&s3->lock);
        struct s3_work *work = s3->touched;
        bool stop = false, begun = false;

        if (work) {
            s3->touched = work->touched_next;
            work->touched = false;
            stop = work->cancel;
            begun = work->begun; /* else it is in the inbox yet, and looked at when it begins */
        }
        (void)pthread_mutex_unlock(&s3->lock);
        if (!work)
            break;
        if (!begun || work->ended)
            continue;
        if (stop)
            s3_work_end(work, ERR_CLOSED, NULL);
        else if (work->kind->consumed)
            work->kind->consumed(work);
    }
}

/* Whether all is over. */
static bool heed_closing(struct s3 *s3)
{
    (void)pthread_mutex_lock(&s3->lock);
    bool closing = s3->closing;
    (void)pthread_mutex_unlock(&s3->lock);

    if (!closing)
        return false;
    if (s3->farewell_ms == 0)
        s3->farewell_ms = s3->now_ms + S3_FAREWELL_MS;
    struct s3_work *next;
    for (struct s3_work *work = s3->works; work; work = next) {
        next = work->next; /* the list changes on this thread alone */
        s3_work_end(work, ERR_CLOSED, NULL);
    }
    (void)pthread_mutex_lock(&s3->lock);
    bool empty = s3->count == 0;
    (void)pthread_mutex_unlock(&s3->lock);
    return empty && (s3->farewells == 0 || s3->now_ms >= s3->farewell_ms);
}

static void hear_curl(struct s3 *s3)
{
    int running, left;
    CURLMsg *message;

    (void)curl_multi_perform(s3->multi, &running);
    while ((message = curl_multi_info_read(s3->multi, &left))) {
        char *call = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &call);
        s3_call_ended((struct s3_call *)(void *)call, code);
    }
}

static void *run(void *arg)
{
    struct s3 *s3 = arg;

    s3->now_ms = env_mono_ms(s3->env);
    if (!s3->keys.good) /* that none are to be had is said at the start */
        (void)s3_keys_ready(s3);
    for (;;) {
        s3->now_ms = env_mono_ms(s3->env);
        begin_new(s3);
        end_tasks(s3);
        heed_touched(s3);
        if (heed_closing(s3))
            break;
        s3_calls_go(s3);
        hear_curl(s3);
        s3->now_ms = env_mono_ms(s3->env);
        uint64_t next_ms = s3_calls_tick(s3);
        s3_calls_go(s3);
        if (s3->farewell_ms > 0 && !s3->works && s3->farewells == 0)
            continue; /* that was the last */
        if (s3->farewell_ms > 0 && next_ms > s3->farewell_ms)
            next_ms = s3->farewell_ms;
        /* What was just started moves in the next turn; curl's own timers are in its poll. */
        uint64_t wait_ms = next_ms > s3->now_ms ? next_ms - s3->now_ms : 0;
        if (curl_multi_poll(s3->multi, NULL, 0, (int)wait_ms, NULL) != CURLM_OK && wait_ms > 0)
            (void)poll(NULL, 0, REST_MS); /* no memory for it: not again at once */
    }
    return NULL;
}

int s3_begin_thread(struct s3 *s3)
{
    sigset_t all, before;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&s3->thread, NULL, run, s3) ? ERR_NO_MEMORY : 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return rc;
    s3->running = true;
    (void)pthread_setname_np(s3->thread, "cloud");
    return 0;
}

/* ---- The table ---- */

static void destroy(struct cloud *cloud)
{
    struct s3 *s3 = s3_of(cloud);

    if (s3->running) {
        (void)pthread_mutex_lock(&s3->lock);
        s3->closing = true;
        (void)pthread_mutex_unlock(&s3->lock);
        (void)curl_multi_wakeup(s3->multi);
        (void)pthread_join(s3->thread, NULL);
    }
    pool_stop(&s3->pool);
    s3_farewells_drop(s3);
    s3_keys_release(s3);
    for (unsigned i = 0; i < s3->spare_count; i++)
        curl_easy_cleanup(s3->spare[i]);
    if (s3->multi)
        (void)curl_multi_cleanup(s3->multi);
    (void)pthread_mutex_destroy(&s3->lock);
    free(s3->bucket_name);
    free(s3->ca_file);
    free(s3);
}

const struct cloud_backend s3_backend = {.name = "s3",
                                         .start = start,
                                         .consumed = consumed,
                                         .cancel = cancel,
                                         .figures = figures,
                                         .destroy = destroy};
