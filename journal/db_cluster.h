/*
 * What administration asks of the journal's database: the cluster's feature level, sums over ranges
 * of rows, and who else holds a body.
 */
#ifndef JOURNAL_DB_CLUSTER_H
#define JOURNAL_DB_CLUSTER_H

#include "base/buf.h"
#include "journal/db.h"

/* The applier, inside a transaction: the level is FEATURE from now on, where it was lower. */
int db_feature_raise(struct db *db, uint32_t feature) MUST_CHECK;
/* The cluster's feature level as the events that are here say; 1 where none does. */
int db_reader_feature(struct db_reader *reader, uint32_t *out) MUST_CHECK;

/* What is owed besides replicas and what the cloud is owed: work that this node alone can do. */
int db_reader_owed_others(struct db_reader *reader, uint64_t *out) MUST_CHECK;

/* Rows of all kinds, tombstones and partial ones too, with ids above AFTER up to UNTIL in that
 * order, at most MAX_ROWS, handed to EACH until it returns non-zero, which is then returned. One
 * read transaction. *COMPLETE: there are no more up to UNTIL. */
int db_each_in_range(struct db_reader *reader, const struct id128 *after, const struct id128 *until,
                     unsigned max_rows, int (*each)(void *arg, const struct object *object),
                     void *arg, bool *complete) MUST_CHECK;

/* What such a range comes to. */
struct db_range {
    struct id128 last; /* the last id counted; UNTIL where complete */
    bool complete;
    uint64_t count;
    struct hash128 sum; /* of object_digest */
};
/* LIST (NULL: none): id and digest of each row are added, 32 bytes, as docs/PROTOCOL.md has them;
 * bound MAX_ROWS accordingly. */
int db_reader_range(struct db_reader *reader, const struct id128 *after, const struct id128 *until,
                    unsigned max_rows, struct buf *list, struct db_range *out) MUST_CHECK;

/* Nodes whose copies count. */
struct db_custody {
    struct id128 nodes[LIMIT_MEMBERS + 1];
    size_t count;
};
/* Whether none of NODES has a durable copy of the bytes that OBJECT, a live row, names, as far as
 * is known here. */
int db_reader_is_sole(struct db_reader *reader, const struct object *object,
                      const struct db_custody *others, bool *sole) MUST_CHECK;

#endif
