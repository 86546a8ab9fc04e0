/*
 * Liveness: this node's own view of which members answer. Pure: time comes in with each input,
 * randomness as a seed; what is to be sent comes out.
 *
 * Each joined member gets a probe every second, at a phase of its own, and answers with what it
 * knows (struct wire_summary). One that does not answer in time is asked for through two other
 * members; if that fails it is a suspect, and after three more rounds without a word, failed: known
 * at the latest PROBE_FAILED_MS after the crash. Any message from it makes it alive again. A node
 * that hears from nobody doubts itself first and gives the others up to nine times as long. The
 * method is SWIM's (Das et al., DSN 2002) with Lifeguard's self-doubt (Dadgar et al., DSN 2018),
 * without gossip: nobody's opinion but a member's own answer ever counts.
 *
 * Bounds: LIMIT_MEMBERS members, LIMIT_SEEDS seeds, LIMIT_PROBE_RELAYS questions asked for others;
 * about 230 KB, all taken by probe_create. One thread at a time.
 */
#ifndef CLUSTER_PROBE_H
#define CLUSTER_PROBE_H

#include "base/err.h"
#include "base/id.h"
#include "base/limits.h"
#include "cluster/wire.h"

#define PROBE_ROUND_MS     1000 /* between probes to one member */
#define PROBE_ACK_MS       500  /* an answer's time, or four round trips where that is more, … */
#define PROBE_ACK_MAX_MS   2000 /* … but at most this */
#define PROBE_CONFIRM_MS   1000 /* two others' time to ask */
#define PROBE_FAIL_ROUNDS  3    /* unanswered rounds more make a suspect fail */
#define PROBE_SILENT_MS    2000 /* nobody heard for so long: this node doubts itself */
#define PROBE_DOUBT_MAX    8    /* … and then takes up to 1 + 8 times as long */
#define PROBE_SEED_MIN_MS  500
#define PROBE_SEED_MAX_MS  10000
#define LIMIT_PROBE_RELAYS 64

/*
 * From a crash to FAILED, for a node without self-doubt and round trips up to 125 ms: the crash may
 * follow an answer at once, so the next probe goes out up to a round later; its answer is overdue
 * after PROBE_ACK_MS, and so are those of the three rounds after it. 1000 + 500 + 3 x 1000. Round
 * trips of up to 250 ms make it 5 s. A node that hears from nobody (it is cut off, or two or more
 * others, all there were, crashed at once) calls them FAILED after 1000 + 9 x (500 + 3 x 1000).
 */
#define PROBE_FAILED_MS (PROBE_ROUND_MS * (1 + PROBE_FAIL_ROUNDS) + PROBE_ACK_MS)

enum probe_state {
    PROBE_ALIVE = 1,
    PROBE_SUSPECT = 2, /* does not answer, or (at first) was never heard */
    PROBE_FAILED = 3,
    PROBE_LEFT = 4, /* said that it is about to stop */
};

struct probe_config {
    struct id128 node;   /* this one */
    uint64_t seed;       /* random, another one each run: nonces and phases are drawn from it */
    struct text tag;     /* copied; at most LIMIT_WIRE_TAG_BYTES */
    struct text address; /* copied; where others reach this node; empty: not known yet */
    struct text version; /* lent; of the software; at most LIMIT_WIRE_VERSION_BYTES */
};

enum probe_input_kind {
    PROBE_TICK = 1,  /* time has passed */
    PROBE_MEMBER,    /* a member is known, has another address, or is none any more */
    PROBE_SEED,      /* an address from the command line, whose node is not known yet */
    PROBE_MESSAGE,   /* a probe, ack, for or saw, of our tag */
    PROBE_HEARD,     /* any other valid message */
    PROBE_LOCAL,     /* what this node says of itself from now on */
    PROBE_NOW,       /* probe a member, or all, without waiting for the next round */
    PROBE_SEED_DROP, /* an address is asked no more */
};

struct probe_input {
    enum probe_input_kind kind;
    uint64_t now_ms;  /* monotonic */
    uint64_t wall_ms; /* Unix */
    union {
        struct {
            struct id128 node; /* this node itself is ignored */
            struct text address;
            bool joined; /* false: forget it */
        } member;
        struct text seed; /* one asked already is asked at once */
        struct id128 now; /* zero: all */
        struct {
            const struct wire_message *message;
            struct text peer; /* the sender's address as the socket sees it; may be empty */
        } message;
        struct id128 heard;
        struct {
            struct text address;
            struct wire_summary summary;
            uint32_t feature;
            bool leaving; /* once true all members are told at once */
            bool draining;
            uint32_t level; /* the cluster's feature level, as this node knows it */
        } local;
    };
};

enum probe_output_kind {
    PROBE_SEND = 1,  /* `message`, to a member: `node`, last known at `address` */
    PROBE_SEND_SEED, /* … to whoever is at `address` */
    PROBE_REPLY, /* … back the way the input came; `node` may be no member (yet); address (*) */
    PROBE_STATE, /* `node` is `state` from `now_ms` on */
    PROBE_MET,   /* at the seed `address` is `node`; repeated until it is a member */
    PROBE_SELF,  /* at the seed `address` is this node */
    PROBE_PEER_SUMMARY, /* `node`, a member, says what it knows */
};

/* Texts are valid until the next step; those marked (*) are the input's own. */
struct probe_output {
    enum probe_output_kind kind;
    struct id128 node;
    struct text address;
    union {
        struct wire_message message;
        struct {
            enum probe_state state;
            uint64_t since_ms;
        } state;
        struct {
            struct text advertised; /* (*) where it wants to be reached; may be empty */
            struct text seen;       /* (*) this node's address as it sees it; may be empty */
        } met;
        struct {
            struct wire_summary summary;
            uint32_t feature;
            int64_t rtt_ms; /* smoothed; -1: not measured yet */
        } summary;
    };
};

struct probe;

/* NOW_MS: monotonic, as in the inputs. ERR_NO_MEMORY; ERR_TOO_BIG: tag or address. */
int probe_create(struct probe **out, const struct probe_config *config, uint64_t now_ms) MUST_CHECK;
void probe_destroy(struct probe **probe);

/*
 * One input; what comes of it is in *OUT, *COUNT (lent until the next step). A time before the
 * last input's counts as that one. ERR_FULL: a member or seed beyond the limits; ERR_TOO_BIG: its
 * address is; the input then changed nothing. Messages never cause an error: what makes no sense is
 * counted and dropped. An error comes with no outputs.
 *
 * A tick is due at probe_next_ms. One that comes more than a second late means that this node did
 * not run: the time lost is held against nobody.
 */
int probe_step(struct probe *probe, const struct probe_input *in, const struct probe_output **out,
               size_t *count) MUST_CHECK;

/* When to tick next, by the clock of the inputs; UINT64_MAX: not before another input. */
uint64_t probe_next_ms(const struct probe *probe);

enum probe_health {
    PROBE_GOOD = 1,     /* all that have joined answer */
    PROBE_DEGRADED = 2, /* a majority of them does, this node included */
    PROBE_BAD = 3,
};

/*
 * As of the last step. Self-doubt delays FAILED, not this: a member counts as answering while its
 * oldest unanswered probe is younger than PROBE_ACK_MS + PROBE_CONFIRM_MS (or as round trips ask).
 */
enum probe_health probe_health(const struct probe *probe);

/* The members that answer, by the same rule, this node not counted. */
size_t probe_answering(const struct probe *probe);

/*
 * How far this node's wall clock is behind its members' median (negative: ahead), in milliseconds.
 * False where fewer than three, this one included, answer and have been measured. Of an even number
 * the middle one nearer to zero counts.
 */
bool probe_clock_offset(const struct probe *probe, int64_t *offset_ms);

struct probe_peer {
    enum probe_state state;
    bool answers; /* as in probe_health */
    uint64_t since_ms;
    int64_t rtt_ms; /* -1: not measured yet */
    uint32_t feature;
    struct wire_summary summary;
    bool heard; /* ever: feature, summary and what follows are its own */
    uint32_t level;
    bool draining;
    /* When the last of our probes went out that it has answered; 0: none yet. What this node says
     * of itself since then it may not have heard. */
    uint64_t answered_ms;
    char version[LIMIT_WIRE_VERSION_BYTES + 1]; /* "": not told */
};

/* What is known of NODE: false where it is no member. */
bool probe_peer(const struct probe *probe, const struct id128 *node, struct probe_peer *out);

struct probe_counts {
    uint64_t stale;       /* acks and saws that nobody (here, now) asked for */
    uint64_t misdirected; /* probes that were meant for another node */
    uint64_t refused;     /* questions for others: no such member, or too many at once */
    uint64_t own;         /* messages that bear this node's id: a seed is ourselves, or a clone */
};

struct probe_counts probe_counts(const struct probe *probe);

/* 0 … PROBE_DOUBT_MAX: how much this node doubts itself. */
unsigned probe_doubt(const struct probe *probe);

size_t probe_members(const struct probe *probe);
size_t probe_seeds(const struct probe *probe); /* still unmet, or met and no members yet */

/* "alive", "suspect", "failed", "left" or "unknown"; "good", "degraded", "bad" or "unknown". */
const char *probe_state_name(uint32_t state);
const char *probe_health_name(uint32_t health);

#endif
