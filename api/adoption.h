/*
 * Unknown ids that a client allows to be looked for in the cloud (X-Meta-Fetch): what lies there
 * under the id's key becomes an object of this cluster again, with the name, level and user meta
 * that it had, once for all who ask meanwhile.
 */
#ifndef API_ADOPTION_H
#define API_ADOPTION_H

#include "api/http/http.h"
#include "api/store.h"

struct adoptions;
struct adoption;

/* A suspended request that waits for one; embedded in its owner's struct, which lives until RUN. */
struct adoption_waiter {
    struct adoption_waiter *next;
    struct http_request *http;
    void (*run)(struct http_request *http); /* posted when it is over */
};

/* The store's cluster has a cloud. */
int adoptions_create(struct adoptions **out, struct store *store) MUST_CHECK;
/* None may be under way: the cluster, or its cloud, was stopped. */
void adoptions_destroy(struct adoptions **adoptions);

/* Wait until ID was looked for. On 0 WAITER's request is not touched by the caller any more, and
 * *OUT (set before `run` can be called) is its reference. ERR_FULL, ERR_NO_MEMORY. Any thread; does
 * not block. */
int adoption_ask(struct adoption **out, struct adoptions *table, const struct id128 *id,
                 struct adoption_waiter *waiter) MUST_CHECK;

/*
 * In RUN: what came of it. 0: it is known now, durably, and a look-up finds it; ERR_NOT_FOUND: the
 * cloud has no such key; ERR_DELETED: it says that the object was deleted; ERR_CLOUD: it does not
 * answer; ERR_CORRUPT: what is there contradicts itself; else why it could not be journaled.
 */
int adoption_result(const struct adoption *adoption) MUST_CHECK;
void adoption_release(struct adoption **adoption);

#endif
