/*
 * What stands before the public handler: until the node has recovered, every request gets 503 with
 * Retry-After, but for /healthz, because a node that recovers is alive. So the address is taken
 * before any directory is touched, and a client sees "starting" and not a refused connection.
 */
#ifndef CMD_GATE_H
#define CMD_GATE_H

#include "api/http/http.h"

#include <stdatomic.h>

struct gate {
    struct http_handler handler; /* to listen with */
    _Atomic(const struct http_handler *) inner;
};

void gate_init(struct gate *gate);
/* From now on requests go to INNER, lent for the server's life. From any thread, once. */
void gate_open(struct gate *gate, const struct http_handler *inner);

#endif
