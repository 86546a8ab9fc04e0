/*
 * Each request is carried by one of ours, with the same wishes and callbacks that hand on.
 *
 *   cloud_start(guard, request) ─► breaker: a ticket? ─► cloud_start(inner, flight.request)
 *   its done ─► breaker ─► request->done
 *
 * An answer that begins (head) tells the breaker that the cloud is there: a download may take long,
 * and whether its client goes on reading is no matter of the cloud's.
 *
 * A cancel may come from any thread while the request's `done` is on its way on the cloud's. So
 * both take the lock, under which request->work leads to the flight or no more.
 */
#include "cluster/cloud_guard.h"

#include "base/container.h"
#include "base/log.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct flight {
    struct cloud_request request; /* first: the inner cloud hands it back */
    struct cloud_request *outer;
    struct guard *guard;
    struct flight *next, **link; /* in the list of those under way */
    uint32_t ticket;
    bool cancelled; /* under the lock */
};

struct guard {
    struct cloud cloud; /* first */
    struct cloud *inner;
    struct env *env;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t idle;
    struct breaker breaker;
    struct flight *flights;
    unsigned count; /* of flights, and of `done` that have not returned */
    bool closed;
};

static struct guard *guard_of(struct cloud *cloud)
{
    return container_of(cloud, struct guard, cloud);
}

static void lock(struct guard *guard)
{
    (void)pthread_mutex_lock(&guard->lock);
}

static void unlock(struct guard *guard)
{
    (void)pthread_mutex_unlock(&guard->lock);
}

/* ---- The breaker. With the lock held, and for the log without it. ---- */

static bool learn(struct guard *guard, uint32_t ticket, enum breaker_outcome outcome,
                  uint32_t retry_after_ms)
{
    uint64_t dice;

    guard->env->random(guard->env, &dice, sizeof dice);
    return breaker_step(&guard->breaker, ticket, outcome, retry_after_ms, env_mono_ms(guard->env),
                        dice);
}

static void say(struct guard *guard, const char *message)
{
    struct cloud_guard_stats stats;

    cloud_guard_stats(&guard->cloud, &stats);
    if (stats.state == BREAKER_OPEN)
        log_warn("cloud: it does not answer and is left alone for %llu ms: %s",
                 (unsigned long long)stats.wait_ms, message);
    else if (stats.state == BREAKER_CLOSED)
        log_info("cloud: it answers again");
}

/* ---- What the inner cloud calls ---- */

static int on_read(struct cloud_request *request, uint64_t offset, void *buf, size_t len)
{
    struct cloud_request *outer = ((struct flight *)request)->outer;

    return outer->read(outer, offset, buf, len);
}

static int on_head(struct cloud_request *request, const struct cloud_head *head)
{
    struct flight *flight = (struct flight *)request;
    struct guard *guard = flight->guard;

    lock(guard);
    bool changed = learn(guard, flight->ticket, BREAKER_ANSWERED, 0);
    unlock(guard);
    if (changed)
        say(guard, "");
    return flight->outer->head ? flight->outer->head(flight->outer, head) : 0;
}

static void on_data(struct cloud_request *request, const void *bytes, size_t len)
{
    struct cloud_request *outer = ((struct flight *)request)->outer;

    outer->data(outer, bytes, len);
}

static void on_entry(struct cloud_request *request, const struct cloud_entry *entry)
{
    struct cloud_request *outer = ((struct flight *)request)->outer;

    outer->entry(outer, entry);
}

/* With the lock held. */
static void list(struct guard *guard, struct flight *flight)
{
    flight->outer->work = flight;
    flight->next = guard->flights;
    flight->link = &guard->flights;
    if (flight->next)
        flight->next->link = &flight->next;
    guard->flights = flight;
    guard->count++;
}

/* With the lock held: nobody finds FLIGHT any more. */
static void strike_off(struct flight *flight)
{
    flight->outer->work = NULL;
    *flight->link = flight->next;
    if (flight->next)
        flight->next->link = flight->link;
}

static void on_done(struct cloud_request *request, int rc)
{
    struct flight *flight = (struct flight *)request;
    struct guard *guard = flight->guard;
    struct cloud_request *outer = flight->outer;

    memcpy(outer->etag, request->etag, sizeof outer->etag);
    memcpy(outer->message, request->message, sizeof outer->message);
    outer->retry_after_ms = request->retry_after_ms < BREAKER_MAX_TOLD_MS ? request->retry_after_ms
                                                                          : BREAKER_MAX_TOLD_MS;
    outer->more = request->more;
    lock(guard);
    strike_off(flight);
    bool changed =
        learn(guard, flight->ticket, flight->cancelled ? BREAKER_UNKNOWN : breaker_outcome(rc),
              flight->cancelled ? 0 : request->retry_after_ms);
    unlock(guard);
    if (changed)
        say(guard, *request->message ? request->message : err_text(rc));
    free(flight);
    outer->done(outer, rc);
    lock(guard);
    assert(guard->count > 0);
    if (--guard->count == 0)
        (void)pthread_cond_broadcast(&guard->idle);
    unlock(guard);
}

/* ---- The backend ---- */

static struct flight *make(struct guard *guard, struct cloud_request *request)
{
    struct flight *flight = calloc(1, sizeof *flight);

    if (!flight)
        return NULL;
    flight->request = *request;
    flight->request.next = NULL;
    flight->request.work = NULL;
    flight->request.read = request->read ? on_read : NULL;
    flight->request.head = on_head;
    flight->request.data = request->data ? on_data : NULL;
    flight->request.entry = request->entry ? on_entry : NULL;
    flight->request.done = on_done;
    flight->outer = request;
    flight->guard = guard;
    return flight;
}

static int start(struct cloud *cloud, struct cloud_request *request)
{
    struct guard *guard = guard_of(cloud);
    struct flight *flight = make(guard, request);
    int rc = 0;

    if (!flight)
        return ERR_NO_MEMORY;
    request->etag[0] = request->message[0] = '\0';
    request->retry_after_ms = 0;
    lock(guard);
    if (guard->closed)
        rc = ERR_CLOSED;
    else if (!(flight->ticket = breaker_ask(&guard->breaker, env_mono_ms(guard->env))))
        rc = ERR_CLOUD;
    /* Inside the lock, so that nobody cancels what has not begun; its callbacks wait for us. */
    if (rc == 0) {
        rc = cloud_start(guard->inner, &flight->request);
        if (rc)
            (void)learn(guard, flight->ticket, BREAKER_UNKNOWN, 0);
    }
    if (rc == 0)
        list(guard, flight);
    unlock(guard);
    if (rc)
        free(flight);
    return rc;
}

static void consumed(struct cloud *cloud, struct cloud_request *request, uint64_t bytes)
{
    struct guard *guard = guard_of(cloud);

    lock(guard);
    struct flight *flight = request->work;
    if (flight)
        cloud_consumed(guard->inner, &flight->request, bytes);
    unlock(guard);
}

static void cancel(struct cloud *cloud, struct cloud_request *request)
{
    struct guard *guard = guard_of(cloud);

    lock(guard);
    struct flight *flight = request->work;
    if (flight) {
        flight->cancelled = true;
        cloud_cancel(guard->inner, &flight->request);
    }
    unlock(guard);
}

static void figures(struct cloud *cloud, struct cloud_figures *out)
{
    cloud_figures(guard_of(cloud)->inner, out);
}

static void destroy(struct cloud *cloud)
{
    struct guard *guard = guard_of(cloud);

    assert(guard->count == 0);
    (void)pthread_cond_destroy(&guard->idle);
    (void)pthread_mutex_destroy(&guard->lock);
    free((struct cloud_backend *)guard->cloud.backend);
    free(guard);
}

int cloud_guard_create(struct cloud **out, struct cloud *inner, struct env *env)
{
    struct guard *guard = calloc(1, sizeof *guard);
    struct cloud_backend *backend = malloc(sizeof *backend);

    *out = NULL;
    if (!guard || !backend) {
        free(guard);
        free(backend);
        return ERR_NO_MEMORY;
    }
    /* Under the inner one's name: it is what events call where things are. */
    *backend = (struct cloud_backend){.name = inner->backend->name,
                                      .start = start,
                                      .consumed = consumed,
                                      .cancel = cancel,
                                      .figures = figures,
                                      .destroy = destroy};
    guard->cloud = (struct cloud){.backend = backend, .bucket = inner->bucket};
    guard->inner = inner;
    guard->env = env;
    (void)pthread_mutex_init(&guard->lock, NULL);
    (void)pthread_cond_init(&guard->idle, NULL);
    *out = &guard->cloud;
    return 0;
}

void cloud_guard_close(struct cloud *cloud)
{
    struct guard *guard = guard_of(cloud);

    lock(guard);
    guard->closed = true;
    for (struct flight *flight = guard->flights; flight; flight = flight->next) {
        flight->cancelled = true;
        cloud_cancel(guard->inner, &flight->request);
    }
    while (guard->count > 0)
        (void)pthread_cond_wait(&guard->idle, &guard->lock);
    unlock(guard);
}

void cloud_guard_stats(struct cloud *cloud, struct cloud_guard_stats *out)
{
    struct guard *guard = guard_of(cloud);

    lock(guard);
    *out = (struct cloud_guard_stats){
        .state = guard->breaker.state,
        .opened = guard->breaker.opened,
        .refused = guard->breaker.refused,
        .wait_ms = breaker_wait_ms(&guard->breaker, env_mono_ms(guard->env))};
    unlock(guard);
}
