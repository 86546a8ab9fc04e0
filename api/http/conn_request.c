/*
 * The request in flight on a connection: from a complete header over its body to its end.
 *
 * Happy path: conn_take_head finds the end of a header → the handler's on_request → http_read_body
 * → conn_deliver_body hands over what has come, piece by piece, and says when it was the last → the
 * answer is sent → conn_finish_request. Where the handler must wait for another thread it suspends;
 * the post that ends this comes over the loop's mailbox (resume in conn.c).
 *
 * Failure: what is malformed, too large or too slow is answered here (conn_refuse), and the
 * connection closes after it. A client that goes away is told to whoever watches, once.
 */
#include "api/http/http_internal.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const struct refusal bad_chunk = {400, "bad_request", "malformed chunked body", NULL};
static const struct refusal large_extra = {400, "bad_request",
                                           "too many bytes of chunk extensions or trailers", NULL};
static const struct refusal large_body = {413, "body_too_large", "body too large", NULL};

/* ---- Its beginning ---- */

void conn_refuse(struct conn *conn, const struct refusal *refusal)
{
    conn->request.close = true;
    http_answer_error(&conn->request, refusal->status, refusal->code, refusal->message,
                      refusal->extra_head);
}

static void keep_log_path(struct http_request *request, const struct head *head)
{
    size_t len = head->path.len < 512 ? head->path.len : 512;

    request->log_path = malloc(len + 1);
    if (!request->log_path)
        return; /* "-" then */
    memcpy(request->log_path, head->path.ptr, len);
    request->log_path[len] = 0;
}

/* A complete header of LEN bytes at DATA. */
static void begin_request(struct conn *conn, const char *data, size_t len)
{
    struct http_request *request = &conn->request;
    struct head *head = &conn->loop->head;
    const struct refusal *refusal = head_parse(head, data, len);

    request->method = (uint8_t)head->method;
    request->has_method = head->has_method;
    request->is_head = head->method == HTTP_METHOD_HEAD;
    if (refusal) {
        conn_refuse(conn, refusal);
        return;
    }
    request->minor_0 = head->minor == 0;
    request->close = request->client_closes = !head->keep_alive;
    request->is_chunked = head->chunked;
    request->content_length = head->chunked ? UINT64_MAX : head->content_length;
    request->body_left = head->content_length;
    request->body_complete = !head->chunked && !head->content_length;
    request->expects_continue = head->expects_continue && !request->body_complete;
    if (conn->loop->server->config.access_log)
        keep_log_path(request, head);
    request->begun = true;
    stat_add(&conn->loop->stats.in_flight, 1);
    request->head = head;
    conn->handler->on_request(conn->handler->arg, request);
    request->head = NULL;
}

bool conn_take_head(struct conn *conn, struct view *view)
{
    const struct refusal *refusal;
    enum head_found found;
    size_t len;

    if (!view->len)
        return false;
    if (!conn->scan.at && !conn->skipped_crlf && view->len > 1 && !memcmp(view->data, "\r\n", 2)) {
        /* RFC 9112 §2.2: some old clients end a body with one too many. */
        conn->skipped_crlf = true;
        view->data += 2;
        view->len -= 2;
        if (!view->len) {
            conn->state = CONN_IDLE; /* also where its halves came one by one */
            return false;
        }
    }
    if (conn->state == CONN_IDLE) {
        conn->state = CONN_HEADER;
        conn->request.start_us = conn->loop->now_us;
        conn->deadline_ms = conn->loop->now_ms + conn->loop->server->config.header_timeout_ms;
    }
    found = head_find(&conn->scan, (const char *)view->data, view->len, &refusal);
    if (found == HEAD_INCOMPLETE)
        return false;
    conn->state = CONN_REQUEST;
    if (found == HEAD_REFUSED) {
        conn_refuse(conn, refusal);
        view->len = 0;
        return true;
    }
    len = conn->scan.at;
    conn->unused = view->len - len;
    begin_request(conn, (const char *)view->data, len);
    view->data += len;
    view->len -= len;
    return true;
}

/* ---- Its body ---- */

int conn_take_body(struct http_request *request, struct view *view, const uint8_t **data,
                   size_t *len)
{
    size_t used;
    int rc;

    if (request->is_chunked) {
        rc = chunked_take(&request->chunks, view->data, view->len, &used, data, len);
        if (rc)
            return rc;
        request->body_complete = chunked_ended(&request->chunks);
    } else {
        used = view->len < request->body_left ? view->len : (size_t)request->body_left;
        *data = view->data;
        *len = used;
        request->body_left -= used;
        request->body_complete = !request->body_left;
    }
    view->data += used;
    view->len -= used;
    return 0;
}

/* Each byte buys time, but never more than the grace: neither a drip nor a stop after a burst holds
 * a connection for long. */
static void extend_body_deadline(struct conn *conn, size_t received)
{
    const struct http_config *config = &conn->loop->server->config;
    uint64_t most = conn->loop->now_ms + config->body_grace_ms;
    uint64_t bought = conn->deadline_ms + received * UINT64_C(1000) / config->body_rate_bytes_s;

    conn->deadline_ms = bought < most ? bought : most;
}

bool conn_deliver_body(struct conn *conn, struct view *view)
{
    struct http_request *request = &conn->request;
    const struct http_handler *handler = conn->handler;
    const uint8_t *data;
    size_t len, before = view->len;
    int rc;

    if (request->body_complete) {
        assert(!request->body_ended);
        request->body_ended = true;
        handler->on_body_end(handler->arg, request);
        assert(request->answered || request->suspended);
        return true;
    }
    if (!view->len)
        return false;
    rc = conn_take_body(request, view, &data, &len);
    if (rc) {
        view->len = 0;
        conn_refuse(conn, rc == ERR_TOO_BIG ? &large_extra : &bad_chunk);
        return true;
    }
    extend_body_deadline(conn, before - view->len);
    request->expects_continue = false;
    if (len > request->body_max - request->body_taken) {
        conn_refuse(conn, &large_body);
        return true;
    }
    request->body_taken += len;
    conn->unused = view->len;
    if (len)
        handler->on_body(handler->arg, request, data, len);
    return true;
}

void http_read_body(struct http_request *request, uint64_t max_bytes)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct conn *conn = conn_of(request);
    ssize_t n;

    assert(request->begun && !request->reading && !request->answered && !request->suspended);
    if (request->gone)
        return;
    if (!request->is_chunked && request->content_length > max_bytes) {
        http_answer_error(request, large_body.status, large_body.code, large_body.message, NULL);
        return;
    }
    request->reading = true;
    request->body_max = max_bytes;
    conn->deadline_ms = conn->loop->now_ms + conn->loop->server->config.body_grace_ms;
    if (!request->expects_continue)
        return;
    request->expects_continue = false;
    if (conn->unused)
        return; /* it did not wait */
    n = send(conn->fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL);
    if (n >= 0)
        stat_add(&conn->loop->stats.bytes_out, (uint64_t)n);
    /* A client that has left no room for this is not told, and goes on by itself some time. */
    if (n < 0 ? errno != EAGAIN : n != sizeof go_on - 1)
        request->lost = true;
}

/* ---- Waiting for other threads ---- */

void http_suspend(struct http_request *request)
{
    struct conn *conn = conn_of(request);

    assert(request->begun && !request->suspended && !request->sent);
    request->suspended = true;
    conn->suspended_ms = conn->loop->now_ms;
}

void http_suspend_watched(struct http_request *request, uint64_t timeout_ms,
                          void (*wake_it)(struct http_request *request, enum http_wake why))
{
    assert(wake_it && !request->wake && !request->gone);
    http_suspend(request);
    request->wake = wake_it;
    request->wake_ms = conn_of(request)->loop->now_ms + timeout_ms;
}

bool http_draining(const struct http_request *request)
{
    return conn_draining(CONTAINER_OF(request, const struct conn, request));
}

void conn_wake(struct conn *conn, enum http_wake why)
{
    struct http_request *request = &conn->request;
    void (*call)(struct http_request *, enum http_wake) = request->wake;

    assert(request->suspended);
    request->wake = NULL;
    if (call)
        call(request, why);
}

/* ---- Its end ---- */

static void log_access(const struct conn *conn)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"};
    const struct http_request *request = &conn->request;

    log_info("access %s %s %u %llu %lluus%s", request->has_method ? methods[request->method] : "-",
             request->log_path ? request->log_path : "-", request->status,
             (unsigned long long)request->answer_bytes,
             (unsigned long long)(clock_us() - request->start_us), request->gone ? " gone" : "");
}

static void count_operation(const struct conn *conn)
{
    const struct http_request *request = &conn->request;
    uint64_t us = clock_us() - request->start_us;
    unsigned i = request->operation - 1u, bucket = 0;

    while (bucket < HTTP_LATENCY_BUCKETS - 1 && us > http_latency_bounds_us[bucket])
        bucket++;
    stat_add(&conn->loop->stats.operations[i].count, 1);
    stat_add(&conn->loop->stats.operations[i].sum_us, us);
    stat_add(&conn->loop->stats.operations[i].buckets[bucket], 1);
}

void conn_finish_request(struct conn *conn)
{
    struct http_request *request = &conn->request;

    assert(!request->suspended);
    if (request->sent && request->operation)
        count_operation(conn);
    if (conn->loop->server->config.access_log)
        log_access(conn);
    answer_release(request);
    if (request->begun) {
        conn->handler->on_done(conn->handler->arg, request);
        stat_add(&conn->loop->stats.in_flight, UINT64_MAX); /* one less */
    }
    free(request->log_path);
    request->log_path = NULL;
}
