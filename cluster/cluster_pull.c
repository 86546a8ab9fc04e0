/*
 * Whom a fetch asks, one source after the other, each from the byte that the one before it reached:
 *
 *   source    asks                                                  goes on when
 *   NEAR      members that have a copy and answer, each once        none gave all
 *   DELEGATE  the member that fetches this body for all             it does not answer at once
 *   CLOUD     the cloud                                             it has it not, or is away
 *   FAR       every member that answers, those with a copy first    the end
 *
 * Where the cloud has no copy it is FAR alone, for some rounds, and the silent are asked, too.
 * Which member fetches for all is decided by rendezvous hash among those that answer (Thaler and
 * Ravishankar, 1998): while views agree it is the same one for everybody, and the cloud is asked
 * once. It is asked with `delegated`, so it asks nobody else to fetch it; if it does not begin at
 * once, the cloud is asked from here. A part of a body (CLUSTER_PART_BYTES) has a delegate of its
 * own. Where that is this node, what its clients ask for comes from the cloud right away, and what
 * its replicator asks for is asked of itself, as of another node: so it takes part in what comes
 * for the clients, and in what the other members' replicators have left to it.
 *
 * Bytes go to the reader as they come: from peers on the cluster's thread, from the cloud on the
 * cloud's. One source has ended before the next begins, and that waits until the reader has taken
 * all but BODY_WINDOW_BYTES / 2: so its window and the next one's never add up to more than
 * CLUSTER_CLOUD_BYTES.
 *
 * Who seeks what an id has (cluster_seek.c) asks the DELEGATE alone.
 *
 * A range says which bytes it means by the ETag that the row names (If-Match). A whole body needs
 * none, as its owner compares the SHA-256.
 *
 * Failure: a cloud that breaks off is asked again at the byte reached for as long as it moves;
 * one that does not answer is passed over, and the end is ERR_CLOUD unless a member has the rest. A
 * fetch that is cancelled while the cloud is asked ends when the cloud has let go of it.
 */
#include "cluster/cluster_internal.h"

#include "base/bytes.h"
#include "base/log.h"
#include "journal/ulid.h"

#include <assert.h>
#include <string.h>

/* Milliseconds. */
#define DELEGATE_FIRST_BYTE_MS 500
#define SEEK_FIRST_BYTE_MS     1000
#define SEEK_COMING_MS         600000 /* a body is read whole meanwhile; the delegate sees it move */
#define CLOUD_AGAIN_MS         250    /* after a break, doubled with each that brought little */
#define CLOUD_FULL_MS          50     /* while it has too much under way … */
#define CLOUD_PLACE_MS         30000  /* … for so long */
#define CLOUD_TRIES            3

static bool is_background(const struct cluster_ask *ask)
{
    return ask->fetch.background;
}

static uint64_t end_of(const struct cluster_ask *ask)
{
    return ask->fetch.offset + ask->fetch.length;
}

static bool is_whole(const struct cluster_ask *ask)
{
    return ask->fetch.offset == 0 && ask->fetch.length == ask->fetch.size;
}

/* One of those into which every node cuts a body. */
static bool is_part(const struct cluster_ask *ask)
{
    uint64_t offset = ask->fetch.offset, rest = ask->fetch.size - offset;

    return offset % CLUSTER_PART_BYTES == 0 &&
           ask->fetch.length == (rest < CLUSTER_PART_BYTES ? rest : CLUSTER_PART_BYTES);
}

static struct cluster_reader *reader_of(struct cluster *cluster, uint64_t number)
{
    for (size_t i = 0; i < cluster->reading_count; i++)
        if (cluster->reading[i]->number == number)
            return cluster->reading[i];
    return NULL;
}

/* ---- Members ---- */

/* The holders that are named, those that answer first, then (EVERYBODY) others. */
static size_t order_holders(struct cluster *cluster, const struct cluster_ask *ask, bool everybody,
                            struct id128 out[LIMIT_FETCH_HOLDERS])
{
    struct id128 alive[LIMIT_FETCH_HOLDERS];
    size_t count = 0, others = 0;

    /* Where the cloud has it, the dead are not waited for. */
    const int least = ask->fetch.cloud ? 1 : 0;
    for (int answering = 1; answering >= least; answering--)
        for (size_t i = 0; i < ask->fetch.holder_count; i++) {
            const struct peer *peer = peer_find(cluster, &ask->holders[i]);

            if (peer && peer->alive == (answering == 1) && count < LIMIT_FETCH_HOLDERS)
                out[count++] = ask->holders[i];
        }
    if (everybody)
        others = peer_alive(cluster, alive, LIMIT_FETCH_HOLDERS);
    for (size_t i = 0; i < others && count < LIMIT_FETCH_HOLDERS; i++) {
        bool named = false;

        for (size_t k = 0; k < count && !named; k++)
            named = id_equal(&out[k], &alive[i]);
        if (!named)
            out[count++] = alive[i];
    }
    return count;
}

/* Of a part by its place, too: the parts of one body are spread over the members. */
static uint64_t score(const struct id128 *node, const struct cluster_ask *ask)
{
    uint8_t key[2 * sizeof *node + SHA256_BYTES + sizeof(uint64_t)], *at = key;

    memcpy(at, node->bytes, sizeof *node);
    at += sizeof *node;
    memcpy(at, ask->fetch.id.bytes, sizeof *node);
    at += sizeof *node;
    memcpy(at, ask->fetch.sha256, SHA256_BYTES);
    at += SHA256_BYTES;
    if (!is_whole(ask)) {
        put_u64(at, ask->fetch.offset / CLUSTER_PART_BYTES);
        at += sizeof(uint64_t);
    }
    return xxh64(key, (size_t)(at - key), 0);
}

/* Who fetches this body, or part of one, for all. */
static struct id128 pick_delegate(struct cluster *cluster, const struct cluster_ask *ask)
{
    struct id128 alive[LIMIT_MEMBERS], found = cluster->self;
    size_t count = peer_alive(cluster, alive, LIMIT_MEMBERS);
    uint64_t best = score(&cluster->self, ask);

    for (size_t i = 0; i < count; i++) {
        uint64_t its = score(&alive[i], ask);

        if (its > best) {
            best = its;
            found = alive[i];
        }
    }
    return found;
}

/* Ask REQUEST's holders for what is left. */
static int start_fetch(struct cluster *cluster, struct cluster_ask *ask,
                       struct fetch_request *request)
{
    request->number = ++cluster->last_number;
    request->id = ask->fetch.id;
    request->size = ask->fetch.size;
    request->offset = ask->at;
    request->length = end_of(ask) - ask->at;
    request->background = is_background(ask);
    memcpy(request->sha256, ask->fetch.sha256, SHA256_BYTES);
    ask->reader->number = request->number;
    int rc = fetch_start(cluster->fetches, request, cluster_now(cluster));

    if (rc)
        ask->reader->number = 0;
    return rc;
}

static int ask_members(struct cluster *cluster, struct cluster_ask *ask, bool everybody)
{
    struct id128 holders[LIMIT_FETCH_HOLDERS];
    struct fetch_request request = {.holders = holders, .rounds = ask->fetch.cloud ? 1 : 0};

    request.holder_count = order_holders(cluster, ask, everybody, holders);
    return start_fetch(cluster, ask, &request);
}

static int ask_delegate(struct cluster *cluster, struct cluster_ask *ask)
{
    struct id128 node;
    struct fetch_request request = {.holders = &node,
                                    .holder_count = 1,
                                    .rounds = 1,
                                    .delegated = true,
                                    .first_byte_ms = DELEGATE_FIRST_BYTE_MS};

    if (ask->fetch.delegated || (!is_whole(ask) && !is_part(ask)))
        return ERR_NOT_FOUND;
    if (ask->fetch.seeks) {
        request.first_byte_ms = SEEK_FIRST_BYTE_MS;
        request.coming_ms = SEEK_COMING_MS;
    }
    node = pick_delegate(cluster, ask);
    ask->own = id_equal(&node, &cluster->self);
    /* What this node's clients ask for comes here by itself; its replicator joins them. */
    if (ask->own && !is_background(ask))
        return ERR_NOT_FOUND;
    return start_fetch(cluster, ask, &request);
}

/* ---- The cloud ---- */

static struct cluster_ask *ask_of(struct cloud_request *request)
{
    return container_of(request, struct cluster_ask, request);
}

static int on_cloud_head(struct cloud_request *request, const struct cloud_head *head)
{
    return head->size == ask_of(request)->fetch.size ? 0 : ERR_MISMATCH;
}

static void on_cloud_data(struct cloud_request *request, const void *bytes, size_t len)
{
    struct cluster_ask *ask = ask_of(request);

    if (len > end_of(ask) - ask->at) {
        ask->overrun = true;
        return;
    }
    atomic_fetch_add_explicit(&ask->cluster->cloud_counts.bytes, len, memory_order_relaxed);
    ask->reader->from_cloud = true;
    ask->reader->data(ask->reader, ask->at, bytes, len);
    ask->at += len;
}

static void on_cloud_done(struct cloud_request *request, int rc)
{
    struct cluster_ask *ask = ask_of(request);
    struct cluster *cluster = ask->cluster;

    pthread_mutex_lock(&cluster->lock);
    ask->asked = false;
    ask->rc = rc;
    pthread_mutex_unlock(&cluster->lock);
    cluster_deliver(cluster, &ask->delivery);
}

static void cloud_back(struct cluster *cluster, struct delivery *delivery);

static struct cloud_text text_of(const char *text)
{
    return (struct cloud_text){text, (uint32_t)strlen(text)};
}

static int ask_cloud(struct cluster *cluster, struct cluster_ask *ask)
{
    struct cloud_request *request = &ask->request;

    assert(!ask->flying && cluster->cloud);
    *request = (struct cloud_request){.op = CLOUD_GET,
                                      .bucket = text_of(ask->cloud.bucket),
                                      .key = text_of(ask->cloud.key),
                                      .offset = ask->at,
                                      .head = on_cloud_head,
                                      .data = on_cloud_data,
                                      .done = on_cloud_done};
    if (end_of(ask) < ask->fetch.size)
        request->length = end_of(ask) - ask->at;
    if (!is_whole(ask))
        request->if_match = text_of(ask->cloud.etag);
    ask->delivery.run = cloud_back;
    ask->began = ask->at;
    ask->overrun = false;
    ask->flying = ask->asked = true;
    cluster_begin(cluster);
    int rc = cloud_start(cluster->cloud, request);
    if (rc) {
        ask->flying = ask->asked = false;
        cluster_end(cluster);
        return rc;
    }
    atomic_fetch_add_explicit(&cluster->cloud_counts.gets, 1, memory_order_relaxed);
    if (ask->fetch.delegated)
        atomic_fetch_add_explicit(&cluster->cloud_counts.delegated, 1, memory_order_relaxed);
    return 0;
}

/* ---- One after the other ---- */

static void complain(struct cluster *cluster, const struct cluster_ask *ask, int rc)
{
    char id[ULID_TEXT_BYTES + 1];
    const char *message = ask->request.message;

    ulid_format(id, &ask->fetch.id);
    (void)cluster;
    log_warn("object %s: the cloud gave bytes %llu to %llu of %llu only: %s", id,
             (unsigned long long)ask->began, (unsigned long long)ask->at,
             (unsigned long long)ask->fetch.size, *message ? message : err_text(rc));
}

static void end(struct cluster *cluster, struct cluster_ask *ask, int rc)
{
    bodies_end(cluster, ask->reader, rc && ask->cloud_away ? ERR_CLOUD : rc);
}

/* Begin with the next source, or end. */
static void advance(struct cluster *cluster, struct cluster_ask *ask)
{
    int rc = ERR_NOT_FOUND;

    ask->source_over = false;
    while (rc) {
        ask->began = ask->at;
        ask->tries = 0;
        ask->since_ms = cluster_now(cluster);
        ask->source++;
        switch (ask->source) {
        case PULL_NEAR:
            rc = ask->fetch.cloud ? ask_members(cluster, ask, false) : ERR_NOT_FOUND;
            break;
        case PULL_DELEGATE:
            rc = ask->fetch.cloud || ask->fetch.seeks ? ask_delegate(cluster, ask) : ERR_NOT_FOUND;
            break;
        case PULL_CLOUD:
            rc = ask->fetch.cloud ? ask_cloud(cluster, ask) : ERR_NOT_FOUND;
            if (rc == ERR_FULL) {
                ask->retry_ms = ask->since_ms + CLOUD_FULL_MS;
                return;
            }
            ask->cloud_away = ask->fetch.cloud && rc;
            break;
        default:
            assert(ask->source == PULL_FAR);
            rc = ask->fetch.seeks ? ERR_NOT_FOUND : ask_members(cluster, ask, true);
            if (rc) {
                end(cluster, ask, ask->fetch.seeks && ask->rc ? ask->rc : rc);
                return;
            }
        }
    }
}

/* The present source gave what it had: the next one, once the reader has room. */
static void source_ended(struct cluster *cluster, struct cluster_ask *ask)
{
    ask->source_over = true;
    ask->reader->number = 0;
    if (ask->at - ask->taken < BODY_WINDOW_BYTES / 2)
        advance(cluster, ask);
}

/* Will the cloud be asked again? */
static bool is_worth_another(struct cluster_ask *ask, int rc)
{
    if (rc != ERR_AGAIN && rc != ERR_TIMEOUT && rc != ERR_CLOSED && rc != ERR_IO)
        return false;
    if (ask->request.retry_after_ms > CLOUD_PLACE_MS)
        return false; /* the reader is not to wait that long */
    if (ask->at - ask->began >= BLOCK_BYTES)
        ask->tries = 0;
    return ask->at > ask->began && ++ask->tries < CLOUD_TRIES;
}

static void cloud_back(struct cluster *cluster, struct delivery *delivery)
{
    struct cluster_ask *ask = container_of(delivery, struct cluster_ask, delivery);
    int rc = ask->rc;

    assert(ask->flying && ask->source == PULL_CLOUD);
    ask->flying = false;
    cluster_end(cluster);
    if (ask->cancelled || atomic_load(&cluster->stopping)) {
        bodies_end(cluster, ask->reader, ERR_CLOSED);
        return;
    }
    if (rc == 0 && !ask->overrun && ask->at == end_of(ask)) {
        end(cluster, ask, 0);
        return;
    }
    if (rc == 0)
        rc = ERR_MISMATCH; /* shorter or longer than it said */
    complain(cluster, ask, rc);
    switch (rc) {
    case ERR_NOT_FOUND:
    case ERR_PRECONDITION:
    case ERR_MISMATCH:
    case ERR_RANGE:
        atomic_fetch_add_explicit(&cluster->cloud_counts.misses, 1, memory_order_relaxed);
        break;
    default:
        atomic_fetch_add_explicit(&cluster->cloud_counts.failures, 1, memory_order_relaxed);
        if (is_worth_another(ask, rc)) {
            uint64_t delay_ms = (uint64_t)CLOUD_AGAIN_MS << ask->tries;

            if (delay_ms < ask->request.retry_after_ms)
                delay_ms = ask->request.retry_after_ms;
            ask->retry_ms = cluster_now(cluster) + delay_ms;
            return;
        }
        ask->cloud_away = true;
    }
    source_ended(cluster, ask);
}

/* The cloud was full, or broke off: now it may be asked again. */
static void ask_again(struct cluster *cluster, struct cluster_ask *ask, uint64_t now_ms)
{
    int rc = ERR_AGAIN;

    assert(ask->source == PULL_CLOUD && !ask->flying);
    ask->retry_ms = 0;
    if (ask->at - ask->taken >= BODY_WINDOW_BYTES / 2)
        ask->retry_ms = now_ms + CLOUD_FULL_MS; /* the reader first */
    else
        rc = ask_cloud(cluster, ask);
    if (rc == 0 || ask->retry_ms)
        return;
    if (rc == ERR_FULL && now_ms - ask->since_ms < CLOUD_PLACE_MS) {
        ask->retry_ms = now_ms + CLOUD_FULL_MS;
        return;
    }
    ask->cloud_away = true;
    source_ended(cluster, ask);
}

/* ---- What comes in ---- */

void pull_begin(struct cluster *cluster, struct cluster_reader *reader)
{
    struct cluster_ask *ask = reader->ask;

    assert(cluster->reading_count < LIMIT_FETCHES);
    cluster->reading[cluster->reading_count++] = reader;
    advance(cluster, ask);
}

void pull_turn(struct cluster *cluster, struct cluster_reader *reader, uint64_t bytes)
{
    struct cluster_ask *ask = reader->ask;

    ask->taken += bytes;
    if (ask->source_over) {
        if (ask->at - ask->taken < BODY_WINDOW_BYTES / 2)
            advance(cluster, ask);
        return;
    }
    /* What an earlier source gave does not concern the present one. */
    uint64_t from = ask->told > ask->began ? ask->told : ask->began;
    if (ask->taken <= from)
        return;
    uint64_t more = ask->taken - from;
    ask->told = ask->taken;
    if (ask->source != PULL_CLOUD) {
        fetch_consumed(cluster->fetches, reader->number, more, cluster_now(cluster));
        return;
    }
    pthread_mutex_lock(&cluster->lock);
    if (ask->asked)
        cloud_consumed(cluster->cloud, &ask->request, more);
    pthread_mutex_unlock(&cluster->lock);
}

void pull_cancel(struct cluster *cluster, struct cluster_reader *reader)
{
    struct cluster_ask *ask = reader->ask;

    if (!ask->flying) {
        if (reader->number)
            fetch_cancel(cluster->fetches, reader->number, cluster_now(cluster));
        bodies_end(cluster, reader, ERR_CLOSED);
        return;
    }
    ask->cancelled = true;
    pthread_mutex_lock(&cluster->lock);
    if (ask->asked)
        cloud_cancel(cluster->cloud, &ask->request);
    pthread_mutex_unlock(&cluster->lock);
}

void pull_data(void *arg, uint64_t number, uint64_t offset, const void *bytes, size_t len,
               const struct id128 *from)
{
    struct cluster_reader *reader = reader_of(arg, number);

    (void)from;
    assert(reader && offset == reader->ask->at);
    reader->from_cloud |= reader->ask->source == PULL_DELEGATE; /* which has it from there */
    reader->ask->at += len;
    reader->data(reader, offset, bytes, len);
}

void pull_done(void *arg, uint64_t number, int rc)
{
    struct cluster *cluster = arg;
    struct cluster_reader *reader = reader_of(cluster, number);

    assert(reader);
    struct cluster_ask *ask = reader->ask;
    if (rc == 0 && ask->source == PULL_DELEGATE && !ask->own)
        atomic_fetch_add_explicit(&cluster->cloud_counts.coalesced, 1, memory_order_relaxed);
    if (rc == 0 && ask->fetch.seeks) {
        reader->number = 0;
        seek_answered(cluster, ask);
        return;
    }
    if (rc == 0 || ask->source == PULL_FAR) {
        end(cluster, ask, rc);
        return;
    }
    /* This is a step of fetch's: the next source has to wait until it is over. */
    ask->source_over = true;
    ask->rc = rc;
    reader->number = 0;
    pthread_mutex_lock(&cluster->lock);
    bodies_enqueue(cluster, reader);
    pthread_mutex_unlock(&cluster->lock);
}

void pull_tick(struct cluster *cluster, uint64_t now_ms)
{
    for (size_t i = cluster->reading_count; i-- > 0;) {
        struct cluster_ask *ask = cluster->reading[i]->ask;

        if (ask->retry_ms && now_ms >= ask->retry_ms)
            ask_again(cluster, ask, now_ms); /* it may be taken off, the last one to its place */
    }
}

/* ---- Looking at it ---- */

static bool copy_text(char *out, size_t cap, struct text text)
{
    if (text.len >= cap)
        return false;
    if (text.len)
        memcpy(out, text.ptr, text.len);
    out[text.len] = '\0';
    return true;
}

bool cluster_is_near(struct cluster *cluster, const struct id128 *nodes, size_t count)
{
    bool near = false;

    pthread_mutex_lock(&cluster->lock);
    for (size_t i = 0; i < cluster->view_count; i++) {
        const struct cluster_member *member = &cluster->view[i];

        for (size_t k = 0; k < count && !member->self && member->state == PROBE_ALIVE; k++)
            near |= id_equal(&nodes[k], &member->node);
    }
    pthread_mutex_unlock(&cluster->lock);
    return near;
}

struct cloud *cluster_cloud(const struct cluster *cluster)
{
    return cluster->cloud;
}

const char *cluster_cloud_prefix(const struct cluster *cluster)
{
    return cluster->cloud_prefix;
}

bool cluster_cloud_of(const struct cluster *cluster, const struct object *object,
                      struct cluster_cloud *out)
{
    struct cloud_place place;

    if (!cluster->cloud || !(object->flags & OBJECT_UPLOADED) || !object_cloud(object, &place))
        return false;
    const char *name = cluster->cloud->backend->name;
    return place.backend.len == strlen(name) &&
           memcmp(place.backend.ptr, name, place.backend.len) == 0 && place.key.len > 0 &&
           copy_text(out->bucket, sizeof out->bucket, place.bucket) &&
           copy_text(out->key, sizeof out->key, place.key) &&
           copy_text(out->etag, sizeof out->etag, place.etag);
}

void cluster_fetch_misfit(struct cluster *cluster, const struct cluster_reader *reader)
{
    if (reader->from_cloud)
        atomic_fetch_add_explicit(&cluster->cloud_counts.wrong, 1, memory_order_relaxed);
}

void pull_stats(struct cluster *cluster, struct cluster_cloud_stats *out)
{
    *out = (struct cluster_cloud_stats){
        .gets = atomic_load_explicit(&cluster->cloud_counts.gets, memory_order_relaxed),
        .bytes = atomic_load_explicit(&cluster->cloud_counts.bytes, memory_order_relaxed),
        .coalesced = atomic_load_explicit(&cluster->cloud_counts.coalesced, memory_order_relaxed),
        .delegated = atomic_load_explicit(&cluster->cloud_counts.delegated, memory_order_relaxed),
        .failures = atomic_load_explicit(&cluster->cloud_counts.failures, memory_order_relaxed),
        .misses = atomic_load_explicit(&cluster->cloud_counts.misses, memory_order_relaxed),
        .wrong = atomic_load_explicit(&cluster->cloud_counts.wrong, memory_order_relaxed),
    };
    if (cluster->cloud)
        cloud_guard_stats(cluster->cloud, &out->guard);
}
