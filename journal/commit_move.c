/*
 * Records that go to the end of the log: what cleaning moves, so that their segment can go, and the
 * chunks of snapshots, which say nothing new.
 *
 * Happy path: the record's body goes along where a row still points to this very copy, or where it
 * lost a conflict and is yet to be put again; the event always does, unless a snapshot covers it.
 * What moves adds no event: only the place in the row changes, by compare-and-set on the old one.
 *
 * Failure: nothing happens; the janitor leaves the segment alone for a while.
 */
#include "journal/conflict.h"
#include "journal/db_conflict.h"
#include "journal/journal_internal.h"

#include <assert.h>
#include <string.h>

/* Whether the body of the record to be moved, to which ROW does not point, lost against what ROW
 * names and is still to be put again. */
static int is_kept(struct journal *journal, const struct change *change, const struct event *event,
                   const struct object *row, bool *kept)
{
    const struct record_header *old = &change->move_header;
    struct place place = change->move_from, lies = {0};
    struct db_conflict known = {.loser = NULL};
    struct event_item item;
    int rc = 0;

    *kept = false;
    if (!(old->flags & (RECORD_HAS_BODY | RECORD_LARGE)) || !row || row->flags & OBJECT_DELETED)
        return 0;
    if (event_items(change->move_event, change->move_event_bytes, &item, 1) == 0)
        memcpy(item.sha256, event->sha256, SHA256_BYTES);
    if (old->flags & RECORD_LARGE) {
        place.volume = PLACE_LARGE;
        place.offset = old->file;
    }
    /* The order matters: what is not pending any more has been committed before it left. */
    bool found = pending_find_loser(journal->pending, &old->id, item.sha256, &lies);

    if (!found && atomic_load(&journal->losers) > 0) {
        rc = db_reader_conflict(journal->committer.reader, &old->id, item.sha256, &known);
        if (rc == 0)
            lies = known.loser->place;
        else if (rc == ERR_NOT_FOUND)
            rc = 0;
        object_destroy(&known.loser);
    }
    *kept = place_equal(&lies, &place);
    return rc;
}

/* Whether the body of the record to be moved goes along: LIVE, and whether that is because it is
 * KEPT. BEFORE: the row, NULL where there is none. */
static int judge_move(struct journal *journal, const struct change *change,
                      const struct event *event, const struct object *before, bool *body_live,
                      bool *kept)
{
    const struct record_header *old = &change->move_header;
    bool large = old->flags & RECORD_LARGE;
    bool live =
        before && (large ? before->place.volume == PLACE_LARGE && before->place.offset == old->file
                         : place_equal(&before->place, &change->move_from));

    *body_live = live;
    *kept = false;
    if (live)
        return 0;
    int rc = is_kept(journal, change, event, before, kept);
    if (rc || !*kept)
        return rc;
    if (change->move_rotten)
        return ERR_CORRUPT;
    /* Else its event would not bring it back after a rebuild: first it is put again. */
    if (!conflict_loses(event, before))
        return ERR_AGAIN;
    *body_live = true;
    return 0;
}

/* The record goes to the end of the log, with its body where that is LIVE. */
static int write_move(struct journal *journal, struct change *change, const struct event *event,
                      const struct object *before, bool live, bool kept)
{
    const struct record_header *old = &change->move_header;
    bool large = old->flags & RECORD_LARGE;
    struct record_header header = *old;
    struct place place = {.volume = 1, .lsn = UINT64_MAX};
    struct entry *entry;

    header.type = RECORD_MOVE;
    header.from = old->type == RECORD_MOVE ? old->from : change->move_from.lsn;
    if (!live) {
        header.flags = 0;
        header.blocks = 0;
        header.body_bytes = 0;
    }
    struct log_record record = {.type = RECORD_MOVE,
                                .flags = header.flags,
                                .id = old->id,
                                .event = change->move_event,
                                .event_bytes = change->move_event_bytes,
                                .body = live ? change->body : NULL,
                                .body_bytes = header.body_bytes,
                                .sums = change->sums,
                                .file = old->file,
                                .size = old->size,
                                .trailer = old->trailer,
                                .from = header.from};
    int rc = fold_event(&entry, before, event, change->move_event, change->move_event_bytes,
                        &header, &place, &journal->node);

    if (rc)
        return rc;
    /* A row points to it that its event does not lead to. */
    rc = live && !kept && !entry->object ? ERR_CORRUPT : log_add(journal->log, &record, &place);
    if (rc) {
        entry_destroy(entry);
        return rc;
    }
    entry->lsn = place.lsn;
    entry->adds_event = false;
    entry->delta.events = 0;
    assert(!kept || entry->loser);
    struct object *moved = kept ? entry->loser : live ? entry->object : NULL;

    if (moved) {
        moved->place.lsn = place.lsn;
        if (!large)
            moved->place = place;
    }
    if (header.flags & RECORD_HAS_BODY)
        entry->inline_volume = place.volume;
    change->stored = live;
    change->lsn = place.lsn;
    committer_add(journal, entry);
    return 0;
}

int commit_move(struct journal *journal, struct change *change)
{
    struct object *before = NULL;
    struct event event;
    bool live, kept;
    int rc = event_decode(&event, change->move_event, change->move_event_bytes);

    if (rc || (rc = committer_row(journal, &change->move_header.id, &before)) != 0)
        return rc;
    rc = judge_move(journal, change, &event, before, &live, &kept);
    if (rc == 0 && !live && change->move_covered && fold_is_covered(&event))
        change->verdict = VERDICT_UNCHANGED;
    else if (rc == 0)
        rc = write_move(journal, change, &event, before, live, kept);
    object_destroy(&before);
    return rc;
}

int commit_chunk(struct journal *journal, struct change *change)
{
    struct log_record record = {.type = (uint8_t)change->move_header.type,
                                .event = change->move_event,
                                .event_bytes = change->move_event_bytes,
                                .from = change->move_from.lsn};
    struct entry *entry;
    struct place place;
    int rc;

    if (record.type == 0)
        record.type = RECORD_SNAPSHOT;
    if (record.type == RECORD_SNAPSHOT)
        rc = fold_snapshot(&entry, change->move_event, change->move_event_bytes, 0);
    else if ((rc = (entry = entry_create(NULL, 0)) ? 0 : ERR_NO_MEMORY) == 0)
        entry->is_snapshot = true; /* of a merge, on its way: what it says is known already */
    if (rc)
        return rc;
    if ((rc = log_add(journal->log, &record, &place)) != 0) {
        entry_destroy(entry);
        return rc;
    }
    entry->lsn = change->lsn = place.lsn;
    committer_add(journal, entry);
    return 0;
}
