/*
 * The committer's side of a merge: chunks of rows, holders and members of a peer, and runs of its
 * vector, become records of the batch like anything else, so they are durable before anybody hears
 * of them and survive whatever an event survives.
 *
 * Events that no row tells of come one by one, without their predecessors, and become records of
 * events: cleaning and compaction keep them as they keep all of their kinds. They move no head: the
 * run's other events come as events, or are adopted with its vector.
 *
 * Runs move this node's heads: from then on the next event of such a run is the one behind what was
 * adopted. A batch that fails takes that back (heads_undo).
 *
 * Failure: a chunk is taken as a whole or not at all; those before it stay.
 */
#include "journal/db_peers.h"
#include "journal/journal_internal.h"

#include <assert.h>
#include <string.h>

/* Whether all runs in READER, an origins chunk, may be adopted; each gets a head. */
static int check_runs(struct journal *journal, struct snapshot_reader reader)
{
    struct committer *c = &journal->committer;
    struct snapshot_origin origin;
    int rc;

    while ((rc = snapshot_next_origin(&reader, &origin)) == 1) {
        bool own = c->chain.seq && id_equal(&origin.origin, &c->chain.origin);

        if (own && origin.seq > c->chain.seq)
            return ERR_CONFLICT;
        if (!own && !heads_get(&c->heads, &origin.origin))
            return ERR_NO_MEMORY;
    }
    return rc;
}

static void raise_heads(struct journal *journal, struct snapshot_reader reader)
{
    struct committer *c = &journal->committer;
    struct snapshot_origin origin;

    while (snapshot_next_origin(&reader, &origin) == 1) {
        if (c->chain.seq && id_equal(&origin.origin, &c->chain.origin))
            continue;
        struct head *head = heads_get(&c->heads, &origin.origin);

        assert(head);
        if (origin.seq > head->seq)
            heads_set(&c->heads, head, origin.seq, origin.hash);
    }
}

static int commit_one_chunk(struct journal *journal, struct change *change, const uint8_t *chunk,
                            uint32_t len)
{
    struct committer *c = &journal->committer;
    struct log_record record = {.event = chunk, .event_bytes = len};
    struct snapshot_reader runs;
    struct entry *first = NULL, *next;
    enum record_type type;
    struct place place;
    hlc_time stamp = 0;
    int rc = 0;

    /* Once: the chunk itself may have to wait for the next batch. */
    if (change->drops_done <= change->events_done)
        rc = absent_answer_chunk(journal, change, chunk, len);
    if (rc == 0) {
        change->drops_done = change->events_done + 1;
        rc = merge_chunk_fold(&first, &type, &stamp, chunk, len, 0, committer_row, journal);
    }
    if (rc || !first)
        return rc;
    record.type = type;
    if (type == RECORD_VECTOR) {
        rc = snapshot_open(&runs, chunk, len);
        if (rc == 0)
            rc = check_runs(journal, runs);
    }
    if (rc == 0)
        rc = log_add(journal->log, &record, &place);
    if (rc) {
        merge_entries_destroy(first);
        return rc;
    }
    if (type == RECORD_VECTOR)
        raise_heads(journal, runs);
    if (stamp && !hlc_observe(&c->clock, env_wall_ms(journal->env), stamp))
        atomic_fetch_add(&journal->clock_faults, 1);
    change->lsn = place.lsn;
    for (; first; first = next) {
        next = first->next;
        first->next = NULL;
        first->lsn += place.lsn;
        committer_add(journal, first);
    }
    return 0;
}

static int is_there(struct journal *journal, const struct event *event, bool *there)
{
    struct buf found;
    uint32_t count;

    buf_init(&found, LIMIT_EVENT_BYTES + sizeof(uint32_t));
    int rc =
        db_reader_events(journal->committer.reader, &event->origin, event->seq, 0, &found, &count);

    *there = rc == 0;
    buf_release(&found);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int add_kept_event(struct journal *journal, struct change *change, const struct event *event,
                          const uint8_t *raw, uint32_t len)
{
    struct committer *c = &journal->committer;
    const struct record_header header = {.type = RECORD_EVENT, .event_bytes = len, .id = event->id};
    struct place place = {.volume = 1, .lsn = UINT64_MAX};
    struct entry *entry;
    int rc = fold_event(&entry, NULL, event, raw, len, &header, &place, &journal->node);

    if (rc)
        return rc;
    struct log_record record = {
        .type = RECORD_EVENT, .id = event->id, .event = entry->event, .event_bytes = len};
    if ((rc = log_add(journal->log, &record, &place)) != 0) {
        entry_destroy(entry);
        return rc;
    }
    entry->lsn = change->lsn = place.lsn;
    if (!hlc_observe(&c->clock, env_wall_ms(journal->env), event->stamp))
        atomic_fetch_add(&journal->clock_faults, 1);
    committer_add(journal, entry);
    if (event->kind == EVENT_FREEZE)
        freeze_heard(journal, event);
    return 0;
}

/* One event of a kind that is in no row. Of this process's own run, and of a frozen one, nothing is
 * taken in this way; what does not follow its run's head, although it is the next one, is left for
 * sync to find, and to freeze the run. */
static int commit_kept_event(struct journal *journal, struct change *change,
                             const struct event *event, const uint8_t *raw, uint32_t len)
{
    struct committer *c = &journal->committer;
    bool there;

    if (fold_is_covered(event))
        return ERR_INVALID;
    if (c->chain.seq && id_equal(&event->origin, &c->chain.origin))
        return 0;
    const struct head *head = heads_get(&c->heads, &event->origin);

    if (!head)
        return ERR_NO_MEMORY;
    if (head->frozen)
        return 0;
    if (event->seq == head->seq + 1)
        return memcmp(event->prev, head->hash, SHA256_BYTES) == 0
                   ? commit_peer_event(journal, change, raw, len)
                   : 0;
    int rc = is_there(journal, event, &there);

    return rc || there ? rc : add_kept_event(journal, change, event, raw, len);
}

static int commit_item(struct journal *journal, struct change *change, const uint8_t *item,
                       uint32_t len)
{
    struct event event;

    /* An event is an array of nine, a chunk of five: none is both. */
    if (event_decode(&event, item, len) == 0)
        return commit_kept_event(journal, change, &event, item, len);
    return commit_one_chunk(journal, change, item, len);
}

int commit_merge(struct journal *journal, struct change *change)
{
    return commit_items(journal, change, commit_item);
}
