/* One simulated node, its clients and its disk; what sim.c, sim_node.c and sim_check.c share. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "journal/journal.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_model.h"

#include <stdatomic.h>

#define SIM_STATE "/sim/state"
#define SIM_FILES "/sim/files"
#define SIM_OPEN_REQUESTS 64

/* One client's request, from its submission to its answer. */
struct sim_request {
    struct change change; /* first */
    struct sim *sim;
    struct wish wish;
    struct sim_request *next;
    uint8_t *body;
    struct large_writer *writer;
    bool limbo; /* answered with an error of a kind that leaves open whether it happened */
};

/* Counted over all processes of a campaign. */
struct sim_counts {
    atomic_uint_fast64_t runs, points, kills, powers, nested, restarts, faults, checks, rebuilds;
    atomic_uint_fast64_t moved, cleaned, failures, sim_ms, calls, answers, trace;
    atomic_uint_fast64_t emptied, flips, flips_found;
};

struct sim {
    uint64_t seed;
    struct sim_disk *disk;
    struct env env;
    uint64_t wall_ns, mono_ns;
    uint64_t random, plan; /* dice of the node and of the driver */
    struct sim_counts *counts;

    struct store_dirs dirs;
    struct ram *ram;
    struct journal *journal;
    struct db_reader *reader;
    char message[512];
    bool rebuilding; /* a rebuild was begun, and no start has succeeded since */
    bool served;     /* a start has succeeded */
    bool faulted; /* a call was made to fail since the last start: refusals are in order */

    struct fact facts[SIM_IDS]; /* as acknowledged */
    struct sim_request *first, *last; /* not answered yet, in order */
    unsigned open_requests;
    struct wish lost[2 * SIM_OPEN_REQUESTS]; /* what was under way when the node died */
    unsigned lost_count;
    int retry_id; /* this put was told to read the copy first; -1: none */
    unsigned retry_variant;

    bool child; /* dies at one call of its parent's run, is checked, and ends */
    uint64_t point;
};

/* The run has failed: say so, with the command that replays it, and end. Does nothing where the
 * node is dead: what a dead node does is nobody's matter. */
void sim_fail(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

uint64_t sim_roll(struct sim *sim, uint64_t below);

/* ---- sim_node.c ---- */

/* Start the node: 0, or an error with sim->message. */
int node_open(struct sim *sim) MUST_CHECK;
/* An orderly stop. */
void node_stop(struct sim *sim);
/* The process is gone: free what it had. The disk is dead. */
void node_abandon(struct sim *sim);
/* Queue what a client wishes. */
void node_submit(struct sim *sim, const struct wish *wish);
/* Put again what was asked to be verified first. */
void node_retry(struct sim *sim);
/* Read OBJECT (a live one) and compare with its body. 0, or what reading it failed with. */
int node_read(struct sim *sim, unsigned id, const struct object *object);

/* ---- sim_check.c ---- */

/* After a start: which of the lost requests have happened is settled by what is there now. */
void check_outcome(struct sim *sim);
/* What readers see is what was acknowledged; with BODIES all bytes of it. */
void check_visible(struct sim *sim, bool bodies);
/* The RAM tier agrees. */
void check_ram(struct sim *sim);
/* Apply all; chains, counters, digest. */
void check_journal(struct sim *sim);
/* Every file belongs to something. Right after a start only. */
void check_files(struct sim *sim);
/* Bytes in the segments are those that the database counts. */
void check_space(struct sim *sim);

#endif
