/*
 * The applier: puts committed records into SQLite, behind the committer and never waited for by it.
 *
 * Happy path: take whole batches up to LIMIT_APPLY_RECORDS records → one transaction (events, rows,
 * outbox, segment sums, counters, log position) → drop them from the pending table; every
 * CHECKPOINT_PAGES pages of WAL a checkpoint, which moves the durable position: the log below it
 * may be freed.
 *
 * Failure: a transaction that fails is rolled back and tried again, for a synced record is
 * committed whatever SQLite says; meanwhile its entries stay pending, readers still see them, and
 * the node takes no more writes.
 */
#include "base/log.h"
#include "journal/db_cluster.h"
#include "journal/db_peers.h"
#include "journal/journal_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define IDLE_CHECKPOINT_MS 3000
#define CHECKPOINT_AGE_MS  30000
#define COMPLAIN_MS        60000

int applier_open(struct journal *journal)
{
    struct applier *a = &journal->applier;
    struct db_segment *segments = NULL;
    size_t count = 0;
    int rc;

    if ((rc = db_state_get(a->db, &a->state)) != 0 ||
        (rc = db_origins(a->db, &a->origins, &a->origin_count)) != 0 ||
        (rc = applier_count_losers(journal)) != 0 ||
        (rc = db_segments(a->db, &segments, &count)) != 0)
        return rc;
    a->sums = calloc(count ? count : 1, sizeof *a->sums);
    if (!a->sums) {
        free(segments);
        return ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < count; i++)
        a->sums[i] = (struct segment_sums){.volume = segments[i].log.volume,
                                           .body_bytes = segments[i].body_bytes,
                                           .live_bytes = segments[i].live_bytes,
                                           .live_record_bytes = segments[i].live_record_bytes,
                                           .dirty = !segments[i].log.sealed};
    a->sum_count = count;
    free(segments);
    return 0;
}

void applier_close(struct journal *journal)
{
    struct applier *a = &journal->applier;

    db_close(&a->db);
    free(a->origins);
    free(a->settle);
    free(a->sums);
    free(a->trim.cuts);
    a->trim.cuts = NULL;
    a->origins = NULL;
    a->settle = NULL;
    a->sums = NULL;
}

/* The sums of VOLUME, made where they are missing. Under sums_lock. */
static struct segment_sums *sums_of(struct applier *a, uint32_t volume)
{
    for (size_t i = a->sum_count; i-- > 0;)
        if (a->sums[i].volume == volume)
            return &a->sums[i];

    struct segment_sums *grown = realloc(a->sums, (a->sum_count + 1) * sizeof *grown);

    if (!grown)
        return NULL;
    a->sums = grown;
    grown[a->sum_count] = (struct segment_sums){.volume = volume, .dirty = true};
    return &grown[a->sum_count++];
}

int applier_add_sums(struct applier *a, uint32_t volume, int64_t body, int64_t live,
                     int64_t live_record)
{
    pthread_mutex_lock(&a->sums_lock);
    struct segment_sums *sums = sums_of(a, volume);

    if (sums) {
        sums->body_bytes += (uint64_t)body;
        sums->live_bytes += (uint64_t)live;
        sums->live_record_bytes += (uint64_t)live_record;
        sums->dirty = true;
    }
    pthread_mutex_unlock(&a->sums_lock);
    return sums ? 0 : ERR_NO_MEMORY;
}

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
        origin->changed = true;
        memcpy(origin->hash, entry->hash, SHA256_BYTES);
        if ((rc = db_origin_set(a->db, origin)) != 0)
            return rc;
    }
    if (!entry->ends_origin || !*added)
        return 0;
    /* Cleaning may have moved the run's own events behind this one: then its row comes first. */
    if ((rc = applier_origin(a, &entry->ended, &entry->node, &origin)) != 0 || origin->ended)
        return rc;
    origin->ended = true;
    origin->changed = true;
    return db_origin_set(a->db, origin);
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
        struct object *object = NULL;

        rc = db_find_writing(db, &event.items[i].id, &object);
        if (rc == ERR_NOT_FOUND || (rc == 0 && !(object->flags & OBJECT_DELETED)))
            rc = db_holder_fold(db, &event, &event.items[i]);
        object_destroy(&object);
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

/* Rows of the segments that changed, or that the log has sealed or opened meanwhile. */
static int write_segments(struct journal *journal)
{
    struct applier *a = &journal->applier;
    struct log_segment *segments;
    size_t count;
    int rc = log_segments(journal->log, &segments, &count);

    if (rc)
        return rc;
    pthread_mutex_lock(&a->sums_lock);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct segment_sums *sums = sums_of(a, segments[i].volume);
        struct db_segment row = {.log = segments[i]};

        if (!sums) {
            rc = ERR_NO_MEMORY;
            break;
        }
        if (!sums->dirty && segments[i].sealed)
            continue;
        row.body_bytes = sums->body_bytes;
        row.live_bytes = sums->live_bytes;
        row.live_record_bytes = sums->live_record_bytes;
        rc = db_segment_set(a->db, &row);
        sums->dirty = !segments[i].sealed; /* the row that seals it is still to come */
        sums->settled_at = a->state.position;
    }
    pthread_mutex_unlock(&a->sums_lock);
    free(segments);
    return rc;
}

int applier_commit(struct journal *journal, lsn_t position)
{
    struct applier *a = &journal->applier;
    int rc = 0;

    assert(position >= a->state.position);
    if (a->settle_count) {
        rc = large_settle(journal->large, a->settle, a->settle_count);
        if (rc == ERR_NOT_FOUND)
            rc = 0; /* removed since, by a later record; else reads and the scrub report it */
    }
    a->state.position = position;
    if (rc == 0)
        rc = write_segments(journal);
    if (rc == 0)
        rc = db_state_set(a->db, &a->state);
    if (rc == 0)
        rc = db_commit(a->db);
    if (rc == 0) {
        atomic_store(&journal->losers, a->losers);
        atomic_store(&journal->loser_bytes, a->loser_bytes);
    }
    return rc;
}

/* Make our own picture of the database's state, origins and sums what the database says. */
static int read_back(struct journal *journal)
{
    struct applier *a = &journal->applier;
    struct db_segment *segments = NULL;
    struct db_origin *origins = NULL;
    struct db_state state;
    size_t count = 0, origin_count = 0;
    int rc;

    if ((rc = db_settle(a->db)) != 0 || (rc = db_state_get(a->db, &state)) != 0 ||
        (rc = applier_count_losers(journal)) != 0 ||
        (rc = db_origins(a->db, &origins, &origin_count)) != 0 ||
        (rc = db_segments(a->db, &segments, &count)) != 0) {
        free(origins);
        return rc;
    }
    a->state = state;
    free(a->origins);
    a->origins = origins;
    a->origin_count = origin_count;
    pthread_mutex_lock(&a->sums_lock);
    /* Also a segment whose first row was in that transaction has to get it again. */
    for (size_t i = 0; i < a->sum_count; i++) {
        a->sums[i].body_bytes = a->sums[i].live_bytes = a->sums[i].live_record_bytes = 0;
        a->sums[i].dirty = true;
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct segment_sums *sums = sums_of(a, segments[i].log.volume);

        if (sums) {
            sums->body_bytes = segments[i].body_bytes;
            sums->live_bytes = segments[i].live_bytes;
            sums->live_record_bytes = segments[i].live_record_bytes;
        } else {
            rc = ERR_NO_MEMORY;
        }
    }
    pthread_mutex_unlock(&a->sums_lock);
    free(segments);
    a->stale = rc != 0;
    return rc;
}

int applier_begin(struct journal *journal)
{
    struct applier *a = &journal->applier;
    int rc = a->stale ? read_back(journal) : 0;

    a->settle_count = 0;
    a->doubles = 0;
    return rc ? rc : db_begin(a->db);
}

void applier_rollback(struct journal *journal)
{
    db_rollback(journal->applier.db);
    journal->applier.stale = true;
    if (read_back(journal) != 0)
        log_error("journal: its state cannot be read after a rollback");
}

int applier_checkpoint(struct journal *journal)
{
    struct applier *a = &journal->applier;
    bool complete = false;
    /* After a rollback the position may be one that was never committed. */
    int rc = a->stale ? read_back(journal) : 0;

    if (rc == 0 && !journal->config.sync)
        rc = log_flush(journal->log);
    if (rc == 0)
        rc = db_checkpoint(a->db, &complete);
    if (rc) {
        if (env_mono_ms(journal->env) >= a->complain_ms) {
            log_error("journal: checkpoint failed: %s", err_text(rc));
            a->complain_ms = env_mono_ms(journal->env) + COMPLAIN_MS;
        }
        a->checkpoint_after_ms = env_mono_ms(journal->env) + IDLE_CHECKPOINT_MS;
        return rc;
    }
    a->checkpoint_after_ms = 0;
    a->checkpointed_ms = env_mono_ms(journal->env);
    if (complete) {
        pthread_mutex_lock(&journal->lock);
        journal->durable_position = a->state.position;
        pthread_mutex_unlock(&journal->lock);
    }
    return 0;
}

/*
 * What the janitor has unlinked leaves the database too. Its own small transaction, at a moment
 * when none is open; a crash before it only means that the unlinking is tried again.
 */
static void forget_removed(struct journal *journal)
{
    struct applier *a = &journal->applier;
    int rc;

    pthread_mutex_lock(&a->sums_lock);
    bool due = a->removed_volume || a->removed_files_through;
    uint32_t volume = a->removed_volume;
    lsn_t files_through = a->removed_files_through;

    pthread_mutex_unlock(&a->sums_lock);
    if (!due)
        return;
    rc = db_begin(a->db);
    if (rc == 0 && volume)
        rc = db_segment_remove(a->db, volume);
    if (rc == 0 && files_through)
        rc = db_garbage_remove(a->db, files_through);
    if (rc == 0)
        rc = db_commit(a->db);
    if (rc) {
        db_rollback(a->db);
        return;
    }
    pthread_mutex_lock(&a->sums_lock);
    for (size_t i = 0; volume && i < a->sum_count; i++)
        if (a->sums[i].volume == volume)
            a->sums[i--] = a->sums[--a->sum_count];
    if (a->removed_volume == volume)
        a->removed_volume = 0;
    if (a->removed_files_through == files_through)
        a->removed_files_through = 0;
    pthread_mutex_unlock(&a->sums_lock);
}

int applier_forget_now(struct journal *journal, uint32_t volume)
{
    struct applier *a = &journal->applier;

    assert(!a->removed_volume);
    a->removed_volume = volume;
    forget_removed(journal);
    return a->removed_volume ? ERR_IO : 0;
}

/* The next batches in commit order, whole ones, LIMIT_APPLY_RECORDS records or one batch. */
static struct entry *take_batches(struct journal *journal, struct entry **last, unsigned *count)
{
    struct entry *first, *end = NULL;

    *count = 0;
    pthread_mutex_lock(&journal->lock);
    first = journal->apply_first;
    for (struct entry *entry = first; entry; entry = entry->next) {
        ++*count;
        if (entry->batch_end) {
            end = entry;
            if (*count >= LIMIT_APPLY_RECORDS)
                break;
        }
    }
    if (end) {
        journal->apply_first = end->next;
        if (!end->next)
            journal->apply_last = NULL;
        end->next = NULL;
        journal->apply_queued -= *count;
    }
    pthread_mutex_unlock(&journal->lock);
    assert(!first || end); /* batches are handed over whole */
    *last = end;
    return first;
}

static int apply_all(struct journal *journal, const struct entry *first, const struct entry *last)
{
    int rc = applier_begin(journal);

    if (rc)
        return rc;
    for (const struct entry *entry = first; rc == 0 && entry; entry = entry->next)
        rc = applier_put(journal, entry);
    if (rc == 0)
        rc = applier_commit(journal, last->batch_end);
    if (rc)
        applier_rollback(journal);
    return rc;
}

static void give_back(struct journal *journal, struct entry *first, struct entry *last,
                      unsigned count)
{
    pthread_mutex_lock(&journal->lock);
    journal->apply_queued += count;
    last->next = journal->apply_first;
    journal->apply_first = first;
    if (!journal->apply_last)
        journal->apply_last = last;
    pthread_mutex_unlock(&journal->lock);
}

/* What it hears is in SQLite. */
void applier_tell(struct journal *journal)
{
    struct applier *a = &journal->applier;
    struct journal_news news = {.digest = a->state.digest,
                                .events = a->state.events,
                                .event_bytes = a->state.event_bytes,
                                .rows = a->state.objects + a->state.deleted};

    if (!journal->listener)
        return;
    pthread_mutex_lock(&journal->lock);
    struct id128 run = journal->run;
    pthread_mutex_unlock(&journal->lock);
    for (size_t i = 0; i < a->origin_count; i++) {
        struct db_origin *origin = &a->origins[i];

        if (!origin->changed)
            continue;
        origin->changed = false;
        news.origin = origin;
        news.own = id_equal(&origin->origin, &run);
        journal->listener(journal->listener_arg, &news);
    }
    news.origin = NULL;
    news.own = false;
    news.members = a->members_changed;
    a->members_changed = false;
    journal->listener(journal->listener_arg, &news);
}

void applier_count_frozen(struct journal *journal)
{
    const struct applier *a = &journal->applier;
    uint64_t frozen = 0;

    for (size_t i = 0; i < a->origin_count; i++)
        frozen += a->origins[i].frozen;
    atomic_store(&journal->frozen_runs, frozen);
}

/* There is something for the janitor to journal again. */
static void tell_janitor(struct journal *journal)
{
    if (!journal->applier.restate_changed)
        return;
    journal->applier.restate_changed = false;
    applier_count_frozen(journal);
    atomic_store(&journal->restate.due, true);
    pthread_mutex_lock(&journal->lock);
    pthread_cond_broadcast(&journal->upkeep);
    pthread_mutex_unlock(&journal->lock);
}

static bool concerns_copies(const struct entry *entry)
{
    switch (entry->kind) {
    case EVENT_PUT:
    case EVENT_META:
    case EVENT_HOLD:
    case EVENT_DROP:
    case EVENT_DELETE:
    case EVENT_CLOUD:
        return entry->adds_event;
    default:
        return false;
    }
}

static bool owes_more(const struct entry *entry)
{
    return (entry->owed_changed && entry->owed_after) ||
           (entry->mark_changed && entry->mark_after) ||
           (entry->purge_changed && entry->purge_after);
}

/* The same of copies, while the entries are still there. */
static void tell_copies(struct journal *journal, const struct entry *first)
{
    bool merged = false;

    if (!journal->copies_listener)
        return;
    for (const struct entry *entry = first; entry; entry = entry->next) {
        merged |= entry->is_merge;
        if (!concerns_copies(entry))
            continue;
        bool wanted = entry->wanted_changed && entry->wanted_after;
        const struct journal_copy_news news = {.event = entry->event,
                                               .len = entry->event_bytes,
                                               .wanted = wanted ? &entry->object->id : NULL,
                                               .owed = owes_more(entry) ? &entry->object->id : NULL,
                                               .kind = entry->kind,
                                               .node = &entry->node,
                                               .row = entry->object};

        journal->copies_listener(journal->copies_arg, &news);
    }
    if (merged)
        journal->copies_listener(journal->copies_arg, &(struct journal_copy_news){.event = NULL});
}

static void applied(struct journal *journal, struct entry *first)
{
    bool lost = false;

    tell_copies(journal, first);
    for (struct entry *entry = first, *next; entry; entry = next) {
        next = entry->next;
        lost |= entry->loser != NULL;
        if (entry->conflict)
            atomic_fetch_add(&journal->conflicts, 1);
        pending_remove(journal->pending, entry);
    }
    pthread_mutex_lock(&journal->lock);
    if (lost)
        pthread_cond_broadcast(&journal->upkeep); /* the janitor puts them again */
    journal->acked.position = journal->applier.state.position;
    journal->acked.event_bytes = journal->applier.state.event_bytes;
    journal->acked.events -= journal->applier.doubles; /* the committer has counted them */
    if (journal->room_wanted)
        pthread_cond_signal(&journal->room);
    pthread_mutex_unlock(&journal->lock);
    applier_tell(journal);
    tell_janitor(journal);
    if (journal->applier.snapshots_changed && applier_load_snapshots(journal) != 0)
        return; /* logged; tried again at the next step */
}

/* By size, or by age, so that a trickle of writes cannot hold up the freeing of space. */
static void checkpoint_if_due(struct journal *journal, uint64_t now_ms)
{
    struct applier *a = &journal->applier;

    if (now_ms >= a->checkpoint_after_ms && (db_wal_pages(a->db) >= CHECKPOINT_PAGES ||
                                             now_ms - a->checkpointed_ms >= CHECKPOINT_AGE_MS))
        (void)applier_checkpoint(journal);
}

static bool durable_behind(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    bool behind = journal->durable_position < journal->applier.state.position;

    pthread_mutex_unlock(&journal->lock);
    return behind;
}

unsigned journal_apply_step(struct journal *journal)
{
    struct applier *a = &journal->applier;
    uint64_t now_ms = env_mono_ms(journal->env);
    struct entry *last, *first;
    unsigned count;

    forget_removed(journal);
    first = take_batches(journal, &last, &count);
    if (!first) {
        if (a->snapshots_changed && applier_load_snapshots(journal) == 0)
            return 1;
        if (applier_trim(journal)) {
            a->idle_since_ms = now_ms;
            checkpoint_if_due(journal, now_ms);
            return 1;
        }
        /* Also where the WAL is empty, after a start: what is durable is yet to be said. */
        if ((db_wal_pages(a->db) || durable_behind(journal)) &&
            now_ms - a->idle_since_ms >= IDLE_CHECKPOINT_MS) {
            a->idle_since_ms = now_ms;
            (void)applier_checkpoint(journal); /* logged; tried again after the next quiet spell */
        }
        return 0;
    }
    a->idle_since_ms = now_ms;
    int rc = apply_all(journal, first, last);

    if (rc) {
        if (a->failures++ == 0)
            log_error("journal: %u committed records cannot be applied: %s; will retry", count,
                      err_text(rc));
        atomic_fetch_or(&journal->read_only, READ_ONLY_DATABASE);
        give_back(journal, first, last, count);
        return 0;
    }
    if (a->failures) {
        log_info("journal: applying again after %u failures", a->failures);
        a->failures = 0;
        atomic_fetch_and(&journal->read_only, ~(unsigned)READ_ONLY_DATABASE);
    }
    applied(journal, first);
    (void)applier_trim(journal);
    checkpoint_if_due(journal, now_ms);
    return count;
}

bool applier_forget(struct journal *journal, uint32_t volume, lsn_t files_through)
{
    struct applier *a = &journal->applier;

    pthread_mutex_lock(&a->sums_lock);
    bool taken = !(volume && a->removed_volume);

    if (taken && volume)
        a->removed_volume = volume;
    if (files_through > a->removed_files_through)
        a->removed_files_through = files_through;
    pthread_mutex_unlock(&a->sums_lock);
    return taken;
}

lsn_t applier_segment_settled(struct journal *journal, uint32_t volume)
{
    struct applier *a = &journal->applier;
    lsn_t settled = LSN_LIMIT;

    pthread_mutex_lock(&a->sums_lock);
    for (size_t i = 0; i < a->sum_count; i++)
        if (a->sums[i].volume == volume && !a->sums[i].dirty)
            settled = a->sums[i].settled_at;
    pthread_mutex_unlock(&a->sums_lock);
    return settled;
}

bool applier_segment_empty(struct journal *journal, uint32_t volume)
{
    struct applier *a = &journal->applier;
    bool empty = false;

    pthread_mutex_lock(&a->sums_lock);
    for (size_t i = 0; i < a->sum_count; i++)
        if (a->sums[i].volume == volume)
            empty = a->sums[i].live_bytes == 0 && a->sums[i].live_record_bytes == 0;
    pthread_mutex_unlock(&a->sums_lock);
    return empty;
}

void applier_shun(struct journal *journal, uint32_t volume, uint64_t ms)
{
    struct applier *a = &journal->applier;

    pthread_mutex_lock(&a->sums_lock);
    for (size_t i = 0; i < a->sum_count; i++)
        if (a->sums[i].volume == volume)
            a->sums[i].shunned_until_ms = env_mono_ms(journal->env) + ms;
    pthread_mutex_unlock(&a->sums_lock);
}

/* What cleaning SEGMENT would free: bodies that no row points to; and where all its events are
 * covered by a snapshot, all but the records of live bodies. */
static uint64_t dead_in(const struct log_segment *segment, const struct segment_sums *sums,
                        lsn_t covered)
{
    if (segment->base + segment->end_bytes <= covered)
        return segment->end_bytes > sums->live_record_bytes
                   ? segment->end_bytes - sums->live_record_bytes
                   : 0;
    return sums->body_bytes > sums->live_bytes ? sums->body_bytes - sums->live_bytes : 0;
}

uint64_t applier_dead_bytes(struct journal *journal, uint32_t *best)
{
    lsn_t covered = atomic_load(&journal->covered);
    struct applier *a = &journal->applier;
    struct log_segment *segments;
    uint64_t dead_total = 0, dead_best = 0, now_ms = env_mono_ms(journal->env);
    size_t count;

    *best = 0;
    if (log_segments(journal->log, &segments, &count) != 0)
        return 0;
    pthread_mutex_lock(&a->sums_lock);
    for (size_t i = 0; i < count; i++) {
        struct segment_sums *sums = segments[i].sealed ? sums_of(a, segments[i].volume) : NULL;

        if (!sums || sums->shunned_until_ms > now_ms)
            continue;
        uint64_t dead = dead_in(&segments[i], sums, covered);

        dead_total += dead;
        if (2 * dead >= segments[i].end_bytes && dead > dead_best) {
            dead_best = dead;
            *best = segments[i].volume;
        }
    }
    pthread_mutex_unlock(&a->sums_lock);
    free(segments);
    return dead_total;
}
