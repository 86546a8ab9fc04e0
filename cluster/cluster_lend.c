/*
 * Giving other nodes what is just arriving here from the cloud.
 *
 * A delegated transfer (serve's) whose body is not here opens a loan on a pool thread, and keeps it
 * until serve says that the transfer is over. Its reads wait with the lender, not on a thread:
 *
 *   serve ──read──► pool: the row; no copy here ──► lender->open ──► lent[slot]
 *                                                                      │
 *   serve ◄──bytes── delivery ◄── done (any thread) ◄── lender->read ◄─┴──── later reads
 *
 * The asker may know of the object before this node does (it has just adopted it, say): such a read
 * waits here for a moment, and is made again when the journal has news.
 *
 * Failure: what the lender cannot give is "busy" to the asker, which goes on by itself.
 */
#include "cluster/cluster_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LATE_MS 1000 /* a row may be on its way for so long */

struct lent_read {
    struct cluster_loan_read read; /* first */
    struct delivery delivery;
    struct cluster *cluster;
    uint64_t key, size;
    int rc;
    uint8_t *bytes;
};

static struct lent *lent_at(struct cluster *cluster, uint64_t key)
{
    return &cluster->lent[(key & 0xff) % LIMIT_SERVED];
}

void cluster_lend(struct cluster *cluster, const struct cluster_lender *lender)
{
    pthread_mutex_lock(&cluster->lock);
    assert(!cluster->lender.open);
    cluster->lender = *lender;
    pthread_mutex_unlock(&cluster->lock);
}

int lend_open(struct cluster *cluster, const struct object *object, const struct serve_read *read,
              struct db_reader *reader, void **loan)
{
    uint64_t end = read->end < object->size ? read->end : object->size;

    pthread_mutex_lock(&cluster->lock);
    const struct cluster_lender lender = cluster->lender;
    pthread_mutex_unlock(&cluster->lock);
    assert(read->offset < end);
    *loan = NULL;
    if (!lender.open)
        return ERR_NOT_FOUND;
    return lender.open(lender.arg, object, read->offset, end, reader, loan) ? ERR_AGAIN : 0;
}

bool lend_await(struct cluster *cluster, const struct serve_read *read, uint64_t asked_ms)
{
    assert(read->delegated);
    if (!cluster->cloud || cluster_now(cluster) - asked_ms >= LATE_MS)
        return false;
    assert(cluster->late_count < LIMIT_SERVE_READS_DELEGATED); /* serve has no more under way */
    cluster->late[cluster->late_count++] = (struct late_read){*read, asked_ms};
    return true;
}

void lend_retry(struct cluster *cluster)
{
    struct late_read late[LIMIT_SERVE_READS_DELEGATED];
    size_t count = cluster->late_count;

    if (count == 0)
        return;
    memcpy(late, cluster->late, count * sizeof *late);
    cluster->late_count = 0;
    for (size_t i = 0; i < count; i++)
        bodies_read(cluster, &late[i].read, late[i].asked_ms);
}

static void lent_back(struct cluster *cluster, struct delivery *delivery)
{
    struct lent_read *it = container_of(delivery, struct lent_read, delivery);

    cluster_end(cluster);
    serve_read_done(cluster->serve, it->key, it->rc, it->bytes, it->rc ? 0 : it->read.len, it->size,
                    cluster_now(cluster));
    free(it->bytes);
    free(it);
}

static void lent_done(struct cluster_loan_read *read, int rc, uint8_t *bytes)
{
    struct lent_read *it = (struct lent_read *)read;

    assert(!rc == !!bytes);
    it->rc = rc && rc != ERR_CORRUPT ? ERR_AGAIN : rc;
    it->bytes = bytes;
    cluster_deliver(it->cluster, &it->delivery);
}

static void start(struct cluster *cluster, const struct lent *lent, const struct serve_read *read)
{
    struct lent_read *it = calloc(1, sizeof *it);
    uint64_t rest = lent->size - read->offset;

    assert(read->offset < lent->size);
    if (!it) {
        assert(cluster->unread_count < UNREAD);
        cluster->unread[cluster->unread_count++] = read->key;
        return;
    }
    it->read = (struct cluster_loan_read){.offset = read->offset,
                                          .len = rest < read->len ? (uint32_t)rest : read->len,
                                          .done = lent_done};
    it->delivery.run = lent_back;
    it->cluster = cluster;
    it->key = read->key;
    it->size = lent->size;
    cluster_begin(cluster);
    cluster->lender.read(cluster->lender.arg, lent->loan, &it->read);
}

bool lend_read(struct cluster *cluster, const struct serve_read *read)
{
    const struct lent *lent = lent_at(cluster, read->key);

    if (!lent->loan)
        return false;
    assert(lent->key == read->key);
    start(cluster, lent, read);
    return true;
}

void lend_begin(struct cluster *cluster, const struct serve_read *read, void *loan, uint64_t size)
{
    struct lent *lent = lent_at(cluster, read->key);

    assert(!lent->loan); /* the slot is not given to another transfer before this read is done */
    *lent = (struct lent){.key = read->key, .loan = loan, .size = size};
    start(cluster, lent, read);
}

void lend_over(void *arg, uint64_t key)
{
    struct cluster *cluster = arg;
    struct lent *lent = lent_at(cluster, key);

    if (!lent->loan)
        return;
    assert(lent->key == key);
    void *loan = lent->loan;
    lent->loan = NULL;
    cluster->lender.close(cluster->lender.arg, loan);
}

void lend_close(struct cluster *cluster)
{
    for (size_t i = 0; i < LIMIT_SERVED; i++)
        if (cluster->lent[i].loan)
            lend_over(cluster, cluster->lent[i].key);
}
