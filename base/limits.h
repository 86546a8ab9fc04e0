/*
 * Every bound in one place: what a client, a peer or a disk can make us allocate, wait for or hold.
 * A number that is a format's (a header's size) lives with the format instead.
 */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

#define KIB (1024ull)
#define MIB (1024ull * KIB)
#define GIB (1024ull * MIB)

/* Object metadata, in bytes. */
#define LIMIT_NAME_BYTES         1024
#define LIMIT_CONTENT_TYPE_BYTES 255
#define LIMIT_USER_META_BYTES    (8 * KIB)

/* Entity tags in one list of a conditional change. */
#define LIMIT_CONDITION_TAGS 16

/* Bytes of one encoded event, and the items of its lists (hold, drop). */
#define LIMIT_EVENT_BYTES      (128 * KIB)
#define LIMIT_EVENT_LIST_ITEMS 1000

/* Bodies: up to the threshold in a volume, above it in a file of their own. */
#define LIMIT_INLINE_BODY_BYTES (256 * KIB)
#define BLOCK_BYTES             (64 * KIB)
#define LIMIT_INLINE_BLOCKS     4

/* The log. */
#define LIMIT_BATCH_BYTES   (8 * MIB)
#define LIMIT_BATCH_RECORDS 4096
#define SEGMENT_BYTES       (1 * GIB)
#define ZERO_FILL_AHEAD     (64 * MIB)
#define LIMIT_SEGMENTS      (1u << 20)

/* The commit path. */
#define LIMIT_COMMIT_QUEUE    4096
#define LIMIT_PENDING_ENTRIES 32768
#define LIMIT_PENDING_BYTES   (16 * MIB)
#define LIMIT_APPLY_RECORDS   2000
#define CHECKPOINT_PAGES      4000

/* HTTP. Times in milliseconds. */
#define LIMIT_HTTP_HEADER_BYTES (32 * KIB)
#define LIMIT_HTTP_HEADERS      100
#define LIMIT_HTTP_URI_BYTES    (4 * KIB)
#define LIMIT_HTTP_CONNECTIONS  20000
#define LIMIT_HTTP_RANGES       16
#define LIMIT_HTTP_CHUNK_EXT    (16 * KIB)
#define HTTP_HEADER_TIMEOUT_MS  15000
#define HTTP_IDLE_TIMEOUT_MS    75000
#define HTTP_BODY_RATE_BYTES_S  1024
#define HTTP_BODY_GRACE_MS      10000
#define HTTP_WRITE_STALL_MS     30000
#define HTTP_READ_STEP_BYTES    (256 * KIB)
#define HTTP_DRAIN_TIMEOUT_MS   25000
#define HTTP_DRAIN_FRESH_MS     500 /* for the first request of a connection just made */

/* Between nodes. */
#define LIMIT_MEMBERS          128
#define LIMIT_MEMBER_ROWS      4096 /* nodes that ever belonged to it */
#define LIMIT_SEEDS            32
#define LIMIT_WIRE_BYTES       (512 * KIB) /* of one message */
#define LIMIT_WIRE_TAG_BYTES   64
#define LIMIT_WIRE_ADDR_BYTES  300         /* host:port */
#define LIMIT_WIRE_RUNS        4096        /* in one message */
#define LIMIT_WIRE_FROZEN      64          /* frozen runs told in one message */
#define LIMIT_WIRE_EVENT_BYTES (256 * KIB) /* of events in one message, at least one event */
#define LIMIT_WIRE_CHUNK_BYTES (256 * KIB) /* of a body in one message */
#define LIMIT_WIRE_NOTE_BYTES  (8 * KIB)
#define LIMIT_WIRE_MERGE_RUNS  2048        /* with their hashes, in one message */
#define LIMIT_WIRE_MERGE_BYTES (264 * KIB) /* of chunks in one message: two of them */
#define LIMIT_WIRE_FENCES      1024        /* in one question */
#define LIMIT_WIRE_PACK_BYTES  (128 * KIB) /* of small messages that travel as one */
#define PACK_MESSAGE_BYTES     (16 * KIB)  /* larger ones travel alone */
#define LIMIT_VECTOR_RUNS      1000000     /* a run is one life of one process, which wrote */
#define LIMIT_WIRE_NOTE_IDS    256         /* in one list of a message */

/* Administration: what is asked of one member for the sake of another. */
#define LIMIT_WIRE_VERSION_BYTES 32          /* of a software version */
#define LIMIT_WIRE_ADOPT         512         /* objects in one message */
#define LIMIT_WIRE_ROWS          8192        /* sums of rows in one message */
#define LIMIT_WIRE_ROW_BYTES     (128 * KIB) /* of one object's facts as JSON */
#define LIMIT_INQUIRIES          64          /* questions of this node under way … */
#define LIMIT_FINDINGS           16          /* … and of others being answered here */
#define LIMIT_ADOPTED            2048        /* objects that others asked this node to copy */
#define INQUIRY_MS               2000        /* until a question is asked again */

/* Runs (origins) that a node keeps apart: every start of every node that wrote. */
#define LIMIT_RUNS (1u << 20)

/* Bodies between nodes. The window is what one transfer may have under way or unread by its reader;
 * of what a node serves, background transfers may use the second number of each pair. */
#define LIMIT_FETCHES                     256 /* asked for at once */
#define LIMIT_FETCH_HOLDERS               32  /* of one fetch */
#define BODY_WINDOW_BYTES                 (1 * MIB)
#define BODY_BACKGROUND_WINDOW_BYTES      (512 * KIB)
#define LIMIT_SERVED                      256 /* transfers */
#define LIMIT_SERVED_BACKGROUND           192
#define LIMIT_SERVED_PER_PEER             32
#define LIMIT_SERVED_PER_PEER_BACKGROUND  24
#define LIMIT_PEER_WINDOWS                (8 * MIB) /* of one peer's transfers: no more than … */
#define LIMIT_PEER_WINDOWS_BACKGROUND     (6 * MIB) /* … the link takes, LIMIT_LINK_BYTES_OUT */
#define LIMIT_ASKED_LARGE_BACKGROUND      8 /* of one peer: a small body never waits for large ones */
#define LIMIT_SERVE_READS                 64 /* under way to the disk: so many, … */
#define LIMIT_SERVE_READS_BACKGROUND      48
#define LIMIT_SERVE_READ_BYTES            (4 * MIB) /* … and so much; each is at most a chunk */
#define LIMIT_SERVE_READ_BYTES_BACKGROUND (3 * MIB)
#define LIMIT_SERVE_READS_DELEGATED       32 /* besides: of bodies on their way here, chunks */
#define LIMIT_SEEKS                       16 /* ids that are left to others to look for … */
#define LIMIT_SEEKS_SERVED                24 /* … and that others leave to this node: of those reads */

/* Replication: copies that this node makes for itself. Times in milliseconds. */
#define LIMIT_REPLICAS     64 /* under way at once, … */
#define LIMIT_REPLICAS_OLD 48 /* … of them, others than those that have just become wanted, … */
#define REPLICA_BYTES      (8 * MIB) /* … and their bytes in memory, but always one */
#define LIMIT_REPAIRS      256       /* damaged copies that wait for a good one … */
#define REPAIRS_AT_ONCE    2         /* … of them under way, besides */
#define LIMIT_REPLICA_PAGE 64        /* ids read from the list at once */
#define LIMIT_REPLICA_NEW  1024 /* that have just become wanted; of more the walks find the rest */
#define LIMIT_REPLICA_FAILURES                                                                     \
    1024 /* objects remembered for a retry; others the sweep meets again */
#define REPLICA_BACKOFF_MS     1000 /* after an object's first failure, doubled up to … */
#define REPLICA_BACKOFF_MAX_MS 60000
#define REPLICA_BUSY_MS        100   /* the cluster has too much under way */
#define REPLICA_FULL_MS        60000 /* the disk is full, or this node takes no writes */
#define REPLICA_STREAK         16    /* failures in a row, from which on the sweep only … */
#define REPLICA_TRICKLE_MS     100   /* … tries one object in so long */
#define REPLICA_RECENT_MS      60000 /* news are looked for among ids of this age */
#define REPLICA_SWEEP_MIN_MS   500   /* between the ends of sweeps and the next, with news … */
#define REPLICA_SWEEP_MAX_MS   60000 /* … and without */

/* What is owed to the cloud. Times in milliseconds. */
#define OUTBOX_COPIES       2  /* of a body while it is owed, unless --outbox-copies says so */
#define LIMIT_OWED_SMALL    64 /* under way at once, of which … */
#define LIMIT_OWED_REQUESTS 16 /* … ask the cloud, */
#define LIMIT_OWED_LARGE    4  /* and bodies over … */
#define OWED_LARGE_BYTES    (4 * MIB) /* … so much besides */
#define LIMIT_OWED_PAGE     64        /* rows read from the outbox at once */
#define LIMIT_OWED_NEW      1024 /* that this node has just brought about; of more the sweep … */
#define LIMIT_OWED_RESTS    1024 /* failures remembered for a retry; … finds the rest */
#define OWED_BACKOFF_MS     1000 /* after a first failure at most so long, doubled up to … */
#define OWED_BACKOFF_MAX_MS 300000
#define OWED_BUSY_MS        100   /* the journal or the cloud takes no more for now */
#define OWED_AWAY_MS        10000 /* after so long others do what a node owes that does not answer */
#define OWED_PATIENCE_MS    180000 /* … one that answers and does nothing, and longer for much: */
#define OWED_SPEED_BYTES    (1 * MIB) /* a second */
#define OWED_SWEEP_MIN_MS   500       /* between the ends of sweeps and the next, with news … */
#define OWED_SWEEP_MAX_MS   60000     /* … and without: less than anybody's patience */

/* Requests that wait until other nodes have copies of what they put. */
#define LIMIT_COPY_WAITS     10000
#define ACK_TIMEOUT_MS       10000         /* unless X-Meta-Timeout says otherwise, … */
#define LIMIT_ACK_TIMEOUT_MS (3600 * 1000) /* … at most so long */

/* The link: sockets between nodes. Bytes and frames are per peer. */
#define LIMIT_LINK_PEERS      (2 * LIMIT_MEMBERS)
#define LIMIT_LINK_BYTES_OUT  (8 * MIB)
#define LIMIT_LINK_FRAMES_OUT 1024
#define LIMIT_LINK_FRAMES_IN  32
#define LIMIT_LINK_BURST      64    /* messages taken from one socket before the next one's turn */
#define LIMIT_LINK_EVENTS     65536 /* of the listening socket, not yet counted */
#define LINK_HANDSHAKE_MS     5000
#define LINK_RETRY_MIN_MS     100
#define LINK_RETRY_MAX_MS     5000
#define LINK_LINGER_MS        500 /* for what was sent just before a close */

/* Journal sync. Times in milliseconds. */
#define LIMIT_SYNC_ASKED          2           /* sessions in which this node asks … */
#define LIMIT_SYNC_SERVED         8           /* … and is asked, at once */
#define LIMIT_SYNC_FLIGHTS        512         /* runs with events on their way into the log */
#define LIMIT_SYNC_REFUSED        32          /* (run, peer) whose events do not fit, remembered */
#define LIMIT_SYNC_OUTPUTS        256         /* of one step; a push goes to every member at once */
#define LIMIT_SYNC_WALK           4096        /* runs compared in one step of one session */
#define LIMIT_SYNC_PAST           1024        /* sums of our vector remembered */
#define SYNC_CREDIT_BYTES         (4 * MIB)   /* of events under way to an asker */
#define SYNC_MESSAGE_CREDIT_BYTES (32 * KIB)  /* that a small message uses up */
#define LIMIT_SYNC_CREDIT_BYTES   (16 * MIB)  /* that a peer's credit is believed up to */
#define SYNC_PUSH_WINDOW_BYTES    (1 * MIB)   /* pushed and not acknowledged */
#define SYNC_PUSH_ACK_BYTES       (128 * KIB) /* acknowledged together */
#define SYNC_DEADLINE_MS          10000       /* without progress */
#define SYNC_STALL_MS             1000 /* without progress: somebody else may be asked, too */
#define SYNC_DELAY_MS             250  /* before asking, at random up to … */
#define SYNC_PATIENCE_MS          4000 /* before asking a peer whose pushes keep coming */
#define SYNC_BACKOFF_MS           500  /* after an ask that brought nothing, doubled up to … */
#define SYNC_BACKOFF_MAX_MS       8000
#define SYNC_REPAIR_MS            30000 /* a random peer that differs is asked, news or not */
#define SYNC_REFUSED_MS           60000 /* events that do not fit are not tried again */

/* Merging with another node's rows. Times in milliseconds. */
#define LIMIT_SHARED_EVENT_BYTES                                                                   \
    (1 * GIB)                          /* of events, that are kept for live members who lack some */
#define LIMIT_MERGE_SERVED   4         /* sessions in which this node is asked, at once */
#define LIMIT_MERGE_FLIGHTS  64        /* chunks on their way into the log */
#define LIMIT_MERGE_RANGES   4096      /* found to differ, and not looked at yet */
#define LIMIT_MERGE_OUTPUTS  32        /* of one step */
#define MERGE_CREDIT_BYTES   (1 * MIB) /* of chunks under way to an asker */
#define MERGE_LEAST_CHARGE   (16 * KIB) /* what a small chunk uses up of it */
#define MERGE_DEADLINE_MS    10000      /* without progress of a session that we asked for … */
#define MERGE_SERVE_MS       30000      /* … that somebody asked us for */
#define MERGE_GUEST_MS       600000     /* events stay for whoever was silent no longer than this */
#define MERGE_BACKOFF_MS     500        /* after a session that failed, doubled up to … */
#define MERGE_BACKOFF_MAX_MS 8000
#define MERGE_TRIES          8     /* in a row that brought nothing: given up */
#define MERGE_SAME_PEER      3     /* … with one peer, while there are others */
#define MERGE_CALM_MS        10000 /* after one was adopted: what sync says is of before */
#define MERGE_DIFFERS_MS     3000  /* unequal at equal vectors for so long, before …*/
#define MERGE_AGAIN_MS       10000 /* between two repairs, doubled up to … */
#define MERGE_AGAIN_MAX_MS   600000
#define MERGE_LEAF_ROWS      32    /* ranges of so few rows are sent whole */
#define MERGE_FENCE_ROWS     50000 /* ranges that are compared have at most so many */

/* Notes to all nodes. Times in milliseconds. A note is taken while it is young, and remembered for
 * much longer; so it is not taken twice. */
#define LIMIT_NOTES_KEPT       256   /* with their bytes, to be read and passed on … */
#define LIMIT_NOTES_KEPT_BYTES MIB   /* … and those, all together */
#define LIMIT_NOTES_SEEN       4096  /* ids remembered */
#define NOTE_LIFE_MS           10000 /* it is passed on for so long */
#define NOTE_SEEN_MS           60000 /* its id is remembered for so long */
#define NOTE_ROUND_MS          200   /* between offers … */
#define NOTE_FANOUT            4     /* … to so many nodes each */
#define LIMIT_NOTE_SENDS       16    /* of one note to one node */
#define NOTE_WANT_MS           400   /* a note asked for may take so long to come */
#define NOTE_OWN_RATE          4     /* that this node says in a second … */
#define NOTE_OWN_BURST         32    /* … and at once */
#define NOTE_AUTHOR_RATE       8     /* that are taken of one other node */
#define NOTE_AUTHOR_BURST      64
#define NOTE_RATE              50 /* … and of all together */
#define NOTE_BURST             256

/* The pool for work that may wait for the disk. */
#define POOL_THREADS     4
#define LIMIT_POOL_QUEUE 1024

/* Free space that puts may not use: max(256 MiB, 1 %), but never more than a tenth of the disk. */
#define RESERVE_BYTES   (256 * MIB)
#define RESERVE_PERCENT 1

#endif
