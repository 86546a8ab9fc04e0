/* Goal: what a node answers when its disk fails, fills up, or never has anything at hand; and what
 * the store's operations promise whatever the door. */
#include "api_fixture.h"
#include "base/hash.h"
#include "base/io.h"
#include "journal/ulid.h"

#include <jansson.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

/* The system's disk with switches; any thread. */
struct disk {
    struct io io; /* first */
    struct env env;
    atomic_bool cold; /* NOWAIT reads find nothing */
    atomic_bool sync_fails, full;
};

static struct disk *disk_of(struct io *io)
{
    return (struct disk *)io;
}

static ssize_t disk_pread(struct io *io, int fd, void *buf, size_t len, uint64_t offset,
                          bool nowait)
{
    if (nowait && atomic_load(&disk_of(io)->cold))
        return ERR_AGAIN;
    return io_system()->pread(io_system(), fd, buf, len, offset, nowait);
}

static int disk_fdatasync(struct io *io, int fd)
{
    if (atomic_load(&disk_of(io)->sync_fails))
        return ERR_IO;
    return io_system()->fdatasync(io_system(), fd);
}

static int disk_space(struct io *io, const char *path, struct io_space *out)
{
    int rc = io_system()->space(io_system(), path, out);

    if (atomic_load(&disk_of(io)->full))
        out->free_bytes = 1000;
    return rc;
}

/* Time runs a hundred times faster, so that quiet spells are short. */
static uint64_t fast_mono_ns(struct env *env)
{
    (void)env;
    return env_system()->mono_ns(env_system()) * 100;
}

static int setup(void **state)
{
    struct disk *disk = calloc(1, sizeof *disk);

    assert_non_null(disk);
    disk->io = *io_system();
    disk->io.pread = disk_pread;
    disk->io.fdatasync = disk_fdatasync;
    disk->io.space = disk_space;
    disk->env = *env_system();
    disk->env.io = &disk->io;
    *state = node_create(0, &disk->env);
    return 0;
}

static struct disk *disk_under(struct node *node)
{
    return disk_of(node->env->io);
}

static int teardown(void **state)
{
    struct node *node = *state;
    struct disk *disk = disk_under(node);

    node_destroy(node);
    free(disk);
    return 0;
}

static uint8_t *make_body(size_t size)
{
    uint8_t *body = malloc(size + 1);

    assert_non_null(body);
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(i * 7 + (i >> 8) + (i >> 16) * 3);
    return body;
}

static void put(struct node *node, const void *body, size_t len, char id[27])
{
    struct reply reply;

    request(node, &reply, "PUT", "/api/v1/put", NULL, body, len);
    if (reply.status != 200)
        fail_msg("%u %s", reply.status, reply.body);
    (void)snprintf(id, 27, "%.26s", value_of(&reply, "X-Meta-Id"));
    reply_free(&reply);
}

static void get(struct node *node, struct reply *reply, const char *id, const char *head)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/api/v1/get/%.26s", id);
    request(node, reply, "GET", path, head, NULL, 0);
}

static void expect_status(struct node *node, const char *method, const char *path, unsigned status,
                          const char *code)
{
    struct reply reply;

    request(node, &reply, method, path, NULL, "x", strcmp(method, "PUT") == 0);
    if (reply.status != status || (code && !strstr(reply.body, code)))
        fail_msg("%s %s: %u %s", method, path, reply.status, reply.body);
    if (status == 503 && strcmp(path, "/readyz") != 0)
        assert_non_null(value_of(&reply, "Retry-After"));
    reply_free(&reply);
}

/* Ask for PATH until it answers STATUS. */
static void wait_for(struct node *node, const char *path, const char *text)
{
    time_t until = time(NULL) + WAIT_S;
    bool there = false;

    while (!there) {
        struct reply reply;

        request(node, &reply, "GET", path, NULL, NULL, 0);
        there = strstr(reply.body, text) != NULL;
        reply_free(&reply);
        if (time(NULL) > until)
            fail_msg("%s never says %s", path, text);
        (void)sched_yield();
    }
}

static void a_disk_that_is_never_ready_slows_but_serves(void **state)
{
    static const size_t sizes[] = {1000, 200000, 2 * MIB + 33};
    struct node *node = *state;

    atomic_store(&disk_under(node)->cold, true);
    for (int s = 0; s < 3; s++) {
        uint8_t *body = make_body(sizes[s]);
        struct reply reply;
        char id[27];

        put(node, body, sizes[s], id);
        for (int i = 0; i < 2; i++) {
            get(node, &reply, id, NULL);
            assert_int_equal(reply.status, 200);
            assert_int_equal(reply.len, sizes[s]);
            assert_memory_equal(reply.body, body, sizes[s]);
            reply_free(&reply);
            get(node, &reply, id, "Range: bytes=100-199,500-899\r\nIf-None-Match: \"other\"\r\n");
            assert_int_equal(reply.status, 206);
            assert_true(reply.complete);
            reply_free(&reply);
        }
        free(body);
    }
}

static void a_failed_sync_ends_writing_but_not_reading(void **state)
{
    struct node *node = *state;
    struct reply reply;
    char id[27], path[64];

    put(node, "before", 6, id);
    atomic_store(&disk_under(node)->sync_fails, true);
    request(node, &reply, "PUT", "/api/v1/put", NULL, "x", 1);
    assert_in_range(reply.status, 500, 503); /* nobody can know whether it is there */
    reply_free(&reply);
    atomic_store(&disk_under(node)->sync_fails, false);
    /* It stays so: what the disk holds now is unknown until a restart has read it. */
    expect_status(node, "PUT", "/api/v1/put", 503, "read_only");
    (void)snprintf(path, sizeof path, "/api/v1/delete/%.26s", id);
    expect_status(node, "POST", path, 503, "read_only");
    (void)snprintf(path, sizeof path, "/api/v1/meta/%.26s", id);
    expect_status(node, "POST", path, 503, "read_only");
    expect_status(node, "GET", "/readyz", 503, "\"ready\":false");
    expect_status(node, "GET", "/healthz", 200, NULL);
    get(node, &reply, id, NULL);
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body, "before");
    reply_free(&reply);

    node_stop(node);
    node_start(node);
    expect_status(node, "PUT", "/api/v1/put", 200, NULL);
    get(node, &reply, id, NULL);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
}

static void a_full_disk_takes_deletes_but_no_bodies(void **state)
{
    struct node *node = *state;
    struct reply reply;
    char id[27], path[64];

    put(node, "before", 6, id);
    atomic_store(&disk_under(node)->full, true);
    wait_for(node, "/readyz", "\"disk_full\":true");
    expect_status(node, "PUT", "/api/v1/put", 507, "no_space");
    get(node, &reply, id, NULL);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    (void)snprintf(path, sizeof path, "/api/v1/delete/%.26s", id);
    expect_status(node, "POST", path, 200, "\"is_deleted\":true");
    expect_status(node, "GET", "/readyz", 200, "\"ready\":true");
    atomic_store(&disk_under(node)->full, false);
    wait_for(node, "/readyz", "\"disk_full\":false");
    expect_status(node, "PUT", "/api/v1/put", 200, NULL);
}

/* ---- The store without a door ---- */

struct outcome {
    sem_t ready;
    struct store_result result;
};

static void note(void *arg, const struct store_result *result)
{
    struct outcome *outcome = arg;

    outcome->result = *result;
    (void)sem_post(&outcome->ready);
}

static int finish(struct store_put *put, struct outcome *outcome)
{
    assert_int_equal(sem_init(&outcome->ready, 0, 0), 0);
    store_put_finish(put, note, outcome);
    while (sem_wait(&outcome->ready) != 0)
        ;
    (void)sem_destroy(&outcome->ready);
    return outcome->result.rc;
}

static void uploads_take_bounded_memory(void **state)
{
    enum {
        MOST = STORE_UPLOAD_BYTES / LIMIT_INLINE_BODY_BYTES,
        SENT = LIMIT_INLINE_BODY_BYTES / 2
    };
    struct node *node = *state;
    const struct store_put_options options = {.length = LIMIT_INLINE_BODY_BYTES};
    struct store_put *puts[MOST], *one_more;
    uint8_t *body = make_body(SENT);

    for (int i = 0; i < MOST; i++) {
        assert_int_equal(store_put_begin(&puts[i], node->store, &options), 0);
        assert_int_equal(store_put_write(puts[i], body, SENT), 0);
    }
    /* Who has sent nothing yet takes nothing. */
    assert_int_equal(store_put_begin(&one_more, node->store, &options), 0);
    assert_int_equal(store_put_write(one_more, body, SENT), ERR_FULL);
    store_put_destroy(&puts[0]);
    assert_int_equal(store_put_write(one_more, body, SENT), 0);
    puts[0] = one_more;
    for (int i = 0; i < MOST; i++)
        store_put_destroy(&puts[i]);
    free(body);
}

static void a_body_must_be_as_long_as_announced(void **state)
{
    static const size_t lengths[] = {1000, LIMIT_INLINE_BODY_BYTES + 1000};
    struct node *node = *state;

    for (int i = 0; i < 2; i++) {
        const struct store_put_options options = {.length = lengths[i]};
        uint8_t *body = make_body(lengths[i]);
        struct outcome outcome;
        struct store_put *put;

        assert_int_equal(store_put_begin(&put, node->store, &options), 0);
        assert_int_equal(store_put_write(put, body, lengths[i] - 1), 0);
        assert_int_equal(store_put_write(put, body, 2), ERR_MISMATCH);
        assert_int_equal(finish(put, &outcome), ERR_MISMATCH);
        store_put_destroy(&put);

        assert_int_equal(store_put_begin(&put, node->store, &options), 0);
        assert_int_equal(store_put_write(put, body, lengths[i]), 0);
        assert_int_equal(finish(put, &outcome), 0);
        assert_true(outcome.result.created);
        uint8_t want[SHA256_BYTES];
        sha256(body, lengths[i], want);
        assert_memory_equal(outcome.result.object->sha256, want, sizeof want);
        store_put_destroy(&put);
        free(body);
    }
}

/* One look at ID, straight from the journal and the log. */
static void expect_stored(struct node *node, struct db_reader *reader, const char *text,
                          const uint8_t *want, size_t len)
{
    struct store_body *body;
    struct id128 id;

    assert_int_equal(ulid_parse(&id, text, 26), 0);
    int rc = store_open(&body, node->store, reader, &id, true);
    if (rc)
        fail_msg("%s: %s", text, err_text(rc));
    assert_int_equal(store_body_object(body)->size, len);
    assert_memory_equal(store_body_inline(body), want, len);
    store_body_close(&body);
}

static void reads_follow_what_cleaning_moves(void **state)
{
    enum { OBJECTS = 60, SIZE = 20000 };
    struct node *node = *state;
    uint8_t *body = make_body(SIZE);
    char ids[OBJECTS][27], path[64];
    struct db_reader *reader;
    struct journal_stats stats;
    time_t until = time(NULL) + WAIT_S;
    lsn_t seen = 0;

    node_stop(node);
    node->segment_bytes = 256 * KIB;
    node->env->mono_ns = fast_mono_ns;
    node_start(node);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    for (int i = 0; i < OBJECTS; i++)
        put(node, body, SIZE, ids[i]);
    for (int i = 0; i < OBJECTS; i++) {
        (void)snprintf(path, sizeof path, "/api/v1/delete/%.26s", ids[i]);
        if (i % 3)
            expect_status(node, "POST", path, 200, NULL);
    }
    do {
        char another[27];

        for (int i = 0; i < OBJECTS; i += 3)
            expect_stored(node, reader, ids[i], body, SIZE);
        /* What is freed must lie below a checkpoint: those come in quiet spells, where there is
         * something new. */
        journal_stats(node->journal, &stats);
        if (stats.durable_position != seen)
            put(node, "x", 1, another);
        seen = stats.durable_position;
        if (time(NULL) > until)
            fail_msg("%llu segments, %llu cleaned, %llu moved, %llu bytes dead",
                     (unsigned long long)stats.segments, (unsigned long long)stats.cleaned_segments,
                     (unsigned long long)stats.moved_records, (unsigned long long)stats.dead_bytes);
    } while (stats.cleaned_segments < 2);
    assert_int_equal(stats.bad_blocks, 0);
    for (int i = 0; i < OBJECTS; i += 3) {
        struct reply reply;

        get(node, &reply, ids[i], NULL);
        assert_int_equal(reply.status, 200);
        assert_memory_equal(reply.body, body, SIZE);
        reply_free(&reply);
    }
    db_reader_close(&reader);
    free(body);
}

/* Any split into pieces is the same body, also across the border to a file of its own. */
static void pieces_make_one_body(void **state)
{
    static const size_t steps[] = {1, 777, 4096, BLOCK_BYTES, 100000, LIMIT_INLINE_BODY_BYTES};
    static const size_t sizes[] = {5000, LIMIT_INLINE_BODY_BYTES, LIMIT_INLINE_BODY_BYTES + 5000};
    struct node *node = *state;

    for (int s = 0; s < 3; s++) {
        uint8_t *body = make_body(sizes[s]), want[SHA256_BYTES];

        sha256(body, sizes[s], want);
        for (size_t i = s == 0 ? 0 : 1; i < sizeof steps / sizeof *steps; i++) {
            const struct store_put_options options = {.length = UINT64_MAX};
            struct outcome outcome;
            struct store_put *put;

            assert_int_equal(store_put_begin(&put, node->store, &options), 0);
            for (size_t at = 0; at < sizes[s]; at += steps[i]) {
                size_t len = sizes[s] - at < steps[i] ? sizes[s] - at : steps[i];

                assert_int_equal(store_put_write(put, body + at, len), 0);
            }
            assert_int_equal(finish(put, &outcome), 0);
            assert_int_equal(outcome.result.object->size, sizes[s]);
            assert_memory_equal(outcome.result.object->sha256, want, sizeof want);
            store_put_destroy(&put);
        }
        free(body);
    }
}

int main(void)
{
#define NODE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        NODE_TEST(a_disk_that_is_never_ready_slows_but_serves),
        NODE_TEST(a_failed_sync_ends_writing_but_not_reading),
        NODE_TEST(a_full_disk_takes_deletes_but_no_bodies),
        NODE_TEST(uploads_take_bounded_memory),
        NODE_TEST(a_body_must_be_as_long_as_announced),
        NODE_TEST(pieces_make_one_body),
        NODE_TEST(reads_follow_what_cleaning_moves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
