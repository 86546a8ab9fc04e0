/*
 * How a node stands among the others, and what follows for its clients. Pure: it is read off the
 * probe core.
 *
 * A clock that is wrong by more than HLC_MAX_DRIFT_MS stamps events that others do not believe (or
 * that lose to all of theirs); so its node takes no changes from clients until it is right. Whose
 * clock is wrong the median of all that answer says, this node's included: of two nobody can tell.
 */
#ifndef CLUSTER_STANDING_H
#define CLUSTER_STANDING_H

#include "cluster/probe.h"
#include "journal/hlc.h"

struct standing {
    enum probe_health health;
    unsigned others;      /* members that answer, this node not counted */
    bool clock_judged;    /* at least three answer, this node included: */
    int64_t behind_ms;    /* this node's clock is behind their median (negative: ahead) */
    bool clock_is_skewed; /* … by more than HLC_MAX_DRIFT_MS, either way */
};

/* As of PROBE's last step. */
struct standing standing_of(const struct probe *probe);

#endif
