/*
 * A table of the small bodies that are being fetched, by (id, sha256).
 *
 *   first to ask ─► entered, fetch started ─► cluster's thread copies ─► done: first waiter posted
 *   others       ─► join its waiters                                          │ its loop verifies,
 *                                                                             │ fills the RAM tier,
 *                                                                             ▼ strikes it off,
 *   all of them  ◄──────────────── posted, answer from the same bytes ◄───────┘ posts the others
 *
 * What came from the cloud is kept for a while after that (`late`): whoever was slower than the
 * others, on this node or another, does not have it fetched again because the object's row has
 * changed meanwhile, and the RAM tier forgot it.
 *
 * A waiter whose client went away still waits for its post, as every suspended request does; so
 * there is always a first waiter, and nobody's departure concerns the others. A fetch ends by
 * itself: its deadlines are the cluster's.
 *
 * References: one of each waiter, one of the fetch until `done` has returned.
 */
#include "api/peer_body.h"

#include "base/container.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A copy in the disk cache takes whole blocks: what is much smaller is not worth one. */
#define KEEP_MIN_BYTES (BLOCK_BYTES / 4)

/* The cluster has at most LIMIT_FETCHES under way. */
#define BUCKETS 64

/* Kept for those who come late: so many, and so much of the memory for bodies on their way. */
#define LATE_BODIES 64
#define LATE_SHARE  16

struct peer_body {
    struct cluster_reader reader;
    struct peer_bodies *bodies;
    struct peer_body *next; /* in its bucket; guarded by the table's lock, as is … */
    struct peer_waiter *waiters, **waiters_end; /* … who waits, in the order they came */
    atomic_uint references;
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    int rc;                /* of the fetch, then of the verification */
    struct store_job keep; /* into the disk cache, with … */
    uint64_t token;        /* … this */
    uint64_t size, at;     /* bytes that came: the cluster's thread's alone until done */
    uint8_t bytes[];
};

struct peer_bodies {
    struct store *store;
    pthread_mutex_t lock; /* guards what follows */
    struct peer_body *buckets[BUCKETS];
    struct peer_body *late[LATE_BODIES]; /* a ring, each with a reference; the oldest first */
    unsigned late_first, late_count;
    uint64_t late_bytes;
};

int peer_bodies_create(struct peer_bodies **out, struct store *store)
{
    struct peer_bodies *bodies = calloc(1, sizeof *bodies);

    *out = bodies;
    if (!bodies)
        return ERR_NO_MEMORY;
    bodies->store = store;
    (void)pthread_mutex_init(&bodies->lock, NULL);
    return 0;
}

/* The oldest of those kept. */
static void drop_late(struct peer_bodies *bodies)
{
    struct peer_body *body = bodies->late[bodies->late_first];

    assert(bodies->late_count > 0 && bodies->late_bytes >= body->size);
    bodies->late_first = (bodies->late_first + 1) % LATE_BODIES;
    bodies->late_count--;
    bodies->late_bytes -= body->size;
    peer_body_release(&body);
}

/* With the lock held. */
static void keep_late(struct peer_body *body)
{
    struct peer_bodies *bodies = body->bodies;
    uint64_t limit = store_memory(bodies->store)->limit / LATE_SHARE;

    if (body->rc || !body->reader.from_cloud || body->size > limit)
        return;
    while (bodies->late_count == LATE_BODIES || bodies->late_bytes + body->size > limit)
        drop_late(bodies);
    bodies->late[(bodies->late_first + bodies->late_count++) % LATE_BODIES] = body;
    bodies->late_bytes += body->size;
    atomic_fetch_add_explicit(&body->references, 1, memory_order_relaxed);
}

/* One of them; with the lock held, and a reference for the caller. */
static struct peer_body *find_late(struct peer_bodies *bodies, const struct store_origin *origin)
{
    for (unsigned i = 0; i < bodies->late_count; i++) {
        struct peer_body *body = bodies->late[(bodies->late_first + i) % LATE_BODIES];

        if (id_equal(&body->id, &origin->id) &&
            memcmp(body->sha256, origin->sha256, SHA256_BYTES) == 0) {
            atomic_fetch_add_explicit(&body->references, 1, memory_order_relaxed);
            return body;
        }
    }
    return NULL;
}

void peer_bodies_destroy(struct peer_bodies **bodies)
{
    struct peer_bodies *it = *bodies;

    if (!it)
        return;
    while (it->late_count > 0)
        drop_late(it);
    for (unsigned i = 0; i < BUCKETS; i++)
        assert(!it->buckets[i]);
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
    *bodies = NULL;
}

/* Where a body of (ID, SHA256) is, or would be, linked. */
static struct peer_body **link_of(struct peer_bodies *bodies, const struct id128 *id,
                                  const uint8_t *sha256)
{
    struct peer_body **link = &bodies->buckets[sha256[0] % BUCKETS];

    while (*link &&
           (!id_equal(&(*link)->id, id) || memcmp((*link)->sha256, sha256, SHA256_BYTES) != 0))
        link = &(*link)->next;
    return link;
}

static void add_waiter(struct peer_body *body, struct peer_waiter *waiter)
{
    atomic_fetch_add_explicit(&body->references, 1, memory_order_relaxed);
    waiter->next = NULL;
    *body->waiters_end = waiter;
    body->waiters_end = &waiter->next;
}

static void wake(struct peer_waiter *waiter)
{
    if (waiter->http)
        http_post(waiter->http, waiter->run);
    else
        waiter->wake(waiter);
}

/* The fetch is over: the first waiter goes on with it. */
static void conclude(struct peer_body *body, int rc)
{
    struct peer_bodies *bodies = body->bodies;

    body->rc = rc;
    (void)pthread_mutex_lock(&bodies->lock);
    struct peer_waiter *first = body->waiters;
    (void)pthread_mutex_unlock(&bodies->lock);
    assert(first);
    wake(first);
    peer_body_release(&body);
}

static void on_data(struct cluster_reader *reader, uint64_t offset, const void *bytes, size_t len)
{
    struct peer_body *body = container_of(reader, struct peer_body, reader);

    assert(offset == body->at && len <= body->size - offset);
    memcpy(body->bytes + offset, bytes, len);
    /* Nothing is told as taken: all of it fits the cluster's window. */
    body->at += len;
}

static void on_done(struct cluster_reader *reader, int rc)
{
    struct peer_body *body = container_of(reader, struct peer_body, reader);

    assert(rc != 0 || body->at == body->size);
    conclude(body, rc);
}

static int create(struct peer_body **out, struct peer_bodies *bodies,
                  const struct store_origin *origin)
{
    struct budget *memory = store_memory(bodies->store);

    *out = NULL;
    if (!budget_take(memory, origin->size))
        return ERR_FULL;
    struct peer_body *body = malloc(sizeof *body + origin->size);
    if (!body) {
        budget_give(memory, origin->size);
        return ERR_NO_MEMORY;
    }
    memset(body, 0, sizeof *body);
    body->reader = (struct cluster_reader){.data = on_data, .done = on_done};
    body->bodies = bodies;
    body->waiters_end = &body->waiters;
    atomic_init(&body->references, 1); /* the fetch's */
    body->id = origin->id;
    memcpy(body->sha256, origin->sha256, SHA256_BYTES);
    body->size = origin->size;
    *out = body;
    return 0;
}

/* ID's entry in the RAM tier with its body. */
static const struct ram_entry *get_filled(struct peer_bodies *bodies, const struct id128 *id)
{
    struct ram *ram = store_ram(bodies->store);
    const struct ram_entry *entry = ram_get(ram, id);

    if (!entry || entry->large.size == 0)
        return entry;
    ram_release(ram, entry);
    return NULL;
}

int peer_body_ask(struct peer_body **out, const struct ram_entry **entry,
                  struct peer_bodies *bodies, const struct store_origin *origin,
                  struct peer_waiter *waiter)
{
    struct peer_body *fresh = NULL, *late = NULL;
    int rc = 0;

    assert(origin->size > 0 && origin->size <= LIMIT_INLINE_BODY_BYTES);
    *entry = NULL;
    (void)pthread_mutex_lock(&bodies->lock);
    struct peer_body **link = link_of(bodies, &origin->id, origin->sha256);
    *out = *link;
    if (!*link) {
        /* Filled before it is struck off: what is in none of these is not here. */
        *entry = get_filled(bodies, &origin->id);
        if (*entry)
            rc = ERR_EXISTS;
        else if (!(late = find_late(bodies, origin)))
            rc = create(&fresh, bodies, origin);
        *link = fresh;
        *out = late ? late : fresh;
    }
    if (*out && !late)
        add_waiter(*out, waiter);
    (void)pthread_mutex_unlock(&bodies->lock);
    if (late)
        wake(waiter);
    if (fresh) {
        int refused = store_fetch(bodies->store, origin, 0, origin->size, &fresh->reader);

        if (refused) /* others may have joined it already */
            conclude(fresh, refused);
    }
    return rc;
}

static int verify(const struct peer_body *body)
{
    uint8_t digest[SHA256_BYTES];

    sha256(body->bytes, body->size, digest);
    if (memcmp(digest, body->sha256, SHA256_BYTES) == 0)
        return 0;
    store_fetch_misfit(body->bodies->store, &body->id, &body->reader);
    return ERR_CORRUPT;
}

int peer_body_settle(struct peer_body *body, struct peer_waiter *waiter,
                     void (*keep)(void *arg, const uint8_t *bytes), void *arg)
{
    struct peer_bodies *bodies = body->bodies;

    (void)pthread_mutex_lock(&bodies->lock);
    bool first = body->waiters == waiter;
    (void)pthread_mutex_unlock(&bodies->lock);
    if (!first)
        return body->rc;
    if (body->rc == 0)
        body->rc = verify(body);
    if (body->rc == 0)
        keep(arg, body->bytes);

    (void)pthread_mutex_lock(&bodies->lock);
    struct peer_body **link = link_of(bodies, &body->id, body->sha256);
    assert(*link == body);
    *link = body->next;
    body->waiters = NULL;
    keep_late(body);
    (void)pthread_mutex_unlock(&bodies->lock);
    for (struct peer_waiter *next, *other = waiter->next; other; other = next) {
        next = other->next; /* OTHER may be gone once it is posted */
        wake(other);
    }
    return body->rc;
}

/* ---- The disk cache ---- */

static int read_copy(struct peer_body *body, struct disk_copy *copy)
{
    uint8_t block[BLOCK_BYTES];
    size_t len = 0;
    int rc = ERR_NOT_FOUND;

    for (; body->at < body->size; body->at += len) {
        rc = disk_copy_read(copy, body->at / BLOCK_BYTES, block, &len, false);
        if (rc)
            return ERR_NOT_FOUND; /* it is dropped: another node has a good one */
        memcpy(body->bytes + body->at, block, len);
    }
    return rc;
}

int peer_body_recall(struct peer_body **out, struct peer_bodies *bodies,
                     const struct store_origin *origin)
{
    struct disk_cache *cache = store_disk_cache(bodies->store);
    struct disk_copy *copy = NULL;

    *out = NULL;
    if (cache && origin->size >= KEEP_MIN_BYTES)
        copy = disk_cache_find(cache, &origin->id, origin->sha256, origin->size);
    if (!copy)
        return ERR_NOT_FOUND;
    int rc = create(out, bodies, origin);
    if (rc == 0)
        rc = read_copy(*out, copy);
    if (rc)
        peer_body_release(out);
    disk_copy_release(&copy);
    return rc;
}

/* Whatever goes wrong: it is not kept. */
static void run_keep(struct store_job *job, struct db_reader *reader)
{
    struct peer_body *body = container_of(job, struct peer_body, keep);
    struct store *store = body->bodies->store;
    struct disk_cache *cache = store_disk_cache(store);
    struct disk_copy *copy;

    (void)reader;
    if (disk_cache_begin(&copy, cache, &body->id, body->sha256, body->size) == 0) {
        /* Whoever deletes the object tells the RAM tier first, then has the copy forgotten. */
        if (!ram_same_body(ram_token(store_ram(store), &body->id), body->token))
            disk_cache_forget(cache, &body->id);
        if (disk_copy_write(copy, body->bytes, body->size) == 0)
            disk_copy_complete(copy);
        disk_copy_release(&copy);
    }
    peer_body_release(&body);
}

void peer_body_keep(struct peer_body *body, uint64_t token)
{
    struct store *store = body->bodies->store;

    assert(body->rc == 0);
    if (!store_disk_cache(store) || body->size < KEEP_MIN_BYTES)
        return;
    body->token = token;
    body->keep.run = run_keep;
    atomic_fetch_add_explicit(&body->references, 1, memory_order_relaxed);
    if (store_submit(store, &body->keep) != 0)
        atomic_fetch_sub_explicit(&body->references, 1, memory_order_acq_rel);
}

const uint8_t *peer_body_bytes(const struct peer_body *body)
{
    assert(body->rc == 0);
    return body->bytes;
}

bool peer_body_from_cloud(const struct peer_body *body)
{
    assert(body->rc == 0);
    return body->reader.from_cloud;
}

void peer_body_release(struct peer_body **body)
{
    struct peer_body *it = *body;

    *body = NULL;
    if (!it || atomic_fetch_sub_explicit(&it->references, 1, memory_order_acq_rel) != 1)
        return;
    budget_give(store_memory(it->bodies->store), it->size);
    free(it);
}
