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
 *   tombstone  no change       no change       CLOUD flag      higher deleted_at
 *
 * Failure: memory alone.
 */
#include "journal/merge.h"

#include <assert.h>
#include <string.h>

/* A row in the making. */
struct draft {
    struct text name, type, user_meta;
    struct object row; /* its text lengths and text are not used */
};

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

static bool fold_cloud(struct draft *draft, const struct event *event)
{
    static const uint8_t none[SHA256_BYTES];
    struct object *row = &draft->row;
    struct reg at = event_reg(event);
    bool changed = !(row->flags & OBJECT_CLOUD);

    row->flags |= OBJECT_CLOUD;
    if (row->flags & OBJECT_DELETED || event->cloud_state == CLOUD_STARTED)
        return changed;
    const uint8_t *holds = event->cloud_state == CLOUD_UPLOADED ? event->sha256 : none;
    int order = reg_compare(&at, &row->uploaded_at);
    if (order == 0)
        order = memcmp(holds, row->uploaded_sha256, SHA256_BYTES);
    if (order <= 0)
        return changed;
    row->uploaded_at = at;
    memcpy(row->uploaded_sha256, holds, SHA256_BYTES);
    return true;
}

static bool fold_delete(struct draft *draft, const struct event *event)
{
    if (draft->row.flags & OBJECT_DELETED && draft->row.deleted_at >= event->stamp)
        return false;
    *draft = (struct draft){
        .row = {.id = draft->row.id,
                .flags = OBJECT_DELETED | (draft->row.flags & OBJECT_CLOUD),
                .deleted_at = event->stamp},
    };
    return true;
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
    bool uploaded = memcmp(row->uploaded_sha256, none, SHA256_BYTES) != 0 &&
                    memcmp(row->uploaded_sha256, row->sha256, SHA256_BYTES) == 0;
    bool same_bytes = before && before->flags & row->flags & OBJECT_PUT &&
                      memcmp(before->sha256, row->sha256, SHA256_BYTES) == 0;

    row->flags &= ~(uint32_t)(OBJECT_UPLOADED | OBJECT_PLAIN);
    if (uploaded)
        row->flags |= OBJECT_UPLOADED;
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

static bool join_uploaded(struct object *row, const struct object *other)
{
    int order = reg_compare(&other->uploaded_at, &row->uploaded_at);

    if (order == 0)
        order = memcmp(other->uploaded_sha256, row->uploaded_sha256, SHA256_BYTES);
    if (order <= 0)
        return false;
    row->uploaded_at = other->uploaded_at;
    memcpy(row->uploaded_sha256, other->uploaded_sha256, SHA256_BYTES);
    return true;
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
    changed |= join_uploaded(row, other);
    return changed;
}

static bool join(struct draft *draft, const struct object *other)
{
    struct object *row = &draft->row;
    bool changed = other->flags & ~row->flags & OBJECT_CLOUD;
    struct event end = {.stamp = other->deleted_at};

    row->flags |= other->flags & OBJECT_CLOUD;
    if (other->flags & OBJECT_DELETED)
        return fold_delete(draft, &end) || changed;
    if (row->flags & OBJECT_DELETED)
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
    }
    *changed = join(&draft, other);
    if (*changed)
        settle(&draft.row, before);
    *after = object_create(&draft.row, draft.name, draft.type, draft.user_meta);
    return *after ? 0 : ERR_NO_MEMORY;
}

int merge_event(struct object **after, const struct object *before, const struct event *event)
{
    struct draft draft = {.row = {.id = event->id}};

    assert(!before || id_equal(&before->id, &event->id));
    assert(event->stamp > 0);
    *after = NULL;
    if (before) {
        draft.row = *before;
        draft.name = object_name(before);
        draft.type = object_type(before);
        draft.user_meta = object_user_meta(before);
    }
    if (fold(&draft, event))
        settle(&draft.row, before);
    *after = object_create(&draft.row, draft.name, draft.type, draft.user_meta);
    return *after ? 0 : ERR_NO_MEMORY;
}
