/*
 * Addresses in options: checked as text before anything is opened, so that a slip of the pen is
 * named where it was made and not by a resolver that waits for its timeout.
 */
#include "cmd/common_addr.h"

#include "base/text.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool is_v6(const char *text)
{
    struct in6_addr ignored;

    return inet_pton(AF_INET6, text, &ignored) == 1;
}

/* Names, dotted quads; underscores occur in container networks. */
static bool is_host(const char *text, size_t len)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789.-_";
    return strspn(text, allowed) >= len;
}

int addr_parse(struct addr *out, const char *text, unsigned default_port)
{
    const char *host = text, *end, *port = NULL;
    uint64_t number = default_port;

    if (*text == '[') {
        host = text + 1;
        end = strchr(host, ']');
        if (!end || (end[1] != 0 && end[1] != ':'))
            return ERR_INVALID;
        port = end[1] == ':' ? end + 2 : NULL;
    } else {
        end = strrchr(text, ':');
        port = end ? end + 1 : NULL;
        if (!end)
            end = text + strlen(text);
    }
    size_t len = (size_t)(end - host);
    if (len >= sizeof out->host || (len == 0 && (!port || *text == '[')))
        return ERR_INVALID;
    memcpy(out->host, host, len);
    out->host[len] = 0;
    if (*text == '[' ? !is_v6(out->host) : !is_host(host, len))
        return ERR_INVALID;

    if (!port && default_port == 0)
        return ERR_INVALID;
    if (port) {
        int rc = parse_u64(&number, port, strlen(port), 65535);
        if (rc)
            return rc;
    }
    assert(number <= 65535);
    out->port = (unsigned)number;
    return 0;
}

void addr_format(char *out, size_t cap, const struct addr *addr)
{
    bool v6 = strchr(addr->host, ':') != NULL;
    int len = snprintf(out, cap, v6 ? "[%s]:%u" : "%s:%u", addr->host, addr->port);

    assert(len > 0 && (size_t)len < cap);
}
