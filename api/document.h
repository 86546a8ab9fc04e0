/* The meta document: what put and meta answer (DESIGN §4). Pure. */
#ifndef API_DOCUMENT_H
#define API_DOCUMENT_H

#include "base/buf.h"
#include "journal/db_peers.h"
#include "journal/object.h"

/* Durable copies there are and should be: at level 2 as many as members, else one; OUTBOX_COPIES at
 * least while the cloud is owed the body. COPIES: as counted, or as known. */
struct replicas {
    unsigned have, want;
};
struct replicas document_replicas(const struct object *object, const struct db_copies *copies,
                                  unsigned outbox_copies);

/* Append OBJECT's document as one line of JSON, with a newline. */
void document_render(struct buf *out, const struct object *object, const struct db_copies *copies,
                     unsigned outbox_copies);

/* Append NUMBER in decimal. */
void document_number(struct buf *out, uint64_t number);
/* Append Unix time MS as 2026-01-31T12:34:56.789Z. */
void document_time(struct buf *out, uint64_t unix_ms);

#endif
