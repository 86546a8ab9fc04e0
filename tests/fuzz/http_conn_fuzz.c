/*
 * Goal: what a client sends over a connection means the same however it is cut into pieces, and
 * each request that reaches a handler begins exactly where the one before it ended, as an
 * independent reading of RFC 9112 finds it: nothing is smuggled.
 *
 * One loop without its thread and one connection over a socket pair; the target does the loop's
 * turns itself. A handler answers by the second character of the path: see on_request.
 *
 * Input: the size of the pieces (1 byte), flags (1), then what the client sends.
 */
#include "api/http/http_internal.h"
#include "base/buf.h"
#include "base/text.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_BODY     8192
#define SOURCE_TOTAL 100000
#define MAX_TURNS    20000
#define NOWHERE      SIZE_MAX

enum flags { HALF_CLOSE = 1, TIME_OUT = 2, DRAIN = 4 };

/* ---- What RFC 9112 says about the client's bytes ---- */

struct expected {
    const char *text;
    size_t len, at;  /* where the next request begins; NOWHERE: none may follow */
    struct buf body; /* of the present request, where it is complete */
    bool complete;
};

/* The line that begins at AT, without its CRLF; false where there is none. */
static bool line_at(const struct expected *e, size_t at, struct slice *line)
{
    const char *end = at <= e->len ? memmem(e->text + at, e->len - at, "\r\n", 2) : NULL;

    if (!end)
        return false;
    *line = (struct slice){e->text + at, (size_t)(end - e->text) - at};
    return true;
}

static bool is_header(struct slice line, const char *name, struct slice *value)
{
    size_t len = strlen(name);

    if (line.len <= len || line.ptr[len] != ':' || strncasecmp(line.ptr, name, len) != 0)
        return false;
    *value = (struct slice){line.ptr + len + 1, line.len - len - 1};
    return true;
}

/* The chunked body at AT; where it ends, NOWHERE where it does not. */
static size_t expect_chunks(struct expected *e, size_t at)
{
    struct slice line;

    while (line_at(e, at, &line)) {
        uint64_t size = strtoull(line.ptr, NULL, 16);

        at = (size_t)(line.ptr + line.len - e->text) + 2;
        if (size == 0) {
            while (line_at(e, at, &line)) {
                at = (size_t)(line.ptr + line.len - e->text) + 2;
                if (line.len == 0)
                    return at;
            }
            return NOWHERE;
        }
        if (size > e->len - at || e->len - at - size < 2)
            return NOWHERE;
        buf_add(&e->body, e->text + at, size);
        at += size + 2;
    }
    return NOWHERE;
}

/* A request has reached the handler: it must be the one that stands at e->at. Moves on behind it.
 */
static void expect_request(struct expected *e, const struct http_request *request)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"};
    const char *method = methods[http_request_method(request)];
    struct slice line, value, path = http_request_path(request);
    uint64_t length = 0;
    bool chunked = false;

    CHECK(e->at != NOWHERE && e->at < e->len);
    if (e->len - e->at > 2 && memcmp(e->text + e->at, "\r\n", 2) == 0)
        e->at += 2;
    CHECK(line_at(e, e->at, &line));
    CHECK(line.len > strlen(method) + 1 && memcmp(line.ptr, method, strlen(method)) == 0);
    CHECK(line.ptr[strlen(method)] == ' ');
    CHECK((path.len == 1 && path.ptr[0] == '/') || memmem(line.ptr, line.len, path.ptr, path.len));
    size_t at = e->at + line.len + 2;
    for (; line_at(e, at, &line) && line.len > 0; at += line.len + 2) {
        if (is_header(line, "content-length", &value))
            length = strtoull(value.ptr, NULL, 10);
        chunked |= is_header(line, "transfer-encoding", &value);
    }
    CHECK(line.len == 0);
    at += 2;
    buf_reset(&e->body);
    CHECK(http_request_content_length(request) == (chunked ? UINT64_MAX : length));
    if (chunked) {
        e->at = expect_chunks(e, at);
    } else if (length <= e->len - at) {
        buf_add(&e->body, e->text + at, length);
        e->at = at + length;
    } else {
        e->at = NOWHERE;
    }
    e->complete = e->at != NOWHERE;
}

/* ---- The handler ---- */

struct job {
    struct http_source source; /* first */
    struct buf body;
    char kind;
    bool answered, source_open, waited;
};

static struct {
    struct http_server server;
    struct loop loop;
    struct http_handler handler;
    struct expected expected;
    struct buf trace, output;
    unsigned open_jobs;
    bool stop_expecting; /* the client's bytes were cut off: only the first of two runs is judged */
} world;

static void trace_slice(const char *what, struct slice slice)
{
    buf_text(&world.trace, what);
    buf_add(&world.trace, slice.ptr ? slice.ptr : "", slice.len);
    buf_char(&world.trace, '\n');
}

static void answer(struct http_request *request, unsigned status)
{
    struct job *job = http_request_data(request);
    struct http_answer answer = {.status = status,
                                 .head = "X-A: b\r\n",
                                 .head_len = 8,
                                 .body = job->body.data ? job->body.data : "",
                                 .length = job->body.len};

    CHECK(!job->answered);
    job->answered = true;
    http_answer(request, &answer);
}

static int source_read(struct http_source *source, struct http_request *request, uint64_t offset,
                       uint8_t *scratch, size_t cap, const uint8_t **data, size_t *len);

static void source_close(struct http_source *source)
{
    struct job *job = (struct job *)source;

    CHECK(job->source_open);
    job->source_open = false;
}

static void answer_source(struct http_request *request)
{
    struct job *job = http_request_data(request);
    struct http_answer answer = {.status = 200, .source = &job->source, .length = SOURCE_TOTAL};

    job->source = (struct http_source){.read = source_read, .close = source_close};
    job->source_open = job->answered = true;
    http_answer(request, &answer);
}

static int source_read(struct http_source *source, struct http_request *request, uint64_t offset,
                       uint8_t *scratch, size_t cap, const uint8_t **data, size_t *len)
{
    struct job *job = (struct job *)source;

    CHECK(offset < SOURCE_TOTAL);
    if (job->kind == 'w' && !job->waited && offset > 0) {
        job->waited = true;
        http_suspend(request);
        http_post(request, http_source_ready);
        return ERR_AGAIN;
    }
    if (job->kind == 'f' && offset > 0)
        return ERR_CORRUPT;
    if (cap > 30000)
        cap = 30000;
    memset(scratch, 's', cap);
    *data = scratch;
    *len = cap < SOURCE_TOTAL - offset ? cap : SOURCE_TOTAL - offset;
    return 0;
}

static void answer_later(struct http_request *request)
{
    answer(request, http_gone(request) ? 500 : 200);
}

static void read_later(struct http_request *request)
{
    http_read_body(request, MAX_BODY);
}

static void go_on(struct http_request *request)
{
    (void)request; /* the body comes by itself */
}

static void on_request(void *arg, struct http_request *request)
{
    struct slice path = http_request_path(request);
    struct job *job = calloc(1, sizeof *job);
    const struct head *head = request->head;

    (void)arg;
    CHECK(job);
    world.open_jobs++;
    http_request_set_data(request, job);
    job->kind = path.len > 1 ? path.ptr[1] : 0;
    trace_slice("request ", head->target);
    for (unsigned i = 0; i < head->count; i++) {
        trace_slice("", head->headers[i].name);
        trace_slice(": ", head->headers[i].value);
    }
    expect_request(&world.expected, request);
    switch (job->kind) {
    case 'e': /* echo */
    case 'p': /* stops once in its body */
    case 'q': /* answers before its end */
    case 'l': /* at its end it waits */
        http_read_body(request, MAX_BODY);
        break;
    case 'b': /* waits before its body */
        http_suspend(request);
        http_post(request, read_later);
        break;
    case 's': /* waits before its answer */
        http_suspend(request);
        http_post(request, answer_later);
        break;
    case 'r': /* a source; 'w': one that waits, 'f': one that fails */
    case 'w':
    case 'f':
        answer_source(request);
        break;
    case 'c':
        http_close_after(request);
        answer(request, 200);
        break;
    case 'n':
        answer(request, 304);
        break;
    default:
        job->answered = true;
        http_answer_error(request, 404, "not_found", "no \"such\" path", NULL);
    }
}

static void on_body(void *arg, struct http_request *request, const uint8_t *data, size_t len)
{
    struct job *job = http_request_data(request);

    (void)arg;
    CHECK(len > 0 && !job->answered);
    buf_add(&job->body, data, len);
    CHECK(job->body.len <= MAX_BODY);
    if (job->kind == 'q') {
        buf_reset(&job->body);
        answer(request, 409);
    } else if (job->kind == 'p' && !job->waited) {
        job->waited = true;
        http_suspend(request);
        http_post(request, go_on);
    }
}

static void on_body_end(void *arg, struct http_request *request)
{
    struct job *job = http_request_data(request);
    const struct expected *e = &world.expected;

    (void)arg;
    CHECK(e->complete && e->body.len == job->body.len);
    CHECK(job->body.len == 0 || memcmp(e->body.data, job->body.data, job->body.len) == 0);
    trace_slice("body ", (struct slice){job->body.data, job->body.len});
    if (job->kind == 'l') {
        http_suspend(request);
        http_post(request, answer_later);
    } else {
        answer(request, 200);
    }
}

static void on_done(void *arg, struct http_request *request)
{
    struct job *job = http_request_data(request);

    (void)arg;
    CHECK(!job->source_open);
    buf_release(&job->body);
    free(job);
    world.open_jobs--;
}

/* ---- The loop's turns ---- */

static void deliver_mail(struct loop *loop)
{
    struct mail *mail = atomic_exchange(&loop->mailbox, NULL);

    while (mail) { /* of one connection there is one at most */
        struct mail *next = mail->next;

        mail->deliver(mail);
        mail = next;
    }
}

static void run_ready(struct loop *loop)
{
    struct conn *conn = loop->ready;

    loop->ready = NULL;
    loop->ready_end = &loop->ready;
    while (conn) {
        struct conn *next = conn->next_ready;

        conn->in_ready = false;
        conn_continue(conn);
        conn = next;
    }
}

static void free_dead(struct loop *loop)
{
    while (loop->dead && !loop->ready) {
        struct conn *conn = loop->dead;

        loop->dead = conn->next;
        free(conn->input);
        free(conn);
    }
}

static void receive(int fd)
{
    char data[16384];
    ssize_t n;

    while ((n = recv(fd, data, sizeof data, MSG_DONTWAIT)) > 0)
        buf_add(&world.output, data, (size_t)n);
}

/* Turn until nothing happens any more. */
static void turn(struct loop *loop, int client)
{
    struct epoll_event events[8];
    unsigned turns = 0;

    for (;; turns++) {
        int n = epoll_wait(loop->epoll_fd, events, 8, 0);

        CHECK(turns < MAX_TURNS);
        for (int i = 0; i < n; i++)
            if (*(const enum watch_kind *)events[i].data.ptr == WATCH_CONNECTION)
                conn_event(events[i].data.ptr, events[i].events);
        bool mail = atomic_load(&loop->mailbox) != NULL;
        deliver_mail(loop);
        bool ready = loop->ready != NULL;
        run_ready(loop);
        free_dead(loop);
        if (client >= 0)
            receive(client);
        if (n <= 0 && !mail && !ready)
            return;
    }
}

static void fire(struct wheel_timer *timer, void *arg)
{
    (void)arg;
    conn_timeout(CONTAINER_OF(timer, struct conn, timer));
}

static void connect_pair(struct loop *loop, int *client)
{
    struct conn *conn = calloc(1, sizeof *conn);
    int fds[2];

    CHECK(conn && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    conn->watch = WATCH_CONNECTION;
    conn->fd = fds[0];
    conn->loop = loop;
    conn->handler = &world.handler;
    conn->loopback = true;
    conn->mail.deliver = conn_adopt;
    atomic_fetch_add(&loop->connections, 1);
    conn_adopt(&conn->mail);
    *client = fds[1];
}

static void send_all(struct loop *loop, int client, const uint8_t *data, size_t len, size_t step)
{
    for (size_t at = 0; at < len;) {
        size_t part = step < len - at ? step : len - at;
        ssize_t n = send(client, data + at, part, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0)
            return; /* it has closed, or reads no more */
        at += (size_t)n;
        turn(loop, client);
    }
}

static void run(const uint8_t *data, size_t len, size_t step, unsigned flags)
{
    struct loop *loop = &world.loop;
    int client;

    buf_reset(&world.trace);
    buf_reset(&world.output);
    world.expected.text = (const char *)data;
    world.expected.len = len;
    world.expected.at = 0;
    connect_pair(loop, &client);
    send_all(loop, client, data, len, step);
    turn(loop, client);
    if (flags & HALF_CLOSE && shutdown(client, SHUT_WR) == 0)
        turn(loop, client);
    if (flags & TIME_OUT) {
        for (unsigned i = 0; i < 3; i++) {
            loop->now_ms += 200000;
            loop->now_us += 200000000;
            wheel_advance(&loop->wheel, loop->now_ms, fire, NULL);
            turn(loop, client);
        }
        CHECK(!loop->conns);
    }
    close(client);
    turn(loop, -1);
    CHECK(!loop->conns && !loop->dead && !loop->ready && world.open_jobs == 0);
    CHECK(atomic_load(&loop->connections) == 0 && atomic_load(&loop->stats.in_flight) == 0);
}

static void start(void)
{
    world.server.config = (struct http_config){
        .workers = 1,
        .max_connections = 10,
        .header_timeout_ms = HTTP_HEADER_TIMEOUT_MS,
        .idle_timeout_ms = HTTP_IDLE_TIMEOUT_MS,
        .body_grace_ms = HTTP_BODY_GRACE_MS,
        .write_stall_ms = HTTP_WRITE_STALL_MS,
        .body_rate_bytes_s = HTTP_BODY_RATE_BYTES_S,
        .access_log = true,
    };
    CHECK(loop_init(&world.loop, &world.server, 0) == 0);
    world.server.loops = &world.loop;
    world.server.workers = 1;
    world.handler = (struct http_handler){on_request, on_body, on_body_end, on_done, NULL};
}

/* Whether to send 100 Continue depends on what has arrived already. */
static void drop_continue(struct buf *buf)
{
    static const char go_on_line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    size_t len = sizeof go_on_line - 1;
    char *at;

    while (buf->len && (at = memmem(buf->data, buf->len, go_on_line, len))) {
        memmove(at, at + len, buf->len - (size_t)(at - buf->data) - len);
        buf->len -= len;
    }
}

static bool same(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && (!a->len || memcmp(a->data, b->data, a->len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    size_t step = (size_t)feed_number(&feed, 1) + 1, len = feed.left > 0 ? feed.left - 1 : 0;
    unsigned flags = (unsigned)feed_number(&feed, 1);

    if (!world.loop.input)
        start();
    if (len == 0)
        return 0;
    if (step < len / 64)
        step = len / 64;
    run(feed.at, len, len, flags);
    struct buf trace = world.trace, output = world.output;
    world.trace = world.output = (struct buf){0};
    run(feed.at, len, step, flags);
    drop_continue(&output);
    drop_continue(&world.output);
    CHECK(same(&trace, &world.trace));
    /* Whether an answer that is given before the body ends closes the connection depends on whether
     * its client waits for 100 Continue. */
    if (!memmem(feed.at, len, "100-", 4))
        CHECK(same(&output, &world.output));
    buf_release(&trace);
    buf_release(&output);
    return 0;
}
