/*
 * The HTTP/1.1 server core: connections, parsing, deadlines and answers; it knows nothing of what
 * is served. Sources: RFC 9110, RFC 9112.
 *
 * Threads: a server has a few worker loops; a connection lives on one of them for its whole life,
 * and every callback of a handler is called on that loop and must not block. Work that has to wait
 * is handed to another thread after http_suspend; that thread calls http_post, and the request goes
 * on in its loop.
 *
 * One request's life, as its handler sees it:
 *
 *   on_request ──► http_answer                                   (nothing to wait for)
 *              ──► http_read_body ─► on_body … ─► on_body_end ─► http_answer
 *              ──► http_suspend ─(other thread: http_post(fn))─► fn ─► any of these, or suspend
 * again finally, exactly once: on_done, when the answer was sent or the connection is lost. The
 * handler releases what it holds for the request there. While a request is suspended the core never
 * calls on_done: a client that went away shows in http_gone only, once the post has arrived.
 */
#ifndef API_HTTP_HTTP_H
#define API_HTTP_HTTP_H

#include "base/budget.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_server;
struct http_request;

enum http_method {
    HTTP_METHOD_GET,
    HTTP_METHOD_HEAD,
    HTTP_METHOD_POST,
    HTTP_METHOD_PUT,
    HTTP_METHOD_DELETE,
    HTTP_METHOD_OPTIONS,
};

/* A piece of text that somebody else owns; not terminated. ptr NULL = absent. */
struct slice {
    const char *ptr;
    size_t len;
};

struct http_handler {
    /* The header is complete and valid. Slices got from the request die when this returns. */
    void (*on_request)(void *arg, struct http_request *request);
    /* LEN more bytes of the body, after http_read_body. DATA dies when this returns. The handler
     * may answer at once (an error): the rest of the body is then not delivered. */
    void (*on_body)(void *arg, struct http_request *request, const uint8_t *data, size_t len);
    /* The body is complete: as long as it said to be. */
    void (*on_body_end)(void *arg, struct http_request *request);
    /* The request is over; see above. Called for every request whose on_request was called. */
    void (*on_done)(void *arg, struct http_request *request);
    void *arg;
};

/* Names of the operations whose latency is told apart in the statistics; see http_set_operation. */
#define HTTP_MAX_OPERATIONS 24

struct http_config {
    unsigned workers;              /* loops; 0 = one per CPU */
    unsigned max_connections;      /* over it a new one gets 503 and is closed */
    bool access_log;               /* one log line per request */
    const char *const *operations; /* names, index = operation; lent for the server's life */
    unsigned operation_count;
    /* Deadlines in milliseconds; 0 = the default of base/limits.h. */
    uint32_t header_timeout_ms, idle_timeout_ms, body_grace_ms, write_stall_ms;
    uint32_t body_rate_bytes_s; /* 0 = default */
    /* What connections keep on the heap is taken from here: answers that slow readers have not
     * taken, and, from its first half alone, input that came early. A connection for which nothing
     * is left is closed. Lent for the server's life; NULL: no bound. */
    struct budget *memory;
};

/* Make a server without listeners and start its loops. */
int http_server_create(struct http_server **out, const struct http_config *config) MUST_CHECK;

/* Listen on ADDRESS: "host:port", "[v6]:port", ":port", or "unix:PATH" (mode 0600; a dead socket
 * file there is replaced). Port 0 takes a free one. HANDLER is lent for the server's life. Returns
 * ERR_IN_USE, ERR_PERMISSION, ERR_INVALID (address malformed or host unknown). */
int http_server_listen(struct http_server *server, const char *address,
                       const struct http_handler *handler) MUST_CHECK;

/* The port that listener number INDEX (in order of listen calls) really has. */
unsigned http_server_port(const struct http_server *server, unsigned index);

/* Stop accepting, close idle connections, tell busy ones to close after their answer, and wait for
 * them up to TIMEOUT_MS; then cut what is left. Blocks. The count of connections cut. */
unsigned http_server_drain(struct http_server *server, uint32_t timeout_ms);

/* Drains with no patience if that has not happened, and ends the loops. Requests still suspended
 * must have been posted before. */
void http_server_destroy(struct http_server **server);

/* ---- Reading a request (on its loop; slices valid inside on_request only) ---- */

enum http_method http_request_method(const struct http_request *request);
/* The path as sent, percent-encoded, without the query; and the query without '?'. */
struct slice http_request_path(const struct http_request *request);
struct slice http_request_query(const struct http_request *request);
/* The value of header NAME (lower case), blanks trimmed; absent → ptr NULL. Of a repeated header
 * the first, *COUNT (may be NULL) says how many there were. */
struct slice http_request_header(const struct http_request *request, const char *name,
                                 unsigned *count);
/* Content-Length, 0 where there is no body, UINT64_MAX where it is chunked. */
uint64_t http_request_content_length(const struct http_request *request);
/* The client is on this machine: 127.0.0.0/8, ::1, mapped v4, or a Unix socket. */
bool http_request_from_loopback(const struct http_request *request);
/* Which worker's loop this is: 0 … workers-1, for state that a handler keeps per loop. */
unsigned http_request_worker(const struct http_request *request);
/* A pointer of the handler's own; NULL at first. */
void http_request_set_data(struct http_request *request, void *data);
void *http_request_data(const struct http_request *request);
/* Which operation the request's time is counted under; without it, none. */
void http_set_operation(struct http_request *request, unsigned operation);
/* Give the answer, then close the connection (after an error that leaves it unclear). */
void http_close_after(struct http_request *request);

/* ---- Going on ---- */

/* Deliver the body, at most MAX bytes of it: a longer one is answered 413 by the core (at once
 * where the length is known). Sends 100 Continue where the client waits for it. */
void http_read_body(struct http_request *request, uint64_t max_bytes);

/* The request waits for another thread. From any callback but on_done. */
void http_suspend(struct http_request *request);

/* What befalls a request that waits; see http_suspend_watched. */
enum http_wake {
    HTTP_WAKE_GONE,  /* the client went away */
    HTTP_WAKE_LATE,  /* the time is up */
    HTTP_WAKE_DRAIN, /* the server is about to stop */
};

/* As http_suspend; and where one of these comes before the post, WAKE is called on the loop, once.
 * The request stays suspended: WAKE tells whoever has it to come to an end, and the post follows.
 * TIMEOUT_MS counts from now. */
void http_suspend_watched(struct http_request *request, uint64_t timeout_ms,
                          void (*wake)(struct http_request *request, enum http_wake why));
/* The server is about to stop: who would wait for long need not begin. On the loop. */
bool http_draining(const struct http_request *request);

/* From any thread, once per http_suspend: RUN is called on the request's loop. Never blocks, never
 * fails, allocates nothing. */
void http_post(struct http_request *request, void (*run)(struct http_request *request));

/* The client is gone: nobody reads an answer. On the loop. */
bool http_gone(const struct http_request *request);

/* ---- Answering (on the loop, once per request) ---- */

/*
 * A body that is produced while it is sent. READ gives the bytes from OFFSET of this answer's body:
 * up to CAP of them in SCRATCH (a buffer of the loop's, CAP >= 64 KiB) or in memory of its own;
 * *DATA and *LEN (> 0) say where; valid until the next callback of this loop. It may be asked again
 * for bytes it gave before, where the socket took fewer. Returns 0; ERR_AGAIN after it has called
 * http_suspend itself: the post's function then calls http_source_ready; any other error cuts the
 * connection. CLOSE is called once, before on_done.
 *
 * HOLD (may be NULL) is asked first: bytes from OFFSET on that lie in a file, for sendfile. They
 * must not change until RELEASE, which follows within the same call of the core and says how many
 * bytes were sent, nor afterwards
 * where the socket has taken them. False: READ has to do. Never suspends.
 */
struct http_file {
    int fd;
    uint64_t offset, len; /* len > 0 */
};

struct http_source {
    int (*read)(struct http_source *source, struct http_request *request, uint64_t offset,
                uint8_t *scratch, size_t cap, const uint8_t **data, size_t *len);
    void (*close)(struct http_source *source);
    bool (*hold)(struct http_source *source, uint64_t offset, struct http_file *file);
    void (*release)(struct http_source *source, uint64_t sent_bytes);
};

struct http_answer {
    unsigned status;
    /* Header lines, each with its CRLF, without Date, Content-Length and Connection, which the core
     * writes. Copied or sent before the call returns unless HEAD_LENT. */
    const char *head;
    size_t head_len;
    /* One of: a body in memory, copied or sent before the call returns unless LENT … */
    const void *body;
    /* … or a source of LENGTH bytes. */
    struct http_source *source;
    uint64_t length; /* of the body; for HEAD and 304 what a GET's would be */
    /* head and body stay valid until on_done: nothing is copied. */
    bool lent;
};

/* Send the answer. For HEAD, 204 and 304 the body is left out. */
void http_answer(struct http_request *request, const struct http_answer *answer);

/* {"error":{"code":CODE,"message":MESSAGE}} with STATUS; EXTRA_HEAD as in http_answer, or NULL. */
void http_answer_error(struct http_request *request, unsigned status, const char *code,
                       const char *message, const char *extra_head);

/* The source can be asked again. On the loop, from a post's function. */
void http_source_ready(struct http_request *request);

/* ---- Statistics ---- */

/* Upper bounds of the histogram's buckets in microseconds; the last bucket is unbounded. */
#define HTTP_LATENCY_BUCKETS 16
extern const uint32_t http_latency_bounds_us[HTTP_LATENCY_BUCKETS - 1];

struct http_operation_stats {
    uint64_t count, sum_us;
    uint64_t buckets[HTTP_LATENCY_BUCKETS]; /* each on its own, not cumulative */
};

struct http_stats {
    uint64_t requests[6];            /* by status class: [2] = 2xx … [5] = 5xx */
    uint64_t accepted;               /* connections since the start … */
    uint64_t refused;                /* … and those refused, or closed for want of memory */
    uint64_t connections, in_flight; /* now */
    uint64_t bytes_in, bytes_out;
    struct http_operation_stats operations[HTTP_MAX_OPERATIONS];
};

/* From any thread; numbers of different loops may be moments apart. */
void http_server_stats(const struct http_server *server, struct http_stats *out);

#endif
