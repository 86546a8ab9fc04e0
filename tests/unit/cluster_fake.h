/*
 * A cluster of this node and whatever the test says: it stands in for cluster/cluster.c, so a test
 * that includes it defines all of cluster.h's functions. The test's thread is the cluster's: it
 * waits for a fetch, gives it bytes within the window, and ends it. Every wait has a deadline.
 */
#ifndef TESTS_UNIT_CLUSTER_FAKE_H
#define TESTS_UNIT_CLUSTER_FAKE_H

#include "cluster/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FAKE_FETCHES 512
#define FAKE_WAIT_S  20

struct fake_fetch {
    struct cluster_reader *reader;
    struct cluster_fetch asked; /* without its holders */
    struct id128 holder;        /* the first */
    uint64_t given, consumed;
    bool cancelled, over;
};

struct cluster {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool alone;
    bool has_cloud; /* … which has every body, under the key "fake" */
    uint64_t misfits;
    struct cluster_lender lender;
    int refusal; /* of the next starts */
    unsigned count;
    struct fake_fetch fetches[FAKE_FETCHES];
};

static struct cluster *fake_create(void)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);

    assert_non_null(cluster);
    (void)pthread_mutex_init(&cluster->lock, NULL);
    (void)pthread_cond_init(&cluster->changed, NULL);
    return cluster;
}

static void fake_destroy(struct cluster *cluster)
{
    for (unsigned i = 0; i < cluster->count; i++)
        assert_true(cluster->fetches[i].over);
    (void)pthread_mutex_destroy(&cluster->lock);
    (void)pthread_cond_destroy(&cluster->changed);
    free(cluster);
}

/* ---- What the code under test calls ---- */

int cluster_fetch_start(struct cluster *cluster, const struct cluster_fetch *fetch,
                        struct cluster_reader *reader)
{
    (void)pthread_mutex_lock(&cluster->lock);
    int rc = cluster->refusal;
    if (rc == 0) {
        struct fake_fetch *it = &cluster->fetches[cluster->count];

        assert_true(cluster->count < FAKE_FETCHES);
        it->reader = reader;
        it->asked = *fetch;
        it->asked.holders = NULL;
        if (fetch->holder_count)
            it->holder = fetch->holders[0];
        reader->number = ++cluster->count;
        (void)pthread_cond_broadcast(&cluster->changed);
    }
    (void)pthread_mutex_unlock(&cluster->lock);
    return rc;
}

static struct fake_fetch *fake_of(struct cluster *cluster, const struct cluster_reader *reader)
{
    assert_in_range(reader->number, 1, cluster->count);
    return &cluster->fetches[reader->number - 1];
}

void cluster_fetch_consumed(struct cluster *cluster, struct cluster_reader *reader, uint64_t bytes)
{
    (void)pthread_mutex_lock(&cluster->lock);
    struct fake_fetch *it = fake_of(cluster, reader);
    it->consumed += bytes;
    assert_true(it->consumed <= it->given);
    (void)pthread_cond_broadcast(&cluster->changed);
    (void)pthread_mutex_unlock(&cluster->lock);
}

void cluster_fetch_cancel(struct cluster *cluster, struct cluster_reader *reader)
{
    (void)pthread_mutex_lock(&cluster->lock);
    fake_of(cluster, reader)->cancelled = true;
    (void)pthread_cond_broadcast(&cluster->changed);
    (void)pthread_mutex_unlock(&cluster->lock);
}

bool cluster_cloud_of(const struct cluster *cluster, const struct object *object,
                      struct cluster_cloud *out)
{
    (void)object;
    if (cluster->has_cloud)
        *out = (struct cluster_cloud){.bucket = "b", .key = "fake", .etag = "e"};
    return cluster->has_cloud;
}

void cluster_fetch_misfit(struct cluster *cluster, const struct cluster_reader *reader)
{
    (void)reader;
    (void)pthread_mutex_lock(&cluster->lock);
    cluster->misfits++;
    (void)pthread_mutex_unlock(&cluster->lock);
}

bool cluster_is_alone(struct cluster *cluster)
{
    return cluster->alone;
}

static inline void fake_end(struct fake_fetch *fetch, int rc)
{
    assert_false(fetch->over);
    fetch->over = true;
    fetch->reader->done(fetch->reader, rc);
}

/* As the real one: whatever is under way ends, and nothing begins any more. */
void cluster_stop(struct cluster *cluster)
{
    (void)pthread_mutex_lock(&cluster->lock);
    cluster->refusal = ERR_CLOSED;
    (void)pthread_mutex_unlock(&cluster->lock);
    for (unsigned i = 0; i < cluster->count; i++)
        if (!cluster->fetches[i].over)
            fake_end(&cluster->fetches[i], ERR_CLOSED);
}

bool cluster_is_near(struct cluster *cluster, const struct id128 *nodes, size_t count)
{
    (void)cluster;
    (void)nodes;
    return count > 0;
}

struct cloud *cluster_cloud(const struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

const char *cluster_cloud_prefix(const struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

void cluster_lend(struct cluster *cluster, const struct cluster_lender *lender)
{
    cluster->lender = *lender;
}

/* Nobody reads it for all. */
int cluster_seek_start(struct cluster *cluster, const struct id128 *id,
                       struct cluster_reader *reader)
{
    (void)cluster;
    (void)id;
    (void)reader;
    return ERR_UNSUPPORTED;
}

/* The store itself calls none of these. */

int cluster_open(struct cluster **out, const struct cluster_config *config, char *message,
                 size_t cap)
{
    (void)config;
    (void)message;
    (void)cap;
    *out = NULL;
    return ERR_UNSUPPORTED;
}

int cluster_start(struct cluster *cluster)
{
    (void)cluster;
    return ERR_UNSUPPORTED;
}

void cluster_close(struct cluster **cluster)
{
    *cluster = NULL;
}

const char *cluster_address(const struct cluster *cluster)
{
    (void)cluster;
    return "";
}

int cluster_declare(struct cluster *cluster, const struct cluster_member *node,
                    enum member_state state)
{
    (void)cluster;
    (void)node;
    (void)state;
    return ERR_UNSUPPORTED;
}

int cluster_rejoin(struct cluster *cluster)
{
    (void)cluster;
    return ERR_UNSUPPORTED;
}

int cluster_raise(struct cluster *cluster, uint32_t level)
{
    (void)cluster;
    (void)level;
    return ERR_UNSUPPORTED;
}

int cluster_sole_of(struct cluster *cluster, const struct id128 *node, struct cluster_sole *out)
{
    (void)cluster;
    (void)node;
    (void)out;
    return ERR_UNSUPPORTED;
}

int cluster_ask(struct cluster *cluster, const struct id128 *node, struct wire_message *question,
                struct cluster_answer *answer)
{
    (void)cluster;
    (void)node;
    (void)question;
    (void)answer;
    return ERR_UNSUPPORTED;
}

int cluster_tell(struct cluster *cluster, const struct id128 *node, struct wire_message *message)
{
    (void)cluster;
    (void)node;
    (void)message;
    return ERR_UNSUPPORTED;
}

int cluster_adopt(struct cluster *cluster, const struct id128 *node, const struct event_item *items,
                  size_t count)
{
    (void)cluster;
    (void)node;
    (void)items;
    (void)count;
    return 0;
}

int cluster_is_known_to(struct cluster *cluster, const struct id128 *node)
{
    (void)cluster;
    (void)node;
    return ERR_UNSUPPORTED;
}

struct drainer *cluster_drainer(struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

int cluster_write_begin(struct cluster *cluster)
{
    (void)cluster;
    return 0;
}

void cluster_write_end(struct cluster *cluster)
{
    (void)cluster;
}

int cluster_write_refusal(struct cluster *cluster)
{
    (void)cluster;
    return 0;
}

void cluster_stats(struct cluster *cluster, struct cluster_stats *out)
{
    (void)cluster;
    memset(out, 0, sizeof *out);
}

struct copies *cluster_copies(struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

struct uploader *cluster_uploader(struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

enum probe_health cluster_health(struct cluster *cluster)
{
    (void)cluster;
    return PROBE_GOOD;
}

bool cluster_clock_is_skewed(struct cluster *cluster)
{
    (void)cluster;
    return false;
}

unsigned cluster_joined(struct cluster *cluster)
{
    (void)cluster;
    return 1;
}

size_t cluster_members(struct cluster *cluster, struct cluster_member *out, size_t max)
{
    (void)cluster;
    (void)out;
    (void)max;
    return 0;
}

/* ---- What the test does as the cluster's thread ---- */

/* With the lock held. */
static void fake_wait(struct cluster *cluster, const char *what)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += FAKE_WAIT_S;
    if (pthread_cond_timedwait(&cluster->changed, &cluster->lock, &until) != 0)
        fail_msg("waited too long for %s", what);
}

/* Fetch number INDEX (from 0), once it was begun. */
static inline struct fake_fetch *fake_fetch(struct cluster *cluster, unsigned index)
{
    (void)pthread_mutex_lock(&cluster->lock);
    while (cluster->count <= index)
        fake_wait(cluster, "a fetch");
    (void)pthread_mutex_unlock(&cluster->lock);
    return &cluster->fetches[index];
}

static inline unsigned fake_count(struct cluster *cluster)
{
    (void)pthread_mutex_lock(&cluster->lock);
    unsigned count = cluster->count;
    (void)pthread_mutex_unlock(&cluster->lock);
    return count;
}

/* Give it LEN more bytes of BODY, which is whole, as the reader takes them; false: it was cancelled
 * meanwhile. */
static inline bool fake_give(struct cluster *cluster, struct fake_fetch *fetch, const uint8_t *body,
                             uint64_t len)
{
    while (len > 0) {
        uint64_t piece = 1 + (uint64_t)(rand() % LIMIT_WIRE_CHUNK_BYTES);

        if (piece > len)
            piece = len;
        (void)pthread_mutex_lock(&cluster->lock);
        while (!fetch->cancelled && fetch->given + piece - fetch->consumed > BODY_WINDOW_BYTES)
            fake_wait(cluster, "the reader to take bytes");
        bool cancelled = fetch->cancelled;
        uint64_t at = fetch->asked.offset + fetch->given;
        fetch->given += piece;
        (void)pthread_mutex_unlock(&cluster->lock);
        if (cancelled)
            return false;
        assert_true(fetch->given <= fetch->asked.length);
        fetch->reader->data(fetch->reader, at, body + at, piece);
        len -= piece;
    }
    return true;
}

/* All that it asked for, and its end. */
static inline void fake_serve(struct cluster *cluster, struct fake_fetch *fetch,
                              const uint8_t *body)
{
    bool all = fake_give(cluster, fetch, body, fetch->asked.length - fetch->given);

    fake_end(fetch, all ? 0 : ERR_CLOSED);
}

static inline void fake_wait_cancelled(struct cluster *cluster, struct fake_fetch *fetch)
{
    (void)pthread_mutex_lock(&cluster->lock);
    while (!fetch->cancelled)
        fake_wait(cluster, "a cancel");
    (void)pthread_mutex_unlock(&cluster->lock);
}

#endif
