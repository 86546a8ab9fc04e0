/*
 * Second copies: while a body waits for the cloud, two nodes have it. What this node alone has it
 * asks other members to copy, as a node does that leaves (cluster/drain.h): they journal their
 * holds, and those say that it is done.
 *
 * For one thread, the uploader's; steps never wait for other nodes.
 */
#ifndef CLUSTER_SECONDS_H
#define CLUSTER_SECONDS_H

#include "cluster/cluster.h"

struct seconds;

struct seconds_config {
    struct journal *journal; /* lent, as the next two */
    struct cluster *cluster;
    struct env *env;
    unsigned copies; /* 2; 1: none are made */
};

int seconds_create(struct seconds **out, const struct seconds_config *config) MUST_CHECK;
void seconds_destroy(struct seconds **seconds);

/* Who is there: COUNT rows of cluster_members. */
void seconds_members(struct seconds *seconds, const struct cluster_member *view, size_t count);

/* OBJECT's body is here, and going to wait for the cloud. What there is no room for, a walk finds.
 */
void seconds_add(struct seconds *seconds, const struct object *object);
/* The same of ID, if it is so. READER: the thread's. */
int seconds_look(struct seconds *seconds, struct db_reader *reader,
                 const struct id128 *id) MUST_CHECK;

/*
 * Ask, look what has come of it, and, where the cloud is SLOW, walk on through all that is owed. At
 * most every SECONDS_STEP_MS, else it does nothing. READER: the thread's. Until when (monotonic,
 * milliseconds) there is nothing to do; UINT64_MAX: until something is added.
 */
uint64_t seconds_step(struct seconds *seconds, struct db_reader *reader, bool slow);
#define SECONDS_STEP_MS 200
#define SECONDS_WALK_MS 60000 /* between walks, unless somebody has come or gone */

/* Bodies that other nodes were asked to copy and that are here alone still; that they have copied.
 */
void seconds_figures(const struct seconds *seconds, uint64_t *waiting, uint64_t *made);

#endif
