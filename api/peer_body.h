/*
 * Small bodies (up to LIMIT_INLINE_BODY_BYTES) on their way from other nodes. One is always fetched
 * whole, so that it can be verified before a byte of it is sent, and remembered; and it is fetched
 * once, however many ask for it meanwhile.
 */
#ifndef API_PEER_BODY_H
#define API_PEER_BODY_H

#include "api/http/http.h"
#include "api/store.h"

struct peer_bodies;
struct peer_body;

/* A suspended request that waits for one; embedded in its owner's struct, which lives until RUN. */
struct peer_waiter {
    struct peer_waiter *next;
    struct http_request *http;
    void (*run)(struct http_request *http); /* posted when the fetch is over */
    /* Where HTTP is NULL, instead of RUN: called then, on any thread. It must not block. */
    void (*wake)(struct peer_waiter *waiter);
};

int peer_bodies_create(struct peer_bodies **out, struct store *store) MUST_CHECK;
/* No fetch may be under way. */
void peer_bodies_destroy(struct peer_bodies **bodies);

/*
 * Wait for ORIGIN's bytes, (id, sha256), whoever fetches them. On 0 WAITER's request is not touched
 * by the caller any more, and *OUT (set before `run` can be called) is its reference to release.
 * ERR_EXISTS: somebody's fetch ended just now and *ENTRY is what the RAM tier has of it, body
 * included. ERR_FULL, ERR_NO_MEMORY. In these cases WAITER is not called. Any thread; does not
 * block.
 */
int peer_body_ask(struct peer_body **out, const struct ram_entry **entry,
                  struct peer_bodies *bodies, const struct store_origin *origin,
                  struct peer_waiter *waiter) MUST_CHECK;

/*
 * The outcome; to be called once in WAITER's `run`. 0: the bytes are there, verified. Else as
 * cluster_reader's done, or cluster_fetch_start's refusal. The first waiter verifies, in its loop
 * (or wherever it calls this), has KEEP called where the bytes fit, and then wakes the others: who
 * asks from then on finds what KEEP put into the RAM tier.
 */
int peer_body_settle(struct peer_body *body, struct peer_waiter *waiter,
                     void (*keep)(void *arg, const uint8_t *bytes), void *arg) MUST_CHECK;
/*
 * ORIGIN's bytes out of the disk cache, as if they had been fetched: *OUT is settled, and to be
 * released. ERR_NOT_FOUND: no copy is there; ERR_FULL, ERR_NO_MEMORY. On a pool thread: blocks.
 */
int peer_body_recall(struct peer_body **out, struct peer_bodies *bodies,
                     const struct store_origin *origin) MUST_CHECK;
/* Have BODY, which was settled well by the caller first, put into the disk cache by a pool thread,
 * where there is one and it is worth it. TOKEN: as for peer_fill_join. Does not block; may come to
 * nothing. */
void peer_body_keep(struct peer_body *body, uint64_t token);
/* After a 0 of settle or recall, until the release. */
const uint8_t *peer_body_bytes(const struct peer_body *body);
/* Whether they came from the cloud just now. Likewise. */
bool peer_body_from_cloud(const struct peer_body *body);
void peer_body_release(struct peer_body **body);

#endif
