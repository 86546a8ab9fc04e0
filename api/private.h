/*
 * The ancestor's private API, on --debug-addr: looking at one node with curl, without the public
 * door's guard. Nodes speak to each other in another way (cluster/); nothing needs this door.
 *
 *   GET          /private/v1/ping         the node's id
 *   GET          /private/v1/nodes        [{"id":…,"addr":…,"vaddr":…}]: who has joined, with this
 *   POST         /private/v1/announce     probe all members now; ?addr=host:port: join there
 *   POST         /private/v1/sync         take now what others have; ?node=ID: of that one alone
 *   POST         /private/v1/message      the body, up to 8 KiB, to every live node once
 *   GET          /private/v1/message      the messages of late
 *   GET          /private/v1/get/:id      as the public API's, headers and answers;
 *   POST, PUT    /private/v1/put          and so these two
 *   POST, DELETE /private/v1/delete/:id
 */
#ifndef API_PRIVATE_H
#define API_PRIVATE_H

#include "api/public.h"
#include "cluster/cluster.h"

struct private_api;

struct private_config {
    struct public_api *api;  /* lent: its operations are served */
    struct cluster *cluster; /* lent; NULL: the node is alone */
    bool everyone;           /* clients beyond this machine, too */
};

int private_create(struct private_api **out, const struct private_config *config) MUST_CHECK;
/* For a listener of the server that serves the public API. Lent until private_destroy. */
const struct http_handler *private_handler(const struct private_api *api);
/* After the server has ended. */
void private_destroy(struct private_api **api);

#endif
