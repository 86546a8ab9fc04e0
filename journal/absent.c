/*
 * What this node is said to hold, and does not. A node that was restored from a backup, or whose
 * disk was copied, gets back events of its own that it does not know: puts, which say that their
 * author has the bytes, and holds. Others would count on copies that are not here.
 *
 * Happy path: the events of a change are looked through before they are taken; what they say that
 * we hold and no row places here becomes one drop event (of up to LIMIT_EVENT_LIST_ITEMS items) in
 * front of them. So there is no moment at which the hold is durable and the drop is not. Each drop
 * is stamped above what it answers. Whoever makes a copy later journals a hold, which is later
 * still.
 *
 * Rows that come with a merge say it likewise: what a run of ours has put that is not known here,
 * and what others have heard of our holds.
 *
 * Failure: a drop that was written for events that were then refused says the truth all the same.
 */
#include "journal/journal_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct absent {
    struct journal *journal;
    struct event_item *items;
    uint32_t count;
    hlc_time latest; /* of what says that we hold them */
};

static int flush(struct absent *absent)
{
    struct committer *c = &absent->journal->committer;
    struct change change = {.request.kind = CHANGE_FACT};
    struct decision d = {.event = {.kind = EVENT_DROP,
                                   .fields = EVENT_HAS_ITEMS,
                                   .items = absent->items,
                                   .item_count = absent->count}};

    if (absent->count == 0)
        return 0;
    d.event.stamp = hlc_stamp(&c->clock, env_wall_ms(absent->journal->env), absent->latest);
    absent->count = 0;
    absent->latest = 0;
    return committer_event(absent->journal, &change, &d, NULL);
}

static int look(struct absent *absent, const struct id128 *id, const uint8_t *sha256, hlc_time said)
{
    struct object *row;
    int rc = committer_row(absent->journal, id, &row);

    if (rc)
        return rc;
    bool here =
        row && !place_is_none(&row->place) && memcmp(row->sha256, sha256, SHA256_BYTES) == 0;
    bool matters = !here && !(row && row->flags & OBJECT_DELETED);

    object_destroy(&row);
    if (!matters)
        return 0;
    if (!absent->items && !(absent->items = malloc(LIMIT_EVENT_LIST_ITEMS * sizeof *absent->items)))
        return ERR_NO_MEMORY;
    struct event_item *item = &absent->items[absent->count++];

    item->id = *id;
    memcpy(item->sha256, sha256, SHA256_BYTES);
    if (said > absent->latest)
        absent->latest = said;
    return absent->count == LIMIT_EVENT_LIST_ITEMS ? flush(absent) : 0;
}

/* One event that may be news; its run's head is looked up once for all of them. */
static int look_at(struct absent *absent, const struct event *event)
{
    int rc = 0;

    if (event->kind == EVENT_PUT)
        return look(absent, &event->id, event->sha256, event->stamp);
    if (event->kind != EVENT_HOLD)
        return 0;
    for (uint32_t i = 0; rc == 0 && i < event->item_count; i++)
        rc = look(absent, &event->items[i].id, event->items[i].sha256, event->stamp);
    return rc;
}

/* Whether one of the runs that this node has lost put ROW's bytes. */
static bool is_lost_put(const struct change *change, const struct object *row)
{
    bool lost = false;

    for (size_t i = 0; row->flags & OBJECT_PUT && i < change->lost_run_count && !lost; i++)
        lost = id_equal(&change->lost_runs[i], &row->put_at.origin);
    return lost;
}

int absent_drop_chunk(struct journal *journal, const struct change *change, const uint8_t *chunk,
                      size_t len)
{
    struct absent absent = {.journal = journal};
    struct snapshot_reader reader;
    struct snapshot_holder holder;
    struct object *row = NULL;
    int rc = snapshot_open(&reader, chunk, len), next = 1;

    if (rc)
        return 0; /* found out, and refused, by whoever takes it */
    while (rc == 0 && next == 1 && reader.kind == SNAPSHOT_ROWS && change->lost_run_count) {
        next = snapshot_next_row(&reader, &row);
        if (next == 1 && is_lost_put(change, row))
            rc = look(&absent, &row->id, row->sha256, row->put_at.stamp);
        object_destroy(&row);
    }
    while (rc == 0 && next == 1 && reader.kind == SNAPSHOT_HOLDERS) {
        next = snapshot_next_holder(&reader, &holder);
        if (next == 1 && holder.held && id_equal(&holder.node, &journal->node))
            rc = look(&absent, &holder.id, holder.sha256, holder.at.stamp);
    }
    if (rc == 0)
        rc = flush(&absent);
    free(absent.items);
    return rc;
}

int absent_drop_of(struct journal *journal, const struct event *event)
{
    struct absent absent = {.journal = journal};
    int rc = look_at(&absent, event);

    if (rc == 0)
        rc = flush(&absent);
    free(absent.items);
    return rc;
}

int absent_drop(struct journal *journal, const struct change *change)
{
    struct absent absent = {.journal = journal};
    int rc = 0;

    for (size_t at = change->events_done; rc == 0 && at < change->events_bytes;) {
        struct event event;
        uint32_t len;

        if (change->events_bytes - at < sizeof len)
            break; /* found out, and refused, when it is its turn */
        memcpy(&len, change->events + at, sizeof len);
        at += sizeof len;
        if (len > change->events_bytes - at || event_decode(&event, change->events + at, len) != 0)
            break;
        at += len;
        if (!id_equal(&event.node, &journal->node))
            break; /* events come run by run, and a run has one author */
        const struct head *head = heads_get(&journal->committer.heads, &event.origin);
        bool own = journal->committer.chain.seq > 0 &&
                   id_equal(&event.origin, &journal->committer.chain.origin);

        if (!head)
            rc = ERR_NO_MEMORY;
        else if (!own && !head->frozen && event.seq > head->seq)
            rc = look_at(&absent, &event);
    }
    if (rc == 0)
        rc = flush(&absent);
    free(absent.items);
    return rc;
}
