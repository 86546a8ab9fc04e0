/*
 * Numeric addresses, parsed by the C library's resolver with all asking switched off, and written
 * back by it, so that each address has one spelling.
 */
#include "cluster/link_address.h"

#include "base/text.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static bool is_loopback(const struct sockaddr *at)
{
    if (at->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)at)->sin_addr.s_addr) >> 24 == 127;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)at)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

static bool is_any(const struct sockaddr *at)
{
    if (at->sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)at)->sin_addr.s_addr == INADDR_ANY;
    return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)(const void *)at)->sin6_addr);
}

static struct addrinfo *resolve(const char *ip)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct addrinfo *found = NULL;

    return getaddrinfo(ip, NULL, &hints, &found) ? NULL : found;
}

int link_address_parse(struct link_address *out, const char *text)
{
    const char *colon = strrchr(text, ':');
    bool brackets = text[0] == '[';
    char ip[LINK_IP_BYTES];
    uint64_t port;
    int rc;

    *out = (struct link_address){0};
    if (!colon || (brackets && (colon < text + 2 || colon[-1] != ']')))
        return ERR_INVALID;
    rc = parse_u64(&port, colon + 1, strlen(colon + 1), 65535);
    if (rc)
        return rc;

    const char *begin = text + brackets;
    size_t len = (size_t)(colon - brackets - begin);
    if (len == 0 || len >= sizeof ip)
        return ERR_INVALID;
    memcpy(ip, begin, len);
    ip[len] = 0;
    /* "::1:80" could be read in two ways. */
    if (!!strchr(ip, ':') != brackets)
        return ERR_INVALID;

    struct addrinfo *found = resolve(ip);
    if (!found)
        return ERR_INVALID;
    out->port = (unsigned)port;
    out->v6 = found->ai_family == AF_INET6;
    out->loopback = is_loopback(found->ai_addr);
    out->any = is_any(found->ai_addr);
    rc = getnameinfo(found->ai_addr, found->ai_addrlen, ip, sizeof ip, NULL, 0, NI_NUMERICHOST);
    freeaddrinfo(found);
    if (rc)
        return ERR_INVALID;
    rc = snprintf(out->text, sizeof out->text, out->v6 ? "[%s]:%u" : "%s:%u", ip, out->port);
    assert(rc > 0 && (size_t)rc < sizeof out->text);
    return 0;
}

bool link_ip_is_loopback(const char *ip)
{
    struct addrinfo *found = strlen(ip) < LINK_IP_BYTES ? resolve(ip) : NULL;
    bool loopback = found && is_loopback(found->ai_addr);

    if (found)
        freeaddrinfo(found);
    return loopback;
}

const char *link_ip_plain(const char *ip)
{
    static const char mapped[] = "::ffff:";
    bool is_mapped = !strncmp(ip, mapped, sizeof mapped - 1) && strchr(ip, '.');

    return is_mapped ? ip + sizeof mapped - 1 : ip;
}
