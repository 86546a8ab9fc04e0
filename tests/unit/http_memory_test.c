/* Goal: what connections make the server keep is taken from its budget, never more than that, and
 * given back with them. */
#include "tests/unit/http_fixture.h"

#define LIMIT   MIB
#define CLIENTS 40

static struct budget memory;

static uint64_t refused(void)
{
    struct http_stats stats;

    http_server_stats(world.server, &stats);
    return stats.refused;
}

/* Until CONDITION, or the end of patience: then the caller's assertion fails. */
#define WAIT_UNTIL(condition)                                                                      \
    for (int tries = 0; tries < WAIT_S * 1000 && !(condition); tries++) {                          \
        const struct timespec moment = {0, 1000000};                                               \
        nanosleep(&moment, NULL);                                                                  \
    }

static int start(void **state)
{
    const struct http_config config = {.workers = 2, .memory = &memory};

    (void)state;
    memory = (struct budget){.limit = LIMIT};
    start_server(&config);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    stop_server();
    assert_int_equal(budget_used(&memory), 0);
    return 0;
}

static void a_budget_is_not_exceeded(void **state)
{
    struct budget budget = {.limit = 100};

    (void)state;
    assert_true(budget_take(&budget, 60));
    assert_false(budget_take(&budget, 41));
    assert_false(budget_take_below(&budget, 1, 60));
    assert_true(budget_take_below(&budget, 40, 1000));
    assert_false(budget_take(&budget, SIZE_MAX / 2));
    assert_int_equal(budget_used(&budget), 100);
    budget_give(&budget, 100);
    assert_int_equal(budget_used(&budget), 0);
}

/* Each asks for more than the budget and reads nothing. */
static void readers_that_stop(void **state)
{
    int fds[CLIENTS];

    (void)state;
    for (int i = 0; i < CLIENTS; i++) {
        int small = 4096;

        fds[i] = new_socket();
        setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        connect_to_server(fds[i]);
        send_text(fds[i], "GET /memory HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    wait_for(&world.requests, CLIENTS);
    WAIT_UNTIL(refused() > 0);
    assert_true(refused() > 0);
    assert_true(budget_used(&memory) <= LIMIT);
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
}

/* A header of 30 KiB that does not end, from each: at most half of the budget. */
static void headers_that_do_not_end(void **state)
{
    static char header[30000];
    int fds[CLIENTS];

    (void)state;
    memset(header, 'x', sizeof header);
    memcpy(header, "GET / HTTP/1.1\r\nX: ", 19);
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = client();
        (void)try_send(fds[i], header, sizeof header);
    }
    WAIT_UNTIL(refused() >= CLIENTS - LIMIT / 2 / sizeof header);
    assert_true(refused() >= CLIENTS - LIMIT / 2 / sizeof header);
    assert_true(budget_used(&memory) > 0 && budget_used(&memory) <= LIMIT / 2);
    /* Whoever keeps nothing is served all the same. */
    expect(client(), "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", 200, "hello");
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
    WAIT_UNTIL(budget_used(&memory) == 0);
    assert_int_equal(budget_used(&memory), 0);
}

/* What lies behind a request in flight is kept until that is answered. */
static void requests_that_come_early(void **state)
{
    enum { HELLOS = 1000 };
    static const char hello[] = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    struct http_request *parked;
    struct answer answer;
    int fd = client();
    char *all = malloc(HELLOS * sizeof hello), *to = all;

    (void)state;
    assert_non_null(all);
    to += sprintf(to, "GET /park HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int i = 0; i < HELLOS; i++)
        to += sprintf(to, "%s", hello);
    assert_true(try_send(fd, all, (size_t)(to - all)));
    parked = take_parked();
    WAIT_UNTIL(budget_used(&memory) > 0);
    assert_true(budget_used(&memory) > 0);
    http_post(parked, answer_parked);
    for (int i = 0; i <= HELLOS; i++)
        assert_true(read_answer(fd, &answer) && answer.status == 200);
    WAIT_UNTIL(budget_used(&memory) == 0);
    assert_int_equal(budget_used(&memory), 0);
    close(fd);
    free(all);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_budget_is_not_exceeded),
        WITH_SERVER(readers_that_stop),
        WITH_SERVER(headers_that_do_not_end),
        WITH_SERVER(requests_that_come_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
