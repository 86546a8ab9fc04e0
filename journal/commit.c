/*
 * The committer: decides what is queued, in order, writes all of it as one batch into the log,
 * makes it durable with one sync, and only then lets anybody see or hear of it.
 *
 * Happy path, one step: take the queue → decide each change against the newest row (pending entries
 * first, those of this very batch included, then SQLite) → log_write → log_sync → publish the
 * pending entries → bring the RAM tier up to date → hand the entries to the applier → done() for
 * all. How each kind of change is decided stands in commit_own.c, commit_peer.c, commit_merge.c and
 * commit_move.c.
 *
 * Failure: a batch that could not be written is void with all its decisions, no-ops included, since
 * a no-op may rest on a change that did not happen. Before anything else is answered an empty batch
 * is written elsewhere: what the failed one may have left on disk is then known not to count. A
 * failed sync is final: the state of the disk is unknown, and the node takes no writes until a
 * restart has read what is really there.
 */
#include "base/log.h"
#include "journal/journal_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int committer_open(struct journal *journal, uint64_t hlc)
{
    struct committer *c = &journal->committer;
    int rc = journal_reader_open(journal, &c->reader);

    if (rc)
        return rc;
    c->clock.last = hlc;
    c->held = calloc(LIMIT_BATCH_RECORDS, sizeof *c->held);
    c->decided = calloc(LIMIT_BATCH_RECORDS, sizeof *c->decided);
    buf_init(&c->event, LIMIT_EVENT_BYTES);
    if (!c->held || !c->decided)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < journal->applier.origin_count; i++) {
        const struct db_origin *o = &journal->applier.origins[i];
        struct head *head = heads_get(&c->heads, &o->origin);

        if (!head)
            return ERR_NO_MEMORY;
        head->seq = o->seq;
        memcpy(head->hash, o->hash, SHA256_BYTES);
        head->frozen = o->frozen;
        if (id_equal(&o->origin, &journal->applier.state.last_origin)) {
            c->chain.follows.origin = o->origin;
            c->chain.follows.seq = o->seq;
            memcpy(c->chain.follows.hash, o->hash, SHA256_BYTES);
            journal->acked_seq = o->seq;
        }
    }
    return 0;
}

void committer_close(struct journal *journal)
{
    struct committer *c = &journal->committer;

    db_reader_close(&c->reader);
    heads_release(&c->heads);
    free(c->held);
    free(c->decided);
    c->held = NULL;
    c->decided = NULL;
    buf_release(&c->event);
}

int committer_row(void *arg, const struct id128 *id, struct object **out)
{
    struct journal *journal = arg;
    int rc = pending_find(journal->pending, id, true, out);

    if (rc == ERR_NOT_FOUND)
        rc = db_find(journal->committer.reader, id, out);
    if (rc == ERR_NOT_FOUND) {
        *out = NULL;
        return 0;
    }
    return rc;
}

void committer_add(struct journal *journal, struct entry *entry)
{
    struct committer *c = &journal->committer;

    entry->batch = c->batch;
    if (c->last)
        c->last->next = entry;
    else
        c->first = entry;
    c->last = entry;
    delta_add(&c->delta, &entry->delta);
    pending_insert(journal->pending, entry);
    c->records++;
}

/* ERR_FULL where CHANGE has to wait for the next batch; else it has its outcome. */
static int commit_one(struct journal *journal, struct change *change)
{
    struct committer *c = &journal->committer;
    int rc;

    if (change->request.kind == CHANGE_MOVE)
        rc = commit_move(journal, change);
    else if (change->request.kind == CHANGE_SNAPSHOT)
        rc = commit_chunk(journal, change);
    else if (change->request.kind == CHANGE_PEER)
        rc = commit_peer_events(journal, change);
    else if (change->request.kind == CHANGE_MERGE)
        rc = commit_merge(journal, change);
    else if (change->request.kind == CHANGE_REPUT)
        rc = commit_reput(journal, change);
    else if (change->request.kind == CHANGE_FACT)
        rc = commit_fact(journal, change);
    else if (change->request.kind == CHANGE_RESTATE)
        rc = commit_restated(journal, change);
    else
        rc = commit_client_change(journal, change);
    if (rc == ERR_FULL)
        return rc;
    change->rc = rc;
    if (rc)
        c->refused++;
    c->decided[c->decided_count++] = change;
    return 0;
}

/* The batch did not happen: nobody may see its entries, and its sequence numbers are free again. */
static void void_batch(struct journal *journal, const struct chain *chain, int rc)
{
    struct committer *c = &journal->committer;

    for (struct entry *entry = c->first, *next; entry; entry = next) {
        next = entry->next;
        pending_remove(journal->pending, entry);
    }
    c->first = c->last = NULL;
    c->chain = *chain;
    heads_undo(&c->heads);
    if (c->held_next < c->held_count) {
        struct change *begun = c->held[c->held_next];

        if (begun->events_done || begun->drops_done) { /* what it did in this batch is void, too */
            begun->events_done = begun->drops_done = 0;
            c->decided[c->decided_count++] = begun;
            c->held_next++;
        }
    }
    for (size_t i = 0; i < c->decided_count; i++) {
        struct change *change = c->decided[i];

        object_destroy(&change->object);
        change->rc = rc;
        change->lsn = 0;
        change->stored = false;
    }
}

static void stop_writing(struct journal *journal, const char *what, int rc)
{
    if (!(atomic_fetch_or(&journal->read_only, READ_ONLY_LOG) & READ_ONLY_LOG))
        log_error("%s: %s; this node takes no more writes until it is restarted", what,
                  err_text(rc));
}

/* Write the open batch and make it durable. */
static int write_batch(struct journal *journal)
{
    struct committer *c = &journal->committer;
    lsn_t synced = log_synced(journal->log);
    int rc = log_write(journal->log);

    if (rc) {
        log_error("commit log: batch of %zu changes not written: %s", c->decided_count,
                  err_text(rc));
        return rc;
    }
    rc = log_sync(journal->log);
    if (rc)
        stop_writing(journal, "commit log not synced", rc);
    else
        c->marked = synced;
    return rc;
}

/* The RAM tier learns of ENTRY after it became visible and before it is acknowledged. */
static void refresh_ram(struct ram *ram, const struct entry *entry)
{
    const struct object *object = entry->object;

    if (!object)
        return;
    /* Copies that were fetched from elsewhere serve until the object is deleted or is here. */
    if (object->flags & OBJECT_DELETED || !place_is_none(&object->place))
        ram_invalidate(ram, &object->id);
    else
        ram_renew(ram, &object->id);
    if (object->flags & OBJECT_PLAIN && !place_is_none(&object->place)) {
        struct ram_location location = {object->place, object->record_bytes};

        ram_place(ram, ram_token(ram, &object->id), &object->id, &location);
    }
}

static void publish_batch(struct journal *journal)
{
    struct committer *c = &journal->committer;

    pending_publish(journal->pending, c->batch);
    if (journal->config.ram)
        for (const struct entry *entry = c->first; entry; entry = entry->next)
            refresh_ram(journal->config.ram, entry);
    if (c->last)
        c->last->batch_end = log_end(journal->log);

    pthread_mutex_lock(&journal->lock);
    state_add(&journal->acked, &c->delta);
    journal->run = c->chain.origin; /* zero where it was left and there is no other yet */
    if (c->chain.seq) {
        journal->acked.last_origin = c->chain.origin;
        journal->acked_seq = c->chain.seq;
    }
    journal->batches++;
    journal->syncs += journal->config.sync;
    journal->records += c->records;
    if (c->first) {
        if (journal->apply_last)
            journal->apply_last->next = c->first;
        else
            journal->apply_first = c->first;
        journal->apply_last = c->last;
        uint64_t before = journal->apply_queued;

        journal->apply_queued += c->records;
        if (before == 0 ||
            (before < LIMIT_APPLY_RECORDS && journal->apply_queued >= LIMIT_APPLY_RECORDS))
            pthread_cond_signal(&journal->work);
    }
    pthread_mutex_unlock(&journal->lock);
    c->first = c->last = NULL;
}

/* Decide held changes from the next one on until the batch is full. */
static void decide_held(struct journal *journal)
{
    struct committer *c = &journal->committer;

    while (c->held_next < c->held_count) {
        if (commit_one(journal, c->held[c->held_next]) == ERR_FULL)
            break;
        c->held_next++;
    }
}

static void refuse_held(struct journal *journal, int rc)
{
    struct committer *c = &journal->committer;

    for (; c->held_next < c->held_count; c->held_next++) {
        struct change *change = c->held[c->held_next];

        change->rc = rc;
        c->decided[c->decided_count++] = change;
    }
}

/* Answer everything decided in this step; a change may be freed by its DONE. */
static void answer(struct committer *c)
{
    for (size_t i = 0; i < c->decided_count; i++)
        c->decided[i]->done(c->decided[i]);
    c->decided_count = 0;
}

static void rotate(struct journal *journal)
{
    struct committer *c = &journal->committer;
    int rc = log_rotate(journal->log);

    if (!rc && !(rc = log_begin(journal->log, c->clock.last)))
        rc = write_batch(journal);
    if (rc)
        log_warn("segment not sealed: %s", err_text(rc));
    journal->rotated = rc;
    atomic_store(&journal->rotate, false);
}

bool committer_holds(const struct journal *journal)
{
    return journal->committer.held_next < journal->committer.held_count;
}

unsigned journal_commit_step(struct journal *journal)
{
    struct committer *c = &journal->committer;
    struct chain chain = c->chain;
    int rc;

    if (atomic_load(&journal->rotate))
        rotate(journal);
    if (c->held_next == c->held_count) {
        c->held_next = 0;
        c->held_count = queue_take(journal->queue, c->held, LIMIT_BATCH_RECORDS);
    }
    if (c->held_count == 0)
        return 0;

    c->delta = (struct delta){0};
    c->records = 0;
    c->decided_count = 0;
    if (atomic_load(&journal->read_only))
        rc = ERR_READ_ONLY;
    else if ((rc = log_begin(journal->log, c->clock.last)) == ERR_READ_ONLY)
        stop_writing(journal, "commit log", rc);
    if (rc) {
        refuse_held(journal, rc);
    } else {
        c->batch++;
        heads_begin(&c->heads);
        decide_held(journal);
        if (c->first) {
            rc = write_batch(journal);
            if (rc)
                void_batch(journal, &chain, rc);
            else
                publish_batch(journal);
        }
    }
    atomic_fetch_add(&journal->refused, c->refused);
    c->refused = 0;

    unsigned taken = (unsigned)c->decided_count;
    answer(c);
    return taken;
}

void committer_mark(struct journal *journal)
{
    struct committer *c = &journal->committer;

    /* An empty batch says that all before it was synced; it needs no second one to say so of
     * itself. */
    if (c->marked >= log_synced(journal->log) || c->batch == 0 || atomic_load(&journal->read_only))
        return;
    if (log_begin(journal->log, c->clock.last) == 0 && write_batch(journal) == 0)
        c->marked = log_synced(journal->log);
}
