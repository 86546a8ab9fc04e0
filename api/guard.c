/*
 * The door's two rules. A node listens on every address, as its ancestor did, but answers strangers
 * only once the operator has said so. And a browser on this machine must not be a way in for any
 * page it shows: a change that another site asked for is refused even from loopback.
 */
#include "api/guard.h"

#include "base/text.h"

#include <string.h>

static const struct refusal no_access_control = {
    403, "no_access_control",
    "this node has no access control yet and answers clients on its own machine alone; "
    "--anonymous=read or --anonymous=write opens it to all",
    NULL};
static const struct refusal read_only = {
    403, "no_access_control",
    "this node lets other machines read only; --anonymous=write opens it for changes", NULL};
static const struct refusal cross_site = {
    403, "cross_site", "a page of another site may not change anything here", NULL};

const struct refusal *guard_check(enum anonymous anonymous, enum guard_access access,
                                  bool from_loopback, struct slice fetch_site)
{
    static const char word[] = "cross-site";

    if (access == GUARD_CHANGE && fetch_site.ptr &&
        text_equal_nocase(fetch_site.ptr, fetch_site.len, word, sizeof word - 1))
        return &cross_site;
    if (from_loopback || access == GUARD_PROBE || anonymous == ANONYMOUS_WRITE)
        return NULL;
    if (anonymous == ANONYMOUS_READ)
        return access == GUARD_READ ? NULL : &read_only;
    return &no_access_control;
}
