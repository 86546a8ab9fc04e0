/*
 * An upload goes from phase to phase; each phase asks the journal or the cloud one thing:
 *
 *   phase      asks     then
 *   START      journal  HEAD where the cloud may have something under the key, else PUT
 *   HEAD       cloud    body: PUT, or NOTE where these very bytes are there
 *                       doubt: NOTE (uploaded, or not there), REMOVE
 *   SIDECAR    cloud    PUT
 *   PUT        cloud    NOTE; REMOVE where it was purged meanwhile
 *   REMOVE     cloud    REMOVE_SIDECAR ─► NOTE
 *   NOTE       journal  over
 *
 * HEAD comes first wherever a cloud event of the object is known already: another node has begun
 * to upload it, or this one has, and did not hear how that ended.
 *
 * A small body is read whole, verified, just before it is sent. Of a large one the blocks are
 * verified as they are sent; its file stays open, so that it may be deleted or moved meanwhile.
 *
 * Failure: a block of ours that does not verify ends it, is reported, and is never sent; the rest
 * is tried again. What the cloud has of a PUT whose answer was lost is found out by the next try.
 */
#include "cluster/upload.h"

#include "base/container.h"
#include "cluster/cloud_meta.h"
#include "journal/merge.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LOOKUPS 8

enum phase { START, HEAD, SIDECAR, PUT, REMOVE, REMOVE_SIDECAR, NOTE, OVER };
enum wait { NOTHING, JOURNAL, CLOUD };

struct upload {
    struct change change; /* first: the committer hands it back */
    struct cloud_request request;
    const struct upload_host *host;
    enum outbox_kind kind;
    enum phase phase;
    enum wait waits;
    struct object *object;
    bool started, cancelled, sidecar_sent;
    int answer; /* of what it waited for */
    uint32_t retry_ms;

    struct cloud_key key, sidecar;
    char bucket[LIMIT_EVENT_BUCKET_BYTES + 1]; /* "": the configured one */
    struct cloud_meta *meta;                   /* of a body, while it is asked for */
    struct reg named_at, described_at;         /* whose sidecar is there: the row's */

    /* Of a HEAD: */
    bool found, found_sha;
    uint64_t found_size;
    uint8_t found_sha256[SHA256_BYTES];

    /* What is noted: */
    enum cloud_state state;
    struct reg removes;
    char etag[sizeof((struct cloud_request *)0)->etag];
    uint8_t sha256[SHA256_BYTES];

    /* The body: */
    uint8_t *body;        /* a small one */
    pthread_mutex_t lock; /* guards the next four */
    struct large_reader *large;
    uint64_t block_at; /* index of the block in `block`; UINT64_MAX: none */
    size_t block_len;
    uint8_t *block;
    _Atomic int read_rc; /* why our own bytes could not be read; 0: they could */
    _Atomic uint64_t moved_ms;

    enum owed_outcome outcome;
    int rc;
    bool sent;
    uint64_t bytes;
    char message[CLOUD_MESSAGE_BYTES];
};

static struct upload *of_request(struct cloud_request *request)
{
    return container_of(request, struct upload, request);
}

const struct id128 *upload_id(const struct upload *upload)
{
    return &upload->object->id;
}

bool upload_is_large(const struct upload *upload)
{
    return upload->kind == OUTBOX_UPLOAD && upload->object->size > OWED_LARGE_BYTES;
}

static struct cloud_text key_text(const struct cloud_key *key)
{
    return (struct cloud_text){key->text, key->len};
}

static struct text text(const char *text)
{
    return (struct text){text, (uint32_t)strlen(text)};
}

static enum phase end(struct upload *u, enum owed_outcome outcome, int rc)
{
    u->outcome = outcome;
    u->rc = rc;
    return OVER;
}

/* ---- The body ---- */

static void moved(struct upload *u)
{
    uint64_t now_ms = env_mono_ms(u->host->env), before_ms = atomic_load(&u->moved_ms);

    if (before_ms && now_ms - before_ms < UPLOAD_PROGRESS_MS)
        return;
    if (atomic_compare_exchange_strong(&u->moved_ms, &before_ms, now_ms))
        u->host->moved(u->host->arg, &u->object->id);
}

/* Block INDEX into u->block, under the lock. */
static int load_block(struct upload *u, uint64_t index)
{
    if (u->block_at == index)
        return 0;
    u->block_at = UINT64_MAX;
    int rc = large_read_block(u->large, index, u->block, &u->block_len, false);

    if (rc == 0)
        u->block_at = index;
    return rc;
}

static int read_large(struct upload *u, uint64_t offset, uint8_t *buf, size_t len)
{
    int rc = 0;

    (void)pthread_mutex_lock(&u->lock);
    while (rc == 0 && len > 0) {
        rc = load_block(u, offset / BLOCK_BYTES);
        if (rc)
            break;
        size_t within = offset % BLOCK_BYTES;
        assert(within < u->block_len);
        size_t part = u->block_len - within < len ? u->block_len - within : len;
        memcpy(buf, u->block + within, part);
        buf += part;
        offset += part;
        len -= part;
    }
    (void)pthread_mutex_unlock(&u->lock);
    return rc;
}

/* The backend wants bytes: on a thread of its own. */
static int read_body(struct cloud_request *request, uint64_t offset, void *buf, size_t len)
{
    struct upload *u = of_request(request);
    int rc = 0;

    assert(offset <= request->size && len <= request->size - offset);
    if (u->large)
        rc = read_large(u, offset, buf, len);
    else if (len)
        memcpy(buf, u->body + offset, len);
    if (rc == 0)
        moved(u);
    else
        atomic_store(&u->read_rc, rc);
    return rc;
}

static void close_body(struct upload *u)
{
    large_reader_close(&u->large);
    free(u->block);
    free(u->body);
    u->block = u->body = NULL;
}

static int open_small(struct upload *u)
{
    const struct object *object = u->object;
    size_t cap = object->record_bytes ? object->record_bytes : RECORD_MAX_BYTES;
    uint8_t *record = malloc(cap);
    struct record_view view;

    if (!record)
        return ERR_NO_MEMORY;
    int rc = log_read(journal_log(u->host->journal), &object->place, &object->id,
                      object->record_bytes, record, cap, false, &view);
    if (rc == 0 && (!view.body || view.header.body_bytes != object->size))
        rc = ERR_CORRUPT;
    if (rc == 0 && !(u->body = malloc(object->size + 1)))
        rc = ERR_NO_MEMORY;
    if (rc == 0)
        memcpy(u->body, view.body, object->size);
    free(record);
    return rc;
}

static int open_large(struct upload *u)
{
    int rc = large_reader_open(&u->large, journal_large(u->host->journal), u->object->place.offset,
                               u->object->size);

    if (rc == 0 && !(u->block = malloc(BLOCK_BYTES)))
        rc = ERR_NO_MEMORY;
    u->block_at = UINT64_MAX;
    return rc;
}

/* The row as it is now. */
static int look_again(struct upload *u)
{
    struct object *object = NULL;
    int rc = journal_find(u->host->journal, u->host->reader, &u->object->id, &object);

    if (rc)
        return rc;
    object_destroy(&u->object);
    u->object = object;
    return 0;
}

/* ERR_DELETED: nothing is to be uploaded any more. */
static int open_body(struct upload *u)
{
    int rc = ERR_NOT_FOUND;

    /* A record that was moved since is found at its new place. */
    for (unsigned i = 0; i < MAX_LOOKUPS && rc == ERR_NOT_FOUND; i++) {
        close_body(u);
        rc = look_again(u);
        if (rc)
            break;
        if (!object_owed_here(u->object))
            return ERR_DELETED;
        if (memcmp(u->object->sha256, u->sha256, SHA256_BYTES) != 0)
            return ERR_CONFLICT;
        rc = u->object->place.volume == PLACE_LARGE ? open_large(u) : open_small(u);
    }
    atomic_store(&u->read_rc, rc);
    return rc;
}

/* ---- Asking the journal ---- */

static void on_committed(struct change *change)
{
    struct upload *u = container_of(change, struct upload, change);

    u->answer = change->rc;
    u->host->woken(u->host->arg, u);
}

static void say(struct upload *u, enum cloud_state state)
{
    struct request *request = &u->change.request;

    object_destroy(&u->change.object);
    u->change = (struct change){.done = on_committed};
    *request = (struct request){.kind = CHANGE_CLOUD,
                                .id = u->object->id,
                                .fields = EVENT_HAS_CLOUD,
                                .cloud_state = (uint8_t)state,
                                .backend = text(u->host->cloud->backend->name),
                                .bucket = text(*u->bucket ? u->bucket : u->host->cloud->bucket),
                                .key = {u->key.text, u->key.len}};
    if (state == CLOUD_STARTED || state == CLOUD_UPLOADED) {
        request->fields |= EVENT_HAS_SHA256;
        memcpy(request->sha256, u->sha256, SHA256_BYTES);
    }
    if (state == CLOUD_UPLOADED)
        request->etag = text(u->etag);
    if (state == CLOUD_PURGED)
        request->removed = u->removes;
    u->waits = JOURNAL;
    u->host->submit(u->host->arg, &u->change);
}

/* ---- Asking the cloud ---- */

static void on_done(struct cloud_request *request, int rc)
{
    struct upload *u = of_request(request);

    u->answer = rc;
    u->host->woken(u->host->arg, u);
}

static int on_head(struct cloud_request *request, const struct cloud_head *head)
{
    struct upload *u = of_request(request);

    struct cloud_facts facts;
    int rc = cloud_facts_read(&facts, head);

    u->found = true;
    u->found_size = head->size;
    if (rc == 0 && facts.fields & CLOUD_FACTS_SHA256) {
        u->found_sha = true;
        memcpy(u->found_sha256, facts.sha256, SHA256_BYTES);
    }
    cloud_facts_release(&facts);
    if (head->etag.len < sizeof u->etag) {
        memcpy(u->etag, head->etag.ptr, head->etag.len);
        u->etag[head->etag.len] = '\0';
    }
    return rc;
}

static void prepare_put(struct upload *u)
{
    struct cloud_request *r = &u->request;

    r->op = CLOUD_PUT;
    r->read = read_body;
    if (u->kind == OUTBOX_MARK) {
        sha256("", 0, r->sha256);
        return;
    }
    r->size = u->object->size;
    memcpy(r->sha256, u->object->sha256, SHA256_BYTES);
    r->type = u->meta->type;
    r->pairs = u->meta->pairs;
    r->pair_count = u->meta->pair_count;
    r->tags = u->meta->tags;
    r->tag_count = u->meta->tag_count;
}

static int read_sidecar(struct cloud_request *request, uint64_t offset, void *buf, size_t len)
{
    const struct upload *u = of_request(request);

    assert(offset <= request->size && len <= request->size - offset);
    if (len)
        memcpy(buf, u->meta->sidecar + offset, len);
    return 0;
}

static void prepare_sidecar(struct upload *u)
{
    struct cloud_request *r = &u->request;

    r->op = CLOUD_PUT;
    r->key = key_text(&u->sidecar);
    r->type = (struct cloud_text){"application/json", 16};
    r->size = u->meta->sidecar_len;
    sha256(u->meta->sidecar, u->meta->sidecar_len, r->sha256);
    r->read = read_sidecar;
}

static void prepare(struct upload *u)
{
    struct cloud_request *r = &u->request;

    *r = (struct cloud_request){.bucket = {u->bucket, (uint32_t)strlen(u->bucket)},
                                .key = key_text(&u->key),
                                .done = on_done};
    switch (u->phase) {
    case HEAD:
        u->found = u->found_sha = false;
        u->etag[0] = '\0';
        r->op = CLOUD_HEAD;
        r->head = on_head;
        break;
    case SIDECAR:
        prepare_sidecar(u);
        break;
    case PUT:
        prepare_put(u);
        break;
    case REMOVE_SIDECAR:
        r->key = key_text(&u->sidecar);
        r->op = CLOUD_DELETE;
        break;
    default:
        assert(u->phase == REMOVE);
        r->op = CLOUD_DELETE;
        break;
    }
}

static void release_meta(struct upload *u)
{
    if (u->meta)
        cloud_meta_release(u->meta);
    free(u->meta);
    u->meta = NULL;
}

/* What the cloud is told of the row. Where that needs a sidecar it comes first: whoever finds the
 * body finds it, too. */
static int describe(struct upload *u)
{
    const struct object *object = u->object;

    release_meta(u);
    u->meta = malloc(sizeof *u->meta);
    if (!u->meta)
        return ERR_NO_MEMORY;
    int rc = cloud_meta_write(u->meta, object);
    if (rc) {
        free(u->meta);
        u->meta = NULL;
        return rc;
    }
    bool sent = reg_compare(&u->named_at, &object->name_at) == 0 &&
                reg_compare(&u->described_at, &object->user_meta_at) == 0;

    if (u->meta->sidecar && !(u->phase == PUT && sent && u->sidecar_sent)) {
        u->phase = SIDECAR;
        u->sidecar_sent = true;
        u->named_at = object->name_at;
        u->described_at = object->user_meta_at;
    }
    return 0;
}

static enum phase lacks_body(struct upload *u, int rc)
{
    if (rc == ERR_DELETED || rc == ERR_NOT_FOUND)
        return end(u, OWED_GONE, 0);
    if (rc == ERR_CONFLICT)
        return end(u, OWED_AGAIN, 0);
    if (rc == ERR_CORRUPT)
        journal_found_damaged(u->host->journal, u->object);
    return end(u, OWED_FAILED, rc);
}

enum upload_asked upload_ask(struct upload *u)
{
    int rc = 0;

    assert(u->waits == NOTHING && u->phase != OVER);
    if (u->phase == PUT && u->kind == OUTBOX_UPLOAD) {
        rc = open_body(u);
        if (rc == 0)
            rc = describe(u);
        if (rc) {
            u->phase = lacks_body(u, rc);
            return UPLOAD_FAILED;
        }
    }
    prepare(u);
    u->waits = CLOUD;
    rc = cloud_start(u->host->cloud, &u->request);
    if (rc == 0)
        return UPLOAD_ASKED;
    u->waits = NOTHING;
    close_body(u);
    if (rc == ERR_CLOUD)
        return UPLOAD_REFUSED;
    u->phase = end(u, rc == ERR_FULL ? OWED_BUSY : OWED_FAILED, rc);
    return UPLOAD_FAILED;
}

/* ---- From phase to phase ---- */

static bool is_purged(const struct object *object)
{
    return (object->flags & (OBJECT_DELETED | OBJECT_PURGE)) == (OBJECT_DELETED | OBJECT_PURGE);
}

static enum phase remove_it(struct upload *u)
{
    u->removes = object_removes(u->object);
    u->state = CLOUD_PURGED;
    return REMOVE;
}

static enum phase note_it(struct upload *u, const uint8_t *sha256)
{
    memcpy(u->sha256, sha256, SHA256_BYTES);
    u->state = CLOUD_UPLOADED;
    return NOTE;
}

static enum phase after_head(struct upload *u, int rc)
{
    const struct object *object = u->object;
    bool same =
        u->found && u->found_sha && memcmp(u->found_sha256, object->sha256, SHA256_BYTES) == 0;

    if (rc && rc != ERR_NOT_FOUND)
        return end(u, OWED_FAILED, rc);
    if (u->kind == OUTBOX_UPLOAD)
        return same && u->found_size == object->size ? note_it(u, object->sha256) : PUT;
    if (look_again(u) != 0)
        return end(u, OWED_FAILED, ERR_IO);
    object = u->object;
    if (is_purged(object) && u->found)
        return remove_it(u);
    /* Also where the row names others: whoever was said to have uploaded those, or says it later,
     * may have done so before these came, and everybody has to look. */
    if (u->found && u->found_sha)
        return note_it(u, u->found_sha256);
    /* It has nothing of ours, as far as was known of uploads before it was asked. */
    u->state = CLOUD_PURGED;
    return NOTE;
}

static enum phase after_put(struct upload *u, int rc)
{
    if (rc && atomic_load(&u->read_rc) == ERR_CORRUPT) {
        /* The copy here is not what it should be: it is replaced by another node's. */
        journal_found_damaged(u->host->journal, u->object);
        return end(u, OWED_FAILED, ERR_CORRUPT);
    }
    if (rc)
        return end(u, OWED_FAILED, rc);
    if (u->kind == OUTBOX_MARK) {
        u->state = CLOUD_MARKED;
        return NOTE;
    }
    u->sent = true;
    u->bytes = u->request.size;
    (void)snprintf(u->etag, sizeof u->etag, "%s", u->request.etag);
    u->state = CLOUD_UPLOADED; /* of the bytes that were sent, whatever the row names by now */
    rc = look_again(u);
    if (rc == 0 && is_purged(u->object))
        return remove_it(u);
    return NOTE;
}

static enum phase after_start(struct upload *u, int rc)
{
    if (rc == ERR_DELETED || rc == ERR_NOT_FOUND)
        return end(u, OWED_GONE, 0);
    if (rc == ERR_CONFLICT)
        return end(u, OWED_AGAIN, 0);
    if (rc)
        return end(u, rc == ERR_FULL ? OWED_BUSY : OWED_FAILED, rc);
    if (u->change.verdict == VERDICT_UNCHANGED)
        return end(u, OWED_GONE, 0);              /* it is there by now */
    bool known = u->object->flags & OBJECT_CLOUD; /* before */

    u->started = true;
    return known ? HEAD : PUT;
}

static enum phase next_phase(struct upload *u, int rc)
{
    switch (u->phase) {
    case START:
        return after_start(u, rc);
    case HEAD:
        return after_head(u, rc);
    case PUT:
        return after_put(u, rc);
    case REMOVE:
        return rc ? end(u, OWED_FAILED, rc) : REMOVE_SIDECAR;
    case REMOVE_SIDECAR:
        return rc ? end(u, OWED_FAILED, rc) : NOTE;
    case NOTE:
        if (rc == ERR_CONFLICT || rc == ERR_NOT_FOUND)
            return end(u, OWED_GONE, 0);
        return end(u, rc == 0 ? OWED_DONE : rc == ERR_FULL ? OWED_BUSY : OWED_FAILED, rc);
    case SIDECAR:
        return rc ? end(u, OWED_FAILED, rc) : PUT;
    case OVER:
        break;
    }
    abort();
}

static void take_answer(struct upload *u)
{
    if (u->waits == CLOUD) {
        u->retry_ms = u->request.retry_after_ms;
        if (u->answer)
            (void)snprintf(u->message, sizeof u->message, "%s", u->request.message);
    }
    u->waits = NOTHING;
    u->phase = next_phase(u, u->answer);
    if (u->phase != PUT) {
        close_body(u);
        release_meta(u);
    }
}

enum upload_need upload_step(struct upload *u)
{
    if (u->waits != NOTHING)
        take_answer(u);
    if (u->cancelled && u->phase != OVER && u->phase != NOTE)
        u->phase = end(u, OWED_FAILED, ERR_CLOSED);
    switch (u->phase) {
    case START:
        say(u, CLOUD_STARTED);
        return UPLOAD_WAITS;
    case NOTE:
        say(u, u->state);
        return UPLOAD_WAITS;
    case OVER:
        return UPLOAD_OVER;
    default:
        return UPLOAD_ASKS;
    }
}

void upload_cancel(struct upload *u)
{
    u->cancelled = true;
    if (u->waits == CLOUD)
        cloud_cancel(u->host->cloud, &u->request);
}

/* ---- Its life ---- */

/* Where the copy lies that is to be removed: as the row names it, else where this cluster would
 * have put it, for whoever began to and was not heard of since. */
static int find_place(struct upload *u)
{
    struct cloud_place place;

    if (!object_cloud(u->object, &place))
        return 0;
    if (place.backend.len != strlen(u->host->cloud->backend->name) ||
        memcmp(place.backend.ptr, u->host->cloud->backend->name, place.backend.len) != 0)
        return ERR_UNSUPPORTED; /* it lies in a cloud of another kind */
    assert(place.key.len < sizeof u->key.text);
    memcpy(u->key.text, place.key.ptr, place.key.len);
    u->key.text[place.key.len] = '\0';
    u->key.len = place.key.len;
    assert(place.bucket.len < sizeof u->bucket);
    memcpy(u->bucket, place.bucket.ptr, place.bucket.len);
    u->bucket[place.bucket.len] = '\0';
    return 0;
}

static int make_keys(struct upload *u)
{
    const struct id128 *id = &u->object->id;
    int rc = 0;

    if (u->kind == OUTBOX_MARK)
        cloud_key_deleted(&u->key, u->host->prefix, id);
    else
        cloud_key_object(&u->key, u->host->prefix, id);
    if (u->kind == OUTBOX_PURGE || u->kind == OUTBOX_BEGUN)
        rc = find_place(u);
    if (rc)
        return rc;
    return cloud_key_sidecar(&u->sidecar, (struct text){u->key.text, u->key.len});
}

int upload_create(struct upload **out, const struct upload_host *host, enum outbox_kind kind,
                  const struct object *object, bool started)
{
    static const enum phase first[] = {[OUTBOX_UPLOAD] = START,
                                       [OUTBOX_MARK] = PUT,
                                       [OUTBOX_PURGE] = REMOVE,
                                       [OUTBOX_BEGUN] = HEAD};
    struct upload *u = calloc(1, sizeof *u);
    int rc = ERR_NO_MEMORY;

    *out = NULL;
    if (!u)
        return rc;
    (void)pthread_mutex_init(&u->lock, NULL);
    u->host = host;
    u->kind = kind;
    u->phase = first[kind];
    if (kind == OUTBOX_UPLOAD && started)
        u->phase = HEAD;
    u->started = started;
    u->block_at = UINT64_MAX;
    u->object = object_copy(object);
    if (!u->object)
        goto out;
    memcpy(u->sha256, object->sha256, SHA256_BYTES);
    u->removes = object_removes(object);
    if (kind == OUTBOX_PURGE)
        (void)remove_it(u);
    rc = make_keys(u);
out:
    if (rc)
        upload_destroy(&u);
    *out = u;
    return rc;
}

void upload_destroy(struct upload **upload)
{
    struct upload *u = *upload;

    if (!u)
        return;
    *upload = NULL;
    assert(u->waits == NOTHING);
    close_body(u);
    release_meta(u);
    object_destroy(&u->change.object);
    object_destroy(&u->object);
    (void)pthread_mutex_destroy(&u->lock);
    free(u);
}

void upload_result(const struct upload *u, struct upload_result *out)
{
    assert(u->phase == OVER);
    *out = (struct upload_result){.kind = u->kind,
                                  .id = u->object->id,
                                  .outcome = u->outcome,
                                  .rc = u->rc,
                                  .started = u->started,
                                  .sent = u->sent,
                                  .bytes = u->bytes,
                                  .retry_ms = u->retry_ms,
                                  .message = u->message};
}
