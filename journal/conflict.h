/*
 * Two puts of different bytes under one id, which only a partition makes possible: the later by
 * (stamp, origin) wins (journal/merge.h), and no acknowledged byte vanishes. Where the bytes that
 * lost are held they are kept until they are an object of their own, under an id that follows from
 * what they were: whoever does it makes the same one. docs/JOURNAL.md, "Conflict copies". Pure.
 */
#ifndef JOURNAL_CONFLICT_H
#define JOURNAL_CONFLICT_H

#include "journal/object.h"

/* The id that bytes of this hash get which lost under ID: ID's time, then the first 80 bits of the
 * SHA-256 of ID and SHA256. */
struct id128 conflict_id(const struct id128 *id, const uint8_t sha256[SHA256_BYTES]);

/* EVENT puts other bytes than BEFORE (NULL: nothing known) names. */
bool conflict_is(const struct object *before, const struct event *event);

/* The bytes that BEFORE (may be NULL) names and that are here have lost: AFTER names others. */
bool conflict_beats(const struct object *before, const struct object *after);

/* The bytes that EVENT puts have lost in this very moment: AFTER names others. */
bool conflict_loses(const struct event *event, const struct object *after);

/* What lost, of which only EVENT tells, as the row that it would have been: its bytes lie at PLACE
 * in a record of RECORD_BYTES (0: a large file). ERR_NO_MEMORY. */
int conflict_loser(struct object **out, const struct event *event, const struct place *place,
                   uint32_t record_bytes) MUST_CHECK;

/* What becomes of bytes that lost, as ROW (NULL: unknown) stands under the id meant for them. */
enum conflict_fate {
    CONFLICT_OWED,    /* they are still to be put there */
    CONFLICT_SETTLED, /* they are there, or were and are deleted */
    CONFLICT_TAKEN,   /* somebody made that id his own: theirs is conflict_id of it */
};
enum conflict_fate conflict_fate(const uint8_t sha256[SHA256_BYTES], const struct object *row);

#endif
