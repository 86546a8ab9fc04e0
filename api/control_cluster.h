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
#include "cluster/cloud_import.h"
#include "cluster/cluster.h"

#include <stdatomic.h>

#define ADMIN_MESSAGE_BYTES 512

enum admin_verb {
    ADMIN_NONE, /* a path of none of them */
    ADMIN_DRAIN_STATUS,
    ADMIN_DRAIN,
    ADMIN_JOIN,
    ADMIN_FORGET,
    ADMIN_DIFF,
    ADMIN_UPGRADE,
    ADMIN_CLOUD_CHECK, /* api/control_cloud.h, as the next ones */
    ADMIN_CLOUD_OUTBOX,
    ADMIN_CLOUD_IMPORT,
    ADMIN_CLOUD_STATUS,
    ADMIN_SAMPLE, /* of a feature build alone: journals an event that others do not know */
};

struct admin_call {
    struct cluster *cluster;
    struct journal *journal;
    struct db_reader *reader; /* the thread's; NULL for what does not block */
    struct env *env;
    struct cloud_import *import; /* NULL: there is no cloud */
    const atomic_bool *stop;     /* the node is stopping: come to an end */
    json_t *args;                /* an object */
    struct buf *out;
    unsigned status; /* 200, or what follows is said */
    const char *code;
    char message[ADMIN_MESSAGE_BYTES];
};

/* Of PATH (LEN bytes) and method; *ALLOW (may be NULL there): the path takes other methods. */
enum admin_verb admin_verb(const char *path, size_t len, bool post, const char **allow);

/* Do it; the answer's JSON goes to OUT. May block for long, but for those that only look:
 * admin_looks. */
void admin_run(enum admin_verb verb, struct admin_call *call);
bool admin_looks(enum admin_verb verb);

/* Answer CALL with STATUS and an error. */
void admin_refuse(struct admin_call *call, unsigned status, const char *code, const char *format,
                  ...) __attribute__((format(printf, 4, 5)));

#endif
