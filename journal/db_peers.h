/*
 * What the journal's database knows of other nodes: who is a member, and who has a durable copy of
 * which bytes. Views of member, hold and drop events, kept in the same transactions as those.
 *
 * Each node speaks for itself: of what it said about (id, sha256) the last by (stamp, origin)
 * counts. Who put an object holds it, unless it said otherwise later; that hold has no row.
 */
#ifndef JOURNAL_DB_PEERS_H
#define JOURNAL_DB_PEERS_H

#include "base/buf.h"
#include "journal/db.h"
#include "journal/snapshot.h"

/* ---- The applier, inside a transaction ---- */

/* A member event: the last writer by (stamp, origin) counts. */
int db_member_fold(struct db *db, const struct event *event) MUST_CHECK;
/* A hold or drop event's statement about one item. */
int db_holder_fold(struct db *db, const struct event *event,
                   const struct event_item *item) MUST_CHECK;
/* The same for what a snapshot says. */
int db_member_join(struct db *db, const struct snapshot_member *member) MUST_CHECK;
int db_holder_join(struct db *db, const struct snapshot_holder *holder) MUST_CHECK;
/* A deleted object has no holders. */
int db_holders_remove(struct db *db, const struct id128 *id) MUST_CHECK;

/* ---- Readers ---- */

struct db_member {
    struct id128 node;
    enum member_state state;
    struct reg at;
    char address[LIMIT_WIRE_ADDR_BYTES + 1]; /* as the event has it; "" where there is none */
};

/* Every node that a member event is known of; the caller frees *OUT. */
int db_reader_members(struct db_reader *reader, struct db_member **out, size_t *count) MUST_CHECK;

/* Where a walk over all holders stands; zero: at the start. */
struct db_holder_cursor {
    struct id128 id;
    int64_t member;
    uint8_t sha256[SHA256_BYTES];
    bool begun, done;
};

/* What nodes said about copies, from CURSOR on, in the order of object ids, at most MAX rows in one
 * read transaction, until EACH returns non-zero: that row comes again in the next call, and the
 * result is returned; but 1 becomes 0. cursor->done: that was all. */
int db_each_holder(struct db_reader *reader, struct db_holder_cursor *cursor, unsigned max,
                   int (*each)(void *arg, const struct snapshot_holder *holder),
                   void *arg) MUST_CHECK;

/* Events of ORIGIN from number FIRST on without a gap, each with its length before it (4 bytes,
 * little-endian), appended to OUT: at least one, then as many as fit into MAX_BYTES. *COUNT: how
 * many. ERR_NOT_FOUND: there is no event FIRST (any more). */
int db_reader_events(struct db_reader *reader, const struct id128 *origin, uint64_t first,
                     size_t max_bytes, struct buf *out, uint32_t *count) MUST_CHECK;

/* Objects of which this node wants a replica (object_wanted_here), with id above AFTER (NULL: from
 * the start) in id order, up to MAX, handed to EACH until it returns non-zero, which is then
 * returned. */
int db_reader_wanted(struct db_reader *reader, const struct id128 *after, unsigned max,
                     int (*each)(void *arg, const struct id128 *id, uint64_t size),
                     void *arg) MUST_CHECK;

/* Up to MAX nodes into OUT that have a durable copy of the bytes that OBJECT names, its author
 * first where it is one of them; this node itself may be among them. Their count in *COUNT. One
 * short read transaction for each of two look-ups: the answer is a hint, not a promise. */
int db_reader_holders(struct db_reader *reader, const struct object *object, struct id128 *out,
                      size_t max, size_t *count) MUST_CHECK;

/* Durable copies of one object's bytes, among the nodes that belong to the cluster. */
struct db_copies {
    unsigned members; /* joined, and neither left nor forgotten; answering or not */
    unsigned held;    /* of them, with a durable copy */
    bool uploaded;    /* the cloud has them */
    bool own_alone;   /* the other members' were not looked at */
};

/*
 * Of the bytes that OBJECT names, of one moment. Where OBJECT is ahead of the views (journal_find),
 * a copy of another node may count a little later, and none counts that never was. SELF is this
 * node: its copy is the one at object->place, and it belongs to the cluster unless a member event
 * says that it left or was forgotten (a node that never met another has journaled nothing of the
 * kind).
 */
int db_reader_copies(struct db_reader *reader, const struct object *object,
                     const struct id128 *self, struct db_copies *out) MUST_CHECK;

#endif
