/*
 * Frozen runs in the journal's database, and the events of our own that are yet to be journaled
 * again because of that. Two tables:
 *   frozen    origin, node (zero: not known), seq (from which event on there may be two), hash
 *   restate   origin, next, broke: this node's own matter, not a fact
 *
 * A freeze is a fact and merges: once frozen, for ever; of several freezes of one run the lowest
 * (seq, hash) counts.
 */
#ifndef JOURNAL_DB_FREEZE_H
#define JOURNAL_DB_FREEZE_H

#include "journal/db.h"

struct db_frozen {
    struct id128 origin, node;
    uint64_t seq; /* the first event that there may be two of, from 1 */
    uint8_t hash[SHA256_BYTES];
};

/* Of run ORIGIN the events from NEXT on are to be looked at; those from BROKE on, and facts that no
 * row holds, are journaled again. */
struct db_restate {
    struct id128 origin;
    uint64_t next, broke;
};

/* ---- The applier, inside a transaction ---- */

/* *NEWS: it was not frozen before, or only from a later event on. */
int db_freeze_fold(struct db *db, const struct db_frozen *frozen, bool *news) MUST_CHECK;
/* Look at RESTATE's run from `next` on, and again from there where that was done already. */
int db_restate_add(struct db *db, const struct db_restate *restate) MUST_CHECK;
/* The same, only where there is a row of that run. */
int db_restate_lower(struct db *db, const struct db_restate *restate) MUST_CHECK;
/* What lies below NEXT is journaled. */
int db_restate_set(struct db *db, const struct id128 *origin, uint64_t next) MUST_CHECK;

/* ---- Readers. The caller frees *OUT. ---- */

int db_reader_frozen(struct db_reader *reader, struct db_frozen **out, size_t *count) MUST_CHECK;
int db_reader_restate(struct db_reader *reader, struct db_restate **out, size_t *count) MUST_CHECK;

#endif
