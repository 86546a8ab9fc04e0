/*
 * Putting an object.
 *
 *   begin ─► write … ─► finish ─┬─ small: hashed, to the committer ─────────────────► done
 *                               └─ large: writers' pool syncs the file ─► committer ─► done
 *
 *   committer says ERR_UNVERIFIED: the same bytes are stored already, but nobody has looked at that
 *   copy lately. A writer reads and checks it, then the change goes to the committer again, which
 *   keeps the old copy where it is good and takes the new bytes where it is not.
 *
 * Small bodies are collected in memory (what all uploads take together is bounded), larger ones go
 * to their file as they come. What is there is handed to the disk and hashed by a pool thread, a
 * part at a time, while more comes. A put that ends without a commit leaves nothing: its file is
 * removed by the pool, because removing a large file can take long.
 *
 * Puts are used again: at 60,000 a second their memory is worth keeping.
 */
#include "api/store_impl.h"

#include "journal/ulid.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_BODY_BYTES 4096 /* fits inside the put */
#define SMALL_TEXT_BYTES 512
#define KEEP_PUTS        128
#define MAX_CHECKS       4

struct store_put {
    struct change change; /* first: the committer hands it back */
    struct job job;
    struct store *store;
    struct store_put *next; /* in the idle list */
    void (*done)(void *arg, const struct store_result *result);
    void (*written)(void *arg);
    void *arg;
    struct store_expect expect;
    uint64_t length, received;
    uint8_t *body; /* `small`, or allocated and counted in upload_bytes */
    size_t cap;
    char *text; /* `small_text`, or allocated */
    struct condition *condition;
    struct large_writer *large;
    unsigned checks;
    bool finished; /* the large file is complete */
    bool busy;     /* a pool thread or the committer has it */
    bool gated;    /* it went through the gate for changes, and goes out of it */
    /* The disk takes SPAN of the large file, and it is hashed, while more is written. */
    struct job flush;
    struct large_span span;
    uint64_t hashed; /* bytes of the body; the rest at the end */
    int flush_rc;    /* of those that are over */
    lsn_t synced;    /* the journal, when the part before it was begun … */
    bool others;     /* … and others have committed since */
    /* NULL: none is under way; else what its end calls, `nobody` where nobody waits for it. */
    void (*_Atomic then)(struct store_put *put);
    /* From here on kept from one use to the next. */
    struct digest *sha, *md5;
    char small_text[SMALL_TEXT_BYTES];
    uint8_t small[SMALL_BODY_BYTES];
};

static void free_put(struct store_put *put)
{
    digest_destroy(&put->sha);
    digest_destroy(&put->md5);
    free(put);
}

void store_put_drain(struct store *store)
{
    while (store->idle) {
        struct store_put *put = store->idle;

        store->idle = put->next;
        free_put(put);
    }
    store->idle_count = 0;
}

static struct store_put *take_idle(struct store *store)
{
    (void)pthread_mutex_lock(&store->lock);
    struct store_put *put = store->idle;
    if (put) {
        store->idle = put->next;
        store->idle_count--;
    }
    (void)pthread_mutex_unlock(&store->lock);
    if (put)
        return put;
    put = malloc(sizeof *put);
    if (put)
        put->sha = put->md5 = NULL;
    return put;
}

/* What a body in memory took of STORE_UPLOAD_BYTES is given back. */
static void release_body(struct store_put *put)
{
    if (put->body && put->body != put->small) {
        free(put->body);
        atomic_fetch_sub_explicit(&put->store->upload_bytes, put->cap, memory_order_relaxed);
    }
    put->body = NULL;
    put->cap = 0;
}

/* Free what the put holds but its large file, and keep the rest for the next one. */
static void recycle(struct store_put *put)
{
    struct store *store = put->store;

    assert(!put->large && !put->busy);
    release_body(put);
    if (put->text != put->small_text)
        free(put->text);
    free(put->condition);
    object_destroy(&put->change.object);
    (void)pthread_mutex_lock(&store->lock);
    bool keep = store->idle_count < KEEP_PUTS;
    if (keep) {
        put->next = store->idle;
        store->idle = put;
        store->idle_count++;
    }
    (void)pthread_mutex_unlock(&store->lock);
    if (!keep)
        free_put(put);
}

/* Room for SIZE bytes of body in memory, keeping what is there. */
static int reserve_body(struct store_put *put, size_t size)
{
    if (size <= put->cap)
        return 0;
    assert(size <= LIMIT_INLINE_BODY_BYTES);
    if (size <= SMALL_BODY_BYTES) {
        put->body = put->small;
        put->cap = SMALL_BODY_BYTES;
        return 0;
    }
    struct store *store = put->store;
    if (atomic_fetch_add_explicit(&store->upload_bytes, size, memory_order_relaxed) + size >
        STORE_UPLOAD_BYTES) {
        atomic_fetch_sub_explicit(&store->upload_bytes, size, memory_order_relaxed);
        return ERR_FULL;
    }
    uint8_t *body = malloc(size);
    if (!body) {
        atomic_fetch_sub_explicit(&store->upload_bytes, size, memory_order_relaxed);
        return ERR_NO_MEMORY;
    }
    if (put->body)
        memcpy(body, put->body, put->received);
    release_body(put);
    put->body = body;
    put->cap = size;
    return 0;
}

static char *copy_text(struct text *to, const struct text *from, char *at)
{
    if (from->len)
        memcpy(at, from->ptr, from->len);
    *to = (struct text){at, from->len};
    return at + from->len;
}

static int copy_texts(struct store_put *put, const struct store_put_options *options)
{
    size_t need = (size_t)options->name.len + options->type.len + options->user_meta.len;

    put->text = need <= SMALL_TEXT_BYTES ? put->small_text : malloc(need);
    if (!put->text)
        return ERR_NO_MEMORY;
    struct request *request = &put->change.request;
    char *at = copy_text(&request->name, &options->name, put->text);
    at = copy_text(&request->type, &options->type, at);
    (void)copy_text(&request->user_meta, &options->user_meta, at);
    return 0;
}

static int copy_condition(struct store_put *put, const struct condition *condition)
{
    if (!condition)
        return 0;
    put->condition = malloc(sizeof *condition);
    if (!put->condition)
        return ERR_NO_MEMORY;
    *put->condition = *condition;
    put->change.request.condition = put->condition;
    return 0;
}

static void take_origin(struct request *request, const struct request *from)
{
    request->from_cloud = true;
    request->stamp = from->stamp;
    request->expires_ms = from->expires_ms;
    request->backend = from->backend;
    request->bucket = from->bucket;
    request->key = from->key;
    request->etag = from->etag;
}

int store_put_begin(struct store_put **out, struct store *store,
                    const struct store_put_options *options)
{
    bool known = options->length != UINT64_MAX;

    *out = NULL;
    if (store->max_body_bytes && known && options->length > store->max_body_bytes)
        return ERR_TOO_BIG;
    uint64_t length = known ? options->length : 0;
    int rc = store->cluster ? cluster_write_refusal(store->cluster) : 0;
    if (rc == 0)
        rc = journal_room(store->journal, length);
    if (rc == ERR_NO_SPACE && store_give_way(store)) /* copies of what others have come second */
        rc = journal_room(store->journal, length);
    if (rc)
        return rc;
    struct store_put *put = take_idle(store);
    if (!put)
        return ERR_NO_MEMORY;
    memset(put, 0, offsetof(struct store_put, sha));
    put->store = store;
    put->length = options->length;
    put->synced = journal_synced(store->journal);
    put->expect = options->expect;
    struct request *request = &put->change.request;
    request->kind = CHANGE_PUT;
    request->fields = options->fields | EVENT_HAS_SHA256 | EVENT_HAS_SIZE;
    request->level = options->level;
    put->change.fresh = !options->has_id;
    request->id = options->has_id ? options->id : ulid_make(store->env, env_wall_ms(store->env));
    if (options->from_cloud)
        take_origin(request, options->from_cloud);
    rc = copy_texts(put, options);
    if (rc == 0)
        rc = copy_condition(put, options->condition);
    if (rc == 0 && !options->has_id)
        rc = decide_early(NULL, request);
    if (rc)
        recycle(put);
    else
        *out = put;
    return rc;
}

bool store_put_judgeable(const struct store_put *put, bool waits)
{
    if (!put->condition || put->change.fresh)
        return false;
    return waits || put->length > LIMIT_INLINE_BODY_BYTES;
}

int store_put_judge(struct store_put *put, struct db_reader *reader)
{
    struct object *row = NULL;
    int rc = journal_find(put->store->journal, reader, &put->change.request.id, &row);

    assert(!put->busy && put->received == 0);
    if (rc == 0 || rc == ERR_NOT_FOUND)
        rc = decide_early(row, &put->change.request);
    object_destroy(&row);
    return rc;
}

/* From now on the body goes to a file; what was collected goes first. */
static int become_large(struct store_put *put)
{
    assert(!put->large);
    int rc = put->sha ? 0 : digest_create(&put->sha, DIGEST_SHA256);
    if (rc)
        return rc;
    if (put->expect.has_md5 && !put->md5)
        rc = digest_create(&put->md5, DIGEST_MD5);
    if (rc)
        return rc;
    digest_reset(put->sha);
    if (put->expect.has_md5)
        digest_reset(put->md5);
    rc = large_create(&put->large, put->store->large);
    if (rc || put->received == 0)
        return rc;
    rc = large_write(put->large, put->body, put->received);
    release_body(put);
    return rc;
}

/* Hash the body up to byte END, which the page cache has: not the thread that receives it does. */
static int hash_up_to(struct store_put *put, uint64_t end)
{
    uint8_t *buf = put->hashed < end ? malloc(BLOCK_BYTES) : NULL;
    int rc = put->hashed < end && !buf ? ERR_NO_MEMORY : ERR_NONE;

    while (put->hashed < end && !rc) {
        size_t len = end - put->hashed < BLOCK_BYTES ? end - put->hashed : BLOCK_BYTES;

        rc = large_read_back(put->large, buf, len, put->hashed);
        if (rc)
            break;
        digest_update(put->sha, buf, len);
        if (put->expect.has_md5)
            digest_update(put->md5, buf, len);
        put->hashed += len;
    }
    free(buf);
    return rc;
}

bool store_put_due(const struct store_put *put)
{
    return put->large && large_due(put->large);
}

static void nobody(struct store_put *put)
{
    (void)put;
}

static void run_flush(struct job *job, void *context)
{
    struct store_put *put = container_of(job, struct store_put, flush);
    /* The disk works meanwhile; where others commit, it has a moment for them instead. */
    int rc = put->others ? 0 : large_hand_over(put->large, put->span, false);

    (void)context;
    if (rc == 0)
        rc = hash_up_to(put, large_span_end(put->span));
    if (rc == 0)
        rc = large_hand_over(put->large, put->span, true);
    put->flush_rc = put->flush_rc ? put->flush_rc : rc;
    void (*then)(struct store_put * put) = atomic_exchange(&put->then, NULL);
    /* From here on PUT is its owner's, unless he waits. */
    if (then != nobody)
        then(put);
}

/* THEN is called when the part that the disk takes is over; false: none is under way. */
static bool await_flush(struct store_put *put, void (*then)(struct store_put *put))
{
    void (*expected)(struct store_put * put) = nobody;

    return atomic_compare_exchange_strong(&put->then, &expected, then);
}

int store_put_write_back(struct store_put *put)
{
    assert(put->large && !put->busy && !put->finished);
    if (atomic_load(&put->then))
        return ERR_AGAIN;
    if (put->flush_rc)
        return put->flush_rc;
    lsn_t synced = journal_synced(put->store->journal);
    put->others = synced != put->synced;
    put->synced = synced;
    bool others = put->others;
    put->span = large_take_due(put->large);
    put->flush.run = run_flush;
    atomic_store(&put->then, nobody);
    if (pool_submit(put->store->writers, &put->flush) != 0)
        atomic_store(&put->then, NULL); /* the pool is full: the last sync takes longer */
    return others ? ERR_AGAIN : 0;
}

static void call_written(struct store_put *put)
{
    put->busy = false;
    put->written(put->arg);
}

bool store_put_wait_written(struct store_put *put, void (*done)(void *arg), void *arg)
{
    assert(!put->busy);
    put->written = done;
    put->arg = arg;
    put->busy = true;
    bool waits = await_flush(put, call_written);

    if (!waits)
        put->busy = false;
    return waits;
}

static int write_small(struct store_put *put, const void *data, size_t len)
{
    size_t need = put->received + len;

    if (need > put->cap) {
        /* All at once where a good part of it is here already; memory is not given on the word of a
         * client that announces much and sends little. */
        size_t most = put->length == UINT64_MAX ? LIMIT_INLINE_BODY_BYTES : put->length;
        size_t cap = put->length != UINT64_MAX && need >= most / 4 ? most : 2 * need;
        int rc = reserve_body(put, cap < most ? cap : most);

        if (rc)
            return rc;
    }
    assert(put->body && need <= put->cap);
    memcpy(put->body + put->received, data, len);
    return 0;
}

int store_put_write(struct store_put *put, const void *data, size_t len)
{
    int rc;

    assert(!put->busy && !put->finished);
    if (len == 0)
        return 0;
    if (len > put->length - put->received)
        return ERR_MISMATCH;
    uint64_t max = put->store->max_body_bytes;
    if (max && len > max - put->received)
        return ERR_TOO_BIG;
    rc = journal_claim(put->store->journal, len, put->received == 0);
    if (rc == ERR_NO_SPACE && store_give_way(put->store))
        rc = journal_claim(put->store->journal, len, put->received == 0);
    if (rc)
        return rc;
    bool large = put->length == UINT64_MAX ? put->received + len > LIMIT_INLINE_BODY_BYTES
                                           : put->length > LIMIT_INLINE_BODY_BYTES;
    if (large && !put->large) {
        rc = become_large(put);
        if (rc)
            return rc;
    }
    rc = put->large ? large_write(put->large, data, len) : write_small(put, data, len);
    if (rc == 0)
        put->received += len;
    return rc;
}

/* ---- After the last byte ---- */

static void finish(struct store_put *put, int rc)
{
    const struct store_result result = {
        .rc = rc,
        .created = rc == 0 && put->change.stored,
        .first = rc == 0 && put->change.first,
        .object = put->change.object,
    };

    assert(put->busy);
    put->busy = false;
    if (put->gated)
        cluster_write_end(put->store->cluster);
    put->gated = false;
    /* From here on the door may free PUT. */
    put->done(put->arg, &result);
}

/* Look at the copy that is stored: good, bad, or gone (moved meanwhile: neither is set). */
static int check_copy(struct store_put *put)
{
    struct store *store = put->store;
    struct request *request = &put->change.request;
    const struct object *row = put->change.object;
    uint8_t *buf = NULL;
    int rc;

    request->checked = row->place;
    request->verified = request->damaged = false;
    if (row->place.volume == PLACE_LARGE) {
        struct large_reader *reader = NULL;
        size_t len;

        buf = malloc(BLOCK_BYTES);
        if (!buf)
            return ERR_NO_MEMORY;
        rc = large_reader_open(&reader, store->large, row->place.offset, row->size);
        for (uint64_t i = 0; rc == 0 && i < block_count(row->size); i++)
            rc = large_read_block(reader, i, buf, &len, false);
        large_reader_close(&reader);
        if (rc == ERR_NOT_FOUND)
            rc = ERR_CORRUPT; /* a file does not move: it is lost */
    } else {
        struct record_view view;
        size_t cap = row->record_bytes ? row->record_bytes : RECORD_MAX_BYTES;

        buf = malloc(cap);
        if (!buf)
            return ERR_NO_MEMORY;
        rc = log_read(store->log, &row->place, &row->id, row->record_bytes, buf, cap, false, &view);
        if (rc == ERR_TOO_BIG || (rc == 0 && (!view.body || view.header.body_bytes != row->size)))
            rc = ERR_CORRUPT;
    }
    free(buf);
    request->verified = rc == 0;
    request->damaged = rc == ERR_CORRUPT;
    if (rc == ERR_CORRUPT)
        journal_count_bad(store->journal, 1, 1, 0);
    return rc == ERR_CORRUPT || rc == ERR_NOT_FOUND ? 0 : rc;
}

static void run_check(struct job *job, void *context)
{
    struct store_put *put = container_of(job, struct store_put, job);

    (void)context;
    int rc = check_copy(put);
    object_destroy(&put->change.object);
    if (rc == 0)
        rc = journal_submit(put->store->journal, &put->change);
    if (rc)
        finish(put, rc);
}

static void committed(struct change *change)
{
    struct store_put *put = (struct store_put *)change;
    int rc = change->rc;

    if (rc == ERR_UNVERIFIED) {
        rc = ERR_FULL;
        if (put->checks++ < MAX_CHECKS) {
            put->job.run = run_check;
            rc = pool_submit(put->store->writers, &put->job);
        }
        if (rc == 0)
            return;
    }
    finish(put, rc);
}

static bool digests_match(struct store_put *put)
{
    uint8_t *sha = put->change.request.sha256;
    uint8_t md5[MD5_BYTES];

    if (put->large) {
        assert(put->hashed == put->received);
        digest_final(put->sha, sha);
        if (put->expect.has_md5)
            digest_final(put->md5, md5);
    } else {
        sha256(put->body, put->received, sha);
        if (put->expect.has_md5) {
            digest_reset(put->md5);
            digest_update(put->md5, put->body, put->received);
            digest_final(put->md5, md5);
        }
    }
    return (!put->expect.has_sha256 || memcmp(sha, put->expect.sha256, SHA256_BYTES) == 0) &&
           (!put->expect.has_md5 || memcmp(md5, put->expect.md5, MD5_BYTES) == 0);
}

static void run_finish_large(struct job *job, void *context)
{
    struct store_put *put = container_of(job, struct store_put, job);
    struct change *change = &put->change;
    uint64_t size = 0;

    (void)context;
    int rc = put->flush_rc ? put->flush_rc : hash_up_to(put, put->received);
    if (rc == 0 && !digests_match(put))
        rc = ERR_MISMATCH;
    if (rc == 0)
        rc = large_finish(put->large, &change->file, &size, &change->trailer);
    if (rc == 0) {
        assert(size == put->received);
        put->finished = true;
        rc = journal_submit(put->store->journal, change);
    }
    if (rc)
        finish(put, rc);
}

static void finish_large(struct store_put *put)
{
    run_finish_large(&put->job, NULL);
}

static int submit(struct store_put *put)
{
    struct change *change = &put->change;
    int rc = 0;

    if (put->length != UINT64_MAX && put->length != put->received)
        return ERR_MISMATCH;
    if (put->expect.has_md5 && !put->md5)
        rc = digest_create(&put->md5, DIGEST_MD5);
    if (rc)
        return rc;
    change->request.size = put->received;
    change->done = committed;
    if (put->large) {
        if (await_flush(put, finish_large))
            return 0;
        put->job.run = run_finish_large;
        return pool_submit(put->store->writers, &put->job);
    }
    if (!digests_match(put))
        return ERR_MISMATCH;
    change->body = put->received ? put->body : put->small;
    for (uint64_t i = 0; i < block_count(put->received); i++) {
        size_t at = i * BLOCK_BYTES;
        size_t len = put->received - at < BLOCK_BYTES ? put->received - at : BLOCK_BYTES;

        change->sums[i] = block_checksum(put->body + at, len, i);
    }
    return journal_submit(put->store->journal, change);
}

void store_put_finish(struct store_put *put,
                      void (*done)(void *arg, const struct store_result *result), void *arg)
{
    assert(!put->busy && done);
    put->done = done;
    put->arg = arg;
    put->busy = true;
    int rc = put->store->cluster ? cluster_write_begin(put->store->cluster) : 0;
    put->gated = rc == 0 && put->store->cluster;
    if (rc == 0)
        rc = submit(put);
    if (rc)
        finish(put, rc);
}

static void run_discard(struct job *job, void *context)
{
    struct store_put *put = container_of(job, struct store_put, job);

    (void)context;
    large_writer_destroy(&put->large, true);
    journal_freed(put->store->journal);
    recycle(put);
}

static void discard(struct store_put *put)
{
    run_discard(&put->job, NULL);
}

void store_put_destroy(struct store_put **put)
{
    struct store_put *it = *put;

    if (!it)
        return;
    *put = NULL;
    assert(!it->busy);
    if (it->large && it->change.stored) {
        large_writer_destroy(&it->large, false);
    } else if (it->large) {
        if (await_flush(it, discard))
            return;
        it->job.run = run_discard;
        if (pool_submit(it->store->writers, &it->job) == 0)
            return;
        large_writer_destroy(&it->large, true);
    }
    recycle(it);
}
