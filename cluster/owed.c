/*
 * What has just become owed is told, and waits in a bounded ring. Besides, a sweep goes
 * through the outbox, kind by kind, in pages: what another node was to do and does not, what a
 * crash or a long outage left, what was forgotten here after a failure. Retries that are due go
 * first, then the ring, the sweep.
 *
 * Two lanes: small things, and large bodies, which must not hold up the others. A large one that
 * the sweep meets while its lane is full waits in a short list; of more the next sweep finds the
 * rest.
 *
 * Whose turn. All nodes that could do a thing have the same order of them. The first one does it.
 * The next one takes over when those before it have been away for a while (OWED_AWAY_MS), or are
 * there and do nothing of what they owe (OWED_PATIENCE_MS, and longer for a large body). That a
 * node does something is seen from its events; that it owes nothing, from a sweep that met nothing
 * that waits for it. So no time is kept for each row, and a long backlog that its node works off is
 * left to it. While the cloud cannot be reached from here nobody's patience runs out.
 *
 * Failure: what failed rests, with full jitter, longer each time. The table of these is bounded:
 * where it is full, whoever would rest longest is forgotten, as a later sweep meets it again.
 */
#include "cluster/owed.h"

#include <assert.h>
#include <stdlib.h>

#define KINDS       (sizeof kinds / sizeof *kinds)
#define FLIGHTS     (LIMIT_OWED_SMALL + LIMIT_OWED_LARGE)
#define LARGE_QUEUE 64

/* In what order a sweep goes through them. */
static const enum outbox_kind kinds[] = {OUTBOX_UPLOAD, OUTBOX_PURGE, OUTBOX_MARK, OUTBOX_BEGUN};

struct item {
    struct id128 id;
    uint64_t size;
    enum outbox_kind kind;
    bool own;
};

struct rest {
    struct item item;
    unsigned attempts; /* that failed; 0: it rests for a moment */
    uint64_t retry_ms;
    bool flies, started;
};

struct node {
    struct id128 node;
    bool answers;
    uint64_t since_ms; /* since when it does, or does not */
    uint64_t moved_ms; /* when it was seen to do something, or to owe nothing */
    bool waits;        /* the sweep has met something that waits for it */
};

struct ring {
    size_t first, count;
};

struct owed {
    uint64_t dice;
    struct item new[LIMIT_OWED_NEW];
    struct ring news;
    struct item large[LARGE_QUEUE]; /* met by the sweep while their lane was full */
    struct ring larges;

    bool sweeping, asked, again, at_end;
    size_t kind; /* of the sweep */
    struct id128 after;
    struct item page[LIMIT_OWED_PAGE];
    size_t next, count;
    uint64_t began_ms, sweep_min_ms, sweep_max_ms;

    uint64_t released_ms; /* when the first of those that the sweep waits for has lost his turn */
    uint64_t pause_ms;    /* nothing starts before */
    uint64_t reached_ms;  /* the cloud can be reached since */
    uint64_t due_ms;      /* no rest is over before */
    struct item flights[FLIGHTS];
    size_t flight_count, large_count;
    struct rest rests[LIMIT_OWED_RESTS];
    size_t rest_count;
    struct node nodes[LIMIT_MEMBERS];
    size_t node_count;
};

/* splitmix64 (Steele et al., 2014), as a number below BELOW. */
static uint64_t draw(struct owed *o, uint64_t below)
{
    uint64_t x = o->dice += UINT64_C(0x9e3779b97f4a7c15);

    assert(below > 0);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return (x ^ x >> 31) % below;
}

int owed_create(struct owed **out, uint64_t seed, uint64_t now_ms)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return ERR_NO_MEMORY;
    (*out)->dice = seed;
    (*out)->due_ms = UINT64_MAX;
    (*out)->reached_ms = now_ms;
    return 0;
}

void owed_destroy(struct owed **owed)
{
    free(*owed);
    *owed = NULL;
}

size_t owed_flights(const struct owed *owed)
{
    return owed->flight_count;
}

size_t owed_failures(const struct owed *owed)
{
    return owed->rest_count;
}

void owed_news(struct owed *o)
{
    o->again = true;
}

static bool is_large(const struct item *item)
{
    return item->kind == OUTBOX_UPLOAD && item->size > OWED_LARGE_BYTES;
}

static bool same(const struct item *a, enum outbox_kind kind, const struct id128 *id)
{
    return a->kind == kind && id_equal(&a->id, id);
}

void owed_new(struct owed *o, enum outbox_kind kind, const struct id128 *id, uint64_t size,
              bool own)
{
    if (o->news.count < LIMIT_OWED_NEW)
        o->new[(o->news.first + o->news.count++) % LIMIT_OWED_NEW] =
            (struct item){.kind = kind, .id = *id, .size = size, .own = own};
    o->again = true;
}

/* ---- Other nodes ---- */

static struct node *node_of(struct owed *o, const struct id128 *id)
{
    for (size_t i = 0; i < o->node_count; i++)
        if (id_equal(&o->nodes[i].node, id))
            return &o->nodes[i];
    return NULL;
}

static bool names(const struct owed_node *nodes, size_t count, const struct id128 *id)
{
    for (size_t i = 0; i < count; i++)
        if (id_equal(&nodes[i].node, id))
            return true;
    return false;
}

void owed_members(struct owed *o, const struct owed_node *nodes, size_t count, uint64_t now_ms)
{
    for (size_t i = 0; i < o->node_count;)
        if (names(nodes, count, &o->nodes[i].node))
            i++;
        else
            o->nodes[i] = o->nodes[--o->node_count];
    for (size_t i = 0; i < count; i++) {
        struct node *node = node_of(o, &nodes[i].node);

        if (!node && o->node_count == LIMIT_MEMBERS)
            continue; /* it has no turn, then */
        if (!node) {
            node = &o->nodes[o->node_count++];
            *node = (struct node){.node = nodes[i].node, .answers = nodes[i].answers};
            node->since_ms = now_ms;
        }
        if (node->answers == nodes[i].answers)
            continue;
        node->answers = nodes[i].answers;
        node->since_ms = now_ms;
        o->again = true;
    }
}

void owed_moved(struct owed *o, const struct id128 *id, uint64_t now_ms)
{
    struct node *node = node_of(o, id);

    if (node)
        node->moved_ms = now_ms;
}

void owed_reached(struct owed *o, uint64_t now_ms)
{
    o->reached_ms = now_ms;
    o->again = true;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Until when what is NODE's is left to it. */
static uint64_t release_ms(const struct owed *o, const struct node *node, uint64_t size)
{
    if (!node->answers)
        return node->since_ms + OWED_AWAY_MS;
    return later(later(node->since_ms, node->moved_ms), o->reached_ms) + OWED_PATIENCE_MS +
           size / (OWED_SPEED_BYTES / 1000);
}

bool owed_turn(struct owed *o, const struct id128 *candidates, size_t count,
               const struct id128 *self, uint64_t size, uint64_t now_ms)
{
    for (size_t i = 0; i < count; i++) {
        if (id_equal(&candidates[i], self))
            return true;
        struct node *node = node_of(o, &candidates[i]);
        uint64_t until_ms = node ? release_ms(o, node, size) : 0;

        if (node && until_ms > now_ms) {
            node->waits = true;
            if (until_ms < o->released_ms)
                o->released_ms = until_ms;
            return false;
        }
    }
    return false; /* this node is none of them */
}

/* ---- Rests ---- */

static struct rest *rest_of(struct owed *o, enum outbox_kind kind, const struct id128 *id)
{
    for (size_t i = 0; i < o->rest_count; i++)
        if (same(&o->rests[i].item, kind, id))
            return &o->rests[i];
    return NULL;
}

/* The place for a new one: where there is none left, the one who would rest longest gives way. */
static struct rest *rest_add(struct owed *o, const struct item *item)
{
    struct rest *rest = NULL;

    if (o->rest_count < LIMIT_OWED_RESTS) {
        rest = &o->rests[o->rest_count++];
    } else {
        for (size_t i = 0; i < o->rest_count; i++)
            if (!o->rests[i].flies && (!rest || o->rests[i].retry_ms > rest->retry_ms))
                rest = &o->rests[i];
    }
    assert(rest); /* there are more of them than can fly */
    *rest = (struct rest){.item = *item};
    return rest;
}

static void rest_until(struct owed *o, struct rest *rest, uint64_t until_ms)
{
    rest->flies = false;
    rest->retry_ms = until_ms;
    if (until_ms < o->due_ms)
        o->due_ms = until_ms;
}

/* Full jitter: anything up to a bound that doubles. */
static uint64_t backoff_ms(struct owed *o, unsigned attempts)
{
    uint64_t bound = OWED_BACKOFF_MS;

    for (unsigned i = 1; i < attempts && bound < OWED_BACKOFF_MAX_MS; i++)
        bound *= 2;
    if (bound > OWED_BACKOFF_MAX_MS)
        bound = OWED_BACKOFF_MAX_MS;
    return 1 + draw(o, bound);
}

static bool has_room(const struct owed *o, bool large)
{
    return large ? o->large_count < LIMIT_OWED_LARGE
                 : o->flight_count - o->large_count < LIMIT_OWED_SMALL;
}

/* The first rest that is over, and whose lane has room; due_ms is when to look again. */
static struct rest *due(struct owed *o, uint64_t now_ms)
{
    struct rest *first = NULL;
    uint64_t next_ms = UINT64_MAX;

    if (now_ms < o->due_ms)
        return NULL;
    for (size_t i = 0; i < o->rest_count; i++) {
        struct rest *rest = &o->rests[i];

        if (rest->flies)
            continue;
        if (rest->retry_ms < next_ms)
            next_ms = rest->retry_ms;
        if (rest->retry_ms <= now_ms && has_room(o, is_large(&rest->item)) &&
            (!first || rest->retry_ms < first->retry_ms))
            first = rest;
    }
    o->due_ms = next_ms;
    return first;
}

/* ---- Flights ---- */

static bool flies(const struct owed *o, enum outbox_kind kind, const struct id128 *id)
{
    for (size_t i = 0; i < o->flight_count; i++)
        if (same(&o->flights[i], kind, id))
            return true;
    return false;
}

static void start(struct owed *o, const struct item *item, bool own, struct owed_step *out)
{
    struct rest *rest = rest_of(o, item->kind, &item->id);

    assert(has_room(o, is_large(item)) && !flies(o, item->kind, &item->id));
    if (rest)
        rest->flies = true;
    o->flights[o->flight_count++] = *item;
    o->large_count += is_large(item);
    *out = (struct owed_step){.act = OWED_START,
                              .kind = item->kind,
                              .id = item->id,
                              .own = own,
                              .started = rest && rest->started};
}

void owed_ended(struct owed *o, enum outbox_kind kind, const struct id128 *id,
                enum owed_outcome outcome, bool started, uint64_t retry_ms, uint64_t now_ms)
{
    struct rest *rest = rest_of(o, kind, id);
    size_t at = 0;

    while (at < o->flight_count && !same(&o->flights[at], kind, id))
        at++;
    assert(at < o->flight_count);
    const struct item item = o->flights[at];
    o->large_count -= is_large(&item);
    o->flights[at] = o->flights[--o->flight_count];
    if (outcome == OWED_DONE || outcome == OWED_GONE) {
        if (rest)
            *rest = o->rests[--o->rest_count];
        return;
    }
    if (!rest)
        rest = rest_add(o, &item);
    rest->started = started;
    switch (outcome) {
    case OWED_AGAIN:
        rest->attempts = 0;
        rest_until(o, rest, now_ms);
        break;
    case OWED_BUSY:
        o->pause_ms = now_ms + OWED_BUSY_MS;
        rest_until(o, rest, o->pause_ms);
        break;
    default:
        assert(outcome == OWED_FAILED);
        rest->attempts++;
        rest_until(o, rest, now_ms + retry_ms + backoff_ms(o, rest->attempts));
        break;
    }
}

/* Whether ITEM may start; else it is under way, or rests. What is in doubt, or to be removed, is
 * not looked at while it is being uploaded. */
static bool is_free(struct owed *o, const struct item *item)
{
    if (item->kind != OUTBOX_UPLOAD && item->kind != OUTBOX_MARK &&
        (flies(o, OUTBOX_UPLOAD, &item->id) || rest_of(o, OUTBOX_UPLOAD, &item->id)))
        return false;
    return !flies(o, item->kind, &item->id) && !rest_of(o, item->kind, &item->id);
}

static struct item *peek(struct ring *ring, struct item *items)
{
    return ring->count ? &items[ring->first] : NULL;
}

static void drop(struct ring *ring, size_t cap)
{
    assert(ring->count > 0);
    ring->first = (ring->first + 1) % cap;
    ring->count--;
}

/* A large one has to wait for its lane: in the list, or for the next sweep. */
static void put_off(struct owed *o, const struct item *item)
{
    for (size_t i = 0; i < o->larges.count; i++)
        if (same(&o->large[(o->larges.first + i) % LARGE_QUEUE], item->kind, &item->id))
            return;
    if (o->larges.count == LARGE_QUEUE)
        o->again = true;
    else
        o->large[(o->larges.first + o->larges.count++) % LARGE_QUEUE] = *item;
}

/* Start the next of those that this node has brought about, if there is one. */
static bool start_new(struct owed *o, struct owed_step *out)
{
    const struct item *next;

    while ((next = peek(&o->news, o->new)) != NULL) {
        const struct item item = *next;

        if (is_free(o, &item)) {
            if (!is_large(&item) && !has_room(o, false))
                return false;
            drop(&o->news, LIMIT_OWED_NEW);
            if (has_room(o, is_large(&item))) {
                start(o, &item, item.own, out);
                return true;
            }
            put_off(o, &item);
        } else {
            drop(&o->news, LIMIT_OWED_NEW);
        }
    }
    return false;
}

static bool start_large(struct owed *o, struct owed_step *out)
{
    const struct item *next;

    while (has_room(o, true) && (next = peek(&o->larges, o->large)) != NULL) {
        const struct item item = *next;

        drop(&o->larges, LARGE_QUEUE);
        if (is_free(o, &item)) {
            start(o, &item, false, out);
            return true;
        }
    }
    return false;
}

/* ---- The sweep ---- */

static void begin_list(struct owed *o)
{
    o->after = (struct id128){{0}};
    o->next = o->count = 0;
    o->at_end = false;
}

static void set_out(struct owed *o, uint64_t now_ms)
{
    if (o->sweeping || now_ms < (o->again ? o->sweep_min_ms : o->sweep_max_ms))
        return;
    o->sweeping = true;
    o->again = false;
    o->began_ms = now_ms;
    o->kind = 0;
    o->released_ms = UINT64_MAX;
    for (size_t i = 0; i < o->node_count; i++)
        o->nodes[i].waits = false;
    begin_list(o);
}

static void sweep_ended(struct owed *o, uint64_t now_ms)
{
    uint64_t pause = (now_ms - o->began_ms) * 4;

    if (pause < OWED_SWEEP_MIN_MS)
        pause = OWED_SWEEP_MIN_MS;
    if (pause > OWED_SWEEP_MAX_MS)
        pause = OWED_SWEEP_MAX_MS;
    o->sweeping = false;
    o->sweep_min_ms = now_ms + pause;
    o->sweep_max_ms = now_ms + OWED_SWEEP_MAX_MS;
    if (o->released_ms < o->sweep_max_ms)
        o->sweep_max_ms = later(o->released_ms, o->sweep_min_ms);
    /* Who was not waited for owed nothing, at least when it began. */
    for (size_t i = 0; i < o->node_count; i++)
        if (!o->nodes[i].waits)
            o->nodes[i].moved_ms = later(o->nodes[i].moved_ms, o->began_ms);
}

/* The sweep's next step: true with *OUT, or it has none (any more, for now). */
static bool sweep_step(struct owed *o, uint64_t now_ms, struct owed_step *out)
{
    while (o->sweeping) {
        while (o->next < o->count) {
            const struct item *item = &o->page[o->next];

            if (is_free(o, item)) {
                if (has_room(o, is_large(item))) {
                    o->next++;
                    start(o, item, false, out);
                    return true;
                }
                if (!is_large(item))
                    return false;
                put_off(o, item);
            }
            o->next++;
        }
        if (!o->at_end) {
            o->asked = true;
            *out = (struct owed_step){.act = OWED_READ, .kind = kinds[o->kind], .id = o->after};
            return true;
        }
        if (++o->kind == KINDS)
            sweep_ended(o, now_ms);
        else
            begin_list(o);
    }
    return false;
}

void owed_page(struct owed *o, int rc, const struct owed_row *rows, size_t count, uint64_t now_ms)
{
    assert(o->asked && count <= LIMIT_OWED_PAGE);
    o->asked = false;
    if (rc) {
        /* From its beginning, later: a database that cannot be read is not asked all the time. */
        o->pause_ms = now_ms + OWED_BACKOFF_MS;
        o->sweeping = false;
        o->again = true;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        assert(id_compare(&rows[i].id, i ? &rows[i - 1].id : &o->after) > 0);
        o->page[i] = (struct item){.kind = kinds[o->kind], .id = rows[i].id, .size = rows[i].size};
    }
    o->next = 0;
    o->count = count;
    o->at_end = count < LIMIT_OWED_PAGE;
    if (count)
        o->after = rows[count - 1].id;
}

void owed_step(struct owed *o, uint64_t now_ms, struct owed_step *out)
{
    struct rest *rest;

    assert(!o->asked);
    *out = (struct owed_step){.act = OWED_WAIT, .until_ms = UINT64_MAX};
    if (now_ms < o->pause_ms) {
        out->until_ms = o->pause_ms;
        return;
    }
    if (!has_room(o, false) && !has_room(o, true))
        return;
    if ((rest = due(o, now_ms)) != NULL) {
        const struct item item = rest->item;

        start(o, &item, false, out);
        return;
    }
    if (start_new(o, out) || start_large(o, out))
        return;
    set_out(o, now_ms);
    if (sweep_step(o, now_ms, out))
        return;
    if (o->due_ms > now_ms) /* else its lane is full: an end comes first */
        out->until_ms = o->due_ms;
    if (!o->sweeping) {
        uint64_t sweep_ms = o->again ? o->sweep_min_ms : o->sweep_max_ms;

        if (sweep_ms < out->until_ms)
            out->until_ms = sweep_ms;
    }
}
