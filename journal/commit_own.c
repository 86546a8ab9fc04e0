/*
 * What this node says itself: a change that a client or one of its own threads asks for becomes an
 * event of its run.
 *
 * Happy path: read the newest row → decide → seal the event (seq, stamp, hash of the one before) →
 * fold it into an entry → log_add → the chain goes on. Where one change says two things (an upload
 * that a put brings along, a drop beside what is adopted), each is an event, in this order.
 *
 * Failure: what decide refuses changes nothing and is answered with the row as it stands. ERR_FULL
 * leaves the change for the next batch. The chain moves only with an event that is in the batch;
 * void_batch (commit.c) sets it back.
 */
#include "journal/journal_internal.h"

#include <assert.h>
#include <string.h>

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

/* The event's bytes are lent to the log until log_write, so the entry, which keeps them, is made
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

int commit_client_change(struct journal *journal, struct change *change)
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

int commit_reput(struct journal *journal, struct change *change)
{
    struct object *lost = NULL;
    int rc = committer_row(journal, &change->lost, &lost);
    bool deleted = lost && lost->flags & OBJECT_DELETED;

    object_destroy(&lost);
    if (rc)
        return rc;
    return deleted ? ERR_DELETED : commit_client_change(journal, change);
}

int commit_fact(struct journal *journal, struct change *change)
{
    struct decision d = {.event = *change->fact};

    d.event.stamp = 0;
    assert(!fold_concerns_row(&d.event));
    if (d.event.kind == EVENT_FREEZE)
        return freeze_fact(journal, change, &d);
    return committer_event(journal, change, &d, NULL);
}

/* A copy that was found damaged when EVENT was written lies in BEFORE again. To journal the drop
 * anew would take this one along: drops speak of what lies below them in the log. */
static bool is_healed(const struct event *event, const struct object *before)
{
    return event->kind == EVENT_DROP && before && !place_is_none(&before->place);
}

int commit_restated(struct journal *journal, struct change *change)
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
    if ((rc = absent_answer_of(journal, &d.event)) != 0)
        return rc;
    if (fold_concerns_row(&d.event) && (rc = committer_row(journal, &d.event.id, &before)) != 0)
        return rc;
    if (is_healed(&d.event, before)) {
        object_destroy(&before);
        return 0;
    }
    rc = committer_event(journal, change, &d, before);
    object_destroy(&before);
    if (rc == 0) {
        c->last->restated = origin;
        c->last->restated_seq = seq;
    }
    return rc;
}
