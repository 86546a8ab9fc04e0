/*
 * Where two members' facts about objects differ: the first ids, and what each of the two says.
 *
 * Their rows are walked side by side in the order of ids, 4,096 at a time: sums are compared, and
 * only where they differ the rows' own digests, then the rows. So a million objects cost a message
 * or two for every few thousand, and memory for one stretch.
 */
#ifndef CLUSTER_DIFF_H
#define CLUSTER_DIFF_H

#include "cluster/cluster.h"

#define DIFF_MAX 100 /* differences looked for at most */

struct diff_result {
    uint64_t compared; /* rows of the first member */
    uint64_t found;
    bool more; /* it ended at its limit */
};

/*
 * Hand the first MAX ids at which A and B, members or this node, differ to EACH, with each one's
 * row as JSON (journal/row_json.h; empty: it knows nothing of the id); non-zero ends it and is
 * returned. What changes meanwhile is looked at again before it counts. cluster_ask's errors, with
 * *FAILED (may be NULL) naming who did not answer. Blocks, for as long as it takes to read both;
 * not for the cluster's thread.
 */
int cluster_diff(struct cluster *cluster, const struct id128 *a, const struct id128 *b,
                 unsigned max,
                 int (*each)(void *arg, const struct id128 *id, struct text a, struct text b),
                 void *arg, struct diff_result *out, struct id128 *failed) MUST_CHECK;

#endif
