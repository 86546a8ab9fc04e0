/*
 * One thread asks cluster/wanted.h what to do next and does it: reads a page of the list, or looks
 * up an object and its holders and starts a replica. Replicas end on other threads, which put them
 * into `ended`; that wakes this one, as a poke does. So its SQLite reader and the state of what is
 * wanted are its own, and it may wait for the disk.
 *
 * Failure: an object that cannot be had is tried again later; a full disk is said once, until
 * copies are made again. A stop cancels and then waits for every replica: each has the cluster's or
 * the committer's word that it will end.
 */
#include "cluster/replicator.h"

#include "base/log.h"
#include "base/queue.h"
#include "cluster/repairs.h"
#include "cluster/replica.h"
#include "journal/db_peers.h"
#include "journal/ulid.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#define POOL_WORKERS 2
#define FLIGHTS      (LIMIT_REPLICAS + REPAIRS_AT_ONCE)

struct replicator {
    struct replica_host host; /* journal, cluster, pool */
    struct env *env;
    struct queue *ended; /* struct replica *; a place for each */
    struct repairs *repairs;
    _Atomic bool news, revived, stopping;
    pthread_mutex_t lock;                 /* guards the next five */
    struct id128 new[LIMIT_REPLICA_PAGE]; /* have just become wanted */
    size_t new_count;
    struct event_item adopted[LIMIT_ADOPTED]; /* a ring: what a member that leaves asks for */
    size_t adopted_first, adopted_count;
    bool started;
    pthread_t thread;
    /* The thread's own. */
    struct wanted *wanted;
    struct db_reader *reader;
    struct replica *flights[FLIGHTS];
    size_t flight_count, repairing; /* of them, repairs */
    uint64_t flight_bytes;          /* in memory, at most */
    bool full_said;
    /* For others to see. */
    _Atomic uint64_t flying, done, bytes, failures, corrupt;
    _Atomic bool full;
};

static uint64_t now_ms(const struct replicator *r)
{
    return env_mono_ms(r->env);
}

static void on_ended(void *arg, struct replica *replica)
{
    struct replicator *r = arg;
    int rc = queue_push(r->ended, replica);

    assert(rc == 0); /* there is a place for each */
    (void)rc;
}

void replicator_poke(struct replicator *replicator)
{
    if (!atomic_exchange(&replicator->news, true))
        queue_wake(replicator->ended);
}

void replicator_repair(struct replicator *replicator, const struct object *object)
{
    if (repairs_add(replicator->repairs, &object->id, &object->place))
        queue_wake(replicator->ended);
}

void replicator_want(struct replicator *r, const struct id128 *id)
{
    (void)pthread_mutex_lock(&r->lock);
    if (r->new_count < LIMIT_REPLICA_PAGE) /* else the walks find it */
        r->new[r->new_count++] = *id;
    (void)pthread_mutex_unlock(&r->lock);
}

/* Hand on what replicator_want has brought. */
static void take_new(struct replicator *r)
{
    (void)pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->new_count; i++)
        wanted_new(r->wanted, &r->new[i]);
    r->new_count = 0;
    (void)pthread_mutex_unlock(&r->lock);
}

void replicator_revive(struct replicator *replicator)
{
    if (!atomic_exchange(&replicator->revived, true))
        queue_wake(replicator->ended);
}

void replicator_adopt(struct replicator *r, const struct event_item *items, size_t count)
{
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < count && r->adopted_count < LIMIT_ADOPTED; i++)
        r->adopted[(r->adopted_first + r->adopted_count++) % LIMIT_ADOPTED] = items[i];
    pthread_mutex_unlock(&r->lock);
    queue_wake(r->ended);
}

static bool next_adopted(struct replicator *r, struct event_item *out)
{
    pthread_mutex_lock(&r->lock);
    bool found = r->adopted_count > 0;

    if (found)
        *out = r->adopted[r->adopted_first];
    pthread_mutex_unlock(&r->lock);
    return found;
}

static void take_adopted(struct replicator *r)
{
    pthread_mutex_lock(&r->lock);
    assert(r->adopted_count > 0);
    r->adopted_first = (r->adopted_first + 1) % LIMIT_ADOPTED;
    r->adopted_count--;
    pthread_mutex_unlock(&r->lock);
}

/* ---- How it went ---- */

static void say_full(struct replicator *r, enum wanted_outcome outcome)
{
    if (outcome == WANTED_DONE && r->full_said) {
        log_info("replication: there is room for copies again");
        r->full_said = false;
    } else if ((outcome == WANTED_FULL || outcome == WANTED_NO_FIT) && !r->full_said) {
        log_warn("replication: the disk has no room for copies of all that is for every node; "
                 "what is missing here is read from other nodes");
        r->full_said = true;
    }
    atomic_store(&r->full, r->full_said);
}

/* The attempt to copy ID is over. */
static void settle(struct replicator *r, const struct replica_result *result)
{
    char text[ULID_TEXT_BYTES + 1];

    ulid_format(text, &result->id);
    say_full(r, result->outcome);
    switch (result->outcome) {
    case WANTED_DONE:
        atomic_fetch_add(&r->done, 1);
        atomic_fetch_add(&r->bytes, result->bytes);
        break;
    case WANTED_FAILED:
        atomic_fetch_add(&r->failures, 1);
        if (result->rc == ERR_MISMATCH) {
            atomic_fetch_add(&r->corrupt, 1);
            log_warn("replication: what came as object %s are other bytes than were put", text);
        } else {
            log_debug("replication: no copy of object %s: %s", text, err_text(result->rc));
        }
        break;
    default:
        break;
    }
    wanted_ended(r->wanted, &result->id, result->outcome, now_ms(r));
}

static void settle_repair(struct replicator *r, const struct replica_result *result)
{
    char text[ULID_TEXT_BYTES + 1];

    r->repairing--;
    ulid_format(text, &result->id);
    if (result->rc) {
        log_warn("object %s: its copy here stays damaged: %s", text, err_text(result->rc));
    } else if (result->bytes > 0) { /* else it was gone, or elsewhere, by now */
        journal_count_bad(r->host.journal, 0, 1, 0);
        log_info("object %s: its damaged copy was replaced by one from another node", text);
    }
}

static void take_ended(struct replicator *r)
{
    void *ended[FLIGHTS];
    size_t count = queue_take(r->ended, ended, FLIGHTS);

    for (size_t i = 0; i < count; i++) {
        struct replica *replica = ended[i];
        struct replica_result result;
        size_t at = 0;

        while (r->flights[at] != replica)
            at++;
        assert(at < r->flight_count);
        r->flights[at] = r->flights[--r->flight_count];
        r->flight_bytes -= replica_memory(replica);
        replica_result(replica, &result);
        replica_destroy(&replica);
        if (result.repair)
            settle_repair(r, &result);
        else
            settle(r, &result);
    }
    atomic_store(&r->flying, r->flight_count);
}

/* ---- What to do ---- */

struct page {
    struct id128 ids[LIMIT_REPLICA_PAGE];
    size_t count;
};

static int collect(void *arg, const struct id128 *id, uint64_t size)
{
    struct page *page = arg;

    (void)size;
    page->ids[page->count++] = *id;
    return 0;
}

static void read_page(struct replicator *r, const struct id128 *after)
{
    struct page page = {.count = 0};
    int rc = db_reader_wanted(r->reader, after, LIMIT_REPLICA_PAGE, collect, &page);

    if (rc)
        log_warn("replication: cannot read what is wanted: %s", err_text(rc));
    wanted_page(r->wanted, rc, page.ids, page.count, now_ms(r));
}

/* Start to copy OBJECT. */
static int start_copy(struct replicator *r, const struct object *object)
{
    struct id128 self = journal_node(r->host.journal);
    struct id128 holders[LIMIT_FETCH_HOLDERS];
    struct replica *replica;
    size_t found, count = 0;
    int rc = db_reader_holders(r->reader, object, holders, LIMIT_FETCH_HOLDERS, &found);

    if (rc)
        return rc;
    for (size_t i = 0; i < found; i++)
        if (!id_equal(&holders[i], &self))
            holders[count++] = holders[i];
    rc = replica_start(&replica, &r->host, object, holders, count);
    if (rc)
        return rc;
    assert(r->flight_count < FLIGHTS);
    r->flights[r->flight_count++] = replica;
    r->flight_bytes += replica_memory(replica);
    atomic_store(&r->flying, r->flight_count);
    return 0;
}

static bool has_expired(const struct replicator *r, const struct object *object)
{
    return object->expires_ms && object->expires_ms <= env_wall_ms(r->env);
}

/* Whether a copy of OBJECT is to be made: it is for every node, or it is what SHA256 (may be NULL)
 * names and not here. */
static bool is_due(const struct replicator *r, const struct object *object, const uint8_t *sha256)
{
    bool adopted = sha256 && (object->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT &&
                   place_is_none(&object->place) &&
                   memcmp(object->sha256, sha256, SHA256_BYTES) == 0;

    return (adopted || object_wanted_here(object)) && !has_expired(r, object);
}

static void start(struct replicator *r, const struct id128 *id, const uint8_t *sha256)
{
    struct replica_result result = {.id = *id, .outcome = WANTED_GONE};
    struct object *object = NULL;
    int rc = journal_find(r->host.journal, r->reader, id, &object);

    if (rc == 0 && is_due(r, object, sha256)) {
        rc = start_copy(r, object);
        if (rc == 0) {
            object_destroy(&object);
            return;
        }
    } else if (rc == ERR_NOT_FOUND) {
        rc = 0;
    }
    object_destroy(&object);
    result.rc = rc;
    if (rc == ERR_FULL || rc == ERR_CLOSED || rc == ERR_NOT_FOUND) /* no other member */
        result.outcome = WANTED_BUSY;
    else if (rc == ERR_NO_SPACE)
        result.outcome = replica_lacks_room(r->host.journal);
    else if (rc)
        result.outcome = WANTED_FAILED;
    settle(r, &result);
}

/* A repair that cannot begin is forgotten: the next read, or the scrub, asks for it again. */
static void start_repair(struct replicator *r, const struct repair *repair)
{
    struct object *object = NULL;
    int rc = journal_find(r->host.journal, r->reader, &repair->id, &object);

    if (rc == 0 && !(object->flags & OBJECT_DELETED) &&
        place_equal(&object->place, &repair->place) && !has_expired(r, object)) {
        rc = start_copy(r, object);
        if (rc == 0)
            r->repairing++;
    }
    object_destroy(&object);
    if (rc && rc != ERR_NOT_FOUND) /* gone, or there is no other node */
        log_debug("replication: a damaged copy is not replaced now: %s", err_text(rc));
}

static bool may_repair(const struct replicator *r)
{
    return r->repairing < REPAIRS_AT_ONCE && repairs_count(r->repairs) > 0;
}

/* Copies for a member that leaves go before those of the list: it waits for them. */
static void start_adopted(struct replicator *r)
{
    struct event_item item;

    while (!atomic_load(&r->stopping) && next_adopted(r, &item) &&
           wanted_begin(r->wanted, &item.id, now_ms(r))) {
        take_adopted(r);
        start(r, &item.id, item.sha256);
    }
}

static void wait_until(struct replicator *r, uint64_t until_ms)
{
    uint64_t now = now_ms(r);
    uint64_t wait = until_ms > now ? until_ms - now : 0;

    if (atomic_load(&r->news) || atomic_load(&r->revived) || atomic_load(&r->stopping) ||
        may_repair(r))
        return;
    if (wait > REPLICA_SWEEP_MAX_MS)
        wait = REPLICA_SWEEP_MAX_MS;
    (void)queue_wait(r->ended, (int64_t)wait);
}

uint64_t replicator_step(struct replicator *r)
{
    struct wanted_step step;
    struct repair repair;

    take_ended(r);
    if (may_repair(r) && repairs_take(r->repairs, &repair))
        start_repair(r, &repair);
    if (atomic_exchange(&r->news, false)) {
        take_new(r);
        wanted_news(r->wanted, env_wall_ms(r->env));
    }
    if (atomic_exchange(&r->revived, false))
        wanted_revive(r->wanted, now_ms(r));
    start_adopted(r);
    if (r->flight_bytes >= REPLICA_BYTES)
        return now_ms(r) + REPLICA_SWEEP_MAX_MS; /* one ends, or is told to */
    wanted_step(r->wanted, now_ms(r), &step);
    switch (step.act) {
    case WANTED_READ:
        read_page(r, &step.id);
        break;
    case WANTED_START:
        start(r, &step.id, NULL);
        break;
    case WANTED_WAIT:
        return step.until_ms;
    }
    return 0;
}

bool replicator_is_due(struct replicator *r)
{
    return atomic_load(&r->news) || atomic_load(&r->revived) || queue_length(r->ended) > 0 ||
           may_repair(r);
}

void replicator_cancel(struct replicator *r)
{
    take_ended(r);
    for (size_t i = 0; i < r->flight_count; i++)
        replica_cancel(r->flights[i]);
}

bool replicator_close_step(struct replicator *r)
{
    take_ended(r);
    if (r->flight_count > 0)
        return false;
    db_reader_close(&r->reader);
    return true;
}

static void *run(void *arg)
{
    struct replicator *r = arg;

    while (!atomic_load(&r->stopping)) {
        uint64_t until_ms = replicator_step(r);

        if (until_ms)
            wait_until(r, until_ms);
    }
    replicator_cancel(r);
    while (!replicator_close_step(r))
        (void)queue_wait(r->ended, REPLICA_BACKOFF_MS);
    return NULL;
}

/* ---- Its life ---- */

int replicator_create(struct replicator **out, struct journal *journal, struct cluster *cluster,
                      struct env *env)
{
    struct replicator *r = calloc(1, sizeof *r);
    uint64_t seed;
    int rc;

    *out = NULL;
    if (!r)
        return ERR_NO_MEMORY;
    r->host =
        (struct replica_host){.journal = journal, .cluster = cluster, .ended = on_ended, .arg = r};
    r->env = env;
    env->random(env, &seed, sizeof seed);
    (void)pthread_mutex_init(&r->lock, NULL);
    rc = wanted_create(&r->wanted, seed);
    if (rc == 0)
        rc = queue_create(&r->ended, FLIGHTS);
    if (rc == 0)
        rc = repairs_create(&r->repairs);
    if (rc)
        replicator_destroy(&r);
    *out = r;
    return rc;
}

int replicator_open(struct replicator *r)
{
    int rc = journal_reader_open(r->host.journal, &r->reader);

    assert(!r->started);
    if (rc == 0)
        rc = pool_start(&r->host.pool, "replica", POOL_WORKERS, FLIGHTS, NULL);
    if (rc)
        db_reader_close(&r->reader);
    return rc;
}

int replicator_start(struct replicator *r)
{
    sigset_t all, before;
    int rc = replicator_open(r);

    if (rc == 0) {
        (void)sigfillset(&all); /* signals are the main thread's */
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        rc = pthread_create(&r->thread, NULL, run, r) ? ERR_NO_MEMORY : 0;
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (rc) {
        pool_stop(&r->host.pool);
        db_reader_close(&r->reader);
        return rc;
    }
    (void)pthread_setname_np(r->thread, "replicator");
    r->started = true;
    return 0;
}

void replicator_stop(struct replicator *r)
{
    if (!r->started)
        return;
    atomic_store(&r->stopping, true);
    queue_wake(r->ended);
    int rc = pthread_join(r->thread, NULL);
    assert(rc == 0);
    (void)rc;
    r->started = false;
}

void replicator_destroy(struct replicator **replicator)
{
    struct replicator *r = *replicator;

    if (!r)
        return;
    *replicator = NULL;
    assert(!r->started && r->flight_count == 0);
    pool_stop(&r->host.pool);
    queue_destroy(&r->ended);
    repairs_destroy(&r->repairs);
    wanted_destroy(&r->wanted);
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}

void replicator_stats(struct replicator *r, struct replicator_stats *out)
{
    struct journal_stats journal;

    journal_stats(r->host.journal, &journal);
    *out = (struct replicator_stats){.wanted = journal.wanted,
                                     .wanted_bytes = journal.wanted_bytes,
                                     .flights = atomic_load(&r->flying),
                                     .done = atomic_load(&r->done),
                                     .bytes = atomic_load(&r->bytes),
                                     .failures = atomic_load(&r->failures),
                                     .corrupt = atomic_load(&r->corrupt),
                                     .repairs = repairs_count(r->repairs),
                                     .full = atomic_load(&r->full)};
}
