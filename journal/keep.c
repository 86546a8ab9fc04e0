/*
 * The applier's side of conflicts (journal/conflict.h): the table of bytes that lost follows from
 * the rows, in the same transactions as these.
 *
 * A row of the table begins where bytes that are here lose against others under their id. It ends
 * where the id meant for them has them, here and durable, or is deleted; where they win again and
 * are here; or where the id under which they lost is deleted, which takes all that was hidden under
 * it along. Until then their
 * bytes count as live in the sums of their segment, and their large file is not garbage. The order
 * in which a rebuild meets the records says nothing: what is settled already never begins.
 *
 * Nothing of this is looked at while the table is empty, as it nearly always is.
 *
 * Failure: as the rest of the applier; the transaction is rolled back and tried again.
 */
#include "journal/conflict.h"
#include "journal/db_conflict.h"
#include "journal/journal_internal.h"

#include <assert.h>
#include <string.h>

#define CHAIN 16 /* ids tried for one loser, before it stays as it is */

int applier_count_losers(struct journal *journal)
{
    struct applier *a = &journal->applier;
    int rc = db_conflict_sums(a->db, &a->losers, &a->loser_bytes);

    if (rc == 0) {
        atomic_store(&journal->losers, a->losers);
        atomic_store(&journal->loser_bytes, a->loser_bytes);
    }
    return rc;
}

static int free_loser(struct journal *journal, const struct object *loser, lsn_t lsn)
{
    return applier_free(journal, &loser->place, loser->size, loser->record_bytes, lsn);
}

/* The first id for LOSER that nobody has made his own, and what becomes of it there. */
static int find_target(struct journal *journal, const struct object *loser, struct id128 *target,
                       enum conflict_fate *fate)
{
    int rc = 0;

    *target = loser->id;
    *fate = CONFLICT_TAKEN;
    for (int i = 0; rc == 0 && *fate == CONFLICT_TAKEN && i < CHAIN; i++) {
        struct object *row = NULL;

        *target = conflict_id(target, loser->sha256);
        rc = db_find_writing(journal->applier.db, target, &row);
        if (rc == ERR_NOT_FOUND)
            rc = 0;
        *fate = conflict_fate(loser->sha256, row);
        object_destroy(&row);
    }
    return rc;
}

/* LOSER's row goes; its bytes are somebody else's matter. */
static int strike(struct journal *journal, const struct object *loser)
{
    struct applier *a = &journal->applier;

    assert(a->losers > 0 && a->loser_bytes >= loser->size);
    a->losers--;
    a->loser_bytes -= loser->size;
    return db_conflict_remove(a->db, loser);
}

static int remove_loser(struct journal *journal, const struct object *loser, lsn_t lsn)
{
    int rc = strike(journal, loser);

    return rc ? rc : free_loser(journal, loser, lsn);
}

/* An inline body at LOSER's place counts as live once more, or once less; large ones do not count.
 */
static int count_live(struct journal *journal, const struct object *loser, int times)
{
    if (loser->place.volume == PLACE_LARGE)
        return 0;
    return applier_add_sums(&journal->applier, loser->place.volume, 0, times * (int64_t)loser->size,
                            times * (int64_t)loser->record_bytes);
}

/* LOSER's bytes, which count as live already, are kept, or were never owed and are free. */
static int keep(struct journal *journal, const struct object *loser, lsn_t lsn)
{
    struct applier *a = &journal->applier;
    struct db_conflict known;
    enum conflict_fate fate;
    struct id128 target;
    int rc = find_target(journal, loser, &target, &fate);

    if (rc)
        return rc;
    if (fate == CONFLICT_SETTLED)
        return free_loser(journal, loser, lsn);
    rc = db_conflict_get(a->db, &loser->id, loser->sha256, &known);
    if (rc == ERR_NOT_FOUND) {
        a->losers++;
        a->loser_bytes += loser->size;
        return db_conflict_set(a->db, &target, loser);
    }
    if (rc)
        return rc;
    /* Cleaning has moved it, or a rebuild meets what the snapshot knew: what is known stays. */
    rc = place_equal(&known.loser->place, &loser->place) ? count_live(journal, loser, -1)
                                                         : free_loser(journal, known.loser, lsn);
    known.loser->place = loser->place;
    known.loser->record_bytes = loser->record_bytes;
    if (rc == 0)
        rc = db_conflict_set(a->db, &target, known.loser);
    object_destroy(&known.loser);
    return rc;
}

/* ROW's bytes are here: if they had lost for a while, they have won again, and are found under
 * their own id. */
static int reinstate(struct journal *journal, const struct object *row, lsn_t lsn)
{
    struct db_conflict conflict;
    int rc = db_conflict_get(journal->applier.db, &row->id, row->sha256, &conflict);

    if (rc)
        return rc == ERR_NOT_FOUND ? 0 : rc;
    rc = strike(journal, conflict.loser);
    if (rc == 0)
        rc = place_equal(&conflict.loser->place, &row->place)
                 ? count_live(journal, conflict.loser, -1)
                 : free_loser(journal, conflict.loser, lsn);
    object_destroy(&conflict.loser);
    return rc;
}

/* ID is deleted: what is hidden under it goes, too. */
static int forget_hidden(struct journal *journal, const struct id128 *id, lsn_t lsn)
{
    struct db_conflict conflict;
    lsn_t freed_at = lsn;
    int rc;

    while ((rc = db_conflict_of(journal->applier.db, id, &conflict)) == 0) {
        /* The garbage table wants a position of its own for each file; a record is longer than one
         * id ever loses. */
        if (freed_at < lsn + RECORD_HEADER_BYTES - 1)
            freed_at++;
        rc = remove_loser(journal, conflict.loser, freed_at);
        object_destroy(&conflict.loser);
        if (rc)
            return rc;
    }
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* ROW is that of an id which may be meant for bytes that lost. */
static int settle(struct journal *journal, const struct object *row, lsn_t lsn)
{
    struct db_conflict conflict;
    enum conflict_fate fate;
    int rc = db_conflict_for(journal->applier.db, &row->id, &conflict);

    if (rc)
        return rc == ERR_NOT_FOUND ? 0 : rc;
    fate = conflict_fate(conflict.loser->sha256, row);
    if (fate == CONFLICT_TAKEN)
        rc = find_target(journal, conflict.loser, &conflict.target, &fate);
    if (rc == 0 && fate == CONFLICT_SETTLED)
        rc = remove_loser(journal, conflict.loser, lsn);
    else if (rc == 0)
        rc = db_conflict_set(journal->applier.db, &conflict.target, conflict.loser);
    object_destroy(&conflict.loser);
    return rc;
}

int applier_keep(struct journal *journal, const struct entry *entry)
{
    const struct object *row = entry->object, *loser = entry->loser;
    struct applier *a = &journal->applier;
    int rc = 0;

    assert(row);
    if (loser && loser->place.volume == PLACE_LARGE)
        rc = applier_remember_large(a, loser->place.offset);
    if (rc == 0 && loser && entry->loser_taken)
        rc = count_live(journal, loser, 1);
    if (rc == 0 && loser)
        rc = keep(journal, loser, entry->lsn);
    if (rc == 0 && a->losers && row->flags & OBJECT_DELETED)
        rc = forget_hidden(journal, &row->id, entry->lsn);
    if (rc == 0 && a->losers && !place_is_none(&row->place))
        rc = reinstate(journal, row, entry->lsn);
    if (rc == 0 && a->losers)
        rc = settle(journal, row, entry->lsn);
    return rc;
}

int applier_forget_loser(struct journal *journal, const struct object *loser)
{
    return remove_loser(journal, loser, loser->place.lsn);
}

int applier_load_loser(struct journal *journal, const struct object *loser)
{
    struct applier *a = &journal->applier;
    struct object *row = NULL;
    int rc = db_find_writing(a->db, &loser->id, &row);

    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    bool gone = row && row->flags & OBJECT_DELETED;

    object_destroy(&row);
    if (gone)
        return 0;
    /* A row that was read before it may still point to these bytes: then a record behind the
     * snapshot makes it lose them, and they count once again (keep). */
    rc = count_live(journal, loser, 1);
    return rc ? rc : keep(journal, loser, loser->place.lsn);
}
