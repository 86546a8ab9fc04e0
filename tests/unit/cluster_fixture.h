/* Nodes that are a cluster over real sockets of loopback, each with its journal and its threads. A
 * test may say before how many NODES it has, and for how long it waits at most. */
#ifndef TESTS_UNIT_CLUSTER_FIXTURE_H
#define TESTS_UNIT_CLUSTER_FIXTURE_H

#include "tests/unit/journal_fixture.h"

#include "cluster/cluster.h"

#include <time.h>

#ifndef NODES
#define NODES 3
#endif
#ifndef PATIENCE_MS
#define PATIENCE_MS 15000
#endif

struct member_node {
    struct node *node;
    struct cluster *cluster;
    char address[64];
    atomic_uint displaced;
};

static struct member_node nodes[NODES];

static inline int setup_nodes(void **state)
{
    int rc = 0;

    (void)state;
    memset(nodes, 0, sizeof nodes);
    for (int i = 0; i < NODES; i++)
        rc |= setup((void **)&nodes[i].node);
    return rc;
}

static inline int teardown_nodes(void **state)
{
    int rc = 0;

    (void)state;
    for (int i = 0; i < NODES; i++)
        rc |= teardown((void **)&nodes[i].node);
    return rc;
}

/* Open node I, whose threads do not run yet, with CONFIG, of which what every node has is filled
 * in. SEED: the number of the one whose address it is given, or -1. */
static inline void open_node(int i, int seed, struct cluster_config config)
{
    struct member_node *at = &nodes[i];
    const char *seeds[] = {seed >= 0 ? nodes[seed].address : NULL};
    char message[256];

    node_open(at->node, false);
    config.env = &at->node->env;
    config.journal = at->node->journal;
    config.private_addr = *at->address ? at->address : "127.0.0.1:0";
    config.seeds = seeds;
    config.seed_count = seed >= 0;
    if (!config.tag)
        config.tag = "test";
    if (cluster_open(&at->cluster, &config, message, sizeof message) != 0)
        fail_msg("%s", message);
    snprintf(at->address, sizeof at->address, "%s", cluster_address(at->cluster));
}

static inline void run_node(int i)
{
    nodes[i].node->threads = true;
    assert_int_equal(journal_start(nodes[i].node->journal), 0);
    assert_int_equal(cluster_start(nodes[i].cluster), 0);
}

static inline void down(int i)
{
    cluster_stop(nodes[i].cluster);
    journal_stop(nodes[i].node->journal);
    cluster_close(&nodes[i].cluster);
    node_close(nodes[i].node, true);
}

static inline uint64_t now_ms(void)
{
    return env_mono_ms(env_system());
}

/* Wait until CONDITION holds, or fail. */
#define eventually(condition)                                                                      \
    do {                                                                                           \
        uint64_t until_ = now_ms() + PATIENCE_MS;                                                  \
        while (!(condition)) {                                                                     \
            const struct timespec rest_ = {0, 2000000};                                            \
            if (now_ms() > until_)                                                                 \
                fail_msg("never: %s", #condition);                                                 \
            nanosleep(&rest_, NULL);                                                               \
        }                                                                                          \
    } while (0)

/* How many members node I sees in STATE. */
static inline unsigned in_state(int i, enum probe_state state)
{
    struct cluster_member members[16];
    size_t count = cluster_members(nodes[i].cluster, members, 16);
    unsigned found = 0;

    for (size_t k = 0; k < count; k++)
        found += members[k].joined == MEMBER_JOINED && members[k].state == state;
    return found;
}

/* Whether two nodes hold the same facts. */
static inline bool equal(int a, int b)
{
    struct hash128 x = digest_of(nodes[a].node), y = digest_of(nodes[b].node);

    return x.low == y.low && x.high == y.high;
}

static inline bool knows(int i, unsigned n)
{
    struct object *object;
    int rc = find(nodes[i].node, n, &object);

    if (rc == 0)
        object_destroy(&object);
    return rc == 0;
}

/* ---- Putting ---- */

struct waiting {
    struct change change;
    sem_t sem;
};

static inline void wake(struct change *change)
{
    sem_post(&((struct waiting *)change)->sem);
}

/* Object N of SIZE bytes and LEVEL on node I, whose threads run; as a file of its own if LARGE. */
static inline void put_as(int i, unsigned n, size_t size, uint8_t level, bool large)
{
    struct journal *journal = nodes[i].node->journal;
    struct large_writer *writer = NULL;
    uint8_t *body = malloc(size + 1);
    struct waiting waiting;

    make_body(body, size, n);
    prepare_put(&waiting.change, n, body, large ? 0 : size);
    if (large) {
        sha256(body, size, waiting.change.request.sha256);
        assert_int_equal(large_create(&writer, journal_large(journal)), 0);
        assert_int_equal(large_write(writer, body, size), 0);
        assert_int_equal(large_finish(writer, &waiting.change.file, &waiting.change.request.size,
                                      &waiting.change.trailer),
                         0);
    }
    waiting.change.request.level = level;
    waiting.change.done = wake;
    sem_init(&waiting.sem, 0, 0);
    assert_int_equal(journal_submit(journal, &waiting.change), 0);
    sem_wait(&waiting.sem);
    assert_int_equal(waiting.change.rc, 0);
    object_destroy(&waiting.change.object);
    sem_destroy(&waiting.sem);
    large_writer_destroy(&writer, false);
    free(body);
}

#endif
