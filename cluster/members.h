/*
 * Who belongs to the cluster: the table folded from journaled member facts. Pure.
 *
 * A fact says of one node (its subject) that it joined under an address, left, or was forgotten.
 * The last writer by (stamp, origin) decides, for each node on its own, whole: so every node that
 * has the same facts has the same table, in whatever order and however often it heard of them.
 * Whether a member answers is not in here: that is each node's own view (cluster/probe.h).
 *
 * Nodes that left or were forgotten keep their row, since an older "joined" may still arrive. One
 * thread at a time.
 */
#ifndef CLUSTER_MEMBERS_H
#define CLUSTER_MEMBERS_H

#include "base/err.h"
#include "base/id.h"
#include "journal/event.h"
#include "journal/object.h"

#define MEMBER_ADDRESS_BYTES 255 /* as event_decode admits */

struct member {
    struct id128 node;
    struct reg at; /* who said so, and when */
    enum member_state state;
    char address[MEMBER_ADDRESS_BYTES + 1]; /* host:port, terminated; may be empty */
};

struct members;

int members_create(struct members **out) MUST_CHECK; /* ERR_NO_MEMORY */
void members_destroy(struct members **members);

/*
 * Fold one decoded event in. *CHANGED (may be NULL): a row is new or says something else; false for
 * kinds other than EVENT_MEMBER, a fact about nobody, and what is known already or outdated.
 * ERR_FULL: it would be the node number LIMIT_MEMBER_ROWS + 1; ERR_INVALID: what event_decode would
 * have refused; ERR_NO_MEMORY. After an error the table is as before.
 */
int members_fold(struct members *members, const struct event *event, bool *changed) MUST_CHECK;

/* The same for a row as it was stored or received by merge; errors as members_fold. */
int members_set(struct members *members, const struct member *row, bool *changed) MUST_CHECK;

/* NODE's row or NULL. Rows that are lent stay valid until the next fold or set. */
const struct member *members_find(const struct members *members, const struct id128 *node);

/* All rows in the order of their node ids: AT below the count. */
size_t members_count(const struct members *members);
const struct member *members_at(const struct members *members, size_t at);

/* How many have joined, and neither left nor been forgotten. Whoever admits a joiner keeps it at
 * most LIMIT_MEMBERS; the table itself must believe what the cluster has decided. */
size_t members_joined(const struct members *members);

/* "joined", "left", "forgotten" or "unknown". */
const char *member_state_name(uint32_t state);

#endif
