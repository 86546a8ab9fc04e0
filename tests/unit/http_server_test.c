/* Goal: connections live as RFC 9112 says, whatever the client's pace, and each request ends
 * exactly once, whatever happens to its client. */
#include "tests/unit/http_fixture.h"

#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

#define GET_HELLO "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"

static void a_connection_serves_many_requests(void **state)
{
    int fd = client();

    (void)state;
    for (int i = 0; i < 100; i++)
        expect(fd, GET_HELLO, 200, "hello");
    expect(fd, "GET /nowhere?a=b HTTP/1.1\r\nHost: a\r\n\r\n", 404,
           "{\"error\":{\"code\":\"not_found\",\"message\":\"no \\\"such\\\" path\"}}\n");
    expect(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, "hello");
    assert_true(at_end(fd));
    close(fd);
}

static void answers_bear_what_the_core_writes(void **state)
{
    int fd = client();
    struct answer answer;

    (void)state;
    send_text(fd, "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(read_answer(fd, &answer));
    assert_memory_equal(answer.head, "HTTP/1.1 404 Not Found\r\n", 24);
    assert_memory_equal(header_of(&answer, "X-Extra"), "1\r\n", 3);
    assert_memory_equal(header_of(&answer, "Content-Type"), "application/json\r\n", 18);
    assert_non_null(header_of(&answer, "Date"));
    assert_null(header_of(&answer, "Connection"));
    close(fd);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    enum { ROUNDS = 150 };
    char *all = malloc(ROUNDS * 400), *to = all;
    struct answer answer;
    int fd = client();

    (void)state;
    for (int i = 0; i < ROUNDS; i++)
        to += sprintf(to,
                      GET_HELLO "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%.*s"
                                "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
                      i % 50, i % 50, "12345678901234567890123456789012345678901234567890");
    assert_true(try_send(fd, all, (size_t)(to - all)));
    for (int i = 0; i < ROUNDS; i++) {
        assert_true(read_answer(fd, &answer) && answer.status == 200);
        assert_string_equal(answer.body, "hello");
        assert_true(read_answer(fd, &answer) && answer.status == 200);
        assert_int_equal(atoi(answer.body), i % 50);
        assert_true(read_answer(fd, &answer) && answer.status == 404);
    }
    close(fd);
    free(all);
}

static void what_is_pipelined_behind_a_suspended_request_waits(void **state)
{
    int fd = client();
    struct answer answer;
    struct http_request *parked;

    (void)state;
    send_text(fd, "GET /park HTTP/1.1\r\nHost: a\r\n\r\n" GET_HELLO);
    parked = take_parked();
    send_text(fd, GET_HELLO);
    http_post(parked, answer_parked);
    assert_true(read_answer(fd, &answer));
    assert_string_equal(answer.body, "resumed");
    for (int i = 0; i < 2; i++) {
        assert_true(read_answer(fd, &answer));
        assert_string_equal(answer.body, "hello");
    }
    close(fd);
}

static void head_tells_the_length_without_the_body(void **state)
{
    int fd = client();
    struct answer answer;

    (void)state;
    send_text(fd, "HEAD /big HTTP/1.1\r\nHost: a\r\n\r\nHEAD /memory HTTP/1.1\r\nHost: a\r\n\r\n"
                  "GET /same HTTP/1.1\r\nHost: a\r\n\r\nGET /empty HTTP/1.1\r\nHost: a\r\n\r\n"
                  "HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(read_answer_of(fd, &answer, false));
    assert_int_equal(answer.length, BIG_BYTES);
    assert_true(read_answer_of(fd, &answer, false));
    assert_int_equal(answer.length, MEMORY_BYTES);
    assert_true(read_answer(fd, &answer));
    assert_int_equal(answer.status, 304);
    assert_int_equal(answer.length, MEMORY_BYTES);
    assert_true(read_answer(fd, &answer));
    assert_int_equal(answer.status, 204);
    assert_false(answer.has_length);
    assert_true(read_answer_of(fd, &answer, false));
    assert_int_equal(answer.status, 404);
    assert_true(answer.length > 0);
    expect(fd, GET_HELLO, 200, "hello");
    close(fd);
}

static void a_header_may_come_byte_by_byte(void **state)
{
    const char *text = "\r\nPUT /echo HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nTransfer-Encoding: Chunked"
                       "\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-T: v\r\n\r\n" GET_HELLO;
    struct answer answer;
    int fd = client(), on = 1;
    char wanted[64];

    (void)state;
    snprintf(wanted, sizeof wanted, "13 %llx",
             (unsigned long long)sum_of((const uint8_t *)"abc0123456789", 13, 0));
    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on);
    for (const char *p = text; *p; p++)
        assert_true(try_send(fd, p, 1));
    assert_true(read_answer(fd, &answer));
    assert_string_equal(answer.body, wanted);
    assert_true(read_answer(fd, &answer));
    assert_string_equal(answer.body, "hello");
    close(fd);
}

/* LEN bytes of pattern as a body of /echo or /stop, in one of the two framings. */
static void upload(const char *path, size_t len, bool chunked)
{
    uint8_t *data = malloc(len + 1);
    char text[128];
    struct answer answer;
    int fd = client();

    for (size_t i = 0; i < len; i++)
        data[i] = pattern(i);
    if (chunked)
        snprintf(text, sizeof text,
                 "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", path);
    else
        snprintf(text, sizeof text, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n",
                 path, len);
    send_text(fd, text);
    for (size_t at = 0, n; at < len; at += n) {
        n = chunked ? 1 + at % 30000 : len;
        n = n < len - at ? n : len - at;
        snprintf(text, sizeof text, "%zx\r\n", n);
        if (chunked)
            send_text(fd, text);
        assert_true(try_send(fd, data + at, n));
        if (chunked)
            send_text(fd, "\r\n");
    }
    if (chunked)
        send_text(fd, "0\r\n\r\n");
    assert_true(read_answer(fd, &answer));
    assert_int_equal(answer.status, 200);
    snprintf(text, sizeof text, "%zu %llx", len, (unsigned long long)sum_of(data, len, 0));
    assert_string_equal(answer.body, text);
    expect(fd, GET_HELLO, 200, "hello");
    close(fd);
    free(data);
}

static void bodies_arrive_whole_in_either_framing(void **state)
{
    const size_t lengths[] = {0, 1, 65535, 65536, 262144, 262145, 5000000};

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        upload("/echo", lengths[i], false);
        upload("/echo", lengths[i], true);
        upload("/stop", lengths[i], false);
        upload("/stop", lengths[i], true);
        upload("/late-body", lengths[i], false);
        upload("/late-body", lengths[i], true);
    }
}

static void a_client_that_waits_is_told_to_go_on(void **state)
{
    int fd = client();
    struct answer answer;

    (void)state;
    send_text(fd,
              "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n");
    assert_true(read_head(fd, &answer));
    assert_int_equal(answer.status, 100);
    expect(fd, "abc", 200, NULL);
    /* With the body already here there is no need to. */
    expect(fd,
           "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
           200, NULL);
    send_text(fd, "PUT /late-body HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                  "Expect: 100-continue\r\n\r\n");
    assert_true(read_head(fd, &answer));
    assert_int_equal(answer.status, 100);
    expect(fd, "abc", 200, NULL);
    /* Refused at once: the client need not send it, so the connection ends here. */
    expect(
        fd,
        "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n",
        413, NULL);
    assert_true(at_end(fd));
    close(fd);
}

static void a_body_over_the_limit_is_refused(void **state)
{
    char chunk[70000];
    int fd = client();
    struct answer answer;

    (void)state;
    expect(fd, "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8388609\r\n\r\n", 413, NULL);
    assert_true(at_end(fd));
    close(fd);

    fd = client();
    memset(chunk, 'c', sizeof chunk);
    memcpy(chunk, "10000\r\n", 7);
    memcpy(chunk + 7 + 65536, "\r\n", 2);
    send_text(fd, "PUT /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 129; i++)
        assert_true(try_send(fd, chunk, 7 + 65536 + 2));
    assert_true(read_answer(fd, &answer));
    assert_int_equal(answer.status, 413);
    close(fd);
}

static void each_chunked_body_of_a_connection_is_read(void **state)
{
    static const char *const bodies[] = {"one", "the second", "3"};
    struct answer answer;
    char text[256];
    int fd = client();

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(text, sizeof text,
                       "PUT /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "%zx\r\n%s\r\n0\r\n\r\n",
                       strlen(bodies[i]), bodies[i]);
        send_text(fd, text);
        assert_true(read_answer(fd, &answer));
        assert_int_equal(answer.status, 200);
        assert_int_equal(strtoul(answer.body, NULL, 10), strlen(bodies[i])); /* then its sum */
    }
    close(fd);
    /* A blank line too many is nothing that was begun, also where its halves come one by one. */
    fd = client();
    expect(fd, GET_HELLO, 200, "hello");
    send_text(fd, "\r");
    send_text(fd, "\n");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_true(at_end(fd));
    close(fd);
}

static void an_early_answer_is_seen_by_one_who_still_sends(void **state)
{
    char *body = calloc(1, 4000000);
    int fd = client();
    struct answer answer;

    (void)state;
    /* A small rest is dropped, and the connection goes on. */
    send_text(fd, "PUT /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    assert_true(try_send(fd, body, 200000));
    assert_true(read_answer(fd, &answer));
    assert_int_equal(answer.status, 404);
    send_text(fd, "PUT /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "5\r\n12345\r\n0\r\n\r\n");
    assert_true(read_answer(fd, &answer));
    assert_int_equal(answer.status, 404);
    expect(fd, GET_HELLO, 200, "hello");
    /* With a large one it ends, but not before the answer could be read. */
    send_text(fd, "PUT /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n");
    assert_true(try_send(fd, body, 4000000));
    assert_true(read_answer(fd, &answer));
    assert_int_equal(answer.status, 404);
    assert_non_null(header_of(&answer, "Connection"));
    assert_true(at_end(fd));
    close(fd);

    fd = client();
    send_text(fd, "PUT /early-body HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n");
    assert_true(try_send(fd, body, 4000000));
    assert_true(read_answer(fd, &answer));
    assert_int_equal(answer.status, 403);
    assert_true(at_end(fd));
    close(fd);
    free(body);
}

static void a_half_closed_client_gets_its_answer(void **state)
{
    int fd = client(), other;
    struct answer answer;
    struct http_request *parked;

    (void)state;
    send_text(fd, GET_HELLO);
    shutdown(fd, SHUT_WR);
    assert_true(read_answer(fd, &answer));
    assert_string_equal(answer.body, "hello");
    assert_true(at_end(fd));
    close(fd);

    fd = client();
    send_text(fd, "GET /park HTTP/1.1\r\nHost: a\r\n\r\n");
    parked = take_parked();
    shutdown(fd, SHUT_WR);
    other = client();
    expect(other, GET_HELLO, 200, "hello"); /* something else happens meanwhile */
    close(other);
    http_post(parked, answer_parked);
    assert_true(read_answer(fd, &answer));
    assert_string_equal(answer.body, "resumed");
    assert_true(at_end(fd));
    close(fd);

    fd = client();
    send_text(fd, "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    shutdown(fd, SHUT_WR);
    assert_true(read_answer(fd, &answer));
    assert_int_equal(answer.status, 400);
    assert_non_null(strstr(answer.body, "incomplete_body"));
    close(fd);
}

/* Close with a reset, as a killed client's machine does. */
static void reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(fd);
}

static void wait_for_connections(uint64_t wanted)
{
    time_t until = time(NULL) + WAIT_S;
    struct http_stats stats;

    do {
        assert_true(time(NULL) < until);
        sched_yield();
        http_server_stats(world.server, &stats);
    } while (stats.connections != wanted);
}

static void a_client_that_went_away_ends_its_request_once(void **state)
{
    int fd = client();
    struct http_request *parked;
    unsigned done = atomic_load(&world.done);

    (void)state;
    send_text(fd, "GET /park HTTP/1.1\r\nHost: a\r\n\r\n");
    parked = take_parked();
    reset(fd);
    wait_for_connections(0);
    assert_int_equal(atomic_load(&world.done), done); /* it is the poster's until its post */
    http_post(parked, answer_parked);
    wait_for(&world.done, done + 1);
    assert_int_equal(atomic_load(&world.gone), 1);

    fd = client();
    send_text(fd, "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    wait_for(&world.requests, done + 2);
    reset(fd);
    wait_for(&world.done, done + 2);

    fd = client();
    send_text(fd, "PUT /stop HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    wait_for(&world.requests, done + 3);
    reset(fd);
    wait_for(&world.done, done + 3);

    fd = client();
    send_text(fd, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for(&world.requests, done + 4);
    reset(fd);
    wait_for(&world.done, done + 4);
    assert_int_equal(atomic_load(&world.open_sources), 0);

    fd = client();
    send_text(fd, "GET /big-stops HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for(&world.requests, done + 5);
    reset(fd);
    wait_for(&world.done, done + 5);
    assert_int_equal(atomic_load(&world.open_sources), 0);
}

static void large_answers_reach_slow_readers_unchanged(void **state)
{
    static const struct {
        const char *path;
        uint64_t length;
    } cases[] = {{"/big", BIG_BYTES},
                 {"/big-stops", BIG_BYTES},
                 {"/memory", MEMORY_BYTES},
                 {"/lent", MEMORY_BYTES}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = new_socket(), small = 4096;
        struct answer answer;
        char text[128];

        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        connect_to_server(fd);
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n" GET_HELLO, cases[i].path);
        send_text(fd, text);
        assert_true(read_answer(fd, &answer));
        assert_int_equal(answer.status, 200);
        assert_int_equal(answer.body_bytes, cases[i].length);
        assert_true(answer.is_pattern);
        assert_true(read_answer(fd, &answer));
        assert_string_equal(answer.body, "hello");
        close(fd);
    }
}

static void large_answers_may_be_pipelined(void **state)
{
    static const char *const paths[] = {"/memory",    "/lent",  "/big",
                                        "/long-head", "/hello", "/big-stops"};
    int fd = new_socket(), small = 65536;
    struct answer answer;
    char text[128];

    (void)state;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    connect_to_server(fd);
    for (size_t i = 0; i < 2 * sizeof paths / sizeof *paths; i++) {
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", paths[i / 2]);
        send_text(fd, text);
    }
    for (size_t i = 0; i < 2 * sizeof paths / sizeof *paths; i++) {
        assert_true(read_answer(fd, &answer));
        assert_int_equal(answer.status, 200);
        assert_int_equal(answer.body_bytes, answer.length);
        assert_true(answer.is_pattern || answer.length < 10);
    }
    close(fd);
}

static void a_handler_may_close_after_its_answer(void **state)
{
    int fd = client();
    struct answer answer;

    (void)state;
    send_text(fd, "GET /close HTTP/1.1\r\nHost: a\r\n\r\n" GET_HELLO);
    assert_true(read_answer(fd, &answer));
    assert_string_equal(answer.body, "bye");
    assert_memory_equal(header_of(&answer, "Connection"), "close", 5);
    assert_true(at_end(fd));
    close(fd);
}

static void a_long_header_is_sent_whole(void **state)
{
    int fd = client();
    struct answer answer;

    (void)state;
    for (int i = 0; i < 3; i++) {
        send_text(fd, "GET /long-head HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(read_answer(fd, &answer));
        assert_int_equal(strspn(header_of(&answer, "X-Long"), "h"), 20000 - 10);
        assert_string_equal(answer.body, "x");
    }
    close(fd);
}

static void a_source_that_fails_cuts_the_connection(void **state)
{
    int fd = client();
    struct answer answer;

    (void)state;
    send_text(fd, "GET /big-fails HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(read_answer(fd, &answer));
    assert_true(answer.body_bytes < BIG_BYTES);
    assert_true(answer.is_pattern);
    assert_true(at_end(fd));
    close(fd);
}

static void http_1_0_closes_unless_asked(void **state)
{
    int fd = client();
    struct answer answer;

    (void)state;
    send_text(fd, "GET /hello HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    assert_true(read_answer(fd, &answer));
    assert_memory_equal(header_of(&answer, "Connection"), "keep-alive", 10);
    send_text(fd, "GET /hello HTTP/1.0\r\n\r\n");
    assert_true(read_answer(fd, &answer));
    assert_memory_equal(header_of(&answer, "Connection"), "close", 5);
    assert_true(at_end(fd));
    close(fd);
}

static void targets_may_be_absolute(void **state)
{
    int fd = client();

    (void)state;
    expect(fd, "GET http://user-host:80/hello?x HTTP/1.1\r\nHost: b\r\n\r\n", 200, "hello");
    expect(fd, "GET HTTP://[::1]:80/hello HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200, "hello");
    expect(fd, "GET http://host HTTP/1.1\r\nHost: host\r\n\r\n", 404, NULL);
    close(fd);
}

static void connections_are_spread_evenly(void **state)
{
    int fds[8];

    (void)state;
    for (int i = 0; i < 8; i++) {
        fds[i] = client();
        expect(fds[i], GET_HELLO, 200, "hello");
    }
    assert_int_equal(atomic_load(&world.workers[0]), 4);
    assert_int_equal(atomic_load(&world.workers[1]), 4);
    for (int i = 0; i < 8; i++)
        close(fds[i]);
}

static void statistics_count_what_happened(void **state)
{
    int fd = client();
    struct http_stats stats;
    uint64_t buckets = 0;

    (void)state;
    expect(fd, GET_HELLO, 200, "hello");
    expect(fd, GET_HELLO, 200, "hello");
    expect(fd, "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404, NULL);
    expect(fd, "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200, NULL);
    http_server_stats(world.server, &stats);
    assert_int_equal(stats.accepted, 1);
    assert_int_equal(stats.connections, 1);
    assert_int_equal(stats.requests[2], 3);
    assert_int_equal(stats.requests[4], 1);
    wait_for(&world.done, 4);
    http_server_stats(world.server, &stats);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.operations[0].count, 2);
    assert_int_equal(stats.operations[1].count, 1);
    for (int i = 0; i < HTTP_LATENCY_BUCKETS; i++)
        buckets += stats.operations[0].buckets[i];
    assert_int_equal(buckets, 2);
    assert_true(stats.bytes_in > 100 && stats.bytes_out > 300);
    close(fd);
    wait_for_connections(0);
}

/* ---- With a configuration of its own ---- */

static void too_many_connections_are_told_so(void **state)
{
    struct http_config config = {.workers = 2, .max_connections = 3};
    int fds[3], over;
    struct answer answer;

    (void)state;
    start_server(&config);
    for (int i = 0; i < 3; i++) {
        fds[i] = client();
        expect(fds[i], GET_HELLO, 200, "hello");
    }
    over = client();
    send_text(over, GET_HELLO);
    assert_true(read_answer(over, &answer));
    assert_int_equal(answer.status, 503);
    assert_memory_equal(header_of(&answer, "Retry-After"), "1", 1);
    assert_int_equal(answer.body_bytes, answer.length);
    assert_int_equal(strlen(answer.body), answer.length);
    assert_true(at_end(over));
    close(over);
    close(fds[0]);
    wait_for_connections(2);
    over = client();
    expect(over, GET_HELLO, 200, "hello");
    close(over);
    for (int i = 1; i < 3; i++)
        close(fds[i]);
    stop_server();
}

static void each_phase_has_its_deadline(void **state)
{
    struct http_config config = {.workers = 1,
                                 .header_timeout_ms = 150,
                                 .idle_timeout_ms = 150,
                                 .body_grace_ms = 150,
                                 .write_stall_ms = 150};
    int idle, header, body, stalled, small = 4096;
    struct answer answer;

    (void)state;
    start_server(&config);
    idle = client();
    header = client();
    body = client();
    stalled = new_socket();
    setsockopt(stalled, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    connect_to_server(stalled);
    send_text(header, "GET /hello HTTP/1.1\r\nHo");
    send_text(body, "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    send_text(stalled, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(at_end(idle));
    assert_true(read_answer(header, &answer));
    assert_int_equal(answer.status, 408);
    assert_true(at_end(header));
    assert_true(read_answer(body, &answer));
    assert_int_equal(answer.status, 408);
    assert_true(at_end(body));
    wait_for(&world.done, 2);
    assert_int_equal(atomic_load(&world.open_sources), 0);
    close(idle), close(header), close(body), close(stalled);
    stop_server();
}

static void a_suspended_request_has_no_deadline(void **state)
{
    struct http_config config = {.workers = 1,
                                 .header_timeout_ms = 40,
                                 .idle_timeout_ms = 40,
                                 .body_grace_ms = 40,
                                 .write_stall_ms = 40};
    int fd, idle;
    struct http_request *parked;
    struct answer answer;

    (void)state;
    start_server(&config);
    fd = client();
    send_text(fd, "GET /park HTTP/1.1\r\nHost: a\r\n\r\n");
    parked = take_parked();
    for (int i = 0; i < 4; i++) { /* four idle timeouts pass */
        idle = client();
        assert_true(at_end(idle));
        close(idle);
    }
    http_post(parked, answer_parked);
    assert_true(read_answer(fd, &answer));
    assert_string_equal(answer.body, "resumed");
    close(fd);
    stop_server();
}

#define WATCHED(ms) "GET /watch/" #ms " HTTP/1.1\r\nHost: a\r\n\r\n"

static unsigned woken(enum http_wake why)
{
    return atomic_load(&world.woken[why]);
}

static void who_watches_a_suspended_request_hears_that_its_time_is_up(void **state)
{
    int fd = client();
    struct answer answer;

    (void)state;
    for (int i = 1; i <= 2; i++) {
        send_text(fd, WATCHED(40) GET_HELLO);
        assert_true(read_answer(fd, &answer));
        assert_string_equal(answer.body, "resumed");
        assert_int_equal(woken(HTTP_WAKE_LATE), i);
        assert_true(read_answer(fd, &answer));
        assert_string_equal(answer.body, "hello");
    }
    assert_int_equal(woken(HTTP_WAKE_GONE) + woken(HTTP_WAKE_DRAIN), 0);
    close(fd);
}

static void what_ends_in_time_is_not_watched_any_more(void **state)
{
    int fd = client();
    struct answer answer;

    (void)state;
    send_text(fd, WATCHED(100));
    http_post(take_parked(), answer_parked);
    assert_true(read_answer(fd, &answer));
    /* Until the first one's time has passed for certain. */
    send_text(fd, WATCHED(300));
    assert_true(read_answer(fd, &answer));
    assert_int_equal(woken(HTTP_WAKE_LATE), 1);
    expect(fd, GET_HELLO, 200, "hello");
    close(fd);
    assert_int_equal(woken(HTTP_WAKE_GONE), 0);
}

static void what_waits_once_more_unwatched_is_not_woken(void **state)
{
    int fd = client(), other = client();
    struct http_request *parked;
    struct answer answer;

    (void)state;
    send_text(fd, WATCHED(100));
    parked = take_parked();
    http_post(parked, park);
    parked = take_parked();
    send_text(other, WATCHED(300)); /* until the first one's time has passed */
    assert_true(read_answer(other, &answer));
    assert_int_equal(woken(HTTP_WAKE_LATE), 1);
    http_post(parked, answer_parked);
    assert_true(read_answer(fd, &answer));
    assert_string_equal(answer.body, "resumed");
    close(fd), close(other);
}

static void who_watches_hears_that_the_client_is_gone(void **state)
{
    struct linger now = {.l_onoff = 1};
    int fd = client();

    (void)state;
    send_text(fd, WATCHED(600000));
    (void)take_parked();
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
    wait_for(&world.gone, 1);
    wait_for(&world.done, 1);
    assert_int_equal(woken(HTTP_WAKE_GONE), 1);
    assert_int_equal(woken(HTTP_WAKE_LATE), 0);
}

/* A client that has sent all it will still reads. */
static void half_a_close_ends_no_wait(void **state)
{
    int fd = client();
    struct answer answer;

    (void)state;
    send_text(fd, WATCHED(200));
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_true(read_answer(fd, &answer));
    assert_string_equal(answer.body, "resumed");
    assert_int_equal(woken(HTTP_WAKE_GONE), 0);
    close(fd);
}

static void *drain(void *cut)
{
    *(unsigned *)cut = http_server_drain(world.server, WAIT_S * 1000);
    return NULL;
}

static void draining_lets_the_busy_finish(void **state)
{
    struct http_config config = {.workers = 2};
    int idle[3], busy;
    unsigned cut = 99, port;
    struct http_request *parked;
    struct answer answer;
    pthread_t thread;

    (void)state;
    start_server(&config);
    port = http_server_port(world.server, 0);
    busy = client();
    for (int i = 0; i < 3; i++) { /* so that each loop has an idle one */
        idle[i] = client();
        expect(idle[i], GET_HELLO, 200, "hello");
    }
    send_text(busy, "GET /park HTTP/1.1\r\nHost: a\r\n\r\n");
    parked = take_parked();
    assert_int_equal(pthread_create(&thread, NULL, drain, &cut), 0);
    for (int i = 0; i < 3; i++) {
        assert_true(at_end(idle[i]));
        close(idle[i]);
    }
    http_post(parked, answer_parked);
    assert_true(read_answer(busy, &answer));
    assert_string_equal(answer.body, "resumed");
    assert_memory_equal(header_of(&answer, "Connection"), "close", 5);
    assert_true(at_end(busy));
    close(busy);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(cut, 0);

    /* Nobody listens any more. */
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = new_socket();

    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), -1);
    close(fd);
    stop_server();
}

static void draining_ends_waits(void **state)
{
    struct http_config config = {.workers = 2};
    struct answer answer;
    unsigned cut = 99;
    pthread_t thread;
    int fd;

    (void)state;
    start_server(&config);
    fd = client();
    send_text(fd, WATCHED(600000));
    (void)take_parked();
    assert_int_equal(pthread_create(&thread, NULL, drain, &cut), 0);
    assert_true(read_answer(fd, &answer));
    assert_string_equal(answer.body, "resumed");
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(cut, 0);
    assert_int_equal(woken(HTTP_WAKE_DRAIN), 1);
    close(fd);
    stop_server();
}

static void draining_cuts_who_does_not_finish(void **state)
{
    struct http_config config = {.workers = 2};
    int parked_fd, reader;
    struct http_request *parked;

    (void)state;
    start_server(&config);
    parked_fd = client();
    send_text(parked_fd, "GET /park HTTP/1.1\r\nHost: a\r\n\r\n");
    parked = take_parked();
    reader = client();
    send_text(reader, "GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for(&world.requests, 2);
    assert_int_equal(http_server_drain(world.server, 50), 2);
    assert_true(at_end(parked_fd));
    http_post(parked, answer_parked);
    close(parked_fd), close(reader);
    stop_server();
    assert_int_equal(atomic_load(&world.gone), 1);
}

static int connect_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct timeval wait = {.tv_sec = WAIT_S};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(addr.sun_path, path, sizeof addr.sun_path - 1);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

static void unix_sockets_and_bad_addresses(void **state)
{
    struct http_config config = {.workers = 1};
    char directory[] = "/tmp/http_server_test.XXXXXX", address[64], taken[32];
    const char *path = address + 5;
    const char *const malformed[] = {
        "",       "80",      "127.0.0.1:", "127.0.0.1:x",           "1.2.3.4:99999",
        "::1:80", "[::1:80", "unix:",      "no.such.host.invalid:0"};
    struct stat status;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(address, sizeof address, "unix:%s/socket", directory);
    start_server(&config);
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
        assert_int_equal(http_server_listen(world.server, malformed[i], &world.handler),
                         ERR_INVALID);
    snprintf(taken, sizeof taken, "127.0.0.1:%u", http_server_port(world.server, 0));
    assert_int_equal(http_server_listen(world.server, taken, &world.handler), ERR_IN_USE);
    assert_int_equal(http_server_listen(world.server, ":0", &world.handler), 0);
    assert_true(http_server_port(world.server, 1) > 0);

    /* A dead socket file is replaced, a live one is not, and neither is anything else. */
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(addr.sun_path, path, sizeof addr.sun_path - 1);
    assert_int_equal(bind(dead, (struct sockaddr *)&addr, sizeof addr), 0);
    close(dead);
    assert_int_equal(http_server_listen(world.server, address, &world.handler), 0);
    assert_int_equal(http_server_listen(world.server, address, &world.handler), ERR_IN_USE);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    fd = connect_unix(path);
    expect(fd, "GET /loopback HTTP/1.1\r\nHost: a\r\n\r\n", 200, "yes");
    expect(fd, "GET /loopback HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, "yes");
    close(fd);
    fd = client();
    expect(fd, "GET /loopback HTTP/1.1\r\nHost: a\r\n\r\n", 200, "yes");
    close(fd);
    stop_server();
    assert_int_equal(stat(path, &status), -1);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    start_server(&config);
    assert_int_equal(http_server_listen(world.server, address, &world.handler), ERR_IN_USE);
    stop_server();
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);
}

static void running_out_of_files_does_not_stop_the_server(void **state)
{
    struct http_config config = {.workers = 1};
    struct rlimit before, tight;
    int fds[4], last;

    (void)state;
    start_server(&config);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (int i = 0; i < 4; i++)
        fds[i] = new_socket();
    last = dup(0);
    close(last); /* the lowest free one, and so the limit */
    tight = before;
    tight.rlim_cur = (rlim_t)last;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    for (int i = 0; i < 4; i++) {
        struct answer answer;

        connect_to_server(fds[i]);
        assert_true(read_answer(fds[i], &answer));
        assert_int_equal(answer.status, 503);
        assert_true(at_end(fds[i]));
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    fds[0] = client();
    expect(fds[0], GET_HELLO, 200, "hello");
    close(fds[0]);
    stop_server();
}

static void an_idle_connection_costs_little(void **state)
{
    enum { COUNT = 200 };
    struct http_config config = {.workers = 1};
    struct mallinfo2 before, after;
    int fds[COUNT];

    (void)state;
    start_server(&config);
    fds[0] = client();
    expect(fds[0], GET_HELLO, 200, "hello");
    before = mallinfo2();
    for (int i = 1; i < COUNT; i++) {
        fds[i] = client();
        expect(fds[i], GET_HELLO, 200, "hello");
        expect(fds[i], "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200, NULL);
    }
    wait_for(&world.done, 2 * COUNT - 1);
    after = mallinfo2();
    if (!before.uordblks)
        print_message("SKIPPED: this allocator does not say what is in use\n");
    else
        assert_true(after.uordblks - before.uordblks < (size_t)COUNT * 1024);
    for (int i = 0; i < COUNT; i++)
        close(fds[i]);
    stop_server();
}

static void the_access_log_has_a_line_for_each_request(void **state)
{
    struct http_config config = {.workers = 1, .access_log = true};
    FILE *file = tmpfile();
    int before = dup(STDERR_FILENO), fd;
    char text[2000];
    size_t len;

    (void)state;
    assert_non_null(file);
    start_server(&config);
    log_configure(LOG_INFO, LOG_TEXT);
    fd = client();
    dup2(fileno(file), STDERR_FILENO);
    expect(fd, GET_HELLO, 200, "hello");
    expect(fd, "DELETE /a%0ab?secret HTTP/1.1\r\nHost: a\r\n\r\n", 404, NULL);
    expect(fd, "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, NULL);
    close(fd);
    stop_server();
    dup2(before, STDERR_FILENO);
    close(before);
    rewind(file);
    len = fread(text, 1, sizeof text - 1, file);
    text[len] = 0;
    fclose(file);
    assert_non_null(strstr(text, "access GET /hello 200 5 "));
    assert_non_null(strstr(text, "access DELETE /a%0ab 404 "));
    assert_non_null(strstr(text, "access GET - 400 "));
    assert_null(strstr(text, "secret"));
}

static void *pipeline_of_posts(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++)
        upload("/stop", 1000 + (size_t)i, i % 2);
    return NULL;
}

static void many_clients_at_once(void **state)
{
    enum { CLIENTS = 8 };
    pthread_t threads[CLIENTS];

    (void)state;
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pipeline_of_posts, NULL), 0);
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

#define WITH_DEFAULT(test) cmocka_unit_test_setup_teardown(test, start_default, stop_default)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DEFAULT(a_connection_serves_many_requests),
        WITH_DEFAULT(answers_bear_what_the_core_writes),
        WITH_DEFAULT(pipelined_requests_are_answered_in_order),
        WITH_DEFAULT(what_is_pipelined_behind_a_suspended_request_waits),
        WITH_DEFAULT(who_watches_a_suspended_request_hears_that_its_time_is_up),
        WITH_DEFAULT(what_ends_in_time_is_not_watched_any_more),
        WITH_DEFAULT(what_waits_once_more_unwatched_is_not_woken),
        WITH_DEFAULT(who_watches_hears_that_the_client_is_gone),
        WITH_DEFAULT(half_a_close_ends_no_wait),
        WITH_DEFAULT(head_tells_the_length_without_the_body),
        WITH_DEFAULT(a_header_may_come_byte_by_byte),
        WITH_DEFAULT(bodies_arrive_whole_in_either_framing),
        WITH_DEFAULT(a_client_that_waits_is_told_to_go_on),
        WITH_DEFAULT(a_body_over_the_limit_is_refused),
        WITH_DEFAULT(each_chunked_body_of_a_connection_is_read),
        WITH_DEFAULT(an_early_answer_is_seen_by_one_who_still_sends),
        WITH_DEFAULT(a_half_closed_client_gets_its_answer),
        WITH_DEFAULT(a_client_that_went_away_ends_its_request_once),
        WITH_DEFAULT(large_answers_reach_slow_readers_unchanged),
        WITH_DEFAULT(large_answers_may_be_pipelined),
        WITH_DEFAULT(a_handler_may_close_after_its_answer),
        WITH_DEFAULT(a_long_header_is_sent_whole),
        WITH_DEFAULT(a_source_that_fails_cuts_the_connection),
        WITH_DEFAULT(http_1_0_closes_unless_asked),
        WITH_DEFAULT(targets_may_be_absolute),
        WITH_DEFAULT(connections_are_spread_evenly),
        WITH_DEFAULT(statistics_count_what_happened),
        WITH_DEFAULT(many_clients_at_once),
        cmocka_unit_test(too_many_connections_are_told_so),
        cmocka_unit_test(each_phase_has_its_deadline),
        cmocka_unit_test(a_suspended_request_has_no_deadline),
        cmocka_unit_test(draining_ends_waits),
        cmocka_unit_test(draining_lets_the_busy_finish),
        cmocka_unit_test(draining_cuts_who_does_not_finish),
        cmocka_unit_test(unix_sockets_and_bad_addresses),
        cmocka_unit_test(running_out_of_files_does_not_stop_the_server),
        cmocka_unit_test(an_idle_connection_costs_little),
        cmocka_unit_test(the_access_log_has_a_line_for_each_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
