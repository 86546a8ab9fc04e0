/*
 * What changes objects, and their meta documents.
 *
 *   put      headers checked ─► store_put_begin ─► body ─► store_put_finish ─► (durable) ─► answer
 *   meta     headers checked ─► store_change ─► (durable) ─► answer
 *   delete   the same
 *   meta?    pool looks the row up ─► answer
 *
 * A large put with a condition is judged once more before its body is read, so that a client does
 * not send in vain what is refused already (and one that waits for 100 Continue sends nothing).
 *
 * All answer the same document. What a put or meta waits for once it is durable here, and what its
 * status says then, is public_wait.c's.
 */
#include "api/public_impl.h"

#include "api/document.h"
#include "journal/ulid.h"

#include <stdio.h>

static const struct refusal bad_id_time = {400, "id_time_out_of_range",
                                           "the id's time must be in 2010 to 2099", NULL};

/* ---- Answers ---- */

void public_answer_document(struct public_request *request, const struct object *object,
                            unsigned status)
{
    struct buf *head = &request->head, *text = &request->text;
    bool deleted = object->flags & OBJECT_DELETED;

    buf_reset(head);
    buf_reset(text);
    buf_text(head, "Content-Type: application/json\r\nCache-Control: no-store\r\n");
    headers_render_meta(head, object);
    if (!deleted) {
        struct replicas replicas =
            document_replicas(object, &request->copies, request->api->config.outbox_copies);

        if (request->operation == OPERATION_PUT) {
            char etag[ETAG_BYTES + 1];

            headers_etag(etag, object);
            buf_text(head, "ETag: ");
            buf_add(head, etag, ETAG_BYTES);
            buf_text(head, "\r\n");
        }
        buf_text(head, "X-Meta-Replicas: ");
        document_number(head, replicas.have);
        buf_char(head, '/');
        document_number(head, replicas.want);
        buf_text(head, "\r\n");
    }
    document_render(text, object, &request->copies, request->api->config.outbox_copies);
    if (buf_check(head) || buf_check(text)) {
        public_fail(request->http, ERR_NO_MEMORY, OPERATION_OTHER, NULL);
        return;
    }
    const struct http_answer answer = {.status = status,
                                       .head = head->data,
                                       .head_len = head->len,
                                       .body = text->data,
                                       .length = text->len,
                                       .lent = true};
    http_answer(request->http, &answer);
}

static void stored(struct http_request *http)
{
    struct public_request *request = http_request_data(http);
    const struct store_result *result = &request->result;

    if (result->rc == ERR_RANGE && request->operation == OPERATION_META_SET)
        public_refuse(http, headers_ack_needs(request->ack));
    else if (result->rc)
        public_fail(http, result->rc, request->operation, &request->id);
    else
        public_wait(request);
}

/* On a thread of the store's. */
static void on_stored(void *arg, const struct store_result *result)
{
    struct public_request *request = arg;

    request->result = *result;
    http_post(request->http, stored);
}

/* ---- Put ---- */

static int begin_put(struct public_request *request, const struct meta_headers *headers)
{
    const struct store_put_options options = {
        .has_id = headers->has_id,
        .id = headers->id,
        .fields = headers->fields,
        .name = headers->name,
        .type = headers->type,
        .user_meta = headers->user_meta,
        .level = headers->level,
        .length = http_request_content_length(request->http),
        .expect = headers->expect,
        .condition = headers->condition,
    };

    request->id = headers->id;
    request->ack = headers->ack;
    request->timeout_ms = headers->timeout_ms;
    request->level_sent = headers->fields & EVENT_HAS_LEVEL;
    return store_put_begin(&request->put, request->api->store, &options);
}

static void read_body(struct public_request *request)
{
    uint64_t most = store_max_body(request->api->store);

    http_read_body(request->http, most ? most : UINT64_MAX);
}

static void judged(struct http_request *http)
{
    struct public_request *request = http_request_data(http);

    if (request->rc)
        public_fail(http, request->rc, OPERATION_PUT, &request->id);
    else
        read_body(request);
}

static void run_judge(struct store_job *job, struct db_reader *reader)
{
    struct public_request *request = container_of(job, struct public_request, job);

    request->rc = store_put_judge(request->put, reader);
    http_post(request->http, judged);
}

static void judge(struct public_request *request)
{
    struct http_request *http = request->http;

    request->job.run = run_judge;
    http_suspend(http);
    int rc = store_submit(request->api->store, &request->job);
    /* After a success the request is the pool's: it may have been answered already. */
    if (rc) {
        request->rc = rc;
        http_post(http, judged);
    }
}

void public_put(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    struct meta_headers headers;
    const struct header_source source = headers_of(http);
    const struct refusal *refusal = headers_parse(&headers, &source, HEADERS_FOR_PUT);
    struct public_request *request = NULL;
    int rc = ERR_NO_MEMORY;

    (void)id;
    if (!refusal)
        refusal = public_forbids_changes(api);
    if (!refusal)
        request = public_take(api, http);
    if (request) {
        request->operation = OPERATION_PUT;
        rc = begin_put(request, &headers);
    }
    bool waits = headers.condition && http_request_header(http, "expect", NULL).ptr;
    headers_release(&headers);
    if (refusal)
        public_refuse(http, refusal);
    else if (request && rc)
        public_fail(http, rc, OPERATION_PUT, &request->id);
    else if (request && store_put_judgeable(request->put, waits))
        judge(request);
    else if (request)
        read_body(request);
}

/* The disk takes what came while more comes, but no more than that, and nothing comes meanwhile
 * where others commit: the client waits. Else the page cache would fill with what others' syncs
 * have to wait for. */
static void write_back(struct public_request *request);

/* Back on the loop: the rest of the body may come. */
static void body_goes_on(struct http_request *http)
{
    struct public_request *request = http_request_data(http);

    if (store_put_due(request->put))
        write_back(request);
}

static void on_written(void *arg)
{
    struct public_request *request = arg;

    http_post(request->http, body_goes_on);
}

static void write_back(struct public_request *request)
{
    int rc = store_put_write_back(request->put);

    if (rc == ERR_AGAIN) {
        http_suspend(request->http);
        if (!store_put_wait_written(request->put, on_written, request))
            on_written(request);
    } else if (rc) {
        public_fail(request->http, rc, OPERATION_PUT, &request->id);
    }
}

void public_put_body(struct public_request *request, const uint8_t *data, size_t len)
{
    assert(request && request->put);
    int rc = store_put_write(request->put, data, len);

    if (rc)
        public_fail(request->http, rc, OPERATION_PUT, &request->id);
    else if (store_put_due(request->put))
        write_back(request);
}

/* X-Meta-Timeout counts from the last byte of the request on. */
static void begin_patience(struct public_request *request)
{
    request->deadline_ms = env_mono_ms(request->api->env) + request->timeout_ms;
}

void public_put_end(struct public_request *request)
{
    assert(request && request->put);
    begin_patience(request);
    http_suspend(request->http);
    store_put_finish(request->put, on_stored, request);
}

/* ---- Meta and delete ---- */

static void submit_change(struct public_request *request, const struct request *change)
{
    struct http_request *http = request->http;

    /* Suspended first: the committer may be done before we are back. */
    http_suspend(http);
    int rc = store_change_submit(&request->change, request->api->store, change, on_stored, request);
    if (rc) {
        request->result = (struct store_result){.rc = rc};
        http_post(http, stored);
    }
}

void public_meta_set(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    struct meta_headers headers;
    const struct header_source source = headers_of(http);
    const struct refusal *refusal = headers_parse(&headers, &source, HEADERS_FOR_META);

    if (!refusal)
        refusal = public_forbids_changes(api);
    struct public_request *request = refusal ? NULL : public_take(api, http);
    if (refusal)
        public_refuse(http, refusal);
    if (request) {
        const struct request change = {
            .kind = CHANGE_META,
            .id = *id,
            .fields = headers.fields,
            .level = headers.level,
            .name = headers.name,
            .user_meta = headers.user_meta,
            .condition = headers.condition,
            .needs_level = headers_ack_level(headers.ack),
        };

        request->operation = OPERATION_META_SET;
        request->id = *id;
        request->ack = headers.ack;
        request->timeout_ms = headers.timeout_ms;
        begin_patience(request);
        request->level_sent = headers.fields & EVENT_HAS_LEVEL;
        submit_change(request, &change);
    }
    headers_release(&headers);
}

void public_delete(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    struct meta_headers headers;
    const struct header_source source = headers_of(http);
    const struct refusal *refusal = headers_parse(&headers, &source, HEADERS_FOR_DELETE);

    /* A tombstone is for ever: not for ids that no put can bear. */
    if (!refusal && ulid_check_time(id) != 0)
        refusal = &bad_id_time;
    if (!refusal)
        refusal = public_forbids_changes(api);
    struct public_request *request = refusal ? NULL : public_take(api, http);
    if (refusal)
        public_refuse(http, refusal);
    if (request) {
        const struct request change = {
            .kind = CHANGE_DELETE,
            .id = *id,
            .purge = headers.purge,
            .reason = DELETE_BY_CLIENT,
            .condition = headers.condition,
        };

        request->operation = OPERATION_DELETE;
        request->id = *id;
        request->ack = ACK_DEFAULT;
        request->level_sent = false;
        submit_change(request, &change);
    }
    headers_release(&headers);
}

static void meta_found(struct http_request *http)
{
    struct public_request *request = http_request_data(http);

    if (request->rc && request->rc != ERR_DELETED)
        public_fail(http, request->rc, OPERATION_META, &request->id);
    else
        public_answer_document(request, store_body_object(request->body), 200);
}

static void find_meta(struct store_job *job, struct db_reader *reader)
{
    struct public_request *request = container_of(job, struct public_request, job);

    request->rc = store_open(&request->body, request->api->store, reader, &request->id, false);
    if (request->rc == 0)
        request->rc = store_count_copies(request->api->store, reader,
                                         store_body_object(request->body), &request->copies);
    http_post(request->http, meta_found);
}

void public_meta(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    struct public_request *request = public_take(api, http);

    if (!request)
        return;
    request->operation = OPERATION_META;
    request->id = *id;
    request->job.run = find_meta;
    http_suspend(http);
    int rc = store_submit(api->store, &request->job);
    /* After a success the request is the pool's: it may have been answered already. */
    if (rc) {
        request->rc = rc;
        http_post(http, meta_found);
    }
}
