/*
 * Chunks of a merge become entries: the committer folds what a peer sent, recovery and rebuild fold
 * what lies in the log, and as the join of rows does not mind order and repetition, both arrive at
 * the same.
 *
 * What a peer says is looked at as closely as an event is (event_says_ok): a row that no event
 * could have made never gets into the log.
 *
 * Failure: one bad item refuses the chunk; nothing of it is used.
 */
#include "journal/merge_chunk.h"

#include "journal/journal_internal.h"

#include <assert.h>
#include <string.h>

#define FACT_FLAGS                                                                                 \
    ((uint32_t)(OBJECT_PUT | OBJECT_DELETED | OBJECT_CLOUD | OBJECT_PURGE | OBJECT_MARKED))

/* A tombstone says nothing but when, and what is known of the cloud. */
static bool tombstone_ok(const struct object *o)
{
    return o->deleted_at > 0 && !(o->flags & OBJECT_PUT) && o->put_at.stamp == 0 &&
           o->name_at.stamp == 0 && o->user_meta_at.stamp == 0 && o->expires_at.stamp == 0 &&
           o->level == 0 && o->size == 0 && o->name_len == 0 && o->type_len == 0 &&
           o->user_meta_len == 0;
}

/* What is known of the cloud, an event of that must have said; and of a purge a delete. */
static bool cloud_facts_ok(const struct object *o)
{
    bool any = o->uploaded_at.stamp > 0 || o->purged_of.stamp > 0 || o->flags & OBJECT_MARKED;
    struct cloud_place place;

    return (!any || o->flags & OBJECT_CLOUD) &&
           (!(o->flags & OBJECT_PURGE) || o->flags & OBJECT_DELETED) &&
           (o->cloud_len == 0 ||
            (o->uploaded_at.stamp > 0 && cloud_place_read(&place, object_cloud_place(o))));
}

/* Values that merged events can have led to. */
static bool row_ok(const struct object *o)
{
    const struct event says = {.fields = EVENT_HAS_SIZE | EVENT_HAS_LEVEL | EVENT_HAS_NAME |
                                         EVENT_HAS_TYPE | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES,
                               .size = o->size,
                               .level = o->level,
                               .name = object_name(o),
                               .type = object_type(o),
                               .user_meta = object_user_meta(o),
                               .expires_ms = o->expires_ms};

    if (id_is_zero(&o->id) || !cloud_facts_ok(o))
        return false;
    if (o->flags & OBJECT_DELETED)
        return tombstone_ok(o);
    return o->deleted_at == 0 && !(o->flags & OBJECT_PUT) == (o->put_at.stamp == 0) &&
           event_says_ok(&says);
}

void merge_entries_destroy(struct entry *first)
{
    for (struct entry *next; first; first = next) {
        next = first->next;
        entry_destroy(first);
    }
}

struct folding {
    struct entry *first, *last;
    struct id128 previous; /* id of the row before */
    hlc_time stamp;
    lsn_t lsn;
};

static void append(struct folding *f, struct entry *entry)
{
    if (f->last)
        f->last->next = entry;
    else
        f->first = entry;
    f->last = entry;
}

/* Both nodes know a put of the same bytes, not the same one: each has left a copy with its author,
 * and the row names the later one alone. */
static void note_also_put(struct entry *entry, const struct object *before,
                          const struct object *row)
{
    if (!before || !(before->flags & row->flags & OBJECT_PUT) ||
        !(entry->object->flags & OBJECT_PUT) ||
        memcmp(before->sha256, row->sha256, SHA256_BYTES) != 0)
        return;
    int order = reg_compare(&row->put_at, &before->put_at);

    entry->also_put = order != 0;
    entry->also_put_at = order > 0 ? before->put_at : row->put_at;
}

static int fold_row(struct folding *f, struct object *row, merge_look_up *look_up, void *arg)
{
    struct object *before = NULL;
    struct entry *entry = NULL;
    bool changed = false;
    int rc;

    if (!row_ok(row) || id_compare(&row->id, &f->previous) <= 0)
        return ERR_INVALID;
    f->previous = row->id;
    row->flags &= FACT_FLAGS;
    if (object_stamp(row) > f->stamp)
        f->stamp = object_stamp(row);
    rc = look_up(arg, &row->id, &before);
    if (rc == 0 && !(entry = entry_create(NULL, 0)))
        rc = ERR_NO_MEMORY;
    if (rc == 0)
        rc = merge_rows(&entry->object, before, row, &changed);
    if (rc == 0)
        note_also_put(entry, before, row);
    if (rc == 0 && (changed || entry->also_put)) {
        entry->is_merge = true;
        entry->lsn = f->lsn++;
        entry->stamp = object_stamp(entry->object);
        rc = fold_changes(entry, before);
        entry->conflict = entry->loser != NULL;
    }
    if (rc == 0 && entry && entry->is_merge) {
        append(f, entry);
        entry = NULL;
    }
    entry_destroy(entry);
    object_destroy(&before);
    return rc;
}

static int fold_rows(struct folding *f, struct snapshot_reader *reader, merge_look_up *look_up,
                     void *arg)
{
    struct object *row = NULL;
    int rc;

    while ((rc = snapshot_next_row(reader, &row)) == 1) {
        rc = fold_row(f, row, look_up, arg);
        object_destroy(&row);
        if (rc)
            break;
    }
    return rc;
}

/* Every item is well-formed; what they say is the applier's to put into its tables. */
static int check_items(struct snapshot_reader *reader)
{
    struct snapshot_holder holder;
    struct snapshot_member member;
    struct snapshot_origin origin;
    uint32_t feature;
    int rc = 0;

    do {
        if (reader->kind == SNAPSHOT_HOLDERS) {
            rc = snapshot_next_holder(reader, &holder);
            if (rc == 1 &&
                (id_is_zero(&holder.id) || id_is_zero(&holder.node) || holder.at.stamp == 0))
                rc = ERR_INVALID;
        } else if (reader->kind == SNAPSHOT_FEATURE) {
            rc = snapshot_next_feature(reader, &feature);
        } else if (reader->kind == SNAPSHOT_MEMBERS) {
            rc = snapshot_next_member(reader, &member);
            if (rc == 1 && (id_is_zero(&member.node) || member.at.stamp == 0 ||
                            !event_address_ok(member.address)))
                rc = ERR_INVALID;
        } else {
            rc = snapshot_next_origin(reader, &origin);
            if (rc == 1 && (id_is_zero(&origin.origin) || id_is_zero(&origin.node) ||
                            origin.seq == 0 || !event_seq_ok(origin.seq)))
                rc = ERR_INVALID;
        }
    } while (rc == 1);
    return rc;
}

int merge_chunk_fold(struct entry **first, enum record_type *type, hlc_time *stamp,
                     const void *chunk, size_t len, lsn_t lsn, merge_look_up *look_up, void *arg)
{
    struct folding f = {.lsn = lsn};
    struct snapshot_reader reader;
    int rc = snapshot_open(&reader, chunk, len);

    *first = NULL;
    if (rc)
        return rc;
    *type = reader.kind == SNAPSHOT_ORIGINS ? RECORD_VECTOR : RECORD_MERGE;
    switch (reader.kind) {
    case SNAPSHOT_ROWS:
        rc = fold_rows(&f, &reader, look_up, arg);
        break;
    case SNAPSHOT_HOLDERS:
    case SNAPSHOT_MEMBERS:
    case SNAPSHOT_FEATURE:
    case SNAPSHOT_ORIGINS:
        if (reader.left == 0)
            return ERR_INVALID;
        rc = check_items(&reader);
        if (rc == 0 && !(f.first = entry_create(chunk, len)))
            rc = ERR_NO_MEMORY;
        if (rc == 0) {
            f.first->is_merge = true;
            f.first->lsn = lsn;
        }
        break;
    default:
        return ERR_INVALID;
    }
    if (rc) {
        merge_entries_destroy(f.first);
        return rc;
    }
    *first = f.first;
    *stamp = f.stamp;
    return 0;
}
