/*
 * Copies of this node that were found damaged and wait for a good one from another node: what
 * readers and the scrub note, and the replicator takes. Bounded; what finds no room is found
 * damaged again by the next read or scrub.
 */
#ifndef CLUSTER_REPAIRS_H
#define CLUSTER_REPAIRS_H

#include "journal/object.h"

struct repairs;

struct repair {
    struct id128 id;
    struct place place; /* of the bad copy: another one is not to be replaced */
};

int repairs_create(struct repairs **out) MUST_CHECK;
void repairs_destroy(struct repairs **repairs);

/* The rest from any thread; none blocks. */

/* Whether it is new, and there was room: LIMIT_REPAIRS of them may wait. */
bool repairs_add(struct repairs *repairs, const struct id128 *id, const struct place *place);
/* The one that waits longest. False: there is none. */
bool repairs_take(struct repairs *repairs, struct repair *out);
size_t repairs_count(struct repairs *repairs);

#endif
