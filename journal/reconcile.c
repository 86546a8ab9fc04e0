/*
 * After an accepted loss (--accept-data-loss: the files directory was lost or is an older one):
 * rows whose bytes are gone lose their place, and that is journaled as a drop of this node's hold,
 * so that nobody counts on a copy that is not there. Runs before the node serves, in id order, a
 * page at a time; a crash in between leaves rows that reads report as damaged and that the next
 * accepted start finds.
 */
#include "base/log.h"
#include "journal/journal_internal.h"

#include <stdlib.h>

#define PAGE 1000

struct reconcile {
    struct journal *journal;
    uint8_t *buf;
    struct change changes[PAGE];
    unsigned count;
    uint64_t dropped;
};

static bool is_there(struct reconcile *r, const struct object *object)
{
    const struct place *place = &object->place;
    struct record_view view;

    if (place->volume == PLACE_LARGE) {
        struct large_reader *reader = NULL;
        int rc = large_reader_open(&reader, r->journal->large, place->offset, object->size);

        large_reader_close(&reader);
        return rc == 0;
    }
    return log_read(r->journal->log, place, &object->id, object->record_bytes, r->buf,
                    RECORD_MAX_BYTES, false, &view) == 0;
}

static void dropped(struct change *change)
{
    object_destroy(&change->object);
}

static int look_at(void *arg, const struct object *object)
{
    struct reconcile *r = arg;

    if (place_is_none(&object->place) || is_there(r, object))
        return 0;
    r->changes[r->count++] = (struct change){.request = {.kind = CHANGE_DROP,
                                                         .id = object->id,
                                                         .checked = object->place,
                                                         .damaged = true},
                                             .done = dropped};
    return 0;
}

/* Commit and apply what one page found. */
static int commit_page(struct reconcile *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        int rc = journal_submit(r->journal, &r->changes[i]);

        if (rc)
            return rc;
    }
    while (journal_commit_step(r->journal) || journal_apply_step(r->journal))
        ;
    for (unsigned i = 0; i < r->count; i++)
        if (r->changes[i].rc)
            return r->changes[i].rc;
    r->dropped += r->count;
    r->count = 0;
    return 0;
}

static int forget_if_gone(void *arg, const struct db_conflict *conflict)
{
    struct reconcile *r = arg;

    if (is_there(r, conflict->loser))
        return 0;
    r->dropped++;
    return applier_forget_loser(r->journal, conflict->loser);
}

/* Bytes that lost under their id and were still to be put again: those that are gone are owed no
 * more. */
static int forget_losers(struct reconcile *r)
{
    struct journal *journal = r->journal;
    struct db_conflict_cursor after = {{{0}}, {0}};
    unsigned count = PAGE;
    int rc = applier_begin(journal);

    if (rc)
        return rc;
    while (rc == 0 && count == PAGE)
        rc = db_each_conflict(journal->cleaner.reader, &after, PAGE, forget_if_gone, r, &count);
    if (rc == 0)
        rc = applier_commit(journal, journal->applier.state.position);
    if (rc)
        applier_rollback(journal);
    return rc;
}

/* Segments that are gone leave the database: no row points into them any more. */
static int forget_segments(struct journal *journal)
{
    struct applier *a = &journal->applier;
    struct log_segment *there = NULL;
    size_t count = 0;
    int rc = log_segments(journal->log, &there, &count);

    if (rc == 0)
        rc = db_begin(a->db);
    for (size_t i = a->sum_count; rc == 0 && i-- > 0;) {
        size_t k = 0;

        while (k < count && there[k].volume != a->sums[i].volume)
            k++;
        if (k < count)
            continue;
        rc = db_segment_remove(a->db, a->sums[i].volume);
        a->sums[i] = a->sums[--a->sum_count];
    }
    /* The snapshots may have been in what is gone: nothing rests on them, and new ones are due. */
    if (rc == 0)
        rc = db_snapshots_forget(a->db);
    if (rc == 0)
        rc = db_commit(a->db);
    if (rc)
        db_rollback(a->db);
    else
        rc = applier_load_snapshots(journal);
    free(there);
    return rc;
}

int journal_reconcile(struct journal *journal)
{
    struct reconcile *r = calloc(1, sizeof *r);
    struct id128 after = {{0}}, last;
    unsigned count = PAGE;
    int rc = r && (r->buf = malloc(RECORD_MAX_BYTES)) ? 0 : ERR_NO_MEMORY;

    if (r)
        r->journal = journal;
    while (rc == 0 && count == PAGE) {
        rc = db_each_object(journal->cleaner.reader, &after, PAGE, look_at, r, &last, &count);
        after = last;
        if (rc == 0)
            rc = commit_page(r);
    }
    if (rc == 0)
        rc = forget_losers(r);
    if (rc == 0)
        rc = forget_segments(journal);
    if (rc == 0) {
        atomic_fetch_add(&journal->lost, r->dropped);
        log_warn("accepted loss: %llu bodies are gone; their objects remain known",
                 (unsigned long long)r->dropped);
    }
    if (r)
        free(r->buf);
    free(r);
    return rc;
}
