/* What the parts of merging share. Only merge*.c include it. */
#ifndef CLUSTER_MERGE_INTERNAL_H
#define CLUSTER_MERGE_INTERNAL_H

#include "cluster/merge.h"

struct mate {
    struct id128 node;
    bool used, alive;
    unsigned differs;  /* how often in a row it had other rows at the same vector … */
    uint64_t since_ms; /* … since then */
    uint64_t again_ms, again_at;
    uint64_t guest_until; /* it was given a vector: events stay; 0: none */
};

enum job { JOB_NONE, JOB_ADOPT, JOB_REPAIR };

enum phase {
    PHASE_WAIT,   /* for its time, and for batches on their way */
    PHASE_VECTOR, /* pages */
    PHASE_CHUNKS,
    PHASE_LAND,    /* all came: until all are durable */
    PHASE_ADOPT,   /* the vector, likewise */
    PHASE_SPLIT,   /* our own sums */
    PHASE_COMPARE, /* the peer's */
};

struct range {
    struct id128 after, through;
    uint64_t rows; /* of ours in it, about */
    bool leaf;     /* take it as it is */
};

struct chunk_flight {
    uint64_t token, charge, bytes, rows;
    struct id128 through;
};

struct run_list {
    struct wire_merge_run *runs; /* sorted by origin */
    size_t count, cap;
};

/* The one merge that this node asks for. */
struct asking {
    enum job job;
    enum phase phase;
    struct id128 peer;
    uint64_t session; /* 0: none */
    uint64_t at_ms;   /* WAIT: not before */
    uint64_t progress_ms, backoff_ms;
    unsigned tries, same; /* that brought nothing: in all, with this peer */

    bool pulling; /* `through` is not reached yet */
    struct id128 durable, received, through;
    uint64_t number; /* of the next chunk */
    struct chunk_flight flights[LIMIT_MERGE_FLIGHTS];
    size_t flight_first, flight_count;
    bool failed; /* a batch did not become durable: those behind it count no more */
    uint64_t owed, bytes;

    struct run_list want, pages; /* what is adopted in the end; what this session tells of it */
    bool want_known;
    uint32_t page;
    size_t adopt_next;
    uint64_t adopt_token; /* under way; 0: none */

    struct range ranges[LIMIT_MERGE_RANGES]; /* to be looked at: a stack */
    size_t range_count;
    struct range split; /* the one being compared, cut at … */
    struct db_fence fences[LIMIT_WIRE_FENCES];
    size_t fence_count, fence_next; /* … of which these are compared */
};

enum giving { GIVE_PAGES, GIVE_MEMBERS, GIVE_EVENTS, GIVE_ROWS, GIVE_SUMS };

/* A session in which we are asked. */
struct given {
    uint64_t session; /* 0: free */
    struct id128 peer;
    enum giving state;
    struct id128 after,
        through;        /* members, events: `after` is where the last chunk of them ended */
    struct id128 first; /* rows: from behind here on */
    uint64_t credit, number, progress_ms;
    uint32_t page;
    struct id128 page_after;
    bool reading;
    struct buf fences;
    size_t fence_next;
};

struct merge {
    struct id128 self, own;
    const struct vector *vector;
    uint64_t now_ms, dice, token, calm_until, rows;
    struct mate mates[LIMIT_MEMBERS];
    struct asking ask;
    struct given given[LIMIT_MERGE_SERVED];
    bool holds;
    struct buf list; /* of one message of this step, if it is not taken yet */
    bool list_taken;
    struct buf sums;
    struct merge_output outputs[LIMIT_MERGE_OUTPUTS];
    size_t output_count;
    bool more;
    struct merge_stats stats;
};

/* What a message uses up of the credit. */
static inline uint64_t merge_charge(uint64_t bytes)
{
    return bytes > MERGE_LEAST_CHARGE ? bytes : MERGE_LEAST_CHARGE;
}

/* merge.c */
struct mate *merge_mate(struct merge *core, const struct id128 *node);
uint64_t merge_random(struct merge *core, uint64_t below);
struct merge_output *merge_emit(struct merge *core, enum merge_output_kind kind);
struct wire_message *merge_send(struct merge *core, const struct id128 *to, enum wire_type type);
void merge_send_flow(struct merge *core, const struct id128 *to, enum wire_type type,
                     uint64_t session, uint64_t bytes, enum wire_end end);
/* Is there room for what one session puts out? If not, there will be more. */
bool merge_room(struct merge *core);
/* Rows of objects in DATA, as far as its chunks can be read. */
uint64_t merge_row_count(struct text data);
/* The buffer for the list of one message; NULL: taken, there will be more. */
struct buf *merge_list(struct merge *core);

/* merge_ask.c */
void merge_ask_behind(struct merge *core, const struct id128 *peer);
/* True: the message was for a session of ours. */
bool merge_ask_message(struct merge *core, const struct wire_message *message);
void merge_ask_summed(struct merge *core, const struct merge_summed *summed);
void merge_ask_committed(struct merge *core, uint64_t token, int rc);
void merge_ask_pump(struct merge *core);
void merge_ask_release(struct merge *core);
/* Drop the session, and go on later. */
void merge_ask_retry(struct merge *core);
/* Without a session for DELAY_MS, then go on. */
void merge_ask_wait(struct merge *core, uint64_t delay_ms);

/* merge_repair.c: the part of asking that compares */
void merge_repair_begin(struct merge *core);
void merge_repair_go_on(struct merge *core);
void merge_repair_split(struct merge *core, const struct merge_summed *summed);
void merge_repair_sums(struct merge *core, const struct wire_merge_sums *sums);
/* Take (AFTER, THROUGH] from the peer; and the end of a merge (both merge_ask.c). */
void merge_pull(struct merge *core, const struct id128 *after, const struct id128 *through);
void merge_end_job(struct merge *core, bool done);

/* merge_give.c */
int merge_give_message(struct merge *core, const struct wire_message *message);
void merge_give_read_done(struct merge *core, const struct merge_read_done *done);
void merge_give_summed(struct merge *core, const struct merge_summed *summed);
void merge_give_peer_gone(struct merge *core, const struct id128 *peer);
void merge_give_pump(struct merge *core);
void merge_give_release(struct merge *core);

#endif
