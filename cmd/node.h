/*
 * One running node: the parts of objstore in the order in which they need each other. The daemon's
 * main thread starts it, waits for a signal, and stops it.
 */
#ifndef CMD_NODE_H
#define CMD_NODE_H

#include "cmd/options.h"

struct node;

/*
 * Take the public address, open the store, recover, serve. Blocks until the node serves. OPTIONS is
 * lent for the node's life. 0, or the exit code to end with (options.h) and one line in MESSAGE
 * (CAP bytes); then nothing runs and nothing that was made is left on disk.
 */
int node_start(struct node **out, const struct options *options, char *message, size_t cap);

/* Answer what is under way for at most DRAIN_MS, commit and apply what was accepted, end all
 * threads and free everything. */
void node_stop(struct node **node, unsigned drain_ms);

/* It ends by itself, as another process runs as this node and did so first: EXIT_CONFIG. */
bool node_displaced(const struct node *node);

/* The control socket's path. Lent. */
const char *node_control_path(const struct node *node);

#endif
