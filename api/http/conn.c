/*
 * A connection's life.
 *
 *   state     meaning                              reads?  deadline              then
 *   IDLE      between requests                     yes     idle                  HEADER, CLOSED
 *   HEADER    a header has begun, but not ended    yes     header, in total      REQUEST
 *   REQUEST   one is in flight: the handler's      body    body rate or write    IDLE, DISCARD
 *                                                                                or LINGER
 *   DISCARD   answered, a small rest of the body   yes     discard               IDLE, LINGER
 *             is still to come
 *   LINGER    our side is shut, theirs not yet     yes     linger                CLOSED
 *   CLOSED    no socket; waits for its burial, or for the post of a suspended request
 *
 * conn_run is the heart: it consumes what was received, state by state, until more is needed or
 * the request waits for something. Handlers are called from it (and from the delivery of a post);
 * what they call back (http_answer, http_suspend …) only sends and sets marks, so that nothing here
 * is entered twice. The request in flight stands in conn_request.c. What remains unused is kept on
 * the heap; meanwhile nothing more is read.
 *
 * While a request is in flight EPOLLIN stays armed, because a client normally waits for its answer;
 * only if something comes all the same is it masked, until it is wanted again.
 */
#include "api/http/http_internal.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct refusal incomplete_header = {400, "bad_request", "the header did not end",
                                                 NULL};
static const struct refusal incomplete_body = {400, "incomplete_body",
                                               "the body ended before its length", NULL};
static const struct refusal late_header = {408, "timeout", "the header took too long", NULL};
static const struct refusal late_body = {408, "timeout", "the body came too slowly", NULL};

struct conn *conn_of(struct http_request *request)
{
    return CONTAINER_OF(request, struct conn, request);
}

/* ---- Between requests, and the end ---- */

/* Give up the socket. A suspended request keeps the rest until its post comes. */
static void lose(struct conn *conn)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};

    if (conn->state == CONN_CLOSED)
        return;
    /* An answer that is cut off ends in a reset: the client cannot take it for whole, and what the
     * kernel still holds for a reader that has stalled is freed at once. */
    if (conn->state == CONN_REQUEST && conn->request.answered && !conn->request.sent)
        (void)!setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(conn->fd); /* epoll forgets it with that */
    conn->fd = -1;
    wheel_remove(&conn->timer);
    if (atomic_fetch_sub(&conn->loop->connections, 1) == 1 && conn_draining(conn))
        server_ack(conn->loop->server, 0, 0);
    if (conn->state == CONN_REQUEST) {
        conn->request.gone = true;
        if (conn->request.suspended) {
            conn->state = CONN_CLOSED;
            conn_wake(conn, HTTP_WAKE_GONE);
            return;
        }
        conn_finish_request(conn);
    }
    conn->state = CONN_CLOSED;
    loop_bury(conn->loop, conn);
}

static void linger(struct conn *conn)
{
    if (shutdown(conn->fd, SHUT_WR)) {
        lose(conn);
        return;
    }
    conn->state = CONN_LINGER;
    conn->quota = LINGER_BYTES;
    conn->deadline_ms = conn->loop->now_ms + LINGER_TIMEOUT_MS;
}

/* A client that has connected before the end began has its first request answered, if it comes
 * soon: it has no reason to expect a reset, and none to try again. */
static void go_idle(struct conn *conn)
{
    bool drains = conn_draining(conn);

    if (drains && !conn->fresh) {
        linger(conn);
        return;
    }
    conn->state = CONN_IDLE;
    conn->skipped_crlf = false;
    memset(&conn->scan, 0, sizeof conn->scan);
    conn->deadline_ms = conn->loop->now_ms +
                        (drains ? HTTP_DRAIN_FRESH_MS : conn->loop->server->config.idle_timeout_ms);
}

/* The answer is sent: what comes after it? */
static void after_answer(struct conn *conn, const struct view *view)
{
    struct http_request *request = &conn->request, rest = {0};

    conn_finish_request(conn);
    conn->fresh = false;
    conn->state = CONN_IDLE; /* from here on a loss has no request to end */
    if (request->close || conn_draining(conn)) {
        if (request->client_closes && request->body_complete && !view->len)
            lose(conn); /* with nothing unread, a close is no reset */
        else
            linger(conn);
        if (conn->state == CONN_CLOSED)
            return;
    } else if (!request->body_complete) {
        /* How far its body has come; of a complete one nothing must reach the next request. */
        rest.is_chunked = request->is_chunked;
        rest.body_left = request->body_left;
        rest.chunks = request->chunks;
        conn->state = CONN_DISCARD;
        conn->quota = DISCARD_BYTES;
        conn->deadline_ms = conn->loop->now_ms + DISCARD_TIMEOUT_MS;
    } else {
        go_idle(conn);
    }
    *request = rest;
}

/* Drop the rest of an answered request's body. False: more is needed. */
static bool discard(struct conn *conn, struct view *view)
{
    const uint8_t *data;
    size_t len, before = view->len;

    if (conn->request.body_complete) {
        memset(&conn->request, 0, sizeof conn->request);
        go_idle(conn);
        return true;
    }
    if (!view->len)
        return false;
    if (conn_take_body(&conn->request, view, &data, &len) || before - view->len > conn->quota) {
        view->len = 0;
        linger(conn);
        return true;
    }
    conn->quota -= before - view->len;
    return true;
}

/* ---- Running ---- */

/* One step with the request in flight. False: it waits for something. */
static bool step_request(struct conn *conn, struct view *view)
{
    struct http_request *request = &conn->request;

    if (request->lost && !request->suspended) {
        lose(conn);
        return false;
    }
    if (request->suspended)
        return false;
    if (request->sent) {
        after_answer(conn, view);
        return true;
    }
    if (request->answered)
        return false;
    assert(request->reading && !request->body_ended);
    return conn_deliver_body(conn, view);
}

/* Put bytes behind those already kept. */
static int append_input(struct conn *conn, const uint8_t *data, size_t len)
{
    size_t need;

    if (conn->input_at) {
        conn->input_len -= conn->input_at;
        memmove(conn->input, conn->input + conn->input_at, conn->input_len);
        conn->input_at = 0;
    }
    need = conn->input_len + len;
    assert(need <= LIMIT_HTTP_HEADER_BYTES + HTTP_READ_STEP_BYTES);
    if (need > conn->input_cap) {
        size_t cap = conn->input_cap * 2 > need ? conn->input_cap * 2 : need;
        uint8_t *larger;

        /* A body that waits for its disk is no early input: it may use all of the budget. */
        if (!memory_take(conn->loop, cap - conn->input_cap,
                         conn->state != CONN_REQUEST || !conn->request.reading))
            return ERR_FULL;
        larger = realloc(conn->input, cap);
        if (!larger) {
            memory_give(conn->loop, cap - conn->input_cap);
            return ERR_NO_MEMORY;
        }
        conn->input = larger;
        conn->input_cap = (uint32_t)cap;
    }
    memcpy(conn->input + conn->input_len, data, len);
    conn->input_len = (uint32_t)need;
    return 0;
}

static void drop_input(struct conn *conn)
{
    free(conn->input);
    memory_give(conn->loop, conn->input_cap);
    conn->input = NULL;
    conn->input_at = conn->input_len = conn->input_cap = 0;
}

/* Keep the unused rest of what was received. FROM_INPUT: it is the end of conn->input. */
static void keep_rest(struct conn *conn, const struct view *view, bool from_input)
{
    if (!view->len || conn->state == CONN_CLOSED) {
        drop_input(conn);
    } else if (from_input) {
        conn->input_at = conn->input_len - (uint32_t)view->len;
    } else {
        assert(!conn->input);
        if (append_input(conn, view->data, view->len))
            conn->request.lost = true;
    }
}

static bool wants_input(const struct conn *conn)
{
    const struct http_request *request = &conn->request;

    switch (conn->state) {
    case CONN_HEADER:
        return true;
    case CONN_REQUEST:
        return request->reading && !request->suspended && !request->answered &&
               !request->body_complete && !conn->input;
    default:
        return !conn->input;
    }
}

/* Tell epoll and the wheel what this connection waits for. */
static void arm(struct conn *conn)
{
    const struct http_request *request = &conn->request;
    bool in_request = conn->state == CONN_REQUEST;
    bool sending = in_request && request->answered && !request->sent && !request->suspended &&
                   !request->out.source_waits;
    bool timed =
        !in_request || sending || (request->reading && !request->suspended && !request->answered);
    uint32_t events = conn->armed & EPOLLIN;

    if (conn->fd < 0)
        return;
    if (wants_input(conn))
        events |= EPOLLIN;
    if (sending)
        events |= EPOLLOUT;
    if (events != conn->armed) {
        struct epoll_event event = {.events = events, .data.ptr = conn};

        if (epoll_ctl(conn->loop->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event)) {
            lose(conn);
            return;
        }
        conn->armed = events;
    }
    uint64_t deadline_ms = timed ? conn->deadline_ms : WHEEL_NEVER;
    if (in_request && request->wake)
        deadline_ms = request->wake_ms;
    wheel_set(&conn->loop->wheel, &conn->timer, deadline_ms);
}

/* Use what was received as far as possible. */
static void conn_run(struct conn *conn, struct view view, bool from_input)
{
    unsigned requests = 0;
    bool more = true;

    while (more) {
        switch (conn->state) {
        case CONN_IDLE:
        case CONN_HEADER:
            if (view.len && requests++ == REQUESTS_PER_TURN) {
                loop_ready(conn->loop, conn);
                more = false;
            } else {
                more = conn_take_head(conn, &view);
            }
            break;
        case CONN_REQUEST:
            more = step_request(conn, &view);
            break;
        case CONN_DISCARD:
            more = discard(conn, &view);
            break;
        case CONN_LINGER:
            if (view.len > conn->quota) {
                lose(conn);
            } else {
                conn->quota -= view.len;
                view.len = 0;
            }
            more = false;
            break;
        default:
            more = false;
        }
    }
    keep_rest(conn, &view, from_input);
    if (conn->request.lost && !conn->request.suspended)
        lose(conn);
    arm(conn);
}

void conn_continue(struct conn *conn)
{
    struct view view = {conn->input ? conn->input + conn->input_at : NULL,
                        conn->input_len - conn->input_at};

    if (conn->state != CONN_CLOSED)
        conn_run(conn, view, true);
}

/* On the loop: the post of a suspended request. */
static void resume(struct mail *mail)
{
    struct http_request *request = CONTAINER_OF(mail, struct http_request, mail);
    struct conn *conn = conn_of(request);

    assert(request->suspended);
    request->suspended = false;
    request->wake = NULL;
    if (request->answered) /* a source waited: the client has stalled nothing */
        conn->deadline_ms = conn->loop->now_ms + conn->loop->server->config.write_stall_ms;
    else if (request->reading)
        conn->deadline_ms += conn->loop->now_ms - conn->suspended_ms;
    conn->unused = conn->input_len - conn->input_at;
    request->run(request);
    if (conn->state == CONN_CLOSED) {
        if (!request->suspended) {
            conn_finish_request(conn);
            loop_bury(conn->loop, conn);
        }
        return;
    }
    assert(request->answered || request->suspended || request->reading);
    if (request->answered && !request->sent && !request->suspended && !request->lost &&
        answer_send(conn))
        request->lost = true;
    conn_continue(conn);
}

void http_post(struct http_request *request, void (*run)(struct http_request *request))
{
    request->run = run;
    request->mail.deliver = resume;
    loop_mail(conn_of(request)->loop, &request->mail);
}

/* ---- Events ---- */

/* The client has sent its FIN. */
static void at_end_of_input(struct conn *conn)
{
    if (conn->state == CONN_HEADER) {
        conn->state = CONN_REQUEST;
        conn->request.body_complete = true;
        conn_refuse(conn, &incomplete_header);
    } else if (conn->state == CONN_REQUEST) {
        conn_refuse(conn, &incomplete_body);
    } else {
        lose(conn);
        return;
    }
    conn_run(conn, (struct view){NULL, 0}, true);
}

static void on_readable(struct conn *conn)
{
    struct loop *loop = conn->loop;
    ssize_t n;

    if (!wants_input(conn)) {
        struct epoll_event event = {.events = conn->armed & ~(uint32_t)EPOLLIN, .data.ptr = conn};

        if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event))
            lose(conn);
        conn->armed = event.events;
        return;
    }
    do
        n = recv(conn->fd, loop->input, HTTP_READ_STEP_BYTES, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        if (errno != EAGAIN)
            lose(conn);
        return;
    }
    if (!n) {
        at_end_of_input(conn);
        return;
    }
    stat_add(&loop->stats.bytes_in, (uint64_t)n);
    if (!conn->input) {
        conn_run(conn, (struct view){loop->input, (size_t)n}, false);
    } else if (append_input(conn, loop->input, (size_t)n)) {
        lose(conn);
    } else {
        conn_continue(conn);
    }
}

void conn_event(struct conn *conn, uint32_t events)
{
    struct http_request *request = &conn->request;

    if (conn->fd < 0)
        return; /* closed earlier in this round */
    if (events & (EPOLLERR | EPOLLHUP)) {
        lose(conn);
        return;
    }
    if (events & EPOLLOUT) {
        if (conn->state == CONN_REQUEST && request->answered && !request->sent && answer_send(conn))
            request->lost = true;
        conn_continue(conn);
    }
    if (events & EPOLLIN && conn->fd >= 0)
        on_readable(conn);
}

void conn_timeout(struct conn *conn)
{
    struct http_request *request = &conn->request;

    if (conn->state == CONN_REQUEST && request->wake) {
        conn_wake(conn, HTTP_WAKE_LATE);
        return;
    }
    if (conn->state == CONN_HEADER) {
        conn->state = CONN_REQUEST;
        request->body_complete = true;
        conn_refuse(conn, &late_header);
    } else if (conn->state == CONN_REQUEST && !request->answered) {
        assert(request->reading && !request->suspended);
        conn_refuse(conn, &late_body);
    } else {
        lose(conn);
        return;
    }
    conn_run(conn, (struct view){NULL, 0}, true);
}

void conn_adopt(struct mail *mail)
{
    struct conn *conn = CONTAINER_OF(mail, struct conn, mail);
    struct loop *loop = conn->loop;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};

    conn->next = loop->conns;
    if (conn->next)
        conn->next->prev = conn;
    loop->conns = conn;
    conn->fresh = true;
    go_idle(conn);
    if (conn->state == CONN_CLOSED)
        return;
    conn->armed = EPOLLIN;
    if (loop->orders_done & LOOP_CUT ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event)) {
        lose(conn);
        return;
    }
    if (conn->refuse) {
        answer_too_many(conn->fd);
        linger(conn);
    }
    arm(conn);
}

void conn_drain(struct conn *conn)
{
    if (conn->state == CONN_REQUEST && conn->request.wake)
        conn_wake(conn, HTTP_WAKE_DRAIN);
    /* A request may have come just now; it is still answered. */
    if (conn->state == CONN_IDLE && conn->fd >= 0 && !conn->input)
        on_readable(conn);
    if (conn->state != CONN_IDLE || conn->input)
        return;
    if (conn->fresh) {
        go_idle(conn);
        arm(conn);
    } else {
        lose(conn);
    }
}

void conn_cut(struct conn *conn)
{
    lose(conn);
}
