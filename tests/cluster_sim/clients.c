/*
 * Clients: bursts of requests to random nodes, with quiet in between, and what they make of the
 * answers. Reads are checked on the spot: whatever is served are bytes that were put under that id,
 * and a node never forgets what it has acknowledged itself.
 */
#include "base/hash.h"
#include "journal/ulid.h"
#include "tests/cluster_sim/world.h"

#include <stdlib.h>

#define BURST_EVERY (6 * MINUTE)
#define RECENT      40 /* most requests are about the latest ids */

struct asked {
    struct change change; /* first */
    struct asked *next;
    struct node *node;
    struct key *key;
    unsigned variant, level;
    struct large_writer *writer;
    uint8_t *body;
};

struct fetching {
    struct cluster_reader reader; /* first */
    struct fetching *next;
    struct node *node;
    struct key *key;
    unsigned variant;
    uint64_t at, end;
    bool must; /* nothing is in its way */
};

static uint64_t roll(uint64_t below)
{
    return sim_dice(&world.client_dice) % below;
}

static struct node *some_node(void)
{
    for (int i = 0; i < 8; i++) {
        struct node *node = &world.nodes[roll(NODES)];

        if (node->up && world.now >= node->stalled_until)
            return node;
    }
    return NULL;
}

static struct key *some_key(void)
{
    size_t recent = world.key_count < RECENT ? world.key_count : RECENT;

    if (world.key_count == 0)
        return key_new();
    return &world.keys[roll(4) ? world.key_count - 1 - roll(recent) : roll(world.key_count)];
}

/* ---- Answers ---- */

static void forget(struct asked *asked)
{
    struct asked **at = &asked->node->asked, *before = NULL;

    while (*at != asked) {
        before = *at;
        at = &(*at)->next;
    }
    *at = asked->next;
    if (asked->node->asked_last == asked)
        asked->node->asked_last = before;
    object_destroy(&asked->change.object);
    large_writer_destroy(&asked->writer, !asked->change.stored);
    free(asked->body);
    free(asked);
}

/* An answer that contradicts what this node has said before. */
static void judge(const struct asked *asked)
{
    const struct key *key = asked->key;
    uint8_t bit = (uint8_t)(1u << asked->node->index);
    int rc = asked->change.rc;

    if (rc == 0 && (key->deleted_on & bit) && asked->change.request.kind != CHANGE_DELETE)
        fail("node %u takes a change of an id whose delete it has acknowledged",
             asked->node->index);
    if (rc == ERR_DELETED && !key->delete_submitted)
        fail("node %u says deleted of an id that nobody deleted", asked->node->index);
    if (rc == ERR_NOT_FOUND && (key->exists_on & bit))
        fail("node %u does not know an id that it has acknowledged", asked->node->index);
    bool failed = rc == ERR_IO || rc == ERR_NO_SPACE || rc == ERR_READ_ONLY;
    if (rc && rc != ERR_DELETED && rc != ERR_NOT_FOUND && rc != ERR_CONFLICT &&
        rc != ERR_UNVERIFIED && !(failed && asked->node->faulty))
        fail("node %u refuses a change: %s", asked->node->index, err_text(rc));
}

static void tell_answer(const struct asked *asked)
{
    static const char *const kinds[] = {"put", "meta", "delete"};
    char id[ULID_TEXT_BYTES + 1];

    ulid_format(id, &asked->key->id);
    tell("%s of %s at node %u, body %u, level %u: %s", kinds[asked->change.request.kind], id,
         asked->node->index, asked->variant, asked->level,
         asked->change.rc ? err_text(asked->change.rc) : "done");
}

static void done(struct change *change)
{
    struct asked *asked = (struct asked *)change;
    unsigned n = asked->node->index;

    if (asked->node->sim.disk->dead)
        return; /* nobody hears it; clients_forget frees it */
    judge(asked);
    note(100 + change->request.kind, n, (uint64_t)change->rc);
    tell_answer(asked);
    if (change->rc) {
        atomic_fetch_add(&world.counts->refused, 1);
    } else if (change->request.kind == CHANGE_PUT) {
        key_put(asked->key, n, asked->variant, asked->level, change->object);
    } else if (change->request.kind == CHANGE_DELETE) {
        key_deleted(asked->key, n);
    } else if (change->request.fields & EVENT_HAS_LEVEL) {
        key_level(asked->key, n, asked->level);
        if (asked->level && change->verdict == VERDICT_COMMIT)
            atomic_fetch_add(&world.counts->raises, 1);
    }
    forget(asked);
}

void clients_forget(struct node *node)
{
    while (node->asked)
        forget(node->asked);
    if (node->fetching)
        fail("node %u: a read was never ended", node->index);
}

/* ---- Requests ---- */

static struct asked *new_asked(struct node *node, struct key *key, enum change_kind kind)
{
    struct asked *asked = calloc(1, sizeof *asked);

    if (!asked)
        abort();
    asked->node = node;
    asked->key = key;
    asked->change.done = done;
    asked->change.request.kind = kind;
    asked->change.request.id = key->id;
    return asked;
}

static void submit(struct asked *asked)
{
    struct node *node = asked->node;

    if (node->asked_last)
        node->asked_last->next = asked;
    else
        node->asked = asked;
    node->asked_last = asked;
    int rc = journal_submit(node->sim.journal, &asked->change);
    if (rc)
        forget(asked);
    if (rc && !(rc == ERR_READ_ONLY && node->faulty))
        fail("node %u: a request was not queued: %s", node->index, err_text(rc));
    node_arm(node);
}

/* A large file with the body. False: the node died in it. */
static bool write_large(struct asked *asked)
{
    size_t size = asked->change.request.size, at = 0;
    uint64_t written;
    int rc = large_create(&asked->writer, journal_large(asked->node->sim.journal));

    while (rc == 0 && at < size) {
        size_t step = size - at < 200000 ? size - at : 200000;

        rc = large_write(asked->writer, asked->body + at, step);
        at += step;
    }
    if (rc == 0)
        rc = large_finish(asked->writer, &asked->change.file, &written, &asked->change.trailer);
    if (rc && !asked->node->sim.disk->dead && !asked->node->faulty)
        fail("a large body was not written: %s", err_text(rc));
    return rc == 0;
}

static void put(struct node *node, struct key *key, unsigned variant, unsigned level)
{
    static const char *const names[] = {"a.txt", "b.bin", "photo of a cat", ""};
    struct asked *asked = new_asked(node, key, CHANGE_PUT);
    struct request *request = &asked->change.request;
    size_t size = key->size[variant];

    asked->variant = variant;
    asked->level = level;
    key->submitted |= (uint8_t)(1u << variant);
    key->put_on |= (uint8_t)(1u << node->index);
    if (key->level_submitted < level)
        key->level_submitted = (uint8_t)level;
    request->fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL | EVENT_HAS_NAME;
    request->size = size;
    request->level = (uint8_t)level;
    const char *name = names[roll(4)];
    request->name = (struct text){name, (uint32_t)strlen(name)};
    memcpy(request->sha256, key->sha256[variant], SHA256_BYTES);
    asked->body = malloc(size + 8);
    if (!asked->body)
        abort();
    key_body(key, variant, 0, asked->body, size);
    atomic_fetch_add(&world.counts->puts, 1);
    if (size > LIMIT_INLINE_BODY_BYTES) {
        if (!write_large(asked)) {
            large_writer_destroy(&asked->writer, true);
            free(asked->body);
            free(asked);
            return;
        }
    } else {
        asked->change.body = asked->body;
        for (uint64_t i = 0; i < block_count(size); i++) {
            size_t left = size - (size_t)(i * BLOCK_BYTES);

            asked->change.sums[i] = block_checksum(asked->body + i * BLOCK_BYTES,
                                                   left < BLOCK_BYTES ? left : BLOCK_BYTES, i);
        }
    }
    submit(asked);
}

static void meta(struct node *node, struct key *key)
{
    struct asked *asked = new_asked(node, key, CHANGE_META);
    struct request *request = &asked->change.request;

    if (roll(2)) {
        asked->level = (unsigned)roll(3);
        request->fields |= EVENT_HAS_LEVEL;
        request->level = (uint8_t)asked->level;
        if (key->level_submitted < asked->level)
            key->level_submitted = (uint8_t)asked->level;
    }
    if (roll(2) || !request->fields) {
        request->fields |= EVENT_HAS_NAME;
        request->name = roll(2) ? (struct text){"renamed", 7} : (struct text){"again", 5};
    }
    atomic_fetch_add(&world.counts->metas, 1);
    submit(asked);
}

static void delete (struct node *node, struct key *key)
{
    struct asked *asked = new_asked(node, key, CHANGE_DELETE);

    key->delete_submitted = true;
    asked->change.request.purge = roll(3) == 0;
    key->purge_submitted |= asked->change.request.purge;
    atomic_fetch_add(&world.counts->deletes, 1);
    atomic_fetch_add(&world.counts->purges, asked->change.request.purge);
    submit(asked);
}

/* ---- Reads ---- */

static void fetch_data(struct cluster_reader *reader, uint64_t offset, const void *bytes,
                       size_t len)
{
    static uint8_t want[LIMIT_WIRE_CHUNK_BYTES];
    struct fetching *f = (struct fetching *)reader;

    if (offset != f->at || len > f->end - f->at || len > sizeof want)
        fail("node %u: a read jumps", f->node->index);
    key_body(f->key, f->variant, offset, want, len);
    if (memcmp(want, bytes, len) != 0)
        fail("node %u: wrong bytes from a peer", f->node->index);
    f->at += len;
    if (!f->node->sim.disk->dead)
        cluster_fetch_consumed(f->node->cluster, reader, len);
}

static void fetch_done(struct cluster_reader *reader, int rc)
{
    struct fetching *f = (struct fetching *)reader, **at = &f->node->fetching;

    if (rc == 0 && f->at != f->end && !f->node->sim.disk->dead)
        fail("node %u: a read ends before its end", f->node->index);
    if (rc && f->must)
        fail("node %u: nobody gives it the bytes that somebody has: %s", f->node->index,
             err_text(rc));
    atomic_fetch_add(rc ? &world.counts->peer_read_failures : &world.counts->peer_reads, 1);
    note(120, f->node->index, (uint64_t)rc);
    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    free(f);
}

/* Begin to read the bytes from AT to END; NULL: it could not begin. */
static struct fetching *begin_fetch(struct node *node, struct key *key, unsigned variant,
                                    uint64_t at, uint64_t end)
{
    struct fetching *f = calloc(1, sizeof *f);
    struct cluster_fetch fetch = {
        .id = key->id, .size = key->size[variant], .offset = at, .length = end - at};

    if (!f)
        abort();
    f->reader.data = fetch_data;
    f->reader.done = fetch_done;
    f->node = node;
    f->key = key;
    f->variant = variant;
    f->at = at;
    f->end = end;
    memcpy(fetch.sha256, key->sha256[variant], SHA256_BYTES);
    f->next = node->fetching;
    node->fetching = f;
    if (cluster_fetch_start(node->cluster, &fetch, &f->reader) == 0)
        return f;
    node->fetching = f->next;
    free(f);
    return NULL;
}

static void read_from_peers(struct node *node, struct key *key, unsigned variant)
{
    uint64_t size = key->size[variant];
    uint64_t at = size == 0 || roll(3) ? 0 : roll(size);
    uint64_t end = size == 0 || roll(3) ? size : at + 1 + roll(size - at);
    struct fetching *f = size ? begin_fetch(node, key, variant, at, end) : NULL;

    if (f && roll(10) == 0)
        cluster_fetch_cancel(node->cluster, &f->reader);
}

void clients_must_read(struct node *node, struct key *key, unsigned variant)
{
    struct fetching *f = begin_fetch(node, key, variant, 0, key->size[variant]);

    if (!f)
        fail("node %u: a read from peers cannot begin", node->index);
    f->must = true;
    atomic_fetch_add(&world.counts->must_reads, 1);
}

static void read_here(struct node *node, struct key *key, const struct object *object,
                      unsigned variant)
{
    static uint8_t want[RECORD_MAX_BYTES], got[RECORD_MAX_BYTES];
    struct record_view view;

    if (object->place.volume == PLACE_LARGE)
        return; /* the checks read those */
    int rc = log_read(journal_log(node->sim.journal), &object->place, &object->id,
                      object->record_bytes, got, sizeof got, false, &view);
    if (rc)
        fail("node %u cannot read its copy: %s", node->index, err_text(rc));
    key_body(key, variant, 0, want, object->size);
    if (view.header.body_bytes != object->size || memcmp(view.body, want, object->size) != 0)
        fail("node %u: wrong bytes", node->index);
}

static void read_some(struct node *node, struct key *key)
{
    uint8_t bit = (uint8_t)(1u << node->index);
    struct object *object = NULL;
    int rc = journal_find(node->sim.journal, node->sim.reader, &key->id, &object);

    atomic_fetch_add(&world.counts->reads, 1);
    if (rc && rc != ERR_NOT_FOUND)
        fail("node %u: a look-up fails: %s", node->index, err_text(rc));
    bool deleted = rc == 0 && object->flags & OBJECT_DELETED;
    if (rc && (key->exists_on | key->deleted_on) & bit)
        fail("node %u has forgotten an id", node->index);
    if (rc && key->planted)
        doors_adopt(node, key, ADOPT_MAY);
    if (!deleted && key->deleted_on & bit)
        fail("node %u has forgotten a delete", node->index);
    if (deleted && !key->delete_submitted)
        fail("node %u has deleted an id that nobody deleted", node->index);
    if (rc == 0 && !deleted) {
        unsigned v = key_variant(key, object->sha256);

        if (v == VARIANTS || !(key->submitted & 1u << v) || object->size != key->size[v])
            fail("node %u has bytes that nobody put under that id", node->index);
        if (object->flags & OBJECT_UPLOADED && !key->purge_submitted && key->submitted == 1u << v)
            cloud_has(node, object);
        if (place_is_none(&object->place) && object->size && roll(3))
            doors_get(node, key, object, false);
        else if (place_is_none(&object->place))
            read_from_peers(node, key, v);
        else
            read_here(node, key, object, v);
    }
    object_destroy(&object);
}

/* ---- Load ---- */

/* Two nodes are given different bytes for one id before either hears of the other; and whoever
 * reads it next may still believe the one or the other. */
static struct key *raced;
static unsigned race_reads;

static void race(struct node *node)
{
    struct node *other = some_node();
    unsigned level = (unsigned)roll(3);

    raced = key_new();
    race_reads = 4 + (unsigned)roll(8);
    put(node, raced, 0, level);
    if (!other || node->sim.disk->dead || other == node)
        return;
    world.at = other;
    put(other, raced, 1 + (unsigned)roll(VARIANTS - 1), roll(2) ? level : (unsigned)roll(3));
    if (other->sim.disk->dead)
        node_bury(other);
}

/* The same bytes, or others; but what lies in the cloud since before is looked for there. */
static void put_again(struct node *node, struct key *key)
{
    if (key->planted)
        doors_adopt(node, key, ADOPT_MAY);
    else
        put(node, key, roll(3) ? 0 : (unsigned)roll(VARIANTS), (unsigned)roll(3));
}

static void request(void)
{
    struct node *node = some_node();
    uint64_t what = roll(100);

    if (!node)
        return;
    world.at = node;
    if (race_reads) {
        race_reads--;
        if (roll(10) == 0)
            delete (node, raced); /* while copies of it are on their way */
        else
            read_some(node, raced);
    } else if (what < 6) {
        race(node);
    } else if (what < 8) {
        cloud_plant(key_new(), 1 + (unsigned)roll(2));
        doors_adopt(node, &world.keys[world.key_count - 1], ADOPT_MAY);
    } else if (what < 35) {
        put(node, key_new(), 0, (unsigned)roll(3));
    } else if (what < 50) { /* the same id again: the same bytes, or others, from wherever */
        put_again(node, some_key());
    } else if (what < 60) {
        meta(node, some_key());
    } else if (what < 70) {
        delete (node, roll(5) ? some_key() : key_new());
    } else {
        read_some(node, some_key());
    }
    if (node->sim.disk->dead)
        node_bury(node);
}

uint64_t clients_next(void)
{
    return world.quiet ? NEVER : world.next_request_at;
}

void clients_step(void)
{
    request();
    if (world.now >= world.burst_until && !race_reads) {
        world.next_request_at = world.now + BURST_EVERY / 4 + roll(3 * BURST_EVERY / 2);
        world.burst_until = world.next_request_at + SECOND + roll(20 * SECOND);
    } else if (race_reads) {
        world.next_request_at = world.now + roll(15 * MS);
    } else {
        world.next_request_at = world.now + roll(roll(4) ? 100 * MS : 2 * SECOND);
    }
}
