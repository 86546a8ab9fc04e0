/*
 * A multipart upload as S3 knows it, from its creation to its abort, apart from the request that
 * wanted it: the request may end at any moment, also while the upload is being created, and nothing
 * of it shall stay in the cloud.
 *
 * While it has a work it belongs to that. A work that ends uncompleted leaves it to the backend's
 * list, where it is aborted, and aborted again while parts may still arrive; a creation that is
 * under way then is waited for, as it alone tells the id. Closing the cloud waits for the list, for
 * S3_FAREWELL_MS.
 */
#include "storage/cloud_s3_internal.h"

#include "base/container.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void farewell_free(struct s3_farewell *farewell)
{
    struct s3 *s3 = farewell->call.s3;

    for (struct s3_farewell **at = &s3->farewell; *at; at = &(*at)->next) {
        if (*at == farewell) {
            *at = farewell->next;
            s3->farewells--;
            break;
        }
    }
    s3_call_cancel(&farewell->call);
    s3_call_release(&farewell->call);
    free(farewell);
}

static void farewell_abort(struct s3_farewell *farewell, uint32_t pause_ms);

/* Parts that were under way may arrive at S3 after the abort, and stay: it is repeated until S3
 * knows of no such upload. */
static void farewell_done(struct s3_call *call, int rc)
{
    struct s3_farewell *farewell = container_of(call, struct s3_farewell, call);

    if (rc == 0 && farewell->parts && ++farewell->aborts < S3_ABORTS) {
        farewell_abort(farewell, S3_ABORT_PAUSE_MS);
        return;
    }
    if (rc && rc != ERR_NOT_FOUND)
        log_warn("cloud: an upload of %s could not be aborted, its parts stay: %s", farewell->key,
                 call->verdict.message);
    farewell_free(farewell);
}

static void farewell_call(struct s3_farewell *farewell, struct s3 *s3, const char *method,
                          void (*done)(struct s3_call *call, int rc))
{
    struct s3_call *call = &farewell->call;

    s3_call_release(call);
    s3_call_init(call, s3, NULL, strcmp(method, "POST") == 0 ? CLOUD_PUT : CLOUD_DELETE, method);
    call->bucket = s3_text(farewell->bucket);
    call->key = s3_text(farewell->key);
    call->repeatable = true; /* an id is never given again */
    call->done = done;
}

static void farewell_abort(struct s3_farewell *farewell, uint32_t pause_ms)
{
    farewell_call(farewell, farewell->call.s3, "DELETE", farewell_done);
    s3_call_query(&farewell->call, "uploadId", s3_text(farewell->id));
    s3_call_start_later(&farewell->call, pause_ms);
}

static void create_done(struct s3_call *call, int rc)
{
    struct s3_farewell *farewell = container_of(call, struct s3_farewell, call);
    struct s3_work *work = farewell->work;
    const struct buf *body = &call->answer.body;

    if (rc == 0) {
        rc = s3_xml_value(farewell->id, sizeof farewell->id,
                          "InitiateMultipartUploadResult/UploadId", body->data ? body->data : "",
                          body->len);
        if (rc == 0 && farewell->id[0] == '\0')
            rc = ERR_INVALID;
        if (rc)
            s3_verdict_set(&call->verdict, rc, S3_NEVER, "%s answers what no S3 would", call->host);
    }
    if (rc)
        farewell->id[0] = '\0';
    if (!work && rc)
        farewell_free(farewell);
    else if (!work)
        farewell_abort(farewell, 0);
    else if (rc)
        s3_work_end(work, rc, call);
    else
        farewell->created(work);
}

struct s3_farewell *s3_farewell_begin(struct s3_work *work, void (*created)(struct s3_work *work))
{
    struct s3_farewell *farewell = calloc(1, sizeof *farewell);
    const struct cloud_request *request = work->request;
    struct cloud_text bucket = s3_bucket(work);

    if (!farewell)
        return NULL;
    assert(bucket.len < sizeof farewell->bucket && request->key.len < sizeof farewell->key);
    memcpy(farewell->bucket, bucket.ptr, bucket.len);
    memcpy(farewell->key, request->key.ptr, request->key.len);
    farewell->work = work;
    farewell->created = created;
    farewell_call(farewell, work->s3, "POST", create_done);
    s3_call_query(&farewell->call, "uploads", s3_text(""));
    farewell->call.describe = request;
    s3_call_start(&farewell->call);
    return farewell;
}

void s3_farewell_end(struct s3_farewell *farewell, bool completed)
{
    struct s3_call *call = &farewell->call;
    struct s3 *s3 = call->s3;

    farewell->work = NULL;
    if (completed || (!farewell->id[0] && !call->easy)) { /* or not even created */
        farewell_free(farewell);
        return;
    }
    farewell->next = s3->farewell;
    s3->farewell = farewell;
    s3->farewells++;
    if (farewell->id[0]) {
        farewell_abort(farewell, 0);
    } else { /* its id is on its way; what described it is not lent any more */
        call->describe = NULL;
        call->last = true;
    }
}

void s3_farewells_drop(struct s3 *s3)
{
    for (struct s3_farewell *next, *farewell = s3->farewell; farewell; farewell = next) {
        next = farewell->next;
        log_warn("cloud: an upload of %s was not aborted, its parts stay", farewell->key);
        farewell_free(farewell);
    }
}
