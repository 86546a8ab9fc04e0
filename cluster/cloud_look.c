/*
 * The object's HEAD and that of its mark go out together; then, where the metadata say that user
 * meta stand elsewhere, the tags or the sidecar.
 *
 *   HEAD key, HEAD mark ─► both answered ─► TAGS ─► GET sidecar ─► done
 *
 * Failure: what cannot be told for sure (the mark's HEAD failed) is not told. A sidecar that is
 * missing or makes no sense is as if it were not there: the body is worth more than its user meta.
 */
#include "cluster/cloud_look.h"

#include "base/container.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static struct cloud_look *of_request(struct cloud_request *request)
{
    return container_of(request, struct cloud_look, request);
}

static struct cloud_text text_of(const struct cloud_key *key)
{
    return (struct cloud_text){key->text, key->len};
}

static void finish(struct cloud_look *look, int rc)
{
    look->done(look, rc);
}

/* ---- The sidecar ---- */

static int on_sidecar_head(struct cloud_request *request, const struct cloud_head *head)
{
    struct cloud_look *look = of_request(request);

    if (head->size == 0 || head->size > LIMIT_CLOUD_SIDECAR_BYTES)
        return ERR_TOO_BIG;
    look->sidecar = malloc(head->size);
    look->sidecar_len = 0;
    look->waiting = (unsigned)head->size; /* bytes that may come */
    return look->sidecar ? 0 : ERR_NO_MEMORY;
}

static void on_sidecar_data(struct cloud_request *request, const void *bytes, size_t len)
{
    struct cloud_look *look = of_request(request);

    if (len > look->waiting)
        len = look->waiting;
    memcpy(look->sidecar + look->sidecar_len, bytes, len);
    look->sidecar_len += len;
    look->waiting -= (unsigned)len;
}

static void on_sidecar(struct cloud_request *request, int rc)
{
    struct cloud_look *look = of_request(request);

    if (rc == 0)
        rc = cloud_facts_sidecar(&look->facts, look->sidecar, look->sidecar_len);
    if (rc == ERR_NOT_FOUND || rc == ERR_CORRUPT || rc == ERR_TOO_BIG)
        rc = 0;
    finish(look, rc);
}

static void ask_sidecar(struct cloud_look *look)
{
    struct cloud_key key;
    int rc = 0;

    if (look->facts.in_sidecar)
        rc = cloud_key_sidecar(&key, (struct text){look->key.text, look->key.len});
    if (!look->facts.in_sidecar || rc) {
        finish(look, 0);
        return;
    }
    look->mark = key; /* which has been looked at */
    look->request = (struct cloud_request){.op = CLOUD_GET,
                                           .key = text_of(&look->mark),
                                           .head = on_sidecar_head,
                                           .data = on_sidecar_data,
                                           .done = on_sidecar};
    rc = cloud_start(look->cloud, &look->request);
    if (rc)
        finish(look, rc);
}

/* ---- Tags ---- */

static int on_tags_head(struct cloud_request *request, const struct cloud_head *head)
{
    return cloud_facts_tags(&of_request(request)->facts, head);
}

static void on_tags(struct cloud_request *request, int rc)
{
    struct cloud_look *look = of_request(request);

    if (rc == 0 || rc == ERR_UNSUPPORTED)
        ask_sidecar(look);
    else
        finish(look, rc);
}

/* ---- The two HEADs ---- */

/* Both have been answered. */
static void go_on(struct cloud_look *look)
{
    int rc = look->rc;

    if (look->mark.len && look->mark_rc == 0)
        rc = ERR_DELETED;
    else if (look->mark.len && look->mark_rc != ERR_NOT_FOUND)
        rc = look->mark_rc;
    if (rc == 0 && look->facts.fields & CLOUD_FACTS_SIZE && look->facts.size != look->size)
        rc = ERR_CORRUPT;
    if (rc || !look->facts.in_tags) {
        if (rc)
            finish(look, rc);
        else
            ask_sidecar(look);
        return;
    }
    look->request = (struct cloud_request){
        .op = CLOUD_TAGS, .key = text_of(&look->key), .head = on_tags_head, .done = on_tags};
    rc = cloud_start(look->cloud, &look->request);
    if (rc)
        finish(look, rc);
}

/* One of them has. */
static void answered(struct cloud_look *look)
{
    (void)pthread_mutex_lock(&look->lock);
    assert(look->waiting > 0);
    bool last = --look->waiting == 0;
    (void)pthread_mutex_unlock(&look->lock);
    if (last)
        go_on(look);
}

static int on_head(struct cloud_request *request, const struct cloud_head *head)
{
    struct cloud_look *look = of_request(request);

    if (head->etag.len > CLOUD_LOOK_ETAG_BYTES)
        return ERR_TOO_BIG;
    if (head->etag.len)
        memcpy(look->etag, head->etag.ptr, head->etag.len);
    look->etag[head->etag.len] = '\0';
    look->size = head->size;
    return cloud_facts_read(&look->facts, head);
}

static void on_answer(struct cloud_request *request, int rc)
{
    struct cloud_look *look = of_request(request);

    look->rc = rc;
    answered(look);
}

static void on_mark(struct cloud_request *request, int rc)
{
    struct cloud_look *look = container_of(request, struct cloud_look, mark_request);

    look->mark_rc = rc;
    answered(look);
}

void cloud_look_start(struct cloud_look *look)
{
    assert(look->cloud && look->key.len > 0 && look->done);
    (void)pthread_mutex_init(&look->lock, NULL);
    look->waiting = 2;
    look->request = (struct cloud_request){
        .op = CLOUD_HEAD, .key = text_of(&look->key), .head = on_head, .done = on_answer};
    look->mark_request =
        (struct cloud_request){.op = CLOUD_HEAD, .key = text_of(&look->mark), .done = on_mark};
    bool marked = look->mark.len > 0;
    int rc = marked ? cloud_start(look->cloud, &look->mark_request) : ERR_NOT_FOUND;
    if (rc)
        on_mark(&look->mark_request, rc);
    rc = cloud_start(look->cloud, &look->request);
    if (rc)
        on_answer(&look->request, rc);
}

void cloud_look_release(struct cloud_look *look)
{
    cloud_facts_release(&look->facts);
    free(look->sidecar);
    look->sidecar = NULL;
    (void)pthread_mutex_destroy(&look->lock);
}
