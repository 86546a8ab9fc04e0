/* Goal: a node whose wall clock is far off those of the others takes no changes from clients, for
 * as long as that lasts and no longer; it reads, and hears of what others do, all the same. */
#include "api_fixture.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#define NODES   3
#define HOUR_MS (3600 * 1000)

static struct node *nodes[NODES];

/* The system's clocks, but the wall's is shifted. */
static struct {
    struct env env;
    _Atomic int64_t ahead_ms;
} shifted;

static uint64_t shifted_wall_ns(struct env *env)
{
    int64_t ahead_ms = atomic_load(&shifted.ahead_ms);

    (void)env;
    return env_system()->wall_ns(env_system()) + (uint64_t)(ahead_ms * 1000000);
}

static void await_stats(struct node *node, const char *text)
{
    time_t until = time(NULL) + WAIT_S;
    bool found = false;

    while (!found) {
        struct reply reply;

        request(node, &reply, "GET", "/api/v1/stats", NULL, NULL, 0);
        found = strstr(reply.body, text);
        if (time(NULL) > until)
            fail_msg("no %s in %s", text, reply.body);
        reply_free(&reply);
        (void)sched_yield();
    }
}

static int setup(void **state)
{
    (void)state;
    shifted.env = *env_system();
    shifted.env.wall_ns = shifted_wall_ns;
    atomic_store(&shifted.ahead_ms, 0);
    for (int i = 0; i < NODES; i++) {
        nodes[i] = node_prepare(0, i == 0 ? &shifted.env : env_system());
        nodes[i]->joins = true;
        if (i > 0)
            (void)snprintf(nodes[i]->seed, sizeof nodes[i]->seed, "%s", nodes[0]->address);
        node_start(nodes[i]);
    }
    for (int i = 0; i < NODES; i++)
        await_stats(nodes[i], "\"joined\":3,\"alive\":3");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        node_destroy(nodes[i]);
    return 0;
}

/* What NODE answers; its id, where there is one, into ID. */
static unsigned ask(struct node *node, const char *method, const char *path, const char *head,
                    const char *code, char id[27])
{
    struct reply reply;
    bool sends = strcmp(method, "GET") != 0;

    request(node, &reply, method, path, head, sends ? "body" : NULL, sends ? 4 : 0);
    unsigned status = reply.status;
    if (code && !strstr(reply.body, code))
        fail_msg("%s %s: %u %s", method, path, status, reply.body);
    if (status == 503)
        assert_non_null(value_of(&reply, "Retry-After"));
    const char *got = value_of(&reply, "X-Meta-Id");
    if (id && got)
        (void)snprintf(id, 27, "%s", got);
    reply_free(&reply);
    return status;
}

static void await(struct node *node, const char *method, const char *path, const char *head,
                  unsigned status)
{
    time_t until = time(NULL) + WAIT_S;
    unsigned got;

    while ((got = ask(node, method, path, head, NULL, NULL)) != status) {
        if (time(NULL) > until)
            fail_msg("%s %s: still %u, not %u", method, path, got, status);
        (void)sched_yield();
    }
}

static void expect_figures(struct node *node, bool skewed)
{
    struct reply reply;

    request(node, &reply, "GET", "/api/v1/stats", NULL, NULL, 0);
    if (!strstr(reply.body, skewed ? "\"clock_skew\":true" : "\"clock_skew\":false"))
        fail_msg("%s", reply.body);
    reply_free(&reply);
}

/* A put that needs all three nodes. */
#define ALL "X-Meta-ConsistencyLevel: 2\r\nX-Meta-Ack: all\r\n"

static void shift(int64_t ahead_ms)
{
    struct node *wrong = nodes[0], *right = nodes[1];
    char old[27], fresh[27], path[64], meta[64], gone[64];

    assert_int_equal(ask(wrong, "PUT", "/api/v1/put", ALL, "sha256", old), 200);
    (void)snprintf(path, sizeof path, "/api/v1/get/%s", old);
    (void)snprintf(meta, sizeof meta, "/api/v1/meta/%s", old);
    (void)snprintf(gone, sizeof gone, "/api/v1/delete/%s", old);

    atomic_store(&shifted.ahead_ms, ahead_ms);
    await(wrong, "PUT", "/api/v1/put", NULL, 503);
    assert_int_equal(ask(wrong, "PUT", "/api/v1/put", NULL, "clock_skew", NULL), 503);
    assert_int_equal(ask(wrong, "POST", meta, "X-Meta-Name: x\r\n", "clock_skew", NULL), 503);
    assert_int_equal(ask(wrong, "POST", gone, NULL, "clock_skew", NULL), 503);
    expect_figures(wrong, true);
    /* It still reads, and takes part: the others' puts and their copies come. */
    assert_int_equal(ask(wrong, "GET", path, NULL, NULL, NULL), 200);
    assert_int_equal(ask(right, "PUT", "/api/v1/put", ALL, "sha256", fresh), 200);
    (void)snprintf(path, sizeof path, "/api/v1/get/%s", fresh);
    assert_int_equal(ask(wrong, "GET", path, NULL, "body", NULL), 200);
    /* The others, whose median theirs is, go on. */
    expect_figures(right, false);
    assert_int_equal(ask(nodes[2], "POST", meta, "X-Meta-Name: x\r\n", NULL, NULL), 200);

    atomic_store(&shifted.ahead_ms, 0);
    await(wrong, "PUT", "/api/v1/put", NULL, 200);
    expect_figures(wrong, false);
}

static void a_clock_ahead_takes_no_changes(void **state)
{
    (void)state;
    shift(HOUR_MS);
}

static void nor_does_one_behind(void **state)
{
    (void)state;
    shift(-HOUR_MS);
}

static void a_minute_is_within_bounds(void **state)
{
    (void)state;
    assert_int_equal(ask(nodes[0], "PUT", "/api/v1/put", ALL, "sha256", NULL), 200);
    atomic_store(&shifted.ahead_ms, 55000);
    /* Until it has been measured, and some. */
    time_t until = time(NULL) + 4;
    while (time(NULL) < until)
        assert_int_equal(ask(nodes[0], "PUT", "/api/v1/put", ALL, "sha256", NULL), 200);
    expect_figures(nodes[0], false);
}

static void of_two_nobody_can_tell(void **state)
{
    (void)state;
    assert_int_equal(ask(nodes[0], "PUT", "/api/v1/put", ALL, "sha256", NULL), 200);
    atomic_store(&shifted.ahead_ms, HOUR_MS);
    await(nodes[0], "PUT", "/api/v1/put", NULL, 503);
    node_stop(nodes[2]);
    await(nodes[0], "PUT", "/api/v1/put", NULL, 200);
    expect_figures(nodes[0], false);
    node_start(nodes[2]);
    await(nodes[0], "PUT", "/api/v1/put", NULL, 503);
}

#define NODES_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        NODES_TEST(a_clock_ahead_takes_no_changes),
        NODES_TEST(nor_does_one_behind),
        NODES_TEST(a_minute_is_within_bounds),
        NODES_TEST(of_two_nobody_can_tell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
