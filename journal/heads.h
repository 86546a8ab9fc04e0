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
    bool frozen; /* it contradicts itself: nothing more of it is taken */
    /* As it was before the batch that touched it last. */
    uint64_t touched, seq_before;
    uint8_t hash_before[SHA256_BYTES];
    bool frozen_before;
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
void heads_freeze(struct heads *heads, struct head *head);
void heads_undo(struct heads *heads);

/*
 * Does event SEQ, the LEN bytes at RAW, which follows one with hash PREV, continue HEAD? 0: it is
 * the next one. ERR_EXISTS: it is the last one. ERR_RANGE: it lies below that, where only the
 * events themselves can tell. ERR_AGAIN: some before it are missing. ERR_CONFLICT: there are two of
 * it, or of one before it.
 */
int heads_judge(const struct head *head, uint64_t seq, const uint8_t prev[SHA256_BYTES],
                const void *raw, size_t len) MUST_CHECK;

#endif
