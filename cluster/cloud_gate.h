/*
 * The node's one circuit breaker (cluster/breaker.h) before its cloud, for all threads that ask it:
 * uploads and reads learn from each other whether it answers.
 */
#ifndef CLUSTER_CLOUD_GATE_H
#define CLUSTER_CLOUD_GATE_H

#include "base/env.h"
#include "cluster/breaker.h"

struct cloud_gate;

/* ENV is lent. */
int cloud_gate_create(struct cloud_gate **out, struct env *env) MUST_CHECK;
void cloud_gate_destroy(struct cloud_gate **gate);

/* As breaker_ask and breaker_step, from any thread; never blocks. That it opens or closes is
 * logged. */
uint32_t cloud_gate_ask(struct cloud_gate *gate) MUST_CHECK;
void cloud_gate_step(struct cloud_gate *gate, uint32_t ticket, enum breaker_outcome outcome,
                     uint32_t retry_after_ms);
/* Until the next request may be sent, in milliseconds; 0: now. */
uint64_t cloud_gate_wait_ms(struct cloud_gate *gate);
/* A copy of the breaker, to look at. */
struct breaker cloud_gate_state(struct cloud_gate *gate);

#endif
