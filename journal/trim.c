/*
 * The applier's side of snapshots: it takes note of a complete one, and then removes the events
 * that it covers from the database, a bounded number in each transaction, between those that apply
 * records.
 *
 * The chunks that list the runs (origins) put a snapshot's cuts into the database; its end chunk
 * makes it the newest. Both happen in the transaction of their batch, so a replay comes to the
 * same. From then on the events up to each cut are removed, oldest first, and the anchor of their
 * run moves along in the same transaction: verification starts above it. Kinds of events that no
 * snapshot carries are kept. Where a vector was adopted, events lie below the anchor that were not
 * looked at yet: so each run is looked through from its first event, once after each start.
 *
 * Failure: a transaction that fails is rolled back and tried again later; the events were merely
 * not removed yet.
 */
#include "base/log.h"
#include "journal/journal_internal.h"
#include "journal/snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TRIM_EVENTS   500
#define TRIM_RETRY_MS 10000

int fold_snapshot(struct entry **out, const void *chunk, size_t len, lsn_t lsn)
{
    struct snapshot_reader reader;
    int rc = snapshot_open(&reader, chunk, len);

    *out = NULL;
    if (rc)
        return rc;
    bool wanted = reader.kind == SNAPSHOT_ORIGINS || reader.kind == SNAPSHOT_END;

    *out = entry_create(chunk, wanted ? len : 0);
    if (!*out)
        return ERR_NO_MEMORY;
    (*out)->is_snapshot = true;
    (*out)->lsn = lsn;
    return 0;
}

static int put_cuts(struct db *db, struct snapshot_reader *reader)
{
    struct snapshot_origin origin;
    int rc;

    while ((rc = snapshot_next_origin(reader, &origin)) == 1) {
        struct db_cut cut = {.origin = origin.origin, .seq = origin.seq};

        memcpy(cut.hash, origin.hash, sizeof cut.hash);
        rc = db_cut_add(db, &reader->snapshot, &cut);
        if (rc)
            break;
    }
    return rc;
}

static int put_end(struct journal *journal, struct snapshot_reader *reader)
{
    struct db_snapshot snapshot = {.id = reader->snapshot}, known[DB_SNAPSHOTS];
    struct snapshot_end end;
    size_t count;
    int rc = snapshot_next_end(reader, &end);

    if (rc != 1)
        return rc ? rc : ERR_INVALID;
    if ((rc = db_snapshots(journal->applier.db, known, &count)) != 0)
        return rc;
    /* Cleaning has moved it. To set it again would forget the cuts of one being written. */
    if (count && end.position <= known[0].position)
        return 0;
    snapshot.position = end.position;
    snapshot.chunks = end.chunks;
    rc = db_snapshot_set(journal->applier.db, &snapshot);
    if (rc == 0)
        journal->applier.snapshots_changed = true;
    return rc;
}

int applier_put_snapshot(struct journal *journal, const struct entry *entry)
{
    struct snapshot_reader reader;
    int rc;

    assert(entry->is_snapshot && !entry->object);
    if (entry->event_bytes == 0)
        return 0;
    rc = snapshot_open(&reader, entry->event, entry->event_bytes);
    if (rc == 0)
        rc = reader.kind == SNAPSHOT_END ? put_end(journal, &reader)
                                         : put_cuts(journal->applier.db, &reader);
    if (rc == ERR_INVALID) { /* not of our making: such a snapshot covers nothing */
        log_error("journal: a snapshot's chunk at %llu cannot be read",
                  (unsigned long long)entry->lsn);
        rc = 0;
    }
    return rc;
}

int applier_load_snapshots(struct journal *journal)
{
    struct applier *a = &journal->applier;
    struct db_snapshot found[DB_SNAPSHOTS];
    size_t count;
    int rc = db_snapshots(a->db, found, &count);

    if (rc) {
        if (!a->snapshots_failed)
            log_error("journal: its snapshots cannot be read: %s; will retry", err_text(rc));
        a->snapshots_failed = true;
        return rc;
    }
    a->snapshots_changed = a->snapshots_failed = false;
    free(a->trim.cuts);
    a->trim = (struct trim){.cuts = NULL};
    pthread_mutex_lock(&journal->lock);
    if (count && !(journal->snapshots_known && id_equal(&journal->snapshots[0].id, &found[0].id)))
        atomic_store(&journal->held_back, atomic_load(&journal->shares_events));
    memcpy(journal->snapshots, found, sizeof found);
    journal->snapshots_known = count;
    atomic_store(&journal->trimming, count > 0);
    pthread_mutex_unlock(&journal->lock);
    /* Two of them hold what is below: should one rot, the other and what follows it tell all. */
    atomic_store(&journal->covered, count == DB_SNAPSHOTS ? found[count - 1].position : 0);
    return 0;
}

static bool keep(const uint8_t *raw, size_t len)
{
    struct event event;

    return event_decode(&event, raw, len) != 0 || !fold_is_covered(&event);
}

static struct db_origin *origin_named(struct applier *a, const struct id128 *id)
{
    for (size_t i = 0; i < a->origin_count; i++)
        if (id_equal(&a->origins[i].origin, id))
            return &a->origins[i];
    return NULL;
}

/* The next run of which events are to go; NULL: there is none. */
static struct db_origin *next_origin(struct applier *a, const struct db_cut **cut)
{
    for (; a->trim.next < a->trim.count; a->trim.next++) {
        struct db_origin *origin = origin_named(a, &a->trim.cuts[a->trim.next].origin);

        *cut = &a->trim.cuts[a->trim.next];
        if (origin && origin->trimmed < (*cut)->seq)
            return origin;
    }
    return NULL;
}

/* Some events of ORIGIN up to CUT, and commit. */
static int trim_origin(struct journal *journal, struct db_origin *origin, const struct db_cut *cut,
                       struct db_trim *out)
{
    struct applier *a = &journal->applier;
    int rc =
        db_events_trim(a->db, origin->no, origin->trimmed + 1, cut->seq, TRIM_EVENTS, keep, out);

    if (rc == 0) {
        bool all = out->last_seq == 0; /* none was left */

        origin->trimmed = all ? cut->seq : out->last_seq;
        if (origin->trimmed > origin->anchor_seq) {
            origin->anchor_seq = origin->trimmed;
            memcpy(origin->anchor_hash, all ? cut->hash : out->last_hash, SHA256_BYTES);
            origin->changed = true; /* whoever gives events to others has to know */
            rc = db_origin_set(a->db, origin);
        }
    }
    if (rc == 0) {
        assert(a->state.events >= out->removed && a->state.event_bytes >= out->removed_bytes);
        a->state.events -= out->removed;
        a->state.event_bytes -= out->removed_bytes;
        rc = db_state_set(a->db, &a->state);
    }
    return rc ? rc : db_commit(a->db);
}

static int trim_some(struct journal *journal)
{
    struct applier *a = &journal->applier;
    const struct db_cut *cut = NULL;
    struct db_trim trimmed;
    int rc = 0;

    if (!a->trim.cuts)
        rc = db_cuts(a->db, &journal->snapshots[0].id, &a->trim.cuts, &a->trim.count);
    if (rc == 0)
        rc = applier_begin(journal);
    if (rc)
        return rc;
    struct db_origin *origin = next_origin(a, &cut);

    if (!origin) {
        db_rollback(a->db);
        atomic_store(&journal->trimming, false);
        return 0;
    }
    rc = trim_origin(journal, origin, cut, &trimmed);
    if (rc) {
        applier_rollback(journal);
        return rc;
    }
    applier_tell(journal);
    atomic_fetch_add(&journal->compacted_events, trimmed.removed);
    pthread_mutex_lock(&journal->lock);
    journal->acked.events -= trimmed.removed;
    journal->acked.event_bytes = a->state.event_bytes;
    pthread_mutex_unlock(&journal->lock);
    return 0;
}

bool applier_trim(struct journal *journal)
{
    struct applier *a = &journal->applier;
    uint64_t now_ms = env_mono_ms(journal->env);
    int rc;

    if (!atomic_load(&journal->trimming) || atomic_load(&journal->held_back) || a->failures ||
        now_ms < a->trim.after_ms)
        return false;
    assert(journal->snapshots_known > 0);
    rc = trim_some(journal);
    if (rc) {
        log_warn("journal: covered events are not removed: %s; will retry", err_text(rc));
        a->trim.after_ms = now_ms + TRIM_RETRY_MS;
        return false;
    }
    return atomic_load(&journal->trimming);
}
