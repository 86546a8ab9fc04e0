/*
 * What the doors of the simulated nodes do: a GET of a body that is not here, and an id that nobody
 * knows and a client wants looked for in the cloud (X-Meta-Fetch). Production code from the store
 * on (api/store.h, peer_body, peer_fill, lender, adoption); HTTP alone is left out, of which it
 * needs three functions: they stand here, and the linker takes them instead of the library's.
 *
 *   get ── RAM ── disk cache ── peer_body (small), peer_fill (large) ── wake ─► pool: compare, end
 *   adopt ── adoption ── wake ─► judge
 *
 * In the quiet of a check some bodies are asked for by many clients of many nodes at once: then the
 * cloud is asked once for each, and not at all where a member has it.
 */
#include "api/adoption.h"
#include "api/headers.h"
#include "api/peer_body.h"
#include "api/peer_fill.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"
#include "tests/cluster_sim/world.h"

#include <stdlib.h>

#define RAM_BYTES   (16 * MIB)
#define CACHE_BYTES (64 * MIB)
#define SHARED      12 /* bodies, in each check */

struct get {
    struct get *next;
    struct node *node;
    struct key *key;
    unsigned variant;
    bool must; /* nothing is in its way */
    struct object *row;
    uint64_t token;
    struct peer_waiter small;
    struct peer_body *body;
    struct fill_waiter large;
    struct peer_fill *fill;
    struct store_job job;
};

/* A client that waits for an adoption. */
struct http_request {
    struct http_request *next;
    struct node *node;
    struct key *key;
    enum adopt adopt;
    struct adoption *adoption;
    struct adoption_waiter waiter;
};

/* ---- Instead of HTTP ---- */

void http_post(struct http_request *request, void (*run)(struct http_request *request))
{
    run(request);
}

void http_suspend(struct http_request *request)
{
    (void)request;
    abort(); /* nobody here sends an answer */
}

struct slice http_request_header(const struct http_request *request, const char *name,
                                 unsigned *count)
{
    (void)request;
    (void)name;
    (void)count;
    abort();
}

/* ---- Life ---- */

static void forget_copies(void *arg, const struct id128 *id)
{
    disk_cache_forget(arg, id);
}

int doors_prepare(struct node *node)
{
    int rc = ram_create(&node->ram, RAM_BYTES);

    if (rc == 0)
        rc = disk_cache_create(&node->cache, &node->sim.env, SIM_FILES, CACHE_BYTES);
    if (rc == 0)
        ram_watch(node->ram, forget_copies, node->cache);
    return rc;
}

int doors_open(struct node *node)
{
    node->memory = (struct budget){.limit = 64 * MIB};
    const struct store_config config = {.journal = node->sim.journal,
                                        .cluster = node->cluster,
                                        .ram = node->ram,
                                        .disk_cache = node->cache,
                                        .env = &node->sim.env,
                                        .memory = &node->memory};

    return store_create(&node->store, &config);
}

void doors_close(struct node *node)
{
    store_destroy(&node->store);
    if (node->gets || node->adopting)
        fail("node %u: a client was never answered", node->index);
}

void doors_release(struct node *node)
{
    ram_destroy(&node->ram);
    disk_cache_destroy(&node->cache);
    if (budget_used(&node->memory) != 0)
        fail("node %u: memory of bodies on their way is not given back", node->index);
}

/* ---- A body ---- */

static void compare(const struct get *get, uint64_t offset, const uint8_t *bytes, size_t len)
{
    static uint8_t want[BODY_BYTES];

    key_body(get->key, get->variant, offset, want, len);
    if (memcmp(want, bytes, len) != 0)
        fail("node %u: wrong bytes from its door", get->node->index);
}

static void end(struct get *get, int rc)
{
    struct get **at = &get->node->gets;
    bool dead = get->node->sim.disk->dead;

    if (rc && get->must && !dead)
        fail("node %u: a client does not get the bytes that are there: %s", get->node->index,
             err_text(rc));
    atomic_fetch_add(rc ? &world.counts->peer_read_failures : &world.counts->peer_reads, 1);
    note(121, get->node->index, (uint64_t)rc);
    while (*at != get)
        at = &(*at)->next;
    *at = get->next;
    peer_body_release(&get->body);
    peer_fill_leave(&get->fill);
    object_destroy(&get->row);
    free(get);
}

static void submit(struct get *get, void (*run)(struct store_job *job, struct db_reader *reader))
{
    get->job.run = run;
    if (store_submit(get->node->store, &get->job) != 0)
        run(&get->job, NULL);
}

/* Where this node's other clients find it. */
static void keep(void *arg, const uint8_t *bytes)
{
    struct get *get = arg;
    char etag[ETAG_BYTES + 1];
    struct buf head;

    buf_init(&head, 0);
    headers_render(&head, get->row);
    headers_etag(etag, get->row);
    if (buf_check(&head) == 0)
        ram_fill(get->node->ram, get->token, &get->key->id, head.data, head.len, bytes,
                 get->row->size, headers_modified_s(get->row), get->row->expires_ms, etag);
    buf_release(&head);
    peer_body_keep(get->body, get->token);
}

static void settle(struct store_job *job, struct db_reader *reader)
{
    struct get *get = container_of(job, struct get, job);
    int rc = peer_body_settle(get->body, &get->small, keep, get);

    (void)reader;
    if (rc == 0)
        compare(get, 0, peer_body_bytes(get->body), get->row->size);
    end(get, rc);
}

static void small_wakes(struct peer_waiter *waiter)
{
    submit(container_of(waiter, struct get, small), settle);
}

static int ask_small(struct get *get, const struct store_origin *origin)
{
    struct peer_bodies *bodies = store_peer_bodies(get->node->store);
    const struct ram_entry *entry = NULL;

    if (peer_body_recall(&get->body, bodies, origin) == 0) {
        compare(get, 0, peer_body_bytes(get->body), get->row->size);
        end(get, 0);
        return 0;
    }
    get->small.wake = small_wakes;
    int rc = peer_body_ask(&get->body, &entry, bodies, origin, &get->small);
    if (rc != ERR_EXISTS)
        return rc;
    compare(get, 0, entry->body, entry->body_bytes);
    ram_release(get->node->ram, entry);
    end(get, 0);
    return 0;
}

/* Of what the cache has (COPY), or of what get->fill brings. */
static int read_copy(const struct get *get, struct disk_copy *copy)
{
    uint8_t block[BLOCK_BYTES];
    size_t len = 0;
    int rc = 0;

    for (uint64_t at = 0; rc == 0 && at < get->row->size; at += len) {
        rc = copy ? disk_copy_read(copy, at / BLOCK_BYTES, block, &len, false)
                  : peer_fill_read(get->fill, at / BLOCK_BYTES, block, &len, false);
        if (rc == 0)
            compare(get, at, block, len);
    }
    return rc;
}

static void large_wakes(struct fill_waiter *waiter);

/* All of it, once it is there. */
static void take_large(struct store_job *job, struct db_reader *reader)
{
    struct get *get = container_of(job, struct get, job);

    (void)reader;
    get->large = (struct fill_waiter){.end = get->row->size, .wake = large_wakes};
    int rc = peer_fill_wait(get->fill, &get->large, true);
    if (rc == ERR_AGAIN)
        return;
    end(get, rc ? rc : read_copy(get, NULL));
}

static void large_wakes(struct fill_waiter *waiter)
{
    submit(container_of(waiter, struct get, large), take_large);
}

static int ask_large(struct get *get, const struct store_origin *origin)
{
    struct disk_copy *copy =
        disk_cache_find(get->node->cache, &origin->id, origin->sha256, origin->size);

    if (copy) {
        int rc = read_copy(get, copy);

        disk_copy_release(&copy);
        end(get, rc);
        return 0;
    }
    int rc = peer_fill_join(&get->fill, store_peer_fills(get->node->store), origin, get->token);
    if (rc)
        return rc;
    if (!get->must && dice(10) == 0)
        end(get, ERR_CLOSED); /* the client goes away */
    else
        submit(get, take_large);
    return 0;
}

void doors_get(struct node *node, struct key *key, const struct object *row, bool must)
{
    struct get *get = calloc(1, sizeof *get);
    struct store_origin origin;

    if (!get || !(get->row = object_copy(row)))
        abort();
    get->node = node;
    get->key = key;
    get->variant = key_variant(key, row->sha256);
    get->must = must;
    get->next = node->gets;
    node->gets = get;
    const struct ram_entry *entry = ram_get(node->ram, &key->id);
    if (entry && entry->large.size == 0) {
        if (entry->body_bytes != row->size)
            fail("node %u: its memory has another body than its row", node->index);
        compare(get, 0, entry->body, entry->body_bytes);
        ram_release(node->ram, entry);
        end(get, 0);
        return;
    }
    if (entry)
        ram_release(node->ram, entry);
    get->token = ram_token(node->ram, &key->id); /* nothing has come since the look-up */
    int rc = store_origin_of(&origin, node->store, row, node->sim.reader);
    if (rc == 0)
        rc = row->size <= LIMIT_INLINE_BODY_BYTES ? ask_small(get, &origin)
                                                  : ask_large(get, &origin);
    if (rc)
        end(get, rc);
}

/* ---- An id that nobody knows ---- */

static void judge(const struct http_request *client, int rc)
{
    const struct node *node = client->node;
    struct key *key = client->key;
    struct object *row = NULL;
    bool failed = rc == ERR_IO || rc == ERR_NO_SPACE || rc == ERR_READ_ONLY;

    if (rc == ERR_DELETED && !key->delete_submitted)
        fail("node %u says deleted of an id that nobody deleted", node->index);
    if (client->adopt == ADOPT_MUST_NOT && rc != ERR_DELETED && rc != ERR_NOT_FOUND)
        fail("node %u is to find nothing in the cloud for a deleted id: %s", node->index,
             err_text(rc));
    if (client->adopt == ADOPT_MUST_NOT)
        return;
    if (rc == ERR_NOT_FOUND && !key->purge_submitted)
        fail("node %u does not find what lies in the cloud", node->index);
    if (rc && (client->adopt == ADOPT_MUST ||
               (rc != ERR_DELETED && rc != ERR_NOT_FOUND && rc != ERR_CLOUD && rc != ERR_FULL &&
                rc != ERR_CLOSED && !(failed && node->faulty))))
        fail("node %u does not look in the cloud for what a client wants: %s", node->index,
             err_text(rc));
    if (rc)
        return;
    rc = journal_find(node->sim.journal, node->sim.reader, &key->id, &row);
    if (rc)
        fail("node %u has found it in the cloud and does not know it: %s", node->index,
             err_text(rc));
    if (!(row->flags & OBJECT_DELETED)) {
        if (memcmp(row->sha256, key->sha256[0], SHA256_BYTES) != 0 || row->size != key->size[0])
            fail("node %u takes it for other bytes than the cloud has", node->index);
        key_seen(key, node->index, row);
    } else if (!key->delete_submitted) {
        fail("node %u has deleted an id that nobody deleted", node->index);
    }
    object_destroy(&row);
    atomic_fetch_add(&world.counts->adopted, 1);
}

static void on_adopted(struct adoption_waiter *waiter)
{
    struct http_request *client = container_of(waiter, struct http_request, waiter);
    struct http_request **at = &client->node->adopting;
    int rc = adoption_result(client->adoption);

    adoption_release(&client->adoption);
    note(122, client->node->index, (uint64_t)rc);
    while (*at != client)
        at = &(*at)->next;
    *at = client->next;
    if (!client->node->sim.disk->dead)
        judge(client, rc);
    free(client);
}

void doors_adopt(struct node *node, struct key *key, enum adopt adopt)
{
    struct http_request *client = calloc(1, sizeof *client);

    if (!client)
        abort();
    client->node = node;
    client->key = key;
    client->adopt = adopt;
    client->waiter.wake = on_adopted;
    client->next = node->adopting;
    node->adopting = client;
    int rc = adoption_ask(&client->adoption, store_adoptions(node->store), &key->id, false,
                          &client->waiter);
    if (rc == 0)
        return; /* and may be over */
    node->adopting = client->next;
    free(client);
}

/* ---- Once for all ---- */

static bool doors_are_quiet(void)
{
    for (unsigned i = 0; i < NODES; i++)
        if (world.nodes[i].gets || world.nodes[i].adopting)
            return false;
    return true;
}

static bool clouds_are_reached(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        struct cluster_cloud_stats stats;

        pull_stats(world.nodes[i].cluster, &stats);
        if (stats.guard.wait_ms)
            return false;
    }
    return true;
}

/* One or two clients of each of the nodes in MASK, which have no copy, within some milliseconds. */
static unsigned ask_at_once(struct key *key, unsigned mask)
{
    unsigned asked = 0;

    for (unsigned i = 0; i < NODES; i++)
        for (unsigned k = 0, clients = 1 + (unsigned)dice(2); mask >> i & 1 && k < clients; k++) {
            struct object *row = row_of(&world.nodes[i], key);

            world.at = &world.nodes[i];
            doors_get(&world.nodes[i], key, row, true);
            node_arm(&world.nodes[i]);
            object_destroy(&row);
            asked++;
            if (dice(2))
                pass(world.now + dice(3 * MS), NULL);
        }
    pass(world.now + MINUTE, doors_are_quiet);
    if (!doors_are_quiet())
        fail("clients wait for a minute for what is there");
    return asked;
}

static void check_shared(struct key *key)
{
    unsigned have = 0, lack = 0, uploaded = 0, before, asked, gets;
    char id[ULID_TEXT_BYTES + 1];

    for (unsigned i = 0; i < NODES; i++) {
        struct object *row = row_of(&world.nodes[i], key);

        if (row && (row->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT && row->size) {
            uploaded += row->flags & OBJECT_UPLOADED && cloud_is_right(row);
            have |= !place_is_none(&row->place) ? 1u << i : 0;
            lack |= place_is_none(&row->place) ? 1u << i : 0;
        }
        object_destroy(&row);
    }
    if (uploaded < NODES || !lack)
        return;
    before = cloud_gets(key);
    asked = ask_at_once(key, lack & (1 + (unsigned)dice((1u << NODES) - 1)));
    asked += ask_at_once(key, lack);
    gets = cloud_gets(key) - before;
    ulid_format(id, &key->id);
    if (have && gets)
        fail("%s is on nodes %#x, and %u clients of others had the cloud asked %u times", id, have,
             asked, gets);
    if (gets > 1)
        fail("%u clients had the cloud asked %u times for %s", asked, gets, id);
    atomic_fetch_add(have ? &world.counts->near_reads : &world.counts->shared_reads, asked);
    atomic_fetch_add(&world.counts->shared_gets, gets);
}

void doors_check(void)
{
    size_t first = world.key_count ? dice(world.key_count) : 0;
    unsigned lonely = 0, others = 0;

    pass(world.now + MINUTE, doors_are_quiet); /* what the run began may fail */
    if (cloud_is_away())
        return;
    pass(world.now + 10 * MINUTE, clouds_are_reached);
    if (!clouds_are_reached())
        fail("the cloud is there, and a node leaves it alone");
    /* Those that no node has first of all. */
    for (size_t i = 0; i < world.key_count && lonely + others < SHARED; i++) {
        struct key *key = &world.keys[(first + i) % world.key_count];
        bool alone = true, there = cloud_holds(key);

        for (unsigned n = 0; n < NODES && there; n++) {
            struct object *row = row_of(&world.nodes[n], key);

            there = row && row->flags & OBJECT_UPLOADED && !(row->flags & OBJECT_DELETED);
            alone &= row && place_is_none(&row->place);
            object_destroy(&row);
        }
        if (!there || (!alone && (others >= SHARED / 3 || dice(8))))
            continue;
        lonely += alone;
        others += !alone;
        check_shared(key);
    }
}
