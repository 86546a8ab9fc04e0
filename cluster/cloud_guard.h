/*
 * The cloud behind a circuit breaker (cluster/breaker.h): a cloud like any other, whose requests go
 * to another one while that answers, and are refused at once while it does not. All of a node's
 * requests go through one, so what one of them finds out all know.
 */
#ifndef CLUSTER_CLOUD_GUARD_H
#define CLUSTER_CLOUD_GUARD_H

#include "base/env.h"
#include "cluster/breaker.h"
#include "storage/cloud.h"

/* INNER is lent until the guard's cloud_destroy. cloud_start fails with ERR_CLOUD, too: the cloud
 * is left alone now. */
int cloud_guard_create(struct cloud **out, struct cloud *inner, struct env *env) MUST_CHECK;
/* Refuse whatever comes (ERR_CLOSED), cancel what is under way, and wait until every `done` was
 * called. Before cloud_destroy. Any thread but the cloud's. */
void cloud_guard_close(struct cloud *cloud);

struct cloud_guard_stats {
    enum breaker_state state;
    uint64_t opened, refused; /* since the start */
    uint64_t wait_ms;         /* until the next request may go; 0: now */
};
/* Any thread. */
void cloud_guard_stats(struct cloud *cloud, struct cloud_guard_stats *out);

#endif
