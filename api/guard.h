/*
 * Who may do what while there is no access control: Redis' protected mode, and no state changes on
 * the word of another site's page. Pure.
 */
#ifndef API_GUARD_H
#define API_GUARD_H

#include "api/headers.h"

/* What clients beyond this machine may do without proving who they are (--anonymous). */
enum anonymous { ANONYMOUS_NONE, ANONYMOUS_READ, ANONYMOUS_WRITE };

enum guard_access {
    GUARD_PROBE, /* liveness and readiness: anyone */
    GUARD_READ,
    GUARD_CHANGE,
};

/* NULL, or why a request is refused. FETCH_SITE: its Sec-Fetch-Site header. */
const struct refusal *guard_check(enum anonymous anonymous, enum guard_access access,
                                  bool from_loopback, struct slice fetch_site);

#endif
