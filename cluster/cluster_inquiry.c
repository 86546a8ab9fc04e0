/*
 * Questions of this node's other threads to one member, and answers to those of others.
 *
 *   asking   a thread leaves its question under the lock and waits; the cluster's thread sends it,
 *            and whoever answers with its nonce ends the wait. No answer in INQUIRY_MS: it is sent
 *            again, a few times.
 *   answer   what is known (KNOWN) stands in the vector; rows are read by the pool. Too many at
 *            once are dropped: their askers ask again.
 *
 * Failure: a member that does not answer, or cannot read its rows, is a timeout to the asker.
 */
#include "cluster/cluster_internal.h"

#include "journal/db_cluster.h"
#include "journal/row_json.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TRIES 3

/* ---- Asking ---- */

void inquiry_send(struct cluster *cluster)
{
    pthread_mutex_lock(&cluster->lock);
    for (struct inquiry *it = cluster->inquiries; it; it = it->next) {
        if (it->sent)
            continue;
        it->sent = true;
        peer_send(cluster, &it->node, it->message);
        if (!it->answer) {
            it->done = true;
            pthread_cond_broadcast(&cluster->answered);
        }
    }
    pthread_mutex_unlock(&cluster->lock);
}

static void take_answer(struct inquiry *it, const struct wire_finding *finding)
{
    struct cluster_answer *answer = it->answer;

    answer->yes = finding->yes;
    answer->last = finding->last;
    answer->count = finding->count;
    answer->sum = finding->sum;
    buf_reset(&answer->data);
    buf_add(&answer->data, finding->data.ptr, finding->data.len);
    it->rc = buf_check(&answer->data);
    it->done = true;
}

static bool answers(const struct inquiry *it, const struct wire_message *message)
{
    static const enum wire_type answer_to[] = {
        [WIRE_KNOWN_ASK] = WIRE_KNOWN, [WIRE_RANGE_ASK] = WIRE_RANGE, [WIRE_ROW_ASK] = WIRE_ROW};

    return it->answer && !it->done && it->message->inquiry.nonce == message->finding.nonce &&
           answer_to[it->message->type] == message->type && id_equal(&it->node, &message->from);
}

static void receive_answer(struct cluster *cluster, const struct wire_message *message)
{
    bool found = false;

    pthread_mutex_lock(&cluster->lock);
    for (struct inquiry *it = cluster->inquiries; it && !found; it = it->next)
        if (answers(it, message)) {
            take_answer(it, &message->finding);
            found = true;
        }
    if (found)
        pthread_cond_broadcast(&cluster->answered);
    else
        cluster->refused++;
    pthread_mutex_unlock(&cluster->lock);
}

void inquiry_close(struct cluster *cluster)
{
    pthread_mutex_lock(&cluster->lock);
    cluster->asks_closed = true;
    for (struct inquiry *it = cluster->inquiries; it; it = it->next)
        if (!it->done) {
            it->done = true;
            it->rc = ERR_CLOSED;
        }
    pthread_cond_broadcast(&cluster->answered);
    pthread_mutex_unlock(&cluster->lock);
}

static void wait_answer(struct cluster *cluster, const struct inquiry *it)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += INQUIRY_MS / 1000;
    while (!it->done &&
           pthread_cond_timedwait(&cluster->answered, &cluster->lock, &until) != ETIMEDOUT)
        continue;
}

static int inquire(struct cluster *cluster, struct inquiry *it)
{
    struct inquiry **at;

    pthread_mutex_lock(&cluster->lock);
    if (cluster->asks_closed || cluster->inquiry_count == LIMIT_INQUIRIES) {
        int rc = cluster->asks_closed ? ERR_CLOSED : ERR_FULL;

        pthread_mutex_unlock(&cluster->lock);
        return rc;
    }
    it->next = cluster->inquiries;
    cluster->inquiries = it;
    cluster->inquiry_count++;
    for (int i = 0; i < TRIES && !it->done; i++) {
        it->sent = false;
        link_wake(cluster->link);
        wait_answer(cluster, it);
    }
    for (at = &cluster->inquiries; *at != it; at = &(*at)->next)
        continue;
    *at = it->next;
    cluster->inquiry_count--;
    pthread_mutex_unlock(&cluster->lock);
    return it->done ? it->rc : ERR_TIMEOUT;
}

int cluster_ask(struct cluster *cluster, const struct id128 *node, struct wire_message *question,
                struct cluster_answer *answer)
{
    struct inquiry it = {.node = *node, .message = question, .answer = answer};

    assert(question->type == WIRE_KNOWN_ASK || question->type == WIRE_RANGE_ASK ||
           question->type == WIRE_ROW_ASK);
    cluster->env->random(cluster->env, &question->inquiry.nonce, sizeof question->inquiry.nonce);
    return inquire(cluster, &it);
}

int cluster_tell(struct cluster *cluster, const struct id128 *node, struct wire_message *message)
{
    struct inquiry it = {.node = *node, .message = message};

    return inquire(cluster, &it);
}

static int by_origin(const void *a, const void *b)
{
    return id_compare(&((const struct db_origin *)a)->origin,
                      &((const struct db_origin *)b)->origin);
}

/* Runs from *NEXT on into RUNS, as many as one message takes. */
static int fill_runs(struct buf *runs, const struct db_origin *origins, size_t count, size_t *next)
{
    buf_reset(runs);
    for (unsigned taken = 0; *next < count && taken < LIMIT_WIRE_RUNS; ++*next) {
        const struct wire_run run = {.origin = origins[*next].origin, .seq = origins[*next].seq};

        if (run.seq == 0)
            continue; /* known by name alone */
        wire_run_add(runs, &run);
        taken++;
    }
    return buf_check(runs);
}

int cluster_is_known_to(struct cluster *cluster, const struct id128 *node)
{
    struct wire_message question = {.type = WIRE_KNOWN_ASK};
    struct cluster_answer answer = {.yes = true};
    struct db_origin *origins = NULL;
    struct db_reader *reader;
    struct buf runs;
    size_t count = 0, next = 0;
    int rc = journal_reader_open(cluster->journal, &reader);

    if (rc)
        return rc;
    rc = db_reader_origins(reader, &origins, &count);
    db_reader_close(&reader);
    buf_init(&runs, LIMIT_WIRE_RUNS * WIRE_RUN_BYTES);
    buf_init(&answer.data, LIMIT_WIRE_BYTES);
    if (rc == 0)
        qsort(origins, count, sizeof *origins, by_origin);
    while (rc == 0 && answer.yes && next < count) {
        rc = fill_runs(&runs, origins, count, &next);
        question.inquiry.runs = (struct text){runs.data, (uint32_t)runs.len};
        if (rc == 0)
            rc = cluster_ask(cluster, node, &question, &answer);
    }
    free(origins);
    buf_release(&runs);
    buf_release(&answer.data);
    return rc ? rc : answer.yes ? 0 : ERR_AGAIN;
}

/* ---- Answering ---- */

struct finding_job {
    struct job job;
    struct delivery delivery;
    struct cluster *cluster;
    struct id128 asker;
    enum wire_type type;
    struct wire_inquiry inquiry;
    struct db_range range;
    struct buf data;
    int rc;
};

static void finding_done(struct cluster *cluster, struct delivery *delivery)
{
    struct finding_job *job = container_of(delivery, struct finding_job, delivery);
    struct wire_message message = {.type = job->type == WIRE_RANGE_ASK ? WIRE_RANGE : WIRE_ROW,
                                   .finding = {.nonce = job->inquiry.nonce,
                                               .yes = job->range.complete,
                                               .last = job->range.last,
                                               .count = job->range.count,
                                               .sum = job->range.sum,
                                               .data = {job->data.data, (uint32_t)job->data.len}}};

    if (job->rc == 0)
        peer_send(cluster, &job->asker, &message);
    cluster->findings--;
    buf_release(&job->data);
    free(job);
    cluster_end(cluster);
}

static void find(struct job *base, void *context)
{
    struct finding_job *job = container_of(base, struct finding_job, job);
    const struct wire_inquiry *inquiry = &job->inquiry;

    if (job->type == WIRE_RANGE_ASK)
        job->rc = db_reader_range(context, &inquiry->id, &inquiry->until, inquiry->rows,
                                  inquiry->list ? &job->data : NULL, &job->range);
    else
        job->rc = row_json_read(&job->data, context, &inquiry->id);
    cluster_deliver(job->cluster, &job->delivery);
}

static void look_up(struct cluster *cluster, const struct wire_message *message)
{
    struct finding_job *job;

    if (cluster->findings == LIMIT_FINDINGS || !(job = calloc(1, sizeof *job))) {
        cluster->refused++;
        return;
    }
    job->job.run = find;
    job->delivery.run = finding_done;
    job->cluster = cluster;
    job->asker = message->from;
    job->type = message->type;
    job->inquiry = message->inquiry;
    if (job->inquiry.rows > LIMIT_WIRE_ROWS)
        job->inquiry.rows = LIMIT_WIRE_ROWS;
    buf_init(&job->data, message->type == WIRE_RANGE_ASK ? LIMIT_WIRE_ROWS * WIRE_ROW_SUM_BYTES
                                                         : LIMIT_WIRE_ROW_BYTES);
    cluster_begin(cluster);
    cluster->findings++;
    if (pool_submit(cluster->pool, &job->job) == 0)
        return;
    cluster->findings--;
    cluster_end(cluster);
    buf_release(&job->data);
    free(job);
}

/* Whether this node knows RUNS as far as they say. */
static bool knows(struct cluster *cluster, struct text runs)
{
    for (size_t i = 0; i < wire_run_count(runs); i++) {
        struct wire_run run = wire_run_at(runs, i);
        const struct vector_run *own = vector_find(sync_vector(cluster->sync), &run.origin);

        /* What contradicts itself is taken by nobody, and counts for nothing. */
        if (!own || (!own->frozen && own->seq < run.seq))
            return false;
    }
    return true;
}

void inquiry_receive(struct cluster *cluster, const struct wire_message *message)
{
    struct wire_message answer = {.type = WIRE_KNOWN};

    switch (message->type) {
    case WIRE_KNOWN_ASK:
        answer.finding.nonce = message->inquiry.nonce;
        answer.finding.yes = knows(cluster, message->inquiry.runs);
        peer_send(cluster, &message->from, &answer);
        return;
    case WIRE_RANGE_ASK:
    case WIRE_ROW_ASK:
        look_up(cluster, message);
        return;
    default:
        receive_answer(cluster, message);
        return;
    }
}
