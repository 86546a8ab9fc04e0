/*
 * Every operation a node offers, whichever door it came through: put, get, meta, delete. Doors (the
 * public API, later the S3 API, peers, the console) translate; this decides nothing about HTTP.
 *
 * Threads: calls are made on a loop and never block; what has to wait goes to the reader pool or the
 * committer, and DONE is called from there (on a thread of theirs: a door posts it to its loop).
 */
#ifndef API_STORE_H
#define API_STORE_H

#include "base/hash.h"
#include "base/pool.h"
#include "journal/journal.h"
#include "storage/ram.h"

struct store;

struct store_config {
    struct journal *journal; /* lent, started */
    struct ram *ram;         /* lent */
    struct env *env;
    uint64_t max_body_bytes; /* 0: unlimited */
};

int store_create(struct store **out, const struct store_config *config) MUST_CHECK;
/* Ends the pool; no operation may be under way. */
void store_destroy(struct store **store);

struct env *store_env(struct store *store);
struct journal *store_journal(struct store *store);
struct ram *store_ram(struct store *store);

/* Run JOB on the pool; its thread context is a struct db_reader *. */
int store_submit(struct store *store, struct job *job) MUST_CHECK;

/* ---- Put: begin, write the pieces, finish; or abort. One loop at a time. ---- */

struct store_put;

/* Digests that the client sent along, to be checked at the end. */
struct store_expect {
    bool has_sha256, has_md5;
    uint8_t sha256[SHA256_BYTES], md5[MD5_BYTES];
};

struct store_put_options {
    bool has_id; /* else a fresh one is drawn */
    struct id128 id;
    uint32_t fields; /* EVENT_HAS_NAME | TYPE | USER_META | LEVEL */
    struct text name, type, user_meta; /* copied */
    uint8_t level;
    uint64_t length; /* of the body, UINT64_MAX where unknown */
    struct store_expect expect;
};

/* ERR_NO_SPACE (the reserve), ERR_TOO_BIG, ERR_READ_ONLY, ERR_NO_MEMORY. */
int store_put_begin(struct store_put **out, struct store *store,
                    const struct store_put_options *options) MUST_CHECK;
/* Takes the bytes: in memory up to LIMIT_INLINE_BODY_BYTES, then to a large file. */
int store_put_write(struct store_put *put, const void *data, size_t len) MUST_CHECK;

struct store_result {
    int rc;                /* 0; journal's and decide()'s refusals; ERR_MISMATCH: a digest is wrong */
    bool created;          /* false: it was there already */
    struct object *object; /* the row after it; owned by the put, meta or delete operation */
};
/* The body is complete. DONE is called once, when it is durable or refused. */
void store_put_finish(struct store_put *put, void (*done)(void *arg, const struct store_result *result),
                      void *arg);
/* Free it, whatever its state but between finish and done. What was not committed is removed. */
void store_put_destroy(struct store_put **put);

/* ---- Meta and delete ---- */

struct store_change; /* one under way; freed by store_change_destroy after DONE */
int store_change_submit(struct store_change **out, struct store *store,
                        const struct request *request,
                        void (*done)(void *arg, const struct store_result *result),
                        void *arg) MUST_CHECK;
void store_change_destroy(struct store_change **change);

/* ---- Get ---- */

/*
 * An object opened for reading: its row, and its body block by block, verified. Opened on a pool
 * thread (it may ask SQLite and the disk), then used by one thread at a time.
 */
struct store_body;

/* ERR_NOT_FOUND, ERR_DELETED (*OUT then has only the row), ERR_CORRUPT (counted). WITH_BODY false:
 * the row alone. Blocks. READER: the pool thread's. */
int store_open(struct store_body **out, struct store *store, struct db_reader *reader,
               const struct id128 *id, bool with_body) MUST_CHECK;
/* As store_open without blocking, for objects whose location is in the RAM tier and whose record is in
 * the page cache: ERR_AGAIN otherwise (use the pool). SCRATCH: RECORD_MAX_BYTES of the loop's, which
 * an inline body points into until the next call of anything with that SCRATCH. */
int store_open_nowait(struct store_body **out, struct store *store, const struct id128 *id,
                      uint8_t *scratch) MUST_CHECK;
const struct object *store_body_object(const struct store_body *body);
/* An inline body, read and verified whole; NULL for large files. Size: the object's. */
const uint8_t *store_body_inline(const struct store_body *body);
/* Block INDEX of a large body into BUF (BLOCK_BYTES). ERR_AGAIN (NOWAIT), ERR_CORRUPT (counted). */
int store_body_block(struct store_body *body, uint64_t index, uint8_t *buf, size_t *len,
                     bool nowait) MUST_CHECK;
void store_body_close(struct store_body **body);

#endif
