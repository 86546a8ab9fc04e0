/*
 * The cluster's thread: its life, its loop, and how other threads reach it.
 *
 * One turn of the loop: what was delivered (reads done, commits done) → what readers of bodies ask
 * for → what the journal says is new → timers → frames, for as long as nothing else is due.
 *
 * Other threads never wait for it: they leave something under the lock and wake it. Everything that
 * it gives away (a read, a commit) comes back as a delivery, and a stop waits for all of them; so
 * nothing outlives the thread.
 *
 * Failure: a link that fails ends the thread's talking, said once; the node goes on alone.
 */
#include "cluster/cluster_internal.h"

#include "base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POOL_WORKERS  3
#define POOL_CAPACITY (LIMIT_POOL_QUEUE + LIMIT_PLACES)
#define TURN_MS       50  /* the longest wait for frames */
#define TIMERS_MS     50  /* between ticks of sync, fetch and serve */
#define VIEW_MS       200 /* between pictures for other threads */
#define FAREWELL_MS   200
#define STOP_MS       10000

uint64_t cluster_now(struct cluster *cluster)
{
    return env_mono_ms(cluster->env);
}

/* ---- From other threads ---- */

void cluster_deliver(struct cluster *cluster, struct delivery *delivery)
{
    delivery->next = NULL;
    pthread_mutex_lock(&cluster->lock);
    if (cluster->delivered_last)
        cluster->delivered_last->next = delivery;
    else
        cluster->delivered = delivery;
    cluster->delivered_last = delivery;
    /* Inside the lock: the thread that takes the last delivery may close the link. */
    link_wake(cluster->link);
    pthread_mutex_unlock(&cluster->lock);
}

void cluster_begin(struct cluster *cluster)
{
    pthread_mutex_lock(&cluster->lock);
    cluster->under_way++;
    pthread_mutex_unlock(&cluster->lock);
}

void cluster_end(struct cluster *cluster)
{
    pthread_mutex_lock(&cluster->lock);
    assert(cluster->under_way > 0);
    cluster->under_way--;
    pthread_mutex_unlock(&cluster->lock);
}

static void take_deliveries(struct cluster *cluster)
{
    pthread_mutex_lock(&cluster->lock);
    struct delivery *delivery = cluster->delivered;
    cluster->delivered = cluster->delivered_last = NULL;
    pthread_mutex_unlock(&cluster->lock);
    for (struct delivery *next; delivery; delivery = next) {
        next = delivery->next;
        delivery->run(cluster, delivery);
    }
}

/* ---- The thread ---- */

static void tick(struct cluster *cluster)
{
    uint64_t now_ms = cluster_now(cluster);

    if (cluster->displaced)
        return;
    if (cluster->local_due || atomic_load(&cluster->draining) != cluster->draining_said)
        peer_local(cluster);
    if (now_ms >= probe_next_ms(cluster->probe)) {
        struct probe_input input = {.kind = PROBE_TICK};

        peer_probe(cluster, &input);
    }
    if (now_ms - cluster->sync_tick_ms >= TIMERS_MS) {
        struct sync_input input = {.kind = SYNC_TICK};

        cluster->sync_tick_ms = now_ms;
        cluster_sync(cluster, &input);
        cluster_merge(cluster, &(struct merge_input){.kind = MERGE_TICK});
        cluster_cut_tick(cluster, now_ms);
        fetch_tick(cluster->fetches, now_ms);
        pull_tick(cluster, now_ms);
        serve_tick(cluster->serve, now_ms);
        lend_retry(cluster);
        seek_retry(cluster);
        orders_tick(cluster, now_ms);
        peer_tick(cluster, now_ms);
        twin_tick(cluster, now_ms);
        peer_join(cluster);
        peer_standing(cluster);
        operate_replace(cluster);
    }
    if (now_ms - cluster->view_ms >= VIEW_MS) {
        cluster->view_ms = now_ms;
        peer_view(cluster);
    }
}

/* How long the link may be waited for. */
static unsigned patience_ms(struct cluster *cluster)
{
    uint64_t now_ms = cluster_now(cluster), next_ms = probe_next_ms(cluster->probe);

    if (cluster->displaced)
        return TURN_MS;
    if (next_ms <= now_ms)
        return 0;
    if (cluster->waiting)
        return 1;
    return next_ms - now_ms < TURN_MS ? (unsigned)(next_ms - now_ms) : TURN_MS;
}

bool cluster_step(struct cluster *cluster)
{
    take_deliveries(cluster);
    cluster_submit(cluster);
    cluster_failed(cluster);
    bodies_failed(cluster);
    bodies_take(cluster);
    orders_take(cluster);
    inquiry_send(cluster);
    cluster_news(cluster);
    tick(cluster);
    pack_flush_all(cluster);
    return link_poll(cluster->link, patience_ms(cluster)) >= 0;
}

void cluster_leave(struct cluster *cluster)
{
    cluster->leaving = true;
    if (!cluster->displaced)
        peer_local(cluster);
    bodies_close(cluster);
    orders_close(cluster);
    cluster_submit(cluster);
}

bool cluster_leave_step(struct cluster *cluster)
{
    assert(cluster->leaving);
    take_deliveries(cluster);
    pthread_mutex_lock(&cluster->lock);
    bool idle = cluster->under_way == 0;
    pthread_mutex_unlock(&cluster->lock);
    return idle;
}

/* Say that we leave, end what is under way and wait for what was given away. */
static void finish(struct cluster *cluster)
{
    uint64_t begun_ms = cluster_now(cluster);
    /* Whoever gives way to another process of this node says nothing: that one does not leave. */
    uint64_t farewell_ms = cluster->peer_count > 0 && !cluster->displaced ? FAREWELL_MS : 0;

    cluster_leave(cluster);
    for (;;) {
        bool idle = cluster_leave_step(cluster);
        uint64_t passed_ms = cluster_now(cluster) - begun_ms;

        if ((idle && passed_ms >= farewell_ms) || passed_ms >= STOP_MS)
            break;
        pack_flush_all(cluster);
        if (link_poll(cluster->link, 10) < 0 && idle)
            break;
    }
    lend_close(cluster);
}

static void *run(void *arg)
{
    struct cluster *cluster = arg;

    while (!atomic_load(&cluster->stopping))
        if (!cluster_step(cluster)) {
            log_error("cluster: the link to other nodes has failed; this node runs alone until it "
                      "is restarted");
            orders_close(cluster);
            break;
        }
    while (!atomic_load(&cluster->stopping)) {
        const struct timespec rest = {0, TURN_MS * 1000000};

        take_deliveries(cluster);
        (void)nanosleep(&rest, NULL);
    }
    finish(cluster);
    return NULL;
}

int cluster_start(struct cluster *cluster)
{
    assert(!cluster->running);
    if (pthread_create(&cluster->thread, NULL, run, cluster) != 0)
        return ERR_NO_MEMORY;
    pthread_setname_np(cluster->thread, "cluster");
    cluster->running = true;
    int rc = copies_start(cluster->copies);

    if (rc == 0)
        rc = replicator_start(cluster->replicator);
    if (rc == 0 && cluster->uploader)
        rc = uploader_start(cluster->uploader);
    if (rc == 0)
        rc = drainer_start(cluster->drainer);
    if (rc)
        cluster_stop(cluster);
    return rc;
}

void cluster_stop(struct cluster *cluster)
{
    if (!cluster || !cluster->running)
        return;
    copies_stop(cluster->copies);
    inquiry_close(cluster);
    drainer_stop(cluster->drainer);
    uploader_stop(cluster->uploader);
    replicator_stop(cluster->replicator);
    atomic_store(&cluster->stopping, true);
    link_wake(cluster->link);
    if (cluster->cloud)
        cloud_guard_close(cluster->cloud);
    pthread_join(cluster->thread, NULL);
    cluster->running = false;
}

/* ---- Opening and closing ---- */

static int open_reader(void *arg, void **context)
{
    struct cluster *cluster = arg;
    struct db_reader *reader = NULL;
    int rc = journal_reader_open(cluster->journal, &reader);

    *context = reader;
    return rc;
}

static void close_reader(void *arg, void *context)
{
    struct db_reader *reader = context;

    (void)arg;
    db_reader_close(&reader);
}

static int open_link(struct cluster *cluster, const struct cluster_config *config, char *message,
                     size_t cap)
{
    const char *address = places_find(cluster->places, config->private_addr);

    /* A name would have to be asked for; where this node listens is known at once. */
    if (!address) {
        struct link_address any;

        if (link_address_parse(&any, config->private_addr) != 0) {
            (void)snprintf(message, cap, "--private-addr has to be an IP address and a port: %s",
                           config->private_addr);
            return ERR_INVALID;
        }
        address = config->private_addr; /* port 0: any */
    }
    if (config->secret_file) {
        int rc = secret_load(&cluster->secret, config->env->io, config->secret_file, message, cap);

        if (rc)
            return rc;
    }
    const struct link_config link = {.env = config->env,
                                     .bind_address = address,
                                     .secret = config->secret_file ? &cluster->secret : NULL,
                                     .receive = peer_receive,
                                     .changed = peer_link_changed,
                                     .arg = cluster};
    return link_open(&cluster->link, &link, message, cap);
}

static int open_cores(struct cluster *cluster)
{
    uint64_t seeds[4];
    int rc;

    cluster->env->random(cluster->env, seeds, sizeof seeds);
    struct sync_config sync = {.self = cluster->self, .seed = seeds[0]};
    struct probe_config probe = {
        .node = cluster->self,
        .seed = seeds[1],
        .tag = {cluster->tag, (uint32_t)strlen(cluster->tag)},
        .version = {OBJSTORE_VERSION, (uint32_t)strlen(OBJSTORE_VERSION)},
        .address = {cluster->advertise, (uint32_t)strlen(cluster->advertise)}};
    if ((rc = sync_create(&cluster->sync, &sync)) == 0) {
        struct merge_config merge = {
            .self = cluster->self, .seed = seeds[2], .vector = sync_vector(cluster->sync)};

        rc = merge_create(&cluster->merge, &merge);
    }
    if (rc == 0 && (rc = cut_create(&cluster->cut, seeds[3])) == 0 &&
        (rc = probe_create(&cluster->probe, &probe, cluster_now(cluster))) == 0 &&
        (rc = members_create(&cluster->members)) == 0 && (rc = twin_open(cluster)) == 0 &&
        (rc = orders_open(cluster, seeds[3])) == 0)
        rc = bodies_open(cluster);
    return rc;
}

/* Where others reach us: as told, or the one address that we listen on; else found out later. */
static int know_address(struct cluster *cluster, const struct cluster_config *config)
{
    struct link_address bound;

    if (config->advertise_addr) {
        if (strlen(config->advertise_addr) > MEMBER_ADDRESS_BYTES)
            return ERR_TOO_BIG;
        (void)snprintf(cluster->advertise, sizeof cluster->advertise, "%s", config->advertise_addr);
        cluster->advertise_given = true;
    } else if (link_address_parse(&bound, link_address(cluster->link)) == 0 && !bound.any) {
        (void)snprintf(cluster->advertise, sizeof cluster->advertise, "%s", bound.text);
    }
    return 0;
}

static int add_seeds(struct cluster *cluster, const struct cluster_config *config)
{
    for (size_t i = 0; i < config->seed_count; i++) {
        struct probe_input input = {.kind = PROBE_SEED,
                                    .seed = {config->seeds[i], (uint32_t)strlen(config->seeds[i])}};

        if (input.seed.len > MEMBER_ADDRESS_BYTES)
            return ERR_TOO_BIG;
        peer_probe(cluster, &input);
    }
    return 0;
}

/* A build that does not understand what its cluster has agreed on would get its facts wrong. */
static int check_level(struct cluster *cluster, char *message, size_t cap)
{
    if (cluster->level <= FEATURE_LEVEL)
        return 0;
    (void)snprintf(message, cap,
                   "the cluster's feature level is %u, and this build understands levels up to %u: "
                   "a newer one is needed",
                   cluster->level, (unsigned)FEATURE_LEVEL);
    return ERR_FORMAT;
}

static unsigned outbox_copies(const struct cluster_config *config)
{
    return config->outbox_copies ? config->outbox_copies : OUTBOX_COPIES;
}

static int open_uploader(struct cluster *cluster, const struct cluster_config *config)
{
    const struct uploader_config uploader = {.journal = cluster->journal,
                                             .cluster = cluster,
                                             .copies = cluster->copies,
                                             .env = cluster->env,
                                             .cloud = cluster->cloud,
                                             .prefix = config->cloud_prefix,
                                             .outbox_copies = outbox_copies(config),
                                             .writeback = config->writeback};

    return uploader_create(&cluster->uploader, &uploader);
}

int cluster_open(struct cluster **out, const struct cluster_config *config, char *message,
                 size_t cap)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);
    int rc = ERR_NO_MEMORY;

    *out = NULL;
    *message = '\0';
    if (!cluster)
        return rc;
    assert(strlen(config->tag) <= LIMIT_WIRE_TAG_BYTES);
    cluster->journal = config->journal;
    cluster->env = config->env;
    cluster->cloud_prefix = config->cloud_prefix;
    cluster->self = journal_node(config->journal);
    (void)snprintf(cluster->tag, sizeof cluster->tag, "%s", config->tag);
    cluster->alone = true;
    cluster->on_displaced = config->on_displaced;
    cluster->on_displaced_arg = config->on_displaced_arg;
    cluster->level = 1;
    if (config->replaces)
        cluster->replaces = *config->replaces;
    pthread_mutex_init(&cluster->lock, NULL);
    pthread_condattr_t clock;
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&cluster->answered, &clock);
    (void)pthread_condattr_destroy(&clock);
    buf_init(&cluster->frame, LIMIT_WIRE_BYTES);
    buf_init(&cluster->pack_frame, LIMIT_WIRE_BYTES);
    cluster->peers = calloc(LIMIT_PEERS, sizeof *cluster->peers);
    if (!cluster->peers)
        goto out;
    rc = config->cloud ? cloud_guard_create(&cluster->cloud, config->cloud, cluster->env) : 0;
    if (rc == 0)
        rc = replicator_create(&cluster->replicator, cluster->journal, cluster, cluster->env);
    if (rc == 0)
        rc = copies_create(&cluster->copies, cluster->journal, outbox_copies(config));
    if (rc == 0)
        rc = drainer_create(&cluster->drainer, cluster->journal, cluster, cluster->env,
                            config->state_dir);
    if (rc == 0 && config->cloud)
        rc = open_uploader(cluster, config);
    if (rc)
        goto out;
    const struct pool_context context = {open_reader, close_reader, cluster};
    if ((rc = pool_start(&cluster->pool, "cluster-read", POOL_WORKERS, POOL_CAPACITY, &context)) !=
            0 ||
        (rc = places_create(&cluster->places, cluster->env, cluster->pool, CLUSTER_PORT)) != 0 ||
        (rc = open_link(cluster, config, message, cap)) != 0 ||
        (rc = know_address(cluster, config)) != 0 || (rc = open_cores(cluster)) != 0 ||
        (rc = cluster_load(cluster)) != 0 || (rc = check_level(cluster, message, cap)) != 0 ||
        (rc = add_seeds(cluster, config)) != 0)
        goto out;
    journal_listen(config->journal, cluster_listen, cluster);
    journal_on_damage(config->journal, cluster_damage, cluster);
    journal_listen_copies(config->journal, cluster_listen_copies, cluster);
    peer_standing(cluster);
    peer_view(cluster);
    *out = cluster;
    return 0;
out:
    if (!*message)
        (void)snprintf(message, cap, "cannot join a cluster: %s", err_text(rc));
    cluster_close(&cluster);
    return rc;
}

void cluster_close(struct cluster **cluster_ptr)
{
    struct cluster *cluster = *cluster_ptr;

    if (!cluster)
        return;
    assert(!cluster->running);
    drainer_destroy(&cluster->drainer);
    uploader_destroy(&cluster->uploader);
    replicator_destroy(&cluster->replicator);
    copies_destroy(&cluster->copies);
    pool_stop(&cluster->pool);
    take_deliveries(cluster);
    cloud_destroy(&cluster->cloud);
    probe_destroy(&cluster->probe);
    merge_destroy(&cluster->merge);
    cut_destroy(&cluster->cut);
    sync_destroy(&cluster->sync);
    fetch_destroy(&cluster->fetches);
    serve_destroy(&cluster->serve);
    notes_destroy(&cluster->notes);
    members_destroy(&cluster->members);
    twins_destroy(&cluster->twins);
    places_destroy(&cluster->places);
    link_close(&cluster->link);
    secret_release(&cluster->secret);
    buf_release(&cluster->frame);
    buf_release(&cluster->pack_frame);
    for (size_t i = 0; i < cluster->peer_count; i++)
        buf_release(&cluster->peers[i].pack);
    free(cluster->peers);
    free(cluster->news);
    (void)pthread_cond_destroy(&cluster->answered);
    pthread_mutex_destroy(&cluster->lock);
    free(cluster);
    *cluster_ptr = NULL;
}

const char *cluster_address(const struct cluster *cluster)
{
    return link_address(cluster->link);
}

/* ---- Looking at it ---- */

void cluster_stats(struct cluster *cluster, struct cluster_stats *out)
{
    struct replicator_stats replicator;

    pthread_mutex_lock(&cluster->lock);
    *out = cluster->stats;
    pthread_mutex_unlock(&cluster->lock);
    replicator_stats(cluster->replicator, &replicator);
    out->wanted = replicator.wanted;
    out->wanted_bytes = replicator.wanted_bytes;
    out->replicated = replicator.done;
    copies_stats(cluster->copies, &out->acks);
    pull_stats(cluster, &out->cloud);
    /* What doors act on already. */
    out->health = cluster_health(cluster);
    out->clock_is_skewed = cluster_clock_is_skewed(cluster);
}

size_t cluster_members(struct cluster *cluster, struct cluster_member *out, size_t max)
{
    pthread_mutex_lock(&cluster->lock);
    size_t count = cluster->view_count < max ? cluster->view_count : max;

    memcpy(out, cluster->view, count * sizeof *out);
    pthread_mutex_unlock(&cluster->lock);
    return count;
}

struct drainer *cluster_drainer(struct cluster *cluster)
{
    return cluster->drainer;
}

bool cluster_is_alone(struct cluster *cluster)
{
    return atomic_load_explicit(&cluster->alone, memory_order_relaxed);
}

struct copies *cluster_copies(struct cluster *cluster)
{
    return cluster->copies;
}

struct uploader *cluster_uploader(struct cluster *cluster)
{
    return cluster->uploader;
}

enum probe_health cluster_health(struct cluster *cluster)
{
    return (enum probe_health)atomic_load_explicit(&cluster->health, memory_order_relaxed);
}

bool cluster_clock_is_skewed(struct cluster *cluster)
{
    return atomic_load_explicit(&cluster->clock_is_skewed, memory_order_relaxed);
}

unsigned cluster_joined(struct cluster *cluster)
{
    return atomic_load_explicit(&cluster->joined, memory_order_relaxed);
}
