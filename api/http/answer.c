/*
 * Answers: rendering the header, and bringing header and body to the socket with few calls and few
 * copies.
 *
 * http_answer sends at once. A small answer is put together in one piece and sent with one call; a
 * larger body goes out from where it lies, a source's first block together with the header, and
 * what a source has in a file by sendfile. What the socket does not take is kept in struct output:
 * the rest of the header as a copy, the body as a copy unless it is lent, the source as an offset;
 * answer_send goes on with it when the socket is writable again. A failure marks the request lost;
 * conn.c ends it when the handler's callback has returned, so that no handler is called from within
 * its own call.
 */
#include "api/http/http_internal.h"
#include "base/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* A header longer than this is not copied behind our own lines, but sent from where it is. */
#define COPIED_HEAD_BYTES 2048

static const char *reason(unsigned status)
{
    static const struct {
        uint16_t status;
        const char *text;
    } reasons[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {423, "Locked"},
        {425, "Too Early"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };

    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Status"; /* the text means nothing, but something should be there */
}

static char *put(char *to, const char *text, size_t len)
{
    memcpy(to, text, len);
    return to + len;
}

#define PUT(to, literal) put(to, literal, sizeof(literal) - 1)

static char *put_number(char *to, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;

    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    return put(to, digits + at, sizeof digits - at);
}

/* The lines that are ours. Returns their end. */
static char *put_core_head(char *to, const struct http_request *request, const char *date,
                           const struct http_answer *answer)
{
    char *begin = to;
    bool no_length = answer->status == 204 || (answer->status == 304 && !answer->length);

    if (answer->status == 200) {
        to = PUT(to, "HTTP/1.1 200 OK\r\nDate: ");
    } else {
        const char *text = reason(answer->status);

        to = PUT(to, "HTTP/1.1 ");
        to = put_number(to, answer->status);
        to = PUT(to, " ");
        to = put(to, text, strlen(text));
        to = PUT(to, "\r\nDate: ");
    }
    to = put(to, date, HTTP_DATE_BYTES);
    if (!no_length) {
        to = PUT(to, "\r\nContent-Length: ");
        to = put_number(to, answer->length);
    }
    if (request->close)
        to = PUT(to, "\r\nConnection: close");
    else if (request->minor_0)
        to = PUT(to, "\r\nConnection: keep-alive");
    to = PUT(to, "\r\n");
    assert(to - begin <= CORE_HEAD_BYTES);
    return to;
}

/* What a call that sends has returned: bytes sent, possibly 0, or an error. */
static ssize_t count_sent(struct conn *conn, ssize_t n)
{
    if (n < 0)
        return errno == EAGAIN ? 0 : ERR_CLOSED;
    stat_add(&conn->loop->stats.bytes_out, (uint64_t)n);
    return n;
}

/* FLAGS: MSG_MORE where the rest follows at once. */
static ssize_t send_parts(struct conn *conn, struct iovec *parts, int count, int flags)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    ssize_t n;

    do
        n = count == 1 ? send(conn->fd, parts->iov_base, parts->iov_len, MSG_NOSIGNAL | flags)
                       : sendmsg(conn->fd, &message, MSG_NOSIGNAL | flags);
    while (n < 0 && errno == EINTR);
    return count_sent(conn, n);
}

/* Whether what comes next lies in a file; then send_file has to follow. */
static bool hold_file(struct conn *conn, struct http_file *file)
{
    struct output *out = &conn->request.out;

    if (!out->source->hold || !out->source->hold(out->source, out->offset, file))
        return false;
    assert(file->fd >= 0 && file->len > 0);
    if (file->len > out->length - out->offset)
        file->len = out->length - out->offset;
    return true;
}

static ssize_t send_file(struct conn *conn, const struct http_file *file)
{
    struct http_source *source = conn->request.out.source;
    off_t offset = (off_t)file->offset;
    ssize_t n;

    do
        n = sendfile(conn->fd, file->fd, &offset, file->len);
    while (n < 0 && errno == EINTR);
    n = n == 0 ? ERR_CLOSED /* the file is shorter than its owner said */ : count_sent(conn, n);
    source->release(source, n > 0 ? (uint64_t)n : 0);
    return n;
}

static struct iovec part(const void *data, size_t len)
{
    return (struct iovec){(void *)(uintptr_t)data, len};
}

/* Ask the source for a block into *BLOCK. 0, ERR_AGAIN (it waits), or its error. */
static int read_block(struct conn *conn, struct iovec *block)
{
    struct http_request *request = &conn->request;
    struct output *out = &request->out;
    const uint8_t *data = NULL;
    size_t len = 0;
    int rc = out->source->read(out->source, request, out->offset, conn->loop->scratch, SOURCE_BYTES,
                               &data, &len);

    if (rc == ERR_AGAIN) {
        assert(request->suspended);
        out->source_waits = true;
        return rc;
    }
    if (rc)
        return rc;
    assert(data && len > 0 && !request->suspended);
    if (len > out->length - out->offset)
        len = (size_t)(out->length - out->offset);
    *block = part(data, len);
    return 0;
}

/* Keep what was not sent: the rest of the first HEADS of COUNT parts is header, the rest body. */
static int keep(struct conn *conn, const struct iovec *parts, int heads, int count, size_t sent,
                bool lent)
{
    struct output *out = &conn->request.out;
    size_t head_len = 0, body_len = 0, copied;
    struct iovec left[4];
    uint8_t *to;

    assert(count <= 4);
    for (int i = 0; i < count; i++) {
        size_t cut = sent < parts[i].iov_len ? sent : parts[i].iov_len;

        left[i] = part((const char *)parts[i].iov_base + cut, parts[i].iov_len - cut);
        sent -= cut;
        *(i < heads ? &head_len : &body_len) += left[i].iov_len;
    }
    copied = head_len + (lent ? 0 : body_len);
    if (copied) {
        if (!memory_take(conn->loop, copied, false))
            return ERR_FULL;
        to = out->copy = malloc(copied);
        if (!to) {
            memory_give(conn->loop, copied);
            return ERR_NO_MEMORY;
        }
        out->copy_bytes = copied;
        for (int i = 0; i < (lent ? heads : count); i++)
            to = (uint8_t *)put((char *)to, left[i].iov_base, left[i].iov_len);
    }
    out->head = out->copy;
    out->head_len = head_len;
    out->body_len = body_len;
    if (body_len)
        out->body = lent ? left[count - 1].iov_base : out->copy + head_len;
    return 0;
}

/* Send the header that lies in PARTS, and FILE, which is held, behind it. */
static int begin_file(struct conn *conn, struct iovec *parts, int heads, size_t head_len,
                      const struct http_file *file)
{
    struct http_request *request = &conn->request;
    struct output *out = &request->out;
    ssize_t sent = send_parts(conn, parts, heads, MSG_MORE);

    if (sent < 0 || (size_t)sent < head_len) {
        out->source->release(out->source, 0);
        return sent < 0 ? (int)sent : keep(conn, parts, heads, heads, (size_t)sent, false);
    }
    sent = send_file(conn, file);
    if (sent < 0)
        return (int)sent;
    out->offset = (uint64_t)sent;
    request->sent = out->offset == out->length;
    return request->sent || (uint64_t)sent < file->len ? 0 : answer_send(conn);
}

/* Send the header that lies in PARTS, with the source's first block. */
static int begin_source(struct conn *conn, struct iovec *parts, int heads, size_t head_len)
{
    struct http_request *request = &conn->request;
    struct output *out = &request->out;
    struct http_file file;
    int count = heads;
    ssize_t sent = 0;

    if (hold_file(conn, &file))
        return begin_file(conn, parts, heads, head_len, &file);
    int rc = read_block(conn, &parts[heads]);
    if (!rc) {
        count++;
        sent = send_parts(conn, parts, count, 0);
    }
    if (sent < 0)
        return (int)sent;
    if (rc && rc != ERR_AGAIN)
        return rc;
    if ((size_t)sent < head_len)
        return keep(conn, parts, heads, heads, (size_t)sent, false);
    out->offset = (uint64_t)sent - head_len;
    request->sent = out->offset == out->length;
    /* A source that fills less than a socket's buffer at once ends here; others go on. */
    return request->sent || (size_t)sent < head_len + parts[heads].iov_len ? 0 : answer_send(conn);
}

/* Render the header and send what can be sent now. */
static int begin(struct conn *conn, const struct http_answer *answer, bool has_body)
{
    struct http_request *request = &conn->request;
    char *piece = conn->loop->piece;
    char *end = put_core_head(piece, request, conn->loop->date, answer);
    size_t body_len = has_body && !answer->source ? (size_t)answer->length : 0, total;
    struct iovec parts[4];
    int heads = 1, count;
    ssize_t sent;

    if (answer->head_len <= COPIED_HEAD_BYTES) {
        if (answer->head_len)
            end = put(end, answer->head, answer->head_len);
        end = PUT(end, "\r\n");
        if (body_len && body_len <= ONE_PIECE_BYTES - (size_t)(end - piece)) {
            end = put(end, answer->body, body_len);
            body_len = 0;
        }
    } else {
        parts[heads++] = part(answer->head, answer->head_len);
        parts[heads++] = part("\r\n", 2);
    }
    parts[0] = part(piece, (size_t)(end - piece));
    total = parts[0].iov_len + (heads > 1 ? answer->head_len + 2 : 0);
    request->answer_bytes = has_body ? answer->length : 0;
    if (has_body && answer->source && answer->length) {
        request->out.length = answer->length;
        return begin_source(conn, parts, heads, total);
    }
    count = heads;
    if (body_len) {
        parts[count++] = part(answer->body, body_len);
        total += body_len;
    }
    sent = send_parts(conn, parts, count, 0);
    if (sent < 0)
        return (int)sent;
    request->sent = (size_t)sent == total;
    return request->sent ? 0 : keep(conn, parts, heads, count, (size_t)sent, answer->lent);
}

/* Whether what the client may still send of its body is a reason to close. */
static bool body_is_in_the_way(const struct http_request *request)
{
    if (request->body_complete)
        return false;
    /* Told not to send it, a client may leave it out, or not: the next bytes could be either. */
    return request->expects_continue ||
           (!request->is_chunked && request->body_left > DISCARD_BYTES);
}

void http_answer(struct http_request *request, const struct http_answer *answer)
{
    struct conn *conn = conn_of(request);
    struct loop *loop = conn->loop;
    bool has_body = !request->is_head && answer->status != 204 && answer->status != 304;

    assert(!request->answered && !request->suspended);
    assert(answer->status >= 200 && answer->status <= 599);
    assert(answer->source || answer->body || !answer->length || !has_body);
    request->answered = true;
    request->out.source = answer->source;
    if (request->gone)
        return;
    request->status = (uint16_t)answer->status;
    request->close |= body_is_in_the_way(request) || loop->orders_done & LOOP_DRAIN;
    conn->deadline_ms = loop->now_ms + loop->server->config.write_stall_ms;
    stat_add(&loop->stats.requests[answer->status / 100], 1);
    if (begin(conn, answer, has_body))
        request->lost = true;
}

/* Send what comes next: bytes sent, of *WANT; ERR_AGAIN (the source waits), or its error. */
static ssize_t send_next(struct conn *conn, uint64_t *want)
{
    struct output *out = &conn->request.out;
    bool source_next = !out->body_len && out->source && out->offset < out->length;
    struct iovec parts[2];
    struct http_file file;
    int count = 0;

    *want = 0;
    if (source_next && !out->head_len && hold_file(conn, &file)) {
        *want = file.len;
        return send_file(conn, &file);
    }
    if (out->head_len)
        parts[count++] = part(out->head, out->head_len);
    if (out->body_len) {
        parts[count++] = part(out->body, out->body_len);
    } else if (source_next) {
        int rc = read_block(conn, &parts[count]);
        if (rc)
            return rc;
        count++;
    }
    for (int i = 0; i < count; i++)
        *want += parts[i].iov_len;
    assert(*want > 0);
    return send_parts(conn, parts, count, 0);
}

int answer_send(struct conn *conn)
{
    struct http_request *request = &conn->request;
    struct output *out = &request->out;
    uint64_t budget = SEND_BYTES_PER_TURN;

    assert(request->answered && !request->sent);
    while (budget > 0 && !request->suspended && !out->source_waits) {
        uint64_t want, n;
        ssize_t sent = send_next(conn, &want);

        if (sent == ERR_AGAIN)
            return 0;
        if (sent < 0)
            return (int)sent;
        if (sent > 0)
            conn->deadline_ms = conn->loop->now_ms + conn->loop->server->config.write_stall_ms;
        n = (uint64_t)sent < out->head_len ? (uint64_t)sent : out->head_len;
        if (n > 0) /* without a head there is no pointer to move either */
            out->head += n;
        out->head_len -= n;
        n = (uint64_t)sent - n;
        if (out->body_len) {
            out->body += n;
            out->body_len -= n;
        } else {
            out->offset += n;
        }
        request->sent = !out->head_len && !out->body_len && out->offset == out->length;
        if (request->sent || (uint64_t)sent < want)
            return 0;
        budget = (uint64_t)sent < budget ? budget - (uint64_t)sent : 0;
    }
    return 0;
}

void http_source_ready(struct http_request *request)
{
    request->out.source_waits = false;
}

void answer_release(struct http_request *request)
{
    struct output *out = &request->out;

    if (out->source)
        out->source->close(out->source);
    free(out->copy);
    memory_give(conn_of(request)->loop, out->copy_bytes);
    memset(out, 0, sizeof *out);
}

void http_answer_error(struct http_request *request, unsigned status, const char *code,
                       const char *message, const char *extra_head)
{
    static const char unspoken[] = "{\"error\":{\"code\":\"internal\",\"message\":\"\"}}\n";
    char head[COPIED_HEAD_BYTES];
    struct buf body;
    struct http_answer answer = {.status = status, .head = head};
    int n = snprintf(head, sizeof head, "Content-Type: application/json\r\n%s",
                     extra_head ? extra_head : "");

    assert(n > 0 && (size_t)n < sizeof head);
    answer.head_len = (size_t)n;
    buf_init(&body, 16 * KIB);
    buf_text(&body, "{\"error\":{\"code\":");
    buf_json(&body, code, strlen(code));
    buf_text(&body, ",\"message\":");
    buf_json(&body, message, strlen(message));
    buf_text(&body, "}}\n");
    if (buf_check(&body)) {
        answer.body = unspoken;
        answer.length = sizeof unspoken - 1;
    } else {
        answer.body = body.data;
        answer.length = body.len;
    }
    http_answer(request, &answer);
    buf_release(&body);
}

void answer_too_many(int fd)
{
#define TOO_MANY                                                                                   \
    "{\"error\":{\"code\":\"too_many_connections\",\"message\":\"too many connections\"}}\n"
    static const char text[] =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        "Content-Length: 75\r\nRetry-After: 1\r\nConnection: close\r\n\r\n" TOO_MANY;

    _Static_assert(sizeof TOO_MANY - 1 == 75, "the length above");
    /* An empty socket buffer takes this much; if not, the close says as much. */
    (void)!send(fd, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}
