/*
 * The rules by which an operator changes who belongs to the cluster and what it understands: which
 * members' copies count, when a node may be forgotten, when the feature level may be raised. Pure.
 */
#ifndef CLUSTER_MEMBERSHIP_H
#define CLUSTER_MEMBERSHIP_H

#include "cluster/cluster.h"
#include "journal/db_cluster.h"

/* The members of VIEW (cluster_members) that a node may rely on before it leaves: they have joined,
 * answer, do not want to leave themselves, and have answered a probe that went out at SINCE_MS or
 * later. Whoever leaves asks for answers since it said that it leaves: then of two that leave at
 * once neither relies on the other. */
void membership_trusted(const struct cluster_member *view, size_t count, uint64_t since_ms,
                        struct db_custody *out);

/* All that have joined but this one, and NODE (NULL: nobody). */
void membership_others(const struct cluster_member *view, size_t count, const struct id128 *node,
                       struct db_custody *out);

enum forget_verdict {
    FORGET_MAY = 0,
    FORGET_UNKNOWN, /* no such node */
    FORGET_SELF,    /* this node itself: it is to be drained */
    FORGET_DONE,    /* it is forgotten already */
    FORGET_ALIVE,   /* it answers, or did a moment ago: drain it */
};
/* Whether NODE may be forgotten, as far as who it is goes. FORCE: though it answers. */
enum forget_verdict membership_forget(const struct cluster_member *view, size_t count,
                                      const struct id128 *node, bool force);

enum upgrade_verdict {
    UPGRADE_MAY = 0,
    UPGRADE_DONE,   /* it is there already */
    UPGRADE_LOWER,  /* it is above: a level is never lowered */
    UPGRADE_NOT_BY, /* *CULPRIT does not understand it */
    UPGRADE_SILENT, /* *CULPRIT does not answer: what it understands is not known */
};
/* Whether a cluster at LEVEL may be raised to *TO; 0: to the highest that all members understand,
 * which *TO then is. Every member that has joined has to answer. */
enum upgrade_verdict membership_upgrade(const struct cluster_member *view, size_t count,
                                        uint32_t level, uint32_t *to,
                                        const struct cluster_member **culprit);

#endif
