/* Latencies by size, with three digits' precision: 128 steps for every power of two. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS  7
#define HISTOGRAM_STEPS (1u << HISTOGRAM_BITS)
#define HISTOGRAM_SLOTS ((64 - HISTOGRAM_BITS + 1) * HISTOGRAM_STEPS)

struct histogram {
    uint64_t slots[HISTOGRAM_SLOTS];
    uint64_t count, largest;
};

static inline unsigned histogram_slot(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_BITS;

    return ((shift + 1) << HISTOGRAM_BITS) + (unsigned)(value >> shift) - HISTOGRAM_STEPS;
}

static inline void histogram_add(struct histogram *h, uint64_t value)
{
    h->slots[histogram_slot(value)]++;
    h->count++;
    if (value > h->largest)
        h->largest = value;
}

/* The value that FRACTION of all are not above; 0 where there is none. */
static inline uint64_t histogram_at(const struct histogram *h, double fraction)
{
    uint64_t wanted = (uint64_t)((double)h->count * fraction + 0.5), seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_SLOTS; i++) {
        seen += h->slots[i];
        if (seen < wanted || seen == 0)
            continue;
        if (i < HISTOGRAM_STEPS)
            return i;
        uint64_t low = HISTOGRAM_STEPS + (i & (HISTOGRAM_STEPS - 1));
        uint64_t top = ((low + 1) << ((i >> HISTOGRAM_BITS) - 1)) - 1;

        return top < h->largest ? top : h->largest;
    }
    return h->largest;
}

#endif
