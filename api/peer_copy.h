/*
 * What the disk cache has of a body from elsewhere, or is about to have.
 */
#ifndef API_PEER_COPY_H
#define API_PEER_COPY_H

#include "api/peer_fill.h"

/* The complete copy of what ORIGIN names, a body or a part of one, or the fill that brings it: as
 * disk_cache_find, peer_fill_join, but never ERR_EXISTS. The store has a disk cache. Blocks. */
int peer_copy_find(struct disk_copy **copy, struct peer_fill **fill, struct store *store,
                   const struct store_origin *origin, uint64_t token) MUST_CHECK;

#endif
