/*
 * GET and HEAD of an object, from the fastest way to the slowest:
 *
 *   RAM tier has the answer ─────────────────────────────────────────────► sent as it lies there
 *   RAM tier has the header, all blocks asked for of the large body are hot ► sent from memory
 *   RAM tier has the place, page cache the record ─► verified, filled ───► sent from the scratch
 *   else: pool looks it up, reads and verifies ─► post ──────────────────► sent from its memory,
 *                                                                          large: block by block
 *   the row says that the body is elsewhere, or it is damaged here ───────► public_peer.c
 *   there is no row, and the client says X-Meta-Fetch ────────────────────► public_fetch.c
 *
 * Each way ends in the same plan: what the preconditions and the range say about an object of this
 * tag, date and size. Damaged bytes are never sent: before the header goes out a small body is
 * verified whole and a large one's first block is.
 */
#include "api/public_impl.h"

#include "api/body_source.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>

/* ---- The plan ---- */

static void read_asks(struct get_asks *asks, const struct http_request *http)
{
    asks->conditional = conditional_of(http);
    asks->range = http_request_header(http, "range", NULL);
}

/* Copy what ASKS points to into OUT: it must outlive on_request. */
static int save_asks(struct get_asks *asks, struct buf *out)
{
    struct slice *all[] = {
        &asks->conditional.if_match,          &asks->conditional.if_none_match,
        &asks->conditional.if_modified_since, &asks->conditional.if_unmodified_since,
        &asks->conditional.if_range,          &asks->range};
    size_t count = sizeof all / sizeof *all, need = 0;

    for (size_t i = 0; i < count; i++)
        need += all[i]->len;
    if (need == 0)
        return 0;
    buf_reset(out);
    /* All of it at once: pointers into a buffer that grows would be lost. */
    if (!buf_reserve(out, need))
        return buf_check(out);
    for (size_t i = 0; i < count; i++) {
        if (!all[i]->len)
            continue;
        char *at = out->data + out->len;

        buf_add(out, all[i]->ptr, all[i]->len);
        all[i]->ptr = at;
    }
    return buf_check(out);
}

static void make_plan(struct get_plan *plan, const struct get_asks *asks, bool is_head,
                      const char *etag, uint64_t modified_s, uint64_t size)
{
    plan->status = 200;
    plan->count = 0;
    switch (conditional_evaluate(&asks->conditional, etag, modified_s)) {
    case CONDITIONAL_NOT_MODIFIED:
        plan->status = 304;
        return;
    case CONDITIONAL_FAILED:
        plan->status = 412;
        return;
    case CONDITIONAL_GO:
        break;
    }
    if (is_head || !asks->range.ptr ||
        !conditional_range_applies(&asks->conditional, etag, modified_s))
        return;
    enum range_result result =
        range_resolve(asks->range.ptr, asks->range.len, size, plan->ranges, &plan->count);
    if (result == RANGE_SOME)
        plan->status = 206;
    else if (result == RANGE_UNSATISFIABLE)
        plan->status = 416;
}

/* ---- Answering ---- */

/* What is left of header lines without the first, which is Content-Type. */
static struct slice without_type(struct slice head)
{
    const char *end = memchr(head.ptr, '\n', head.len);

    assert(end);
    size_t skip = (size_t)(end - head.ptr) + 1;
    return (struct slice){head.ptr + skip, head.len - skip};
}

static struct slice type_line(struct slice head)
{
    struct slice rest = without_type(head);

    return (struct slice){head.ptr, head.len - rest.len};
}

void public_get_count(struct public_request *request, struct slice head, uint64_t length)
{
    static const char local[] = "X-Meta-ConsistencyLevel: 0\r\n";

    if (!request->is_head && !memmem(head.ptr, head.len, local, sizeof local - 1))
        store_serves(request->api->store, length);
}

static void refuse_plan(struct public_request *request, uint64_t size)
{
    char head[64];

    if (request->plan.status == 412) {
        public_fail(request->http, ERR_PRECONDITION, OPERATION_GET, &request->id);
        return;
    }
    (void)snprintf(head, sizeof head, "Content-Range: bytes */%llu\r\n", (unsigned long long)size);
    http_answer_error(request->http, 416, "range_not_satisfiable",
                      "no byte of the object lies in the range", head);
}

/* The layout of a 206, and its header lines in request->head. */
static int lay_out(struct public_request *request, struct slice base, uint64_t size,
                   struct multipart *layout)
{
    const struct get_plan *plan = &request->plan;
    struct buf *head = &request->head;
    char boundary[MULTIPART_BOUNDARY_BYTES + 1];
    uint8_t dice[MULTIPART_BOUNDARY_BYTES / 2];

    buf_reset(head);
    if (plan->count == 1) {
        /* Content-Type stays the first line: nobody looks, but a rule without exceptions is one. */
        struct slice first = type_line(base), rest = without_type(base);

        buf_add(head, first.ptr, first.len);
        buf_format(head, "Content-Range: bytes %llu-%llu/%llu\r\n",
                   (unsigned long long)plan->ranges[0].first,
                   (unsigned long long)plan->ranges[0].last, (unsigned long long)size);
        buf_add(head, rest.ptr, rest.len);
    } else {
        struct slice rest = without_type(base);
        struct env *env = request->api->env;

        /* Drawn, so that no body can contain it by intent. */
        env->random(env, dice, sizeof dice);
        hex_encode(boundary, dice, sizeof dice);
        buf_format(head, "Content-Type: multipart/byteranges; boundary=%s\r\n", boundary);
        buf_add(head, rest.ptr, rest.len);
    }
    int rc = buf_check(head);
    return rc ? rc
              : multipart_init(layout, plan->ranges, plan->count, size, type_line(base), boundary);
}

/* Several parts of a body in the loop's scratch, put together in request->text. */
static int gather(struct public_request *request, const struct multipart *layout,
                  const uint8_t *body)
{
    buf_reset(&request->text);
    for (uint64_t at = 0; at < layout->length;) {
        const char *text;
        uint64_t position, len;

        multipart_at(layout, at, &text, &position, &len);
        buf_add(&request->text, text ? (const void *)text : body + position, len);
        at += len;
    }
    return buf_check(&request->text);
}

/* A source of the body at BODY, or where that is NULL of the large one. */
static int make_source(struct public_request *request, const uint8_t *body,
                       struct multipart *layout, struct http_source **out)
{
    struct body_origin origin = {.memory = body, .body = &request->body, .id = request->id};

    if (!body && request->body) {
        origin.number = store_body_object(request->body)->place.offset;
        origin.size = store_body_object(request->body)->size;
    } else if (!body) {
        origin.number = request->entry->large.number;
        origin.size = request->entry->large.size;
    }
    return body_source_create(out, request->api->store, &origin, layout);
}

static void answer_ranges(struct public_request *request, struct slice base, const uint8_t *body,
                          uint64_t size, bool lent)
{
    struct http_answer answer = {.status = 206, .lent = lent};
    struct multipart layout;
    int rc = lay_out(request, base, size, &layout);

    if (rc) {
        public_fail(request->http, rc, OPERATION_GET, &request->id);
        return;
    }
    answer.length = layout.length;
    if (body && layout.count == 1) {
        answer.body = body + layout.ranges[0].first;
        multipart_release(&layout);
    } else if (!body || lent) {
        rc = make_source(request, body, &layout, &answer.source);
    } else {
        rc = gather(request, &layout, body);
        answer.body = request->text.data;
        answer.lent = true;
        multipart_release(&layout);
    }
    if (rc) {
        public_fail(request->http, rc, OPERATION_GET, &request->id);
        return;
    }
    answer.head = request->head.data;
    answer.head_len = request->head.len;
    public_get_count(request, base, answer.length);
    http_answer(request->http, &answer);
}

static int lay_out_whole(uint64_t size, struct multipart *layout)
{
    const struct byte_range all = {0, size - 1};

    return multipart_init(layout, &all, 1, size, (struct slice){NULL, 0}, "");
}

/* All of a large body. */
static int whole_source(struct public_request *request, uint64_t size, struct http_source **out)
{
    struct multipart layout;
    int rc = lay_out_whole(size, &layout);

    return rc ? rc : make_source(request, NULL, &layout, out);
}

/* Do as the plan says. BASE: the header lines of a 200; BODY: NULL where it is large (or not
 * needed: HEAD); LENT: both stay until on_done. */
static void answer_plan(struct public_request *request, struct slice base, const uint8_t *body,
                        uint64_t size, bool lent)
{
    struct http_answer answer = {.status = request->plan.status,
                                 .head = base.ptr,
                                 .head_len = base.len,
                                 .body = body,
                                 .length = size,
                                 .lent = lent};

    switch (request->plan.status) {
    case 200:
        if (!body && size && !request->is_head) {
            int rc = whole_source(request, size, &answer.source);

            if (rc) {
                public_fail(request->http, rc, OPERATION_GET, &request->id);
                return;
            }
        }
        public_get_count(request, base, size);
        http_answer(request->http, &answer);
        return;
    case 206:
        answer_ranges(request, base, body, size, lent);
        return;
    case 304: {
        struct slice head = without_type(base);

        answer.head = head.ptr;
        answer.head_len = head.len;
        http_answer(request->http, &answer);
        return;
    }
    default:
        refuse_plan(request, size);
    }
}

/* ---- The three ways ---- */

/* Plan an answer about OBJECT and render its header lines. */
static int prepare(struct public_request *request, const struct object *object)
{
    char etag[ETAG_BYTES + 1];

    headers_etag(etag, object);
    make_plan(&request->plan, &request->asks, request->is_head, etag, headers_modified_s(object),
              object->size);
    buf_reset(&request->base);
    headers_render(&request->base, object);
    return buf_check(&request->base);
}

static struct slice base_of(const struct public_request *request)
{
    return (struct slice){request->base.data, request->base.len};
}

/* Remember a small body that was just read and verified, or where a large one is (BODY NULL). */
static void fill(struct public_request *request, const uint8_t *body)
{
    const struct object *object = store_body_object(request->body);
    const struct ram_large large = {object->place.offset, object->size};
    uint64_t token = store_body_token(request->body), modified_s = headers_modified_s(object);
    char etag[ETAG_BYTES + 1];

    headers_etag(etag, object);
    if (body)
        ram_fill(request->api->ram, token, &object->id, request->base.data, request->base.len, body,
                 object->size, modified_s, object->expires_ms, etag);
    else
        ram_fill_large(request->api->ram, token, &object->id, request->base.data, request->base.len,
                       &large, modified_s, object->expires_ms, etag);
}

void public_get_fill(struct public_request *request, const uint8_t *body)
{
    assert(body);
    fill(request, body);
}

void public_get_say_fetched(const struct public_request *request, struct buf *head)
{
    static const char line[] = "X-Meta-Fetched: true\r\n";

    if (request->is_fetched)
        buf_add(head, line, sizeof line - 1);
}

void public_get_answer(struct public_request *request, const uint8_t *body)
{
    public_get_say_fetched(request, &request->base);
    int rc = buf_check(&request->base);
    if (rc) {
        public_fail(request->http, rc, OPERATION_GET, &request->id);
        return;
    }
    answer_plan(request, base_of(request), body, store_body_object(request->body)->size, true);
}

int public_get_lay_out(struct public_request *request, uint64_t size, struct multipart *layout)
{
    assert(request->plan.status == 200 || request->plan.status == 206);
    return request->plan.status == 206 ? lay_out(request, base_of(request), size, layout)
                                       : lay_out_whole(size, layout);
}

/* Whether the answer has bytes of the body in it. */
static bool sends_bytes(const struct public_request *request)
{
    return !request->is_head && (request->plan.status == 200 || request->plan.status == 206);
}

/* Whether all that the plan wants of a large body's bytes is hot. */
static bool is_hot(struct public_request *request, const struct ram_large *large)
{
    const struct get_plan *plan = &request->plan;
    struct hot_blocks *hot = store_hot(request->api->store);
    bool all = true;

    if (!sends_bytes(request))
        return true;
    if (plan->status == 200)
        return hot_blocks_has(hot, large->number, 0, (large->size - 1) / BLOCK_BYTES);
    for (unsigned i = 0; i < plan->count && all; i++)
        all = hot_blocks_has(hot, large->number, plan->ranges[i].first / BLOCK_BYTES,
                             plan->ranges[i].last / BLOCK_BYTES);
    return all;
}

bool public_get_entry(struct public_request *request)
{
    const struct ram_entry *entry = request->entry;
    const struct slice base = {entry->head, entry->head_bytes};
    bool large = entry->large.size > 0;
    uint64_t size = large ? entry->large.size : entry->body_bytes;

    make_plan(&request->plan, &request->asks, request->is_head, entry->etag, entry->modified_s,
              size);
    if (large && !is_hot(request, &entry->large))
        return false;
    answer_plan(request, base, large ? NULL : entry->body, size, true);
    return true;
}

static void cold_done(struct http_request *http)
{
    struct public_request *request = http_request_data(http);

    if (request->rc) {
        public_fail(http, request->rc, OPERATION_GET, &request->id);
        return;
    }
    public_get_answer(request, store_body_inline(request->body));
}

/* On a pool thread: everything but the answer. ERR_ELSEWHERE: all but the bytes, which have to come
 * from other nodes. */
static int read_cold(struct public_request *request, struct db_reader *reader)
{
    int opened =
        store_open(&request->body, request->api->store, reader, &request->id, !request->is_head);
    if (opened && opened != ERR_ELSEWHERE)
        return opened;
    const struct object *object = store_body_object(request->body);
    int rc = prepare(request, object);
    if (rc || request->is_head)
        return rc;
    if (opened == ERR_ELSEWHERE)
        return sends_bytes(request) && object->size > 0 ? ERR_ELSEWHERE : 0;
    fill(request, store_body_inline(request->body));
    if (store_body_inline(request->body) || !sends_bytes(request))
        return 0;
    /* A damaged first block must show before the header is sent. */
    uint64_t first = request->plan.status == 206 ? request->plan.ranges[0].first : 0;
    uint64_t last = request->plan.status == 206 ? request->plan.ranges[0].last : object->size - 1;
    if (hot_blocks_has(store_hot(request->api->store), object->place.offset, first / BLOCK_BYTES,
                       first / BLOCK_BYTES))
        return 0;
    rc = body_warm(request->body, first / BLOCK_BYTES, last / BLOCK_BYTES);
    if (rc != ERR_CORRUPT || !store_body_forsake(request->body))
        return rc;
    rc = prepare(request, object);
    return rc ? rc : ERR_ELSEWHERE;
}

static void run_cold(struct store_job *job, struct db_reader *reader)
{
    struct public_request *request = container_of(job, struct public_request, job);

    request->rc = read_cold(request, reader);
    if (request->rc == ERR_ELSEWHERE) {
        public_get_from_peers(request, reader);
        return;
    }
    if (request->rc == ERR_NOT_FOUND && request->may_fetch) {
        request->rc = public_fetch(request);
        if (request->rc == 0)
            return;
    }
    http_post(request->http, cold_done);
}

/* REQUEST is suspended. */
static void submit_cold(struct public_request *request)
{
    struct http_request *http = request->http;

    request->job.run = run_cold;
    int rc = store_submit(request->api->store, &request->job);
    /* After a success the request is the pool's: it may have been answered already. */
    if (rc) {
        request->rc = rc;
        http_post(http, cold_done);
    }
}

void public_get_again(struct public_request *request)
{
    store_body_close(&request->body);
    http_suspend(request->http);
    submit_cold(request);
}

static void get_cold(struct public_request *request)
{
    struct http_request *http = request->http;
    int rc = save_asks(&request->asks, &request->text);

    if (rc) {
        public_fail(http, rc, OPERATION_GET, &request->id);
        return;
    }
    request->may_fetch = public_fetch_allowed(request);
    http_suspend(http);
    submit_cold(request);
}

void public_get(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    struct public_request *request = public_take(api, http);
    uint8_t *scratch;
    int rc = ERR_AGAIN;

    if (!request)
        return;
    request->id = *id;
    request->is_head = http_request_method(http) == HTTP_METHOD_HEAD;
    read_asks(&request->asks, http);
    request->entry = ram_get(api->ram, id);
    if (request->entry) {
        uint64_t expires_ms = request->entry->expires_ms;

        if (expires_ms && env_wall_ms(api->env) >= expires_ms)
            public_fail(http, ERR_NOT_FOUND, OPERATION_GET, id);
        else if (!public_get_entry(request))
            get_cold(request);
        return;
    }
    scratch = public_scratch(request);
    if (scratch)
        rc = store_open_nowait(&request->body, api->store, id, scratch);
    if (rc == 0)
        rc = prepare(request, store_body_object(request->body));
    if (rc == ERR_AGAIN) {
        get_cold(request);
    } else if (rc) {
        public_fail(http, rc, OPERATION_GET, id);
    } else {
        fill(request, store_body_inline(request->body));
        answer_plan(request, base_of(request), store_body_inline(request->body),
                    store_body_object(request->body)->size, store_body_stays(request->body));
    }
}
