/*
 * Large bodies on their way from other nodes into the disk cache: each is fetched once, however
 * many ask for it meanwhile, and they read what has arrived as fast as each of them can. What came
 * whole, and has the right SHA-256, stays in the cache. Parts of bodies stay, too, under names of
 * their own, and never count as whole: nobody can compare their SHA-256.
 */
#ifndef API_PEER_FILL_H
#define API_PEER_FILL_H

#include "api/http/http.h"
#include "api/store.h"
#include "storage/disk_cache.h"

struct peer_fills;
struct peer_fill;

/* A suspended request that waits for bytes; embedded in its owner's struct, which lives until RUN.
 */
struct fill_waiter {
    struct fill_waiter *next;
    struct http_request *http;
    uint64_t end;
    void (*run)(struct http_request *http);
    /* Where HTTP is NULL, instead of RUN: called then, on any thread. It must not block. */
    void (*wake)(struct fill_waiter *waiter);
};

/* The store has a disk cache. */
int peer_fills_create(struct peer_fills **out, struct store *store) MUST_CHECK;
/* No fill may be under way, but what its last step is. */
void peer_fills_destroy(struct peer_fills **fills);

/*
 * Take part in the fill of ORIGIN's body, or of the part that it names, which begins where none is
 * under way. TOKEN: of the look-up of its row (store_body_token): where the object was deleted
 * since, the copy is not kept. ERR_FULL, ERR_NO_SPACE, ERR_TOO_BIG: the cache has no room;
 * ERR_EXISTS: it has just come whole; else as store_fetch. Blocks.
 */
int peer_fill_join(struct peer_fill **out, struct peer_fills *fills,
                   const struct store_origin *origin, uint64_t token) MUST_CHECK;

/* Whether all bytes before WAITER->end can be read: 0; ERR_AGAIN: WAITER's request is suspended
 * (here, unless it IS_SUSPENDED already), and RUN is posted once they can, or it is certain that
 * they do not come. Else why: as cluster_reader's done, or ERR_IO … of this node's own disk. */
int peer_fill_wait(struct peer_fill *fill, struct fill_waiter *waiter,
                   bool is_suspended) MUST_CHECK;

/* Block INDEX of what is filled, which can be read, into BLOCK (BLOCK_BYTES). Errors and blocking
 * as disk_copy_read's. */
int peer_fill_read(struct peer_fill *fill, uint64_t index, uint8_t *block, size_t *len,
                   bool nowait) MUST_CHECK;
/* Bring it to its end, whoever leaves. */
void peer_fill_pin(struct peer_fill *fill);
/* Whether bytes of it came from the cloud, as far as it has come. */
bool peer_fill_from_cloud(struct peer_fill *fill);
const struct store_origin *peer_fill_origin(const struct peer_fill *fill);
/* The last one to leave ends a fill that is not over. */
void peer_fill_leave(struct peer_fill **fill);

#endif
