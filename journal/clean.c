/*
 * Upkeep: freeing space, and what else must not wait for a client. The janitor's thread calls it
 * one bounded step at a time.
 *
 * Cleaning a segment: the sealed one with most dead bytes, once half of it is dead → its records
 * are read one by one and sent through the committer as moves (the event verbatim, since every
 * event is kept until a snapshot covers it; the body where a row still points to it; what a
 * snapshot covers is left behind, and so are chunks of snapshots that nobody needs) → when the
 * durable position has passed the last move, no row can point into the old segment even after a
 * crash, and it is unlinked. A move is decided by the committer against the newest row, so a body
 * that is deleted or put again meanwhile is not moved.
 *
 * Failure: a segment with rot in what is still wanted is left alone: a body that reads back wrong
 * just now may be whole on the disk, and what damaged heads hide may be wanted too.
 * Large files whose object is gone stand in the database's garbage table until the durable position
 * has passed the change that freed them.
 */
#include "base/io.h"
#include "base/log.h"
#include "journal/journal_internal.h"
#include "journal/snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define STEP_BYTES       (2 * MIB)
#define STEP_MOVES       256
#define DISK_LOOK_MS     1000
#define GARBAGE_PER_STEP 64
#define RETRY_MS         10000
#define KEPT_RETRY_MS    (600 * 1000)
#define ROTTEN_RETRY_MS  (24 * 3600 * 1000ull)

struct move {
    struct change change;
    struct journal *journal;
    uint8_t bytes[]; /* the event, then the body */
};

static void move_done(struct change *change)
{
    struct move *move = (struct move *)change;
    struct journal *journal = move->journal;
    struct cleaner *cleaner = &journal->cleaner;

    if (change->rc) {
        atomic_store(&cleaner->failed, change->rc);
    } else if (change->lsn) {
        atomic_store(&cleaner->last_move, change->lsn); /* they come in order */
        atomic_fetch_add(&journal->moved_records, 1);
    }
    object_destroy(&change->object);
    free(move);
    atomic_fetch_sub(&cleaner->in_flight, 1);
}

/* 0 where no row wants the damaged body at PLACE. */
static int check_unwanted(struct journal *journal, const struct record_view *view,
                          const struct place *place)
{
    struct object *object = NULL;
    int rc = ERR_CORRUPT;

    if (journal_find(journal, journal->cleaner.reader, &view->header.id, &object) == 0 &&
        !place_equal(&object->place, place))
        rc = 0; /* and no row will ever point here again */
    object_destroy(&object);
    return rc;
}

/* A chunk of a snapshot that is complete, or still being written. */
static bool is_wanted_chunk(struct journal *journal, const struct record_view *view)
{
    struct snapshot_reader chunk;
    bool wanted;

    if (snapshot_open(&chunk, view->event, view->header.event_bytes) != 0)
        return true; /* of a newer version */
    wanted = compact_is_writing(journal, &chunk.snapshot);
    pthread_mutex_lock(&journal->lock);
    for (size_t i = 0; i < journal->snapshots_known; i++)
        wanted |= id_equal(&journal->snapshots[i].id, &chunk.snapshot);
    pthread_mutex_unlock(&journal->lock);
    return wanted;
}

static int submit_move(void *arg, const struct record_view *view, const struct place *place)
{
    struct journal *journal = arg;
    struct cleaner *cleaner = &journal->cleaner;
    const struct record_header *header = &view->header;
    size_t body = view->body ? header->body_bytes : 0;
    int rc;

    if (cleaner->batch_moves >= STEP_MOVES || cleaner->batch_bytes >= STEP_BYTES)
        return 1; /* enough for this step: this record is visited again in the next */
    bool merged = header->type == RECORD_MERGE || header->type == RECORD_VECTOR;
    bool chunk = merged || header->type == RECORD_SNAPSHOT;

    if (merged ? place->lsn < atomic_load(&journal->covered)
               : chunk && !is_wanted_chunk(journal, view))
        return 0;
    bool rotten = body && record_verify_body(view) != 0;
    if (rotten && (rc = check_unwanted(journal, view, place)) != 0)
        return rc;
    struct move *move = malloc(sizeof *move + header->event_bytes + body);

    if (!move)
        return ERR_NO_MEMORY;
    memset(move, 0, sizeof *move);
    move->journal = journal;
    memcpy(move->bytes, view->event, header->event_bytes);
    if (body)
        memcpy(move->bytes + header->event_bytes, view->body, body);
    if (header->blocks)
        memcpy(move->change.sums, view->sums, 8ul * header->blocks);
    move->change.request.kind = chunk ? CHANGE_SNAPSHOT : CHANGE_MOVE;
    move->change.move_rotten = rotten;
    move->change.move_covered = place->lsn < atomic_load(&journal->covered);
    move->change.request.id = header->id;
    move->change.done = move_done;
    move->change.move_event = move->bytes;
    move->change.move_event_bytes = header->event_bytes;
    move->change.body = move->bytes + header->event_bytes;
    move->change.move_from = *place;
    move->change.move_header = *header;
    atomic_fetch_add(&cleaner->in_flight, 1);
    rc = journal_submit(journal, &move->change);
    if (rc) {
        atomic_fetch_sub(&cleaner->in_flight, 1);
        free(move);
        return rc;
    }
    cleaner->batch_moves++;
    cleaner->batch_bytes += header->event_bytes + body;
    return 0;
}

/* Rot does not heal by itself; a full disk or a busy node may be otherwise soon. */
static void give_up(struct journal *journal, int rc)
{
    struct cleaner *cleaner = &journal->cleaner;

    if (rc == ERR_AGAIN) { /* bytes that lost are put again first */
        log_debug("segment %u is not cleaned yet", cleaner->volume);
        applier_shun(journal, cleaner->volume, KEPT_RETRY_MS);
    } else {
        log_warn("segment %u is not cleaned: %s", cleaner->volume, err_text(rc));
        applier_shun(journal, cleaner->volume, rc == ERR_CORRUPT ? ROTTEN_RETRY_MS : RETRY_MS);
    }
    cleaner->volume = 0;
    cleaner->moved_through = 0;
}

static bool begin_segment(struct journal *journal)
{
    struct cleaner *cleaner = &journal->cleaner;
    uint32_t volume;

    applier_dead_bytes(journal, &volume);
    if (!volume)
        return false;
    cleaner->volume = volume;
    cleaner->from = 0;
    cleaner->scanned = cleaner->unlinked = false;
    cleaner->rotten = 0;
    atomic_store(&cleaner->failed, 0);
    atomic_store(&cleaner->last_move, 0);
    log_debug("cleaning segment %u", volume);
    return true;
}

static bool scan_some(struct journal *journal)
{
    struct cleaner *cleaner = &journal->cleaner;
    int rc;

    cleaner->batch_moves = cleaner->batch_bytes = 0;
    rc = log_scan(journal->log, cleaner->volume, &cleaner->from, submit_move, journal,
                  &cleaner->rotten);
    if (rc == 1 || rc == ERR_FULL)
        return rc == 1; /* more to scan; an overloaded committer comes first */
    if (rc == 0 && cleaner->rotten)
        rc = ERR_CORRUPT;
    if (rc) {
        give_up(journal, rc);
        return true;
    }
    cleaner->scanned = true;
    return true;
}

static lsn_t durable_position(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    lsn_t position = journal->durable_position;

    pthread_mutex_unlock(&journal->lock);
    return position;
}

/* The position from which on, once durable, no row can point into the segment any more: the last
 * move is in it, and so are all the deletes that SQLite knew of when the last record was looked at.
 */
static lsn_t freed_when_durable(struct journal *journal)
{
    lsn_t moved = atomic_load(&journal->cleaner.last_move) + 1;

    pthread_mutex_lock(&journal->lock);
    lsn_t applied = journal->acked.position;

    pthread_mutex_unlock(&journal->lock);
    return moved > applied ? moved : applied;
}

static bool remove_segment(struct journal *journal)
{
    struct cleaner *cleaner = &journal->cleaner;
    int rc;

    if (cleaner->moved_through == 0)
        cleaner->moved_through = freed_when_durable(journal);
    if (durable_position(journal) < cleaner->moved_through || atomic_load(&journal->holds) ||
        durable_position(journal) < applier_segment_settled(journal, cleaner->volume))
        return false;
    if (!cleaner->unlinked) {
        rc = applier_segment_empty(journal, cleaner->volume)
                 ? log_remove(journal->log, cleaner->volume)
                 : ERR_CORRUPT;
        if (rc) {
            give_up(journal, rc);
            return true;
        }
        cleaner->unlinked = true;
        atomic_fetch_add(&journal->cleaned_segments, 1);
        log_debug("segment %u is cleaned", cleaner->volume);
    }
    if (!applier_forget(journal, cleaner->volume, 0))
        return false;
    cleaner->volume = 0;
    cleaner->moved_through = 0;
    return true;
}

/* True where there is more to do at once. */
bool cleaner_step(struct journal *journal)
{
    struct cleaner *cleaner = &journal->cleaner;
    int failed;

    if (atomic_load(&cleaner->in_flight))
        return false;
    if (!cleaner->volume)
        return begin_segment(journal);
    if ((failed = atomic_load(&cleaner->failed)) != 0) {
        give_up(journal, failed);
        return false;
    }
    return cleaner->scanned ? remove_segment(journal) : scan_some(journal);
}

struct garbage {
    struct journal *journal;
    lsn_t through;
    uint64_t files[GARBAGE_PER_STEP];
    unsigned count;
};

static int remove_large(void *arg, uint64_t file, lsn_t freed_at)
{
    struct garbage *garbage = arg;
    int rc = large_remove(garbage->journal->large, file);

    if (rc) {
        log_warn("large file %llx is not removed: %s", (unsigned long long)file, err_text(rc));
        return rc;
    }
    garbage->through = freed_at;
    garbage->files[garbage->count++] = file;
    return 0;
}

/* Unlink large files that nothing points to since before the durable position. */
static bool collect_garbage(struct journal *journal)
{
    struct cleaner *cleaner = &journal->cleaner;
    struct garbage garbage = {.journal = journal};
    lsn_t durable = durable_position(journal);
    int rc;

    if (durable == 0 || atomic_load(&journal->holds))
        return false;
    rc = db_each_garbage(cleaner->reader, cleaner->files_through, durable, GARBAGE_PER_STEP,
                         remove_large, &garbage);
    if (garbage.count == 0)
        return false;
    /* A file that a crash brought back after its row was gone would stay for ever. */
    int synced = large_sync_removed(journal->large, garbage.files, garbage.count);

    if (synced) {
        log_warn("removed large files are not synced: %s", err_text(synced));
        return false;
    }
    cleaner->files_through = garbage.through;
    applier_forget(journal, 0, garbage.through);
    return rc == 0;
}

bool journal_upkeep_step(struct journal *journal)
{
    bool more;

    disk_look(journal, DISK_LOOK_MS);
    /* Zeros ahead of the writer are a luxury on a disk that is full. */
    log_trim(journal->log);
    more = journal_room(journal, 0) == 0 && log_prepare(journal->log) > 0;
    more |= cleaner_step(journal);
    more |= collect_garbage(journal);
    more |= reput_step(journal);
    more |= compact_step(journal);
    more |= restate_step(journal);
    more |=
        scrub_step(journal, &journal->scrub, journal->cleaner.reader, env_mono_ms(journal->env));
    return more;
}
