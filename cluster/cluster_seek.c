/*
 * Ids that nobody knows, of which the cloud does not say which bytes they have (the ancestor's
 * objects): the body has to be read to be known, and one member does that for all. It is asked as
 * the delegate for a body is (cluster_pull.c), for the bytes with the SHA-256 of zeros, which none
 * have; what it gives is the SHA-256 that it found.
 *
 *   asker                                          delegate of (id, zeros)
 *   cluster_seek_start ─► body-ask ──────────────► the row is known ─────────────────┐
 *                                                  it is not: lender->seek,          │
 *                         body-coming ◄──────────  which adopts it (api/adoption.h) ─┤
 *   seek_answered ◄────── body-data ◄────────────────────────────────────────────────┘
 *     └─ waits until sync has brought the row, and that the delegate holds it ─► done
 *
 * Nothing of the body is given before its SHA-256 is known and journaled: after that it is asked
 * for as any other.
 *
 * Failure: whatever goes wrong, the asker is told, and reads the body by itself; the journals agree
 * on what both say. A build that does not know the question answers that it has no such body.
 */
#include "cluster/cluster_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ROW_MS 5000 /* may be on its way for so long */

static_assert(LIMIT_SEEKS_SERVED < LIMIT_SERVE_READS_DELEGATED, "some are left for bodies");

static const uint8_t unknown[SHA256_BYTES];

/* ---- Asking ---- */

int cluster_seek_start(struct cluster *cluster, const struct id128 *id,
                       struct cluster_reader *reader)
{
    const struct cluster_fetch fetch = {
        .id = *id, .size = sizeof unknown, .length = sizeof unknown, .seeks = true};

    return cluster_fetch_start(cluster, &fetch, reader);
}

struct look {
    struct job job;
    struct delivery delivery;
    struct cluster *cluster;
    struct cluster_ask *ask; /* flying */
    int rc;
};

static void looked(struct cluster *cluster, struct delivery *delivery)
{
    struct look *look = container_of(delivery, struct look, delivery);
    struct cluster_ask *ask = look->ask;
    int rc = look->rc;

    free(look);
    cluster_end(cluster);
    assert(ask->sought && ask->flying);
    ask->flying = false;
    if (ask->cancelled || atomic_load(&cluster->stopping))
        bodies_end(cluster, ask->reader, ERR_CLOSED);
    else if (rc == 0)
        bodies_end(cluster, ask->reader, 0);
}

static void run_look(struct job *base, void *context)
{
    struct look *look = container_of(base, struct look, job);
    struct object *object = NULL;

    /* A tombstone is an answer, too. */
    look->rc = journal_find(look->cluster->journal, context, &look->ask->fetch.id, &object);
    object_destroy(&object);
    cluster_deliver(look->cluster, &look->delivery);
}

/* What cannot be begun now is begun with the next turn. */
static void start_look(struct cluster *cluster, struct cluster_ask *ask)
{
    struct look *look = malloc(sizeof *look);

    if (!look)
        return;
    *look =
        (struct look){.job.run = run_look, .delivery.run = looked, .cluster = cluster, .ask = ask};
    ask->flying = true;
    cluster_begin(cluster);
    if (pool_submit(cluster->pool, &look->job) == 0)
        return;
    cluster_end(cluster);
    ask->flying = false;
    free(look);
}

void seek_answered(struct cluster *cluster, struct cluster_ask *ask)
{
    assert(ask->fetch.seeks && !ask->sought && !ask->flying);
    ask->sought = true;
    ask->since_ms = cluster_now(cluster);
    start_look(cluster, ask);
}

void seek_retry(struct cluster *cluster)
{
    for (size_t i = cluster->reading_count; i-- > 0;) {
        struct cluster_ask *ask = cluster->reading[i]->ask;

        if (!ask->sought || ask->flying)
            continue;
        if (cluster_now(cluster) - ask->since_ms >= ROW_MS)
            bodies_end(cluster, ask->reader, ERR_TIMEOUT); /* the last one comes to its place */
        else
            start_look(cluster, ask);
    }
}

/* ---- Being asked ---- */

struct sought {
    struct cluster_seek seek; /* first */
    struct delivery delivery;
    struct cluster *cluster;
    uint64_t key;
    int rc;
    uint8_t sha256[SHA256_BYTES];
};

bool seek_is(const struct serve_read *read)
{
    return read->delegated && memcmp(read->sha256, unknown, sizeof unknown) == 0 &&
           read->offset == 0 && read->len >= sizeof unknown;
}

static void sought_back(struct cluster *cluster, struct delivery *delivery)
{
    struct sought *it = container_of(delivery, struct sought, delivery);

    assert(cluster->seeks_served > 0);
    cluster->seeks_served--;
    cluster_end(cluster);
    serve_read_done(cluster->serve, it->key, it->rc, it->sha256, it->rc ? 0 : sizeof it->sha256,
                    sizeof it->sha256, cluster_now(cluster));
    free(it);
}

static void sought_done(struct cluster_seek *seek, int rc, const uint8_t sha256[SHA256_BYTES])
{
    struct sought *it = (struct sought *)seek;

    it->rc = rc ? ERR_AGAIN : 0; /* the asker looks for itself, and finds why */
    if (rc == 0)
        memcpy(it->sha256, sha256, sizeof it->sha256);
    cluster_deliver(it->cluster, &it->delivery);
}

void seek_serve(struct cluster *cluster, const struct serve_read *read)
{
    struct sought *it = NULL;

    pthread_mutex_lock(&cluster->lock);
    const struct cluster_lender lender = cluster->lender;
    pthread_mutex_unlock(&cluster->lock);
    assert(seek_is(read));
    if (lender.seek && !cluster->leaving && cluster->seeks_served < LIMIT_SEEKS_SERVED)
        it = calloc(1, sizeof *it);
    if (it) {
        it->seek.done = sought_done;
        it->delivery.run = sought_back;
        it->cluster = cluster;
        it->key = read->key;
        cluster->seeks_served++;
        cluster_begin(cluster);
        if (lender.seek(lender.arg, &read->id, &it->seek) == 0)
            return; /* and may be over */
        cluster_end(cluster);
        cluster->seeks_served--;
        free(it);
    }
    serve_read_done(cluster->serve, read->key, ERR_AGAIN, NULL, 0, 0, cluster_now(cluster));
}
