/*
 * GET of an object whose body is on other nodes or in the cloud only (or damaged here), after the
 * look-up in public_get.c has rendered the header lines and made the plan:
 *
 * - small: peer_body; out of the disk cache, or fetched whole, once for all who ask, and verified;
 * into the RAM tier and the disk cache; answered from memory, ranges too
 * - large: streamed as it arrives; the header goes out with the first bytes. Out of the disk cache
 * where it has a copy (cache_source); a whole body into it, once for all who ask (peer_fill); a
 * range of what only the cloud has likewise, the parts of it that are needed; a range of what other
 * nodes have, or what the cache has no room for, by itself (peer_source)
 *
 * Nobody has it or answers in time: 503 no_holder, as the object exists all the same. Nobody's copy
 * is good: 500 body_damaged. It is in the cloud, which does not answer: 503 cloud_unavailable.
 */
#include "api/public_impl.h"

#include "api/cache_source.h"
#include "api/peer_copy.h"
#include "api/peer_source.h"

/* Where all of a body comes for the sake of a range, the range waits for it; not for more than so
 * much: of a larger one it is fetched by itself, too. */
#define WAIT_BYTES (64 * MIB)

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
    struct public_request *request = arg;

    public_get_fill(request, bytes);
    peer_body_keep(request->peer_body, store_body_token(request->body));
}

static void small_came(struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    int rc = peer_body_settle(request->peer_body, &request->waiter, keep, request);

    if (rc) {
        refuse(request, rc);
        return;
    }
    request->is_fetched |= peer_body_from_cloud(request->peer_body);
    public_get_answer(request, peer_body_bytes(request->peer_body));
}

/* Another request has brought it into the RAM tier just now. */
static void small_is_hot(struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    char etag[ETAG_BYTES + 1];

    /* The entry's header lines do not say that this request had the object looked for. */
    headers_etag(etag, store_body_object(request->body));
    if (request->is_fetched && strcmp(etag, request->entry->etag) == 0) {
        public_get_answer(request, request->entry->body);
        return;
    }
    bool answered = public_get_entry(request);

    assert(answered); /* the entry is a whole body */
    (void)answered;
}

static void small_recalled(struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    const uint8_t *bytes = peer_body_bytes(request->peer_body);

    public_get_fill(request, bytes);
    public_get_answer(request, bytes);
}

static int ask_small(struct public_request *request, const struct store_origin *origin)
{
    const struct ram_entry *entry;

    if (peer_body_recall(&request->peer_body, store_peer_bodies(request->api->store), origin) ==
        0) {
        http_post(request->http, small_recalled);
        return 0;
    }

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

static void answer_large(struct public_request *request)
{
    bool part = request->plan.status == 206;
    struct buf *head = part ? &request->head : &request->base;

    public_get_say_fetched(request, head);
    int rc = buf_check(head);
    if (rc) {
        request->source->close(request->source);
        request->source = NULL;
        refuse(request, rc);
        return;
    }
    const struct http_answer answer = {.status = request->plan.status,
                                       .head = head->data,
                                       .head_len = head->len,
                                       .source = request->source,
                                       .length = request->source_length};

    request->source = NULL; /* the core closes it */
    public_get_count(request, (struct slice){head->data, head->len}, answer.length);
    http_answer(request->http, &answer);
}

static void large_comes(struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    int rc = peer_source_state(request->source);

    if (rc) {
        peer_source_close(&request->source);
        refuse(request, rc);
        return;
    }
    request->is_fetched |= peer_source_from_cloud(request->source);
    answer_large(request);
}

static int ask_alone(struct public_request *request, const struct store_origin *origin)
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

/* ---- Large ones, through the disk cache ---- */

/* The cache's own disk failed: the bytes are elsewhere all the same. */
static bool is_ours(int rc)
{
    return rc == ERR_IO || rc == ERR_NO_SPACE || rc == ERR_NO_MEMORY;
}

static void cached_comes(struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    int rc = cache_source_start(request->source, http, NULL);

    if (rc == 0) {
        request->is_fetched |= cache_source_from_cloud(request->source);
        answer_large(request);
        return;
    }
    const struct store_origin origin = *cache_source_origin(request->source);
    cache_source_close(&request->source);
    if (rc == ERR_NOT_FOUND && origin.part_bytes) { /* what the cloud has bears another ETag now */
        request->whole_only = true;
        public_get_again(request);
        return;
    }
    if (is_ours(rc)) {
        http_suspend(http);
        rc = ask_alone(request, &origin);
        if (rc == 0)
            return;
        request->rc = rc;
        http_post(http, refused);
        return;
    }
    refuse(request, rc);
}

static void cached_is_here(struct http_request *http)
{
    answer_large(http_request_data(http));
}

static bool is_whole(const struct public_request *request, uint64_t size)
{
    const struct get_plan *plan = &request->plan;

    return plan->status == 200 ||
           (plan->count == 1 && plan->ranges[0].first == 0 && plan->ranges[0].last == size - 1);
}

/* Begin to answer from request->source. */
static int start_cached(struct public_request *request)
{
    int rc = cache_source_start(request->source, request->http, cached_comes);
    if (rc == ERR_AGAIN)
        return 0; /* the request is the fill's: it may have been answered already */
    if (rc == 0)
        http_post(request->http, cached_is_here);
    else
        cache_source_close(&request->source);
    return rc;
}

/* COPY or FILL is given away. ERR_CORRUPT: the copy's first block is damaged. */
static int ask_cached(struct public_request *request, uint64_t size, struct disk_copy **copy,
                      struct peer_fill **fill)
{
    struct multipart layout;
    int rc = public_get_lay_out(request, size, &layout);

    if (rc) {
        disk_copy_release(copy);
        peer_fill_leave(fill);
        return rc;
    }
    request->source_length = layout.length;
    rc = cache_source_create(&request->source, request->api->store, copy, fill, &layout);
    if (rc)
        return rc;
    if (!is_whole(request, size))
        cache_source_be_patient(request->source);
    return start_cached(request);
}

/* ---- Ranges of what only the cloud has ---- */

/* The parts that are asked for, each once for all who ask, and kept. */
static int ask_parts(struct public_request *request, const struct store_origin *origin)
{
    uint64_t token = store_body_token(request->body);
    struct store_origin part;
    struct disk_copy *copy;
    struct peer_fill *fill;
    struct multipart layout;

    store_origin_part(&part, origin, request->plan.ranges[0].first / STORE_PART_BYTES);
    int rc = peer_copy_find(&copy, &fill, request->api->store, &part, token);
    if (rc)
        return rc;
    rc = public_get_lay_out(request, origin->size, &layout);
    if (rc) {
        disk_copy_release(&copy);
        peer_fill_leave(&fill);
        return rc;
    }
    request->source_length = layout.length;
    rc = cache_source_create(&request->source, request->api->store, &copy, &fill, &layout);
    if (rc == 0)
        rc = cache_source_in_parts(request->source, origin, token);
    if (rc) {
        cache_source_close(&request->source);
        return rc;
    }
    return start_cached(request);
}

/* All of it, verified, in the background; whoever wants a range of it meanwhile asks by himself. */
static void bring_all(struct public_request *request, const struct store_origin *origin)
{
    struct peer_fills *fills = store_peer_fills(request->api->store);
    struct peer_fill *fill;

    /* Without room for it the range comes all the same. */
    if (peer_fill_join(&fill, fills, origin, store_body_token(request->body)) != 0)
        return;
    peer_fill_pin(fill);
    peer_fill_leave(&fill);
}

/* All of the body, once for all who ask. */
static int ask_whole(struct public_request *request, const struct store_origin *origin)
{
    struct disk_copy *copy;
    struct peer_fill *fill;
    int rc =
        peer_copy_find(&copy, &fill, request->api->store, origin, store_body_token(request->body));

    if (rc == ERR_NOT_FOUND || rc == ERR_CLOSED)
        return rc; /* nobody could give it to us alone either */
    if (rc == 0) {
        rc = ask_cached(request, origin->size, &copy, &fill);
        if (rc != ERR_CORRUPT && !is_ours(rc))
            return rc;
    }
    return ask_alone(request, origin);
}

static int ask_range(struct public_request *request, const struct store_origin *origin)
{
    if (!origin->has_cloud || store_origin_is_near(request->api->store, origin))
        return ask_alone(request, origin);
    if (!store_keeps_parts(request->api->store)) {
        bring_all(request, origin);
        return origin->size <= WAIT_BYTES ? ask_whole(request, origin) : ask_alone(request, origin);
    }
    int rc = ask_parts(request, origin);
    /* A damaged copy is dropped; else there is no room for one: fetched by itself in both cases. */
    return rc == 0 || rc == ERR_NOT_FOUND || rc == ERR_CLOSED ? rc : ask_alone(request, origin);
}

static int ask_large(struct public_request *request, const struct store_origin *origin)
{
    struct peer_fills *fills = store_peer_fills(request->api->store);
    struct disk_copy *copy = NULL;
    struct peer_fill *fill = NULL;

    if (!fills)
        return ask_alone(request, origin);
    copy = disk_cache_find(store_disk_cache(request->api->store), &origin->id, origin->sha256,
                           origin->size);
    if (copy) {
        int rc = ask_cached(request, origin->size, &copy, &fill);

        if (rc != ERR_CORRUPT)
            return rc;
    }
    bool in_parts = origin->size > STORE_PART_BYTES && !request->whole_only;
    if (!is_whole(request, origin->size) && (in_parts || !origin->has_cloud))
        return ask_range(request, origin);
    return ask_whole(request, origin);
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
