/*
 * The store's frame: its pools, and the changes that carry no body (meta, delete).
 *
 * Two pools: the readers have a read-only SQLite connection each and serve look-ups and cold reads;
 * the writers sync large bodies and read stored copies again. A new request is refused where the
 * readers are LIMIT_POOL_QUEUE jobs behind; a request that already sends its answer always finds
 * room, because the queue has a place for every connection, and for what is looked for in the cloud
 * for other nodes.
 */
#include "api/store_impl.h"

#include "api/adoption.h"
#include "api/lender.h"
#include "api/peer_body.h"
#include "api/peer_fill.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define READER_CAPACITY (LIMIT_POOL_QUEUE + LIMIT_HTTP_CONNECTIONS + LIMIT_ADOPTIONS)
#define WRITER_CAPACITY (LIMIT_POOL_QUEUE + LIMIT_HTTP_CONNECTIONS)

struct store_change {
    struct change change; /* first: the committer hands it back */
    void (*done)(void *arg, const struct store_result *result);
    void *arg;
    bool busy;
    struct cluster *cluster; /* whose gate it went through */
    struct condition *condition;
    char text[];
};

static int open_reader(void *arg, void **context)
{
    struct store *store = arg;
    struct db_reader *reader = NULL;
    int rc = journal_reader_open(store->journal, &reader);

    *context = reader;
    return rc;
}

static void close_reader(void *arg, void *context)
{
    struct db_reader *reader = context;

    (void)arg;
    db_reader_close(&reader);
}

int store_create(struct store **out, const struct store_config *config)
{
    assert(config->journal && config->ram && config->env && config->memory);
    *out = NULL;

    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return ERR_NO_MEMORY;
    store->journal = config->journal;
    store->cluster = config->cluster;
    store->ram = config->ram;
    store->disk_cache = config->disk_cache;
    store->env = config->env;
    store->memory = config->memory;
    store->log = journal_log(config->journal);
    store->large = journal_large(config->journal);
    store->max_body_bytes = config->max_body_bytes;
    store->whole_ranges = config->whole_ranges;
    (void)pthread_mutex_init(&store->lock, NULL);

    const struct pool_context context = {open_reader, close_reader, store};
    int rc = hot_blocks_create(&store->hot, store->env, store->ram);
    if (!rc && store->cluster)
        rc = peer_bodies_create(&store->peer_bodies, store);
    if (!rc && store->cluster && cluster_cloud(store->cluster))
        rc = adoptions_create(&store->adoptions, store);
    if (!rc && store->cluster && store->disk_cache)
        rc = peer_fills_create(&store->peer_fills, store);
    if (rc)
        goto out;
    rc = pool_start(&store->readers, "store-read", POOL_THREADS, READER_CAPACITY, &context);
    if (rc)
        goto out;
    rc = pool_start(&store->writers, "store-write", STORE_WRITER_THREADS, WRITER_CAPACITY, NULL);
    if (!rc && store->cluster)
        lender_start(store);
out:
    if (rc)
        store_destroy(&store);
    *out = store;
    return rc;
}

void store_destroy(struct store **store)
{
    struct store *it = *store;

    if (!it)
        return;
    pool_stop(&it->readers);
    pool_stop(&it->writers);
    store_put_drain(it);
    peer_bodies_destroy(&it->peer_bodies);
    peer_fills_destroy(&it->peer_fills);
    adoptions_destroy(&it->adoptions);
    hot_blocks_destroy(&it->hot);
    assert(atomic_load(&it->upload_bytes) == 0);
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
    *store = NULL;
}

struct env *store_env(struct store *store)
{
    return store->env;
}

struct journal *store_journal(struct store *store)
{
    return store->journal;
}

struct cluster *store_cluster(struct store *store)
{
    return store->cluster;
}

struct ram *store_ram(struct store *store)
{
    return store->ram;
}

struct hot_blocks *store_hot(struct store *store)
{
    return store->hot;
}

struct budget *store_memory(struct store *store)
{
    return store->memory;
}

bool store_keeps_parts(const struct store *store)
{
    return !store->whole_ranges;
}

uint64_t store_max_body(const struct store *store)
{
    return store->max_body_bytes;
}

struct copies *store_copies(struct store *store)
{
    return store->cluster ? cluster_copies(store->cluster) : NULL;
}

bool store_is_alone(struct store *store)
{
    return !store->cluster || cluster_is_alone(store->cluster);
}

enum probe_health store_health(struct store *store)
{
    return store->cluster ? cluster_health(store->cluster) : PROBE_GOOD;
}

bool store_clock_is_skewed(struct store *store)
{
    return store->cluster && cluster_clock_is_skewed(store->cluster);
}

struct db_copies store_own_copy(struct store *store, const struct object *object)
{
    unsigned members = store_is_alone(store) ? 1 : cluster_joined(store->cluster);

    return (struct db_copies){.members = members ? members : 1,
                              .held = !place_is_none(&object->place),
                              .uploaded = object->flags & OBJECT_UPLOADED,
                              .own_alone = !store_is_alone(store)};
}

int store_count_copies(struct store *store, struct db_reader *reader, const struct object *object,
                       struct db_copies *out)
{
    struct id128 self = journal_node(store->journal);

    if (!store_is_alone(store) && !(object->flags & OBJECT_DELETED))
        return db_reader_copies(reader, object, &self, out);
    *out = store_own_copy(store, object);
    return 0;
}

struct peer_bodies *store_peer_bodies(struct store *store)
{
    return store->peer_bodies;
}

bool store_give_way(struct store *store)
{
    if (!store->disk_cache || !disk_cache_shrink(store->disk_cache))
        return false;
    journal_freed(store->journal);
    return true;
}

struct peer_fills *store_peer_fills(struct store *store)
{
    return store->peer_fills;
}

struct disk_cache *store_disk_cache(struct store *store)
{
    return store->disk_cache;
}

struct adoptions *store_adoptions(struct store *store)
{
    return store->adoptions;
}

static void run_job(struct job *job, void *context)
{
    struct store_job *it = container_of(job, struct store_job, job);

    atomic_fetch_sub_explicit(&it->store->waiting, 1, memory_order_relaxed);
    it->run(it, context);
}

int store_submit_admitted(struct store *store, struct store_job *job)
{
    assert(job->run);
    job->job.run = run_job;
    job->store = store;
    atomic_fetch_add_explicit(&store->waiting, 1, memory_order_relaxed);
    int rc = pool_submit(store->readers, &job->job);
    if (rc)
        atomic_fetch_sub_explicit(&store->waiting, 1, memory_order_relaxed);
    return rc;
}

int store_submit(struct store *store, struct store_job *job)
{
    if (atomic_load_explicit(&store->waiting, memory_order_relaxed) >= LIMIT_POOL_QUEUE)
        return ERR_FULL;
    return store_submit_admitted(store, job);
}

static void changed(struct change *change)
{
    struct store_change *it = (struct store_change *)change;
    const struct store_result result = {
        .rc = change->rc,
        .created = change->rc == 0 && change->verdict == VERDICT_COMMIT,
        .object = change->object,
    };

    assert(it->busy);
    it->busy = false;
    if (it->cluster)
        cluster_write_end(it->cluster);
    /* From here on the door may free IT. */
    it->done(it->arg, &result);
}

static char *copy_text(struct text *text, char *at)
{
    if (text->len)
        memcpy(at, text->ptr, text->len);
    text->ptr = at;
    return at + text->len;
}

int store_change_submit(struct store_change **out, struct store *store,
                        const struct request *request,
                        void (*done)(void *arg, const struct store_result *result), void *arg)
{
    assert(request->kind == CHANGE_META || request->kind == CHANGE_DELETE ||
           request->kind == CHANGE_ADOPT);
    assert(done);
    *out = NULL;

    size_t texts = (size_t)request->name.len + request->type.len + request->user_meta.len;
    struct store_change *it = calloc(1, sizeof *it + texts);
    if (!it)
        return ERR_NO_MEMORY;
    it->change.request = *request;
    if (request->condition) {
        it->condition = malloc(sizeof *it->condition);
        if (!it->condition) {
            free(it);
            return ERR_NO_MEMORY;
        }
        *it->condition = *request->condition;
        it->change.request.condition = it->condition;
    }
    it->change.done = changed;
    it->done = done;
    it->arg = arg;
    it->busy = true;
    char *at = copy_text(&it->change.request.name, it->text);
    at = copy_text(&it->change.request.type, at);
    (void)copy_text(&it->change.request.user_meta, at);
    it->cluster = store->cluster;
    *out = it;
    int rc = it->cluster ? cluster_write_begin(it->cluster) : 0;
    if (rc == 0) {
        rc = journal_submit(store->journal, &it->change);
        if (rc && it->cluster)
            cluster_write_end(it->cluster);
    }
    if (rc) {
        it->busy = false;
        store_change_destroy(out);
    }
    return rc;
}

void store_change_destroy(struct store_change **change)
{
    struct store_change *it = *change;

    if (!it)
        return;
    assert(!it->busy);
    object_destroy(&it->change.object);
    free(it->condition);
    free(it);
    *change = NULL;
}

void store_serves(struct store *store, uint64_t bytes)
{
    atomic_fetch_add_explicit(&store->served, bytes, memory_order_relaxed);
}

uint64_t store_served(struct store *store)
{
    return atomic_load_explicit(&store->served, memory_order_relaxed);
}
