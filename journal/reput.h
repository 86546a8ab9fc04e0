/*
 * The janitor's part in conflicts (journal/conflict.h): bytes that lost against others under their
 * id are put again, under an id of their own.
 */
#ifndef JOURNAL_REPUT_H
#define JOURNAL_REPUT_H

#include "journal/db_conflict.h"
#include "storage/large.h"

#include <stdatomic.h>
#include <stdbool.h>

struct journal;

/* Embedded in the journal; all zero at the start. The janitor's own, but for what is atomic. */
struct reput {
    struct db_conflict_cursor after; /* of this round over the table */
    uint64_t not_before_ms, backoff_ms;
    uint8_t *buf;
    /* A large body on its way: copied some blocks a step. */
    struct db_conflict large; /* loser NULL: none */
    struct large_reader *reader;
    struct large_writer *writer;
    struct digest *digest;
    uint64_t block;
    _Atomic uint32_t in_flight;    /* changes submitted and not yet done */
    _Atomic int failed;            /* one of them was refused */
    _Atomic uint64_t done, bytes;  /* put since the start */
    _Atomic uint64_t minute, said; /* log lines in this one */
};

/* A bounded step. True where there is more to do at once. */
bool reput_step(struct journal *journal);
void reput_release(struct reput *reput);

#endif
