/*
 * The node's part in its cluster: one thread that owns the link to other nodes and drives the pure
 * cores (probe, sync, fetch, serve) with what comes in.
 *
 *   link ──frames──► wire ──► probe   who answers
 *                         ──► sync    events ──► journal (CHANGE_PEER)
 *                         ──► fetch   bytes of bodies that a door, or the replicator, asked for
 *                         ──► serve   bytes of ours that a peer asked for ──► pool reads them
 *   journal's applier ──news──► sync, probe's summary
 *
 * Every other thread speaks to it through bounded queues and a wake-up; it calls back on its own
 * thread. It never waits for the disk: reads are jobs of a pool of its own.
 */
#ifndef CLUSTER_CLUSTER_H
#define CLUSTER_CLUSTER_H

#include "cluster/cloud_guard.h"
#include "cluster/copies.h"
#include "cluster/probe.h"
#include "cluster/members.h"
#include "journal/journal.h"
#include "storage/cloud.h"

struct cluster;
struct cluster_member;
struct uploader;

struct cluster_config {
    struct journal *journal; /* lent; open, but not started: the cluster listens to it */
    struct env *env;
    const char *tag;
    const char *private_addr;   /* host:port to listen on */
    const char *advertise_addr; /* host:port for others; NULL: found out */
    const char *secret_file;    /* NULL: none, loopback alone */
    const char *const *seeds;   /* host[:port] */
    size_t seed_count;
    /* Once, on the cluster's thread: another process runs as this node, and was there first (one of
     * the two has a copy of the other's directories). The caller is to stop; NULL: it does not. */
    void (*on_displaced)(void *arg);
    void *on_displaced_arg;
    const char *state_dir;        /* where a drain that was begun is remembered */
    const struct id128 *replaces; /* the dead member whose place this node takes; NULL: nobody's */
    struct cloud *cloud; /* lent, until cluster_close; NULL: none. What is owed to it is uploaded,
                            and what no member has is read from it */
    const char *cloud_prefix; /* of the keys that this node makes; NULL: none */
    unsigned outbox_copies;   /* of a body while it is owed to the cloud: 1 or 2; 0: 2 */
    bool writeback;           /* nobody waits for the cloud: second copies are made at once */
};

/*
 * Listen, and read from the journal's database who is known. Before journal_start; the thread is
 * started by cluster_start, after it. Errors with MESSAGE (CAP bytes): the link's (ERR_IN_USE …),
 * the secret's, ERR_INVALID for a seed that is no address.
 */
int cluster_open(struct cluster **out, const struct cluster_config *config, char *message,
                 size_t cap) MUST_CHECK;
int cluster_start(struct cluster *cluster) MUST_CHECK;
/* Tell the others that this node leaves, end what is under way (each `done` is called), join. Call
 * it before journal_stop. */
void cluster_stop(struct cluster *cluster);
/* After journal_stop: its last news may come until then. */
void cluster_close(struct cluster **cluster);

/*
 * Without cluster_start (the simulator) the caller takes the steps of its thread: from one thread,
 * and beside those of the replicator (cluster/replicator.h) and of the pool.
 */
/* One turn of the loop, which may wait for frames as link_poll does; false where the link is no
 * more. */
bool cluster_step(struct cluster *cluster);
/* Begin to leave, after the replicator's stop: no more cluster_step from then on, but … */
void cluster_leave(struct cluster *cluster);
/* … this, until it says that nothing is under way any more. */
bool cluster_leave_step(struct cluster *cluster) MUST_CHECK;

/* host:port of the listening socket. */
const char *cluster_address(const struct cluster *cluster);

/* ---- Bodies from other nodes ---- */

/* What a reader may have been given, and not told as taken: of nodes, or … */
#define CLUSTER_PEER_BYTES BODY_WINDOW_BYTES
/* … where the cloud has a copy, too. */
#define CLUSTER_CLOUD_BYTES (CLOUD_WINDOW_BYTES + BODY_WINDOW_BYTES / 2)
#define CLUSTER_ETAG_BYTES  127 /* as struct cloud_request's */
/* Parts of large bodies, aligned so, that are fetched of the cloud by themselves: as a whole body
 * is, each by one member for all. */
#define CLUSTER_PART_BYTES (8 * MIB)

/*
 * What a fetch calls, on the cluster's thread or the cloud's, never on both at once; embedded in
 * its owner's struct, which lives until `done` was called. It must not block. `data` gets all bytes
 * from the offset asked for on, in order; after cluster_fetch_cancel it may still be called until
 * `done` was. Whoever tells bytes as taken in steps makes them no larger than BODY_WINDOW_BYTES
 * / 4.
 */
struct cluster_reader {
    void (*data)(struct cluster_reader *reader, uint64_t offset, const void *bytes, size_t len);
    /* Once. 0: all bytes were given; ERR_NOT_FOUND: nobody has it; ERR_TIMEOUT, ERR_AGAIN,
     * ERR_CLOSED: who may have it does not answer now; ERR_CLOUD: the cloud has it and does not
     * answer now; ERR_CORRUPT: no good copy. */
    void (*done)(struct cluster_reader *reader, int rc);
    /* The cluster's own. */
    struct cluster_reader *next; /* of those with something to say to its thread */
    struct cluster_ask *ask;
    uint64_t number, consumed;
    bool queued, cancelled, over;
    bool from_cloud; /* some of the bytes were the cloud's; for the owner to read after `done` */
};

/* Where the cloud has a body, as its row says. */
struct cluster_cloud {
    char bucket[LIMIT_CLOUD_BUCKET_BYTES + 1], key[LIMIT_CLOUD_KEY_BYTES + 1];
    char etag[CLUSTER_ETAG_BYTES + 1];
};

struct cluster_fetch {
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    uint64_t size, offset, length;
    bool background;
    bool delegated; /* for another node, which leaves it to us: we leave it to nobody else */
    const struct id128
        *holders; /* as db_reader_holders gives them; this node's own id is skipped */
    size_t holder_count;
    const struct cluster_cloud *cloud; /* lent for the call; NULL: it has no copy */
    bool seeks;                        /* cluster_seek_start's */
};

/*
 * Any thread. Where the cloud has no copy: holders that answer are asked first, then whoever else
 * is a member and answers. Where it has one: holders that answer; the member that fetches this body
 * for all (cluster/cluster_pull.c); the cloud; at last everybody.
 * ERR_FULL: too much is under way; ERR_CLOSED: it stops; ERR_NOT_FOUND: there is no other member,
 * and no cloud. `done` is not called then.
 */
int cluster_fetch_start(struct cluster *cluster, const struct cluster_fetch *fetch,
                        struct cluster_reader *reader) MUST_CHECK;
/* The reader has taken so many of the bytes it was given: as many more may come. Any thread. */
void cluster_fetch_consumed(struct cluster *cluster, struct cluster_reader *reader, uint64_t bytes);
/* It wants no more: `done` follows soon. Any thread; fine after `done` is under way, too. */
void cluster_fetch_cancel(struct cluster *cluster, struct cluster_reader *reader);

/*
 * ID is not known here, and its body has to be read out of the cloud to be known: have the member
 * do that which does it for all (cluster/cluster_seek.c). READER's `data` gets the SHA-256 of the
 * bytes, SHA256_BYTES. Its `done` gets 0: a look-up finds ID here by now. Anything else: the caller
 * is to see to it by itself; so it is where this node is that member, as soon as it is silent,
 * refuses or fails, and where what it found does not become known here. Any thread; errors (`done`
 * is not called) mean the same.
 */
int cluster_seek_start(struct cluster *cluster, const struct id128 *id,
                       struct cluster_reader *reader) MUST_CHECK;

/* Whether the cloud that this node reads has OBJECT's bytes, as its row says; and where. */
bool cluster_cloud_of(const struct cluster *cluster, const struct object *object,
                      struct cluster_cloud *out);
/* Whether one of these nodes, other than this one, answers. Any thread. */
bool cluster_is_near(struct cluster *cluster, const struct id128 *nodes, size_t count);
/* The cloud behind cluster_cloud_gate, for whatever else is asked of it until cluster_stop, and
 * what the keys begin with that are made there. NULL: there is none. */
struct cloud *cluster_cloud(const struct cluster *cluster);
const char *cluster_cloud_prefix(const struct cluster *cluster);
/* Bytes of a whole body, some of which may have come from the cloud, have another SHA-256. Any
 * thread. */
void cluster_fetch_misfit(struct cluster *cluster, const struct cluster_reader *reader);

/* ---- Bodies on their way here, for others ---- */

/* LEN bytes at OFFSET, which lie in the body. */
struct cluster_loan_read {
    uint64_t offset;
    uint32_t len;
    /* Once, on any thread. 0: BYTES (malloc's, the callee's from then on) are those, verified as
     * far as such bytes are. ERR_CORRUPT; else not now. */
    void (*done)(struct cluster_loan_read *read, int rc, uint8_t *bytes);
};
/* Another node's cluster_seek_start. */
struct cluster_seek {
    /* Once, on any thread. 0: ID is known here, durably; SHA256 is its bytes'. */
    void (*done)(struct cluster_seek *seek, int rc, const uint8_t sha256[SHA256_BYTES]);
};
/*
 * How the cluster's thread has part in bodies that come here from the cloud: what a member is asked
 * for as the delegate, it gives while it arrives. Implemented above (api/lender.h).
 */
struct cluster_lender {
    /* Take part in bringing OBJECT's body here, or the part of it in which the bytes from OFFSET to
     * END lie (END is beyond OFFSET, and within the body), for another node; begin where nobody
     * does. *LOAN is to be closed. Errors: not now. On a pool thread; may block. */
    int (*open)(void *arg, const struct object *object, uint64_t offset, uint64_t end,
                struct db_reader *reader, void **loan);
    /* As soon as they have come; one read of a loan at a time. Does not block. */
    void (*read)(void *arg, void *loan, struct cluster_loan_read *read);
    /* No read is under way. Does not block. */
    void (*close)(void *arg, void *loan);
    /* Look for ID in the cloud, for another node; an error: not now, `done` is not called. On the
     * cluster's thread; does not block, and may call `done` at once. */
    int (*seek)(void *arg, const struct id128 *id, struct cluster_seek *seek);
    void *arg;
};
/* Once. LENDER is copied, and ARG lives until cluster_stop has returned. Any thread. */
void cluster_lend(struct cluster *cluster, const struct cluster_lender *lender);

/* ---- Changes of clients ---- */

/* Before a client's change is committed, and after its outcome: 0, or ERR_DRAINING or ERR_OUTSIDE
 * and the change must not be made. Any thread; never blocks. */
int cluster_write_begin(struct cluster *cluster) MUST_CHECK;
void cluster_write_end(struct cluster *cluster);
/* What cluster_write_begin would say now. */
int cluster_write_refusal(struct cluster *cluster);

/* ---- Administration. Any thread but the cluster's; these block, where they do not say otherwise.
 * ---- */

struct drainer;
struct drainer *cluster_drainer(struct cluster *cluster);

/* Journal that NODE, which is known, is in STATE from now on; durable when it returns. */
int cluster_declare(struct cluster *cluster, const struct cluster_member *node,
                    enum member_state state) MUST_CHECK;
/* Journal that this node, which left or was forgotten, belongs to the cluster again.
 * ERR_UNSUPPORTED: it is not outside; ERR_AGAIN: its own address is not known yet. */
int cluster_rejoin(struct cluster *cluster) MUST_CHECK;
/* Journal the cluster's feature level. */
int cluster_raise(struct cluster *cluster, uint32_t level) MUST_CHECK;

#ifdef OBJSTORE_FEATURE_BUILD
/* Journal an event of a kind that other builds do not know, with TEXT. */
int cluster_sample(struct cluster *cluster, const char *text) MUST_CHECK;
#endif

/* Objects whose only durable copies, as far as is known here, are on one member. */
#define CLUSTER_SOLE_IDS 16
struct cluster_sole {
    uint64_t objects, bytes;
    struct id128 ids[CLUSTER_SOLE_IDS]; /* the first of them */
};
/* Of NODE. Walks all objects. */
int cluster_sole_of(struct cluster *cluster, const struct id128 *node,
                    struct cluster_sole *out) MUST_CHECK;

/* A member's answer to a question (WIRE_KNOWN_ASK, WIRE_RANGE_ASK, WIRE_ROW_ASK). */
struct cluster_answer {
    bool yes;
    struct id128 last;
    uint64_t count;
    struct hash128 sum;
    struct buf data; /* the caller's, initialized; filled */
};
/* Ask NODE, some times if need be. QUESTION's nonce is drawn here. ERR_TIMEOUT: no answer;
 * ERR_FULL: too many are asked; ERR_CLOSED: it stops. */
int cluster_ask(struct cluster *cluster, const struct id128 *node, struct wire_message *question,
                struct cluster_answer *answer) MUST_CHECK;
/* Send NODE a message that has no answer; it may get lost. */
int cluster_tell(struct cluster *cluster, const struct id128 *node,
                 struct wire_message *message) MUST_CHECK;
/* Ask NODE to make copies of COUNT objects (at most LIMIT_WIRE_ADOPT), though they are not for
 * every node. It may get lost; its holds say what it has done. Does not block. */
int cluster_adopt(struct cluster *cluster, const struct id128 *node, const struct event_item *items,
                  size_t count) MUST_CHECK;
/* Whether NODE knows every event that this node knew when it was asked: 0, or ERR_AGAIN: not yet;
 * cluster_ask's errors. */
int cluster_is_known_to(struct cluster *cluster, const struct id128 *node) MUST_CHECK;

/* ---- Looking at it. Any thread. ---- */

struct cluster_member {
    struct id128 node;
    bool self;
    enum member_state joined;
    enum probe_state state; /* of joined ones; this node: PROBE_ALIVE */
    int64_t rtt_ms;         /* -1: not measured */
    bool digest_equal;      /* its last word about its digest and vector equals ours of that time */
    uint32_t feature;
    bool draining;        /* it wants to leave */
    uint64_t answered_ms; /* when the last probe went to it that it has answered; 0: none */
    uint64_t lag_events;  /* fewer events than the one that has most; by its last word */
    hlc_time stamp;       /* of the fact that says `joined` */
    char version[LIMIT_WIRE_VERSION_BYTES + 1]; /* of its software; "": not told */
    char address[MEMBER_ADDRESS_BYTES + 1];
};

/* Bodies that came from the cloud, since the start. */
struct cluster_cloud_stats {
    uint64_t gets;      /* that this node asked the cloud for */
    uint64_t bytes;     /* that came of them */
    uint64_t coalesced; /* that it did not have to ask for: another node fetched them for us */
    uint64_t delegated; /* that it fetched for another node, or for a durable copy here */
    uint64_t failures;  /* not reached, or cut off */
    uint64_t misses;    /* the cloud has something else there than the row says, or nothing */
    uint64_t wrong;     /* whole bodies whose SHA-256 was wrong */
    struct cloud_guard_stats guard;
};

struct cluster_stats {
    enum probe_health health;
    uint64_t events_in, bytes_in, events_out, bytes_out, sessions, timeouts; /* sync */
    uint64_t rows_in, row_bytes_in, rows_out, row_bytes_out;                 /* merges: */
    uint64_t merges_adopted, merges_repaired, merges_given_up, merges_served, merge_timeouts;
    uint64_t fetches, fetch_bytes, fetch_failures; /* bodies that came from peers */
    struct cluster_cloud_stats cloud;              /* … and from the cloud */
    uint64_t served_bytes;                         /* bodies that went to peers */
    uint64_t wanted, replicated; /* copies that this node lacks of level 2, that it has made */
    uint64_t notes_said, notes_received, notes_refused; /* those of too many: either way */
    uint64_t wanted_bytes, replicated_rate; /* bytes of the former; bytes a second of the latter */
    uint64_t lag_events, lag_ms; /* behind the member that has most events: cluster/lag.h */
    uint32_t level;              /* the cluster's feature level */
    uint64_t frames_in, frames_out, malformed, other_tag, refused;
    uint64_t link_bytes_in, link_bytes_out; /* of those frames, before encryption */
    struct copies_stats acks;
    bool clock_judged, clock_is_skewed;
    int64_t clock_behind_ms; /* as struct standing says it */
};

void cluster_stats(struct cluster *cluster, struct cluster_stats *out);
/* Up to MAX members into OUT by node id, this node included; their count. */
size_t cluster_members(struct cluster *cluster, struct cluster_member *out, size_t max);
/* Whether this node has, or ever had, other members: else it runs alone. */
bool cluster_is_alone(struct cluster *cluster);

/* Who waits for copies of a body; NULL where nobody can. */
struct copies *cluster_copies(struct cluster *cluster);
/* Who uploads to the cloud; NULL: there is none. */
struct uploader *cluster_uploader(struct cluster *cluster);

/* How this node stands, as of some tens of milliseconds ago. Any thread; they take no lock. */

/* By joined members that answer: PROBE_GOOD for a node that has no others. */
enum probe_health cluster_health(struct cluster *cluster);
/* This node's clock is too wrong for changes of clients. */
bool cluster_clock_is_skewed(struct cluster *cluster);
/* Nodes that have joined and neither left nor been forgotten, this one included. */
unsigned cluster_joined(struct cluster *cluster);

#endif
