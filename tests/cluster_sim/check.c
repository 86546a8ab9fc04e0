/*
 * What has to hold once all trouble is over: the nodes agree, soon; whatever was acknowledged is
 * there as its acknowledgement promised; nothing deleted is back; every node has what is for every
 * node; and each store is as sound as tests/sim wants a single node's to be.
 */
#include "journal/conflict.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"
#include "tests/cluster_sim/world.h"

#include <inttypes.h>
#include <stdlib.h>

#define AGREE_WITHIN (25 * MINUTE)
#define READS        40 /* through peers, in each check */

static uint64_t looked_at, searched_at;

struct object *row_of(struct node *node, const struct key *key)
{
    struct object *row = NULL;
    int rc = journal_find(node->sim.journal, node->sim.reader, &key->id, &row);

    if (rc && rc != ERR_NOT_FOUND)
        fail("node %u: a look-up fails: %s", node->index, err_text(rc));
    return row;
}

/* ---- Agreement ---- */

static bool nodes_agree(const char **why)
{
    struct journal_stats first = {0}, stats;
    struct vector_sum sum = {0};

    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &world.nodes[i];

        *why = "a node is down";
        if (!node->up)
            return false;
        *why = "something is yet to be applied";
        journal_stats(node->sim.journal, &stats);
        if (stats.pending)
            return false;
        *why = "bytes that lost have no id of their own yet";
        if (stats.losers)
            return false;
        struct vector_sum own = vector_sum(sync_vector(node->cluster->sync), VECTOR_ALL);
        if (i == 0) {
            first = stats;
            sum = own;
        }
        *why = "vectors differ";
        if (!hash128_equal(&own.hash, &sum.hash))
            return false;
        *why = "digests differ";
        if (!hash128_equal(&stats.digest, &first.digest))
            return false;
    }
    return true;
}

/* Whether every node has the bytes of what is for every node, as far as anybody has them, or the
 * cloud. */
static bool copies_are_made(void)
{
    uint64_t wanted = 0;

    for (unsigned i = 0; i < NODES; i++) {
        struct journal_stats stats;

        journal_stats(world.nodes[i].sim.journal, &stats);
        wanted += stats.wanted;
    }
    if (wanted == 0)
        return true;
    if (world.now - searched_at < 5 * SECOND)
        return false;
    searched_at = world.now;
    for (size_t k = 0; k < world.key_count; k++) {
        unsigned have = 0, want = 0;

        for (unsigned i = 0; i < NODES; i++) {
            struct object *row = row_of(&world.nodes[i], &world.keys[k]);

            if (row && row->level == 2 &&
                (row->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT) {
                have += !place_is_none(&row->place);
                have += !cloud_is_away() && row->flags & OBJECT_UPLOADED && cloud_is_right(row);
                want += place_is_none(&row->place);
            }
            object_destroy(&row);
        }
        if (have && want)
            return false;
    }
    return true;
}

static bool is_settled(void)
{
    const char *why;

    if (world.now - looked_at < SECOND / 2)
        return false;
    looked_at = world.now;
    return nodes_agree(&why) && copies_are_made() && (cloud_is_away() || cloud_is_settled());
}

/* For whoever replays it: whom the node believes to be where. */
static void tell_members(const struct node *node)
{
    struct cluster_member members[LIMIT_MEMBERS + 1];
    size_t count = cluster_members(node->cluster, members, LIMIT_MEMBERS + 1);
    char text[ULID_TEXT_BYTES + 1];

    for (size_t i = 0; i < count; i++) {
        ulid_format(text, &members[i].node);
        tell("  … node %u knows %s at %s: %s, %s", node->index, text, members[i].address,
             member_state_name(members[i].joined), probe_state_name(members[i].state));
    }
}

static void report_disagreement(void)
{
    const char *why = "";
    char text[ULID_TEXT_BYTES + 1];

    for (unsigned i = 0; i < NODES; i++) {
        struct journal_stats stats;
        struct node *node = &world.nodes[i];

        if (!node->up)
            continue;
        journal_stats(node->sim.journal, &stats);
        ulid_format(text, &node->self);
        say("  node %u %s: %" PRIu64 " events, %" PRIu64 " objects, %" PRIu64 " wanted, %" PRIu64
            " pending, digest %016" PRIx64 ", vector %016" PRIx64 "\n",
            i, text, stats.events, stats.objects, stats.wanted, stats.pending, stats.digest.low,
            vector_sum(sync_vector(node->cluster->sync), VECTOR_ALL).hash.low);
        tell_members(node);
    }
    fail("the nodes do not agree within %u minutes: %s", (unsigned)(AGREE_WITHIN / MINUTE),
         nodes_agree(&why)
             ? copies_are_made() ? "something is owed to the cloud" : "copies are missing"
             : why);
}

/* ---- Rows and bodies ---- */

static void read_large(struct node *node, const struct key *key, const struct object *row,
                       unsigned v)
{
    static uint8_t got[BLOCK_BYTES], want[BLOCK_BYTES];
    struct large_reader *reader;
    int rc =
        large_reader_open(&reader, journal_large(node->sim.journal), row->place.offset, row->size);

    for (uint64_t i = 0; rc == 0 && i < block_count(row->size); i++) {
        size_t len = 0;

        rc = large_read_block(reader, i, got, &len, false);
        key_body(key, v, i * BLOCK_BYTES, want, len);
        if (rc == 0 && memcmp(got, want, len) != 0)
            fail("node %u: wrong bytes in a large file", node->index);
    }
    if (rc)
        fail("node %u: its large file cannot be read: %s", node->index, err_text(rc));
    large_reader_close(&reader);
}

static void read_inline(struct node *node, const struct key *key, const struct object *row,
                        unsigned v)
{
    static uint8_t got[RECORD_MAX_BYTES], want[RECORD_MAX_BYTES];
    struct record_view view;
    int rc = log_read(journal_log(node->sim.journal), &row->place, &row->id, row->record_bytes, got,
                      sizeof got, false, &view);

    if (rc)
        fail("node %u: its copy cannot be read: %s", node->index, err_text(rc));
    key_body(key, v, 0, want, row->size);
    if (view.header.body_bytes != row->size || memcmp(view.body, want, row->size) != 0)
        fail("node %u: wrong bytes in its copy", node->index);
}

static void check_row(struct node *node, const struct key *key, const struct object *row)
{
    unsigned n = node->index;
    char id[ULID_TEXT_BYTES + 1];

    ulid_format(id, &key->id);
    if (row && row->flags & OBJECT_DELETED) {
        if (!key->delete_submitted)
            fail("node %u: %s is deleted, which nobody asked for", n, id);
        if (!place_is_none(&row->place))
            fail("node %u: %s is deleted, and keeps its bytes", n, id);
        return;
    }
    if (key->deleted_on)
        fail("node %u: the delete of %s is undone (acknowledged on %#x)", n, id, key->deleted_on);
    if (!row) {
        if (key->exists_on)
            fail("node %u: %s is lost (acknowledged on %#x)", n, id, key->exists_on);
        return;
    }
    unsigned v = key_variant(key, row->sha256);
    if (v == VARIANTS || !(key->submitted & 1u << v) || row->size != key->size[v])
        fail("node %u: %s has bytes that nobody put", n, id);
    for (unsigned l = 1; l < 3; l++)
        if (key->level_on[l] && row->level < l)
            fail("node %u: %s has level %u, and %u was acknowledged", n, id, row->level, l);
    if (row->level > key->level_submitted)
        fail("node %u: %s has level %u, which nobody asked for", n, id, row->level);
    if (place_is_none(&row->place)) {
        if (key_owes_body(key, n, v, row))
            fail("node %u: the bytes of %s are lost, which it has acknowledged", n, id);
        return;
    }
    atomic_fetch_add(&world.counts->body_checks, 1);
    if (row->place.volume == PLACE_LARGE)
        read_large(node, key, row, v);
    else
        read_inline(node, key, row, v);
}

/* One of the nodes that lack the bytes gets them from another. */
static void read_elsewhere(struct key *key)
{
    unsigned first = (unsigned)dice(NODES), variant = VARIANTS, holders = 0;
    struct node *asker = NULL;

    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &world.nodes[(first + i) % NODES];
        struct object *row = row_of(node, key);

        if (row && (row->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT) {
            variant = key_variant(key, row->sha256);
            holders += !place_is_none(&row->place);
            asker = place_is_none(&row->place) ? node : asker;
        }
        object_destroy(&row);
    }
    if (asker && holders && key->size[variant])
        clients_must_read(asker, key, variant);
}

static bool reads_are_over(void)
{
    for (unsigned i = 0; i < NODES; i++)
        if (world.nodes[i].fetching)
            return false;
    return true;
}

static void check_reads(void)
{
    pass(world.now + MINUTE, reads_are_over); /* those of the run may fail */
    for (unsigned i = 0; i < READS && world.key_count; i++)
        read_elsewhere(&world.keys[dice(world.key_count)]);
    pass(world.now + MINUTE, reads_are_over);
    if (!reads_are_over())
        fail("reads do not end");
}

/* Everybody sees everybody as it is. */
static void check_views(void)
{
    struct cluster_member members[LIMIT_MEMBERS + 1];

    for (unsigned i = 0; i < NODES; i++) {
        size_t count = cluster_members(world.nodes[i].cluster, members, LIMIT_MEMBERS + 1);

        for (size_t k = 0; k < count; k++)
            for (unsigned n = 0; n < NODES; n++)
                if (id_equal(&members[k].node, &world.nodes[n].self) &&
                    (members[k].state != PROBE_ALIVE || !members[k].digest_equal))
                    fail("node %u sees node %u as %s, its digest as %s", i, n,
                         probe_state_name(members[k].state),
                         members[k].digest_equal ? "its own" : "another");
    }
}

/* Bytes VARIANT that were acknowledged, and lost against others under their id, on a disk that is
 * still there: they are an object of their own, on the same level of every node. */
static void check_loser(struct key *key, unsigned variant)
{
    struct key copy = *key; /* the same bytes under another id */
    unsigned holders = 0;
    char id[ULID_TEXT_BYTES + 1];

    copy.id = conflict_id(&key->id, key->sha256[variant]);
    ulid_format(id, &key->id);
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &world.nodes[i];
        struct object *row = row_of(node, &copy);

        if (!row || (row->flags & (OBJECT_PUT | OBJECT_DELETED)) != OBJECT_PUT ||
            memcmp(row->sha256, key->sha256[variant], SHA256_BYTES) != 0)
            fail("node %u: bytes %u of %s lost, and are no object of their own", i, variant, id);
        if (!place_is_none(&row->place)) {
            holders++;
            if (row->place.volume == PLACE_LARGE)
                read_large(node, &copy, row, variant);
            else
                read_inline(node, &copy, row, variant);
        }
        object_destroy(&row);
    }
    if (!holders)
        fail("bytes %u of %s lost, and nobody has them any more", variant, id);
    atomic_fetch_add(&world.counts->conflicts, 1);
}

static void check_losers(struct key *key)
{
    struct object *row = key->delete_submitted ? NULL : row_of(&world.nodes[0], key);

    for (unsigned v = 0; row && v < VARIANTS; v++)
        if (key->body_on[v] && memcmp(row->sha256, key->sha256[v], SHA256_BYTES) != 0)
            check_loser(key, v);
    object_destroy(&row);
}

/* Whoever NODE believes to have ROW's bytes has them: answers are given, and copies left out, on
 * the strength of it. */
static void check_holders(struct node *node, const struct key *key, const struct object *row)
{
    struct id128 holders[LIMIT_FETCH_HOLDERS];
    size_t count = 0;
    char id[ULID_TEXT_BYTES + 1];
    int rc = db_reader_holders(node->sim.reader, row, holders, LIMIT_FETCH_HOLDERS, &count);

    if (rc)
        fail("node %u: who has a body cannot be read: %s", node->index, err_text(rc));
    ulid_format(id, &key->id);
    for (size_t i = 0; i < count; i++)
        for (unsigned n = 0; n < NODES; n++) {
            struct object *its = NULL;

            if (!id_equal(&world.nodes[n].self, &holders[i]))
                continue;
            its = row_of(&world.nodes[n], key);
            if (!its || place_is_none(&its->place))
                fail("node %u believes that node %u has the bytes of %s", node->index, n, id);
            object_destroy(&its);
        }
}

static void check_keys(void)
{
    for (size_t k = 0; k < world.key_count; k++) {
        struct key *key = &world.keys[k];
        unsigned have = 0, level = 0;
        bool live = false;
        char id[ULID_TEXT_BYTES + 1];

        for (unsigned i = 0; i < NODES; i++) {
            struct object *row = row_of(&world.nodes[i], key);

            check_row(&world.nodes[i], key, row);
            if (row && !(row->flags & OBJECT_DELETED)) {
                /* Bytes that lost and win again with another's put are not at who put them first.
                 */
                if (row->flags & OBJECT_PUT && !(key->submitted & (key->submitted - 1)))
                    check_holders(&world.nodes[i], key, row);
                live = true;
                level = row->level;
                have += !place_is_none(&row->place);
            }
            key_seen(key, i, row);
            object_destroy(&row);
        }
        check_losers(key);
        ulid_format(id, &key->id);
        if (live && level == 2 && have && have < NODES)
            fail("%s is for every node, and on %u of them", id, have);
        atomic_fetch_add(&world.counts->key_checks, 1);
    }
}

/* ---- The whole ---- */

static void restart(struct node *node)
{
    world.at = node;
    node_halt(node);
    node_start(node);
    check_files(&node->sim);
    check_space(&node->sim);
}

void check_cluster(void)
{
    world.quiet = true;
    world.doing = "settling";
    looked_at = searched_at = world.now;
    trouble_heal();
    tell("check: all is well again");
    uint64_t before = world.now;
    pass(world.now + AGREE_WITHIN, is_settled);
    tell("check: settled after %llu ms", (unsigned long long)((world.now - before) / MS));
    if (world.now >= before + AGREE_WITHIN)
        report_disagreement();
    world.doing = "the check";
    for (unsigned i = 0; i < NODES; i++)
        world.nodes[i].fresh_disk = false;
    check_keys();
    if (!cloud_is_away())
        cloud_check();
    pass(world.now + 3 * SECOND, NULL);
    check_views();
    check_reads();
    doors_check();
    for (unsigned i = 0; i < NODES; i++) {
        struct journal_stats stats;

        /* Bodies that came altered from the cloud count as bad blocks, too. */
        journal_stats(world.nodes[i].sim.journal, &stats);
        world.nodes[i].sim.misfits = cloud_alters() ? stats.bad_blocks : 0;
        check_journal(&world.nodes[i].sim);
    }
    if (world.now >= world.until)
        for (unsigned i = 0; i < NODES; i++)
            restart(&world.nodes[i]);
    else
        restart(&world.nodes[dice(NODES)]);
    atomic_fetch_add(&world.counts->checks, 1);
    world.quiet = false;
    world.doing = "the run";
}
