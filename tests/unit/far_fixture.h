/* A node that hears of bodies which are on another one, and what its clients are given of them. The
 * cluster is the test's: cluster_fake.h. */
#ifndef TESTS_UNIT_FAR_FIXTURE_H
#define TESTS_UNIT_FAR_FIXTURE_H

#include "api_fixture.h"
#include "cluster_fake.h"

#include "journal/ulid.h"

#include <semaphore.h>

#define ID    "01BRNMMS1DK3CBD4ZZM2TQ8C5B"
#define ID2   "01BRNMMS1DK3CBD4ZZM2TQ8C5C"
#define SMALL 100000
#define LARGE (3 * MIB + 12345)

/* A node, and the run of another node's journal that it hears of. */
struct far {
    struct node *node;
    struct cluster *fake;
    struct id128 author, origin;
    uint64_t seq;
    uint8_t last[SHA256_BYTES];
    uint8_t *small, *large;
};

static inline uint8_t *make_body(size_t size, unsigned seed)
{
    uint8_t *body = malloc(size + 1);

    assert_non_null(body);
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(seed * 131 + i * 7 + (i >> 8) + (i >> 16) * 3);
    return body;
}

/* DISK_CACHE_BYTES: 0: none. */
static inline int far_setup(void **state, uint64_t disk_cache_bytes)
{
    struct far *far = calloc(1, sizeof *far);

    assert_non_null(far);
    far->fake = fake_create();
    far->node = node_prepare(0, env_system());
    far->node->cluster = far->fake;
    far->node->disk_cache_bytes = disk_cache_bytes;
    node_start(far->node);
    far->author = ulid_make(env_system(), env_wall_ms(env_system()));
    far->origin = ulid_make(env_system(), env_wall_ms(env_system()));
    far->small = make_body(SMALL, 1);
    far->large = make_body(LARGE, 2);
    *state = far;
    return 0;
}

static inline int far_teardown(void **state)
{
    struct far *far = *state;

    node_destroy(far->node);
    fake_destroy(far->fake);
    free(far->small);
    free(far->large);
    free(far);
    return 0;
}

/* ---- What is put elsewhere ---- */

struct heard {
    struct change change; /* first */
    sem_t done;
};

static inline void on_heard(struct change *change)
{
    (void)sem_post(&((struct heard *)change)->done);
}

/* Another node says that it has put BODY under TEXT; the row is here when this returns. */
static inline void put_elsewhere(struct far *far, const char *text, const void *body, size_t len)
{
    struct event event = {.origin = far->origin,
                          .seq = ++far->seq,
                          .node = far->author,
                          .stamp = (hlc_time)(env_wall_ms(env_system()) + far->seq) << 16,
                          .kind = EVENT_PUT,
                          .fields =
                              EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL | EVENT_HAS_NAME,
                          .size = len,
                          .name = {"far.txt", 7}};
    struct heard heard = {.change = {.request.kind = CHANGE_PEER, .done = on_heard}};
    struct buf raw, events;
    struct timespec until;

    assert_int_equal(ulid_parse(&event.id, text, 26), 0);
    sha256(body, len, event.sha256);
    memcpy(event.prev, far->last, sizeof event.prev);
    buf_init(&raw, 0);
    buf_init(&events, 0);
    event_encode(&raw, &event);
    assert_int_equal(buf_check(&raw), 0);
    event_hash(raw.data, raw.len, far->last);
    uint32_t length = (uint32_t)raw.len;
    buf_add(&events, &length, sizeof length);
    buf_add(&events, raw.data, raw.len);
    heard.change.events = (const uint8_t *)events.data;
    heard.change.events_bytes = events.len;
    assert_int_equal(sem_init(&heard.done, 0, 0), 0);
    assert_int_equal(journal_submit(far->node->journal, &heard.change), 0);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    assert_int_equal(sem_timedwait(&heard.done, &until), 0);
    assert_int_equal(heard.change.rc, 0);
    (void)sem_destroy(&heard.done);
    object_destroy(&heard.change.object);
    buf_release(&raw);
    buf_release(&events);
}

/* ---- Clients ---- */

/* A request that is under way. */
static inline int ask(struct far *far, const char *method, const char *id, const char *head)
{
    char text[1024];
    int fd = dial(far->node);
    int n = snprintf(text, sizeof text, "%s /api/v1/get/%.26s HTTP/1.1\r\nHost: t\r\n%s\r\n",
                     method, id, head ? head : "");

    assert_true(n > 0 && (size_t)n < sizeof text);
    send_all(fd, text, (size_t)n);
    return fd;
}

static inline void hear(int fd, struct reply *reply)
{
    receive(fd, reply, true);
    (void)close(fd);
}

/* A client on a thread of its own, for bodies that no socket's buffer takes. */
struct client {
    pthread_t thread;
    int fd;
    struct reply reply;
};

static inline void *run_client(void *arg)
{
    struct client *client = arg;

    hear(client->fd, &client->reply);
    return NULL;
}

static inline struct client *client_start(struct far *far, const char *id, const char *head)
{
    struct client *client = calloc(1, sizeof *client);

    assert_non_null(client);
    client->fd = ask(far, "GET", id, head);
    assert_int_equal(pthread_create(&client->thread, NULL, run_client, client), 0);
    return client;
}

static inline void client_end(struct client **client, struct reply *reply)
{
    assert_int_equal(pthread_join((*client)->thread, NULL), 0);
    *reply = (*client)->reply;
    free(*client);
    *client = NULL;
}

static inline void expect_error(const struct reply *reply, unsigned status, const char *code)
{
    if (reply->status != status || !strstr(reply->body, code))
        fail_msg("%u %s, not %u %s", reply->status, reply->body, status, code);
    if (status == 503)
        assert_non_null(value_of(reply, "Retry-After"));
}

static inline void expect_header(const struct reply *reply, const char *name, const char *value)
{
    const char *got = value_of(reply, name);

    if (!got || strcmp(got, value) != 0)
        fail_msg("%s is \"%s\", not \"%s\"", name, got ? got : "(missing)", value);
}

static inline void expect_bytes(const struct reply *reply, unsigned status, const uint8_t *body,
                                size_t len)
{
    if (reply->status != status)
        fail_msg("%u %s", reply->status, reply->body);
    expect_header(reply, "X-Meta-Symlink", "true");
    assert_true(reply->complete);
    assert_int_equal(reply->len, len);
    assert_memory_equal(reply->body, body, len);
}

static inline uint64_t bad_blocks(struct far *far)
{
    struct journal_stats stats;

    journal_stats(far->node->journal, &stats);
    return stats.bad_blocks;
}

#endif
