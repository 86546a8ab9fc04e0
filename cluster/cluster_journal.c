/*
 * Between the cluster's thread and the journal: what the applier has made durable goes to sync as
 * news; what sync asks to read is read by the pool; what it hands over is committed as CHANGE_PEER.
 *
 * News wait under the lock, one entry a run: the newest counts, so they never take more than the
 * runs there are. Where even that memory is short, all is read from the database again.
 *
 * Summary. A probe's vector and digest have to be of one moment: the digest that ends a round of
 * news is taken over together with the runs before it, never alone.
 */
#include "cluster/cluster_internal.h"

#include "base/log.h"
#include "journal/db_cluster.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define COMPLAIN_MS 10000

static struct vector_run run_of(const struct db_origin *origin)
{
    struct vector_run run = {.origin = origin->origin,
                             .node = origin->node,
                             .seq = origin->seq,
                             .anchor_seq = origin->anchor_seq,
                             .ended = origin->ended,
                             .frozen = origin->frozen};

    memcpy(run.hash, origin->hash, SHA256_BYTES);
    return run;
}

/* Keep one run's news. The lock is held. */
static void note(struct cluster *cluster, const struct db_origin *origin, bool own)
{
    for (size_t i = 0; i < cluster->news_count; i++)
        if (id_equal(&cluster->news[i].run.origin, &origin->origin)) {
            cluster->news[i] = (struct news){run_of(origin), own};
            return;
        }
    if (cluster->news_count == cluster->news_cap) {
        size_t cap = cluster->news_cap ? 2 * cluster->news_cap : 64;
        struct news *grown = realloc(cluster->news, cap * sizeof *grown);

        if (!grown) {
            cluster->news_lost = true;
            return;
        }
        cluster->news = grown;
        cluster->news_cap = cap;
    }
    cluster->news[cluster->news_count++] = (struct news){run_of(origin), own};
}

void cluster_listen(void *arg, const struct journal_news *news)
{
    struct cluster *cluster = arg;

    pthread_mutex_lock(&cluster->lock);
    if (news->origin) {
        note(cluster, news->origin, news->own);
        cluster->news_whole = false;
    } else {
        cluster->news_whole = true;
        cluster->news_digest = news->digest;
        cluster->news_events = news->events;
        cluster->news_event_bytes = news->event_bytes;
        cluster->news_rows = news->rows;
        cluster->news_members |= news->members;
    }
    bool whole = cluster->news_whole;
    pthread_mutex_unlock(&cluster->lock);
    if (whole) {
        if (news->members)
            copies_members(cluster->copies);
        link_wake(cluster->link);
        replicator_poke(cluster->replicator);
        if (cluster->uploader)
            uploader_poke(cluster->uploader);
    }
}

static void tell_uploader(struct cluster *cluster, const struct journal_copy_news *news)
{
    bool own = id_equal(news->node, &cluster->self);

    if (news->kind == EVENT_CLOUD && !own)
        uploader_moved(cluster->uploader, news->node);
    /* Of copies that this node makes of others' puts the author is first; a sweep finds them. */
    bool raised = news->kind == EVENT_META, put = news->kind == EVENT_PUT && own;
    if (news->owed && (raised || put) && object_owed_here(news->row))
        uploader_new(cluster->uploader, news->row, put);
}

void cluster_listen_copies(void *arg, const struct journal_copy_news *news)
{
    struct cluster *cluster = arg;

    if (news->event)
        copies_news(cluster->copies, news->event, news->len);
    else
        copies_members(cluster->copies);
    if (news->wanted)
        replicator_want(cluster->replicator, news->wanted);
    if (news->event && cluster->uploader)
        tell_uploader(cluster, news);
}

static void tell_run(struct cluster *cluster, const struct vector_run *run, bool own)
{
    struct sync_input input = {.kind = SYNC_LOCAL, .local = {.run = *run, .own = own}};

    if (own) {
        cluster_merge(cluster, &(struct merge_input){.kind = MERGE_OWN, .own = run->origin});
        cluster->own_run = run->origin;
    }
    if (run->frozen && id_equal(&run->origin, &cluster->own_run)) {
        cluster->own_run = (struct id128){{0}};
        twin_run_frozen(cluster);
    }
    if (run->seq > 0 || run->frozen) /* else it is known by name alone: another follows it */
        cluster_sync(cluster, &input);
}

/* ---- The database as a whole ---- */

static int load_members(struct cluster *cluster, struct db_reader *reader)
{
    struct db_member *rows;
    size_t count;
    uint32_t level;
    int rc = db_reader_feature(reader, &level);

    if (rc)
        return rc;
    cluster->level = level;
    rc = db_reader_members(reader, &rows, &count);
    if (rc == 0)
        peer_members(cluster, rows, count);
    if (rc == 0)
        free(rows);
    return rc;
}

int cluster_load(struct cluster *cluster)
{
    struct db_origin *origins = NULL;
    struct db_reader *reader;
    struct db_state state;
    size_t count = 0;
    int rc = journal_reader_open(cluster->journal, &reader);

    if (rc)
        return rc;
    if ((rc = db_reader_state(reader, &state)) == 0 &&
        (rc = db_reader_origins(reader, &origins, &count)) == 0 &&
        (rc = load_members(cluster, reader)) == 0) {
        for (size_t i = 0; i < count; i++) {
            const struct vector_run run = run_of(&origins[i]);

            tell_run(cluster, &run, false);
        }
        cluster->digest = state.digest;
        cluster->events = state.events;
        cluster->event_bytes = state.event_bytes;
        cluster->rows = state.objects + state.deleted;
        peer_local(cluster);
    }
    free(origins);
    db_reader_close(&reader);
    return rc;
}

/* Members out of the database, read by the pool. */
struct members_job {
    struct job job;
    struct delivery delivery;
    struct cluster *cluster;
    struct db_member *rows;
    size_t count;
    uint32_t level;
    int rc;
};

static void members_read(struct cluster *cluster, struct delivery *delivery)
{
    struct members_job *job = container_of(delivery, struct members_job, delivery);

    if (job->rc == 0) {
        if (job->level != cluster->level)
            log_info("cluster: its feature level is %u now", job->level);
        cluster->level = job->level;
        cluster->local_due = true;
        peer_members(cluster, job->rows, job->count);
    } else
        log_error("cluster: its members cannot be read: %s", err_text(job->rc));
    free(job->rows);
    free(job);
    cluster_end(cluster);
}

static void read_members(struct job *base, void *context)
{
    struct members_job *job = container_of(base, struct members_job, job);

    job->rc = db_reader_feature(context, &job->level);
    if (job->rc == 0)
        job->rc = db_reader_members(context, &job->rows, &job->count);
    cluster_deliver(job->cluster, &job->delivery);
}

static void ask_members(struct cluster *cluster)
{
    struct members_job *job = calloc(1, sizeof *job);

    if (job) {
        job->job.run = read_members;
        job->delivery.run = members_read;
        job->cluster = cluster;
        cluster_begin(cluster);
        if (pool_submit(cluster->pool, &job->job) == 0)
            return;
        cluster_end(cluster);
        free(job);
    }
    pthread_mutex_lock(&cluster->lock);
    cluster->news_members = true; /* again with the next turn */
    pthread_mutex_unlock(&cluster->lock);
}

void cluster_news(struct cluster *cluster)
{
    pthread_mutex_lock(&cluster->lock);
    if (!cluster->news_whole) {
        pthread_mutex_unlock(&cluster->lock);
        return;
    }
    struct news *news = cluster->news;
    size_t count = cluster->news_count;
    bool members = cluster->news_members, lost = cluster->news_lost;

    cluster->news = NULL;
    cluster->news_count = cluster->news_cap = 0;
    cluster->news_whole = cluster->news_members = cluster->news_lost = false;
    cluster->digest = cluster->news_digest;
    cluster->events = cluster->news_events;
    cluster->event_bytes = cluster->news_event_bytes;
    cluster->rows = cluster->news_rows;
    pthread_mutex_unlock(&cluster->lock);

    for (size_t i = 0; i < count; i++)
        tell_run(cluster, &news[i].run, news[i].own);
    free(news);
    if (lost && cluster_load(cluster) != 0) {
        pthread_mutex_lock(&cluster->lock);
        cluster->news_lost = cluster->news_whole = true;
        pthread_mutex_unlock(&cluster->lock);
    }
    if (members)
        ask_members(cluster);
    peer_local(cluster);
    lend_retry(cluster);
    seek_retry(cluster);
}

/* Without memory for a job its end is told with the next turn: not now, in the middle of a step. */
static void fail(struct cluster *cluster, const struct sync_input *input)
{
    if (cluster->failed_count < LIMIT_FAILED) /* else sync's deadlines see to it */
        cluster->failed[cluster->failed_count++] = *input;
}

void cluster_failed(struct cluster *cluster)
{
    /* Telling it may fail again: one turn tells no more than there were. */
    for (size_t count = cluster->failed_count; count > 0; count--) {
        struct sync_input input = cluster->failed[0];

        memmove(cluster->failed, cluster->failed + 1,
                --cluster->failed_count * sizeof *cluster->failed);
        cluster_sync(cluster, &input);
    }
}

/* ---- Reading events for peers ---- */

struct events_job {
    struct job job;
    struct delivery delivery;
    struct cluster *cluster;
    struct sync_read read;
    struct buf data;
    uint32_t count;
    int rc;
};

static void events_read(struct cluster *cluster, struct delivery *delivery)
{
    struct events_job *job = container_of(delivery, struct events_job, delivery);
    struct sync_input input = {.kind = SYNC_READ_DONE,
                               .read_done = {.peer = job->read.peer,
                                             .session = job->read.session,
                                             .origin = job->read.origin,
                                             .first = job->read.first,
                                             .count = job->count,
                                             .data = {job->data.data, (uint32_t)job->data.len},
                                             .rc = job->rc}};

    cluster_sync(cluster, &input);
    buf_release(&job->data);
    free(job);
    cluster_end(cluster);
}

static void read_events(struct job *base, void *context)
{
    struct events_job *job = container_of(base, struct events_job, job);

    job->rc = db_reader_events(context, &job->read.origin, job->read.first, job->read.limit_bytes,
                               &job->data, &job->count);
    cluster_deliver(job->cluster, &job->delivery);
}

static void ask_events(struct cluster *cluster, const struct sync_read *read)
{
    struct events_job *job = calloc(1, sizeof *job);

    if (!job) {
        fail(cluster, &(struct sync_input){.kind = SYNC_READ_DONE,
                                           .read_done = {.peer = read->peer,
                                                         .session = read->session,
                                                         .origin = read->origin,
                                                         .first = read->first,
                                                         .rc = ERR_NO_MEMORY}});
        return;
    }
    job->job.run = read_events;
    job->delivery.run = events_read;
    job->cluster = cluster;
    job->read = *read;
    buf_init(&job->data, LIMIT_WIRE_BYTES);
    cluster_begin(cluster);
    int rc = pool_submit(cluster->pool, &job->job);
    if (rc) {
        job->rc = rc;
        cluster_deliver(cluster, &job->delivery);
    }
}

/* ---- Committing events of peers ----
 *
 * Where the committer's queue is full they wait here, in their order, as much as sync has given
 * credit for: a refusal would cost the peer its session, and the order of a run its sense.
 */

struct events_commit {
    struct commit_job job; /* first */
    struct sync_commit commit;
    uint8_t data[];
};

static void events_committed(struct cluster *cluster, struct delivery *delivery)
{
    struct events_commit *job = container_of(delivery, struct events_commit, job.delivery);
    const struct sync_commit *commit = &job->commit;
    struct sync_input input = {.kind = SYNC_COMMITTED,
                               .committed = {.peer = commit->peer,
                                             .session = commit->session,
                                             .origin = commit->origin,
                                             .first = commit->first,
                                             .count = commit->count,
                                             .bytes = commit->data.len,
                                             .rc = job->job.change.rc}};

    cluster_sync(cluster, &input);
    object_destroy(&job->job.change.object);
    free(job);
    cluster_end(cluster);
}

/* On the committer's thread. */
static void committed(struct change *change)
{
    struct commit_job *job = (struct commit_job *)change;

    cluster_deliver(job->cluster, &job->delivery);
}

static void commit_events(struct cluster *cluster, const struct sync_commit *commit)
{
    struct events_commit *job = malloc(sizeof *job + commit->data.len);

    if (!job) {
        fail(cluster, &(struct sync_input){.kind = SYNC_COMMITTED,
                                           .committed = {.peer = commit->peer,
                                                         .session = commit->session,
                                                         .origin = commit->origin,
                                                         .first = commit->first,
                                                         .count = commit->count,
                                                         .bytes = commit->data.len,
                                                         .rc = ERR_NO_MEMORY}});
        return;
    }
    *job = (struct events_commit){
        .job = {.change = {.request.kind = CHANGE_PEER}, .delivery.run = events_committed},
        .commit = *commit};
    memcpy(job->data, commit->data.ptr, commit->data.len);
    job->job.change.events = job->data;
    job->job.change.events_bytes = commit->data.len;
    cluster_commit(cluster, &job->job);
}

void cluster_commit(struct cluster *cluster, struct commit_job *job)
{
    job->change.done = committed;
    job->cluster = cluster;
    job->next = NULL;
    cluster_begin(cluster);
    if (cluster->waiting_last)
        cluster->waiting_last->next = job;
    else
        cluster->waiting = job;
    cluster->waiting_last = job;
    cluster_submit(cluster);
}

void cluster_submit(struct cluster *cluster)
{
    while (cluster->waiting) {
        struct commit_job *job = cluster->waiting, *next = job->next;
        int rc = journal_submit(cluster->journal, &job->change);

        if (rc == ERR_FULL && !cluster->leaving)
            return;
        /* Once submitted it may be gone. */
        cluster->waiting = next;
        if (!next)
            cluster->waiting_last = NULL;
        if (rc) {
            job->change.rc = rc;
            cluster_deliver(cluster, &job->delivery);
        }
    }
}

/* ---- Freezes that a peer knows of and this node does not ---- */

struct freeze_job {
    struct change change; /* first: the committer hands it back */
    struct delivery delivery;
    struct cluster *cluster;
    struct event event;
};

static void freeze_done(struct cluster *cluster, struct delivery *delivery)
{
    struct freeze_job *job = container_of(delivery, struct freeze_job, delivery);

    object_destroy(&job->change.object); /* where it failed, the next session tells again */
    free(job);
    cluster_end(cluster);
}

static void freeze_committed(struct change *change)
{
    struct freeze_job *job = (struct freeze_job *)change;

    cluster_deliver(job->cluster, &job->delivery);
}

static void freeze(struct cluster *cluster, const struct id128 *origin, const struct id128 *node)
{
    struct freeze_job *job = calloc(1, sizeof *job);

    if (!job)
        return;
    job->event = (struct event){
        .kind = EVENT_FREEZE,
        .fields = EVENT_HAS_FREEZE | EVENT_HAS_FOLLOWS | EVENT_HAS_RUN_NODE,
        .subject = *origin,
        .run_node = *node,
        .follows = {.origin = *origin, .seq = WIRE_SEQ_MAX}}; /* where it broke, others say */
    job->change.request.kind = CHANGE_FACT;
    job->change.fact = &job->event;
    job->change.done = freeze_committed;
    job->delivery.run = freeze_done;
    job->cluster = cluster;
    cluster_begin(cluster);
    if (journal_submit(cluster->journal, &job->change) == 0)
        return;
    cluster_end(cluster);
    free(job);
}

/* ---- Sync ---- */

static void complain(struct cluster *cluster, const struct id128 *peer, const char *what)
{
    uint64_t now_ms = cluster_now(cluster);
    char text[ULID_TEXT_BYTES + 1];

    if (cluster->complained_ms && now_ms - cluster->complained_ms < COMPLAIN_MS)
        return;
    cluster->complained_ms = now_ms;
    ulid_format(text, peer);
    log_warn("cluster: node %s %s", text, what);
}

static void perform(struct cluster *cluster, const struct sync_output *output)
{
    switch (output->kind) {
    case SYNC_SEND:
        peer_send(cluster, &output->send.to, &output->send.message);
        return;
    case SYNC_READ:
        if (!cluster->leaving)
            ask_events(cluster, &output->read);
        return;
    case SYNC_COMMIT:
        if (!cluster->leaving)
            commit_events(cluster, &output->commit);
        return;
    case SYNC_CONFLICT:
        complain(cluster, &output->conflict.peer,
                 "sends events of a run of which other ones are here: that run is frozen");
        return;
    case SYNC_FREEZE:
        if (!cluster->leaving)
            freeze(cluster, &output->freeze.origin, &output->freeze.node);
        return;
    case SYNC_BEHIND:
        cluster_merge(cluster,
                      &(struct merge_input){.kind = MERGE_BEHIND, .behind = output->behind.peer});
        return;
    }
}

void cluster_sync(struct cluster *cluster, struct sync_input *input)
{
    struct sync_outputs out;

    do {
        input->now_ms = cluster_now(cluster);
        /* Deadlines and the next summary mend what an error leaves undone. */
        int rc = sync_step(cluster->sync, input, &out);
        if (rc && input->kind == SYNC_LOCAL)
            log_error("cluster: a run cannot be kept in mind: %s", err_text(rc));
        for (size_t i = 0; i < out.count; i++)
            perform(cluster, &out.list[i]);
        *input = (struct sync_input){.kind = SYNC_TICK};
    } while (out.more);
}
