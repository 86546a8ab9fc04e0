/*
 * What each segment of the log still holds: the applier's sums of its bodies and of those of them
 * that a row points to. From these the janitor chooses what to clean, and sees when a segment is
 * empty.
 *
 * Happy path: each record that is put adds to its segment's sums and takes from that of the place
 * it replaces; the transaction that holds these rows writes the changed sums along. Once the
 * janitor has unlinked a segment, its row leaves in a small transaction of its own.
 *
 * Failure: after a rollback the sums are set to what the database says. A removal that fails is
 * tried again with the next step; a crash before it means that the unlinking is tried again.
 *
 * The applier alone changes the sums; the janitor reads them under `sums_lock`.
 */
#include "journal/journal_internal.h"

#include <assert.h>
#include <stdlib.h>

/* The sums of VOLUME, or NULL. Under sums_lock. */
static struct segment_sums *find_sums(const struct applier *a, uint32_t volume)
{
    for (size_t i = a->sum_count; i-- > 0;)
        if (a->sums[i].volume == volume)
            return &a->sums[i];
    return NULL;
}

/* The sums of VOLUME, made where they are missing. Under sums_lock. */
static struct segment_sums *sums_of(struct applier *a, uint32_t volume)
{
    struct segment_sums *sums = find_sums(a, volume);

    if (sums)
        return sums;
    struct segment_sums *grown = realloc(a->sums, (a->sum_count + 1) * sizeof *grown);

    if (!grown)
        return NULL;
    a->sums = grown;
    grown[a->sum_count] = (struct segment_sums){.volume = volume, .dirty = true};
    return &grown[a->sum_count++];
}

int applier_open_sums(struct applier *a)
{
    struct db_segment *segments = NULL;
    size_t count = 0;
    int rc = db_segments(a->db, &segments, &count);

    assert(!a->sums);
    if (rc)
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

int applier_reset_sums(struct applier *a, const struct db_segment *segments, size_t count)
{
    int rc = 0;

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
    return rc;
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

int applier_write_sums(struct journal *journal)
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

/*
 * What the janitor has unlinked leaves the database too. Its own small transaction, at a moment
 * when none is open; a crash before it only means that the unlinking is tried again.
 */
void applier_forget_removed(struct journal *journal)
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
    applier_forget_removed(journal);
    return a->removed_volume ? ERR_IO : 0;
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

    pthread_mutex_lock(&a->sums_lock);
    const struct segment_sums *sums = find_sums(a, volume);
    lsn_t settled = sums && !sums->dirty ? sums->settled_at : LSN_LIMIT;
    pthread_mutex_unlock(&a->sums_lock);
    return settled;
}

bool applier_segment_empty(struct journal *journal, uint32_t volume)
{
    struct applier *a = &journal->applier;

    pthread_mutex_lock(&a->sums_lock);
    const struct segment_sums *sums = find_sums(a, volume);
    bool empty = sums && sums->live_bytes == 0 && sums->live_record_bytes == 0;
    pthread_mutex_unlock(&a->sums_lock);
    return empty;
}

void applier_shun(struct journal *journal, uint32_t volume, uint64_t ms)
{
    struct applier *a = &journal->applier;

    pthread_mutex_lock(&a->sums_lock);
    struct segment_sums *sums = find_sums(a, volume);
    if (sums)
        sums->shunned_until_ms = env_mono_ms(journal->env) + ms;
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
