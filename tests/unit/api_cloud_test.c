/* Goal: what no node has is read from the cloud: once for all who ask at the same time, on however
 * many nodes; what comes is verified before its end is sent; who goes away disturbs nobody, and
 * what is wrong or away is said. */
#include "api_fixture.h"
#include "cloud_memory.h"
#include "journal/ulid.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#define NODES   3
#define CLIENTS 24
#define LARGE   (16 * MIB + 12345)
#define SMALL   100000

static struct node *nodes[NODES];
static struct cloud *cloud;

static unsigned alive(const struct node *node)
{
    struct cluster_member members[16];
    size_t count = cluster_members(node->cluster, members, 16);
    unsigned found = 0;

    for (size_t k = 0; k < count; k++)
        found += members[k].joined == MEMBER_JOINED && members[k].state == PROBE_ALIVE;
    return found;
}

/* Until all agree who is there: only then do they agree who fetches what. */
static void await_views(void)
{
    time_t until = time(NULL) + WAIT_S;

    for (int i = 0; i < NODES;) {
        i += alive(nodes[i]) == NODES;
        assert_true(time(NULL) <= until);
        (void)poll(NULL, 0, 2);
    }
}

static int setup(void **state)
{
    (void)state;
    cloud = cloud_memory_create();
    for (int i = 0; i < NODES; i++) {
        nodes[i] = node_prepare(0, env_system());
        nodes[i]->joins = true;
        nodes[i]->cloud = cloud;
        nodes[i]->memory_bytes = 32 * MIB;
        nodes[i]->disk_cache_bytes = 192 * MIB;
        nodes[i]->drain_ms = 100;
        if (i > 0)
            (void)snprintf(nodes[i]->seed, sizeof nodes[i]->seed, "%s", nodes[0]->address);
        node_start(nodes[i]);
    }
    await_views();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        node_destroy(nodes[i]);
    cloud_destroy(&cloud);
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

struct heard {
    struct change change; /* first */
    sem_t done;
};

static void on_heard(struct change *change)
{
    (void)sem_post(&((struct heard *)change)->done);
}

/* BODY lies in the cloud, and node 0 knows that of the object at PATH, which is of LEVEL. */
static void adopt_as(uint8_t level, const uint8_t *body, size_t len, char path[64])
{
    struct id128 id = ulid_make(env_system(), env_wall_ms(env_system()));
    struct heard heard = {.change = {.done = on_heard}};
    struct request *request = &heard.change.request;
    struct cloud_memory_object there;
    char text[ULID_TEXT_BYTES + 1];
    struct timespec until;

    ulid_format(text, &id);
    (void)snprintf(path, 64, "/api/v1/get/%s", text);
    cloud_memory_set(cloud, text, body, len, NULL, NULL, 0, NULL, 0);
    assert_true(cloud_memory_find(cloud, text, &there));
    *request = (struct request){.kind = CHANGE_ADOPT,
                                .id = id,
                                .fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL |
                                          EVENT_HAS_NAME | EVENT_HAS_CLOUD,
                                .size = len,
                                .stamp = (hlc_time)(env_wall_ms(env_system()) - 1000) << 16,
                                .level = level,
                                .name = {"a.bin", 5},
                                .backend = {"memory", 6},
                                .bucket = {"memory", 6},
                                .key = {text, ULID_TEXT_BYTES},
                                .etag = {there.etag, (uint32_t)strlen(there.etag)}};
    sha256(body, len, request->sha256);
    assert_int_equal(sem_init(&heard.done, 0, 0), 0);
    assert_int_equal(journal_submit(nodes[0]->journal, &heard.change), 0);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    assert_int_equal(sem_timedwait(&heard.done, &until), 0);
    if (heard.change.rc)
        fail_msg("adopt: %s", err_text(heard.change.rc));
    object_destroy(&heard.change.object);
    (void)sem_destroy(&heard.done);
}

static void adopt(const uint8_t *body, size_t len, char path[64])
{
    adopt_as(1, body, len, path);
}

/* Until all nodes answer a HEAD of PATH, and have in SQLite who has no copy of it. */
static void await(const char *path)
{
    time_t until = time(NULL) + WAIT_S;

    for (int i = 0; i < NODES;) {
        struct journal_stats stats;
        struct reply reply;

        request(nodes[i], &reply, "HEAD", path, NULL, NULL, 0);
        journal_stats(nodes[i]->journal, &stats);
        i += reply.status == 200 && stats.pending == 0;
        reply_free(&reply);
        assert_true(time(NULL) <= until);
        (void)sched_yield();
    }
}

static unsigned gets(void)
{
    return cloud_memory_asked(cloud, CLOUD_GET);
}

static struct cluster_cloud_stats stats_of(int i)
{
    struct cluster_stats stats;

    cluster_stats(nodes[i]->cluster, &stats);
    return stats.cloud;
}

static uint64_t sum_coalesced(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < NODES; i++)
        sum += stats_of(i).coalesced;
    return sum;
}

/* ---- Clients ---- */

struct client {
    pthread_t thread;
    const struct node *node;
    const char *path, *head;
    struct reply reply;
};

static void *run_client(void *arg)
{
    struct client *client = arg;

    request(client->node, &client->reply, "GET", client->path, client->head, NULL, 0);
    return NULL;
}

static void start(struct client *client, int node, const char *path, const char *head)
{
    *client = (struct client){.node = nodes[node], .path = path, .head = head};
    assert_int_equal(pthread_create(&client->thread, NULL, run_client, client), 0);
}

static void expect(struct client *client, unsigned status, const uint8_t *body, size_t len)
{
    struct reply *reply = &client->reply;

    assert_int_equal(pthread_join(client->thread, NULL), 0);
    if (reply->status != status)
        fail_msg("%u %s", reply->status, reply->body);
    assert_true(reply->complete);
    assert_int_equal(reply->len, len);
    assert_memory_equal(reply->body, body, len);
    reply_free(reply);
}

static unsigned in_flight(void)
{
    unsigned sum = 0;

    for (int i = 0; i < NODES; i++) {
        struct http_stats stats;

        http_server_stats(nodes[i]->server, &stats);
        sum += (unsigned)stats.in_flight;
    }
    return sum;
}

static void await_in_flight(unsigned count)
{
    time_t until = time(NULL) + WAIT_S;

    while (in_flight() != count) {
        assert_true(time(NULL) <= until);
        (void)poll(NULL, 0, 1);
    }
}

/* ---- Tests ---- */

static void all_nodes_ask_the_cloud_once(void **state)
{
    static const size_t sizes[] = {LARGE, SMALL, 1, LIMIT_INLINE_BODY_BYTES + 1};
    static struct client clients[CLIENTS];

    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        uint8_t *body = make_body(sizes[k], k);
        char path[64];

        adopt(body, sizes[k], path);
        await(path);
        cloud_memory_hold(cloud, true);
        for (int i = 0; i < CLIENTS; i++)
            start(&clients[i], i % NODES, path, NULL);
        await_in_flight(CLIENTS);
        cloud_memory_wait(cloud, CLOUD_GET, k + 1);
        cloud_memory_hold(cloud, false);
        for (int i = 0; i < CLIENTS; i++)
            expect(&clients[i], 200, body, sizes[k]);
        assert_int_equal(gets(), k + 1);
        assert_int_equal(sum_coalesced(), (k + 1) * (NODES - 1));
        /* And later nobody asks it again. */
        for (int i = 0; i < NODES; i++) {
            start(&clients[i], i, path, NULL);
            expect(&clients[i], 200, body, sizes[k]);
        }
        assert_int_equal(gets(), k + 1);
        free(body);
    }
}

/* Until each node has a durable copy of the object at PATH. */
static void await_copies(const char *path)
{
    time_t until = time(NULL) + WAIT_S;
    char meta[96];

    (void)snprintf(meta, sizeof meta, "/api/v1/meta/%s", path + strlen("/api/v1/get/"));
    for (int i = 0; i < NODES;) {
        struct reply reply;

        request(nodes[i], &reply, "GET", meta, NULL, NULL, 0);
        i += reply.status == 200 && strstr(reply.body, "\"is_symlink\":false") &&
             strstr(reply.body, "\"have\":3");
        assert_true(time(NULL) <= until);
        reply_free(&reply);
        (void)poll(NULL, 0, 2);
    }
}

static void copies_of_every_node_are_one_get_too(void **state)
{
    static const size_t sizes[] = {LARGE, SMALL, 1, LIMIT_INLINE_BODY_BYTES + 1};
    struct client clients[NODES];

    (void)state;
    for (unsigned k = 0; k < 8; k++) {
        size_t len = sizes[k % 4];
        uint8_t *body = make_body(len, k);
        char path[64];

        /* The clients and the replicators of all nodes, or these alone. */
        cloud_memory_hold(cloud, true);
        adopt_as(2, body, len, path);
        if (k < 4) {
            await(path);
            for (int i = 0; i < NODES; i++)
                start(&clients[i], i, path, NULL);
            await_in_flight(NODES);
        }
        cloud_memory_wait(cloud, CLOUD_GET, k + 1);
        cloud_memory_hold(cloud, false);
        for (int i = 0; i < NODES && k < 4; i++)
            expect(&clients[i], 200, body, len);
        await_copies(path);
        assert_int_equal(gets(), k + 1);
        free(body);
    }
}

static void the_delegate_may_be_slow_but_not_silent(void **state)
{
    uint8_t *body = make_body(LARGE, 1);
    struct client clients[NODES];
    char path[64];

    (void)state;
    adopt(body, LARGE, path);
    await(path);
    /* Longer than the deadline of a delegate that says nothing. */
    cloud_memory_allow(cloud, 0);
    for (int i = 0; i < NODES; i++)
        start(&clients[i], i, path, NULL);
    cloud_memory_wait(cloud, CLOUD_GET, 1);
    uint64_t until = env_mono_ms(env_system()) + 1500;
    while (env_mono_ms(env_system()) < until)
        (void)poll(NULL, 0, 10);
    cloud_memory_allow(cloud, UINT64_MAX);
    for (int i = 0; i < NODES; i++)
        expect(&clients[i], 200, body, LARGE);
    assert_int_equal(gets(), 1);
    free(body);
}

static void wrong_bytes_are_whole_for_nobody(void **state)
{
    static const size_t sizes[] = {LARGE, SMALL};
    struct client clients[NODES];

    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        uint8_t *body = make_body(sizes[k], k);
        char path[64];

        adopt(body, sizes[k], path);
        await(path);
        body[sizes[k] / 2] ^= 1;
        cloud_memory_set(cloud, path + strlen("/api/v1/get/"), body, sizes[k], NULL, NULL, 0, NULL,
                         0);
        for (int i = 0; i < NODES; i++)
            start(&clients[i], i, path, NULL);
        uint64_t wrong = 0;
        for (int i = 0; i < NODES; i++) {
            assert_int_equal(pthread_join(clients[i].thread, NULL), 0);
            assert_false(clients[i].reply.status == 200 && clients[i].reply.complete);
            if (sizes[k] == SMALL)
                assert_int_equal(clients[i].reply.status, 500);
            reply_free(&clients[i].reply);
            wrong += stats_of(i).wrong;
        }
        assert_true(wrong > k);
        free(body);
    }
}

static void a_cloud_that_is_away_is_said_to_be(void **state)
{
    uint8_t *body = make_body(SMALL, 1);
    struct reply reply;
    char path[64];

    (void)state;
    adopt(body, SMALL, path);
    await(path);
    cloud_memory_fail(cloud, CLOUD_GET, ERR_TIMEOUT, 100, false);
    for (int i = 0; i < NODES; i++) {
        request(nodes[i], &reply, "GET", path, NULL, NULL, 0);
        assert_int_equal(reply.status, 503);
        assert_non_null(strstr(reply.body, "cloud_unavailable"));
        assert_non_null(value_of(&reply, "Retry-After"));
        reply_free(&reply);
    }
    cloud_memory_fail(cloud, CLOUD_GET, ERR_TIMEOUT, 0, false);
    for (int i = 0; i < NODES; i++) {
        struct client client;

        start(&client, i, path, NULL);
        expect(&client, 200, body, SMALL);
    }
    cloud_memory_remove(cloud, path + strlen("/api/v1/get/"));
    free(body);
}

static void who_leaves_neither_wastes_nor_poisons_it(void **state)
{
    uint8_t *body = make_body(LARGE, 1);
    char path[64], text[128], some[1000];
    struct client client;

    (void)state;
    adopt(body, LARGE, path);
    await(path);
    cloud_memory_allow(cloud, LARGE / 2);
    int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: t\r\n\r\n", path);
    int fd = dial(nodes[1]);
    send_all(fd, text, (size_t)n);
    assert_true(recv(fd, some, sizeof some, 0) > 0);
    (void)close(fd);
    await_in_flight(0);
    cloud_memory_allow(cloud, UINT64_MAX);
    for (int i = 0; i < NODES; i++) {
        start(&client, i, path, NULL);
        expect(&client, 200, body, LARGE);
    }
    assert_int_equal(gets(), 1);
    free(body);
}

/* ---- Unknown ids ---- */

#define FETCH "X-Meta-Fetch: true\r\n"

static struct cloud_pair pair(const char *name, const char *value)
{
    return (struct cloud_pair){{name, (uint32_t)strlen(name)}, {value, (uint32_t)strlen(value)}};
}

/* BODY under a fresh id in the cloud, of which nobody here knows; what it says of itself: NAMES and
 * LEVEL, and HASHED: its SHA-256. */
static void put_there(const uint8_t *body, size_t len, bool hashed, char path[64])
{
    struct id128 id = ulid_make(env_system(), env_wall_ms(env_system()));
    uint8_t digest[SHA256_BYTES];
    char text[ULID_TEXT_BYTES + 1], hex[2 * SHA256_BYTES + 1];

    sha256(body, len, digest);
    for (size_t i = 0; i < SHA256_BYTES; i++)
        (void)snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    ulid_format(text, &id);
    (void)snprintf(path, 64, "/api/v1/get/%s", text);
    const struct cloud_pair pairs[] = {pair("id", text),
                                       pair("name", "there.txt"),
                                       pair("consistency", "0"),
                                       pair("timestamp", "1700000000000000000"),
                                       pair("usermeta-colour", "blue"),
                                       pair("sha256", hex)};
    cloud_memory_set(cloud, text, body, len, "text/plain", pairs, hashed ? 6 : 5, NULL, 0);
}

static void expect_fetched(int node, const char *path, const char *method, const uint8_t *body,
                           size_t len)
{
    struct reply reply;

    request(nodes[node], &reply, method, path, FETCH, NULL, 0);
    if (reply.status != 200)
        fail_msg("%u %s", reply.status, reply.body);
    assert_string_equal(value_of(&reply, "X-Meta-Fetched"), "true");
    assert_string_equal(value_of(&reply, "X-Meta-Name"), "there.txt");
    assert_string_equal(value_of(&reply, "X-Meta-ConsistencyLevel"), "1");
    assert_string_equal(value_of(&reply, "X-Meta-UserMeta"), "{\"colour\":\"blue\"}");
    if (strcmp(method, "GET") == 0) {
        assert_int_equal(reply.len, len);
        assert_memory_equal(reply.body, body, len);
    }
    reply_free(&reply);
}

static void expect_status(int node, const char *path, const char *head, unsigned status,
                          const char *code)
{
    struct reply reply;

    request(nodes[node], &reply, "GET", path, head, NULL, 0);
    if (reply.status != status || (code && !strstr(reply.body, code)))
        fail_msg("%u %s, not %u %s", reply.status, reply.body, status, code);
    assert_int_equal(value_of(&reply, "X-Meta-Deleted") != NULL, code && !strcmp(code, "deleted"));
    assert_int_equal(value_of(&reply, "Retry-After") != NULL, status == 503);
    reply_free(&reply);
}

static unsigned heads(void)
{
    return cloud_memory_asked(cloud, CLOUD_HEAD);
}

static void an_unknown_id_is_looked_for_where_the_client_says_so(void **state)
{
    static const size_t sizes[] = {LARGE, SMALL, 0};

    (void)state;
    for (unsigned k = 0; k < 6; k++) {
        size_t len = sizes[k % 3];
        uint8_t *body = make_body(len, k);
        unsigned before = gets(), looked = heads();
        char path[64];

        put_there(body, len, k < 3, path);
        expect_status(0, path, NULL, 404, "not_found");
        expect_status(0, path, "X-Meta-Fetch: 0\r\n", 404, "not_found");
        assert_int_equal(heads(), looked);
        expect_fetched(0, path, k % 2 ? "HEAD" : "GET", body, len);
        /* Where the SHA-256 is not told, whoever finds it out for all looks, too. */
        assert_true(heads() == looked + 2 || (k >= 3 && heads() == looked + 4));
        looked = heads();
        /* From now on it is known here and everywhere. */
        await(path);
        for (int i = 0; i < NODES; i++) {
            struct client client;

            start(&client, i, path, NULL);
            expect(&client, 200, body, len);
        }
        assert_int_equal(heads(), looked);
        /* Once, though whose turn it was may have heard of the object after it was asked. */
        assert_int_equal(gets(), before + (len > 0 || k >= 3));
        free(body);
    }
}

static void many_who_look_for_one_id_ask_once(void **state)
{
    static const int spread[] = {NODES, 1, 1, NODES};
    static struct client clients[CLIENTS];
    uint8_t *body = make_body(LARGE, 1);
    unsigned looked = 0;
    char path[64];

    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        put_there(body, LARGE, k < 2, path);
        looked = heads() + 2 * (unsigned)spread[k];
        cloud_memory_hold(cloud, true);
        for (int i = 0; i < CLIENTS; i++)
            start(&clients[i], i % spread[k], path, FETCH);
        await_in_flight(CLIENTS);
        cloud_memory_wait(cloud, CLOUD_HEAD, looked);
        cloud_memory_hold(cloud, false);
        for (int i = 0; i < CLIENTS; i++)
            expect(&clients[i], 200, body, LARGE);
        assert_in_range(heads(), looked, k < 2 ? looked : looked + 4);
        assert_int_equal(gets(), k + 1);
    }
    free(body);
}

static void what_was_deleted_stays_deleted(void **state)
{
    uint8_t *body = make_body(SMALL, 1);
    char path[64], mark[96];
    struct reply reply;

    (void)state;
    put_there(body, SMALL, true, path);
    (void)snprintf(mark, sizeof mark, ".deleted/%s", path + strlen("/api/v1/get/"));
    cloud_memory_set(cloud, mark, "", 0, NULL, NULL, 0, NULL, 0);
    expect_status(0, path, FETCH, 404, "deleted");
    expect_status(0, path, NULL, 404, "not_found");
    /* A tombstone here needs no cloud to say so. */
    put_there(body, SMALL, true, path);
    (void)snprintf(mark, sizeof mark, "/api/v1/delete/%s", path + strlen("/api/v1/get/"));
    request(nodes[0], &reply, "DELETE", mark, NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    unsigned before = heads();
    expect_status(0, path, FETCH, 404, "deleted");
    assert_int_equal(heads(), before);
    free(body);
}

static void what_cannot_be_had_of_an_unknown_id_is_said(void **state)
{
    uint8_t *body = make_body(SMALL, 1);
    char path[64];

    (void)state;
    expect_status(0, "/api/v1/get/01BRNMMS1DK3CBD4ZZM2TQ8C5B", FETCH, 404, "not_found");
    put_there(body, SMALL, false, path);
    cloud_memory_fail(cloud, CLOUD_HEAD, ERR_TIMEOUT, 1, false);
    expect_status(0, path, FETCH, 503, "cloud_unavailable");
    cloud_memory_fail(cloud, CLOUD_GET, ERR_TIMEOUT, 1000, false);
    expect_status(0, path, FETCH, 503, "cloud_unavailable");
    cloud_memory_fail(cloud, CLOUD_GET, ERR_TIMEOUT, 0, false);
    expect_status(0, path, NULL, 404, "not_found"); /* none of these was journaled */
    expect_fetched(0, path, "GET", body, SMALL);
    free(body);
}

/* Who reads a body for all is cut off: its own client is told so, those of others get it. */
static void a_body_that_breaks_off_is_not_taken_for_known(void **state)
{
    uint8_t *body = make_body(SMALL, 1);
    unsigned own = 0, others = 0;
    char path[64];

    (void)state;
    for (unsigned tries = 0; tries < 100 && (own == 0 || others == 0); tries++) {
        struct reply reply;

        put_there(body, SMALL, false, path);
        cloud_memory_cut(cloud, SMALL / 2, ERR_CLOSED);
        request(nodes[0], &reply, "GET", path, FETCH, NULL, 0);
        if (reply.status == 503) {
            own++;
            expect_status(0, path, NULL, 404, "not_found");
            expect_fetched(0, path, "GET", body, SMALL);
        } else {
            others++;
            assert_int_equal(reply.status, 200);
            assert_int_equal(reply.len, SMALL);
            assert_memory_equal(reply.body, body, SMALL);
        }
        reply_free(&reply);
    }
    assert_true(own > 0 && others > 0);
    free(body);
}

static void a_cloud_that_stays_away_is_not_asked_for_each(void **state)
{
    uint8_t *body = make_body(SMALL, 1);
    char path[64];

    (void)state;
    put_there(body, SMALL, true, path);
    cloud_memory_fail(cloud, 0, ERR_TIMEOUT, 1000, false);
    for (int i = 0; i < 50; i++)
        expect_status(0, path, FETCH, 503, "cloud_unavailable");
    assert_true(heads() < 40);
    assert_true(stats_of(0).guard.opened > 0);
    assert_true(stats_of(0).guard.refused > 0);
    cloud_memory_fail(cloud, 0, ERR_TIMEOUT, 0, false);
    time_t until = time(NULL) + WAIT_S;
    for (unsigned status = 0; status != 200;) {
        struct reply reply;

        request(nodes[0], &reply, "GET", path, FETCH, NULL, 0);
        status = reply.status;
        reply_free(&reply);
        assert_true(time(NULL) <= until);
        (void)poll(NULL, 0, 5);
    }
    free(body);
}

/* ---- Ranges ---- */

/* Bytes FROM to TO - 1 of the object at PATH, which has BODY. */
static void expect_range(int node, const char *path, const uint8_t *body, size_t from, size_t to)
{
    struct client client;
    char head[96];

    (void)snprintf(head, sizeof head, "Range: bytes=%zu-%zu\r\n", from, to - 1);
    start(&client, node, path, head);
    expect(&client, 206, body + from, to - from);
}

#define HUGE     ((size_t)(44 * MIB + 777))
#define PART     ((size_t)(8 * MIB))
#define TOO_LONG ((size_t)(65 * MIB))

/* Until the cloud has given so much in all. */
static void await_bytes(uint64_t bytes)
{
    time_t until = time(NULL) + WAIT_S;

    while (cloud_memory_bytes_down(cloud) < bytes) {
        assert_true(time(NULL) <= until);
        (void)poll(NULL, 0, 1);
    }
    assert_int_equal(cloud_memory_bytes_down(cloud), bytes);
}

static void a_range_brings_the_parts_that_it_needs(void **state)
{
    uint8_t *body = make_body(HUGE, 1);
    char path[64];

    (void)state;
    adopt(body, HUGE, path);
    await(path);
    expect_range(1, path, body, 3 * PART + 1000, 3 * PART + 1100);
    assert_int_equal(gets(), 1);
    await_bytes(PART);
    /* Over a border: two. Then all is here. */
    expect_range(1, path, body, 2 * PART - 50, 2 * PART + 50);
    assert_int_equal(gets(), 3);
    await_bytes(3 * PART);
    expect_range(1, path, body, PART + 7, 4 * PART - 9);
    expect_range(1, path, body, 2 * PART - 50, 2 * PART + 50);
    assert_int_equal(gets(), 3);
    /* The end, which is no whole part. */
    expect_range(1, path, body, HUGE - 100, HUGE);
    assert_int_equal(gets(), 4);
    await_bytes(3 * PART + HUGE % PART);
    /* Parts never count as whole, though all but two are here. */
    struct client client;
    start(&client, 1, path, NULL);
    expect(&client, 200, body, HUGE);
    assert_true(cloud_memory_bytes_down(cloud) >= HUGE);
    free(body);
}

static void a_reader_that_goes_on_finds_the_next_part_coming(void **state)
{
    static struct client clients[NODES];
    uint8_t *body = make_body(HUGE, 1);
    char path[64], head[96];

    (void)state;
    adopt(body, HUGE, path);
    await(path);
    /* All but a byte: in parts, each once for all readers of a node. */
    (void)snprintf(head, sizeof head, "Range: bytes=1-%zu\r\n", HUGE - 1);
    for (int i = 0; i < NODES; i++)
        start(&clients[i], 2, path, head);
    for (int i = 0; i < NODES; i++)
        expect(&clients[i], 206, body + 1, HUGE - 1);
    assert_int_equal(gets(), 6);
    await_bytes(HUGE);
    /* Several ranges in one answer. */
    struct reply reply;
    (void)snprintf(head, sizeof head, "Range: bytes=0-9,%zu-%zu\r\n", 3 * PART - 5, 3 * PART + 4);
    request(nodes[0], &reply, "GET", path, head, NULL, 0);
    assert_int_equal(reply.status, 206);
    assert_true(reply.complete);
    assert_non_null(memmem(reply.body, reply.len, body, 10));
    assert_non_null(memmem(reply.body, reply.len, body + 3 * PART - 5, 10));
    reply_free(&reply);
    assert_int_equal(gets(), 6); /* whoever fetched these for the others has them */
    free(body);
}

static void all_nodes_ask_for_a_part_once(void **state)
{
    static struct client clients[CLIENTS];
    static char heads_of[4][64];
    uint8_t *body = make_body(HUGE, 1);
    char path[64];

    (void)state;
    adopt(body, HUGE, path);
    await(path);
    cloud_memory_hold(cloud, true);
    for (int i = 0; i < CLIENTS; i++) {
        size_t first = ((size_t)i / NODES % 4 + 1) * PART + 100;

        (void)snprintf(heads_of[i / NODES % 4], sizeof *heads_of, "Range: bytes=%zu-%zu\r\n", first,
                       first + 199999);
        start(&clients[i], i % NODES, path, heads_of[i / NODES % 4]);
    }
    await_in_flight(CLIENTS);
    cloud_memory_wait(cloud, CLOUD_GET, 4);
    cloud_memory_hold(cloud, false);
    for (int i = 0; i < CLIENTS; i++)
        expect(&clients[i], 206, body + ((size_t)i / NODES % 4 + 1) * PART + 100, 200000);
    await_bytes(4 * PART);
    assert_int_equal(gets(), 4);
    assert_true(sum_coalesced() >= 4);
    /* Later, too, and where the end of the answer is in the next part. */
    for (int i = 0; i < NODES; i++)
        expect_range(i, path, body, 2 * PART - 50, 2 * PART + 50);
    assert_int_equal(gets(), 4);
    free(body);
}

static void a_part_is_of_the_body_that_the_row_names(void **state)
{
    uint8_t *body = make_body(HUGE, 1);
    const char *key;
    char path[64];

    (void)state;
    adopt(body, HUGE, path);
    await(path);
    key = path + strlen("/api/v1/get/");
    expect_range(1, path, body, 0, 100);
    /* Somebody has replaced it: no byte of the new one is sent, as a part cannot be verified. */
    uint8_t *other = make_body(HUGE, 2);
    cloud_memory_set(cloud, key, other, HUGE, NULL, NULL, 0, NULL, 0);
    struct client client;
    start(&client, 1, path, "Range: bytes=30000000-30000099\r\n");
    assert_int_equal(pthread_join(client.thread, NULL), 0);
    assert_false(client.reply.status == 206 && client.reply.complete &&
                 memcmp(client.reply.body, other + 30000000, 100) == 0 &&
                 memcmp(client.reply.body, body + 30000000, 100) != 0);
    reply_free(&client.reply);
    free(other);
    free(body);
}

/* Until NODE has COUNT bodies in its disk cache. */
static void await_cached(int node, unsigned count)
{
    time_t until = time(NULL) + WAIT_S;
    struct disk_cache_stats stats = {0};

    while (stats.copies < count) {
        disk_cache_stats(nodes[node]->disk_cache, &stats);
        assert_true(time(NULL) <= until);
        (void)poll(NULL, 0, 5);
    }
}

static void ranges_may_bring_all_of_it_instead(void **state)
{
    uint8_t *body = make_body(HUGE, 1);
    char path[64];

    (void)state;
    nodes[1]->whole_ranges = true;
    node_stop(nodes[1]);
    node_start(nodes[1]);
    await_views();
    adopt(body, HUGE, path);
    await(path);
    expect_range(1, path, body, 30000000, 30000100);
    assert_int_equal(gets(), 1); /* it waits for all of it */
    await_cached(1, 1);
    expect_range(1, path, body, 100, HUGE);
    assert_int_equal(gets(), 1);
    free(body);
    /* Not of a very large one: that comes behind its back. */
    body = make_body(TOO_LONG, 2);
    adopt(body, TOO_LONG, path);
    await(path);
    expect_range(1, path, body, TOO_LONG - 100, TOO_LONG);
    cloud_memory_wait(cloud, CLOUD_GET, 3);
    await_cached(1, 2);
    assert_int_equal(cloud_memory_bytes_down(cloud), HUGE + TOO_LONG + 100);
    expect_range(1, path, body, 100, TOO_LONG);
    assert_int_equal(gets(), 3);
    free(body);
}

#define CLOUD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLOUD_TEST(all_nodes_ask_the_cloud_once),
        CLOUD_TEST(copies_of_every_node_are_one_get_too),
        CLOUD_TEST(the_delegate_may_be_slow_but_not_silent),
        CLOUD_TEST(wrong_bytes_are_whole_for_nobody),
        CLOUD_TEST(a_cloud_that_is_away_is_said_to_be),
        CLOUD_TEST(who_leaves_neither_wastes_nor_poisons_it),
        CLOUD_TEST(an_unknown_id_is_looked_for_where_the_client_says_so),
        CLOUD_TEST(many_who_look_for_one_id_ask_once),
        CLOUD_TEST(what_was_deleted_stays_deleted),
        CLOUD_TEST(what_cannot_be_had_of_an_unknown_id_is_said),
        CLOUD_TEST(a_body_that_breaks_off_is_not_taken_for_known),
        CLOUD_TEST(a_cloud_that_stays_away_is_not_asked_for_each),
        CLOUD_TEST(a_range_brings_the_parts_that_it_needs),
        CLOUD_TEST(a_reader_that_goes_on_finds_the_next_part_coming),
        CLOUD_TEST(all_nodes_ask_for_a_part_once),
        CLOUD_TEST(a_part_is_of_the_body_that_the_row_names),
        CLOUD_TEST(ranges_may_bring_all_of_it_instead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
