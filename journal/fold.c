/*
 * What a log record does to an object's row: the one place where a commit, a recovery and a rebuild
 * agree. The committer folds what it has just decided; recovery and rebuild fold what they read; so
 * a replay arrives at the rows that were acknowledged.
 *
 * A record that carries a body of exactly the bytes that the row names becomes the row's place
 * where it is higher in the log than the place known so far. That one rule serves puts, moves and
 * rebuilds that meet records in another order than they were written in.
 *
 * Bytes that are here and lose against others under their id go on being live in the entry's
 * `loser`: see conflict.h.
 */
#include "journal/conflict.h"
#include "journal/journal_internal.h"

#include <assert.h>
#include <string.h>

static bool is_live(const struct object *object)
{
    return object && (object->flags & (OBJECT_PUT | OBJECT_DELETED)) == OBJECT_PUT;
}

void delta_add(struct delta *a, const struct delta *b)
{
    a->events += b->events;
    a->objects += b->objects;
    a->deleted += b->deleted;
    a->bytes += b->bytes;
    a->outbox += b->outbox;
    a->outbox_bytes += b->outbox_bytes;
    a->wanted += b->wanted;
    a->wanted_bytes += b->wanted_bytes;
    a->marks += b->marks;
    a->purges += b->purges;
    a->digest.low += b->digest.low;
    a->digest.high += b->digest.high;
}

void state_add(struct db_state *state, const struct delta *d)
{
    state->events += (uint64_t)d->events;
    state->objects += (uint64_t)d->objects;
    state->deleted += (uint64_t)d->deleted;
    state->bytes += (uint64_t)d->bytes;
    state->outbox += (uint64_t)d->outbox;
    state->outbox_bytes += (uint64_t)d->outbox_bytes;
    state->wanted += (uint64_t)d->wanted;
    state->wanted_bytes += (uint64_t)d->wanted_bytes;
    state->marks += (uint64_t)d->marks;
    state->purges += (uint64_t)d->purges;
    state->digest.low += d->digest.low;
    state->digest.high += d->digest.high;
}

void fold_delta(struct delta *d, const struct object *before, const struct object *after)
{
    struct hash128 old = object_digest(before), new = object_digest(after);
    bool was = is_live(before), is = is_live(after);
    bool owed = before && object_owed_here(before), owes = after && object_owed_here(after);
    bool wanted = before && object_wanted_here(before), wants = after && object_wanted_here(after);

    d->objects = is - was;
    d->bytes = (is ? (int64_t)after->size : 0) - (was ? (int64_t)before->size : 0);
    d->deleted =
        (after && after->flags & OBJECT_DELETED) - (before && before->flags & OBJECT_DELETED);
    d->outbox = owes - owed;
    d->outbox_bytes = (owes ? (int64_t)after->size : 0) - (owed ? (int64_t)before->size : 0);
    d->wanted = wants - wanted;
    d->wanted_bytes = (wants ? (int64_t)after->size : 0) - (wanted ? (int64_t)before->size : 0);
    d->marks = (after && object_owes_mark(after)) - (before && object_owes_mark(before));
    d->purges = (after && object_owes_purge(after)) - (before && object_owes_purge(before));
    d->digest.low = new.low - old.low;
    d->digest.high = new.high - old.high;
}

/* Whether EVENT, RAW, speaks of exactly the bytes that OBJECT names. */
static bool names_bytes(const struct object *object, const struct event *event, const void *raw,
                        size_t raw_bytes)
{
    struct event_item item;

    if (event->kind != EVENT_HOLD && event->kind != EVENT_DROP)
        return event->fields & EVENT_HAS_SHA256 &&
               memcmp(object->sha256, event->sha256, SHA256_BYTES) == 0;
    return event_items(raw, raw_bytes, &item, 1) == 1 && id_equal(&item.id, &object->id) &&
           memcmp(item.sha256, object->sha256, SHA256_BYTES) == 0;
}

/* The place of the body that the record at PLACE with HEADER bears. */
static struct place body_place(const struct record_header *header, const struct place *place,
                               uint32_t *bytes)
{
    struct place out = *place;

    *bytes = (uint32_t)record_bytes(header);
    if (header->flags & RECORD_LARGE) {
        out.volume = PLACE_LARGE;
        out.offset = header->file;
        *bytes = 0;
    }
    return out;
}

/* The record at PLACE bears a body; make it AFTER's where it is what AFTER names. */
static void take_body(struct object *after, const struct object *before, const struct event *event,
                      const void *raw, size_t raw_bytes, const struct record_header *header,
                      const struct place *place)
{
    bool has = header->flags & (RECORD_LARGE | RECORD_HAS_BODY);

    if (!has || !is_live(after) || after->size != header->size ||
        (!place_is_none(&after->place) && after->place.lsn >= place->lsn) ||
        !names_bytes(after, event, raw, raw_bytes))
        return;
    after->place = body_place(header, place, &after->record_bytes);
    /* A put into nothing says all that the row says; a move takes the same event elsewhere. */
    if (event->kind != EVENT_PUT)
        after->flags &= ~(uint32_t)OBJECT_PLAIN;
    else if (!before)
        after->flags |= OBJECT_PLAIN;
    else if (header->type != RECORD_MOVE)
        after->flags &= ~(uint32_t)OBJECT_PLAIN;
}

/* Our own statement that a copy is gone: it was found damaged. It speaks of the copy that lay below
 * it when it was written, not of one that came after it and before a move of it. */
static void drop_body(struct object *after, const struct event *event, const void *raw,
                      size_t raw_bytes, const struct record_header *header,
                      const struct place *place, const struct id128 *self)
{
    lsn_t written = header->type == RECORD_MOVE ? header->from : place->lsn;

    if (after->place.lsn >= written)
        return;
    if (event->kind != EVENT_DROP || !id_equal(&event->node, self) ||
        !names_bytes(after, event, raw, raw_bytes))
        return;
    after->place = (struct place){0};
    after->record_bytes = 0;
    after->flags &= ~(uint32_t)OBJECT_PLAIN;
}

bool fold_concerns_row(const struct event *event)
{
    switch (event->kind) {
    case EVENT_PUT:
    case EVENT_META:
    case EVENT_DELETE:
    case EVENT_CLOUD:
        return true;
    case EVENT_HOLD:
    case EVENT_DROP:
        return !id_is_zero(&event->id);
    default:
        return false;
    }
}

bool fold_is_peer_fact(uint32_t kind)
{
    return kind == EVENT_HOLD || kind == EVENT_DROP || kind == EVENT_MEMBER ||
           kind == EVENT_FEATURE;
}

bool fold_needs_row(const struct event *event, const struct id128 *self)
{
    bool copies = event->kind == EVENT_HOLD || event->kind == EVENT_DROP;

    return fold_concerns_row(event) && (!copies || id_equal(&event->node, self));
}

bool fold_is_copy_here(const struct event *event, const struct record_header *header,
                       const struct id128 *self)
{
    return (event->kind == EVENT_HOLD || event->kind == EVENT_DROP) &&
           (id_equal(&event->node, self) || header->flags & (RECORD_LARGE | RECORD_HAS_BODY));
}

bool fold_is_covered(const struct event *event)
{
    return fold_is_peer_fact(event->kind) || fold_concerns_row(event);
}

/* The record bears bytes that have lost already. */
static int fold_loser(struct entry *entry, const struct object *before, const struct event *event,
                      const struct record_header *header, const struct place *place)
{
    bool has = header->flags & (RECORD_LARGE | RECORD_HAS_BODY);
    uint32_t bytes;

    entry->conflict = header->type != RECORD_MOVE && conflict_is(before, event);
    if (conflict_beats(before, entry->object) || !has || event->size != header->size ||
        !conflict_loses(event, entry->object))
        return 0;
    entry->loser_taken = true;
    struct place at = body_place(header, place, &bytes);

    return conflict_loser(&entry->loser, event, &at, bytes);
}

/* Two puts of the same bytes: the row names the later one alone, but each has left a copy with its
 * author. */
static void note_also_put(struct entry *entry, const struct object *before,
                          const struct event *event)
{
    const struct object *after = entry->object;
    const struct reg at = {event->stamp, event->origin};

    if (event->kind != EVENT_PUT || !before || !is_live(before) || !is_live(after) ||
        memcmp(before->sha256, event->sha256, SHA256_BYTES) != 0 ||
        memcmp(after->sha256, event->sha256, SHA256_BYTES) != 0)
        return;
    int order = reg_compare(&at, &before->put_at);
    if (order == 0)
        return; /* one and the same, once more */
    entry->also_put = true;
    entry->also_put_at = order > 0 ? before->put_at : at;
}

static bool same_upload(const struct object *object, const uint8_t sha256[SHA256_BYTES])
{
    return memcmp(object->uploaded_sha256, sha256, SHA256_BYTES) == 0;
}

/* An upload of other bytes that is known already is the later one by its stamp. And whoever removed
 * it may not have known of this one, which only its stamp makes the earlier: clocks may be wrong.
 */
static void note_doubt(struct entry *entry, const struct event *event)
{
    const struct object *after = entry->object;
    const struct reg at = {event->stamp, event->origin};

    if (event->kind != EVENT_CLOUD || event->cloud_state != CLOUD_UPLOADED)
        return;
    if (after->flags & OBJECT_PURGED ? reg_compare(&after->purged_of, &at) != 0
                                     : !same_upload(after, event->sha256))
        entry->doubt = after->uploaded_at;
}

/* What was there as far as was known is not, or is something else, by news of somebody who may not
 * have known of it. */
static bool is_doubtful(const struct object *before, const struct object *after)
{
    if (!before || !before->uploaded_at.stamp || before->flags & OBJECT_PURGED)
        return false;
    if (after->flags & OBJECT_PURGED && reg_compare(&after->purged_of, &before->uploaded_at) != 0)
        return true;
    return !same_upload(before, after->uploaded_sha256);
}

static int fold_row(struct entry *entry, const struct object *before, const struct event *event,
                    const void *raw, size_t raw_bytes, const struct record_header *header,
                    const struct place *place, const struct id128 *self)
{
    int rc = merge_event(&entry->object, before, event);

    if (rc)
        return rc;
    note_also_put(entry, before, event);
    note_doubt(entry, event);
    drop_body(entry->object, event, raw, raw_bytes, header, place, self);
    take_body(entry->object, before, event, raw, raw_bytes, header, place);
    rc = fold_loser(entry, before, event, header, place);
    return rc ? rc : fold_changes(entry, before);
}

int fold_changes(struct entry *entry, const struct object *before)
{
    /* Bytes that are here, to which the row pointed, have lost. */
    if (conflict_beats(before, entry->object) && !(entry->loser = object_copy(before)))
        return ERR_NO_MEMORY;
    bool kept = entry->loser && !entry->loser_taken;

    if (before && !kept && !place_is_none(&before->place) &&
        !place_equal(&before->place, &entry->object->place)) {
        entry->place_moved = true;
        entry->place_before = before->place;
        entry->size_before = before->size;
        entry->record_bytes_before = before->record_bytes;
    }
    entry->place_taken = !place_is_none(&entry->object->place) &&
                         !(before && place_equal(&before->place, &entry->object->place));
    bool owed = before && object_owed_here(before);
    entry->owed_after = object_owed_here(entry->object);
    entry->owed_changed =
        owed != entry->owed_after || (owed && before->size != entry->object->size);
    entry->mark_after = object_owes_mark(entry->object);
    entry->mark_changed = (before && object_owes_mark(before)) != entry->mark_after;
    entry->purge_after = object_owes_purge(entry->object);
    entry->purge_changed = (before && object_owes_purge(before)) != entry->purge_after;
    if (is_doubtful(before, entry->object))
        entry->doubt = before->uploaded_at;
    bool wanted = before && object_wanted_here(before);
    entry->wanted_after = object_wanted_here(entry->object);
    entry->wanted_changed =
        wanted != entry->wanted_after ||
        (wanted && memcmp(before->sha256, entry->object->sha256, SHA256_BYTES) != 0);
    fold_delta(&entry->delta, before, entry->object);
    return 0;
}

int fold_event(struct entry **out, const struct object *before, const struct event *event,
               const void *raw, size_t raw_bytes, const struct record_header *header,
               const struct place *place, const struct id128 *self)
{
    struct entry *entry = entry_create(raw, raw_bytes);
    int rc;

    assert(raw_bytes > 0);
    if (!entry)
        return ERR_NO_MEMORY;
    entry->lsn = place->lsn;
    entry->adds_event = true;
    entry->origin = event->origin;
    entry->node = event->node;
    entry->seq = event->seq;
    entry->stamp = event->stamp;
    if (event->fields & EVENT_HAS_FOLLOWS && event->kind != EVENT_FREEZE) {
        entry->ends_origin = true;
        entry->ended = event->follows.origin;
    }
    if (event->fields & EVENT_HAS_AFTER) {
        entry->ends_origin = true;
        entry->ended = event->after.origin;
    }
    entry->kind = event->kind;
    entry->cloud_state = event->cloud_state;
    entry->is_covered = fold_is_covered(event);
    event_hash(raw, raw_bytes, entry->hash);
    if (header->flags & RECORD_HAS_BODY) {
        entry->inline_volume = place->volume;
        entry->inline_bytes = header->body_bytes;
    }
    /* What is held or dropped of an object that is not known yet makes no row of it. */
    bool waits = !before && (event->kind == EVENT_HOLD || event->kind == EVENT_DROP);
    bool needs = fold_needs_row(event, self) ||
                 (fold_concerns_row(event) && fold_is_copy_here(event, header, self));
    if (needs && !waits &&
        (rc = fold_row(entry, before, event, raw, raw_bytes, header, place, self)) != 0) {
        entry_destroy(entry);
        return rc;
    }
    entry->delta.events = 1;
    *out = entry;
    return 0;
}
