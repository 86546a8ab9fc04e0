/*
 * The committer: decides what is queued, in order, writes all of it as one batch into the log,
 * makes it durable with one sync, and only then lets anybody see or hear of it.
 *
 * Happy path, one step: take the queue → decide each change against the newest row (pending entries
 * first, those of this very batch included, then SQLite) → log_write → log_sync → publish the
 * pending entries → bring the RAM tier up to date → hand the entries to the applier → done() for
 * all.
 *
 * Failure: a batch that could not be written is void with all its decisions, no-ops included, since
 * a no-op may rest on a change that did not happen. Before anything else is answered an empty batch
 * is written elsewhere: what the failed one may have left on disk is then known not to count. A
 * failed sync is final: the state of the disk is unknown, and the node takes no writes until a
 * restart has read what is really there.
 */
#include "base/log.h"
#include "journal/conflict.h"
#include "journal/db_conflict.h"
#include "journal/journal_internal.h"
#include "journal/ulid.h"

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

/* Give EVENT its place in this run's chain, and a stamp where it has none, and encode it into
 * c->event. */
static int seal_event(struct journal *journal, struct chain *chain, struct event *event,
                      hlc_time replaced)
{
    struct committer *c = &journal->committer;

    if (chain->seq == 0) {
        chain->origin = freeze_draw_run(journal, &chain->follows.origin);
        if (chain->follows.seq && event->kind == EVENT_FREEZE) {
            event->fields |= EVENT_HAS_AFTER;
            event->after = chain->follows;
        } else if (chain->follows.seq) {
            event->fields |= EVENT_HAS_FOLLOWS;
            event->follows = chain->follows;
        }
    }
    event->origin = chain->origin;
    event->seq = chain->seq + 1;
    event->node = journal->node;
    if (event->stamp == 0) /* else it says again what was said then */
        event->stamp = hlc_stamp(&c->clock, env_wall_ms(journal->env), replaced);
    memcpy(event->prev, chain->hash, SHA256_BYTES);
    buf_reset(&c->event);
    event_encode(&c->event, event);
    return buf_check(&c->event);
}

/* Where the record of CHANGE and event RAW carries its body, as header and as log record. */
static void describe(const struct change *change, bool store_body, const void *raw,
                     size_t raw_bytes, struct record_header *header, struct log_record *record)
{
    const struct request *request = &change->request;

    *header = (struct record_header){
        .type = RECORD_EVENT, .event_bytes = (uint32_t)raw_bytes, .id = request->id};
    *record = (struct log_record){
        .type = RECORD_EVENT, .id = request->id, .event = raw, .event_bytes = (uint32_t)raw_bytes};
    if (!store_body)
        return;
    header->size = record->size = request->size;
    if (change->file) {
        header->flags = record->flags = RECORD_LARGE;
        header->file = record->file = change->file;
        header->trailer = record->trailer = change->trailer;
    } else {
        header->flags = record->flags = RECORD_HAS_BODY;
        header->blocks = (uint16_t)block_count(request->size);
        header->body_bytes = record->body_bytes = (uint32_t)request->size;
        record->body = change->body;
        record->sums = change->sums;
    }
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

/*
 * Write what was decided as a record of this batch. ERR_FULL: the batch is full; nothing happened.
 * The event's bytes are lent to the log until log_write, so the entry, which keeps them, is made
 * with a place of zero first and folded again only in its place: the place is known after log_add.
 */
int committer_event(struct journal *journal, struct change *change, struct decision *d,
                    const struct object *before)
{
    struct committer *c = &journal->committer;
    struct chain chain = c->chain;
    struct record_header header;
    struct log_record record;
    struct entry *entry;
    struct place place = {.volume = 1, .lsn = UINT64_MAX};
    int rc;

    hlc_time replaced = change->fact ? change->fact->stamp : object_stamp(before);
    if ((rc = seal_event(journal, &chain, &d->event, replaced)) != 0)
        return rc;
    describe(change, d->store_body, c->event.data, c->event.len, &header, &record);
    if ((rc = fold_event(&entry, before, &d->event, c->event.data, c->event.len, &header, &place,
                         &journal->node)) != 0)
        return rc;
    /* decide refuses what would beat, or lose against, what is known; what is said again is not
     * decided. */
    assert(!entry->loser || change->request.kind == CHANGE_RESTATE);
    record.event = entry->event;
    if (entry->object && !(change->object = object_copy(entry->object))) {
        entry_destroy(entry);
        return ERR_NO_MEMORY;
    }
    if ((rc = log_add(journal->log, &record, &place)) != 0) {
        object_destroy(&change->object);
        entry_destroy(entry);
        return rc;
    }
    entry->lsn = place.lsn;
    if (d->store_body) {
        if (!change->file) {
            entry->object->place = place;
            entry->inline_volume = place.volume;
        } else {
            entry->object->place.disk = place.disk;
            entry->object->place.lsn = place.lsn;
        }
        change->object->place = entry->object->place;
        change->stored = true;
    }
    memcpy(chain.hash, entry->hash, SHA256_BYTES);
    chain.seq = d->event.seq;
    c->chain = chain;
    change->lsn = place.lsn;
    committer_add(journal, entry);
    return 0;
}

/* An event beside the one that CHANGE is about. */
static int commit_beside(struct journal *journal, struct decision *d, enum change_kind kind,
                         const struct object *before)
{
    struct change beside = {.request = {.kind = kind, .id = d->event.id}};
    int rc = committer_event(journal, &beside, d, before);

    object_destroy(&beside.object);
    return rc;
}

/* What CHANGE says of the cloud comes first: where the batch has no room for the rest, that follows
 * in the next one. *BEFORE is the row after it. */
static int commit_uploaded(struct journal *journal, const struct change *change,
                           struct object **before)
{
    struct decision d;

    if (!decide_uploaded(&d, *before, &change->request))
        return 0;
    int rc = commit_beside(journal, &d, CHANGE_CLOUD, *before);

    object_destroy(before);
    return rc ? rc : committer_row(journal, &change->request.id, before);
}

/* A put says that its author has the bytes. Of what is adopted that is not so: nobody is to count
 * on this node, not for a moment, so the drop comes before the put. */
static int commit_not_here(struct journal *journal, const struct change *change)
{
    const struct request *request = &change->request;
    struct committer *c = &journal->committer;
    struct decision d = {.verdict = VERDICT_COMMIT,
                         .item.id = request->id,
                         .event = {.kind = EVENT_DROP, .fields = EVENT_HAS_ITEMS, .item_count = 1}};

    memcpy(d.item.sha256, request->sha256, SHA256_BYTES);
    d.event.items = &d.item;
    d.event.stamp = hlc_stamp(&c->clock, env_wall_ms(journal->env), request->stamp);
    return commit_beside(journal, &d, CHANGE_FACT, NULL);
}

static int commit_client_change(struct journal *journal, struct change *change)
{
    struct object *before = NULL;
    struct decision d;
    int rc;

    if (!change->fresh && (rc = committer_row(journal, &change->request.id, &before)) != 0)
        return rc;
    change->first = !before;
    if ((rc = commit_uploaded(journal, change, &before)) != 0)
        goto out;
    rc = decide(&d, before, &change->request);
    if (rc == 0 && d.verdict == VERDICT_COMMIT && change->request.kind == CHANGE_ADOPT)
        rc = commit_not_here(journal, change);
    if (rc == 0) {
        change->verdict = d.verdict;
        if (d.verdict == VERDICT_COMMIT)
            rc = committer_event(journal, change, &d, before);
    }
    if (rc != ERR_FULL && !change->object) {
        change->object = before; /* refused or unchanged: the row as it stands */
        return rc;
    }
out:
    object_destroy(&before);
    return rc;
}

/* Bytes that lost under change->lost get an id of their own, unless that one is deleted: then they
 * are, too. */
static int commit_reput(struct journal *journal, struct change *change)
{
    struct object *lost = NULL;
    int rc = committer_row(journal, &change->lost, &lost);
    bool deleted = lost && lost->flags & OBJECT_DELETED;

    object_destroy(&lost);
    if (rc)
        return rc;
    return deleted ? ERR_DELETED : commit_client_change(journal, change);
}

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

/* Cleaning: the record at move_from goes to the end of the log; its body too, if it still counts.
 */
static int commit_move(struct journal *journal, struct change *change)
{
    const struct record_header *old = &change->move_header;
    struct object *before = NULL;
    struct record_header header = *old;
    struct place place = {.volume = 1, .lsn = UINT64_MAX};
    struct entry *entry;
    struct event event;
    int rc = event_decode(&event, change->move_event, change->move_event_bytes);

    if (rc || (rc = committer_row(journal, &old->id, &before)) != 0)
        return rc;
    bool large = old->flags & RECORD_LARGE;
    bool live =
        before && (large ? before->place.volume == PLACE_LARGE && before->place.offset == old->file
                         : place_equal(&before->place, &change->move_from));
    bool kept = false;

    if (!live)
        rc = is_kept(journal, change, &event, before, &kept);
    if (rc == 0 && kept && change->move_rotten)
        rc = ERR_CORRUPT;
    else if (rc == 0 && kept && !conflict_loses(&event, before))
        rc = ERR_AGAIN; /* its event would not bring it back after a rebuild: first it is put again
                         */
    if (rc) {
        object_destroy(&before);
        return rc;
    }
    live |= kept;
    if (!live && change->move_covered && fold_is_covered(&event)) {
        object_destroy(&before);
        change->verdict = VERDICT_UNCHANGED;
        return 0;
    }
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

    rc = fold_event(&entry, before, &event, change->move_event, change->move_event_bytes, &header,
                    &place, &journal->node);
    object_destroy(&before);
    if (rc)
        return rc;
    if ((rc = log_add(journal->log, &record, &place)) != 0) {
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

/* A chunk of a snapshot is a record like any other; what it says is the applier's business. So is
 * one of a merge that cleaning moves. */
static int commit_chunk(struct journal *journal, struct change *change)
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

/* One event of another node, or of an earlier run of ours that came back. */
int commit_peer_event(struct journal *journal, struct change *change, const uint8_t *raw,
                      size_t len)
{
    struct committer *c = &journal->committer;
    struct record_header header = {.type = RECORD_EVENT, .event_bytes = (uint32_t)len};
    struct place place = {.volume = 1, .lsn = UINT64_MAX};
    struct object *before = NULL;
    struct entry *entry;
    struct event event;
    int rc = event_decode(&event, raw, len);

    if (rc)
        return rc;
    struct head *head = heads_get(&c->heads, &event.origin);
    if (!head)
        return ERR_NO_MEMORY;
    if ((rc = freeze_judge(journal, head, &event, raw, len)) != 0)
        return rc == ERR_EXISTS ? 0 : rc;
    if (fold_needs_row(&event, &journal->node) &&
        (rc = committer_row(journal, &event.id, &before)) != 0)
        return rc;
    header.id = event.id;
    rc = fold_event(&entry, before, &event, raw, len, &header, &place, &journal->node);
    object_destroy(&before);
    if (rc)
        return rc;
    struct log_record record = {
        .type = RECORD_EVENT, .id = event.id, .event = entry->event, .event_bytes = (uint32_t)len};
    if ((rc = log_add(journal->log, &record, &place)) != 0) {
        entry_destroy(entry);
        return rc;
    }
    entry->lsn = change->lsn = place.lsn;
    heads_set(&c->heads, head, event.seq, entry->hash);
    if (!hlc_observe(&c->clock, env_wall_ms(journal->env), event.stamp))
        atomic_fetch_add(&journal->clock_faults, 1);
    committer_add(journal, entry);
    if (event.kind == EVENT_FREEZE)
        freeze_heard(journal, &event);
    return 0;
}

/* As many of CHANGE's events as the batch has room for; ERR_FULL where some are left. */
static int commit_peer_events(struct journal *journal, struct change *change)
{
    int rc = absent_drop(journal, change);

    if (rc)
        return rc;
    while (change->events_done < change->events_bytes) {
        const uint8_t *at = change->events + change->events_done;
        size_t left = change->events_bytes - change->events_done;
        uint32_t len;

        if (left < sizeof len)
            return ERR_INVALID;
        memcpy(&len, at, sizeof len);
        if (len == 0 || len > LIMIT_EVENT_BYTES || len > left - sizeof len)
            return ERR_INVALID;
        rc = commit_peer_event(journal, change, at + sizeof len, len);
        if (rc)
            return rc;
        change->events_done += sizeof len + len;
    }
    return 0;
}

/* An event of ours about no object: a member, what is held. */
static int commit_fact(struct journal *journal, struct change *change)
{
    struct decision d = {.event = *change->fact};

    d.event.stamp = 0;
    assert(!fold_concerns_row(&d.event));
    if (d.event.kind == EVENT_FREEZE)
        return freeze_fact(journal, change, &d);
    return committer_event(journal, change, &d, NULL);
}

/* An own event of a frozen run once more, under the run of now: as it was, its stamp included. */
static int commit_restated(struct journal *journal, struct change *change)
{
    struct committer *c = &journal->committer;
    struct decision d = {.verdict = VERDICT_COMMIT};
    struct object *before = NULL;
    struct id128 origin;
    uint64_t seq;
    int rc = event_decode(&d.event, change->move_event, change->move_event_bytes);

    if (rc)
        return rc;
    origin = d.event.origin;
    seq = d.event.seq;
    d.event.fields &=
        ~(uint32_t)(d.event.kind == EVENT_FREEZE ? EVENT_HAS_AFTER : EVENT_HAS_FOLLOWS);
    change->request.id = d.event.id;
    if ((rc = absent_drop_of(journal, &d.event)) != 0)
        return rc;
    if (fold_concerns_row(&d.event) && (rc = committer_row(journal, &d.event.id, &before)) != 0)
        return rc;
    rc = committer_event(journal, change, &d, before);
    object_destroy(&before);
    if (rc == 0) {
        c->last->restated = origin;
        c->last->restated_seq = seq;
    }
    return rc;
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

        if (begun->events_done) { /* what it did in this batch is void, too */
            begun->events_done = 0;
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
