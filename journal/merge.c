/*
 * The merge rules. A row is a product of small lattices (a maximum, a set of flags,
 * last-writer-wins registers), and delete is the top that swallows the rest; each step below raises
 * one of them and says whether it did. That is what makes any order and repetition of the same
 * events give the same row. Facts that come before their put wait in a partial row.
 *
 *   row        put             meta            cloud           delete
 *   none       live            partial         partial         tombstone
 *   partial    live            partial         partial         tombstone
 *   live       live            live            live            tombstone
 *   tombstone  no change       no change       tombstone       higher deleted_at, PURGE flag
 *
 * What is known of the cloud is a small lattice of its own beside all that, so a delete leaves it
 * alone: whoever removes the copy has to know where it is, whichever he hears of first. A purge
 * names the upload that it removed, and holds for that and all earlier ones; one that was under way
 * meanwhile is a later one, and is to be removed again.
 *
 * Failure: memory alone.
 */
#include "journal/merge.h"

#include <assert.h>
#include <string.h>

/* A row in the making. */
struct draft {
    struct text name, type, user_meta, cloud;
    char *place;       /* LIMIT_CLOUD_PLACE_BYTES for what an event says `cloud` is */
    struct object row; /* its text lengths and text are not used */
};

/* Flags that are set once and for ever, also of what is deleted. */
#define CLOUD_FLAGS ((uint32_t)(OBJECT_CLOUD | OBJECT_PURGE | OBJECT_MARKED))

int reg_compare(const struct reg *a, const struct reg *b)
{
    if (a->stamp != b->stamp)
        return a->stamp < b->stamp ? -1 : 1;
    int order = id_compare(&a->origin, &b->origin);
    return (order > 0) - (order < 0);
}

static int text_compare(struct text a, struct text b)
{
    uint32_t common = a.len < b.len ? a.len : b.len;
    int order = common ? memcmp(a.ptr, b.ptr, common) : 0;

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int number_compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static struct reg event_reg(const struct event *event)
{
    return (struct reg){.stamp = event->stamp, .origin = event->origin};
}

static bool raise_text(struct reg *reg, struct text *text, const struct event *event,
                       struct text value)
{
    struct reg at = event_reg(event);
    int order = reg_compare(&at, reg);

    if (order == 0)
        order = text_compare(value, *text);
    if (order <= 0)
        return false;
    *reg = at;
    *text = value;
    return true;
}

static bool raise_expires(struct draft *draft, const struct event *event)
{
    struct reg at = event_reg(event);
    int order = reg_compare(&at, &draft->row.expires_at);

    if (order == 0)
        order = number_compare(event->expires_ms, draft->row.expires_ms);
    if (order <= 0)
        return false;
    draft->row.expires_at = at;
    draft->row.expires_ms = event->expires_ms;
    return true;
}

/* What a put and a meta have in common. */
static bool fold_meta(struct draft *draft, const struct event *event)
{
    bool changed = false;

    if (event->fields & EVENT_HAS_LEVEL && event->level > draft->row.level) {
        draft->row.level = event->level;
        changed = true;
    }
    if (event->fields & EVENT_HAS_NAME)
        changed |= raise_text(&draft->row.name_at, &draft->name, event, event->name);
    if (event->fields & EVENT_HAS_USER_META)
        changed |= raise_text(&draft->row.user_meta_at, &draft->user_meta, event, event->user_meta);
    if (event->fields & EVENT_HAS_EXPIRES)
        changed |= raise_expires(draft, event);
    return changed;
}

static bool fold_put(struct draft *draft, const struct event *event)
{
    struct object *row = &draft->row;
    struct reg at = event_reg(event);
    struct text type = event->fields & EVENT_HAS_TYPE ? event->type : (struct text){NULL, 0};
    bool changed = fold_meta(draft, event);
    int order = reg_compare(&at, &row->put_at);

    if (order == 0)
        order = memcmp(event->sha256, row->sha256, SHA256_BYTES);
    if (order == 0)
        order = number_compare(event->size, row->size);
    if (order == 0)
        order = text_compare(type, draft->type);
    if (order <= 0)
        return changed;
    row->flags |= OBJECT_PUT;
    row->put_at = at;
    memcpy(row->sha256, event->sha256, SHA256_BYTES);
    row->size = event->size;
    draft->type = type;
    return true;
}

static bool raise_flags(struct draft *draft, uint32_t flags)
{
    bool changed = flags & ~draft->row.flags;

    draft->row.flags |= flags;
    return changed;
}

/* SHA256 was uploaded to PLACE, which outlives the draft. */
static bool raise_uploaded(struct draft *draft, const struct reg *at, const uint8_t *sha256,
                           struct text place)
{
    struct object *row = &draft->row;
    int order = reg_compare(at, &row->uploaded_at);

    if (order == 0)
        order = memcmp(sha256, row->uploaded_sha256, SHA256_BYTES);
    if (order == 0)
        order = text_compare(place, draft->cloud);
    if (order <= 0)
        return false;
    row->uploaded_at = *at;
    memcpy(row->uploaded_sha256, sha256, SHA256_BYTES);
    draft->cloud = place;
    return true;
}

static bool raise_purged(struct draft *draft, const struct reg *of)
{
    if (reg_compare(of, &draft->row.purged_of) <= 0)
        return false;
    draft->row.purged_of = *of;
    return true;
}

static bool fold_cloud(struct draft *draft, const struct event *event)
{
    const struct cloud_place place = {event->backend, event->bucket, event->key, event->etag};
    struct reg at = event_reg(event);
    bool changed = raise_flags(draft, OBJECT_CLOUD);

    switch (event->cloud_state) {
    case CLOUD_UPLOADED:
        changed |=
            raise_uploaded(draft, &at, event->sha256,
                           (struct text){draft->place, cloud_place_write(draft->place, &place)});
        break;
    case CLOUD_PURGED:
        changed |= raise_purged(draft, event->removed.stamp ? &event->removed : &at);
        break;
    case CLOUD_MARKED:
        changed |= raise_flags(draft, OBJECT_MARKED);
        break;
    default:
        break;
    }
    return changed;
}

static bool raise_deleted(struct draft *draft, hlc_time stamp)
{
    const struct object *row = &draft->row;

    if (row->flags & OBJECT_DELETED && row->deleted_at >= stamp)
        return false;
    struct object tombstone = {.id = row->id,
                               .flags = OBJECT_DELETED | (row->flags & CLOUD_FLAGS),
                               .uploaded_at = row->uploaded_at,
                               .purged_of = row->purged_of,
                               .deleted_at = stamp};

    memcpy(tombstone.uploaded_sha256, row->uploaded_sha256, SHA256_BYTES);
    draft->row = tombstone;
    draft->name = draft->type = draft->user_meta = (struct text){NULL, 0};
    return true;
}

static bool fold_delete(struct draft *draft, const struct event *event)
{
    bool purge = event->fields & EVENT_HAS_PURGE && event->purge;
    bool changed = purge && raise_flags(draft, OBJECT_PURGE);

    return raise_deleted(draft, event->stamp) || changed;
}

static bool fold(struct draft *draft, const struct event *event)
{
    bool deleted = draft->row.flags & OBJECT_DELETED;

    switch (event->kind) {
    case EVENT_PUT:
        return !deleted && fold_put(draft, event);
    case EVENT_META:
        return !deleted && fold_meta(draft, event);
    case EVENT_CLOUD:
        return fold_cloud(draft, event);
    case EVENT_DELETE:
        return fold_delete(draft, event);
    default:
        return false;
    }
}

/* Flags and place follow from the facts. */
static void settle(struct object *row, const struct object *before)
{
    static const uint8_t none[SHA256_BYTES];
    bool purged = row->purged_of.stamp > 0 && reg_compare(&row->purged_of, &row->uploaded_at) >= 0;
    bool uploaded = !purged && memcmp(row->uploaded_sha256, none, SHA256_BYTES) != 0 &&
                    memcmp(row->uploaded_sha256, row->sha256, SHA256_BYTES) == 0;
    bool same_bytes = before && before->flags & row->flags & OBJECT_PUT &&
                      memcmp(before->sha256, row->sha256, SHA256_BYTES) == 0;

    row->flags &= ~(uint32_t)(OBJECT_UPLOADED | OBJECT_PURGED | OBJECT_PLAIN);
    if (uploaded)
        row->flags |= OBJECT_UPLOADED;
    if (purged)
        row->flags |= OBJECT_PURGED;
    if (!same_bytes) {
        row->place = (struct place){0};
        row->record_bytes = 0;
    }
}

/* ---- Rows of another node ---- */

static bool raise_reg_text(struct reg *reg, struct text *text, const struct reg *at,
                           struct text value)
{
    int order = reg_compare(at, reg);

    if (order == 0)
        order = text_compare(value, *text);
    if (order <= 0)
        return false;
    *reg = *at;
    *text = value;
    return true;
}

static bool join_put(struct draft *draft, const struct object *other)
{
    struct object *row = &draft->row;
    int order = reg_compare(&other->put_at, &row->put_at);

    if (!(other->flags & OBJECT_PUT))
        return false;
    if (order == 0)
        order = memcmp(other->sha256, row->sha256, SHA256_BYTES);
    if (order == 0)
        order = number_compare(other->size, row->size);
    if (order == 0)
        order = text_compare(object_type(other), draft->type);
    if (order <= 0)
        return false;
    row->flags |= OBJECT_PUT;
    row->put_at = other->put_at;
    memcpy(row->sha256, other->sha256, SHA256_BYTES);
    row->size = other->size;
    draft->type = object_type(other);
    return true;
}

/* What is known of the cloud, be either deleted or not. */
static bool join_cloud(struct draft *draft, const struct object *other)
{
    bool changed = raise_flags(draft, other->flags & CLOUD_FLAGS);

    changed |= raise_uploaded(draft, &other->uploaded_at, other->uploaded_sha256,
                              object_cloud_place(other));
    changed |= raise_purged(draft, &other->purged_of);
    return changed;
}

static bool join_expires(struct object *row, const struct object *other)
{
    int order = reg_compare(&other->expires_at, &row->expires_at);

    if (order == 0)
        order = number_compare(other->expires_ms, row->expires_ms);
    if (order <= 0)
        return false;
    row->expires_at = other->expires_at;
    row->expires_ms = other->expires_ms;
    return true;
}

/* Neither is deleted. */
static bool join_live(struct draft *draft, const struct object *other)
{
    struct object *row = &draft->row;
    bool changed = join_put(draft, other);

    if (other->level > row->level) {
        row->level = other->level;
        changed = true;
    }
    changed |= raise_reg_text(&row->name_at, &draft->name, &other->name_at, object_name(other));
    changed |= raise_reg_text(&row->user_meta_at, &draft->user_meta, &other->user_meta_at,
                              object_user_meta(other));
    changed |= join_expires(row, other);
    return changed;
}

static bool join(struct draft *draft, const struct object *other)
{
    bool changed = join_cloud(draft, other);

    if (other->flags & OBJECT_DELETED)
        return raise_deleted(draft, other->deleted_at) || changed;
    if (draft->row.flags & OBJECT_DELETED)
        return changed;
    return join_live(draft, other) || changed;
}

int merge_rows(struct object **after, const struct object *before, const struct object *other,
               bool *changed)
{
    struct draft draft = {.row = {.id = other->id}};

    assert(!before || id_equal(&before->id, &other->id));
    *after = NULL;
    if (before) {
        draft.row = *before;
        draft.name = object_name(before);
        draft.type = object_type(before);
        draft.user_meta = object_user_meta(before);
        draft.cloud = object_cloud_place(before);
    }
    *changed = join(&draft, other);
    if (*changed)
        settle(&draft.row, before);
    *after = object_create_placed(&draft.row, draft.name, draft.type, draft.user_meta, draft.cloud);
    return *after ? 0 : ERR_NO_MEMORY;
}

int merge_event(struct object **after, const struct object *before, const struct event *event)
{
    char place[LIMIT_CLOUD_PLACE_BYTES];
    struct draft draft = {.row = {.id = event->id}, .place = place};

    assert(!before || id_equal(&before->id, &event->id));
    assert(event->stamp > 0);
    *after = NULL;
    if (before) {
        draft.row = *before;
        draft.name = object_name(before);
        draft.type = object_type(before);
        draft.user_meta = object_user_meta(before);
        draft.cloud = object_cloud_place(before);
    }
    if (fold(&draft, event))
        settle(&draft.row, before);
    *after = object_create_placed(&draft.row, draft.name, draft.type, draft.user_meta, draft.cloud);
    return *after ? 0 : ERR_NO_MEMORY;
}
