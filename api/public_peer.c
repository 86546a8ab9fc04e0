/*
 * GET of an object whose body is on other nodes only (or damaged here), after the look-up in
 * public_get.c has rendered the header lines and made the plan:
 *
 * - small: peer_body; fetched whole, once for all who ask; verified; into the RAM tier; answered
 * from memory, ranges too
 * - large: peer_source; streamed as it arrives; the header goes out with the first bytes
 *
 * Nobody has it or answers in time: 503 no_holder, as the object exists all the same. Nobody's copy
 * is good: 500 body_damaged.
 */
#include "api/public_impl.h"

#include "api/peer_source.h"

static void refuse(struct public_request *request, int rc)
{
    static const struct refusal no_holder = {
        503, "no_holder", "no node that has the body answers now", "Retry-After: 2\r\n"};

    switch (rc) {
    case ERR_NOT_FOUND:
    case ERR_TIMEOUT:
    case ERR_AGAIN:
    case ERR_CLOSED:
        public_refuse(request->http, &no_holder);
        return;
    default:
        public_fail(request->http, rc, OPERATION_GET, &request->id);
    }
}

/* The post of a request for which nothing could be begun. */
static void refused(struct http_request *http)
{
    struct public_request *request = http_request_data(http);

    refuse(request, request->rc);
}

/* ---- Small bodies ---- */

static void keep(void *arg, const uint8_t *bytes)
{
    public_get_fill(arg, bytes);
}

static void small_came(struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    int rc = peer_body_settle(request->peer_body, &request->waiter, keep, request);

    if (rc)
        refuse(request, rc);
    else
        public_get_answer(request, peer_body_bytes(request->peer_body));
}

/* Another request has brought it into the RAM tier just now. */
static void small_is_hot(struct http_request *http)
{
    bool answered = public_get_entry(http_request_data(http));

    assert(answered); /* the entry is a whole body */
    (void)answered;
}

static int ask_small(struct public_request *request, const struct store_origin *origin)
{
    const struct ram_entry *entry;

    request->waiter.http = request->http;
    request->waiter.run = small_came;
    int rc = peer_body_ask(&request->peer_body, &entry, store_peer_bodies(request->api->store),
                           origin, &request->waiter);
    if (rc != ERR_EXISTS)
        return rc;
    if (request->entry)
        ram_release(request->api->ram, request->entry);
    request->entry = entry;
    http_post(request->http, small_is_hot);
    return 0;
}

/* ---- Large ones ---- */

static void large_comes(struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    int rc = peer_source_state(request->source);

    if (rc) {
        peer_source_close(&request->source);
        refuse(request, rc);
        return;
    }
    bool part = request->plan.status == 206;
    const struct buf *head = part ? &request->head : &request->base;
    const struct http_answer answer = {.status = request->plan.status,
                                       .head = head->data,
                                       .head_len = head->len,
                                       .source = request->source,
                                       .length = request->source_length};

    request->source = NULL; /* the core closes it */
    http_answer(http, &answer);
}

static int ask_large(struct public_request *request, const struct store_origin *origin)
{
    struct multipart layout;
    int rc = public_get_lay_out(request, origin->size, &layout);

    if (rc)
        return rc;
    request->source_length = layout.length;
    rc = peer_source_create(&request->source, request->api->store, origin, &layout);
    if (rc)
        return rc;
    /* After a success the request is the cluster's: it may have been answered already. */
    rc = peer_source_start(request->source, request->http, large_comes);
    if (rc)
        peer_source_close(&request->source);
    return rc;
}

void public_get_from_peers(struct public_request *request, struct db_reader *reader)
{
    struct store_origin origin;
    struct http_request *http = request->http;

    assert(request->body && !request->peer_body && !request->source);
    int rc = store_origin_find(&origin, request->body, reader);
    if (rc == 0)
        rc = origin.size <= LIMIT_INLINE_BODY_BYTES ? ask_small(request, &origin)
                                                    : ask_large(request, &origin);
    if (rc) {
        request->rc = rc;
        http_post(http, refused);
    }
}
