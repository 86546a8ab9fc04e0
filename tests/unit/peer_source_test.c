/* Goal: a GET of an object whose body is on other nodes answers as one of a local body does; its
 * bytes go out as they come, never more than the window is held, no wrong byte passes for a whole
 * body, and whoever goes away in the middle leaves nothing behind and disturbs nobody. */
#include "far_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>

static int setup(void **state)
{
    return far_setup(state, 0);
}

/* ---- Small bodies ---- */

static void a_small_body_comes_from_its_author_and_is_hot_then(void **state)
{
    struct far *far = *state;
    struct reply reply;

    put_elsewhere(far, ID, far->small, SMALL);
    int fd = ask(far, "GET", ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    assert_int_equal(fetch->asked.offset, 0);
    assert_int_equal(fetch->asked.length, SMALL);
    assert_int_equal(fetch->asked.size, SMALL);
    assert_false(fetch->asked.background);
    fake_serve(far->fake, fetch, far->small);
    hear(fd, &reply);
    expect_bytes(&reply, 200, far->small, SMALL);
    expect_header(&reply, "X-Meta-Name", "far.txt");
    expect_header(&reply, "Content-Type", "text/plain; charset=utf-8");
    reply_free(&reply);

    hear(ask(far, "GET", ID, NULL), &reply);
    expect_bytes(&reply, 200, far->small, SMALL);
    reply_free(&reply);
    hear(ask(far, "GET", ID, "Range: bytes=7-8\r\n"), &reply);
    expect_bytes(&reply, 206, far->small + 7, 2);
    reply_free(&reply);
    assert_int_equal(fake_count(far->fake), 1);
}

static void parts_of_a_small_body_are_cut_from_the_whole(void **state)
{
    struct far *far = *state;
    struct reply reply;

    put_elsewhere(far, ID, far->small, SMALL);
    int fd = ask(far, "GET", ID, "Range: bytes=70000-70999\r\n");
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    assert_int_equal(fetch->asked.length, SMALL);
    fake_serve(far->fake, fetch, far->small);
    hear(fd, &reply);
    expect_bytes(&reply, 206, far->small + 70000, 1000);
    expect_header(&reply, "Content-Range", "bytes 70000-70999/100000");
    reply_free(&reply);
    hear(ask(far, "GET", ID, NULL), &reply);
    expect_bytes(&reply, 200, far->small, SMALL);
    reply_free(&reply);
    assert_int_equal(fake_count(far->fake), 1);
}

static void a_wrong_small_body_is_neither_sent_nor_kept(void **state)
{
    struct far *far = *state;
    uint8_t *wrong = make_body(SMALL, 9);
    struct reply reply;
    int fd[2];

    put_elsewhere(far, ID, far->small, SMALL);
    fd[0] = ask(far, "GET", ID, NULL);
    fake_serve(far->fake, fake_fetch(far->fake, 0), wrong);
    hear(fd[0], &reply);
    expect_error(&reply, 500, "body_damaged");
    reply_free(&reply);
    assert_int_equal(bad_blocks(far), 1);
    fd[1] = ask(far, "GET", ID, NULL);
    fake_serve(far->fake, fake_fetch(far->fake, 1), far->small);
    hear(fd[1], &reply);
    expect_bytes(&reply, 200, far->small, SMALL);
    reply_free(&reply);
    free(wrong);
}

/* Whoever comes before the fetch ends waits for it; whoever comes after finds what it left. */
static void many_who_ask_at_once_share_one_fetch(void **state)
{
    enum { CLIENTS = 24 };
    struct far *far = *state;
    struct reply reply;
    int fd[CLIENTS];

    put_elsewhere(far, ID, far->small, SMALL);
    for (int i = 0; i < CLIENTS; i++)
        fd[i] = ask(far, "GET", ID, i % 3 == 2 ? "Range: bytes=5-9\r\n" : NULL);
    /* The first of them, and one more, lose patience. */
    (void)close(fd[0]);
    (void)close(fd[7]);
    fake_serve(far->fake, fake_fetch(far->fake, 0), far->small);
    for (int i = 0; i < CLIENTS; i++) {
        if (i == 0 || i == 7)
            continue;
        hear(fd[i], &reply);
        if (i % 3 == 2)
            expect_bytes(&reply, 206, far->small + 5, 5);
        else
            expect_bytes(&reply, 200, far->small, SMALL);
        reply_free(&reply);
    }
    assert_int_equal(fake_count(far->fake), 1);
}

static void all_who_share_a_fetch_hear_of_its_failure(void **state)
{
    enum { CLIENTS = 5 };
    struct far *far = *state;
    struct reply reply;
    struct node *node = far->node;
    int fd[CLIENTS];

    put_elsewhere(far, ID, far->small, SMALL);
    for (int i = 0; i < CLIENTS; i++)
        fd[i] = ask(far, "GET", ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    /* Whoever comes after its end begins anew, so let all of them come first. */
    uint64_t taken;
    time_t until = time(NULL) + WAIT_S;
    do {
        struct http_stats stats;

        http_server_stats(node->server, &stats);
        taken = stats.in_flight;
        assert_true(time(NULL) < until);
        (void)sched_yield();
    } while (taken < CLIENTS);
    assert_true(fake_give(far->fake, fetch, far->small, 1000));
    fake_end(fetch, ERR_TIMEOUT);
    /* One that was still on its way to the table then has begun another. */
    for (int i = 0; i < CLIENTS; i++) {
        struct pollfd wait = {.fd = fd[i], .events = POLLIN};

        for (unsigned k = 1; poll(&wait, 1, 10) == 0; k = fake_count(far->fake))
            for (unsigned n = 1; n < k; n++)
                if (!far->fake->fetches[n].over)
                    fake_end(&far->fake->fetches[n], ERR_TIMEOUT);
        hear(fd[i], &reply);
        expect_error(&reply, 503, "no_holder");
        reply_free(&reply);
    }
}

/* ---- What needs no bytes ---- */

static void heads_and_conditions_are_answered_from_the_row(void **state)
{
    static const char *const sizes[] = {ID, ID2};
    struct far *far = *state;
    struct reply reply;
    char path[64], head[160], etag[80];

    put_elsewhere(far, ID, far->small, SMALL);
    put_elsewhere(far, ID2, far->large, LARGE);
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "/api/v1/get/%s", sizes[i]);
        request(far->node, &reply, "HEAD", path, NULL, NULL, 0);
        assert_int_equal(reply.status, 200);
        expect_header(&reply, "Content-Length", i == 0 ? "100000" : "3158073");
        expect_header(&reply, "X-Meta-Symlink", "true");
        (void)snprintf(etag, sizeof etag, "%s", value_of(&reply, "ETag"));
        reply_free(&reply);
        (void)snprintf(head, sizeof head, "If-None-Match: %s\r\n", etag);
        request(far->node, &reply, "GET", path, head, NULL, 0);
        assert_int_equal(reply.status, 304);
        expect_header(&reply, "X-Meta-Symlink", "true");
        reply_free(&reply);
        request(far->node, &reply, "GET", path, "If-Match: \"x\"\r\n", NULL, 0);
        expect_error(&reply, 412, "precondition_failed");
        reply_free(&reply);
        request(far->node, &reply, "GET", path, "Range: bytes=9999999-\r\n", NULL, 0);
        expect_error(&reply, 416, "range_not_satisfiable");
        reply_free(&reply);
        (void)snprintf(path, sizeof path, "/api/v1/meta/%s", sizes[i]);
        request(far->node, &reply, "GET", path, NULL, NULL, 0);
        assert_int_equal(reply.status, 200);
        assert_non_null(strstr(reply.body, "\"is_symlink\":true"));
        expect_header(&reply, "X-Meta-Symlink", "true");
        reply_free(&reply);
    }
    assert_int_equal(fake_count(far->fake), 0);
}

static void an_empty_body_needs_nobody(void **state)
{
    struct far *far = *state;
    struct reply reply;

    put_elsewhere(far, ID, "", 0);
    hear(ask(far, "GET", ID, NULL), &reply);
    expect_bytes(&reply, 200, (const uint8_t *)"", 0);
    reply_free(&reply);
    assert_int_equal(fake_count(far->fake), 0);
}

static void a_body_that_is_here_says_so(void **state)
{
    struct far *far = *state;
    struct reply reply;

    request(far->node, &reply, "PUT", "/api/v1/put", "X-Meta-ID: " ID "\r\n", far->small, SMALL);
    assert_int_equal(reply.status, 200);
    assert_null(value_of(&reply, "X-Meta-Symlink"));
    reply_free(&reply);
    hear(ask(far, "GET", ID, NULL), &reply);
    assert_int_equal(reply.status, 200);
    assert_null(value_of(&reply, "X-Meta-Symlink"));
    reply_free(&reply);
    assert_int_equal(fake_count(far->fake), 0);
}

static void a_body_that_is_put_here_later_is_no_symlink_any_more(void **state)
{
    static const char *const ids[] = {ID, ID2};
    struct far *far = *state;
    struct reply reply;
    char head[64];

    put_elsewhere(far, ID, far->small, SMALL);
    put_elsewhere(far, ID2, far->large, LARGE);
    int fd = ask(far, "GET", ID, NULL);
    fake_serve(far->fake, fake_fetch(far->fake, 0), far->small);
    hear(fd, &reply);
    expect_bytes(&reply, 200, far->small, SMALL); /* in the RAM tier now */
    reply_free(&reply);
    for (int i = 0; i < 2; i++) {
        const uint8_t *body = i == 0 ? far->small : far->large;
        size_t size = i == 0 ? SMALL : LARGE;

        (void)snprintf(head, sizeof head, "X-Meta-ID: %s\r\n", ids[i]);
        request(far->node, &reply, "PUT", "/api/v1/put", head, body, size);
        assert_int_equal(reply.status, 200);
        assert_non_null(strstr(reply.body, "\"is_symlink\":false"));
        reply_free(&reply);
        hear(ask(far, "GET", ids[i], NULL), &reply);
        assert_int_equal(reply.status, 200);
        assert_null(value_of(&reply, "X-Meta-Symlink"));
        assert_int_equal(reply.len, size);
        assert_memory_equal(reply.body, body, size);
        reply_free(&reply);
    }
    assert_int_equal(fake_count(far->fake), 1);
}

static void what_is_deleted_while_it_comes_is_not_kept(void **state)
{
    struct far *far = *state;
    struct reply reply;

    put_elsewhere(far, ID, far->small, SMALL);
    int fd = ask(far, "GET", ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    request(far->node, &reply, "POST", "/api/v1/delete/" ID, NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    fake_serve(far->fake, fetch, far->small);
    hear(fd, &reply);
    reply_free(&reply); /* as a body that was being read: sent */
    hear(ask(far, "GET", ID, NULL), &reply);
    expect_error(&reply, 404, "deleted");
    reply_free(&reply);
    assert_int_equal(fake_count(far->fake), 1);
}

static void a_node_that_is_alone_asks_nobody(void **state)
{
    struct far *far = *state;
    struct reply reply;

    put_elsewhere(far, ID, far->small, SMALL);
    far->fake->alone = true;
    hear(ask(far, "GET", ID, NULL), &reply);
    expect_error(&reply, 500, "body_damaged");
    reply_free(&reply);
    assert_int_equal(fake_count(far->fake), 0);
}

/* ---- Large bodies ---- */

static void a_large_body_is_sent_as_it_comes(void **state)
{
    struct far *far = *state;
    struct reply reply;
    char first[200 * 1024];

    put_elsewhere(far, ID, far->large, LARGE);
    int fd = ask(far, "GET", ID, NULL);
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    assert_int_equal(fetch->asked.length, LARGE);
    /* So much is there before any more is given. */
    assert_true(fake_give(far->fake, fetch, far->large, 256 * KIB));
    for (size_t len = 0; len < sizeof first;) {
        ssize_t n = recv(fd, first + len, sizeof first - len, 0);

        assert_true(n > 0);
        len += (size_t)n;
    }
    const char *body = memmem(first, sizeof first, "\r\n\r\n", 4);
    assert_non_null(body);
    assert_memory_equal(body + 4, far->large, (size_t)(first + sizeof first - body - 4));
    (void)close(fd);
    /* Bytes for a client that is gone end the fetch. */
    (void)fake_give(far->fake, fetch, far->large, LARGE - fetch->given);
    fake_wait_cancelled(far->fake, fetch);
    fake_end(fetch, ERR_CLOSED);

    for (int i = 0; i < 3; i++) {
        struct client *client = client_start(far, ID, NULL);

        fake_serve(far->fake, fake_fetch(far->fake, 1 + (unsigned)i), far->large);
        client_end(&client, &reply);
        expect_bytes(&reply, 200, far->large, LARGE);
        reply_free(&reply);
    }
}

static void a_range_fetches_just_its_bytes(void **state)
{
    static const struct {
        uint64_t first, last;
    } ranges[] = {{0, 0}, {70000, 70001}, {1, 2 * MIB + 5}, {LARGE - 1, LARGE - 1}, {0, LARGE - 1}};
    struct far *far = *state;
    struct reply reply;
    char head[96];

    put_elsewhere(far, ID, far->large, LARGE);
    for (unsigned i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        size_t len = ranges[i].last - ranges[i].first + 1;

        (void)snprintf(head, sizeof head, "Range: bytes=%llu-%llu\r\n",
                       (unsigned long long)ranges[i].first, (unsigned long long)ranges[i].last);
        struct client *client = client_start(far, ID, head);
        struct fake_fetch *fetch = fake_fetch(far->fake, i);
        assert_int_equal(fetch->asked.offset, ranges[i].first);
        assert_int_equal(fetch->asked.length, len);
        fake_serve(far->fake, fetch, far->large);
        client_end(&client, &reply);
        expect_bytes(&reply, 206, far->large + ranges[i].first, len);
        reply_free(&reply);
    }
}

static void several_ranges_are_one_fetch_after_the_other(void **state)
{
    struct far *far = *state;
    struct reply reply;

    put_elsewhere(far, ID, far->large, LARGE);
    struct client *client =
        client_start(far, ID, "Range: bytes=2000000-2000099,5-1400000,3000000-3000009\r\n");
    for (unsigned i = 0; i < 3; i++) {
        static const uint64_t lengths[] = {100, 1399996, 10};
        struct fake_fetch *fetch = fake_fetch(far->fake, i);

        assert_int_equal(fetch->asked.length, lengths[i]);
        assert_int_equal(fake_count(far->fake), i + 1);
        fake_serve(far->fake, fetch, far->large);
    }
    client_end(&client, &reply);
    assert_int_equal(reply.status, 206);
    assert_true(reply.complete);
    assert_non_null(strstr(value_of(&reply, "Content-Type"), "multipart/byteranges"));
    const char *at = reply.body;
    static const size_t firsts[] = {2000000, 5, 3000000}, lens[] = {100, 1399996, 10};
    for (unsigned i = 0; i < 3; i++) {
        at = memmem(at, reply.len - (size_t)(at - reply.body), "\r\n\r\n", 4);
        assert_non_null(at);
        at += 4;
        assert_memory_equal(at, far->large + firsts[i], lens[i]);
        at += lens[i];
    }
    reply_free(&reply);
}

static void a_wrong_large_body_is_never_whole(void **state)
{
    struct far *far = *state;
    uint8_t *wrong = make_body(LARGE, 2);
    struct reply reply;

    put_elsewhere(far, ID, far->large, LARGE);
    wrong[LARGE - 1] ^= 1; /* only the last byte tells */
    struct client *client = client_start(far, ID, NULL);
    fake_serve(far->fake, fake_fetch(far->fake, 0), wrong);
    client_end(&client, &reply);
    assert_int_equal(reply.status, 200);
    assert_false(reply.complete);
    assert_true(reply.len <= (LARGE - 1) / BLOCK_BYTES * BLOCK_BYTES);
    reply_free(&reply);
    assert_int_equal(bad_blocks(far), 1);
    free(wrong);
}

/* Receive until BODY bytes have come behind the header, and no more than that; BUF takes it all.
 * Their beginning. */
static const uint8_t *take_part(int fd, uint8_t *buf, size_t cap, size_t body)
{
    const uint8_t *begin = NULL;

    for (size_t len = 0; !begin || len < (size_t)(begin - buf) + body;) {
        assert_true(len < cap);
        ssize_t n = recv(fd, buf + len, begin ? (size_t)(begin - buf) + body - len : 1, 0);

        assert_true(n > 0);
        len += (size_t)n;
        if (!begin && len >= 4 && memcmp(buf + len - 4, "\r\n\r\n", 4) == 0)
            begin = buf + len;
    }
    return begin;
}

static void the_last_block_waits_for_the_last_byte(void **state)
{
    enum { SIZE = 400000, HELD = SIZE / BLOCK_BYTES * BLOCK_BYTES };
    struct far *far = *state;
    uint8_t *buf = malloc(SIZE + 4096);

    assert_non_null(buf);
    put_elsewhere(far, ID, far->large, SIZE);
    for (unsigned wrong = 0; wrong < 2; wrong++) {
        int fd = ask(far, "GET", ID, NULL);
        struct fake_fetch *fetch = fake_fetch(far->fake, wrong);
        uint8_t last = far->large[SIZE - 1];

        assert_true(fake_give(far->fake, fetch, far->large, SIZE - 1));
        const uint8_t *body = take_part(fd, buf, SIZE + 4096, HELD);
        assert_memory_equal(body, far->large, HELD);
        far->large[SIZE - 1] ^= (uint8_t)wrong;
        assert_true(fake_give(far->fake, fetch, far->large, 1));
        far->large[SIZE - 1] = last;
        fake_end(fetch, 0);
        size_t rest = 0;
        for (ssize_t n = 1; n > 0; rest += (size_t)(n > 0 ? n : 0)) {
            n = rest < SIZE - HELD ? recv(fd, buf, SIZE - HELD - rest, 0) : 0;
            if (n > 0)
                assert_memory_equal(buf, far->large + HELD + rest, (size_t)n);
        }
        assert_int_equal(rest, wrong ? 0 : SIZE - HELD);
        (void)close(fd);
    }
    assert_int_equal(bad_blocks(far), 1);
    free(buf);
}

static void the_next_range_waits_for_the_end_of_the_one_before(void **state)
{
    struct far *far = *state;
    struct reply reply;
    uint8_t buf[4096];

    put_elsewhere(far, ID, far->large, LARGE);
    int fd = ask(far, "GET", ID, "Range: bytes=1000-1099,2000000-2000009\r\n");
    struct fake_fetch *fetch = fake_fetch(far->fake, 0);
    assert_true(fake_give(far->fake, fetch, far->large, 100));
    /* The first part's head and bytes have been sent; its fetch has not been told to be over. */
    (void)take_part(fd, buf, sizeof buf, 0);
    (void)take_part(fd, buf, sizeof buf, 100);
    assert_int_equal(fake_count(far->fake), 1);
    fake_end(fetch, 0);
    fake_serve(far->fake, fake_fetch(far->fake, 1), far->large);
    const uint8_t *second = take_part(fd, buf, sizeof buf, 10);
    assert_memory_equal(second, far->large + 2000000, 10);
    (void)close(fd);

    /* And it may turn out that it cannot be had: then the answer ends there. */
    fd = ask(far, "GET", ID, "Range: bytes=1000-1099,2000000-2000009\r\n");
    fetch = fake_fetch(far->fake, 2);
    assert_true(fake_give(far->fake, fetch, far->large, 100));
    (void)pthread_mutex_lock(&far->fake->lock);
    far->fake->refusal = ERR_FULL;
    (void)pthread_mutex_unlock(&far->fake->lock);
    fake_end(fetch, 0);
    hear(fd, &reply);
    assert_int_equal(reply.status, 206);
    assert_false(reply.complete);
    reply_free(&reply);
}

static void a_body_that_ends_early_is_cut(void **state)
{
    struct far *far = *state;
    struct reply reply;

    put_elsewhere(far, ID, far->large, LARGE);
    static const int ends[] = {ERR_AGAIN, ERR_TIMEOUT, ERR_CORRUPT};
    for (unsigned i = 0; i < 3; i++) {
        struct client *client = client_start(far, ID, NULL);
        struct fake_fetch *fetch = fake_fetch(far->fake, i);

        assert_true(fake_give(far->fake, fetch, far->large, 2 * MIB));
        fake_end(fetch, ends[i]);
        client_end(&client, &reply);
        assert_int_equal(reply.status, 200);
        assert_false(reply.complete);
        assert_memory_equal(reply.body, far->large, reply.len);
        reply_free(&reply);
    }
}

/* ---- Nobody to ask ---- */

static void without_a_holder_that_answers_the_client_is_told_to_come_again(void **state)
{
    static const struct {
        int rc;
        unsigned status;
        const char *code;
    } cases[] = {{ERR_NOT_FOUND, 503, "no_holder"},
                 {ERR_TIMEOUT, 503, "no_holder"},
                 {ERR_AGAIN, 503, "no_holder"},
                 {ERR_CLOSED, 503, "no_holder"},
                 {ERR_CORRUPT, 500, "body_damaged"}};
    struct far *far = *state;
    struct reply reply;
    unsigned fetches = 0;

    put_elsewhere(far, ID, far->small, SMALL);
    put_elsewhere(far, ID2, far->large, LARGE);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int large = 0; large < 2; large++) {
            int fd = ask(far, "GET", large ? ID2 : ID, NULL);

            fake_end(fake_fetch(far->fake, fetches++), cases[i].rc);
            hear(fd, &reply);
            expect_error(&reply, cases[i].status, cases[i].code);
            reply_free(&reply);
        }
    }
}

static void a_fetch_that_cannot_begin_is_an_answer_too(void **state)
{
    static const struct {
        int rc;
        const char *code;
    } cases[] = {{ERR_NOT_FOUND, "no_holder"}, {ERR_FULL, "overloaded"}, {ERR_CLOSED, "no_holder"}};
    struct far *far = *state;
    struct reply reply;

    put_elsewhere(far, ID, far->small, SMALL);
    put_elsewhere(far, ID2, far->large, LARGE);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        far->fake->refusal = cases[i].rc;
        for (int large = 0; large < 2; large++) {
            hear(ask(far, "GET", large ? ID2 : ID, NULL), &reply);
            expect_error(&reply, 503, cases[i].code);
            reply_free(&reply);
        }
    }
    far->fake->refusal = 0;
}

static void streams_share_a_bounded_memory(void **state)
{
    struct far *far = *state;
    struct reply reply;
    int fd[2];

    put_elsewhere(far, ID, far->large, LARGE);
    /* The fixture has 2 MiB for this: two windows. */
    for (unsigned i = 0; i < 2; i++) {
        fd[i] = ask(far, "GET", ID, NULL);
        (void)fake_fetch(far->fake, i);
    }
    hear(ask(far, "GET", ID, NULL), &reply);
    expect_error(&reply, 503, "overloaded");
    reply_free(&reply);
    for (unsigned i = 0; i < 2; i++) {
        fake_end(fake_fetch(far->fake, i), ERR_TIMEOUT);
        hear(fd[i], &reply);
        expect_error(&reply, 503, "no_holder");
        reply_free(&reply);
    }
}

/* ---- Damage here ---- */

static void flip(const char *path, uint64_t offset)
{
    int fd = open(path, O_RDWR);
    uint8_t byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    assert_int_equal(close(fd), 0);
}

static struct place place_of(struct node *node, const char *text)
{
    struct db_reader *reader;
    struct object *object;
    struct id128 id;

    assert_int_equal(ulid_parse(&id, text, 26), 0);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(journal_find(node->journal, reader, &id, &object), 0);
    struct place place = object->place;
    object_destroy(&object);
    db_reader_close(&reader);
    return place;
}

static void what_is_damaged_here_comes_from_elsewhere_in_the_same_request(void **state)
{
    struct far *far = *state;
    struct node *node = far->node;
    struct reply reply;
    char path[160];

    request(node, &reply, "PUT", "/api/v1/put", "X-Meta-ID: " ID "\r\n", far->small, SMALL);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    request(node, &reply, "PUT", "/api/v1/put", "X-Meta-ID: " ID2 "\r\n", far->large, LARGE);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    /* Applied, so that the file has its final name; and the RAM tier is empty. */
    node_stop(node);
    node_start(node);
    far->fake->refusal = 0;
    struct place small = place_of(node, ID), large = place_of(node, ID2);
    (void)snprintf(path, sizeof path, "%s/log/%08x.seg", node->files, small.volume);
    flip(path, small.offset + 60000);
    (void)snprintf(path, sizeof path, "%s/large/%02x/%016llx", node->files,
                   (unsigned)(large.offset & 0xff), (unsigned long long)large.offset);
    flip(path, 4096 + 5);

    int fd = ask(far, "GET", ID, NULL);
    fake_serve(far->fake, fake_fetch(far->fake, 0), far->small);
    hear(fd, &reply);
    expect_bytes(&reply, 200, far->small, SMALL);
    reply_free(&reply);
    struct client *client = client_start(far, ID2, NULL);
    fake_serve(far->fake, fake_fetch(far->fake, 1), far->large);
    client_end(&client, &reply);
    expect_bytes(&reply, 200, far->large, LARGE);
    reply_free(&reply);
    assert_true(bad_blocks(far) >= 2);
    /* Where nobody else is to be had, the damage is the answer. */
    fd = ask(far, "GET", ID2, NULL);
    fake_end(fake_fetch(far->fake, 2), ERR_CORRUPT);
    hear(fd, &reply);
    expect_error(&reply, 500, "body_damaged");
    reply_free(&reply);
}

/* ---- Comings and goings ---- */

static void a_node_that_stops_lets_nobody_wait(void **state)
{
    struct far *far = *state;
    struct reply reply;
    int fd[2];

    put_elsewhere(far, ID, far->small, SMALL);
    put_elsewhere(far, ID2, far->large, LARGE);
    fd[0] = ask(far, "GET", ID, NULL);
    fd[1] = ask(far, "GET", ID2, NULL);
    (void)fake_fetch(far->fake, 1);
    cluster_stop(far->fake);
    for (int i = 0; i < 2; i++) {
        hear(fd[i], &reply);
        expect_error(&reply, 503, "no_holder");
        reply_free(&reply);
    }
}

struct crowd {
    struct far *far;
    unsigned seed;
    atomic_bool gone;
};

/* Ask for either body, whole or in part, and leave at any moment, or hear it out. */
static void *come_and_go(void *arg)
{
    enum { ROUNDS = 40 };
    struct crowd *crowd = arg;
    struct far *far = crowd->far;
    unsigned seed = crowd->seed;

    for (int i = 0; i < ROUNDS; i++) {
        bool large = rand_r(&seed) % 2, range = rand_r(&seed) % 2;
        const char *head = range ? "Range: bytes=100-90000\r\n" : NULL;
        int fd = ask(far, "GET", large ? ID2 : ID, head);
        const uint8_t *body = large ? far->large : far->small;
        size_t size = range ? 89901 : large ? LARGE : SMALL;
        struct reply reply;
        char some[4096];

        if (rand_r(&seed) % 3 == 0) {
            (void)close(fd);
        } else if (rand_r(&seed) % 3 == 0) {
            (void)recv(fd, some, sizeof some, 0);
            (void)close(fd);
        } else {
            hear(fd, &reply);
            if (reply.status == 200 || reply.status == 206) {
                assert_memory_equal(reply.body, body + (range ? 100 : 0), reply.len);
                assert_true(!reply.complete || reply.len == size);
            } else {
                assert_int_equal(reply.status, 503);
            }
            reply_free(&reply);
        }
    }
    atomic_store(&crowd->gone, true);
    return NULL;
}

static void clients_that_come_and_go_leave_nothing_behind(void **state)
{
    enum { CROWD = 4 };
    struct far *far = *state;
    struct crowd crowd[CROWD];
    pthread_t threads[CROWD];
    struct http_stats stats;
    unsigned next = 0;

    srand(7);
    put_elsewhere(far, ID, far->small, SMALL);
    put_elsewhere(far, ID2, far->large, LARGE);
    for (unsigned i = 0; i < CROWD; i++) {
        crowd[i] = (struct crowd){.far = far, .seed = 1000 + i};
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &crowd[i]), 0);
    }
    bool busy = true;
    while (busy) {
        while (next < fake_count(far->fake)) {
            struct fake_fetch *fetch = fake_fetch(far->fake, next++);
            uint64_t some = (uint64_t)rand() % (fetch->asked.length + 1);

            if (rand() % 4)
                fake_serve(far->fake, fetch, fetch->asked.size == LARGE ? far->large : far->small);
            else if (fake_give(far->fake, fetch,
                               fetch->asked.size == LARGE ? far->large : far->small, some))
                fake_end(fetch, ERR_TIMEOUT);
            else
                fake_end(fetch, ERR_CLOSED);
        }
        (void)sched_yield();
        http_server_stats(far->node->server, &stats);
        busy = stats.connections > 0 || stats.in_flight > 0;
        for (unsigned i = 0; i < CROWD && !busy; i++)
            busy = !atomic_load(&crowd[i].gone);
    }
    for (unsigned i = 0; i < CROWD; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

#define FAR_TEST(name) cmocka_unit_test_setup_teardown(name, setup, far_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FAR_TEST(a_small_body_comes_from_its_author_and_is_hot_then),
        FAR_TEST(parts_of_a_small_body_are_cut_from_the_whole),
        FAR_TEST(a_wrong_small_body_is_neither_sent_nor_kept),
        FAR_TEST(many_who_ask_at_once_share_one_fetch),
        FAR_TEST(all_who_share_a_fetch_hear_of_its_failure),
        FAR_TEST(heads_and_conditions_are_answered_from_the_row),
        FAR_TEST(an_empty_body_needs_nobody),
        FAR_TEST(a_body_that_is_here_says_so),
        FAR_TEST(a_body_that_is_put_here_later_is_no_symlink_any_more),
        FAR_TEST(what_is_deleted_while_it_comes_is_not_kept),
        FAR_TEST(a_node_that_is_alone_asks_nobody),
        FAR_TEST(a_large_body_is_sent_as_it_comes),
        FAR_TEST(a_range_fetches_just_its_bytes),
        FAR_TEST(several_ranges_are_one_fetch_after_the_other),
        FAR_TEST(a_wrong_large_body_is_never_whole),
        FAR_TEST(the_last_block_waits_for_the_last_byte),
        FAR_TEST(the_next_range_waits_for_the_end_of_the_one_before),
        FAR_TEST(a_body_that_ends_early_is_cut),
        FAR_TEST(without_a_holder_that_answers_the_client_is_told_to_come_again),
        FAR_TEST(a_fetch_that_cannot_begin_is_an_answer_too),
        FAR_TEST(streams_share_a_bounded_memory),
        FAR_TEST(what_is_damaged_here_comes_from_elsewhere_in_the_same_request),
        FAR_TEST(a_node_that_stops_lets_nobody_wait),
        FAR_TEST(clients_that_come_and_go_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
