/*
 * The body of a GET's answer that is streamed from other nodes as it arrives: a large one, whole or
 * in ranges.
 */
#ifndef API_PEER_SOURCE_H
#define API_PEER_SOURCE_H

#include "api/http/http.h"
#include "api/multipart.h"
#include "api/store.h"

/*
 * A source of the bytes that LAYOUT names of ORIGIN, which is copied. LAYOUT's text is the source's
 * from here on, also on failure. ERR_FULL (memory), ERR_NO_MEMORY. To be closed, by the core or
 * with peer_source_close.
 */
int peer_source_create(struct http_source **out, struct store *store,
                       const struct store_origin *origin, struct multipart *layout) MUST_CHECK;

/*
 * Begin to fetch for HTTP, which is suspended: RUN is posted once the first bytes are here or it is
 * certain that none come. Any thread; after a 0 the caller touches neither any more. As
 * cluster_fetch_start.
 */
int peer_source_start(struct http_source *http_source, struct http_request *http,
                      void (*run)(struct http_request *http)) MUST_CHECK;

/* In RUN: 0 if there is something to answer with, else as cluster_reader's done. */
int peer_source_state(struct http_source *http_source) MUST_CHECK;

/* After that: whether they came from the cloud. */
bool peer_source_from_cloud(struct http_source *http_source);

/* Close a source that was not handed to the core. On the loop, or before it was started. */
void peer_source_close(struct http_source **source);

#endif
