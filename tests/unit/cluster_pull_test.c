/* Goal: a body that no member gives comes from the cloud, once, in order and within the reader's
 * window, from the byte that others have reached; whatever the cloud or a member does meanwhile,
 * the reader gets each byte once or is told why not, and no request outlives its owner. */
#define NODES       3
#define PATIENCE_MS 15000
#include "tests/unit/cluster_fixture.h"

#include "journal/db_peers.h"
#include "tests/unit/cloud_memory.h"

#define KEY "some/key"

static struct cloud *cloud;

static int setup_cloud(void **state)
{
    cloud = cloud_memory_create();
    return setup_nodes(state);
}

static int teardown_cloud(void **state)
{
    int rc = teardown_nodes(state);

    cloud_destroy(&cloud);
    return rc;
}

/* Start node I; SEED: the number of the one whose address it is given, or -1. */
static void up(int i, int seed)
{
    open_node(i, seed, (struct cluster_config){.cloud = cloud});
    run_node(i);
}

static struct cluster_cloud_stats stats_of(int i)
{
    struct cluster_stats stats;

    cluster_stats(nodes[i].cluster, &stats);
    return stats.cloud;
}

/* Object N of SIZE bytes, a large one, on node I. */
static void put_on(int i, unsigned n, size_t size)
{
    put_as(i, n, size, 0, true);
}

/* The same bytes in the cloud. */
static void put_in_cloud(unsigned n, size_t size)
{
    uint8_t *body = malloc(size);

    make_body(body, size, n);
    cloud_memory_set(cloud, KEY, body, size, NULL, NULL, 0, NULL, 0);
    free(body);
}

/* ---- Fetching ---- */

struct fetching {
    struct cluster_reader reader;
    struct cluster *cluster;
    uint8_t *body; /* what is to come */
    uint64_t offset, end;
    _Atomic uint64_t got;   /* up to here */
    _Atomic uint64_t limit; /* what is told as taken: up to here */
    uint64_t told, most_unread;
    bool wrong;
    int rc;
    sem_t sem;
};

static void tell(struct fetching *f)
{
    uint64_t got = atomic_load(&f->got), limit = atomic_load(&f->limit);
    uint64_t to = got < limit ? got : limit;

    if (got - f->told > f->most_unread)
        f->most_unread = got - f->told;
    if (to > f->told) {
        cluster_fetch_consumed(f->cluster, &f->reader, to - f->told);
        f->told = to;
    }
}

static void got_data(struct cluster_reader *reader, uint64_t offset, const void *bytes, size_t len)
{
    struct fetching *f = (struct fetching *)reader;

    assert_true(offset == f->got && len <= f->end - f->got);
    f->wrong |= memcmp(f->body + offset, bytes, len) != 0;
    atomic_fetch_add(&f->got, len);
    tell(f);
}

static void got_all(struct cluster_reader *reader, int rc)
{
    struct fetching *f = (struct fetching *)reader;

    f->rc = rc;
    sem_post(&f->sem);
}

/* Begin to fetch [offset, end) of object N of SIZE bytes on node I, which takes it up to LIMIT. */
static struct fetching *begin(int i, unsigned n, size_t size, uint64_t offset, uint64_t end,
                              uint64_t limit)
{
    static struct cluster_cloud place;
    struct fetching *f = calloc(1, sizeof *f);
    struct cloud_memory_object there;
    struct id128 holder = journal_node(nodes[0].node->journal);
    struct cluster_fetch fetch = {.id = make_id(n),
                                  .size = size,
                                  .offset = offset,
                                  .length = end - offset,
                                  .holders = &holder,
                                  .holder_count = i != 0,
                                  .cloud = &place};

    *f = (struct fetching){.reader = {.data = got_data, .done = got_all},
                           .cluster = nodes[i].cluster,
                           .body = malloc(size),
                           .offset = offset,
                           .end = end,
                           .told = offset,
                           .got = offset,
                           .limit = limit};
    make_body(f->body, size, n);
    sha256(f->body, size, fetch.sha256);
    snprintf(place.key, sizeof place.key, KEY);
    snprintf(place.etag, sizeof place.etag, "%s",
             cloud_memory_find(cloud, KEY, &there) ? there.etag : "none");
    sem_init(&f->sem, 0, 0);
    assert_int_equal(cluster_fetch_start(f->cluster, &fetch, &f->reader), 0);
    return f;
}

/* How it ended. */
static int finish(struct fetching *f)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_MS / 1000;
    assert_int_equal(sem_timedwait(&f->sem, &until), 0);
    int rc = f->rc;
    assert_true(rc != 0 || f->got == f->end);
    assert_false(f->wrong);
    assert_true(f->most_unread <= CLUSTER_CLOUD_BYTES);
    sem_destroy(&f->sem);
    free(f->body);
    free(f);
    return rc;
}

static int fetch_all(int i, unsigned n, size_t size)
{
    return finish(begin(i, n, size, 0, size, UINT64_MAX));
}

static unsigned gets(void)
{
    return cloud_memory_asked(cloud, CLOUD_GET);
}

/* ---- Tests ---- */

static void a_node_alone_reads_what_the_cloud_has(void **state)
{
    static const size_t sizes[] = {1, 1000, 256 * KIB, 5 * MIB + 3};

    (void)state;
    up(0, -1);
    for (unsigned i = 0; i < 4; i++) {
        put_in_cloud(i, sizes[i]);
        assert_int_equal(fetch_all(0, i, sizes[i]), 0);
        assert_int_equal(gets(), i + 1);
    }
    assert_int_equal(stats_of(0).gets, 4);
    assert_int_equal(stats_of(0).bytes, sizes[0] + sizes[1] + sizes[2] + sizes[3]);
    /* Parts: those bytes alone. */
    uint64_t before = cloud_memory_bytes_down(cloud);
    assert_int_equal(finish(begin(0, 3, sizes[3], 777, 300000, UINT64_MAX)), 0);
    assert_int_equal(finish(begin(0, 3, sizes[3], sizes[3] - 1, sizes[3], UINT64_MAX)), 0);
    assert_int_equal(cloud_memory_bytes_down(cloud) - before, 300000 - 777 + 1);
    down(0);
}

static void a_slow_reader_gets_no_more_than_its_window(void **state)
{
    const size_t size = 8 * MIB;

    (void)state;
    up(0, -1);
    put_in_cloud(1, size);
    struct fetching *f = begin(0, 1, size, 0, size, 0);
    eventually(f->got == CLOUD_WINDOW_BYTES);
    /* What was taken comes again as much. */
    atomic_store(&f->limit, size);
    cluster_fetch_consumed(f->cluster, &f->reader, 0); /* says nothing */
    uint64_t got = f->got;
    f->told = got;
    cluster_fetch_consumed(f->cluster, &f->reader, got);
    assert_int_equal(finish(f), 0);
    assert_int_equal(gets(), 1);
    down(0);
}

static void a_member_that_has_it_goes_before_the_cloud(void **state)
{
    const size_t size = 4 * MIB;

    (void)state;
    up(0, -1);
    up(1, 0);
    put_on(0, 1, size);
    put_in_cloud(1, size);
    eventually(in_state(1, PROBE_ALIVE) == 2);
    assert_int_equal(fetch_all(1, 1, size), 0);
    /* Nobody fetches such a range for all: who passes over the member asks the cloud. */
    assert_int_equal(finish(begin(1, 1, size, 777, 300000, UINT64_MAX)), 0);
    assert_int_equal(gets(), 0);

    /* It dies on the way: the cloud goes on from there. */
    struct fetching *f = begin(1, 1, size, 0, size, 0);
    eventually(f->got == BODY_WINDOW_BYTES);
    down(0);
    f->told = BODY_WINDOW_BYTES;
    atomic_store(&f->limit, size);
    cluster_fetch_consumed(f->cluster, &f->reader, BODY_WINDOW_BYTES);
    assert_int_equal(finish(f), 0);
    assert_int_equal(gets(), 1);
    assert_int_equal(cloud_memory_bytes_down(cloud), size - BODY_WINDOW_BYTES);
    down(1);
}

static void a_cloud_that_breaks_off_goes_on_where_it_was(void **state)
{
    const size_t size = 3 * MIB;

    (void)state;
    up(0, -1);
    put_in_cloud(1, size);
    cloud_memory_cut(cloud, 1000001, ERR_CLOSED);
    assert_int_equal(fetch_all(0, 1, size), 0);
    assert_int_equal(gets(), 2);
    assert_int_equal(cloud_memory_bytes_down(cloud), size);
    assert_int_equal(stats_of(0).failures, 1);
    /* One that gives nothing at all is not asked for ever, nor is one that does not answer. */
    cloud_memory_fail(cloud, CLOUD_GET, ERR_TIMEOUT, 10, false);
    assert_int_equal(fetch_all(0, 1, size), ERR_CLOUD);
    assert_int_equal(gets(), 3);
    cloud_memory_fail(cloud, CLOUD_GET, ERR_PERMISSION, 10, false);
    assert_int_equal(fetch_all(0, 1, size), ERR_CLOUD);
    cloud_memory_fail(cloud, CLOUD_GET, ERR_TIMEOUT, 0, false);
    assert_int_equal(fetch_all(0, 1, size), 0);
    /* Nor is one waited for that wants to be left alone for longer than a reader would wait. */
    cloud_memory_retry_after(cloud, 3600 * 1000);
    cloud_memory_cut(cloud, 1000001, ERR_AGAIN);
    assert_int_equal(fetch_all(0, 1, size), ERR_CLOUD);
    down(0);
}

static void other_bytes_under_the_key_are_not_taken(void **state)
{
    const size_t size = 300 * KIB;

    (void)state;
    up(0, -1);
    put_in_cloud(1, size);
    /* Of another length. */
    assert_int_equal(fetch_all(0, 2, size + 1), ERR_NOT_FOUND);
    /* A part of what has been replaced meanwhile. */
    cloud_memory_hold(cloud, true);
    struct fetching *f = begin(0, 1, size, 100, 200, UINT64_MAX);
    put_in_cloud(2, size);
    cloud_memory_hold(cloud, false);
    assert_int_equal(finish(f), ERR_NOT_FOUND);
    cloud_memory_remove(cloud, KEY);
    assert_int_equal(fetch_all(0, 1, size), ERR_NOT_FOUND);
    assert_int_equal(stats_of(0).misses, 3);
    assert_int_equal(cloud_memory_bytes_down(cloud), 0);
    down(0);
}

static void who_wants_no_more_is_let_go(void **state)
{
    const size_t size = 8 * MIB;

    (void)state;
    up(0, -1);
    put_in_cloud(1, size);
    cloud_memory_hold(cloud, true);
    struct fetching *waits = begin(0, 1, size, 0, size, UINT64_MAX);
    cloud_memory_wait(cloud, CLOUD_GET, 1);
    cluster_fetch_cancel(waits->cluster, &waits->reader);
    assert_int_equal(finish(waits), ERR_CLOSED);
    cloud_memory_hold(cloud, false);
    struct fetching *stalls = begin(0, 1, size, 0, size, 0);
    eventually(stalls->got == CLOUD_WINDOW_BYTES);
    cluster_fetch_cancel(stalls->cluster, &stalls->reader);
    assert_int_equal(finish(stalls), ERR_CLOSED);
    /* A node that stops lets go of all. */
    stalls = begin(0, 1, size, 0, size, 0);
    eventually(stalls->got == CLOUD_WINDOW_BYTES);
    cloud_memory_hold(cloud, true);
    waits = begin(0, 1, size, 0, size, UINT64_MAX);
    cloud_memory_wait(cloud, CLOUD_GET, 4);
    down(0);
    assert_int_equal(finish(stalls), ERR_CLOSED);
    assert_int_equal(finish(waits), ERR_CLOSED);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_cloud, teardown_cloud)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_node_alone_reads_what_the_cloud_has),
        TEST(a_slow_reader_gets_no_more_than_its_window),
        TEST(a_member_that_has_it_goes_before_the_cloud),
        TEST(a_cloud_that_breaks_off_goes_on_where_it_was),
        TEST(other_bytes_under_the_key_are_not_taken),
        TEST(who_wants_no_more_is_let_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
