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

#include "cluster/probe.h"
#include "cluster/members.h"
#include "journal/journal.h"

struct cluster;

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

/* host:port of the listening socket. */
const char *cluster_address(const struct cluster *cluster);

/* ---- Bodies from other nodes ---- */

/*
 * What a fetch calls, on the cluster's thread; embedded in its owner's struct, which lives until
 * `done` was called. It must not block. `data` gets all bytes from the offset asked for on, in
 * order; after cluster_fetch_cancel it may still be called until `done` was.
 */
struct cluster_reader {
    void (*data)(struct cluster_reader *reader, uint64_t offset, const void *bytes, size_t len);
    /* Once. 0: all bytes were given; ERR_NOT_FOUND: nobody has it; ERR_TIMEOUT, ERR_AGAIN,
     * ERR_CLOSED: who may have it does not answer now; ERR_CORRUPT: no good copy. */
    void (*done)(struct cluster_reader *reader, int rc);
    /* The cluster's own. */
    struct cluster_reader *next; /* of those with something to say to its thread */
    struct cluster_ask *ask;
    uint64_t number, consumed;
    bool queued, cancelled, over;
};

struct cluster_fetch {
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    uint64_t size, offset, length;
    bool background;
    const struct id128
        *holders; /* as db_reader_holders gives them; this node's own id is skipped */
    size_t holder_count;
};

/* Any thread. Holders that answer are asked first, then whoever else is a member and answers.
 * ERR_FULL: too much is under way; ERR_CLOSED: it stops; ERR_NOT_FOUND: there is no other member.
 * `done` is not called then. */
int cluster_fetch_start(struct cluster *cluster, const struct cluster_fetch *fetch,
                        struct cluster_reader *reader) MUST_CHECK;
/* The reader has taken so many of the bytes it was given: as many more may come. Any thread. */
void cluster_fetch_consumed(struct cluster *cluster, struct cluster_reader *reader, uint64_t bytes);
/* It wants no more: `done` follows soon. Any thread; fine after `done` is under way, too. */
void cluster_fetch_cancel(struct cluster *cluster, struct cluster_reader *reader);

/* ---- Looking at it. Any thread. ---- */

struct cluster_member {
    struct id128 node;
    bool self;
    enum member_state joined;
    enum probe_state state; /* of joined ones; this node: PROBE_ALIVE */
    int64_t rtt_ms;         /* -1: not measured */
    bool digest_equal;      /* its last word about its digest and vector equals ours of that time */
    uint32_t feature;
    char address[MEMBER_ADDRESS_BYTES + 1];
};

struct cluster_stats {
    enum probe_health health;
    uint64_t events_in, bytes_in, events_out, bytes_out, sessions, timeouts; /* sync */
    uint64_t fetches, fetch_bytes, fetch_failures; /* bodies that came from peers */
    uint64_t served_bytes;                         /* bodies that went to peers */
    uint64_t wanted, replicated; /* copies that this node lacks of level 2, that it has made */
    uint64_t frames_in, frames_out, malformed, other_tag, refused;
};

void cluster_stats(struct cluster *cluster, struct cluster_stats *out);
/* Up to MAX members into OUT by node id, this node included; their count. */
size_t cluster_members(struct cluster *cluster, struct cluster_member *out, size_t max);
/* Whether this node has, or ever had, other members: else it runs alone. */
bool cluster_is_alone(struct cluster *cluster);

#endif
