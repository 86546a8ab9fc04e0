/*
 * Unknown ids that a client allows to be looked for in the cloud (X-Meta-Fetch): what lies there
 * under the id's key becomes an object of this cluster again, with the name, level and user meta
 * that it had, once for all who ask meanwhile.
 */
#ifndef API_ADOPTION_H
#define API_ADOPTION_H

#include "api/store.h"

#define LIMIT_ADOPTIONS 64 /* under way */

struct adoptions;
struct adoption;

/* Who waits for one; embedded in its owner's struct, which lives until WAKE. */
struct adoption_waiter {
    struct adoption_waiter *next;
    /* Once, when it is over, on any thread; it must not block. */
    void (*wake)(struct adoption_waiter *waiter);
};

/* The store's cluster has a cloud. */
int adoptions_create(struct adoptions **out, struct store *store) MUST_CHECK;
/* None may be under way: the cluster, or its cloud, was stopped. */
void adoptions_destroy(struct adoptions **adoptions);

/* Wait until ID was looked for. On 0 WAITER's owner is not touched by the caller any more, and *OUT
 * (set before `wake` can be called) is its reference. DELEGATED: for another node, which leaves it
 * to us; we leave it to nobody else. ERR_FULL, ERR_NO_MEMORY. Any thread; does not block. */
int adoption_ask(struct adoption **out, struct adoptions *table, const struct id128 *id,
                 bool delegated, struct adoption_waiter *waiter) MUST_CHECK;

/*
 * In WAKE, or later: what came of it. 0: it is known now, durably, and a look-up finds it;
 * ERR_NOT_FOUND: the cloud has no such key; ERR_DELETED: it says that the object was deleted;
 * ERR_CLOUD: it does not answer; ERR_CORRUPT: what is there contradicts itself; else why it could
 * not be journaled.
 */
int adoption_result(const struct adoption *adoption) MUST_CHECK;
/* Where that is 0: the SHA-256 of its bytes. */
const uint8_t *adoption_sha256(const struct adoption *adoption);
void adoption_release(struct adoption **adoption);

#endif
