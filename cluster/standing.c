/* What the probe core knows, as one answer to: may this node serve, may it take changes? */
#include "cluster/standing.h"

struct standing standing_of(const struct probe *probe)
{
    struct standing it = {.health = probe_health(probe),
                          .others = (unsigned)probe_answering(probe)};

    it.clock_judged = probe_clock_offset(probe, &it.behind_ms);
    if (!it.clock_judged)
        it.behind_ms = 0;
    it.clock_is_skewed = it.behind_ms > HLC_MAX_DRIFT_MS || it.behind_ms < -HLC_MAX_DRIFT_MS;
    return it;
}
