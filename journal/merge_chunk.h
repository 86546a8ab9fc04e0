/*
 * What comes of a merge with another node, as it lies in the log: chunks in the form of a
 * snapshot's (journal/snapshot.h). Rows, holders and members are joined into what is here
 * (RECORD_MERGE); runs are adopted (RECORD_VECTOR): from then on this node knows them up to there,
 * without their events. Pure, but for the look-up that the caller lends.
 */
#ifndef JOURNAL_MERGE_CHUNK_H
#define JOURNAL_MERGE_CHUNK_H

#include "journal/object.h"
#include "storage/segment.h"

struct entry;

/* The newest row of ID into *OUT (NULL: there is none), as the caller's place in the commit path
 * has it. */
typedef int merge_look_up(void *arg, const struct id128 *id, struct object **out);

/*
 * The entries for a record of CHUNK at LSN: one for each row that changes by it, by ascending id
 * (their LSNs count on from LSN, all within the record); one for a chunk of another kind. *FIRST is
 * NULL where nothing changes. The caller owns them. *TYPE: the record's. *STAMP: the highest of
 * any row. ERR_INVALID: no such chunk, ids out of order, or a row that no node of ours has;
 * ERR_FORMAT: of a newer version; what LOOK_UP says; ERR_NO_MEMORY.
 */
int merge_chunk_fold(struct entry **first, enum record_type *type, hlc_time *stamp,
                     const void *chunk, size_t len, lsn_t lsn, merge_look_up *look_up,
                     void *arg) MUST_CHECK;

/* Destroy a list of entries that nobody took. */
void merge_entries_destroy(struct entry *first);

#endif
