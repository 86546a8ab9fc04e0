/*
 * The applier: puts committed records into SQLite, behind the committer and never waited for by it.
 *
 * Happy path: take whole batches up to LIMIT_APPLY_RECORDS records → one transaction (events, rows,
 * outbox, segment sums, counters, log position) → drop them from the pending table; every
 * CHECKPOINT_PAGES pages of WAL a checkpoint, which moves the durable position: the log below it
 * may be freed. What an entry changes stands in apply_entry.c, the segment sums in apply_sums.c,
 * who hears of it in apply_news.c.
 *
 * Failure: a transaction that fails is rolled back and tried again, for a synced record is
 * committed whatever SQLite says; meanwhile its entries stay pending, readers still see them, and
 * the node takes no more writes.
 */
#include "base/log.h"
#include "journal/journal_internal.h"

#include <assert.h>
#include <stdlib.h>

#define IDLE_CHECKPOINT_MS 3000
#define CHECKPOINT_AGE_MS  30000
#define COMPLAIN_MS        60000

int applier_open(struct journal *journal)
{
    struct applier *a = &journal->applier;
    int rc;

    if ((rc = db_state_get(a->db, &a->state)) != 0 ||
        (rc = db_origins(a->db, &a->origins, &a->origin_count)) != 0 ||
        (rc = applier_count_losers(journal)) != 0)
        return rc;
    return applier_open_sums(a);
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

static int save_origins(struct applier *a)
{
    int rc = ERR_NONE;

    for (size_t i = 0; i < a->origin_count && !rc; i++) {
        if (a->origins[i].unsaved)
            rc = db_origin_set(a->db, &a->origins[i]);
        a->origins[i].unsaved = false; /* after an error they are read back */
    }
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
        rc = save_origins(a);
    if (rc == 0)
        rc = applier_write_sums(journal);
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
    rc = applier_reset_sums(a, segments, count);
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

static void applied(struct journal *journal, struct entry *first)
{
    bool lost = false;

    applier_tell_copies(journal, first);
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
    applier_tell_janitor(journal);
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

    applier_forget_removed(journal);
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
