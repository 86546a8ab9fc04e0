/* What the files of the cluster's actor share; nobody else includes it. cluster.h is the contract.
 */
#ifndef CLUSTER_CLUSTER_INTERNAL_H
#define CLUSTER_CLUSTER_INTERNAL_H

#include "base/container.h"
#include "base/pool.h"
#include "cluster/cloud_guard.h"
#include "cluster/cluster.h"
#include "cluster/cut.h"
#include "cluster/drainer.h"
#include "cluster/fetch.h"
#include "cluster/lag.h"
#include "cluster/link.h"
#include "cluster/merge.h"
#include "cluster/notes.h"
#include "cluster/places.h"
#include "cluster/replicator.h"
#include "cluster/serve.h"
#include "cluster/standing.h"
#include "cluster/sync.h"
#include "cluster/twin.h"
#include "cluster/uploader.h"
#include "journal/db_peers.h"

#include <pthread.h>
#include <stdatomic.h>

#define CLUSTER_PORT 11999
#define LIMIT_PEERS  (2 * LIMIT_MEMBERS) /* members and guests */
#define LIMIT_FAILED 64
#define UNREAD       (LIMIT_SERVE_READS + LIMIT_SERVE_READS_DELEGATED)

/* Whom we talk to: a member, or a guest: a node with our tag whose joining we have not heard of
 * yet. */
struct peer {
    struct id128 node;
    char address[MEMBER_ADDRESS_BYTES + 1];
    link_peer link; /* our connection to it; 0: none yet */
    bool has_back;  /* `back` is a way to it */
    struct link_from back;
    bool member;
    bool seen;  /* it has answered once */
    bool alive; /* as sync knows it */
    bool digest_equal;
    bool unfit_said;   /* that the features do not fit */
    uint64_t heard_ms; /* guests: when they are forgotten */
    struct buf pack;   /* small messages to it, of this turn */
    unsigned packed;   /* how many */
};

/* Something done on another thread, on its way back to ours. */
struct delivery {
    struct delivery *next;
    void (*run)(struct cluster *cluster, struct delivery *delivery); /* frees it */
};

/* One run's news out of the journal, not yet told to sync. */
struct news {
    struct vector_run run;
    bool own;
};

/* A change for the committer, which may have to wait here until it has room: in their order. */
struct commit_job {
    struct change change; /* first: the committer hands it back */
    struct commit_job *next;
    struct delivery delivery; /* `run` is set by who makes it */
    struct cluster *cluster;
};

/* Whom a fetch asks, one after the other. Without a copy in the cloud: FAR alone. */
enum pull_source { PULL_NONE, PULL_NEAR, PULL_DELEGATE, PULL_CLOUD, PULL_FAR };

/* A fetch on behalf of a reader, until its end: the cluster's thread's, but for what is said. */
struct cluster_ask {
    struct cluster_fetch fetch; /* its pointers point to the next two */
    struct id128 holders[LIMIT_FETCH_HOLDERS];
    struct cluster_cloud cloud;
    struct cluster *cluster;
    struct cluster_reader *reader;
    enum pull_source source;
    bool source_over; /* the next one is to be asked once the reader has room */
    bool cloud_away;  /* it was asked, and did not answer */
    bool own;         /* the delegate is this node */
    bool sought;      /* the delegate knows it now; it is to be known here, too: since `since_ms` */
    int rc;           /* of the source that is over */
    uint64_t at;      /* the reader's next byte; the cloud's thread's while `flying` */
    uint64_t began;   /* where the present source began, … */
    uint64_t taken;   /* … and up to where the reader has taken all, … */
    uint64_t told;    /* … and up to where the source knows that */
    /* The cloud. */
    struct cloud_request request;
    struct delivery delivery;
    bool flying;       /* from its start until its delivery came back */
    bool asked;        /* under the cluster's lock: `done` was not called yet */
    bool cancelled;    /* not wanted any more: its delivery is the end */
    bool overrun;      /* the cloud's thread's: more came than was asked for */
    unsigned tries;    /* in a row that did not bring BLOCK_BYTES */
    uint64_t retry_ms; /* 0: it need not be asked again */
    uint64_t since_ms; /* since when it has no room for us; of the present source */
};

struct cluster_order;

/* A question of another thread's, which waits for the answer. */
struct inquiry {
    struct inquiry *next;
    struct id128 node;
    const struct wire_message *message;
    struct cluster_answer *answer; /* NULL: none is wanted */
    bool sent, done;
    int rc;
};

struct cluster {
    struct journal *journal;
    struct env *env;
    struct id128 self;
    char tag[LIMIT_WIRE_TAG_BYTES + 1];
    char advertise[MEMBER_ADDRESS_BYTES + 1]; /* "": not known yet */
    bool advertise_given;

    /* The thread's own. */
    struct secret secret;
    struct link *link;
    struct probe *probe;
    struct sync *sync;
    struct fetches *fetches;
    struct serve *serve;
    struct merge *merge;
    struct cut *cut;
    struct notes *notes;
    struct members *members;
    struct places *places;
    struct peer *peers;
    size_t peer_count;
    const struct link_from *current; /* whose frame is being looked at */
    struct buf frame, pack_frame;
    struct hash128 digest; /* of the rows that the journal told of last */
    uint64_t events, event_bytes, rows;
    bool merge_holds; /* somebody is about to adopt a vector of ours */
    bool cut_reading;
    uint64_t cut_ms;
    bool fact_under_way; /* our own member event */
    bool leaving;
    bool local_due; /* what this node says of itself has changed */
    uint64_t sync_tick_ms, complained_ms, view_ms;
    uint32_t level;    /* the cluster's feature level */
    bool unfit;        /* whose frame is looked at cannot be of this cluster */
    uint64_t unfit_ms; /* when that was said last */
    unsigned findings; /* questions of others that the pool works at */
    struct lag lag;
    struct rate rate;
    struct id128 replaces; /* zero: nobody, or it is done */
    bool replacing;
    uint64_t replace_ms;                                       /* not before */
    bool draining_said;                                        /* in probes */
    uint64_t seeds_asked_ms, seeds_said_ms, strangers_said_ms; /* cluster_say.c */
    struct twins *twins;                                       /* cluster_twin.c, as what follows */
    struct id128 process, own_run;
    uint64_t process_said_ms, twin_said_ms, twins_said_ms, moving_since_ms, moving_asked_ms;
    bool displaced; /* another process is this node, and was so first */
    void (*on_displaced)(void *arg);
    void *on_displaced_arg;
    uint64_t strangers; /* handshakes that had failed when that was said last */
    struct commit_job *waiting, *waiting_last; /* events that the committer has no room for yet */
    struct cluster_reader *reading[LIMIT_FETCHES];
    size_t reading_count;
    struct cluster_order *orders; /* under way */
    uint64_t last_number;
    struct cloud *cloud; /* guarded; NULL: none */
    const char *cloud_prefix;
    struct cluster_lender lender; /* `open` NULL: none; set once, under the lock */
    struct lent {
        uint64_t key; /* of serve's transfer */
        void *loan;   /* NULL: none */
        uint64_t size;
    } lent[LIMIT_SERVED];
    struct late_read { /* of an object that this node has not heard of yet */
        struct serve_read read;
        uint64_t asked_ms;
    } late[LIMIT_SERVE_READS_DELEGATED];
    size_t late_count;
    unsigned seeks_served; /* under way for other nodes */
    uint64_t malformed, other_tag, refused, undelivered;
    /* What could not be given away for want of memory: said to the core that asked, next turn. */
    uint64_t unread[UNREAD];
    size_t unread_count;
    struct sync_input failed[LIMIT_FAILED];
    size_t failed_count;

    struct pool *pool; /* reads of the journal and of bodies; the resolver */
    struct drainer *drainer;
    atomic_bool draining;         /* this node wants to leave */
    atomic_bool outside;          /* it left, or was forgotten */
    atomic_bool rejoin;           /* … and shall belong to the cluster again */
    _Atomic uint64_t draining_ms; /* since when all probes say that it drains; 0: they do not */
    _Atomic unsigned writing;     /* clients' changes between begin and end */
    struct replicator *replicator;
    struct uploader *uploader; /* NULL: there is no cloud */
    struct copies *copies;
    struct standing standing; /* the thread's own; and for others: */
    _Atomic int health;       /* enum probe_health */
    _Atomic bool clock_is_skewed;
    _Atomic unsigned joined;
    struct {
        _Atomic uint64_t gets, bytes, coalesced, delegated, failures, misses, wrong;
    } cloud_counts;
    pthread_t thread;
    bool running;
    atomic_bool stopping;

    pthread_mutex_t lock; /* guards what follows */
    struct delivery *delivered, *delivered_last;
    struct cluster_reader *readers, *readers_last; /* with something to say */
    bool closed;                                   /* no reader is taken any more */
    struct cluster_order *ordered;                 /* not begun, the last one first */
    size_t order_count;                            /* of those, and under way */
    bool orders_closed;
    size_t reader_count;
    size_t seek_count; /* of those */
    struct news *news;
    size_t news_count, news_cap;
    bool news_whole;   /* a round has ended: digest and events fit the runs */
    bool news_members; /* a member event was among them */
    bool news_lost;    /* for want of memory: read all of it again */
    struct hash128 news_digest;
    uint64_t news_events, news_event_bytes, news_rows;
    unsigned under_way; /* jobs and commits that will come back as deliveries */
    bool asks_closed;
    struct inquiry *inquiries;
    size_t inquiry_count;
    pthread_cond_t answered;
    struct cluster_stats stats;
    struct cluster_member view[LIMIT_MEMBERS + 1];
    size_t view_count;
    _Atomic bool alone;
};

/* ---- cluster.c ---- */

/* Hand DELIVERY to the cluster's thread. Any thread; never fails. */
void cluster_deliver(struct cluster *cluster, struct delivery *delivery);
/* One more, one less of what cluster_stop waits for. */
void cluster_begin(struct cluster *cluster);
void cluster_end(struct cluster *cluster);
uint64_t cluster_now(struct cluster *cluster);

/* ---- cluster_peers.c ---- */

struct peer *peer_find(struct cluster *cluster, const struct id128 *node);
/* Encode MESSAGE, with tag and sender, and send it to NODE by the best way there is. It may get
 * lost; that is counted. */
void peer_send(struct cluster *cluster, const struct id128 *node,
               const struct wire_message *message);
/* One input for the probe core, and what comes of it; probe_step's errors. */
int peer_probe(struct cluster *cluster, struct probe_input *input);
/* Send MESSAGE to whoever is at ADDRESS, if we are connected; back to the one whose frame is being
 * looked at. Either may get lost. */
void peer_send_to(struct cluster *cluster, const char *address, const struct wire_message *message);
void peer_reply(struct cluster *cluster, const struct wire_message *message);
/* Send LEN bytes to PEER over our own connection to it, or the one on which it came to us. What
 * does not go is counted. */
void peer_transmit(struct cluster *cluster, struct peer *peer, const void *data, size_t len);
/* Members as the database has them, to the cores. */
void peer_members(struct cluster *cluster, const struct db_member *rows, size_t count);
/* Journal that this node has joined, where it has company and nobody knows yet. */
void peer_join(struct cluster *cluster);
/* Guests that fell silent are forgotten. */
void peer_tick(struct cluster *cluster, uint64_t now_ms);
/* What this node says of itself. */
void peer_local(struct cluster *cluster);
/* The other nodes that answer, for a body that a member may have: up to MAX into OUT. */
size_t peer_alive(struct cluster *cluster, struct id128 *out, size_t max);

/* A node that has said something is there, at ADDRESS (empty: not told), and says it knows SUMMARY
 * (NULL: not told): a guest, if it is not known. */
void peer_welcome(struct cluster *cluster, const struct id128 *node, struct text address,
                  const struct wire_summary *summary);
/* Whether to say what goes on and on: one line now and then is enough. */
bool peer_may_complain(struct cluster *cluster);

/* ---- cluster_hear.c ---- */

/* A frame came: link's callback. */
void peer_receive(void *arg, const struct link_from *from, const uint8_t *data, size_t len);
void peer_link_changed(void *arg, link_peer peer, enum link_state state);

/* ---- cluster_view.c ---- */

/* How this node stands: said to other threads and, where that changes, in the log. */
void peer_standing(struct cluster *cluster);
/* The figures, for other threads. */
void peer_view(struct cluster *cluster);

/* ---- cluster_pack.c ---- */

/* Send FRAME, a message, to PEER by the best way there is; a small one together with others of this
 * turn. The order is kept. */
void pack_send(struct cluster *cluster, struct peer *peer, const struct buf *frame);
/* Send what waits: at the end of each turn, and before PEER is forgotten. */
void pack_flush(struct cluster *cluster, struct peer *peer);
void pack_flush_all(struct cluster *cluster);

/* ---- cluster_journal.c ---- */

/* The journal's listener: on the applier's thread. */
void cluster_listen(void *arg, const struct journal_news *news);
/* The same of copies. */
void cluster_listen_copies(void *arg, const struct journal_copy_news *news);
/* Runs and members as they are in the database now. */
int cluster_load(struct cluster *cluster) MUST_CHECK;
/* Tell the cores what the journal said since the last call. */
void cluster_news(struct cluster *cluster);
/* JOB, whose change and delivery are set, to the committer. Its delivery frees it. */
void cluster_commit(struct cluster *cluster, struct commit_job *job);
/* What waits for the committer, as much as it has room for. */
void cluster_submit(struct cluster *cluster);
/* Tell sync of what could not be begun. */
void cluster_failed(struct cluster *cluster);
/* One input for the sync core, and what comes of it. */
void cluster_sync(struct cluster *cluster, struct sync_input *input);

/* ---- cluster_merge.c ---- */

/* One input for the merge core, and what comes of it. */
void cluster_merge(struct cluster *cluster, struct merge_input *input);
void cluster_cut_message(struct cluster *cluster, const struct wire_message *message);
/* Ask, and let go what may go. */
void cluster_cut_tick(struct cluster *cluster, uint64_t now_ms);

/* ---- cluster_inquiry.c ---- */

/* Send what other threads ask. */
void inquiry_send(struct cluster *cluster);
/* A question or an answer of PEER's. */
void inquiry_receive(struct cluster *cluster, const struct wire_message *message);
/* End every question with ERR_CLOSED. */
void inquiry_close(struct cluster *cluster);

/* ---- cluster_operate.c ---- */

/* Take the place of the member that this node was told to replace, once that can be judged. */
void operate_replace(struct cluster *cluster);
/* A member that leaves asks for copies. */
void operate_adopt(struct cluster *cluster, const struct wire_message *message);

/* ---- cluster_say.c ---- */

/* A seed could not be asked: STATE is that of our connection to it. */
void say_seed(struct cluster *cluster, const char *address, enum link_state state);
/* Whether whoever sent MESSAGE, a probe or its answer, and this node understand each other's facts;
 * else it is said. */
bool say_fits(struct cluster *cluster, const struct wire_message *message);
/* This node's own standing; a member's, which was BEFORE (0: unknown); that NODE, which was
 * forgotten, is back. */
void say_self(struct cluster *cluster, enum member_state state);
void say_member(struct cluster *cluster, const struct member *row, enum member_state before);
void say_back(struct cluster *cluster, const struct id128 *node);
/* How many were not let in. */
void say_strangers(struct cluster *cluster, const struct link_stats *link);

/* ---- cluster_twin.c ---- */

int twin_open(struct cluster *cluster) MUST_CHECK;
void twin_tick(struct cluster *cluster, uint64_t now_ms);
/* Is whoever is at ADDRESS another process of this node? It is asked. */
void twin_ask(struct cluster *cluster, const char *address);
/* May this node journal another address than BEFORE? Not until nobody answers there any more as
 * this node. */
bool twin_may_move(struct cluster *cluster, const char *before);
/* This process's run was frozen, or a twin has its ULID: it draws another one. */
void twin_run_frozen(struct cluster *cluster);
/* False: MESSAGE is of another kind. */
bool twin_message(struct cluster *cluster, const struct wire_message *message);

/* ---- cluster_orders.c ---- */

int orders_open(struct cluster *cluster, uint64_t seed) MUST_CHECK;
/* What other threads have ordered since the last call. */
void orders_take(struct cluster *cluster);
/* Notes and orders, every TIMERS_MS. */
void orders_tick(struct cluster *cluster, uint64_t now_ms);
/* NODE is at the seed ADDRESS. */
void orders_met(struct cluster *cluster, struct text address, const struct id128 *node);
/* NODE has said what it knows. */
void orders_summary(struct cluster *cluster, const struct id128 *node);
struct notes_times orders_times(struct cluster *cluster);
/* End all with ERR_CLOSED, and take no more. */
void orders_close(struct cluster *cluster);

/* ---- cluster_bodies.c ---- */

int bodies_open(struct cluster *cluster) MUST_CHECK;
/* A copy here was found damaged: the journal's listener, on any thread. */
void cluster_damage(void *arg, const struct object *object);
/* What readers of other threads have asked for since the last call. */
void bodies_take(struct cluster *cluster);
/* Tell serve of reads that could not be begun. */
void bodies_failed(struct cluster *cluster);
/* A WIRE_BODY_… came. */
void bodies_message(struct cluster *cluster, const struct wire_message *message);
/* Have READ, which serve asked for at ASKED_MS, made by the pool. */
void bodies_read(struct cluster *cluster, const struct serve_read *read, uint64_t asked_ms);
/* READER's turn comes soon. The lock is held. */
void bodies_enqueue(struct cluster *cluster, struct cluster_reader *reader);
/* READER is at its end. */
void bodies_end(struct cluster *cluster, struct cluster_reader *reader, int rc);
/* End every fetch with ERR_CLOSED; those from the cloud a little later. */
void bodies_close(struct cluster *cluster);

/* ---- cluster_lend.c ---- */

/* Read as serve asks, of a loan. False: the transfer has none. */
bool lend_read(struct cluster *cluster, const struct serve_read *read);
/* A loan of what READ's transfer wants of OBJECT's body, which is not here. On a pool thread. */
int lend_open(struct cluster *cluster, const struct object *object, const struct serve_read *read,
              struct db_reader *reader, void **loan) MUST_CHECK;
/* READ, asked for at ASKED_MS, is of an object that is not known here: it is made again when there
 * are news. False: there were none for long enough. */
bool lend_await(struct cluster *cluster, const struct serve_read *read, uint64_t asked_ms);
/* Make those again. */
void lend_retry(struct cluster *cluster);
/* READ's transfer has got LOAN: go on with that. SIZE: of the body. */
void lend_begin(struct cluster *cluster, const struct serve_read *read, void *loan, uint64_t size);
/* A delegated transfer is over: serve's call. */
void lend_over(void *arg, uint64_t key);
/* Close every loan; no read of one is under way. */
void lend_close(struct cluster *cluster);

/* ---- cluster_seek.c ---- */

/* What ASK seeks its delegate knows: wait until it is known here. Calls nothing of the cores. */
void seek_answered(struct cluster *cluster, struct cluster_ask *ask);
/* Look for what is waited for so. */
void seek_retry(struct cluster *cluster);
/* READ, a delegated one, asks which bytes its id has, … */
bool seek_is(const struct serve_read *read);
/* … and nothing is known of that here: have it looked for, and serve told. */
void seek_serve(struct cluster *cluster, const struct serve_read *read);

/* ---- cluster_self.c ---- */

/* Send MESSAGE, a WIRE_BODY_…, to this node itself: it arrives with the next turn, or is lost. */
void self_send(struct cluster *cluster, const struct wire_message *message);

/* ---- cluster_pull.c ---- */

/* Begin with what READER's owner has asked for. */
void pull_begin(struct cluster *cluster, struct cluster_reader *reader);
/* The owner has taken so many bytes more, or whom it asked is at its end. */
void pull_turn(struct cluster *cluster, struct cluster_reader *reader, uint64_t bytes);
/* The owner wants no more. */
void pull_cancel(struct cluster *cluster, struct cluster_reader *reader);
/* What fetch has for a reader, and how a fetch ended: its sink's calls. */
void pull_data(void *arg, uint64_t number, uint64_t offset, const void *bytes, size_t len,
               const struct id128 *from);
void pull_done(void *arg, uint64_t number, int rc);
/* Ask the cloud again where it is time. */
void pull_tick(struct cluster *cluster, uint64_t now_ms);
void pull_stats(struct cluster *cluster, struct cluster_cloud_stats *out);

#endif
