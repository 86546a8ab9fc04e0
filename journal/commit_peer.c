/*
 * What other nodes say, and what came back of earlier runs of our own: their events take the way of
 * a client's change, one record each, under their own names and stamps.
 *
 * Happy path: for what the events say that we hold and we do not, drops are journaled first
 * (absent.c) → each event is judged against the head of its run (freeze.c) → folded into the row →
 * log_add → the head moves on. Failure: an event that is here already is passed over; one that
 * does not follow, or contradicts its run, ends the change with what was taken before it. ERR_FULL
 * leaves the rest for the next batch.
 */
#include "journal/journal_internal.h"

#include <string.h>

int commit_peer_event(struct journal *journal, struct change *change, const uint8_t *raw,
                      uint32_t len)
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

int commit_items(struct journal *journal, struct change *change,
                 int (*commit)(struct journal *journal, struct change *change, const uint8_t *item,
                               uint32_t len))
{
    while (change->events_done < change->events_bytes) {
        const uint8_t *at = change->events + change->events_done;
        size_t left = change->events_bytes - change->events_done;
        uint32_t len;

        if (left < sizeof len)
            return ERR_INVALID;
        memcpy(&len, at, sizeof len);
        if (len == 0 || len > LIMIT_EVENT_BYTES || len > left - sizeof len)
            return ERR_INVALID;
        int rc = commit(journal, change, at + sizeof len, len);
        if (rc)
            return rc;
        change->events_done += sizeof len + len;
    }
    return 0;
}

int commit_peer_events(struct journal *journal, struct change *change)
{
    int rc = absent_answer(journal, change);

    return rc ? rc : commit_items(journal, change, commit_peer_event);
}
