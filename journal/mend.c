/*
 * Runs with a hole: rot took a record out of the log before its event was in the database, and
 * those behind it were replayed. (After a rebuild there may also seem to be one, where cleaning has
 * moved events: they were only met later.)
 *
 * A run counts as known up to where it has no hole: so the vector says, so peers that have the lost
 * event give it and what follows. Of a run of our own the events behind the hole are journaled
 * again (restate.c), since without the lost one nobody could take them.
 *
 * Failure: SQLite's; the start fails, and the next one finds the database as this one did.
 */
#include "base/log.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"

#include <string.h>

struct walk {
    uint64_t seq; /* the last one without a hole before it */
    uint8_t hash[SHA256_BYTES];
    uint64_t behind; /* the first one behind a hole; 0: there is none */
    bool own;
};

static int look(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct walk *walk = arg;

    if (seq != walk->seq + 1) {
        struct event event;

        /* A merge brings some kinds without what precedes them (commit_merge.c): no hole. */
        if (!walk->own && event_decode(&event, raw, len) == 0 && !fold_is_covered(&event))
            return 0;
        walk->behind = seq;
        return ERR_RANGE;
    }
    walk->seq = seq;
    event_hash(raw, len, walk->hash);
    return 0;
}

static int mend(struct journal *journal, struct db_reader *reader, struct db_origin *origin)
{
    bool own = id_equal(&origin->node, &journal->node);
    struct walk walk = {.seq = origin->seq, .own = own};
    char run[ULID_TEXT_BYTES + 1];
    int rc;

    memcpy(walk.hash, origin->hash, SHA256_BYTES);
    rc = db_each_event(reader, origin->no, origin->seq + 1, look, &walk);
    if (rc && rc != ERR_RANGE)
        return rc;
    origin->seq = walk.seq;
    memcpy(origin->hash, walk.hash, SHA256_BYTES);
    origin->gap = false;
    rc = db_origin_set(journal->applier.db, origin);
    if (rc || !walk.behind)
        return rc;
    ulid_format(run, &origin->origin);
    log_error("journal: events %llu to %llu of run %s are lost here; %s",
              (unsigned long long)walk.seq + 1, (unsigned long long)walk.behind - 1, run,
              own ? "what follows is journaled again" : "other nodes may have them");
    if (!own)
        return 0;
    struct db_restate restate = {
        .origin = origin->origin, .next = walk.behind, .broke = walk.behind};

    return db_restate_add(journal->applier.db, &restate);
}

int applier_mend(struct journal *journal)
{
    struct applier *a = &journal->applier;
    struct db_reader *reader = NULL;
    bool any = false;
    int rc;

    for (size_t i = 0; i < a->origin_count; i++)
        any |= a->origins[i].gap;
    if (!any)
        return 0;
    if ((rc = journal_reader_open(journal, &reader)) != 0)
        return rc;
    if ((rc = applier_begin(journal)) != 0)
        goto out;
    for (size_t i = 0; rc == 0 && i < a->origin_count; i++)
        if (a->origins[i].gap)
            rc = mend(journal, reader, &a->origins[i]);
    if (rc == 0)
        rc = applier_commit(journal, a->state.position);
    if (rc)
        applier_rollback(journal);
out:
    db_reader_close(&reader);
    return rc;
}
