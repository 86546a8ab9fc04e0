/*
 * Numeric network addresses, "1.2.3.4:port" or "[v6]:port". Pure: a name is refused, since asking
 * the resolver blocks, and ZeroMQ would ask it in the thread that moves everybody's bytes.
 */
#ifndef CLUSTER_LINK_ADDRESS_H
#define CLUSTER_LINK_ADDRESS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define LINK_IP_BYTES      64 /* an IP as text, with a v6 zone and a terminator */
#define LINK_ADDRESS_BYTES (LINK_IP_BYTES + 8)

struct link_address {
    char text[LINK_ADDRESS_BYTES]; /* canonical: equal addresses, equal texts */
    unsigned port;                 /* may be 0 */
    bool v6;
    bool loopback;
    bool any; /* 0.0.0.0 or [::] */
};

/* ERR_INVALID: not of these forms; ERR_RANGE: a port over 65535. */
int link_address_parse(struct link_address *out, const char *text) MUST_CHECK;

/* Whether IP (no port, no brackets) is one of this machine's loopback addresses, v4 in v6 too. */
bool link_ip_is_loopback(const char *ip);

/* IP without the "::ffff:" that a v6 socket puts before a v4 peer's. */
const char *link_ip_plain(const char *ip);

#endif
