/* Goal: of the nodes that want to know which bytes an unknown id has, one finds out, and the others
 * hear of it once they know the row themselves; whoever cannot rely on another is told so, soon,
 * and nothing that is asked for, or waits, is without a bound or outlives its owner. */
#define NODES       3
#define PATIENCE_MS 15000
#include "tests/unit/cluster_fixture.h"

#include "tests/unit/cloud_memory.h"

#define SIZE 1000

/* What the store does for its cluster on node I. */
static struct finder {
    int node;
    _Atomic enum manner { FINDS, REFUSES, FAILS, WAITS } manner;
    struct cluster_seek
        *waiting[LIMIT_SEEKS_SERVED]; /* `wait_count` of them, the cluster's thread's */
    atomic_uint wait_count;
    atomic_uint asked;
    pthread_t thread;
    atomic_bool found;
} finders[NODES];

static int number_of(const struct id128 *id)
{
    for (unsigned n = 0; n < 1000; n++) {
        struct id128 it = make_id(n);

        if (id_equal(&it, id))
            return (int)n;
    }
    fail_msg("an id that nobody asked for");
    return -1;
}

static void hash_of(unsigned n, uint8_t out[SHA256_BYTES])
{
    uint8_t body[SIZE];

    make_body(body, sizeof body, n);
    sha256(body, sizeof body, out);
}

struct finding {
    struct finder *finder;
    struct cluster_seek *seek;
    unsigned n;
};

static void *find_out(void *arg)
{
    struct finding *it = arg;
    uint8_t hash[SHA256_BYTES];

    put_as(it->finder->node, it->n, SIZE, 0, false);
    hash_of(it->n, hash);
    it->seek->done(it->seek, 0, hash);
    free(it);
    return NULL;
}

static int on_seek(void *arg, const struct id128 *id, struct cluster_seek *seek)
{
    struct finder *finder = arg;
    struct finding *it;

    atomic_fetch_add(&finder->asked, 1);
    switch (atomic_load(&finder->manner)) {
    case REFUSES:
        return ERR_FULL;
    case FAILS:
        seek->done(seek, ERR_CLOUD, NULL);
        return 0;
    case WAITS:
        finder->waiting[atomic_load(&finder->wait_count)] = seek;
        atomic_fetch_add(&finder->wait_count, 1);
        return 0;
    default:
        if (finder->found)
            return ERR_FULL;
        finder->found = true;
        it = calloc(1, sizeof *it);
        *it = (struct finding){finder, seek, (unsigned)number_of(id)};
        assert_int_equal(pthread_create(&finder->thread, NULL, find_out, it), 0);
        return 0;
    }
}

/* What waits at node I ends. */
static void let_go(int i, int rc, const uint8_t hash[SHA256_BYTES])
{
    for (unsigned k = 0; k < atomic_load(&finders[i].wait_count); k++)
        finders[i].waiting[k]->done(finders[i].waiting[k], rc, hash);
    atomic_store(&finders[i].wait_count, 0);
}

static int no_loan(void *arg, const struct object *object, uint64_t offset, uint64_t end,
                   struct db_reader *reader, void **loan)
{
    (void)arg, (void)object, (void)offset, (void)end, (void)reader, (void)loan;
    return ERR_UNSUPPORTED;
}

static struct cloud *cloud;

static int setup_cloud(void **state)
{
    memset(finders, 0, sizeof finders);
    cloud = cloud_memory_create();
    return setup_nodes(state);
}

static int teardown_cloud(void **state)
{
    int rc = teardown_nodes(state);

    cloud_destroy(&cloud);
    return rc;
}

static void up(int i, int seed)
{
    const struct cluster_lender lender = {.open = no_loan, .seek = on_seek, .arg = &finders[i]};

    open_node(i, seed, (struct cluster_config){.cloud = cloud});
    finders[i].node = i;
    cluster_lend(nodes[i].cluster, &lender);
    run_node(i);
}

static void all_up(void)
{
    for (int i = 0; i < NODES; i++)
        up(i, i ? 0 : -1);
    for (int i = 0; i < NODES; i++)
        eventually(in_state(i, PROBE_ALIVE) == NODES);
}

static void all_down(void)
{
    for (int i = 0; i < NODES; i++)
        down(i);
}

/* ---- Seeking ---- */

struct seeking {
    struct cluster_reader reader;
    int node;
    unsigned n;
    uint8_t hash[SHA256_BYTES];
    size_t got;
    int rc;
    bool known; /* when it ended */
    uint64_t begun_ms, took_ms;
    atomic_bool over;
};

static void on_data(struct cluster_reader *reader, uint64_t offset, const void *bytes, size_t len)
{
    struct seeking *it = (struct seeking *)reader;

    assert_true(offset == it->got && len <= SHA256_BYTES - it->got);
    memcpy(it->hash + offset, bytes, len);
    it->got += len;
}

static void on_done(struct cluster_reader *reader, int rc)
{
    struct seeking *it = (struct seeking *)reader;

    it->rc = rc;
    it->known = knows(it->node, it->n);
    it->took_ms = now_ms() - it->begun_ms;
    atomic_store(&it->over, true);
}

static int begin(struct seeking *it, int node, unsigned n)
{
    const struct id128 id = make_id(n);

    *it = (struct seeking){
        .reader = {.data = on_data, .done = on_done}, .node = node, .n = n, .begun_ms = now_ms()};
    return cluster_seek_start(nodes[node].cluster, &id, &it->reader);
}

/* How it ended; once more where the machine was too busy for a node to say in time that it is about
 * it. */
static int seek(int node, unsigned n, struct seeking *it)
{
    for (int tries = 0; tries < 5; tries++) {
        assert_int_equal(begin(it, node, n), 0);
        eventually(atomic_load(&it->over));
        if (it->rc != ERR_TIMEOUT)
            break;
    }
    return it->rc;
}

/* The node to which the others leave N; it leaves it to nobody. */
static int delegate_of(unsigned n)
{
    struct seeking it;
    int found = -1;

    for (int i = 0; i < NODES; i++) {
        finders[i].manner = REFUSES;
        atomic_store(&finders[i].asked, 0);
    }
    for (int i = 0; i < NODES; i++) {
        int rc = seek(i, n, &it);

        assert_true(rc == ERR_AGAIN || rc == ERR_NOT_FOUND);
        if (rc == ERR_NOT_FOUND) {
            assert_int_equal(found, -1);
            found = i;
        }
    }
    assert_true(found >= 0);
    for (int i = 0; i < NODES; i++)
        assert_true(i == found ? finders[i].asked >= NODES - 1 : finders[i].asked == 0);
    return found;
}

/* ---- Tests ---- */

static void one_finds_out_and_all_know(void **state)
{
    uint8_t hash[SHA256_BYTES];
    struct seeking it;

    (void)state;
    all_up();
    for (unsigned n = 0; n < 6; n++) {
        int delegate = delegate_of(n);

        finders[delegate].manner = FINDS;
        finders[delegate].found = false;
        atomic_store(&finders[delegate].asked, 0);
        hash_of(n, hash);
        for (int k = 1; k < NODES; k++) {
            assert_int_equal(seek((delegate + k) % NODES, n, &it), 0);
            assert_true(it.known && it.got == SHA256_BYTES);
            assert_memory_equal(it.hash, hash, SHA256_BYTES);
        }
        /* The second one has found it to be known. */
        assert_int_equal(finders[delegate].asked, 1);
        assert_int_equal(pthread_join(finders[delegate].thread, NULL), 0);
    }
    all_down();
}

static void who_cannot_rely_on_another_is_told(void **state)
{
    struct seeking it;

    (void)state;
    all_up();
    int delegate = delegate_of(1), other = (delegate + 1) % NODES;
    finders[delegate].manner = FAILS;
    assert_int_equal(seek(other, 1, &it), ERR_AGAIN);
    assert_false(it.known);
    /* It is about it, and then gone. */
    finders[delegate].manner = WAITS;
    assert_int_equal(begin(&it, other, 1), 0);
    eventually(finders[delegate].wait_count == 1);
    let_go(delegate, ERR_CLOSED, NULL);
    down(delegate);
    eventually(atomic_load(&it.over));
    assert_int_not_equal(it.rc, 0);
    for (int i = 0; i < NODES; i++)
        if (i != delegate)
            down(i);
}

static void what_does_not_become_known_here_is_not_waited_for(void **state)
{
    uint8_t hash[SHA256_BYTES];
    struct seeking it;

    (void)state;
    all_up();
    int delegate = delegate_of(1), other = (delegate + 1) % NODES;
    finders[delegate].manner = WAITS;
    assert_int_equal(begin(&it, other, 1), 0);
    eventually(finders[delegate].wait_count == 1);
    hash_of(1, hash);
    let_go(delegate, 0, hash); /* it lies */
    eventually(atomic_load(&it.over));
    assert_int_equal(it.rc, ERR_TIMEOUT);
    assert_false(it.known);
    all_down();
}

static void a_node_alone_is_told_at_once(void **state)
{
    struct seeking it;

    (void)state;
    up(0, -1);
    assert_int_equal(begin(&it, 0, 1), ERR_NOT_FOUND);
    down(0);
}

static void there_is_a_bound_and_a_stop_ends_all(void **state)
{
    static struct seeking all[LIMIT_SEEKS];
    struct seeking more;

    (void)state;
    all_up();
    int delegate = delegate_of(1), other = (delegate + 1) % NODES;
    for (int i = 0; i < NODES; i++)
        finders[i].manner = WAITS;
    for (unsigned i = 0; i < LIMIT_SEEKS; i++)
        assert_int_equal(begin(&all[i], other, 1), 0);
    assert_int_equal(begin(&more, other, 1), ERR_FULL);
    eventually(finders[delegate].wait_count == LIMIT_SEEKS);
    down(other);
    for (unsigned i = 0; i < LIMIT_SEEKS; i++) {
        assert_true(all[i].over);
        assert_true(all[i].rc == ERR_CLOSED || all[i].rc == ERR_TIMEOUT);
    }
    let_go(delegate, ERR_CLOSED, NULL);
    for (int k = 0; k < NODES; k++)
        if (k != other)
            down(k);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup_cloud, teardown_cloud)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_finds_out_and_all_know),
        TEST(who_cannot_rely_on_another_is_told),
        TEST(what_does_not_become_known_here_is_not_waited_for),
        TEST(a_node_alone_is_told_at_once),
        TEST(there_is_a_bound_and_a_stop_ends_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
