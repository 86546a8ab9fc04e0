/*
 * What the files of the HTTP core share: the structs, and the functions that one of them offers the
 * others. Everything here belongs to one loop and is touched by its thread alone, but where it says
 * so.
 */
#ifndef API_HTTP_HTTP_INTERNAL_H
#define API_HTTP_HTTP_INTERNAL_H

#include "api/http/chunked.h"
#include "api/http/date.h"
#include "api/http/http.h"
#include "api/http/wheel.h"
#include "base/limits.h"

#include <pthread.h>
#include <stdatomic.h>

#define MAX_LISTENERS 8
#define MAX_WORKERS   64
#define BACKLOG       4096
#define MAX_EVENTS    256
#define MAX_ACCEPTS   64

/* Requests that one connection may have answered in a row before others get their turn, and bytes
 * that one may send in a row. */
#define REQUESTS_PER_TURN   64
#define SEND_BYTES_PER_TURN (2 * MIB)

/* Room for a status line and the lines that the core writes; and for all of a header with a small
 * body, which are sent as one piece. */
#define CORE_HEAD_BYTES 512
#define ONE_PIECE_BYTES (8 * KIB)
#define SOURCE_BYTES    BLOCK_BYTES

/* An unread rest of a body up to this is read and dropped, so that the connection can live on; with
 * more, it is closed: we shut down our side and drop what still comes, within bounds, because a
 * close with unread bytes is a reset, which can take the answer away from the client. */
#define DISCARD_BYTES      (256 * KIB)
#define DISCARD_TIMEOUT_MS 10000
#define LINGER_BYTES       (16 * MIB)
#define LINGER_TIMEOUT_MS  3000

/* Connections beyond the limit that are told so in peace; further ones are just closed. */
#define MAX_POLITE_REFUSALS 256

#define CONTAINER_OF(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* ---- Mail: how other threads reach a loop ---- */

struct mail {
    struct mail *next;
    void (*deliver)(struct mail *mail); /* on the loop */
};

/* ---- The parsed header ---- */

struct header {
    struct slice name, value;
};

/* The header of the request whose on_request is running: one per loop. */
struct head {
    struct header headers[LIMIT_HTTP_HEADERS];
    unsigned count;
    struct slice target, path, query;
    enum http_method method;
    unsigned minor; /* of HTTP/1.x */
    uint64_t content_length;
    bool has_method, has_length, chunked, keep_alive, expects_continue;
};

/* What is wrong with a header: the answer that refuses it. */
struct refusal {
    unsigned status;
    const char *code, *message, *extra_head;
};

/* How far a header that is still arriving was looked at. All zero at its start. */
struct head_scan {
    uint32_t at;         /* bytes looked at */
    uint32_t line_start; /* of the line that at is in */
    bool in_headers;     /* past the request line */
};

enum head_found { HEAD_INCOMPLETE, HEAD_COMPLETE, HEAD_REFUSED };

/* Look for the end of the header in DATA, going on where SCAN stands; DATA begins with the request
 * line. On HEAD_COMPLETE scan->at is its length; on HEAD_REFUSED, *REFUSAL says why. Pure. */
enum head_found head_find(struct head_scan *scan, const char *data, size_t len,
                          const struct refusal **refusal);

/* Parse the complete header DATA, which head_find has passed; NULL, or why it is refused. HEAD's
 * slices point into DATA. Its method holds even then, if has_method. Pure. */
const struct refusal *head_parse(struct head *head, const char *data, size_t len);

/* ---- Connections ---- */

enum watch_kind { WATCH_CONNECTION, WATCH_LISTENER, WATCH_MAILBOX };

/* What is left to be sent of an answer. */
struct output {
    uint8_t *copy;     /* heap: what head and body below point into, unless lent … */
    size_t copy_bytes; /* … and its size, taken from the budget */
    const uint8_t *head;
    size_t head_len;
    const uint8_t *body;
    uint64_t body_len;
    struct http_source *source;
    uint64_t offset, length; /* of the source's body */
    bool source_waits;       /* for http_source_ready */
};

/* All zero between requests, but for the mail. */
struct http_request {
    struct mail mail;
    void (*run)(struct http_request *request); /* of a post */
    /* Of a suspended one that is watched; NULL: nobody (any more). */
    void (*wake)(struct http_request *request, enum http_wake why);
    uint64_t wake_ms; /* its deadline */
    void *data;
    const struct head *head; /* inside on_request only */
    uint64_t start_us;
    uint64_t body_left; /* where not chunked */
    uint64_t body_max, body_taken;
    uint64_t content_length;
    struct chunked chunks;
    struct output out;
    char *log_path; /* heap; where the access log is on */
    uint64_t answer_bytes;
    uint16_t status;
    uint8_t method, operation; /* operation + 1; 0 = none */
    bool is_head, minor_0;
    bool has_method;    /* false: refused before it was known */
    bool begun;         /* on_request was called: on_done is due */
    bool reading;       /* http_read_body was called */
    bool body_complete; /* nothing of it is left on the wire */
    bool body_ended;    /* on_body_end was called */
    bool is_chunked, expects_continue;
    bool suspended, answered, sent;
    bool close;         /* the connection after the answer */
    bool gone;          /* closed */
    bool lost;          /* to be closed when the callback has returned */
    bool client_closes; /* it said so */
};

enum conn_state { CONN_IDLE, CONN_HEADER, CONN_REQUEST, CONN_DISCARD, CONN_LINGER, CONN_CLOSED };

struct conn {
    enum watch_kind watch; /* first: what epoll's pointer points to */
    int fd;                /* -1: closed */
    struct loop *loop;
    const struct http_handler *handler;
    uint8_t state;
    bool loopback, refuse, in_ready, skipped_crlf;
    bool fresh;     /* no request was answered on it yet */
    uint32_t armed; /* the events that epoll knows */
    struct wheel_timer timer;
    struct conn *prev, *next; /* of the loop's list */
    struct conn *next_ready;
    /* Bytes received and not yet used, on the heap: an incomplete header, or what came while a
     * request was in flight. */
    uint8_t *input;
    uint32_t input_at, input_len, input_cap;
    struct head_scan scan;
    uint64_t deadline_ms;  /* of the state; WHEEL_NEVER */
    uint64_t suspended_ms; /* when a suspend stopped the body's clock */
    uint64_t quota;        /* bytes that discard or linger may still take */
    size_t unused;         /* of what was received, while a handler is called */
    struct mail mail;      /* for the hand-over */
    struct http_request request;
};

/* Take over a new connection: mail of the accepting loop. */
void conn_adopt(struct mail *mail);
void conn_event(struct conn *conn, uint32_t events);
/* Go on with what was received but left for a later turn. */
void conn_continue(struct conn *conn);
void conn_timeout(struct conn *conn);
/* The loop drains: idle connections close, those that are new after a moment. */
void conn_drain(struct conn *conn);
/* Close now; the request in flight is lost. */
void conn_cut(struct conn *conn);
struct conn *conn_of(struct http_request *request);

/* What was received and is to be used. */
struct view {
    const uint8_t *data;
    size_t len;
};

/* Use the header in VIEW. False: more of it is needed. */
bool conn_take_head(struct conn *conn, struct view *view);
/* Take body bytes off VIEW: *DATA and *LEN are what is content among them. 0 or an error. */
int conn_take_body(struct http_request *request, struct view *view, const uint8_t **data,
                   size_t *len) MUST_CHECK;
/* Hand the handler what VIEW has of its body. False: more is needed. */
bool conn_deliver_body(struct conn *conn, struct view *view);
/* Answer for the handler, and close. */
void conn_refuse(struct conn *conn, const struct refusal *refusal);
/* Whoever watches a suspended request hears of it once. */
void conn_wake(struct conn *conn, enum http_wake why);
/* The request is over, one way or the other. */
void conn_finish_request(struct conn *conn);

/* Memory that a connection keeps: take LEN bytes of the server's budget, as early input or as the
 * rest of an answer; give them back. */
bool memory_take(struct loop *loop, size_t len, bool input) MUST_CHECK;
void memory_give(struct loop *loop, size_t len);

/* Send what the socket takes. 0 (see request->sent), or an error: the connection is lost. */
int answer_send(struct conn *conn) MUST_CHECK;
/* Drop what was not sent; closes the source. */
void answer_release(struct http_request *request);
/* 503 to a connection beyond the limit, without a request. */
void answer_too_many(int fd);

/* ---- Loops ---- */

/* Written by the loop's thread alone, with plain adds; read by any. */
struct loop_stats {
    _Atomic uint64_t requests[6], accepted, refused, in_flight, bytes_in, bytes_out;
    struct {
        _Atomic uint64_t count, sum_us, buckets[HTTP_LATENCY_BUCKETS];
    } operations[HTTP_MAX_OPERATIONS];
};

static inline void stat_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

enum { LOOP_DRAIN = 1, LOOP_CUT = 2, LOOP_STOP = 4 };

struct loop {
    struct http_server *server;
    unsigned index;
    int epoll_fd;
    pthread_t thread;
    bool started;

    /* From other threads. */
    struct {
        enum watch_kind watch;
        int fd;
    } bell; /* an eventfd */
    _Atomic(struct mail *) mailbox;
    atomic_bool sleeping;
    atomic_uint posters;     /* threads inside loop_mail */
    atomic_uint orders;      /* LOOP_… bits */
    atomic_uint connections; /* counted up by the accepting loop, down by this one */

    unsigned orders_done;
    uint64_t now_us, now_ms, date_s;
    char date[HTTP_DATE_BYTES + 1];
    struct wheel wheel;
    struct conn *conns, *ready, **ready_end, *dead;
    uint8_t *input;   /* HTTP_READ_STEP_BYTES: what recv fills */
    uint8_t *scratch; /* SOURCE_BYTES: what a source fills */
    char *piece;      /* ONE_PIECE_BYTES: where headers are written */
    struct head head;
    struct loop_stats stats;
};

static inline bool conn_draining(const struct conn *conn)
{
    return conn->loop->orders_done & LOOP_DRAIN;
}

int loop_init(struct loop *loop, struct http_server *server, unsigned index) MUST_CHECK;
int loop_start(struct loop *loop) MUST_CHECK;
void loop_release(struct loop *loop);
/* From any thread. */
void loop_mail(struct loop *loop, struct mail *mail);
void loop_order(struct loop *loop, unsigned orders);
/* Give CONN another turn, after the others. */
void loop_ready(struct loop *loop, struct conn *conn);
/* Free CONN at the end of this round: events of it may still lie in the batch. */
void loop_bury(struct loop *loop, struct conn *conn);
uint64_t clock_us(void);

/* ---- The server ---- */

struct listener {
    enum watch_kind watch; /* first */
    struct http_server *server;
    int fd;
    unsigned port;
    char *unix_path; /* heap; NULL for TCP */
    const struct http_handler *handler;
};

struct http_server {
    struct http_config config; /* defaults filled in */
    unsigned workers;
    struct loop *loops;
    struct listener listeners[MAX_LISTENERS];
    atomic_uint listener_count;
    int spare_fd;             /* of loop 0, to close when the process has no fd left */
    uint64_t accept_again_ms; /* of loop 0: listeners rest until then; 0 = they do not */
    bool drained;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    unsigned drain_acks, cut_acks, cut;
};

/* On loop 0. */
void server_accept(struct listener *listener);
void server_accept_again(struct http_server *server);
/* Take in who has connected already, and close. On loop 0. */
void server_end_listeners(struct http_server *server);
void server_close_listeners(struct http_server *server);
/* A loop has carried out ORDERS; or a draining loop has lost its last connection (0). */
void server_ack(struct http_server *server, unsigned orders, unsigned cut);

#endif
