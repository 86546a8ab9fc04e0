/*
 * What goes wrong: each seed has its own mixture, and a time between two troubles. Everything ends
 * by itself after a while, or is ended by trouble_heal before a check.
 */
#include "journal/journal_internal.h"
#include "journal/ulid.h"
#include "tests/cluster_sim/world.h"

#include <stdlib.h>

#define TROUBLE_EVERY (4 * MINUTE)

static struct {
    uint64_t cut_until, rough_until;
    uint64_t wipe_after;
    unsigned wipes;
} trouble;

static struct node *some_up(void)
{
    struct node *node = &world.nodes[dice(NODES)];

    return node->up ? node : NULL;
}

/* ---- Processes ---- */

static void kill_one(void)
{
    struct node *node = some_up();
    bool power = dice(2), inside = dice(3) != 0;

    if (!node)
        return;
    /* Mostly back at once, sometimes after longer than others remember connections. */
    node->start_at = NEVER;
    tell("trouble: node %u dies (%s, %s)", node->index, power ? "power" : "killed",
         inside ? "in a call" : "between two");
    node_kill(node, power ? SIM_POWER : SIM_KILL, inside);
    if (!node->up && dice(4) == 0)
        node->start_at = world.now + around(20 * MINUTE);
}

static void kill_many(void)
{
    for (unsigned i = 0; i < NODES; i++)
        if (world.nodes[i].up && dice(2))
            node_kill(&world.nodes[i], SIM_POWER, false);
}

static void restart(void)
{
    struct node *node = some_up();

    if (!node)
        return;
    node_halt(node);
    if (!node->up && node->start_at == NEVER)
        node->start_at = world.now + 100 * MS + around(dice(4) ? 5 * SECOND : 10 * MINUTE);
}

static void stall(void)
{
    struct node *node = some_up();

    if (!node)
        return;
    node->stalled_until = world.now + around(20 * SECOND);
    atomic_fetch_add(&world.counts->stalls, 1);
    tell("trouble: node %u stalls", node->index);
}

/* ---- Disks ---- */

static void slow(void)
{
    struct node *node = &world.nodes[dice(NODES)];

    node->slow_disk = !node->slow_disk;
}

/* Calls fail for a while; or one sync does, and what it was to make durable is in doubt. */
static void break_disk(void)
{
    struct node *node = some_up();

    if (!node)
        return;
    if (dice(3))
        node->full_until = world.now + around(20 * SECOND);
    else
        node->fail_sync = true;
    tell("trouble: node %u's disk %s", node->index,
         node->fail_sync ? "fails a sync" : "refuses to write");
}

/* An operator restarts a node that takes no more writes. */
static void help_read_only(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &world.nodes[i];

        if (node->up && node->faulty && atomic_load(&node->sim.journal->read_only) &&
            (world.quiet || dice(2)))
            node_kill(node, dice(2) ? SIM_POWER : SIM_KILL, false);
    }
}

/* What the other nodes have of what is about to be lost here. */
static void look_around(const struct node *except)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &world.nodes[i];

        if (node == except || !node->up)
            continue;
        for (size_t k = 0; k < world.key_count; k++) {
            struct object *row = NULL;

            if (journal_find(node->sim.journal, node->sim.reader, &world.keys[k].id, &row) == 0)
                key_seen(&world.keys[k], i, row);
            object_destroy(&row);
        }
    }
}

/* The number of the node with this id; NODES: none, or its disk was changed since the last check,
 * so that what it said before does not count. */
static unsigned node_of(const struct id128 *id, const struct node *except)
{
    unsigned i = 0;

    while (i < NODES && (!id_equal(&world.nodes[i].self, id) || &world.nodes[i] == except))
        i++;
    return i < NODES && world.nodes[i].fresh_disk ? NODES : i;
}

/* The row by which NODE counts KEY's copies, as db_reader_copies does: of what the cloud knows,
 * which its author may have adopted without the bytes, only what its views know. The drop that came
 * before such a put is in them with it, and may still be pending where the row is. */
static int counted_row(struct node *node, const struct key *key, struct object **row)
{
    int rc = journal_find(node->sim.journal, node->sim.reader, &key->id, row);

    if (rc || !((*row)->flags & OBJECT_CLOUD))
        return rc;
    object_destroy(row);
    return db_find(node->sim.reader, &key->id, row);
}

/* NODE, whose disk is about to go, has been told of copies by those who made them: these are what
 * its acknowledgements beyond its own disk rest on (202 after the second copy), and stay. */
static void note_holders(struct node *node)
{
    for (size_t k = 0; k < world.key_count; k++) {
        struct id128 holders[LIMIT_FETCH_HOLDERS];
        struct key *key = &world.keys[k];
        struct object *row = NULL;
        size_t count = 0;

        if (counted_row(node, key, &row) != 0)
            continue;
        if ((row->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT &&
            db_reader_holders(node->sim.reader, row, holders, LIMIT_FETCH_HOLDERS, &count) == 0)
            for (size_t i = 0; i < count; i++)
                key_held(key, node_of(&holders[i], node), row);
        object_destroy(&row);
    }
}

struct forgetting {
    struct change change; /* first */
    struct event event;
};

static void forgotten(struct change *change)
{
    object_destroy(&change->object);
    free(change);
}

/* The operator tells the cluster that a node is gone for good. */
static void forget_member(const struct id128 *gone)
{
    struct node *node = NULL;

    for (unsigned i = 0; i < NODES; i++) {
        if (id_equal(&world.nodes[i].self, gone))
            return; /* another copy of it goes on */
        if (world.nodes[i].up)
            node = &world.nodes[i];
    }
    if (!node)
        return;
    struct forgetting *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    world.at = node;
    f->event = (struct event){.kind = EVENT_MEMBER,
                              .fields = EVENT_HAS_MEMBER,
                              .subject = *gone,
                              .member_state = MEMBER_FORGOTTEN};
    f->change.request.kind = CHANGE_FACT;
    f->change.fact = &f->event;
    f->change.done = forgotten;
    if (journal_submit(node->sim.journal, &f->change) != 0)
        free(f);
    node_arm(node);
    atomic_fetch_add(&world.counts->forgotten, 1);
}

static bool may_wipe(const struct node *node)
{
    unsigned others = 0;

    for (unsigned i = 0; i < NODES; i++)
        others += world.nodes[i].up && &world.nodes[i] != node;
    return others >= 2 && world.now >= trouble.wipe_after &&
           trouble.wipes < 4 + world.until / (2 * HOUR);
}

static void wipe(void)
{
    struct node *node = some_up();

    if (!node || !may_wipe(node))
        return;
    note_holders(node);
    node_kill(node, SIM_POWER, false);
    look_around(node);
    cloud_disk_lost(node);
    trouble.wipes++;
    trouble.wipe_after = world.now + 20 * MINUTE;
    node->start_at = world.now + SECOND + around(MINUTE);
    node->fresh_disk = true;
    if (node->backup && dice(2)) {
        tell("trouble: node %u goes back to an old backup", node->index);
        keys_restore(node->index);
        node_replace_disk(node, sim_disk_copy(node->backup));
        atomic_fetch_add(&world.counts->restores, 1);
        return;
    }
    tell("trouble: node %u loses its disk", node->index);
    keys_wipe(node->index);
    sim_disk_destroy(&node->backup); /* of a node that is forgotten now */
    node_replace_disk(node, NULL);
    atomic_fetch_add(&world.counts->wipes, 1);
    const struct id128 gone = node->self;
    node->self = (struct id128){{0}};
    forget_member(&gone);
}

/* Somebody copies one node's directories to another's machine, and starts both. */
static void copy_node(void)
{
    struct node *from = some_up(), *to = some_up();

    if (!from || !to || from == to || !may_wipe(to))
        return;
    note_holders(to);
    node_kill(to, SIM_POWER, false);
    look_around(to);
    cloud_disk_lost(to);
    trouble.wipes++;
    trouble.wipe_after = world.now + 20 * MINUTE;
    if (dice(2))
        node_kill(from, SIM_POWER, false);
    else
        node_halt(from);
    if (from->up)
        return;
    tell("trouble: node %u becomes a copy of node %u", to->index, from->index);
    keys_clone(to->index, from->index);
    sim_disk_destroy(&to->backup);
    node_replace_disk(to, sim_disk_copy(from->sim.disk));
    atomic_fetch_add(&world.counts->clones, 1);
    to->fresh_disk = from->fresh_disk = true;
    const struct id128 gone = to->self;
    to->self = from->self;
    forget_member(&gone);
    to->start_at = world.now + SECOND + around(30 * SECOND);
    from->start_at = world.now + SECOND + around(30 * SECOND);
}

static void back_up(void)
{
    struct node *node = some_up();

    if (!node)
        return;
    node_halt(node);
    if (node->up)
        return;
    keys_backup(node->index);
    sim_disk_destroy(&node->backup);
    node->backup = sim_disk_copy(node->sim.disk);
    node->start_at = world.now + SECOND;
    tell("node %u is backed up", node->index);
}

/* ---- Network ---- */

static void cut(void)
{
    unsigned side = 1 + (unsigned)dice((1u << NODES) - 2), both = dice(4) != 0;

    for (unsigned a = 0; a < NODES; a++)
        for (unsigned b = 0; b < NODES; b++)
            if ((side >> a & 1) > (side >> b & 1)) {
                world.paths[a][b].cut = true;
                if (both)
                    world.paths[b][a].cut = true;
            }
    trouble.cut_until = world.now + around(dice(3) ? 2 * MINUTE : 25 * MINUTE);
    atomic_fetch_add(&world.counts->cuts, 1);
    tell("trouble: the network is cut, %#x from the others%s", side,
         both ? "" : " in one direction");
}

static void rough(void)
{
    for (unsigned a = 0; a < NODES; a++)
        for (unsigned b = 0; b < NODES; b++) {
            struct path *path = &world.paths[a][b];

            if (dice(3) == 0)
                continue;
            path->loss = dice(2) ? (unsigned)dice(60) : (unsigned)dice(400);
            path->twice = (unsigned)dice(60);
            path->swap = (unsigned)dice(100);
            path->delay_ns = around(dice(2) ? 5 * MS : 150 * MS);
            path->jitter_ns = around(dice(2) ? 5 * MS : 150 * MS);
        }
    trouble.rough_until = world.now + around(5 * MINUTE);
    tell("trouble: the network is rough");
}

static void mend(bool all)
{
    bool cuts = all || (trouble.cut_until && trouble.cut_until <= world.now);
    bool rest = all || (trouble.rough_until && trouble.rough_until <= world.now);

    for (unsigned a = 0; a < NODES; a++)
        for (unsigned b = 0; b < NODES; b++) {
            struct path *path = &world.paths[a][b];

            if (cuts)
                path->cut = false;
            if (rest) {
                path->loss = path->twice = path->swap = 0;
                path->delay_ns = MS / 4;
                path->jitter_ns = MS / 2;
            }
        }
    if (cuts)
        trouble.cut_until = 0;
    if (rest)
        trouble.rough_until = 0;
}

/* ---- Clocks ---- */

static void jump(void)
{
    struct node *node = &world.nodes[dice(NODES)];
    int64_t by = (int64_t)(dice(3) ? around(20 * SECOND) : around(3 * HOUR));

    node->skew_ns = dice(2) ? by : -by;
    node->drift_ppm = (int64_t)dice(400) - 200;
    atomic_fetch_add(&world.counts->jumps, 1);
    tell("trouble: node %u's clock is %lld ms off", node->index,
         (long long)(node->skew_ns / 1000000));
}

/* ---- All ---- */

static const struct {
    void (*begin)(void);
    unsigned weight;
} troubles[] = {
    {kill_one, 30}, {kill_many, 3},  {restart, 10},   {stall, 6},        {slow, 4},
    {wipe, 8},      {copy_node, 6},  {back_up, 6},    {cut, 22},         {rough, 15},
    {jump, 10},     {break_disk, 8}, {cloud_away, 8}, {cloud_rough, 12},
};

void trouble_step(void)
{
    unsigned total = 0, at = 0;

    mend(false);
    help_read_only();
    for (size_t i = 0; i < sizeof troubles / sizeof *troubles; i++)
        total += troubles[i].weight;
    uint64_t drawn = dice(total);
    while (drawn >= troubles[at].weight)
        drawn -= troubles[at++].weight;
    troubles[at].begin();
    /* Some come together. */
    world.trouble_at = world.now + (dice(4) ? around(TROUBLE_EVERY) : around(5 * SECOND));
}

void trouble_heal(void)
{
    mend(true);
    if (!world.day || world.now >= world.until)
        cloud_heal();
    help_read_only();
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &world.nodes[i];

        node->die_at = 0;
        node->stalled_until = 0;
        node->full_until = 0;
        node->fail_sync = false;
        node->slow_disk = false;
        if (!node->up)
            node->start_at = world.now + 1 + dice(SECOND);
    }
}
