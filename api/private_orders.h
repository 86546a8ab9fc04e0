/*
 * The parts of the private API that have the node do something in its cluster: announce, sync,
 * message. Each suspends its request until the cluster says what came of it.
 */
#ifndef API_PRIVATE_ORDERS_H
#define API_PRIVATE_ORDERS_H

#include "api/public.h"

struct private_orders {
    struct cluster *cluster; /* lent; NULL: the node has none, 503 */
    struct public_api *api;  /* lent: whose requests' memory is used */
};

/* On the request's loop, in on_request. */
void private_announce(const struct private_orders *orders, struct http_request *http);
void private_sync(const struct private_orders *orders, struct http_request *http);
/* The messages of late. */
void private_read(const struct private_orders *orders, struct http_request *http);
/* A message: its body follows. */
void private_say(const struct private_orders *orders, struct http_request *http);

/* Whether HTTP's body is one; then these two are on_body and on_body_end. */
bool private_is_note(const struct http_request *http);
void private_note_body(struct http_request *http, const uint8_t *data, size_t len);
void private_note_end(const struct private_orders *orders, struct http_request *http);

#endif
