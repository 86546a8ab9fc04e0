/* Goal: however many ask for a large body of another node, and however slowly they read, its bytes
 * come once; each gets what has arrived; nobody who goes away disturbs the others; what is kept is
 * what was verified, under an object that is still there; and whatever fails, no wrong byte passes
 * for a whole body and nothing is left behind. */
#include "far_fixture.h"

#include <poll.h>

#define CLIENTS 12

static int setup(void **state)
{
    return far_setup(state, 32 * MIB);
}

static struct disk_cache_stats cache_of(struct far *far)
{
    struct disk_cache_stats stats;

    disk_cache_stats(far->node->disk_cache, &stats);
    return stats;
}

static void wait_until(struct far *far, bool (*holds)(struct far *far, uint64_t value),
                       uint64_t value)
{
    time_t until = time(NULL) + WAIT_S;

    while (!holds(far, value)) {
        assert_true(time(NULL) < until);
        (void)poll(NULL, 0, 1);
    }
}

static bool under_way(struct far *far, uint64_t value)
{
    struct http_stats stats;

    http_server_stats(far->node->server, &stats);
    return stats.in_flight == value;
}

static bool uses(struct far *far, uint64_t value)
{
    return cache_of(far).used_bytes == value;
}

static bool holds_copies(struct far *far, uint64_t value)
{
    return cache_of(far).copies == value;
}

static bool memory_used(struct far *far, uint64_t value)
{
    return budget_used(&far->node->memory) == value;
}

/* All who ask before it is whole, and those who ask later. */
static void many_share_one_transfer_and_it_stays(void **state)
{
    struct far *far = *state;
    struct client *clients[CLIENTS];
    struct reply reply;

    put_elsewhere(far, ID, far->large, LARGE);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = client_start(far, ID, i % 4 == 3 ? "Range: bytes=0-\r\n" : NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    assert_int_equal(fetch->asked.length, LARGE);
    assert_false(fetch->asked.background);
    assert_true(fake_give(far->fake, fetch, far->large, LARGE / 2));
    wait_until(far, under_way, CLIENTS);
    int slow = ask(far, "GET", ID, NULL), gone = ask(far, "GET", ID, NULL);
    wait_until(far, under_way, CLIENTS + 2);
    (void)close(gone);
    fake_serve(far->fake, fetch, far->large);
    for (int i = 0; i < CLIENTS; i++) {
        client_end(&clients[i], &reply);
        expect_bytes(&reply, i % 4 == 3 ? 206 : 200, far->large, LARGE);
        reply_free(&reply);
    }
    hear(slow, &reply);
    expect_bytes(&reply, 200, far->large, LARGE);
    reply_free(&reply);
    wait_until(far, holds_copies, 1);
    hear(ask(far, "GET", ID, NULL), &reply);
    expect_bytes(&reply, 200, far->large, LARGE);
    reply_free(&reply);
    hear(ask(far, "GET", ID, "Range: bytes=65530-200000\r\n"), &reply);
    expect_bytes(&reply, 206, far->large + 65530, 200000 - 65530 + 1);
    reply_free(&reply);
    assert_int_equal(fake_count(far->fake), 1);
    assert_int_equal(cache_of(far).stored, 1);
    assert_true(cache_of(far).hits >= 2); /* who came late has found it, too */
    wait_until(far, memory_used, 0);
}

/* The bytes go out as they come, but for the last block. */
static void what_has_come_is_sent_and_the_last_block_waits(void **state)
{
    const size_t last_block = (LARGE - 1) / BLOCK_BYTES * BLOCK_BYTES;
    struct far *far = *state;
    struct client *client;
    struct reply reply;
    uint8_t byte;

    put_elsewhere(far, ID, far->large, LARGE);
    int fd = ask(far, "GET", ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 50), 0); /* no header without a byte */
    assert_true(fake_give(far->fake, fetch, far->large, LARGE - 1));
    /* All of it is here but a byte: that cannot have gone out. */
    size_t got = 0;
    bool body = false;
    char head[4096];
    size_t head_len = 0;
    while (!body) {
        assert_int_equal(recv(fd, &head[head_len], 1, 0), 1);
        head[++head_len] = 0;
        body = strstr(head, "\r\n\r\n") != NULL;
        assert_true(head_len < sizeof head - 1);
    }
    for (; got < last_block; got++) {
        assert_int_equal(recv(fd, &byte, 1, 0), 1);
        if (byte != far->large[got])
            fail_msg("byte %zu", got);
    }
    assert_int_equal(poll(&ready, 1, 100), 0);
    assert_int_equal(cache_of(far).copies, 0);
    client = client_start(far, ID, NULL);
    fake_serve(far->fake, fetch, far->large);
    for (; got < LARGE; got++) {
        assert_int_equal(recv(fd, &byte, 1, 0), 1);
        assert_int_equal(byte, far->large[got]);
    }
    (void)close(fd);
    client_end(&client, &reply);
    expect_bytes(&reply, 200, far->large, LARGE);
    reply_free(&reply);
    assert_int_equal(fake_count(far->fake), 1);
}

/* CLIENT's end. Whoever was still on its way when a fill ended has begun another: that ends with
 * RC, or (0) is served with BODY. */
static void end_of(struct far *far, struct client **client, int rc, const uint8_t *body,
                   struct reply *reply)
{
    struct timespec until;

    for (;;) {
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 10000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (pthread_timedjoin_np((*client)->thread, NULL, &until) == 0)
            break;
        for (unsigned i = 0, count = fake_count(far->fake); i < count; i++) {
            struct fake_fetch *fetch = &far->fake->fetches[i];

            if (!fetch->over && rc)
                fake_end(fetch, rc);
            else if (!fetch->over)
                fake_serve(far->fake, fetch, body);
        }
    }
    *reply = (*client)->reply;
    free(*client);
    *client = NULL;
}

static void a_wrong_body_is_whole_for_nobody_and_not_kept(void **state)
{
    struct far *far = *state;
    uint8_t *wrong = make_body(LARGE, 9);
    struct client *clients[3];
    struct reply reply;

    put_elsewhere(far, ID, far->large, LARGE);
    for (int i = 0; i < 3; i++)
        clients[i] = client_start(far, ID, NULL);
    wait_until(far, under_way, 3);
    fake_serve(far->fake, fake_fetch(far->fake, 0), wrong);
    for (int i = 0; i < 3; i++) {
        end_of(far, &clients[i], 0, wrong, &reply);
        assert_false(reply.complete);
        assert_true(reply.len <= (LARGE - 1) / BLOCK_BYTES * BLOCK_BYTES);
        reply_free(&reply);
    }
    wait_until(far, uses, 0);
    assert_int_equal(cache_of(far).stored, 0);
    assert_int_equal(bad_blocks(far), fake_count(far->fake));
    clients[0] = client_start(far, ID, NULL);
    end_of(far, &clients[0], 0, far->large, &reply);
    expect_bytes(&reply, 200, far->large, LARGE);
    reply_free(&reply);
    free(wrong);
}

static bool was_cancelled(struct far *far, const struct fake_fetch *fetch)
{
    (void)pthread_mutex_lock(&far->fake->lock);
    bool cancelled = fetch->cancelled;
    (void)pthread_mutex_unlock(&far->fake->lock);
    return cancelled;
}

/* The clients of FD take part, and go away, so that STAYING are left. That shows with the next
 * bytes for them: FETCH, which is half through, gets no more than 20 blocks. */
static void leave(struct far *far, struct fake_fetch *fetch, const int *fd, int count,
                  uint64_t staying)
{
    static const struct linger reset = {.l_onoff = 1};
    char byte;

    /* Who is still looking for it when the others have left would begin another fetch. */
    for (int i = 0; i < count; i++)
        assert_int_equal(recv(fd[i], &byte, 1, MSG_PEEK), 1);
    for (int i = 0; i < count; i++) {
        assert_int_equal(setsockopt(fd[i], SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
        (void)close(fd[i]);
    }
    for (int i = 0; i < 20 && !under_way(far, staying); i++) {
        if (!fake_give(far->fake, fetch, far->large, BLOCK_BYTES))
            break;
        for (int ms = 0; ms < 500 && !under_way(far, staying); ms++)
            (void)poll(NULL, 0, 1);
    }
    wait_until(far, under_way, staying);
}

/* Whoever has begun it among them. */
static void who_leaves_ends_nothing_for_those_who_stay(void **state)
{
    struct far *far = *state;
    struct client *clients[3];
    struct reply reply;
    int fd[3];

    put_elsewhere(far, ID, far->large, LARGE);
    fd[0] = ask(far, "GET", ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    for (int i = 0; i < 3; i++)
        clients[i] = client_start(far, ID, NULL);
    for (int i = 1; i < 3; i++)
        fd[i] = ask(far, "GET", ID, NULL);
    assert_true(fake_give(far->fake, fetch, far->large, LARGE / 2));
    wait_until(far, under_way, 6);
    leave(far, fetch, fd, 3, 3);
    bool cancelled = was_cancelled(far, fetch);
    fake_serve(far->fake, fetch, far->large);
    assert_false(cancelled);
    for (int i = 0; i < 3; i++) {
        client_end(&clients[i], &reply);
        expect_bytes(&reply, 200, far->large, LARGE);
        reply_free(&reply);
    }
    assert_int_equal(fake_count(far->fake), 1);
    wait_until(far, holds_copies, 1);
}

static void when_all_have_left_the_fetch_ends_and_nothing_is_kept(void **state)
{
    struct far *far = *state;
    struct client *client;
    struct reply reply;
    int fd[3];

    put_elsewhere(far, ID, far->large, LARGE);
    for (int i = 0; i < 3; i++)
        fd[i] = ask(far, "GET", ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    wait_until(far, under_way, 3);
    assert_true(fake_give(far->fake, fetch, far->large, LARGE / 2));
    leave(far, fetch, fd, 3, 0);
    fake_wait_cancelled(far->fake, fetch);
    /* Who comes now does not wait for what was given up. */
    client = client_start(far, ID, NULL);
    struct fake_fetch *second = fake_fetch(far->fake, 1);
    fake_end(fetch, ERR_CLOSED);
    fake_serve(far->fake, second, far->large);
    client_end(&client, &reply);
    expect_bytes(&reply, 200, far->large, LARGE);
    reply_free(&reply);
    wait_until(far, memory_used, 0);
    wait_until(far, uses,
               cache_of(far).copies * ((LARGE + BLOCK_BYTES - 1) / BLOCK_BYTES) * BLOCK_BYTES);
}

/* All of its bytes are here, and all have them; that it was the last of them is not said yet. */
static void what_has_come_whole_is_not_given_up(void **state)
{
    struct far *far = *state;
    struct client *client;
    struct reply reply;

    put_elsewhere(far, ID, far->large, LARGE);
    client = client_start(far, ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    assert_true(fake_give(far->fake, fetch, far->large, LARGE));
    client_end(&client, &reply);
    expect_bytes(&reply, 200, far->large, LARGE);
    reply_free(&reply);
    wait_until(far, under_way, 0);
    bool cancelled = was_cancelled(far, fetch);
    fake_end(fetch, 0);
    assert_false(cancelled);
    wait_until(far, holds_copies, 1);
    wait_until(far, memory_used, 0);
    hear(ask(far, "GET", ID, NULL), &reply);
    expect_bytes(&reply, 200, far->large, LARGE);
    reply_free(&reply);
    assert_int_equal(fake_count(far->fake), 1);
}

static void a_failure_is_told_to_all(void **state)
{
    static const struct {
        int rc;
        unsigned status;
        const char *code;
    } ends[] = {{ERR_TIMEOUT, 503, "no_holder"},
                {ERR_AGAIN, 503, "no_holder"},
                {ERR_NOT_FOUND, 503, "no_holder"},
                {ERR_CORRUPT, 500, "body_damaged"}};
    struct far *far = *state;
    struct client *clients[2];
    struct reply reply;

    put_elsewhere(far, ID, far->large, LARGE);
    for (unsigned i = 0; i < 4; i++) {
        unsigned next = fake_count(far->fake);

        for (int k = 0; k < 2; k++)
            clients[k] = client_start(far, ID, NULL);
        struct fake_fetch *fetch = fake_fetch(far->fake, next);
        wait_until(far, under_way, 2);
        fake_end(fetch, ends[i].rc);
        for (int k = 0; k < 2; k++) {
            end_of(far, &clients[k], ends[i].rc, NULL, &reply);
            expect_error(&reply, ends[i].status, ends[i].code);
            reply_free(&reply);
        }
        wait_until(far, uses, 0);
    }
    unsigned last = fake_count(far->fake);
    clients[0] = client_start(far, ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, last);
    assert_true(fake_give(far->fake, fetch, far->large, LARGE / 2));
    fake_end(fetch, ERR_TIMEOUT);
    client_end(&clients[0], &reply);
    assert_int_equal(reply.status, 200);
    assert_false(reply.complete);
    reply_free(&reply);
    wait_until(far, uses, 0);
}

/* Deleted while it comes: whoever gets it already gets all of it; it is not kept. */
static void what_is_deleted_is_not_kept(void **state)
{
    struct far *far = *state;
    struct client *client;
    struct reply reply;

    put_elsewhere(far, ID, far->large, LARGE);
    client = client_start(far, ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    assert_true(fake_give(far->fake, fetch, far->large, LARGE / 2));
    request(far->node, &reply, "POST", "/api/v1/delete/" ID, NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    fake_serve(far->fake, fetch, far->large);
    client_end(&client, &reply);
    expect_bytes(&reply, 200, far->large, LARGE);
    reply_free(&reply);
    wait_until(far, uses, 0);
    assert_int_equal(cache_of(far).stored, 0);

    put_elsewhere(far, ID2, far->large, LARGE);
    client = client_start(far, ID2, NULL);
    fake_serve(far->fake, fake_fetch(far->fake, 1), far->large);
    client_end(&client, &reply);
    expect_bytes(&reply, 200, far->large, LARGE);
    reply_free(&reply);
    wait_until(far, holds_copies, 1);
    request(far->node, &reply, "POST", "/api/v1/delete/" ID2, NULL, NULL, 0);
    reply_free(&reply);
    wait_until(far, uses, 0);
    hear(ask(far, "GET", ID2, NULL), &reply);
    expect_error(&reply, 404, "deleted");
    reply_free(&reply);
}

static void a_range_of_a_cold_body_comes_by_itself(void **state)
{
    struct far *far = *state;
    struct reply reply;

    put_elsewhere(far, ID, far->large, LARGE);
    int fd = ask(far, "GET", ID, "Range: bytes=100000-2000000\r\n");
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    assert_int_equal(fetch->asked.offset, 100000);
    fake_serve(far->fake, fetch, far->large);
    hear(fd, &reply);
    expect_bytes(&reply, 206, far->large + 100000, 1900001);
    reply_free(&reply);
    assert_int_equal(cache_of(far).used_bytes, 0);
}

/* Out of memory, but not out of the disk cache; a damaged copy, or none, is fetched. */
static void a_small_body_outlives_the_memory_on_disk(void **state)
{
    enum { OTHERS = 60 };
    struct far *far = *state;
    uint8_t *other = make_body(200000, 3);
    char path[64];
    struct reply reply;

    put_elsewhere(far, ID, far->small, SMALL);
    put_elsewhere(far, ID2, far->small, 1000); /* not worth a block */
    for (unsigned i = 0; i < 2; i++) {
        int fd = ask(far, "GET", i ? ID2 : ID, NULL);

        fake_serve(far->fake, fake_fetch(far->fake, i), far->small);
        hear(fd, &reply);
        expect_bytes(&reply, 200, far->small, i ? 1000 : SMALL);
        reply_free(&reply);
    }
    wait_until(far, holds_copies, 1);
    for (unsigned i = 0; i < OTHERS; i++) {
        request(far->node, &reply, "PUT", "/api/v1/put", NULL, other, 200000);
        (void)snprintf(path, sizeof path, "/api/v1/get/%.26s", value_of(&reply, "X-Meta-Id"));
        reply_free(&reply);
        for (int k = 0; k < 3; k++) {
            request(far->node, &reply, "GET", path, NULL, NULL, 0);
            assert_int_equal(reply.status, 200);
            reply_free(&reply);
        }
    }
    hear(ask(far, "GET", ID, NULL), &reply);
    expect_bytes(&reply, 200, far->small, SMALL);
    reply_free(&reply);
    hear(ask(far, "GET", ID, "Range: bytes=70000-70009\r\n"), &reply);
    expect_bytes(&reply, 206, far->small + 70000, 10);
    reply_free(&reply);
    assert_int_equal(fake_count(far->fake), 2);
    assert_int_equal(cache_of(far).hits, 1); /* then it was in memory again */
    request(far->node, &reply, "POST", "/api/v1/delete/" ID, NULL, NULL, 0);
    reply_free(&reply);
    wait_until(far, uses, 0);
    free(other);
}

static void a_node_that_stops_lets_nobody_wait(void **state)
{
    struct far *far = *state;
    struct client *clients[3];
    struct reply reply;

    put_elsewhere(far, ID, far->large, LARGE);
    for (int i = 0; i < 3; i++)
        clients[i] = client_start(far, ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    wait_until(far, under_way, 3);
    assert_true(fake_give(far->fake, fetch, far->large, LARGE / 2));
    cluster_stop(far->fake);
    for (int i = 0; i < 3; i++) {
        client_end(&clients[i], &reply);
        assert_false(reply.complete && reply.status == 200);
        reply_free(&reply);
    }
    wait_until(far, uses, 0);
}

int main(void)
{
#define FILL_TEST(name) cmocka_unit_test_setup_teardown(name, setup, far_teardown)
    const struct CMUnitTest tests[] = {
        FILL_TEST(many_share_one_transfer_and_it_stays),
        FILL_TEST(what_has_come_is_sent_and_the_last_block_waits),
        FILL_TEST(a_wrong_body_is_whole_for_nobody_and_not_kept),
        FILL_TEST(who_leaves_ends_nothing_for_those_who_stay),
        FILL_TEST(what_has_come_whole_is_not_given_up),
        FILL_TEST(when_all_have_left_the_fetch_ends_and_nothing_is_kept),
        FILL_TEST(a_failure_is_told_to_all),
        FILL_TEST(what_is_deleted_is_not_kept),
        FILL_TEST(a_range_of_a_cold_body_comes_by_itself),
        FILL_TEST(a_small_body_outlives_the_memory_on_disk),
        FILL_TEST(a_node_that_stops_lets_nobody_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
