/*
 * How a node that wants to leave hands over the copies that it alone has: which are on their way to
 * whom, when they are asked for again and of whom else, and how far all of it is. Pure: objects,
 * who takes copies, and time come in; what is to be asked of whom comes out.
 *
 * An object is asked of one member. It is settled once that member, or any other that counts, has
 * journaled its hold; where that takes too long the next member is asked. The table is bounded, in
 * objects and bytes: whoever looks for objects pauses while it is full.
 */
#ifndef CLUSTER_DRAIN_H
#define CLUSTER_DRAIN_H

#include "base/err.h"
#include "journal/event.h"

#include <stddef.h>

#define LIMIT_DRAIN_OBJECTS 1024
#define LIMIT_DRAIN_BYTES   (1 * GIB) /* under way, or one object */
#define DRAIN_PATIENCE_MS   15000     /* with a member, and longer for much: */
#define DRAIN_SPEED_BYTES   (4 * MIB) /* a second */

struct drain;

int drain_create(struct drain **out) MUST_CHECK;
void drain_destroy(struct drain **drain);

/* Room for one more? */
bool drain_has_room(const struct drain *drain);
/* ITEM, of SIZE bytes, is here alone; one that is known already is passed over. There is room. */
void drain_add(struct drain *drain, const struct event_item *item, uint64_t size);

/* What to ask of one of TARGETS now (what was asked of somebody who is none of them is due at
 * once), at most MAX items into OUT and who in *NODE; their count, 0: nothing for now. Call it
 * until it says 0. */
size_t drain_next(struct drain *drain, const struct id128 *targets, size_t count, uint64_t now_ms,
                  struct id128 *node, struct event_item *out, size_t max);

/* Objects under way, each at AT below the count, in any order. */
size_t drain_count(const struct drain *drain);
const struct event_item *drain_at(const struct drain *drain, size_t at);
/* Another has it, or (GONE) it need not be handed over any more. The last one takes its place. */
void drain_settle(struct drain *drain, size_t at, bool gone);

struct drain_figures {
    uint64_t objects, bytes; /* under way */
    uint64_t moved_objects, moved_bytes;
    uint64_t again; /* asked of another member, or a second time */
};
struct drain_figures drain_figures(const struct drain *drain);

#endif
