/* One simulated node, its clients and its disk; what sim.c, sim_node.c and sim_check.c share. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "journal/journal.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_model.h"

#include <stdatomic.h>

#define SIM_STATE         "/sim/state"
#define SIM_FILES         "/sim/files"
#define SIM_OPEN_REQUESTS 64
#define SIM_SLOW_READERS  3
#define SIM_FOUGHT        5 /* ids that a peer puts, too */

/* What a child does at its point of its parent's run. */
enum sim_point {
    POINT_NONE,
    POINT_DEATH, /* dies in that call */
    POINT_FAULT, /* the call fails, or does less */
    POINT_FLIP,  /* one bit is flipped after the run's end */
};

/* How far an id that is fought about has come: sim_conflict.c. */
enum conflict_stage { FOUGHT_NONE, FOUGHT_HERE, FOUGHT_LOST, FOUGHT_DELETED };
struct conflict_request;

/* One client's request, from its submission to its answer. */
struct sim_request {
    struct change change; /* first */
    struct sim *sim;
    struct wish wish;
    struct sim_request *next;
    uint8_t *body;
    char place[16]; /* in the cloud */
    struct large_writer *writer;
    bool limbo; /* answered with an error of a kind that leaves open whether it happened */
};

/* Counted over all processes of a campaign. */
struct sim_counts {
    atomic_uint_fast64_t runs, points, kills, powers, nested, restarts, faults, checks, rebuilds;
    atomic_uint_fast64_t moved, cleaned, failures, sim_ms, calls, answers, trace, slow_reads;
    atomic_uint_fast64_t reputs;
    atomic_uint_fast64_t fault_points, emptied, flips, flips_found, snapshots, compacted;
};

struct sim_options {
    uint64_t first, last;
    uint64_t until; /* begin no further seed once so many crash points are passed */
    uint64_t least; /* fewer crash points than that is a failure */
    unsigned steps, jobs, stride;
    unsigned faults;  /* at one call in so many: a child in which it fails; 0: never */
    unsigned flips;   /* flipped bits at the end of each run */
    unsigned seconds; /* begin no further seed after that */
    bool verbose, twice, no_points;
    bool first_only;     /* end at the first failure */
    const char *results; /* where to write "passed failed skipped" */
    /* A replay does in this process what the child did. */
    enum sim_point replay;
    uint64_t at;
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
    bool rebuilding;  /* a rebuild was begun, and no start has succeeded since */
    bool served;      /* a start has succeeded */
    bool faulted;     /* a call was made to fail since the last start: refusals are in order */
    uint64_t misfits; /* bodies from elsewhere that were wrong, since the last start */

    struct fact facts[SIM_IDS];       /* as acknowledged */
    struct sim_request *first, *last; /* not answered yet, in order */
    unsigned open_requests;
    struct wish lost[2 * SIM_OPEN_REQUESTS]; /* what was under way when the node died */
    unsigned lost_count;
    bool lost_to_faults; /* calls failed meanwhile: each may have been refused alone */
    int retry_id;        /* this put was told to read the copy first; -1: none */
    unsigned retry_variant;

    enum conflict_stage fought[SIM_FOUGHT]; /* as acknowledged */
    struct conflict_request *fight;         /* under way, or answered; NULL: none */
    unsigned fight_id;                      /* its id; … */
    bool fight_maybe;                       /* … open whether that one happened */

    struct {
        struct object *object; /* what a reader has looked up and not yet read; NULL: nothing */
        struct large_reader *file;
        unsigned id, variant;
    } slow[SIM_SLOW_READERS];

    enum sim_point point_kind; /* POINT_NONE: the run itself; else it is a child */
    uint64_t point;
    unsigned calm; /* no call fails while above 0 */
};

extern struct sim_options sim_options;

/* ---- sim_gate.c ---- */

/* Where reports go; stderr is for the node's own log. */
extern int sim_report_fd;
extern const char *sim_program;
void sim_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void sim_say_replay(uint64_t seed, enum sim_point kind, uint64_t point);

/* The run has failed: say so, with the command that replays it, and end. Does nothing where the
 * node is dead: what a dead node does is nobody's matter. */
void sim_fail(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

uint64_t sim_roll(struct sim *sim, uint64_t below);
uint64_t sim_mix(uint64_t a, uint64_t b, uint64_t c);

/* A new run begins: SIM's disk asks here. */
void gate_init(struct sim *sim);
/* From here on, or no more, each call is a point for children. */
void gate_arm(bool armed);
/* The node dies in a call, OFFSET calls from now (1: the next); 0: it does not after all. */
void gate_die_in(struct sim *sim, uint64_t offset);
bool gate_is_dying(void);
/* One call, OFFSET or more calls from now, fails in a way that DICE chooses. */
void gate_fail_in(struct sim *sim, uint64_t offset, uint64_t dice);
bool gate_is_failing(void);
void gate_no_faults(void);
/* Fork a child for POINT of KIND, or be it where it is to be replayed: true in the child. */
bool gate_branch(struct sim *sim, enum sim_point kind, uint64_t point);
/* Wait for all children; whether all points of this run passed. */
bool gate_finish(void);

/* ---- sim_steps.c ---- */

void sim_pass_time(struct sim *sim, uint64_t ms);
/* The whole of one run; a child ends in it. */
void sim_run(struct sim *sim);
/* Stop, rebuild the database from the log, start: the digest has to be the same. */
void sim_rebuild(struct sim *sim);
/* Start, however often the node dies on the way. */
void sim_start(struct sim *sim);
/* What objctl journal rebuild does, on a stopped node. */
int sim_rebuild_database(struct sim *sim);

/* ---- sim_flip.c ---- */

/* Flip one bit of the store at rest and see that nothing false is ever said; ends the process. */
void sim_flip(struct sim *sim) __attribute__((noreturn));

/* ---- sim_node.c ---- */

/* A reader that takes its time: look up now, or read now what was looked up earlier. */
void node_read_slowly(struct sim *sim);

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

/* ---- sim_conflict.c ---- */

/* One more request about an id that a peer puts, too. */
void conflict_step(struct sim *sim);
/* The node is dead or stopped: free what is under way. */
void conflict_abandon(struct sim *sim);
/* After a start: what was under way has happened or not. */
void conflict_settle_outcome(struct sim *sim);
/* What was acknowledged is there; with BODIES also what lost. */
void conflict_check(struct sim *sim, bool bodies);
/* Nothing is owed for ever. Goes on with the node meanwhile. */
void conflict_check_end(struct sim *sim);

/* ---- sim_check.c: what clients were told ---- */

/* After a start: which of the lost requests have happened is settled by what is there now. */
void check_outcome(struct sim *sim);
/* What readers see is what was acknowledged; with BODIES all bytes of it. */
void check_visible(struct sim *sim, bool bodies);
/* The RAM tier agrees. */
void check_ram(struct sim *sim);

/* ---- sim_check_store.c: the store itself ---- */

/* Apply all; chains, counters, digest. */
void check_journal(struct sim *sim);
/* Every file belongs to something. Right after a start only. */
void check_files(struct sim *sim);
/* Bytes in the segments are those that the database counts. */
void check_space(struct sim *sim);

#endif
