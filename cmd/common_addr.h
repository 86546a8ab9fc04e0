/* Network addresses as people write them: "host:port", "[v6]:port", ":port". Pure. */
#ifndef CMD_COMMON_ADDR_H
#define CMD_COMMON_ADDR_H

#include "base/err.h"

#include <stddef.h>

#define ADDR_HOST_BYTES 256

struct addr {
    char host[ADDR_HOST_BYTES]; /* without brackets; empty where only a port was given */
    unsigned port;
};

/*
 * Parse TEXT. DEFAULT_PORT stands in for a port left out (0: it must be there). A v6 address needs
 * brackets where a port follows. ERR_INVALID: none of the forms; ERR_RANGE: a port over 65535.
 * Whether the host exists is not asked.
 */
int addr_parse(struct addr *out, const char *text, unsigned default_port) MUST_CHECK;

/* "host:port", a v6 host in brackets, into OUT (CAP bytes; ADDR_HOST_BYTES + 16 suffice). */
void addr_format(char *out, size_t cap, const struct addr *addr);

#endif
