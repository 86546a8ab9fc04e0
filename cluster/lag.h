/*
 * How far this node is behind the most advanced member that answers, by what their probes say.
 * Pure.
 *
 * Counts of events are compared, not the events: a node that lacks as many as it has alone shows no
 * lag; that its digest differs shows there. A bounded list of marks remembers when the others had
 * how many, so that the time behind can be told; where it is full, marks are merged towards the
 * older time: it errs to more.
 */
#ifndef CLUSTER_LAG_H
#define CLUSTER_LAG_H

#include <stddef.h>
#include <stdint.h>

#define LAG_MARKS    64
#define RATE_SAMPLES 10
#define RATE_MS      1000 /* between samples */

struct lag {
    size_t count;
    struct {
        uint64_t at_ms, events; /* from then on they had so many, which this node had not */
    } marks[LAG_MARKS];
};

/* NOW_MS never goes back; MOST: events of the member that has most, 0 where none answers; OWN: this
 * node's. Zero LAG first. */
void lag_observe(struct lag *lag, uint64_t now_ms, uint64_t most, uint64_t own);
/* For how long there has been something that is missing here; 0: nothing is. */
uint64_t lag_ms(const struct lag *lag, uint64_t now_ms);

/* A counter's speed over the last ten seconds. Zero it first. */
struct rate {
    size_t count, next;
    struct {
        uint64_t at_ms, total;
    } samples[RATE_SAMPLES];
};

/* TOTAL never falls. Returns what came per second. */
uint64_t rate_observe(struct rate *rate, uint64_t now_ms, uint64_t total);

#endif
