/*
 * A small table of names. Numeric addresses need no resolver and no row. The job belongs to its
 * row: while it is under way nobody else touches `found`; `busy` is what hands it over.
 *
 * Failure: a name that cannot be resolved keeps the address it had; without one there is none.
 */
#include "cluster/places.h"

#include "base/log.h"
#include "cluster/link_address.h"

#include <assert.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct place_name {
    struct job job;
    char name[PLACE_BYTES]; /* as asked for */
    char host[PLACE_BYTES];
    char port[8];
    char known[LINK_ADDRESS_BYTES]; /* "" where there is none */
    char found[LINK_ADDRESS_BYTES]; /* the job's */
    int failure;                    /* of getaddrinfo */
    atomic_bool busy;
    bool asked, complained;
    uint64_t asked_ms;
};

struct places {
    struct env *env;
    struct pool *pool;
    unsigned default_port;
    struct place_name *rows[LIMIT_PLACES];
    size_t count;
    char numeric[LINK_ADDRESS_BYTES];
};

int places_create(struct places **out, struct env *env, struct pool *pool, unsigned default_port)
{
    struct places *places = calloc(1, sizeof *places);

    *out = places;
    if (!places)
        return ERR_NO_MEMORY;
    places->env = env;
    places->pool = pool;
    places->default_port = default_port;
    return 0;
}

void places_destroy(struct places **places)
{
    if (!*places)
        return;
    for (size_t i = 0; i < (*places)->count; i++)
        free((*places)->rows[i]);
    free(*places);
    *places = NULL;
}

/* NAME as host and port. False where it is no such thing. */
static bool split(const struct places *places, const char *name, struct place_name *row)
{
    const char *end = name + strlen(name), *port = NULL, *host = name, *host_end = end;

    if (*name == '[') {
        host = name + 1;
        host_end = strchr(name, ']');
        if (!host_end || (host_end[1] != '\0' && host_end[1] != ':'))
            return false;
        port = host_end[1] ? host_end + 2 : NULL;
    } else if (strchr(name, ':') == strrchr(name, ':') && strchr(name, ':')) {
        host_end = strchr(name, ':');
        port = host_end + 1;
    }
    if (host_end == host || (size_t)(host_end - host) >= sizeof row->host)
        return false;
    memcpy(row->host, host, (size_t)(host_end - host));
    row->host[host_end - host] = '\0';
    unsigned number = places->default_port;
    int used = 0;
    if (port && (sscanf(port, "%5u%n", &number, &used) != 1 || port[used] != '\0'))
        return false;
    if (number == 0 || number > 65535)
        return false;
    (void)snprintf(row->port, sizeof row->port, "%u", number);
    return true;
}

/* The one of LIST to take: a v4 address where there is one. Nodes listen on 0.0.0.0 unless told
 * otherwise, while most machines' localhost is ::1 first. */
static const struct addrinfo *prefer(const struct addrinfo *list)
{
    for (const struct addrinfo *at = list; at; at = at->ai_next)
        if (at->ai_family == AF_INET)
            return at;
    return list;
}

static void resolve(struct job *job, void *context)
{
    struct place_name *row = (struct place_name *)job;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char ip[LINK_IP_BYTES];

    (void)context;
    row->found[0] = '\0';
    row->failure = getaddrinfo(row->host, row->port, &hints, &list);
    const struct addrinfo *best = prefer(list);
    if (row->failure == 0 &&
        getnameinfo(best->ai_addr, best->ai_addrlen, ip, sizeof ip, NULL, 0, NI_NUMERICHOST) == 0)
        (void)snprintf(row->found, sizeof row->found, strchr(ip, ':') ? "[%s]:%s" : "%s:%s", ip,
                       row->port);
    if (list)
        freeaddrinfo(list);
    atomic_store_explicit(&row->busy, false, memory_order_release);
}

static struct place_name *row_of(struct places *places, const char *name)
{
    for (size_t i = 0; i < places->count; i++)
        if (strcmp(places->rows[i]->name, name) == 0)
            return places->rows[i];
    if (places->count == LIMIT_PLACES || strlen(name) >= PLACE_BYTES)
        return NULL;
    struct place_name *row = calloc(1, sizeof *row);
    if (!row)
        return NULL;
    (void)snprintf(row->name, sizeof row->name, "%s", name);
    if (!split(places, name, row)) {
        free(row);
        return NULL;
    }
    row->job.run = resolve;
    places->rows[places->count++] = row;
    return row;
}

/* Take over what the last job found. */
static void take(struct place_name *row)
{
    if (!row->asked || atomic_load_explicit(&row->busy, memory_order_acquire))
        return;
    if (row->found[0])
        memcpy(row->known, row->found, sizeof row->known);
    else if (!row->complained)
        log_warn("cluster: cannot resolve %s: %s", row->name, gai_strerror(row->failure));
    row->complained = !row->found[0];
    row->asked = false;
}

const char *places_find(struct places *places, const char *name)
{
    struct link_address address;
    uint64_t now_ms = env_mono_ms(places->env);

    if (link_address_parse(&address, name) == 0 && address.port) {
        memcpy(places->numeric, address.text, sizeof places->numeric);
        return places->numeric;
    }
    struct place_name *row = row_of(places, name);
    if (!row)
        return NULL;
    take(row);
    if (!row->asked && (!row->asked_ms || now_ms - row->asked_ms >= PLACE_FRESH_MS ||
                        (!row->known[0] && now_ms - row->asked_ms >= 1000))) {
        atomic_store_explicit(&row->busy, true, memory_order_relaxed);
        row->asked_ms = now_ms;
        row->asked = pool_submit(places->pool, &row->job) == 0;
    }
    return row->known[0] ? row->known : NULL;
}
