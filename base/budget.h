/*
 * A bound on memory that several parts of the program take from together, from any thread: what is
 * held for clients that read or write slowly. It counts; the bytes are the taker's to allocate.
 */
#ifndef BASE_BUDGET_H
#define BASE_BUDGET_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct budget {
    _Atomic uint64_t used;
    uint64_t limit;
};

/* Take LEN bytes, unless more than MOST were taken then, or more than the limit. */
static inline bool budget_take_below(struct budget *budget, size_t len, uint64_t most)
{
    uint64_t bound = most < budget->limit ? most : budget->limit;

    if (atomic_fetch_add_explicit(&budget->used, len, memory_order_relaxed) + len <= bound)
        return true;
    atomic_fetch_sub_explicit(&budget->used, len, memory_order_relaxed);
    return false;
}

static inline bool budget_take(struct budget *budget, size_t len)
{
    return budget_take_below(budget, len, UINT64_MAX);
}

static inline void budget_give(struct budget *budget, size_t len)
{
    uint64_t before = atomic_fetch_sub_explicit(&budget->used, len, memory_order_relaxed);

    assert(before >= len);
    (void)before;
}

static inline uint64_t budget_used(const struct budget *budget)
{
    return atomic_load_explicit(&((struct budget *)(uintptr_t)budget)->used, memory_order_relaxed);
}

#endif
