/* The node's cloud, as its options say. */
#ifndef CMD_NODE_CLOUD_H
#define CMD_NODE_CLOUD_H

#include "base/env.h"
#include "cmd/options.h"
#include "storage/cloud.h"

/* *OUT is NULL where there is to be none. Whether the cloud can be reached is not asked: that must
 * not keep a node from starting. The error of an option that makes no sense, with MESSAGE (CAP
 * bytes). */
int node_cloud_open(struct cloud **out, struct env *env, const struct options *options,
                    char *message, size_t cap) MUST_CHECK;

/* Say in the log what became of it. */
void node_cloud_welcome(const struct cloud *cloud, const struct options *options);

#endif
