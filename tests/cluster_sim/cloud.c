/*
 * The cloud of the simulated cluster: one bucket, and a backend for each node.
 *
 *   cloud_start ──latency──► sent: the body is read ──latency──► carried out ──latency──► done
 *                               │ lost on the way, refused           │ the answer is lost
 *                               └──────────────────────────────────────────────────────► done
 *
 * What was sent is the server's from then on: it may be carried out though the node dies.
 */
#include "base/container.h"
#include "base/text.h"
#include "journal/conflict.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"
#include "tests/cluster_sim/world.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define OBJECTS  40000
#define MARK     ".deleted/"
#define MARK_LEN (sizeof MARK - 1)

struct stored {
    char key[64];
    uint64_t size;
    uint8_t sha256[SHA256_BYTES];
    uint8_t *body;
    char id[ULID_TEXT_BYTES + 1], says[2 * SHA256_BYTES + 1]; /* of the metadata … */
    char *pairs; /* … which are these: names and values, each with its NUL … */
    size_t pair_count;
    unsigned puts, gets; /* of these bytes */
    bool planted;        /* it was there before, … */
    bool ancestor;       /* … by somebody who did not tell the SHA-256 */
    /* Who put it last, on which of its disks it knew why, and its own last event then. */
    unsigned node, disk;
    struct id128 origin;
    uint64_t seq;
    bool orphan; /* nobody can know why it is there */
};

enum stage { SENDING, ANSWERING };

struct asking {
    struct asking *next;
    struct cloud_request *request;
    enum stage stage;
    uint64_t at;
    int rc;
};

/* What the server is going to do. */
struct deed {
    struct deed *next;
    uint64_t at;
    uint32_t life;
    bool removes;
    struct stored object;
};

struct sim_cloud {
    struct cloud cloud; /* first */
    struct node *node;
    struct asking *asked;
    bool closed; /* nothing is taken any more */
};

/* A removal, and who knew of it then. */
struct removal {
    struct removal *next;
    char key[64];
    unsigned node, disk;
    bool orphan; /* nobody else had heard of the delete when that disk was lost */
};

static struct {
    struct stored *objects; /* by key */
    size_t count;
    struct removal *removals;
    struct deed *deeds;
    uint64_t away_until, rough_until;
    bool altered; /* a body that it gave */
} bucket;

/* ---- The bucket ---- */

static size_t place_of(const char *key)
{
    size_t low = 0, high = bucket.count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (strcmp(bucket.objects[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct stored *find(const char *key)
{
    size_t at = place_of(key);

    return at < bucket.count && strcmp(bucket.objects[at].key, key) == 0 ? &bucket.objects[at]
                                                                         : NULL;
}

static void store(const struct stored *object)
{
    struct stored *known = find(object->key);
    size_t at = place_of(object->key);

    if (!bucket.objects)
        bucket.objects = calloc(OBJECTS, sizeof *bucket.objects);
    if (!bucket.objects || bucket.count == OBJECTS)
        abort();
    if (known) {
        bool same = memcmp(known->sha256, object->sha256, SHA256_BYTES) == 0;
        unsigned puts = same ? known->puts : 0, gets = same ? known->gets : 0;

        bucket.altered |= !same; /* for whoever still believes the others to be there */

        free(known->body);
        free(known->pairs);
        *known = *object;
        known->puts = puts + 1;
        known->gets = gets;
    } else {
        memmove(&bucket.objects[at + 1], &bucket.objects[at],
                (bucket.count++ - at) * sizeof *object);
        bucket.objects[at] = *object;
        bucket.objects[at].puts = 1;
    }
    atomic_fetch_add(&world.counts->cloud_puts, 1);
}

static void forget(const struct stored *removal)
{
    struct stored *known = find(removal->key);
    struct removal *it = calloc(1, sizeof *it);

    if (!it)
        abort();
    memcpy(it->key, removal->key, sizeof it->key);
    it->node = removal->node;
    it->disk = removal->disk;
    it->next = bucket.removals;
    bucket.removals = it;
    if (!known)
        return;
    free(known->body);
    free(known->pairs);
    memmove(known, known + 1, (size_t)(&bucket.objects[--bucket.count] - known) * sizeof *known);
    atomic_fetch_add(&world.counts->cloud_deletes, 1);
}

static void carry_out(const struct deed *deed)
{
    note(300 + deed->removes, deed->object.node, deed->object.size);
    tell("cloud: %s of %s by node %u", deed->removes ? "removal" : "put", deed->object.key,
         deed->object.node);
    if (deed->removes)
        forget(&deed->object);
    else
        store(&deed->object);
}

uint64_t cloud_next(void)
{
    uint64_t next = NEVER;

    for (const struct deed *deed = bucket.deeds; deed; deed = deed->next)
        if (deed->at < next)
            next = deed->at;
    return next;
}

void cloud_step(void)
{
    struct deed **at = &bucket.deeds;
    uint64_t next = cloud_next();

    while (*at && (*at)->at != next)
        at = &(*at)->next;
    struct deed *deed = *at;
    assert(deed); /* it was due */
    *at = deed->next;
    carry_out(deed);
    if (deed->removes) {
        free(deed->object.body);
        free(deed->object.pairs);
    }
    free(deed); /* else they are the bucket's now */
}

/* ---- Requests ---- */

static struct sim_cloud *of(struct cloud *cloud)
{
    return container_of(cloud, struct sim_cloud, cloud);
}

static uint64_t latency(void)
{
    if (world.now < bucket.rough_until)
        return around(dice(20) ? 300 * MS : 40 * SECOND);
    return 2 * MS + dice(60 * MS);
}

static int start(struct cloud *cloud, struct cloud_request *request)
{
    struct sim_cloud *c = of(cloud);
    struct asking *asking = c->closed ? NULL : calloc(1, sizeof *asking);
    size_t count = 0;

    if (c->closed)
        return ERR_CLOSED;
    if (!asking)
        abort();
    for (const struct asking *other = c->asked; other; other = other->next)
        count++;
    if (count >= LIMIT_CLOUD_REQUESTS) {
        free(asking);
        return ERR_FULL;
    }
    request->cancelled = false;
    request->retry_after_ms = 0;
    request->etag[0] = request->message[0] = '\0';
    if (request->op == CLOUD_LIST)
        fail("node %u: it lists the bucket", c->node->index);
    asking->request = request;
    asking->at = world.now + latency();
    asking->next = c->asked;
    c->asked = asking;
    atomic_fetch_add(&world.counts->cloud_asked, 1);
    return 0;
}

static void consumed(struct cloud *cloud, struct cloud_request *request, uint64_t bytes)
{
    (void)cloud;
    (void)request;
    (void)bytes;
}

static void cancel(struct cloud *cloud, struct cloud_request *request)
{
    request->cancelled = true;
    for (struct asking *asking = of(cloud)->asked; asking; asking = asking->next)
        if (asking->request == request)
            asking->at = world.now;
}

void cloud_hang_up(struct node *node)
{
    if (!node->cloud)
        return;
    of(node->cloud)->closed = true;
    for (struct asking *asking = of(node->cloud)->asked; asking; asking = asking->next)
        cancel(node->cloud, asking->request);
}

static void figures(struct cloud *cloud, struct cloud_figures *out)
{
    (void)cloud;
    memset(out, 0, sizeof *out);
}

static void destroy(struct cloud *cloud)
{
    struct sim_cloud *c = of(cloud);

    if (c->asked)
        fail("node %u: a request to the cloud was never ended", c->node->index);
    free(c);
}

static const struct cloud_backend backend = {"sim", start, consumed, cancel, figures, destroy};

struct cloud *cloud_new(struct node *node)
{
    struct sim_cloud *c = calloc(1, sizeof *c);

    if (!c)
        abort();
    c->cloud = (struct cloud){.backend = &backend, .bucket = "bucket"};
    c->node = node;
    return &c->cloud;
}

static void text_of(char *out, size_t cap, struct cloud_text text)
{
    if (text.len >= cap)
        fail("the cloud is asked for a key, or told a value, that is too long");
    memcpy(out, text.ptr, text.len);
    out[text.len] = '\0';
}

static char *add_text(char *at, struct cloud_text text)
{
    memcpy(at, text.ptr, text.len);
    at[text.len] = '\0';
    return at + text.len + 1;
}

static void read_pairs(struct stored *object, const struct cloud_pair *pairs, size_t count)
{
    size_t bytes = 1;

    for (size_t i = 0; i < count; i++)
        bytes += pairs[i].name.len + pairs[i].value.len + 2;
    char *at = object->pairs = malloc(bytes);
    if (!at)
        abort();
    object->pair_count = count;
    for (size_t i = 0; i < count; i++) {
        const struct cloud_pair *pair = &pairs[i];

        at = add_text(add_text(at, pair->name), pair->value);
        if (pair->name.len == 2 && memcmp(pair->name.ptr, "id", 2) == 0)
            text_of(object->id, sizeof object->id, pair->value);
        if (pair->name.len == 6 && memcmp(pair->name.ptr, "sha256", 6) == 0)
            text_of(object->says, sizeof object->says, pair->value);
    }
}

static int read_body(struct stored *object, struct cloud_request *request)
{
    size_t step = 1 + dice(200000);
    uint8_t *body;
    int rc = 0;

    if (request->size > BODY_BYTES)
        fail("the cloud is sent a body that nobody put");
    body = object->body = malloc(request->size + 1);
    if (!body)
        abort();
    for (uint64_t at = 0; rc == 0 && at < request->size; at += step)
        rc = request->read(request, at, body + at,
                           request->size - at < step ? request->size - at : step);
    if (rc)
        return rc;
    sha256(body, request->size, object->sha256);
    if (memcmp(object->sha256, request->sha256, SHA256_BYTES) != 0)
        fail("the cloud is sent a body of %s that is not what it is said to be", object->key);
    return 0;
}

/* What befalls a request that the server gets, in bad times: 0, or how it fails; *DONE: carried out
 * all the same. */
static int misfortune(struct cloud_request *request, bool *done)
{
    *done = false;
    if (world.now < bucket.away_until)
        return dice(2) ? ERR_TIMEOUT : ERR_CLOSED;
    if (world.now >= bucket.rough_until || dice(3))
        return 0;
    switch (dice(5)) {
    case 0:
        return ERR_CLOSED; /* lost on the way */
    case 1:
        return ERR_AGAIN; /* 500 */
    case 2:
        request->retry_after_ms = (uint32_t)dice(20000); /* 503 */
        return ERR_AGAIN;
    case 3:
        return request->op == CLOUD_PUT ? ERR_MISMATCH : ERR_CLOSED; /* truncated, or altered */
    default:
        *done = true;
        return ERR_TIMEOUT; /* the answer is lost */
    }
}

static void deed_free(struct deed *deed)
{
    free(deed->object.body);
    free(deed->object.pairs);
    free(deed);
}

static void send(struct sim_cloud *c, struct asking *asking)
{
    struct cloud_request *request = asking->request;
    struct deed *deed = calloc(1, sizeof *deed);
    bool done;

    if (!deed)
        abort();
    text_of(deed->object.key, sizeof deed->object.key, request->key);
    deed->object.size = request->size;
    deed->object.node = c->node->index;
    deed->object.disk = c->node->disks;
    deed->object.origin = c->node->sim.journal->committer.chain.origin;
    deed->object.seq = c->node->sim.journal->committer.chain.seq;
    deed->life = c->node->life;
    deed->removes = request->op == CLOUD_DELETE;
    deed->at = world.now + latency();
    asking->stage = ANSWERING;
    asking->at = deed->at + latency();
    asking->rc = request->op == CLOUD_PUT ? read_body(&deed->object, request) : 0;
    if (asking->rc == 0) {
        read_pairs(&deed->object, request->pairs, request->pair_count);
        asking->rc = misfortune(request, &done);
        done |= asking->rc == 0;
    } else {
        done = false;
    }
    if (done && (request->op == CLOUD_PUT || request->op == CLOUD_DELETE)) {
        deed->next = bucket.deeds;
        bucket.deeds = deed;
    } else {
        deed_free(deed);
    }
}

/* The bytes asked for; in bad times not all of them, or others. */
static int give(struct cloud_request *request, const struct stored *object)
{
    static uint8_t bytes[BODY_BYTES];
    uint64_t size = object->size, len;
    bool bad = world.now < bucket.rough_until && dice(4) == 0;
    int rc = 0;

    if (request->offset > size || (request->offset == size && size > 0))
        return ERR_RANGE;
    if (request->if_match.len &&
        (request->if_match.len != strlen(object->says) ||
         memcmp(request->if_match.ptr, object->says, request->if_match.len) != 0))
        return ERR_PRECONDITION;
    len = size - request->offset;
    if (request->length && request->length < len)
        len = request->length;
    memcpy(bytes, object->body + request->offset, len);
    if (bad && len && dice(2)) {
        /* Of the ancestor's nobody can tell which bytes are right: TLS sees to that. */
        size_t at = dice(len);

        bytes[at] ^= object->ancestor ? 0 : 4;
        bucket.altered |= !object->ancestor;
    } else if (bad) {
        len = len ? dice(len) : 0;
        rc = ERR_CLOSED;
    }
    for (uint64_t at = 0, step; at < len; at += step) {
        step = len - at < 100000 ? len - at : 100000;
        request->data(request, bytes + at, step);
    }
    atomic_fetch_add(&world.counts->cloud_gets, 1);
    return rc;
}

static int answer_head(struct cloud_request *request)
{
    char key[64];

    text_of(key, sizeof key, request->key);
    struct stored *object = find(key);
    if (!object)
        return ERR_NOT_FOUND;
    struct cloud_pair pairs[LIMIT_CLOUD_PAIRS];
    const char *at = object->pairs;
    for (size_t i = 0; i < object->pair_count; i++) {
        pairs[i].name = (struct cloud_text){at, (uint32_t)strlen(at)};
        at += pairs[i].name.len + 1;
        pairs[i].value = (struct cloud_text){at, (uint32_t)strlen(at)};
        at += pairs[i].value.len + 1;
    }
    const struct cloud_head head = {.size = object->size,
                                    .etag = {object->says, (uint32_t)strlen(object->says)},
                                    .pairs = pairs,
                                    .pair_count =
                                        request->op == CLOUD_TAGS ? 0 : object->pair_count};
    int rc = request->head ? request->head(request, &head) : 0;
    if (rc || request->op != CLOUD_GET)
        return rc;
    object->gets++;
    return give(request, object);
}

static void answer(struct sim_cloud *c, struct asking *asking)
{
    struct cloud_request *request = asking->request;
    struct asking **at = &c->asked;
    int rc = asking->rc;

    while (*at != asking)
        at = &(*at)->next;
    *at = asking->next;
    free(asking);
    if (request->cancelled)
        rc = ERR_CLOSED;
    else if (rc == 0 && request->op != CLOUD_PUT && request->op != CLOUD_DELETE)
        rc = answer_head(request);
    note(310, c->node->index, (uint64_t)rc);
    if (rc == 0 && request->op == CLOUD_PUT)
        hex_encode(request->etag, request->sha256, SHA256_BYTES);
    if (rc)
        (void)snprintf(request->message, sizeof request->message, "simulated: %s", err_text(rc));
    request->done(request, rc);
}

uint64_t cloud_due(const struct node *node)
{
    uint64_t due = NEVER;

    for (const struct asking *asking = of(node->cloud)->asked; asking; asking = asking->next)
        if (asking->at < due)
            due = asking->at;
    return due;
}

void cloud_take(struct node *node)
{
    struct sim_cloud *c = of(node->cloud);
    uint64_t due = cloud_due(node);
    struct asking *asking = c->asked;

    if (due == NEVER)
        return;
    while (asking->at != due)
        asking = asking->next;
    if (asking->stage == SENDING && !asking->request->cancelled)
        send(c, asking);
    else
        answer(c, asking);
}

void cloud_died(const struct node *node)
{
    for (struct deed **at = &bucket.deeds; *at;) {
        struct deed *deed = *at;

        if (deed->object.node == node->index && deed->life == node->life && dice(2)) {
            *at = deed->next;
            deed_free(deed); /* the connection was cut in the middle of it */
        } else {
            at = &deed->next;
        }
    }
}

/* ---- What was there before ---- */

void cloud_plant(struct key *key, unsigned level)
{
    char stamp[24], size[24], text[2] = {(char)('0' + level), '\0'};
    char hex[2 * SHA256_BYTES + 1];
    struct stored object = {.size = key->size[0],
                            .planted = true,
                            .ancestor = world.ancestor && (key - world.keys) % 2};

    ulid_format(object.key, &key->id);
    hex_encode(hex, key->sha256[0], SHA256_BYTES);
    (void)snprintf(size, sizeof size, "%u", key->size[0]);
    (void)snprintf(stamp, sizeof stamp, "%llu", 1600000000000ULL << 16);
    const struct cloud_pair pairs[] = {
        {{"id", 2}, {object.key, ULID_TEXT_BYTES}},
        {{"size", 4}, {size, (uint32_t)strlen(size)}},
        {{"consistency", 11}, {text, 1}},
        {{"stamp", 5}, {stamp, (uint32_t)strlen(stamp)}},
        {{"name", 4}, {"from before", 11}},
        {{"sha256", 6}, {hex, 2 * SHA256_BYTES}},
    };
    read_pairs(&object, pairs, sizeof pairs / sizeof *pairs - object.ancestor);
    memcpy(object.says, hex, sizeof object.says); /* by its ETag at least */
    memcpy(object.sha256, key->sha256[0], SHA256_BYTES);
    object.body = malloc(object.size + 1);
    if (!object.body)
        abort();
    key_body(key, 0, 0, object.body, object.size);
    store(&object);
    find(object.key)->puts = 0;
    key->planted = true;
    key->submitted |= 1;
    key->level_submitted = (uint8_t)level;
    atomic_fetch_add(&world.counts->planted, 1);
}

static const struct stored *of_key(const struct key *key)
{
    char id[ULID_TEXT_BYTES + 1];

    ulid_format(id, &key->id);
    return find(id);
}

bool cloud_holds(const struct key *key)
{
    return of_key(key) != NULL;
}

bool cloud_mark_is_orphan(const struct key *key)
{
    char mark[MARK_LEN + ULID_TEXT_BYTES + 1] = MARK;

    ulid_format(mark + MARK_LEN, &key->id);
    const struct stored *object = find(mark);
    return object && object->orphan;
}

bool cloud_is_ancestors(const struct key *key)
{
    const struct stored *object = of_key(key);

    return object && object->ancestor;
}

unsigned cloud_gets(const struct key *key)
{
    const struct stored *object = of_key(key);

    return object ? object->gets : 0;
}

/* ---- Trouble ---- */

void cloud_begin(void)
{
    bucket.away_until = world.day ? NEVER : 0;
}

void cloud_away(void)
{
    if (world.day)
        return;
    bucket.away_until = world.now + around(dice(3) ? 2 * MINUTE : 40 * MINUTE);
    atomic_fetch_add(&world.counts->cloud_outages, 1);
    tell("trouble: the cloud is away");
}

void cloud_rough(void)
{
    bucket.rough_until = world.now + around(5 * MINUTE);
    tell("trouble: the cloud fails now and then");
}

bool cloud_alters(void)
{
    return bucket.altered;
}

bool cloud_is_away(void)
{
    return world.now < bucket.away_until;
}

void cloud_heal(void)
{
    bucket.away_until = bucket.rough_until = 0;
}

void cloud_release(void)
{
    while (bucket.deeds) {
        struct deed *next = bucket.deeds->next;

        deed_free(bucket.deeds);
        bucket.deeds = next;
    }
    for (struct removal *next; bucket.removals; bucket.removals = next) {
        next = bucket.removals->next;
        free(bucket.removals);
    }
    for (size_t i = 0; i < bucket.count; i++) {
        free(bucket.objects[i].body);
        free(bucket.objects[i].pairs);
    }
    free(bucket.objects);
}

static bool is_right(const struct stored *object, const struct object *row)
{
    char hex[2 * SHA256_BYTES + 1], id[ULID_TEXT_BYTES + 1];

    hex_encode(hex, row->sha256, SHA256_BYTES);
    ulid_format(id, &row->id);
    return object->size == row->size && memcmp(object->sha256, row->sha256, SHA256_BYTES) == 0 &&
           strcmp(object->says, hex) == 0 && strcmp(object->id, id) == 0;
}

/* ---- Disks that go ---- */

/* Whether a node that is up, other than EXCEPT, has KEY's id as deleted, by whomever. */
static bool somebody_deleted(const char *key, const struct node *except)
{
    bool known = false;
    struct id128 id;

    if (ulid_parse(&id, key, ULID_TEXT_BYTES) != 0)
        return false;
    for (unsigned i = 0; i < NODES && !known; i++) {
        struct node *node = &world.nodes[i];
        struct object *row = NULL;

        if (node != except && node->up &&
            journal_find(node->sim.journal, node->sim.reader, &id, &row) == 0)
            known = row->flags & OBJECT_DELETED;
        object_destroy(&row);
    }
    return known;
}

/* Whether a node that is up, other than EXCEPT, knows what OBJECT's node knew when it put it. */
static bool somebody_knows(const struct stored *object, const struct node *except)
{
    bool known = false;

    if (strncmp(object->key, MARK, MARK_LEN) == 0)
        return somebody_deleted(object->key + MARK_LEN, except);
    for (unsigned i = 0; i < NODES && !known; i++) {
        struct node *node = &world.nodes[i];

        if (node == except || !node->up)
            continue;
        const struct vector_run *run =
            vector_find(sync_vector(node->cluster->sync), &object->origin);
        known = run && !run->frozen && run->seq >= object->seq;
    }
    return known;
}

static void orphan(struct stored *object, const struct node *lost)
{
    bool gone =
        &world.nodes[object->node] == lost || world.nodes[object->node].disks != object->disk;

    if (!gone || object->orphan || object->planted || somebody_knows(object, lost))
        return;
    object->orphan = true;
    atomic_fetch_add(&world.counts->cloud_orphans, 1);
}

void cloud_disk_lost(const struct node *node)
{
    for (size_t i = 0; i < bucket.count; i++)
        orphan(&bucket.objects[i], node);
    for (struct deed *deed = bucket.deeds; deed; deed = deed->next)
        orphan(&deed->object, node);
    for (struct removal *it = bucket.removals; it; it = it->next) {
        bool gone = &world.nodes[it->node] == node || world.nodes[it->node].disks != it->disk;

        if (!gone || it->orphan || somebody_deleted(it->key, node))
            continue;
        it->orphan = true;
        atomic_fetch_add(&world.counts->cloud_orphans, 1);
    }
}

/* Whether it was removed by a node that took what it knew of the delete with it. */
static bool was_orphaned(const char *key)
{
    const struct removal *it = bucket.removals;

    while (it && !(it->orphan && strcmp(it->key, key) == 0))
        it = it->next;
    return it != NULL;
}

/* ---- What has to hold ---- */

bool cloud_is_right(const struct object *row)
{
    char id[ULID_TEXT_BYTES + 1];

    ulid_format(id, &row->id);
    const struct stored *object = find(id);
    return object && is_right(object, row);
}

void cloud_has(const struct node *node, const struct object *row)
{
    char id[ULID_TEXT_BYTES + 1];

    ulid_format(id, &row->id);
    const struct stored *object = find(id);
    if (!object && was_orphaned(id))
        return;
    if (!object)
        fail("node %u says that the cloud has %s, and it has not", node->index, id);
    if (!is_right(object, row) && !object->orphan)
        fail("node %u says that the cloud has %s, and it has other bytes", node->index, id);
}

struct rows {
    struct node *node;
    uint64_t owed;
};

/* What is live and of level 1 is there, unless nobody has its bytes any more. */
static int check_live(void *arg, const struct object *row)
{
    const struct rows *rows = arg;
    char id[ULID_TEXT_BYTES + 1];

    if (row->level < 1 || (row->flags & (OBJECT_PUT | OBJECT_DELETED)) != OBJECT_PUT)
        return 0;
    if (row->flags & OBJECT_UPLOADED) {
        cloud_has(rows->node, row);
        atomic_fetch_add(&world.counts->cloud_promised, 1);
        return 0;
    }
    ulid_format(id, &row->id);
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &world.nodes[i];
        struct object *its = NULL;

        if (journal_find(node->sim.journal, node->sim.reader, &row->id, &its) == 0 &&
            !place_is_none(&its->place))
            fail("%s is of level %u, node %u has its bytes, and the cloud has not", id, row->level,
                 i);
        object_destroy(&its);
    }
    return 0;
}

/* What lies in the bucket belongs there. */
static void check_stored(struct node *node, const struct stored *object)
{
    bool mark = strncmp(object->key, MARK, MARK_LEN) == 0;
    const char *text = object->key + (mark ? MARK_LEN : 0);
    struct object *row = NULL;
    struct id128 id;

    if (ulid_parse(&id, text, ULID_TEXT_BYTES) != 0)
        fail("the cloud has %s, which is no id", object->key);
    int rc = journal_find(node->sim.journal, node->sim.reader, &id, &row);
    if (rc && rc != ERR_NOT_FOUND)
        fail("node %u: a look-up fails: %s", node->index, err_text(rc));
    bool deleted = row && row->flags & OBJECT_DELETED;
    bool unknown = object->planted && !(row && row->flags & OBJECT_CLOUD);
    if (mark && !deleted && !object->orphan)
        fail("the cloud has a mark of %s, which is not deleted", text);
    if (!mark && !unknown && !object->orphan) {
        if (!row)
            fail("the cloud has %s, of which nobody knows", text);
        if (!(row->flags & OBJECT_CLOUD))
            fail("the cloud has %s, and nobody knows that it has", text);
        if (deleted && row->flags & OBJECT_PURGE)
            fail("the cloud has %s, which is purged", text);
        if (!deleted && row->level < 1)
            fail("the cloud has %s, which is of level 0", text);
    }
    object_destroy(&row);
}

static void check_marks(struct node *node)
{
    for (size_t i = 0; i < world.key_count; i++) {
        struct object *row = NULL;
        char key[MARK_LEN + ULID_TEXT_BYTES + 1] = MARK;
        int rc = journal_find(node->sim.journal, node->sim.reader, &world.keys[i].id, &row);

        ulid_format(key + MARK_LEN, &world.keys[i].id);
        if (rc == 0 &&
            (row->flags & (OBJECT_DELETED | OBJECT_CLOUD)) == (OBJECT_DELETED | OBJECT_CLOUD)) {
            if (!find(key))
                fail("%s is deleted, may be in the cloud, and has no mark there", key + MARK_LEN);
            atomic_fetch_add(&world.counts->cloud_marks, 1);
        }
        object_destroy(&row);
    }
}

/* Without crashes each body gets there once. */
static void check_once(void)
{
    for (size_t i = 0; i < world.key_count; i++) {
        const struct key *key = &world.keys[i];
        char id[ULID_TEXT_BYTES + 1];

        ulid_format(id, &key->id);
        const struct stored *object = find(id);
        bool raced =
            key->put_on & (key->put_on - 1); /* by nodes that had not heard of each other */
        if (object && !raced && object->puts != !key->planted)
            fail("%s was uploaded %u times, though nothing went wrong", id, object->puts);
    }
}

void cloud_check(void)
{
    struct node *node = &world.nodes[0];
    struct rows rows = {.node = node};
    struct id128 last = {{0}};
    unsigned count = 0;
    int rc;

    do {
        const struct id128 after = last;

        rc = db_each_object(node->sim.reader, &after, 1000, check_live, &rows, &last, &count);
        if (rc)
            fail("node %u: its rows cannot be read: %s", node->index, err_text(rc));
    } while (count == 1000);
    for (size_t i = 0; i < bucket.count; i++)
        check_stored(node, &bucket.objects[i]);
    check_marks(node);
    if (world.calm)
        check_once();
    atomic_fetch_add(&world.counts->cloud_checks, bucket.count);
}

static int count_row(void *arg, const struct db_owed *owed)
{
    uint64_t *count = arg;

    (void)owed;
    ++*count;
    return 0;
}

/* Nothing is owed, and nothing in doubt. */
bool cloud_is_settled(void)
{
    if (bucket.deeds)
        return false;
    for (unsigned i = 0; i < NODES; i++) {
        struct node *node = &world.nodes[i];
        struct journal_stats stats;
        uint64_t begun = 0;

        journal_stats(node->sim.journal, &stats);
        if (stats.outbox || stats.marks || stats.purges)
            return false;
        if (db_reader_outbox(node->sim.reader, OUTBOX_BEGUN, NULL, 1, count_row, &begun) != 0 ||
            begun)
            return false;
    }
    return true;
}
