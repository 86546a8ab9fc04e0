/*
 * What one committed entry changes in SQLite: its event, its row, what other nodes have of it, what
 * this node owes, the counters. All of it in the open transaction, in the order in which the
 * records lie in the log; the same for the applier, recovery and rebuild.
 *
 * Happy path: applier_put adds the event → facts about nodes → the row, with the outbox that
 * follows from it and the place that it frees → uploads begun or doubtful → conflicts → sums and
 * counters. An entry may come again (a move, a replay): its event is here then, and counts no more.
 *
 * Failure: the first error ends it; the caller rolls the transaction back and tries again.
 */
#include "journal/db_cluster.h"
#include "journal/db_peers.h"
#include "journal/journal_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int applier_origin(struct applier *a, const struct id128 *origin, const struct id128 *node,
                   struct db_origin **out)
{
    for (size_t i = a->origin_count; i-- > 0;)
        if (id_equal(&a->origins[i].origin, origin)) {
            *out = &a->origins[i];
            return 0;
        }

    struct db_origin *grown = realloc(a->origins, (a->origin_count + 1) * sizeof *grown);

    if (!grown)
        return ERR_NO_MEMORY;
    a->origins = grown;
    *out = &grown[a->origin_count];
    **out = (struct db_origin){.origin = *origin, .node = *node};
    int rc = db_origin_set(a->db, *out);

    if (rc == 0)
        a->origin_count++;
    return rc;
}

/* The own run that no later one follows. Cleaning moves old events behind newer ones, so it need
 * not be the one whose event came last; where rot took the event that says so, it is the youngest.
 */
static void find_last_run(struct journal *journal)
{
    struct applier *a = &journal->applier;
    const struct db_origin *last = NULL;

    for (size_t i = a->origin_count; i-- > 0;) {
        const struct db_origin *origin = &a->origins[i];

        if (origin->ended || !id_equal(&origin->node, &journal->node))
            continue;
        if (id_equal(&origin->origin, &a->state.last_origin))
            return;
        if (!last || id_compare(&origin->origin, &last->origin) > 0)
            last = origin;
    }
    if (last)
        a->state.last_origin = last->origin;
}

static int put_event(struct journal *journal, const struct entry *entry, bool *added)
{
    struct applier *a = &journal->applier;
    struct db_origin *origin;
    int rc;

    *added = false;
    if (!entry->adds_event)
        return 0;
    if ((rc = applier_origin(a, &entry->origin, &entry->node, &origin)) != 0)
        return rc;
    /* A move, or a replay, of what was compacted; kinds that no snapshot carries never are. */
    if (entry->is_covered && entry->seq <= origin->anchor_seq)
        return 0;
    rc = db_event_add(a->db, origin->no, entry->seq, entry->event, entry->event_bytes);
    if (rc && rc != ERR_EXISTS)
        return rc;
    *added = rc == 0;
    origin->gap |= entry->seq > origin->seq + 1;
    /* Also one that is there already, behind a hole that was filled just now. */
    if (entry->seq == origin->seq + 1) {
        origin->seq = entry->seq;
        origin->changed = origin->unsaved = true;
        memcpy(origin->hash, entry->hash, SHA256_BYTES);
    }
    if (!entry->ends_origin || !*added)
        return 0;
    /* Cleaning may have moved the run's own events behind this one: then its row comes first. */
    if ((rc = applier_origin(a, &entry->ended, &entry->node, &origin)) != 0 || origin->ended)
        return rc;
    origin->ended = true;
    origin->changed = origin->unsaved = true;
    return 0;
}

/* A run contradicts itself: it leaves every vector. Of one of our own, what others may lack is to
 * be said again. */
static int put_freeze(struct journal *journal, const struct event *event)
{
    struct applier *a = &journal->applier;
    struct db_frozen frozen = {
        .origin = event->subject, .node = event->run_node, .seq = event->follows.seq};
    struct db_origin *origin;
    bool news;
    int rc = applier_origin(a, &frozen.origin, &frozen.node, &origin);

    if (rc)
        return rc;
    frozen.node = origin->node;
    memcpy(frozen.hash, event->follows.hash, sizeof frozen.hash);
    if ((rc = db_freeze_fold(a->db, &frozen, &news)) != 0)
        return rc;
    origin->changed |= !origin->frozen;
    origin->frozen = true;
    if (!news)
        return 0;
    struct db_restate restate = {.origin = frozen.origin, .next = 1, .broke = frozen.seq};

    a->restate_changed = true;
    if (id_equal(&origin->node, &journal->node))
        return db_restate_add(a->db, &restate);
    return db_restate_lower(a->db, &restate); /* ours under an id that was ours: new_node.c */
}

/* What an event says of nodes: who belongs to us, who has copies of what. */
static int put_peer_fact(struct journal *journal, const struct entry *entry)
{
    struct db *db = journal->applier.db;
    struct event event;
    int rc = event_decode(&event, entry->event, entry->event_bytes);

    assert(rc == 0); /* it was decoded before it became an entry */
    if (entry->kind == EVENT_MEMBER) {
        journal->applier.members_changed = true;
        return db_member_fold(db, &event);
    }
    if (entry->kind == EVENT_FREEZE)
        return put_freeze(journal, &event);
    if (entry->kind == EVENT_FEATURE) {
        journal->applier.members_changed = true;
        return db_feature_raise(db, event.feature);
    }
    for (uint32_t i = 0; rc == 0 && i < event.item_count; i++) {
        bool deleted;

        rc = db_is_deleted(db, &event.items[i].id, &deleted);
        if (rc == 0 && !deleted)
            rc = db_holder_fold(db, &event, &event.items[i]);
    }
    return rc;
}

/* The hold that the other of two puts of the same bytes implies: it has to have a row, as the
 * object's names one put alone. */
static int put_implied_hold(struct journal *journal, const struct entry *entry)
{
    struct applier *a = &journal->applier;
    const struct object *object = entry->object;

    assert(object);
    struct event_item item = {.id = object->id};
    struct event event = {
        .kind = EVENT_HOLD, .stamp = entry->also_put_at.stamp, .origin = entry->also_put_at.origin};

    memcpy(item.sha256, object->sha256, SHA256_BYTES);
    for (size_t i = a->origin_count; i-- > 0;)
        if (id_equal(&a->origins[i].origin, &event.origin)) {
            event.node = a->origins[i].node;
            return db_holder_fold(a->db, &event, &item);
        }
    return 0; /* a run of which nothing but rows is known: nobody knows whose it was */
}

int applier_remember_large(struct applier *a, uint64_t file)
{
    if (a->settle_count == a->settle_cap) {
        size_t cap = a->settle_cap ? 2 * a->settle_cap : 64;
        uint64_t *grown = realloc(a->settle, cap * sizeof *grown);

        if (!grown)
            return ERR_NO_MEMORY;
        a->settle = grown;
        a->settle_cap = cap;
    }
    a->settle[a->settle_count++] = file;
    return 0;
}

int applier_free(struct journal *journal, const struct place *place, uint64_t size,
                 uint32_t record_bytes, lsn_t lsn)
{
    struct applier *a = &journal->applier;

    assert(!place_is_none(place));
    if (place->volume == PLACE_LARGE)
        return db_garbage_add(a->db, place->offset, lsn);
    return applier_add_sums(a, place->volume, 0, -(int64_t)size, -(int64_t)record_bytes);
}

/* The outbox, as far as it follows from the row. */
static int put_owed(struct journal *journal, const struct entry *entry)
{
    const struct object *object = entry->object;
    struct db *db = journal->applier.db;
    const struct {
        enum outbox_kind kind;
        bool changed, owed;
    } rows[] = {
        {OUTBOX_UPLOAD, entry->owed_changed, entry->owed_after},
        {OUTBOX_REPLICA, entry->wanted_changed, entry->wanted_after},
        {OUTBOX_MARK, entry->mark_changed, entry->mark_after},
        {OUTBOX_PURGE, entry->purge_changed, entry->purge_after},
    };
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof rows / sizeof *rows; i++)
        if (rows[i].changed)
            rc = db_outbox_set(db, rows[i].kind, &object->id, object->size,
                               hlc_wall_ms(entry->stamp), rows[i].owed);
    return rc;
}

/* Whose run ORIGIN is: this node's. */
static bool is_own(struct journal *journal, const struct id128 *origin)
{
    const struct applier *a = &journal->applier;

    for (size_t i = a->origin_count; i-- > 0;)
        if (id_equal(&a->origins[i].origin, origin))
            return id_equal(&a->origins[i].node, &journal->node);
    return false;
}

/* Two nodes have uploaded different bytes to one place, and neither may have known of the other:
 * which of them are there by now is looked at as after a crash, by every node, as each of the two
 * may be gone. What is said then is believed where it agrees with what was said last. */
static int put_doubt(struct journal *journal, const struct entry *entry)
{
    const struct object *object = entry->object;

    if (!entry->doubt.stamp)
        return 0;
    if (is_own(journal, &entry->doubt.origin) && is_own(journal, &object->uploaded_at.origin) &&
        (entry->is_merge || id_equal(&entry->node, &journal->node)))
        return 0; /* one after the other */
    return db_outbox_set(journal->applier.db, OUTBOX_BEGUN, &object->id, object->size,
                         hlc_wall_ms(entry->stamp), true);
}

/* What this node began to upload, and has not said the end of. Cleaning may have brought the
 * beginning behind the end: an upload of ours that the row knows came later. (Of a purge it does
 * not know when it was said: after such a rebuild the uploader looks once more.) */
static int put_begun(struct journal *journal, const struct entry *entry)
{
    const struct object *object = entry->object;
    bool begins = entry->cloud_state == CLOUD_STARTED;

    assert(object); /* of every event about the cloud */
    if (entry->cloud_state == CLOUD_MARKED || (begins && object->uploaded_at.stamp > entry->stamp &&
                                               is_own(journal, &object->uploaded_at.origin)))
        return 0;
    return db_outbox_set(journal->applier.db, OUTBOX_BEGUN, &object->id, object->size,
                         hlc_wall_ms(entry->stamp), begins);
}

static int put_row(struct journal *journal, const struct entry *entry)
{
    struct applier *a = &journal->applier;
    const struct object *object = entry->object;
    int rc = db_object_set(a->db, object);

    if (rc == 0 && object->flags & OBJECT_DELETED &&
        (entry->is_merge || entry->kind == EVENT_DELETE))
        rc = db_holders_remove(a->db, &object->id);
    if (rc == 0)
        rc = put_owed(journal, entry);
    if (rc == 0 && entry->place_taken && object->place.volume == PLACE_LARGE)
        rc = applier_remember_large(a, object->place.offset);
    if (rc == 0 && entry->place_moved)
        rc = applier_free(journal, &entry->place_before, entry->size_before,
                          entry->record_bytes_before, entry->lsn);
    if (rc == 0 && entry->place_taken && object->place.volume != PLACE_LARGE)
        rc = applier_add_sums(a, object->place.volume, 0, (int64_t)object->size,
                              object->record_bytes);
    return rc;
}

int applier_put(struct journal *journal, const struct entry *entry)
{
    struct applier *a = &journal->applier;
    struct delta delta = entry->delta;
    bool added = false;
    int rc;

    if (entry->is_snapshot)
        return applier_put_snapshot(journal, entry);
    if (entry->is_merge && !entry->object)
        return applier_put_merge(journal, entry);
    rc = put_event(journal, entry, &added);
    if (rc == 0 && added && (fold_is_peer_fact(entry->kind) || entry->kind == EVENT_FREEZE))
        rc = put_peer_fact(journal, entry);
    if (rc == 0 && entry->restated_seq)
        rc = db_restate_set(a->db, &entry->restated, entry->restated_seq + 1);
    if (rc == 0 && entry->object)
        rc = put_row(journal, entry);
    if (rc == 0 && added && entry->kind == EVENT_CLOUD && id_equal(&entry->node, &journal->node))
        rc = put_begun(journal, entry);
    if (rc == 0 && (added || entry->is_merge) && entry->object)
        rc = put_doubt(journal, entry);
    if (rc == 0 && (added || entry->is_merge) && entry->also_put)
        rc = put_implied_hold(journal, entry);
    if (rc == 0 && entry->object)
        rc = applier_keep(journal, entry);
    if (rc == 0 && entry->inline_volume)
        rc = applier_add_sums(a, entry->inline_volume, entry->inline_bytes, 0, 0);
    if (rc)
        return rc;
    a->doubles += delta.events && !added;
    delta.events = added;
    state_add(&a->state, &delta);
    if (added)
        a->state.event_bytes += entry->event_bytes;
    /* What is believed of others' clocks is the committer's matter (hlc_observe). */
    if (entry->stamp > a->state.hlc && id_equal(&entry->node, &journal->node))
        a->state.hlc = entry->stamp;
    if (added)
        find_last_run(journal);
    return 0;
}
