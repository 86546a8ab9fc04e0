/* Goal: what is for every node gets here whole, durably and said to be held; what came wrong, or
 * was deleted meanwhile, or has no room, is not stored and leaves nothing behind; a stop waits for
 * everybody who may still call. The cluster is a fake that gives bodies as it is told, with the
 * windows that the real one has. */
#include "tests/unit/journal_fixture.h"

#include "cluster/replicator.h"
#include "journal/db_peers.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>

#define MAX_FETCHES 64

enum manner {
    GIVES,   /* the right bytes */
    LIES,    /* one of them is wrong */
    BREAKS,  /* fails half-way */
    LACKS,   /* says at once that nobody has it */
    HANGS,   /* gives half and no more, until it is cancelled */
    REFUSES, /* does not take the fetch */
};

struct fetching {
    struct cluster_reader *reader; /* NULL: free */
    struct cluster_fetch fetch;
    size_t holder_count;
    struct id128 holder;
    uint64_t given, credit;
    bool cancelled;
    uint8_t *body;
};

struct cluster {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool stopping;
    struct fetching fetches[MAX_FETCHES];
    unsigned active, most_active, begun, refused;
    /* How the object N is given, the next TIMES times; then GIVES. */
    enum manner manner[512];
    unsigned times[512];
};

static unsigned number_of(const struct id128 *id)
{
    return (unsigned)id->bytes[14] << 8 | id->bytes[15];
}

/* ---- The fake's calls ---- */

int cluster_fetch_start(struct cluster *cluster, const struct cluster_fetch *fetch,
                        struct cluster_reader *reader)
{
    unsigned n = number_of(&fetch->id);
    struct fetching *f = cluster->fetches;
    int rc = 0;

    assert_true(fetch->background && fetch->offset == 0 && fetch->length == fetch->size);
    assert_true(fetch->size > 0);
    pthread_mutex_lock(&cluster->lock);
    if (cluster->times[n] && cluster->manner[n] == REFUSES) {
        cluster->times[n]--;
        cluster->refused++;
        rc = ERR_FULL;
    } else {
        while (f->reader)
            f++;
        *f = (struct fetching){.reader = reader, .fetch = *fetch};
        f->holder_count = fetch->holder_count;
        if (f->holder_count)
            f->holder = fetch->holders[0];
        f->credit = BODY_BACKGROUND_WINDOW_BYTES;
        f->body = malloc(fetch->size + 1);
        make_body(f->body, fetch->size, n);
        cluster->begun++;
        if (++cluster->active > cluster->most_active)
            cluster->most_active = cluster->active;
        pthread_cond_broadcast(&cluster->changed);
    }
    pthread_mutex_unlock(&cluster->lock);
    return rc;
}

static struct fetching *fetching_of(struct cluster *cluster, const struct cluster_reader *reader)
{
    for (size_t i = 0; i < MAX_FETCHES; i++)
        if (cluster->fetches[i].reader == reader)
            return &cluster->fetches[i];
    return NULL;
}

void cluster_fetch_consumed(struct cluster *cluster, struct cluster_reader *reader, uint64_t bytes)
{
    pthread_mutex_lock(&cluster->lock);
    struct fetching *f = fetching_of(cluster, reader);

    if (f) {
        f->credit += bytes;
        assert_true(f->credit <= BODY_BACKGROUND_WINDOW_BYTES);
        pthread_cond_broadcast(&cluster->changed);
    }
    pthread_mutex_unlock(&cluster->lock);
}

void cluster_fetch_cancel(struct cluster *cluster, struct cluster_reader *reader)
{
    pthread_mutex_lock(&cluster->lock);
    struct fetching *f = fetching_of(cluster, reader);

    if (f) {
        f->cancelled = true;
        pthread_cond_broadcast(&cluster->changed);
    }
    pthread_mutex_unlock(&cluster->lock);
}

bool cluster_cloud_of(const struct cluster *cluster, const struct object *object,
                      struct cluster_cloud *out)
{
    (void)cluster;
    (void)object;
    (void)out;
    return false;
}

void cluster_fetch_misfit(struct cluster *cluster, const struct cluster_reader *reader)
{
    (void)cluster;
    (void)reader;
}

/* ---- Its thread ---- */

/* The lock is held, and is left for the call. */
static void give_end(struct cluster *cluster, struct fetching *f, int rc)
{
    struct cluster_reader *reader = f->reader;
    unsigned n = number_of(&f->fetch.id);

    if (cluster->times[n])
        cluster->times[n]--;
    free(f->body);
    *f = (struct fetching){0};
    cluster->active--;
    pthread_mutex_unlock(&cluster->lock);
    reader->done(reader, rc);
    pthread_mutex_lock(&cluster->lock);
}

/* One step of one fetch; false: it waits. The lock is held. */
static bool give(struct cluster *cluster, struct fetching *f)
{
    uint64_t size = f->fetch.size, len = 100000;
    unsigned n = number_of(&f->fetch.id);
    enum manner manner = cluster->times[n] ? cluster->manner[n] : GIVES;
    bool half = f->given >= size / 2;

    if (f->cancelled || (manner == BREAKS && half) || manner == LACKS || f->given == size) {
        give_end(cluster, f,
                 f->cancelled       ? ERR_CLOSED
                 : manner == BREAKS ? ERR_TIMEOUT
                 : manner == LACKS  ? ERR_NOT_FOUND
                                    : 0);
        return true;
    }
    if (manner == HANGS && half)
        return false;
    if (len > (size + 1) / 2)
        len = (size + 1) / 2; /* every body has a middle */
    if (len > size - f->given)
        len = size - f->given;
    if (len > f->credit)
        return false;
    uint8_t *bytes = malloc(len); /* lent for the call alone */
    memcpy(bytes, f->body + f->given, len);
    if (manner == LIES && f->given + len == size)
        bytes[len / 2] ^= 1;
    uint64_t offset = f->given;
    struct cluster_reader *reader = f->reader;
    f->given += len;
    f->credit -= len;
    pthread_mutex_unlock(&cluster->lock);
    reader->data(reader, offset, bytes, len);
    memset(bytes, 0xee, len);
    free(bytes);
    pthread_mutex_lock(&cluster->lock);
    return true;
}

static void *run_fake(void *arg)
{
    struct cluster *cluster = arg;

    pthread_mutex_lock(&cluster->lock);
    while (!cluster->stopping) {
        bool moved = false;

        for (size_t i = 0; i < MAX_FETCHES; i++)
            if (cluster->fetches[i].reader)
                moved |= give(cluster, &cluster->fetches[i]);
        if (!moved)
            pthread_cond_wait(&cluster->changed, &cluster->lock);
    }
    for (size_t i = 0; i < MAX_FETCHES; i++)
        if (cluster->fetches[i].reader)
            give_end(cluster, &cluster->fetches[i], ERR_CLOSED);
    pthread_mutex_unlock(&cluster->lock);
    return NULL;
}

/* ---- Two nodes: A has the bodies, B replicates ---- */

struct pair {
    struct node *a, *b;
    struct cluster cluster;
    struct replicator *replicator;
};

static _Atomic uint64_t later_ms; /* B's clock is ahead */
static _Atomic bool no_room;      /* on B's disk */
static int (*real_space)(struct io *io, const char *path, struct io_space *out);

static uint64_t mono_ns(struct env *env)
{
    (void)env;
    return env_system()->mono_ns(env_system()) + atomic_load(&later_ms) * 1000000;
}

static int space(struct io *io, const char *path, struct io_space *out)
{
    int rc = real_space(io, path, out);

    if (atomic_load(&no_room))
        out->free_bytes = 1;
    return rc;
}

static int setup_pair(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);

    *state = pair;
    atomic_store(&later_ms, 0);
    atomic_store(&no_room, false);
    if (setup((void **)&pair->a) || setup((void **)&pair->b))
        return -1;
    pair->a->fault.skip_sync = pair->b->fault.skip_sync = true; /* no power is lost here */
    pair->b->env.mono_ns = mono_ns;
    real_space = pair->b->fault.io.space;
    pair->b->fault.io.space = space;
    node_open(pair->a, false);
    node_open(pair->b, false);
    pthread_mutex_init(&pair->cluster.lock, NULL);
    pthread_cond_init(&pair->cluster.changed, NULL);
    return pthread_create(&pair->cluster.thread, NULL, run_fake, &pair->cluster);
}

static void stop_cluster(struct pair *pair)
{
    pthread_mutex_lock(&pair->cluster.lock);
    pair->cluster.stopping = true;
    pthread_cond_broadcast(&pair->cluster.changed);
    pthread_mutex_unlock(&pair->cluster.lock);
    pthread_join(pair->cluster.thread, NULL);
}

static int teardown_pair(void **state)
{
    struct pair *pair = *state;

    int rc = teardown((void **)&pair->a) | teardown((void **)&pair->b);
    pthread_cond_destroy(&pair->cluster.changed);
    pthread_mutex_destroy(&pair->cluster.lock);
    free(pair);
    return rc;
}

static int append_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    uint32_t length = (uint32_t)len;

    (void)seq;
    buf_add(arg, &length, sizeof length);
    buf_add(arg, raw, len);
    return 0;
}

struct waiting {
    struct change change;
    sem_t over;
};

static void over(struct change *change)
{
    sem_post(&((struct waiting *)change)->over);
}

/* Submit, and wait; with or without threads. */
static int commit_any(struct node *node, struct waiting *w)
{
    sem_init(&w->over, 0, 0);
    w->change.done = over;
    assert_int_equal(journal_submit(node->journal, &w->change), 0);
    if (!node->threads)
        while (sem_trywait(&w->over) != 0)
            journal_commit_step(node->journal);
    else
        sem_wait(&w->over);
    sem_destroy(&w->over);
    object_destroy(&w->change.object);
    return w->change.rc;
}

/* B hears all that A has journaled. */
static void sync_pair(struct pair *pair)
{
    struct db_origin *origins;
    struct db_reader *reader;
    struct buf events;
    size_t count;

    while (journal_apply_step(pair->a->journal))
        ;
    buf_init(&events, 0);
    assert_int_equal(journal_reader_open(pair->a->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(db_each_event(reader, origins[i].no, 1, append_event, &events), 0);
    free(origins);
    db_reader_close(&reader);
    struct waiting w = {.change = {.request.kind = CHANGE_PEER,
                                   .events = (const uint8_t *)events.data,
                                   .events_bytes = events.len}};
    assert_int_equal(commit_any(pair->b, &w), 0);
    buf_release(&events);
}

/* A puts object N of SIZE bytes for every node. */
static void put_full(struct pair *pair, unsigned n, size_t size)
{
    struct waiting raise = {
        .change.request = {
            .kind = CHANGE_META, .id = make_id(n), .fields = EVENT_HAS_LEVEL, .level = 2}};

    if (size <= LIMIT_INLINE_BODY_BYTES)
        assert_int_equal(put(pair->a, n, size), 0);
    else
        assert_int_equal(put_large(pair->a, n, size), 0);
    assert_int_equal(commit_any(pair->a, &raise), 0);
}

static void delete_at_b(struct pair *pair, unsigned n)
{
    struct waiting w = {.change.request = {.kind = CHANGE_DELETE, .id = make_id(n)}};

    assert_int_equal(commit_any(pair->b, &w), 0);
}

/* B's journal gets its threads, and the replicator begins. */
static void go(struct pair *pair)
{
    sync_pair(pair);
    while (journal_apply_step(pair->b->journal))
        ;
    assert_int_equal(journal_start(pair->b->journal), 0);
    pair->b->threads = true;
    assert_int_equal(
        replicator_create(&pair->replicator, pair->b->journal, &pair->cluster, &pair->b->env), 0);
    assert_int_equal(replicator_start(pair->replicator), 0);
}

static struct replicator_stats stats_of(struct pair *pair)
{
    struct replicator_stats stats;

    replicator_stats(pair->replicator, &stats);
    return stats;
}

/* Many tests run beside each other on machines that have other work, too. */
#define PATIENCE_MS 120000

#define wait_for(condition)                                                                        \
    do {                                                                                           \
        uint64_t until = env_mono_ms(env_system()) + PATIENCE_MS;                                  \
                                                                                                   \
        while (!(condition)) {                                                                     \
            if (env_mono_ms(env_system()) > until)                                                 \
                fail_msg("waited in vain: " #condition);                                           \
            usleep(500);                                                                           \
        }                                                                                          \
    } while (0)

static unsigned files_in(const char *dir)
{
    unsigned count = 0;
    DIR *open = opendir(dir);

    assert_non_null(open);
    for (struct dirent *entry; (entry = readdir(open)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(open);
    return count;
}

static unsigned tmp_files(struct pair *pair)
{
    char dir[128];

    snprintf(dir, sizeof dir, "%s/tmp", pair->b->files);
    return files_in(dir);
}

/* Stop all; B is sound, and nothing is left in its tmp/. B is open again, without threads. */
static void finish(struct pair *pair)
{
    replicator_stop(pair->replicator);
    assert_int_equal(stats_of(pair).flights, 0);
    stop_cluster(pair);
    journal_stop(pair->b->journal);
    replicator_destroy(&pair->replicator);
    assert_null(pair->replicator);
    node_close(pair->b, true);
    assert_int_equal(tmp_files(pair), 0);
    node_open(pair->b, false);
    expect_sound(pair->b, NULL);
}

static void close_pair(struct pair *pair)
{
    node_close(pair->a, true);
    node_close(pair->b, true);
}

static void expect_no_copy(struct pair *pair, unsigned n)
{
    struct object *object;

    assert_int_equal(find(pair->b, n, &object), 0);
    assert_true(place_is_none(&object->place));
    object_destroy(&object);
}

/* ---- */

static const size_t sizes[] = {
    0,
    1,
    1000,
    BLOCK_BYTES,
    BLOCK_BYTES + 1,
    256 * KIB,
    256 * KIB + 1,
    600 * KIB,
    5 * MIB + 3,
    3 * BLOCK_BYTES,
    512 * KIB,
};
#define SIZES (sizeof sizes / sizeof *sizes)

static void bodies_of_all_sizes_come_and_are_held(void **state)
{
    struct pair *pair = *state;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < SIZES; i++) {
        put_full(pair, i, sizes[i]);
        bytes += sizes[i];
    }
    assert_int_equal(put(pair->a, 100, 50), 0); /* this one is A's alone */
    go(pair);
    struct id128 a = journal_node(pair->a->journal), b = journal_node(pair->b->journal);

    wait_for(stats_of(pair).done == SIZES);
    struct replicator_stats stats = stats_of(pair);
    assert_int_equal(stats.bytes, bytes);
    assert_int_equal(stats.wanted, 0);
    assert_int_equal(stats.wanted_bytes, 0);
    assert_int_equal(stats.failures, 0);
    assert_int_equal(pair->cluster.begun, SIZES - 1); /* an empty one is had without asking */
    finish(pair);
    for (unsigned i = 0; i < SIZES; i++) {
        struct id128 holders[4];
        struct db_reader *reader;
        struct object *object;
        size_t count;

        expect_body(pair->b, i, sizes[i]);
        assert_int_equal(find(pair->b, i, &object), 0);
        assert_int_equal(journal_reader_open(pair->b->journal, &reader), 0);
        assert_int_equal(db_reader_holders(reader, object, holders, 4, &count), 0);
        assert_int_equal(count, 2);
        assert_true(id_equal(&holders[0], &a) && id_equal(&holders[1], &b));
        db_reader_close(&reader);
        object_destroy(&object);
    }
    expect_no_copy(pair, 100);
    close_pair(pair);
}

static void news_are_followed_and_many_come_a_few_at_once(void **state)
{
    struct pair *pair = *state;

    go(pair);
    wait_for(stats_of(pair).flights == 0);
    for (unsigned n = 0; n < 200; n++)
        put_full(pair, n, 100 + n * 10);
    sync_pair(pair);
    wait_for(stats_of(pair).done == 200 || (replicator_poke(pair->replicator), false));
    assert_int_equal(stats_of(pair).wanted, 0);
    assert_true(pair->cluster.most_active <= LIMIT_REPLICAS);
    finish(pair);
    for (unsigned n = 0; n < 200; n++)
        expect_body(pair->b, n, 100 + n * 10);
    close_pair(pair);
}

static void who_fails_is_asked_again(void **state)
{
    static const enum manner manners[] = {LIES, BREAKS, LACKS, REFUSES};
    struct pair *pair = *state;

    for (unsigned i = 0; i < 8; i++) {
        put_full(pair, i, i % 2 ? 900 * KIB : 9000);
        pair->cluster.manner[i] = manners[i / 2];
        pair->cluster.times[i] = 1;
    }
    go(pair);
    wait_for(stats_of(pair).done == 8);
    struct replicator_stats stats = stats_of(pair);
    assert_int_equal(stats.failures, 6); /* of the cluster's refusal it is no failure */
    assert_int_equal(stats.corrupt, 2);
    assert_int_equal(pair->cluster.refused, 2);
    assert_int_equal(stats.wanted, 0);
    finish(pair);
    for (unsigned i = 0; i < 8; i++)
        expect_body(pair->b, i, i % 2 ? 900 * KIB : 9000);
    close_pair(pair);
}

/* Bytes that are not those of the row are never stored, however often they come. */
static void wrong_bytes_are_not_stored(void **state)
{
    struct pair *pair = *state;

    for (unsigned i = 0; i < 2; i++) {
        put_full(pair, i, i ? 2 * MIB : 2000);
        pair->cluster.manner[i] = LIES;
        pair->cluster.times[i] = UINT32_MAX;
    }
    go(pair);
    wait_for(stats_of(pair).corrupt == 2);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t before = stats_of(pair).corrupt;

        atomic_fetch_add(&later_ms, REPLICA_BACKOFF_MAX_MS);
        replicator_poke(pair->replicator);
        wait_for(stats_of(pair).corrupt >= before + 2);
    }
    assert_int_equal(stats_of(pair).done, 0);
    assert_int_equal(stats_of(pair).wanted, 2);
    finish(pair);
    expect_no_copy(pair, 0);
    expect_no_copy(pair, 1);
    close_pair(pair);
}

static void what_is_deleted_meanwhile_is_dropped(void **state)
{
    struct pair *pair = *state;

    for (unsigned i = 0; i < 2; i++) {
        put_full(pair, i, i ? 3 * MIB : 200 * KIB);
        pair->cluster.manner[i] = HANGS;
        pair->cluster.times[i] = 1;
    }
    go(pair);
    wait_for(stats_of(pair).flights == 2);
    delete_at_b(pair, 0);
    delete_at_b(pair, 1);
    pthread_mutex_lock(&pair->cluster.lock);
    pair->cluster.times[0] = pair->cluster.times[1] = 0; /* the rest comes after all */
    pthread_cond_broadcast(&pair->cluster.changed);
    pthread_mutex_unlock(&pair->cluster.lock);
    wait_for(stats_of(pair).flights == 0);
    struct replicator_stats stats = stats_of(pair);
    assert_int_equal(stats.done, 0);
    assert_int_equal(stats.failures, 0);
    assert_int_equal(stats.wanted, 0);
    assert_int_equal(tmp_files(pair), 0);
    finish(pair);
    expect_deleted(pair->b, 0);
    expect_deleted(pair->b, 1);
    close_pair(pair);
}

/* At every kind of moment: while bytes come, hang, are written, and before anything began. */
static void a_stop_in_the_middle_leaves_nothing(void **state)
{
    struct replicator *stopped[8];
    struct pair *pair = *state;

    for (unsigned i = 0; i < 40; i++) {
        put_full(pair, i, i % 3 == 0 ? 1200 * KIB : 50000 + i);
        pair->cluster.manner[i] = i % 4 == 1 ? HANGS : GIVES;
        pair->cluster.times[i] = i % 4 == 1 ? 1000 : 0;
    }
    go(pair);
    for (unsigned round = 0; round < 8; round++) {
        if (round > 0)
            wait_for(stats_of(pair).done >= round || stats_of(pair).wanted == 10);
        replicator_stop(pair->replicator);
        assert_int_equal(stats_of(pair).flights, 0);
        assert_int_equal(pair->cluster.active, 0);
        replicator_stop(pair->replicator); /* again: nothing */
        replicator_poke(pair->replicator); /* late news do no harm */
        stopped[round] = pair->replicator;
        assert_int_equal(
            replicator_create(&pair->replicator, pair->b->journal, &pair->cluster, &pair->b->env),
            0);
        assert_int_equal(replicator_start(pair->replicator), 0);
    }
    finish(pair);
    for (unsigned round = 0; round < 8; round++)
        replicator_destroy(&stopped[round]);
    for (unsigned i = 0; i < 40; i++)
        if (i % 4 == 1)
            expect_no_copy(pair, i);
    close_pair(pair);
}

/* The cluster stops first: it ends what is under way itself. */
static void the_cluster_may_stop_first(void **state)
{
    struct pair *pair = *state;

    for (unsigned i = 0; i < 6; i++) {
        put_full(pair, i, i % 2 ? 700 * KIB : 7000);
        pair->cluster.manner[i] = HANGS;
        pair->cluster.times[i] = 1000;
    }
    go(pair);
    wait_for(stats_of(pair).flights == 6);
    pthread_mutex_lock(&pair->cluster.lock);
    for (unsigned i = 0; i < 6; i++) {
        pair->cluster.manner[i] = REFUSES;
        pair->cluster.times[i] = UINT32_MAX;
    }
    pthread_mutex_unlock(&pair->cluster.lock);
    stop_cluster(pair);
    replicator_stop(pair->replicator);
    assert_int_equal(stats_of(pair).done, 0);
    journal_stop(pair->b->journal);
    replicator_destroy(&pair->replicator);
    node_close(pair->b, true);
    assert_int_equal(tmp_files(pair), 0);
    node_open(pair->b, false);
    expect_sound(pair->b, NULL);
    close_pair(pair);
}

/* Whether COUNT copies are made; where none is on its way, it is a minute later: one that found the
 * disk full rests from the moment when it did, which may be any until now. */
static bool done_later(struct pair *pair, uint64_t count)
{
    struct replicator_stats stats = stats_of(pair);

    if (stats.done < count && stats.flights == 0) {
        atomic_fetch_add(&later_ms, REPLICA_FULL_MS);
        replicator_poke(pair->replicator);
    }
    return stats.done >= count;
}

static void a_full_disk_keeps_the_metadata_and_waits(void **state)
{
    struct pair *pair = *state;

    for (unsigned i = 0; i < 4; i++)
        put_full(pair, i, i % 2 ? 700 * KIB : 7000);
    atomic_store(&no_room, true);
    /* Looks at the disk now: copies may begin before the janitor does. */
    journal_freed(pair->b->journal);
    assert_int_equal(journal_room(pair->b->journal, 1), ERR_NO_SPACE);
    go(pair);
    wait_for(stats_of(pair).full);
    assert_int_equal(pair->cluster.begun, 0);
    assert_int_equal(stats_of(pair).wanted, 4);
    atomic_store(&no_room, false);
    wait_for(done_later(pair, 4));
    assert_false(stats_of(pair).full);
    finish(pair);
    for (unsigned i = 0; i < 4; i++)
        expect_body(pair->b, i, i % 2 ? 700 * KIB : 7000);
    close_pair(pair);
}

/* It fills up while a large body comes: what was written goes again. */
static void a_disk_that_fills_up_meanwhile(void **state)
{
    struct pair *pair = *state;

    put_full(pair, 1, 4 * MIB);
    pair->cluster.manner[1] = HANGS;
    pair->cluster.times[1] = 1;
    go(pair);
    wait_for(tmp_files(pair) == 1);
    atomic_store(&no_room, true);
    atomic_fetch_add(&later_ms, 2000);
    wait_for((journal_room(pair->b->journal, 1) == ERR_NO_SPACE));
    pthread_mutex_lock(&pair->cluster.lock);
    pair->cluster.times[1] = 0;
    pthread_cond_broadcast(&pair->cluster.changed);
    pthread_mutex_unlock(&pair->cluster.lock);
    wait_for(stats_of(pair).full && stats_of(pair).flights == 0);
    assert_int_equal(tmp_files(pair), 0);
    finish(pair);
    expect_no_copy(pair, 1);
    close_pair(pair);
}

/* A write to the file fails: the fetch is ended, the object tried again. */
static void a_disk_that_fails_once(void **state)
{
    struct pair *pair = *state;

    put_full(pair, 1, 4 * MIB);
    go(pair);
    wait_for(stats_of(pair).done == 1);
    put_full(pair, 2, 4 * MIB);
    pair->b->fault.only = "/tmp/0";
    pair->b->fault.error = ERR_IO;
    atomic_store(&pair->b->fault.fail_write, 3);
    sync_pair(pair);
    wait_for(stats_of(pair).done == 2 || (replicator_poke(pair->replicator), false));
    assert_int_equal(stats_of(pair).failures, 1);
    finish(pair);
    expect_body(pair->b, 1, 4 * MIB);
    expect_body(pair->b, 2, 4 * MIB);
    close_pair(pair);
}

static void repair(struct pair *pair, unsigned n, struct place *place)
{
    struct object *object;

    assert_int_equal(find(pair->b, n, &object), 0);
    *place = object->place;
    replicator_repair(pair->replicator, object);
    object_destroy(&object);
}

static struct place place_of(struct pair *pair, unsigned n)
{
    struct object *object;

    assert_int_equal(find(pair->b, n, &object), 0);
    struct place place = object->place;
    object_destroy(&object);
    return place;
}

static uint64_t repaired_of(struct pair *pair)
{
    struct journal_stats stats;

    journal_stats(pair->b->journal, &stats);
    return stats.repaired;
}

static bool has_moved(struct pair *pair, unsigned n, const struct place *before)
{
    struct place after = place_of(pair, n);

    return !place_equal(before, &after);
}

static void a_damaged_copy_gives_way_to_a_good_one(void **state)
{
    static const size_t of[] = {900, 256 * KIB, 3 * MIB, 500, 1 * MIB};
    struct pair *pair = *state;
    struct place before[5], meanwhile;

    for (unsigned i = 0; i < 5; i++)
        put_full(pair, i, of[i]);
    go(pair);
    wait_for(stats_of(pair).done == 5);
    for (unsigned i = 0; i < 3; i++) {
        repair(pair, i, &before[i]);
        repair(pair, i, &meanwhile); /* as whoever else reads it does; it may be mended by then */
    }
    for (unsigned i = 0; i < 3; i++)
        wait_for(has_moved(pair, i, &before[i]));
    wait_for(stats_of(pair).repairs == 0 && stats_of(pair).flights == 0);
    uint64_t repaired = repaired_of(pair);
    assert_true(repaired >= 3);
    /* Nobody has a good one, or what comes is no better: it stays as it is. */
    pthread_mutex_lock(&pair->cluster.lock);
    unsigned begun = pair->cluster.begun;
    pair->cluster.manner[3] = LIES;
    pair->cluster.manner[4] = LACKS;
    pair->cluster.times[3] = pair->cluster.times[4] = 1;
    pthread_mutex_unlock(&pair->cluster.lock);
    for (unsigned i = 3; i < 5; i++)
        repair(pair, i, &before[i]);
    wait_for(pair->cluster.begun >= begun + 2 && stats_of(pair).repairs == 0 &&
             stats_of(pair).flights == 0);
    assert_int_equal(repaired_of(pair), repaired);
    assert_int_equal(stats_of(pair).done, 5);
    for (unsigned i = 3; i < 5; i++) {
        struct place after = place_of(pair, i);

        assert_true(place_equal(&before[i], &after));
    }
    finish(pair);
    for (unsigned i = 0; i < 5; i++)
        expect_body(pair->b, i, of[i]);
    close_pair(pair);
}

static void what_was_repaired_or_deleted_meanwhile_is_left_alone(void **state)
{
    struct pair *pair = *state;
    struct object *object;
    struct place before;

    put_full(pair, 1, 900);
    put_full(pair, 2, 900);
    go(pair);
    wait_for(stats_of(pair).done == 2);
    assert_int_equal(find(pair->b, 1, &object), 0);
    repair(pair, 1, &before);
    wait_for(repaired_of(pair) == 1);
    unsigned begun = pair->cluster.begun;
    replicator_repair(pair->replicator, object); /* as it lay before */
    object_destroy(&object);
    assert_int_equal(find(pair->b, 2, &object), 0);
    delete_at_b(pair, 2);
    replicator_repair(pair->replicator, object);
    object_destroy(&object);
    wait_for(stats_of(pair).repairs == 0);
    wait_for(stats_of(pair).flights == 0);
    finish(pair);
    assert_int_equal(pair->cluster.begun, begun);
    expect_body(pair->b, 1, 900);
    close_pair(pair);
}

/* A member that leaves asks for copies of what is not for every node: each is made once, held,
 * and of exactly the bytes that were named; what is deleted or not known is passed over. */
static void a_member_that_leaves_finds_a_taker(void **state)
{
    static const size_t of_size[] = {0, 100, LIMIT_INLINE_BODY_BYTES, LIMIT_INLINE_BODY_BYTES + 1};
    struct event_item items[8] = {0};
    struct pair *pair = *state;
    struct object *object;

    for (unsigned n = 0; n < 6; n++) {
        size_t size = of_size[n % 4];

        if (size <= LIMIT_INLINE_BODY_BYTES)
            assert_int_equal(put(pair->a, n, size), 0);
        else
            assert_int_equal(put_large(pair->a, n, size), 0);
        assert_int_equal(find(pair->a, n, &object), 0);
        items[n].id = object->id;
        memcpy(items[n].sha256, object->sha256, SHA256_BYTES);
        object_destroy(&object);
    }
    items[6] = (struct event_item){.id = make_id(100)}; /* nobody knows it */
    items[7] = items[1];
    items[4].sha256[0] ^= 1;
    go(pair);
    assert_int_equal(stats_of(pair).wanted, 0);
    delete_at_b(pair, 5);
    replicator_adopt(pair->replicator, items, 8);
    wait_for(stats_of(pair).done == 4);
    items[7] = items[5]; /* the last one is new: once it is here, the others would be, too */
    items[4].sha256[0] ^= 1;
    struct event_item last = items[4];
    items[4].sha256[0] ^= 1;
    replicator_adopt(pair->replicator, items, 8);
    replicator_adopt(pair->replicator, &last, 1);
    wait_for(stats_of(pair).done == 5);
    finish(pair);
    for (unsigned n = 0; n < 4; n++)
        expect_body(pair->b, n, of_size[n]);
    expect_body(pair->b, 4, of_size[0]);
    close_pair(pair);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, setup_pair, teardown_pair)
    const struct CMUnitTest tests[] = {
        test(bodies_of_all_sizes_come_and_are_held),
        test(news_are_followed_and_many_come_a_few_at_once),
        test(who_fails_is_asked_again),
        test(wrong_bytes_are_not_stored),
        test(what_is_deleted_meanwhile_is_dropped),
        test(a_stop_in_the_middle_leaves_nothing),
        test(the_cluster_may_stop_first),
        test(a_full_disk_keeps_the_metadata_and_waits),
        test(a_disk_that_fills_up_meanwhile),
        test(a_disk_that_fails_once),
        test(a_damaged_copy_gives_way_to_a_good_one),
        test(what_was_repaired_or_deleted_meanwhile_is_left_alone),
        test(a_member_that_leaves_finds_a_taker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
