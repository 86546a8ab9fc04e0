/* The marks are in the order of time, and so of events; the first is the oldest that this node has
 * not reached. No failures. */
#include "cluster/lag.h"

#include <assert.h>
#include <string.h>

static void drop_first(struct lag *lag, size_t count)
{
    memmove(lag->marks, lag->marks + count, (lag->count - count) * sizeof *lag->marks);
    lag->count -= count;
}

/* Every two neighbours become one: the later one's events, the earlier one's time. */
static void merge_marks(struct lag *lag)
{
    assert(lag->count == LAG_MARKS);
    for (size_t i = 0; i < LAG_MARKS / 2; i++) {
        lag->marks[i].at_ms = lag->marks[2 * i].at_ms;
        lag->marks[i].events = lag->marks[2 * i + 1].events;
    }
    lag->count = LAG_MARKS / 2;
}

void lag_observe(struct lag *lag, uint64_t now_ms, uint64_t most, uint64_t own)
{
    size_t reached = 0;

    /* Who had most answers no more: what it alone had is not missed. */
    while (lag->count > 1 && lag->marks[lag->count - 2].events >= most)
        lag->count--;
    if (lag->count && lag->marks[lag->count - 1].events > most)
        lag->marks[lag->count - 1].events = most;
    while (reached < lag->count && lag->marks[reached].events <= own)
        reached++;
    drop_first(lag, reached);
    if (most <= own || (lag->count && lag->marks[lag->count - 1].events >= most))
        return;
    if (lag->count == LAG_MARKS)
        merge_marks(lag);
    lag->marks[lag->count].at_ms = now_ms;
    lag->marks[lag->count++].events = most;
}

uint64_t lag_ms(const struct lag *lag, uint64_t now_ms)
{
    assert(lag->count <= LAG_MARKS);
    return lag->count ? now_ms - lag->marks[0].at_ms : 0;
}

uint64_t rate_observe(struct rate *rate, uint64_t now_ms, uint64_t total)
{
    size_t newest = (rate->next + RATE_SAMPLES - 1) % RATE_SAMPLES;
    size_t oldest = rate->count < RATE_SAMPLES ? 0 : rate->next;

    if (rate->count == 0 || now_ms - rate->samples[newest].at_ms >= RATE_MS) {
        rate->samples[rate->next].at_ms = now_ms;
        rate->samples[rate->next].total = total;
        rate->next = (rate->next + 1) % RATE_SAMPLES;
        if (rate->count < RATE_SAMPLES)
            rate->count++;
        oldest = rate->count < RATE_SAMPLES ? 0 : rate->next;
    }
    uint64_t passed = now_ms - rate->samples[oldest].at_ms;
    return passed ? (total - rate->samples[oldest].total) * 1000 / passed : 0;
}
