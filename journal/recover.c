/*
 * Recovery: brings SQLite up to the log's end before the node serves.
 *
 * Records from the database's position on are folded into rows exactly as the committer did, in
 * transactions that end where batches end, so that a crash during recovery loses nothing but time.
 * A record whose event does not decode is refused, counted and left: it cannot be ours.
 */
#include "base/log.h"
#include "journal/journal_internal.h"
#include "journal/snapshot.h"

#include <stdio.h>

static lsn_t batch_boundary(lsn_t end)
{
    return (end + BATCH_ALIGN - 1) / BATCH_ALIGN * BATCH_ALIGN;
}

int replay_end(struct replay *replay, lsn_t position)
{
    int rc;

    if (!replay->in_transaction)
        return 0;
    rc = applier_commit(replay->journal, position);
    if (rc) {
        applier_rollback(replay->journal);
        return rc;
    }
    replay->in_transaction = 0;
    if (db_wal_pages(replay->journal->applier.db) >= CHECKPOINT_PAGES)
        rc = applier_checkpoint(replay->journal);
    return rc;
}

static int replay_chunk(struct replay *replay, const struct record_view *view)
{
    struct snapshot_reader chunk;
    struct entry *entry = NULL;
    int rc = fold_snapshot(&entry, view->event, view->header.event_bytes, view->lsn);

    if (rc == ERR_INVALID) {
        atomic_fetch_add(&replay->journal->refused, 1);
        log_warn("journal: record at %llu holds no chunk of a snapshot",
                 (unsigned long long)view->lsn);
        return 0;
    }
    if (rc == 0)
        rc = snapshot_open(&chunk, view->event, view->header.event_bytes);
    if (rc == 0 && (!replay->is_whole || replay->is_whole(replay->arg, &chunk.snapshot)))
        rc = applier_put(replay->journal, entry);
    entry_destroy(entry);
    return rc;
}

static int replay_record(struct replay *replay, const struct record_view *view,
                         const struct place *place)
{
    struct journal *journal = replay->journal;
    struct object *before = NULL;
    struct entry *entry = NULL;
    struct event event;
    int rc = event_decode(&event, view->event, view->header.event_bytes);

    if (rc) {
        atomic_fetch_add(&journal->refused, 1);
        log_warn("journal: record at %llu holds no event this build can read: %s",
                 (unsigned long long)view->lsn, err_text(rc));
        return 0;
    }
    bool is_late = replay->without_peers && fold_is_peer_fact(event.kind);
    bool is_copy = fold_is_copy_here(&event, &view->header, &journal->node);

    if (replay->late && !is_copy)
        return 0;

    if (view->lsn < replay->covered && fold_is_covered(&event) && !is_late) {
        /* Its row is there already; its body counts as what the segment holds. */
        return view->header.flags & RECORD_HAS_BODY
                   ? applier_add_sums(&journal->applier, place->volume, view->header.body_bytes, 0,
                                      0)
                   : 0;
    }
    rc = db_find_writing(journal->applier.db, &event.id, &before);
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    rc = fold_event(&entry, before, &event, view->event, view->header.event_bytes, &view->header,
                    place, &journal->node);
    if (rc == 0) {
        entry->is_covered &= !is_late;
        replay->copies_wait |= is_copy && !entry->object && !id_is_zero(&event.id);
        if (replay->late)
            entry->inline_volume = 0; /* counted the first time */
        rc = applier_put(journal, entry);
    }
    object_destroy(&before);
    entry_destroy(entry);
    return rc;
}

static int row_of(void *arg, const struct id128 *id, struct object **out)
{
    const struct replay *replay = arg;
    int rc = db_find_writing(replay->journal->applier.db, id, out);

    return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int replay_merge(struct replay *replay, const struct record_view *view)
{
    struct entry *first;
    enum record_type type;
    hlc_time stamp;

    if (view->lsn < replay->covered)
        return 0;
    int rc = merge_chunk_fold(&first, &type, &stamp, view->event, view->header.event_bytes,
                              view->lsn, row_of, replay);
    if (rc == ERR_INVALID) {
        atomic_fetch_add(&replay->journal->refused, 1);
        log_warn("journal: record at %llu holds nothing that was merged",
                 (unsigned long long)view->lsn);
        return 0;
    }
    for (const struct entry *entry = first; rc == 0 && entry; entry = entry->next) {
        rc = applier_put(replay->journal, entry);
        replay->in_transaction++;
    }
    merge_entries_destroy(first);
    return rc;
}

int replay_visit(void *arg, const struct record_view *view, const struct place *place)
{
    struct replay *replay = arg;
    int rc;

    if (replay->in_transaction >= LIMIT_APPLY_RECORDS && view->lsn != replay->previous_end) {
        lsn_t position = replay->late ? replay->journal->applier.state.position
                                      : batch_boundary(replay->previous_end);
        rc = replay_end(replay, position);
        if (rc)
            return rc;
    }
    if (!replay->in_transaction && (rc = applier_begin(replay->journal)) != 0)
        return rc;
    replay->in_transaction++;
    replay->previous_end = view->lsn + record_bytes(&view->header);
    if (replay->late && view->header.type != RECORD_EVENT && view->header.type != RECORD_MOVE)
        return 0;
    if (view->header.type == RECORD_SNAPSHOT)
        return replay_chunk(replay, view);
    if (view->header.type == RECORD_MERGE || view->header.type == RECORD_VECTOR)
        return replay_merge(replay, view);
    if (view->header.type != RECORD_EVENT && view->header.type != RECORD_MOVE) {
        log_error("journal: record type %u at %llu is of a newer version", view->header.type,
                  (unsigned long long)view->lsn);
        return ERR_FORMAT;
    }
    return replay_record(replay, view, place);
}

int replay_check_large(void *arg, const struct record_header *header)
{
    struct replay *replay = arg;

    return large_check(replay->journal->large, header->file, header->size, header->trailer, false);
}

bool journal_say_unreadable(struct journal *journal, char *message, size_t cap)
{
    uint32_t volume;
    uint64_t offset;

    if (!journal->log || !log_unreadable(journal->log, &volume, &offset))
        return false;
    snprintf(
        message, cap,
        "%s/log/%08x.seg: the disk cannot read it at byte %llu, and records may be lost there: "
        "try again; if it stays so, replace the disk and restore, or go on without them with "
        "--accept-data-loss",
        journal->config.dirs->files_dir, volume, (unsigned long long)offset);
    return true;
}

int journal_recover(struct journal *journal, bool clean, char *message, size_t cap)
{
    struct replay replay = {.journal = journal};
    struct log_recovery found = {0};
    lsn_t position = journal->applier.state.position;
    uint64_t start_ms = env_mono_ms(journal->env);
    int rc = log_recover(journal->log, position, position, clean, replay_visit, replay_check_large,
                         &replay, &found);

    if (rc == 0 && found.end < position && journal->config.dirs->accept_loss)
        journal->lost_files = true;
    if (rc == 0 && found.end < position && !journal->lost_files) {
        snprintf(message, cap,
                 "%s: its log ends before what %s has applied: it was lost or is an older copy; "
                 "restore it, or start with --accept-data-loss",
                 journal->config.dirs->files_dir, journal->config.dirs->state_dir);
        if (replay.in_transaction)
            applier_rollback(journal);
        return ERR_WRONG_STORE;
    }
    if (rc == 0)
        rc = replay_end(&replay, found.end > position ? found.end : position);
    else if (replay.in_transaction)
        applier_rollback(journal);
    if (rc == 0)
        rc = applier_mend(journal);
    if (rc == 0)
        rc = applier_load_snapshots(journal);
    if (rc == ERR_IO && journal_say_unreadable(journal, message, cap))
        return rc;
    if (rc) {
        /* Rot in the log is skipped; what is reported is the database's. */
        snprintf(message, cap, "%s: recovery of %s from position %llu failed: %s%s",
                 journal->db_path, journal->config.dirs->files_dir, (unsigned long long)position,
                 err_text(rc), rc == ERR_CORRUPT ? REBUILD_HINT : "");
        return rc;
    }
    if (found.hlc > journal->applier.state.hlc)
        journal->applier.state.hlc = found.hlc;
    journal->recovered_records = found.records;
    journal->rotten_bytes = found.rotten_bytes;
    if (found.records || found.cut || found.rotten_bytes)
        log_info("recovered %llu records in %llu ms%s; %llu bytes of rot skipped",
                 (unsigned long long)found.records,
                 (unsigned long long)(env_mono_ms(journal->env) - start_ms),
                 found.cut ? ", a torn tail was left behind" : "",
                 (unsigned long long)found.rotten_bytes);
    return 0;
}
