/*
 * What comes here from the cloud, lent to the cluster for other nodes that have left its fetching
 * to this one (cluster.h's struct cluster_lender): it takes part in the same fetches as this node's
 * own clients (peer_body, peer_fill), so that the cloud is asked once for all of them.
 */
#ifndef API_LENDER_H
#define API_LENDER_H

#include "api/store.h"

/* Lend what STORE fetches to its cluster, until that is stopped. */
void lender_start(struct store *store);

#endif
