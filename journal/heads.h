/*
 * How far each run is committed on this node: the last event of every origin, its number and hash.
 * What the committer checks a peer's events against, so that each origin stays a chain without gaps
 * or repetitions. Pure; not thread-safe: the committer owns the node's one table.
 *
 * A batch that fails takes its events back: the first change of a head since heads_begin is
 * remembered, and heads_undo restores it.
 */
#ifndef JOURNAL_HEADS_H
#define JOURNAL_HEADS_H

#include "base/err.h"
#include "base/hash.h"
#include "base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct head {
    struct id128 origin;
    uint64_t seq; /* 0: nothing yet */
    uint8_t hash[SHA256_BYTES];
    /* As it was before the batch that touched it last. */
    uint64_t touched, seq_before;
    uint8_t hash_before[SHA256_BYTES];
};

struct heads {
    struct head *slots;
    size_t count, cap; /* cap: a power of two, or 0 */
    uint64_t batch;
};

void heads_release(struct heads *heads);

/* The head of ORIGIN, made with seq 0 where it is not known. NULL: no memory, or LIMIT_RUNS are
 * known. Lent until the next call that may make one. */
struct head *heads_get(struct heads *heads, const struct id128 *origin) MUST_CHECK;

/* What is set from here on can be undone, what was set before no more. */
void heads_begin(struct heads *heads);
void heads_set(struct heads *heads, struct head *head, uint64_t seq,
               const uint8_t hash[SHA256_BYTES]);
void heads_undo(struct heads *heads);

#endif
