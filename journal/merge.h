/*
 * The merge rules: a CRDT, so that every node arrives at the same rows whatever the order, delay
 * and repetition in which it hears of events (docs/JOURNAL.md, DESIGN §2). Pure.
 *
 *   delete      wins for ever; deleted_at = highest stamp; purge: where any delete asks for it
 *   put         the highest (stamp, origin) decides sha256, size, type
 *   level       the highest ever set by any put or meta
 *   name, user meta, expiry   each on its own, the highest (stamp, origin) that set it
 *   in the cloud   the highest (stamp, origin) of an uploaded (its sha256 and place), deleted or
 * not; removed: the highest upload that a purged names; marked: once it was
 *
 * Two facts of one (stamp, origin), which only a broken or cloned node can write, are ordered by
 * what they say, so that even then all nodes agree.
 */
#ifndef JOURNAL_MERGE_H
#define JOURNAL_MERGE_H

#include "journal/object.h"

/*
 * Fold EVENT (put, meta, delete or cloud about this id; other kinds change no row) into BEFORE
 * (NULL: nothing known), giving a fresh row in *AFTER. Where the event changes nothing *AFTER is an
 * equal copy; of NULL, a partial row that says nothing (its digest is zero). place is carried over
 * from BEFORE where the bytes are still the same and not deleted, else none; OBJECT_PLAIN is kept
 * only where nothing changed. ERR_NO_MEMORY.
 */
int merge_event(struct object **after, const struct object *before,
                const struct event *event) MUST_CHECK;

/*
 * Join what another node's row OTHER says into BEFORE (NULL: nothing known): *AFTER is the row of
 * all events that either has seen; commutative, associative and idempotent, and equal to folding
 * those events one by one. Of OTHER only facts count, never its place or OBJECT_PLAIN; *AFTER's
 * place is as merge_event says. *CHANGED: whether *AFTER says anything that BEFORE does not.
 * ERR_NO_MEMORY.
 */
int merge_rows(struct object **after, const struct object *before, const struct object *other,
               bool *changed) MUST_CHECK;

/* -1, 0, 1: which of two writes is later. */
int reg_compare(const struct reg *a, const struct reg *b);

#endif
