/*
 * Bodies: those that this node's doors ask of others (fetch), and those that others ask of it
 * (serve).
 *
 * A reader belongs to another thread. What it wants (to begin, that bytes were taken, to stop) it
 * leaves in its struct under the lock, and puts itself on a list, at most once; the cluster's
 * thread takes the list. `over` is set under the lock before `done` is called: from then on the
 * reader is its owner's alone, and nothing of it is touched here.
 *
 * A read for a peer is a job of the pool: the row is looked up again for each chunk, so that what
 * was deleted or moved meanwhile is never served from an old place, and every block is verified.
 */
#include "cluster/cluster_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LOOKUPS 8

/* ---- From any thread ---- */

void bodies_enqueue(struct cluster *cluster, struct cluster_reader *reader)
{
    if (reader->queued)
        return;
    reader->queued = true;
    reader->next = NULL;
    if (cluster->readers_last)
        cluster->readers_last->next = reader;
    else
        cluster->readers = reader;
    cluster->readers_last = reader;
    link_wake(cluster->link);
}

int cluster_fetch_start(struct cluster *cluster, const struct cluster_fetch *fetch,
                        struct cluster_reader *reader)
{
    struct cluster_ask *ask = calloc(1, sizeof *ask);
    int rc;

    assert(fetch->length > 0 && fetch->offset <= fetch->size &&
           fetch->length <= fetch->size - fetch->offset);
    if (!ask)
        return ERR_NO_MEMORY;
    ask->fetch = *fetch;
    for (size_t i = 0; i < fetch->holder_count && i < LIMIT_FETCH_HOLDERS; i++)
        ask->holders[i] = fetch->holders[i];
    ask->fetch.holder_count =
        fetch->holder_count < LIMIT_FETCH_HOLDERS ? fetch->holder_count : LIMIT_FETCH_HOLDERS;
    ask->fetch.holders = ask->holders;
    ask->fetch.cloud = NULL;
    if (fetch->cloud && cluster->cloud) {
        ask->cloud = *fetch->cloud;
        ask->fetch.cloud = &ask->cloud;
    }
    ask->cluster = cluster;
    ask->reader = reader;
    ask->at = ask->began = ask->taken = ask->told = fetch->offset;
    pthread_mutex_lock(&cluster->lock);
    if (cluster->closed)
        rc = ERR_CLOSED;
    else if (cluster->alone && !ask->fetch.cloud)
        rc = ERR_NOT_FOUND;
    else
        rc = cluster->reader_count >= LIMIT_FETCHES ||
                     (fetch->seeks && cluster->seek_count >= LIMIT_SEEKS)
                 ? ERR_FULL
                 : 0;
    if (rc == 0) {
        cluster->reader_count++;
        cluster->seek_count += fetch->seeks;
        reader->ask = ask;
        reader->number = reader->consumed = 0;
        reader->queued = reader->cancelled = reader->over = reader->from_cloud = false;
        bodies_enqueue(cluster, reader);
    }
    pthread_mutex_unlock(&cluster->lock);
    if (rc)
        free(ask);
    return rc;
}

void cluster_fetch_consumed(struct cluster *cluster, struct cluster_reader *reader, uint64_t bytes)
{
    pthread_mutex_lock(&cluster->lock);
    if (!reader->over) {
        reader->consumed += bytes;
        bodies_enqueue(cluster, reader);
    }
    pthread_mutex_unlock(&cluster->lock);
}

void cluster_fetch_cancel(struct cluster *cluster, struct cluster_reader *reader)
{
    pthread_mutex_lock(&cluster->lock);
    if (!reader->over) {
        reader->cancelled = true;
        bodies_enqueue(cluster, reader);
    }
    pthread_mutex_unlock(&cluster->lock);
}

/* ---- What readers want ---- */

void bodies_end(struct cluster *cluster, struct cluster_reader *reader, int rc)
{
    for (size_t i = 0; i < cluster->reading_count; i++)
        if (cluster->reading[i] == reader)
            cluster->reading[i] = cluster->reading[--cluster->reading_count];
    pthread_mutex_lock(&cluster->lock);
    reader->over = true;
    struct cluster_ask *ask = reader->ask;
    reader->ask = NULL;
    cluster->reader_count--;
    cluster->seek_count -= ask->fetch.seeks;
    /* It may have been put on the list again while we looked at it. */
    struct cluster_reader **at = &cluster->readers, *before = NULL;
    while (reader->queued && *at && *at != reader) {
        before = *at;
        at = &before->next;
    }
    if (reader->queued && *at == reader) {
        *at = reader->next;
        if (cluster->readers_last == reader)
            cluster->readers_last = before;
    }
    pthread_mutex_unlock(&cluster->lock);
    free(ask);
    reader->done(reader, rc);
}

void bodies_take(struct cluster *cluster)
{
    for (;;) {
        pthread_mutex_lock(&cluster->lock);
        struct cluster_reader *reader = cluster->readers;
        if (!reader) {
            pthread_mutex_unlock(&cluster->lock);
            return;
        }
        cluster->readers = reader->next;
        if (!cluster->readers)
            cluster->readers_last = NULL;
        reader->queued = false;
        uint64_t consumed = reader->consumed;
        bool cancelled = reader->cancelled || cluster->closed;
        reader->consumed = 0;
        pthread_mutex_unlock(&cluster->lock);

        if (cancelled)
            pull_cancel(cluster, reader);
        else if (reader->ask->source == PULL_NONE)
            pull_begin(cluster, reader);
        else
            pull_turn(cluster, reader, consumed);
    }
}

void bodies_close(struct cluster *cluster)
{
    pthread_mutex_lock(&cluster->lock);
    cluster->closed = true;
    pthread_mutex_unlock(&cluster->lock);
    bodies_take(cluster);
    for (size_t i = cluster->reading_count; i-- > 0;)
        pull_cancel(cluster, cluster->reading[i]); /* which may take it, the last one, off */
}

/* ---- Serving ---- */

struct body_job {
    struct job job;
    struct delivery delivery;
    struct cluster *cluster;
    struct serve_read read;
    int rc;
    void *loan;        /* the body is on its way here */
    bool unknown;      /* there is no such object, as far as this node has heard */
    uint64_t asked_ms; /* when serve asked for it */
    uint64_t size;
    size_t len;
    uint8_t data[];
};

static void body_read(struct cluster *cluster, struct delivery *delivery)
{
    struct body_job *job = container_of(delivery, struct body_job, delivery);

    if (job->loan)
        lend_begin(cluster, &job->read, job->loan, job->size);
    else if (job->unknown && seek_is(&job->read))
        seek_serve(cluster, &job->read);
    else if (!job->unknown || !lend_await(cluster, &job->read, job->asked_ms))
        serve_read_done(cluster->serve, job->read.key, job->rc, job->data, job->len, job->size,
                        cluster_now(cluster));
    free(job);
    cluster_end(cluster);
}

static int read_inline(struct body_job *job, const struct object *object)
{
    size_t cap = object->record_bytes ? object->record_bytes : RECORD_MAX_BYTES;
    uint8_t *record = malloc(cap);
    struct record_view view;

    if (!record)
        return ERR_NO_MEMORY;
    int rc = log_read(journal_log(job->cluster->journal), &object->place, &object->id,
                      object->record_bytes, record, cap, false, &view);
    if (rc == 0 && (!view.body || view.header.body_bytes != object->size))
        rc = ERR_CORRUPT;
    if (rc == 0)
        memcpy(job->data, view.body + job->read.offset, job->len);
    free(record);
    return rc;
}

static int read_large(struct body_job *job, const struct object *object)
{
    uint8_t block[BLOCK_BYTES];
    struct large_reader *reader;
    size_t done = 0;
    int rc = large_reader_open(&reader, journal_large(job->cluster->journal), object->place.offset,
                               object->size);

    if (rc)
        return rc;
    while (rc == 0 && done < job->len) {
        uint64_t at = job->read.offset + done;
        size_t within = at % BLOCK_BYTES, len;

        rc = large_read_block(reader, at / BLOCK_BYTES, block, &len, false);
        if (rc)
            break;
        size_t part = len - within < job->len - done ? len - within : job->len - done;
        memcpy(job->data + done, block + within, part);
        done += part;
    }
    large_reader_close(&reader);
    return rc;
}

static int read_chunk(struct body_job *job, const struct object *object)
{
    const struct serve_read *read = &job->read;

    if ((object->flags & (OBJECT_PUT | OBJECT_DELETED)) != OBJECT_PUT ||
        memcmp(object->sha256, read->sha256, SHA256_BYTES) != 0 || place_is_none(&object->place))
        return ERR_NOT_FOUND;
    job->size = object->size;
    job->len = 0;
    if (read->offset >= object->size)
        return 0;
    job->len =
        object->size - read->offset < read->len ? (size_t)(object->size - read->offset) : read->len;
    int rc =
        object->place.volume == PLACE_LARGE ? read_large(job, object) : read_inline(job, object);
    /* The place is outdated: the caller looks again. */
    return rc == ERR_NOT_FOUND ? ERR_AGAIN : rc;
}

/* OBJECT, as which bytes it has is asked for. */
static int read_name(struct body_job *job, const struct object *object)
{
    if ((object->flags & (OBJECT_PUT | OBJECT_DELETED)) != OBJECT_PUT)
        return ERR_DELETED;
    memcpy(job->data, object->sha256, SHA256_BYTES);
    job->size = job->len = SHA256_BYTES;
    return 0;
}

void cluster_damage(void *arg, const struct object *object)
{
    struct cluster *cluster = arg;

    replicator_repair(cluster->replicator, object);
}

/* The copy that READ asks for is not here, or not a good one: is it what ROW names? */
static int open_loan(struct body_job *job, const struct object *object, struct db_reader *reader)
{
    struct cluster_cloud place;

    if ((object->flags & (OBJECT_PUT | OBJECT_DELETED)) != OBJECT_PUT ||
        memcmp(object->sha256, job->read.sha256, SHA256_BYTES) != 0 ||
        job->read.offset >= object->size || !cluster_cloud_of(job->cluster, object, &place))
        return ERR_NOT_FOUND;
    job->size = object->size;
    return lend_open(job->cluster, object, &job->read, reader, &job->loan);
}

static void read_body(struct job *base, void *context)
{
    struct body_job *job = container_of(base, struct body_job, job);
    struct journal *journal = job->cluster->journal;

    job->rc = ERR_AGAIN;
    for (unsigned i = 0; i < MAX_LOOKUPS && job->rc == ERR_AGAIN; i++) {
        struct object *object = NULL;

        job->rc = journal_find(journal, context, &job->read.id, &object);
        if (job->rc == 0)
            job->rc = seek_is(&job->read) ? read_name(job, object) : read_chunk(job, object);
        if (job->rc == ERR_CORRUPT)
            journal_found_damaged(journal, object);
        job->unknown = job->read.delegated && job->rc == ERR_NOT_FOUND &&
                       (!object || object_is_partial(object));
        if (job->read.delegated && object && (job->rc == ERR_NOT_FOUND || job->rc == ERR_CORRUPT))
            job->rc = open_loan(job, object, context);
        object_destroy(&object);
    }
    if (job->rc)
        job->len = 0;
    cluster_deliver(job->cluster, &job->delivery);
}

static void serve_ask(void *arg, const struct serve_read *read)
{
    struct cluster *cluster = arg;

    if (!read->delegated || !lend_read(cluster, read))
        bodies_read(cluster, read, cluster_now(cluster));
}

void bodies_read(struct cluster *cluster, const struct serve_read *read, uint64_t asked_ms)
{
    struct body_job *job = malloc(sizeof *job + read->len);

    assert(read->len <= LIMIT_WIRE_CHUNK_BYTES);
    if (!job) {
        assert(cluster->unread_count < UNREAD); /* serve has no more under way */
        cluster->unread[cluster->unread_count++] = read->key;
        return;
    }
    job->job.run = read_body;
    job->delivery.run = body_read;
    job->cluster = cluster;
    job->read = *read;
    job->asked_ms = asked_ms;
    job->size = job->len = 0;
    job->loan = NULL;
    job->unknown = false;
    cluster_begin(cluster);
    int rc = pool_submit(cluster->pool, &job->job);
    if (rc) {
        job->rc = rc;
        cluster_deliver(cluster, &job->delivery);
    }
}

void bodies_failed(struct cluster *cluster)
{
    /* Telling it may fail again: one turn tells no more than there were. */
    for (size_t count = cluster->unread_count; count > 0; count--) {
        uint64_t key = cluster->unread[0];

        memmove(cluster->unread, cluster->unread + 1,
                --cluster->unread_count * sizeof *cluster->unread);
        serve_read_done(cluster->serve, key, ERR_NO_MEMORY, NULL, 0, 0, cluster_now(cluster));
    }
}

/* Of what both sides of a transfer are sent, the asked one's. */
static bool is_for_server(const struct wire_message *message)
{
    if (message->type == WIRE_BODY_END)
        return message->flow.end == WIRE_END_CANCEL;
    return message->type == WIRE_BODY_ASK || message->type == WIRE_BODY_CREDIT;
}

void bodies_message(struct cluster *cluster, const struct wire_message *message)
{
    uint64_t now_ms = cluster_now(cluster);

    if (is_for_server(message))
        serve_message(cluster->serve, message, now_ms);
    else
        fetch_message(cluster->fetches, message, now_ms);
}

static void send_message(void *arg, const struct id128 *to, const struct wire_message *message)
{
    struct cluster *cluster = arg;

    if (id_equal(to, &cluster->self))
        self_send(cluster, message);
    else
        peer_send(cluster, to, message);
}

int bodies_open(struct cluster *cluster)
{
    const struct fetch_sink fetch = {send_message, pull_data, pull_done, cluster};
    const struct serve_sink serve = {serve_ask, lend_over, send_message, cluster};
    uint64_t seed;

    cluster->env->random(cluster->env, &seed, sizeof seed);
    int rc = fetch_create(&cluster->fetches, &fetch, seed);
    return rc ? rc : serve_create(&cluster->serve, &serve);
}
