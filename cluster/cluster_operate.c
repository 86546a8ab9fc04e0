/*
 * Administration of the cluster, as the node's other threads ask for it: facts about members and
 * the feature level, the gate for clients' changes, and a new node that takes the place of a dead
 * one.
 *
 * Facts are committed as any event is, and count once they come back from the database as news.
 *
 * Replacing. A node started with --replace=ID waits until it has joined, holds the same facts as a
 * member that answers, and sees that ID does not answer; if no object's last copy was on ID, it
 * journals that ID is forgotten. Otherwise it says so and leaves that to people: what level 2 asks
 * for it copies in any case.
 *
 * Failure: of a commit, told to whoever asked; a replacement that fails is tried again.
 */
#include "cluster/cluster_internal.h"

#include "base/log.h"
#include "cluster/membership.h"
#include "journal/db_cluster.h"
#include "journal/ulid.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE            256
#define REJOIN_MS       10000
#define REJOIN_STEP_MS  50
#define REPLACE_AGAIN_S 10

/* ---- The gate ---- */

int cluster_write_refusal(struct cluster *cluster)
{
    if (atomic_load(&cluster->outside))
        return ERR_OUTSIDE;
    return atomic_load(&cluster->draining) ? ERR_DRAINING : 0;
}

int cluster_write_begin(struct cluster *cluster)
{
    /* Counted first: who drains sets the flag and then waits until nothing is counted. */
    atomic_fetch_add(&cluster->writing, 1);
    int rc = cluster_write_refusal(cluster);

    if (rc)
        cluster_write_end(cluster);
    return rc;
}

void cluster_write_end(struct cluster *cluster)
{
    unsigned before = atomic_fetch_sub(&cluster->writing, 1);

    assert(before > 0);
    (void)before;
}

/* ---- Facts ---- */

struct waiting {
    struct change change; /* first: the committer hands it back */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool done;
};

static void committed(struct change *change)
{
    struct waiting *w = (struct waiting *)change;

    pthread_mutex_lock(&w->lock);
    w->done = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

/* Commit EVENT and wait until it is durable. */
static int commit_fact(struct cluster *cluster, const struct event *event)
{
    struct waiting w = {.change = {.request.kind = CHANGE_FACT, .fact = event, .done = committed}};

    (void)pthread_mutex_init(&w.lock, NULL);
    (void)pthread_cond_init(&w.wake, NULL);
    int rc = journal_submit(cluster->journal, &w.change);
    if (rc == 0) {
        pthread_mutex_lock(&w.lock);
        while (!w.done)
            pthread_cond_wait(&w.wake, &w.lock);
        pthread_mutex_unlock(&w.lock);
        rc = w.change.rc;
    }
    object_destroy(&w.change.object);
    (void)pthread_cond_destroy(&w.wake);
    (void)pthread_mutex_destroy(&w.lock);
    return rc;
}

int cluster_declare(struct cluster *cluster, const struct cluster_member *node,
                    enum member_state state)
{
    const struct event event = {.kind = EVENT_MEMBER,
                                .fields = EVENT_HAS_MEMBER,
                                .stamp = node->stamp,
                                .subject = node->node,
                                .address = {node->address, (uint32_t)strlen(node->address)},
                                .member_state = (uint8_t)state};

    assert(state == MEMBER_LEFT || state == MEMBER_FORGOTTEN);
    return commit_fact(cluster, &event);
}

int cluster_raise(struct cluster *cluster, uint32_t level)
{
    const struct event event = {
        .kind = EVENT_FEATURE, .fields = EVENT_HAS_FEATURE, .feature = level};

    assert(level >= 1 && level <= FEATURE_LEVEL);
    return commit_fact(cluster, &event);
}

#ifdef OBJSTORE_FEATURE_BUILD
int cluster_sample(struct cluster *cluster, const char *text)
{
    const struct event event = {
        .kind = EVENT_SAMPLE, .fields = EVENT_HAS_NAME, .name = {text, (uint32_t)strlen(text)}};

    return commit_fact(cluster, &event);
}
#endif

static bool find_self(struct cluster *cluster, struct cluster_member *out)
{
    struct cluster_member view[LIMIT_MEMBERS + 1];
    size_t count = cluster_members(cluster, view, LIMIT_MEMBERS + 1);

    for (size_t i = 0; i < count; i++)
        if (view[i].self) {
            *out = view[i];
            return true;
        }
    return false;
}

int cluster_rejoin(struct cluster *cluster)
{
    struct cluster_member self;

    if (!find_self(cluster, &self) || self.joined == MEMBER_JOINED)
        return ERR_UNSUPPORTED;
    atomic_store(&cluster->rejoin, true);
    for (unsigned ms = 0; ms < REJOIN_MS; ms += REJOIN_STEP_MS) {
        const struct timespec step = {0, REJOIN_STEP_MS * 1000000};

        (void)nanosleep(&step, NULL);
        if (find_self(cluster, &self) && self.joined == MEMBER_JOINED &&
            !atomic_load(&cluster->outside))
            return 0;
    }
    atomic_store(&cluster->rejoin, false);
    return ERR_AGAIN;
}

/* ---- Whose copies are the last ones ---- */

struct page {
    struct object *objects[PAGE];
    size_t count;
    struct id128 last;
};

static int keep_row(void *arg, const struct object *object)
{
    struct page *page = arg;

    page->last = object->id;
    /* A copy of our own counts: this node is a member. */
    if ((object->flags & (OBJECT_PUT | OBJECT_DELETED)) != OBJECT_PUT ||
        !place_is_none(&object->place))
        return 0;
    page->objects[page->count] = object_copy(object);
    return page->objects[page->count++] ? 0 : ERR_NO_MEMORY;
}

static int judge(struct db_reader *reader, const struct object *object,
                 const struct db_custody *others, const struct db_custody *node,
                 struct cluster_sole *out)
{
    bool sole = false, elsewhere = true;
    int rc = db_reader_is_sole(reader, object, others, &sole);

    if (rc == 0 && sole)
        rc = db_reader_is_sole(reader, object, node, &elsewhere);
    if (rc || !sole || elsewhere)
        return rc;
    if (out->objects < CLUSTER_SOLE_IDS)
        out->ids[out->objects] = object->id;
    out->objects++;
    out->bytes += object->size;
    return 0;
}

static int walk(struct db_reader *reader, const struct db_custody *others,
                const struct db_custody *node, struct cluster_sole *out)
{
    static const struct id128 highest = {
        {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}};
    struct id128 cursor = {{0}};
    bool complete = false;
    int rc = 0;

    while (rc == 0 && !complete) {
        struct page page = {.last = cursor};

        rc = db_each_in_range(reader, &cursor, &highest, PAGE, keep_row, &page, &complete);
        for (size_t i = 0; i < page.count; i++) {
            if (rc == 0)
                rc = judge(reader, page.objects[i], others, node, out);
            object_destroy(&page.objects[i]);
        }
        cursor = page.last;
    }
    return rc;
}

int cluster_sole_of(struct cluster *cluster, const struct id128 *node, struct cluster_sole *out)
{
    struct cluster_member view[LIMIT_MEMBERS + 1];
    size_t count = cluster_members(cluster, view, LIMIT_MEMBERS + 1);
    struct db_custody others, alone = {.nodes = {*node}, .count = 1};
    struct db_reader *reader;

    *out = (struct cluster_sole){0};
    membership_others(view, count, node, &others);
    int rc = journal_reader_open(cluster->journal, &reader);
    if (rc)
        return rc;
    rc = walk(reader, &others, &alone, out);
    db_reader_close(&reader);
    return rc;
}

/* ---- Taking a dead member's place ---- */

struct replace_job {
    struct job job;
    struct delivery delivery;
    struct cluster *cluster;
    struct cluster_member dead;
    struct cluster_sole sole;
    int rc;
};

static void replaced(struct cluster *cluster, struct delivery *delivery)
{
    struct replace_job *job = container_of(delivery, struct replace_job, delivery);
    char id[ULID_TEXT_BYTES + 1], first[ULID_TEXT_BYTES + 1];

    ulid_format(id, &job->dead.node);
    cluster->replacing = false;
    if (job->rc) {
        log_warn("cluster: node %s cannot be replaced now: %s", id, err_text(job->rc));
        cluster->replace_ms = cluster_now(cluster) + REPLACE_AGAIN_S * 1000;
    } else if (job->sole.objects) {
        ulid_format(first, &job->sole.ids[0]);
        log_error("cluster: node %s is not replaced: the only copies of %llu objects are on it, "
                  "first %s; objctl node forget %s --accept-loss gives them up",
                  id, (unsigned long long)job->sole.objects, first, id);
        cluster->replaces = (struct id128){{0}};
    } else {
        log_info("cluster: this node takes the place of node %s, which is forgotten", id);
        cluster->replaces = (struct id128){{0}};
    }
    free(job);
    cluster_end(cluster);
}

static void replace(struct job *base, void *context)
{
    struct replace_job *job = container_of(base, struct replace_job, job);

    (void)context;
    job->rc = cluster_sole_of(job->cluster, &job->dead.node, &job->sole);
    if (job->rc == 0 && job->sole.objects == 0)
        job->rc = cluster_declare(job->cluster, &job->dead, MEMBER_FORGOTTEN);
    cluster_deliver(job->cluster, &job->delivery);
}

static void begin_replace(struct cluster *cluster, const struct member *row)
{
    struct replace_job *job = calloc(1, sizeof *job);

    if (!job)
        return;
    job->job.run = replace;
    job->delivery.run = replaced;
    job->cluster = cluster;
    job->dead = (struct cluster_member){.node = row->node, .stamp = row->at.stamp};
    memcpy(job->dead.address, row->address, sizeof job->dead.address);
    cluster_begin(cluster);
    cluster->replacing = true;
    if (pool_submit(cluster->pool, &job->job) == 0)
        return;
    cluster->replacing = false;
    cluster_end(cluster);
    free(job);
}

/* Whether a member that answers has the same facts as this node. */
static bool is_level_with_others(struct cluster *cluster)
{
    for (size_t i = 0; i < cluster->peer_count; i++)
        if (cluster->peers[i].member && cluster->peers[i].alive && cluster->peers[i].digest_equal)
            return true;
    return false;
}

void operate_replace(struct cluster *cluster)
{
    const struct member *self = members_find(cluster->members, &cluster->self), *dead;
    char id[ULID_TEXT_BYTES + 1];
    struct probe_peer probed;

    if (id_is_zero(&cluster->replaces) || cluster->replacing || !self ||
        self->state != MEMBER_JOINED || cluster_now(cluster) < cluster->replace_ms ||
        !is_level_with_others(cluster))
        return;
    ulid_format(id, &cluster->replaces);
    dead = members_find(cluster->members, &cluster->replaces);
    if (!dead || dead->state != MEMBER_JOINED) {
        if (!dead)
            log_error("cluster: --replace=%s: no such node was ever a member", id);
        cluster->replaces = (struct id128){{0}}; /* else it is replaced already */
        return;
    }
    if (!probe_peer(cluster->probe, &dead->node, &probed) || probed.state == PROBE_SUSPECT)
        return;
    if (probed.state == PROBE_ALIVE) {
        log_error("cluster: --replace=%s: that node answers, it is not replaced", id);
        cluster->replaces = (struct id128){{0}};
        return;
    }
    begin_replace(cluster, dead);
}

/* ---- Copies for others ---- */

struct adopt_order {
    struct delivery delivery;
    struct id128 node;
    size_t count;
    struct event_item items[];
};

static void send_adopt(struct cluster *cluster, struct delivery *delivery)
{
    struct adopt_order *order = container_of(delivery, struct adopt_order, delivery);
    const struct wire_message message = {
        .type = WIRE_ADOPT,
        .adopt.items = {(const char *)order->items,
                        (uint32_t)(order->count * sizeof *order->items)}};

    peer_send(cluster, &order->node, &message);
    free(order);
    cluster_end(cluster);
}

int cluster_adopt(struct cluster *cluster, const struct id128 *node, const struct event_item *items,
                  size_t count)
{
    struct adopt_order *order = malloc(sizeof *order + count * sizeof *items);

    assert(count > 0 && count <= LIMIT_WIRE_ADOPT);
    if (!order)
        return ERR_NO_MEMORY;
    order->delivery.run = send_adopt;
    order->node = *node;
    order->count = count;
    memcpy(order->items, items, count * sizeof *items);
    cluster_begin(cluster);
    cluster_deliver(cluster, &order->delivery);
    return 0;
}

void operate_adopt(struct cluster *cluster, const struct wire_message *message)
{
    const struct member *self = members_find(cluster->members, &cluster->self);
    struct event_item items[LIMIT_WIRE_ADOPT];
    size_t count = message->adopt.items.len / sizeof *items;

    assert(count <= LIMIT_WIRE_ADOPT);
    if (!self || self->state != MEMBER_JOINED || cluster_write_refusal(cluster) != 0)
        return; /* whoever asks looks for somebody else */
    memcpy(items, message->adopt.items.ptr, count * sizeof *items);
    replicator_adopt(cluster->replicator, items, count);
}
