/*
 * The scrub: reads every body this node holds, slowly and for ever, so that rot is found before the
 * last good copy elsewhere is gone. One small step at a time; the janitor calls it.
 */
#ifndef JOURNAL_SCRUB_H
#define JOURNAL_SCRUB_H

#include "base/id.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct journal;
struct db_reader;
struct large_reader;

/* Embedded in the journal. All zero, but for interval_ms: scrub is off with 0. */
struct scrub {
    uint64_t interval_ms; /* from the start of one round to the start of the next */
    uint64_t next_ms;     /* when the next step may run */
    uint64_t round_ms;    /* when this round began */
    bool running;
    struct id128 after;          /* the last id looked at */
    struct large_reader *reader; /* a large body half read: that of file number FILE */
    uint64_t file, block;
    uint8_t *buf;
    _Atomic uint64_t objects, bytes, errors, finished_ms; /* this round's; finished: the last one */
};

/* Read at most 1 MiB; true where a step was done and another may follow at once. */
bool scrub_step(struct journal *journal, struct scrub *scrub, struct db_reader *reader,
                uint64_t now_ms);
void scrub_release(struct scrub *scrub);

#endif
