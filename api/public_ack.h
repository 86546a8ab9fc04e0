/*
 * What an answer about a change promises (DESIGN §4, docs/CONSISTENCY.md): how many copies it waits
 * for, and its status by what there is in the end. Pure.
 */
#ifndef API_PUBLIC_ACK_H
#define API_PUBLIC_ACK_H

#include "api/headers.h"
#include "cluster/copies.h"

/* What this node's settings say. */
struct ack_policy {
    bool cloud;     /* there is one */
    bool writeback; /* who does not ask for it does not wait for it */
};

/* What ACK waits for after a change that left the row OBJECT. RAISES: the change may owe copies or
 * an upload (a put, a level that was sent); others wait for nothing unless ACK says so. */
enum copies_need ack_need(enum ack ack, const struct object *object, bool raises,
                          const struct ack_policy *policy);

/* 200, or 202: durable here, the rest is owed. COPIES: by now, OBJECT may be older; COUNTED: they
 * are what the journal's views say, else this node knows of its own copy alone. */
unsigned ack_status(enum ack ack, const struct object *object, bool raises,
                    const struct db_copies *copies, bool counted);

#endif
