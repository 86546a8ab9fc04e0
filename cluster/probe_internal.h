/* What the files of the probe core share; nobody else includes it. probe.h is the contract, probe.c
 * has the rules. */
#ifndef CLUSTER_PROBE_INTERNAL_H
#define CLUSTER_PROBE_INTERNAL_H

#include "cluster/probe.h"

#include <string.h>

#define NEVER             UINT64_MAX
#define LATE_MS           1000 /* a later tick means that this node slept */
#define RECENT            4    /* probes and questions to others whose answers still count */
#define HELPERS           2
#define FAILED_ASK_ROUNDS 10
#define RTT_MAX_MS        4000 /* a longer one measures a pause, not the way */
#define DOUBT_MEMBERS     2
#define OFFSET_MEMBERS    3
#define WALL_LIMIT_MS     (HLC_LIMIT >> 16)

/* In one tick a member can cause a probe, two questions and two changes of state. */
#define OUTPUTS_PER_PEER (3 + HELPERS)
#define LIMIT_OUTPUTS    (OUTPUTS_PER_PEER * LIMIT_MEMBERS + LIMIT_SEEDS + LIMIT_PROBE_RELAYS)

struct kept {
    uint32_t len;
    char bytes[LIMIT_WIRE_ADDR_BYTES];
};

struct asked {
    uint64_t nonce; /* 0: none */
    uint64_t sent_ms;
};

struct peer {
    struct id128 node;
    enum probe_state state;
    uint64_t since_ms;
    uint64_t next_t;  /* the next probe */
    uint64_t first_t; /* the oldest unanswered one; NEVER: none */
    uint64_t ask_t;   /* when to ask others, once an answer is overdue */
    bool answered;    /* alive, or was until nothing was heard of it any more */
    bool told;        /* feature and summary are known */
    bool measured;    /* rtt and offset are known */
    unsigned probe_count, question_count;
    struct asked probes[RECENT];
    uint64_t questions[RECENT]; /* nonces; 0: none */
    uint64_t rtt_us;            /* smoothed */
    int64_t offset_ms;
    uint32_t feature, level;
    bool draining;
    uint64_t answered_ms; /* when the last probe went out that it has answered */
    char version[LIMIT_WIRE_VERSION_BYTES + 1];
    struct wire_summary summary;
    struct kept address;
};

struct seed {
    struct kept address;
    uint64_t nonce; /* the same for all its probes, so that late answers count, too */
    uint64_t next_t, wait_ms;
    struct id128 node; /* zero: not met yet */
};

/* A member's question that this node passes on. */
struct relay {
    struct id128 asker, subject;
    uint64_t asker_nonce, nonce;
    uint64_t due_t;
};

struct probe {
    struct id128 node;
    struct wire_summary summary;
    uint32_t feature, level;
    bool leaving, draining;
    struct text version;
    uint64_t now_ms, wall_ms, t;
    uint64_t heard_t; /* anybody */
    unsigned doubt;
    uint64_t dice, last_nonce;
    struct probe_counts counts;
    size_t peer_count, seed_count, relay_count, output_count;
    struct kept tag, address;
    struct kept given; /* texts of this step's outputs whose own place may go away */
    struct kept seen;
    struct peer peers[LIMIT_MEMBERS];
    struct seed seeds[LIMIT_SEEDS];
    struct relay relays[LIMIT_PROBE_RELAYS];
    struct probe_output outputs[LIMIT_OUTPUTS];
};

static inline int keep_text(struct kept *kept, struct text text)
{
    if (text.len > sizeof kept->bytes)
        return ERR_TOO_BIG;
    if (text.len)
        memcpy(kept->bytes, text.ptr, text.len);
    kept->len = text.len;
    return 0;
}

static inline struct text kept_text(const struct kept *kept)
{
    return (struct text){kept->bytes, kept->len};
}

static inline bool kept_is(const struct kept *kept, struct text text)
{
    return kept->len == text.len && (text.len == 0 || memcmp(kept->bytes, text.ptr, text.len) == 0);
}

/* How long an answer of PEER may take, self-doubt aside. */
static inline uint64_t ack_ms(const struct peer *peer)
{
    uint64_t wait = peer->measured ? 4 * peer->rtt_us / 1000 : 0;

    if (wait < PROBE_ACK_MS)
        return PROBE_ACK_MS;
    return wait < PROBE_ACK_MAX_MS ? wait : PROBE_ACK_MAX_MS;
}

static inline uint64_t doubted(const struct probe *probe, uint64_t wait_ms)
{
    return wait_ms * (1 + probe->doubt);
}

/* --- probe_say.c --- */

uint64_t probe_draw(struct probe *probe);
uint64_t probe_nonce(struct probe *probe); /* another one each time, never 0 */
struct peer *probe_find(struct probe *probe, const struct id128 *node);

struct probe_output *probe_add_output(struct probe *probe, enum probe_output_kind kind,
                                      const struct id128 *node, struct text address);
struct wire_message *probe_add_message(struct probe *probe, enum probe_output_kind kind,
                                       const struct id128 *node, struct text address,
                                       enum wire_type type);
void probe_fill(const struct probe *probe, struct wire_probe *out, uint64_t nonce,
                const struct id128 *to);
void probe_send(struct probe *probe, const struct peer *peer, uint64_t nonce);
/* TYPE: WIRE_PROBE_FOR or WIRE_PROBE_SAW. */
void probe_send_about(struct probe *probe, const struct peer *to, enum wire_type type,
                      const struct wire_probe_for *about);
void probe_set_state(struct probe *probe, struct peer *peer, enum probe_state state);

/* --- probe_hear.c --- */

void probe_forget(struct peer *peer); /* what PEER has not answered */
/* Some other node's message arrived: the network is there. */
void probe_hear_anybody(struct probe *probe);
/* A word from PEER, or from one that asked it just now. */
void probe_hear(struct probe *probe, struct peer *peer);
void probe_take_message(struct probe *probe, const struct wire_message *message,
                        struct text peer_address);
void probe_drop_seed(struct probe *probe, struct seed *seed);

#endif
