/*
 * From a change that is durable here to its answer.
 *
 *   durable ─┬─ nothing to wait for, nothing to count ───────────────────────────────► answer
 *            └─ copies_wait ─┬─ enough copies ──────────────────────────► done ─post─► answer
 *                   ▲        └─ time is up, the client has gone, the               │
 *                   │           node stops: copies_cancel, one more look ┘         │
 *                   └──── time was up, but the cloud got some of it meanwhile ─────┘
 *
 * A request that waits is suspended: it holds its connection and what it put, no thread. Whatever
 * ends the wait, the change stays; what is still owed is in the journal, and 202 says so.
 */
#include "api/public_ack.h"
#include "api/public_impl.h"

#include <string.h>

static bool raises(const struct public_request *request)
{
    return request->operation == OPERATION_PUT || request->level_sent;
}

static void answer(struct public_request *request, bool counted)
{
    const struct object *object = request->result.object;
    unsigned status = 200;

    if (request->operation != OPERATION_DELETE)
        status = ack_status(request->ack, object, raises(request), &request->copies, counted);
    public_answer_document(request, object, status);
}

static void begin(struct public_request *request, struct copies *copies, enum copies_need need);

/* Each step forward of the cloud begins the client's patience anew. */
static bool goes_on(struct public_request *request)
{
    uint64_t moved_ms = atomic_load(&request->wait.moved_ms);

    if (!request->late || request->wait.rc || request->wait.fulfilled || moved_ms == 0 ||
        moved_ms + request->timeout_ms <= request->deadline_ms)
        return false;
    request->deadline_ms = moved_ms + request->timeout_ms;
    return request->deadline_ms > env_mono_ms(request->api->env);
}

static void waited(struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    const struct copies_wait *wait = &request->wait;

    if (goes_on(request)) {
        begin(request, store_copies(request->api->store), wait->need);
        return;
    }
    /* Deleted meanwhile, or the node stops: what was counted last, at least what is here. */
    if (wait->found.members > 0)
        request->copies = wait->found;
    answer(request, wait->rc == 0);
}

/* On copies' thread. */
static void on_done(struct copies_wait *wait)
{
    http_post(container_of(wait, struct public_request, wait)->http, waited);
}

static void on_wake(struct http_request *http, enum http_wake why)
{
    struct public_request *request = http_request_data(http);

    request->late = why == HTTP_WAKE_LATE;
    copies_cancel(store_copies(request->api->store), &request->wait);
}

/* Milliseconds that are left of the request's patience. */
static uint64_t patience_ms(const struct public_request *request)
{
    uint64_t now_ms = env_mono_ms(request->api->env);

    return request->deadline_ms > now_ms ? request->deadline_ms - now_ms : 0;
}

/* Wait, or count at least. */
static void begin(struct public_request *request, struct copies *copies, enum copies_need need)
{
    const struct object *object = request->result.object;
    struct copies_wait *wait = &request->wait;
    uint64_t left_ms = patience_ms(request);

    if (left_ms == 0 || http_draining(request->http))
        need = COPIES_LOOK;
    request->late = false;
    wait->id = object->id;
    memcpy(wait->sha256, object->sha256, SHA256_BYTES);
    wait->need = need;
    wait->done = on_done;
    /* Suspended first: it may be done before we are back. */
    if (need == COPIES_LOOK)
        http_suspend(request->http);
    else
        http_suspend_watched(request->http, left_ms, on_wake);
    int rc = copies_wait(copies, wait);
    if (rc) { /* too many wait, or the node stops */
        wait->rc = rc;
        http_post(request->http, waited);
    }
}

void public_wait(struct public_request *request)
{
    const struct object *object = request->result.object;
    struct copies *copies = store_copies(request->api->store);
    const struct ack_policy policy = {.cloud = request->api->config.cloud,
                                      .writeback = request->api->config.writeback};
    enum copies_need need = COPIES_LOOK;

    if (request->operation != OPERATION_DELETE)
        need = ack_need(request->ack, object, raises(request), &policy);
    /* A put of what nobody knew has one copy, and alone there are no others. */
    bool known = request->result.first || store_is_alone(request->api->store);

    request->copies = store_own_copy(request->api->store, object);
    if (!copies || object->flags & OBJECT_DELETED || http_gone(request->http) ||
        (need == COPIES_LOOK && known)) {
        answer(request, known);
        return;
    }
    begin(request, copies, need);
}
