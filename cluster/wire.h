/*
 * What nodes say to each other: messages, and their bytes. Pure.
 *
 * A message is one msgpack array: [version=1, type, tag, from bin16, [member …]]. The members of
 * each type follow the order in its struct below; one that another type of the same struct has
 * alone is not written. A reader ignores members that a newer build has appended. A message travels
 * as one ZeroMQ frame; docs/PROTOCOL.md tells when each is sent.
 *
 * - probe: is anybody there, and what do you know? From every node to every member, each second.
 * - sync: which events do you have that I lack? The one that lacks asks.
 * - body: the bytes of one object from an offset on. The one that lacks asks.
 * - merge: what your rows say, of ranges of ids; for whoever lacks what was compacted, and where
 * two nodes know the same events and yet differ. The one that lacks asks.
 * - pack: several small messages, which travel as one.
 * - note: a message that reaches every live node once. Gossip, never an event.
 *
 * Nothing here is trusted: whoever has the cluster's secret may still be of another version, or
 * broken. Memory that decoding needs is bounded by the message's own length.
 */
#ifndef CLUSTER_WIRE_H
#define CLUSTER_WIRE_H

#include "base/buf.h"
#include "base/hash.h"
#include "base/id.h"
#include "base/limits.h"
#include "journal/event.h"

#define WIRE_VERSION 1

/* The greatest seq, and the latest wall time (in ms), that are not malformed: what the journal
 * keeps, and what a stamp holds. */
#define WIRE_SEQ_MAX     ((UINT64_C(1) << 40) - 1)
#define WIRE_WALL_MS_MAX ((HLC_LIMIT >> 16) - 1)

enum wire_type {
    WIRE_PROBE = 1,     /* are you there? */
    WIRE_PROBE_ACK = 2, /* yes */
    WIRE_PROBE_FOR = 3, /* ask SUBJECT whether it is there: I had no answer */
    WIRE_PROBE_SAW = 4, /* what that came to */

    WIRE_SYNC_ASK = 10,    /* send me what I lack */
    WIRE_SYNC_MORE = 11,   /* to say what you lack I need your ended runs, too */
    WIRE_SYNC_VECTOR = 12, /* … here they are, one page */
    WIRE_SYNC_EVENTS = 13, /* events of one run, in order */
    WIRE_SYNC_CREDIT = 14, /* so many more bytes of events may be under way to me */
    WIRE_SYNC_END = 15,    /* that was all, or why there is no more */

    WIRE_BODY_ASK = 20,    /* send me these bytes */
    WIRE_BODY_DATA = 21,   /* a piece of them */
    WIRE_BODY_CREDIT = 22, /* so many more bytes may be under way to me */
    WIRE_BODY_END = 23,    /* from the holder: no more, and why; from the asker: stop */

    WIRE_NOTE = 30,     /* somebody says something to all */
    WIRE_NOTE_IDS = 31, /* which of such I offer you, have seen, want of you */

    WIRE_MERGE_ASK = 40,       /* send me what you know of these ids */
    WIRE_MERGE_VECTOR = 41,    /* … and how far you know each run: one page */
    WIRE_MERGE_CHUNK = 42,     /* rows, holders, members */
    WIRE_MERGE_CREDIT = 43,    /* so many more bytes of chunks may be under way to me */
    WIRE_MERGE_SUMS_ASK = 44,  /* what are the sums of your rows between these ids? */
    WIRE_MERGE_SUMS = 45,      /* … these */
    WIRE_MERGE_END = 46,       /* no more, and why; from the asker: it has all (done), or stop */
    WIRE_MERGE_CUT_ASK = 47,   /* do you know all of these runs up to here? */
    WIRE_MERGE_CUT_KNOWN = 48, /* … yes or no */

    WIRE_PROCESS = 50,     /* which process of its node this is */
    WIRE_TWIN = 51,        /* another process answers under your node id: this one */
    WIRE_SYNC_FROZEN = 52, /* runs that contradict themselves: the asker seems not to know */

    WIRE_ADOPT = 60,     /* this node is about to leave: make durable copies of these */
    WIRE_KNOWN_ASK = 61, /* do you know all of this? */
    WIRE_KNOWN = 62,
    WIRE_RANGE_ASK = 63, /* what do your rows of this range of ids come to? */
    WIRE_RANGE = 64,
    WIRE_ROW_ASK = 65, /* what do you know of this object? */
    WIRE_ROW = 66,

    WIRE_PACK = 80, /* several small messages */

    WIRE_BODY_COMING = 100, /* from the delegate: I am about it, be patient */
};

/* What a node knows, in few bytes: equal summaries, equal states. */
struct wire_summary {
    struct hash128 vector; /* over all (origin, seq) that it has applied */
    struct hash128 digest; /* of its rows; of the same transaction as `vector` */
    uint64_t events;
};

/* WIRE_PROBE and its answer. */
struct wire_probe {
    uint64_t nonce;
    struct id128 to;     /* whom it is meant for; zero: whoever is at that address */
    struct text address; /* host:port where the sender wants to be reached; empty: not known yet;
                            printable ASCII without spaces, at most LIMIT_WIRE_ADDR_BYTES */
    uint64_t wall_ms;    /* at most WIRE_WALL_MS_MAX */
    uint32_t feature;    /* the highest feature level that the sender understands */
    uint8_t leaving;     /* it is about to stop: do not wait for it */
    struct wire_summary summary;
    struct text seen; /* answer only: as `address`: where the question came from */
    /* Appended: a build that does not send them yet leaves them empty and 0. */
    struct text version; /* of the software: printable ASCII, at most LIMIT_WIRE_VERSION_BYTES */
    uint32_t level;      /* the cluster's feature level, as the sender knows it; 0: not told */
    uint8_t draining;    /* it wants to leave for good: its copies do not count any more */
};

/* WIRE_PROBE_FOR, WIRE_PROBE_SAW. */
struct wire_probe_for {
    uint64_t nonce;
    struct id128 subject;
    uint8_t answered; /* SAW only */
};

/* How far one run is known. */
struct wire_run {
    struct id128 origin;
    uint64_t seq; /* 1 to WIRE_SEQ_MAX */
};

#define WIRE_RUN_BYTES 24 /* on the wire: origin, seq (little-endian) */

/* WIRE_SYNC_ASK: live runs whole, ended ones by one hash (they are many, and hardly change). */
struct wire_sync_ask {
    uint64_t session; /* drawn by the asker, never 0 */
    struct hash128 ended;
    uint64_t ended_count;
    uint64_t credit_bytes;
    struct text runs; /* live ones: WIRE_RUN_BYTES each, by origin, each origin once; at most
                       LIMIT_WIRE_RUNS; here as in a page */
};

/* WIRE_SYNC_VECTOR: a page of the ended runs, by origin. */
struct wire_sync_vector {
    uint64_t session;
    uint32_t page; /* from 0 */
    uint8_t last;
    struct text runs;
};

/* WIRE_SYNC_EVENTS: `count` events of `origin`, the first with seq `first`. */
struct wire_sync_events {
    uint64_t session; /* 0: a push, which nobody asked for */
    struct id128 origin;
    uint64_t first;
    uint32_t count;   /* at least 1; the last seq is at most WIRE_SEQ_MAX */
    struct text data; /* each: length (4 bytes, little-endian), raw event of 1 to LIMIT_EVENT_BYTES;
                         with the lengths at most LIMIT_WIRE_EVENT_BYTES */
};

enum wire_end {
    WIRE_END_DONE = 0,    /* all was sent */
    WIRE_END_BUSY = 1,    /* ask again later, or somebody else */
    WIRE_END_BEHIND = 2,  /* sync: some of it was compacted; merge with a snapshot */
    WIRE_END_ABSENT = 3,  /* body: not held here, or not these bytes */
    WIRE_END_DAMAGED = 4, /* body: held, but not readable */
    WIRE_END_UNKNOWN = 5, /* no such session or transfer (any more) */
    WIRE_END_CANCEL = 6,  /* body, from the asker */
};

/* WIRE_SYNC_MORE, WIRE_SYNC_CREDIT, WIRE_SYNC_END; WIRE_BODY_CREDIT, WIRE_BODY_END,
 * WIRE_BODY_COMING; WIRE_MERGE_CREDIT, WIRE_MERGE_END. */
struct wire_flow {
    uint64_t session; /* or transfer; 0 in SYNC_CREDIT and SYNC_END: about pushes */
    uint64_t bytes;   /* CREDIT only */
    uint8_t end;      /* END only: enum wire_end */
};

/* WIRE_BODY_ASK: the bytes [offset, offset + length) of the object (id, sha256). */
struct wire_body_ask {
    uint64_t transfer; /* drawn by the asker */
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    uint64_t offset, length; /* the sum fits 64 bits; length UINT64_MAX: to the end */
    uint64_t credit_bytes;
    uint8_t background; /* replication: gives way to what clients wait for */
    /* Appended: 0 where it is not sent. */
    uint8_t delegated; /* whoever lacks it fetches it from the cloud, and asks no node for that */
};

/* WIRE_BODY_DATA. `sum`: XXH3-64 of data, since blocks are checked on every way; by the receiver,
 * not by wire_decode. `data` lies within `size`. */
struct wire_body_data {
    uint64_t transfer;
    uint64_t offset;
    uint64_t size; /* of the whole body */
    uint64_t sum;
    struct text data; /* at most LIMIT_WIRE_CHUNK_BYTES */
};

/* WIRE_NOTE. */
struct wire_note {
    struct id128 note;   /* who has seen it does not take it again; never zero */
    struct text data;    /* at most LIMIT_WIRE_NOTE_BYTES */
    struct id128 author; /* never zero */
    uint32_t age_ms;     /* since it was said, without its time on the way */
};

/* WIRE_MERGE_ASK: what is known of ids in (after, through]. */
struct wire_merge_ask {
    uint64_t session;            /* drawn by the asker, never 0 */
    uint8_t whole;               /* the vector, too, before all chunks; members and events that
                                    no row tells of where AFTER is zero */
    struct id128 after, through; /* AFTER is below THROUGH */
    uint64_t credit_bytes;
};

/* How far one run is known, with what the next event of it follows. */
struct wire_merge_run {
    struct id128 origin, node;
    uint64_t seq; /* 1 to WIRE_SEQ_MAX */
    uint8_t hash[SHA256_BYTES];
    uint8_t ended;
};

#define WIRE_MERGE_RUN_BYTES 73 /* on the wire */

/* WIRE_MERGE_VECTOR: a page of all runs, by origin. */
struct wire_merge_vector {
    uint64_t session;
    uint32_t page; /* from 0 */
    uint8_t last;
    struct text
        runs; /* WIRE_MERGE_RUN_BYTES each, at most LIMIT_WIRE_MERGE_RUNS, strictly sorted */
};

/* WIRE_MERGE_CHUNK: all there is of ids behind the chunk before, up to THROUGH. */
struct wire_merge_chunk {
    uint64_t session, number; /* from 0, without a gap */
    struct id128 through;     /* zero: members; none of the ids yet */
    uint8_t last;
    struct text data; /* chunks of a snapshot (journal/snapshot.h), or events, laid out alike; at
                         most LIMIT_WIRE_MERGE_BYTES; may be empty */
};

/* WIRE_MERGE_SUMS_ASK. */
struct wire_merge_sums_ask {
    uint64_t session;
    struct id128 after;
    struct text fences; /* ids, strictly ascending from AFTER, 1 to LIMIT_WIRE_FENCES */
};

struct wire_sum {
    struct hash128 sum;
    uint64_t count; /* of rows; UINT64_MAX: more than were worth counting, without a sum */
};

#define WIRE_SUM_BYTES 24

/* WIRE_MERGE_SUMS: of the rows between a fence and the one before it. */
struct wire_merge_sums {
    uint64_t session;
    uint32_t first;   /* which fence the first one is about */
    struct text sums; /* WIRE_SUM_BYTES each, at least one */
};

/* WIRE_MERGE_CUT_ASK, WIRE_MERGE_CUT_KNOWN. */
struct wire_merge_cut {
    uint64_t nonce;
    struct text runs; /* ASK only: as in a question of sync */
    uint8_t known;    /* KNOWN only */
};

/* WIRE_SYNC_FROZEN: WIRE_FROZEN_BYTES each, the origin and the node whose run it is; neither is
 * zero. At least one, at most LIMIT_WIRE_FROZEN. */
struct wire_sync_frozen {
    uint64_t session; /* not 0 */
    struct text runs;
};

#define WIRE_FROZEN_BYTES 32

/* WIRE_PROCESS: the sender; WIRE_TWIN: the other one. */
struct wire_process {
    struct id128 process; /* a ULID drawn at its start, never zero: the greater, the younger */
    struct text address;  /* where it says to be reached; as wire_probe's */
};

/* WIRE_NOTE_IDS: at most LIMIT_WIRE_NOTE_IDS ids in each list, 16 bytes each. */
struct wire_note_ids {
    struct text offered; /* the sender has these … */
    struct text seen;    /* … need not get these … */
    struct text wanted;  /* … and asks for these */
};

/* WIRE_PACK. */
struct wire_pack {
    struct text data; /* messages, each laid out as events are, at most LIMIT_WIRE_PACK_BYTES; none
                         of them is a pack */
};

/* WIRE_ADOPT: (id, sha256) of each, as struct event_item has it; 1 to LIMIT_WIRE_ADOPT. */
struct wire_adopt {
    struct text items;
};

/* WIRE_KNOWN_ASK, WIRE_RANGE_ASK, WIRE_ROW_ASK: a question that one answer answers. */
struct wire_inquiry {
    uint64_t nonce;         /* drawn by the asker */
    struct id128 id, until; /* RANGE: ids above `id` up to `until`; ROW: `id` */
    uint32_t rows;          /* RANGE: at most so many, at least 1 */
    uint8_t list;           /* RANGE: and what each comes to, at most LIMIT_WIRE_ROWS */
    struct text runs;       /* KNOWN: as in wire_sync_ask */
};

/* WIRE_KNOWN, WIRE_RANGE, WIRE_ROW. */
struct wire_finding {
    uint64_t nonce;
    uint8_t yes;        /* KNOWN: all of it; RANGE: `last` is the end of what was asked for */
    struct id128 last;  /* RANGE: the last id counted; where `yes`, the `until` of the question */
    uint64_t count;     /* RANGE: rows */
    struct hash128 sum; /* RANGE: of their digests */
    struct text data;   /* RANGE: WIRE_ROW_SUM_BYTES for each row, by id; ROW: facts as JSON, empty
                           where nothing is known; at most LIMIT_WIRE_ROW_BYTES */
};

#define WIRE_ROW_SUM_BYTES 32 /* id, object_digest (low, high; little-endian) */

struct wire_message {
    enum wire_type type;
    struct text tag;   /* UTF-8 without control characters, at most LIMIT_WIRE_TAG_BYTES */
    struct id128 from; /* node id of the sender, never zero */
    union {
        struct wire_probe probe;
        struct wire_probe_for probe_for;
        struct wire_sync_ask sync_ask;
        struct wire_sync_vector sync_vector;
        struct wire_sync_events sync_events;
        struct wire_flow flow;
        struct wire_body_ask body_ask;
        struct wire_body_data body_data;
        struct wire_note note;
        struct wire_process process;
        struct wire_sync_frozen sync_frozen;
        struct wire_merge_ask merge_ask;
        struct wire_merge_vector merge_vector;
        struct wire_merge_chunk merge_chunk;
        struct wire_merge_sums_ask merge_sums_ask;
        struct wire_merge_sums merge_sums;
        struct wire_merge_cut merge_cut;
        struct wire_pack pack;
        struct wire_note_ids note_ids;
        struct wire_adopt adopt;
        struct wire_inquiry inquiry;
        struct wire_finding finding;
    };
};

/*
 * Append MESSAGE, of a type named above, to OUT, with buf's sticky error: ERR_INVALID where
 * wire_decode would refuse it, else OUT's own. Then OUT's bytes are as before. What keeps the
 * limits of its members never exceeds LIMIT_WIRE_BYTES.
 */
void wire_encode(struct buf *out, const struct wire_message *message);

/*
 * Decode exactly LEN bytes; texts point into DATA. ERR_INVALID: not a message, a member of a wrong
 * type, size or range, a list that is not sorted or whose length does not fit; ERR_TOO_BIG: longer
 * than LIMIT_WIRE_BYTES; ERR_UNSUPPORTED: a version or a type that this build does not know
 * (counted and dropped, as the others are). *OUT is to be used only where 0 is returned.
 */
int wire_decode(struct wire_message *out, const uint8_t *data, size_t len) MUST_CHECK;

/* The AT-th of RUNS (a `runs` above; AT below wire_run_count). */
struct wire_run wire_run_at(struct text runs, size_t at);
size_t wire_run_count(struct text runs);
/* Callers keep the order. */
void wire_run_add(struct buf *out, const struct wire_run *run);

/* Events out of wire_sync_events.data, messages out of wire_pack.data, one call each, from *OFFSET
 * = 0 on: false at the end. After wire_decode the lengths are known to fit. */
bool wire_next_event(struct text data, size_t *offset, struct text *event);
/* LEN: 1 to LIMIT_EVENT_BYTES. Whole, or (see OUT's error) not at all. */
void wire_event_add(struct buf *out, const void *event, size_t len);

/* Lists inside messages of merging (AT below the count). */
size_t wire_merge_run_count(struct text runs);
struct wire_merge_run wire_merge_run_at(struct text runs, size_t at);
void wire_merge_run_add(struct buf *out, const struct wire_merge_run *run);
size_t wire_fence_count(struct text fences);
struct id128 wire_fence_at(struct text fences, size_t at);
size_t wire_sum_count(struct text sums);
struct wire_sum wire_sum_at(struct text sums, size_t at);
void wire_sum_add(struct buf *out, const struct wire_sum *sum);

/* "probe", "sync-ask", … or "unknown". */
const char *wire_type_name(uint32_t type);

#endif
