/*
 * A copy that is complete, else the fill that brings it. A fill may end between the two looks: then
 * its copy is complete, and the second look finds it, so nothing is fetched twice.
 *
 * Failure: as the cache and the fills have it. ERR_FULL where a copy is neither complete nor to be
 * had: the fill that was making it has just been given up.
 */
#include "api/peer_copy.h"

int peer_copy_find(struct disk_copy **copy, struct peer_fill **fill, struct store *store,
                   const struct store_origin *origin, uint64_t token)
{
    struct disk_cache *cache = store_disk_cache(store);
    uint64_t size = store_origin_bytes(origin);
    uint8_t name[SHA256_BYTES];

    store_origin_name(origin, name);
    *fill = NULL;
    *copy = disk_cache_find(cache, &origin->id, name, size);
    if (*copy)
        return 0;
    int rc = peer_fill_join(fill, store_peer_fills(store), origin, token);
    if (rc != ERR_EXISTS) /* it has just come whole */
        return rc;
    *copy = disk_cache_find(cache, &origin->id, name, size);
    return *copy ? 0 : ERR_FULL;
}
