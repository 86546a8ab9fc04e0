/*
 * PUT of a large body: a multipart upload.
 *
 *   create ─► parts, S3_PARTS_AT_ONCE at once ─► complete ─► done
 *                │ any failure, a cancel            │ outcome unknown
 *                └──────────► abort                 └──► HEAD: is it there?
 *
 * Every part is read twice. First in order, by one task at a time, which hashes the part (its hash
 * is signed) and goes on with the hash of the whole body; then again while it is sent. So the parts
 * need not lie in memory, S3 refuses a part whose second reading differs from the first, and a body
 * that has not the SHA-256 it should have is never completed. The second reading comes from the
 * page cache.
 *
 * What S3 knows of the upload is a struct s3_farewell, which outlives the request: so `done` need
 * not wait for an abort by a cloud that may be away. What could not be aborted (a crash, an outage)
 * is for the bucket's lifecycle rule (docs/OPERATIONS.md).
 *
 * Where the answer to `complete` is lost, a HEAD tells: the same size, an ETag of as many parts,
 * and every pair of metadata as it was given mean that it was done, by this upload or one of the
 * same.
 */
#include "storage/cloud_s3_internal.h"

#include "base/container.h"
#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ETAG_BYTES 128
#define HASH_BYTES (256 * KIB) /* read at once */
#define XML_BYTES  (4 * MIB)   /* to complete: 10,000 parts */

struct slot {
    struct s3_call call;
    struct s3_feed feed;
    unsigned number; /* from 1; 0: free */
    char number_text[8];
};

/* One part's hash, taken before it is sent. */
struct hashed {
    unsigned number;
    uint8_t sha256[SHA256_BYTES];
};

struct upload {
    struct s3_work work;
    struct s3_call control; /* complete, and the look whether it is there */
    struct slot slots[S3_PARTS_AT_ONCE];
    uint64_t part_bytes;
    unsigned count;
    struct s3_farewell *farewell;
    char (*etags)[ETAG_BYTES]; /* of the parts */
    unsigned finished;
    bool completed;
    struct s3_verdict lost; /* of a `complete` whose outcome is looked for */
    struct buf xml;

    struct s3_task hash; /* one at a time */
    bool hashing;
    unsigned hash_next; /* the part that it is, or will be, at */
    int hash_rc;
    struct digest *whole, *part;
    char *buffer;
    struct hashed ready[S3_PARTS_AT_ONCE]; /* hashed, and not yet sent; in order */
    unsigned ready_count;
};

static void advance(struct upload *upload);

static uint64_t part_first(const struct upload *upload, unsigned number)
{
    return (number - 1) * upload->part_bytes;
}

static uint64_t part_end(const struct upload *upload, unsigned number)
{
    uint64_t end = number * upload->part_bytes, size = upload->work.request->size;

    return end < size ? end : size;
}

static void prepare(struct upload *upload, struct s3_call *call, enum cloud_op op,
                    const char *method, void (*done)(struct s3_call *call, int rc))
{
    s3_call_release(call);
    s3_call_init(call, upload->work.s3, &upload->work, op, method);
    call->bucket = s3_bucket(&upload->work);
    call->key = upload->work.request->key;
    call->repeatable = true;
    call->done = done;
}

/* ---- Hashes ---- */

/* On a thread of the pool. */
static void hash_run(struct s3_task *task)
{
    struct upload *upload = container_of(task, struct upload, hash);
    struct cloud_request *request = upload->work.request;
    uint64_t at = part_first(upload, upload->hash_next), end = part_end(upload, upload->hash_next);

    digest_reset(upload->part);
    upload->hash_rc = 0;
    while (at < end && upload->hash_rc == 0) {
        size_t len = end - at < HASH_BYTES ? (size_t)(end - at) : HASH_BYTES;

        if (atomic_load(&upload->work.stopping)) {
            upload->hash_rc = ERR_CLOSED;
            break;
        }
        upload->hash_rc = request->read(request, at, upload->buffer, len);
        if (upload->hash_rc == 0) {
            digest_update(upload->part, upload->buffer, len);
            digest_update(upload->whole, upload->buffer, len);
        }
        at += len;
    }
}

/* The next part's hash, while there is room for it. */
static void hash_on(struct upload *upload)
{
    if (upload->hashing || upload->hash_next > upload->count ||
        upload->ready_count == S3_PARTS_AT_ONCE)
        return;
    upload->hashing = true;
    s3_task_start(&upload->hash, &upload->work);
}

static void fail(struct upload *upload, int rc, const char *message)
{
    (void)snprintf(upload->work.request->message, sizeof upload->work.request->message, "%s",
                   message);
    s3_work_end(&upload->work, rc, NULL);
}

static void hash_ended(struct s3_task *task)
{
    struct upload *upload = container_of(task, struct upload, hash);
    struct hashed *hashed = &upload->ready[upload->ready_count];
    uint8_t whole[SHA256_BYTES];

    upload->hashing = false;
    if (upload->hash_rc) {
        fail(upload, upload->hash_rc, "the body could not be read here");
        return;
    }
    hashed->number = upload->hash_next++;
    digest_final(upload->part, hashed->sha256);
    upload->ready_count++;
    if (upload->hash_next > upload->count) {
        digest_final(upload->whole, whole);
        if (memcmp(whole, upload->work.request->sha256, SHA256_BYTES) != 0) {
            fail(upload, ERR_MISMATCH, "the body has not the SHA-256 that it should have");
            return;
        }
    }
    advance(upload);
}

/* ---- Complete ---- */

static void succeed(struct upload *upload, const char *etag)
{
    size_t len = strlen(etag);
    bool quoted = len >= 2 && etag[0] == '"' && etag[len - 1] == '"';

    upload->completed = true;
    (void)snprintf(upload->work.request->etag, sizeof upload->work.request->etag, "%.*s",
                   (int)(quoted ? len - 2 : len), quoted ? etag + 1 : etag);
    s3_work_end(&upload->work, 0, NULL);
}

static bool has_pair(const struct s3_answer *answer, const struct cloud_pair *wanted)
{
    for (size_t i = 0; i < answer->pair_count; i++) {
        const struct cloud_pair *it = &answer->pairs[i];

        if (it->name.len == wanted->name.len && it->value.len == wanted->value.len &&
            memcmp(it->name.ptr, wanted->name.ptr, it->name.len) == 0 &&
            memcmp(it->value.ptr, wanted->value.ptr, it->value.len) == 0)
            return true;
    }
    return false;
}

static bool is_ours(const struct upload *upload, const struct s3_answer *answer)
{
    const struct cloud_request *request = upload->work.request;
    const char *dash = strrchr(answer->etag, '-');
    char count[16];

    (void)snprintf(count, sizeof count, "-%u", upload->count);
    if (!answer->has_length || answer->length != request->size || !dash ||
        strcmp(dash, count) != 0 || request->pair_count == 0)
        return false;
    for (size_t i = 0; i < request->pair_count; i++) {
        if (!has_pair(answer, &request->pairs[i]))
            return false;
    }
    return true;
}

static void look_done(struct s3_call *call, int rc)
{
    struct upload *upload = container_of(call, struct upload, control);

    if (rc == 0 && is_ours(upload, &call->answer))
        succeed(upload, call->answer.etag);
    else
        s3_work_end(&upload->work, upload->lost.rc, NULL);
}

/* The answer to `complete` was lost, or told of an error after it had begun as a success. */
static void look(struct upload *upload)
{
    struct cloud_request *request = upload->work.request;

    (void)snprintf(request->message, sizeof request->message, "%s", upload->lost.message);
    request->retry_after_ms = upload->lost.wait_ms;
    prepare(upload, &upload->control, CLOUD_HEAD, "HEAD", look_done);
    s3_call_start(&upload->control);
}

static void complete_done(struct s3_call *call, int rc)
{
    struct upload *upload = container_of(call, struct upload, control);
    const struct buf *body = &call->answer.body;
    bool repeated = call->tries > 1;
    char etag[ETAG_BYTES];

    if (rc == 0) {
        if (s3_xml_value(etag, sizeof etag, "CompleteMultipartUploadResult/ETag",
                         body->data ? body->data : "", body->len) == 0) {
            succeed(upload, etag);
            return;
        }
        s3_verdict_set(&call->verdict, ERR_AGAIN, S3_LOST,
                       "%s could not put the parts of an upload together", call->host);
        rc = ERR_AGAIN;
    }
    if (call->verdict.again == S3_LOST || call->verdict.again == S3_ANSWERED ||
        (rc == ERR_NOT_FOUND && repeated)) {
        upload->lost = call->verdict;
        if (rc == ERR_NOT_FOUND) /* the upload: it was completed or aborted before */
            upload->lost.rc = ERR_CLOSED;
        look(upload);
        return;
    }
    s3_work_end(&upload->work, rc, call);
}

static void complete(struct upload *upload)
{
    struct s3_call *call = &upload->control;
    struct buf *xml = &upload->xml;

    buf_text(xml, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (unsigned i = 0; i < upload->count; i++)
        buf_format(xml, "<Part><PartNumber>%u</PartNumber><ETag>&quot;%s&quot;</ETag></Part>",
                   i + 1, upload->etags[i]);
    buf_text(xml, "</CompleteMultipartUpload>");
    if (buf_check(xml)) {
        fail(upload, ERR_NO_MEMORY, "no memory for the cloud");
        return;
    }
    prepare(upload, call, CLOUD_PUT, "POST", complete_done);
    s3_call_query(call, "uploadId", s3_text(upload->farewell->id));
    call->body = (struct cloud_text){xml->data, (uint32_t)xml->len};
    sha256(xml->data, xml->len, call->sha256);
    call->patience_ms = S3_COMPLETE_MS;
    s3_call_start(call);
}

/* ---- Parts ---- */

/* What goes into XML between quotes has to be plain. */
static bool etag_fine(const char *etag)
{
    size_t len = strlen(etag);

    return len > 0 && len < ETAG_BYTES && !strpbrk(etag, "<>&\"'");
}

static void part_done(struct s3_call *call, int rc)
{
    struct slot *slot = container_of(call, struct slot, call);
    struct upload *upload = container_of(call->work, struct upload, work);

    if (rc == 0 && (!etag_fine(call->answer.etag) || slot->feed.reading)) {
        s3_verdict_set(&call->verdict, ERR_INVALID, S3_NEVER, "%s answers what no S3 would",
                       call->host);
        rc = ERR_INVALID;
    }
    if (rc) {
        /* The upload is gone: somebody aborted it, or S3's own rule. */
        s3_work_end(&upload->work, rc == ERR_NOT_FOUND ? ERR_CLOSED : rc, call);
        return;
    }
    (void)snprintf(upload->etags[slot->number - 1], ETAG_BYTES, "%s", call->answer.etag);
    upload->finished++;
    s3_feed_release(&slot->feed);
    slot->number = 0;
    advance(upload);
}

static int send_part(struct upload *upload, struct slot *slot, const struct hashed *hashed)
{
    struct s3_call *call = &slot->call;
    int rc = s3_feed_init(&slot->feed, &upload->work, part_first(upload, hashed->number),
                          part_end(upload, hashed->number));

    if (rc)
        return rc;
    slot->number = hashed->number;
    (void)snprintf(slot->number_text, sizeof slot->number_text, "%u", hashed->number);
    prepare(upload, call, CLOUD_PUT, "PUT", part_done);
    call->feed = &slot->feed;
    memcpy(call->sha256, hashed->sha256, SHA256_BYTES);
    s3_call_query(call, "partNumber", s3_text(slot->number_text));
    s3_call_query(call, "uploadId", s3_text(upload->farewell->id));
    s3_call_start(call);
    return 0;
}

/* Send what is hashed, hash what is next, and complete what was sent. */
static void advance(struct upload *upload)
{
    for (unsigned i = 0; i < S3_PARTS_AT_ONCE && upload->farewell->id[0] && upload->ready_count > 0;
         i++) {
        struct slot *slot = &upload->slots[i];

        if (slot->number > 0)
            continue;
        if (send_part(upload, slot, &upload->ready[0])) {
            fail(upload, ERR_NO_MEMORY, "no memory for the cloud");
            return;
        }
        upload->ready_count--;
        memmove(upload->ready, upload->ready + 1, upload->ready_count * sizeof *upload->ready);
    }
    hash_on(upload);
    if (upload->finished == upload->count)
        complete(upload);
}

/* ---- The kind ---- */

static int allocate(struct upload *upload)
{
    upload->buffer = malloc(HASH_BYTES);
    upload->etags = calloc(upload->count, sizeof *upload->etags);
    if (!upload->buffer || !upload->etags)
        return ERR_NO_MEMORY;
    if (digest_create(&upload->whole, DIGEST_SHA256) || digest_create(&upload->part, DIGEST_SHA256))
        return ERR_NO_MEMORY; /* there is no OpenSSL without this one */
    return 0;
}

static void created(struct s3_work *work)
{
    advance(container_of(work, struct upload, work));
}

static void begin(struct s3_work *work)
{
    struct upload *upload = container_of(work, struct upload, work);
    uint64_t size = work->request->size;

    upload->part_bytes = (size + S3_PARTS - 1) / S3_PARTS;
    if (upload->part_bytes < work->s3->part_bytes)
        upload->part_bytes = work->s3->part_bytes;
    upload->count = (unsigned)((size + upload->part_bytes - 1) / upload->part_bytes);
    assert(upload->count > 1 && upload->count <= S3_PARTS);
    int rc = allocate(upload);
    if (rc == 0) {
        upload->farewell = s3_farewell_begin(work, created);
        rc = upload->farewell ? 0 : ERR_NO_MEMORY;
    }
    if (rc) {
        fail(upload, rc, "no memory for the cloud");
        return;
    }
    upload->hash_next = 1;
    upload->hash.run = hash_run;
    upload->hash.ended = hash_ended;
    buf_init(&upload->xml, XML_BYTES);
    hash_on(upload); /* while it is created */
}

static void stop(struct s3_work *work)
{
    struct upload *upload = container_of(work, struct upload, work);

    s3_call_cancel(&upload->control);
    for (unsigned i = 0; i < S3_PARTS_AT_ONCE; i++) {
        if (upload->farewell && upload->slots[i].call.easy)
            upload->farewell->parts = true;
        s3_call_cancel(&upload->slots[i].call);
    }
    if (upload->farewell)
        s3_farewell_end(upload->farewell, upload->completed);
    upload->farewell = NULL;
}

static void destroy(struct s3_work *work)
{
    struct upload *upload = container_of(work, struct upload, work);

    s3_call_release(&upload->control);
    for (unsigned i = 0; i < S3_PARTS_AT_ONCE; i++) {
        s3_call_release(&upload->slots[i].call);
        if (upload->slots[i].number > 0)
            s3_feed_release(&upload->slots[i].feed);
    }
    digest_destroy(&upload->whole);
    digest_destroy(&upload->part);
    buf_release(&upload->xml);
    free(upload->buffer);
    free(upload->etags);
    free(upload);
}

static const struct s3_kind kind = {.begin = begin, .stop = stop, .destroy = destroy};

struct s3_work *s3_upload_create(struct cloud_request *request)
{
    struct upload *upload = calloc(1, sizeof *upload);

    (void)request;
    if (!upload)
        return NULL;
    upload->work.kind = &kind;
    return &upload->work;
}
