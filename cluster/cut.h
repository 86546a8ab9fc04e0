/*
 * May events leave this node? Compaction removes events that a snapshot covers; what a live member
 * lacks of them would cost it a merge. So each live member is asked whether it knows all runs up to
 * where the snapshot cuts them. Whoever has failed is not waited for: it will merge. Pure, but for
 * memory; not thread-safe.
 */
#ifndef CLUSTER_CUT_H
#define CLUSTER_CUT_H

#include "cluster/vector.h"
#include "cluster/wire.h"

struct cut;

int cut_create(struct cut **out, uint64_t seed) MUST_CHECK;
void cut_destroy(struct cut **cut);

/* Begin to ask about RUNS (any number, as a wire message has them). ERR_NO_MEMORY: as before. */
int cut_set(struct cut *cut, const struct id128 *snapshot, struct text runs) MUST_CHECK;
/* The snapshot that is asked about; zero: none. */
struct id128 cut_snapshot(const struct cut *cut);
void cut_clear(struct cut *cut);

/* What a member said, to the question NONCE. */
void cut_take(struct cut *cut, const struct id128 *from, uint64_t nonce, bool known);

struct cut_peer {
    struct id128 node;
    bool alive;   /* it answers */
    bool settled; /* … or not: that is known */
};

/* A question to be sent; its runs are lent until the next call. */
struct cut_question {
    struct id128 to;
    struct wire_merge_cut ask;
};

/*
 * What is to be asked at NOW_MS (monotonic), of PEERS, into OUT (room for COUNT): *QUESTIONS of
 * them. True: something is asked about, and all who live have it.
 */
bool cut_step(struct cut *cut, uint64_t now_ms, const struct cut_peer *peers, size_t count,
              struct cut_question *out, size_t *questions);

/* The answer to a question: whether VECTOR knows all of RUNS. */
bool cut_is_known(const struct vector *vector, struct text runs);

#endif
