/*
 * The control door's verbs about members and the cluster (docs/OPERATIONS.md says what they do):
 *
 *   GET  /control/v1/node/drain        how far it is
 *   POST /control/v1/node/drain        begin, or {"cancel": true}
 *   POST /control/v1/node/join         this node, which left or was forgotten, is a member again
 *   POST /control/v1/node/forget       {"node", "accept_loss", "force"}
 *   POST /control/v1/cluster/diff      {"a", "b", "limit"}
 *   POST /control/v1/cluster/upgrade   {"to"}
 *
 * A node is named by its id or its address.
 */
#ifndef API_CONTROL_CLUSTER_H
#define API_CONTROL_CLUSTER_H

#include "base/buf.h"
#include "base/json.h"
#include "cluster/cluster.h"

#define ADMIN_MESSAGE_BYTES 512

enum admin_verb {
    ADMIN_NONE, /* a path of none of them */
    ADMIN_DRAIN_STATUS,
    ADMIN_DRAIN,
    ADMIN_JOIN,
    ADMIN_FORGET,
    ADMIN_DIFF,
    ADMIN_UPGRADE,
    ADMIN_SAMPLE, /* of a feature build alone: journals an event that others do not know */
};

struct admin_call {
    struct cluster *cluster;
    json_t *args; /* an object */
    struct buf *out;
    unsigned status; /* 200, or what follows is said */
    const char *code;
    char message[ADMIN_MESSAGE_BYTES];
};

/* Of PATH (LEN bytes) and method; *ALLOW (may be NULL there): the path takes other methods. */
enum admin_verb admin_verb(const char *path, size_t len, bool post, const char **allow);

/* Do it; the answer's JSON goes to OUT. May block for long; ADMIN_DRAIN_STATUS alone does not. */
void admin_run(enum admin_verb verb, struct admin_call *call);

#endif
