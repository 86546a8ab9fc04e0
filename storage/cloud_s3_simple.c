/*
 * The requests that are one exchange each: PUT of a body that need not be sent in parts, HEAD,
 * DELETE, LIST and TAGS. And what S3 can take at all, for every request.
 */
#include "storage/cloud_s3_internal.h"

#include "base/container.h"
#include "base/text.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT_TAG_NAME_CHARS  128
#define LIMIT_TAG_VALUE_CHARS 256

struct simple {
    struct s3_work work;
    struct s3_call call;
    struct s3_feed feed;
    char max[16];
    /* TAGS, as they come. */
    struct cloud_pair pairs[LIMIT_CLOUD_PAIRS];
    size_t pair_count;
    struct buf text;
};

static void end(struct s3_call *call, int rc)
{
    s3_work_end(call->work, rc, call);
}

static int garbled(struct s3_call *call)
{
    s3_verdict_set(&call->verdict, ERR_INVALID, S3_NEVER, "%s answers what no S3 would",
                   call->host);
    return ERR_INVALID;
}

/* ---- PUT ---- */

static void put_done(struct s3_call *call, int rc)
{
    struct cloud_request *request = call->work->request;

    if (rc == 0)
        (void)snprintf(request->etag, sizeof request->etag, "%s", call->answer.etag);
    end(call, rc);
}

static int begin_put(struct simple *simple)
{
    struct cloud_request *request = simple->work.request;
    struct s3_call *call = &simple->call;
    int rc = s3_feed_init(&simple->feed, &simple->work, 0, request->size);

    if (rc)
        return rc;
    call->feed = &simple->feed;
    call->describe = request;
    memcpy(call->sha256, request->sha256, SHA256_BYTES);
    call->repeatable = true;
    call->done = put_done;
    return 0;
}

/* ---- HEAD, TAGS, DELETE ---- */

static void head_done(struct s3_call *call, int rc)
{
    struct cloud_request *request = call->work->request;
    const struct s3_answer *answer = &call->answer;

    if (rc == 0 && request->head) {
        struct cloud_head head = {.size = answer->length,
                                  .etag = s3_text(answer->etag),
                                  .type = s3_text(answer->type),
                                  .modified_s = answer->modified_s,
                                  .pairs = answer->pairs,
                                  .pair_count = answer->pair_count,
                                  .tag_count = answer->tag_count};

        rc = answer->has_length ? request->head(request, &head) : garbled(call);
    }
    end(call, rc);
}

static void delete_done(struct s3_call *call, int rc)
{
    if (rc == ERR_NOT_FOUND && strcmp(call->verdict.code, "NoSuchKey") == 0)
        rc = 0;
    end(call, rc);
}

static int take_tag(void *arg, struct cloud_text name, struct cloud_text value)
{
    struct simple *simple = arg;
    size_t at = simple->text.len;

    if (simple->pair_count == LIMIT_CLOUD_PAIRS)
        return ERR_INVALID;
    buf_add(&simple->text, name.ptr, name.len);
    buf_add(&simple->text, value.ptr, value.len);
    if (buf_check(&simple->text))
        return ERR_INVALID;
    char *text = simple->text.data + at;
    simple->pairs[simple->pair_count++] =
        (struct cloud_pair){{text, name.len}, {text + name.len, value.len}};
    return 0;
}

static int read_tags(struct simple *simple)
{
    const struct buf *body = &simple->call.answer.body;

    buf_init(&simple->text, S3_PAIRS_BYTES);
    /* All of the room at once: pointers into it stay good. */
    if (!buf_reserve(&simple->text, S3_PAIRS_BYTES))
        return ERR_NO_MEMORY;
    return s3_xml_tags(body->data ? body->data : "", body->len, take_tag, simple);
}

static void tags_done(struct s3_call *call, int rc)
{
    struct simple *simple = container_of(call, struct simple, call);
    struct cloud_request *request = call->work->request;

    if (rc == ERR_NOT_FOUND && strcmp(call->verdict.code, "NoSuchTagSet") == 0)
        rc = 0;
    else if (rc == 0)
        rc = read_tags(simple);
    if (rc == ERR_INVALID && call->verdict.rc == 0)
        rc = garbled(call);
    if (rc == 0 && request->head) {
        struct cloud_head head = {.etag = s3_text(call->answer.etag),
                                  .type = s3_text(""),
                                  .pairs = simple->pairs,
                                  .pair_count = simple->pair_count,
                                  .tag_count = (unsigned)simple->pair_count};

        rc = request->head(request, &head);
    }
    end(call, rc);
}

/* ---- LIST ---- */

struct lister {
    struct cloud_request *request;
    bool give; /* else it is only looked whether all of it makes sense */
    size_t count;
};

static int take_entry(void *arg, const struct cloud_entry *entry)
{
    struct lister *lister = arg;
    const struct cloud_request *request = lister->request;

    lister->count++;
    if (entry->key.len < request->key.len ||
        memcmp(entry->key.ptr, request->key.ptr, request->key.len) != 0 ||
        lister->count > LIMIT_CLOUD_LIST)
        return ERR_INVALID;
    if (lister->give)
        request->entry(lister->request, entry);
    return 0;
}

static void list_done(struct s3_call *call, int rc)
{
    struct cloud_request *request = call->work->request;
    struct lister lister = {.request = request};
    const struct buf *body = &call->answer.body;

    if (rc == 0)
        rc = s3_xml_list(body->data ? body->data : "", body->len, take_entry, &lister,
                         &request->more);
    /* Whoever asks for what is above the last key needs one. */
    if (rc == 0 && request->more && lister.count == 0)
        rc = ERR_INVALID;
    if (rc == ERR_INVALID && call->verdict.rc == 0)
        rc = garbled(call);
    if (rc == 0 && request->entry) {
        lister.give = true;
        lister.count = 0;
        rc = s3_xml_list(body->data, body->len, take_entry, &lister, &request->more);
    }
    end(call, rc);
}

static void begin_list(struct simple *simple)
{
    struct cloud_request *request = simple->work.request;
    struct s3_call *call = &simple->call;
    unsigned max =
        request->max > 0 && request->max < LIMIT_CLOUD_LIST ? request->max : LIMIT_CLOUD_LIST;

    (void)snprintf(simple->max, sizeof simple->max, "%u", max);
    call->key = s3_text("");
    s3_call_query(call, "list-type", s3_text("2"));
    s3_call_query(call, "encoding-type", s3_text("url"));
    s3_call_query(call, "max-keys", s3_text(simple->max));
    if (request->key.len > 0)
        s3_call_query(call, "prefix", request->key);
    if (request->after.len > 0)
        s3_call_query(call, "start-after", request->after);
    call->done = list_done;
}

/* ---- The kind ---- */

static const char *method_of(enum cloud_op op)
{
    return op == CLOUD_PUT      ? "PUT"
           : op == CLOUD_HEAD   ? "HEAD"
           : op == CLOUD_DELETE ? "DELETE"
                                : "GET";
}

static void begin(struct s3_work *work)
{
    struct simple *simple = container_of(work, struct simple, work);
    struct cloud_request *request = work->request;
    struct s3_call *call = &simple->call;
    int rc = 0; /* but for a PUT nothing can fail yet */

    s3_call_init(call, work->s3, work, request->op, method_of(request->op));
    call->get = request->op == CLOUD_TAGS || request->op == CLOUD_LIST;
    call->bucket = s3_bucket(work);
    call->key = request->key;
    call->repeatable = request->op != CLOUD_DELETE; /* who knows what was put there meanwhile */
    switch (request->op) {
    case CLOUD_PUT:
        rc = begin_put(simple);
        break;
    case CLOUD_LIST:
        begin_list(simple);
        break;
    case CLOUD_TAGS:
        s3_call_query(call, "tagging", s3_text(""));
        call->done = tags_done;
        break;
    case CLOUD_DELETE:
        call->done = delete_done;
        break;
    default:
        call->done = head_done;
        break;
    }
    if (rc)
        s3_work_end(work, rc, NULL);
    else
        s3_call_start(call);
}

static void stop(struct s3_work *work)
{
    s3_call_cancel(&container_of(work, struct simple, work)->call);
}

static void destroy(struct s3_work *work)
{
    struct simple *simple = container_of(work, struct simple, work);

    s3_call_release(&simple->call);
    if (simple->feed.work)
        s3_feed_release(&simple->feed);
    buf_release(&simple->text);
    free(simple);
}

static const struct s3_kind kind = {.begin = begin, .stop = stop, .destroy = destroy};

struct s3_work *s3_simple_create(struct cloud_request *request)
{
    struct simple *simple = calloc(1, sizeof *simple);

    (void)request;
    if (!simple)
        return NULL;
    simple->work.kind = &kind;
    return &simple->work;
}

/* ---- What S3 can take ---- */

/* Headers carry printable ASCII, and lose blanks around it. */
static bool value_fine(struct cloud_text value)
{
    for (uint32_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < 0x20 || value.ptr[i] > 0x7e)
            return false;
    }
    return value.len == 0 || (value.ptr[0] != ' ' && value.ptr[value.len - 1] != ' ');
}

static bool name_fine(struct cloud_text name)
{
    for (uint32_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return name.len > 0;
}

static bool pairs_fine(const struct cloud_request *request)
{
    size_t bytes = 0;

    for (size_t i = 0; i < request->pair_count && i < LIMIT_CLOUD_PAIRS; i++) {
        if (!name_fine(request->pairs[i].name) || !value_fine(request->pairs[i].value))
            return false;
        bytes += (size_t)request->pairs[i].name.len + request->pairs[i].value.len;
    }
    return request->pair_count <= LIMIT_CLOUD_PAIRS && bytes <= LIMIT_CLOUD_META_BYTES;
}

/* Letters of any script, digits, blanks and a few signs. */
static bool tag_text_fine(struct cloud_text text, size_t most)
{
    size_t chars = 0;

    for (uint32_t i = 0; i < text.len; chars++) {
        size_t len = utf8_char(text.ptr + i, text.len - i);
        char c = text.ptr[i];

        if (len == 0 || (len == 1 && !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                                       (c >= '0' && c <= '9') || (c && strchr(" +-=._:/@", c)))))
            return false;
        i += (uint32_t)len;
    }
    return chars <= most;
}

static size_t encoded_len(struct cloud_text text)
{
    size_t len = 0;

    for (uint32_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        len += (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       (c && strchr("-._~", c))
                   ? 1
                   : 3;
    }
    return len;
}

static bool tags_fine(const struct cloud_request *request)
{
    size_t bytes = 0;

    for (size_t i = 0; i < request->tag_count && i < LIMIT_CLOUD_TAGS; i++) {
        const struct cloud_pair *tag = &request->tags[i];

        bytes += encoded_len(tag->name) + encoded_len(tag->value) + 2;
        if (tag->name.len == 0 || !tag_text_fine(tag->name, LIMIT_TAG_NAME_CHARS) ||
            !tag_text_fine(tag->value, LIMIT_TAG_VALUE_CHARS))
            return false;
        for (size_t j = 0; j < i; j++) {
            if (request->tags[j].name.len == tag->name.len &&
                memcmp(request->tags[j].name.ptr, tag->name.ptr, tag->name.len) == 0)
                return false;
        }
    }
    return request->tag_count <= LIMIT_CLOUD_TAGS && bytes <= LIMIT_CLOUD_TAG_BYTES;
}

int s3_check_request(const struct cloud_request *request)
{
    bool list = request->op == CLOUD_LIST;

    if (request->op < CLOUD_PUT || request->op > CLOUD_TAGS || !request->done)
        return ERR_INVALID;
    if (request->key.len > LIMIT_CLOUD_KEY_BYTES || request->after.len > LIMIT_CLOUD_KEY_BYTES ||
        (request->key.len == 0 && !list) ||
        memchr(request->key.len ? request->key.ptr : "", '\0', request->key.len) ||
        request->bucket.len > LIMIT_CLOUD_BUCKET_BYTES ||
        !utf8_valid(request->key.ptr, request->key.len))
        return ERR_INVALID;
    for (uint32_t i = 0; i < request->bucket.len; i++) {
        char c = request->bucket.ptr[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '.' || c == '_'))
            return ERR_INVALID;
    }
    if (!value_fine(request->if_match) || request->if_match.len > 128)
        return ERR_INVALID;
    if (request->op == CLOUD_GET && (request->offset > INT64_MAX || request->length > INT64_MAX))
        return ERR_INVALID;
    if (request->op != CLOUD_PUT)
        return 0;
    if (request->size > S3_OBJECT_BYTES || (request->size > 0 && !request->read))
        return ERR_INVALID;
    return value_fine(request->type) && pairs_fine(request) && tags_fine(request) ? 0 : ERR_INVALID;
}
