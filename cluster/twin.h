/*
 * Two processes under one node id: somebody copied a node's directories and runs both. Each process
 * draws a ULID at its start and tells it to its peers each second; who hears two of them under one
 * node id, both alive, has found twins. Pure.
 *
 * A restart is not that: the old process is never heard again once the new one is. What it sent
 * before may come late, all at once; so it takes several words of each, over a while, after the
 * first word of the new one.
 *
 * Which of the two has to stop everybody decides alike: the younger one, by the ULIDs.
 */
#ifndef CLUSTER_TWIN_H
#define CLUSTER_TWIN_H

#include "cluster/wire.h"

#define TWIN_SAY_MS   1000  /* between two times that a process says which one it is */
#define TWIN_WHILE_MS 2500  /* both were heard for so long after the younger's first word … */
#define TWIN_TIMES    3     /* … and so often */
#define TWIN_ALIVE_MS 10000 /* a process that was not heard for longer is gone */

struct twins;

int twins_create(struct twins **out) MUST_CHECK;
void twins_destroy(struct twins **twins);

/*
 * NODE, or somebody in its name, said to be PROCESS, reached at ADDRESS. True: another process is
 * alive under that id: *OTHER is that one, its address lent until the next call. Of more than
 * LIMIT_MEMBERS nodes the one not heard for longest is forgotten.
 */
bool twins_heard(struct twins *twins, const struct id128 *node, const struct wire_process *said,
                 uint64_t now_ms, struct wire_process *other);

/* Of the processes A and B of one node, has A to stop? */
static inline bool twin_yields(const struct id128 *a, const struct id128 *b)
{
    return id_compare(a, b) > 0;
}

#endif
