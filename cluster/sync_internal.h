/* What the parts of journal sync share. Only sync*.c include it. */
#ifndef CLUSTER_SYNC_INTERNAL_H
#define CLUSTER_SYNC_INTERNAL_H

#include "cluster/sync.h"

#define SYNC_PUSH 0 /* the session that nobody asked for */

struct peer {
    struct id128 node;
    bool used, alive;
    bool has_summary;
    struct hash128 summary; /* of its vector */

    bool news;              /* it may have what we lack, and was not asked since */
    uint64_t ask_at;        /* not before; and if it can wait, … */
    uint64_t patient_until; /* … not before this, … */
    uint64_t pushing_until; /* … while its pushes keep coming */
    uint64_t backoff_ms;

    bool in_step;     /* what we push now would follow what it has */
    uint64_t pushed;  /* in step: it has our run up to here, or that is under way */
    uint64_t unacked; /* bytes pushed and not acknowledged */

    uint64_t flight_bytes; /* it pushed them, and they are on their way into our log */
    uint64_t owed;         /* … are there, and were not acknowledged yet */

    uint64_t ended, gained; /* sessions in which we asked it, and their events */
    enum wire_end end;      /* of the last */
};

/* A session in which we ask. */
struct asked {
    uint64_t session; /* 0: free */
    struct id128 peer;
    uint64_t progress_ms;
    bool sent;        /* the question itself */
    bool whole;       /* too many live runs to list: all are in pages */
    bool page_wanted; /* by the peer */
    bool pages_done;
    uint32_t page;
    struct id128 page_after; /* the last run of the page before; zero: none */
    uint32_t commits;        /* batches on their way into our log … */
    uint64_t flight_bytes;   /* … and their bytes */
    uint64_t owed;           /* credit to be given back */
    uint64_t gained;         /* events */
    bool overloaded;         /* our log was the one that wanted no more */
    bool ended;
    enum wire_end end;
};

enum serving {
    SERVE_WALK,      /* compare our runs with the asker's, one by one */
    SERVE_PAGE_ASK,  /* its next page is needed … */
    SERVE_PAGE_WAIT, /* … and was asked for */
    SERVE_RUN,       /* send events of one run */
    SERVE_TAIL,      /* all but our own run was sent: that one, until the asker is in step */
};

/* A session in which we are asked. */
struct served {
    uint64_t session; /* 0: free */
    struct id128 peer;
    enum serving state;
    uint64_t progress_ms;
    uint64_t credit;
    struct buf runs, page; /* copies of what the asker knows */
    uint32_t page_next;
    bool last_page;
    struct id128 bound;      /* unless it is the last page: what it tells of ends here */
    enum vector_part part;   /* to walk; where that is the live runs alone, … */
    bool rest_known;         /* … the asker knows those that it does not list as ended ones */
    size_t listed;           /* … and of ended runs, those that it lists: walked up to this one */
    struct id128 at;         /* compared up to this origin; zero: none yet */
    struct id128 origin;     /* SERVE_RUN: of this one … */
    uint64_t next, goal;     /* … these */
    bool reading;            /* from NEXT on */
    bool tail;               /* SERVE_RUN goes back there */
    uint64_t own_known;      /* how far the asker has our own run */
    struct id128 own_origin; /* which one that is about */
    unsigned rounds;         /* of SERVE_TAIL */
    bool behind, damaged;
    char frozen[LIMIT_WIRE_FROZEN *
                WIRE_FROZEN_BYTES]; /* runs of which the asker does not know that */
    uint32_t frozen_len;
};

/* Events of a run on their way into our log. */
struct flight {
    struct id128 origin;
    bool used;
    uint64_t through;  /* the last one */
    uint32_t commits;  /* not answered yet */
    int failure;       /* why one was refused, 0: none was; what follows it will be, too */
    uint64_t since_ms; /* of the last change */
};

/* Events that did not fit, and are not taken again for a while. */
struct refusal {
    struct id128 origin, peer;
    uint64_t until_ms; /* 0: free */
};

/* What a message of events in a session uses up of the credit. Many small ones, of a run each,
 * would be more than LIMIT_SYNC_FLIGHTS otherwise. */
static inline uint64_t sync_charge(uint64_t bytes)
{
    return bytes > SYNC_MESSAGE_CREDIT_BYTES ? bytes : SYNC_MESSAGE_CREDIT_BYTES;
}

_Static_assert(LIMIT_SYNC_ASKED *SYNC_CREDIT_BYTES / SYNC_MESSAGE_CREDIT_BYTES <=
                   LIMIT_SYNC_FLIGHTS / 2,
               "sessions that keep to their credit leave room");

struct push {
    struct id128 origin; /* our own run; zero before our first event */
    uint64_t seq;        /* as far as it is durable */
    uint64_t next;       /* to be read and sent next */
    bool reading;        /* from NEXT on */
    uint64_t since_ms;
};

struct sync {
    struct id128 self;
    uint64_t now_ms, dice, repair_at;
    struct vector *vector;
    struct hash128 past[LIMIT_SYNC_PAST]; /* sums that were ours, a ring; zero: nothing known */
    size_t past_next;
    struct peer peers[LIMIT_MEMBERS];
    struct asked asked[LIMIT_SYNC_ASKED];
    struct served served[LIMIT_SYNC_SERVED];
    struct flight flights[LIMIT_SYNC_FLIGHTS];
    size_t flight_count;
    struct refusal refusals[LIMIT_SYNC_REFUSED];
    struct push push;
    struct buf list; /* the runs of one message of this step … */
    bool list_taken; /* … if there is one yet */
    char frozen[LIMIT_SYNC_SERVED][LIMIT_WIRE_FROZEN * WIRE_FROZEN_BYTES]; /* told in this step */
    struct sync_output outputs[LIMIT_SYNC_OUTPUTS];
    size_t output_count;
    bool more;
    struct sync_stats stats;
};

/* Of the parts, as the files are called. */

/* sync.c */
struct peer *sync_find_peer(struct sync *core, const struct id128 *node);
/* Is SUM ours, or was it of late? Then whoever has it knows nothing that we do not. */
bool sync_was_ours(const struct sync *core, const struct hash128 *sum);
uint64_t sync_random(struct sync *core, uint64_t below);
/* Is there room for what the step of one session puts out? If not, there will be more. */
bool sync_room(struct sync *core);
struct sync_output *sync_emit(struct sync *core, enum sync_output_kind kind);
struct wire_message *sync_send(struct sync *core, const struct id128 *to, enum wire_type type);
void sync_send_flow(struct sync *core, const struct id128 *to, enum wire_type type,
                    uint64_t session, uint64_t bytes, enum wire_end end);
/* The buffer for runs; NULL: taken, or no memory. There will be more, then. */
struct buf *sync_list(struct sync *core);

/* sync_ask.c */
void sync_ask_message(struct sync *core, const struct wire_message *message);
void sync_ask_committed(struct sync *core, const struct sync_committed *committed);
void sync_ask_local(struct sync *core, const struct id128 *origin);
bool sync_ask_is_asked(const struct sync *core, const struct id128 *peer);
void sync_ask_peer_gone(struct sync *core, const struct id128 *node);
/* Ask PEER after DELAY_MS. It can wait: only once its pushes, which may bring the same, have
 * ceased, or after SYNC_PATIENCE_MS. */
void sync_ask_wish(struct sync *core, struct peer *peer, uint64_t delay_ms, bool can_wait);
void sync_ask_pump(struct sync *core);

/* sync_serve.c */
int sync_serve_ask(struct sync *core, const struct wire_message *message);
int sync_serve_vector(struct sync *core, const struct wire_message *message);
void sync_serve_credit(struct sync *core, const struct wire_message *message);
void sync_serve_read_done(struct sync *core, const struct sync_read_done *done);
bool sync_serve_end(struct sync *core, const struct id128 *peer, uint64_t session);
void sync_serve_peer_gone(struct sync *core, const struct id128 *node);
void sync_serve_pump(struct sync *core);
void sync_serve_release(struct sync *core);

/* sync_push.c */
/* The run of ORIGIN is frozen: if it is the one that is pushed, no more of it is. */
void sync_push_frozen(struct sync *core, const struct id128 *origin);
void sync_push_local(struct sync *core, const struct vector_run *run);
void sync_push_read_done(struct sync *core, const struct sync_read_done *done);
void sync_push_credit(struct sync *core, const struct id128 *node, uint64_t bytes);
/* PEER has our own run up to SEQ: is it in step with that? */
bool sync_push_join(struct sync *core, struct peer *peer, uint64_t seq);
void sync_push_pump(struct sync *core);

#endif
