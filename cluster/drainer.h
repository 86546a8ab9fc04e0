/*
 * Leaving the cluster: a thread that hands over what this node alone has, and then journals that it
 * left. It runs while a drain does, and remembers it over restarts in a file in the state
 * directory.
 *
 *   counting ──► moving ──► leaving ──► (left: the thread ends)
 *
 * From its beginning on the node takes no client's change (cluster_write_begin), and says in its
 * probes that it drains: nobody counts its copies towards his own leaving.
 */
#ifndef CLUSTER_DRAINER_H
#define CLUSTER_DRAINER_H

#include "cluster/cluster.h"

struct drainer;

enum drain_phase {
    DRAIN_NONE = 0, /* not draining; the node belongs to the cluster, or to none */
    DRAIN_COUNTING, /* what is here alone */
    DRAIN_MOVING,
    DRAIN_LEAVING, /* all is handed over; the others shall know everything that this node knows */
    DRAIN_LEFT,
    DRAIN_FORGOTTEN, /* not a drain: others decided that this node is no member */
};

struct drain_status {
    enum drain_phase phase;
    uint64_t objects_left, bytes_left; /* that no other member has; found so far while counting */
    uint64_t objects_moved, bytes_moved;
    uint64_t retries;
    uint64_t owed;      /* other work in the outbox, which has to be done first */
    size_t takers;      /* members that take copies now */
    struct id128 stuck; /* an object that is asked for again and again; zero: none */
    char waiting[160];  /* for what, where it does not go on; else empty */
};

/* STATE_DIR NULL: nothing is remembered, and nothing can be drained. */
int drainer_create(struct drainer **out, struct journal *journal, struct cluster *cluster,
                   struct env *env, const char *state_dir) MUST_CHECK;
/* Go on with a drain that a stop interrupted. After cluster_start and journal_start. */
int drainer_start(struct drainer *drainer) MUST_CHECK;
/* End the thread, not the drain. Before cluster_stop's end of everything else. */
void drainer_stop(struct drainer *drainer);
void drainer_destroy(struct drainer **drainer);

/* Begin; fine where it has begun. Durable when it returns. ERR_NOT_FOUND: there is no other member;
 * ERR_OUTSIDE: this node has left, or was forgotten; what the disk says. Any thread, as the next.
 */
int drainer_begin(struct drainer *drainer) MUST_CHECK;
/* Take it back. ERR_UNSUPPORTED: it has left already (cluster_rejoin), or nothing is draining. */
int drainer_cancel(struct drainer *drainer) MUST_CHECK;
void drainer_status(struct drainer *drainer, struct drain_status *out);

/* "none", "counting", "moving", "leaving", "left", "forgotten". */
const char *drain_phase_name(enum drain_phase phase);

#endif
