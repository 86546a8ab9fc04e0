/*
 * The public API: the ancestor's paths and headers on our store (docs/API.md).
 *
 * Its handler is called on the server's loops and keeps its state by loop and by request; what
 * waits for the disk goes to the store's pools.
 */
#ifndef API_PUBLIC_H
#define API_PUBLIC_H

#include "api/guard.h"
#include "api/http/http.h"
#include "api/stats.h"
#include "api/store.h"

/* The operations that latencies are told apart by: for http_config. */
#define PUBLIC_OPERATIONS 12
extern const char *const public_operations[PUBLIC_OPERATIONS];

struct public_api;

struct public_config {
    struct stats_source stats; /* operations may be left out: public_operations */
    enum anonymous anonymous;
    bool refuse_isolated; /* serve no objects while this node hears less than half of its cluster */
    unsigned loops;       /* the server's workers */
    bool cloud;           /* there is one */
    bool writeback;       /* puts do not wait for it */
    unsigned outbox_copies; /* of a body while it is owed to the cloud: 1 or 2 */
};

int public_create(struct public_api **out, const struct public_config *config) MUST_CHECK;
/* Lent until public_destroy. */
const struct http_handler *public_handler(const struct public_api *api);
/* After the server has ended. */
void public_destroy(struct public_api **api);

#endif
