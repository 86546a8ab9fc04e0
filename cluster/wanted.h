/*
 * Which copies this node makes next: of the objects that the journal lists as wanted here
 * (db_reader_wanted), in what order, how many at once, and when again after a failure. Pure: pages
 * of the list, outcomes and time come in; look-ups and starts come out. The list itself stays in
 * SQLite: what is kept here is two places in it and a bounded table of recent failures.
 *
 * Nothing here blocks or allocates after create. Not thread-safe. NOW_MS: any clock that never goes
 * back, the same for all calls.
 */
#ifndef CLUSTER_WANTED_H
#define CLUSTER_WANTED_H

#include "base/err.h"
#include "base/id.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wanted;

/* SEED: for the spread of retries. */
int wanted_create(struct wanted **out, uint64_t seed) MUST_CHECK;
void wanted_destroy(struct wanted **wanted);

/* The journal has news; WALL_MS, Unix time, tells how old the ids are that they may concern. */
void wanted_news(struct wanted *wanted, uint64_t wall_ms);

/* ID has become wanted just now: it goes before all others, as somebody may wait for its copy.
 * Where too many have, the walks find it. */
void wanted_new(struct wanted *wanted, const struct id128 *id);

/* Another node answers (again): who failed is tried again within a second. */
void wanted_revive(struct wanted *wanted, uint64_t now_ms);

enum wanted_act {
    WANTED_WAIT,  /* nothing before until_ms (UINT64_MAX: before the next input) */
    WANTED_READ,  /* up to LIMIT_REPLICA_PAGE ids above `id` are to be given to wanted_page */
    WANTED_START, /* a copy of `id`; its end is to be told by wanted_ended */
};

struct wanted_step {
    enum wanted_act act;
    struct id128 id;
    uint64_t until_ms;
};

/* What to do next; to be done before the next call. Call it until it says WANTED_WAIT. */
void wanted_step(struct wanted *wanted, uint64_t now_ms, struct wanted_step *out);

/* The COUNT ids above the one that WANTED_READ named, in order; fewer than LIMIT_REPLICA_PAGE: the
 * list ends there. RC: they could not be read. */
void wanted_page(struct wanted *wanted, int rc, const struct id128 *ids, size_t count,
                 uint64_t now_ms);

/* Whether a copy of ID that is on no list may start now; it is then as after WANTED_START, and its
 * end is to be told. */
bool wanted_begin(struct wanted *wanted, const struct id128 *id, uint64_t now_ms);

enum wanted_outcome {
    WANTED_DONE,   /* a copy is here now */
    WANTED_GONE,   /* it is not wanted any more */
    WANTED_AGAIN,  /* other bytes are wanted under the id: to be looked at again at once */
    WANTED_FAILED, /* to be tried again after a while, which grows */
    WANTED_BUSY,   /* not its fault: the cluster takes no more for now */
    WANTED_NO_FIT, /* the disk has no room for it, but may have some for others */
    WANTED_FULL,   /* this node can store nothing for now */
};

/* How the copy of ID, which is under way, ended. */
void wanted_ended(struct wanted *wanted, const struct id128 *id, enum wanted_outcome outcome,
                  uint64_t now_ms);

size_t wanted_flights(const struct wanted *wanted);
size_t wanted_failures(const struct wanted *wanted);

#endif
