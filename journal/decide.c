/*
 * The rules by which the committer turns a request into an event, a no-op or a refusal. It sees the
 * newest row, decided requests before it included, so what is decided here is decided for good.
 *
 *   row        put                       meta             delete          drop, move
 *   unknown    if: commit                NOT_FOUND        if: commit      NOT_FOUND
 *   live       if: commit, meta event,   CONFLICT, or     if: commit      commit where it is still
 *              UNVERIFIED or CONFLICT    if: commit                       the copy meant
 *   tombstone  DELETED                   DELETED          if: unchanged   unchanged
 *                                                         but for purge
 *
 * if: the request's condition, where it has one, holds; else PRECONDITION. What stands before it is
 * refused whatever the condition says (RFC 9110 §13.2.1). To a condition a tombstone is as nothing:
 * a delete that asks for a tag does not hold a second time.
 *
 * What became of the cloud's copy is true when it is said: it is refused only where it would begin
 * something (started) that has lost its sense.
 */
#include "journal/decide.h"

#include <assert.h>
#include <string.h>

/* What a put and a meta may both say. */
#define META_FIELDS (EVENT_HAS_LEVEL | EVENT_HAS_NAME | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES)

static bool text_equal(struct text a, struct text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static bool is_checked(const struct object *row, const struct request *request)
{
    return !place_is_none(&row->place) && place_equal(&row->place, &request->checked);
}

static void start_event(struct decision *out, const struct request *request, uint32_t kind)
{
    out->verdict = VERDICT_COMMIT;
    out->event.kind = kind;
    out->event.id = request->id;
    out->event.level = request->level;
    out->event.name = request->name;
    out->event.user_meta = request->user_meta;
    out->event.expires_ms = request->expires_ms;
}

/* A meta event of what REQUEST would change in ROW, if anything. */
static void decide_difference(struct decision *out, const struct object *row,
                              const struct request *request)
{
    uint32_t differs = 0;

    if (request->level > row->level)
        differs |= EVENT_HAS_LEVEL;
    if (!text_equal(request->name, object_name(row)))
        differs |= EVENT_HAS_NAME;
    if (!text_equal(request->user_meta, object_user_meta(row)))
        differs |= EVENT_HAS_USER_META;
    if (request->expires_ms != row->expires_ms)
        differs |= EVENT_HAS_EXPIRES;
    differs &= request->fields;
    if (differs == 0)
        return;
    start_event(out, request, EVENT_META);
    out->event.fields = differs;
}

static void put_event(struct decision *out, const struct object *row, const struct request *request)
{
    start_event(out, request, EVENT_PUT);
    out->store_body = true;
    out->event.fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL |
                        (request->fields & (META_FIELDS | EVENT_HAS_TYPE));
    memcpy(out->event.sha256, request->sha256, SHA256_BYTES);
    out->event.size = request->size;
    out->event.type = request->type;
    if (!(request->fields & EVENT_HAS_LEVEL))
        out->event.level = 0;
    if (!row)
        return;
    if (row->level > out->event.level)
        out->event.level = row->level;
    if (!(request->fields & EVENT_HAS_TYPE) && row->type_len > 0) {
        out->event.fields |= EVENT_HAS_TYPE;
        out->event.type = object_type(row);
    }
}

int decide_early(const struct object *row, const struct request *request)
{
    assert(request->kind == CHANGE_PUT);
    if (row && row->flags & OBJECT_DELETED)
        return ERR_DELETED;
    return condition_holds(request->condition, row) ? 0 : ERR_PRECONDITION;
}

/* The event speaks of one copy: of exactly the bytes that ROW names. */
static void one_item(struct decision *out, const struct object *row)
{
    out->item.id = row->id;
    memcpy(out->item.sha256, row->sha256, SHA256_BYTES);
    out->event.fields = EVENT_HAS_ITEMS;
    out->event.items = &out->item;
    out->event.item_count = 1;
}

static int decide_hold(struct decision *out, const struct object *row,
                       const struct request *request)
{
    if (!row)
        return ERR_NOT_FOUND;
    if (row->flags & OBJECT_DELETED)
        return ERR_DELETED;
    if (memcmp(row->sha256, request->sha256, SHA256_BYTES) != 0 || row->size != request->size)
        return ERR_CONFLICT;
    if (!place_is_none(&row->place) && !(is_checked(row, request) && request->damaged))
        return 0;
    start_event(out, request, EVENT_HOLD);
    one_item(out, row);
    out->store_body = true;
    return 0;
}

/* Bytes that the cloud has: of what is known they are a copy, else they are what is known of it. */
static int decide_from_cloud(struct decision *out, const struct object *row,
                             const struct request *request)
{
    if (row)
        return decide_hold(out, row, request);
    put_event(out, NULL, request);
    out->event.stamp = request->stamp;
    if (out->event.level == 0)
        out->event.level = 1;
    return 0;
}

static int decide_adopt(struct decision *out, const struct object *row,
                        const struct request *request)
{
    int rc;

    assert(request->fields & EVENT_HAS_SHA256 && request->fields & EVENT_HAS_SIZE);
    rc = decide_from_cloud(out, row, request);
    if (rc || !row) {
        out->store_body = false;
        return rc;
    }
    *out = (struct decision){.verdict = VERDICT_UNCHANGED};
    return 0;
}

static int decide_put(struct decision *out, const struct object *row, const struct request *request)
{
    const uint32_t needed = EVENT_HAS_SHA256 | EVENT_HAS_SIZE;
    int rc = decide_early(row, request);

    assert((request->fields & needed) == needed);
    if (rc)
        return rc;
    if (request->from_cloud)
        return decide_from_cloud(out, row, request);
    if (!row) {
        put_event(out, row, request);
        return 0;
    }
    if (memcmp(row->sha256, request->sha256, SHA256_BYTES) != 0 || row->size != request->size)
        return ERR_CONFLICT;
    if (place_is_none(&row->place) || (is_checked(row, request) && request->damaged))
        put_event(out, row, request);
    else if (is_checked(row, request) && request->verified)
        decide_difference(out, row, request);
    else
        return ERR_UNVERIFIED;
    return 0;
}

static int decide_meta(struct decision *out, const struct object *row,
                       const struct request *request)
{
    if (!row)
        return ERR_NOT_FOUND;
    if (row->flags & OBJECT_DELETED)
        return ERR_DELETED;
    if (request->fields & EVENT_HAS_LEVEL && request->level < row->level)
        return ERR_CONFLICT;
    if ((request->fields & EVENT_HAS_LEVEL ? request->level : row->level) < request->needs_level)
        return ERR_RANGE;
    if (!condition_holds(request->condition, row))
        return ERR_PRECONDITION;
    decide_difference(out, row, request);
    return 0;
}

static bool has_expired(const struct object *row, const struct request *request)
{
    if (!row || row->expires_ms == 0)
        return false;
    return !(request->fields & EVENT_HAS_EXPIRES) || request->expires_ms == row->expires_ms;
}

static int decide_delete(struct decision *out, const struct object *row,
                         const struct request *request)
{
    if (!condition_holds(request->condition, row))
        return ERR_PRECONDITION;
    if (row && row->flags & OBJECT_DELETED && (!request->purge || row->flags & OBJECT_PURGE))
        return 0;
    if (request->reason == DELETE_EXPIRED && !has_expired(row, request))
        return 0;
    start_event(out, request, EVENT_DELETE);
    out->event.reason = request->reason;
    out->event.purge = request->purge;
    out->event.fields = (request->reason != DELETE_BY_CLIENT ? EVENT_HAS_REASON : 0) |
                        (request->purge ? EVENT_HAS_PURGE : 0);
    return 0;
}

/* Facts that are newer than the put that lost stay: its event says what was true then. */
static int decide_reput(struct decision *out, const struct object *row,
                        const struct request *request)
{
    assert(request->stamp > 0);
    if (row)
        return decide_hold(out, row, request);
    put_event(out, NULL, request);
    out->event.stamp = request->stamp;
    return 0;
}

static int decide_drop(struct decision *out, const struct object *row,
                       const struct request *request)
{
    if (!row)
        return ERR_NOT_FOUND;
    if (row->flags & OBJECT_DELETED || !is_checked(row, request))
        return 0;
    start_event(out, request, EVENT_DROP);
    one_item(out, row);
    return 0;
}

static int decide_move(struct decision *out, const struct object *row,
                       const struct request *request)
{
    if (!row)
        return ERR_NOT_FOUND;
    if (row->flags & OBJECT_DELETED || !is_checked(row, request))
        return 0;
    start_event(out, request, 0);
    out->store_body = true;
    return 0;
}

/* ---- The cloud ---- */

static void cloud_event(struct decision *out, const struct request *request, uint8_t state)
{
    out->verdict = VERDICT_COMMIT;
    out->event.kind = EVENT_CLOUD;
    out->event.id = request->id;
    out->event.fields = EVENT_HAS_CLOUD | (request->fields & EVENT_HAS_SHA256);
    out->event.cloud_state = state;
    out->event.backend = request->backend;
    out->event.bucket = request->bucket;
    out->event.key = request->key;
    out->event.etag = request->etag;
    memcpy(out->event.sha256, request->sha256, SHA256_BYTES);
}

static int decide_started(const struct object *row, const struct request *request, bool *needless)
{
    if (row->flags & OBJECT_DELETED)
        return ERR_DELETED;
    if (row->flags & OBJECT_PUT && memcmp(row->sha256, request->sha256, SHA256_BYTES) != 0)
        return ERR_CONFLICT;
    *needless = row->flags & OBJECT_UPLOADED;
    return 0;
}

static int decide_cloud(struct decision *out, const struct object *row,
                        const struct request *request)
{
    bool needless = false;
    int rc = 0;

    assert(request->cloud_state >= CLOUD_STARTED && request->cloud_state <= CLOUD_MARKED);
    assert(request->fields & EVENT_HAS_CLOUD);
    assert(request->cloud_state > CLOUD_UPLOADED || request->fields & EVENT_HAS_SHA256);
    if (!row)
        return ERR_NOT_FOUND;
    if (request->cloud_state == CLOUD_STARTED)
        rc = decide_started(row, request, &needless);
    if (request->cloud_state == CLOUD_MARKED) {
        rc = row->flags & OBJECT_DELETED ? 0 : ERR_CONFLICT;
        needless = row->flags & OBJECT_MARKED;
    }
    if (rc || needless)
        return rc;
    cloud_event(out, request, request->cloud_state);
    if (request->cloud_state == CLOUD_PURGED)
        out->event.removed = request->removed.stamp ? request->removed : object_removes(row);
    return 0;
}

static bool is_place(const struct object *row, const struct request *request)
{
    struct cloud_place place;

    return object_cloud(row, &place) && text_equal(place.backend, request->backend) &&
           text_equal(place.bucket, request->bucket) && text_equal(place.key, request->key) &&
           text_equal(place.etag, request->etag);
}

bool decide_uploaded(struct decision *out, const struct object *row, const struct request *request)
{
    bool known = row && row->flags & OBJECT_PUT;

    *out = (struct decision){.verdict = VERDICT_UNCHANGED};
    if (!(request->fields & EVENT_HAS_CLOUD) || request->kind == CHANGE_CLOUD)
        return false;
    if (row && row->flags & OBJECT_DELETED)
        return false;
    if (known &&
        (memcmp(row->sha256, request->sha256, SHA256_BYTES) != 0 || row->size != request->size))
        return false;
    if (row && !(row->flags & OBJECT_PURGED) && is_place(row, request) &&
        memcmp(row->uploaded_sha256, request->sha256, SHA256_BYTES) == 0)
        return false;
    cloud_event(out, request, CLOUD_UPLOADED);
    return true;
}

int decide(struct decision *out, const struct object *row, const struct request *request)
{
    assert(!row || id_equal(&row->id, &request->id));
    assert(!(request->verified && request->damaged));
    assert(!request->condition || request->kind <= CHANGE_DELETE);

    *out = (struct decision){.verdict = VERDICT_UNCHANGED};
    if (request->kind == CHANGE_CLOUD)
        return decide_cloud(out, row, request);
    if (row && object_is_partial(row))
        row = NULL;
    switch (request->kind) {
    case CHANGE_PUT:
        return decide_put(out, row, request);
    case CHANGE_META:
        return decide_meta(out, row, request);
    case CHANGE_DELETE:
        return decide_delete(out, row, request);
    case CHANGE_HOLD:
        return decide_hold(out, row, request);
    case CHANGE_DROP:
        return decide_drop(out, row, request);
    case CHANGE_MOVE:
        return decide_move(out, row, request);
    case CHANGE_REPUT:
        return decide_reput(out, row, request);
    case CHANGE_ADOPT:
        return decide_adopt(out, row, request);
    case CHANGE_CLOUD:
    case CHANGE_SNAPSHOT:
    case CHANGE_PEER:
    case CHANGE_MERGE:
    case CHANGE_FACT:
    case CHANGE_RESTATE:
        break;
    }
    assert(!"a kind of change that is none");
    return ERR_INVALID;
}
