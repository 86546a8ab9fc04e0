/*
 * A table of the ids that are being looked for, each once.
 *
 *   look (cluster/cloud_look.h)
 *     ├─ it says which bytes it has ─► CHANGE_ADOPT: a row without a body here,
 *     │    which is then read as any other is
 *     └─ it does not (the ancestor's) ─► the member that reads it for all (cluster_seek_start)
 *          ├─ that is another one, which tells it, and sync has brought its row
 *          └─ it is this node, or that one does not ─► GET ─► pool: hashed, stored
 *               ─► CHANGE_PUT, from the cloud
 *
 * What is journaled bears the stamp that the cloud's object names, so it never beats newer facts,
 * and says in the same batch where the cloud has it. Should a tombstone or other bytes have become
 * known meanwhile, the journal refuses, and that is the answer.
 *
 * Bytes of a body without a SHA-256 come on the cloud's thread, are written by a pool thread, one
 * at a time for each body, and told as taken once they are written: at most a window waits in
 * memory.
 *
 * Failure: whatever fails, nothing is journaled, and who asks next begins anew.
 */
#include "api/adoption.h"

#include "base/container.h"
#include "base/log.h"
#include "cluster/cloud_look.h"
#include "journal/ulid.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct piece {
    struct piece *next;
    size_t len;
    uint8_t bytes[];
};

struct adoption {
    struct cloud_look look;
    struct adoptions *table;
    struct adoption *next; /* in the table, guarded by its lock, as is … */
    struct adoption_waiter *waiters;
    unsigned references; /* … of each waiter, and of what is under way */
    struct id128 id;
    bool delegated;
    int rc;
    uint8_t sha256[SHA256_BYTES];
    struct store_change *change;
    struct cluster_reader reader; /* of what another member finds */
    /* A body whose SHA-256 nobody told. */
    struct cloud_request request;
    struct store_job job;
    struct store_put *put; /* the pool's */
    pthread_mutex_t lock;  /* guards what follows */
    struct piece *first, **last;
    bool working; /* a pool thread has it, or will soon */
    bool fetched; /* the request is over */
    int failure;
};

struct adoptions {
    struct store *store;
    struct cloud *cloud;
    pthread_mutex_t lock;
    struct adoption *list;
    unsigned count;
};

int adoptions_create(struct adoptions **out, struct store *store)
{
    struct adoptions *adoptions = calloc(1, sizeof *adoptions);

    *out = adoptions;
    if (!adoptions)
        return ERR_NO_MEMORY;
    adoptions->store = store;
    adoptions->cloud = cluster_cloud(store_cluster(store));
    assert(adoptions->cloud);
    (void)pthread_mutex_init(&adoptions->lock, NULL);
    return 0;
}

void adoptions_destroy(struct adoptions **adoptions)
{
    struct adoptions *it = *adoptions;

    if (!it)
        return;
    assert(!it->list && it->count == 0);
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
    *adoptions = NULL;
}

/* ---- References ---- */

void adoption_release(struct adoption **adoption_ptr)
{
    struct adoption *adoption = *adoption_ptr;

    *adoption_ptr = NULL;
    if (!adoption)
        return;
    struct adoptions *table = adoption->table;
    (void)pthread_mutex_lock(&table->lock);
    bool last = --adoption->references == 0;
    (void)pthread_mutex_unlock(&table->lock);
    if (!last)
        return;
    assert(!adoption->first);
    store_change_destroy(&adoption->change);
    store_put_destroy(&adoption->put);
    cloud_look_release(&adoption->look);
    (void)pthread_mutex_destroy(&adoption->lock);
    free(adoption);
    (void)pthread_mutex_lock(&table->lock);
    table->count--;
    (void)pthread_mutex_unlock(&table->lock);
}

/* It is over: whoever asks from now on begins anew. */
static void conclude(struct adoption *adoption, int rc)
{
    struct adoptions *table = adoption->table;
    struct adoption **link = &table->list;

    (void)pthread_mutex_lock(&table->lock);
    adoption->rc = rc;
    while (*link != adoption)
        link = &(*link)->next;
    *link = adoption->next;
    struct adoption_waiter *waiters = adoption->waiters;
    adoption->waiters = NULL;
    (void)pthread_mutex_unlock(&table->lock);
    for (struct adoption_waiter *next; waiters; waiters = next) {
        next = waiters->next; /* WAITERS may be gone once it is woken */
        waiters->wake(waiters);
    }
    adoption_release(&adoption);
}

/* What the cloud's RC means to whoever asked. */
static int verdict(const struct adoption *adoption, int rc, const char *message)
{
    char id[ULID_TEXT_BYTES + 1];

    switch (rc) {
    case 0:
    case ERR_NOT_FOUND:
    case ERR_DELETED:
    case ERR_NO_MEMORY:
    case ERR_FULL:
    case ERR_CLOUD: /* the gate has said so */
        return rc;
    case ERR_CORRUPT:
    case ERR_MISMATCH:
    case ERR_TOO_BIG:
        rc = ERR_CORRUPT;
        break;
    default:
        rc = ERR_CLOUD;
    }
    ulid_format(id, &adoption->id);
    log_warn("object %s: it cannot be looked for in the cloud: %s", id,
             *message ? message : err_text(rc));
    return rc;
}

/* ---- Journaling ---- */

static uint32_t facts_fields(const struct cloud_facts *facts)
{
    uint32_t fields = EVENT_HAS_LEVEL | EVENT_HAS_CLOUD;

    fields |= facts->fields & CLOUD_FACTS_NAME ? EVENT_HAS_NAME : 0;
    fields |= facts->type.len ? EVENT_HAS_TYPE : 0;
    fields |= facts->user_meta.len ? EVENT_HAS_USER_META : 0;
    fields |= facts->expires_ms ? EVENT_HAS_EXPIRES : 0;
    return fields;
}

/* Where it is, and since when; the texts are ADOPTION's. */
static void say_where(struct request *request, const struct adoption *adoption)
{
    const struct cloud *cloud = adoption->table->cloud;
    const struct cloud_look *look = &adoption->look;

    request->stamp = look->facts.stamp;
    request->expires_ms = look->facts.expires_ms;
    request->backend = (struct text){cloud->backend->name, (uint32_t)strlen(cloud->backend->name)};
    request->bucket = (struct text){cloud->bucket, (uint32_t)strlen(cloud->bucket)};
    request->key = (struct text){look->key.text, look->key.len};
    request->etag = (struct text){look->etag, (uint32_t)strlen(look->etag)};
}

/* The journal's word on either way. */
static void on_journaled(void *arg, const struct store_result *result)
{
    struct adoption *adoption = arg;

    assert(result->rc || result->object);
    if (result->rc == 0)
        memcpy(adoption->sha256, result->object->sha256, SHA256_BYTES);
    conclude(adoption, result->rc);
}

static void adopt(struct adoption *adoption)
{
    const struct cloud_facts *facts = &adoption->look.facts;
    struct request request = {.kind = CHANGE_ADOPT,
                              .id = adoption->id,
                              .fields = facts_fields(facts) | EVENT_HAS_SHA256 | EVENT_HAS_SIZE,
                              .size = adoption->look.size,
                              .level = facts->level,
                              .name = facts->name,
                              .type = facts->type,
                              .user_meta = facts->user_meta};

    memcpy(request.sha256, facts->sha256, SHA256_BYTES);
    say_where(&request, adoption);
    int rc = store_change_submit(&adoption->change, adoption->table->store, &request, on_journaled,
                                 adoption);
    if (rc)
        conclude(adoption, rc);
}

/* ---- A body whose SHA-256 nobody told ---- */

static void submit_job(struct adoption *adoption)
{
    int rc = store_submit_admitted(adoption->table->store, &adoption->job);

    assert(rc == 0); /* as a request that sends its answer: there is a place for each of us */
    (void)rc;
}

/* Something came for the pool. Under the lock; true: submit_job after it. */
static bool wake(struct adoption *adoption)
{
    bool sleeps = !adoption->working;

    adoption->working = true;
    return sleeps;
}

static int on_body_head(struct cloud_request *request, const struct cloud_head *head)
{
    const struct adoption *adoption = container_of(request, struct adoption, request);

    return head->size == adoption->look.size ? 0 : ERR_MISMATCH;
}

static void on_body_data(struct cloud_request *request, const void *bytes, size_t len)
{
    struct adoption *adoption = container_of(request, struct adoption, request);
    struct piece *piece = malloc(sizeof *piece + len);

    if (piece) {
        piece->next = NULL;
        piece->len = len;
        memcpy(piece->bytes, bytes, len);
    }
    (void)pthread_mutex_lock(&adoption->lock);
    if (piece) {
        *adoption->last = piece;
        adoption->last = &piece->next;
    } else if (!adoption->failure) {
        adoption->failure = ERR_NO_MEMORY;
    }
    bool sleeps = wake(adoption);
    (void)pthread_mutex_unlock(&adoption->lock);
    if (sleeps)
        submit_job(adoption);
}

static void on_body_done(struct cloud_request *request, int rc)
{
    struct adoption *adoption = container_of(request, struct adoption, request);

    if (rc == ERR_PRECONDITION) /* replaced since it was looked at */
        rc = ERR_AGAIN;
    (void)pthread_mutex_lock(&adoption->lock);
    adoption->fetched = true;
    if (!adoption->failure)
        adoption->failure = verdict(adoption, rc, request->message);
    bool sleeps = wake(adoption);
    (void)pthread_mutex_unlock(&adoption->lock);
    if (sleeps)
        submit_job(adoption);
}

/* Write PIECES and free them; nothing more after a FAILURE. */
static int write_pieces(struct adoption *adoption, struct piece *pieces, int failure)
{
    uint64_t taken = 0;
    int rc = failure;

    while (pieces) {
        struct piece *piece = pieces;

        pieces = piece->next;
        if (rc == 0)
            rc = store_put_write(adoption->put, piece->bytes, piece->len);
        taken += piece->len;
        free(piece);
    }
    (void)pthread_mutex_lock(&adoption->lock);
    if (rc && !adoption->failure)
        adoption->failure = rc;
    if (!adoption->fetched) {
        if (rc)
            cloud_cancel(adoption->table->cloud, &adoption->request);
        else
            cloud_consumed(adoption->table->cloud, &adoption->request, taken);
    }
    (void)pthread_mutex_unlock(&adoption->lock);
    return rc;
}

static void on_written(void *arg)
{
    submit_job(arg);
}

static void run_write(struct store_job *job, struct db_reader *reader)
{
    struct adoption *adoption = container_of(job, struct adoption, job);

    (void)reader;
    for (;;) {
        (void)pthread_mutex_lock(&adoption->lock);
        struct piece *pieces = adoption->first;
        bool fetched = adoption->fetched;
        int failure = adoption->failure;

        adoption->first = NULL;
        adoption->last = &adoption->first;
        adoption->working = pieces || fetched;
        (void)pthread_mutex_unlock(&adoption->lock);
        if (!pieces) {
            if (fetched && failure)
                conclude(adoption, failure);
            else if (fetched)
                store_put_finish(adoption->put, on_journaled, adoption);
            return;
        }
        failure = write_pieces(adoption, pieces, failure);
        /* What the disk could not take, the finish says. */
        if (!failure && store_put_due(adoption->put) &&
            store_put_write_back(adoption->put) == ERR_AGAIN &&
            store_put_wait_written(adoption->put, on_written, adoption))
            return; /* it comes back here */
    }
}

/* By now: whoever asks for ADOPTION looked before another one ended, or its news came since. */
static bool is_known(struct adoption *adoption, struct db_reader *reader)
{
    struct object *row = NULL;
    int rc = journal_find(store_journal(adoption->table->store), reader, &adoption->id, &row);

    if (rc == 0)
        memcpy(adoption->sha256, row->sha256, SHA256_BYTES);
    object_destroy(&row);
    return rc == 0;
}

static void run_begin(struct store_job *job, struct db_reader *reader)
{
    struct adoption *adoption = container_of(job, struct adoption, job);
    const struct cloud_look *look = &adoption->look;
    struct request from = {.kind = CHANGE_PUT};
    const struct store_put_options options = {.has_id = true,
                                              .id = adoption->id,
                                              .fields = facts_fields(&look->facts),
                                              .name = look->facts.name,
                                              .type = look->facts.type,
                                              .user_meta = look->facts.user_meta,
                                              .level = look->facts.level,
                                              .length = look->size,
                                              .from_cloud = &from};

    if (is_known(adoption, reader)) {
        conclude(adoption, 0);
        return;
    }
    say_where(&from, adoption);
    int rc = store_put_begin(&adoption->put, adoption->table->store, &options);
    if (rc == 0) {
        adoption->job.run = run_write;
        adoption->request =
            (struct cloud_request){.op = CLOUD_GET,
                                   .key = {look->key.text, look->key.len},
                                   .if_match = {look->etag, (uint32_t)strlen(look->etag)},
                                   .head = on_body_head,
                                   .data = on_body_data,
                                   .done = on_body_done};
        rc = cloud_start(adoption->table->cloud, &adoption->request);
        rc = rc ? verdict(adoption, rc, "") : 0;
    }
    if (rc)
        conclude(adoption, rc);
}

static void read_body(struct adoption *adoption)
{
    adoption->job.run = run_begin;
    submit_job(adoption);
}

static void on_found_data(struct cluster_reader *reader, uint64_t offset, const void *bytes,
                          size_t len)
{
    struct adoption *adoption = container_of(reader, struct adoption, reader);

    assert(offset <= SHA256_BYTES && len <= SHA256_BYTES - offset);
    memcpy(adoption->sha256 + offset, bytes, len);
}

static void on_found(struct cluster_reader *reader, int rc)
{
    struct adoption *adoption = container_of(reader, struct adoption, reader);

    if (rc)
        read_body(adoption);
    else
        conclude(adoption, 0);
}

/* The member that reads it for all is to tell which bytes they are. */
static void seek(struct adoption *adoption)
{
    int rc = ERR_UNSUPPORTED;

    adoption->reader.data = on_found_data;
    adoption->reader.done = on_found;
    if (!adoption->delegated)
        rc = cluster_seek_start(store_cluster(adoption->table->store), &adoption->id,
                                &adoption->reader);
    if (rc)
        read_body(adoption);
}

/* ---- Looking ---- */

static void on_looked(struct cloud_look *look, int rc)
{
    struct adoption *adoption = container_of(look, struct adoption, look);
    const char *message = look->request.message;

    rc = verdict(adoption, rc, *message ? message : look->mark_request.message);
    if (rc) {
        conclude(adoption, rc);
    } else if (look->facts.fields & CLOUD_FACTS_SHA256) {
        adopt(adoption);
    } else {
        seek(adoption);
    }
}

static struct adoption *create(struct adoptions *table, const struct id128 *id, bool delegated)
{
    struct adoption *adoption = calloc(1, sizeof *adoption);
    const char *prefix = cluster_cloud_prefix(store_cluster(table->store));

    if (!adoption)
        return NULL;
    adoption->table = table;
    adoption->id = *id;
    adoption->delegated = delegated;
    adoption->references = 1;
    adoption->last = &adoption->first;
    (void)pthread_mutex_init(&adoption->lock, NULL);
    adoption->look.cloud = table->cloud;
    adoption->look.done = on_looked;
    cloud_key_object(&adoption->look.key, prefix, id);
    cloud_key_deleted(&adoption->look.mark, prefix, id);
    adoption->next = table->list;
    table->list = adoption;
    table->count++;
    return adoption;
}

int adoption_ask(struct adoption **out, struct adoptions *table, const struct id128 *id,
                 bool delegated, struct adoption_waiter *waiter)
{
    struct adoption *fresh = NULL;
    int rc = 0;

    (void)pthread_mutex_lock(&table->lock);
    struct adoption *adoption = table->list;
    while (adoption && !id_equal(&adoption->id, id))
        adoption = adoption->next;
    if (!adoption && table->count >= LIMIT_ADOPTIONS)
        rc = ERR_FULL;
    else if (!adoption && !(adoption = fresh = create(table, id, delegated)))
        rc = ERR_NO_MEMORY;
    *out = adoption;
    if (rc == 0) {
        adoption->references++;
        waiter->next = adoption->waiters;
        adoption->waiters = waiter;
    }
    (void)pthread_mutex_unlock(&table->lock);
    if (fresh)
        cloud_look_start(&fresh->look);
    return rc;
}

int adoption_result(const struct adoption *adoption)
{
    return adoption->rc;
}

const uint8_t *adoption_sha256(const struct adoption *adoption)
{
    assert(adoption->rc == 0);
    return adoption->sha256;
}
