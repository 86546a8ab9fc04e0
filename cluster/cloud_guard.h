/*
 * The cloud behind the node's gate (cluster/cloud_gate.h): a cloud like any other, whose requests
 * go to another one while that answers, and are refused at once while it does not; and which can be
 * closed, so that a node that stops knows that none is under way. For whoever does not ask the gate
 * himself.
 */
#ifndef CLUSTER_CLOUD_GUARD_H
#define CLUSTER_CLOUD_GUARD_H

#include "cluster/cloud_gate.h"
#include "storage/cloud.h"

/* INNER and GATE are lent until the guard's cloud_destroy. cloud_start fails with ERR_CLOUD, too:
 * the cloud is left alone now. */
int cloud_guard_create(struct cloud **out, struct cloud *inner, struct cloud_gate *gate) MUST_CHECK;
/* Refuse whatever comes (ERR_CLOSED), cancel what is under way, and wait until every `done` was
 * called. Before cloud_destroy. Any thread but the cloud's. */
void cloud_guard_close(struct cloud *guard);

#endif
