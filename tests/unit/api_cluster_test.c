/* Goal: a client may ask any node: what was put on one is read from another, over real sockets
 * between real nodes, and the answers tell the truth when the one that has it is away. */
#include "api_fixture.h"

#include <sched.h>
#include <time.h>

#define NODES 3
#define LARGE (16 * MIB + 12345)

static struct node *nodes[NODES];

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++) {
        nodes[i] = node_prepare(0, env_system());
        nodes[i]->joins = true;
        if (i > 0)
            (void)snprintf(nodes[i]->seed, sizeof nodes[i]->seed, "%s", nodes[0]->address);
        node_start(nodes[i]);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        node_destroy(nodes[i]);
    return 0;
}

static uint8_t *make_body(size_t size, unsigned seed)
{
    uint8_t *body = malloc(size + 1);

    assert_non_null(body);
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(seed * 131 + i * 7 + (i >> 8) + (i >> 16) * 3);
    return body;
}

static void put(struct node *node, const void *body, size_t len, char path[64])
{
    struct reply reply;

    request(node, &reply, "PUT", "/api/v1/put", NULL, body, len);
    if (reply.status != 200)
        fail_msg("%u %s", reply.status, reply.body);
    (void)snprintf(path, 64, "/api/v1/get/%.26s", value_of(&reply, "X-Meta-Id"));
    reply_free(&reply);
}

/* Ask until NODE answers a HEAD of PATH so. */
static void await(struct node *node, const char *path, unsigned status)
{
    time_t until = time(NULL) + WAIT_S;
    unsigned got = 0;

    while (got != status) {
        struct reply reply;

        request(node, &reply, "HEAD", path, NULL, NULL, 0);
        got = reply.status;
        reply_free(&reply);
        if (time(NULL) > until)
            fail_msg("%s: still %u, not %u", path, got, status);
        (void)sched_yield();
    }
}

static void expect_get(struct node *node, const char *path, const char *head, unsigned status,
                       const uint8_t *body, size_t len, bool far)
{
    struct reply reply;

    request(node, &reply, "GET", path, head, NULL, 0);
    if (reply.status != status)
        fail_msg("%u %s", reply.status, reply.body);
    assert_true(reply.complete);
    assert_int_equal(reply.len, len);
    assert_memory_equal(reply.body, body, len);
    assert_int_equal(value_of(&reply, "X-Meta-Symlink") != NULL, far);
    reply_free(&reply);
}

static void every_node_answers_for_every_object(void **state)
{
    static const size_t sizes[] = {1, 1000, 200000, 256 * KIB, 256 * KIB + 1, 1000000, LARGE};

    (void)state;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *body = make_body(sizes[i], i);
        size_t from = sizes[i] / 3, to = sizes[i] - sizes[i] / 5;
        char path[64], head[96];

        put(nodes[i % NODES], body, sizes[i], path);
        (void)snprintf(head, sizeof head, "Range: bytes=%zu-%zu\r\n", from, to - 1);
        for (unsigned k = 0; k < NODES; k++) {
            await(nodes[k], path, 200);
            bool far = k != i % NODES;
            expect_get(nodes[k], path, NULL, 200, body, sizes[i], far);
            if (from < to)
                expect_get(nodes[k], path, head, 206, body + from, to - from, far);
        }
        free(body);
    }
}

static void a_small_body_is_asked_for_once(void **state)
{
    uint8_t *body = make_body(50000, 3);
    char path[64];

    (void)state;
    put(nodes[0], body, 50000, path);
    await(nodes[1], path, 200);
    expect_get(nodes[1], path, NULL, 200, body, 50000, true);
    node_stop(nodes[0]);
    for (int i = 0; i < 20; i++)
        expect_get(nodes[1], path, NULL, 200, body, 50000, true);
    node_start(nodes[0]);
    free(body);
}

static void what_is_away_is_said_to_be_and_comes_back(void **state)
{
    uint8_t *body = make_body(1000000, 4);
    struct reply reply;
    char path[64];

    (void)state;
    put(nodes[0], body, 1000000, path);
    await(nodes[1], path, 200);
    node_stop(nodes[0]);
    request(nodes[1], &reply, "GET", path, NULL, NULL, 0);
    assert_int_equal(reply.status, 503);
    assert_non_null(strstr(reply.body, "no_holder"));
    assert_non_null(value_of(&reply, "Retry-After"));
    reply_free(&reply);
    request(nodes[1], &reply, "HEAD", path, NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    node_start(nodes[0]);
    time_t until = time(NULL) + WAIT_S;
    bool there = false;
    while (!there) {
        request(nodes[1], &reply, "GET", path, NULL, NULL, 0);
        there = reply.status == 200;
        if (there)
            assert_memory_equal(reply.body, body, 1000000);
        reply_free(&reply);
        assert_true(time(NULL) <= until);
    }
    free(body);
}

static void a_node_that_stops_ends_what_its_clients_wait_for(void **state)
{
    static const char head[] = " HTTP/1.1\r\nHost: t\r\n\r\n";
    uint8_t *body = make_body(LARGE, 5);
    char path[64], some[1000];

    (void)state;
    put(nodes[0], body, LARGE, path);
    await(nodes[1], path, 200);
    /* A client that does not read on: the body waits for it when the node is told to stop. */
    int fd = dial(nodes[1]);
    send_all(fd, "GET ", 4);
    send_all(fd, path, strlen(path));
    send_all(fd, head, sizeof head - 1);
    assert_true(recv(fd, some, sizeof some, 0) > 0);
    nodes[1]->drain_ms = 100;
    node_stop(nodes[1]);
    node_start(nodes[1]);
    (void)close(fd);
    expect_get(nodes[1], path, NULL, 200, body, LARGE, true);
    free(body);
}

#define NODES_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        NODES_TEST(every_node_answers_for_every_object),
        NODES_TEST(a_small_body_is_asked_for_once),
        NODES_TEST(what_is_away_is_said_to_be_and_comes_back),
        NODES_TEST(a_node_that_stops_ends_what_its_clients_wait_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
