/*
 * GET: one stream, or with download_parts several ranges at once that are given in order.
 *
 * A download is a row of parts, each one call. The first in the row gives what arrives straight to
 * the owner, and pauses its call where the owner's window is full; the others hold theirs in memory
 * until it is their turn (S3_RANGE_BYTES each, S3_AHEAD_BYTES for all downloads). One stream is a
 * row of one part without an end. Further parts start when the first one's header has told the size
 * and the ETag, which every later answer has to bear as well (If-Match).
 *
 * A part whose connection breaks is continued where it broke, under the same If-Match; the owner
 * notices nothing. If that fails too it gets the error: never a success with fewer bytes than
 * `head` announced.
 */
#include "storage/cloud_s3_internal.h"

#include "base/container.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIVE_BYTES     (64 * KIB) /* of what is held, at once */
#define PROGRESS_BYTES (1 * MIB)  /* after so much a broken stream has its tries again */

struct part {
    struct s3_call call;
    struct get *get;
    uint64_t first, length; /* of the body; length 0: not known yet, to the end */
    uint64_t taken;         /* received of it */
    uint64_t progress;      /* `taken` when its tries were counted anew */
    unsigned breaks;
    char *held; /* NULL: given as it comes */
    size_t held_len, held_given;
    bool over;
};

struct get {
    struct s3_work work;
    struct part parts[LIMIT_CLOUD_DOWNLOAD_PARTS];
    unsigned at, count; /* a ring; the first is the one whose turn it is */
    uint64_t next, end; /* of the body: where the next part begins; all of it */
    uint64_t given;     /* to the owner */
    uint64_t received;
    uint64_t total; /* the object's size */
    char etag[128];
    bool headed; /* the owner has its head */
    bool plain;  /* without a Range: the object is empty */
};

static struct part *first_part(struct get *get)
{
    return &get->parts[get->at];
}

static int on_head(struct s3_call *call);
static int on_data(struct s3_call *call, const void *bytes, size_t len);
static void on_done(struct s3_call *call, int rc);

/* ---- Parts ---- */

/* Ask for what is missing of it. */
static void ask(struct part *part, bool later)
{
    struct s3_call *call = &part->call;
    struct get *get = part->get;
    struct cloud_request *request = get->work.request;
    uint64_t from = part->first + part->taken;

    s3_call_release(call);
    s3_call_init(call, get->work.s3, &get->work, CLOUD_GET, "GET");
    call->bucket = s3_bucket(&get->work);
    call->key = request->key;
    call->if_match = get->headed ? s3_text(get->etag) : request->if_match;
    call->repeatable = true;
    call->head = on_head;
    call->data = on_data;
    call->done = on_done;
    if (get->plain || (from == 0 && part->length == 0))
        call->range[0] = '\0';
    else if (part->length == 0)
        (void)snprintf(call->range, sizeof call->range, "%" PRIu64 "-", from);
    else
        (void)snprintf(call->range, sizeof call->range, "%" PRIu64 "-%" PRIu64, from,
                       part->first + part->length - 1);
    if (later)
        s3_call_start_later(call, s3_pause_ms(call->s3, part->breaks));
    else
        s3_call_start(call);
}

static struct part *add_part(struct get *get, uint64_t first, uint64_t length, char *held)
{
    assert(get->count < LIMIT_CLOUD_DOWNLOAD_PARTS);
    struct part *part = &get->parts[(get->at + get->count++) % LIMIT_CLOUD_DOWNLOAD_PARTS];

    s3_call_release(&part->call);
    *part = (struct part){.get = get, .first = first, .length = length, .held = held};
    return part;
}

static void let_go(struct part *part)
{
    if (part->held) {
        free(part->held);
        part->held = NULL;
        part->get->work.s3->ahead -= S3_RANGE_BYTES;
    }
}

/* As many parts as may be under way. */
static void fill_row(struct get *get)
{
    struct s3 *s3 = get->work.s3;

    while (get->next < get->end && get->count < s3->download_parts) {
        uint64_t length = get->end - get->next;
        char *held = NULL;

        if (length > S3_RANGE_BYTES)
            length = S3_RANGE_BYTES;
        if (get->count > 0) {
            held = s3->ahead + S3_RANGE_BYTES <= S3_AHEAD_BYTES ? malloc(S3_RANGE_BYTES) : NULL;
            if (!held)
                return; /* those under way will do */
            s3->ahead += S3_RANGE_BYTES;
        }
        ask(add_part(get, get->next, length, held), false);
        get->next += length;
    }
}

/* ---- Giving ---- */

static void give(struct get *get, const void *bytes, size_t len)
{
    struct cloud_request *request = get->work.request;

    get->given += len;
    if (request->data)
        request->data(request, bytes, len);
}

/* Whether all that PART holds was given. */
static bool give_held(struct part *part)
{
    while (part->held_given < part->held_len) {
        size_t len = part->held_len - part->held_given;

        if (len > GIVE_BYTES)
            len = GIVE_BYTES;
        if (!s3_work_room(&part->get->work, part->get->given, len))
            return false;
        give(part->get, part->held + part->held_given, len);
        part->held_given += len;
    }
    return true;
}

/* Give what can be given, and take from the row what is over. Not within curl. */
static void advance(struct get *get)
{
    while (get->count > 0) {
        struct part *part = first_part(get);

        if (!give_held(part))
            return;
        s3_call_resume(&part->call);
        if (!part->over)
            return;
        let_go(part);
        get->at = (get->at + 1) % LIMIT_CLOUD_DOWNLOAD_PARTS;
        get->count--;
        fill_row(get);
    }
    assert(get->next == get->end);
    s3_work_end(&get->work, 0, NULL);
}

/* ---- What calls bring ---- */

/* The answer is to what was asked: the range, the object. */
static bool fits(const struct part *part, const struct s3_answer *answer)
{
    uint64_t from = part->first + part->taken;
    const struct get *get = part->get;

    if (answer->status == 200)
        return answer->has_length && from == 0 &&
               (part->length == 0 || answer->length <= part->length) && !get->headed;
    if (answer->status != 206 || !answer->has_range || answer->range_first != from)
        return false;
    uint64_t last = part->length > 0 && part->first + part->length < answer->range_total
                        ? part->first + part->length - 1
                        : answer->range_total - 1;
    return answer->range_last == last && (!get->headed || answer->range_total == get->total);
}

static int give_head(struct part *part, const struct s3_answer *answer)
{
    struct get *get = part->get;
    struct cloud_request *request = get->work.request;
    uint64_t total = answer->status == 206 ? answer->range_total : answer->length;
    struct cloud_head head = {.size = total,
                              .etag = s3_text(answer->etag),
                              .type = s3_text(answer->type),
                              .modified_s = answer->modified_s,
                              .pairs = answer->pairs,
                              .pair_count = answer->pair_count,
                              .tag_count = answer->tag_count};

    get->headed = true;
    get->total = total;
    get->end = request->length > 0 && request->length < total - request->offset
                   ? request->offset + request->length
                   : total;
    (void)snprintf(get->etag, sizeof get->etag, "%s", answer->etag);
    if (part->length == 0 || part->first + part->length > total)
        part->length = total - part->first;
    get->next = part->first + part->length;
    return request->head ? request->head(request, &head) : 0;
}

static int on_head(struct s3_call *call)
{
    struct part *part = container_of(call, struct part, call);
    struct get *get = part->get;
    const struct s3_answer *answer = &call->answer;

    if (!fits(part, answer))
        return ERR_INVALID;
    if (get->headed)
        return strcmp(get->etag, answer->etag) == 0 ? 0 : ERR_PRECONDITION;
    int rc = give_head(part, answer);
    if (rc)
        return rc;
    if (get->next < get->end && !get->etag[0]) /* nothing would tell that it is the same body */
        return ERR_INVALID;
    fill_row(get);
    return 0;
}

static int on_data(struct s3_call *call, const void *bytes, size_t len)
{
    struct part *part = container_of(call, struct part, call);
    struct get *get = part->get;

    if (len > part->length - part->taken)
        return ERR_INVALID;
    if (part->held) {
        memcpy(part->held + part->held_len, bytes, len);
        part->held_len += len;
    } else {
        assert(part == first_part(get));
        if (!s3_work_room(&get->work, get->given, len))
            return ERR_FULL;
        give(get, bytes, len);
    }
    part->taken += len;
    get->received += len;
    return 0;
}

/* Whether it goes on where it broke. */
static bool resume(struct part *part, const struct s3_call *call)
{
    struct get *get = part->get;
    enum s3_again again = call->verdict.again;

    if (!call->given || !get->headed || !get->etag[0] || again == S3_NEVER ||
        atomic_load(&get->work.stopping))
        return false;
    if (part->taken >= part->progress + PROGRESS_BYTES) {
        part->progress = part->taken;
        part->breaks = 0;
    }
    if (++part->breaks >= get->work.s3->tries)
        return false;
    s3_count_retry(get->work.s3);
    ask(part, true);
    return true;
}

static void on_done(struct s3_call *call, int rc)
{
    struct part *part = container_of(call, struct part, call);
    struct get *get = part->get;
    const struct cloud_request *request = get->work.request;

    if (rc == ERR_RANGE && request->offset == 0 && !get->headed && !get->plain) {
        get->plain = true; /* of an empty body there is no range */
        ask(part, false);
        return;
    }
    if (rc == 0 && part->taken < part->length) {
        s3_verdict_set(&call->verdict, ERR_CLOSED, S3_LOST, "%s sent less than it announced",
                       call->host);
        rc = ERR_CLOSED;
    }
    if (rc) {
        if (!resume(part, call))
            s3_work_end(&get->work, rc, call);
        return;
    }
    part->over = true;
    advance(get);
}

/* ---- The kind ---- */

static void begin(struct s3_work *work)
{
    struct get *get = container_of(work, struct get, work);
    const struct cloud_request *request = work->request;
    uint64_t length = request->length;

    if (work->s3->download_parts > 1 && (length == 0 || length > S3_RANGE_BYTES))
        length = S3_RANGE_BYTES;
    get->next = get->end = request->offset;
    ask(add_part(get, request->offset, length, NULL), false);
}

static void consumed(struct s3_work *work)
{
    struct get *get = container_of(work, struct get, work);

    if (get->headed && get->count > 0)
        advance(get);
}

static void stop(struct s3_work *work)
{
    struct get *get = container_of(work, struct get, work);

    for (unsigned i = 0; i < LIMIT_CLOUD_DOWNLOAD_PARTS; i++)
        s3_call_cancel(&get->parts[i].call);
}

static void destroy(struct s3_work *work)
{
    struct get *get = container_of(work, struct get, work);

    for (unsigned i = 0; i < LIMIT_CLOUD_DOWNLOAD_PARTS; i++) {
        if (get->parts[i].get)
            let_go(&get->parts[i]);
        s3_call_release(&get->parts[i].call);
    }
    if (work->s3)
        s3_count_bytes(work->s3, 0, get->received);
    free(get);
}

static const struct s3_kind kind = {
    .begin = begin, .consumed = consumed, .stop = stop, .destroy = destroy};

struct s3_work *s3_get_create(struct cloud_request *request)
{
    struct get *get = calloc(1, sizeof *get);

    (void)request;
    if (!get)
        return NULL;
    get->work.kind = &kind;
    return &get->work;
}
