/*
 * Every operation a node offers, whichever door it came through: put, get, meta, delete. Doors (the
 * public API, later the S3 API, peers, the console) translate; this decides nothing about HTTP.
 *
 * Threads: calls are made on a loop and never wait for the disk unless they say so; what has to
 * wait goes to the pools or the committer, and DONE is called from there (on a thread of theirs, or
 * at once on the caller's where nothing had to wait: a door posts it to its loop in either case).
 */
#ifndef API_STORE_H
#define API_STORE_H

#include "base/budget.h"
#include "base/hash.h"
#include "base/pool.h"
#include "cluster/cluster.h"
#include "journal/journal.h"
#include "storage/disk_cache.h"
#include "storage/hot_blocks.h"
#include "storage/ram.h"

/* Memory that bodies of uploads under way may take, all together; over it a put gets ERR_FULL. */
#define STORE_UPLOAD_BYTES (64 * MIB)
/* Up to this much of a record is read into a loop's scratch: a socket's buffer takes it at once. */
#define STORE_SCRATCH_BYTES (16 * KIB)

struct store;
struct peer_bodies;
struct peer_fills;
struct adoptions;

struct store_config {
    struct journal *journal; /* lent, started */
    struct cluster *cluster; /* lent: where bodies that are not here come from; NULL: from nowhere.
                                It is stopped before the store is destroyed. */
    struct ram *ram;         /* lent */
    struct disk_cache *disk_cache; /* lent; NULL: large bodies of other nodes are not kept, and
                                      fetched for each client by itself */
    struct env *env;
    struct budget *memory;   /* lent: for bodies on their way from the disk to slow clients; over it
                                an open gets ERR_FULL */
    uint64_t max_body_bytes; /* 0: unlimited */
    bool whole_ranges; /* a range of a body that only the cloud has brings all of it here, not the
                          parts that it needs */
};

int store_create(struct store **out, const struct store_config *config) MUST_CHECK;
/* Ends the pools; no operation may be under way. */
void store_destroy(struct store **store);

struct env *store_env(struct store *store);
struct journal *store_journal(struct store *store);
struct cluster *store_cluster(struct store *store); /* NULL: none */
struct ram *store_ram(struct store *store);
struct hot_blocks *store_hot(struct store *store);
struct budget *store_memory(struct store *store);
uint64_t store_max_body(const struct store *store);
/* Who waits for copies on other nodes; NULL: there are none to wait for. */
struct copies *store_copies(struct store *store);
/* This node never had others. */
bool store_is_alone(struct store *store);
/* How this node stands among others: PROBE_GOOD, DEGRADED or BAD. */
enum probe_health store_health(struct store *store);
/* Its clock is too wrong for changes of clients. */
bool store_clock_is_skewed(struct store *store);
/* What is known without looking: this node's copy, and how many members there are. */
struct db_copies store_own_copy(struct store *store, const struct object *object);
/* How many durable copies OBJECT has. Blocks. READER: the pool thread's. */
int store_count_copies(struct store *store, struct db_reader *reader, const struct object *object,
                       struct db_copies *out) MUST_CHECK;
/* Small bodies that are on their way here: api/peer_body.h. NULL: no cluster. */
struct peer_bodies *store_peer_bodies(struct store *store);
/* Large ones, and where they are kept: api/peer_fill.h. NULL: they are not. */
struct peer_fills *store_peer_fills(struct store *store);
struct disk_cache *store_disk_cache(struct store *store);
/* An answer brings a client BYTES of a body that the cloud has, or shall have: counted, for what
 * was not read from there. Any thread. */
void store_serves(struct store *store, uint64_t bytes);
uint64_t store_served(struct store *store);
/* Unknown ids that are looked for in the cloud: api/adoption.h. NULL: no cloud. */
struct adoptions *store_adoptions(struct store *store);

/* Work that may wait for the disk; embedded in its owner's struct. RUN is called once on a thread
 * of the reader pool, with that thread's reader, and may free it. */
struct store_job {
    struct job job;
    struct store *store;
    void (*run)(struct store_job *job, struct db_reader *reader);
};

/* Queue JOB (its `run` set). ERR_FULL where LIMIT_POOL_QUEUE wait: a new request is then refused.
 */
int store_submit(struct store *store, struct store_job *job) MUST_CHECK;
/* The same for a request that has been admitted and cannot be refused any more (in the middle of
 * its answer). It finds room as long as every connection has at most one job, and every adoption.
 */
int store_submit_admitted(struct store *store, struct store_job *job) MUST_CHECK;

/* ---- Put: begin, write the pieces, finish; destroy. One loop at a time. ---- */

struct store_put;

/* Digests that the client sent along, to be checked at the end. */
struct store_expect {
    bool has_sha256, has_md5;
    uint8_t sha256[SHA256_BYTES], md5[MD5_BYTES];
};

struct store_put_options {
    bool has_id; /* else a fresh one is drawn */
    struct id128 id;
    uint32_t fields;                   /* EVENT_HAS_NAME | TYPE | USER_META | LEVEL */
    struct text name, type, user_meta; /* copied */
    uint8_t level;
    uint64_t length; /* of the body, UINT64_MAX where unknown */
    struct store_expect expect;
    const struct condition *condition; /* copied; NULL: none */
    /* What is read back from the cloud: stamp, expires_ms and where it is are taken from here; its
     * texts are lent until the put is destroyed. NULL: a client's. */
    const struct request *from_cloud;
};

/* ERR_NO_SPACE (the reserve), ERR_TOO_BIG, ERR_FULL (too many uploads), ERR_NO_MEMORY;
 * ERR_PRECONDITION: no fresh id can fulfil it. */
int store_put_begin(struct store_put **out, struct store *store,
                    const struct store_put_options *options) MUST_CHECK;
/* Whether PUT should be judged before its body is read: it has a condition, and much may come or
 * the client WAITS for leave to send it. */
bool store_put_judgeable(const struct store_put *put, bool waits);
/* Judge it by what is acknowledged now: 0, ERR_PRECONDITION, ERR_DELETED, or why it cannot be told.
 * The commit judges again. READER: the pool thread's. Blocks. */
int store_put_judge(struct store_put *put, struct db_reader *reader) MUST_CHECK;
/* Takes the bytes: in memory up to LIMIT_INLINE_BODY_BYTES, then to a large file. Errors as
 * store_put_begin's, ERR_IO, ERR_MISMATCH (more than the length announced). */
int store_put_write(struct store_put *put, const void *data, size_t len) MUST_CHECK;

/* So much has gone to a large file that the disk should take it before more comes: see large_due.
 */
bool store_put_due(const struct store_put *put);
/* Have a pool thread see to that, while more is written. ERR_AGAIN: the disk is still at the part
 * before, or others commit, whose syncs would wait for what runs ahead: wait before more is
 * written, then call it again where it is still due. ERR_IO, ERR_NO_SPACE: it could not take a
 * part. */
int store_put_write_back(struct store_put *put) MUST_CHECK;
/* DONE is called on a pool thread when the disk has taken that part, and until then the put must
 * not be touched; false: it has by now, nothing is called. */
bool store_put_wait_written(struct store_put *put, void (*done)(void *arg), void *arg) MUST_CHECK;

struct store_result {
    int rc;       /* 0; journal's and decide()'s refusals; ERR_MISMATCH: a digest or the length is
                     wrong; ERR_FULL: overloaded */
    bool created; /* false: the bytes were here already; for changes: nothing changed */
    bool first;   /* a put of what nobody here had heard of */
    const struct object *object; /* the row after it (rc 0), or the one that refused it, or NULL;
                                    owned by the put or change */
};
/* The body is complete. DONE is called once, when it is durable or refused. */
void store_put_finish(struct store_put *put,
                      void (*done)(void *arg, const struct store_result *result), void *arg);
/* Free it, whatever its state but between finish and done. What was not committed is removed. */
void store_put_destroy(struct store_put **put);

/* ---- Meta, delete, adopt ---- */

struct store_change; /* one under way; freed by store_change_destroy after DONE */
/* META, DELETE, ADOPT. REQUEST's texts and condition are copied, but for those that say where the
 * cloud has it: they are lent until DONE. On an error DONE is not called and *OUT is NULL. */
int store_change_submit(struct store_change **out, struct store *store,
                        const struct request *request,
                        void (*done)(void *arg, const struct store_result *result),
                        void *arg) MUST_CHECK;
void store_change_destroy(struct store_change **change);

/* ---- Get ---- */

/*
 * An object opened for reading: its row, and its body block by block, verified. Used by one thread
 * at a time.
 */
struct store_body;

/* ERR_NOT_FOUND, ERR_DELETED (*OUT then has only the row), ERR_ELSEWHERE (likewise: no good copy is
 * here, but there are other nodes or a cloud to ask), ERR_CORRUPT (no good copy is here; counted
 * and logged). WITH_BODY false: the row alone. Blocks. READER: the pool thread's. */
int store_open(struct store_body **out, struct store *store, struct db_reader *reader,
               const struct id128 *id, bool with_body) MUST_CHECK;
/* As store_open without blocking, for small objects whose location is in the RAM tier and whose
 * record is in the page cache: ERR_AGAIN otherwise (use the pool). SCRATCH: STORE_SCRATCH_BYTES of
 * the loop's, where small records are read: see store_body_stays. */
int store_open_nowait(struct store_body **out, struct store *store, const struct id128 *id,
                      uint8_t *scratch) MUST_CHECK;
const struct object *store_body_object(const struct store_body *body);
/* The RAM tier's token, taken before the look-up: for a fill of what was read. */
uint64_t store_body_token(const struct store_body *body);
/* An inline body, read and verified whole; NULL for large files. Size: the object's. */
const uint8_t *store_body_inline(const struct store_body *body);
/* Whether that memory is BODY's own until it is closed; else it is the loop's SCRATCH and lasts
 * until anything else uses that. */
bool store_body_stays(const struct store_body *body);
/* Block INDEX of a large body into BUF (BLOCK_BYTES). ERR_AGAIN (NOWAIT), ERR_CORRUPT (counted). */
int store_body_block(struct store_body *body, uint64_t index, uint8_t *buf, size_t *len,
                     bool nowait) MUST_CHECK;
/* The copy here turned out to be damaged. True: other nodes may have a good one, or the cloud has,
 * and from now on the row says that none is here. */
bool store_body_forsake(struct store_body *body);
void store_body_close(struct store_body **body);

/* ---- Bodies that are on other nodes, or in the cloud ---- */

/* What is fetched, and who may have it. */
struct store_origin {
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    uint64_t size;
    struct id128 holders[LIMIT_FETCH_HOLDERS];
    size_t holder_count;
    bool has_cloud;
    struct cluster_cloud cloud;
    bool delegated; /* another node has left it to us: cluster_fetch's */
    /* What is to be kept of it by itself: STORE_PART_BYTES, fewer at the end of the body; bytes 0:
     * the whole body. */
    uint64_t part_offset, part_bytes;
};

/* Parts of large bodies that are fetched of the cloud, and kept, by themselves: aligned so. */
#define STORE_PART_BYTES CLUSTER_PART_BYTES
/* The part with number INDEX. */
void store_origin_part(struct store_origin *out, const struct store_origin *origin, uint64_t index);
/* What is kept of ORIGIN: its length, where it begins, and its name for the disk cache, which for a
 * whole body is the SHA-256. */
uint64_t store_origin_bytes(const struct store_origin *origin);
void store_origin_name(const struct store_origin *origin, uint8_t name[SHA256_BYTES]);
/* Whether a member that answers has a copy. Any thread. */
bool store_origin_is_near(struct store *store, const struct store_origin *origin);
/* Whether parts are kept: store_config's. */
bool store_keeps_parts(const struct store *store);

/* What a reader of it may have been given and not told as taken. */
static inline uint64_t store_origin_window(const struct store_origin *origin)
{
    return origin->has_cloud ? CLUSTER_CLOUD_BYTES : CLUSTER_PEER_BYTES;
}

/* Of BODY's row. Blocks. READER: the pool thread's. */
int store_origin_find(struct store_origin *out, const struct store_body *body,
                      struct db_reader *reader) MUST_CHECK;
/* The same of OBJECT, a row. */
int store_origin_of(struct store_origin *out, struct store *store, const struct object *object,
                    struct db_reader *reader) MUST_CHECK;
/* LENGTH bytes (at least one) of it from OFFSET on, as cluster_fetch_start. Any thread. */
int store_fetch(struct store *store, const struct store_origin *origin, uint64_t offset,
                uint64_t length, struct cluster_reader *reader) MUST_CHECK;
void store_fetch_consumed(struct store *store, struct cluster_reader *reader, uint64_t bytes);
void store_fetch_cancel(struct store *store, struct cluster_reader *reader);
/* Bytes that came to READER do not fit the object's SHA-256: counted and logged. */
void store_fetch_misfit(struct store *store, const struct id128 *id,
                        const struct cluster_reader *reader);

#endif
