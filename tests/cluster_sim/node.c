/*
 * One node of the simulated cluster: its start as cmd/node.c does it, its steps, and its ends.
 *
 * A step runs when it is due. What makes one due is what wakes the thread in production: a queue
 * that is not empty, a batch to apply, a call of link_wake; node_arm looks at these after each
 * step. Delays are drawn, so that any order that threads could come to is come to.
 *
 * A death (its disk is dead, from some call on) lets the code run on to the end of its step, heard
 * and seen by nobody; then the process is cleared away with the same calls that end it in order,
 * which find that nothing works any more.
 */
#include "journal/journal_internal.h"
#include "journal/ulid.h"
#include "storage/log_internal.h"
#include "tests/cluster_sim/world.h"

#include <stdio.h>
#include <stdlib.h>

#define DISK_BYTES  (4 * GIB)
#define LIVELY      (4 * SECOND)
#define UPKEEP_IDLE (60 * SECOND)
#define MAX_STEPS   100000

static uint64_t wall_ns(struct env *env)
{
    const struct node *node = env->arg;

    return (uint64_t)((int64_t)(UINT64_C(1700000000) * SECOND + world.now) + node->skew_ns +
                      (int64_t)(world.now / 1000000) * node->drift_ppm);
}

static uint64_t mono_ns(struct env *env)
{
    const struct node *node = env->arg;

    return world.now + SECOND + node->index * 1000 * MS;
}

static void random_bytes(struct env *env, void *buf, size_t len)
{
    uint8_t *at = buf;

    (void)env;
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)sim_dice(&world.dice);
}

static enum sim_fate gate(struct sim_disk *disk, enum sim_op op, const char *path, int *rc)
{
    struct node *node = disk->arg;

    (void)path;
    if (op != SIM_READ && node->die_at && disk->calls >= node->die_at) {
        disk->kind = node->death;
        return SIM_DIE;
    }
    if (!node->up)
        return SIM_PASS;
    bool grows = op == SIM_WRITE || op == SIM_CREATE || op == SIM_LINK;
    bool syncs = op == SIM_FDATASYNC || op == SIM_FSYNC;
    if ((grows && world.now < node->full_until && dice(3) == 0) || (syncs && node->fail_sync)) {
        *rc = grows ? ERR_NO_SPACE : ERR_IO;
        node->fail_sync &= !syncs;
        node->faulty = true;
        atomic_fetch_add(&world.counts->faults, 1);
        return SIM_FAIL;
    }
    return SIM_PASS;
}

static struct sim_disk *new_disk(struct node *node)
{
    struct sim_disk *disk = sim_disk_create(dice(NEVER), DISK_BYTES);

    disk->gate = gate;
    disk->arg = node;
    return disk;
}

void node_replace_disk(struct node *node, struct sim_disk *disk)
{
    if (!disk)
        disk = new_disk(node);
    disk->gate = gate;
    disk->arg = node;
    sim_disk_destroy(&node->sim.disk);
    node->sim.disk = disk;
    node->disks++;
    node->sim.env.io = &disk->io;
}

void node_init(struct node *node)
{
    node->sim.disk = new_disk(node);
    node->sim.env = (struct env){.io = &node->sim.disk->io,
                                 .wall_ns = wall_ns,
                                 .mono_ns = mono_ns,
                                 .random = random_bytes,
                                 .arg = node};
    node->start_at = NEVER;
    for (unsigned i = 0; i < STEPS; i++)
        node->due[i] = NEVER;
    (void)snprintf(node->address, sizeof node->address, "10.0.0.%u:11999", node->index + 1);
}

/* ---- Starting ---- */

/* Of events, from which on they are compacted: often, so that nodes that were away have to merge.
 */
static uint64_t compact_bytes(void)
{
    static const uint64_t choice[] = {2000, 20000, 400, 100000};

    return choice[world.seed % 4];
}

static int open_journal(struct node *node)
{
    struct sim *sim = &node->sim;
    struct journal_config config = {.dirs = &sim->dirs,
                                    .sync = true,
                                    .segment_bytes = world.seed % 2 ? 64 * KIB : 512 * KIB,
                                    .compact_bytes = compact_bytes()};
    int rc = store_dirs_open(&sim->dirs, &sim->env, SIM_STATE, SIM_FILES, node->accept_loss,
                             sim->message, sizeof sim->message);

    if (rc)
        return rc;
    rc = doors_prepare(node);
    config.ram = node->ram;
    if (rc == 0)
        rc = journal_open(&sim->journal, &config, sim->message, sizeof sim->message);
    return rc ? rc : journal_reader_open(sim->journal, &sim->reader);
}

static void displaced(void *arg)
{
    struct node *node = arg;

    node->displaced = true;
}

/* What objctl journal new-node-id does with a copy. */
static int rename_node(struct node *node)
{
    struct sim *sim = &node->sim;
    struct journal_config config = {.dirs = &sim->dirs, .sync = true, .new_node = true};
    struct id128 id;
    int rc = store_dirs_open(&sim->dirs, &sim->env, SIM_STATE, SIM_FILES, false, sim->message,
                             sizeof sim->message);

    if (rc == 0)
        rc = journal_open(&sim->journal, &config, sim->message, sizeof sim->message);
    if (rc == 0) {
        rc = journal_new_node(sim->journal, &id);
        journal_stop(sim->journal);
    }
    journal_close(&sim->journal);
    store_dirs_close(&sim->dirs);
    return rc;
}

static int open_cluster(struct node *node)
{
    const char *seeds[2];
    unsigned first = (unsigned)dice(NODES - 1) + 1;
    struct cluster_config config = {.journal = node->sim.journal,
                                    .env = &node->sim.env,
                                    .tag = "sim",
                                    .private_addr = node->address,
                                    .seeds = seeds,
                                    .on_displaced = displaced,
                                    .on_displaced_arg = node,
                                    .cloud = node->cloud,
                                    .seed_count = 2};

    for (unsigned i = 0; i < 2; i++)
        seeds[i] = world.nodes[(node->index + first + i * (1 + dice(NODES - 2))) % NODES].address;
    node->cloud = config.cloud = cloud_new(node);
    int rc = cluster_open(&node->cluster, &config, node->sim.message, sizeof node->sim.message);
    if (rc == 0)
        rc = replicator_open(node->cluster->replicator);
    if (rc == 0)
        rc = uploader_open(node->cluster->uploader);
    return rc ? rc : doors_open(node);
}

/* Free what there is of it. */
static void release(struct node *node)
{
    struct sim *sim = &node->sim;

    doors_close(node);
    db_reader_close(&sim->reader);
    cluster_close(&node->cluster);
    cloud_destroy(&node->cloud);
    journal_close(&sim->journal);
    doors_release(node);
    store_dirs_close(&sim->dirs);
    node->up = false;
    for (unsigned i = 0; i < STEPS; i++)
        node->due[i] = NEVER;
}

/* Whoever told others of an event has it for good: nothing leaves a node before its sync. */
static void check_told(struct node *node)
{
    const struct vector *own = sync_vector(node->cluster->sync);

    for (unsigned i = 0; i < NODES; i++) {
        const struct node *other = &world.nodes[i];
        const struct vector_run *run = NULL;

        if (other == node || !other->up)
            continue;
        const struct vector *theirs = sync_vector(other->cluster->sync);
        while ((run = vector_after(theirs, run ? &run->origin : NULL, VECTOR_ALL)) != NULL) {
            const struct vector_run *mine = vector_find(own, &run->origin);

            if (id_equal(&run->node, &node->self) && (!mine || mine->seq < run->seq))
                fail("node %u has lost events of its own that node %u knows: %llu of %llu",
                     node->index, i, (unsigned long long)(mine ? mine->seq : 0),
                     (unsigned long long)run->seq);
        }
    }
}

void node_start(struct node *node)
{
    world.at = node;
    node->faulty = node->fail_sync = node->displaced = false;
    node->full_until = 0;
    node->life++;
    node->start_at = NEVER;
    node->stalled_until = 0;
    int rc = node->rename ? rename_node(node) : 0;
    if (rc == 0 && !node->sim.disk->dead)
        node->rename = false;
    if (rc == 0)
        rc = open_journal(node);
    if (rc == 0)
        rc = open_cluster(node);
    if (node->sim.disk->dead) {
        node_bury(node);
        return;
    }
    if (rc)
        fail("node %u does not start: %s (%s)", node->index, node->sim.message, err_text(rc));
    node->accept_loss = false;
    node->up = true;
    node->self = journal_node(node->sim.journal);
    /* A backup or a copy may bring an id back that another process bears now: both have written
     * under it, then, and each may lack what the other wrote. */
    for (unsigned i = 0; node->fresh_disk && i < NODES; i++)
        world.nodes[i].fresh_disk |= id_equal(&world.nodes[i].self, &node->self);
    if (!node->fresh_disk)
        check_told(node);
    node->due[STEP_TURN] = world.now + dice(20 * MS);
    node->due[STEP_REPLICATE] = world.now + dice(20 * MS);
    node->due[STEP_UPLOAD] = world.now + dice(20 * MS);
    node->due[STEP_UPKEEP] = world.now + dice(200 * MS);
    node->lively_until = world.now + LIVELY;
    node->checkpoint_at = world.now + 5 * SECOND;
    tell("node %u starts (life %u)", node->index, node->life);
    node_arm(node);
}

/* ---- Ending ---- */

static void take_all(struct node *node)
{
    struct journal *journal = node->sim.journal;

    while (workers_have(node))
        workers_take(node);
    while (node->cloud && cloud_due(node) <= world.now)
        cloud_take(node);
    (void)journal_commit_step(journal);
    (void)journal_apply_step(journal);
}

/* Leave the cluster and stop, as cmd/node.c does. */
static void wind_up(struct node *node)
{
    struct cluster *cluster = node->cluster;
    unsigned steps = 0;

    world.at = node;
    if (cluster) {
        uploader_cancel(cluster->uploader);
        while (!uploader_close_step(cluster->uploader)) {
            (void)cluster_step(cluster);
            take_all(node);
            if (++steps > MAX_STEPS)
                fail("node %u: its uploads do not end", node->index);
        }
        steps = 0;
        replicator_cancel(cluster->replicator);
        while (!replicator_close_step(cluster->replicator)) {
            (void)cluster_step(cluster);
            take_all(node);
            if (++steps > MAX_STEPS)
                fail("node %u: its copies do not end", node->index);
        }
        cluster_leave(cluster);
        cloud_hang_up(node); /* as cloud_guard_close does */
        while (!cluster_leave_step(cluster)) {
            take_all(node);
            if (++steps > 2 * MAX_STEPS)
                fail("node %u: its cluster does not end (%u under way)", node->index,
                     cluster->under_way);
        }
        lend_close(cluster);
        take_all(node);
    }
}

void node_halt(struct node *node)
{
    struct sim *sim = &node->sim;

    wind_up(node);
    if (!sim->disk->dead)
        journal_stop(sim->journal);
    if (sim->disk->dead) {
        node_bury(node);
        return;
    }
    clients_forget(node);
    release(node);
    sim_disk_restart(sim->disk, SIM_KILL);
    atomic_fetch_add(&world.counts->stops, 1);
    tell("node %u has stopped", node->index);
}

void node_bury(struct node *node)
{
    struct sim *sim = &node->sim;
    bool served = node->up;

    world.at = node;
    sim->disk->dead = true; /* for good: what follows does nothing */
    cloud_died(node);
    if (served) {
        wind_up(node);
        for (int i = 0;
             i < 64 && (journal_commit_step(sim->journal) || committer_holds(sim->journal)); i++)
            ;
        clients_forget(node);
    } else if (node->cluster && node->cluster->replicator) {
        while (node->cluster && workers_have(node))
            workers_take(node);
    }
    release(node);
    node->die_at = 0;
    sim_disk_restart(sim->disk, sim->disk->kind);
    atomic_fetch_add(sim->disk->kind == SIM_POWER ? &world.counts->powers : &world.counts->kills,
                     1);
    tell("node %u is dead (%s)", node->index, sim->disk->kind == SIM_POWER ? "power" : "killed");
    if (node->start_at == NEVER)
        node->start_at = world.now + SECOND + around(30 * SECOND);
}

void node_kill(struct node *node, enum sim_crash how, bool inside)
{
    node->death = how;
    if (inside) {
        node->die_at = node->sim.disk->calls + 1 + dice(40);
        return;
    }
    node->sim.disk->kind = how;
    node->sim.disk->dead = true;
    node_bury(node);
}

void node_release(struct node *node)
{
    sim_disk_destroy(&node->sim.disk);
    sim_disk_destroy(&node->backup);
}

/* ---- Steps ---- */

static bool cluster_is_busy(const struct node *node)
{
    const struct cluster *c = node->cluster;
    struct fetch_stats fetch;
    struct serve_stats serve;

    if (c->waiting || c->delivered || c->readers || c->failed_count || c->unread_count ||
        c->reading_count || c->under_way || sync_busy(c->sync))
        return true;
    for (size_t i = 0; i < c->peer_count; i++)
        if (!c->peers[i].member || (c->peers[i].alive && !c->peers[i].digest_equal))
            return true;
    fetch_stats(c->fetches, &fetch);
    serve_stats(c->serve, &serve);
    return fetch.active || serve.active || serve.reading;
}

static void turn(struct node *node)
{
    struct cluster *cluster = node->cluster;

    if (!cluster_step(cluster))
        fail("node %u: its link has failed", node->index);
    if (node->sim.disk->dead)
        return;
    uint64_t wait = link_patience(node->link) * MS;

    if (link_has_frames(node->link)) {
        wait = MS / 10;
    } else if (!cluster_is_busy(node)) {
        /* Nothing but probes: turns that would find nothing to do are left out. */
        uint64_t mono = mono_ns(&node->sim.env), next = probe_next_ms(cluster->probe) * MS;

        wait = next > mono ? next - mono : 0;
        if (wait > PAUSE_MAX)
            wait = PAUSE_MAX;
    }
    if (wait < MS / 10)
        wait = MS / 10;
    if (node->due[STEP_TURN] > world.now + wait)
        node->due[STEP_TURN] = world.now + wait;
    atomic_fetch_add(&world.counts->turns, 1);
}

static void commit(struct node *node)
{
    if (journal_commit_step(node->sim.journal) == 0)
        return;
    node->lively_until = world.now + LIVELY;
    node->checkpoint_at = world.now + 4 * SECOND;
    node->due[STEP_MARK] = world.now + 50 * MS + dice(100 * MS);
}

static void upkeep(struct node *node)
{
    uint64_t wait = journal_upkeep_step(node->sim.journal) ? MS
                    : world.now < node->lively_until       ? 200 * MS
                                                           : UPKEEP_IDLE / 2 + dice(UPKEEP_IDLE);

    node->due[STEP_UPKEEP] = world.now + wait;
}

static void replicate(struct node *node)
{
    uint64_t until_ms = replicator_step(node->cluster->replicator);
    uint64_t mono = mono_ns(&node->sim.env);

    /* Without anything that could be copied, the thread only looks again now and then. */
    if (until_ms == 0)
        node->due[STEP_REPLICATE] = world.now + dice(MS);
    else if (until_ms == UINT64_MAX)
        node->due[STEP_REPLICATE] = world.now + REPLICA_SWEEP_MAX_MS * MS;
    else
        node->due[STEP_REPLICATE] =
            world.now + (until_ms * MS > mono ? until_ms * MS - mono : MS / 2);
}

static void upload(struct node *node)
{
    uint64_t until_ms = uploader_step(node->cluster->uploader);
    uint64_t mono = mono_ns(&node->sim.env);

    if (until_ms == 0)
        node->due[STEP_UPLOAD] = world.now + dice(MS);
    else if (until_ms == UINT64_MAX)
        node->due[STEP_UPLOAD] = world.now + OWED_SWEEP_MAX_MS * MS;
    else
        node->due[STEP_UPLOAD] = world.now + (until_ms * MS > mono ? until_ms * MS - mono : MS / 2);
}

static uint64_t disk_time(const struct node *node)
{
    return node->slow_disk && dice(8) == 0 ? around(SECOND) : 100000 + dice(4 * MS);
}

static void soon(struct node *node, enum step step, uint64_t wait)
{
    if (node->due[step] > world.now + wait)
        node->due[step] = world.now + wait;
}

void node_arm(struct node *node)
{
    struct journal *journal = node->sim.journal;

    if (!node->up)
        return;
    if (node->due[STEP_COMMIT] == NEVER &&
        (queue_length(journal->queue) || committer_holds(journal)))
        soon(node, STEP_COMMIT, disk_time(node));
    if (node->due[STEP_APPLY] == NEVER) {
        if (journal->apply_first ||
            (atomic_load(&journal->trimming) && !journal->applier.trim.after_ms))
            soon(node, STEP_APPLY, 2 * MS + (node->slow_disk ? around(SECOND) : dice(8 * MS)));
        else if (node->checkpoint_at)
            soon(node, STEP_APPLY,
                 node->checkpoint_at > world.now ? node->checkpoint_at - world.now : 0);
    }
    if (world.now < node->lively_until)
        soon(node, STEP_UPKEEP, 200 * MS);
    if (node->due[STEP_POOL] == NEVER && workers_have(node))
        soon(node, STEP_POOL, dice(3 * MS));
    if (node->due[STEP_REPLICATE] > world.now + MS && replicator_is_due(node->cluster->replicator))
        soon(node, STEP_REPLICATE, dice(MS));
    if (node->due[STEP_UPLOAD] > world.now + MS && uploader_is_due(node->cluster->uploader))
        soon(node, STEP_UPLOAD, dice(MS));
    node->due[STEP_CLOUD] = cloud_due(node);
}

uint64_t node_next(const struct node *node)
{
    uint64_t next = NEVER;

    if (!node->up)
        return node->start_at;
    for (unsigned i = 0; i < STEPS; i++)
        if (node->due[i] < next)
            next = node->due[i];
    return next < node->stalled_until ? node->stalled_until : next;
}

void node_take(struct node *node, enum step step)
{
    world.at = node;
    node->due[step] = NEVER;
    switch (step) {
    case STEP_TURN:
        turn(node);
        break;
    case STEP_COMMIT:
        commit(node);
        break;
    case STEP_MARK:
        committer_mark(node->sim.journal);
        break;
    case STEP_APPLY:
        if (node->checkpoint_at && node->checkpoint_at <= world.now &&
            !node->sim.journal->apply_first)
            node->checkpoint_at = 0;
        (void)journal_apply_step(node->sim.journal);
        break;
    case STEP_UPKEEP:
        upkeep(node);
        break;
    case STEP_POOL:
        workers_take(node);
        break;
    case STEP_REPLICATE:
        replicate(node);
        break;
    case STEP_UPLOAD:
        upload(node);
        break;
    case STEP_CLOUD:
        cloud_take(node);
        break;
    case STEPS:
        abort();
    }
    if (node->sim.disk->dead) {
        node_bury(node);
    } else if (node->displaced) {
        tell("node %u gives way to another process of its id", node->index);
        node_halt(node);
        node->rename = true;
        sim_disk_destroy(&node->backup); /* of the id that the other one keeps */
        if (node->start_at == NEVER)
            node->start_at = world.now + SECOND + around(20 * SECOND);
    } else {
        node_arm(node);
    }
}
