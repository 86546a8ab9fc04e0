/*
 * Whether the cloud lets this node do what it needs: each kind of request once, with a small object
 * under the prefix that is removed again, and what to do about those that fail.
 */
#ifndef CLUSTER_CLOUD_CHECK_H
#define CLUSTER_CLOUD_CHECK_H

#include "base/env.h"
#include "storage/cloud.h"

#include <stdatomic.h>

#define CLOUD_CHECK_STEPS 8

struct cloud_check_step {
    const char *name; /* "list", "put", … */
    bool done;        /* else it was passed over, as one before it failed */
    int rc;
    uint64_t took_ms;
    char message[CLOUD_MESSAGE_BYTES]; /* of a failure */
    char advice[CLOUD_MESSAGE_BYTES];  /* likewise: what to look at */
};

struct cloud_check {
    struct cloud_check_step steps[CLOUD_CHECK_STEPS];
    size_t count;
    bool good;
};

/* Blocks for as long as the cloud takes: minutes where it does not answer, or until *STOP.
 * PREFIX as in cluster/cloud_meta.h. */
void cloud_check_run(struct cloud_check *out, struct cloud *cloud, const char *prefix,
                     struct env *env, const atomic_bool *stop);

#endif
