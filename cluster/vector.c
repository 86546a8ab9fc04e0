/*
 * The version vector.
 *
 * Runs lie in an array, in the order in which they became known; nothing is ever removed. A hash
 * table with open addressing holds their numbers, so that a look-up is O(1). Two ordered lists hold
 * them again, by origin: the live runs, and the ended ones. Such a list is an array of chunks, each
 * a short sorted array: an insertion moves at most one chunk's bytes, a split the chunks' pointers.
 *
 * Sums are kept up as runs change: what a run contributed before is subtracted, what it contributes
 * now is added. Memory for everything that an insertion needs is taken before the first change.
 */
#include "cluster/vector.h"

#include "base/bytes.h"

#include <assert.h>
#include <stdlib.h>

#define CHUNK_RUNS 256
#define FIRST_RUNS 16

struct chunk {
    uint32_t count;
    uint32_t at[CHUNK_RUNS];
};

struct order {
    struct chunk **chunks;
    size_t chunk_count, chunk_cap;
    size_t count;
};

struct vector {
    size_t limit;
    uint64_t seed;
    struct vector_run *runs;
    size_t count, cap;
    uint32_t *slots; /* number + 1; 0: empty */
    size_t slot_count;
    struct order live, ended;
    struct vector_sum all_sum, ended_sum;
};

int vector_create(struct vector **out, size_t limit, uint64_t seed)
{
    assert(limit > 0 && limit <= LIMIT_RUNS);

    *out = calloc(1, sizeof **out);
    if (!*out)
        return ERR_NO_MEMORY;
    (*out)->limit = limit;
    (*out)->seed = seed;
    return 0;
}

static void order_release(struct order *order)
{
    for (size_t i = 0; i < order->chunk_count; i++)
        free(order->chunks[i]);
    free(order->chunks);
}

void vector_destroy(struct vector **vector)
{
    if (!*vector)
        return;
    order_release(&(*vector)->live);
    order_release(&(*vector)->ended);
    free((*vector)->runs);
    free((*vector)->slots);
    free(*vector);
    *vector = NULL;
}

/* ---- the table ---- */

/* The slot that holds ORIGIN, or the empty one where it belongs. */
static size_t slot_of(const struct vector *v, const struct id128 *origin)
{
    size_t slot = xxh64(origin->bytes, sizeof origin->bytes, v->seed) & (v->slot_count - 1);

    while (v->slots[slot] && !id_equal(&v->runs[v->slots[slot] - 1].origin, origin))
        slot = (slot + 1) & (v->slot_count - 1);
    return slot;
}

static struct vector_run *find(const struct vector *v, const struct id128 *origin)
{
    if (!v->slot_count)
        return NULL;
    uint32_t number = v->slots[slot_of(v, origin)];

    return number ? &v->runs[number - 1] : NULL;
}

/* Room for one run more; at most half of the slots are ever taken. */
static int table_grow(struct vector *v)
{
    if (v->count < v->cap)
        return 0;
    size_t cap = v->cap ? 2 * v->cap : FIRST_RUNS;
    uint32_t *slots = calloc(2 * cap, sizeof *slots);
    struct vector_run *runs = slots ? realloc(v->runs, cap * sizeof *runs) : NULL;

    if (!runs) {
        free(slots);
        return ERR_NO_MEMORY;
    }
    free(v->slots);
    v->runs = runs;
    v->slots = slots;
    v->slot_count = 2 * cap;
    v->cap = cap;
    for (size_t i = 0; i < v->count; i++)
        slots[slot_of(v, &runs[i].origin)] = (uint32_t)i + 1;
    return 0;
}

/* ---- the ordered lists ---- */

static const struct id128 *key(const struct vector *v, const struct chunk *chunk, size_t i)
{
    assert(i < chunk->count);
    return &v->runs[chunk->at[i]].origin;
}

/* The last chunk that begins at or before ORIGIN, or the first one. */
static size_t chunk_of(const struct vector *v, const struct order *order,
                       const struct id128 *origin)
{
    size_t low = 0, high = order->chunk_count;

    while (high - low > 1) {
        size_t middle = (low + high) / 2;

        if (id_compare(key(v, order->chunks[middle], 0), origin) <= 0)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* How many of CHUNK's runs are at or before ORIGIN. */
static size_t up_to(const struct vector *v, const struct chunk *chunk, const struct id128 *origin)
{
    size_t low = 0, high = chunk->count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (id_compare(key(v, chunk, middle), origin) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const struct vector_run *order_after(const struct vector *v, const struct order *order,
                                            const struct id128 *origin)
{
    if (!order->count)
        return NULL;
    size_t at = origin ? chunk_of(v, order, origin) : 0;
    size_t i = origin ? up_to(v, order->chunks[at], origin) : 0;

    if (i == order->chunks[at]->count) {
        i = 0;
        at++;
    }
    return at < order->chunk_count ? &v->runs[order->chunks[at]->at[i]] : NULL;
}

/* A chunk at position AT; the others give way. */
static int chunk_add(struct order *order, size_t at)
{
    if (order->chunk_count == order->chunk_cap) {
        size_t cap = order->chunk_cap ? 2 * order->chunk_cap : FIRST_RUNS;
        struct chunk **chunks = realloc(order->chunks, cap * sizeof(*chunks));

        if (!chunks)
            return ERR_NO_MEMORY;
        order->chunks = chunks;
        order->chunk_cap = cap;
    }
    struct chunk *chunk = calloc(1, sizeof *chunk);

    if (!chunk)
        return ERR_NO_MEMORY;
    memmove(&order->chunks[at + 1], &order->chunks[at],
            (order->chunk_count - at) * sizeof(*order->chunks));
    order->chunks[at] = chunk;
    order->chunk_count++;
    return 0;
}

/* Make sure that the chunk for ORIGIN has room for it: *AT. A full last chunk that ORIGIN follows,
 * as new ULIDs do, stays full; others are halved. */
static int order_reserve(struct vector *v, struct order *order, const struct id128 *origin,
                         size_t *at)
{
    if (!order->chunk_count) {
        *at = 0;
        return chunk_add(order, 0);
    }
    *at = chunk_of(v, order, origin);
    struct chunk *full = order->chunks[*at];

    if (full->count < CHUNK_RUNS)
        return 0;
    bool behind = *at + 1 == order->chunk_count && up_to(v, full, origin) == CHUNK_RUNS;
    int rc = chunk_add(order, *at + 1);

    if (rc < 0)
        return rc;
    if (!behind) {
        struct chunk *half = order->chunks[*at + 1];

        half->count = CHUNK_RUNS / 2;
        full->count = CHUNK_RUNS - half->count;
        memcpy(half->at, &full->at[full->count], half->count * sizeof(*half->at));
        behind = id_compare(key(v, half, 0), origin) <= 0;
    }
    *at += behind;
    return 0;
}

/* Put run NUMBER where order_reserve has made room. */
static void order_insert(struct vector *v, struct order *order, size_t at, uint32_t number)
{
    struct chunk *chunk = order->chunks[at];
    size_t i = up_to(v, chunk, &v->runs[number].origin);

    assert(chunk->count < CHUNK_RUNS);
    memmove(&chunk->at[i + 1], &chunk->at[i], (chunk->count - i) * sizeof(*chunk->at));
    chunk->at[i] = number;
    chunk->count++;
    order->count++;
}

static void order_remove(struct vector *v, struct order *order, uint32_t number)
{
    size_t at = chunk_of(v, order, &v->runs[number].origin);
    struct chunk *chunk = order->chunks[at];
    size_t i = up_to(v, chunk, &v->runs[number].origin);

    assert(i > 0 && chunk->at[i - 1] == number);
    memmove(&chunk->at[i - 1], &chunk->at[i], (chunk->count - i) * sizeof(*chunk->at));
    order->count--;
    if (--chunk->count)
        return;
    free(chunk);
    order->chunk_count--;
    memmove(&order->chunks[at], &order->chunks[at + 1],
            (order->chunk_count - at) * sizeof(*order->chunks));
}

/* ---- changes ---- */

static struct hash128 hash_of(const struct id128 *origin, uint64_t seq)
{
    uint8_t pair[sizeof origin->bytes + 8];

    memcpy(pair, origin->bytes, sizeof origin->bytes);
    put_u64(pair + sizeof origin->bytes, seq);
    return xxh128(pair, sizeof pair, VECTOR_SCHEMA);
}

void vector_sum_add(struct vector_sum *sum, const struct id128 *origin, uint64_t seq)
{
    struct hash128 hash = hash_of(origin, seq);

    sum->hash.low += hash.low;
    sum->hash.high += hash.high;
    sum->count++;
}

void vector_sum_subtract(struct vector_sum *sum, const struct id128 *origin, uint64_t seq)
{
    struct hash128 hash = hash_of(origin, seq);

    assert(sum->count > 0);
    sum->hash.low -= hash.low;
    sum->hash.high -= hash.high;
    sum->count--;
}

static void count_in(struct vector *v, const struct vector_run *run)
{
    if (!run->frozen)
        vector_sum_add(&v->all_sum, &run->origin, run->seq);
    if (vector_run_is_ended(run))
        vector_sum_add(&v->ended_sum, &run->origin, run->seq);
}

static void count_out(struct vector *v, const struct vector_run *run)
{
    if (!run->frozen)
        vector_sum_subtract(&v->all_sum, &run->origin, run->seq);
    if (vector_run_is_ended(run))
        vector_sum_subtract(&v->ended_sum, &run->origin, run->seq);
}

static int insert(struct vector *v, const struct vector_run *run)
{
    if (v->count == v->limit)
        return ERR_FULL;
    struct order *order = vector_run_is_ended(run) ? &v->ended : &v->live;
    size_t at = 0;
    int rc = table_grow(v);

    if (rc == 0)
        rc = order_reserve(v, order, &run->origin, &at);
    if (rc < 0)
        return rc;
    uint32_t number = (uint32_t)v->count++;

    v->runs[number] = *run;
    v->slots[slot_of(v, &run->origin)] = number + 1;
    order_insert(v, order, at, number);
    count_in(v, run);
    return 0;
}

static int update(struct vector *v, struct vector_run *run, const struct vector_run *next)
{
    bool was = vector_run_is_ended(run), is = vector_run_is_ended(next);
    uint32_t number = (uint32_t)(run - v->runs);
    struct order *to = is ? &v->ended : &v->live, *from = was ? &v->ended : &v->live;
    size_t at = 0;
    int rc = was != is ? order_reserve(v, to, &run->origin, &at) : 0;

    if (rc < 0)
        return rc;
    if (was != is) {
        order_insert(v, to, at, number);
        order_remove(v, from, number);
    }
    count_out(v, run);
    *run = *next;
    count_in(v, run);
    return 0;
}

int vector_raise(struct vector *vector, const struct vector_run *run, bool *changed)
{
    struct vector_run *known = find(vector, &run->origin);

    if (changed)
        *changed = !known;
    if (!known)
        return insert(vector, run);
    struct vector_run next = *known;

    next.ended |= run->ended;
    next.frozen |= run->frozen;
    if (run->seq > next.seq) {
        next.seq = run->seq;
        memcpy(next.hash, run->hash, sizeof next.hash);
    }
    if (run->anchor_seq > next.anchor_seq)
        next.anchor_seq = run->anchor_seq;
    if (changed)
        *changed =
            next.seq != known->seq || next.ended != known->ended || next.frozen != known->frozen;
    return update(vector, known, &next);
}

/* ---- questions ---- */

const struct vector_run *vector_find(const struct vector *vector, const struct id128 *origin)
{
    return find(vector, origin);
}

const struct vector_run *vector_after(const struct vector *vector, const struct id128 *origin,
                                      enum vector_part part)
{
    const struct vector_run *live =
        part & VECTOR_LIVE ? order_after(vector, &vector->live, origin) : NULL;
    const struct vector_run *ended =
        part & VECTOR_ENDED ? order_after(vector, &vector->ended, origin) : NULL;

    if (!live || !ended)
        return live ? live : ended;
    return id_compare(&live->origin, &ended->origin) < 0 ? live : ended;
}

size_t vector_count(const struct vector *vector, enum vector_part part)
{
    return (part & VECTOR_LIVE ? vector->live.count : 0) +
           (part & VECTOR_ENDED ? vector->ended.count : 0);
}

struct vector_sum vector_sum(const struct vector *vector, enum vector_part part)
{
    assert(part == VECTOR_ENDED || part == VECTOR_ALL);
    return part == VECTOR_ENDED ? vector->ended_sum : vector->all_sum;
}

bool vector_has_room(const struct vector *vector)
{
    return vector->count < vector->limit;
}
