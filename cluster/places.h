/*
 * Where nodes are: names of hosts to numeric addresses. Asking the resolver blocks, so a pool does
 * it; a name is asked for again every PLACE_FRESH_MS, since hosts move. For the cluster's thread
 * alone, but for the job inside.
 */
#ifndef CLUSTER_PLACES_H
#define CLUSTER_PLACES_H

#include "base/env.h"
#include "base/pool.h"

#define PLACE_FRESH_MS 30000
#define PLACE_BYTES    320 /* host:port with a terminator */
#define LIMIT_PLACES   512

struct places;

/* POOL is lent. DEFAULT_PORT: for names without one. */
int places_create(struct places **out, struct env *env, struct pool *pool,
                  unsigned default_port) MUST_CHECK;
/* After the pool has stopped. */
void places_destroy(struct places **places);

/* The numeric "ip:port" of NAME (host[:port], [v6][:port], ip:port), or NULL where it is not known
 * yet or names nothing: it is asked for then. Lent until the next call. */
const char *places_find(struct places *places, const char *name);

#endif
