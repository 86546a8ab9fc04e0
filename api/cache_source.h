/*
 * The body of a GET's answer out of the disk cache: a copy that is complete, or one that is still
 * coming from other nodes, as far as it has come.
 */
#ifndef API_CACHE_SOURCE_H
#define API_CACHE_SOURCE_H

#include "api/multipart.h"
#include "api/peer_fill.h"

/*
 * A source of the bytes that LAYOUT names of COPY, or of FILL's copy (the other one is NULL). All
 * three are given away, also on failure. ERR_NO_MEMORY. To be closed, by the core or with
 * cache_source_close.
 */
int cache_source_create(struct http_source **out, struct store *store, struct disk_copy **copy,
                        struct peer_fill **fill, struct multipart *layout) MUST_CHECK;

/* Send nothing of a fill before all of it is verified: for ranges of what is fetched whole. Before
 * the start. */
void cache_source_be_patient(struct http_source *http_source);

/* What it was created with is that part (api/peer_copy.h) of ORIGIN, a whole body, in which the
 * first range begins; the others come as they are read. Before the start. TOKEN: as for
 * peer_fill_join. ERR_NO_MEMORY. */
int cache_source_in_parts(struct http_source *http_source, const struct store_origin *origin,
                          uint64_t token) MUST_CHECK;

/*
 * Look whether the first bytes can be sent to HTTP, which is suspended: 0, or why not; ERR_AGAIN:
 * RUN is posted when that is known, and the caller touches neither any more. To be called again in
 * RUN, with RUN NULL: never ERR_AGAIN then. Blocks, where RUN is not NULL.
 */
int cache_source_start(struct http_source *http_source, struct http_request *http,
                       void (*run)(struct http_request *http)) MUST_CHECK;

/* What it takes part in; NULL: the copy was complete. Lent until it is closed. */
const struct store_origin *cache_source_origin(struct http_source *http_source);

/* Whether what it takes part in comes from the cloud. */
bool cache_source_from_cloud(struct http_source *http_source);

/* Close a source that was not handed to the core. */
void cache_source_close(struct http_source **source);

#endif
