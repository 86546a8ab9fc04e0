/*
 * For the tests of the HTTP core: a server with a small handler whose paths behave in certain ways,
 * and a client that reads answers from a real socket. Every wait has a deadline of ten seconds.
 */
#ifndef TESTS_UNIT_HTTP_FIXTURE_H
#define TESTS_UNIT_HTTP_FIXTURE_H

#include "api/http/http.h"
#include "base/limits.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define UNUSED       __attribute__((unused))
#define WAIT_S       10
#define BIG_BYTES    (24 * MIB + 12345)
#define MEMORY_BYTES (3 * MIB + 77)

/* ---- The handler ---- */

/* What the handler keeps for a request. */
struct job {
    struct http_source source; /* first */
    uint64_t received, sum;
    unsigned stops; /* how often its source or its body has suspended */
    bool early, stop_body;
    bool closed;
};

static struct {
    struct http_server *server;
    struct http_handler handler;
    char *memory; /* MEMORY_BYTES of pattern */
    atomic_uint requests, done, open_sources, gone;
    _Atomic(struct http_request *) parked;
    atomic_uint workers[8];
    atomic_uint woken[HTTP_WAKE_DRAIN + 1]; /* watched requests, by why */
} world;

/* Byte number AT of every large body. */
static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(at * 7 + (at >> 9) + (at >> 17) * 3);
}

static uint64_t sum_of(const uint8_t *data, size_t len, uint64_t sum)
{
    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + data[i];
    return sum;
}

static void answer_text(struct http_request *request, unsigned status, const char *text)
{
    struct http_answer answer = {.status = status,
                                 .head = "Content-Type: text/plain\r\n",
                                 .head_len = 26,
                                 .body = text,
                                 .length = strlen(text)};

    http_answer(request, &answer);
}

static void go_on_with_source(struct http_request *request)
{
    http_source_ready(request);
}

static void *post_source(void *request)
{
    http_post(request, go_on_with_source);
    return NULL;
}

static void in_a_thread(void *(*run)(void *), void *arg)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, run, arg), 0);
    pthread_detach(thread);
}

static int source_read(struct http_source *source, struct http_request *request, uint64_t offset,
                       uint8_t *scratch, size_t cap, const uint8_t **data, size_t *len)
{
    struct job *job = (struct job *)source;

    /* Each megabyte waits once for another thread. */
    if (job->stop_body && offset >> 20 >= job->stops) {
        job->stops++;
        http_suspend(request);
        in_a_thread(post_source, request);
        return ERR_AGAIN;
    }
    if (job->early && offset > MIB)
        return ERR_CORRUPT;
    for (size_t i = 0; i < cap; i++)
        scratch[i] = pattern(offset + i);
    *data = scratch;
    *len = cap;
    return 0;
}

static void source_close(struct http_source *source)
{
    struct job *job = (struct job *)source;

    assert_false(job->closed);
    job->closed = true;
    atomic_fetch_sub(&world.open_sources, 1);
}

UNUSED static void answer_parked(struct http_request *request)
{
    if (http_gone(request))
        atomic_fetch_add(&world.gone, 1);
    answer_text(request, 200, http_gone(request) ? "gone" : "resumed");
}

static void park(struct http_request *request)
{
    http_suspend(request);
    atomic_store(&world.parked, request);
}

/* Whoever has the request may end it elsewhere at the same time: here the wake does. */
static void on_wake(struct http_request *request, enum http_wake why)
{
    atomic_fetch_add(&world.woken[why], 1);
    http_post(request, answer_parked);
}

/* As park; PATH ends in the milliseconds that it waits at most. */
static void park_watched(struct http_request *request)
{
    struct slice path = http_request_path(request);

    http_suspend_watched(request, strtoul(path.ptr + strlen("/watch/"), NULL, 10), on_wake);
    atomic_store(&world.parked, request);
}

static void read_parked_body(struct http_request *request)
{
    http_read_body(request, 8 * MIB);
}

static void *post_read_body(void *request)
{
    http_post(request, read_parked_body);
    return NULL;
}

static bool path_is(const struct http_request *request, const char *path)
{
    struct slice slice = http_request_path(request);

    return slice.len == strlen(path) && !memcmp(slice.ptr, path, slice.len);
}

static void answer_source(struct http_request *request, struct job *job)
{
    struct http_answer answer = {.status = 200, .source = &job->source, .length = BIG_BYTES};

    job->source.read = source_read;
    job->source.close = source_close;
    atomic_fetch_add(&world.open_sources, 1);
    http_answer(request, &answer);
}

static void answer_long_head(struct http_request *request)
{
    static char head[20000];
    struct http_answer answer = {.status = 200, .head = head, .body = "x", .length = 1};

    memset(head, 'h', sizeof head);
    memcpy(head, "X-Long: ", 8);
    memcpy(head + sizeof head - 2, "\r\n", 2);
    answer.head_len = sizeof head;
    http_answer(request, &answer);
}

static void on_request(void *arg, struct http_request *request)
{
    struct job *job = calloc(1, sizeof *job);
    struct http_answer memory = {.status = 200, .body = world.memory, .length = MEMORY_BYTES};

    (void)arg;
    assert_non_null(job);
    http_request_set_data(request, job);
    atomic_fetch_add(&world.requests, 1);
    atomic_fetch_add(&world.workers[http_request_worker(request)], 1);
    if (path_is(request, "/hello")) {
        http_set_operation(request, 0);
        answer_text(request, 200, "hello");
    } else if (path_is(request, "/echo") || path_is(request, "/stop")) {
        http_set_operation(request, 1);
        job->stop_body = path_is(request, "/stop");
        http_read_body(request, 8 * MIB);
    } else if (path_is(request, "/late-body")) {
        http_suspend(request);
        in_a_thread(post_read_body, request);
    } else if (path_is(request, "/close")) {
        http_close_after(request);
        answer_text(request, 200, "bye");
    } else if (path_is(request, "/early-body")) {
        job->early = true;
        http_read_body(request, UINT64_MAX);
    } else if (path_is(request, "/park")) {
        park(request);
    } else if (http_request_path(request).len > 7 &&
               !memcmp(http_request_path(request).ptr, "/watch/", 7)) {
        park_watched(request);
    } else if (path_is(request, "/big") || path_is(request, "/big-stops") ||
               path_is(request, "/big-fails")) {
        job->stop_body = path_is(request, "/big-stops");
        job->early = path_is(request, "/big-fails");
        answer_source(request, job);
    } else if (path_is(request, "/memory") || path_is(request, "/lent")) {
        memory.lent = path_is(request, "/lent");
        http_answer(request, &memory);
    } else if (path_is(request, "/long-head")) {
        answer_long_head(request);
    } else if (path_is(request, "/empty")) {
        memory.status = 204;
        memory.length = 0;
        http_answer(request, &memory);
    } else if (path_is(request, "/same")) {
        memory.status = 304;
        http_answer(request, &memory);
    } else if (path_is(request, "/loopback")) {
        answer_text(request, 200, http_request_from_loopback(request) ? "yes" : "no");
    } else {
        http_answer_error(request, 404, "not_found", "no \"such\" path", "X-Extra: 1\r\n");
    }
}

static void go_on_with_body(struct http_request *request)
{
    (void)request; /* the core delivers what comes next */
}

static void *post_body(void *request)
{
    http_post(request, go_on_with_body);
    return NULL;
}

static void on_body(void *arg, struct http_request *request, const uint8_t *data, size_t len)
{
    struct job *job = http_request_data(request);

    (void)arg;
    assert_true(len > 0);
    job->received += len;
    job->sum = sum_of(data, len, job->sum);
    if (job->early && job->received > 100000) {
        answer_text(request, 403, "stop it");
    } else if (job->stop_body && job->received >> 18 >= job->stops) {
        job->stops++;
        http_suspend(request);
        in_a_thread(post_body, request);
    }
}

static void answer_echo(struct http_request *request)
{
    struct job *job = http_request_data(request);
    char text[64];

    snprintf(text, sizeof text, "%llu %llx", (unsigned long long)job->received,
             (unsigned long long)job->sum);
    answer_text(request, 200, text);
}

static void *post_echo(void *request)
{
    http_post(request, answer_echo);
    return NULL;
}

static void on_body_end(void *arg, struct http_request *request)
{
    struct job *job = http_request_data(request);

    (void)arg;
    if (job->stop_body) {
        http_suspend(request);
        in_a_thread(post_echo, request);
        return;
    }
    answer_echo(request);
}

static void on_done(void *arg, struct http_request *request)
{
    (void)arg;
    free(http_request_data(request));
    atomic_fetch_add(&world.done, 1);
}

static void start_server(const struct http_config *config)
{
    memset(&world, 0, sizeof world);
    world.memory = malloc(MEMORY_BYTES);
    assert_non_null(world.memory);
    for (size_t i = 0; i < MEMORY_BYTES; i++)
        world.memory[i] = (char)pattern(i);
    world.handler = (struct http_handler){.on_request = on_request,
                                          .on_body = on_body,
                                          .on_body_end = on_body_end,
                                          .on_done = on_done};
    log_configure(LOG_ERROR, LOG_TEXT);
    assert_int_equal(http_server_create(&world.server, config), 0);
    assert_int_equal(http_server_listen(world.server, "127.0.0.1:0", &world.handler), 0);
}

/* Ends the server; nothing may be left over of any request. */
static void stop_server(void)
{
    http_server_destroy(&world.server);
    assert_int_equal(atomic_load(&world.requests), atomic_load(&world.done));
    assert_int_equal(atomic_load(&world.open_sources), 0);
    free(world.memory);
}

UNUSED static int start_default(void **state)
{
    static const char *const operations[] = {"hello", "echo"};
    struct http_config config = {.workers = 2, .operations = operations, .operation_count = 2};

    (void)state;
    start_server(&config);
    return 0;
}

UNUSED static int stop_default(void **state)
{
    (void)state;
    stop_server();
    return 0;
}

/* ---- The client ---- */

static int new_socket(void)
{
    struct timeval wait = {.tv_sec = WAIT_S};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait), 0);
    return fd;
}

static void connect_to_server(int fd)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)http_server_port(world.server, 0)),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
}

static int client(void)
{
    int fd = new_socket();

    connect_to_server(fd);
    return fd;
}

/* False where the other side has closed. */
static bool try_send(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n < 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static void send_text(int fd, const char *text)
{
    assert_true(try_send(fd, text, strlen(text)));
}

struct answer {
    unsigned status;
    uint64_t length; /* as announced */
    bool has_length;
    char head[24 * 1024];
    char body[512];      /* its beginning */
    uint64_t body_bytes; /* that came */
    bool is_pattern;     /* and were what pattern() says */
};

/* A line's value of the header, in ANSWER->head; NULL where there is none. */
UNUSED static const char *header_of(const struct answer *answer, const char *name)
{
    const char *at = answer->head;

    while ((at = strstr(at, "\r\n"))) {
        at += 2;
        if (!strncasecmp(at, name, strlen(name)) && at[strlen(name)] == ':')
            return at + strlen(name) + 2;
    }
    return NULL;
}

/* Read the header, and nothing behind it. False at the end of the stream. */
static bool read_head(int fd, struct answer *answer)
{
    size_t len = 0;
    const char *at;

    memset(answer, 0, sizeof *answer);
    while (len < 4 || memcmp(answer->head + len - 4, "\r\n\r\n", 4)) {
        ssize_t n = recv(fd, answer->head + len, 1, 0);

        if (n <= 0)
            return false;
        len++;
        assert_true(len < sizeof answer->head - 1);
    }
    assert_memory_equal(answer->head, "HTTP/1.1 ", 9);
    answer->status = (unsigned)atoi(answer->head + 9);
    at = header_of(answer, "content-length");
    answer->has_length = at != NULL;
    answer->length = at ? strtoull(at, NULL, 10) : 0;
    return true;
}

/* Read an answer to its end, or the connection's. HAS_BODY: not to HEAD. */
static bool read_answer_of(int fd, struct answer *answer, bool has_body)
{
    static __thread uint8_t block[65536];

    if (!read_head(fd, answer))
        return false;
    answer->is_pattern = true;
    while (has_body && answer->status != 304 && answer->body_bytes < answer->length) {
        uint64_t left = answer->length - answer->body_bytes;
        ssize_t n = recv(fd, block, left < sizeof block ? left : sizeof block, 0);

        if (n <= 0)
            break;
        for (ssize_t i = 0; i < n; i++) {
            uint64_t at = answer->body_bytes + (uint64_t)i;

            answer->is_pattern &= block[i] == pattern(at);
            if (at < sizeof answer->body - 1)
                answer->body[at] = (char)block[i];
        }
        answer->body_bytes += (uint64_t)n;
    }
    return true;
}

UNUSED static bool read_answer(int fd, struct answer *answer)
{
    return read_answer_of(fd, answer, true);
}

/* The other side has closed, or reset: nothing more comes. */
UNUSED static bool at_end(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, 0);

    return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* Send TEXT, and expect STATUS with a body that begins with BODY (NULL: any). */
UNUSED static void expect(int fd, const char *text, unsigned status, const char *body)
{
    struct answer answer;

    send_text(fd, text);
    assert_true(read_answer(fd, &answer));
    assert_int_equal(answer.status, status);
    if (body)
        assert_string_equal(answer.body, body);
}

/* Wait until COUNTER has got to WANTED. */
UNUSED static void wait_for(atomic_uint *counter, unsigned wanted)
{
    time_t until = time(NULL) + WAIT_S;

    while (atomic_load(counter) < wanted) {
        assert_true(time(NULL) < until);
        sched_yield();
    }
}

/* The request that was parked by the last GET /park. */
UNUSED static struct http_request *take_parked(void)
{
    time_t until = time(NULL) + WAIT_S;
    struct http_request *request;

    while (!(request = atomic_exchange(&world.parked, NULL))) {
        assert_true(time(NULL) < until);
        sched_yield();
    }
    return request;
}

#endif
