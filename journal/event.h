/*
 * Events: the facts a journal is made of, and their bytes. Pure.
 *
 * An event is one msgpack array:
 *   [version=1, origin bin16, seq, node bin16, stamp, kind, id bin16, prev bin32, payload map]
 * The payload's keys are short strings (docs/JOURNAL.md lists them). Keys that this build does not
 * know are skipped when decoding; the raw bytes are what is stored, hashed and relayed, so they
 * survive. Unknown kinds decode too (their payload is not looked at).
 */
#ifndef JOURNAL_EVENT_H
#define JOURNAL_EVENT_H

#include "base/buf.h"
#include "base/hash.h"
#include "base/id.h"
#include "base/limits.h"
#include "journal/hlc.h"

#include <stdbool.h>
#include <stdint.h>

enum event_kind {
    EVENT_PUT = 1,  /* an object's bytes, name, type, user meta, level; implies the author's hold */
    EVENT_META = 2, /* name, user meta, expiry changed, or level raised */
    EVENT_DELETE = 3,   /* tombstone */
    EVENT_HOLD = 4,     /* the author has durable copies of the (id, sha256) listed */
    EVENT_DROP = 5,     /* … no longer has them */
    EVENT_CLOUD = 6,    /* upload started, uploaded, purged */
    EVENT_BIND = 7,     /* bucket + key name an object */
    EVENT_UNBIND = 8,   /* … name nothing */
    EVENT_MEMBER = 9,   /* a node joined, left, was forgotten */
    EVENT_FREEZE = 10,  /* an origin that contradicts itself */
    EVENT_FEATURE = 11, /* the cluster's feature level was raised */
};

enum event_fields { /* which optional members are present */
                    EVENT_HAS_SHA256 = 1 << 0,
                    EVENT_HAS_SIZE = 1 << 1,
                    EVENT_HAS_LEVEL = 1 << 2,
                    EVENT_HAS_NAME = 1 << 3,
                    EVENT_HAS_TYPE = 1 << 4,
                    EVENT_HAS_USER_META = 1 << 5,
                    EVENT_HAS_EXPIRES = 1 << 6,
                    EVENT_HAS_REASON = 1 << 7,
                    EVENT_HAS_FOLLOWS = 1 << 8,
                    EVENT_HAS_ITEMS = 1 << 9,
                    EVENT_HAS_CLOUD = 1 << 10,  /* backend, bucket, key, etag, cloud_state */
                    EVENT_HAS_BIND = 1 << 11,   /* bucket, key */
                    EVENT_HAS_MEMBER = 1 << 12, /* address, member_state, subject */
                    EVENT_HAS_FREEZE =
                        1 << 13, /* subject (the origin), follows.seq / hash: where it broke */
                    EVENT_HAS_PURGE = 1 << 14,
                    EVENT_HAS_SUMS =
                        1 << 15, /* a map for further digests: md5, crc32, …; raw msgpack */
                    EVENT_HAS_FEATURE = 1 << 16,  /* feature: the level */
                    EVENT_HAS_RUN_NODE = 1 << 20, /* freeze: whose run the subject is */
                    EVENT_HAS_AFTER = 1 << 21, /* freeze: the run before, as `follows` of others */
};

enum delete_reason { DELETE_BY_CLIENT = 0, DELETE_EXPIRED = 1 };
enum cloud_state {
    CLOUD_STARTED = 1,  /* the author is going to upload: from now on there may be a copy */
    CLOUD_UPLOADED = 2, /* the cloud has the bytes of sha256 */
    CLOUD_PURGED = 3,   /* it has none of those uploaded up to `removed` */
    CLOUD_MARKED = 4,   /* it has the mark that the object is deleted */
};
enum member_state { MEMBER_JOINED = 1, MEMBER_LEFT = 2, MEMBER_FORGOTTEN = 3 };

#define LIMIT_EVENT_BACKEND_BYTES 32
#define LIMIT_EVENT_BUCKET_BYTES  255
#define LIMIT_EVENT_KEY_BYTES     1024
#define LIMIT_EVENT_ETAG_BYTES    255

struct text {
    const char *ptr; /* not terminated */
    uint32_t len;
};

/* Last-writer-wins register: who wrote it last. stamp 0: nobody. */
struct reg {
    hlc_time stamp;
    struct id128 origin;
};

/* The end of another run, which a run's first event names. */
struct event_ref {
    struct id128 origin;
    uint64_t seq;
    uint8_t hash[SHA256_BYTES];
};

struct event_item {
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
};

struct event {
    struct id128 origin;
    uint64_t seq; /* from 1 */
    struct id128 node;
    hlc_time stamp;
    uint32_t kind;
    struct id128 id;            /* the object; zero where the event concerns none */
    uint8_t prev[SHA256_BYTES]; /* SHA-256 of the origin's previous event; zero for seq 1 */

    uint32_t fields;
    uint8_t sha256[SHA256_BYTES];
    uint64_t size;
    uint8_t level;                     /* 0 … 2 */
    struct text name, type, user_meta; /* user_meta: compact JSON object of strings, keys sorted */
    uint64_t expires_ms;               /* Unix; 0 = never */
    struct event_ref follows;
    const struct event_item *items; /* encode: caller's array; decode: inside DATA */
    uint32_t item_count;
    uint8_t reason, cloud_state, member_state; /* of a delete, cloud, member event */
    bool purge;
    struct text backend, bucket, key, etag, address;
    struct reg removed; /* cloud, purged: the last upload known when the cloud was asked to remove
                           it; stamp 0: all that are earlier than this event */
    struct id128 subject;
    uint32_t feature;
    struct text sums; /* raw msgpack map */
    struct id128 run_node;
    struct event_ref after; /* a freeze needs `follows` for where the subject broke */
};

/*
 * Append EVENT's encoding to OUT (sticky error as buf's; ERR_TOO_BIG over LIMIT_EVENT_BYTES,
 * ERR_INVALID where event_decode would refuse it; OUT is then as before). Kinds of enum event_kind
 * and the fields that the kind has (event.c's table) only.
 */
void event_encode(struct buf *out, const struct event *event);

/*
 * Decode exactly LEN bytes. Texts point into DATA. ERR_INVALID where it is no event, a field has a
 * wrong type, size or range (level over 2, stamp over HLC_LIMIT, seq 0, name over its limit, not
 * UTF-8, list too long, a field that its kind needs missing …); ERR_UNSUPPORTED: a higher version.
 * Bytes from peers and disks come here: nothing in it is trusted.
 */
int event_decode(struct event *out, const uint8_t *data, size_t len) MUST_CHECK;

/* Whether the members that `fields` names have values that an event may have; what other nodes say
 * in another form (journal/merge_chunk.h) is held to the same. */
bool event_says_ok(const struct event *event);
bool event_address_ok(struct text address);
bool event_seq_ok(uint64_t seq);

/* The items of a decoded hold or drop: up to MAX into OUT; their count. DATA, LEN as decoded. */
size_t event_items(const uint8_t *data, size_t len, struct event_item *out, size_t max);

/* The chain's hash of an event: SHA-256 over its raw bytes. */
static inline void event_hash(const void *data, size_t len, uint8_t out[SHA256_BYTES])
{
    sha256(data, len, out);
}

/* The feature level that this build understands, the highest that a cluster with it may have; and
 * from which level on a cluster's nodes know what events of KIND mean (UINT32_MAX: this build does
 * not know it). Below that level an event is stored and relayed, and is in no row and no digest. */
#ifdef OBJSTORE_FEATURE_BUILD
#define FEATURE_LEVEL 2
#define EVENT_SAMPLE  100 /* a text that means nothing: for tests of what such nodes do together */
#else
#define FEATURE_LEVEL 1
#endif
uint32_t event_feature(uint32_t kind);

/* "put", "meta", … or "unknown". */
const char *event_kind_name(uint32_t kind);

#endif
