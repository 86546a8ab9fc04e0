/*
 * A whole cluster in one process: what the files of the cluster simulator share.
 *
 * Each node is production code (journal, SQLite, cluster, replicator) over a disk, a clock and a
 * network of its own. There are no threads: what they would do are steps here, each of which has a
 * moment at which it is due. The next moment of all nodes and frames is where the clock goes, so
 * quiet time costs next to nothing. One world a process; the node whose code runs is `world.at`.
 */
#ifndef TESTS_CLUSTER_SIM_WORLD_H
#define TESTS_CLUSTER_SIM_WORLD_H

#include "api/store.h"
#include "cluster/cluster_internal.h"
#include "tests/cluster_sim/keys.h"
#include "tests/sim/sim.h"

#define NODES     5
#define MS        UINT64_C(1000000) /* in nanoseconds */
#define SECOND    (1000 * MS)
#define MINUTE    (60 * SECOND)
#define HOUR      (60 * MINUTE)
#define NEVER     UINT64_MAX
#define PAUSE_MAX (500 * MS) /* between turns of a cluster's loop with nothing under way */

/* The steps of a node, by what takes them in production. */
enum step {
    STEP_TURN,      /* cluster's thread */
    STEP_COMMIT,    /* committer */
    STEP_MARK,      /* … when idle */
    STEP_APPLY,     /* applier */
    STEP_UPKEEP,    /* janitor */
    STEP_POOL,      /* workers of all pools */
    STEP_REPLICATE, /* replicator's thread */
    STEP_UPLOAD,    /* uploader's thread */
    STEP_CLOUD,     /* the cloud's backend */
    STEPS
};

struct fetching;

struct node {
    struct sim sim; /* disk, environment, journal: as tests/sim's checks want them */
    unsigned index;
    char address[32];
    bool up;
    uint32_t life; /* counts starts */
    struct cluster *cluster;
    struct link *link;
    struct pool *pools;
    struct cloud *cloud;
    unsigned disks; /* counts those that it lost */
    uint64_t due[STEPS];
    uint64_t lively_until; /* the janitor looks often */
    uint64_t checkpoint_at;
    uint64_t stalled_until; /* the process gets no time */
    uint64_t start_at;      /* of a node that is down; NEVER: somebody starts it */
    bool accept_loss;       /* at the next start */
    bool displaced;         /* another process runs as this node: it is to stop … */
    bool rename;            /* … and gets an id of its own before the next start */
    bool slow_disk;
    uint64_t full_until; /* writes fail now and then */
    bool fail_sync;      /* the next sync fails */
    bool faulty;         /* something has failed since its start: refusals are in order */
    bool fresh_disk;     /* since the last check it was put on another disk than it had left */
    int64_t skew_ns;     /* of its wall clock */
    int64_t drift_ppm;
    uint64_t die_at; /* it dies in the disk's call of this number; 0: not */
    enum sim_crash death;
    struct asked *asked, *asked_last; /* by clients, not answered yet; in order */
    struct fetching *fetching;
    /* Its doors. */
    struct ram *ram;
    struct disk_cache *cache;
    struct budget memory;
    struct store *store;
    struct get *gets;
    struct http_request *adopting;
    struct id128 self; /* its id when it was up last */
    struct sim_disk *backup;
};

/* One direction between two nodes. */
struct path {
    bool cut;
    unsigned loss, twice, swap; /* of 1000 frames */
    uint64_t delay_ns, jitter_ns;
    uint64_t busy_until; /* what was sent before is still on the wire */
    uint64_t last[2];    /* arrival of the last frame on our connection, and back on theirs */
    unsigned under_way;
};

struct frame {
    uint64_t at, serial;
    uint8_t from, to;
    bool back; /* on the connection that TO made */
    uint32_t from_life, to_life;
    link_peer handle; /* of the connection, at whoever made it */
    uint32_t len;
    uint8_t data[];
};

struct world_counts {
    atomic_uint_fast64_t runs, failures, sim_s, frames, lost, doubled, turns, puts, deletes, metas,
        refused, reads, peer_reads, peer_read_failures, kills, powers, stops, wipes, restores, cuts,
        jumps, checks, key_checks, body_checks, events, stalls, conflicts, clones, faults,
        must_reads, trace, forgotten, cloud_asked, cloud_puts, cloud_gets, cloud_deletes,
        cloud_outages, cloud_checks, cloud_marks, cloud_promised, cloud_orphans, purges, raises,
        planted, adopted, refound, outlived, shared_reads, shared_gets, near_reads;
};

struct world_options {
    uint64_t first, last, only_trace;
    unsigned hours_tenths; /* of one run */
    unsigned jobs, seconds;
    bool verbose, twice, first_only, day;
    const char *results;
    double hours; /* at least so many in all, else a failure */
};

extern struct world_options options;

struct world {
    uint64_t seed, now, until; /* nanoseconds of simulated time */
    uint64_t dice;             /* of schedule, network and nemesis */
    uint64_t client_dice;
    uint64_t trace;
    struct node nodes[NODES];
    struct node *at;
    struct path paths[NODES][NODES];
    struct frame **heap;
    size_t frame_count, frame_cap;
    uint64_t serial;
    struct world_counts *counts;
    const char *doing; /* for a failure's report */
    bool quiet;        /* no trouble any more: what a check needs is under way */
    bool calm;         /* nothing goes wrong in this run */
    bool ancestor;     /* half of what lay in the cloud before does not tell its SHA-256 */
    bool day;          /* the cloud is away for all of this run but its end */

    uint64_t burst_at, burst_until, next_request_at, trouble_at, check_at;
    struct key *keys;
    size_t key_count;
};

extern struct world world;

/* ---- world.c ---- */

uint64_t dice(uint64_t below);
bool chance(unsigned of_1000);
/* A time with this mean, at random, at most four times it. */
uint64_t around(uint64_t mean_ns);
void note(uint64_t what, uint64_t a, uint64_t b); /* into the trace */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* With --verbose: what happens, with the time. */
void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Let time pass up to UNTIL, or until STOP (may be NULL) says so. */
void pass(uint64_t until, bool (*stop)(void));

/* ---- node.c ---- */

void node_init(struct node *node);
void node_start(struct node *node);
void node_halt(struct node *node); /* in order */
/* Another disk for a node that is down. */
void node_replace_disk(struct node *node, struct sim_disk *disk);
/* At once, or in one of the next calls of its disk. */
void node_kill(struct node *node, enum sim_crash how, bool inside);
/* Whether its disk died under it: then it is cleared away. */
void node_bury(struct node *node);
void node_take(struct node *node, enum step step);
/* What is due now that something happened to it. */
void node_arm(struct node *node);
void node_release(struct node *node);
uint64_t node_next(const struct node *node);

/* ---- network.c ---- */

/* Frames that are due: each to its node, which then takes a turn. */
uint64_t network_next(void);
void network_deliver(void);
void network_release(void);
void network_calm(void);
/* How long link_poll was willing to wait last. */
unsigned link_patience(const struct link *link);
bool link_has_frames(const struct link *link);

/* ---- workers.c ---- */

bool workers_have(const struct node *node);
void workers_take(struct node *node);

/* ---- clients.c ---- */

void clients_step(void);
void clients_forget(struct node *node); /* its process is gone */
/* Node NODE, which lacks them, reads the whole bytes from whoever has them; it is to succeed. */
void clients_must_read(struct node *node, struct key *key, unsigned variant);
uint64_t clients_next(void);

/* ---- doors.c ---- */

/* RAM and disk cache, which the journal speaks to; the store above the cluster. */
int doors_prepare(struct node *node);
int doors_open(struct node *node);
void doors_close(struct node *node);
void doors_release(struct node *node);
/* A client of NODE, whose ROW of KEY has no copy, wants the bytes; MUST: it is to get them. */
void doors_get(struct node *node, struct key *key, const struct object *row, bool must);
/* … wants KEY, which NODE may not know, looked for in the cloud. */
enum adopt { ADOPT_MAY, ADOPT_MUST, ADOPT_MUST_NOT };
void doors_adopt(struct node *node, struct key *key, enum adopt adopt);
/* Many who ask at once for one body cost the cloud one request, in quiet. */
void doors_check(void);

/* ---- wiped.c ---- */

/* All nodes lose their disks; what the bucket has is found again. The last thing in a run. */
void wiped_check(void);

/* ---- cloud.c ---- */

struct cloud *cloud_new(struct node *node);
/* The next step of NODE's backend, and the next thing that the server does. */
uint64_t cloud_due(const struct node *node);
void cloud_take(struct node *node);
uint64_t cloud_next(void);
void cloud_step(void);
/* NODE's process is gone: what it was about to send may not arrive. */
void cloud_died(const struct node *node);
/* NODE's disk is about to go: what it alone could tell of what lies there nobody will know. */
void cloud_disk_lost(const struct node *node);
void cloud_begin(void);
void cloud_away(void);
void cloud_rough(void);
void cloud_heal(void);
bool cloud_is_away(void);
/* It has given other bytes than it has. */
bool cloud_alters(void);
void cloud_release(void);
/* NODE has ROW, which says that the cloud has its bytes. */
void cloud_has(const struct node *node, const struct object *row);
/* It lies there as ROW says. */
bool cloud_is_right(const struct object *row);
/* KEY's first bytes lie there, as nodes put them that are gone: an object of LEVEL. */
void cloud_plant(struct key *key, unsigned level);
/* Something lies under its id. */
bool cloud_holds(const struct key *key);
/* Its mark lies there for a delete that nobody can know of any more: the disk of whoever put it was
 * lost before a node that was up had heard of the delete. */
bool cloud_mark_is_orphan(const struct key *key);
/* … of the ancestor's, which does not tell its SHA-256. */
bool cloud_is_ancestors(const struct key *key);
/* How often its body was asked for. */
unsigned cloud_gets(const struct key *key);
/* End what NODE has asked: it stops. */
void cloud_hang_up(struct node *node);
bool cloud_is_settled(void);
/* The bucket has what it is to have, and nothing else. */
void cloud_check(void);

/* ---- trouble.c ---- */

void trouble_step(void);
void trouble_heal(void);

/* ---- check.c ---- */

void check_cluster(void);
/* What NODE's database has of it, for the caller to destroy; NULL: nothing. */
struct object *row_of(struct node *node, const struct key *key);

#endif
