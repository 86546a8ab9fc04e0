/*
 * What this node knows: for each run (origin) how far, in one table. Pure; not thread-safe.
 *
 * Sums that do not depend on the order let two nodes compare all they know in 16 bytes: the sum, as
 * struct hash128 with each half modulo 2^64, of XXH3-128 over every (origin, seq). The ended runs,
 * which are many and hardly change, have a sum of their own. Frozen runs are in no sum.
 */
#ifndef CLUSTER_VECTOR_H
#define CLUSTER_VECTOR_H

#include "base/err.h"
#include "base/hash.h"
#include "base/id.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of what the sums are made: a change makes every pair of nodes differ. */
#define VECTOR_SCHEMA 1

struct vector_run {
    struct id128 origin, node;
    uint64_t seq;               /* the last event that is known here, durably */
    uint64_t anchor_seq;        /* events up to this one were compacted away here */
    uint8_t hash[SHA256_BYTES]; /* of event SEQ */
    bool ended;                 /* another run follows it: nothing more is to come */
    bool frozen;                /* it contradicts itself: neither taken, given nor compared */
};

enum vector_part { VECTOR_LIVE = 1, VECTOR_ENDED = 2, VECTOR_ALL = 3 };

struct vector_sum {
    struct hash128 hash;
    uint64_t count; /* of runs */
};

struct vector;

/* An empty vector for at most LIMIT runs (at most LIMIT_RUNS). SEED spreads the table, so
 * that nobody elsewhere can choose origins that collide. */
int vector_create(struct vector **out, size_t limit, uint64_t seed) MUST_CHECK;
void vector_destroy(struct vector **vector);

/*
 * Learn of a run. A new one is inserted; of a known one seq (with its hash) and anchor_seq are
 * raised, never lowered; ended and frozen are for ever. *CHANGED (may be NULL): whether a sum or a
 * flag is another now. ERR_FULL: LIMIT runs are there; ERR_NO_MEMORY. Then nothing has changed.
 */
int vector_raise(struct vector *vector, const struct vector_run *run, bool *changed) MUST_CHECK;

/* The run, or NULL. Valid until the next raise. */
const struct vector_run *vector_find(const struct vector *vector, const struct id128 *origin);

/* The first run of PART behind ORIGIN (NULL: of all) in the order of origins; NULL: none. Valid
 * until the next raise. Frozen runs belong to VECTOR_LIVE, whether they ended or not. */
const struct vector_run *vector_after(const struct vector *vector, const struct id128 *origin,
                                      enum vector_part part);

/* How many runs vector_after finds. */
size_t vector_count(const struct vector *vector, enum vector_part part);

/* Sums over the ended runs alone (VECTOR_ENDED) or all (VECTOR_ALL); frozen ones left out. */
struct vector_sum vector_sum(const struct vector *vector, enum vector_part part);

/* What a run known up to SEQ adds to a sum, and takes away again. */
void vector_sum_add(struct vector_sum *sum, const struct id128 *origin, uint64_t seq);
void vector_sum_subtract(struct vector_sum *sum, const struct id128 *origin, uint64_t seq);

/* May another run be inserted? */
bool vector_has_room(const struct vector *vector);

static inline bool vector_run_is_ended(const struct vector_run *run)
{
    return run->ended && !run->frozen;
}

static inline bool hash128_equal(const struct hash128 *a, const struct hash128 *b)
{
    return a->low == b->low && a->high == b->high;
}

static inline bool vector_sum_equal(const struct vector_sum *a, const struct vector_sum *b)
{
    return a->count == b->count && hash128_equal(&a->hash, &b->hash);
}

#endif
