#include "journal/hlc.h"

#include <assert.h>

#define COUNTER_BITS 16

static hlc_time at(uint64_t wall_ms)
{
    assert(wall_ms < HLC_LIMIT >> COUNTER_BITS);
    return wall_ms << COUNTER_BITS;
}

static hlc_time later(hlc_time a, hlc_time b)
{
    return a > b ? a : b;
}

hlc_time hlc_stamp(struct hlc *clock, uint64_t now_ms, hlc_time replaced)
{
    assert(replaced < HLC_LIMIT);

    /* Where the wall clock stands still, went back, or lags a peer's, the counter carries on. It
     * may run over into the milliseconds: a node must be able to write for as long as it lags, and
     * below 65 million events a second this does not move the clock further ahead. */
    clock->last = later(at(now_ms), clock->last + 1);
    return later(clock->last, replaced + 1);
}

bool hlc_observe(struct hlc *clock, uint64_t now_ms, hlc_time seen)
{
    assert(seen < HLC_LIMIT);
    hlc_time bound = at(now_ms + HLC_MAX_DRIFT_MS);
    bool believed = seen <= bound;

    clock->last = later(clock->last, believed ? seen : bound);
    return believed;
}

uint64_t hlc_wall_ms(hlc_time t)
{
    return t >> COUNTER_BITS;
}
