/*
 * Between merging and the rest of the node: ranges of rows and their sums are read by the pool,
 * what came is committed as CHANGE_MERGE, and events are kept or let go.
 *
 * Letting go: once a snapshot is complete, the runs that it cuts are read, every live member is
 * asked whether it knows them (cut), and when all do, or the events take more than
 * LIMIT_SHARED_EVENT_BYTES, the journal may remove them; never while somebody is about to adopt a
 * vector that was given to it.
 */
#include "cluster/cluster_internal.h"

#include "base/log.h"
#include "journal/db_snapshot.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CUT_MS 250 /* between looks at what may go */

/* ---- Reading ---- */

struct rows_job {
    struct job job;
    struct delivery delivery;
    struct cluster *cluster;
    struct merge_read_done done;
    struct buf data;
};

static void rows_read(struct cluster *cluster, struct delivery *delivery)
{
    struct rows_job *job = container_of(delivery, struct rows_job, delivery);
    struct merge_input input = {.kind = MERGE_READ_DONE, .read_done = job->done};

    input.read_done.data = (struct text){job->data.data, (uint32_t)job->data.len};
    cluster_merge(cluster, &input);
    buf_release(&job->data);
    free(job);
    cluster_end(cluster);
}

static void read_rows(struct job *base, void *context)
{
    struct rows_job *job = container_of(base, struct rows_job, job);
    struct merge_read_done *done = &job->done;

    switch (done->read.part) {
    case MERGE_MEMBERS:
        done->rc = db_merge_members(context, &done->read.after, &job->data, &done->last);
        break;
    case MERGE_EVENTS:
        done->rc = db_merge_events(context, &done->read.after, &job->data, &done->last);
        break;
    case MERGE_ROWS:
        done->rc =
            db_merge_rows(context, &done->read.after, &done->read.through, &job->data, &done->last);
        break;
    }
    cluster_deliver(job->cluster, &job->delivery);
}

/* Without memory for a job the session's deadline sees to it; likewise below. */
static void ask_rows(struct cluster *cluster, const struct merge_read *read)
{
    struct rows_job *job = calloc(1, sizeof *job);

    if (!job)
        return;
    job->job.run = read_rows;
    job->delivery.run = rows_read;
    job->cluster = cluster;
    job->done.read = *read;
    buf_init(&job->data, LIMIT_WIRE_BYTES);
    cluster_begin(cluster);
    int rc = pool_submit(cluster->pool, &job->job);
    if (rc) {
        job->done.rc = rc;
        cluster_deliver(cluster, &job->delivery);
    }
}

struct sum_job {
    struct job job;
    struct delivery delivery;
    struct cluster *cluster;
    struct merge_sum sum;
    size_t want, count; /* fences given, done */
    int rc;
    struct db_fence fences[LIMIT_WIRE_FENCES];
};

static void summed(struct cluster *cluster, struct delivery *delivery)
{
    struct sum_job *job = container_of(delivery, struct sum_job, delivery);
    struct merge_input input = {.kind = MERGE_SUMMED,
                                .summed = {.peer = job->sum.peer,
                                           .session = job->sum.session,
                                           .fences = job->fences,
                                           .count = job->count,
                                           .rc = job->rc}};

    cluster_merge(cluster, &input);
    free(job);
    cluster_end(cluster);
}

static void sum_rows(struct job *base, void *context)
{
    struct sum_job *job = container_of(base, struct sum_job, job);
    const struct merge_sum *sum = &job->sum;

    job->rc = job->want ? db_merge_sums(context, &sum->after, job->fences, job->want, &job->count)
                        : db_merge_split(context, &sum->after, &sum->through, sum->rows,
                                         LIMIT_WIRE_FENCES, job->fences, &job->count);
    cluster_deliver(job->cluster, &job->delivery);
}

static void ask_sums(struct cluster *cluster, const struct merge_sum *sum)
{
    struct sum_job *job = calloc(1, sizeof *job);

    if (!job)
        return;
    job->job.run = sum_rows;
    job->delivery.run = summed;
    job->cluster = cluster;
    job->sum = *sum;
    job->want = wire_fence_count(sum->fences);
    assert(job->want <= LIMIT_WIRE_FENCES);
    for (size_t i = 0; i < job->want; i++)
        job->fences[i].id = wire_fence_at(sum->fences, i);
    job->sum.fences = (struct text){NULL, 0};
    cluster_begin(cluster);
    int rc = pool_submit(cluster->pool, &job->job);
    if (rc) {
        job->rc = rc;
        cluster_deliver(cluster, &job->delivery);
    }
}

/* ---- Committing ---- */

struct merge_job {
    struct commit_job job; /* first */
    uint64_t token;
    struct id128 *lost; /* runs of this node */
    uint8_t data[];
};

static void chunks_committed(struct cluster *cluster, struct delivery *delivery)
{
    struct merge_job *job = container_of(delivery, struct merge_job, job.delivery);
    struct merge_input input = {.kind = MERGE_COMMITTED,
                                .committed = {job->token, job->job.change.rc}};

    object_destroy(&job->job.change.object);
    free(job->lost);
    free(job);
    cluster_merge(cluster, &input);
    cluster_end(cluster);
}

/* Of COUNT runs those of this node that it does not know so far, into the job. */
static int find_lost(struct cluster *cluster, struct merge_job *job,
                     const struct wire_merge_run *runs, size_t count)
{
    const struct vector *vector = sync_vector(cluster->sync);
    struct change *change = &job->job.change;

    for (size_t i = 0; i < count; i++) {
        const struct vector_run *known = vector_find(vector, &runs[i].origin);

        if (!id_equal(&runs[i].node, &cluster->self) || (known && known->seq >= runs[i].seq))
            continue;
        struct id128 *grown =
            reallocarray(job->lost, change->lost_run_count + 1, sizeof *job->lost);
        if (!grown)
            return ERR_NO_MEMORY;
        job->lost = grown;
        job->lost[change->lost_run_count++] = runs[i].origin;
    }
    change->lost_runs = job->lost;
    return 0;
}

static void commit_chunks(struct cluster *cluster, const struct merge_output *output)
{
    struct text data = output->commit.data;
    struct merge_job *job = malloc(sizeof *job + data.len);

    if (!job)
        return;
    *job = (struct merge_job){
        .job = {.change = {.request.kind = CHANGE_MERGE}, .delivery.run = chunks_committed},
        .token = output->commit.token};
    if (find_lost(cluster, job, output->commit.runs, output->commit.run_count) != 0) {
        free(job->lost);
        free(job);
        return;
    }
    memcpy(job->data, data.ptr, data.len);
    job->job.change.events = job->data;
    job->job.change.events_bytes = data.len;
    cluster_commit(cluster, &job->job);
}

/* ---- The core ---- */

static void say(struct cluster *cluster, const struct merge_output *output)
{
    char text[ULID_TEXT_BYTES + 1];

    (void)cluster;
    ulid_format(text, &output->job.peer);
    if (output->kind == MERGE_BEGUN && output->job.repair)
        log_warn("cluster: node %s has other rows than this one at the same events; comparing them",
                 text);
    else if (output->kind == MERGE_BEGUN)
        log_info("cluster: node %s has compacted events that this node lacks; taking its rows",
                 text);
    else if (output->job.done)
        log_info("cluster: %s with node %s: %llu bytes of rows",
                 output->job.repair ? "rows compared" : "merged", text,
                 (unsigned long long)output->job.bytes);
    else
        log_warn("cluster: the merge with node %s came to nothing", text);
}

static void perform(struct cluster *cluster, const struct merge_output *output)
{
    switch (output->kind) {
    case MERGE_SEND:
        peer_send(cluster, &output->send.to, &output->send.message);
        return;
    case MERGE_READ:
        if (!cluster->leaving)
            ask_rows(cluster, &output->read);
        return;
    case MERGE_SUM:
        if (!cluster->leaving)
            ask_sums(cluster, &output->sum);
        return;
    case MERGE_COMMIT:
        if (!cluster->leaving)
            commit_chunks(cluster, output);
        return;
    case MERGE_HOLD:
        cluster->merge_holds = output->hold;
        return;
    case MERGE_BEGUN:
    case MERGE_ENDED:
        say(cluster, output);
        return;
    }
}

void cluster_merge(struct cluster *cluster, struct merge_input *input)
{
    struct merge_outputs out;

    do {
        input->now_ms = cluster_now(cluster);
        /* Deadlines mend what an error leaves undone. */
        (void)!merge_step(cluster->merge, input, &out);
        for (size_t i = 0; i < out.count; i++)
            perform(cluster, &out.list[i]);
        *input = (struct merge_input){.kind = MERGE_TICK};
    } while (out.more);
}

/* ---- What may go ---- */

struct cuts_job {
    struct job job;
    struct delivery delivery;
    struct cluster *cluster;
    struct id128 snapshot;
    struct db_cut *cuts;
    size_t count;
    int rc;
};

/* Of the runs that the snapshot cuts, those of which events are still here. */
static int gather(struct cluster *cluster, const struct cuts_job *job, struct buf *runs)
{
    const struct vector *vector = sync_vector(cluster->sync);

    for (size_t i = 0; i < job->count; i++) {
        const struct db_cut *cut = &job->cuts[i];
        const struct vector_run *run = vector_find(vector, &cut->origin);

        if (run && !run->frozen && run->anchor_seq < cut->seq)
            wire_run_add(runs, &(struct wire_run){cut->origin, cut->seq});
    }
    return buf_check(runs);
}

static void cuts_read(struct cluster *cluster, struct delivery *delivery)
{
    struct cuts_job *job = container_of(delivery, struct cuts_job, delivery);
    struct buf runs = {0};
    int rc = job->rc ? job->rc : gather(cluster, job, &runs);

    if (rc == 0)
        rc = cut_set(cluster->cut, &job->snapshot, (struct text){runs.data, (uint32_t)runs.len});
    if (rc)
        log_warn("cluster: what a snapshot cuts cannot be read: %s; will retry", err_text(rc));
    cluster->cut_reading = false;
    buf_release(&runs);
    free(job->cuts);
    free(job);
    cluster_end(cluster);
}

static void read_cuts(struct job *base, void *context)
{
    struct cuts_job *job = container_of(base, struct cuts_job, job);

    job->rc = db_reader_cuts(context, &job->snapshot, &job->cuts, &job->count);
    cluster_deliver(job->cluster, &job->delivery);
}

static void ask_cuts(struct cluster *cluster, const struct id128 *snapshot)
{
    struct cuts_job *job = calloc(1, sizeof *job);

    if (!job)
        return; /* with a later tick */
    job->job.run = read_cuts;
    job->delivery.run = cuts_read;
    job->cluster = cluster;
    job->snapshot = *snapshot;
    cluster->cut_reading = true;
    cluster_begin(cluster);
    if (pool_submit(cluster->pool, &job->job) == 0)
        return;
    cluster->cut_reading = false;
    cluster_end(cluster);
    free(job);
}

void cluster_cut_message(struct cluster *cluster, const struct wire_message *message)
{
    const struct wire_merge_cut *cut = &message->merge_cut;

    if (message->type == WIRE_MERGE_CUT_KNOWN) {
        cut_take(cluster->cut, &message->from, cut->nonce, cut->known);
        return;
    }
    bool known = cut_is_known(sync_vector(cluster->sync), cut->runs);
    const struct wire_message answer = {.type = WIRE_MERGE_CUT_KNOWN,
                                        .merge_cut = {.nonce = cut->nonce, .known = known}};

    peer_send(cluster, &message->from, &answer);
}

void cluster_cut_tick(struct cluster *cluster, uint64_t now_ms)
{
    struct cut_question questions[LIMIT_PEERS];
    struct cut_peer peers[LIMIT_PEERS];
    struct id128 snapshot, asked = cut_snapshot(cluster->cut);
    size_t count = 0;

    if (now_ms - cluster->cut_ms < CUT_MS || cluster->leaving)
        return;
    cluster->cut_ms = now_ms;
    if (cluster->cut_reading || !journal_waits(cluster->journal, &snapshot))
        return;
    if (!id_equal(&asked, &snapshot)) {
        ask_cuts(cluster, &snapshot);
        return;
    }
    for (size_t i = 0; i < cluster->peer_count; i++)
        peers[i] = (struct cut_peer){.node = cluster->peers[i].node,
                                     .alive = cluster->peers[i].alive,
                                     .settled = cluster->peers[i].seen};
    bool all = cut_step(cluster->cut, now_ms, peers, cluster->peer_count, questions, &count);
    for (size_t i = 0; i < count; i++) {
        const struct wire_message message = {.type = WIRE_MERGE_CUT_ASK,
                                             .merge_cut = questions[i].ask};

        peer_send(cluster, &questions[i].to, &message);
    }
    bool enough = cluster->event_bytes > LIMIT_SHARED_EVENT_BYTES;
    if ((!all && !enough) || cluster->merge_holds)
        return;
    if (!all)
        log_warn("cluster: events take %llu bytes, and go although a member lacks some of them",
                 (unsigned long long)cluster->event_bytes);
    journal_let_go(cluster->journal, &snapshot);
    cut_clear(cluster->cut);
}
