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

/* Between nodes. */
#define LIMIT_MEMBERS          128
#define LIMIT_WIRE_BYTES       (512 * KIB) /* of one message */
#define LIMIT_WIRE_TAG_BYTES   64
#define LIMIT_WIRE_ADDR_BYTES  300         /* host:port */
#define LIMIT_WIRE_RUNS        4096        /* in one message */
#define LIMIT_WIRE_EVENT_BYTES (256 * KIB) /* of events in one message, at least one event */
#define LIMIT_WIRE_CHUNK_BYTES (256 * KIB) /* of a body in one message */
#define LIMIT_WIRE_NOTE_BYTES  (8 * KIB)

/* Runs (origins) that a node keeps apart: every start of every node that wrote. */
#define LIMIT_RUNS (1u << 20)

/* The pool for work that may wait for the disk. */
#define POOL_THREADS     4
#define LIMIT_POOL_QUEUE 1024

/* Free space that puts may not use: max(256 MiB, 1 %), but never more than a tenth of the disk. */
#define RESERVE_BYTES   (256 * MIB)
#define RESERVE_PERCENT 1

#endif
