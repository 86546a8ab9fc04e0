/*
 * The end of some runs: all nodes lose their disks, and the bucket is left. What was live there is
 * found again by whoever asks for it with X-Meta-Fetch, from several nodes at once, with its bytes;
 * what was deleted is not.
 */
#include "journal/journal_internal.h"
#include "journal/ulid.h"
#include "tests/cluster_sim/world.h"

#include <stdlib.h>

#define ASKED 300 /* ids */

enum fate { UNKNOWN, LIVE, GONE };

static enum fate fate_of(struct key *key)
{
    struct node *node = &world.nodes[0];
    struct object *row = NULL;
    enum fate fate = UNKNOWN;

    int rc = journal_find(node->sim.journal, node->sim.reader, &key->id, &row);
    if (rc && rc != ERR_NOT_FOUND)
        fail("node %u: a look-up fails: %s", node->index, err_text(rc));
    /* What nobody knew to be in the cloud was not marked when it was deleted. */
    if (row && row->flags & OBJECT_DELETED)
        fate = row->flags & OBJECT_CLOUD || !cloud_holds(key) ? GONE : UNKNOWN;
    else if (row && row->level >= 1 && row->flags & OBJECT_UPLOADED && cloud_is_right(row) &&
             row->size && key_variant(key, row->sha256) == 0)
        fate = LIVE;
    object_destroy(&row);
    /* A node deleted it, said so to the client and to the cloud, and lost its disk while nobody
     * else had heard of it. The others went on with the object, but the client was told the truth:
     * once the bucket alone is asked, the mark counts. */
    if (fate == LIVE && cloud_mark_is_orphan(key)) {
        atomic_fetch_add(&world.counts->outlived, 1);
        fate = GONE;
    }
    return fate;
}

static bool all_are_up(void)
{
    struct cluster_member members[LIMIT_MEMBERS + 1];

    for (unsigned i = 0; i < NODES; i++) {
        unsigned alive = 0;

        if (!world.nodes[i].up)
            return false;
        size_t count = cluster_members(world.nodes[i].cluster, members, LIMIT_MEMBERS + 1);
        for (size_t k = 0; k < count; k++)
            alive += members[k].state == PROBE_ALIVE;
        if (alive < NODES)
            return false;
    }
    return true;
}

static void wipe_all(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &world.nodes[i];

        world.at = node;
        node_halt(node);
        sim_disk_destroy(&node->backup);
        node_replace_disk(node, NULL);
        keys_wipe(i);
        node->self = (struct id128){{0}};
        node->fresh_disk = true;
        node->start_at = world.now + 1 + dice(SECOND);
    }
    pass(world.now + 10 * MINUTE, all_are_up);
    if (!all_are_up())
        fail("five new nodes do not find each other");
}

static bool all_is_quiet(void)
{
    for (unsigned i = 0; i < NODES; i++)
        if (world.nodes[i].gets || world.nodes[i].adopting)
            return false;
    return true;
}

static void wait_for_quiet(void)
{
    pass(world.now + MINUTE, all_is_quiet);
    if (!all_is_quiet())
        fail("clients wait for a minute for what is in the cloud");
}

/* By one or several nodes at once, which all have to be told the same. */
static void look_for(struct key *key, enum fate fate)
{
    unsigned first = (unsigned)dice(NODES), nodes = dice(3) ? 1 : 1 + (unsigned)dice(NODES);
    unsigned before = cloud_gets(key);

    for (unsigned i = 0; i < nodes; i++) {
        struct node *node = &world.nodes[(first + i) % NODES];

        world.at = node;
        doors_adopt(node, key, fate == LIVE ? ADOPT_MUST : ADOPT_MUST_NOT);
        node_arm(node);
    }
    wait_for_quiet();
    if (fate != LIVE)
        return;
    struct node *node = &world.nodes[first];
    struct object *row = NULL;

    if (journal_find(node->sim.journal, node->sim.reader, &key->id, &row) != 0)
        fail("node %u forgets what it has just found in the cloud", first);
    world.at = node;
    if (place_is_none(&row->place)) /* level 2 may have brought it here already */
        doors_get(node, key, row, true);
    node_arm(node);
    /* The copies that level 2 asks for are being made at the same time, and no part of what clients
     * share. */
    bool copied = row->level == 2;
    object_destroy(&row);
    wait_for_quiet();
    if (!copied && cloud_gets(key) > before + 1)
        fail("one client had the cloud asked %u times", cloud_gets(key) - before);
    /* One node reads it for all, and has it then. */
    if (cloud_is_ancestors(key) && cloud_gets(key) != before + 1)
        fail("clients of %u nodes had the cloud asked %u times for what the ancestor put", nodes,
             cloud_gets(key) - before);
    atomic_fetch_add(&world.counts->refound, 1);
}

void wiped_check(void)
{
    uint8_t *fates = calloc(world.key_count + 1, 1);
    size_t first = world.key_count ? dice(world.key_count) : 0;

    if (!fates)
        abort();
    world.doing = "the wiped cluster";
    world.quiet = true;
    for (size_t k = 0; k < world.key_count; k++)
        fates[k] = (uint8_t)fate_of(&world.keys[k]);
    wipe_all();
    for (size_t k = 0; k < world.key_count && k < ASKED; k++) {
        size_t at = (first + k) % world.key_count;

        if (fates[at] != UNKNOWN)
            look_for(&world.keys[at], fates[at]);
    }
    free(fates);
}
