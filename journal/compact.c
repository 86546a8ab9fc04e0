/*
 * Writing a snapshot, and when.
 *
 * Happy path: state, vector and position of one read transaction → chunks with the vector, then all
 * rows in id order, holders, members, feature level, the outbox, the garbage, each read in
 * transactions of its own and each committed as a record of the log → once all are durable the end
 * chunk → the applier takes note, and removes what is covered (trim.c). Rows that are read late
 * know more than the position says; the records from the position on are merged into them, and
 * merge does not mind.
 *
 *   idle ─► origins ─► rows ─► losers ─► holders ─► members ─► feature ─► outbox ─► garbage ─► end
 *   ─► wait ─► idle
 *
 * When: once the events in the database take more than the last snapshot did and at least a
 * minimum, so that all snapshots together cost no more than the events they replace; or when
 * somebody asks.
 *
 * Failure: a chunk that is refused (no space, read-only, no memory) ends the attempt; its chunks
 * are garbage that cleaning leaves behind. The next one begins later. A restart ends an attempt,
 * too.
 */
#include "journal/compact.h"

#include "base/log.h"
#include "journal/db_cluster.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define COMPACT_BYTES   (64 * MIB) /* of events: the least worth a snapshot */
#define CHUNKS_PER_STEP 4
#define RETRY_MS        60000
#define STEP_WAIT_MS    20
#define HELD_WAIT_MS    10000 /* for others to have the events that are to go */
#define MAX_IDLE_STEPS  1000  /* of a caller that takes all steps itself, until it gives up */

/* One chunk on its way. */
struct chunk {
    struct change change;
    struct journal *journal;
    uint8_t bytes[];
};

bool compact_is_writing(struct journal *journal, const struct id128 *snapshot)
{
    const struct compactor *c = &journal->compactor;

    return c->phase != COMPACT_IDLE && id_equal(&c->id, snapshot);
}

void compact_release(struct compactor *compactor)
{
    if (compactor->ready)
        snapshot_writer_release(&compactor->writer);
    digest_destroy(&compactor->digest);
    free(compactor->origins);
    free(compactor->members);
    compactor->origins = NULL;
    compactor->members = NULL;
    compactor->ready = false;
}

static int prepare(struct compactor *c)
{
    if (c->ready)
        return 0;
    int rc = digest_create(&c->digest, DIGEST_SHA256);

    if (rc)
        return rc;
    snapshot_writer_init(&c->writer);
    c->ready = true;
    return 0;
}

static void end(struct journal *journal, int rc)
{
    struct compactor *c = &journal->compactor;
    uint64_t now_ms = env_mono_ms(journal->env);

    if (rc) {
        log_warn("journal: a snapshot was not written: %s; will try again later", err_text(rc));
        c->retry_ms = now_ms + RETRY_MS;
    } else {
        log_info("journal: wrote a snapshot of %u chunks, %llu bytes, in %llu ms", c->chunks,
                 (unsigned long long)c->bytes, (unsigned long long)(now_ms - c->begun_ms));
        atomic_fetch_add(&journal->snapshot_count, 1);
        atomic_store(&c->last_chunks, c->chunks);
        atomic_store(&c->last_bytes, c->bytes);
    }
    c->phase = COMPACT_IDLE;
    free(c->origins);
    free(c->members);
    c->origins = NULL;
    c->members = NULL;
    atomic_store(&c->last_rc, rc);
    atomic_store(&c->ended, atomic_load(&c->begun));
}

/* ---- One chunk ---- */

static void chunk_done(struct change *change)
{
    struct chunk *chunk = (struct chunk *)change;
    struct journal *journal = chunk->journal;
    struct compactor *c = &journal->compactor;

    if (change->rc)
        atomic_store(&c->failed, change->rc);
    assert(!change->object);
    free(chunk);
    if (atomic_fetch_sub(&c->in_flight, 1) == 1) {
        pthread_mutex_lock(&journal->lock);
        pthread_cond_broadcast(&journal->upkeep); /* the janitor may go on */
        pthread_mutex_unlock(&journal->lock);
    }
}

/* Send what the writer holds as the next chunk. */
static int submit(struct journal *journal)
{
    struct compactor *c = &journal->compactor;
    uint8_t hash[SHA256_BYTES];
    struct chunk *chunk;
    struct buf bytes;
    int rc;

    buf_init(&bytes, SNAPSHOT_CHUNK_BYTES);
    snapshot_end_chunk(&c->writer, &c->id, c->chunks, &bytes);
    rc = buf_check(&bytes);
    chunk = rc == 0 ? malloc(sizeof *chunk + bytes.len) : NULL;
    if (!chunk) {
        rc = rc ? rc : ERR_NO_MEMORY;
        goto out;
    }
    memset(chunk, 0, sizeof *chunk);
    chunk->journal = journal;
    memcpy(chunk->bytes, bytes.data, bytes.len);
    chunk->change.request.kind = CHANGE_SNAPSHOT;
    chunk->change.done = chunk_done;
    chunk->change.move_event = chunk->bytes;
    chunk->change.move_event_bytes = (uint32_t)bytes.len;
    atomic_fetch_add(&c->in_flight, 1);
    rc = journal_submit(journal, &chunk->change);
    if (rc) {
        atomic_fetch_sub(&c->in_flight, 1);
        free(chunk);
        goto out;
    }
    sha256(bytes.data, bytes.len, hash);
    digest_update(c->digest, hash, sizeof hash);
    c->chunks++;
    c->bytes += bytes.len;
out:
    buf_release(&bytes);
    return rc;
}

/* ---- What goes into them: each fills one chunk, and moves to the next phase at its end ---- */

/* 1: the chunk is full; such a row comes again. */
static int full_is_one(int rc)
{
    return rc == ERR_FULL ? 1 : rc;
}

static int add_row(void *arg, const struct object *object)
{
    struct compactor *c = arg;

    return full_is_one(snapshot_add_row(&c->writer, object));
}

static int add_holder(void *arg, const struct snapshot_holder *holder)
{
    struct compactor *c = arg;

    return full_is_one(snapshot_add_holder(&c->writer, holder));
}

static int add_loser(void *arg, const struct db_conflict *conflict)
{
    struct compactor *c = arg;

    return full_is_one(snapshot_add_loser(&c->writer, conflict->loser));
}

static int add_owed(void *arg, const struct db_owed *row)
{
    struct snapshot_owed owed = {.id = row->id, .since_ms = row->since_ms};
    struct compactor *c = arg;

    return full_is_one(snapshot_add_owed(&c->writer, &owed));
}

static int add_garbage(void *arg, uint64_t file, lsn_t freed_at)
{
    struct snapshot_garbage garbage = {.freed_at = freed_at, .file = file};
    struct compactor *c = arg;
    int rc = full_is_one(snapshot_add_garbage(&c->writer, &garbage));

    if (rc == 0)
        c->garbage = freed_at; /* one record frees one file */
    return rc;
}

#define ITEMS_PER_CHUNK 4000 /* more than a chunk holds of any kind, but for tombstones */

static int fill_origins(struct compactor *c)
{
    for (; c->origin_next < c->origin_count; c->origin_next++) {
        const struct db_origin *o = &c->origins[c->origin_next];
        struct snapshot_origin origin = {
            .origin = o->origin, .node = o->node, .seq = o->seq, .ended = o->ended};

        memcpy(origin.hash, o->hash, sizeof origin.hash);
        int rc = snapshot_add_origin(&c->writer, &origin);

        if (rc)
            return rc == ERR_FULL ? 0 : rc;
    }
    c->phase = COMPACT_ROWS;
    return 0;
}

static int fill_rows(struct compactor *c, struct db_reader *reader)
{
    int rc = db_each_row(reader, &c->row, ITEMS_PER_CHUNK, add_row, c);

    if (rc == 0 && c->row.done)
        c->phase = COMPACT_LOSERS;
    return rc;
}

static int fill_losers(struct compactor *c, struct db_reader *reader)
{
    unsigned count;
    int rc = db_each_conflict(reader, &c->loser, ITEMS_PER_CHUNK, add_loser, c, &count);

    if (rc == 0 && count == 0)
        c->phase = COMPACT_HOLDERS;
    return rc;
}

static int fill_holders(struct compactor *c, struct db_reader *reader)
{
    int rc = db_each_holder(reader, &c->holder, ITEMS_PER_CHUNK, add_holder, c);

    if (rc == 0 && c->holder.done)
        c->phase = COMPACT_MEMBERS;
    return rc;
}

static int fill_members(struct compactor *c, struct db_reader *reader)
{
    if (!c->members) {
        int rc = db_reader_members(reader, &c->members, &c->member_count);

        if (rc)
            return rc;
    }
    for (; c->member_next < c->member_count; c->member_next++) {
        const struct db_member *m = &c->members[c->member_next];
        const struct snapshot_member member = {
            .node = m->node,
            .state = m->state,
            .at = m->at,
            .address = {m->address, (uint32_t)strlen(m->address)}};
        int rc = snapshot_add_member(&c->writer, &member);

        if (rc)
            return rc == ERR_FULL ? 0 : rc;
    }
    c->phase = COMPACT_FEATURE;
    return 0;
}

static int fill_feature(struct compactor *c, struct db_reader *reader)
{
    uint32_t feature;
    int rc = db_reader_feature(reader, &feature);

    if (rc == 0)
        rc = snapshot_add_feature(&c->writer, feature);
    c->phase = COMPACT_OUTBOX;
    return rc;
}

static int fill_outbox(struct compactor *c, struct db_reader *reader)
{
    unsigned count;
    int rc = db_each_owed(reader, OUTBOX_UPLOAD, &c->owed, ITEMS_PER_CHUNK, add_owed, c, &count);

    if (rc == 0 && count == 0) {
        c->owed = (struct id128){{0}};
        c->phase = COMPACT_BEGUN;
    }
    return rc;
}

static int fill_begun(struct compactor *c, struct db_reader *reader)
{
    unsigned count;
    int rc = db_each_owed(reader, OUTBOX_BEGUN, &c->owed, ITEMS_PER_CHUNK, add_owed, c, &count);

    if (rc == 0 && count == 0)
        c->phase = COMPACT_GARBAGE;
    return rc;
}

static int fill_garbage(struct compactor *c, struct db_reader *reader)
{
    lsn_t before = c->garbage;
    int rc = db_each_garbage(reader, before, LSN_LIMIT, ITEMS_PER_CHUNK, add_garbage, c);

    if (rc == 1)
        rc = 0;
    if (rc == 0 && c->garbage == before)
        c->phase = COMPACT_END;
    return rc;
}

static int write_end(struct journal *journal)
{
    struct compactor *c = &journal->compactor;
    struct snapshot_end last = {
        .position = c->position, .previous = c->previous, .chunks = c->chunks + 1};
    int rc;

    digest_final(c->digest, last.hash);
    snapshot_begin_chunk(&c->writer, SNAPSHOT_END);
    rc = snapshot_add_end(&c->writer, &last);
    if (rc == 0)
        rc = submit(journal);
    c->phase = COMPACT_WAIT;
    return rc;
}

/* The next chunk, if this phase has one left. */
static int write_chunk(struct journal *journal)
{
    struct compactor *c = &journal->compactor;
    struct db_reader *reader = journal->cleaner.reader;
    int rc;

    switch (c->phase) {
    case COMPACT_ORIGINS:
        snapshot_begin_chunk(&c->writer, SNAPSHOT_ORIGINS);
        rc = fill_origins(c);
        break;
    case COMPACT_ROWS:
        snapshot_begin_chunk(&c->writer, SNAPSHOT_ROWS);
        rc = fill_rows(c, reader);
        break;
    case COMPACT_LOSERS:
        snapshot_begin_chunk(&c->writer, SNAPSHOT_LOSERS);
        rc = fill_losers(c, reader);
        break;
    case COMPACT_HOLDERS:
        snapshot_begin_chunk(&c->writer, SNAPSHOT_HOLDERS);
        rc = fill_holders(c, reader);
        break;
    case COMPACT_MEMBERS:
        snapshot_begin_chunk(&c->writer, SNAPSHOT_MEMBERS);
        rc = fill_members(c, reader);
        break;
    case COMPACT_FEATURE:
        snapshot_begin_chunk(&c->writer, SNAPSHOT_FEATURE);
        rc = fill_feature(c, reader);
        break;
    case COMPACT_OUTBOX:
        snapshot_begin_chunk(&c->writer, SNAPSHOT_OUTBOX);
        rc = fill_outbox(c, reader);
        break;
    case COMPACT_BEGUN:
        snapshot_begin_chunk(&c->writer, SNAPSHOT_BEGUN);
        rc = fill_begun(c, reader);
        break;
    case COMPACT_GARBAGE:
        snapshot_begin_chunk(&c->writer, SNAPSHOT_GARBAGE);
        rc = fill_garbage(c, reader);
        break;
    default:
        return write_end(journal);
    }
    return rc == 0 && c->writer.count > 0 ? submit(journal) : rc;
}

/* ---- The whole ---- */

static int begin(struct journal *journal)
{
    struct compactor *c = &journal->compactor;
    struct snapshot_begin first;
    struct db_state state;
    int rc = prepare(c);

    atomic_fetch_add(&c->begun, 1);
    atomic_store(&c->wanted, false);
    atomic_store(&c->failed, 0);
    if (rc == 0)
        rc = db_reader_moment(journal->cleaner.reader, &state, &c->origins, &c->origin_count);
    if (rc)
        return rc;
    first = (struct snapshot_begin){.position = state.position,
                                    .hlc = state.hlc,
                                    .node = state.node,
                                    .last_origin = state.last_origin,
                                    .events = state.events,
                                    .objects = state.objects,
                                    .deleted = state.deleted,
                                    .bytes = state.bytes,
                                    .made_ms = env_wall_ms(journal->env),
                                    .digest = state.digest};
    c->id = ulid_make(journal->env, first.made_ms);
    c->position = state.position;
    pthread_mutex_lock(&journal->lock);
    c->previous = journal->snapshots_known ? journal->snapshots[0].position : 0;
    pthread_mutex_unlock(&journal->lock);
    c->begun_ms = env_mono_ms(journal->env);
    c->origin_next = 0;
    c->row = (struct db_cursor){.begun = false};
    c->holder = (struct db_holder_cursor){.begun = false};
    c->member_count = c->member_next = 0;
    c->loser = (struct db_conflict_cursor){{{0}}, {0}};
    c->owed = (struct id128){{0}};
    c->garbage = 0;
    c->chunks = 0;
    c->bytes = 0;
    digest_reset(c->digest);
    c->phase = COMPACT_ORIGINS;
    snapshot_begin_chunk(&c->writer, SNAPSHOT_BEGIN);
    rc = snapshot_add_begin(&c->writer, &first);
    return rc ? rc : submit(journal);
}

static bool is_due(struct journal *journal)
{
    struct compactor *c = &journal->compactor;
    uint64_t least = journal->config.compact_bytes ? journal->config.compact_bytes : COMPACT_BYTES;
    uint64_t last = 0;

    if (atomic_load(&journal->read_only))
        return false;
    if (atomic_load(&c->wanted))
        return true;
    if (atomic_load(&journal->trimming) || env_mono_ms(journal->env) < c->retry_ms)
        return false;
    pthread_mutex_lock(&journal->lock);
    uint64_t held = journal->acked.event_bytes;

    if (journal->snapshots_known && !journal->config.compact_bytes)
        last = journal->snapshots[0].chunks * SNAPSHOT_CHUNK_BYTES;
    pthread_mutex_unlock(&journal->lock);
    return held >= least && held >= last;
}

/* Whether the applier knows of the snapshot that was written. */
static bool is_known(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    bool known =
        journal->snapshots_known && id_equal(&journal->snapshots[0].id, &journal->compactor.id);

    pthread_mutex_unlock(&journal->lock);
    return known;
}

bool compact_step(struct journal *journal)
{
    struct compactor *c = &journal->compactor;
    int rc;

    if (atomic_load(&c->in_flight))
        return false;
    if (c->phase == COMPACT_IDLE) {
        if (!is_due(journal))
            return false;
        rc = begin(journal);
        if (rc)
            end(journal, rc);
        return rc == 0;
    }
    if ((rc = atomic_load(&c->failed)) != 0) {
        end(journal, rc);
        return false;
    }
    if (c->phase == COMPACT_WAIT) {
        if (is_known(journal))
            end(journal, 0);
        return false;
    }
    if (c->phase == COMPACT_END) { /* alone: all before it are durable */
        rc = write_end(journal);
    } else {
        for (int i = 0; rc == 0 && i < CHUNKS_PER_STEP && c->phase != COMPACT_END; i++)
            rc = write_chunk(journal);
    }
    if (rc)
        end(journal, rc);
    return rc == 0 && !atomic_load(&c->in_flight);
}

/* ---- Asked for ---- */

static bool is_over(struct journal *journal, uint64_t number)
{
    struct compactor *c = &journal->compactor;

    return atomic_load(&c->ended) >= number &&
           (atomic_load(&c->last_rc) != 0 || !atomic_load(&journal->trimming) ||
            (!journal->threaded && atomic_load(&journal->held_back)));
}

/* Whether to wait on: for company to have the events, not for long. *HELD_MS: since when. */
static bool is_patient(struct journal *journal, uint64_t number, uint64_t *held_ms)
{
    uint64_t now_ms = env_mono_ms(journal->env);

    if (atomic_load(&journal->compactor.ended) < number || !atomic_load(&journal->held_back))
        return true;
    if (!*held_ms)
        *held_ms = now_ms;
    return now_ms - *held_ms < HELD_WAIT_MS;
}

/* The steps of all threads, where there are none. */
static int take_steps(struct journal *journal, uint64_t number)
{
    unsigned idle = 0;

    while (!is_over(journal, number)) {
        bool busy = journal_commit_step(journal) > 0;

        busy |= journal_apply_step(journal) > 0;
        busy |= journal_upkeep_step(journal);
        busy |= atomic_load(&journal->compactor.in_flight) > 0;
        if (!busy && !is_over(journal, number) &&
            (journal->compactor.phase == COMPACT_IDLE || atomic_load(&journal->read_only)))
            return ERR_READ_ONLY; /* nothing begins or ends, as nothing can be written */
        idle = busy ? 0 : idle + 1;
        if (idle == MAX_IDLE_STEPS)
            return ERR_TIMEOUT; /* what was written cannot be read back */
    }
    return 0;
}

void journal_share_events(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    if (!atomic_exchange(&journal->shares_events, true))
        atomic_store(&journal->held_back, true); /* also what an earlier run left */
    pthread_mutex_unlock(&journal->lock);
}

bool journal_waits(struct journal *journal, struct id128 *snapshot)
{
    pthread_mutex_lock(&journal->lock);
    bool waits = atomic_load(&journal->held_back) && atomic_load(&journal->trimming) &&
                 journal->snapshots_known > 0;

    if (waits)
        *snapshot = journal->snapshots[0].id;
    pthread_mutex_unlock(&journal->lock);
    return waits;
}

void journal_let_go(struct journal *journal, const struct id128 *snapshot)
{
    pthread_mutex_lock(&journal->lock);
    if (journal->snapshots_known && id_equal(&journal->snapshots[0].id, snapshot)) {
        atomic_store(&journal->held_back, false);
        pthread_cond_signal(&journal->work);
    }
    pthread_mutex_unlock(&journal->lock);
}

int journal_compact(struct journal *journal, struct journal_compact_result *out)
{
    struct compactor *c = &journal->compactor;
    uint64_t number = atomic_load(&c->begun) + 1, before = atomic_load(&journal->compacted_events);
    uint64_t held_ms = 0;
    int rc = 0;

    memset(out, 0, sizeof *out);
    if (atomic_load(&journal->read_only))
        return ERR_READ_ONLY;
    atomic_store(&c->wanted, true);
    if (!journal->threaded)
        rc = take_steps(journal, number);
    pthread_mutex_lock(&journal->lock);
    while (rc == 0 && !is_over(journal, number)) {
        if (atomic_load(&journal->stopping))
            rc = ERR_CLOSED;
        else if (atomic_load(&journal->read_only))
            rc = ERR_READ_ONLY;
        else if (is_patient(journal, number, &held_ms))
            journal_wait(journal, &journal->upkeep, STEP_WAIT_MS);
        else
            break;
    }
    out->waiting = atomic_load(&journal->held_back) && atomic_load(&journal->trimming);
    out->event_bytes = journal->acked.event_bytes;
    pthread_mutex_unlock(&journal->lock);
    if (rc == 0)
        rc = atomic_load(&c->last_rc);
    out->chunks = atomic_load(&c->last_chunks);
    out->snapshot_bytes = atomic_load(&c->last_bytes);
    out->events = atomic_load(&journal->compacted_events) - before;
    return rc;
}
